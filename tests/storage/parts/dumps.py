"""Everything out, and in again: snapshots, links of backups, takeovers."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
from msgspec import Struct, structs

from tests.storage.drafts import NOW, found, keys, remove, store, version_of
from tests.storage.parts.opened import (
    LATER,
    LONG_AFTER,
    NEIGHBOURS,
    NEVER,
    Opened,
    all_names,
    all_sessions,
    assert_clean,
    configure,
    events,
    former,
    replay,
    versions_kept,
    visible_versions,
)
from unified_memory.model.clock import SECOND, SystemClock
from unified_memory.model.errors import ConflictError, NamespaceNotFoundError, VersionGoneError
from unified_memory.model.history import Kind, Past
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import NamespaceConfig, contains
from unified_memory.model.session import Session, WithMemories
from unified_memory.storage.base import Access, Code, Storage
from unified_memory.storage.dump import (
    Buried,
    Difference,
    Floor,
    Mode,
    Row,
    Snapshot,
    Space,
    Takeover,
    Used,
)

REPLACE = Takeover(Mode.REPLACE)
MERGE = Takeover(Mode.MERGE)


class Dump(Struct):
    """The rows of a snapshot, each kind in an order of its own."""

    store: str
    seq: int
    instant: int
    memory_count: int
    memory_bytes: int
    namespaces: dict[str, int]
    spaces: list[Space]
    floors: list[Floor]
    buried: list[Buried]
    memories: list[Memory]
    past: list[Past]
    used: list[Used]
    sessions: list[Session]


def at(second: int) -> int:
    """So many seconds after NOW."""
    return NOW + second * SECOND


async def dumped(storage: Storage, now: int = NOW, *, after: int = 0, since: int = 0) -> Dump:
    """What a link of that instant holds."""

    def read(snapshot: Snapshot) -> Dump:
        return Dump(
            snapshot.store,
            snapshot.seq,
            snapshot.instant,
            snapshot.memory_count,
            snapshot.memory_bytes,
            snapshot.namespaces,
            list(snapshot.spaces()),
            list(snapshot.floors()),
            list(snapshot.buried(after)),
            list(snapshot.memories(after)),
            list(snapshot.past(after)),
            list(snapshot.used(after, since)),
            list(snapshot.sessions()),
        )

    dump = await storage.snapshot(read, now)
    if not after:
        assert dump.namespaces == Counter(memory.namespace for memory in dump.memories)
    return dump


def comparable(dump: Dump) -> dict[str, list[Any]]:
    """The rows in an order, without what another storage may number in its own way."""
    # Of what a deleted namespace held it is enough to know how far its versions went.
    floors = {floor.name: floor.version for floor in dump.floors}
    names = {space.name for space in dump.spaces}
    return {
        "spaces": sorted((structs.replace(space, number=0) for space in dump.spaces), key=lambda space: space.name),
        "floors": sorted(dump.floors, key=lambda floor: floor.name),
        "buried": sorted(
            # That time has passed is no change: where nobody has cleaned up it has no place and no instant of its own.
            structs.astuple(structs.replace(one, seq=0, at=0) if one.reason == "expired" else one)
            for one in dump.buried
            if one.namespace in names and one.version > floors.get(one.namespace, 0)
        ),
        "memories": sorted(dump.memories, key=lambda memory: memory.seq),
        "past": sorted(dump.past, key=lambda row: (row.memory.namespace, row.memory.key, row.memory.version)),
        "sessions": sorted(dump.sessions, key=lambda session: (session.namespace, session.id)),
    }


async def put_all(other: Storage, *links: Dump, now: int = NOW) -> None:
    """Puts links back, two rows at a time."""
    for link in links:
        await other.put_back(link.spaces, now)
        kinds: tuple[Sequence[Row], ...] = (
            link.floors,
            link.buried,
            link.memories,
            link.past,
            link.used,
            link.sessions,
        )
        for rows in kinds:
            for first in range(0, len(rows), 2):
                await other.put_back(rows[first : first + 2], now)
    await other.all_back(now)


async def assert_put_back(storage: Storage, *links: Dump, now: int = NOW) -> None:
    """Asserts that the links, put back aside, give everything that the storage holds."""
    expected = comparable(await dumped(storage, now))
    other = await storage.aside()
    try:
        await put_all(other, *links, now=now)
        held = comparable(await dumped(other, now))
        for kind, rows in expected.items():
            assert held[kind] == rows, kind
        assert await visible_versions(other, now) == await visible_versions(storage, now)
        await assert_clean(other)
    finally:
        await storage.drop_aside(other)


async def aside_with(storage: Storage, *links: Dump, now: int = NOW) -> Storage:
    """A storage aside that holds what the links hold."""
    other = await storage.aside()
    await put_all(other, *links, now=now)
    return other


async def elsewhere(storage: Storage, fill: Callable[[Storage], Awaitable[None]], now: int = NOW) -> Dump:
    """What another storage holds that knows nothing of this one."""
    other = await storage.aside()
    await fill(other)
    dump = await dumped(other, now)
    await storage.drop_aside(other)
    return dump


def counted(differences: Sequence[Difference]) -> dict[str, tuple[int, int, int, int]]:
    """Added, changed, removed and same, by namespace."""
    assert len({one.namespace for one in differences}) == len(differences)
    return {one.namespace: (one.added, one.changed, one.removed, one.same) for one in differences}


async def take(storage: Storage, takeover: Takeover, *links: Dump, now: int = NOW) -> list[Difference]:
    """Takes over what the links hold; what was told before. Whoever follows the feed sees what comes of it."""
    other = await aside_with(storage, *links, now=now)
    try:
        await storage.hold_writes("a restore", NEVER)
        before, seq = replay(await events(storage)), await storage.last_seq()
        told = await storage.compare(other, takeover, now, samples=99)
        assert await storage.last_seq() == seq
        done = await storage.take_over(other, takeover, now)
        assert counted(done) == counted(told)
    finally:
        await storage.hold_writes(None, 0)
        await storage.drop_aside(other)
    if seq:
        held = replay(await events(storage, seq), before)
        visible = await visible_versions(storage, now)
        assert {ref: version for ref, version in held.items() if ref in visible} == visible
        assert {event.at for event in await events(storage, seq)} <= {now}
        passed = held.keys() - visible.keys()
        assert all([await storage.get(*ref, now) is None for ref in passed])
    await assert_clean(storage)
    return told


async def contents(storage: Storage, now: int = NOW) -> dict[tuple[str, str], Any]:
    """What is visible, by what callers gave."""
    memories = [await storage.get(*ref, now) for ref in await visible_versions(storage, now)]
    return {
        (one.namespace, one.key): (
            one.value,
            one.attributes,
            one.importance,
            one.session_id,
            one.expires_at,
            one.updated_at,
        )
        for one in memories
        if one is not None
    }


async def fill(storage: Storage) -> None:
    """Some of everything, in the seconds 0 to 50."""
    await configure(storage, "acme", description="all", max_memories=100, history_keep=9)
    await configure(storage, "empty", default_ttl=5.0)
    for n in range(3):
        await store(storage, "k", f"word{n}", namespace="acme", tags=("t", f"t{n}"), now=at(n), rank=n)
        await store(storage, f"k{n}", {"text": "long words " * 300, "n": n}, namespace="acme/web", now=at(n))
        await store(storage, "gone", n, namespace="acme/web", now=at(n))
        await store(storage, "from", n, namespace="acme", now=at(n))
        await store(storage, "redacted", f"secret{n}", namespace="b", now=at(n))
    await store(storage, "of a session", 1, namespace="acme", session_id="s", project_id="p", importance=9, now=at(5))
    await store(storage, "short", 1, namespace="b", now=at(5))
    await store(storage, "short", 2, namespace="b", expires_at=at(40), now=at(6))
    await store(storage, "longer", 1, namespace="b", expires_at=LONG_AFTER, now=at(6))
    await remove(storage, "gone", namespace="acme/web", now=at(10))
    await storage.move(("acme", "from"), ("b", "to"), at(11))
    await storage.redact("b", "redacted", 2, at(12))
    await store(storage, "k", "old", namespace="made anew", now=at(13))
    await store(storage, "k", "old", namespace="made anew", now=at(14))
    await storage.delete_namespace("made anew", at(15), recursive=True)
    await store(storage, "k", "new", namespace="made anew", now=at(16))
    await store(storage, "k", "x", namespace="deleted", now=at(17), session_id="s")
    await storage.delete_namespace("deleted", at(18), recursive=True)
    await store(storage, "k", "x", namespace="old name/x", now=at(19), session_id="t")
    await store(storage, "k", "y", namespace="old name/x", now=at(20), session_id="t")
    await storage.rename_namespace("old name", "new name", at(21))
    await storage.put_session(Session("own", "b", "c", "p", 60.0, b'{"a":1}', at(22), at(22), at(82)))
    memory = await storage.get("acme", "k", at(23))
    assert memory is not None
    await storage.touch([Access(memory.id, 4, at(24))])


async def change(storage: Storage) -> None:
    """Changes of every kind of what `fill` has made, in the seconds 60 to 80."""
    await store(storage, "k", "word3", namespace="acme", tags=("new",), now=at(60))
    await remove(storage, "k0", namespace="acme/web", now=at(61))
    await store(storage, "gone", "again", namespace="acme/web", now=at(62))
    await storage.move(("b", "to"), ("acme/web", "from b"), at(63))
    await storage.redact("b", "redacted", None, at(64))
    await storage.rename_namespace("new name", "newer name", at(65))
    await storage.delete_namespace("made anew", at(66), recursive=True)
    await store(storage, "l", "newest", namespace="made anew", now=at(67))
    await storage.end_session("acme", "s", WithMemories.DELETE, at(68))
    await store(storage, "late", 1, namespace="late", session_id="u", now=at(69))
    await storage.put_namespace("empty", NamespaceConfig(default_ttl=6.0), at(70), create=False)
    await storage.touch([Access(one.id, 2, at(71)) for one in [await storage.get("acme/web", "k1", at(71))] if one])


class DumpContract(Opened):
    """`snapshot`."""

    async def test_a_snapshot_of_an_empty_storage_is_empty(self, storage: Storage) -> None:
        dump = await dumped(storage)
        assert (dump.seq, dump.instant, dump.memory_count, dump.memory_bytes) == (0, NOW, 0, 0)
        assert not any(comparable(dump).values())
        assert dump.store
        assert (await dumped(storage)).store == dump.store

    async def test_a_snapshot_holds_everything(self, storage: Storage) -> None:
        await fill(storage)
        dump = await dumped(storage, at(50))
        assert (dump.seq, dump.instant) == (await storage.last_seq(), at(50))
        visible = await visible_versions(storage, at(50))
        memories = {(memory.namespace, memory.key): memory for memory in dump.memories}
        assert {ref: memory.version for ref, memory in memories.items()} == visible
        # All of them as the storage has them: a copy of one may have been made before it was accessed.
        assert list(memories.values()) == await storage.get_many(list(memories), at(50))
        assert (dump.memory_count, dump.memory_bytes) == (len(memories), sum(len(m.value) for m in memories.values()))
        assert memories["acme", "k"].access_count == 4
        assert [space.name for space in dump.spaces] == sorted(await all_names(storage, now=at(50)))
        spaces = {space.name: space for space in dump.spaces}
        assert spaces["acme"].config == NamespaceConfig(description="all", max_memories=100, history_keep=9)
        assert [spaces[name].explicit for name in ("acme", "empty", "b")] == [True, True, False]
        assert (spaces["acme"].top_version, spaces["b"].created_at) == (3, at(0))
        assert len({space.number for space in dump.spaces}) == len(spaces)
        assert {floor.name: floor.version for floor in dump.floors} == {
            "made anew": 2,
            "deleted": 1,
            "old name/x": 2,
        }
        assert {(session.namespace, session.id) for session in dump.sessions} == {
            ("acme", "s"),
            ("new name/x", "t"),
            ("b", "own"),
        }
        (own,) = [session for session in dump.sessions if session.id == "own"]
        assert own == await storage.get_session("b", "own", at(50))

    async def test_keys_without_a_memory_are_told_with_their_last_version(self, storage: Storage) -> None:
        await fill(storage)
        memory = await storage.get("b", "short", at(40) - 1)
        assert memory is not None
        told = {(one.namespace, one.key): one for one in (await dumped(storage, at(50))).buried}
        assert (told["acme/web", "gone"].version, told["acme/web", "gone"].reason) == (3, "deleted")
        assert told["acme/web", "gone"].at == at(10)
        assert (told["acme", "from"].version, told["acme", "from"].reason) == (3, "moved")
        assert (told["b", "short"].version, told["b", "short"].reason) == (2, "expired")
        assert told["b", "short"].id == memory.id
        await storage.redact("b", "redacted", None, at(50))
        told = {(one.namespace, one.key): one for one in (await dumped(storage, at(50))).buried}
        assert (told["b", "redacted"].version, told["b", "redacted"].reason) == (3, "redacted")

    async def test_former_versions_are_told_by_key_oldest_first(self, storage: Storage) -> None:
        await fill(storage)
        rows = (await dumped(storage, at(50))).past
        refs = [(row.memory.namespace, row.memory.key) for row in rows]
        assert len(set(refs)) == len([ref for n, ref in enumerate(refs) if n == 0 or refs[n - 1] != ref])
        by_key = {ref: [row for row in rows if (row.memory.namespace, row.memory.key) == ref] for ref in refs}
        assert {ref: [row.memory.version for row in rows] for ref, rows in by_key.items()} == {
            ("acme", "k"): [1, 2],
            ("acme/web", "gone"): [1, 2, 3],
            ("b", "redacted"): [1, 2],
            ("acme", "from"): [1, 2, 3],
            ("new name/x", "k"): [1, 2],
        }
        for (namespace, key), held in by_key.items():
            assert held == [await former(storage, key, one.memory.version, namespace=namespace) for one in held]
        assert [row.kept for row in by_key["b", "redacted"]] == [True, False]

    async def test_what_is_invisible_is_left_out(self, storage: Storage) -> None:
        await fill(storage)
        before, after = await dumped(storage, at(40) - 1), await dumped(storage, at(40))
        assert {memory.key for memory in before.memories} - {memory.key for memory in after.memories} == {"short"}
        assert {row.memory.key for row in before.past} - {row.memory.key for row in after.past} == {"short"}
        assert (before.memory_count - after.memory_count, before.memory_bytes - after.memory_bytes) == (1, 1)
        named = [*(one.name for one in after.spaces), *(one.namespace for one in after.sessions)]
        named += [row.memory.namespace for row in after.past] + [memory.namespace for memory in after.memories]
        assert not {"deleted", "old name", "old name/x"} & set(named)

    async def test_only_what_changed_behind_a_place_can_be_asked_for(self, storage: Storage) -> None:
        await fill(storage)
        first = await dumped(storage, at(50))
        nothing = await dumped(storage, at(50), after=first.seq, since=at(50))
        assert (nothing.memories, nothing.past, nothing.used) == ([], [], [])
        assert {one.reason for one in nothing.buried} <= {"expired"}
        assert (nothing.memory_count, len(nothing.spaces), len(nothing.sessions)) == (
            first.memory_count,
            len(first.spaces),
            len(first.sessions),
        )
        await change(storage)
        second = await dumped(storage, at(90), after=first.seq, since=first.instant)
        assert {(memory.namespace, memory.key) for memory in second.memories} == {
            ("acme", "k"),
            ("acme/web", "gone"),
            ("acme/web", "from b"),
            ("newer name/x", "k"),
            ("made anew", "l"),
            ("late", "late"),
        }
        assert {("acme/web", "k0", "deleted"), ("b", "to", "moved"), ("acme", "of a session", "deleted")} <= {
            (one.namespace, one.key, one.reason) for one in second.buried
        }
        touched = {(row.memory.namespace, row.memory.key, row.memory.version) for row in second.past}
        assert {("b", "redacted", version) for version in (1, 3)} <= touched
        assert {("newer name/x", "k", version) for version in (1, 2)} <= touched
        assert ("acme", "k", 3) in touched
        assert not {("acme", "k", 1), ("acme/web", "gone", 1)} & touched
        memory = await storage.get("acme/web", "k1", at(90))
        assert memory is not None
        assert second.used == [Used(memory.id, 2, at(71))]

    async def test_access_data_are_told_of_what_did_not_change(self, storage: Storage) -> None:
        first, second = await store(storage, "a"), await store(storage, "b")
        third = await store(storage, "c", expires_at=LATER)
        await storage.touch([Access(one.id, n, at(n)) for n, one in enumerate((first, second, third), start=1)])
        used = (await dumped(storage, NOW, after=third.seq, since=at(2))).used
        assert sorted(used, key=lambda one: one.id) == [Used(second.id, 2, at(2)), Used(third.id, 3, at(3))]
        assert (await dumped(storage, at(5), after=second.seq, since=at(2))).used == [Used(second.id, 2, at(2))]
        assert (await dumped(storage, at(5), after=first.seq, since=at(1))).used == [Used(first.id, 1, at(1))]

    async def test_a_snapshot_is_of_one_instant_while_others_write(self, storage: Storage) -> None:
        await fill(storage)
        before = await dumped(storage, at(50))
        has_begun, may_go_on = threading.Event(), threading.Event()

        def read(snapshot: Snapshot) -> tuple[list[Memory], list[Past], list[str], int]:
            has_begun.set()
            assert may_go_on.wait(30)
            return (
                list(snapshot.memories()),
                list(snapshot.past()),
                [space.name for space in snapshot.spaces()],
                snapshot.seq,
            )

        reading = asyncio.create_task(storage.snapshot(read, at(50)))
        try:
            assert await asyncio.to_thread(has_begun.wait, 30)
            await change(storage)
        finally:
            may_go_on.set()
        memories, past, names, seq = await reading
        assert sorted(memories, key=lambda one: one.seq) == comparable(before)["memories"]
        assert past == before.past
        assert (names, seq) == ([space.name for space in before.spaces], before.seq)
        assert await version_of(storage, "k", namespace="acme", now=at(90)) == 4

    async def test_what_the_work_raises_is_raised(self, storage: Storage) -> None:
        await store(storage, "k")

        def fail(snapshot: Snapshot) -> None:
            raise VersionGoneError("n", f"{snapshot.memory_count}", 1)

        with pytest.raises(VersionGoneError) as told:
            await storage.snapshot(fail, NOW)
        assert told.value.facts["key"] == "1"
        await store(storage, "k")


class LinkContract(Opened):
    """`aside`, `put_back`, `all_back`, `drop_aside`."""

    async def test_a_storage_aside_is_empty_and_apart(self, storage: Storage) -> None:
        await fill(storage)
        other = await storage.aside()
        assert not any(comparable(await dumped(other)).values())
        assert (await dumped(other)).store != (await dumped(storage)).store
        await put_all(other, await dumped(storage, at(50)), now=at(50))
        await change(storage)
        assert await version_of(other, "k", namespace="acme", now=at(90)) == 3
        assert await version_of(storage, "k", namespace="acme", now=at(90)) == 4
        await storage.drop_aside(other)
        again = await storage.aside()
        assert not any(comparable(await dumped(again)).values())
        await storage.drop_aside(again)
        assert await version_of(storage, "k", namespace="acme", now=at(90)) == 4

    async def test_one_link_gives_everything(self, storage: Storage) -> None:
        await fill(storage)
        await assert_put_back(storage, await dumped(storage, at(50)), now=at(50))

    async def test_what_was_put_back_is_found_and_goes_on(self, storage: Storage) -> None:
        await fill(storage)
        other = await aside_with(storage, await dumped(storage, at(50)), now=at(50))
        for query in ("word2", "long words", "word0"):
            assert await found(other, query, now=at(50)) == await found(storage, query, now=at(50))
        assert await keys(other, where={"tags": {"contains": "t"}}, now=at(50)) == ["k"]
        session = await other.get_session("acme", "s", at(50))
        assert session == await storage.get_session("acme", "s", at(50))
        assert (await store(other, "k", namespace="acme", now=at(51))).version == 4
        assert (await store(other, "gone", namespace="acme/web", now=at(51))).version == 4
        assert (await store(other, "k", namespace="deleted", now=at(51))).version > 1
        assert (await store(other, "new", namespace="made anew", now=at(51))).version > 2
        ids = {memory.id for memory in (await dumped(storage, at(50))).memories}
        assert (await store(other, "new", namespace="b", now=at(51))).id > max(ids)
        await assert_clean(other)
        await storage.drop_aside(other)

    async def test_links_give_everything_as_it_was_at_the_last(self, storage: Storage) -> None:
        await fill(storage)
        links = [await dumped(storage, at(50))]
        await change(storage)
        links.append(await dumped(storage, at(90), after=links[0].seq, since=at(50)))
        await assert_put_back(storage, *links, now=at(90))
        for ticket in await storage.dead_namespaces():
            while await storage.purge(ticket, at(91), 9):
                pass
        await storage.expire(at(91), 99)
        await storage.rename_namespace("acme", "apex", at(92))
        await store(storage, "k", "anew", namespace="acme", now=at(93))
        links.append(await dumped(storage, at(95), after=links[1].seq, since=at(90)))
        await assert_put_back(storage, *links, now=at(95))

    @pytest.mark.parametrize("seed", [0, 1, 7, 28])
    async def test_links_of_changes_in_any_order_give_everything(self, storage: Storage, seed: int) -> None:
        dice = random.Random(seed)
        links = [await dumped(storage)]
        for step in range(1, 161):
            await _any_change(storage, dice, at(step))
            if step % 20 == 0:
                links.append(await dumped(storage, at(step), after=links[-1].seq, since=links[-1].instant))
        await assert_put_back(storage, *links, now=at(160))

    async def test_what_has_expired_never_comes_back(self, storage: Storage) -> None:
        await store(storage, "k", 1)
        await store(storage, "k", 2, expires_at=at(60), now=at(10))
        await store(storage, "l", 3)
        link = await dumped(storage, at(50))
        other = await aside_with(storage, link, now=at(60))
        for now in (at(60), NOW):
            assert await other.get("default", "k", now) is None
            assert await versions_kept(other, "k", now=now) == []
        assert [(one.key, one.version, one.reason) for one in (await dumped(other, at(60))).buried] == [
            ("k", 2, "expired")
        ]
        assert (await store(other, "k", now=at(61))).version == 3
        await storage.drop_aside(other)

    async def test_what_was_put_back_expires_when_its_time_comes(self, storage: Storage) -> None:
        await store(storage, "k", 1, expires_at=at(60))
        other = await aside_with(storage, await dumped(storage, at(50)), now=at(50))
        assert await version_of(other, "k", now=at(60) - 1) == 1
        assert await version_of(other, "k", now=at(60)) == 0
        await storage.drop_aside(other)

    async def test_a_memory_whose_time_was_prolonged_comes_back_with_its_past(self, storage: Storage) -> None:
        await store(storage, "k", 1)
        await store(storage, "k", 2, expires_at=at(60), now=at(10))
        links = [await dumped(storage, at(50))]
        await store(storage, "k", 3, now=at(55))
        links.append(await dumped(storage, at(90), after=links[0].seq, since=at(50)))
        await assert_put_back(storage, *links, now=at(90))

    async def test_the_past_of_what_was_deleted_in_its_time_comes_back_after_that_time(self, storage: Storage) -> None:
        for key in ("deleted", "redacted", "anew"):
            await store(storage, key, 1, expires_at=at(60))
            await store(storage, key, 2, now=at(10), expires_at=at(60))
        links = [await dumped(storage, at(50))]
        await remove(storage, "deleted", now=at(55))
        await storage.redact("default", "redacted", 2, at(55))
        await remove(storage, "anew", now=at(55))
        await store(storage, "anew", 3, now=at(56))
        links.append(await dumped(storage, at(90), after=links[0].seq, since=at(50)))
        for key in ("deleted", "redacted", "anew"):
            assert await versions_kept(storage, key, now=at(90)) == [2, 1]
        await assert_put_back(storage, *links, now=at(90))

    async def test_what_expired_between_two_links_leaves_nothing(self, storage: Storage) -> None:
        for key in ("waiting", "cleaned", "anew", "removed"):
            await store(storage, key, 1)
            await store(storage, key, 2, now=at(10))
        links = [await dumped(storage, at(50))]
        for key in ("waiting", "cleaned", "anew", "removed"):
            await store(storage, key, 3, expires_at=at(60), now=at(51))
            if key == "cleaned":
                await storage.expire(at(60), 9)
            elif key != "waiting":
                await store(storage, key, 4, now=at(60))
        await remove(storage, "removed", now=at(61))
        links.append(await dumped(storage, at(70), after=links[0].seq, since=at(50)))
        await assert_put_back(storage, *links, now=at(70))

    async def test_a_link_without_news_changes_nothing_but_sessions(self, storage: Storage) -> None:
        await fill(storage)
        links = [await dumped(storage, at(50))]
        await storage.put_session(Session("more", "b", None, None, None, b"{}", at(60), at(60), None))
        await storage.touch_sessions([("b", "own")], at(61))
        links.append(await dumped(storage, at(70), after=links[0].seq, since=at(50)))
        await assert_put_back(storage, *links, now=at(70))

    async def test_a_namespace_that_was_made_anew_holds_nothing_of_the_old_one(self, storage: Storage) -> None:
        for key in ("k", "l"):
            await store(storage, key, 1, namespace="n", session_id="s")
            await store(storage, key, 2, namespace="n")
        links = [await dumped(storage, at(50))]
        await storage.delete_namespace("n", at(51), recursive=True)
        await store(storage, "k", 3, namespace="n", now=at(52))
        links.append(await dumped(storage, at(70), after=links[0].seq, since=at(50)))
        await assert_put_back(storage, *links, now=at(70))
        other = await aside_with(storage, *links, now=at(70))
        assert await keys(other, now=at(70)) == ["k"]
        assert await versions_kept(other, "k", namespace="n", now=at(70)) == []
        assert await all_sessions(other, now=at(70)) == []
        await storage.drop_aside(other)

    async def test_what_was_redacted_after_a_link_is_gone_with_the_next(self, storage: Storage) -> None:
        for n in range(3):
            await store(storage, "k", f"secret{n}", now=at(n))
        links = [await dumped(storage, at(50))]
        await storage.redact("default", "k", None, at(51))
        links.append(await dumped(storage, at(70), after=links[0].seq, since=at(50)))
        other = await aside_with(storage, *links, now=at(70))
        assert await keys(other, now=at(70)) == []
        rows = [await former(other, "k", version, now=at(70)) for version in (1, 2, 3)]
        assert {(row.memory.value, row.kept, row.redacted_at) for row in rows} == {(b"", False, at(51))}
        await storage.drop_aside(other)


async def _any_change(storage: Storage, dice: random.Random, now: int) -> None:
    namespace, other = dice.choice(["a", "a/x", "b"]), dice.choice(["a", "b", "c"])
    key = dice.choice(["k", "l"])
    visible = await visible_versions(storage, now)
    match dice.choice(
        ["store"] * 6 + ["remove", "move", "rename", "delete", "expire", "redact", "end", "touch", "purge"]
    ):
        case "store":
            expires_at = dice.choice([None, None, None, now + 5 * SECOND, now + 50 * SECOND])
            session = dice.choice([None, "s", "t"])
            value = {"n": dice.random(), "text": "words " * dice.choice([1, 100])}
            await store(storage, key, value, namespace=namespace, expires_at=expires_at, session_id=session, now=now)
        case "remove":
            await remove(storage, key, namespace=namespace, now=now)
        case "move" if (namespace, key) in visible and (other, key) not in visible:
            await storage.move((namespace, key), (other, key), now)
        case "rename" if namespace in (names := await all_names(storage, now=now)) and f"{other} new" not in names:
            if other != namespace:
                await storage.rename_namespace(namespace, f"{other} new", now)
        case "delete":
            doomed = dice.choice([namespace, f"{other} new"])
            if await storage.get_namespace(doomed, now) is not None:
                await storage.delete_namespace(doomed, now, recursive=True)
        case "expire":
            await storage.expire(now, dice.choice([1, 9]))
        case "redact" if (namespace, key) in visible:
            await storage.redact(namespace, key, dice.choice([None, visible[namespace, key]]), now)
        case "end":
            if await storage.get_session(namespace, "s", now) is not None:
                await storage.end_session(namespace, "s", dice.choice(list(WithMemories)), now)
        case "touch":
            memory = await storage.get(namespace, key, now)
            if memory is not None:
                await storage.touch([Access(memory.id, 1, now)])
        case "purge":
            for ticket in await storage.dead_namespaces():
                await storage.purge(ticket, now, 1)
        case _:
            pass


class TakeoverContract(Opened):
    """`compare` and `take_over`."""

    # ---- where nothing was stored

    async def test_an_empty_storage_becomes_as_the_other_was(self, storage: Storage) -> None:
        dump = await elsewhere(storage, fill, at(50))
        before = (await dumped(storage)).store
        told = await take(storage, REPLACE, dump, now=at(50))
        assert {name: numbers[0] for name, numbers in counted(told).items()} == {
            "acme": 2,
            "acme/web": 3,
            "b": 3,
            "made anew": 1,
            "new name/x": 1,
        }
        after = await dumped(storage, at(50))
        expected, held = comparable(dump), comparable(after)
        for kind, rows in expected.items():
            assert held[kind] == rows, kind
        assert len({before, after.store, dump.store}) == 3
        assert await found(storage, "word2", now=at(50)) == ["k"]
        seq = await storage.last_seq()
        assert await storage.feed(seq, 9) == []
        memory = await store(storage, "k", namespace="acme", now=at(51))
        assert (memory.version, memory.seq > seq) == (4, True)
        assert [event.kind for event in await storage.feed(seq, 9)] == [Kind.UPDATE]

    # ---- the conditions

    async def test_nothing_is_taken_over_while_others_may_write(self, storage: Storage) -> None:
        await store(storage, "k", 1)
        link = await dumped(storage)
        await store(storage, "k", 2)
        before = comparable(await dumped(storage))
        other = await aside_with(storage, link)
        for reason, until in ((None, NEVER), ("a restore", SystemClock().now())):
            await storage.hold_writes(reason, until)
            with pytest.raises(ConflictError):
                await storage.take_over(other, REPLACE, NOW)
        await storage.set_read_only("closed")
        with pytest.raises(ConflictError):
            await storage.take_over(other, REPLACE, NOW)
        assert comparable(await dumped(storage)) == before
        await storage.set_read_only(None)
        await storage.hold_writes(None, 0)
        await storage.hold_writes("a restore", NEVER)
        await storage.take_over(other, REPLACE, NOW)
        await storage.hold_writes(None, 0)
        await storage.drop_aside(other)
        assert (await contents(storage)).keys() == {("default", "k")}

    async def test_comparing_changes_nothing_and_names_some_keys(self, storage: Storage) -> None:
        for n in range(5):
            await store(storage, f"changed{n}", 1, namespace="n")
            await store(storage, f"back{n}", 1, namespace="n")
        link = await dumped(storage)
        for n in range(5):
            await store(storage, f"changed{n}", 2, namespace="n", now=LATER)
            await remove(storage, f"back{n}", namespace="n", now=LATER)
            await store(storage, f"new{n}", 2, namespace="n", now=LATER)
        before = await dumped(storage, LATER)
        other = await aside_with(storage, link, now=LATER)
        (one,) = await storage.compare(other, REPLACE, LATER, samples=2)
        assert counted([one]) == {"n": (5, 5, 5, 0)}
        for kind, prefix in (("added", "back"), ("changed", "changed"), ("removed", "new")):
            assert len(one.samples[kind]) == 2
            assert all(key.startswith(prefix) for key in one.samples[kind])
        (every,) = await storage.compare(other, REPLACE, LATER, samples=9)
        assert sorted(every.samples["removed"]) == [f"new{n}" for n in range(5)]
        await storage.drop_aside(other)
        after = await dumped(storage, LATER)
        assert comparable(after) == comparable(before)
        assert after.store == before.store

    # ---- everything is replaced

    async def test_everything_is_again_as_it_was(self, storage: Storage) -> None:
        await fill(storage)
        link = await dumped(storage, at(50))
        before = await contents(storage, at(50))
        await change(storage)
        here = await dumped(storage, at(90))
        told = await take(storage, REPLACE, link, now=at(90))
        # "short" has expired, and so has nothing else.
        assert await contents(storage, at(90)) == before
        assert counted(told) == {
            "acme": (1, 1, 0, 0),
            "acme/web": (1, 0, 2, 2),
            "b": (2, 0, 0, 1),
            "late": (0, 0, 1, 0),
            "made anew": (1, 0, 1, 0),
            "new name/x": (1, 0, 0, 0),
            "newer name/x": (0, 0, 1, 0),
        }
        after = await dumped(storage, at(90))
        assert after.store not in {here.store, link.store}
        names = [[structs.replace(one, number=0, top_version=0) for one in dump.spaces] for dump in (after, link)]
        assert names[0] == names[1]
        assert comparable(after)["sessions"] == comparable(link)["sessions"]
        assert await found(storage, "word2", now=at(90)) == ["k"]
        assert await found(storage, "word3", now=at(90)) == []
        rows = {(row.memory.namespace, row.memory.key, row.memory.version): row.memory.value for row in link.past}
        assert {
            (row.memory.namespace, row.memory.key, row.memory.version): row.memory.value for row in after.past
        } == rows

    async def test_what_is_the_same_is_not_touched(self, storage: Storage) -> None:
        for key in ("same", "changed"):
            await store(storage, key, 1)
            await store(storage, key, 2, now=at(1))
        link = await dumped(storage, at(50))
        same = await storage.get("default", "same", at(50))
        assert same is not None
        await storage.touch([Access(same.id, 5, at(51))])
        await store(storage, "changed", 3, now=at(60))
        seq = await storage.last_seq()
        told = await take(storage, REPLACE, link, now=at(90))
        assert counted(told) == {"default": (0, 1, 0, 1)}
        kept = await storage.get("default", "same", at(90))
        assert kept is not None
        assert (kept.id, kept.version, kept.seq) == (same.id, 2, same.seq)
        assert [event.key for event in await events(storage, seq)] == ["changed"]
        assert [one.key for one in await storage.changes(seq, 9)] == ["changed"]
        assert await versions_kept(storage, "same", now=at(90)) == [1]
        seq = len(await events(storage))
        assert counted(await take(storage, REPLACE, await dumped(storage, at(90)), now=at(95))) == {
            "default": (0, 0, 0, 2)
        }
        assert len(await events(storage)) == seq

    async def test_versions_go_on_above_all_that_were(self, storage: Storage) -> None:
        for key in ("changed", "removed", "moved"):
            await store(storage, key, 1)
        await store(storage, "k", 1, namespace="n")
        link = await dumped(storage)
        for n in range(2, 6):
            await store(storage, "changed", n, now=at(n))
            await store(storage, "removed", n, now=at(n))
            await store(storage, "k", n, namespace="n", now=at(n))
        await remove(storage, "removed", now=at(10))
        await storage.delete_namespace("n", at(10), recursive=True)
        await storage.move(("default", "moved"), ("default", "there"), at(10))
        await store(storage, "new", 1, now=at(10))
        seq = await storage.last_seq()
        await take(storage, REPLACE, link, now=at(20))
        memories = {memory.key: memory for memory in (await dumped(storage, at(20))).memories}
        assert memories.keys() == {"changed", "removed", "moved", "k"}
        versions = {key: memory.version for key, memory in memories.items()}
        assert versions == {"changed": 6, "removed": 6, "moved": 2, "k": 6}
        assert all(memory.seq > seq for memory in memories.values())
        assert {memory.value for memory in memories.values()} == {b"1"}
        assert all(memory.updated_at == NOW for memory in memories.values())
        assert len({memory.id for memory in memories.values()}) == 4
        for key in ("new", "there"):
            assert (await store(storage, key, 9, now=at(30))).version > 1

    async def test_what_another_storage_holds_takes_no_version_and_no_id_twice(self, storage: Storage) -> None:
        async def other_fill(other: Storage) -> None:
            for key in ("a", "b", "c"):
                await store(other, key, f"there {key}", now=at(5))
            await store(other, "a", "there again", now=at(6))

        link = await elsewhere(storage, other_fill, at(10))
        for _ in range(3):
            await store(storage, "b", "here")
        own = await store(storage, "c", "here", now=at(6))
        await store(storage, "d", "here")
        seen = {(ref, version) for ref, version in (await visible_versions(storage)).items()}
        seen |= {(("default", "b"), version) for version in (1, 2)}
        told = await take(storage, REPLACE, link, now=at(10))
        assert counted(told) == {"default": (1, 2, 1, 0)}
        memories = {memory.key: memory for memory in (await dumped(storage, at(10))).memories}
        assert {key: memory.parsed() for key, memory in memories.items()} == {
            "a": "there again",
            "b": "there b",
            "c": "there c",
        }
        versions = {key: memory.version for key, memory in memories.items()}
        assert versions == {"a": 2, "b": 4, "c": 2}
        assert not seen & {(("default", key), version) for key, version in versions.items()}
        ids = [memory.id for memory in memories.values()]
        assert len(set(ids)) == 3
        assert [one.key for one in await storage.get_by_id(ids, at(10)) if one is not None] == list(memories)
        assert (await store(storage, "new")).id > max(*ids, own.id)

    async def test_vectors_go_where_everything_is_replaced(self, storage: Storage) -> None:
        memories = [await store(storage, key) for key in ("same", "changed")]
        link = await dumped(storage)
        memories[1] = await store(storage, "changed", "new", now=LATER)
        await storage.put_vectors("m", [Code(one.id, one.seq, b"1234") for one in memories])
        assert len(await storage.with_vectors("m", [one.id for one in memories], LATER)) == 2
        await take(storage, REPLACE, link, now=LATER)
        assert await storage.with_vectors("m", [one.id for one in memories], LATER) == set()
        assert (await storage.vector_counts("m", LATER)).waiting == 2
        waiting = await storage.unembedded("m", LATER, 0, 9)
        assert sorted(one.key for one in waiting) == ["changed", "same"]

    async def test_what_has_expired_is_not_taken_over(self, storage: Storage) -> None:
        await store(storage, "k", 1, expires_at=at(60))
        await store(storage, "l", 1)
        link = await dumped(storage, at(50))
        await remove(storage, "k", now=at(51))
        await store(storage, "m", 1, expires_at=at(60), now=at(52))
        told = await take(storage, REPLACE, link, now=at(70))
        assert counted(told) == {"default": (0, 0, 0, 1)}
        assert (await visible_versions(storage, at(70))).keys() == {("default", "l")}
        assert await storage.get("default", "m", NOW) is None
        assert (await store(storage, "m", now=at(70))).version == 2

    async def test_former_versions_can_be_asked_for_after_everything_was_replaced(self, storage: Storage) -> None:
        for n in range(3):
            await store(storage, "k", n, now=at(10 * n))
        link = await dumped(storage, at(30))
        await store(storage, "k", "wrong", now=at(40))
        await take(storage, REPLACE, link, now=at(50))
        assert await versions_kept(storage, "k", now=at(60)) == [2, 1]
        memory = await storage.as_of("default", "k", at(15), at(60))
        assert memory is not None
        assert memory.value == b"1"
        new = await store(storage, "k", "right", now=at(60))
        assert new.version == 6
        assert await versions_kept(storage, "k", now=at(60)) == [5, 2, 1]

    # ---- merged

    async def test_merging_adds_what_is_missing_and_replaces_what_is_older(self, storage: Storage) -> None:
        async def other_fill(other: Storage) -> None:
            await configure(other, "there", description="there")
            await configure(other, "both", description="there")
            await store(other, "missing", "there", namespace="both", now=at(20), session_id="s")
            await store(other, "missing", "there", namespace="there", now=at(20))
            await store(other, "older here", "there", namespace="both", now=at(20), tags=("x",))
            await store(other, "newer here", "there", namespace="both", now=at(20))

        link = await elsewhere(storage, other_fill, at(50))
        await configure(storage, "both", description="here")
        await configure(storage, "here", description="here")
        await store(storage, "older here", "here", namespace="both", now=at(10))
        newer = await store(storage, "newer here", "here", namespace="both", now=at(30))
        own = await store(storage, "own", "here", namespace="here", now=at(10))
        name = (await dumped(storage)).store
        told = await take(storage, MERGE, link, now=at(60))
        numbers = counted(told)
        assert numbers["both"][:3] == (1, 1, 0)
        assert numbers["there"] == (1, 0, 0, 0)
        assert {ref: value[0] for ref, value in (await contents(storage, at(60))).items()} == {
            ("both", "missing"): b'"there"',
            ("both", "older here"): b'"there"',
            ("both", "newer here"): b'"here"',
            ("here", "own"): b'"here"',
            ("there", "missing"): b'"there"',
        }
        for memory in (newer, own):
            kept = await storage.get(memory.namespace, memory.key, at(60))
            assert kept is not None
            assert (kept.id, kept.version, kept.seq, kept.value) == (memory.id, memory.version, memory.seq, b'"here"')
        assert await version_of(storage, "older here", namespace="both", now=at(60)) == 2
        spaces = {space.name: space.config.description for space in (await dumped(storage, at(60))).spaces}
        assert spaces == {"both": "here", "here": "here", "there": "there"}
        assert [(one.namespace, one.id) for one in await all_sessions(storage, now=at(60))] == [("both", "s")]
        assert (await dumped(storage)).store == name
        memories = (await dumped(storage, at(60))).memories
        assert len({memory.id for memory in memories}) == len(memories)

    async def test_merging_brings_back_what_was_removed_and_leaves_the_rest(self, storage: Storage) -> None:
        for key in ("removed", "same", "changed"):
            await store(storage, key, 1)
            await store(storage, key, 2, now=at(1))
        link = await dumped(storage, at(5))
        await remove(storage, "removed", now=at(10))
        await store(storage, "changed", 3, now=at(10))
        same = await storage.get("default", "same", at(10))
        assert same is not None
        vectors = [Code(same.id, same.seq, b"1234")]
        await storage.put_vectors("m", vectors)
        seq = await storage.last_seq()
        told = await take(storage, MERGE, link, now=at(20))
        assert counted(told)["default"][:3] == (1, 0, 0)
        assert await visible_versions(storage, at(20)) == {
            ("default", "removed"): 3,
            ("default", "same"): 2,
            ("default", "changed"): 3,
        }
        assert [(event.kind, event.key) for event in await events(storage, seq)] == [(Kind.STORE, "removed")]
        assert await versions_kept(storage, "removed", now=at(20)) == [2, 1]
        assert await storage.with_vectors("m", [same.id], at(20)) == {same.id}

    async def test_what_merging_replaces_stands_in_the_past(self, storage: Storage) -> None:
        async def other_fill(other: Storage) -> None:
            await store(other, "k", "there", now=at(20))

        link = await elsewhere(storage, other_fill, at(50))
        await store(storage, "k", "here")
        await take(storage, MERGE, link, now=at(60))
        row = await former(storage, "k", 1, now=at(60))
        assert (row.memory.value, row.ended_at) == (b'"here"', at(60))

    # ---- one namespace

    async def test_one_namespace_becomes_as_it_was_and_all_else_stays(self, storage: Storage) -> None:
        names = ("acme", "acme/web", *NEIGHBOURS)
        for name in names:
            await store(storage, "k", 1, namespace=name, session_id="s")
            await store(storage, "removed", 1, namespace=name)
        link = await dumped(storage)
        for name in names:
            await store(storage, "k", 2, namespace=name, now=at(10))
            await remove(storage, "removed", namespace=name, now=at(10))
            await store(storage, "new", 2, namespace=name, now=at(10))
        await store(storage, "new", 2, namespace="acme/new", now=at(10))
        before, store_name = await contents(storage, at(10)), (await dumped(storage)).store
        told = await take(storage, Takeover(Mode.NAMESPACE, "acme"), link, now=at(20))
        assert counted(told) == {"acme": (1, 1, 1, 0), "acme/new": (0, 0, 1, 0), "acme/web": (1, 1, 1, 0)}
        after = await contents(storage, at(20))
        for name in names:
            held = {key: value[0] for (namespace, key), value in after.items() if namespace == name}
            if name in {"acme", "acme/web"}:
                assert held == {"k": b"1", "removed": b"1"}
            else:
                assert held == {"k": b"2", "new": b"2"}
        assert {ref: value for ref, value in after.items() if ref[0] in NEIGHBOURS} == {
            ref: value for ref, value in before.items() if ref[0] in NEIGHBOURS
        }
        assert await all_names(storage, now=at(20)) == sorted(names)
        assert await version_of(storage, "k", namespace="acme", now=at(20)) == 3
        assert (await dumped(storage)).store == store_name
        assert len(await all_sessions(storage, now=at(20))) == len(names)

    async def test_a_namespace_can_be_taken_over_under_another_name(self, storage: Storage) -> None:
        await configure(storage, "a", description="told")
        for namespace in ("a", "a/x"):
            await store(storage, "k", "old", namespace=namespace, session_id="s")
            await store(storage, "k", "older", namespace=namespace, now=at(1))
        await store(storage, "wrong", 1, namespace="b/y")
        link = await dumped(storage, at(5))
        await store(storage, "k", "new", namespace="a", now=at(10))
        before = [await storage.get(namespace, "k", at(10)) for namespace in ("a", "a/x")]
        told = await take(storage, Takeover(Mode.NAMESPACE, "a", "b"), link, now=at(20))
        assert counted(told) == {"b": (1, 0, 0, 0), "b/x": (1, 0, 0, 0), "b/y": (0, 0, 1, 0)}
        assert [await storage.get(namespace, "k", at(20)) for namespace in ("a", "a/x")] == before
        assert await all_names(storage, now=at(20)) == ["a", "a/x", "b", "b/x"]
        memories = {(one.namespace, one.key): one for one in (await dumped(storage, at(20))).memories}
        assert len({one.id for one in memories.values()}) == len(memories) == 4
        assert {ref: one.parsed() for ref, one in memories.items() if ref[0] != "a"} == {
            ("a/x", "k"): "older",
            ("b", "k"): "older",
            ("b/x", "k"): "older",
        }
        assert (await former(storage, "k", 1, namespace="b", now=at(20))).memory.value == b'"old"'
        assert await versions_kept(storage, "k", namespace="a", now=at(20)) == [2, 1]
        space = await storage.get_namespace("b", at(20))
        assert space is not None
        assert space.config == NamespaceConfig(description="told")
        assert await found(storage, "older", "b", now=at(20)) != []
        assert {one.namespace for one in await all_sessions(storage, now=at(20))} == {"a", "a/x", "b", "b/x"}

    async def test_a_namespace_that_is_gone_comes_back(self, storage: Storage) -> None:
        for n in range(3):
            await store(storage, "k", n, namespace="n", now=at(n))
        link = await dumped(storage, at(5))
        await storage.delete_namespace("n", at(10), recursive=True)
        with pytest.raises(NamespaceNotFoundError):
            await storage.delete_namespace("n", at(10), recursive=True)
        await take(storage, Takeover(Mode.NAMESPACE, "n"), link, now=at(20))
        assert await visible_versions(storage, at(20)) == {("n", "k"): 4}
        assert await versions_kept(storage, "k", namespace="n", now=at(20)) == [2, 1]
        for ticket in await storage.dead_namespaces():
            while await storage.purge(ticket, at(21), 9):
                pass
        assert await visible_versions(storage, at(21)) == {("n", "k"): 4}
        await assert_clean(storage)

    async def test_an_incremental_link_goes_on_after_a_takeover(self, storage: Storage) -> None:
        await fill(storage)
        link = await dumped(storage, at(50))
        await change(storage)
        links = [await dumped(storage, at(90))]
        await take(storage, Takeover(Mode.NAMESPACE, "acme/web"), link, now=at(91))
        links.append(await dumped(storage, at(95), after=links[0].seq, since=at(90)))
        other = await aside_with(storage, *links, now=at(95))
        assert await visible_versions(other, at(95)) == await visible_versions(storage, at(95))
        assert await contents(other, at(95)) == await contents(storage, at(95))
        await storage.drop_aside(other)

    # ---- whatever happened before

    @pytest.mark.parametrize("seed", range(2))
    @pytest.mark.parametrize("lineage", ["own", "another"])
    @pytest.mark.parametrize("mode", list(Mode))
    async def test_no_version_comes_twice_with_another_content(
        self, storage: Storage, mode: Mode, lineage: str, seed: int
    ) -> None:
        dice = random.Random(seed)
        seen: dict[tuple[str, str, int], bytes] = {}

        async def some_changes(changed: Storage, first: int, last: int) -> None:
            for step in range(first, last):
                await _any_change(changed, dice, at(step))
                if changed is storage:
                    await look(at(step))

        async def look(now: int) -> None:
            for ref, version in (await visible_versions(storage, now)).items():
                memory = await storage.get(*ref, now)
                assert memory is not None
                assert seen.setdefault((*ref, version), memory.value) == memory.value

        if lineage == "own":
            await some_changes(storage, 0, 40)
            link = await dumped(storage, at(40))
        else:
            link = await elsewhere(storage, lambda other: some_changes(other, 0, 40), at(40))
        await some_changes(storage, 40, 70)
        here = await contents(storage, at(70))
        other = await aside_with(storage, link, now=at(70))
        there = await contents(other, at(70))
        await storage.drop_aside(other)

        takeover = Takeover(mode, "a") if mode is Mode.NAMESPACE else Takeover(mode)
        told = await take(storage, takeover, link, now=at(70))
        after = await contents(storage, at(70))
        match mode:
            case Mode.REPLACE:
                expected = there
            case Mode.NAMESPACE:
                expected = {ref: value for ref, value in here.items() if not contains("a", ref[0])}
                expected |= {ref: value for ref, value in there.items() if contains("a", ref[0])}
            case _:
                expected = here | {
                    ref: value for ref, value in there.items() if ref not in here or here[ref][-1] < value[-1]
                }
        assert after == expected
        added, changed, removed, _ = (sum(numbers) for numbers in zip(*counted(told).values(), strict=True))
        assert added == len(after.keys() - here.keys())
        assert removed == len(here.keys() - after.keys())
        assert changed == len([ref for ref in here.keys() & after.keys() if here[ref] != after[ref]])
        memories = (await dumped(storage, at(70))).memories
        assert len({memory.id for memory in memories}) == len(memories)
        await look(at(70))
        await some_changes(storage, 71, 90)
        await assert_clean(storage)
