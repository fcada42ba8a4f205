"""What lies in several tiers survives kill -9 at every step of a move, a full disk, damaged and missing archives, and two
processes that move the same memories: nothing is lost, nothing comes back, and `check` says what is damaged and nothing else.
"""

import asyncio
import contextlib
import errno
import os
import random
import shutil
import signal
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator
from pathlib import Path

import apsw
import msgspec
import pytest
from msgspec import Raw, Struct

from tests.faults.conftest import MIB, SmallDisk
from tests.faults.disk import Event, disk
from tests.faults.ledger import Ledger, Ref
from tests.faults.test_full_disk import crowd
from tests.faults.tiering import (
    DATABASE,
    EVER,
    FEW_STUBS,
    FEW_VALUES,
    FILES,
    LONG_SECONDS,
    MOVES,
    NAMESPACES,
    START,
    Held,
    Orders,
    Step,
    Told,
    When,
    demote,
    held,
    ids,
    long_lived,
    prepare,
    short_lived,
    state_of,
    word,
)
from unified_memory.model.clock import SECOND, SettableClock
from unified_memory.model.errors import ArchiveMissingError, StorageCorruptError, StorageFullError
from unified_memory.model.principal import ANONYMOUS
from unified_memory.model.query import Selection
from unified_memory.service.requests import (
    BatchKeysRequest,
    BatchStoreRequest,
    ExactQuery,
    KeyRef,
    ListQuery,
    MoveRequest,
    PatchRequest,
    Place,
    SearchQuery,
    StoreRequest,
    UpdateRequest,
)
from unified_memory.storage import tiered
from unified_memory.storage.archive import Directory

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0
# By then what was short-lived has expired, and nothing else has.
LATER = START + 10 * 3600 * SECOND
HOUR, MINUTE = 3601, 61


# ---- what must hold
async def expect(one: Held, ledger: Ledger) -> None:
    """Every memory that there should be is there, once, in whatever way one asks, and in one tier."""
    now = one.clock.now()
    found = await one.tiers.get_many(ledger.refs(), now)
    ledger.settle({(m.namespace, m.key): state_of(m) for m in found if m is not None})
    there = {ref: state for ref, state in ledger.known.items() if state.there}
    page = await one.tiers.select(Selection(scopes=("",), limit=None), now)
    assert {(m.namespace, m.key): state_of(m) for m in page.items} == there
    assert len(page.items) == len(there)
    for ref, state in there.items():
        hits = (await one.service.searching.search(ANONYMOUS, SearchQuery(word(state)))).hits
        assert [(hit.memory.namespace, hit.memory.key) for hit in hits] == [ref]
    uses = await one.tiers.uses(("",), now, recursive=True)
    tiers = Counter(m.tier for m in page.items)
    assert (uses.warm, uses.cold) == (tiers["warm"], tiers["cold"])
    assert uses.warm + uses.cold == len(there)


async def tidy(one: Held) -> None:
    """More than an hour later, and a minute after that, no file is left that nobody needs."""
    for name in one.files():
        # The system's clock does not go with ours.
        os.utime(one.directory / "archive" / name, (0, 0))
    for seconds in (HOUR, MINUTE):
        one.clock.advance(seconds)
        await one.tiers.tidy(one.clock.now())
    archives = await one.tiers.archives()
    assert {archive.state for archive in archives} <= {"live"}
    assert one.files() == {archive.name for archive in archives}


async def move_again(one: Held, ledger: Ledger) -> None:
    """Every move can be made, and at the end nothing is archived."""
    await demote(one.tiers, one.clock.now())
    assert (await one.tiers.uses(("",), one.clock.now(), recursive=True)).warm == 0
    await expect(one, ledger)
    for archive in await one.tiers.archives():
        await one.tiers.compact(archive.name, one.clock.now())
    await tidy(one)
    await expect(one, ledger)
    assert await one.service.upkeep.check(fix=False) == []
    await one.tiers.promote(await ids(one.tiers, one.clock.now()), one.clock.now())
    await expect(one, ledger)
    async for _ in one.service.upkeep.cleanup():
        pass
    async for _ in one.service.tiering.compact():
        pass
    await tidy(one)
    assert one.files() == set()
    assert await one.service.upkeep.check(fix=False) == []


