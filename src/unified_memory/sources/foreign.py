"""What readers of other programs have in common: their texts, JSON and times judged, JSON files taken apart, paths made."""

import contextlib
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

import apsw
import msgspec
from msgspec import Struct

from unified_memory.model.errors import InvalidInputError, MalformedInputError, SourceError
from unified_memory.model.namespace import MAX_SEGMENT_BYTES, MAX_SEGMENTS
from unified_memory.model.value import encode, parse
from unified_memory.sources.base import Quarantined
from unified_memory.sources.rows import SECONDS, instant
from unified_memory.sources.sqlite_file import source_errors

_PIECE = 1 << 20
_SHOWN_DIGITS = 40
# Of an integer of 64 bits.
_LEAST = -(2**63)
_MOST = 2**63 - 1
# All that matters to where a part of JSON ends: outside of texts, and in them.
_SIGNS = re.compile(rb'["{}\[\],:]')
_TEXT_SIGNS = re.compile(rb'["\\]')
_BLANKS = b" \t\r\n"
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029/%]|^\s|\s$")
_DOTS = {"": "%", ".": "%2E", "..": "%2E%2E"}


class UnfitError(Exception):
    """Why something cannot be stored here as it is: `code` and `reason` of Quarantined."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason

    def quarantined(self, origin: str, raw: bytes) -> Quarantined:
        """The record of that origin, put aside for this."""
        return Quarantined(origin=origin, code=self.code, reason=self.reason, raw=raw)


def text_of(raw: bytes | None, what: str, encoding: str = "utf-8") -> str:
    """The text that the bytes are. Raises UnfitError where they are none; `what` begins the sentence, as "Its content"."""
    if raw is None:
        raise UnfitError("malformed", f"{what} is missing")
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        raise UnfitError("binary", f"{what} is no text: {error.reason} at byte {error.start}") from None


def json_of(raw: bytes, what: str) -> Any:
    """The parsed JSON as `model.value.parse` gives it. Raises UnfitError where it is none that can be stored."""
    try:
        return parse(raw)
    except InvalidInputError as error:
        raise UnfitError(*_why(raw, what, error)) from None


def object_of(raw: bytes) -> dict[str, Any]:
    """The parsed JSON object. Raises UnfitError where it is none that can be stored."""
    parsed = json_of(raw, "It")
    if not isinstance(parsed, dict):
        raise UnfitError("malformed", "It is no JSON object")
    return parsed


def text_in(members: Mapping[str, Any], name: str) -> str:
    """The text that a member is, not an empty one. Raises UnfitError."""
    text = members.get(name)
    if not isinstance(text, str) or not text:
        raise UnfitError("malformed", f"It has no text named {name}")
    return text


def plain(parsed: Any) -> Any:
    """Parsed JSON with every number an int or a float, for facts; one that 64 bits cannot hold is the text of its digits."""
    if isinstance(parsed, dict):
        return {name: plain(part) for name, part in parsed.items()}
    if isinstance(parsed, list):
        return [plain(part) for part in parsed]
    if isinstance(parsed, int):
        return parsed if _LEAST <= parsed <= _MOST else str(parsed)
    if not isinstance(parsed, msgspec.Raw):
        return parsed
    digits = bytes(parsed).decode()
    number = float(digits)
    return number if math.isfinite(number) and Decimal(repr(number)) == Decimal(digits) else digits


def huge_integers(parsed: Any) -> tuple[str, ...]:
    """A note on the first integer that 64 bits cannot hold, in JSON that is parsed; none where there is none."""
    for digits in _huge(parsed):
        shown = digits if len(digits) <= _SHOWN_DIGITS else f"{digits[:_SHOWN_DIGITS]}… of {len(digits)} digits"
        return (f"huge: an integer beyond 64 bits: {shown}",)
    return ()


def instant_of(value: Any) -> int | None:
    """Microseconds of an ISO 8601 text (without an offset it is UTC) or of seconds since the epoch; None where it is neither."""
    if isinstance(value, msgspec.Raw):
        value = float(bytes(value))
    return None if isinstance(value, bool) else instant(value, SECONDS)


def row_text(row: Mapping[str, Any]) -> bytes:
    """A row as JSON, for the quarantine: bytes as the text that they are, else in Base64."""
    members: dict[str, Any] = {}
    for name, value in row.items():
        members[name] = value
        if isinstance(value, bytes):
            with contextlib.suppress(UnicodeDecodeError):
                members[name] = value.decode()
    return encode(members)


def one_row(connection: apsw.Connection, query: str) -> tuple[Any, ...]:
    """The one row that the query gives."""
    found: list[tuple[Any, ...]] = connection.execute(query).fetchall()
    [row] = found
    return row


def namespace_below(root: str, parts: Sequence[str]) -> str:
    """A namespace below `root`, a segment for each part: what no segment can hold is percent-encoded, the empty part is `%`.

    Parts beyond the sixteenth segment share the last one, `%,` between them. Of a part that is too long the beginning stands,
    and a hash of all of it. Different parts make different namespaces. Raises UnicodeEncodeError for a lone surrogate.
    """
    room = MAX_SEGMENTS - 1 - root.count("/")
    named = [_segment(part) for part in parts]
    if len(named) > room:
        named[room - 1 :] = [_fitting("%,".join(named[room - 1 :]))]
    return "/".join([root, *named])


class Part(Struct):
    """A part of a JSON file: the element at `index` of the array that the member `name` is, or (None) all of a member.

    `name` is None where the file itself is an array. `whole`: whether the file holds all of it.
    """

    name: str | None
    index: int | None
    raw: bytes
    whole: bool = True


def parts_of(file: BinaryIO) -> Iterator[Part]:
    """The elements of a JSON file that is an array; the members of one that is an object, an array among them by its elements.

    No more of it is held than one part and a piece of 1 MiB. The parts are not judged: each may be no JSON. Where the file
    ends too early the last one is not `whole`. Raises UnfitError where it is neither array nor object.
    """
    return _Splitter(file).parts()


class _Splitter:
    """Follows brackets and quotes, and nothing else, so that one odd part does not hide the others."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        # Arrays and objects that are open; of the outer two the kind is needed.
        self._open: list[int] = []
        self._name: str | None = None
        self._index: int | None = None
        self._part = bytearray()
        self._closed = False

    def parts(self) -> Iterator[Part]:
        quoted = escaped = False
        started = False
        while piece := self._file.read(_PIECE):
            if not started:
                piece = piece.removeprefix(b"\xef\xbb\xbf").lstrip(_BLANKS)
                if not piece:
                    continue
                if piece[:1] not in {b"[", b"{"}:
                    raise UnfitError("malformed", "It is neither a JSON array nor a JSON object")
                started = True
            place = 0
            while place < len(piece):
                if escaped:
                    self._part += piece[place : place + 1]
                    place += 1
                    escaped = False
                    continue
                found = (_TEXT_SIGNS if quoted else _SIGNS).search(piece, place)
                if found is None:
                    self._part += piece[place:]
                    break
                self._part += piece[place : found.start()]
                place = found.end()
                sign = found[0]
                if quoted or sign == b'"':
                    self._part += sign
                    escaped = sign == b"\\"
                    quoted = quoted != (sign == b'"')
                elif self._closed:
                    self._part += sign
                else:
                    yield from self._sign(sign)
        if not started:
            raise UnfitError("malformed", "It is empty")
        if self._open or self._part.strip(_BLANKS):
            yield from self._ended(whole=False)

    def _sign(self, sign: bytes) -> Iterator[Part]:
        depth = len(self._open)
        at_elements = depth == 1 and self._open[0] == ord("[")
        in_member = depth == 1 and self._open[0] == ord("{")
        in_array = depth == 2 and self._open == [ord("{"), ord("[")] and self._index is not None  # noqa: PLR2004
        if sign in b"[{":
            self._open.append(ord(sign))
            if depth == 0:
                self._part.clear()
                self._index = 0 if sign == b"[" else None
                return
            if in_member and sign == b"[" and not self._part.strip(_BLANKS) and self._name is not None:
                self._part.clear()
                self._index = 0
                return
            self._part += sign
        elif sign in b"]}":
            self._open.pop()
            self._closed = not self._open
            if in_array or at_elements or in_member:
                yield from self._ended(whole=True)
                if in_array:
                    self._index = None
                    self._name = None
            else:
                self._part += sign
        elif sign == b"," and (at_elements or in_array or in_member):
            yield from self._ended(whole=True)
        elif sign == b":" and in_member and self._name is None:
            self._name = _name(bytes(self._part))
            self._part.clear()
        else:
            self._part += sign

    def _ended(self, *, whole: bool) -> Iterator[Part]:
        raw = bytes(self._part).strip(_BLANKS)
        self._part.clear()
        if raw or not whole:
            yield Part(self._name, self._index, raw, whole)
        if self._index is not None:
            self._index += 1
        else:
            self._name = None


