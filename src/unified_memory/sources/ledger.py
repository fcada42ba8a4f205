"""The ledger of a migration: which record of which source became which memory, and how far the change of services has come.

One SQLite file, written by several processes at once. What is noted is durable when the call returns. Every call is short, so
that it may be made on the event loop where it reads a single fact; whatever walks through many rows does so page by page.
"""

import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

import apsw
import msgspec
from msgspec import Struct

from unified_memory.model.clock import SECOND, Clock, SystemClock
from unified_memory.model.errors import (
    SchemaTooNewError,
    StorageBusyError,
    StorageCorruptError,
    StorageError,
    StorageFullError,
)
from unified_memory.model.location import without_password
from unified_memory.sources.base import Options

SCHEMA = 1
BUSY_TIMEOUT_MS = 30_000
# A proxy that was not heard of for so long is taken for dead.
SILENCE_SECONDS = 5
# A change of services whose doer was not heard of for so long did not take place.
TRANSITION_SECONDS = 15

_TABLES = """
CREATE TABLE facts (name TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE sources (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, location TEXT NOT NULL, options BLOB NOT NULL,
  UNIQUE (kind, location));
CREATE TABLE namespaces (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE rows (number INTEGER PRIMARY KEY AUTOINCREMENT, source INTEGER NOT NULL, origin TEXT NOT NULL,
  namespace INTEGER NOT NULL, key TEXT NOT NULL, digest BLOB NOT NULL, version INTEGER NOT NULL, mark TEXT);
CREATE UNIQUE INDEX rows_origin ON rows (source, origin);
CREATE INDEX rows_place ON rows (namespace, key);
CREATE TABLE labels (label TEXT PRIMARY KEY, source INTEGER NOT NULL, origin TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE renumbered (source INTEGER NOT NULL, origin TEXT NOT NULL, former TEXT NOT NULL, number INTEGER NOT NULL,
  PRIMARY KEY (source, origin)) WITHOUT ROWID;
CREATE TABLE notices (source INTEGER NOT NULL, what TEXT NOT NULL, origin TEXT NOT NULL, code TEXT NOT NULL,
  reason TEXT NOT NULL, stored INTEGER NOT NULL, raw BLOB NOT NULL, pass INTEGER NOT NULL,
  PRIMARY KEY (source, what, origin)) WITHOUT ROWID;
CREATE TABLE returned (source INTEGER NOT NULL, namespace TEXT NOT NULL, key TEXT NOT NULL, origin TEXT, lost BLOB NOT NULL,
  PRIMARY KEY (source, namespace, key)) WITHOUT ROWID;
CREATE TABLE members (id TEXT PRIMARY KEY, service TEXT NOT NULL, pid INTEGER NOT NULL, phase TEXT, heard INTEGER NOT NULL)
  WITHOUT ROWID;
CREATE TABLE compared (service TEXT NOT NULL, tool TEXT NOT NULL, same INTEGER NOT NULL, other INTEGER NOT NULL, sample TEXT,
  PRIMARY KEY (service, tool)) WITHOUT ROWID;
"""
_COLUMNS = "r.number, r.source, r.origin, n.name, r.key, r.digest, r.version, r.mark"
_ROWS = f"SELECT {_COLUMNS} FROM rows r JOIN namespaces n ON n.id = r.namespace"  # noqa: S608 - of the constant above

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_options = msgspec.json.Decoder(Options).decode

What = Literal["quarantine", "conflict", "skipped"]


class Phase(StrEnum):
    """How far the change of services has come.

    NONE, RETURNED: the older service alone answers. SHADOW: it answers, and is copied. SWITCHING, RETURNING: requests are held
    back for a moment. SWITCHED: ours answers, the older one is written too. FINISHED: ours alone.
    """

    NONE = "none"
    SHADOW = "shadow"
    SWITCHING = "switching"
    SWITCHED = "switched"
    RETURNING = "returning"
    RETURNED = "returned"
    FINISHED = "finished"


# What holds where a change was begun and whoever made it was not heard of again.
BEFORE = {Phase.SWITCHING: Phase.SHADOW, Phase.RETURNING: Phase.SWITCHED}


class SourceRef(Struct, frozen=True):
    """A source that was named in this migration."""

    id: int
    kind: str
    location: str
    options: Options

    @property
    def shown(self) -> str:
        """The location without a password."""
        return without_password(self.location)


