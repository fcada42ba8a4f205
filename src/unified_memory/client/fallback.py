"""Where a call goes while the service is away: to the older service, and into the spool, from which it reaches the service later.

Each operation is a generator of steps, which a client carries out in its own way, waiting or not; what a step comes to is sent
back into it, or thrown. No I/O here but opening and reading the spool, which blocks nobody.
"""

import logging
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypedDict, TypeVar, cast
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Struct

from unified_memory.client import protocol, shapes
from unified_memory.client.errors import ServiceUnavailableError, SpoolError, UnexpectedAnswerError
from unified_memory.client.protocol import IDEMPOTENCY_KEY, JSON, Call, Instant, Seconds
from unified_memory.client.resilience import with_key
from unified_memory.model.clock import from_rfc3339
from unified_memory.model.errors import (
    ConflictError,
    InProgressError,
    MemoryNotFoundError,
    ReadOnlyError,
    SchemaTooNewError,
    StorageBusyError,
    StorageError,
    StorageFullError,
    UnifiedMemoryError,
)
from unified_memory.model.memory import check_key
from unified_memory.model.namespace import DEFAULT_NAMESPACE, check_namespace

if TYPE_CHECKING:
    from pathlib import Path

    from unified_memory.client.spool import Entry, Kind, Place, Spool

T = TypeVar("T")
logger = logging.getLogger(__name__)

# The service cannot be reached, or cannot take anything now: it is not the call that is at fault.
AWAY = (ServiceUnavailableError, StorageBusyError)
# It is the service, or the spool, that cannot go on, whatever is sent.
_STOPPED = (StorageBusyError, StorageFullError, SchemaTooNewError, ReadOnlyError, SpoolError)
# What stands on the way will never let such a request through.
_TOO_LARGE = {413, 414, 431}
# So many writes in a row to which no answer comes, and a replay takes the service for gone.
UNANSWERED = 3
# How long a write waits while another process or task replays what it has to go behind; one that may be kept waits less, but
# long enough that a replay is faster than what comes behind it.
TURN_PAUSE_SECONDS = 0.05
TURN_PAUSES = 200
TURN_PAUSES_WITH_FALLBACK = 20
# It does not send more than so many of those before it, either.
MOST_WITH_FALLBACK = 16


def open_spool(path: "Path | str") -> "Spool":
    """The spool of that file. Raises SpoolError."""
    from unified_memory.client.spool import Spool  # noqa: PLC0415 - SQLite's driver, where there is a spool

    return Spool(path)


# ---- steps
class Ask(Struct, frozen=True):
    """A call to the service; comes to its result."""

    call: Call[Any]


class AskOlder(Struct, frozen=True):
    """A call to the older service; comes to its result."""

    call: Call[Any]


class Local(Struct, frozen=True):
    """Work that may wait for the disk; comes to what it returns."""

    work: Callable[[], Any]


class Pause(Struct, frozen=True):
    """Some seconds."""

    seconds: float


Step = Ask | AskOlder | Local | Pause
Steps = Generator[Step, Any, T]


class Means(Struct, frozen=True):
    """What a client has beside the service. `older`: whether there is an older service; `is_open`: whether its breaker lets no
    call through.
    """

    spool: "Spool | None"
    older: bool
    is_open: Callable[[], bool]


class Kept(TypedDict):
    """Where a write was kept while the service was away."""

    status: protocol.KeptStatus
    key: str


class Found(TypedDict):
    """A memory that the service has not told: `status` says who has. What only the service knows is missing."""

    key: str
    namespace: str
    value: Any
    metadata: dict[str, Any]
    version: None
    status: Literal["found_in_fallback", "cached_locally"]


class Replay(TypedDict):
    """What a replay came to, in writes: `replayed` are confirmed, `failed` were refused now, `waiting` wait still."""

    replayed: int
    failed: int
    waiting: int


# ---- the older service
def older_key(namespace: str, key: str) -> str:
    """The key in the older service, which has no namespaces: both percent-encoded, with a colon between them.

    Neither half holds a colon or a slash after that, so that it can be taken apart again, and be retrieved there at all.
    """
    return f"{quote(namespace, safe='')}:{quote(key, safe='')}"


def older_store(namespace: str, key: str, value: Any) -> Call[Any]:
    """POST /store of the older service, which keeps the value alone. Comes to None. Raises UnexpectedAnswerError."""
    content = protocol.encode({"key": older_key(namespace, key), "value": value})
    headers = {"Accept": JSON, "Content-Type": JSON}
    return Call(method="POST", target="/store", headers=headers, content=content, convert=_older_stored)


def _older_stored(answer: Any) -> None:
    if not isinstance(answer, dict) or answer.get("status") != "stored":
        raise UnexpectedAnswerError("The older service did not say that it has stored the value")


