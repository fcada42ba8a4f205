"""Memories as resources, and what to know at the start of a conversation."""

from typing import Any

from unified_memory.mcp.budget import DEFAULT_TOKENS, tokens
from unified_memory.mcp.watch import SCHEME, resource_name, resource_uri
from unified_memory.model.clock import to_rfc3339
from unified_memory.model.errors import MemoryNotFoundError
from unified_memory.model.memory import Memory
from unified_memory.model.principal import Principal
from unified_memory.service.requests import ExactQuery, ListQuery
from unified_memory.service.service import Service

STARTUP = f"{SCHEME}startup-context"
PAGE = 50
STARTUP_MEMORIES = 50
STARTUP_IMPORTANCE = 7
MAX_IMPORTANCE = 10
PLAIN = "text/plain"
JSON = "application/json"

TEMPLATES: list[dict[str, Any]] = [
    {
        "uriTemplate": "memory://{namespace}/{key}",
        "name": "memory",
        "title": "A memory",
        "description": "One memory by namespace and key, each percent-encoded.",
    }
]


async def list_resources(service: Service, principal: Principal, cursor: str | None) -> dict[str, Any]:
    """A page of memories, the startup context before the first. Raises InvalidCursorError."""
    page = await service.memories.list_all(principal, ListQuery(limit=PAGE, cursor=cursor, order_by="id"))
    found = [] if cursor else [_startup()]
    found += [_resource(memory) for memory in page.memories]
    return {"resources": found, **({"nextCursor": page.next_cursor} if page.next_cursor else {})}


async def read_resource(service: Service, principal: Principal, uri: str) -> dict[str, Any]:
    """The contents of a resource. Raises MemoryNotFoundError."""
    if uri == STARTUP:
        return _contents(uri, PLAIN, await startup_context(service, principal))
    name = resource_name(uri)
    if name is None:
        raise MemoryNotFoundError("", uri)
    memory = await service.memories.retrieve(principal, *name)
    value = memory.parsed()
    if isinstance(value, str):
        return _contents(uri, PLAIN, value)
    return _contents(uri, JSON, memory.value.decode())


async def startup_context(service: Service, principal: Principal, max_tokens: int = DEFAULT_TOKENS) -> str:
    """The important memories that changed last, as text of at most so many tokens, with a word on what is left out."""
    query = ExactQuery(
        filter={"importance": {"gte": STARTUP_IMPORTANCE}}, order_by="-updated_at", limit=STARTUP_MEMORIES, count=True
    )
    found = await service.memories.query(principal, query)
    if not found.memories:
        return "Nothing important is remembered yet."
    lines = ["What is remembered, the latest first:"]
    used = tokens(lines[0]) + 50
    shown = 0
    for memory in found.memories:
        value = memory.parsed()
        words = value if isinstance(value, str) else memory.value.decode()
        day = to_rfc3339(memory.updated_at)[:10]
        line = f"- [{memory.namespace}/{memory.key}, importance {memory.importance}, {day}] {words}"
        used += tokens(line) + 1
        if used > max_tokens:
            break
        lines.append(line)
        shown += 1
    left = (found.count or 0) - shown
    if left > 0:
        lines.append(f"{left} more are left out: search_memory and load_contexts find them.")
    return "\n".join(lines)


def _startup() -> dict[str, Any]:
    return {
        "uri": STARTUP,
        "name": "startup-context",
        "title": "Startup context",
        "description": "The important memories that changed last: what to know when a conversation begins.",
        "mimeType": PLAIN,
    }


def _resource(memory: Memory) -> dict[str, Any]:
    told = f"In {memory.namespace}" + (f"; tags: {', '.join(memory.tags)}" if memory.tags else "")
    return {
        "uri": resource_uri(memory.namespace, memory.key),
        "name": memory.key,
        "description": told,
        "mimeType": PLAIN if memory.value[:1] == b'"' else JSON,
        "size": len(memory.value),
        "annotations": {
            "lastModified": to_rfc3339(memory.updated_at),
            "priority": memory.importance / MAX_IMPORTANCE,
        },
    }


def _contents(uri: str, kind: str, text: str) -> dict[str, Any]:
    return {"contents": [{"uri": uri, "mimeType": kind, "text": text}]}


def known_prefix(uri: str) -> bool:
    """Whether something of that address could ever be read."""
    return uri == STARTUP or resource_name(uri) is not None
