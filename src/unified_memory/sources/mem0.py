"""mem0: the SQLite history beside its vector store, or its memories exported as JSON (https://github.com/mem0ai/mem0).

The history (`~/.mem0/history.db`) tells what became of each memory, but not whose it is: that stands in the vector store alone,
and in what `Memory.get_all` and the hosted API answer, which may be written to a file: an object with `results` or `memories`,
or the array itself. Read as 2.2.1 writes them.
"""

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import apsw

from unified_memory.model.errors import SourceError
from unified_memory.model.value import encode
from unified_memory.sources import foreign
from unified_memory.sources.base import Found, Item, Options, Skipped, Source, Survey
from unified_memory.sources.foreign import Part, UnfitError, one_row
from unified_memory.sources.rows import Row, Table, rows
from unified_memory.sources.sqlite_file import columns, open_readonly, source_errors, tables, token

_MAGIC = b"SQLite format 3\0"
_HISTORY = Table(
    "history",
    "SELECT rowid, * FROM history WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM history WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM history",
)
_NEEDED = frozenset({"memory_id", "event", "is_deleted"})
_MESSAGES = "SELECT count(*) FROM messages"
# What the history says of each memory, gathered in a file of our own that is gone when it is closed: the history has no index
# of memories, and there may be more of them than fit in here.
_GATHERED = """CREATE TABLE gathered (
    memory TEXT PRIMARY KEY, last INTEGER NOT NULL, changes INTEGER NOT NULL, created TEXT, deleted INTEGER NOT NULL
    ) WITHOUT ROWID"""
_GATHER = """INSERT INTO gathered VALUES (:memory, :number, 1, :created, :deleted) ON CONFLICT (memory) DO UPDATE SET
    last = :number, changes = changes + 1, created = coalesce(created, :created), deleted = :deleted"""
_OF_ONE = "SELECT last, changes, created FROM gathered WHERE memory = ?"
_TOTALS = "SELECT count(*), coalesce(sum(deleted), 0), coalesce(sum((changes - 1) * (1 - deleted)), 0) FROM gathered"
_LISTS = frozenset({None, "results", "memories"})
_USERS = ("user_id", "agent_id", "run_id")
# What of an exported memory has a place of its own here, or is how a search ranked it.
_PLACED = frozenset(
    {"id", "memory", "metadata", "categories", "created_at", "updated_at", "expiration_date", "score", *_USERS}
)


class Mem0(Source):
    """A history database, or an exported JSON file. A memory's key is its id, its project the user that it is of."""

    kind: ClassVar[str] = "mem0"
    takes: ClassVar[str] = "a file"

    def __init__(self, path: Path, options: Options) -> None:
        self._path = path
        self._options = options
        self._is_database = _starts_as_database(path, self.kind)

    @classmethod
    def open(cls, location: str, options: Options) -> Self:
        """The file, of either kind; see Source."""
        source = cls(foreign.path_of(location), options)
        if source._is_database:
            with source._connection():
                pass
        return source

    def survey(self) -> Survey:
        """Counts the memories, the deleted ones and their former versions, or those in the file; see Source."""
        found = self._survey_history() if self._is_database else self._survey_export()
        found.bytes = foreign.size_of(self._path, self.kind)
        return found

    def read(self) -> Iterator[Found]:
        """Every memory as it is now; see Source."""
        return self._read_history() if self._is_database else self._read_export()

    def token(self) -> object:
        """See Source."""
        return token(self._path, self.kind) if self._is_database else foreign.file_token(self._path, self.kind)

    def close(self) -> None:
        """See Source. The file is open only while it is read."""

    @contextmanager
    def _connection(self) -> Iterator[apsw.Connection]:
        with source_errors(self.kind, self._path):
            connection = open_readonly(self._path, self.kind)
            try:
                missing = _NEEDED - columns(connection, "history")
                if missing:
                    detail = "It has no table history with " + ", ".join(sorted(missing))
                    hint = "The file is its history.db, or the JSON of Memory.get_all"
                    raise SourceError(self.kind, str(self._path), detail, hint=hint)
                yield connection
            finally:
                connection.close()

    def _survey_history(self) -> Survey:
        with self._connection() as connection, closing(_gathered(connection)) as gathered:
            memories, deleted, former = one_row(gathered, _TOTALS)
            (messages,) = one_row(connection, _MESSAGES) if "messages" in tables(connection) else (0,)
        remarks = ["Its history does not tell whose a memory is; the JSON of Memory.get_all does"]
        if deleted:
            remarks.append(f"{deleted} memories are deleted there and stay behind")
        if former:
            remarks.append(f"{former} former versions of memories stay behind; each memory is as it is now")
        if messages:
            remarks.append(f"{messages} messages, kept for the next extraction, stay behind")
        return Survey(kind=self.kind, location=str(self._path), records=memories - deleted, remarks=remarks)

    def _read_history(self) -> Iterator[Found]:
        with self._connection() as connection, closing(_gathered(connection)) as gathered:
            for row in rows(connection, _HISTORY):
                memory = row.text("memory_id")
                if memory is None:
                    yield UnfitError("malformed", "It has no memory_id").quarantined(f"history/{row.number}", row.raw())
                    continue
                about: list[tuple[Any, ...]] = gathered.execute(_OF_ONE, (memory,)).fetchall()
                # What was written since it was gathered is told the next time.
                if about and about[0][0] == row.number:
                    yield _current(row, memory, changes=about[0][1], created=about[0][2])

    def _survey_export(self) -> Survey:
        projects: dict[str, int] = {}
        memories = 0
        for found in self._read_export():
            if isinstance(found, Item):
                memories += 1
                if found.project is not None:
                    projects[found.project] = projects.get(found.project, 0) + 1
            elif found.origin == "rest":
                raise SourceError(self.kind, str(self._path), "It is no whole JSON file", hint="Export it again")
        return Survey(kind=self.kind, location=str(self._path), records=memories, projects=projects)

    def _read_export(self) -> Iterator[Found]:
        seen: set[bytes] = set()
        with foreign.opened(self._path, self.kind) as file:
            try:
                for part in foreign.parts_of(file):
                    yield self._exported(part, seen)
            except UnfitError as unfit:
                raise SourceError(self.kind, str(self._path), unfit.reason) from None

    def _exported(self, part: Part, seen: set[bytes]) -> Found:
        if not part.whole:
            return UnfitError("malformed", "The file ends in the middle of it").quarantined("rest", part.raw)
        origin = f"{part.name or 'results'}/{part.index}"
        if part.name not in _LISTS or part.index is None:
            return Skipped(origin=origin if part.index is not None else str(part.name), reason="It is no memory")
        try:
            memory = foreign.object_of(part.raw)
            name, text = foreign.text_in(memory, "id"), foreign.text_in(memory, "memory")
        except UnfitError as unfit:
            return unfit.quarantined(origin, part.raw)
        mark = hashlib.blake2b(name.encode(), digest_size=16).digest()
        if mark in seen:
            return UnfitError("malformed", f"The id {name} comes again").quarantined(origin, part.raw)
        seen.add(mark)
        return self._item(name, text, memory)

    def _item(self, name: str, text: str, memory: dict[str, Any]) -> Item:
        facts: dict[str, Any] = {"mem0_id": name}
        facts |= {owner: memory[owner] for owner in _USERS if memory.get(owner)}
        if memory.get("metadata"):
            facts["metadata"] = foreign.plain(memory["metadata"])
        others = {member: part for member, part in memory.items() if member not in _PLACED and part is not None}
        if others:
            facts["mem0"] = foreign.plain(others)
        categories = memory.get("categories")
        tags = (
            [tag for tag in categories if isinstance(tag, str) and tag.strip()] if isinstance(categories, list) else []
        )
        expires_on = memory.get("expiration_date")
        expires_at = foreign.instant_of(expires_on) if self._options.keep_ttl else None
        if expires_on is not None and expires_at is None:
            facts["mem0_expiration_date"] = expires_on
        user = next(
            (memory[owner] for owner in _USERS[:2] if isinstance(memory.get(owner), str) and memory[owner]), None
        )
        created_at, updated_at, notes = _times(memory.get("created_at"), memory.get("updated_at"))
        return Item(
            origin=f"memory/{name}",
            service=self.kind,
            shape="record",
            project=user,
            key=name,
            value=encode(text),
            tags=tuple(dict.fromkeys(tags)),
            created_at=created_at,
            updated_at=updated_at,
            expires_at=expires_at,
            facts=facts,
            notes=(*notes, *foreign.huge_integers(memory)),
        )


