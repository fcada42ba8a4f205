"""MCP over standard input and output, for clients that start a program.

Where a service runs on the data directory the lines are handed to it; else this process opens the directory itself. A
service that goes away is made up for by the other way, in the middle of a conversation: the handshake is said again, and
what was not answered yet is asked again under the same name, so that it happens once. Nothing but JSON-RPC ever reaches
standard output.
"""

import argparse
import asyncio
import contextlib
import fcntl
import json
import os
import queue
import secrets
import signal
import sys
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType

from unified_memory.mcp.greeting import LOCK, MAX_LINE, PROTOCOL, TOKEN, Hello, read_address, read_welcome
from unified_memory.model.errors import UnifiedMemoryError
from unified_memory.settings import Settings, load

CONNECT_SECONDS = 2.0
READ_BYTES = 1 << 20
INTERNAL_ERROR = -32603
INVALID_REQUEST = -32600


def main(arguments: Sequence[str]) -> int:
    """`unified-memory mcp`: serves until standard input ends. The exit status."""
    parser = argparse.ArgumentParser(prog="unified-memory mcp", add_help=False, allow_abbrev=False)
    parser.add_argument("--tools")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--sqlite-path", type=Path)
    given = parser.parse_args(arguments)
    try:
        settings = load(**vars(given))
    except UnifiedMemoryError as error:
        _say(error.detail)
        return 2
    return asyncio.run(_Front(settings).run())


def _say(words: str) -> None:
    sys.stderr.write(f"unified-memory mcp: {words}\n")
    sys.stderr.flush()


class _Head(Struct):
    """What a message says of itself."""

    id: Any = UNSET
    method: str | UnsetType = UNSET
    params: msgspec.Raw | UnsetType = UNSET


class _Uri(Struct):
    uri: str


class _Cancelled(Struct):
    request_id: Any = msgspec.field(name="requestId")


_head = msgspec.json.Decoder(_Head).decode


