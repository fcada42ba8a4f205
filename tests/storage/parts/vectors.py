"""Vectors of memories: made behind the writes, gone with them, followed by those who hold them."""

import asyncio
import random

import pytest

from tests.storage.drafts import NOW, remove, store
from tests.storage.parts.opened import LATER, LONG_AFTER, NEIGHBOURS, Opened, assert_clean
from unified_memory.model.errors import InvalidInputError, MemoryNotFoundError, ReadOnlyError
from unified_memory.model.memory import Memory
from unified_memory.model.session import WithMemories
from unified_memory.storage.base import Code, Storage, VectorCounts

ONE, OTHER = "one@00/8", "other@00/8"
BYTES = 13


def code(text: str) -> bytes:
    """A code that tells what it was made of."""
    return text.encode().ljust(BYTES, b".")


async def embed(storage: Storage, *memories: Memory, model: str = ONE) -> int:
    return await storage.put_vectors(model, [Code(one.id, one.seq, code(one.key)) for one in memories])


async def waiting(storage: Storage, model: str = ONE, *, now: int = NOW, after: int = 0, limit: int = 99) -> list[str]:
    return [memory.key for memory in await storage.unembedded(model, now, after, limit)]


class Holder:
    """Holds the vectors of some subtrees, and follows what happens to them."""

    def __init__(self, storage: Storage, *scopes: str, recursive: bool = True, model: str = ONE) -> None:
        self.storage, self.scopes, self.recursive, self.model = storage, scopes or ("",), recursive, model
        self.place = self.seq = 0
        self.held: dict[int, bytes] = {}

    async def look(self, limit: int = 99) -> list[str]:
        """What the vectors say that it holds now, in order."""
        while True:
            news = await self.storage.vector_news(
                self.model,
                self.scopes,
                recursive=self.recursive,
                after_place=self.place,
                after_seq=self.seq,
                limit=limit,
            )
            for number in news.gone:
                self.held.pop(number, None)
            places = [vector.place for vector in news.vectors]
            assert places == sorted(set(places))
            assert all(place > self.place for place in places)
            assert len(places) <= limit
            self.held |= {vector.id: vector.code for vector in news.vectors}
            self.place, self.seq = max([self.place, *places]), news.seq
            if len(news.vectors) < limit:
                return sorted(one.rstrip(b".").decode() for one in self.held.values())


