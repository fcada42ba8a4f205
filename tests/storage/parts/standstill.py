"""Writes that stand still until an instant."""

import pytest

from tests.storage.drafts import NOW, apply, remove, removing, store, storing, version_of
from tests.storage.parts.opened import LATER, NEVER, Opened
from unified_memory.model.clock import SystemClock
from unified_memory.model.errors import ConflictError, ReadOnlyError
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.session import Session, WithMemories
from unified_memory.storage.base import Access, Storage


class StandstillContract(Opened):
    """`hold_writes`."""

    async def test_whatever_adds_is_refused_with_the_reason(self, storage: Storage) -> None:
        await store(storage, "k", namespace="a")
        await storage.hold_writes("a restore", NEVER)
        assert await storage.read_only() == "a restore"
        refused = [
            storage.edit([removing("k", namespace="a"), storing("l")], NOW),
            storage.move(("a", "k"), ("a", "l"), NOW),
            storage.put_namespace("n", NamespaceConfig(), NOW, create=True),
            storage.rename_namespace("a", "b", NOW),
            storage.put_session(Session("s", "a", None, None, None, b"{}", NOW, NOW, None)),
        ]
        for write in refused:
            with pytest.raises(ReadOnlyError) as told:
                await write
            assert told.value.facts["reason"] == "a restore"
        assert await version_of(storage, "k", namespace="a") == 1
        assert await storage.get_namespace("n", NOW) is None
        assert await storage.get_session("a", "s", NOW) is None

    async def test_whatever_only_removes_still_works(self, storage: Storage) -> None:
        for key in ("k", "l", "m"):
            await store(storage, key, namespace="a", session_id=f"of {key}")
        memory = await store(storage, "passed", namespace="a", expires_at=LATER)
        await storage.hold_writes("a restore", NEVER)
        await storage.touch([Access(memory.id, 1, NOW)])
        assert await storage.expire(LATER, 9) == [("a", 1)]
        assert await remove(storage, "k", namespace="a")
        assert (await storage.redact("a", "l", None, NOW)).versions == [1]
        assert (await storage.end_session("a", "of m", WithMemories.DELETE, NOW))[1] == 1
        (ticket,) = await storage.delete_namespace("a", LATER, recursive=True)
        assert await storage.purge(ticket, LATER, 9) == 0

    async def test_writes_go_on_when_they_are_let(self, storage: Storage) -> None:
        await storage.hold_writes("a restore", NEVER)
        await storage.hold_writes("again", NEVER)
        assert await storage.read_only() == "again"
        await storage.hold_writes(None, NEVER)
        assert await storage.read_only() is None
        await store(storage, "k")

    async def test_writes_go_on_by_themselves_when_the_instant_has_come(self, storage: Storage) -> None:
        await storage.hold_writes("a restore", NEVER)
        await storage.hold_writes("a restore", SystemClock().now())
        assert await storage.read_only() is None
        await apply(storage, storing("k"))
        await storage.put_namespace("n", NamespaceConfig(), NOW, create=True)
        await storage.move(("default", "k"), ("n", "k"), NOW)

    async def test_a_hold_that_has_lapsed_is_not_taken_up_again(self, storage: Storage) -> None:
        await storage.hold_writes("a restore", SystemClock().now())
        # Whoever holds was asleep, and another one writes.
        await store(storage, "k")
        with pytest.raises(ConflictError):
            await storage.hold_writes("a restore", NEVER)
        await store(storage, "k")
        await storage.hold_writes(None, 0)
        await storage.hold_writes("a restore", NEVER)
        with pytest.raises(ReadOnlyError):
            await store(storage, "k")

    async def test_a_hold_and_read_only_do_not_disturb_each_other(self, storage: Storage) -> None:
        await storage.set_read_only("the disk is full")
        await storage.hold_writes("a restore", NEVER)
        assert await storage.read_only() is not None
        await storage.hold_writes(None, 0)
        assert await storage.read_only() == "the disk is full"
        with pytest.raises(ReadOnlyError):
            await store(storage, "k")
        await storage.hold_writes("a restore", NEVER)
        await storage.set_read_only(None)
        assert await storage.read_only() == "a restore"
        with pytest.raises(ReadOnlyError):
            await store(storage, "k")
        await storage.hold_writes(None, 0)
        await store(storage, "k")

    async def test_a_hold_outlives_a_restart(self, storage: Storage) -> None:
        await storage.hold_writes("a restore", NEVER)
        await storage.close()
        await storage.open()
        assert await storage.read_only() == "a restore"
        with pytest.raises(ReadOnlyError):
            await store(storage, "k")