def _starts_as_database(path: Path, kind: str) -> bool:
    foreign.check_file(path, kind)
    # Through SQLite, as sqlite_file says.
    with (
        source_errors(kind, path),
        closing(apsw.Connection(str(path.absolute()), flags=apsw.SQLITE_OPEN_READONLY)) as file,
    ):
        return file.read("main", 0, 0, len(_MAGIC))[1] == _MAGIC


def _gathered(connection: apsw.Connection) -> apsw.Connection:
    """Of each memory: its last row, how many there are, when it was created, and whether it is deleted."""
    gathered = apsw.Connection("")
    gathered.execute("PRAGMA journal_mode = OFF")
    gathered.execute(_GATHERED)
    with gathered:
        for row in rows(connection, _HISTORY):
            memory = row.text("memory_id")
            if memory is not None:
                values = {"memory": memory, "number": row.number, "deleted": _is_deleted(row)}
                gathered.execute(_GATHER, {**values, "created": _time(row, "created_at")})
    return gathered


def _is_deleted(row: Row) -> bool:
    return str(row["event"]).upper() == "DELETE" or bool(row["is_deleted"])


def _time(row: Row, column: str) -> str | None:
    """What the row says of that time; earlier versions have one for both."""
    return row.text(column) or row.text("timestamp")


def _current(row: Row, memory: str, *, changes: int, created: str | None) -> Found:
    origin = f"memory/{memory}"
    if _is_deleted(row):
        return Skipped(origin=origin, reason="It is deleted there")
    # Earlier versions, 0.0.5 for one, have the text in the other column.
    text = row["new_memory"] if row["new_memory"] is not None else row["new_value"]
    if not isinstance(text, str):
        code = "binary" if isinstance(text, bytes) else "malformed"
        return UnfitError(code, "Its text is missing, or no text").quarantined(origin, row.raw())
    facts: dict[str, Any] = {"mem0_id": memory}
    facts |= {f"mem0_{column}": row.text(column) for column in ("role", "actor_id") if row.text(column)}
    if changes > 1:
        facts["mem0_former_versions"] = changes - 1
    created_at, updated_at, notes = _times(created, _time(row, "updated_at"))
    return Item(
        origin=origin,
        service=Mem0.kind,
        shape="record",
        project=None,
        key=memory,
        value=encode(text),
        created_at=created_at,
        updated_at=created_at if updated_at is None else updated_at,
        facts=facts,
        notes=notes,
    )


def _times(created: Any, updated: Any) -> tuple[int | None, int | None, tuple[str, ...]]:
    """Both instants, and a note on each that is none."""
    notes = tuple(
        f"malformed: {name} is no instant: {told!r}"
        for name, told in (("created_at", created), ("updated_at", updated))
        if told is not None and foreign.instant_of(told) is None
    )
    return foreign.instant_of(created), foreign.instant_of(updated), notes
