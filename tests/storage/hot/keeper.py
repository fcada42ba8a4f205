"""The era, kept in memory and shared by the nodes of a test; and a warm tier that is a dict."""

from collections.abc import Sequence

from msgspec import structs

from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import StorageError
from unified_memory.model.memory import Memory
from unified_memory.storage.base import Access
from unified_memory.storage.hot import Hot, Pledge, Ref, Ticket
from unified_memory.storage.warm import Trust


class MemoryKeeper:
    """A TrustKeeper without I/O."""

    def __init__(self) -> None:
        self.era = ""
        self.servers: frozenset[str] = frozenset()
        self.mutes: dict[str, int] = {}
        self.changes = 0
        self.broken = False
        self.asked = 0
        self.muted = 0

    async def trust(self, now: int) -> Trust:
        self.asked += 1
        self._work()
        muted = any(until > now for until in self.mutes.values())
        return Trust(self.era, self.servers, muted, self.changes)

    async def begin_era(self, expected: str, era: str, servers: Sequence[str], now: int) -> Trust:
        self._work()
        if expected == self.era and not any(until > now for until in self.mutes.values()):
            self.set(era, frozenset(servers))
        return await self.trust(now)

    async def mute(self, node: str, now: int, until: int) -> None:
        self._work()
        self.mutes.pop(node, None)
        if until > now:
            self.muted += 1
            self.mutes[node] = until
            self.set("", frozenset())

    def set(self, era: str, servers: frozenset[str]) -> None:
        if era != self.era:
            self.changes += 1
        self.era, self.servers = era, servers

    def end_by_commit(self, era: str) -> None:
        """What deleting a namespace does."""
        if self.era:
            self.set(era, self.servers)

    def _work(self) -> None:
        if self.broken:
            raise StorageError("The warm tier is broken")


class Rows:
    """The warm tier: what stands at each key, and the last version that each ever had."""

    def __init__(self) -> None:
        self.memories: dict[Ref, Memory] = {}
        self.versions: dict[Ref, int] = {}
        self.seq = 0
        self.changed: list[tuple[int, Ref]] = []

    def put(
        self,
        key: str = "k",
        value: bytes = b'"v"',
        *,
        namespace: str = "n",
        expires_at: int | None = None,
        session_id: str | None = None,
    ) -> Memory:
        ref = (namespace, key)
        self.seq += 1
        version = self.versions[ref] = self.versions.get(ref, 0) + 1
        old = self.memories.get(ref)
        self.memories[ref] = Memory(
            id=old.id if old else self.seq,
            namespace=namespace,
            key=key,
            value=value,
            attributes=b'{"tags":["a"],"more":null}',
            importance=5,
            session_id=session_id,
            project_id=None,
            created_at=1,
            updated_at=self.seq,
            expires_at=expires_at,
            access_count=0,
            last_accessed=None,
            version=version,
            seq=self.seq,
        )
        self.changed.append((self.seq, ref))
        return self.get(ref)

    def remove(self, key: str = "k", *, namespace: str = "n") -> None:
        self.seq += 1
        del self.memories[namespace, key]
        self.versions[namespace, key] += 1
        self.changed.append((self.seq, (namespace, key)))

    def get(self, ref: Ref) -> Memory:
        return structs.replace(self.memories[ref])


class Warmed:
    """A hot tier over Rows, as the service uses the two."""

    def __init__(self, hot: Hot, rows: Rows, clock: SettableClock) -> None:
        self.hot = hot
        self.rows = rows
        self.clock = clock

    async def read(self, key: str = "k", namespace: str = "n") -> Memory | None:
        """Reads through."""
        found = await self.hot.look(namespace, key, self.clock.now())
        if isinstance(found, Memory):
            return found
        memory = self.rows.memories.get((namespace, key))
        if memory is not None and isinstance(found, Ticket):
            await self.hot.fill([(found, structs.replace(memory))], self.clock.now())
        return memory

    async def copied(self, key: str = "k") -> Memory | None:
        """Reads through with a new lease, however busy the machine is, so that there is a copy afterwards."""
        await self.hot.open()
        return await self.read(key)

    async def sees(self, memory: Memory | None, key: str = "k") -> bool:
        """Whether that is read, with the lease that is left, with a new one, and once more, when there may be a copy."""
        found = [await self.read(key)]
        await self.hot.open()
        found += [await self.read(key), await self.read(key)]
        return found == [memory] * 3

    async def store(self, key: str = "k", value: bytes = b'"v"', *, session_id: str | None = None) -> Memory:
        """Writes through."""
        pledge = await self.hot.begin([("n", key)], self.clock.now())
        memory = self.rows.put(key, value, session_id=session_id)
        await self.hot.settle(pledge, [memory], self.clock.now())
        return memory

    async def remove(self, key: str = "k") -> None:
        pledge = await self.hot.begin([("n", key)], self.clock.now())
        self.rows.remove(key)
        await self.hot.settle(pledge, [], self.clock.now())

    async def copy(self, key: str = "k", namespace: str = "n") -> Memory | None:
        """The copy that is given to a node that has just renewed its lease; a ticket that was given instead is dropped."""
        await self.hot.open()
        found = await self.hot.look(namespace, key, self.clock.now())
        return found if isinstance(found, Memory) else None

    async def ticket(self, key: str = "k", namespace: str = "n") -> Ticket:
        """The ticket that a node is given which has just renewed its lease."""
        await self.hot.open()
        found = await self.hot.look(namespace, key, self.clock.now())
        assert isinstance(found, Ticket)
        return found

    async def begin(self, *keys: str) -> Pledge:
        return await self.hot.begin([("n", key) for key in keys or ("k",)], self.clock.now())

    async def settle(self, pledge: Pledge, *memories: Memory) -> None:
        await self.hot.settle(pledge, memories, self.clock.now())

    async def count(self, memory: Memory, times: int, last: int) -> None:
        await self.hot.count([Access(memory.id, times, last, memory.namespace, memory.key)])
