"""Embeddings over HTTP, as OpenAI's API has them and many local servers do.

POST {"model": …, "input": [text, …]} gives {"data": [{"index": 0, "embedding": [number, …]}, …]}
(https://platform.openai.com/docs/api-reference/embeddings).
"""

import ipaddress
import time
from collections.abc import Iterator, Sequence
from hashlib import sha256

import httpx2
import msgspec
import numpy as np

from unified_memory.semantic.errors import EmbedderAnswerError, EmbedderUnavailableError, UnsuitableModelError
from unified_memory.semantic.vectors import Vectors, unit

DEFAULT_TIMEOUT_SECONDS = 30.0
_TRIES = 3
_BATCH_TEXTS = 64
# What every model reads of a text is less; a server that refuses longer ones is spared them.
_MAX_CHARACTERS = 8_000


class _Item(msgspec.Struct):
    embedding: list[float]
    index: int | None = None


class _Answer(msgspec.Struct):
    data: list[_Item]


class HttpEmbedder:
    """A server's model, named by the fragment of the URL: `http://127.0.0.1:8080/v1/embeddings#model`.

    Its identity has the first 16 hexadecimal digits of the sha256 of the URL without the fragment in the model file's
    place. Threads may share it.
    """

    def __init__(
        self, url: str, *, api_key: str = "", timeout: float = DEFAULT_TIMEOUT_SECONDS, pause: float = 0.5
    ) -> None:
        """`timeout` in seconds for each step on the network; `pause` seconds before the second try, twice that before the third.

        Asks the server for one embedding. Raises UnsuitableModelError for what is no such URL, and what `embed` raises.
        """
        try:
            parsed = httpx2.URL(url)
        except httpx2.InvalidURL as error:
            raise UnsuitableModelError("by URL", f"it is none: {error}") from None
        # Queries and users may be secrets: neither is shown.
        self._shown = str(parsed.copy_with(fragment=None, query=None, username=None, password=None))
        if parsed.scheme not in {"http", "https"} or not parsed.host or not parsed.fragment or parsed.userinfo:
            raise UnsuitableModelError(
                self._shown,
                "its URL is incomplete or names a user",
                hint="Such as http://127.0.0.1:8080/v1/embeddings#model",
            )
        self._model = parsed.fragment
        self._url = parsed.copy_with(fragment=None)
        self._pause = pause
        self._client = httpx2.Client(
            headers={"authorization": f"Bearer {api_key}"} if api_key else None,
            timeout=timeout,
            # Proxies that the environment names are not asked for this machine.
            trust_env=not _is_loopback(parsed.host),
        )
        self.dimensions = 0
        try:
            self.dimensions = self._ask(["dimensions"]).shape[1]
        finally:
            if not self.dimensions:
                self.close()
        self.identity = f"{self._model}@{sha256(str(self._url).encode()).hexdigest()[:16]}/{self.dimensions}"

    def embed(self, texts: Sequence[str]) -> Vectors:
        """The vectors of the texts, see Embedder."""
        found = [self._ask(batch) for batch in _batches(texts)]
        return np.concatenate(found) if found else np.empty((0, self.dimensions), np.float32)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _ask(self, texts: Sequence[str]) -> Vectors:
        told = [text[:_MAX_CHARACTERS].encode("utf-8", "replace").decode() for text in texts]
        content = self._post(msgspec.json.encode({"model": self._model, "input": told}))
        try:
            items = msgspec.json.decode(content, type=_Answer).data
        except msgspec.DecodeError as error:
            raise EmbedderAnswerError(self._shown, str(error)) from None
        items.sort(key=lambda item: item.index or 0)
        if len(items) != len(texts) or any(item.index not in {None, place} for place, item in enumerate(items)):
            raise EmbedderAnswerError(self._shown, f"{len(items)} vectors came for {len(texts)} texts")
        lengths = {len(item.embedding) for item in items}
        wanted = self.dimensions or len(items[0].embedding)
        if lengths != {wanted} or not wanted:
            raise EmbedderAnswerError(self._shown, f"vectors of {sorted(lengths)} dimensions came, not of {wanted}")
        return unit(np.array([item.embedding for item in items], np.float64), self._shown)

    def _post(self, content: bytes) -> bytes:
        """The body of a good answer; tries again what may pass."""
        reason = ""
        for attempt in range(_TRIES):
            if attempt:
                time.sleep(self._pause * attempt)
            try:
                response = self._client.post(self._url, content=content, headers={"content-type": "application/json"})
            except httpx2.RequestError as error:
                reason = str(error) or type(error).__name__
                continue
            if response.is_success:
                return response.content
            # What the server says about it may repeat the texts: only the status is told.
            reason = f"HTTP {response.status_code} {response.reason_phrase}"
            if response.status_code not in {408, 429} and not response.is_server_error:
                raise EmbedderAnswerError(self._shown, reason)
        raise EmbedderUnavailableError(self._shown, f"{reason} ({_TRIES} tries)")


def _batches(texts: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(texts), _BATCH_TEXTS):
        yield texts[start : start + _BATCH_TEXTS]


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
