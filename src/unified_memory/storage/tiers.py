"""What a storage of several tiers can do beside the contract of `base`: move values between the warm tier and archives."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Self

from msgspec import Struct

from unified_memory.storage.base import Problem, Progress
from unified_memory.storage.hot import HotState
from unified_memory.storage.warm import ArchiveUse, Demotable, TierUses


class Moved(Struct):
    """How many memories changed their tier, and how many bytes of value. `damaged`: values that cannot be read, and stay."""

    memories: int = 0
    bytes: int = 0
    damaged: int = 0

    def __iadd__(self, other: "Moved") -> Self:
        self.memories += other.memories
        self.bytes += other.bytes
        self.damaged += other.damaged
        return self


class Compacted(Struct):
    """What a compaction came to: values carried over, and bytes of files before and after. `damaged` values stay."""

    memories: int
    bytes_before: int
    bytes_after: int
    damaged: int = 0


class TierCounts(Struct):
    """What happened between tiers since this process began."""

    promotions: int = 0
    demotions: int = 0
    compactions: int = 0
    cold_reads: int = 0


class Tiers(ABC):
    """The moves. None of them changes a version, a place in the commit order, or when a memory expires."""

    @property
    @abstractmethod
    def counts(self) -> TierCounts:
        """What happened between tiers since this process began."""

    @property
    @abstractmethod
    def cold_off(self) -> str | None:
        """Why nothing can be archived, None where it can."""

    @property
    @abstractmethod
    def cold_trouble(self) -> str | None:
        """Why nothing can be archived although it should be."""

    @abstractmethod
    async def look_for_archives(self) -> None:
        """Looks whether the archives of this database are where they should be; until they are, nothing is archived."""

    @abstractmethod
    async def demotable(
        self, scopes: tuple[str, ...], now: int, *, recursive: bool, used_before: int, limit: int
    ) -> list[Demotable]:
        """See `Warm.demotable`."""

    @abstractmethod
    async def demote(self, chosen: Sequence[Demotable], now: int, progress: Progress | None = None) -> Moved:
        """Writes the values of those that are still as they were into one archive, and takes them out of the warm tier.

        Raises RefusedError where nothing can be archived. Whatever it raises, every memory is in one place.
        """

    @abstractmethod
    async def archived_ids(
        self, scopes: tuple[str, ...], now: int, *, recursive: bool, after_id: int, limit: int
    ) -> list[int]:
        """The ids of visible cold memories in these scopes, rising, those after `after_id`."""

    @abstractmethod
    async def promote(self, ids: Sequence[int], now: int) -> Moved:
        """Brings the values of cold memories back into the warm tier."""

    @abstractmethod
    async def archives(self) -> list[ArchiveUse]:
        """The archives that there are."""

    @abstractmethod
    async def compact(self, archive: str, now: int) -> Compacted:
        """Writes what is alive in an archive into a new one; the old one is dead then, unless some of it cannot be read."""

    @abstractmethod
    async def tidy(self, now: int) -> int:
        """Removes the files of archives that are dead, and what interrupted moves have left; how many archives went."""

    @abstractmethod
    async def uses(
        self, scopes: tuple[str, ...], now: int, *, recursive: bool, used_before: int | None = None
    ) -> TierUses:
        """See `Warm.tier_uses`."""

    @abstractmethod
    async def warm_files(self) -> int:
        """Bytes of the warm tier's files."""

    @abstractmethod
    async def check_archives(self, progress: Progress | None) -> list[Problem]:
        """Reads every archive whole; what is damaged or missing."""

    @abstractmethod
    def hot_state(self) -> HotState:
        """How the hot tier fares."""
