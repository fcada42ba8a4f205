"""The contract on SQLite: point reads on the event loop, longer reads on a few threads, writes through the one writer."""

import asyncio
import contextlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TypeVar

import apsw
import msgspec

from unified_memory.model.clock import Clock, SystemClock
from unified_memory.model.errors import (
    ArchiveMissingError,
    ConflictError,
    MemoryNotFoundError,
    StorageBusyError,
    StorageCorruptError,
    StorageError,
)
from unified_memory.model.found import SearchRequest, SearchResult
from unified_memory.model.history import Event, Keeping, Past
from unified_memory.model.job import Job, JobState
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import Namespace, NamespaceConfig, contains, inherit
from unified_memory.model.query import Field, Page, Scalar, Selection
from unified_memory.model.session import Session, WithMemories
from unified_memory.storage.base import (
    Access,
    Change,
    Code,
    Edit,
    Group,
    Idempotency,
    NamespaceUse,
    Outcome,
    Problem,
    Progress,
    Reading,
    Redacted,
    Replayed,
    Stats,
    Storage,
    TagUse,
    VectorCounts,
    VectorNews,
)
from unified_memory.storage.dump import LAPSED, Difference, Row, Snapshot, Takeover
from unified_memory.storage.sqlite import feed, past, search, stubs, trust, vectors
from unified_memory.storage.sqlite import takeover as takeovers
from unified_memory.storage.sqlite.check import check_all
from unified_memory.storage.sqlite.cold import Cold
from unified_memory.storage.sqlite.connection import (
    Database,
    check_directory,
    connect,
    prepare,
    storage_errors,
    translate,
)
from unified_memory.storage.sqlite.dumping import SQLiteSnapshot
from unified_memory.storage.sqlite.filters import Binding, condition, group_expression, order_terms, select_scope
from unified_memory.storage.sqlite.languages import Languages
from unified_memory.storage.sqlite.restoring import Aside, Restoring, sweep
from unified_memory.storage.sqlite.rows import (
    GET,
    IS_WARM,
    JOB,
    RECORD,
    SESSION,
    SIZE,
    WHOLE,
    job_of,
    memory_of,
    session_of,
)
from unified_memory.storage.sqlite.texts import Texts
from unified_memory.storage.sqlite.transaction import Transaction
from unified_memory.storage.sqlite.writer import Writer
from unified_memory.storage.warm import ArchiveUse, ColdValues, Demotable, Place, TierUses, Trust, Warm

T = TypeVar("T")
Bound = Sequence[Binding]
FROM = "FROM memories m JOIN namespaces n ON n.id = m.namespace_id"
VISIBLE = "(m.expires_at IS NULL OR m.expires_at > ?)"
GET_ID = f"SELECT {RECORD} {FROM} WHERE m.id = ? AND n.name IS NOT NULL AND {VISIBLE}"
# Of a JSON array of ids, in its order.
GET_IDS = (
    f"SELECT {RECORD} FROM json_each(?) AS j CROSS JOIN memories m ON m.id = j.value"  # noqa: S608 - fixed columns
    " CROSS JOIN namespaces n ON n.id = m.namespace_id ORDER BY j.key"
)
# The row stays where it is: a page of jobs goes on behind it.
PUT_JOB = (
    f"INSERT INTO jobs ({JOB}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO UPDATE SET "  # noqa: S608
    + ", ".join(f"{name} = excluded.{name}" for name in JOB.split(", "))
)
IS_COLD = (
    f"SELECT {IS_WARM} = 0 FROM memories m WHERE m.namespace_id = (SELECT id FROM namespaces WHERE name = ?)"  # noqa: S608
    " AND m.key = ?"
)
# Keys that changed since a place in the commit order; a moved memory's former key has a tombstone.
CHANGED = (
    "SELECT n.name, m.key FROM memories m JOIN namespaces n ON n.id = m.namespace_id WHERE m.seq > ?1 AND n.name IS NOT NULL"
    " UNION ALL SELECT namespace, key FROM tombstones WHERE seq > ?1"
)
# So many changes are told one by one.
MAX_TOLD = 500
# Of a read whose archive was compacted away meanwhile.
TRIES = 3
LOOP_CACHE_KIB = 8_192
READER_CACHE_KIB = 4_096
WRITER_CACHE_KIB = 16_384

_config = msgspec.json.Decoder(NamespaceConfig)
_encode = msgspec.json.Encoder().encode


