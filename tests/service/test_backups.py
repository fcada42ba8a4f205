"""Backups: made, proven, restored, and made by themselves. What a storage does of it is in the contract."""

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from tests.service.asking import Held, holding, storing
from unified_memory.bootstrap import build
from unified_memory.model.clock import SettableClock, from_rfc3339, to_rfc3339
from unified_memory.model.errors import (
    BackupDamagedError,
    BackupNotFoundError,
    ChangesGoneError,
    ConflictError,
    InProgressError,
    InvalidInputError,
    MemoryNotFoundError,
    NamespaceNotFoundError,
    PermissionDeniedError,
    ReadOnlyError,
    RefusedError,
    StorageError,
    StorageFullError,
)
from unified_memory.model.found import SearchRequest, SearchResult
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.model.query import Selection
from unified_memory.service.backups import Backup, BackupPolicy, Backups
from unified_memory.service.requests import BackupRequest, RestoreRequest
from unified_memory.service.service import Safekeeping, Service
from unified_memory.settings import load
from unified_memory.storage.backup import Place
from unified_memory.storage.base import Problem, Progress, Reading, Storage
from unified_memory.storage.dump import Difference, Row, Snapshot, Takeover
from unified_memory.storage.inmemory import InMemoryStorage
from unified_memory.storage.sqlite import SQLiteStorage
from unified_memory.worker import Worker

T = TypeVar("T")
BOUND_SECONDS = 20
DAY = 86_400
# Noon.
NOON = from_rfc3339("2026-03-01T12:00:00Z")
NIGHTLY = BackupPolicy("0 2 * * *", {"daily": 2}, zone=UTC)


class House(Held):
    """A service with a place for backups."""

    place: Path

    @property
    def backups(self) -> Backups:
        return self.service.backups

    async def back_up(self, parent: str | None = None, **more: Any) -> str:
        """A backup's id; a second later than whatever was before."""
        self.clock.advance(1)
        made = await self.backups.create(ANONYMOUS, BackupRequest(parent, **more))
        return made.manifest.id

    async def restore(self, backup_id: str, **more: Any) -> Any:
        return await self.backups.restore(ANONYMOUS, RestoreRequest(backup_id, **more))

    async def contents(self) -> dict[str, str]:
        """The values by key, those of other namespaces than default with its name before."""
        page = await self.storage.select(Selection(limit=None), self.clock.now())
        return {
            one.key if one.namespace == "default" else f"{one.namespace}/{one.key}": one.value.decode()
            for one in page.items
        }

    def files(self) -> set[str]:
        return {path.name for path in self.place.iterdir()} if self.place.is_dir() else set()


@asynccontextmanager
async def house(
    storage: Storage, clock: SettableClock, where: Path, policy: BackupPolicy | None = None, place: Place | None = None
) -> AsyncIterator[House]:
    kept = Safekeeping(place=place or Place(where, clock=clock), policy=policy or BackupPolicy())
    async with holding(storage, clock, safekeeping=kept) as held:
        yield House(held.service, held.storage, held.clock, where)


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[House]:
    """Over the storage in memory, where the storage does not matter."""
    clock = SettableClock(NOON)
    async with house(InMemoryStorage(clock), clock, tmp_path / "backups") as found:
        yield found


@pytest.fixture
async def on_sqlite(directory: Path) -> AsyncIterator[House]:
    clock = SettableClock(NOON)
    async with house(SQLiteStorage(directory / "memory.db", clock=clock), clock, directory / "backups") as found:
        yield found


@pytest.fixture(params=["inmemory", "sqlite"])
def each(request: pytest.FixtureRequest) -> House:
    found = request.getfixturevalue("one" if request.param == "inmemory" else "on_sqlite")
    assert isinstance(found, House)
    return found


