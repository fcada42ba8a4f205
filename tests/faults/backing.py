"""Data directories with backups, and a process that makes a backup or restores one until it kills itself at a chosen step:
`python -m tests.faults.backing '{"work": "restore", "runs": [{"data_dir": …}], …}'`.

It does the same in one directory after another, each time in a process of its own, and tells on standard output, one JSON object
a line, how each of them ended. The clocks stand still but for what is told here.
"""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from tests.faults.disk import Disk, Event
from tests.faults.tiering import FEW_PAGES, FEW_STUBS, FEW_VALUES, START, Held, Step, Steps, demote, held, new_value
from unified_memory.model.clock import SECOND, SettableClock
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.requests import (
    BackupRequest,
    MoveRequest,
    Place,
    RedactRequest,
    RestoreRequest,
    SessionRequest,
    StoreRequest,
    UpdateRequest,
)
from unified_memory.service.service import Safekeeping
from unified_memory.storage import backup, tiered
from unified_memory.storage.dump import Snapshot
from unified_memory.storage.sqlite import takeover, writer

# All that is prepared was written before.
NOW = START + 1000 * SECOND
NAMESPACES = ("acme", "acme/web", "acme-corp")
MEMORIES = 36
SESSIONS = ("monday", "tuesday")
# What is copied over a database is so many pages at a time.
FEW_COPIED = 20


# ---- directories
@asynccontextmanager
async def kept(directory: Path, at: int = NOW) -> AsyncIterator[Held]:
    """A service over the directory, with its backups in it."""
    clock = SettableClock(at)
    place = backup.Place(directory / "backups", clock=clock)
    async with held(directory, clock, safekeeping=Safekeeping(place=place, data=directory)) as one:
        yield one


class Content(Struct):
    """All that a directory holds: the rows of each kind, and what happened in which order."""

    rows: dict[str, list[Any]]
    feed: list[Any]


async def content(one: Held) -> Content:
    """As it is now."""

    def read(snapshot: Snapshot) -> dict[str, list[Any]]:
        return {
            "spaces": list(snapshot.spaces()),
            "floors": list(snapshot.floors()),
            "buried": list(snapshot.buried()),
            "memories": list(snapshot.memories()),
            "past": list(snapshot.past()),
            "sessions": list(snapshot.sessions()),
            "end": [snapshot.seq],
        }

    rows = await one.tiers.snapshot(read, one.clock.now())
    return Content(rows, await one.tiers.feed(0, 100_000))


async def prepare(directory: Path) -> list[str]:
    """Writes and deletes memories of all kinds, some of them archived, and makes a full backup, one that goes on from it, and
    further changes; the ids of the two.
    """
    made = []
    async with kept(directory, START) as one:
        for session in SESSIONS:
            await one.service.sessions.create(ANONYMOUS, SessionRequest(session, "acme", ttl=10**6))
        for number in range(MEMORIES):
            await store(one, number, "first")
        await change(one, 0)
        await demote(one.tiers, one.clock.now(), "acme", 12)
        made.append(await back_up(one))
        await change(one, 1)
        await demote(one.tiers, one.clock.now(), "acme-corp", 4)
        made.append(await back_up(one, made[0]))
        await change(one, 2)
        await one.service.namespaces.delete(ANONYMOUS, "acme/web", recursive=True, dry_run=False)
        await store(one, 1, "again")
    return made


