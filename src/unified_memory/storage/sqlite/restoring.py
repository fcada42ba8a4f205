"""Putting rows back as they were: directories for databases that are begun aside, and what fills them."""

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import msgspec

from unified_memory.model.analysis import index_text
from unified_memory.model.errors import StorageError, StorageFullError
from unified_memory.model.history import Past
from unified_memory.model.memory import NO_ATTRIBUTES, Memory
from unified_memory.model.search import describe
from unified_memory.model.session import Session
from unified_memory.storage.dump import Buried, Floor, Row, Space, Used
from unified_memory.storage.portions import portions
from unified_memory.storage.sqlite import past
from unified_memory.storage.sqlite.connection import Database
from unified_memory.storage.sqlite.languages import Languages
from unified_memory.storage.sqlite.rows import SIZE
from unified_memory.storage.sqlite.scopes import scope_tokens
from unified_memory.storage.sqlite.transaction import BURY, Transaction, keywords_text

# Rows of one statement.
CHUNK = 1_000
MAX_KNOWN_TAGS = 10_000

_encode = msgspec.json.Encoder().encode


class _Tags(msgspec.Struct):
    tags: tuple[str, ...] = ()


_tags = msgspec.json.Decoder(_Tags)

# Rows come as a JSON array of arrays; `->>` gives their members as SQL values.
_MEMORIES = """INSERT INTO memories (id, key, namespace_id, importance, version, seq, created_at, updated_at, expires_at,
    access_count, last_accessed, session_id, project_id, metadata, value_json)
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>7, value->>8,
           value->>9, value->>10, value->>11, value->>12, value->>13, value->>14 FROM json_each(?)"""
_SEARCH_INDEX = """INSERT INTO search_index (memory_id, keywords, content_hash)
    SELECT value->>0, value->>1, unhex(value->>2) FROM json_each(?)"""
_TEXT = """INSERT INTO memory_text (rowid, body, title, scope)
    SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each(?)"""
_TAG = "INSERT INTO memory_tags SELECT value->>0, value->>1 FROM json_each(?)"
_UNTAG = "DELETE FROM memory_tags WHERE (tag_id, memory_id) IN (SELECT value->>0, value->>1 FROM json_each(?))"
_NEW_TAGS = "INSERT OR IGNORE INTO tags (name) SELECT value FROM json_each(?)"
_FIND_TAGS = "SELECT t.name, t.id FROM json_each(?) AS j CROSS JOIN tags t ON t.name = j.value"
_IN_THE_WAY = """SELECT m.id FROM json_each(?1) AS j CROSS JOIN memories m ON m.id = j.value->>0
    UNION SELECT m.id FROM json_each(?1) AS j CROSS JOIN memories m ON m.namespace_id = j.value->>1 AND m.key = j.value->>2"""
_OF_DROPPED = f"""SELECT m.id, m.namespace_id, m.key, m.version, m.metadata, {SIZE} FROM json_each(?) AS j
    CROSS JOIN memories m ON m.id = j.value"""  # noqa: S608 - fixed columns
_DROPS = tuple(
    f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))"  # noqa: S608 - fixed names
    for table, column in (
        ("memory_text", "rowid"),
        ("search_index", "memory_id"),
        ("vectors", "memory_id"),
        ("stale_text", "memory_id"),
        ("archived", "memory_id"),
        ("memories", "id"),
    )
)
_COUNT = (
    "UPDATE namespaces SET memories = memories + ?, bytes = bytes + ?, top_version = max(top_version, ?) WHERE id = ?"
)
_PAST_COLUMNS = (
    "memory_id", "version", "namespace_id", "key", "importance", "seq", "created_at", "updated_at", "expires_at", "ended_at",
    "session_id", "project_id", "metadata", "touched", "bytes", "redacted_at",
)  # fmt: skip
# Behind these columns comes the value, NULL where it is gone.
_PAST = (
    f"INSERT INTO past ({', '.join(_PAST_COLUMNS)}, coding, value)"  # noqa: S608 - fixed columns
    f" SELECT {', '.join(f'value->>{at}' for at in range(16))}, iif(value->>16 IS NULL, {past.GONE}, {past.FRESH}),"
    " CAST(value->>16 AS BLOB) FROM json_each(?) WHERE true ON CONFLICT (memory_id, version) DO UPDATE SET "
    + ", ".join(f"{name} = excluded.{name}" for name in (*_PAST_COLUMNS[2:], "coding", "value"))
    + ", base = NULL, depth = 0"
)
_SESSION = """INSERT OR REPLACE INTO sessions (namespace_id, id, cluster_id, project_id, ttl, metadata, created_at, last_used,
    expires_at, ended_at) VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT), ?, ?, ?, ?)"""


