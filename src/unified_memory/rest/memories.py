"""Routes of memories."""

from collections.abc import Iterable

import msgspec
from msgspec import Raw

from unified_memory.model.errors import InvalidInputError
from unified_memory.model.found import encode_result
from unified_memory.model.memory import Memory, encode_memory
from unified_memory.model.namespace import DEFAULT_NAMESPACE
from unified_memory.model.value import encode, parse
from unified_memory.rest.exchange import JSON, Answer, Call, boolean, decode, etag, integer, patience
from unified_memory.rest.work import long_work
from unified_memory.service.jobs import Running
from unified_memory.service.requests import (
    BatchKeysRequest,
    BatchStoreRequest,
    DeleteWhereRequest,
    ExactQuery,
    ListQuery,
    MoveRequest,
    PatchRequest,
    RecallQuery,
    SearchQuery,
    SimilarQuery,
    StoreRequest,
    UpdateRequest,
    UpdateWhereRequest,
)
from unified_memory.service.searching import Found
from unified_memory.service.service import Service

_store = msgspec.json.Decoder(StoreRequest)
_update = msgspec.json.Decoder(UpdateRequest)
_patch = msgspec.json.Decoder(PatchRequest)
_move = msgspec.json.Decoder(MoveRequest)
_batch_store = msgspec.json.Decoder(BatchStoreRequest)
_batch_keys = msgspec.json.Decoder(BatchKeysRequest)
_update_where = msgspec.json.Decoder(UpdateWhereRequest)
_delete_where = msgspec.json.Decoder(DeleteWhereRequest)
_search = msgspec.json.Decoder(SearchQuery)
_similar = msgspec.json.Decoder(SimilarQuery)
_recall = msgspec.json.Decoder(RecallQuery)
_query = msgspec.json.Decoder(ExactQuery)
MERGE_PATCH = "application/merge-patch+json"


def _record(memory: Memory | None) -> Answer:
    if memory is None:  # a write that was applied has a result
        raise TypeError
    return Answer(encode_memory(memory), headers=(JSON, etag(memory.version)))


async def store(service: Service, call: Call) -> Answer:
    """POST /store."""
    call.query()
    request = decode(_store, call.body)
    outcome = await service.memories.store(call.principal, request, call.conditions(), call.idempotent())
    return _record(outcome.memory)


async def retrieve(service: Service, call: Call) -> Answer:
    """GET /retrieve/{key}."""
    query = call.query("namespace", "include", "as_of")
    namespace, include, instant = query.get("namespace", DEFAULT_NAMESPACE), query.get("include"), query.get("as_of")
    if instant is None:
        memory = await service.memories.retrieve(call.principal, namespace, call.tail)
    elif include is not None:
        raise InvalidInputError(
            "include", "The search knows only of what is there now: include and as_of exclude each other"
        )
    else:
        memory = await service.histories.as_of(call.principal, namespace, call.tail, instant)
    if include is not None:
        if include != "search_index":
            raise InvalidInputError("include", "include can only be search_index")
        more = b',"search_index":' + encode(await service.memories.search_index(memory))
        return Answer(encode_memory(memory, more=more), headers=(JSON, etag(memory.version)))
    known = call.header(b"if-none-match")
    if known is not None and (known.strip() == "*" or f'"{memory.version}"' in known):
        return Answer(b"", 304, (etag(memory.version),))
    return _record(memory)


async def update(service: Service, call: Call) -> Answer:
    """PUT /update/{key}."""
    namespace = call.query("namespace").get("namespace", DEFAULT_NAMESPACE)
    request = decode(_update, call.body)
    outcome = await service.memories.update(
        call.principal, namespace, call.tail, request, call.conditions(), call.idempotent()
    )
    return _record(outcome.memory)


async def patch(service: Service, call: Call) -> Answer:
    """PATCH /update/{key}."""
    namespace = call.query("namespace").get("namespace", DEFAULT_NAMESPACE)
    content_type = (call.header(b"content-type") or "").partition(";")[0].strip().lower()
    if content_type == MERGE_PATCH:
        parse(call.body, "body")
        request = PatchRequest(merge=Raw(call.body))
    else:
        request = decode(_patch, call.body)
    outcome = await service.memories.patch(
        call.principal, namespace, call.tail, request, call.conditions(), call.idempotent()
    )
    return _record(outcome.memory)


async def delete(service: Service, call: Call) -> Answer:
    """DELETE /delete/{key}."""
    namespace = call.query("namespace").get("namespace", DEFAULT_NAMESPACE)
    memory = await service.memories.delete(call.principal, namespace, call.tail, call.conditions(), call.idempotent())
    return Answer(encode({"deleted": True, **_name(memory)}))


def _name(memory: Memory) -> dict[str, object]:
    return {"key": memory.key, "namespace": memory.namespace, "id": memory.id, "version": memory.version}


