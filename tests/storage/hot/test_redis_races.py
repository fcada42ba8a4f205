"""Writers, readers, evictions and expiries in each order that matters, by hand: two nodes over one server."""

import pytest

from tests.storage.hot.bench import Bench, recovered, until
from tests.storage.hot.keeper import Warmed
from tests.storage.hot.servers import Server


@pytest.fixture
def server(lasting_server: Server) -> Server:
    return lasting_server


@pytest.fixture
async def a(bench: Bench, server: Server) -> Warmed:
    return await bench.node(server.url)


@pytest.fixture
async def b(bench: Bench, a: Warmed, server: Server) -> Warmed:
    del a
    return await bench.node(server.url)


async def _lose(server: Server, kind: bytes) -> None:
    """What stands at the keys of that kind goes, as by eviction or expiry."""
    keys = await server.keys(kind)
    assert keys
    await server.do("DEL", *keys)


async def test_one_node_reads_what_the_other_has_put(a: Warmed, b: Warmed) -> None:
    memory = a.rows.put()
    await a.copied()
    assert await b.copy() == memory


async def test_one_node_reads_what_the_other_has_written(a: Warmed, b: Warmed) -> None:
    a.rows.put()
    await a.copied()
    new = await b.store(value=b"2")
    assert await a.copy() == new


async def test_a_copy_of_what_nobody_reads_is_not_made_by_a_write(a: Warmed) -> None:
    await a.store()
    assert await a.copy() is None


async def test_a_memory_of_a_session_is_copied_as_it_is_written(a: Warmed, b: Warmed) -> None:
    memory = await a.store(session_id="s")
    assert await b.copy() == memory


async def test_a_second_reader_does_not_take_the_ticket_of_the_first(a: Warmed, b: Warmed) -> None:
    memory = a.rows.put()
    ticket = await a.ticket()
    assert await b.hot.look("n", "k", b.clock.now()) is None
    await a.hot.fill([(ticket, memory)], a.clock.now())
    assert await b.copy() == memory


async def test_between_begin_and_settle_nobody_is_given_copy_or_ticket(a: Warmed, b: Warmed) -> None:
    a.rows.put()
    await a.copied()
    pledge = await a.begin()
    assert await b.hot.look("n", "k", b.clock.now()) is None
    await a.settle(pledge, a.rows.put())


async def test_a_writer_that_is_killed_after_its_commit_leaves_nothing_stale(a: Warmed, b: Warmed) -> None:
    a.rows.put(value=b"1")
    await a.copied()
    await a.begin()
    new = a.rows.put(value=b"2")
    assert await b.copy() is None
    assert await b.sees(new)


async def test_two_writers_that_settle_in_the_order_of_their_commits_leave_the_last(a: Warmed, b: Warmed) -> None:
    a.rows.put()
    await a.copied()
    first, second = await a.begin(), await b.begin()
    one, two = a.rows.put(value=b"1"), a.rows.put(value=b"2")
    await a.settle(first, one)
    assert await b.copy() is None
    await b.settle(second, two)
    assert await a.copy() == two


async def test_two_writers_that_settle_against_the_order_of_their_commits_leave_no_old_one(
    a: Warmed, b: Warmed
) -> None:
    a.rows.put()
    await a.copied()
    first, second = await a.begin(), await b.begin()
    one, two = a.rows.put(value=b"1"), a.rows.put(value=b"2")
    await b.settle(second, two)
    await a.settle(first, one)
    assert await a.copy() is None
    assert await a.sees(two)


async def test_a_writer_whose_mark_another_shares_is_killed_and_leaves_nothing_stale(a: Warmed, b: Warmed) -> None:
    a.rows.put()
    await a.copied()
    await a.begin()
    second = await b.begin()
    one = a.rows.put(value=b"1")
    new = a.rows.put(value=b"2")
    await b.settle(second, one)
    assert await b.copy() is None
    assert await b.sees(new)


