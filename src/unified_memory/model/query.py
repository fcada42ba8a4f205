"""The query language: one filter grammar, what it means, and where a listing stands.

    filter  := {"and": [filter, …]} | {"or": [filter, …]} | {"not": filter} | {field: {op: operand, …}, …}
    field   := id key namespace version tier content_hash · importance session_id project_id tags created_at
               updated_at expires_at access_count last_accessed (each also as metadata.NAME) ·
               value · value.PATH · metadata.PATH       PATH := name | "quoted name" | [index], joined by dots
    op      := eq ne gt gte lt lte in nin contains startswith between exists

Several fields or operators beside each other must all hold. A field shorthand `{field: scalar}` means eq.

What an operator means, wherever it is evaluated: values are compared only with values of the same JSON type (numbers
by amount, texts by code point, booleans and null only by eq, ne, in, nin); anything else does not match. `ne` and
`nin` are the negations of `eq` and `in`, so they match where the field is missing. `eq null` matches a missing field.
`contains` asks an array for an element or a text for a part; `startswith` a text; `exists` whether the field is
there (a JSON null is there; a null time or session is not). `between` includes both ends.
"""

import base64
import binascii
import hashlib
import math
import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct

from unified_memory.model.clock import from_rfc3339
from unified_memory.model.errors import InvalidCursorError, InvalidInputError
from unified_memory.model.memory import Memory
from unified_memory.model.value import content_hash, parse

MAX_LIMIT = 1000
DEFAULT_LIMIT = 50
MAX_FILTER_NODES = 500
MAX_FILTER_DEPTH = 32
MAX_LIST = 1000
_LAST_INTEGER = 2**63 - 1
_INTEGER_DIGITS = 20

Scalar = str | int | float | bool | None
T = TypeVar("T")


class Kind(StrEnum):
    """What a field holds."""

    INTEGER = "integer"
    TEXT = "text"
    INSTANT = "instant"
    HASH = "hash"
    TAGS = "tags"
    # Any JSON, found by a path into the value or into the caller's own metadata.
    VALUE = "value"
    EXTRA = "extra"


class Op(StrEnum):
    """The operators; the module says what each means."""

    EQ = "eq"
    NE = "ne"
    GT = "gt"
    GTE = "gte"
    LT = "lt"
    LTE = "lte"
    IN = "in"
    NIN = "nin"
    CONTAINS = "contains"
    STARTSWITH = "startswith"
    BETWEEN = "between"
    EXISTS = "exists"


class Field(Struct, frozen=True):
    """A part of the record. `path`: member names and, as integers, array places; empty where the kind has none."""

    name: str
    kind: Kind
    path: tuple[str | int, ...] = ()
    nullable: bool = False


class Comparison(Struct, frozen=True):
    """One comparison. Operands of instants are microseconds, of hashes 32 bytes."""

    field: Field
    op: Op
    operand: Any


class And(Struct, frozen=True):
    """All of the parts hold."""

    parts: tuple["Filter", ...]


class Or(Struct, frozen=True):
    """At least one of the parts holds."""

    parts: tuple["Filter", ...]


class Not(Struct, frozen=True):
    """The part does not hold."""

    part: "Filter"


Filter = And | Or | Not | Comparison

_COLUMNS: Mapping[str, tuple[Kind, bool]] = {
    "id": (Kind.INTEGER, False),
    "key": (Kind.TEXT, False),
    "namespace": (Kind.TEXT, False),
    "version": (Kind.INTEGER, False),
    "tier": (Kind.TEXT, False),
    "content_hash": (Kind.HASH, False),
    "importance": (Kind.INTEGER, False),
    "session_id": (Kind.TEXT, True),
    "project_id": (Kind.TEXT, True),
    "created_at": (Kind.INSTANT, False),
    "updated_at": (Kind.INSTANT, False),
    "expires_at": (Kind.INSTANT, True),
    "access_count": (Kind.INTEGER, False),
    "last_accessed": (Kind.INSTANT, True),
}
_NOT_METADATA = {"id", "key", "namespace", "version", "tier", "content_hash"}
_PATH_PART = re.compile(r'\.?(?:"([^"]+)"|\[(\d{1,9})\]|([^."\[\]]+))')


