"""Every row comes back from its line as it was, and no line holds a line break."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.backup import samples
from unified_memory.model.errors import StorageCorruptError
from unified_memory.model.history import Past
from unified_memory.storage.backup import KINDS
from unified_memory.storage.backup.lines import MalformedError, decoder, encode

KINDS_AND_ROWS = st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), samples.rows[kind]))


@given(KINDS_AND_ROWS)
def test_every_row_comes_back_from_one_line(made: tuple[str, Any]) -> None:
    kind, row = made
    line = encode(kind, row)
    assert b"\n" not in line
    assert b"\r" not in line
    assert decoder(kind)(line) == row


@pytest.mark.parametrize("kind", KINDS)
def test_no_line_is_taken_for_one_of_another_kind_or_with_a_member_more(kind: str) -> None:
    line = encode(kind, samples.ROWS[kind][0])
    for other in KINDS:
        if other != kind:
            with pytest.raises(MalformedError):
                decoder(other)(line)
    with pytest.raises(MalformedError, match="unknown field"):
        decoder(kind)(line[:-1] + b',"more":1}')


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_cut_off_is_told(kind: str) -> None:
    line = encode(kind, samples.ROWS[kind][0])
    for end in range(len(line)):
        with pytest.raises(MalformedError):
            decoder(kind)(line[:end])


@pytest.mark.parametrize(
    "value",
    [
        b'{"a":1,"a":1.0e5}',
        b"123456789012345678901234567890",
        b'"\\u0000\\/"',
        '"\u2028"'.encode(),
        b'[1 ,\t"\xc3\xa9"]',
    ],
)
def test_a_value_is_embedded_as_its_bytes_came(value: bytes) -> None:
    assert b'"value":' + value + b"," in encode("memories", samples.memory(value=value))


@pytest.mark.parametrize("value", [b"[1,\n2]", b"[1,\r2]", b" 1", b'"\\ud800"', b"[" * 9000 + b"]" * 9000])
def test_a_value_that_no_line_can_hold_as_it_came_stands_as_text(value: bytes) -> None:
    line = encode("memories", samples.memory(value=value))
    members = json.loads(line)
    assert "value" not in members
    assert members["value_text"].encode() == value
    assert decoder("memories")(line) == samples.memory(value=value)


@pytest.mark.parametrize("value", [b"", b"[\n\xff]"])
def test_a_value_that_cannot_be_one_is_told_instead_of_being_backed_up(value: bytes) -> None:
    with pytest.raises(StorageCorruptError):
        encode("memories", samples.memory(value=value))
    with pytest.raises(StorageCorruptError):
        encode("past", Past(samples.memory(value=value), 1, 1, 1))


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("memories", (b'"value":{"text":"value"},', b"")),
        ("memories", (b'"value":{"text":"value"},', b'"value":1,"value_text":"1",')),
        ("memories", (b'{"tags":["a","b"],"source":"test"}', b"[]")),
        ("memories", (b'"importance":7', b'"importance":"7"')),
        ("memories", (b'"importance":7', b'"importance":7.5')),
        ("memories", (b'{"text":"value"}', b"[" * 9000 + b"]" * 9000)),
        ("past", (b'"value":1,', b"")),
        ("sessions", (b'{"agent":"x"}', b"5")),
        ("spaces", (b'"language":null', b'"languages":null')),
    ],
)
def test_a_line_that_was_never_written_so_is_told(kind: str, change: tuple[bytes, bytes]) -> None:
    line = encode(kind, samples.ROWS[kind][0])
    assert change[0] in line
    with pytest.raises(MalformedError):
        decoder(kind)(line.replace(*change))


def test_what_is_not_there_is_left_out() -> None:
    bare = msgspec.structs.replace(
        samples.memory(),
        session_id=None,
        project_id=None,
        expires_at=None,
        access_count=0,
        last_accessed=None,
        tier="warm",
    )
    assert list(json.loads(encode("memories", bare))) == [
        "id",
        "namespace",
        "key",
        "version",
        "seq",
        "created_at",
        "updated_at",
        "importance",
        "value",
        "attributes",
    ]