class Gate:
    """A place where a thread waits until it is let through."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.opened = threading.Event()

    def pass_through(self) -> None:
        self.reached.set()
        assert self.opened.wait(BOUND_SECONDS)

    async def wait(self) -> None:
        assert await asyncio.to_thread(self.reached.wait, BOUND_SECONDS)


class Slow(InMemoryStorage):
    """Gives the memories of a snapshot, and stops at its gate behind the first of them."""

    gate: Gate | None = None

    async def snapshot(self, work: Callable[[Snapshot], T], now: int) -> T:
        gate = self.gate
        if gate is None:
            return await super().snapshot(work, now)

        def slowed(snapshot: Snapshot) -> T:
            memories = snapshot.memories

            def slow(after: int = 0) -> Iterator[Memory]:
                for number, memory in enumerate(memories(after)):
                    if number == 1:
                        gate.pass_through()
                    yield memory

            snapshot.memories = slow  # type: ignore[method-assign]
            return work(snapshot)

        return await super().snapshot(slowed, now)


class Faulty(InMemoryStorage):
    """Goes wrong where it is put back: in the way that `fault` names. `begun`: how many were begun aside, `left`: those that are
    still there.
    """

    fault = ""
    begun = left = 0

    async def aside(self) -> Storage:
        other = await super().aside()
        assert isinstance(other, Faulty)
        other.fault = self.fault
        self.begun += 1
        self.left += 1
        return other

    async def drop_aside(self, other: Storage) -> None:
        await super().drop_aside(other)
        self.left -= 1

    async def put_back(self, rows: Sequence[Row], now: int) -> None:
        if self.fault == "lost":
            rows = [row for row in rows if not (isinstance(row, Memory) and row.key == "a")]
        if self.fault == "shorter":
            rows = [msgspec.structs.replace(row, value=b"1") if isinstance(row, Memory) else row for row in rows]
        if self.fault == "elsewhere":
            moved = [isinstance(row, Memory) and row.key == "b" for row in rows]
            rows = [
                msgspec.structs.replace(row, namespace="acme") if there else row
                for row, there in zip(rows, moved, strict=True)
            ]
        if self.fault == "full" and isinstance(rows[0], Memory):
            raise StorageFullError
        await super().put_back(rows, now)

    async def check(self, *, fix: bool, progress: Progress | None = None) -> list[Problem]:
        found = await super().check(fix=fix, progress=progress)
        return [*found, Problem("default/a", "another hash")] if self.fault == "hash" else found

    async def search(self, request: SearchRequest, now: int, *, reading: Reading | None = None) -> SearchResult:
        return SearchResult([]) if self.fault == "index" else await super().search(request, now, reading=reading)

    async def take_over(self, other: Storage, takeover: Takeover, now: int) -> list[Difference]:
        if self.fault == "switch":
            raise StorageError("The disk broke")
        return await super().take_over(other, takeover, now)


# ---- making
async def test_a_backup_tells_what_it_holds(each: House) -> None:
    await each.store("a", "one")
    await each.store("b", "two", "acme/web")
    await each.store("b", "three", "acme/web")
    made = await each.backups.create(ANONYMOUS, BackupRequest(note="before the move"))
    manifest = made.manifest
    assert (manifest.kind, manifest.reason, manifest.note) == ("full", "manual", "before the move")
    assert (manifest.memories, manifest.bytes) == (2, len('"one"') + len('"three"'))
    assert manifest.namespaces == {"default": 1, "acme/web": 1}
    assert manifest.created_at == to_rfc3339(each.clock.now())
    assert manifest.seq == await each.storage.last_seq()
    assert made.verified is None
    assert made.bytes == sum(path.stat().st_size for path in (each.place / manifest.id).iterdir())
    assert await each.backups.get(ANONYMOUS, manifest.id) == made
    assert await each.backups.list_all(ANONYMOUS) == [made]


async def test_backups_are_listed_newest_first(one: House) -> None:
    ids = [await one.back_up() for _ in range(3)]
    assert [backup.manifest.id for backup in await one.backups.list_all(ANONYMOUS)] == ids[::-1]


async def test_who_does_not_see_all_may_not_have_it_done(one: House) -> None:
    await one.store("a")
    backup_id = await one.back_up()
    some = Principal("some", ("acme", "default"))
    for call in (
        one.backups.create(some, BackupRequest()),
        one.backups.list_all(some),
        one.backups.get(some, backup_id),
        one.backups.verify(some, backup_id),
        one.backups.restore(some, RestoreRequest(backup_id)),
        one.backups.delete(some, backup_id),
    ):
        with pytest.raises(PermissionDeniedError):
            await call
    assert one.files() == {backup_id}


async def test_without_a_place_there_are_none(held: Held) -> None:
    with pytest.raises(RefusedError):
        await held.service.backups.create(ANONYMOUS, BackupRequest())
    assert (await held.service.backups.state()).count == 0
    assert await held.service.backups.run_if_due() is None


async def test_one_is_made_at_a_time(tmp_path: Path) -> None:
    clock, gate = SettableClock(NOON), Gate()
    storage = Slow(clock)
    storage.gate = gate
    async with house(storage, clock, tmp_path / "backups") as one:
        for key in "abc":
            await one.store(key)
        first = asyncio.create_task(one.back_up())
        await gate.wait()
        with pytest.raises(InProgressError):
            await one.back_up()
        gate.opened.set()
        await first
        assert await one.back_up()


async def test_others_write_while_one_is_made(tmp_path: Path) -> None:
    clock, gate = SettableClock(NOON), Gate()
    storage = Slow(clock)
    storage.gate = gate
    async with house(storage, clock, tmp_path / "backups") as one:
        for key in "abc":
            await one.store(key, "before")
        making = asyncio.create_task(one.back_up())
        await gate.wait()
        for key in "abcd":
            await one.store(key, "after")
        gate.opened.set()
        backup_id = await making
        await one.restore(backup_id, safety=False)
        assert await one.contents() == dict.fromkeys("abc", '"before"')


async def test_cancelled_it_leaves_nothing(tmp_path: Path) -> None:
    clock, gate = SettableClock(NOON), Gate()
    storage = Slow(clock)
    storage.gate = gate
    async with house(storage, clock, tmp_path / "backups") as one:
        for key in range(1200):
            await one.store(str(key))
        making = asyncio.create_task(one.back_up())
        await gate.wait()
        assert one.files() != set()
        making.cancel()
        await asyncio.sleep(0)
        gate.opened.set()
        with pytest.raises(asyncio.CancelledError):
            await making
        assert one.files() == set()
        assert await one.back_up()


async def test_how_far_it_has_come_is_told(one: House) -> None:
    for key in range(1200):
        await one.store(str(key))
    told: list[tuple[int, int | None]] = []

    async def advance(count: int, total: int | None) -> None:
        told.append((count, total))
        # Whoever is told may take a while for it.
        for _ in range(100):
            await asyncio.sleep(0)

    made = await one.backups.create(ANONYMOUS, BackupRequest(), advance=advance)
    assert told[-1] == (1200, 1200)
    assert told == sorted(told)
    told.clear()
    await one.backups.verify(ANONYMOUS, made.manifest.id, advance)
    assert told == sorted(told)
    # Every line of its files is read twice, and every memory is compared.
    assert told[-1] == (2 * (1200 + 1) + 1200, 2 * (1200 + 1) + 1200)


class Disk(Place):
    """A place on a disk with so much room."""

    free = 0

    def free_bytes(self) -> int:
        return self.free


async def test_too_little_room_is_told_before_a_byte_is_written(tmp_path: Path) -> None:
    clock, place = SettableClock(NOON), Disk(tmp_path / "backups")
    async with house(InMemoryStorage(clock), clock, tmp_path / "backups", place=place) as one:
        await one.store("a", "x" * 100_000)
        # 16 MiB to spare, 200 bytes for the memory, and its value compressed to six tenths.
        need = 16 * 1024**2 + 200 + round(100_002 * 0.6)
        place.free = need - 1
        with pytest.raises(StorageFullError, match=rf"{need} bytes.* {need - 1} are free"):
            await one.back_up()
        assert one.files() == set()
        place.free = need
        assert await one.back_up()


async def test_room_is_estimated_by_what_the_last_one_took(tmp_path: Path) -> None:
    clock, place = SettableClock(NOON), Disk(tmp_path / "backups")
    async with house(InMemoryStorage(clock), clock, tmp_path / "backups", place=place) as one:
        # So much can be measured, and compresses to nearly nothing.
        await one.store("a", "x" * 2_000_000)
        place.free = 10**9
        await one.back_up()
        place.free = 16 * 1024**2 + 100_000
        await one.back_up()
        for path in place._path.iterdir():  # noqa: SLF001 - as if there were none
            path.rename(tmp_path / path.name)
        with pytest.raises(StorageFullError):
            await one.back_up()


async def test_an_incremental_one_needs_room_for_what_changed(tmp_path: Path) -> None:
    clock, place = SettableClock(NOON), Disk(tmp_path / "backups")
    async with house(InMemoryStorage(clock), clock, tmp_path / "backups", place=place) as one:
        for key in range(10):
            await one.store(str(key), "x" * 100_000)
        place.free = 10**9
        full = await one.back_up()
        await one.store("0", "y")
        place.free = 16 * 1024**2 + 100_000
        with pytest.raises(StorageFullError):
            await one.back_up()
        for parent in (full, "latest"):
            assert await one.back_up(parent)


class Huge(Faulty):
    """Says that its values have 10**18 bytes."""

    async def snapshot(self, work: Callable[[Snapshot], T], now: int) -> T:
        def enlarged(snapshot: Snapshot) -> T:
            snapshot.memory_bytes = 10**18
            return work(snapshot)

        return await super().snapshot(enlarged, now)


async def test_what_cannot_be_put_aside_is_not_begun(tmp_path: Path) -> None:
    clock = SettableClock(NOON)
    storage = Huge(clock)
    kept = Safekeeping(place=Place(tmp_path / "backups"), data=tmp_path)
    async with holding(storage, clock, safekeeping=kept) as held:
        await held.store("a")
        backup_id = (await held.service.backups.create(ANONYMOUS, BackupRequest())).manifest.id
        for call in (
            held.service.backups.verify(ANONYMOUS, backup_id),
            held.service.backups.restore(ANONYMOUS, RestoreRequest(backup_id)),
        ):
            with pytest.raises(StorageFullError, match=r"\d{18,} bytes, and \d+ are free"):
                await call
        assert storage.begun == 0


async def test_what_a_killed_process_left_is_removed(one: House) -> None:
    left = one.place / ".20260301T100000Z-00000000.tmp"
    await asyncio.to_thread(left.mkdir, parents=True)
    recent = one.place / ".20260301T113000Z-00000000.tmp"
    await asyncio.to_thread(recent.mkdir)
    for path, age in ((left, 3601), (recent, 1800)):
        os.utime(path, (NOON / 10**6 - age,) * 2)
    backup_id = await one.back_up()
    assert one.files() == {recent.name, backup_id}


# ---- incremental ones
async def test_an_incremental_one_holds_what_has_changed_since(each: House) -> None:
    await each.store("a", "one")
    await each.store("b", "one")
    full = await each.back_up()
    await each.store("b", "two")
    await each.store("c", "two")
    await each.service.memories.delete(ANONYMOUS, "default", "a")
    part = await each.back_up(full)
    manifest = (await each.backups.get(ANONYMOUS, part)).manifest
    assert (manifest.kind, manifest.parent, manifest.memories) == ("incremental", full, 2)
    assert {one.kind: one.records for one in manifest.parts}["memories"] == 2
    await each.store("d", "three")
    await each.restore(part, safety=False)
    assert await each.contents() == {"b": '"two"', "c": '"two"'}


async def test_latest_is_the_newest_of_this_store(one: House) -> None:
    await one.store("a")
    with pytest.raises(ConflictError, match="no backup yet"):
        await one.back_up("latest")
    full = await one.back_up()
    first = await one.back_up("latest")
    second = await one.back_up("latest")
    parents = {backup.manifest.id: backup.manifest.parent for backup in await one.backups.list_all(ANONYMOUS)}
    assert parents == {full: None, first: full, second: first}
    # Taken over, the storage is another one.
    await one.restore(first, safety=False)
    with pytest.raises(ConflictError, match="no backup yet"):
        await one.back_up("latest")


async def test_latest_passes_over_what_cannot_be_restored(one: House) -> None:
    await one.store("a")
    full = await one.back_up()
    gone = await one.back_up()
    part = await one.back_up(gone)
    (one.place / gone).rename(one.place / "elsewhere")
    assert (await one.backups.get(ANONYMOUS, await one.back_up("latest"))).manifest.parent == full
    assert part in one.files()


async def test_a_parent_must_be_of_this_store(one: House) -> None:
    await one.store("a")
    full = await one.back_up()
    await one.restore(full, safety=False)
    with pytest.raises(ConflictError) as caught:
        await one.back_up(full)
    assert caught.value.hint == "Make a full one first, without parent"
    with pytest.raises(BackupNotFoundError):
        await one.back_up("20260301T120000Z-00000000")


def copied(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.glob("memory.db*")}


def put_back(directory: Path, copy: dict[str, bytes]) -> None:
    for path in directory.glob("memory.db*"):
        path.unlink()
    for name, content in copy.items():
        (directory / name).write_bytes(content)


async def test_a_backup_of_what_was_undone_is_no_parent(tmp_path: Path) -> None:
    # The file was put back as it lay there before: the same name, and an earlier place in the commit order.
    clock = SettableClock(NOON)
    storage = SQLiteStorage(tmp_path / "memory.db", clock=clock)
    async with house(storage, clock, tmp_path / "backups") as one:
        await one.store("a")
    copy = copied(tmp_path)
    async with house(SQLiteStorage(tmp_path / "memory.db", clock=clock), clock, tmp_path / "backups") as one:
        await one.store("b")
        later = await one.back_up()
    put_back(tmp_path, copy)
    async with house(SQLiteStorage(tmp_path / "memory.db", clock=clock), clock, tmp_path / "backups") as one:
        with pytest.raises(ConflictError):
            await one.back_up(later)


async def test_a_chain_with_a_missing_link_names_it(one: House) -> None:
    await one.store("a")
    full = await one.back_up()
    part = await one.back_up(full)
    (one.place / full).rename(one.place / "elsewhere")
    for call in (one.restore(part), one.backups.verify(ANONYMOUS, part), one.back_up(part)):
        with pytest.raises(ConflictError) as caught:
            await call
        assert caught.value.facts["missing"] == full


async def test_a_chain_with_another_link_is_damaged(one: House) -> None:
    await one.store("a")
    full = await one.back_up()
    part = await one.back_up(full)
    await one.store("b")
    other = await one.back_up()
    # Another backup, whole by itself, in the parent's place.
    (one.place / full).rename(one.place / "elsewhere")
    (one.place / other).rename(one.place / full)
    text = (one.place / full / "manifest.json").read_bytes().replace(other.encode(), full.encode())
    rewritten = hashlib.sha256(text).hexdigest()
    (one.place / full / "manifest.json").write_bytes(text)
    sums = (one.place / full / "SHA256SUMS").read_text().splitlines()
    (one.place / full / "SHA256SUMS").write_text("\n".join([*sums[:-1], f"{rewritten}  manifest.json", ""]))
    with pytest.raises(BackupDamagedError) as caught:
        await one.restore(part)
    assert (caught.value.facts["backup_id"], caught.value.facts["part"]) == (full, "manifest.json")


# ---- proving
def flip(path: Path) -> None:
    """Changes one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


