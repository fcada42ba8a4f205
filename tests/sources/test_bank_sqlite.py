"""The memory bank's database: every row of the fixture, names of any shape, and what is no text."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.legacy import commands
from tests.legacy.servers import running
from unified_memory.model.errors import InvalidInputError, SourceError
from unified_memory.model.value import encode
from unified_memory.sources.bank_sqlite import BankSQLite
from unified_memory.sources.base import Back, Item, Options, Quarantined, Returned
from unified_memory.sources.kinds import kind_of, open_source

FIXTURES = Path(__file__).parents[3] / "shared" / "legacy" / "fixtures"
fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the fixtures are not beside the repository")
# As memory-bank-mcp 0.0.1 creates it.
SCHEMA = """CREATE TABLE files (id INTEGER PRIMARY KEY AUTOINCREMENT, project_name TEXT NOT NULL, file_name TEXT NOT NULL,
content TEXT, UNIQUE(project_name, file_name))"""
INSERT = "INSERT INTO files (project_name, file_name, content) VALUES (?, ?, ?)"
NAMES = [("", "a"), ("a", ""), ("a/b", "../up"), ("a", "b/../up"), ("Ünï 数据", "nul\0.md"), ("A", "b"), ("a", "B")]
# Writes until it is ended, and leaves the lock to others now and then, as a server does between two requests.
_WRITER = """
import apsw, sys, time
connection = apsw.Connection(sys.argv[1])
connection.set_busy_timeout(10_000)
number = 0
while True:
    number += 1
    connection.execute("INSERT INTO files (project_name, file_name, content) VALUES ('new', ?, 'x')", (str(number),))
    connection.execute("UPDATE files SET content = content || 'x' WHERE id = ?", (number % 2_000 + 1,))
    time.sleep(0.005)
    if number == 20:
        print("writing", flush=True)
