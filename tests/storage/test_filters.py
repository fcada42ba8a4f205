"""The SQLite filter compiler against the reference: `matches`, `order_value`, `namespace.contains`."""
# ruff: noqa: S608 - the compiler's text is what is tested

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import reduce
from typing import Any, cast

import apsw
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from unified_memory.model.errors import InvalidInputError
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import contains
from unified_memory.model.query import (
    MAX_FILTER_DEPTH,
    MAX_LIST,
    MISSING,
    Field,
    Filter,
    Kind,
    Op,
    Order,
    Scalar,
    matches,
    order_value,
    parse_field,
    parse_filter,
    parse_order,
    resolve,
)
from unified_memory.model.value import content_hash, parse
from unified_memory.storage.sqlite.cold import Cold
from unified_memory.storage.sqlite.connection import Database
from unified_memory.storage.sqlite.filters import Sql, condition, group_expression, order_terms, select_scope
from unified_memory.storage.sqlite.schema import STEPS

EXAMPLES = settings(max_examples=max(300, settings().max_examples), deadline=None)
FROM = "FROM memories AS m JOIN namespaces AS n ON n.id = m.namespace_id"


# ---- the database
def connect() -> apsw.Connection:
    connection = apsw.Connection(":memory:")
    for _name, statements in STEPS:
        connection.execute(statements)
    connection.execute("INSERT INTO archives VALUES (1, 'a', 'live', 0, 0, 0, 0)")
    Cold(Elsewhere(connection)).register(cast("Database", connection))
    return connection


class Elsewhere:
    """Values of stubs, beside the database."""

    def __init__(self, connection: apsw.Connection) -> None:
        connection.execute("CREATE TEMP TABLE elsewhere (id INTEGER PRIMARY KEY, value BLOB)")
        self._connection = connection

    def read(self, archive: str, block: int, slot: int, number: int) -> bytes:
        assert (archive, block, slot) == ("a", number, 7)
        return cast("bytes", self._connection.execute("SELECT value FROM elsewhere WHERE id = ?", (number,)).get)


def insert(db: apsw.Connection, memories: Sequence[Memory]) -> None:
    """Puts these memories in the place of all that were there before; each is told its tier."""
    with db:
        for table in ("elsewhere", "archived", "memory_tags", "tags", "search_index", "memories", "namespaces"):
            db.execute(f"DELETE FROM {table}")
        for m in memories:
            m.tier = "warm" if is_warm(m) else "cold"
            db.execute("INSERT OR IGNORE INTO namespaces (name, created_at) VALUES (?, 0)", [m.namespace])
            db.execute(
                """
                INSERT INTO memories (id, key, namespace_id, importance, version, seq, created_at, updated_at,
                    expires_at, access_count, last_accessed, session_id, project_id, metadata, value_json)
                SELECT ?, ?, id, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ? FROM namespaces WHERE name = ?
                """,
                [
                    *(m.id, m.key, m.importance, m.version, m.seq, m.created_at, m.updated_at, m.expires_at),
                    *(m.access_count, m.last_accessed, m.session_id, m.project_id),
                    m.attributes.decode() if m.tags or m.extra else None,
                    m.value.decode() if is_warm(m) else "",
                    m.namespace,
                ],
            )
            if not is_warm(m):
                db.execute("INSERT INTO elsewhere VALUES (?, ?)", [m.id, m.value])
                db.execute("INSERT INTO archived VALUES (?, 1, ?, 7, ?)", [m.id, m.id, len(m.value)])
            db.execute(
                "INSERT INTO search_index (memory_id, keywords, content_hash) VALUES (?, '', ?)",
                [m.id, content_hash(m.parsed())],
            )
            for tag in m.tags:
                db.execute("INSERT OR IGNORE INTO tags (name) VALUES (?)", [tag])
                db.execute("INSERT INTO memory_tags SELECT id, ? FROM tags WHERE name = ?", [m.id, tag])