class Row(Struct):
    """A record of a source and the memory that it is here. `digest`: of the record as it was copied last; `version`: of the
    memory then. `mark`: of the content of a memory that was first here, None for one that came from the source. `number`: of
    the row itself.
    """

    source: int
    origin: str
    namespace: str
    key: str
    digest: bytes
    version: int
    mark: str | None = None
    number: int = 0


class Notice(Struct):
    """Something to be told of a record: that it is quarantined (`stored`: it is here all the same), that something else is
    stored in its place, or that it was left where it is. `raw`: the record as it lies there.
    """

    what: What
    origin: str
    code: str
    reason: str
    stored: bool = False
    raw: bytes = b""


class Renumbered(Struct):
    """A record whose number another one has here: the `former` as JSON text, and the `number` by which it is known now."""

    source: int
    origin: str
    former: str
    number: int


class BackNote(Struct):
    """What was written back: the memory, what names it in the source (None: it is gone), and what its format cannot hold."""

    source: int
    namespace: str
    key: str
    origin: str | None
    lost: tuple[str, ...]


class Member(Struct):
    """A proxy: of which service, and which phase it has acknowledged."""

    id: str
    service: str
    pid: int
    phase: Phase | None


class Comparison(Struct):
    """How often the older service and ours answered alike, and otherwise; the last difference."""

    service: str
    tool: str
    same: int
    other: int
    sample: str | None


