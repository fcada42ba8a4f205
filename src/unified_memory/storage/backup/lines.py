"""The rows of a backup as lines of JSON, one object a line, and back.

JSON text that callers gave (values, attributes, metadata of sessions) is embedded as its bytes came. Where it cannot be, because
it holds a line break between its tokens, begins or ends with blanks, or is JSON that not every reader understands (a lone
surrogate's escape, nesting without end), its text stands as a string in a member named `…_text` instead.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from unified_memory.model.errors import StorageCorruptError
from unified_memory.model.history import Past
from unified_memory.model.memory import NO_ATTRIBUTES, Memory
from unified_memory.model.session import Session
from unified_memory.storage.dump import Buried, Floor, Row, Space, Used

_Embedded = Raw | UnsetType
_Text = str | UnsetType


class MalformedError(Exception):
    """Something that is read is not as it can have been written."""


class _SpaceLine(Space, forbid_unknown_fields=True):
    pass


class _FloorLine(Floor, forbid_unknown_fields=True):
    pass


class _BuriedLine(Buried, forbid_unknown_fields=True):
    pass


class _UsedLine(Used, forbid_unknown_fields=True):
    pass


class _MemoryLine(Struct, forbid_unknown_fields=True, omit_defaults=True):
    id: int
    namespace: str
    key: str
    version: int
    seq: int
    created_at: int
    updated_at: int
    importance: int
    value: _Embedded = UNSET
    value_text: _Text = UNSET
    attributes: _Embedded = UNSET
    attributes_text: _Text = UNSET
    session_id: str | None = None
    project_id: str | None = None
    expires_at: int | None = None
    access_count: int = 0
    last_accessed: int | None = None
    tier: str = "warm"


class _PastLine(_MemoryLine, kw_only=True):
    ended_at: int
    bytes: int
    touched: int
    kept: bool = True
    redacted_at: int | None = None


class _SessionLine(Struct, forbid_unknown_fields=True, omit_defaults=True):
    id: str
    namespace: str
    created_at: int
    last_used: int
    metadata: _Embedded = UNSET
    metadata_text: _Text = UNSET
    cluster_id: str | None = None
    project_id: str | None = None
    ttl: float | None = None
    expires_at: int | None = None
    ended_at: int | None = None
    memories: int = 0


# Of the lines of each kind.
MEMBERS: dict[str, tuple[str, ...]] = {
    "spaces": _SpaceLine.__struct_fields__,
    "floors": _FloorLine.__struct_fields__,
    "buried": _BuriedLine.__struct_fields__,
    "memories": _MemoryLine.__struct_fields__,
    "past": _PastLine.__struct_fields__,
    "used": _UsedLine.__struct_fields__,
    "sessions": _SessionLine.__struct_fields__,
}

_encode = msgspec.json.Encoder().encode
_decode_raw = msgspec.json.Decoder(Raw).decode
_decode_space = msgspec.json.Decoder(_SpaceLine).decode
_decode_floor = msgspec.json.Decoder(_FloorLine).decode
_decode_buried = msgspec.json.Decoder(_BuriedLine).decode
_decode_memory = msgspec.json.Decoder(_MemoryLine).decode
_decode_past = msgspec.json.Decoder(_PastLine).decode
_decode_used = msgspec.json.Decoder(_UsedLine).decode
_decode_session = msgspec.json.Decoder(_SessionLine).decode

_NO_ATTRIBUTES: tuple[_Embedded, _Text] = (Raw(NO_ATTRIBUTES), UNSET)


def encode(kind: str, row: Row) -> bytes:
    """The line of a row, without its end. Raises StorageCorruptError where text of the row is not UTF-8."""
    return _encoders[kind](row)


def decoder(kind: str) -> Callable[[bytes], Row]:
    """What makes a row of a line. It raises MalformedError."""
    decode = _decoders[kind]

    def decoded(line: bytes) -> Row:
        try:
            return decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MalformedError(str(error)) from error

    return decoded


def _embed(text: bytes, begin: bytes = b"") -> tuple[_Embedded, _Text]:
    """JSON text that begins so, to be embedded or as a string, nothing where there is none."""
    if not text:
        return UNSET, UNSET
    if text.startswith(begin) and b"\n" not in text and b"\r" not in text:
        try:
            raw = _decode_raw(text)
        except (msgspec.MsgspecError, RecursionError):
            return UNSET, _utf8(text)
        if len(memoryview(raw)) == len(text):
            return raw, UNSET
    return UNSET, _utf8(text)


def _utf8(text: bytes) -> str:
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        raise StorageCorruptError(f"A stored text is not UTF-8: {error.reason}") from error


def _take(embedded: _Embedded, text: _Text, begin: bytes = b"") -> bytes:
    """The reverse of `_embed`."""
    if embedded is UNSET:
        return b"" if text is UNSET else text.encode()
    taken = bytes(embedded)
    if text is not UNSET or not taken.startswith(begin):
        raise MalformedError("A JSON text is there twice, or is no object")
    return taken


def _members(memory: Memory) -> tuple[Any, ...]:
    """What a `_MemoryLine` is made of, in its order."""
    m = memory
    attributes = _NO_ATTRIBUTES if m.attributes == NO_ATTRIBUTES else _embed(m.attributes, b"{")
    return (
        *(m.id, m.namespace, m.key, m.version, m.seq, m.created_at, m.updated_at, m.importance),
        *_embed(m.value),
        *attributes,
        *(m.session_id, m.project_id, m.expires_at, m.access_count, m.last_accessed, m.tier),
    )


def _memory_of(line: _MemoryLine) -> Memory:
    return Memory(
        line.id,
        line.namespace,
        line.key,
        _take(line.value, line.value_text),
        _take(line.attributes, line.attributes_text, b"{"),
        line.importance,
        line.session_id,
        line.project_id,
        line.created_at,
        line.updated_at,
        line.expires_at,
        line.access_count,
        line.last_accessed,
        line.version,
        line.seq,
        line.tier,
    )


def _encode_memory(memory: Memory) -> bytes:
    if not memory.value:
        raise StorageCorruptError("A stored value is empty", memory_id=memory.id)
    return _encode(_MemoryLine(*_members(memory)))


def _memory(line: bytes) -> Memory:
    memory = _memory_of(_decode_memory(line))
    if not memory.value:
        raise MalformedError("A memory has no value")
    return memory


def _encode_past(past: Past) -> bytes:
    if past.kept and not past.memory.value:
        raise StorageCorruptError("A stored former value is empty", memory_id=past.memory.id)
    return _encode(
        _PastLine(
            *_members(past.memory),
            ended_at=past.ended_at,
            bytes=past.bytes,
            touched=past.touched,
            kept=past.kept,
            redacted_at=past.redacted_at,
        )
    )


def _past(line: bytes) -> Past:
    found = _decode_past(line)
    memory = _memory_of(found)
    if found.kept and not memory.value:
        raise MalformedError("A version that is kept has no value")
    return Past(memory, found.ended_at, found.bytes, found.touched, found.kept, found.redacted_at)


def _encode_session(session: Session) -> bytes:
    s = session
    metadata, metadata_text = _embed(s.metadata, b"{")
    return _encode(
        _SessionLine(
            *(s.id, s.namespace, s.created_at, s.last_used, metadata, metadata_text),
            *(s.cluster_id, s.project_id, s.ttl, s.expires_at, s.ended_at, s.memories),
        )
    )


def _session(line: bytes) -> Session:
    s = _decode_session(line)
    return Session(
        s.id,
        s.namespace,
        s.cluster_id,
        s.project_id,
        s.ttl,
        _take(s.metadata, s.metadata_text, b"{"),
        s.created_at,
        s.last_used,
        s.expires_at,
        s.ended_at,
        s.memories,
    )


def _space(line: bytes) -> Space:
    s = _decode_space(line)
    return Space(s.name, s.number, s.config, s.created_at, s.explicit, s.top_version)


def _floor(line: bytes) -> Floor:
    f = _decode_floor(line)
    return Floor(f.name, f.version)


def _buried(line: bytes) -> Buried:
    b = _decode_buried(line)
    return Buried(b.namespace, b.key, b.version, b.seq, b.id, b.at, b.reason)


def _used(line: bytes) -> Used:
    u = _decode_used(line)
    return Used(u.id, u.count, u.last)


_encoders: dict[str, Callable[[Any], bytes]] = {
    "spaces": _encode,
    "floors": _encode,
    "buried": _encode,
    "memories": _encode_memory,
    "past": _encode_past,
    "used": _encode,
    "sessions": _encode_session,
}
_decoders: dict[str, Callable[[bytes], Row]] = {
    "spaces": _space,
    "floors": _floor,
    "buried": _buried,
    "memories": _memory,
    "past": _past,
    "used": _used,
    "sessions": _session,
}
