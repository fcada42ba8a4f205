"""mcp-memory-service: the database of its storage backend sqlite_vec (https://github.com/doobidoo/mcp-memory-service).

Read in the schema of 12.4.0; columns that an older one lacks are taken as empty. Times are seconds since 1970.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import apsw

from unified_memory.model.errors import SourceError
from unified_memory.model.value import encode
from unified_memory.sources import foreign
from unified_memory.sources.base import Found, Item, Options, Skipped, Source, Survey
from unified_memory.sources.foreign import UnfitError
from unified_memory.sources.rows import SECONDS, Row, Table, counted, instant, parsed, rows
from unified_memory.sources.sqlite_file import columns, encoding, open_readonly, source_errors, tables, token

_NEEDED = frozenset({"id", "content_hash", "content", "tags", "memory_type", "metadata", "created_at"})
_MEMORIES = Table(
    "memories",
    "SELECT rowid, * FROM memories WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM memories WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM memories",
)
_BELIEFS = Table(
    "beliefs",
    "SELECT rowid, * FROM beliefs WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM beliefs WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM beliefs",
)
_DELETED = "SELECT count(deleted_at) FROM memories"
_SUPERSEDED = "SELECT count(*) FROM memories WHERE superseded_by <> ''"
_STORES = "SELECT coalesce(store, ''), count(*) FROM memories WHERE deleted_at IS NULL GROUP BY 1"
_RELATIONS = """SELECT CAST(relationship_type AS BLOB), CAST(target_hash AS BLOB), similarity, CAST(metadata AS BLOB)
    FROM memory_graph WHERE source_hash = ? ORDER BY target_hash"""
_TEXTS = frozenset({"content_hash", "belief_hash", "content", "tags", "memory_type", "metadata"})
# A memory says nothing of its store where it is in this one, as all were before there were others.
_DEFAULT_STORES = frozenset({"", "default", None})
# Its importance_score runs from 0 to 2, and 1 is as important as any.
_NORMAL_IMPORTANCE = 5
_LIFTED = ("user_id", "agent_id", "run_id", "session_id")


class MCPMemoryService(Source):
    """A sqlite_vec database. A memory's key is the hash of its content, its project the store that it is in."""

    kind: ClassVar[str] = "mcp-memory-service"
    takes: ClassVar[str] = "a file"

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def open(cls, location: str, options: Options) -> Self:  # noqa: ARG003 - there is nothing else to say of it
        """The file; see Source."""
        source = cls(foreign.path_of(location))
        with source._connection():
            pass
        return source

    def survey(self) -> Survey:
        """Counts the memories, the deleted ones and those that a later one superseded; see Source."""
        with self._connection() as connection:
            there = columns(connection, "memories")
            (deleted,) = foreign.one_row(connection, _DELETED) if "deleted_at" in there else (0,)
            (superseded,) = foreign.one_row(connection, _SUPERSEDED) if "superseded_by" in there else (0,)
            records = counted(connection, _MEMORIES) - deleted + counted(connection, _BELIEFS)
            projects = {}
            if {"deleted_at", "store"} <= there:
                projects = {name: count for name, count in connection.execute(_STORES) if name not in _DEFAULT_STORES}
        remarks = ["Embeddings are not carried: ours are made anew"]
        if deleted:
            remarks.append(f"{deleted} memories are deleted there and stay behind")
        if superseded:
            remarks.append(
                f"{superseded} memories were superseded by later ones; they are carried too and say by which"
            )
        return Survey(
            kind=self.kind,
            location=str(self._path),
            records=records,
            projects=projects,
            remarks=remarks,
            bytes=foreign.size_of(self._path, self.kind),
        )

    def read(self) -> Iterator[Found]:
        """Every memory, then every belief; see Source."""
        with self._connection() as connection:
            texts = encoding(connection)
            has_relations = "memory_graph" in tables(connection)
            for row in rows(connection, _MEMORIES):
                found = self._memory(row)
                if isinstance(found, Item) and has_relations:
                    relations = [_relation(edge, texts) for edge in connection.execute(_RELATIONS, (found.key,))]
                    if relations:
                        found.facts["relations"] = relations
                yield found
            for row in rows(connection, _BELIEFS):
                yield self._belief(row)

    def token(self) -> object:
        """See Source."""
        return token(self._path, self.kind)

    def close(self) -> None:
        """See Source. The file is open only while it is read."""

    @contextmanager
    def _connection(self) -> Iterator[apsw.Connection]:
        with source_errors(self.kind, self._path):
            connection = open_readonly(self._path, self.kind)
            try:
                missing = _NEEDED - columns(connection, "memories")
                if missing:
                    detail = "It has no table memories with " + ", ".join(sorted(missing))
                    raise SourceError(
                        self.kind,
                        str(self._path),
                        detail,
                        hint="The file is its sqlite_vec.db (MCP_MEMORY_SQLITE_PATH)",
                    )
                yield connection
            finally:
                connection.close()

    def _memory(self, row: Row) -> Found:
        name = row.text("content_hash")
        origin = f"row/{row.number}" if name is None else f"memory/{name}"
        if row["deleted_at"] is not None:
            return Skipped(origin=origin, reason="It is deleted there")
        unfit = _unfit(row, name, "content_hash")
        if unfit is not None:
            return unfit.quarantined(origin, row.raw())
        facts = row.facts("content_hash", "memory_type", "parent_id", "superseded_by")
        facts |= {column: row[column] for column, usual in (("version", 1), ("confidence", 1)) if row[column] != usual}
        facts = {column: fact for column, fact in facts.items() if fact is not None}
        metadata, notes = _metadata(row)
        if metadata:
            facts["metadata"] = metadata
        members = metadata if isinstance(metadata, dict) else {}
        facts |= {lifted: members[lifted] for lifted in _LIFTED[:3] if isinstance(members.get(lifted), str)}
        store = row.text("store")
        session = members.get("session_id")
        count = members.get("access_count")
        created_at, updated_at = (instant(row[column], SECONDS) for column in ("created_at", "updated_at"))
        last_accessed = instant(row["last_accessed"], SECONDS)
        return Item(
            origin=origin,
            service=self.kind,
            shape="record",
            project=None if store in _DEFAULT_STORES else store,
            key=str(name),
            value=encode(row["content"]),
            tags=_tags(row.text("tags") or ""),
            importance=_importance(members.get("importance_score")),
            created_at=created_at,
            updated_at=updated_at,
            last_accessed=foreign.instant_of(members.get("last_accessed_at"))
            if last_accessed is None
            else last_accessed,
            access_count=count if isinstance(count, int) and 0 <= count < 2**63 else 0,
            session_id=session if isinstance(session, str) and session else None,
            facts=facts,
            notes=notes,
        )

    def _belief(self, row: Row) -> Found:
        name = row.text("belief_hash")
        origin = f"belief-row/{row.number}" if name is None else f"belief/{name}"
        unfit = _unfit(row, name, "belief_hash")
        if unfit is not None:
            return unfit.quarantined(origin, row.raw())
        facts = row.facts("belief_hash", "confidence", "status")
        facts |= {
            column: foreign.plain(row.json(column))
            for column in ("derived_from", "contradicted_by")
            if row.json(column)
        }
        metadata, notes = _metadata(row)
        if metadata:
            facts["metadata"] = metadata
        return Item(
            origin=origin,
            service=self.kind,
            shape="record",
            project=None,
            key=f"belief/{name}",
            value=encode(row["content"]),
            created_at=instant(row["created_at"], SECONDS),
            updated_at=instant(row["updated_at"], SECONDS),
            facts=facts,
            notes=notes,
        )


