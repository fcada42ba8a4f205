"""The clock: runs the service's passes at intervals, on one node at a time under a lease."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable

from unified_memory.model.errors import UnifiedMemoryError
from unified_memory.service.service import Service
from unified_memory.storage.tiers import Moved

Pass = Callable[[], Awaitable[None]]
FIRST_BACKUP_SECONDS = 10.0
log = logging.getLogger("unified_memory.worker")


class Worker:
    """Cleanup every `cleanup_seconds` and the moves between tiers every `tiering_seconds` on one process, flushing of access
    counts every `flush_seconds` on each.

    `embed`: vectors are made too, where search by meaning is on; their model takes 200 MB, more than a short-lived process is
    worth. `backup_seconds`: between two looks whether a backup is due, the first after ten at most, so that a missed one is made
    up soon; None for a process that may not live long enough to finish one.
    """

    def __init__(
        self,
        service: Service,
        *,
        cleanup_seconds: float,
        flush_seconds: float,
        tiering_seconds: float,
        embed: bool = False,
        backup_seconds: float | None = None,
    ) -> None:
        self._service = service
        self._cleanup_seconds = cleanup_seconds
        self._flush_seconds = flush_seconds
        self._tiering_seconds = tiering_seconds
        self._embed = embed
        self._backup_seconds = backup_seconds
        self._holder = secrets.token_hex(8)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins; the first pass comes after the first interval."""
        self._tasks = [
            asyncio.create_task(self._every(self._cleanup_seconds, self._cleanup), name="cleanup"),
            asyncio.create_task(self._every(self._tiering_seconds, self._tiering), name="tiering"),
            asyncio.create_task(self._every(self._flush_seconds, self._service.upkeep.flush), name="flush"),
        ]
        if (seconds := self._backup_seconds) is not None:
            looking = self._every(seconds, self._backup, first=min(seconds, FIRST_BACKUP_SECONDS))
            self._tasks.append(asyncio.create_task(looking, name="backup"))
        if self._embed and self._service.meaning is not None:
            self._service.meaning.start()

    async def stop(self) -> None:
        """Ends the passes."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _every(self, seconds: float, run: Pass, *, first: float | None = None) -> None:
        pause = seconds if first is None else first
        while True:
            await asyncio.sleep(pause)
            pause = seconds
            try:
                await run()
            except UnifiedMemoryError as error:
                # The pass is tried again at its next turn; nothing is lost meanwhile.
                log.warning("A pass failed: %s: %s", error.code, error.detail)

    async def _cleanup(self) -> None:
        upkeep = self._service.upkeep
        if not await upkeep.lease("cleanup", self._holder, max(60.0, 2 * self._cleanup_seconds)):
            return
        gone = 0
        async for removed in upkeep.cleanup():
            gone += sum(removed.expired.values()) + removed.purged
        if gone:
            log.info("Cleanup removed %d memories", gone)

    async def _backup(self) -> None:
        backup = await self._service.backups.run_if_due()
        if backup is not None:
            log.info("Made the backup %s of %d memories", backup.manifest.id, backup.manifest.memories)

    async def _tiering(self) -> None:
        if not await self._service.upkeep.lease("tiering", self._holder, max(60.0, 2 * self._tiering_seconds)):
            return
        demoted = Moved()
        async for moved in self._service.tiering.demote():
            demoted += moved
        if demoted.memories:
            log.info("Archived %d memories of %d bytes", demoted.memories, demoted.bytes)
        async for compacted in self._service.tiering.compact():
            log.info("Compacted an archive of %d bytes into %d", compacted.bytes_before, compacted.bytes_after)
