"""Counts of accesses: gathered here, written down in bulk, so that no read ever writes."""

from unified_memory.model.errors import StorageError
from unified_memory.model.memory import Memory
from unified_memory.storage.base import Access, Storage

CHUNK = 1000
MAX_GATHERED = 100_000


class Accesses:
    """What was retrieved since the last flush. A kill loses at most that much of the counts, and nothing else."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._gathered: dict[int, Access] = {}

    def count(self, memory: Memory, now: int) -> None:
        """Counts one access; the memory in hand shows all accesses so far, this one too."""
        gathered = self._gathered.get(memory.id)
        if gathered is None:
            if len(self._gathered) >= MAX_GATHERED:
                return
            gathered = self._gathered[memory.id] = Access(memory.id, 0, now, memory.namespace, memory.key)
        gathered.count += 1
        gathered.last = max(gathered.last, now)
        self.show(memory)

    def show(self, memory: Memory) -> Memory:
        """Makes the memory tell also the accesses that are not written down yet."""
        gathered = self._gathered.get(memory.id)
        if gathered is not None:
            memory.access_count += gathered.count
            memory.last_accessed = max(gathered.last, memory.last_accessed or 0)
        return memory

    async def flush(self) -> int:
        """Writes down what was gathered; of how many memories."""
        gathered, self._gathered = self._gathered, {}
        accesses = list(gathered.values())
        for start in range(0, len(accesses), CHUNK):
            try:
                await self._storage.touch(accesses[start : start + CHUNK])
            except StorageError:
                # They are tried again at the next flush.
                for one in accesses[start:]:
                    self._add(one)
                raise
        return len(accesses)

    def _add(self, one: Access) -> None:
        since = self._gathered.setdefault(one.id, Access(one.id, 0, one.last, one.namespace, one.key))
        since.count += one.count
        since.last = max(since.last, one.last)
