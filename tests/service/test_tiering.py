"""What is archived and when, what comes back, and what nobody notices of it: on SQLite with archives beside it."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from tests.service.asking import Held, holding, raws, storing
from unified_memory.model.clock import SECOND, SettableClock
from unified_memory.model.errors import (
    ArchiveMissingError,
    InvalidInputError,
    MemoryNotFoundError,
    PermissionDeniedError,
    ReadOnlyError,
    RefusedError,
    StorageFullError,
)
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.model.query import Selection
from unified_memory.model.session import WithMemories
from unified_memory.service import tiering
from unified_memory.service.requests import (
    BatchKeysRequest,
    BatchStoreRequest,
    DeleteWhereRequest,
    ExactQuery,
    KeyRef,
    ListQuery,
    MoveRequest,
    PatchRequest,
    Place,
    RecallQuery,
    SearchQuery,
    SimilarQuery,
    StoreRequest,
    UpdateRequest,
)
from unified_memory.service.tiering import Policy
from unified_memory.storage import tiered
from unified_memory.storage.archive import Archive, Directory
from unified_memory.storage.base import Code
from unified_memory.storage.inmemory import InMemoryStorage
from unified_memory.storage.process import ProcessHot
from unified_memory.storage.sqlite import SQLiteStorage
from unified_memory.storage.tiered import TieredStorage
from unified_memory.storage.tiers import Moved
from unified_memory.storage.warm import Place as ColdPlace
from unified_memory.storage.warm import TierUses
from unified_memory.worker import Worker

DAY = 86_400
BOUND_SECONDS = 20


def tiers_at(
    directory: Path, clock: SettableClock, kind: type[SQLiteStorage] = SQLiteStorage, *, hot: bool = False
) -> TieredStorage:
    archive = Archive(Directory(directory / "archive"))
    warm = kind(directory / "memory.db", clock=clock, cold=archive)
    copies = ProcessHot(warm, max_bytes=2**20, ttl=3600) if hot else None
    return TieredStorage(warm, clock, hot=copies, archive=archive)  # type: ignore[abstract]  # see `storage/forwarding.py`


@contextlib.asynccontextmanager
async def service_at(
    directory: Path, policy: Policy | None = None, clock: SettableClock | None = None, **settings: Any
) -> AsyncIterator[Held]:
    """A service of a warm and a cold tier; at the end nothing disagrees with anything."""
    clock = clock or SettableClock()
    async with holding(tiers_at(directory, clock), clock, policy=policy, **settings) as one:
        yield one
        assert await one.service.upkeep.check(fix=False) == []


@pytest.fixture
async def one(directory: Path) -> AsyncIterator[Held]:
    async with service_at(directory) as held:
        yield held


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file for a few memories, too."""
    monkeypatch.setattr(tiering, "LEAST_MEMORIES", 0)


def tiers_of(one: Held) -> TieredStorage:
    assert isinstance(one.storage, TieredStorage)
    return one.storage


async def everything(one: Held) -> list[Memory]:
    """All that is visible, as it lies; nothing of it is promoted."""
    return (await one.storage.select(Selection(scopes=("",), limit=1000), one.clock.now())).items


async def cold(one: Held) -> set[str]:
    """The keys of what is cold."""
    return {memory.key for memory in await everything(one) if memory.tier == "cold"}


async def demote(one: Held) -> Moved:
    """One pass."""
    moved = Moved()
    async for part in one.service.tiering.demote():
        moved += part
    return moved


async def archive(one: Held, namespace: str = "default", *, recursive: bool = True) -> Moved:
    moved = Moved()
    async for part in one.service.tiering.archive(ANONYMOUS, namespace, recursive=recursive):
        moved += part
    return moved


async def recall(one: Held, namespace: str = "default", *, recursive: bool = True) -> Moved:
    moved = Moved()
    async for part in one.service.tiering.recall(ANONYMOUS, namespace, recursive=recursive):
        moved += part
    return moved


async def compact(one: Held) -> list[tuple[int, int]]:
    """One pass: (carried over, damaged) of each archive."""
    return [(each.memories, each.damaged) async for each in one.service.tiering.compact()]


async def cleanup(one: Held) -> None:
    async for _ in one.service.upkeep.cleanup():
        pass


async def store_many(one: Held, keys: Sequence[str], size: int = 0, namespace: str = "default", **more: Any) -> None:
    requests: list[StoreRequest] = [storing(key, f"{key} {'-' * size}", namespace, **more) for key in keys]
    await one.service.memories.store_batch(ANONYMOUS, BatchStoreRequest(requests))


# ---- by age
@pytest.mark.usefixtures("at_once")
async def test_what_was_not_used_for_longer_than_demote_after_is_archived(directory: Path) -> None:
    async with service_at(directory, Policy(demote_after=10)) as one:
        await one.store("k")
        one.clock.advance(10)
        assert await demote(one) == Moved()
        one.clock.advance(0.000001)
        assert await demote(one) == Moved(1, len(b'"v"'))
        assert await cold(one) == {"k"}
        assert await demote(one) == Moved()


