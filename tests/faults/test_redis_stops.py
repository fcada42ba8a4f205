"""Redis is killed and started again, empty or with old data, under the load of 32 clients of two services on one directory.

No error reaches a client, and whoever reads sees at least what was acknowledged before the read began. Each value is a number
that only grows, so one look at it says whether it is stale.
"""

import asyncio
import os
import random
import shutil
import sys
from asyncio.subprocess import PIPE, STDOUT
from pathlib import Path

import pytest
from msgspec import Struct

from tests.faults.clients import Client
from tests.faults.processes import PATIENCE, ROOT, Runner
from tests.storage.hot.servers import Server

CLIENTS = 32
KEYS = 24
READS = 0.75
PAUSE = 0.02


class Seen(Struct):
    """What the clients know together: by key the highest number that was sent, and that was acknowledged; what went wrong."""

    sent: dict[str, int]
    acknowledged: dict[str, int]
    faults: list[str]
    reads: int = 0
    writes: int = 0
    slowest: float = 0.0


async def serve(directory: Path, redis_url: str) -> Runner:
    """`unified-memory serve` on a free port, with copies in Redis."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME", "PYTHONPATH"}}  # noqa: TID251
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "unified_memory", "serve", "--port", "0", "--data-dir", str(directory), "--semantic", "off"),
        cwd=ROOT,
        env={**kept, "REDIS_URL": redis_url, "HOT_TIER": "on"},
        stdin=PIPE,
        stdout=PIPE,
        stderr=STDOUT,
    )
    return Runner(process)


async def client(number: int, ports: list[int], seen: Seen, over: asyncio.Event) -> None:
    """Writes its own keys and reads everybody's, now through the one service and now through the other."""
    chance = random.Random(number)
    connections = [Client(port) for port in ports]
    loop = asyncio.get_running_loop()
    while not over.is_set():
        key = f"k{chance.randrange(KEYS)}"
        through = chance.choice(connections)
        began = loop.time()
        if chance.random() < READS:
            least = seen.acknowledged[key]
            reply = await through.ask("GET", f"/retrieve/{key}")
            if reply.status == 200:
                found = reply.body["value"]["n"]
                seen.reads += 1
                if not least <= found <= seen.sent[key]:
                    seen.faults.append(f"{key}: read {found}, acknowledged {least}, sent {seen.sent[key]}")
            elif reply.status != 404 or least:
                seen.faults.append(f"{key}: {reply.status} {reply.body} where {least} was acknowledged")
        else:
            # One writer of a key at a time, so that the order in which numbers are sent is that in which they are stored.
            async with _turns.setdefault(key, asyncio.Lock()):
                seen.sent[key] += 1
                value = seen.sent[key]
                reply = await through.ask("POST", "/store", {"key": key, "value": {"n": value}})
                if reply.status in {200, 201}:
                    seen.acknowledged[key] = max(seen.acknowledged[key], value)
                    seen.writes += 1
                else:
                    seen.faults.append(f"{key}: store {reply.status} {reply.body}")
        seen.slowest = max(seen.slowest, loop.time() - began)
        # The services are to be kept busy, not the machine: what they miss then is their own time, not Redis.
        await asyncio.sleep(PAUSE)
    for connection in connections:
        await connection.close()


async def copies_given(ports: list[int]) -> int:
    """Waits until each service has given more copies; how many failures it had until then."""
    failures = 0
    for port in ports:
        watching = Client(port)
        first = None
        async with asyncio.timeout(PATIENCE):
            while True:
                hot = (await watching.ask("GET", "/tiers")).body["hot"]
                first = hot["hits"] if first is None else first
                if hot["hits"] > first + 20:
                    break
                await asyncio.sleep(0.05)
        failures += hot["failures"]
        await watching.close()
    return failures


_turns: dict[str, asyncio.Lock] = {}


@pytest.mark.parametrize("stops", [2, pytest.param(10, marks=pytest.mark.slow)])
async def test_redis_stops_and_starts_under_load(tmp_path: Path, stops: int) -> None:
    _turns.clear()
    redis = Server(tmp_path / "redis")
    await redis.start()
    services = [await serve(tmp_path / "data", redis.url) for _ in range(2)]
    keys = [f"k{number}" for number in range(KEYS)]
    seen = Seen(dict.fromkeys(keys, 0), dict.fromkeys(keys, 0), [])
    over = asyncio.Event()
    try:
        ports = [await one.port() for one in services]
        clients = [asyncio.create_task(client(number, ports, seen, over)) for number in range(CLIENTS)]
        dump = redis.directory / "dump.rdb"
        for number in range(stops):
            await copies_given(ports)
            await redis.do("SAVE")
            if number == 0:
                shutil.copy(dump, tmp_path / "old.rdb")
            await copies_given(ports)
            await redis.kill()
            await asyncio.sleep(0.4)
            # In turn: as it was at its end, with what it held long ago, and empty.
            if number % 3 == 1:
                shutil.copy(tmp_path / "old.rdb", dump)
            elif number % 3 == 2:
                dump.unlink()
            await redis.start()
        failures = await copies_given(ports)
        over.set()
        await asyncio.gather(*clients)
    finally:
        over.set()
        for one in services:
            one.kill()
            await one.end()
        await redis.kill()
    assert seen.faults == []
    assert seen.writes > 100
    assert seen.reads > seen.writes
    # Copies were given each time before and after, and Redis was missed.
    assert failures > 0
    # No answer waited for Redis but a lease and a few time-outs.
    assert seen.slowest < 5.0
