"""Routes of sessions."""

import msgspec

from unified_memory.model.errors import InvalidInputError
from unified_memory.model.memory import encode_memory
from unified_memory.model.namespace import DEFAULT_NAMESPACE
from unified_memory.model.session import WithMemories, encode_session
from unified_memory.model.value import encode
from unified_memory.rest.exchange import Answer, Call, boolean, decode, integer
from unified_memory.rest.memories import page
from unified_memory.service.requests import SessionRequest
from unified_memory.service.service import Service

_create = msgspec.json.Decoder(SessionRequest)


async def create(service: Service, call: Call) -> Answer:
    """POST /sessions."""
    call.query()
    session = await service.sessions.create(call.principal, decode(_create, call.body))
    return Answer(encode_session(session, service.clock.now()))


async def view(service: Service, call: Call) -> Answer:
    """GET /sessions/{id}."""
    query = call.query("namespace", "scope", "limit", "cursor")
    scope = query.get("scope", "session")
    if scope not in {"session", "cluster"}:
        raise InvalidInputError("scope", "scope must be session or cluster")
    view = await service.sessions.view(
        call.principal,
        query.get("namespace", DEFAULT_NAMESPACE),
        call.tail,
        cluster=scope == "cluster",
        limit=integer(query, "limit", 50) or 0,
        cursor=query.get("cursor"),
    )
    memories = b",".join(map(encode_memory, view.memories))
    return Answer(
        b'{"session":%b,"memories":[%b],"next_cursor":%b}'
        % (encode_session(view.session, service.clock.now()), memories, encode(view.next_cursor))
    )


async def list_sessions(service: Service, call: Call) -> Answer:
    """GET /sessions."""
    query = call.query("namespace", "recursive", "cluster_id", "active", "limit", "cursor")
    listing = await service.sessions.list_all(
        call.principal,
        namespace=query.get("namespace"),
        recursive=boolean(query, "recursive", default=True) is not False,
        cluster_id=query.get("cluster_id"),
        active=boolean(query, "active"),
        limit=integer(query, "limit", 50) or 0,
        cursor=query.get("cursor"),
    )
    now = service.clock.now()
    return page("sessions", (encode_session(one, now) for one in listing.sessions), listing.next_cursor)


async def end(service: Service, call: Call) -> Answer:
    """DELETE /sessions/{id}."""
    query = call.query("namespace", "memories")
    try:
        memories = WithMemories(query.get("memories", "keep"))
    except ValueError:
        raise InvalidInputError("memories", "memories must be keep, delete or expire") from None
    ended = await service.sessions.end(call.principal, query.get("namespace", DEFAULT_NAMESPACE), call.tail, memories)
    return Answer(
        b'{"session":%b,"memories":"%b","affected":%d}'
        % (encode_session(ended.session, service.clock.now()), ended.memories.value.encode(), ended.affected)
    )