@pytest.mark.usefixtures("at_once")
async def test_a_write_or_an_access_that_was_written_down_keeps_a_memory_warm(directory: Path) -> None:
    async with service_at(directory, Policy(demote_after=10)) as one:
        await store_many(one, ["unused", "retrieved", "updated", "listed"])
        one.clock.advance(8)
        await one.retrieve("retrieved")
        await one.service.upkeep.flush()
        await one.service.memories.update(ANONYMOUS, "default", "updated", UpdateRequest(metadata=raws({"a": 1})))
        await one.service.memories.list_all(ANONYMOUS, ListQuery())
        one.clock.advance(8)
        await demote(one)
        assert await cold(one) == {"unused", "listed"}


@pytest.mark.usefixtures("at_once")
async def test_a_namespace_says_for_itself_and_all_below_when_its_memories_are_archived(directory: Path) -> None:
    async with service_at(directory, Policy(demote_after=10 * DAY)) as one:
        for name, after in (("soon", DAY), ("soon/never", None), ("soon/never/late", 20 * DAY), ("sooner", 10 * DAY)):
            await one.service.namespaces.create(ANONYMOUS, name, raws({"demote_after": after}))
        for name in ("soon", "soon/below", "soon/never", "soon/never/below", "soon/never/late", "soon-not", "sooner"):
            await one.store(name, namespace=name)
        one.clock.advance(2 * DAY)
        await demote(one)
        assert await cold(one) == {"soon", "soon/below"}
        one.clock.advance(9 * DAY)
        await demote(one)
        assert await cold(one) == {"soon", "soon/below", "soon-not", "sooner"}
        one.clock.advance(10 * DAY)
        await demote(one)
        assert await cold(one) == {"soon", "soon/below", "soon-not", "sooner", "soon/never/late"}


@pytest.mark.usefixtures("at_once")
async def test_longer_without_use_than_there_is_time_is_never(directory: Path) -> None:
    async with service_at(directory, Policy()) as one:
        await one.service.namespaces.create(ANONYMOUS, "a", raws({"demote_after": 10**15 - 1}))
        await one.store("l", namespace="a")
        one.clock.advance(1000 * DAY)
        assert await demote(one) == Moved()


@pytest.mark.usefixtures("at_once")
async def test_without_a_default_only_namespaces_that_say_so_are_archived(directory: Path) -> None:
    async with service_at(directory, Policy()) as one:
        await one.store("k")
        one.clock.advance(1000 * DAY)
        assert await demote(one) == Moved()
        await one.store("l", namespace="a")
        await one.service.namespaces.configure(ANONYMOUS, "a", raws({"demote_after": 1}))
        one.clock.advance(2)
        assert (await demote(one)).memories == 1
        assert await cold(one) == {"l"}


@pytest.mark.parametrize(("count", "size", "archived"), [(499, 0, 0), (500, 0, 1), (3, 20_000, 0), (4, 20_000, 1)])
async def test_a_file_is_written_once_enough_has_come_together(
    count: int, size: int, archived: int, directory: Path
) -> None:
    async with service_at(directory, Policy(demote_after=10)) as one:
        await store_many(one, [f"k{i:03}" for i in range(count)], size)
        one.clock.advance(11)
        assert (await demote(one)).memories == count * archived
        assert len(await tiers_of(one).archives()) == archived


# ---- by size
@pytest.mark.parametrize("asked", ["importance", "use"])
async def test_the_least_important_goes_first_and_then_what_was_not_used_for_longest(
    asked: str, directory: Path
) -> None:
    async with service_at(directory, Policy(value_bytes=10_000)) as one:
        for place in range(12):
            importance = 5 if asked == "use" else (place * 5) % 12 % 10 + 1
            await one.store(f"{place}", "-" * 998, metadata={"importance": importance})
            one.clock.advance(1)
        if asked == "use":
            await one.retrieve("0")
            await one.service.upkeep.flush()
        before = {memory.key: memory.importance for memory in await everything(one)}
        moved = await demote(one)
        # Down to nine tenths.
        assert moved == Moved(3, 3_000)
        if asked == "use":
            assert await cold(one) == {"1", "2", "3"}
        else:
            order = sorted(before, key=lambda key: (before[key], int(key)))
            assert await cold(one) == set(order[:3])
        assert await demote(one) == Moved()


async def test_values_up_to_the_limit_stay(directory: Path) -> None:
    async with service_at(directory, Policy(value_bytes=10_000)) as one:
        await store_many(one, [f"{i}" for i in range(10)], 1000 - len('"0 "'))
        assert await demote(one) == Moved()
        await one.store("more", 1)
        assert (await demote(one)).memories == 2
        assert (await tiers_of(one).uses(("",), one.clock.now(), recursive=True)).warm_bytes <= 9_000


async def test_a_database_above_its_size_gives_values_away_and_its_room_back(directory: Path) -> None:
    limit = 3_000_000
    async with service_at(directory, Policy(warm_bytes=limit)) as one:
        for part in range(10):
            await store_many(one, [f"{part}/{i}" for i in range(5)], 80_000)
        await one.storage.shrink()
        assert await tiers_of(one).warm_files() > limit
        assert 0 < (await demote(one)).memories < 50
        assert await tiers_of(one).warm_files() <= limit
        assert await demote(one) == Moved()


