"""What the guard refuses near STORAGE_LIMIT and while the service is read-only, and what still works then."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.service.asking import Held, holding, raw, raws, storing
from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import ReadOnlyError, StorageFullError, UnifiedMemoryError
from unified_memory.model.principal import ANONYMOUS
from unified_memory.model.session import WithMemories
from unified_memory.service.requests import (
    BatchKeysRequest,
    BatchStoreRequest,
    Changes,
    DeleteWhereRequest,
    ExactQuery,
    KeyRef,
    ListQuery,
    MoveRequest,
    PatchRequest,
    Place,
    SearchQuery,
    SessionRequest,
    UpdateRequest,
    UpdateWhereRequest,
)
from unified_memory.storage.inmemory import InMemoryStorage
from unified_memory.storage.sqlite import SQLiteStorage

LIMIT = 1000
Ask = Callable[[Held], Awaitable[Any]]


class Sized(InMemoryStorage):
    """As large as it is said to be."""

    bytes = 0

    async def size(self) -> int | None:
        return self.bytes


async def _all(chunks: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in chunks]


async def _update_where(held: Held) -> Any:
    request = UpdateWhereRequest({"key": {"exists": True}}, Changes(add_tags=["t"]))
    selection, _ = await held.service.memories.matching(ANONYMOUS, request)
    return await _all(held.service.memories.change_where(selection, held.service.memories.read_where(request)))


async def _delete_where(held: Held) -> Any:
    selection, _ = await held.service.memories.matching(ANONYMOUS, DeleteWhereRequest({"key": "b"}))
    return await _all(held.service.memories.change_where(selection, None))


async def _delete_namespace(held: Held) -> Any:
    deletion = await held.service.namespaces.delete(ANONYMOUS, "n", recursive=True, dry_run=False)
    return await _all(held.service.namespaces.purge(deletion.tickets))


WRITES: dict[str, Ask] = {
    "store": lambda held: held.service.memories.store(ANONYMOUS, storing("new")),
    "store over": lambda held: held.service.memories.store(ANONYMOUS, storing("a")),
    "store_batch": lambda held: held.service.memories.store_batch(ANONYMOUS, BatchStoreRequest([storing("new")])),
    "update": lambda held: held.service.memories.update(ANONYMOUS, "default", "a", UpdateRequest(value=raw(1))),
    "patch": lambda held: held.service.memories.patch(ANONYMOUS, "default", "a", PatchRequest(merge=raw(1))),
    "move": lambda held: held.service.memories.move(ANONYMOUS, MoveRequest(Place(key="a"), Place(key="new"))),
    "move namespace": lambda held: held.service.memories.move(ANONYMOUS, MoveRequest(Place("n"), Place("m"))),
    "update where": _update_where,
    "create namespace": lambda held: held.service.namespaces.create(ANONYMOUS, "m", None),
    "configure namespace": lambda held: held.service.namespaces.configure(ANONYMOUS, "n", raws({"max_memories": 5})),
    "create session": lambda held: held.service.sessions.create(ANONYMOUS, SessionRequest()),
}
DELETES: dict[str, Ask] = {
    "delete": lambda held: held.service.memories.delete(ANONYMOUS, "default", "a"),
    "delete_batch": lambda held: held.service.memories.delete_batch(ANONYMOUS, BatchKeysRequest([KeyRef("a")])),
    "delete where": _delete_where,
    "delete namespace": _delete_namespace,
    "end session": lambda held: held.service.sessions.end(ANONYMOUS, "default", "s", WithMemories.DELETE),
    "expire session": lambda held: held.service.sessions.end(ANONYMOUS, "default", "s", WithMemories.EXPIRE),
    "cleanup": lambda held: _all(held.service.upkeep.cleanup()),
}
READS: dict[str, Ask] = {
    "retrieve": lambda held: held.retrieve("a"),
    "list": lambda held: held.service.memories.list_all(ANONYMOUS, ListQuery()),
    "query": lambda held: held.service.memories.query(ANONYMOUS, ExactQuery()),
    "search": lambda held: held.service.searching.search(ANONYMOUS, SearchQuery("v")),
    "stats": lambda held: held.service.upkeep.stats(ANONYMOUS, None),
    "session": lambda held: held.service.sessions.view(ANONYMOUS, "default", "s", cluster=False, limit=5, cursor=None),
    "flush": lambda held: held.service.upkeep.flush(),
}


async def _fill(held: Held) -> None:
    await held.store("a", metadata={"session_id": "s"})
    await held.store("b")
    await held.store("c", ttl=1)
    await held.store("d", namespace="n")
    held.clock.advance(1)


async def _everything(held: Held) -> Any:
    listing = await held.service.memories.list_all(ANONYMOUS, ListQuery())
    namespaces = await held.service.namespaces.list_all(ANONYMOUS, prefix=None, depth=None, limit=50, cursor=None)
    return [(m.namespace, m.key, m.version) for m in listing.memories], [one.name for one in namespaces.namespaces]


@pytest.fixture
async def full() -> AsyncIterator[Held]:
    """A service whose files have just become too large."""
    storage = Sized()
    async with holding(storage, SettableClock(), storage_limit=LIMIT) as held:
        await _fill(held)
        storage.bytes = LIMIT
        await held.service.upkeep.flush()
        yield held


@pytest.mark.parametrize("what", WRITES)
async def test_near_the_limit_nothing_more_is_stored(full: Held, what: str) -> None:
    before = await _everything(full)
    with pytest.raises(StorageFullError) as refused:
        await WRITES[what](full)
    assert str(LIMIT) in refused.value.detail
    assert await _everything(full) == before


@pytest.mark.parametrize("what", DELETES)
async def test_near_the_limit_deletes_work(full: Held, what: str) -> None:
    before = await full.storage.stats(("",), full.clock.now(), top=1)
    await DELETES[what](full)
    after = await full.storage.stats(("",), full.clock.now(), top=1)
    assert after.memories + after.expired < before.memories + before.expired or what == "expire session"
    assert after != before


@pytest.mark.parametrize("what", READS)
async def test_near_the_limit_reads_work(full: Held, what: str) -> None:
    await READS[what](full)


@pytest.mark.parametrize(("size", "refuses"), [(0, False), (949, False), (950, True), (1000, True), (5000, True)])
async def test_near_is_from_95_percent(size: int, refuses: bool) -> None:  # noqa: FBT001 - drawn
    storage = Sized()
    storage.bytes = size
    async with holding(storage, SettableClock(), storage_limit=LIMIT) as held:
        if refuses:
            with pytest.raises(StorageFullError):
                await held.store("k")
            assert await held.service.upkeep.read_only() == "STORAGE_LIMIT is nearly reached"
            assert (await held.service.upkeep.ready()).status == "degraded"
        else:
            await held.store("k")
            assert await held.service.upkeep.read_only() is None


async def test_without_a_limit_nothing_is_measured() -> None:
    storage = Sized()
    storage.bytes = 10**15
    async with holding(storage, SettableClock()) as held:
        await held.store("k")


@pytest.mark.parametrize("what", ["cleanup", "flush"])
async def test_a_pass_finds_out_that_there_is_room_again(full: Held, what: str) -> None:
    assert isinstance(full.storage, Sized)
    full.storage.bytes = 0
    with pytest.raises(StorageFullError):
        await full.store("k")
    await (DELETES | READS)[what](full)
    await full.store("k")


async def test_real_files_that_grow_stop_the_stores_and_deletes_make_room(directory: Path) -> None:
    clock = SettableClock()
    limit = 2 * 1024 * 1024
    async with holding(SQLiteStorage(directory / "memory.db", clock=clock), clock, storage_limit=limit) as held:
        stored = 0
        while await held.service.upkeep.read_only() is None:
            await held.store(f"k{stored}", "x" * 50_000)
            stored += 1
            await held.service.upkeep.flush()
        assert 0 < stored < 100
        with pytest.raises(StorageFullError):
            await held.store("more")
        size = await held.storage.size()
        assert size is not None
        assert size < limit + 200_000
        for number in range(stored):
            await held.service.memories.delete(ANONYMOUS, "default", f"k{number}")
        assert (await held.service.upkeep.stats(ANONYMOUS, None)).memories == 0
        assert await held.service.upkeep.check(fix=False) == []


# ---- read-only


@pytest.mark.parametrize("what", WRITES)
async def test_a_service_that_is_read_only_by_its_setting_stores_nothing(what: str) -> None:
    storage = InMemoryStorage()
    async with holding(storage, SettableClock()) as held:
        await _fill(held)
        async with holding(storage, held.clock, read_only=True) as other:
            before = await _everything(other)
            with pytest.raises(ReadOnlyError) as refused:
                await WRITES[what](other)
            assert refused.value.facts["reason"] == "READ_ONLY is set"
            assert await _everything(other) == before
        # It is that process alone.
        await WRITES[what](held)


@pytest.mark.parametrize("what", WRITES)
async def test_a_command_stops_the_stores_of_every_process_and_starts_them_again(directory: Path, what: str) -> None:
    clock = SettableClock()
    path = directory / "memory.db"
    async with (
        holding(SQLiteStorage(path, clock=clock), clock) as one,
        holding(SQLiteStorage(path, clock=clock), clock) as other,
    ):
        await _fill(one)
        before = await _everything(other)
        assert await one.service.upkeep.switch_read_only("moving house") == "moving house"
        assert await other.service.upkeep.read_only() == "moving house"
        with pytest.raises(ReadOnlyError) as refused:
            await WRITES[what](other)
        assert refused.value.facts["reason"] == "moving house"
        assert await _everything(other) == before
        assert await other.service.upkeep.switch_read_only(None) is None
        await WRITES[what](one)


@pytest.mark.parametrize("what", DELETES | READS)
async def test_deletes_and_reads_work_while_read_only(each: Held, what: str) -> None:
    await _fill(each)
    await each.service.upkeep.switch_read_only("for a test")
    await (DELETES | READS)[what](each)


async def test_a_read_only_service_is_degraded_and_not_failing(held: Held) -> None:
    await held.service.upkeep.switch_read_only("for a test")
    health = await held.service.upkeep.ready()
    assert (health.status, health.reasons) == ("degraded", ["read-only: for a test"])


async def test_what_is_wrong_is_no_matter_while_nothing_may_be_stored(full: Held) -> None:
    """Whoever retries must not be told to mend the request when that would not help."""
    with pytest.raises(UnifiedMemoryError) as refused:
        await full.store("", ttl=-1)
    assert isinstance(refused.value, StorageFullError)