def parse_field(name: str) -> Field:
    """The field of that name. Raises InvalidInputError."""
    if name in _COLUMNS:
        kind, nullable = _COLUMNS[name]
        return Field(name, kind, nullable=nullable)
    if name == "tags":
        return Field("tags", Kind.TAGS)
    root, dot, rest = name.partition(".")
    if root == "metadata" and dot:
        if rest == "tags" or (rest in _COLUMNS and rest not in _NOT_METADATA):
            return parse_field(rest)
        return Field(name, Kind.EXTRA, _parse_path(rest, name))
    if name == "value":
        return Field(name, Kind.VALUE)
    if root == "value" or name.startswith("value["):
        return Field(name, Kind.VALUE, _parse_path(name[len("value") :].removeprefix("."), name))
    raise InvalidInputError(
        name,
        f"There is no field {name!r}",
        hint="Fields of the record by name; inside a value as value.a.b, of metadata as metadata.a",
    )


def _parse_path(text: str, name: str) -> tuple[str | int, ...]:
    path: list[str | int] = []
    at = 0
    while at < len(text):
        part = _PATH_PART.match(text, at)
        # A dot stands between two names, and nowhere else.
        if part is None or (text[at] == ".") != (bool(path) and part[2] is None):
            raise InvalidInputError(name, f"{name!r} is no path", hint='value.a.b, value.a[0], value."a name"')
        quoted, index, plain = part.groups()
        path.append(int(index) if index is not None else quoted or plain)
        at = part.end()
    if not path or len(path) > MAX_FILTER_DEPTH or any(isinstance(p, str) and ("\\" in p or "\0" in p) for p in path):
        raise InvalidInputError(name, f"{name!r} is no path that can be followed")
    return tuple(path)


def parse_filter(source: Any, field: str = "filter") -> Filter:
    """The filter that parsed JSON means. Raises InvalidInputError naming the part that is wrong."""
    return _Parser(field).filter(source, field, 0)


