"""The past of memories: their former versions, what is restored and what is taken out of it, and the feed of changes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

from msgspec import Struct, structs

from unified_memory.model.clock import Clock, from_rfc3339, to_rfc3339
from unified_memory.model.errors import (
    ConflictError,
    InvalidCursorError,
    InvalidInputError,
    MemoryNotFoundError,
    NotFoundError,
    VersionConflictError,
    VersionGoneError,
)
from unified_memory.model.history import DAY, Event, Keeping, Past
from unified_memory.model.memory import Memory, check_key
from unified_memory.model.namespace import NamespaceConfig, check_namespace, contains
from unified_memory.model.principal import Principal
from unified_memory.model.query import decode_cursor, encode_cursor
from unified_memory.service.drafting import Limits, draft_again
from unified_memory.service.guard import Guard
from unified_memory.service.memories import apply_unit, version_check
from unified_memory.service.namespaces import every_namespace
from unified_memory.service.requests import Idempotent, RedactRequest, RestoreVersionRequest
from unified_memory.service.sizes import check_limit
from unified_memory.storage.base import Decision, Draft, Edit, Origin, Outcome, Redacted, Storage

FEED_PAGE = 1000
PAST_PAGE = 100
PRUNE_CHUNK = 500
SHRINK_CHUNK = 200
# Namespaces that are pruned together.
TOGETHER = 200
# How often a restored version is chosen anew where others write the same memory meanwhile.
ATTEMPTS = 5
POLL_SECONDS = 0.25
# After so many polls without an event `follow` says that it is still there: 15 seconds.
QUIET_POLLS = 60


class VersionHead(Struct):
    """What is told of a version: when it was written (`at`) and replaced, in microseconds, and the bytes of its value.

    `kept` False: its content is gone; `redacted_at`: since when, where it was taken out on purpose.
    """

    version: int
    at: int
    ended_at: int | None
    current: bool
    bytes: int
    kept: bool
    redacted_at: int | None


class Versions(Struct):
    """A page of versions, newest first, and the cursor of the next one (None: this is the last)."""

    versions: list[VersionHead]
    next_cursor: str | None


class ChangeList(Struct):
    """Changes in commit order. `next`: the `since` of the next request; no change up to there is told again."""

    changes: list[Event]
    next: int


class Histories:
    """Every operation on the past. Each takes the principal who asks and sees only what that one may see.

    `keeping`: how much is kept where a namespace says nothing. `changes_days`: for how long the feed goes back. `sleep`: waits so
    many seconds between two looks for new changes.
    """

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        guard: Guard,
        limits: Limits,
        keeping: Keeping,
        changes_days: float,
        *,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._guard = guard
        self._limits = limits
        self._keeping = keeping
        self._changes_days = changes_days
        self._sleep = sleep

    # ---- looking back
    async def versions(
        self, principal: Principal, namespace: str, key: str, *, limit: int, cursor: str | None
    ) -> Versions:
        """The versions of a memory that are known, newest first, also where it was deleted. Raises MemoryNotFoundError."""
        self._check(principal, namespace, key)
        check_limit(limit)
        listing = ("versions", namespace, key)
        after = decode_cursor(cursor, *listing)
        now = self._clock.now()
        heads: list[VersionHead] = []
        before: int | None = None
        if after is not None:
            if not isinstance(after[0], int):
                raise InvalidCursorError
            before = after[0]
        elif (current := await self._storage.get(namespace, key, now)) is not None:
            size = len(current.value)
            heads.append(VersionHead(current.version, current.updated_at, None, True, size, True, None))  # noqa: FBT003 - columns
            # What others write meanwhile is newer.
            before = current.version
        # One more than is shown tells whether there is a next page.
        past = await self._storage.past(namespace, key, now, before=before, limit=limit + 1 - len(heads))
        heads += [_head(one) for one in past]
        if not heads and after is None:
            raise MemoryNotFoundError(namespace, key)
        more = (heads[limit - 1].version, 0) if len(heads) > limit else None
        return Versions(heads[:limit], encode_cursor(more, *listing))

    async def version(self, principal: Principal, namespace: str, key: str, version: int) -> Memory:
        """The memory as it was at that version, the current one included.

        Raises VersionGoneError where its content is not kept, MemoryNotFoundError where there never was that version.
        """
        self._check(principal, namespace, key)
        _check_version(version)
        now = self._clock.now()
        current = await self._storage.get(namespace, key, now)
        if current is not None and current.version == version:
            return current
        return (await self._former(namespace, key, version, current, now)).memory

    async def as_of(self, principal: Principal, namespace: str, key: str, instant_text: str) -> Memory:
        """The memory as it was at that instant (RFC 3339).

        Raises InvalidInputError where the text is none or lies in the future, MemoryNotFoundError where there was no such
        memory then, VersionGoneError where there was one whose content is not kept.
        """
        self._check(principal, namespace, key)
        now = self._clock.now()
        try:
            instant = from_rfc3339(instant_text)
        except (ValueError, OverflowError):
            raise InvalidInputError("as_of", "as_of must be an RFC 3339 time") from None
        if instant > now:
            raise InvalidInputError("as_of", "as_of lies in the future")
        memory = await self._storage.as_of(namespace, key, instant, now)
        if memory is None:
            raise MemoryNotFoundError(namespace, key)
        return memory

    async def _former(self, namespace: str, key: str, version: int, current: Memory | None, now: int) -> Past:
        """A version before the current one, with its content."""
        past = await self._storage.past_version(namespace, key, version, now)
        if past is None:
            newest = current.version if current is not None else await self._newest(namespace, key, now)
            if version < newest:
                raise VersionGoneError(namespace, key, version)
            raise MemoryNotFoundError(namespace, key)
        if not past.kept:
            raise VersionGoneError(namespace, key, version, redacted=past.redacted_at is not None)
        return past

    async def _newest(self, namespace: str, key: str, now: int) -> int:
        past = await self._storage.past(namespace, key, now, before=None, limit=1)
        return past[0].memory.version if past else 0

    # ---- bringing back
    async def restore(
        self, principal: Principal, request: RestoreVersionRequest, idempotent: Idempotent | None = None
    ) -> Outcome:
        """Makes a former version current again, as a new version: value and metadata byte for byte, and the instant at which it
        expires. A memory that was deleted also has its `created_at` again.

        Raises MemoryNotFoundError, VersionGoneError, VersionConflictError, ConflictError where that version has expired, is the
        current one, or none is kept, ReadOnlyError, QuotaExceededError and below.
        """
        namespace, key = request.namespace, request.key
        self._check(principal, namespace, key)
        if request.version is not None:
            _check_version(request.version)
        self._guard.check()
        attempts = 1
        while True:
            try:
                return await self._restore(principal, request, idempotent)
            except _OvertakenError:
                if attempts == ATTEMPTS:
                    raise
                attempts += 1

    async def _restore(
        self, principal: Principal, request: RestoreVersionRequest, idempotent: Idempotent | None
    ) -> Outcome:
        namespace, key, now = request.namespace, request.key, self._clock.now()
        seen = await self._storage.get(namespace, key, now)
        check = version_check(namespace, key, request.expected_version)
        chosen: Draft | NotFoundError | ConflictError
        created_at = now
        try:
            past = await self._restorable(request, seen, now)
            chosen, created_at = await draft_again(past.memory), past.memory.created_at
        except (NotFoundError, ConflictError) as error:
            # Raised in the unit, so that a repeated request is told what came of the first.
            chosen = error

        def decide(current: Memory | None, _config: NamespaceConfig) -> Decision:
            check(current)
            if _version(current) != _version(seen):
                raise _OvertakenError(namespace, key, _version(seen), _version(current))
            if not isinstance(chosen, Draft):
                raise chosen
            return chosen if current is not None else structs.replace(chosen, origin=Origin(created_at, now))

        return (await apply_unit(self._storage, principal, [Edit(namespace, key, decide)], now, idempotent))[0]

    async def _restorable(self, request: RestoreVersionRequest, current: Memory | None, now: int) -> Past:
        namespace, key, version = request.namespace, request.key, request.version
        if version is None:
            version = await self._last_kept(namespace, key, current, now)
        elif current is not None and version == current.version:
            raise ConflictError(f"Version {version} is the current one", namespace=namespace, key=key, version=version)
        past = await self._former(namespace, key, version, current, now)
        expires_at = past.memory.expires_at
        if expires_at is not None and expires_at <= now:
            raise ConflictError(
                f"Version {version} would be gone at once: it expired at {to_rfc3339(expires_at)}",
                hint="Retrieve that version and store it with another ttl",
                namespace=namespace,
                key=key,
                version=version,
            )
        return past

    async def _last_kept(self, namespace: str, key: str, current: Memory | None, now: int) -> int:
        """The newest version before the current one of which the content is there."""
        newest: Past | None = None
        before = None if current is None else current.version
        while heads := await self._storage.past(namespace, key, now, before=before, limit=PAST_PAGE):
            for head in heads:
                if head.kept:
                    return head.memory.version
            newest = newest or heads[0]
            before = heads[-1].memory.version
        if newest is not None:
            raise VersionGoneError(namespace, key, newest.memory.version, redacted=newest.redacted_at is not None)
        if current is None:
            raise MemoryNotFoundError(namespace, key)
        raise ConflictError(
            "No former version of the memory is kept",
            hint="history_keep and history_days of the namespace say how much is kept",
            namespace=namespace,
            key=key,
        )

    # ---- taking out
    async def redact(self, principal: Principal, request: RedactRequest) -> Redacted:
        """Takes the content of a version, or of all, out for good: of the past, of the current memory where it is meant, and of
        the bytes of the index. Works while writes are off. Raises MemoryNotFoundError where there is no such version.
        """
        self._check(principal, request.namespace, request.key)
        if request.version is not None:
            _check_version(request.version)
        redacted = await self._storage.redact(request.namespace, request.key, request.version, self._clock.now())
        await self._storage.forget()
        return redacted

    # ---- the feed
    async def changes(
        self, principal: Principal, *, since: int, namespace: str | None, recursive: bool, limit: int
    ) -> ChangeList:
        """What changed behind the place `since` in the commit order; fewer than `limit` where there is no more.

        Raises ChangesGoneError where some of it is no longer kept, InvalidInputError.
        """
        shown = _filter(principal, namespace, recursive=recursive)
        check_limit(limit)
        await self._check_since(since)
        found: list[Event] = []
        last = since
        while True:
            events = await self._storage.feed(last, FEED_PAGE)
            for event in events:
                last = event.seq
                if shown(event):
                    found.append(event)
                    if len(found) == limit:
                        return ChangeList(found, last)
            if len(events) < FEED_PAGE:
                return ChangeList(found, last)

    async def follow(
        self, principal: Principal, *, since: int | None, namespace: str | None, recursive: bool
    ) -> AsyncIterator[Event | None]:
        """Changes behind `since` (None: from now on) in commit order, and then for ever those that come.

        None is told at once where there is no change yet, and again after each 15 seconds without one. The first step raises
        what `changes` raises; a later one ChangesGoneError where whoever follows was too slow.
        """
        shown = _filter(principal, namespace, recursive=recursive)
        if since is None:
            last = await self._storage.last_seq()
        else:
            await self._check_since(since)
            last = since
        quiet = QUIET_POLLS
        while True:
            end = await self._storage.last_seq()
            while end > last:
                events = await self._storage.feed(last, FEED_PAGE)
                for event in events:
                    last = event.seq
                    if shown(event):
                        quiet = 0
                        yield event
                if len(events) < FEED_PAGE:
                    last = max(last, end)
            if quiet >= QUIET_POLLS:
                quiet = 0
                yield None
            quiet += 1
            await self._sleep(POLL_SECONDS)

    async def _check_since(self, since: int) -> None:
        if since < 0:
            raise InvalidInputError("since", "since must be 0 or more")
        last = await self._storage.last_seq()
        if since > last:
            raise InvalidInputError(
                "since",
                f"since lies behind the last change, which is {last}",
                hint="It is of another store: list everything once, then follow the changes from there",
                last=last,
            )

    # ---- the pass
    async def prune(self) -> int:
        """One pass: forgets former versions that are no longer to be kept (how many), stores others in less room, and forgets
        changes that are too old, all in chunks between which others write.
        """
        now = self._clock.now()
        gone = 0
        for keeping, scopes, recursive in await self._groups(now):
            # Where nothing is kept, what was kept before goes too.
            keep = keeping.versions if keeping.on else 0
            before = now - round(keeping.days * DAY) if keeping.on and keeping.days is not None else None
            if keep is None and before is None:
                continue
            went = PRUNE_CHUNK
            while went == PRUNE_CHUNK:
                went = await self._storage.prune_past(
                    scopes, recursive=recursive, keep=keep, before=before, limit=PRUNE_CHUNK
                )
                gone += went
        while await self._storage.shrink_past(SHRINK_CHUNK):
            pass
        before = now - round(self._changes_days * DAY)
        while await self._storage.prune_feed(before, PRUNE_CHUNK) == PRUNE_CHUNK:
            pass
        return gone

    async def _groups(self, now: int) -> list[tuple[Keeping, tuple[str, ...], bool]]:
        """Namespaces of which as much is kept, together: (how much, which, whether all below them)."""
        groups: dict[Keeping, list[str]] = {}
        async for one in every_namespace(self._storage, ("",), now):
            groups.setdefault(self._keeping.within(one.effective), []).append(one.name)
        if len(groups) == 1:
            return [(keeping, ("",), True) for keeping in groups]
        return [
            (keeping, tuple(names[start : start + TOGETHER]), False)
            for keeping, names in groups.items()
            for start in range(0, len(names), TOGETHER)
        ]

    # ---- within
    def _check(self, principal: Principal, namespace: str, key: str) -> None:
        check_namespace(namespace)
        check_key(key, self._limits.key_bytes)
        if not principal.sees(namespace):
            raise MemoryNotFoundError(namespace, key)


class _OvertakenError(VersionConflictError):
    """Others wrote the memory since the version to be restored was chosen."""


def _version(memory: Memory | None) -> int:
    return 0 if memory is None else memory.version


def _check_version(version: int) -> None:
    if version < 1:
        raise InvalidInputError("version", "version must be at least 1")


def _head(past: Past) -> VersionHead:
    memory = past.memory
    return VersionHead(
        version=memory.version,
        at=memory.updated_at,
        ended_at=past.ended_at,
        current=False,
        bytes=past.bytes,
        kept=past.kept,
        redacted_at=past.redacted_at,
    )


def _filter(principal: Principal, namespace: str | None, *, recursive: bool) -> Callable[[Event], bool]:
    """What tells whether an event is shown to the principal. Raises InvalidInputError."""
    scopes, below = principal.reach(None if namespace is None else check_namespace(namespace), recursive=recursive)

    def shown(event: Event) -> bool:
        return any(contains(one, event.namespace) if below else one == event.namespace for one in scopes)

    return shown
