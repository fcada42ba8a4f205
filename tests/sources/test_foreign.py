"""What readers of other programs have in common."""

import json
from io import BytesIO
from itertools import product
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unified_memory.model.errors import InvalidInputError
from unified_memory.model.namespace import check_namespace
from unified_memory.model.value import parse
from unified_memory.sources import foreign
from unified_memory.sources.foreign import Part, UnfitError

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


class _Slow(BytesIO):
    """Gives a few bytes at a time, so that every place is the end of a piece once."""

    step = 3

    def read(self, size: int | None = -1, /) -> bytes:
        return super().read(min(self.step, size) if size is not None and size > 0 else self.step)


def parts(raw: bytes) -> list[tuple[str | None, int | None, Any]]:
    return [(part.name, part.index, json.loads(part.raw)) for part in foreign.parts_of(_Slow(raw)) if part.whole]


@given(elements=st.lists(_json, max_size=4), indent=st.sampled_from([None, 1]), escaped=st.booleans())
def test_an_array_is_taken_apart_into_its_elements(*, elements: list[Any], indent: int | None, escaped: bool) -> None:
    raw = json.dumps(elements, indent=indent, ensure_ascii=escaped).encode()

    assert parts(raw) == [(None, index, element) for index, element in enumerate(elements)]


@given(
    members=st.dictionaries(st.text(max_size=5), _json, max_size=4),
    indent=st.sampled_from([None, 1]),
    escaped=st.booleans(),
)
def test_an_object_is_taken_apart_into_members_and_elements(
    *, members: dict[str, Any], indent: int | None, escaped: bool
) -> None:
    raw = json.dumps(members, indent=indent, ensure_ascii=escaped).encode()
    expected: list[tuple[str | None, int | None, Any]] = []
    for name, member in members.items():
        if isinstance(member, list):
            expected += [(name, index, element) for index, element in enumerate(member)]
        else:
            expected.append((name, None, member))

    assert parts(raw) == expected


@given(st.dictionaries(st.text(max_size=5), _json, min_size=1, max_size=3), st.data())
def test_of_a_file_that_is_cut_anywhere_the_last_part_is_not_whole(
    members: dict[str, Any], data: st.DataObject
) -> None:
    raw = json.dumps(members).encode()
    cut = raw[: data.draw(st.integers(1, len(raw) - 1))]
    *whole, last = foreign.parts_of(BytesIO(cut))

    assert not last.whole
    assert all(part.whole for part in whole)


@pytest.mark.parametrize("raw", [b"[1]]", b"[1][2]", b'{"a": 1} x', b'{"a": 1}\n{"a": 2}'])
def test_what_follows_is_told_as_a_part_that_is_not_whole(raw: bytes) -> None:
    assert [part.whole for part in foreign.parts_of(BytesIO(raw))] == [True, False]


def test_parts_are_not_judged() -> None:
    raw = b'\xef\xbb\xbf {"a": [NaN, \xff, {"x" 1}], "b": Infinity}'

    assert list(foreign.parts_of(BytesIO(raw))) == [
        Part("a", 0, b"NaN"),
        Part("a", 1, b"\xff"),
        Part("a", 2, b'{"x" 1}'),
        Part("b", None, b"Infinity"),
    ]


@given(
    st.lists(st.text(max_size=300), min_size=1, max_size=20), st.lists(st.text(max_size=300), min_size=1, max_size=20)
)
def test_any_parts_make_a_namespace_and_different_ones_different_ones(one: list[str], other: list[str]) -> None:
    names = [foreign.namespace_below("migrated_x", parts) for parts in (one, other)]

    for name in names:
        assert check_namespace(name).startswith("migrated_x/")
    assert (names[0] == names[1]) == (one == other)


def test_signs_that_escapes_use_do_not_make_two_names_one() -> None:
    texts = ["".join(signs) for length in range(4) for signs in product("a/%,. 2", repeat=length)]
    long = ["é" * 200, "é" * 201, "é" * 199 + "è", "é" * 127]
    names = {foreign.namespace_below("r", [*"abcdefghijklmn", *text.split(".")]) for text in [*texts, *long]}

    assert len(names) == len(texts) + len(long)


@pytest.mark.parametrize(
    ("value", "instant"),
    [
        (1.5, 1_500_000),
        (msgspec.Raw(b"1795473432.309568"), 1795473432309568),
        ("2025-01-02 03:04:05.25", 1735787045250000),
        ("2025-01-02T03:04:05+01:00", 1735783445000000),
        ("2025-01-02", 1735776000000000),
        ("soon", None),
        ("", None),
        (True, None),
        (None, None),
        (float("inf"), None),
        (1e30, None),
        ([], None),
    ],
)
def test_an_instant_is_read_from_text_and_number(value: object, instant: int | None) -> None:
    assert foreign.instant_of(value) == instant


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"[NaN]", "nan"),
        (b"[-Infinity]", "nan"),
        (b'["\\udc00"]', "surrogate"),
        (b'{"\\udc00": 1}', "surrogate"),
        (b"[1", "malformed"),
        (b"", "malformed"),
        (b"\xff", "malformed"),
        (b"[" * 300 + b"]" * 300, "unsupported"),
        (b"[" * 200_000, "unsupported"),
    ],
)
def test_what_is_no_json_is_told_by_its_kind(raw: bytes, code: str) -> None:
    with pytest.raises(UnfitError) as caught:
        foreign.json_of(raw, "It")

    assert caught.value.code == code
    assert caught.value.reason.startswith(("It ", "value "))


def test_numbers_become_plain_ones_where_nothing_is_lost() -> None:
    parsed = parse(b'{"a": [1, 2.5, -0.10, 1e3, 0.1234567890123456789, 1e999], "b": 18446744073709551616, "c": true}')

    assert foreign.plain(parsed) == {
        "a": [1, 2.5, -0.1, 1000.0, "0.1234567890123456789", "1e999"],
        "b": "18446744073709551616",
        "c": True,
    }


@pytest.mark.parametrize(
    ("integer", "noted"), [(2**63 - 1, False), (2**63, True), (-(2**63), False), (-(2**63) - 1, True)]
)
def test_an_integer_beyond_64_bits_is_noted(integer: int, *, noted: bool) -> None:
    parsed = parse(json.dumps({"a": [1, {"b": integer}]}).encode())

    assert foreign.huge_integers(parsed) == ((f"huge: an integer beyond 64 bits: {integer}",) if noted else ())


def test_a_location_that_is_no_path_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        foreign.path_of("a\0b")
