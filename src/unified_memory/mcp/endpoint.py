"""MCP of the running service: streamable HTTP at `/mcp` and `/mcp/<profile>`, and connections of JSON-RPC lines.

The SDK is loaded when it is first needed, or beforehand by `load`, in a thread: the service answers before that.
"""

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import msgspec

from unified_memory.mcp.profiles import DEFAULT_PROFILE, NAMES, profile
from unified_memory.service.service import Service

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    from unified_memory.mcp.transports import Transports

PATH = "/mcp"
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class MCPEndpoint:
    """Every profile over one service. `local`: only this machine reaches it, so Host and Origin must say so too."""

    def __init__(self, service: Service, *, name: str, tools: str, max_body: int, local: bool) -> None:
        self._service = service
        self._name = name
        self._tools = tools
        self._max_body = max_body
        self._local = local
        self._transports: Transports | None = None
        self._managers: dict[str, asyncio.Future[StreamableHTTPSessionManager]] = {}
        self._running: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def load(self) -> None:
        """Loads the SDK, while others are served."""
        await self.transports()

    async def transports(self) -> "Transports":
        """Loads the SDK where it is not loaded yet."""
        if self._transports is None:
            module = await asyncio.to_thread(importlib.import_module, "unified_memory.mcp.transports")
            # Somebody else may have waited for the same.
            if self._transports is None:
                self._transports = module.Transports(self._service, self._name)
        return self._transports

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request below `/mcp`."""
        name = scope["path"][len(PATH) :].strip("/") or self._tools
        if name not in NAMES:
            await _not_found(send, name)
            return
        manager = await self._manager(name)
        # httptools leaves the blanks after a value, which are no part of it (RFC 9110, 5.5).
        headers = [(field, value.strip(b" \t")) for field, value in scope["headers"]]
        await manager.handle_request({**scope, "headers": headers}, receive, send)

    async def connection(
        self, tools: str, session: str, lines: AsyncIterator[bytes], write: Callable[[bytes], Awaitable[None]]
    ) -> None:
        """Serves one connection of JSON-RPC lines. Raises InvalidInputError where there is no such profile."""
        chosen = profile(tools or self._tools)
        await (await self.transports()).over_lines(chosen, session, lines, write)

    def check(self, tools: str) -> None:
        """Raises InvalidInputError where there is no such profile."""
        profile(tools or self._tools)

    def end_streams(self) -> None:
        """Ends the subscriptions over HTTP, which would keep their connections open for ever."""
        if self._transports is not None:
            self._transports.end_streams()

    async def stop(self) -> None:
        """Ends what is under way."""
        self._stopping.set()
        if self._running:
            await asyncio.wait(self._running)
        if self._transports is not None:
            self._transports.watch.close()

    async def _manager(self, name: str) -> "StreamableHTTPSessionManager":
        ready = self._managers.get(name)
        if ready is None:
            ready = self._managers[name] = asyncio.get_running_loop().create_future()
            running = asyncio.create_task(self._run(name, ready), name=f"mcp {name}")
            running.add_done_callback(lambda task: self._ended(name, ready, task))
            self._running.append(running)
        return await asyncio.shield(ready)

    async def _run(self, name: str, ready: "asyncio.Future[StreamableHTTPSessionManager]") -> None:
        """Keeps the SDK's manager of a profile running: it must end in the task in which it began."""
        transports = await self.transports()
        manager = transports.over_http(profile(name), max_body=self._max_body, local=self._local)
        async with manager.run():
            ready.set_result(manager)
            await self._stopping.wait()

    def _ended(
        self, name: str, ready: "asyncio.Future[StreamableHTTPSessionManager]", task: "asyncio.Task[None]"
    ) -> None:
        """One that could not begin says why to those who wait for it, and the next request tries anew."""
        if not ready.done():
            del self._managers[name]
            if task.cancelled() or (error := task.exception()) is None:
                ready.cancel()
            else:
                ready.set_exception(error)


async def _not_found(send: Send, name: str) -> None:
    told = {
        "type": "about:blank",
        "title": "Not Found",
        "status": 404,
        "detail": f"There is no tool profile {name!r}",
        "code": "no_such_route",
        "hint": f"{PATH} is {DEFAULT_PROFILE}; others: " + ", ".join(f"{PATH}/{other}" for other in NAMES),
    }
    body = msgspec.json.encode(told)
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 404, "headers": headers})
    await send({"type": "http.response.body", "body": body})
