"""The one writer of a process: commits whatever has queued up in one transaction, so that many requests share one sync."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar

import apsw

from unified_memory.model.clock import Clock
from unified_memory.model.errors import StorageBusyError, StorageError, UnifiedMemoryError
from unified_memory.model.history import Keeping
from unified_memory.storage.base import Edit
from unified_memory.storage.sqlite.cold import Cold
from unified_memory.storage.sqlite.connection import BUSY_TIMEOUT_MS, Database, WriteLock, connect, translate
from unified_memory.storage.sqlite.transaction import Transaction

T = TypeVar("T")
MAX_GROUP = 256
MAX_WAITING = 10_000
# A write that no one has begun after this long is given up: another process holds the database.
PATIENCE_SECONDS = 30.0
CHECKPOINT_PAGES = 2_000
# While others wait the checkpoint can wait too, but not for ever.
OVERDUE_CHECKPOINTS = 8
TRUNCATE_PATIENCE_MS = 200


class Unit:
    """Work for one transaction and who waits for it.

    `alone`: it makes one change at most, after all that may raise. `outside`: it makes transactions of its own. `edits`: what it
    will apply, to be read ahead.
    """

    __slots__ = ("abandoned", "alone", "begun", "edits", "error", "future", "outside", "result", "since", "work")

    def __init__(
        self,
        work: Callable[[Transaction], Any],
        future: "asyncio.Future[Any]",
        since: float,
        edits: Sequence[Edit],
        *,
        alone: bool,
        outside: bool,
    ) -> None:
        self.work = work
        self.future = future
        self.since = since
        self.alone = alone
        self.outside = outside
        self.edits = edits
        # Given up by the one who waits, or taken up by the thread: never both.
        self.abandoned = self.begun = False
        self.result: Any = None
        self.error: BaseException | None = None


class Writer:
    """A thread with the writing connection. Made, used and closed on one event loop.

    `synced` False: no commit is durable, for a database that is thrown away where anything goes wrong.
    """

    def __init__(
        self, path: Path, *, cache_kib: int, cold: Cold, clock: Clock, keeping: Keeping, synced: bool = True
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._queue: SimpleQueue[list[Unit] | None] = SimpleQueue()
        self._fresh: list[Unit] = []
        self._waiting: deque[Unit] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._connection = connect(path, cache_kib=cache_kib, writer=True)
        if not synced:
            self._connection.execute("PRAGMA synchronous = OFF")
        cold.register(self._connection)
        self._wal_pages = 0
        self._connection.set_wal_hook(self._committed)
        self._lock = WriteLock(path)
        self._transaction = Transaction(self._connection, clock, keeping)
        self._closed = False
        self._truncating: list[asyncio.Future[None]] = []
        self._claim = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="unified-memory-writer", daemon=True)
        self._thread.start()

    async def do(self, work: Callable[[Transaction], T], edits: Sequence[Edit] = (), *, alone: bool = False) -> T:
        """Runs the work inside a transaction and returns its result once that is committed and synced.

        The work may be run again where the transaction it shared had to be taken back. Raises what it raises, then
        nothing of it is kept; StorageError and below where the database could not.
        """
        unit = Unit(work, self._loop.create_future(), time.monotonic(), edits, alone=alone, outside=False)
        return await self._enqueue(unit)  # type: ignore[no-any-return]  # what `work` returns

    async def do_outside(self, work: Callable[[Transaction], T]) -> T:
        """Runs the work by itself, while no other process writes, on the writing connection and outside of any transaction: it
        begins those that it needs. Whatever was known of the database is forgotten afterwards. Raises as `do`.
        """
        unit = Unit(work, self._loop.create_future(), time.monotonic(), (), alone=True, outside=True)
        return await self._enqueue(unit)  # type: ignore[no-any-return]  # what `work` returns

    async def _enqueue(self, unit: Unit) -> Any:
        if self._closed:
            raise StorageError("The storage is closed")
        if len(self._waiting) >= MAX_WAITING:
            raise StorageBusyError(f"{MAX_WAITING} writes are waiting")
        self._waiting.append(unit)
        if self._watch is None:
            self._watch = self._loop.call_later(PATIENCE_SECONDS, self._give_up)
        self._fresh.append(unit)
        if len(self._fresh) == 1:
            # Handed over once the requests that are at hand have all been read: they share the transaction, and the
            # thread, which has to wait for the interpreter's lock each time, is woken once.
            self._loop.call_soon(self._hand_over)
        return await unit.future

    def mute_with_writes(self, node: str) -> None:
        """See `Warm.mute_with_writes`."""
        self._transaction.mute_as = node

    @property
    def copies_used(self) -> bool:
        """See `Warm.copies_used`: as of the transaction that began last, which is no older than what was committed last."""
        return self._transaction.copies_used

    @property
    def archived(self) -> bool:
        """Whether there may be stubs, as of the transaction that began last."""
        return self._transaction.archived

    async def truncate(self) -> None:
        """Empties the log into the database and gives its room back, where no reader stands in the way."""
        emptied = self._loop.create_future()
        # Several may ask for it at once; one checkpoint is enough for all that asked before it.
        self._truncating.append(emptied)
        await self.do(lambda _transaction: None)
        await emptied

    async def close(self) -> None:
        """Commits what is waiting, then ends the thread."""
        if self._closed:
            return
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join, PATIENCE_SECONDS)
        if self._thread.is_alive():
            # Another process hangs on to the database. What waits was not done; the thread ends with the process.
            self._fail_all()
            return
        self._lock.close()
        self._connection.close()

    # ---- on the event loop
    def _hand_over(self) -> None:
        if self._fresh:
            self._queue.put(self._fresh)
            self._fresh = []

    def _deliver(self, units: list[Unit]) -> None:
        for unit in units:
            # Units end in the order in which they came, but for those that were given up.
            while self._waiting and self._waiting[0] is not unit:
                self._waiting.popleft()
            if self._waiting:
                self._waiting.popleft()
            if unit.future.done():
                continue
            if unit.error is None:
                unit.future.set_result(unit.result)
            else:
                unit.future.set_exception(unit.error)

    def _fail_all(self) -> None:
        with self._claim:
            given_up = [unit for unit in self._waiting if not unit.begun]
            for unit in given_up:
                unit.abandoned = True
        for unit in given_up:
            if not unit.future.done():
                unit.future.set_exception(
                    StorageBusyError("Another process holds the database for too long", retry_after=5)
                )

    def _give_up(self) -> None:
        self._watch = None
        horizon = time.monotonic() - PATIENCE_SECONDS
        with self._claim:
            given_up = [unit for unit in self._waiting if unit.since <= horizon and not unit.begun]
            for unit in given_up:
                unit.abandoned = True
        for unit in given_up:
            if not unit.future.done():
                unit.future.set_exception(
                    StorageBusyError("Another process holds the database for too long", retry_after=5)
                )
        if self._waiting:
            self._watch = self._loop.call_later(PATIENCE_SECONDS / 4, self._give_up)

    # ---- on the thread
    def _committed(self, _connection: Database, _name: str, pages: int) -> int:
        self._wal_pages = pages
        return 0

    def _run(self) -> None:
        waiting: deque[Unit] = deque()
        going_on = True
        while going_on or waiting:
            while going_on and (not waiting or not self._queue.empty()):
                handed = self._queue.get()
                if handed is None:
                    going_on = False
                else:
                    waiting.extend(handed)
            units = _next_group(waiting)
            if units:
                self._lock.acquire()
                with self._claim:
                    begun = [unit for unit in units if not unit.abandoned]
                    for unit in begun:
                        unit.begun = True
                try:
                    if begun and begun[0].outside:
                        self._outside(begun[0])
                    elif begun:
                        self._commit(begun)
                except Exception as error:  # noqa: BLE001 - the thread's boundary: it goes on, and whoever waits is told
                    for unit in begun:
                        unit.error = unit.error or error
                finally:
                    self._lock.release()
                self._loop.call_soon_threadsafe(self._deliver, units)
                self._checkpoint()

    def _commit(self, units: list[Unit]) -> None:
        """One transaction for all; where the database refuses it, one for each, so that only what cannot be done fails."""
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            self._transaction.begin()
            self._transaction.read_ahead(edit for unit in units for edit in unit.edits)
            for unit in units:
                self._one(unit)
            self._transaction.finish()
            self._connection.execute("COMMIT")
        except Exception as error:  # noqa: BLE001 - the thread's boundary: whatever it is reaches the one who waits
            self._roll_back()
            if len(units) > 1:
                for unit in units:
                    unit.result = unit.error = None
                    self._commit([unit])
            else:
                units[0].error = translate(error) if isinstance(error, apsw.Error) else error

    def _outside(self, unit: Unit) -> None:
        try:
            unit.result = unit.work(self._transaction)
        except apsw.Error as error:
            unit.error = translate(error)
        finally:
            self._roll_back()
            # Not all that it may have written was told to the hook.
            self._wal_pages = max(self._wal_pages, OVERDUE_CHECKPOINTS * CHECKPOINT_PAGES)

    def _one(self, unit: Unit) -> None:
        if unit.alone:
            try:
                unit.result = unit.work(self._transaction)
            except UnifiedMemoryError as error:
                unit.error = error
            return
        mark = self._transaction.mark()
        self._connection.execute("SAVEPOINT unit")
        try:
            unit.result = unit.work(self._transaction)
        except UnifiedMemoryError as error:
            self._connection.execute("ROLLBACK TO unit")
            self._transaction.back_to(mark)
            unit.error = error
        self._connection.execute("RELEASE unit")

    def _roll_back(self) -> None:
        self._transaction.forget()
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _checkpoint(self) -> None:
        """Moves the log into the database when it has grown; readers and other writers are not kept waiting."""
        due = self._wal_pages >= CHECKPOINT_PAGES and (
            self._queue.empty() or self._wal_pages >= OVERDUE_CHECKPOINTS * CHECKPOINT_PAGES
        )
        truncating, self._truncating = self._truncating, []
        if not due and not truncating:
            return
        mode = apsw.SQLITE_CHECKPOINT_TRUNCATE if truncating else apsw.SQLITE_CHECKPOINT_PASSIVE
        try:
            self._connection.set_busy_timeout(TRUNCATE_PATIENCE_MS)
            self._connection.wal_checkpoint(mode=mode)
        except (apsw.BusyError, apsw.LockedError, apsw.FullError, apsw.IOError):
            # What is in the log is durable; a later checkpoint, or the next opening, moves it.
            return
        finally:
            self._connection.set_busy_timeout(BUSY_TIMEOUT_MS)
            for emptied in truncating:
                self._loop.call_soon_threadsafe(_fulfil, emptied)
        self._wal_pages = 0


def _next_group(waiting: deque[Unit]) -> list[Unit]:
    """Those that share the next transaction; or the next one, which makes its own."""
    units: list[Unit] = []
    while waiting and len(units) < MAX_GROUP and not (units and waiting[0].outside):
        units.append(waiting.popleft())
        if units[-1].outside:
            break
    return units


def _fulfil(future: "asyncio.Future[None]") -> None:
    """Whoever waited may have gone."""
    if not future.done():
        future.set_result(None)
