"""Routes of namespaces."""

from collections.abc import Mapping

import msgspec
from msgspec import Raw

from unified_memory.model.clock import to_rfc3339
from unified_memory.model.namespace import Namespace
from unified_memory.model.value import encode
from unified_memory.rest.exchange import Answer, Call, boolean, decode, integer, patience
from unified_memory.rest.memories import page
from unified_memory.rest.work import long_work
from unified_memory.service.jobs import Running
from unified_memory.service.requests import NamespaceRequest
from unified_memory.service.service import Service

_create = msgspec.json.Decoder(NamespaceRequest)
_config: msgspec.json.Decoder[Mapping[str, Raw]] = msgspec.json.Decoder(dict[str, Raw])


def encode_namespace(namespace: Namespace) -> bytes:
    """The namespace as JSON."""
    fields = {f: getattr(namespace, f) for f in namespace.__struct_fields__}
    return encode({**fields, "created_at": to_rfc3339(namespace.created_at)})


async def create(service: Service, call: Call) -> Answer:
    """POST /namespaces."""
    call.query()
    request = decode(_create, call.body)
    return Answer(encode_namespace(await service.namespaces.create(call.principal, request.name, request.config)))


async def list_namespaces(service: Service, call: Call) -> Answer:
    """GET /namespaces."""
    query = call.query("prefix", "depth", "limit", "cursor")
    listing = await service.namespaces.list_all(
        call.principal,
        prefix=query.get("prefix"),
        depth=integer(query, "depth"),
        limit=integer(query, "limit", 50) or 0,
        cursor=query.get("cursor"),
    )
    return page("namespaces", map(encode_namespace, listing.namespaces), listing.next_cursor)


async def get(service: Service, call: Call) -> Answer:
    """GET /namespaces/{name}."""
    call.query()
    return Answer(encode_namespace(await service.namespaces.get(call.principal, call.tail)))


async def configure(service: Service, call: Call) -> Answer:
    """PUT /namespaces/{name}."""
    call.query()
    config = decode(_config, call.body)
    return Answer(encode_namespace(await service.namespaces.configure(call.principal, call.tail, config)))


async def delete(service: Service, call: Call) -> Answer:
    """DELETE /namespaces/{name}."""
    query = call.query("recursive", "dry_run", "wait")
    # All of the request is read before anything is done.
    recursive, dry_run = boolean(query, "recursive") is True, boolean(query, "dry_run") is True
    seconds = patience(query)
    gone = await service.namespaces.delete(call.principal, call.tail, recursive=recursive, dry_run=dry_run)
    told = {
        "deleted": not dry_run,
        "namespace": gone.namespace,
        "memories": gone.memories,
        "namespaces": gone.namespaces,
        "dry_run": dry_run,
    }
    if dry_run:
        return Answer(encode(told))

    async def work(running: Running) -> dict[str, object]:
        async for purged in service.namespaces.purge(gone.tickets):
            await running.advance(purged)
        return told

    return await long_work(
        service, call, "delete_namespace", gone.namespace, work, seconds=seconds, total=gone.memories
    )