async def test_what_is_proven_is_noted(each: House) -> None:
    for i in range(50):
        await each.store(f"k{i}", f"something about subject{i}", "acme" if i % 2 else "default")
    await each.store("wordless", [True, None, "—"])
    full = await each.back_up()
    await each.store("k1", "something else")
    await each.service.memories.delete(ANONYMOUS, "default", "k2")
    part = await each.back_up(full)
    for backup_id, memories in ((full, 51), (part, 51)):
        verified = await each.backups.verify(ANONYMOUS, backup_id)
        assert (verified.ok, verified.detail, verified.memories) == (True, None, memories)
        assert (await each.backups.get(ANONYMOUS, backup_id)).verified == verified
    state = await each.backups.state()
    assert (state.verified, state.verified_ok) == (part, True)
    # Nothing of it came back into what serves.
    assert (await each.retrieve("k1", "default")).value == b'"something else"'


async def test_memories_that_expired_since_are_proven_too(each: House) -> None:
    await each.store("stays")
    await each.store("goes", ttl=100)
    backup_id = await each.back_up()
    each.clock.advance(1000)
    assert (await each.backups.verify(ANONYMOUS, backup_id)).memories == 2


async def test_a_damaged_part_is_found_and_refused(one: House) -> None:
    await one.store("a", "before")
    full = await one.back_up()
    await one.store("b", "before")
    part = await one.back_up(full)
    await one.store("c", "after")
    flip(one.place / full / "memories-0001.jsonl.zst")
    for backup_id in (full, part):
        with pytest.raises(BackupDamagedError) as caught:
            await one.backups.verify(ANONYMOUS, backup_id)
        assert (caught.value.facts["backup_id"], caught.value.facts["part"]) == (full, "memories-0001.jsonl.zst")
        verified = (await one.backups.get(ANONYMOUS, backup_id)).verified
        assert verified is not None
        assert (verified.ok, verified.detail) == (False, caught.value.detail)
        with pytest.raises(BackupDamagedError):
            await one.restore(backup_id)
    assert set(await one.contents()) == {"a", "b", "c"}
    assert one.files() == {full, part, f"{full}.verified.json", f"{part}.verified.json"}


