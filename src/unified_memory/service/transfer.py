"""Memories as lines of JSON, out and in again.

Each line is a record as an answer shows it. Before them come the settings of namespaces that have any, one namespace a line:
`{"namespace": name, "config": {…}}`, without a `key`. Lines end with LF (CRLF and a byte order mark are read too); blanks
between the tokens of a value that would end a line are written as spaces.
"""

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any, Literal, TypeVar, get_args

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, structs

from unified_memory.model.clock import Clock, from_rfc3339
from unified_memory.model.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidInputError,
    MalformedInputError,
    NamespaceNotFoundError,
    PermissionDeniedError,
    QuotaExceededError,
    TooLargeError,
    UnifiedMemoryError,
)
from unified_memory.model.memory import Memory, encode_memory
from unified_memory.model.namespace import DEFAULT_NAMESPACE, Namespace, NamespaceConfig, check_namespace
from unified_memory.model.principal import Principal
from unified_memory.model.query import BY_ID, Scalar, Selection
from unified_memory.model.value import MAX_DEPTH
from unified_memory.service.access import Accesses
from unified_memory.service.drafting import TAG_BYTES, Limits, inherited_expiry, read_store
from unified_memory.service.guard import Guard
from unified_memory.service.labels import highest_label
from unified_memory.service.namespaces import every_namespace, read_config
from unified_memory.service.requests import NO_VALUE, StoreRequest
from unified_memory.service.work import Advance
from unified_memory.storage.base import KEEP, Decision, Draft, Edit, Origin, Replayed, Storage

T = TypeVar("T")
OnConflict = Literal["skip", "replace", "newer", "fail"]

# A page of memories is meant to hold so many bytes of values, and holds at most so many memories.
PAGE_BYTES = 4 * 1024**2
PAGE_MEMORIES = 200
FIRST_PAGE = 16
# One chunk of an export has about so many bytes.
CHUNK_BYTES = 256 * 1024
BATCH_LINES = 200
BATCH_BYTES = 4 * 1024**2
MAX_ERRORS = 100
# A character takes up to six bytes where it is written as an escape.
ESCAPED = 6
LINE_SLACK = 64 * 1024
MAX_COUNT = 2**63 - 1
_BOM = b"\xef\xbb\xbf"
INSTANTS = ("created_at", "updated_at", "last_accessed")


class _Line(Struct):
    """What counts of a line; members that only the service that wrote it knows are passed over."""

    key: str | None = None
    namespace: str = DEFAULT_NAMESPACE
    value: Raw = NO_VALUE
    metadata: dict[str, Raw] | None = None
    config: dict[str, Raw] | None = None
    ttl: Raw = NO_VALUE
    expires_at: Raw = NO_VALUE


_decode = msgspec.json.Decoder(_Line).decode
_text = msgspec.json.Decoder(str | None).decode
_integer = msgspec.json.Decoder(int | None).decode


class Imported(Struct):
    """What came of an import, in lines that are not blank: `read` is the sum of `stored` to `failed`.

    `skipped`: what it says was there already, it lost to what was there, or its time had passed. `errors`: of the first 100
    that failed the `line` (the first is 1), the `code` and the `detail`.
    """

    read: int = 0
    stored: int = 0
    replaced: int = 0
    skipped: int = 0
    failed: int = 0
    errors: list[dict[str, Any]] = msgspec.field(default_factory=list)


class _Settings(Struct):
    """What a namespace is to set for itself, checked."""

    namespace: str
    config: NamespaceConfig


class _Record(Struct):
    """A memory to be imported, checked. None: the line says nothing of it; `expires_at` UNSET likewise."""

    line: int
    namespace: str
    key: str
    draft: Draft
    expires_at: int | UnsetType | None
    created_at: int | None
    updated_at: int | None
    last_accessed: int | None
    access_count: int | None


