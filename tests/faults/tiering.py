"""Directories of several tiers, and a process that moves memories between them until it kills itself at a chosen step:
`python -m tests.faults.tiering '{"data_dir": …}'`.

It tells on standard output what it is about to write and what was acknowledged, one JSON object a line, and at its end which
steps it has taken. The clocks stand still but for what is told here.
"""

import asyncio
import os
import random
import signal
import stat
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec
from msgspec import Raw, Struct

from tests.faults.disk import Disk, Event
from tests.faults.ledger import GONE, Ledger, Ref, State
from unified_memory.model.clock import SECOND, SettableClock
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS
from unified_memory.model.query import Selection
from unified_memory.service.requests import BatchKeysRequest, KeyRef, StoreRequest, UpdateRequest
from unified_memory.service.service import Service, assemble
from unified_memory.storage import tiered
from unified_memory.storage.archive import Archive, Directory, Files
from unified_memory.storage.sqlite import SQLiteStorage, writer
from unified_memory.storage.tiered import TieredStorage
from unified_memory.storage.warm import Place

T = TypeVar("T")
START = 1_750_000_000 * SECOND
NAMESPACES = ("acme", "acme/web", "acme-corp")
MEMORIES = 120
SHORT_SECONDS, LONG_SECONDS = 30, 1_000_000
# What a process that is killed at every step does has many of them: values are read and stubs put by so few.
FEW_VALUES, FEW_STUBS, FEW_PAGES = 10, 6, 30
EVER = 2**62


# ---- directories
class Held(Struct):
    """A service of several tiers, and its parts."""

    service: Service
    tiers: TieredStorage
    warm: SQLiteStorage
    clock: SettableClock
    directory: Path

    def files(self) -> set[str]:
        """All files of archives, unfinished ones too."""
        return {one.name for one in (self.directory / "archive").glob("*") if not one.name.startswith("token-")}


@asynccontextmanager
async def held(
    directory: Path,
    clock: SettableClock | None = None,
    *,
    files: Files | None = None,
    warm: Callable[..., SQLiteStorage] = SQLiteStorage,
    cache_bytes: int = 32 * 1024**2,
    **settings: Any,
) -> AsyncIterator[Held]:
    """A service over the directory, opened and closed. `cache_bytes`: of blocks of archives that it keeps."""
    clock = clock or SettableClock(START)
    archive = Archive(files or Directory(directory / "archive"), cache_bytes=cache_bytes)
    storage = warm(directory / "memory.db", clock=clock, cold=archive)
    tiers = TieredStorage(storage, clock, archive=archive)  # type: ignore[abstract]  # see `storage/forwarding.py`
    service = assemble(tiers, clock, **settings)
    await service.open()
    try:
        yield Held(service, tiers, storage, clock, directory)
    finally:
        await service.close()
        archive.close()


def state_of(memory: Memory) -> State:
    """What the ledger says of a memory."""
    return State(memory.version, msgspec.json.decode(memory.value), memory.tags)


def word(state: State) -> str:
    """A word that stands in this value alone."""
    return str(state.value["stamp"])


def new_value(name: str, number: int, size: int = 0) -> dict[str, Any]:
    """A value that nothing else has."""
    return {"stamp": f"{name}{number}x", "text": f"the {number}th of all", "rest": "-" * size}


def shape(number: int) -> tuple[str, int, int | None]:
    """(namespace, size, ttl) of a memory of `prepare`."""
    ttl = {3: SHORT_SECONDS, 7: LONG_SECONDS}.get(number % 10)
    return NAMESPACES[number % len(NAMESPACES)], 70_000 if number % 15 == 5 else number % 7 * 300, ttl


def short_lived(ref: Ref) -> bool:
    """Whether a memory of `prepare` expires soon."""
    return ref[1].startswith("k") and shape(int(ref[1][1:]))[2] == SHORT_SECONDS


