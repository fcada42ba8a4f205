"""What stays of versions that were replaced, and what does not."""

import pytest

from tests.storage.drafts import NOW, apply, failing, found, remove, removing, store, storing, version_of
from tests.storage.parts.opened import (
    LATER,
    LONG_AFTER,
    NEIGHBOURS,
    Opened,
    assert_clean,
    configure,
    former,
    versions_kept,
)
from unified_memory.model.clock import SECOND
from unified_memory.model.errors import MemoryNotFoundError, VersionGoneError
from unified_memory.model.memory import NO_ATTRIBUTES, Memory
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.session import WithMemories
from unified_memory.storage.base import Access, Code, Storage


def at(second: int) -> int:
    """So many seconds after NOW."""
    return NOW + second * SECOND


async def _three(storage: Storage, key: str = "k", namespace: str = "default") -> list[Memory]:
    """Versions 1, 2 and 3, of the seconds 0, 10 and 20."""
    return [
        await store(storage, key, f"word{n}", namespace=namespace, now=at(10 * n), tags=(f"t{n}",), n=n)
        for n in range(3)
    ]


async def _seen(
    storage: Storage, instant: int, *, key: str = "k", namespace: str = "default", now: int = LONG_AFTER
) -> int:
    """The version that was visible at the instant, 0 where none was."""
    memory = await storage.as_of(namespace, key, instant, now)
    return 0 if memory is None else memory.version


