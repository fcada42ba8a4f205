"""A cluster of three masters: each bucket of copies is in one slot, and a slot may move."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.storage.hot.bench import Bench, recovered, until
from tests.storage.hot.contract import HotContract
from tests.storage.hot.keeper import Warmed
from tests.storage.hot.servers import Server

RANGES = ((0, 5460), (5461, 10922), (10923, 16383))


async def _start(servers: list[Server]) -> None:
    for server, (first, last) in zip(servers, RANGES, strict=True):
        await server.start()
        await server.do("CLUSTER", "ADDSLOTSRANGE", first, last)
    for number, server in enumerate(servers):
        await server.do("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for server in servers[1:]:
        await server.do("CLUSTER", "MEET", "127.0.0.1", servers[0].port)
    await until(lambda: _whole(servers))


async def _whole(servers: list[Server]) -> bool:
    facts = [await server.do("CLUSTER", "INFO") for server in servers]
    return all(b"cluster_state:ok" in one and b"cluster_known_nodes:3" in one for one in facts)


async def _end(servers: list[Server]) -> None:
    for server in servers:
        await server.kill()


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Server]]:
    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
    servers = [Server(tmp_path_factory.mktemp("master"), *options) for _ in RANGES]
    try:
        asyncio.run(_start(servers))
        yield servers
    finally:
        asyncio.run(_end(servers))


@pytest.fixture
async def masters(started: list[Server]) -> list[Server]:
    """Empty ones, which outlast the test."""
    for server in started:
        await server.do("FLUSHALL")
    return started


async def _holder(servers: list[Server]) -> Server:
    """The one that holds the copy."""
    [server] = [server for server in servers if await server.keys(b"c")]
    return server


def _url(servers: list[Server]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in servers)


class TestCluster(HotContract):
    @pytest.fixture
    async def one(self, bench: Bench, masters: list[Server]) -> Warmed:
        return await bench.node(_url(masters[:1]))


async def test_copies_lie_on_all_masters(bench: Bench, masters: list[Server]) -> None:
    one = await bench.node(_url(masters))
    for number in range(200):
        one.rows.put(f"{number}")
        await one.read(f"{number}")
    found = [len(await server.keys(b"c")) for server in masters]
    assert sum(found) == 200
    assert all(found)


async def test_a_slot_that_has_moved_is_found(bench: Bench, masters: list[Server]) -> None:
    a, b = await bench.node(_url(masters)), await bench.node(_url(masters))
    await a.store(value=b"1")
    await a.copied()
    source = await _holder(masters)
    target = next(server for server in masters if server is not source)
    [key] = await source.keys(b"c")
    slot = await source.do("CLUSTER", "KEYSLOT", key)
    source_id, target_id = await source.do("CLUSTER", "MYID"), await target.do("CLUSTER", "MYID")
    await target.do("CLUSTER", "SETSLOT", slot, "IMPORTING", source_id)
    await source.do("CLUSTER", "SETSLOT", slot, "MIGRATING", target_id)
    keys = await source.do("CLUSTER", "GETKEYSINSLOT", slot, 100)
    await source.do("MIGRATE", "127.0.0.1", target.port, "", 0, 5_000, "KEYS", *keys)
    for server in (target, source):
        await server.do("CLUSTER", "SETSLOT", slot, "NODE", target_id)
    assert await b.read() == a.rows.get(("n", "k"))
    new = await a.store(value=b"2")
    assert await b.sees(new)
    await recovered(a, b)
    await b.copied()
    assert await a.copy() == new
    assert bench.keeper.muted == 0


@pytest.mark.slow
async def test_a_master_that_is_gone_ends_the_era(bench: Bench, masters: list[Server]) -> None:
    a, b = await bench.node(_url(masters)), await bench.node(_url(masters))
    memory = await a.store()
    await a.copied()
    holder = await _holder(masters)
    await holder.kill()
    new = await a.store()
    assert await b.read() == new != memory
    assert not a.hot.state().trusted
    await holder.start()
    await until(lambda: _whole(masters))
    await recovered(a, b)
    assert await b.sees(new)
