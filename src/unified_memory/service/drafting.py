"""From what a caller says to what is stored: the rules for ttl, metadata and values."""

import asyncio
import math
from collections.abc import Mapping
from decimal import Context, Decimal, InvalidOperation
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from unified_memory.model.clock import LAST_INSTANT, SECOND, from_rfc3339
from unified_memory.model.errors import ConflictError, InvalidInputError, MalformedInputError
from unified_memory.model.memory import DEFAULT_IMPORTANCE, SERVICE_FIELDS, Memory, check_key, pack_attributes
from unified_memory.model.namespace import NamespaceConfig, check_namespace
from unified_memory.model.query import parse_field
from unified_memory.model.search import Description, describe
from unified_memory.model.value import check_size, encode, merge_patch, parse
from unified_memory.service.requests import Changes, PatchRequest, StoreRequest, UpdateRequest
from unified_memory.storage.base import Draft

MAX_NAME = 255
# Of a number that is counted up, before and after its point.
MAX_DIGITS = 1000
_EXACT = Context(prec=4 * MAX_DIGITS)
TAG_BYTES = 1024
# Above this many bytes a value is looked through on a thread, so that others are not kept waiting.
ASIDE_BYTES = 65_536

_text = msgspec.json.Decoder(str | None)
_number = msgspec.json.Decoder(int | None)
_tags = msgspec.json.Decoder(list[str] | None)


class Limits(Struct, frozen=True):
    """How large things may be: bytes of a value and of a key, tags of a memory, items of a batch."""

    value_bytes: int = 16 * 1024 * 1024
    key_bytes: int = 4096
    tags: int = 256
    batch: int = 1000
    metadata_bytes: int = 1024 * 1024
    namespaces: int = 1000


class Metadata(Struct):
    """What a caller's metadata says: UNSET where it says nothing, None where it says null."""

    tags: tuple[str, ...] | UnsetType | None = UNSET
    importance: int | UnsetType | None = UNSET
    session_id: str | UnsetType | None = UNSET
    project_id: str | UnsetType | None = UNSET
    extra: dict[str, Raw] = {}


def check_name(text: str, field: str) -> str:
    """A session's, project's or cluster's id: 1 to 255 characters without NUL. Raises InvalidInputError."""
    if not 0 < len(text) <= MAX_NAME or "\0" in text:
        raise InvalidInputError(field, f"{field} must have 1 to {MAX_NAME} characters and no NUL")
    return text


def read_metadata(metadata: Mapping[str, Raw] | None, limits: Limits) -> Metadata:
    """Checks the metadata. Raises InvalidInputError naming the field."""
    if not metadata:
        return Metadata()
    told = Metadata(extra={})
    size = 0
    for name, raw in metadata.items():
        field = f"metadata.{name}"
        try:
            if name == "tags":
                tags = _tags.decode(raw)
                told.tags = None if tags is None else check_tags(tags, field, limits)
            elif name == "importance":
                told.importance = check_importance(_number.decode(raw), field)
            elif name == "session_id":
                session_id = _text.decode(raw)
                told.session_id = None if session_id is None else check_name(session_id, field)
            elif name == "project_id":
                project_id = _text.decode(raw)
                told.project_id = None if project_id is None else check_name(project_id, field)
            elif name in SERVICE_FIELDS:
                raise InvalidInputError(
                    field,
                    f"{field} is written by the service",
                    hint="To set when a memory expires use ttl or expires_at",
                )
            else:
                parse(bytes(raw), field)
                told.extra[name] = raw
                size += len(bytes(raw)) + len(name)
        except msgspec.ValidationError as error:
            raise InvalidInputError(field, f"{field}: {error}") from None
        except (UnicodeDecodeError, msgspec.DecodeError) as error:
            raise MalformedInputError(field, f"{field} is not JSON in UTF-8: {error}") from None
    _check_metadata_size(size, limits)
    return told


