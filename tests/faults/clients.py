"""Small HTTP clients: one over a socket, which knows when its server was killed, and one inside of this process."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from unified_memory.app import App

# No answer takes longer on any machine; what is awaited here comes within a fraction of a second.
PATIENCE = 60.0


class GoneError(Exception):
    """The server went away before its answer was whole."""


class Reply(Struct):
    status: int
    headers: dict[str, str]
    body: Any


class Client:
    """One connection, one request at a time."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Sends a request below the prefix (`If_Match` stands for `If-Match`) and waits for the whole answer.

        Raises GoneError where the server went away.
        """
        raw = b"" if body is None else msgspec.json.encode(body)
        lines = [f"{method} /api/v1/memory{path} HTTP/1.1", "host: localhost", f"content-length: {len(raw)}"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        try:
            async with asyncio.timeout(PATIENCE):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._port, limit=2**26)
                reader, writer = self._streams
                writer.write(("\r\n".join(lines) + "\r\n\r\n").encode() + raw)
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                told = {
                    name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)
                }
                answer = await reader.readexactly(int(told["content-length"]))
        except (OSError, asyncio.IncompleteReadError) as error:
            raise GoneError from error
        return Reply(int(head[0].split()[1]), told, msgspec.json.decode(answer) if answer else None)

    async def close(self) -> None:
        """Drops the connection."""
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.transport.abort()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


class Inside:
    """A connection to the application in this process, which is gone once `over` says so."""

    def __init__(self, app: App, over: Callable[[], bool] = lambda: False) -> None:
        self._app = app
        self._over = over

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        if self._over():
            raise GoneError
        raw_path, _, query = path.partition("?")
        scope = {
            "type": "http",
            "method": method,
            "path": "/api/v1/memory" + raw_path.replace("%20", " "),
            "query_string": query.encode(),
            "headers": [(name.lower().replace("_", "-").encode(), value.encode()) for name, value in headers.items()],
        }
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"" if body is None else msgspec.json.encode(body)}

        async def send(message: Any) -> None:
            sent.append(message)

        await self._app(scope, receive, send)
        told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Reply(sent[0]["status"], told, msgspec.json.decode(b"".join(message["body"] for message in sent[1:])))

    async def close(self) -> None:
        """There is nothing to drop."""
