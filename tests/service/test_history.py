"""Former versions: listed, shown, brought back, taken out, pruned; and the feed of changes."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.service.asking import Held, raws
from unified_memory.model.clock import SECOND, to_rfc3339
from unified_memory.model.errors import (
    ChangesGoneError,
    ConflictError,
    InvalidCursorError,
    InvalidInputError,
    MemoryNotFoundError,
    ReadOnlyError,
    VersionConflictError,
    VersionGoneError,
)
from unified_memory.model.history import Event, Keeping, Kind, Past
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.service.drafting import Limits
from unified_memory.service.guard import Guard
from unified_memory.service.history import QUIET_POLLS, Histories, VersionHead
from unified_memory.service.namespaces import read_config
from unified_memory.service.requests import (
    Idempotent,
    MoveRequest,
    Place,
    RedactRequest,
    RestoreVersionRequest,
    UpdateRequest,
)
from unified_memory.storage.base import Storage
from unified_memory.storage.forwarding import Forwarding

STRANGER = Principal("stranger", ("elsewhere",))
WEB = Principal("web", ("acme/web",))


def looking(held: Held, storage: Storage | None = None, keeping: Keeping = Keeping(), **more: Any) -> Histories:  # noqa: B008 - it is frozen
    storage = storage or held.storage
    return Histories(storage, held.clock, Guard(storage, read_only=False, limit=0), Limits(), keeping, 7.0, **more)


async def delete(held: Held, key: str, namespace: str = "default") -> None:
    await held.service.memories.delete(ANONYMOUS, namespace, key)


async def store_three(held: Held, key: str = "k", namespace: str = "default") -> None:
    """Versions 1 to 3, a second apart, with the values 1 to 3; the clock stands at the third."""
    for number in (1, 2, 3):
        held.clock.advance(1)
        await held.store(key, number, namespace)


async def listed(histories: Histories, limit: int = 50) -> list[int]:
    told = await histories.versions(ANONYMOUS, "default", "k", limit=limit, cursor=None)
    return [one.version for one in told.versions]


# ---- versions


async def test_versions_tell_when_each_was_written_and_replaced(each: Held) -> None:
    await store_three(each)
    third = each.clock.now()
    told = await looking(each).versions(ANONYMOUS, "default", "k", limit=50, cursor=None)
    assert told.versions == [
        VersionHead(3, third, None, True, 1, True, None),
        VersionHead(2, third - SECOND, third, False, 1, True, None),
        VersionHead(1, third - 2 * SECOND, third - SECOND, False, 1, True, None),
    ]
    assert told.next_cursor is None


async def test_pages_of_versions_show_each_once_whatever_is_written_meanwhile(each: Held) -> None:
    await store_three(each)
    histories = looking(each)
    shown, cursor = [], None
    while True:
        page = await histories.versions(ANONYMOUS, "default", "k", limit=1, cursor=cursor)
        shown += [one.version for one in page.versions]
        cursor = page.next_cursor
        if cursor is None:
            break
        await each.store("k", "more")
    assert shown == [3, 2, 1]


class Replacing(Forwarding):
    """Others write the memory whenever its past is asked for."""

    def __init__(self, held: Held) -> None:
        super().__init__(held.storage)
        self.held = held

    async def past(self, namespace: str, key: str, now: int, **more: Any) -> list[Past]:
        await self.held.store(key, "more", namespace)
        past: list[Past] = await self._warm.past(namespace, key, now, **more)
        return past


async def test_no_version_is_told_twice_where_it_is_replaced_meanwhile(each: Held) -> None:
    await store_three(each)
    storage = Replacing(each)  # type: ignore[abstract]  # see `storage/forwarding.py`
    assert await listed(looking(each, storage)) == [3, 2, 1]


async def test_a_full_last_page_of_versions_has_no_cursor(each: Held) -> None:
    await store_three(each)
    page = await looking(each).versions(ANONYMOUS, "default", "k", limit=3, cursor=None)
    assert (len(page.versions), page.next_cursor) == (3, None)


async def test_versions_of_a_deleted_memory_are_all_former(each: Held) -> None:
    await store_three(each)
    await delete(each, "k")
    told = await looking(each).versions(ANONYMOUS, "default", "k", limit=50, cursor=None)
    assert [(one.version, one.current, one.ended_at is None) for one in told.versions] == [
        (3, False, False),
        (2, False, False),
        (1, False, False),
    ]


async def test_versions_of_what_never_was_are_not_found(each: Held) -> None:
    with pytest.raises(MemoryNotFoundError):
        await looking(each).versions(ANONYMOUS, "default", "k", limit=50, cursor=None)


async def test_a_cursor_belongs_to_one_memory(each: Held) -> None:
    await store_three(each)
    await store_three(each, "other")
    histories = looking(each)
    page = await histories.versions(ANONYMOUS, "default", "k", limit=1, cursor=None)
    with pytest.raises(InvalidCursorError):
        await histories.versions(ANONYMOUS, "default", "other", limit=1, cursor=page.next_cursor)


async def test_the_past_of_what_one_does_not_see_does_not_exist(each: Held) -> None:
    await store_three(each)
    histories = looking(each)
    with pytest.raises(MemoryNotFoundError):
        await histories.versions(STRANGER, "default", "k", limit=50, cursor=None)
    with pytest.raises(MemoryNotFoundError):
        await histories.version(STRANGER, "default", "k", 1)
    with pytest.raises(MemoryNotFoundError):
        await histories.as_of(STRANGER, "default", "k", to_rfc3339(each.clock.now()))
    with pytest.raises(MemoryNotFoundError):
        await histories.restore(STRANGER, RestoreVersionRequest("k"))
    with pytest.raises(MemoryNotFoundError):
        await histories.redact(STRANGER, RedactRequest("k"))
    assert (await each.retrieve("k")).version == 3


# ---- one version


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_each_version_is_shown_as_it_was(each: Held, version: int) -> None:
    await store_three(each)
    memory = await looking(each).version(ANONYMOUS, "default", "k", version)
    assert (memory.version, memory.value) == (version, b"%d" % version)


async def test_a_version_that_was_pruned_is_gone_and_one_that_never_was_is_not_found(each: Held) -> None:
    await store_three(each)
    histories = looking(each, keeping=Keeping(versions=1, days=None))
    assert await histories.prune() == 1
    with pytest.raises(VersionGoneError, match="no longer kept"):
        await histories.version(ANONYMOUS, "default", "k", 1)
    with pytest.raises(MemoryNotFoundError) as raised:
        await histories.version(ANONYMOUS, "default", "k", 4)
    assert not isinstance(raised.value, VersionGoneError)
    await delete(each, "k")
    with pytest.raises(VersionGoneError):
        await histories.version(ANONYMOUS, "default", "k", 1)
    with pytest.raises(InvalidInputError):
        await histories.version(ANONYMOUS, "default", "k", 0)


async def test_a_memory_is_shown_as_of_an_instant(each: Held) -> None:
    await store_three(each)
    third = each.clock.now()
    each.clock.advance(10)
    await delete(each, "k")
    each.clock.advance(10)
    histories = looking(each)

    async def version(instant: int) -> int:
        return (await histories.as_of(ANONYMOUS, "default", "k", to_rfc3339(instant))).version

    assert [await version(third + offset) for offset in (-2 * SECOND, -SECOND - 1, -SECOND, -1, 0)] == [1, 1, 2, 2, 3]
    assert await version(third + 10 * SECOND - 1) == 3
    for missing in (third - 2 * SECOND - 1, third + 10 * SECOND, each.clock.now()):
        with pytest.raises(MemoryNotFoundError):
            await version(missing)


@pytest.mark.parametrize("text", ["yesterday", "", "2025-13-01", "9999-12-31T23:59:59-23:59"])
async def test_as_of_takes_an_instant(held: Held, text: str) -> None:
    await held.store("k")
    with pytest.raises(InvalidInputError) as raised:
        await looking(held).as_of(ANONYMOUS, "default", "k", text)
    assert raised.value.field == "as_of"


async def test_as_of_does_not_tell_the_future(held: Held) -> None:
    await held.store("k")
    histories = looking(held)
    assert (await histories.as_of(ANONYMOUS, "default", "k", to_rfc3339(held.clock.now()))).version == 1
    with pytest.raises(InvalidInputError, match="future"):
        await histories.as_of(ANONYMOUS, "default", "k", to_rfc3339(held.clock.now() + 1))


# ---- restoring


async def test_a_restored_version_is_byte_for_byte_what_it_was(each: Held) -> None:
    metadata = {"tags": ["b", "a"], "importance": 9, "session_id": "s", "project_id": "p", "x": 1.50}
    first = await each.store("k", {"a": 1.0, "ü": ["1"]}, metadata=metadata)
    await each.store("k", "other")
    outcome = await looking(each).restore(ANONYMOUS, RestoreVersionRequest("k", version=1))
    restored = await each.retrieve("k")
    assert outcome.written
    assert not outcome.created
    assert outcome.memory is not None
    assert (outcome.memory.version, restored.version, restored.id) == (3, 3, first.id)
    for name in ("value", "attributes", "importance", "session_id", "project_id", "created_at", "expires_at"):
        assert getattr(restored, name) == getattr(first, name), name
    assert restored.updated_at == each.clock.now()


async def test_without_a_version_the_one_before_the_current_is_restored(each: Held) -> None:
    await store_three(each)
    histories = looking(each)
    await histories.restore(ANONYMOUS, RestoreVersionRequest("k"))
    assert (await each.retrieve("k")).value == b"2"
    await histories.restore(ANONYMOUS, RestoreVersionRequest("k"))
    assert (await each.retrieve("k")).value == b"3"


async def test_a_deleted_memory_comes_back_with_its_age(each: Held) -> None:
    first = await each.store("k", "v1")
    each.clock.advance(5)
    await each.store("k", "v2")
    await delete(each, "k")
    each.clock.advance(5)
    outcome = await looking(each).restore(ANONYMOUS, RestoreVersionRequest("k"))
    assert outcome.created
    memory = await each.retrieve("k")
    assert (memory.value, memory.version) == (b'"v2"', 3)
    assert (memory.created_at, memory.updated_at) == (first.created_at, each.clock.now())


async def test_the_newest_version_with_content_is_restored(each: Held) -> None:
    await store_three(each)
    histories = looking(each)
    await histories.redact(ANONYMOUS, RedactRequest("k", version=2))
    await histories.restore(ANONYMOUS, RestoreVersionRequest("k"))
    assert (await each.retrieve("k")).value == b"1"
    with pytest.raises(VersionGoneError, match="was redacted"):
        await histories.restore(ANONYMOUS, RestoreVersionRequest("k", version=2))


async def test_a_restored_version_keeps_the_instant_at_which_it_expires(each: Held) -> None:
    first = await each.store("k", "v1", ttl=100)
    each.clock.advance(40)
    await each.store("k", "v2")
    await looking(each).restore(ANONYMOUS, RestoreVersionRequest("k"))
    assert (await each.retrieve("k")).expires_at == first.expires_at


async def test_a_version_whose_time_has_passed_does_not_come_back(each: Held) -> None:
    await each.store("k", "v1", ttl=100)
    await each.store("k", "v2")
    each.clock.advance(100)
    with pytest.raises(ConflictError, match="Version 1 would be gone at once"):
        await looking(each).restore(ANONYMOUS, RestoreVersionRequest("k", version=1))
    assert (await each.retrieve("k")).version == 2


async def test_what_cannot_be_restored_is_refused(each: Held) -> None:
    await each.store("k", "v1")
    histories = looking(each)
    with pytest.raises(ConflictError, match="is the current one"):
        await histories.restore(ANONYMOUS, RestoreVersionRequest("k", version=1))
    with pytest.raises(ConflictError, match="No former version"):
        await histories.restore(ANONYMOUS, RestoreVersionRequest("k"))
    with pytest.raises(MemoryNotFoundError):
        await histories.restore(ANONYMOUS, RestoreVersionRequest("k", version=2))
    with pytest.raises(MemoryNotFoundError):
        await histories.restore(ANONYMOUS, RestoreVersionRequest("never"))
    assert (await each.retrieve("k")).version == 1


async def test_restoring_may_ask_for_the_current_version(each: Held) -> None:
    await store_three(each)
    histories = looking(each)
    with pytest.raises(VersionConflictError) as raised:
        await histories.restore(ANONYMOUS, RestoreVersionRequest("k", version=1, expected_version=2))
    assert raised.value.facts["current_version"] == 3
    assert (await histories.restore(ANONYMOUS, RestoreVersionRequest("k", version=1, expected_version=3))).written
    await delete(each, "k")
    with pytest.raises(VersionConflictError):
        await histories.restore(ANONYMOUS, RestoreVersionRequest("k", version=1, expected_version=4))
    assert (await histories.restore(ANONYMOUS, RestoreVersionRequest("k", version=1, expected_version=0))).created


async def test_nothing_is_restored_while_writes_are_off(each: Held) -> None:
    await store_three(each)
    storage = each.storage
    off = Histories(storage, each.clock, Guard(storage, read_only=True, limit=0), Limits(), Keeping(), 7.0)
    with pytest.raises(ReadOnlyError):
        await off.restore(ANONYMOUS, RestoreVersionRequest("k"))
    await each.service.upkeep.switch_read_only("maintenance")
    with pytest.raises(ReadOnlyError):
        await looking(each).restore(ANONYMOUS, RestoreVersionRequest("k"))
    assert (await each.retrieve("k")).version == 3


async def test_a_repeated_restore_gets_its_first_answer(each: Held) -> None:
    await each.store("k", "v1", ttl=100)
    await each.store("k", "v2")
    once = Idempotent("once", b"fingerprint")
    histories = looking(each)
    first = await histories.restore(ANONYMOUS, RestoreVersionRequest("k"), once)
    each.clock.advance(100)
    await each.store("k", "v4")
    again = await histories.restore(ANONYMOUS, RestoreVersionRequest("k"), once)
    assert first.memory is not None
    assert again.memory is not None
    assert (again.memory.version, again.memory.value) == (first.memory.version, first.memory.value) == (3, b'"v1"')
    assert (await each.retrieve("k")).value == b'"v4"'


class Overtaking(Forwarding):
    """Others write the memory whenever a former version of it was read, so many times."""

    def __init__(self, held: Held, times: int) -> None:
        super().__init__(held.storage)
        self.held = held
        self.times = times

    async def past_version(self, namespace: str, key: str, version: int, now: int) -> Past | None:
        past = await self._warm.past_version(namespace, key, version, now)
        if self.times:
            self.times -= 1
            await self.held.store(key, f"overtaken {self.times}", namespace)
        return past


async def test_the_version_before_the_current_one_is_that_of_the_instant_of_the_restore(each: Held) -> None:
    await store_three(each)
    storage = Overtaking(each, times=1)  # type: ignore[abstract]  # see `storage/forwarding.py`
    await looking(each, storage).restore(ANONYMOUS, RestoreVersionRequest("k"))
    memory = await each.retrieve("k")
    assert (memory.version, memory.value) == (5, b"3")


async def test_a_restore_that_is_always_overtaken_is_refused(each: Held) -> None:
    await store_three(each)
    storage = Overtaking(each, times=-1)  # type: ignore[abstract]  # as above
    with pytest.raises(VersionConflictError):
        await looking(each, storage).restore(ANONYMOUS, RestoreVersionRequest("k"))


# ---- redaction


class Forgetting(Forwarding):
    """Counts how often the index was made to forget, and what was redacted by then."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.calls: list[str] = []

    async def redact(self, *args: Any) -> Any:
        self.calls.append("redact")
        return await self._warm.redact(*args)

    async def forget(self) -> None:
        self.calls.append("forget")
        await self._warm.forget()


