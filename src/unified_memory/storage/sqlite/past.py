"""Former versions: how they come into the table `past`, how they are written in less room, and how they go.

A version is copied as it stands when it is replaced, in the transaction of its replacement. Later, `shrink` writes it as zstd,
or as zstd with the value of the version before as its dictionary, whichever is least. So a difference needs only older versions,
at most `MAX_DEPTH` of them; whoever forgets one of those first writes what stands on it anew.
"""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from unified_memory.model.errors import StorageCorruptError, VersionGoneError
from unified_memory.model.history import Past
from unified_memory.model.memory import NO_ATTRIBUTES, Memory
from unified_memory.storage.sqlite.connection import Database
from unified_memory.storage.sqlite.filters import Sql
from unified_memory.storage.sqlite.rows import SIZE, VALUE, WHOLE, memory_of

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# The codings of `past.value`.
FRESH, PLAIN, ZSTD, DIFFERENCE, GONE = range(5)
MAX_DEPTH = 15
# Shorter values gain nothing.
LEAST = 48
LEVEL = 3
# Windows of zstd, as powers of two: what a difference refers to must lie within.
SMALLEST_WINDOW, LARGEST_WINDOW = 10, 27

_encode = msgspec.json.Encoder().encode
_COLUMNS = (
    "memory_id, version, namespace_id, key, importance, seq, created_at, updated_at, expires_at, ended_at, session_id,"
    " project_id, metadata, touched, bytes, coding, value"
)
_COPIED = (
    "m.id, m.version, m.namespace_id, m.key, m.importance, m.seq, m.created_at, m.updated_at, m.expires_at, {now},"
    f" m.session_id, m.project_id, m.metadata, {{touched}}, {SIZE}"
)
# Of a JSON array of (id, instant, place in the commit order), where the values lie in the warm tier.
KEEP = (
    f"INSERT INTO past ({_COLUMNS}) SELECT {_COPIED.format(now='j.value->>1', touched='j.value->>2')}, {FRESH},"  # noqa: S608
    " CAST(m.value_json AS BLOB) FROM json_each(?) AS j CROSS JOIN memories m ON m.id = j.value->>0"
)
_KEEP_ONE = (
    f"INSERT INTO past ({_COLUMNS}) SELECT {_COPIED.format(now='?2', touched='?3')}, ?4, ?5"  # noqa: S608 - fixed columns
    " FROM memories m WHERE m.id = ?1"
)
_VALUE = f"SELECT CAST({VALUE} AS BLOB) FROM memories m WHERE m.id = ?"  # noqa: S608
# What has expired has no past, whether or not it was cleaned up.
_LIVES = "NOT EXISTS (SELECT 1 FROM memories x WHERE x.id = p.memory_id AND x.expires_at <= ?)"
_NONE = f"x'{NO_ATTRIBUTES.hex()}'"
_HEAD = (
    "p.memory_id, ?1, p.key, x'', {attributes}, p.importance, p.session_id, p.project_id, p.created_at, p.updated_at,"
    " p.expires_at, 0, NULL, p.version, p.seq, 'warm', p.ended_at, p.bytes, p.touched, p.coding, p.redacted_at"
)
_MEMORY = 16
HEAD = _HEAD.format(attributes=_NONE)
WITH_ATTRIBUTES = _HEAD.format(attributes=f"coalesce(CAST(p.metadata AS BLOB), {_NONE})")
_OF_KEY = "FROM past p WHERE p.namespace_id = (SELECT id FROM namespaces WHERE name = ?1) AND p.key = ?2"


# ---- into the past
def keep(connection: Database, number: int, now: int, touched: int, *, cold: bool) -> None:
    """Keeps the version of a memory that is about to be replaced or removed."""
    if not cold:
        connection.execute(KEEP, (_encode([(number, now, touched)]).decode(),))
        return
    try:
        value = connection.execute(_VALUE, (number,)).get
    except StorageCorruptError:
        # A damaged value keeps nobody from replacing it.
        connection.execute(_KEEP_ONE, (number, now, touched, GONE, None))
    else:
        connection.execute(_KEEP_ONE, (number, now, touched, FRESH, value))


