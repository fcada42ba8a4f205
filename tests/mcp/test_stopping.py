"""The endpoint of a running service: what it does when it is told to stop."""

import asyncio
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import httpx2

from tests.mcp.conftest import Start
from tests.mcp.service import Running
from tests.mcp.wire import BOUND, META, MODERN
from unified_memory.mcp.greeting import LOCK

URI = "memory://wire/k"
LISTEN = {
    "jsonrpc": "2.0",
    "id": "s",
    "method": "subscriptions/listen",
    "params": {"notifications": {"resourceSubscriptions": [URI]}, "_meta": META},
}
HEADERS = {
    "accept": "application/json, text/event-stream",
    "mcp-protocol-version": MODERN,
    "mcp-method": "subscriptions/listen",
}
STORE = {"action": "store", "namespace": "wire", "key": "k", "value": 1}


async def test_a_subscription_hears_of_a_store_through_a_process_and_is_answered_when_the_service_stops(
    start: Start, serve: Start, http: Callable[[Running], httpx2.AsyncClient], tmp_path: Path
) -> None:
    service = await serve(tmp_path)
    process = await start(tmp_path)
    await process.handshake()
    heard: list[Any] = []
    async with (
        asyncio.timeout(BOUND),
        http(service).stream("POST", "/mcp", json=LISTEN, headers=HEADERS) as answer,
    ):
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                heard.append(json.loads(line.removeprefix("data: ")))
                if len(heard) == 1:
                    await process.call("memory_usage", STORE)
                else:
                    service.process.send_signal(signal.SIGTERM)
    assert [one.get("method") for one in heard] == [
        "notifications/subscriptions/acknowledged",
        "notifications/resources/updated",
        None,
    ]
    assert heard[-1]["id"] == "s"
    assert "result" in heard[-1]
    assert await asyncio.wait_for(service.process.wait(), BOUND) == -signal.SIGTERM


async def test_a_service_that_is_told_to_stop_closes_everything(start: Start, serve: Start, tmp_path: Path) -> None:
    service = await serve(tmp_path)
    process = await start(tmp_path)
    await process.handshake()
    await process.call("memory_usage", STORE)
    await process.call("memory_usage", {"action": "retrieve", "namespace": "wire", "key": "k"})
    service.process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(service.process.wait(), BOUND) == -signal.SIGTERM
    assert (tmp_path / LOCK).read_text() == ""
    database = apsw.Connection(str(tmp_path / "unified-memory.db"))
    counted = database.execute("SELECT access_count FROM memories").fetchall()
    database.close()
    assert counted == [(1,)]
