"""Sessions: runs of an agent, and what happens to their memories when they end."""

from enum import StrEnum

from msgspec import Raw, Struct

from unified_memory.model.clock import to_rfc3339
from unified_memory.model.value import encode


class WithMemories(StrEnum):
    """What becomes of a session's memories when it ends."""

    KEEP = "keep"
    DELETE = "delete"
    EXPIRE = "expire"


class Session(Struct):
    """A session of one namespace. `ttl` in seconds slides: each use sets `expires_at` to ttl from then.

    `metadata` is the JSON text of an object. `memories` counts those stored with its id in its namespace.
    """

    id: str
    namespace: str
    cluster_id: str | None
    project_id: str | None
    ttl: float | None
    metadata: bytes
    created_at: int
    last_used: int
    expires_at: int | None
    ended_at: int | None = None
    memories: int = 0

    def active(self, now: int) -> bool:
        """Neither ended nor expired."""
        return self.ended_at is None and (self.expires_at is None or self.expires_at > now)


def session_fields(session: Session, now: int) -> dict[str, object]:
    """The session's wire form as an object ready to encode."""
    from_instant = {
        name: None if instant is None else to_rfc3339(instant)
        for name, instant in (
            ("created_at", session.created_at),
            ("last_used", session.last_used),
            ("expires_at", session.expires_at),
            ("ended_at", session.ended_at),
        )
    }
    state = "active" if session.active(now) else "ended" if session.ended_at is not None else "expired"
    return {
        "id": session.id,
        "namespace": session.namespace,
        "cluster_id": session.cluster_id,
        "project_id": session.project_id,
        "ttl": session.ttl,
        "state": state,
        "memories": session.memories,
        "metadata": Raw(session.metadata),
        **from_instant,
    }


def encode_session(session: Session, now: int) -> bytes:
    """The session as JSON."""
    return encode(session_fields(session, now))