def keep_redacted(connection: Database, number: int, now: int, touched: int) -> None:
    """Keeps that there was this version, without its content."""
    connection.execute(_KEEP_ONE, (number, now, touched, GONE, None))
    connection.execute(
        "UPDATE past SET metadata = NULL, redacted_at = ? WHERE id = ?", (now, connection.last_insert_rowid())
    )


def carry(connection: Database, source: tuple[int, str], target: tuple[int, str], touched: int) -> None:
    """Lets the past of a key be that of another one, unless that has one of its own."""
    there = "SELECT EXISTS (SELECT 1 FROM past WHERE namespace_id = ? AND key = ?)"
    if not connection.execute(there, target).get:
        connection.execute(
            "UPDATE past SET namespace_id = ?, key = ?, touched = ? WHERE namespace_id = ? AND key = ?",
            (*target, touched, *source),
        )


def forget_memory(connection: Database, number: int) -> None:
    """A memory that has expired, or whose namespace went, has no past."""
    connection.execute("DELETE FROM past WHERE memory_id = ?", (number,))


# ---- reading
def heads(connection: Database, namespace: str, key: str, now: int, before: int | None, limit: int) -> list[Past]:
    """See `Storage.past`."""
    rows = connection.execute(
        f"SELECT {HEAD} {_OF_KEY} AND (?3 IS NULL OR p.version < ?3) AND {_LIVES.replace('?', '?4')}"
        " ORDER BY p.version DESC LIMIT ?5",
        (namespace, key, before, now, limit),
    )
    return [past_of(row) for row in rows]


def version(connection: Database, namespace: str, key: str, number: int, now: int) -> Past | None:
    """See `Storage.past_version`."""
    row = connection.execute(
        f"SELECT {WITH_ATTRIBUTES} {_OF_KEY} AND p.version = ?3 AND {_LIVES.replace('?', '?4')}",
        (namespace, key, number, now),
    ).fetchone()
    return None if row is None else _with_value(connection, past_of(row))


def as_of(connection: Database, namespace: str, key: str, instant: int, now: int) -> Memory | None:
    """See `Storage.as_of`."""
    current = connection.execute(WHOLE, (namespace, key, now)).fetchone()
    memory = None if current is None else memory_of(current)
    if memory is not None and memory.updated_at <= instant:
        return memory
    row = connection.execute(
        f"SELECT {WITH_ATTRIBUTES} {_OF_KEY} AND p.updated_at <= ?3 AND p.ended_at > ?3 AND {_LIVES.replace('?', '?4')}"
        " ORDER BY p.version DESC LIMIT 1",
        (namespace, key, instant, now),
    ).fetchone()
    if row is not None:
        past = past_of(row)
        if not past.memory.visible(instant):
            return None
        if not past.kept:
            raise VersionGoneError(namespace, key, past.memory.version, redacted=past.redacted_at is not None)
        return _with_value(connection, past).memory
    if memory is not None and memory.created_at <= instant:
        # It was there, as one of the versions that are forgotten.
        oldest = connection.execute(f"SELECT min(p.version) {_OF_KEY}", (namespace, key)).get
        raise VersionGoneError(namespace, key, max(1, (oldest or memory.version) - 1))
    return None


def past_of(row: tuple[Any, ...]) -> Past:
    """The version that the row is, without its value."""
    ended_at, size, touched, coding, redacted_at = row[_MEMORY:]
    memory = Memory(*row[:_MEMORY])
    if coding == GONE:
        memory.attributes = NO_ATTRIBUTES
    return Past(memory, ended_at, size, touched, coding != GONE, redacted_at)


def _with_value(connection: Database, past: Past) -> Past:
    if past.kept:
        past.memory.value = content(connection, past.memory.id, past.memory.version)
    return past


