"""Stubs: memories whose values lie in archives, and the archives that are named. All of it inside a writer's transaction, or
on a reading connection.
"""

from collections.abc import Iterable, Sequence

import msgspec

from unified_memory.model.errors import ConflictError
from unified_memory.storage.sqlite.connection import Database
from unified_memory.storage.sqlite.filters import Sql
from unified_memory.storage.sqlite.rows import IS_WARM, SIZE
from unified_memory.storage.warm import ArchiveUse, Demotable, Place, TierUses

_encode = msgspec.json.Encoder().encode
_VISIBLE = "(m.expires_at IS NULL OR m.expires_at > ?)"
_USED = "max(coalesce(m.last_accessed, 0), m.updated_at)"
# All columns of a memory but its value.
_KEPT = (
    "id, key, namespace_id, importance, version, seq, created_at, updated_at, expires_at, access_count, last_accessed,"
    " session_id, project_id, metadata"
)
# Leases of those who read archives: whoever takes one by name finds none of that name.
_PINS = "archives read by "
_NUMBER = "(SELECT number FROM archives WHERE name = ?)"


def demotable(connection: Database, scope: Sql, now: int, used_before: int, limit: int) -> list[Demotable]:
    """See `Warm.demotable`."""
    where, bound = scope
    rows = connection.execute(
        f"""SELECT m.id, m.seq, {IS_WARM}, m.importance, {_USED} AS used FROM namespaces n
            CROSS JOIN memories m ON m.namespace_id = n.id
            WHERE {where} AND {_VISIBLE} AND {IS_WARM} > 0 AND used < ? ORDER BY m.importance, used, m.id LIMIT ?""",  # noqa: S608
        (*bound, now, used_before, limit),
    )
    return [Demotable(*row) for row in rows]


def uses(connection: Database, scope: Sql, now: int, used_before: int | None) -> TierUses:
    """See `Warm.tier_uses`."""
    where, bound = scope
    since, more = ("1", []) if used_before is None else (f"{_USED} < ?", [used_before])
    rows = connection.execute(
        f"""SELECT {IS_WARM} > 0, count(*), CAST(total({SIZE}) AS INTEGER) FROM namespaces n
            CROSS JOIN memories m ON m.namespace_id = n.id WHERE {where} AND {_VISIBLE} AND {since} GROUP BY 1""",  # noqa: S608
        (*bound, now, *more),
    )
    found = {bool(warm): (count, size) for warm, count, size in rows}
    return TierUses(*found.get(True, (0, 0)), *found.get(False, (0, 0)))


def of_scope(connection: Database, scope: Sql, now: int, after_id: int, limit: int) -> list[int]:
    """See `Warm.stub_ids`."""
    where, bound = scope
    rows = connection.execute(
        f"""SELECT m.id FROM archived a CROSS JOIN memories m ON m.id = a.memory_id
            CROSS JOIN namespaces n ON n.id = m.namespace_id
            WHERE a.memory_id > ? AND {where} AND {_VISIBLE} ORDER BY a.memory_id LIMIT ?""",  # noqa: S608
        (after_id, *bound, now, limit),
    )
    return [row[0] for row in rows]


def token(connection: Database, proposed: str) -> str:
    """See `Warm.archive_token`."""
    connection.execute("UPDATE counters SET archive_token = ? WHERE archive_token = ''", (proposed,))
    return str(connection.execute("SELECT archive_token FROM counters").get)


def reserve(connection: Database, name: str, now: int) -> None:
    """See `Warm.reserve_archive`."""
    connection.execute("INSERT INTO archives (name, state, changed_at) VALUES (?, 'writing', ?)", (name, now))


def _written(connection: Database, name: str) -> int:
    """The number of an archive that is being written. Raises ConflictError where it is not."""
    number = connection.execute("SELECT number FROM archives WHERE name = ? AND state = 'writing'", (name,)).get
    if number is None:
        raise ConflictError(f"The archive {name} is no longer being written", archive=name)
    return int(number)


def put(connection: Database, name: str, places: Sequence[Place]) -> tuple[int, int]:
    """See `Warm.put_stubs`."""
    number = _written(connection, name)
    rows = _encode([(one.id, one.seq, one.block, one.slot) for one in places]).decode()
    still = f"m.id = j.value->>0 AND m.seq = j.value->>1 AND {IS_WARM} > 0"
    taken = connection.execute(
        f"""INSERT INTO archived (memory_id, archive, block, slot, bytes)
            SELECT m.id, ?, j.value->>2, j.value->>3, {IS_WARM} FROM json_each(?) AS j CROSS JOIN memories m ON {still}
            RETURNING memory_id, bytes""",  # noqa: S608 - fixed columns
        (number, rows),
    ).fetchall()
    _thin(connection, [row[0] for row in taken])
    return len(taken), sum(row[1] for row in taken)