def is_warm(memory: Memory) -> bool:
    """Every other memory is a stub: what is asked of its value is asked of the one elsewhere."""
    return memory.id % 2 == 0


@pytest.fixture(scope="module")
def db() -> Iterator[apsw.Connection]:
    connection = connect()
    yield connection
    connection.close()


def ids(db: apsw.Connection, where: Sql) -> set[int]:
    """Which memories meet the condition; it is 0 or 1 for each of them, never NULL."""
    text, bindings = where
    found = db.execute(f"SELECT m.id, {text} {FROM}", bindings).fetchall()
    assert {truth for _, truth in found} <= {0, 1}
    selected = {number for (number,) in db.execute(f"SELECT m.id {FROM} WHERE {text}", bindings)}
    assert selected == {number for number, truth in found if truth}
    return selected


def memory(number: int, value: str, **fields: Any) -> Memory:
    base: dict[str, Any] = dict.fromkeys(["session_id", "project_id", "expires_at", "last_accessed"])
    base |= dict.fromkeys(["created_at", "updated_at", "access_count", "version", "importance"], 1)
    base |= {"namespace": "acme", "key": f"k{number}", "attributes": b'{"tags":[]}', "seq": number}
    return Memory(id=number, value=value.encode(), **(base | fields))


# ---- memories of every shape, from few enough parts that filters meet them
TEXTS = [
    "", "a", "ab", "b", "B", "a\0b", "1", "true", "%", "_", "é", "𝄞", "\ud7ff", "\ue000", "\uffff",
    "\U0010ffff", "a\ud7ff", "a\U0010ffff",
]  # fmt: skip
NAMES = ["a", "b", "a b", "a.c", "0", "k[0]", "é", "tags", "a\0b", 'a"b']
NUMBERS = [
    "0", "-0", "-0.0", "1", "1.0", "1e0", "10E-1", "-1.5", "0.1", "2", "9007199254740993",
    "9007199254740992.0", "9223372036854775807", "-9223372036854775808", "9223372036854775808",
    "9223372036854775807.0", "1e19", "12345678901234567890", "1" + "0" * 330, "1e400", "-1e400", "5e-324",
    "1e-400",
]  # fmt: skip
PATHS = [
    "a", '"a b"', '"a.c"', "a.b", "a.a.a", '0."k[0]"', "é", "tags", '"tags"', "tags[0]", "a[0]", "a[1].a",
    "b[0][1]", "[0]",
]  # fmt: skip
NAMESPACES = [
    "acme", "acme-corp", "acme/x", "acme/x/y", "acme0", "acme.", "acme%", "%", "_", "Acme", "é", "é/x",
    "acme/𝄞",
]  # fmt: skip
INSTANTS = {
    "1970-01-01T00:00:00Z": 0,
    "2026-01-01T00:00:00Z": 1767225600000000,
    "2026-01-01T00:00:00.000001Z": 1767225600000001,
}
FEW = [0, 1, 2, 10]

texts = st.sampled_from(TEXTS) | st.text("ab\0é𝄞", max_size=3)
names = st.sampled_from(NAMES)


def spelled(text: str) -> st.SearchStrategy[str]:
    return st.booleans().map(lambda ascii_only: json.dumps(text, ensure_ascii=ascii_only))


scalars_as_json = (
    st.sampled_from(["null", "true", "false"])
    | st.sampled_from(NUMBERS)
    | (st.integers(-3, 3) | st.floats(allow_nan=False, allow_infinity=False)).map(repr)
    | texts.flatmap(spelled)
)


