"""The compiler of the query language (`model.query`) into SQL; its one meaning is `model.query.matches`.

The SQL is written for `memories AS m JOIN namespaces AS n ON n.id = m.namespace_id`. Every value and every
name inside a path is bound; the text is made of this module's own words, its columns come from a fixed table.

A row of a deleted namespace (`n.name` NULL) must be kept out by `select_scope`; for all others a condition is
0 or 1, never NULL, so that NOT negates it.

JSON is walked name by name rather than by one JSON path: of a repeated name the last counts, where SQLite's
paths take the first. SQLite reads 19 digits of a number; one spelled with more may be one unit in the last
place off the float that Python reads. Integers of 64 bits and the shortest spelling of any float are exact.
"""
# ruff: noqa: S608 - built SQL is this module's purpose; all that enters its text is in the module itself

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from unified_memory.model.query import And, Comparison, Field, Filter, Kind, Not, Op, Or, Order, Scalar
from unified_memory.storage.sqlite.rows import TIER, VALUE

Binding = str | int | float | bytes | None
Sql = tuple[str, list[Binding]]

_COLUMNS: Mapping[str, str] = {
    "id": "m.id",
    "key": "m.key",
    "namespace": "n.name",
    "version": "m.version",
    "tier": TIER,
    "importance": "m.importance",
    "session_id": "m.session_id",
    "project_id": "m.project_id",
    "created_at": "m.created_at",
    "updated_at": "m.updated_at",
    "expires_at": "m.expires_at",
    "access_count": "m.access_count",
    "last_accessed": "m.last_accessed",
}
# Not EXISTS, which would read the whole scope for a rare tag.
_HAS_TAG = (
    "m.id IN (SELECT mt.memory_id FROM memory_tags AS mt"
    " WHERE mt.tag_id = (SELECT t.id FROM tags AS t WHERE t.name = ?))"
)
_HAS_TAGS = "coalesce(json_array_length(m.metadata, '$.tags'), 0) > 0"
_HAS_HASH = (
    "m.id IN (SELECT s.memory_id FROM search_index AS s"
    " WHERE substr(s.content_hash, 1, 8) IN (SELECT substr(unhex(value), 1, 8) FROM json_each(?))"
    " AND s.content_hash IN (SELECT unhex(value) FROM json_each(?)))"
)
_HASH = "(SELECT lower(hex(s.content_hash)) FROM search_index AS s WHERE s.memory_id = m.id)"
_FIRST_SURROGATE, _AFTER_SURROGATES = 0xD800, 0xE000
_SIGNS: Mapping[Op, str] = {Op.GT: ">", Op.GTE: ">=", Op.LT: "<", Op.LTE: "<="}


def condition(where: Filter) -> Sql:
    """The filter as an expression that is 0 or 1, and what is bound in it, in order."""
    match where:
        case And(parts):
            return _join("AND", [condition(part) for part in parts])
        case Or(parts):
            return _join("OR", [condition(part) for part in parts])
        case Not(part):
            return _negated(condition(part))
        case Comparison(field, op, operand):
            return _test(field, op, operand)


def _join(word: str, parts: Sequence[Sql]) -> Sql:
    # Halved, so that a thousand parts are ten levels deep: SQLite takes a thousand levels at most.
    if len(parts) == 1:
        return parts[0]
    half = len(parts) // 2
    (left, first), (right, second) = _join(word, parts[:half]), _join(word, parts[half:])
    return f"({left} {word} {right})", first + second


def _negated(sql: Sql) -> Sql:
    text, bindings = sql
    return f"(NOT {text})", bindings


def _list(values: Iterable[Any]) -> str:
    # One binding however long the list is. Infinity is not JSON, but SQLite reads what Python writes for it.
    return json.dumps(list(values))


def _test(field: Field, op: Op, operand: Any) -> Sql:
    if op is Op.NE:
        return _negated(_test(field, Op.EQ, operand))
    if op is Op.NIN:
        return _negated(_test(field, Op.IN, operand))
    match field.kind:
        case Kind.VALUE | Kind.EXTRA:
            text, bindings = _operator(_Json("j"), op, operand)
            source, walked = _walk(field)
            return f"(SELECT {text} FROM {source} AS j)", bindings + walked
        case Kind.TAGS:
            return _test_tags(op, operand)
        case Kind.HASH:
            return _test_hash(op, operand)
        case _:
            return _operator(_Column(_COLUMNS[field.name], field.nullable), op, operand)


def _test_tags(op: Op, operand: Any) -> Sql:
    match op:
        case Op.CONTAINS:
            return _HAS_TAG, [operand]
        case Op.EXISTS:
            return (_HAS_TAGS if operand else f"(NOT {_HAS_TAGS})"), []
        case _:  # eq and in, which take nothing but null, and tags are never null
            return "0", []