def _thin(connection: Database, ids: list[int]) -> None:
    """Takes the values out of rows, and puts the rows together again.

    An update would leave each row on its page: SQLite joins pages only when two thirds of them are empty. Rows that are removed
    and put back fill theirs (measured: half to a fifth of the pages, for 16 µs a row).
    """
    connection.execute(f"CREATE TEMP TABLE IF NOT EXISTS thinned AS SELECT {_KEPT} FROM main.memories LIMIT 0")  # noqa: S608
    chosen = (_encode(ids).decode(),)
    connection.execute(
        f"INSERT INTO temp.thinned SELECT {_KEPT} FROM main.memories WHERE id IN (SELECT value FROM json_each(?))",  # noqa: S608
        chosen,
    )
    connection.execute("DELETE FROM main.memories WHERE id IN (SELECT value FROM json_each(?))", chosen)
    connection.execute(
        f"INSERT INTO main.memories ({_KEPT}, value_json) SELECT {_KEPT}, '' FROM temp.thinned ORDER BY id"  # noqa: S608
    )
    connection.execute("DELETE FROM temp.thinned")


def publish(connection: Database, name: str, memories: int, bytes_raw: int, bytes_stored: int, now: int) -> None:
    """See `Warm.publish_archive`."""
    connection.execute(
        "UPDATE archives SET state = 'live', changed_at = ?, memories = ?, bytes_raw = ?, bytes_stored = ? WHERE number = ?",
        (now, memories, bytes_raw, bytes_stored, _written(connection, name)),
    )
    # Copies in other processes say that they are warm.
    connection.execute("UPDATE counters SET epoch = epoch + 1")


def take_back(connection: Database, values: Sequence[tuple[int, int, bytes]]) -> tuple[int, int]:
    """See `Warm.take_back`."""
    count = size = 0
    for number, seq, value in values:
        changed = connection.execute(
            f"UPDATE memories AS m SET value_json = ? WHERE id = ? AND seq = ? AND {IS_WARM} = 0 RETURNING 1",  # noqa: S608
            (value.decode(), number, seq),
        ).get
        if changed:
            connection.execute("DELETE FROM archived WHERE memory_id = ?", (number,))
            count, size = count + 1, size + len(value)
    return count, size


def archives(connection: Database) -> list[ArchiveUse]:
    """See `Warm.archives`."""
    rows = connection.execute(
        """SELECT f.name, f.state, f.changed_at, f.memories, f.bytes_raw, f.bytes_stored, count(a.memory_id),
                  CAST(total(a.bytes) AS INTEGER)
           FROM archives f LEFT JOIN archived a ON a.archive = f.number GROUP BY f.number ORDER BY f.number"""
    )
    return [ArchiveUse(*row) for row in rows]


def moved_away(connection: Database, names: Iterable[str]) -> bool:
    """Whether no stub refers to one of these archives any longer."""
    sql = f"SELECT EXISTS (SELECT 1 FROM archived WHERE archive = {_NUMBER})"  # noqa: S608 - fixed columns
    return not all(connection.execute(sql, (name,)).get for name in names)


def of_archive(connection: Database, name: str, after_id: int, limit: int) -> list[Place]:
    """See `Warm.stubs`."""
    rows = connection.execute(
        f"""SELECT m.id, m.seq, a.block, a.slot FROM archived a CROSS JOIN memories m ON m.id = a.memory_id
            WHERE a.archive = {_NUMBER} AND a.memory_id > ? ORDER BY a.memory_id LIMIT ?""",  # noqa: S608 - fixed columns
        (name, after_id, limit),
    )
    return [Place(*row) for row in rows]


def move(connection: Database, source: str, target: str, places: Sequence[Place]) -> int:
    """See `Warm.move_stubs`."""
    number = _written(connection, target)
    rows = _encode([(one.id, one.seq, one.block, one.slot) for one in places]).decode()
    moved = connection.execute(
        f"""UPDATE archived SET archive = ?, block = j.value->>2, slot = j.value->>3 FROM json_each(?) AS j
            WHERE archived.memory_id = j.value->>0 AND archived.archive = {_NUMBER}
              AND EXISTS (SELECT 1 FROM memories m WHERE m.id = j.value->>0 AND m.seq = j.value->>1)
            RETURNING archived.memory_id""",  # noqa: S608 - fixed columns
        (number, rows, source),
    ).fetchall()
    return len(moved)


def retire(connection: Database, name: str, now: int) -> bool:
    """See `Warm.retire_archive`."""
    connection.execute(
        """UPDATE archives SET state = 'dead', changed_at = ? WHERE name = ? AND state <> 'dead'
           AND NOT EXISTS (SELECT 1 FROM archived a WHERE a.archive = archives.number)""",
        (now, name),
    )
    return bool(connection.execute("SELECT state FROM archives WHERE name = ?", (name,)).get == "dead")


def forget(connection: Database, name: str) -> bool:
    """See `Warm.forget_archive`."""
    return bool(connection.execute("DELETE FROM archives WHERE name = ? AND state = 'dead' RETURNING 1", (name,)).get)


def pin(connection: Database, holder: str, now: int, until: int) -> None:
    """See `Warm.pin_archives`."""
    connection.execute(
        "DELETE FROM leases WHERE name GLOB ? AND (until <= ? OR holder = ?)", (_PINS + "*", now, holder)
    )
    if until > now:
        connection.execute("INSERT INTO leases VALUES (?, ?, ?)", (_PINS + holder, holder, until))


def pinned(connection: Database, now: int) -> bool:
    """See `Warm.archives_pinned`."""
    pins = "SELECT EXISTS (SELECT 1 FROM leases WHERE name GLOB ? AND until > ?)"
    return bool(connection.execute(pins, (_PINS + "*", now)).get)
