"""Opening another program's SQLite file."""

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from unified_memory.model.errors import SourceError, SourceUnavailableError
from unified_memory.sources import sqlite_file

KIND = "test"
# Two SQLite libraries in one process do not see each other's locks: what is open at the same time is of apsw.
# Writes more than the cache holds, so that the file itself is changed before the commit, and is killed then.
_KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 1")
connection.execute("UPDATE t SET b = zeroblob(3000)")
os.kill(os.getpid(), 9)
"""


def made(path: Path, rows: int = 3, journal: str = "delete") -> Path:
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA journal_mode = {journal}")
    connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, b)")
    connection.executemany("INSERT INTO t (b) VALUES (?)", [(f"row {number}",) for number in range(rows)])
    connection.commit()
    connection.close()
    return path


def names_in(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def rows_of(path: Path) -> list[object]:
    connection = sqlite_file.open_readonly(path, KIND)
    try:
        return [one for (one,) in connection.execute("SELECT b FROM t ORDER BY id")]
    finally:
        connection.close()


def with_hot_journal(path: Path) -> Path:
    made(path, rows=500)
    subprocess.run([sys.executable, "-c", _KILLED, path], check=False)
    assert path.with_name(path.name + "-journal").stat().st_size > 0
    return path


def test_what_is_no_database_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        sqlite_file.open_readonly(tmp_path / "none.db", KIND)
    with pytest.raises(SourceError, match="no file"):
        sqlite_file.open_readonly(tmp_path, KIND)
    other = tmp_path / "other"
    other.write_text("something else")
    with pytest.raises(SourceError, match="no SQLite database"):
        sqlite_file.open_writable(other, KIND)
    other.write_bytes(b"")
    with pytest.raises(SourceError, match="no SQLite database"):
        sqlite_file.open_readonly(other, KIND)


def test_a_damaged_database_is_an_error(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db", rows=5000)
    content = bytearray(path.read_bytes())
    content[100:5000] = b"\xff" * 4900
    path.write_bytes(content)
    with pytest.raises(SourceError, match="damaged"):
        sqlite_file.open_readonly(path, KIND)


def test_nothing_is_written_by_reading(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db")
    connection = sqlite_file.open_readonly(path, KIND)
    with pytest.raises(apsw.ReadOnlyError):
        connection.execute("DELETE FROM t")
    connection.close()
    assert names_in(tmp_path) == ["a.db"]


def test_a_hot_journal_is_rolled_back_in_a_copy(tmp_path: Path) -> None:
    path = with_hot_journal(tmp_path / "a.db")
    before = path.read_bytes()
    assert rows_of(path) == [f"row {number}" for number in range(500)]
    assert path.read_bytes() == before
    assert names_in(tmp_path) == ["a.db", "a.db-journal"]


def test_writing_rolls_a_hot_journal_back_in_place(tmp_path: Path) -> None:
    path = with_hot_journal(tmp_path / "a.db")
    connection = sqlite_file.open_writable(path, KIND)
    connection.execute("INSERT INTO t (b) VALUES ('new')")
    connection.close()
    assert rows_of(path) == [*(f"row {number}" for number in range(500)), "new"]
    assert names_in(tmp_path) == ["a.db"]


def test_a_closed_write_ahead_log_leaves_nothing_behind(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db", journal="wal")
    assert rows_of(path) == ["row 0", "row 1", "row 2"]
    assert names_in(tmp_path) == ["a.db"]


def test_an_open_write_ahead_log_is_read_in_place(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db", journal="wal")
    writer = apsw.Connection(str(path))
    writer.execute("INSERT INTO t (b) VALUES ('new')")
    reader = sqlite_file.open_readonly(path, KIND)
    assert reader.execute("SELECT count(*) FROM t").fetchall() == [(4,)]
    writer.execute("INSERT INTO t (b) VALUES ('newer')")
    assert reader.execute("SELECT count(*) FROM t").fetchall() == [(5,)]
    reader.close()
    writer.close()


def test_a_log_left_behind_by_a_killed_program_is_read(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db", journal="wal")
    writer = apsw.Connection(str(path))
    writer.execute("INSERT INTO t (b) VALUES ('new')")
    left = tmp_path / "left"
    left.mkdir()
    for name in ("a.db", "a.db-wal"):
        shutil.copy(tmp_path / name, left / name)
    writer.close()
    assert rows_of(left / "a.db") == ["row 0", "row 1", "row 2", "new"]
    assert names_in(left) == ["a.db", "a.db-wal"]


def test_a_file_that_changes_while_it_is_copied_is_copied_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = made(tmp_path / "a.db", journal="wal")
    changes = 0
    copyfile = shutil.copyfile

    def copied(source: Path, target: Path) -> None:
        nonlocal changes
        if changes:
            changes -= 1
            os.utime(path, ns=(changes, changes))
        copyfile(source, target)

    monkeypatch.setattr(shutil, "copyfile", copied)
    changes = 3
    assert len(rows_of(path)) == 3
    assert changes == 0
    changes = 1000
    with pytest.raises(SourceUnavailableError, match="changed while"):
        sqlite_file.open_readonly(path, KIND)


def test_a_database_that_is_held_is_unavailable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "BUSY_TIMEOUT_MS", 10)
    path = made(tmp_path / "a.db")
    writer = apsw.Connection(str(path))
    writer.execute("BEGIN EXCLUSIVE")
    with pytest.raises(SourceUnavailableError, match="holds"):
        sqlite_file.open_readonly(path, KIND)
    writer.execute("COMMIT")
    writer.close()
    assert len(rows_of(path)) == 3


def test_the_token_changes_with_what_is_written(tmp_path: Path) -> None:
    for journal in ("delete", "wal"):
        path = made(tmp_path / f"{journal}.db", journal=journal)
        first = sqlite_file.token(path, KIND)
        assert rows_of(path)
        assert sqlite_file.token(path, KIND) == first
        writer = apsw.Connection(str(path))
        writer.execute("UPDATE t SET b = 'row 9' WHERE id = 1")
        assert sqlite_file.token(path, KIND) != first
        writer.close()


def test_pages_hold_every_row_once_though_rows_come_and_go(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db", rows=10)
    connection = sqlite_file.open_readonly(path, KIND)
    writer = apsw.Connection(str(path))
    seen: list[int] = []
    for batch in sqlite_file.pages(connection, "SELECT id, b FROM t WHERE id > :after ORDER BY id", 0, rows=3):
        seen += [row[0] for row in batch]
        writer.execute("DELETE FROM t WHERE id = 2")
    connection.close()
    writer.close()
    assert seen == list(range(1, 11))


def test_a_page_ends_where_it_becomes_heavy(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db", rows=0)
    writer = apsw.Connection(str(path))
    writer.executemany("INSERT INTO t (b) VALUES (?)", [(b"x" * (3 << 20),)] * 5)
    writer.close()
    connection = sqlite_file.open_readonly(path, KIND)
    sql = "SELECT id, b FROM t WHERE id > :after ORDER BY id"
    assert [len(batch) for batch in sqlite_file.pages(connection, sql, 0)] == [3, 2]
    connection.close()


def test_why_a_file_cannot_be_written_is_told(tmp_path: Path) -> None:
    path = made(tmp_path / "a.db")
    assert sqlite_file.unwritable(path) is None
    assert "may not be written" in (sqlite_file.unwritable(tmp_path / "none.db") or "")
