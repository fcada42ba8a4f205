"""Another program's SQLite file, opened so that the program goes on working with it, and its rows read page by page.

The file itself is read through SQLite only: closing it as an ordinary file would end every lock that this process has on it
(https://www.sqlite.org/howtocorrupt.html, section 2.2).
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import apsw

from unified_memory.model.errors import InvalidInputError, SourceError, SourceUnavailableError

BUSY_TIMEOUT_MS = 5_000
WRITE_TIMEOUT_MS = 15_000
PAGE_ROWS = 500
PAGE_BYTES = 8 << 20
COPIES = 5
# https://www.sqlite.org/fileformat2.html#the_database_header
_MAGIC = b"SQLite format 3\0"
_HEADER_BYTES = 100
_READ_VERSION = slice(19, 20)
_WAL_VERSION = b"\2"
_CHANGE_COUNTER = slice(24, 28)
_PIECE = 1 << 20
_BESIDE = ("-journal", "-wal")
# What SQLite answers where it may only read, and the file or its directory would have to be written first.
_NEEDS_A_COPY = (
    apsw.SQLITE_READONLY_ROLLBACK,
    apsw.SQLITE_READONLY_RECOVERY,
    apsw.SQLITE_READONLY_CANTINIT,
    apsw.SQLITE_READONLY_CANTLOCK,
    apsw.SQLITE_READONLY_DIRECTORY,
)


@contextlib.contextmanager
def source_errors(kind: str, path: Path) -> Iterator[None]:
    """Turns what SQLite and the file system raise into SourceError, and SourceUnavailableError where later it may work."""
    try:
        yield
    except (apsw.BusyError, apsw.LockedError):
        raise SourceUnavailableError(
            kind, str(path), "Another process holds the database for too long", hint="Try again later"
        ) from None
    except (apsw.NotADBError, apsw.CorruptError) as error:
        raise SourceError(
            kind, str(path), f"It is damaged, or no SQLite database: {error}", hint="sqlite3 FILE .recover may help"
        ) from error
    except apsw.ReadOnlyError as error:
        if cast("Any", error).extendedresult in _NEEDS_A_COPY:
            raise SourceUnavailableError(
                kind, str(path), "Its program was stopped while it wrote", hint="Try again"
            ) from error
        raise SourceError(kind, str(path), f"It cannot be written: {error}") from error
    except apsw.Error as error:
        raise SourceError(kind, str(path), f"SQLite could not do it: {error}") from error
    except OSError as error:
        raise SourceError(kind, str(path), f"The file cannot be used: {error.strerror}") from error


def place(location: str) -> Path:
    """The path that was named, `~` meant as a shell means it. Raises InvalidInputError naming `source`."""
    try:
        return Path(location).expanduser()
    except RuntimeError as error:
        raise InvalidInputError("source", f"There is no such home directory: {error}") from None


def open_readonly(path: Path, kind: str) -> apsw.Connection:
    """A connection that cannot write, and waits 5 s for a lock.

    The file is read in its place. Where that would need writing beside it (its program was stopped in the midst of a
    transaction; a write-ahead log that no process has open), a private copy is read instead: then the connection shows what
    was there when it was opened. Raises SourceError where it is no SQLite database, SourceUnavailableError where it is busy.
    """
    with source_errors(kind, path):
        connection = _connect(path, kind, apsw.SQLITE_OPEN_READONLY, BUSY_TIMEOUT_MS)
        try:
            if not _would_leave_files(connection, path):
                with contextlib.suppress(apsw.ReadOnlyError, apsw.CantOpenError):
                    connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
                    return connection
            copy = _copied(connection, path, kind)
        except BaseException:
            connection.close()
            raise
        connection.close()
        return copy


def open_writable(path: Path, kind: str) -> apsw.Connection:
    """A connection that writes and waits 15 s for a lock; the journal mode stays. Raises as `open_readonly`."""
    with source_errors(kind, path):
        connection = _connect(path, kind, apsw.SQLITE_OPEN_READWRITE, WRITE_TIMEOUT_MS)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        except BaseException:
            connection.close()
            raise
        return connection


def unwritable(path: Path) -> str | None:
    """Why a file and the journal beside it cannot be written, in a sentence; None where they can."""
    if not os.access(path, os.W_OK):
        return f"{path} may not be written"
    if not os.access(path.parent, os.W_OK | os.X_OK):
        return f"No journal may be written in {path.parent}"
    return None


def token(path: Path, kind: str) -> tuple[int, ...]:
    """Equal as long as nothing was written: size and time of change of the file and its log, and SQLite's change counter."""
    with source_errors(kind, path):
        connection = _connect(path, kind, apsw.SQLITE_OPEN_READONLY, BUSY_TIMEOUT_MS)
        try:
            return _token(connection, path)
        finally:
            connection.close()


def tables(connection: apsw.Connection) -> set[str]:
    """The names of the tables."""
    return {str(name) for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}


