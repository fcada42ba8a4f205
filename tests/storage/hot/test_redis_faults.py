"""Redis gone, slow, full, restarted empty or with old data, answering nonsense: answers stay right and come soon."""

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator

import pytest

from tests.storage.hot.bench import Bench, recovered, until
from tests.storage.hot.keeper import Warmed
from tests.storage.hot.servers import Proxy, Server
from unified_memory.model.errors import StorageError
from unified_memory.storage.warm import LEASE_SECONDS

# Far above what a write waits for the lease and the time-outs, far below what no time-out would take.
BOUND = 5.0


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    made = Proxy(server.port)
    await made.start()
    yield made
    await made.close()


async def _bounded_round(*nodes: Warmed) -> None:
    """Each node reads, writes, reads what was written, and removes it."""
    async with asyncio.timeout(BOUND):
        for node in nodes:
            for other in nodes:
                await other.read()
            memory = await node.store()
            for other in nodes:
                assert await other.sees(memory)
            await node.remove()
            for other in nodes:
                assert await other.sees(None)


async def test_a_server_that_is_gone_costs_nothing_but_speed(bench: Bench, server: Server) -> None:
    a, b = await bench.node(server.url), await bench.node(server.url)
    await server.kill()
    await _bounded_round(a, b)
    state = a.hot.state()
    assert (state.trusted, state.trouble) == (False, "Redis does not answer (no connection)")
    assert state.counts.failures > 0
    assert bench.keeper.era == ""


async def test_a_server_that_comes_back_empty_is_used_again(bench: Bench, server: Server) -> None:
    a, b = await bench.node(server.url), await bench.node(server.url)
    memory = await a.store(value=b"1")
    await a.copied()
    await server.kill()
    assert await a.sees(memory)
    await server.start()
    await recovered(a, b)
    await a.copied()
    assert await b.copy() == memory
    await _bounded_round(a, b)


async def test_a_server_that_comes_back_with_old_data_gives_nothing_stale(bench: Bench, server: Server) -> None:
    a, b = await bench.node(server.url), await bench.node(server.url)
    await a.store(value=b"old")
    await a.copied()
    assert await b.copy() is not None
    await server.do("SAVE")
    await a.store(value=b"1")
    new = await a.read()
    await server.kill()
    await server.start()
    assert len(await server.keys(b"c")) == 1
    assert await b.sees(new)
    await recovered(a, b)
    assert await b.sees(new)
    assert await a.sees(new)


async def test_old_data_is_not_believed_after_writes_that_the_server_has_missed(bench: Bench, server: Server) -> None:
    a, b = await bench.node(server.url), await bench.node(server.url)
    await a.store(value=b"old")
    await a.copied()
    await server.do("SAVE")
    await server.kill()
    new = await a.store(value=b"1")
    await server.start()
    for _ in range(3):
        assert await a.sees(new)
        assert await b.sees(new)
    await recovered(a, b)
    assert await a.sees(new)
    assert await b.sees(new)


async def test_a_frozen_server_holds_nobody_up(bench: Bench, server: Server) -> None:
    a = await bench.node(server.url)
    a.rows.put()
    await a.copied()
    server.freeze()
    async with asyncio.timeout(BOUND):
        assert await asyncio.gather(*(a.hot.look("n", f"{number}", 0) for number in range(200))) == [None] * 200
        await _bounded_round(a)
    assert a.hot.state().trouble == "Redis does not answer (time-out)"
    # Not each look has waited: those that came later found the breaker open.
    assert a.hot.state().counts.failures < 20
    server.thaw()
    await recovered(a)
    await _bounded_round(a)


async def test_writers_that_stand_in_line_for_a_frozen_server_do_not_try_in_turn(bench: Bench, server: Server) -> None:
    a = await bench.node(server.url)
    server.freeze()
    # One after the other by sixteens they would take twice the bound.
    async with asyncio.timeout(BOUND):
        await asyncio.gather(*(a.begin(f"{number}") for number in range(1_600)))
    assert bench.keeper.muted == 1
    server.thaw()


