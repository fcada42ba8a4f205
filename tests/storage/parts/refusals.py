"""Requests that come twice, and requests that come while writes are off."""

import asyncio

import pytest

from tests.storage.drafts import (
    NOW,
    apply,
    failing,
    keeping,
    remove,
    removing,
    store,
    storing,
    version_of,
)
from tests.storage.parts.opened import (
    LATER,
    Opened,
)
from unified_memory.model.clock import SECOND
from unified_memory.model.errors import (
    IdempotencyMismatchError,
    MemoryNotFoundError,
    ReadOnlyError,
)
from unified_memory.storage.base import (
    Access,
    Idempotency,
    Replayed,
    Storage,
)


class IdempotencyContract(Opened):
    """A repeated request is harmless."""

    async def test_a_repeated_request_is_not_applied_again(self, storage: Storage) -> None:
        once = Idempotency("default", "i", b"print", lambda outcomes: b"kept %d" % len(outcomes), 10 * SECOND)
        first = await storage.edit([storing("k", 1), storing("l", 1)], NOW, idempotency=once)
        assert isinstance(first, list)
        assert await storage.edit([storing("k", 1), storing("l", 1)], LATER, idempotency=once) == Replayed(b"kept 2")
        assert await version_of(storage, "k") == 1

    async def test_a_repeated_request_is_told_even_where_it_would_fail_now(self, storage: Storage) -> None:
        once = Idempotency("default", "i", b"print", lambda _: b"kept", 10 * SECOND)
        await storage.edit([storing("k", expected=0)], NOW, idempotency=once)
        await storage.set_read_only("closed")
        assert await storage.edit([storing("k", expected=0)], NOW, idempotency=once) == Replayed(b"kept")

    async def test_another_request_under_the_same_idempotency_key_is_refused(self, storage: Storage) -> None:
        await storage.edit([storing("k", 1)], NOW, idempotency=Idempotency("d", "i", b"one", lambda _: b"", SECOND))
        with pytest.raises(IdempotencyMismatchError):
            await storage.edit([storing("k", 2)], NOW, idempotency=Idempotency("d", "i", b"two", lambda _: b"", SECOND))
        assert await version_of(storage, "k") == 1

    async def test_an_idempotency_key_of_another_scope_is_another_key(self, storage: Storage) -> None:
        for scope in ("acme", "acme-corp"):
            once = Idempotency(scope, "i", scope.encode(), lambda _: b"", SECOND)
            assert isinstance(await storage.edit([storing("k")], NOW, idempotency=once), list)
        assert await version_of(storage, "k") == 2

    async def test_an_idempotency_key_of_a_failed_unit_can_be_used_again(self, storage: Storage) -> None:
        once = Idempotency("d", "i", b"print", lambda _: b"", SECOND)
        with pytest.raises(MemoryNotFoundError):
            await storage.edit([storing("k"), failing("x")], NOW, idempotency=once)
        assert isinstance(await storage.edit([storing("k")], NOW, idempotency=once), list)

    async def test_an_idempotency_key_is_kept_as_long_as_was_asked(self, storage: Storage) -> None:
        once = Idempotency("d", "i", b"print", lambda _: b"kept", SECOND)
        await storage.edit([storing("k")], NOW, idempotency=once)
        await storage.expire(LATER - 1, 100)
        assert await storage.edit([storing("k")], LATER - 1, idempotency=once) == Replayed(b"kept")
        await storage.expire(LATER, 100)
        assert isinstance(await storage.edit([storing("k")], LATER, idempotency=once), list)

    async def test_an_idempotency_key_has_passed_from_its_microsecond_on_also_before_the_cleanup(
        self, storage: Storage
    ) -> None:
        once = Idempotency("d", "i", b"print", lambda _: b"kept", SECOND)
        await storage.edit([storing("k")], NOW, idempotency=once)
        other = Idempotency("d", "i", b"other", lambda _: b"again", SECOND)
        assert isinstance(await storage.edit([storing("k")], LATER, idempotency=other), list)
        assert await storage.edit([storing("k")], LATER, idempotency=other) == Replayed(b"again")
        assert await version_of(storage, "k") == 2

    async def test_of_many_equal_requests_at_once_exactly_one_is_applied(self, storage: Storage) -> None:
        once = Idempotency("d", "i", b"print", lambda _: b"kept", SECOND)
        results = await asyncio.gather(*(storage.edit([storing("k")], NOW, idempotency=once) for _ in range(32)))
        assert sum(isinstance(one, list) for one in results) == 1
        assert await version_of(storage, "k") == 1


class ReadOnlyContract(Opened):
    """Nothing is added while read-only, and everything can be taken away."""

    async def test_read_only_refuses_drafts_and_lets_removals_through(self, storage: Storage) -> None:
        await apply(storage, storing("k"), storing("l"))
        assert await storage.read_only() is None
        await storage.set_read_only("the disk is nearly full")
        assert await storage.read_only() == "the disk is nearly full"
        with pytest.raises(ReadOnlyError) as refused:
            await apply(storage, removing("l"), storing("k", "new"))
        assert refused.value.facts["reason"] == "the disk is nearly full"
        assert await version_of(storage, "k") == 1
        assert await version_of(storage, "l") == 1
        assert await remove(storage, "k")
        await apply(storage, keeping("l"))
        await storage.set_read_only(None)
        assert await storage.read_only() is None
        assert (await store(storage, "k")).version == 2

    async def test_read_only_refuses_move_and_rename_and_lets_cleanup_and_deletes_through(
        self, storage: Storage
    ) -> None:
        memory = await store(storage, "k", namespace="a")
        await store(storage, "l", namespace="a", expires_at=LATER)
        await storage.set_read_only("closed")
        with pytest.raises(ReadOnlyError):
            await storage.move(("a", "k"), ("a", "m"), NOW)
        with pytest.raises(ReadOnlyError):
            await storage.rename_namespace("a", "b", NOW)
        await storage.touch([Access(memory.id, 1, NOW)])
        assert await storage.expire(LATER, 10) == [("a", 1)]
        (ticket,) = await storage.delete_namespace("a", LATER, recursive=True)
        assert await storage.purge(ticket, LATER, 10) == 1
