"""The storage machine on several tiers: demotions, promotions, compactions, tidying and restarts come in between, anywhere."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule

from tests.storage.machine import Ref, StorageMachine, refs
from tests.storage.test_tiered import LAST, tiered
from unified_memory.model.clock import SECOND
from unified_memory.model.memory import Memory
from unified_memory.storage.base import Storage
from unified_memory.storage.tiered import INTERRUPTED_MICROSECONDS


@asynccontextmanager
async def _opened() -> AsyncIterator[Storage]:
    with TemporaryDirectory() as directory:
        storage = tiered(Path(directory))
        await storage.open()
        yield storage
        assert await storage.check(fix=False) == []
        await storage.close()


class TieredMachine(StorageMachine):
    """What the dict holds does not depend on where a value lies; `cold` are the ids of which it is known."""

    factory = staticmethod(_opened)
    storage: Any

    def __init__(self) -> None:
        super().__init__()
        self.cold: set[int] = set()

    def written(self, ref: Ref, memory: Memory, word: str) -> None:
        super().written(ref, memory, word)
        # A write brings a value back.
        self.cold.discard(memory.id)

    @rule(ref=refs, other=refs, how=st.sampled_from(("store", "update", "remove", "move", "touch", "get")))
    def store_archive_and_change(self, ref: Ref, other: Ref, how: str) -> None:
        """What chance alone would seldom do in this order."""
        self.store_one(ref, None)
        self.demote(100, ref[0])
        match how:
            case "store":
                self.store_one(ref, None)
            case "update":
                self.update_the_expected_version(ref, 0)
            case "remove":
                self.remove_one(ref)
            case "move":
                self.move_one(ref, other, 0)
            case "touch":
                self.touch_one(ref, 2)
            case _:
                self.get_one(ref)

    @rule(number=st.sampled_from((1, 2, 100)), scope=st.sampled_from(("", "acme", "b")))
    def demote(self, number: int, scope: str) -> None:
        chosen = self.run(self.storage.demotable((scope,), self.now, recursive=True, used_before=LAST, limit=number))
        warm = {kept.id for kept in self.seen(scope).values()} - self.cold
        assert {one.id for one in chosen} <= warm
        assert len(chosen) == min(number, len(warm))
        moved = self.run(self.storage.demote(chosen, self.now))
        assert (moved.memories, moved.bytes) == (len(chosen), sum(one.bytes for one in chosen))
        self.cold |= {one.id for one in chosen}

    @rule(number=st.integers(1, 4), scope=st.sampled_from(("", "acme")))
    def promote(self, number: int, scope: str) -> None:
        ids = self.run(self.storage.archived_ids((scope,), self.now, recursive=True, after_id=0, limit=number))
        cold = {kept.id for kept in self.seen(scope).values()} & self.cold
        assert ids == sorted(cold)[:number]
        moved = self.run(self.storage.promote(ids, self.now))
        assert moved.memories == len(ids)
        self.cold -= set(ids)

    @rule(number=st.integers(0, 5))
    def compact(self, number: int) -> None:
        live = [one for one in self.run(self.storage.archives()) if one.state == "live"]
        if number < len(live):
            one = live[number]
            compacted = self.run(self.storage.compact(one.name, self.now))
            assert (compacted.memories, compacted.damaged) == (one.live, 0)

    @rule(later=st.sampled_from((0, 61 * SECOND, INTERRUPTED_MICROSECONDS)))
    def tidy(self, later: int) -> None:
        self.run(self.storage.tidy(self.now + later))

    @rule()
    def restart(self) -> None:
        self.run(self.storage.close())
        self.run(self.storage.open())

    @invariant()
    def each_lies_where_it_was_put(self) -> None:
        held = {kept.id for kept in self.seen().values()}
        page = self.run(self.storage.archived_ids(("",), self.now, recursive=True, after_id=0, limit=1000))
        assert set(page) == self.cold & held
        uses = self.run(self.storage.uses(("",), self.now, recursive=True))
        assert (uses.warm, uses.cold) == (len(held) - len(page), len(page))


TestMachineOnTiers = TieredMachine.TestCase
TestMachineOnTiers.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
