"""Counts of accesses: gathered while reading, written down in bulk, lost by nothing that goes on."""

from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.service.asking import Held, holding, raw, raws, storing
from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import StorageFullError
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service import access
from unified_memory.service.access import Accesses
from unified_memory.service.requests import (
    BatchKeysRequest,
    BatchStoreRequest,
    ExactQuery,
    KeyRef,
    ListQuery,
    MoveRequest,
    PatchRequest,
    Place,
    SearchQuery,
    UpdateRequest,
)
from unified_memory.storage.base import Access
from unified_memory.storage.inmemory import InMemoryStorage
from unified_memory.storage.sqlite import SQLiteStorage


class Full(InMemoryStorage):
    """No room for what is written down in bulk, as long as it is said."""

    full = False

    async def touch(self, accesses: Sequence[Access]) -> None:
        if self.full:
            raise StorageFullError
        await super().touch(accesses)


def told(memory: Memory) -> tuple[int, int | None]:
    return memory.access_count, memory.last_accessed


async def written(held: Held, key: str = "k") -> tuple[int, int | None]:
    """What the storage itself knows."""
    memory = await held.storage.get("default", key, held.clock.now())
    assert memory is not None
    return told(memory)


async def test_a_retrieve_counts_itself_and_writes_nothing(each: Held) -> None:
    stored = await each.store("k")
    assert told(stored) == (0, None)
    for number in (1, 2, 3):
        each.clock.advance(1)
        assert told(await each.retrieve("k")) == (number, each.clock.now())
    assert await written(each) == (0, None)
    assert (await each.retrieve("k")).version == stored.version


async def test_a_flush_writes_all_that_was_gathered_once(each: Held) -> None:
    for key in ("k", "l", "m"):
        await each.store(key)
    await each.retrieve("k")
    each.clock.advance(1)
    await each.retrieve("k")
    await each.service.memories.retrieve_batch(ANONYMOUS, BatchKeysRequest([KeyRef("k"), KeyRef("l"), KeyRef("l")]))
    await each.service.upkeep.flush()
    for _ in range(2):
        assert [(await written(each, key))[0] for key in ("k", "l", "m")] == [3, 2, 0]
        await each.service.upkeep.flush()
    assert await written(each) == (3, each.clock.now())
    assert told(await each.retrieve("k")) == (4, each.clock.now())


async def test_a_cleanup_writes_down_what_was_gathered(each: Held) -> None:
    await each.store("k")
    await each.retrieve("k")
    async for _removed in each.service.upkeep.cleanup():
        pass
    assert await written(each) == (1, each.clock.now())


async def test_more_than_a_chunk_is_written_down_in_chunks() -> None:
    storage = InMemoryStorage()
    async with holding(storage, SettableClock()) as held:
        accesses = Accesses(storage)
        for number in range(0, access.CHUNK + 1, 500):
            items = [storing(f"k{n}") for n in range(number, min(number + 500, access.CHUNK + 1))]
            outcomes = await held.service.memories.store_batch(ANONYMOUS, BatchStoreRequest(items))
            for outcome in outcomes:
                assert outcome.memory is not None
                accesses.count(outcome.memory, held.clock.now())
        assert await accesses.flush() == access.CHUNK + 1
        assert await written(held, "k0") == await written(held, f"k{access.CHUNK}") == (1, held.clock.now())


async def test_what_is_counted_is_not_lost_by_a_change(each: Held) -> None:
    """Neither what was written down nor what is still gathered."""
    memories = each.service.memories
    await each.store("k", {"n": 1})
    await each.retrieve("k")
    await each.service.upkeep.flush()
    await each.retrieve("k")
    at = each.clock.now()
    each.clock.advance(1)
    moved = MoveRequest(Place(key="k"), Place(key="l"))
    back = MoveRequest(Place(key="l"), Place(key="k"))
    changes: list[Callable[[], Awaitable[Any]]] = [
        lambda: memories.update(ANONYMOUS, "default", "k", UpdateRequest(value=raw({"n": 2}))),
        lambda: memories.patch(ANONYMOUS, "default", "k", PatchRequest(increment=raws({"n": 1}))),
        lambda: memories.store(ANONYMOUS, storing("k", {"n": 3})),
        lambda: memories.store_batch(ANONYMOUS, BatchStoreRequest([storing("k", {"n": 4})])),
        lambda: memories.move(ANONYMOUS, moved),
        lambda: memories.move(ANONYMOUS, back),
    ]
    for change in changes:
        answer = await change()
        outcome = answer[0] if isinstance(answer, list) else answer
        memory = outcome if isinstance(outcome, Memory) else outcome.memory
        assert told(memory) == (2, at)
    assert await written(each) == (1, at)
    await each.service.upkeep.flush()
    assert await written(each) == (2, at)


