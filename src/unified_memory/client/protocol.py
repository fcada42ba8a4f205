"""What is said over the wire: one function an operation, which gives the request and how its answer is read. No I/O.

Keys, namespaces and ids stand percent-encoded in the path. In every operation a `ttl` is in seconds, None means "never
expires", and what is not given is not sent. Of `ttl` and `expires_at` (RFC 3339, or a datetime) at most one is given.
Every answer may be one of the errors of `model.errors`; the operations name those that belong to them.
"""

import json
import math
from collections.abc import AsyncIterable, Callable, Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from functools import partial
from typing import Any, Generic, Literal, Protocol, TypeVar, cast, get_args
from urllib.parse import quote

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from unified_memory.client import shapes
from unified_memory.client.errors import ServiceUnavailableError, UnexpectedAnswerError
from unified_memory.model.errors import (
    AlreadyExistsError,
    InvalidInputError,
    MemoryNotFoundError,
    StorageBusyError,
    UnifiedMemoryError,
    VersionConflictError,
)
from unified_memory.model.namespace import DEFAULT_NAMESPACE

# Not given (UNSET) is something else than None, which is JSON's null.
Seconds = float | UnsetType | None
Instant = str | datetime | UnsetType | None
Number = int | UnsetType | None
Text = str | UnsetType | None
T = TypeVar("T")
PageT = TypeVar("PageT")
ItemT = TypeVar("ItemT")
ReadT_co = TypeVar("ReadT_co", covariant=True)
# A line of an import: a text, or the record itself. Bytes are parts of the whole: lines with their ends, or pieces of any size.
Line = bytes | str | Mapping[str, Any]
Lines = Iterable[Line] | AsyncIterable[Line]
# Pairs of a kind and a location.
Sources = Iterable[tuple[str, str]]

DEFAULT_URL = "http://127.0.0.1:3200"
ROOT = "/api/v1/memory"
JSON = "application/json"
PROBLEM = "application/problem+json"
LINES = "application/x-ndjson"
EVENTS = "text/event-stream"
# The service says something at least every 15 seconds while a stream of events goes on.
QUIET_SECONDS = 15.0
LONGEST_DELAY_SECONDS = 30.0
IDEMPOTENCY_KEY = "Idempotency-Key"
# What stands between us and the service answers so when the service is away.
AWAY = {502, 503, 504}
_UNAVAILABLE = 503
_PRECONDITION_FAILED = 412
_OK = range(200, 300)
# Members of problem+json that are no facts.
_ENVELOPE = {"type", "title", "status", "detail", "code", "hint"}
_EXCERPT = 200
_NOT_JSON = (TypeError, ValueError, RecursionError)


# ---- what is sent and what comes back
class Answer(Struct, frozen=True):
    """What came back. `content_type` without parameters, in lower case; `retry_after`: seconds, where it says so."""

    status: int
    content_type: str
    content: bytes
    retry_after: float | None = None


KeptStatus = Literal["stored_in_fallback", "cached_locally"]


class Call(Struct, Generic[T], frozen=True, kw_only=True):
    """A request, and how its answer is read.

    `target`: path and query, percent-encoded. `wait`: seconds that the service may take beyond a usual answer. `lines`: what is
    sent bit by bit, in place of `content`.
    `convert`: makes the result of the JSON. `none_for`: the error that is a result, None. `also`: a further status of a
    good answer. `safe`: it changes nothing. `keyed`: it takes an Idempotency-Key. `place`: namespace and key of the one memory
    that it is about, as it is now.
    """

    method: str
    target: str
    headers: dict[str, str] = {}
    content: bytes = b""
    wait: float = 0.0
    lines: Lines | None = None
    convert: Callable[[Any], T] | None = None
    none_for: type[UnifiedMemoryError] | None = None
    also: int = 200
    safe: bool = False
    keyed: bool = False
    place: tuple[str, str] | None = None

    def reads(self, answer: Answer) -> bool:
        """Whether the answer holds a result, rather than an error."""
        return answer.status in _OK or (answer.status == self.also and answer.content_type == JSON)

    def read(self, answer: Answer) -> T:
        """The result. Raises the error that the answer tells, UnexpectedAnswerError where it is not the service's."""
        if self.reads(answer):
            result = decode(answer)
            return cast("T", result) if self.convert is None else self.convert(result)
        error = error_of(answer)
        if self.none_for is not None and isinstance(error, self.none_for):
            return cast("T", None)
        raise error


class Listing(Call[PageT], Generic[PageT, ItemT], frozen=True, kw_only=True):
    """A call that answers with a page. `member`: where the items stand; `asked`: the parameters, or the body."""

    member: str
    path: str
    asked: dict[str, Any]

    def items(self, page: PageT) -> list[ItemT]:
        """What the page lists."""
        return cast("list[ItemT]", cast("dict[str, Any]", page)[self.member])

    def after(self, page: PageT) -> "Listing[PageT, ItemT] | None":
        """The call for the next page, None where this one is the last."""
        cursor = cast("dict[str, Any]", page)["next_cursor"]
        if cursor is None:
            return None
        return _listing(self.method, self.path, self.member, {**self.asked, "cursor": cursor})


# ---- what is read as it comes
class Reader(Protocol[ReadT_co]):
    """Makes items of the pieces of an answer. `seen`: the id of the last one, where they have any; `retry`: seconds to wait
    before connecting again, as the service told.
    """

    seen: str | None
    retry: float

    def begin(self) -> None:
        """Another answer begins."""
        ...

    def feed(self, piece: bytes) -> Iterator[ReadT_co]:
        """The items that are whole with this piece."""
        ...

    def end(self) -> Iterator[ReadT_co]:
        """What is left where the answer has come to its end."""
        ...


class LineReader:
    """Lines as bytes, each with its end."""

    seen: str | None = None
    retry = 0.0

    def __init__(self) -> None:
        self._begun: list[bytes] = []

    def begin(self) -> None:
        """Forgets what is not whole."""
        self._begun = []

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """The lines that are whole with this piece."""
        *whole, rest = piece.split(b"\n")
        for line in whole:
            yield b"".join([*self._begun, line, b"\n"])
            self._begun = []
        if rest:
            self._begun.append(rest)

    def end(self) -> Iterator[bytes]:
        """The last line, where it has no end."""
        if self._begun:
            yield b"".join(self._begun)
            self._begun = []


class EventReader:
    """The data of server-sent events, as JSON objects; other fields than `id`, `data` and `retry` are passed over.

    The format: https://html.spec.whatwg.org/multipage/server-sent-events.html
    """

    def __init__(self) -> None:
        self.seen: str | None = None
        self.retry = 0.0
        self.begin()

    def begin(self) -> None:
        """Forgets what is not whole: it was not told."""
        self._lines = LineReader()
        self._data: list[bytes] = []
        self._id = self.seen

    def feed(self, piece: bytes) -> Iterator[Any]:
        """The events that are whole with this piece."""
        for line in self._lines.feed(piece):
            name, _, told = line.rstrip(b"\r\n").partition(b":")
            told = told.removeprefix(b" ")
            if name == b"data":
                self._data.append(told)
            elif name == b"id":
                self._id = told.decode("ascii", "replace")
            elif name == b"retry" and told.isdigit():
                self.retry = int(told) / 1000
            elif line in {b"\n", b"\r\n"}:
                data, self._data = b"\n".join(self._data), []
                event = decode(Answer(200, EVENTS, data)) if data else None
                self.seen = self._id
                if event is not None:
                    yield event

    def end(self) -> Iterator[Any]:
        """Nothing: an event that is not whole was not told."""
        yield from ()


