"""Columns in the order of the record's fields, and records made of rows."""

from typing import Any

from unified_memory.model.job import Job, JobState
from unified_memory.model.memory import NO_ATTRIBUTES, Memory
from unified_memory.model.session import Session

_NONE = f"x'{NO_ATTRIBUTES.hex()}'"
_FIELDS = 16

# A stub has no text of its own: of a longer one this looks at the header alone.
IS_WARM = "octet_length(m.value_json)"
TIER = f"iif({IS_WARM}, 'warm', 'cold')"
# The text of a value wherever it lies (see `cold.py`), and its size in bytes.
VALUE = (
    f"iif({IS_WARM}, m.value_json, coalesce((SELECT cold_value(f.name, a.block, a.slot, a.memory_id) FROM archived a"  # noqa: S608
    " JOIN archives f ON f.number = a.archive WHERE a.memory_id = m.id), cold_value(NULL, NULL, NULL, m.id)))"
)
SIZE = f"iif({IS_WARM}, {IS_WARM}, coalesce((SELECT a.bytes FROM archived a WHERE a.memory_id = m.id), 0))"  # noqa: S608
_BYTES = f"CAST({VALUE} AS BLOB)"


def _columns(value: str, namespace: str = "n.name", tier: str = f", {TIER}") -> str:
    return (
        f"m.id, {namespace}, m.key, {value}, coalesce(CAST(m.metadata AS BLOB), {_NONE}), m.importance, m.session_id,"
        f" m.project_id, m.created_at, m.updated_at, m.expires_at, m.access_count, m.last_accessed, m.version, m.seq{tier}"
    )


# A whole record, and nothing else: a row is the arguments of Memory.
RECORD = _columns(_BYTES)
# HEAD: without the value, but with its size in bytes behind the record.
HEAD = _columns("x''") + f", {SIZE}"
# A record with that size, also of a deleted namespace, under the name that it had.
MEMORY_AS_NAMED = _columns(_BYTES, "coalesce(n.name, n.deleted_name)") + f", {SIZE}"
# Point reads where the namespace's name is bound as ?1. A subquery for its id rather than a join: measured 2.7 µs against 20.
# The quickest of all reads takes the value as it lies here: of a stub it is empty.
_HERE = _columns("CAST(m.value_json AS BLOB)", "?1", "")
GET = (
    f"SELECT {_HERE} FROM memories m WHERE m.namespace_id = (SELECT id FROM namespaces WHERE name = ?1) AND m.key = ?2"  # noqa: S608
    " AND (m.expires_at IS NULL OR m.expires_at > ?3)"
)
_NAMED = _columns(_BYTES, "?1")
WHOLE = (
    f"SELECT {_NAMED} FROM memories m WHERE m.namespace_id = (SELECT id FROM namespaces WHERE name = ?1) AND m.key = ?2"  # noqa: S608
    " AND (m.expires_at IS NULL OR m.expires_at > ?3)"
)
FIND_WHOLE = f"SELECT {_NAMED}, {SIZE} FROM memories m WHERE m.namespace_id = ?2 AND m.key = ?3"  # noqa: S608
_BARE = _columns("x''", "?1")
FIND_HEAD = (
    f"SELECT {_BARE}, {SIZE} FROM memories m"  # noqa: S608
    " WHERE m.namespace_id = ?2 AND m.key = ?3"
)
# The same for many at once: rows of a JSON array of (namespace id, key, namespace), and the place in it behind each row.
_MANY = _columns("x''", "j.value->>2")
FIND_HEADS = (
    f"SELECT {_MANY}, {SIZE}, j.key FROM json_each(?) AS j"  # noqa: S608
    " CROSS JOIN memories AS m ON m.namespace_id = j.value->>0 AND m.key = j.value->>1"
)
# The last version of keys without a memory: that of the tombstone, or of the past that came along with a renamed namespace.
FIND_LAST = (
    "SELECT j.key, max("
    "coalesce((SELECT t.version FROM tombstones t WHERE t.namespace = j.value->>2 AND t.key = j.value->>1), 0),"
    " coalesce((SELECT max(p.version) FROM past p WHERE p.namespace_id = j.value->>0 AND p.key = j.value->>1), 0))"
    " FROM json_each(?) AS j"
)

# One value is bound in it: the instant at which memories are visible or not.
SESSION = (
    "s.id, n.name, s.cluster_id, s.project_id, s.ttl, CAST(s.metadata AS BLOB), s.created_at, s.last_used, s.expires_at,"
    " s.ended_at, (SELECT count(*) FROM memories m WHERE m.namespace_id = s.namespace_id AND m.session_id = s.id"
    " AND (m.expires_at IS NULL OR m.expires_at > ?))"
)
JOB = "id, kind, namespace, principal, state, created_at, beat_at, done, total, unit, finished_at, result, error"


def memory_of(row: tuple[Any, ...]) -> Memory:
    """The record at the beginning of the row."""
    return Memory(*row[:_FIELDS])


def session_of(row: tuple[Any, ...]) -> Session:
    """The session that the row is."""
    return Session(*row)


def job_of(row: tuple[Any, ...]) -> Job:
    """The job that the row is."""
    number, kind, namespace, principal, state = row[:5]
    return Job(number, kind, namespace, principal, JobState(state), *row[5:])
