"""The services that tests of REST ask."""

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.rest.asking import MEMORY, Rest, make_storage, serving
from unified_memory.model.clock import SettableClock


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    """A directory in memory where there is one: what is asked here does not depend on the disk, and syncing takes time."""
    if not MEMORY.is_dir():
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=MEMORY, prefix="unified-memory-test-") as name:
        yield Path(name)


@pytest.fixture(params=["sqlite", "inmemory"])
async def rest(request: pytest.FixtureRequest, directory: Path) -> AsyncIterator[Rest]:
    """REST over each backend."""
    clock = SettableClock()
    async with serving(make_storage(request.param, directory, clock), clock) as rest:
        yield rest


@pytest.fixture
async def one_rest() -> AsyncIterator[Rest]:
    """REST over the storage in memory, where the storage does not matter."""
    clock = SettableClock()
    async with serving(make_storage("inmemory", Path(), clock), clock) as rest:
        yield rest
