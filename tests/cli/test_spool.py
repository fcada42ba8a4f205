"""The commands on a spool."""

import json
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from typer.testing import CliRunner

from tests.cli.conftest import Ran
from tests.client.serving import serving
from unified_memory.cli.spool import commands
from unified_memory.client import Spool, SyncUnifiedMemoryClient, protocol
from unified_memory.client.resilience import with_key

NOWHERE = "http://127.0.0.1:9"


def run(*arguments: str) -> Ran:
    result = CliRunner().invoke(commands, ["spool", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A spool with a store, an update of something else, and a delete."""
    made = tmp_path / "spool.db"
    with Spool(made) as spool:
        spool.add("store", with_key(protocol.store("k", {"n": 10**20}, "demo")))
        spool.add("update", with_key(protocol.update("none", "demo", value=1)))
        spool.add("delete", with_key(protocol.delete("k", "demo")))
    return made


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("service")) as made:
        yield made


def test_the_list_tells_what_waits(path: Path) -> None:
    ran = run("list", "--spool", str(path))
    assert ran.status == 0
    assert "3 wait, 0 failed; " in ran.out
    told = run("list", "--spool", str(path), "--json", "--limit", "1", "--after", "1").answer
    assert [(one["number"], one["kind"], one["state"]) for one in told["entries"]] == [(2, "update", "waiting")]
    assert told["totals"]["waiting"] == 3


def test_a_write_is_shown_with_what_it_says(path: Path) -> None:
    assert "100000000000000000000" in run("show", "1", "--spool", str(path)).out
    told = run("show", "3", "--spool", str(path), "--json").answer
    assert (told["request"]["method"], told["request"]["body"]) == ("DELETE", None)
    missing = run("show", "9", "--spool", str(path))
    assert (missing.status, "no such write" in missing.err) == (3, True)


def test_a_replay_sends_what_waits_and_failures_can_be_tried_again(path: Path, url: str) -> None:
    away = run("replay", "--spool", str(path), "--url", NOWHERE)
    assert (away.status, "does not answer" in away.err) == (6, True)
    told = run("replay", "--spool", str(path), "--url", url, "--json").answer
    assert told == {"replayed": 2, "failed": 1, "waiting": 0}
    assert "Memory not found" in run("list", "--spool", str(path), "--failed").out
    with SyncUnifiedMemoryClient(url) as client:
        client.store("none", 0, "demo")
        assert run("replay", "--spool", str(path), "--url", url, "--failed").out.startswith(
            "The service has taken 1 write"
        )
        record = client.retrieve("none", "demo")
    assert record is not None
    assert record["value"] == 1


def test_writes_are_dropped_by_number_or_where_they_failed(path: Path) -> None:
    assert run("drop", "--spool", str(path)).status == 2
    assert run("drop", "1", "--failed", "--spool", str(path)).status == 2
    assert run("drop", "1", "--spool", str(path)).out == "Dropped 1 write\n"
    assert run("drop", "--failed", "--spool", str(path)).out == "Dropped 0 writes\n"
    assert [one["number"] for one in json.loads(run("list", "--spool", str(path), "--json").out)["entries"]] == [2, 3]


def test_what_is_no_spool_is_told_and_left_alone(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    database = apsw.Connection(str(other))
    database.execute("CREATE TABLE t (x)")
    database.close()
    before = other.read_bytes()
    assert "is no spool" in run("list", "--spool", str(other)).err
    assert other.read_bytes() == before
    assert "directory" in run("list", "--spool", str(tmp_path)).err


def test_a_spool_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    assert run("list", "--spool", str(tmp_path / "spool.db")).status == 3
    assert list(tmp_path.iterdir()) == []
