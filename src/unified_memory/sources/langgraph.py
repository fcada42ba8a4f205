"""The long-term memory of LangGraph: the table `store` of langgraph-checkpoint-sqlite's SqliteStore."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import apsw

from unified_memory.model.errors import SourceError
from unified_memory.sources import foreign
from unified_memory.sources.base import Found, Item, Options, Source, Survey
from unified_memory.sources.foreign import UnfitError
from unified_memory.sources.sqlite_file import columns, encoding, open_readonly, page, source_errors, tables, token

ROOT = "migrated_langgraph"
_NAMES = (
    "prefix",
    "key",
    "prefix_type",
    "key_type",
    "value",
    "type",
    "created_at",
    "updated_at",
    "expires_at",
    "ttl_minutes",
)
_TTL = frozenset({"expires_at", "ttl_minutes"})
# The columns of the time to live came later.
_NEEDED = frozenset({"prefix", "key", "value", "created_at", "updated_at"})
# Bytes, so that a text which is none is seen as it lies there. The pair is the primary key; a blob comes after every text.
_FIRST = """SELECT CAST(prefix AS BLOB), CAST(key AS BLOB), typeof(prefix), typeof(key), CAST(value AS BLOB), typeof(value),
    CAST(created_at AS BLOB), CAST(updated_at AS BLOB), CAST(expires_at AS BLOB), CAST(ttl_minutes AS REAL)
    FROM store ORDER BY prefix, key"""
_FOLLOWING = _FIRST.replace(
    "ORDER BY",
    """WHERE (prefix, key) > (
        CASE :prefix_type WHEN 'blob' THEN :prefix ELSE CAST(:prefix AS TEXT) END,
        CASE :key_type WHEN 'blob' THEN :key ELSE CAST(:key AS TEXT) END
    ) ORDER BY""",
)
_PLACE = _NAMES[:4]
_WITHOUT_TTL = ("CAST(expires_at AS BLOB), CAST(ttl_minutes AS REAL)", "NULL, NULL")


class LangGraph(Source):
    """A SqliteStore. A namespace of it is a path below `migrated_langgraph`, its parts the segments."""

    kind: ClassVar[str] = "langgraph"
    takes: ClassVar[str] = "a file"

    def __init__(self, path: Path, options: Options) -> None:
        self._path = path
        self._options = options

    @classmethod
    def open(cls, location: str, options: Options) -> Self:
        """The file; see Source."""
        source = cls(foreign.path_of(location), options)
        with source._connection():
            pass
        return source

    def survey(self) -> Survey:
        """Counts the records, and those that expire; see Source."""
        with self._connection() as connection:
            (records,) = foreign.one_row(connection, "SELECT count(*) FROM store")
            projects = {
                str(prefix, encoding(connection), "replace"): count
                for prefix, count in connection.execute(
                    "SELECT CAST(prefix AS BLOB), count(*) FROM store GROUP BY prefix"
                )
            }
            remarks = ["Each of its namespaces is a path below migrated_langgraph"]
            if self._has_ttl(connection):
                (expiring,) = foreign.one_row(connection, "SELECT count(expires_at) FROM store")
                if expiring:
                    kept = (
                        "expire here too" if self._options.keep_ttl else "are kept for good here; keep_ttl changes that"
                    )
                    remarks.append(f"{expiring} records have a time to live there, and {kept}")
            if "store_vectors" in tables(connection):
                remarks.append("Embeddings are not carried: ours are made anew")
        return Survey(
            kind=self.kind,
            location=str(self._path),
            records=records,
            projects=projects,
            remarks=remarks,
            bytes=foreign.size_of(self._path, self.kind),
        )

    def read(self) -> Iterator[Found]:
        """Every record, in the order of namespace and key; see Source."""
        with self._connection() as connection:
            texts = encoding(connection)
            first, following = _FIRST, _FOLLOWING
            if not self._has_ttl(connection):
                first, following = first.replace(*_WITHOUT_TTL), following.replace(*_WITHOUT_TTL)
            rows = page(connection, first, {})
            while rows:
                for row in rows:
                    yield self._found(dict(zip(_NAMES, row, strict=True)), texts)
                rows = page(connection, following, dict(zip(_PLACE, rows[-1], strict=False)))

    def token(self) -> object:
        """See Source."""
        return token(self._path, self.kind)

    def close(self) -> None:
        """See Source. The file is open only while it is read."""

    @contextmanager
    def _connection(self) -> Iterator[apsw.Connection]:
        with source_errors(self.kind, self._path):
            connection = open_readonly(self._path, self.kind)
            try:
                missing = _NEEDED - columns(connection, "store")
                if missing:
                    detail = "It has no table store with " + ", ".join(sorted(missing))
                    raise SourceError(self.kind, str(self._path), detail, hint="The file is that of a SqliteStore")
                yield connection
            finally:
                connection.close()

    @staticmethod
    def _has_ttl(connection: apsw.Connection) -> bool:
        return columns(connection, "store") >= _TTL

    def _found(self, row: dict[str, Any], texts: str) -> Found:
        try:
            prefix, key = (_text(row, name, texts) for name in ("prefix", "key"))
        except UnfitError as unfit:
            return unfit.quarantined(f"row/{row['prefix'].hex()}/{row['key'].hex()}", foreign.row_text(row))
        # No `/` of the prefix, so that it is seen where it ends.
        origin = prefix.replace("%", "%25").replace("/", "%2F") + "/" + key
        try:
            # A text of a database in UTF-16 holds JSON all the same.
            value = foreign.text_of(row["value"], "Its value", texts if row["type"] == "text" else "utf-8").encode()
            parsed = foreign.json_of(value, "Its value")
        except UnfitError as unfit:
            return unfit.quarantined(origin, foreign.row_text(row))
        created_at, updated_at, expires = (
            None if row[name] is None else row[name].decode(texts, "backslashreplace")
            for name in ("created_at", "updated_at", "expires_at")
        )
        parts = prefix.split(".")
        facts: dict[str, Any] = {"langgraph_namespace": parts, "langgraph_key": key}
        expires_at = foreign.instant_of(expires)
        if expires is not None and not (self._options.keep_ttl and expires_at is not None):
            facts["langgraph_expires_at"] = expires
        if row["ttl_minutes"] is not None:
            facts["langgraph_ttl_minutes"] = row["ttl_minutes"]
        return Item(
            origin=origin,
            service=self.kind,
            shape="record",
            project=None,
            key=key,
            value=value,
            created_at=foreign.instant_of(created_at),
            updated_at=foreign.instant_of(updated_at),
            expires_at=expires_at if self._options.keep_ttl else None,
            namespace=foreign.namespace_below(ROOT, parts),
            facts=facts,
            notes=foreign.huge_integers(parsed),
        )


def _text(row: dict[str, Any], name: str, texts: str) -> str:
    if row[f"{name}_type"] == "blob":
        raise UnfitError("binary", f"Its {name} is no text")
    return foreign.text_of(row[name], f"Its {name}", texts)