def content(connection: Database, memory_id: int, number: int) -> bytes:
    """The value of a version. Raises StorageCorruptError."""
    steps: list[bytes] = []
    wanted: int | None = number
    while True:
        row = connection.execute(
            "SELECT coding, base, value FROM past WHERE memory_id = ? AND version = ?", (memory_id, wanted)
        ).fetchone()
        if row is None or row[0] == GONE or len(steps) > MAX_DEPTH:
            raise StorageCorruptError(
                f"Version {number} of memory {memory_id} cannot be read: version {wanted} is missing"
            )
        coding, wanted, value = row
        if coding != DIFFERENCE:
            break
        steps.append(value)
    found = decoded(memory_id, coding, value, b"")
    for step in reversed(steps):
        found = decoded(memory_id, DIFFERENCE, step, found)
    return found


def decoded(memory_id: int, coding: int, value: bytes, base: bytes) -> bytes:
    """A value as it came, of how it is written. Raises StorageCorruptError."""
    if coding in {FRESH, PLAIN}:
        return value
    try:
        if coding == ZSTD:
            return zstd.decompress(value)
        return zstd.decompress(value, zstd_dict=zstd.ZstdDict(base, is_raw=True).as_prefix)
    except zstd.ZstdError as error:
        raise StorageCorruptError(f"A former version of memory {memory_id} is damaged: {error}") from None


# ---- in less room
def shrink(connection: Database, limit: int) -> int:
    """See `Storage.shrink_past`."""
    rows = connection.execute(
        f"SELECT id, memory_id, version, value FROM past WHERE coding = {FRESH} ORDER BY id LIMIT ?",  # noqa: S608 - fixed
        (limit,),
    ).fetchall()
    for number, memory_id, of_version, value in rows:
        before = connection.execute(
            "SELECT version, depth, coding FROM past WHERE memory_id = ? AND version < ? ORDER BY version DESC LIMIT 1",
            (memory_id, of_version),
        ).fetchone()
        base = None
        if before is not None and before[1] < MAX_DEPTH and before[2] != GONE:
            base = (before[0], before[1], content(connection, memory_id, before[0]))
        _write(connection, number, value, base if base is not None and len(base[2]) >= LEAST else None)
    return len(rows)


def _write(connection: Database, number: int, value: bytes, base: tuple[int, int, bytes] | None) -> None:
    coding, written, base_version, depth = PLAIN, value, None, 0
    if len(value) >= LEAST:
        packed = zstd.compress(value, LEVEL)
        if len(packed) < len(value):
            coding, written = ZSTD, packed
    if base is not None:
        difference = _difference(value, base[2])
        if len(difference) < len(written):
            coding, written, base_version, depth = DIFFERENCE, difference, base[0], base[1] + 1
    connection.execute(
        "UPDATE past SET coding = ?, value = ?, base = ?, depth = ? WHERE id = ?",
        (coding, written, base_version, depth, number),
    )


def _difference(value: bytes, base: bytes) -> bytes:
    window = (len(value) + len(base)).bit_length()
    options: dict[int, int] = {
        zstd.CompressionParameter.compression_level: LEVEL,
        zstd.CompressionParameter.window_log: min(max(window, SMALLEST_WINDOW), LARGEST_WINDOW),
    }
    return zstd.compress(value, options=options, zstd_dict=zstd.ZstdDict(base, is_raw=True).as_prefix)


def _stand_alone(connection: Database, leaving: Sequence[tuple[int, int]]) -> None:
    """Writes anew what stands on versions (memory, version) that are about to go, and stays."""
    # What stands on a version is the next one that there is: nothing comes between two of them later.
    rows = connection.execute(
        f"SELECT p.id, p.memory_id, p.version FROM json_each(?) AS j"  # noqa: S608 - fixed
        f" CROSS JOIN past p ON p.memory_id = j.value->>0 AND p.version = (SELECT min(x.version) FROM past x"
        f" WHERE x.memory_id = j.value->>0 AND x.version > j.value->>1)"
        f" WHERE p.coding = {DIFFERENCE} AND p.base = j.value->>1",
        (_encode(leaving).decode(),),
    ).fetchall()
    gone = set(leaving)
    staying = [row for row in rows if row[1:] not in gone]
    values = [(number, content(connection, memory_id, of_version)) for number, memory_id, of_version in staying]
    for number, value in values:
        _write(connection, number, value, None)


