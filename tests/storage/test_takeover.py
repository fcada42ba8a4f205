"""What only databases in files can show of `aside` and `take_over`: other processes, kills, a full disk, archives."""

import asyncio
import fcntl
import shutil
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import apsw
import pytest

from tests.faults.disk import Event, disk
from tests.storage.drafts import NOW, found, keys, remove, store
from tests.storage.parts.dumps import Dump, comparable, dumped, put_all
from tests.storage.test_tiered import LAST, tiered
from unified_memory.model.clock import SECOND, SettableClock
from unified_memory.model.errors import RefusedError, StorageError, StorageFullError
from unified_memory.storage import tiered as tiers
from unified_memory.storage.archive import Archive, Block, Directory
from unified_memory.storage.base import Storage
from unified_memory.storage.dump import Mode, Snapshot, Takeover
from unified_memory.storage.sqlite import SQLiteStorage
from unified_memory.storage.tiered import TieredStorage

REPLACE = Takeover(Mode.REPLACE)
MERGE = Takeover(Mode.MERGE)
PART = Takeover(Mode.NAMESPACE, "n")
FOR_EVER = 2**60
# Another process on the database: does what each line says and answers with a line.
OTHER_PROCESS = """
import asyncio, sys
from pathlib import Path
from tests.storage.drafts import found, keys, store
from unified_memory.storage.sqlite import SQLiteStorage

async def main():
    storage = SQLiteStorage(Path(sys.argv[1]))
    await storage.open()
    print("open", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        word, key = line.split()
        if word == "store":
            print((await store(storage, key, key, namespace="n", tags=("a", "b"))).version, flush=True)
        if word == "keys":
            print(*await keys(storage, "n"), flush=True)
        if word == "found":
            print(*await found(storage, key), flush=True)
        if word == "aside":
            other = await storage.aside()
            print(other.path.parent, flush=True)
    await storage.close()

asyncio.run(main())
"""


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[SQLiteStorage]:
    storage = SQLiteStorage(tmp_path / "memory.db", clock=SettableClock(NOW))
    await storage.open()
    yield storage
    assert await storage.check(fix=False) == []
    await storage.close()


async def fill(storage: Storage) -> Dump:
    """Stores some memories, and changes them after they were dumped."""
    for number in range(20):
        await store(storage, f"k{number}", f"word{number} " * 30, namespace="n", tags=("a", "b"))
    link = await dumped(storage)
    for number in range(10):
        await store(storage, f"k{number}", f"changed{number} " * 30, namespace="n", tags=("c",), now=NOW + SECOND)
    await remove(storage, "k15", namespace="n")
    await store(storage, "new", "new", namespace="n", tags=("new",))
    return link


async def take(storage: Storage, link: Dump, takeover: Takeover = REPLACE) -> None:
    other = await storage.aside()
    try:
        await put_all(other, link)
        await storage.hold_writes("a restore", FOR_EVER)
        await storage.take_over(other, takeover, NOW + 2 * SECOND)
    finally:
        await storage.hold_writes(None, 0)
        await storage.drop_aside(other)


def beside(storage: SQLiteStorage) -> list[Path]:
    return [one for one in storage.path.parent.iterdir() if one.is_dir() and "-aside-" in one.name]


