"""The spool: writes that wait on disk for a service that is away, in a small SQLite file.

A write is kept as the request that was made, byte for byte, with its Idempotency-Key: however often it is sent, the service does
it once. It is removed when the service has confirmed it, and set aside as failed when the service has refused it for good.
"""

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, cast

import apsw
import msgspec
from msgspec import Struct

from unified_memory.client.errors import EntryNotFoundError, SpoolError, SpoolFullError
from unified_memory.client.protocol import IDEMPOTENCY_KEY, JSON, Answer, Call, decode
from unified_memory.model.clock import SECOND, Clock, SystemClock
from unified_memory.model.errors import StorageFullError, UnifiedMemoryError

Kind = Literal["store", "update", "delete"]
State = Literal["waiting", "failed"]
Place = tuple[str, str]

MAX_ENTRIES = 10_000
MAX_BYTES = 64 * 2**20
# A replayer that says nothing for so long has lost its turn; one whose process is gone loses it at once.
LEASE_SECONDS = 60.0
# The service knows an Idempotency-Key for 24 hours after the write; an hour less allows for slow answers.
KEY_SECONDS = 23 * 3600.0
BUSY_TIMEOUT_MS = 30_000
VERSION = 1
# "UMsp"
APPLICATION_ID = 0x554D7370

_SCHEMA = """
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    request BLOB NOT NULL,
    idempotency_key TEXT NOT NULL,
    made_at INTEGER NOT NULL,
    keyed_at INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting',
    in_fallback INTEGER NOT NULL DEFAULT 0,
    error BLOB
) STRICT;
CREATE INDEX entries_by_place ON entries (namespace, key, id);
CREATE INDEX entries_by_state ON entries (state, id);
-- What the entries come to, so that the limits cost nothing to keep.
CREATE TABLE totals (one INTEGER PRIMARY KEY CHECK (one = 1), entries INTEGER NOT NULL, bytes INTEGER NOT NULL) STRICT;
INSERT INTO totals VALUES (1, 0, 0);
CREATE TRIGGER entry_added AFTER INSERT ON entries BEGIN
    UPDATE totals SET entries = entries + 1, bytes = bytes + length(new.request);
END;
CREATE TRIGGER entry_removed AFTER DELETE ON entries BEGIN
    UPDATE totals SET entries = entries - 1, bytes = bytes - length(old.request);
END;
CREATE TRIGGER entry_changed AFTER UPDATE OF request ON entries BEGIN
    UPDATE totals SET bytes = bytes - length(old.request) + length(new.request);
END;
-- Where memories stand by the replayer's own hand, while writes of the same key still wait.
CREATE TABLE written (
    namespace TEXT NOT NULL,
    key TEXT NOT NULL,
    version INTEGER NOT NULL,
    PRIMARY KEY (namespace, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE lease (one INTEGER PRIMARY KEY CHECK (one = 1), holder TEXT NOT NULL, pid INTEGER NOT NULL, until INTEGER NOT NULL)
STRICT;
"""
_ENTRY = "SELECT id, kind, namespace, key, request, idempotency_key, made_at, keyed_at, state, in_fallback, error FROM entries"

_DUE = """
SELECT id, kind, namespace, key, request, idempotency_key, made_at, keyed_at, state, in_fallback, error FROM entries AS mine
WHERE id > ? AND state = 'waiting' AND NOT EXISTS (
    SELECT 1 FROM entries AS other WHERE other.namespace = mine.namespace AND other.key = mine.key AND other.id < mine.id
    AND other.state = 'waiting')"""


class Request(Struct, frozen=True):
    """A request as it is kept: `content` is the body, a text of JSON."""

    method: str
    target: str
    headers: dict[str, str]
    content: str


class Entry(Struct, frozen=True):
    """A write in the spool. `made_at`: when it was asked for; `keyed_at`: when its Idempotency-Key was made (microseconds since
    the epoch). `in_fallback`: the older service has it, too. `error`: why it failed.
    """

    id: int
    kind: Kind
    namespace: str
    key: str
    request: Request
    idempotency_key: str
    made_at: int
    keyed_at: int
    state: State
    in_fallback: bool
    error: dict[str, Any] | None

    @property
    def body(self) -> dict[str, Any]:
        """What the request says; numbers as `protocol.decode` gives them."""
        content = self.request.content.encode()
        found: dict[str, Any] = decode(Answer(200, JSON, content)) if content else {}
        return found

    @property
    def call(self) -> Call[Any]:
        """The request, to be made again."""
        return Call(
            method=self.request.method,
            target=self.request.target,
            headers={**self.request.headers, IDEMPOTENCY_KEY: self.idempotency_key},
            content=self.request.content.encode(),
            keyed=True,
            place=(self.namespace, self.key),
        )


