"""What every kind of proxy has at hand: the service, the gate, and what is done beside the answers."""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from msgspec import Struct

from unified_memory.proxy.gate import Gate, Manager
from unified_memory.service.service import Service
from unified_memory.sources.base import Shape
from unified_memory.sources.ledger import Phase
from unified_memory.worker import Worker

# How long an answer waits for the copy of what it tells of, and the end of a proxy for what is still to be carried back.
MIRROR_SECONDS = 30.0
CLOSE_SECONDS = 30.0
# Comparisons that may wait; more reads than that are not compared.
MAX_COMPARING = 100
SETTLE_SECONDS = 0.1
SAMPLE = 500
RETURN_AGAIN_SECONDS = 1.0
T = TypeVar("T")
log = logging.getLogger("unified_memory.proxy")


class Place(Struct, frozen=True):
    """A record as a call of the older tools names it."""

    shape: Shape
    project: str | None
    key: str


Find = Callable[[], Awaitable[Sequence[Place]]]


class Stand:
    """The service and the migration behind a proxy that stands in the place of the older service `name`.

    It opens and closes the service, and with it its passes (`worker`). Nothing that fails in `mirror`,
    `carry_back` and `compare` reaches a client; `failures` counts it.
    """

    def __init__(self, service: Service, manager: Manager, name: str, worker: Worker | None = None) -> None:
        self.service = service
        self.manager = manager
        self.name = name
        self.gate = Gate(manager, name)
        self.failures: Counter[str] = Counter()
        self._worker = worker
        self._places: WeakValueDictionary[Place, asyncio.Lock] = WeakValueDictionary()
        self._beside: set[asyncio.Task[Any]] = set()
        self._comparing = 0
        self._changed = asyncio.Event()
        self._returning: asyncio.Task[None] | None = None
        # Writes that were, or are being, copied.
        self._written = 0
        self._mirroring = 0

    async def open(self) -> None:
        """Opens the service and the gate. Raises StorageError and below."""
        await self.service.open()
        if self._worker is not None:
            self._worker.start()
        await self.gate.open()

    async def close(self) -> None:
        """Ends what is done beside the answers, carries back what is still to be, and closes the service."""
        if self._beside:
            await asyncio.wait(self._beside, timeout=CLOSE_SECONDS)
        if self._returning is not None:
            if self._changed.is_set():
                await asyncio.wait({self._returning}, timeout=CLOSE_SECONDS)
            self._returning.cancel()
            await asyncio.wait({self._returning})
        try:
            await self.gate.close()
        finally:
            if self._worker is not None:
                await self._worker.stop()
            await self.service.close()

    @property
    def busy(self) -> bool:
        """Whether something is still done beside the answers."""
        return bool(self._beside) or (self._returning is not None and not self._returning.done())

    # ---- after a write
    async def mirror(self, phase: Phase, find: Find) -> None:
        """In shadow, after the older service was written at the places that `find` tells: copies what it has there now, before
        the client is answered.
        """
        if phase is not Phase.SHADOW:
            return
        self._written += 1
        self._mirroring += 1
        copying = self._start(self._mirror(find), "mirror")
        copying.add_done_callback(self._mirrored)
        await asyncio.wait({copying}, timeout=MIRROR_SECONDS)
        if not copying.done():
            self._failed("mirror", f"took more than {MIRROR_SECONDS:.0f} seconds and goes on")

    async def _mirror(self, find: Find) -> None:
        for place in await find():
            # In turn, as an earlier one may hold what was there before the later write.
            lock = self._places.get(place)
            if lock is None:
                lock = self._places[place] = asyncio.Lock()
            async with lock:
                await self.manager.mirror(self.name, place.shape, place.project, place.key)

    def _mirrored(self, _task: asyncio.Task[Any]) -> None:
        self._mirroring -= 1

    def carry_back(self, phase: Phase) -> None:
        """After ours was written: carries it into the older service too, beside the answers."""
        if phase is not Phase.SWITCHED:
            return
        self._changed.set()
        if self._returning is None or self._returning.done():
            self._returning = asyncio.create_task(self._return(), name="proxy return")

    async def _return(self) -> None:
        """One pass at a time, and one more for what was written during it."""
        while self._changed.is_set():
            self._changed.clear()
            if not await self._passed():
                # Another process is at it, and may have looked before our write; or the older service is busy.
                await asyncio.sleep(RETURN_AGAIN_SECONDS)
                await self._passed()

    async def _passed(self) -> bool:
        """Whether a pass has carried something back."""
        passing = self._start(self.manager.return_pass(), "return")
        await asyncio.wait({passing})
        return passing.exception() is None and passing.result() > 0

    # ---- after a read
    def compare(self, phase: Phase, tool: str, theirs: Any, ours: Callable[[], Awaitable[Any]]) -> None:
        """In shadow: asks ours for what the older one has answered, beside the answers, and counts whether it is the same."""
        if phase is not Phase.SHADOW or self._comparing >= MAX_COMPARING:
            return
        self._comparing += 1
        task = self._start(self._compare(tool, theirs, ours, self._written), "compare")
        task.add_done_callback(self._compared)

    async def _compare(self, tool: str, theirs: Any, ours: Callable[[], Awaitable[Any]], written: int) -> None:
        same = (found := await ours()) == theirs
        if not same:
            await asyncio.sleep(SETTLE_SECONDS)
            if self._mirroring or written != self._written:
                # One of them may have seen what was written meanwhile, and the other not.
                return
        sample = None if same else f"older: {theirs!r:.{SAMPLE}}\nours: {found!r:.{SAMPLE}}"
        if not same:
            log.warning("%s is answered differently by the older service and by ours", tool)
        await self.manager.compared(self.name, tool, same, sample)

    def _compared(self, _task: asyncio.Task[Any]) -> None:
        self._comparing -= 1

    # ---- within
    def _start(self, work: Coroutine[Any, Any, T], what: str) -> asyncio.Task[T]:
        """Does it in a task of its own, whose failure is counted and told and goes no further."""
        task = asyncio.create_task(work, name=f"proxy {what}")
        self._beside.add(task)
        task.add_done_callback(lambda done: self._ended(done, what))
        return task

    def _ended(self, task: asyncio.Task[Any], what: str) -> None:
        self._beside.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(what, f"{type(error).__name__}: {error}")

    def _failed(self, what: str, why: str) -> None:
        self.failures[what] += 1
        log.warning("The proxy of %s: %s failed (%d so far): %s", self.name, what, self.failures[what], why)
