"""Sources as the event loop sees them: each opened once, and used on a thread of its own."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from unified_memory.model.errors import SourceError
from unified_memory.sources.base import OlderSource, Options, Shape, Source
from unified_memory.sources.ledger import SourceRef

P = ParamSpec("P")
T = TypeVar("T")
OpenSource = Callable[[str, str, Options | None], Source]


class Reached:
    """A source that is open. Every method may raise SourceError. `failed`: it has; opened again it may do better."""

    def __init__(self, ref: SourceRef, source: Source, thread: ThreadPoolExecutor) -> None:
        self.ref = ref
        self.source = source
        self.failed = False
        self._thread = thread

    @classmethod
    async def open(cls, ref: SourceRef, open_source: OpenSource) -> "Reached":
        """Opens it. Raises SourceError, InvalidInputError naming `source`."""
        thread = ThreadPoolExecutor(1, f"source-{ref.kind}")
        opening = asyncio.get_running_loop().run_in_executor(thread, open_source, ref.kind, ref.location, ref.options)
        try:
            return cls(ref, await asyncio.shield(opening), thread)
        except BaseException:
            # A source that was opened though nobody waits for it any longer is closed all the same.
            await asyncio.wait({opening})
            if not opening.cancelled() and opening.exception() is None:
                thread.submit(opening.result().close)
            thread.shutdown(wait=False)
            raise

    async def do(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Does it on the source's thread, behind what is under way there."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, partial(work, *args, **kwargs))
        except SourceError:
            self.failed = True
            raise

    @property
    def older(self) -> OlderSource:
        """The older service that it is. Raises SourceError where it is none."""
        if not isinstance(self.source, OlderSource):
            raise SourceError(self.ref.kind, self.ref.location, "Nothing is written back there: it is no older service")
        return self.source

    @property
    def is_older(self) -> bool:
        """Whether it is an older service."""
        return isinstance(self.source, OlderSource)

    async def close(self) -> None:
        """Frees it, after what is under way."""
        try:
            await asyncio.shield(self.do(self.source.close))
        finally:
            self._thread.shutdown(wait=False)


class Reach:
    """The sources that this process has to do with, each opened when it is first needed."""

    def __init__(self, open_source: OpenSource) -> None:
        self._open_source = open_source
        self._reached: dict[tuple[str, str], Reached] = {}
        self._opening = asyncio.Lock()

    async def new(self, ref: SourceRef) -> Reached:
        """Opens it once more; whoever asks closes it. Raises SourceError, InvalidInputError."""
        return await Reached.open(ref, self._open_source)

    async def at(self, ref: SourceRef) -> Reached:
        """The source, which stays open. Raises SourceError, InvalidInputError."""
        async with self._opening:
            place = ref.kind, ref.location
            if place in self._reached and self._reached[place].failed:
                await self._reached.pop(place).close()
            if place not in self._reached:
                self._reached[place] = await self.new(ref)
            self._reached[place].ref = ref
            return self._reached[place]

    async def close(self) -> None:
        """Frees them all."""
        reached, self._reached = list(self._reached.values()), {}
        for one in reached:
            await one.close()


def shape_of_kind(kind: str) -> Shape:
    """What the records of such a source are."""
    if kind.startswith("extended-memory-http"):
        return "entry"
    if kind.startswith("extended-memory-"):
        return "context"
    return "file" if kind.startswith("memory-bank-") else "record"


def is_older_kind(kind: str) -> bool:
    """Whether such a source is an older service; it need not be there any longer to tell."""
    return shape_of_kind(kind) != "record"
