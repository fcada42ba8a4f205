"""Redis's dump files (RDB): read as a stream, and written anew with some keys changed and all others byte for byte.

Format: `rdb.h`, `rdb.c`, `ziplist.c` and `listpack.c` of Redis 7.2 (versions up to 12), and of Valkey 9 (version 80). The
values of text keys and lists are understood, those of the other types are stepped over.
"""

import contextlib
import os
import struct
import tempfile
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from msgspec import Struct

from unified_memory.model.errors import SourceError, SourceUnavailableError

_BLOCK = 1 << 20
_TRAILER = 8
_CHECKSUM_SINCE = 5
# The polynomial of CRC-64/Jones, bits reversed; https://github.com/redis/redis/blob/7.2/src/crc64.c
_POLYNOMIAL = 0x95AC9329AC4BC9B5

_SLOT_INFO, _FUNCTION, _FREQUENCY, _IDLE, _AUX, _SIZES = 0xF4, 0xF5, 0xF9, 0xF8, 0xFA, 0xFB
_EXPIRES_MS, _EXPIRES, _DATABASE, _END = 0xFC, 0xFD, 0xFE, 0xFF
_MODULE_AUX = 0xF7

STRING, LIST = 0, 1
_SET, _ZSET, _HASH, _ZSET_2 = 2, 3, 4, 5
_MODULES = (6, 7)
_ZIPMAP, _LIST_ZIPLIST, _INTSET, _ZSET_ZIPLIST, _HASH_ZIPLIST, _QUICKLIST = 9, 10, 11, 12, 13, 14
_STREAM, _HASH_LISTPACK, _ZSET_LISTPACK, _QUICKLIST_2, _STREAM_2, _SET_LISTPACK, _STREAM_3 = 15, 16, 17, 18, 19, 20, 21
_HASH_WITH_EXPIRY, _HASH_LISTPACK_WITH_EXPIRY = 24, 25
_VALKEY_HASH_WITH_EXPIRY = 22
_LISTS = (LIST, _LIST_ZIPLIST, _QUICKLIST, _QUICKLIST_2)
_ONE_STRING = (_ZIPMAP, _INTSET, _ZSET_ZIPLIST, _HASH_ZIPLIST, _HASH_LISTPACK, _ZSET_LISTPACK, _SET_LISTPACK)
_STREAMS = (_STREAM, _STREAM_2, _STREAM_3)
_PLAIN_NODE = 1
_HINT = "Start a redis-server on a copy of the file, and name its URL instead"

Value = bytes | list[bytes]


class Entry(Struct, frozen=True):
    """A key. `expires_at`: in milliseconds since the epoch. It lies in the file from `start` to `end`, its type (a number of
    RDB's) at `type_at`, its value from `value_at` on.
    """

    database: int
    key: bytes
    type: int
    expires_at: int | None
    start: int
    type_at: int
    value_at: int
    end: int
    value: Value | None = None

    @property
    def is_list(self) -> bool:
        """Whether it is a list, in any of its encodings."""
        return self.type in _LISTS


class Change(Struct, frozen=True):
    """What a key is to hold, None for no key. `expires_at` in milliseconds; `keeps_expiry`: what it had stays instead."""

    value: Value | None
    expires_at: int | None = None
    keeps_expiry: bool = False