def expired(ledger: Ledger) -> list[Ref]:
    """Takes what has expired out of the ledger."""
    gone = [ref for ref in ledger.known if short_lived(ref)]
    for ref in gone:
        del ledger.known[ref]
    return gone


async def look_after(directory: Path, ledger: Ledger) -> None:
    """Opens what a kill has left as the next process would."""
    async with held(directory, SettableClock(LATER)) as one:
        assert await one.service.upkeep.check(fix=False) == []
        gone = expired(ledger)
        assert gone
        assert await one.tiers.get_many(gone, LATER) == [None] * len(gone)
        await expect(one, ledger)
        await tidy(one)
        await expect(one, ledger)
        await move_again(one, ledger)
        last = START + LONG_SECONDS * SECOND
        refs = [ref for ref in ledger.refs() if long_lived(ref)]
        assert all(await one.tiers.get_many(refs, last - 1))
        assert not any(await one.tiers.get_many(refs, last))


# ---- processes
async def run(ledger: Ledger, orders: Orders) -> tuple[int, dict[str, int]]:
    """Runs the process to its end, whichever it is, and takes down what it was told: its status, and its steps."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.tiering", msgspec.json.encode(orders).decode(),
        cwd=ROOT, stdout=PIPE, stderr=PIPE,
    )  # fmt: skip
    try:
        async with asyncio.timeout(PATIENCE):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode in {0, -signal.SIGKILL}, err.decode()
    numbers: dict[int, int] = {}
    counts: dict[str, int] = {}
    for line in out.splitlines():
        told = msgspec.json.decode(line, type=Told)
        if told.begun:
            numbers[told.begun] = ledger.begin({told.ref: told.state})
        elif told.done:
            ledger.confirm(numbers[told.done])
        else:
            counts = told.counts
    assert process.returncode is not None
    return process.returncode, counts


class Prepared:
    """A directory that is copied for each test, and how many steps of each kind a process takes on it."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ledger = asyncio.run(prepare(directory))
        trial = directory.with_name("trial")
        self.counts = asyncio.run(run(self.copy(trial), Orders(str(trial))))[1]

    def copy(self, target: Path) -> Ledger:
        """Puts it there; what is known of it."""
        shutil.copytree(self._directory, target)
        return self._ledger.copy()


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return Prepared(tmp_path_factory.mktemp("tiers") / "prepared")


async def kill_at(step: Step, prepared: Prepared, directory: Path) -> bool:
    """Kills a process there and looks at what it left; whether it came so far."""
    sys.stdout.write(f"{step}\n")
    ledger = prepared.copy(directory)
    status, _ = await run(ledger, Orders(str(directory), step=step))
    await look_after(directory, ledger)
    shutil.rmtree(directory)
    return status != 0


# One of each kind; the others are slow, for their number.
CHOSEN: list[tuple[str, When]] = [
    ("file write", "half"),
    ("file rename", "before"),
    ("directory sync", "after"),
    ("put stubs", "after"),
    ("publish", "before"),
    ("take back", "before"),
    ("move stubs", "after"),
    ("retire", "after"),
    ("file unlink", "before"),
    ("wal sync", "before"),
]
EACH: list[tuple[str, When]] = [
    *[(name, when) for name in (*MOVES, *FILES, *DATABASE) for when in ("before", "after")],
    *[(name, "half") for name in ("file write", "wal write", "db write")],
]


