"""Expiry to the microsecond: a memory is there until the instant before `expires_at`, and nowhere from that instant on."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec import Raw

from tests.faults.directories import check_is_clean, opened
from unified_memory.model.clock import SECOND, SettableClock, to_rfc3339
from unified_memory.model.errors import AlreadyExistsError, MemoryNotFoundError, NamespaceNotEmptyError
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.requests import (
    BatchKeysRequest,
    BatchStoreRequest,
    Changes,
    Conditions,
    DeleteWhereRequest,
    ExactQuery,
    KeyRef,
    ListQuery,
    MoveRequest,
    PatchRequest,
    Place,
    SearchQuery,
    StoreRequest,
    UpdateRequest,
    UpdateWhereRequest,
)
from unified_memory.service.service import Service

TTL = 1.5
SPAN = 1_500_000
NAMESPACE = "acme"
KEY = "brief"
VALUE = Raw(b'{"text": "unmistakable"}')


async def store(service: Service, ttl: float | None = TTL, key: str = KEY) -> Memory:
    request = StoreRequest(
        VALUE,
        key,
        NAMESPACE,
        ttl=ttl,
        metadata={"tags": Raw(b'["seen"]'), "session_id": Raw(b'"s"'), "project_id": Raw(b'"p"')},
    )
    outcome = await service.memories.store(ANONYMOUS, request)
    assert outcome.memory is not None
    return outcome.memory


# ---- every way in which a memory can be seen


async def _works(operation: Awaitable[Any]) -> bool:
    try:
        await operation
    except MemoryNotFoundError:
        return False
    return True


async def _by_retrieve(service: Service) -> bool:
    return await _works(service.memories.retrieve(ANONYMOUS, NAMESPACE, KEY))


async def _by_id(service: Service) -> bool:
    return await _works(service.memories.retrieve_id(ANONYMOUS, 1))


async def _by_batch(service: Service) -> bool:
    return (await service.memories.retrieve_batch(ANONYMOUS, BatchKeysRequest([KeyRef(KEY, NAMESPACE)]))) != [None]


async def _by_list(service: Service) -> bool:
    return bool((await service.memories.list_all(ANONYMOUS, ListQuery(NAMESPACE))).memories)


async def _by_list_of_tags(service: Service) -> bool:
    return bool((await service.memories.list_all(ANONYMOUS, ListQuery(tags=["seen"]))).memories)


async def _by_query(service: Service) -> bool:
    return bool((await service.memories.query(ANONYMOUS, ExactQuery({"key": {"eq": KEY}}))).memories)


async def _by_count(service: Service) -> bool:
    return bool((await service.memories.query(ANONYMOUS, ExactQuery(count=True))).count)


async def _by_group(service: Service) -> bool:
    return bool((await service.memories.query(ANONYMOUS, ExactQuery(group_by="tags"))).groups)


async def _by_search(service: Service) -> bool:
    return bool((await service.searching.search(ANONYMOUS, SearchQuery("unmistakable"))).hits)


async def _by_search_inside_of_words(service: Service) -> bool:
    return bool((await service.searching.search(ANONYMOUS, SearchQuery("mistakab"))).hits)


async def _by_filter(service: Service) -> bool:
    request = DeleteWhereRequest({"key": {"eq": KEY}}, dry_run=True)
    return bool((await service.memories.matching(ANONYMOUS, request))[1].matched)


async def _by_session(service: Service) -> bool:
    view = await service.sessions.view(ANONYMOUS, NAMESPACE, "s", cluster=False, limit=10, cursor=None)
    seen = {bool(view.memories), bool(view.session.memories)}
    assert len(seen) == 1, "A session and its memories tell the same"
    return seen.pop()


async def _by_list_of_sessions(service: Service) -> bool:
    listing = await service.sessions.list_all(
        ANONYMOUS, namespace=None, recursive=True, cluster_id=None, active=None, limit=10, cursor=None
    )
    return bool(listing.sessions[0].memories)


async def _by_namespace(service: Service) -> bool:
    namespace = await service.namespaces.get(ANONYMOUS, NAMESPACE)
    seen = {
        bool(namespace.memories),
        bool(namespace.bytes),
        bool(namespace.total_memories),
        bool(namespace.total_bytes),
    }
    assert len(seen) == 1, "All counts of a namespace tell the same"
    return seen.pop()


async def _by_stats(service: Service) -> bool:
    stats = await service.upkeep.stats(ANONYMOUS, None)
    parts = (stats.memories, stats.bytes_raw, sum(stats.tiers.values()), stats.top_tags, stats.oldest, stats.newest)
    seen = {bool(part) for part in parts}
    assert len(seen) == 1, "All totals tell the same"
    assert bool(stats.expired) != bool(stats.memories)
    return seen.pop()


async def _by_update(service: Service) -> bool:
    return await _works(service.memories.update(ANONYMOUS, NAMESPACE, KEY, UpdateRequest(Raw(b"1"))))


async def _by_patch(service: Service) -> bool:
    return await _works(service.memories.patch(ANONYMOUS, NAMESPACE, KEY, PatchRequest(merge=Raw(b"{}"))))


async def _by_delete(service: Service) -> bool:
    return await _works(service.memories.delete(ANONYMOUS, NAMESPACE, KEY))


async def _by_delete_batch(service: Service) -> bool:
    (outcome,) = await service.memories.delete_batch(ANONYMOUS, BatchKeysRequest([KeyRef(KEY, NAMESPACE)]))
    return outcome.removed


async def _by_move(service: Service) -> bool:
    return await _works(service.memories.move(ANONYMOUS, MoveRequest(Place(NAMESPACE, KEY), Place("elsewhere", KEY))))


async def _by_being_in_the_way_of_a_store(service: Service) -> bool:
    try:
        await service.memories.store(ANONYMOUS, StoreRequest(VALUE, KEY, NAMESPACE), Conditions(create_only=True))
    except AlreadyExistsError:
        return True
    return False


async def _by_being_in_the_way_of_a_move(service: Service) -> bool:
    await service.memories.store(ANONYMOUS, StoreRequest(VALUE, "mover", "elsewhere"))
    try:
        await service.memories.move(ANONYMOUS, MoveRequest(Place("elsewhere", "mover"), Place(NAMESPACE, KEY)))
    except AlreadyExistsError:
        return True
    return False


async def _by_being_in_the_way_of_a_delete_of_its_namespace(service: Service) -> bool:
    try:
        await service.namespaces.delete(ANONYMOUS, NAMESPACE, recursive=False, dry_run=False)
    except NamespaceNotEmptyError:
        return True
    return False


WAYS: tuple[Callable[[Service], Awaitable[bool]], ...] = (
    _by_retrieve,
    _by_id,
    _by_batch,
    _by_list,
    _by_list_of_tags,
    _by_query,
    _by_count,
    _by_group,
    _by_search,
    _by_search_inside_of_words,
    _by_filter,
    _by_session,
    _by_list_of_sessions,
    _by_namespace,
    _by_stats,
    _by_update,
    _by_patch,
    _by_delete,
    _by_delete_batch,
    _by_move,
    _by_being_in_the_way_of_a_store,
    _by_being_in_the_way_of_a_move,
    _by_being_in_the_way_of_a_delete_of_its_namespace,
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__.removeprefix("_").replace("_", " "))
async def test_a_memory_is_seen_until_the_microsecond_before_it_expires_and_not_from_then_on(
    way: Callable[[Service], Awaitable[bool]], tmp_path: Path
) -> None:
    for name, elapsed, seen in (("before", SPAN - 1, True), ("at", SPAN, False)):
        clock = SettableClock()
        async with opened(tmp_path / name, clock) as service:
            memory = await store(service)
            assert memory.expires_at == clock.now() + SPAN
            clock.instant += elapsed
            assert await way(service) is seen, f"{name} expires_at"
            if not seen:
                async for _ in service.upkeep.cleanup():
                    pass
        await check_is_clean(tmp_path / name)


async def test_an_instant_that_the_caller_names_is_kept_to_the_microsecond(tmp_path: Path) -> None:
    clock = SettableClock()
    instant = clock.now() + 7 * SECOND + 123_457
    async with opened(tmp_path, clock) as service:
        await service.memories.store(ANONYMOUS, StoreRequest(VALUE, KEY, NAMESPACE, expires_at=to_rfc3339(instant)))
        clock.instant = instant - 1
        assert (await service.memories.retrieve(ANONYMOUS, NAMESPACE, KEY)).expires_at == instant
        clock.instant = instant
        assert not await _by_retrieve(service)


# ---- what a ttl survives


async def _update_value(service: Service) -> str:
    await service.memories.update(ANONYMOUS, NAMESPACE, KEY, UpdateRequest(Raw(b"2")))
    return KEY


async def _update_metadata(service: Service) -> str:
    await service.memories.update(ANONYMOUS, NAMESPACE, KEY, UpdateRequest(metadata={"importance": Raw(b"9")}))
    return KEY


async def _patch(service: Service) -> str:
    await service.memories.patch(ANONYMOUS, NAMESPACE, KEY, PatchRequest(merge=Raw(b'{"more": 1}')))
    return KEY


async def _move(service: Service) -> str:
    await service.memories.move(ANONYMOUS, MoveRequest(Place(NAMESPACE, KEY), Place(NAMESPACE, "moved")))
    return "moved"


async def _retag(service: Service) -> str:
    request = UpdateWhereRequest({"key": {"eq": KEY}}, Changes(add_tags=["more"]))
    selection, _ = await service.memories.matching(ANONYMOUS, request)
    changed = [count async for count in service.memories.change_where(selection, service.memories.read_where(request))]
    assert changed == [1]
    return KEY


async def _rename_the_namespace_and_back(service: Service) -> str:
    await service.memories.move(ANONYMOUS, MoveRequest(Place(NAMESPACE), Place("other")))
    await service.memories.move(ANONYMOUS, MoveRequest(Place("other"), Place(NAMESPACE)))
    return KEY


async def _retrieve_and_flush(service: Service) -> str:
    await service.memories.retrieve(ANONYMOUS, NAMESPACE, KEY)
    await service.upkeep.flush()
    return KEY


async def _clean_up(service: Service) -> str:
    async for _ in service.upkeep.cleanup():
        pass
    return KEY


async def _mend(service: Service) -> str:
    assert await service.upkeep.check(fix=True) == []
    return KEY


@pytest.mark.parametrize(
    "change",
    [
        _update_value,
        _update_metadata,
        _patch,
        _move,
        _retag,
        _rename_the_namespace_and_back,
        _retrieve_and_flush,
        _clean_up,
        _mend,
    ],
)
async def test_a_ttl_survives(change: Callable[[Service], Awaitable[str]], tmp_path: Path) -> None:
    clock = SettableClock()
    async with opened(tmp_path, clock) as service:
        end = (await store(service)).expires_at
        clock.advance(1)
        key = await change(service)
    # And the end of a process.
    async with opened(tmp_path, clock) as service:
        assert (await service.memories.retrieve(ANONYMOUS, NAMESPACE, key)).expires_at == end
        assert end is not None
        clock.instant = end
        with pytest.raises(MemoryNotFoundError):
            await service.memories.retrieve(ANONYMOUS, NAMESPACE, key)


async def test_a_ttl_changes_only_when_it_is_named(tmp_path: Path) -> None:
    clock = SettableClock()
    async with opened(tmp_path, clock) as service:
        await store(service)
        clock.advance(1)
        for request, end in ((UpdateRequest(ttl=10), clock.now() + 10 * SECOND), (UpdateRequest(ttl=None), None)):
            outcome = await service.memories.update(ANONYMOUS, NAMESPACE, KEY, request)
            assert outcome.memory is not None
            assert outcome.memory.expires_at == end


async def test_a_store_over_an_expired_memory_makes_a_new_one_whose_version_goes_on(tmp_path: Path) -> None:
    clock = SettableClock()
    async with opened(tmp_path, clock) as service:
        old = await store(service)
        clock.advance(TTL)
        new = await store(service, None)
        assert (new.version, new.created_at, new.expires_at) == (old.version + 1, clock.now(), None)
        assert new.id > old.id


# ---- cleanup


async def test_a_cleanup_of_20_000_expired_memories_lets_others_write_in_between(tmp_path: Path) -> None:
    clock = SettableClock()
    async with opened(tmp_path, clock) as service, opened(tmp_path, clock) as other:
        for batch in range(20):
            requests = [StoreRequest(Raw(b"1"), f"{batch}/{i}", NAMESPACE, ttl=TTL) for i in range(1000)]
            await service.memories.store_batch(ANONYMOUS, BatchStoreRequest(requests))
        await store(service, None, "stays")
        clock.advance(TTL)

        events: list[str] = []

        async def store_meanwhile(writer: Service, key: str) -> None:
            await store(writer, None, key)
            events.append(key)

        stores: list[asyncio.Task[None]] = []
        removed = 0
        async for chunk in service.upkeep.cleanup():
            removed += sum(chunk.expired.values())
            events.append("chunk")
            if len(events) == 1:
                stores += [
                    asyncio.create_task(store_meanwhile(writer, key))
                    for writer, key in ((service, "here"), (other, "there"))
                ]
        await asyncio.gather(*stores)

        chunks = events.count("chunk")
        assert removed == 20_000
        assert chunks >= 50, "One chunk must not hold the writer long"
        # Of one process and of another: the store waits for a chunk or two, not for the cleanup.
        assert events.index("here") < chunks / 5
        assert events.index("there") < chunks / 5
        left = {m.key for m in (await service.memories.list_all(ANONYMOUS, ListQuery(NAMESPACE))).memories}
        assert left == {"stays", "here", "there"}
        assert (await service.upkeep.stats(ANONYMOUS, None)).expired == 0
        assert await service.upkeep.check(fix=False) == []
