"""Rows to be backed up, and backups made of them."""

import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec
from hypothesis import strategies as st

from unified_memory.model.history import Past
from unified_memory.model.memory import NO_ATTRIBUTES, Memory
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.session import Session
from unified_memory.storage.backup import Key, Manifest, Part, Place
from unified_memory.storage.backup.manifest import pack_manifest, pack_sums, sha256_of_parts
from unified_memory.storage.dump import Buried, Floor, Row, Space, Used

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

# It has no types.
pyrage: Any = import_module("pyrage")

ID = "20261123T020000Z-0a1b2c3d"
PARENT = "20261122T020000Z-0a1b2c3d"
INSTANT = 1_795_399_200_000_000


def memory(number: int = 1, value: bytes = b'{"text":"value"}', **changes: Any) -> Memory:
    """A memory; nothing of it is left out unless it is said so."""
    made = Memory(
        number,
        "acme/web",
        f"key {number}",
        value,
        b'{"tags":["a","b"],"source":"test"}',
        7,
        "session",
        "project",
        INSTANT,
        INSTANT + number,
        INSTANT * 2,
        3,
        INSTANT + 5,
        2,
        number,
        "cold",
    )
    return msgspec.structs.replace(made, **changes)


ROWS: dict[str, list[Row]] = {
    "spaces": [Space("acme/web", 3, NamespaceConfig(default_ttl=60, language=None), INSTANT, True, 12)],
    "floors": [Floor("gone", 4)],
    "buried": [Buried("acme/web", "old", 2, 9, 5, INSTANT, "deleted")],
    "memories": [memory(1), memory(2, b'"\xc3\xa9"', attributes=NO_ATTRIBUTES, tier="warm", session_id=None)],
    "past": [
        Past(memory(1, b"1", version=1), INSTANT, 1, 8),
        Past(memory(1, b"", version=0, attributes=b""), INSTANT, 55, 9, kept=False, redacted_at=INSTANT + 1),
    ],
    "used": [Used(1, 4, INSTANT)],
    "sessions": [Session("session", "acme/web", "c", None, 1.5, b'{"agent":"x"}', INSTANT, INSTANT + 1, INSTANT + 2)],
}


def finish(kind: str = "full", **changes: Any) -> dict[str, Any]:
    """What the one who makes a backup tells of it."""
    incremental = kind == "incremental"
    told = {
        "created_at": "2026-11-23T02:00:00.000000Z",
        "store": "0123456789abcdef",
        "seq": 9,
        "schema": 6,
        "program": "1.0.0",
        "kind": kind,
        "parent": PARENT if incremental else None,
        "parent_sha256": "ab" * 32 if incremental else None,
        "reason": "manual",
        "note": "before the upgrade",
        "memories": 2,
        "bytes": 20,
        "namespaces": {"acme/web": 2},
    }
    return told | changes


def back_up(
    path: Path, rows: Mapping[str, Iterable[Row]] = ROWS, key: Key | None = None, backup_id: str = ID, **told: Any
) -> Manifest:
    """A backup of these rows."""
    with Place(path).writing(backup_id, key) as writing:
        for kind, some in rows.items():
            writing.write(kind, some)
        return writing.finish(**finish(**told))


def read_back(path: Path, key: Key | None = None, backup_id: str = ID) -> dict[str, list[Row]]:
    """All rows of a backup that was found to be whole, by the kinds that it has."""
    reading = Place(path).reading(backup_id, key)
    reading.check()
    return {part.kind: list(reading.rows(part.kind)) for part in reading.manifest.parts if part.kind in ROWS}


def forge(path: Path, files: Mapping[str, bytes], parts: Iterable[Part], **changes: Any) -> None:
    """A folder whose manifest and sums agree with each other, whatever lies in it."""
    folder = path / ID
    folder.mkdir(parents=True, exist_ok=True)
    parts = list(parts)
    fields = finish() | {"encryption": None} | changes
    manifest = Manifest(id=ID, parts=parts, sha256=sha256_of_parts(parts), **fields)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    sign(folder, pack_manifest(manifest), parts)


def sign(folder: Path, manifest: bytes, parts: Iterable[Part] = ()) -> None:
    """Writes a manifest with sums that are right for it."""
    (folder / "manifest.json").write_bytes(manifest)
    (folder / "SHA256SUMS").write_bytes(pack_sums(parts, manifest))