def containers_as_json(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    # Lists of pairs rather than dictionaries: a repeated name is JSON too.
    member = st.tuples(names.flatmap(spelled), inner).map(" : ".join)
    arrays = st.lists(inner, max_size=3).map(lambda parts: f"[{', '.join(parts)}]")
    return arrays | st.lists(member, max_size=4).map(lambda members: f"{{{','.join(members)} }}")


any_json = st.recursive(scalars_as_json, containers_as_json, max_leaves=6)
maybe_instants = st.none() | st.sampled_from([*INSTANTS.values()])
tag_lists = st.lists(texts, max_size=2, unique=True)
extras = st.dictionaries(names.filter(lambda name: name != "tags"), any_json, max_size=2)


def attributes(tags: list[str], extra: dict[str, str]) -> bytes:
    members = [f'"tags":{json.dumps(tags)}', *(f"{json.dumps(name)}:{raw}" for name, raw in extra.items())]
    return f"{{{','.join(members)}}}".encode()


@st.composite
def memories(draw: st.DrawFn) -> list[Memory]:
    keys = draw(st.lists(texts.filter(lambda key: key and "\0" not in key), max_size=4, unique=True))
    return [
        Memory(
            id=number,
            namespace=draw(st.sampled_from(NAMESPACES)),
            key=key,
            value=draw(any_json).encode(),
            attributes=draw(st.builds(attributes, tag_lists, extras)),
            importance=draw(st.sampled_from(FEW)),
            session_id=draw(st.none() | texts),
            project_id=draw(st.none() | texts),
            created_at=draw(st.sampled_from([*INSTANTS.values()])),
            updated_at=0,
            expires_at=draw(maybe_instants),
            access_count=draw(st.sampled_from(FEW)),
            last_accessed=draw(maybe_instants),
            version=1,
            seq=number,
        )
        for number, key in enumerate(keys, 1)
    ]


# ---- filters
OPERANDS: dict[str, st.SearchStrategy[Any]] = {
    "number": st.sampled_from([*FEW, 1.5, 2.0, float("inf"), -(2**63), 2**64, -(2**70)]) | st.integers(-1, 11),
    "text": texts | st.sampled_from(NAMESPACES) | st.just("warm"),
    "instant": st.sampled_from([*INSTANTS]),
    "hash": any_json.map(lambda raw: content_hash(parse(raw.encode())).hex()),
    "json": st.none() | st.booleans() | texts | (scalars_as_json.map(lambda raw: parse(raw.encode()))),
}
FIELDS: dict[str, list[str]] = {
    "number": ["id", "version", "importance", "access_count", "metadata.importance"],
    "text": ["key", "namespace", "tier", "session_id", "project_id"],
    "instant": ["created_at", "updated_at", "expires_at", "last_accessed", "metadata.expires_at"],
    "hash": ["content_hash"],
    "json": [
        "value",
        "value[0]",
        *(f"value.{path}" for path in PATHS),
        *(f"metadata.{path}" for path in PATHS if path != "tags"),
    ],
}
EQUALITY = ["eq", "ne", "in", "nin"]
ORDERED = ["gt", "gte", "lt", "lte", "between"]
OPERATORS = {
    "number": [*EQUALITY, *ORDERED, "exists"],
    "text": [*EQUALITY, *ORDERED, "contains", "startswith", "exists"],
    "instant": [*EQUALITY, *ORDERED, "exists"],
    "hash": [*EQUALITY, "exists"],
    "json": [*EQUALITY, *ORDERED, "contains", "startswith", "exists"],
}


def operand_of(kind: str, op: str) -> st.SearchStrategy[Any]:
    one = OPERANDS[kind]
    if op == "exists":
        return st.booleans()
    if op in {"in", "nin"}:
        return st.lists(st.none() | one, max_size=4)
    if op in EQUALITY:
        return st.none() | one
    if kind == "json" and op == "startswith":
        return texts
    if kind == "json" and op != "contains":
        one = one.filter(lambda operand: not isinstance(operand, bool | None))
    return st.lists(one, min_size=2, max_size=2) if op == "between" else one


def field_tests(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    operators = st.sampled_from(OPERATORS[kind]).flatmap(
        lambda op: operand_of(kind, op).map(lambda operand: {op: operand}),
    )
    return st.tuples(st.sampled_from(FIELDS[kind]), operators).map(lambda pair: {pair[0]: pair[1]})


tag_tests = st.sampled_from(["tags", "metadata.tags"]).flatmap(
    lambda name: st.one_of(
        texts.map(lambda tag: {name: {"contains": tag}}),
        st.booleans().map(lambda there: {name: {"exists": there}}),
        st.sampled_from([{name: None}, {name: {"ne": None}}, {name: {"in": [None]}}, {name: {"nin": []}}]),
    )
)
one_test = field_tests("json") | st.one_of(*(field_tests(kind) for kind in FIELDS)) | tag_tests


def combined(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    parts = st.lists(inner, min_size=1, max_size=3)
    return (
        parts.map(lambda several: {"and": several})
        | parts.map(lambda several: {"or": several})
        | inner.map(lambda one: {"not": one})
        | parts.map(lambda several: reduce(lambda left, right: {**left, **right}, several))
    )


def parsed_filter(source: Any) -> Filter:
    try:
        return parse_filter(source)
    except InvalidInputError:
        reject()


filters = st.recursive(one_test, combined, max_leaves=4).map(parsed_filter)


# ---- conditions
@EXAMPLES
@given(stored=memories(), where=filters)
def test_a_condition_selects_what_the_reference_matches(
    db: apsw.Connection, stored: list[Memory], where: Filter
) -> None:
    insert(db, stored)
    assert ids(db, condition(where)) == {m.id for m in stored if matches(where, m)}


def one_of_each() -> list[Memory]:
    """A memory for each text, number and other shape that a value, a metadata field or a column can have."""
    texts = [json.dumps(text) for text in TEXTS]
    shapes = ["null", "true", "false", "[]", "{}", '{"a":1}', "[null]", "[[1]]"]
    return [
        memory(
            number,
            raw,
            key=TEXTS[number % len(TEXTS)].replace("\0", "") + str(number),
            namespace=NAMESPACES[number % len(NAMESPACES)],
            attributes=attributes(TEXTS[number % 3 : number % 5], {"a": raw, "b": f"[{raw}]"}),
            session_id=None if number % 3 == 0 else TEXTS[number % len(TEXTS)],
            importance=number % 4,
            created_at=[*INSTANTS.values()][number % 3],
            expires_at=[None, *INSTANTS.values()][number % 4],
        )
        for number, raw in enumerate([*texts, *NUMBERS, *shapes, *(f"[{raw}]" for raw in NUMBERS[:10])], 1)
    ]


def operands_of(field: Field) -> list[Any]:
    """Operands of a field for which at least some of `one_of_each` differ."""
    match field.kind:
        case Kind.INTEGER:
            return [*FEW, 1.5, float("inf")]
        case Kind.TEXT:
            return [*TEXTS, *NAMESPACES, "warm"]
        case Kind.INSTANT:
            return [*INSTANTS]
        case Kind.TAGS:
            return TEXTS
        case Kind.HASH:
            return [content_hash(parse(raw)).hex() for raw in (b'"a"', b"1", b"[]", b"5")]
        case _:
            return [None, True, False, *TEXTS, *(parse(raw.encode()) for raw in NUMBERS)]


@pytest.mark.parametrize(
    "name",
    [
        *("value", "value[0]", "value.a", "metadata.a", "metadata.b", "metadata.b[0]", "metadata.tags[0]"),
        *("tags", "content_hash", "id", "importance", "created_at", "expires_at"),
        *("key", "namespace", "tier", "session_id"),
    ],
)
def test_each_operator_selects_what_the_reference_matches(db: apsw.Connection, name: str) -> None:
    stored = one_of_each()
    insert(db, stored)
    operands = operands_of(parse_field(name))
    sources: list[tuple[Op, Any]] = [
        (Op.EXISTS, True),
        (Op.EXISTS, False),
        (Op.IN, []),
        (Op.IN, operands),
        (Op.EQ, None),
    ]
    for one, another in zip(operands, [*operands[1:], operands[0]], strict=True):
        for op in Op:
            match op:
                case Op.EXISTS:
                    continue
                case Op.IN | Op.NIN:
                    sources += [(op, [one, None]), (op, [one, another])]
                case Op.BETWEEN:
                    sources += [(op, [one, one]), (op, [one, another]), (op, [another, one])]
                case _:
                    sources += [(op, one)]
    found = set()
    for op, operand in sources:
        try:
            where = parse_filter({name: {op: operand}})
        except InvalidInputError:
            continue
        expected = {m.id for m in stored if matches(where, m)}
        assert ids(db, condition(where)) == expected, (op, operand)
        found |= {bool(expected), len(expected) < len(stored)}
    assert found == {True, False}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"value.a": True}, {1}),
        ({"value.a": 1}, {2, 3}),
        ({"value.a": {"gt": "0"}}, {4}),
        ({"value.a": None}, {5, 6, 7, 9}),
        ({"value.a": {"exists": True}}, {1, 2, 3, 4, 5, 8}),
        ({"value.a.b": 1}, set()),
        ({"value[0]": 1}, {9}),
        ({"value": {"contains": "oo"}}, {7}),
        ({"value": {"contains": 1}}, {9}),
        ({"value.a": {"contains": None}}, {8}),
        ({"not": {"value.a": {"lte": 1}}}, {1, 4, 5, 6, 7, 8, 9}),
    ],
)
def test_a_condition_tells_json_types_apart(db: apsw.Connection, source: Any, expected: set[int]) -> None:
    values = [
        '{"a":true}', '{"a":1}', '{"a":1.0}', '{"a":"1"}', '{"a":null}', "{}", '"foo"',
        '{"a":{"b":1},"a":[null]}', "[1]",
    ]  # fmt: skip
    stored = [memory(number, value) for number, value in enumerate(values, 1)]
    insert(db, stored)
    where = parse_filter(source)
    assert ids(db, condition(where)) == expected == {m.id for m in stored if matches(where, m)}