class Other:
    """Another process on the same database."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, path: Path) -> "Other":
        program = (sys.executable, "-c", OTHER_PROCESS, str(path))
        pipe = asyncio.subprocess.PIPE
        other = cls(await asyncio.create_subprocess_exec(*program, stdin=pipe, stdout=pipe))
        assert await other.answer() == "open"
        return other

    async def answer(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 30)).decode().strip()

    async def ask(self, line: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n".encode())
        return await self.answer()

    async def end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        await self.process.wait()


# ---- others on the same database


@pytest.mark.parametrize("takeover", [REPLACE, MERGE, PART], ids=lambda one: one.mode.value)
async def test_other_processes_go_on_with_what_was_taken_over(storage: SQLiteStorage, takeover: Takeover) -> None:
    link = await fill(storage)
    other = await Other.start(storage.path)
    assert await other.ask("store theirs") == "1"
    assert "k0" in (await other.ask("found changed0")).split()
    await take(storage, link, takeover)
    assert (await other.ask("keys -")).split() == await keys(storage, "n")
    assert await other.ask("found word15") == "k15"
    # Its tags have other ids now, and so has its namespace.
    version = int(await other.ask("store k15"))
    memory = await storage.get("n", "k15", NOW)
    assert memory is not None
    assert (memory.version, memory.tags) == (version, ("a", "b"))
    await other.end()
    assert await storage.check(fix=False) == []


async def test_another_storage_of_this_process_goes_on_with_what_was_taken_over(storage: SQLiteStorage) -> None:
    link = await fill(storage)
    second = SQLiteStorage(storage.path, clock=SettableClock(NOW))
    await second.open()
    stamp = second.stamp()
    await store(second, "theirs", "changed0", namespace="n", tags=("c",))
    await take(storage, link)
    assert await keys(second) == [f"k{number}" for number in range(20)]
    assert await found(second, "changed0") == []
    assert second.changed(stamp)[1] is None
    await store(second, "theirs", "again", namespace="n", tags=("c", "a"))
    assert await keys(storage, where={"tags": {"contains": "c"}}) == ["theirs"]
    assert await second.check(fix=False) == []
    await second.close()


async def test_a_reader_that_has_begun_goes_on_with_what_it_sees(storage: SQLiteStorage) -> None:
    link = await fill(storage)
    before = comparable(await dumped(storage, NOW + SECOND))
    begun, taken = threading.Event(), threading.Event()

    def read(snapshot: Snapshot) -> tuple[int, str, list[str]]:
        rows = snapshot.memories()
        read = [next(rows).key]
        begun.set()
        assert taken.wait(60)
        return snapshot.seq, snapshot.store, read + [memory.key for memory in rows]

    seq, name = await storage.last_seq(), (await dumped(storage)).store
    reading = asyncio.ensure_future(storage.snapshot(read, NOW + SECOND))
    await asyncio.to_thread(begun.wait, 60)
    await take(storage, link)
    taken.set()
    held = await reading
    assert held[:2] == (seq, name)
    assert sorted(held[2]) == sorted(memory.key for memory in before["memories"])
    assert (await dumped(storage)).store != name


async def test_writes_wait_for_a_takeover_and_come_after_it(storage: SQLiteStorage) -> None:
    link = await fill(storage)
    other = await storage.aside()
    await put_all(other, link)
    await storage.hold_writes("a restore", FOR_EVER)
    taking = asyncio.ensure_future(storage.take_over(other, REPLACE, NOW))
    accesses = [asyncio.ensure_future(remove(storage, f"k{number}", namespace="n")) for number in range(3)]
    await taking
    assert await asyncio.gather(*accesses) == [True, True, True]
    assert await keys(storage) == [f"k{number}" for number in range(3, 20)]
    await storage.hold_writes(None, 0)
    await storage.drop_aside(other)


# ---- kills and a full disk


class Watching:
    """The hook that calls `act` before each event of the chosen files."""

    def __init__(self, path: Path, act: Callable[[int], None]) -> None:
        self._paths = {str(path), f"{path}-wal"}
        self._act = act
        self.on = False
        self.events = 0

    def __call__(self, event: Event, perform: Callable[[bytes], None]) -> None:
        if self.on and event.path in self._paths:
            self.events += 1
            self._act(self.events)
        perform(event.data)


def kept_files(path: Path, target: Path) -> Path:
    """A copy of the files, without the shared index, which nobody has after a kill."""
    target.mkdir(parents=True)
    for file in (path, Path(f"{path}-wal")):
        if file.exists():
            shutil.copy(file, target)
    return target / path.name


@pytest.mark.parametrize("takeover", [REPLACE, MERGE, PART], ids=lambda one: one.mode.value)
async def test_a_kill_at_any_instant_leaves_all_or_nothing_of_a_takeover(tmp_path: Path, takeover: Takeover) -> None:
    path = tmp_path / "data" / "memory.db"
    copies: list[Path] = []

    def keep(number: int) -> None:
        if number % 7 == 1:
            copies.append(kept_files(path, tmp_path / "copies" / str(number)))

    watching = Watching(path, keep)
    with disk(watching):
        storage = SQLiteStorage(path, clock=SettableClock(NOW))
        await storage.open()
        link = await fill(storage)
        other = await storage.aside()
        await put_all(other, link)
        await storage.hold_writes("a restore", FOR_EVER)
        before = comparable(await dumped(storage, NOW + SECOND))
        watching.on = True
        await storage.take_over(other, takeover, NOW)
        watching.on = False
        after = comparable(await dumped(storage, NOW + SECOND))
        await storage.drop_aside(other)
        await storage.close()
    assert before != after
    seen = []
    for copy in copies:
        opened = SQLiteStorage(copy, clock=SettableClock(NOW))
        await opened.open()
        assert await opened.check(fix=False) == []
        held = comparable(await dumped(opened, NOW + SECOND))
        assert held in (before, after)
        seen.append(held == after)
        await opened.close()
    assert (seen[0], seen[-1]) == (False, True)
    assert seen == sorted(seen)


@pytest.mark.parametrize("takeover", [REPLACE, MERGE, PART], ids=lambda one: one.mode.value)
@pytest.mark.parametrize("room", [0, 3, 9])
async def test_a_full_disk_leaves_everything_as_it_was(tmp_path: Path, takeover: Takeover, room: int) -> None:
    path = tmp_path / "memory.db"

    def refuse(number: int) -> None:
        if number > room:
            raise apsw.FullError("no room")

    watching = Watching(path, refuse)
    with disk(watching):
        storage = SQLiteStorage(path, clock=SettableClock(NOW))
        await storage.open()
        link = await fill(storage)
        other = await storage.aside()
        await put_all(other, link)
        await storage.hold_writes("a restore", FOR_EVER)
        before = comparable(await dumped(storage, NOW + SECOND))
        watching.on = True
        with pytest.raises(StorageFullError):
            await storage.take_over(other, takeover, NOW)
        watching.on = False
        assert comparable(await dumped(storage, NOW + SECOND)) == before
        await storage.drop_aside(other)
        assert await storage.check(fix=False) == []
        await take(storage, link, takeover)
        assert await found(storage, "word15") == ["k15"]
        assert await storage.check(fix=False) == []
        await storage.close()


# ---- directories aside


async def test_what_a_killed_process_left_aside_is_removed(storage: SQLiteStorage) -> None:
    killed, living = await Other.start(storage.path), await Other.start(storage.path)
    left, used = await killed.ask("aside -"), Path(await living.ask("aside -"))
    killed.process.kill()
    await killed.process.wait()
    own = await storage.aside()
    assert sorted(beside(storage)) == sorted([used, own.path.parent])
    assert str(used) != left
    await living.end()
    await storage.drop_aside(own)
    second = SQLiteStorage(storage.path)
    await second.open()
    assert beside(storage) == []
    await second.close()


async def test_a_directory_of_another_database_is_left_alone(storage: SQLiteStorage) -> None:
    for name in ("other.db-aside-00000000", "memory.db-asides", "memory.db-aside"):
        (storage.path.parent / name).mkdir()
    own = await storage.aside()
    await storage.drop_aside(own)
    assert len([one for one in storage.path.parent.iterdir() if one.is_dir()]) == 3


async def test_nothing_is_put_into_a_storage_that_serves(storage: SQLiteStorage) -> None:
    link = await dumped(storage)
    with pytest.raises(StorageError, match="aside"):
        await storage.put_back(link.spaces, NOW)
    with pytest.raises(StorageError, match="aside"):
        await storage.compare(storage, REPLACE, NOW, samples=1)


async def test_the_lock_of_a_directory_is_held_until_it_is_gone(storage: SQLiteStorage) -> None:
    other = await storage.aside()
    with (other.path.parent / "lock").open() as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    await storage.drop_aside(other)
    assert beside(storage) == []
    await storage.drop_aside(other)


# ---- archives


@pytest.fixture
async def cold(tmp_path: Path) -> AsyncIterator[TieredStorage]:
    storage = tiered(tmp_path)
    await storage.open()
    yield storage
    assert await storage.check(fix=False) == []
    await storage.close()


async def demote_all(storage: TieredStorage, now: int = NOW) -> None:
    await storage.demote(await storage.demotable(("",), now, recursive=True, used_before=LAST, limit=1000), now)


def files(storage_directory: Path) -> set[str]:
    return {one.name for one in (storage_directory / "archive").rglob("*.zar")}


async def cold_keys(storage: Storage) -> list[str]:
    return await keys(storage, where={"tier": "cold"})


async def test_what_was_cold_is_cold_again(
    cold: TieredStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiers, "GATHERED", 7)
    await fill(cold)
    await demote_all(cold)
    await store(cold, "warm", 1)
    link = await dumped(cold, NOW + SECOND)
    assert {memory.tier for memory in link.memories} == {"cold", "warm"}
    for ref in ("k3", "k4"):
        await store(cold, ref, "wrong", namespace="n", now=NOW + SECOND)
    before = files(tmp_path)
    other = await cold.aside()
    await put_all(other, link, now=NOW + SECOND)
    assert await cold_keys(other) == [memory.key for memory in link.memories if memory.tier == "cold"]
    assert await other.check(fix=False) == []
    written = files(tmp_path) - before
    assert len(written) > 1
    assert written <= {one.name for one in await cold.archives()}
    await cold.hold_writes("a restore", FOR_EVER)
    await cold.take_over(other, REPLACE, NOW + SECOND)
    await cold.hold_writes(None, 0)
    await cold.drop_aside(other)
    assert {memory.key: memory.value for memory in (await dumped(cold, NOW + SECOND)).memories} == {
        memory.key: memory.value for memory in link.memories
    }
    assert {one.name: one.state for one in await cold.archives()} == dict.fromkeys(before, "dead") | dict.fromkeys(
        written, "live"
    )


@pytest.mark.parametrize("takeover", [None, MERGE, PART], ids=str)
async def test_archives_aside_go_where_they_are_not_taken_over(
    cold: TieredStorage, tmp_path: Path, takeover: Takeover | None
) -> None:
    await fill(cold)
    await demote_all(cold)
    link = await dumped(cold, NOW + SECOND)
    before = files(tmp_path)
    await store(cold, "k3", "wrong", namespace="n")
    await remove(cold, "k4", namespace="n")
    other = await cold.aside()
    await put_all(other, link, now=NOW + SECOND)
    assert files(tmp_path) > before
    if takeover is not None:
        await cold.hold_writes("a restore", FOR_EVER)
        await cold.take_over(other, takeover, NOW + SECOND)
        await cold.hold_writes(None, 0)
    await cold.drop_aside(other)
    assert files(tmp_path) == before == {one.name for one in await cold.archives()}
    memory = await cold.get("n", "k4", NOW + SECOND)
    assert (memory is None) == (takeover is None)


async def test_archives_that_a_killed_restore_left_go_after_a_day(tmp_path: Path) -> None:
    clock = SettableClock(NOW)
    archive = Archive(Directory(tmp_path / "archive"))
    cold = TieredStorage(SQLiteStorage(tmp_path / "memory.db", cold=archive, clock=clock), clock, archive=archive)  # type: ignore[abstract]  # see `storage/forwarding.py`
    await cold.open()
    await fill(cold)
    await demote_all(cold)
    before = files(tmp_path)
    other = await cold.aside()
    await put_all(other, await dumped(cold, NOW + SECOND), now=NOW + SECOND)
    left = files(tmp_path) - before
    assert left
    # What a kill leaves: nobody drops it.
    await other.close()
    clock.advance(3 * 3600)
    await cold.tidy(clock.now())
    clock.advance(3 * 3600)
    await cold.tidy(clock.now())
    assert files(tmp_path) == before | left
    clock.advance(24 * 3600)
    for _ in range(2):
        await cold.tidy(clock.now())
        clock.advance(61)
    assert files(tmp_path) == before
    assert await cold.check(fix=False) == []
    await cold.close()


async def test_no_archive_goes_while_a_snapshot_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "PIN_AGAIN_SECONDS", 0.0)
    clock = SettableClock(NOW)
    archive = Archive(Directory(tmp_path / "archive"), cache_bytes=0)
    cold = TieredStorage(SQLiteStorage(tmp_path / "memory.db", cold=archive, clock=clock), clock, archive=archive)  # type: ignore[abstract]  # see `storage/forwarding.py`
    await cold.open()
    await fill(cold)
    await demote_all(cold)
    (name,) = files(tmp_path)
    begun, read_on = threading.Event(), threading.Event()

    def read(snapshot: Snapshot) -> list[str]:
        rows = snapshot.memories()
        first = next(rows)
        begun.set()
        assert read_on.wait(60)
        return [first.key, *(memory.key for memory in rows)]

    reading = asyncio.ensure_future(cold.snapshot(read, NOW + SECOND))
    await asyncio.to_thread(begun.wait, 60)
    await cold.compact(name, NOW)
    clock.advance(100)
    async with asyncio.timeout(30):
        while not await cold.warm.archives_pinned(clock.now()):  # noqa: ASYNC110 - nobody is told of it
            await asyncio.sleep(0)
    assert await cold.tidy(clock.now()) == 0
    assert name in files(tmp_path)
    read_on.set()
    assert len(await reading) == 20
    assert await cold.tidy(clock.now()) == 1
    assert name not in files(tmp_path)
    await cold.close()


async def test_a_pin_of_a_killed_process_lapses(storage: SQLiteStorage) -> None:
    await storage.pin_archives("killed", NOW, NOW + 60 * SECOND)
    assert await storage.archives_pinned(NOW + 59 * SECOND)
    assert not await storage.archives_pinned(NOW + 60 * SECOND)
    await storage.pin_archives("own", NOW, NOW + 60 * SECOND)
    await storage.pin_archives("own", NOW + 1, NOW + 61 * SECOND)
    assert await storage.archives_pinned(NOW + 60 * SECOND)
    await storage.pin_archives("own", NOW, NOW)
    await storage.pin_archives("killed", NOW, NOW)
    assert not await storage.archives_pinned(NOW)


def held_bytes(archive: Archive, directory: Path) -> bytes:
    """Everything that archives hold, decompressed."""
    return b"".join(
        archive.read(name, block.number, slot, number)
        for name in files(directory)
        for block in archive.verify(name)
        if isinstance(block, Block)
        for slot, number in enumerate(block.ids)
    )


async def test_what_is_redacted_is_in_no_archive_after_tidying(tmp_path: Path) -> None:
    clock = SettableClock(NOW)
    archive = Archive(Directory(tmp_path / "archive"))
    cold = TieredStorage(SQLiteStorage(tmp_path / "memory.db", cold=archive, clock=clock), clock, archive=archive)  # type: ignore[abstract]  # see `storage/forwarding.py`
    await cold.open()
    await store(cold, "secret", "forbidden words")
    await store(cold, "other", "stays")
    await demote_all(cold)
    holding = files(tmp_path)
    await store(cold, "bystander", "elsewhere")
    await demote_all(cold)
    untouched = files(tmp_path) - holding
    await store(cold, "secret", "harmless", now=NOW + SECOND)
    assert b"forbidden" in held_bytes(archive, tmp_path)
    redacted = await cold.redact("default", "secret", 1, NOW + SECOND)
    assert redacted.versions == [1]
    clock.advance(61)
    await cold.tidy(clock.now())
    assert b"forbidden" not in held_bytes(archive, tmp_path)
    assert b"stays" in held_bytes(archive, tmp_path)
    assert len(files(tmp_path)) == 2
    assert holding & files(tmp_path) == set()
    assert untouched < files(tmp_path)
    # The current version too, with which goes all that there is.
    await demote_all(cold, clock.now())
    await cold.redact("default", "secret", None, clock.now())
    clock.advance(61)
    await cold.tidy(clock.now())
    assert b"harmless" not in held_bytes(archive, tmp_path)
    assert await cold.check(fix=False) == []
    await cold.close()


async def test_nothing_is_redacted_where_archives_are_not_at_hand(tmp_path: Path) -> None:
    with_archives = tiered(tmp_path)
    await with_archives.open()
    await store(with_archives, "secret", "forbidden")
    await demote_all(with_archives)
    await with_archives.close()
    warm = SQLiteStorage(tmp_path / "memory.db")
    without = TieredStorage(warm, SettableClock(NOW), cold_off="it is off")  # type: ignore[abstract]  # see `storage/forwarding.py`
    await without.open()
    with pytest.raises(RefusedError):
        await without.redact("default", "secret", None, NOW)
    assert await without.feed(1, 9) == []
    await without.close()