async def test_a_write_after_a_removal_that_settles_late_leaves_no_copy_of_what_was_removed(
    a: Warmed, b: Warmed
) -> None:
    a.rows.put()
    await a.copied()
    first, second = await a.begin(), await b.begin()
    one = a.rows.put(value=b"1")
    a.rows.remove()
    await b.settle(second)
    await a.settle(first, one)
    assert await a.sees(None)
    assert await a.copy() is None


async def test_a_mark_that_is_lost_lets_no_old_version_stay(a: Warmed, b: Warmed, server: Server) -> None:
    old = a.rows.put(value=b"1")
    await a.copied()
    pledge = await a.begin()
    await _lose(server, b"m")
    ticket = await b.ticket()
    new = a.rows.put(value=b"2")
    await b.hot.fill([(ticket, old)], b.clock.now())
    await a.settle(pledge, new)
    assert await b.copy() is None
    assert await b.sees(new)


async def test_a_mark_that_is_lost_lets_no_ticket_outlive_the_settling(a: Warmed, b: Warmed, server: Server) -> None:
    old = a.rows.put(value=b"1")
    pledge = await a.begin()
    await _lose(server, b"m")
    ticket = await b.ticket()
    new = a.rows.put(value=b"2")
    await a.settle(pledge, new)
    await b.hot.fill([(ticket, old)], b.clock.now())
    assert await b.copy() is None


async def test_a_mark_that_is_lost_does_not_cost_a_newer_copy(a: Warmed, b: Warmed, server: Server) -> None:
    a.rows.put(value=b"1")
    pledge = await a.begin()
    one = a.rows.put(value=b"2")
    await _lose(server, b"m")
    a.rows.put(value=b"3")
    newest = await b.copied()
    await a.settle(pledge, one)
    assert await b.copy() == newest


async def test_a_removal_whose_mark_is_lost_takes_every_copy(a: Warmed, b: Warmed, server: Server) -> None:
    old = a.rows.put(value=b"1")
    pledge = await a.begin()
    await _lose(server, b"m")
    ticket = await b.ticket()
    a.rows.remove()
    await b.hot.fill([(ticket, old)], b.clock.now())
    await a.settle(pledge)
    assert await b.copy() is None


async def test_with_a_lost_mark_the_one_of_a_later_writer_keeps_the_older_version_out(
    a: Warmed, b: Warmed, server: Server
) -> None:
    a.rows.put()
    await a.copied()
    first = await a.begin()
    await _lose(server, b"m")
    second = await b.begin()
    one = a.rows.put(value=b"1")
    two = a.rows.put(value=b"2")
    await a.settle(first, two)
    await b.settle(second, one)
    assert await a.copy() is None
    assert await a.sees(two)


async def test_without_a_mark_of_its_own_a_writer_puts_nothing(a: Warmed, server: Server) -> None:
    a.rows.put()
    await a.copied()
    pledge = await a.begin()
    await _lose(server, b"m")
    await a.settle(pledge, a.rows.put(session_id="s"))
    assert await a.copy() is None


async def test_a_ticket_that_is_lost_is_worth_nothing(a: Warmed, b: Warmed, server: Server) -> None:
    old = a.rows.put(value=b"1")
    ticket = await a.ticket()
    await _lose(server, b"t")
    a.rows.put(value=b"2")
    newest = await b.copied()
    await a.hot.fill([(ticket, old)], a.clock.now())
    assert await a.copy() == newest


async def test_a_ticket_is_good_for_one_copy(a: Warmed, b: Warmed) -> None:
    old = a.rows.put(value=b"1")
    ticket = await a.ticket()
    await a.hot.fill([(ticket, old)], a.clock.now())
    await b.remove()
    await a.hot.fill([(ticket, old)], a.clock.now())
    assert await a.copy() is None


async def test_marks_tickets_copies_and_the_order_of_use_all_pass(a: Warmed, server: Server) -> None:
    a.rows.put("copied")
    await a.read("copied")
    await a.ticket("ticketed")
    await a.begin("marked")
    async with server.client() as client:
        lifetimes = [await client.pttl(key) async for key in client.scan_iter()]
    assert len(lifetimes) >= 4
    assert all(0 < lifetime <= 120_000 for lifetime in lifetimes)


