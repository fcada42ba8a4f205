"""Backups and restores survive kill -9 at every step, a full disk and flipped bytes: what the service holds is as before or as
after, never between, and what is damaged is named.
"""

import asyncio
import errno
import inspect
import os
import random
import shutil
import signal
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import apsw
import msgspec
import pytest
from msgspec import Raw

from tests.faults.backing import (
    Content,
    Ended,
    Orders,
    Run,
    System,
    back_up,
    content,
    database_step,
    kept,
    make_small,
    prepare,
)
from tests.faults.disk import Event, When, disk
from tests.faults.tiering import Held, Step
from unified_memory.model.errors import BackupDamagedError, ReadOnlyError, StorageFullError
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS
from unified_memory.model.query import Selection
from unified_memory.service.backups import HOLD_SECONDS, LEASE_SECONDS
from unified_memory.service.requests import RestoreRequest, StoreRequest
from unified_memory.storage import backup

ROOT = Path(__file__).parents[2]
PATIENCE = 90.0
Operation = Literal["backup", "replace", "merge", "namespace"]
OPERATIONS: tuple[Operation, ...] = ("backup", "replace", "merge", "namespace")
RESTORES: tuple[Operation, ...] = ("replace", "merge", "namespace")
# So long does a killed process keep others waiting, and what it left of an archive that nobody took over.
LAPSED = max(HOLD_SECONDS, LEASE_SECONDS) + 1
GIVEN_UP = 26 * 3600
MINUTE = 61
# Killed at wherever else is chosen, spread over all of a kind: what is written of the database, what makes a backup be there.
ALWAYS = {"main-wal page": 6, "main-wal sync": 2, "main page": 1, "backups rename": 1}
POINTS = 12


# ---- what is done
def requested(operation: Operation, backup_id: str) -> RestoreRequest | None:
    if operation == "backup":
        return None
    return RestoreRequest(backup_id, operation, namespace="acme" if operation == "namespace" else None)


class Prepared:
    """A directory that is copied for each test; what it holds before and after each operation, and the steps of that."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.made = asyncio.run(prepare(directory))
        self.before = asyncio.run(content_of(directory))
        self.after: dict[Operation, Content] = {}
        self.counts: dict[Operation, dict[str, int]] = {}
        for operation in OPERATIONS:
            trial = directory.with_name(f"trial-{operation}")
            self.copy(trial)
            (ended,) = asyncio.run(run(self.orders(operation, [Run(str(trial))])))
            assert ended.status == 0
            self.counts[operation] = {name: count for name, count in ended.counts.items() if count}
            self.after[operation] = asyncio.run(content_of(trial))
            shutil.rmtree(trial)

    def copy(self, target: Path) -> None:
        shutil.copytree(self._directory, target)

    def orders(self, operation: Operation, runs: list[Run]) -> Orders:
        """The operation in each of the directories."""
        restore = requested(operation, self.made[-1])
        return Orders("restore" if restore else "backup", runs, self.made[-1], restore)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("backups") / "prepared")


async def content_of(directory: Path) -> Content:
    async with kept(directory) as one:
        return await content(one)


async def run(orders: Orders) -> list[Ended]:
    """Runs the process to its end; how each of its runs ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.backing", msgspec.json.encode(orders).decode(),
        cwd=ROOT, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    ended = [msgspec.json.decode(line, type=Ended) for line in out.splitlines()]
    assert process.returncode == 0, err.decode()
    assert {one.status for one in ended} <= {0, -signal.SIGKILL}, err.decode()
    return ended


# ---- what must hold
async def store(one: Held, key: str, namespace: str = "elsewhere") -> None:
    await one.service.memories.store(ANONYMOUS, StoreRequest(Raw(b'"written"'), key, namespace))


def alike(found: Content, before: Content) -> None:
    """All is as it was, but for versions, which only grow."""

    def told(one: Content) -> list[Any]:
        return [
            (
                m.namespace,
                m.key,
                m.value,
                m.attributes,
                m.importance,
                m.session_id,
                m.created_at,
                m.updated_at,
                m.expires_at,
            )
            for m in sorted(one.rows["memories"], key=lambda m: (m.namespace, m.key))
        ]

    assert told(found) == told(before)
    assert found.rows["sessions"] == before.rows["sessions"]
    assert [(one.name, one.config) for one in found.rows["spaces"]] == [
        (one.name, one.config) for one in before.rows["spaces"]
    ]


