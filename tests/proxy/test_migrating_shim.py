"""The proxy on port 3009 before a service that keeps its values in SQLite as the older one did, while they move here and back."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import httpx2
import pytest

from tests.proxy.manager import BOUND, make_service, until
from tests.proxy.test_http import served
from unified_memory.model.principal import ANONYMOUS
from unified_memory.proxy.forward import Forward
from unified_memory.proxy.http import ShimProxy
from unified_memory.proxy.shim import Shim
from unified_memory.proxy.stand import Stand
from unified_memory.rest.exchange import Receive, Scope, Send, read_body
from unified_memory.service.migration import RunOptions
from unified_memory.sources.ledger import Phase

TABLES = """
CREATE TABLE memory_store (key TEXT PRIMARY KEY, value TEXT NOT NULL, type TEXT NOT NULL,
  created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  accessed_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, access_count INTEGER DEFAULT 1);
CREATE TABLE metadata (key TEXT PRIMARY KEY, value TEXT NOT NULL, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
INSERT INTO metadata (key, value) VALUES ('version', '2.0.0'), ('initialized', '2025-08-20T10:00:00.000001');
"""


class Older:
    """Stores and retrieves."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._connection = apsw.Connection(str(path))
        self._connection.execute(TABLES)
        self._connection.set_busy_timeout(5000)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, 10**9)
        told: dict[str, Any] = {"status": "stored"}
        if scope["path"] == "/store":
            sent = json.loads(body)
            self._connection.execute(
                "INSERT INTO memory_store (key, value, type) VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET"
                " value = excluded.value, type = excluded.type, updated_at = CURRENT_TIMESTAMP,"
                " access_count = access_count + 1",
                (sent["key"], json.dumps(sent["value"]), type(sent["value"]).__name__),
            )
        else:
            key = scope["path"].removeprefix("/retrieve/")
            told = {"status": "found", "key": key, "value": self.kept().get(key), "source": "database"}
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(told).encode()})

    def kept(self) -> dict[str, Any]:
        return {
            key: json.loads(value) for key, value in self._connection.execute("SELECT key, value FROM memory_store")
        }

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
async def older(tmp_path: Path) -> AsyncIterator[Older]:
    older = Older(tmp_path / "extended_memory.db")
    yield older
    older.close()


async def test_clients_that_write_all_the_time_see_no_error_and_all_is_in_both(older: Older, tmp_path: Path) -> None:
    service = make_service(tmp_path / "ours")
    stand, shim = Stand(service, service.migration, "extended-memory"), Shim(service)
    written: dict[str, Any] = {}
    ending = asyncio.Event()
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        async with served(older, first) as url:
            proxy = ShimProxy(stand, shim, Forward(url), max_body=10**6)
            await proxy.start()
            async with (
                served(proxy, second) as address,
                httpx2.AsyncClient(base_url=address, trust_env=False, timeout=BOUND) as client,
            ):

                async def write(number: int) -> None:
                    count = 0
                    while not ending.is_set():
                        key, value = f"{number}/{count % 10}", {"n": count}
                        answer = await client.post("/store", json={"key": key, "value": value})
                        assert answer.status_code == 200, answer.text
                        written[key] = value
                        told = (await client.get(f"/retrieve/{number}%2F{count % 10}")).json()
                        assert told["value"] == value, told
                        count += 1

                async def more() -> None:
                    goal = sum(value["n"] for value in written.values()) + 200
                    await until(lambda: sum(value["n"] for value in written.values()) >= goal)

                async with asyncio.timeout(2 * BOUND), asyncio.TaskGroup() as group:
                    for number in range(20):
                        group.create_task(write(number))
                    await until(lambda: len(written) >= 20)
                    source = [("extended-memory-http-db", str(older.path))]
                    await service.migration.run(ANONYMOUS, source, RunOptions())
                    await more()
                    assert (await service.migration.switch(ANONYMOUS)).phase == Phase.SWITCHED
                    await more()
                    told = await service.migration.rollback(ANONYMOUS)
                    assert told.status == "rollback_complete"
                    await more()
                    ending.set()
            assert older.kept() == written
            assert stand.failures == {}
            await proxy.stop()