def _read_head(line: bytes) -> _Head | None:
    try:
        return _head(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        # Whoever serves the line answers what is wrong with it.
        return None


class _Conversation:
    """What has been said and not been answered: what another backend has to be told to go on."""

    def __init__(self) -> None:
        self._handshake: dict[str, bytes] = {}
        self._subscribed: dict[str, bytes] = {}
        self._owed: dict[str, bytes] = {}
        self._silent: set[str] = set()

    def asked(self, line: bytes) -> None:
        """The client has sent this line."""
        head = _read_head(line)
        if head is None or head.method is UNSET:
            return
        if head.method in {"initialize", "notifications/initialized"}:
            self._handshake[head.method] = line
        with contextlib.suppress(msgspec.DecodeError):
            if head.method == "notifications/cancelled" and head.params is not UNSET:
                self._owed.pop(_name(msgspec.json.decode(head.params, type=_Cancelled).request_id), None)
            elif head.method == "resources/subscribe" and head.params is not UNSET:
                self._subscribed[msgspec.json.decode(head.params, type=_Uri).uri] = line
            elif head.method == "resources/unsubscribe" and head.params is not UNSET:
                self._subscribed.pop(msgspec.json.decode(head.params, type=_Uri).uri, None)
        if head.id is not UNSET and head.id is not None:
            self._owed[_name(head.id)] = line

    def answered(self, line: bytes) -> bool:
        """The backend has sent this line; whether the client is to see it."""
        head = _read_head(line)
        if head is None or head.method is not UNSET or head.id is UNSET:
            return True
        name = _name(head.id)
        if name in self._silent:
            self._silent.discard(name)
            return False
        self._owed.pop(name, None)
        return True

    def again(self) -> list[bytes]:
        """What to tell a new backend; the answers to what was answered already are kept from the client."""
        said = [*self._handshake.values(), *self._subscribed.values()]
        waiting = set(self._owed.values())
        self._silent = {
            _name(head.id)
            for line in said
            if line not in waiting and (head := _read_head(line)) is not None and head.id is not UNSET
        }
        return [*said, *(line for line in self._owed.values() if line not in said)]

    @property
    def owed(self) -> list[Any]:
        """The ids of what waits for an answer."""
        return [json.loads(name) for name in self._owed]


def _name(number: Any) -> str:
    return msgspec.json.encode(number).decode()


class _Backend(Protocol):
    """Who answers."""

    async def send(self, line: bytes) -> None:
        """Takes a line of the client. Raises ConnectionError where nobody does."""
        ...

    async def finish(self) -> None:
        """The client has said all it had to say; the answers still come."""
        ...

    def answers(self) -> AsyncIterator[bytes]:
        """The lines for the client, until it has finished or has gone."""
        ...

    async def close(self) -> None:
        """Frees everything."""
        ...


class _Service:
    """A running service, through its door."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, line: bytes) -> None:
        self._writer.write(line)
        await self._writer.drain()

    async def finish(self) -> None:
        with contextlib.suppress(OSError):
            self._writer.write_eof()

    async def answers(self) -> AsyncIterator[bytes]:
        with contextlib.suppress(ConnectionError):
            while (line := await self._reader.readline()).endswith(b"\n"):
                yield line

    async def close(self) -> None:
        self._writer.close()


class _Own:
    """The data directory itself, opened by this process."""

    def __init__(self, settings: Settings, session: str) -> None:
        self._settings = settings
        self._session = session
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._answers: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None

    async def open(self) -> None:
        """Raises StorageError and below, InvalidInputError where there is no such profile."""
        # Only where nobody else serves is all of this needed.
        from unified_memory.bootstrap import build
        from unified_memory.mcp.endpoint import MCPEndpoint
        from unified_memory.mcp.profiles import profile
        from unified_memory.worker import Worker

        settings = self._settings
        profile(settings.tools)
        self._service = build(settings)
        await self._service.open()
        self._worker = Worker(
            self._service, cleanup_seconds=settings.ttl_cleanup_interval, flush_seconds=settings.access_flush_interval
        )
        self._worker.start()
        self._endpoint = MCPEndpoint(
            self._service,
            name=settings.service_name,
            tools=settings.tools,
            max_body=settings.max_body_bytes,
            local=True,
        )
        self._task = asyncio.create_task(self._serve())

    async def _serve(self) -> None:
        try:
            await self._endpoint.connection(self._settings.tools, self._session, self._incoming(), self._answers.put)
        finally:
            self._answers.put_nowait(None)

    async def _incoming(self) -> AsyncIterator[bytes]:
        while (line := await self._lines.get()) is not None:
            yield line

    async def send(self, line: bytes) -> None:
        self._lines.put_nowait(line)

    async def finish(self) -> None:
        self._lines.put_nowait(None)

    async def answers(self) -> AsyncIterator[bytes]:
        while (line := await self._answers.get()) is not None:
            yield line

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            await self._worker.stop()
            await self._endpoint.stop()
            await self._service.close()
            if not self._task.cancelled():
                self._task.result()


class _Front:
    """Between the client's two pipes and whoever answers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session = secrets.token_hex(8)
        self._conversation = _Conversation()
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._ended = False

    async def run(self) -> int:
        """Serves until the client is done."""
        loop = asyncio.get_running_loop()
        self._out = _Out()
        reading = threading.Thread(target=_read_input, args=(loop, self._incoming), daemon=True)
        reading.start()
        serving = asyncio.ensure_future(self._serve())
        leaving = asyncio.ensure_future(self._out.broken.wait())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, serving.cancel)
        await asyncio.wait({serving, leaving}, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        leaving.cancel()
        await asyncio.wait({serving, leaving})
        status: int = 0 if serving.cancelled() else serving.result()
        self._out.close()
        return status

    async def _serve(self) -> int:
        while (service := await self._reach()) is not None:
            if await self._go_on(service):
                return 0
            _say("the service has gone; going on without it")
        own = _Own(self._settings, self._session)
        try:
            await own.open()
        except UnifiedMemoryError as error:
            await self._refuse(error)
            return 1
        await self._go_on(own)
        return 0

    async def _go_on(self, backend: _Backend) -> bool:
        """Serves by this backend; False where it has gone before all was answered."""
        listening = asyncio.ensure_future(self._hand_back(backend))
        sending = asyncio.ensure_future(self._hand_over(backend))
        try:
            await asyncio.wait({listening, sending}, return_when=asyncio.FIRST_COMPLETED)
            if not listening.done():
                await listening
        finally:
            for task in (listening, sending):
                task.cancel()
            await asyncio.wait({listening, sending})
            await backend.close()
        listening.result()
        return self._ended and not self._conversation.owed

    async def _hand_over(self, backend: _Backend) -> None:
        try:
            for line in self._conversation.again():
                await backend.send(line)
            while not self._ended:
                taken = await self._incoming.get()
                if taken is None:
                    self._ended = True
                elif len(taken) > MAX_LINE:
                    self._out.write(_error(None, INVALID_REQUEST, f"A line is longer than {MAX_LINE} bytes"))
                else:
                    self._conversation.asked(taken)
                    await backend.send(taken)
            await backend.finish()
        except ConnectionError:
            # What was not taken is owed, and said again to the next.
            return

    async def _hand_back(self, backend: _Backend) -> None:
        async for line in backend.answers():
            if self._conversation.answered(line):
                self._out.write(line)

    async def _reach(self) -> _Service | None:
        """The service that runs on the data directory, None where none does."""
        directory = self._settings.database.parent
        try:
            with (directory / LOCK).open("rb") as lock:
                if _free(lock.fileno()):
                    return None
                address = read_address(lock.read())
            token = (directory / TOKEN).read_text()
        except (OSError, msgspec.DecodeError):
            return None
        if address.protocol != PROTOCOL:
            _say(f"the service is of version {address.version}, which speaks differently; opening the directory itself")
            return None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection("127.0.0.1", address.port, limit=2 * MAX_LINE)
                writer.write(msgspec.json.encode(Hello(token, self._session, self._settings.tools)) + b"\n")
                welcome = read_welcome(await reader.readline())
        except (OSError, TimeoutError, msgspec.DecodeError):
            return None
        if welcome.error:
            _say(f"the service does not let this process in ({welcome.error}); opening the directory itself")
            writer.close()
            return None
        return _Service(reader, writer)

    async def _refuse(self, error: UnifiedMemoryError) -> None:
        """Tells the client, and whoever reads the log, why nothing can be served."""
        _say(f"{error.detail} ({error.code})" + (f". {error.hint}" if error.hint else ""))
        while not self._conversation.owed and not self._ended:
            line = await self._incoming.get()
            if line is None:
                self._ended = True
            else:
                self._conversation.asked(line)
        for number in self._conversation.owed:
            self._out.write(_error(number, INTERNAL_ERROR, error.detail, {"code": error.code, **error.facts}))


def _error(number: Any, code: int, message: str, data: Any = None) -> bytes:
    told: dict[str, Any] = {"code": code, "message": message}
    if data is not None:
        told["data"] = data
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "error": told}) + b"\n"