class SQLiteStorage(Warm):
    """Memories in one SQLite file at `path`; any number of processes may open it.

    `readers`: threads for longer reads. `program`: written beside each schema step that this program carries out. `cold`: reads
    values that lie in archives. `keeping`: how much of the past is kept where a namespace says nothing. `beside`: the directory
    of a database that is begun aside, and is not durable before another one takes it over.
    """

    def __init__(
        self,
        path: Path,
        *,
        readers: int = 2,
        program: str = "unified-memory",
        clock: Clock | None = None,
        cold: ColdValues | None = None,
        keeping: Keeping | None = None,
        beside: Aside | None = None,
    ) -> None:
        self.path = path
        self.beside = beside
        self._restoring = Restoring()
        self._readers = readers
        self._program = program
        self._clock = clock or SystemClock()
        self._keeping = keeping or Keeping()
        self._languages = Languages()
        self._texts = Texts()
        self._cold = Cold(cold)
        self._point: Database | None = None
        self._writer: Writer | None = None
        self._pool: ThreadPoolExecutor | None = None
        self._cold_pool: ThreadPoolExecutor | None = None
        self._idle: SimpleQueue[Database] = SimpleQueue()

    # ---- one's own life
    async def open(self) -> None:
        check_directory(self.path.parent)
        if self.beside is None:
            await asyncio.to_thread(sweep, self.path)
        with storage_errors():
            prepare(self.path, self._clock.now(), self._program)
            self._point = connect(self.path, cache_kib=LOOP_CACHE_KIB)
            self._writer = Writer(
                self.path,
                cache_kib=WRITER_CACHE_KIB,
                cold=self._cold,
                clock=self._clock,
                keeping=self._keeping,
                synced=self.beside is None,
            )
        self._pool = ThreadPoolExecutor(self._readers, thread_name_prefix="unified-memory-reader")
        # Of their own: where archives are far away, lists and searches of the warm tier do not wait for them.
        self._cold_pool = ThreadPoolExecutor(self._readers, thread_name_prefix="unified-memory-cold")

    async def close(self) -> None:
        if self._writer is not None:
            await self._writer.close()
            self._writer = None
        if self._pool is not None:
            await asyncio.to_thread(self._pool.shutdown)
            self._pool = None
        if self._cold_pool is not None:
            await asyncio.to_thread(self._cold_pool.shutdown)
            self._cold_pool = None
        while not self._idle.empty():
            self._idle.get().close()
        if self._point is not None:
            self._point.close()
            self._point = None

    async def probe(self) -> None:
        stamp = self._clock.now()
        await self._write.do(lambda tx: tx.connection.execute("UPDATE counters SET probe = ?", (stamp,)))
        with storage_errors():
            self._read_point("SELECT probe FROM counters")

    async def shrink(self) -> None:
        while await self._write.do(Transaction.vacuum):
            pass
        await self._write.truncate()

    async def forget(self) -> None:
        more = await self._write.do(lambda tx: tx.merge(first=True))
        while more:
            more = await self._write.do(lambda tx: tx.merge(first=False))
        await self.shrink()

    async def size(self) -> int | None:
        return await asyncio.to_thread(files_size, self.path)

    @property
    def _write(self) -> Writer:
        if self._writer is None:
            raise StorageError("The storage is not open")
        return self._writer

    def _read_point(self, sql: str, bound: Bound = ()) -> tuple[Binding, ...] | None:
        return self._point_connection().execute(sql, bound).fetchone()

    def _point_connection(self) -> Database:
        if self._point is None:
            raise StorageError("The storage is not open")
        return self._point

    async def _read(
        self, work: Callable[[Database], T], reading: Reading | None = None, *, pool: ThreadPoolExecutor | None = None
    ) -> T:
        """Runs a longer read on a reader thread, in one read transaction: all of it sees one instant."""
        if self._pool is None:
            raise StorageError("The storage is not open")
        return await asyncio.get_running_loop().run_in_executor(pool or self._pool, self._on_reader, work, reading)

    def _on_reader(self, work: Callable[[Database], T], reading: Reading | None) -> T:
        with storage_errors():
            if self._idle.empty():
                connection = connect(self.path, cache_kib=READER_CACHE_KIB)
                search.register(connection)
                self._cold.register(connection)
            else:
                connection = self._idle.get()
            self._cold.begin()
            try:
                for _ in range(TRIES - 1):
                    # An archive that was compacted away while we read: what it held lies elsewhere now.
                    with contextlib.suppress(ArchiveMissingError):
                        return self._in_transaction(connection, work)
                return self._in_transaction(connection, work)
            finally:
                if reading is not None:
                    reading.cold += self._cold.counted()
                self._idle.put(connection)

    @staticmethod
    def _in_transaction(connection: Database, work: Callable[[Database], T]) -> T:
        try:
            connection.execute("BEGIN")
            return work(connection)
        finally:
            if connection.in_transaction:
                connection.execute("COMMIT")

    # ---- memories
    async def get(self, namespace: str, key: str, now: int) -> Memory | None:
        point = self._point
        if point is None:
            raise StorageError("The storage is not open")
        try:
            row = point.execute(GET, (namespace, key, now)).fetchone()
        except apsw.Error as error:
            raise translate(error) from error
        if row is None:
            return None
        memory = Memory(*row)
        return memory if memory.value else await self._cold_read(namespace, key, now)

    async def get_many(self, refs: Sequence[tuple[str, str]], now: int) -> list[Memory | None]:
        def work(connection: Database) -> list[Memory | None]:
            return [_whole(connection, *ref, now) for ref in refs]

        return await self._read(work)

    async def get_by_id(self, ids: Sequence[int], now: int) -> list[Memory | None]:
        def work(connection: Database) -> list[Memory | None]:
            rows = (connection.execute(GET_ID, (number, now)).fetchone() for number in ids)
            return [None if row is None else memory_of(row) for row in rows]

        return await self._read(work)

    async def edit(
        self, edits: Sequence[Edit], now: int, *, idempotency: Idempotency | None = None
    ) -> list[Outcome] | Replayed:
        # What is replaced stays as a former version, so its value is asked for too.
        archived = self._write.archived
        await self._fetch_ahead([(edit.namespace, edit.key) for edit in edits if edit.whole or archived], now)
        if len(edits) == 1 and idempotency is None:
            only = edits[0]
            return await self._write.do(lambda tx: [tx.edit(only, now)], edits, alone=True)
        return await self._write.do(lambda tx: tx.edit_all(edits, now, idempotency), edits)

    async def move(
        self, source: tuple[str, str], target: tuple[str, str], now: int, *, expected_version: int | None = None
    ) -> Memory:
        await self._fetch_ahead([source], now)
        return await self._write.do(lambda tx: tx.move(source, target, now, expected_version))

    async def _fetch_ahead(self, refs: Sequence[tuple[str, str]], now: int) -> None:
        """Reads cold values that a write will ask for, so that it finds them at hand and keeps no other writer waiting."""
        with storage_errors():
            cold = [ref for ref in refs if (row := self._read_point(IS_COLD, ref)) is not None and row[0]]
        for ref in cold:
            # What cannot be read can be replaced all the same; whatever needs it is told so when it asks.
            with contextlib.suppress(StorageCorruptError):
                await self._cold_read(*ref, now)

    async def _cold_read(self, namespace: str, key: str, now: int) -> Memory | None:
        return await self._read(lambda connection: _whole(connection, namespace, key, now), pool=self._cold_pool)

    async def select(self, selection: Selection, now: int, *, reading: Reading | None = None) -> Page[Memory]:
        return await self._read(lambda connection: _select(connection, selection, now), reading)

    async def count(self, selection: Selection, now: int, *, reading: Reading | None = None) -> int:
        where, bound = _where(selection, now)
        return await self._read(
            lambda connection: int(connection.execute(f"SELECT count(*) {FROM} WHERE {where}", bound).get), reading
        )

    async def group(
        self, selection: Selection, field: Field, now: int, limit: int, *, reading: Reading | None = None
    ) -> list[Group]:
        return await self._read(lambda connection: _group(connection, selection, field, now, limit), reading)

    async def tag_uses(self, scopes: tuple[str, ...], now: int) -> list[TagUse]:
        scope, bound = select_scope(scopes, recursive=True)
        sql = (
            "SELECT t.name, count(*) AS uses, max(m.created_at) AS newest FROM memories m"  # noqa: S608 - from the compiler
            " JOIN namespaces n ON n.id = m.namespace_id JOIN memory_tags mt ON mt.memory_id = m.id"
            f" JOIN tags t ON t.id = mt.tag_id WHERE {scope} AND {VISIBLE}"
            " GROUP BY t.id ORDER BY uses DESC, newest DESC, t.name"
        )
        return await self._read(lambda connection: [TagUse(*row) for row in connection.execute(sql, (*bound, now))])

    async def last_seq(self) -> int:
        with storage_errors():
            row = self._read_point("SELECT last_seq FROM counters")
        return 0 if row is None else int(str(row[0]))

    async def changes(self, after: int, limit: int) -> list[Change]:
        sql = (
            "SELECT * FROM (SELECT m.seq, n.name, m.key, m.version, 0 FROM memories m JOIN namespaces n ON n.id = m.namespace_id"
            " WHERE m.seq > ?1 AND n.name IS NOT NULL ORDER BY m.seq LIMIT ?2)"
            " UNION ALL SELECT * FROM (SELECT seq, namespace, key, version, 1 FROM tombstones t WHERE seq > ?1 AND NOT EXISTS"
            " (SELECT 1 FROM memories m JOIN namespaces n ON n.id = m.namespace_id WHERE n.name = t.namespace AND m.key = t.key)"
            " ORDER BY seq LIMIT ?2) ORDER BY 1 LIMIT ?2"
        )
        return await self._read(
            lambda connection: [
                Change(seq, namespace, key, version, deleted=bool(deleted))
                for seq, namespace, key, version, deleted in connection.execute(sql, (after, limit))
            ]
        )

    async def feed(self, after: int, limit: int) -> list[Event]:
        return await self._read(lambda connection: feed.read(connection, after, limit))

    async def prune_feed(self, before: int, limit: int) -> int:
        return await self._write.do(lambda tx: feed.prune(tx.settled(), before, limit))

    async def search(self, request: SearchRequest, now: int, *, reading: Reading | None = None) -> SearchResult:
        if not request.scopes:
            return SearchResult([])
        return await self._read(
            lambda connection: search.find(connection, request, now, self._languages, self._texts), reading
        )

    async def refresh_index(self, limit: int) -> int:
        waiting = self._read_point("SELECT EXISTS (SELECT 1 FROM stale_text)")
        if waiting is None or not waiting[0]:
            return 0
        return await self._write.do(lambda tx: tx.refresh(limit))

    async def index_entry(self, memory: Memory) -> tuple[str, list[str]]:
        with storage_errors():
            row = self._read_point(
                "SELECT hex(content_hash), keywords FROM search_index WHERE memory_id = ?", (memory.id,)
            )
        if row is None:
            raise MemoryNotFoundError(memory.namespace, memory.key)
        return str(row[0]).lower(), json.loads(str(row[1]))

    async def touch(self, accesses: Sequence[Access]) -> None:
        await self._write.do(lambda tx: tx.touch(accesses))

    async def expire(self, now: int, limit: int) -> list[tuple[str, int]]:
        return await self._write.do(lambda tx: tx.expire(now, limit))

    # ---- the past
    async def past(self, namespace: str, key: str, now: int, *, before: int | None, limit: int) -> list[Past]:
        return await self._read(lambda connection: past.heads(connection, namespace, key, now, before, limit))

    async def past_version(self, namespace: str, key: str, version: int, now: int) -> Past | None:
        return await self._read(lambda connection: past.version(connection, namespace, key, version, now))

    async def as_of(self, namespace: str, key: str, instant: int, now: int) -> Memory | None:
        return await self._read(lambda connection: past.as_of(connection, namespace, key, instant, now))

    async def redact(self, namespace: str, key: str, version: int | None, now: int) -> Redacted:
        return await self._write.do(lambda tx: tx.redact(namespace, key, version, now))

    async def prune_past(
        self, scopes: tuple[str, ...], *, recursive: bool, keep: int | None, before: int | None, limit: int
    ) -> int:
        scope = select_scope(scopes, recursive=recursive)
        # Nobody who writes waits for the look at all of it.
        chosen = await self._read(lambda connection: past.prunable(connection, scope, keep, before, limit))
        return await self._write.do(lambda tx: past.prune(tx.settled(), chosen)) if chosen else 0

    async def shrink_past(self, limit: int) -> int:
        waiting = self._read_point("SELECT EXISTS (SELECT 1 FROM past WHERE coding = 0)")
        if waiting is None or not waiting[0]:
            return 0
        return await self._write.do(lambda tx: past.shrink(tx.settled(), limit))

    # ---- vectors
    async def unembedded(self, model: str, now: int, after_seq: int, limit: int) -> list[Memory]:
        return await self._read(lambda connection: vectors.unembedded(connection, model, now, after_seq, limit))

    async def put_vectors(self, model: str, codes: Sequence[Code]) -> int:
        return await self._write.do(lambda tx: tx.put_vectors(model, codes))

    async def vector_news(
        self, model: str, scopes: tuple[str, ...], *, recursive: bool, after_place: int, after_seq: int, limit: int
    ) -> VectorNews:
        scope = select_scope(scopes, recursive=recursive)
        return await self._read(
            lambda connection: vectors.news(connection, model, scope, (after_place, after_seq), limit)
        )

    async def with_vectors(self, model: str, ids: Sequence[int], now: int) -> set[int]:
        return await self._read(lambda connection: vectors.held(connection, model, ids, now))

    async def vector_counts(self, model: str, now: int) -> VectorCounts:
        return await self._read(lambda connection: vectors.counts(connection, model, now))

    async def drop_vectors(self, keep: str | None, limit: int) -> int:
        return await self._write.do(lambda tx: tx.drop_vectors(keep, limit))

    # ---- stubs
    async def demotable(
        self, scopes: tuple[str, ...], now: int, *, recursive: bool, used_before: int, limit: int
    ) -> list[Demotable]:
        scope = select_scope(scopes, recursive=recursive)
        return await self._read(lambda connection: stubs.demotable(connection, scope, now, used_before, limit))

    async def stub_ids(
        self, scopes: tuple[str, ...], now: int, *, recursive: bool, after_id: int, limit: int
    ) -> list[int]:
        scope = select_scope(scopes, recursive=recursive)
        return await self._read(lambda connection: stubs.of_scope(connection, scope, now, after_id, limit))

    async def tier_uses(
        self, scopes: tuple[str, ...], now: int, *, recursive: bool, used_before: int | None = None
    ) -> TierUses:
        scope = select_scope(scopes, recursive=recursive)
        return await self._read(lambda connection: stubs.uses(connection, scope, now, used_before))

    async def archive_token(self, proposed: str) -> str:
        with storage_errors():
            row = self._read_point("SELECT archive_token FROM counters")
        if row is None or row[0] or not proposed:
            return "" if row is None else str(row[0])
        return await self._write.do(lambda tx: stubs.token(tx.connection, proposed))

    async def reserve_archive(self, name: str, now: int) -> None:
        await self._write.do(lambda tx: stubs.reserve(tx.connection, name, now))

    async def put_stubs(self, archive: str, places: Sequence[Place]) -> tuple[int, int]:
        return await self._write.do(lambda tx: tx.put_stubs(archive, places))

    async def publish_archive(self, name: str, memories: int, bytes_raw: int, bytes_stored: int, now: int) -> None:
        await self._write.do(lambda tx: stubs.publish(tx.connection, name, memories, bytes_raw, bytes_stored, now))

    async def take_back(self, values: Sequence[tuple[int, int, bytes]]) -> tuple[int, int]:
        return await self._write.do(lambda tx: tx.take_back(values))

    async def archives(self) -> list[ArchiveUse]:
        return await self._read(stubs.archives)

    async def stubs(self, archive: str, after_id: int, limit: int) -> list[Place]:
        return await self._read(lambda connection: stubs.of_archive(connection, archive, after_id, limit))

    async def move_stubs(self, source: str, target: str, places: Sequence[Place]) -> int:
        return await self._write.do(lambda tx: tx.move_stubs(source, target, places))

    async def retire_archive(self, name: str, now: int) -> bool:
        return await self._write.do(lambda tx: stubs.retire(tx.connection, name, now))

    async def forget_archive(self, name: str) -> bool:
        return await self._write.do(lambda tx: stubs.forget(tx.connection, name))

    # ---- hot copies
    def stamp(self) -> int:
        """Differs whenever any process has changed a memory or a namespace since; see `storage.process.Changes`."""
        with storage_errors():
            row = self._read_point("SELECT (last_seq << 20) + (epoch & 1048575) FROM counters")
        return 0 if row is None else int(str(row[0]))

    def changed(self, since: int) -> tuple[int, list[tuple[str, str]] | None]:
        """The keys that changed since a stamp, and the stamp now; None where that is all, or too much to tell."""
        now = self.stamp()
        if (now - since) % (1 << 20):
            return now, None
        seq = since >> 20
        if (now >> 20) - seq > MAX_TOLD:
            return now, None
        with storage_errors():
            point = self._point_connection()
            rows = point.execute(CHANGED, (seq,)).fetchall()
        return now, [(str(row[0]), str(row[1])) for row in rows]

    def mute_with_writes(self, node: str) -> None:
        self._write.mute_with_writes(node)

    @property
    def copies_used(self) -> bool:
        return self._write.copies_used

    async def trust(self, now: int) -> Trust:
        with storage_errors():
            row = self._read_point(trust.TRUST, (now,))
        if row is None:
            raise StorageError("The row of counters is not there")
        return trust.trust_of(row)

    async def begin_era(self, expected: str, era: str, servers: Sequence[str], now: int) -> Trust:
        return await self._write.do(lambda tx: trust.begin(tx.connection, expected, era, servers, now))

    async def mute(self, node: str, now: int, until: int) -> None:
        await self._write.do(lambda tx: trust.mute(tx.connection, node, now, until))

    # ---- namespaces
    async def get_namespace(self, name: str, now: int) -> Namespace | None:
        found = await self._read(lambda connection: _namespaces(connection, (name,), now))
        return next((one for one in found if one.name == name), None)

    async def put_namespace(
        self, name: str, config: NamespaceConfig, now: int, *, create: bool, limit: int = 0
    ) -> Namespace:
        await self._write.do(lambda tx: tx.put_namespace(name, config, now, create=create, limit=limit))
        namespace = await self.get_namespace(name, now)
        if namespace is None:
            raise StorageError("The namespace was deleted meanwhile")
        return namespace

    async def list_namespaces(
        self, scopes: tuple[str, ...], now: int, *, depth: int | None, limit: int, after: str | None
    ) -> Page[Namespace]:
        found = await self._read(lambda connection: _namespaces(connection, scopes, now))
        if depth is not None:
            found = _fold_namespaces(found, scopes, depth)
        found = [one for one in found if after is None or one.name > after]
        return Page(found[:limit], (found[limit - 1].name, 0) if len(found) > limit else None)

    async def delete_namespace(self, name: str, now: int, *, recursive: bool) -> list[int]:
        return await self._write.do(lambda tx: tx.delete_namespace(name, now, recursive=recursive))

    async def purge(self, ticket: int, now: int, limit: int) -> int:
        return await self._write.do(lambda tx: tx.purge(ticket, now, limit))

    async def dead_namespaces(self) -> list[int]:
        return await self._read(
            lambda connection: [
                row[0]
                for row in connection.execute(
                    "SELECT id FROM namespaces d WHERE deleted_name IS NOT NULL"
                    " AND (EXISTS (SELECT 1 FROM memories m WHERE m.namespace_id = d.id)"
                    " OR EXISTS (SELECT 1 FROM sessions s WHERE s.namespace_id = d.id)"
                    " OR EXISTS (SELECT 1 FROM past p WHERE p.namespace_id = d.id))"
                )
            ]
        )

    async def rename_namespace(self, source: str, target: str, now: int) -> int:
        return await self._write.do(lambda tx: tx.rename_namespace(source, target, now))

    # ---- sessions
    async def get_session(self, namespace: str, session_id: str, now: int) -> Session | None:
        with storage_errors():
            row = self._read_point(
                f"SELECT {SESSION} FROM sessions s JOIN namespaces n ON n.id = s.namespace_id WHERE n.name = ? AND s.id = ?",  # noqa: S608
                (now, namespace, session_id),
            )
        return None if row is None else session_of(row)

    async def put_session(self, session: Session) -> Session:
        return await self._write.do(lambda tx: tx.put_session(session))

    async def touch_sessions(self, refs: Sequence[tuple[str, str]], now: int) -> None:
        await self._write.do(lambda tx: tx.touch_sessions(refs, now))

    async def list_sessions(
        self,
        scopes: tuple[str, ...],
        now: int,
        *,
        recursive: bool,
        cluster_id: str | None,
        active: bool | None,
        limit: int,
        after: tuple[Scalar, int] | None,
    ) -> Page[Session]:
        scope, bound = select_scope(scopes, recursive=recursive)
        sql = f"SELECT {SESSION}, s.rowid FROM sessions s JOIN namespaces n ON n.id = s.namespace_id WHERE {scope}"  # noqa: S608
        values = [now, *bound]
        if cluster_id is not None:
            sql, values = sql + " AND s.cluster_id = ?", [*values, cluster_id]
        if active is not None:
            living = "(s.ended_at IS NULL AND (s.expires_at IS NULL OR s.expires_at > ?))"
            sql, values = sql + (f" AND {living}" if active else f" AND NOT {living}"), [*values, now]
        if after is not None:
            sql, values = sql + " AND (s.last_used, s.rowid) < (?, ?)", [*values, *after]
        sql += " ORDER BY s.last_used DESC, s.rowid DESC LIMIT ?"
        rows = await self._read(lambda connection: connection.execute(sql, [*values, limit + 1]).fetchall())
        page = [session_of(row[:-1]) for row in rows[:limit]]
        return Page(page, (page[-1].last_used, rows[limit - 1][-1]) if len(rows) > limit else None)

    async def end_session(
        self, namespace: str, session_id: str, memories: WithMemories, now: int
    ) -> tuple[Session, int]:
        return await self._write.do(lambda tx: tx.end_session(namespace, session_id, memories, now))

    async def cluster_sessions(self, namespace: str, cluster_id: str) -> list[str]:
        return await self._read(
            lambda connection: [
                row[0]
                for row in connection.execute(
                    "SELECT s.id FROM sessions s JOIN namespaces n ON n.id = s.namespace_id"
                    " WHERE n.name = ? AND s.cluster_id = ? ORDER BY s.id",
                    (namespace, cluster_id),
                )
            ]
        )

    # ---- jobs
    async def put_job(self, job: Job) -> None:
        await self._write.do(
            lambda tx: tx.connection.execute(
                PUT_JOB,
                (
                    job.id,
                    job.kind,
                    job.namespace,
                    job.principal,
                    job.state.value,
                    job.created_at,
                    job.beat_at,
                    job.done,
                    job.total,
                    job.unit,
                    job.finished_at,
                    job.result,
                    job.error,
                ),  # fmt: skip - a record in its own order
            )
        )

    async def get_job(self, job_id: str) -> Job | None:
        with storage_errors():
            row = self._read_point(f"SELECT {JOB} FROM jobs WHERE id = ?", (job_id,))  # noqa: S608 - fixed columns
        return None if row is None else job_of(row)

    async def list_jobs(
        self, scopes: tuple[str, ...], *, state: JobState | None, limit: int, after: tuple[Scalar, int] | None
    ) -> Page[Job]:
        scope, bound = select_scope(scopes, recursive=True, column="j.namespace")
        sql = f"SELECT {JOB}, j.rowid FROM jobs j WHERE {scope}"  # noqa: S608 - fixed columns, condition from the compiler
        values = list(bound)
        if state is not None:
            sql, values = sql + " AND j.state = ?", [*values, state.value]
        if after is not None:
            sql, values = sql + " AND (j.created_at, j.rowid) < (?, ?)", [*values, *after]
        sql += " ORDER BY j.created_at DESC, j.rowid DESC LIMIT ?"
        rows = await self._read(lambda connection: connection.execute(sql, [*values, limit + 1]).fetchall())
        page = [job_of(row[:-1]) for row in rows[:limit]]
        return Page(page, (page[-1].created_at, rows[limit - 1][-1]) if len(rows) > limit else None)

    # ---- the whole
    async def stats(self, scopes: tuple[str, ...], now: int, *, top: int) -> Stats:
        stored = await self.size() if "" in scopes else None
        return await self._read(lambda connection: _stats(connection, scopes, now, top, stored))

    async def reserve_ids(self, last: int) -> None:
        def work(tx: Transaction) -> None:
            tx.last_id = max(tx.last_id, last)
            tx.connection.execute("UPDATE counters SET last_id = ?", (tx.last_id,))

        await self._write.do(work)

    async def read_only(self) -> str | None:
        with storage_errors():
            row = self._read_point("SELECT read_only, held_reason, held_until FROM counters")
        if row is None:
            return None
        by_command, held, until = row
        reason = held if held is not None and int(str(until)) > self._clock.now() else by_command
        return None if reason is None else str(reason)

    async def set_read_only(self, reason: str | None) -> None:
        await self._write.do(lambda tx: tx.connection.execute("UPDATE counters SET read_only = ?", (reason,)))

    async def hold_writes(self, reason: str | None, until: int) -> None:
        def work(tx: Transaction) -> None:
            held, held_until = tx.connection.execute("SELECT held_reason, held_until FROM counters").get
            if reason is not None and held is not None and held_until <= self._clock.now():
                raise ConflictError(LAPSED)
            tx.connection.execute("UPDATE counters SET held_reason = ?, held_until = ?", (reason, until))

        await self._write.do(work)

    async def lease(self, name: str, holder: str, now: int, until: int) -> bool:
        return await self._write.do(
            lambda tx: (
                tx.connection.execute(
                    "INSERT INTO leases VALUES (?1, ?2, ?4) ON CONFLICT DO UPDATE SET holder = ?2, until = ?4"
                    " WHERE holder = ?2 OR until <= ?3 RETURNING 1",
                    (name, holder, now, until),
                ).get
                is not None
            )
        )

    # ---- everything, out and in again
    async def snapshot(self, work: Callable[[Snapshot], T], now: int) -> T:
        return await asyncio.to_thread(self._on_snapshot, work, now)

    def _on_snapshot(self, work: Callable[[Snapshot], T], now: int) -> T:
        with storage_errors(), contextlib.closing(connect(self.path, cache_kib=READER_CACHE_KIB)) as connection:
            self._cold.register(connection)
            return self._in_transaction(connection, lambda _: work(SQLiteSnapshot(connection, now)))

    async def aside(self) -> "SQLiteStorage":
        await asyncio.to_thread(sweep, self.path)
        beside = await asyncio.to_thread(Aside, self.path)
        other = SQLiteStorage(
            beside.database,
            readers=self._readers,
            program=self._program,
            clock=self._clock,
            cold=self._cold.values,
            keeping=self._keeping,
            beside=beside,
        )
        try:
            await other.open()
        except BaseException:
            await self.drop_aside(other)
            raise
        return other

    async def drop_aside(self, other: Storage) -> None:
        beside = _aside(other).beside
        await other.close()
        if beside is not None:
            await asyncio.to_thread(beside.remove)

    async def put_back(self, rows: Sequence[Row], now: int) -> None:
        restoring = self._restored()
        await self._write.do(lambda tx: restoring.put(tx, rows, now))

    async def all_back(self, now: int) -> None:
        restoring = self._restored()
        await self._write.do(lambda tx: restoring.finish(tx, now))

    def _restored(self) -> Restoring:
        if self.beside is None:
            raise StorageError("Rows are put back only into a storage that was begun aside")
        return self._restoring

    async def compare(self, other: Storage, takeover: Takeover, now: int, *, samples: int) -> list[Difference]:
        there = _aside(other).path

        def work() -> list[Difference]:
            with storage_errors():
                return takeovers.compare(self.path, there, takeover, now, samples)

        return await asyncio.to_thread(work)

    async def take_over(self, other: Storage, takeover: Takeover, now: int) -> list[Difference]:
        paths = (self.path, _aside(other).path)

        def work(tx: Transaction) -> list[Difference]:
            takeovers.require_held(tx.connection, self._clock.now())
            return takeovers.take_over(tx, paths, takeover, now, self._cold.register)

        told = await self._write.do_outside(work)
        # It has been taken over; that its log goes on for a while is no failure.
        with contextlib.suppress(StorageBusyError):
            await self._write.truncate()
        return told

    # ---- archives that are being read
    async def pin_archives(self, holder: str, now: int, until: int) -> None:
        await self._write.do(lambda tx: stubs.pin(tx.connection, holder, now, until))

    async def archives_pinned(self, now: int) -> bool:
        return await self._read(lambda connection: stubs.pinned(connection, now))

    async def check(self, *, fix: bool, progress: Progress | None = None) -> list[Problem]:
        damaged: dict[int, str] = {}
        return await check_all(
            lambda work: self._on_fresh(work, damaged), self._write, damaged, fix=fix, progress=progress
        )

    async def _on_fresh(self, work: Callable[[Database], T], damaged: dict[int, str]) -> T:
        """Runs a read on a connection of its own: an older one's picture of the index may be of before the last write."""

        def read() -> tuple[T, bool]:
            missing: set[str] = set()
            damaged.clear()
            with storage_errors():
                connection = connect(self.path, cache_kib=READER_CACHE_KIB)
                self._cold.register_leniently(connection, damaged, missing)
                try:
                    found = self._in_transaction(connection, work)
                    return found, stubs.moved_away(connection, missing)
                finally:
                    connection.close()

        found, again = await asyncio.to_thread(read)
        for _ in range(TRIES - 1):
            if not again:
                break
            # An archive that was compacted away while we read: what it held lies elsewhere now.
            found, again = await asyncio.to_thread(read)
        return found