async def test_a_redacted_version_is_gone_and_known(each: Held) -> None:
    await store_three(each)
    storage = Forgetting(each.storage)  # type: ignore[abstract]  # as above
    histories = looking(each, storage)
    redacted = await histories.redact(ANONYMOUS, RedactRequest("k", version=1))
    assert redacted.versions == [1]
    assert storage.calls == ["redact", "forget"]
    with pytest.raises(VersionGoneError, match="was redacted"):
        await histories.version(ANONYMOUS, "default", "k", 1)
    heads = (await histories.versions(ANONYMOUS, "default", "k", limit=50, cursor=None)).versions
    assert [(one.version, one.kept, one.redacted_at) for one in heads] == [
        (3, True, None),
        (2, True, None),
        (1, False, each.clock.now()),
    ]


async def test_redacting_all_takes_the_current_one_too_also_while_writes_are_off(each: Held) -> None:
    await store_three(each)
    await each.service.upkeep.switch_read_only("maintenance")
    redacted = await looking(each).redact(ANONYMOUS, RedactRequest("k"))
    assert redacted.versions == [1, 2, 3]
    with pytest.raises(MemoryNotFoundError):
        await each.retrieve("k")


async def test_what_never_was_cannot_be_redacted(each: Held) -> None:
    await each.store("k")
    with pytest.raises(MemoryNotFoundError):
        await looking(each).redact(ANONYMOUS, RedactRequest("k", version=2))
    assert (await each.retrieve("k")).version == 1


