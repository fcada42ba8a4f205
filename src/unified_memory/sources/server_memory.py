"""@modelcontextprotocol/server-memory (npm): a knowledge graph, an entity or a relation a line of JSON (MEMORY_FILE_PATH).

Its records become what the tools of the profile `knowledge-graph` show: service/graph.py says under which keys.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

import msgspec
from msgspec import Struct

from unified_memory.model.errors import InvalidInputError, SourceError
from unified_memory.model.value import encode
from unified_memory.sources.base import Found, Item, Options, Quarantined, Skipped, Source, Survey
from unified_memory.sources.rows import parsed

_FILE = "memory.jsonl"
# As in service/graph.py, which stands above this layer.
_NAMESPACE = "graph"
_ENTITIES = "entity/"
_RELATIONS = "relation/"
_ESCAPES = str.maketrans({"%": "%25", "|": "%7C", "\0": "%00"})


class _Entity(Struct, rename="camel"):
    name: str
    entity_type: str
    observations: list[str]


class _Relation(Struct, rename={"source": "from", "target": "to", "relation_type": "relationType"}):
    source: str
    target: str
    relation_type: str


class ServerMemory(Source):
    """The file of lines, or the folder that holds it as `memory.jsonl`."""

    kind: ClassVar[str] = "server-memory"
    takes: ClassVar[str] = "a file"

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def open(cls, location: str, options: Options) -> Self:  # noqa: ARG003 - nothing more may be said of it
        """The file; see Source."""
        if not location or "\0" in location:
            raise InvalidInputError("source", f"{location!r} names no file")
        path = Path(location).expanduser()
        if path.is_dir():
            path /= _FILE
        if not path.is_file():
            raise SourceError(cls.kind, str(path), "There is no such file", hint="MEMORY_FILE_PATH names it")
        return cls(path)

    def survey(self) -> Survey:
        """Reads it once; see Source."""
        entities = relations = odd = missing = 0
        names: set[str] = set()
        ends: list[tuple[str, str]] = []
        for found in self.read():
            match found:
                case Item(key=key) if key.startswith(_ENTITIES):
                    entities += 1
                    names.add(key)
                case Item(value=value):
                    relations += 1
                    relation = msgspec.json.decode(value, type=_Relation)
                    ends.append((_entity_key(relation.source), _entity_key(relation.target)))
                case _:
                    odd += 1
        missing = sum(not {source, target} <= names for source, target in ends)
        if odd and not entities + relations:
            raise SourceError(self.kind, str(self._path), "No line of it is an entity or a relation")
        remarks = [
            f"{entities} entities and {relations} relations become the knowledge graph of the profile knowledge-graph",
            "It knows no times: its records get that of the migration",
        ]
        if odd:
            remarks.append(f"{odd} lines are no part of the graph, or say again what another line says")
        if missing:
            remarks.append(f"{missing} relations name an entity that does not exist; they are carried all the same")
        return Survey(
            kind=self.kind,
            location=str(self._path),
            records=entities + relations,
            remarks=remarks,
            bytes=self._path.stat().st_size,
        )

    def read(self) -> Iterator[Found]:
        """Line by line; see Source. Its own program replaces the file whole, so that one opening sees one state."""
        seen: dict[bytes, bytes] = {}
        try:
            with self._path.open("rb") as file:
                for number, line in enumerate(file, 1):
                    if not line.strip():
                        continue
                    found = _read(number, line)
                    yield _first(number, line, found, seen) if isinstance(found, Item) else found
        except OSError as error:
            raise SourceError(self.kind, str(self._path), f"The file cannot be read: {error.strerror}") from error

    def token(self) -> object:
        """See Source."""
        try:
            state = self._path.stat()
        except OSError as error:
            raise SourceError(self.kind, str(self._path), f"The file cannot be read: {error.strerror}") from error
        return (state.st_mtime_ns, state.st_size, state.st_ino)

    def close(self) -> None:
        """Nothing is held open; see Source."""


def _first(number: int, line: bytes, item: Item, seen: dict[bytes, bytes]) -> Found:
    """The item where no earlier line has its key: two of one name are shown by its tools, and cannot be kept here."""
    mark, content = _digest(item.key.encode()), _digest(item.value)
    earlier = seen.setdefault(mark, content)
    if earlier is content:
        return item
    if earlier == content:
        return Skipped(origin=f"line/{number}", reason="An earlier line says the same")
    reason = "An earlier line has this name already, and says something else of it"
    return Quarantined(origin=f"line/{number}", code="unsupported", reason=reason, raw=line)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()


def _read(number: int, line: bytes) -> Found:
    origin = f"line/{number}"
    try:
        told = msgspec.json.decode(line)
        match told:
            case {"type": "entity"}:
                entity = msgspec.convert(told, _Entity)
                return _item(_entity_key(entity.name), entity, told)
            case {"type": "relation"}:
                relation = msgspec.convert(told, _Relation)
                return _item(_relation_key(relation), relation, told)
    except msgspec.ValidationError as error:
        return Quarantined(
            origin=origin, code="malformed", reason=f"It is no entity and no relation: {error}", raw=line
        )
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        code = "surrogate" if _is_json(line) else "malformed"
        return Quarantined(origin=origin, code=code, reason=f"The line cannot be read: {error}", raw=line)
    if isinstance(told, dict):
        return Skipped(origin=origin, reason=f"Its own tools show no line of type {told.get('type')!r}")
    return Quarantined(origin=origin, code="malformed", reason="The line is no object", raw=line)


def _is_json(line: bytes) -> bool:
    """Whether it is JSON but for text that no UTF-8 can hold: the standard library lets lone surrogates through."""
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return b"\\u" in line


def _item(key: str, record: _Entity | _Relation, told: dict[str, Any]) -> Item:
    # What its tools do not know stays in the line until their next write.
    known = {"type", *msgspec.to_builtins(record)}
    return Item(
        origin=key,
        service="server-memory",
        shape="record",
        project=None,
        namespace=_NAMESPACE,
        key=key,
        value=encode(record),
        facts={name: parsed(encode(told[name]).decode()) for name in sorted(told.keys() - known)},
    )


def _entity_key(name: str) -> str:
    return _ENTITIES + name.translate(_ESCAPES)


def _relation_key(relation: _Relation) -> str:
    names = (relation.source, relation.relation_type, relation.target)
    return _RELATIONS + "|".join(name.translate(_ESCAPES) for name in names)
