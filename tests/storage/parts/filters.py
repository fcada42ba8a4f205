"""What each operator finds in each type of value."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.storage.drafts import (
    NOW,
    apply,
    condition,
    keys,
    literal,
    selection,
    store,
    storing,
)
from tests.storage.parts.opened import LATER, LONG_AFTER, Opened, examples
from unified_memory.model.clock import to_rfc3339
from unified_memory.model.query import matches
from unified_memory.model.value import content_hash, encode
from unified_memory.storage.base import (
    Access,
    Storage,
)

_RAW = (
    (
        "object",
        {
            "n": 5,
            "f": 2.5,
            "s": "Straße",
            "b": True,
            "z": None,
            "list": [1, "two", True, None, 2.5, {"x": [7]}],
        },
    ),
    (
        "deep",
        {
            "a": {"b": {"c": "deep down"}},
            "a name": "quoted",
            "dot.ted": 1,
            "quo'te": 2,
            "": 3,
            "$": 4,
            "naïve": 5,
        },
    ),
    ("true", True),
    ("false", False),
    ("one", 1),
    ("one point", literal("1.0")),
    ("zero", 0),
    ("null", None),
    ("text", "text"),
    ("Text", "Text"),
    ("number text", "1"),
    ("array", [1, 2, 3]),
    ("empty", ""),
    ("big", {"n": literal("9007199254740993")}),
    ("less big", {"n": literal("9007199254740992")}),
    ("largest", {"n": literal("9223372036854775807")}),
    ("beyond", {"n": literal("9223372036854775808")}),
    ("smallest", {"n": literal("-9223372036854775808")}),
    ("huge", {"n": literal("123456789012345678901234567890")}),
    ("exponent", {"n": literal("1E2")}),
    ("tiny", {"n": literal("1e-3")}),
    ("nul", {"s": literal('"a\\u0000b"')}),
    ("before nul", {"s": "a"}),
    ("twice", literal('{"n":1,"n":2}')),
    ("escaped", {"s": literal('"\\u00e9\\ud83d\\ude00"')}),
    ("composed", {"s": "é😀"}),
    ("decomposed", {"s": "e\u0301😀"}),
    ("quotes", {"s": 'it\'s "quoted" 100% _ \\ --'}),
)
_NUMBERED = {
    "object",
    "big",
    "less big",
    "largest",
    "beyond",
    "smallest",
    "huge",
    "exponent",
    "tiny",
    "twice",
}
_WITH_S = {"object", "nul", "before nul", "escaped", "composed", "decomposed", "quotes"}
_ALL = {key for key, _ in _RAW}

FILTERS: tuple[tuple[Any, set[str]], ...] = (
    # numbers and booleans and texts are never mixed up
    ({"value": {"eq": 1}}, {"one", "one point"}),
    ({"value": {"eq": 1.0}}, {"one", "one point"}),
    ({"value": {"eq": True}}, {"true"}),
    ({"value": {"eq": False}}, {"false"}),
    ({"value": {"eq": 0}}, {"zero"}),
    ({"value": {"eq": "1"}}, {"number text"}),
    ({"value": {"eq": "true"}}, set()),
    ({"value": "text"}, {"text"}),
    ({"value": {"eq": ""}}, {"empty"}),
    ({"value": {"eq": None}}, {"null"}),
    ({"value": {"ne": None}}, _ALL - {"null"}),
    ({"value": {"ne": 1}}, _ALL - {"one", "one point"}),
    ({"value": {"in": [1, "text", None]}}, {"one", "one point", "text", "null"}),
    ({"value": {"in": [True, "x"]}}, {"true"}),
    ({"value": {"in": []}}, set()),
    ({"value": {"nin": []}}, _ALL),
    ({"value": {"nin": [1, "text", None, True]}}, _ALL - {"one", "one point", "text", "null", "true"}),
    ({"value": {"gte": 0}}, {"one", "one point", "zero"}),
    ({"value": {"gt": 0}}, {"one", "one point"}),
    ({"value": {"lt": 1}}, {"zero"}),
    ({"value": {"lte": 0.5}}, {"zero"}),
    ({"value": {"gt": ""}}, {"text", "Text", "number text"}),
    ({"value": {"lt": "a"}}, {"Text", "number text", "empty"}),
    ({"value": {"between": ["Text", "text"]}}, {"Text", "text"}),
    ({"value": {"between": [0, 1]}}, {"zero", "one", "one point"}),
    ({"value": {"between": [0, "z"]}}, set()),
    ({"value": {"between": [1, 0]}}, set()),
    ({"value": {"contains": "ex"}}, {"text", "Text"}),
    ({"value": {"contains": ""}}, {"text", "Text", "number text", "empty"}),
    ({"value": {"contains": 2}}, {"array"}),
    ({"value": {"contains": 2.0}}, {"array"}),
    ({"value": {"contains": "2"}}, set()),
    ({"value": {"startswith": "te"}}, {"text"}),
    ({"value": {"startswith": ""}}, {"text", "Text", "number text", "empty"}),
    ({"value": {"exists": True}}, _ALL),
    ({"value": {"exists": False}}, set()),
    # paths
    ({"value.n": {"eq": 5}}, {"object"}),
    ({"value.f": {"eq": 2.5}}, {"object"}),
    ({"value.f": {"between": [2.5, 2.5]}}, {"object"}),
    ({"value.b": {"eq": True}}, {"object"}),
    ({"value.b": {"eq": 1}}, set()),
    ({"value.b": {"gt": 0}}, set()),
    ({"value.b": {"ne": 1}}, _ALL),
    ({"value.a.b.c": {"contains": "down"}}, {"deep"}),
    ({"value.a.b": {"exists": True}}, {"deep"}),
    ({"value.a.b": {"eq": None}}, _ALL - {"deep"}),
    ({"value.a.b": {"gt": 0}}, set()),
    ({"value.a.b": {"ne": "x"}}, _ALL),
    ({'value."a name"': {"eq": "quoted"}}, {"deep"}),
    ({'value."dot.ted"': {"eq": 1}}, {"deep"}),
    ({"value.dot.ted": {"eq": 1}}, set()),
    ({"value.quo'te": {"eq": 2}}, {"deep"}),
    ({"value.$": {"eq": 4}}, {"deep"}),
    ({"value.naïve": {"eq": 5}}, {"deep"}),
    ({"value.list[0]": {"eq": 1}}, {"object"}),
    ({"value.list[1]": {"eq": "two"}}, {"object"}),
    ({"value.list[5].x[0]": {"eq": 7}}, {"object"}),
    ({"value.list[9]": {"exists": True}}, set()),
    ({"value[1]": {"eq": 2}}, {"array"}),
    ({"value.0": {"exists": True}}, set()),
    ({"value.n[0]": {"exists": True}}, set()),
    # missing, and there but null
    ({"value.z": {"exists": True}}, {"object"}),
    ({"value.z": {"exists": False}}, _ALL - {"object"}),
    ({"value.z": {"eq": None}}, _ALL),
    ({"value.z": {"ne": None}}, set()),
    ({"value.n": {"eq": None}}, _ALL - _NUMBERED),
    ({"value.n": {"in": [None]}}, _ALL - _NUMBERED),
    ({"value.n": {"ne": 5}}, _ALL - {"object"}),
    ({"value.n": {"nin": [5, None]}}, _NUMBERED - {"object"}),
    ({"not": {"value.n": {"gt": 5}}}, _ALL - {"big", "less big", "largest", "beyond", "huge", "exponent"}),
    # elements
    ({"value.list": {"contains": 1}}, {"object"}),
    ({"value.list": {"contains": True}}, {"object"}),
    ({"value.list": {"contains": False}}, set()),
    ({"value.list": {"contains": None}}, {"object"}),
    ({"value.list": {"contains": 2.5}}, {"object"}),
    ({"value.list": {"contains": "two"}}, {"object"}),
    ({"value.list": {"contains": "tw"}}, set()),
    ({"value.list": {"contains": "1"}}, set()),
    # big and odd numbers
    ({"value.n": {"eq": 9007199254740993}}, {"big"}),
    ({"value.n": {"gt": 9007199254740992}}, {"big", "largest", "beyond", "huge"}),
    ({"value.n": {"eq": 9223372036854775807}}, {"largest"}),
    ({"value.n": {"gte": literal("9223372036854775808")}}, {"beyond", "huge"}),
    ({"value.n": {"eq": literal("9223372036854775808")}}, {"beyond"}),
    ({"value.n": {"lt": 0}}, {"smallest"}),
    ({"value.n": {"eq": literal("-9223372036854775808")}}, {"smallest"}),
    ({"value.n": {"eq": 100}}, {"exponent"}),
    ({"value.n": {"eq": 0.001}}, {"tiny"}),
    ({"value.n": {"lt": literal("1e400")}}, _NUMBERED),
    # of a repeated name the last counts
    ({"value.n": {"eq": 2}}, {"twice"}),
    ({"value.n": {"eq": 1}}, set()),
    # texts
    ({"value.s": {"eq": "Straße"}}, {"object"}),
    ({"value.s": {"eq": "strasse"}}, set()),
    ({"value.s": {"contains": "raß"}}, {"object"}),
    ({"value.s": {"contains": "STRA"}}, set()),
    ({"value.s": {"eq": "a"}}, {"before nul"}),
    ({"value.s": {"eq": "a\0b"}}, {"nul"}),
    ({"value.s": {"contains": "\0b"}}, {"nul"}),
    ({"value.s": {"contains": "b"}}, {"nul"}),
    ({"value.s": {"startswith": "a\0"}}, {"nul"}),
    ({"value.s": {"startswith": "a"}}, {"nul", "before nul"}),
    ({"value.s": {"gt": "a", "lt": "b"}}, {"nul"}),
    ({"value.s": {"in": ["a\0b", "zz"]}}, {"nul"}),
    ({"value.s": {"eq": "é😀"}}, {"escaped", "composed"}),
    ({"value.s": {"eq": "e\u0301😀"}}, {"decomposed"}),
    ({"value.s": {"contains": "😀"}}, {"escaped", "composed", "decomposed"}),
    ({"value.s": {"startswith": "é"}}, {"escaped", "composed"}),
    ({"value.s": {"contains": "100% _ \\ --"}}, {"quotes"}),
    ({"value.s": {"contains": "%"}}, {"quotes"}),
    ({"value.s": {"contains": "it's \"q"}}, {"quotes"}),
    ({"value.s": {"startswith": "it_"}}, set()),
    ({"value.s": {"exists": True}}, _WITH_S),
    # put together
    ({"and": [{"value.n": {"gt": 1}}, {"value.n": {"lt": 6}}]}, {"object", "twice"}),
    ({"value.n": {"gt": 1, "lt": 6}, "value.b": True}, {"object"}),
    ({"or": [{"value": 1}, {"value": "text"}]}, {"one", "one point", "text"}),
    (
        {"not": {"or": [{"value.n": {"exists": True}}, {"value.s": {"exists": True}}]}},
        _ALL - _NUMBERED - _WITH_S,
    ),
    ({"not": {"not": {"value": True}}}, {"true"}),
    ({"and": [{"value": 1}, {"not": {"key": {"contains": " "}}}]}, {"one"}),
)

_HEADS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        "a",
        {
            "value": "same",
            "tags": ("red", "blue"),
            "importance": 9,
            "session_id": "s1",
            "project_id": "p1",
            "expires_at": LONG_AFTER,
            "color": "red",
            "rank": 1,
            "flag": True,
            "nothing": None,
            "nested": {"list": [1, {"x": "y"}], "a name": 2.5},
        },
    ),
    (
        "b",
        {
            "value": "same",
            "tags": ("Red",),
            "importance": 1,
            "session_id": "s2",
            "rank": 2.5,
            "flag": 1,
            "color": "Red",
        },
    ),
    (
        "c",
        {
            "value": {"x": 1, "y": 2},
            "namespace": "n/m",
            "tags": ('it\'s "odd"',),
            "importance": 5,
            "rank": "1",
        },
    ),
    ("d", {"value": literal('{ "y": 2, "x": 1 }'), "namespace": "n", "tags": ("redder",)}),
)
HEAD_FILTERS: tuple[tuple[Any, set[str]], ...] = (
    ({"key": "a"}, {"a"}),
    ({"key": {"in": ["a", "d", "zz"]}}, {"a", "d"}),
    ({"key": {"ne": "a"}}, {"b", "c", "d"}),
    ({"key": {"between": ["b", "c"]}}, {"b", "c"}),
    ({"key": {"startswith": "a"}}, {"a"}),
    ({"key": {"exists": True}}, {"a", "b", "c", "d"}),
    ({"namespace": "n"}, {"d"}),
    ({"namespace": {"startswith": "n"}}, {"c", "d"}),
    ({"namespace": {"contains": "/m"}}, {"c"}),
    ({"version": {"gte": 1}}, {"a", "b", "c", "d"}),
    ({"version": {"gt": 1.5}}, set()),
    ({"tier": "hot"}, set()),
    ({"importance": {"gte": 5}}, {"a", "c", "d"}),
    ({"metadata.importance": {"lt": 5.5}}, {"b", "c", "d"}),
    ({"importance": {"nin": [9, 1]}}, {"c", "d"}),
    ({"importance": {"eq": None}}, set()),
    ({"session_id": "s1"}, {"a"}),
    ({"session_id": None}, {"c", "d"}),
    ({"session_id": {"ne": "s1"}}, {"b", "c", "d"}),
    ({"session_id": {"ne": None}}, {"a", "b"}),
    ({"session_id": {"exists": False}}, {"c", "d"}),
    ({"session_id": {"in": ["s1", None]}}, {"a", "c", "d"}),
    ({"session_id": {"nin": ["s1", None]}}, {"b"}),
    ({"session_id": {"nin": ["s1"]}}, {"b", "c", "d"}),
    ({"not": {"session_id": {"gt": "s1"}}}, {"a", "c", "d"}),
    ({"metadata.project_id": {"startswith": "p"}}, {"a"}),
    ({"expires_at": {"exists": True}}, {"a"}),
    ({"expires_at": {"eq": to_rfc3339(LONG_AFTER)}}, {"a"}),
    ({"expires_at": {"lt": to_rfc3339(LONG_AFTER)}}, set()),
    ({"not": {"expires_at": {"lt": to_rfc3339(LONG_AFTER)}}}, {"a", "b", "c", "d"}),
    ({"created_at": {"gte": to_rfc3339(NOW + 2)}}, {"c", "d"}),
    ({"updated_at": {"between": [to_rfc3339(NOW + 1), to_rfc3339(NOW + 2)]}}, {"b", "c"}),
    ({"last_accessed": {"exists": True}}, {"b"}),
    ({"last_accessed": {"gt": to_rfc3339(NOW)}}, {"b"}),
    ({"access_count": {"eq": 3}}, {"b"}),
    ({"access_count": {"eq": 0}}, {"a", "c", "d"}),
    ({"tags": {"contains": "red"}}, {"a"}),
    ({"tags": {"contains": "Red"}}, {"b"}),
    ({"metadata.tags": {"contains": 'it\'s "odd"'}}, {"c"}),
    ({"not": {"tags": {"contains": "red"}}}, {"b", "c", "d"}),
    ({"and": [{"tags": {"contains": "red"}}, {"tags": {"contains": "blue"}}]}, {"a"}),
    ({"tags": {"contains": "%"}}, set()),
    ({"tags": {"exists": True}}, {"a", "b", "c", "d"}),
    ({"tags": {"exists": False}}, set()),
    ({"key": {"eq": None}}, set()),
    ({"key": {"nin": [None, "a"]}}, {"b", "c", "d"}),
    ({"content_hash": {"eq": None}}, set()),
    ({"content_hash": {"nin": [None]}}, {"a", "b", "c", "d"}),
    ({"id": {"ne": None}}, {"a", "b", "c", "d"}),
    ({"content_hash": content_hash("same").hex()}, {"a", "b"}),
    ({"content_hash": content_hash({"x": 1, "y": 2}).hex()}, {"c", "d"}),
    ({"content_hash": {"in": [content_hash("same").hex(), "00" * 32]}}, {"a", "b"}),
    ({"content_hash": {"nin": [content_hash("same").hex()]}}, {"c", "d"}),
    ({"content_hash": {"ne": "00" * 32}}, {"a", "b", "c", "d"}),
    ({"metadata.color": "red"}, {"a"}),
    ({"metadata.color": {"exists": False}}, {"c", "d"}),
    ({"metadata.nothing": {"exists": True}}, {"a"}),
    ({"metadata.nothing": None}, {"a", "b", "c", "d"}),
    ({"metadata.rank": {"gte": 1}}, {"a", "b"}),
    ({"metadata.rank": {"eq": "1"}}, {"c"}),
    ({"metadata.flag": True}, {"a"}),
    ({"metadata.flag": {"gt": 0}}, {"b"}),
    ({"metadata.nested.list[1].x": "y"}, {"a"}),
    ({"metadata.nested.list": {"contains": 1}}, {"a"}),
    ({'metadata.nested."a name"': {"gt": 2}}, {"a"}),
    ({"or": [{"metadata.color": "red"}, {"session_id": "s2"}, {"namespace": "n"}]}, {"a", "b", "d"}),
)

_texts = st.text(st.sampled_from("aAbßé%_\\'\" \0😀"), max_size=3)
_numbers = st.integers(-3, 3) | st.sampled_from([0.5, -0.5, 2.0, 2**53 + 1, 2**53, 2**63 - 1, 2**63, -(2**63), 1e300])
_scalars = st.none() | st.booleans() | _numbers | _texts
_members = st.sampled_from(["a", "b", "a b", "$", "0", "Ä"])
_values: st.SearchStrategy[Any] = st.recursive(
    _scalars,
    lambda part: st.lists(part, max_size=3) | st.dictionaries(_members, part, max_size=3),
    max_leaves=6,
)
_steps = st.lists(_members.map(lambda name: f'."{name}"') | st.integers(0, 2).map(lambda n: f"[{n}]"), max_size=3).map(
    "".join
)
_fields = (
    st.just("value")
    | _steps.map(lambda path: "value" + path)
    | _members.flatmap(lambda name: _steps.map(lambda path: f'metadata."{name}"{path}'))
)
_comparisons = st.one_of(
    st.tuples(st.sampled_from(["eq", "ne", "contains"]), _scalars),
    st.tuples(st.sampled_from(["gt", "gte", "lt", "lte"]), _numbers | _texts),
    st.tuples(st.sampled_from(["in", "nin"]), st.lists(_scalars, max_size=3)),
    st.tuples(st.just("between"), st.lists(_numbers | _texts, min_size=2, max_size=2)),
    st.tuples(st.just("startswith"), _texts),
    st.tuples(st.just("exists"), st.booleans()),
)
_tests = st.tuples(_fields, st.lists(_comparisons, min_size=1, max_size=2).map(dict)).map(
    lambda pair: {pair[0]: pair[1]}
)
_filters = st.recursive(
    _tests,
    lambda part: st.lists(part, min_size=1, max_size=3).flatmap(
        lambda parts: st.sampled_from([{"and": parts}, {"or": parts}, {"not": parts[0]}])
    ),
    max_leaves=5,
)


def _name(part: Any) -> str:
    """What a case is called: its filter, as JSON."""
    return encode(part).decode() if isinstance(part, dict) else ""


class FilterContract(Opened):
    """`select`, `count` and `group`."""

    @pytest.mark.parametrize(("where", "expected"), FILTERS, ids=_name)
    async def test_a_filter_of_values_finds(self, storage: Storage, where: Any, expected: set[str]) -> None:
        await apply(storage, *(storing(key, value) for key, value in _RAW))
        assert set(await keys(storage, where=where)) == expected
        assert await storage.count(selection(where=where), NOW) == len(expected)

    @pytest.mark.parametrize(("where", "expected"), HEAD_FILTERS, ids=_name)
    async def test_a_filter_of_heads_finds(self, storage: Storage, where: Any, expected: set[str]) -> None:
        for n, (key, facts) in enumerate(_HEADS):
            await store(storage, key, now=NOW + n, **facts)
        memory = await storage.get("default", "b", NOW)
        assert memory is not None
        await storage.touch([Access(memory.id, 3, LATER)])
        assert set(await keys(storage, where=where)) == expected
        assert await storage.count(selection(where=where), NOW) == len(expected)

    async def test_a_filter_by_tier_finds_what_lies_there(self, storage: Storage) -> None:
        await store(storage, "a")
        other = {"warm": "cold", "cold": "warm"}[self.tier]
        assert await keys(storage, where={"tier": self.tier}) == ["a"]
        assert await keys(storage, where={"tier": other}) == []
        assert await keys(storage, where={"tier": {"in": [other, self.tier]}, "key": "a"}) == ["a"]

    async def test_a_filter_by_id_finds_it(self, storage: Storage) -> None:
        a, b = await store(storage, "a"), await store(storage, "b")
        assert await keys(storage, where={"id": a.id}) == ["a"]
        assert await keys(storage, where={"id": {"gt": a.id, "lte": b.id}}) == ["b"]
        assert await keys(storage, where={"id": {"in": [a.id, b.id, 2**62]}}) == ["a", "b"]
        assert await keys(storage, where={"id": {"eq": a.id + 0.5}}) == []

    async def test_a_tag_is_there_or_not(self, storage: Storage) -> None:
        await apply(storage, storing("with", tags=("t",)), storing("without"))
        assert await keys(storage, where={"tags": {"exists": True}}) == ["with"]
        assert await keys(storage, where={"tags": {"exists": False}}) == ["without"]

    async def test_a_filter_follows_an_update(self, storage: Storage) -> None:
        await store(storage, "k", {"n": 1}, tags=("old",), color="red")
        await store(storage, "k", {"n": 2}, tags=("new",), color="blue")
        for where in ({"value.n": 1}, {"tags": {"contains": "old"}}, {"metadata.color": "red"}):
            assert await keys(storage, where=where) == []
        for where in ({"value.n": 2}, {"tags": {"contains": "new"}}, {"metadata.color": "blue"}):
            assert await keys(storage, where=where) == ["k"]

    async def test_a_filter_may_be_as_large_as_the_language_allows(self, storage: Storage) -> None:
        await store(storage, "k", {"n": 7})
        nested: Any = {"value.n": 7}
        for _ in range(31):
            nested = {"not": nested}
        assert await keys(storage, where=nested) == []
        wide = {"or": [{"value.n": n} for n in range(160)]}
        assert await keys(storage, where=wide) == ["k"]
        assert await keys(storage, where={"value.n": {"in": list(range(1000))}}) == ["k"]

    @given(values=st.lists(_values, min_size=1, max_size=6), extra=_values, where=_filters)
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.differing_executors],
    )
    async def test_any_filter_finds_what_the_reference_says(
        self, storage: Storage, values: list[Any], extra: Any, where: Any
    ) -> None:
        scope = f"example/{next(examples)}"
        edits = [storing(f"k{n}", value, namespace=scope, a=extra, b=value) for n, value in enumerate(values)]
        await apply(storage, *edits)
        everything = (await storage.select(selection(scope), NOW)).items
        expected = [memory.key for memory in everything if matches(condition(where), memory)]
        assert await keys(storage, scope, where=where) == expected
        assert await storage.count(selection(scope, where=where), NOW) == len(expected)