@pytest.mark.usefixtures("at_once")
async def test_a_pass_that_finds_nothing_to_give_away_ends(directory: Path) -> None:
    async with service_at(directory, Policy(warm_bytes=1, value_bytes=1)) as one:
        await store_many(one, ["a", "b"], 100)
        assert (await demote(one)).memories == 2
        assert await demote(one) == Moved()


# ---- coming back
async def test_a_retrieve_promotes(one: Held) -> None:
    keys = ["key", "id", "batch 1", "batch 2"]
    memories = {key: await one.store(key, {"of": key}) for key in keys}
    await archive(one)
    assert await cold(one) == set(keys)
    retrieved = [
        await one.retrieve("key"),
        await one.service.memories.retrieve_id(ANONYMOUS, memories["id"].id),
        *await one.service.memories.retrieve_batch(
            ANONYMOUS, BatchKeysRequest([KeyRef("batch 1"), KeyRef("nothing"), KeyRef("batch 2")])
        ),
    ]
    found = {memory.key: memory for memory in retrieved if memory is not None}
    assert {key: memory.value for key, memory in found.items()} == {key: m.value for key, m in memories.items()}
    # It tells where it lay.
    assert {memory.tier for memory in found.values()} == {"cold"}
    assert await cold(one) == set()
    assert (await one.retrieve("key")).tier == "warm"
    assert [(m.version, m.seq, m.updated_at) for m in await everything(one)] == [
        (m.version, m.seq, m.updated_at) for m in memories.values()
    ]


async def test_nothing_else_that_reads_promotes(one: Held) -> None:
    await one.store("k", {"text": "an azure bicycle"})
    await one.store("l", {"text": "an azure bicycle, too"})
    await archive(one)
    memories, searching = one.service.memories, one.service.searching
    assert len((await memories.list_all(ANONYMOUS, ListQuery())).memories) == 2
    assert len((await searching.search(ANONYMOUS, SearchQuery("azure"))).hits) == 2
    assert len((await searching.similar(ANONYMOUS, SimilarQuery(key="k"))).hits) == 1
    assert len((await searching.recall(ANONYMOUS, RecallQuery(messages=["the bicycle"]))).hits) == 2
    assert len((await memories.query(ANONYMOUS, ExactQuery({"value.text": {"contains": "too"}}))).memories) == 1
    assert await cold(one) == {"k", "l"}


async def test_what_is_not_seen_is_not_promoted(one: Held) -> None:
    stranger = Principal("stranger", ("acme-corp",))
    memory = await one.store("k", namespace="acme")
    await archive(one, "acme")
    with pytest.raises(MemoryNotFoundError):
        await one.retrieve("k", "acme", stranger)
    with pytest.raises(MemoryNotFoundError):
        await one.service.memories.retrieve_id(stranger, memory.id)
    asked = BatchKeysRequest([KeyRef("k", "acme")])
    assert await one.service.memories.retrieve_batch(stranger, asked) == [None]
    assert await cold(one) == {"k"}


async def test_while_writes_are_off_a_retrieve_answers_and_promotes_nothing(directory: Path) -> None:
    async with service_at(directory) as one:
        memory = await one.store("k")
        await archive(one)
        await one.service.upkeep.switch_read_only("a backup")
        assert (await one.retrieve("k")).value == b'"v"'
        assert (await one.service.memories.retrieve_id(ANONYMOUS, memory.id)).value == b'"v"'
        with pytest.raises(ReadOnlyError):
            await recall(one)
        assert await cold(one) == {"k"}
        await one.service.upkeep.switch_read_only(None)
    async with service_at(directory, read_only=True) as one:
        assert (await one.retrieve("k")).value == b'"v"'
        assert await cold(one) == {"k"}
    async with service_at(directory) as one:
        await one.retrieve("k")
        assert await cold(one) == set()


async def test_hot_copies_count_each_access_once_and_tell_no_tier_that_was(directory: Path) -> None:
    clock = SettableClock()
    async with holding(tiers_at(directory, clock, hot=True), clock) as one:
        await one.store("k")
        await archive(one)
        seen = []
        for _ in range(5):
            memory = await one.retrieve("k")
            seen.append((memory.tier == "cold", memory.access_count))
            # Copies are made behind an answer.
            await asyncio.sleep(0)
        assert seen == [(True, 1), *((False, count) for count in range(2, 6))]
        assert tiers_of(one).counts.promotions == 1
        await one.service.upkeep.flush()
        assert (await one.retrieve("k")).access_count == 6
        hits = tiers_of(one).hot_state().counts.hits
        assert hits
        await archive(one)
        assert [(await one.retrieve("k")).tier for _ in range(2)] == ["cold", "warm"]
        assert tiers_of(one).counts.promotions == 2


async def test_a_retrieve_that_cannot_promote_answers(directory: Path) -> None:
    class Full(SQLiteStorage):
        async def take_back(self, values: Sequence[tuple[int, int, bytes]]) -> tuple[int, int]:  # noqa: ARG002 - none is taken
            raise StorageFullError

    clock = SettableClock()
    async with holding(tiers_at(directory, clock, Full), clock) as one:
        await one.store("k")
        await archive(one)
        assert (await one.retrieve("k")).value == b'"v"'
        assert await cold(one) == {"k"}