def older_retrieve(namespace: str, key: str) -> Call[Any]:
    """GET /retrieve of the older service. Comes to its answer, None where it has no such key. Raises UnexpectedAnswerError."""
    target = f"/retrieve/{quote(older_key(namespace, key), safe='')}"
    return Call(method="GET", target=target, headers={"Accept": JSON}, safe=True, convert=_older_found)


def _older_found(answer: Any) -> Any:
    if isinstance(answer, dict) and answer.get("status") == "not_found":
        return None
    if not isinstance(answer, dict) or answer.get("status") != "found" or "value" not in answer:
        raise UnexpectedAnswerError("The older service gives no answer of its own")
    return answer


# ---- what the service says
# ---- operations of a client with a spool
def plain(means: Means, call: Call[T]) -> Steps[T]:
    """Any call: it sees what waits in the spool, and a write goes behind what waits there, or not at all."""
    if call.safe:
        entries = means.spool.waiting(call.place) if means.spool is not None and call.place is not None else []
        if not entries:
            return cast("T", (yield Ask(call)))
        found = yield from _seen(entries, Ask(call))
        if found is None and call.none_for is None:
            raise MemoryNotFoundError(*cast("Place", call.place))
        return cast("T", found)
    yield from _let_through(means, call.place)
    return cast("T", (yield Ask(call)))


def _let_through(means: Means, place: "Place | None", *, may_be_kept: bool = False) -> Steps[None]:
    """Sends what waits of that memory, or all. Raises ServiceUnavailableError where some of it waits still."""
    spool = means.spool
    if spool is None:
        return
    for _ in range(TURN_PAUSES_WITH_FALLBACK if may_be_kept else TURN_PAUSES):
        if not spool.waits(place):
            return
        if means.is_open():
            break
        try:
            yield from replay(spool, place, MOST_WITH_FALLBACK if may_be_kept else None)
        except InProgressError:
            yield Pause(TURN_PAUSE_SECONDS)
        else:
            break
    if spool.waits(place):
        raise ServiceUnavailableError(
            "Earlier writes wait in the spool; this one has to go behind them",
            hint="An operation with_fallback keeps it there, too",
            unsent=True,
        )


def _seen(entries: "list[Entry]", before: Step) -> Steps[Found | None]:
    """What is there once these writes are done. `before` tells what is there without them, where that matters."""
    begin = max((place for place, entry in enumerate(entries) if entry.kind != "update"), default=None)
    first = entries[0]
    found: Found | None = None
    if begin is not None and entries[begin].kind == "store":
        body = entries[begin].body
        found = _found(first.namespace, first.key, body["value"], body.get("metadata") or {}, "cached_locally")
    elif begin is None:
        record = yield before
        if record is not None:
            if not isinstance(record, dict) or "value" not in record:
                raise UnexpectedAnswerError("What answers does not tell a memory", hint="Is the URL right?")
            found = _found(first.namespace, first.key, record["value"], record.get("metadata") or {}, "cached_locally")
    for entry in entries[0 if begin is None else begin + 1 :]:
        if found is not None:
            body = entry.body
            merged = {**found["metadata"], **(body.get("metadata") or {})}
            found["metadata"] = {name: value for name, value in merged.items() if value is not None}
            found["value"] = body.get("value", found["value"])
    return found


def _found(
    namespace: str,
    key: str,
    value: Any,
    metadata: dict[str, Any],
    status: Literal["found_in_fallback", "cached_locally"],
) -> Found:
    return {"key": key, "namespace": namespace, "value": value, "metadata": metadata, "version": None, "status": status}


# ---- operations with a fallback
def store(
    means: Means,
    key: str | None = None,
    value: Any = UNSET,
    namespace: str = DEFAULT_NAMESPACE,
    ttl: Seconds = UNSET,
    metadata: Mapping[str, Any] | None = None,
    *,
    expires_at: Instant = UNSET,
    if_none_match: bool = False,
    expected_version: int | None = None,
    idempotency_key: str | None = None,
) -> Steps[shapes.Record | Kept]:
    """Stores as `store` does; while the service is away, in the older service and in the spool, and the answer tells where.

    What was spooled reaches the service later. Only where the service is away is anything else asked: an error that it tells is
    raised. Raises SpoolFullError where there is no room, ServiceUnavailableError where there is nothing else to keep it.
    """
    call = protocol.store(
        uuid.uuid4().hex if key is None else key,
        value,
        namespace,
        ttl,
        metadata,
        expires_at=expires_at,
        if_none_match=if_none_match,
        expected_version=expected_version,
        idempotency_key=idempotency_key,
    )
    # The older service cannot be told a condition.
    told = value if expected_version is None and not if_none_match else UNSET
    return cast("shapes.Record | Kept", (yield from _write(means, "store", call, told)))


