"""The older servers, running, and a client that speaks to any server over standard input and output: a JSON object a line."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from tests.conftest import absent
from tests.legacy.commands import Start

ANSWER_SECONDS = 30.0
_STOP_SECONDS = 10.0
# An answer is one line, and a loaded context may be long.
_LONGEST_LINE = 64 * 1024 * 1024
HANDSHAKE = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "tests", "version": "1"}}


class Connection:
    """One client of one server process. Requests are sent one at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.process = process
        self._input = process.stdin
        self._output = process.stdout
        self._number = 0

    async def request(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        """The whole answer, result or error. TimeoutError where none comes within ANSWER_SECONDS."""
        self._number += 1
        await self._send({"id": self._number, "method": method, "params": params or {}})
        async with asyncio.timeout(ANSWER_SECONDS):
            while line := await self._output.readline():
                answer: dict[str, Any] = json.loads(line)
                # Notifications come in between.
                if answer.get("id") == self._number:
                    return answer
        raise EOFError(f"The server ended with status {await self.process.wait()} instead of answering {method}")

    async def notify(self, method: str) -> None:
        await self._send({"method": method})

    async def shake_hands(self) -> dict[str, Any]:
        """The handshake; what the server says of itself."""
        answer = await self.request("initialize", HANDSHAKE)
        # extended-memory answers this notification, with id 0.
        await self.notify("notifications/initialized")
        result: dict[str, Any] = answer["result"]
        return result

    async def call(self, name: str, **arguments: Any) -> dict[str, Any]:
        """The result of a call of a tool. An error of JSON-RPC is an AssertionError."""
        answer = await self.request("tools/call", {"name": name, "arguments": arguments})
        assert "result" in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def _send(self, message: dict[str, Any]) -> None:
        self._input.write(json.dumps({"jsonrpc": "2.0", **message}).encode() + b"\n")
        await self._input.drain()


@contextlib.asynccontextmanager
async def running(start: Start, directory: Path) -> AsyncIterator[Connection]:
    """The server with `directory` as its working directory and home, the handshake done.

    Skips the test (in CI: fails it) where it is not installed.
    """
    if not start.installed:
        absent("The older servers are not installed; scripts/setup --legacy does it")
    with (directory / "stderr.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *start.command,
            cwd=directory,
            env={"HOME": str(directory), **start.environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            limit=_LONGEST_LINE,
        )
        connection = Connection(process)
        try:
            await connection.shake_hands()
            yield connection
        finally:
            await _stop(process)


async def _stop(process: asyncio.subprocess.Process) -> None:
    """Ends it as a client does: nothing more to say; then by force."""
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_STOP_SECONDS):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
