"""ProcessHot: every look asks what has been committed."""

import pytest

from tests.storage.hot.contract import HotContract
from tests.storage.hot.keeper import Rows, Warmed
from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import StorageError
from unified_memory.storage.hot import Ref
from unified_memory.storage.process import OVERHEAD_BYTES, ProcessHot

BYTES = 100 * (OVERHEAD_BYTES + 100)


class _Changes:
    """What Rows tells; `told`: it knows the keys. `broken`: it cannot be asked."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self.told = True
        self.broken = False

    def stamp(self) -> int:
        if self.broken:
            raise StorageError("The warm tier is broken")
        return self._rows.seq

    def changed(self, since: int) -> tuple[int, list[Ref] | None]:
        keys = [ref for seq, ref in self._rows.changed if seq > since]
        return self._rows.seq, keys if self.told else None


def _over(changes: _Changes, rows: Rows, *, max_bytes: int = 1_000_000, ttl: float = 60.0) -> Warmed:
    return Warmed(ProcessHot(changes, max_bytes=max_bytes, ttl=ttl), rows, SettableClock())


class TestProcess(HotContract):
    @pytest.fixture
    def rows(self) -> Rows:
        return Rows()

    @pytest.fixture
    def changes(self, rows: Rows) -> _Changes:
        return _Changes(rows)

    @pytest.fixture
    def one(self, rows: Rows, changes: _Changes) -> Warmed:
        return _over(changes, rows)

    async def test_what_another_process_has_written_is_read(self, one: Warmed) -> None:
        one.rows.put(value=b"1")
        await one.read()
        new = one.rows.put(value=b"2")
        assert await one.copy() is None
        assert await one.read() == new

    async def test_what_was_read_before_another_process_wrote_is_not_put(self, one: Warmed) -> None:
        old = one.rows.put(value=b"1")
        ticket = await one.ticket()
        new = one.rows.put(value=b"2")
        await one.hot.fill([(ticket, old)], one.clock.now())
        assert await one.read() == new
        assert one.hot.state().counts.refused == 1

    async def test_a_write_of_another_key_leaves_the_copy(self, one: Warmed) -> None:
        memory = one.rows.put()
        await one.read()
        one.rows.put("other")
        assert await one.copy() == memory

    async def test_where_the_changes_are_not_told_nothing_is_kept(self, one: Warmed, changes: _Changes) -> None:
        one.rows.put()
        await one.read()
        changes.told = False
        one.rows.put("other")
        assert await one.copy() is None

    async def test_readers_of_one_key_share_the_ticket(self, one: Warmed) -> None:
        memory = one.rows.put()
        first, second = await one.ticket(), await one.ticket()
        await one.hot.fill([(first, memory)], one.clock.now())
        assert second == first
        assert await one.copy() == memory

    async def test_where_the_warm_tier_cannot_be_asked_there_is_no_copy(self, one: Warmed, changes: _Changes) -> None:
        memory = one.rows.put()
        await one.read()
        changes.broken = True
        assert await one.hot.look("n", "k", one.clock.now()) is None
        changes.broken = False
        assert await one.copy() is None
        assert await one.read() == memory
        assert one.hot.state().counts.failures == 1

    async def test_a_copy_ends_with_its_ttl(self, changes: _Changes, rows: Rows) -> None:
        one = _over(changes, rows, ttl=5)
        rows.put()
        await one.read()
        one.clock.advance(5)
        assert await one.copy() is None

    async def test_a_scan_leaves_what_is_used_often(self, changes: _Changes, rows: Rows) -> None:
        one = _over(changes, rows, max_bytes=BYTES)
        for number in range(1_000):
            rows.put(f"{number}")
        often = [f"{number}" for number in range(50)]
        for key in often * 3:
            await one.read(key)
        for number in range(50, 1_000):
            await one.read(f"{number}")
        found = [await one.copy(key) for key in often]
        assert [memory.key for memory in found if memory] == often

    async def test_it_stays_within_its_bytes(self, changes: _Changes, rows: Rows) -> None:
        one = _over(changes, rows, max_bytes=BYTES)
        for number in range(500):
            rows.put(f"{number}", b"x" * (number % 100) * 40)
            await one.read(f"{number}")
            await one.read(f"{number // 2}")
        counts = one.hot.state().counts
        assert counts.bytes is not None
        assert counts.entries is not None
        assert 0 < counts.bytes <= BYTES
        assert counts.evictions > 0
        await one.hot.close()
        counts = one.hot.state().counts
        assert (counts.entries, counts.bytes) == (0, 0)

    async def test_what_was_dropped_gives_its_bytes_back(self, one: Warmed) -> None:
        for _ in range(2):
            for number in range(50):
                one.rows.put(f"{number}")
                await one.read(f"{number}")
        one.rows.put("0")
        for number in range(1, 50):
            one.rows.put(f"{number}")
        assert await one.copy("0") is None
        counts = one.hot.state().counts
        assert (counts.entries, counts.bytes) == (0, 0)

    async def test_a_value_too_large_is_not_kept(self, changes: _Changes, rows: Rows) -> None:
        one = _over(changes, rows, max_bytes=BYTES)
        rows.put(value=b"x" * BYTES)
        await one.read()
        assert await one.copy() is None

    async def test_at_rest_it_gives_nothing(self, one: Warmed) -> None:
        one.rows.put()
        await one.read()
        one.hot.rest()
        assert await one.hot.look("n", "k", one.clock.now()) is None
        assert not one.hot.state().trusted