@pytest.fixture
async def faulty(tmp_path: Path) -> AsyncIterator[House]:
    clock = SettableClock(NOON)
    async with house(Faulty(clock), clock, tmp_path / "backups") as found:
        await found.store("a", "word")
        await found.store("b", "word")
        await found.store("a", "word", "acme")
        yield found


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("lost", "1 memories came back in place of 3"),
        ("shorter", "bytes came back in place of"),
        ("elsewhere", "2 memories of acme came back in place of 1"),
        ("hash", "another hash"),
        ("index", "not found by a word"),
    ],
)
async def test_what_does_not_come_back_as_it_was_is_no_proof(faulty: House, fault: str, told: str) -> None:
    backup_id = await faulty.back_up()
    assert isinstance(faulty.storage, Faulty)
    faulty.storage.fault = fault
    with pytest.raises(BackupDamagedError, match=told):
        await faulty.backups.verify(ANONYMOUS, backup_id)
    state = await faulty.backups.state()
    assert (state.verified, state.verified_ok) == (backup_id, False)
    (trouble,) = faulty.backups.troubles()
    assert backup_id in trouble
    faulty.storage.fault = ""
    assert (await faulty.backups.verify(ANONYMOUS, backup_id)).ok
    await faulty.backups.state()
    assert faulty.backups.troubles() == []
    assert (faulty.storage.begun, faulty.storage.left) == (2, 0)


async def test_nothing_of_a_damaged_one_is_put_back(faulty: House) -> None:
    backup_id = await faulty.back_up()
    assert isinstance(faulty.storage, Faulty)
    flip(faulty.place / backup_id / "memories-0001.jsonl.zst")
    with pytest.raises(BackupDamagedError):
        await faulty.restore(backup_id)
    assert faulty.storage.begun == 0


async def test_what_expired_since_is_missed_too(faulty: House) -> None:
    await faulty.store("a", "word", ttl=100)
    backup_id = await faulty.back_up()
    faulty.clock.advance(1000)
    assert isinstance(faulty.storage, Faulty)
    faulty.storage.fault = "lost"
    with pytest.raises(BackupDamagedError, match="came back in place of 3"):
        await faulty.backups.verify(ANONYMOUS, backup_id)


async def test_what_keeps_from_proving_is_no_verdict(faulty: House) -> None:
    backup_id = await faulty.back_up()
    assert isinstance(faulty.storage, Faulty)
    faulty.storage.fault = "full"
    with pytest.raises(StorageFullError):
        await faulty.backups.verify(ANONYMOUS, backup_id)
    assert (await faulty.backups.get(ANONYMOUS, backup_id)).verified is None


# ---- restoring
async def test_replace_puts_everything_back(each: House) -> None:
    await each.store("a", "one")
    await each.store("b", "one", "acme")
    backup_id = await each.back_up()
    await each.store("a", "two")
    await each.store("c", "two")
    each.clock.advance(5)
    restored = await each.restore(backup_id)
    assert (restored.added, restored.changed, restored.removed, restored.same) == (0, 1, 1, 1)
    assert (restored.backup_id, restored.used, restored.dry_run) == (backup_id, backup_id, False)
    assert await each.contents() == {"a": '"one"', "acme/b": '"one"'}
    # And what was there before can come back.
    safety = await each.backups.get(ANONYMOUS, restored.safety_backup)
    assert (safety.manifest.reason, safety.manifest.kind, safety.manifest.memories) == ("safety", "full", 3)
    await each.restore(restored.safety_backup, safety=False)
    assert await each.contents() == {"a": '"two"', "acme/b": '"one"', "c": '"two"'}
    # Writes go on.
    await each.store("d")


async def test_merge_brings_what_is_missing(each: House) -> None:
    await each.store("a", "one")
    await each.store("b", "one")
    backup_id = await each.back_up()
    await each.service.memories.delete(ANONYMOUS, "default", "a")
    each.clock.advance(5)
    await each.store("b", "two")
    await each.store("c", "two")
    restored = await each.restore(backup_id, mode="merge")
    assert restored.removed == 0
    assert {key: value for key, value in (await each.contents()).items() if key != "a"} == {"b": '"two"', "c": '"two"'}