async def test_what_a_frozen_server_does_late_harms_nothing(bench: Bench, server: Server) -> None:
    a, b = await bench.node(server.url), await bench.node(server.url)
    a.rows.put()
    await a.copied()
    server.freeze()
    new = await a.store()
    server.thaw()
    assert await b.sees(new)
    await recovered(a, b)
    assert await b.sees(new)
    assert await a.sees(new)


async def test_out_of_memory_is_told_and_harms_nothing(bench: Bench, server: Server) -> None:
    a, b = await bench.node(server.url), await bench.node(server.url)
    a.rows.put()
    await a.copied()
    await server.do("CONFIG", "SET", "maxmemory", "1")
    await _bounded_round(a, b)
    assert a.hot.state().trouble == "Redis is out of memory"
    await server.do("CONFIG", "SET", "maxmemory", "0")
    await recovered(a, b)
    await _bounded_round(a, b)


async def test_a_replica_is_refused(bench: Bench, server: Server) -> None:
    a = await bench.node(server.url)
    a.rows.put()
    await a.copied()
    await server.do("REPLICAOF", "127.0.0.1", "1")
    await _bounded_round(a)
    await until(lambda: a.hot.state().trouble == "Redis is a replica and takes no writes")
    await server.do("REPLICAOF", "NO", "ONE")
    await recovered(a)


async def test_evictions_by_the_server_leave_nothing_stale(bench: Bench, server: Server) -> None:
    """Copies, marks, tickets and the orders of use are evicted at any moment."""
    a, b = await bench.node(server.url), await bench.node(server.url)
    await server.do("CONFIG", "SET", "maxmemory-policy", "allkeys-random")
    used = int((await server.do("INFO", "memory"))["used_memory"])
    await server.do("CONFIG", "SET", "maxmemory", str(used + 500_000))
    chance = random.Random(3)
    for turn in range(1_500):
        node, other = (a, b) if chance.random() < 0.5 else (b, a)
        key = f"{chance.randrange(150)}"
        if chance.random() < 0.4:
            memory = await node.store(key, b"x" * 8_000)
            assert await other.read(key) == memory, turn
        else:
            assert await node.read(key) == node.rows.memories.get(("n", key)), turn
    evicted = int((await server.do("INFO", "stats"))["evicted_keys"])
    assert evicted > 50
    assert a.hot.state().counts.hits + b.hot.state().counts.hits > 50


@pytest.mark.parametrize(
    "answer", [b"+OK\r\n", b":1\r\n", b"$-1\r\n", b"*0\r\n", b"-ERR no\r\n", b"-MOVED\r\n", b"HTTP/1.1 400\r\n\r\n"]
)
async def test_nonsense_is_not_believed(bench: Bench, server: Server, proxy: Proxy, answer: bytes) -> None:
    a, b = await bench.node(proxy.url), await bench.node(server.url)
    a.rows.put()
    await a.copied()
    proxy.answer = answer
    await _bounded_round(a, b)
    assert bench.keeper.muted == 1
    assert not a.hot.state().trusted
    proxy.answer = None
    await recovered(a, b)
    await _bounded_round(a, b)


async def test_a_damaged_copy_is_not_given(bench: Bench, server: Server) -> None:
    a = await bench.node(server.url)
    memory = a.rows.put()
    await a.copied()
    [key] = await server.keys(b"c")
    await server.do("SETRANGE", key, 60, b"\xff\xff")
    assert await a.copy() is None
    assert await a.sees(memory)
    assert a.hot.state().counts.failures == 4


async def test_a_copy_of_another_key_is_not_given(bench: Bench, server: Server) -> None:
    a = await bench.node(server.url)
    a.rows.put("k")
    await a.read("k")
    [first] = await server.keys(b"c")
    a.rows.put("other")
    await a.read("other")
    [second] = [key for key in await server.keys(b"c") if key != first]
    await server.do("COPY", second, first, "REPLACE")
    assert await a.copy("k") is None