def path_of(location: str) -> Path:
    """The path that a location is. Raises InvalidInputError naming `source` where it cannot be one."""
    if not location or "\0" in location:
        raise InvalidInputError("source", "This kind of source is named by a path")
    return Path(location)


def size_of(path: Path, kind: str) -> int:
    """The bytes of a file. Raises SourceError where it is gone."""
    with source_errors(kind, path):
        return path.stat().st_size


def check_file(path: Path, kind: str) -> None:
    """Raises SourceError where it is no file."""
    with source_errors(kind, path):
        if not path.is_file():
            raise SourceError(kind, str(path), "It is no file" if path.exists() else "There is no such file")


def opened(path: Path, kind: str) -> BinaryIO:
    """The file, to be read. Raises SourceError where it is none."""
    check_file(path, kind)
    with source_errors(kind, path):
        return path.open("rb")


def file_token(path: Path, kind: str) -> tuple[int, ...]:
    """Equal as long as the file was not written. Raises SourceError where it is gone."""
    with source_errors(kind, path):
        about = path.stat()
    return about.st_ino, about.st_size, about.st_mtime_ns


def _name(raw: bytes) -> str:
    try:
        name = json.loads(raw)
    except ValueError:
        return raw.decode("utf-8", "replace").strip()
    return str(name)


