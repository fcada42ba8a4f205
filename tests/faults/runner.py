"""A process of the service that tests can hurt: `python -m tests.faults.runner '{"work": "serve", "data_dir": …}'`.

It tells what it does on standard output, one JSON object a line, and waits for a line on standard input where it says so.
"""

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Raw, Struct

from tests.faults.disk import Disk, Fatal, Point
from unified_memory.bootstrap import build
from unified_memory.model.errors import UnifiedMemoryError, VersionConflictError
from unified_memory.model.principal import ANONYMOUS
from unified_memory.server import serve
from unified_memory.service.requests import Conditions, PatchRequest, StoreRequest, UpdateRequest
from unified_memory.service.service import Service
from unified_memory.settings import Settings, load
from unified_memory.storage.sqlite import writer

SHARED = "shared/counter"


class Orders(Struct):
    """What the process is to do. `checkpoint_pages` and `patience` stand in for the service's own figures where not 0."""

    work: str
    data_dir: str
    name: str = "one"
    storage_limit: int = 0
    checkpoint_pages: int = 0
    patience: float = 0.0
    point: Point | None = None
    stores: int = 0
    increments: int = 0
    tasks: int = 1
    rounds: int = 0


class Done(Struct):
    """What a process that stored has been told: (id, seq, key) of every store, seconds of the slowest, errors."""

    stored: list[tuple[int, int, str]]
    slowest: float
    errors: list[str]


class Raced(Struct):
    """Which versions the tasks of a process have won, by task; and what the losers were told: (expected, current)."""

    won: dict[str, list[int]]
    lost: list[tuple[int, int]]
    errors: list[str]


def say(told: Any) -> None:
    """One line to whoever watches."""
    os.write(1, msgspec.json.encode(told) + b"\n")


async def wait_for_word() -> str:
    """The next line that was sent to this process, empty at the end."""
    word: str = await asyncio.to_thread(sys.stdin.readline)
    return word.strip()


async def store_all(service: Service, orders: Orders) -> None:
    """Stores new keys one after the other in each task, with increments of one counter in between."""
    await service.open()
    say("ready")
    await wait_for_word()
    done = Done([], 0.0, [])
    keys = iter([f"{orders.name}/{i}" for i in range(orders.stores)])
    increments = iter(range(orders.increments))

    async def task() -> None:
        for key in keys:
            since = time.monotonic()
            outcome = await service.memories.store(ANONYMOUS, StoreRequest(Raw(b'"what %b says"' % key.encode()), key))
            done.slowest = max(done.slowest, time.monotonic() - since)
            assert outcome.memory is not None
            done.stored.append((outcome.memory.id, outcome.memory.seq, key))
            if next(increments, None) is not None:
                patch = PatchRequest(increment={"n": Raw(b"1")})
                outcome = await service.memories.patch(ANONYMOUS, "default", SHARED, patch)
                assert outcome.memory is not None
                done.stored.append((0, outcome.memory.seq, SHARED))

    for result in await asyncio.gather(*(task() for _ in range(orders.tasks)), return_exceptions=True):
        if result is not None:
            done.errors.append(repr(result))
    await service.close()
    say(done)


async def race(service: Service, orders: Orders) -> None:
    """Every task updates one key with If-Match until it has won `rounds` times."""
    await service.open()
    say("ready")
    await wait_for_word()
    say(await race_on(service, orders.name, orders.tasks, orders.rounds))
    await service.close()


async def race_on(service: Service, name: str, tasks: int, rounds: int) -> Raced:
    """The race itself: all tasks begin with the same version in hand, and a loser goes on with what it was told."""
    raced = Raced({}, [], [])
    start = (await service.memories.retrieve(ANONYMOUS, "default", SHARED)).version

    async def task(me: str) -> None:
        won = raced.won.setdefault(me, [])
        version = start
        while len(won) < rounds:
            request = UpdateRequest(Raw(msgspec.json.encode({"by": me, "over": version})))
            try:
                outcome = await service.memories.update(ANONYMOUS, "default", SHARED, request, Conditions(version))
            except VersionConflictError as error:
                raced.lost.append((version, error.facts["current_version"]))
                version = error.facts["current_version"]
            else:
                assert outcome.memory is not None
                version = outcome.memory.version
                won.append(version)

    results = await asyncio.gather(*(task(f"{name}/{i}") for i in range(tasks)), return_exceptions=True)
    raced.errors += [repr(result) for result in results if result is not None]
    return raced


async def open_many(orders: Orders) -> None:
    """Opens each directory that is named on standard input, stores there and tells how it went."""
    say("ready")
    while directory := await wait_for_word():
        service = build(load({}, data_dir=Path(directory)))
        try:
            await service.open()
            outcome = await service.memories.store(ANONYMOUS, StoreRequest(Raw(b"1"), orders.name))
            say({"id": outcome.memory.id if outcome.memory else 0})
        except UnifiedMemoryError as error:
            say({"error": repr(error)})
        await service.close()


async def open_once(service: Service) -> None:
    """Opens and closes."""
    await service.open()
    await service.close()
    say("opened")


def settings_of(orders: Orders) -> Settings:
    """What the service is told; nothing of the surroundings gets in."""
    return load({}, data_dir=Path(orders.data_dir), port=0, storage_limit=orders.storage_limit)


def main() -> None:
    """Does what the first argument says."""
    orders = msgspec.json.decode(sys.argv[1], type=Orders)
    if orders.checkpoint_pages:
        writer.CHECKPOINT_PAGES = orders.checkpoint_pages
    if orders.patience:
        writer.PATIENCE_SECONDS = orders.patience
    layer = None if orders.point is None else Disk(Fatal(orders.point))
    settings = settings_of(orders)
    match orders.work:
        case "serve":
            serve(settings)
        case "store":
            asyncio.run(store_all(build(settings), orders))
        case "race":
            asyncio.run(race(build(settings), orders))
        case "open":
            asyncio.run(open_once(build(settings)))
        case "open many":
            asyncio.run(open_many(orders))
        case other:
            raise SystemExit(f"There is no work {other!r}")
    del layer


if __name__ == "__main__":
    main()