async def move(service: Service, call: Call) -> Answer:
    """POST /move."""
    call.query()
    moved = await service.memories.move(call.principal, decode(_move, call.body))
    return _record(moved) if isinstance(moved, Memory) else Answer(encode({"moved": moved}))


async def store_batch(service: Service, call: Call) -> Answer:
    """POST /store/batch."""
    call.query()
    outcomes = await service.memories.store_batch(call.principal, decode(_batch_store, call.body), call.idempotent())
    return _results(
        b'{"status":"%b","memory":%b}' % (b"created" if o.created else b"replaced", encode_memory(o.memory))
        for o in outcomes
        if o.memory is not None
    )


async def retrieve_batch(service: Service, call: Call) -> Answer:
    """POST /retrieve/batch."""
    call.query()
    request = decode(_batch_keys, call.body)
    memories = await service.memories.retrieve_batch(call.principal, request)
    return _results(
        encode({"status": "not_found", "key": ref.key, "namespace": ref.namespace})
        if memory is None
        else b'{"status":"found","memory":%b}' % encode_memory(memory)
        for ref, memory in zip(request.keys, memories, strict=True)
    )


async def delete_batch(service: Service, call: Call) -> Answer:
    """POST /delete/batch."""
    call.query()
    request = decode(_batch_keys, call.body)
    outcomes = await service.memories.delete_batch(call.principal, request, call.idempotent())
    return _results(
        encode({"status": "not_found", "key": ref.key, "namespace": ref.namespace})
        if outcome.memory is None
        else encode({"status": "deleted", **_name(outcome.memory)})
        for ref, outcome in zip(request.keys, outcomes, strict=True)
    )


def _results(items: Iterable[bytes]) -> Answer:
    return Answer(b'{"results":[' + b",".join(items) + b"]}")


def page(name: str, items: Iterable[bytes], next_cursor: str | None, more: bytes = b"") -> Answer:
    """A listing under its name."""
    return Answer(b'{"%b":[%b],"next_cursor":%b%b}' % (name.encode(), b",".join(items), encode(next_cursor), more))


async def list_memories(service: Service, call: Call) -> Answer:
    """GET /list."""
    query = call.query("namespace", "recursive", "prefix", "tags", "order_by", "limit", "cursor")
    request = ListQuery(
        namespace=query.get("namespace"),
        recursive=boolean(query, "recursive", default=True) is not False,
        prefix=query.get("prefix"),
        tags=query["tags"].split(",") if "tags" in query else None,
        order_by=query.get("order_by", "id"),
        cursor=query.get("cursor"),
    )
    request.limit = integer(query, "limit", request.limit) or 0
    listing = await service.memories.list_all(call.principal, request)
    return page("memories", map(encode_memory, listing.memories), listing.next_cursor)


async def search(service: Service, call: Call) -> Answer:
    """POST /search."""
    call.query()
    return _found(await service.searching.search(call.principal, decode(_search, call.body)))


async def similar(service: Service, call: Call) -> Answer:
    """POST /similar."""
    call.query()
    return _found(await service.searching.similar(call.principal, decode(_similar, call.body)))


async def recall(service: Service, call: Call) -> Answer:
    """POST /recall."""
    call.query()
    return _found(await service.searching.recall(call.principal, decode(_recall, call.body)))


def _found(found: Found) -> Answer:
    more = b',"left_out":%d,"mode":%b,"corrected":%b' % (found.left_out, encode(found.mode), encode(found.corrected))
    return page("results", map(encode_result, found.results), found.next_cursor, more)


async def query(service: Service, call: Call) -> Answer:
    """POST /query."""
    call.query()
    queried = await service.memories.query(call.principal, decode(_query, call.body))
    more = b"" if queried.count is None else b',"count":%d' % queried.count
    if queried.groups is not None:
        more += b',"groups":' + encode(queried.groups)
    if queried.cold_read:
        more += b',"cold_read":%d' % queried.cold_read
    items = map(encode_memory, queried.memories) if queried.rows is None else map(encode, queried.rows)
    return page("memories", items, queried.next_cursor, more)


async def update_where(service: Service, call: Call) -> Answer:
    """POST /update/where."""
    return await _where(service, call, decode(_update_where, call.body))


async def delete_where(service: Service, call: Call) -> Answer:
    """POST /delete/where."""
    return await _where(service, call, decode(_delete_where, call.body))


async def _where(service: Service, call: Call, request: UpdateWhereRequest | DeleteWhereRequest) -> Answer:
    seconds = patience(call.query("wait"))
    memories = service.memories
    change = memories.read_where(request) if isinstance(request, UpdateWhereRequest) else None
    selection, affected = await memories.matching(call.principal, request)
    if request.dry_run:
        return Answer(encode(affected))

    async def work(running: Running) -> dict[str, object]:
        async for changed in memories.change_where(selection, change):
            affected.changed += changed
            await running.advance(changed)
        return msgspec.structs.asdict(affected)

    kind = "delete_where" if change is None else "update_where"
    return await long_work(service, call, kind, request.namespace or "", work, seconds=seconds, total=affected.matched)