def part(data: bytes, name: str = "memories-0001.jsonl.zst", **changes: Any) -> Part:
    """A part of that content, as a manifest would have it."""
    made = Part(name, name.partition("-")[0], 1, 1, len(data), hashlib.sha256(data).hexdigest())
    return msgspec.structs.replace(made, **changes)


def unpacked(frame: bytes) -> bytes:
    """What a part holds."""
    return zstd.decompress(frame)


def packed_wide(text: bytes) -> bytes:
    """A frame whose reader must keep the last 128 MiB."""
    compressor = zstd.ZstdCompressor(options={int(zstd.CompressionParameter.window_log): 27})
    return compressor.compress(text) + compressor.flush()


# Any text that JSON may hold, escapes of all kinds, numbers of any size, and names that are there twice.
_plain = st.text(st.characters(codec="utf-8"), max_size=20)
_numbers = st.one_of(
    st.integers().map(str),
    st.integers(10**20, 10**400).map(str),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.sampled_from(["-0", "-0.0", "1e400", "1E+2", "0.1000000000000000000000001", "1.0", "1" + "0" * 3000]),
)
_strings = st.one_of(
    _plain.map(json.dumps),
    _plain.map(lambda text: json.dumps(text, ensure_ascii=False)),
    st.sampled_from([r'"\ud800"', r'"\udc00 and more"', r'"\u0000"', r'"\/"', r'"\ud83d\ude00"', '"\u2028\x7f"']),
)
_blanks = st.sampled_from(["", "", "", " ", "\t", "\n", "\r\n  "])


def _spelled(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.lists(st.tuples(st.one_of(_strings, st.just('"a"')), inner, _blanks), max_size=4)
    return st.one_of(
        st.tuples(st.lists(inner, max_size=4), _blanks).map(lambda made: f"[{made[1]}{f',{made[1]}'.join(made[0])}]"),
        members.map(lambda made: "{" + ",".join(f"{blank}{name}{blank}:{value}" for name, value, blank in made) + "}"),
    )


values = st.recursive(st.one_of(_numbers, _strings, st.sampled_from(["true", "false", "null"])), _spelled, max_leaves=8)
embedded = st.tuples(_blanks, values, _blanks).map(lambda made: "".join(made).encode())
objects = _spelled(values).filter(lambda text: text.startswith("{")).map(str.encode)
attributes = st.one_of(st.just(NO_ATTRIBUTES), objects)
names = _plain
instants = st.integers(-(2**55), 2**57)
numbers = st.integers(0, 2**63 - 1)
maybe = st.one_of(st.none(), names)
memories = st.builds(
    Memory,
    numbers,
    names,
    names,
    embedded,
    attributes,
    st.integers(1, 10),
    maybe,
    maybe,
    instants,
    instants,
    st.one_of(st.none(), instants),
    numbers,
    st.one_of(st.none(), instants),
    numbers,
    numbers,
    st.sampled_from(["warm", "cold"]),
)
_gone = memories.map(lambda made: msgspec.structs.replace(made, value=b"", attributes=b""))
_ends = (instants, numbers, numbers)
_limits = st.one_of(st.just(msgspec.UNSET), st.none(), st.integers(0, 2**40))
_times = st.one_of(st.just(msgspec.UNSET), st.none(), st.floats(0, 1e12))
_words = st.one_of(st.just(msgspec.UNSET), st.none(), names)
configs = st.builds(
    NamespaceConfig, _times, _limits, _limits, _times, history_keep=_limits, history_days=_times, description=_words
)
rows: dict[str, st.SearchStrategy[Row]] = {
    "spaces": st.builds(Space, names, numbers, configs, instants, st.booleans(), numbers),
    "floors": st.builds(Floor, names, numbers),
    "buried": st.builds(Buried, names, names, numbers, numbers, numbers, instants, names),
    "memories": memories,
    "past": st.one_of(
        st.builds(Past, memories, *_ends),
        st.builds(Past, _gone, *_ends, st.just(value=False), st.one_of(st.none(), instants)),
    ),
    "used": st.builds(Used, numbers, numbers, instants),
    "sessions": st.builds(
        Session,
        names,
        names,
        maybe,
        maybe,
        st.one_of(st.none(), st.floats(0, 1e12)),
        st.one_of(st.just(b"{}"), objects),
        instants,
        instants,
        st.one_of(st.none(), instants),
        st.one_of(st.none(), instants),
        numbers,
    ),
}
