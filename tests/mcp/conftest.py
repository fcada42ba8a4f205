"""Processes of the command, ended with the test."""

import random
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.mcp.service import Running
from tests.mcp.wire import Process

Start = Callable[..., Any]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Starts `unified-memory mcp` on a data directory."""
    running: list[Process] = []

    async def begin(directory: Path, *arguments: str) -> Process:
        process = await Process.start(directory, *arguments)
        running.append(process)
        return process

    yield begin
    for process in running:
        await process.kill()


@pytest.fixture
async def serve() -> AsyncIterator[Start]:
    """Starts `unified-memory serve` on a data directory; returns when it answers and its door is open."""
    running: list[Running] = []

    async def begin(directory: Path, *arguments: str) -> Running:
        service = await Running.start(directory, *arguments)
        running.append(service)
        return service

    yield begin
    for service in running:
        await service.kill()


@pytest.fixture
async def http() -> AsyncIterator[Callable[[Running], httpx2.AsyncClient]]:
    """A client of a running service."""
    clients: list[httpx2.AsyncClient] = []

    def client(service: Running) -> httpx2.AsyncClient:
        clients.append(httpx2.AsyncClient(base_url=service.url, timeout=30, trust_env=False))
        return clients[-1]

    yield client
    for one in clients:
        await one.aclose()


@pytest.fixture
def rng(record_property: Callable[[str, object], None]) -> random.Random:
    """A source of chance whose seed is told where the test fails."""
    seed = random.SystemRandom().getrandbits(32)
    record_property("seed", seed)
    sys.stdout.write(f"seed {seed}\n")
    return random.Random(seed)
