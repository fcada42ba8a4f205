"""The proxy on port 4002, as a client of the official SDK meets it: by SSE and by streamable HTTP, in every phase."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from tests.proxy.manager import BOUND, RecordingManager, make_service, until
from tests.proxy.test_http import served
from unified_memory.model.principal import ANONYMOUS
from unified_memory.proxy import bank
from unified_memory.proxy.bank import BankProxy
from unified_memory.proxy.links import Connect, Events, Posts
from unified_memory.proxy.stand import Stand
from unified_memory.proxy.talk import Desk
from unified_memory.service.service import Service
from unified_memory.sources.ledger import Phase


class Place:
    """A proxy that is served, and its service."""

    def __init__(self, url: str, service: Service, manager: RecordingManager) -> None:
        self.url = url
        self.service = service
        self.manager = manager

    async def holds(self) -> dict[str, str]:
        bank = self.service.bank
        files = await bank.files(ANONYMOUS, "p")
        return {file: await bank.read(ANONYMOUS, "p", file) for file in files}


@contextlib.asynccontextmanager
async def place(directory: Path, phase: Phase, older: Connect | None) -> AsyncIterator[Place]:
    manager = RecordingManager(phase)
    stand = Stand(make_service(directory), manager, "memory-bank-mcp")
    proxy = BankProxy(Desk(stand, "memory-bank", older, max_body=10**6), max_body=10**6, local=True)
    await proxy.start()
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with served(proxy, listening) as url:
            yield Place(url, stand.service, manager)
            proxy.end_streams()
    await proxy.stop()


class Scene:
    def __init__(self, older: Place, proxy: Place) -> None:
        self.older = older
        self.proxy = proxy


@pytest.fixture(params=["sse", "mcp"])
async def scene(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Scene]:
    """A proxy before an older server that is reached by SSE, or by streamable HTTP."""
    async with place(tmp_path / "older", Phase.FINISHED, None) as older:
        connect = Events.by(f"{older.url}/sse") if request.param == "sse" else Posts.by(f"{older.url}/mcp")
        async with place(tmp_path / "ours", Phase.SHADOW, connect) as proxy:
            yield Scene(older, proxy)


@contextlib.asynccontextmanager
async def client(url: str, way: str) -> AsyncIterator[ClientSession]:
    async with contextlib.AsyncExitStack() as stack:
        streams: Any
        if way == "sse":
            streams = await stack.enter_async_context(sse_client(f"{url}/sse"))
        else:
            http = await stack.enter_async_context(httpx2.AsyncClient(trust_env=False, timeout=BOUND))
            streams = await stack.enter_async_context(streamable_http_client(f"{url}/mcp", http_client=http))
        session = await stack.enter_async_context(ClientSession(streams[0], streams[1]))
        await session.initialize()
        yield session


async def write(session: ClientSession, file: str) -> None:
    arguments = {"projectName": "p", "fileName": file, "content": f"of {file}"}
    result = await session.call_tool("memory_bank_write", arguments)
    assert not result.is_error, result


ways = pytest.mark.parametrize("way", ["sse", "mcp"])


@ways
async def test_a_session_goes_on_through_every_phase(scene: Scene, way: str) -> None:
    manager = scene.proxy.manager
    async with asyncio.timeout(BOUND), client(scene.proxy.url, way) as session:
        assert len((await session.list_tools()).tools) == 5
        await write(session, "shadow")
        assert manager.mirrored == [("memory-bank-mcp", "file", "p", "shadow")]
        manager.now = Phase.SWITCHED
        await write(session, "switched")
        manager.now = Phase.RETURNED
        await write(session, "returned")
        manager.now = Phase.FINISHED
        await write(session, "finished")
    assert set(await scene.older.holds()) == {"shadow", "returned"}
    assert set(await scene.proxy.holds()) == {"switched", "finished"}
    assert manager.passes >= 1


@ways
async def test_a_session_that_began_with_ours_goes_on_with_the_older_one(scene: Scene, way: str) -> None:
    scene.proxy.manager.now = Phase.SWITCHED
    async with asyncio.timeout(BOUND), client(scene.proxy.url, way) as session:
        await write(session, "switched")
        scene.proxy.manager.now = Phase.NONE
        await write(session, "returned")
    assert await scene.older.holds() == {"returned": "of returned"}
    assert await scene.proxy.holds() == {"switched": "of switched"}


async def test_other_requests_are_answered_for_what_they_are(scene: Scene) -> None:
    async with httpx2.AsyncClient(base_url=scene.proxy.url, trust_env=False, timeout=BOUND) as http:
        assert (await http.get("/nowhere")).status_code == 404
        assert (await http.post("/sse")).headers["allow"] == "GET"
        assert (await http.post("/messages/?session_id=abc", content=b"{}")).status_code == 404
        assert (await http.post("/messages/", content=b"{}")).status_code == 400
        assert (await http.get("/mcp")).status_code == 405
        assert (await http.post("/mcp", content=b"nonsense")).status_code == 400
        assert (await http.get("/sse", headers={"origin": "http://elsewhere.test"})).status_code == 403
        call = {"name": "list_projects", "arguments": {}}
        answer = await http.post("/mcp", json={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call})
        assert answer.json()["result"]["content"][0]["text"] == ""


async def test_a_client_that_does_not_read_its_answer_holds_up_no_change_of_services(tmp_path: Path) -> None:
    async with place(tmp_path, Phase.SWITCHED, None) as proxy:
        await proxy.service.bank.write(ANONYMOUS, "p", "large.md", "x" * 12_000_000)
        params = {"name": "memory_bank_read", "arguments": {"projectName": "p", "fileName": "large.md"}}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
        head = (
            "POST /mcp HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            "Accept: application/json, text/event-stream\r\nMCP-Protocol-Version: 2025-06-18\r\n"
        )
        reader, writer = await asyncio.open_connection("127.0.0.1", int(proxy.url.rpartition(":")[2]), limit=1000)
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        async with asyncio.timeout(BOUND):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        proxy.manager.now = Phase.RETURNING
        await until(lambda: proxy.manager.acknowledged[-1] is Phase.RETURNING)
        writer.close()


async def test_of_many_sessions_only_those_at_rest_are_forgotten(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bank, "MAX_SESSIONS", 2)
    release = asyncio.Event()

    async def waits(_shape: str, _project: str | None, _key: str) -> None:
        await release.wait()

    scene.proxy.manager.mirrors = waits
    greeting = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": greeting}
    call = {"name": "memory_bank_write", "arguments": {"projectName": "p", "fileName": "a", "content": "of a"}}
    async with httpx2.AsyncClient(base_url=scene.proxy.url, trust_env=False, timeout=BOUND) as http:

        async def begun() -> str:
            return str((await http.post("/mcp", json=hello)).headers["mcp-session-id"])

        async def closed(session: str) -> bool:
            return (await http.delete("/mcp", headers={"mcp-session-id": session})).status_code == 405

        busy, first = await begun(), await begun()
        message = {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": call}
        writing = asyncio.create_task(http.post("/mcp", json=message, headers={"mcp-session-id": busy}))
        await until(lambda: bool(scene.proxy.manager.mirrored))
        last = await begun()
        release.set()
        assert "result" in (await writing).json()
        assert [await closed(session) for session in (busy, first, last)] == [False, True, False]


async def test_an_older_server_that_is_down_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    for connect in (Events.by(f"{url}/sse"), Posts.by(f"{url}/mcp")):
        async with (
            place(tmp_path, Phase.SHADOW, connect) as proxy,
            httpx2.AsyncClient(base_url=proxy.url, trust_env=False, timeout=BOUND) as http,
        ):
            message = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            answer = (await http.post("/mcp", json=message)).json()
            assert url in answer["error"]["message"]
            proxy.manager.now = Phase.SWITCHED
            headers = {"accept": "application/json, text/event-stream"}
            answer = await http.post("/mcp", json=message, headers=headers)
            assert answer.status_code == 200
            assert "memory_bank_write" in answer.text
