"""Jobs: what they tell while they run, how they end, and who may know of them."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from unified_memory.model.clock import SECOND, SettableClock
from unified_memory.model.errors import InvalidCursorError, InvalidInputError, JobNotFoundError, StorageFullError
from unified_memory.model.job import Job, JobState
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.service.jobs import BEAT_MICROSECONDS, SILENCE_MICROSECONDS, Jobs, Running
from unified_memory.storage.base import Storage
from unified_memory.storage.inmemory import InMemoryStorage

BOUND = 3  # seconds that anything may take


@pytest.fixture
def clock() -> SettableClock:
    return SettableClock()


@pytest.fixture
def storage() -> Storage:
    return InMemoryStorage()


@pytest.fixture
async def jobs(storage: Storage, clock: SettableClock) -> AsyncIterator[Jobs]:
    jobs = Jobs(storage, clock)
    yield jobs
    await jobs.close()


class Work:
    """Work that does a step whenever it is told to; `begun` is set while it waits for the next."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        self._steps: asyncio.Queue[int | BaseException | None] = asyncio.Queue()
        self.running: Running | None = None

    async def __call__(self, running: Running) -> dict[str, Any]:
        self.running = running
        done = 0
        while True:
            self.begun.set()
            step = await self._steps.get()
            if step is None:
                return {"done": done}
            if isinstance(step, BaseException):
                raise step
            await running.advance(step)
            done += step

    async def step(self, step: int | BaseException | None) -> None:
        """Does so much, fails, or (None) ends; returns when it waits again or has ended."""
        self.begun.clear()
        await self._steps.put(step)
        if isinstance(step, int):
            await asyncio.wait_for(self.begun.wait(), BOUND)


async def started(jobs: Jobs, principal: Principal = ANONYMOUS, namespace: str = "", **more: Any) -> tuple[Job, Work]:
    """A job that has begun."""
    work = Work()
    job = await jobs.start(principal, "kind", namespace, work, **more)
    await asyncio.wait_for(work.begun.wait(), BOUND)
    return job, work


async def ended(jobs: Jobs, job: Job) -> Job:
    return await asyncio.wait_for(jobs.finished(ANONYMOUS, job.id), BOUND)


async def kept(storage: Storage, job: Job) -> Job:
    found = await storage.get_job(job.id)
    assert found is not None
    return found


async def states(jobs: Jobs, state: JobState | None, principal: Principal = ANONYMOUS) -> list[tuple[str, JobState]]:
    listing = await jobs.list_all(principal, state=state, limit=100, cursor=None)
    return [(job.id, job.state) for job in listing.jobs]


async def test_a_job_is_kept_before_it_begins(jobs: Jobs, storage: Storage, clock: SettableClock) -> None:
    work = Work()
    job = await jobs.start(ANONYMOUS, "reindex", "n", work, total=7, unit="files")
    record = await kept(storage, job)
    assert (record.kind, record.namespace, record.principal) == ("reindex", "n", "anonymous")
    assert (record.state, record.done, record.total, record.unit) == (JobState.RUNNING, 0, 7, "files")
    assert (record.created_at, record.finished_at) == (clock.now(), None)


async def test_progress_shows_at_once_here_and_is_kept_once_a_second(
    jobs: Jobs, storage: Storage, clock: SettableClock
) -> None:
    job, work = await started(jobs, total=10)
    await work.step(2)
    assert (await jobs.get(ANONYMOUS, job.id)).done == 2
    assert (await kept(storage, job)).done == 0
    clock.instant += BEAT_MICROSECONDS - 1
    await work.step(1)
    assert (await kept(storage, job)).done == 0
    clock.instant += 1
    await work.step(1)
    assert (await kept(storage, job)).done == 4
    await work.step(1)
    assert (await kept(storage, job)).done == 4
    assert (await jobs.get(ANONYMOUS, job.id)).done == 5


async def test_the_total_may_become_known_on_the_way(jobs: Jobs) -> None:
    job, work = await started(jobs)
    assert work.running is not None
    await work.running.advance(1, total=3)
    now = await jobs.get(ANONYMOUS, job.id)
    assert (now.done, now.total) == (1, 3)


async def test_a_job_that_is_done_tells_its_result_to_every_process(
    jobs: Jobs, storage: Storage, clock: SettableClock
) -> None:
    job, work = await started(jobs)
    await work.step(3)
    clock.advance(5)
    await work.step(None)
    done = await ended(jobs, job)
    assert (done.state, done.result, done.error) == (JobState.DONE, b'{"done":3}', b"null")
    assert (done.done, done.finished_at) == (3, clock.now())
    assert await Jobs(storage, clock).get(ANONYMOUS, job.id) == done


