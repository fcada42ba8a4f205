"""Redis behind sentinels: the master is found, and found again after a failover."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.storage.hot.bench import Bench, recovered, until
from tests.storage.hot.servers import Server


@pytest.fixture
async def trio(tmp_path: Path) -> AsyncIterator[tuple[Server, Server, Server]]:
    """A master, its replica, and a sentinel."""
    async with contextlib.AsyncExitStack() as stack:

        async def started(server: Server) -> Server:
            stack.push_async_callback(server.kill)
            await server.start()
            return server

        master = await started(Server(tmp_path / "master", "--repl-diskless-sync-delay", "0"))
        replica = await started(Server(tmp_path / "replica", "--replicaof", "127.0.0.1", str(master.port)))
        sentinel = Server(tmp_path / "sentinel", sentinel=True)
        sentinel.directory.mkdir()
        (sentinel.directory / "sentinel.conf").write_text(
            f"sentinel monitor main 127.0.0.1 {master.port} 1\n"
            "sentinel down-after-milliseconds main 300\n"
            "sentinel failover-timeout main 2000\n"
        )
        await started(sentinel)
        yield master, replica, sentinel


async def test_the_master_is_found(bench: Bench, trio: tuple[Server, Server, Server]) -> None:
    one = await bench.node(f"redis+sentinel://127.0.0.1:1,127.0.0.1:{trio[2].port}/main")
    memory = one.rows.put()
    await one.copied()
    assert await one.copy() == memory
    assert len(await trio[0].keys(b"c")) == 1


async def test_a_service_that_the_sentinel_does_not_know_is_told(
    bench: Bench, trio: tuple[Server, Server, Server]
) -> None:
    one = await bench.node(f"redis+sentinel://127.0.0.1:{trio[2].port}/other")
    assert one.hot.state().trouble == "Redis does not answer (no connection)"


@pytest.mark.slow
async def test_after_a_failover_the_new_master_is_used_and_nothing_is_stale(
    bench: Bench, trio: tuple[Server, Server, Server]
) -> None:
    master, replica, sentinel = trio
    url = f"redis+sentinel://127.0.0.1:{sentinel.port}/main"
    a, b = await bench.node(url), await bench.node(url)
    a.rows.put(value=b"1")
    await a.copied()

    async def followed() -> bool:
        return bool(await replica.keys(b"c") and await sentinel.do("SENTINEL", "REPLICAS", "main"))

    await until(followed)
    await master.kill()
    new = await a.store(value=b"2")
    assert await b.sees(new)

    async def promoted() -> bool:
        return bool((await replica.do("ROLE"))[0] == b"master")

    await until(promoted)
    await recovered(a, b)
    async with asyncio.timeout(10):
        assert await a.sees(new)
        assert await b.sees(new)
        newest = await b.store(value=b"3")
    assert await a.sees(newest)
