"""The service is killed under load, the client too, and both come back: what was acknowledged is there once, in order."""

import asyncio
import os
import re
import sys
import time
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import count
from pathlib import Path

import pytest

from tests.faults.conftest import SmallDisk
from tests.faults.processes import PATIENCE, ROOT, Runner
from tests.faults.spooling import NAMESPACE, TASKS
from unified_memory.client import ServiceUnavailableError, Spool, SyncUnifiedMemoryClient, UnifiedMemoryClient
from unified_memory.model.errors import StorageFullError

# The numbers of the client's next life begin so much higher.
LIFE = 1_000_000
Run = Callable[..., Awaitable[Runner]]


@pytest.fixture
async def run() -> AsyncIterator[Run]:
    """Starts a Python program; all are gone when the test is."""
    running: list[Runner] = []

    async def run(*arguments: str) -> Runner:
        kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "PYTHONPATH"}}  # noqa: TID251
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", *arguments),
            cwd=ROOT,
            env=kept,
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            # Nobody reads for many seconds; a client whose pipe is full would stand still.
            limit=2**24,
        )
        running.append(Runner(process))
        return running[-1]

    yield run
    for runner in running:
        runner.kill()
    for runner in running:
        await runner.end()


def acknowledged(runners: list[Runner]) -> dict[str, list[int]]:
    """What the clients were told to be kept, by key, in order."""
    found: dict[str, list[int]] = {f"k{number}": [] for number in range(TASKS)}
    for runner in runners:
        for line in runner.said:
            if told := re.fullmatch(r"(k\d+) (\d+) (stored|cached_locally)", line):
                found[told[1]].append(int(told[2]))
            else:
                assert line.startswith(("done 0", "The service is away")), line
    return found


async def each_stored(client: Runner) -> None:
    """Waits until the service itself has taken something from each task."""
    left = set(range(TASKS))
    while left:
        left.discard(int((await client.line(r"k(\d+) \d+ stored"))[1]))


def until_replayed(spool: Spool, left: int) -> None:
    """Waits until no more than so many wait."""
    end = time.monotonic() + PATIENCE
    while spool.totals().waiting > left:
        assert time.monotonic() < end


@pytest.mark.parametrize(
    "seconds",
    [pytest.param(5, marks=pytest.mark.slow, id="some"), pytest.param(30, marks=pytest.mark.nightly, id="many")],
)
async def test_every_acknowledged_store_is_there_once_and_in_order(tmp_path: Path, run: Run, seconds: int) -> None:
    serve = ["unified_memory", "serve", "--data-dir", str(tmp_path / "data"), "--semantic", "off", "--port"]
    service = await run(*serve, "0")
    port = await service.port()
    url, spool = f"http://127.0.0.1:{port}", str(tmp_path / "spool.db")
    with SyncUnifiedMemoryClient(url) as truth:
        truth.namespaces.create(NAMESPACE, history_keep=100_000)

    first = await run("tests.faults.spooling", url, spool, "0")
    await each_stored(first)
    service.kill()
    await service.end()
    await first.line("cached_locally")
    await asyncio.sleep(seconds / 2)
    first.kill()
    await first.end()

    second = await run("tests.faults.spooling", url, spool, str(LIFE))
    await second.line("cached_locally")
    await asyncio.sleep(seconds / 2)
    with Spool(spool) as seen:
        waiting = seen.totals().waiting
        service = await run(*serve, str(port))
        await service.port()
        # Killed in the midst of a replay, between what the service does and what the spool notes of it.
        await asyncio.to_thread(until_replayed, seen, waiting * 9 // 10)
    second.kill()
    await second.end()

    third = await run("tests.faults.spooling", url, spool, str(2 * LIFE))
    # Its stores reach the service again, behind all that waited.
    await each_stored(third)
    assert await third.end() == 0

    told = acknowledged([first, second, third])
    with Spool(spool) as left, SyncUnifiedMemoryClient(url) as truth:
        assert (left.totals().waiting, left.totals().failed) == (0, 0)
        for key, numbers in told.items():
            heads = sorted(truth.iterate_history(key, NAMESPACE), key=lambda head: head["version"])
            stored = [truth.version(key, head["version"], NAMESPACE)["value"] for head in heads]
            assert [head["version"] for head in heads] == list(range(1, len(stored) + 1))
            assert stored == sorted(set(stored))
            assert set(numbers) <= set(stored)
            # Beside them at most what was on its way each time that the client was killed.
            assert len(stored) - len(numbers) <= 2
            assert len(numbers) > 2 * seconds


async def test_a_client_that_is_full_refuses_and_loses_nothing(tmp_path: Path) -> None:
    with Spool(tmp_path / "spool.db", max_entries=3) as spool:
        async with UnifiedMemoryClient("http://127.0.0.1:9", spool=spool, replay_every=3600) as client:
            for number in range(3):
                await client.store_with_fallback(f"k{number}", number)
            with pytest.raises(StorageFullError, match="3 writes of 3"):
                await client.store_with_fallback("k3", 3)
            assert [(entry.key, entry.body["value"]) for entry in spool.entries()] == [("k0", 0), ("k1", 1), ("k2", 2)]


def fill(client: SyncUnifiedMemoryClient, kept: list[str]) -> None:
    for number in count():
        client.store_with_fallback(f"k{number}", "x" * 50_000)
        kept.append(f"k{number}")


@pytest.mark.system("mount")
def test_a_full_disk_under_the_spool_is_told_and_loses_nothing(small_disk: SmallDisk) -> None:
    kept: list[str] = []
    with Spool(small_disk.path / "spool.db") as spool:
        with SyncUnifiedMemoryClient("http://127.0.0.1:9", spool=spool, replay_every=3600) as client:
            with pytest.raises(StorageFullError, match="disk"):
                fill(client, kept)
            with pytest.raises(ServiceUnavailableError):
                client.store("k0", 1)
        assert spool.totals().waiting == len(kept) > 10
    with Spool(small_disk.path / "spool.db") as again:
        assert [entry.key for entry in again.entries()] == kept