@pytest.mark.parametrize(("name", "when"), CHOSEN, ids=str)
async def test_a_kill_during_a_move_loses_nothing_and_brings_nothing_back(
    name: str, when: When, prepared: Prepared, tmp_path: Path, rng: random.Random
) -> None:
    # Tasks take turns as they like: how many steps of a kind there are is not quite certain.
    number = rng.randint(1, max(1, prepared.counts[name] * 3 // 4))
    assert await kill_at(Step(name, number, when), prepared, tmp_path / "data")


# Of so many steps of a kind each is one to be killed at, of more so many of them.
@pytest.mark.parametrize(
    "of_each", [pytest.param(1, marks=pytest.mark.slow), pytest.param(12, marks=pytest.mark.nightly)]
)
@pytest.mark.parametrize(("name", "when"), EACH, ids=str)
async def test_a_kill_at_every_kind_of_step_of_a_move_loses_nothing_and_brings_nothing_back(
    name: str, when: When, of_each: int, prepared: Prepared, tmp_path: Path
) -> None:
    count = prepared.counts[name]
    numbers = sorted({1 + (2 * part + 1) * (count - 1) // (2 * of_each) for part in range(of_each)})
    killed = [await kill_at(Step(name, number, when), prepared, tmp_path / str(number)) for number in numbers]
    assert sum(killed) > len(killed) / 2


async def both(prepared: Prepared, directory: Path, rounds: int) -> None:
    """Two processes move and write as they like, and nothing is lost."""
    ledger = prepared.copy(directory)
    results = await asyncio.gather(
        *(run(ledger, Orders(str(directory), name, rounds=rounds, alone=False, seed=rounds)) for name in ("one", "two"))
    )
    assert [status for status, _ in results] == [0, 0]
    assert ledger.acknowledged > len(NAMESPACES)
    await look_after(directory, ledger)


async def test_two_processes_that_move_the_same_memories_lose_nothing(prepared: Prepared, tmp_path: Path) -> None:
    await both(prepared, tmp_path / "data", 2)


@pytest.mark.nightly
async def test_two_processes_that_move_the_same_memories_for_long_lose_nothing(
    prepared: Prepared, tmp_path: Path
) -> None:
    await both(prepared, tmp_path / "data", 20)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["file rename", "put stubs", "publish", "take back", "move stubs", "retire", "wal sync"]
)
async def test_a_process_that_is_killed_leaves_another_one_that_moves_unharmed(
    name: str, prepared: Prepared, tmp_path: Path
) -> None:
    directory = tmp_path / "data"
    ledger = prepared.copy(directory)
    step = Step(name, max(1, prepared.counts[name] // 2))
    killed, other = await asyncio.gather(
        run(ledger, Orders(str(directory), "one", step=step, rounds=4, alone=False)),
        run(ledger, Orders(str(directory), "two", rounds=4, alone=False)),
    )
    assert (killed[0], other[0]) == (-signal.SIGKILL, 0)
    await look_after(directory, ledger)


# ---- a full disk
class Tight(Directory):
    """Has room for so many bytes."""

    room: int | None = None

    def put(self, name: str, chunks: Iterable[bytes]) -> int:
        return super().put(name, self._within(chunks))

    def _within(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            if self.room is not None:
                self.room -= len(chunk)
                if self.room < 0:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            yield chunk


class NoRoom:
    """The hook of a disk that is full after so many writes."""

    def __init__(self) -> None:
        self.left: int | None = None
        self.seen = 0

    def __call__(self, event: Event, perform: Callable[[bytes], None]) -> None:
        if event.call == "write":
            self.seen += 1
            if self.left is not None:
                self.left -= 1
                if self.left < 0:
                    raise apsw.FullError("no room")
        perform(event.data)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
async def test_values_for_which_no_archive_has_room_stay_where_they_are(
    share: float, prepared: Prepared, tmp_path: Path
) -> None:
    directory = tmp_path / "data"
    ledger = prepared.copy(directory)
    files = Tight(directory / "archive")
    async with held(directory, files=files) as one:
        before = await one.tiers.archives()
        full = await one.tiers.demotable(("",), START, recursive=True, used_before=EVER, limit=1000)
        trial = await one.tiers.demote(full, START)
        written = (await one.tiers.archives())[-1]
        await one.tiers.promote([each.id for each in full], START)
        assert trial.memories == len(full)

        files.room = round(written.bytes_stored * share)
        there = one.files()
        with pytest.raises(StorageFullError):
            await one.tiers.demote(full, START)
        assert one.files() == there
        assert [each.name for each in await one.tiers.archives()] == [each.name for each in [*before, written]]
        await expect(one, ledger)
        assert await one.service.upkeep.check(fix=False) == []

        files.room = None
        assert (await one.tiers.demote(full, START)).memories == len(full)
        await expect(one, ledger)
    await look_after(directory, ledger)


Move = Callable[[Held], Coroutine[object, object, None]]


async def demote_all(one: Held) -> None:
    """The first of `GOES`."""
    await demote(one.tiers, START)


async def promote_all(one: Held) -> None:
    await one.tiers.promote(await ids(one.tiers, START), START)


async def compact_all(one: Held) -> None:
    for archive in await one.tiers.archives():
        if archive.state == "live":
            await one.tiers.compact(archive.name, START)


# What is done, and what puts it back to be done again.
GOES: dict[str, tuple[Move, Move]] = {
    "demotion": (demote_all, promote_all),
    "promotion": (promote_all, demote_all),
    "compaction": (compact_all, demote_all),
}


@pytest.mark.parametrize("move", GOES)
async def test_a_move_for_which_the_database_has_no_room_is_refused_and_can_be_made_later(
    move: str, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiered, "STUBS", FEW_STUBS)
    monkeypatch.setattr(tiered, "CHUNK", FEW_VALUES)
    directory = tmp_path / "data"
    ledger = prepared.copy(directory)
    hook = NoRoom()
    do, back = GOES[move]
    refused = 0
    with disk(hook):
        async with held(directory) as one:
            await back(one)
            since = hook.seen
            await do(one)
            needed = hook.seen - since
            assert needed > TRIALS
            for part in range(TRIALS):
                await back(one)
                hook.left = needed * part // TRIALS
                try:
                    await do(one)
                except StorageFullError:
                    refused += 1
                hook.left = None
                assert await one.service.upkeep.check(fix=False) == []
                await expect(one, ledger)
    # A move needs not always the same room.
    assert refused > TRIALS // 2
    await look_after(directory, ledger)


TRIALS = 6


async def test_a_full_file_system_refuses_archives_and_takes_them_once_there_is_room(small_disk: SmallDisk) -> None:
    directory = small_disk.path
    small_disk.resize(32 * MIB)
    ledger = await prepare(directory)
    async with held(directory) as one:
        crowd(directory)
        with pytest.raises(StorageFullError):
            await demote(one.tiers, START)
        await expect(one, ledger)
        assert await one.service.upkeep.check(fix=False) == []
        small_disk.resize(64 * MIB)
        assert await demote(one.tiers, START)
        await expect(one, ledger)
    await look_after(directory, ledger)


@pytest.mark.parametrize("move", GOES)
async def test_a_move_that_is_given_up_at_any_moment_loses_nothing_and_can_be_made_again(
    move: str, prepared: Prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiered, "STUBS", FEW_STUBS)
    monkeypatch.setattr(tiered, "CHUNK", FEW_VALUES)
    directory = tmp_path / "data"
    ledger = prepared.copy(directory)
    do, back = GOES[move]
    async with held(directory) as one:
        turns, given_up = 1, 0
        while True:
            await back(one)
            task = asyncio.ensure_future(do(one))
            for _ in range(turns):
                await asyncio.sleep(0)
            if not task.cancel():
                break
            with contextlib.suppress(asyncio.CancelledError):
                await task
            given_up += 1
            assert await one.service.upkeep.check(fix=False) == []
            await expect(one, ledger)
            # A loop that has nothing to do turns quickly.
            turns *= 4
        await task
    assert given_up > len(GOES)
    await look_after(directory, ledger)


# ---- damage
LARGE = 120
# A cache of as many bytes keeps the blocks of one such archive.
SMALL = 400_000


class Cold(Struct):
    """Memories that lie in one archive, and in which of its blocks."""

    directory: Path
    archive: str
    values: dict[int, bytes]
    refs: dict[int, Ref]
    blocks: dict[int, int]

    @property
    def file(self) -> Path:
        return self.directory / "archive" / self.archive

    def flip(self, position: int) -> None:
        """Changes a bit of that byte of the file, or changes it back."""
        with self.file.open("r+b", buffering=0) as file:
            file.seek(position)
            (byte,) = file.read(1)
            file.seek(position)
            file.write(bytes([byte ^ 0x10]))

    def in_block(self, block: int) -> list[int]:
        return [number for number, its in self.blocks.items() if its == block]


@pytest.fixture
async def cold(tmp_path: Path, rng: random.Random) -> Cold:
    async with held(tmp_path) as one:
        for start in range(0, LARGE, 40):
            requests = [
                StoreRequest(
                    Raw(b'{"stamp": "stamp%dx", "noise": "%b"}' % (i, rng.randbytes(1000).hex().encode())),
                    f"k{i}",
                    NAMESPACES[i * len(NAMESPACES) // LARGE],
                )
                for i in range(start, start + 40)
            ]
            await one.service.memories.store_batch(ANONYMOUS, BatchStoreRequest(requests))
        page = await one.tiers.select(Selection(scopes=("",), limit=1000), START)
        await demote(one.tiers, START)
        (archive,) = await one.tiers.archives()
        places = await one.warm.stubs(archive.name, 0, 1000)
    return Cold(
        tmp_path,
        archive.name,
        {m.id: m.value for m in page.items},
        {m.id: (m.namespace, m.key) for m in page.items},
        {place.id: place.block for place in places},
    )


async def unreadable(one: Held, cold: Cold) -> list[int]:
    """Which memories cannot be read; of all others the value is right."""
    failed = []
    for number, value in cold.values.items():
        try:
            (memory,) = await one.tiers.get_by_id([number], START)
        except StorageCorruptError as error:
            failed.append((number, error.facts["archive"]))
        else:
            assert memory is not None
            assert memory.value == value
    assert {archive for _, archive in failed} <= {cold.archive}
    return [number for number, _ in failed]


async def flip_everywhere(cold: Cold, positions: Iterable[int]) -> tuple[int, int]:
    """One flipped byte after the other; how many of them hit a block, and how many something else."""
    hits = others = 0
    for position in positions:
        cold.flip(position)
        async with held(cold.directory) as one:
            problems = {problem.where for problem in await one.service.upkeep.check(fix=False)}
            failed = await unreadable(one, cold)
            blocks = {cold.blocks[number] for number in failed}
            if failed:
                hits += 1
                (block,) = blocks
                assert failed == cold.in_block(block)
                assert f"archive {cold.archive}, block {block}" in problems
                assert sum(where.startswith("memory ") for where in problems) == len(failed)
            else:
                others += 1
                assert any(where.startswith(f"archive {cold.archive}") for where in problems), position
                assert not any(where.startswith("memory ") for where in problems)
        cold.flip(position)
    async with held(cold.directory) as one:
        assert await one.service.upkeep.check(fix=False) == []
    return hits, others


async def test_a_flipped_byte_is_named_and_spoils_one_block_at_most(cold: Cold, rng: random.Random) -> None:
    part = cold.file.stat().st_size // 30
    hits, _ = await flip_everywhere(cold, (rng.randrange(start * part, (start + 1) * part) for start in range(30)))
    assert hits


@pytest.mark.slow
async def test_each_of_many_flipped_bytes_is_named_and_spoils_one_block_at_most(cold: Cold) -> None:
    size = cold.file.stat().st_size
    ends = [*range(0, 200, 4), *range(size - 400, size, 4)]
    hits, others = await flip_everywhere(cold, [*ends, *range(200, size, size // 60)])
    assert hits
    assert others


@pytest.fixture
async def damaged(cold: Cold) -> tuple[Cold, list[int], int]:
    """A directory with one damaged block, which memories it holds, and which byte it is."""
    async with held(cold.directory) as one:
        position = cold.file.stat().st_size // 2
        while True:
            cold.flip(position)
            one.clock.advance(1)
            async with held(cold.directory) as other:
                if failed := await unreadable(other, cold):
                    return cold, failed, position
            cold.flip(position)
            position += 100


Damaged = tuple[Cold, list[int], int]


async def test_what_cannot_be_read_is_an_error_wherever_it_would_be_shown(damaged: Damaged) -> None:
    cold, (victim, *_), _ = damaged
    namespace, key = cold.refs[victim]
    async with held(cold.directory) as one:
        memories, searching = one.service.memories, one.service.searching
        value = msgspec.json.decode(cold.values[victim])
        for read in (
            lambda: memories.retrieve(ANONYMOUS, namespace, key),
            lambda: memories.retrieve_id(ANONYMOUS, victim),
            lambda: memories.retrieve_batch(ANONYMOUS, BatchKeysRequest([KeyRef(key, namespace)])),
            lambda: memories.list_all(ANONYMOUS, ListQuery(limit=1000)),
            lambda: memories.query(ANONYMOUS, ExactQuery({"value.stamp": value["stamp"]})),
            lambda: memories.query(ANONYMOUS, ExactQuery({"key": key})),
            lambda: searching.search(ANONYMOUS, SearchQuery(value["stamp"])),
        ):
            with pytest.raises(StorageCorruptError) as refused:
                await read()
            assert refused.value.facts["archive"] == cold.archive
            assert refused.value.facts["block"] == cold.blocks[victim]
        # What does not ask for values is answered.
        assert (await memories.query(ANONYMOUS, ExactQuery({"key": key}, group_by="namespace"))).groups
        assert (await one.service.upkeep.stats(ANONYMOUS, None)).memories == LARGE


async def test_a_change_of_what_cannot_be_read_is_an_error_and_changes_nothing(damaged: Damaged) -> None:
    cold, (victim, *_), position = damaged
    namespace, key = cold.refs[victim]
    async with held(cold.directory) as one:
        memories, last = one.service.memories, await one.tiers.last_seq()
        for change in (
            lambda: memories.update(ANONYMOUS, namespace, key, UpdateRequest(metadata={"importance": Raw(b"9")})),
            lambda: memories.patch(ANONYMOUS, namespace, key, PatchRequest(merge=Raw(b'{"a": 1}'))),
            lambda: memories.move(ANONYMOUS, MoveRequest(Place(namespace, key), Place(namespace, "elsewhere"))),
        ):
            with pytest.raises(StorageCorruptError):
                await change()
        assert await one.tiers.last_seq() == last
        # Others are written as ever, also together with it.
        await memories.store(ANONYMOUS, StoreRequest(Raw(b"1"), "another"))
    cold.flip(position)
    async with held(cold.directory) as one:
        memory = await one.service.memories.retrieve(ANONYMOUS, namespace, key)
        assert (memory.version, memory.importance, memory.value) == (1, 5, cold.values[victim])
        assert await one.service.upkeep.check(fix=False) == []


async def test_what_cannot_be_read_is_healed_by_a_store_and_goes_by_a_delete(damaged: Damaged) -> None:
    cold, failed, _ = damaged
    async with held(cold.directory) as one:
        for place, number in enumerate(failed):
            namespace, key = cold.refs[number]
            if place % 2:
                await one.service.memories.delete(ANONYMOUS, namespace, key)
            else:
                await one.service.memories.store(ANONYMOUS, StoreRequest(Raw(b'"healed"'), key, namespace))
                memory = await one.service.memories.retrieve(ANONYMOUS, namespace, key)
                assert (memory.value, memory.version, memory.tier) == (b'"healed"', 2, "warm")
        problems = await one.service.upkeep.check(fix=False)
        assert not [problem for problem in problems if problem.where.startswith("memory ")]
        (archive,) = await one.tiers.archives()
        compacted = await one.tiers.compact(archive.name, START)
        assert (compacted.memories, compacted.damaged) == (LARGE - len(failed), 0)
        assert await one.service.upkeep.check(fix=False) == []


async def test_a_compaction_carries_over_all_but_what_is_damaged(damaged: Damaged) -> None:
    cold, failed, position = damaged
    async with held(cold.directory) as one:
        compacted = await one.tiers.compact(cold.archive, START)
        assert (compacted.memories, compacted.damaged) == (LARGE - len(failed), len(failed))
        old, new = await one.tiers.archives()
        assert [(each.name == cold.archive, each.state, each.live) for each in (old, new)] == [
            (True, "live", len(failed)),
            (False, "live", LARGE - len(failed)),
        ]
        await tidy(one)
        assert await unreadable(one, cold) == failed
        where = [problem.where for problem in await one.service.upkeep.check(fix=False)]
        assert f"archive {cold.archive}, block {cold.blocks[failed[0]]}" in where
        # However often it is tried.
        assert (await one.tiers.compact(cold.archive, START)).damaged == len(failed)
        assert await unreadable(one, cold) == failed
    cold.flip(position)
    async with held(cold.directory) as one:
        assert await unreadable(one, cold) == []
        assert await one.service.upkeep.check(fix=False) == []


async def test_a_check_that_mends_loses_nothing_of_what_cannot_be_read(damaged: Damaged) -> None:
    cold, failed, position = damaged
    async with held(cold.directory) as one:
        problems = await one.service.upkeep.check(fix=True)
        assert not any(problem.fixed for problem in problems if problem.where.startswith(("memory ", "archive ")))
        assert await unreadable(one, cold) == failed
    cold.flip(position)
    async with held(cold.directory) as one:
        assert await unreadable(one, cold) == []
        assert await one.service.upkeep.check(fix=False) == []


async def test_a_recall_brings_back_all_but_what_is_damaged(damaged: Damaged) -> None:
    cold, failed, _ = damaged
    async with held(cold.directory) as one:
        told = 0
        for namespace in NAMESPACES:
            try:
                async for _moved in one.service.tiering.recall(ANONYMOUS, namespace, recursive=False):
                    pass
            except StorageCorruptError as error:
                told += error.facts["damaged"]
        assert told == len(failed)
        assert await ids(one.tiers, START) == sorted(failed)


async def test_a_cleanup_goes_on_behind_what_cannot_be_read(damaged: Damaged) -> None:
    cold, (victim, *_), _ = damaged
    namespace, _ = cold.refs[victim]
    async with held(cold.directory) as one:
        # Its words are to be indexed again, in another language, and cannot be.
        await one.service.namespaces.configure(ANONYMOUS, namespace, {"language": Raw(b'"german"')})
        async for _removed in one.service.upkeep.cleanup():
            pass
        assert await one.service.upkeep.check(fix=True)


async def test_a_missing_archive_is_named_and_what_it_held_is_an_error_until_it_is_back(
    cold: Cold, tmp_path: Path
) -> None:
    async with held(cold.directory) as one:
        await one.service.memories.store(ANONYMOUS, StoreRequest(Raw(b'"other"'), "other"))
        await demote(one.tiers, START)
        aside = tmp_path / "aside"
        cold.file.rename(aside)
        where = [problem.where for problem in await one.service.upkeep.check(fix=False)]
        assert f"archive {cold.archive}" in where
        assert sum(each.startswith("memory ") for each in where) == LARGE
        with pytest.raises(ArchiveMissingError):
            await one.service.memories.list_all(ANONYMOUS, ListQuery())
        assert await unreadable(one, cold) == list(cold.values)
        assert (await one.service.memories.retrieve(ANONYMOUS, "default", "other")).value == b'"other"'
        compacted = await one.tiers.compact(cold.archive, START)
        assert (compacted.memories, compacted.damaged) == (0, LARGE)
        assert (
            len([each for each in await one.service.upkeep.check(fix=True) if each.where.startswith("memory ")])
            == LARGE
        )
        aside.rename(cold.file)
        assert await unreadable(one, cold) == []
        await tidy(one)
        assert await one.service.upkeep.check(fix=False) == []


async def test_a_file_that_the_database_does_not_name_is_told_and_left_alone(cold: Cold) -> None:
    stranger = cold.file.with_name("stranger.zar")
    shutil.copy(cold.file, stranger)
    async with held(cold.directory) as one:
        (problem,) = await one.service.upkeep.check(fix=True)
        assert (problem.where, problem.fixed) == ("archive stranger.zar", False)
    assert stranger.exists()


class Overtaken(Directory):
    """Before so many of its reads, somebody takes away what is going to be read."""

    times = 0
    take_away: Callable[[], None]

    def read(self, name: str, start: int, length: int) -> bytes:
        if self.times:
            self.times -= 1
            self.take_away()
        return super().read(name, start, length)


async def compact_away(one: Held) -> None:
    """Every archive, and its file."""
    await compact_all(one)
    one.clock.advance(MINUTE)
    assert await one.tiers.tidy(one.clock.now())


async def listed(one: Held) -> int:
    return len((await one.tiers.select(Selection(scopes=("",), limit=1000), START)).items)


async def searched(one: Held) -> int:
    return len((await one.service.searching.search(ANONYMOUS, SearchQuery("stamp5x"))).hits)


async def queried(one: Held) -> int:
    asked = ExactQuery({"value.stamp": {"startswith": "stamp11"}}, limit=1000)
    return len((await one.service.memories.query(ANONYMOUS, asked)).memories)


async def counted(one: Held) -> int:
    found = await one.service.memories.query(ANONYMOUS, ExactQuery(group_by="value.stamp", count=True))
    return found.count or 0


async def got(one: Held) -> int:
    found = [await one.tiers.get(namespace, f"k{LARGE // 2}", START) for namespace in NAMESPACES]
    return len([memory for memory in found if memory is not None])


async def promoted(one: Held) -> int:
    return (await one.tiers.promote(await ids(one.tiers, START), START)).memories


async def checked(one: Held) -> int:
    return len(await one.service.upkeep.check(fix=False))


READS: list[tuple[Callable[[Held], Awaitable[int]], int]] = [
    (listed, LARGE),
    (searched, 1),
    (queried, 11),
    (counted, LARGE),
    (got, 1),
]


@pytest.mark.parametrize(
    ("read", "expected"), [*READS, (promoted, LARGE), (checked, 0)], ids=lambda one: getattr(one, "__name__", "")
)
async def test_a_read_whose_archive_goes_meanwhile_reads_it_where_it_lies_now(
    read: Callable[[Held], Awaitable[int]], expected: int, cold: Cold
) -> None:
    files = Overtaken(cold.directory / "archive")
    loop = asyncio.get_running_loop()
    async with held(cold.directory) as one, held(cold.directory, files=files, cache_bytes=0) as other:
        # Reads of archives are made by threads.
        files.take_away = lambda: asyncio.run_coroutine_threadsafe(compact_away(one), loop).result(PATIENCE)
        files.times = 2
        assert await read(other) == expected
        assert files.times == 0
        assert await one.service.upkeep.check(fix=False) == []


async def test_archives_that_go_while_others_read_are_no_error_for_anybody(cold: Cold) -> None:
    over = False
    reads = 0
    async with held(cold.directory, cache_bytes=SMALL) as one, held(cold.directory, cache_bytes=SMALL) as other:

        async def reading(which: Held, read: Callable[[Held], Awaitable[int]], expected: int) -> None:
            nonlocal reads
            while not over:
                assert await read(which) == expected
                reads += 1

        async with asyncio.TaskGroup() as group:
            for which in (one, other):
                for read, expected in READS:
                    group.create_task(reading(which, read, expected))
            for number in range(6):
                if number % 3 == 2:
                    await one.tiers.promote((await ids(one.tiers, START))[: LARGE // 2], START)
                    await demote(one.tiers, START)
                await compact_away(one)
            over = True
        assert reads > LARGE // 10
        assert await other.service.upkeep.check(fix=False) == []
