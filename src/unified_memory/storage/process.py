"""Copies in this process, of which each is asked about before it is given: has anything been committed since?

So a copy is never older than what any process on the same database has committed, and nobody needs to be told of writes.
What goes first, where there is no room, is what S3-FIFO says (Yang et al., "FIFO queues are all you need for cache eviction",
SOSP 2023): a tenth of the room is for what came lately, and only what was used again there, or comes back soon, enters the rest.
Hit ratios with room for 2,000 (500) of some 20,000 keys, on Zipf 1.0, with a fifth of scans, and where half the reads are of what
was just written: S3-FIFO .75 (.62), .60 (.50), .61 (.43); SIEVE .74 (.62), .59 (.50), .52 (.30); LRU .70 (.54), .52 (.40), .64
(.39); FIFO .66 (.49), .49 (.38), .61 (.35).
"""

import copy
import itertools
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from unified_memory.model.clock import SECOND
from unified_memory.model.errors import StorageError
from unified_memory.model.memory import Memory
from unified_memory.storage.base import Access
from unified_memory.storage.hot import Hot, HotCounts, HotState, Pledge, Ref, Ticket

# What a copy takes beside its texts: the record, its numbers, and its place in the queues (measured with tracemalloc).
OVERHEAD_BYTES = 1_000
# Of the room, for what came lately.
_LATELY = 0.1
# A copy that takes more would drive out too many others.
_LARGEST = 0.125
_MOST_USES = 3
_MOST_TICKETS = 10_000


class Changes(Protocol):
    """What the warm tier tells of commits, at once and without giving way to another task."""

    def stamp(self) -> int:
        """A number that differs whenever any process has committed a change since; takes a few microseconds."""

    def changed(self, since: int) -> tuple[int, list[Ref] | None]:
        """The stamp now, and the keys that changed since that one; None where namespaces have changed, or it is too much."""


class _Copy(Struct):
    """`until`: microseconds, at which it goes by HOT_TTL."""

    memory: Memory
    bytes: int
    until: int
    uses: int = 0


