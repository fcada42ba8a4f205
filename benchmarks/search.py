"""How long a search takes over many memories, in one process through the service over SQLite, and what the index costs.

Two layouts: 1,000 namespaces of Zipf's sizes, asked in those of up to 10,000 memories (as often as they hold some, and the
largest alone) and over all, and one namespace of everything. Three kinds of questions: four content words of a stored memory,
what people ask, and what nobody asks on purpose (benchmarks/_odd.py). With --writes also how many durable stores a second the
index allows.
"""

import argparse
import asyncio
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks._load import percentile
from benchmarks._machine import Machine, machine
from benchmarks._odd import odd_query
from benchmarks._rest import API, RequestFailedError, Rest
from benchmarks._servers import service as serving
from benchmarks._sizes import Sizes, sizes
from benchmarks._texts import Texts, content_words
from unified_memory.model.clock import SystemClock
from unified_memory.model.errors import EmptyQueryError, UnifiedMemoryError
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.drafting import Limits
from unified_memory.service.requests import BatchStoreRequest, SearchQuery, StoreRequest
from unified_memory.service.service import Service, assemble
from unified_memory.storage.sqlite import SQLiteStorage

LAYOUTS = ("zipf", "one")
ONE_NAMESPACE = "bench/one"
ZIPF_NAMESPACES = 1_000
# "Within a namespace" asks those of at most so many memories.
NAMESPACE_MEMORIES = 10_000
# The variants of --writes; `options` go to the storage.
CONTEXT = "sessions of 20 turns"
NO_CONTEXT = "no session"
_DATABASE = "unified-memory.db"
_BATCH = 1_000
_SAMPLE = 2_000
_LIMIT = 10
_EMPTY_QUERY = 422
_WORDS = 4
_WARM = 20
_TASKS = 32
_SESSION_TURNS = 20
_WRITE_BATCH = 200
_AUTHORS = ("ann", "bob", "cleo", "dan")
_TAGS = tuple(f"topic-{number}" for number in range(40))
_WIDTH = 130


class Stored(Struct, frozen=True):
    """A memory as it is stored."""

    namespace: str
    key: str
    value: str
    metadata: dict[str, object]


class Variant(Struct, frozen=True):
    """A way to store that --writes compares. `options`: of the storage; `sessions`: whether turns belong to one."""

    name: str
    options: dict[str, Any] = {}
    sessions: bool = True


VARIANTS = (Variant(CONTEXT), Variant(NO_CONTEXT, sessions=False))


class Asked(Struct, frozen=True, kw_only=True):
    """Searches of one kind in one place. Milliseconds; `found`: the share of item questions whose memory came in the first
    ten, `results`: the mean number of results.
    """

    place: str
    kind: str
    searches: int
    p50: float
    p95: float
    worst: float
    results: float
    found: float | None


class Filled(Struct, frozen=True, kw_only=True):
    """A layout of one size. `load_rate`: memories a second; `largest`: memories of the largest namespace."""

    layout: str
    memories: int
    namespaces: int
    largest: int
    load_rate: float
    sizes: Sizes
    asked: list[Asked]


class Written(Struct, frozen=True, kw_only=True):
    """Durable stores a second, the median of the rounds. `share`: of the rate of the last variant, round by round."""

    variant: str
    how: str
    rate: float
    share: float
    rounds: list[float]


class Report(Struct, frozen=True, kw_only=True):
    """All that one run found. `interface`: what the searches went through, `service` or `rest`."""

    machine: Machine
    texts: str
    interface: str
    filled: list[Filled]
    written: list[Written]


