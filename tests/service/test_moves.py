"""A whole namespace moved: its quotas go with it, those that it comes under hold for what can be seen of it."""

import pytest

from tests.service.asking import Held, raws
from unified_memory.model.errors import QuotaExceededError
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.requests import MoveRequest, Place


async def moved(held: Held, source: str, target: str) -> int:
    number = await held.service.memories.move(ANONYMOUS, MoveRequest(Place(source), Place(target)))
    assert isinstance(number, int)
    return number


async def test_a_namespace_that_is_above_its_own_quota_can_be_moved(each: Held) -> None:
    for namespace in ("a", "a/x"):
        await each.store("k", namespace=namespace)
        await each.store("l", namespace=namespace)
    await each.service.namespaces.configure(ANONYMOUS, "a", raws({"max_memories": 1, "max_bytes": 1}))
    assert await moved(each, "a", "b") == 4
    with pytest.raises(QuotaExceededError):
        await each.store("m", namespace="b/x")


@pytest.mark.parametrize(("quota", "limit"), [("max_memories", 2), ("max_bytes", 6)])
async def test_what_has_expired_takes_no_room_where_a_namespace_is_moved_to(each: Held, quota: str, limit: int) -> None:
    await each.service.namespaces.create(ANONYMOUS, "full", raws({quota: limit}))
    await each.store("k", namespace="full")
    await each.store("l", namespace="a")
    await each.store("gone", namespace="a", ttl=1)
    each.clock.advance(1)
    assert await moved(each, "a", "full/a") == 1
    stats = await each.service.upkeep.stats(ANONYMOUS, "full")
    assert (stats.memories, stats.expired) == (2, 1)


@pytest.mark.parametrize(("quota", "limit"), [("max_memories", 2), ("max_bytes", 8)])
async def test_a_namespace_that_does_not_fit_stays_where_it_is(each: Held, quota: str, limit: int) -> None:
    await each.service.namespaces.create(ANONYMOUS, "full", raws({quota: limit}))
    await each.store("k", namespace="full")
    for namespace in ("a", "a/x"):
        await each.store("l", namespace=namespace)
    with pytest.raises(QuotaExceededError) as refused:
        await moved(each, "a", "full/a")
    assert (refused.value.facts["namespace"], refused.value.facts["quota"]) == ("full", quota)
    assert (await each.retrieve("l", "a/x")).version == 1
    assert (await each.service.upkeep.stats(ANONYMOUS, "full")).memories == 1
    assert await each.service.upkeep.check(fix=False) == []


async def test_a_namespace_that_stays_under_the_same_quota_is_not_counted_twice(each: Held) -> None:
    await each.service.namespaces.create(ANONYMOUS, "a", raws({"max_memories": 1}))
    await each.store("k", namespace="a/x")
    assert await moved(each, "a/x", "a/y") == 1
