"""The SQLite file of extended-memory-mcp, and what its contexts have in common wherever they are kept.

Format: that of version 0.9.0, `sqlite_provider.py` and the repositories below it.
"""

import contextlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar, Self

import apsw
from msgspec import Struct

from unified_memory.model.clock import SECOND, from_rfc3339, to_rfc3339
from unified_memory.model.errors import InvalidInputError, SourceError
from unified_memory.model.value import encode
from unified_memory.sources import sqlite_file
from unified_memory.sources.base import (
    EXTENDED_MEMORY,
    LEGACY_CREATED_AT,
    LEGACY_ID,
    LEGACY_IMPORTANCE,
    LEGACY_TAGS,
    Back,
    Found,
    Item,
    OlderSource,
    Options,
    Quarantined,
    Returned,
    Shape,
    Survey,
)

ORIGIN = "context/"
GENERAL = "general"
DEFAULT_IMPORTANCE = 5
# Facts beside those of sources/base.py.
LEGACY_EXPIRES_AT = "legacy_expires_at"
LEGACY_UPDATED_AT = "legacy_updated_at"
LEGACY_STATUS = "legacy_status"
LEGACY_COLUMNS = "legacy_columns"
_KNOWN_FACTS = {"migrated_from", "former_id"}

# Of an INSERT of theirs the two clocks were read within the time that a locked file makes it wait, 15 s.
_CLOCKS_APART = timedelta(minutes=2)
_QUARTER = timedelta(minutes=15)
_FURTHEST_ZONE = timedelta(hours=14)
_DIGITS = re.compile(r"[0-9]+")
_LEAST, _MOST = 1, 10
_INT64 = 2**63
_NUMBERS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
_SHOWN = 5

_NEEDED = ("id", "project_id", "content", "importance_level", "created_at")
_OPTIONAL = ("last_accessed", "expires_at", "status", "access_count")
_OWN_TABLES = {"contexts", "tags", "context_tags", "projects", "sqlite_sequence"}

_TAGS_OF = """
    SELECT l.context_id, typeof(t.name), CASE typeof(t.name) WHEN 'text' THEN CAST(t.name AS BLOB) ELSE t.name END
    FROM context_tags l JOIN tags t ON t.id = l.tag_id
    WHERE l.context_id BETWEEN :first AND :last ORDER BY l.context_id, l.tag_id"""
_ORPHANS = "SELECT CAST(name AS BLOB) FROM tags WHERE id NOT IN (SELECT tag_id FROM context_tags) ORDER BY id"


def clamp(importance: Any) -> int:
    """1 to 10 of what an older service took for an importance: numbers are cut off, text of digits counts by its value."""
    if isinstance(importance, str) and _DIGITS.fullmatch(importance) and importance.isascii():
        digits = importance.lstrip("0")
        importance = int(digits[:3] or "0")
    if not isinstance(importance, int | float) or math.isnan(importance):
        return DEFAULT_IMPORTANCE
    return int(max(_LEAST, min(_MOST, importance)))


def importance_facts(raw: Any) -> dict[str, Any]:
    """The fact that tells an importance which is no integer of 1 to 10; what no JSON can hold is told as Python spells it."""
    if isinstance(raw, int) and not isinstance(raw, bool) and _LEAST <= raw <= _MOST:
        return {}
    if (isinstance(raw, float) and not math.isfinite(raw)) or isinstance(raw, bytes):
        return {LEGACY_IMPORTANCE: str(raw)}
    if isinstance(raw, int) and not -_INT64 <= raw < 2 * _INT64:
        return {LEGACY_IMPORTANCE: str(raw)}
    return {LEGACY_IMPORTANCE: raw}


def importance_back(back: Back, there: Sequence[Any]) -> Any:
    """What stands there or stood there once, where it means the importance that it has here; else that."""
    told = [*there, *([back.facts[LEGACY_IMPORTANCE]] if LEGACY_IMPORTANCE in back.facts else [])]
    raws = [_NUMBERS.get(raw, raw) if isinstance(raw, str) else raw for raw in told]
    return next((raw for raw in raws if clamp(raw) == back.importance), back.importance)


