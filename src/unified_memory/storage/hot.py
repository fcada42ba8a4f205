"""The contract of a hot tier: copies of memories that may be lost at any moment and are never older than what was acknowledged.

How that is kept. A reader that finds no copy gets a *ticket*, takes the memory from the warm tier and puts a copy with the
ticket; the copy is taken only while the ticket still stands at that key. A write *begins* before its commit: whatever stands at
its keys, copies and tickets, gives way to the write's own mark, which nobody can read and over which nobody can put. After the
commit it is *settled*: the mark gives way to a copy of the new version, or to nothing; a copy of a lower version that came in
between goes. So nothing that was read before a commit can be put after it, whatever is lost, evicted or late; and a writer that
is killed between its commit and its settling leaves a mark, not an old copy.

When a copy cannot be made unreadable the warm tier is told (`TrustKeeper.mute`), and the write goes on once the lease on trust
has run out everywhere. `tests/storage/hot/contract.py` is this text as tests.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from msgspec import Struct

from unified_memory.model.memory import Memory
from unified_memory.storage.base import Access

Ref = tuple[str, str]


class Ticket(Struct, frozen=True):
    """The right to put a copy of one key: it stands there as `token` in that `era`."""

    namespace: str
    key: str
    token: bytes
    era: str


class Pledge(Struct):
    """A write that has begun: its mark `token` stands at these keys in that `era` (empty: nowhere, there was no need)."""

    refs: Sequence[Ref]
    token: bytes
    era: str


class HotCounts(Struct):
    """What happened since this process began; `entries` and `bytes` are what is there now, None where that is not known."""

    entries: int | None = None
    bytes: int | None = None
    hits: int = 0
    misses: int = 0
    fills: int = 0
    refused: int = 0
    evictions: int = 0
    failures: int = 0


class HotState(Struct):
    """`kind`: redis, process or none. `trusted`: copies are being read. `trouble`: why they are not, where they should be.

    `note`: anything else that is worth telling, such as what a measurement has decided.
    """

    kind: str
    trusted: bool
    trouble: str | None
    note: str | None
    counts: HotCounts


NO_HOT = HotState("none", trusted=False, trouble=None, note=None, counts=HotCounts())


class Hot(ABC):
    """Copies of memories. `shared`: other processes may use the same ones.

    No method but `begin`, `settle`, `outlive` and `open` raises: what fails is a miss, and is counted.
    """

    shared: ClassVar[bool] = True

    @abstractmethod
    async def open(self) -> None:
        """Makes ready. A server that does not answer is no error. Raises InvalidInputError for a URL that is none."""

    @abstractmethod
    async def close(self) -> None:
        """Frees everything. May be called more than once."""

    @abstractmethod
    async def look(self, namespace: str, key: str, now: int) -> Memory | Ticket | None:
        """The copy of a visible memory; or the right to put one; or neither."""

    @abstractmethod
    async def look_many(self, refs: Sequence[Ref], now: int) -> list[Memory | Ticket | None]:
        """The same for many keys, in order."""

    @abstractmethod
    async def fill(self, found: Sequence[tuple[Ticket, Memory]], now: int) -> None:
        """Puts copies of what was read from the warm tier after the ticket was given; each lives no longer than its memory and
        no longer than HOT_TTL.
        """

    @abstractmethod
    async def begin(self, refs: Sequence[Ref], now: int) -> Pledge:
        """Before a commit that may change these keys: returns once no reader anywhere is given a copy of them.

        Raises StorageError where neither the hot tier nor the warm one could be told; then nothing may be written.
        """

    @abstractmethod
    async def settle(self, pledge: Pledge, memories: Sequence[Memory], now: int) -> None:
        """After the commit, or after its failure: `memories` are those of the keys that stand there now and are worth a copy.

        Returns once no reader anywhere is given what was there before. Raises StorageError where that could not be reached.
        """

    @abstractmethod
    async def outlive(self, now: int) -> None:
        """After a commit that has ended the era: returns once no reader anywhere uses copies of before. Raises StorageError."""

    @abstractmethod
    async def count(self, accesses: Sequence[Access]) -> None:
        """Adds accesses to the copies that are there, as they were added in the warm tier."""

    @abstractmethod
    def rest(self) -> None:
        """Gives no copies and takes none from now on; writes are told all the same, where others use copies."""

    @abstractmethod
    def state(self) -> HotState:
        """How it fares."""