class Layout:
    """`size` memories, made as they are needed; what it remembers is a sample to ask for."""

    def __init__(self, name: str, size: int, texts: Texts) -> None:
        self.name = name
        self.size = size
        self.sample: list[Stored] = []
        self.counted: Counter[str] = Counter()
        self._texts = texts

    def memories(self) -> Iterator[Stored]:
        """All of them, once; the sample is drawn on the way (Vitter's algorithm R)."""
        chance, drawing = random.Random(self.size), random.Random(self.size + 1)
        for number, text in enumerate(itertools.islice(self._texts.make(self.size + 2), self.size)):
            namespace = ONE_NAMESPACE
            if self.name == "zipf":
                # The logarithm of a Zipf-distributed rank is uniform.
                namespace = f"bench/zipf-{int((ZIPF_NAMESPACES + 1) ** chance.random()) - 1:03d}"
            metadata: dict[str, object] = {
                "author": chance.choice(_AUTHORS),
                "tags": chance.sample(_TAGS, chance.randint(0, 2)),
            }
            stored = Stored(namespace, f"note-{number:07d}", text, metadata)
            self.counted[namespace] += 1
            if number < _SAMPLE:
                self.sample.append(stored)
            elif (place := drawing.randint(0, number)) < _SAMPLE:
                self.sample[place] = stored
            yield stored

    def places(self) -> dict[str, list[tuple[Stored, str | None]]]:
        """Where to ask: for each place memories to ask for, and the namespace to ask in (None: all)."""
        if self.name == "one":
            return {"one namespace": [(stored, ONE_NAMESPACE) for stored in self.sample]}
        small: list[tuple[Stored, str | None]] = [
            (stored, stored.namespace) for stored in self.sample if self.counted[stored.namespace] <= NAMESPACE_MEMORIES
        ]
        largest = max((self.counted[namespace] for _, namespace in small if namespace), default=0)
        return {
            "within a namespace": small,
            "within the largest such": [each for each in small if self.counted[each[0].namespace] == largest],
            "all namespaces": [(stored, None) for stored in self.sample],
        }


Search = Callable[[SearchQuery], Any]


@asynccontextmanager
async def opened(file: Path, options: dict[str, Any]) -> AsyncIterator[Service]:
    """The service over a SQLite file; `options` go to the storage."""
    clock = SystemClock()
    storage = SQLiteStorage(file, clock=clock, **options)
    service = assemble(storage, clock, Limits(namespaces=2 * ZIPF_NAMESPACES))
    await service.open()
    try:
        yield service
    finally:
        await service.close()


async def fill(service: Service, layout: Layout, progress: Progress) -> float:
    """Stores a layout in batches; memories a second."""
    task = progress.add_task(f"{layout.name}, {layout.size:,}: storing", total=layout.size)
    memories = layout.memories()
    taken = 0.0
    while batch := list(itertools.islice(memories, _BATCH)):
        requests = [_request(stored) for stored in batch]
        start = time.perf_counter()
        await service.memories.store_batch(ANONYMOUS, BatchStoreRequest(requests))
        taken += time.perf_counter() - start
        progress.advance(task, len(batch))
    return layout.size / taken


def _request(stored: Stored) -> StoreRequest:
    return msgspec.json.decode(msgspec.json.encode(stored), type=StoreRequest)


async def ask(search: Search, layout: Layout, texts: Texts, count: int, progress: Progress) -> list[Asked]:
    """Searches of every kind in every place of a layout, one after another, after a few that do not count."""
    asked = []
    for place, chosen in layout.places().items():
        for kind in ("item", "natural", "odd"):
            chance = random.Random(f"{place} {kind}")
            task = progress.add_task(f"{layout.name}, {layout.size:,}: {place}, {kind}", total=count)
            taken: list[float] = []
            found = results = 0
            for number in range(_WARM + count):
                stored, namespace = chance.choice(chosen)
                text = _text(kind, stored, texts, chance)
                start = time.perf_counter()
                keys = await search(SearchQuery(text, namespace=namespace, limit=_LIMIT))
                if number >= _WARM:
                    taken.append((time.perf_counter() - start) * 1000)
                    found += stored.key in keys
                    results += len(keys)
                    progress.advance(task)
            ordered = sorted(taken)
            asked.append(
                Asked(
                    place=place,
                    kind=kind,
                    searches=count,
                    p50=percentile(ordered, 50),
                    p95=percentile(ordered, 95),
                    worst=ordered[-1],
                    results=results / count,
                    found=found / count if kind == "item" else None,
                )
            )
    return asked


