"""Everything that a database holds, as rows, read in one transaction."""

from collections.abc import Iterator
from typing import Any

import msgspec

from unified_memory.model.history import Past
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.session import Session
from unified_memory.storage.dump import Buried, Floor, Snapshot, Space, Used
from unified_memory.storage.sqlite import past
from unified_memory.storage.sqlite.connection import Database
from unified_memory.storage.sqlite.rows import RECORD, SESSION, SIZE, memory_of, session_of
from unified_memory.storage.sqlite.schema import VERSION

_config = msgspec.json.Decoder(NamespaceConfig)

_VISIBLE = "(m.expires_at IS NULL OR m.expires_at > ?2)"
_FROM = "FROM memories m {by} CROSS JOIN namespaces n ON n.id = m.namespace_id WHERE n.name IS NOT NULL"
_SPACES = """SELECT name, id, config, created_at, explicit, top_version FROM namespaces WHERE name IS NOT NULL ORDER BY name"""
_FLOORS = """SELECT deleted_name, max(top_version) FROM namespaces WHERE deleted_name IS NOT NULL
    GROUP BY deleted_name ORDER BY deleted_name"""
_COUNTED = f"""SELECT (SELECT CAST(total(memories) AS INTEGER) FROM namespaces WHERE name IS NOT NULL) - count(*),
    (SELECT CAST(total(bytes) AS INTEGER) FROM namespaces WHERE name IS NOT NULL) - CAST(total({SIZE}) AS INTEGER)
    FROM memories m CROSS JOIN namespaces n ON n.id = m.namespace_id WHERE m.expires_at <= ? AND n.name IS NOT NULL"""  # noqa: S608
_BY_NAMESPACE = """SELECT n.name, n.memories - coalesce(e.memories, 0) AS visible FROM namespaces n
    LEFT JOIN (SELECT namespace_id, count(*) AS memories FROM memories INDEXED BY idx_memories_expires WHERE expires_at <= ?
        GROUP BY 1) e ON e.namespace_id = n.id
    WHERE n.name IS NOT NULL AND visible > 0"""
_BURIED = """SELECT t.namespace, t.key, t.version, t.seq, t.memory_id, t.deleted_at, t.reason FROM tombstones t
    WHERE t.seq > ? AND NOT EXISTS (SELECT 1 FROM memories m WHERE m.key = t.key
        AND m.namespace_id = (SELECT id FROM namespaces n WHERE n.name = t.namespace)) ORDER BY t.seq"""
# All of them, whenever they were written: that they have expired is no change in the commit order.
_EXPIRED = f"""SELECT n.name, m.key, m.version, m.seq, m.id, m.expires_at, 'expired'
    {_FROM.format(by="INDEXED BY idx_memories_expires")} AND m.expires_at <= ? ORDER BY m.id"""
_ALL = f"SELECT {RECORD} {_FROM.format(by='NOT INDEXED')} AND m.seq > ?1 AND {_VISIBLE} ORDER BY m.id"
_CHANGED = (
    f"SELECT {RECORD} {_FROM.format(by='INDEXED BY idx_memories_seq')} AND m.seq > ?1 AND {_VISIBLE} ORDER BY m.seq"
)
_PAST = f"""SELECT {past.WITH_ATTRIBUTES.replace("?1, p.key", "n.name, p.key")}, p.base, p.value
    FROM namespaces n CROSS JOIN past p ON p.namespace_id = n.id
    WHERE n.name IS NOT NULL AND p.touched > ?1
      AND NOT EXISTS (SELECT 1 FROM memories x WHERE x.id = p.memory_id AND x.expires_at <= ?2)
    ORDER BY n.id, p.key, p.version"""  # noqa: S608 - fixed columns
_USED = f"""SELECT m.id, m.access_count, m.last_accessed {_FROM.format(by="NOT INDEXED")} AND m.seq <= ?1 AND {_VISIBLE}
    AND m.last_accessed >= ?3 ORDER BY m.id"""
_SESSIONS = (
    f"SELECT {SESSION} FROM namespaces n CROSS JOIN sessions s ON s.namespace_id = n.id"  # noqa: S608 - fixed columns
    " WHERE n.name IS NOT NULL ORDER BY n.name, s.id"
)


class SQLiteSnapshot(Snapshot):
    """What the connection sees from the first question on, in a transaction that whoever made the connection ends."""

    def __init__(self, connection: Database, now: int) -> None:
        self._connection = connection
        self.instant = now
        self.schema = VERSION
        self.store, self.seq = connection.execute("SELECT store, last_seq FROM counters").get
        self.memory_count, self.memory_bytes = connection.execute(_COUNTED, (now,)).get
        self.namespaces = dict(connection.execute(_BY_NAMESPACE, (now,)).fetchall())

    def spaces(self) -> Iterator[Space]:
        """See `Snapshot.spaces`."""
        for name, number, config, created_at, explicit, top in self._connection.execute(_SPACES):
            yield Space(name, number, _config.decode(config), created_at, bool(explicit), top)

    def floors(self) -> Iterator[Floor]:
        """See `Snapshot.floors`."""
        for row in self._connection.execute(_FLOORS):
            yield Floor(*row)

    def buried(self, after: int = 0) -> Iterator[Buried]:
        """See `Snapshot.buried`."""
        for row in self._connection.execute(_BURIED, (after,)):
            yield Buried(*row)
        for row in self._connection.execute(_EXPIRED, (self.instant,)):
            yield Buried(*row)

    def memories(self, after: int = 0) -> Iterator[Memory]:
        """See `Snapshot.memories`."""
        # As they lie in the file where all are wanted, a few by their places in the commit order.
        for row in self._connection.execute(_CHANGED if after else _ALL, (after, self.instant)):
            yield memory_of(row)

    def past(self, after: int = 0) -> Iterator[Past]:
        """See `Snapshot.past`."""
        last: tuple[int, int, bytes] | None = None
        for row in self._connection.execute(_PAST, (after, self.instant)):
            one = past.past_of(row[:-2])
            if one.kept:
                one.memory.value = self._content(one.memory, row[-4], row[-2:], last)
                last = (one.memory.id, one.memory.version, one.memory.value)
            yield one

    def _content(
        self, memory: Memory, coding: int, written: tuple[Any, ...], last: tuple[int, int, bytes] | None
    ) -> bytes:
        base, value = written
        if coding != past.DIFFERENCE:
            return past.decoded(memory.id, coding, value, b"")
        if last is not None and last[:2] == (memory.id, base):
            return past.decoded(memory.id, coding, value, last[2])
        return past.content(self._connection, memory.id, memory.version)

    def used(self, after: int, since: int) -> Iterator[Used]:
        """See `Snapshot.used`."""
        for row in self._connection.execute(_USED, (after, self.instant, since)):
            yield Used(*row)

    def sessions(self) -> Iterator[Session]:
        """See `Snapshot.sessions`."""
        for row in self._connection.execute(_SESSIONS, (self.instant,)):
            yield session_of(row)
