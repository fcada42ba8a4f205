"""What every part of the contract needs."""

import random
from collections.abc import AsyncIterator, Sequence
from itertools import count
from typing import Any

import pytest

from tests.storage.drafts import (
    NOW,
    selection,
    store,
)
from unified_memory.model.clock import LAST_INSTANT, SECOND
from unified_memory.model.history import Event, Kind, Past
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.session import Session
from unified_memory.storage.base import (
    Access,
    Storage,
)

LATER = NOW + SECOND
LONG_AFTER = NOW + 1000 * SECOND
# An instant of the real clock that never comes.
NEVER = LAST_INSTANT

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


async def versions_kept(storage: Storage, key: str, *, namespace: str = "default", now: int = NOW) -> list[int]:
    """The former versions of a key, newest first."""
    return [row.memory.version for row in await storage.past(namespace, key, now, before=None, limit=1000)]


async def former(storage: Storage, key: str, version: int, *, namespace: str = "default", now: int = NOW) -> Past:
    """A former version that is there."""
    row = await storage.past_version(namespace, key, version, now)
    assert row is not None
    return row


async def events(storage: Storage, after: int = 0, *, limit: int = 1000) -> list[Event]:
    """Everything that happened behind that place, read in pages."""
    told: list[Event] = []
    while page := await storage.feed(after, limit):
        assert len(page) <= limit
        told += page
        after = page[-1].seq
    places = [event.seq for event in told]
    assert places == sorted(set(places))
    return told


def replay(happened: Sequence[Event], start: dict[tuple[str, str], int] | None = None) -> dict[tuple[str, str], int]:
    """Keys and versions as whoever follows the feed holds them; what has expired stays until that is told."""
    held = dict(start or {})
    for event in happened:
        if event.key is None:
            assert event.kind is Kind.DROP
            held = {ref: version for ref, version in held.items() if ref[0] != event.namespace}
            continue
        ref = (event.namespace, event.key)
        match event.kind:
            case Kind.STORE:
                assert ref not in held
                assert event.version is not None
                held[ref] = event.version
            case Kind.UPDATE:
                assert event.version is not None
                assert event.version > held[ref]
                held[ref] = event.version
            case Kind.DELETE | Kind.EXPIRE | Kind.MOVE:
                assert held.pop(ref) == event.version
            case Kind.REDACT:
                if event.version in {None, held.get(ref)}:
                    held.pop(ref, None)
            case _:
                raise AssertionError(event)
    return held


async def visible_versions(storage: Storage, now: int = NOW) -> dict[tuple[str, str], int]:
    """Keys and versions as they are."""
    page = await storage.select(selection(), now)
    return {(memory.namespace, memory.key): memory.version for memory in page.items}


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
