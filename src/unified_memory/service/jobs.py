"""Jobs: long work in the background, with progress kept in the storage."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
from msgspec import Struct

from unified_memory.model.clock import SECOND, Clock
from unified_memory.model.errors import InvalidInputError, JobNotFoundError, UnifiedMemoryError
from unified_memory.model.job import Job, JobState
from unified_memory.model.principal import Principal
from unified_memory.model.query import MAX_LIMIT, decode_cursor, encode_cursor
from unified_memory.model.value import encode
from unified_memory.storage.base import Storage

BEAT_MICROSECONDS = 1 * SECOND
# A running job whose process has said nothing for so long is taken for dead.
SILENCE_MICROSECONDS = 60 * SECOND


class JobList(Struct):
    """A page of jobs and the cursor of the next one."""

    jobs: list[Job]
    next_cursor: str | None


class Running:
    """What a job's work tells of itself."""

    def __init__(self, job: Job, storage: Storage, clock: Clock) -> None:
        self.job = job
        self._storage = storage
        self._clock = clock

    async def advance(self, done: int, total: int | None = None) -> None:
        """`done` more units are done; kept at most once a second."""
        self.job.done += done
        if total is not None:
            self.job.total = total
        now = self._clock.now()
        if now - self.job.beat_at >= BEAT_MICROSECONDS:
            self.job.beat_at = now
            await self._storage.put_job(self.job)


Work = Callable[[Running], Awaitable[dict[str, Any]]]


class Jobs:
    """Starts, follows and ends long work. A job ends with the process that runs it; the work itself can be asked for again."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._storage = storage
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[Job]] = {}
        self._running: dict[str, Running] = {}

    async def start(
        self,
        principal: Principal,
        kind: str,
        namespace: str,
        work: Work,
        *,
        total: int | None = None,
        unit: str = "memories",
    ) -> Job:
        """Begins the work in the background; its record is durable before this returns."""
        now = self._clock.now()
        job = Job(
            secrets.token_hex(12),
            kind,
            namespace,
            principal.name,
            JobState.RUNNING,
            now,
            now,
            total=total,
            unit=unit,
        )
        await self._storage.put_job(job)
        running = Running(job, self._storage, self._clock)
        self._running[job.id] = running
        self._tasks[job.id] = asyncio.create_task(self._run(running, work), name=f"job {job.id} {kind}")
        # One that is cancelled before it has begun could not say so.
        await asyncio.sleep(0)
        return job

    async def _run(self, running: Running, work: Work) -> Job:
        job = running.job
        try:
            job.result = encode(await work(running))
            job.state = JobState.DONE
        except UnifiedMemoryError as error:
            job.state = JobState.FAILED
            hint = {"hint": error.hint} if error.hint else {}
            job.error = encode({"code": error.code, "detail": error.detail, **hint, **error.facts})
        except asyncio.CancelledError:
            job.state = JobState.CANCELLED
        except BaseException as error:
            # A fault of ours: it is told in the job and then goes on to whoever watches the task.
            job.state = JobState.FAILED
            job.error = encode({"code": "internal_error", "detail": f"{type(error).__name__}: {error}"})
            raise
        finally:
            job.finished_at = job.beat_at = self._clock.now()
            await asyncio.shield(self._storage.put_job(job))
            self._running.pop(job.id, None)
            self._tasks.pop(job.id, None)
        return job

    async def get(self, principal: Principal, job_id: str) -> Job:
        """The job as it stands. Raises JobNotFoundError."""
        running = self._running.get(job_id)
        job = running.job if running is not None else await self._storage.get_job(job_id)
        if job is None or not _may_see(principal, job):
            raise JobNotFoundError(job_id)
        return self._as_it_is(job)

    async def finished(self, principal: Principal, job_id: str) -> Job:
        """Waits until a job of this process has ended; one of another process is returned as it stands."""
        await self.get(principal, job_id)
        task = self._tasks.get(job_id)
        if task is not None:
            await asyncio.wait({task})
        return await self.get(principal, job_id)

    async def list_all(
        self, principal: Principal, *, state: JobState | None, limit: int, cursor: str | None
    ) -> JobList:
        """Jobs, newest first."""
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidInputError("limit", f"limit must be from 1 to {MAX_LIMIT}", limit=MAX_LIMIT)
        listing = ("jobs", state)
        # What is kept as running may have been interrupted: only a look at the time tells.
        kept = JobState.RUNNING if state is JobState.INTERRUPTED else state
        page = await self._storage.list_jobs(
            principal.scopes, state=kept, limit=limit, after=decode_cursor(cursor, *listing)
        )
        jobs = [self._as_it_is(self._running[job.id].job if job.id in self._running else job) for job in page.items]
        return JobList([job for job in jobs if state in {None, job.state}], encode_cursor(page.next, *listing))

    async def cancel(self, principal: Principal, job_id: str) -> Job:
        """Ends a job of this process after the chunk it is at. Raises JobNotFoundError."""
        await self.get(principal, job_id)
        task = self._tasks.get(job_id)
        if task is not None:
            task.cancel()
        return await self.finished(principal, job_id)

    async def close(self) -> None:
        """Ends all work of this process; the jobs say so."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _as_it_is(self, job: Job) -> Job:
        silent = self._clock.now() - job.beat_at > SILENCE_MICROSECONDS
        if job.state is JobState.RUNNING and job.id not in self._running and silent:
            return msgspec.structs.replace(job, state=JobState.INTERRUPTED)
        return job


def _may_see(principal: Principal, job: Job) -> bool:
    """Whoever sees the namespace that a job works on, and whoever started it."""
    return job.principal == principal.name or (
        principal.sees(job.namespace) if job.namespace else "" in principal.scopes
    )
