"""Quotas of namespaces."""

import asyncio

import pytest

from tests.storage.drafts import (
    NOW,
    apply,
    keys,
    remove,
    removing,
    store,
    storing,
    version_of,
)
from tests.storage.parts.opened import (
    LATER,
    NEIGHBOURS,
    Opened,
    all_names,
    all_sessions,
    assert_clean,
    configure,
)
from unified_memory.model.errors import (
    QuotaExceededError,
)
from unified_memory.storage.base import (
    Storage,
)


class QuotaContract(Opened):
    """A quota bounds the subtree of the namespace that sets it."""

    async def test_a_quota_of_memories_bounds_the_subtree_of_the_one_that_sets_it(self, storage: Storage) -> None:
        await configure(storage, "acme", max_memories=2)
        await store(storage, "a", namespace="acme/x")
        await store(storage, "b", namespace="acme/y/z")
        for name in ("acme", "acme/x", "acme/new"):
            with pytest.raises(QuotaExceededError) as refused:
                await store(storage, "c", namespace=name)
            facts = refused.value.facts
            assert (facts["namespace"], facts["quota"], facts["limit"]) == ("acme", "max_memories", 2)
        assert len(await keys(storage)) == 2
        assert "acme/new" not in await all_names(storage)
        for name in NEIGHBOURS:
            await store(storage, "c", namespace=name)

    async def test_a_quota_of_bytes_counts_the_values(self, storage: Storage) -> None:
        await configure(storage, "acme", max_bytes=10)
        await store(storage, "a", "123456", namespace="acme/x")
        await store(storage, "a", "12345678", namespace="acme/x")
        with pytest.raises(QuotaExceededError) as refused:
            await store(storage, "b", 1, namespace="acme")
        facts = refused.value.facts
        assert (facts["namespace"], facts["quota"], facts["limit"]) == ("acme", "max_bytes", 10)
        with pytest.raises(QuotaExceededError):
            await store(storage, "a", "123456789", namespace="acme/x")
        assert await version_of(storage, "a", namespace="acme/x") == 2
        await store(storage, "a", "1", namespace="acme/x")
        await store(storage, "b", 1234567, namespace="acme")

    async def test_a_quota_of_any_ancestor_holds_whatever_is_set_below(self, storage: Storage) -> None:
        await configure(storage, "a", max_memories=1)
        await configure(storage, "a/b", max_memories=5)
        await configure(storage, "a/b/c", max_memories=None)
        await store(storage, "k", namespace="a/b/c")
        for name in ("a", "a/b", "a/b/c"):
            with pytest.raises(QuotaExceededError) as refused:
                await store(storage, "l", namespace=name)
            assert refused.value.facts["namespace"] == "a"

    async def test_the_namespace_that_sets_the_quota_is_named_and_not_one_that_inherits_it(
        self, storage: Storage
    ) -> None:
        await configure(storage, "a", max_memories=1, max_bytes=50)
        await configure(storage, "a/b")
        await store(storage, "k", namespace="a/b/c")
        for key, value in (("l", "v"), ("k", "x" * 60)):
            with pytest.raises(QuotaExceededError) as refused:
                await store(storage, key, value, namespace="a/b/c")
            assert refused.value.facts["namespace"] == "a"

    async def test_replacing_does_not_count_twice(self, storage: Storage) -> None:
        await configure(storage, "acme", max_memories=1, max_bytes=5)
        for value in ("abc", "xyz"):
            await store(storage, "k", value, namespace="acme")
        await apply(storage, removing("k", namespace="acme"), storing("l", "abc", namespace="acme"))

    async def test_a_unit_beyond_a_quota_leaves_nothing_behind(self, storage: Storage) -> None:
        await configure(storage, "acme", max_memories=2)
        with pytest.raises(QuotaExceededError):
            await apply(
                storage,
                storing("other", namespace="elsewhere"),
                *(storing(f"k{n}", namespace="acme", session_id="s") for n in range(3)),
            )
        assert await keys(storage) == []
        assert await all_names(storage) == ["acme"]
        assert await all_sessions(storage) == []

    async def test_only_visible_memories_count_towards_a_quota(self, storage: Storage) -> None:
        await configure(storage, "acme", max_memories=1, max_bytes=5)
        await store(storage, "a", "abc", namespace="acme", expires_at=LATER)
        with pytest.raises(QuotaExceededError):
            await store(storage, "b", "abc", namespace="acme", now=LATER - 1)
        await store(storage, "b", "abc", namespace="acme", now=LATER)
        with pytest.raises(QuotaExceededError):
            await store(storage, "a", "abc", namespace="acme", now=LATER)
        await remove(storage, "b", namespace="acme", now=LATER)
        await store(storage, "c", "abc", namespace="acme", now=LATER)
        await storage.delete_namespace("acme", LATER, recursive=True)
        await configure(storage, "acme", max_memories=1, max_bytes=5)
        await store(storage, "c", "abc", namespace="acme", now=LATER)

    async def test_memories_can_be_removed_while_beyond_a_quota(self, storage: Storage) -> None:
        for n in range(4):
            await store(storage, f"k{n}", namespace="acme")
        await configure(storage, "acme", max_memories=2)
        with pytest.raises(QuotaExceededError):
            await store(storage, "new", namespace="acme")
        assert await remove(storage, "k0", namespace="acme")
        assert len(await keys(storage)) == 3

    async def test_a_move_does_not_pass_a_quota(self, storage: Storage) -> None:
        await configure(storage, "acme", max_memories=1)
        await store(storage, "a", namespace="acme/x")
        await store(storage, "b")
        with pytest.raises(QuotaExceededError):
            await storage.move(("default", "b"), ("acme/y", "b"), NOW)
        assert await version_of(storage, "b") == 1
        moved = await storage.move(("acme/x", "a"), ("acme/y", "a"), NOW)
        assert moved.version == 2

    async def test_a_rename_does_not_pass_a_quota(self, storage: Storage) -> None:
        await configure(storage, "acme", max_memories=2)
        await store(storage, "a", namespace="acme/x")
        await apply(storage, storing("b", namespace="b"), storing("c", namespace="b/c"))
        with pytest.raises(QuotaExceededError):
            await storage.rename_namespace("b", "acme/b", NOW)
        assert set(await all_names(storage)) == {"acme", "acme/x", "b", "b/c"}
        assert await storage.rename_namespace("acme/x", "acme/z", NOW) == 1
        await assert_clean(storage)

    async def test_stores_at_once_do_not_pass_a_quota_together(self, storage: Storage) -> None:
        await configure(storage, "acme", max_memories=10)
        stores = (store(storage, f"k{n}", namespace=f"acme/{n % 3}") for n in range(40))
        results = await asyncio.gather(*stores, return_exceptions=True)
        assert sum(isinstance(one, QuotaExceededError) for one in results) == 30
        assert len(await keys(storage, "acme")) == 10