async def test_answers_that_come_late_or_never_hold_nobody_up(bench: Bench, server: Server, proxy: Proxy) -> None:
    a, b = await bench.node(proxy.url), await bench.node(server.url)
    for fault in ("delay", "drops"):
        setattr(proxy, fault, 1)
        await _bounded_round(a, b)
        setattr(proxy, fault, 0)
        proxy.cut()
        await recovered(a, b)


async def test_a_cut_connection_is_made_anew(bench: Bench, server: Server, proxy: Proxy) -> None:
    a, b = await bench.node(proxy.url), await bench.node(server.url)
    for _ in range(3):
        proxy.cut()
        await _bounded_round(a, b)
    await recovered(a, b)


async def test_of_two_nodes_one_is_cut_off(bench: Bench, server: Server, proxy: Proxy) -> None:
    cut, whole = await bench.node(proxy.url), await bench.node(server.url)
    old = whole.rows.put()
    await whole.copied()
    proxy.refuses = True
    proxy.cut()
    assert await whole.copy() == old
    new = await cut.store()
    assert await whole.sees(new)
    await whole.hot.open()
    assert whole.hot.state().trouble == "Copies are not used for now: a node could not reach Redis"
    await _bounded_round(cut, whole)
    # One mute serves all of them.
    assert bench.keeper.muted == 1
    proxy.refuses = False
    await recovered(cut, whole)
    await _bounded_round(cut, whole)


async def test_a_writer_that_is_cut_off_before_it_settles_ends_the_era(
    bench: Bench, server: Server, proxy: Proxy
) -> None:
    cut, whole = await bench.node(proxy.url), await bench.node(server.url)
    old = whole.rows.put(value=b"1")
    pledge = await cut.begin()
    await server.do("DEL", *await server.keys(b"m"))
    ticket = await whole.ticket()
    new = whole.rows.put(value=b"2")
    await whole.hot.fill([(ticket, old)], whole.clock.now())
    assert await whole.copy() == old
    proxy.refuses = True
    proxy.cut()
    await cut.settle(pledge, new)
    assert await whole.sees(new)
    assert bench.keeper.muted == 1


async def test_writes_that_fail_together_share_one_mute(bench: Bench, server: Server) -> None:
    a = await bench.node(server.url)
    await server.kill()
    async with asyncio.timeout(BOUND):
        await asyncio.gather(*(a.store(f"{number}") for number in range(50)))
    assert bench.keeper.muted == 1


async def test_a_node_stays_mute_until_nobody_trusts_the_era_any_more(
    bench: Bench, server: Server, proxy: Proxy
) -> None:
    cut, whole = await bench.node(proxy.url), await bench.node(server.url)
    whole.rows.put()
    await whole.copied()
    proxy.cut()
    proxy.refuses = True
    await whole.hot.open()
    writing = asyncio.create_task(cut.begin())
    await until(lambda: bench.keeper.muted == 1)
    proxy.refuses = False
    await until(lambda: not bench.keeper.mutes)
    assert await whole.hot.look("n", "k", whole.clock.now()) is None
    await writing


async def test_a_mute_is_renewed_while_there_are_writes_and_runs_out_without(bench: Bench, server: Server) -> None:
    a = await bench.node(server.url)
    await server.kill()
    await a.store()
    [(node, until_then)] = bench.keeper.mutes.items()
    bench.clock.advance(5)
    await until(lambda: bench.keeper.mutes[node] > until_then)
    bench.clock.advance(5)
    asked = bench.keeper.muted
    tried = a.hot.state().counts.failures
    await a.hot.open()
    assert (bench.keeper.muted, a.hot.state().counts.failures) == (asked, tried)
    bench.clock.advance(6)
    assert not (await bench.keeper.trust(bench.clock.now())).muted


