"""Compares everything that is stored with everything that should be, and derives again what is derived."""

from array import array
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, Protocol, TypeVar
from zlib import crc32

import apsw

from unified_memory.model.analysis import index_text
from unified_memory.model.errors import UnifiedMemoryError
from unified_memory.model.search import describe
from unified_memory.storage.base import Problem, Progress
from unified_memory.storage.sqlite import past
from unified_memory.storage.sqlite.connection import Database, Tokenizer
from unified_memory.storage.sqlite.languages import Languages
from unified_memory.storage.sqlite.rows import IS_WARM, RECORD, SIZE, memory_of
from unified_memory.storage.sqlite.scopes import scope_tokens
from unified_memory.storage.sqlite.transaction import Transaction, keywords_text

T = TypeVar("T")
CHUNK = 200
PROGRESS_EVERY = 500
# Ids up to so many times as many as there are memories lie close together.
SPARSE = 8
# FTS5 cuts longer terms off (FTS5_MAX_TOKEN_SIZE).
MAX_TERM_BYTES = 32_768


class Read(Protocol):
    """Runs a longer read."""

    def __call__(self, work: Callable[[Database], T], /) -> Awaitable[T]: ...


class Write(Protocol):
    """Runs work in a transaction of the writer."""

    def do(self, work: Callable[[Transaction], T]) -> Awaitable[T]: ...


class _Found:
    """What is wrong, and which memories are to be derived again."""

    def __init__(self) -> None:
        self.problems: list[tuple[Problem, bool]] = []
        self.again: set[int] = set()
        self.orphans: list[tuple[str, int]] = []
        self.counts = False
        self.text_broken = False
        self.indexes_broken = False
        self.sessions = False
        # (bytes, memory) of stubs.
        self.sizes: list[tuple[int, int]] = []

    def say(self, where: str, detail: str, *, derived: bool) -> None:
        """`derived`: what is wrong can be derived again."""
        self.problems.append((Problem(where, detail), derived))

    def say_of(self, number: int, where: str, detail: str) -> None:
        """What is derived of that memory is wrong."""
        self.say(where, detail, derived=True)
        self.again.add(number)


class _Sums:
    """A sum for each memory, 0 for most. Of ids that lie close together each takes eight bytes, of others ten times that."""

    def __init__(self, last_id: int, memories: int) -> None:
        dense = last_id <= SPARSE * memories
        self._dense = array("Q", bytes(8 * (last_id + 1))) if dense else array("Q")
        self._others: dict[int, int] = {}

    def add(self, number: int, amount: int) -> None:
        """Adds to the sum of a memory, which may be none that there is."""
        if 0 <= number < len(self._dense):
            self._dense[number] += amount
        else:
            self._others[number] = self._others.get(number, 0) + amount

    def take(self, number: int) -> int:
        """The sum of a memory, which is 0 from now on."""
        if 0 <= number < len(self._dense):
            found, self._dense[number] = self._dense[number], 0
            return found
        return self._others.pop(number, 0)

    def left(self) -> Iterator[int]:
        """The memories whose sums were not taken."""
        yield from (number for number, amount in enumerate(self._dense) if amount)
        yield from self._others


async def check_all(
    read: Read, write: Write, damaged: dict[int, str], *, fix: bool, progress: Progress | None
) -> list[Problem]:
    """See `Storage.check`. `damaged` is filled while a cold value is read that cannot be: why, by memory."""
    found = await read(lambda connection: _look(connection, damaged, progress))
    if fix:
        await _mend(write, found)
    return [problem for problem, _ in found.problems]


def _look(connection: Database, damaged: dict[int, str], progress: Progress | None) -> _Found:
    found = _Found()
    for (line,) in connection.execute("PRAGMA integrity_check"):
        if line == "ok":
            continue
        of_text, of_index = "fts5" in line.lower(), "index" in line
        found.text_broken |= of_text
        found.indexes_broken |= of_index and not of_text
        found.say("database", line, derived=of_text or of_index)
    total = connection.execute("SELECT count(*) FROM memories").get
    last_id = connection.execute("SELECT coalesce(max(id), 0) FROM memories").get
    actual = _Sums(last_id, total)
    _add_index_terms(connection, actual, found)
    tags = _Sums(last_id, total)
    _add_tags(connection, tags)
    tokenizer = connection.fts5_tokenizer("porter", ["unicode61", "remove_diacritics", "2"])
    spoken = Languages().now(connection)
    # What waits to be indexed again stands there as it was.
    waiting = dict(connection.execute("SELECT memory_id, language FROM stale_text").fetchall())
    found.again |= waiting.keys()
    done = 0
    for row in connection.execute(
        f"""SELECT {RECORD}, m.namespace_id, n.deleted_name, s.keywords, s.content_hash, {SIZE},
              (SELECT 1 FROM sessions x WHERE x.namespace_id = m.namespace_id AND x.id = m.session_id)
            FROM memories m LEFT JOIN namespaces n ON n.id = m.namespace_id LEFT JOIN search_index s ON s.memory_id = m.id
            ORDER BY m.id"""  # noqa: S608 - fixed columns
    ):
        held = actual.take(row[0]) or None
        if row[3] is None:
            why = damaged.get(row[0], "it is in no archive and not in the database")
            found.say(f"memory {row[0]} ({row[1]}: {row[2]})", f"Its value cannot be read: {why}", derived=False)
            tags.take(row[0])
            found.again.discard(row[0])
            done += 1
            continue
        # What a deleted namespace held does too, and its language is no longer told.
        language = waiting.get(row[0], None if row[1] is None else spoken.of(row[1])) or None
        _check_memory(row, held, tags.take(row[0]), tokenizer, language, found)
        done += 1
        if progress is not None and done % PROGRESS_EVERY == 0:
            progress(done, total)
    for number in actual.left():
        found.say(
            f"index of memory {number}", "The full-text index has words of a memory that is not there", derived=True
        )
        found.orphans.append(("DELETE FROM memory_text WHERE rowid = ?", number))
    _check_orphans(connection, found)
    _check_counts(connection, found)
    for number, version, why in past.problems(connection):
        found.say(f"version {version} of memory {number}", why, derived=False)
    if progress is not None:
        progress(done, total)
    return found