def _test_hash(op: Op, operand: Any) -> Sql:
    if op is Op.EXISTS:
        return ("1" if operand else "0"), []
    digests = _list(one.hex() for one in (operand if op is Op.IN else [operand]) if one is not None)
    return _HAS_HASH, [digests, digests]


class _Column(Struct, frozen=True):
    """How SQL asks what a column holds."""

    value: str
    nullable: bool

    @property
    def null(self) -> str:
        """Whether it is null or missing."""
        return f"({self.value} IS NULL)" if self.nullable else "0"

    @property
    def there(self) -> str:
        """Whether it is there."""
        return f"({self.value} IS NOT NULL)" if self.nullable else "1"

    def comparable(self, _operand: Any) -> str:
        """What must be true besides (with an AND), so that `value` is of the operand's type and not NULL."""
        return f"{self.value} IS NOT NULL AND " if self.nullable else ""

    def has_element(self, _operand: Any) -> Sql | None:
        """Whether it is an array that holds the operand; None where it can be no array."""
        return None


class _Json(Struct, frozen=True):
    """As _Column, of a row with `type`, `atom` and `value` as json_each() has them, or the type `missing`."""

    row: str

    @property
    def value(self) -> str:
        return f"{self.row}.atom"

    @property
    def null(self) -> str:
        return f"({self.row}.type IN ('missing', 'null'))"

    @property
    def there(self) -> str:
        return f"({self.row}.type <> 'missing')"

    def comparable(self, operand: Any) -> str:
        match operand:
            case bool():
                types = "('true')" if operand else "('false')"
            case int() | float():
                types = "('integer', 'real')"
            case _:
                types = "('text')"
        return f"{self.row}.type IN {types} AND "

    def has_element(self, operand: Any) -> Sql | None:
        equal, bindings = _operator(_Json("e"), Op.EQ, operand)
        array = self.inside("'array'")
        return f"EXISTS (SELECT 1 FROM jsonb_each({array}) AS e WHERE {equal})", bindings

    def inside(self, types: str) -> str:
        """The JSON where it is of these types, else NULL: json_each() fails on a text that is no JSON."""
        return f"CASE WHEN {self.row}.type IN ({types}) THEN {self.row}.value END"


def _operator(held: _Column | _Json, op: Op, operand: Any) -> Sql:
    """What the operator means, for whatever is held. NE and NIN are negated before."""

    def compared(how: str, one: Any, *bindings: Binding) -> Sql:
        return f"({held.comparable(one)}{held.value} {how})", list(bindings)

    match op:
        case Op.EXISTS:
            return (held.there if operand else f"(NOT {held.there})"), []
        case Op.EQ:
            return (held.null, []) if operand is None else compared("= ?", operand, operand)
        case Op.IN:
            parts: list[Sql] = [(held.null, [])] if None in operand else []
            by_type: dict[str, list[Any]] = {}
            for one in operand:
                if one is not None:
                    by_type.setdefault(held.comparable(one), []).append(one)
            among = "IN (SELECT value FROM json_each(?))"
            parts += [compared(among, ones[0], _list(ones)) for ones in by_type.values()]
            return _join("OR", parts) if parts else ("0", [])
        case Op.BETWEEN:
            low, high = operand
            return _join("AND", [_operator(held, Op.GTE, low), _operator(held, Op.LTE, high)])
        case Op.STARTSWITH:
            # A range, which an index serves and which NUL does not end as it ends LIKE's pattern.
            above = _above(operand)
            if above is None:
                return compared(">= ?", operand, operand)
            return compared(f">= ? AND {held.value} < ?", operand, operand, above)
        case Op.CONTAINS:
            element = held.has_element(operand)
            parts = [] if element is None else [element]
            if isinstance(operand, str):
                parts += [(f"({held.comparable(operand)}instr({held.value}, ?) > 0)", [operand])]
            return _join("OR", parts)
        case _:
            return compared(f"{_SIGNS[op]} ?", operand, operand)


def _above(prefix: str) -> str | None:
    """The least text above all that begin with `prefix`, None where there is none."""
    stem = prefix.rstrip("\U0010ffff")
    if not stem:
        return None
    following = ord(stem[-1]) + 1
    return stem[:-1] + chr(_AFTER_SURROGATES if following == _FIRST_SURROGATE else following)


