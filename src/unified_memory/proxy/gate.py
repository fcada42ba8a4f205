"""The gate that every request passes: it tells the phase, and holds requests back while the phase is being changed."""

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol

from unified_memory.model.errors import MigrationStateError, UnifiedMemoryError
from unified_memory.sources.base import Shape
from unified_memory.sources.ledger import Phase

# The longest that a request is held back, the time between two looks, and between two signs of life; in seconds.
HOLD_SECONDS = 60.0
LOOK_SECONDS = 0.05
BEAT_SECONDS = 1.0

HELD = frozenset({Phase.SWITCHING, Phase.RETURNING})
# Who answers: ours from the switch on.
OURS = frozenset({Phase.SWITCHED, Phase.FINISHED})
log = logging.getLogger("unified_memory.proxy")


class Manager(Protocol):
    """What a proxy asks of the migration."""

    async def phase(self) -> Phase:
        """The phase now; a point read."""
        ...

    async def mirror(self, service: str, shape: Shape, project: str | None, key: str) -> None:
        """Copies here what the older service now has there, or that it has nothing there."""
        ...

    async def return_pass(self) -> int:
        """Writes back into the older services what changed here; how much."""
        ...

    async def join(self, service: str) -> str:
        """Makes a proxy known; its id."""
        ...

    async def beat(self, proxy_id: str, acknowledged: Phase) -> None:
        """It lives, and nothing of another phase is under way in it."""
        ...

    async def leave(self, proxy_id: str) -> None:
        """It has ended."""
        ...

    async def compared(self, service: str, tool: str, same: bool, sample: str | None) -> None:  # noqa: FBT001 - as it is
        """A read was answered by both."""
        ...


class Ticket:
    """A request that was let in under that phase; `leave` when it is answered."""

    def __init__(self, gate: "Gate", phase: Phase) -> None:
        self._gate = gate
        self.phase = phase

    def leave(self) -> None:
        """The request is answered."""
        self._gate.left(self.phase)


class Gate:
    """Lets requests in from `open` to `close`, which tell the migration of this proxy. `hold`: seconds that one waits at most.

    A phase is acknowledged when nothing is under way that was let in under another one. A request is counted before it reads the
    phase: whoever reads the new phase and finds nothing under way knows that all later ones read it too.
    """

    def __init__(self, manager: Manager, service: str, *, hold: float = HOLD_SECONDS) -> None:
        self._manager = manager
        self._service = service
        self._hold = hold
        self._under_way: Counter[Phase | None] = Counter()
        self._beating: asyncio.Task[None] | None = None
        self._proxy = ""

    async def open(self) -> None:
        """Joins. Raises UnifiedMemoryError where the migration cannot be asked."""
        self._proxy = await self._manager.join(self._service)
        self._beating = asyncio.create_task(self._beat(), name="proxy beat")

    async def close(self) -> None:
        """Leaves."""
        if self._beating is not None:
            self._beating.cancel()
            await asyncio.wait({self._beating})
            self._beating = None
            await self._manager.leave(self._proxy)

    @asynccontextmanager
    async def enter(self) -> AsyncIterator[Phase]:
        """Lets a request in, and tells the phase that holds until its end. Raises what `let_in` raises."""
        ticket = await self.let_in()
        try:
            yield ticket.phase
        finally:
            ticket.leave()

    async def let_in(self, *, since: float | None = None) -> Ticket:
        """As `enter`, for a request whose end is told by `Ticket.leave`. `since`: when it came, by the clock of the loop.

        Raises MigrationStateError where it was held back for too long, UnifiedMemoryError where the phase cannot be read.
        """
        now = asyncio.get_running_loop().time
        until = (now() if since is None else since) + self._hold
        while True:
            self._under_way[None] += 1
            try:
                phase = await self._manager.phase()
                if phase not in HELD:
                    self._under_way[phase] += 1
                    return Ticket(self, phase)
            finally:
                self.left(None)
            if now() >= until:
                raise MigrationStateError(
                    f"The migration has been {phase} for more than {self._hold:.0f} seconds; nothing was done",
                    phase,
                    hint="Ask again; unified-memory migrate status tells what it waits for",
                )
            await asyncio.sleep(LOOK_SECONDS)

    def left(self, phase: Phase | None) -> None:
        """One that was let in under that phase (None: that reads it) has gone."""
        self._under_way[phase] -= 1

    async def _beat(self) -> None:
        """Tells every second, and at once when there is something new to tell."""
        loop = asyncio.get_running_loop()
        acknowledged: Phase | None = None
        due = 0.0
        while True:
            try:
                phase = await self._manager.phase()
                # In a phase that holds requests back nothing is under way at all then.
                clear = not any(count for under, count in self._under_way.items() if under is not phase)
                if clear and phase is not acknowledged:
                    acknowledged, due = phase, 0.0
                if acknowledged is not None and loop.time() >= due:
                    await self._manager.beat(self._proxy, acknowledged)
                    due = loop.time() + BEAT_SECONDS
            except UnifiedMemoryError as error:
                log.warning("The migration cannot be told that this proxy lives: %s: %s", error.code, error.detail)
            await asyncio.sleep(LOOK_SECONDS)
