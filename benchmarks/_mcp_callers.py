"""Callers of tools, one request in flight: over standard input and output, and over streamable HTTP in either era.

As little as can be, since what they cost is in every figure.
"""

import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol, cast

import msgspec
from msgspec import UNSET, Struct, UnsetType

from benchmarks._servers import HOST, Server

HANDSHAKE_ERA = "2025-11-25"
MODERN_ERA = "2026-07-28"
ANSWER_SECONDS = 60.0
_STOP_SECONDS = 30.0
_CLIENT = {"name": "benchmark", "version": "1"}
_END_OF_HEAD = b"\r\n\r\n"
_LAST_CHUNK = b"0\r\n\r\n"


class _Block(Struct):
    text: str = ""


class _Result(Struct):
    content: list[_Block] = []
    isError: bool = False  # noqa: N815 - the member's name on the wire


class _Reply(Struct):
    """An answer; a request or a notification of the server has a method and is passed over."""

    id: Any = None
    result: msgspec.Raw | UnsetType = UNSET
    error: msgspec.Raw | UnsetType = UNSET
    method: str | None = None


_reply = msgspec.json.Decoder(_Reply).decode
_result = msgspec.json.Decoder(_Result).decode


class CallFailedError(Exception):
    """A call was answered with an error, not as expected, or not at all."""


class Caller(Protocol):
    """What calls a tool and gives its text. Raises CallFailedError."""

    def ready(self) -> None:
        """Makes ready for a round of calls, after a pause of any length."""

    def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """The text of the answer."""


def _message(number: int, method: str, params: dict[str, Any]) -> bytes:
    return msgspec.json.encode({"jsonrpc": "2.0", "id": number, "method": method, "params": params})


def _text(tool: str, reply: _Reply) -> str:
    if reply.result is UNSET:
        told = b"neither result nor error" if reply.error is UNSET else bytes(reply.error)
        raise CallFailedError(f"{tool}: {told[:500].decode('utf-8', 'replace')}")
    result = _result(reply.result)
    text = "".join(block.text for block in result.content)
    if result.isError:
        raise CallFailedError(f"{tool}: {text[:500]}")
    return text


class StdioCaller:
    """A server process and the one connection to it. `server` tells its process and when it first answered."""

    def __init__(self, process: subprocess.Popen[bytes], started: float, log: IO[bytes]) -> None:
        self._log = log
        self._input = cast("IO[bytes]", process.stdin).fileno()
        self._output = cast("IO[bytes]", process.stdout).fileno()
        self._rest = b""
        self._number = 0
        self._request(
            "initialize", {"protocolVersion": HANDSHAKE_ERA, "capabilities": {}, "clientInfo": _CLIENT}, "initialize"
        )
        self.server = Server(0, process.pid, time.perf_counter() - started)
        self._write(msgspec.json.encode({"jsonrpc": "2.0", "method": "notifications/initialized"}), "initialize")

    def ready(self) -> None:
        """As Caller says: there is nothing to do."""

    def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """As Caller says."""
        return _text(tool, self._request("tools/call", {"name": tool, "arguments": arguments}, tool))

    def call_all(self, tool: str, calls: Sequence[dict[str, Any]]) -> None:
        """Makes calls without waiting for each: for filling. Only as many as the pipe holds at once."""
        first = self._number + 1
        for arguments in calls:
            self._number += 1
            self._write(_message(self._number, "tools/call", {"name": tool, "arguments": arguments}), tool)
        owed = set(range(first, self._number + 1))
        while owed:
            reply = self._read(tool)
            if reply.method is None:
                _text(tool, reply)
                owed.discard(reply.id)

    def _request(self, method: str, params: dict[str, Any], what: str) -> _Reply:
        self._number += 1
        self._write(_message(self._number, method, params), what)
        while (reply := self._read(what)).id != self._number or reply.method is not None:
            pass
        return reply

    def _write(self, message: bytes, what: str) -> None:
        data = memoryview(message + b"\n")
        try:
            while data:
                data = data[os.write(self._input, data) :]
        except BrokenPipeError:
            raise self._ended(what) from None

    def _read(self, what: str) -> _Reply:
        data = self._rest
        while (end := data.find(b"\n")) < 0:
            if not select.select([self._output], [], [], ANSWER_SECONDS)[0]:
                raise CallFailedError(f"{what}: no answer within {ANSWER_SECONDS:g} s")
            more = os.read(self._output, 1 << 20)
            if not more:
                raise self._ended(what)
            data += more
        self._rest = data[end + 1 :]
        return _reply(data[:end])

    def _ended(self, what: str) -> CallFailedError:
        self._log.seek(0)
        said = self._log.read().decode("utf-8", "replace")[-4000:]
        return CallFailedError(f"{what}: the server ended instead of answering:\n{said}")