def test_the_largest_filters_can_be_run(db: apsw.Connection) -> None:
    stored = [memory(1, "[" * 40 + "1" + "]" * 40), memory(2, "1")]
    insert(db, stored)
    deep = "value" + "[0]" * MAX_FILTER_DEPTH
    hashes = ["00" * 32] * MAX_LIST
    many = [float(n) + 0.5 for n in range(MAX_LIST - 2)] + ["x", "1"]
    sources: list[dict[str, Any]] = [
        {"and": [{deep: {"exists": True}}] * 14},
        {"or": [{"value.a": 2}] * 120 + [{"value": 1}]},
        {"or": [{"id": {"in": many[:-2]}, "value": {"in": many}, "content_hash": {"in": hashes}}] * 70},
    ]
    nested: dict[str, Any] = {deep: 1}
    for _ in range(MAX_FILTER_DEPTH // 2):
        nested = {"not": {"or": [nested, {"id": 3}]}}
    for source in [*sources, nested]:
        where = parse_filter(source)
        assert ids(db, condition(where)) == {m.id for m in stored if matches(where, m)}


# ---- orders
orderable = st.sampled_from([name for kind in FIELDS if kind != "hash" for name in FIELDS[kind]])
orders = st.tuples(st.sampled_from(["", "-"]), orderable).map("".join).map(parse_order)


def in_order(order: Order, stored: list[Memory]) -> list[Memory]:
    def rank(m: Memory) -> tuple[bool, bool, Any, int]:
        value = order_value(order, m)
        return (
            (value is None) is not order.descending,
            isinstance(value, str),
            0 if value is None else value,
            m.id,
        )

    return sorted(stored, key=rank, reverse=order.descending)


def walk_pages(db: apsw.Connection, order: Order, size: int) -> Iterator[tuple[Scalar, int]]:
    sql = order_terms(order)
    last: tuple[Scalar, int] | None = None
    while True:
        where, bindings = sql.after(last) if last else ("1", [])
        assert {truth for (truth,) in db.execute(f"SELECT {where} {FROM}", bindings)} <= {0, 1}
        page = db.execute(
            f"SELECT {sql.expression}, m.id {FROM} WHERE {where} ORDER BY {sql.order_by} LIMIT ?",
            [*sql.bound, *bindings, size],
        ).fetchall()
        for row in page:
            value: Any = row[0]
            last = value, cast("int", row[1])
            assert sql.nullable or value is not None
            yield last
        if len(page) < size:
            return


@EXAMPLES
@given(stored=memories(), order=orders)
def test_pages_show_everything_once_in_the_order_of_the_reference(
    db: apsw.Connection, stored: list[Memory], order: Order
) -> None:
    insert(db, stored)
    assert [*walk_pages(db, order, 2)] == [(order_value(order, m), m.id) for m in in_order(order, stored)]


# ---- groups
def groups(db: apsw.Connection, name: str) -> list[tuple[bool, Any, int]]:
    """Of each group whether it is a boolean (1 equals True in Python), its value and size; largest first."""
    sql = group_expression(parse_field(name))
    select = f"SELECT {sql.expression}, count(*) AS c {FROM} {sql.join} GROUP BY 1, 2"
    rows = db.execute(f"{select} ORDER BY c DESC, 2 NULLS LAST, 1", sql.bound)
    found = [(sql.value(is_boolean, held), count) for is_boolean, held, count in rows]
    return [(isinstance(value, bool), value, count) for value, count in found]


@given(stored=memories(), name=st.sampled_from([name for names in FIELDS.values() for name in names]))
def test_groups_count_each_scalar_by_itself(db: apsw.Connection, stored: list[Memory], name: str) -> None:
    insert(db, stored)
    held = [resolve(parse_field(name), m) for m in stored]
    scalars = [None if one is MISSING or isinstance(one, dict | list) else one for one in held]
    counts = Counter((isinstance(one, bool), one.hex() if isinstance(one, bytes) else one) for one in scalars)
    assert {(is_boolean, value): count for is_boolean, value, count in groups(db, name)} == counts


def test_each_tag_is_a_group(db: apsw.Connection) -> None:
    tags = [["x", "y"], ["x"], []]
    insert(db, [memory(n, "1", attributes=attributes(some, {})) for n, some in enumerate(tags, 1)])
    assert groups(db, "tags") == [(False, "x", 2), (False, "y", 1), (False, None, 1)]


def test_groups_of_one_size_stand_in_the_order_of_their_values(db: apsw.Connection) -> None:
    values = ['"b"', "true", "1", "null", "0.5", "false", '"a"']
    insert(db, [memory(n, value) for n, value in enumerate(values, 1)])
    expected = [
        (True, False),
        (False, 0.5),
        (False, 1),
        (True, True),
        (False, "a"),
        (False, "b"),
        (False, None),
    ]
    assert groups(db, "value") == [(*group, 1) for group in expected]


# ---- scopes
@pytest.mark.parametrize("recursive", [True, False])
def test_a_scope_selects_a_subtree_among_names_that_are_alike(db: apsw.Connection, *, recursive: bool) -> None:
    stored = [memory(number, "1", namespace=name) for number, name in enumerate(NAMESPACES, 1)]
    insert(db, stored)
    for scope in NAMESPACES:
        expected = {m.id for m in stored if m.namespace == scope or (recursive and contains(scope, m.namespace))}
        assert ids(db, select_scope([scope], recursive=recursive)) == expected


characters = st.characters(exclude_characters="/", exclude_categories=["Cs", "Cc", "Zs", "Zl", "Zp"])
hostile = st.sampled_from(["acme", "acme-corp", "acme0", "acme.", "x", "%", "_", "0", "é", "𝄞", "\U0010ffff"])
segments = hostile | st.text(characters, min_size=1, max_size=3)
namespace_names = st.lists(segments, min_size=1, max_size=3).map("/".join)


@EXAMPLES
@given(
    spaces=st.lists(namespace_names | st.sampled_from(NAMESPACES), max_size=8, unique=True),
    scopes=st.lists(st.just("") | namespace_names | st.sampled_from(NAMESPACES), max_size=4),
    recursive=st.booleans(),
)
def test_a_scope_selects_subtrees_never_prefixes(
    db: apsw.Connection, spaces: list[str], scopes: list[str], *, recursive: bool
) -> None:
    insert(db, [])
    db.executemany("INSERT INTO namespaces (name, created_at) VALUES (?, 0)", [(name,) for name in spaces])
    db.execute("INSERT INTO namespaces (name, deleted_name, created_at) VALUES (NULL, 'acme', 0)")
    where, bindings = select_scope(scopes, recursive=recursive)
    found = {name for (name,) in db.execute(f"SELECT n.name FROM namespaces AS n WHERE {where}", bindings)}
    inside = contains if recursive else (lambda scope, name: scope in {"", name})
    assert found == {name for name in spaces if any(inside(scope, name) for scope in scopes)}


def test_hundreds_of_scopes_are_one_condition(db: apsw.Connection) -> None:
    insert(db, [memory(1, "1"), memory(2, "1", namespace="acme/x")])
    assert ids(db, select_scope([f"s{n}" for n in range(1200)] + ["acme/x"])) == {2}


# ---- plans
def plan(db: apsw.Connection, where: str, bindings: Sequence[Any], order_by: str = "m.id") -> list[str]:
    steps = db.execute(f"EXPLAIN QUERY PLAN SELECT m.id {FROM} WHERE {where} ORDER BY {order_by}", bindings)
    return [detail for *_, detail in steps]


def test_a_key_prefix_in_one_namespace_is_a_range_of_the_index(db: apsw.Connection) -> None:
    scope, names = select_scope(["acme"], recursive=False)
    where, bindings = condition(parse_filter({"key": {"startswith": "user/"}}))
    steps = plan(db, f"{scope} AND {where}", [*names, *bindings], order_terms(parse_order("key")).order_by)
    assert "SEARCH m USING COVERING INDEX idx_memories_key_ns (namespace_id=? AND key>? AND key<?)" in steps
    assert not any(step.startswith("SCAN") for step in steps)


@pytest.mark.parametrize(("name", "range_"), [("id", "rowid>?"), ("-id", "rowid<?")])
def test_a_page_by_id_goes_on_where_the_last_one_ended_without_sorting(
    db: apsw.Connection, name: str, range_: str
) -> None:
    sql = order_terms(parse_order(name))
    where, bindings = sql.after((7, 7))
    steps = plan(db, where, bindings, sql.order_by)
    assert f"SEARCH m USING INTEGER PRIMARY KEY ({range_})" in steps
    assert not any("TEMP B-TREE" in step for step in steps)


def test_a_page_by_key_in_one_namespace_goes_on_in_the_index(db: apsw.Connection) -> None:
    scope, names = select_scope(["acme"], recursive=False)
    sql = order_terms(parse_order("key"))
    after, bindings = sql.after(("k", 7))
    steps = plan(db, f"{scope} AND {after}", [*names, *bindings], sql.order_by)
    assert any("idx_memories_key_ns (namespace_id=? AND key>?)" in step for step in steps)


@pytest.mark.parametrize(
    ("source", "index"),
    [
        ({"content_hash": "00" * 32}, "idx_search_hash"),
        ({"id": {"in": [1, 2]}}, "INTEGER PRIMARY KEY (rowid=?)"),
        ({"expires_at": {"lt": "2026-01-01T00:00:00Z"}}, "INDEX idx_memories_expires (expires_at>?"),
    ],
)
def test_a_condition_uses_the_index_there_is(db: apsw.Connection, source: Any, index: str) -> None:
    steps = plan(db, *condition(parse_filter(source)), order_by="n.name")
    assert any(index in step for step in steps)
    assert not any(step.startswith("SCAN m") for step in steps)
