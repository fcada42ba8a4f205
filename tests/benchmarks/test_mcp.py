import argparse
import itertools
import sys
from pathlib import Path

import msgspec
import pytest
from rich.progress import Progress

from benchmarks import mcp
from benchmarks._mcp_callers import CallFailedError, stdio
from benchmarks._mcp_empty import TOOL
from benchmarks._mcp_stores import contexts, fill_extended_memory
from tests.conftest import absent
from tests.legacy import commands
from tests.legacy.servers import running

OURS = ["ours_stdio", "ours_forwarding", "ours_http", "ours_handshake"]
EMPTY = ["empty_stdio", "empty_http", "empty_handshake"]
OPERATIONS = {
    mcp.EXTENDED_MEMORY: ["load", "load_tag", "save", "both"],
    mcp.BANK_NPM: ["read", "write"],
    mcp.BANK_PYPI: ["read", "write"],
}


@pytest.mark.slow
def test_a_quick_run_calls_every_server_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "report.json"
    assert mcp.main(["--quick", "--json", str(file), "--directory", str(tmp_path)]) == 0

    report = msgspec.json.decode(file.read_bytes(), type=mcp.Report)
    there = [older for older in mcp.OLDER if older.start(tmp_path).installed]
    assert report.missing == [older.title for older in mcp.OLDER if older not in there]
    assert {(row.group, row.operation, row.server) for row in report.rows} == {
        (older.group, operation, server)
        for older, operations in OPERATIONS.items()
        for servers, names in (
            ([older.name] * (older in there) + OURS, operations),
            (EMPTY, ["empty"]),
        )
        for server in servers
        for operation in names
    }
    for row in report.rows:
        assert row.rate > 0
        assert 0 < row.p50 <= row.p95
        assert (row.of_empty is not None) == (row.server in OURS)
    starts = ["ours_forwarding", "ours_stdio", "empty_stdio"]
    assert [each.server for each in report.starts] == [*starts, *(older.name for older in there)]
    assert all(each.bytes > 5 * 1024**2 for each in report.residents)
    assert {goal.wanted for goal in report.goals} >= {"≥ 0.7", "< 0.4 s", "< 1.5 s"}
    assert ("≥ 3" in {goal.wanted for goal in report.goals}) == (mcp.EXTENDED_MEMORY in there)
    assert "of empty" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [file]


def test_the_empty_tool_is_called_over_every_transport() -> None:
    with mcp.empty_servers() as servers:
        assert [server.name for server in servers] == EMPTY
        for server in servers:
            for _ in range(2):
                server.caller.ready()
                assert server.caller.call(TOOL, {}) == ""


# Answers the handshake, then an error, a result that is an error, and nothing more.
FAILING = """
import json
for answer in ({"result": {}}, {"error": {"code": 1, "message": "told so"}},
               {"result": {"isError": True, "content": [{"type": "text", "text": "no such thing"}]}}):
    while "id" not in (request := json.loads(input())):
        pass
    print(json.dumps({"id": request["id"], **answer}), flush=True)
raise SystemExit("enough")
"""


def test_a_call_that_fails_is_told(tmp_path: Path) -> None:
    with stdio([sys.executable, "-c", FAILING], tmp_path, {}) as caller:
        for told in ("told so", "no such thing", "ended instead of answering:\nenough"):
            with pytest.raises(CallFailedError, match=told):
                caller.call("tool", {})


def test_an_answer_that_is_not_as_expected_ends_the_run(tmp_path: Path) -> None:
    options = argparse.Namespace(seconds=0.01, rounds=1)
    with mcp.empty_servers() as servers, Progress(disable=True) as progress:
        bench = mcp.Bench(options, tmp_path, [], progress)
        with pytest.raises(CallFailedError, match="empty tool, stdio: nothing answered ''"):
            bench.round(servers[0], itertools.repeat(mcp.Call(TOOL, {}, "something")), None, [])


@pytest.mark.slow
async def test_an_older_store_that_was_written_is_one_that_the_older_server_reads(tmp_path: Path) -> None:
    start = commands.extended_memory(tmp_path)
    if not start.installed:
        absent("extended-memory is not installed; scripts/setup --legacy does it")
    stored = contexts(40)
    fill_extended_memory(tmp_path / "memory.db", stored)
    async with running(start, tmp_path) as server:
        project = stored[-1]["project_id"]
        loaded = await server.call("load_contexts", project_id=project, importance_level=1)
        saved = await server.call("save_context", content="one more")
    of_project = [each for each in stored if each["project_id"] == project]
    text = loaded["content"][0]["text"]
    assert (
        f"Found {len(of_project)} saved contexts for project '{project}' including {len(of_project)} from last 24h"
        in text
    )
    assert all(each["content"] in text for each in of_project)
    assert "Context ID: 41\n" in saved["content"][0]["text"]
