"""Memories that come from elsewhere with their own instants."""

from tests.storage.drafts import NOW, found, keys, remove, store
from tests.storage.parts.opened import LATER, Opened, events, former
from unified_memory.model.clock import SECOND
from unified_memory.storage.base import Access, Origin, Storage

LONG_AGO = NOW - 1000 * SECOND
THEN = NOW - 500 * SECOND
OLD = Origin(LONG_AGO, THEN, 7, THEN + 1)


class OriginContract(Opened):
    """`Draft.origin`."""

    async def test_a_memory_brings_its_instants_and_access_data_along(self, storage: Storage) -> None:
        memory = await store(storage, "k", "word", origin=OLD)
        assert (memory.created_at, memory.updated_at) == (LONG_AGO, THEN)
        assert (memory.access_count, memory.last_accessed, memory.version) == (7, THEN + 1, 1)
        assert await storage.get("default", "k", NOW) == memory
        assert await found(storage, "word") == ["k"]
        (event,) = await events(storage)
        assert event.at == NOW
        space = await storage.get_namespace("default", NOW)
        assert space is not None
        assert space.created_at == NOW

    async def test_what_is_not_said_is_none(self, storage: Storage) -> None:
        memory = await store(storage, "k", origin=Origin(LONG_AGO, THEN))
        assert (memory.access_count, memory.last_accessed) == (0, None)
        assert await storage.get("default", "k", NOW) == memory

    async def test_it_counts_over_what_the_replaced_memory_has(self, storage: Storage) -> None:
        first = await store(storage, "k", 1)
        await storage.touch([Access(first.id, 3, LATER)])
        second = await store(storage, "k", 2, now=LATER, origin=OLD)
        assert (second.id, second.version) == (first.id, 2)
        assert (second.created_at, second.updated_at) == (LONG_AGO, THEN)
        assert (second.access_count, second.last_accessed) == (7, THEN + 1)
        assert await storage.get("default", "k", LATER) == second
        assert (await former(storage, "k", 1)).ended_at == LATER
        third = await store(storage, "k", 3, now=LATER + 1)
        assert (third.created_at, third.updated_at) == (LONG_AGO, LATER + 1)
        assert (third.access_count, third.last_accessed) == (7, THEN + 1)

    async def test_it_orders_memories_by_its_instants(self, storage: Storage) -> None:
        await store(storage, "new")
        await store(storage, "old", origin=OLD)
        await store(storage, "middle", origin=Origin(THEN, NOW + 1))
        assert await keys(storage, order="created_at") == ["old", "middle", "new"]
        assert await keys(storage, order="updated_at") == ["old", "new", "middle"]

    async def test_a_former_version_keeps_its_instants(self, storage: Storage) -> None:
        await store(storage, "k", origin=OLD)
        await remove(storage, "k", now=LATER)
        row = await former(storage, "k", 1, now=LATER)
        assert (row.memory.created_at, row.memory.updated_at, row.ended_at) == (LONG_AGO, THEN, LATER)
        assert (row.memory.access_count, row.memory.last_accessed) == (0, None)

    async def test_reserved_ids_are_given_to_none(self, storage: Storage) -> None:
        first = await store(storage, "k")
        await storage.reserve_ids(first.id + 40)
        second = await store(storage, "l")
        assert second.id == first.id + 41
        await storage.reserve_ids(3)
        assert (await store(storage, "m")).id == second.id + 1
        assert await storage.check(fix=False) == []
