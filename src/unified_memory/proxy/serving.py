"""A proxy on a port: the server around it, from its start to the signal that ends it."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from typing import Protocol

import uvicorn

from unified_memory.rest.exchange import Receive, Scope, Send

DRAIN_SECONDS = 10
log = logging.getLogger("unified_memory.proxy")


class Application(Protocol):
    """What is served."""

    async def start(self) -> None:
        """Opens it. Raises StorageError and below."""
        ...

    def end_streams(self) -> None:
        """Ends what would never end by itself."""
        ...

    async def stop(self) -> None:
        """Closes it, when no request is under way."""
        ...

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        ...


class _Server(uvicorn.Server):
    """uvicorn's, which ends by the signal that it got; here only once the application is closed too."""

    def __init__(self, config: uvicorn.Config, application: Application) -> None:
        super().__init__(config)
        self._application = application

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Does nothing: `told_to_stop` does it, around more."""
        yield

    def told_to_stop(self) -> contextlib.AbstractContextManager[None]:
        """Takes the signals that end the proxy, and sends them again at its end."""
        return super().capture_signals()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Ends what would never end by itself, and waits for the rest."""
        self._application.end_streams()
        await super().shutdown(sockets)


def serve(application: Application, listening: socket.socket) -> None:
    """Serves on the socket until a signal comes. Raises StorageError and below where it cannot begin."""
    config = uvicorn.Config(
        application,
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        lifespan="off",
        ws="none",
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
    server = _Server(config, application)
    with server.told_to_stop(), asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(application, server, listening))


async def _serve(application: Application, server: uvicorn.Server, listening: socket.socket) -> None:
    await application.start()
    host, port, *_ = listening.getsockname()
    log.info("The proxy answers at http://%s:%d; stop with Ctrl-C", f"[{host}]" if ":" in host else host, port)
    try:
        await server.serve(sockets=[listening])
    finally:
        await application.stop()
