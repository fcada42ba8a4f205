"""A service that migrates from the older services of `older.py`."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from msgspec import Raw

from tests.service.older import Record, open_older, write
from unified_memory.bootstrap import build
from unified_memory.model.clock import Clock, SettableClock
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS
from unified_memory.model.query import BY_ID, Selection
from unified_memory.service.migration import MemoryMigrationManager, RunOptions
from unified_memory.service.reaching import Reach
from unified_memory.service.reporting import Report
from unified_memory.service.requests import StoreRequest
from unified_memory.service.service import Service
from unified_memory.settings import load

# Without a rollback point, which is another test's.
PLAIN = RunOptions(rollback_point=False)


class Moving:
    """The service, and older ones in the same directory."""

    def __init__(self, service: Service, directory: Path) -> None:
        self.service = service
        self.directory = directory

    @property
    def migration(self) -> MemoryMigrationManager:
        return self.service.migration

    def older(self, name: str) -> Path:
        return self.directory / f"{name}.jsonl"

    def holds(self, name: str, records: Sequence[Record]) -> None:
        """An older service has these records now."""
        write(self.older(name), records)

    def source(self, name: str) -> tuple[str, str]:
        return name, str(self.older(name))

    async def run(self, *names: str, options: RunOptions = PLAIN) -> Report:
        return await self.migration.run(ANONYMOUS, [self.source(name) for name in names], options)

    async def memories(self) -> dict[tuple[str, str], Memory]:
        """All there are, by namespace and key."""
        page = await self.service.storage.select(Selection(("",), order=BY_ID), self.service.clock.now())
        assert page.next is None
        return {(memory.namespace, memory.key): memory for memory in page.items}

    async def texts(self) -> dict[str, Any]:
        """The values by key."""
        return {key: json.loads(memory.value) for (_, key), memory in (await self.memories()).items()}

    async def store(self, namespace: str, key: str, value: Any) -> Memory:
        request = StoreRequest(Raw(json.dumps(value).encode()), key, namespace)
        outcome = await self.service.memories.store(ANONYMOUS, request)
        assert outcome.memory is not None
        return outcome.memory

    def records(self, name: str) -> list[Record]:
        """What an older service has now."""
        return [json.loads(line) for line in self.older(name).read_text().splitlines()]

    async def has(self, key: str) -> bool:
        """Whether something is stored under that key."""
        return key in await self.texts()

    def read(self, path: str) -> Any:
        """A file of JSON."""
        return json.loads(Path(path).read_text())

    def lines(self, name: str) -> list[dict[str, Any]]:
        """A list that lies beside the report."""
        path = self.directory / "migration" / name
        return [json.loads(line) for line in path.read_text().splitlines()]


async def until(what: Callable[[], Awaitable[bool]]) -> None:
    """Waits until it is so, which it will be within a moment."""
    async with asyncio.timeout(30):
        while not await what():  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)


@asynccontextmanager
async def moving(directory: Path, clock: Clock | None = None) -> AsyncIterator[Moving]:
    """A service on that directory."""
    service = build(load({}, data_dir=directory), clock or SettableClock())
    service.migration.reach = Reach(open_older)
    await service.open()
    try:
        yield Moving(service, directory)
    finally:
        await service.close()
