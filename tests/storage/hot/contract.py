"""The contract of a hot tier as tests: what `storage/hot.py` says. A kind is tested by a subclass that gives `one`."""

from msgspec import structs

from tests.storage.hot.keeper import Warmed
from unified_memory.model.clock import SECOND
from unified_memory.model.memory import Memory
from unified_memory.storage.hot import Ticket


class HotContract:
    """All that holds for every kind. `gives`: it gives copies at all."""

    gives = True

    async def test_a_filled_copy_is_given_as_it_was_read(self, one: Warmed) -> None:
        memory = one.rows.put(value=b'{"a": [1, 2.50, "\xc3\xa4"]}', session_id="s")
        await one.copied()
        assert await one.copy() == (memory if self.gives else None)

    async def test_a_copy_that_a_caller_changes_stays_as_it_was(self, one: Warmed) -> None:
        one.rows.put()
        await one.copied()
        if copy := await one.copy():
            copy.access_count += 7
            copy.value = b"0"
        assert await one.copy() == (one.rows.get(("n", "k")) if self.gives else None)

    async def test_copies_of_many_keys_come_in_their_order(self, one: Warmed) -> None:
        for key in ("a", "b", "c"):
            one.rows.put(key)
        await one.read("a")
        await one.read("c")
        found = await one.hot.look_many([("n", "c"), ("n", "b"), ("n", "a")], one.clock.now())
        assert [found_one.key for found_one in found if isinstance(found_one, Memory)] == (
            ["c", "a"] if self.gives else []
        )
        assert isinstance(found[1], Ticket) == self.gives

    async def test_equal_keys_of_two_namespaces_have_two_copies(self, one: Warmed) -> None:
        one.rows.put(value=b"1")
        one.rows.put(value=b"2", namespace="n/m")
        assert [await one.read(namespace=name) for name in ("n", "n/m", "n", "n/m")] == [
            one.rows.get((name, "k")) for name in ("n", "n/m", "n", "n/m")
        ]

    async def test_a_write_is_read_after_it(self, one: Warmed) -> None:
        for value in (b"1", b"2", b"3"):
            memory = await one.store(value=value)
            assert await one.read() == memory
            assert await one.read() == memory

    async def test_what_was_removed_is_not_read(self, one: Warmed) -> None:
        await one.store()
        await one.copied()
        await one.remove()
        assert await one.read() is None
        assert await one.read() is None

    async def test_a_copy_ends_at_the_instant_at_which_its_memory_does(self, one: Warmed) -> None:
        memory = one.rows.put(expires_at=one.clock.now() + 10 * SECOND)
        await one.copied()
        one.clock.advance(9.999_999)
        assert await one.copy() == (memory if self.gives else None)
        one.clock.advance(0.000_001)
        assert await one.copy() is None

    async def test_what_was_read_before_a_write_cannot_be_put_after_it(self, one: Warmed) -> None:
        old = one.rows.put()
        ticket = await one.hot.look("n", "k", one.clock.now())
        new = await one.store()
        if isinstance(ticket, Ticket):
            await one.hot.fill([(ticket, old)], one.clock.now())
        assert await one.read() == new
        assert await one.read() == new

    async def test_what_was_read_before_a_commit_cannot_be_put_between_it_and_the_settling(self, one: Warmed) -> None:
        old = one.rows.put()
        ticket = await one.hot.look("n", "k", one.clock.now())
        pledge = await one.begin()
        new = one.rows.put()
        if isinstance(ticket, Ticket):
            await one.hot.fill([(ticket, old)], one.clock.now())
        assert await one.copy() != old
        await one.settle(pledge, new)
        assert await one.read() == new
        assert await one.read() == new

    async def test_a_write_that_failed_leaves_what_was_there(self, one: Warmed) -> None:
        memory = one.rows.put()
        await one.copied()
        pledge = await one.begin()
        await one.settle(pledge)
        assert await one.read() == memory
        assert await one.read() == memory

    async def test_one_unit_may_name_a_key_twice_and_many_keys(self, one: Warmed) -> None:
        keys = [f"k{n}" for n in range(300)]
        for key in keys:
            one.rows.put(key)
            await one.read(key)
        pledge = await one.begin(*keys, "k0")
        news = [one.rows.put(key, b"2") for key in keys]
        await one.settle(pledge, *news)
        assert [await one.read(key) for key in keys] == news

    async def test_accesses_are_added_to_the_copy(self, one: Warmed) -> None:
        memory = one.rows.put()
        await one.copied()
        await one.count(memory, 2, 2_000_000)
        await one.count(memory, 3, 1_000_000)
        await one.count(structs.replace(memory, id=memory.id + 1), 9, 9_000_000)
        await one.count(structs.replace(memory, key="other"), 9, 9_000_000)
        expected = structs.replace(memory, access_count=5, last_accessed=2_000_000)
        assert await one.copy() == (expected if self.gives else None)

    async def test_hits_misses_and_fills_are_counted(self, one: Warmed) -> None:
        one.rows.put()
        await one.copied()
        await one.copied()
        counts = one.hot.state().counts
        assert (counts.hits, counts.fills, counts.failures) == ((1, 1, 0) if self.gives else (0, 0, 0))

    async def test_it_may_be_closed_twice(self, one: Warmed) -> None:
        await one.copied()
        await one.hot.close()
        await one.hot.close()
