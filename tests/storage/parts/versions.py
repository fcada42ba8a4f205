"""Versions never restart, and of those who change one version at once one wins."""

import asyncio

from tests.storage.drafts import (
    NOW,
    apply,
    draft,
    found,
    keys,
    remove,
    selection,
    store,
    storing,
    version_of,
)
from tests.storage.parts.opened import (
    LATER,
    Opened,
    assert_clean,
)
from unified_memory.model.errors import (
    VersionConflictError,
)
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.storage.base import (
    Access,
    Decision,
    Edit,
    Storage,
)


class VersionContract(Opened):
    """Versions go on, whatever has happened to the key."""

    async def test_versions_go_on_after_delete_and_recreate(self, storage: Storage) -> None:
        first = await store(storage, "k")
        await store(storage, "k")
        await remove(storage, "k")
        again = await store(storage, "k", now=LATER)
        assert (again.version, again.created_at) == (3, LATER)
        assert again.id > first.id

    async def test_versions_go_on_after_expire_and_recreate(self, storage: Storage) -> None:
        first = await store(storage, "k", expires_at=LATER)
        await storage.touch([Access(first.id, 1, NOW)])
        again = await store(storage, "k", now=LATER)
        assert (again.version, again.created_at, again.updated_at) == (2, LATER, LATER)
        assert (again.access_count, again.last_accessed) == (0, None)
        assert again.id > first.id
        assert await storage.get_by_id([first.id, again.id], LATER) == [None, again]
        await assert_clean(storage)

    async def test_versions_go_on_after_cleanup_and_recreate(self, storage: Storage) -> None:
        await store(storage, "k", expires_at=LATER)
        assert await storage.expire(LATER, 10) == [("default", 1)]
        assert (await store(storage, "k", now=LATER)).version == 2

    async def test_versions_go_on_after_the_namespace_was_deleted(self, storage: Storage) -> None:
        for _ in range(4):
            await store(storage, "much", namespace="n/x")
        await store(storage, "little", namespace="n/x")
        tickets = await storage.delete_namespace("n", NOW, recursive=True)
        before_purge = await store(storage, "little", namespace="n/x")
        assert before_purge.version > 4
        for ticket in tickets:
            while await storage.purge(ticket, NOW, 1):
                pass
        assert (await store(storage, "much", namespace="n/x")).version > 4
        await storage.delete_namespace("n/x", NOW, recursive=True)
        assert (await store(storage, "much", namespace="n/x")).version > before_purge.version

    async def test_versions_go_on_after_a_removed_key_and_the_namespace_were_deleted(self, storage: Storage) -> None:
        for _ in range(3):
            await store(storage, "k", namespace="n")
        await remove(storage, "k", namespace="n")
        await storage.delete_namespace("n", NOW, recursive=True)
        assert (await store(storage, "k", namespace="n")).version > 3

    async def test_versions_go_on_after_a_key_was_moved_away(self, storage: Storage) -> None:
        await store(storage, "k")
        await storage.move(("default", "k"), ("default", "l"), NOW)
        assert (await store(storage, "k")).version > 1

    async def test_versions_go_on_where_a_memory_is_moved_to_a_key_with_a_past(self, storage: Storage) -> None:
        for _ in range(5):
            await store(storage, "target")
        await remove(storage, "target")
        await store(storage, "source")
        moved = await storage.move(("default", "source"), ("default", "target"), NOW)
        assert moved.version > 5

    async def test_versions_go_on_after_the_namespace_was_renamed(self, storage: Storage) -> None:
        for _ in range(3):
            await store(storage, "k", namespace="a")
        await storage.rename_namespace("a", "b", NOW)
        assert (await store(storage, "k", namespace="a")).version > 3


class ManyAtOnceContract(Opened):
    """Many callers at once: nothing is lost, nothing is seen half."""

    async def test_of_64_edits_checked_against_one_version_exactly_one_wins(self, storage: Storage) -> None:
        await store(storage, "k", -1)
        won: list[tuple[int, int]] = []

        async def contend(who: int) -> None:
            while True:
                version = await version_of(storage, "k")
                try:
                    memory = await store(storage, "k", who, expected=version)
                except VersionConflictError:
                    continue
                won.append((memory.version, who))
                return

        await asyncio.gather(*(contend(who) for who in range(64)))
        assert sorted(version for version, _ in won) == list(range(2, 66))
        assert sorted(who for _, who in won) == list(range(64))
        memory = await storage.get("default", "k", NOW)
        assert memory is not None
        assert (memory.version, memory.value) == (65, b"%d" % max(won)[1])
        await assert_clean(storage)

    async def test_of_64_creations_of_one_key_exactly_one_wins(self, storage: Storage) -> None:
        creations = (storage.edit([storing("k", n, expected=0)], NOW) for n in range(64))
        results = await asyncio.gather(*creations, return_exceptions=True)
        assert sum(isinstance(one, VersionConflictError) for one in results) == 63
        assert await version_of(storage, "k") == 1

    async def test_no_increment_of_many_at_once_is_lost(self, storage: Storage) -> None:
        def increment(memory: Memory | None, _config: NamespaceConfig) -> Decision:
            return draft("k", 1 if memory is None else memory.parsed() + 1)

        await asyncio.gather(*(storage.edit([Edit("default", "k", increment, whole=True)], NOW) for _ in range(100)))
        memory = await storage.get("default", "k", NOW)
        assert memory is not None
        assert (memory.value, memory.version) == (b"100", 100)

    async def test_of_many_stores_at_once_none_is_lost(self, storage: Storage) -> None:
        stored = await asyncio.gather(*(store(storage, f"k{n}", n, namespace=f"n{n % 7}") for n in range(500)))
        assert len({memory.id for memory in stored}) == 500
        assert len({memory.seq for memory in stored}) == 500
        assert sorted(await keys(storage)) == sorted(f"k{n}" for n in range(500))
        by_seq = sorted(stored, key=lambda memory: memory.seq)
        assert [memory.id for memory in by_seq] == sorted(memory.id for memory in stored)
        await assert_clean(storage)

    async def test_no_reader_sees_a_part_of_a_unit(self, storage: Storage) -> None:
        await apply(storage, storing("a", 0), storing("b", 0))

        async def write() -> None:
            for n in range(1, 50):
                await apply(storage, storing("a", n), storing("b", n))

        async def read() -> None:
            for _ in range(50):
                values = {memory.value for memory in (await storage.select(selection(), NOW)).items}
                assert len(values) == 1
                pair = await storage.get_many([("default", "a"), ("default", "b")], NOW)
                assert len({memory.value for memory in pair if memory is not None}) == 1
                await asyncio.sleep(0)

        await asyncio.gather(write(), read(), read())

    async def test_a_write_that_was_answered_is_seen_by_every_read_that_follows(self, storage: Storage) -> None:
        for n in range(20):
            memory = await store(storage, "k", f"word{n}")
            assert await storage.get("default", "k", NOW) == memory
            assert await storage.get_by_id([memory.id], NOW) == [memory]
            assert (await storage.select(selection(), NOW)).items == [memory]
            assert await found(storage, f"word{n}") == ["k"]
