"""The proxy on port 3009 through every phase, before an older service that keeps its values in a dict."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from tests.proxy.manager import BOUND, RecordingManager, make_service, until
from unified_memory.model.errors import SourceError
from unified_memory.proxy.forward import Forward
from unified_memory.proxy.http import ShimProxy
from unified_memory.proxy.shim import Request, Shim
from unified_memory.proxy.stand import Stand
from unified_memory.rest.exchange import Receive, Scope, Send, read_body
from unified_memory.sources.ledger import Phase


class Older:
    """Speaks as much of the older service's HTTP as a test needs; `asked` is what came, as it came."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.asked: list[tuple[str, bytes, bytes]] = []
        self.stored = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, 10**9)
        self.asked.append((scope["method"], scope["raw_path"], body))
        status, told = 200, self._answer(scope, body)
        content = json.dumps(told, indent=3).encode()
        headers = [
            (b"content-type", b"application/json"),
            (b"x-older", b"yes"),
            (b"content-length", b"%d" % len(content)),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _answer(self, scope: Scope, body: bytes) -> Any:
        path = scope["path"]
        if path == "/store":
            sent = json.loads(body)
            self.stored += 1
            self.kept[sent["key"]] = sent["value"]
            return {"status": "stored", "key": sent["key"]}
        if path == "/clear":
            self.kept.clear()
            return {"status": "cleared"}
        if path.startswith("/retrieve/"):
            key = path.removeprefix("/retrieve/")
            found = key in self.kept
            return {"status": "found", "key": key, "value": self.kept[key]} if found else {"status": "not_found"}
        return {"total_count": len(self.kept)}


@asynccontextmanager
async def served(application: Any, listening: socket.socket) -> AsyncIterator[str]:
    config = uvicorn.Config(application, lifespan="off", log_config=None, ws="none")
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await asyncio.wait_for(serving, BOUND)


class Scene:
    """The proxy before the older service, and a client of it."""

    def __init__(self, older: Older, manager: RecordingManager, stand: Stand, shim: Shim) -> None:
        self.older = older
        self.manager = manager
        self.stand = stand
        self.shim = shim
        self.client: httpx2.AsyncClient
        manager.mirrors = self.mirror
        manager.returns = self.carry_back

    async def mirror(self, _shape: str, _project: str | None, key: str) -> None:
        """What the manager does: copies the value of the key, as it is now."""
        if key in self.older.kept:
            await ours(self.shim, "POST", "/store", {"key": key, "value": self.older.kept[key]})

    async def carry_back(self) -> None:
        for key in await self.shim.keys():
            raw = await self.shim.value(key)
            assert raw is not None
            self.older.kept[key] = json.loads(raw)

    async def quiet(self) -> None:
        """Until nothing is done beside the answers any more."""
        await until(lambda: not self.stand.busy)


async def ours(shim: Shim, method: str, path: str, body: Any = None) -> Any:
    answer = await shim.answer(Request(method, path, {}, b"" if body is None else json.dumps(body).encode()))
    return json.loads(answer.body)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    manager, older = RecordingManager(Phase.SHADOW), Older()
    stand = Stand(make_service(tmp_path), manager, "extended-memory")
    await stand.open()
    shim = Shim(stand.service)
    scene = Scene(older, manager, stand, shim)
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        async with served(older, first) as url:
            forward = Forward(url)
            proxy = ShimProxy(stand, shim, forward, max_body=10**6)
            async with (
                served(proxy, second) as address,
                httpx2.AsyncClient(base_url=address, trust_env=False, timeout=BOUND) as client,
            ):
                scene.client = client
                yield scene
            await forward.close()
    await stand.close()


@pytest.mark.parametrize("phase", [Phase.NONE, Phase.RETURNED])
async def test_before_the_migration_and_after_the_return_all_is_passed_on_as_it_is(scene: Scene, phase: Phase) -> None:
    scene.manager.now = phase
    body = b'{ "key":"a/b",  "value": [1.0 ,"\xc3\xbc"] }'
    answer = await scene.client.post("/store", content=body, headers={"content-type": "application/json"})
    assert (answer.status_code, answer.headers["x-older"]) == (200, "yes")
    assert answer.content == json.dumps({"status": "stored", "key": "a/b"}, indent=3).encode()
    await scene.client.get("/retrieve/%2E%2E//a%2Fb?x=%20&y")
    assert scene.older.asked == [("POST", b"/store", body), ("GET", b"/retrieve/%2E%2E//a%2Fb", b"")]
    assert scene.manager.mirrored == []
    assert await scene.shim.count() == 0


async def test_in_shadow_a_write_is_here_before_its_answer_and_reads_are_compared(scene: Scene) -> None:
    await scene.client.post("/store", json={"key": "k", "value": {"n": 1}})
    assert scene.manager.mirrored == [("extended-memory", "entry", None, "k")]
    assert await ours(scene.shim, "GET", "/retrieve/k") == {
        "status": "found",
        "key": "k",
        "value": {"n": 1},
        "source": "cache",
    }
    assert (await scene.client.get("/retrieve/k")).headers["x-older"] == "yes"
    await scene.quiet()
    assert scene.manager.told == [("extended-memory", "retrieve", True, None)]
    scene.older.kept["k"] = "other"
    await scene.client.get("/retrieve/k")
    await scene.quiet()
    service, tool, same, sample = scene.manager.told[-1]
    assert (service, tool, same) == ("extended-memory", "retrieve", False)
    assert sample is not None
    assert "other" in sample


async def test_in_shadow_what_fails_here_is_counted_and_never_told_to_the_client(scene: Scene) -> None:
    async def fails(_shape: str, _project: str | None, _key: str) -> None:
        raise SourceError("extended-memory-http-db", "x", "It cannot be read")

    scene.manager.mirrors = fails
    answer = await scene.client.post("/store", json={"key": "k", "value": 1})
    assert answer.status_code == 200
    await scene.quiet()
    assert scene.stand.failures == {"mirror": 1}


async def test_clearing_the_older_one_is_mirrored_for_every_key_that_is_here(scene: Scene) -> None:
    await scene.client.post("/store", json={"key": "k", "value": 1})
    await scene.client.post("/store", json={"key": "nul\0", "value": 1})
    scene.manager.mirrored.clear()
    scene.manager.mirrors = None
    await scene.client.delete("/clear?confirm=true")
    assert {key for _, _, _, key in scene.manager.mirrored} == {"k", "nul\0"}


async def test_after_the_switch_ours_answers_and_the_older_one_is_written(scene: Scene) -> None:
    scene.manager.now = Phase.SWITCHED
    answer = await scene.client.post("/store", json={"key": "a/b", "value": 5})
    assert answer.json()["status"] == "stored"
    assert "x-older" not in answer.headers
    assert (await scene.client.get("/retrieve/a/b")).json()["value"] == 5
    await scene.quiet()
    assert scene.older.asked == []
    assert scene.older.kept == {"a/b": 5}


async def test_at_the_end_ours_is_alone(scene: Scene) -> None:
    scene.manager.now = Phase.FINISHED
    await scene.client.post("/store", json={"key": "k", "value": 5})
    await scene.quiet()
    assert (scene.manager.passes, scene.older.asked, scene.older.kept) == (0, [], {})


async def test_twenty_clients_that_write_during_the_switch_see_no_error_and_every_write_is_in_both(
    scene: Scene,
) -> None:
    done = 0
    written: dict[str, int] = {}

    async def write(client: int) -> None:
        nonlocal done
        for number in range(15):
            answer = await scene.client.post("/store", json={"key": f"{client}/{number}", "value": number})
            assert answer.status_code == 200
            written[f"{client}/{number}"] = number
            done += 1

    writing = asyncio.gather(*(write(client) for client in range(20)))
    await until(lambda: done >= 50)
    scene.manager.now = Phase.SWITCHING
    await until(lambda: scene.manager.acknowledged[-1] is Phase.SWITCHING)
    # Nothing is under way: what the older one has now is all that it is ever told.
    by_older = scene.older.stored
    scene.manager.now = Phase.SWITCHED
    await asyncio.wait_for(writing, BOUND)
    await scene.quiet()
    assert by_older < len(written) == 300
    assert scene.older.stored == by_older
    assert scene.older.kept == written
    assert {key: json.loads(await scene.shim.value(key) or b"") for key in await scene.shim.keys()} == written


async def test_an_older_service_that_is_down_is_told_in_shadow_and_not_noticed_after_the_switch(tmp_path: Path) -> None:
    manager = RecordingManager(Phase.SHADOW)

    async def fails() -> None:
        raise SourceError("extended-memory-http", "x", "It is down")

    manager.returns = fails
    stand = Stand(make_service(tmp_path), manager, "extended-memory")
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
    proxy = ShimProxy(stand, Shim(stand.service), Forward(url), max_body=10**6)
    await proxy.start()
    try:
        transport = httpx2.ASGITransport(proxy)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.post("/store", json={"key": "k", "value": 1})
            assert answer.status_code == 502
            assert url in answer.json()["detail"]
            manager.now = Phase.SWITCHED
            assert (await client.post("/store", json={"key": "k", "value": 1})).status_code == 200
            assert (await client.get("/retrieve/k")).json()["value"] == 1
            foreign = await client.get("/retrieve/k", headers={"origin": "http://elsewhere.test"})
            assert foreign.status_code == 403
    finally:
        await proxy.stop()
    assert stand.failures["return"] >= 1