def normalised(tags: Any) -> tuple[str, ...]:
    """Tags as extended-memory spells them in SQLite: without blanks around, in lower case, each once.

    What is no text is none, nor is what no tag here can hold, a NUL.
    """
    if not isinstance(tags, list | tuple | dict | str):
        return ()
    return tuple(
        dict.fromkeys(tag.strip().lower() for tag in tags if isinstance(tag, str) and tag.strip() and "\0" not in tag)
    )


def normalised_project(project: str | None) -> str:
    """The name under which extended-memory keeps a project; its empty name is kept, too."""
    if project is None:
        return GENERAL
    return " ".join(project.lower().replace("_", " ").replace("-", " ").split())


def lost_in_contexts(back: Back) -> tuple[str, ...]:
    """What no context of extended-memory can hold of a memory, in sentences."""
    lost: list[str] = []
    if not back.value.startswith(b'"'):
        lost.append("Its value is no text; there it stands as JSON text")
    if back.origin is None and back.project is not None and normalised_project(back.project) != back.project:
        lost.append(f"Its project is {normalised_project(back.project)!r} there")
    if list(normalised(back.tags)) != list(dict.fromkeys(back.tags)):
        lost.append("Tags are in lower case there, without blanks around them")
    own = sorted(name for name in back.facts if name not in _KNOWN_FACTS and not name.startswith("legacy_"))
    if own:
        lost.append("Metadata of its own: " + ", ".join(own))
    return tuple(lost)


def instants(created_at: Any, last_accessed: Any) -> tuple[int | None, timedelta | None, str | None]:
    """When a context was created, the UTC offset of the clock that wrote it, and what is odd about that.

    `created_at` is local time without an offset, `last_accessed` the same moment in UTC: their difference, to a quarter of an
    hour, is the offset, also in the hour that a change of clocks repeats.
    """
    created, accessed = _moment(created_at), _moment(last_accessed)
    if created is None:
        note = f"created_at is no time: {created_at!r}"
        return (None if accessed is None else _instant(accessed)), None, note
    if created.tzinfo is not None:
        return _instant(created), created.utcoffset(), None
    if accessed is None or accessed.tzinfo is not None:
        return _instant(created), None, "last_accessed does not tell the zone of created_at, which is taken for UTC"
    apart = created - accessed
    offset = round(apart / _QUARTER) * _QUARTER
    if abs(offset) > _FURTHEST_ZONE or abs(apart - offset) > _CLOCKS_APART:
        return _instant(created), None, "last_accessed is not of the same moment; created_at is taken for UTC"
    return _instant(created, offset), offset, None


def _moment(text: Any) -> datetime | None:
    if not isinstance(text, str):
        return None
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        return None


def _instant(moment: datetime, offset: timedelta = timedelta(0)) -> int | None:
    try:
        return from_rfc3339((moment - offset).isoformat())
    except (ValueError, OverflowError):
        return None


