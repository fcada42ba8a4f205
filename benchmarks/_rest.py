"""The least HTTP client that can speak to the service: what it costs itself stays out of the figures."""

import http.client
import urllib.parse
from typing import Any, Self

import msgspec

API = "/api/v1/memory"


class RequestFailedError(Exception):
    """The service answered with another status than 200."""

    def __init__(self, method: str, path: str, status: int, body: bytes) -> None:
        super().__init__(f"{method} {path} answered {status}: {body[:500].decode('utf-8', 'replace')}")
        self.status = status


class Rest:
    """One kept-alive connection to a service at `url`. A context manager."""

    def __init__(self, url: str, timeout: float = 120.0) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme not in {"http", "https"} or parts.hostname is None:
            raise ValueError(f"{url!r} is no http:// or https:// address")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._connection = kind(parts.hostname, parts.port, timeout=timeout)
        self._base = parts.path.rstrip("/")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def send(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """The body of the answer. Raises RequestFailedError where its status is not 200, OSError where none comes."""
        headers = {"content-type": "application/json"} if body is not None else {}
        self._connection.request(method, self._base + path, body, headers)
        answer = self._connection.getresponse()
        data = answer.read()
        if answer.status != http.client.OK:
            raise RequestFailedError(method, path, answer.status, data)
        return data

    def get(self, path: str) -> Any:
        """The answer to a GET below the API's prefix, decoded. Raises as `send`."""
        return msgspec.json.decode(self.send("GET", API + path))

    def post(self, path: str, what: Any) -> Any:
        """The answer to a POST of JSON below the API's prefix, decoded. Raises as `send`."""
        return msgspec.json.decode(self.send("POST", API + path, msgspec.json.encode(what)))

    def delete(self, path: str) -> Any:
        """The answer to a DELETE below the API's prefix, decoded. Raises as `send`."""
        return msgspec.json.decode(self.send("DELETE", API + path))


def quote(text: str) -> str:
    """A key or namespace as it stands in a path or a query string."""
    return urllib.parse.quote(text)
