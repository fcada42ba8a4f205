"""Search by meaning: vectors are made behind the writes, and full text answers alone wherever they are missing.

Nothing here loads numpy or a model before `start`. What fails is told in the log once and in `troubles`; no write and no
search fails with it.
"""

import asyncio
import logging
import os
import secrets
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
from msgspec import Struct

from unified_memory.model.clock import SECOND, Clock
from unified_memory.model.errors import StorageError, UnifiedMemoryError
from unified_memory.model.memory import Memory
from unified_memory.model.ranking import Nearness
from unified_memory.model.search import names_of
from unified_memory.model.value import text_of
from unified_memory.service.guard import Guard
from unified_memory.storage.base import Code, Storage

if TYPE_CHECKING:
    from unified_memory.semantic.embedder import Embedder
    from unified_memory.semantic.vectors import Vectors
    from unified_memory.service.nearness import Engine, Index

T = TypeVar("T")
# Models read about 256 tokens; what is behind them would be carried for nothing.
READ_CHARS = 2_000
BATCH = 32
NEAREST = 100
KNOWN_QUERIES = 256
MOST_ASKED = 64
# Seconds, here and in Times.
LONGEST_PAUSE = 300.0
END_PATIENCE = 2.0
LEASE = "embedding"
LEASE_MICROSECONDS = 60 * SECOND
TOO_LARGE_MICROSECONDS = 3_600 * SECOND
DROPPED = 1_000
# Vectors that an index reads at once; and after how many changes it is read anew rather than brought up to date.
PAGE = 10_000
RELOAD_CHANGES = 100_000
# Of an index beside its vectors.
INDEX_BYTES = 2_048
log = logging.getLogger("unified_memory.meaning")


class Meaning(Struct):
    """How far search by meaning has come. `state`: loading (the model), embedding, ready or failing (see `troubles`).

    `model`: its identity, once it is loaded. `embedded`, `waiting`: visible memories with a vector of it, and without. `held`:
    bytes of vectors held ready.
    """

    state: str
    model: str | None = None
    embedded: int = 0
    waiting: int = 0
    held: int = 0
    troubles: list[str] = []


class Times(Struct, frozen=True):
    """In seconds: between two looks for new memories; between two for what lost its vector otherwise, and whether another
    process still makes them; after a failure, doubled each time; how long a search waits; after a query's failure.
    """

    look: float = 0.5
    look_again: float = 60.0
    other: float = 10.0
    failure: float = 1.0
    patience: float = 1.0
    query_failure: float = 5.0


