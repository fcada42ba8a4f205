"""The older servers themselves move here and back while clients write through proxies: nothing is lost, and nobody sees an error.

`--hypothesis-seed N` repeats a run, as far as processes can be repeated.
"""

import asyncio
import json
import logging
import random
import tarfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.legacy.clients import PROGRAM, QUICK, Client, between, check, places, started
from tests.legacy.servers import running

pytestmark = pytest.mark.slow

CLIENTS = 3
COMMAND_SECONDS = 90.0
STEP_SECONDS = 120.0
SERVICES = ["extended-memory", "memory-bank-npm", "memory-bank-pypi"]
log = logging.getLogger(__name__)


class World:
    """An older service with something in it, clients that write all the time, and the command that migrates."""

    def __init__(self, service: str, directory: Path, seed: int) -> None:
        self.service = service
        self.place = place = places(directory)[service]
        self.first = place.client("first", place.directory, place.older, seed)
        self.clients = [
            place.client(f"client{number}", place.directory, place.proxy, seed) for number in range(CLIENTS)
        ]
        self._stepped = asyncio.Condition()
        self._pausing = False
        self._working: list[asyncio.Task[None]] = []
        self._running: list[asyncio.subprocess.Process] = []

    async def begin(self) -> None:
        """What the older service held before there was a proxy; then the clients begin."""
        await self.first.start()
        for _ in range(30):
            await self.first.step()
        assert await self.first.end() == 0
        await asyncio.gather(*(client.start() for client in self.clients))
        self.resume()

    async def _work(self, client: Client) -> None:
        try:
            while not self._pausing:
                await client.step()
                await self._notify()
        finally:
            await self._notify()

    async def _notify(self) -> None:
        async with self._stepped:
            self._stepped.notify_all()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Waits until it holds. Raises what a client has met with."""

        def looked() -> bool:
            for task in self._working:
                if task.done():
                    task.result()
            return holds()

        async with asyncio.timeout(STEP_SECONDS), self._stepped:
            await self._stepped.wait_for(looked)

    async def further(self, steps: int) -> None:
        """Each client does so much more, and loses its server as often as it was doomed to."""
        goals = [(client, client.steps + steps) for client in self.clients]
        await self.until(lambda: all(client.steps >= goal and not client.doomed for client, goal in goals))

    def doom(self) -> None:
        """Each client loses its server in one of its next calls."""
        for client in self.clients:
            client.doomed += 1

    async def pause(self) -> None:
        """The clients end what they are at, and do nothing more."""
        self._pausing = True
        await asyncio.gather(*self._working)
        self._pausing, self._working = False, []
        log.warning("steps and deaths: %s", [(client.steps, client.deaths) for client in self.clients])

    def resume(self) -> None:
        """The clients go on."""
        self._working = [asyncio.create_task(self._work(client)) for client in self.clients]

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
        begun = asyncio.get_running_loop().time()
        told = await self.ended(await self.begun(*arguments))
        log.warning("migrate %s: %.1f s", arguments[0], asyncio.get_running_loop().time() - begun)
        return told

    async def following(self) -> asyncio.subprocess.Process:
        """A run that goes on, when everything was copied once."""
        run = await self.begun("run", "--source", self.place.source, "--follow", "--interval", "0.3", "--yes")
        while not (await self.migrate("status"))["complete"]:
            assert run.returncode is None, await run.communicate()
        return run

    # ---- what is shown in the end
    def files(self) -> dict[str, bytes]:
        """The files of the older service."""
        top = self.place.files
        return {str(file): file.read_bytes() for file in (top.rglob("*") if top.is_dir() else [top]) if file.is_file()}

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


@pytest.fixture
def seed(pytestconfig: pytest.Config) -> int:
    named: int | None = pytestconfig.getoption("--hypothesis-seed")
    seed = random.getrandbits(32) if named is None else int(named)
    log.warning("--hypothesis-seed %d", seed)
    return seed


@pytest.fixture(params=SERVICES)
async def world(request: pytest.FixtureRequest, tmp_path: Path, seed: int) -> AsyncIterator[World]:
    world = World(request.param, tmp_path, seed)
    try:
        await world.begin()
        yield world
    finally:
        await world.close()


async def test_clients_that_stay_lose_nothing_on_the_way_there_and_back(world: World) -> None:
    await world.further(10)
    run = await world.following()
    await world.further(20)
    await world.pause()
    assert (await world.migrate("verify"))["ok"]
    world.resume()
    await world.migrate("switch", "--yes")
    assert (await world.ended(run))["complete"]
    await world.further(30)
    before = world.known()
    told = await world.migrate("rollback", "--yes")
    after = world.known()
    assert told["status"] == "rollback_complete"
    await world.further(20)
    await world.end()
    await world.older_shows(world.known())
    await world.ours_shows(between(world.place, before, after))


async def test_nothing_is_lost_with_proxies_that_are_killed(world: World) -> None:
    world.doom()
    run = await world.following()
    world.doom()
    await world.further(10)
    world.doom()
    await world.migrate("switch", "--yes")
    assert (await world.ended(run))["complete"]
    world.doom()
    await world.further(10)
    world.doom()
    before = world.known()
    await world.migrate("rollback", "--yes")
    after = world.known()
    world.doom()
    await world.further(10)
    await world.end()
    await world.older_shows(world.known())
    await world.ours_shows(between(world.place, before, after))


async def test_the_way_may_be_gone_twice_and_ends_with_the_older_files_kept_whole(world: World, tmp_path: Path) -> None:
    await world.migrate("run", "--source", world.place.source, "--yes")
    await world.migrate("switch", "--yes")
    await world.further(10)
    told = await world.migrate("rollback", "--yes")
    await world.further(5)
    await world.pause()
    files = world.files()
    assert await world.migrate("rollback", "--yes") == told
    assert world.files() == files
    world.resume()
    await world.further(5)
    await world.migrate("run", "--yes")
    await world.further(5)
    await world.migrate("switch", "--yes")
    await world.further(10)
    before = world.known()
    [backup] = (await world.migrate("finish", "--yes"))["backups"]
    after, files = world.known(), world.files()
    await world.further(5)
    await world.end()
    await world.ours_shows(world.known())
    assert world.files() == files
    with tarfile.open(backup) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    unpacked = places(tmp_path / "unpacked")[world.service]
    async with running(unpacked.older, tmp_path / "unpacked") as connection:
        await check(connection, unpacked, between(world.place, before, after))
