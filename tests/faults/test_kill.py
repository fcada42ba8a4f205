"""kill -9 at any instant: what was acknowledged is there, what was not is whole or not there, and `check` finds nothing."""

import asyncio
import random
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from tests.faults.callers import Bench, Caller, look_after, prepare
from tests.faults.clients import Client, Inside
from tests.faults.conftest import Start
from tests.faults.directories import check_is_clean, opened
from tests.faults.disk import Fatal, Point, When, disk
from tests.faults.processes import Runner
from unified_memory.app import make_app
from unified_memory.settings import load

CALLERS = 16
# A chosen point is reached after some dozens of writes.
ENOUGH_WRITES = 2_000


async def bench_at(directory: Path, rng: random.Random) -> Bench:
    """A directory with the two keys that all write."""
    bench = Bench(rng)
    async with opened(directory) as service:
        await prepare(bench, Inside(make_app(service, load({}))))
    return bench


async def load_until_gone(bench: Bench, port: int) -> None:
    """All callers at once, until the server is gone."""
    async with asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(Caller(bench, number, Client(port)).run())


def kill_at_random(bench: Bench, runner: Runner) -> None:
    """Arranges for the kill: some time after some acknowledgements, at no particular place of the server's work."""
    left = bench.rng.randint(0, 150)
    delay = bench.rng.uniform(0, 0.02)

    def acknowledged() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            asyncio.get_running_loop().call_later(delay, runner.kill)

    bench.watch = acknowledged
    if left == 0:
        asyncio.get_running_loop().call_later(delay, runner.kill)


def give_up_at_last(bench: Bench, runner: Runner) -> None:
    """Arranges for an end where the process never comes to the point at which it was to kill itself."""

    def acknowledged() -> None:
        if bench.ledger.acknowledged >= ENOUGH_WRITES:
            runner.kill()

    bench.watch = acknowledged


async def verdict(bench: Bench, directory: Path, port: int) -> None:
    """Whether the restarted service has all that was acknowledged, and its directory is in order."""
    client = Client(port)
    try:
        await look_after(bench, client)
    finally:
        await client.close()
    await check_is_clean(directory)


async def a_round(bench: Bench, directory: Path, start: Start, **orders: Any) -> Runner:
    """Starts the service on what the last kill has left, checks that, and puts it under load until it is killed."""
    if bench.rng.random() < 0.3:
        # Now this process is the first that opens what was left, otherwise the service is.
        await check_is_clean(directory)
    runner = await start("serve", directory, **orders)
    port = await runner.port()
    await verdict(bench, directory, port)
    (give_up_at_last if orders.get("point") else kill_at_random)(bench, runner)
    await load_until_gone(bench, port)
    assert await runner.end() == -signal.SIGKILL, runner.said
    return runner


async def the_end(bench: Bench, directory: Path, start: Start) -> None:
    """Checks what the last kill has left."""
    runner = await start("serve", directory)
    await verdict(bench, directory, await runner.port())
    runner.kill()
    await runner.end()


async def kill_many_times(rounds: int, bench: Bench, directory: Path, start: Start) -> None:
    for _ in range(rounds):
        # With few pages to a checkpoint many of the kills hit one.
        await a_round(bench, directory, start, checkpoint_pages=bench.rng.choice((0, 20, 100)))
    await the_end(bench, directory, start)
    sys.stdout.write(
        f"{rounds} kills, {bench.ledger.acknowledged} writes acknowledged, {len(bench.ledger.known)} keys\n"
    )


async def test_kills_at_random_instants_lose_nothing_that_was_acknowledged(
    rng: random.Random, tmp_path: Path, start: Start
) -> None:
    await kill_many_times(8, await bench_at(tmp_path, rng), tmp_path, start)


@pytest.mark.slow
async def test_fifty_kills_on_one_growing_directory_lose_nothing_that_was_acknowledged(
    rng: random.Random, tmp_path: Path, start: Start
) -> None:
    await kill_many_times(50, await bench_at(tmp_path, rng), tmp_path, start)


POINTS = {
    "while a commit is written": Point("wal", "write", 250),
    "in the middle of a page of the log": Point("wal", "write", 251, "half"),
    "before a commit is synced": Point("wal", "sync", 12),
    "after a commit, before its answers": Point("wal", "sync", 12, "after"),
    "in the middle of a checkpoint": Point("db", "write", 79),
    "in the middle of a page of a checkpoint": Point("db", "write", 80, "half"),
    "before a checkpoint is synced": Point("db", "sync", 2),
    "after a checkpoint": Point("db", "sync", 2, "after"),
}


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS)
async def test_a_kill_at_a_chosen_instant_loses_nothing_that_was_acknowledged(
    point: Point, rng: random.Random, tmp_path: Path, start: Start
) -> None:
    bench = await bench_at(tmp_path, rng)
    point = structs.replace(point, number=point.number + rng.randint(0, 6))
    sys.stdout.write(f"{point}\n")
    runner = await a_round(bench, tmp_path, start, checkpoint_pages=30, point=point)
    assert "reached" in runner.said
    await the_end(bench, tmp_path, start)
    assert bench.ledger.acknowledged


@pytest.mark.parametrize("when", ["before", "half"])
async def test_a_kill_while_the_database_is_made_leaves_one_that_opens(
    when: When, rng: random.Random, tmp_path: Path, start: Start
) -> None:
    counted = Fatal(Point(None, None, 0))
    with disk(counted):
        await check_is_clean(tmp_path / "unhurt")
    points = [Point(None, None, rng.randint(1, counted.seen), when) for _ in range(3)]
    runners = [await start("open", tmp_path / str(i), point=point) for i, point in enumerate(points)]
    for i, runner in enumerate(runners):
        assert await runner.end() == -signal.SIGKILL, (points[i], runner.said)
        await check_is_clean(tmp_path / str(i))