class Flow(Struct, Generic[ItemT], frozen=True, kw_only=True):
    """A call whose answer is read as it comes. `content_type`: of that answer. `reader`: makes what reads it.

    `attempts`: how often in a row one connects again where the connection breaks or ends, None: it ends by itself, and where it
    breaks before that is an error.
    """

    call: Call[Any]
    content_type: str
    reader: Callable[[], Reader[ItemT]]
    attempts: int | None = None

    def again(self, reader: Reader[ItemT]) -> Call[Any]:
        """The call that goes on behind what was read."""
        if reader.seen is None:
            return self.call
        return msgspec.structs.replace(self.call, headers={**self.call.headers, "Last-Event-ID": reader.seen})

    def check(self, answer: Answer) -> None:
        """Raises the error that the head of an answer tells, or that it is no answer to this call."""
        if answer.status in _OK and answer.content_type == self.content_type:
            return
        raise _unexpected(answer) if answer.status in _OK else error_of(answer)

    def delay(self, attempt: int, error: ServiceUnavailableError | None) -> float:
        """Seconds to wait before this attempt to connect again (the first is 0), at least. Raises the error where there were
        enough.
        """
        if self.attempts is None or attempt >= self.attempts:
            raise error or ServiceUnavailableError("The service ends the stream again and again")
        return min(2.0**attempt - 1, LONGEST_DELAY_SECONDS)


def encode_line(line: Line) -> bytes:
    """A line with its end; bytes as they are. Raises InvalidInputError where it is no JSON."""
    if isinstance(line, bytes):
        return line
    text = encode(line) if isinstance(line, Mapping) else line.encode()
    return text if text.endswith(b"\n") else text + b"\n"


# ---- JSON
def _number(text: str) -> Any:
    number = float(text)
    if math.isfinite(number):
        return number
    try:
        return Decimal(text)
    except InvalidOperation:
        return Raw(text.encode())


def _integer(text: str) -> Any:
    try:
        return int(text)
    except ValueError:
        # Python reads at most some thousand digits.
        return Decimal(text)


def _no_constant(text: str) -> Any:
    raise ValueError(text)


_decoder = msgspec.json.Decoder(float_hook=_number)
_encoder = msgspec.json.Encoder(decimal_format="number")


def encode(body: Mapping[str, Any]) -> bytes:
    """A JSON object of JSON-like objects; datetimes become texts, bytes base64, `msgspec.Raw` stands for JSON text.

    Raises InvalidInputError naming the member that has no JSON: NaN and infinities too, which would become null.
    """
    try:
        return _dump(body)
    except _NOT_JSON:
        for name, member in body.items():
            try:
                _dump(member)
            except _NOT_JSON as error:
                raise InvalidInputError(name, f"{name} is not JSON: {error}") from None
        raise


def _dump(value: Any) -> bytes:
    text = _encoder.encode(value)
    if (b"null" in text or b"NaN" in text or b"Inf" in text) and not _finite(value):
        raise ValueError("NaN and infinities have no JSON")
    return text


def _finite(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Decimal):
        return value.is_finite()
    if isinstance(value, Mapping):
        return all(map(_finite, value.values()))
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(_finite, value))
    fields: Iterable[str] = getattr(value, "__struct_fields__", ()) or getattr(value, "__dataclass_fields__", ())
    return all(_finite(getattr(value, name)) for name in fields)


def decode(answer: Answer) -> Any:
    """The JSON of an answer. Raises UnexpectedAnswerError.

    A number beyond a float, or an integer of too many digits for Python, is a Decimal, and beyond even that a `msgspec.Raw`.
    """
    try:
        return _decoder.decode(answer.content)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        # An integer of thousands of digits is JSON, too.
        try:
            return json.loads(answer.content, parse_float=_number, parse_int=_integer, parse_constant=_no_constant)
        except ValueError:
            raise _unexpected(answer) from None


# ---- errors
def _kinds(kind: type[UnifiedMemoryError]) -> dict[str, type[UnifiedMemoryError]]:
    found = {kind.code: kind}
    for special in kind.__subclasses__():
        found = {**_kinds(special), **found}
    return found


_KINDS = _kinds(UnifiedMemoryError)


def error_of(answer: Answer) -> UnifiedMemoryError:
    """The error that an answer tells: of the class that its code names, with its detail, hint and facts."""
    problem = decode(answer) if answer.content_type == PROBLEM else None
    if not isinstance(problem, dict) or not isinstance(problem.get("detail"), str):
        return _unexpected(answer)
    hint = problem.get("hint")
    facts = {name: fact for name, fact in problem.items() if name not in _ENVELOPE}
    kind = _KINDS.get(str(problem.get("code")))
    if kind is None:
        facts = {"code": problem.get("code"), "status": answer.status, **facts}
        kind = UnifiedMemoryError
    # Each class has a constructor of its own; what it would make of its arguments is all in the answer.
    error = kind.__new__(kind, problem["detail"])
    UnifiedMemoryError.__init__(error, problem["detail"], hint=hint if isinstance(hint, str) else None)
    error.facts = facts
    if isinstance(error, InvalidInputError):
        error.field = str(facts.get("field", ""))
    elif isinstance(error, VersionConflictError | AlreadyExistsError):
        error.precondition = answer.status == _PRECONDITION_FAILED
    elif isinstance(error, StorageBusyError):
        retry_after = facts.get("retry_after")
        error.retry_after = retry_after if isinstance(retry_after, int) else 1
    return error


def _unexpected(answer: Answer) -> UnifiedMemoryError:
    excerpt = answer.content[:_EXCERPT].decode("utf-8", "replace")
    facts: dict[str, Any] = {"status": answer.status, "content_type": answer.content_type, "excerpt": excerpt}
    if answer.status in AWAY:
        return ServiceUnavailableError(f"The service is away: HTTP {answer.status}", **facts)
    return UnexpectedAnswerError(
        f"HTTP {answer.status}, which is not an answer of the memory service", hint="Is the URL right?", **facts
    )


# ---- requests
def encode_path(name: str, field: str) -> str:
    """A name as a part of a path; `/` stays, but where a segment is empty, `.` or `..`, which others would tidy away.

    Raises InvalidInputError naming `field`.
    """
    if not name:
        # The path would be another operation's.
        raise InvalidInputError(field, f"{field} is empty")
    try:
        segments = name.split("/")
        if any(segment in {"", ".", ".."} for segment in segments):
            return quote(name, safe="").replace(".", "%2E")
        return quote(name)
    except UnicodeEncodeError:
        raise InvalidInputError(field, f"{field} holds a lone surrogate") from None


