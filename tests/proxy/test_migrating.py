"""The proxies as processes, before a memory bank that really moves here and back."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.manager import BOUND, make_service, until
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.migration import RunOptions
from unified_memory.service.service import Service
from unified_memory.sources.ledger import Phase

OLDER = Path(__file__).with_name("older.py")
GREETING = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
PROGRAM = "from unified_memory.cli.proxy import memory_bank; memory_bank()"


class Process:
    """The command `memory-bank-mcp` as a client starts it, and starts it again."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.process: asyncio.subprocess.Process
        self._number = 0

    async def start(self) -> Any:
        older = f"{sys.executable} {OLDER} {self.directory / 'older'}"
        self.process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-c",
            PROGRAM,
            "--data-dir",
            str(self.directory / "ours"),
            "--older",
            older,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        return await self.ask("initialize", GREETING)

    async def ask(self, method: str, params: Any) -> Any:
        """The result of a request. Raises EOFError where the process ends before it answers."""
        self._number += 1
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        async with asyncio.timeout(BOUND):
            line = await self.process.stdout.readline()
        if not line:
            raise EOFError
        told = json.loads(line)
        assert told["id"] == self._number, told
        return told["result"]

    async def write(self, file: str) -> None:
        arguments = {"projectName": "p", "fileName": file, "content": f"of {file}"}
        result = await self.ask("tools/call", {"name": "memory_bank_write", "arguments": arguments})
        assert not result["isError"], result

    async def read(self, file: str) -> str:
        arguments = {"projectName": "p", "fileName": file}
        result = await self.ask("tools/call", {"name": "memory_bank_read", "arguments": arguments})
        return str(result["content"][0]["text"])

    async def end(self) -> int:
        """Closes its standard input; the exit status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await asyncio.wait_for(self.process.wait(), BOUND)

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
            await self.process.wait()


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Service]:
    """The service in this process, as the command `migrate` opens it."""
    (tmp_path / "older" / "bank" / "p").mkdir(parents=True)
    (tmp_path / "older" / "bank" / "p" / "first.md").write_text("of first.md")
    service = make_service(tmp_path / "ours")
    await service.open()
    yield service
    await service.close()


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    process = Process(tmp_path)
    await process.start()
    yield process
    await process.kill()


def held(directory: Path) -> dict[str, str]:
    """What the older server holds."""
    return {file.name: file.read_text("utf-8") for file in (directory / "older" / "bank" / "p").iterdir()}


async def ours(service: Service) -> dict[str, str]:
    bank = service.bank
    return {file: await bank.read(ANONYMOUS, "p", file) for file in await bank.files(ANONYMOUS, "p")}


async def run(service: Service, directory: Path) -> None:
    await service.migration.run(ANONYMOUS, [("memory-bank-files", str(directory / "older" / "bank"))], RunOptions())


async def test_a_session_lasts_from_before_the_migration_to_after_the_return(
    service: Service, process: Process, tmp_path: Path
) -> None:
    files = ["first.md"]

    async def write(file: str) -> None:
        await process.write(file)
        files.append(file)

    await write("before.md")
    await run(service, tmp_path)
    assert set(await ours(service)) == set(files)
    await write("shadow.md")
    # The answer came after the copy.
    assert (await ours(service))["shadow.md"] == "of shadow.md"
    assert (await service.migration.switch(ANONYMOUS)).phase == Phase.SWITCHED
    await write("switched.md")
    assert await process.read("shadow.md") == "of shadow.md"

    await until(lambda: "switched.md" in held(tmp_path))
    told = await service.migration.rollback(ANONYMOUS)
    assert told.status == "rollback_complete"
    await write("returned.md")
    assert held(tmp_path) == {file: f"of {file}" for file in files}
    assert "returned.md" not in await ours(service)
    assert await process.end() == 0


@pytest.mark.parametrize(
    "killed_in",
    [
        Phase.SHADOW,
        # What it was writing back is free for others only after some time.
        pytest.param(Phase.SWITCHED, marks=pytest.mark.slow),
    ],
)
async def test_a_proxy_that_is_killed_and_started_again_has_lost_nothing_that_it_acknowledged(
    service: Service, process: Process, tmp_path: Path, killed_in: Phase
) -> None:
    await run(service, tmp_path)
    acknowledged: list[str] = []
    stop = asyncio.Event()

    async def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                await process.write(f"{number}.md")
            except (EOFError, ConnectionError):
                # What a client does whose server has gone: it starts another one.
                await process.start()
            else:
                acknowledged.append(f"{number}.md")

    async def further(count: int) -> None:
        goal = len(acknowledged) + count
        await until(lambda: len(acknowledged) >= goal)

    writing = asyncio.create_task(write())
    await further(5)
    if killed_in is Phase.SHADOW:
        process.process.kill()
        await further(5)
    await service.migration.switch(ANONYMOUS)
    await further(5)
    if killed_in is Phase.SWITCHED:
        process.process.kill()
        await further(5)
    stop.set()
    await writing
    assert set(acknowledged) <= set(await ours(service))
    await service.migration.rollback(ANONYMOUS)
    kept = held(tmp_path)
    assert {file: kept.get(file) for file in acknowledged} == {file: f"of {file}" for file in acknowledged}


async def test_the_end_needs_no_older_server(service: Service, process: Process, tmp_path: Path) -> None:
    await run(service, tmp_path)
    await service.migration.switch(ANONYMOUS)
    await service.migration.finish(ANONYMOUS)
    (tmp_path / "older").rename(tmp_path / "elsewhere")
    await process.write("last.md")
    assert await process.read("first.md") == "of first.md"
    assert (await process.ask("ping", {})) == {}
