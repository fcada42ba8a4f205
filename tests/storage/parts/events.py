"""The feed: everything that happened, in the commit order."""

import asyncio

import pytest

from tests.storage.drafts import NOW, apply, failing, keeping, remove, removing, store, storing
from tests.storage.parts.opened import LATER, Opened, events, replay, visible_versions
from unified_memory.model.clock import SECOND
from unified_memory.model.errors import ChangesGoneError, MemoryNotFoundError
from unified_memory.model.history import Event, Kind
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.session import Session, WithMemories
from unified_memory.storage.base import Access, Storage

Short = tuple[str, str, str | None, int | None]


def at(second: int) -> int:
    """So many seconds after NOW."""
    return NOW + second * SECOND


async def _told(storage: Storage, after: int = 0) -> list[Short]:
    """What happened behind that place, without places and instants."""
    return [(event.kind.value, event.namespace, event.key, event.version) for event in await events(storage, after)]


async def _purge(storage: Storage, ticket: int) -> None:
    while await storage.purge(ticket, NOW, 1):
        pass


class EventContract(Opened):
    """`feed` and `prune_feed`."""

    async def test_nothing_has_happened_in_an_empty_storage(self, storage: Storage) -> None:
        assert await storage.feed(0, 9) == []
        assert await storage.feed(99, 9) == []

    async def test_each_change_stands_in_the_feed_at_its_place_with_its_instant(self, storage: Storage) -> None:
        first = await store(storage, "k", 1, now=at(1))
        second = await store(storage, "k", 2, now=at(2))
        await remove(storage, "k", now=at(3))
        again = await store(storage, "k", 3, namespace="n", now=at(4))
        told = await storage.feed(0, 9)
        assert told == [
            Event(first.seq, at(1), Kind.STORE, "default", "k", 1, first.id),
            Event(second.seq, at(2), Kind.UPDATE, "default", "k", 2, first.id),
            Event(told[2].seq, at(3), Kind.DELETE, "default", "k", 2, first.id),
            Event(again.seq, at(4), Kind.STORE, "n", "k", 1, again.id),
        ]
        assert second.seq < told[2].seq < again.seq == await storage.last_seq()

    async def test_a_key_that_expired_is_told_so_before_it_is_stored_anew(self, storage: Storage) -> None:
        old = await store(storage, "k", expires_at=LATER)
        assert await _told(storage) == [("store", "default", "k", 1)]
        new = await store(storage, "k", now=at(5))
        assert (await events(storage, old.seq))[0] == Event(new.seq - 1, at(5), Kind.EXPIRE, "default", "k", 1, old.id)
        assert await _told(storage, old.seq) == [("expire", "default", "k", 1), ("store", "default", "k", 2)]

    async def test_what_a_cleanup_removes_is_told(self, storage: Storage) -> None:
        for key in ("a", "b", "c"):
            await store(storage, key, expires_at=LATER)
        seq = await storage.last_seq()
        await storage.expire(at(5), 2)
        told = await events(storage, seq)
        assert [(event.kind, event.at, event.version) for event in told] == [(Kind.EXPIRE, at(5), 1)] * 2
        await storage.expire(at(6), 9)
        told = await events(storage, seq)
        assert sorted(event.key or "" for event in told) == ["a", "b", "c"]
        assert [event.at for event in told] == [at(5), at(5), at(6)]

    async def test_removing_what_expired_tells_nothing(self, storage: Storage) -> None:
        await store(storage, "k", expires_at=LATER)
        assert not await remove(storage, "k", now=LATER)
        assert await _told(storage) == [("store", "default", "k", 1)]

    async def test_a_move_is_told_of_both_keys(self, storage: Storage) -> None:
        memory = await store(storage, "k")
        await store(storage, "l", namespace="n", expires_at=LATER)
        seq = await storage.last_seq()
        moved = await storage.move(("default", "k"), ("n", "l"), at(5))
        assert await _told(storage, seq) == [
            ("expire", "n", "l", 1),
            ("move", "default", "k", 1),
            ("store", "n", "l", moved.version),
        ]
        told = await events(storage, seq)
        assert {(event.at, event.id) for event in told[1:]} == {(at(5), memory.id)}
        assert told[-1].seq == moved.seq

    async def test_a_rename_is_told_of_each_memory(self, storage: Storage) -> None:
        await store(storage, "k", namespace="a")
        await store(storage, "l", namespace="a/x")
        await store(storage, "m", namespace="a", expires_at=LATER)
        seq = await storage.last_seq()
        assert await storage.rename_namespace("a", "b", at(5)) == 2
        told = await _told(storage, seq)
        assert sorted(told) == sorted(
            [
                *(("move", namespace, key, 1) for namespace, key in (("a", "k"), ("a/x", "l"), ("a", "m"))),
                *(("store", namespace, key, 2) for namespace, key in (("b", "k"), ("b/x", "l"), ("b", "m"))),
            ]
        )
        for kind, namespace, key, _ in told:
            if kind == "move":
                there = namespace.replace("a", "b")
                assert told[told.index((kind, namespace, key, 1)) + 1] == ("store", there, key, 2)
        assert {event.at for event in await events(storage, seq)} == {at(5)}

    async def test_a_namespace_that_goes_is_one_event_and_its_purge_none(self, storage: Storage) -> None:
        for namespace in ("a", "a/x", "ab"):
            await store(storage, "k", namespace=namespace)
        await storage.put_namespace("a/empty", NamespaceConfig(), NOW, create=True)
        seq = await storage.last_seq()
        tickets = await storage.delete_namespace("a", at(5), recursive=True)
        told = await events(storage, seq)
        assert sorted(event.namespace for event in told) == ["a", "a/empty", "a/x"]
        assert {(event.kind, event.at, event.key, event.version, event.id) for event in told} == {
            (Kind.DROP, at(5), None, None, None)
        }
        for ticket in tickets:
            await _purge(storage, ticket)
        assert await events(storage, seq) == told
        await store(storage, "k", namespace="a", now=at(6))
        assert [kind for kind, *_ in await _told(storage, told[-1].seq)] == ["store"]

    async def test_a_session_that_takes_its_memories_along_tells_each(self, storage: Storage) -> None:
        for session in ("deleted", "expired", "kept"):
            await store(storage, session, session_id=session)
        await store(storage, "passed", session_id="deleted", expires_at=LATER)
        seq = await storage.last_seq()
        await storage.end_session("default", "deleted", WithMemories.DELETE, at(5))
        await storage.end_session("default", "expired", WithMemories.EXPIRE, at(5))
        await storage.end_session("default", "kept", WithMemories.KEEP, at(5))
        assert await _told(storage, seq) == [("delete", "default", "deleted", 1), ("update", "default", "expired", 2)]
        assert {event.at for event in await events(storage, seq)} == {at(5)}
        await storage.expire(at(5), 9)
        assert sorted(await _told(storage, seq))[2:] == [
            ("expire", "default", "passed", 1),
            ("update", "default", "expired", 2),
        ]
        assert ("expire", "default", "expired", 2) in await _told(storage, seq)

    async def test_a_redaction_is_one_event(self, storage: Storage) -> None:
        for n in range(3):
            await store(storage, "k", n)
        memory = await store(storage, "l")
        seq = await storage.last_seq()
        await storage.redact("default", "k", 1, at(5))
        await storage.redact("default", "l", 1, at(6))
        first, second = await events(storage, seq)
        assert (first.kind, first.at, first.key, first.version) == (Kind.REDACT, at(5), "k", 1)
        assert second == Event(second.seq, at(6), Kind.REDACT, "default", "l", 1, memory.id)
        assert seq < first.seq < second.seq
        await storage.redact("default", "l", None, at(7))
        assert await _told(storage, second.seq) == [("redact", "default", "l", None)]
        seq = await storage.last_seq()
        await storage.redact("default", "k", None, at(8))
        assert await _told(storage, seq) == [("redact", "default", "k", 3)]

    async def test_what_changes_no_memory_tells_nothing(self, storage: Storage) -> None:
        memory = await store(storage, "k")
        told = await events(storage)
        await storage.touch([Access(memory.id, 1, LATER)])
        await apply(storage, keeping("k"), keeping("none"), removing("none"))
        await storage.put_namespace("n", NamespaceConfig(), NOW, create=True)
        await storage.put_session(Session("s", "n", None, None, None, b"{}", NOW, NOW, None))
        await storage.prune_past(("",), recursive=True, keep=0, before=None, limit=9)
        assert await storage.feed(0, 9) == told

    async def test_units_that_fail_leave_nothing_in_the_feed(self, storage: Storage) -> None:
        await store(storage, "k", expires_at=LATER)
        told = await events(storage)
        with pytest.raises(MemoryNotFoundError):
            await apply(storage, storing("k"), storing("l"), removing("l"), failing("x"), now=LATER)
        with pytest.raises(MemoryNotFoundError):
            await storage.move(("default", "none"), ("default", "there"), NOW)
        assert await storage.feed(0, 9) == told

    async def test_a_unit_tells_each_of_its_changes(self, storage: Storage) -> None:
        await apply(storage, storing("k"), storing("l"), storing("k"), removing("l"), storing("l"))
        assert await _told(storage) == [
            ("store", "default", "k", 1),
            ("store", "default", "l", 1),
            ("update", "default", "k", 2),
            ("delete", "default", "l", 1),
            ("store", "default", "l", 2),
        ]

    async def test_whoever_reads_on_while_others_write_misses_nothing(self, storage: Storage) -> None:
        seen: list[Event] = []
        is_written = asyncio.Event()

        async def write(who: int) -> None:
            for n in range(15):
                await store(storage, f"k{n % 4}", n, namespace=f"n{who}")
                if n % 5 == 4:
                    await apply(storage, *(removing(f"k{m}", namespace=f"n{who}") for m in range(4)))

        async def follow() -> None:
            while True:
                is_last = is_written.is_set()
                page = await storage.feed(seen[-1].seq if seen else 0, 3)
                seen.extend(page)
                if is_last and not page:
                    return
                await asyncio.sleep(0)

        follower = asyncio.create_task(follow())
        await asyncio.gather(*(write(who) for who in range(4)))
        is_written.set()
        await follower
        assert seen == await events(storage)
        assert replay(seen) == await visible_versions(storage)
        assert len(seen) == 4 * (15 + 12)

    async def test_following_the_feed_gives_what_is_there(self, storage: Storage) -> None:
        for n in range(4):
            await store(storage, "k", n, namespace="a")
            await store(storage, f"l{n}", n, namespace="a/x", session_id="s")
        await remove(storage, "l0", namespace="a/x")
        start, seq = await visible_versions(storage), await storage.last_seq()
        await storage.move(("a/x", "l1"), ("b", "l1"), NOW)
        await storage.redact("a/x", "l2", None, NOW)
        await storage.redact("a", "k", 1, NOW)
        await storage.rename_namespace("a", "c", NOW)
        await store(storage, "k", namespace="c")
        await storage.end_session("c/x", "s", WithMemories.DELETE, NOW)
        await storage.delete_namespace("b", NOW, recursive=True)
        await store(storage, "l1", namespace="b")
        assert replay(await events(storage)) == await visible_versions(storage)
        assert replay(await events(storage, seq), start) == await visible_versions(storage)

    async def test_the_keys_that_changed_are_told_as_before_beside_the_feed(self, storage: Storage) -> None:
        await store(storage, "k", expires_at=LATER)
        await store(storage, "k", now=LATER)
        await store(storage, "l", now=LATER)
        await storage.redact("default", "l", 1, LATER)
        await store(storage, "k", now=LATER)
        told = [(change.key, change.version, change.deleted) for change in await storage.changes(0, 9)]
        assert told == [("l", 1, True), ("k", 3, False)]

    # ---- pruned

    async def test_the_oldest_of_the_feed_can_be_forgotten(self, storage: Storage) -> None:
        for second in range(6):
            await store(storage, f"k{second}", now=at(second))
        told = await events(storage)
        assert await storage.prune_feed(at(0), 99) == 0
        assert await storage.prune_feed(at(2), 99) == 2
        assert await storage.prune_feed(at(9), 1) == 1
        assert await storage.feed(told[2].seq, 99) == told[3:]
        for after in (0, told[0].seq, told[2].seq - 1):
            with pytest.raises(ChangesGoneError) as gone:
                await storage.feed(after, 99)
            assert gone.value.facts == {"since": after, "oldest": told[2].seq}
        assert await storage.prune_feed(at(9), 99) == 3
        assert await storage.prune_feed(at(9), 99) == 0
        assert await storage.feed(told[-1].seq, 99) == []
        assert len(await storage.changes(0, 99)) == 6
        new = await store(storage, "new")
        assert [event.seq for event in await storage.feed(told[-1].seq, 99)] == [new.seq]