def _target(path: str, parameters: Mapping[str, Any]) -> str:
    pairs = []
    for name, value in parameters.items():
        if value is None:
            continue
        text = ("true" if value else "false") if isinstance(value, bool) else str(value)
        try:
            pairs.append(f"{name}={quote(text, safe='')}")
        except UnicodeEncodeError:
            raise InvalidInputError(name, f"{name} holds a lone surrogate") from None
    return f"{path}?{'&'.join(pairs)}" if pairs else path


def _given(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not UNSET}


def _told(**members: Any) -> dict[str, Any]:
    """As `_given`, for members of which None means nothing."""
    return {name: value for name, value in members.items() if value is not None}


def _call(
    method: str,
    path: str,
    parameters: Mapping[str, Any] | None = None,
    *,
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    wait: float | None = None,
    safe: bool | None = None,
    **how: Any,
) -> Call[T]:
    sent = {"Accept": JSON, **(headers or {})}
    content = b""
    if body is not None:
        sent["Content-Type"] = JSON
        content = encode(body)
    target = _target(ROOT + path, {**(parameters or {}), "wait": wait})
    safe = method == "GET" if safe is None else safe
    return Call(method=method, target=target, headers=sent, content=content, wait=wait or 0.0, safe=safe, **how)


def _listing(method: str, path: str, member: str, asked: Mapping[str, Any]) -> Listing[PageT, ItemT]:
    asked = _told(**asked)
    plain: Call[PageT] = _call(method, path, asked) if method == "GET" else _call(method, path, body=asked)
    return Listing(
        method=method,
        target=plain.target,
        headers=plain.headers,
        content=plain.content,
        safe=True,
        member=member,
        path=path,
        asked=asked,
    )


def _idempotency(key: str | None) -> dict[str, str]:
    if key is None:
        return {}
    if not (key.isascii() and key.isprintable() and key.strip() == key and key):
        raise InvalidInputError("idempotency_key", "An idempotency key is printable ASCII")
    return {IDEMPOTENCY_KEY: key}


def _results(answer: Any) -> Any:
    return answer["results"]


# ---- one memory
def record_of(place: tuple[str, str] | None, answer: Any) -> Any:
    """The answer to a write, where it tells of that memory (None: of any).

    Raises UnexpectedAnswerError: nothing says then that it was stored.
    """
    if isinstance(answer, dict):
        named = isinstance(answer.get("namespace"), str) and isinstance(answer.get("key"), str)
        if named and isinstance(answer.get("version"), int) and place in {None, (answer["namespace"], answer["key"])}:
            return answer
        if answer.get("status") in get_args(KeptStatus) and (place is None or answer.get("key") == place[1]):
            # An application before the service keeps it.
            return answer
    raise UnexpectedAnswerError("What answers does not tell of the memory", hint="Is the URL right?")


def store(
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
) -> Call[shapes.Record]:
    """Stores a whole record, replacing what was there; without a key one is minted.

    Args:
        key: The memory's name in its namespace.
        value: Any JSON-like object.
        namespace: A path such as acme/web; made where it does not exist.
        ttl: Seconds until it expires; None: never; not given: as the namespace says.
        metadata: tags, importance (1 to 10), session_id, project_id and any fields of your own.
        expires_at: The instant instead of a ttl.
        if_none_match: Only where there is no such memory yet, else AlreadyExistsError.
        expected_version: Only over this version (0: where there is none), else VersionConflictError.
        idempotency_key: Repeating the request with the same key does nothing more.
    """
    if value is UNSET:
        raise InvalidInputError("value", "value is missing")
    body = _given(value=value, ttl=ttl, expires_at=expires_at)
    body |= _told(key=key, namespace=namespace, metadata=metadata, expected_version=expected_version)
    headers = {**_idempotency(idempotency_key), **({"If-None-Match": "*"} if if_none_match else {})}
    place = None if key is None else (namespace, key)
    return _call(
        "POST", "/store", body=body, headers=headers, convert=partial(record_of, place), keyed=True, place=place
    )


def retrieve(
    key: str,
    namespace: str = DEFAULT_NAMESPACE,
    *,
    include_search_index: bool = False,
    as_of: str | datetime | None = None,
) -> Call[shapes.Record | None]:
    """The memory of that key, None where there is none; `as_of`: as it was at that instant.

    What goes wrong in any other way is raised: VersionGoneError where what was there then is no longer kept.
    """
    return _retrieve(
        key, namespace, include_search_index=include_search_index, as_of=as_of, none_for=MemoryNotFoundError
    )


def fetch(
    key: str,
    namespace: str = DEFAULT_NAMESPACE,
    *,
    include_search_index: bool = False,
    as_of: str | datetime | None = None,
) -> Call[shapes.Record]:
    """The memory of that key, `as_of` an instant. Raises MemoryNotFoundError, VersionGoneError."""
    return _retrieve(key, namespace, include_search_index=include_search_index, as_of=as_of)


def _retrieve(
    key: str, namespace: str, *, include_search_index: bool, as_of: str | datetime | None, **how: Any
) -> Call[T]:
    instant = as_of.isoformat() if isinstance(as_of, datetime) else as_of
    asked = {"namespace": namespace, "include": "search_index" if include_search_index else None, "as_of": instant}
    place = (namespace, key) if as_of is None else None
    return _call("GET", f"/retrieve/{encode_path(key, 'key')}", asked, place=place, **how)


def update(
    key: str,
    namespace: str = DEFAULT_NAMESPACE,
    *,
    value: Any = UNSET,
    ttl: Seconds = UNSET,
    expires_at: Instant = UNSET,
    metadata: Mapping[str, Any] | None = None,
    expected_version: int | None = None,
    idempotency_key: str | None = None,
) -> Call[shapes.Record]:
    """Changes only what is named; in `metadata` None removes a field, and a ttl runs on unless it is named.

    Raises MemoryNotFoundError, VersionConflictError.
    """
    body = _given(value=value, ttl=ttl, expires_at=expires_at)
    body |= _told(metadata=metadata, expected_version=expected_version)
    path = f"/update/{encode_path(key, 'key')}"
    headers = _idempotency(idempotency_key)
    asked = {"namespace": namespace}
    place = (namespace, key)
    return _call(
        "PUT", path, asked, body=body, headers=headers, convert=partial(record_of, place), keyed=True, place=place
    )


def patch(
    key: str,
    namespace: str = DEFAULT_NAMESPACE,
    *,
    merge: Any = UNSET,
    append: Mapping[str, Any] | None = None,
    increment: Mapping[str, float] | None = None,
    expected_version: int | None = None,
    idempotency_key: str | None = None,
) -> Call[shapes.Record]:
    """Changes the value from inside, atomically.

    Args:
        key: The memory's name in its namespace.
        namespace: Its namespace.
        merge: A JSON merge patch (RFC 7396): members replace, None removes.
        append: Path to a list -> element to append, as in {"items": 1}.
        increment: Path to a number -> what to add, as in {"stats.seen": 1}.
        expected_version: Only over this version, else VersionConflictError.
        idempotency_key: Repeating the request with the same key does nothing more.

    Raises MemoryNotFoundError, ConflictError where it does not fit what is stored.
    """
    body = _given(merge=merge) | _told(append=append, increment=increment, expected_version=expected_version)
    path = f"/update/{encode_path(key, 'key')}"
    headers = _idempotency(idempotency_key)
    asked = {"namespace": namespace}
    place = (namespace, key)
    return _call(
        "PATCH", path, asked, body=body, headers=headers, convert=partial(record_of, place), keyed=True, place=place
    )