@pytest.mark.parametrize("way", ["value", "metadata", "patch", "store", "move"])
async def test_a_change_of_a_cold_memory_is_one_of_any_other(way: str, one: Held) -> None:
    await one.store("k", {"n": 1}, metadata={"tags": ["t"]})
    await archive(one)
    memories = one.service.memories
    changes: dict[str, tuple[Callable[[], Awaitable[Any]], str, bytes]] = {
        "value": (lambda: memories.update(ANONYMOUS, "default", "k", UpdateRequest(Raw(b"2"))), "k", b"2"),
        "metadata": (
            lambda: memories.update(ANONYMOUS, "default", "k", UpdateRequest(metadata=raws({"importance": 9}))),
            "k",
            b'{"n":1}',
        ),
        "patch": (
            lambda: memories.patch(ANONYMOUS, "default", "k", PatchRequest(increment={"n": Raw(b"1")})),
            "k",
            b'{"n":2}',
        ),
        "store": (lambda: one.store("k", 3), "k", b"3"),
        "move": (
            lambda: memories.move(ANONYMOUS, MoveRequest(Place("default", "k"), Place("other", "moved"))),
            "moved",
            b'{"n":1}',
        ),
    }
    change, key, value = changes[way]
    await change()
    (memory,) = await everything(one)
    assert (memory.key, memory.value, memory.version) == (key, value, 2)


async def test_a_namespace_with_cold_memories_can_be_moved_and_ended_as_any_other(one: Held) -> None:
    await one.store("k", "lanterns", "acme/web", metadata={"session_id": "s"})
    await one.store("l", "lanterns", "acme/web", metadata={"session_id": "s"})
    await archive(one, "acme")
    assert await one.service.memories.move(ANONYMOUS, MoveRequest(Place("acme"), Place("b"))) == 2
    assert await cold(one) == {"k", "l"}
    hits = (await one.service.searching.search(ANONYMOUS, SearchQuery("lantern", namespace="b"))).hits
    assert {hit.memory.namespace for hit in hits} == {"b/web"}
    assert (await one.retrieve("k", "b/web")).value == b'"lanterns"'
    await one.storage.end_session("b/web", "s", WithMemories.DELETE, one.clock.now())
    assert await everything(one) == []
    await cleanup(one)
    assert sum(each.live for each in await tiers_of(one).archives()) == 0


async def test_words_of_cold_memories_are_indexed_again_in_another_language(one: Held) -> None:
    await one.store("k", "die Laternen", "acme")
    await archive(one, "acme")
    await one.service.namespaces.configure(ANONYMOUS, "acme", raws({"language": "german"}))
    await cleanup(one)
    hits = (await one.service.searching.search(ANONYMOUS, SearchQuery("Laterne", namespace="acme"))).hits
    assert [hit.memory.key for hit in hits] == ["k"]
    assert await cold(one) == {"k"}


# ---- time
async def test_a_memory_expires_at_its_instant_in_every_tier(one: Held) -> None:
    keys = ["warm", "cold", "promoted", "compacted"]
    for key in keys:
        await one.store(key, ttl=100)
    await one.store("kept")
    expires_at = one.clock.now() + 100 * SECOND
    one.clock.advance(50)
    numbers = {memory.key: memory.id for memory in await everything(one)}
    tiers = tiers_of(one)
    for group in (("promoted", "compacted"), ("cold",)):
        chosen = await tiers.demotable(("",), one.clock.now(), recursive=True, used_before=expires_at, limit=10)
        wanted = [each for each in chosen if each.id in {numbers[key] for key in group}]
        assert (await tiers.demote(wanted, one.clock.now())).memories == len(group)
    await one.retrieve("promoted")
    assert await compact(one) == [(1, 0)]
    assert await cold(one) == {"cold", "compacted"}
    assert {memory.expires_at for memory in await everything(one)} == {expires_at, None}

    one.clock.instant = expires_at - 1
    assert len(await everything(one)) == len(keys) + 1
    assert len((await one.service.searching.search(ANONYMOUS, SearchQuery("cold"))).hits) == 1
    one.clock.instant = expires_at
    assert [memory.key for memory in await everything(one)] == ["kept"]
    for key in keys:
        with pytest.raises(MemoryNotFoundError):
            await one.retrieve(key)
        assert (await one.service.searching.search(ANONYMOUS, SearchQuery(key))).hits == []
    assert await tiers.archived_ids(("",), one.clock.now(), recursive=True, after_id=0, limit=10) == []
    assert await one.service.tiering.plan(ANONYMOUS, "default", recursive=True) == TierUses(1, len(b'"v"'))
    assert await recall(one) == Moved()

    await cleanup(one)
    assert sum(each.live for each in await tiers.archives()) == 0
    await all_go(one)


async def all_go(one: Held) -> None:
    """Archives in which nothing lives go, and their files."""
    tiers = tiers_of(one)
    assert await tiers.archives()
    for _ in range(2):
        await compact(one)
        one.clock.advance(61)
    assert await tiers.archives() == []
    assert await tiers.size() == await tiers.warm_files()


async def test_what_expired_while_it_was_cold_leaves_nothing(one: Held) -> None:
    await store_many(one, ["a", "b"], ttl=10)
    await archive(one)
    one.clock.advance(10)
    await cleanup(one)
    assert [each.live for each in await tiers_of(one).archives()] == [0]
    await all_go(one)