@pytest.mark.parametrize("step", ["begin", "settle"])
async def test_where_neither_tier_can_be_told_the_write_fails(bench: Bench, server: Server, step: str) -> None:
    a = await bench.node(server.url)
    pledge = await a.begin()
    await server.kill()
    bench.keeper.broken = True
    with pytest.raises(StorageError):
        await (a.begin() if step == "begin" else a.settle(pledge))
    bench.keeper.broken = False


async def test_a_keeper_that_fails_is_a_miss_for_readers(bench: Bench, server: Server) -> None:
    a = await bench.node(server.url)
    a.rows.put()
    await a.copied()
    bench.keeper.broken = True
    await a.hot.open()
    assert a.hot.state().counts.failures == 1
    bench.keeper.broken = False
    assert await a.copy() is not None


async def test_a_writer_that_gives_up_waiting_leaves_no_old_copy(bench: Bench, server: Server) -> None:
    a, b = await bench.node(server.url), await bench.node(server.url)
    a.rows.put(value=b"1")
    await a.copied()
    pledge = await a.begin()
    new = a.rows.put(value=b"2")
    settling = asyncio.create_task(a.settle(pledge, new))
    await asyncio.sleep(0)
    settling.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await settling
    assert await b.sees(new)


async def test_a_lease_that_has_run_out_is_a_miss_and_asks_anew(bench: Bench, server: Server) -> None:
    a = await bench.node(server.url)
    memory = a.rows.put()
    await a.copied()
    asked = bench.keeper.asked
    await asyncio.sleep(LEASE_SECONDS)
    assert await a.hot.look("n", "k", a.clock.now()) is None
    await until(lambda: bench.keeper.asked > asked)
    assert await a.hot.look("n", "k", a.clock.now()) == memory


async def test_what_was_asked_in_an_era_is_not_given_out_after_it(bench: Bench, server: Server, proxy: Proxy) -> None:
    a, b = await bench.node(proxy.url), await bench.node(server.url)
    a.rows.put()
    await a.copied()
    proxy.delay = 0.05
    looking = asyncio.create_task(a.hot.look("n", "k", a.clock.now()))
    await asyncio.sleep(0)
    bench.keeper.end_by_commit("another era")
    await a.hot.open()
    assert not looking.done()
    assert await looking is None
    proxy.delay = 0
    assert await b.copy() is None


async def test_a_process_that_stands_still_does_not_blame_the_server(bench: Bench, server: Server) -> None:
    a = await bench.node(server.url)
    a.rows.put()
    await a.copied()
    looking = asyncio.create_task(a.hot.look("n", "k", a.clock.now()))
    await asyncio.sleep(0)
    time.sleep(0.3)  # noqa: ASYNC251 - the loop is what stands still
    await looking
    assert (a.hot.state().trouble, a.hot.state().counts.failures) == (None, 0)


async def test_another_server_behind_the_same_url_begins_another_era(
    bench: Bench, proxy: Proxy, tmp_path_factory: pytest.TempPathFactory
) -> None:
    a = await bench.node(proxy.url)
    a.rows.put(value=b"1")
    await a.copied()
    era = bench.keeper.era
    other = Server(tmp_path_factory.mktemp("other"))
    await other.start()
    try:
        proxy.turn_to(other.port)
        await _bounded_round(a)
        await recovered(a)
        assert bench.keeper.era not in {"", era}
        await _bounded_round(a)
    finally:
        await other.kill()


async def test_two_databases_of_one_server_are_two_places(bench: Bench, server: Server) -> None:
    a, b = await bench.node(server.url), await bench.node(server.url.replace("/0", "/1"))
    a.rows.put(value=b"1")
    await a.copied()
    await b.copied()
    for node in (a, b, a, b):
        new = await node.store()
        assert await a.sees(new)
        assert await b.sees(new)
