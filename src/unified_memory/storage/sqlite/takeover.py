"""Taking over what was put back aside: what is to change is found out in tables of their own, then it is done in one commit.

With REPLACE the other database becomes what this one is to be (versions, places in the commit order, what is not in a backup),
and is copied over this one by SQLite's own backup, which is one transaction of the write-ahead log: readers go on with what they
see, and a kill leaves all or nothing of it (https://sqlite.org/backup.html). Otherwise rows are written here.

All of it runs while nobody else writes, on the writer's thread.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple, cast

import apsw
import msgspec

from unified_memory.model.errors import ConflictError
from unified_memory.model.history import Event, Kind, Past
from unified_memory.model.namespace import contains
from unified_memory.storage.dump import Difference, Mode, Takeover
from unified_memory.storage.portions import portions
from unified_memory.storage.sqlite import past, trust
from unified_memory.storage.sqlite.connection import Database, connect
from unified_memory.storage.sqlite.dumping import SQLiteSnapshot
from unified_memory.storage.sqlite.feed import LOG
from unified_memory.storage.sqlite.filters import select_scope
from unified_memory.storage.sqlite.languages import Languages
from unified_memory.storage.sqlite.restoring import (
    CHUNK,
    Filling,
    Target,
    memory_bytes,
    put_past,
    put_sessions,
)
from unified_memory.storage.sqlite.rows import RECORD, memory_of
from unified_memory.storage.sqlite.transaction import REASONS, Transaction

CACHE_KIB = 16_384
# Of each of the databases that are compared.
PLAN_CACHE_KIB = 4_096
# The name of its file.
PLAN = "plan.db"
COPIED_PAGES = 2_000
_encode = msgspec.json.Encoder().encode

# The tables of a plan. `here` is this database, `there` the other one. `name`: of a namespace, as it is here; `id`: which the
# memory gets here; `last`: the last version that its key had here. `leaving`: what goes. `others`: ids of memories that ended.
_TABLES = """
CREATE TABLE spaces (there_id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL, here_id INTEGER);
CREATE TABLE floors (name TEXT PRIMARY KEY, version INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE pairs (there_id INTEGER PRIMARY KEY, seq INTEGER NOT NULL, name TEXT NOT NULL, key TEXT NOT NULL, here_id INTEGER,
    what TEXT NOT NULL, id INTEGER NOT NULL, last INTEGER NOT NULL DEFAULT 0, place INTEGER NOT NULL DEFAULT 0);
CREATE TABLE leaving (here_id INTEGER PRIMARY KEY, name TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL,
    what TEXT NOT NULL, place INTEGER NOT NULL DEFAULT 0);
CREATE TABLE ends (name TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, seq INTEGER NOT NULL, id INTEGER NOT NULL,
    at INTEGER NOT NULL, reason TEXT NOT NULL, place INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (name, key)) WITHOUT ROWID;
CREATE TABLE others (there_id INTEGER PRIMARY KEY, id INTEGER NOT NULL);
"""
# Of a namespace of the other storage: whether it is wanted, and the name that it gets. ?1: which, ?2: instead of which.
_WANTED = "(?1 = '' OR {0} = ?1 OR substr({0}, 1, length(?1) + 1) = ?1 || '/')"
_SPACES = f"""INSERT INTO spaces SELECT o.id, ?2 || substr(o.name, length(?1) + 1),
        (SELECT n.id FROM here.namespaces n WHERE n.name = ?2 || substr(o.name, length(?1) + 1))
    FROM there.namespaces o WHERE o.name IS NOT NULL AND {_WANTED.format("o.name")}"""  # noqa: S608 - fixed
# Above which versions are, by name: of a namespace that is there its own floor, else the highest of those that were deleted.
_FLOORS = """INSERT INTO floors
    SELECT name, version_floor FROM here.namespaces WHERE name IS NOT NULL
    UNION ALL SELECT d.deleted_name, max(d.top_version) FROM here.namespaces d WHERE d.deleted_name IS NOT NULL
        AND d.deleted_name NOT IN (SELECT n.name FROM here.namespaces n WHERE n.name IS NOT NULL) GROUP BY d.deleted_name"""
_ALIKE = " AND ".join(
    f"o.{column} IS h.{column}"
    for column in (
        "created_at", "updated_at", "expires_at", "metadata", "importance", "session_id", "project_id",
    )
)  # fmt: skip
_PAIRS = f"""INSERT INTO pairs (there_id, seq, name, key, here_id, what, id)
    SELECT o.id, o.seq, s.name, o.key, h.id,
        CASE WHEN h.id IS NULL THEN 'added'
             WHEN {_ALIKE} AND (SELECT x.content_hash FROM there.search_index x WHERE x.memory_id = o.id)
                  IS (SELECT x.content_hash FROM here.search_index x WHERE x.memory_id = h.id) THEN 'same'
             WHEN ?2 AND h.updated_at >= o.updated_at THEN 'same'
             ELSE 'changed' END,
        coalesce(h.id, o.id)
    FROM there.memories o NOT INDEXED CROSS JOIN spaces s ON s.there_id = o.namespace_id
    LEFT JOIN here.memories h ON h.namespace_id = s.here_id AND h.key = o.key AND (h.expires_at IS NULL OR h.expires_at > ?1)
    WHERE o.expires_at IS NULL OR o.expires_at > ?1 ORDER BY o.id"""  # noqa: S608 - fixed columns
_COMES = """SELECT 1 FROM there.memories o WHERE o.namespace_id = s.there_id AND o.key = h.key
    AND (o.expires_at IS NULL OR o.expires_at > ?1)"""
# ?1: the instant; ?2: the namespaces here, as in _WANTED; ?3: whether nothing leaves but what is in the way of what comes. What
# has expired leaves too.
_LEAVING = f"""INSERT INTO leaving (here_id, name, key, version, what)
    SELECT h.id, n.name, h.key, h.version, iif(h.expires_at <= ?1, 'expired', 'removed')
    FROM here.memories h NOT INDEXED CROSS JOIN here.namespaces n ON n.id = h.namespace_id
    LEFT JOIN spaces s ON s.here_id = h.namespace_id
    WHERE n.name IS NOT NULL AND {_WANTED.replace("?1", "?2").format("n.name")}
      AND iif(?3, h.expires_at <= ?1 AND EXISTS ({_COMES}), h.expires_at <= ?1 OR NOT EXISTS ({_COMES}))
    ORDER BY h.id"""  # noqa: S608 - fixed columns
# The last version that a key had here: of its memory, of one that is gone, or of any in a namespace of that name.
_LAST = """max(coalesce((SELECT h.version FROM here.namespaces n CROSS JOIN here.memories h
            ON h.namespace_id = n.id AND h.key = {0}.key WHERE n.name = {0}.name), 0),
    coalesce((SELECT t.version FROM here.tombstones t WHERE t.namespace = {0}.name AND t.key = {0}.key), 0),
    coalesce((SELECT f.version FROM floors f WHERE f.name = {0}.name), 0))"""
# Whether a memory of another key has the id here, or had it. {1}: the name of a namespace n.
_TAKEN = """(EXISTS (SELECT 1 FROM here.memories m CROSS JOIN here.namespaces n ON n.id = m.namespace_id
        WHERE m.id = {0}.there_id AND (m.key <> {0}.key OR {1} IS NOT {0}.name))
    OR EXISTS (SELECT 1 FROM here.past x CROSS JOIN here.namespaces n ON n.id = x.namespace_id
        WHERE x.memory_id = {0}.there_id AND (x.key <> {0}.key OR {1} IS NOT {0}.name)))"""
_ENDS = f"""INSERT INTO ends (name, key, version, seq, id, at, reason)
    SELECT e.* FROM (SELECT ?2 || substr(t.namespace, length(?1) + 1) AS name, t.key AS key, t.version AS version, t.seq,
            t.memory_id, t.deleted_at, t.reason
        FROM there.tombstones t WHERE {_WANTED.format("t.namespace")} AND NOT EXISTS (SELECT 1 FROM there.namespaces n
            CROSS JOIN there.memories m ON m.namespace_id = n.id AND m.key = t.key WHERE n.name = t.namespace)) AS e
    WHERE e.version > {_LAST.format("e")}"""  # noqa: S608 - fixed columns
_COUNTS = """SELECT name, what, count(*) FROM pairs GROUP BY name, what
    UNION ALL SELECT name, what, count(*) FROM leaving WHERE what = 'removed' GROUP BY name ORDER BY 1"""
_SAMPLES = """SELECT name, what, key FROM (
        SELECT name, what, key, row_number() OVER (PARTITION BY name, what ORDER BY place) AS number FROM (
            SELECT name, what, key, seq AS place FROM pairs WHERE what <> 'same'
            UNION ALL SELECT name, what, key, here_id FROM leaving WHERE what = 'removed'))
    WHERE number <= ? ORDER BY name, what, number"""


_SESSION = """INSERT INTO sessions (namespace_id, id, cluster_id, project_id, ttl, metadata, created_at, last_used,
    expires_at, ended_at) VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT), ?, ?, ?, ?)
    ON CONFLICT DO UPDATE SET cluster_id = excluded.cluster_id, project_id = excluded.project_id, ttl = excluded.ttl,
        metadata = excluded.metadata, created_at = excluded.created_at, last_used = excluded.last_used,
        expires_at = excluded.expires_at, ended_at = excluded.ended_at WHERE excluded.last_used > last_used"""
_BY_ID = f"""SELECT {RECORD} FROM json_each(?) AS j CROSS JOIN memories m ON m.id = j.value
    CROSS JOIN namespaces n ON n.id = m.namespace_id ORDER BY j.key"""  # noqa: S608 - fixed columns
_STALE = "INSERT OR IGNORE INTO stale_text SELECT id, ? FROM memories WHERE namespace_id = ?"


class Numbers(NamedTuple):
    """The last id and place in the commit order."""

    id: int
    seq: int


class Plan:
    """What a takeover changes, in a database of its own beside the other one. Only while neither of the two changes.

    `new`: nothing was ever stored here.
    """

    def __init__(self, connection: Database, paths: tuple[Path, Path], takeover: Takeover, now: int) -> None:
        self.connection = connection
        self.here, self.there = paths
        self.now = now
        self.mode = takeover.mode
        named = takeover.mode is Mode.NAMESPACE
        self.source = (takeover.namespace or "") if named else ""
        self.target = (takeover.target or self.source) if named else ""
        merging = self.mode is Mode.MERGE
        run = connection.execute
        run(_TABLES)
        run(_SPACES, (self.source, self.target))
        run("CREATE INDEX idx_spaces_here ON spaces(here_id)")
        run(_FLOORS)
        run(_PAIRS, (now, merging))
        run(_LEAVING, (now, self.target, merging))
        self.new = run("SELECT last_seq FROM here.counters").get == 0

    def name_here(self, name: str) -> str | None:
        """The name that a namespace of the other storage gets; None where it is not taken over."""
        return self.target + name[len(self.source) :] if contains(self.source, name) else None

    def differences(self, samples: int) -> list[Difference]:
        """What changes, by namespace."""
        told: dict[str, Difference] = {}
        for name, what, count in self.connection.execute(_COUNTS):
            one = told.setdefault(name, Difference(name, samples={}))
            setattr(one, what, count)
            if what != "same":
                one.samples[what] = []
        for name, what, key in self.connection.execute(_SAMPLES, (samples,)):
            told[name].samples[what].append(key)
        return list(told.values())

    def number(self) -> Numbers:
        """Gives ids and places in the commit order to what comes and goes; the last ones then."""
        run = self.connection.execute
        last = Numbers(*run("SELECT last_id, last_seq FROM here.counters").get)
        theirs = Numbers(*run("SELECT last_id, last_seq FROM there.counters").get)
        run(_ENDS, (self.source, self.target))
        if self.new:
            run("UPDATE pairs SET place = seq")
            run("UPDATE ends SET place = seq")
            return theirs
        if self.mode is Mode.MERGE:
            run("DELETE FROM ends")
        seq = max(last.seq, theirs.seq) if self.mode is Mode.REPLACE else last.seq
        for table, key, where, order in (
            ("leaving", "here_id", "true", "what = 'removed', here_id"),
            ("pairs", "there_id", "what <> 'same'", "seq"),
            ("ends", "name, key", "true", "seq"),
        ):
            same = " AND ".join(f"w.{one} = {table}.{one}" for one in key.split(", "))
            run(
                f"UPDATE {table} SET place = ? + w.number FROM"  # noqa: S608 - fixed names
                f" (SELECT {key}, row_number() OVER (ORDER BY {order}) AS number FROM {table} WHERE {where}) AS w WHERE {same}",
                (seq,),
            )
            seq = max(seq, run(f"SELECT max(place) FROM {table}").get or 0)  # noqa: S608 - a fixed name
        return Numbers(self._number_ids(max(last.id, theirs.id)), seq)

    def _number_ids(self, last: int) -> int:
        run = self.connection.execute
        # With REPLACE nothing stays of what a deleted namespace held.
        name = "coalesce(n.name, n.deleted_name)" if self.mode is Mode.REPLACE else "n.name"
        run(f"UPDATE pairs SET last = {_LAST.format('pairs')}, id = there_id WHERE what <> 'same'")  # noqa: S608 - fixed columns
        run(
            f"""UPDATE pairs SET id = ? + w.number FROM (SELECT p.there_id, row_number() OVER (ORDER BY p.seq) AS number
                FROM pairs p WHERE p.what <> 'same' AND {_TAKEN.format("p", name)}) AS w WHERE pairs.there_id = w.there_id""",  # noqa: S608
            (last,),
        )
        last = max(last, run("SELECT max(id) FROM pairs").get or 0)
        run("CREATE INDEX idx_pairs_id ON pairs(id)")
        # Memories of which nothing is taken over but their past.
        run(
            f"""INSERT INTO others SELECT w.there_id, ? + row_number() OVER (ORDER BY w.there_id) FROM (
                    SELECT DISTINCT p.memory_id AS there_id FROM there.past p CROSS JOIN spaces s ON s.there_id = p.namespace_id
                    WHERE NOT EXISTS (SELECT 1 FROM pairs x WHERE x.there_id = p.memory_id)
                      AND (EXISTS (SELECT 1 FROM pairs x WHERE x.id = p.memory_id) OR EXISTS (SELECT 1 FROM
                        (SELECT p.memory_id AS there_id, p.key AS key, s.name AS name) AS y WHERE {_TAKEN.format("y", name)}))
                ) AS w""",  # noqa: S608 - fixed columns
            (last,),
        )
        return max(last, run("SELECT max(id) FROM others").get or 0)


@contextmanager
def planned(here: Path, there: Path, takeover: Takeover, now: int) -> Iterator[Plan]:
    """A plan, of the databases as they are now."""
    work = there.parent / PLAN
    work.unlink(missing_ok=True)
    try:
        with closing(cast("Database", apsw.Connection(str(work)))) as connection:
            connection.execute("PRAGMA journal_mode = OFF")
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute(f"PRAGMA cache_size = -{PLAN_CACHE_KIB:d}")
            for name, path in (("here", here), ("there", there)):
                connection.execute(f"ATTACH ? AS {name}", (str(path),))
                connection.execute(f"PRAGMA {name}.cache_size = -{PLAN_CACHE_KIB:d}")
            connection.execute("BEGIN")
            yield Plan(connection, (here, there), takeover, now)
    finally:
        work.unlink(missing_ok=True)


def compare(here: Path, there: Path, takeover: Takeover, now: int, samples: int) -> list[Difference]:
    """See `Storage.compare`."""
    with planned(here, there, takeover, now) as plan:
        return plan.differences(samples)


def require_held(connection: Database, instant: int) -> None:
    """Raises ConflictError unless writes are held at that instant."""
    held, until = connection.execute("SELECT held_reason, held_until FROM counters").get
    if held is None or until <= instant:
        raise ConflictError("Another storage is taken over only while writes are held")


def take_over(
    tx: Transaction, paths: tuple[Path, Path], takeover: Takeover, now: int, cold: Callable[[Database], None]
) -> list[Difference]:
    """See `Storage.take_over`. `paths`: of this database and the other one; `cold` teaches a connection to read archives.

    Outside of a transaction, while nobody else writes.
    """
    with planned(*paths, takeover, now) as plan:
        told = plan.differences(0)
        with closing(connect(plan.there, cache_kib=CACHE_KIB, writer=True)) as other:
            other.execute("PRAGMA synchronous = OFF")
            # What is sorted may be as much as there is.
            other.execute("PRAGMA temp_store = FILE")
            cold(other)
            if takeover.mode is Mode.REPLACE:
                _Replacing(plan, other).run()
                _copy(tx.connection, other)
            else:
                _Joining(plan, tx, other).run()
    return told


def _copy(target: Database, source: Database) -> None:
    """One transaction of the target, which ends with the last step."""
    with cast("apsw.Connection", target).backup("main", cast("apsw.Connection", source), "main") as copying:
        while not copying.done:
            copying.step(COPIED_PAGES)


class _Replacing:
    """Makes the other database what this one is to be. Of its connection `here` is this one, `plan` the plan."""

    def __init__(self, plan: Plan, other: Database) -> None:
        self._plan = plan
        self._other = other
        self._now = plan.now

    def run(self) -> None:
        """All of it, in one transaction."""
        run = self._other.execute
        last = self._plan.number()
        self._plan.connection.execute("COMMIT")
        run("ATTACH ? AS here", (str(self._plan.here),))
        run("ATTACH ? AS plan", (str(self._plan.there.parent / PLAN),))
        run("BEGIN")
        if self._plan.new:
            run(
                "INSERT INTO changes SELECT m.seq, ?, 'store', p.name, m.key, m.version, m.id"
                " FROM plan.pairs p CROSS JOIN memories m ON m.id = p.there_id ORDER BY m.seq",
                (self._now,),
            )
        else:
            kept = self._own_past()
            self._renumber()
            self._put_past(kept)
            self._rewrite()
            self._end()
            self._log()
        self._floors()
        self._carry(last)
        run("COMMIT")
        run("DETACH here")
        run("DETACH plan")

    def _own_past(self) -> list[Past]:
        """The past, as it is here, of what stays at another version than it has there."""
        rows = self._other.execute(
            "SELECT p.name, p.key FROM plan.pairs p CROSS JOIN memories o ON o.id = p.there_id"
            " CROSS JOIN here.memories h ON h.id = p.here_id WHERE p.what = 'same' AND o.version <> h.version"
        ).fetchall()
        kept: list[Past] = []
        if rows:
            with closing(connect(self._plan.here, cache_kib=CACHE_KIB)) as mine:
                for name, key in rows:
                    kept += _whole_past(mine, name, key, self._now)
                    self._other.execute(
                        "DELETE FROM past WHERE key = ? AND namespace_id = (SELECT id FROM namespaces WHERE name = ?)",
                        (key, name),
                    )
        return kept

    def _put_past(self, rows: list[Past]) -> None:
        places = dict(self._other.execute("SELECT name, id FROM namespaces WHERE name IS NOT NULL").fetchall())
        for part in portions(rows, lambda one: memory_bytes(one.memory), CHUNK):
            put_past(self._other, [(one, places[one.memory.namespace]) for one in part])

    def _renumber(self) -> None:
        """Gives memories the ids that they have here, or one that nothing has here."""
        run = self._other.execute
        run("UPDATE past SET memory_id = -o.id FROM plan.others o WHERE past.memory_id = o.there_id")
        run(
            "UPDATE past SET memory_id = -p.id FROM plan.pairs p WHERE past.memory_id = p.there_id AND p.id <> p.there_id"
        )
        run("UPDATE past SET memory_id = -memory_id WHERE memory_id < 0")
        self._give("SELECT there_id, id FROM plan.pairs WHERE what <> 'same' AND id <> there_id")
        # What they are to have may still be another's.
        same = "what = 'same' AND id <> there_id"
        self._give(f"SELECT there_id, -id FROM plan.pairs WHERE {same}")  # noqa: S608 - a fixed text
        self._give(f"SELECT -id, id FROM plan.pairs WHERE {same}")  # noqa: S608 - a fixed text

    def _give(self, sql: str) -> None:
        """Gives ids: of (the id that a memory has, the one that it gets)."""
        filling = Filling(self._other)
        spoken = Languages().now(self._other)
        places = {
            name: Target(number, name, spoken.of(name))
            for number, name in self._other.execute("SELECT id, name FROM namespaces WHERE name IS NOT NULL")
        }
        pairs = self._other.execute(f"{sql} ORDER BY 1")
        while some := _next(pairs, CHUNK):
            ids = dict(some)
            found = self._other.execute(_BY_ID, (_encode(list(ids)).decode(),))
            for part in portions(map(memory_of, found), memory_bytes, CHUNK):
                filling.drop([memory.id for memory in part])
                for memory in part:
                    memory.id = ids[memory.id]
                filling.put([(memory, places[memory.namespace]) for memory in part])
        filling.flush()

    def _rewrite(self) -> None:
        """Gives what comes its version and its place; what is the same stays as it is here."""
        self._other.execute(
            "UPDATE memories SET seq = p.place, version = iif(version > p.last, version, p.last + 1)"
            " FROM plan.pairs p WHERE memories.id = p.id AND p.what <> 'same'"
        )
        facts = "version, seq, access_count, last_accessed"
        of_here = ", ".join(f"h.{one}" for one in facts.split(", "))
        self._other.execute(
            f"UPDATE memories SET ({facts}) = ({of_here}) FROM plan.pairs p CROSS JOIN here.memories h ON h.id = p.here_id"  # noqa: S608
            f" WHERE memories.id = p.id AND p.what = 'same' AND ({', '.join(f'memories.{one}' for one in facts.split(', '))})"
            f" IS NOT ({of_here})"
        )

    def _end(self) -> None:
        """What is known here of keys without a memory stays known; what leaves is added, and what goes further there."""
        run = self._other.execute
        run("DELETE FROM tombstones")
        run("INSERT INTO tombstones SELECT * FROM here.tombstones")
        run(
            "INSERT OR REPLACE INTO tombstones SELECT name, key, version, place, here_id, ?,"
            " iif(what = 'removed', 'deleted', what) FROM plan.leaving",
            (self._now,),
        )
        run("INSERT OR REPLACE INTO tombstones SELECT name, key, version, place, id, at, reason FROM plan.ends")

    def _log(self) -> None:
        run = self._other.execute
        run("INSERT INTO changes SELECT * FROM here.changes")
        run(
            "INSERT INTO changes SELECT place, ?, iif(what = 'removed', 'delete', 'expire'), name, key, version, here_id"
            " FROM plan.leaving ORDER BY place",
            (self._now,),
        )
        run(
            "INSERT INTO changes SELECT p.place, ?, iif(p.here_id IS NULL, 'store', 'update'), p.name, p.key, m.version, m.id"
            " FROM plan.pairs p CROSS JOIN memories m ON m.id = p.id WHERE p.what <> 'same' ORDER BY p.place",
            (self._now,),
        )

    def _floors(self) -> None:
        """No version of a namespace of a name that was known here is used again."""
        run = self._other.execute
        known = run(
            "SELECT coalesce(name, deleted_name), max(top_version), max(iif(name IS NULL, top_version, version_floor))"
            " FROM here.namespaces GROUP BY 1"
        ).fetchall()
        living = {row[0] for row in run("SELECT name FROM namespaces WHERE name IS NOT NULL")}
        for name, top, floor in known:
            if name in living:
                run(
                    "UPDATE namespaces SET top_version = max(top_version, ?), version_floor = max(version_floor, ?)"
                    " WHERE name = ?",
                    (top, floor, name),
                )
            run(
                "INSERT INTO namespaces (deleted_name, top_version, created_at) SELECT ?1, ?2, ?3 WHERE ?2 >"
                " coalesce((SELECT max(top_version) FROM namespaces WHERE deleted_name = ?1), ?4)",
                # A namespace that goes is told, with whatever version; of one that stays what was deleted before it.
                (name, floor if name in living else top, self._now, 0 if name in living else -1),
            )
        run(
            "UPDATE namespaces SET top_version = max(top_version, w.top) FROM (SELECT namespace_id, max(version) AS top"
            " FROM memories GROUP BY namespace_id) AS w WHERE w.namespace_id = namespaces.id"
        )

    def _carry(self, last: Numbers) -> None:
        """What no backup holds stays as it is here, but for vectors and what repeated requests are answered with."""
        run = self._other.execute
        for table in ("jobs", "leases", "hot_mutes", "schema_steps"):
            run(f"DELETE FROM {table}")  # noqa: S608 - a fixed name
            run(f"INSERT INTO {table} SELECT * FROM here.{table} ORDER BY 1")  # noqa: S608 - a fixed name
        for table in ("idempotency", "vectors", "models"):
            run(f"DELETE FROM {table}")  # noqa: S608 - a fixed name
        run(
            "INSERT INTO archives (name, state, changed_at, memories, bytes_raw, bytes_stored)"
            " SELECT name, 'dead', ?, memories, bytes_raw, bytes_stored FROM here.archives"
            " WHERE name NOT IN (SELECT name FROM archives) ORDER BY number",
            (self._now,),
        )
        run(
            "INSERT INTO sqlite_sequence (name, seq) SELECT name, 0 FROM here.sqlite_sequence"
            " WHERE name NOT IN (SELECT name FROM sqlite_sequence)"
        )
        run(
            "UPDATE sqlite_sequence SET seq = max(sqlite_sequence.seq, h.seq) FROM here.sqlite_sequence h"
            " WHERE h.name = sqlite_sequence.name"
        )
        run(
            "UPDATE counters SET last_id = ?, last_seq = ?, store = ?, epoch = max(counters.epoch, h.epoch) + 1,"
            " read_only = h.read_only, probe = h.probe, hot_era = h.hot_era, hot_servers = h.hot_servers,"
            " hot_changes = h.hot_changes, archive_token = iif(h.archive_token = '', counters.archive_token, h.archive_token),"
            " feed_floor = h.feed_floor, held_reason = h.held_reason, held_until = h.held_until FROM here.counters h",
            (*last, secrets.token_hex(8)),
        )
        trust.another(self._other)


class _Joining:
    """Writes into this database what comes from the other one, in one transaction."""

    def __init__(self, plan: Plan, tx: Transaction, other: Database) -> None:
        self._plan = plan
        self._tx = tx
        self._other = other
        self._now = plan.now
        self._connection = tx.connection
        self._filling = Filling(tx.connection)
        self._targets: dict[str, Target] = {}
        self._merging = plan.mode is Mode.MERGE

    def run(self) -> None:
        """All of it."""
        last = self._plan.number()
        self._other.execute("BEGIN")
        snapshot = SQLiteSnapshot(self._other, self._now)
        self._connection.execute("BEGIN IMMEDIATE")
        self._tx.begin()
        before = Languages().now(self._connection)
        self._leave()
        self._take_spaces(snapshot)
        spoken = Languages().now(self._connection)
        rows = self._connection.execute("SELECT id, name FROM namespaces WHERE name IS NOT NULL").fetchall()
        self._targets = {name: Target(number, name, spoken.of(name)) for number, name in rows}
        self._connection.executemany(
            _STALE, [(before.of(name), number) for number, name in rows if before.of(name) != spoken.of(name)]
        )
        self._come()
        self._filling.flush()
        self._tx.last_id, self._tx.last_seq = max(self._tx.last_id, last.id), max(self._tx.last_seq, last.seq)
        self._take_past(snapshot)
        self._take_ends()
        self._take_sessions(snapshot)
        trust.another(self._connection)
        self._tx.finish()
        self._connection.execute("COMMIT")
        self._other.execute("COMMIT")

    def _leave(self) -> None:
        leaving = self._plan.connection.execute(
            "SELECT here_id, name, key, version, what, place FROM leaving ORDER BY place"
        )
        while some := _next(leaving, CHUNK):
            events = [
                Event(place, self._now, Kind.DELETE if what == "removed" else Kind.EXPIRE, name, key, version, number)
                for number, name, key, version, what, place in some
            ]
            self._connection.executemany(
                "INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?, ?, ?, ?, ?)",
                [(one.namespace, one.key, one.version, one.seq, one.id, one.at, REASONS[one.kind]) for one in events],
            )
            self._log(events)
            self._filling.drop([row[0] for row in some])
            expired = [row[0] for row in some if row[4] == "expired"]
            for number in expired:
                past.forget_memory(self._connection, number)
        self._filling.flush()

    def _log(self, events: Sequence[Event]) -> None:
        rows = [(one.seq, one.at, one.kind.value, one.namespace, one.key, one.version, one.id) for one in events]
        self._connection.execute(LOG, (_encode(rows).decode(),))

    def _take_spaces(self, snapshot: SQLiteSnapshot) -> None:
        run = self._connection.execute
        if not self._merging or self._plan.new:
            for floor in snapshot.floors():
                self._take_floor(self._plan.name_here(floor.name), floor.version)
        coming = []
        for space in snapshot.spaces():
            name = self._plan.name_here(space.name)
            if name is None:
                continue
            coming.append(name)
            there = run("SELECT 1 FROM namespaces WHERE name = ?", (name,)).get
            if not there:
                run(
                    "INSERT INTO namespaces (name, created_at, top_version, version_floor) SELECT ?1, ?2, top, top FROM (SELECT"
                    " coalesce(max(top_version), 0) AS top FROM namespaces WHERE deleted_name = ?1)",
                    (name, space.created_at),
                )
            if not there or not self._merging:
                run(
                    "UPDATE namespaces SET config = ?, created_at = ?, explicit = ?, top_version = max(top_version, ?)"
                    " WHERE name = ?",
                    (_encode(space.config).decode(), space.created_at, space.explicit, space.top_version, name),
                )
        if not self._merging:
            names = run("SELECT name FROM namespaces WHERE name IS NOT NULL").fetchall()
            going = {row[0] for row in names if contains(self._plan.target, row[0])} - set(coming)
            self._connection.executemany(
                "UPDATE namespaces SET deleted_name = name, name = NULL, explicit = 0 WHERE name = ?",
                [(name,) for name in sorted(going)],
            )
        run("UPDATE counters SET epoch = epoch + 1")
        self._tx.forget()

    def _take_floor(self, name: str | None, version: int) -> None:
        if name is None:
            return
        self._connection.execute(
            "INSERT INTO namespaces (deleted_name, top_version, created_at) SELECT ?1, ?2, ?3 WHERE ?2 >"
            " coalesce((SELECT max(top_version) FROM namespaces WHERE deleted_name = ?1), -1)",
            (name, version, self._now),
        )
        self._connection.execute(
            "UPDATE namespaces SET version_floor = max(version_floor, ?1), top_version = max(top_version, ?1)"
            " WHERE name = ?2",
            (version, name),
        )

    def _come(self) -> None:
        coming = self._plan.connection.execute(
            "SELECT there_id, id, name, here_id, last, place FROM pairs WHERE what <> 'same' ORDER BY place"
        )
        while some := _next(coming, CHUNK):
            facts = {row[0]: row[1:] for row in some}
            rows = self._other.execute(_BY_ID, (_encode(list(facts)).decode(),))
            for part in portions(map(memory_of, rows), memory_bytes, CHUNK):
                events, replaced = [], []
                for memory in part:
                    number, name, here_id, last, place = facts[memory.id]
                    memory.id, memory.namespace, memory.seq = number, name, place
                    if not self._plan.new:
                        memory.version = max(memory.version, last + 1)
                    kind = Kind.STORE if here_id is None else Kind.UPDATE
                    events.append(Event(place, self._now, kind, name, memory.key, memory.version, number))
                    if here_id is not None:
                        replaced.append(here_id)
                        if self._merging and self._tx.place(name).keeps:
                            past.keep(self._connection, here_id, self._now, place, cold=True)
                self._filling.drop(replaced)
                self._filling.put([(memory, self._targets[memory.namespace]) for memory in part])
                self._log(events)

    def _take_past(self, snapshot: SQLiteSnapshot) -> None:
        """The past is as there; of what stays at another version than it has there it stays too. MERGE brings that of keys that
        had neither memory nor past here.
        """
        plan = self._plan
        run = plan.connection.execute
        stays: list[Past] = []
        run("CREATE TABLE pasts (name TEXT NOT NULL, key TEXT NOT NULL, PRIMARY KEY (name, key)) WITHOUT ROWID")
        if self._merging and not plan.new:
            # Of these it is taken, else of all but these.
            run(
                "INSERT INTO pasts SELECT name, key FROM pairs p WHERE what = 'added' AND NOT EXISTS (SELECT 1 FROM"
                " here.namespaces n CROSS JOIN here.past x ON x.namespace_id = n.id AND x.key = p.key WHERE n.name = p.name"
                # What has expired leaves, with its past.
                " AND x.memory_id NOT IN (SELECT here_id FROM leaving))"
            )
        else:
            run(
                "INSERT INTO pasts SELECT p.name, p.key FROM pairs p CROSS JOIN there.memories o ON o.id = p.there_id"
                " CROSS JOIN here.memories h ON h.id = p.here_id WHERE p.what = 'same' AND o.version <> h.version"
            )
            for name, key in run("SELECT name, key FROM pasts"):
                stays += _whole_past(self._connection, name, key, self._now)
            scope = select_scope((plan.target,), recursive=True)
            while chosen := past.prunable(self._connection, scope, 0, None, CHUNK):
                past.prune(self._connection, chosen)
        touched = None if plan.new else self._tx.next_seq()
        for part in portions(snapshot.past(), lambda one: memory_bytes(one.memory), CHUNK):
            self._put_past([one for one in part if plan.name_here(one.memory.namespace) is not None], touched)
        put_past(self._connection, [(one, self._targets[one.memory.namespace].id) for one in stays])

    def _put_past(self, rows: list[Past], touched: int | None) -> None:
        run = self._plan.connection.execute
        for one in rows:
            one.memory.namespace = self._plan.name_here(one.memory.namespace) or one.memory.namespace
            one.touched = one.touched if touched is None else touched
        refs = _encode([(one.memory.namespace, one.memory.key) for one in rows]).decode()
        named = {
            row[0]
            for row in run(
                "SELECT j.key FROM json_each(?) AS j CROSS JOIN pasts p ON p.name = j.value->>0 AND p.key = j.value->>1",
                (refs,),
            )
        }
        taken = self._merging and not self._plan.new
        chosen = [one for at, one in enumerate(rows) if (at in named) == taken]
        array = _encode([one.memory.id for one in chosen]).decode()
        ids = dict(
            run(
                "SELECT p.there_id, p.id FROM json_each(?1) AS j CROSS JOIN pairs p ON p.there_id = j.value"
                " UNION SELECT o.there_id, o.id FROM json_each(?1) AS j CROSS JOIN others o ON o.there_id = j.value",
                (array,),
            ).fetchall()
        )
        for one in chosen:
            one.memory.id = ids.get(one.memory.id, one.memory.id)
        put_past(self._connection, [(one, self._targets[one.memory.namespace].id) for one in chosen])

    def _take_ends(self) -> None:
        ends = self._plan.connection.execute("SELECT name, key, version, place, id, at, reason FROM ends")
        while some := _next(ends, CHUNK):
            self._connection.executemany("INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?, ?, ?, ?, ?)", some)

    def _take_sessions(self, snapshot: SQLiteSnapshot) -> None:
        if not self._merging:
            self._connection.executemany(
                "DELETE FROM sessions WHERE namespace_id = ?",
                [(one.id,) for one in self._targets.values() if contains(self._plan.target, one.name)],
            )
        for part in portions(snapshot.sessions(), lambda one: len(one.metadata), CHUNK):
            named = [(self._plan.name_here(one.namespace), one) for one in part]
            put_sessions(
                self._connection,
                [(one, self._targets[name].id) for name, one in named if name is not None],
                sql=_SESSION,
            )


def _whole_past(connection: Database, name: str, key: str, now: int) -> list[Past]:
    found = []
    for head in past.heads(connection, name, key, now, None, -1):
        one = past.version(connection, name, key, head.memory.version, now)
        if one is not None:
            found.append(one)
    return found


def _next(rows: Any, most: int) -> list[tuple[Any, ...]]:
    """Up to so many of the rows that are left of a result."""
    return [row for _, row in zip(range(most), rows, strict=False)]
