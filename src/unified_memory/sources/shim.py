"""The files of the HTTP service that stood before extended-memory on port 3009: keys with a JSON value each.

Its SQLite file has the table `memory_store`: `value` is the JSON text that Python's `json.dumps` writes, which has NaN and
lone surrogates where JSON has none, `type` the name of the Python type that it was, times are UTC. An earlier one kept
`memory.json`, an object with a member for each key.
"""

import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar, Self

import apsw
import msgspec
from msgspec import Struct

from unified_memory.model.clock import SECOND, from_rfc3339, to_rfc3339
from unified_memory.model.errors import InvalidInputError, MalformedInputError, SourceError
from unified_memory.model.value import encode, parse
from unified_memory.sources.base import (
    EXTENDED_MEMORY,
    Back,
    Found,
    Item,
    OlderSource,
    Options,
    Quarantined,
    Returned,
    Shape,
    Survey,
)
from unified_memory.sources.sqlite_file import (
    columns,
    encoding,
    open_readonly,
    open_writable,
    pages,
    source_errors,
    token,
    unwritable,
)

_ENTRY = "entry/"
_ROW = "row/"
# What the service calls its backups: the name of its database, `.backup.` and the second.
_BACKUP = re.compile(r"\.backup\.\d{8}_\d{6}\Z")
_ODD_ORIGIN = re.compile(_ROW + r"-?\d{1,18}")
# More digits than these Python makes no integer of, so that the service answers nothing of the value.
_MAX_DIGITS = 4_300
_SHOWN_DIGITS = 40
_COUNT = re.compile(r"\d{1,18}")
_NAMES = ("key", "value", "type", "created_at", "updated_at", "accessed_at", "access_count")
_OWN_FACTS = {"migrated_from", "legacy_type", "legacy_created_at"}

# Texts come as the bytes that they are: not all of them need be UTF-8. A key is followed by the next one by its bytes.
_SELECT = """
SELECT {first}, rowid, CAST(key AS BLOB), typeof(key), CAST(value AS BLOB), typeof(value), CAST(type AS BLOB),
  CAST(created_at AS BLOB), CAST(updated_at AS BLOB), CAST(accessed_at AS BLOB), CAST(access_count AS BLOB)
FROM memory_store WHERE {where}
"""
_BY_KEY = _SELECT.format(
    first="CAST(key AS BLOB)", where="key > CAST(:after AS TEXT) AND typeof(key) = 'text' ORDER BY key"
)
_ODD = _SELECT.format(
    first="rowid", where="rowid > :after AND (key IS NULL OR key = '' OR typeof(key) <> 'text') ORDER BY rowid"
)
_ONE_KEY = _SELECT.format(first="rowid", where="key = :key")
_ONE_ROW = _SELECT.format(first="rowid", where="rowid = :row")


class Entry(Struct, kw_only=True):
    """A key as the service keeps it: `value` JSON text or what stands for it, `type` and times as they are written there."""

    key: str
    value: bytes
    type: str | None
    created_at: str | None = None
    updated_at: str | None = None
    accessed_at: str | None = None
    access_count: int = 0
    notes: tuple[str, ...] = ()


def entry_origin(key: str) -> str:
    """`entry/` and the key, as it is."""
    return _ENTRY + key


def entry_key(origin: str) -> str | None:
    """The key in an origin; None where it is no key's."""
    return origin.removeprefix(_ENTRY) if origin.startswith(_ENTRY) else None


