"""The files of the older HTTP service: every row of the fixtures, what cannot be stored, and rows written back as it does."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from unified_memory.model.clock import from_rfc3339
from unified_memory.model.errors import InvalidInputError, SourceError
from unified_memory.model.value import MAX_DEPTH
from unified_memory.sources.base import Back, Found, Item, Options, Quarantined, Returned, Skipped
from unified_memory.sources.kinds import kind_of, open_source
from unified_memory.sources.shim import ShimJSON, ShimSQLite, Written, written

FIXTURES = Path(__file__).parents[3] / "shared" / "legacy" / "fixtures"
fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the fixtures are not beside the repository")
SHIM = "shim_3009/extended_memory.db"
BACKUP = "shim_3009/backup/extended_memory.db.backup.20250821_090002"
IMPORTED = "shim_3009_from_memory_json/extended_memory.db"
# As its server creates it.
SCHEMA = """
CREATE TABLE memory_store (key TEXT PRIMARY KEY, value TEXT NOT NULL, type TEXT NOT NULL,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  accessed_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, access_count INTEGER DEFAULT 1);
CREATE TABLE metadata (key TEXT PRIMARY KEY, value TEXT NOT NULL, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
INSERT INTO metadata (key, value) VALUES ('version', '2.0.0');
"""
ROW = "INSERT INTO memory_store VALUES (?, ?, ?, '2025-01-03 06:05:01', '2025-01-03 06:05:01.189673', '2025-01-03 06:05:02', 3)"
CREATED = from_rfc3339("2025-08-21T09:00:02.000001Z")
UPDATED = from_rfc3339("2025-08-22T10:11:12Z")
# Replaces rows, which gives them new row ids, and adds some.
_WRITER = """
import apsw, sys, time
connection = apsw.Connection(sys.argv[1])
connection.set_busy_timeout(10_000)
for number in range(10**9):
    connection.execute("INSERT OR REPLACE INTO memory_store (key, value, type) VALUES (?, '2', 'int')", (str(number % 2_000),))
    connection.execute("INSERT INTO memory_store (key, value, type) VALUES (?, '2', 'int')", (f"new {number}",))
    time.sleep(0.005)
    if number == 20:
        print("writing", flush=True)
"""


def made(path: Path, *rows: tuple[Any, Any, Any], encoding: str = "UTF-8") -> Path:
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA encoding = '{encoding}'")
    connection.execute(SCHEMA)
    with connection:
        connection.executemany(ROW, rows)
    connection.close()
    return path


def rows_of(path: Path) -> list[tuple[Any, ...]]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    found = connection.execute("SELECT * FROM memory_store ORDER BY key").fetchall()
    connection.close()
    return list(found)


def opened(path: Path) -> ShimSQLite:
    return ShimSQLite.open(str(path), Options())


def only(found: list[Found]) -> Found:
    assert len(found) == 1
    return found[0]


def back(key: str, value: bytes | None, **parts: Any) -> Back:
    return Back(
        **{
            "origin": None,
            "shape": "entry",
            "project": None,
            "key": key,
            "number": 1,
            "content": None if value is None else value.decode(),
            "value": value or b"null",
            "created_at": CREATED,
            "updated_at": UPDATED,
        }
        | parts
    )


def instant(text: str) -> int:
    return from_rfc3339(text.replace(" ", "T") + "Z")


@fixtures
@pytest.mark.parametrize(("file", "part"), [(SHIM, "shim"), (BACKUP, "shim"), (IMPORTED, "shim_json")])
def test_every_row_of_the_fixture_is_carried(file: str, part: str) -> None:
    wanted = json.loads((FIXTURES / "manifest.json").read_text())[part]
    source = open_source("extended-memory-http-db", str(FIXTURES / file))
    found = list(source.read())
    items = {one.key: one for one in found if isinstance(one, Item)}
    quarantined = {one.origin: one for one in found if isinstance(one, Quarantined)}
    assert len(items) + len(quarantined) == len(found) == wanted["items"] == source.survey().records
    for one in wanted["records"]:
        if one.get("not_strict_json"):
            assert json.loads(quarantined.pop(f"entry/{one['key']}").raw)["value"] == one["value_text"]
            continue
        item = items[one["key"]]
        assert item.origin == f"entry/{one['key']}"
        assert hashlib.sha256(item.value).hexdigest() == one["value_sha256"]
        if "value" in one:  # not of the largest
            assert json.loads(item.value) == one["value"]
        assert (item.created_at, item.updated_at) == (instant(one["created_at"]), instant(one["updated_at"]))
        assert (item.last_accessed, item.access_count) == (instant(one["accessed_at"]), one["access_count"])
        assert item.facts == ({"legacy_type": "NoneType"} if one["type"] == "NoneType" else {})
        is_huge = one["type"] == "int" and abs(one["value"]) >= 2**63
        assert [note.partition(":")[0] for note in item.notes] == (["huge"] if is_huge else [])
    assert not quarantined
    for name, value in wanted.get("metadata", {}).items():
        assert f"Its metadata {name}: {value}" in source.survey().remarks
    source.close()


@fixtures
def test_every_member_of_the_older_json_file_is_carried() -> None:
    wanted = json.loads((FIXTURES / "manifest.json").read_text())["shim_json"]["records"]
    path = FIXTURES / "shim_3009_from_memory_json" / "memory.json.original"
    source = open_source("extended-memory-http-json", str(path))
    items = {one.key: one for one in source.read() if isinstance(one, Item)}
    assert items.keys() == {one["key"] for one in wanted}
    for one in wanted:
        item = items[one["key"]]
        assert hashlib.sha256(item.value).hexdigest() == one["value_sha256"]
        assert item.created_at == path.stat().st_mtime_ns // 1000
        assert (item.access_count, item.facts) == (0, {})
        assert source.lookup(item.origin) == item  # type: ignore[attr-defined]
    assert source.survey().records == len(wanted)


@pytest.mark.parametrize(
    ("value", "kind", "code"),
    [
        ("NaN", "float", "nan"),
        ('{"a": [1, -Infinity]}', "dict", "nan"),
        ('"\\ud800"', "str", "surrogate"),
        ('{"\\udc00": 1}', "dict", "surrogate"),
        ('["NaN", "\\ud800", NaN]', "list", "nan"),
        ("gASVCgAAAAAAAACMBm9zLnJ1bpQu", "pickle", "pickle"),
        ('"fine"', "pickle", "pickle"),
        ("no json", "set", "malformed"),
        ("", "str", "malformed"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "list", "unsupported"),
        ("[" * 100_000 + "]" * 100_000, "list", "unsupported"),
        (b"\xff\0", "str", "binary"),
    ],
)
def test_what_cannot_be_stored_is_quarantined_with_its_whole_row(
    tmp_path: Path, value: str | bytes, kind: str, code: str
) -> None:
    source = opened(made(tmp_path / "m.db", ("k/1", value, kind)))
    found = only(list(source.read()))
    assert isinstance(found, Quarantined)
    assert (found.origin, found.code) == ("entry/k/1", code)
    shown = {"value_hex": value.hex()} if isinstance(value, bytes) else {"value": value}
    row = json.loads(found.raw)
    assert str(row.pop("access_count")) == "3"
    assert row == shown | {
        "key": "k/1",
        "type": kind,
        "created_at": "2025-01-03 06:05:01",
        "updated_at": "2025-01-03 06:05:01.189673",
        "accessed_at": "2025-01-03 06:05:02",
    }
    assert source.lookup("entry/k/1") == found


@pytest.mark.parametrize(
    ("value", "kind", "type_told"),
    [
        ("5.0", "float", None),
        ("1e400", "float", None),
        ("5", "int", None),
        ("-9223372036854775808", "int", None),
        ("true", "bool", None),
        ("null", "none", None),
        ("null", "NoneType", "NoneType"),
        ('"\\u00e9"', "str", None),
        ('[1, {"a": []}]', "list", None),
        ('{"a": 1, "a": 2}', "dict", None),
        ('["a"]', "tuple", "tuple"),
        ("5", "float", "float"),
    ],
)
def test_a_value_keeps_its_bytes_and_a_type_is_told_only_where_it_says_more(
    tmp_path: Path, value: str, kind: str, type_told: str | None
) -> None:
    item = only(list(opened(made(tmp_path / "m.db", ("k", value, kind))).read()))
    assert isinstance(item, Item)
    assert (item.value, item.facts.get("legacy_type"), item.notes) == (value.encode(), type_told, ())


@pytest.mark.parametrize("value", ["9223372036854775808", '{"a": [-9223372036854775809]}', "1" * 5000])
def test_an_integer_beyond_64_bits_is_carried_and_noted(tmp_path: Path, value: str) -> None:
    item = only(list(opened(made(tmp_path / "m.db", ("k", value, "int"))).read()))
    assert isinstance(item, Item)
    assert item.value == value.encode()
    assert [note.startswith("huge: ") for note in item.notes] == [True]


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le"])
def test_every_key_is_found_again_by_its_origin(tmp_path: Path, encoding: str) -> None:
    keys = ["", "/", "a/b", "nul\0k", "ключ", "🔥", "%41", "entry/x", "'; DROP TABLE memory_store;--"]
    source = opened(made(tmp_path / "m.db", *((key, '"é"', "str") for key in keys), encoding=encoding))
    items = [one for one in source.read() if isinstance(one, Item)]
    assert sorted(item.key for item in items) == sorted(keys)
    for item in items:
        assert item.value == '"é"'.encode()
        assert source.lookup(item.origin) == item
        assert source.find("entry", None, item.key) == item.origin
    assert source.find("entry", None, "absent") is None
    assert source.find("entry", None, "\ud800") is None
    assert source.lookup("entry/\ud800") is None
    assert source.lookup("row/x") is None
    assert source.find("entry", "project", "a/b") is None


def test_a_key_that_is_no_text_is_quarantined(tmp_path: Path) -> None:
    path = made(tmp_path / "m.db", (None, "1", "int"), (b"\0\xff", "2", "int"), ("a", "3", "int"))
    connection = apsw.Connection(str(path))
    connection.execute("INSERT INTO memory_store (key, value, type) VALUES (CAST(x'ff' AS TEXT), '4', 'int')")
    connection.close()
    source = opened(path)
    found = [one for one in source.read() if isinstance(one, Quarantined)]
    assert [(one.origin, one.code) for one in found] == [
        ("row/1", "malformed"),
        ("row/2", "malformed"),
        ("row/4", "malformed"),
    ]
    assert [json.loads(one.raw)["value"] for one in found] == ["1", "2", "4"]
    assert [source.lookup(one.origin) for one in found] == found


def test_a_time_or_a_count_that_is_none_is_noted(tmp_path: Path) -> None:
    path = made(tmp_path / "m.db", ("k", "1", "int"))
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE memory_store SET created_at = 'yesterday', updated_at = NULL, access_count = 'often'")
    connection.close()
    item = only(list(opened(path).read()))
    assert isinstance(item, Item)
    assert (item.created_at, item.updated_at, item.access_count) == (None, None, 0)
    assert item.last_accessed == instant("2025-01-03 06:05:02")
    assert item.notes == (
        "malformed: access_count is 'often'",
        "malformed: created_at is no instant: 'yesterday'",
    )


def test_rows_are_written_back_as_the_service_writes_them_and_twice_is_as_once(tmp_path: Path) -> None:
    path = made(tmp_path / "m.db", ("changed", '"1"', "str"), ("gone", "1", "int"), ("same", "null", "NoneType"))
    source = opened(path)
    assert source.writable() is None
    backs = [
        back("changed", '{"é":[1.0,null]}'.encode(), origin="entry/changed"),
        back("gone", None, origin="entry/gone"),
        back("same", b"null", origin="entry/same"),
        back("new/🔥", b'"text"', tags=("a",), facts={"migrated_from": "x", "mine": 1}),
        back("never", None),
    ]
    first = source.put_back(backs)
    assert [one.origin for one in first] == ["entry/changed", None, "entry/same", "entry/new/🔥", None]
    assert [len(one.lost) for one in first] == [0, 0, 0, 3, 0]
    times = ("2025-01-03 06:05:01", "2025-01-03 06:05:01.189673", "2025-01-03 06:05:02", 3)
    wanted = [
        ("changed", '{"\\u00e9": [1.0, null]}', "dict", times[0], "2025-08-22 10:11:12", *times[2:]),
        ("new/🔥", '"text"', "str", "2025-08-21 09:00:02", "2025-08-22 10:11:12", "2025-08-21 09:00:02.000001", 1),
        ("same", "null", "NoneType", *times),
    ]
    assert rows_of(path) == wanted
    token = source.token()
    assert source.put_back(backs) == first
    assert (rows_of(path), source.token()) == (wanted, token)


def test_what_is_no_entry_or_has_no_key_is_not_written(tmp_path: Path) -> None:
    path = made(tmp_path / "m.db")
    returned = opened(path).put_back([back("", b"1"), back("a", b"1", shape="file"), back("a", b"1", project="p")])
    assert [(one.origin, len(one.lost)) for one in returned] == [(None, 1)] * 3
    assert rows_of(path) == []


def test_a_return_that_fails_in_the_middle_writes_nothing(tmp_path: Path) -> None:
    path = made(tmp_path / "m.db", ("a", "1", "int"))
    with pytest.raises(InvalidInputError):
        opened(path).put_back([back("a", b"2"), back("b", b"no json")])
    assert [row[:2] for row in rows_of(path)] == [("a", "1")]


@pytest.mark.parametrize(
    ("value", "text", "kind", "answerable"),
    [
        (b'{"b":1,"a":[true,"\xc3\xa9"]}', '{"b": 1, "a": [true, "\\u00e9"]}', "dict", True),
        (b"1.50", "1.5", "float", True),
        (b"-0", "0", "int", True),
        (b"1180591620717411303508", "1180591620717411303508", "int", True),
        (b"0.1234567890123456789", "0.1234567890123456789", "float", True),
        (b'{"a":1,"a":2}', '{"a":1,"a":2}', "dict", True),
        (b"[1e999]", "[1e999]", "list", False),
        (b"1" * 4301, "1" * 4301, "int", False),
        (b"null", "null", "none", True),
        (b"1e-99999999999999999999", "1e-99999999999999999999", "float", True),
        (b"-1e99999999999999999999", "-1e99999999999999999999", "float", False),
        (b"-0.0E99999999999999999999", "-0.0", "float", True),
    ],
)
def test_a_value_is_written_as_python_writes_it_unless_that_changes_it(
    value: bytes, text: str, kind: str, *, answerable: bool
) -> None:
    assert written(value) == Written(text, kind, answerable)


def test_nothing_is_written_into_a_backup(tmp_path: Path) -> None:
    path = made(tmp_path / "m.db.backup.20250821_090002", ("a", "1", "int"))
    source = opened(path)
    assert source.writable() is not None
    with pytest.raises(SourceError, match="is a backup"):
        source.put_back([back("a", None)])
    assert len(rows_of(path)) == 1


def test_each_row_comes_once_while_another_process_replaces_rows(tmp_path: Path) -> None:
    path = made(tmp_path / "m.db", *((str(number), "1", "int") for number in range(2_000)))
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "writing\n"
            origins = [one.origin for one in opened(path).read()]
        finally:
            writer.kill()
    assert len(origins) == len(set(origins))
    assert {f"entry/{number}" for number in range(2_000)} <= set(origins)


def test_the_token_changes_when_something_is_written(tmp_path: Path) -> None:
    source = opened(made(tmp_path / "m.db", ("a", "1", "int")))
    before = source.token()
    list(source.read())
    assert source.token() == before
    source.put_back([back("a", b"2")])
    assert source.token() != before


def test_what_is_no_database_of_the_service_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    connection = apsw.Connection(str(other))
    connection.execute("CREATE TABLE memory_store (key TEXT, value TEXT)")
    connection.close()
    with pytest.raises(SourceError, match="access_count"):
        opened(other)
    with pytest.raises(SourceError):
        opened(tmp_path / "missing.db")
    for kind in (ShimSQLite, ShimJSON):
        with pytest.raises(InvalidInputError):
            kind.open("", Options())
        assert kind_of(kind.kind) is kind


def test_members_of_the_json_file_keep_their_spelling_and_repeated_ones_are_told(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    path.write_text(' {"a" : 1.50,\n "b":{"x": [ ]}, "a": "last", "\\u00e9" :null } \n')
    source = ShimJSON.open(str(path), Options())
    found = list(source.read())
    assert [(one.key, one.value) for one in found if isinstance(one, Item)] == [
        ("b", b'{"x": [ ]}'),
        ("a", b'"last"'),
        ("é", b"null"),
    ]
    assert [(one.origin, one.code, one.raw) for one in found if isinstance(one, Quarantined)] == [
        ("repeated/0", "malformed", b'{"a": 1.50}')
    ]
    assert not any(isinstance(one, Skipped) for one in found)
    assert source.survey().records == 4
    assert source.find("entry", None, "é") == "entry/é"
    assert source.find("entry", None, "x") is None
    assert source.lookup("repeated/0") == found[0]


def test_what_the_json_file_cannot_give_is_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    path.write_text('{"n": [NaN], "s": "\\udfff", "\\ud800": 1, "h": ' + "9" * 5000 + "}")
    found = list(ShimJSON.open(str(path), Options()).read())
    assert [(one.origin, one.code, one.raw) for one in found if isinstance(one, Quarantined)] == [
        ("entry/n", "nan", b'{"n": [NaN]}'),
        ("entry/s", "surrogate", b'{"s": "\\udfff"}'),
        ('entry/"\\ud800"', "surrogate", b'{"\\ud800": 1}'),
    ]
    assert [(one.key, len(one.notes)) for one in found if isinstance(one, Item)] == [("h", 1)]


@pytest.mark.parametrize(
    "text", [b"", b"[1]", b'{"a": 1', b'{"a": 1} x', b'{"a" 1}', b"{1: 2}", b'{"a": 1,}', b"\xff{}"]
)
def test_what_is_no_json_object_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "memory.json"
    path.write_bytes(text)
    with pytest.raises(SourceError):
        ShimJSON.open(str(path), Options())


def test_an_empty_object_has_no_members(tmp_path: Path) -> None:
    path = tmp_path / "memory.json"
    path.write_text("\ufeff{ }")
    assert list(ShimJSON.open(str(path), Options()).read()) == []


def test_the_json_file_is_never_written(tmp_path: Path) -> None:
    path = tmp_path / "memory.json.migrated"
    path.write_text("{}")
    source = ShimJSON.open(str(path), Options())
    token = source.token()
    assert source.writable() is not None
    with pytest.raises(SourceError, match="no service reads it"):
        source.put_back([back("a", b"1")])
    assert (path.read_text(), source.token()) == ("{}", token)
    path.write_text('{"a": 1}')
    assert source.token() != token
    source.close()


def test_a_deletion_of_what_was_put_back_is_a_deletion(tmp_path: Path) -> None:
    path = made(tmp_path / "m.db")
    source = opened(path)
    assert source.put_back([back("a", b"1"), back("a", None, origin="entry/a")])[1] == Returned(origin=None)
    assert rows_of(path) == []
