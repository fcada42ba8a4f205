"""A migration that only writes down what it is asked, and a service for it."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from unified_memory.bootstrap import build
from unified_memory.service.service import Service
from unified_memory.settings import load
from unified_memory.sources.base import Shape
from unified_memory.sources.ledger import Phase

BOUND = 30.0
Mirror = Callable[[str, str | None, str], Awaitable[None]]


class RecordingManager:
    """`mirrors` and `returns`: what is done beside writing it down."""

    def __init__(self, phase: Phase = Phase.NONE) -> None:
        self.now = phase
        self.mirrored: list[tuple[str, str, str | None, str]] = []
        self.told: list[tuple[str, str, bool, str | None]] = []
        self.acknowledged: list[Phase] = []
        self.members: set[str] = set()
        self.passes = 0
        self.asked = 0
        self.mirrors: Mirror | None = None
        self.returns: Callable[[], Awaitable[None]] | None = None

    async def phase(self) -> Phase:
        self.asked += 1
        return self.now

    async def mirror(self, service: str, shape: Shape, project: str | None, key: str) -> None:
        self.mirrored.append((service, shape, project, key))
        if self.mirrors is not None:
            await self.mirrors(shape, project, key)

    async def return_pass(self) -> int:
        self.passes += 1
        if self.returns is not None:
            await self.returns()
        return 1

    async def join(self, service: str) -> str:
        self.members.add(service)
        return service

    async def beat(self, _proxy_id: str, acknowledged: Phase) -> None:
        self.acknowledged.append(acknowledged)

    async def leave(self, proxy_id: str) -> None:
        self.members.discard(proxy_id)

    async def compared(self, service: str, tool: str, same: bool, sample: str | None) -> None:  # noqa: FBT001 - as it is
        self.told.append((service, tool, same, sample))


async def until(done: Callable[[], bool]) -> None:
    """Waits, within a bound."""
    async with asyncio.timeout(BOUND):
        while True:
            if done():
                return
            await asyncio.sleep(0.01)


def make_service(directory: Path) -> Service:
    """A service on a data directory, not yet opened."""
    return build(load({}, data_dir=directory, hot_tier="off", semantic="off"))