class Dump:
    """A dump file. Every method may raise SourceError where it is damaged, or holds what is not understood."""

    def __init__(self, path: Path, kind: str) -> None:
        self._path = path
        self._kind = kind
        self._verified: tuple[int, ...] | None = None
        self.about: dict[str, str] = {}

    def token(self) -> tuple[int, ...]:
        """Equal as long as the file is the same."""
        try:
            return _state(self._path.stat())
        except OSError as error:
            raise self._error(f"The file cannot be used: {error.strerror}") from error

    def verify(self) -> None:
        """Reads all of it and checks its checksum, where it has one."""
        with self._open() as file:
            self._verify(file)

    def entries(self, wanted: Callable[[bytes], bool]) -> Iterator[Entry]:
        """All keys in their order; the value comes along for the wanted ones that are texts or lists."""
        with self._open() as file:
            self._verify(file)
            reader = _Reader(file, self._error)
            self.about = {}
            for one in reader.walk(wanted, self.about):
                if isinstance(one, Entry):
                    yield one

    def value(self, entry: Entry, token: tuple[int, ...]) -> Value:
        """The value of an entry of a text or a list, which `entries` gave when the file had that token.

        Raises SourceUnavailableError where it was written anew since.
        """
        with self._open() as file:
            self._expect(file, token)
            file.seek(entry.value_at)
            reader = _Reader(file, self._error)
            if entry.is_list:
                return reader.list_of(entry.type)
            return reader.string()

    def rewrite(self, changes: Mapping[tuple[int, bytes], Change], token: tuple[int, ...]) -> None:
        """Writes the file anew: beside it first, then in its place, with its rights. New keys are the last of their database.

        Raises SourceUnavailableError where it is no longer the file of that token.
        """
        with self._open() as file:
            self._expect(file, token)
            self._verify(file)
            try:
                self._replace(file, changes)
            except OSError as error:
                raise self._error(f"It cannot be written: {error.strerror}") from error

    def _replace(self, file: BinaryIO, changes: Mapping[tuple[int, bytes], Change]) -> None:
        directory = self._path.resolve().parent
        handle, name = tempfile.mkstemp(prefix=f".{self._path.name}.", dir=directory)
        try:
            with os.fdopen(handle, "wb") as target:
                self._write(file, target, changes)
                about = os.fstat(file.fileno())
                os.fchmod(handle, about.st_mode & 0o7777)
                # Only an administrator may, and only for one it is needed.
                with contextlib.suppress(PermissionError):
                    os.fchown(handle, about.st_uid, about.st_gid)
                target.flush()
                os.fsync(handle)
            self._expect(file, self.token())
            Path(name).replace(self._path.resolve())
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
        self._verified = None
        folder = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write(self, file: BinaryIO, target: BinaryIO, changes: Mapping[tuple[int, bytes], Change]) -> None:
        writer = _Writer(file, target)
        left = {
            place: (change.value, change.expires_at) for place, change in changes.items() if change.value is not None
        }
        database: int | None = None
        version = _version(file.read(_MAGIC_BYTES)) or 0
        file.seek(0)
        for one in _Reader(file, self._error).walk(lambda _: False, {}):
            if isinstance(one, Entry):
                change = changes.get((one.database, one.key))
                if change is None:
                    continue
                writer.copy_to(one.start)
                if change.value is not None:
                    if change.keeps_expiry:
                        writer.copy_to(one.type_at)
                    writer.new(one.key, change.value, change.expires_at)
                    left.pop((one.database, one.key), None)
                writer.skip_to(one.end)
                continue
            writer.copy_to(one.at)
            for place in [place for place in left if place[0] == database]:
                writer.new(place[1], *left.pop(place))
            if one.database is None:
                for number in sorted({place[0] for place in left}):
                    writer.write(bytes([_DATABASE]) + _length(number))
                    for place in [place for place in left if place[0] == number]:
                        writer.new(place[1], *left.pop(place))
                writer.write(bytes([_END]))
            database = one.database
        if version >= _CHECKSUM_SINCE:
            target.write(struct.pack("<Q", writer.checksum))

    def _open(self) -> BinaryIO:
        try:
            return self._path.open("rb", buffering=_BLOCK)
        except OSError as error:
            raise self._error(f"The file cannot be used: {error.strerror}") from error

    def _error(self, detail: str) -> SourceError:
        return SourceError(self._kind, str(self._path), detail, hint=_HINT)

    def _expect(self, file: BinaryIO, token: tuple[int, ...]) -> None:
        if _state(os.fstat(file.fileno())) != token:
            raise SourceUnavailableError(
                self._kind,
                str(self._path),
                "It was written anew in the meantime",
                hint="Stop the server that writes it",
            )

    def _verify(self, file: BinaryIO) -> None:
        token = _state(os.fstat(file.fileno()))
        head = file.read(_MAGIC_BYTES)
        version = _version(head)
        if version is None:
            raise self._error("It is no dump file of Redis")
        if token == self._verified:
            file.seek(0)
            return
        if version >= _CHECKSUM_SINCE:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - _TRAILER))
            trailer = file.read(_TRAILER)
            (told,) = struct.unpack("<Q", trailer.rjust(_TRAILER, b"\0"))
            file.seek(0)
            if told and _checksum_of(file, size - _TRAILER) != told:
                raise self._error("It is damaged: its checksum is wrong")
        file.seek(0)
        self._verified = token


