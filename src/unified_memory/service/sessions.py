"""Sessions: runs of an agent, and clusters of them that share memory."""

import math
import secrets

from msgspec import Raw, Struct

from unified_memory.model.clock import SECOND, Clock
from unified_memory.model.errors import InvalidInputError, PermissionDeniedError, SessionNotFoundError
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import check_namespace
from unified_memory.model.principal import Principal
from unified_memory.model.query import MAX_LIMIT, Comparison, Op, Selection, decode_cursor, encode_cursor, parse_field
from unified_memory.model.session import Session, WithMemories
from unified_memory.model.value import encode, parse
from unified_memory.service.access import Accesses
from unified_memory.service.drafting import check_name
from unified_memory.service.guard import Guard
from unified_memory.service.requests import SessionRequest
from unified_memory.storage.base import Storage

MAX_TTL_SECONDS = 10**10
_SESSION = parse_field("session_id")


class SessionView(Struct):
    """A session with a page of its memories, in the order in which they were made."""

    session: Session
    memories: list[Memory]
    next_cursor: str | None


class SessionList(Struct):
    """A page of sessions and the cursor of the next one."""

    sessions: list[Session]
    next_cursor: str | None


class Ended(Struct):
    """A session that was ended, and how many of its memories were deleted or expired."""

    session: Session
    memories: WithMemories
    affected: int


class Sessions:
    """Every operation on sessions."""

    def __init__(self, storage: Storage, clock: Clock, accesses: Accesses, guard: Guard) -> None:
        self._storage = storage
        self._clock = clock
        self._accesses = accesses
        self._guard = guard

    async def create(self, principal: Principal, request: SessionRequest) -> Session:
        """Creates a session (without an id one is minted), or continues the one of that id with what is said now.

        Raises InvalidInputError, PermissionDeniedError.
        """
        check_namespace(request.namespace)
        if not principal.sees(request.namespace):
            raise PermissionDeniedError("Not allowed in this namespace", namespace=request.namespace)
        self._guard.check()
        for field in ("id", "cluster_id", "project_id"):
            if (name := getattr(request, field)) is not None:
                check_name(name, field)
        ttl = request.ttl
        if ttl is not None and not (math.isfinite(ttl) and 0 < ttl <= MAX_TTL_SECONDS):
            raise InvalidInputError("ttl", "ttl must be a number of seconds greater than 0")
        now = self._clock.now()
        return await self._storage.put_session(
            Session(
                id=request.id or secrets.token_hex(12),
                namespace=request.namespace,
                cluster_id=request.cluster_id,
                project_id=request.project_id,
                ttl=ttl,
                metadata=_metadata(request.metadata),
                created_at=now,
                last_used=now,
                expires_at=None if ttl is None else now + round(ttl * SECOND),
            )
        )

    async def view(
        self, principal: Principal, namespace: str, session_id: str, *, cluster: bool, limit: int, cursor: str | None
    ) -> SessionView:
        """A session and its memories (with `cluster`: those of all sessions of its cluster). Its ttl slides.

        Raises SessionNotFoundError.
        """
        session = await self._find(principal, namespace, session_id)
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidInputError("limit", f"limit must be from 1 to {MAX_LIMIT}", limit=MAX_LIMIT)
        ids = [session_id]
        if cluster and session.cluster_id is not None:
            ids = await self._storage.cluster_sessions(namespace, session.cluster_id)
        listing = ("session", namespace, session_id, cluster)
        now = self._clock.now()
        page = await self._storage.select(
            Selection(
                scopes=(namespace,),
                recursive=False,
                where=Comparison(_SESSION, Op.IN, tuple(ids)),
                limit=limit,
                after=decode_cursor(cursor, *listing),
            ),
            now,
        )
        if session.ttl is not None and session.active(now):
            await self._storage.touch_sessions([(namespace, session_id)], now)
            session = await self._find(principal, namespace, session_id)
        return SessionView(
            session, [self._accesses.show(memory) for memory in page.items], encode_cursor(page.next, *listing)
        )

    async def list_all(
        self,
        principal: Principal,
        *,
        namespace: str | None,
        recursive: bool,
        cluster_id: str | None,
        active: bool | None,
        limit: int,
        cursor: str | None,
    ) -> SessionList:
        """Sessions, the one used last first."""
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidInputError("limit", f"limit must be from 1 to {MAX_LIMIT}", limit=MAX_LIMIT)
        listing = ("sessions", namespace, recursive, cluster_id, active)
        named = None if namespace is None else check_namespace(namespace)
        scopes, recursive = principal.reach(named, recursive=recursive)
        page = await self._storage.list_sessions(
            scopes,
            self._clock.now(),
            recursive=recursive,
            cluster_id=cluster_id,
            active=active,
            limit=limit,
            after=decode_cursor(cursor, *listing),
        )
        return SessionList(page.items, encode_cursor(page.next, *listing))

    async def end(self, principal: Principal, namespace: str, session_id: str, memories: WithMemories) -> Ended:
        """Ends a session; its memories are kept, deleted or expired as asked. Raises SessionNotFoundError."""
        await self._find(principal, namespace, session_id)
        session, affected = await self._storage.end_session(namespace, session_id, memories, self._clock.now())
        return Ended(session, memories, affected)

    async def _find(self, principal: Principal, namespace: str, session_id: str) -> Session:
        check_namespace(namespace)
        found = (
            await self._storage.get_session(namespace, session_id, self._clock.now())
            if principal.sees(namespace)
            else None
        )
        if found is None:
            raise SessionNotFoundError(namespace, session_id)
        return found

    @property
    def clock(self) -> Clock:
        """The clock by which sessions are active or not."""
        return self._clock


def _metadata(metadata: dict[str, Raw] | None) -> bytes:
    for name, raw in (metadata or {}).items():
        parse(bytes(raw), f"metadata.{name}")
    return encode(metadata or {})
