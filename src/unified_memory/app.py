"""The whole service as one ASGI application."""

from typing import Any

from unified_memory.mcp.endpoint import PATH as MCP_PATH
from unified_memory.mcp.endpoint import MCPEndpoint
from unified_memory.mcp.profiles import profile
from unified_memory.mcp.tool import Call, call_tool
from unified_memory.model.principal import ANONYMOUS
from unified_memory.rest import RestApplication
from unified_memory.rest.exchange import Message, Receive, Scope, Send
from unified_memory.rest.migration import Reachable
from unified_memory.service.replaying import Answers
from unified_memory.service.service import Service
from unified_memory.settings import Settings
from unified_memory.sources.base import EXTENDED_MEMORY, MEMORY_BANK
from unified_memory.worker import Worker

# How often is looked whether a backup is due; its schedule goes by the minute.
BACKUP_SECONDS = 60.0


class App:
    """REST and MCP; the dashboard will stand beside them. Under a server the lifespan opens and closes the service.

    `anything`: whoever calls may name any source of a migration, as a command on the machine itself does.
    """

    def __init__(self, service: Service, settings: Settings, *, anything: bool = False) -> None:
        self.service = service
        service.migration.answers = answers_of(service)
        self._rest = RestApplication(
            service,
            max_body=settings.max_body_bytes,
            name=settings.service_name,
            reachable=Reachable(settings.migration_dir, anything),
        )
        self.mcp = MCPEndpoint(
            service,
            name=settings.service_name,
            tools=settings.tools,
            max_body=settings.max_body_bytes,
            local=settings.local,
        )
        self._worker = Worker(
            service,
            cleanup_seconds=settings.ttl_cleanup_interval,
            flush_seconds=settings.access_flush_interval,
            tiering_seconds=settings.tiering_interval,
            embed=True,
            backup_seconds=BACKUP_SECONDS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, or the lifespan."""
        if scope["type"] == "http":
            path = scope["path"]
            if path.startswith(MCP_PATH) and path[len(MCP_PATH) : len(MCP_PATH) + 1] in {"", "/"}:
                await self.mcp(scope, receive, send)
            else:
                await self._rest(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._lifespan(receive, send)
        else:
            # No websockets here: the handshake is declined.
            await receive()
            await send({"type": "websocket.close", "code": 1000})

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        message: Message = await receive()
        try:
            await self.start()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        while message["type"] != "lifespan.shutdown":
            message = await receive()
        await self.stop()
        await send({"type": "lifespan.shutdown.complete"})

    async def start(self) -> None:
        """Opens the service and begins its passes. Raises StorageError and below."""
        await self.service.open()
        self._worker.start()

    def end_streams(self) -> None:
        """Ends what would never end by itself; the service is about to stop."""
        self.mcp.end_streams()
        self._rest.end_streams()

    async def stop(self) -> None:
        """Ends the passes and closes the service; `/health` says that it is draining."""
        self.service.upkeep.draining = True
        await self._worker.stop()
        await self.mcp.stop()
        await self.service.close()


def answers_of(service: Service) -> Answers:
    """What our tools answer to a client of an older service, as text; the service may be named by its profile, too."""

    async def answers(older: str, tool: str, arguments: dict[str, Any]) -> str:
        # The two memory banks spell their arguments differently.
        bank = "memory-bank-pypi" if "project_name" in arguments else "memory-bank"
        tools = profile({EXTENDED_MEMORY: "extended-memory", MEMORY_BANK: bank}.get(older, older))
        answer = await call_tool(tools, Call(service, ANONYMOUS), tool, arguments)
        return answer.text or ""

    return answers


def make_app(service: Service, settings: Settings, *, anything: bool = False) -> App:
    """The application over a service. Whoever calls it without a lifespan opens and closes the service.

    `anything` as of `App`.
    """
    return App(service, settings, anything=anything)
