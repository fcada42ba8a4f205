"""The contract on all three tiers: with copies in a real Valkey, and with copies in the process."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.storage.contract import StorageContract
from tests.storage.hot.servers import Server
from tests.storage.test_tiered import make, node, opened
from unified_memory.model.clock import SystemClock
from unified_memory.storage.archive import Archive, Directory
from unified_memory.storage.base import Storage
from unified_memory.storage.process import ProcessHot
from unified_memory.storage.sqlite import SQLiteStorage
from unified_memory.storage.untold import Untold


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
