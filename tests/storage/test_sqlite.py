"""The contract on SQLite."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.storage.contract import StorageContract
from unified_memory.storage.base import Storage
from unified_memory.storage.sqlite import SQLiteStorage


class TestSQLite(StorageContract):
    @pytest.fixture
    async def storage(self, tmp_path: Path) -> AsyncIterator[Storage]:
        storage = SQLiteStorage(tmp_path / "memory.db")
        await storage.open()
        yield storage
        await storage.close()
        # Whatever a test did, nothing disagrees with anything.
        await storage.open()
        assert await storage.check(fix=False) == []
        await storage.close()
