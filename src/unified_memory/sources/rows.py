"""Rows of another program's tables as its columns happen to be: versions of one program differ in them."""

from collections.abc import Iterator
from typing import Any

import apsw
import msgspec
from msgspec import Struct

from unified_memory.model.clock import FIRST_INSTANT, LAST_INSTANT, SECOND, from_rfc3339
from unified_memory.model.value import encode
from unified_memory.sources.sqlite_file import columns, page

# What a unit of an integer time is in microseconds.
SECONDS = SECOND
MILLISECONDS = SECOND // 1000
_BEFORE_ALL = -(2**63)


class Table(Struct, frozen=True):
    """A table, with the queries that read it: all after a row, their numbers alone, and how many there are."""

    name: str
    query: str
    numbers: str
    count: str


class Row:
    """One row. A column that this version does not have, or that holds NULL, is None."""

    def __init__(self, number: int, cells: dict[str, Any]) -> None:
        self.number = number
        self._cells = cells

    def __getitem__(self, name: str) -> Any:
        """What the column holds: text, a number, or bytes where it is a BLOB or no UTF-8."""
        return self._cells.get(name)

    def text(self, name: str) -> str | None:
        """The column where it is a text and not empty."""
        cell = self[name]
        return cell if isinstance(cell, str) and cell else None

    def json(self, name: str) -> Any:
        """The JSON that the text of a column is, and the text itself where it is none."""
        return parsed(self[name])

    def tags(self, name: str) -> tuple[str, ...]:
        """The texts of the JSON array in a column, each once, without blank ones."""
        found = self.json(name)
        texts = found if isinstance(found, list) else []
        return tuple(dict.fromkeys(text for text in texts if isinstance(text, str) and text.strip()))

    def binary(self) -> list[str]:
        """The names of the columns whose bytes are no text."""
        return [name for name, cell in self._cells.items() if isinstance(cell, bytes)]

    def cells(self) -> dict[str, Any]:
        """All columns by name."""
        return dict(self._cells)

    def without(self, *names: str) -> "Row":
        """The row but for these columns."""
        return Row(self.number, {name: cell for name, cell in self._cells.items() if name not in names})

    def raw(self) -> bytes:
        """All of it as JSON; bytes in Base64."""
        return encode(self._cells)

    def facts(self, *names: str) -> dict[str, Any]:
        """These columns where they hold something, under their own names."""
        return {name: self[name] for name in names if self[name] not in {None, ""}}


def rows(connection: apsw.Connection, table: Table) -> Iterator[Row]:
    """Every row of a table by pages; none where there is no such table."""
    # A hidden column of 1 is one that * leaves out.
    named = connection.execute("SELECT name FROM pragma_table_xinfo(?) WHERE hidden <> 1 ORDER BY cid", (table.name,))
    names = [str(name) for (name,) in named]
    after = _BEFORE_ALL
    while names:
        try:
            batch = page(connection, table.query, {"after": after})
        except UnicodeDecodeError:
            batch = [_next(connection, table, names, after)]
        if not batch:
            return
        for number, *cells in batch:
            yield Row(number, dict(zip(names, cells, strict=True)))
        after = batch[-1][0]


def counted(connection: apsw.Connection, table: Table) -> int:
    """How many rows it has; 0 where there is no such table."""
    if not columns(connection, table.name):
        return 0
    return total(connection, table.count)


def total(connection: apsw.Connection, query: str) -> int:
    """The number that a query answers with."""
    count: Any = connection.execute(query).get
    return int(count)


def _next(connection: apsw.Connection, table: Table, names: list[str], after: int) -> tuple[Any, ...]:
    """The next row of a page in which some text is no UTF-8: in its own row that text as bytes, and None for numbers."""
    try:
        return page(connection, table.query, {"after": after}, 1)[0]
    except UnicodeDecodeError:
        [(number,)] = page(connection, table.numbers, {"after": after}, 1)
    return (number, *(_cell(connection, table, name, number) for name in names))


def _cell(connection: apsw.Connection, table: Table, name: str, number: int) -> Any:
    try:
        with connection.blob_open("main", table.name, name, number, False) as blob:  # noqa: FBT003 - to be read only
            content = blob.read()
    except apsw.SQLError:
        # A number, or NULL.
        return None
    try:
        return content.decode()
    except UnicodeDecodeError:
        return content


def parsed(text: Any) -> Any:
    """The JSON that a text is; anything else as it is."""
    if not isinstance(text, str):
        return text
    try:
        found = msgspec.json.decode(text)
        # Metadata is packed so, and has no integers beyond 64 bits.
        msgspec.msgpack.encode(found)
    except (msgspec.DecodeError, OverflowError, RecursionError):
        return text
    return found


def instant(cell: Any, unit: int) -> int | None:
    """The instant in a column: a number of units since 1970, or a text in RFC 3339 or as SQLite writes it (UTC).

    None where it is none.
    """
    if isinstance(cell, str):
        try:
            return from_rfc3339(cell)
        except ValueError:
            return None
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return None
    # NaN and the infinities are in no range.
    if not FIRST_INSTANT <= cell * unit <= LAST_INSTANT:
        return None
    return round(cell * unit)