async def test_a_namespace_comes_back_alone_and_under_another_name(each: House) -> None:
    await each.store("a", "one", "acme")
    await each.store("b", "one", "acme/web")
    await each.store("c", "one")
    backup_id = await each.back_up()
    await each.store("a", "two", "acme")
    await each.store("c", "two")
    await each.restore(backup_id, mode="namespace", namespace="acme", target="old", safety=False)
    assert await each.contents() == {
        "acme/a": '"two"', "acme/web/b": '"one"', "c": '"two"', "old/a": '"one"', "old/web/b": '"one"',
    }  # fmt: skip
    await each.restore(backup_id, mode="namespace", namespace="acme", safety=False)
    assert (await each.contents())["acme/a"] == '"one"'
    assert (await each.contents())["c"] == '"two"'


async def test_a_namespace_that_the_backup_lacks_is_not_emptied(one: House) -> None:
    await one.store("a")
    backup_id = await one.back_up()
    await one.store("b", "kept", "acme")
    with pytest.raises(NamespaceNotFoundError):
        await one.restore(backup_id, mode="namespace", namespace="acme")
    assert await one.contents() == {"a": '"v"', "acme/b": '"kept"'}


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"mode": "namespace"}, "namespace"),
        ({"mode": "namespace", "namespace": "a//b"}, "namespace"),
        ({"mode": "namespace", "namespace": "a", "target": "/"}, "target"),
        ({"namespace": "a"}, "namespace"),
        ({"mode": "merge", "target": "a"}, "target"),
        ({"as_of": "2020-01-01"}, "as_of"),
        ({"as_of": "20200101T000000Z-00000000"}, "as_of"),
    ],
)
async def test_what_does_not_go_together_is_refused(one: House, more: dict[str, Any], field: str) -> None:
    await one.store("a")
    backup_id = await one.back_up()
    with pytest.raises(InvalidInputError) as caught:
        await one.restore(backup_id, **more)
    assert caught.value.field == field
    assert one.files() == {backup_id}


async def test_a_dry_run_tells_and_changes_nothing(each: House) -> None:
    await each.store("a", "one")
    await each.store("gone", "one")
    backup_id = await each.back_up()
    await each.store("a", "two")
    await each.store("new", "two")
    await each.service.memories.delete(ANONYMOUS, "default", "gone")
    before, seq = await each.contents(), await each.storage.last_seq()
    told = await each.restore(backup_id, dry_run=True)
    assert (told.dry_run, told.safety_backup) == (True, None)
    assert (told.added, told.changed, told.removed, told.same) == (1, 1, 1, 0)
    (difference,) = told.differences
    assert difference.samples == {"added": ["gone"], "changed": ["a"], "removed": ["new"]}
    assert (await each.contents(), await each.storage.last_seq()) == (before, seq)
    assert each.files() == {backup_id}
    done = await each.restore(backup_id, safety=False)
    assert (done.added, done.changed, done.removed, done.same) == (1, 1, 1, 0)


async def test_as_of_goes_back_along_the_chain(one: House) -> None:
    chain: list[str] = []
    instants: list[int] = []
    for i in range(3):
        await one.store("a", i)
        chain.append(await one.back_up(chain[-1] if chain else None))
        instants.append(one.clock.now())
    for as_of, used in (
        (chain[1], chain[1]),
        (to_rfc3339(instants[1]), chain[1]),
        (to_rfc3339(instants[2] - 1), chain[1]),
        (to_rfc3339(instants[0]), chain[0]),
        (None, chain[2]),
    ):
        restored = await one.restore(chain[2], as_of=as_of, safety=False)
        assert (restored.backup_id, restored.used) == (chain[2], used)
        assert await one.contents() == {"a": str(chain.index(used))}


async def test_an_earlier_link_is_restored_although_a_later_one_is_damaged(one: House) -> None:
    await one.store("a", "one")
    full = await one.back_up()
    await one.store("a", "two")
    part = await one.back_up(full)
    flip(one.place / part / "memories-0001.jsonl.zst")
    await one.restore(part, as_of=full, safety=False)
    assert await one.contents() == {"a": '"one"'}


async def test_what_has_expired_since_does_not_come_back(each: House) -> None:
    await each.store("stays")
    await each.store("goes", ttl=100)
    await each.store("goes", "x", "acme", ttl=100)
    await each.store("later", ttl=5000)
    await each.store("removed", ttl=100)
    full = await each.back_up()
    await each.service.memories.delete(ANONYMOUS, "default", "removed")
    await each.store("goes too", ttl=100)
    await each.store("goes", "y", "acme", ttl=5000)
    part = await each.back_up(full)
    each.clock.advance(1000)
    await each.restore(full, safety=False)
    assert set(await each.contents()) == {"stays", "later"}
    await each.restore(part, safety=False)
    assert set(await each.contents()) == {"stays", "later", "acme/goes"}
    # Its time to live is what it was.
    each.clock.advance(3998)
    with pytest.raises(MemoryNotFoundError):
        await each.retrieve("later")


async def test_a_namespace_that_was_deleted_takes_what_has_expired_along(each: House) -> None:
    await each.store("stays")
    await each.store("goes", "x", "acme", ttl=100)
    full = await each.back_up()
    await each.storage.delete_namespace("acme", each.clock.now(), recursive=True)
    part = await each.back_up(full)
    each.clock.advance(1000)
    await each.restore(part, safety=False)
    assert set(await each.contents()) == {"stays"}


async def test_a_chain_that_ends_with_nothing_comes_back_as_nothing(each: House) -> None:
    await each.store("a")
    full = await each.back_up()
    await each.storage.delete_namespace("default", each.clock.now(), recursive=True)
    part = await each.back_up(full)
    await each.store("b")
    await each.restore(part, safety=False)
    assert await each.contents() == {}


async def test_where_nothing_was_stored_there_is_nothing_to_save(each: House) -> None:
    await each.store("a")
    backup_id = await each.back_up()
    async with house(InMemoryStorage(each.clock), each.clock, each.place) as other:
        assert (await other.restore(backup_id)).safety_backup is None
        assert await other.contents() == {"a": '"v"'}


async def test_a_service_that_is_read_only_stays_as_it_is(one: House) -> None:
    await one.store("a")
    backup_id = await one.back_up()
    await one.service.upkeep.switch_read_only("moving house")
    with pytest.raises(ReadOnlyError, match="moving house"):
        await one.restore(backup_id)
    assert one.files() == {backup_id}
    assert (await one.restore(backup_id, dry_run=True)).same == 1