def _walk(field: Field) -> Sql:
    """A sub-query of one row: what lies at the field's path, as `_Json` reads it."""
    if not field.path:
        return f"(SELECT type, atom, value FROM jsonb_tree({VALUE}) LIMIT 1)", []
    source = VALUE if field.kind is Kind.VALUE else "m.metadata"
    if field.kind is Kind.EXTRA and field.path[0] == "tags":
        source = "NULL"  # the tags are not among the caller's own fields
    inside = _Json("p").inside("'object', 'array'")
    step, tables = "", f"jsonb_each({source}) AS s"
    for _ in field.path:
        # max() always makes a row; the columns beside it are of the row that has it: the last of that name.
        step = (
            "(SELECT max(s.id), coalesce(s.type, 'missing') AS type, s.atom AS atom, s.value AS value"
            f" FROM {tables} WHERE s.key = ?)"
        )
        tables = f"{step} AS p, jsonb_each({inside}) AS s"
    return step, list(field.path)


class OrderSQL(Struct, frozen=True):
    """How a listing is ordered: `SELECT …, {expression} FROM … WHERE … ORDER BY {order_by}`.

    `expression`: what `model.query.order_value` says of each memory, named `order_value`, and what is `bound`
    in it; NULL only where `nullable`. In `order_by` nothing is bound. `value`: the expression, not named.
    """

    expression: str
    bound: list[Binding]
    nullable: bool
    order_by: str
    value: str
    descending: bool

    def after(self, last: tuple[Scalar, int]) -> Sql:
        """The condition (0 or 1) for what comes after the memory with that order value and that id."""
        value, number = last
        sign = "<" if self.descending else ">"
        if self.value == "m.id":
            return f"(m.id {sign} ?)", [number]
        if value is None:
            return f"({self.value} IS NULL AND m.id {sign} ?)", [*self.bound, number]
        beyond = f"(({self.value}, m.id) {sign} (?, ?))"
        return f"coalesce({beyond}, 1)" if self.nullable else beyond, [*self.bound, value, number]


def order_terms(order: Order) -> OrderSQL:
    """The order as SQL: what has no value comes last either way, equals by id in the order's direction."""
    field, way = order.field, " DESC" if order.descending else ""
    if field.kind in {Kind.VALUE, Kind.EXTRA}:
        source, bound = _walk(field)
        value, nullable, by = f"(SELECT j.atom FROM {source} AS j)", True, "order_value"
    else:
        value, nullable, bound = _COLUMNS[field.name], field.nullable, []
        by = value
    terms = f"{by}{way}" + (" NULLS LAST" if nullable else "") + ("" if value == "m.id" else f", m.id{way}")
    return OrderSQL(f"{value} AS order_value", bound, nullable, terms, value, order.descending)


class GroupSQL(Struct, frozen=True):
    """How memories are grouped: `SELECT {expression}, count(*) FROM … {join} WHERE … GROUP BY 1, 2`.

    `expression`: two columns (whether it is a boolean, the value) and what is `bound` in them. `join`: what
    must follow the tables, or empty.
    """

    expression: str
    bound: list[Binding]
    join: str = ""

    @staticmethod
    def value(is_boolean: Any, held: Any) -> Any:
        """What the two selected columns stand for: SQLite knows true and false as 1 and 0 only."""
        return bool(held) if is_boolean else held


def group_expression(field: Field) -> GroupSQL:
    """The field as something to group by: scalars as they are, a hash in hexadecimal, each tag by itself.

    Everything else is NULL.
    """
    match field.kind:
        case Kind.VALUE | Kind.EXTRA:
            source, bound = _walk(field)
            is_boolean = f"(SELECT j.type IN ('true', 'false') FROM {source} AS j)"
            return GroupSQL(f"{is_boolean}, (SELECT j.atom FROM {source} AS j)", [*bound, *bound])
        case Kind.TAGS:
            return GroupSQL("0, g.value", [], join="LEFT JOIN json_each(m.metadata, '$.tags') AS g")
        case Kind.HASH:
            return GroupSQL(f"0, {_HASH}", [])
        case _:
            return GroupSQL(f"0, {_COLUMNS[field.name]}", [])


def select_scope(scopes: Iterable[str], *, recursive: bool = True, column: str = "n.name") -> Sql:
    """The condition that a name is one of these or, where `recursive`, lies below one; `""` is everything.

    A deleted namespace, which has no name, meets none of them. `column`: where the name stands, as SQL.
    """
    names = list(dict.fromkeys(scopes))
    if not names:
        return "0", []
    if "" in names:
        return f"({column} IS NOT NULL)", []
    if not recursive:
        return _join("OR", [(f"({column} = ?)", [name]) for name in names])
    # "0" is the character after "/".
    subtree = f"({column} = ? OR ({column} > ? AND {column} < ?))"
    return _join("OR", [(subtree, [name, f"{name}/", f"{name}0"]) for name in names])