async def test_every_answer_shows_what_is_gathered(each: Held) -> None:
    memories, sessions = each.service.memories, each.service.sessions
    await each.store("k", "unique", metadata={"session_id": "s", "tags": ["t"]})
    await each.retrieve("k")
    expected = (1, each.clock.now())
    view = await sessions.view(ANONYMOUS, "default", "s", cluster=False, limit=5, cursor=None)
    shown = [
        *(await memories.list_all(ANONYMOUS, ListQuery())).memories,
        *(await memories.query(ANONYMOUS, ExactQuery())).memories,
        *(hit.memory for hit in (await each.service.searching.search(ANONYMOUS, SearchQuery("unique"))).hits),
        *view.memories,
    ]
    assert [told(memory) for memory in shown] == [expected] * 4
    rows = (await memories.query(ANONYMOUS, ExactQuery(select=["access_count"]))).rows
    assert rows == [{"access_count": 1}]


async def test_a_memory_that_has_gone_takes_its_count_with_it(each: Held) -> None:
    await each.store("k")
    await each.retrieve("k")
    await each.service.memories.delete(ANONYMOUS, "default", "k")
    assert told(await each.store("k")) == (0, None)
    await each.service.upkeep.flush()
    assert await written(each) == (0, None)


async def test_closing_writes_down_what_was_gathered(directory: Path) -> None:
    clock = SettableClock()
    async with holding(SQLiteStorage(directory / "memory.db", clock=clock), clock) as held:
        await held.store("k")
        await held.retrieve("k")
    async with holding(SQLiteStorage(directory / "memory.db", clock=clock), clock) as held:
        assert await written(held) == (1, clock.now())


async def test_counts_of_two_processes_add_up_and_the_later_access_is_the_last(directory: Path) -> None:
    clock = SettableClock()
    path = directory / "memory.db"
    async with (
        holding(SQLiteStorage(path, clock=clock), clock) as one,
        holding(SQLiteStorage(path, clock=clock), clock) as other,
    ):
        await one.store("k")
        await one.retrieve("k")
        clock.advance(1)
        await other.retrieve("k")
        await other.service.upkeep.flush()
        # Its own access is the earlier one.
        (shown,) = (await one.service.memories.list_all(ANONYMOUS, ListQuery())).memories
        assert told(shown) == (2, clock.now())
        await one.service.upkeep.flush()
        assert await written(other) == (2, clock.now())


async def test_what_could_not_be_written_down_is_tried_again() -> None:
    storage = Full()
    async with holding(storage, SettableClock()) as held:
        await held.store("k")
        await held.retrieve("k")
        storage.full = True
        with pytest.raises(StorageFullError):
            await held.service.upkeep.flush()
        assert told(await held.retrieve("k"))[0] == 2
        storage.full = False
        await held.service.upkeep.flush()
        assert await written(held) == (2, held.clock.now())


def test_what_is_gathered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MAX_GATHERED", 2)
    accesses = Accesses(InMemoryStorage())
    memories = [Memory(n, "n", "k", b"1", b'{"tags":[]}', 5, None, None, 0, 0, None, 0, None, 1, 1) for n in (1, 2, 3)]
    for memory in (*memories, *memories):
        accesses.count(memory, 7)
    assert [told(accesses.show(Memory(*[getattr(m, f) for f in m.__struct_fields__]))) for m in memories][2] == (
        0,
        None,
    )
    assert memories[0].access_count > 0
