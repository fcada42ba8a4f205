"""Routes of the past: former versions, and the feed of everything that changed."""

from collections.abc import AsyncGenerator
from typing import Any

import msgspec

from unified_memory.model.clock import to_rfc3339
from unified_memory.model.errors import InvalidInputError
from unified_memory.model.history import Event
from unified_memory.model.memory import encode_memory
from unified_memory.model.namespace import DEFAULT_NAMESPACE
from unified_memory.model.query import DEFAULT_LIMIT
from unified_memory.model.value import encode
from unified_memory.rest.exchange import (
    EVENT_STREAM,
    JSON,
    Answer,
    Call,
    Stream,
    boolean,
    decode,
    etag,
    integer,
    patience,
)
from unified_memory.rest.memories import page
from unified_memory.rest.work import long_work
from unified_memory.service.history import VersionHead
from unified_memory.service.jobs import Running
from unified_memory.service.requests import RedactRequest, RestoreVersionRequest
from unified_memory.service.service import Service

_restore = msgspec.json.Decoder(RestoreVersionRequest)
_redact = msgspec.json.Decoder(RedactRequest)
EVENTS_TYPE = "text/event-stream"
# What a client is told to wait before it connects again, in milliseconds.
RETRY = b"retry: 1000\n"


# ---- versions
async def history(service: Service, call: Call) -> Answer:
    """GET /history/{key}."""
    query = call.query("namespace", "version", "limit", "cursor")
    namespace = query.get("namespace", DEFAULT_NAMESPACE)
    version = integer(query, "version")
    limit = integer(query, "limit", DEFAULT_LIMIT) or 0
    if version is not None:
        for name in ("limit", "cursor"):
            if name in query:
                raise InvalidInputError(name, f"{name} belongs to the list of versions, not to one of them")
        return Answer(encode_memory(await service.histories.version(call.principal, namespace, call.tail, version)))
    told = await service.histories.versions(
        call.principal, namespace, call.tail, limit=limit, cursor=query.get("cursor")
    )
    return page("versions", (encode(_head(one)) for one in told.versions), told.next_cursor)


def _head(head: VersionHead) -> dict[str, Any]:
    told = msgspec.structs.asdict(head)
    for name in ("at", "ended_at", "redacted_at"):
        told[name] = None if told[name] is None else to_rfc3339(told[name])
    return told


async def restore_version(service: Service, call: Call) -> Answer:
    """POST /history/restore."""
    call.query()
    outcome = await service.histories.restore(call.principal, decode(_restore, call.body), call.idempotent())
    if outcome.memory is None:  # what is restored is there
        raise TypeError
    return Answer(encode_memory(outcome.memory), headers=(JSON, etag(outcome.memory.version)))


async def redact(service: Service, call: Call) -> Answer:
    """POST /history/redact."""
    seconds = patience(call.query("wait"))
    request = decode(_redact, call.body)

    async def work(_running: Running) -> dict[str, Any]:
        redacted = await service.histories.redact(call.principal, request)
        return {"key": request.key, "namespace": request.namespace, "versions": redacted.versions, "ids": redacted.ids}

    return await long_work(service, call, "redact", request.namespace, work, seconds=seconds)


# ---- the feed
def event_fields(event: Event) -> dict[str, Any]:
    """A change as JSON-ready facts."""
    return {**msgspec.structs.asdict(event), "at": to_rfc3339(event.at)}


async def changes(service: Service, call: Call) -> Answer | Stream:
    """GET /changes."""
    query = call.query("since", "namespace", "recursive", "limit")
    since = _since(query, call)
    namespace = query.get("namespace")
    recursive = boolean(query, "recursive", default=True) is not False
    if EVENTS_TYPE in (call.header(b"accept") or "").lower():
        if "limit" in query:
            raise InvalidInputError("limit", "A stream of events has no end: limit belongs to the list of changes")
        return Stream(_following(service, call, since, namespace, recursive=recursive), EVENT_STREAM, endless=True)
    limit = integer(query, "limit", DEFAULT_LIMIT) or 0
    told = await service.histories.changes(
        call.principal, since=since or 0, namespace=namespace, recursive=recursive, limit=limit
    )
    return Answer(encode({"changes": [event_fields(event) for event in told.changes], "next": told.next}))


def _since(query: dict[str, str], call: Call) -> int | None:
    """The place after which changes are asked for: a client that connects again says so in Last-Event-ID, which wins."""
    seen = call.header(b"last-event-id")
    told = query if seen is None else {**query, "Last-Event-ID": seen.strip()}
    places = {name: integer(told, name) for name in ("since", "Last-Event-ID")}
    for name, place in places.items():
        if place is not None and place < 0:
            raise InvalidInputError(name, "A place in the commit order is not below 0")
    return places["since"] if seen is None else places["Last-Event-ID"]


async def _following(
    service: Service, call: Call, since: int | None, namespace: str | None, *, recursive: bool
) -> AsyncGenerator[bytes, None]:
    """Server-sent events. Before the first stands where they begin: whoever connects again before there was one misses none."""
    if since is None:
        since = await service.storage.last_seq()
    opening = RETRY + b"id: %d\n\n" % since
    async for event in service.histories.follow(call.principal, since=since, namespace=namespace, recursive=recursive):
        yield opening + _piece(event)
        opening = b""


def _piece(event: Event | None) -> bytes:
    if event is None:
        return b": nothing new\n\n"
    return b"id: %d\nevent: %b\ndata: %b\n\n" % (event.seq, event.kind.encode(), encode(event_fields(event)))