class _Mark(Struct, frozen=True):
    """Where a database begins, or (None) the file ends."""

    at: int
    database: int | None


_MAGIC_BYTES = 9


def _state(about: os.stat_result) -> tuple[int, ...]:
    return (about.st_mtime_ns, about.st_size, about.st_ino)


def _version(head: bytes) -> int | None:
    """The version that the first bytes of a file tell; None where they are of no dump."""
    for magic in (b"REDIS", b"VALKEY"):
        digits = head.removeprefix(magic)
        if head.startswith(magic) and len(head) == _MAGIC_BYTES and digits.isdigit():
            return int(digits)
    return None


class _Reader:
    def __init__(self, file: BinaryIO, error: Callable[[str], SourceError]) -> None:
        self._file = file
        self._error = error
        self._valkey = False
        self._at = file.tell()

    def walk(self, wanted: Callable[[bytes], bool], about: dict[str, str]) -> Iterator[Entry | _Mark]:
        """Every key, and where databases begin; `about` takes what the file tells of itself."""
        head = self._bytes(_MAGIC_BYTES)
        self._valkey = head.startswith(b"VALKEY")
        database = 0
        expires_at: int | None = None
        start: int | None = None
        while True:
            at = self._at
            opcode = self._byte()
            if opcode == _END:
                yield _Mark(at, None)
                return
            if opcode == _DATABASE:
                database = self._length()
                yield _Mark(at, database)
            elif opcode == _AUX:
                name = self.string().decode(errors="replace")
                about[name] = self.string().decode(errors="replace")
            elif opcode == _SIZES:
                self._length()
                self._length()
            elif opcode == _SLOT_INFO:
                for _ in range(3):
                    self._length()
            elif opcode == _FUNCTION:
                self._skip_string()
            elif opcode in {_EXPIRES_MS, _EXPIRES, _FREQUENCY, _IDLE}:
                start = at if start is None else start
                if opcode == _EXPIRES_MS:
                    (expires_at,) = struct.unpack("<q", self._bytes(8))
                elif opcode == _EXPIRES:
                    expires_at = struct.unpack("<i", self._bytes(4))[0] * 1000
                elif opcode == _FREQUENCY:
                    self._skip(1)
                else:
                    self._length()
            elif opcode == _MODULE_AUX or opcode in _MODULES:
                raise self._error("It holds what a module of Redis keeps, which only that module understands")
            else:
                key = self.string()
                value_at = self._at
                value = self._value(opcode, take=wanted(key))
                yield Entry(
                    database, key, opcode, expires_at, at if start is None else start, at, value_at, self._at, value
                )
                start, expires_at = None, None

    def _value(self, type_: int, *, take: bool) -> Value | None:
        if type_ == STRING:
            if take:
                return self.string()
            self._skip_string()
        elif type_ in _LISTS and take:
            return self.list_of(type_)
        elif type_ in _ONE_STRING or type_ == _LIST_ZIPLIST:
            self._skip_string()
        elif type_ in {LIST, _SET, _QUICKLIST}:
            self._skip_strings(self._length())
        elif type_ == _HASH:
            self._skip_strings(2 * self._length())
        elif type_ == _QUICKLIST_2:
            for _ in range(self._length()):
                self._length()
                self._skip_string()
        elif type_ in {_ZSET, _ZSET_2}:
            for _ in range(self._length()):
                self._skip_string()
                self._skip_score(type_)
        elif type_ in _STREAMS:
            self._skip_stream(type_)
        elif type_ == _VALKEY_HASH_WITH_EXPIRY and self._valkey:
            for _ in range(self._length()):
                self._skip_strings(2)
                self._skip(8)
        elif type_ == _HASH_WITH_EXPIRY and not self._valkey:
            self._skip(8)
            for _ in range(self._length()):
                self._length()
                self._skip_strings(2)
        elif type_ == _HASH_LISTPACK_WITH_EXPIRY and not self._valkey:
            self._skip(8)
            self._skip_string()
        else:
            raise self._error(f"It holds a value of the unknown type {type_}")
        return None

    def list_of(self, type_: int) -> list[bytes]:
        """The elements of a list that begins here, in that encoding."""
        if type_ == _LIST_ZIPLIST:
            return self._packed(_ziplist, self.string())
        count = self._length()
        if type_ == LIST:
            return [self.string() for _ in range(count)]
        found: list[bytes] = []
        for _ in range(count):
            if type_ == _QUICKLIST:
                found += self._packed(_ziplist, self.string())
            elif self._length() == _PLAIN_NODE:
                found.append(self.string())
            else:
                found += self._packed(_listpack, self.string())
        return found

    def string(self) -> bytes:
        """The text that begins here; numbers as their digits."""
        size, special = self._size()
        if special is None:
            return self._bytes(size)
        if special in _INTEGERS:
            form = _INTEGERS[special]
            return b"%d" % int(struct.unpack(form, self._bytes(struct.calcsize(form)))[0])
        compressed, whole = self._length(), self._length()
        try:
            return decompress(self._bytes(compressed), whole)
        except ValueError as error:
            raise self._error(f"It is damaged: {error}") from error

    def _packed(self, unpack: Callable[[bytes], list[bytes]], raw: bytes) -> list[bytes]:
        try:
            return unpack(raw)
        except (IndexError, struct.error, ValueError) as error:
            raise self._error("It is damaged: a list is not as its encoding says") from error

    def _skip_string(self) -> None:
        size, special = self._size()
        if special is None:
            self._skip(size)
        elif special in _INTEGERS:
            self._skip(struct.calcsize(_INTEGERS[special]))
        else:
            compressed = self._length()
            self._length()
            self._skip(compressed)

    def _skip_strings(self, count: int) -> None:
        for _ in range(count):
            self._skip_string()

    def _skip_score(self, type_: int) -> None:
        if type_ == _ZSET_2:
            self._skip(8)
            return
        size = self._byte()
        if size <= _LONGEST_SCORE:
            self._skip(size)

    def _skip_stream(self, type_: int) -> None:
        self._skip_strings(2 * self._length())
        for _ in range(3 if type_ == _STREAM else 8):
            self._length()
        for _ in range(self._length()):
            self._skip_string()
            for _ in range(2 if type_ == _STREAM else 3):
                self._length()
            for _ in range(self._length()):
                self._skip(24)
                self._length()
            for _ in range(self._length()):
                self._skip_string()
                self._skip(16 if type_ == _STREAM_3 else 8)
                self._skip(16 * self._length())

    def _length(self) -> int:
        size, special = self._size()
        if special is not None:
            raise self._error(f"It is damaged at byte {self._at}: a length was expected")
        return size

    def _size(self) -> tuple[int, int | None]:
        """A length, or which of the special encodings of a text follows."""
        first = self._byte()
        kind = first >> 6
        if kind == 0:
            return first, None
        if kind == 1:
            return (first & 0x3F) << 8 | self._byte(), None
        if first == _LENGTH_32:
            return int.from_bytes(self._bytes(4)), None
        if first == _LENGTH_64:
            return int.from_bytes(self._bytes(8)), None
        special = first & 0x3F
        if kind == _SPECIAL and (special in _INTEGERS or special == _COMPRESSED):
            return 0, special
        raise self._error(f"It is damaged at byte {self._at}: no length begins with {first}")

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _bytes(self, count: int) -> bytes:
        found = self._file.read(count)
        if len(found) != count:
            raise self._error("It ends too early")
        self._at += count
        return found

    def _skip(self, count: int) -> None:
        if count <= _BLOCK:
            self._bytes(count)
        else:
            self._at = self._file.seek(self._at + count)