async def test_a_failure_of_ours_is_told_with_its_code_and_facts(jobs: Jobs, storage: Storage) -> None:
    job, work = await started(jobs)
    await work.step(2)
    await work.step(StorageFullError("No room"))
    failed = await ended(jobs, job)
    assert (failed.state, failed.done, failed.result) == (JobState.FAILED, 2, b"null")
    told = {"code": "storage_full", "detail": "No room", "hint": "Free space, or delete memories"}
    assert msgspec.json.decode(failed.error) == told
    assert (await kept(storage, job)).state is JobState.FAILED
    job, work = await started(jobs)
    await work.step(InvalidInputError("set.ttl", "ttl is wrong", limit=5))
    error = msgspec.json.decode((await ended(jobs, job)).error)
    assert error == {"code": "invalid_input", "detail": "ttl is wrong", "field": "set.ttl", "limit": 5}


async def test_a_failure_that_nobody_foresaw_is_told_too_and_not_swallowed(
    jobs: Jobs, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    job, work = await started(jobs)
    with caplog.at_level(logging.ERROR):
        await work.step(ZeroDivisionError("of nothing"))
        failed = await ended(jobs, job)
    assert failed.state is JobState.FAILED
    assert msgspec.json.decode(failed.error) == {"code": "internal_error", "detail": "ZeroDivisionError: of nothing"}
    assert (await kept(storage, job)).state is JobState.FAILED


async def test_a_cancelled_job_says_so_and_what_it_had_done(jobs: Jobs, storage: Storage) -> None:
    job, work = await started(jobs)
    await work.step(4)
    cancelled = await jobs.cancel(ANONYMOUS, job.id)
    assert (cancelled.state, cancelled.done) == (JobState.CANCELLED, 4)
    assert cancelled.finished_at is not None
    assert await kept(storage, job) == cancelled
    # Once more changes nothing.
    assert await jobs.cancel(ANONYMOUS, job.id) == cancelled


async def test_a_job_that_is_cancelled_before_its_first_step_has_ended_too(jobs: Jobs, storage: Storage) -> None:
    job = await jobs.start(ANONYMOUS, "kind", "", Work())
    assert (await jobs.cancel(ANONYMOUS, job.id)).state is JobState.CANCELLED
    assert (await kept(storage, job)).state is JobState.CANCELLED


async def test_closing_ends_all_jobs_and_they_say_so(storage: Storage, clock: SettableClock) -> None:
    jobs = Jobs(storage, clock)
    begun, _ = await started(jobs)
    fresh = await jobs.start(ANONYMOUS, "kind", "", Work())
    await asyncio.wait_for(jobs.close(), BOUND)
    assert [(await kept(storage, job)).state for job in (begun, fresh)] == [JobState.CANCELLED] * 2


async def test_cancelling_a_job_that_has_ended_leaves_it_as_it_ended(jobs: Jobs) -> None:
    job, work = await started(jobs)
    await work.step(None)
    done = await ended(jobs, job)
    assert await jobs.cancel(ANONYMOUS, job.id) == done


async def test_a_job_of_another_process_is_shown_and_not_waited_for(
    jobs: Jobs, storage: Storage, clock: SettableClock
) -> None:
    job, _ = await started(jobs)
    other = Jobs(storage, clock)
    assert (await asyncio.wait_for(other.finished(ANONYMOUS, job.id), BOUND)).state is JobState.RUNNING
    assert (await asyncio.wait_for(other.cancel(ANONYMOUS, job.id), BOUND)).state is JobState.RUNNING


async def test_a_job_whose_process_is_silent_for_too_long_was_interrupted(
    jobs: Jobs, storage: Storage, clock: SettableClock
) -> None:
    job, work = await started(jobs)
    other = Jobs(storage, clock)
    clock.instant += SILENCE_MICROSECONDS
    assert (await other.get(ANONYMOUS, job.id)).state is JobState.RUNNING
    clock.instant += 1
    assert (await other.get(ANONYMOUS, job.id)).state is JobState.INTERRUPTED
    assert await states(other, None) == [(job.id, JobState.INTERRUPTED)]
    # Whoever runs it knows better, and a sign of life is enough for the others.
    assert (await jobs.get(ANONYMOUS, job.id)).state is JobState.RUNNING
    await work.step(1)
    assert (await other.get(ANONYMOUS, job.id)).state is JobState.RUNNING
    await work.step(None)
    await ended(jobs, job)
    clock.instant += 2 * SILENCE_MICROSECONDS
    assert (await other.get(ANONYMOUS, job.id)).state is JobState.DONE


async def test_a_listing_by_state_goes_by_the_state_that_is_shown(
    jobs: Jobs, storage: Storage, clock: SettableClock
) -> None:
    lost = Job("lost", "kind", "", "anonymous", JobState.RUNNING, clock.now(), clock.now())
    await storage.put_job(lost)
    clock.instant += SILENCE_MICROSECONDS + 1
    alive, _ = await started(jobs)
    assert await states(jobs, JobState.INTERRUPTED) == [(lost.id, JobState.INTERRUPTED)]
    assert await states(jobs, JobState.RUNNING) == [(alive.id, JobState.RUNNING)]
    assert await states(jobs, JobState.DONE) == []


async def test_jobs_are_listed_newest_first_page_by_page(jobs: Jobs, clock: SettableClock) -> None:
    expected: list[str] = []
    for _ in range(5):
        job, work = await started(jobs)
        expected.insert(0, job.id)
        await work.step(None)
        await ended(jobs, job)
        clock.instant += SECOND
    found: list[str] = []
    cursor = None
    while True:
        page = await jobs.list_all(ANONYMOUS, state=JobState.DONE, limit=2, cursor=cursor)
        found += [job.id for job in page.jobs]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert found == expected
    first = await jobs.list_all(ANONYMOUS, state=None, limit=2, cursor=None)
    with pytest.raises(InvalidCursorError):
        await jobs.list_all(ANONYMOUS, state=JobState.DONE, limit=2, cursor=first.next_cursor)


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_a_page_of_jobs_has_1_to_1000(jobs: Jobs, limit: int) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await jobs.list_all(ANONYMOUS, state=None, limit=limit, cursor=None)
    assert refused.value.field == "limit"


@pytest.mark.parametrize(
    ("namespace", "scopes", "visible"),
    [
        ("acme", ("acme",), True),
        ("acme/x", ("acme",), True),
        ("acme-corp", ("acme",), False),
        ("acme0", ("acme",), False),
        ("acme", ("acme/x",), False),
        ("acme", ("b", "acme"), True),
        ("acme", (), False),
        ("acme", ("",), True),
        ("", ("acme",), False),
        ("", ("",), True),
    ],
)
async def test_only_who_sees_the_namespace_knows_of_a_job(
    jobs: Jobs,
    namespace: str,
    scopes: tuple[str, ...],
    visible: bool,  # noqa: FBT001 - drawn
) -> None:
    job, _ = await started(jobs, namespace=namespace)
    principal = Principal("someone", scopes)
    if visible:
        assert (await jobs.get(principal, job.id)).id == job.id
        assert await states(jobs, None, principal) == [(job.id, JobState.RUNNING)]
        assert (await jobs.cancel(principal, job.id)).state is JobState.CANCELLED
        return
    assert await states(jobs, None, principal) == []
    for ask in (jobs.get, jobs.finished, jobs.cancel):
        with pytest.raises(JobNotFoundError) as refused:
            await asyncio.wait_for(ask(principal, job.id), BOUND)
        assert refused.value.facts == {"job_id": job.id}
    assert (await jobs.get(ANONYMOUS, job.id)).state is JobState.RUNNING


@pytest.mark.parametrize("namespace", ["", "acme"])
async def test_who_started_a_job_may_follow_it_wherever_it_reaches(jobs: Jobs, namespace: str) -> None:
    """A change by filter without a namespace reaches all that its caller sees, and is a job of no namespace."""
    caller = Principal("someone", ("acme/x",))
    job, work = await started(jobs, caller, namespace)
    await work.step(None)
    done = await asyncio.wait_for(jobs.finished(caller, job.id), BOUND)
    assert done.state is JobState.DONE
    with pytest.raises(JobNotFoundError):
        await jobs.get(Principal("another", ("acme/x",)), job.id)


async def test_a_job_that_never_was_is_not_found(jobs: Jobs) -> None:
    for ask in (jobs.get, jobs.finished, jobs.cancel):
        with pytest.raises(JobNotFoundError):
            await ask(ANONYMOUS, "none")