# ---- the feed


def told(events: list[Event]) -> list[tuple[str, str | None, str, int | None]]:
    return [(one.namespace, one.key, one.kind.value, one.version) for one in events]


async def written(held: Held) -> None:
    await held.store("a", 1, "acme/web")
    await held.store("b", 1, "acme")
    await held.service.memories.update(ANONYMOUS, "acme/web", "a", UpdateRequest(metadata=raws({"x": 1})))
    await held.store("c", 1, "acme/web/deep")
    await delete(held, "a", "acme/web")


async def test_changes_are_told_in_commit_order(each: Held) -> None:
    await written(each)
    got = await looking(each).changes(ANONYMOUS, since=0, namespace=None, recursive=True, limit=50)
    assert told(got.changes) == [
        ("acme/web", "a", "store", 1),
        ("acme", "b", "store", 1),
        ("acme/web", "a", "update", 2),
        ("acme/web/deep", "c", "store", 1),
        ("acme/web", "a", "delete", 2),
    ]
    assert [one.seq for one in got.changes] == sorted({one.seq for one in got.changes})
    assert got.next == got.changes[-1].seq == await each.storage.last_seq()
    rest = await looking(each).changes(ANONYMOUS, since=got.next, namespace=None, recursive=True, limit=50)
    assert (rest.changes, rest.next) == ([], got.next)


