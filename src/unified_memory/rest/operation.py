"""Routes of the service itself: statistics, cleanup, jobs, mode, health."""

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from unified_memory import __version__
from unified_memory.model.clock import to_rfc3339
from unified_memory.model.errors import InvalidInputError
from unified_memory.model.job import Job, JobState, job_fields
from unified_memory.model.value import encode
from unified_memory.rest.backups import state_fields
from unified_memory.rest.exchange import EVENT_STREAM, Answer, Call, Stream, decode, integer, patience
from unified_memory.rest.memories import page
from unified_memory.rest.work import long_work
from unified_memory.service.jobs import Running
from unified_memory.service.service import Service
from unified_memory.service.upkeep import Health

EVENT_SECONDS = 0.25
# After so many looks without news a comment is sent, lest something between us and the client gives up: 15 seconds.
QUIET_LOOKS = 60
LIVE = Answer(b'{"status":"ok"}')


class ModeRequest(Struct, forbid_unknown_fields=True):
    """Whether writes are off, and why."""

    read_only: bool
    reason: Annotated[str, Meta(max_length=1000)] | None = None


_mode = msgspec.json.Decoder(ModeRequest)


async def stats(service: Service, call: Call) -> Answer:
    """GET /stats."""
    told = await service.upkeep.stats(call.principal, call.query("namespace").get("namespace"))
    fields = msgspec.structs.asdict(told)
    for end in ("oldest", "newest"):
        fields[end] = None if fields[end] is None else to_rfc3339(fields[end])
    fields["top_tags"] = [{"tag": tag, "count": count} for tag, count in told.top_tags]
    fields["read_only"] = await service.upkeep.read_only()
    return Answer(encode(fields))


async def cleanup(service: Service, call: Call) -> Answer:
    """POST /cleanup."""
    seconds = patience(call.query("wait"))

    async def work(running: Running) -> dict[str, object]:
        namespaces: dict[str, int] = {}
        purged = 0
        async for removed in service.upkeep.cleanup():
            for name, count in removed.expired.items():
                namespaces[name] = namespaces.get(name, 0) + count
            purged += removed.purged
            await running.advance(sum(removed.expired.values()) + removed.purged)
        return {"expired": sum(namespaces.values()), "namespaces": namespaces, "purged": purged}

    return await long_work(service, call, "cleanup", "", work, seconds=seconds)


async def list_jobs(service: Service, call: Call) -> Answer:
    """GET /jobs."""
    query = call.query("state", "limit", "cursor")
    try:
        state = JobState(query["state"]) if "state" in query else None
    except ValueError:
        raise InvalidInputError("state", "state must be one of " + ", ".join(JobState)) from None
    listing = await service.jobs.list_all(
        call.principal, state=state, limit=integer(query, "limit", 50) or 0, cursor=query.get("cursor")
    )
    return page("jobs", (encode(job_fields(job)) for job in listing.jobs), listing.next_cursor)


async def get_job(service: Service, call: Call) -> Answer:
    """GET /jobs/{id}."""
    call.query()
    return Answer(encode(job_fields(await service.jobs.get(call.principal, call.tail))))


async def cancel_job(service: Service, call: Call) -> Answer:
    """DELETE /jobs/{id}."""
    call.query()
    return Answer(encode(job_fields(await service.jobs.cancel(call.principal, call.tail))))


async def job_events(service: Service, call: Call) -> Stream:
    """Server-sent events of a job: `progress` whenever it changed, at last `end`."""
    call.query()
    return Stream(_job_events(service, call), EVENT_STREAM, endless=True)


async def _job_events(service: Service, call: Call) -> AsyncGenerator[bytes, None]:
    last: bytes | None = None
    quiet = 0
    while True:
        job: Job = await service.jobs.get(call.principal, call.tail)
        told = encode(job_fields(job))
        if told != last or job.ended:
            yield b"event: %b\ndata: %b\n\n" % (b"end" if job.ended else b"progress", told)
            last, quiet = told, 0
        if job.ended:
            return
        quiet += 1
        if quiet % QUIET_LOOKS == 0:
            yield b": still at it\n\n"
        await asyncio.sleep(EVENT_SECONDS)


async def get_mode(service: Service, call: Call) -> Answer:
    """GET /mode."""
    call.query()
    reason = await service.upkeep.read_only()
    return Answer(encode({"read_only": reason is not None, "reason": reason}))


async def set_mode(service: Service, call: Call) -> Answer:
    """PUT /mode."""
    call.query()
    request = decode(_mode, call.body)
    asked = (request.reason or "switched by command") if request.read_only else None
    reason = await service.upkeep.switch_read_only(asked)
    return Answer(encode({"read_only": reason is not None, "reason": reason}))


async def _answer(service: Service, health: Health, call: Call) -> Answer:
    body = {
        "status": health.status,
        "reasons": health.reasons,
        "service": call.scope.get("unified_memory.name", "unified-memory"),
        "version": __version__,
        "checked_at": to_rfc3339(health.checked_at),
        "meaning": health.meaning,
        "backup": state_fields(await service.backups.state()),
    }
    return Answer(encode(body), 503 if health.status == "failing" else 200)


async def health(service: Service, call: Call) -> Answer:
    """GET /health. What a load balancer adds to the query is not looked at, here and in the next two."""
    return await _answer(service, await service.upkeep.health(), call)


async def ready(service: Service, call: Call) -> Answer:
    """GET /health/ready."""
    return await _answer(service, await service.upkeep.ready(), call)


async def live(_service: Service, _call: Call) -> Answer:
    """GET /health/live."""
    return LIVE
