"""The format of an archive file, byte by byte. All integers are little-endian and unsigned.

A file is a row of *sections* without gaps: the header, one copy of the dictionary where there is a dictionary, the blocks,
the index, the other copy of the dictionary, and the trailer. Each section can be found and judged without the others:

    offset  bytes
         0      4  magic: 9D 5A 41 52
         4      8  mark: random, the same in all sections of a file and in no other file. Whoever chose a value cannot have
                   known it, so what looks like a section inside of a value is none
        12      1  kind: "H" header, "D" dictionary, "B" block, "I" index, "T" trailer
        13      1  version of the format: 1
        14      2  zero
        16      4  number: of a block, from 0; of a dictionary's copy, 0 or 1; otherwise 0
        20      4  count: of a block's records; otherwise 0
        24      4  stored: bytes of the payload
        28      4  raw: bytes of the payload when it is decompressed, at most 2^30; the same as `stored` where it is not
                   compressed
        32     16  BLAKE2b (RFC 7693) of 16 bytes over the bytes 0 to 31 and the payload
        48      4  CRC-32 (as in zlib) of the bytes 0 to 47
        52         payload

The CRC says whether the head of the section, and so its length, can be believed before the payload is read. A damaged head
is passed by looking for the next magic and mark.

Payload of the header ("H"), not compressed:

         0      4  zstd's id of the dictionary; 0 where there is none
         4         the archive's name, UTF-8

Payload of a dictionary ("D"): a zstd frame (RFC 8878) which holds a dictionary in zstd's own format (RFC 8878, 5), at
most 1 MiB.

Payload of a block ("B"): a zstd frame, compressed with the dictionary where there is one. When it is decompressed:

         0      8  base id
         8      8  base seq
        16      1  width of the ids, 1, 2, 4 or 8 bytes
        17      1  width of the seqs, likewise
        18      1  width of the lengths, 1, 2 or 4 bytes
        19         `count` ids, each less the base id; `count` seqs, each less the base seq; `count` lengths in bytes; and
                   the values, one after the other

Ids, seqs and lengths are byte-shuffled: first the lowest byte of each, then the next byte of each, and so on.

A record's slot is its place in the block, from 0. Its id is the memory's, its seq the place of the memory's last write in
the warm tier's commit order, and its value the memory's JSON text.

Payload of the index ("I"), not compressed: where each block begins in the file, 8 bytes each, and where the last one ends.

Payload of the trailer ("T"), not compressed. The trailer is the last section, so its place follows from the file's size:

         0      8  where the index begins
         8      8  where the first copy of the dictionary begins; 0 where there is none
        16      8  where the second copy begins, likewise
        24      4  zstd's id of the dictionary; 0 where there is none
        28      4  blocks
        32      8  records
        40      8  bytes of all values
"""

import struct
import sys
import zlib
from array import array
from collections.abc import Sequence
from enum import IntEnum
from hashlib import blake2b
from itertools import accumulate, pairwise

from msgspec import Struct

MAGIC = b"\x9dZAR"
MARK_BYTES = 8
VERSION = 1
# SQLite holds no value of more than 10^9 bytes.
MAX_RAW_BYTES = 2**30
_HEAD = struct.Struct("<4s8sBBHIIII")
_VERSION_AT = 13
_DIGEST_BYTES = 16
_CRC = struct.Struct("<I")
_CRC_AT = _HEAD.size + _DIGEST_BYTES
HEAD_BYTES = _CRC_AT + _CRC.size
_HEADER = struct.Struct("<I")
_TRAILER = struct.Struct("<QQQIIQQ")
TRAILER_BYTES = HEAD_BYTES + _TRAILER.size
_RECORDS = struct.Struct("<QQBBB")
_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Kind(IntEnum):
    """What a section is."""

    HEADER = ord("H")
    DICTIONARY = ord("D")
    BLOCK = ord("B")
    INDEX = ord("I")
    TRAILER = ord("T")


_KINDS = frozenset(Kind)


class MalformedError(Exception):
    """Bytes that are not of this format; the text says in what."""


class Head(Struct, frozen=True):
    """The beginning of a section, and where in the file it lies."""

    at: int
    mark: bytes
    kind: Kind
    number: int
    count: int
    stored: int
    raw: int

    @property
    def end(self) -> int:
        """Where the next section begins."""
        return self.at + HEAD_BYTES + self.stored


class Header(Struct, frozen=True):
    """What the header says."""

    dictionary_id: int
    name: str


class Trailer(Struct, frozen=True):
    """What the trailer says; places in bytes from the beginning of the file."""

    index_at: int
    first_dictionary_at: int
    second_dictionary_at: int
    dictionary_id: int
    blocks: int
    records: int
    bytes_raw: int


def pack_section(
    mark: bytes, kind: Kind, payload: bytes, *, number: int = 0, count: int = 0, raw: int | None = None
) -> bytes:
    """A whole section."""
    start = _HEAD.pack(MAGIC, mark, kind, VERSION, 0, number, count, len(payload), len(payload) if raw is None else raw)
    head = start + _digest(start, payload)
    return head + _CRC.pack(zlib.crc32(head)) + payload


def version_of(data: bytes) -> int | None:
    """The version of the format, by the head with which `data` begins; None where it does not begin with one that is whole."""
    if len(data) < HEAD_BYTES or not data.startswith(MAGIC):
        return None
    if _CRC.unpack_from(data, _CRC_AT)[0] != zlib.crc32(data[:_CRC_AT]):
        return None
    return data[_VERSION_AT]