@pytest.mark.parametrize(
    ("principal", "namespace", "deep", "keys"),
    [
        (ANONYMOUS, "acme/web", 1, "aaca"),
        (ANONYMOUS, "acme/web", 0, "aaa"),
        (ANONYMOUS, "acme/we", 1, ""),
        (WEB, None, 1, "aaca"),
        (WEB, "acme", 1, "aaca"),
        (WEB, "acme", 0, ""),
        (STRANGER, None, 1, ""),
    ],
)
async def test_changes_are_those_of_what_one_sees_and_asks_for(
    each: Held, principal: Principal, namespace: str | None, deep: int, keys: str
) -> None:
    await written(each)
    got = await looking(each).changes(principal, since=0, namespace=namespace, recursive=bool(deep), limit=50)
    assert "".join(str(one.key) for one in got.changes) == keys
    assert got.next == await each.storage.last_seq()


async def test_pages_of_changes_miss_none(each: Held) -> None:
    await written(each)
    histories = looking(each)
    since, pages = 0, []
    for _ in range(3):
        page = await histories.changes(WEB, since=since, namespace=None, recursive=True, limit=2)
        pages.append("".join(str(one.key) for one in page.changes))
        since = page.next
    assert pages == ["aa", "ca", ""]


async def test_changes_beyond_a_page_of_the_feed_are_told_too(held: Held) -> None:
    for number in range(2_000):
        await held.store(f"k{number}", namespace="acme")
    await held.store("last", namespace="acme/web")
    histories = looking(held, sleep=Rest(held, []))
    got = await histories.changes(WEB, since=0, namespace=None, recursive=True, limit=50)
    assert [one.key for one in got.changes] == ["last"]
    assert await first(histories.follow(WEB, since=0, namespace=None, recursive=True), 1) == ["last"]


