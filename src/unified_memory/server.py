"""The server process: address, logs, start and stop."""

import asyncio
import contextlib
import gc
import json
import logging
import logging.handlers
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn

from unified_memory import __version__
from unified_memory.app import make_app
from unified_memory.bootstrap import build
from unified_memory.mcp.door import Door
from unified_memory.model.clock import SECOND, to_rfc3339
from unified_memory.model.errors import InvalidInputError, RefusedError
from unified_memory.settings import Settings

log = logging.getLogger("unified_memory")
LOG_FILE_BYTES = 10 * 1024**2
LOG_FILES = 5
BACKLOG = 2048
DRAIN_SECONDS = 10
# Requests leave little garbage in circles: looking for it after every 700 new objects is mostly in vain.
GARBAGE_THRESHOLD = 20_000


def serve(settings: Settings) -> None:
    """Runs the service until it is told to stop.

    Raises RefusedError, InvalidInputError (the address cannot be listened on) and StorageError where it cannot start.
    """
    check_address(settings)
    configure_logging(settings)
    with listen(settings) as listening:
        app = make_app(build(settings), settings)
        config = server_config(app, settings.host, settings.port)
        gc.freeze()
        gc.set_threshold(GARBAGE_THRESHOLD)
        server = _Server(config, app.end_streams)
        with server.told_to_stop(), asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(_run(app, server, settings, listening))


def server_config(app: Any, host: str, port: int) -> uvicorn.Config:
    """How uvicorn is set up: uvloop and httptools, no logs of its own, no headers that say what it is."""
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


class _Server(uvicorn.Server):
    """uvicorn's, which ends by the signal that it got; here only once everything else is closed too.

    `draining` is called when no more connections are accepted, before those that are open are waited for.
    """

    def __init__(self, config: uvicorn.Config, draining: Callable[[], None]) -> None:
        super().__init__(config)
        self._draining = draining

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Does nothing: `told_to_stop` does it, around more."""
        yield

    def told_to_stop(self) -> contextlib.AbstractContextManager[None]:
        """Takes the signals that end the service, and sends them again at its end."""
        return super().capture_signals()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends what would never end by itself, and waits for the rest."""
        self._draining()
        await super().shutdown(sockets)


async def _run(app: Any, server: uvicorn.Server, settings: Settings, listening: socket.socket) -> None:
    await app.start()
    door = Door(settings.database, app.mcp)
    try:
        port = listening.getsockname()[1]
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        base = f"http://{host}:{port}"
        log.info("unified-memory %s serves %s from %s", __version__, base, settings.database)
        loading = asyncio.create_task(app.mcp.load())
        try:
            await door.start()
        except OSError as error:
            # They open the directory themselves then.
            log.warning("MCP clients over stdio cannot use this service: %s", error)
        log.info("MCP clients: %s/mcp, or the command: unified-memory mcp", base)
        log.info("Try it: curl %s/health · interactive API: %s/docs · stop with Ctrl-C", base, base)
        await server.serve(sockets=[listening])
        await loading
    finally:
        await door.stop()
        await app.stop()


def listen(settings: Settings) -> socket.socket:
    """The listening socket. Raises InvalidInputError naming the port where it cannot be had."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host.strip("[]"), settings.port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InvalidInputError(
            "port",
            f"Cannot listen on {settings.host} port {settings.port}: {reason}",
            hint="Is the service running already? Choose another --port, or --port 0 for any that is free",
        ) from error


def check_address(settings: Settings) -> None:
    """Raises RefusedError for an address that others can reach, unless the operator's word is there."""
    if settings.allow_anonymous or settings.local:
        return
    raise RefusedError(
        f"Without keys the service listens on loopback addresses only, not on {settings.host}",
        hint="Use --host 127.0.0.1, or set ALLOW_ANONYMOUS=true if everyone who reaches it may read and write everything",
        host=settings.host,
    )


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
    # It has a line at INFO for every request.
    logging.getLogger("mcp").setLevel("WARNING")


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
