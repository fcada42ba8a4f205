"""The proxies on ports, killed in the midst of calls while the memories move here and back."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.proxy.manager import BOUND, make_service, until
from tests.proxy.test_commands import begun
from tests.proxy.test_http import served
from tests.proxy.test_migrating import OLDER, held
from tests.proxy.test_migrating import ours as files_here
from tests.proxy.test_migrating_shim import Older
from unified_memory.model.errors import SourceUnavailableError
from unified_memory.model.principal import ANONYMOUS
from unified_memory.proxy.calls import read_head
from unified_memory.proxy.links import Events, Posts
from unified_memory.proxy.shim import Shim
from unified_memory.proxy.talk import Handshake, Peer
from unified_memory.service.migration import RunOptions
from unified_memory.service.service import Service

# What was being written back when a process was killed is free for others only after some time.
pytestmark = pytest.mark.slow
Write = Callable[[str], Awaitable[None]]


class Proxy:
    """A proxy on one port, and on the same port again."""

    def __init__(self, *arguments: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._arguments = (*arguments, "--port", str(self.port))
        self._process: asyncio.subprocess.Process

    async def start(self) -> None:
        self._process = await begun(*self._arguments)
        assert self._process.stderr is not None
        async with asyncio.timeout(BOUND):
            while "answers at" not in (await self._process.stderr.readline()).decode():
                assert self._process.returncode is None

    async def kill(self) -> None:
        self._process.kill()
        await self._process.wait()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """The service in this process, as the command `migrate` opens it."""
    (tmp_path / "older" / "bank" / "p").mkdir(parents=True)
    service = make_service(tmp_path / "ours")
    await service.open()
    yield service
    await service.close()


async def moved_here_and_back(
    service: Service, proxy: Proxy, source: tuple[str, str], write: Write
) -> tuple[set[str], Callable[[], Awaitable[None]]]:
    """Moves the source here under eight clients that write all the time, and kills the proxy in shadow and after the switch.

    What was acknowledged, and what ends it by moving back.
    """
    acknowledged: set[str] = set()
    ending = asyncio.Event()

    async def client(number: int) -> None:
        count = 0
        while not ending.is_set():
            count += 1
            try:
                await write(f"{number}-{count}.md")
            except (SourceUnavailableError, httpx2.TransportError):
                # Whether it is written is not known.
                await asyncio.sleep(0.02)
            else:
                acknowledged.add(f"{number}-{count}.md")

    async def further() -> None:
        goal = len(acknowledged) + 40
        await until(lambda: len(acknowledged) >= goal)

    async def again() -> None:
        await further()
        await proxy.kill()
        await proxy.start()
        await further()

    async def back() -> None:
        await service.migration.rollback(ANONYMOUS)

    await proxy.start()
    clients = [asyncio.create_task(client(number)) for number in range(8)]
    await further()
    await service.migration.run(ANONYMOUS, [source], RunOptions())
    await again()
    await service.migration.switch(ANONYMOUS)
    await again()
    ending.set()
    await asyncio.wait_for(asyncio.gather(*clients), BOUND)
    return acknowledged, back


@pytest.mark.parametrize("way", ["sse", "mcp"])
async def test_a_killed_proxy_of_the_memory_bank_has_lost_nothing_that_it_acknowledged(
    service: Service, tmp_path: Path, way: str
) -> None:
    older = f"{sys.executable} {OLDER} {tmp_path / 'older'}"
    proxy = Proxy("bank", "--data-dir", str(tmp_path / "ours"), "--older", older)
    connect = Events.by(f"{proxy.url}/sse") if way == "sse" else Posts.by(f"{proxy.url}/mcp")
    peers = {str(number): Peer(connect, Handshake(), lambda _: None, greets=True) for number in range(8)}

    async def write(file: str) -> None:
        arguments = {"projectName": "p", "fileName": file, "content": f"of {file}"}
        params = {"name": "memory_bank_write", "arguments": arguments}
        message = json.dumps({"jsonrpc": "2.0", "id": file, "method": "tools/call", "params": params}).encode()
        peer = peers[file.partition("-")[0]]
        told = json.loads(await (await peer.ask(read_head(message), message)) or b"")
        assert not told["result"].get("isError"), told

    try:
        source = ("memory-bank-files", str(tmp_path / "older" / "bank"))
        acknowledged, back = await moved_here_and_back(service, proxy, source, write)
        assert acknowledged <= set(await files_here(service))
        await back()
        kept = held(tmp_path)
        assert {file: kept.get(file) for file in acknowledged} == {file: f"of {file}" for file in acknowledged}
    finally:
        for peer in peers.values():
            await peer.close()
        await proxy.kill()


async def test_a_killed_proxy_of_the_http_service_has_lost_nothing_that_it_acknowledged(
    service: Service, tmp_path: Path
) -> None:
    older = Older(tmp_path / "extended_memory.db")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with (
            served(older, listening) as url,
            httpx2.AsyncClient(trust_env=False, timeout=BOUND) as client,
        ):
            proxy = Proxy("http", "--data-dir", str(tmp_path / "ours"), "--older", url)

            async def write(key: str) -> None:
                answer = await client.post(f"{proxy.url}/store", json={"key": key, "value": key})
                assert answer.status_code == 200, answer.text

            try:
                source = ("extended-memory-http-db", str(older.path))
                acknowledged, back = await moved_here_and_back(service, proxy, source, write)
                assert acknowledged <= set(await Shim(service).keys())
                await back()
            finally:
                await proxy.kill()
    kept: dict[str, Any] = older.kept()
    older.close()
    assert {key: kept.get(key) for key in acknowledged} == {key: key for key in acknowledged}