@contextmanager
def stdio(command: Sequence[str], directory: Path, environment: dict[str, str]) -> Iterator[StdioCaller]:
    """Starts a server in a directory and with no environment but what is given; the handshake is done.

    Raises CallFailedError where it does not answer.
    """
    with tempfile.TemporaryFile() as log:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=directory, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log
        )
        try:
            yield StdioCaller(process, started, log)
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Ends it as clients do: nothing more to say; then by force."""
    cast("IO[bytes]", process.stdin).close()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    finally:
        cast("IO[bytes]", process.stdout).close()


class HttpCaller:
    """One kept-alive connection to a streamable HTTP endpoint, in the handshake era or the modern one."""

    def __init__(self, port: int, path: str, era: str) -> None:
        self._port = port
        self._socket = _connected(port)
        self._number = 0
        self._modern = era == MODERN_ERA
        self._head = (
            f"POST {path} HTTP/1.1\r\nhost: {HOST}:{port}\r\ncontent-type: application/json\r\n"
            f"accept: application/json, text/event-stream\r\nmcp-protocol-version: {era}\r\n"
        )
        self._meta = {
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": era,
                "io.modelcontextprotocol/clientInfo": _CLIENT,
                "io.modelcontextprotocol/clientCapabilities": {},
            }
        }
        if not self._modern:
            self._request("initialize", {"protocolVersion": era, "capabilities": {}, "clientInfo": _CLIENT}, "")

    def ready(self) -> None:
        """As Caller says: the server closes connections that are idle for some seconds."""
        self.close()
        self._socket = _connected(self._port)

    def call(self, tool: str, arguments: dict[str, Any]) -> str:
        """As Caller says."""
        params: dict[str, Any] = {"name": tool, "arguments": arguments}
        if self._modern:
            return _text(tool, self._request("tools/call", {**params, **self._meta}, tool))
        return _text(tool, self._request("tools/call", params, tool))

    def close(self) -> None:
        """Ends the connection."""
        self._socket.close()

    def _request(self, method: str, params: dict[str, Any], name: str) -> _Reply:
        self._number += 1
        body = _message(self._number, method, params)
        routing = f"mcp-method: {method}\r\nmcp-name: {name}\r\n" if self._modern else ""
        head = f"{self._head}{routing}content-length: {len(body)}\r\n\r\n"
        self._socket.sendall(head.encode("ascii") + body)
        return self._read(name or method)

    def _read(self, what: str) -> _Reply:
        data = self._socket.recv(1 << 16)
        while (end := data.find(_END_OF_HEAD)) < 0:
            data += self._more(what)
        head = data[:end].lower()
        body = data[end + len(_END_OF_HEAD) :]
        if b"transfer-encoding: chunked" in head:
            while not body.endswith(_LAST_CHUNK):
                body += self._more(what)
            body = _joined(body)
        else:
            length = int(head.partition(b"content-length:")[2].split(b"\r", 1)[0])
            while len(body) < length:
                body += self._more(what)
        if not head.startswith(b"http/1.1 200 "):
            raise CallFailedError(f"{what}: {(data[:end] + body)[:700].decode('utf-8', 'replace')}")
        if b"text/event-stream" not in head:
            return _reply(body)
        for line in body.splitlines():
            if line.startswith(b"data: ") and (reply := _reply(line[6:])).id == self._number and reply.method is None:
                return reply
        raise CallFailedError(f"{what}: an event stream without the answer: {body[:500].decode('utf-8', 'replace')}")

    def _more(self, what: str) -> bytes:
        more = self._socket.recv(1 << 16)
        if not more:
            raise CallFailedError(f"{what}: the server closed the connection instead of answering")
        return more


def _connected(port: int) -> socket.socket:
    connection = socket.create_connection((HOST, port), ANSWER_SECONDS)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _joined(chunked: bytes) -> bytes:
    """A chunked body without its chunks."""
    parts: list[bytes] = []
    place = 0
    while True:
        end = chunked.index(b"\r\n", place)
        size = int(chunked[place:end], 16)
        if size == 0:
            return b"".join(parts)
        parts.append(chunked[end + 2 : end + 2 + size])
        place = end + 2 + size + 2


@contextmanager
def http(port: int, path: str, era: str) -> Iterator[HttpCaller]:
    """A connection to a running server. Raises CallFailedError, OSError."""
    caller = HttpCaller(port, path, era)
    try:
        yield caller
    finally:
        caller.close()
