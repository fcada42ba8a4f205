"""Untold: a process without Redis that writes what others have hot copies of."""

import pytest

from tests.storage.hot.bench import Bench
from tests.storage.hot.contract import HotContract
from tests.storage.hot.keeper import Warmed
from tests.storage.hot.servers import Server
from unified_memory.model.errors import StorageError
from unified_memory.storage.untold import Untold


@pytest.fixture
def server(lasting_server: Server) -> Server:
    return lasting_server


def _untold(bench: Bench) -> Warmed:
    return Warmed(Untold(bench.keeper, bench.clock), bench.rows, bench.clock)


class TestUntold(HotContract):
    gives = False

    @pytest.fixture
    def one(self, bench: Bench) -> Warmed:
        return _untold(bench)

    async def test_where_nobody_uses_copies_nothing_is_muted(self, one: Warmed, bench: Bench) -> None:
        await one.store()
        await one.hot.outlive(one.clock.now())
        assert bench.keeper.muted == 0

    async def test_a_write_ends_the_era_of_others_before_it_is_acknowledged(
        self, one: Warmed, bench: Bench, server: Server
    ) -> None:
        reader = await bench.node(server.url)
        reader.rows.put(value=b"1")
        await reader.copied()
        assert await reader.copy() is not None
        new = await one.store(value=b"2")
        assert await reader.sees(new)

    async def test_while_it_is_mute_it_ends_nothing_again(self, one: Warmed, bench: Bench, server: Server) -> None:
        await bench.node(server.url)
        await one.store()
        await one.store()
        assert bench.keeper.muted == 1

    async def test_an_era_that_another_has_just_ended_is_waited_for(
        self, one: Warmed, bench: Bench, server: Server
    ) -> None:
        reader = await bench.node(server.url)
        reader.rows.put(value=b"1")
        await reader.copied()
        await bench.keeper.mute("another", bench.clock.now(), bench.clock.now() + 10_000_000)
        new = await one.store(value=b"2")
        assert await reader.sees(new)

    async def test_an_era_that_came_and_went_unseen_is_waited_for(
        self, one: Warmed, bench: Bench, server: Server
    ) -> None:
        keeper, now = bench.keeper, bench.clock.now()
        await keeper.mute("another", now, now + 10_000_000)
        await one.store()
        await keeper.mute("another", now, now)
        reader = await bench.node(server.url)
        reader.rows.put("late", b"1")
        await reader.read("late")
        await keeper.mute("another", now, now + 10_000_000)
        new = await one.store("late", b"2")
        assert await reader.sees(new, "late")

    async def test_a_keeper_that_cannot_mute_fails_the_write(self, one: Warmed, bench: Bench, server: Server) -> None:
        await bench.node(server.url)
        bench.keeper.broken = True
        with pytest.raises(StorageError):
            await one.store()
        bench.keeper.broken = False
