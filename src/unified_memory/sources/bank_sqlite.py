"""The database of the memory bank of PyPI (memory-bank-mcp 0.0.1): the table `files`, a row a file, without times."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import apsw

from unified_memory.model.errors import InvalidInputError, SourceError
from unified_memory.model.value import encode
from unified_memory.sources.bank_files import BANK_IMPORTANCE, bank_losses, bank_names, bank_origin
from unified_memory.sources.base import (
    MEMORY_BANK,
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

_COLUMNS = {"id", "project_name", "file_name", "content"}
# What has no pair of texts to name it is named by its id.
_ROW = re.compile(r"row/(-?\d{1,18})")
_FIRST = -(2**63)
# Texts come as the bytes that they are: not all of them need be UTF-8.
_SELECT = """
SELECT id, typeof(project_name), CAST(project_name AS BLOB), typeof(file_name), CAST(file_name AS BLOB),
  typeof(content), CAST(content AS BLOB)
FROM files
"""
_PAGE = _SELECT + "WHERE id > :after ORDER BY id"
_ONE = _SELECT + "WHERE project_name = ? AND file_name = ?"
_ONE_ROW = _SELECT + "WHERE id = ?"


class BankSQLite(OlderSource):
    """The database that DB_PATH names, or `memory_bank.db` in the directory in which the server was started."""

    kind: ClassVar[str] = "memory-bank-sqlite"
    takes: ClassVar[str] = "a file"
    service: ClassVar[str] = MEMORY_BANK

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def open(cls, location: str, options: Options) -> Self:  # noqa: ARG003 - there is nothing else to say of a file
        """The file; see Source."""
        if not location or "\0" in location:
            raise InvalidInputError("source", "This kind of source is named by a file")
        source = cls(Path(location))
        with source._connection():
            return source

    def survey(self) -> Survey:
        """Counts the files by project; see Source."""
        projects: dict[str, int] = {}
        with self._connection() as connection:
            texts = encoding(connection)
            for project, count in connection.execute(
                "SELECT CAST(project_name AS BLOB), count(*) FROM files GROUP BY project_name"
            ):
                shown = (project or b"").decode(texts, "backslashreplace")
                projects[shown] = projects.get(shown, 0) + count
            ((empty,),) = connection.execute("SELECT count(*) FROM files WHERE content IS NULL").fetchall()
            size = self._path.stat().st_size
        remarks = ["It has no times: a memory is taken to be created when it is copied"]
        if empty:
            remarks.append(f"{empty} files have no content at all (NULL) and are quarantined")
        records = sum(projects.values())
        return Survey(
            kind=self.kind, location=str(self._path), records=records, projects=projects, remarks=remarks, bytes=size
        )

    def read(self) -> Iterator[Found]:
        """Every row, by id; see Source."""
        with self._connection() as connection:
            texts = encoding(connection)
            for rows in pages(connection, _PAGE, _FIRST):
                for row in rows:
                    yield self._found(row, texts)

    def token(self) -> object:
        """See Source."""
        return token(self._path, self.kind)

    def close(self) -> None:
        """See Source. The file is open only while it is used."""

    def lookup(self, origin: str) -> Item | Quarantined | None:
        """The row of that origin; see OlderSource."""
        odd = _ROW.fullmatch(origin)
        with self._connection() as connection:
            if odd is not None:
                rows = connection.execute(_ONE_ROW, (int(odd[1]),)).fetchall()
            else:
                names = _names(origin)
                rows = [] if names is None else connection.execute(_ONE, names).fetchall()
            return next((self._found(row, encoding(connection)) for row in rows), None)

    def find(self, shape: Shape, project: str | None, key: str) -> str | None:
        """The row of that file in that project; see OlderSource."""
        if shape != "file" or project is None:
            return None
        origin = bank_origin(project.encode("utf-8", "surrogatepass"), key.encode("utf-8", "surrogatepass"))
        return None if self.lookup(origin) is None else origin

    def put_back(self, backs: Sequence[Back]) -> list[Returned]:
        """Inserts, updates and deletes rows, all of them in one transaction; see OlderSource."""
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
        missing = _COLUMNS - columns(connection, "files")
        if missing:
            detail = "It has no table files with " + ", ".join(sorted(missing))
            raise SourceError(self.kind, str(self._path), detail, hint="The file is the DB_PATH of memory-bank-mcp")

    def _found(self, row: tuple[Any, ...], texts: str) -> Item | Quarantined:
        number, project_kind, project, name_kind, name, kind, content = row
        shown = _text(project, texts) if project_kind == "text" else None
        key = _text(name, texts) if name_kind == "text" else None
        if shown is None or key is None:
            reason = f"The names {project!a} and {name!a} are no texts"
            return Quarantined(origin=f"row/{number}", code="malformed", reason=reason, raw=content or b"")
        origin = bank_origin(shown.encode(), key.encode())
        if content is None:
            reason = "It has no content, not even an empty one (NULL): the older tools say that there is no such file"
            raw = encode({"project_name": shown, "file_name": key, "content": None})
            return Quarantined(origin=origin, code="unsupported", reason=reason, raw=raw)
        text = _text(content, texts) if kind == "text" else None
        if text is None:
            return Quarantined(origin=origin, code="binary", reason="Its content is no text", raw=content)
        return Item(
            origin=origin,
            service=self.service,
            shape="file",
            project=shown,
            key=key,
            value=encode(text),
            importance=BANK_IMPORTANCE,
        )

    def _put(self, connection: apsw.Connection, back: Back) -> Returned:
        names = _names(back.origin) if back.origin is not None else None
        if names is None:
            if back.shape != "file" or back.project is None:
                return Returned(
                    origin=None, lost=("It is no file of a project, which is all that a memory bank holds",)
                )
            names = back.project, back.key
        if back.content is None:
            connection.execute("DELETE FROM files WHERE project_name = ? AND file_name = ?", names)
            return Returned(origin=None)
        # An upsert would count the id on, and so write even where nothing changes.
        row = next(
            iter(connection.execute("SELECT id FROM files WHERE project_name = ? AND file_name = ?", names)), None
        )
        if row is None:
            connection.execute(
                "INSERT INTO files (project_name, file_name, content) VALUES (?, ?, ?)", (*names, back.content)
            )
        else:
            connection.execute(
                "UPDATE files SET content = :content WHERE id = :id AND content IS NOT :content",
                {"id": row[0], "content": back.content},
            )
        return Returned(origin=bank_origin(*map(str.encode, names)), lost=tuple(bank_losses(back)))


def _names(origin: str) -> tuple[str, str] | None:
    """The project and the file in an origin; None where it names no texts."""
    names = bank_names(origin)
    try:
        return None if names is None else (names[0].decode(), names[1].decode())
    except UnicodeDecodeError:
        return None


def _text(raw: bytes, texts: str) -> str | None:
    try:
        return raw.decode(texts)
    except UnicodeDecodeError:
        return None
