"""Processes of `runner.py`, and what they say."""

import asyncio
import os
import re
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from pathlib import Path
from typing import TypeVar

import msgspec

from tests.faults.runner import Orders

ROOT = Path(__file__).parents[2]
# No answer takes longer on any machine; what is awaited here comes within a fraction of a second.
PATIENCE = 60.0
T = TypeVar("T")


class Runner:
    """A process that was started. Everything that it says is kept for the failure it may explain."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self.said: list[str] = []

    @classmethod
    async def start(cls, orders: Orders) -> "Runner":
        """Starts it; it may not be ready yet."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.faults.runner",
            msgspec.json.encode(orders).decode(),
            cwd=ROOT,
            stdin=PIPE,
            stdout=PIPE,
            stderr=STDOUT,
            limit=2**24,
        )
        return cls(process)

    async def line(self, pattern: str) -> re.Match[str]:
        """Waits for a line in which the pattern is found."""
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while raw := await self._process.stdout.readline():
                self.said.append(raw.decode().rstrip())
                if found := re.search(pattern, self.said[-1]):
                    return found
        raise AssertionError(f"{pattern!r} was never said, but: {self.said}")

    async def told(self, kind: type[T]) -> T:
        """What it tells at last of its work."""
        return msgspec.json.decode((await self.line(r"^\{.*\}$"))[0], type=kind)

    async def port(self) -> int:
        """Waits until it serves; where."""
        return int((await self.line(r"serves http://[^:]*:(\d+) "))[1])

    def send(self, word: str) -> None:
        """Says a line to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n".encode())

    def signal(self, number: int) -> None:
        """Sends a signal; one that has ended gets none."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def stopped(self) -> None:
        """Waits until it was stopped by a signal; a signal to go on sent before that would be lost."""
        async with asyncio.timeout(PATIENCE):
            await asyncio.to_thread(os.waitid, os.P_PID, self._process.pid, os.WSTOPPED)

    def kill(self) -> None:
        """Ends it at once, as `kill -9` does."""
        self.signal(signal.SIGKILL)

    async def end(self) -> int:
        """Waits for its end: what it still says is read, its status returned."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        assert self._process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            self.said += (await self._process.stdout.read()).decode().splitlines()
            return await self._process.wait()
