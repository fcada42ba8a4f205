"""A bench for nodes, and servers."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.storage.hot.bench import Bench
from tests.storage.hot.servers import Server


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    yield made
    await made.close()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """One of the test's own, to be harmed in any way."""
    made = Server(tmp_path / "server")
    await made.start()
    yield made
    await made.kill()


@pytest.fixture(scope="session")
def _lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    yield made
    asyncio.run(made.kill())


@pytest.fixture
async def lasting_server(_lasting: Server) -> Server:
    """One that tests share, empty; it may be killed, but not told to be otherwise."""
    if not _lasting.running:
        await _lasting.start()
    await _lasting.do("FLUSHALL")
    return _lasting