async def test_a_deleted_namespace_leaves_nothing_in_archives(one: Held) -> None:
    await store_many(one, ["a", "b"], namespace="gone/below")
    await one.store("kept", namespace="gone-not")
    await archive(one, "gone")
    await one.service.namespaces.delete(ANONYMOUS, "gone", recursive=True, dry_run=False)
    assert await tiers_of(one).archived_ids(("",), one.clock.now(), recursive=True, after_id=0, limit=10) == []
    await cleanup(one)
    assert [each.live for each in await tiers_of(one).archives()] == [0]
    assert [memory.key for memory in await everything(one)] == ["kept"]
    await all_go(one)


async def test_deleted_cold_memories_leave_no_words_and_no_vectors(one: Held) -> None:
    words = {"a": "violin", "b": "harbour", "c": "kettle", "d": "orchard"}
    memories = [await one.store(key, word) for key, word in words.items()]
    await one.storage.put_vectors("m@00/8", [Code(m.id, m.seq, m.key.encode() * 13) for m in memories])
    await archive(one)
    assert (await one.storage.vector_counts("m@00/8", one.clock.now())).embedded == len(words)
    await one.service.memories.delete(ANONYMOUS, "default", "a")
    await one.service.memories.delete_batch(ANONYMOUS, BatchKeysRequest([KeyRef("b")]))
    selection, found = await one.service.memories.matching(ANONYMOUS, DeleteWhereRequest({"value": "kettle"}))
    assert found.matched == 1
    assert [part async for part in one.service.memories.change_where(selection, None)] == [1]
    for key, word in words.items():
        hits = (await one.service.searching.search(ANONYMOUS, SearchQuery(word))).hits
        assert [hit.memory.key for hit in hits] == (["d"] if key == "d" else [])
    assert (await one.storage.vector_counts("m@00/8", one.clock.now())).embedded == 1
    assert [each.live for each in await tiers_of(one).archives()] == [1]


async def test_vectors_stay_when_values_move(one: Held) -> None:
    memories = [await one.store(key) for key in "abc"]
    codes = [Code(m.id, m.seq, m.key.encode() * 13) for m in memories]
    assert await one.storage.put_vectors("m@00/8", codes) == 3

    async def held() -> list[tuple[int, bytes]]:
        news = await one.storage.vector_news("m@00/8", ("",), recursive=True, after_place=0, after_seq=0, limit=10)
        return [(vector.id, vector.code) for vector in news.vectors]

    before, last = await held(), await one.storage.last_seq()
    await archive(one)
    assert await held() == before
    assert await one.storage.unembedded("m@00/8", one.clock.now(), 0, 10) == []
    await one.retrieve("a")
    await one.retrieve("b")
    assert await compact(one) == [(1, 0)]
    assert await held() == before
    # Nothing has happened, for whoever follows what happens.
    assert await one.storage.last_seq() == last


# ---- on purpose
async def test_a_namespace_is_archived_and_recalled_alone_or_with_all_below_it(one: Held) -> None:
    names = ["acme", "acme/web", "acme/web/x", "acme-corp", "acme0"]
    for name in names:
        await one.store(name, namespace=name)
    assert (await archive(one, "acme", recursive=False)).memories == 1
    assert await cold(one) == {"acme"}
    assert await archive(one, "acme") == Moved(2, 2 * len('"v"'))
    assert await cold(one) == {"acme", "acme/web", "acme/web/x"}
    assert (await archive(one, "acme0")).memories == 1
    assert (await recall(one, "acme", recursive=False)).memories == 1
    assert await cold(one) == {"acme/web", "acme/web/x", "acme0"}
    assert (await recall(one, "acme")).memories == 2
    assert await cold(one) == {"acme0"}
    assert await recall(one, "acme") == Moved()
    assert await recall(one, "nothing") == Moved()


async def test_more_than_one_page_is_archived_and_recalled(one: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiering, "RECALLED", 3)
    monkeypatch.setattr(tiering, "ARCHIVE_MEMORIES", 4)
    monkeypatch.setattr(tiered, "CHUNK", 2)
    monkeypatch.setattr(tiered, "STUBS", 3)
    await store_many(one, [f"{i}" for i in range(10)])
    assert (await archive(one)).memories == 10
    assert [each.live for each in await tiers_of(one).archives()] == [4, 4, 2]
    assert (await recall(one)).memories == 10
    assert await cold(one) == set()


async def test_an_archive_holds_no_more_than_so_many_bytes(one: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiering, "ARCHIVE_BYTES", 2_500)
    await store_many(one, [f"{i}" for i in range(6)], 1_000)
    assert (await archive(one)).memories == 6
    assert [each.live for each in await tiers_of(one).archives()] == [3, 3]