async def look_after(directory: Path, prepared: Prepared, operation: Operation) -> Literal["before", "after"]:
    """Opens what a kill has left as the next process would; which of the two it is."""
    before, after = prepared.before, prepared.after[operation]
    async with kept(directory) as one:
        backups = one.service.backups
        found = await content(one)
        assert found in (before, after)
        assert await one.service.upkeep.check(fix=False) == []
        if await one.service.upkeep.read_only() is not None:
            with pytest.raises(ReadOnlyError):
                await store(one, "early")
        one.clock.advance(LAPSED)
        assert await one.service.upkeep.read_only() is None
        listed = [each.manifest for each in await backups.list_all(ANONYMOUS)]
        assert backups.troubles() == []
        assert {each.id for each in listed} >= set(prepared.made)
        new = [each for each in listed if each.id not in prepared.made]
        for each in [*new, *(each for each in listed if each.id == prepared.made[-1])]:
            assert (await backups.verify(ANONYMOUS, each.id)).ok
        for number, space in enumerate(("acme", "acme/web", "elsewhere")):
            await store(one, f"late{number}", space)
        assert await one.service.upkeep.check(fix=False) == []
        if operation == "backup":
            assert len(new) <= 1
        elif new:
            (safety,) = new
            assert safety.reason == "safety"
            await backups.restore(ANONYMOUS, RestoreRequest(safety.id, safety=False))
            alike(await content(one), before)
            assert await one.service.upkeep.check(fix=False) == []
        await swept(one)
    return "after" if found == after else "before"


async def swept(one: Held) -> None:
    """In the end nothing is left that nobody needs."""
    for place in ("backups", "archive"):
        for path in [*(one.directory / place).rglob("*")]:
            # The system's clock does not go with ours.
            os.utime(path, (0, 0))
    await back_up(one)
    for seconds in (GIVEN_UP, MINUTE):
        one.clock.advance(seconds)
        await one.tiers.tidy(one.clock.now())
    archives = await one.tiers.archives()
    assert {archive.state for archive in archives} <= {"live"}
    assert one.files() == {archive.name for archive in archives}
    assert list(one.directory.glob("*-aside-*")) == []
    names = {path.name.removesuffix(".verified.json") for path in (one.directory / "backups").iterdir()}
    assert names == {each.manifest.id for each in await one.service.backups.list_all(ANONYMOUS)}
    assert await one.service.upkeep.check(fix=False) == []


# ---- kill -9
async def kill_at(steps: list[Step], operation: Operation, prepared: Prepared, directory: Path) -> Counter[str]:
    """Kills a process at each of these steps and looks at what it left; how often it was what."""
    runs = []
    for number, step in enumerate(steps):
        runs.append(Run(str(directory / str(number)), step))
        prepared.copy(directory / str(number))
    ended = await run(prepared.orders(operation, runs))
    told: Counter[str] = Counter()
    for one, how in zip(runs, ended, strict=True):
        sys.stdout.write(f"{one.step} of {operation}\n")
        told[await look_after(Path(one.data_dir), prepared, operation)] += 1
        told["killed"] += how.status != 0
        shutil.rmtree(one.data_dir)
    return told