# ---- out of the past
def redact(
    connection: Database, namespace_id: int, key: str, of_version: int | None, now: int, touched: int
) -> list[Any]:
    """Takes the content out of a version of a key, or out of all; (memory, version) of those that there are."""
    found = connection.execute(
        "SELECT memory_id, version FROM past WHERE namespace_id = ?1 AND key = ?2 AND (?3 IS NULL OR version = ?3)"
        " ORDER BY version",
        (namespace_id, key, of_version),
    ).fetchall()
    _stand_alone(connection, found)
    connection.execute(
        f"""UPDATE past SET coding = {GONE}, value = NULL, metadata = NULL, base = NULL, depth = 0, touched = ?,
                redacted_at = coalesce(redacted_at, ?)
            WHERE namespace_id = ? AND key = ? AND version IN (SELECT value->>1 FROM json_each(?))""",  # noqa: S608 - fixed
        (touched, now, namespace_id, key, _encode(found).decode()),
    )
    return found


def prunable(
    connection: Database, scope: Sql, kept: int | None, before: int | None, limit: int
) -> list[tuple[int, int, int]]:
    """(row, memory, version) of what `prune` is to take: see `Storage.prune_past`. A look at all of the past, for a reader."""
    where, bound = scope
    found = {row for rows in _prunable(connection, where, list(bound), kept, before, limit) for row in rows}
    return sorted(found)[:limit]


def prune(connection: Database, chosen: Sequence[tuple[int, int, int]]) -> int:
    """Forgets versions that are still as they were chosen; how many."""
    rows = connection.execute(
        "SELECT p.id, p.memory_id, p.version FROM json_each(?) AS j CROSS JOIN past p ON p.id = j.value->>0"
        " WHERE p.memory_id = j.value->>1 AND p.version = j.value->>2 AND p.redacted_at IS NULL",
        (_encode(chosen).decode(),),
    ).fetchall()
    _stand_alone(connection, [row[1:] for row in rows])
    connection.execute(
        "DELETE FROM past WHERE id IN (SELECT value FROM json_each(?))", (_encode([row[0] for row in rows]).decode(),)
    )
    return len(rows)


def _prunable(
    connection: Database, where: str, bound: list[Any], kept: int | None, before: int | None, limit: int
) -> Iterator[list[tuple[int, int, int]]]:
    if before is not None:
        yield connection.execute(
            f"SELECT p.id, p.memory_id, p.version FROM past p INDEXED BY idx_past_ended"  # noqa: S608 - from the compiler
            f" CROSS JOIN namespaces n ON n.id = p.namespace_id WHERE p.ended_at < ? AND {where}"
            " AND p.redacted_at IS NULL ORDER BY p.ended_at LIMIT ?",
            (before, *bound, limit),
        ).fetchall()
    if kept is not None:
        yield connection.execute(
            f"""SELECT id, memory_id, version FROM (
                    SELECT p.id, p.memory_id, p.version, p.redacted_at,
                           row_number() OVER (PARTITION BY p.namespace_id, p.key ORDER BY p.version DESC) AS place
                    FROM past p JOIN namespaces n ON n.id = p.namespace_id WHERE {where}
                ) WHERE place > ? AND redacted_at IS NULL ORDER BY id LIMIT ?""",  # noqa: S608 - from the compiler
            (*bound, kept, limit),
        ).fetchall()


def problems(connection: Database) -> Iterator[tuple[int, int, str]]:
    """(memory, version, what is wrong) of the versions that are damaged."""
    for memory_id, of_version, coding, size in connection.execute(
        "SELECT memory_id, version, coding, bytes FROM past ORDER BY memory_id, version"
    ):
        if coding == GONE:
            continue
        try:
            found = len(content(connection, memory_id, of_version))
        except StorageCorruptError as error:
            yield memory_id, of_version, error.detail
        else:
            if found != size:
                yield memory_id, of_version, f"It has {found} bytes, not {size}"
