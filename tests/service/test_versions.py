"""Versions of keys in a namespace that was deleted and made anew."""

from pathlib import Path

from tests.service.asking import holding
from unified_memory.model.clock import SettableClock
from unified_memory.model.principal import ANONYMOUS
from unified_memory.storage.sqlite import SQLiteStorage


async def test_versions_go_on_above_those_of_the_namespace_that_was_whichever_process_stores(directory: Path) -> None:
    clock = SettableClock()
    path = directory / "memory.db"
    async with (
        holding(SQLiteStorage(path, clock=clock), clock) as one,
        holding(SQLiteStorage(path, clock=clock), clock) as other,
    ):
        for _ in range(3):
            await one.store("k", namespace="n")
        deletion = await one.service.namespaces.delete(ANONYMOUS, "n", recursive=True, dry_run=False)
        assert (await one.store("l", namespace="n")).version == 4
        assert (await other.store("m", namespace="n")).version == 4
        assert [gone async for gone in other.service.namespaces.purge(deletion.tickets)] == [1]
        assert (await one.store("k", namespace="n")).version == 4
        assert (await other.store("k", namespace="n")).version == 5
        assert await one.service.upkeep.check(fix=False) == []