def _text(kind: str, stored: Stored, texts: Texts, chance: random.Random) -> str:
    if kind == "natural":
        return chance.choice(texts.questions)
    if kind == "item":
        return content_words(stored.value, _WORDS, chance)
    return odd_query(stored.value.split(), chance)


def _through_service(service: Service) -> Search:
    async def search(query: SearchQuery) -> list[str]:
        try:
            found = await service.searching.search(ANONYMOUS, query)
        except EmptyQueryError:
            # The one error that a query may give.
            return []
        return [hit.memory.key for hit in found.hits]

    return search


def _through_rest(rest: Rest) -> Search:
    async def search(query: SearchQuery) -> list[str]:
        told = {"query": query.query, "namespace": query.namespace, "limit": query.limit}
        try:
            answer = rest.send("POST", f"{API}/search", msgspec.json.encode(told))
        except RequestFailedError as error:
            if error.status != _EMPTY_QUERY:
                raise
            return []
        return [result["key"] for result in msgspec.json.decode(answer)["results"]]

    return search


async def measure(layout: Layout, texts: Texts, options: argparse.Namespace, progress: Progress) -> Filled:
    """Fills a new directory and asks."""
    with tempfile.TemporaryDirectory(prefix="unified-memory-search-", dir=options.directory) as directory:
        file = Path(directory) / _DATABASE
        async with opened(file, {}) as service:
            load_rate = await fill(service, layout, progress)
        filled = sizes(file)
        if options.rest:
            with serving(Path(directory)) as server, Rest(server.url) as rest:
                asked = await ask(_through_rest(rest), layout, texts, options.queries, progress)
        else:
            async with opened(file, {}) as service:
                asked = await ask(_through_service(service), layout, texts, options.queries, progress)
    return Filled(
        layout=layout.name,
        memories=layout.size,
        namespaces=len(layout.counted),
        largest=max(layout.counted.values()),
        load_rate=load_rate,
        sizes=filled,
        asked=asked,
    )


async def write(texts: Texts, options: argparse.Namespace, progress: Progress) -> list[Written]:
    """Durable stores a second for each variant, rounds in turn, every round over an empty directory."""
    rates: dict[tuple[str, str], list[float]] = {}
    task = progress.add_task("storing", total=2 * len(VARIANTS) * options.rounds)
    for number, variant in itertools.product(range(options.rounds), VARIANTS):
        turns = _turns(texts, options.stores, number, sessions=variant.sessions)
        for how, store in ((f"one by one, {_TASKS} tasks", _one_by_one), (f"batches of {_WRITE_BATCH}", _batches)):
            with tempfile.TemporaryDirectory(prefix="unified-memory-search-", dir=options.directory) as directory:
                async with opened(Path(directory) / _DATABASE, variant.options) as service:
                    start = time.perf_counter()
                    await store(service, turns)
                    taken = time.perf_counter() - start
            rates.setdefault((how, variant.name), []).append(len(turns) / taken)
            progress.advance(task)
    reference = VARIANTS[-1].name
    return [
        Written(
            variant=name,
            how=how,
            rate=statistics.median(each),
            share=statistics.median(a / b for a, b in zip(each, rates[how, reference], strict=True)),
            rounds=each,
        )
        for (how, name), each in sorted(rates.items(), key=lambda each: each[0][0])
    ]


def _turns(texts: Texts, count: int, seed: int, *, sessions: bool) -> list[StoreRequest]:
    turns = []
    for number, text in enumerate(itertools.islice(texts.make(seed), count)):
        session = number // _SESSION_TURNS
        metadata: dict[str, object] = {"author": _AUTHORS[number % 2]}
        if sessions:
            metadata["session_id"] = f"session-{session:06d}"
        turns.append(_request(Stored(f"bench/chat-{session % 10}", f"turn-{number:07d}", text, metadata)))
    return turns


async def _one_by_one(service: Service, turns: Sequence[StoreRequest]) -> None:
    """Each task stores whole sessions, turn by turn."""
    sessions = iter(range(0, len(turns), _SESSION_TURNS))

    async def storing() -> None:
        for first in sessions:
            for turn in turns[first : first + _SESSION_TURNS]:
                await service.memories.store(ANONYMOUS, turn)

    async with asyncio.TaskGroup() as group:
        for _ in range(_TASKS):
            group.create_task(storing())