@pytest.mark.parametrize("fault", ["lost", "full", "switch"])
async def test_a_restore_that_fails_changes_nothing(faulty: House, fault: str) -> None:
    backup_id = await faulty.back_up()
    await faulty.store("a", "after")
    before = await faulty.contents()
    assert isinstance(faulty.storage, Faulty)
    faulty.storage.fault = fault
    with pytest.raises((BackupDamagedError, StorageError)):
        await faulty.restore(backup_id)
    assert await faulty.contents() == before
    assert await faulty.storage.read_only() is None
    assert (faulty.storage.begun, faulty.storage.left) == (1, 0)
    await faulty.store("d")
    faulty.storage.fault = ""
    await faulty.restore(backup_id)


class Stopping(Faulty):
    """Waits at the place that `where` names until it may go on."""

    reached: asyncio.Event
    go: asyncio.Event
    where = ""

    async def aside(self) -> Storage:
        if self.where == "aside":
            self.reached.set()
            await self.go.wait()
        other = await super().aside()
        assert isinstance(other, Stopping)
        other.where, other.reached, other.go = self.where, self.reached, self.go
        return other

    async def put_back(self, rows: Sequence[Row], now: int) -> None:
        if self.where == "put back":
            self.reached.set()
            await self.go.wait()
        await super().put_back(rows, now)

    async def take_over(self, other: Storage, takeover: Takeover, now: int) -> list[Difference]:
        if self.where == "switch":
            self.reached.set()
            await self.go.wait()
        return await super().take_over(other, takeover, now)

    async def hold_writes(self, reason: str | None, until: int) -> None:
        await super().hold_writes(reason, until)
        if self.where == "hold" and reason is not None:
            self.reached.set()
            await self.go.wait()


@pytest.fixture
async def stopping(tmp_path: Path) -> AsyncIterator[tuple[House, Stopping]]:
    clock = SettableClock(NOON)
    storage = Stopping(clock)
    storage.reached, storage.go = asyncio.Event(), asyncio.Event()
    async with house(storage, clock, tmp_path / "backups") as found:
        await found.store("a", "before")
        yield found, storage


async def test_nobody_writes_while_it_is_taken_over(stopping: tuple[House, Stopping]) -> None:
    one, storage = stopping
    backup_id = await one.back_up()
    storage.where = "switch"
    restoring = asyncio.create_task(one.restore(backup_id))
    await asyncio.wait_for(storage.reached.wait(), BOUND_SECONDS)
    with pytest.raises(ReadOnlyError, match="a restore is under way"):
        await one.store("b")
    with pytest.raises(InProgressError):
        await one.restore(backup_id)
    with pytest.raises(InProgressError):
        await one.backups.delete(ANONYMOUS, backup_id)
    storage.go.set()
    await restoring
    await one.store("b")


@pytest.mark.parametrize("where", ["aside", "put back", "hold"])
async def test_cancelled_before_the_switch_it_changes_nothing(stopping: tuple[House, Stopping], where: str) -> None:
    one, storage = stopping
    backup_id = await one.back_up()
    await one.store("a", "after")
    storage.where = where
    restoring = asyncio.create_task(one.restore(backup_id))
    await asyncio.wait_for(storage.reached.wait(), BOUND_SECONDS)
    restoring.cancel()
    await asyncio.sleep(0)
    storage.go.set()
    with pytest.raises(asyncio.CancelledError):
        await restoring
    assert (storage.begun, storage.left) == (1, 0)
    storage.where = ""
    assert await one.storage.read_only() is None
    assert await one.contents() == {"a": '"after"'}
    await one.store("b")


async def test_cancelled_within_the_switch_it_is_done(stopping: tuple[House, Stopping]) -> None:
    one, storage = stopping
    backup_id = await one.back_up()
    await one.store("a", "after")
    storage.where = "switch"
    restoring = asyncio.create_task(one.restore(backup_id))
    await asyncio.wait_for(storage.reached.wait(), BOUND_SECONDS)
    restoring.cancel()
    await asyncio.sleep(0)
    storage.go.set()
    assert (await restoring).changed == 1
    assert await one.contents() == {"a": '"before"'}
    await one.store("b")


# ---- deleting
async def test_one_that_others_need_is_not_deleted(one: House) -> None:
    await one.store("a")
    full = await one.back_up()
    parts = [await one.back_up(full), await one.back_up(full)]
    with pytest.raises(ConflictError) as caught:
        await one.backups.delete(ANONYMOUS, full)
    assert sorted(caught.value.facts["needed_by"]) == parts
    for backup_id in [*parts, full]:
        assert (await one.backups.delete(ANONYMOUS, backup_id)).manifest.id == backup_id
    assert one.files() == set()
    with pytest.raises(BackupNotFoundError):
        await one.backups.delete(ANONYMOUS, full)


# ---- by themselves
@asynccontextmanager
async def nightly(where: Path, policy: BackupPolicy = NIGHTLY, place: Place | None = None) -> AsyncIterator[House]:
    clock = SettableClock(NOON)
    async with house(InMemoryStorage(clock), clock, where, policy, place) as found:
        yield found


def at(one: House, instant: str) -> None:
    one.clock.instant = from_rfc3339(instant)


async def made(one: House) -> Backup | None:
    return await one.backups.run_if_due()


async def test_a_fresh_store_waits_for_the_schedule(tmp_path: Path) -> None:
    async with nightly(tmp_path) as one:
        await one.store("a")
        assert await made(one) is None
        assert (await one.backups.state()).due_at == from_rfc3339("2026-03-02T02:00:00Z")
        at(one, "2026-03-02T01:59:59Z")
        assert await made(one) is None
        at(one, "2026-03-02T02:00:00Z")
        backup = await made(one)
        assert backup is not None
        assert (backup.manifest.reason, backup.manifest.kind) == ("scheduled", "full")
        assert await made(one) is None
        state = await one.backups.state()
        assert (state.last, state.last_at) == (backup.manifest.id, one.clock.now())
        assert (state.due_at, state.count, state.bytes) == (from_rfc3339("2026-03-03T02:00:00Z"), 1, backup.bytes)


async def test_a_missed_one_is_made_up_at_start(tmp_path: Path) -> None:
    async with nightly(tmp_path) as one:
        await one.store("a")
        await one.back_up()
    async with nightly(tmp_path) as one:
        await one.store("a")
        at(one, "2026-03-04T10:00:00Z")
        assert (await one.backups.state()).due_at == from_rfc3339("2026-03-04T02:00:00Z")
        assert await made(one) is not None
        assert await made(one) is None


