"""Long work over HTTP: the result when it comes in time, else the job."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from unified_memory.model.job import JobState, job_fields
from unified_memory.model.value import encode
from unified_memory.rest.exchange import JSON, Answer, Call
from unified_memory.rest.problems import status_of_code, told
from unified_memory.service.jobs import Running, Work
from unified_memory.service.service import Service


async def long_work(
    service: Service, call: Call, kind: str, namespace: str, work: Work, *, seconds: float, total: int | None = None
) -> Answer:
    """Starts the work as a job and waits for it so many seconds.

    200 with what it came to, 202 with the job where it goes on, or the error that ended it.
    """
    job = await service.jobs.start(call.principal, kind, namespace, work, total=total)
    try:
        job = await asyncio.wait_for(service.jobs.finished(call.principal, job.id), seconds)
    except TimeoutError:
        job = await service.jobs.get(call.principal, job.id)
    match job.state:
        case JobState.DONE:
            return Answer(job.result)
        case JobState.RUNNING:
            location = (b"location", b"/api/v1/memory/jobs/" + job.id.encode())
            return Answer(encode({"job": job_fields(job)}), 202, (JSON, location))
        case JobState.FAILED:
            # The job tells the same error that a call without a job would have raised.
            error = msgspec.json.decode(job.error)
            return told(status_of_code(error["code"]), error.pop("detail"), {**error, "job_id": job.id})
        case state:
            facts = {"code": f"job_{state.value}", "job_id": job.id}
            return told(500, f"The job was {state.value} before its end", facts)


def absolutely(running: Running) -> Callable[[int, int | None], Awaitable[None]]:
    """The job's `advance` for work that tells how much is done in all, not how much more."""

    async def advance(done: int, total: int | None) -> None:
        await running.advance(done - running.job.done, total)

    return advance
