"""The contract on all three tiers: with copies in a real Valkey, and with copies in the process."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.storage.contract import StorageContract
from tests.storage.drafts import store
from tests.storage.hot.servers import Server
from tests.storage.test_tiered import make, node, opened
from unified_memory.model.clock import SystemClock
from unified_memory.storage.archive import Archive, Directory
from unified_memory.storage.base import Storage
from unified_memory.storage.process import ProcessHot
from unified_memory.storage.redis import RedisHot
from unified_memory.storage.sqlite import SQLiteStorage
from unified_memory.storage.tiered import TieredStorage
from unified_memory.storage.untold import Untold
from unified_memory.storage.warm import LEASE_SECONDS


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One for all tests; each has a database, and so an era, of its own."""
    server = Server(tmp_path_factory.mktemp("redis"))
    asyncio.run(server.start())
    yield server
    asyncio.run(server.kill())


@pytest.mark.slow
class TestWithRedis(StorageContract):
    @pytest.fixture
    async def storage(self, tmp_path: Path, server: Server) -> AsyncIterator[Storage]:
        async for storage in opened(node(tmp_path, SystemClock(), server.url)):
            yield storage


class TestWithCopiesInTheProcess(StorageContract):
    @pytest.fixture
    async def storage(self, tmp_path: Path) -> AsyncIterator[Storage]:
        clock = SystemClock()
        archive = Archive(Directory(tmp_path / "archive"))
        warm = SQLiteStorage(tmp_path / "memory.db", cold=archive, clock=clock)
        hot = ProcessHot(warm, max_bytes=1_000_000, ttl=3600.0)
        async for storage in opened(make(warm, clock, hot=hot, others=Untold(warm, clock), archive=archive)):
            yield storage


class _KilledError(Exception):
    pass


class _Killed(TieredStorage):
    """Is killed between its commit and whatever it would say of it."""

    async def _look_round(self) -> None:
        raise _KilledError


async def test_a_writer_without_redis_that_is_killed_after_its_commit_leaves_no_old_copy(
    tmp_path: Path, server: Server
) -> None:
    clock = SystemClock()
    reader = node(tmp_path, clock, server.url)
    warm = SQLiteStorage(tmp_path / "memory.db", clock=clock)
    kind: Callable[..., TieredStorage] = _Killed
    writer = kind(warm, clock, others=Untold(warm, clock))
    await reader.open()
    await writer.open()
    await store(reader, "k", "old", now=clock.now())
    async with asyncio.timeout(30):
        while reader.hot_state().counts.hits < 3:
            assert await reader.get("default", "k", clock.now()) is not None
            await asyncio.sleep(0.01)
    with pytest.raises(_KilledError):
        await store(writer, "k", "new", now=clock.now())
    # As it would be after a kill: nothing waits, and whoever had copies may have asked for the era just before.
    await asyncio.sleep(LEASE_SECONDS)
    for _ in range(20):
        found = await reader.get("default", "k", clock.now())
        assert found is not None
        assert found.parsed() == "new"
        await asyncio.sleep(0.05)
    await writer.close()
    await reader.close()


async def test_what_redis_would_give_is_not_measured_where_it_does_not_answer(tmp_path: Path) -> None:
    clock = SystemClock()
    warm = SQLiteStorage(tmp_path / "memory.db", clock=clock)
    hot = RedisHot("redis://127.0.0.1:1/0", warm, clock=clock, max_bytes=1_000_000, ttl=60.0)
    storage = make(warm, clock, hot=hot, auto=True)
    await storage.open()
    state = storage.hot_state()
    assert state.note == "Copies could not be tried at the start: they are not read (HOT_TIER=auto)"
    assert (state.trusted, state.counts.misses) == (False, 0)
    await storage.close()