def _aside(other: Storage) -> SQLiteStorage:
    if not isinstance(other, SQLiteStorage) or other.beside is None:
        raise StorageError("It is not a storage that was begun aside of a SQLite database")
    return other


def files_size(path: Path) -> int:
    """Bytes of the database's files."""
    return sum(file.stat().st_size for suffix in ("", "-wal", "-shm") if (file := Path(f"{path}{suffix}")).exists())


def _where(selection: Selection, now: int) -> tuple[str, list[Binding]]:
    scope, bound = select_scope(selection.scopes, recursive=selection.recursive)
    sql, values = f"{scope} AND {VISIBLE}", [*bound, now]
    if selection.where is not None:
        where, more = condition(selection.where)
        sql, values = f"{sql} AND {where}", [*values, *more]
    return sql, values


def _select(connection: Database, selection: Selection, now: int) -> Page[Memory]:
    where, values = _where(selection, now)
    order = order_terms(selection.order)
    if selection.after is not None:
        condition_after, more = order.after(selection.after)
        where, values = f"{where} AND {condition_after}", [*values, *more]
    limit = -1 if selection.limit is None else selection.limit + 1
    # First which, then what they hold: whatever has to be sorted is sorted without the values, and only values that are shown
    # are fetched from archives.
    rows = connection.execute(
        f"SELECT m.id, {order.expression} {FROM} WHERE {where} ORDER BY {order.order_by} LIMIT ?",
        [*order.bound, *values, limit],
    ).fetchall()
    shown = rows if selection.limit is None else rows[: selection.limit]
    memories = [memory_of(row) for row in connection.execute(GET_IDS, (_encode([row[0] for row in shown]).decode(),))]
    return Page(memories, (shown[-1][-1], memories[-1].id) if len(rows) > len(shown) else None)