class _Parser:
    def __init__(self, field: str) -> None:
        self.nodes = 0
        self.field = field

    def filter(self, source: Any, at: str, depth: int) -> Filter:
        self.nodes += 1
        if self.nodes > MAX_FILTER_NODES or depth > MAX_FILTER_DEPTH:
            raise InvalidInputError(
                self.field,
                f"The filter has more than {MAX_FILTER_NODES} parts or is nested deeper than {MAX_FILTER_DEPTH}",
            )
        if not isinstance(source, dict) or not source:
            raise InvalidInputError(at, f"{at} must be an object with at least one member")
        parts = [self._member(name, operand, f"{at}.{name}", depth) for name, operand in source.items()]
        return parts[0] if len(parts) == 1 else And(tuple(parts))

    def _member(self, name: str, operand: Any, at: str, depth: int) -> Filter:
        if name in {"and", "or"}:
            if not isinstance(operand, list) or not operand:
                raise InvalidInputError(at, f"{at} must be a list of filters, not empty")
            parts = tuple(self.filter(part, f"{at}[{i}]", depth + 1) for i, part in enumerate(operand))
            return And(parts) if name == "and" else Or(parts)
        if name == "not":
            return Not(self.filter(operand, at, depth + 1))
        try:
            field = parse_field(name)
        except InvalidInputError as error:
            raise InvalidInputError(at, error.detail, hint=error.hint) from None
        if not isinstance(operand, dict):
            operand = {"eq": operand}
        if not operand:
            raise InvalidInputError(at, f"{at} must name an operator")
        tests = tuple(self._test(field, op, value, f"{at}.{op}") for op, value in operand.items())
        return tests[0] if len(tests) == 1 else And(tests)

    def _test(self, field: Field, name: str, operand: Any, at: str) -> Comparison:
        # A deep path is cheap to send and dear to follow.
        self.nodes += 1 + len(field.path)
        if self.nodes > MAX_FILTER_NODES:
            raise InvalidInputError(self.field, f"The filter has more than {MAX_FILTER_NODES} parts")
        try:
            op = Op(name)
        except ValueError:
            raise InvalidInputError(at, f"There is no operator {name!r}", hint="One of " + ", ".join(Op)) from None
        if op is Op.EXISTS:
            if not isinstance(operand, bool):
                raise InvalidInputError(at, f"{at} must be true or false")
            return Comparison(field, op, operand)
        if op in {Op.IN, Op.NIN}:
            if not isinstance(operand, list) or len(operand) > MAX_LIST:
                raise InvalidInputError(at, f"{at} must be a list of at most {MAX_LIST} scalars")
            return Comparison(field, op, tuple(self._scalar(field, op, part, at) for part in operand))
        if op is Op.BETWEEN:
            if not isinstance(operand, list) or len(operand) != 2:  # noqa: PLR2004 - a pair
                raise InvalidInputError(at, f"{at} must be a list of two scalars")
            return Comparison(field, op, tuple(self._scalar(field, op, part, at) for part in operand))
        return Comparison(field, op, self._scalar(field, op, operand, at))

    def _scalar(self, field: Field, op: Op, operand: Any, at: str) -> Any:
        if isinstance(operand, Raw):
            operand = float(bytes(operand))
        if isinstance(operand, int) and not isinstance(operand, bool) and abs(operand) > _LAST_INTEGER:
            operand = float(str(operand))
        if not isinstance(operand, str | int | float | bool | None):
            raise InvalidInputError(at, f"{at} must be a scalar")
        if op not in {Op.EQ, Op.NE, Op.IN, Op.NIN, Op.CONTAINS} and isinstance(operand, bool | None):
            raise InvalidInputError(at, f"{at} compares texts or numbers")
        if op is Op.STARTSWITH and not isinstance(operand, str):
            raise InvalidInputError(at, f"{at} must be a text")
        if operand is None and field.kind is not Kind.TAGS and op in {Op.EQ, Op.NE, Op.IN, Op.NIN}:
            return None
        return _CONVERT[field.kind](operand, op, at)


def _any_scalar(operand: Any, _op: Op, _at: str) -> Any:
    return operand


def _number(operand: Any, op: Op, at: str) -> Any:
    if isinstance(operand, bool) or not isinstance(operand, int | float) or op in {Op.CONTAINS, Op.STARTSWITH}:
        raise InvalidInputError(at, f"{at}: the field is a number")
    return operand


def _text(operand: Any, _op: Op, at: str) -> Any:
    if not isinstance(operand, str):
        raise InvalidInputError(at, f"{at}: the field is a text")
    return operand


def _instant(operand: Any, op: Op, at: str) -> Any:
    if not isinstance(operand, str) or op in {Op.CONTAINS, Op.STARTSWITH}:
        raise InvalidInputError(at, f"{at} must be an RFC 3339 time")
    try:
        return from_rfc3339(operand)
    except (ValueError, OverflowError):
        raise InvalidInputError(at, f"{at} must be an RFC 3339 time") from None


def _hash(operand: Any, op: Op, at: str) -> Any:
    if not isinstance(operand, str) or op not in {Op.EQ, Op.NE, Op.IN, Op.NIN}:
        raise InvalidInputError(at, f"{at}: a content hash can be compared by eq, ne, in and nin")
    try:
        digest = bytes.fromhex(operand)
    except ValueError:
        digest = b""
    if len(digest) != hashlib.sha256().digest_size:
        raise InvalidInputError(at, f"{at} must be 64 hexadecimal digits")
    return digest


