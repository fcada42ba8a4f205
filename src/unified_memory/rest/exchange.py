"""One HTTP exchange in our terms: a call that was read, an answer to be sent."""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, MutableMapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec
from msgspec import Struct

from unified_memory.model.errors import InvalidInputError, MalformedInputError, TooLargeError
from unified_memory.model.principal import Principal
from unified_memory.model.value import MAX_DEPTH
from unified_memory.service.requests import UNCONDITIONAL, Conditions, Idempotent

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
T = TypeVar("T")

JSON = (b"content-type", b"application/json")
EVENT_STREAM = ((b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"))
PROBLEM = (b"content-type", b"application/problem+json")
MAX_WAIT_SECONDS = 60.0
DEFAULT_WAIT_SECONDS = 10.0
_BOOLEANS = {"true": True, "1": True, "false": False, "0": False}


class Answer(Struct):
    """What is sent back."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = (JSON,)


class Stream(Struct):
    """An answer that is sent piece by piece, as it is made.

    What is raised before the first piece is answered as a problem, what is raised later breaks the connection, so that it is
    never taken for the end. `endless`: goes on until the client leaves, or the service is about to stop.
    """

    pieces: AsyncIterator[bytes]
    headers: tuple[tuple[bytes, bytes], ...]
    endless: bool = False

    async def close(self) -> None:
        """Lets go of what makes the pieces."""
        if isinstance(self.pieces, AsyncGenerator):
            await self.pieces.aclose()


class Call(Struct):
    """A request: who asks, what the path names (`tail`), and the rest as it came.

    `receive`: only where the body was not read before; see `parts`.
    """

    principal: Principal
    tail: str
    scope: Scope
    body: bytes = b""
    receive: Receive | None = None

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes, for routes that do not want it read before. Raises Disconnected where it does not come to its
        end.
        """
        if self.receive is None:  # the table of routes says who may ask
            raise TypeError
        more = True
        while more:
            message = await self.receive()
            if message["type"] != "http.request":
                raise Disconnected
            if part := message.get("body", b""):
                yield part
            more = message.get("more_body", False)

    def header(self, name: bytes) -> str | None:
        """A header by its lower-case name."""
        for key, value in self.scope["headers"]:
            if key == name:
                return str(value, "latin-1")
        return None

    def query(self, *known: str) -> dict[str, str]:
        """The query parameters. Raises InvalidInputError for one that is not known or stands twice."""
        raw: bytes = self.scope["query_string"]
        if not raw:
            return {}
        pairs: Iterable[tuple[str, str]]
        if b"%" in raw or b"+" in raw:
            try:
                pairs = parse_qsl(str(raw, "ascii"), keep_blank_values=True, errors="strict", max_num_fields=64)
            except ValueError:
                raise InvalidInputError("query string", "The query string is not percent-encoded UTF-8") from None
        else:
            try:
                parts = (part.partition("=") for part in str(raw, "ascii").split("&"))
                pairs = [(name, value) for name, _, value in parts if name]
            except UnicodeDecodeError:
                raise InvalidInputError("query string", "The query string is not percent-encoded UTF-8") from None
        found: dict[str, str] = {}
        for name, value in pairs:
            if name not in known:
                hint = "One of: " + ", ".join(known) if known else "This route takes no parameters"
                raise InvalidInputError(name, f"There is no parameter {name!r} here", hint=hint)
            if name in found:
                raise InvalidInputError(name, f"The parameter {name!r} stands twice")
            found[name] = value
        return found

    def conditions(self) -> Conditions:
        """If-Match and If-None-Match of a write. Raises InvalidInputError."""
        match = none_match = None
        for key, value in self.scope["headers"]:
            if key == b"if-match":
                match = str(value, "latin-1")
            elif key == b"if-none-match":
                none_match = str(value, "latin-1")
        if match is None and none_match is None:
            return UNCONDITIONAL
        if none_match is not None and none_match.strip() != "*":
            raise InvalidInputError("If-None-Match", "Of a write, If-None-Match can only be *")
        return Conditions(
            None if match is None else 0 if match.strip() == "*" else read_etag(match), none_match is not None
        )

    def idempotent(self) -> Idempotent | None:
        """The Idempotency-Key, where there is one, with the fingerprint of this request."""
        key = self.header(b"idempotency-key")
        if key is None:
            return None
        told = hashlib.blake2b(digest_size=16)
        for part in (
            self.scope["method"].encode(),
            self.scope["path"].encode("utf-8", "surrogatepass"),
            self.scope["query_string"],
            self.body,
        ):
            told.update(len(part).to_bytes(8, "big"))
            told.update(part)
        return Idempotent(key, told.digest())


def etag(version: int) -> tuple[bytes, bytes]:
    """The ETag header of a version."""
    return (b"etag", b'"%d"' % version)


def read_etag(text: str) -> int:
    """The version that an ETag names. Raises InvalidInputError."""
    bare = text.strip().removeprefix("W/").strip('"')
    if not (bare.isascii() and bare.isdigit() and len(bare) < 19 and int(bare) > 0):  # noqa: PLR2004 - within 64 bits
        raise InvalidInputError("If-Match", 'If-Match must be the ETag of a memory ("3") or *')
    return int(bare)


def decode(decoder: "msgspec.json.Decoder[T]", body: bytes) -> T:
    """The typed request that a body is. Raises MalformedInputError or InvalidInputError naming the field."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise invalid(error) from None
    except RecursionError:
        raise InvalidInputError("body", f"The body is nested deeper than {MAX_DEPTH}", limit=MAX_DEPTH) from None
    except UnicodeDecodeError:
        raise MalformedInputError("body", "The body is not UTF-8") from None
    except msgspec.DecodeError as error:
        raise MalformedInputError("body", f"The body is not JSON: {error}", hint="A JSON object in UTF-8") from None


def invalid(error: msgspec.ValidationError) -> InvalidInputError:
    """The error that names the field which msgspec found wrong."""
    detail, _, path = str(error).rpartition(" - at `")
    if not detail:
        detail, path = str(error), ""
    field = path.rstrip("`").removeprefix("$").removeprefix(".")
    if "unknown field" in detail or "missing required field" in detail:
        name = detail.split("`")[1]
        field = f"{field}.{name}" if field else name
    return InvalidInputError(field or "body", detail)


def integer(query: dict[str, str], name: str, default: int | None = None) -> int | None:
    """An integer parameter. Raises InvalidInputError."""
    text = query.get(name)
    if text is None:
        return default
    if not (text.removeprefix("-").isdigit() and text.isascii() and len(text) < 16):  # noqa: PLR2004 - within 64 bits
        raise InvalidInputError(name, f"{name} must be an integer")
    return int(text)


def boolean(query: dict[str, str], name: str, default: bool | None = None) -> bool | None:  # noqa: FBT001 - as `integer`
    """A boolean parameter: true, false, 1 or 0. Raises InvalidInputError."""
    text = query.get(name)
    if text is None:
        return default
    if text.lower() not in _BOOLEANS:
        raise InvalidInputError(name, f"{name} must be true or false")
    return _BOOLEANS[text.lower()]


def patience(query: dict[str, str]) -> float:
    """How many seconds the caller waits for long work. Raises InvalidInputError."""
    text = query.get("wait")
    if text is None:
        return DEFAULT_WAIT_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= MAX_WAIT_SECONDS:
        raise InvalidInputError("wait", f"wait must be from 0 to {MAX_WAIT_SECONDS:.0f} seconds")
    return seconds


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The whole body. Raises TooLargeError as soon as it is known to be, Disconnected where it never came."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise TooLargeError("body", limit, int(value))
    message = await receive()
    if message["type"] != "http.request":
        raise Disconnected
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        parts, size = [body], len(body)
        while message.get("more_body"):
            message = await receive()
            if message["type"] != "http.request":
                raise Disconnected
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > limit:
                raise TooLargeError("body", limit, size)
        body = b"".join(parts)
    if len(body) > limit:
        raise TooLargeError("body", limit, len(body))
    return body


class Disconnected(Exception):  # noqa: N818 - what happened, not an error of ours
    """The client went away before its request was whole."""


async def send_answer(send: Send, answer: Answer) -> None:
    """Sends the answer."""
    body = answer.body
    headers = [*answer.headers, (b"content-length", b"%d" % len(body))]
    if answer.status == 304:  # noqa: PLR2004 - its content-length would be that of the 200 (RFC 9110, 8.6)
        headers.pop()
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_stream(send: Send, receive: Receive, stream: Stream, first: bytes | None, ending: asyncio.Event) -> None:
    """Sends all of a stream behind its first piece (None: there is none), until the client leaves.

    An endless one ends when `ending` is set. Raises what making a piece raises; the answer is then not whole.
    """
    await send({"type": "http.response.start", "status": 200, "headers": list(stream.headers)})
    sending = asyncio.ensure_future(_send_all(stream, first, send))
    leaving = asyncio.ensure_future(_gone(receive))
    stopping = asyncio.ensure_future((ending if stream.endless else asyncio.Event()).wait())
    waited: set[asyncio.Future[Any]] = {sending, leaving, stopping}
    try:
        await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
        stopped = stopping.done() and not leaving.done()
    finally:
        for task in waited:
            task.cancel()
        # What makes the pieces lets go of what it holds before anyone goes on.
        await asyncio.wait(waited)
    if not sending.cancelled():
        sending.result()
    elif stopped:
        await send({"type": "http.response.body", "body": b""})


async def _send_all(stream: Stream, first: bytes | None, send: Send) -> None:
    try:
        if first is not None:
            await send({"type": "http.response.body", "body": first, "more_body": True})
        async for piece in stream.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    finally:
        await stream.close()
    await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    """Returns when the client has closed its end."""
    while (await receive())["type"] != "http.disconnect":
        pass
