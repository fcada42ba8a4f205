"""The stores that the older services wrote, and a service into which they were migrated."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from unified_memory.bootstrap import build
from unified_memory.model.clock import Clock
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS
from unified_memory.model.query import BY_ID, Selection
from unified_memory.service.migration import RunOptions
from unified_memory.service.reporting import Report
from unified_memory.service.service import Service
from unified_memory.settings import load

FIXTURES = Path(__file__).parents[3] / "shared" / "legacy" / "fixtures"
PLACES = {
    "em_sqlite": ("extended-memory-sqlite", "extended_memory_sqlite/memory.db"),
    "em_redis": ("extended-memory-redis", "extended_memory_redis/dump.rdb"),
    "shim": ("extended-memory-http-db", "shim_3009/extended_memory.db"),
    "shim_backup": ("extended-memory-http-db", "shim_3009/backup/extended_memory.db.backup.20250821_090002"),
    "shim_json": ("extended-memory-http-db", "shim_3009_from_memory_json/extended_memory.db"),
    "shim_memory_json": ("extended-memory-http-json", "shim_3009_from_memory_json/memory.json.original"),
    "mb_npm": ("memory-bank-files", "memory_bank_npm/bank"),
    "mb_pypi": ("memory-bank-sqlite", "memory_bank_pypi/memory_bank.db"),
}


def manifest() -> dict[str, Any]:
    told: dict[str, Any] = json.loads((FIXTURES / "manifest.json").read_text(encoding="utf-8"))
    return told


def source(name: str) -> tuple[str, str]:
    """Kind and location of a fixture."""
    kind, place = PLACES[name]
    return kind, str(FIXTURES / place)


@contextlib.asynccontextmanager
async def migrated(
    directory: Path, *names: str, clock: Clock | None = None
) -> AsyncIterator[tuple[Service, list[Report]]]:
    """A service over the directory, into which these fixtures were migrated one after the other, and what was reported."""
    service = build(load({}, data_dir=directory, semantic="off"), clock)
    await service.open()
    try:
        options = RunOptions(rollback_point=False)
        yield service, [await service.migration.run(ANONYMOUS, [source(name)], options) for name in names]
    finally:
        await service.close()


async def everything(service: Service) -> list[Memory]:
    """All memories."""
    page = await service.storage.select(Selection(("",), order=BY_ID, limit=100_000), service.clock.now())
    return page.items


def reads(name: str) -> list[dict[str, Any]]:
    """What an older service answered on its store."""
    text = (FIXTURES / "expected_reads" / f"{name}.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line]