class Meanings:
    """Makes the vectors of memories, and tells what is near to a text.

    `load` blocks and gives the embedder; it is called in a thread, again after a while where it raises. `cache_bytes` bounds
    the vectors that are held ready, each set of subtrees that is asked for by itself.
    """

    def __init__(
        self, storage: Storage, clock: Clock, guard: Guard, load: "Callable[[], Embedder]", *, cache_bytes: int
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._guard = guard
        self._load = load
        self._cache_bytes = cache_bytes
        self.times = Times()
        self._holder = secrets.token_hex(8)
        self._engine: Engine | None = None
        self._task: asyncio.Task[None] | None = None
        # Whoever asks does not wait for a batch, and whoever stores hardly.
        self._embedding = _Hand("unified-memory-embedding", niceness=10)
        self._asking = _Hand("unified-memory-asking")
        self._troubles: dict[str, str] = {}
        self._refused: set[int] = set()
        self._after = 0
        self._seen = -1
        self._look_at = 0.0
        self._leased_until = 0
        self._vectors: OrderedDict[str, Vectors] = OrderedDict()
        self._asked: dict[str, asyncio.Task[Vectors | None]] = {}
        self._ask_at = 0.0
        self._held: OrderedDict[tuple[tuple[str, ...], bool], _Held] = OrderedDict()

    # ---- its life
    def start(self) -> None:
        """Begins to load the model and to make vectors. Before, nothing is near to anything."""
        self._task = asyncio.create_task(self._run(), name="embedding")
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Ends everything; waits for a batch that is being made, up to 2 seconds."""
        tasks = [task for task in (self._task, *self._asked.values()) if task is not None]
        tasks += [task for held in self._held.values() for task in (held.running, held.queued) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await asyncio.gather(*(asyncio.to_thread(hand.end) for hand in (self._embedding, self._asking)))
        if self._leased_until:
            # Another process need not wait until it runs out.
            now = self._clock.now()
            try:
                await self._storage.lease(LEASE, self._holder, now, now)
            except StorageError as error:
                log.info("The lease to make vectors runs out by itself: %s", error.detail)
            self._leased_until = 0
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    async def state(self) -> Meaning:
        """How far it has come. Raises StorageError."""
        troubles = list(dict.fromkeys(self._troubles.values()))
        if self._engine is None:
            return Meaning("failing" if troubles else "loading", troubles=troubles)
        counts = await self._storage.vector_counts(self._engine.identity, self._clock.now())
        name = "failing" if troubles else "embedding" if counts.waiting > len(self._refused) else "ready"
        held = sum(self._sizes().values())
        return Meaning(name, self._engine.identity, counts.embedded, counts.waiting, held, troubles)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("No more vectors are made", exc_info=error)
            self._troubles["embedding"] = f"No more vectors are made: {type(error).__name__}"

    def _fails(self, part: str, detail: str) -> None:
        if detail not in self._troubles.values():
            log.warning("Search by meaning, %s: %s", part, detail)
        self._troubles[part] = detail

    def _works(self, part: str) -> None:
        if self._troubles.pop(part, None) is not None:
            log.info("Search by meaning, %s: it works again", part)

    # ---- making vectors
    async def _run(self) -> None:
        pause = self.times.failure
        # Whoever waits for the service to start has it first: importing takes a processor for a while.
        await asyncio.sleep(self.times.look)
        while True:
            try:
                if self._engine is None:
                    self._engine = await self._embedding.do(partial(_load, self._load))
                    log.info("Search by meaning: %s", self._engine.identity)
                wait = await self._embed(self._engine)
            except UnifiedMemoryError as error:
                self._fails("embedding", f"{error.code}: {error.detail}")
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                self._works("embedding")
                pause = self.times.failure
                await asyncio.sleep(wait)

    async def _embed(self, engine: "Engine") -> float:
        """Makes the vectors that are missing; in how many seconds to look again."""
        now = asyncio.get_running_loop().time()
        seq = await self._storage.last_seq()
        if seq == self._seen and now < self._look_at:
            return self.times.look
        counts = await self._storage.vector_counts(engine.identity, self._clock.now())
        if not counts.waiting and not counts.others:
            self._after = self._seen = seq
            self._look_at = now + self.times.look_again
            self._refused.clear()
            return self.times.look
        if seq == self._seen and not counts.others and counts.waiting <= len(self._refused):
            self._look_at = now + self.times.look_again
            return self.times.look
        if not await self._leased():
            return self.times.other
        if seq == self._seen:
            # Something lost its vector without a change of its own.
            self._after = 0
            self._refused.clear()
        while batch := await self._storage.unembedded(engine.identity, self._clock.now(), self._after, BATCH):
            if await self._guard.reason() is not None or not await self._leased():
                return self.times.look
            codes = await self._embedding.do(partial(_encode, engine, batch))
            await self._put(engine, batch, codes)
            self._after = batch[-1].seq
        while counts.others and await self._storage.drop_vectors(engine.identity, DROPPED):
            await self._leased()
        self._seen, self._look_at = seq, now + self.times.look_again
        return self.times.look

    async def _put(self, engine: "Engine", batch: Sequence[Memory], codes: Sequence[bytes | None]) -> None:
        made = []
        for memory, code in zip(batch, codes, strict=True):
            if code is not None:
                self._refused.discard(memory.id)
                made.append(Code(memory.id, memory.seq, code))
            elif memory.id not in self._refused:
                log.warning("The embedder refuses memory %d: it is found by its words alone", memory.id)
                self._refused.add(memory.id)
        await self._storage.put_vectors(engine.identity, made)

    async def _leased(self) -> bool:
        """Whether this process is the one that makes vectors."""
        now = self._clock.now()
        if self._leased_until - now < LEASE_MICROSECONDS // 2:
            until = now + LEASE_MICROSECONDS
            self._leased_until = until if await self._storage.lease(LEASE, self._holder, now, until) else 0
        return self._leased_until > 0

    # ---- asking
    async def near(self, text: str, scopes: tuple[str, ...], *, recursive: bool) -> Nearness | None:
        """What is near to a text in these subtrees; None where nothing can tell, not yet, or not within a second."""
        if self._engine is None or not scopes:
            return None
        try:
            return await self._near(self._engine, text, scopes, recursive=recursive)
        except UnifiedMemoryError as error:
            # By its words the search may still find something, or fail by itself.
            self._fails("search", f"{error.code}: {error.detail}")
            return None

    async def _near(self, engine: "Engine", text: str, scopes: tuple[str, ...], *, recursive: bool) -> Nearness | None:
        from unified_memory.service.nearness import Near  # noqa: PLC0415 - numpy: loaded with the engine

        index = await self._index(engine, scopes, recursive=recursive)
        if index is None or not len(index):
            return None
        vector = await self._vector(engine, text[:READ_CHARS])
        if vector is None:
            return None
        count = NEAREST
        while ids := await asyncio.to_thread(index.nearest, vector, count):
            there = await self._storage.with_vectors(engine.identity, ids, self._clock.now())
            if len(there) == len(ids):
                break
            # What expired or went with its namespace must not keep others away.
            await asyncio.to_thread(index.drop, set(ids) - there)
            if len(there) >= NEAREST:
                ids = [number for number in ids if number in there]
                break
            count *= 2
        self._works("search")
        return Near(index, vector, ids[:NEAREST]) if ids else None

    async def _vector(self, engine: "Engine", text: str) -> "Vectors | None":
        if text in self._vectors:
            self._vectors.move_to_end(text)
            return self._vectors[text]
        if text not in self._asked:
            if len(self._asked) >= MOST_ASKED or asyncio.get_running_loop().time() < self._ask_at:
                return None
            self._asked[text] = asyncio.create_task(self._ask(engine, text))
        task = self._asked[text]
        await asyncio.wait({task}, timeout=self.times.patience)
        if not task.done():
            self._fails("query", f"{engine.identity} takes longer than {self.times.patience:g} s")
        return task.result() if task.done() and not task.cancelled() else None

    async def _ask(self, engine: "Engine", text: str) -> "Vectors | None":
        try:
            vector = await self._asking.do(partial(engine.vector, text))
        except UnifiedMemoryError as error:
            self._fails("query", f"{error.code}: {error.detail}")
            self._ask_at = asyncio.get_running_loop().time() + self.times.query_failure
            return None
        finally:
            del self._asked[text]
        self._works("query")
        self._vectors[text] = vector
        if len(self._vectors) > KNOWN_QUERIES:
            self._vectors.popitem(last=False)
        return vector

    # ---- vectors held ready
    async def _index(self, engine: "Engine", scopes: tuple[str, ...], *, recursive: bool) -> "Index | None":
        """The index of the subtrees as of now; None where it is too large, or being read for the first time."""
        key = (scopes, recursive)
        held = self._held.get(key)
        if held is None:
            held = self._held[key] = _Held(engine.index())
        self._held.move_to_end(key)
        if held.too_large_until > self._clock.now():
            return None
        if held.queued is None:
            # Begun after whoever asks now: so it tells of all that was acknowledged before.
            held.queued = asyncio.create_task(self._refresh_behind(engine, key, held))
            held.queued.add_done_callback(_looked_at)
        task = held.queued
        await asyncio.wait({task}, timeout=self.times.patience)
        if not task.done() or task.cancelled():
            return None
        task.result()
        return None if held.too_large_until else held.index

    async def _refresh_behind(self, engine: "Engine", key: tuple[tuple[str, ...], bool], held: "_Held") -> None:
        if held.running is not None:
            await asyncio.wait({held.running})
        held.running, held.queued = held.queued, None
        await self._refresh(engine, key, held)

    async def _refresh(self, engine: "Engine", key: tuple[tuple[str, ...], bool], held: "_Held") -> None:
        scopes, recursive = key
        behind = await self._storage.last_seq() - held.index.seq
        if held.too_large_until or (held.index.seq and behind > RELOAD_CHANGES):
            held.index = engine.index()
        index = held.index
        held.too_large_until = 0
        while True:
            news = await self._storage.vector_news(
                engine.identity,
                scopes,
                recursive=recursive,
                after_place=index.place,
                after_seq=index.seq,
                limit=PAGE,
            )
            if news.vectors or news.gone:
                if unfit := await asyncio.to_thread(index.take, news):
                    log.warning("%d vectors are of another size than their model's: unified-memory check --fix", unfit)
            else:
                index.seq = news.seq
            if index.nbytes > self._cache_bytes:
                held.index, held.too_large_until = engine.index(), self._clock.now() + TOO_LARGE_MICROSECONDS
                names = ", ".join(scope or "everything" for scope in scopes)
                log.error("The vectors of %s do not fit into UNIFIED_MEMORY_SEMANTIC_CACHE: full text only", names)
                return
            if len(news.vectors) < PAGE:
                break
        self._evict(held)

    def _sizes(self) -> "dict[tuple[tuple[str, ...], bool], int]":
        return {key: held.index.nbytes + INDEX_BYTES for key, held in self._held.items()}

    def _evict(self, kept: "_Held") -> None:
        """Forgets what was not asked for the longest, until the rest fits."""
        sizes = self._sizes()
        total = sum(sizes.values())
        for key, size in sizes.items():
            if total <= self._cache_bytes:
                break
            held = self._held[key]
            if held is not kept and held.queued is None and (held.running is None or held.running.done()):
                del self._held[key]
                total -= size


class _Held:
    """An index that is held ready. `running`: the task that brings it up to date; `queued`: the one that will next."""

    def __init__(self, index: "Index") -> None:
        self.index = index
        self.running: asyncio.Task[None] | None = None
        self.queued: asyncio.Task[None] | None = None
        self.too_large_until = 0


class _Hand:
    """A thread that does one thing after another. The end of the process does not wait for it: an embedder may be slow.

    `niceness`: how much it stands back behind other threads, where threads have a priority of their own.
    """

    def __init__(self, name: str, *, niceness: int = 0) -> None:
        self._name = name
        self._niceness = niceness
        self._queue: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    async def do(self, work: Callable[[], T]) -> T:
        """What the work returns or raises."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        future: Future[T] = Future()
        self._queue.put((future, work))
        return await asyncio.wrap_future(future)

    def end(self) -> None:
        """Ends the thread; blocks up to 2 seconds for what it is doing."""
        self._queue.put(None)
        if self._thread is not None:
            self._thread.join(END_PATIENCE)

    def _run(self) -> None:
        if self._niceness and sys.platform == "linux":
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), self._niceness)
        while (handed := self._queue.get()) is not None:
            future, work = handed
            if not future.set_running_or_notify_cancel():
                continue
            try:
                result = work()
            except BaseException as error:  # noqa: BLE001 - the thread's boundary: whoever waits is told
                future.set_exception(error)
            else:
                future.set_result(result)


def _looked_at(task: "asyncio.Task[None]") -> None:
    """Whoever waited too long for it need not hear that it failed: the next one who asks will."""
    if not task.cancelled():
        task.exception()


def _load(load: "Callable[[], Embedder]") -> "Engine":
    from unified_memory.service.nearness import Engine  # noqa: PLC0415 - numpy: only where it is wanted, and in a thread

    return Engine(load())


def _encode(engine: "Engine", memories: Sequence[Memory]) -> list[bytes | None]:
    texts = [readable(memory) for memory in memories]
    codes = iter(engine.encode([text for text in texts if text is not None]))
    return [None if text is None else next(codes) for text in texts]


def readable(memory: Memory) -> str | None:
    """What a model reads of a memory: `author: title`, then the value's words, up to 2,000 characters; of a value without
    words its JSON. None of a damaged record.
    """
    try:
        named = names_of(memory.attributes)
        text = text_of(memory.parsed())
    except (UnifiedMemoryError, ValueError, msgspec.MsgspecError):
        return None
    told = "\n".join(part for part in (named.title, text) if part and not part.isspace())
    told = told or memory.value.decode(errors="replace")
    return (f"{named.author}: {told}" if named.author else told)[:READ_CHARS]
