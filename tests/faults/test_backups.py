"""A backup that is taken while many write is exactly what was there at one instant: some prefix of the commit order."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from tests.faults.directories import opened
from unified_memory.model.errors import ConflictError, NotFoundError
from unified_memory.model.history import Event, Kind
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.backups import Backup
from unified_memory.service.requests import (
    BackupRequest,
    BatchStoreRequest,
    MoveRequest,
    Place,
    RestoreRequest,
    StoreRequest,
    UpdateRequest,
)
from unified_memory.service.service import Service
from unified_memory.storage import backup as files
from unified_memory.storage.dump import Buried

CLIENTS = 64
KEYS = 40
SEEDS = 20
NAMESPACES = ("acme", "acme/web", "acme-corp", "gone")
Ref = tuple[str, str]
Told = dict[tuple[str, str, int], Any]


class Writers:
    """Clients that write without a rest, and what they were told of it: the value of each version."""

    def __init__(self, service: Service, seed: int) -> None:
        self._service = service
        self._dice = random.Random(seed)
        self.told: Told = {}
        self._count = 0
        self._over = False
        self._reached = asyncio.Event()
        self._wanted = 0
        self._running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(CLIENTS):
                group.create_task(self._client())

    async def more(self, count: int) -> None:
        """Waits until so many more versions were written."""
        self._wanted = len(self.told) + count
        self._reached.clear()
        reached = asyncio.create_task(self._reached.wait())
        await asyncio.wait({reached, self._running}, return_when=asyncio.FIRST_COMPLETED)
        if self._running.done():
            await self._running

    async def end(self) -> None:
        """Lets each client end."""
        self._over = True
        await self._running

    async def _client(self) -> None:
        while not self._over:
            try:
                await self._write()
            except (ConflictError, NotFoundError):
                # Another one was faster.
                continue

    async def _write(self) -> None:
        memories, dice = self._service.memories, self._dice
        namespace, key = dice.choice(NAMESPACES), f"k{dice.randrange(KEYS)}"
        self._count += 1
        value = {"stamp": self._count, "text": "word " * dice.randrange(30)}
        raw = Raw(msgspec.json.encode(value))
        match dice.randrange(12):
            case 0 | 1 | 2 | 3 | 4:
                ttl = 0.001 if dice.random() < 0.1 else None
                outcome = await memories.store(ANONYMOUS, StoreRequest(raw, key, namespace, ttl=ttl))
                self._note(outcome.memory, value)
            case 5 | 6:
                outcome = await memories.update(ANONYMOUS, namespace, key, UpdateRequest(raw))
                self._note(outcome.memory, value)
            case 7:
                await memories.delete(ANONYMOUS, namespace, key)
            case 8:
                one = StoreRequest(raw, key, namespace)
                two = StoreRequest(raw, f"k{dice.randrange(KEYS)}x", namespace)
                for outcome in await memories.store_batch(ANONYMOUS, BatchStoreRequest([one, two])):
                    self._note(outcome.memory, value)
            case 9:
                target = f"k{dice.randrange(KEYS)}m"
                moved = await memories.move(ANONYMOUS, MoveRequest(Place(namespace, key), Place("acme", target)))
                assert isinstance(moved, Memory)
                self._note(moved, msgspec.json.decode(moved.value))
            case 10:
                async for _ in self._service.upkeep.cleanup():
                    pass
            case _:
                if dice.random() < 0.05:
                    await self._service.namespaces.delete(ANONYMOUS, "gone", recursive=True, dry_run=False)

    def _note(self, memory: Memory | None, value: Any) -> None:
        assert memory is not None
        self.told[memory.namespace, memory.key, memory.version] = value
        if len(self.told) >= self._wanted:
            self._reached.set()


async def feed(service: Service) -> list[Event]:
    """Everything that happened."""
    found: list[Event] = []
    while page := await service.storage.feed(found[-1].seq if found else 0, 1000):
        found += page
    return found


def replayed(events: list[Event], seq: int) -> dict[Ref, int]:
    """The keys that had a memory at that place in the commit order, and its version."""
    there: dict[Ref, int] = {}
    for event in events:
        if event.seq > seq:
            break
        if event.kind is Kind.DROP:
            there = {ref: version for ref, version in there.items() if ref[0] != event.namespace}
            continue
        assert event.key is not None
        assert event.version is not None
        if event.kind in {Kind.STORE, Kind.UPDATE}:
            there[event.namespace, event.key] = event.version
        else:
            assert there.pop((event.namespace, event.key)) == event.version
    return there


def held(place: files.Place, made: Backup) -> tuple[dict[Ref, Memory], dict[Ref, int]]:
    """The memories of a full backup, and those that it tells as expired."""
    reading = place.reading(made.manifest.id, None)
    memories = {(row.namespace, row.key): row for row in reading.rows("memories") if isinstance(row, Memory)}
    buried = [row for row in reading.rows("buried") if isinstance(row, Buried)]
    return memories, {(row.namespace, row.key): row.version for row in buried if row.reason == "expired"}


@asynccontextmanager
async def written(directory: Path, seed: int) -> AsyncIterator[tuple[Service, Writers]]:
    """A service at which many are writing."""
    async with opened(directory) as service:
        writers = Writers(service, seed)
        try:
            yield service, writers
        finally:
            await writers.end()


@pytest.mark.parametrize("seed", range(SEEDS))
async def test_a_backup_among_writers_is_a_prefix_of_the_commit_order(tmp_path: Path, seed: int) -> None:
    async with written(tmp_path, seed) as (service, writers):
        await writers.more(500 + 40 * seed)
        made = await service.backups.create(ANONYMOUS, BackupRequest())
        await writers.more(200)
    async with opened(tmp_path) as service:
        events = await feed(service)
    memories, expired = held(files.Place(tmp_path / "backups"), made)
    there = replayed(events, made.manifest.seq)
    assert made.manifest.seq < events[-1].seq
    # What had expired was still to be cleaned up.
    assert {ref: memory.version for ref, memory in memories.items()} == {
        ref: version for ref, version in there.items() if ref in memories or expired.get(ref) != version
    }
    for (namespace, key), memory in memories.items():
        assert msgspec.json.decode(memory.value) == writers.told[namespace, key, memory.version]
    assert made.manifest.memories == len(memories)


@pytest.mark.parametrize("seed", range(3))
async def test_a_chain_of_backups_among_writers_restores_as_its_last_instant(tmp_path: Path, seed: int) -> None:
    async with written(tmp_path / "here", seed) as (service, writers):
        made: list[Backup] = []
        for _ in range(4):
            await writers.more(200)
            parent = made[-1].manifest.id if made else None
            made.append(await service.backups.create(ANONYMOUS, BackupRequest(parent=parent)))
    async with opened(tmp_path / "here") as service:
        events = await feed(service)
    async with opened(tmp_path / "there", backup_dir=tmp_path / "here" / "backups") as elsewhere:
        for one in reversed(made):
            await elsewhere.backups.restore(ANONYMOUS, RestoreRequest(one.manifest.id, safety=False))
            there = replayed(events, one.manifest.seq)
            found = await elsewhere.storage.get_many(list(there), elsewhere.clock.now())
            for (namespace, key), memory in zip(there, found, strict=True):
                if memory is None:
                    # It was stored for a thousandth of a second.
                    continue
                version = there[namespace, key]
                assert msgspec.json.decode(memory.value) == writers.told[namespace, key, version]
            stats = await elsewhere.upkeep.stats(ANONYMOUS, None)
            assert stats.memories == sum(memory is not None for memory in found)
            assert stats.memories > KEYS
            assert await elsewhere.upkeep.check(fix=False) == []
