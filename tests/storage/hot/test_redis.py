"""RedisHot with a server that does what it should."""

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.storage.hot.bench import Bench
from tests.storage.hot.contract import HotContract
from tests.storage.hot.keeper import Warmed
from tests.storage.hot.servers import Server


@pytest.fixture
def server(lasting_server: Server) -> Server:
    return lasting_server


class TestRedis(HotContract):
    @pytest.fixture
    async def one(self, bench: Bench, server: Server) -> Warmed:
        return await bench.node(server.url)


@pytest.mark.system("redis-server")
class TestOldestRedis(HotContract):
    """Debian's Redis is the oldest that is promised to do."""

    @pytest.fixture
    async def one(self, bench: Bench, tmp_path: Path) -> AsyncIterator[Warmed]:
        program = shutil.which("redis-server")
        assert program is not None
        server = Server(tmp_path / "server", program=Path(program))
        await server.start()
        yield await bench.node(server.url)
        await server.kill()
