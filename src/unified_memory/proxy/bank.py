"""The proxy on port 4002: the tools of the memory bank over MCP, by SSE and by streamable HTTP."""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs

from unified_memory.model.errors import TooLargeError, UnifiedMemoryError
from unified_memory.proxy.calls import Head, as_line, read_head, refusal
from unified_memory.proxy.gate import OURS, Ticket
from unified_memory.proxy.http import foreign
from unified_memory.proxy.links import SESSION
from unified_memory.proxy.talk import INITIALIZE, LISTEN, Desk, Talk
from unified_memory.rest.exchange import (
    EVENT_STREAM,
    JSON,
    Answer,
    Disconnected,
    Message,
    Receive,
    Scope,
    Send,
    Stream,
    read_body,
    send_answer,
    send_stream,
)

SSE, MESSAGES, MCP = "/sse", "/messages", "/mcp"
TEXT = (b"content-type", b"text/plain; charset=utf-8")
PING_SECONDS = 15.0
# Conversations over streamable HTTP whose client may come again: each may have a server of its own. Of more, those that were
# not used for longest are forgotten, which costs a handshake.
MAX_SESSIONS = 100
log = logging.getLogger("unified_memory.proxy")


class _Listener:
    """A client with its stream open: what it posts is answered there, in order."""

    def __init__(self, desk: Desk) -> None:
        self.posted: asyncio.Queue[bytes] = asyncio.Queue()
        self._said: asyncio.Queue[bytes] = asyncio.Queue()
        self._talk = desk.talk(self._said.put_nowait)
        self._serving = asyncio.create_task(self._serve(), name="proxy listener")

    async def _serve(self) -> None:
        while True:
            (await self._talk.begin(await self.posted.get())).add_done_callback(self._answered)

    def _answered(self, task: "asyncio.Task[bytes | None]") -> None:
        if not task.cancelled() and (answer := task.result()) is not None:
            self._said.put_nowait(answer)

    async def events(self, target: str) -> AsyncIterator[bytes]:
        """The stream: first where to post to."""
        yield b"event: endpoint\r\ndata: %b\r\n\r\n" % target.encode()
        while True:
            try:
                message = await asyncio.wait_for(self._said.get(), PING_SECONDS)
            except TimeoutError:
                # So that nobody between takes the connection for a dead one.
                yield b": ping\r\n\r\n"
            else:
                yield b"event: message\r\ndata: %b\r\n\r\n" % as_line(message)

    async def close(self) -> None:
        self._serving.cancel()
        await asyncio.wait({self._serving})
        await self._talk.close()