def _tag(operand: Any, op: Op, at: str) -> Any:
    if not isinstance(operand, str) or op is not Op.CONTAINS:
        raise InvalidInputError(at, f"{at}: tags take contains (a text) and exists")
    return operand


_CONVERT: Mapping[Kind, Callable[[Any, Op, str], Any]] = {
    Kind.INTEGER: _number,
    Kind.TEXT: _text,
    Kind.INSTANT: _instant,
    Kind.HASH: _hash,
    Kind.TAGS: _tag,
    Kind.VALUE: _any_scalar,
    Kind.EXTRA: _any_scalar,
}

MISSING = object()


def resolve(field: Field, memory: Memory) -> Any:
    """What the field holds in that memory: numbers as int or float, MISSING where it is not there."""
    match field.kind:
        case Kind.VALUE:
            return _walk(memory.parsed(), field.path)
        case Kind.EXTRA:
            first = field.path[0]
            raw = memory.extra.get(first) if isinstance(first, str) else None
            return MISSING if raw is None else _walk(parse(bytes(raw)), field.path[1:])
        case Kind.TAGS:
            return list(memory.tags)
        case Kind.HASH:
            return content_hash(memory.parsed())
        case _:
            held = getattr(memory, field.name)
            return MISSING if held is None else held


def _walk(parsed: Any, path: tuple[str | int, ...]) -> Any:
    for part in path:
        if isinstance(part, int):
            if not isinstance(parsed, list) or part >= len(parsed):
                return MISSING
            parsed = parsed[part]
        else:
            if not isinstance(parsed, dict) or part not in parsed:
                return MISSING
            parsed = parsed[part]
    return comparable(parsed)


def comparable(parsed: Any) -> Any:
    """A parsed scalar as it is compared: numbers as int within 64 bits, else as float; others as they are."""
    if isinstance(parsed, Raw):
        text = bytes(parsed).decode()
        return comparable(int(text)) if text.lstrip("-").isdigit() and len(text) <= _INTEGER_DIGITS else float(text)
    if isinstance(parsed, int) and not isinstance(parsed, bool) and not -_LAST_INTEGER - 1 <= parsed <= _LAST_INTEGER:
        # By way of its text: a number beyond the largest float is infinite rather than an error.
        return float(str(parsed))
    return parsed


def _same_type(held: Any, operand: Any) -> bool:
    if isinstance(held, bool) or isinstance(operand, bool):
        return isinstance(held, bool) and isinstance(operand, bool)
    if isinstance(held, int | float):
        return isinstance(operand, int | float)
    return type(held) is type(operand)


def _equal(held: Any, operand: Any) -> bool:
    if operand is None:
        return held is MISSING or held is None
    return _same_type(held, operand) and bool(held == operand)


def _ordered(held: Any, operand: Any, op: Op) -> bool:
    if isinstance(held, bool) or not isinstance(held, int | float | str) or not _same_type(held, operand):
        return False
    match op:
        case Op.GT:
            return bool(held > operand)
        case Op.GTE:
            return bool(held >= operand)
        case Op.LT:
            return bool(held < operand)
        case _:
            return bool(held <= operand)


def _holds(test: Comparison, held: Any) -> bool:
    match test.op:
        case Op.EQ:
            return _equal(held, test.operand)
        case Op.NE:
            return not _equal(held, test.operand)
        case Op.IN:
            return any(_equal(held, one) for one in test.operand)
        case Op.NIN:
            return not any(_equal(held, one) for one in test.operand)
        case Op.EXISTS:
            there = held is not MISSING and not (test.field.kind is Kind.TAGS and not held)
            return there is test.operand
        case Op.BETWEEN:
            return _ordered(held, test.operand[0], Op.GTE) and _ordered(held, test.operand[1], Op.LTE)
        case Op.CONTAINS:
            if isinstance(held, list):
                return any(_element_equal(comparable(one), test.operand) for one in held)
            return isinstance(held, str) and isinstance(test.operand, str) and test.operand in held
        case Op.STARTSWITH:
            return isinstance(held, str) and held.startswith(test.operand)
        case _:
            return _ordered(held, test.operand, test.op)