class VectorContract(Opened):
    """`unembedded`, `put_vectors`, `vector_news`, `with_vectors`, `vector_counts`, `drop_vectors`."""

    async def test_what_has_no_vector_is_told_in_the_order_of_the_writes(self, storage: Storage) -> None:
        memories = [await store(storage, key, f"text {key}") for key in "abc"]
        await store(storage, "a", "text again")
        found = await storage.unembedded(ONE, NOW, 0, 99)
        assert [(memory.key, memory.parsed()) for memory in found] == [
            ("b", "text b"),
            ("c", "text c"),
            ("a", "text again"),
        ]
        assert await waiting(storage, limit=2) == ["b", "c"]
        assert await waiting(storage, after=memories[1].seq) == ["c", "a"]
        assert await embed(storage, found[0]) == 1
        assert await waiting(storage) == ["c", "a"]
        assert await waiting(storage, OTHER) == ["b", "c", "a"]

    async def test_what_is_invisible_needs_no_vector(self, storage: Storage) -> None:
        await store(storage, "passed", expires_at=LATER)
        await store(storage, "dead", namespace="gone")
        await store(storage, "kept")
        await storage.delete_namespace("gone", NOW, recursive=True)
        assert await waiting(storage) == ["passed", "kept"]
        assert await waiting(storage, now=LATER) == ["kept"]

    async def test_large_values_come_in_smaller_parts(self, storage: Storage) -> None:
        memories = [await store(storage, f"k{n}", "x" * 5_000_000) for n in range(4)]
        seen: list[str] = []
        while part := await storage.unembedded(ONE, NOW, 0, 99):
            seen += [memory.key for memory in part]
            await embed(storage, *part)
        assert seen == [memory.key for memory in memories]

    async def test_a_vector_is_only_put_for_what_it_was_made_of(self, storage: Storage) -> None:
        old = await store(storage, "k", "old")
        gone = await store(storage, "gone")
        await store(storage, "k", "new")
        await remove(storage, "gone")
        assert await embed(storage, old, gone) == 0
        assert await Holder(storage).look() == []
        assert await storage.put_vectors(ONE, []) == 0
        await assert_clean(storage)

    async def test_a_write_over_a_memory_takes_its_vector_away_at_once(self, storage: Storage) -> None:
        memory, other = await store(storage, "k"), await store(storage, "other")
        await embed(storage, memory, other)
        holder = Holder(storage)
        assert await holder.look() == ["k", "other"]
        assert await storage.with_vectors(ONE, [memory.id, other.id, 999], NOW) == {memory.id, other.id}
        again = await store(storage, "k", "new")
        assert again.id == memory.id
        assert await storage.with_vectors(ONE, [memory.id, other.id], NOW) == {other.id}
        assert await waiting(storage) == ["k"]
        assert await holder.look() == ["other"]
        assert await embed(storage, memory) == 0
        await embed(storage, again)
        assert await holder.look() == ["k", "other"]

    async def test_a_vector_goes_with_its_memory(self, storage: Storage) -> None:
        memories = [
            await store(storage, "removed"),
            await store(storage, "expired", expires_at=LATER),
            await store(storage, "ended", namespace="n", session_id="s"),
            await store(storage, "purged", namespace="gone"),
            await store(storage, "kept"),
        ]
        await embed(storage, *memories)
        holder = Holder(storage)
        assert len(await holder.look()) == 5
        await remove(storage, "removed")
        await storage.end_session("n", "s", WithMemories.DELETE, NOW)
        assert await storage.with_vectors(ONE, [memory.id for memory in memories], LATER) == {
            memories[3].id,
            memories[4].id,
        }
        await storage.expire(LATER, 99)
        tickets = await storage.delete_namespace("gone", NOW, recursive=True)
        assert await Holder(storage).look() == ["kept"]
        assert await storage.with_vectors(ONE, [memory.id for memory in memories], NOW) == {memories[4].id}
        for ticket in tickets:
            await storage.purge(ticket, NOW, 99)
        assert set(await holder.look()) - {"purged"} == {"kept"}
        assert await storage.vector_counts(OTHER, LATER) == VectorCounts(0, 1, 1)
        await assert_clean(storage)

    async def test_a_removed_and_expired_key_that_is_stored_anew_has_no_vector(self, storage: Storage) -> None:
        await embed(storage, await store(storage, "k"), await store(storage, "e", expires_at=LATER))
        await remove(storage, "k")
        for key in "ke":
            await store(storage, key, now=LATER)
        assert await waiting(storage, now=LATER) == ["k", "e"]
        assert await Holder(storage).look() == []

    async def test_a_moved_memory_keeps_its_vector_and_is_found_where_it_went(self, storage: Storage) -> None:
        memory = await store(storage, "k", namespace="from")
        await embed(storage, memory)
        source, target, last = Holder(storage, "from"), Holder(storage, "to"), Holder(storage, "last")
        assert (await source.look(), await target.look()) == (["k"], [])
        await storage.move(("from", "k"), ("to/x", "k"), NOW)
        assert (await source.look(), await target.look()) == ([], ["k"])
        await storage.rename_namespace("to", "last", NOW)
        assert (await target.look(), await last.look()) == ([], ["k"])
        assert await waiting(storage) == []

    async def test_what_came_is_told_by_subtree_and_never_by_prefix(self, storage: Storage) -> None:
        for name in ("acme", "acme/x", *NEIGHBOURS):
            await embed(storage, await store(storage, f"{len(name)}", namespace=name))
        for limit in (1, 2, 99):
            assert await Holder(storage, "acme").look(limit) == ["4", "6"]
            assert await Holder(storage, "acme", recursive=False).look(limit) == ["4"]
            assert len(await Holder(storage).look(limit)) == len(NEIGHBOURS) + 2
            assert await Holder(storage, "acme", "acm").look(limit) == ["3", "4", "6"]
            assert await Holder(storage, "none").look(limit) == []

    async def test_a_new_model_takes_the_place_of_the_old_one(self, storage: Storage) -> None:
        memories = [await store(storage, key) for key in "abc"]
        await embed(storage, *memories)
        await embed(storage, memories[0], model=OTHER)
        assert (await Holder(storage).look(), await Holder(storage, model=OTHER).look()) == (["b", "c"], ["a"])
        assert await storage.vector_counts(OTHER, NOW) == VectorCounts(1, 2, 2)
        assert await storage.vector_counts("unknown", NOW) == VectorCounts(0, 3, 3)
        assert await storage.drop_vectors(OTHER, 1) == 1
        assert await storage.drop_vectors(OTHER, 9) == 1
        assert await storage.drop_vectors(OTHER, 9) == 0
        assert await storage.vector_counts(OTHER, NOW) == VectorCounts(1, 2, 0)
        assert await storage.drop_vectors(None, 9) == 1
        assert await storage.drop_vectors(None, 9) == 0
        assert await storage.vector_counts(OTHER, NOW) == VectorCounts(0, 3, 0)
        await assert_clean(storage)

    async def test_the_counts_are_of_what_is_visible(self, storage: Storage) -> None:
        memories = [
            await store(storage, "a"),
            await store(storage, "b", expires_at=LATER),
            await store(storage, "c", namespace="gone"),
            await store(storage, "d", namespace="gone", expires_at=LATER),
        ]
        await store(storage, "e", expires_at=LATER)
        await store(storage, "f")
        await store(storage, "g", namespace="gone")
        await embed(storage, *memories)
        assert await storage.vector_counts(ONE, NOW) == VectorCounts(4, 3, 0)
        assert await storage.vector_counts(ONE, LATER) == VectorCounts(2, 2, 0)
        await storage.delete_namespace("gone", NOW, recursive=True)
        assert await storage.vector_counts(ONE, NOW) == VectorCounts(2, 2, 0)
        assert await storage.vector_counts(ONE, LATER) == VectorCounts(1, 1, 0)

    async def test_codes_of_a_model_have_one_length(self, storage: Storage) -> None:
        memory, other = await store(storage, "k"), await store(storage, "other")
        await embed(storage, memory)
        with pytest.raises(InvalidInputError):
            await storage.put_vectors(ONE, [Code(other.id, other.seq, b"short")])
        assert await waiting(storage) == ["other"]
        assert await storage.put_vectors(OTHER, [Code(other.id, other.seq, b"short")]) == 1

    async def test_no_vector_is_put_while_read_only(self, storage: Storage) -> None:
        memory = await store(storage, "k")
        await embed(storage, memory, model=OTHER)
        await storage.set_read_only("upkeep")
        with pytest.raises(ReadOnlyError):
            await embed(storage, memory)
        assert await storage.drop_vectors(ONE, 9) == 1

    async def test_what_is_derived_again_keeps_its_vector(self, storage: Storage) -> None:
        await embed(storage, await store(storage, "k"))
        await storage.check(fix=True)
        await storage.refresh_index(9)
        assert await Holder(storage).look() == ["k"]

    async def test_whoever_follows_holds_what_there_is(self, storage: Storage) -> None:
        """Writes, moves, removals and vectors in any order: followers hold what one who comes anew is told."""
        dice = random.Random("vectors")
        followers = [Holder(storage), Holder(storage, "n1"), Holder(storage, "n1", "n2/x", recursive=False)]
        names = ("n1", "n1/x", "n2", "n2/x")
        known: list[Memory] = []
        for step in range(300):
            namespace, key = dice.choice(names), f"k{dice.randrange(4)}"
            match dice.randrange(6):
                case 0 | 1:
                    expires_at = dice.choice([None, None, LONG_AFTER])
                    known.append(await store(storage, key, f"v{step}", namespace=namespace, expires_at=expires_at))
                case 2:
                    await remove(storage, key, namespace=namespace)
                case 3:
                    try:
                        await storage.move((namespace, key), (dice.choice(names), f"m{step}"), NOW)
                    except MemoryNotFoundError:
                        continue
                case 4:
                    await embed(storage, *dice.sample(known, min(3, len(known))))
                case _:
                    await embed(storage, *await storage.unembedded(ONE, NOW, 0, 3))
            follower = dice.choice(followers)
            told = await follower.look(dice.choice([1, 3, 99]))
            fresh = Holder(storage, *follower.scopes, recursive=follower.recursive)
            there = await fresh.look()
            lost = follower.held.keys() - fresh.held.keys()
            # Of a key that was removed twice only the last one is told.
            assert not await storage.with_vectors(ONE, list(lost), NOW)
            assert {n: c for n, c in follower.held.items() if n not in lost} == fresh.held
            assert set(there) <= set(told)
        await assert_clean(storage)

    async def test_a_follower_among_writers_holds_what_there_is(self, storage: Storage) -> None:
        followers = [Holder(storage), Holder(storage)]

        async def write(who: int) -> None:
            for n in range(25):
                await store(storage, f"k{who} {n % 5}", f"v{n}")

        async def make(follower: Holder) -> None:
            for _ in range(60):
                await embed(storage, *await storage.unembedded(ONE, NOW, 0, 4))
                await follower.look(3)

        await asyncio.gather(write(0), write(1), *map(make, followers))
        fresh = Holder(storage)
        await fresh.look()
        for follower in followers:
            await follower.look()
            assert follower.held == fresh.held
        await assert_clean(storage)