def _check_memory(
    row: tuple[Any, ...],
    index_sum: int | None,
    tag_sum: int,
    tokenizer: Tokenizer,
    language: str | None,
    found: _Found,
) -> None:
    """`language`: in which its words are indexed, None where it is not known."""
    number, name = row[:2]
    namespace_id, deleted, keywords, digest, size, session = row[-6:]
    where = f"memory {number} ({name or deleted}: {row[2]})"
    if name is None and deleted is None:
        found.say(where, f"Its namespace {namespace_id} is not there", derived=False)
        return
    memory = memory_of(row)
    if size != len(memory.value):
        found.say(where, f"It says {size} bytes of value, and has {len(memory.value)}", derived=True)
        found.sizes.append((len(memory.value), number))
    try:
        told = describe(memory.key, memory.attributes, memory.parsed())
        own_tags = memory.tags
    except (UnifiedMemoryError, ValueError) as error:
        found.say(where, f"The record is damaged: {error}", derived=False)
        return
    indexed_alike = True
    if language is not None:
        # A deleted namespace keeps the tokens of its former name until it is purged.
        columns = (
            index_text(told.text, language),
            index_text(told.title_text, language),
            scope_tokens(name or deleted),
        )
        indexed_alike = index_sum == _sum(_terms(tokenizer, columns))
    if digest is not None and digest != told.content_hash and not indexed_alike and not found.text_broken:
        # Neither its hash nor its words are what was stored: it is the value that has changed, and no one knows from what.
        found.say(
            where, "The value is not the one that was stored: it has neither its hash nor its words", derived=False
        )
        return
    if digest != told.content_hash:
        found.say_of(number, where, "The value does not have the hash that is kept of it")
    elif keywords != keywords_text(told.keywords):
        found.say_of(number, where, "Its keywords are not those of the record")
    if tag_sum != sum(map(_tag_sum, set(own_tags))):
        found.say_of(number, where, "The tags beside it are not those of the record")
    if not indexed_alike:
        found.say_of(number, where, "The full-text index does not have the record's words")
    if memory.session_id is not None and session is None:
        found.say(where, f"Its session {memory.session_id!r} is not listed", derived=True)
        found.sessions = True


def _tag_sum(tag: str) -> int:
    return crc32(tag.encode()) + 1


def _add_tags(connection: Database, sums: _Sums) -> None:
    """Adds up the tags beside each memory."""
    for number, tag in connection.execute(
        "SELECT mt.memory_id, t.name FROM memory_tags mt JOIN tags t ON t.id = mt.tag_id"
    ):
        sums.add(number, _tag_sum(tag))


def _terms(tokenizer: Tokenizer, columns: tuple[str, ...]) -> Iterator[tuple[str, str, int]]:
    for column, text in zip(("body", "title", "scope"), columns, strict=True):
        for offset, token in enumerate(tokenizer(text.encode(), apsw.FTS5_TOKENIZE_DOCUMENT, None)):
            yield token[2], column, offset


def _sum(terms: Iterator[tuple[str, str, int]]) -> int | None:
    total = None
    for term, column, offset in terms:
        total = (total or 0) + _term_sum(term.encode()[:MAX_TERM_BYTES], column, offset)
    return total


def _term_sum(term: bytes, column: str, offset: int) -> int:
    return crc32(b"%b\0%b\0%d" % (term, column.encode(), offset)) + 1


def _add_index_terms(connection: Database, sums: _Sums, found: _Found) -> None:
    """Adds up all terms of the index with column and place, memory by memory."""
    # A view on the index for this connection alone; nothing of the database is written.
    connection.execute("PRAGMA query_only = OFF")
    connection.execute(
        "CREATE VIRTUAL TABLE IF NOT EXISTS temp.index_terms USING fts5vocab(main, memory_text, instance)"
    )
    connection.execute("PRAGMA query_only = ON")
    try:
        for term, number, column, offset in connection.execute(
            "SELECT CAST(term AS BLOB), doc, col, offset FROM temp.index_terms"
        ):
            sums.add(number, _term_sum(term, column, offset))
    except apsw.CorruptError as error:
        found.text_broken = True
        found.say("full-text index", f"It cannot be read: {error}", derived=True)