def _local(instant: int, offset: timedelta) -> str:
    """As Python's isoformat of a naive time: the fraction is left out where it is 0."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant) + offset
    return moment.replace(tzinfo=None).isoformat()


class _Broken(Struct):
    """What cannot be carried: a code of Quarantined, and why."""

    code: str
    reason: str


class _Spelled(Struct):
    """A text that stands in no text: its bytes."""

    raw: bytes
    type: str


class ExtendedMemorySQLite(OlderSource):
    """A memory.db of extended-memory-mcp."""

    kind: ClassVar[str] = "extended-memory-sqlite"
    takes: ClassVar[str] = "a file (memory.db), or its connection string sqlite:///…"
    service: ClassVar[str] = EXTENDED_MEMORY

    def __init__(self, path: Path, options: Options) -> None:
        self._path = path
        self._options = options
        self._kept: apsw.Connection | None = None
        self._kept_token: object = None

    @classmethod
    def open(cls, location: str, options: Options) -> Self:
        """The file at that path. Raises SourceError, InvalidInputError naming `source`."""
        if not location.strip() or "\0" in location:
            raise InvalidInputError("source", "A source of this kind is a file")
        path = location
        if location.startswith("sqlite:"):
            path = "/" + location.removeprefix("sqlite:").lstrip("/")
            path = path.removeprefix("/") if path.startswith("/~") else path
        found = cls(sqlite_file.place(path), options)
        with found._reading() as connection:
            found._check(connection)
        return found

    def survey(self) -> Survey:
        """Counts by project, and what is odd about the file; see Source."""
        with self._reading() as connection:
            self._check(connection)
            projects, remarks = self._projects(connection)
            present = sqlite_file.tables(connection)
            if {"tags", "context_tags"} <= present:
                remarks += _orphan_remarks(connection)
            else:
                remarks.append("It has no tables of tags")
            remarks += _sequence_remarks(connection, present)
            strange = connection.execute(
                "SELECT count(*) FROM contexts WHERE typeof(importance_level) <> 'integer'"
                " OR importance_level NOT BETWEEN 1 AND 10"
            ).fetchall()[0][0]
            if strange:
                remarks.append(
                    f"{strange} contexts have an importance that is no integer from 1 to 10; it is kept as a fact"
                )
            extra = self._extra(connection)
            if extra:
                remarks.append(f"Further columns are kept in {LEGACY_COLUMNS}: " + ", ".join(sorted(extra)))
            remarks += _other_tables(connection, present)
            records = connection.execute("SELECT count(*) FROM contexts").fetchall()[0][0]
            return Survey(
                kind=self.kind,
                location=str(self._path),
                records=int(str(records)),
                projects=projects,
                remarks=remarks,
                bytes=self._path.stat().st_size,
            )

    def read(self) -> Iterator[Found]:
        """Every context, in the order of ids, page by page; see Source."""
        after = -_INT64
        while found := self._page(after):
            for number, one in found:
                yield one
                after = number

    def token(self) -> object:
        """Size, times and the change counter of the file; see Source."""
        return sqlite_file.token(self._path, self.kind)

    def close(self) -> None:
        """Closes the file; see Source."""
        if self._kept is not None:
            self._kept.close()
            self._kept = None

    def lookup(self, origin: str) -> Item | Quarantined | None:
        """The context of `context/<id>`; see OlderSource."""
        number = _number(origin.removeprefix(ORIGIN)) if origin.startswith(ORIGIN) else None
        if number is None:
            return None
        with self._reading() as connection:
            found = self._rows(connection, "c.id = :id", {"id": number}, 1)
        return found[0][1] if found else None

    def find(self, shape: Shape, project: str | None, key: str) -> str | None:  # noqa: ARG002 - an id says it alone
        """The context of that id; see OlderSource."""
        number = _number(key)
        if shape != "context" or number is None:
            return None
        with self._reading() as connection:
            there = connection.execute("SELECT 1 FROM contexts WHERE id = ?", (number,)).fetchall()
        return f"{ORIGIN}{number}" if there else None

    def writable(self) -> str | None:
        """Whether the file and a journal beside it may be written; see OlderSource."""
        return sqlite_file.unwritable(self._path)

    def put_back(self, backs: Sequence[Back]) -> list[Returned]:
        """All of them in one transaction; see OlderSource. Waits 15 s for the lock."""
        with sqlite_file.source_errors(self.kind, self._path):
            connection = sqlite_file.open_writable(self._path, self.kind)
            try:
                self._check(connection)
                connection.execute("PRAGMA foreign_keys = ON")
                connection.execute("BEGIN IMMEDIATE")
                try:
                    returned = _Writer(connection, self._columns(connection)).write(backs)
                    connection.execute("COMMIT")
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                return returned
            finally:
                connection.close()

    @contextlib.contextmanager
    def _reading(self) -> Iterator[apsw.Connection]:
        """One connection for as long as nothing is written; a copy does not see what is."""
        token = self.token()
        if self._kept is not None and token != self._kept_token:
            self.close()
        if self._kept is None:
            self._kept = sqlite_file.open_readonly(self._path, self.kind)
            self._kept_token = token
        with sqlite_file.source_errors(self.kind, self._path):
            yield self._kept

    def _check(self, connection: apsw.Connection) -> None:
        missing = [name for name in _NEEDED if name not in sqlite_file.columns(connection, "contexts")]
        if missing:
            raise SourceError(
                self.kind,
                str(self._path),
                "It has no table contexts with the columns " + ", ".join(missing),
                hint="A database of the HTTP service on port 3009 is of the kind extended-memory-http-db",
            )

    def _columns(self, connection: apsw.Connection) -> set[str]:
        return sqlite_file.columns(connection, "contexts")

    def _extra(self, connection: apsw.Connection) -> list[str]:
        return sorted(self._columns(connection) - {*_NEEDED, *_OPTIONAL})

    def _projects(self, connection: apsw.Connection) -> tuple[dict[str, int], list[str]]:
        projects: dict[str, int] = {}
        remarks: list[str] = []
        rows: list[tuple[Any, ...]] = connection.execute(
            "SELECT typeof(project_id), CAST(project_id AS BLOB), count(*) FROM contexts GROUP BY project_id"
        ).fetchall()
        coding = sqlite_file.encoding(connection)
        for type_, raw, count in rows:
            if type_ == "null":
                remarks.append(f"{count} contexts have no project; no tool of extended-memory shows them")
                continue
            name = raw.decode(coding, errors="replace")
            projects[name] = projects.get(name, 0) + count
        return projects, remarks

    def _page(self, after: int) -> list[tuple[int, Found]]:
        with self._reading() as connection:
            return [*self._rows(connection, "c.id > :after", {"after": after}, sqlite_file.PAGE_ROWS)]

    def _rows(
        self, connection: apsw.Connection, condition: str, bindings: Mapping[str, Any], most: int
    ) -> list[tuple[int, Item | Quarantined]]:
        """The contexts that meet the condition, each with its id, and all as of one instant."""
        present = self._columns(connection)
        names = [*_NEEDED[1:], *(name for name in _OPTIONAL if name in present), *self._extra(connection)]
        quoted = ['c."' + name.replace('"', '""') + '"' for name in names]
        parts = ", ".join(
            f"typeof({name}), CASE typeof({name}) WHEN 'text' THEN CAST({name} AS BLOB) ELSE {name} END"
            for name in quoted
        )
        coding = sqlite_file.encoding(connection)
        connection.execute("BEGIN")
        try:
            rows = sqlite_file.page(
                connection,
                f"SELECT c.id, {parts} FROM contexts c WHERE {condition} ORDER BY c.id",  # noqa: S608 - names are quoted
                bindings,
                most,
            )
            tags: dict[int, list[str | _Spelled]] = {}
            if rows and {"tags", "context_tags"} <= sqlite_file.tables(connection):
                found: list[tuple[Any, ...]] = connection.execute(
                    _TAGS_OF, {"first": rows[0][0], "last": rows[-1][0]}
                ).fetchall()
                for number, type_, raw in found:
                    tags.setdefault(number, []).append(_told(type_, raw, coding))
        finally:
            # An error may have ended it already.
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        return [
            (
                row[0],
                self._found(
                    row[0],
                    {
                        name: _told(type_, raw, coding)
                        for name, type_, raw in zip(names, row[1::2], row[2::2], strict=True)
                    },
                    tags.get(row[0], []),
                ),
            )
            for row in rows
        ]

    def _found(self, number: int, row: dict[str, Any], tags: list[str | _Spelled]) -> Item | Quarantined:
        origin = f"{ORIGIN}{number}"
        broken = _broken(row)
        if broken is not None:
            raw = {"id": number, **row, "tags": tags}
            return Quarantined(origin=origin, code=broken.code, reason=broken.reason, raw=encode(_as_json(raw)))
        notes: list[str] = []
        facts: dict[str, Any] = {LEGACY_ID: number}
        created_at, _, odd = instants(row["created_at"], row.get("last_accessed"))
        if odd is not None:
            notes.append(odd)
        if row["created_at"] is not None:
            told = row["created_at"]
            facts[LEGACY_CREATED_AT] = told if isinstance(told, str) else json.dumps(_as_json(told))
        importance = row["importance_level"]
        importance = importance.raw if isinstance(importance, _Spelled) else importance
        facts |= importance_facts(importance)
        if isinstance(importance, bytes) or (isinstance(importance, float) and not math.isfinite(importance)):
            notes.append(f"importance_level is {importance!r}")
        own = normalised(tags)
        if list(own) != tags:
            facts[LEGACY_TAGS] = _as_json(tags)
            if any(isinstance(tag, _Spelled) for tag in tags):
                notes.append("A tag is no text")
        expires_at = self._expiry(row.get("expires_at"), facts)
        if row.get("status", "active") != "active":
            facts[LEGACY_STATUS] = _as_json(row["status"])
        extra = {name: part for name, part in row.items() if name not in {*_NEEDED, *_OPTIONAL} and part is not None}
        if extra:
            facts[LEGACY_COLUMNS] = _as_json(extra)
        accessed = _moment(row.get("last_accessed"))
        count = row.get("access_count")
        return Item(
            origin=origin,
            service=EXTENDED_MEMORY,
            shape="context",
            project=row["project_id"],
            key=str(number),
            value=encode(row["content"]),
            tags=own,
            importance=clamp(importance),
            created_at=created_at,
            last_accessed=None if accessed is None else _instant(accessed),
            access_count=count if isinstance(count, int) and count >= 0 else 0,
            expires_at=expires_at,
            facts=facts,
            notes=tuple(notes),
        )

    def _expiry(self, told: Any, facts: dict[str, Any]) -> int | None:
        if told is None:
            return None
        moment = _moment(told)
        instant = None if moment is None else _instant(moment)
        if instant is not None and self._options.keep_ttl:
            return instant
        facts[LEGACY_EXPIRES_AT] = _as_json(told) if instant is None else to_rfc3339(instant)
        return None


def _number(text: str) -> int | None:
    """The id that a text says; ids beyond 64 bits are none."""
    if not _DIGITS.fullmatch(text.removeprefix("-")) or not text.isascii() or len(text) > len(str(-_INT64)):
        return None
    number = int(text)
    return number if -_INT64 <= number < _INT64 else None


def _told(type_: str, raw: Any, coding: str) -> Any:
    """A value of SQLite; what is no text of its encoding, or a blob, as its bytes."""
    if type_ == "blob":
        return _Spelled(raw, "blob")
    if type_ != "text":
        return raw
    try:
        return raw.decode(coding)
    except UnicodeDecodeError:
        return _Spelled(raw, "text")


def _broken(row: Mapping[str, Any]) -> _Broken | None:
    for name in ("content", "project_id"):
        part = row[name]
        if isinstance(part, _Spelled) and part.type == "blob":
            return _Broken("binary", f"{name} is a blob, not a text")
        if isinstance(part, _Spelled):
            return _not_unicode(name, part.raw)
        if part is None and name == "project_id":
            continue
        if not isinstance(part, str):
            return _Broken("malformed", f"{name} is {'empty' if part is None else 'a number'}, not a text")
    return None


def _not_unicode(name: str, raw: bytes) -> _Broken:
    try:
        raw.decode("utf-8", errors="surrogatepass")
    except UnicodeDecodeError:
        return _Broken("binary", f"{name} is no UTF-8 text")
    return _Broken("surrogate", f"{name} holds lone surrogates, which no UTF-8 text can")


def _as_json(value: Any) -> Any:
    """What SQLite holds as JSON: bytes in hexadecimal digits, numbers that are none as text."""
    if isinstance(value, _Spelled):
        return {"hex": value.raw.hex(), "type": value.type}
    if isinstance(value, bytes):
        return {"hex": value.hex(), "type": "blob"}
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {name: _as_json(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_as_json(part) for part in value]
    return value


def _orphan_remarks(connection: apsw.Connection) -> list[str]:
    names: list[Any] = [raw for (raw,) in connection.execute(_ORPHANS)]
    if not names:
        return []
    shown = ", ".join(repr(raw.decode(errors="replace")) for raw in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return [f"{len(names)} tags are of no context and are not carried: {shown}{more}"]


def _sequence_remarks(connection: apsw.Connection, present: set[str]) -> list[str]:
    if "sqlite_sequence" not in present:
        return []
    rows: list[tuple[Any, ...]] = connection.execute(
        "SELECT seq FROM sqlite_sequence WHERE name = 'contexts'"
    ).fetchall()
    return [f"The highest id that it ever gave to a context is {seq}" for (seq,) in rows]


def _other_tables(connection: apsw.Connection, present: set[str]) -> list[str]:
    remarks: list[str] = []
    for table in sorted(present - _OWN_TABLES | ({"projects"} & present)):
        quoted = table.replace('"', '""')
        try:
            (count,) = connection.execute(f'SELECT count(*) FROM "{quoted}"').fetchall()[0]  # noqa: S608 - a quoted name
        except apsw.SQLError as error:
            remarks.append(f"The table {table} cannot be read and is not carried: {error}")
            continue
        if count:
            remarks.append(f"The table {table} has {count} rows, which are not carried")
    return remarks


class _Writer:
    """Writes what goes back, within one transaction."""

    def __init__(self, connection: apsw.Connection, columns: set[str]) -> None:
        self._connection = connection
        self._columns = columns
        self._coding = sqlite_file.encoding(connection)
        self._offset = self._newest_offset()
        self._taken: set[int] = set()

    def write(self, backs: Sequence[Back]) -> list[Returned]:
        return [self._one(back) for back in backs]

    def _one(self, back: Back) -> Returned:
        number = None if back.origin is None else _number(back.origin.removeprefix(ORIGIN))
        if back.content is None:
            if number is not None:
                self._delete(number)
            return Returned(origin=None)
        lost = list(lost_in_contexts(back))
        if back.expires_at is not None:
            lost.append(f"It expires at {to_rfc3339(back.expires_at)}; there it stays")
        if number is None:
            number = self._place(back)
        elif not self._exists(number):
            self._insert(back, number, again=True)
        else:
            self._update(back, number)
        self._taken.add(number)
        self._tag(number, normalised(back.tags))
        return Returned(origin=f"{ORIGIN}{number}", lost=tuple(lost))

    def _rows(self, sql: str, *bindings: Any) -> list[tuple[Any, ...]]:
        return self._connection.execute(sql, bindings).fetchall()

    def _exists(self, number: int) -> bool:
        return bool(self._rows("SELECT 1 FROM contexts WHERE id = ?", number))

    def _delete(self, number: int) -> None:
        # Not every schema of theirs lets links go by themselves.
        self._rows("DELETE FROM context_tags WHERE context_id = ?", number)
        self._rows("DELETE FROM contexts WHERE id = ?", number)

    def _place(self, back: Back) -> int:
        """Where a new one stands: where it was written before, at its own number where that is free, else at another."""
        created_at = _local(back.created_at, self._offset)
        project = normalised_project(back.project)
        same = [
            number
            for (number,) in self._rows(
                "SELECT id FROM contexts WHERE created_at = ? AND project_id = ? AND (id = ? OR content = ?) ORDER BY id <> ?",
                created_at,
                project,
                back.number,
                back.content,
                back.number,
            )
            if number not in self._taken
        ]
        free = back.number > 0 and not self._exists(back.number)
        if same and not free:
            self._update(back, same[0])
            return int(same[0])
        return self._insert(back, back.number if free else None, again=False)

    def _insert(self, back: Back, number: int | None, *, again: bool) -> int:
        """`again`: it was there before, as its facts tell."""
        created_at = back.facts.get(LEGACY_CREATED_AT) if again else None
        if not isinstance(created_at, str):
            created_at = _local(back.created_at, self._offset)
        # The column takes no null.
        importance = importance_back(back, ())
        importance = back.importance if importance is None else importance
        self._rows(
            "INSERT INTO contexts (id, project_id, content, importance_level, created_at) VALUES (?, ?, ?, ?, ?)",
            number,
            back.project if again else normalised_project(back.project),
            back.content,
            importance,
            created_at,
        )
        written = self._connection.last_insert_rowid()
        if "last_accessed" in self._columns:
            self._rows(
                "UPDATE contexts SET last_accessed = ? WHERE id = ?",
                _local(back.created_at // SECOND * SECOND, timedelta(0)).replace("T", " "),
                written,
            )
        return written

    def _update(self, back: Back, number: int) -> None:
        ((project, type_, raw),) = self._rows(
            "SELECT project_id, typeof(importance_level), CASE typeof(importance_level) WHEN 'text'"
            " THEN CAST(importance_level AS BLOB) ELSE importance_level END FROM contexts WHERE id = ?",
            number,
        )
        importance = _told(type_, raw, self._coding)
        if project != back.project:
            wanted = normalised_project(back.project)
            if wanted != project:
                self._rows("UPDATE contexts SET project_id = ? WHERE id = ?", wanted, number)
        wanted_importance = importance_back(back, (importance,))
        if wanted_importance != importance:
            self._rows("UPDATE contexts SET importance_level = ? WHERE id = ?", wanted_importance, number)
        self._rows("UPDATE contexts SET content = ? WHERE id = ? AND content <> ?", back.content, number, back.content)

    def _tag(self, number: int, tags: Sequence[str]) -> None:
        there: dict[str, int] = {}
        for tag_id, type_, raw in self._rows(
            "SELECT t.id, typeof(t.name), CASE typeof(t.name) WHEN 'text' THEN CAST(t.name AS BLOB) ELSE t.name END"
            " FROM context_tags l JOIN tags t ON t.id = l.tag_id WHERE l.context_id = ?",
            number,
        ):
            # One that could not be carried stays.
            there |= dict.fromkeys(normalised([_told(type_, raw, self._coding)]), tag_id)
        for name in set(there) - set(tags):
            self._rows("DELETE FROM context_tags WHERE context_id = ? AND tag_id = ?", number, there[name])
        for name in tags:
            if name not in there:
                # OR IGNORE would use up an id of theirs for each tag that is there already.
                self._rows(
                    "INSERT INTO tags (name) SELECT ? WHERE NOT EXISTS (SELECT 1 FROM tags WHERE name = ?)", name, name
                )
                self._rows(
                    "INSERT OR IGNORE INTO context_tags (context_id, tag_id) SELECT ?, id FROM tags WHERE name = ?",
                    number,
                    name,
                )

    def _newest_offset(self) -> timedelta:
        """Of the newest context whose zone can be told; UTC where there is none."""
        if "last_accessed" not in self._columns:
            return timedelta(0)
        rows = self._rows(
            "SELECT CAST(created_at AS BLOB), CAST(last_accessed AS BLOB) FROM contexts"
            " WHERE typeof(created_at) = 'text' AND typeof(last_accessed) = 'text' ORDER BY id DESC LIMIT 100"
        )
        told = ([raw.decode(self._coding, errors="replace") for raw in row] for row in rows)
        offsets = (instants(created_at, last_accessed)[1] for created_at, last_accessed in told)
        return next((offset for offset in offsets if offset is not None), timedelta(0))
