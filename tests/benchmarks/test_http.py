import argparse
from pathlib import Path

import msgspec
import pytest
from rich.progress import Progress

from benchmarks import http
from benchmarks._load import LoadGenerator, request
from benchmarks._servers import bare


def test_a_quick_run_measures_every_operation_with_every_number_of_connections(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "report.json"
    assert http.main(["--quick", "--seconds", "0.05", "--json", str(file), "--directory", str(tmp_path)]) == 0

    report = msgspec.json.decode(file.read_bytes(), type=http.Report)
    assert {(row.size, row.operation, row.connections) for row in report.rows} == {
        (1_000, operation, connections)
        for operation in ("bare", "retrieve", "search_one", "store_overwrite", "store_new")
        for connections in (1, 32, 128)
    }
    for row in report.rows:
        assert row.rate > 0
        assert row.ratio > 0
        assert 0 < row.p50 <= row.p95 <= row.p99
    [filled] = report.sizes
    assert (filled.size, filled.namespaces) == (1_000, 1)
    assert filled.disk_bytes > filled.raw_bytes > 130_000
    assert report.machine.cores >= 1
    assert {goal.name for goal in report.goals} >= {
        "retrieve, 32 connections: share of bare",
        "store_new, 1 connection: share of bare",
        "search_one, 1 connection: p95",
        "search_one, 32 connections: p95",
        "process start to first answered /health",
        "resident memory",
    }
    assert "share of bare" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [file]


def test_a_request_that_fails_is_told() -> None:
    # Uvicorn answers 400 to what is not HTTP.
    requests = [request("GET", "/"), b"nonsense\r\n\r\n"]
    operation = http.Operation("mixed", "mixed", lambda _seconds: requests, repeat=False)
    options = argparse.Namespace(seconds=0.01, rounds=1, connections=[2])
    with LoadGenerator() as generator, bare() as server, Progress(disable=True) as progress:
        bench = http.Bench(generator, server, options, progress)
        bench.measure(server, 0, [[operation]])
    [error] = bench.errors
    assert error.startswith("mixed, 2 connections: 1 of 2 requests failed: ")