def long_lived(ref: Ref) -> bool:
    """Whether a memory of `prepare` expires late."""
    return ref[1].startswith("k") and shape(int(ref[1][1:]))[2] == LONG_SECONDS


async def demote(tiers: TieredStorage, now: int, scope: str = "", limit: int = 10_000) -> int:
    """Archives so many; how many it were."""
    chosen = await tiers.demotable((scope,), now, recursive=True, used_before=EVER, limit=limit)
    return (await tiers.demote(chosen, now)).memories


async def ids(tiers: TieredStorage, now: int, scope: str = "") -> list[int]:
    """Of all cold memories."""
    return await tiers.archived_ids((scope,), now, recursive=True, after_id=0, limit=10_000)


async def prepare(directory: Path) -> Ledger:
    """Stores memories of all kinds, half of them archived, one archive dead by more than half."""
    ledger = Ledger()
    async with held(directory) as one:
        for number in range(MEMORIES):
            namespace, size, ttl = shape(number)
            request = StoreRequest(
                Raw(msgspec.json.encode(new_value("stamp", number, size))), f"k{number}", namespace, ttl=ttl
            )
            outcome = await one.service.memories.store(ANONYMOUS, request)
            assert outcome.memory is not None
            ledger.known[namespace, f"k{number}"] = state_of(outcome.memory)
        await demote(one.tiers, START, "acme/web")
        await demote(one.tiers, START, "acme", 25)
        stubs = await ids(one.tiers, START, "acme/web")
        await one.tiers.promote(stubs[: 2 * len(stubs) // 3], START)
    return ledger


# ---- steps
When = Literal["before", "half", "after"]


class Step(Struct, frozen=True):
    """The `number`th (from 1) step of that name, and where the process ends."""

    name: str
    number: int
    when: When = "before"

    def __str__(self) -> str:
        return f"{self.when} {self.name} {self.number}"


class Steps:
    """Counts steps by name from `armed` on, and kills this process at one."""

    def __init__(self, fatal: Step | None) -> None:
        self.armed = False
        self.counts: Counter[str] = Counter()
        self._fatal = fatal
        self._lock = threading.Lock()

    def begin(self, name: str) -> Callable[[When], bool]:
        """A step is about to be taken. The result tells whether the process is to end at that moment of it."""
        with self._lock:
            self.counts[name] += self.armed
            number = self.counts[name]
        fatal = self._fatal
        here = self.armed and fatal is not None and (fatal.name, fatal.number) == (name, number)
        return lambda when: here and fatal is not None and fatal.when == when

    def take(self, name: str, perform: Callable[[], T], half: Callable[[], Any] | None = None) -> T:
        """Takes a step."""
        ends = self.begin(name)
        if ends("before"):
            end()
        if half is not None and ends("half"):
            half()
            end()
        result = perform()
        if ends("after"):
            end()
        return result

    async def wait(self, name: str, perform: Awaitable[T]) -> T:
        """Takes a step that is waited for."""
        ends = self.begin(name)
        if ends("before"):
            end()
        result = await perform
        if ends("after"):
            end()
        return result


def end() -> None:
    """As `kill -9` ends a process; of this very thread, so that nothing comes after it."""
    signal.pthread_kill(threading.get_ident(), signal.SIGKILL)


class Watched(SQLiteStorage):
    """The steps of moves that are transactions."""

    def __init__(self, path: Path, *, steps: Steps, **named: Any) -> None:
        super().__init__(path, **named)
        self._steps = steps

    async def reserve_archive(self, name: str, now: int) -> None:
        await self._steps.wait("reserve", super().reserve_archive(name, now))

    async def put_stubs(self, archive: str, places: Sequence[Place]) -> tuple[int, int]:
        return await self._steps.wait("put stubs", super().put_stubs(archive, places))

    async def publish_archive(self, name: str, memories: int, bytes_raw: int, bytes_stored: int, now: int) -> None:
        await self._steps.wait("publish", super().publish_archive(name, memories, bytes_raw, bytes_stored, now))

    async def take_back(self, values: Sequence[tuple[int, int, bytes]]) -> tuple[int, int]:
        return await self._steps.wait("take back", super().take_back(values))

    async def move_stubs(self, source: str, target: str, places: Sequence[Place]) -> int:
        return await self._steps.wait("move stubs", super().move_stubs(source, target, places))

    async def retire_archive(self, name: str, now: int) -> bool:
        return await self._steps.wait("retire", super().retire_archive(name, now))

    async def forget_archive(self, name: str) -> bool:
        return await self._steps.wait("forget", super().forget_archive(name))


# Named by `Watched`, by `watch_files` and by `tests.faults.disk`.
MOVES = ("reserve", "put stubs", "publish", "take back", "move stubs", "retire", "forget")
FILES = ("file open", "file write", "file sync", "file rename", "directory sync", "file unlink")
DATABASE = ("wal write", "wal sync", "db write", "db sync")


def watch_files(steps: Steps, root: Path) -> None:
    """From now on in this process whatever is done to files of the archives is a step."""
    within = os.fspath(root)
    real_open, write, sync, rename, unlink = os.open, os.write, os.fsync, os.rename, os.unlink

    def ours(path: Any) -> bool:
        return os.fspath(path).startswith(within + "/") if isinstance(path, str | Path) else False

    def opened(path: Any, flags: int, *rest: Any, **named: Any) -> int:
        if ours(path) and flags & os.O_CREAT:
            return steps.take("file open", lambda: real_open(path, flags, *rest, **named))
        return real_open(path, flags, *rest, **named)

    def written(number: int, data: Any) -> int:
        if not ours(Path(f"/proc/self/fd/{number}").readlink()):
            return write(number, data)
        return steps.take(
            "file write", lambda: write(number, data), lambda: write(number, bytes(data)[: len(data) // 2])
        )

    def synced(number: int) -> None:
        if stat.S_ISDIR(os.fstat(number).st_mode):
            steps.take("directory sync", lambda: sync(number))
        else:
            steps.take("file sync", lambda: sync(number))

    def renamed(source: Any, target: Any) -> None:
        steps.take("file rename", lambda: rename(source, target))

    def unlinked(path: Any) -> None:
        steps.take("file unlink", lambda: unlink(path))

    for name, function in (
        ("open", opened),
        ("write", written),
        ("fsync", synced),
        ("rename", renamed),
        ("unlink", unlinked),
    ):
        setattr(os, name, function)


# ---- the process
class Orders(Struct):
    """What the process is to do. `alone`: no other process moves, so that what was interrupted may be tidied."""

    data_dir: str
    name: str = "one"
    step: Step | None = None
    rounds: int = 1
    alone: bool = True
    seed: int = 1


class Told(Struct, omit_defaults=True):
    """A line of the process: a write is `begun` or `done`, by its number; or at last the `counts` of steps."""

    begun: int = 0
    done: int = 0
    ref: Ref = ("", "")
    state: State = State(0, None)
    counts: dict[str, int] = {}


def say(told: Told) -> None:
    """One line to whoever watches; out at once, whatever happens then."""
    os.write(1, msgspec.json.encode(told) + b"\n")


class Writing:
    """Writes what this process alone writes."""

    def __init__(self, one: Held, orders: Orders) -> None:
        self._one = one
        self._name = orders.name
        self._rng = random.Random(orders.seed)
        self._number = 0
        self._known: dict[Ref, State] = {}
        self.over = False

    async def begin(self) -> None:
        """Looks at what is there."""
        mine = {"one": 0, "two": 2}[self._name]
        page = await self._one.tiers.select(Selection(scopes=("",), limit=None), START)
        self._known = {
            (m.namespace, m.key): state_of(m)
            for m in page.items
            if m.key.startswith(self._name) or (m.key.startswith("k") and int(m.key[1:]) % 4 == mine)
        }

    async def run(self) -> None:
        """Writes on until it is over."""
        while not self.over:
            await self.write()
            # The moves get their turn, too.
            await asyncio.sleep(0)

    async def write(self) -> None:
        """One write, told before and after."""
        self._number += 1
        ref = self._rng.choice(list(self._known))
        way = self._rng.choice(("value", "tags", "tags", "delete", "new"))
        if way == "new":
            ref = (self._rng.choice(NAMESPACES), f"{self._name}/{self._number}")
        before = self._known.get(ref, State(0, GONE))
        memories = self._one.service.memories
        value = new_value(self._name, self._number, self._rng.choice((0, 2_000)))
        work: Awaitable[Any]
        if way == "delete" and before.there:
            after = State(before.version, GONE)
            work = memories.delete(ANONYMOUS, *ref)
        elif way == "tags" and before.there:
            after = State(before.version + 1, before.value, (f"t{self._number}",))
            change = UpdateRequest(metadata={"tags": Raw(msgspec.json.encode(after.tags))})
            work = memories.update(ANONYMOUS, *ref, change)
        elif way == "value" and before.there:
            after = State(before.version + 1, value, before.tags)
            work = memories.update(ANONYMOUS, *ref, UpdateRequest(Raw(msgspec.json.encode(value))))
        else:
            after = State(before.version + 1, value)
            work = memories.store(ANONYMOUS, StoreRequest(Raw(msgspec.json.encode(value)), ref[1], ref[0]))
        say(Told(begun=self._number, ref=ref, state=after))
        await work
        say(Told(done=self._number))
        self._known[ref] = after


async def move_about(one: Held, orders: Orders, number: int) -> None:
    """Every move there is, once."""
    service, tiers, clock = one.service, one.tiers, one.clock
    await demote(tiers, clock.now(), "acme")
    await demote(tiers, clock.now(), limit=30)
    cold = await tiers.get_by_id((await ids(tiers, clock.now()))[number % 2 :: 2], clock.now())
    refs = [(m.namespace, m.key) for m in cold if m is not None]
    for ref in refs[:5]:
        await tiers.get(*ref, clock.now())
        await service.memories.retrieve_batch(ANONYMOUS, BatchKeysRequest([KeyRef(ref[1], ref[0])]))
    await service.memories.retrieve_batch(ANONYMOUS, BatchKeysRequest([KeyRef(key, space) for space, key in refs[5:]]))
    clock.advance(SHORT_SECONDS)
    async for _ in service.upkeep.cleanup():
        pass
    async for _ in service.tiering.compact():
        pass
    for archive in await tiers.archives():
        if archive.state == "live":
            await tiers.compact(archive.name, clock.now())
    clock.advance(3601 if orders.alone else 61)
    await tiers.tidy(clock.now())


async def work(orders: Orders, steps: Steps) -> None:
    """Moves and writes at once, some rounds long."""
    directory = Path(orders.data_dir)

    def watched(path: Path, **named: Any) -> Watched:
        return Watched(path, steps=steps, **named)

    async with held(directory, warm=watched) as one:
        writing = Writing(one, orders)
        await writing.begin()
        steps.armed = True
        task = asyncio.create_task(writing.run())
        for number in range(orders.rounds):
            await move_about(one, orders, number)
        writing.over = True
        await task
    say(Told(counts=dict(steps.counts)))


def main() -> None:
    """Does what the first argument says."""
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    tiered.CHUNK, tiered.STUBS = FEW_VALUES, FEW_STUBS
    writer.CHECKPOINT_PAGES = FEW_PAGES
    steps = Steps(orders.step)

    def hook(event: Event, perform: Callable[[bytes], None]) -> None:
        steps.take(
            f"{event.file} {event.call}",
            lambda: perform(event.data),
            lambda: perform(event.data[: len(event.data) // 2]),
        )

    layer = Disk(hook)
    watch_files(steps, Path(orders.data_dir) / "archive")
    asyncio.run(work(orders, steps))
    del layer


if __name__ == "__main__":
    main()