async def test_a_new_era_makes_copies_and_tickets_of_the_old_one_worthless(a: Warmed, b: Warmed, bench: Bench) -> None:
    old = a.rows.put()
    await a.copied()
    ticket = await a.ticket("other")
    bench.keeper.end_by_commit("another era")
    await b.hot.outlive(b.clock.now())
    assert await a.copy() is None
    await a.hot.fill([(ticket, old)], a.clock.now())
    assert await a.copy("other") is None


async def test_a_write_that_began_in_an_old_era_settles_in_the_new_one(a: Warmed, b: Warmed, bench: Bench) -> None:
    old = a.rows.put(value=b"1")
    pledge = await a.begin()
    bench.keeper.end_by_commit("another era")
    await b.hot.outlive(b.clock.now())
    ticket = await b.ticket()
    new = a.rows.put(value=b"2")
    await b.hot.fill([(ticket, old)], b.clock.now())
    await a.settle(pledge, new)
    assert await b.sees(new)


async def test_a_write_that_began_in_no_era_settles_in_the_one_that_has_begun(bench: Bench, server: Server) -> None:
    a = await bench.node(server.url, reads=False)
    old = a.rows.put(value=b"1")
    pledge = await a.begin()
    assert not pledge.era
    b = await bench.node(server.url)
    await b.copied()
    assert await b.copy() == old
    new = a.rows.put(value=b"2")
    await a.settle(pledge, new)
    assert await b.sees(new)


async def test_a_node_that_does_not_read_tells_all_the_same(bench: Bench, server: Server) -> None:
    b = await bench.node(server.url)
    a = await bench.node(server.url, reads=False)
    a.rows.put(value=b"1")
    await b.copied()
    new = await a.store(value=b"2")
    assert await b.sees(new)
    assert await a.hot.look("n", "k", a.clock.now()) is None
    assert bench.keeper.muted == 0


async def test_where_nobody_reads_no_era_begins_and_no_write_needs_the_server(bench: Bench, server: Server) -> None:
    a = await bench.node(server.url, reads=False)
    await server.kill()
    await a.store()
    assert (bench.keeper.era, bench.keeper.muted) == ("", 0)


async def test_a_node_at_rest_gives_and_begins_nothing_and_others_go_on(a: Warmed, b: Warmed, bench: Bench) -> None:
    a.rows.put()
    await a.copied()
    a.hot.rest()
    assert await a.hot.look("n", "k", a.clock.now()) is None
    await until(lambda: bench.keeper.muted == 1 and not bench.keeper.mutes)
    await recovered(b)
    new = await a.store(value=b"2")
    assert await b.sees(new)
    await b.hot.open()
    await b.copied()
    assert await b.copy() == new


async def test_a_node_at_rest_leaves_others_the_era_that_it_has_found(a: Warmed, bench: Bench, server: Server) -> None:
    memory = a.rows.put()
    await a.copied()
    era = bench.keeper.era
    b = await bench.node(server.url)
    b.hot.rest()
    await b.hot.close()
    assert bench.keeper.era == era
    assert await a.copy() == memory


async def test_a_node_that_closes_at_rest_has_ended_its_mute(bench: Bench, server: Server) -> None:
    a = await bench.node(server.url)
    a.hot.rest()
    await a.hot.close()
    assert (bench.keeper.era, bench.keeper.mutes) == ("", {})


async def test_where_all_are_at_rest_no_write_needs_the_server(bench: Bench, server: Server) -> None:
    a = await bench.node(server.url)
    assert bench.keeper.era
    a.hot.rest()
    await until(lambda: (bench.keeper.era, bench.keeper.mutes) == ("", {}))
    await server.kill()
    await a.store()
    assert bench.keeper.muted == 1


async def test_a_mute_that_is_over_is_noticed_where_nobody_looks(bench: Bench, server: Server) -> None:
    a = await bench.node(server.url)
    now = bench.clock.now()
    await bench.keeper.mute("another", now, now + 1)
    await a.hot.open()
    assert not a.hot.state().trusted
    await bench.keeper.mute("another", now, now)
    await until(lambda: a.hot.state().trusted)
