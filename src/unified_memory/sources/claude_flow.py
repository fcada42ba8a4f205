"""claude-flow (npm, later ruflo): memories under keys in namespaces.

A project's folder holds them in `memory/memory-store.json` (the CLI of 2), in `.swarm/memory.db` (its MCP server, and all of 3),
and in `.hive-mind/memory.db`. Read as 2.7.47 and 3.43.0 write them. Times are UTC.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import quote

import apsw
import msgspec

from unified_memory.model.errors import InvalidInputError, MalformedInputError, SourceError
from unified_memory.model.value import encode, parse
from unified_memory.sources.base import Found, Item, Options, Quarantined, Skipped, Source, Survey
from unified_memory.sources.rows import MILLISECONDS, SECONDS, Row, Table, counted, instant, parsed, rows
from unified_memory.sources.sqlite_file import columns, open_readonly, source_errors, tables, token

_PLACES = ("memory/memory-store.json", ".swarm/memory.db", ".hive-mind/memory.db")
_SERVICE = "claude-flow"
_DEFAULT = "default"
_ENTRIES = Table(
    "memory_entries",
    "SELECT rowid, * FROM memory_entries WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM memory_entries WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM memory_entries",
)
_SHARED = Table(
    "memory_store",
    "SELECT rowid, * FROM memory_store WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM memory_store WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM memory_store",
)
_PATTERNS = Table(
    "patterns",
    "SELECT rowid, * FROM patterns WHERE rowid > :after ORDER BY rowid",
    "SELECT rowid FROM patterns WHERE rowid > :after ORDER BY rowid",
    "SELECT count(*) FROM patterns",
)
_CARRIED = (_ENTRIES, _SHARED, _PATTERNS)
_NAMESPACES = {
    "memory_entries": "SELECT coalesce(namespace, 'default'), count(*) FROM memory_entries GROUP BY 1",
    "memory_store": "SELECT coalesce(namespace, 'default'), count(*) FROM memory_store GROUP BY 1",
}
_EMBEDDINGS = ("embedding", "embedding_model", "embedding_dimensions")
_DELETED = "deleted"


class ClaudeFlow(Source):
    """The folder of a project that uses it, or one of its files."""

    kind: ClassVar[str] = "claude-flow"
    takes: ClassVar[str] = "a folder or a file"

    def __init__(self, root: Path, stores: list[Path], databases: dict[Path, apsw.Connection], *, ttl: bool) -> None:
        self._root = root
        self._stores = stores
        self._databases = databases
        self._ttl = ttl

    @classmethod
    def open(cls, location: str, options: Options) -> Self:
        """The files that are there; see Source."""
        if not location or "\0" in location:
            raise InvalidInputError("source", f"{location!r} names no folder and no file")
        path = Path(location).expanduser()
        found = [path / place for place in _PLACES if (path / place).is_file()] if path.is_dir() else [path]
        if not found:
            raise SourceError(
                cls.kind, location, "The folder has no memories of it", hint="One of " + ", ".join(_PLACES)
            )
        stores = [one for one in found if one.suffix == ".json"]
        databases: dict[Path, apsw.Connection] = {}
        try:
            for one in found:
                if one in stores:
                    continue
                databases[one] = open_readonly(one, cls.kind)
                _check(one, databases[one])
        except BaseException:
            for connection in databases.values():
                connection.close()
            raise
        return cls(path, stores, databases, ttl=options.keep_ttl)

    def survey(self) -> Survey:
        """Counts it; see Source."""
        records = size = 0
        projects: dict[str, int] = {}
        remarks: list[str] = []
        for store in self._stores:
            for namespace, entries in self._load(store).items():
                records += len(entries)
                projects[namespace] = projects.get(namespace, 0) + len(entries)
            size += store.stat().st_size
        for path, connection in self._databases.items():
            with source_errors(self.kind, path):
                for table in _CARRIED:
                    records += counted(connection, table)
                known = tables(connection)
                for name, query in _NAMESPACES.items():
                    if name in known and "namespace" in columns(connection, name):
                        for namespace, count in connection.execute(query):
                            projects[str(namespace)] = projects.get(str(namespace), 0) + int(count or 0)
            left = sorted(known - {table.name for table in _CARRIED} - {"sqlite_sequence"})
            if left:
                remarks.append(f"Of {path.name} the tables {', '.join(left)} stay there")
            size += path.stat().st_size
        if len(self._stores) + len(self._databases) > 1:
            remarks.append("It has more than one store; a key that is in two of them is told as a conflict")
        remarks.append("Its namespaces become projects. Embeddings stay there; meaning is indexed anew here")
        return Survey(
            kind=self.kind, location=str(self._root), records=records, projects=projects, remarks=remarks, bytes=size
        )

    def read(self) -> Iterator[Found]:
        """The stores in JSON, then the databases; see Source."""
        for store in self._stores:
            for namespace, entries in self._load(store).items():
                for number, entry in enumerate(entries):
                    yield _stored(store.name, namespace, number, entry)
        for path, connection in self._databases.items():
            # As a folder was named, or the file itself, so that it is the same wherever it lies.
            place = path.name if path == self._root else path.relative_to(self._root).as_posix()
            with source_errors(self.kind, path):
                for table in _CARRIED:
                    for row in rows(connection, table):
                        yield self._found(place, table, row.without(*_EMBEDDINGS))

    def token(self) -> object:
        """See Source."""
        states = [one.stat() for one in self._stores]
        return (
            *((state.st_mtime_ns, state.st_size, state.st_ino) for state in states),
            *(token(path, self.kind) for path in self._databases),
        )

    def close(self) -> None:
        """See Source."""
        for connection in self._databases.values():
            connection.close()

    def _load(self, store: Path) -> dict[str, list[Any]]:
        try:
            # Unlike ours, this parser lets lone surrogates through, which its program can write.
            return msgspec.convert(json.loads(store.read_bytes()), dict[str, list[Any]])
        except OSError as error:
            raise SourceError(self.kind, str(store), f"The file cannot be read: {error.strerror}") from error
        except (ValueError, RecursionError) as error:
            raise SourceError(self.kind, str(store), f"It is no memory store of claude-flow: {error}") from error

    def _found(self, place: str, table: Table, row: Row) -> Found:
        origin = f"{place}/{table.name}/{row.number}"
        if odd := row.binary():
            return Quarantined(origin=origin, code="binary", reason=f"{', '.join(odd)} is no text", raw=row.raw())
        if row["compressed"]:
            reason = "Its value is compressed as its program alone reads it"
            return Quarantined(origin=origin, code="unsupported", reason=reason, raw=row.raw())
        if row["status"] == _DELETED:
            return Skipped(origin=origin, reason="It was deleted there, and lies in its table as such")
        if table is _PATTERNS:
            return _pattern(origin, row)
        return self._entry(place, table, row)

    def _entry(self, place: str, table: Table, row: Row) -> Item:
        # 3 writes milliseconds and `content`, 2 seconds and `value`.
        content = row["content"]
        unit = SECONDS if content is None else MILLISECONDS
        namespace = str(row["namespace"] or _DEFAULT)
        expires = instant(row["expires_at"], unit)
        facts = row.facts("type", "provenance_type", "owner_id", "source")
        if expires is not None and not self._ttl:
            facts["legacy_expires_at"] = row["expires_at"]
        if row["status"] not in {None, "active"}:
            facts["status"] = row["status"]
        about = row.json("metadata")
        if about not in (None, "", {}):
            facts["entry_metadata"] = about
        session = about.get("sessionId") if isinstance(about, dict) else None
        created = instant(row["created_at"], unit) or instant(row["timestamp"], MILLISECONDS)
        return Item(
            origin=f"{place}/{table.name}/{namespace}/{row['key']}",
            service=_SERVICE,
            shape="record",
            project=namespace,
            key=str(row["key"]),
            value=_value(row["value"] if content is None else content),
            tags=row.tags("tags"),
            created_at=created,
            updated_at=instant(row["updated_at"], unit) or created,
            last_accessed=instant(row["accessed_at"] or row["last_accessed_at"], unit),
            access_count=row["access_count"] or 0,
            expires_at=expires if self._ttl else None,
            session_id=session if isinstance(session, str) and session else None,
            facts=facts,
        )


def _check(path: Path, connection: apsw.Connection) -> None:
    with source_errors(ClaudeFlow.kind, path):
        known = tables(connection)
    if not {table.name for table in _CARRIED} & known:
        raise SourceError(ClaudeFlow.kind, str(path), "It is a database, but not one of claude-flow")


def _stored(store: str, namespace: str, number: int, entry: Any) -> Found:
    try:
        raw = encode([namespace, entry])
    except UnicodeEncodeError:
        return Quarantined(
            origin=f"{store}/{number}/{quote(namespace, errors='surrogatepass')}",
            code="surrogate",
            reason="It has a lone surrogate, which no UTF-8 can hold",
            raw=json.dumps([namespace, entry]).encode(),
        )
    match entry:
        case {"key": str(key), "value": value, **rest}:
            facts = {str(name): one for name, one in rest.items() if name not in {"namespace", "timestamp"}}
            created = instant(rest.get("timestamp"), MILLISECONDS)
            return Item(
                origin=f"{store}/{namespace}/{key}",
                service=_SERVICE,
                shape="record",
                project=namespace,
                key=key,
                value=_value(value),
                created_at=created,
                updated_at=created,
                facts=facts,
            )
        case _:
            return Quarantined(
                origin=f"{store}/{number}/{namespace}",
                code="malformed",
                reason="It has no key with a value",
                raw=raw,
            )


def _pattern(origin: str, row: Row) -> Item:
    """What it has learned: an object of all columns. The ReasoningBank of 2 keeps memories so, as `pattern_data`."""
    about = {name: parsed(cell) for name, cell in row.cells().items() if cell not in {None, ""}}
    data = about.get("pattern_data")
    domain = data.get("domain") if isinstance(data, dict) else about.get("domain")
    created = instant(row["created_at"], MILLISECONDS)
    return Item(
        origin=origin,
        service=_SERVICE,
        shape="record",
        project=domain if isinstance(domain, str) and domain else None,
        key=f"pattern/{row['id']}",
        value=encode(about),
        tags=tuple(dict.fromkeys((*row.tags("tags"), "pattern"))),
        created_at=created,
        updated_at=instant(row["updated_at"], MILLISECONDS) or created,
        access_count=row["usage_count"] or 0,
    )


def _value(stored: Any) -> bytes:
    """An object or an array where a text is the JSON of one, as its own tools show it; else what was stored."""
    if isinstance(stored, str) and stored.lstrip()[:1] in {"{", "["}:
        text = stored.encode()
        try:
            parse(text)
        except (MalformedInputError, InvalidInputError):
            return encode(stored)
        return text
    return encode(stored)
