"""How well search finds the answers to our own questions, in each band: never less than this."""

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
from msgspec import Raw

from benchmarks._questions import BANDS, Questions, load
from benchmarks._ranking import recall
from unified_memory.model.clock import SettableClock
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.requests import BatchStoreRequest, SearchQuery, StoreRequest
from unified_memory.service.service import Service, assemble
from unified_memory.storage.base import Storage
from unified_memory.storage.inmemory import InMemoryStorage
from unified_memory.storage.sqlite import SQLiteStorage

# Recall at 10, a little below what is reached.
FLOORS = {
    "sqlite": {
        "overlap-0": 0.0,
        "overlap-1": 0.80,
        "overlap-2": 0.95,
        "code": 0.91,
        "cjk": 0.32,
        "typing-errors": 0.79,
        "dates": 0.70,
        "other-languages": 0.77,
        "who": 0.85,
    },
    "inmemory": {
        "overlap-0": 0.0,
        "overlap-1": 0.65,
        "overlap-2": 0.90,
        "code": 0.89,
        "cjk": 0.32,
        "typing-errors": 0.71,
        "dates": 0.65,
        "other-languages": 0.47,
        "who": 0.80,
    },
}
_BATCH = 500


@contextlib.asynccontextmanager
async def serving(backend: str, directory: Path, own: Questions) -> AsyncIterator[Service]:
    """A service that holds the set."""
    clock = SettableClock()
    storage: Storage = InMemoryStorage() if backend == "inmemory" else SQLiteStorage(directory / "own.db", clock=clock)
    service = assemble(storage, clock)
    await service.open()
    try:
        if "language" in NamespaceConfig.__struct_fields__:
            for space in own.spaces:
                config = {"language": Raw(msgspec.json.encode(space.language))}
                await service.namespaces.create(ANONYMOUS, space.name, config)
        requests = msgspec.json.decode(msgspec.json.encode(own.memories), type=list[StoreRequest])
        for first in range(0, len(requests), _BATCH):
            await service.memories.store_batch(ANONYMOUS, BatchStoreRequest(requests[first : first + _BATCH]))
        yield service
    finally:
        await service.close()


@pytest.mark.parametrize("backend", FLOORS)
async def test_no_band_is_found_less_than_its_floor(backend: str, tmp_path: Path) -> None:
    own = load()
    recalls: dict[str, list[float]] = defaultdict(list)
    async with serving(backend, tmp_path, own) as service:
        for question in own.questions:
            query = SearchQuery(question.text, namespace=question.namespace, limit=10)
            found = await service.searching.search(ANONYMOUS, query)
            recalls[question.band].append(recall([{hit.memory.key} for hit in found.hits], set(question.answers)))
    assert tuple(recalls) == BANDS
    reached = {band: sum(each) / len(each) for band, each in recalls.items()}
    assert {band: each for band, each in reached.items() if each < FLOORS[backend][band]} == {}