def _whole(connection: Database, namespace: str, key: str, now: int) -> Memory | None:
    row = connection.execute(WHOLE, (namespace, key, now)).fetchone()
    return None if row is None else memory_of(row)


def _group(connection: Database, selection: Selection, field: Field, now: int, limit: int) -> list[Group]:
    where, values = _where(selection, now)
    group = group_expression(field)
    rows = connection.execute(
        f"SELECT {group.expression}, count(*) AS c {FROM} {group.join} WHERE {where} GROUP BY 1, 2"
        " ORDER BY c DESC, 2 NULLS LAST, 1 LIMIT ?",
        [*group.bound, *values, limit],
    )
    return [Group(group.value(*row[:-1]), row[-1]) for row in rows]


def _namespaces(connection: Database, scopes: tuple[str, ...], now: int) -> list[Namespace]:
    """All living namespaces of the scopes by name, with counts of what is visible and inherited settings."""
    scope, bound = select_scope(scopes, recursive=True)
    rows = connection.execute(
        "SELECT n.id, n.name, n.config, n.created_at, n.explicit, n.memories, n.bytes"  # noqa: S608 - from the compiler
        f" FROM namespaces n WHERE {scope} ORDER BY n.name",
        bound,
    ).fetchall()
    dead = _expired(connection, now)
    # Settings come from above the scopes too.
    configs = {
        name: _config.decode(config)
        for name, config in connection.execute(
            "SELECT name, config FROM namespaces WHERE name IS NOT NULL AND config <> '{}'"
        )
    }
    none = NamespaceConfig()
    found = []
    for number, name, config, created_at, explicit, memories, size in rows:
        gone, gone_bytes = dead.get(number, (0, 0))
        segments = name.split("/")
        chain = [configs.get("/".join(segments[:n]), none) for n in range(len(segments), 0, -1)] if configs else [none]
        found.append(
            Namespace(
                name,
                _config.decode(config),
                inherit(chain),
                created_at,
                bool(explicit),
                memories - gone,
                size - gone_bytes,
            )
        )
    _add_up(found)
    return found


