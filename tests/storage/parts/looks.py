"""Every way in which a memory can be seen."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.storage.drafts import (
    found,
    keys,
    selection,
    store,
)
from tests.storage.parts.opened import all_sessions
from unified_memory.model.memory import Memory
from unified_memory.model.query import parse_field
from unified_memory.storage.base import (
    Storage,
)


async def by_get(storage: Storage, memory: Memory, now: int) -> bool:
    return await storage.get(memory.namespace, memory.key, now) is not None


async def by_get_many(storage: Storage, memory: Memory, now: int) -> bool:
    return (await storage.get_many([(memory.namespace, memory.key)], now)) != [None]


async def by_id(storage: Storage, memory: Memory, now: int) -> bool:
    return (await storage.get_by_id([memory.id], now)) != [None]


async def by_select(storage: Storage, memory: Memory, now: int) -> bool:
    return memory.key in await keys(storage, memory.namespace, now=now)


async def by_select_where(storage: Storage, memory: Memory, now: int) -> bool:
    return memory.key in await keys(storage, where={"tags": {"contains": "seen"}}, order="-key", now=now)


async def by_count(storage: Storage, memory: Memory, now: int) -> bool:
    return await storage.count(selection(memory.namespace), now) > 0


async def by_group(storage: Storage, memory: Memory, now: int) -> bool:
    groups = await storage.group(selection(memory.namespace), parse_field("namespace"), now, 10)
    return any(group.value == memory.namespace for group in groups)


async def by_group_of_tags(storage: Storage, memory: Memory, now: int) -> bool:
    groups = await storage.group(selection(memory.namespace), parse_field("tags"), now, 10)
    return any(group.value == "seen" for group in groups)


async def by_word(storage: Storage, memory: Memory, now: int) -> bool:
    return memory.key in await found(storage, "unmistakable", memory.namespace, now=now)


async def by_part_of_a_word(storage: Storage, memory: Memory, now: int) -> bool:
    return memory.key in await found(storage, "mistakab", memory.namespace, now=now)


async def by_stats(storage: Storage, memory: Memory, now: int) -> bool:
    stats = await storage.stats((memory.namespace,), now, top=5)
    seen = {
        stats.memories > 0,
        stats.bytes_raw > 0,
        any(use.memories or use.bytes for use in stats.namespaces),
        sum(stats.tiers.values()) > 0,
        bool(stats.top_tags),
        stats.oldest is not None,
        stats.newest is not None,
    }
    assert len(seen) == 1, stats
    return seen.pop()


async def by_namespace(storage: Storage, memory: Memory, now: int) -> bool:
    namespace = await storage.get_namespace(memory.namespace, now)
    if namespace is None:
        return False
    assert bool(namespace.memories) == bool(namespace.bytes) == bool(namespace.total_memories)
    return namespace.memories > 0


async def by_namespaces(storage: Storage, memory: Memory, now: int) -> bool:
    page = await storage.list_namespaces(("",), now, depth=None, limit=1000, after=None)
    return any(one.memories and one.total_bytes for one in page.items if one.name == memory.namespace)


async def by_namespaces_folded(storage: Storage, memory: Memory, now: int) -> bool:
    page = await storage.list_namespaces(("",), now, depth=1, limit=1000, after=None)
    return any(one.total_memories for one in page.items if one.name == memory.namespace.partition("/")[0])


async def by_session(storage: Storage, memory: Memory, now: int) -> bool:
    session = await storage.get_session(memory.namespace, memory.session_id or "", now)
    return session is not None and session.memories > 0


async def by_sessions(storage: Storage, memory: Memory, now: int) -> bool:
    page = await all_sessions(storage, memory.namespace, now=now)
    return any(session.memories for session in page if session.id == memory.session_id)


Look = Callable[[Storage, Memory, int], Awaitable[bool]]
LOOKS: tuple[Look, ...] = (
    by_get,
    by_get_many,
    by_id,
    by_select,
    by_select_where,
    by_count,
    by_group,
    by_group_of_tags,
    by_word,
    by_part_of_a_word,
    by_stats,
    by_namespace,
    by_namespaces,
    by_namespaces_folded,
    by_session,
    by_sessions,
)
every_look = pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.__name__)


async def store_seen(storage: Storage, **facts: Any) -> Memory:
    """Stores a memory that each of the looks can find."""
    namespace = facts.pop("namespace", "acme/web")
    facts = {"tags": ("seen",), "session_id": "s", **facts}
    return await store(storage, "seen", "an unmistakable word", namespace=namespace, **facts)
