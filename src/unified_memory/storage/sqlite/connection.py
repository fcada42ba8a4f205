"""Connections to the database file, its schema steps, and SQLite's errors in our words."""

import contextlib
import errno
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Protocol, Self, cast, overload

import apsw

from unified_memory.model.errors import (
    SchemaTooNewError,
    StorageBusyError,
    StorageCorruptError,
    StorageError,
    StorageFullError,
    UnsuitableDirectoryError,
)
from unified_memory.storage.sqlite.schema import STEPS, VERSION

BUSY_TIMEOUT_MS = 30_000
_OCTAL = re.compile(r"\\([0-7]{3})")
# File systems on which neither locks nor syncs can be trusted by several machines.
_NETWORK = (
    "nfs",
    "cifs",
    "smb",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "gpfs",
    "sshfs",
    "s3fs",
    "rclone",
)


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Turns what SQLite raises into StorageError and below."""
    try:
        yield
    except apsw.Error as error:
        raise translate(error) from error


def translate(error: apsw.Error) -> StorageError:
    """The error of our tree that says what SQLite said."""
    if isinstance(error, apsw.FullError):
        return StorageFullError()
    if isinstance(error, apsw.BusyError | apsw.LockedError):
        return StorageBusyError("Another process holds the database for too long")
    if isinstance(error, apsw.CorruptError | apsw.NotADBError):
        return StorageCorruptError(
            f"The database is damaged: {error}", hint="Run unified-memory check, or restore a backup"
        )
    return StorageError(f"The database could not do it: {error}", sqlite=type(error).__name__)


class Rows(Protocol):
    """The result of a statement; `get` is the first column of a row of one column, else the first row, None without any."""

    def fetchone(self) -> tuple[Any, ...] | None: ...
    def fetchall(self) -> list[tuple[Any, ...]]: ...
    def __iter__(self) -> Iterator[tuple[Any, ...]]: ...
    @property
    def get(self) -> Any: ...


class Tokenizer(Protocol):
    """Cuts UTF-8 text into (first byte, byte after the last, term), or into terms alone."""

    @overload
    def __call__(self, utf8: bytes, flags: int, locale: str | None) -> list[tuple[int, int, str]]: ...
    @overload
    def __call__(
        self,
        utf8: bytes,
        flags: int,
        locale: str | None,
        *,
        include_offsets: Literal[False],
        include_colocated: Literal[False],
    ) -> list[str]: ...


class Database(Protocol):
    """What we use of apsw's connection, with rows as what our columns hold: it types every value as any of SQLite's."""

    in_transaction: bool

    def execute(self, sql: str, bindings: Any = ..., /) -> Rows: ...
    def executemany(self, sql: str, bindings: Any, /) -> Rows: ...
    def last_insert_rowid(self) -> int: ...
    def total_changes(self) -> int: ...
    def fts5_tokenizer(self, name: str, args: list[str]) -> Tokenizer: ...
    def register_fts5_tokenizer(self, name: str, factory: Any) -> None: ...
    def create_scalar_function(self, name: str, callable: Any, numargs: int) -> None: ...  # noqa: A002 - apsw's own names
    def set_wal_hook(self, hook: Any) -> None: ...
    def wal_autocheckpoint(self, pages: int) -> None: ...
    def wal_checkpoint(self, *, mode: int) -> tuple[int, int]: ...
    def set_busy_timeout(self, milliseconds: int) -> None: ...
    def close(self) -> None: ...


def connect(path: Path, *, cache_kib: int, writer: bool = False) -> Database:
    """A connection: write-ahead log, every commit synced, freed pages overwritten. Readers cannot write."""
    connection = _open(path)
    connection.execute(f"PRAGMA cache_size = -{cache_kib:d}")
    connection.execute("PRAGMA temp_store = MEMORY")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")
    if writer:
        # The writer checkpoints by itself, after those who wait have their answers.
        connection.wal_autocheckpoint(0)
    else:
        connection.execute("PRAGMA query_only = ON")
    return connection


def _open(path: Path) -> Database:
    connection = cast("Database", apsw.Connection(os.fspath(path)))
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    return connection


def check_directory(directory: Path) -> None:
    """Raises UnsuitableDirectoryError where the directory cannot keep what is promised."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UnsuitableDirectoryError(
            f"{directory} cannot be made: {error.strerror}", directory=str(directory)
        ) from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise UnsuitableDirectoryError(f"{directory} is not writable", directory=str(directory))
    kind = file_system(directory)
    if kind.removeprefix("fuse.").startswith(_NETWORK):
        raise UnsuitableDirectoryError(
            f"{directory} lies on a network file system ({kind}), where a database is not safe",
            hint="Use a local directory; for several machines use PostgreSQL",
            directory=str(directory),
            file_system=kind,
        )


def file_system(directory: Path, mounts: Path = Path("/proc/self/mountinfo")) -> str:
    """The kind of the file system that holds the directory, empty where the system does not tell."""
    if not mounts.exists():
        return ""
    place, kind = "", ""
    where = os.fspath(directory.resolve())
    for line in mounts.read_text(encoding="utf-8", errors="replace").splitlines():
        left, _, right = line.partition(" - ")
        # The kernel writes blanks and backslashes as octal numbers.
        point = _OCTAL.sub(lambda digits: chr(int(digits[1], 8)), left.split(" ")[4])
        inside = where == point or where.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(place):
            place, kind = point, right.split(" ")[0]
    return kind


def prepare(path: Path, now: int, program: str) -> None:
    """Makes the database where there is none and carries out the schema steps that are missing, under `WriteLock`."""
    connection = _open(path)
    try:
        found = schema_version(connection)
        if found > VERSION:
            raise SchemaTooNewError(found, VERSION)
        if found == VERSION:
            return
        if found == 0 and connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").get and not _being_made(connection):
            raise UnsuitableDirectoryError(f"{path} is a database of another program", path=str(path))
        with WriteLock(path):
            if found == 0:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            try:
                # Another process may have been faster.
                for number in range(schema_version(connection) + 1, VERSION + 1):
                    name, script = STEPS[number - 1]
                    connection.execute(script)
                    connection.execute("INSERT INTO schema_steps VALUES (?, ?, ?, ?)", (number, name, now, program))
                    connection.execute(f"PRAGMA user_version = {number:d}")
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
    finally:
        connection.close()


def _being_made(connection: Database) -> bool:
    """Whether another process has made the tables since we asked for the version."""
    return schema_version(connection) > 0


def schema_version(connection: Database) -> int:
    """The number of the last schema step that was carried out."""
    return int(connection.execute("PRAGMA user_version").get)


class WriteLock:
    """One writer at a time among all processes, first come first served.

    SQLite lets waiting writers poll, so that a busy process can starve the others. Whoever wants to write takes the
    turn first and keeps it until the write lock is theirs: the one that just wrote must queue behind them.

    Raises StorageFullError and StorageError where its files cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self._turn = _opened(f"{path}-turn")
        try:
            self._write = _opened(f"{path}-write")
        except StorageError:
            os.close(self._turn)
            raise

    def acquire(self) -> None:
        fcntl.flock(self._turn, fcntl.LOCK_EX)
        try:
            fcntl.flock(self._write, fcntl.LOCK_EX)
        finally:
            fcntl.flock(self._turn, fcntl.LOCK_UN)

    def release(self) -> None:
        fcntl.flock(self._write, fcntl.LOCK_UN)

    def close(self) -> None:
        os.close(self._turn)
        os.close(self._write)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self.close()


def _opened(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFullError from error
        raise StorageError(f"{path} cannot be opened: {error.strerror}") from error
