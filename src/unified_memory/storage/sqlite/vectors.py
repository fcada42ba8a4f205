"""Vectors in the database. Every statement that asks for a model names it by its identity: one that is not known has none."""

from collections.abc import Sequence

import msgspec

from unified_memory.model.errors import InvalidInputError, StorageCorruptError
from unified_memory.model.memory import Memory
from unified_memory.storage.base import Code, Vector, VectorCounts, VectorNews
from unified_memory.storage.sqlite.connection import Database
from unified_memory.storage.sqlite.filters import Sql
from unified_memory.storage.sqlite.rows import RECORD, memory_of

# Of values that are shown at once to whoever makes vectors of them.
SHOWN_BYTES = 8 * 1024**2
_MODEL = "(SELECT id FROM models WHERE identity = ?)"
_encode = msgspec.json.Encoder().encode

# A new place in the same commit: the old row is replaced.
MOVE = """INSERT OR REPLACE INTO vectors (memory_id, model_id, code)
    SELECT memory_id, model_id, code FROM vectors WHERE memory_id = ?"""
ONE = f"SELECT {RECORD} FROM memories m JOIN namespaces n ON n.id = m.namespace_id WHERE m.id = ?"  # noqa: S608 - fixed columns
PUT = """INSERT OR REPLACE INTO vectors (memory_id, model_id, code)
    SELECT m.id, ?, unhex(j.value->>2) FROM json_each(?) AS j CROSS JOIN memories m ON m.id = j.value->>0
    WHERE m.seq = j.value->>1 ORDER BY j.key"""


def unembedded(connection: Database, model: str, now: int, after_seq: int, limit: int) -> list[Memory]:
    """See `Storage.unembedded`."""
    found: list[Memory] = []
    size = 0
    waiting = connection.execute(
        f"""SELECT m.id FROM memories m INDEXED BY idx_memories_seq CROSS JOIN namespaces n ON n.id = m.namespace_id
            WHERE m.seq > ? AND n.name IS NOT NULL AND (m.expires_at IS NULL OR m.expires_at > ?)
              AND NOT EXISTS (SELECT 1 FROM vectors v WHERE v.memory_id = m.id AND v.model_id = {_MODEL})
            ORDER BY m.seq""",  # noqa: S608 - fixed columns
        (after_seq, now, model),
    )
    for (number,) in waiting:
        try:
            (row,) = connection.execute(ONE, (number,)).fetchall()
        except StorageCorruptError:
            # `check` names it; those after it are not kept waiting.
            continue
        found.append(memory_of(row))
        size += len(found[-1].value)
        if len(found) == limit or size >= SHOWN_BYTES:
            break
    return found


def put(connection: Database, model: str, codes: Sequence[Code]) -> int:
    """See `Storage.put_vectors`."""
    if not codes:
        return 0
    known = connection.execute("SELECT id, length FROM models WHERE identity = ?", (model,)).get
    if known is None:
        length = len(codes[0].code)
        connection.execute("INSERT INTO models (identity, length) VALUES (?, ?)", (model, length))
        number = connection.last_insert_rowid()
    else:
        number, length = known
    if wrong := [one for one in codes if len(one.code) != length]:
        raise InvalidInputError("codes", f"A code of {model} has {length} bytes, not {len(wrong[0].code)}")
    rows = _encode([(one.id, one.seq, one.code.hex()) for one in codes]).decode()
    connection.execute(PUT, (number, rows))
    return int(connection.execute("SELECT changes()").get)


def drop(connection: Database, keep: str | None, limit: int) -> int:
    """See `Storage.drop_vectors`."""
    others = f"model_id IS NOT {_MODEL}"
    connection.execute(
        f"DELETE FROM vectors WHERE place IN (SELECT place FROM vectors WHERE {others} LIMIT ?)",  # noqa: S608 - fixed
        (keep, limit),
    )
    gone = int(connection.execute("SELECT changes()").get)
    if not gone:
        connection.execute("DELETE FROM models WHERE identity IS NOT ?", (keep,))
    return gone