def _element_equal(held: Any, operand: Any) -> bool:
    return held is None if operand is None else _same_type(held, operand) and bool(held == operand)


def matches(condition: Filter, memory: Memory) -> bool:
    """Whether the memory meets the filter: the reference that every backend's compiler is tested against."""
    match condition:
        case And(parts):
            return all(matches(part, memory) for part in parts)
        case Or(parts):
            return any(matches(part, memory) for part in parts)
        case Not(part):
            return not matches(part, memory)
        case Comparison():
            return _holds(condition, resolve(condition.field, memory))


def every(*conditions: Filter | None) -> Filter | None:
    """All of the conditions that are given, as one."""
    parts = tuple(c for c in conditions if c is not None)
    return None if not parts else parts[0] if len(parts) == 1 else And(parts)


class Order(Struct, frozen=True):
    """The order of a listing: by a field, then by id in the same direction. What has no such field comes last."""

    field: Field
    descending: bool = False


BY_ID = Order(Field("id", Kind.INTEGER))


def parse_order(text: str) -> Order:
    """`importance` or `-importance`. Raises InvalidInputError naming `order_by`."""
    try:
        field = parse_field(text.removeprefix("-"))
    except InvalidInputError as error:
        raise InvalidInputError("order_by", error.detail, hint=error.hint) from None
    if field.kind in {Kind.TAGS, Kind.HASH}:
        raise InvalidInputError("order_by", f"{field.name} has no order")
    return Order(field, text.startswith("-"))


def order_value(order: Order, memory: Memory) -> Scalar:
    """What a memory is ordered by: numbers (false and true as 0 and 1) before texts; None for anything else."""
    held = resolve(order.field, memory)
    if isinstance(held, bool):
        return int(held)
    return held if isinstance(held, int | float | str) else None


class Selection(Struct, frozen=True):
    """Which memories: in these subtrees (of these namespaces alone where not `recursive`), meeting the filter.

    `after`: the last one already shown, as (order value, id). `limit`: how many at most; None: all.
    """

    scopes: tuple[str, ...] = ("",)
    recursive: bool = True
    where: Filter | None = None
    order: Order = BY_ID
    limit: int | None = DEFAULT_LIMIT
    after: tuple[Scalar, int] | None = None


class Page(Struct, Generic[T]):
    """A part of a listing; `next` is what `after` must be for the next part, None where this is the last."""

    items: list[T]
    next: tuple[Scalar, int] | None = None


_packer = msgspec.msgpack.Encoder()
_unpacker = msgspec.msgpack.Decoder(tuple[bytes, str | int | float | None, int])
_CHECK_BYTES = 6


def _check(*listing: object) -> bytes:
    return hashlib.blake2b(repr(listing).encode(), digest_size=_CHECK_BYTES).digest()


def encode_cursor(after: tuple[Scalar, int] | None, *listing: object) -> str | None:
    """An opaque text for `Page.next`, bound to what the listing asked for."""
    if after is None:
        return None
    return base64.urlsafe_b64encode(_packer.encode((_check(*listing), *after))).decode().rstrip("=")


def decode_cursor(cursor: str | None, *listing: object) -> tuple[Scalar, int] | None:
    """What `encode_cursor` was given. Raises InvalidCursorError where the text is none of this listing's."""
    if not cursor:
        return None
    try:
        check, value, number = _unpacker.decode(
            base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        )
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        raise InvalidCursorError from None
    if check != _check(*listing) or not _bindable(value) or not _bindable(number):
        raise InvalidCursorError
    return value, number


def _bindable(value: Scalar) -> bool:
    """Whether it can be one of our own order values: no NaN, no integer beyond 64 bits."""
    return not isinstance(value, int | float) or (
        not math.isnan(value) if isinstance(value, float) else -_LAST_INTEGER - 1 <= value <= _LAST_INTEGER
    )