def _check_metadata_size(size: int, limits: Limits) -> None:
    if size > limits.metadata_bytes:
        raise InvalidInputError(
            "metadata", f"metadata is larger than {limits.metadata_bytes} bytes", limit=limits.metadata_bytes
        )


def check_tags(tags: list[str], field: str, limits: Limits) -> tuple[str, ...]:
    """The tags without repetition, in order. Raises InvalidInputError."""
    unique = tuple(dict.fromkeys(tags))
    if len(unique) > limits.tags:
        raise InvalidInputError(
            field, f"{field} has {len(unique)} tags; at most {limits.tags} are allowed", limit=limits.tags
        )
    for tag in unique:
        if not tag.strip() or "\0" in tag or (len(tag) * 4 > TAG_BYTES and len(tag.encode()) > TAG_BYTES):
            raise InvalidInputError(
                field, f"{field}: a tag must have 1 to {TAG_BYTES} bytes, not only blanks, and no NUL"
            )
    return unique


def check_importance(importance: int | None, field: str) -> int | None:
    """1 to 10. Raises InvalidInputError."""
    if importance is not None and not 1 <= importance <= 10:  # noqa: PLR2004 - the scale of the record
        raise InvalidInputError(field, f"{field} must be from 1 to 10")
    return importance


def expiry(ttl: float | UnsetType | None, expires_at: str | UnsetType | None, now: int) -> int | UnsetType | None:
    """The instant that is meant; UNSET where nothing was said. Raises InvalidInputError.

    Whether it lies `ahead` is asked later: a repeated request gets its first answer, however late it is repeated.
    """
    if ttl is not UNSET and expires_at is not UNSET:
        raise InvalidInputError("expires_at", "Say ttl or expires_at, not both")
    if isinstance(ttl, int | float):
        if not math.isfinite(ttl) or ttl <= 0:
            raise InvalidInputError(
                "ttl", "ttl must be a number of seconds greater than 0", hint="null for a memory that never expires"
            )
        return _after(ttl, now)
    if isinstance(expires_at, str):
        try:
            return from_rfc3339(expires_at)
        except (ValueError, OverflowError):
            raise InvalidInputError("expires_at", "expires_at must be an RFC 3339 time") from None
    return UNSET if ttl is UNSET and expires_at is UNSET else None


def check_ahead(expires_at: int | UnsetType | None, now: int, field: str = "expires_at") -> None:
    """Raises InvalidInputError where that instant has passed."""
    if isinstance(expires_at, int) and expires_at <= now:
        raise InvalidInputError(field, f"{field} has passed already")


def inherited_expiry(config: NamespaceConfig, now: int) -> int | None:
    """When a memory expires of which nothing was said."""
    ttl = config.default_ttl
    return _after(ttl, now) if isinstance(ttl, int | float) else None


def _after(ttl: float, now: int) -> int:
    """The instant in so many seconds: at least a microsecond from now, no later than the last that can be written."""
    return LAST_INSTANT if ttl * SECOND >= LAST_INSTANT - now else now + max(1, round(ttl * SECOND))


async def look_through(key: str, attributes: bytes, raw: bytes) -> Description:
    """Parses the value and derives what the index needs. Raises InvalidInputError and below."""
    if len(raw) <= ASIDE_BYTES:
        return describe(key, attributes, parse(raw))
    return await asyncio.to_thread(lambda: describe(key, attributes, parse(raw)))


async def draft_again(memory: Memory) -> Draft:
    """What stores the content of a memory once more, byte for byte, with the instant at which it expires."""
    d = await look_through(memory.key, memory.attributes, memory.value)
    return Draft(
        value=memory.value,
        attributes=memory.attributes,
        tags=memory.tags,
        importance=memory.importance,
        session_id=memory.session_id,
        project_id=memory.project_id,
        expires_at=memory.expires_at,
        text=d.text,
        title_text=d.title_text,
        keywords=d.keywords,
        content_hash=d.content_hash,
    )