async def test_changes_that_are_no_longer_kept_are_not_passed_over(each: Held) -> None:
    await written(each)
    each.clock.advance(7 * 24 * 3600 + 1)
    await each.store("new")
    histories = looking(each)
    await histories.prune()
    with pytest.raises(ChangesGoneError) as raised:
        await histories.changes(ANONYMOUS, since=0, namespace=None, recursive=True, limit=50)
    got = await histories.changes(
        ANONYMOUS, since=raised.value.facts["oldest"], namespace=None, recursive=True, limit=9
    )
    assert [one.key for one in got.changes] == ["new"]


@pytest.mark.parametrize("since", [-1, 1_000])
async def test_changes_begin_at_a_place_that_there_is(each: Held, since: int) -> None:
    await each.store("k")
    with pytest.raises(InvalidInputError) as raised:
        await looking(each).changes(ANONYMOUS, since=since, namespace=None, recursive=True, limit=50)
    assert raised.value.field == "since"
    with pytest.raises(InvalidInputError):
        await anext(looking(each).follow(ANONYMOUS, since=since, namespace=None, recursive=True))


class Rest:
    """Instead of waiting: stores what is next on the list."""

    def __init__(self, held: Held, keys: list[tuple[str, str]]) -> None:
        self.held = held
        self.keys = keys
        self.waits = 0

    async def __call__(self, _seconds: float) -> None:
        self.waits += 1
        if self.keys:
            namespace, key = self.keys.pop(0)
            await self.held.store(key, namespace=namespace)


