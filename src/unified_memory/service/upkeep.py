"""The passes that keep the storage tidy, and what the service says of itself."""

import secrets
from collections.abc import AsyncIterator

from msgspec import Struct

from unified_memory.model.clock import SECOND, Clock
from unified_memory.model.errors import StorageError
from unified_memory.model.namespace import check_namespace
from unified_memory.model.principal import Principal
from unified_memory.service.access import Accesses
from unified_memory.service.backups import Backups
from unified_memory.service.guard import Guard
from unified_memory.service.history import Histories
from unified_memory.service.meaning import Meaning, Meanings
from unified_memory.service.tiering import Tiering
from unified_memory.storage.base import Problem, Progress, Stats, Storage

CLEANUP_CHUNK = 200
# To forget means to write the index anew: on average no more than that.
FORGET_BYTES_PER_SECOND = 100_000
PROBE_MICROSECONDS = 1 * SECOND


class Removed(Struct):
    """What a chunk of the cleanup removed: expired memories by namespace, or memories of deleted namespaces."""

    expired: dict[str, int]
    purged: int = 0


class Health(Struct):
    """`status`: ok, degraded (works, but see `reasons`) or failing (cannot write, or draining). `meaning`: how far search by
    meaning has come, None where it is off.
    """

    status: str
    reasons: list[str]
    checked_at: int
    meaning: Meaning | None = None


class Upkeep:
    """Cleanup, statistics, verification and health."""

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        accesses: Accesses,
        guard: Guard,
        tiering: Tiering,
        histories: Histories,
        backups: Backups,
        meaning: Meanings | None = None,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._accesses = accesses
        self._guard = guard
        self._tiering = tiering
        self._histories = histories
        self._backups = backups
        self._meaning = meaning
        self._last: Health | None = None
        self.draining = False

    async def cleanup(self) -> AsyncIterator[Removed]:
        """One pass that removes what has expired, what deleted namespaces left and what is no longer kept of the past, in chunks
        between which others write; and writes down the accesses that were gathered.
        """
        await self._accesses.flush()
        while gone := await self._storage.expire(self._clock.now(), CLEANUP_CHUNK):
            yield Removed(dict(gone))
            if sum(count for _, count in gone) < CLEANUP_CHUNK:
                break
        for ticket in await self._storage.dead_namespaces():
            while purged := await self._storage.purge(ticket, self._clock.now(), CLEANUP_CHUNK):
                yield Removed({}, purged)
        await self._histories.prune()
        while await self._storage.refresh_index(CLEANUP_CHUNK):
            pass
        size = await self._tiering.database_bytes()
        if size is not None and await self.lease("forget", secrets.token_hex(8), size / FORGET_BYTES_PER_SECOND):
            await self._storage.forget()
        else:
            await self._storage.shrink()
        await self._guard.look()

    async def flush(self) -> None:
        """Writes down gathered accesses and measures the files."""
        await self._accesses.flush()
        await self._guard.look()

    async def lease(self, name: str, holder: str, seconds: float) -> bool:
        """Takes or renews the right to run a pass for so long; False where another node has it."""
        now = self._clock.now()
        return await self._storage.lease(name, holder, now, now + round(seconds * SECOND))

    async def stats(self, principal: Principal, namespace: str | None, top: int = 20) -> Stats:
        """Totals of what the principal sees (below `namespace`)."""
        scopes = principal.narrowed(None if namespace is None else check_namespace(namespace))
        stats = await self._storage.stats(scopes, self._clock.now(), top=top)
        stats.tiers = {"hot": 0, "warm": 0, "cold": 0} | stats.tiers
        return stats

    async def check(self, *, fix: bool, progress: Progress | None = None) -> list[Problem]:
        """Compares everything with everything; see `Storage.check`."""
        return await self._storage.check(fix=fix, progress=progress)

    async def read_only(self) -> str | None:
        """Why writes are off, None where they are on."""
        return await self._guard.reason()

    async def switch_read_only(self, reason: str | None) -> str | None:
        """Switches writes off for every process (with a reason), or on again."""
        await self._guard.switch(reason)
        return await self._guard.reason()

    async def ready(self) -> Health:
        """Writes something for real."""
        now = self._clock.now()
        reasons = []
        status = "ok"
        meaning = None
        try:
            await self._storage.probe()
            reason = await self._guard.reason()
            if reason is not None:
                status, reasons = "degraded", [f"read-only: {reason}"]
            await self._backups.state()
            if troubles := [*self._tiering.troubles(), *(f"backups: {one}" for one in self._backups.troubles())]:
                status, reasons = "degraded", [*reasons, *troubles]
            if self._meaning is not None:
                meaning = await self._meaning.state()
                if meaning.troubles:
                    status, reasons = "degraded", [*reasons, *(f"meaning: {one}" for one in meaning.troubles)]
        except StorageError as error:
            status, reasons = "failing", [f"{error.code}: {error.detail}"]
        if self.draining:
            status, reasons = "failing", ["draining"]
        self._last = Health(status, reasons, now, meaning)
        return self._last

    async def health(self) -> Health:
        """The same, from at most a second ago."""
        if self._last is None or self.draining or self._clock.now() - self._last.checked_at > PROBE_MICROSECONDS:
            return await self.ready()
        return self._last
