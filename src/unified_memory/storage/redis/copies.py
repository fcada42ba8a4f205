"""What stands at a key in Redis: one string.

    a copy      c version id access_count last_accessed digest payload
    a ticket    t token (16 bytes)
    a mark      m had floor (token (8 bytes) deadline)…

Numbers are unsigned, of 8 bytes, the highest first. `digest`: BLAKE2b of 8 bytes over version, id and payload. `payload`:
MessagePack of the fields of Memory in their order. access_count and last_accessed (0: never) stand outside, where a script
adds to them in place. `had`: 1 where a copy stood there before the mark. `floor`: the highest version that was settled there
meanwhile. Each writer that is under way has its token in the mark, until a deadline in milliseconds of the server's clock.
"""

import struct
from hashlib import blake2b

import msgspec
from msgspec import structs

from unified_memory.model.memory import Memory

# Changed with the layout, so that programs of two versions do not read each other's copies.
PREFIX = "um1"
BUCKETS = 16
COPY = b"c"
TICKET = b"t"
MARK = b"m"
# What Redis needs for an entry beside key and value: dictionary, expiry, and the member in the order of use.
OVERHEAD_BYTES = 250

_HEAD = struct.Struct(">cQQQQ8s")
_IDENTITY = struct.Struct(">QQ")
_SIZE = struct.Struct(">I")
KEY_DIGEST_BYTES = 16
_Fields = tuple[
    int, str, str, bytes, bytes, int, str | None, str | None, int, int, int | None, int, int | None, int, int, str
]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Fields).decode


def key_digest(namespace: str, key: str) -> bytes:
    """The 16 bytes that stand for a key of a namespace; its first one says the bucket."""
    return blake2b(f"{namespace}\0{key}".encode(), digest_size=KEY_DIGEST_BYTES).digest()


def bucket_of(digest: bytes) -> int:
    """0 to BUCKETS - 1."""
    return digest[0] % BUCKETS


def bucket_key(era: str, bucket: int) -> bytes:
    """The key of a bucket's order of use; with `:` and a digest behind it the key of a copy. The braces are a hash tag: all of
    a bucket is in one slot of a cluster.
    """
    return f"{PREFIX}:{{{era}:{bucket}}}".encode()


def member(digest: bytes, size: int) -> bytes:
    """A copy in its bucket's order of use; `size`: bytes of the whole string."""
    return digest + _SIZE.pack(size)


def _digest(version: int, memory_id: int, payload: bytes | memoryview) -> bytes:
    hashed = blake2b(_IDENTITY.pack(version, memory_id), digest_size=8)
    hashed.update(payload)
    return hashed.digest()


def pack_copy(memory: Memory) -> bytes:
    """The string of a copy."""
    payload = _encode(structs.astuple(memory))
    head = _HEAD.pack(
        COPY,
        memory.version,
        memory.id,
        memory.access_count,
        max(memory.last_accessed or 0, 0),
        _digest(memory.version, memory.id, payload),
    )
    return head + payload


def unpack_copy(text: bytes, namespace: str, key: str) -> Memory | None:
    """The memory of a copy; None where it is not what it says or not of that key."""
    if len(text) <= _HEAD.size:
        return None
    _, version, memory_id, access_count, last_accessed, digest = _HEAD.unpack_from(text)
    payload = memoryview(text)[_HEAD.size :]
    if _digest(version, memory_id, payload) != digest:
        return None
    try:
        memory = Memory(*_decode(payload))
    except msgspec.MsgspecError:
        return None
    if memory.namespace != namespace or memory.key != key or memory.version != version or memory.id != memory_id:
        return None
    memory.access_count = access_count
    if last_accessed:
        memory.last_accessed = last_accessed
    return memory
