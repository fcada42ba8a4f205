"""The whole service as one ASGI application, and the server that runs it."""

import ipaddress
import json
import logging
import logging.handlers
from typing import Any

import uvicorn

from unified_memory import __version__
from unified_memory.bootstrap import build
from unified_memory.model.clock import SECOND, to_rfc3339
from unified_memory.model.errors import RefusedError
from unified_memory.rest import RestApplication
from unified_memory.rest.exchange import Message, Receive, Scope, Send
from unified_memory.service.service import Service
from unified_memory.settings import Settings
from unified_memory.worker import Worker

log = logging.getLogger("unified_memory")
LOG_FILE_BYTES = 10 * 1024**2
LOG_FILES = 5


class App:
    """REST now; MCP and the dashboard will stand beside it. Under a server the lifespan opens and closes the service."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service = service
        self._rest = RestApplication(service, max_body=settings.max_body_bytes, name=settings.service_name)
        self._worker = Worker(
            service, cleanup_seconds=settings.ttl_cleanup_interval, flush_seconds=settings.access_flush_interval
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request, or the lifespan."""
        if scope["type"] == "http":
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
            await self.service.open()
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        self._worker.start()
        await send({"type": "lifespan.startup.complete"})
        while message["type"] != "lifespan.shutdown":
            message = await receive()
        self.service.upkeep.draining = True
        await self._worker.stop()
        await self.service.close()
        await send({"type": "lifespan.shutdown.complete"})


def make_app(service: Service, settings: Settings) -> App:
    """The application over a service. Whoever calls it without a lifespan opens and closes the service."""
    return App(service, settings)


def check_address(settings: Settings) -> None:
    """Raises RefusedError for an address that others can reach, unless the operator's word is there."""
    if settings.allow_anonymous or is_loopback(settings.host):
        return
    raise RefusedError(
        f"Without keys the service listens on loopback addresses only, not on {settings.host}",
        hint="Use --host 127.0.0.1, or set ALLOW_ANONYMOUS=true if everyone who reaches it may read and write everything",
        host=settings.host,
    )


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def serve(settings: Settings) -> None:
    """Runs the service until it is told to stop. Raises RefusedError and StorageError where it cannot start."""
    check_address(settings)
    configure_logging(settings)
    app = make_app(build(settings), settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=10,
    )
    server = _Server(config, settings)
    server.run()
    if not server.started:
        raise SystemExit(1)


class _Server(uvicorn.Server):
    """Uvicorn that says where to go next once it listens."""

    def __init__(self, config: uvicorn.Config, settings: Settings) -> None:
        super().__init__(config)
        self._settings = settings

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets=sockets)
        if not self.started:
            return
        port = self.servers[0].sockets[0].getsockname()[1] if self.servers else self._settings.port
        host = f"[{self._settings.host}]" if ":" in self._settings.host else self._settings.host
        base = f"http://{host}:{port}"
        log.info("unified-memory %s serves %s from %s", __version__, base, self._settings.database)
        log.info("Try it: curl %s/health · interactive API: %s/docs · stop with Ctrl-C", base, base)


def configure_logging(settings: Settings) -> None:
    """Plain lines on standard error; with MCP_LOG_DIR rotated JSON lines there too."""
    handlers: list[logging.Handler] = [logging.StreamHandler()]
    if settings.log_dir is not None:
        settings.log_dir.mkdir(parents=True, exist_ok=True)
        to_file = logging.handlers.RotatingFileHandler(
            settings.log_dir / "unified-memory.log", maxBytes=LOG_FILE_BYTES, backupCount=LOG_FILES, encoding="utf-8"
        )
        to_file.setFormatter(_JSONLines())
        handlers.append(to_file)
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(levelname)s %(message)s", handlers=handlers, force=True
    )
    logging.getLogger("uvicorn.error").setLevel("WARNING")


class _JSONLines(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        told = {
            "time": to_rfc3339(round(record.created * SECOND)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps(told, ensure_ascii=False)