def entry_found(entry: Entry) -> Item | Quarantined:
    """The record that an entry is, or why it cannot be stored."""
    origin = entry_origin(entry.key)
    if entry.type == "pickle":
        reason = "Its value is a Python pickle, and to read one would run what it says"
        return Quarantined(origin=origin, code="pickle", reason=reason, raw=_raw(entry))
    try:
        parsed = parse(entry.value)
    except InvalidInputError as error:
        code, reason = _unfit(entry.value, error)
        return Quarantined(origin=origin, code=code, reason=reason, raw=_raw(entry))
    notes = list(entry.notes)
    huge = next(_huge(parsed), None)
    if huge is not None:
        shown = huge if len(huge) <= _SHOWN_DIGITS else f"{huge[:_SHOWN_DIGITS]}… of {len(huge)} digits"
        notes.append(f"huge: an integer beyond 64 bits: {shown}")
    facts: dict[str, Any] = {}
    if entry.type is not None and entry.type != type_name(parsed):
        facts["legacy_type"] = entry.type
    times = []
    for name, text in (
        ("created_at", entry.created_at),
        ("updated_at", entry.updated_at),
        ("accessed_at", entry.accessed_at),
    ):
        times.append(None if text is None else _instant(text))
        if text is not None and times[-1] is None:
            notes.append(f"malformed: {name} is no instant: {text!r}")
    return Item(
        origin=origin,
        service=EXTENDED_MEMORY,
        shape="entry",
        project=None,
        key=entry.key,
        value=entry.value,
        created_at=times[0],
        updated_at=times[1],
        last_accessed=times[2],
        access_count=entry.access_count,
        facts=facts,
        notes=tuple(notes),
    )


def type_name(parsed: Any) -> str:
    """What the service calls the type of a parsed value."""
    if parsed is None:
        return "none"
    if isinstance(parsed, msgspec.Raw):
        return "float" if set(bytes(parsed)) & set(b".eE") else "int"
    return type(parsed).__name__


class Written(Struct, frozen=True):
    """A value as the service writes it: `text` and `type`; and whether it can answer it, which NaN and the like prevent."""

    text: str
    type: str
    answerable: bool


def written(value: bytes) -> Written:
    """How the service writes that JSON value: blanks after `,` and `:`, ASCII, numbers as Python spells them.

    Where that would change it (a number with more digits than a double has, a name that is repeated), it stays as it is: it
    is read from the file just so. Raises InvalidInputError where it is no JSON.
    """
    parsed = parse(value)
    exact = answerable = True

    def integer(digits: str) -> int:
        nonlocal exact, answerable
        if len(digits.lstrip("-")) > _MAX_DIGITS:
            exact = answerable = False
            return 0
        return int(digits)

    def number(digits: str) -> float:
        nonlocal exact, answerable
        found = float(digits)
        answerable = answerable and not math.isinf(found)
        exact = exact and _is_exactly(digits, found)
        return found

    def members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal exact
        found = dict(pairs)
        exact = exact and len(found) == len(pairs)
        return found

    again = json.loads(value.decode(), parse_int=integer, parse_float=number, object_pairs_hook=members)
    text = json.dumps(again) if exact else value.decode()
    return Written(text, type_name(parsed), answerable)


def _is_exactly(digits: str, number: float) -> bool:
    """Whether that number, as Python spells it, is what the digits say."""
    if math.isinf(number):
        return False
    if number == 0:
        # Its exponent may be any.
        return not set(digits.lower().partition("e")[0]) - set("-0.")
    return Decimal(digits) == Decimal(repr(number))


def entry_losses(back: Back) -> list[str]:
    """What of a record no entry can hold."""
    lost = []
    if back.tags:
        lost.append("Its tags")
    if back.expires_at is not None:
        lost.append("When it expires")
    lost.extend(f"Its metadata {name}" for name in sorted(back.facts.keys() - _OWN_FACTS))
    if back.origin is None and "/" in back.key:
        lost.append("The older service lists a key with a slash, but does not retrieve it")
    return lost


