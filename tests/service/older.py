"""An older service that the tests own: a file of JSON lines, which one client at a time writes whole."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from unified_memory.model.errors import SourceError
from unified_memory.model.value import encode
from unified_memory.sources.base import (
    EXTENDED_MEMORY,
    LEGACY_CREATED_AT,
    LEGACY_ID,
    MEMORY_BANK,
    Back,
    Found,
    Item,
    OlderSource,
    Options,
    Quarantined,
    Returned,
    Shape,
    Skipped,
    Source,
    Survey,
)

Record = dict[str, Any]


class Contexts(OlderSource):
    """Contexts by id: `{"id", "project", "content", "importance", "tags", "at"}`, one a line."""

    kind: ClassVar[str] = "extended-memory-sqlite"
    takes: ClassVar[str] = "a file"
    service: ClassVar[str] = EXTENDED_MEMORY
    shape: ClassVar[Shape] = "context"

    def __init__(self, location: str, options: Options) -> None:
        self.path = Path(location)
        self.options = options

    @classmethod
    def open(cls, location: str, options: Options) -> Self:
        if not Path(location).exists():
            raise SourceError(cls.kind, location, "There is nothing")
        return cls(location, options)

    def survey(self) -> Survey:
        return Survey(kind=self.kind, location=str(self.path), records=sum(1 for _ in self.records()))

    def records(self) -> Iterator[Record]:
        with self.path.open() as lines:
            for line in lines:
                yield json.loads(line)

    def read(self) -> Iterator[Found]:
        for record in self.records():
            if record.get("break"):
                raise SourceError(self.kind, str(self.path), "It is damaged")
            yield self.found(record)

    def found(self, record: Record) -> Found:
        origin = self.origin(record)
        if "bad" in record:
            return Quarantined(origin=origin, code="nan", reason="It holds NaN", raw=record["bad"].encode())
        if "skip" in record:
            return Skipped(origin=origin, reason=record["skip"])
        return self.item(record)

    def origin(self, record: Record) -> str:
        return f"context/{record['id']}"

    def item(self, record: Record) -> Item:
        return Item(
            origin=self.origin(record),
            service=self.service,
            shape="context",
            project=record.get("project"),
            key=str(record["id"]),
            value=encode(record["content"]),
            tags=tuple(record.get("tags", ())),
            importance=record.get("importance", 5),
            created_at=record.get("at", 0),
            updated_at=record.get("at", 0),
            facts={LEGACY_ID: record["id"], LEGACY_CREATED_AT: str(record.get("at", 0))},
            notes=tuple(record.get("notes", ())),
        )

    def token(self) -> object:
        stat = self.path.stat()
        return stat.st_mtime_ns, stat.st_ino, stat.st_size

    def close(self) -> None:
        pass

    # ---- as an older service
    def lookup(self, origin: str) -> Item | Quarantined | None:
        found = next((self.found(one) for one in self.records() if self.origin(one) == origin), None)
        return None if isinstance(found, Skipped) else found

    def find(self, shape: Shape, project: str | None, key: str) -> str | None:  # noqa: ARG002 - an id is enough
        return next((self.origin(one) for one in self.records() if shape == "context" and str(one["id"]) == key), None)

    def writable(self) -> str | None:
        return "It may not be written" if self.path.with_suffix(".readonly").exists() else None

    def put_back(self, backs: Sequence[Back]) -> list[Returned]:
        if (why := self.writable()) is not None:
            raise SourceError(self.kind, str(self.path), why)
        records = {self.origin(one): one for one in self.records()}
        done = [self.put(records, back) for back in backs]
        write(self.path, list(records.values()))
        return done

    def put(self, records: dict[str, Record], back: Back) -> Returned:
        if back.content is None:
            records.pop(back.origin or "", None)
            return Returned(origin=None)
        number = back.number if back.origin is None else int(back.origin.partition("/")[2])
        record = {
            "id": number,
            "project": back.project,
            "content": back.content,
            "importance": back.importance,
            "tags": list(back.tags),
            "at": back.created_at,
        }
        there = records.get(f"context/{number}")
        if back.origin is None and there is not None and there["content"] != back.content:
            record["id"] = max(one["id"] for one in records.values()) + 1
        records[self.origin(record)] = record
        return Returned(origin=self.origin(record), lost=() if back.value.startswith(b'"') else ("It is no text",))


class Files(Contexts):
    """Files of projects: `{"project", "name", "content", "at"}`, one a line."""

    kind: ClassVar[str] = "memory-bank-files"
    service: ClassVar[str] = MEMORY_BANK
    shape: ClassVar[Shape] = "file"

    def origin(self, record: Record) -> str:
        return f"file/{record['project']}/{record['name']}"

    def item(self, record: Record) -> Item:
        return Item(
            origin=self.origin(record),
            service=self.service,
            shape="file",
            project=record["project"],
            key=record["name"],
            value=encode(record["content"]),
            importance=7,
            created_at=record.get("at", 0),
            updated_at=record.get("at", 0),
        )

    def find(self, shape: Shape, project: str | None, key: str) -> str | None:
        wanted = f"file/{project}/{key}"
        return next((wanted for one in self.records() if shape == "file" and self.origin(one) == wanted), None)

    def put(self, records: dict[str, Record], back: Back) -> Returned:
        if back.content is None:
            records.pop(back.origin or "", None)
            return Returned(origin=None)
        record = {"project": back.project, "name": back.key, "content": back.content, "at": back.updated_at}
        records[self.origin(record)] = record
        return Returned(origin=self.origin(record))


class Notes(Source):
    """Notes of another program, to which there is no way back: a JSON object of texts."""

    kind: ClassVar[str] = "server-memory"
    takes: ClassVar[str] = "a file"

    def __init__(self, location: str) -> None:
        self.path = Path(location)

    @classmethod
    def open(cls, location: str, options: Options) -> Self:  # noqa: ARG003 - there are none
        return cls(location)

    def survey(self) -> Survey:
        return Survey(kind=self.kind, location=str(self.path), records=None, remarks=["Nothing goes back there"])

    def read(self) -> Iterator[Found]:
        for key, text in json.loads(self.path.read_text()).items():
            yield Item(
                origin=key, service="notes", shape="record", project=None, key=key, value=encode(text), created_at=5
            )

    def token(self) -> object:
        return None

    def close(self) -> None:
        pass


KINDS: dict[str, type[Source]] = {one.kind: one for one in (Contexts, Files, Notes)}


def open_older(kind: str, location: str, options: Options | None = None) -> Source:
    """As `sources.kinds.open_source`."""
    return KINDS[kind].open(location, options or Options())


def write(path: Path, records: Sequence[Record]) -> None:
    """Replaces what an older service holds."""
    temp = path.with_suffix(".new")
    temp.write_text("".join(json.dumps(record) + "\n" for record in records))
    temp.replace(path)


def context(number: int, content: str = "", project: str | None = "web", **more: Any) -> Record:
    """A context as the older service holds it."""
    return {
        "id": number,
        "project": project,
        "content": content or f"context {number}",
        "at": number * 1_000_000,
        **more,
    }


def file(name: str, content: str = "", project: str = "web", at: int = 7) -> Record:
    """A file as the older service holds it."""
    return {"project": project, "name": name, "content": content or f"content of {name}", "at": at}