async def test_only_who_sees_a_namespace_may_move_it(one: Held) -> None:
    await one.store("k", namespace="acme/web")
    service = one.service.tiering
    for principal in (Principal("above", ("acme/web/x",)), Principal("beside", ("acme-corp", "acme/we"))):
        for move in (service.archive, service.recall):
            with pytest.raises(PermissionDeniedError):
                async for _ in move(principal, "acme/web", recursive=True):
                    pass
        with pytest.raises(PermissionDeniedError):
            await service.plan(principal, "acme/web", recursive=True)
    with pytest.raises(PermissionDeniedError):
        await service.plan(Principal("below", ("acme/web",)), "acme", recursive=True)
    assert await cold(one) == set()
    with pytest.raises(InvalidInputError):
        await archive(one, "acme/")
    owner = Principal("owner", ("acme",))
    assert [moved.memories async for moved in service.archive(owner, "acme/web", recursive=True)] == [1]


async def test_a_plan_says_what_lies_where_and_moves_nothing(one: Held) -> None:
    await store_many(one, ["a", "b"], 10, "acme")
    await one.store("c", namespace="acme/web")
    await one.store("expired", namespace="acme", ttl=1)
    one.clock.advance(1)
    await archive(one, "acme/web")
    plan = one.service.tiering.plan
    size = len('"a "') + 10
    assert await plan(ANONYMOUS, "acme", recursive=True) == TierUses(2, 2 * size, 1, len('"v"'))
    assert await plan(ANONYMOUS, "acme", recursive=False) == TierUses(2, 2 * size, 0, 0)
    assert await plan(ANONYMOUS, "acme-corp", recursive=True) == TierUses()
    assert await cold(one) == {"c"}
    assert await archive(one, "acme") == Moved(2, 2 * size)


async def test_without_a_cold_tier_nothing_is_archived_and_it_is_said_why(directory: Path) -> None:
    clock = SettableClock()
    storage = TieredStorage(SQLiteStorage(directory / "memory.db", clock=clock), clock, cold_off="it is off")  # type: ignore[abstract]
    async with holding(storage, clock, policy=Policy(demote_after=1, value_bytes=1)) as one:
        await one.store("k")
        one.clock.advance(DAY)
        assert await demote(one) == Moved()
        assert await compact(one) == []
        with pytest.raises(RefusedError, match="it is off"):
            await archive(one)
        state = await one.service.tiering.state()
        assert state is not None
        assert (state.cold_off, state.uses.warm) == ("it is off", 1)
        assert (await one.retrieve("k")).tier == "warm"


async def test_a_storage_of_one_tier_says_so(held: Held) -> None:
    await held.store("k")
    state = await held.service.tiering.state()
    assert (state.uses, state.archives, state.cold_off) == (TierUses(1, 3), [], "The storage has one tier only")
    assert await demote(held) == Moved()
    assert await compact(held) == []
    for work in (archive(held), recall(held), held.service.tiering.plan(ANONYMOUS, "default", recursive=True)):
        with pytest.raises(RefusedError):
            await work
    assert isinstance(held.storage, InMemoryStorage)


# ---- archives
async def test_an_archive_of_which_half_is_dead_is_compacted(one: Held) -> None:
    await store_many(one, [f"{i}" for i in range(10)], 100)
    await archive(one)
    for number in range(4):
        await one.retrieve(f"{number}")
        assert await compact(one) == []
    await one.service.memories.delete(ANONYMOUS, "default", "4")
    assert await compact(one) == [(5, 0)]
    old, new = await tiers_of(one).archives()
    assert (old.state, old.live, new.state, new.live, new.memories) == ("dead", 0, "live", 5, 5)
    one.clock.advance(59)
    assert await compact(one) == []
    # Its file stays for a minute, for those who read what was.
    assert [each.name for each in await tiers_of(one).archives()] == [old.name, new.name]
    one.clock.advance(1)
    assert await compact(one) == []
    assert [each.name for each in await tiers_of(one).archives()] == [new.name]
    for number in range(5, 10):
        assert (await one.retrieve(f"{number}")).tier == "cold"
    await all_go(one)


async def test_the_file_of_an_interrupted_demotion_is_not_kept_for_the_few_that_it_moved(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiered, "STUBS", 2)

    class Full(SQLiteStorage):
        puts = 0

        async def put_stubs(self, archive: str, places: Sequence[ColdPlace]) -> tuple[int, int]:
            self.puts += 1
            if self.puts > 1:
                raise StorageFullError
            return await super().put_stubs(archive, places)

    clock = SettableClock()
    async with holding(tiers_at(directory, clock, Full), clock) as one:
        await store_many(one, [f"{i}" for i in range(10)], 1_000)
        with pytest.raises(StorageFullError):
            await archive(one)
        assert await cold(one) == {"0", "1"}
        assert [each.state for each in await tiers_of(one).archives()] == ["writing"]
    async with service_at(directory, clock=clock) as one:
        assert await compact(one) == []
        clock.advance(3601)
        await compact(one)
        clock.advance(61)
        await compact(one)
        (left,) = await tiers_of(one).archives()
        assert (left.state, left.live, left.memories) == ("live", 2, 2)
        # What the file holds, too.
        found = [each async for each in _blocks(directory, left.name)]
        assert sum(found) == 2
        assert await cold(one) == {"0", "1"}


async def _blocks(directory: Path, name: str) -> AsyncIterator[int]:
    """How many values each block of an archive holds."""
    for block in Archive(Directory(directory / "archive")).verify(name):
        yield len(getattr(block, "ids", ()))