def update(
    means: Means,
    key: str,
    namespace: str = DEFAULT_NAMESPACE,
    *,
    value: Any = UNSET,
    ttl: Seconds = UNSET,
    expires_at: Instant = UNSET,
    metadata: Mapping[str, Any] | None = None,
    expected_version: int | None = None,
    idempotency_key: str | None = None,
) -> Steps[shapes.Record | Kept]:
    """Updates as `update` does, with the ways out of `store_with_fallback`. The older service takes a value only, and only of a
    key that it has.
    """
    call = protocol.update(
        key,
        namespace,
        value=value,
        ttl=ttl,
        expires_at=expires_at,
        metadata=metadata,
        expected_version=expected_version,
        idempotency_key=idempotency_key,
    )
    told = value if expected_version is None else UNSET
    return cast("shapes.Record | Kept", (yield from _write(means, "update", call, told)))


def delete(
    means: Means,
    key: str,
    namespace: str = DEFAULT_NAMESPACE,
    *,
    expected_version: int | None = None,
    idempotency_key: str | None = None,
) -> Steps[shapes.Deleted | Kept]:
    """Deletes as `delete` does; while the service is away the spool keeps it. The older service cannot delete."""
    call = protocol.delete(key, namespace, expected_version=expected_version, idempotency_key=idempotency_key)
    return cast("shapes.Deleted | Kept", (yield from _write(means, "delete", call, UNSET)))


def retrieve(means: Means, key: str, namespace: str = DEFAULT_NAMESPACE) -> Steps[shapes.Record | Found | None]:
    """The memory of that key, None where there is none. What waits in the spool is seen; while the service is away the older one
    is asked, whose value may be older than what the service has.

    Raises ServiceUnavailableError where the service is away and nobody else has it: that is not to say that there is none.
    """
    call = protocol.retrieve(key, namespace)
    place = (namespace, key)
    try:
        if means.spool is not None and (entries := means.spool.waiting(place)):
            return (yield from _seen(entries, Ask(call)))
        return cast("shapes.Record | None", (yield Ask(call)))
    except AWAY as error:
        older = yield from _ask_older(means, older_retrieve(namespace, key))
        if older is None:
            raise
        logger.warning("The service is away (%s); the older one has told a memory", error.detail)
        if means.spool is not None and (entries := means.spool.waiting(place)):
            return (yield from _seen(entries, Local(lambda: older)))
        return _found(namespace, key, older["value"], {}, "found_in_fallback")


def _ask_older(means: Means, call: Call[Any]) -> Steps[Any]:
    """What the older service says, None where it does not, or where there is none."""
    if not means.older:
        return None
    try:
        return (yield AskOlder(call))
    except UnifiedMemoryError as error:
        logger.warning("The older service cannot help: %s", error.detail)
        return None


def _write(means: Means, kind: "Kind", call: Call[Any], value: Any) -> Steps[Any]:
    call = with_key(call)
    namespace, key = cast("Place", call.place)
    try:
        yield from _let_through(means, call.place, may_be_kept=True)
        return cast("dict[str, Any]", (yield Ask(call)))
    except AWAY as error:
        # The service would refuse it later; how long a key may be only it knows.
        check_namespace(namespace)
        check_key(key, sys.maxsize)
        # Into the spool first: what only the older service has would never reach this one.
        entry = (yield Local(partial(means.spool.add, kind, call))) if means.spool is not None else None
        in_older = value is not UNSET and (yield from _tell_older(means, kind, namespace, key, value))
        if not in_older and entry is None:
            raise
        logger.warning("The service is away (%s); a write is kept %s", error.detail, "there" if in_older else "here")
    if in_older and means.spool is not None and entry is not None:
        try:
            yield Local(partial(means.spool.mark_in_fallback, entry.id))
        except StorageError as error:
            # It is kept all the same.
            logger.warning("The spool does not know that the older service has a write: %s", error.detail)
    return {"status": "stored_in_fallback" if in_older else "cached_locally", "key": key}


def _tell_older(means: Means, kind: "Kind", namespace: str, key: str, value: Any) -> Steps[bool]:
    """Whether the older service has taken the value."""
    if not means.older:
        return False
    try:
        if kind == "update" and (yield AskOlder(older_retrieve(namespace, key))) is None:
            return False
        yield AskOlder(older_store(namespace, key, value))
    except UnifiedMemoryError as error:
        logger.warning("The older service cannot help: %s", error.detail)
        return False
    return True