class Ledger:
    """The ledger in that file; for any number of threads. Raises StorageError and below."""

    def __init__(self, path: Path, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._lock = threading.Lock()
        self._look = threading.Lock()
        self._writer: apsw.Connection | None = None
        self._reader: apsw.Connection | None = None

    @staticmethod
    def exists(path: Path) -> bool:
        """Whether there is a ledger."""
        return path.exists()

    def open(self) -> None:
        """Makes it ready, and where there is none makes one. Raises SchemaTooNewError."""
        if self._writer is not None:
            return
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(f"Cannot make {self._path.parent}: {error.strerror or error}") from error
        with _told():
            writer = _connect(self._path)
            try:
                _make(writer)
                self._reader = _connect(self._path)
            except BaseException:
                writer.close()
                raise
            self._writer = writer

    def close(self) -> None:
        """Frees everything; may be called more than once."""
        with self._lock, self._look:
            for connection in (self._reader, self._writer):
                if connection is not None:
                    connection.close()
            self._reader = self._writer = None

    # ---- facts
    def phase(self) -> Phase:
        """The phase that holds. One of those that last a moment only holds as long as whoever brings it about renews it."""
        told = self.get("phase") or {}
        phase = Phase(told.get("phase", Phase.NONE))
        if phase in BEFORE and told["until"] <= self._clock.now():
            return BEFORE[phase]
        return phase

    def set_phase(self, phase: Phase, **facts: Any) -> None:
        """Sets the phase; `facts` (JSON-ready) are kept with it. One that lasts a moment only is to be set again and again."""
        now = self._clock.now()
        until = {"until": now + TRANSITION_SECONDS * SECOND} if phase in BEFORE else {}
        self.put("phase", {"phase": phase.value, "since": now, **until, **facts})

    def renew_phase(self, phase: Phase) -> bool:
        """Lets a phase that lasts a moment hold on, where it is still the one that was set; whether it was."""
        return self._change_phase(phase, {"until": self._clock.now() + TRANSITION_SECONDS * SECOND})

    def undo_phase(self, phase: Phase) -> bool:
        """What was before a phase that lasts a moment holds again, where it is still the one that was set; whether it was."""
        return self._change_phase(phase, {"phase": BEFORE[phase].value, "since": self._clock.now()})

    def _change_phase(self, phase: Phase, facts: dict[str, Any]) -> bool:
        with self._writing() as connection:
            found = connection.execute("SELECT value FROM facts WHERE name = 'phase'").fetchone()
            told = {} if found is None else _decode(found[0])
            if told.get("phase") != phase.value:
                return False
            connection.execute("UPDATE facts SET value = ? WHERE name = 'phase'", (_encode(told | facts),))
            return True

    def get(self, name: str) -> Any:
        """The fact of that name; None where there is none."""
        found = self._one("SELECT value FROM facts WHERE name = ?", (name,))
        return None if found is None else _decode(found[0])

    def put(self, name: str, value: Any) -> None:
        """Notes a fact (JSON-ready); None takes it away."""
        with self._writing() as connection:
            if value is None:
                connection.execute("DELETE FROM facts WHERE name = ?", (name,))
            else:
                connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, _encode(value)))

    def take_away(self, name: str, value: Any) -> None:
        """Takes a fact away where it still is that one."""
        with self._writing() as connection:
            connection.execute("DELETE FROM facts WHERE name = ? AND value = ?", (name, _encode(value)))

    # ---- sources
    def sources(self) -> list[SourceRef]:
        """All that were named, in the order in which they were."""
        found = self._all("SELECT id, kind, location, options FROM sources ORDER BY id")
        return [SourceRef(id, kind, location, _options(options)) for id, kind, location, options in found]  # noqa: A001 - its column

    def add_source(self, kind: str, location: str, options: Options) -> SourceRef:
        """Names a source; the same kind and location is the same one, to which the options now said are noted."""
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO sources (kind, location, options) VALUES (?, ?, ?)"
                " ON CONFLICT (kind, location) DO UPDATE SET options = excluded.options",
                (kind, location, _encode(options)),
            )
        return next(one for one in self.sources() if (one.kind, one.location) == (kind, location))

    # ---- rows
    def row(self, source: int, origin: str) -> Row | None:
        """The row of that record."""
        found = self._one(f"{_ROWS} WHERE r.source = ? AND r.origin = ?", (source, origin))
        return None if found is None else _row(found)

    def rows(self, source: int, origins: Sequence[str]) -> dict[str, Row]:
        """The rows of those of the records that have one, by origin."""
        sql = f"{_ROWS} WHERE r.source = ? AND r.origin = ?"
        with self._reading() as connection:
            found = (row for origin in origins for row in connection.execute(sql, (source, origin)))
            return {row[2]: _row(row) for row in found}

    def by_place(self, namespace: str, key: str) -> list[Row]:
        """The rows of the records that are the memory of that key, by source."""
        sql = f"{_ROWS} WHERE n.name = ? AND r.key = ? ORDER BY r.source, r.number"
        return [_row(row) for row in self._all(sql, (namespace, key))]

    def page(self, source: int, after: int, limit: int) -> list[Row]:
        """Up to `limit` rows of a source with a number above `after`, by number."""
        sql = f"{_ROWS} WHERE r.source = ? AND r.number > ? ORDER BY r.number LIMIT ?"
        return [_row(row) for row in self._all(sql, (source, after, limit))]

    def count(self, source: int) -> int:
        """How many rows a source has."""
        found = self._one("SELECT count(*) FROM rows WHERE source = ?", (source,))
        return 0 if found is None else int(found[0])

    def last_number(self) -> int:
        """The highest number of a row; those that come have higher ones."""
        found = self._one("SELECT seq FROM sqlite_sequence WHERE name = 'rows'")
        return 0 if found is None else int(found[0])

    def put_rows(
        self,
        rows: Iterable[Row],
        *,
        labels: Iterable[tuple[str, int, str]] = (),
        renumbered: Iterable[Renumbered] = (),
        notices: Iterable[Notice] = (),
        source: int = 0,
        turn: int = 0,
    ) -> None:
        """Notes rows, labels that were taken (label, source, origin) and what goes with them, together or not at all.

        `source` and `turn`: the pass in which the notices came up.
        """
        with self._writing() as connection:
            spaces: dict[str, int] = {}
            for row in rows:
                if row.namespace not in spaces:
                    spaces[row.namespace] = _space(connection, row.namespace)
                connection.execute(
                    "INSERT INTO rows (source, origin, namespace, key, digest, version, mark) VALUES (?, ?, ?, ?, ?, ?, ?)"
                    " ON CONFLICT (source, origin) DO UPDATE SET namespace = excluded.namespace, key = excluded.key,"
                    " digest = excluded.digest, version = excluded.version, mark = excluded.mark",
                    (row.source, row.origin, spaces[row.namespace], row.key, row.digest, row.version, row.mark),
                )
            connection.executemany("INSERT OR IGNORE INTO labels VALUES (?, ?, ?)", labels)
            connection.executemany(
                "INSERT OR REPLACE INTO renumbered VALUES (?, ?, ?, ?)",
                ((one.source, one.origin, one.former, one.number) for one in renumbered),
            )
            _put_notices(connection, source, turn, notices)

    def drop(self, source: int, origins: Iterable[str]) -> None:
        """Forgets rows; the labels of these records stay taken."""
        with self._writing() as connection:
            connection.executemany(
                "DELETE FROM rows WHERE source = ? AND origin = ?", ((source, origin) for origin in origins)
            )

    def clear(self) -> None:
        """Forgets all rows, labels, notices and what was written back: nothing of it is here any longer."""
        with self._writing() as connection:
            for table in ("rows", "labels", "renumbered", "notices", "returned", "namespaces"):
                connection.execute(f"DELETE FROM {table}")  # noqa: S608 - a name of ours

    # ---- labels
    def labels(self, labels: Iterable[str]) -> dict[str, tuple[int, str]]:
        """Those of the labels that are taken: by which source's record (0 and "": by a memory that was first here)."""
        sql = "SELECT label, source, origin FROM labels WHERE label = ?"
        with self._reading() as connection:
            found = (row for label in labels for row in connection.execute(sql, (label,)))
            return {str(label): (int(str(source)), str(origin)) for label, source, origin in found}

    def renumbered(self, limit: int = 1000) -> list[Renumbered]:
        """The first records that have another number here."""
        sql = "SELECT source, origin, former, number FROM renumbered ORDER BY source, number LIMIT ?"
        found = self._all(sql, (limit,))
        return [Renumbered(*row) for row in found]

    # ---- notices
    def notices(self, what: What) -> Iterator[tuple[SourceRef, Notice]]:
        """All notices of that sort, by source and origin; page by page."""
        for source in self.sources():
            origin = ""
            sql = (
                "SELECT what, origin, code, reason, stored, raw FROM notices WHERE source = ? AND what = ? AND origin > ?"
                " ORDER BY origin LIMIT 100"
            )
            while found := self._all(sql, (source.id, what, origin)):
                for row in found:
                    yield source, Notice(row[0], row[1], row[2], row[3], bool(row[4]), row[5])
                origin = found[-1][1]

    def notice_count(self, source: int, what: What) -> int:
        """How many there are."""
        found = self._one("SELECT count(*) FROM notices WHERE source = ? AND what = ?", (source, what))
        return 0 if found is None else int(found[0])

    def is_quarantined(self, source: int, origin: str) -> bool:
        """Whether a record is listed as one that cannot be stored."""
        sql = "SELECT 1 FROM notices WHERE source = ? AND what = 'quarantine' AND origin = ? AND NOT stored"
        return self._one(sql, (source, origin)) is not None

    def begin_pass(self, source: int) -> int:
        """The number of a pass through a source that begins."""
        with self._writing() as connection:
            found = connection.execute("SELECT coalesce(max(pass), 0) + 1 FROM notices WHERE source = ?", (source,)).get
            return int(str(found))

    def end_pass(self, source: int, turn: int) -> None:
        """Forgets the notices that did not come up in that pass again."""
        with self._writing() as connection:
            connection.execute("DELETE FROM notices WHERE source = ? AND pass < ?", (source, turn))

    # ---- what was written back
    def put_returned(self, notes: Iterable[BackNote]) -> None:
        """Notes what was written back; the last word on each memory counts."""
        with self._writing() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO returned VALUES (?, ?, ?, ?, ?)",
                ((one.source, one.namespace, one.key, one.origin, _encode(one.lost)) for one in notes),
            )

    def clear_returned(self) -> None:
        """Forgets what was written back, which was before a switch that follows."""
        with self._writing() as connection:
            connection.execute("DELETE FROM returned")

    def returned(self, after: tuple[int, str, str] = (0, "", ""), limit: int = 500) -> list[BackNote]:
        """Up to `limit` of what was written back, those behind that (source, namespace, key)."""
        sql = (
            "SELECT source, namespace, key, origin, lost FROM returned WHERE (source, namespace, key) > (?, ?, ?)"
            " ORDER BY source, namespace, key LIMIT ?"
        )
        return [
            BackNote(source, namespace, key, origin, tuple(_decode(lost)))
            for source, namespace, key, origin, lost in self._all(sql, (*after, limit))
        ]

    def returned_count(self) -> int:
        """How many memories were written back."""
        found = self._one("SELECT count(*) FROM returned")
        return 0 if found is None else int(found[0])

    # ---- proxies
    def join(self, proxy_id: str, service: str, pid: int, now: int) -> None:
        """A proxy has begun to stand in for a service; it has acknowledged nothing yet."""
        with self._writing() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO members VALUES (?, ?, ?, NULL, ?)", (proxy_id, service, pid, now)
            )

    def beat(self, proxy_id: str, phase: Phase, now: int) -> None:
        """A proxy is there, and does as that phase says."""
        with self._writing() as connection:
            connection.execute("UPDATE members SET phase = ?, heard = ? WHERE id = ?", (phase.value, now, proxy_id))

    def leave(self, proxy_id: str) -> None:
        """A proxy has ended."""
        with self._writing() as connection:
            connection.execute("DELETE FROM members WHERE id = ?", (proxy_id,))

    def members(self, now: int) -> list[Member]:
        """The proxies that were heard of within five seconds."""
        sql = "SELECT id, service, pid, phase FROM members WHERE heard > ? ORDER BY service, id"
        return [
            Member(proxy_id, service, pid, None if phase is None else Phase(phase))
            for proxy_id, service, pid, phase in self._all(sql, (now - SILENCE_SECONDS * SECOND,))
        ]

    # ---- comparisons
    def compare_note(self, service: str, tool: str, same: bool, sample: str | None) -> None:  # noqa: FBT001 - what came of it
        """Notes that both services were asked, whether they said the same, and else what was different."""
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO compared VALUES (?1, ?2, ?3, 1 - ?3, ?4) ON CONFLICT (service, tool) DO UPDATE SET"
                " same = same + excluded.same, other = other + excluded.other, sample = coalesce(excluded.sample, sample)",
                (service, tool, int(same), sample),
            )

    def comparisons(self) -> list[Comparison]:
        """What came of asking both, by service and tool."""
        return [Comparison(*row) for row in self._all("SELECT * FROM compared ORDER BY service, tool")]

    # ---- within
    @contextmanager
    def _writing(self) -> Iterator[apsw.Connection]:
        """One transaction."""
        with self._lock, _told():
            connection = _opened(self._writer)
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        with self._look, _told():
            yield _opened(self._reader)

    def _one(self, sql: str, bindings: tuple[Any, ...] = ()) -> tuple[Any, ...] | None:
        with self._reading() as connection:
            return connection.execute(sql, bindings).fetchone()

    def _all(self, sql: str, bindings: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        with self._reading() as connection:
            return connection.execute(sql, bindings).fetchall()


def _opened(connection: apsw.Connection | None) -> apsw.Connection:
    if connection is None:
        raise StorageError("The ledger of the migration is closed")
    return connection


def _row(found: tuple[Any, ...]) -> Row:
    number, source, origin, namespace, key, digest, version, mark = found
    return Row(source, origin, namespace, key, digest, version, mark, number)


def _space(connection: apsw.Connection, name: str) -> int:
    connection.execute("INSERT OR IGNORE INTO namespaces (name) VALUES (?)", (name,))
    return int(str(connection.execute("SELECT id FROM namespaces WHERE name = ?", (name,)).get))


def _put_notices(connection: apsw.Connection, source: int, turn: int, notices: Iterable[Notice]) -> None:
    connection.executemany(
        "INSERT OR REPLACE INTO notices VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        ((source, one.what, one.origin, one.code, one.reason, int(one.stored), one.raw, turn) for one in notices),
    )


def _connect(path: Path) -> apsw.Connection:
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(BUSY_TIMEOUT_MS)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _make(connection: apsw.Connection) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        if not _known(int(str(connection.execute("PRAGMA user_version").get))):
            connection.execute(_TABLES)
            connection.execute(f"PRAGMA user_version = {SCHEMA:d}")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def _known(version: int) -> bool:
    """Whether there are tables already. Raises SchemaTooNewError."""
    if version > SCHEMA:
        raise SchemaTooNewError(version, SCHEMA)
    return version > 0


@contextmanager
def _told() -> Iterator[None]:
    """What SQLite says, as errors of the storage."""
    try:
        yield
    except apsw.FullError as error:
        raise StorageFullError from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise StorageBusyError("Another process holds the ledger of the migration for too long") from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise StorageCorruptError(f"The ledger of the migration is damaged: {error}") from error
    except apsw.Error as error:
        raise StorageError(f"The ledger of the migration could not do it: {error}") from error