async def _batches(service: Service, turns: Sequence[StoreRequest]) -> None:
    for first in range(0, len(turns), _WRITE_BATCH):
        await service.memories.store_batch(ANONYMOUS, BatchStoreRequest(list(turns[first : first + _WRITE_BATCH])))


async def run(options: argparse.Namespace, console: Console) -> Report:
    """Measures everything. Raises what the service raises, OSError where there is no room, RuntimeError without a server."""
    texts = Texts()
    with Progress(console=console, transient=True) as progress:
        filled = [
            await measure(Layout(layout, size, texts), texts, options, progress)
            for size in options.memories
            for layout in LAYOUTS
        ]
        written = await write(texts, options, progress) if options.writes else []
    return Report(
        machine=machine(options.directory or Path(tempfile.gettempdir())),
        texts=texts.source,
        interface="rest" if options.rest else "service",
        filled=filled,
        written=written,
    )


def show(report: Report, console: Console) -> None:
    """Prints what a run found."""
    console.print(str(report.machine), highlight=False)
    console.print(report.texts, highlight=False)
    through = "through REST at one connection" if report.interface == "rest" else "through the service in one process"
    table = Table(title=f"Searches {through}, milliseconds", title_justify="left")
    table.add_column("memories", justify="right")
    table.add_column("place")
    table.add_column("questions")
    for heading in ("p50", "p95", "worst", "results", "found"):
        table.add_column(heading, justify="right")
    for filled in report.filled:
        for each in filled.asked:
            table.add_row(
                f"{filled.memories:,}",
                each.place,
                each.kind,
                *(f"{taken:.2f}" for taken in (each.p50, each.p95, each.worst)),
                f"{each.results:.1f}",
                "" if each.found is None else f"{each.found:.2f}",
            )
        table.add_section()
    if report.filled:
        console.print(table)
    for filled in report.filled:
        console.print(
            f"{filled.memories:,} in {filled.namespaces:,} namespaces (the largest {filled.largest:,}): "
            f"{filled.load_rate:,.0f} stored a second in batches of {_BATCH:,} · {filled.sizes}",
            highlight=False,
        )
    if report.written:
        table = Table(title=f"Durable stores a second, and their share of those of '{VARIANTS[-1].name}'")
        table.add_column("stored")
        table.add_column("variant")
        table.add_column("stores/s", justify="right")
        table.add_column("share", justify="right")
        for each_written in report.written:
            table.add_row(
                each_written.how, each_written.variant, f"{each_written.rate:,.0f}", f"{each_written.share:.2f}"
            )
        console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status is 1 where it could not be done."""
    parser = argparse.ArgumentParser(prog="scripts/bench search", description=__doc__)
    parser.add_argument(
        "--memories",
        type=lambda text: [int(each.replace("_", "")) for each in text.split(",") if each],
        default=[10_000, 100_000, 1_000_000],
        metavar="N,N",
        help="how many (default: 10000,100000,1000000); '' for none, with --writes",
    )
    parser.add_argument("--queries", type=int, default=200, help="searches of a kind and place (default: %(default)s)")
    parser.add_argument("--rest", action="store_true", help="search through HTTP at one connection")
    parser.add_argument("--writes", action="store_true", help="also measure stores")
    parser.add_argument("--stores", type=int, default=10_000, help="with --writes: of a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="with --writes (default: %(default)s)")
    parser.add_argument("--directory", type=Path, help="where the data is written (default: that of temporary files)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything found")
    options = parser.parse_args(arguments)
    progress = Console(stderr=True)
    try:
        report = asyncio.run(run(options, progress))
    except (OSError, RuntimeError, apsw.Error, UnifiedMemoryError, RequestFailedError) as error:
        progress.print(f"scripts/bench search: {error}", style="bold red", markup=False, highlight=False)
        return 1
    show(report, Console(width=None if sys.stdout.isatty() else _WIDTH))
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