"""


def made(path: Path, *rows: tuple[Any, Any, Any], encoding: str = "UTF-8") -> Path:
    connection = apsw.Connection(str(path))
    connection.execute(f"PRAGMA encoding = '{encoding}'")
    connection.execute(SCHEMA)
    with connection:
        connection.executemany(INSERT, rows)
    connection.close()
    return path


def rows_of(path: Path) -> list[tuple[Any, ...]]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    found = connection.execute("SELECT project_name, file_name, content FROM files ORDER BY id").fetchall()
    connection.close()
    return list(found)


def opened(path: Path) -> BankSQLite:
    return BankSQLite.open(str(path), Options())


def back(project: str | None, name: str, text: str | None, origin: str | None = None) -> Back:
    value = encode(text) if text is not None else b"null"
    return Back(origin=origin, shape="file", project=project, key=name, number=1, content=text, value=value)


@fixtures
def test_every_row_of_the_fixture_is_carried() -> None:
    wanted = json.loads((FIXTURES / "manifest.json").read_text())["mb_pypi"]
    source = open_source("memory-bank-sqlite", str(FIXTURES / "memory_bank_pypi" / "memory_bank.db"))
    found = list(source.read())
    items = [one for one in found if isinstance(one, Item)]
    assert len(items) == len(found) == len({item.origin for item in items})
    assert [
        (item.project, item.key, hashlib.sha256(json.loads(item.value).encode()).hexdigest()) for item in items
    ] == [(one["project"], one["file"], one["sha256"]) for one in wanted["records"]]
    assert {(item.importance, item.created_at, item.updated_at, item.service) for item in items} == {
        (7, None, None, "memory-bank-mcp")
    }
    survey = source.survey()
    assert (survey.records, survey.projects) == (wanted["files"], wanted["per_project"])
    source.close()


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
def test_every_name_is_found_again_by_its_origin(tmp_path: Path, encoding: str) -> None:
    source = opened(made(tmp_path / "bank.db", *((*names, f"of {names}") for names in NAMES), encoding=encoding))
    items = [one for one in source.read() if isinstance(one, Item)]
    assert [(item.project, item.key) for item in items] == NAMES
    for item in items:
        assert source.lookup(item.origin) == item
        assert source.find("file", item.project, item.key) == item.origin
    assert source.find("file", "a", "absent") is None
    assert source.find("file", None, "b") is None
    assert source.find("context", "A", "b") is None
    assert source.find("file", "\ud800", "b") is None
    assert source.lookup("entry/a") is None
    assert source.lookup("row/100") is None


def test_what_is_no_text_is_quarantined(tmp_path: Path) -> None:
    path = made(tmp_path / "bank.db", ("p", "null", None), ("p", "blob", b"\0\xff"))
    connection = apsw.Connection(str(path))
    connection.execute(
        "INSERT INTO files (project_name, file_name, content) VALUES"
        " ('p', 'broken', CAST(x'ff41' AS TEXT)), (CAST(x'ff' AS TEXT), 'name', 'kept'),"
        " ('p', x'6e', 'also'), (x'70', 'n', 'too')"
    )
    connection.close()
    source = opened(path)
    found = list(source.read())
    assert [(one.origin, one.code, one.raw) for one in found if isinstance(one, Quarantined)] == [
        ("file/p/null", "unsupported", b'{"project_name":"p","file_name":"null","content":null}'),
        ("file/p/blob", "binary", b"\0\xff"),
        ("file/p/broken", "binary", b"\xffA"),
        ("row/4", "malformed", b"kept"),
        ("row/5", "malformed", b"also"),
        ("row/6", "malformed", b"too"),
    ]
    assert [source.lookup(one.origin) for one in found] == found
    assert any("NULL" in remark for remark in source.survey().remarks)


def test_what_changed_here_is_written_back_and_twice_is_as_once(tmp_path: Path) -> None:
    path = made(tmp_path / "bank.db", ("p", "kept", "1"), ("p", "changed", "1"), ("p", "gone", "1"))
    source = opened(path)
    assert source.writable() is None
    backs = [
        back("p", "changed", "2", "file/p/changed"),
        back("", "nul\0'; DROP TABLE files;--", "new"),
        back("p", "gone", None, "file/p/gone"),
        back("p", "never", None),
        back("p", "empty", ""),
    ]
    first = source.put_back(backs)
    assert first == [
        Returned(origin="file/p/changed"),
        Returned(origin="file//nul%00%27%3B%20DROP%20TABLE%20files%3B--"),
        Returned(origin=None),
        Returned(origin=None),
        Returned(origin="file/p/empty"),
    ]
    wanted = [("p", "kept", "1"), ("p", "changed", "2"), ("", "nul\0'; DROP TABLE files;--", "new"), ("p", "empty", "")]
    assert rows_of(path) == wanted
    token = source.token()
    assert source.put_back(backs) == first
    assert (rows_of(path), source.token()) == (wanted, token)
    homeless = source.put_back([back(None, "x", "x")])[0]
    assert (homeless.origin, len(homeless.lost)) == (None, 1)


def test_nothing_is_missing_while_another_process_writes(tmp_path: Path) -> None:
    path = made(tmp_path / "bank.db", *(("old", str(number), "x" * 200) for number in range(2_000)))
    with subprocess.Popen([sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE, text=True) as writer:
        try:
            assert writer.stdout is not None
            assert writer.stdout.readline() == "writing\n"
            origins = [one.origin for one in opened(path).read()]
        finally:
            writer.kill()
    assert len(origins) == len(set(origins))
    assert {f"file/old/{number}" for number in range(2_000)} <= set(origins)


def test_the_token_changes_when_something_is_written(tmp_path: Path) -> None:
    source = opened(made(tmp_path / "bank.db", ("p", "a", "1")))
    before = source.token()
    list(source.read())
    assert source.token() == before
    source.put_back([back("p", "a", "2")])
    assert source.token() != before


def test_what_is_no_memory_bank_is_refused(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    connection = apsw.Connection(str(other))
    connection.execute("CREATE TABLE files (id INTEGER PRIMARY KEY, name TEXT)")
    connection.close()
    with pytest.raises(SourceError, match="content, file_name, project_name"):
        opened(other)
    with pytest.raises(SourceError):
        opened(tmp_path / "missing.db")
    with pytest.raises(InvalidInputError):
        BankSQLite.open("", Options())
    assert kind_of("memory-bank-sqlite") is BankSQLite


@pytest.mark.slow
async def test_the_older_server_and_the_source_read_what_the_other_wrote(tmp_path: Path) -> None:
    text = "\ufeffone\r\ntwo \0 é 🔥"
    async with running(commands.memory_bank_pypi(tmp_path), tmp_path) as server:
        await server.call("memory_bank_write", project_name="", file_name="a/../b", content=text)
        source = opened(tmp_path / "bank.db")
        item = source.lookup("file//a%2F..%2Fb")
        assert isinstance(item, Item)
        assert json.loads(item.value) == text
        source.put_back([back("p", "nul\0", text), back("", "a/../b", None)])
        read = await server.call("memory_bank_read", project_name="p", file_name="nul\0")
        assert read["structuredContent"] == {"result": text}
        gone = await server.call("memory_bank_read", project_name="", file_name="a/../b")
        assert gone["structuredContent"] == {"result": None}