def delete(
    key: str,
    namespace: str = DEFAULT_NAMESPACE,
    *,
    expected_version: int | None = None,
    idempotency_key: str | None = None,
) -> Call[shapes.Deleted]:
    """Deletes a memory. Raises MemoryNotFoundError, VersionConflictError."""
    headers = _idempotency(idempotency_key)
    if expected_version is not None:
        headers["If-Match"] = f'"{expected_version}"'
    path = f"/delete/{encode_path(key, 'key')}"
    return _call("DELETE", path, {"namespace": namespace}, headers=headers, keyed=True, place=(namespace, key))


def move(
    key: str,
    to_key: str | None = None,
    *,
    namespace: str = DEFAULT_NAMESPACE,
    to_namespace: str | None = None,
    expected_version: int | None = None,
) -> Call[shapes.Record]:
    """Gives a memory another key, another namespace or both; its id, times and ttl stay.

    Raises MemoryNotFoundError, AlreadyExistsError, VersionConflictError.
    """
    source = {"namespace": namespace, "key": key}
    target = {
        "namespace": namespace if to_namespace is None else to_namespace,
        "key": key if to_key is None else to_key,
    }
    body = {"from": source, "to": target, **_told(expected_version=expected_version)}
    return _call("POST", "/move", body=body)


# ---- many
def store_batch(
    memories: Iterable[shapes.NewMemory], *, idempotency_key: str | None = None
) -> Call[list[shapes.StoreResult]]:
    """Stores up to 1,000 memories, all or none; the results in order."""
    return _call(
        "POST",
        "/store/batch",
        body={"memories": list(memories)},
        headers=_idempotency(idempotency_key),
        convert=_results,
        keyed=True,
    )


def retrieve_batch(
    keys: Iterable[str | shapes.KeyRef], namespace: str = DEFAULT_NAMESPACE
) -> Call[list[shapes.RetrieveResult]]:
    """Up to 1,000 memories in order, by keys of `namespace` or by {"key", "namespace"}."""
    return _call("POST", "/retrieve/batch", body={"keys": _references(keys, namespace)}, convert=_results, safe=True)


def delete_batch(
    keys: Iterable[str | shapes.KeyRef], namespace: str = DEFAULT_NAMESPACE, *, idempotency_key: str | None = None
) -> Call[list[shapes.DeleteResult]]:
    """Deletes what is there of up to 1,000 keys, as `retrieve_batch` names them, in one transaction."""
    body = {"keys": _references(keys, namespace)}
    headers = _idempotency(idempotency_key)
    return _call("POST", "/delete/batch", body=body, headers=headers, convert=_results, keyed=True)


def _references(keys: Iterable[str | shapes.KeyRef], namespace: str) -> list[shapes.KeyRef]:
    if isinstance(keys, str):
        raise InvalidInputError("keys", "keys is a list of keys")
    return [{"key": ref, "namespace": namespace} if isinstance(ref, str) else ref for ref in keys]


def update_where(
    filter: Mapping[str, Any],  # noqa: A002 - the word of every interface
    *,
    ttl: Seconds = UNSET,
    expires_at: Instant = UNSET,
    metadata: Mapping[str, Any] | None = None,
    add_tags: Iterable[str] | None = None,
    remove_tags: Iterable[str] | None = None,
    namespace: str | None = None,
    recursive: bool = True,
    dry_run: bool = False,
    wait: float | None = None,
) -> Call[shapes.Affected | shapes.Accepted]:
    """Changes every memory that meets the filter.

    What does not end within `wait` seconds (10, at most 60) goes on as a job, which is then the answer.
    """
    changes = _given(ttl=ttl, expires_at=expires_at) | _told(
        metadata=metadata, add_tags=_listed(add_tags), remove_tags=_listed(remove_tags)
    )
    body = {"filter": filter, "set": changes, "recursive": recursive, "dry_run": dry_run, **_told(namespace=namespace)}
    return _call("POST", "/update/where", body=body, wait=wait)


def delete_where(
    filter: Mapping[str, Any],  # noqa: A002 - the word of every interface
    *,
    namespace: str | None = None,
    recursive: bool = True,
    dry_run: bool = False,
    wait: float | None = None,
) -> Call[shapes.Affected | shapes.Accepted]:
    """Deletes every memory that meets the filter; `wait` as in `update_where`."""
    body = {"filter": filter, "recursive": recursive, "dry_run": dry_run, **_told(namespace=namespace)}
    return _call("POST", "/delete/where", body=body, wait=wait)


def _listed(items: Iterable[str] | None) -> list[str] | None:
    return None if items is None else [items] if isinstance(items, str) else list(items)


