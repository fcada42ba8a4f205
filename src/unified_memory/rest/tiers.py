"""Routes of the tiers: what lies where, and moves on purpose."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
from msgspec import Struct

from unified_memory.model.clock import to_rfc3339
from unified_memory.model.errors import NamespaceNotFoundError
from unified_memory.model.namespace import check_namespace
from unified_memory.model.principal import Principal
from unified_memory.model.value import encode
from unified_memory.rest.exchange import Answer, Call, decode, patience
from unified_memory.rest.work import long_work
from unified_memory.service.jobs import Running
from unified_memory.service.service import Service
from unified_memory.service.tiering import TierState
from unified_memory.storage.hot import HotState
from unified_memory.storage.tiers import Moved


class ArchiveRequest(Struct, forbid_unknown_fields=True):
    """A namespace whose values are to go into archives, or to come back."""

    namespace: str
    recursive: bool = True
    dry_run: bool = False


_request = msgspec.json.Decoder(ArchiveRequest)


# ---- moves
async def archive(service: Service, call: Call) -> Answer:
    """POST /archive."""
    request, seconds = await _read(service, call)
    if not request.dry_run:
        await service.tiering.require_moves()
    service.tiering.require_cold()
    uses = await service.tiering.plan(call.principal, request.namespace, recursive=request.recursive)
    if request.dry_run:
        return Answer(encode(_moved(request, Moved(uses.warm, uses.warm_bytes))))
    moves = service.tiering.archive(call.principal, request.namespace, recursive=request.recursive)
    return await _move(service, call, "archive", request, moves, seconds=seconds, total=uses.warm)


async def recall_archived(service: Service, call: Call) -> Answer:
    """POST /archive/recall."""
    request, seconds = await _read(service, call)
    if not request.dry_run:
        await service.tiering.require_writes()
    uses = await service.tiering.plan(call.principal, request.namespace, recursive=request.recursive)
    if request.dry_run:
        return Answer(encode(_moved(request, Moved(uses.cold, uses.cold_bytes))))
    moves = service.tiering.recall(call.principal, request.namespace, recursive=request.recursive)
    return await _move(service, call, "recall", request, moves, seconds=seconds, total=uses.cold)


async def _read(service: Service, call: Call) -> tuple[ArchiveRequest, float]:
    """The request, and how many seconds the caller waits. Raises NamespaceNotFoundError."""
    seconds = patience(call.query("wait"))
    request = decode(_request, call.body)
    await _check_there(service, call.principal, request.namespace, recursive=request.recursive)
    return request, seconds


async def _check_there(service: Service, principal: Principal, name: str, *, recursive: bool) -> None:
    """Raises NamespaceNotFoundError: a namespace with a slip of the pen is none that is empty."""
    check_namespace(name)
    if not recursive:
        await service.namespaces.get(principal, name)
        return
    # It may be there only as a part of the names below it.
    found = await service.namespaces.list_all(principal, prefix=name, depth=None, limit=1, cursor=None)
    if not found.namespaces:
        raise NamespaceNotFoundError(name)


async def _move(
    service: Service,
    call: Call,
    kind: str,
    request: ArchiveRequest,
    moves: AsyncIterator[Moved],
    *,
    seconds: float,
    total: int,
) -> Answer:
    async def work(running: Running) -> dict[str, Any]:
        done = Moved()
        async for moved in moves:
            done += moved
            await running.advance(moved.memories)
        return _moved(request, done)

    return await long_work(service, call, kind, request.namespace, work, seconds=seconds, total=total)


def _moved(request: ArchiveRequest, moved: Moved) -> dict[str, Any]:
    return {**msgspec.structs.asdict(request), "memories": moved.memories, "bytes": moved.bytes}


async def tier_pass(service: Service, call: Call) -> Answer:
    """POST /archive/pass."""
    seconds = patience(call.query("wait"))
    service.tiering.require_cold()

    async def work(running: Running) -> dict[str, Any]:
        demoted = Moved()
        async for moved in service.tiering.demote():
            demoted += moved
            await running.advance(moved.memories)
        compacted = before = after = 0
        async for one in service.tiering.compact():
            compacted, before, after = compacted + 1, before + one.bytes_before, after + one.bytes_after
            await running.advance(one.memories)
        return {
            "demoted": {"memories": demoted.memories, "bytes": demoted.bytes},
            "compacted": compacted,
            "bytes_before": before,
            "bytes_after": after,
        }

    return await long_work(service, call, "tier_pass", "", work, seconds=seconds)


# ---- what lies where
async def tiers(service: Service, call: Call) -> Answer:
    """GET /tiers."""
    call.query()
    state = await service.tiering.state()
    told = {
        "hot": _hot(state.hot),
        "warm": {"memories": state.uses.warm, "bytes": state.uses.warm_bytes},
        "cold": {
            "memories": state.uses.cold,
            "bytes": state.uses.cold_bytes,
            "archives": living(state),
            "archive_bytes": state.archive_bytes,
            "off": state.cold_off,
        },
        "promotions": state.counts.promotions,
        "demotions": state.counts.demotions,
        "compactions": state.counts.compactions,
        "archives": [
            {**msgspec.structs.asdict(one), "changed_at": to_rfc3339(one.changed_at)} for one in state.archives
        ],
    }
    return Answer(encode(told))


def living(state: TierState) -> int:
    """How many archives there are without those whose files are about to be removed."""
    return sum(one.state != "dead" for one in state.archives)


def _hot(state: HotState) -> dict[str, Any]:
    counts = state.counts
    looks = counts.hits + counts.misses
    return {
        "kind": state.kind,
        "trusted": state.trusted,
        "trouble": state.trouble,
        "note": state.note,
        "memories": held(state, counts.entries),
        "bytes": held(state, counts.bytes),
        "hits": counts.hits,
        "misses": counts.misses,
        "hit_ratio": counts.hits / looks if looks else None,
        "fills": counts.fills,
        "refused": counts.refused,
        "evictions": counts.evictions,
        "failures": counts.failures,
    }


def held(state: HotState, count: int | None) -> int | None:
    """How much of it is hot, None where the server has not told."""
    return 0 if state.kind == "none" else count
