"""Everything out of the storage, and in again."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from msgspec import structs

from unified_memory.model.history import Past
from unified_memory.model.memory import Memory
from unified_memory.model.session import Session
from unified_memory.storage.base import Storage
from unified_memory.storage.dump import Buried, Floor, Row, Snapshot, Space, Used
from unified_memory.storage.inmemory.record import derive
from unified_memory.storage.inmemory.state import KeptSpace, State
from unified_memory.storage.inmemory.unit import Ref

T = TypeVar("T")


class Frozen(Snapshot):
    """A copy of everything: what is kept is never changed in place."""

    def __init__(
        self,
        store: str,
        instant: int,
        seq: int,
        *,
        spaces: Sequence[Space],
        floors: Sequence[Floor],
        buried: Sequence[Buried],
        memories: Sequence[Memory],
        past: Sequence[Past],
        sessions: Sequence[Session],
    ) -> None:
        visible = [memory for memory in memories if memory.visible(instant)]
        passed = [memory for memory in memories if not memory.visible(instant)]
        self.store, self.instant, self.seq, self.schema = store, instant, seq, 0
        self.memory_count, self.memory_bytes = len(visible), sum(len(memory.value) for memory in visible)
        self.namespaces = dict(Counter(memory.namespace for memory in visible))
        self._spaces, self._floors, self._sessions, self._memories = spaces, floors, sessions, visible
        # That time has passed is no change in the commit order: each link tells it.
        self._expired = [_buried(memory) for memory in passed]
        self._buried = buried
        ids = {memory.id for memory in passed}
        self._past = [row for row in past if row.memory.id not in ids]

    def spaces(self) -> Iterator[Space]:
        """See `Snapshot.spaces`."""
        return iter(self._spaces)

    def floors(self) -> Iterator[Floor]:
        """See `Snapshot.floors`."""
        return iter(self._floors)

    def buried(self, after: int = 0) -> Iterator[Buried]:
        """See `Snapshot.buried`."""
        told = [*(one for one in self._buried if one.seq > after), *self._expired]
        return (structs.replace(one) for one in told)

    def memories(self, after: int = 0) -> Iterator[Memory]:
        """See `Snapshot.memories`."""
        return (structs.replace(memory) for memory in self._memories if memory.seq > after)

    def past(self, after: int = 0) -> Iterator[Past]:
        """See `Snapshot.past`."""
        return (structs.replace(row, memory=structs.replace(row.memory)) for row in self._past if row.touched > after)

    def used(self, after: int, since: int) -> Iterator[Used]:
        """See `Snapshot.used`."""
        for memory in self._memories:
            if memory.seq <= after and memory.last_accessed is not None and memory.last_accessed >= since:
                yield Used(memory.id, memory.access_count, memory.last_accessed)

    def sessions(self) -> Iterator[Session]:
        """See `Snapshot.sessions`."""
        return (structs.replace(session) for session in self._sessions)


class DumpPart(State):
    """The part of the storage that gives and takes everything."""

    async def snapshot(self, work: Callable[[Snapshot], T], now: int) -> T:
        """See `Storage.snapshot`."""
        return await asyncio.to_thread(work, self._frozen(now))

    def _frozen(self, now: int) -> Frozen:
        spaces = [
            Space(name, one.number, one.config, one.created_at, one.explicit, self._top_version(name))
            for name, one in sorted(self._spaces.items())
        ]
        return Frozen(
            self._store,
            now,
            self._seq,
            spaces=spaces,
            floors=[Floor(name, version) for name, version in sorted(self._floors.items())],
            buried=sorted(
                (one for ref, one in self._buried.items() if ref not in self._records), key=lambda one: one.seq
            ),
            memories=[record.memory for record in self._records.values()],
            past=[row for ref, rows in sorted(self._past.items()) for row in rows if ref[0] in self._spaces],
            sessions=[session for _, session in self._sessions.values()],
        )

    async def aside(self) -> Storage:
        """See `Storage.aside`."""
        return type(self)(self._clock, self._keeping)

    async def drop_aside(self, other: Storage) -> None:
        """See `Storage.drop_aside`."""
        await other.close()

    # ---- in again

    async def put_back(self, rows: Sequence[Row], now: int) -> None:  # noqa: ARG002 - what has passed is invisible by itself
        """See `Storage.put_back`. What has expired goes with `all_back`: a later link may tell that it did not."""
        if rows and isinstance(rows[0], Space):
            self._put_spaces([row for row in rows if isinstance(row, Space)])
        for row in rows:
            match row:
                case Floor():
                    self._floors[row.name] = row.version
                case Buried():
                    self._put_buried(row)
                case Memory():
                    self._put_memory(row)
                case Past():
                    self._put_past(row)
                case Used() if row.id in self._refs:
                    ref = self._refs[row.id]
                    memory = structs.replace(self._records[ref].memory, access_count=row.count, last_accessed=row.last)
                    self._records[ref] = structs.replace(self._records[ref], memory=memory)
                case Session():
                    self._sessions[row.namespace, row.id] = (self._next_serial(), row)
                case _:
                    pass

    async def all_back(self, now: int) -> None:
        """See `Storage.all_back`."""
        self._drop_doubtful()
        for record in list(self._records.values()):
            if not record.memory.visible(now):
                self._put_buried(_buried(record.memory))

    def _put_spaces(self, spaces: list[Space]) -> None:
        self._drop_doubtful()
        before = {name: one.number for name, one in self._spaces.items()}
        same = {space.name for space in spaces if before.get(space.name) == space.number}
        self._records = {ref: record for ref, record in self._records.items() if ref[0] in same}
        self._refs = {record.memory.id: ref for ref, record in self._records.items()}
        self._past = {ref: rows for ref, rows in self._past.items() if ref[0] in same}
        self._sessions = {}
        self._spaces = {
            one.name: KeptSpace(one.config, one.created_at, one.explicit, one.number, one.top_version) for one in spaces
        }
        self._last_serial = max([self._last_serial, *(space.number for space in spaces)])

    def _put_buried(self, row: Buried) -> None:
        ref = (row.namespace, row.key)
        self._unseat(ref, row.id)
        self._buried[ref] = row
        self._note(ref, row.version, row.seq, row.id)
        if row.reason == "expired":
            self._drop_past({row.id})

    def _put_memory(self, memory: Memory) -> None:
        ref = (memory.namespace, memory.key)
        self._unseat(self._refs.get(memory.id, ref), memory.id)
        self._unseat(ref, memory.id)
        self._records[ref] = derive(memory)
        self._refs[memory.id] = ref
        self._buried.pop(ref, None)
        self._note(ref, memory.version, memory.seq, memory.id)

    def _put_past(self, row: Past) -> None:
        memory = row.memory
        for rows in self._past.values():
            rows[:] = [one for one in rows if (one.memory.id, one.memory.version) != (memory.id, memory.version)]
        ref = (memory.namespace, memory.key)
        self._past[ref] = sorted([*self._past.get(ref, ()), row], key=lambda one: one.memory.version)
        self._note(ref, memory.version, row.touched, memory.id)
        if memory.version >= self._doubtful.get(memory.id, memory.version + 1):
            del self._doubtful[memory.id]

    def _unseat(self, ref: Ref, number: int) -> None:
        """Takes away what the key holds. Where another memory ended there its own end is not told, unless by its past."""
        record = self._records.pop(ref, None)
        if record is not None:
            del self._refs[record.memory.id]
            if record.memory.id != number:
                self._doubtful[record.memory.id] = record.memory.version

    def _drop_doubtful(self) -> None:
        """Drops the past of memories of which neither a link tells the last version: they expired."""
        self._drop_past(self._doubtful.keys() - self._refs.keys())
        self._doubtful = {}

    def _note(self, ref: Ref, version: int, seq: int, number: int) -> None:
        self._versions[ref] = max(self._versions.get(ref, 0), version)
        self._seq = max(self._seq, seq)
        self._last_id = max(self._last_id, number)
        self._feed_floor = self._seq


def _buried(memory: Memory) -> Buried:
    """What is told of a memory that nobody has cleaned up since its time passed."""
    ended_at = memory.expires_at or 0
    return Buried(memory.namespace, memory.key, memory.version, memory.seq, memory.id, ended_at, "expired")
