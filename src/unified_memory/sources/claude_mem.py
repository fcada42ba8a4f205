"""claude-mem (npm): observations, summaries and prompts of coding sessions, in one SQLite file (`claude-mem.db`).

Read in the schema of 13.25.3; columns that an older one lacks are taken as empty. Times are milliseconds since 1970.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import apsw

from unified_memory.model.errors import InvalidInputError, SourceError
from unified_memory.model.value import encode
from unified_memory.sources.base import Found, Item, Options, Quarantined, Source, Survey
from unified_memory.sources.rows import MILLISECONDS, Row, Table, counted, instant, rows, total
from unified_memory.sources.sqlite_file import open_readonly, source_errors, tables, token

_FILE = "claude-mem.db"
_OBSERVATIONS = Table(
    "observations",
    "SELECT rowid, * FROM observations WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM observations WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM observations",
)
_SUMMARIES = Table(
    "session_summaries",
    "SELECT rowid, * FROM session_summaries WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM session_summaries WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM session_summaries",
)
_PROMPTS = Table(
    "user_prompts",
    "SELECT rowid, * FROM user_prompts WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM user_prompts WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM user_prompts",
)
_SESSIONS = Table(
    "sdk_sessions",
    "SELECT rowid, * FROM sdk_sessions WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM sdk_sessions WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM sdk_sessions",
)
_LEFT = (
    ("SELECT count(*) FROM pending_messages", "pending_messages", "messages that it has not worked off"),
    ("SELECT count(*) FROM tool_uses", "tool_uses", "recorded uses of tools"),
)
_PROJECTS = "SELECT project, count(*) FROM observations GROUP BY 1"
# What a record says in texts, and in JSON arrays of texts.
_SAID = ("title", "subtitle", "text", "narrative")
_LISTS = ("facts", "concepts", "files_read", "files_modified")
_SUMMED = ("request", "investigated", "learned", "completed", "next_steps", "notes")
_SUMMED_LISTS = ("files_read", "files_edited")
_KNOWN = ("prompt_number", "merged_into_project", "agent_type", "agent_id", "generated_by_model", "origin_device_id")


class ClaudeMem(Source):
    """`claude-mem.db`, or the folder that holds it (CLAUDE_MEM_DATA_DIR, otherwise ~/.claude-mem)."""

    kind: ClassVar[str] = "claude-mem"
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
        if not {"observations", "sdk_sessions"} <= known:
            connection.close()
            raise SourceError(cls.kind, str(path), "It is a database, but not one of claude-mem")
        return cls(path, connection)

    def survey(self) -> Survey:
        """Counts it; see Source."""
        with source_errors(self.kind, self._path):
            known = tables(self._connection)
            records = {table.name: counted(self._connection, table) for table in (_OBSERVATIONS, _SUMMARIES, _PROMPTS)}
            left = [
                f"{count} {what} stay there"
                for query, table, what in _LEFT
                if table in known and (count := total(self._connection, query))
            ]
            projects = {str(project): count for project, count in self._connection.execute(_PROJECTS)}
        remarks = [
            "An observation becomes the object of what it says; its type and concepts become tags",
            (
                f"Beside {records['observations']} observations, which are counted by project, "
                f"{records['session_summaries']} summaries and {records['user_prompts']} prompts become memories"
            ),
            "Embeddings (its folder of a vector database) stay there; meaning is indexed anew here",
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
        """All observations, then summaries and prompts; see Source."""
        with source_errors(self.kind, self._path):
            sessions = {row["id"]: row for row in rows(self._connection, _SESSIONS)}
            by_memory = {row["memory_session_id"]: row for row in sessions.values() if row.text("memory_session_id")}
            for table in (_OBSERVATIONS, _SUMMARIES, _PROMPTS):
                for row in rows(self._connection, table):
                    if odd := row.binary():
                        yield Quarantined(
                            origin=f"{table.name}/{row.number}",
                            code="binary",
                            reason=f"{', '.join(odd)} is no text",
                            raw=row.raw(),
                        )
                    elif table is _OBSERVATIONS:
                        yield _observation(row, by_memory.get(row["memory_session_id"]))
                    elif table is _SUMMARIES:
                        yield _summary(row, by_memory.get(row["memory_session_id"]))
                    else:
                        yield _prompt(row, sessions.get(row["session_db_id"]))

    def token(self) -> object:
        """See Source."""
        return token(self._path, self.kind)

    def close(self) -> None:
        """See Source."""
        self._connection.close()


def _observation(row: Row, session: Row | None) -> Item:
    kind = row.text("type")
    facts = row.facts(*_KNOWN)
    if row["relevance_count"]:
        facts["relevance_count"] = row["relevance_count"]
    if row.text("metadata"):
        facts["observation_metadata"] = row.json("metadata")
    return _made(
        row,
        session,
        "observations",
        key=f"observation/{row.number}",
        value=encode({**row.facts("type"), **_said(row, _SAID, _LISTS)}),
        tags=tuple(dict.fromkeys((*(() if kind is None else (kind,)), *row.tags("concepts")))),
        facts=facts,
    )


def _summary(row: Row, session: Row | None) -> Item:
    return _made(
        row,
        session,
        "session_summaries",
        key=f"summary/{row.number}",
        value=encode(_said(row, _SUMMED, _SUMMED_LISTS)),
        tags=("summary",),
        facts=row.facts(*_KNOWN),
    )


def _prompt(row: Row, session: Row | None) -> Item:
    return _made(
        row,
        session,
        "user_prompts",
        key=f"prompt/{row.number}",
        value=encode(row["prompt_text"]),
        tags=("prompt",),
        facts=row.facts(*_KNOWN),
    )


def _said(row: Row, texts: tuple[str, ...], lists: tuple[str, ...]) -> dict[str, Any]:
    """What the columns hold; arrays that are empty are left out."""
    told = row.facts(*texts)
    for name in lists:
        content = row.json(name)
        if content not in (None, "", []):
            told[name] = content
    return told


def _made(row: Row, session: Row | None, table: str, *, facts: dict[str, Any], **said: Any) -> Item:
    about = {} if session is None else session.facts("platform_source", "custom_title", "content_session_id")
    named = row.text("project") or (session.text("project") if session is not None else None)
    created = instant(row["created_at_epoch"], MILLISECONDS) or instant(row["created_at"], MILLISECONDS)
    return Item(
        origin=f"{table}/{row.number}",
        service="claude-mem",
        shape="record",
        project=named,
        session_id=row.text("memory_session_id") or (session.text("memory_session_id") if session else None),
        created_at=created,
        updated_at=created,
        facts={**facts, **about},
        **said,
    )
