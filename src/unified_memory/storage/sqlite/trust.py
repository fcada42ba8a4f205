"""The era of hot copies: see `storage/warm.py`. Kept in the row of counters, so that every transaction sees it for nothing."""

import json
import secrets
from collections.abc import Sequence

from unified_memory.storage.sqlite.connection import Database
from unified_memory.storage.warm import Trust

TRUST = "SELECT hot_era, hot_servers, EXISTS (SELECT 1 FROM hot_mutes WHERE until > ?), hot_changes FROM counters"


def trust_of(row: tuple[object, ...]) -> Trust:
    """What a row of TRUST tells."""
    era, servers, muted, changes = row
    return Trust(str(era), frozenset(json.loads(str(servers))), bool(muted), int(str(changes)))


def begin(connection: Database, expected: str, era: str, servers: Sequence[str], now: int) -> Trust:
    """See `TrustKeeper.begin_era`."""
    connection.execute(
        "UPDATE counters SET hot_era = ?, hot_servers = ?, hot_changes = hot_changes + 1 WHERE hot_era = ?"
        " AND NOT EXISTS (SELECT 1 FROM hot_mutes WHERE until > ?)",
        (era, json.dumps(sorted(servers)), expected, now),
    )
    return trust_of(connection.execute(TRUST, (now,)).get)


def mute(connection: Database, node: str, now: int, until: int) -> None:
    """See `TrustKeeper.mute`."""
    connection.execute("DELETE FROM hot_mutes WHERE until <= ? OR node = ?", (now, node))
    if until > now:
        connection.execute("INSERT INTO hot_mutes VALUES (?, ?)", (node, until))
        connection.execute("UPDATE counters SET hot_era = '', hot_changes = hot_changes + 1 WHERE hot_era <> ''")


def another(connection: Database) -> None:
    """Begins another era where there is one: what was copied before is not read again."""
    connection.execute(
        "UPDATE counters SET hot_era = ?, hot_changes = hot_changes + 1 WHERE hot_era <> ''", (secrets.token_hex(8),)
    )
