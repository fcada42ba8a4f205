"""The commands `proxy http`, `proxy bank` and `proxy stdio`, as processes."""

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.proxy.manager import BOUND
from unified_memory.sources.ledger import Ledger, Phase

PROGRAM = "import sys; from unified_memory.cli.proxy import commands; commands(['proxy', *sys.argv[1:]])"
Start = Callable[..., Coroutine[Any, Any, tuple[asyncio.subprocess.Process, str]]]


async def begun(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory whose migration is at its end."""
    ledger = Ledger(tmp_path / "migration" / "ledger.db")
    ledger.open()
    ledger.set_phase(Phase.FINISHED)
    ledger.close()
    return tmp_path


@pytest.fixture
async def start(data: Path) -> AsyncIterator[Start]:
    """Starts a proxy on a free port; the process and its URL."""
    running: list[asyncio.subprocess.Process] = []

    async def begin(*arguments: str) -> tuple[asyncio.subprocess.Process, str]:
        process = await begun(*arguments, "--port", "0", "--data-dir", str(data))
        running.append(process)
        assert process.stderr is not None
        said = ""
        async with asyncio.timeout(BOUND):
            while "answers at" not in said:
                line = (await process.stderr.readline()).decode()
                assert line, said
                said += line
        found = re.search(r"answers at (http://[\d.:]+)", said)
        assert found is not None
        return process, found[1]

    yield begin
    for process in running:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_proxy_of_the_http_service_answers_and_keeps_what_it_said_when_it_is_killed(start: Start) -> None:
    process, url = await start("http")
    async with httpx2.AsyncClient(trust_env=False, timeout=BOUND) as client:
        assert (await client.post(f"{url}/store", json={"key": "k", "value": 1})).json()["persisted"] is True
        process.kill()
        await process.wait()
        process, url = await start("http")
        assert (await client.get(f"{url}/retrieve/k")).json()["value"] == 1
    process.send_signal(signal.SIGTERM)
    assert await asyncio.wait_for(process.wait(), BOUND) == -signal.SIGTERM


async def test_the_proxy_of_the_memory_bank_ends_though_a_stream_is_open(start: Start) -> None:
    process, url = await start("bank")
    async with (
        httpx2.AsyncClient(trust_env=False, timeout=BOUND) as client,
        client.stream("GET", f"{url}/sse") as stream,
    ):
        parts = stream.aiter_raw()
        assert b"/messages/?session_id=" in await anext(parts)
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(BOUND):
            assert b"".join([part async for part in parts]) == b""
            await process.wait()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("stdio", "nothing"), "There is no older server 'nothing'"),
        (("stdio", "memory-bank", "--older", "'"), "--older is no command"),
        (("http", "--older", "npx"), "--older is the http:// URL"),
        (("bank", "--host", "0.0.0.0"), "loopback"),  # noqa: S104 - it must be refused
    ],
)
async def test_what_cannot_be_is_told_before_anything_is_done(tmp_path: Path, arguments: Any, told: str) -> None:
    process = await begun(*arguments, "--data-dir", str(tmp_path / "data"))
    async with asyncio.timeout(BOUND):
        _, said = await process.communicate()
    assert told in said.decode()
    assert process.returncode in {2, 5}
    assert not (tmp_path / "data").exists()


async def test_without_an_older_server_before_the_migration_the_client_is_told_what_is_missing(tmp_path: Path) -> None:
    process = await begun("stdio", "extended-memory", "--data-dir", str(tmp_path))
    async with asyncio.timeout(BOUND):
        out, _ = await process.communicate(b'{"jsonrpc":"2.0","id":1,"method":"tools/list"}\n')
    assert b"--older" in out
    assert process.returncode == 0
