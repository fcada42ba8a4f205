"""Small builders: a memory in one line, stored, removed or looked up."""

from typing import Any

from msgspec import Raw

from unified_memory.model.clock import SECOND
from unified_memory.model.errors import MemoryNotFoundError, VersionConflictError
from unified_memory.model.found import Hit, SearchRequest
from unified_memory.model.memory import DEFAULT_IMPORTANCE, Memory, pack_attributes
from unified_memory.model.namespace import DEFAULT_NAMESPACE, NamespaceConfig
from unified_memory.model.query import Filter, Selection, parse_filter, parse_order
from unified_memory.model.search import describe, parse_search
from unified_memory.model.value import encode, parse
from unified_memory.storage.base import KEEP, REMOVE, Decision, Draft, Edit, Origin, Outcome, Storage

NOW = 1_750_000_000 * SECOND


def draft(
    key: str,
    value: Any = "v",
    *,
    tags: tuple[str, ...] = (),
    importance: int = DEFAULT_IMPORTANCE,
    session_id: str | None = None,
    project_id: str | None = None,
    expires_at: int | None = None,
    origin: Origin | None = None,
    **extra: Any,
) -> Draft:
    """A draft of any Python value (`Raw`: JSON text to be kept as it is); `extra` are metadata fields."""
    raw = encode(value)
    attributes = pack_attributes(tags, extra)
    about = describe(key, attributes, parse(raw))
    return Draft(
        value=raw,
        attributes=attributes,
        tags=tags,
        importance=importance,
        session_id=session_id,
        project_id=project_id,
        expires_at=expires_at,
        text=about.text,
        title_text=about.title_text,
        keywords=about.keywords,
        content_hash=about.content_hash,
        origin=origin,
    )


def storing(
    key: str,
    value: Any = "v",
    *,
    namespace: str = DEFAULT_NAMESPACE,
    expected: int | None = None,
    **facts: Any,
) -> Edit:
    """An edit that stores; with `expected` only over that version (0: nothing there)."""
    new = draft(key, value, **facts)

    def decide(memory: Memory | None, _config: NamespaceConfig) -> Decision:
        current = 0 if memory is None else memory.version
        if expected not in {None, current}:
            raise VersionConflictError(namespace, key, expected or 0, current)
        return new

    return Edit(namespace, key, decide)


def removing(key: str, *, namespace: str = DEFAULT_NAMESPACE) -> Edit:
    return Edit(namespace, key, lambda _memory, _config: REMOVE)


def keeping(key: str, *, namespace: str = DEFAULT_NAMESPACE, whole: bool = False) -> Edit:
    return Edit(namespace, key, lambda _memory, _config: KEEP, whole)


def failing(key: str, *, namespace: str = DEFAULT_NAMESPACE) -> Edit:
    def decide(_memory: Memory | None, _config: NamespaceConfig) -> Decision:
        raise MemoryNotFoundError(namespace, key)

    return Edit(namespace, key, decide)


async def apply(storage: Storage, *edits: Edit, now: int = NOW) -> list[Outcome]:
    """Applies a unit that is no repetition."""
    outcomes = await storage.edit(edits, now)
    assert isinstance(outcomes, list)
    return outcomes


async def store(
    storage: Storage,
    key: str,
    value: Any = "v",
    *,
    namespace: str = DEFAULT_NAMESPACE,
    now: int = NOW,
    expected: int | None = None,
    **facts: Any,
) -> Memory:
    """Stores one memory and returns it as it is now."""
    (outcome,) = await apply(storage, storing(key, value, namespace=namespace, expected=expected, **facts), now=now)
    assert outcome.written
    assert outcome.memory is not None
    return outcome.memory


async def remove(storage: Storage, key: str, *, namespace: str = DEFAULT_NAMESPACE, now: int = NOW) -> bool:
    """Removes one memory; whether there was one."""
    (outcome,) = await apply(storage, removing(key, namespace=namespace), now=now)
    return outcome.removed


async def version_of(storage: Storage, key: str, *, namespace: str = DEFAULT_NAMESPACE, now: int = NOW) -> int:
    """The version of a memory, 0 where there is none."""
    memory = await storage.get(namespace, key, now)
    return 0 if memory is None else memory.version


def condition(source: Any) -> Filter:
    """The filter that a Python object means."""
    return parse_filter(parse(encode(source)))


def selection(
    *scopes: str,
    where: Any = None,
    order: str = "id",
    recursive: bool = True,
    limit: int | None = None,
    **more: Any,
) -> Selection:
    """What to select; the filter and the order as a caller writes them."""
    return Selection(
        scopes=scopes or ("",),
        recursive=recursive,
        where=None if where is None else condition(where),
        order=parse_order(order),
        limit=limit,
        **more,
    )


async def keys(storage: Storage, *scopes: str, now: int = NOW, **how: Any) -> list[str]:
    """Keys of what is selected, in order."""
    return [memory.key for memory in (await storage.select(selection(*scopes, **how), now)).items]


async def hits(
    storage: Storage,
    query: str,
    *scopes: str,
    now: int = NOW,
    recursive: bool = True,
    where: Any = None,
    limit: int = 50,
    offset: int = 0,
) -> list[Hit]:
    """What a search finds, best first."""
    condition_ = None if where is None else condition(where)
    request = SearchRequest(scopes or ("",), recursive, parse_search(query), condition_, limit, offset)
    return (await storage.search(request, now)).hits


async def found(storage: Storage, query: str, *scopes: str, **how: Any) -> list[str]:
    """Keys of what a search finds, best first."""
    return [hit.memory.key for hit in await hits(storage, query, *scopes, **how)]


def literal(text: str) -> Raw:
    """JSON text that is stored as it is."""
    return Raw(text.encode())
