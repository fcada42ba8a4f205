"""A migration that is killed at any instant, and run again, ends as one that was not."""

import asyncio
import json
import random
import shutil
import signal
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest

from tests.faults.migrating import SOURCES
from tests.faults.processes import PATIENCE, ROOT
from tests.service.moving import moving
from tests.service.older import context, file, write
from unified_memory.model.clock import SystemClock
from unified_memory.model.query import BY_ID, Selection

RECORDS = 2000


def prepare(directory: Path, rng: random.Random) -> None:
    """What there is to migrate: contexts and files, some of which cannot be stored."""
    contexts: list[dict[str, Any]] = [
        context(number, f"context {number} {rng.random()}", f"project {number % 7}", tags=[f"t{number % 5}"])
        for number in range(1, RECORDS + 1)
    ]
    for number in (10, 900, 1999):
        contexts[number] = {"id": number + 1, "bad": f"NaN {number}"}
    contexts[500]["notes"] = ["huge: It is odd"]
    write(directory / f"{SOURCES[0]}.jsonl", contexts)
    write(directory / f"{SOURCES[1]}.jsonl", [file(f"f{number}", project=f"p{number % 3}") for number in range(300)])


async def start(directory: Path, *more: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.migrating", str(directory), *more, cwd=ROOT, stdout=PIPE
    )


async def whole(directory: Path) -> float:
    """Runs to the end; the seconds that it took from its beginning."""
    process = await start(directory)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await process.stdout.readline() == b"begins\n"
        since = asyncio.get_running_loop().time()
        assert await process.wait() == 0
    return asyncio.get_running_loop().time() - since


async def killed(directory: Path, seconds: float) -> bool:
    """Kills it so long after its beginning; whether it was not done by then."""
    process = await start(directory)
    assert process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        assert await process.stdout.readline() == b"begins\n"
        try:
            async with asyncio.timeout(seconds):
                await process.wait()
        except TimeoutError:
            process.send_signal(signal.SIGKILL)
        return await process.wait() != 0


async def died(directory: Path, count: int) -> bool:
    """Runs until so many batches are stored, the last of them not noted."""
    process = await start(directory, str(count))
    async with asyncio.timeout(PATIENCE):
        await process.communicate()
    return process.returncode == -signal.SIGKILL


async def state(directory: Path) -> Any:
    """Everything that a migration makes, but for the numbers that memories have."""
    async with moving(directory, SystemClock()) as one:
        memories, after = [], None
        while True:
            selection = Selection(("",), order=BY_ID, limit=500, after=after)
            page = await one.service.storage.select(selection, one.service.clock.now())
            memories += page.items
            if (after := page.next) is None:
                break
        assert await one.service.upkeep.check(fix=False) == []
        ledger = await one.migration.ledger()
        rows = [
            (row.source, row.origin, row.namespace, row.key, row.digest, row.version)
            for ref in ledger.sources()
            for row in ledger.page(ref.id, 0, 10 * RECORDS)
        ]
        return (
            sorted(
                (m.namespace, m.key, m.value, m.attributes, m.importance, m.created_at, m.updated_at, m.version)
                for m in memories
            ),
            sorted(rows),
            one.lines("quarantine.jsonl"),
            sorted(json.dumps(line) for line in one.lines("records.jsonl")),
            (await one.migration.phase(), ledger.labels(["1", "900"])),
        )


def leave_only_sources(directory: Path) -> None:
    for path in directory.iterdir():
        if path.name not in {f"{kind}.jsonl" for kind in SOURCES}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize(
    "points", [pytest.param(20, id="some"), pytest.param(100, marks=pytest.mark.nightly, id="many")]
)
async def test_a_run_killed_at_any_instant_and_run_again_ends_in_the_same_state(
    points: int, tmp_path: Path, rng: random.Random
) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    prepare(directory, rng)
    took = await whole(directory)
    expected = await state(directory)
    assert len(expected[0]) == RECORDS - 3 + 300
    kills = 0
    while kills < points:
        leave_only_sources(directory)
        # Now one kill, now several of one run.
        for _ in range(rng.randint(1, 5)):
            kills += await killed(directory, rng.uniform(0, took))
        await whole(directory)
        assert await state(directory) == expected


async def test_what_is_stored_and_not_noted_when_a_run_is_killed_is_found(tmp_path: Path, rng: random.Random) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    prepare(directory, rng)
    await whole(directory)
    expected = await state(directory)
    leave_only_sources(directory)
    # Killed there again and again: what the one before has left is noted by the next, and one more batch is stored.
    for count in (1, 1, 3, 9):
        assert await died(directory, count)
    await whole(directory)
    assert await state(directory) == expected
