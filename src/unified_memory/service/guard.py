"""Whether this process takes writes: off by setting, by command for all processes, or by itself near the storage limit."""

from unified_memory.model.errors import ReadOnlyError, StorageFullError
from unified_memory.storage.base import Storage

# Deletes need room to be written down too.
NEAR = 0.95


class Guard:
    """Refuses what would store more; deletes are never asked. `limit`: bytes of all files, 0 is unlimited."""

    def __init__(self, storage: Storage, *, read_only: bool, limit: int) -> None:
        self._storage = storage
        self._limit = limit
        self._by_setting = read_only
        self._full = False

    def check(self) -> None:
        """Raises ReadOnlyError, or StorageFullError near STORAGE_LIMIT."""
        if self._by_setting:
            raise ReadOnlyError("READ_ONLY is set")
        if self._full:
            raise StorageFullError(f"STORAGE_LIMIT of {self._limit} bytes is nearly reached; nothing was stored")

    async def look(self) -> None:
        """Measures the files."""
        size = await self._storage.size() if self._limit else None
        self._full = size is not None and size >= self._limit * NEAR

    async def switched_off(self) -> str | None:
        """Why writes are off by setting or by command, so that nothing at all should move; None where they are not."""
        return "READ_ONLY is set" if self._by_setting else await self._storage.read_only()

    async def reason(self) -> str | None:
        """Why writes are off, None where they are on."""
        if self._full and not self._by_setting:
            return "STORAGE_LIMIT is nearly reached"
        return await self.switched_off()

    async def switch(self, reason: str | None) -> None:
        """Switches writes off for every process, or on again."""
        await self._storage.set_read_only(reason)
