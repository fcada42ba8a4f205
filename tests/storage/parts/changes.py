"""The changes beside edits: moved, touched, expired."""

import pytest
from msgspec import structs

from tests.storage.drafts import (
    NOW,
    apply,
    found,
    keys,
    remove,
    selection,
    store,
    storing,
)
from tests.storage.parts.opened import LATER, LONG_AFTER, Opened, all_names, assert_clean
from unified_memory.model.errors import (
    AlreadyExistsError,
    MemoryNotFoundError,
    VersionConflictError,
)
from unified_memory.storage.base import (
    Access,
    Storage,
)


class ChangeContract(Opened):
    """`move`, `touch`, `expire`."""

    # ---- move

    async def test_a_moved_memory_keeps_everything_but_key_version_and_update(self, storage: Storage) -> None:
        old = await store(
            storage,
            "k",
            {"a": 1},
            tags=("t",),
            importance=8,
            project_id="p",
            expires_at=LONG_AFTER,
            color="red",
        )
        await storage.touch([Access(old.id, 2, NOW + 1)])
        moved = await storage.move(("default", "k"), ("acme/web", "l"), LATER)
        assert moved == structs.replace(
            old,
            namespace="acme/web",
            key="l",
            version=2,
            access_count=2,
            last_accessed=NOW + 1,
            updated_at=moved.updated_at,
            seq=moved.seq,
        )
        assert moved.seq > old.seq
        assert await storage.get("acme/web", "l", LATER) == moved
        assert await storage.get("default", "k", LATER) is None
        assert await storage.get_by_id([old.id], LATER) == [moved]
        assert await all_names(storage) == ["acme/web", "default"]
        await assert_clean(storage)

    async def test_a_moved_memory_is_found_by_its_new_key_and_not_by_the_old(self, storage: Storage) -> None:
        await store(storage, "walrus", "text", title="Zebra")
        await storage.move(("default", "walrus"), ("default", "ocelot"), NOW)
        assert await found(storage, "walrus") == []
        assert await found(storage, "ocelot") == ["ocelot"]
        assert await found(storage, "zebra text") == ["ocelot"]
        await assert_clean(storage)

    async def test_a_memory_that_is_moved_takes_its_session_to_the_namespace(self, storage: Storage) -> None:
        await store(storage, "k", session_id="s", project_id="p")
        await storage.move(("default", "k"), ("acme", "k"), LATER)
        here, there = [await storage.get_session(name, "s", LATER) for name in ("default", "acme")]
        assert here is not None
        assert there is not None
        assert (here.memories, there.memories, there.project_id) == (0, 1, "p")
        await assert_clean(storage)

    async def test_moving_what_is_not_there_raises(self, storage: Storage) -> None:
        await store(storage, "gone", expires_at=LATER)
        for key in ("none", "gone"):
            with pytest.raises(MemoryNotFoundError):
                await storage.move(("default", key), ("default", "l"), LATER)
        assert await keys(storage) == ["gone"]

    async def test_moving_onto_a_visible_memory_raises_and_moves_nothing(self, storage: Storage) -> None:
        await apply(storage, storing("k", "source"), storing("l", "target"))
        before = (await storage.select(selection(), NOW)).items
        with pytest.raises(AlreadyExistsError):
            await storage.move(("default", "k"), ("default", "l"), NOW)
        assert (await storage.select(selection(), NOW)).items == before

    async def test_moving_onto_an_expired_memory_replaces_it(self, storage: Storage) -> None:
        source, target = await store(storage, "k"), await store(storage, "l", expires_at=LATER)
        moved = await storage.move(("default", "k"), ("default", "l"), LATER)
        assert moved.id == source.id
        assert await storage.get_by_id([source.id, target.id], NOW) == [moved, None]
        await assert_clean(storage)

    async def test_moving_another_version_than_was_named_raises(self, storage: Storage) -> None:
        await store(storage, "k")
        with pytest.raises(VersionConflictError) as refused:
            await storage.move(("default", "k"), ("default", "l"), NOW, expected_version=2)
        assert (refused.value.facts["expected_version"], refused.value.facts["current_version"]) == (2, 1)
        moved = await storage.move(("default", "k"), ("default", "l"), NOW, expected_version=1)
        assert moved.version == 2

    # ---- touch

    async def test_accesses_are_added_up_and_change_nothing_else(self, storage: Storage) -> None:
        memory = await store(storage, "k")
        await storage.touch(
            [Access(memory.id, 2, NOW + 7), Access(memory.id, 1, NOW + 5), Access(memory.id + 99, 1, NOW)]
        )
        await storage.touch([Access(memory.id, 4, NOW + 6)])
        read = await storage.get("default", "k", NOW)
        assert read == structs.replace(memory, access_count=7, last_accessed=NOW + 7)
        assert (await storage.stats(("",), NOW, top=1)).last_seq == memory.seq

    async def test_accesses_of_what_is_gone_are_forgotten(self, storage: Storage) -> None:
        memory = await store(storage, "k")
        await remove(storage, "k")
        await storage.touch([Access(memory.id, 1, NOW)])
        again = await store(storage, "k")
        assert again.access_count == 0
        await storage.touch([])

    # ---- expire

    async def test_expire_removes_what_has_passed_and_tells_how_many_of_each_namespace(self, storage: Storage) -> None:
        for n in range(3):
            await store(storage, f"a{n}", namespace="a", expires_at=LATER)
        await store(storage, "b", namespace="b/c", expires_at=LATER - 1)
        kept = await store(storage, "kept", namespace="a", expires_at=LATER + 1)
        assert sorted(await storage.expire(LATER, 100)) == [("a", 3), ("b/c", 1)]
        assert await storage.expire(LATER, 100) == []
        assert (await storage.stats(("",), LATER, top=1)).expired == 0
        assert (await storage.select(selection(), NOW)).items == [kept]
        await assert_clean(storage)

    async def test_expire_removes_no_more_than_it_was_told(self, storage: Storage) -> None:
        for n in range(7):
            await store(storage, f"k{n}", namespace=f"n{n % 2}", expires_at=LATER)
        left = 7
        while left:
            removed = sum(number for _, number in await storage.expire(LATER, 3))
            assert removed == min(3, left)
            left -= removed
            assert (await storage.stats(("",), LATER, top=1)).expired == left

    async def test_each_expired_memory_that_is_removed_is_a_change(self, storage: Storage) -> None:
        for n in range(3):
            await store(storage, f"k{n}", expires_at=LATER)
        before = (await storage.stats(("",), NOW, top=1)).last_seq
        await storage.expire(LATER, 10)
        assert (await storage.stats(("",), NOW, top=1)).last_seq >= before + 3

    async def test_an_expiry_that_was_taken_back_in_time_holds(self, storage: Storage) -> None:
        await store(storage, "k", expires_at=LATER)
        await store(storage, "k", expires_at=None)
        assert await storage.expire(LONG_AFTER, 10) == []
        assert await keys(storage, now=LONG_AFTER) == ["k"]
