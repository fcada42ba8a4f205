"""Clients that speak MCP as bytes: to a process over its pipes, to a service over HTTP."""

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx2

BOUND = 30.0
MODERN = "2026-07-28"
HANDSHAKE = "2025-11-25"
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "0"},
    "io.modelcontextprotocol/clientCapabilities": {},
}
# The command as it is installed beside the interpreter that runs the tests.
COMMAND = Path(sys.executable).parent / "unified-memory"


class Process:
    """`unified-memory mcp` as a client starts it. Whatever it writes to standard output must be a JSON object a line."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self._answers: dict[str, asyncio.Future[Any]] = {}
        self._number = 0
        # Whatever it says unasked, in order.
        self.others: list[Any] = []
        self.heard = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def start(cls, directory: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> "Process":
        """Starts it on a data directory (in that environment; None: as this one's); nothing is said to it yet."""
        return cls(
            await asyncio.create_subprocess_exec(
                COMMAND,
                "mcp",
                "--data-dir",
                str(directory),
                *arguments,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                limit=256 * 1024**2,
            )
        )

    async def _read(self) -> None:
        assert self.process.stdout is not None
        while line := await self.process.stdout.readline():
            message = json.loads(line)
            assert isinstance(message, dict), line
            assert message["jsonrpc"] == "2.0", line
            waiting = self._answers.pop(json.dumps(message.get("id")), None) if "method" not in message else None
            if waiting is None:
                self.others.append(message)
                self.heard.set()
            else:
                waiting.set_result(message)

    async def write(self, line: bytes) -> None:
        """Sends these bytes and an end of line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + b"\n")
        await self.process.stdin.drain()

    async def notify(self, method: str, params: Any = None) -> None:
        """Sends a notification."""
        told = {"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params})}
        await self.write(json.dumps(told).encode())

    def expect(self, number: Any) -> "asyncio.Future[Any]":
        """The answer of that id, when it comes."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._answers[json.dumps(number)] = future
        return future

    async def ask(self, method: str, params: Any = None, number: Any = None) -> Any:
        """Sends a request; the whole message that answers it."""
        if number is None:
            self._number += 1
            number = self._number
        told = {"jsonrpc": "2.0", "id": number, "method": method, **({} if params is None else {"params": params})}
        answer = self.expect(number)
        await self.write(json.dumps(told).encode())
        return await asyncio.wait_for(answer, BOUND)

    async def handshake(self, version: str = HANDSHAKE) -> Any:
        """Opens a conversation of the handshake era; the server's answer."""
        answer = await self.ask(
            "initialize",
            {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}},
        )
        await self.notify("notifications/initialized")
        return answer["result"]

    async def call(self, name: str, arguments: Any = None, **more: Any) -> Any:
        """Calls a tool; its result. Raises AssertionError where it is an error of JSON-RPC."""
        answer = await self.ask("tools/call", {"name": name, "arguments": arguments or {}, **more})
        assert "result" in answer, answer
        return answer["result"]

    async def end(self) -> int:
        """Closes its standard input; the exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        status = await asyncio.wait_for(self.process.wait(), BOUND)
        await self._reading
        return status

    async def said(self) -> str:
        """What it wrote to standard error, once it has ended."""
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()

    async def kill(self) -> None:
        """SIGKILL, where it still runs."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        self._reading.cancel()
        await asyncio.wait([self._reading])


class HTTP:
    """Requests to `/mcp` of a running service, in either era."""

    def __init__(self, client: httpx2.AsyncClient, path: str = "/mcp", *, modern: bool = True) -> None:
        self._client = client
        self._path = path
        self._modern = modern
        self._number = 0

    async def ask(self, method: str, params: Any = None) -> Any:
        """Sends a request; the message that answers it (the last of the stream)."""
        self._number += 1
        sent: dict[str, Any] = dict(params or {})
        headers = {"accept": "application/json, text/event-stream"}
        if self._modern:
            sent["_meta"] = {**META, **sent.get("_meta", {})}
            headers |= {"mcp-protocol-version": MODERN, "mcp-method": method}
            if (name := sent.get("name") or sent.get("uri")) is not None:
                headers["mcp-name"] = name
        else:
            headers["mcp-protocol-version"] = HANDSHAKE
        told = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": sent}
        answer = await self._client.post(self._path, json=told, headers=headers)
        return messages(answer)[-1]

    async def call(self, name: str, arguments: Any = None) -> Any:
        """Calls a tool; its result."""
        answer = await self.ask("tools/call", {"name": name, "arguments": arguments or {}})
        assert "result" in answer, answer
        return answer["result"]


def messages(answer: httpx2.Response) -> list[Any]:
    """The messages of an answer, be it one or a stream of events."""
    if answer.headers.get("content-type", "").startswith("text/event-stream"):
        # Not splitlines: a text may hold characters that it takes for the end of a line.
        lines = answer.text.replace("\r\n", "\n").split("\n")
        return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]
    return [answer.json()]


def text(result: Any) -> str:
    """The text of a tool's result."""
    assert [block["type"] for block in result["content"]] == ["text"], result
    told: str = result["content"][0]["text"]
    return told