def _check_orphans(connection: Database, found: _Found) -> None:
    for table, delete in (
        ("search_index", "DELETE FROM search_index WHERE memory_id = ?"),
        ("memory_tags", "DELETE FROM memory_tags WHERE memory_id = ?"),
        ("vectors", "DELETE FROM vectors WHERE memory_id = ?"),
        ("archived", "DELETE FROM archived WHERE memory_id = ?"),
    ):
        for (number,) in connection.execute(
            f"SELECT DISTINCT memory_id FROM {table} WHERE memory_id NOT IN (SELECT id FROM memories)"  # noqa: S608 - two fixed names
        ):
            found.say(f"{table} of memory {number}", "The memory is not there", derived=True)
            found.orphans.append((delete, number))
    for (number,) in connection.execute(
        f"SELECT a.memory_id FROM archived a JOIN memories m ON m.id = a.memory_id WHERE {IS_WARM} > 0"  # noqa: S608
    ):
        found.say(f"memory {number}", "It has its value, and is said to lie in an archive", derived=True)
        found.orphans.append(("DELETE FROM archived WHERE memory_id = ?", number))
    for (number,) in connection.execute(
        "SELECT v.memory_id FROM vectors v LEFT JOIN models o ON o.id = v.model_id WHERE length(v.code) IS NOT o.length"
    ):
        found.say(f"vectors of memory {number}", "It is none that its model makes", derived=True)
        found.orphans.append(("DELETE FROM vectors WHERE memory_id = ?", number))


COUNTS = f"SELECT m.namespace_id, count(*) AS memories, total({SIZE}) AS bytes FROM memories m GROUP BY m.namespace_id"  # noqa: S608


def _check_counts(connection: Database, found: _Found) -> None:
    for name, memories, size, have, have_bytes in connection.execute(
        f"SELECT n.name, n.memories, n.bytes, coalesce(c.memories, 0), coalesce(c.bytes, 0)"  # noqa: S608 - a fixed query
        f" FROM namespaces n LEFT JOIN ({COUNTS}) c ON c.namespace_id = n.id"
        " WHERE n.name IS NOT NULL AND (n.memories <> coalesce(c.memories, 0) OR n.bytes <> coalesce(c.bytes, 0))"
    ):
        found.say(
            f"namespace {name}",
            f"It says {memories} memories of {size} bytes, and holds {have} of {int(have_bytes)}",
            derived=True,
        )
        found.counts = True
    last_id, last_seq = connection.execute("SELECT last_id, last_seq FROM counters").get
    top_id, top_seq = connection.execute("SELECT coalesce(max(id), 0), coalesce(max(seq), 0) FROM memories").get
    if top_id > last_id or top_seq > last_seq:
        found.say("counters", f"They say {last_id}, {last_seq}; there are {top_id}, {top_seq}", derived=True)
        found.counts = True


async def _mend(write: Write, found: _Found) -> None:
    if found.indexes_broken:
        await write.do(Transaction.restore_indexes)
    if found.text_broken:
        await write.do(Transaction.rebuild)
    again = sorted(found.again)
    for start in range(0, len(again), CHUNK):
        part = again[start : start + CHUNK]
        await write.do(partial(Transaction.derive, numbers=part))
    if found.orphans:
        await write.do(lambda tx: [tx.connection.execute(sql, (number,)) for sql, number in found.orphans])
    if found.sizes:
        await write.do(
            lambda tx: tx.connection.executemany("UPDATE archived SET bytes = ? WHERE memory_id = ?", found.sizes)
        )
    if found.sessions:
        await write.do(
            lambda tx: tx.connection.execute(
                "INSERT OR IGNORE INTO sessions (namespace_id, id, created_at, last_used)"
                " SELECT namespace_id, session_id, min(created_at), max(updated_at) FROM memories"
                " WHERE session_id IS NOT NULL GROUP BY 1, 2"
            )
        )
    if found.counts:
        await write.do(_recount)
    for problem, derived in found.problems:
        problem.fixed = derived


def _recount(tx: Transaction) -> None:
    tx.flush_use()
    tx.connection.execute(
        f"UPDATE namespaces SET (memories, bytes) = (SELECT c.memories, CAST(c.bytes AS INTEGER) FROM ({COUNTS}) c"  # noqa: S608
        f" WHERE c.namespace_id = namespaces.id) WHERE id IN (SELECT namespace_id FROM memories)"
    )
    tx.connection.execute(
        "UPDATE namespaces SET memories = 0, bytes = 0 WHERE id NOT IN (SELECT namespace_id FROM memories)"
    )
    top_id, top_seq = tx.connection.execute("SELECT coalesce(max(id), 0), coalesce(max(seq), 0) FROM memories").get
    tx.last_id, tx.last_seq = max(tx.last_id, top_id), max(tx.last_seq, top_seq)
    tx.connection.execute("UPDATE counters SET last_id = ?, last_seq = ?", (tx.last_id, tx.last_seq))
