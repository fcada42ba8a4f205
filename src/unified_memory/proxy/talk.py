"""A client's conversation over MCP, whoever answers it: when that changes, the client notices nothing."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from typing import Any

from unified_memory import __version__
from unified_memory.mcp.endpoint import MCPEndpoint
from unified_memory.mcp.profiles import profile
from unified_memory.mcp.tool import Call, Profile, ProtocolError, call_tool
from unified_memory.model.errors import SourceUnavailableError, UnifiedMemoryError
from unified_memory.model.principal import ANONYMOUS
from unified_memory.proxy.calls import (
    FORGET,
    READS,
    UPDATE,
    WRITE,
    Head,
    comparable,
    place_written,
    read_head,
    reading_of,
    refusal,
    told_by,
    version_of,
    with_version,
    written_answer,
)
from unified_memory.proxy.forward import KIND, LostAnswerError
from unified_memory.proxy.gate import OURS, Ticket
from unified_memory.proxy.links import Connect, Link, Ours
from unified_memory.proxy.stand import Place, Stand
from unified_memory.sources.ledger import Phase

# How long the answer to a request that the client no longer wants is waited for.
CANCELLED_SECONDS = 5.0
# How long a server that is begun in the middle of a conversation may take to be there.
GREETING_SECONDS = 60.0
# How many requests of a client may wait for their answers; more are not taken meanwhile.
MAX_UNDER_WAY = 1000
# What a server is told first where the client has told nothing of itself.
NAME = "unified-memory"
FIRST_VERSION = "2024-11-05"
MODERN = "io.modelcontextprotocol/protocolVersion"
NO_OLDER = "The memories have not moved here, and --older does not say where the older server is"
# Goes on until the client ends it.
LISTEN = "subscriptions/listen"
DISCOVER = "server/discover"
INITIALIZE, INITIALIZED, CANCELLED = "initialize", "notifications/initialized", "notifications/cancelled"
log = logging.getLogger("unified_memory.proxy")

Unasked = Callable[[bytes], None]


class Handshake:
    """What the client and the first server said to each other, to be said again to others."""

    def __init__(self) -> None:
        self.initialize: bytes | None = None
        self.version: str | None = None

    def again(self) -> bytes:
        """The greeting for another server, with an id of its own."""
        if self.initialize is None:
            params = {
                "protocolVersion": FIRST_VERSION,
                "capabilities": {},
                "clientInfo": {"name": NAME, "version": __version__},
            }
            return json.dumps({"jsonrpc": "2.0", "id": "proxy", "method": INITIALIZE, "params": params}).encode()
        return with_version(self.initialize, self.version)


class Peer:
    """A server as one client's conversation sees it: begun when it is needed, and again where it has gone.

    `greets`: it is greeted also where the client has greeted nobody. `modern`: it need not be where the client speaks as those do
    that greet nobody.
    """

    def __init__(
        self, connect: Connect, handshake: Handshake, unasked: Unasked, *, greets: bool, modern: bool = False
    ) -> None:
        self._connect = connect
        self._handshake = handshake
        self._unasked = unasked
        self._greets = greets
        self._modern = modern
        self._link: Link | None = None
        self._greeted = False
        self._by_us = False
        # How many were begun or ended, so that nothing is heard of a former one; whether this one is not the first.
        self._begun = 0
        self._again = False
        self._turn = asyncio.Lock()
        self._owed: dict[str, list[asyncio.Future[bytes | None]]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def ask(self, head: Head, message: bytes) -> "asyncio.Future[bytes | None]":
        """Says a request; its answer when it comes, None where the client has withdrawn it.

        Raises SourceUnavailableError where nobody is there; the future raises it too where nobody has heard the request, and
        LostAnswerError where that is not known.
        """
        async with self._turn:
            link = await self._ready(head)
            return await self._ask(link, head.name or "", message)

    async def tell(self, head: Head, message: bytes) -> None:
        """Says what is not answered. Raises SourceUnavailableError."""
        async with self._turn:
            link = await self._ready(head)
            if not (head.method == INITIALIZED and self._by_us):
                await link.send(message)

    def withdraw(self, name: str) -> None:
        """Nobody waits for that answer any more."""
        for future in self._owed.pop(name, []):
            if not future.done():
                future.set_result(None)

    async def close(self) -> None:
        """Ends the conversation; another one may be begun."""
        async with self._turn:
            self._begun += 1
            self._drop()
            if self._closing:
                await asyncio.wait(self._closing)
            # Only now nothing is done any more of what is not answered.
            self._fail("The conversation has ended")

    def _drop(self) -> None:
        """This conversation cannot go on; whoever asks next begins anew."""
        link, self._link = self._link, None
        if link is not None:
            closing = asyncio.create_task(link.close(), name="proxy close")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _ready(self, head: Head) -> Link:
        if self._link is None:
            # What the one before still owed will not come.
            self._fail("The conversation has ended")
            self._again = self._begun > 0
            self._begun += 1
            number = self._begun
            self._greeted = self._by_us = False
            self._link = await self._connect(
                lambda message: self._heard(number, message), lambda why: self._lost(number, why)
            )
        link = self._link
        if head.method == INITIALIZE:
            self._greeted, self._by_us = True, False
        elif not self._greeted and self._must_greet(head):
            self._greeted = self._by_us = True
            await self._greet(link)
        return link

    def _must_greet(self, head: Head) -> bool:
        if self._handshake.initialize is not None:
            return True
        params = head.told.get("params")
        meta = params.get("_meta") if isinstance(params, dict) else None
        if head.method == DISCOVER:
            return False
        # One that speaks as newer clients do greets nobody; it may have begun with ours.
        modern = isinstance(meta, dict) and MODERN in meta
        return not self._modern if modern else self._greets

    async def _greet(self, link: Link) -> None:
        message = self._handshake.again()
        name = read_head(message).name or ""
        answer = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(GREETING_SECONDS):
                answer = await (await self._ask(link, name, message))
        if answer is None or "error" in read_head(answer).told:
            self.withdraw(name)
            self._drop()
            raise SourceUnavailableError(KIND, "", "The server does not take the handshake")
        await link.send(json.dumps({"jsonrpc": "2.0", "method": INITIALIZED}).encode())

    async def _ask(self, link: Link, name: str, message: bytes) -> "asyncio.Future[bytes | None]":
        future: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self._owed.setdefault(name, []).append(future)
        try:
            await link.send(message)
        except SourceUnavailableError as error:
            if future in self._owed.get(name, []):
                self._owed[name].remove(future)
            if not future.done():
                future.set_exception(error)
            self._drop()
        return future

    def _heard(self, number: int, message: bytes) -> None:
        if number != self._begun or not message:
            return
        head = read_head(message)
        waiting = self._owed.get(head.name) if head.is_answer and head.name is not None else None
        if waiting:
            future = waiting.pop(0)
            if not future.done():
                future.set_result(message)
        elif head.told or not self._again:
            # What a program says that was started again, and is no message, the client has seen the first time.
            self._unasked(message)

    def _lost(self, number: int, why: str) -> None:
        if number == self._begun:
            self._drop()
            self._fail(why)

    def _fail(self, why: str) -> None:
        owed, self._owed = self._owed, {}
        for future in (future for futures in owed.values() for future in futures):
            if not future.done():
                future.set_exception(LostAnswerError(KIND, "", why))


class Talk:
    """A conversation. `older`: how to reach the older server, None where there is none. `unasked`: takes what a server says by
    itself. `greets`: the client may have greeted nobody.
    """

    def __init__(
        self,
        stand: Stand,
        tools: Profile,
        *,
        ours: Connect,
        older: Connect | None,
        unasked: Unasked,
        greets: bool = False,
    ) -> None:
        self._stand = stand
        self._profile = tools
        self._handshake = Handshake()
        self._ours = Peer(ours, self._handshake, unasked, greets=True, modern=True)
        self._older = None if older is None else Peer(older, self._handshake, unasked, greets=greets)
        self._under_way: set[asyncio.Task[bytes | None]] = set()
        self._older_open = False
        self._closing: set[asyncio.Task[None]] = set()
        self._ended = False
        self._beginning = 0

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._under_way and self._beginning == 0

    async def begin(self, message: bytes) -> "asyncio.Task[bytes | None]":
        """Takes the client's next message, after the ones before it; gives the task that ends with the answer to it, None where
        none is owed. Never raises: what fails is the answer.
        """
        self._beginning += 1
        try:
            return await self._begin(message)
        finally:
            self._beginning -= 1

    async def _begin(self, message: bytes) -> "asyncio.Task[bytes | None]":
        head = read_head(message)
        since = asyncio.get_running_loop().time()
        while len(self._under_way) >= MAX_UNDER_WAY:
            await asyncio.wait(self._under_way, return_when=asyncio.FIRST_COMPLETED)
        try:
            ticket = await self._stand.gate.let_in(since=since)
        except UnifiedMemoryError as error:
            return self._task(_said(refusal(head, error) if head.method is not None and head.name else None))
        try:
            future = await self._said(ticket, head, message)
        except UnifiedMemoryError as error:
            ticket.leave()
            return self._task(_said(refusal(head, error) if head.method is not None and head.name else None))
        except BaseException:
            ticket.leave()
            raise
        if future is None:
            ticket.leave()
            return self._task(_said(None))
        return self._task(self._answered(ticket, head, message, future))

    async def finish(self, seconds: float) -> None:
        """Waits for the answers that are still owed, so long at most."""
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=seconds)
        # Whoever waits for the last of them is told first.
        await asyncio.sleep(0)

    async def close(self) -> None:
        """Ends the conversation with both servers."""
        self._ended = True
        for peer in (self._older, self._ours):
            if peer is not None:
                await peer.close()
        if self._under_way:
            await asyncio.wait(self._under_way)
        if self._closing:
            await asyncio.wait(self._closing)

    def _task(self, work: Any) -> "asyncio.Task[bytes | None]":
        task: asyncio.Task[bytes | None] = asyncio.create_task(work, name="proxy call")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return task

    async def _said(self, ticket: Ticket, head: Head, message: bytes) -> "asyncio.Future[bytes | None] | None":
        """Hands the message to whoever answers in this phase. None: no answer is owed that could be told from others."""
        peer = await self._peer(ticket.phase)
        if head.method == INITIALIZE:
            self._handshake.initialize = message
        if head.method is None or head.name is None:
            if head.method == CANCELLED:
                self._cancelled(peer, head)
            await peer.tell(head, message)
            return None
        return await peer.ask(head, message)

    async def _peer(self, phase: Phase) -> Peer:
        if phase in OURS:
            if self._older is not None and self._older_open:
                # It is written by others from now on; when it is needed again it begins with what is there then.
                self._older_open = False
                closing = asyncio.create_task(self._older.close(), name="proxy close")
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)
            return self._ours
        if self._older is None:
            raise SourceUnavailableError(KIND, "", NO_OLDER)
        self._older_open = True
        return self._older

    def _cancelled(self, peer: Peer, head: Head) -> None:
        params = head.told.get("params")
        number = params.get("requestId") if isinstance(params, dict) else None
        # It may be answered all the same, as far as it was done.
        asyncio.get_running_loop().call_later(CANCELLED_SECONDS, peer.withdraw, json.dumps(number))

    async def _answered(
        self, ticket: Ticket, head: Head, message: bytes, future: "asyncio.Future[bytes | None]"
    ) -> bytes | None:
        phase = ticket.phase
        if head.method == LISTEN:
            # It is answered when the client has heard enough; nothing has to wait for that.
            ticket.leave()
            return await future
        try:
            answer = await self._outlasted(phase, head, message, future)
            if head.method == INITIALIZE and answer is not None:
                self._handshake.version = version_of(answer) or self._handshake.version
            elif head.writes:
                await self._written(phase, head, answer)
            elif head.tool in READS and answer is not None:
                self._compare(phase, head, answer)
        except LostAnswerError as error:
            # Whatever it has done, ours is to be the same.
            await self._written(phase, head, None)
            return refusal(head, error)
        except UnifiedMemoryError as error:
            return refusal(head, error)
        finally:
            ticket.leave()
        return answer

    async def _outlasted(
        self, phase: Phase, head: Head, message: bytes, future: "asyncio.Future[bytes | None]"
    ) -> bytes | None:
        """The answer, also where the server goes before it: what nobody has heard, and what only reads, is asked again, and of
        what writes it is looked whether it was done. Raises LostAnswerError where that cannot be told.
        """
        try:
            return await future
        except SourceUnavailableError as lost:
            if self._ended:
                raise
            peer = await self._peer(phase)
            if not isinstance(lost, LostAnswerError) or not head.writes or head.tool == FORGET:
                # What was deleted is not there a second time: numbers are never used again.
                return await (await peer.ask(head, message))
            if head.tool in {WRITE, UPDATE} and await self._holds(peer, head):
                return written_answer(head)
            raise LostAnswerError(
                KIND,
                "",
                f"{lost.detail}, before it answered",
                hint="Whether it wrote is not known: look before you repeat it",
            ) from None

    async def _holds(self, peer: Peer, head: Head) -> bool:
        """Whether the file is now as the call wanted it."""
        reading = reading_of(head, f"proxy {id(head)}")
        try:
            texts, is_error = told_by(await (await peer.ask(read_head(reading), reading)))
        except SourceUnavailableError:
            # It cannot be looked.
            return False
        return not is_error and "\n".join(texts) == head.arguments.get("content")

    async def _written(self, phase: Phase, head: Head, answer: bytes | None) -> None:
        place = place_written(head, answer)
        if place is None:
            return

        async def find() -> list[Place]:
            return [place]

        await self._stand.mirror(phase, find)
        self._stand.carry_back(phase)

    def _compare(self, phase: Phase, head: Head, answer: bytes) -> None:
        tool, arguments = head.tool or "", head.arguments
        texts, is_error = told_by(answer)

        async def ours() -> object:
            call = Call(self._stand.service, ANONYMOUS)
            try:
                told = await call_tool(self._profile, call, tool, arguments)
            except ProtocolError:
                return "error"
            return comparable(tool, [] if told.text is None else [told.text], is_error=told.is_error)

        self._stand.compare(phase, tool, comparable(tool, texts, is_error=is_error), ours)


async def _said(answer: bytes | None) -> bytes | None:
    return answer


class Desk:
    """Conversations with one set of tools. `older`: how to reach the older server, None where there is none any more."""

    def __init__(self, stand: Stand, tools: str, older: Connect | None, *, max_body: int, local: bool = True) -> None:
        self.stand = stand
        self.profile = profile(tools)
        self.endpoint = MCPEndpoint(stand.service, name=NAME, tools=tools, max_body=max_body, local=local)
        self._older = older

    def talk(self, unasked: Unasked, *, greets: bool = False) -> Talk:
        """A new conversation. `unasked`: takes what a server says by itself. `greets`: the client may have greeted nobody."""
        ours = Ours.by(self.endpoint, self.profile.name)
        return Talk(self.stand, self.profile, ours=ours, older=self._older, unasked=unasked, greets=greets)

    async def open(self) -> None:
        """Opens what it stands on. Raises StorageError and below."""
        await self.stand.open()

    async def close(self) -> None:
        """Closes it, when no conversation is under way."""
        await self.endpoint.stop()
        await self.stand.close()