# ---- finding
def list_memories(
    *,
    namespace: str | None = None,
    recursive: bool = True,
    prefix: str | None = None,
    tags: Iterable[str] | None = None,
    order_by: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Listing[shapes.MemoryPage, shapes.Record]:
    """Memories in order, of one namespace (and, `recursive`, all below it) or of all.

    Args:
        namespace: Where to look; None: everywhere.
        recursive: Also in the namespaces below.
        prefix: What the keys begin with.
        tags: Only memories that have all of these.
        order_by: A field, `-` before it for the other way round: id, key, -updated_at …
        limit: At most so many a page (50, at most 1,000).
        cursor: `next_cursor` of the page before.
    """
    wanted = _listed(tags)
    if wanted is not None and any("," in tag or not tag for tag in wanted):
        raise InvalidInputError("tags", "A listing cannot ask for a tag with a comma", hint="query with a filter can")
    asked = {
        "namespace": namespace,
        "recursive": None if recursive else False,
        "prefix": prefix,
        "tags": ",".join(wanted) if wanted else None,
        "order_by": order_by,
        "limit": limit,
        "cursor": cursor,
    }
    return _listing("GET", "/list", "memories", asked)


def search(
    query: str,
    *,
    namespace: str | None = None,
    recursive: bool = True,
    tags: Iterable[str] | None = None,
    importance_min: int | None = None,
    session_id: str | None = None,
    project_id: str | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    filter: Mapping[str, Any] | None = None,  # noqa: A002 - the word of every interface
    min_score: float | None = None,
    mode: str | None = None,
    rank: shapes.Rank | None = None,
    explain: bool = False,
    collapse: bool = False,
    content: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
    max_tokens: int | None = None,
) -> Listing[shapes.SearchPage, shapes.Hit]:
    """The best hits for words, "phrases", prefix* and -not, with score, matched fields and a snippet.

    Args:
        query: What to search for; odd characters are data.
        namespace: Where to look; None: everywhere.
        recursive: Also in the namespaces below.
        tags: Only memories that have all of these.
        importance_min: Only memories at least so important.
        session_id: Only memories of this session.
        project_id: Only memories of this project.
        since: Only what was changed then or after: an instant, a duration back from now ("7d"), or words ("last week").
        until: Only what was changed then or before.
        filter: An exact filter as for `query`.
        min_score: Nothing that scores less; scores lie from 0 to about 1.
        mode: By words ("fulltext"), by meaning ("semantic"), by both ("hybrid"), or by what there is ("auto", the default).
        rank: What counts beside relevance: {"recency_half_life": "30d", "importance": 0.2}.
        explain: Also tell what each score is made of.
        collapse: Show near-duplicates as one, the newest, with the number of the others.
        content: The "value", its best "passages" where it is long, or "none".
        limit: At most so many a page (50, at most 1,000).
        cursor: `next_cursor` of the page before.
        max_tokens: No more hits than fit, long values by their best passages; `left_out` tells how many did not fit.

    Raises EmptyQueryError where there is nothing to search for, SemanticUnavailableError.
    """
    return _search(
        "/search",
        {"query": query},
        namespace=namespace,
        recursive=recursive,
        tags=tags,
        importance_min=importance_min,
        session_id=session_id,
        project_id=project_id,
        since=since,
        until=until,
        filter=filter,
        min_score=min_score,
        mode=mode,
        rank=rank,
        explain=explain,
        collapse=collapse,
        content=content,
        limit=limit,
        cursor=cursor,
        max_tokens=max_tokens,
    )


def similar(
    key: str | None = None,
    key_namespace: str = DEFAULT_NAMESPACE,
    *,
    text: str | None = None,
    namespace: str | None = None,
    recursive: bool = True,
    tags: Iterable[str] | None = None,
    importance_min: int | None = None,
    session_id: str | None = None,
    project_id: str | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    filter: Mapping[str, Any] | None = None,  # noqa: A002 - the word of every interface
    min_score: float | None = None,
    mode: str | None = None,
    rank: shapes.Rank | None = None,
    explain: bool = False,
    collapse: bool = False,
    content: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
    max_tokens: int | None = None,
) -> Listing[shapes.SearchPage, shapes.Hit]:
    """What is like the memory `key` of `key_namespace`, which is left out itself, or like `text`; one of both is given.

    All else is as in `search`, also what is raised, and MemoryNotFoundError.
    """
    asked = {"text": text} if key is None else {"key": key, "key_namespace": key_namespace, "text": text}
    return _search(
        "/similar",
        asked,
        namespace=namespace,
        recursive=recursive,
        tags=tags,
        importance_min=importance_min,
        session_id=session_id,
        project_id=project_id,
        since=since,
        until=until,
        filter=filter,
        min_score=min_score,
        mode=mode,
        rank=rank,
        explain=explain,
        collapse=collapse,
        content=content,
        limit=limit,
        cursor=cursor,
        max_tokens=max_tokens,
    )


def recall(
    messages: Iterable[str | Mapping[str, Any]],
    *,
    exclude_session: str | None = None,
    namespace: str | None = None,
    recursive: bool = True,
    tags: Iterable[str] | None = None,
    importance_min: int | None = None,
    session_id: str | None = None,
    project_id: str | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    filter: Mapping[str, Any] | None = None,  # noqa: A002 - the word of every interface
    min_score: float | None = None,
    mode: str | None = None,
    rank: shapes.Rank | None = None,
    explain: bool = False,
    limit: int | None = None,
    max_tokens: int | None = None,
) -> Call[shapes.SearchPage]:
    """What a conversation should be reminded of now: at most `limit` (10) memories that fit into `max_tokens` (1,000).

    `messages`: the last ones, oldest first, as texts or as the objects with `content` that chat interfaces have. Memories of
    the session `exclude_session` are not told, since the conversation holds them itself. All else is as in `search`.

    Raises EmptyQueryError where no message holds a word, SemanticUnavailableError.
    """
    if isinstance(messages, str | Mapping):
        raise InvalidInputError("messages", "messages is a list of messages")
    asked = _search(
        "/recall",
        {"messages": list(messages), "exclude_session": exclude_session},
        namespace=namespace,
        recursive=recursive,
        tags=tags,
        importance_min=importance_min,
        session_id=session_id,
        project_id=project_id,
        since=since,
        until=until,
        filter=filter,
        min_score=min_score,
        mode=mode,
        rank=rank,
        explain=explain,
        limit=limit,
        max_tokens=max_tokens,
    ).asked
    return _call("POST", "/recall", body=asked, safe=True)


def _search(
    path: str,
    asked: Mapping[str, Any],
    *,
    recursive: bool,
    tags: Iterable[str] | None,
    explain: bool,
    collapse: bool = False,
    **more: Any,
) -> Listing[shapes.SearchPage, shapes.Hit]:
    flags = {"recursive": None if recursive else False, "explain": explain or None, "collapse": collapse or None}
    return _listing("POST", path, "results", {**asked, **flags, "tags": _listed(tags), **more})


def query(
    filter: Mapping[str, Any] | None = None,  # noqa: A002 - the word of every interface
    *,
    namespace: str | None = None,
    recursive: bool = True,
    order_by: str | None = None,
    select: Iterable[str] | None = None,
    limit: int | None = None,
    cursor: str | None = None,
    count: bool = False,
    group_by: str | None = None,
) -> Listing[shapes.QueryPage, dict[str, Any]]:
    """Memories that meet an exact filter.

    Args:
        filter: {"and" | "or": [filter, …]}, {"not": filter} or {field: {op: operand}}, as in
            {"metadata.importance": {"gte": 7}, "value.name": {"eq": "vim"}}.
        namespace: Where to look; None: everywhere.
        recursive: Also in the namespaces below.
        order_by: A field, `-` before it for the other way round.
        select: Only these fields of each.
        limit: At most so many a page (50, at most 1,000).
        cursor: `next_cursor` of the page before.
        count: Also tell how many there are.
        group_by: Also tell how many there are of each value of this field.
    """
    asked = {
        "filter": filter,
        "namespace": namespace,
        "recursive": None if recursive else False,
        "order_by": order_by,
        "select": _listed(select),
        "limit": limit,
        "cursor": cursor,
        "count": count or None,
        "group_by": group_by,
    }
    return _listing("POST", "/query", "memories", asked)


# ---- namespaces
def _settings(
    default_ttl: Seconds,
    max_memories: Number,
    max_bytes: Number,
    demote_after: Seconds,
    history_keep: Number,
    history_days: Seconds,
    language: Text,
    description: Text,
) -> dict[str, Any]:
    return _given(
        default_ttl=default_ttl,
        max_memories=max_memories,
        max_bytes=max_bytes,
        demote_after=demote_after,
        history_keep=history_keep,
        history_days=history_days,
        language=language,
        description=description,
    )


def create_namespace(
    name: str,
    *,
    default_ttl: Seconds = UNSET,
    max_memories: Number = UNSET,
    max_bytes: Number = UNSET,
    demote_after: Seconds = UNSET,
    history_keep: Number = UNSET,
    history_days: Seconds = UNSET,
    language: Text = UNSET,
    description: Text = UNSET,
) -> Call[shapes.Namespace]:
    """Creates a namespace; what is not given is inherited from the ones above. `language`: how search compares words;
    `demote_after`: seconds without use after which a value is archived; `history_keep`, `history_days`: how many former versions
    are kept, and for how many days.

    Raises AlreadyExistsError, QuotaExceededError.
    """
    config = _settings(
        default_ttl, max_memories, max_bytes, demote_after, history_keep, history_days, language, description
    )
    body = {"name": name, "config": config}
    return _call("POST", "/namespaces", body=body)


def configure_namespace(
    name: str,
    *,
    default_ttl: Seconds = UNSET,
    max_memories: Number = UNSET,
    max_bytes: Number = UNSET,
    demote_after: Seconds = UNSET,
    history_keep: Number = UNSET,
    history_days: Seconds = UNSET,
    language: Text = UNSET,
    description: Text = UNSET,
) -> Call[shapes.Namespace]:
    """Replaces all settings of a namespace; what is not given is inherited again. Raises NamespaceNotFoundError."""
    body = _settings(
        default_ttl, max_memories, max_bytes, demote_after, history_keep, history_days, language, description
    )
    return _call("PUT", f"/namespaces/{encode_path(name, 'name')}", body=body)


def get_namespace(name: str) -> Call[shapes.Namespace]:
    """A namespace with its settings and counts. Raises NamespaceNotFoundError."""
    return _call("GET", f"/namespaces/{encode_path(name, 'name')}")


def list_namespaces(
    *, prefix: str | None = None, depth: int | None = None, limit: int | None = None, cursor: str | None = None
) -> Listing[shapes.NamespacePage, shapes.Namespace]:
    """Namespaces by name: `prefix` and all below it, down to `depth` levels."""
    asked = {"prefix": prefix, "depth": depth, "limit": limit, "cursor": cursor}
    return _listing("GET", "/namespaces", "namespaces", asked)


def delete_namespace(
    name: str, *, recursive: bool = False, dry_run: bool = False, wait: float | None = None
) -> Call[shapes.NamespaceDeletion | shapes.Accepted]:
    """Deletes a namespace; one that is not empty only with `recursive`. `wait` as in `update_where`.

    Raises NamespaceNotFoundError, NamespaceNotEmptyError.
    """
    asked = {"recursive": recursive or None, "dry_run": dry_run or None}
    return _call("DELETE", f"/namespaces/{encode_path(name, 'name')}", asked, wait=wait)


def move_namespace(name: str, to: str) -> Call[shapes.Moved]:
    """Renames a namespace, with everything below it. Raises NamespaceNotFoundError, AlreadyExistsError."""
    return _call("POST", "/move", body={"from": {"namespace": name}, "to": {"namespace": to}})


# ---- sessions
def create_session(
    session_id: str | None = None,
    *,
    namespace: str = DEFAULT_NAMESPACE,
    cluster_id: str | None = None,
    project_id: str | None = None,
    ttl: float | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Call[shapes.Session]:
    """Creates a session (without an id one is minted), or goes on with the one of that id. Its ttl slides with use."""
    body = {
        "namespace": namespace,
        **_told(id=session_id, cluster_id=cluster_id, project_id=project_id, ttl=ttl, metadata=metadata),
    }
    return _call("POST", "/sessions", body=body)


def get_session(
    session_id: str,
    *,
    namespace: str = DEFAULT_NAMESPACE,
    scope: str | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Listing[shapes.SessionView, shapes.Record]:
    """A session and its memories in order; scope="cluster": those of all sessions of its cluster.

    Raises SessionNotFoundError.
    """
    asked = {"namespace": namespace, "scope": scope, "limit": limit, "cursor": cursor}
    path = f"/sessions/{encode_path(session_id, 'session_id')}"
    return _listing("GET", path, "memories", asked)


def list_sessions(
    *,
    namespace: str | None = None,
    recursive: bool = True,
    cluster_id: str | None = None,
    active: bool | None = None,
    limit: int | None = None,
    cursor: str | None = None,
) -> Listing[shapes.SessionPage, shapes.Session]:
    """Sessions, the one used last first; `active`: only those that are (not) ended or expired."""
    asked = {
        "namespace": namespace,
        "recursive": None if recursive else False,
        "cluster_id": cluster_id,
        "active": active,
        "limit": limit,
        "cursor": cursor,
    }
    return _listing("GET", "/sessions", "sessions", asked)


def end_session(
    session_id: str, *, namespace: str = DEFAULT_NAMESPACE, memories: str | None = None
) -> Call[shapes.SessionEnd]:
    """Ends a session; its `memories` are kept ("keep", the default), deleted ("delete") or expired ("expire").

    Raises SessionNotFoundError.
    """
    path = f"/sessions/{encode_path(session_id, 'session_id')}"
    return _call("DELETE", path, {"namespace": namespace, "memories": memories})


# ---- tiers
def tiers() -> Call[shapes.Tiers]:
    """What lies in which tier, and every archive."""
    return _call("GET", "/tiers")


def archive(
    namespace: str, *, recursive: bool = True, dry_run: bool = False, wait: float | None = None
) -> Call[shapes.Archived | shapes.Accepted]:
    """Moves all values of a namespace, with `recursive` of those below it too, into archives; the memories are used as before.

    `dry_run`: only tells what would move. `wait` as in `update_where`.

    Raises NamespaceNotFoundError, RefusedError where there is no cold tier.
    """
    return _call("POST", "/archive", body=_archived(namespace, recursive=recursive, dry_run=dry_run), wait=wait)


def recall_archived(
    namespace: str, *, recursive: bool = True, dry_run: bool = False, wait: float | None = None
) -> Call[shapes.Archived | shapes.Accepted]:
    """Brings all values of a namespace back from archives; all else is as in `archive`."""
    return _call("POST", "/archive/recall", body=_archived(namespace, recursive=recursive, dry_run=dry_run), wait=wait)


def _archived(namespace: str, *, recursive: bool, dry_run: bool) -> dict[str, Any]:
    return {"namespace": namespace, **_told(recursive=None if recursive else False, dry_run=dry_run or None)}


def tier_pass(*, wait: float | None = None) -> Call[shapes.TierPass | shapes.Accepted]:
    """Archives what was not used for long and compacts archives, as the service does at intervals; `wait` as in
    `update_where`.

    Raises RefusedError where there is no cold tier.
    """
    return _call("POST", "/archive/pass", wait=wait)


# ---- history
def history(
    key: str, namespace: str = DEFAULT_NAMESPACE, *, limit: int | None = None, cursor: str | None = None
) -> Listing[shapes.VersionPage, shapes.VersionHead]:
    """The versions of a memory that are known, newest first, the current one included. Raises MemoryNotFoundError."""
    asked = {"namespace": namespace, "limit": limit, "cursor": cursor}
    return _listing("GET", f"/history/{encode_path(key, 'key')}", "versions", asked)


def version(key: str, version: int, namespace: str = DEFAULT_NAMESPACE) -> Call[shapes.Record]:
    """The memory as it was at that version. Raises VersionGoneError, MemoryNotFoundError."""
    return _call("GET", f"/history/{encode_path(key, 'key')}", {"namespace": namespace, "version": version})


def restore_version(
    key: str,
    namespace: str = DEFAULT_NAMESPACE,
    *,
    version: int | None = None,
    expected_version: int | None = None,
    idempotency_key: str | None = None,
) -> Call[shapes.Record]:
    """Makes a former version current again, as a new version; without `version` the one before the current one, or the last one
    of a memory that was deleted.

    Raises MemoryNotFoundError, VersionGoneError, VersionConflictError, ConflictError where it has expired or is the current one.
    """
    body = {"key": key, "namespace": namespace, **_told(version=version, expected_version=expected_version)}
    headers = _idempotency(idempotency_key)
    return _call("POST", "/history/restore", body=body, headers=headers, keyed=True, place=(namespace, key))


def redact(
    key: str, namespace: str = DEFAULT_NAMESPACE, *, version: int | None = None, wait: float | None = None
) -> Call[shapes.RedactedVersions | shapes.Accepted]:
    """Takes the content of a version out for good; without `version` that of all, the current one too. Backups that were made
    before still hold it. `wait` as in `update_where`.

    Raises MemoryNotFoundError.
    """
    body = {"key": key, "namespace": namespace, **_told(version=version)}
    return _call("POST", "/history/redact", body=body, wait=wait)


def changes(
    since: int = 0, *, namespace: str | None = None, recursive: bool = True, limit: int | None = None
) -> Call[shapes.ChangePage]:
    """What changed behind the place `since` in the commit order: `limit` (50, at most 1,000) of them, and the `next` place.

    Raises ChangesGoneError where some of it is no longer kept.
    """
    return _call("GET", "/changes", {"since": since, **_scope(namespace, recursive=recursive), "limit": limit})


def follow_changes(
    since: int | None = None, *, namespace: str | None = None, recursive: bool = True, attempts: int = 8
) -> Flow[shapes.Change]:
    """Changes behind `since` (None: from now on), and then for ever those that come, none of them missed or told twice.

    Where the connection breaks it is made again, up to `attempts` times in a row, after 1, 1, 3, 7, 15, 30, 30 …
    seconds. Raises ChangesGoneError where some are no longer kept, ServiceUnavailableError.
    """
    asked = {"since": since, **_scope(namespace, recursive=recursive)}
    call: Call[Any] = _call("GET", "/changes", asked, headers={"Accept": EVENTS})
    patient = msgspec.structs.replace(call, wait=QUIET_SECONDS)
    return Flow(call=patient, content_type=EVENTS, reader=EventReader, attempts=attempts)


def _scope(namespace: str | None, *, recursive: bool) -> dict[str, Any]:
    return {"namespace": namespace, "recursive": None if recursive else False}


# ---- backups
def create_backup(
    *, parent: str | None = None, note: str | None = None, wait: float | None = None
) -> Call[shapes.Backup | shapes.Accepted]:
    """Makes a backup. `parent`: hold only what changed since that one ("latest": the newest). `wait` as in `update_where`.

    Raises BackupNotFoundError, StorageFullError.
    """
    return _call("POST", "/backup", body=_told(parent=parent, note=note), wait=wait)


def list_backups() -> Call[shapes.BackupPage]:
    """All backups, newest first."""
    return _call("GET", "/backups")


def get_backup(backup_id: str) -> Call[shapes.BackupDetails]:
    """A backup with its files. Raises BackupNotFoundError."""
    return _call("GET", f"/backups/{encode_path(backup_id, 'backup_id')}")


def verify_backup(backup_id: str, *, wait: float | None = None) -> Call[shapes.Verification | shapes.Accepted]:
    """Proves a backup by restoring it aside. `wait` as in `update_where`. Raises BackupDamagedError, BackupNotFoundError."""
    return _call("POST", f"/backups/{encode_path(backup_id, 'backup_id')}/verify", wait=wait)


def delete_backup(backup_id: str) -> Call[shapes.Backup]:
    """Deletes a backup. Raises ConflictError where another one needs it, BackupNotFoundError."""
    return _call("DELETE", f"/backups/{encode_path(backup_id, 'backup_id')}")


def restore(
    backup_id: str,
    *,
    mode: str | None = None,
    namespace: str | None = None,
    target: str | None = None,
    as_of: str | datetime | None = None,
    dry_run: bool = False,
    safety: bool = True,
    wait: float | None = None,
) -> Call[shapes.Restored | shapes.Accepted]:
    """Restores a backup, in one step.

    Args:
        backup_id: Which.
        mode: replace (the default): all is as in the backup; merge: what is missing, or older, comes from it; namespace: one
            namespace, with all below it.
        namespace: Of the backup, for the mode namespace.
        target: What that namespace is called here.
        as_of: An earlier backup of the chain, or the last of it at that instant.
        dry_run: Only tell what would change.
        safety: First make a backup of what is there.
        wait: As in `update_where`.

    Raises BackupNotFoundError, BackupDamagedError.
    """
    instant = as_of.isoformat() if isinstance(as_of, datetime) else as_of
    told = _told(mode=mode, namespace=namespace, target=target, as_of=instant, dry_run=dry_run or None)
    body = {"backup_id": backup_id, **told, **({} if safety else {"safety": False})}
    return _call("POST", "/restore", body=body, wait=wait)


# ---- migration
def migration() -> Call[shapes.MigrationStatus]:
    """How far a migration from other programs has come."""
    return _call("GET", "/migration")


def plan_migration(
    sources: Sources = (),
    *,
    mapping: Mapping[str, Any] | None = None,
    namespace_template: str | None = None,
    on_conflict: str | None = None,
    prefix: str | None = None,
    keep_ttl: bool = False,
    first: int | None = None,
    wait: float | None = None,
) -> Call[shapes.MigrationPlan | shapes.Accepted]:
    """Looks at the sources, and tells what a migration would do; changes nothing. The options as of `run_migration`.

    `first`: of how many records of each source is told what would become of them.

    Raises RefusedError where a source may not be named, SourceError where one cannot be read.
    """
    body = _migration(sources, mapping, namespace_template, on_conflict, prefix, keep_ttl=keep_ttl)
    return _call("POST", "/migration/plan", body={**body, **_told(first=first)}, wait=wait)


def run_migration(
    sources: Sources = (),
    *,
    mapping: Mapping[str, Any] | None = None,
    namespace_template: str | None = None,
    on_conflict: str | None = None,
    prefix: str | None = None,
    keep_ttl: bool = False,
    follow: bool = False,
    interval: float | None = None,
    dry_run: bool = False,
    rollback_point: bool = True,
    wait: float | None = None,
) -> Call[shapes.MigrationReport | shapes.Accepted]:
    """Copies the sources here. Run again it copies only what is new or changed there.

    Args:
        sources: Pairs of a kind and a location, such as `[("memory-bank-files", "/srv/older/bank")]`; none: those of the run
            before. A service takes only files and folders below its MIGRATION_DIR.
        mapping: What becomes of which record, where it is not as usual.
        namespace_template: The namespace of each record, such as `archive/{project}`.
        on_conflict: What happens where something else is stored under a key: skip (the default) or replace.
        prefix: Of the keys of an older Redis.
        keep_ttl: What would have expired there expires here too.
        follow: Go on copying until the switch; cancel the job to end it before.
        interval: Seconds between two looks at the sources, with `follow`.
        dry_run: Only tell what would be stored.
        rollback_point: First keep what both sides hold now.
        wait: As in `update_where`.

    Raises RefusedError where a source may not be named, SourceError where one cannot be read, MigrationStateError.
    """
    body = _migration(sources, mapping, namespace_template, on_conflict, prefix, keep_ttl=keep_ttl)
    told = _told(interval=interval, follow=follow or None, dry_run=dry_run or None)
    point = {} if rollback_point else {"rollback_point": False}
    return _call("POST", "/migration/run", body={**body, **told, **point}, wait=wait)


def verify_migration(
    *, samples: int | None = None, older: str | None = None, wait: float | None = None
) -> Call[shapes.MigrationVerification | shapes.Accepted]:
    """Compares what was copied with the sources: counts, contents, tags, times.

    `older`: the command or the URL of the older service; so many reads (`samples`) are then asked of it and of this one, and must
    be the same byte for byte. `wait` as in `update_where`.

    Raises SourceError, MigrationStateError where nothing was copied.
    """
    return _call("POST", "/migration/verify", body=_told(samples=samples, older=older), wait=wait)


def switch_migration(
    *, timeout: float | None = None, wait: float | None = None
) -> Call[shapes.MigrationStatus | shapes.Accepted]:
    """From now on this service answers in the place of the older ones. `timeout`: seconds that proxies may take to follow.

    `wait` as in `update_where`. Raises MigrationStateError.
    """
    return _call("POST", "/migration/switch", body=_told(timeout=timeout), wait=wait)


def rollback_migration(
    *, restore: bool = False, timeout: float | None = None, wait: float | None = None
) -> Call[shapes.MigrationRolledBack | shapes.Accepted]:
    """Back to the older services: what was stored, changed or deleted here since the switch is written into their files.

    `restore`: what is here becomes what it was before the migration, too. `timeout`: seconds that proxies may take to follow.
    `wait` as in `update_where`. Done again it changes nothing. Raises MigrationStateError, SourceError.
    """
    return _call("POST", "/migration/rollback", body=_told(restore=restore or None, timeout=timeout), wait=wait)


def finish_migration(
    *, timeout: float | None = None, wait: float | None = None
) -> Call[shapes.MigrationFinished | shapes.Accepted]:
    """Ends the migration: keeps a last copy of the older files, and tells the commands that would remove what is left of them.

    There is no way back then. `timeout`: seconds that a pass which is under way may take to end. `wait` as in `update_where`.
    Raises MigrationStateError.
    """
    return _call("POST", "/migration/finish", body=_told(timeout=timeout), wait=wait)


def migration_report() -> Call[shapes.MigrationReport]:
    """What the last run came to. Raises MigrationStateError where there was none."""
    return _call("GET", "/migration/report")


def _migration(
    sources: Sources,
    mapping: Mapping[str, Any] | None,
    namespace_template: str | None,
    on_conflict: str | None,
    prefix: str | None,
    *,
    keep_ttl: bool,
) -> dict[str, Any]:
    if isinstance(sources, str | Mapping):
        raise InvalidInputError("sources", "sources is a list of pairs of a kind and a location")
    return {
        "sources": [{"kind": kind, "location": location} for kind, location in sources],
        **_told(
            mapping=mapping,
            namespace_template=namespace_template,
            on_conflict=on_conflict,
            prefix=prefix,
            keep_ttl=keep_ttl or None,
        ),
    }


# ---- out and in
def export(namespace: str | None = None, *, recursive: bool = True) -> Flow[bytes]:
    """Every memory, or those of a namespace, as lines of JSON, each with its end; read as it comes.

    Raises ServiceUnavailableError where it does not come to its end: what was read is then not all.
    """
    call: Call[Any] = _call("GET", "/export", _scope(namespace, recursive=recursive), headers={"Accept": LINES})
    return Flow(call=call, content_type=LINES, reader=LineReader)


def import_lines(lines: Lines, *, on_conflict: str | None = None, into: str | None = None) -> Call[shapes.Imported]:
    """Stores memories, sent as they are taken; tells what came of them. `lines`: the records themselves, lines of JSON as texts,
    or bytes: a file, or what `export` gives.

    `on_conflict`: what happens where something else is stored under a key: skip (the default), replace, newer or fail; `into`: a
    namespace below which everything is put. It may be repeated: what is there already stays.

    Raises ConflictError where it is to fail, InvalidInputError, ReadOnlyError, StorageError.
    """
    if isinstance(lines, str | bytes | Mapping):
        raise InvalidInputError("lines", "lines is a list, a file or an iterator of lines")
    call: Call[shapes.Imported] = _call(
        "POST", "/import", {"on_conflict": on_conflict, "into": into}, headers={"Content-Type": LINES}
    )
    return msgspec.structs.replace(call, lines=lines)


# ---- the service
def stats(namespace: str | None = None) -> Call[shapes.Stats]:
    """Totals, of everything or of a namespace and all below it."""
    return _call("GET", "/stats", {"namespace": namespace})


def cleanup(*, wait: float | None = None) -> Call[shapes.Cleanup | shapes.Accepted]:
    """Removes what has expired; `wait` as in `update_where`."""
    return _call("POST", "/cleanup", wait=wait)


def list_jobs(
    *, state: str | None = None, limit: int | None = None, cursor: str | None = None
) -> Listing[shapes.JobPage, shapes.Job]:
    """Jobs, newest first; `state`: running, done, failed, cancelled or interrupted."""
    asked = {"state": state, "limit": limit, "cursor": cursor}
    return _listing("GET", "/jobs", "jobs", asked)


def get_job(job_id: str) -> Call[shapes.Job]:
    """A job as it stands. Raises JobNotFoundError."""
    return _call("GET", f"/jobs/{encode_path(job_id, 'job_id')}")


def cancel_job(job_id: str) -> Call[shapes.Job]:
    """Ends a job after the part that it is at. Raises JobNotFoundError."""
    return _call("DELETE", f"/jobs/{encode_path(job_id, 'job_id')}")


def health() -> Call[shapes.Health]:
    """How the service is; also where it says that it cannot work."""
    return _call("GET", "/health", also=_UNAVAILABLE)


def read_only() -> Call[shapes.Mode]:
    """Whether writes are off, and why."""
    return _call("GET", "/mode")


def set_read_only(*, read_only: bool = True, reason: str | None = None) -> Call[shapes.Mode]:
    """Switches writes off (deletes still work), or on again with read_only=False."""
    return _call("PUT", "/mode", body={"read_only": read_only, **_told(reason=reason)})


def schema() -> Call[dict[str, Any]]:
    """The OpenAPI document of the service."""
    return Call(method="GET", target="/openapi.json", headers={"Accept": JSON}, safe=True)
