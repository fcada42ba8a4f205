"""An application in this process in the place of a network: unlike httpx2's own transport it gives an answer as it comes."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2

Message = dict[str, Any]
Application = Callable[
    [dict[str, Any], Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]
]


class InProcess(httpx2.AsyncBaseTransport):
    """Calls an ASGI application. What it raises comes out of the request, or out of the reading of its answer."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """The answer, whose body is not yet made."""
        exchange = _Exchange(request)
        try:
            head = await exchange.begin(self._application)
        except BaseException:
            await exchange.aclose()
            raise
        return httpx2.Response(head["status"], headers=head["headers"], stream=exchange)


class _Exchange(httpx2.AsyncByteStream):
    """One request and its answer; the application waits until each piece of it was taken."""

    def __init__(self, request: httpx2.Request) -> None:
        self._request = request
        self._sent: asyncio.Queue[Message] = asyncio.Queue(1)
        self._left = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._whole = False

    async def begin(self, application: Application) -> Message:
        """What the answer begins with."""
        request = self._request
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": request.method,
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "scheme": request.url.scheme,
            "path": request.url.path,
            "raw_path": request.url.raw_path.partition(b"?")[0],
            "query_string": request.url.query,
            "server": (request.url.host, request.url.port),
            "client": None,
            "root_path": "",
        }
        self._task = asyncio.ensure_future(_call(application, scope, self._receiver(), self._sent.put))
        return await self._next(self._task)

    def _receiver(self) -> Callable[[], Awaitable[Message]]:
        body = self._body()

        async def receive() -> Message:
            async for part in body:
                return {"type": "http.request", "body": part, "more_body": True}
            if not ended.is_set():
                ended.set()
                return {"type": "http.request", "body": b"", "more_body": False}
            await self._left.wait()
            return {"type": "http.disconnect"}

        ended = asyncio.Event()
        return receive

    async def _body(self) -> AsyncIterator[bytes]:
        stream = self._request.stream
        if not isinstance(stream, httpx2.AsyncByteStream):
            raise TypeError
        async for part in stream:
            yield part

    async def _next(self, task: asyncio.Task[None]) -> Message:
        """The next message. Raises what the application raises, EOFError where it has ended without being done."""
        taking = asyncio.ensure_future(self._sent.get())
        try:
            await asyncio.wait({taking, task}, return_when=asyncio.FIRST_COMPLETED)
            if taking.done():
                return taking.result()
        finally:
            taking.cancel()
        # What it sent last may lie there still.
        if not self._sent.empty():
            return self._sent.get_nowait()
        task.result()
        raise EOFError

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._whole and self._task is not None:
            message = await self._next(self._task)
            self._whole = not message.get("more_body", False)
            yield message.get("body", b"")

    async def aclose(self) -> None:
        """Nobody reads on: the application is told, and ended where it was not at its end."""
        self._left.set()
        if self._task is not None:
            if not self._whole:
                self._task.cancel()
            await asyncio.wait({self._task})


async def _call(application: Application, scope: Message, receive: Any, send: Any) -> None:
    await application(scope, receive, send)
