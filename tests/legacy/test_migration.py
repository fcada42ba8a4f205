"""The older servers themselves move here and back while clients write through proxies: nothing is lost, and nobody sees an error.

`--hypothesis-seed N` repeats a run, as far as processes can be repeated.
"""

import asyncio
import contextlib
import json
import logging
import random
import sqlite3
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.legacy.clients import PROGRAM, QUICK, Client, Place, check, places, started
from tests.legacy.servers import running

pytestmark = pytest.mark.slow

CLIENTS = 3
COMMAND_SECONDS = 90.0
STEP_SECONDS = 120.0
SERVICES = ["extended-memory", "memory-bank-npm", "memory-bank-pypi"]
log = logging.getLogger(__name__)


class World:
    """An older service with something in it, clients that write all the time, and the command that migrates."""

    def __init__(self, place: Place, seed: int) -> None:
        self.place = place
        self.seed = seed
        self.first = place.client("first", place.directory, place.older, seed)
        self.clients = [
            place.client(f"client{number}", place.directory, place.proxy, seed) for number in range(CLIENTS)
        ]
        self._stepped = asyncio.Condition()
        self._working: list[asyncio.Task[None]] = []
        self._running: list[asyncio.subprocess.Process] = []

    async def begin(self) -> None:
        """What the older service held before there was a proxy; then the clients begin."""
        await self.first.start()
        for _ in range(30):
            await self.first.step()
        assert await self.first.end() == 0
        await asyncio.gather(*(client.start() for client in self.clients))
        self._working = [asyncio.create_task(self._work(client)) for client in self.clients]

    async def _work(self, client: Client) -> None:
        try:
            while True:
                await client.step()
                async with self._stepped:
                    self._stepped.notify_all()
        finally:
            async with self._stepped:
                self._stepped.notify_all()

    async def further(self, count: int) -> None:
        """Each client does so much more."""
        goals = [(client, client.steps + count) for client in self.clients]

        def done() -> bool:
            self.check()
            return all(client.steps >= goal for client, goal in goals)

        async with asyncio.timeout(STEP_SECONDS), self._stepped:
            await self._stepped.wait_for(done)

    async def deaths(self) -> None:
        """Each client loses its server once more at least."""
        goals = [(client, client.deaths + 1) for client in self.clients]

        def done() -> bool:
            self.check()
            return all(client.deaths >= goal for client, goal in goals)

        async with asyncio.timeout(STEP_SECONDS), self._stepped:
            await self._stepped.wait_for(done)

    def check(self) -> None:
        """Raises what a client has met with."""
        for task in self._working:
            if task.done():
                task.result()

    async def pause(self) -> None:
        """The clients finish what they are at, and do nothing more."""
        for client in self.clients:
            client.deadly = 0.0
        for task, client in zip(self._working, self.clients, strict=True):
            await _between_steps(task, client, self._stepped)
        self._working = []

    async def end(self) -> None:
        """The clients end as they do, and their servers with them."""
        await self.pause()
        assert await asyncio.gather(*(client.end() for client in self.clients)) == [0] * CLIENTS

    async def close(self) -> None:
        """Whatever is still there ends by force."""
        for task in self._working:
            task.cancel()
        if self._working:
            await asyncio.wait(self._working)
        for client in (self.first, *self.clients):
            await client.kill()
        for process in self._running:
            if process.returncode is None:
                process.kill()
                await process.wait()

    def known(self) -> list[Any]:
        """What was acknowledged until now."""
        return [client.copy() for client in (self.first, *self.clients)]

    # ---- migrate
    async def begun(self, *arguments: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            *PROGRAM,
            "migrate",
            *arguments,
            *self.place.data,
            "--json",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={"HOME": str(self.place.directory)} | QUICK,
        )
        self._running.append(process)
        return process

    async def ended(self, process: asyncio.subprocess.Process) -> Any:
        """What the command has told."""
        async with asyncio.timeout(COMMAND_SECONDS):
            output, errors = await process.communicate()
        assert process.returncode == 0, (process.returncode, output.decode(), errors.decode())
        return json.loads(output)

    async def migrate(self, *arguments: str) -> Any:
        """What `unified-memory migrate …` tells."""
        return await self.ended(await self.begun(*arguments))

    async def following(self) -> asyncio.subprocess.Process:
        """A run that goes on, when everything was copied once."""
        run = await self.begun("run", "--source", self.place.source, "--follow", "--interval", "0.3", "--yes")
        while not (await self.migrate("status"))["complete"]:
            assert run.returncode is None, await run.communicate()
        return run

    # ---- what is shown in the end
    async def older_shows(self, known: list[Any]) -> None:
        """The older server alone, started again on its own files."""
        async with running(self.place.older, self.place.directory) as connection:
            await check(connection, self.place, known)

    async def ours_shows(self, known: list[Any]) -> None:
        """Our server alone."""
        connection = await started(self.place.ours, self.place.directory, "ours")
        try:
            await check(connection, self.place, known)
        finally:
            connection.process.kill()
            await connection.process.wait()


async def _between_steps(task: "asyncio.Task[None]", client: Client, stepped: asyncio.Condition) -> None:
    raise NotImplementedError