class ProcessHot(Hot):
    """Copies of up to `max_bytes` together, each for up to `ttl` seconds."""

    shared = False

    def __init__(self, changes: Changes, *, max_bytes: int, ttl: float) -> None:
        self._changes = changes
        self._max_bytes = max_bytes
        self._ttl = round(ttl * SECOND)
        self._rests = False
        self._stamp: int | None = None
        # Both in the order in which they came; the copies of a queue go from its front.
        self._lately: OrderedDict[Ref, _Copy] = OrderedDict()
        self._kept: OrderedDict[Ref, _Copy] = OrderedDict()
        self._lately_bytes = 0
        self._bytes = 0
        # Hashes of what has gone from `_lately`: what comes back soon is worth keeping.
        self._gone: OrderedDict[int, None] = OrderedDict()
        # A ticket stands until its key changes, so all who ask meanwhile share it.
        # By hash: names may be long. Two of one hash share a ticket, and the later one has it.
        self._tickets: OrderedDict[int, bytes] = OrderedDict()
        self._tokens = itertools.count(1)
        self._counts = HotCounts()

    async def open(self) -> None:
        """See Hot.open."""

    async def close(self) -> None:
        """See Hot.close."""
        self._forget()

    async def look(self, namespace: str, key: str, now: int) -> Memory | Ticket | None:
        """See Hot.look."""
        return self._look((namespace, key), now) if self._caught_up() else None

    async def look_many(self, refs: Sequence[Ref], now: int) -> list[Memory | Ticket | None]:
        """See Hot.look_many. All copies are of one instant."""
        if not self._caught_up():
            return [None] * len(refs)
        return [self._look(ref, now) for ref in refs]

    def _look(self, ref: Ref, now: int) -> Memory | Ticket | None:
        found = self._lately.get(ref) or self._kept.get(ref)
        if found is not None:
            if found.memory.visible(now) and now < found.until:
                self._counts.hits += 1
                found.uses = min(found.uses + 1, _MOST_USES)
                return copy.copy(found.memory)
            self._drop(ref)
        self._counts.misses += 1
        token = self._tickets.get(hash(ref))
        if token is None:
            token = self._tickets[hash(ref)] = next(self._tokens).to_bytes(8, "big")
            if len(self._tickets) > _MOST_TICKETS:
                self._tickets.popitem(last=False)
        return Ticket(ref[0], ref[1], token, "")

    def _caught_up(self) -> bool:
        """Drops what has changed; False where no copy may be given."""
        if self._rests:
            return False
        try:
            if self._changes.stamp() == self._stamp:
                return True
            if self._stamp is None:
                self._stamp = self._changes.stamp()
                return True
            self._stamp, refs = self._changes.changed(self._stamp)
        except StorageError:
            # The read of the warm tier that comes now says it to the caller.
            self._counts.failures += 1
            self._forget()
            return False
        if refs is None:
            self._forget()
        else:
            for ref in refs:
                self._drop(ref)
                self._tickets.pop(hash(ref), None)
        return True

    async def fill(self, found: Sequence[tuple[Ticket, Memory]], now: int) -> None:
        """See Hot.fill."""
        caught_up = self._caught_up()
        for ticket, memory in found:
            ref = (ticket.namespace, ticket.key)
            size = OVERHEAD_BYTES + len(memory.value) + len(memory.attributes) + len(memory.namespace) + len(memory.key)
            if caught_up and self._tickets.get(hash(ref)) == ticket.token and size <= self._max_bytes * _LARGEST:
                del self._tickets[hash(ref)]
                self._counts.fills += 1
                self._put(ref, _Copy(copy.copy(memory), size, now + self._ttl))
            else:
                self._counts.refused += 1

    def _put(self, ref: Ref, one: _Copy) -> None:
        self._drop(ref)
        while self._bytes + one.bytes > self._max_bytes:
            self._evict()
        self._bytes += one.bytes
        mark = hash(ref)
        if mark in self._gone:
            del self._gone[mark]
            self._kept[ref] = one
        else:
            self._lately[ref] = one
            self._lately_bytes += one.bytes

    def _evict(self) -> None:
        """Lets one copy go, or moves one on."""
        if self._lately and (self._lately_bytes >= self._max_bytes * _LATELY or not self._kept):
            ref, one = self._lately.popitem(last=False)
            self._lately_bytes -= one.bytes
            if one.uses:
                one.uses = 0
                self._kept[ref] = one
                return
            self._gone[hash(ref)] = None
            if len(self._gone) > len(self._kept) + len(self._lately):
                self._gone.popitem(last=False)
        else:
            ref, one = self._kept.popitem(last=False)
            if one.uses:
                one.uses -= 1
                self._kept[ref] = one
                return
        self._bytes -= one.bytes
        self._counts.evictions += 1

    def _drop(self, ref: Ref) -> None:
        if one := self._lately.pop(ref, None):
            self._lately_bytes -= one.bytes
        elif not (one := self._kept.pop(ref, None)):
            return
        self._bytes -= one.bytes

    def _forget(self) -> None:
        for queue in (self._lately, self._kept, self._gone, self._tickets):
            queue.clear()
        self._lately_bytes = self._bytes = 0

    async def begin(self, refs: Sequence[Ref], now: int) -> Pledge:  # noqa: ARG002 - every look asks
        """Nobody needs to be told."""
        return Pledge(refs, b"", "")

    async def settle(self, pledge: Pledge, memories: Sequence[Memory], now: int) -> None:
        """The commit tells of itself. Copies of the new version come with its first read."""

    async def outlive(self, now: int) -> None:
        """As settle."""

    async def count(self, accesses: Sequence[Access]) -> None:
        """See Hot.count."""
        for one in accesses:
            ref = (one.namespace, one.key)
            found = self._lately.get(ref) or self._kept.get(ref)
            if found is not None and found.memory.id == one.id:
                found.memory.access_count += one.count
                found.memory.last_accessed = max(found.memory.last_accessed or one.last, one.last)

    def rest(self) -> None:
        """See Hot.rest."""
        self._rests = True
        self._forget()

    def state(self) -> HotState:
        """See Hot.state."""
        self._counts.entries = len(self._lately) + len(self._kept)
        self._counts.bytes = self._bytes
        return HotState("process", trusted=not self._rests, trouble=None, note=None, counts=self._counts)