def _expired(connection: Database, now: int) -> dict[int, tuple[int, int]]:
    """By namespace id, how many memories await cleanup, and their bytes."""
    rows = connection.execute(
        f"SELECT m.namespace_id, count(*), total({SIZE}) FROM memories m INDEXED BY idx_memories_expires"  # noqa: S608 - fixed columns
        " WHERE m.expires_at <= ? GROUP BY m.namespace_id",
        (now,),
    )
    return {number: (count, int(size)) for number, count, size in rows}


def _add_up(sorted_by_name: list[Namespace]) -> None:
    """Fills in the totals of each subtree."""
    by_name = {one.name: one for one in sorted_by_name}
    for one in sorted_by_name:
        one.total_memories, one.total_bytes = one.memories, one.bytes
    for one in sorted_by_name:
        segments = one.name.split("/")
        for n in range(1, len(segments)):
            above = by_name.get("/".join(segments[:n]))
            if above is not None:
                above.total_memories += one.memories
                above.total_bytes += one.bytes
                above.namespaces += 1


def _fold_namespaces(found: list[Namespace], scopes: tuple[str, ...], depth: int) -> list[Namespace]:
    """Folds what is deeper into its ancestor of that depth, but never into one above the scopes."""

    def fold(name: str) -> str:
        roots = [scope for scope in scopes if scope and contains(scope, name)]
        levels = max(depth, min((root.count("/") + 1 for root in roots), default=0))
        return "/".join(name.split("/")[:levels])

    shown = {one.name: one for one in found if fold(one.name) == one.name}
    made: dict[str, Namespace] = {}
    for one in found:
        name = fold(one.name)
        if name in shown:
            continue
        above = made.setdefault(
            name, Namespace(name, NamespaceConfig(), NamespaceConfig(), one.created_at, explicit=False)
        )
        above.created_at = min(above.created_at, one.created_at)
        above.total_memories += one.memories
        above.total_bytes += one.bytes
        above.namespaces += 1
    return sorted([*shown.values(), *made.values()], key=lambda one: one.name)