# ---- finding
async def test_cold_memories_are_found_and_shown_as_warm_ones(one: Held) -> None:
    for number in range(6):
        await one.store(
            f"k{number}",
            {
                "text": f"the {number}th lantern by the harbour",
                "n": number,
                "kind": "even" if number % 2 == 0 else "odd",
            },
            metadata={"tags": ["t"], "importance": number + 1},
        )

    async def asked() -> list[Any]:
        memories, searching = one.service.memories, one.service.searching
        found = await searching.search(
            ANONYMOUS, SearchQuery("lantern harbour", explain=True, filter={"value.n": {"gt": 1}})
        )
        by_value = await memories.query(ANONYMOUS, ExactQuery({"value.n": {"gte": 2}}, order_by="-value.n", count=True))
        rows = await memories.query(ANONYMOUS, ExactQuery(select=["key", "value.kind"], order_by="value.kind"))
        groups = await memories.query(ANONYMOUS, ExactQuery(group_by="value.kind", count=True))
        by_tag = await memories.query(ANONYMOUS, ExactQuery({"tags": {"contains": "t"}}, order_by="-importance"))
        listed = await memories.list_all(ANONYMOUS, ListQuery(order_by="-key", limit=4))
        return [
            [(hit.memory.key, hit.score, hit.snippet, hit.matched, hit.spans, hit.memory.value) for hit in found.hits],
            ([memory.key for memory in by_value.memories], by_value.count),
            rows.rows,
            (groups.groups, groups.count),
            [memory.key for memory in by_tag.memories],
            ([memory.value for memory in listed.memories], listed.next_cursor),
        ]

    before = await asked()
    assert before[0]
    assert before[1] == (["k5", "k4", "k3", "k2"], 4)
    await archive(one)
    assert await asked() == before
    await one.retrieve("k3")
    assert await asked() == before


async def test_a_query_tells_how_many_values_it_fetched_from_archives(one: Held) -> None:
    await store_many(one, [f"{i}" for i in range(10)])
    query = one.service.memories.query
    assert (await query(ANONYMOUS, ExactQuery({"value": {"contains": "3"}}))).cold_read == 0
    await archive(one)
    # All are asked, and one is shown.
    assert (await query(ANONYMOUS, ExactQuery({"value": {"contains": "3"}}))).cold_read == 11
    assert (await query(ANONYMOUS, ExactQuery({"key": "3"}))).cold_read == 1
    assert (await query(ANONYMOUS, ExactQuery(limit=4))).cold_read == 4
    assert (await query(ANONYMOUS, ExactQuery({"key": {"gt": "3"}}, group_by="namespace"))).cold_read == 0
    assert (await query(ANONYMOUS, ExactQuery(group_by="value"))).cold_read >= 10


# ---- the whole
async def test_statistics_tell_what_lies_in_which_tier(one: Held) -> None:
    await store_many(one, ["a", "b", "c"], 10, "acme")
    await one.store("expiring", namespace="acme", ttl=1)
    await one.store("other", namespace="other")
    await archive(one, "acme")
    await one.retrieve("a", "acme")
    one.clock.advance(1)
    stats = await one.service.upkeep.stats(ANONYMOUS, None)
    assert stats.tiers == {"hot": 0, "warm": 2, "cold": 2}
    assert (stats.memories, stats.bytes_raw) == (4, 3 * (len('"a "') + 10) + len('"v"'))
    files = sum(each.bytes_stored for each in await tiers_of(one).archives())
    assert stats.bytes_stored == await tiers_of(one).warm_files() + files
    below = await one.service.upkeep.stats(Principal("p", ("acme",)), None)
    assert below.tiers == {"hot": 0, "warm": 1, "cold": 2}
    state = await one.service.tiering.state()
    assert (state.counts.demotions, state.counts.promotions, state.counts.compactions) == (4, 1, 0)
    assert (state.uses.warm, state.uses.cold, state.archive_bytes, state.cold_off) == (2, 2, files, None)


async def test_what_was_read_from_archives_is_counted(one: Held) -> None:
    await store_many(one, ["a", "b"])
    await archive(one)
    await one.retrieve("a")
    await one.service.memories.list_all(ANONYMOUS, ListQuery())
    state = await one.service.tiering.state()
    assert state.counts.cold_reads >= 2


@pytest.mark.usefixtures("at_once")
async def test_the_worker_archives_and_compacts_where_it_has_the_lease(directory: Path) -> None:
    policy = Policy(demote_after=10)
    async with service_at(directory, policy) as one:
        await store_many(one, [f"{i}" for i in range(4)])
        one.clock.advance(11)
        assert await one.storage.lease("tiering", "another", one.clock.now(), one.clock.now() + 100 * SECOND)
        asked = asyncio.Event()
        lease = one.service.upkeep.lease

        async def watched(name: str, holder: str, seconds: float) -> bool:
            had = await lease(name, holder, seconds)
            if name == "tiering":
                asked.set()
            return had

        async def until(there: Callable[[], Awaitable[bool]]) -> None:
            """Waits for a pass after which it is so."""
            async with asyncio.timeout(BOUND_SECONDS):
                while not await there():
                    asked.clear()
                    await asked.wait()

        async def states() -> list[str]:
            return [each.state for each in await tiers_of(one).archives()]

        async def all_cold() -> bool:
            return len(await cold(one)) == 4

        async def compacted() -> bool:
            return await states() == ["dead", "live"]

        async def tidied() -> bool:
            return await states() == ["live"]

        one.service.upkeep.lease = watched  # type: ignore[method-assign]  # it tells when the worker asks
        worker = Worker(one.service, cleanup_seconds=3600, flush_seconds=3600, tiering_seconds=0.01)
        worker.start()
        for _ in range(3):
            asked.clear()
            await asyncio.wait_for(asked.wait(), BOUND_SECONDS)
        assert await cold(one) == set()
        one.clock.advance(101)
        await until(all_cold)
        await one.service.memories.delete(ANONYMOUS, "default", "0")
        await one.service.memories.delete(ANONYMOUS, "default", "1")
        await until(compacted)
        one.clock.advance(61)
        await until(tidied)
        await worker.stop()
        assert await cold(one) == {"2", "3"}