class Totals(Struct, frozen=True):
    """What is in a spool, and its limits. `bytes` of the requests."""

    waiting: int
    failed: int
    bytes: int
    max_entries: int
    max_bytes: int


@contextlib.contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except apsw.FullError as error:
        raise StorageFullError(f"The disk of the spool {path} is full; nothing was kept") from error
    except apsw.Error as error:
        raise SpoolError(f"The spool {path} could not do it: {error}", path=str(path)) from error


def _request(call: Call[Any]) -> bytes:
    kept = {name: value for name, value in call.headers.items() if name != IDEMPOTENCY_KEY}
    return msgspec.json.encode(Request(call.method, call.target, kept, call.content.decode()))


def _entry(row: tuple[Any, ...]) -> Entry:
    number, kind, namespace, key, content, idempotency_key, made_at, keyed_at, state, in_fallback, error = row
    try:
        request = msgspec.json.decode(content, type=Request)
    except msgspec.MsgspecError as damage:
        raise SpoolError(f"Write {number} of the spool is damaged: {damage}", id=number) from damage
    return Entry(
        number,
        kind,
        namespace,
        key,
        request,
        idempotency_key,
        made_at,
        keyed_at,
        state,
        bool(in_fallback),
        None if error is None else msgspec.json.decode(error),
    )