async def test_one_made_on_purpose_counts_an_incremental_or_safety_one_does_not(tmp_path: Path) -> None:
    async with nightly(tmp_path) as one:
        await one.store("a")
        assert await made(one) is None
        at(one, "2026-03-02T03:00:00Z")
        full = await one.back_up()
        assert await made(one) is None
        at(one, "2026-03-03T03:00:00Z")
        await one.back_up(full)
        await one.backups.create(ANONYMOUS, BackupRequest(), reason="safety")
        assert await made(one) is not None


async def test_a_store_without_memories_makes_none(tmp_path: Path) -> None:
    async with nightly(tmp_path) as one:
        assert await made(one) is None
        one.clock.advance(5 * DAY)
        assert await made(one) is None
        assert one.files() == set()
        await one.backups.state()
        assert one.backups.troubles() == []
        await one.store("a")
        assert await made(one) is not None


async def test_without_a_schedule_none_is_made(tmp_path: Path) -> None:
    async with nightly(tmp_path, BackupPolicy()) as one:
        await one.store("a")
        assert await made(one) is None
        one.clock.advance(5 * DAY)
        assert await made(one) is None
        assert (await one.backups.state()).due_at is None
        assert one.backups.troubles() == []


async def test_a_failed_run_is_told_and_tried_again_after_a_while(tmp_path: Path) -> None:
    place = Disk(tmp_path)
    async with nightly(tmp_path, place=place) as one:
        await one.store("a")
        await made(one)
        at(one, "2026-03-02T02:00:00Z")
        with pytest.raises(StorageFullError):
            await made(one)
        state = await one.backups.state()
        assert state.failed is not None
        assert state.failed_at == one.clock.now()
        (trouble,) = one.backups.troubles()
        assert trouble == f"the last scheduled backup failed: {state.failed}"
        health = await one.service.upkeep.ready()
        assert (health.status, health.reasons) == ("degraded", [f"backups: {trouble}"])
        place.free = 10**9
        one.clock.advance(15 * 60 - 1)
        assert await made(one) is None
        one.clock.advance(1)
        assert await made(one) is not None
        assert (await one.backups.state()).failed is None
        assert (await one.service.upkeep.ready()).status == "ok"


async def test_one_process_makes_it(tmp_path: Path) -> None:
    clock, gate = SettableClock(NOON), Gate()
    storage = Slow(clock)
    storage.gate = gate
    place = Place(tmp_path)
    async with house(storage, clock, tmp_path, NIGHTLY, place) as one:
        other = Backups(storage, clock, one.service.upkeep._guard, place, NIGHTLY)  # noqa: SLF001 - of another process
        for key in "abc":
            await one.store(key)
        assert (await made(one), await other.run_if_due()) == (None, None)
        at(one, "2026-03-02T02:00:00Z")
        making = asyncio.create_task(made(one))
        await gate.wait()
        assert await other.run_if_due() is None
        gate.opened.set()
        assert await making is not None
        assert await other.run_if_due() is None
        at(one, "2026-03-03T02:00:00Z")
        assert await other.run_if_due() is not None
        assert len(one.files()) == 2


async def test_what_need_not_stay_goes_and_what_is_needed_stays(tmp_path: Path) -> None:
    async with nightly(tmp_path) as one:
        await one.store("a")
        await made(one)
        ids, part = [], ""
        for day in range(2, 7):
            at(one, f"2026-03-0{day}T02:00:00Z")
            backup = await made(one)
            assert backup is not None
            ids.append(backup.manifest.id)
            if day == 3:
                part = await one.back_up(ids[-1])
        assert one.files() == {part, ids[1], *ids[-2:]}
        assert (await one.backups.state()).count == 4


async def test_those_made_for_safety_go_but_for_three(tmp_path: Path) -> None:
    async with nightly(tmp_path) as one:
        await one.store("a")
        await made(one)
        full = await one.back_up()
        safety = []
        for _ in range(5):
            one.clock.advance(1)
            safety.append((await one.restore(full)).safety_backup)
        at(one, "2026-03-02T02:00:00Z")
        assert await made(one) is not None
        assert {full, *safety[2:]} < one.files()
        assert not set(safety[:2]) & one.files()


async def test_each_is_proven_where_that_is_asked_for(tmp_path: Path) -> None:
    async with nightly(tmp_path, BackupPolicy("0 2 * * *", {"daily": 1}, verify_after=True, zone=UTC)) as one:
        await one.store("a")
        await made(one)
        at(one, "2026-03-02T02:00:00Z")
        backup = await made(one)
        assert backup is not None
        assert backup.verified is not None
        assert backup.verified.ok
        state = await one.backups.state()
        assert (state.verified, state.verified_at, state.verified_ok) == (backup.manifest.id, one.clock.now(), True)


async def test_one_that_did_not_prove_good_takes_nobodys_place(tmp_path: Path) -> None:
    clock = SettableClock(NOON)
    storage = Faulty(clock)
    policy = BackupPolicy("0 2 * * *", {"daily": 1}, verify_after=True, zone=UTC)
    async with house(storage, clock, tmp_path, policy) as one:
        await one.store("a")
        await made(one)
        at(one, "2026-03-02T02:00:00Z")
        good = await made(one)
        assert good is not None
        storage.fault = "hash"
        at(one, "2026-03-03T02:00:00Z")
        with pytest.raises(BackupDamagedError):
            await made(one)
        assert good.manifest.id in one.files()
        state = await one.backups.state()
        assert state.verified_ok is False
        assert state.failed is not None


async def test_the_worker_makes_them(tmp_path: Path) -> None:
    async with nightly(tmp_path) as one:
        await one.store("a")
        await one.back_up()
        one.clock.advance(DAY)
        worker = Worker(one.service, cleanup_seconds=60, flush_seconds=60, tiering_seconds=60, backup_seconds=0.01)
        worker.start()
        async with asyncio.timeout(BOUND_SECONDS):
            while (await one.backups.state()).count < 2:
                one.clock.advance(5)
        await worker.stop()
        worker = Worker(one.service, cleanup_seconds=60, flush_seconds=60, tiering_seconds=60)
        worker.start()
        assert not any(task.get_name() == "backup" for task in asyncio.all_tasks())
        await worker.stop()


# ---- as the settings say
def built(directory: Path, **environment: str) -> Service:
    return build(load(environment, data_dir=directory / "data", semantic="off"), SettableClock(NOON), copies=False)


@asynccontextmanager
async def opened(service: Service) -> AsyncIterator[Service]:
    await service.open()
    try:
        yield service
    finally:
        await service.close()