class PastContract(Opened):
    """`past` and `past_version`."""

    async def test_a_version_that_is_replaced_stands_in_the_past_as_it_was(self, storage: Storage) -> None:
        first, second, third = await _three(storage)
        row = await former(storage, "k", 1)
        assert (row.memory.value, row.memory.attributes) == (b'"word0"', first.attributes)
        assert (row.memory.id, row.memory.namespace, row.memory.key) == (first.id, "default", "k")
        assert (row.memory.version, row.memory.seq) == (1, first.seq)
        assert (row.memory.created_at, row.memory.updated_at, row.ended_at) == (NOW, NOW, at(10))
        assert (row.bytes, row.kept, row.redacted_at, row.touched) == (7, True, None, second.seq)
        assert (await former(storage, "k", 2)).touched == third.seq
        assert await storage.past_version("default", "k", 3, NOW) is None
        assert await storage.past_version("default", "other", 1, NOW) is None
        await assert_clean(storage)

    async def test_former_versions_are_listed_newest_first_without_their_contents(self, storage: Storage) -> None:
        await _three(storage)
        await store(storage, "k", "last", now=at(30))
        rows = await storage.past("default", "k", at(30), before=None, limit=9)
        assert [(row.memory.version, row.ended_at, row.bytes) for row in rows] == [
            (3, at(30), 7),
            (2, at(20), 7),
            (1, at(10), 7),
        ]
        assert {(row.memory.value, row.memory.attributes, row.kept) for row in rows} == {(b"", NO_ATTRIBUTES, True)}
        page = await storage.past("default", "k", at(30), before=3, limit=1)
        assert [row.memory.version for row in page] == [2]
        assert await storage.past("default", "k", at(30), before=1, limit=9) == []
        assert await storage.past("other", "k", at(30), before=None, limit=9) == []

    async def test_a_key_that_was_stored_once_has_no_past(self, storage: Storage) -> None:
        await store(storage, "k")
        assert await versions_kept(storage, "k") == []

    async def test_a_memory_that_is_deleted_stands_in_the_past_with_all_its_versions(self, storage: Storage) -> None:
        await _three(storage)
        await remove(storage, "k", now=at(30))
        assert await versions_kept(storage, "k") == [3, 2, 1]
        row = await former(storage, "k", 3)
        assert (row.memory.value, row.ended_at, row.touched) == (b'"word2"', at(30), await storage.last_seq())

    async def test_versions_and_the_past_go_on_where_a_deleted_key_is_stored_anew(self, storage: Storage) -> None:
        first, *_ = await _three(storage)
        await remove(storage, "k", now=at(30))
        again = await store(storage, "k", "again", now=at(40))
        assert again.version == 4
        await store(storage, "k", "once more", now=at(50))
        assert await versions_kept(storage, "k") == [4, 3, 2, 1]
        ids = [(await former(storage, "k", version)).memory.id for version in (1, 3, 4)]
        assert ids == [first.id, first.id, again.id]

    async def test_versions_of_one_unit_stand_in_the_past_each(self, storage: Storage) -> None:
        await apply(storage, storing("k", "a"), storing("k", "b"), storing("l"), removing("l"), storing("k", "c"))
        assert await versions_kept(storage, "k") == [2, 1]
        assert [(await former(storage, "k", version)).memory.value for version in (1, 2)] == [b'"a"', b'"b"']
        assert await versions_kept(storage, "l") == [1]
        await assert_clean(storage)

    async def test_a_unit_that_fails_leaves_nothing_in_the_past(self, storage: Storage) -> None:
        await store(storage, "k")
        with pytest.raises(MemoryNotFoundError):
            await apply(storage, storing("k", "new"), removing("k"), failing("x"))
        assert await versions_kept(storage, "k") == []

    async def test_access_data_belong_to_no_version(self, storage: Storage) -> None:
        memory = await store(storage, "k")
        await storage.touch([Access(memory.id, 3, LATER)])
        await store(storage, "k", now=at(10))
        row = await former(storage, "k", 1)
        assert (row.memory.access_count, row.memory.last_accessed) == (0, None)
        assert row.ended_at == at(10)

    async def test_the_past_is_not_found_and_not_counted(self, storage: Storage) -> None:
        await _three(storage)
        await remove(storage, "k", now=at(30))
        await store(storage, "l", "word0")
        assert await found(storage, "word1") == []
        stats = await storage.stats(("",), NOW, top=9)
        assert (stats.memories, stats.bytes_raw, stats.top_tags) == (1, 7, [])

    async def test_the_past_is_as_long_as_nobody_prunes_it(self, storage: Storage) -> None:
        for n in range(30):
            await store(storage, "k", n, now=at(86_400 * n))
        assert len(await versions_kept(storage, "k", now=at(86_400 * 90))) == 29

    async def test_values_of_every_size_come_back_from_the_past(self, storage: Storage) -> None:
        values = ["", "x" * 50_000, [{"n": n, "text": "some words " * 20} for n in range(200)], None, "ü" * 3000]
        for value in values:
            await store(storage, "k", value)
        await store(storage, "k", "now")
        rows = [await former(storage, "k", n + 1) for n in range(len(values))]
        assert [row.memory.parsed() for row in rows] == values
        assert [row.bytes for row in rows] == [len(row.memory.value) for row in rows]
        while await storage.shrink_past(2):
            pass
        assert [await former(storage, "k", n + 1) for n in range(len(values))] == rows
        await assert_clean(storage)

    # ---- what leaves nothing

    async def test_a_memory_that_expired_leaves_nothing(self, storage: Storage) -> None:
        for key in ("waiting", "cleaned", "anew"):
            await store(storage, key, 1)
            await store(storage, key, 2, expires_at=at(20), now=at(10))
            assert await versions_kept(storage, key, now=at(20) - 1) == [1]
            assert await versions_kept(storage, key, now=at(20)) == []
            assert await storage.past_version("default", key, 1, at(20)) is None
            assert await storage.as_of("default", key, NOW, at(20)) is None
            if key == "anew":
                await store(storage, key, 3, now=at(20))
            elif key == "cleaned":
                assert await storage.expire(at(20), 99) == [("default", 2)]
        assert await versions_kept(storage, "anew", now=at(20)) == []
        # Not even at an instant at which it had not.
        assert await versions_kept(storage, "cleaned") == []
        assert await versions_kept(storage, "anew") == []
        assert await version_of(storage, "anew", now=at(20)) == 3
        await assert_clean(storage)

    async def test_what_expired_takes_no_other_memory_of_its_key_along(self, storage: Storage) -> None:
        await store(storage, "k", 1)
        await remove(storage, "k", now=at(10))
        await store(storage, "k", 2, now=at(20))
        await store(storage, "k", 3, now=at(30), expires_at=at(40))
        assert await versions_kept(storage, "k", now=at(35)) == [2, 1]
        assert await versions_kept(storage, "k", now=at(40)) == [1]
        await storage.expire(at(40), 9)
        assert await versions_kept(storage, "k", now=at(40)) == [1]

    async def test_memories_that_a_session_takes_along_stand_in_the_past_or_leave_nothing(
        self, storage: Storage
    ) -> None:
        for session in ("deleted", "expired"):
            await store(storage, session, 1, session_id=session)
            await store(storage, session, 2, session_id=session)
        await storage.end_session("default", "deleted", WithMemories.DELETE, LATER)
        await storage.end_session("default", "expired", WithMemories.EXPIRE, LATER)
        assert await versions_kept(storage, "deleted", now=LATER) == [2, 1]
        assert await versions_kept(storage, "expired", now=LATER) == []
        await storage.expire(LATER, 99)
        assert await versions_kept(storage, "expired") == []

    async def test_a_deleted_namespace_leaves_nothing(self, storage: Storage) -> None:
        for namespace in ("a", "a/b", "ab"):
            await _three(storage, namespace=namespace)
            await store(storage, "removed", namespace=namespace)
            await remove(storage, "removed", namespace=namespace)
        await storage.delete_namespace("a", at(30), recursive=True)
        for namespace in ("a", "a/b"):
            for key in ("k", "removed"):
                assert await versions_kept(storage, key, namespace=namespace) == []
                assert await storage.past_version(namespace, key, 1, NOW) is None
                assert await storage.as_of(namespace, key, NOW, at(30)) is None
        assert await versions_kept(storage, "k", namespace="ab") == [2, 1]
        await store(storage, "k", namespace="a", now=at(40))
        again = await store(storage, "k", namespace="a", now=at(50))
        assert await versions_kept(storage, "k", namespace="a") == [again.version - 1]
        for ticket in await storage.dead_namespaces():
            while await storage.purge(ticket, NOW, 1):
                pass
        assert await versions_kept(storage, "k", namespace="a") == [again.version - 1]
        await assert_clean(storage)

    # ---- the settings

    async def test_a_namespace_may_keep_nothing(self, storage: Storage) -> None:
        await configure(storage, "none", history_keep=0)
        await configure(storage, "never", history_days=0)
        await configure(storage, "none/more", history_keep=5)
        for namespace in ("none", "none/x", "never", "none/more", "some"):
            await _three(storage, namespace=namespace)
            await remove(storage, "k", namespace=namespace)
        kept = {one: await versions_kept(storage, "k", namespace=one) for one in ("none", "none/x", "never")}
        assert kept == {"none": [], "none/x": [], "never": []}
        assert await versions_kept(storage, "k", namespace="none/more") == [3, 2, 1]
        assert await versions_kept(storage, "k", namespace="some") == [3, 2, 1]

    async def test_no_limit_keeps_everything(self, storage: Storage) -> None:
        await configure(storage, "all", history_keep=None, history_days=None)
        await _three(storage, namespace="all")
        assert await versions_kept(storage, "k", namespace="all") == [2, 1]

    async def test_the_settings_count_that_hold_when_a_version_is_replaced(self, storage: Storage) -> None:
        await _three(storage, namespace="n")
        await storage.put_namespace("n", NamespaceConfig(history_keep=0), NOW, create=False)
        await store(storage, "k", 4, namespace="n")
        assert await versions_kept(storage, "k", namespace="n") == [2, 1]
        await storage.put_namespace("n", NamespaceConfig(), NOW, create=False)
        await store(storage, "k", 5, namespace="n")
        assert await versions_kept(storage, "k", namespace="n") == [4, 2, 1]

    # ---- moved

    async def test_a_move_takes_the_past_along(self, storage: Storage) -> None:
        await _three(storage)
        moved = await storage.move(("default", "k"), ("default", "l"), at(30))
        assert await versions_kept(storage, "k") == []
        assert await versions_kept(storage, "l") == [3, 2, 1]
        rows = [await former(storage, "l", version) for version in (3, 1)]
        assert [(row.memory.value, row.ended_at) for row in rows] == [(b'"word2"', at(30)), (b'"word0"', at(10))]
        assert {(row.memory.id, row.memory.namespace, row.memory.key) for row in rows} == {(moved.id, "default", "l")}
        assert all(moved.seq - 1 <= row.touched <= moved.seq for row in rows)
        assert (await store(storage, "k")).version > 3
        await assert_clean(storage)

    async def test_a_move_into_another_namespace_leaves_the_past_where_it_was(self, storage: Storage) -> None:
        await _three(storage)
        moved = await storage.move(("default", "k"), ("n", "l"), at(30))
        assert await versions_kept(storage, "k") == [3, 2, 1]
        assert (await former(storage, "k", 3)).ended_at == at(30)
        assert await versions_kept(storage, "l", namespace="n") == []
        with pytest.raises(VersionGoneError):
            await storage.as_of("n", "l", at(25), at(40))
        assert await _seen(storage, at(25)) == 3
        await store(storage, "l", namespace="n", now=at(50))
        assert await versions_kept(storage, "l", namespace="n") == [moved.version]
        await assert_clean(storage)

    async def test_a_move_leaves_the_past_where_the_target_has_its_own(self, storage: Storage) -> None:
        await _three(storage)
        await store(storage, "l", "other")
        await remove(storage, "l", now=at(10))
        await storage.move(("default", "k"), ("default", "l"), at(30))
        assert await versions_kept(storage, "k") == [3, 2, 1]
        assert await versions_kept(storage, "l") == [1]
        assert (await former(storage, "l", 1)).memory.value == b'"other"'
        assert (await former(storage, "k", 3)).ended_at == at(30)

    async def test_what_expired_at_the_target_of_a_move_is_no_past_of_it(self, storage: Storage) -> None:
        await _three(storage)
        await store(storage, "l", "other")
        await store(storage, "l", "other", expires_at=LATER)
        await storage.move(("default", "k"), ("default", "l"), at(30))
        assert await versions_kept(storage, "l") == [3, 2, 1]

    async def test_a_move_out_of_a_namespace_that_keeps_nothing_leaves_nothing(self, storage: Storage) -> None:
        await configure(storage, "none", history_keep=0)
        await store(storage, "k", namespace="none")
        await storage.move(("none", "k"), ("default", "k"), NOW)
        assert await versions_kept(storage, "k") == []
        await storage.move(("default", "k"), ("none", "k"), NOW)
        assert await versions_kept(storage, "k") == [2]
        assert await versions_kept(storage, "k", namespace="none") == []

    async def test_a_memory_that_expires_after_a_move_leaves_nothing_under_either_key(self, storage: Storage) -> None:
        await store(storage, "l", "other")
        await remove(storage, "l")
        await store(storage, "k", 1, expires_at=at(20))
        await store(storage, "k", 2, expires_at=at(20))
        await storage.move(("default", "k"), ("default", "l"), NOW)
        assert await versions_kept(storage, "k", now=at(20) - 1) == [2, 1]
        assert await versions_kept(storage, "k", now=at(20)) == []
        assert await versions_kept(storage, "l", now=at(20)) == [1]

    async def test_a_namespace_that_is_renamed_takes_the_past_along(self, storage: Storage) -> None:
        for namespace in ("a", "a/x"):
            await _three(storage, namespace=namespace)
        await _three(storage, "removed", namespace="a/x")
        await remove(storage, "removed", namespace="a/x", now=at(30))
        await storage.rename_namespace("a", "b", at(40))
        for namespace in ("b", "b/x"):
            assert await versions_kept(storage, "k", namespace=namespace) == [3, 2, 1]
            assert (await former(storage, "k", 1, namespace=namespace)).memory.namespace == namespace
        assert await versions_kept(storage, "k", namespace="a/x") == []
        assert await versions_kept(storage, "removed", namespace="b/x") == [3, 2, 1]
        again = await store(storage, "removed", namespace="b/x", now=at(50))
        assert again.version > 3
        await remove(storage, "removed", namespace="b/x", now=at(60))
        assert await versions_kept(storage, "removed", namespace="b/x") == [again.version, 3, 2, 1]
        await assert_clean(storage)

    # ---- pruned
    async def test_that_a_version_was_redacted_is_never_forgotten(self, storage: Storage) -> None:
        for _ in range(4):
            await store(storage, "k")
        await storage.redact("default", "k", 2, NOW)
        assert await storage.prune_past(("",), recursive=True, keep=0, before=NOW + 1, limit=99) == 2
        left = await storage.past("default", "k", NOW, before=None, limit=9)
        assert [(one.memory.version, one.kept, one.redacted_at) for one in left] == [(2, False, NOW)]

    async def test_pruning_keeps_the_newest_of_each_key(self, storage: Storage) -> None:
        for key in ("k", "l"):
            for n in range(6):
                await store(storage, key, n)
        await remove(storage, "l")
        assert await storage.prune_past(("",), recursive=True, keep=2, before=None, limit=99) == 3 + 4
        assert await versions_kept(storage, "k") == [5, 4]
        assert await versions_kept(storage, "l") == [6, 5]
        assert await storage.past_version("default", "k", 3, NOW) is None
        assert await storage.prune_past(("",), recursive=True, keep=2, before=None, limit=99) == 0
        assert await storage.prune_past(("",), recursive=True, keep=0, before=None, limit=99) == 4
        assert await versions_kept(storage, "k") == []
        assert await version_of(storage, "k") == 6
        await assert_clean(storage)

    async def test_pruning_forgets_what_was_replaced_before_an_instant(self, storage: Storage) -> None:
        await _three(storage)
        await store(storage, "k", now=at(30))
        assert await storage.prune_past(("",), recursive=True, keep=None, before=at(20), limit=99) == 1
        assert await versions_kept(storage, "k") == [3, 2]
        assert await storage.prune_past(("",), recursive=True, keep=None, before=at(20) + 1, limit=99) == 1
        assert await storage.prune_past(("",), recursive=True, keep=None, before=None, limit=99) == 0
        assert await versions_kept(storage, "k") == [3]

    async def test_pruning_goes_in_steps(self, storage: Storage) -> None:
        for key in ("k", "l"):
            for n in range(5):
                await store(storage, key, n)
        steps = [await storage.prune_past(("",), recursive=True, keep=1, before=None, limit=4) for _ in range(3)]
        assert steps == [4, 2, 0]
        assert [await versions_kept(storage, key) for key in ("k", "l")] == [[4], [4]]

    async def test_pruning_stays_in_its_namespaces(self, storage: Storage) -> None:
        names = ("acme", "acme/web", *NEIGHBOURS)
        for name in names:
            await store(storage, "k", namespace=name)
            await store(storage, "k", namespace=name)
        assert await storage.prune_past(("acme",), recursive=False, keep=0, before=None, limit=99) == 1
        assert await storage.prune_past((), recursive=True, keep=0, before=None, limit=99) == 0
        assert await storage.prune_past(("acme",), recursive=True, keep=0, before=None, limit=99) == 1
        left = [name for name in names if await versions_kept(storage, "k", namespace=name)]
        assert left == list(NEIGHBOURS)

    async def test_versions_go_on_after_the_past_was_pruned(self, storage: Storage) -> None:
        await _three(storage)
        await remove(storage, "k")
        await storage.prune_past(("",), recursive=True, keep=0, before=None, limit=99)
        assert (await store(storage, "k")).version == 4


