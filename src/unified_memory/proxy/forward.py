"""Requests handed on to an older service over HTTP, and its answers handed back, byte for byte."""

import httpx2

from unified_memory.model.errors import SourceUnavailableError
from unified_memory.rest.exchange import Answer, Scope

TIMEOUT_SECONDS = 120.0
CONNECT_SECONDS = 5.0
BAD_GATEWAY = 502
KIND = "older service"
# Of one connection, and not of what is said over it (RFC 9110, 7.6.1).
HOP = frozenset(
    {
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)


class LostAnswerError(SourceUnavailableError):
    """The older service had the request, and its answer never came: what it has done is not known."""


class Forward:
    """The older service at that URL."""

    def __init__(self, url: str, *, timeout: float = TIMEOUT_SECONDS) -> None:
        self.url = url.rstrip("/")
        # A connection of its own for each request: one that the other end has closed meanwhile cannot lose it.
        self._client = httpx2.AsyncClient(
            trust_env=False,
            timeout=httpx2.Timeout(timeout, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        )

    async def close(self) -> None:
        """Frees everything."""
        await self._client.aclose()

    async def pass_on(self, scope: Scope, body: bytes) -> Answer:
        """The older service's answer to the request. What only reads is asked once more where the connection breaks.

        Raises SourceUnavailableError where it cannot be reached, LostAnswerError where it broke off.
        """
        if scope["method"] in {"GET", "HEAD"}:
            try:
                return await self._pass_on(scope, body)
            except LostAnswerError:
                return await self._pass_on(scope, body)
        return await self._pass_on(scope, body)

    async def _pass_on(self, scope: Scope, body: bytes) -> Answer:
        target = scope.get("raw_path") or scope["path"].encode()
        if scope["query_string"]:
            target += b"?" + scope["query_string"]
        headers = [(name, value) for name, value in scope["headers"] if name not in HOP]
        request = httpx2.Request(
            scope["method"],
            self.url,
            headers=headers,
            content=body,
            # As it was sent: a URL would be put in order first.
            extensions={"target": httpx2.URL(self.url).raw_path.rstrip(b"/") + target},
        )
        try:
            answer = await self._client.send(request, stream=True)
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            raise SourceUnavailableError(
                KIND, self.url, f"The older service at {self.url} cannot be reached: {error}"
            ) from None
        except httpx2.TransportError as error:
            raise self._lost(error) from None
        try:
            content = b"".join([part async for part in answer.aiter_raw()])
        except httpx2.TransportError as error:
            raise self._lost(error) from None
        finally:
            await answer.aclose()
        told = tuple((name.lower(), value) for name, value in answer.headers.raw if name.lower() not in HOP)
        return Answer(content, answer.status_code, told)

    def _lost(self, error: Exception) -> LostAnswerError:
        return LostAnswerError(
            KIND,
            self.url,
            f"The older service at {self.url} broke off before its answer: {str(error) or type(error).__name__}",
            hint="Whether it did what was asked is not known",
        )
