"""Data directories, looked at by a service of this process."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from unified_memory.bootstrap import build
from unified_memory.model.clock import Clock
from unified_memory.service.service import Service
from unified_memory.settings import load

DATABASE = "unified-memory.db"


@asynccontextmanager
async def opened(directory: Path, clock: Clock | None = None, **settings: Any) -> AsyncIterator[Service]:
    """A service over the directory."""
    service = build(load({}, data_dir=directory, **settings), clock)
    await service.open()
    try:
        yield service
    finally:
        await service.close()


async def check_is_clean(directory: Path) -> None:
    """Compares everything in the directory with everything, as `unified-memory check` does."""
    async with opened(directory) as service:
        assert await service.upkeep.check(fix=False) == []