class BankProxy:
    """An ASGI application. `local`: only this machine reaches it, so Host and Origin must name it."""

    def __init__(self, desk: Desk, *, max_body: int, local: bool) -> None:
        self._desk = desk
        self._max_body = max_body
        self._local = local
        self._listeners: dict[str, _Listener] = {}
        self._sessions: dict[str, Talk] = {}
        self._ending = asyncio.Event()

    async def start(self) -> None:
        """Opens what it stands on. Raises StorageError and below."""
        await self._desk.open()

    def end_streams(self) -> None:
        """Ends the streams, which would never end by themselves."""
        self._ending.set()
        self._desk.endpoint.end_streams()

    async def stop(self) -> None:
        """Ends the conversations, and closes."""
        for talk in self._sessions.values():
            await talk.close()
        await self._desk.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            raise TypeError(scope["type"])
        if self._local and foreign(scope):
            await send_answer(send, _text(403, "This service is for programs of this machine"))
            return
        path = scope["path"].rstrip("/")
        allowed = {SSE: ("GET",), MESSAGES: ("POST",), MCP: ("GET", "POST", "DELETE")}.get(path)
        if allowed is None:
            await send_answer(send, _text(404, f"Not found; there are {SSE} and {MCP}"))
        elif scope["method"] not in allowed:
            await send_answer(send, _not_allowed(", ".join(allowed)))
        elif path == SSE:
            await self._listen(receive, send)
        elif path == MESSAGES:
            await self._post(scope, receive, send)
        else:
            await self._mcp(scope, receive, send)

    # ---- SSE, as the revision 2024-11-05 has it
    async def _listen(self, receive: Receive, send: Send) -> None:
        name = secrets.token_hex(16)
        listener = self._listeners[name] = _Listener(self._desk)
        stream = Stream(listener.events(f"{MESSAGES}/?session_id={name}"), EVENT_STREAM, endless=True)
        try:
            await send_stream(send, receive, stream, None, self._ending)
        finally:
            del self._listeners[name]
            await listener.close()

    async def _post(self, scope: Scope, receive: Receive, send: Send) -> None:
        named = parse_qs(scope["query_string"].decode("latin-1")).get("session_id")
        listener = self._listeners.get(named[0]) if named else None
        if listener is None:
            await send_answer(send, _text(404 if named else 400, "Could not find session"))
            return
        body = await self._body(scope, receive, send)
        if body is None:
            return
        if not read_head(body).told:
            await send_answer(send, _text(400, "Could not parse message"))
            return
        # Taken before the client hears of it, so that what it posts next comes after.
        listener.posted.put_nowait(body)
        await send_answer(send, _text(202, "Accepted"))

    # ---- streamable HTTP
    async def _mcp(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Ours is answered by our own server; what the older one answers is one conversation, whose session we name."""
        session = next((value.decode("latin-1") for name, value in scope["headers"] if name == SESSION.encode()), None)
        if scope["method"] == "DELETE" and session in self._sessions:
            await self._sessions.pop(session).close()
            await send_answer(send, Answer(b"", 200, ()))
        elif scope["method"] != "POST":
            await self._other(scope, receive, send)
        elif (body := await self._body(scope, receive, send)) is not None:
            await self._message(scope, receive, send, body, session)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            ours = await self._desk.stand.manager.phase() in OURS
        except UnifiedMemoryError as error:
            await send_answer(send, _text(503, error.detail))
            return
        if ours:
            await self._desk.endpoint({**scope, "path": MCP}, receive, send)
        else:
            await send_answer(send, _not_allowed("POST"))

    async def _message(self, scope: Scope, receive: Receive, send: Send, body: bytes, session: str | None) -> None:
        head = read_head(body)
        if session is not None and (talk := self._sessions.pop(session, None)) is not None:
            # Those that were used last stand last.
            self._sessions[session] = talk
            await send_answer(send, _said(await (await talk.begin(body))))
            return
        try:
            ticket = await self._desk.stand.gate.let_in()
        except UnifiedMemoryError as error:
            await send_answer(send, Answer(refusal(head, error), 200, (JSON,)))
            return
        if ticket.phase in OURS and head.method == LISTEN:
            # It goes on until the client leaves; nothing has to wait for that.
            ticket.leave()
            await self._desk.endpoint({**scope, "path": MCP}, _received(body, receive), send)
            return
        if ticket.phase in OURS:
            await self._by_ours(ticket, head, scope, body, send)
            return
        ticket.leave()
        if not head.told:
            await send_answer(send, _text(400, "Could not parse message"))
        elif head.method == INITIALIZE:
            name = secrets.token_hex(16)
            talk = self._desk.talk(_unheard)
            told = _said(await (await talk.begin(body)))
            await self._keep(name, talk)
            headers = (*told.headers, (SESSION.encode(), name.encode()))
            await send_answer(send, Answer(told.body, told.status, headers))
        else:
            # One that was greeted by another process of ours, or by nobody.
            talk = self._desk.talk(_unheard, greets=True)
            try:
                told = _said(await (await talk.begin(body)))
            finally:
                await talk.close()
            await send_answer(send, told)

    async def _by_ours(self, ticket: Ticket, head: Head, scope: Scope, body: bytes, send: Send) -> None:
        """The request is over when all of its answer is there, however slowly the client reads it."""
        messages: asyncio.Queue[Message | None] = asyncio.Queue()

        async def tell() -> None:
            while (message := await messages.get()) is not None:
                await send(message)

        telling = asyncio.create_task(tell(), name="proxy telling")
        try:
            try:
                await self._desk.endpoint({**scope, "path": MCP}, _received(body), messages.put)
                if head.writes:
                    self._desk.stand.carry_back(ticket.phase)
            finally:
                ticket.leave()
            messages.put_nowait(None)
            await telling
        finally:
            telling.cancel()

    async def _keep(self, name: str, talk: Talk) -> None:
        self._sessions[name] = talk
        while len(self._sessions) > MAX_SESSIONS:
            idle = next((known for known, one in self._sessions.items() if one.idle), name)
            if idle == name:
                break
            await self._sessions.pop(idle).close()

    async def _body(self, scope: Scope, receive: Receive, send: Send) -> bytes | None:
        """The body; None where it is not there, or too large, which is answered."""
        try:
            return await read_body(scope, receive, self._max_body)
        except TooLargeError as error:
            await send_answer(send, _text(413, error.detail))
        except Disconnected:
            pass
        return None


def _received(body: bytes, then: Receive | None = None) -> Receive:
    """A body that was read, to be read again, and what comes after it; None: its client stays."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if messages:
            return messages.pop()
        if then is not None:
            return await then()
        await asyncio.Event().wait()
        raise EOFError

    return receive


def _unheard(message: bytes) -> None:
    log.debug("Nobody listens to a message of %d bytes", len(message))


def _said(answer: bytes | None) -> Answer:
    return Answer(b"", 202, ()) if answer is None else Answer(answer, 200, (JSON,))


def _text(status: int, words: str) -> Answer:
    return Answer(words.encode(), status, (TEXT,))


def _not_allowed(methods: str) -> Answer:
    told: Any = {"detail": "Method Not Allowed"}
    return Answer(json.dumps(told).encode(), 405, (JSON, (b"allow", methods.encode())))
