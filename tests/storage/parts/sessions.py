"""Sessions and their memories."""

from typing import Any

import pytest

from tests.storage.drafts import (
    NOW,
    apply,
    keeping,
    keys,
    remove,
    removing,
    store,
    storing,
)
from tests.storage.parts.opened import LATER, LONG_AFTER, NEIGHBOURS, Opened, all_names, all_sessions, assert_clean
from unified_memory.model.clock import SECOND
from unified_memory.model.errors import (
    SessionNotFoundError,
)
from unified_memory.model.session import Session, WithMemories
from unified_memory.storage.base import (
    Storage,
)


def _session(session_id: str, namespace: str = "default", **facts: Any) -> Session:
    defaults: dict[str, Any] = {
        "cluster_id": None,
        "project_id": None,
        "ttl": None,
        "metadata": b"{}",
        "created_at": NOW,
        "last_used": NOW,
        "expires_at": None,
    }
    return Session(session_id, namespace, **{**defaults, **facts})


class SessionContract(Opened):
    """Sessions, and what they do to their memories."""

    async def test_a_store_creates_its_session(self, storage: Storage) -> None:
        assert await storage.get_session("default", "s", NOW) is None
        await store(storage, "k", session_id="s")
        session = await storage.get_session("default", "s", NOW)
        assert session is not None
        assert (session.id, session.namespace, session.memories) == ("s", "default", 1)
        assert (session.created_at, session.last_used, session.expires_at) == (NOW, NOW, None)
        assert (session.ttl, session.cluster_id, session.ended_at) == (None, None, None)
        assert session.metadata == b"{}"

    async def test_a_session_is_kept_as_it_was_put(self, storage: Storage) -> None:
        new = _session(
            "s",
            "acme/web",
            cluster_id="c",
            project_id="p",
            ttl=1.5,
            metadata=b'{"a":1.50}',
            expires_at=NOW + 1_500_000,
        )
        assert await storage.put_session(new) == new
        assert await storage.get_session("acme/web", "s", NOW) == new
        assert await all_names(storage) == ["acme/web"]

    async def test_a_session_put_again_keeps_when_it_was_created(self, storage: Storage) -> None:
        await storage.put_session(
            _session("s", cluster_id="old", ttl=5.0, expires_at=NOW + 5 * SECOND, metadata=b'{"a":1}')
        )
        await store(storage, "k", session_id="s")
        put = await storage.put_session(_session("s", cluster_id="new", created_at=LATER, last_used=LATER))
        assert put == _session("s", cluster_id="new", last_used=LATER, memories=1)
        assert await storage.get_session("default", "s", NOW) == put

    async def test_a_store_slides_the_ttl_of_its_session(self, storage: Storage) -> None:
        await storage.put_session(_session("s", ttl=60.0, expires_at=NOW + 60 * SECOND))
        await store(storage, "k", session_id="s", now=NOW + 30 * SECOND)
        session = await storage.get_session("default", "s", NOW)
        assert session is not None
        assert (session.last_used, session.expires_at) == (NOW + 30 * SECOND, NOW + 90 * SECOND)
        assert session.created_at == NOW

    async def test_a_session_that_has_ended_keeps_the_time_of_its_end(self, storage: Storage) -> None:
        await storage.put_session(_session("s"))
        await storage.end_session("default", "s", WithMemories.KEEP, NOW)
        ended, _ = await storage.end_session("default", "s", WithMemories.KEEP, LATER)
        assert ended.ended_at == NOW

    async def test_a_cluster_is_one_namespaces_own(self, storage: Storage) -> None:
        for namespace in ("acme", "other"):
            await storage.put_session(_session(namespace, namespace=namespace, cluster_id="c"))
        assert await storage.cluster_sessions("acme", "c") == ["acme"]

    async def test_a_store_reopens_a_session_that_ended_or_expired(self, storage: Storage) -> None:
        await storage.put_session(_session("ended"))
        await storage.put_session(_session("expired", ttl=1.0, expires_at=LATER))
        await storage.end_session("default", "ended", WithMemories.KEEP, NOW)
        assert await all_sessions(storage, active=True, now=LATER) == []
        await apply(storage, storing("a", session_id="ended"), storing("b", session_id="expired"), now=LATER)
        active = await all_sessions(storage, active=True, now=LATER)
        assert {session.id: session.expires_at for session in active} == {
            "ended": None,
            "expired": LATER + SECOND,
        }
        assert {session.ended_at for session in active} == {None}

    async def test_touching_slides_active_sessions_only(self, storage: Storage) -> None:
        for name in ("a", "b", "ended"):
            await storage.put_session(_session(name, ttl=1.0, expires_at=LATER))
        await storage.end_session("default", "ended", WithMemories.KEEP, NOW)
        refs = [("default", "a"), ("default", "ended"), ("default", "none"), ("other", "b")]
        await storage.touch_sessions(refs, LATER - 1)
        a, b, ended = [await storage.get_session("default", name, NOW) for name in ("a", "b", "ended")]
        assert a is not None
        assert b is not None
        assert ended is not None
        assert (a.last_used, a.expires_at) == (LATER - 1, LATER - 1 + SECOND)
        assert (b.last_used, b.expires_at) == (NOW, LATER)
        assert (ended.last_used, ended.expires_at) == (NOW, LATER)
        await storage.touch_sessions([("default", "b")], LATER)
        assert await storage.get_session("default", "b", NOW) == b
        assert await storage.get_session("default", "none", NOW) is None

    async def test_equal_ids_in_two_namespaces_share_nothing(self, storage: Storage) -> None:
        await storage.put_session(_session("1", "acme", cluster_id="c", ttl=1.0, expires_at=LATER))
        await store(storage, "k", namespace="acme", session_id="1")
        await store(storage, "k", namespace="acme-corp", session_id="1")
        await store(storage, "l", namespace="acme-corp", session_id="1")
        ours, theirs = await storage.get_session("acme", "1", NOW), await storage.get_session("acme-corp", "1", NOW)
        assert ours is not None
        assert theirs is not None
        assert (ours.memories, ours.cluster_id, ours.ttl) == (1, "c", 1.0)
        assert (theirs.memories, theirs.cluster_id, theirs.ttl) == (2, None, None)
        assert await storage.cluster_sessions("acme-corp", "c") == []
        _, affected = await storage.end_session("acme", "1", WithMemories.DELETE, NOW)
        assert affected == 1
        assert sorted(await keys(storage)) == ["k", "l"]
        theirs = await storage.get_session("acme-corp", "1", NOW)
        assert theirs is not None
        assert theirs.ended_at is None

    async def test_memories_count_for_the_session_that_they_name_now(self, storage: Storage) -> None:
        await store(storage, "k", session_id="old")
        await store(storage, "k", session_id="new")
        await store(storage, "l", session_id="new")
        await remove(storage, "l")
        assert {one.id: one.memories for one in await all_sessions(storage)} == {"old": 0, "new": 1}

    async def test_a_cluster_is_the_sessions_that_share_it_in_a_namespace(self, storage: Storage) -> None:
        for name, namespace, cluster in (
            ("a", "acme", "c"),
            ("b", "acme", "c"),
            ("x", "acme", "other"),
            ("y", "acme", None),
            ("z", "acme/x", "c"),
            ("a", "acme-corp", "c"),
        ):
            await storage.put_session(_session(name, namespace, cluster_id=cluster))
        assert sorted(await storage.cluster_sessions("acme", "c")) == ["a", "b"]
        assert await storage.cluster_sessions("acme", "none") == []
        assert {(one.namespace, one.id) for one in await all_sessions(storage, "acme", cluster_id="c")} == {
            ("acme", "a"),
            ("acme", "b"),
            ("acme/x", "z"),
        }

    # ---- listing

    async def test_sessions_are_listed_by_last_use_newest_first(self, storage: Storage) -> None:
        for n, name in enumerate(("a", "b", "c")):
            await storage.put_session(_session(name, last_used=NOW + n))
        await store(storage, "k", session_id="a", now=LATER)
        assert [session.id for session in await all_sessions(storage, now=LATER)] == ["a", "c", "b"]

    async def test_sessions_are_listed_by_subtree_and_never_by_prefix(self, storage: Storage) -> None:
        for name in ("acme", "acme/x", *NEIGHBOURS):
            await storage.put_session(_session("s", name))
        assert {session.namespace for session in await all_sessions(storage, "acme")} == {"acme", "acme/x"}
        assert {session.namespace for session in await all_sessions(storage, "acme", recursive=False)} == {"acme"}
        assert len(await all_sessions(storage)) == 2 + len(NEIGHBOURS)
        assert len(await all_sessions(storage, "acme", "acme/x")) == 2

    async def test_sessions_are_active_until_they_end_or_expire(self, storage: Storage) -> None:
        await storage.put_session(_session("open"))
        await storage.put_session(_session("ended"))
        await storage.put_session(_session("expiring", ttl=1.0, expires_at=LATER))
        await storage.end_session("default", "ended", WithMemories.KEEP, NOW)
        assert {one.id for one in await all_sessions(storage, active=True, now=LATER - 1)} == {
            "open",
            "expiring",
        }
        assert {one.id for one in await all_sessions(storage, active=True, now=LATER)} == {"open"}
        assert {one.id for one in await all_sessions(storage, active=False, now=LATER)} == {"ended", "expiring"}
        assert len(await all_sessions(storage, now=LATER)) == 3

    async def test_pages_of_sessions_follow_each_other(self, storage: Storage) -> None:
        for n in range(7):
            await storage.put_session(_session(f"s{n}", f"n{n % 2}", last_used=NOW + n // 3))
        everything = [session.id for session in await all_sessions(storage)]
        seen: list[str] = []
        after = None
        while True:
            page = await storage.list_sessions(
                ("",), NOW, recursive=True, cluster_id=None, active=None, limit=2, after=after
            )
            seen += [session.id for session in page.items]
            after = page.next
            if after is None:
                break
        assert seen == everything
        assert len(set(seen)) == 7

    # ---- ending

    async def test_ending_a_session_keeps_its_memories_where_so_asked(self, storage: Storage) -> None:
        memory = await store(storage, "k", session_id="s", expires_at=LONG_AFTER)
        session, affected = await storage.end_session("default", "s", WithMemories.KEEP, LATER)
        assert (session.ended_at, affected) == (LATER, 0)
        assert await storage.get("default", "k", LATER) == memory
        assert await storage.get_session("default", "s", NOW) == session

    async def test_ending_a_session_deletes_its_memories_where_so_asked(self, storage: Storage) -> None:
        await apply(storage, storing("a", session_id="s"), storing("b", session_id="s"), storing("c", session_id="t"))
        session, affected = await storage.end_session("default", "s", WithMemories.DELETE, LATER)
        assert (session.ended_at, affected, session.memories) == (LATER, 2, 0)
        assert await keys(storage, now=LATER) == ["c"]
        assert (await storage.stats(("",), LATER, top=1)).expired == 0
        assert (await store(storage, "a", now=LATER)).version == 2
        await assert_clean(storage)

    async def test_ending_a_session_expires_its_memories_where_so_asked(self, storage: Storage) -> None:
        await apply(storage, storing("a", session_id="s"), storing("c", session_id="t"))
        await store(storage, "b", session_id="s", expires_at=LONG_AFTER)
        session, affected = await storage.end_session("default", "s", WithMemories.EXPIRE, LATER)
        assert (session.ended_at, affected) == (LATER, 2)
        assert await keys(storage, now=LATER) == ["c"]
        assert (await storage.stats(("",), LATER, top=1)).expired == 2
        assert await storage.expire(LATER, 10) == [("default", 2)]
        await assert_clean(storage)

    async def test_ending_a_session_that_is_not_there_raises(self, storage: Storage) -> None:
        await storage.put_session(_session("s", "other"))
        with pytest.raises(SessionNotFoundError):
            await storage.end_session("default", "s", WithMemories.KEEP, NOW)

    async def test_an_expired_session_stays_listed_until_its_last_memory_is_gone(self, storage: Storage) -> None:
        await storage.put_session(_session("s", ttl=1.0, expires_at=LATER))
        await storage.put_session(_session("empty", ttl=1.0, expires_at=LATER))
        await storage.put_session(_session("lasting"))
        await store(storage, "k", session_id="s", expires_at=LONG_AFTER)
        expired_at = NOW + 2 * SECOND
        await storage.expire(expired_at, 10)
        assert {session.id for session in await all_sessions(storage, now=expired_at)} == {"s", "lasting"}
        assert await keys(storage, now=expired_at) == ["k"]
        await remove(storage, "k", now=expired_at)
        await storage.expire(expired_at, 10)
        assert {session.id for session in await all_sessions(storage, now=expired_at)} == {"lasting"}

    async def test_removing_and_keeping_create_and_slide_no_session(self, storage: Storage) -> None:
        await store(storage, "k", session_id="s")
        await apply(storage, keeping("k"), removing("k"), now=LATER)
        session = await storage.get_session("default", "s", NOW)
        assert session is not None
        assert session.last_used == NOW