def _free(lock: int) -> bool:
    """Whether nobody holds the lock: whoever wrote the file has gone."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(lock, fcntl.LOCK_UN)
    return True


def _read_input(loop: asyncio.AbstractEventLoop, lines: "asyncio.Queue[bytes | None]") -> None:
    """Reads standard input to its end, on a thread: it may be a pipe, a terminal or a file."""
    rest = b""
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits for more
        while part := os.read(0, READ_BYTES):
            *whole, last = part.split(b"\n")
            for line in whole:
                loop.call_soon_threadsafe(lines.put_nowait, rest + line + b"\n")
                rest = b""
            rest += last
        if rest:
            loop.call_soon_threadsafe(lines.put_nowait, rest + b"\n")
        loop.call_soon_threadsafe(lines.put_nowait, None)


class _Out:
    """Standard output, for our lines alone: whatever else writes to it in this process lands on standard error."""

    def __init__(self) -> None:
        self.broken = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._wire = os.dup(1)
        os.dup2(2, 1)
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        # On a thread: a client that does not read must not hold up the loop.
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def write(self, line: bytes) -> None:
        """Sends the line after all before it."""
        self._queue.put(line)

    def close(self) -> None:
        """Returns when everything is written, or cannot be."""
        self._queue.put(None)
        if not self.broken.is_set():
            self._thread.join()

    def _run(self) -> None:
        try:
            while (line := self._queue.get()) is not None:
                left = memoryview(line)
                while left:
                    left = left[os.write(self._wire, left) :]
        except OSError:
            # The client has closed its end.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.broken.set)