class ShimSQLite(OlderSource):
    """The service's database (SQLITE_PATH), or a backup of it."""

    kind: ClassVar[str] = "extended-memory-http-db"
    takes: ClassVar[str] = "a file"
    service: ClassVar[str] = EXTENDED_MEMORY

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def open(cls, location: str, options: Options) -> Self:  # noqa: ARG003 - there is nothing else to say of a file
        """The file; see Source."""
        source = cls(_path(location))
        with source._connection():
            return source

    def survey(self) -> Survey:
        """Counts by type, and what the service says of itself; see Source."""
        with self._connection() as connection:
            kinds: list[tuple[Any, ...]] = connection.execute(
                "SELECT CAST(type AS BLOB), count(*) FROM memory_store GROUP BY type ORDER BY type"
            ).fetchall()
            about: list[tuple[Any, ...]] = []
            if {"key", "value"} <= columns(connection, "metadata"):
                about = connection.execute(
                    "SELECT CAST(key AS BLOB), CAST(value AS BLOB) FROM metadata ORDER BY key"
                ).fetchall()
            texts, size = encoding(connection), self._path.stat().st_size
        remarks = ["Times there are UTC, those of creation in whole seconds"]
        if kinds:
            remarks.append("Types: " + ", ".join(f"{_shown(name, texts)} {count}" for name, count in kinds))
        if any(_shown(name, texts) == "pickle" for name, _ in kinds):
            remarks.append("Values of type pickle are quarantined, never unpickled")
        remarks.extend(f"Its metadata {_shown(name, texts)}: {_shown(value, texts)}" for name, value in about)
        if _BACKUP.search(self._path.name):
            remarks.append("It is a backup: nothing is written back into it")
        else:
            remarks.append("While the service runs it answers from its cache what it knew: restart it after a return")
        records = sum(count for _, count in kinds)
        return Survey(kind=self.kind, location=str(self._path), records=records, remarks=remarks, bytes=size)

    def read(self) -> Iterator[Found]:
        """Every row, by key; see Source."""
        with self._connection() as connection:
            texts = encoding(connection)
            for query, after in ((_ODD, -(2**63)), (_BY_KEY, b"")):
                for rows in pages(connection, query, after):
                    for row in rows:
                        yield self._found(row, texts)

    def token(self) -> object:
        """See Source."""
        return token(self._path, self.kind)

    def close(self) -> None:
        """See Source. The file is open only while it is used."""

    def lookup(self, origin: str) -> Item | Quarantined | None:
        """The row of that origin; see OlderSource."""
        key = entry_key(origin)
        with self._connection() as connection:
            if key is not None:
                rows = connection.execute(_ONE_KEY, {"key": key}).fetchall() if _is_text(key) else []
            elif _ODD_ORIGIN.fullmatch(origin):
                rows = connection.execute(_ONE_ROW, {"row": int(origin.removeprefix(_ROW))}).fetchall()
            else:
                return None
            return next((self._found(row, encoding(connection)) for row in rows), None)

    def find(self, shape: Shape, project: str | None, key: str) -> str | None:
        """The row of that key; see OlderSource."""
        if shape != "entry" or project is not None or not _is_text(key):
            return None
        with self._connection() as connection:
            found = connection.execute("SELECT 1 FROM memory_store WHERE key = ?", (key,))
            return entry_origin(key) if found.fetchall() else None

    def put_back(self, backs: Sequence[Back]) -> list[Returned]:
        """Writes rows as the service does, all of them in one transaction; see OlderSource."""
        why = self.writable()
        if why is not None:
            raise SourceError(self.kind, str(self._path), why)
        with source_errors(self.kind, self._path):
            connection = open_writable(self._path, self.kind)
            try:
                self._check(connection)
                connection.execute("BEGIN IMMEDIATE")
                returned = [self._put(connection, back) for back in backs]
                connection.execute("COMMIT")
            finally:
                # What is not committed is rolled back.
                connection.close()
        return returned

    def writable(self) -> str | None:
        """See OlderSource."""
        if _BACKUP.search(self._path.name):
            return f"{self._path} is a backup, which the older service does not read"
        return unwritable(self._path)

    @contextmanager
    def _connection(self) -> Iterator[apsw.Connection]:
        with source_errors(self.kind, self._path):
            connection = open_readonly(self._path, self.kind)
            try:
                self._check(connection)
                yield connection
            finally:
                connection.close()

    def _check(self, connection: apsw.Connection) -> None:
        missing = set(_NAMES) - columns(connection, "memory_store")
        if missing:
            detail = "It has no table memory_store with " + ", ".join(sorted(missing))
            hint = "The file is the SQLITE_PATH of the service on port 3009"
            raise SourceError(self.kind, str(self._path), detail, hint=hint)

    def _found(self, row: tuple[Any, ...], texts: str) -> Item | Quarantined:
        _, rowid, key, key_kind, value, value_kind, *others = row
        try:
            name = None if key_kind != "text" else str(key, texts)
        except UnicodeDecodeError:
            name = None
        if name is None:
            return self._malformed(f"{_ROW}{rowid}", "Its key is no text", row)
        if value_kind != "text":
            return self._malformed(entry_origin(name), f"Its value is of the type {value_kind}, not a text", row)
        kind, created, updated, accessed, count = (None if part is None else _shown(part, texts) for part in others)
        accesses = int(count) if count is not None and _COUNT.fullmatch(count) else 0
        return entry_found(
            Entry(
                key=name,
                # A database in UTF-16 holds JSON all the same.
                value=value if texts == "UTF-8" else _shown(value, texts).encode(),
                type=kind,
                created_at=created,
                updated_at=updated,
                accessed_at=accessed,
                access_count=accesses,
                notes=() if count in {None, str(accesses)} else (f"malformed: access_count is {count!r}",),
            )
        )

    def _malformed(self, origin: str, reason: str, row: tuple[Any, ...]) -> Quarantined:
        _, _, key, _, value, value_kind, *others = row
        code = "binary" if value_kind == "blob" else "malformed"
        return Quarantined(origin=origin, code=code, reason=reason, raw=_members_of((key, value, *others)))

    def _put(self, connection: apsw.Connection, back: Back) -> Returned:
        key = entry_key(back.origin) if back.origin is not None else back.key
        if key is None or back.shape != "entry" or back.project is not None:
            return Returned(origin=None, lost=("It is no entry, which is all that the service holds",))
        if back.content is None:
            connection.execute("DELETE FROM memory_store WHERE key = ?", (key,))
            return Returned(origin=None)
        there = connection.execute("SELECT CAST(value AS BLOB) FROM memory_store WHERE key = ?", (key,)).fetchall()
        if not there and not key:
            return Returned(origin=None, lost=("The older service takes no empty key",))
        lost, text = entry_losses(back), written(back.value)
        if not text.answerable:
            lost.append("The older service keeps a number as large as one in it, but cannot answer it")
        if not there:
            connection.execute(
                "INSERT INTO memory_store (key, value, type, created_at, updated_at, accessed_at, access_count)"
                " VALUES (?, ?, ?, ?, ?, ?, 1)",
                (
                    key,
                    text.text,
                    text.type,
                    _time(back.created_at // SECOND * SECOND),
                    _time(back.updated_at),
                    _time(back.created_at),
                ),
            )
        elif there[0][0] != text.text.encode(encoding(connection)):
            connection.execute(
                "UPDATE memory_store SET value = ?, type = ?, updated_at = ? WHERE key = ?",
                (text.text, text.type, _time(back.updated_at), key),
            )
        return Returned(origin=entry_origin(key), lost=tuple(lost))


class ShimJSON(OlderSource):
    """`memory.json` of the earlier service, also where it was renamed `memory.json.migrated`."""

    kind: ClassVar[str] = "extended-memory-http-json"
    takes: ClassVar[str] = "a file"
    service: ClassVar[str] = EXTENDED_MEMORY

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def open(cls, location: str, options: Options) -> Self:  # noqa: ARG003 - there is nothing else to say of a file
        """The file; see Source."""
        source = cls(_path(location))
        source._members()
        return source

    def survey(self) -> Survey:
        """Counts the keys; see Source."""
        text, members, _ = self._members()
        keys = {key for key, _, _ in members}
        remarks = ["It has no times: a memory is taken to be created when the file was last written"]
        if len(keys) < len(members):
            remarks.append(
                f"{len(members) - len(keys)} values stand under a key that comes again, where the last one counts"
            )
        size = len(text.encode("utf-8", "surrogatepass"))
        return Survey(kind=self.kind, location=str(self._path), records=len(members), remarks=remarks, bytes=size)

    def read(self) -> Iterator[Item | Quarantined]:
        """Every member, in order; see Source. What stood under a repeated key before its last place is quarantined."""
        text, members, written_at = self._members()
        last = {key: place for place, (key, _, _) in enumerate(members)}
        for place, (key, begin, end) in enumerate(members):
            if last[key] == place:
                yield _member_found(key, text[begin:end], written_at)
            else:
                reason = f"The key {key!a} comes again further on, and the last one counts"
                yield Quarantined(
                    origin=f"repeated/{place}", code="malformed", reason=reason, raw=_pair(key, text[begin:end])
                )

    def token(self) -> object:
        """See Source."""
        with source_errors(self.kind, self._path):
            about = self._path.stat()
        return about.st_ino, about.st_size, about.st_mtime_ns

    def close(self) -> None:
        """See Source. The file is open only while it is read."""

    def lookup(self, origin: str) -> Item | Quarantined | None:
        """The member of that origin; see OlderSource."""
        return next((found for found in self.read() if found.origin == origin), None)

    def find(self, shape: Shape, project: str | None, key: str) -> str | None:
        """The member of that key; see OlderSource."""
        if shape != "entry" or project is not None:
            return None
        _, members, _ = self._members()
        return entry_origin(key) if any(key == name for name, _, _ in members) else None

    def put_back(self, backs: Sequence[Back]) -> list[Returned]:  # noqa: ARG002 - nothing is written
        """Raises SourceError: see `writable`."""
        raise SourceError(self.kind, str(self._path), str(self.writable()))

    def writable(self) -> str | None:
        """See OlderSource."""
        return f"{self._path} is what an earlier service left; no service reads it again"

    def _members(self) -> tuple[str, list[tuple[str, int, int]], int]:
        """The text, each member's key and where its value begins and ends, and when the file was written."""
        with source_errors(self.kind, self._path), self._path.open("rb") as file:
            written_at = int(self._path.stat().st_mtime_ns // 1_000)
            raw = file.read()
        try:
            text = raw.decode("utf-8-sig")
            return text, list(_object_members(text)), written_at
        except (ValueError, RecursionError) as error:
            detail = f"It is no JSON object: {error}"
            raise SourceError(
                self.kind, str(self._path), detail, hint="Name memory.json or memory.json.migrated"
            ) from None


_BLANKS = re.compile(r"[ \t\n\r]*")
# Keeps of numbers only where they end.
_scanner = json.JSONDecoder(parse_int=str, parse_float=str)


def _object_members(text: str) -> Iterator[tuple[str, int, int]]:
    """Key, begin and end of the value of each member of the object that the text is. Raises ValueError where it is none."""

    def after_blanks(place: int) -> int:
        found = _BLANKS.match(text, place)
        return found.end() if found is not None else place

    def expect(characters: str, place: int) -> str:
        if place >= len(text) or text[place] not in characters:
            raise ValueError(f"one of {characters} is missing at character {place}")
        return text[place]

    place = after_blanks(0)
    expect("{", place)
    place = after_blanks(place + 1)
    ended = text[place : place + 1] == "}"
    while not ended:
        expect('"', place)
        key, place = _scanner.raw_decode(text, place)
        place = after_blanks(place)
        expect(":", place)
        begin = after_blanks(place + 1)
        _, end = _scanner.raw_decode(text, begin)
        yield key, begin, end
        place = after_blanks(end)
        ended = expect(",}", place) == "}"
        if not ended:
            place = after_blanks(place + 1)
    if after_blanks(place + 1) != len(text):
        raise ValueError(f"something follows it at character {place + 1}")


def _member_found(key: str, text: str, written_at: int) -> Item | Quarantined:
    try:
        key.encode()
    except UnicodeEncodeError:
        origin = _ENTRY + json.dumps(key)
        return Quarantined(
            origin=origin, code="surrogate", reason="Its key holds a lone surrogate", raw=_pair(key, text)
        )
    entry = Entry(key=key, value=text.encode("utf-8", "surrogatepass"), type=None)
    found = entry_found(entry)
    if isinstance(found, Item):
        found.created_at = written_at
        return found
    found.raw = _pair(key, text)
    return found


def _pair(key: str, text: str) -> bytes:
    """The member as it stands in the file."""
    return f"{{{json.dumps(key)}: {text}}}".encode("utf-8", "surrogatepass")


def _path(location: str) -> Path:
    if not location or "\0" in location:
        raise InvalidInputError("source", "This kind of source is named by a file")
    return Path(location)


def _unfit(value: bytes, error: InvalidInputError) -> tuple[str, str]:
    """The code and the reason why it is no JSON for us."""
    constants: list[str] = []
    try:
        parsed = json.loads(value.decode(), parse_int=str, parse_constant=constants.append)
    except RecursionError:
        return "unsupported", error.detail
    except ValueError:
        return "malformed", error.detail
    if constants:
        return "nan", f"Its value holds {constants[0]}, which JSON has not"
    try:
        encode(parsed)
    except UnicodeEncodeError:
        return "surrogate", "Its value holds half of a surrogate pair, which no UTF-8 can hold"
    return ("malformed" if isinstance(error, MalformedInputError) else "unsupported"), error.detail


def _huge(parsed: Any) -> Iterator[str]:
    """The digits of every integer that 64 bits cannot hold."""
    if isinstance(parsed, dict):
        parsed = list(parsed.values())
    if isinstance(parsed, list):
        for part in parsed:
            yield from _huge(part)
    elif isinstance(parsed, msgspec.Raw):
        if type_name(parsed) == "int":
            yield bytes(parsed).decode()
    elif isinstance(parsed, int) and not -(2**63) <= parsed < 2**63:
        yield str(parsed)


def _raw(entry: Entry) -> bytes:
    """All of an entry as JSON, its value as the text that it is."""
    return _members_of(tuple(getattr(entry, name) for name in _NAMES))


def _members_of(parts: tuple[Any, ...]) -> bytes:
    return encode(dict(map(_member, zip(_NAMES, parts, strict=True))))


def _member(part: tuple[str, Any]) -> tuple[str, Any]:
    """A member for JSON: bytes as the text that they are, else as hexadecimal digits under another name."""
    name, value = part
    if not isinstance(value, bytes):
        return part
    try:
        return name, value.decode()
    except UnicodeDecodeError:
        return f"{name}_hex", value.hex()


def _instant(text: str) -> int | None:
    try:
        return from_rfc3339(text)
    except ValueError:
        return None


def _time(instant: int) -> str:
    """`2025-01-03 06:05:01.189673`; without the fraction where it is none."""
    return to_rfc3339(instant).replace("T", " ").removesuffix("Z").removesuffix(".000000")


def _shown(text: bytes | None, texts: str = "UTF-8") -> str:
    """A text of the database; what is not of its encoding is escaped."""
    return "" if text is None else text.decode(texts, "backslashreplace")


def _is_text(key: str) -> bool:
    """Whether it is UTF-8: a text with a lone surrogate is no key in a database."""
    try:
        key.encode()
    except UnicodeEncodeError:
        return False
    return True
