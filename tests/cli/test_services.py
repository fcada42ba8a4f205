"""Commands that ask a running service, and long work."""

import asyncio
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from tests.cli.conftest import run_command
from tests.client.serving import serving
from unified_memory.cli import views
from unified_memory.cli.command import Job, Target, fail, job_result
from unified_memory.client import UnifiedMemoryClient, protocol
from unified_memory.model.errors import BackupDamagedError, UnifiedMemoryError

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def url(data_dir: Path) -> Iterator[str]:
    with serving(data_dir) as url:
        yield url


def test_json_is_the_very_answer_of_rest(url: str) -> None:
    stored = run_command("store", "a/b ?", '{"a":  1.10}', "--url", url, "--json")
    assert stored.status == 0
    listed = run_command("list", "--url", url, "--json").out
    assert listed == httpx2.get(f"{url}/api/v1/memory/list", trust_env=False).text + "\n"
    assert '"value":{"a":  1.10}' in listed


def test_a_service_and_its_directory_give_the_same_answer(url: str, data_dir: Path) -> None:
    run_command("store", "same", "1", "-n", "same", "--url", url)
    for command in (
        ["list", "-n", "same"],
        ["query", "-n", "same", "--count"],
        ["namespaces", "get", "same"],
        ["jobs", "get", "no"],
    ):
        for more in ([], ["--json"]):
            asked = run_command(*command, *more, "--url", url)
            assert asked == run_command(*command, *more, "--data-dir", str(data_dir))


def test_a_service_moves_what_its_directory_shows(url: str, data_dir: Path) -> None:
    run_command("store", "k", '"value"', "-n", "moved", "--url", url)
    dry = ["tiers", "archive", "moved", "--dry-run", "--json"]
    assert run_command(*dry, "--url", url) == run_command(*dry, "--data-dir", str(data_dir))
    assert run_command("tiers", "archive", "moved", "--url", url).out == "Archived 1 memory of 7 B\n"
    told = [run_command("tiers", "--json", *where).answer for where in (["--url", url], ["--data-dir", str(data_dir)])]
    for name in ("warm", "cold", "archives"):
        assert told[0][name] == told[1][name]
    assert told[0]["demotions"] == 1
    assert run_command("tiers", "recall", "moved", "--data-dir", str(data_dir)).out == "Brought back 1 memory of 7 B\n"
    assert run_command("tiers", "recall", "moved", "--url", url).out == "Brought back 0 memories of 0 B\n"


def test_the_terminal_example_of_the_readme_runs(url: str) -> None:
    page = (ROOT / "README.md").read_text(encoding="utf-8")
    block = page.split("From a terminal", 1)[1].split("```bash\n", 1)[1].split("```")[0]
    lines = [shlex.split(line) for line in block.splitlines() if line.startswith("unified-memory")]
    assert len(lines) >= 3
    for _, *arguments in lines:
        ran = run_command(*(url if one == "http://127.0.0.1:3200" else one for one in arguments))
        assert (ran.status, ran.err) == (0, "")
        assert "vim" in ran.out or "editor" in ran.out


def test_long_work_is_waited_for(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    place = ["--data-dir", str(tmp_path / "data")]
    run_command("store", "k", "1", "-n", "n", *place)
    Target(json=True, data_dir=tmp_path / "data").ask_long(
        protocol.delete_namespace("n", recursive=True, wait=0), views.namespace_deleted
    )
    told = msgspec.json.decode(capfdbinary.readouterr().out)
    assert told == {"deleted": True, "namespace": "n", "memories": 1, "namespaces": 1, "dry_run": False}


def ended_job(state: str, error: dict[str, Any]) -> bytes:
    """The result of a job that was running and then has ended so."""
    going = {"id": "j", "kind": "cleanup", "state": "running", "done": 0, "total": None, "unit": "memories"}

    def answer(_request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={**going, "state": state, "result": None, "error": error})

    async def wait() -> bytes:
        async with UnifiedMemoryClient(transport=httpx2.MockTransport(answer)) as client:
            return await job_result(
                client, msgspec.convert({**going, "result": msgspec.Raw(b"null"), "error": None}, Job)
            )

    return asyncio.run(wait())


def test_long_work_fails_with_the_error_of_the_work() -> None:
    sent = {"code": "backup_damaged", "detail": "A part is damaged", "part": "memories-0001.jsonl.zst"}
    with pytest.raises(BackupDamagedError, match="A part is damaged") as told:
        ended_job("failed", sent)
    assert told.value.facts == {"part": "memories-0001.jsonl.zst", "job_id": "j"}
    assert fail(told.value) == 4
    with pytest.raises(UnifiedMemoryError, match="KeyError") as ours:
        ended_job("failed", {"code": "internal_error", "detail": "KeyError: 1"})
    assert fail(ours.value) == 1


@pytest.mark.parametrize("state", ["failed", "cancelled", "interrupted"])
def test_long_work_that_does_not_end_well_is_an_error(state: str) -> None:
    with pytest.raises(UnifiedMemoryError, match=f"The job j is {state}: The disk is full"):
        ended_job(state, {"detail": "The disk is full"})
