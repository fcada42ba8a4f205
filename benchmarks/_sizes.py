"""What a SQLite file is filled with: the records, and the search index apart from them."""

from pathlib import Path

import apsw
from msgspec import Struct

_MIB = 1024**2


class Sizes(Struct, frozen=True):
    """Bytes of the file's pages. `index`: the full-text tables; `keywords`: the table of keywords and hashes, with its own
    indexes; `vectors`: those of search by meaning, with what made them; `records`: all else that is in use. `text`: bytes of the
    stored values as JSON.
    """

    records: int
    keywords: int
    index: int
    text: int
    vectors: int

    def __str__(self) -> str:
        times = f", {self.index / self.text:.2f} times the text" if self.text else ""
        vectors = f" · vectors {self.vectors / _MIB:.2f} MiB" if self.vectors else ""
        return (
            f"text {self.text / _MIB:.2f} MiB · records {self.records / _MIB:.2f} MiB · "
            f"keywords {self.keywords / _MIB:.2f} MiB · index {self.index / _MIB:.2f} MiB{times}{vectors}"
        )


def sizes(file: Path) -> Sizes:
    """The sizes of a database that nobody writes to. Raises apsw.Error where it cannot be read."""
    connection = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        virtual = [
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE sql LIKE 'CREATE VIRTUAL TABLE%'")
        ]
        table_of = dict(connection.execute("SELECT name, tbl_name FROM sqlite_schema"))
        records = keywords = index = vectors = 0
        for name, pages in connection.execute("SELECT name, sum(pgsize) FROM dbstat GROUP BY name"):
            table = table_of.get(name, name)
            # A virtual table keeps its data in tables of its own name and an ending.
            if any(table.startswith(f"{each}_") for each in virtual):
                index += pages
            elif table == "search_index":
                keywords += pages
            elif table in {"vectors", "models"}:
                vectors += pages
            else:
                records += pages
        [(text,)] = connection.execute("SELECT coalesce(sum(octet_length(value_json)), 0) FROM memories")
        return Sizes(records, keywords, index, text, vectors)
    finally:
        connection.close()