async def first(events: AsyncIterator[Event | None], count: int) -> list[str | None]:
    """The keys of the next so many; None where it is only told that nothing is new."""
    found = []
    for _ in range(count):
        event = await anext(events)
        found.append(None if event is None else event.key)
    return found


async def test_who_follows_is_told_what_was_and_then_what_comes(each: Held) -> None:
    await written(each)
    rest = Rest(each, [("acme/web", "d"), ("acme", "hidden"), ("acme/web", "e")])
    histories = looking(each, sleep=rest)
    events = histories.follow(WEB, since=0, namespace=None, recursive=True)
    assert await first(events, 6) == ["a", "a", "c", "a", "d", "e"]
    assert rest.waits == 3


async def test_who_follows_from_now_on_is_told_at_once_that_nothing_is_there(each: Held) -> None:
    await written(each)
    rest = Rest(each, [])
    events = looking(each, sleep=rest).follow(ANONYMOUS, since=None, namespace=None, recursive=True)
    assert await first(events, 1) == [None]
    assert rest.waits == 0
    rest.keys = [("acme", "new")]
    assert await first(events, 1) == ["new"]
    assert rest.waits == 1
    assert await first(events, 2) == [None, None]
    assert rest.waits == 1 + 2 * QUIET_POLLS


class Ahead(Forwarding):
    """Tells a place behind the last change, and counts how often the feed is read."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.reads = 0

    async def last_seq(self) -> int:
        return await self._warm.last_seq() + 1

    async def feed(self, after: int, limit: int) -> list[Event]:
        self.reads += 1
        return await self._warm.feed(after, limit)


async def test_a_place_at_which_nothing_changed_is_looked_at_once(held: Held) -> None:
    await written(held)
    storage = Ahead(held.storage)  # type: ignore[abstract]  # as above
    events = looking(held, storage, sleep=Rest(held, [])).follow(ANONYMOUS, since=0, namespace=None, recursive=True)
    assert await first(events, 7) == ["a", "b", "a", "c", "a", None, None]
    assert storage.reads == 1


async def test_who_follows_from_where_nothing_is_kept_is_told_so(each: Held) -> None:
    await written(each)
    each.clock.advance(8 * 24 * 3600)
    histories = looking(each)
    await histories.prune()
    last = await each.storage.last_seq()
    with pytest.raises(ChangesGoneError):
        await anext(histories.follow(ANONYMOUS, since=last - 1, namespace=None, recursive=True))
    assert await anext(histories.follow(ANONYMOUS, since=last, namespace=None, recursive=True)) is None


async def test_expired_memories_and_whole_namespaces_are_told(each: Held) -> None:
    await each.store("k", namespace="n", ttl=1)
    await each.store("l", namespace="n")
    each.clock.advance(1)
    async for _ in each.service.upkeep.cleanup():
        pass
    await each.service.namespaces.delete(ANONYMOUS, "n", recursive=True, dry_run=False)
    got = await looking(each).changes(ANONYMOUS, since=0, namespace="n", recursive=True, limit=50)
    assert [(one.kind, one.key) for one in got.changes][2:] == [(Kind.EXPIRE, "k"), (Kind.DROP, None)]


async def test_who_sees_a_part_is_told_when_it_went_with_the_whole(each: Held) -> None:
    await each.store("k", namespace="acme/web")
    await each.service.namespaces.delete(ANONYMOUS, "acme", recursive=True, dry_run=False)
    got = await looking(each).changes(WEB, since=0, namespace=None, recursive=True, limit=50)
    assert [(one.kind, one.namespace) for one in got.changes][1:] == [(Kind.DROP, "acme/web")]


async def test_a_memory_that_moved_away_left_and_came(each: Held) -> None:
    await each.store("k", namespace="acme")
    places = Place("acme", "k"), Place("acme/web", "l")
    await each.service.memories.move(ANONYMOUS, MoveRequest(*places))
    histories = looking(each)
    got = await histories.changes(ANONYMOUS, since=0, namespace=None, recursive=True, limit=50)
    assert [(one.kind, one.namespace, one.key) for one in got.changes][1:] == [
        (Kind.MOVE, "acme", "k"),
        (Kind.STORE, "acme/web", "l"),
    ]
    assert [
        one.key for one in (await histories.changes(WEB, since=0, namespace=None, recursive=True, limit=9)).changes
    ] == ["l"]


# ---- pruning


async def test_each_namespace_keeps_as_much_as_it_says(each: Held) -> None:
    configs: dict[str, dict[str, Any]] = {
        "all": {"history_keep": None, "history_days": None},
        "none": {"history_keep": 0},
        "off": {"history_keep": None, "history_days": 0},
        "two": {"history_keep": 2},
        "day": {"history_keep": None, "history_days": 1},
    }
    for name in ("default", *configs):
        for _ in range(4):
            await each.store("k", "v", name)
        each.clock.advance(1)
    each.clock.advance(24 * 3600)
    for name in ("default", *configs):
        await each.store("k", "v", name)
    for name, config in configs.items():
        await each.service.namespaces.configure(ANONYMOUS, name, raws(config))
    histories = looking(each, keeping=Keeping(versions=3))
    assert await histories.prune() == 1 + 4 + 4 + 2 + 3
    kept = {
        name: [
            one.version
            for one in (await histories.versions(ANONYMOUS, name, "k", limit=50, cursor=None)).versions
            if not one.current
        ]
        for name in ("default", *configs)
    }
    assert kept == {"default": [4, 3, 2], "all": [4, 3, 2, 1], "none": [], "off": [], "two": [4, 3], "day": [4]}
    assert await histories.prune() == 0


async def test_more_is_pruned_than_goes_at_once(held: Held) -> None:
    for number in range(1_200):
        await held.store("k", number)
    histories = looking(held, keeping=Keeping(versions=10))
    assert await histories.prune() == 1_189
    assert await listed(histories) == [1200, 1199, 1198, 1197, 1196, 1195, 1194, 1193, 1192, 1191, 1190]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("history_keep", 0),
        ("history_keep", 100_000),
        ("history_keep", None),
        ("history_days", 0),
        ("history_days", 0.5),
        ("history_days", 36_500),
        ("history_days", None),
    ],
)
def test_a_namespace_says_how_much_of_the_past_it_keeps(name: str, value: Any) -> None:
    assert getattr(read_config(raws({name: value})), name) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("history_keep", -1),
        ("history_keep", 100_001),
        ("history_keep", 1.5),
        ("history_days", -0.1),
        ("history_days", 36_500.5),
        ("history_days", "1"),
    ],
)
def test_a_namespace_cannot_keep_less_than_nothing_or_more_than_a_life_holds(name: str, value: Any) -> None:
    with pytest.raises(InvalidInputError, match=name):
        read_config(raws({name: value}))
