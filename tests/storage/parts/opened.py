"""What every part of the contract needs."""

import random
from collections.abc import AsyncIterator
from itertools import count
from typing import Any

import pytest

from tests.storage.drafts import (
    NOW,
    store,
)
from unified_memory.model.clock import SECOND
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.session import Session
from unified_memory.storage.base import (
    Access,
    Storage,
)

LATER = NOW + SECOND
LONG_AFTER = NOW + 1000 * SECOND

# Names that look like `acme` or lie beside it in every order, and are not in it.
NEIGHBOURS = (
    "acme-corp",
    "acme-corp/x",
    "acme.x",
    "acme0",
    "acmex",
    "ACME",
    "acm",
    "acme x",
    "other/acme",
    "%",
    "a_me",
)

# Numbers for the namespaces of hypothesis examples, which share one storage.
examples = count()


class Opened:
    """What every part of the contract needs. `tier`: where a memory lies that was just stored."""

    tier = "warm"

    @pytest.fixture
    def storage(self) -> AsyncIterator[Storage]:
        raise NotImplementedError


async def all_sessions(
    storage: Storage,
    *scopes: str,
    now: int = NOW,
    recursive: bool = True,
    cluster_id: str | None = None,
    active: bool | None = None,
) -> list[Session]:
    page = await storage.list_sessions(
        scopes or ("",),
        now,
        recursive=recursive,
        cluster_id=cluster_id,
        active=active,
        limit=1000,
        after=None,
    )
    assert page.next is None
    return page.items


async def all_names(storage: Storage, *scopes: str, now: int = NOW, depth: int | None = None) -> list[str]:
    page = await storage.list_namespaces(scopes or ("",), now, depth=depth, limit=1000, after=None)
    assert page.next is None
    return [namespace.name for namespace in page.items]


async def configure(storage: Storage, name: str, **config: Any) -> None:
    await storage.put_namespace(name, NamespaceConfig(**config), NOW, create=True)


async def assert_clean(storage: Storage) -> None:
    assert await storage.check(fix=False) == []


async def some_memory(storage: Storage, key: str, dice: random.Random) -> Memory:
    """Stores a memory of which every field has one of few values, some of them none; as it then reads."""
    number: Any = dice.choice([None, 1, 2, 2.5, "x", "y", True, [1]])
    value: Any = dice.choice([{"n": number}, {"n": number, "list": [number]}, number])
    facts: dict[str, Any] = {
        "session_id": dice.choice([None, "s", "t"]),
        "project_id": dice.choice([None, "p", "q"]),
        "importance": dice.choice([1, 5, 10]),
        "expires_at": dice.choice([None, LONG_AFTER, LONG_AFTER + 1]),
        "namespace": dice.choice(["default", "n/m"]),
        "rank": number,
        "now": NOW + dice.choice([0, 1, 2]),
    }
    memory = await store(storage, key, value, **facts)
    for _ in range(dice.choice([0, 0, 1, 2])):
        memory = await store(storage, key, value, **facts)
    if dice.random() < 0.5:
        await storage.touch([Access(memory.id, dice.choice([1, 2]), NOW + dice.choice([0, 1]))])
    (read,) = await storage.get_by_id([memory.id], NOW)
    assert read is not None
    return read
