"""Everything that can be done, in one hand."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from unified_memory.model.clock import Clock
from unified_memory.model.history import Keeping
from unified_memory.service.access import Accesses
from unified_memory.service.backups import BackupPolicy, Backups
from unified_memory.service.bank import Bank
from unified_memory.service.contexts import Contexts
from unified_memory.service.drafting import Limits
from unified_memory.service.graph import Graph
from unified_memory.service.guard import Guard
from unified_memory.service.history import Histories
from unified_memory.service.jobs import Jobs
from unified_memory.service.meaning import Meanings
from unified_memory.service.memories import Memories
from unified_memory.service.migration import MemoryMigrationManager
from unified_memory.service.namespaces import Namespaces
from unified_memory.service.searching import Searching
from unified_memory.service.sessions import Sessions
from unified_memory.service.tiering import Policy, Tiering
from unified_memory.service.transfer import Transfer
from unified_memory.service.upkeep import Upkeep
from unified_memory.storage.backup import Key, Place
from unified_memory.storage.base import Storage
from unified_memory.storage.tiers import Tiers

if TYPE_CHECKING:
    from pathlib import Path

    from unified_memory.semantic.embedder import Embedder

# Bytes of vectors held ready, where nobody says otherwise.
MEANING_CACHE = 256 * 1024**2


class Safekeeping(Struct, frozen=True):
    """What is kept beside the present. `keeping`: former versions, where a namespace says nothing; `changes_days`: the feed of
    changes. `place`: where backups lie, None for nowhere, made as `policy` says, encrypted with `key`. `data`: a directory on the
    disk of the storage. `migration`: where the ledger and reports of a migration lie, `points`: where its rollback points do.
    """

    keeping: Keeping = Keeping()
    changes_days: float = 7.0
    place: Place | None = None
    policy: BackupPolicy = BackupPolicy()
    key: Key | None = None
    data: "Path | None" = None
    migration: "Path | None" = None
    points: "Path | None" = None


class Service(Struct):
    """What interfaces are given. `open` before use, `close` after."""

    storage: Storage
    clock: Clock
    memories: Memories
    searching: Searching
    namespaces: Namespaces
    sessions: Sessions
    jobs: Jobs
    upkeep: Upkeep
    tiering: Tiering
    histories: Histories
    transfer: Transfer
    backups: Backups
    contexts: Contexts
    graph: Graph
    bank: Bank
    migration: MemoryMigrationManager
    meaning: Meanings | None = None

    async def open(self) -> None:
        """Makes the storage ready. Raises StorageError and below."""
        await self.storage.open()
        await self.upkeep.flush()

    async def close(self) -> None:
        """Ends jobs, writes down what was gathered, closes the storage."""
        await self.jobs.close()
        await self.migration.close()
        if self.meaning is not None:
            await self.meaning.close()
        try:
            await self.upkeep.flush()
        finally:
            await self.storage.close()


def assemble(
    storage: Storage,
    clock: Clock,
    limits: Limits | None = None,
    *,
    read_only: bool = False,
    storage_limit: int = 0,
    embedder: "Callable[[], Embedder] | None" = None,
    meaning_cache: int = MEANING_CACHE,
    policy: Policy | None = None,
    safekeeping: Safekeeping | None = None,
) -> Service:
    """The service over a storage. `policy`: when values leave the warm tier, never by default. `embedder`: loads what search by
    meaning needs, which begins with `meaning.start()`. `safekeeping`: by default there is no place for backups.
    """
    limits = limits or Limits()
    kept = safekeeping or Safekeeping()
    accesses = Accesses(storage)
    guard = Guard(storage, read_only=read_only, limit=storage_limit)
    meaning = None if embedder is None else Meanings(storage, clock, guard, embedder, cache_bytes=meaning_cache)
    tiering = Tiering(storage, storage if isinstance(storage, Tiers) else None, clock, guard, policy or Policy())
    histories = Histories(storage, clock, guard, limits, kept.keeping, kept.changes_days)
    backups = Backups(storage, clock, guard, kept.place, kept.policy, kept.key, kept.data)
    memories = Memories(storage, clock, limits, accesses, guard, tiering)
    return Service(
        storage,
        clock,
        memories,
        Searching(storage, clock, accesses, limits, meaning),
        Namespaces(storage, clock, guard, limits.namespaces),
        Sessions(storage, clock, accesses, guard),
        Jobs(storage, clock),
        Upkeep(storage, clock, accesses, guard, tiering, histories, backups, meaning),
        tiering,
        histories,
        Transfer(storage, clock, guard, limits, accesses),
        backups,
        Contexts(storage, memories, clock),
        Graph(storage, memories, clock, guard),
        Bank(storage, memories, clock),
        MemoryMigrationManager(storage, clock, guard, backups, kept.migration, kept.points),
        meaning,
    )