async def store(one: Held, number: int, name: str) -> None:
    """One of the memories, of one of the namespaces."""
    namespace = NAMESPACES[number % len(NAMESPACES)]
    metadata: dict[str, Any] = {"tags": [name, f"t{number % 5}"], "importance": 1 + number % 10}
    if namespace == "acme":
        metadata["session_id"] = SESSIONS[number // 3 % len(SESSIONS)]
    await one.service.memories.store(
        ANONYMOUS,
        StoreRequest(
            Raw(msgspec.json.encode(new_value(name, number, 3000 if number % 9 == 4 else number % 7 * 50))),
            f"k{number}",
            namespace,
            ttl=10**7 if number % 4 == 3 else None,
            metadata={field: Raw(msgspec.json.encode(value)) for field, value in metadata.items()},
        ),
    )


async def change(one: Held, turn: int) -> None:
    """A change of each kind."""
    memories = one.service.memories
    one.clock.advance(1)
    for number in range(turn, MEMORIES, 6):
        value = Raw(msgspec.json.encode(new_value(f"turn{turn}n", number)))
        await memories.update(ANONYMOUS, NAMESPACES[number % 3], f"k{number}", UpdateRequest(value))
    for number in range(turn + 3, MEMORIES, 12):
        await memories.delete(ANONYMOUS, NAMESPACES[number % 3], f"k{number}")
    source, target = Place("acme", f"k{12 + 6 * turn}"), Place("acme-corp", f"moved{turn}")
    await memories.move(ANONYMOUS, MoveRequest(source, target))
    await store(one, 100 + turn, f"new{turn}n")
    await store(one, 9, f"back{turn}n")
    await one.service.histories.redact(ANONYMOUS, RedactRequest(f"k{turn + 6}", NAMESPACES[turn % 3], 1))
    await memories.store(ANONYMOUS, StoreRequest(Raw(b"1"), "one", f"passing/{turn}"))
    await one.service.namespaces.delete(ANONYMOUS, f"passing/{turn}", recursive=True, dry_run=False)
    one.clock.advance(1)


async def back_up(one: Held, parent: str | None = None) -> str:
    """The id of one more backup."""
    return (await one.service.backups.create(ANONYMOUS, BackupRequest(parent))).manifest.id


# ---- steps
class System:
    """What the operating system does to files below a directory, as named steps: `take` is given the name, what does it, and
    what does half of it.
    """

    NAMES = ("open", "write", "fsync", "rename", "unlink", "mkdir", "rmdir")

    def __init__(self, root: Path, take: Callable[[str, Callable[[], Any], Callable[[], Any] | None], Any]) -> None:
        self._root = os.fspath(root.resolve())
        self._take = take
        self._real: dict[str, Callable[..., Any]] = {name: getattr(os, name) for name in self.NAMES}

    def patches(self) -> dict[str, Callable[..., Any]]:
        """What is to stand in `os` instead."""
        return {name: getattr(self, name) for name in self.NAMES}

    def area(self, path: str) -> str | None:
        """Which part of the directory that is, None where it is outside."""
        if not path.startswith(self._root + "/"):
            return None
        first, _, rest = path.removeprefix(self._root + "/").partition("/")
        if "-aside-" in first:
            return "plan" if rest.startswith(takeover.PLAN) else "aside"
        return "main" if first.startswith("memory.db") else first

    def _place(self, path: Any, dir_fd: int | None) -> str:
        base = Path.cwd() if dir_fd is None else Path(f"/proc/self/fd/{dir_fd}").readlink()
        return str(base / path)

    def _do(self, name: str, place: str, perform: Callable[[], Any], half: Callable[[], Any] | None = None) -> Any:
        area = self.area(place)
        return perform() if area is None else self._take(f"{area} {name}", perform, half)

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        real, place = self._real["open"], self._place(path, dir_fd)
        # To open what is there takes no room, and changes nothing.
        if not flags & os.O_CREAT or Path(place).exists():
            return int(real(path, flags, mode, dir_fd=dir_fd))
        return int(self._do("open", place, lambda: real(path, flags, mode, dir_fd=dir_fd)))

    def write(self, number: int, data: Any) -> int:
        real = self._real["write"]
        place = os.fspath(Path(f"/proc/self/fd/{number}").readlink())
        return int(
            self._do("write", place, lambda: real(number, data), lambda: real(number, bytes(data)[: len(data) // 2]))
        )

    def fsync(self, number: int) -> None:
        place = os.fspath(Path(f"/proc/self/fd/{number}").readlink())
        self._do("sync", place + "/" * (place == self._root), lambda: self._real["fsync"](number))

    def rename(self, source: Any, target: Any) -> None:
        self._do("rename", self._place(source, None), lambda: self._real["rename"](source, target))

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._do("unlink", self._place(path, dir_fd), lambda: self._real["unlink"](path, dir_fd=dir_fd))

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._do("mkdir", self._place(path, dir_fd), lambda: self._real["mkdir"](path, mode, dir_fd=dir_fd))

    def rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._do("rmdir", self._place(path, dir_fd), lambda: self._real["rmdir"](path, dir_fd=dir_fd))


def database_step(system: System, event: Event) -> str:
    """The name of a step of SQLite's."""
    suffix = "-wal" if event.file == "wal" else ""
    return f"{system.area(event.path) or 'temp'}{suffix} {'page' if event.call == 'write' else event.call}"


def make_small(put: Callable[[object, str, int], None] = setattr) -> None:
    """Much is done in little, so that there are more steps. `put` sets what says how much."""
    put(tiered, "CHUNK", FEW_VALUES)
    put(tiered, "STUBS", FEW_STUBS)
    put(writer, "CHECKPOINT_PAGES", FEW_PAGES)
    put(takeover, "COPIED_PAGES", FEW_COPIED)


# ---- the process
Work = Literal["backup", "restore"]


class Run(Struct):
    """A directory to work in, and the step at which that ends."""

    data_dir: str
    step: Step | None = None


class Orders(Struct):
    """What the process is to do in each directory. `parent`: of the backup; `restore`: as a request."""

    work: Work
    runs: list[Run]
    parent: str | None = None
    restore: RestoreRequest | None = None


class Ended(Struct):
    """How a run has ended: the status of its process (negative: a signal), and the steps that it took, where it told them."""

    status: int
    counts: dict[str, int] = {}


async def work(orders: Orders, directory: Path, steps: Steps) -> None:
    """The one thing that is to be done."""
    async with kept(directory) as one:
        steps.armed = True
        if orders.restore is None:
            await back_up(one, orders.parent)
        else:
            await one.service.backups.restore(ANONYMOUS, orders.restore)
        # Closing is no part of it.
        steps.armed = False


def go(orders: Orders, run: Run) -> Counter[str]:
    """Does it, unless it is killed; the steps that were taken."""
    directory = Path(run.data_dir)
    steps = Steps(run.step)
    system = System(directory, steps.take)

    def hook(event: Event, perform: Callable[[bytes], None]) -> None:
        half = (lambda: perform(event.data[: len(event.data) // 2])) if event.call == "write" else None
        steps.take(database_step(system, event), lambda: perform(event.data), half)

    layer = Disk(hook)
    for name, function in system.patches().items():
        setattr(os, name, function)
    asyncio.run(work(orders, directory, steps))
    del layer
    return steps.counts


def apart(orders: Orders, run: Run) -> Ended:
    """The same in a process of its own."""
    reader, told = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        counts = go(orders, run)
        with os.fdopen(told, "wb") as pipe:
            pipe.write(msgspec.json.encode(dict(counts)))
        os._exit(0)
    os.close(told)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return Ended(status, msgspec.json.decode(text, type=dict[str, int]) if text else {})


def main() -> None:
    """Does what the first argument says."""
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    make_small()
    for run in orders.runs:
        os.write(1, msgspec.json.encode(apart(orders, run)) + b"\n")


if __name__ == "__main__":
    main()
