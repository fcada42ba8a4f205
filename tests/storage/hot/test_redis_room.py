"""HOT_MAX_BYTES and HOT_TTL: what is kept, what goes, and that the sums stay right."""

import pytest

from tests.storage.hot.bench import Bench, until
from tests.storage.hot.servers import Server
from unified_memory.model.clock import SECOND
from unified_memory.storage.redis.copies import BUCKETS, OVERHEAD_BYTES


@pytest.fixture
def server(lasting_server: Server) -> Server:
    return lasting_server


async def _sums(server: Server) -> dict[bytes, tuple[int, int]]:
    """Of each order of use: copies and bytes as summed up."""
    async with server.client() as client:
        orders = [key async for key in client.scan_iter(_type="zset")]
        return {key: (await client.zcard(key) - 1, -int(await client.zscore(key, ""))) for key in orders}


async def test_copies_stay_within_their_bytes_and_the_sums_are_right(bench: Bench, server: Server) -> None:
    one = await bench.node(server.url, max_bytes=1_000_000)
    for number in range(600):
        one.rows.put(f"{number}", b"x" * 4_000)
        await one.read(f"{number}")
    counts = one.hot.state().counts
    copies = await server.keys(b"c")
    sums = await _sums(server)
    assert counts.evictions == 600 - len(copies) > 0
    assert (counts.entries, counts.bytes) == (len(copies), sum(size for _, size in sums.values()))
    assert all(size <= 1_000_000 // BUCKETS for _, size in sums.values())
    assert 4_000 * len(copies) < sum(size for _, size in sums.values()) < (4_400 + OVERHEAD_BYTES) * len(copies)


async def test_what_was_used_last_stays(bench: Bench, server: Server) -> None:
    one = await bench.node(server.url, max_bytes=1_000_000)
    keys = [f"{number}" for number in range(600)]
    for key in keys:
        one.rows.put(key, b"x" * 4_000)
    for key in keys[:50]:
        await one.read(key)
    bench.clock.advance(10)
    used = bench.clock.now() // 1_000
    assert await one.copy("0") is not None

    async def told() -> bool:
        async with server.client() as client:
            orders = [key async for key in client.scan_iter(_type="zset")]
            return any([await client.zcount(key, used, used) for key in orders])

    await until(told)
    bench.clock.advance(-5)
    await one.hot.open()
    for key in keys[50:]:
        await one.read(key)
    assert await one.copy("0") is not None
    assert not any([await one.copy(key) for key in keys[1:50]])


async def test_writes_over_copies_and_removals_keep_the_sums_right(bench: Bench, server: Server) -> None:
    one = await bench.node(server.url)
    for number in range(100):
        await one.store(f"{number % 20}", b"x" * number * 10)
        await one.read(f"{number % 20}")
    for number in range(15):
        await one.remove(f"{number}")
    sums = await _sums(server)
    assert sum(entries for entries, _ in sums.values()) == len(await server.keys(b"c")) == 5
    async with server.client() as client:
        lengths = [await client.strlen(key) + len(key) + OVERHEAD_BYTES for key in await server.keys(b"c")]
    assert sum(size for _, size in sums.values()) == sum(lengths)


async def test_what_has_expired_is_taken_out_of_the_sums(bench: Bench, server: Server) -> None:
    one = await bench.node(server.url)
    for number in range(100):
        one.rows.put(f"{number}", expires_at=bench.clock.now() + SECOND // 2)
        await one.read(f"{number}")

    async def gone() -> bool:
        return not await server.keys(b"c")

    await until(gone)
    await one.hot.open()
    for number in range(100, 400):
        one.rows.put(f"{number}")
        await one.read(f"{number}")
    sums = await _sums(server)
    assert 300 <= sum(entries for entries, _ in sums.values()) < 320


async def test_a_copy_lives_as_long_as_its_memory_or_hot_ttl(bench: Bench, server: Server) -> None:
    one = await bench.node(server.url, ttl=50)
    one.rows.put("short", expires_at=bench.clock.now() + 20 * SECOND)
    one.rows.put("long", expires_at=bench.clock.now() + 100 * SECOND)
    for key in ("short", "long"):
        await one.read(key)
    async with server.client() as client:
        lifetimes = sorted([await client.pttl(key) for key in await server.keys(b"c")])
    assert 15_000 < lifetimes[0] <= 20_000
    assert 45_000 < lifetimes[1] <= 50_000


async def test_a_value_too_large_is_refused(bench: Bench, server: Server) -> None:
    one = await bench.node(server.url, max_bytes=1_000_000)
    one.rows.put(value=b"x" * (1_000_000 // BUCKETS // 4))
    await one.copied()
    assert await one.copy() is None
    assert one.hot.state().counts.refused == 1


async def test_an_expired_memory_is_not_put(bench: Bench, server: Server) -> None:
    one = await bench.node(server.url)
    memory = one.rows.put(expires_at=bench.clock.now())
    ticket = await one.ticket()
    await one.hot.fill([(ticket, memory)], bench.clock.now())
    assert await server.keys(b"c") == []
