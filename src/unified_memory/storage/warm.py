"""What a warm tier keeps beside the contract of `base`: stubs of memories whose values lie in archives, and the word on which
hot copies are trusted.

A *stub* is a memory like any other, found by list, search and query, whose value is fetched from an archive when it is read.
An archive is named in the warm tier before its file is written (`writing`), and its file is removed only after no stub refers to
it and the warm tier says so (`dead`): a kill at any instant leaves every memory in exactly one place.

The *era* names all hot copies that may be read. It is one text, empty where nobody uses hot copies, changed in the warm
tier's own commit order. Whoever reads hot copies has asked for the era no longer than `LEASE_SECONDS` before; so what a write
could not make known is unreadable so long after the era has ended.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from unified_memory.storage.base import Storage

# How long an era may be trusted after it was asked for.
LEASE_SECONDS = 0.25
# How long no era begins after a write that could not be told.
MUTE_SECONDS = 10


class ColdValues(Protocol):
    """Reads values out of archives; may be called by any thread."""

    def read(self, archive: str, block: int, slot: int, number: int) -> bytes:
        """The value of the memory with that id. Raises StorageCorruptError naming archive and block, ArchiveMissingError."""


class Place(Struct, frozen=True):
    """Where an archive holds a value: of the memory `id`, as it was at `seq` in the commit order."""

    id: int
    seq: int
    block: int
    slot: int


class Demotable(Struct, frozen=True):
    """A memory that could be moved to the cold tier: `bytes` of value, last used at `used_at`."""

    id: int
    seq: int
    bytes: int
    importance: int
    used_at: int


class ArchiveUse(Struct):
    """An archive as the warm tier knows it. `state`: writing, live or dead, since `changed_at`.

    `memories`, `bytes_raw`, `bytes_stored`: as it was written. `live`, `live_bytes`: what stubs still refer to.
    """

    name: str
    state: str
    changed_at: int
    memories: int
    bytes_raw: int
    bytes_stored: int
    live: int
    live_bytes: int


class TierUses(Struct):
    """How many visible memories have their value in which tier, and of how many bytes."""

    warm: int = 0
    warm_bytes: int = 0
    cold: int = 0
    cold_bytes: int = 0


class Trust(Struct, frozen=True):
    """The era of hot copies, empty for none, and the servers that it is kept on. `muted`: none may begin now.

    `changes`: how often the era has changed, so that one which came and went between two questions shows.
    """

    era: str
    servers: frozenset[str]
    muted: bool
    changes: int = 0


class TrustKeeper(Protocol):
    """Where the era is kept: durable, and in the order of the writes themselves."""

    async def trust(self, now: int) -> Trust:
        """The era as of this instant; quick enough to be asked with every write."""

    async def begin_era(self, expected: str, era: str, servers: Sequence[str], now: int) -> Trust:
        """Begins an era in place of the `expected` one, unless that has ended or somebody is mute; the one that holds now."""

    async def mute(self, node: str, now: int, until: int) -> None:
        """Ends the era, durably, and lets none begin before `until`. With `until` <= `now` the node is mute no longer."""


class Warm(Storage):
    """A warm tier."""

    # ---- stubs
    @abstractmethod
    async def demotable(
        self, scopes: tuple[str, ...], now: int, *, recursive: bool, used_before: int, limit: int
    ) -> list[Demotable]:
        """Visible memories with their value here that were not accessed or written since, least important first, then those
        that were not used for longest.
        """

    @abstractmethod
    async def archive_token(self, proposed: str) -> str:
        """The text by which the place of the archives is known; the proposed one from now on, where there is none."""

    @abstractmethod
    async def reserve_archive(self, name: str, now: int) -> None:
        """Names an archive that is going to be written."""

    @abstractmethod
    async def put_stubs(self, archive: str, places: Sequence[Place]) -> tuple[int, int]:
        """Takes the values of memories that are still as they were out of the warm tier; how many, and of how many bytes.

        Changes no version and no seq. Raises ConflictError where the archive is no longer one that is being written.
        """

    @abstractmethod
    async def publish_archive(self, name: str, memories: int, bytes_raw: int, bytes_stored: int, now: int) -> None:
        """The archive has all its stubs: it is live. Raises ConflictError where it is no longer one that is being written."""

    @abstractmethod
    async def take_back(self, values: Sequence[tuple[int, int, bytes]]) -> tuple[int, int]:
        """Puts values (id, seq, value) of stubs that are still as they were into the warm tier; how many, and of how many
        bytes. Changes no version and no seq.
        """

    @abstractmethod
    async def archives(self) -> list[ArchiveUse]:
        """All archives that are named."""

    @abstractmethod
    async def stubs(self, archive: str, after_id: int, limit: int) -> list[Place]:
        """The stubs that refer to an archive, by id."""

    @abstractmethod
    async def move_stubs(self, source: str, target: str, places: Sequence[Place]) -> int:
        """Lets stubs that still refer to `source` refer to `target`, which is being written; how many.

        Raises ConflictError where `target` is no longer one that is being written.
        """

    @abstractmethod
    async def retire_archive(self, name: str, now: int) -> bool:
        """Declares an archive dead unless stubs refer to it; whether it is."""

    @abstractmethod
    async def forget_archive(self, name: str) -> bool:
        """Forgets a dead archive, whose file has been removed; whether it was one."""

    @abstractmethod
    async def stub_ids(
        self, scopes: tuple[str, ...], now: int, *, recursive: bool, after_id: int, limit: int
    ) -> list[int]:
        """The ids of visible stubs in these scopes, rising, those after `after_id`."""

    @abstractmethod
    async def tier_uses(
        self, scopes: tuple[str, ...], now: int, *, recursive: bool, used_before: int | None = None
    ) -> TierUses:
        """How much of what is visible in these scopes lies where; with `used_before` of what was not used since."""

    @abstractmethod
    async def pin_archives(self, holder: str, now: int, until: int) -> None:
        """Keeps the files of all archives, dead ones too, until that instant, for `holder`, who says so again and again; no
        longer with `until` <= `now`.
        """

    @abstractmethod
    async def archives_pinned(self, now: int) -> bool:
        """Whether anybody keeps the files of archives."""

    # ---- aside
    @abstractmethod
    async def aside(self) -> "Warm":
        """See `Storage.aside`."""

    # ---- hot copies
    @abstractmethod
    def mute_with_writes(self, node: str) -> None:
        """For a process that cannot tell hot copies: from now on each of its commits that changes memories ends the era, and
        lets none begin for MUTE_SECONDS, in that very commit.
        """

    @property
    @abstractmethod
    def copies_used(self) -> bool:
        """Whether anybody may be using hot copies, as of this process' last commit."""

    @abstractmethod
    async def trust(self, now: int) -> Trust:
        """See `TrustKeeper.trust`. Deleting or renaming a namespace, and ending a session with its memories, begin another
        era in the same commit where there is one.
        """

    @abstractmethod
    async def begin_era(self, expected: str, era: str, servers: Sequence[str], now: int) -> Trust:
        """See `TrustKeeper.begin_era`."""

    @abstractmethod
    async def mute(self, node: str, now: int, until: int) -> None:
        """See `TrustKeeper.mute`."""