class AsOfContract(Opened):
    """`as_of`."""

    async def test_each_version_was_visible_from_its_writing_until_it_was_replaced(self, storage: Storage) -> None:
        *_, third = await _three(storage)
        instants = (NOW - 1, NOW, at(10) - 1, at(10), at(20) - 1, at(20), at(900))
        assert [await _seen(storage, instant) for instant in instants] == [0, 1, 1, 2, 2, 3, 3]
        memory = await storage.as_of("default", "k", at(5), LONG_AFTER)
        assert memory is not None
        assert (memory.value, memory.tags, memory.updated_at) == (b'"word0"', ("t0",), NOW)
        await storage.touch([Access(third.id, 1, at(25))])
        assert await storage.as_of("default", "k", at(20), at(30)) == await storage.get("default", "k", at(30))
        assert await storage.as_of("default", "other", at(20), at(30)) is None

    async def test_nothing_was_visible_while_a_key_had_no_memory(self, storage: Storage) -> None:
        await _three(storage)
        await remove(storage, "k", now=at(30))
        await store(storage, "k", "again", now=at(40))
        instants = (at(30) - 1, at(30), at(40) - 1, at(40))
        assert [await _seen(storage, instant) for instant in instants] == [3, 0, 0, 4]
        await remove(storage, "k", now=at(50))
        assert [await _seen(storage, instant) for instant in (at(5), at(45), at(50))] == [1, 4, 0]

    async def test_nothing_was_visible_of_what_has_expired_since(self, storage: Storage) -> None:
        await store(storage, "k", 1)
        await store(storage, "k", 2, now=at(10), expires_at=at(20))
        assert await _seen(storage, at(5), now=at(20) - 1) == 1
        assert await _seen(storage, at(15), now=at(20) - 1) == 2
        assert [await _seen(storage, at(second), now=at(20)) for second in (5, 15)] == [0, 0]

    async def test_an_expiry_that_was_prolonged_does_not_count(self, storage: Storage) -> None:
        await store(storage, "k", 1, expires_at=at(20))
        await store(storage, "k", 2, now=at(10))
        assert [await _seen(storage, at(second)) for second in (5, 15, 25)] == [1, 2, 2]

    async def test_a_version_that_is_no_longer_kept_is_told_as_gone(self, storage: Storage) -> None:
        await _three(storage)
        await storage.prune_past(("",), recursive=True, keep=1, before=None, limit=9)
        with pytest.raises(VersionGoneError):
            await storage.as_of("default", "k", at(5), LONG_AFTER)
        assert [await _seen(storage, instant) for instant in (NOW - 1, at(15), at(25))] == [0, 2, 3]
        await storage.prune_past(("",), recursive=True, keep=0, before=None, limit=9)
        with pytest.raises(VersionGoneError) as gone:
            await storage.as_of("default", "k", at(15), LONG_AFTER)
        assert (gone.value.facts["namespace"], gone.value.facts["key"]) == ("default", "k")

    async def test_a_version_that_was_never_kept_is_told_as_gone(self, storage: Storage) -> None:
        await configure(storage, "none", history_keep=0)
        await _three(storage, namespace="none")
        with pytest.raises(VersionGoneError):
            await storage.as_of("none", "k", at(15), LONG_AFTER)
        assert await _seen(storage, at(25), namespace="none") == 3

    async def test_the_past_that_a_move_took_along_is_told_under_the_new_key(self, storage: Storage) -> None:
        await _three(storage)
        moved = await storage.move(("default", "k"), ("default", "l"), at(30))
        assert [await _seen(storage, at(second), key="l") for second in (5, 25, 35)] == [1, 3, moved.version]


