"""The services that these tests ask."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.service.asking import Held, holding
from unified_memory.model.clock import SettableClock
from unified_memory.storage.inmemory import InMemoryStorage
from unified_memory.storage.sqlite import SQLiteStorage

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory in it with a name of its own


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one."""
    if not SHARED_MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY, prefix="unified-memory-test-") as name:
        yield Path(name)


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    """A service over the storage in memory, where the storage does not matter."""
    async with holding(InMemoryStorage(), SettableClock()) as one:
        yield one


@pytest.fixture
async def on_sqlite(directory: Path) -> AsyncIterator[Held]:
    """A service over SQLite."""
    clock = SettableClock()
    async with holding(SQLiteStorage(directory / "memory.db", clock=clock), clock) as one:
        yield one


@pytest.fixture(params=["inmemory", "sqlite"])
def each(request: pytest.FixtureRequest) -> Held:
    """A service over each storage."""
    found = request.getfixturevalue("held" if request.param == "inmemory" else "on_sqlite")
    assert isinstance(found, Held)
    return found
