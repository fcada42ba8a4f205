"""Conversations with a server of MCP, message by message: a program, an older server over HTTP, or ours."""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Protocol
from urllib.parse import urljoin

import httpx2

from unified_memory.mcp.endpoint import MCPEndpoint
from unified_memory.mcp.greeting import MAX_LINE
from unified_memory.model.errors import SourceUnavailableError
from unified_memory.proxy.calls import as_line, read_head
from unified_memory.proxy.forward import CONNECT_SECONDS, KIND, LostAnswerError

# How long a program is given to end when it is told nothing more, and how long a server over HTTP to say where to write to.
END_SECONDS = 5.0
GREETING_SECONDS = 30.0
SESSION = "mcp-session-id"
BAD_REQUEST, SERVER_ERROR = 400, 500
log = logging.getLogger("unified_memory.proxy")

Hear = Callable[[bytes], None]
Lose = Callable[[str], None]


class Link(Protocol):
    """One conversation. What the server says is heard, and so is that it has gone, once."""

    async def send(self, message: bytes) -> None:
        """Says it. Raises SourceUnavailableError where nobody has heard it, LostAnswerError where that is not known."""
        ...

    async def close(self) -> None:
        """Ends the conversation; nothing is heard any more."""
        ...


# Begins a conversation. Raises SourceUnavailableError where nobody is there.
Connect = Callable[[Hear, Lose], Awaitable[Link]]


class Child:
    """A program that speaks a message a line, and its standard error ours."""

    def __init__(self, process: asyncio.subprocess.Process, command: str, hear: Hear, lose: Lose) -> None:
        self._process = process
        self._command = command
        self._hear = hear
        self._lose = lose
        self._reading = asyncio.create_task(self._read(), name="proxy child")

    @staticmethod
    def by(command: Sequence[str], environment: Mapping[str, str] | None = None) -> Connect:
        """Starts the command for each conversation, in that environment (None: ours)."""

        async def connect(hear: Hear, lose: Lose) -> Link:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=asyncio.subprocess.PIPE,
                    env=environment,
                    limit=2 * MAX_LINE,
                )
            except OSError as error:
                raise SourceUnavailableError(
                    KIND, command[0], f"The older server {command[0]} cannot be started: {error.strerror or error}"
                ) from None
            return Child(process, command[0], hear, lose)

        return connect

    async def send(self, message: bytes) -> None:
        """See `Link`."""
        stdin, ended = self._process.stdin, f"The older server {self._command} has ended"
        if stdin is None or stdin.is_closing():
            raise SourceUnavailableError(KIND, self._command, ended)
        stdin.write(as_line(message) + b"\n")
        if stdin.is_closing():
            # The pipe was closed already: no whole line has reached anybody.
            raise SourceUnavailableError(KIND, self._command, ended)
        try:
            await stdin.drain()
        except ConnectionError:
            raise LostAnswerError(KIND, self._command, ended) from None

    async def _read(self) -> None:
        stdout = self._process.stdout
        with contextlib.suppress(ValueError):
            # A line beyond all bounds: whoever says that cannot be followed.
            while stdout is not None and (line := await stdout.readline()):
                self._hear(line.rstrip(b"\r\n"))
        if self._process.returncode is None and stdout is not None and not stdout.at_eof():
            self._process.kill()
        try:
            async with asyncio.timeout(END_SECONDS):
                status = await self._process.wait()
        except TimeoutError:
            # It has closed its output and goes on: it will answer nothing any more.
            self._process.kill()
            status = await self._process.wait()
        self._lose(f"The older server {self._command} has ended with {status}")

    async def close(self) -> None:
        """See `Link`."""
        self._hear = self._lose = _nothing
        process = self._process
        if process.stdin is not None:
            process.stdin.close()
        for end in (None, process.terminate, process.kill):
            if end is not None:
                end()
            await asyncio.wait({self._reading}, timeout=END_SECONDS)
            if self._reading.done():
                break


def _nothing(_: object) -> None:
    """Nobody listens any more."""