class Spool:
    """A spool in the file `path`, which is made where it is missing; threads and processes may share it.

    What `add` has returned for is on the disk. One file belongs to one service.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        clock: Clock | None = None,
    ) -> None:
        """Opens it. Raises SpoolError, also where the file is something else.

        Args:
            path: The file; its directory is there.
            max_entries: How many writes it holds at most, failed ones included.
            max_bytes: How many bytes their requests have at most, together.
            clock: Tells when writes were made.
        """
        self.path = Path(path).absolute()
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        # Where a replay that was broken off goes on: writes that never get an answer are not to hold back all others.
        self.resume = 0
        self._clock = clock or SystemClock()
        self._pid = os.getpid()
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        try:
            # What is in it is for its owner only; SQLite gives the files beside it the same mode.
            opened = os.open(self.path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            self._file = os.fstat(opened)
            os.close(opened)
        except OSError as error:
            raise SpoolError(
                f"The spool {self.path} cannot be opened: {error.strerror}", path=str(self.path)
            ) from error
        with _errors(self.path):
            self._writer = self._connect()
            try:
                with self._transaction() as database:
                    self._prepare(database)
                self._reader = self._connect()
            except BaseException:
                self._writer.close()
                raise

    def _connect(self) -> apsw.Connection:
        connection = apsw.Connection(str(self.path))
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        # Before anything of it is changed.
        self._is_new(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _prepare(self, database: apsw.Connection) -> None:
        if self._is_new(database):
            database.execute(_SCHEMA)
            database.pragma("application_id", APPLICATION_ID)
            database.pragma("user_version", VERSION)

    def _is_new(self, database: apsw.Connection) -> bool:
        """Whether nothing is in the file. Raises SpoolError where it is something else than a spool."""
        version, application = database.pragma("user_version"), database.pragma("application_id")
        if (version, application) == (0, 0) and database.execute("SELECT count(*) FROM sqlite_schema").get == 0:
            return True
        if application != APPLICATION_ID:
            raise SpoolError(f"{self.path} is no spool", path=str(self.path))
        if version != VERSION:
            raise SpoolError(f"The spool {self.path} has schema {version}; this program knows {VERSION}", found=version)
        return False

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            # https://www.sqlite.org/howtocorrupt.html, 2.6
            raise SpoolError(
                f"The spool {self.path} was opened by the process that this one was forked from",
                hint="Open it, or make the client, after the fork",
            )

    def _check_file(self) -> None:
        """Raises SpoolError where what is written would be gone with the last process that has the file open."""
        try:
            same = os.path.samestat(self.path.stat(), self._file)
        except OSError:
            same = False
        if not same:
            raise SpoolError(f"The spool {self.path} was removed or replaced while it was open; nothing was kept")

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[apsw.Connection]:
        self._check_process()
        with self._writing, _errors(self.path):
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself where the disk failed it.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    def _rows(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        self._check_process()
        with self._reading, _errors(self.path):
            return self._reader.execute(sql, bindings).fetchall()

    # ---- what is in it
    def add(self, kind: Kind, call: Call[Any]) -> Entry:
        """Keeps a write of one memory, whose call has an Idempotency-Key, behind all that are there.

        Raises SpoolFullError where a limit is reached, StorageFullError where the disk is full, SpoolError.
        """
        if call.place is None:
            raise SpoolError("Only the write of one memory can be kept")
        namespace, key = call.place
        request, now = _request(call), self._clock.now()
        with self._transaction() as database:
            self._check_file()
            entries, size = database.execute("SELECT entries, bytes FROM totals").fetchone() or (0, 0)
            if entries >= self.max_entries or size + len(request) > self.max_bytes:
                raise SpoolFullError(entries, size, self.max_entries, self.max_bytes)
            row = database.execute(
                "INSERT INTO entries (kind, namespace, key, request, idempotency_key, made_at, keyed_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)"
                " RETURNING id, kind, namespace, key, request, idempotency_key, made_at, keyed_at, state, in_fallback, error",
                (kind, namespace, key, request, call.headers[IDEMPOTENCY_KEY], now, now),
            ).fetchall()[0]
        return _entry(row)

    def waits(self, place: Place | None = None) -> bool:
        """Whether any write waits, or any of that memory."""
        if place is None:
            return bool(self._rows("SELECT 1 FROM entries WHERE state = 'waiting' LIMIT 1"))
        sql = "SELECT 1 FROM entries WHERE namespace = ? AND key = ? AND state = 'waiting' LIMIT 1"
        return bool(self._rows(sql, place))

    def waiting(self, place: Place) -> list[Entry]:
        """The writes of a memory that wait, in order."""
        sql = f"{_ENTRY} WHERE namespace = ? AND key = ? AND state = 'waiting' ORDER BY id"
        return [_entry(row) for row in self._rows(sql, place)]

    def due(self, place: Place | None = None, *, after: int = 0) -> Entry | None:
        """The next write that waits, behind the one of the number `after`, where no other of its memory has to go before it."""
        # Read one by one: they may be large, and may be dropped meanwhile.
        if place is None:
            rows = self._rows(f"{_DUE} ORDER BY id LIMIT 1", (after,))
        else:
            rows = self._rows(f"{_DUE} AND namespace = ? AND key = ? ORDER BY id LIMIT 1", (after, *place))
        return _entry(rows[0]) if rows else None

    def entries(self, state: State | None = None, *, limit: int | None = None, after: int = 0) -> list[Entry]:
        """Writes in order, behind the one of the number `after`: of a state, or of both."""
        sql = f"{_ENTRY} WHERE id > ? AND (state = ? OR ? IS NULL) ORDER BY id LIMIT ?"
        return [_entry(row) for row in self._rows(sql, (after, state, state, -1 if limit is None else limit))]

    def get(self, entry_id: int) -> Entry:
        """The write of that number. Raises EntryNotFoundError."""
        rows = self._rows(f"{_ENTRY} WHERE id = ?", (entry_id,))
        if not rows:
            raise EntryNotFoundError(entry_id)
        return _entry(rows[0])

    def totals(self) -> Totals:
        """What is in it, and its limits."""
        ((failed,),) = self._rows("SELECT count(*) FROM entries WHERE state = 'failed'")
        ((entries, size),) = self._rows("SELECT entries, bytes FROM totals")
        return Totals(entries - failed, failed, size, self.max_entries, self.max_bytes)

    def written(self, place: Place) -> int | None:
        """The version to which the last replay of a write has brought a memory, of which others still wait."""
        rows = self._rows("SELECT version FROM written WHERE namespace = ? AND key = ?", place)
        return rows[0][0] if rows else None

    # ---- what becomes of it
    def mark_in_fallback(self, entry_id: int) -> None:
        """Notes that the older service has it, too."""
        with self._transaction() as database:
            database.execute("UPDATE entries SET in_fallback = 1 WHERE id = ?", (entry_id,))

    def rekey(self, entry: Entry, call: Call[Any]) -> Entry:
        """Gives a write another request and another Idempotency-Key, before it is sent with them; returns it."""
        with self._transaction() as database:
            database.execute(
                "UPDATE entries SET request = ?, idempotency_key = ?, keyed_at = ? WHERE id = ?",
                (_request(call), call.headers[IDEMPOTENCY_KEY], self._clock.now(), entry.id),
            )
        return self.get(entry.id)

    def outdated(self, entry: Entry) -> bool:
        """Whether the service may no longer know its Idempotency-Key."""
        return self._clock.now() - entry.keyed_at > KEY_SECONDS * SECOND

    def done(self, entry: Entry, version: int | None, holder: str) -> None:
        """Removes a write that the service has confirmed; it brought the memory to that version (None: it is not told)."""
        with self._transaction() as database:
            database.execute("DELETE FROM entries WHERE id = ?", (entry.id,))
            if version is not None:
                place = (entry.namespace, entry.key)
                database.execute("INSERT OR REPLACE INTO written VALUES (?, ?, ?)", (*place, version))
            self._forget_written(database, entry)
            self._prolong(database, holder)

    def _forget_written(self, database: apsw.Connection, entry: Entry) -> None:
        """Forgets the version of a memory of which nothing waits any more."""
        place = (entry.namespace, entry.key)
        database.execute(
            "DELETE FROM written WHERE namespace = ? AND key = ? AND NOT EXISTS ("
            "SELECT 1 FROM entries WHERE namespace = ? AND key = ? AND state = 'waiting')",
            (*place, *place),
        )

    def fail(self, entry: Entry, error: UnifiedMemoryError, holder: str) -> None:
        """Sets a write aside that the service has refused for good; the others go on."""
        told = {"code": error.code, "detail": error.detail, "hint": error.hint, "facts": error.facts}
        with self._transaction() as database:
            database.execute(
                "UPDATE entries SET state = 'failed', error = ? WHERE id = ?", (msgspec.json.encode(told), entry.id)
            )
            self._forget_written(database, entry)
            self._prolong(database, holder)

    def retry(self) -> int:
        """Lets those that failed wait again, in their old places; returns how many there are."""
        with self._transaction() as database:
            before = database.total_changes()
            database.execute("UPDATE entries SET state = 'waiting', error = NULL WHERE state = 'failed'")
            return database.total_changes() - before

    def drop(self, entry_id: int) -> Entry:
        """Removes a write for good; returns it. Raises EntryNotFoundError."""
        entry = self.get(entry_id)
        with self._transaction() as database:
            database.execute("DELETE FROM entries WHERE id = ?", (entry_id,))
            self._forget_written(database, entry)
        return entry

    # ---- who replays it
    def take(self, holder: str) -> bool:
        """Takes the turn to replay, until a minute behind the last write that was done; False where another holder has it."""
        now = self._clock.now()
        longest = now + round(LEASE_SECONDS * SECOND)
        with self._transaction() as database:
            for other, pid, until in self._lease(database):
                # An end beyond a minute is from before the clock was put back.
                if other != holder and now < until <= longest and _is_alive(pid):
                    return False
            database.execute("INSERT OR REPLACE INTO lease VALUES (1, ?, ?, ?)", (holder, os.getpid(), longest))
            return True

    def _lease(self, database: apsw.Connection) -> list[tuple[str, int, int]]:
        return cast("list[tuple[str, int, int]]", database.execute("SELECT holder, pid, until FROM lease").fetchall())

    def release(self, holder: str) -> None:
        """Gives the turn back, where that holder has it."""
        with self._transaction() as database:
            database.execute("DELETE FROM lease WHERE holder = ?", (holder,))

    def _prolong(self, database: apsw.Connection, holder: str) -> None:
        until = self._clock.now() + round(LEASE_SECONDS * SECOND)
        database.execute("UPDATE lease SET until = ? WHERE holder = ?", (until, holder))

    def close(self) -> None:
        """Closes the file; what waits in it stays."""
        with self._writing, self._reading:
            self._reader.close()
            self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
