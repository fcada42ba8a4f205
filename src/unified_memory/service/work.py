"""Long work on a thread, as the event loop sees it."""

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar

from unified_memory.model.errors import ConflictError, StorageError

T = TypeVar("T")
# How far work has come, and how far it goes (None: nobody knows).
Advance = Callable[[int, int | None], Awaitable[None]]
log = logging.getLogger("unified_memory.work")

# After so many rows others go first, for no longer than that.
WATCHED_ROWS = 50
MAX_TURN_SECONDS = 0.25


class StoppedError(Exception):
    """Whoever waits for the work has gone."""


class Work:
    """Work on a thread: it tells how far it has come, and stops at its next step when whoever waits for it is cancelled."""

    def __init__(self, advance: Advance | None) -> None:
        self._advance = advance
        self._loop = asyncio.get_running_loop()
        self._stopped = threading.Event()
        self._further = asyncio.Event()
        self._telling: asyncio.Task[None] | None = None
        self.done = 0
        self.total: int | None = None

    async def __aenter__(self) -> Self:
        if self._advance is not None:
            self._telling = asyncio.create_task(self._tell_on(self._advance), name="progress")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._telling is not None and self._advance is not None:
            self._telling.cancel()
            await asyncio.wait({self._telling})
            if kind is None:
                await self._tell(self._advance)

    async def _tell_on(self, advance: Advance) -> None:
        while True:
            await self._further.wait()
            self._further.clear()
            await self._tell(advance)

    async def _tell(self, advance: Advance) -> None:
        try:
            await advance(self.done, self.total)
        except StorageError as error:
            log.warning("How far a backup has come cannot be told: %s", error.detail)

    def step(self, more: int = 0) -> None:
        """`more` is done; on the thread. Raises StoppedError."""
        if self._stopped.is_set():
            raise StoppedError
        self.done += more
        if more and self._telling is not None:
            self._loop.call_soon_threadsafe(self._further.set)

    def watched(self, rows: Iterable[T], *, counted: bool = False) -> Iterator[T]:
        """The rows as they come; on the thread."""
        seen = 0
        for row in rows:
            yield row
            seen += 1
            if seen == WATCHED_ROWS:
                self.step(seen * counted)
                self._give_way()
                seen = 0
        self.step(seen * counted)

    def _give_way(self) -> None:
        """Lets the event loop, and so everybody whom it serves, go first once."""
        turn = threading.Event()
        self._loop.call_soon_threadsafe(turn.set)
        turn.wait(MAX_TURN_SECONDS)

    async def end(self, work: Coroutine[Any, Any, T]) -> T:
        """Waits for the end of work that calls `step`, also when this is cancelled."""
        task = asyncio.ensure_future(work)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            self._stopped.set()
            await _settled(task)
            raise


async def _settled(task: asyncio.Future[Any]) -> None:
    """Waits for the end of a task, whatever it comes to and however often this is cancelled."""
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            continue
    if not task.cancelled():
        task.exception()


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """What the work comes to; whoever cancels this comes too late."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            current = asyncio.current_task()
            if current is not None:
                current.uncancel()
    return task.result()


@asynccontextmanager
async def again(work: Callable[[], Awaitable[object]], seconds: float) -> AsyncIterator[None]:
    """Does the work again and again meanwhile."""

    async def repeat() -> None:
        while True:
            await asyncio.sleep(seconds)
            try:
                await work()
            except StorageError as error:
                log.warning("What a backup holds for itself cannot be renewed: %s", error.detail)
            except ConflictError as error:
                # Whatever it is held for will find so.
                log.warning("What a backup held for itself is lost: %s", error.detail)
                return

    repeating = asyncio.create_task(repeat(), name="renewing")
    try:
        yield
    finally:
        repeating.cancel()
        await asyncio.wait({repeating})
