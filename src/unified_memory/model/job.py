"""Jobs: long work with progress, kept where every process can see it."""

from enum import StrEnum

from msgspec import Raw, Struct

from unified_memory.model.clock import to_rfc3339


class JobState(StrEnum):
    """What has become of a job."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"
    # Its process ended before the work did.
    INTERRUPTED = "interrupted"


class Job(Struct):
    """One piece of long work. `done` of `total` (None: not known) in `unit`s; `result` and `error` as JSON text.

    `namespace` and `principal` say whose it is. `beat_at`: when its process last said that it goes on.
    """

    id: str
    kind: str
    namespace: str
    principal: str
    state: JobState
    created_at: int
    beat_at: int
    done: int = 0
    total: int | None = None
    unit: str = "memories"
    finished_at: int | None = None
    result: bytes = b"null"
    error: bytes = b"null"

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state is not JobState.RUNNING


def job_fields(job: Job) -> dict[str, object]:
    """The job's wire form as an object ready to encode."""
    return {
        "id": job.id,
        "kind": job.kind,
        "namespace": job.namespace,
        "state": job.state.value,
        "done": job.done,
        "total": job.total,
        "unit": job.unit,
        "created_at": to_rfc3339(job.created_at),
        "finished_at": None if job.finished_at is None else to_rfc3339(job.finished_at),
        "result": Raw(job.result),
        "error": Raw(job.error),
    }
