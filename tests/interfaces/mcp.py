"""Operations as calls of the tool `memory_usage`, in either era, over HTTP as a client sends them."""

from typing import Any

import httpx2
from msgspec import structs

from tests.interfaces.rest import ToldError
from tests.interfaces.scenarios import Arguments, Scenario
from tests.mcp.wire import HTTP
from unified_memory.mcp.endpoint import MCPEndpoint
from unified_memory.service.service import Service

_NARROWING = (
    *("namespace", "tags", "importance_min", "session_id", "since", "until"),
    *("min_score", "mode", "explain", "limit"),
)
# What the tool can be asked, and how it names it.
ACTIONS: dict[str, frozenset[str]] = {
    "store": frozenset({"key", "value", "namespace", "ttl", "metadata"}),
    "retrieve": frozenset({"key", "namespace"}),
    "delete": frozenset({"key", "namespace"}),
    "search": frozenset({"query", "collapse", *_NARROWING}),
    "recall": frozenset({"messages", *_NARROWING}),
}

RANKED = ("search", "recall")
_OPTIONAL = ("duplicates", "message", "explain")


def playable(scenario: Scenario) -> Scenario:
    """The scenario with the steps that the tools can be asked. What comes of them may differ from what it says."""
    steps = [
        step
        for step in scenario.steps
        if step.operation == "advance" or (step.operation in ACTIONS and set(step.arguments) <= ACTIONS[step.operation])
    ]
    return structs.replace(scenario, steps=tuple(structs.replace(step, gives=None) for step in steps))


def reduced(operation: str, answer: Any) -> Any:
    """What of an answer both interfaces tell."""
    if "error" in answer and "detail" in answer:
        return answer
    if operation in RANKED:
        hits = [
            (hit["id"], hit["namespace"], hit["key"], round(hit["score"], 3), *map(hit.get, _OPTIONAL))
            for hit in answer["results"]
        ]
        return hits, answer["mode"], answer.get("corrected", {})
    return answer if operation != "delete" else None


class MCPInterface:
    """One agent. What the tool answers beyond REST's record is left to its own tests."""

    def __init__(self, service: Service, *, modern: bool) -> None:
        endpoint = MCPEndpoint(service, name="unified-memory", tools="unified", max_body=64 * 1024**2, local=True)
        self._endpoint = endpoint
        self._http = httpx2.AsyncClient(transport=httpx2.ASGITransport(endpoint), base_url="http://localhost")
        self._agent = HTTP(self._http, modern=modern)

    async def do(self, operation: str, arguments: Arguments) -> Any:
        if operation in RANKED:
            if operation == "recall":
                arguments["messages"] = [
                    one["content"] if isinstance(one, dict) else one for one in arguments["messages"]
                ]
            result = await self._agent.call("search_memory", {**arguments, "max_tokens": 100_000})
        else:
            limits = {"max_tokens": 100_000} if operation == "retrieve" else {}
            result = await self._agent.call("memory_usage", {"action": operation, **arguments, **limits})
        told = result["structuredContent"]
        if result["isError"]:
            raise ToldError({**told["error"], "status": 0})
        return told if operation in RANKED else told["memory"]

    async def close(self) -> None:
        await self._http.aclose()
        await self._endpoint.stop()