def spread(count: int, times: int, rng: random.Random) -> list[int]:
    """Numbers from 1 to `count`, one of each of so many parts."""
    times = min(times, count)
    return [1 + rng.randrange(count * part // times, count * (part + 1) // times) for part in range(times)]


def a_moment(name: str, rng: random.Random) -> When:
    """Only what is written can be half done."""
    return rng.choice(("before", "half", "after") if name.endswith((" page", " write")) else ("before", "after"))


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_kill_during_a_backup_or_restore_leaves_all_or_nothing_of_it(
    operation: Operation, prepared: Prepared, tmp_path: Path, rng: random.Random
) -> None:
    counts = prepared.counts[operation]
    always = {name: spread(counts[name], times, rng) for name, times in ALWAYS.items() if name in counts}
    chosen = [(name, number) for name, numbers in always.items() for number in numbers]
    others = rng.choices(sorted(counts), k=POINTS - len(chosen))
    chosen += [(name, rng.randint(1, counts[name])) for name in others]
    steps = [Step(name, number, a_moment(name, rng)) for name, number in chosen]
    told = await kill_at(steps, operation, prepared, tmp_path)
    assert told["killed"] > len(steps) / 2


EACH = 40


@pytest.mark.nightly
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_kill_at_every_step_of_a_backup_or_restore_leaves_all_or_nothing_of_it(
    operation: Operation, prepared: Prepared, tmp_path: Path, rng: random.Random
) -> None:
    counts = prepared.counts[operation]
    steps = [
        Step(name, number, a_moment(name, rng)) for name, count in counts.items() for number in range(1, count + 1)
    ]
    told: Counter[str] = Counter()
    for start in range(0, len(steps), EACH):
        told += await kill_at(steps[start : start + EACH], operation, prepared, tmp_path)
    assert told["killed"] > len(steps) * 3 / 4
    assert told["before"]
    if operation != "backup":
        assert told["after"]


# ---- a full disk
class Full:
    """The hook of a disk that is full after so many writes, for good or (`once`) for a single one."""

    def __init__(self, root: Path, left: int | None = None, *, once: bool = False) -> None:
        self.system = System(root, self.take)
        self.seen: list[str] = []
        self.left = left
        self._once = once

    def refuses(self, name: str) -> bool:
        self.seen.append(name)
        if self.left is None:
            return False
        self.left -= 1
        return self.left == -1 if self._once else self.left < 0

    def take(self, name: str, perform: Callable[[], Any], _half: object) -> Any:
        if name.endswith((" write", " open", " mkdir", " sync")) and self.refuses(name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), name)
        return perform()

    def __call__(self, event: Event, perform: Callable[[bytes], None]) -> None:
        # SQLite passes over what it has no room for when it closes a database, but not over an exception of ours.
        name = database_step(self.system, event)
        if event.call == "write" and not is_closing() and self.refuses(name):
            raise apsw.FullError(f"no room: {name}")
        perform(event.data)


def is_closing() -> bool:
    """Whether this was called from something that closes a storage."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "close":
        frame = frame.f_back
    return frame is not None


@contextmanager
def filling(hook: Full) -> Iterator[None]:
    """What is written meanwhile goes through the hook, and comes in small pieces."""
    with pytest.MonkeyPatch.context() as patch, disk(hook):
        make_small(patch.setattr)
        for name, function in hook.system.patches().items():
            patch.setattr(os, name, function)
        yield


async def carry_out(one: Held, operation: Operation, prepared: Prepared) -> None:
    request = requested(operation, prepared.made[-1])
    if request is None:
        await back_up(one, prepared.made[-1])
    else:
        await one.service.backups.restore(ANONYMOUS, request)


async def fill_at(
    left: int | None, operation: Operation, prepared: Prepared, directory: Path, *, once: bool
) -> list[str] | None:
    """Carries it out on a disk with room for so many writes, and looks at what comes of it; the writes that it took, None where
    it was refused.
    """
    sys.stdout.write(f"{left} writes, {'then one that fails' if once else 'then none'}, of {operation}\n")
    prepared.copy(directory)
    hook = Full(directory, once=once)
    before, after = prepared.before, prepared.after[operation]
    with filling(hook):
        async with kept(directory) as one:
            hook.seen, hook.left = [], left
            refused = False
            try:
                await carry_out(one, operation, prepared)
            except StorageFullError:
                refused = True
            hook.left, writes = None, hook.seen
            hook.seen = []
            assert await content(one) == (before if refused else after)
            assert await one.service.upkeep.check(fix=False) == []
            one.clock.advance(LAPSED)
            await store(one, "late")
            if refused:
                await carry_out(one, operation, prepared)
            assert await one.service.upkeep.check(fix=False) == []
            listed = await one.service.backups.list_all(ANONYMOUS)
            assert one.service.backups.troubles() == []
            for each in listed:
                if each.manifest.id not in prepared.made:
                    assert (await one.service.backups.verify(ANONYMOUS, each.manifest.id)).ok
            await swept(one)
    shutil.rmtree(directory)
    return None if refused else writes


@pytest.mark.parametrize(
    "trials", [pytest.param(3, id="some"), pytest.param(10_000, marks=pytest.mark.nightly, id="each")]
)
@pytest.mark.parametrize("lasts", ["for good", "once"])
@pytest.mark.parametrize("operation", OPERATIONS)
# A database aside whose log cannot be emptied when it is closed: SQLite passes over that, and apsw tells what it passed over.
@pytest.mark.filterwarnings("ignore:Exception ignored in. None:pytest.PytestUnraisableExceptionWarning")
async def test_a_full_disk_refuses_a_backup_or_restore_and_leaves_all_as_it_was(
    operation: Operation, lasts: str, trials: int, prepared: Prepared, tmp_path: Path, rng: random.Random
) -> None:
    once = lasts == "once"
    writes = await fill_at(None, operation, prepared, tmp_path / "trial", once=once)
    assert writes is not None
    # Most of them are made aside.
    served = [number for number, name in enumerate(writes) if name.startswith("main")]
    lefts = {served[number - 1] for number in spread(len(served), trials, rng)}
    lefts |= {number - 1 for number in spread(len(writes), trials, rng)}
    refused = 0
    for left in sorted(lefts):
        refused += await fill_at(left, operation, prepared, tmp_path / str(left), once=once) is None
    # What is written behind the commit, into the database from its log, may wait.
    assert refused


async def test_a_full_disk_keeps_nobody_from_opening_beside_what_a_kill_has_left(
    prepared: Prepared, tmp_path: Path
) -> None:
    directory = tmp_path / "data"
    prepared.copy(directory)
    left = directory / "memory.db-aside-0a1b2c3d"
    left.mkdir()
    hook = Full(directory)
    with pytest.MonkeyPatch.context() as patch:
        for name, function in hook.system.patches().items():
            patch.setattr(os, name, function)
        hook.left = 0
        async with kept(directory) as one:
            assert await content(one) == prepared.before
            with pytest.raises(StorageFullError):
                await carry_out(one, "merge", prepared)
            hook.left = None
            await carry_out(one, "merge", prepared)
            assert not left.exists()


# ---- others on the same database
class Neighbour:
    """Reads and writes on and on, and takes down what it was told."""

    def __init__(self, one: Held, possible: tuple[dict[Any, bytes], dict[Any, bytes]]) -> None:
        self._one = one
        self._possible = possible
        self.told: dict[str, int] = {}
        self.refused = self.reads = 0
        self.over = False
        self.begun = asyncio.Event()
        self.after = False

    async def write(self) -> None:
        number = 0
        while not self.over:
            number += 1
            key = f"n{number}"
            try:
                outcome = await self._one.service.memories.store(
                    ANONYMOUS, StoreRequest(Raw(b"%d" % number), key, "elsewhere")
                )
            except ReadOnlyError:
                self.refused += 1
            else:
                assert outcome.memory is not None
                self.told[key] = outcome.memory.version
            await asyncio.sleep(0)

    async def read(self) -> None:
        before, after = self._possible
        while not self.over:
            told = set(self.told)
            found = values(await everything(self._one))
            own = {key for namespace, key in found if namespace == "elsewhere"}
            others = {ref: value for ref, value in found.items() if ref[0] != "elsewhere"}
            assert others == after if self.after else others in (before, after)
            self.after = others == after
            assert self.after or own >= told
            self.reads += 1
            self.begun.set()


async def everything(one: Held) -> list[Memory]:
    return (await one.tiers.select(Selection(scopes=("",), limit=None), one.clock.now())).items


def values(memories: list[Memory]) -> dict[Any, bytes]:
    return {(one.namespace, one.key): one.value for one in memories}


async def beside(step: Step | None, operation: Operation, prepared: Prepared, directory: Path) -> tuple[bool, bool]:
    """Restores in a process that is killed there, while this one reads and writes; whether it was killed, and took over."""
    sys.stdout.write(f"{step} of {operation}\n")
    prepared.copy(directory)
    possible = values(prepared.before.rows["memories"]), values(prepared.after[operation].rows["memories"])
    async with kept(directory) as one:
        neighbour = Neighbour(one, possible)
        async with asyncio.TaskGroup() as group:
            group.create_task(neighbour.write())
            group.create_task(neighbour.read())
            await neighbour.begun.wait()
            (ended,) = await run(prepared.orders(operation, [Run(str(directory), step)]))
            # From now on nobody renews what holds writes off.
            one.clock.advance(LAPSED)
            neighbour.over = True
        await store(one, "late")
        found = await everything(one)
        others = {ref: value for ref, value in values(found).items() if ref[0] != "elsewhere"}
        assert others in possible
        over = others == possible[1]
        own = {memory.key: memory.version for memory in found if memory.namespace == "elsewhere"}
        del own["late"]
        events = {
            (event.key, event.version) for event in await one.tiers.feed(0, 100_000) if event.namespace == "elsewhere"
        }
        assert events >= set(neighbour.told.items())
        new = [
            each.manifest.id
            for each in await one.service.backups.list_all(ANONYMOUS)
            if each.manifest.reason == "safety"
        ]
        if not over or operation != "replace":
            assert own == neighbour.told
        else:
            (safety,) = new
            reading = backup.Place(directory / "backups").reading(safety)
            saved = {
                row.key: row.version
                for row in reading.rows("memories")
                if isinstance(row, Memory) and row.namespace == "elsewhere"
            }
            assert saved.items() | own.items() == neighbour.told.items()
        assert await one.service.upkeep.check(fix=False) == []
        assert neighbour.told
        assert neighbour.reads
    shutil.rmtree(directory)
    return ended.status != 0, over


@pytest.mark.parametrize(
    "points", [pytest.param(4, id="some"), pytest.param(100, marks=pytest.mark.nightly, id="many")]
)
@pytest.mark.parametrize("operation", RESTORES)
async def test_who_reads_and_writes_beside_a_restore_that_is_killed_sees_no_mixture_and_loses_nothing(
    operation: Operation, points: int, prepared: Prepared, tmp_path: Path, rng: random.Random
) -> None:
    assert await beside(None, operation, prepared, tmp_path / "whole") == (False, True)
    counts = prepared.counts[operation]
    told = []
    for number in range(points):
        name = rng.choice([name for name in counts if name.startswith("main")] if number % 2 else list(counts))
        step = Step(name, rng.randint(1, max(1, counts[name] * 9 // 10)), a_moment(name, rng))
        told.append(await beside(step, operation, prepared, tmp_path / str(number)))
    assert sum(killed for killed, _ in told) > points / 2


# ---- damage
def flip(path: Path, position: int) -> None:
    """Changes a bit of that byte, or changes it back."""
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


async def flip_each(prepared: Prepared, directory: Path, rng: random.Random, *, times: int) -> int:
    """One flipped byte after another, in each file of the backup and of the one that it goes on from; how many there were."""
    prepared.copy(directory)
    full, last = prepared.made
    flipped = 0
    async with kept(directory) as one:
        backups = one.service.backups
        place = backup.Place(directory / "backups")
        for backup_id in (full, last):
            for path in sorted((directory / "backups" / backup_id).iterdir()):
                size = path.stat().st_size
                # The bit of the fifth byte is one that zstd does not look at.
                for position in {0, 4, size - 1, *(rng.randrange(size) for _ in range(times))}:
                    sys.stdout.write(f"byte {position} of {backup_id}/{path.name}\n")
                    flip(path, position)
                    for using in {backup_id, last}:
                        with pytest.raises(BackupDamagedError) as refused:
                            await backups.verify(ANONYMOUS, using)
                        assert (refused.value.facts["backup_id"], refused.value.facts["part"]) == (backup_id, path.name)
                        noted = place.verified(using)
                        assert noted is not None
                        assert not noted.ok
                        assert noted.detail == refused.value.detail
                    for operation in RESTORES:
                        request = requested(operation, last)
                        assert request is not None
                        with pytest.raises(BackupDamagedError) as refused:
                            await backups.restore(ANONYMOUS, request)
                        assert (refused.value.facts["backup_id"], refused.value.facts["part"]) == (backup_id, path.name)
                    flip(path, position)
                    flipped += 1
        assert await content(one) == prepared.before
        assert {each.manifest.id for each in await backups.list_all(ANONYMOUS)} == {full, last}
        for using in (full, last):
            assert (await backups.verify(ANONYMOUS, using)).ok
    return flipped


@pytest.mark.parametrize("times", [pytest.param(1, id="some"), pytest.param(60, marks=pytest.mark.nightly, id="many")])
async def test_a_flipped_byte_of_a_backup_or_its_parent_is_named_and_nothing_is_restored(
    times: int, prepared: Prepared, tmp_path: Path, rng: random.Random
) -> None:
    flipped = await flip_each(prepared, tmp_path / "data", rng, times=times)
    assert flipped > 2 * len(backup.KINDS)
