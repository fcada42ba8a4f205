"""`/mcp` of a running service, in both eras."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.mcp.conftest import Start
from tests.mcp.service import Running
from tests.mcp.wire import BOUND, HTTP, META, MODERN, messages
from unified_memory.mcp.profiles import NAMES, PROFILES

Client = Callable[[Running], httpx2.AsyncClient]
STORE = {"action": "store", "namespace": "http"}
HEADERS = {"accept": "application/json, text/event-stream", "mcp-protocol-version": MODERN}


@pytest.fixture
async def client(serve: Start, http: Client, tmp_path: Path) -> httpx2.AsyncClient:
    return http(await serve(tmp_path))


async def test_every_profile_has_its_path(client: httpx2.AsyncClient) -> None:
    for name in NAMES:
        for modern in (True, False):
            told = await HTTP(client, f"/mcp/{name}", modern=modern).ask("tools/list")
            assert [tool["name"] for tool in told["result"]["tools"]] == [tool.name for tool in PROFILES[name].tools]
    told = await HTTP(client).ask("tools/list")
    assert len(told["result"]["tools"]) == 7
    missing = await client.post("/mcp/nope", json={})
    assert (missing.status_code, missing.json()["code"]) == (404, "no_such_route")
    assert (await client.get("/mcpx")).status_code == 404


@pytest.mark.parametrize("modern", [True, False])
async def test_what_an_agent_stores_rest_gives(client: httpx2.AsyncClient, modern: bool) -> None:  # noqa: FBT001
    agent = HTTP(client, modern=modern)
    told = await agent.call("memory_usage", {**STORE, "key": "k", "value": {"a": [1, "ü\u2028"]}})
    record = (await client.get("/api/v1/memory/retrieve/k?namespace=http")).json()
    assert told["structuredContent"]["memory"]["value"] == record["value"] == {"a": [1, "ü\u2028"]}
    await agent.call("save_context", {"content": "the door is green", "project_id": "Paint_Shop", "tags": ["Door"]})
    found = (await client.post("/api/v1/memory/search", json={"query": "green door"})).json()["results"]
    assert [(one["namespace"], one["value"]) for one in found] == [("projects/paint shop", "the door is green")]


async def test_failures_are_told(client: httpx2.AsyncClient) -> None:
    agent = HTTP(client)
    missing = await agent.call("memory_usage", {"action": "retrieve", "key": "nothing"})
    assert missing["isError"]
    assert missing["structuredContent"]["error"]["code"] == "memory_not_found"
    assert (await agent.ask("tools/call", {"name": "nope", "arguments": {}}))["error"]["code"] == -32602
    assert (await agent.ask("no/such"))["error"]["code"] == -32601
    gone = await agent.ask("resources/read", {"uri": "memory://a/b"})
    assert (gone["error"]["code"], gone["error"]["data"]["uri"]) == (-32602, "memory://a/b")
    for body, code in [(b"nonsense", -32700), (b"[]", -32600), (b'{"jsonrpc":"2.0","id":1}', -32600)]:
        answer = await client.post("/mcp", content=body, headers={**HEADERS, "content-type": "application/json"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)


async def test_a_page_of_another_origin_is_kept_out(client: httpx2.AsyncClient) -> None:
    told = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    for headers, status in [
        ({"host": "evil.example"}, 421),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "http://localhost:3000"}, 200),
    ]:
        answer = await client.post("/mcp", json=told, headers={**HEADERS, "mcp-method": "tools/list", **headers})
        assert answer.status_code == status, headers


async def test_a_body_larger_than_may_be_is_refused(serve: Start, http: Client, tmp_path: Path) -> None:
    service = await serve(tmp_path, "--max-body-bytes", "100KB")
    told = await http(service).post(
        "/mcp", content=b"x" * 200_000, headers={**HEADERS, "content-type": "application/json"}
    )
    assert told.status_code == 413


async def test_resources_are_paged_and_read(client: httpx2.AsyncClient) -> None:
    agent = HTTP(client)
    items = [{"key": f"k/{n} ü", "value": "text" if n % 2 else {"n": n}, "namespace": "a/b"} for n in range(120)]
    await client.post("/api/v1/memory/store/batch", json={"memories": items})
    found: list[Any] = []
    cursor: dict[str, Any] = {}
    while True:
        page = (await agent.ask("resources/list", cursor))["result"]
        found += page["resources"]
        if "nextCursor" not in page:
            break
        cursor = {"cursor": page["nextCursor"]}
    assert len(found) == len({one["uri"] for one in found}) == 121
    read = (await agent.ask("resources/read", {"uri": found[1]["uri"]}))["result"]["contents"][0]
    assert (read["mimeType"], json.loads(read["text"])) == ("application/json", {"n": 0})
    read = (await agent.ask("resources/read", {"uri": found[2]["uri"]}))["result"]["contents"][0]
    assert (read["mimeType"], read["text"]) == ("text/plain", "text")


async def test_a_subscription_hears_of_a_store_through_rest(client: httpx2.AsyncClient) -> None:
    params = {
        "notifications": {"resourceSubscriptions": ["memory://http/k"], "resourcesListChanged": True},
        "_meta": META,
    }
    told = {"jsonrpc": "2.0", "id": "s", "method": "subscriptions/listen", "params": params}
    headers = {**HEADERS, "mcp-method": "subscriptions/listen"}
    heard: list[str] = []
    async with asyncio.timeout(BOUND), client.stream("POST", "/mcp", json=told, headers=headers) as stream:
        async for line in stream.aiter_lines():
            if not line.startswith("data: {"):
                continue
            heard.append(json.loads(line.removeprefix("data: "))["method"])
            if len(heard) == 1:
                await client.post("/api/v1/memory/store", json={"key": "k", "value": 1, "namespace": "http"})
            if len(heard) == 3:
                break
    assert heard == [
        "notifications/subscriptions/acknowledged",
        "notifications/resources/updated",
        "notifications/resources/list_changed",
    ]


async def test_prompts_are_rendered(client: httpx2.AsyncClient) -> None:
    agent = HTTP(client)
    prompts = (await agent.ask("prompts/list"))["result"]["prompts"]
    assert [prompt["name"] for prompt in prompts] == ["recall", "save_session"]
    told = await agent.ask("prompts/get", {"name": "recall", "arguments": {"project": "billing", "topic": "taxes"}})
    text = told["result"]["messages"][0]["content"]["text"]
    assert "billing" in text
    assert "taxes" in text
    assert (await agent.ask("prompts/get", {"name": "nope"}))["error"]["code"] == -32602


async def test_the_startup_context_holds_what_is_important(client: httpx2.AsyncClient) -> None:
    agent = HTTP(client)
    for n in range(60):
        await agent.call("save_context", {"content": f"fact {n} " + "x" * 700, "importance_level": 8 if n % 2 else 3})
    told = (await agent.ask("resources/read", {"uri": "memory://startup-context"}))["result"]["contents"][0]["text"]
    assert "fact 59" in told
    assert "fact 58 " not in told
    assert len(told) < 16_000
    assert "left out" in told


async def test_a_handshake_needs_no_session(client: httpx2.AsyncClient) -> None:
    params = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "0"}}
    answer = await client.post(
        "/mcp",
        json={"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params},
        headers={"accept": "application/json, text/event-stream"},
    )
    assert "mcp-session-id" not in answer.headers
    assert messages(answer)[0]["result"]["protocolVersion"] == "2025-06-18"
    assert len((await HTTP(client, modern=False).ask("tools/list"))["result"]["tools"]) == 7