async def events(parts: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, bytes]]:
    """The events of a text/event-stream as (name, data); see the HTML standard, 9.2."""
    name, data, rest = "message", list[bytes](), b""
    async for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        for raw in lines:
            line = raw.removesuffix(b"\r")
            if not line:
                if data:
                    yield name, b"\n".join(data)
                name, data = "message", []
                continue
            field, _, value = line.partition(b":")
            value = value.removeprefix(b" ")
            if field == b"event":
                name = value.decode(errors="replace")
            elif field == b"data":
                data.append(value)


def _client() -> httpx2.AsyncClient:
    """Answers may take any time, and what is asked is never lost with a connection that the other end has closed meanwhile."""
    return httpx2.AsyncClient(
        trust_env=False,
        timeout=httpx2.Timeout(None, connect=CONNECT_SECONDS),
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
    )


class Events:
    """A server of MCP by SSE, as the revision 2024-11-05 has it: it speaks in a stream, and is written to by POST."""

    def __init__(self, url: str, hear: Hear, lose: Lose) -> None:
        self._url = url
        self._hear = hear
        self._lose = lose
        self._client = _client()
        self._target: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._reading = asyncio.create_task(self._read(), name="proxy events")

    @staticmethod
    def by(url: str) -> Connect:
        """Opens the stream at the URL for each conversation."""

        async def connect(hear: Hear, lose: Lose) -> Link:
            link = Events(url, hear, lose)
            await link.ready()
            return link

        return connect

    async def ready(self) -> None:
        """Waits until it has said where to write to. Raises SourceUnavailableError where it does not."""
        try:
            async with asyncio.timeout(GREETING_SECONDS):
                await asyncio.shield(self._target)
        except (ConnectionError, TimeoutError) as error:
            await self.close()
            detail = f"The older server at {self._url} cannot be reached: {str(error) or 'it does not say where to write to'}"
            raise SourceUnavailableError(KIND, self._url, detail) from None

    async def _read(self) -> None:
        try:
            async with self._client.stream("GET", self._url, headers={"accept": "text/event-stream"}) as answer:
                answer.raise_for_status()
                async for name, data in events(answer.aiter_raw()):
                    if name == "endpoint" and not self._target.done():
                        self._target.set_result(urljoin(self._url, data.decode()))
                    elif name == "message":
                        self._hear(data)
                why = "it has ended its stream"
        except httpx2.HTTPError as error:
            why = str(error) or type(error).__name__
        if not self._target.done():
            self._target.set_exception(ConnectionError(why))
        self._lose(f"The older server at {self._url} has gone: {why}")

    async def send(self, message: bytes) -> None:
        """See `Link`."""
        try:
            headers = {"content-type": "application/json"}
            answer = await self._client.post(await self._target, content=message, headers=headers)
        except (httpx2.HTTPError, ConnectionError) as error:
            raise LostAnswerError(KIND, self._url, f"The older server at {self._url} has gone: {error}") from None
        if answer.status_code >= BAD_REQUEST:
            raise _refused(self._url, answer.status_code)

    async def close(self) -> None:
        """See `Link`."""
        self._hear = self._lose = _nothing
        self._reading.cancel()
        await asyncio.wait({self._reading})
        if self._target.done() and not self._target.cancelled():
            # Said already, where somebody asked.
            self._target.exception()
        await self._client.aclose()


def _refused(url: str, status: int) -> SourceUnavailableError:
    """Of what was refused nothing was done; a server that has failed may have done it."""
    kind = LostAnswerError if status >= SERVER_ERROR else SourceUnavailableError
    return kind(KIND, url, f"The older server at {url} does not take the message: {status}")


