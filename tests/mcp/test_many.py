"""Many processes on one data directory, and the death of some of them."""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.mcp.conftest import Start
from tests.mcp.service import Running
from tests.mcp.test_stdio import STORE, keys
from tests.mcp.wire import HTTP, Process

PROCESSES = 16
CALLS = 2_000


@pytest.mark.slow
async def test_sixteen_processes_and_a_service_lose_and_refuse_nothing(
    start: Start, serve: Start, http: Callable[[Running], httpx2.AsyncClient], tmp_path: Path
) -> None:
    """Half of them open the directory themselves; the others find the service. Every fourth of each kind is killed."""
    alone = [await start(tmp_path) for _ in range(PROCESSES // 2)]
    await asyncio.gather(*(process.handshake() for process in alone))
    service = await serve(tmp_path)
    behind = [await start(tmp_path) for _ in range(PROCESSES // 2)]
    await asyncio.gather(*(process.handshake() for process in behind))
    rest = http(service)
    modern = HTTP(rest)
    acknowledged: set[str] = set()
    doomed = {alone[1], alone[5], behind[2], behind[6]}
    each = CALLS // (PROCESSES + 1)

    async def work(number: int, process: Process) -> None:
        for n in range(each):
            key = f"{number}-{n}"
            if n % 3 == 2:
                told = await process.call(
                    "memory_usage", {"action": "retrieve", "namespace": "wire", "key": f"{number}-{n - 1}"}
                )
            else:
                told = await process.call("memory_usage", {**STORE, "key": key, "value": {"n": n}})
                acknowledged.add(key)
            assert not told["isError"], told
            if process in doomed and n == each // 2:
                await process.kill()
                return

    async def over_http() -> None:
        for n in range(each):
            told = await modern.call("memory_usage", {**STORE, "key": f"http-{n}", "value": n})
            assert not told["isError"], told
            acknowledged.add(f"http-{n}")

    await asyncio.gather(over_http(), *(work(number, process) for number, process in enumerate([*alone, *behind])))
    living = [process for process in (*alone, *behind) if process not in doomed]
    assert acknowledged <= await keys(living[0])
    for process in living:
        assert process.others == []
    statuses = await asyncio.gather(*(process.end() for process in living))
    assert set(statuses) == {0}
    listed: Any = (await rest.get("/api/v1/memory/namespaces/wire")).json()
    assert listed["memories"] >= len(acknowledged)


async def test_the_death_of_one_harms_no_other(start: Start, tmp_path: Path, rng: random.Random) -> None:
    processes = [await start(tmp_path) for _ in range(4)]
    await asyncio.gather(*(process.handshake() for process in processes))
    survivor = processes.pop()
    acknowledged: set[str] = set()

    async def work(number: int, process: Process) -> None:
        n = 0
        while process.process.returncode is None:
            answer = asyncio.ensure_future(
                process.call("memory_usage", {**STORE, "key": f"{number}-{n}", "value": "x" * rng.randint(1, 9000)})
            )
            gone = asyncio.ensure_future(process.process.wait())
            await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
            if not answer.done():
                answer.cancel()
                return
            assert not answer.result()["isError"]
            acknowledged.add(f"{number}-{n}")
            n += 1

    working = [asyncio.create_task(work(number, process)) for number, process in enumerate(processes)]
    for process in processes:
        await asyncio.sleep(rng.uniform(0.1, 0.5))
        await process.kill()
    await asyncio.gather(*working, return_exceptions=True)
    assert acknowledged
    assert acknowledged <= await keys(survivor)
    assert await survivor.end() == 0