def _stats(connection: Database, scopes: tuple[str, ...], now: int, top: int, stored: int | None) -> Stats:
    scope, bound = select_scope(scopes, recursive=True)
    namespaces = _namespaces(connection, scopes, now)
    memories, size = sum(one.memories for one in namespaces), sum(one.bytes for one in namespaces)
    expired = connection.execute(f"SELECT count(*) {FROM} WHERE {scope} AND m.expires_at <= ?", (*bound, now)).get
    visible = f"{FROM} WHERE {scope} AND {VISIBLE}"
    ends = [
        connection.execute(f"SELECT m.created_at {visible} ORDER BY m.id {way} LIMIT 1", (*bound, now)).get
        for way in ("", "DESC")
    ]
    tags = connection.execute(
        f"SELECT t.name, count(*) AS c FROM tags t JOIN memory_tags mt ON mt.tag_id = t.id JOIN memories m ON m.id = mt.memory_id"  # noqa: S608
        f" JOIN namespaces n ON n.id = m.namespace_id WHERE {scope} AND {VISIBLE} GROUP BY t.id ORDER BY c DESC, t.name LIMIT ?",
        (*bound, now, top),
    ).fetchall()
    sessions = connection.execute(
        f"SELECT count(*) FROM sessions s JOIN namespaces n ON n.id = s.namespace_id WHERE {scope}",  # noqa: S608 - from the compiler
        bound,
    ).get
    cold = connection.execute(
        f"SELECT count(*) FROM archived a CROSS JOIN memories m ON m.id = a.memory_id"  # noqa: S608 - fixed columns
        f" CROSS JOIN namespaces n ON n.id = m.namespace_id WHERE {scope} AND {VISIBLE}",
        (*bound, now),
    ).get
    largest = sorted((one for one in namespaces if one.memories), key=lambda one: (-one.memories, one.name))[:top]
    return Stats(
        memories=memories,
        bytes_raw=size,
        bytes_stored=stored,
        expired=expired,
        sessions=sessions,
        namespaces=[NamespaceUse(one.name, one.memories, one.bytes) for one in largest],
        tiers={"warm": memories - cold, "cold": cold},
        top_tags=[(name, count) for name, count in tags],
        oldest=ends[0],
        newest=ends[1],
        last_seq=connection.execute("SELECT last_seq FROM counters").get,
    )