class Aside:
    """A directory beside a database, for another one. It is held by a lock: while that lives nobody removes it.

    Raises StorageFullError and StorageError where it cannot be made.
    """

    def __init__(self, beside: Path) -> None:
        with _told():
            while True:
                self.directory = beside.parent / f"{beside.name}-aside-{secrets.token_hex(4)}"
                self.directory.mkdir(mode=0o700)
                self._lock = _locked(self.directory)
                if self._lock is not None:
                    break
        self.database = self.directory / "memory.db"

    def remove(self) -> None:
        """Removes the directory with all in it. May be called more than once. Raises StorageError."""
        if self._lock is not None:
            with _told():
                shutil.rmtree(self.directory)
            os.close(self._lock)
            self._lock = None


def sweep(beside: Path) -> None:
    """Removes the directories that processes have left which are no longer there."""
    for directory in sorted(beside.parent.glob(f"{_literally(beside.name)}-aside-????????")):
        # What cannot be removed, or locked for want of room, keeps nobody from going on.
        with contextlib.suppress(OSError):
            lock = _locked(directory)
            if lock is not None:
                shutil.rmtree(directory, ignore_errors=True)
                os.close(lock)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise StorageFullError from error
        raise StorageError(f"{error.filename}: {error.strerror}") from error


def _literally(name: str) -> str:
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in name)