def unpack_head(data: bytes, at: int) -> Head | None:
    """The head with which a section that lies `at` begins; None where `data` begins with none of this version that is whole."""
    if version_of(data) != VERSION:
        return None
    _, mark, kind, _, _, number, count, stored, raw = _HEAD.unpack_from(data)
    if kind not in _KINDS or raw > MAX_RAW_BYTES:
        return None
    return Head(at, mark, Kind(kind), number, count, stored, raw)


def payload_of(section: bytes) -> bytes:
    """The payload of a section whose head is whole. Raises MalformedError where the digest is another."""
    payload = section[HEAD_BYTES:]
    if _digest(section[: _HEAD.size], payload) != section[_HEAD.size : _CRC_AT]:
        raise MalformedError("its digest does not match")
    return payload


def pack_header(header: Header) -> bytes:
    """The payload of the header."""
    return _HEADER.pack(header.dictionary_id) + header.name.encode()


def unpack_header(payload: bytes) -> Header:
    """What that payload says. Raises MalformedError."""
    try:
        return Header(_HEADER.unpack_from(payload)[0], payload[_HEADER.size :].decode())
    except (struct.error, UnicodeDecodeError) as error:
        raise MalformedError("it is no header") from error


def pack_index(places: Sequence[int]) -> bytes:
    """The payload of the index: where each block begins, and where the last one ends."""
    return _packed(8, places)


def unpack_index(payload: bytes, blocks: int) -> "array[int]":
    """What that payload says. Raises MalformedError where it is not of that many blocks."""
    if len(payload) != 8 * (blocks + 1):
        raise MalformedError("it is of another number of blocks")
    places = _unpacked(8, payload)
    if any(end <= start for start, end in pairwise(places)):
        raise MalformedError("its places do not rise")
    return places


def pack_trailer(trailer: Trailer) -> bytes:
    """The payload of the trailer."""
    return _TRAILER.pack(
        trailer.index_at,
        trailer.first_dictionary_at,
        trailer.second_dictionary_at,
        trailer.dictionary_id,
        trailer.blocks,
        trailer.records,
        trailer.bytes_raw,
    )


def unpack_trailer(payload: bytes) -> Trailer:
    """What that payload says. Raises MalformedError."""
    if len(payload) != _TRAILER.size:
        raise MalformedError("it is no trailer")
    return Trailer(*_TRAILER.unpack(payload))


def pack_records(ids: Sequence[int], seqs: Sequence[int], values: Sequence[bytes]) -> bytes:
    """What a block's payload is before it is compressed; there must be a record."""
    lengths = [len(value) for value in values]
    base_id, base_seq = min(ids), min(seqs)
    columns = [[each - base_id for each in ids], [each - base_seq for each in seqs], lengths]
    widths = [_width(max(column)) for column in columns]
    return b"".join(
        [
            _RECORDS.pack(base_id, base_seq, *widths),
            *(_shuffled(width, _packed(width, column)) for width, column in zip(widths, columns, strict=True)),
            *values,
        ]
    )


class Records:
    """A block's records, as they lie in its decompressed payload. Raises MalformedError where that is not of `count` records."""

    def __init__(self, data: bytes, count: int) -> None:
        if len(data) < _RECORDS.size:
            raise MalformedError("it is too short")
        base_id, base_seq, *widths = _RECORDS.unpack_from(data)
        if not set(widths) <= _CODES.keys():
            raise MalformedError("it has numbers of an unknown width")
        begin = _RECORDS.size
        columns: list[array[int]] = []
        for width in widths:
            end = begin + width * count
            if end > len(data):
                raise MalformedError("it is too short")
            columns.append(_unpacked(width, _unshuffled(width, data[begin:end])))
            begin = end
        self._ids, self._seqs, lengths = columns
        self._base_id: int = base_id
        self._base_seq: int = base_seq
        if begin + sum(lengths) != len(data):
            raise MalformedError("the lengths of its values are wrong")
        self._ends = array("I", accumulate(lengths, initial=begin))
        self._data = data

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def memory_bytes(self) -> int:
        """How much memory it takes, nearly."""
        columns = (self._ids, self._seqs, self._ends)
        return len(self._data) + sum(column.itemsize * len(column) for column in columns) + 500

    def ids(self) -> list[int]:
        """The ids, by slot."""
        return [self._base_id + each for each in self._ids]

    def id(self, slot: int) -> int:
        """The id at a slot."""
        return self._base_id + self._ids[slot]

    def seq(self, slot: int) -> int:
        """The seq at a slot."""
        return self._base_seq + self._seqs[slot]

    def value(self, slot: int) -> bytes:
        """The value at a slot."""
        return self._data[self._ends[slot] : self._ends[slot + 1]]


def _digest(start: bytes, payload: bytes) -> bytes:
    digest = blake2b(start, digest_size=_DIGEST_BYTES)
    digest.update(payload)
    return digest.digest()


def _width(largest: int) -> int:
    return next(width for width in _CODES if largest < 1 << 8 * width)


def _shuffled(width: int, data: bytes) -> bytes:
    return b"".join(data[place::width] for place in range(width))


def _unshuffled(width: int, data: bytes) -> bytes:
    count = len(data) // width
    numbers = bytearray(len(data))
    for place in range(width):
        numbers[place::width] = data[place * count : (place + 1) * count]
    return bytes(numbers)


def _packed(width: int, numbers: Sequence[int]) -> bytes:
    column = array(_CODES[width], numbers)
    if sys.byteorder == "big":
        column.byteswap()
    return column.tobytes()


def _unpacked(width: int, data: bytes) -> "array[int]":
    column = array(_CODES[width], data)
    if sys.byteorder == "big":
        column.byteswap()
    return column
