"""What only one process may do at a time."""

import asyncio
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from unified_memory.model.clock import SECOND, Clock
from unified_memory.model.errors import InProgressError, StorageError
from unified_memory.service.work import again
from unified_memory.storage.base import Storage

LEASE_SECONDS = 30
RENEW_SECONDS = 8
POLL_SECONDS = 0.1
# Names under which this process holds leases.
_HOLDERS: set[str] = set()
log = logging.getLogger("unified_memory.migration")


class Lease:
    """A lease that is held by `holder`. `check` raises InProgressError where it was lost, so that whoever holds it stops."""

    def __init__(self, storage: Storage, clock: Clock, name: str, holder: str | None = None) -> None:
        self._storage = storage
        self._clock = clock
        self._name = name
        self.holder = holder or new_holder()
        self.lost = False

    async def take(self) -> bool:
        """Takes or renews it; whether it is held."""
        now = self._clock.now()
        return await self._storage.lease(self._name, self.holder, now, now + LEASE_SECONDS * SECOND)

    async def renew(self) -> None:
        """Goes on holding it."""
        self.lost = self.lost or not await self.take()

    def check(self) -> None:
        """Raises InProgressError where another one holds it by now."""
        if self.lost:
            raise InProgressError("The migration was held up for so long that another process has taken over")

    async def give_back(self) -> None:
        """Lets the next one have it."""
        try:
            await self._storage.lease(self._name, self.holder, self._clock.now(), 0)
        except StorageError as error:
            log.warning("The next one may have to wait %d seconds: %s", LEASE_SECONDS, error.detail)


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


def this_runner(former: Runner | None = None) -> Runner:
    """This process. It takes the leases of a `former` one over, where that is dead: nobody has to wait until they lapse."""
    holder = former.holder if former is not None and former.is_dead() else new_holder()
    _HOLDERS.add(holder)
    return Runner(socket.gethostname(), os.getpid(), holder)


def new_holder() -> str:
    """A name under which nobody holds a lease yet."""
    return secrets.token_hex(8)


@asynccontextmanager
async def alone(
    storage: Storage, clock: Clock, name: str, otherwise: str, *, wait: float = 0.0, holder: str | None = None
) -> AsyncIterator[Lease]:
    """Holds a lease over all processes meanwhile, for which it waits so many seconds at most. Raises InProgressError."""
    lease = Lease(storage, clock, name, holder)
    loop = asyncio.get_running_loop()
    until = loop.time() + wait
    while not await lease.take():
        if loop.time() >= until:
            raise InProgressError(otherwise, hint="Wait for its end, or cancel its job")
        await asyncio.sleep(POLL_SECONDS)
    try:
        async with again(lease.renew, RENEW_SECONDS):
            yield lease
    finally:
        await asyncio.shield(lease.give_back())
