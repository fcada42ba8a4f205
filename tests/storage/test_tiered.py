"""The contract where every value is archived at once, and how tests make storages of several tiers."""

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.storage.contract import StorageContract
from unified_memory.model.clock import Clock, SystemClock
from unified_memory.storage.archive import Archive, Directory
from unified_memory.storage.base import Edit, Storage
from unified_memory.storage.redis import RedisHot
from unified_memory.storage.sqlite import SQLiteStorage
from unified_memory.storage.tiered import TieredStorage

LAST = 2**62
# Its methods are made of the contract, which types do not see.
make: Callable[..., TieredStorage] = TieredStorage


def tiered(directory: Path, kind: Callable[..., TieredStorage] = make) -> TieredStorage:
    archive = Archive(Directory(directory / "archive"))
    return kind(SQLiteStorage(directory / "memory.db", cold=archive), SystemClock(), archive=archive)


def node(directory: Path, clock: Clock, redis_url: str, *, max_bytes: int = 16_000_000) -> TieredStorage:
    """A node with all three tiers, over whatever others have on that directory and that server."""
    archive = Archive(Directory(directory / "archive"))
    warm = SQLiteStorage(directory / "memory.db", cold=archive, clock=clock)
    hot = RedisHot(redis_url, warm, clock=clock, max_bytes=max_bytes, ttl=3600.0)
    return make(warm, clock, hot=hot, archive=archive)


async def opened(storage: TieredStorage) -> AsyncIterator[Storage]:
    await storage.open()
    yield storage
    await storage.close()
    # Whatever a test did, nothing disagrees with anything.
    await storage.open()
    assert await storage.check(fix=False) == []
    await storage.close()


class Icy(TieredStorage):
    """Archives whatever was written before anybody can look."""

    async def edit(self, edits: Sequence[Edit], now: int, **named: Any) -> Any:
        outcomes = await super().edit(edits, now, **named)
        if chosen := await self.demotable(("",), now, recursive=True, used_before=LAST, limit=1000):
            await self.demote(chosen, now)
        if isinstance(outcomes, list):
            written = [one.memory for one in outcomes if one.written and one.memory is not None]
            for memory in written:
                # It was written warm, and is cold by now.
                memory.tier = "cold" if memory.visible(now) else "warm"
        return outcomes


class TestIcy(StorageContract):
    tier = "cold"

    @pytest.fixture
    async def storage(self, tmp_path: Path) -> AsyncIterator[Storage]:
        async for storage in opened(tiered(tmp_path, Icy)):
            yield storage
