"""A running service, as a process."""

import asyncio
import re
from pathlib import Path

from tests.mcp.wire import BOUND, COMMAND


class Running:
    """`unified-memory serve` on a free port."""

    def __init__(self, process: asyncio.subprocess.Process, url: str, draining: "asyncio.Task[None]") -> None:
        self.process = process
        self.url = url
        self._draining = draining

    @classmethod
    async def start(cls, directory: Path, *arguments: str) -> "Running":
        """Starts it; returns once it serves."""
        process = await asyncio.create_subprocess_exec(
            COMMAND,
            "serve",
            "--port",
            "0",
            "--data-dir",
            str(directory),
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stderr is not None
        said = ""
        async with asyncio.timeout(BOUND):
            # The last line that it writes at its start: by then its door is open too.
            while "Try it" not in said:
                line = (await process.stderr.readline()).decode()
                assert line, said
                said += line
        found = re.search(r"serves (http://\S+)", said)
        assert found is not None, said
        return cls(process, found[1], asyncio.create_task(_drain(process.stderr)))

    async def kill(self) -> None:
        """SIGKILL, where it still runs."""
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()
        await self._draining


async def _drain(stream: asyncio.StreamReader) -> None:
    while await stream.read(1 << 16):
        pass