class RedactContract(Opened):
    """`redact`."""

    async def test_the_content_of_a_version_is_gone_and_that_there_was_one_stays(self, storage: Storage) -> None:
        first, *_ = await _three(storage)
        redacted = await storage.redact("default", "k", 2, at(30))
        assert (redacted.versions, redacted.ids) == ([2], [first.id])
        row = await former(storage, "k", 2)
        assert (row.kept, row.redacted_at, row.bytes) == (False, at(30), 7)
        assert (row.memory.value, row.memory.attributes, row.memory.updated_at) == (b"", NO_ATTRIBUTES, at(10))
        assert (row.ended_at, row.touched) == (at(20), await storage.last_seq())
        listed = await storage.past("default", "k", at(30), before=None, limit=9)
        assert [(one.memory.version, one.kept, one.redacted_at) for one in listed] == [
            (2, False, at(30)),
            (1, True, None),
        ]
        assert (await former(storage, "k", 1)).memory.value == b'"word0"'
        assert await version_of(storage, "k") == 3
        while await storage.shrink_past(9):
            pass
        await storage.forget()
        assert (await former(storage, "k", 1)).memory.value == b'"word0"'
        await assert_clean(storage)

    async def test_what_was_visible_at_an_instant_is_gone_where_it_was_redacted(self, storage: Storage) -> None:
        await _three(storage)
        await storage.redact("default", "k", 2, at(30))
        with pytest.raises(VersionGoneError) as gone:
            await storage.as_of("default", "k", at(15), LONG_AFTER)
        assert gone.value.facts["version"] == 2
        assert "redacted" in str(gone.value)
        assert [await _seen(storage, at(second)) for second in (5, 25)] == [1, 3]

    async def test_the_current_version_is_removed_where_it_is_named(self, storage: Storage) -> None:
        *_, third = await _three(storage)
        redacted = await storage.redact("default", "k", 3, at(30))
        assert (redacted.versions, redacted.ids) == ([3], [third.id])
        assert await storage.get("default", "k", at(30)) is None
        assert await found(storage, "word2") == []
        assert await versions_kept(storage, "k") == [3, 2, 1]
        row = await former(storage, "k", 3)
        assert (row.kept, row.redacted_at, row.ended_at, row.memory.value) == (False, at(30), at(30), b"")
        assert (await former(storage, "k", 2)).memory.value == b'"word1"'
        assert [await _seen(storage, at(second)) for second in (15, 35)] == [2, 0]
        with pytest.raises(VersionGoneError):
            await storage.as_of("default", "k", at(25), LONG_AFTER)
        assert (await store(storage, "k", now=at(40))).version == 4
        await assert_clean(storage)

    async def test_all_versions_are_redacted_where_none_is_named(self, storage: Storage) -> None:
        first, *_ = await _three(storage)
        await remove(storage, "k", now=at(30))
        again = await store(storage, "k", "again", now=at(40))
        redacted = await storage.redact("default", "k", None, at(50))
        assert (sorted(redacted.versions), sorted(redacted.ids)) == ([1, 2, 3, 4], [first.id, again.id])
        assert await storage.get("default", "k", at(50)) is None
        rows = [await former(storage, "k", version) for version in (1, 2, 3, 4)]
        assert {(row.kept, row.redacted_at, row.memory.value) for row in rows} == {(False, at(50), b"")}
        await storage.redact("default", "k", None, at(60))
        assert [(await former(storage, "k", version)).kept for version in (1, 4)] == [False, False]

    async def test_a_version_can_be_redacted_after_its_memory_was_deleted(self, storage: Storage) -> None:
        await _three(storage)
        await remove(storage, "k", now=at(30))
        assert (await storage.redact("default", "k", 3, at(40))).versions == [3]
        assert (await former(storage, "k", 3)).kept is False
        assert (await former(storage, "k", 2)).kept is True

    async def test_a_version_that_never_was_cannot_be_redacted(self, storage: Storage) -> None:
        await _three(storage)
        await store(storage, "expired", expires_at=LATER)
        for key, version in (("k", 4), ("k", 0), ("other", None), ("other", 1), ("expired", None), ("expired", 1)):
            seq = await storage.last_seq()
            with pytest.raises(MemoryNotFoundError):
                await storage.redact("default", key, version, at(30))
            assert await storage.last_seq() == seq
        assert await version_of(storage, "k") == 3

    async def test_that_there_was_a_version_stays_where_nothing_is_kept(self, storage: Storage) -> None:
        await configure(storage, "none", history_keep=0)
        await _three(storage, namespace="none")
        await storage.redact("none", "k", 3, at(30))
        assert await versions_kept(storage, "k", namespace="none") == [3]
        assert (await former(storage, "k", 3, namespace="none")).kept is False

    async def test_redacting_is_a_change_and_takes_the_vector_along(self, storage: Storage) -> None:
        memory = await store(storage, "k", session_id="s")
        await storage.put_vectors("m", [Code(memory.id, memory.seq, b"1234")])
        seq = await storage.last_seq()
        await storage.redact("default", "k", None, LATER)
        (change,) = await storage.changes(seq, 9)
        assert (change.key, change.version, change.deleted) == ("k", 1, True)
        assert await storage.get_by_id([memory.id], LATER) == [None]
        assert await storage.with_vectors("m", [memory.id], LATER) == set()
        assert (
            await storage.vector_news("m", ("",), recursive=True, after_place=0, after_seq=seq, limit=9)
        ).vectors == []
        session = await storage.get_session("default", "s", LATER)
        assert session is not None
        assert session.memories == 0

    async def test_redacting_works_while_writes_are_off(self, storage: Storage) -> None:
        await _three(storage)
        await storage.set_read_only("closed")
        assert (await storage.redact("default", "k", 1, at(30))).versions == [1]
        assert (await storage.redact("default", "k", None, at(30))).versions == [1, 2, 3]
