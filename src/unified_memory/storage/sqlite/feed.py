"""The list of everything that happened, in the commit order."""

import itertools

from unified_memory.model.errors import ChangesGoneError
from unified_memory.model.history import Event, Kind
from unified_memory.storage.sqlite.connection import Database

# Of a JSON array of rows.
LOG = """INSERT INTO changes SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6
    FROM json_each(?)"""


def read(connection: Database, after: int, limit: int) -> list[Event]:
    """See `Storage.feed`."""
    oldest = connection.execute("SELECT feed_floor FROM counters").get
    if after < oldest:
        raise ChangesGoneError(after, oldest)
    rows = connection.execute(
        "SELECT seq, at, kind, namespace, key, version, memory_id FROM changes WHERE seq > ? ORDER BY seq LIMIT ?",
        (after, limit),
    )
    return [Event(seq, at, Kind(kind), *of) for seq, at, kind, *of in rows]


def prune(connection: Database, before: int, limit: int) -> int:
    """See `Storage.prune_feed`."""
    rows = connection.execute("SELECT seq, at FROM changes ORDER BY seq LIMIT ?", (limit,)).fetchall()
    # A clock may have gone back: nothing is forgotten behind what is kept.
    old = [seq for seq, _ in itertools.takewhile(lambda row: row[1] < before, rows)]
    if old:
        connection.execute("DELETE FROM changes WHERE seq <= ?", (old[-1],))
        connection.execute("UPDATE counters SET feed_floor = ?", (old[-1],))
    return len(old)
