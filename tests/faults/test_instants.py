"""A kill and a power cut at every single write and sync of a service under load, one process doing all of it.

The kill: the files as they are at that instant. The power cut: what was synced, and of what was only written whatever chance lets
survive, page by page.
"""

import asyncio
import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from msgspec import Struct

from tests.faults.callers import Bench, Caller, prepare
from tests.faults.clients import Inside
from tests.faults.directories import opened
from tests.faults.disk import Event, Recorded, disk
from tests.faults.ledger import Ledger, Ref, State
from unified_memory.app import make_app
from unified_memory.settings import load
from unified_memory.storage.sqlite import writer

CALLERS = 8


class Instant(Struct):
    """The files of an instant, and what was known and in doubt then."""

    files: Path
    ledger: Ledger
    what: str


class Watching:
    """The hook that keeps the files of chosen events, just before each happens."""

    def __init__(self, source: Path, target: Path, rng: random.Random, share: float) -> None:
        self.disk = Recorded(source)
        self.instants: list[Instant] = []
        self.ledger: Ledger | None = None
        self.events = 0
        self._source = source
        self._target = target
        self._rng = rng
        self._share = share

    def __call__(self, event: Event, perform: Callable[[bytes], None]) -> None:
        if self.ledger is not None:
            self.events += 1
            # Most events are pages of the log; syncs and checkpoints are worth more attention.
            if self._rng.random() < self._share * (1 if (event.file, event.call) == ("wal", "write") else 5):
                self._keep(f"before {event.call} {self.events} of the {event.file}", self.ledger.copy())
        self.disk(event, perform)

    def _keep(self, what: str, ledger: Ledger) -> None:
        killed, cut = (self._target / f"{self.events} {how}" for how in ("killed", "cut"))
        killed.mkdir(parents=True)
        for file in self._source.iterdir():
            # The shared index is of no use once all processes are gone: SQLite makes it anew.
            if file.is_file() and not file.name.endswith("-shm"):
                shutil.copy(file, killed)
        cut.mkdir()
        self.disk.after_power_cut(cut, lambda _event: self._rng.random() < 0.5)
        self.instants += [Instant(killed, ledger.copy(), f"kill {what}"), Instant(cut, ledger, f"power cut {what}")]


async def under_load(watching: Watching, directory: Path, bench: Bench, writes: int) -> None:
    """So many acknowledged writes of all kinds by several callers at once."""
    async with opened(directory) as service:
        app = make_app(service, load({}))
        await prepare(bench, Inside(app))
        watching.ledger = bench.ledger
        async with asyncio.TaskGroup() as group:
            for number in range(CALLERS):
                group.create_task(Caller(bench, number, Inside(app, lambda: bench.ledger.acknowledged >= writes)).run())
        await service.upkeep.flush()
        async for _ in service.upkeep.cleanup():
            pass
        watching.ledger = None


async def look_at(instant: Instant) -> None:
    """Opens the files of the instant as the next process would."""
    async with opened(instant.files) as service:
        refs = instant.ledger.refs()
        found = await service.storage.get_many(refs, service.clock.now())
        states: dict[Ref, State] = {
            (m.namespace, m.key): State(m.version, msgspec.json.decode(m.value), m.tags) for m in found if m is not None
        }
        instant.ledger.settle(states)
        assert await service.upkeep.check(fix=False) == [], instant.what


async def hurt_everywhere(
    rng: random.Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, writes: int, share: float
) -> None:
    monkeypatch.setattr(writer, "CHECKPOINT_PAGES", 40)
    directory = tmp_path / "data"
    watching = Watching(directory, tmp_path / "instants", rng, share)
    bench = Bench(rng)
    with disk(watching):
        await under_load(watching, directory, bench, writes)
    for instant in watching.instants:
        await look_at(instant)
        shutil.rmtree(instant.files)
    told = f"{len(watching.instants)} instants of {watching.events} events, {bench.ledger.acknowledged} writes acknowledged\n"
    sys.stdout.write(told)
    assert ("db", "sync") in watching.disk.log, "No checkpoint was hit"


async def test_a_kill_or_power_cut_at_any_write_or_sync_loses_nothing_that_was_acknowledged(
    rng: random.Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hurt_everywhere(rng, tmp_path, monkeypatch, writes=80, share=0.012)


@pytest.mark.slow
async def test_a_kill_or_power_cut_at_every_write_and_sync_loses_nothing_that_was_acknowledged(
    rng: random.Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await hurt_everywhere(rng, tmp_path, monkeypatch, writes=150, share=0.1)