async def test_a_pass_by_size_leaves_what_is_written_meanwhile_to_the_next_one(directory: Path) -> None:
    """The index alone is larger than the limit: nothing that is archived will ever be enough."""
    async with service_at(directory, Policy(warm_bytes=1)) as one:
        await store_many(one, [f"first/{i}" for i in range(tiering.LEAST_MEMORIES)], 100)
        archives = 0
        async for _moved in one.service.tiering.demote():
            archives += 1
            assert archives == 1
            one.clock.advance(1)
            await store_many(one, [f"{archives}/{i}" for i in range(tiering.LEAST_MEMORIES)], 100)
        assert archives == 1
        assert len(await cold(one)) == tiering.LEAST_MEMORIES


# ---- archives that are far away
class Far(Archive):
    """Gives a value only once it is let."""

    def __init__(self, directory: Path) -> None:
        super().__init__(Directory(directory))
        self.let = threading.Event()
        self.asked = threading.Event()

    def read(self, archive: str, block: int, slot: int, number: int) -> bytes:
        self.asked.set()
        assert self.let.wait(BOUND_SECONDS)
        return super().read(archive, block, slot, number)


async def test_whoever_waits_for_an_archive_keeps_no_writer_and_no_list_waiting(directory: Path) -> None:
    clock = SettableClock()
    async with service_at(directory, clock=clock) as one:
        await one.store("k", {"n": 1})
        await archive(one)
    far = Far(directory / "archive")
    warm = SQLiteStorage(directory / "memory.db", clock=clock, cold=far)
    storage = TieredStorage(warm, clock, archive=far)  # type: ignore[abstract]  # see `storage/forwarding.py`
    async with holding(storage, clock) as one:
        await one.store("l", "warm", "other")
        patch = PatchRequest(increment={"n": Raw(b"1")})
        waiting = asyncio.create_task(one.service.memories.patch(ANONYMOUS, "default", "k", patch))
        try:
            assert await asyncio.to_thread(far.asked.wait, BOUND_SECONDS)
            async with asyncio.timeout(BOUND_SECONDS / 2):
                await one.store("m", "warm", "other")
                listed = await one.service.memories.list_all(ANONYMOUS, ListQuery(namespace="other"))
            assert [memory.key for memory in listed.memories] == ["l", "m"]
            assert not waiting.done()
        finally:
            far.let.set()
        outcome = await waiting
        assert outcome.memory is not None
        assert outcome.memory.parsed() == {"n": 2}


# ---- where archives lie
async def test_archives_that_are_not_where_they_were_are_told_and_nothing_is_archived_elsewhere(
    directory: Path,
) -> None:
    here, elsewhere = directory / "archive", directory / "elsewhere"

    def started() -> contextlib.AbstractAsyncContextManager[Held]:
        clock = SettableClock()
        return holding(tiers_at(directory, clock), clock)

    async with started() as one:
        await one.store("k", "cold")
        await archive(one)
    here.rename(elsewhere)
    async with started() as one:
        assert (await one.service.upkeep.ready()).status == "degraded"
        assert one.service.tiering.troubles() == [f"cold tier: {tiered.ASTRAY}"]
        await one.store("l", "warm")
        with pytest.raises(RefusedError):
            await archive(one)
        with pytest.raises(ArchiveMissingError):
            await one.service.memories.retrieve(ANONYMOUS, "default", "k")
    # An empty directory in its place is another one, too.
    here.mkdir()
    async with started() as one:
        assert one.service.tiering.troubles() == [f"cold tier: {tiered.ASTRAY}"]
        assert await demote(one) == Moved()
    here.rmdir()
    elsewhere.rename(here)
    async with started() as one:
        assert one.service.tiering.troubles() == []
        assert (await one.service.memories.retrieve(ANONYMOUS, "default", "k")).parsed() == "cold"
        assert (await archive(one)).memories == 2


async def test_a_place_that_is_lost_while_the_service_runs_gets_no_archive(directory: Path) -> None:
    clock = SettableClock()
    async with holding(tiers_at(directory, clock), clock) as one:
        await one.store("k", "cold")
        await archive(one)
        (directory / "archive").rename(directory / "elsewhere")
        await one.store("l", "warm")
        with pytest.raises(RefusedError):
            await archive(one)
        assert one.service.tiering.troubles() == [f"cold tier: {tiered.ASTRAY}"]
        assert not (directory / "archive").exists()
