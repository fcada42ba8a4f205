"""Routes that let everything out and in again, line by line, never whole in memory."""

from typing import get_args

import msgspec

from unified_memory.model.value import encode
from unified_memory.rest.exchange import Answer, Call, Stream, boolean
from unified_memory.service.service import Service
from unified_memory.service.transfer import OnConflict

LINES_TYPE = "application/x-ndjson"
ON_CONFLICT: tuple[str, ...] = get_args(OnConflict)


async def export(service: Service, call: Call) -> Stream:
    """GET /export."""
    query = call.query("namespace", "recursive")
    recursive = boolean(query, "recursive", default=True) is not False
    lines = service.transfer.export(call.principal, namespace=query.get("namespace"), recursive=recursive)
    return Stream(lines, ((b"content-type", LINES_TYPE.encode()),))


async def import_lines(service: Service, call: Call) -> Answer:
    """POST /import. What a client that leaves before its end had sent until then is stored up to the last whole batch."""
    query = call.query("on_conflict", "into")
    imported = await service.transfer.import_lines(
        call.principal, call.parts(), on_conflict=query.get("on_conflict", ON_CONFLICT[0]), into=query.get("into")
    )
    return Answer(encode(msgspec.structs.asdict(imported)))
