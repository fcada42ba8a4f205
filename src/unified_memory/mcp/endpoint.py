"""MCP of the running service: streamable HTTP at `/mcp` and `/mcp/<profile>`, and connections of JSON-RPC lines.

The SDK is loaded when it is first needed, or beforehand by `load`, in a thread: the service answers before that.
"""

import asyncio
import importlib
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

import msgspec

from unified_memory.mcp.profiles import DEFAULT_PROFILE, NAMES, profile
from unified_memory.mcp.watch import Watch
from unified_memory.service.service import Service

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

    from unified_memory.mcp.server import Bus, MemoryServer

PATH = "/mcp"
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
# What a page of another origin would have to name to be let in where only this machine can reach the service.
LOCAL_HOSTS = ["127.0.0.1", "localhost", "[::1]", "127.0.0.1:*", "localhost:*", "[::1]:*"]
LOCAL_ORIGINS = [f"http://{host}" for host in LOCAL_HOSTS]


class MCPEndpoint:
    """Every profile over one service. `local`: only this machine reaches it, so Host and Origin must say so too."""

    def __init__(self, service: Service, *, name: str, tools: str, max_body: int, local: bool) -> None:
        self._service = service
        self._name = name
        self._tools = tools
        self._max_body = max_body
        self._local = local
        self._watch = Watch(service.storage)
        self._bus: Bus | None = None
        self._managers: dict[str, asyncio.Future[StreamableHTTPSessionManager]] = {}
        self._servers: list[MemoryServer] = []
        self._running: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()

    async def load(self) -> None:
        """Loads the SDK, while others are served."""
        await asyncio.to_thread(importlib.import_module, "unified_memory.mcp.lines")

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
        await self.load()
        from unified_memory.mcp.lines import serve_lines
        from unified_memory.mcp.server import MemoryServer

        server = MemoryServer(
            chosen,
            self._service,
            self._watch,
            self._listeners(),
            name=self._name,
            session=session,
            duplex=True,
        )
        await serve_lines(server, lines, write)

    def check(self, tools: str) -> None:
        """Raises InvalidInputError where there is no such profile."""
        profile(tools or self._tools)

    def end_streams(self) -> None:
        """Ends the subscriptions over HTTP, which would keep their connections open for ever."""
        for server in self._servers:
            server.end_streams()

    async def stop(self) -> None:
        """Ends what is under way."""
        self._stopping.set()
        if self._running:
            await asyncio.wait(self._running)
        self._watch.close()

    def _listeners(self) -> "Bus":
        if self._bus is None:
            from unified_memory.mcp.server import Bus

            self._bus = Bus(self._watch)
        return self._bus

    async def _manager(self, name: str) -> "StreamableHTTPSessionManager":
        ready = self._managers.get(name)
        if ready is None:
            ready = self._managers[name] = asyncio.get_running_loop().create_future()
            self._running.append(asyncio.create_task(self._run(name, ready), name=f"mcp {name}"))
        return await asyncio.shield(ready)

    async def _run(self, name: str, ready: "asyncio.Future[StreamableHTTPSessionManager]") -> None:
        """Keeps the SDK's manager of a profile running: it must end in the task in which it began."""
        await self.load()
        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
        from mcp.server.transport_security import TransportSecuritySettings

        from unified_memory.mcp.server import MemoryServer

        server = MemoryServer(profile(name), self._service, self._watch, self._listeners(), name=self._name)
        self._servers.append(server)
        security = TransportSecuritySettings(
            enable_dns_rebinding_protection=self._local, allowed_hosts=LOCAL_HOSTS, allowed_origins=LOCAL_ORIGINS
        )
        manager = StreamableHTTPSessionManager(
            server.sdk, stateless=True, security_settings=security, max_request_body_size=self._max_body
        )
        async with manager.run():
            ready.set_result(manager)
            await self._stopping.wait()


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