def _why(raw: bytes, what: str, error: InvalidInputError) -> tuple[str, str]:
    constants: list[str] = []
    try:
        parsed = json.loads(raw, parse_int=str, parse_float=str, parse_constant=constants.append)
    except RecursionError:
        return "unsupported", f"{what} is nested too deep"
    except ValueError:
        return "malformed", f"{what} is not JSON"
    if constants:
        return "nan", f"{what} holds {constants[0]}, which JSON has not"
    if not isinstance(error, MalformedInputError):
        return "unsupported", error.detail
    try:
        encode(parsed)
    except UnicodeEncodeError:
        return "surrogate", f"{what} holds half of a surrogate pair, which no UTF-8 can hold"
    return "malformed", f"{what} is not JSON"


def _huge(parsed: Any) -> Iterator[str]:
    if isinstance(parsed, dict):
        parsed = list(parsed.values())
    if isinstance(parsed, list):
        for part in parsed:
            yield from _huge(part)
    elif isinstance(parsed, msgspec.Raw):
        digits = bytes(parsed)
        if digits.lstrip(b"-").isdigit():
            yield digits.decode()
    elif isinstance(parsed, int) and not _LEAST <= parsed <= _MOST:
        yield str(parsed)


def _segment(part: str) -> str:
    name = _DOTS.get(part)
    if name is not None:
        return name
    escaped = _UNFIT.sub(lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode()), part)
    return _fitting(escaped)


def _fitting(name: str) -> str:
    if len(name.encode()) <= MAX_SEGMENT_BYTES:
        return name
    digest = hashlib.blake2b(name.encode(), digest_size=16).hexdigest()
    # One that is cut ends in a `%` and a hash, as no other does.
    kept = name.encode()[: MAX_SEGMENT_BYTES - len(digest) - 1].decode(errors="ignore")
    return f"{kept}%{digest}"
