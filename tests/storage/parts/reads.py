"""Reading one by one; what is visible until when."""

from msgspec import structs

from tests.storage.drafts import (
    NOW,
    apply,
    remove,
    store,
    storing,
)
from tests.storage.parts.looks import Look, by_select_where, every_look, store_seen
from tests.storage.parts.opened import LATER, LONG_AFTER, Opened
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.value import content_hash
from unified_memory.storage.base import (
    Storage,
)


class ReadContract(Opened):
    """Reading one by one; what is invisible from when on; move, touch and expire."""

    async def test_a_missing_memory_is_none(self, storage: Storage) -> None:
        assert await storage.get("default", "k", NOW) is None

    async def test_keys_and_namespaces_are_told_apart_exactly(self, storage: Storage) -> None:
        names = [
            "k",
            "K",
            "k ",
            " k",
            "k\u00e9",
            "ke\u0301",
            "k/",
            "/k",
            "%",
            "_",
            "k\n",
            "k'",
            'k"',
            "\uffff",
            "\U00010000",
        ]
        for n, key in enumerate(names):
            await store(storage, key, n)
            await store(storage, key, -n, namespace="a/k")
        for n, key in enumerate(names):
            here, there = await storage.get_many([("default", key), ("a/k", key)], NOW)
            assert here is not None
            assert there is not None
            assert (here.value, there.value) == (b"%d" % n, b"%d" % -n)
        assert await storage.get("a", "k/k", NOW) is None

    async def test_get_many_answers_in_order_with_none_for_what_is_missing(self, storage: Storage) -> None:
        a, b = await store(storage, "a"), await store(storage, "b", namespace="n")
        refs = [("n", "b"), ("default", "none"), ("default", "a"), ("n", "a"), ("n", "b")]
        assert await storage.get_many(refs, NOW) == [b, None, a, None, b]
        assert await storage.get_many([], NOW) == []

    async def test_get_many_takes_a_thousand_at_once(self, storage: Storage) -> None:
        await apply(storage, *(storing(f"k{n}", n) for n in range(1000)))
        read = await storage.get_many([("default", f"k{n}") for n in reversed(range(1000))], NOW)
        assert [memory and memory.key for memory in read] == [f"k{n}" for n in reversed(range(1000))]
        ids = [memory.id for memory in read if memory is not None]
        assert await storage.get_by_id(ids, NOW) == read

    async def test_get_by_id_answers_in_order_with_none_for_what_is_missing(self, storage: Storage) -> None:
        a, b = await store(storage, "a"), await store(storage, "b", namespace="n")
        gone = await store(storage, "gone")
        await remove(storage, "gone")
        assert await storage.get_by_id([b.id, 0, gone.id, a.id, b.id, 2**62, -1], NOW) == [
            b,
            None,
            None,
            a,
            b,
            None,
            None,
        ]
        assert await storage.get_by_id([], NOW) == []

    @every_look
    async def test_a_memory_is_seen_until_it_expires_and_not_from_that_microsecond(
        self, storage: Storage, look: Look
    ) -> None:
        memory = await store_seen(storage, expires_at=LATER)
        assert await look(storage, memory, LATER - 1)
        assert not await look(storage, memory, LATER)
        assert not await look(storage, memory, LONG_AFTER)
        assert await look(storage, memory, LATER - 1)

    @every_look
    async def test_a_memory_is_not_seen_once_removed(self, storage: Storage, look: Look) -> None:
        memory = await store_seen(storage)
        assert await look(storage, memory, NOW)
        await remove(storage, memory.key, namespace=memory.namespace)
        assert not await look(storage, memory, NOW)

    @every_look
    async def test_a_memory_is_not_seen_once_its_namespace_is_deleted(self, storage: Storage, look: Look) -> None:
        memory = await store_seen(storage)
        await storage.delete_namespace("acme", NOW, recursive=True)
        assert not await look(storage, memory, NOW)
        await storage.put_namespace(memory.namespace, NamespaceConfig(), NOW, create=True)
        assert not await look(storage, memory, NOW)

    @every_look
    async def test_a_memory_is_not_seen_once_cleaned_up(self, storage: Storage, look: Look) -> None:
        memory = await store_seen(storage, expires_at=LATER)
        await storage.expire(LATER, 10)
        assert not await look(storage, memory, NOW)

    @every_look
    async def test_a_memory_is_seen_under_its_new_name_once_moved(self, storage: Storage, look: Look) -> None:
        memory = await store_seen(storage, session_id="s", expires_at=LATER)
        await store(storage, "other", session_id="s", namespace="elsewhere")
        moved = await storage.move((memory.namespace, memory.key), ("elsewhere", "new"), NOW)
        assert await look(storage, moved, LATER - 1)
        gone = structs.replace(moved, namespace=memory.namespace, key=memory.key, id=0)
        assert not await look(storage, gone, NOW) or look is by_select_where
        await remove(storage, "other", namespace="elsewhere")
        assert not await look(storage, moved, LATER)

    # ---- the search entry

    async def test_the_index_entry_tells_hash_and_keywords(self, storage: Storage) -> None:
        memory = await store(storage, "k", {"b": 1, "a": "remarkable"}, tags=("t",), title="Zebra")
        digest, keywords = await storage.index_entry(memory)
        assert digest == content_hash({"a": "remarkable", "b": 1}).hex()
        assert keywords == ["t", "Zebra", "remarkable"]