_LENGTH_32, _LENGTH_64, _SPECIAL, _COMPRESSED = 0x80, 0x81, 3, 3
_INTEGERS = {0: "<b", 1: "<h", 2: "<i"}
_LONGEST_SCORE = 252


class _Writer:
    """Copies parts of a file into another, and writes others in between."""

    def __init__(self, file: BinaryIO, target: BinaryIO) -> None:
        self._from = file.fileno()
        self._at = 0
        self._target = target
        self.checksum = 0

    def write(self, raw: bytes) -> None:
        self._target.write(raw)
        self.checksum = crc64(raw, self.checksum)

    def copy_to(self, end: int) -> None:
        """Everything from where it is up to there."""
        while self._at < end:
            piece = os.pread(self._from, min(_BLOCK, end - self._at), self._at)
            if not piece:
                break
            self.write(piece)
            self._at += len(piece)

    def skip_to(self, end: int) -> None:
        self._at = end

    def new(self, key: bytes, value: Value, expires_at: int | None) -> None:
        if expires_at is not None:
            self.write(bytes([_EXPIRES_MS]) + struct.pack("<q", expires_at))
        if isinstance(value, bytes):
            self.write(bytes([STRING]) + _string(key) + _string(value))
            return
        self.write(bytes([LIST]) + _string(key) + _length(len(value)))
        for element in value:
            self.write(_string(element))


