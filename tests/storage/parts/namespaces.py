"""Namespaces: made, listed, deleted, renamed."""

import pytest
from msgspec import UNSET, structs

from tests.storage.drafts import (
    NOW,
    apply,
    found,
    keys,
    selection,
    store,
    storing,
    version_of,
)
from tests.storage.parts.opened import LATER, NEIGHBOURS, Opened, all_names, all_sessions, assert_clean, configure
from unified_memory.model.errors import (
    AlreadyExistsError,
    InvalidInputError,
    NamespaceNotEmptyError,
    NamespaceNotFoundError,
    QuotaExceededError,
)
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.storage.base import (
    Access,
    Storage,
)


class NamespaceContract(Opened):
    """Namespaces: made, listed, renamed, deleted; their quotas."""

    async def test_a_missing_namespace_is_none(self, storage: Storage) -> None:
        await store(storage, "k", namespace="a/b/c")
        for name in ("a", "a/b", "a/b/c/d", "x"):
            assert await storage.get_namespace(name, NOW) is None, name

    async def test_a_namespace_tells_what_lies_in_it_and_below(self, storage: Storage) -> None:
        await store(storage, "k", "12345", namespace="acme")
        await store(storage, "k", "123", namespace="acme/x")
        await store(storage, "gone", "123", namespace="acme/x", expires_at=NOW)
        await store(storage, "k", "1", namespace="acme-corp")
        namespace = await storage.get_namespace("acme", NOW)
        assert namespace is not None
        assert (namespace.memories, namespace.bytes) == (1, 7)
        assert (namespace.total_memories, namespace.total_bytes) == (2, 12)
        assert namespace.namespaces == 1
        assert [namespace] == [
            one
            for one in (await storage.list_namespaces(("",), NOW, depth=None, limit=9, after=None)).items
            if one.name == "acme"
        ]

    async def test_a_created_namespace_is_explicit_and_keeps_its_settings(self, storage: Storage) -> None:
        config = NamespaceConfig(default_ttl=1.5, max_memories=3, description="ours")
        created = await storage.put_namespace("acme/web", config, NOW, create=True)
        assert (created.name, created.config, created.effective, created.explicit) == (
            "acme/web",
            config,
            config,
            True,
        )
        assert created.created_at == NOW
        assert await storage.get_namespace("acme/web", LATER) == created
        assert await all_names(storage) == ["acme/web"]

    async def test_creating_one_that_was_created_raises(self, storage: Storage) -> None:
        await configure(storage, "acme", max_memories=3)
        with pytest.raises(AlreadyExistsError):
            await configure(storage, "acme")
        namespace = await storage.get_namespace("acme", NOW)
        assert namespace is not None
        assert namespace.config == NamespaceConfig(max_memories=3)

    async def test_one_that_a_store_made_can_be_created_explicitly(self, storage: Storage) -> None:
        memory = await store(storage, "k", namespace="acme")
        created = await storage.put_namespace("acme", NamespaceConfig(max_bytes=99), LATER, create=True)
        assert (created.explicit, created.created_at, created.memories) == (True, NOW, 1)
        assert await storage.get("acme", "k", NOW) == memory

    async def test_settings_are_replaced_as_a_whole(self, storage: Storage) -> None:
        await configure(storage, "acme", max_memories=3, description="old")
        changed = await storage.put_namespace("acme", NamespaceConfig(default_ttl=None), LATER, create=False)
        assert changed.config == NamespaceConfig(default_ttl=None)
        assert (changed.explicit, changed.created_at) == (True, NOW)

    async def test_setting_one_that_a_store_made_makes_it_explicit(self, storage: Storage) -> None:
        await store(storage, "k", namespace="acme")
        assert (await storage.put_namespace("acme", NamespaceConfig(), NOW, create=False)).explicit

    async def test_setting_one_that_is_missing_raises(self, storage: Storage) -> None:
        await store(storage, "k", namespace="acme/x")
        for name in ("none", "acme"):
            with pytest.raises(NamespaceNotFoundError):
                await storage.put_namespace(name, NamespaceConfig(), NOW, create=False)
        assert await all_names(storage) == ["acme/x"]

    async def test_no_more_are_created_explicitly_than_the_limit(self, storage: Storage) -> None:
        await store(storage, "k", namespace="implicit")
        for name in ("a", "b"):
            await storage.put_namespace(name, NamespaceConfig(), NOW, create=True, limit=2)
        for name in ("c", "implicit"):
            with pytest.raises(QuotaExceededError) as refused:
                await storage.put_namespace(name, NamespaceConfig(), NOW, create=True, limit=2)
            assert refused.value.facts["limit"] == 2
        assert await all_names(storage) == ["a", "b", "implicit"]
        await storage.put_namespace("a", NamespaceConfig(max_memories=1), NOW, create=False, limit=2)
        await storage.put_namespace("c", NamespaceConfig(), NOW, create=True, limit=0)
        await storage.delete_namespace("a", NOW, recursive=False)
        await storage.put_namespace("d", NamespaceConfig(), NOW, create=True, limit=3)

    async def test_settings_are_inherited_from_the_nearest_that_sets_them(self, storage: Storage) -> None:
        await configure(storage, "a", default_ttl=60.0, max_memories=9, description="not inherited")
        await configure(storage, "a/b", max_memories=5)
        await configure(storage, "a/b/c/d", default_ttl=None)
        namespace = await storage.get_namespace("a/b/c/d", NOW)
        assert namespace is not None
        assert namespace.effective == NamespaceConfig(default_ttl=None, max_memories=5)
        assert namespace.config == NamespaceConfig(default_ttl=None)
        beside = await storage.put_namespace("ab", NamespaceConfig(), NOW, create=True)
        assert beside.effective == NamespaceConfig(max_bytes=UNSET)

    # ---- listing

    async def test_namespaces_are_listed_by_name_and_never_by_prefix(self, storage: Storage) -> None:
        names = ["acme", "acme/x", "acme/x/y", *NEIGHBOURS]
        for name in names:
            await store(storage, "k", namespace=name)
        assert await all_names(storage) == sorted(names)
        assert await all_names(storage, "acme") == ["acme", "acme/x", "acme/x/y"]
        assert await all_names(storage, "acme/x", "acme-corp") == [
            "acme-corp",
            "acme-corp/x",
            "acme/x",
            "acme/x/y",
        ]
        assert await all_names(storage, "a_me") == ["a_me"]
        assert await all_names(storage, "acme/z") == []

    async def test_namespaces_beyond_the_depth_are_folded_into_their_ancestor(self, storage: Storage) -> None:
        await store(storage, "k", "12", namespace="a/b/c")
        await store(storage, "l", "12", namespace="a/b/d/e", expires_at=LATER)
        await store(storage, "k", "12", namespace="a-b")
        await configure(storage, "x", description="own")
        page = await storage.list_namespaces(("",), NOW, depth=2, limit=9, after=None)
        told = [(one.name, one.memories, one.total_memories, one.total_bytes, one.explicit) for one in page.items]
        assert told == [("a-b", 1, 1, 4, False), ("a/b", 0, 2, 8, False), ("x", 0, 0, 0, True)]
        assert await all_names(storage, depth=1) == ["a", "a-b", "x"]
        page = await storage.list_namespaces(("",), LATER, depth=1, limit=1, after=None)
        assert [(one.name, one.total_memories) for one in page.items] == [("a", 1)]

    async def test_folding_shows_nothing_outside_of_the_scopes(self, storage: Storage) -> None:
        await store(storage, "k", namespace="acme/web/x")
        await store(storage, "secret", namespace="acme/other")
        page = await storage.list_namespaces(("acme/web",), NOW, depth=1, limit=9, after=None)
        for one in page.items:
            assert one.name == "acme/web" or one.name.startswith("acme/web/")
            assert one.total_memories <= 1

    async def test_pages_of_namespaces_follow_each_other(self, storage: Storage) -> None:
        names = [f"n{n}/{m}" for n in range(4) for m in range(3)]
        for name in names:
            await store(storage, "k", namespace=name)
        for depth, expected in ((None, names), (1, [f"n{n}" for n in range(4)])):
            seen: list[str] = []
            after: str | None = None
            while True:
                page = await storage.list_namespaces(("",), NOW, depth=depth, limit=2, after=after)
                seen += [one.name for one in page.items]
                if page.next is None:
                    break
                assert page.next == (page.items[-1].name, 0)
                after = str(page.next[0])
            assert seen == expected

    # ---- delete

    async def test_deleting_what_is_not_there_raises(self, storage: Storage) -> None:
        await store(storage, "k", namespace="acme-corp")
        for recursive in (False, True):
            with pytest.raises(NamespaceNotFoundError):
                await storage.delete_namespace("acme", NOW, recursive=recursive)

    async def test_one_that_holds_anything_is_not_deleted_unless_recursively(self, storage: Storage) -> None:
        await store(storage, "k", namespace="full")
        await configure(storage, "parent")
        await configure(storage, "parent/child")
        with pytest.raises(NamespaceNotEmptyError) as refused:
            await storage.delete_namespace("full", NOW, recursive=False)
        assert (refused.value.facts["memories"], refused.value.facts["namespaces"]) == (1, 0)
        with pytest.raises(NamespaceNotEmptyError) as refused:
            await storage.delete_namespace("parent", NOW, recursive=False)
        assert (refused.value.facts["memories"], refused.value.facts["namespaces"]) == (0, 1)
        assert await all_names(storage) == ["full", "parent", "parent/child"]
        assert await keys(storage) == ["k"]

    async def test_an_empty_one_is_deleted(self, storage: Storage) -> None:
        await configure(storage, "empty", max_memories=1)
        await store(storage, "k", namespace="expired", expires_at=LATER)
        await storage.delete_namespace("empty", NOW, recursive=False)
        await storage.delete_namespace("expired", LATER, recursive=False)
        assert await all_names(storage) == []

    async def test_deleting_takes_the_subtree_and_never_a_neighbour(self, storage: Storage) -> None:
        for name in ("acme", "acme/x", "acme/x/y", *NEIGHBOURS):
            await store(storage, name, namespace=name, session_id="s")
        await storage.delete_namespace("acme", NOW, recursive=True)
        assert await all_names(storage) == sorted(NEIGHBOURS)
        assert set(await keys(storage)) == set(NEIGHBOURS)
        assert {session.namespace for session in await all_sessions(storage)} == set(NEIGHBOURS)
        await assert_clean(storage)

    async def test_purge_removes_what_a_deleted_one_held_and_nothing_else(self, storage: Storage) -> None:
        for n in range(5):
            await store(storage, f"k{n}", namespace="acme")
            await store(storage, f"k{n}", namespace="acme/x")
        tickets = await storage.delete_namespace("acme", NOW, recursive=True)
        assert set(await storage.dead_namespaces()) <= set(tickets)
        assert await storage.dead_namespaces() != []
        new = await store(storage, "k0", "new", namespace="acme")
        purged = 0
        for ticket in tickets:
            while removed := await storage.purge(ticket, NOW, 2):
                assert removed <= 2
                purged += removed
            assert await storage.purge(ticket, NOW, 2) == 0
        assert purged == 10
        assert await storage.dead_namespaces() == []
        assert (await storage.select(selection(), NOW)).items == [new]
        await assert_clean(storage)

    async def test_an_interrupted_purge_can_go_on(self, storage: Storage) -> None:
        await apply(storage, *(storing(f"k{n}", namespace="acme") for n in range(3)))
        await storage.delete_namespace("acme", NOW, recursive=True)
        purged = 0
        for ticket in await storage.dead_namespaces():
            purged += await storage.purge(ticket, NOW, 2)
        for ticket in await storage.dead_namespaces():
            purged += await storage.purge(ticket, NOW, 2)
        assert purged == 3
        assert await storage.dead_namespaces() == []

    async def test_one_made_again_is_a_new_one(self, storage: Storage) -> None:
        await configure(storage, "acme", max_memories=1, description="old")
        await store(storage, "k", "old", namespace="acme", session_id="s")
        await storage.delete_namespace("acme", NOW, recursive=True)
        await apply(storage, storing("l", namespace="acme"), storing("m", namespace="acme"), now=LATER)
        namespace = await storage.get_namespace("acme", LATER)
        assert namespace is not None
        assert (namespace.created_at, namespace.explicit, namespace.config) == (
            LATER,
            False,
            NamespaceConfig(),
        )
        assert namespace.memories == 2
        assert await storage.get_session("acme", "s", NOW) is None

    async def test_many_generations_of_one_name_wait_for_purge_together(self, storage: Storage) -> None:
        for n in range(3):
            await store(storage, "k", n, namespace="acme")
            await storage.delete_namespace("acme", NOW, recursive=True)
        tickets = await storage.dead_namespaces()
        assert sum([await storage.purge(ticket, NOW, 10) for ticket in tickets]) == 3
        assert await storage.get("acme", "k", NOW) is None
        await assert_clean(storage)

    async def test_a_deleted_namespace_can_be_the_target_of_move_and_rename(self, storage: Storage) -> None:
        await store(storage, "k", "old", namespace="acme")
        await storage.delete_namespace("acme", NOW, recursive=True)
        await store(storage, "k", "new", namespace="source")
        await store(storage, "l", "new", namespace="source")
        moved = await storage.move(("source", "k"), ("acme", "k"), NOW)
        assert (await storage.get("acme", "k", NOW)) == moved
        await storage.delete_namespace("acme", NOW, recursive=True)
        assert await storage.rename_namespace("source", "acme", NOW) == 1
        assert await keys(storage, "acme") == ["l"]

    # ---- rename

    async def test_a_rename_moves_the_subtree_and_never_a_neighbour(self, storage: Storage) -> None:
        for name in ("acme", "acme/x", "acme/x/y", *NEIGHBOURS):
            await store(storage, name, namespace=name)
        assert await storage.rename_namespace("acme", "new/home", NOW) == 3
        assert await all_names(storage) == sorted(["new/home", "new/home/x", "new/home/x/y", *NEIGHBOURS])
        assert set(await keys(storage, "new")) == {"acme", "acme/x", "acme/x/y"}
        assert await keys(storage, "acme") == []
        await assert_clean(storage)

    async def test_renamed_memories_keep_everything_but_namespace_and_version(self, storage: Storage) -> None:
        old = await store(storage, "k", {"a": "needle"}, namespace="a/b", tags=("t",), expires_at=LATER, color="red")
        await storage.touch([Access(old.id, 4, NOW)])
        assert await storage.rename_namespace("a", "z", NOW) == 1
        new = await storage.get("z/b", "k", NOW)
        assert new is not None
        assert new == structs.replace(
            old,
            namespace="z/b",
            version=2,
            access_count=4,
            last_accessed=NOW,
            updated_at=new.updated_at,
            seq=new.seq,
        )
        assert new.seq > old.seq
        assert await found(storage, "needle", "z") == ["k"]
        assert await found(storage, "needle", "a") == []
        assert await keys(storage, "z", now=LATER) == []

    async def test_a_rename_takes_settings_and_sessions_along(self, storage: Storage) -> None:
        await configure(storage, "a", default_ttl=5.0)
        await configure(storage, "a/b", description="below")
        await store(storage, "k", namespace="a/b", session_id="s")
        await storage.rename_namespace("a", "z", LATER)
        for old, new in (("a", "z"), ("a/b", "z/b")):
            assert await storage.get_namespace(old, LATER) is None
            namespace = await storage.get_namespace(new, LATER)
            assert namespace is not None
            assert namespace.explicit
            assert namespace.effective.default_ttl == 5.0
        assert await storage.get_session("a/b", "s", NOW) is None
        session = await storage.get_session("z/b", "s", NOW)
        assert session is not None
        assert session.memories == 1

    async def test_renaming_what_is_not_there_raises(self, storage: Storage) -> None:
        await store(storage, "k", namespace="acme-corp")
        with pytest.raises(NamespaceNotFoundError):
            await storage.rename_namespace("acme", "new", NOW)

    async def test_renaming_to_what_is_there_raises_and_moves_nothing(self, storage: Storage) -> None:
        await store(storage, "k", namespace="a")
        await store(storage, "k", namespace="b")
        await store(storage, "k", namespace="c/below")
        for target in ("b", "c"):
            with pytest.raises(AlreadyExistsError):
                await storage.rename_namespace("a", target, NOW)
        assert await all_names(storage) == ["a", "b", "c/below"]
        assert await version_of(storage, "k", namespace="a") == 1

    async def test_renaming_into_itself_or_around_itself_raises(self, storage: Storage) -> None:
        await store(storage, "k", namespace="a/b")
        for source, target in (("a/b", "a/b/c"), ("a/b", "a"), ("a/b", "a/b")):
            with pytest.raises(InvalidInputError):
                await storage.rename_namespace(source, target, NOW)
        assert await storage.rename_namespace("a/b", "a/bb", NOW) == 1
