"""What only one process may do at a time."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Self

import msgspec
from msgspec import Struct

from unified_memory.model.clock import SECOND, Clock
from unified_memory.model.errors import InProgressError, StorageError
from unified_memory.service.work import again
from unified_memory.sources.ledger import Ledger
from unified_memory.storage.base import Storage

LEASE_SECONDS = 30
# Of a lease for which somebody may have to wait after its holder was killed.
SHORT_LEASE_SECONDS = 6
# A lease is renewed so often before it would lapse.
RENEWALS = 3
POLL_SECONDS = 0.1
# Of the run, of reading the sources, and of writing back into them.
RUN_LEASE, PASS_LEASE, RETURN_LEASE = "migration", "migration-pass", "migration-return"
# Facts of the ledger: who copies, and who changes services.
RUNNER, CHANGER = "run", "change"
# Names under which this process holds leases.
_HOLDERS: set[str] = set()
log = logging.getLogger("unified_memory.migration")


class Lease:
    """A lease of so many `seconds` that is held by `holder`, and renewed meanwhile. `check` raises InProgressError where it was
    lost, so that whoever holds it stops.
    """

    def __init__(
        self, storage: Storage, clock: Clock, name: str, holder: str | None = None, *, seconds: int = LEASE_SECONDS
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._name = name
        self._seconds = seconds
        self.holder = holder or new_holder()
        self.lost = False

    async def take(self) -> bool:
        """Takes or renews it; whether it is held."""
        now = self._clock.now()
        return await self._storage.lease(self._name, self.holder, now, now + self._seconds * SECOND)

    async def renew(self) -> None:
        """Goes on holding it."""
        self.lost = self.lost or not await self.take()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[Self]:
        """Holds it, once it was taken, until the end."""
        try:
            async with again(self.renew, self._seconds / RENEWALS):
                yield self
        finally:
            await asyncio.shield(self.give_back())

    def check(self) -> None:
        """Raises InProgressError where another one holds it by now."""
        if self.lost:
            raise InProgressError("The migration was held up for so long that another process has taken over")

    async def give_back(self) -> None:
        """Lets the next one have it."""
        try:
            await self._storage.lease(self._name, self.holder, self._clock.now(), 0)
        except StorageError as error:
            log.warning("The next one may have to wait %d seconds: %s", self._seconds, error.detail)


class Runner(Struct):
    """A process that does something alone, and the name under which it holds its leases."""

    host: str
    pid: int
    holder: str

    @property
    def shown(self) -> str:
        """Who it is, for people."""
        return f"process {self.pid} on {self.host}"

    def is_dead(self) -> bool:
        """Whether it is known to have ended: it was of this machine, where no such process is any longer."""
        if self.host != socket.gethostname():
            return False
        if self.pid == os.getpid():
            return self.holder not in _HOLDERS
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return False


def runner_of(ledger: Ledger, fact: str) -> Runner | None:
    """Who was at it last and has not said that it has ended."""
    told = ledger.get(fact)
    return None if told is None else msgspec.convert(told, Runner)


@asynccontextmanager
async def at_it(
    ledger: Ledger, fact: str, storage: Storage, clock: Clock
) -> AsyncIterator[tuple[Runner, Runner | None]]:
    """This process is at it, and whoever was before. It is noted from before it takes a lease until after it has given it back,
    so that whoever finds it dead can tell which leases it may have held.
    """
    await _free_leases_of_dead(ledger, storage, clock)
    runner, former = await asyncio.to_thread(_begin, ledger, fact)
    try:
        yield runner, former
    finally:
        await asyncio.shield(asyncio.to_thread(ledger.take_away, fact, msgspec.to_builtins(runner)))


def note_runner(ledger: Ledger, fact: str, runner: Runner) -> None:
    """This process has the lease, and nobody else."""
    ledger.put(fact, msgspec.to_builtins(runner))


def _begin(ledger: Ledger, fact: str) -> tuple[Runner, Runner | None]:
    former = runner_of(ledger, fact)
    runner = Runner(socket.gethostname(), os.getpid(), new_holder())
    if former is None or former.is_dead():
        note_runner(ledger, fact, runner)
    _HOLDERS.add(runner.holder)
    return runner, former


async def _free_leases_of_dead(ledger: Ledger, storage: Storage, clock: Clock) -> None:
    """Gives back what processes held that are known to have ended: nobody has to wait until it lapses."""
    for fact in (RUNNER, CHANGER):
        former = await asyncio.to_thread(runner_of, ledger, fact)
        if former is not None and former.is_dead():
            for name in (RUN_LEASE, PASS_LEASE, RETURN_LEASE):
                await Lease(storage, clock, name, former.holder).give_back()


def new_holder() -> str:
    """A name under which nobody holds a lease yet."""
    return secrets.token_hex(8)


@asynccontextmanager
async def alone(
    storage: Storage,
    clock: Clock,
    name: str,
    otherwise: str,
    *,
    wait: float = 0.0,
    holder: str | None = None,
    seconds: int = LEASE_SECONDS,
) -> AsyncIterator[Lease]:
    """Holds a lease over all processes meanwhile, for which it waits so many seconds at most. Raises InProgressError."""
    lease = Lease(storage, clock, name, holder, seconds=seconds)
    loop = asyncio.get_running_loop()
    until = loop.time() + wait
    while not await lease.take():
        if loop.time() >= until:
            raise InProgressError(otherwise, hint="Wait for its end, or cancel its job")
        await asyncio.sleep(POLL_SECONDS)
    async with lease.held():
        yield lease