def columns(connection: apsw.Connection, table: str) -> set[str]:
    """The names of the columns of a table; none where there is no such table."""
    return {str(name) for (name,) in connection.execute("SELECT name FROM pragma_table_info(?)", (table,))}


def page(
    connection: apsw.Connection, sql: str, bindings: Mapping[str, Any], rows: int = PAGE_ROWS
) -> list[tuple[Any, ...]]:
    """The first rows that the query gives: at most `rows`, and no more after 8 MiB of text and blobs.

    Fewer than asked for need not be the last; an empty page is. Where the query selects what comes after the last row of the
    page before (keyset paging), no lock is held between two pages.
    """
    found: list[tuple[Any, ...]] = []
    weight = 0
    cursor = connection.cursor()
    try:
        for row in cursor.execute(sql, bindings):
            found.append(row)
            weight += sum(len(part) for part in row if isinstance(part, str | bytes))
            if len(found) >= rows or weight >= PAGE_BYTES:
                break
    finally:
        cursor.close(force=True)
    return found


def pages(
    connection: apsw.Connection,
    sql: str,
    after: Any,
    rows: int = PAGE_ROWS,
    bindings: Mapping[str, Any] | None = None,
) -> Iterator[list[tuple[Any, ...]]]:
    """All pages of a query that selects the rows after `:after`, ordered by its first column, which tells them apart."""
    while batch := page(connection, sql, {**(bindings or {}), "after": after}, rows):
        yield batch
        after = batch[-1][0]


def encoding(connection: apsw.Connection) -> str:
    """Python's name of the encoding of its texts: a text cast to a blob is in it."""
    (name,) = connection.execute("PRAGMA encoding").fetchall()[0]
    return str(name)


def _connect(path: Path, kind: str, flags: int, busy_timeout: int) -> apsw.Connection:
    if not path.is_file():
        what = "It is no file" if path.exists() else "There is no such file"
        raise SourceError(kind, str(path), what)
    connection = apsw.Connection(os.fspath(path.absolute()), flags=flags)
    try:
        header = _header(connection)
        connection.set_busy_timeout(busy_timeout)
        # Functions and tables that its schema names are not ours to run.
        connection.config(apsw.SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0)
        connection.config(apsw.SQLITE_DBCONFIG_DEFENSIVE, 1)
    except BaseException:
        connection.close()
        raise
    if not header.startswith(_MAGIC):
        connection.close()
        raise SourceError(kind, str(path), "It is no SQLite database")
    return connection


def _header(connection: apsw.Connection) -> bytes:
    return connection.read("main", 0, 0, _HEADER_BYTES)[1]


def _token(connection: apsw.Connection, path: Path) -> tuple[int, ...]:
    about = [*_state(path), int.from_bytes(_header(connection)[_CHANGE_COUNTER])]
    for suffix in _BESIDE:
        about += _state(_beside(path, suffix))
    return tuple(about)


def _would_leave_files(connection: apsw.Connection, path: Path) -> bool:
    """Whether it has a write-ahead log that no process has open: reading it in its place would make the files of one."""
    if _header(connection)[_READ_VERSION] != _WAL_VERSION:
        return False
    return not (_beside(path, "-wal").exists() and _beside(path, "-shm").exists())


def _copied(connection: apsw.Connection, path: Path, kind: str) -> apsw.Connection:
    with tempfile.TemporaryDirectory(prefix="unified-memory-") as directory:
        target = Path(directory, "copy.db")
        for _ in range(COPIES):
            before = _token(connection, path)
            _copy_database(connection, path.stat().st_size, target)
            for suffix in _BESIDE:
                _beside(target, suffix).unlink(missing_ok=True)
                # One that ends in the meantime makes another token.
                with contextlib.suppress(FileNotFoundError):
                    shutil.copyfile(_beside(path, suffix), _beside(target, suffix))
            if _token(connection, path) == before:
                break
        else:
            raise SourceUnavailableError(
                kind, str(path), "It changed while it was copied", hint="Try again when its program is idle"
            )
        copy = _connect(target, kind, apsw.SQLITE_OPEN_READWRITE, BUSY_TIMEOUT_MS)
        try:
            # It becomes one file, whose name is needed no longer.
            copy.execute("PRAGMA journal_mode = DELETE")
            copy.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            copy.execute("PRAGMA query_only = ON")
        except BaseException:
            copy.close()
            raise
        return copy


def _copy_database(connection: apsw.Connection, size: int, target: Path) -> None:
    with target.open("wb") as file:
        for offset in range(0, size, _PIECE):
            file.write(connection.read("main", 0, offset, min(_PIECE, size - offset))[1])


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _state(path: Path) -> tuple[int, ...]:
    try:
        about = path.stat()
    except FileNotFoundError:
        return (0, 0, 0)
    return (about.st_mtime_ns, about.st_size, about.st_ino)
