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
import secrets
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec
from msgspec import UNSET, Struct, UnsetType

from unified_memory.mcp.greeting import LOCK, MAX_LINE, PROTOCOL, TOKEN, Hello, read_address, read_welcome
from unified_memory.mcp.pipes import Out, read_lines
from unified_memory.model.errors import UnifiedMemoryError
from unified_memory.settings import Settings, load

CONNECT_SECONDS = 2.0
# How long a client that has sent a signal is given to read what is answered already.
LAST_WORDS_SECONDS = 1.0
INTERNAL_ERROR = -32603
INVALID_REQUEST = -32600


def main(arguments: Sequence[str]) -> int:
    """`unified-memory mcp`: serves until standard input ends. The exit status."""
    parser = argparse.ArgumentParser(prog="unified-memory mcp", add_help=False, allow_abbrev=False)
    parser.add_argument("--tools")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--sqlite-path", type=Path)
    _fill_descriptors()
    given = parser.parse_args(arguments)
    try:
        settings = load(**vars(given))
    except UnifiedMemoryError as error:
        _say(error.detail)
        return 2
    return asyncio.run(_Front(settings).run())


def _say(words: str) -> None:
    # A client may have closed standard error: that is no reason to end.
    with contextlib.suppress(OSError):
        os.write(2, f"unified-memory mcp: {words}\n".encode(errors="replace"))


def _fill_descriptors() -> None:
    """Opens what the client has closed of the three pipes, so that no file of ours is taken for one of them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


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
    except (ValueError, RecursionError):
        # Whoever serves the line answers what is wrong with it.
        return None


class _Conversation:
    """What has been said and not been answered: what another backend has to be told to go on."""

    def __init__(self) -> None:
        self._handshake: dict[str, bytes] = {}
        self._subscribed: dict[str, bytes] = {}
        # By the id, as a client may use one twice: the lines in their order.
        self._owed: dict[str, list[bytes]] = {}
        self._silent: set[str] = set()
        self._number = 0

    def asked(self, line: bytes) -> bytes:
        """The client has sent this line; as a backend is told it, with its number in the conversation before it."""
        self._number += 1
        head = _read_head(line)
        line = b"%d %b" % (self._number, line)
        if head is None or head.method is UNSET:
            return line
        if head.method in {"initialize", "notifications/initialized"}:
            self._handshake[head.method] = line
        with contextlib.suppress(msgspec.DecodeError):
            if head.method == "notifications/cancelled" and head.params is not UNSET:
                number = msgspec.json.decode(head.params, type=_Cancelled).request_id
                # The SDK takes "7" for 7 here.
                for name in {_name(number), _name(str(number)), str(number)}:
                    self._owed.pop(name, None)
            elif head.method == "resources/subscribe" and head.params is not UNSET:
                self._subscribed[msgspec.json.decode(head.params, type=_Uri).uri] = line
            elif head.method == "resources/unsubscribe" and head.params is not UNSET:
                self._subscribed.pop(msgspec.json.decode(head.params, type=_Uri).uri, None)
        if isinstance(head.id, str | int) and not isinstance(head.id, bool):
            # Any other id is answered without it.
            self._owed.setdefault(_name(head.id), []).append(line)
        return line

    def answered(self, line: bytes) -> bool:
        """The backend has sent this line; whether the client is to see it."""
        head = _read_head(line)
        if head is None or head.method is not UNSET or head.id is UNSET:
            return True
        name = _name(head.id)
        if name in self._silent:
            self._silent.discard(name)
            return False
        if name in self._owed:
            self._settle(name)
        return True

    def _settle(self, name: str) -> None:
        del self._owed[name][0]
        if not self._owed[name]:
            del self._owed[name]

    def again(self) -> list[bytes]:
        """What to tell a new backend; the answers to what was answered already are kept from the client."""
        said = [*self._handshake.values(), *self._subscribed.values()]
        owed = sorted((line for lines in self._owed.values() for line in lines), key=_number_of)
        waiting = set(owed)
        self._silent = {
            _name(head.id)
            for line in said
            if line not in waiting
            and (head := _read_head(line.partition(b" ")[2])) is not None
            and head.id is not UNSET
        }
        return [*said, *(line for line in owed if line not in said)]

    @property
    def owed(self) -> list[Any]:
        """The ids of what waits for an answer."""
        return [json.loads(name) for name, lines in self._owed.items() for _ in lines]


def _name(number: Any) -> str:
    return json.dumps(number)


def _number_of(line: bytes) -> int:
    return int(line.partition(b" ")[0])


class _Backend(Protocol):
    """Who answers."""

    async def send(self, line: bytes) -> None:
        """Takes a line of the client, with its number before it. Raises ConnectionError where nobody does."""
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
            self._service,
            cleanup_seconds=settings.ttl_cleanup_interval,
            flush_seconds=settings.access_flush_interval,
            tiering_seconds=settings.tiering_interval,
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
            ended = not self._task.cancel()
            await asyncio.wait([self._task])
            await self._worker.stop()
            await self._endpoint.stop()
            await self._service.close()
            if ended:
                self._task.result()
            elif not self._task.cancelled():
                # Whatever the SDK makes of being ended in the middle of its work.
                self._task.exception()


class _Front:
    """Between the client's two pipes and whoever answers."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._session = secrets.token_hex(8)
        self._conversation = _Conversation()
        self._incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._ended = False
        self._stopped = asyncio.Event()

    async def run(self) -> int:
        """Serves until the client is done."""
        loop = asyncio.get_running_loop()
        self._out = Out()
        read_lines(self._incoming)
        serving = asyncio.ensure_future(self._serve())
        written = asyncio.ensure_future(self._out.ended.wait())
        stopped = asyncio.ensure_future(self._stopped.wait())
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopped.set)
        await asyncio.wait({serving, written, stopped}, return_when=asyncio.FIRST_COMPLETED)
        serving.cancel()
        await asyncio.wait({serving})
        self._out.finish()
        await asyncio.wait({written, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not written.done():
            # It was told to stop, perhaps because the client does not read.
            await asyncio.wait({written}, timeout=LAST_WORDS_SECONDS)
        for task in (written, stopped):
            task.cancel()
        return 0 if serving.cancelled() else serving.result()

    async def _serve(self) -> int:
        # When the client has said all, what a service could not answer is asked once more and not for ever.
        while not self._ended and (service := await self._reach()) is not None:
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
                    await backend.send(self._conversation.asked(taken))
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
        if address.protocol == PROTOCOL and address.database != self._settings.database.name:
            return None
        if address.protocol != PROTOCOL:
            _say(f"the service is of version {address.version}, which speaks differently; opening the directory itself")
            return None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection("127.0.0.1", address.port, limit=2 * MAX_LINE)
        except (OSError, TimeoutError):
            return None
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                writer.write(msgspec.json.encode(Hello(token, self._session, self._settings.tools)) + b"\n")
                welcome = read_welcome(await reader.readline())
        except (OSError, TimeoutError, ValueError):
            # ValueError: whatever listens there now, it is no service of ours.
            writer.close()
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
        while not self._incoming.empty() and (line := self._incoming.get_nowait()) is not None:
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
