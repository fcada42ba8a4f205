"""What this process knows of the era of hot copies; and the hot tier of a process that has none.

A write is acknowledged only when no reader may use what it replaced. Where the era has just changed, or ended, readers that asked
before may use the copies of the one before for `LEASE_SECONDS` more; so a process that learns of a change holds its writes
back for that long. A process that has just begun knows of none before: where there is no era and nobody is mute, it holds nothing
back, as without another in its place an era ends by a mute only, and whoever is mute stays so for longer than a lease.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence

from msgspec.structs import replace

from unified_memory.model.clock import SECOND, Clock
from unified_memory.model.errors import StorageError
from unified_memory.model.memory import Memory
from unified_memory.storage.base import Access
from unified_memory.storage.hot import Hot, HotCounts, HotState, Pledge, Ref, Ticket
from unified_memory.storage.warm import LEASE_SECONDS, MUTE_SECONDS, Trust, TrustKeeper

# Clocks of two machines do not run at quite the same rate.
HOLD_SECONDS = LEASE_SECONDS * 1.1
# A keeper that has been told that often and still names an era does not do its work.
_TRIES = 5

# The clock that goes on while the machine sleeps, where there is one: a lease must not outlast a closed lid.
_ELAPSED = getattr(time, "CLOCK_BOOTTIME", None)


def elapsed() -> float:
    """Seconds since some fixed instant, never going back."""
    return time.monotonic() if _ELAPSED is None else time.clock_gettime(_ELAPSED)


class EraWatch:
    """Asks the keeper for the era and remembers how long the answer may be used, and what must be waited for."""

    def __init__(self, keeper: TrustKeeper, clock: Clock, node: str | None) -> None:
        self._keeper = keeper
        self._clock = clock
        self._node = node or secrets.token_hex(8)
        self._asked_at = float("-inf")
        self._hold_until = float("-inf")
        self._muting: asyncio.Task[None] | None = None
        self._muted_at = float("-inf")
        self.known: Trust | None = None
        # Until when this node is mute, in microseconds of the clock.
        self.mute_until = 0

    def trusted(self) -> Trust | None:
        """The era whose copies may be given out at this instant."""
        known = self.known
        if known is None or not known.era or known.muted or elapsed() >= self._asked_at + LEASE_SECONDS:
            return None
        return known

    def worn(self) -> bool:
        """Whether a third of the lease is over: time to ask again."""
        return elapsed() >= self._asked_at + LEASE_SECONDS / 3

    async def ask(self) -> Trust:
        """The era as of this instant. Raises what the keeper raises."""
        asked_at = elapsed()
        return self._adopt(await self._keeper.trust(self._clock.now()), asked_at)

    async def begin_era(self, expected: str, servers: Sequence[str]) -> Trust:
        """Begins an era in place of the expected one, unless something stands against it; the one that holds now."""
        asked_at = elapsed()
        era = secrets.token_hex(8)
        trust = await self._keeper.begin_era(expected, era, servers, self._clock.now())
        # What has begun where there was none has nothing before it that could still be used.
        return self._adopt(trust, asked_at, follows=bool(expected) or trust.era != era)

    def _adopt(self, trust: Trust, asked_at: float, *, follows: bool = True) -> Trust:
        if follows and self._changed(trust):
            self._hold_until = elapsed() + HOLD_SECONDS
        # Answers may overtake each other; the one that was asked for last is good for longest.
        if asked_at >= self._asked_at:
            self.known = trust
            self._asked_at = asked_at
        return trust

    def _changed(self, trust: Trust) -> bool:
        """Whether an era may have ended less than a lease ago."""
        if self.known is None:
            return bool(trust.era) or trust.muted
        return trust != self.known and replace(trust, muted=False) != replace(self.known, muted=False)

    async def held(self) -> None:
        """Returns once nobody uses copies of an era before the one that is known."""
        while (rest := self._hold_until - elapsed()) > 0:  # noqa: ASYNC110 - what is waited for is time
            await asyncio.sleep(rest)

    async def end(self) -> None:
        """Ends the era by muting this node, and returns once no reader anywhere trusts it.

        Whoever comes while that is under way shares it. Raises StorageError where it could not be done.
        """
        for _ in range(_TRIES):
            if not (await self.ask()).era:
                return await self.held()
            if self._muting is None or self._muting.done():
                self._muting = asyncio.create_task(self.mute())
                self._muting.add_done_callback(_looked_at)
            await asyncio.shield(self._muting)
        raise StorageError("The hot tier cannot be told of the write, and its era does not end")

    async def mute(self) -> None:
        """Mutes this node, or goes on doing so. Raises what the keeper raises."""
        now = self._clock.now()
        until = now + MUTE_SECONDS * SECOND
        await self._keeper.mute(self._node, now, until)
        self.mute_until = until
        self._muted_at = elapsed()

    async def unmute(self) -> None:
        """Ends this node's mute. Not before the lease of an era that it may have ended has run out."""
        while (rest := self._muted_at + HOLD_SECONDS - elapsed()) > 0:  # noqa: ASYNC110 - as `held`
            await asyncio.sleep(rest)
        now = self._clock.now()
        if self.mute_until > now:
            await self._keeper.mute(self._node, now, now)
        self.mute_until = 0

    async def close(self) -> None:
        """Waits for a mute that is under way: a write may stand behind it."""
        if self._muting is not None:
            await asyncio.wait([self._muting])


def _looked_at(task: asyncio.Task[None]) -> None:
    """Those who waited were told; where all of them were cancelled, nobody is left to tell."""
    if not task.cancelled():
        task.exception()


class Untold(Hot):
    """For a process that cannot reach the hot copies which others may use: its writes end their era."""

    def __init__(self, keeper: TrustKeeper, clock: Clock) -> None:
        self._watch = EraWatch(keeper, clock, None)

    async def open(self) -> None:
        """Nothing is to be made ready."""

    async def close(self) -> None:
        """Waits for what is under way."""
        await self._watch.close()

    async def look(self, namespace: str, key: str, now: int) -> Memory | Ticket | None:  # noqa: ARG002 - there is none
        """Nothing."""
        return None

    async def look_many(self, refs: Sequence[Ref], now: int) -> list[Memory | Ticket | None]:  # noqa: ARG002 - as look
        """Nothing."""
        return [None] * len(refs)

    async def fill(self, found: Sequence[tuple[Ticket, Memory]], now: int) -> None:
        """Nobody was given a ticket."""

    async def begin(self, refs: Sequence[Ref], now: int) -> Pledge:  # noqa: ARG002 - see Warm.mute_with_writes
        """Nothing is marked: the commit itself ends the era."""
        return Pledge(refs, b"", "")

    async def settle(self, pledge: Pledge, memories: Sequence[Memory], now: int) -> None:  # noqa: ARG002 - as begin
        """Ends the era of others' copies, where there is one."""
        await self._watch.end()

    async def outlive(self, now: int) -> None:  # noqa: ARG002 - time is the watch's
        """As settle."""
        await self._watch.end()

    async def count(self, accesses: Sequence[Access]) -> None:
        """Copies whose counts are behind lose their era with the next write."""

    def rest(self) -> None:
        """It does."""

    def state(self) -> HotState:
        """There is no hot tier."""
        return HotState("none", trusted=False, trouble=None, note=None, counts=HotCounts())