def _string(raw: bytes) -> bytes:
    return _length(len(raw)) + raw


def _length(size: int) -> bytes:
    if size < 1 << 6:
        return bytes([size])
    if size < 1 << 14:
        return struct.pack(">H", size | 0x4000)
    if size < 1 << 32:
        return bytes([_LENGTH_32]) + struct.pack(">I", size)
    return bytes([_LENGTH_64]) + struct.pack(">Q", size)


def decompress(raw: bytes, size: int) -> bytes:
    """What LZF made smaller: http://oldhome.schmorp.de/marc/liblzf.html. Raises ValueError where it is not `size` bytes."""
    out = bytearray()
    at = 0
    try:
        while at < len(raw):
            control = raw[at]
            at += 1
            if control < 1 << 5:
                out += raw[at : at + control + 1]
                at += control + 1
                continue
            length = control >> 5
            if length == _LONG_MATCH:
                length += raw[at]
                at += 1
            length += 2
            back = ((control & 0x1F) << 8 | raw[at]) + 1
            at += 1
            if back > len(out):
                raise ValueError("a compressed text refers to what is before it")
            piece = out[-back:] if back <= length else out[-back : length - back or None]
            out += (piece * (length // back + 1))[:length]
    except IndexError:
        raise ValueError("a compressed text ends too early") from None
    if len(out) != size:
        raise ValueError("a compressed text has another length than it should")
    return bytes(out)


_LONG_MATCH = 7


def _ziplist(raw: bytes) -> list[bytes]:
    found: list[bytes] = []
    at = 10
    while raw[at] != _LIST_END:
        at += 5 if raw[at] == _LONG_BEFORE else 1
        first = raw[at]
        kind = first >> 6
        if kind == _SPECIAL:
            width = _ZIPLIST_INTEGERS.get(first)
            if width is None:
                found.append(b"%d" % ((first & 0x0F) - 1))
                at += 1
            else:
                found.append(_integer(raw, at + 1, width))
                at += 1 + width
            continue
        if kind == 0:
            size, at = first & 0x3F, at + 1
        elif kind == 1:
            size, at = (first & 0x3F) << 8 | raw[at + 1], at + 2
        else:
            size, at = int.from_bytes(raw[at + 1 : at + 5]), at + 5
        found.append(_piece(raw, at, size))
        at += size
    return found


_LIST_END, _LONG_BEFORE = 0xFF, 0xFE
_ZIPLIST_INTEGERS = {0xC0: 2, 0xD0: 4, 0xE0: 8, 0xF0: 3, 0xFE: 1}
_LISTPACK_INTEGERS = {0xF1: 2, 0xF2: 3, 0xF3: 4, 0xF4: 8}
_LISTPACK_LONG = 0xF0
_SHORT_TEXT, _SIGNED_13, _TEXT = 0b10, 0b110, 0b1110
# What an entry may be long so that its length, which stands behind it, takes so many bytes.
_BACK_LENGTHS = ((127, 1), (16_382, 2), (2_097_150, 3), (268_435_454, 4))


def _listpack(raw: bytes) -> list[bytes]:
    found: list[bytes] = []
    at = 6
    while raw[at] != _LIST_END:
        first, head = raw[at], 1
        size = 0
        if first < 1 << 7:
            found.append(b"%d" % first)
        elif first in _LISTPACK_INTEGERS:
            size = _LISTPACK_INTEGERS[first]
            found.append(_integer(raw, at + 1, size))
        elif first >> 5 == _SIGNED_13:
            number = (first & 0x1F) << 8 | raw[at + 1]
            head = 2
            found.append(b"%d" % (number - (1 << 13) if number >= 1 << 12 else number))
        else:
            if first >> 6 == _SHORT_TEXT:
                size = first & 0x3F
            elif first >> 4 == _TEXT:
                size, head = (first & 0x0F) << 8 | raw[at + 1], 2
            elif first == _LISTPACK_LONG:
                size, head = int.from_bytes(raw[at + 1 : at + 5], "little"), 5
            else:
                raise ValueError("an element of no known encoding")
            found.append(_piece(raw, at + head, size))
        whole = head + size
        at += whole + next((width for most, width in _BACK_LENGTHS if whole <= most), 5)
    return found


def _integer(raw: bytes, at: int, width: int) -> bytes:
    return b"%d" % int.from_bytes(_piece(raw, at, width), "little", signed=True)


def _piece(raw: bytes, at: int, size: int) -> bytes:
    piece = raw[at : at + size]
    if len(piece) != size:
        raise ValueError("an element ends too late")
    return piece


def _byte_tables() -> list[list[int]]:
    """One for each place of a byte within eight."""
    first: list[int] = []
    for byte in range(256):
        rest = byte
        for _ in range(8):
            rest = rest >> 1 ^ (_POLYNOMIAL if rest & 1 else 0)
        first.append(rest)
    tables = [first]
    for _ in range(7):
        tables.append([rest >> 8 ^ first[rest & 0xFF] for rest in tables[-1]])
    return tables


_BYTES = _byte_tables()
_LITTLE_ENDIAN = array("H", b"\1\0")[0] == 1


def crc64(raw: bytes, checksum: int = 0) -> int:
    """CRC-64/Jones (reflected, nothing inverted) of the bytes, going on from that of those before."""
    first, second, third, fourth, fifth, sixth, seventh, eighth = _BYTES
    whole = len(raw) & ~7
    words = array("Q", raw[:whole])
    if not _LITTLE_ENDIAN:
        words.byteswap()
    for word in words:
        a, b, c, d, e, f, g, h = (checksum ^ word).to_bytes(8, "little")
        checksum = eighth[a] ^ seventh[b] ^ sixth[c] ^ fifth[d] ^ fourth[e] ^ third[f] ^ second[g] ^ first[h]
    for byte in raw[whole:]:
        checksum = first[(checksum ^ byte) & 0xFF] ^ checksum >> 8
    return checksum


def _checksum_of(file: BinaryIO, size: int) -> int:
    checksum = 0
    left = size
    while left > 0 and (block := file.read(min(_BLOCK, left))):
        checksum = crc64(block, checksum)
        left -= len(block)
    return checksum