class Stored(Struct):
    """A store request that was checked, ready for the transaction. `expires_at` UNSET: as the namespace says."""

    namespace: str
    key: str
    draft: Draft
    expires_at: int | UnsetType | None


async def read_store(request: StoreRequest, key: str, limits: Limits, now: int) -> Stored:
    """Checks a store request. Raises InvalidInputError and below."""
    check_namespace(request.namespace)
    check_key(key, limits.key_bytes)
    raw = bytes(request.value)
    check_size(raw, limits.value_bytes)
    expires_at = expiry(request.ttl, request.expires_at, now)
    told = read_metadata(request.metadata, limits)
    tags = told.tags or ()
    attributes = pack_attributes(tags, told.extra)
    d = await look_through(key, attributes, raw)
    draft = Draft(
        value=raw,
        attributes=attributes,
        tags=tags,
        importance=told.importance or DEFAULT_IMPORTANCE,
        session_id=told.session_id or None,
        project_id=told.project_id or None,
        expires_at=None,
        text=d.text,
        title_text=d.title_text,
        keywords=d.keywords,
        content_hash=d.content_hash,
    )
    return Stored(request.namespace, key, draft, expires_at)


class Change(Struct):
    """What is to be changed of a memory. `value` None: stays. `expires_at` UNSET: stays."""

    metadata: Metadata = msgspec.field(default_factory=Metadata)
    value: bytes | None = None
    expires_at: int | UnsetType | None = UNSET
    add_tags: tuple[str, ...] = ()
    remove_tags: tuple[str, ...] = ()


def read_update(request: UpdateRequest, limits: Limits, now: int) -> Change:
    """Checks an update. Raises InvalidInputError and below."""
    value = bytes(request.value) or None
    if value is not None:
        check_size(value, limits.value_bytes)
        parse(value)
    return Change(read_metadata(request.metadata, limits), value, expiry(request.ttl, request.expires_at, now))


def read_changes(changes: Changes, limits: Limits, now: int) -> Change:
    """Checks what `update/where` is to change. Raises InvalidInputError and below."""
    expires_at = expiry(changes.ttl, changes.expires_at, now)
    check_ahead(expires_at, now)
    return Change(
        read_metadata(changes.metadata, limits),
        None,
        expires_at,
        check_tags(changes.add_tags or [], "set.add_tags", limits),
        tuple(changes.remove_tags or ()),
    )


def changed(memory: Memory, change: Change, limits: Limits) -> Draft:
    """The memory with the change carried out. Raises InvalidInputError where the result is not allowed."""
    told = change.metadata
    tags = memory.tags if told.tags is UNSET else told.tags or ()
    if change.add_tags or change.remove_tags:
        gone = set(change.remove_tags)
        tags = check_tags([*(tag for tag in tags if tag not in gone), *change.add_tags], "tags", limits)
    extra = memory.extra
    for name, raw in told.extra.items():
        if bytes(raw).strip() == b"null":
            extra.pop(name, None)
        else:
            extra[name] = raw
    _check_metadata_size(sum(len(bytes(raw)) + len(name) for name, raw in extra.items()), limits)
    attributes = pack_attributes(tags, extra)
    value = memory.value if change.value is None else change.value
    d = describe(memory.key, attributes, parse(value))
    return Draft(
        value=value,
        attributes=attributes,
        tags=tags,
        importance=memory.importance if told.importance is UNSET else told.importance or DEFAULT_IMPORTANCE,
        session_id=memory.session_id if told.session_id is UNSET else told.session_id,
        project_id=memory.project_id if told.project_id is UNSET else told.project_id,
        expires_at=memory.expires_at if change.expires_at is UNSET else change.expires_at,
        text=d.text,
        title_text=d.title_text,
        keywords=d.keywords,
        content_hash=d.content_hash,
    )


Step = str | int


class Patch(Struct):
    """A patch that was checked: the merge (UNSET: none), elements and amounts by path."""

    merge: Any
    append: list[tuple[str, tuple[Step, ...], Any]]
    increment: list[tuple[str, tuple[Step, ...], Decimal]]