async def test_backups_lie_where_the_settings_say(directory: Path) -> None:
    for environment, where in (
        ({}, directory / "data/backups"),
        ({"MCP_BACKUP_DIR": f"{directory}/b"}, directory / "b"),
    ):
        async with opened(built(directory, **environment)) as service:
            backup = await service.backups.create(ANONYMOUS, BackupRequest())
            assert await asyncio.to_thread((where / backup.manifest.id).is_dir)
            assert (await service.backups.state()).due_at is not None


async def test_backups_are_encrypted_where_the_settings_say(directory: Path) -> None:
    secret = {"UNIFIED_MEMORY_BACKUP_PASSPHRASE": "correct horse"}
    async with opened(built(directory, **secret)) as service:
        await service.memories.store(ANONYMOUS, storing("a", "telling"))
        backup = await service.backups.create(ANONYMOUS, BackupRequest())
        assert (backup.manifest.encryption, backup.manifest.namespaces) == ("age", None)
        assert (await service.backups.verify(ANONYMOUS, backup.manifest.id)).ok
    async with opened(built(directory)) as service:
        with pytest.raises(RefusedError, match="encrypted"):
            await service.backups.restore(ANONYMOUS, RestoreRequest(backup.manifest.id))
        # That there is no key says nothing of the backup.
        with pytest.raises(RefusedError, match="encrypted"):
            await service.backups.verify(ANONYMOUS, backup.manifest.id)
        verified = (await service.backups.get(ANONYMOUS, backup.manifest.id)).verified
        assert verified is not None
        assert verified.ok


@pytest.mark.parametrize(
    ("environment", "versions"),
    [
        ({}, 3),
        ({"UNIFIED_MEMORY_HISTORY_KEEP": "0"}, 0),
        ({"UNIFIED_MEMORY_HISTORY_DAYS": "0"}, 0),
        ({"UNIFIED_MEMORY_HISTORY_KEEP": "2"}, 2),
        ({"UNIFIED_MEMORY_HISTORY_KEEP": "-1", "UNIFIED_MEMORY_HISTORY_DAYS": "-1"}, 3),
    ],
)
async def test_the_past_is_kept_as_the_settings_say(
    directory: Path, environment: dict[str, str], versions: int
) -> None:
    async with opened(built(directory, **environment)) as service:
        for value in range(4):
            await service.memories.store(ANONYMOUS, storing("a", value))
        async for _ in service.upkeep.cleanup():
            pass
        past = await service.storage.past("default", "a", NOON, before=None, limit=9)
        assert len([one for one in past if one.kept]) == versions


async def test_changes_are_kept_as_the_settings_say(directory: Path) -> None:
    async with opened(built(directory, UNIFIED_MEMORY_CHANGES_DAYS="2")) as service:
        assert isinstance(service.clock, SettableClock)
        await service.memories.store(ANONYMOUS, storing("a"))
        for seconds, kept in ((2 * DAY, True), (1, False)):
            service.clock.advance(seconds)
            async for _ in service.upkeep.cleanup():
                pass
            if kept:
                assert len(await service.storage.feed(0, 9)) == 1
        with pytest.raises(ChangesGoneError):
            await service.storage.feed(0, 9)


@pytest.mark.parametrize(
    ("variable", "text", "field"),
    [
        ("BACKUP_SCHEDULE", "hourly", "backup_schedule"),
        ("UNIFIED_MEMORY_BACKUP_KEEP", "7", "backup_keep"),
        ("UNIFIED_MEMORY_BACKUP_VERIFY", "always", "backup_verify"),
        ("UNIFIED_MEMORY_HISTORY_KEEP", "-2", "history_keep"),
        ("UNIFIED_MEMORY_HISTORY_DAYS", "nan", "history_days"),
        ("UNIFIED_MEMORY_CHANGES_DAYS", "0", "changes_days"),
        ("UNIFIED_MEMORY_CHANGES_DAYS", "inf", "changes_days"),
    ],
)
def test_settings_that_mean_nothing_are_refused(variable: str, text: str, field: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        load({variable: text})
    assert caught.value.field == field


def test_there_is_one_key(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="not both"):
        load({"UNIFIED_MEMORY_BACKUP_PASSPHRASE": "a", "UNIFIED_MEMORY_BACKUP_KEY_FILE": str(tmp_path)})
    settings = load({"UNIFIED_MEMORY_BACKUP_PASSPHRASE": "correct horse"})
    assert "correct" not in repr(settings)


# ---- how they fare
async def test_an_old_one_is_told(tmp_path: Path) -> None:
    async with nightly(tmp_path) as one:
        await one.store("a")
        await made(one)
        at(one, "2026-03-02T02:00:00Z")
        await made(one)
        # Another process holds the schedule, and does nothing.
        await one.storage.lease("backup-schedule", "other", one.clock.now(), one.clock.now() + 10**15)
        at(one, "2026-03-04T01:59:59Z")
        await made(one)
        await one.backups.state()
        assert one.backups.troubles() == []
        at(one, "2026-03-04T02:00:00Z")
        await made(one)
        await one.backups.state()
        assert one.backups.troubles() == ["the newest backup is older than twice the interval of the schedule"]


async def test_a_damaged_manifest_hides_no_other_backup(one: House) -> None:
    await one.store("a")
    bad = await one.back_up()
    good = await one.back_up()
    flip(one.place / bad / "manifest.json")
    assert [backup.manifest.id for backup in await one.backups.list_all(ANONYMOUS)] == [good]
    with pytest.raises(BackupDamagedError):
        await one.backups.get(ANONYMOUS, bad)
    assert (await one.backups.state()).count == 1
    (trouble,) = one.backups.troubles()
    assert bad in trouble


async def test_a_place_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    async with nightly(tmp_path / "file") as one:
        with pytest.raises(StorageError):
            await one.backups.list_all(ANONYMOUS)
        assert (await one.backups.state()).count == 0
        (trouble,) = one.backups.troubles()
        assert trouble.startswith("the backups cannot be read: ")
        await asyncio.to_thread((tmp_path / "file").unlink)
        await one.backups.state()
        assert one.backups.troubles() == []


async def test_the_state_is_looked_at_now_and_then(one: House) -> None:
    await one.store("a")
    backup_id = await one.back_up()
    assert (await one.backups.state()).last == backup_id
    (one.place / backup_id).rename(one.place / "elsewhere")
    one.clock.advance(4)
    assert (await one.backups.state()).last == backup_id
    one.clock.advance(1)
    assert (await one.backups.state()).last is None
    # What this process does shows at once.
    second = await one.back_up()
    assert (await one.backups.state()).last == second
    await one.backups.delete(ANONYMOUS, second)
    assert (await one.backups.state()).last is None