def news(connection: Database, model: str, scope: Sql, after: tuple[int, int], limit: int) -> VectorNews:
    """See `Storage.vector_news`. `after`: place and seq."""
    where, bound = scope
    after_place, after_seq = after
    seq = connection.execute("SELECT last_seq FROM counters").get
    gone = connection.execute(
        "SELECT id FROM memories WHERE seq > ?1 UNION ALL SELECT memory_id FROM tombstones WHERE seq > ?1", (after_seq,)
    )
    numbers = [row[0] for row in gone] if after_seq else []
    last_place = connection.execute("SELECT max(place) FROM vectors").get or 0
    inside = connection.execute(f"SELECT total(n.memories) FROM namespaces n WHERE {where}", bound).get  # noqa: S608
    # Either what was put since or what lies in the scope is looked through, whichever is less.
    if last_place - after_place <= inside:
        places = (
            "SELECT v.place FROM vectors v INDEXED BY idx_vectors_model CROSS JOIN memories m ON m.id = v.memory_id"
            " CROSS JOIN namespaces n ON n.id = m.namespace_id"
        )
    else:
        places = (
            "SELECT v.place FROM namespaces n CROSS JOIN memories m ON m.namespace_id = n.id"
            " CROSS JOIN vectors v ON v.memory_id = m.id"
        )
    rows = connection.execute(
        f"""SELECT v.place, v.memory_id, v.code
            FROM ({places} WHERE v.model_id = {_MODEL} AND v.place > ? AND {where} ORDER BY v.place LIMIT ?) AS p
            CROSS JOIN vectors v ON v.place = p.place ORDER BY v.place""",  # noqa: S608 - the condition is the compiler's
        (model, after_place, *bound, limit),
    )
    return VectorNews(numbers, [Vector(*row) for row in rows], seq)


def held(connection: Database, model: str, ids: Sequence[int], now: int) -> set[int]:
    """See `Storage.with_vectors`."""
    rows = connection.execute(
        f"""SELECT m.id FROM json_each(?) AS j CROSS JOIN vectors v ON v.memory_id = j.value
            CROSS JOIN memories m ON m.id = v.memory_id CROSS JOIN namespaces n ON n.id = m.namespace_id
            WHERE v.model_id = {_MODEL} AND n.name IS NOT NULL AND (m.expires_at IS NULL OR m.expires_at > ?)""",  # noqa: S608
        (_encode(list(ids)).decode(), model, now),
    )
    return {row[0] for row in rows}


def counts(connection: Database, model: str, now: int) -> VectorCounts:
    """See `Storage.vector_counts`. Only indexes are counted, and what has expired or lost its namespace."""
    one = connection.execute
    made, all_made = one(
        f"SELECT (SELECT count(*) FROM vectors WHERE model_id = {_MODEL}), (SELECT count(*) FROM vectors)",  # noqa: S608
        (model,),
    ).get
    expired = one(
        f"""SELECT count(*) FROM memories m CROSS JOIN vectors v ON v.memory_id = m.id
            WHERE m.expires_at <= ? AND v.model_id = {_MODEL}""",  # noqa: S608
        (now, model),
    ).get
    dead = one(
        f"""SELECT count(*) FROM namespaces n CROSS JOIN memories m ON m.namespace_id = n.id
            CROSS JOIN vectors v ON v.memory_id = m.id
            WHERE n.deleted_name IS NOT NULL AND (m.expires_at IS NULL OR m.expires_at > ?) AND v.model_id = {_MODEL}""",  # noqa: S608
        (now, model),
    ).get
    visible = one(
        """SELECT (SELECT CAST(total(memories) AS INTEGER) FROM namespaces WHERE name IS NOT NULL)
            - (SELECT count(*) FROM memories m CROSS JOIN namespaces n ON n.id = m.namespace_id
               WHERE m.expires_at <= ? AND n.name IS NOT NULL)""",
        (now,),
    ).get
    embedded = made - expired - dead
    return VectorCounts(embedded, visible - embedded, all_made - made)