def read_patch(request: PatchRequest) -> Patch:
    """Checks a patch. Raises InvalidInputError and below."""
    merge = parse(bytes(request.merge), "merge") if bytes(request.merge) else UNSET
    append = [
        (path, _path(path, "append"), parse(bytes(raw), f"append.{path}"))
        for path, raw in (request.append or {}).items()
    ]
    increment = []
    for path, raw in (request.increment or {}).items():
        try:
            amount = Decimal(bytes(raw).decode().strip())
        except (InvalidOperation, UnicodeDecodeError):
            raise InvalidInputError(f"increment.{path}", f"increment.{path} must be a number") from None
        if not _countable(amount):
            raise InvalidInputError(f"increment.{path}", f"increment.{path} has more than {MAX_DIGITS} digits")
        increment.append((path, _path(path, "increment"), amount))
    if merge is UNSET and not append and not increment:
        raise InvalidInputError("merge", "The patch says nothing", hint="merge, append or increment")
    return Patch(merge, append, increment)


def _path(path: str, field: str) -> tuple[Step, ...]:
    if not path:
        return ()
    try:
        return parse_field(f"value{path}" if path.startswith("[") else f"value.{path}").path
    except InvalidInputError as error:
        raise InvalidInputError(f"{field}.{path}", error.detail, hint=error.hint) from None


def patched(memory: Memory, patch: Patch, limits: Limits) -> bytes:
    """The memory's value after the patch. Raises ConflictError where it does not fit what is stored."""
    value = memory.parsed()
    if patch.merge is not UNSET:
        value = merge_patch(value, patch.merge)
    for name, path, element in patch.append:
        value = _at(value, path, name, lambda held, name=name, element=element: _appended(held, name, element))
    for name, path, amount in patch.increment:
        value = _at(value, path, name, lambda held, name=name, amount=amount: _incremented(held, name, amount))
    raw = encode(value)
    check_size(raw, limits.value_bytes)
    return raw


def _at(value: Any, path: tuple[Step, ...], name: str, change: Any) -> Any:
    """The value with what is at the path replaced by what `change` makes of it (UNSET: it was missing)."""
    if not path:
        return change(value)
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        if not isinstance(value, list) or step >= len(value):
            raise ConflictError(f"There is no element [{step}] on the way to {name!r}", path=name)
        return [_at(part, rest, name, change) if i == step else part for i, part in enumerate(value)]
    if value is UNSET:
        value = {}
    if not isinstance(value, dict):
        raise ConflictError(f"There is no object on the way to {name!r}", path=name)
    return {**value, step: _at(value.get(step, UNSET), rest, name, change)}


def _appended(held: Any, name: str, element: Any) -> list[Any]:
    if held is UNSET:
        return [element]
    if not isinstance(held, list):
        raise ConflictError(f"What is at {name!r} is no list", path=name)
    return [*held, element]


def _incremented(held: Any, name: str, amount: Decimal) -> Raw:
    if held is UNSET:
        held = 0
    if isinstance(held, bool) or not isinstance(held, int | Raw):
        raise ConflictError(f"What is at {name!r} is no number", path=name)
    try:
        number = Decimal(bytes(held).decode() if isinstance(held, Raw) else held)
    except InvalidOperation:
        number = Decimal("Infinity")
    if not _countable(number):
        raise ConflictError(f"What is at {name!r} has more than {MAX_DIGITS} digits", path=name)
    # Decimal arithmetic: 0.1 + 0.2 is 0.3, and integers of any size stay whole.
    return Raw(f"{_EXACT.add(number, amount):f}".encode())


def _countable(number: Decimal) -> bool:
    """Whether it can be written without an exponent in a reasonable number of digits."""
    _, digits, exponent = number.as_tuple()
    return isinstance(exponent, int) and abs(exponent) <= MAX_DIGITS and len(digits) <= MAX_DIGITS