class Posts:
    """A server of MCP by streamable HTTP: each message is a POST, whose answer is a message or a stream of them."""

    def __init__(self, url: str, hear: Hear, lose: Lose) -> None:
        self._url = url
        self._hear = hear
        self._lose = lose
        self._session: str | None = None
        self._asking: set[asyncio.Task[None]] = set()
        self._client = _client()

    @staticmethod
    def by(url: str) -> Connect:
        """A conversation with the server at the URL; whether it is there shows with the first message."""

        async def connect(hear: Hear, lose: Lose) -> Link:
            return Posts(url, hear, lose)

        return connect

    async def send(self, message: bytes) -> None:
        """See `Link`."""
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        if self._session is not None:
            headers[SESSION] = self._session
        request = self._client.build_request("POST", self._url, content=message, headers=headers)
        try:
            answer = await self._client.send(request, stream=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            detail = f"The older server at {self._url} cannot be reached: {error}"
            raise SourceUnavailableError(KIND, self._url, detail) from None
        except httpx2.TransportError as error:
            raise LostAnswerError(KIND, self._url, f"The older server at {self._url} has gone: {error}") from None
        self._session = answer.headers.get(SESSION, self._session)
        head = read_head(message)
        owed = None if head.method is None else head.name
        if answer.status_code >= BAD_REQUEST:
            await self._hear_refusal(answer, owed)
            return
        task = asyncio.create_task(self._read(answer, owed), name="proxy answer")
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    async def _hear_refusal(self, answer: httpx2.Response, owed: str | None) -> None:
        """Raises SourceUnavailableError where the message was refused by other words than an answer to it."""
        try:
            content = await answer.aread()
        except httpx2.TransportError:
            content = b""
        finally:
            await answer.aclose()
        if owed is None or read_head(content).name != owed:
            raise _refused(self._url, answer.status_code)
        self._hear(content)

    async def _read(self, answer: httpx2.Response, owed: str | None) -> None:
        why = "has ended its answer before it was whole"
        try:
            async for data in self._messages(answer):
                head = read_head(data)
                if head.told:
                    self._hear(data)
                if head.is_answer and head.name == owed:
                    owed = None
        except httpx2.TransportError as error:
            why = f"broke off: {error}"
        finally:
            await answer.aclose()
        if owed is not None:
            self._lose(f"The older server at {self._url} {why}")

    async def _messages(self, answer: httpx2.Response) -> AsyncIterator[bytes]:
        if answer.headers.get("content-type", "").startswith("text/event-stream"):
            async for _, data in events(answer.aiter_bytes()):
                yield data
        elif content := await answer.aread():
            yield content

    async def close(self) -> None:
        """See `Link`."""
        self._hear = self._lose = _nothing
        for task in list(self._asking):
            task.cancel()
        if self._asking:
            await asyncio.wait(self._asking)
        if self._session is not None:
            with contextlib.suppress(httpx2.HTTPError):
                await self._client.delete(self._url, headers={SESSION: self._session}, timeout=END_SECONDS)
        await self._client.aclose()


class Ours:
    """Our own server, in this process."""

    def __init__(self, endpoint: MCPEndpoint, profile: str, hear: Hear, lose: Lose) -> None:
        self._hear = hear
        self._lose = lose
        self._number = 0
        self._lines: asyncio.Queue[bytes | None] = asyncio.Queue()
        serving = endpoint.connection(profile, secrets.token_hex(8), self._incoming(), self._write)
        self._serving = asyncio.create_task(serving, name="proxy ours")
        self._serving.add_done_callback(self._ended)

    @staticmethod
    def by(endpoint: MCPEndpoint, profile: str) -> Connect:
        """A conversation with that set of tools."""

        async def connect(hear: Hear, lose: Lose) -> Link:
            return Ours(endpoint, profile, hear, lose)

        return connect

    async def _incoming(self) -> AsyncIterator[bytes]:
        while (line := await self._lines.get()) is not None:
            yield line

    async def _write(self, line: bytes) -> None:
        self._hear(line.rstrip(b"\n"))

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("Our own server has ended", exc_info=error)
        self._lose("Our own server has ended")

    async def send(self, message: bytes) -> None:
        """See `Link`."""
        self._number += 1
        self._lines.put_nowait(b"%d %b\n" % (self._number, as_line(message)))

    async def close(self) -> None:
        """See `Link`."""
        self._hear = self._lose = _nothing
        self._lines.put_nowait(None)
        await asyncio.wait({self._serving}, timeout=END_SECONDS)
        if not self._serving.done():
            self._serving.cancel()
            await asyncio.wait({self._serving})
