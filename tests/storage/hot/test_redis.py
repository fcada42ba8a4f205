"""RedisHot with a server that does what it should."""

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
