"""The conformance suite of MCP in both eras, and the inspector's judgement of every tool's schema."""

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.node import BOUND, INSPECTOR, ROOT, SUITE, node
from tests.mcp.service import Running
from tests.mcp.wire import HANDSHAKE, MODERN
from unified_memory.mcp.profiles import NAMES, profile

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("conformance")]
RESULT = re.compile(r"server-(?P<scenario>.+)-\d{4}-\d\d-\d\dT[\d-]+Z")
EXPECTED = re.compile(r"  - (?P<check>\S+:\S+) # \S.*")
WRONG = {"FAILURE", "WARNING"}
ISSUE = re.compile(r'tool "(.+)"\n  Path: (.+)')
PORTABLE_ENOUGH = {
    # A value is any JSON.
    ("memory_usage", "inputSchema.properties.value"),
    # As its older server told it.
    ("memory_bank_read", "outputSchema.properties.result"),
}


@pytest.fixture
async def fixture_url(tmp_path: Path) -> AsyncIterator[str]:
    """The address of the service with the suite's fixtures."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.conformance.fixture",
        str(tmp_path / "data"),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(BOUND):
            port = int(await process.stdout.readline())
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        if process.returncode is None:
            process.terminate()
        status = await asyncio.wait_for(process.wait(), BOUND)
    # As uvicorn ends once it has closed everything.
    assert status == -signal.SIGTERM


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[Running]:
    """`unified-memory serve`, as it is."""
    running = await Running.start(tmp_path / "data")
    yield running
    await running.kill()


def expected(file: Path) -> set[str]:
    """The checks that a list of expected failures names; each has its reason."""
    found: set[str] = set()
    for line in file.read_text(encoding="utf-8").splitlines():
        entry = EXPECTED.fullmatch(line)
        assert entry or line in {"server:", "server: []"} or line.startswith("#"), line
        found |= {entry["check"]} if entry else set()
    return found


def results(directory: Path) -> dict[str, list[Any]]:
    """The checks of each scenario that was run."""
    found: dict[str, list[Any]] = {}
    for one in directory.iterdir():
        name = RESULT.fullmatch(one.name)
        assert name is not None, one
        found[name["scenario"]] = json.loads((one / "checks.json").read_bytes())
    return found


@pytest.mark.parametrize("revision", [MODERN, HANDSHAKE])
async def test_the_suite_finds_nothing_but_what_is_expected(fixture_url: str, revision: str, tmp_path: Path) -> None:
    baseline = Path(__file__).parent / f"expected-{revision}.yaml"
    known = await node(tmp_path, SUITE, "list", "--server", "--spec-version", revision)
    arguments = (
        "--url",
        fixture_url,
        "--suite",
        "all",
        "--spec-version",
        revision,
        "--expected-failures",
        str(baseline),
    )
    done = await node(tmp_path, SUITE, "server", *arguments, "-o", str(tmp_path / "results"))

    found = results(tmp_path / "results")
    assert set(found) == set(re.findall(r"^  - (\S+)", known.out, re.MULTILINE))
    assert all(found.values()), found
    wrong = {
        f"{scenario}:{check['id']}": check.get("errorMessage")
        for scenario, checks in found.items()
        for check in checks
        if check["status"] in WRONG
    }
    unexpected = {name: message for name, message in wrong.items() if name not in expected(baseline)}
    assert unexpected == {}
    assert expected(baseline) - set(wrong) == set(), "No longer failing: take it out of the list"
    assert done.status == 0, done.out


@pytest.mark.parametrize("name", NAMES)
async def test_the_inspector_finds_every_schema_portable(service: Running, name: str, tmp_path: Path) -> None:
    target = ("--cli", "--transport", "http", f"{service.url}/mcp/{name}", "--protocol-era", "modern")
    done = await node(tmp_path, INSPECTOR, *target, "--method", "tools/list", "--strict")

    assert done.status == 0, done.err
    assert [tool["name"] for tool in json.loads(done.out)["tools"]] == [tool.name for tool in profile(name).tools]
    assert set(ISSUE.findall(done.err)) <= PORTABLE_ENOUGH, done.err
