"""Rollback points: what the older services hold, in one file that is written and read line by line."""

import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Raw

from unified_memory.model.clock import to_rfc3339
from unified_memory.model.errors import InvalidInputError
from unified_memory.service.mapping import MIGRATED_BANK, MIGRATED_EXTENDED, MIGRATED_FROM, clamped
from unified_memory.service.reporting import write_whole
from unified_memory.service.work import Work
from unified_memory.sources.base import (
    EXTENDED_MEMORY,
    LEGACY_CREATED_AT,
    LEGACY_ID,
    MEMORY_BANK,
    Item,
    OlderSource,
    Quarantined,
    Source,
)

VERSION = "1.0.0"
BANK_IMPORTANCE = 7
MEMBERS = {EXTENDED_MEMORY: "extended_memory", MEMORY_BANK: "memory_bank"}
_encode = msgspec.json.Encoder().encode


def write_point(path: Path, sources: Sequence[Source], timestamp: str, work: Work) -> None:
    """Writes a rollback point of what these sources hold, a record a line; on a thread. Raises SourceError, StorageError."""

    def write(file: BinaryIO) -> None:
        file.write(b"{\n")
        for service, member in MEMBERS.items():
            file.write(b'"%b": [' % member.encode())
            mine = [one for one in sources if isinstance(one, OlderSource) and one.service == service]
            file.writelines(
                (b",\n" if place else b"\n") + _encode(record) for place, record in enumerate(exported(mine, work))
            )
            file.write(b"\n],\n")
        file.write(b'"timestamp": %b,\n"version": %b\n}\n' % (_encode(timestamp), _encode(VERSION)))

    write_whole(path, write)


def exported(sources: Sequence[OlderSource], work: Work) -> Iterator[dict[str, Any]]:
    """The records of older services, in the shape that the migration of them takes (see `transform_to_unified_schema`)."""
    for source in sources:
        for found in work.watched(source.read()):
            if isinstance(found, Item):
                yield _record(source, found)
            elif isinstance(found, Quarantined):
                yield {"source": source.kind, "origin": found.origin, "quarantined": found.reason, "raw": found.raw}


def _record(source: OlderSource, item: Item) -> dict[str, Any]:
    times = {"created": _time(item.created_at), "updated": _time(item.updated_at)}
    more = {
        "source": source.kind,
        "origin": item.origin,
        "project_id": item.project,
        "tags": item.tags,
        "facts": item.facts,
    }
    if source.service == MEMORY_BANK:
        # Files of two projects may have one name.
        name = f"{item.project}/{item.key}" if item.project else item.key
        return {"id": name, "data": Raw(item.value), **times, **more}
    return {
        "key": str(item.facts.get(LEGACY_ID, item.key)),
        "content": Raw(item.value),
        "timestamp": times["created"],
        "importance_level": item.importance,
        "created_at": item.facts.get(LEGACY_CREATED_AT),
        **times,
        **more,
    }


def plain(record: dict[str, Any]) -> dict[str, Any]:
    """An exported record with its value as Python objects."""
    name = "content" if "content" in record else "data"
    told: dict[str, Any] = msgspec.json.decode(_encode({**record, name: None}))
    return {**told, name: json.loads(bytes(record[name]))}


def transformed(extended_data: Iterable[dict[str, Any]], bank_data: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The memories that exported records become; see `MemoryMigrationManager.transform_to_unified_schema`."""
    memories = [
        {
            "key": one.get("key"),
            "namespace": one.get("namespace", MIGRATED_EXTENDED),
            "value": one.get("content"),
            "metadata": {
                "created_at": one.get("timestamp"),
                "importance": clamped(one.get("importance_level", 5)),
                "tags": list(one.get("tags") or ()),
                "project_id": one.get("project_id"),
                MIGRATED_FROM: EXTENDED_MEMORY,
            },
        }
        for one in extended_data
    ]
    memories += [
        {
            "key": one.get("id"),
            "namespace": MIGRATED_BANK,
            "value": one.get("data"),
            "metadata": {
                "created_at": one.get("created"),
                "importance": BANK_IMPORTANCE,
                **({"project_id": one["project_id"]} if one.get("project_id") else {}),
                MIGRATED_FROM: MEMORY_BANK,
            },
        }
        for one in bank_data
    ]
    return memories


async def lines_of(memories: Iterable[dict[str, Any]]) -> AsyncIterator[bytes]:
    """The memories as an import takes them, which is without what their metadata does not say."""
    for one in memories:
        metadata = {name: value for name, value in one.get("metadata", {}).items() if value not in (None, "")}
        yield json.dumps({**one, "metadata": metadata}).encode() + b"\n"


def check_point(path: Path) -> None:
    """Raises InvalidInputError naming `backup_file` where the file is no rollback point, or not whole."""
    wanted = {b'"extended_memory": [', b'"memory_bank": [', b"}"}
    try:
        with path.open("rb") as file:
            missing = wanted - {line.strip() for line in file if len(line) < 64}  # noqa: PLR2004 - longer than all of them
    except OSError as error:
        raise InvalidInputError("backup_file", f"{path} cannot be read: {error.strerror or error}") from None
    if missing:
        raise InvalidInputError("backup_file", f"{path} is no rollback point, or not whole")


def _time(instant: int | None) -> str | None:
    return None if instant is None else to_rfc3339(instant)
