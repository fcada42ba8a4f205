"""The door for processes that speak MCP over stdio: a socket of this machine, its address and a token in the data directory.

`service.lock` holds the address for as long as the service that wrote it runs, which the lock on the file tells;
`service.token`, readable for its owner alone, holds what a caller must send first. A service that finds the lock taken
leaves the door to the other.
"""

import asyncio
import contextlib
import fcntl
import hmac
import logging
import os
import secrets
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

import msgspec

from unified_memory import __version__
from unified_memory.mcp.endpoint import MCPEndpoint
from unified_memory.mcp.greeting import LOCK, MAX_LINE, PROTOCOL, TOKEN, Address, Hello, Welcome, read_hello
from unified_memory.model.errors import InvalidInputError

log = logging.getLogger("unified_memory.mcp")
HELLO_SECONDS = 5.0
# Whoever looks whether the lock is held takes it himself for a moment.
LOCK_SECONDS = 1.0


class Door:
    """Lets connections in from `start` to `stop`."""

    def __init__(self, database: Path, endpoint: MCPEndpoint) -> None:
        self._directory = database.parent
        self._database = database.name
        self._endpoint = endpoint
        self._token = secrets.token_urlsafe(32)
        self._lock: IO[str] | None = None
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> bool:
        """Opens the door; False where another service holds it. Raises OSError."""
        lock = (self._directory / LOCK).open("a+", encoding="utf-8")
        if not await _take(lock):
            lock.close()
            return False
        self._lock = lock
        # What a service that was killed left in it names a port that may be anybody's now.
        lock.truncate(0)
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", 0, limit=2 * MAX_LINE)
        token = os.open(self._directory / TOKEN, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(token, "w") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(self._token)
        address = Address(PROTOCOL, self._server.sockets[0].getsockname()[1], __version__, os.getpid(), self._database)
        lock.write(msgspec.json.encode(address).decode() + "\n")
        lock.flush()
        return True

    async def stop(self) -> None:
        """Closes the door and ends the connections."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        if self._lock is not None:
            self._lock.truncate(0)
            self._lock.close()
            self._lock = None

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            try:
                hello = await self._greet(reader, writer)
                if hello is not None:
                    await self._endpoint.connection(hello.tools, hello.session, _lines(reader), _Writer(writer).write)
            finally:
                writer.close()

    async def _greet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Hello | None:
        """What the caller says of itself; None where it is not let in."""
        try:
            line = await asyncio.wait_for(reader.readline(), HELLO_SECONDS)
            hello = read_hello(line)
        except (TimeoutError, ValueError):
            # ValueError: too long a line, or none that is a greeting.
            return None
        if not hmac.compare_digest(hello.token.encode(), self._token.encode()):
            writer.write(msgspec.json.encode(Welcome(__version__, "The token is not that of this service")) + b"\n")
            return None
        try:
            self._endpoint.check(hello.tools)
        except InvalidInputError as error:
            # Before it is let in: after the welcome whatever is written is handed to the client.
            writer.write(msgspec.json.encode(Welcome(__version__, error.detail)) + b"\n")
            return None
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        writer.write(msgspec.json.encode(Welcome(__version__)) + b"\n")
        return hello


async def _take(lock: IO[str]) -> bool:
    """Locks the file; False where another service holds it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LOCK_SECONDS):
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    await asyncio.sleep(LOCK_SECONDS / 50)
                else:
                    return True
    return False


class _Writer:
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def write(self, line: bytes) -> None:
        self._writer.write(line)
        await self._writer.drain()


async def _lines(reader: asyncio.StreamReader) -> AsyncIterator[bytes]:
    # A line without its end is what a caller that has died could not finish.
    while (line := await reader.readline()).endswith(b"\n"):
        yield line
