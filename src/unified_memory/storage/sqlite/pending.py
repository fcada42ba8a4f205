"""What a transaction has decided and not yet written: one statement for each table, however many memories.

Every statement gives up the interpreter's lock and has to wait for it again, behind whatever the event loop is doing. Written
one by one, a memory costs about nine such waits; gathered, a whole group costs five.
"""

import msgspec

from unified_memory.model.history import Event
from unified_memory.storage.base import Draft, Origin
from unified_memory.storage.sqlite.connection import Database
from unified_memory.storage.sqlite.feed import LOG
from unified_memory.storage.sqlite.past import KEEP

_encode = msgspec.json.Encoder().encode

# Rows come as a JSON array of arrays; `->>` gives their members as SQL values.
INSERT = """INSERT INTO memories (id, key, namespace_id, importance, version, seq, created_at, updated_at, expires_at, session_id,
    project_id, metadata, value_json)
    SELECT value->>0, value->>1, value->>2, value->>3, value->>4, value->>5, value->>6, value->>6, value->>7, value->>8,
           value->>9, value->>10, value->>11 FROM json_each(?)"""
UPDATE = """UPDATE memories SET importance = j.value->>1, version = j.value->>2, seq = j.value->>3, updated_at = j.value->>4,
    expires_at = j.value->>5, session_id = j.value->>6, project_id = j.value->>7, metadata = j.value->>8, value_json = j.value->>9
    FROM json_each(?) AS j WHERE memories.id = j.value->>0"""
# What comes from elsewhere brings its own instants and access data.
ORIGIN = """UPDATE memories SET created_at = j.value->>1, updated_at = j.value->>2, access_count = j.value->>3,
    last_accessed = j.value->>4 FROM json_each(?) AS j WHERE memories.id = j.value->>0"""
SEARCH_INDEX = """INSERT OR REPLACE INTO search_index (memory_id, keywords, content_hash)
    SELECT value->>0, value->>1, unhex(value->>2) FROM json_each(?)"""
TEXT = """INSERT OR REPLACE INTO memory_text (rowid, body, title, scope)
    SELECT value->>0, value->>1, value->>2, value->>3 FROM json_each(?)"""
UNARCHIVE = "DELETE FROM archived WHERE memory_id IN (SELECT value FROM json_each(?))"
UNEMBED = "DELETE FROM vectors WHERE memory_id IN (SELECT value FROM json_each(?))"
TAG = "INSERT OR IGNORE INTO memory_tags SELECT value->>0, value->>1 FROM json_each(?)"
UNTAG = """DELETE FROM memory_tags WHERE (tag_id, memory_id) IN (SELECT value->>0, value->>1 FROM json_each(?))"""


class Pending:
    """Rows to be written by `flush`."""

    def __init__(self, connection: Database) -> None:
        self._connection = connection
        self._rows: dict[str, list[object]] = {
            sql: [] for sql in (KEEP, INSERT, UPDATE, ORIGIN, UNTAG, TAG, SEARCH_INDEX, TEXT, UNEMBED, UNARCHIVE, LOG)
        }
        # (namespace id, key) of the memories among them.
        self.keys: set[tuple[int, str]] = set()

    def insert(
        self, number: int, ref: tuple[int, str], version: int, seq: int, now: int, draft: Draft, metadata: str | None
    ) -> None:
        """A new memory."""
        namespace_id, key = ref
        self.keys.add(ref)
        self._rows[INSERT].append(
            (
                number, key, namespace_id, draft.importance, version, seq, now, draft.expires_at, draft.session_id,
                draft.project_id, metadata, draft.value.decode(),
            )
        )  # fmt: skip

    def update(
        self, number: int, ref: tuple[int, str], version: int, seq: int, now: int, draft: Draft, metadata: str | None
    ) -> None:
        """A memory at its next version."""
        self.keys.add(ref)
        self._rows[UPDATE].append(
            (
                number, draft.importance, version, seq, now, draft.expires_at, draft.session_id, draft.project_id, metadata,
                draft.value.decode(),
            )
        )  # fmt: skip

    def keep(self, number: int, now: int, seq: int) -> None:
        """Its version is kept as a former one, before the next takes its place; its value is not cold."""
        self._rows[KEEP].append((number, now, seq))

    def come(self, number: int, origin: Origin) -> None:
        """It comes from elsewhere."""
        self._rows[ORIGIN].append(
            (number, origin.created_at, origin.updated_at, origin.access_count, origin.last_accessed)
        )

    def log(self, event: Event) -> None:
        """Something has happened."""
        self._rows[LOG].append(
            (event.seq, event.at, event.kind.value, event.namespace, event.key, event.version, event.id)
        )

    def index(self, number: int, keywords: str, content_hash: bytes, text: str, title_text: str, scope: str) -> None:
        """What the search knows of it, in place of what it knew."""
        self._rows[SEARCH_INDEX].append((number, keywords, content_hash.hex()))
        self._rows[TEXT].append((number, text, title_text, scope))

    def unembed(self, number: int) -> None:
        """Its vector no longer stands for it."""
        self._rows[UNEMBED].append(number)

    def unarchive(self, number: int) -> None:
        """Where it was a stub, it is one no longer."""
        self._rows[UNARCHIVE].append(number)

    def tag(self, tag_id: int, number: int) -> None:
        """A tag beside it."""
        self._rows[TAG].append((tag_id, number))

    def untag(self, tag_id: int, number: int) -> None:
        """A tag no longer beside it."""
        self._rows[UNTAG].append((tag_id, number))

    def flush(self) -> None:
        """Writes everything: former versions before what takes their place, memories before what refers to them."""
        for sql, rows in self._rows.items():
            if rows:
                self._connection.execute(sql, (_encode(rows).decode(),))
        self.forget()

    def forget(self) -> None:
        """Drops what was gathered."""
        if self.keys or any(self._rows.values()):
            for rows in self._rows.values():
                rows.clear()
            self.keys.clear()