def _locked(directory: Path) -> int | None:
    """The lock of a directory; None where somebody else has it, or has removed the directory."""
    try:
        lock = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with contextlib.suppress(BlockingIOError, FileNotFoundError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(lock).st_ino == (directory / "lock").stat().st_ino:
            return lock
    os.close(lock)
    return None


class Target(NamedTuple):
    """A namespace that rows are put into: its row, its name, and the language of its memories."""

    id: int
    name: str
    language: str


class Dropped(NamedTuple):
    """What was known of a memory that was taken out."""

    id: int
    namespace_id: int
    key: str
    version: int


class Filling:
    """Puts memories into the tables as they are, with all that is derived of them, and takes others out; inside a transaction
    that somebody else has begun.
    """

    def __init__(self, connection: Database) -> None:
        self._connection = connection
        self._tags: dict[str, int] = {}
        # By namespace: memories, bytes, highest version.
        self._use: dict[int, list[int]] = {}

    def put(self, memories: Sequence[tuple[Memory, Target]]) -> None:
        """Puts memories, with the ids, versions, places and instants that they have. Their values are warm."""
        rows, hashes, texts, tags = [], [], [], []
        known = self._tag_ids({tag for memory, _ in memories for tag in memory.tags})
        for memory, target in memories:
            about = describe(memory.key, memory.attributes, memory.parsed())
            rows.append(
                (
                    memory.id, memory.key, target.id, memory.importance, memory.version, memory.seq, memory.created_at,
                    memory.updated_at, memory.expires_at, memory.access_count, memory.last_accessed, memory.session_id,
                    memory.project_id, None if memory.attributes == NO_ATTRIBUTES else memory.attributes.decode(),
                    memory.value.decode(),
                )
            )  # fmt: skip
            hashes.append((memory.id, keywords_text(about.keywords), about.content_hash.hex()))
            texts.append(
                (
                    memory.id,
                    index_text(about.text, target.language),
                    index_text(about.title_text, target.language),
                    scope_tokens(target.name),
                )
            )
            tags += [(known[tag], memory.id) for tag in set(memory.tags)]
            self._count(target.id, 1, len(memory.value), memory.version)
        self._run(_MEMORIES, rows)
        self._run(_SEARCH_INDEX, hashes)
        self._run(_TEXT, texts)
        self._run(_TAG, sorted(tags))

    def in_the_way(self, refs: Sequence[tuple[int, int, str]]) -> list[int]:
        """The ids of the memories that have one of these ids, or one of these (namespace id, key): of (id, namespace id, key)."""
        return [row[0] for row in self._connection.execute(_IN_THE_WAY, (_encode(refs).decode(),))]

    def drop(self, numbers: Sequence[int]) -> list[Dropped]:
        """Takes memories out, with all that is derived of them. Their past stays."""
        chosen = (_encode(numbers).decode(),)
        found = self._connection.execute(_OF_DROPPED, chosen).fetchall()
        if not found:
            return []
        tags = {row[0]: set(_tags.decode(row[4]).tags) for row in found if row[4] is not None}
        known = self._tag_ids({tag for some in tags.values() for tag in some})
        self._run(_UNTAG, sorted((known[tag], number) for number, some in tags.items() for tag in some))
        for sql in _DROPS:
            self._connection.execute(sql, chosen)
        for _, namespace_id, _, version, _, size in found:
            self._count(namespace_id, -1, -size, version)
        return [Dropped(*row[:4]) for row in found]

    def flush(self) -> None:
        """Writes what was gathered of the use of namespaces."""
        self._connection.executemany(_COUNT, [(*use, number) for number, use in self._use.items()])
        self._use.clear()

    def _count(self, namespace_id: int, memories: int, size: int, version: int) -> None:
        use = self._use.setdefault(namespace_id, [0, 0, 0])
        use[0] += memories
        use[1] += size
        use[2] = max(use[2], version)

    def _tag_ids(self, names: set[str]) -> dict[str, int]:
        """The ids of tags, made where there are none."""
        if len(self._tags) > MAX_KNOWN_TAGS:
            self._tags.clear()
        missing = sorted(names - self._tags.keys())
        if missing:
            array = _encode(missing).decode()
            self._connection.execute(_NEW_TAGS, (array,))
            self._tags.update(self._connection.execute(_FIND_TAGS, (array,)).fetchall())
        return self._tags

    def _run(self, sql: str, rows: Sequence[object]) -> None:
        if rows:
            self._connection.execute(sql, (_encode(rows).decode(),))


def put_past(connection: Database, rows: Iterable[tuple[Past, int]]) -> None:
    """Puts former versions, each with the row of its namespace, in place of those of the same number that are there."""
    array = [
        (
            m.id, m.version, namespace_id, m.key, m.importance, m.seq, m.created_at, m.updated_at, m.expires_at, one.ended_at,
            m.session_id, m.project_id, None if m.attributes in {b"", NO_ATTRIBUTES} else m.attributes.decode(),
            one.touched, one.bytes, one.redacted_at, m.value.decode() if one.kept else None,
        )
        for one, namespace_id in rows
        for m in (one.memory,)
    ]  # fmt: skip
    connection.execute(_PAST, (_encode(array).decode(),))


def put_sessions(connection: Database, rows: Iterable[tuple[Session, int]], *, sql: str = _SESSION) -> None:
    """Puts sessions, each with the row of its namespace."""
    connection.executemany(
        sql,
        [
            (
                number, one.id, one.cluster_id, one.project_id, one.ttl, one.metadata, one.created_at, one.last_used,
                one.expires_at, one.ended_at,
            )
            for one, number in rows
        ],
    )  # fmt: skip


def memory_bytes(memory: Memory) -> int:
    """About what a memory takes in a statement."""
    return len(memory.value) + len(memory.attributes)


class Restoring:
    """What is known of a database aside while rows are put into it. Used in transactions of its writer, one after the other."""

    def __init__(self) -> None:
        # By name: the number that the namespace has where it comes from, and where it lies here.
        self._numbers: dict[str, int] = {}
        self._targets: dict[str, Target] = {}
        self._whole = True
        # Memories that have expired, as far as it is known, with their last versions; a later link may tell that they lived on,
        # or were removed in their time.
        self._expired: dict[int, int] = {}
        # The last versions of memories whose key this link has given to another one, or to none.
        self._displaced: dict[int, int] = {}
        self._filling: Filling | None = None

    def put(self, tx: Transaction, rows: Sequence[Row], now: int) -> None:
        """See `Storage.put_back`."""
        if not rows:
            return
        connection = tx.settled()
        self._filling = Filling(connection)
        kind = type(rows[0])
        if kind is Space:
            self._put_spaces(connection, cast("Sequence[Space]", rows))
        elif kind is Floor:
            self._put_floors(connection, cast("Sequence[Floor]", rows))
        elif kind is Buried:
            self._put_buried(tx, cast("Sequence[Buried]", rows))
        elif kind is Memory:
            self._put_memories(tx, cast("Sequence[Memory]", rows), now)
        elif kind is Past:
            self._put_past(tx, cast("Sequence[Past]", rows))
        elif kind is Used:
            used = [(one.count, one.last, one.id) for one in cast("Sequence[Used]", rows)]
            connection.executemany("UPDATE memories SET access_count = ?, last_accessed = ? WHERE id = ?", used)
        else:
            sessions = cast("Sequence[Session]", rows)
            put_sessions(connection, [(one, self._target(one.namespace).id) for one in sessions])
        self._filling.flush()
        connection.execute("UPDATE counters SET last_id = ?, last_seq = ?", (tx.last_id, tx.last_seq))

    def finish(self, tx: Transaction, now: int) -> None:
        """See `Storage.all_back`."""
        connection = tx.settled()
        self._filling = Filling(connection)
        self._end_link(connection)
        for part in iter(
            lambda: connection.execute(
                "SELECT n.name, m.key, m.version, m.seq, m.id, ?1, 'expired' FROM memories m"
                " JOIN namespaces n ON n.id = m.namespace_id WHERE m.expires_at <= ?1 LIMIT ?2",
                (now, CHUNK),
            ).fetchall(),
            [],
        ):
            self._bury(connection, part)
        for some in portions(sorted(self._expired), lambda _: 0, CHUNK):
            connection.execute(
                "DELETE FROM past WHERE memory_id IN (SELECT value FROM json_each(?))", (_encode(some).decode(),)
            )
        self._expired.clear()
        self._filling.flush()

    # ---- kind by kind
    def _put_spaces(self, connection: Database, spaces: Sequence[Space]) -> None:
        self._end_link(connection)
        there = {one.name: one.number for one in spaces}
        for name, number in list(self._numbers.items()):
            if there.get(name) != number:
                self._drop_space(connection, name)
        connection.execute("DELETE FROM sessions")
        for one in spaces:
            config = _encode(one.config).decode()
            facts = (config, one.created_at, one.explicit, one.top_version)
            if one.name in self._numbers:
                connection.execute(
                    "UPDATE namespaces SET config = ?, created_at = ?, explicit = ?, top_version = ? WHERE name = ?",
                    (*facts, one.name),
                )
            else:
                connection.execute(
                    "INSERT INTO namespaces (config, created_at, explicit, top_version, name) VALUES (?, ?, ?, ?, ?)",
                    (*facts, one.name),
                )
            self._numbers[one.name] = one.number
        connection.execute("UPDATE counters SET epoch = epoch + 1")
        self._learn_targets(connection)

    def _learn_targets(self, connection: Database) -> None:
        """Where namespaces lie, and in which language what comes is written; what is there already is written anew later."""
        spoken = Languages().now(connection)
        before, self._targets = self._targets, {}
        for number, name in connection.execute("SELECT id, name FROM namespaces WHERE name IS NOT NULL").fetchall():
            self._targets[name] = Target(number, name, spoken.of(name))
            spoke = before.get(name, self._targets[name]).language
            if spoke != self._targets[name].language:
                connection.execute(
                    "INSERT OR IGNORE INTO stale_text SELECT id, ? FROM memories WHERE namespace_id = ?",
                    (spoke, number),
                )

    def _drop_space(self, connection: Database, name: str) -> None:
        target = self._targets.pop(name)
        del self._numbers[name]
        of_it = "SELECT id FROM memories WHERE namespace_id = ? LIMIT ?"
        while numbers := [row[0] for row in connection.execute(of_it, (target.id, CHUNK)).fetchall()]:
            self._fill.drop(numbers)
        self._fill.flush()
        connection.execute("DELETE FROM past WHERE namespace_id = ?", (target.id,))
        connection.execute("DELETE FROM sessions WHERE namespace_id = ?", (target.id,))
        connection.execute("DELETE FROM namespaces WHERE id = ?", (target.id,))

    def _put_floors(self, connection: Database, floors: Sequence[Floor]) -> None:
        connection.executemany("DELETE FROM namespaces WHERE deleted_name = ?", [(one.name,) for one in floors])
        connection.executemany(
            "INSERT INTO namespaces (deleted_name, top_version, created_at) VALUES (?, ?, 0)",
            [(one.name, one.version) for one in floors],
        )
        connection.executemany(
            "UPDATE namespaces SET version_floor = max(version_floor, ?1), top_version = max(top_version, ?1) WHERE name = ?2",
            [(one.version, one.name) for one in floors],
        )

    def _put_buried(self, tx: Transaction, rows: Sequence[Buried]) -> None:
        buried = {(self._targets[m.namespace].id, m.key): m.id for m in rows if m.namespace in self._targets}
        in_the_way = self._fill.in_the_way([(0, *ref) for ref in buried])
        for gone in self._fill.drop(in_the_way):
            if buried[gone.namespace_id, gone.key] != gone.id:
                self._displaced[gone.id] = gone.version
        if not self._whole:
            # With its past, unless that is told: where it went it may have gone with its namespace.
            self._displaced.update((one.id, one.version) for one in rows if one.reason == "moved")
        tx.connection.executemany(
            BURY, [(one.namespace, one.key, one.version, one.seq, one.id, one.at, one.reason) for one in rows]
        )
        for one in rows:
            if one.reason == "expired":
                self._expired[one.id] = one.version
            else:
                self._expired.pop(one.id, None)
        tx.last_id = max(tx.last_id, *(one.id for one in rows))
        tx.last_seq = max(tx.last_seq, *(one.seq for one in rows))

    def _put_memories(self, tx: Transaction, rows: Sequence[Memory], now: int) -> None:
        tx.last_id = max(tx.last_id, *(one.id for one in rows))
        tx.last_seq = max(tx.last_seq, *(one.seq for one in rows))
        for part in portions(rows, memory_bytes, CHUNK):
            placed = [(one, self._target(one.namespace)) for one in part]
            if not self._whole:
                of_ids = {one.id for one in part}
                displaced = self._fill.drop(self._fill.in_the_way([(m.id, t.id, m.key) for m, t in placed]))
                self._displaced.update((one.id, one.version) for one in displaced if one.id not in of_ids)
            if gone := [m for m in part if not m.visible(now)]:
                self._bury(
                    tx.connection, [(m.namespace, m.key, m.version, m.seq, m.id, m.expires_at, "expired") for m in gone]
                )
            alive = [(m, t) for m, t in placed if m.visible(now)]
            for memory, _ in alive:
                self._expired.pop(memory.id, None)
            self._fill.put(alive)

    def _bury(self, connection: Database, rows: Sequence[tuple[Any, ...]]) -> None:
        """Rows of tombstones of memories that have expired."""
        connection.executemany(BURY, rows)
        self._fill.drop([row[4] for row in rows])
        self._expired.update((row[4], row[2]) for row in rows)

    def _put_past(self, tx: Transaction, rows: Sequence[Past]) -> None:
        tx.last_id = max(tx.last_id, *(one.memory.id for one in rows))
        tx.last_seq = max(tx.last_seq, *(one.touched for one in rows))
        for one in rows:
            for known in (self._displaced, self._expired):
                if known.get(one.memory.id, one.memory.version + 1) <= one.memory.version:
                    # It was removed rather than expired: its last version is among those that were replaced.
                    del known[one.memory.id]
        for part in portions(rows, lambda one: memory_bytes(one.memory), CHUNK):
            put_past(tx.connection, [(one, self._target(one.memory.namespace).id) for one in part])

    def _end_link(self, connection: Database) -> None:
        """Memories that have lost their key, and left no last version in the past, have expired, or went with a namespace."""
        if self._displaced:
            there = connection.execute(
                "SELECT m.id FROM json_each(?) AS j CROSS JOIN memories m ON m.id = j.value",
                (_encode(list(self._displaced)).decode(),),
            )
            for (number,) in there.fetchall():
                del self._displaced[number]
            self._expired |= self._displaced
            self._displaced.clear()
        self._whole = connection.execute("SELECT 1 FROM memories LIMIT 1").get is None

    @property
    def _fill(self) -> Filling:
        if self._filling is None:
            raise StorageError("Nothing was put back")
        return self._filling

    def _target(self, name: str) -> Target:
        target = self._targets.get(name)
        if target is None:
            raise StorageError(f"There is a row of the namespace {name!r}, which is not among the namespaces")
        return target
