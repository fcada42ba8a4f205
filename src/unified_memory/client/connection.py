"""What both clients need to know of HTTP: where to connect, how long to wait, and what went wrong on the way."""

import email.utils
import inspect
import ipaddress
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, TypedDict, TypeVar

import httpx2
import msgspec

from unified_memory.client.errors import ServiceUnavailableError
from unified_memory.client.protocol import Answer, Call, Lines, encode_line
from unified_memory.model.errors import InvalidInputError, UnifiedMemoryError

DEFAULT_TIMEOUT_SECONDS = 30.0
PIECE_BYTES = 64 * 1024
MethodT = TypeVar("MethodT", bound=Callable[..., Any])


class Options(TypedDict):
    """Arguments that both clients of httpx2 take."""

    headers: Mapping[str, str] | None
    timeout: float | None
    trust_env: bool


def check_url(url: str) -> str:
    """The URL without a slash at its end. Raises InvalidInputError naming `url`."""
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise InvalidInputError("url", f"{url!r} is no URL: {error}") from None
    if parsed.scheme not in {"http", "https"} or not parsed.host or parsed.query or parsed.fragment:
        raise InvalidInputError("url", f"{url!r} is no URL of a service", hint="Such as http://127.0.0.1:3200")
    return url.rstrip("/")


def options(url: str, headers: Mapping[str, str] | None, timeout: float | None) -> Options:
    """How to connect; proxies that the environment names are not asked for this machine."""
    return {"headers": headers, "timeout": timeout, "trust_env": not _is_loopback(httpx2.URL(url).host)}


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def request_of(
    call: Call[Any], url: str, timeout: float | None, lines: Iterable[bytes] | AsyncIterable[bytes] | None
) -> dict[str, Any]:
    """The arguments of httpx2's `request`. `lines`: what is sent in place of the call's content."""
    return {
        "method": call.method,
        "url": url + call.target,
        "headers": call.headers,
        "content": lines if lines is not None else call.content or None,
        "timeout": None if timeout is None else timeout + call.wait,
    }


def pieces(lines: Lines) -> Iterator[bytes]:
    """The lines in pieces of some size: one by one they would take long. Raises InvalidInputError."""
    if isinstance(lines, AsyncIterable):
        raise InvalidInputError("lines", "An asynchronous iterator needs the asynchronous client")
    begun, size = [], 0
    for line in lines:
        begun.append(encode_line(line))
        size += len(begun[-1])
        if size >= PIECE_BYTES:
            yield b"".join(begun)
            begun, size = [], 0
    yield b"".join(begun)


async def async_pieces(lines: Lines) -> AsyncIterator[bytes]:
    """As `pieces`, also of an asynchronous iterator."""
    if not isinstance(lines, AsyncIterable):
        for piece in pieces(lines):
            yield piece
        return
    begun, size = [], 0
    async for line in lines:
        begun.append(encode_line(line))
        size += len(begun[-1])
        if size >= PIECE_BYTES:
            yield b"".join(begun)
            begun, size = [], 0
    yield b"".join(begun)


def head_of(response: httpx2.Response) -> Answer:
    """What is known of an answer before it was read."""
    kind, _, _ = response.headers.get("content-type", "").partition(";")
    return Answer(response.status_code, kind.strip().lower(), b"", _retry_after(response.headers))


def _retry_after(headers: httpx2.Headers) -> float | None:
    """Seconds, or an instant, which is compared with the clock that wrote it (RFC 9110, 10.2.3)."""
    told = headers.get("retry-after", "")
    if told.isascii() and told.isdigit():
        return float(told)
    try:
        until = email.utils.parsedate_to_datetime(told)
        return max(0.0, (until - email.utils.parsedate_to_datetime(headers.get("date", ""))).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def answer_of(response: httpx2.Response) -> Answer:
    """What came back, without HTTP."""
    return msgspec.structs.replace(head_of(response), content=response.content)


def failed(error: httpx2.RequestError | httpx2.InvalidURL, url: str) -> UnifiedMemoryError:
    """The error of ours for one on the way."""
    if isinstance(error, httpx2.InvalidURL):
        return InvalidInputError("key", f"The request has no URL: {error}")
    said = str(error) or type(error).__name__
    return ServiceUnavailableError(
        f"{url} does not answer: {said}",
        hint="Is the service running there? `unified-memory serve` starts one",
        unsent=isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout),
        url=url,
    )


def checked(outcome: Answer | ServiceUnavailableError) -> Answer:
    """The answer that an attempt has come to. Raises the error that it has."""
    if isinstance(outcome, Answer):
        return outcome
    raise outcome


def as_method(operation: MethodT, build: Callable[..., Any], *, skipped: int = 0) -> MethodT:
    """The operation with the signature of what it is built of, so that `help` shows it; the first `skipped` parameters are given
    by the client.
    """
    told = inspect.signature(build)
    me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    operation.__dict__["__signature__"] = told.replace(
        parameters=[me, *list(told.parameters.values())[skipped:]], return_annotation=inspect.Signature.empty
    )
    return operation