def _unfit(row: Row, name: str | None, column: str) -> UnfitError | None:
    binary = _TEXTS.intersection(row.binary())
    if binary:
        return UnfitError("binary", "What is no text stands in " + ", ".join(sorted(binary)))
    if name is None:
        return UnfitError("malformed", f"It has no {column}")
    if not isinstance(row["content"], str):
        return UnfitError("malformed", "Its content is no text")
    return None


def _metadata(row: Row) -> tuple[Any, tuple[str, ...]]:
    """Its metadata, parsed; the text that it is where it is no JSON, and a note on that."""
    text = row.text("metadata")
    if text is None:
        return None, ()
    try:
        metadata = foreign.json_of(text.encode(), "Its metadata")
    except UnfitError as unfit:
        return text, (f"{unfit.code}: {unfit.reason}; it is kept as a text",)
    return foreign.plain(metadata), foreign.huge_integers(metadata)


def _tags(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tag for part in text.split(",") if (tag := part.strip())))


def _importance(score: Any) -> int:
    if isinstance(score, bool) or not isinstance(score, int | float):
        return _NORMAL_IMPORTANCE
    return max(1, min(10, round(score * _NORMAL_IMPORTANCE)))


def _relation(edge: tuple[Any, ...], texts: str) -> dict[str, Any]:
    kind, target, similarity, metadata = (
        part.decode(texts, "backslashreplace") if isinstance(part, bytes) else part for part in edge
    )
    told = {
        "type": kind,
        "target": target,
        "similarity": similarity,
        "metadata": foreign.plain(parsed(metadata)) or None,
    }
    return {name: part for name, part in told.items() if part is not None}
