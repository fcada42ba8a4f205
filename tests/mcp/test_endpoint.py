"""The endpoint where something beneath it fails."""

import asyncio
import importlib
import logging
from pathlib import Path

import httpx2
import pytest

from tests.mcp.wire import BOUND, HTTP
from tests.rest.asking import make_storage, serving
from unified_memory.mcp.endpoint import MCPEndpoint
from unified_memory.mcp.watch import Watch
from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import StorageError
from unified_memory.storage.base import Change


async def test_an_sdk_that_cannot_be_loaded_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SettableClock()
    async with serving(make_storage("inmemory", Path(), clock), clock) as rest:
        endpoint = MCPEndpoint(rest.service, name="unified-memory", tools="unified", max_body=1000, local=True)
        client = httpx2.AsyncClient(transport=httpx2.ASGITransport(endpoint), base_url="http://localhost")

        def broken(name: str) -> None:
            raise ImportError(name)

        with monkeypatch.context() as patch:
            patch.setattr(importlib, "import_module", broken)
            for _ in range(2):
                with pytest.raises(ImportError):
                    await asyncio.wait_for(HTTP(client).ask("tools/list"), BOUND)
        assert len((await HTTP(client).ask("tools/list"))["result"]["tools"]) == 7
        await client.aclose()
        await endpoint.stop()


async def test_changes_that_cannot_be_read_are_logged_once_and_not_missed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("unified_memory.mcp.watch.LOOK_SECONDS", 0.001)
    clock = SettableClock()
    async with serving(make_storage("inmemory", Path(), clock), clock) as rest:
        heard: asyncio.Queue[Change] = asyncio.Queue()
        watch = Watch(rest.service.storage)
        await watch.listen(heard.put_nowait)
        looks = 0
        often = asyncio.Event()

        async def failing() -> int:
            nonlocal looks
            looks += 1
            if looks > 2:
                often.set()
            raise StorageError("The disk is away")

        with monkeypatch.context() as patch, caplog.at_level(logging.WARNING):
            patch.setattr(rest.service.storage, "last_seq", failing)
            await asyncio.wait_for(often.wait(), BOUND)
            await rest.store("k")
        assert [record.message for record in caplog.records] == [
            "Subscribers are not told of changes now: storage_error: The disk is away"
        ]
        assert (await asyncio.wait_for(heard.get(), BOUND)).key == "k"
        watch.close()
