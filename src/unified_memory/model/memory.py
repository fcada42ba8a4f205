"""The record, and its wire form (the mission's "Enhanced Memory Schema")."""

from typing import Any

import msgspec
from msgspec import Raw, Struct

from unified_memory.model.clock import to_rfc3339
from unified_memory.model.errors import InvalidInputError, TooLargeError
from unified_memory.model.value import parse

DEFAULT_IMPORTANCE = 5
NO_ATTRIBUTES = b'{"tags":[]}'
# Names in `metadata` that the service writes itself.
SERVICE_FIELDS = ("created_at", "updated_at", "expires_at", "access_count", "last_accessed")

_dumps = msgspec.json.Encoder().encode


class _Tagged(Struct):
    tags: tuple[str, ...] = ()


_tags = msgspec.json.Decoder(_Tagged)
_attributes = msgspec.json.Decoder(dict[str, Raw])


def check_key(key: str, limit: int, field: str = "key") -> str:
    """The key itself, where it is one: 1 byte to `limit` bytes of UTF-8 without NUL.

    Raises InvalidInputError or TooLargeError naming `field`.
    """
    if not key:
        raise InvalidInputError(field, f"{field} is empty")
    if "\0" in key:
        raise InvalidInputError(field, f"{field} holds a NUL character")
    try:
        size = len(key) if key.isascii() else len(key.encode())
    except UnicodeEncodeError:
        raise InvalidInputError(field, f"{field} holds a lone surrogate") from None
    if size > limit:
        raise TooLargeError(field, limit, size)
    return key


class Memory(Struct):
    """One stored record at one version.

    `value`: the JSON text as it came. `attributes`: the JSON text of an object that holds `tags` first, then the
    caller's own metadata fields as they came. Instants in microseconds since the epoch; `seq` is its place in the
    commit order of everything. Where only the head was read, `value` is empty.
    """

    id: int
    namespace: str
    key: str
    value: bytes
    attributes: bytes
    importance: int
    session_id: str | None
    project_id: str | None
    created_at: int
    updated_at: int
    expires_at: int | None
    access_count: int
    last_accessed: int | None
    version: int
    seq: int
    tier: str = "warm"

    @property
    def tags(self) -> tuple[str, ...]:
        """The tags, in the caller's order."""
        return _tags.decode(self.attributes).tags if self.attributes != NO_ATTRIBUTES else ()

    @property
    def extra(self) -> dict[str, Raw]:
        """The caller's own metadata fields, each the JSON text that came."""
        if self.attributes == NO_ATTRIBUTES:
            return {}
        fields = _attributes.decode(self.attributes)
        fields.pop("tags", None)
        return fields

    def visible(self, now: int) -> bool:
        """Whether it has not expired: a memory is gone from the very instant `expires_at`."""
        return self.expires_at is None or self.expires_at > now

    def parsed(self) -> Any:
        """The value as Python objects (see `value.parse`)."""
        return parse(self.value)


class SearchIndex(Struct):
    """What the search knows of a memory, returned where asked for. `content_hash` in hexadecimal digits."""

    content_hash: str
    keywords: list[str]
    full_text: str


def pack_attributes(tags: tuple[str, ...] | list[str], extra: dict[str, Any]) -> bytes:
    """`Memory.attributes` of these tags and the caller's own fields."""
    if not tags and not extra:
        return NO_ATTRIBUTES
    return _dumps({"tags": tags, **extra})


def _instant(instant: int | None) -> bytes:
    return b"null" if instant is None else b'"' + to_rfc3339(instant).encode() + b'"'


def encode_memory(memory: Memory, *, more: bytes = b"") -> bytes:
    """The record as JSON. `more`: further members as JSON text beginning with a comma, set before the end."""
    m = memory
    created_at = to_rfc3339(m.created_at).encode()
    return (
        b'{"id":%d,"key":%b,"namespace":%b,"value":%b,"metadata":{"created_at":"%b","updated_at":"%b","expires_at":%b,'
        b'"access_count":%d,"last_accessed":%b,"importance":%d,"session_id":%b,"project_id":%b,%b,"version":%d,"tier":"%b"%b}'
    ) % (
        m.id,
        _dumps(m.key),
        _dumps(m.namespace),
        m.value,
        created_at,
        created_at if m.updated_at == m.created_at else to_rfc3339(m.updated_at).encode(),
        _instant(m.expires_at),
        m.access_count,
        _instant(m.last_accessed),
        m.importance,
        b"null" if m.session_id is None else _dumps(m.session_id),
        b"null" if m.project_id is None else _dumps(m.project_id),
        m.attributes[1:],
        m.version,
        m.tier.encode(),
        more,
    )