# ---- replay
def replay(spool: "Spool", place: "Place | None" = None, most: int | None = None) -> Steps[Replay]:
    """Sends what waits, of that memory or of all, in order, at most `most`; what the service refuses for good is set aside.

    Raises InProgressError where another process or task does so, ServiceUnavailableError where the service is away or does not
    answer some of it, UnexpectedAnswerError where something else does, StorageError and ReadOnlyError where it takes nothing, any
    other error that is the service's own fault: all that was not confirmed then waits still.
    """
    holder = uuid.uuid4().hex
    counts = Counter(replayed=0, failed=0)
    unanswered = 0
    broken: UnifiedMemoryError | None = None
    try:
        if not (yield Local(partial(spool.take, holder))):
            raise InProgressError("The spool is being replayed already", path=str(spool.path))
        for entry in _due(spool, place):
            try:
                done = yield from _send(spool, entry, holder)
            except _STOPPED:
                raise
            except UnifiedMemoryError as error:
                # It may be this one alone that never gets an answer: others do not wait for it, but those of its memory.
                broken = error
                unanswered += 1
                if getattr(error, "unsent", False):
                    raise
                if unanswered >= UNANSWERED:
                    spool.resume = entry.id if place is None else spool.resume
                    raise
            else:
                unanswered = 0
                counts["replayed" if done else "failed"] += 1
            if most is not None and counts.total() >= most:
                break
    finally:
        # Not as a step: a generator that is closed gives none any more.
        try:
            spool.release(holder)
        except StorageError as error:
            # Raised here, it would take the place of a cancellation.
            logger.warning("The turn to replay the spool was not given back, it lapses: %s", error.detail)
    if broken is not None:
        raise broken
    return cast("Replay", {**counts, "waiting": spool.totals().waiting})


def _due(spool: "Spool", place: "Place | None") -> "Iterator[Entry]":
    """What waits and has nothing of its memory before it, from where the last replay was broken off, and once around."""
    begin = spool.resume if place is None else 0
    told: set[int] = set()
    for first in {begin: None, 0: None}:
        after = first
        while entry := spool.due(place, after=after):
            after = entry.id
            if after not in told:
                told.add(after)
                yield entry
    if place is None:
        spool.resume = 0


def _send(spool: "Spool", entry: "Entry", holder: str) -> Steps[bool]:
    """Whether the service has taken it, rather than refused it."""
    try:
        if spool.outdated(entry):
            entry = yield from _with_version(spool, entry)
        result = protocol.record_of((entry.namespace, entry.key), (yield Ask(entry.call)))
    except UnifiedMemoryError as error:
        if not _is_refusal(error):
            raise
        yield Local(partial(spool.fail, entry, error, holder))
        logger.error("The service has refused write %d of the spool: %s", entry.id, error.detail)  # noqa: TRY400 - no fault here
        return False
    yield Local(partial(spool.done, entry, result.get("version"), holder))
    return True


def _is_refusal(error: UnifiedMemoryError) -> bool:
    """Whether the write will never be done, as far as one can tell."""
    if isinstance(error, UnexpectedAnswerError):
        return error.facts.get("status") in _TOO_LARGE
    if isinstance(error, ServiceUnavailableError | StorageError | ReadOnlyError):
        return False
    # An error that has no class here: it went wrong there.
    return type(error) is not UnifiedMemoryError


def _with_version(spool: "Spool", entry: "Entry") -> "Steps[Entry]":
    """A write whose Idempotency-Key the service may have forgotten, bound to the version that is there, with a new key.

    Raises ConflictError where the memory has changed since: it may have been this very write.
    """
    heads: list[shapes.VersionHead] = []
    try:
        page = yield Ask(protocol.history(entry.key, entry.namespace, limit=1))
        heads = _heads(page)
    except MemoryNotFoundError:
        pass
    current = 0
    for head in heads:
        changed = from_rfc3339(head["ended_at"] or head["at"])
        if changed >= entry.keyed_at and head["version"] != spool.written((entry.namespace, entry.key)):
            raise ConflictError(
                "The memory has changed since this write was made, and the service no longer knows whether by it",
                hint="unified-memory spool show tells what was to be written",
                current_version=head["version"],
                changed_at=head["ended_at"] or head["at"],
            )
        current = head["version"] if head["current"] else 0
    return cast("Entry", (yield Local(partial(spool.rekey, entry, _bound(entry, current)))))


def _heads(page: Any) -> list[shapes.VersionHead]:
    if not isinstance(page, dict) or not isinstance(page.get("versions"), list):
        raise UnexpectedAnswerError("What answers does not tell the versions of the memory", hint="Is the URL right?")
    return cast("list[shapes.VersionHead]", page["versions"])


def _bound(entry: "Entry", version: int) -> Call[Any]:
    call = entry.call
    headers = {**call.headers, IDEMPOTENCY_KEY: uuid.uuid4().hex}
    if entry.kind == "delete":
        if version:
            headers.setdefault("If-Match", f'"{version}"')
        return msgspec.structs.replace(call, headers=headers)
    content = call.content
    if "If-None-Match" not in headers:
        content = protocol.encode({"expected_version": version, **entry.body})
    return msgspec.structs.replace(call, headers=headers, content=content)
