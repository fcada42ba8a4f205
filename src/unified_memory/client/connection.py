"""What both clients need to know of HTTP: where to connect, how long to wait, and what went wrong on the way."""

import inspect
import ipaddress
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar

import httpx2

from unified_memory.client.errors import ServiceUnavailableError
from unified_memory.client.protocol import Answer, Call
from unified_memory.model.errors import InvalidInputError, UnifiedMemoryError

DEFAULT_TIMEOUT_SECONDS = 30.0
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


def request_of(call: Call[Any], url: str, timeout: float | None) -> dict[str, Any]:
    """The arguments of httpx2's `request`."""
    return {
        "method": call.method,
        "url": url + call.target,
        "headers": call.headers,
        "content": call.content or None,
        "timeout": None if timeout is None else timeout + call.wait,
    }


def answer_of(response: httpx2.Response) -> Answer:
    """What came back, without HTTP."""
    kind, _, _ = response.headers.get("content-type", "").partition(";")
    return Answer(response.status_code, kind.strip().lower(), response.content)


def failed(error: httpx2.RequestError | httpx2.InvalidURL, url: str) -> UnifiedMemoryError:
    """The error of ours for one on the way."""
    if isinstance(error, httpx2.InvalidURL):
        return InvalidInputError("key", f"The request has no URL: {error}")
    said = str(error) or type(error).__name__
    return ServiceUnavailableError(
        f"{url} does not answer: {said}",
        hint="Is the service running there? `unified-memory serve` starts one",
        url=url,
    )


def as_method(operation: MethodT, build: Callable[..., Any]) -> MethodT:
    """The operation with the signature of the call that it builds, so that `help` shows it."""
    told = inspect.signature(build)
    me = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    operation.__dict__["__signature__"] = told.replace(
        parameters=[me, *told.parameters.values()], return_annotation=inspect.Signature.empty
    )
    return operation