class Transfer:
    """Export and import. Each takes the principal who asks and reaches only what that one may see.

    `accesses`: an export tells also those that are not written down yet.
    """

    def __init__(
        self, storage: Storage, clock: Clock, guard: Guard, limits: Limits, accesses: Accesses | None = None
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._guard = guard
        self._limits = limits
        self._accesses = accesses or Accesses(storage)

    # ---- out
    def export(self, principal: Principal, *, namespace: str | None, recursive: bool) -> AsyncIterator[bytes]:
        """Everything, or a namespace (`recursive`: with all below it), as chunks of whole lines; never the whole at once.

        What is there all the time is exported exactly once, each memory as it is when its turn comes. Raises InvalidInputError
        at once, and with the first chunk NamespaceNotFoundError.
        """
        scopes, below = principal.reach(None if namespace is None else check_namespace(namespace), recursive=recursive)
        return self._export(scopes, namespace, recursive=below)

    async def _export(self, scopes: tuple[str, ...], namespace: str | None, *, recursive: bool) -> AsyncIterator[bytes]:
        lines = [
            msgspec.json.encode({"namespace": one.name, "config": one.config})
            async for one in self._spaces(scopes, namespace, recursive=recursive)
            if one.explicit
        ]
        size = sum(map(len, lines))
        after: tuple[Scalar, int] | None = None
        limit = FIRST_PAGE
        while True:
            selection = Selection(scopes, recursive, limit=limit, order=BY_ID, after=after)
            page = await self._storage.select(selection, self._clock.now())
            read = 0
            for memory in page.items:
                line = one_line(encode_memory(self._accesses.show(memory)))
                lines.append(line)
                read += len(line)
                size += len(line)
                if size >= CHUNK_BYTES:
                    yield _joined(lines)
                    lines, size = [], 0
            if page.next is None:
                break
            after = page.next
            # As many as the last page lets expect, growing by steps, so that large values after small ones do not come at once.
            mean = max(1, read // max(1, len(page.items)))
            limit = max(1, min(PAGE_MEMORIES, 2 * limit, PAGE_BYTES // mean))
        if lines:
            yield _joined(lines)

    async def _spaces(
        self, scopes: tuple[str, ...], namespace: str | None, *, recursive: bool
    ) -> AsyncIterator[Namespace]:
        there = False
        if recursive:
            async for one in every_namespace(self._storage, scopes, self._clock.now()):
                there = True
                yield one
        elif scopes and (alone := await self._storage.get_namespace(scopes[0], self._clock.now())) is not None:
            there = True
            yield alone
        if namespace is not None and not there:
            raise NamespaceNotFoundError(namespace)

    # ---- in
    async def import_lines(
        self,
        principal: Principal,
        chunks: AsyncIterator[bytes],
        *,
        on_conflict: str = "skip",
        into: str | None = None,
        advance: Advance | None = None,
    ) -> Imported:
        """Stores what the lines say, some hundred lines at a time, each of these all or nothing.

        A line of which exactly that is stored already changes nothing, so an import may be repeated after it was cut off.
        `on_conflict`: what happens where something else is stored under that key. `skip`: it stays; `replace`: the line
        counts; `newer`: the line counts where its `updated_at` is later; `fail`: the import ends there. `into`: a namespace
        below which everything is put. A line that cannot be stored is told in the report and the import goes on.

        Raises InvalidInputError, PermissionDeniedError (for `into`), ConflictError naming the line (`fail`), ReadOnlyError and
        StorageError. What was stored before stays; the fact `lines_done` tells how many lines from the beginning are done.
        """
        run = _Import(self._storage, self._clock, self._guard, self._limits, principal, on_conflict, into)
        self._guard.check()
        try:
            async for number, line in split_lines(chunks, line_bytes(self._limits)):
                if await run.take(number, line) and advance is not None:
                    await advance(run.done, None)
            await run.flush()
        except UnifiedMemoryError as error:
            error.facts["lines_done"] = run.done
            raise
        if advance is not None:
            await advance(run.done, None)
        return run.report


class _Import:
    """One import under way. `done`: so many lines from the beginning are stored, skipped or told as failed."""

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        guard: Guard,
        limits: Limits,
        principal: Principal,
        on_conflict: str,
        into: str | None,
    ) -> None:
        if on_conflict not in get_args(OnConflict):
            raise InvalidInputError(
                "on_conflict", "on_conflict is not known", hint=f"One of {', '.join(get_args(OnConflict))}"
            )
        if into is not None:
            _may_write(principal, check_namespace(into, "into"))
        self._storage = storage
        self._clock = clock
        self._guard = guard
        self._limits = limits
        self._principal = principal
        self._on_conflict = on_conflict
        self._into = into
        self._batch: list[_Record] = []
        self._bytes = 0
        self._last = 0
        self.done = 0
        self.report = Imported()

    async def take(self, number: int, line: bytes | int) -> bool:
        """Takes a line (an integer: its length, where it was too long to be held); whether something was written."""
        self.report.read += 1
        self._last = number
        try:
            told = _read_line(line, line_bytes(self._limits))
            taken = self._settings(told) if told.key is None else await self._record(number, told.key, told)
        except (InvalidInputError, PermissionDeniedError) as error:
            self._failed(number, error)
            return False
        if taken is None:
            self.report.skipped += 1
            return False
        if isinstance(taken, _Settings):
            await self.flush()
            await self._settle(number, taken)
            return True
        self._batch.append(taken)
        self._bytes += len(taken.draft.value) + len(taken.draft.attributes)
        if len(self._batch) < BATCH_LINES and self._bytes < BATCH_BYTES:
            return False
        await self.flush()
        return True

    async def flush(self) -> None:
        """Writes what was taken: as one unit, or line by line where a line of it is refused."""
        batch, self._batch, self._bytes = self._batch, [], 0
        if batch:
            self.done = batch[0].line - 1
            await self._guard.look()
            self._guard.check()
            try:
                await self._write(batch)
            except (QuotaExceededError, _InTheWayError):
                for record in batch:
                    try:
                        await self._write([record])
                    except QuotaExceededError as error:
                        self._failed(record.line, error)
                    self.done = record.line
        self.done = self._last

    async def _write(self, batch: list[_Record]) -> None:
        now = self._clock.now()
        if label := highest_label(one.draft.attributes for one in batch):
            await self._storage.reserve_ids(label)
        edits = [Edit(one.namespace, one.key, partial(self._decide, one, now), whole=True) for one in batch]
        outcomes = await self._storage.edit(edits, now)
        if isinstance(outcomes, Replayed):  # only a unit with an idempotency key can be
            raise TypeError
        for outcome in outcomes:
            self._count(written=outcome.written, created=outcome.created)

    def _decide(self, record: _Record, now: int, current: Memory | None, config: NamespaceConfig) -> Decision:
        if current is not None:
            if _same(current, record):
                return KEEP
            newer = record.updated_at is not None and record.updated_at > current.updated_at
            if not self._replaces(record.line, newer=newer, namespace=record.namespace, key=record.key):
                return KEEP
        return structs.replace(
            record.draft,
            expires_at=inherited_expiry(config, now) if record.expires_at is UNSET else record.expires_at,
            origin=_origin(record, current, now),
        )

    def _replaces(self, line: int, *, newer: bool, **where: str) -> bool:
        """Whether a line replaces something else that is there."""
        if self._on_conflict == "fail":
            raise _InTheWayError(
                f"Line {line} says something else than what is stored",
                hint="on_conflict=skip, replace or newer says which of them counts",
                line=line,
                **where,
            )
        return self._on_conflict == "replace" or (self._on_conflict == "newer" and newer)

    async def _record(self, number: int, key: str, told: _Line) -> _Record | None:
        """The memory that a line is; None where its time has passed. Raises InvalidInputError, PermissionDeniedError."""
        for name, raw in (("ttl", told.ttl), ("expires_at", told.expires_at)):
            if bytes(raw):
                raise InvalidInputError(
                    name, f"{name} does not stand there", hint="A record says when it expires in metadata.expires_at"
                )
        if not bytes(told.value):
            raise InvalidInputError("value", "value is missing")
        namespace = self._below(told.namespace)
        metadata = dict(told.metadata or {})
        instants = {name: _instant(name, metadata.pop(name, NO_VALUE)) for name in INSTANTS}
        access_count = _access_count(metadata.pop("access_count", NO_VALUE))
        expires_at = metadata.pop("expires_at", NO_VALUE)
        request = StoreRequest(
            value=told.value,
            key=key,
            namespace=namespace,
            expires_at=_read(_text, "expires_at", expires_at) if bytes(expires_at) else UNSET,
            metadata=metadata,
        )
        now = self._clock.now()
        stored = await read_store(request, key, self._limits, now)
        if isinstance(stored.expires_at, int) and stored.expires_at <= now:
            return None
        return _Record(number, namespace, key, stored.draft, stored.expires_at, **instants, access_count=access_count)

    def _settings(self, told: _Line) -> _Settings:
        """What a line sets for a namespace. Raises InvalidInputError, PermissionDeniedError."""
        if told.config is None or bytes(told.value):
            raise InvalidInputError(
                "key", "key is missing", hint="Without a key a line holds a namespace and its config"
            )
        return _Settings(self._below(told.namespace), read_config(told.config))

    async def _settle(self, line: int, told: _Settings) -> None:
        """Makes a namespace explicit, with its settings; what is there counts where it is explicit already."""
        name, now = told.namespace, self._clock.now()
        there = await self._storage.get_namespace(name, now)
        explicit = there is not None and there.explicit
        written = not explicit or (
            there is not None and there.config != told.config and self._replaces(line, newer=False, namespace=name)
        )
        try:
            if written:
                self._guard.check()
                await self._storage.put_namespace(
                    name, told.config, now, create=not explicit, limit=self._limits.namespaces
                )
            self._count(written=written, created=not explicit)
        except (QuotaExceededError, AlreadyExistsError) as error:
            self._failed(line, error)
        self.done = line

    def _below(self, namespace: str) -> str:
        name = check_namespace(namespace if self._into is None else f"{self._into}/{namespace}")
        _may_write(self._principal, name)
        return name

    def _count(self, *, written: bool, created: bool) -> None:
        self.report.stored += written and created
        self.report.replaced += written and not created
        self.report.skipped += not written

    def _failed(self, line: int, error: UnifiedMemoryError) -> None:
        self.report.failed += 1
        if len(self.report.errors) < MAX_ERRORS:
            self.report.errors.append({"line": line, "code": error.code, "detail": error.detail})


class _InTheWayError(ConflictError):
    """Something else is stored already, and the import is to end there."""


async def split_lines(chunks: AsyncIterator[bytes], limit: int) -> AsyncIterator[tuple[int, bytes | int]]:
    """The lines of a text with their numbers, the first being 1; those that are blank are left out.

    Of a line of more than `limit` bytes, of which no more than that is ever held, only the length is told.
    """
    number, parts, size = 1, [], 0
    async for chunk in chunks:
        start = 0
        while (end := chunk.find(b"\n", start)) >= 0:
            size += end - start
            parts.append(chunk[start:end])
            if line := _whole(number, parts, size, limit):
                yield number, line
            number, parts, size, start = number + 1, [], 0, end + 1
        size += len(chunk) - start
        if size <= limit:
            parts.append(chunk[start:])
        else:
            parts.clear()
    if line := _whole(number, parts, size, limit):
        yield number, line


def _whole(number: int, parts: list[bytes], size: int, limit: int) -> bytes | int:
    if size > limit:
        return size
    line = b"".join(parts)
    return (line.removeprefix(_BOM) if number == 1 else line).strip()


def line_bytes(limits: Limits) -> int:
    """How many bytes a line may have: more than any record takes that is within the limits."""
    beside = limits.metadata_bytes + limits.key_bytes + limits.tags * TAG_BYTES
    return limits.value_bytes + ESCAPED * beside + LINE_SLACK


def one_line(text: bytes) -> bytes:
    """JSON text without line breaks, which stand between its tokens only; blanks take their place."""
    return text.replace(b"\n", b" ").replace(b"\r", b" ")


def _joined(lines: list[bytes]) -> bytes:
    return b"\n".join([*lines, b""])


def _read_line(line: bytes | int, limit: int) -> _Line:
    if isinstance(line, int):
        raise TooLargeError("line", limit, line)
    try:
        return _decode(line)
    except RecursionError:
        raise InvalidInputError("line", f"The line is nested deeper than {MAX_DEPTH}", limit=MAX_DEPTH) from None
    except msgspec.ValidationError as error:
        raise InvalidInputError("line", f"The line is no record: {error}") from None
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        raise MalformedInputError("line", f"The line is not JSON in UTF-8: {error}") from None


def _read(decode: Callable[[Raw], T], name: str, raw: Raw) -> T:
    try:
        return decode(raw)
    except msgspec.ValidationError as error:
        raise InvalidInputError(f"metadata.{name}", f"metadata.{name}: {error}") from None
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        raise MalformedInputError(f"metadata.{name}", f"metadata.{name} is not JSON in UTF-8: {error}") from None


def _instant(name: str, raw: Raw) -> int | None:
    text = _read(_text, name, raw) if bytes(raw) else None
    try:
        return None if text is None else from_rfc3339(text)
    except (ValueError, OverflowError):
        raise InvalidInputError(f"metadata.{name}", f"metadata.{name} must be an RFC 3339 time") from None


def _access_count(raw: Raw) -> int | None:
    count = _read(_integer, "access_count", raw) if bytes(raw) else None
    if count is not None and not 0 <= count <= MAX_COUNT:
        raise InvalidInputError("metadata.access_count", f"metadata.access_count must be from 0 to {MAX_COUNT}")
    return count


def _same(memory: Memory, record: _Record) -> bool:
    """Whether the memory says what the line says."""
    draft = record.draft
    return (
        (record.expires_at is UNSET or record.expires_at == memory.expires_at)
        and (draft.importance, draft.session_id, draft.project_id)
        == (memory.importance, memory.session_id, memory.project_id)
        and one_line(draft.attributes) == one_line(memory.attributes)
        and one_line(draft.value) == one_line(memory.value)
    )


def _origin(record: _Record, current: Memory | None, now: int) -> Origin:
    """What the line says, else what the memory has that it replaces, else the present."""
    updated_at = now if record.updated_at is None else record.updated_at
    created_at, count, last = record.created_at, record.access_count, record.last_accessed
    if created_at is None:
        created_at = updated_at if current is None else current.created_at
    if count is None and current is not None:
        count, last = current.access_count, current.last_accessed
    return Origin(created_at, updated_at, count or 0, last)


def _may_write(principal: Principal, namespace: str) -> None:
    if not principal.sees(namespace):
        raise PermissionDeniedError("Not allowed in this namespace", namespace=namespace)
