from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import settings

from tests.storage.machine import machine_of
from unified_memory.storage.base import Storage
from unified_memory.storage.sqlite import SQLiteStorage


@asynccontextmanager
async def _opened() -> AsyncIterator[Storage]:
    with TemporaryDirectory() as directory:
        storage = SQLiteStorage(Path(directory) / "memory.db")
        await storage.open()
        yield storage
        assert await storage.check(fix=False) == []
        await storage.close()


TestMachineOnSQLite = machine_of(_opened).TestCase
TestMachineOnSQLite.settings = settings(max_examples=20, stateful_step_count=25, deadline=None)
