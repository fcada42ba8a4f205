"""mcp-memory-keeper (npm): context items of sessions in channels, in one SQLite file (`context.db`).

Read in the schema of 0.14.1; columns that an older one lacks are taken as empty. Times are UTC.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import apsw

from unified_memory.model.errors import InvalidInputError, SourceError
from unified_memory.model.value import encode
from unified_memory.sources.base import Found, Item, Options, Quarantined, Source, Survey
from unified_memory.sources.rows import SECONDS, Row, Table, counted, instant, rows, total
from unified_memory.sources.sqlite_file import open_readonly, source_errors, tables, token

_FILE = "context.db"
# What its priorities are on our scale; it calls what has none normal.
_IMPORTANCE = {"critical": 10, "high": 8, "normal": 5, "low": 3}
_ITEMS = Table(
    "context_items",
    "SELECT rowid, * FROM context_items WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM context_items WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM context_items",
)
_JOURNAL = Table(
    "journal_entries",
    "SELECT rowid, * FROM journal_entries WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM journal_entries WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM journal_entries",
)
_RELATIONS = Table(
    "context_relationships",
    "SELECT rowid, * FROM context_relationships WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM context_relationships WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM context_relationships",
)
_COMPRESSED = Table(
    "compressed_context",
    "SELECT rowid, * FROM compressed_context WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM compressed_context WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM compressed_context",
)
_SESSIONS = Table(
    "sessions",
    "SELECT rowid, * FROM sessions WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM sessions WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM sessions",
)
_CARRIED = (_ITEMS, _JOURNAL, _RELATIONS, _COMPRESSED)
# What is left there: how many there are, and what they are called.
_LEFT = (
    ("SELECT count(*) FROM file_cache", "file_cache", "cached files"),
    ("SELECT count(*) FROM checkpoints", "checkpoints", "checkpoints"),
    ("SELECT count(*) FROM entities", "entities", "entities that it drew from items"),
    ("SELECT count(*) FROM vector_embeddings", "vector_embeddings", "embeddings"),
)
_PROJECTS = "SELECT coalesce(channel, 'general'), count(*) FROM context_items GROUP BY 1"


class MemoryKeeper(Source):
    """`context.db`, or the folder that holds it (DATA_DIR, otherwise ~/mcp-data/memory-keeper)."""

    kind: ClassVar[str] = "memory-keeper"
    takes: ClassVar[str] = "a file"

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self._path = path
        self._connection = connection

    @classmethod
    def open(cls, location: str, options: Options) -> Self:  # noqa: ARG003 - nothing more may be said of it
        """The database; see Source."""
        if not location or "\0" in location:
            raise InvalidInputError("source", f"{location!r} names no file")
        path = Path(location).expanduser()
        if path.is_dir():
            path /= _FILE
        connection = open_readonly(path, cls.kind)
        with source_errors(cls.kind, path):
            known = tables(connection)
        if not {"context_items", "sessions"} <= known:
            connection.close()
            raise SourceError(cls.kind, str(path), "It is a database, but not one of mcp-memory-keeper")
        return cls(path, connection)

    def survey(self) -> Survey:
        """Counts it; see Source."""
        with source_errors(self.kind, self._path):
            known = tables(self._connection)
            records = {table.name: counted(self._connection, table) for table in _CARRIED}
            left = [
                f"{count} {what} stay there"
                for query, table, what in _LEFT
                if table in known and (count := total(self._connection, query))
            ]
            projects = {str(channel): count for channel, count in self._connection.execute(_PROJECTS)}
        remarks = [
            "A channel becomes a project, and the key of an item follows on its session, in which alone it is unique",
            (
                f"{records['journal_entries']} entries of the journal, {records['context_relationships']} relations and "
                f"{records['compressed_context']} compressed contexts become memories of their own"
            ),
            *left,
        ]
        return Survey(
            kind=self.kind,
            location=str(self._path),
            records=sum(records.values()),
            projects=projects,
            remarks=remarks,
            bytes=self._path.stat().st_size,
        )

    def read(self) -> Iterator[Found]:
        """All items, then the journal, relations and compressed contexts; see Source."""
        with source_errors(self.kind, self._path):
            sessions = {row["id"]: row for row in rows(self._connection, _SESSIONS)}
            for table, make in (
                (_ITEMS, _item),
                (_JOURNAL, _entry),
                (_RELATIONS, _relation),
                (_COMPRESSED, _compressed),
            ):
                for row in rows(self._connection, table):
                    if odd := row.binary():
                        yield Quarantined(
                            origin=f"{table.name}/{row.number}",
                            code="binary",
                            reason=f"{', '.join(odd)} is no text",
                            raw=row.raw(),
                        )
                    else:
                        yield make(row, sessions.get(row["session_id"]))

    def token(self) -> object:
        """See Source."""
        return token(self._path, self.kind)

    def close(self) -> None:
        """See Source."""
        self._connection.close()


def _item(row: Row, session: Row | None) -> Item:
    priority = row.text("priority") or "normal"
    category = row.text("category")
    facts = {"priority": priority, **row.facts("category", "channel"), **_session_facts(session)}
    if row["is_private"]:
        facts["private"] = True
    if row.text("metadata"):
        facts["item_metadata"] = row.json("metadata")
    return _made(
        row,
        f"context_items/{row['session_id']}/{row['key']}",
        project=str(row["channel"] or "general"),
        key=f"{row['session_id']}/{row['key']}",
        value=encode(row["value"]),
        tags=() if category is None else (category,),
        importance=_IMPORTANCE.get(priority, 5),
        facts=facts,
    )


def _entry(row: Row, session: Row | None) -> Item:
    return _made(
        row,
        f"journal_entries/{row['id']}",
        project=_channel(session),
        key=f"journal/{row['id']}",
        value=encode(row["entry"]),
        tags=tuple(dict.fromkeys((*row.tags("tags"), "journal"))),
        facts={**row.facts("mood"), **_session_facts(session)},
    )


def _relation(row: Row, session: Row | None) -> Item:
    about = {"from": row["from_key"], "to": row["to_key"], "relationship": row["relationship_type"]}
    if row.text("metadata"):
        about["metadata"] = row.json("metadata")
    return _made(
        row,
        f"context_relationships/{row['id']}",
        project=_channel(session),
        key=f"relation/{row['id']}",
        value=encode(about),
        tags=("relation",),
        facts=_session_facts(session),
    )


def _compressed(row: Row, session: Row | None) -> Item:
    return _made(
        row,
        f"compressed_context/{row['id']}",
        project=_channel(session),
        key=f"compressed/{row['id']}",
        value=encode(row.json("compressed_data")),
        tags=("compressed",),
        facts={**row.facts("original_count", "date_range_start", "date_range_end"), **_session_facts(session)},
    )


def _made(row: Row, origin: str, **said: Any) -> Item:
    created = instant(row["created_at"], SECONDS)
    return Item(
        origin=origin,
        service="mcp-memory-keeper",
        shape="record",
        session_id=row.text("session_id"),
        created_at=created,
        updated_at=instant(row["updated_at"], SECONDS) or created,
        **said,
    )


def _channel(session: Row | None) -> str:
    return str(session["default_channel"] or "general") if session is not None else "general"


def _session_facts(session: Row | None) -> dict[str, Any]:
    if session is None:
        return {}
    return {
        f"session_{name}": value
        for name, value in session.facts("name", "description", "branch", "working_directory").items()
    }
