"""Commands of the migration: over a data directory and over a running service, and the examples of its page."""

import json
import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.core import TyperGroup
from typer.main import get_command

from tests.cli.conftest import Run, run_command
from tests.client.serving import serving
from tests.conftest import absent
from tests.legacy.commands import memory_bank_npm
from unified_memory.cli import asking
from unified_memory.cli.application import app

ROOT = Path(__file__).parents[2]
LAST_SECONDS = 30


@pytest.fixture
def bank(tmp_path: Path) -> Path:
    """A folder of the memory bank with two projects."""
    for name in ("billing/brief.md", "billing/plan.md", "web/brief.md"):
        path = tmp_path / "older/bank" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"This is {name}", encoding="utf-8")
    return tmp_path / "older/bank"


def of(bank: Path) -> tuple[str, str]:
    return "--source", f"memory-bank-files={bank}"


def keys(run: Run) -> list[str]:
    return sorted(one["key"] for one in run("list", "-n", "projects", "--json").answer["memories"])


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], list[str]]:
    """Somebody sits there and answers every question so; the questions are told."""

    def sits(*, answers: bool) -> list[str]:
        asked: list[str] = []

        def confirm(question: str, **_: Any) -> bool:
            asked.append(question)
            return answers

        monkeypatch.setattr(asking, "on_terminal", lambda: True)
        monkeypatch.setattr(typer, "confirm", confirm)
        return asked

    return lambda answers: sits(answers=answers)


# ---- plan and run
def test_a_plan_shows_what_would_come_of_it_and_stores_nothing(good: Run, bank: Path) -> None:
    shown = good("migrate", "plan", *of(bank), "--first", "1").out
    assert f"memory-bank-files {bank}: 3 records" in shown
    assert re.search(r"file/billing/brief.md +projects/billing +brief.md ", shown)
    assert "Of the first 3 would be: 3 copied" in shown
    told = good("migrate", "plan", *of(bank), "--json").answer
    assert (told["phase"], told["sources"][0]["survey"]["projects"]) == ("none", {"billing": 2, "web": 1})
    assert keys(good) == []


def test_a_run_copies_and_again_only_what_is_new(good: Run, bank: Path) -> None:
    ran = good("migrate", "run", *of(bank), "--yes")
    assert re.search(r"billing +2 +2 copied", ran.out)
    assert "Read 3 records in " in ran.out
    assert keys(good) == ["brief.md", "brief.md", "plan.md"]
    (bank / "web/new.md").write_text("new", encoding="utf-8")
    again = good("migrate", "run", "--yes", "--json").answer
    counts = again["sources"][0]["counts"]
    assert (counts["read"], counts["copied"], counts["same"]) == (4, 1, 3)
    assert good("migrate", "report", "--json").answer == again


def test_what_cannot_be_stored_is_told_with_where_it_is(good: Run, bank: Path, data_dir: Path) -> None:
    (bank / "web/photo.md").write_bytes(b"\xff\xfe")
    (bank / "web/below").mkdir()
    ran = good("migrate", "run", *of(bank), "--yes")
    assert re.search(r"\(no project\) +1 +1 quarantined, 1 left there", ran.out)
    assert "migration/quarantine.jsonl" in ran.out
    (line,) = (data_dir / "migration/quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(line)["origin"] == "file/web/photo.md"


def test_a_dry_run_shows_what_would_be_stored_and_asks_nothing(good: Run, bank: Path) -> None:
    ran = good("migrate", "run", *of(bank), "--dry-run")
    assert "Would copy 3 records" in ran.out
    assert "projects/web" in ran.out
    assert keys(good) == []


def test_a_location_is_taken_from_where_the_command_works(
    good: Run, bank: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bank.parent)
    good("migrate", "run", "--source", "memory-bank-files=bank", "--yes")
    monkeypatch.chdir("/")
    assert good("migrate", "status", "--json").answer["sources"][0]["location"] == str(bank)
    assert good("migrate", "run", "--yes", "--json").answer["sources"][0]["counts"]["same"] == 3


@pytest.mark.parametrize("written", ["toml", "json"])
def test_a_mapping_file_says_what_becomes_of_which_record(good: Run, bank: Path, tmp_path: Path, written: str) -> None:
    mapping = tmp_path / f"mapping.{written}"
    if written == "json":
        mapping.write_text(json.dumps({"projects": {"web": "site"}, "tags": ["older"]}), encoding="utf-8")
    else:
        mapping.write_text('tags = ["older"]\n[projects]\nweb = "site"\n', encoding="utf-8")
    good("migrate", "run", *of(bank), "--mapping", str(mapping), "--namespace-template", "old/{project}", "--yes")
    found = good("list", "-n", "old/site", "--json").answer["memories"]
    assert [(one["key"], one["metadata"]["tags"]) for one in found] == [("brief.md", ["older"])]


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--source", "memory-bank-files"), 2, "is no source"),
        (("--source", "=x"), 2, "is no source"),
        (("--source", "floppy=x"), 2, "There is no kind of source 'floppy'"),
        (("--source", "memory-bank-files=nowhere"), 6, "memory-bank-files "),
        ((), 2, "No source is named"),
        (("--source", "memory-bank-files=/", "--mapping", "nowhere.json"), 2, "nowhere.json"),
        (("--source", "memory-bank-files=/", "--namespace-template", "{colour}"), 2, "colour"),
    ],
)
def test_what_cannot_be_migrated_is_told(run: Run, arguments: tuple[str, ...], status: int, said: str) -> None:
    ran = run("migrate", "run", *arguments, "--yes")
    assert (ran.status, ran.out) == (status, "")
    assert said in ran.err


# ---- asking
def test_a_run_shows_the_plan_first_and_asks(
    good: Run, run: Run, bank: Path, terminal: Callable[[bool], list[str]]
) -> None:
    asked = terminal(False)
    ran = run("migrate", "run", *of(bank))
    assert (ran.status, asked) == (1, ["Copy it?"])
    assert "3 records" in ran.err
    assert keys(good) == []
    assert terminal(True) == []
    assert run("migrate", "run", *of(bank)).status == 0
    assert len(keys(good)) == 3


@pytest.mark.parametrize("step", ["switch", "rollback", "finish"])
def test_a_step_says_what_will_happen_and_asks(
    good: Run, run: Run, bank: Path, terminal: Callable[[bool], list[str]], step: str
) -> None:
    good("migrate", "run", *of(bank), "--yes")
    if step != "switch":
        good("migrate", "switch", "--yes")
    before = good("migrate", "status", "--json").answer
    asked = terminal(False)
    ran = run("migrate", step)
    assert (ran.status, len(asked), ran.out) == (1, 1, "")
    assert "older files" in ran.err
    assert good("migrate", "status", "--json").answer == before


@pytest.mark.parametrize("step", ["run", "switch", "rollback", "finish"])
def test_without_a_terminal_nothing_is_done(good: Run, run: Run, bank: Path, step: str) -> None:
    good("migrate", "run", *of(bank), "--yes")
    ran = run("migrate", step)
    assert (ran.status, ran.out) == (2, "")
    assert "--yes" in ran.err


# ---- the steps
def test_steps_that_do_not_follow_are_conflicts(good: Run, run: Run, bank: Path) -> None:
    good("store", "k", "v")
    for step in (("switch", "--yes"), ("rollback", "--yes"), ("finish", "--yes"), ("report",)):
        assert run("migrate", *step).status == 4, step
    good("migrate", "run", *of(bank), "--yes")
    assert run("migrate", "finish", "--yes").status == 4


def test_all_the_way(good: Run, bank: Path) -> None:
    good("migrate", "run", *of(bank), "--yes")
    shown = good("migrate", "status").out
    assert re.search(r"phase +shadow, since 20", shown)
    assert re.search(rf"memory-bank-files +{bank} +3 ", shown)
    assert re.search(r"phase +switched", good("migrate", "switch", "--yes", "--timeout", "5").out)
    ended = good("migrate", "finish", "--yes").out
    assert "last copy" in ended
    assert f"rm -r {bank}" in ended
    assert bank.is_dir()


def test_the_way_back_writes_what_is_here_into_the_older_files(good: Run, bank: Path) -> None:
    good("migrate", "run", *of(bank), "--yes")
    good("migrate", "switch", "--yes")
    good("store", "plan.md", "--text", "Another plan", "-n", "projects/billing")
    ran = good("migrate", "rollback", "--yes")
    assert "The older services answer again. 1 memory written back, 1 of them found there as here" in ran.out
    assert (bank / "billing/plan.md").read_text(encoding="utf-8") == "Another plan"
    assert good("migrate", "rollback", "--yes").out == ran.out


# ---- verify
def test_verify_ends_with_4_where_something_differs(good: Run, run: Run, bank: Path) -> None:
    good("migrate", "run", *of(bank), "--yes")
    verified = good("migrate", "verify").out
    assert re.search(r"memory-bank-files +billing +2 +2 +2", verified)
    assert "Everything is as in its sources" in verified
    good("store", "brief.md", "changed", "-n", "projects/web")
    ran = run("migrate", "verify")
    assert (ran.status, ran.err) == (4, "")
    assert re.search(r"file/web/brief.md +value", ran.out)
    assert "Not everything is as in its sources" in ran.out


def test_the_older_service_is_asked_too(good: Run, run: Run, bank: Path) -> None:
    older = memory_bank_npm(bank.parent)
    if not older.installed:
        absent("The older servers are not installed; scripts/setup --legacy does it")
    command = shlex.join(["env", *(f"{name}={value}" for name, value in older.environment.items()), *older.command])
    good("migrate", "run", *of(bank), "--yes")
    asked = good("migrate", "verify", "--older", command, "--samples", "5").out
    assert "Asked both 5 times: 5 answered alike" in asked
    good("store", "brief.md", "changed", "-n", "projects/web")
    ran = run("migrate", "verify", "--older", command)
    assert (ran.status, ran.err) == (4, "")
    assert re.search(r"memory_bank_read +\{.*\} +This is web/brief.md +changed", ran.out)


# ---- following
def test_following_ends_with_ctrl_c_and_tells_what_it_did(good: Run, bank: Path, data_dir: Path) -> None:
    command = [*of(bank), "--follow", "--interval", "0.1", "--yes", "--json", "--data-dir", str(data_dir)]
    with subprocess.Popen(
        [sys.executable, "-m", "unified_memory", "migrate", "run", *command], stdout=subprocess.PIPE
    ) as following:
        report = data_dir / "migration/report.json"
        until(report.exists)
        (bank / "web/new.md").write_text("new", encoding="utf-8")
        until(lambda: json.loads(report.read_bytes())["records"] == 4)
        following.send_signal(signal.SIGINT)
        out, _ = following.communicate(timeout=LAST_SECONDS)
    assert following.returncode == 0
    assert json.loads(out)["sources"][0]["counts"]["copied"] == 4
    assert json.loads(out) == good("migrate", "report", "--json").answer
    assert good("jobs", "list", "--json").answer["jobs"][0]["state"] == "cancelled"


def until(holds: Callable[[], bool]) -> None:
    """Looks again and again until it holds."""
    for _ in range(LAST_SECONDS * 20):
        if holds():
            return
        time.sleep(0.05)
    raise AssertionError("It never came to be")


# ---- a running service
@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A running service, and the directory below which it takes sources."""
    older = tmp_path_factory.mktemp("older")
    (older / "bank/billing").mkdir(parents=True)
    (older / "bank/billing/a.md").write_text("one", encoding="utf-8")
    before = os.environ.get("MIGRATION_DIR")  # noqa: TID251 - what is set here goes to the service alone
    os.environ["MIGRATION_DIR"] = str(older)  # noqa: TID251 - as above
    try:
        with serving(tmp_path_factory.mktemp("service")) as url:
            yield url, older
    finally:
        del os.environ["MIGRATION_DIR"]  # noqa: TID251 - as above
        if before is not None:
            os.environ["MIGRATION_DIR"] = before  # noqa: TID251 - as above


def test_a_service_takes_what_lies_below_its_directory_only(served: tuple[str, Path]) -> None:
    url, older = served
    ran = run_command("migrate", "run", "--source", "memory-bank-files=/etc", "--yes", "--url", url)
    assert (ran.status, ran.out) == (5, "")
    assert "MIGRATION_DIR" in ran.err
    ran = run_command("migrate", "run", "--source", "memory-bank-files=bank", "--yes", "--url", url)
    assert (ran.status, ran.err) == (0, "")
    told = run_command("migrate", "status", "--url", url, "--json").answer
    assert told["sources"][0]["location"] == str(older / "bank")


# ---- the page
def test_the_examples_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("curl") is None:
        absent("curl is not installed; scripts/setup --system does it")
    older = tmp_path / "older"
    make_older(older)
    page = (ROOT / "docs/migration.md").read_text(encoding="utf-8")
    (mapping,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "mapping.toml").write_text(mapping, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    lines = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len(lines) > 6
    data_dir = tmp_path / "data"
    with serving(data_dir) as url:
        for line in lines:
            told = line.replace("/srv/older", str(older)).replace("http://127.0.0.1:3200", url)
            program, *arguments = shlex.split(told)
            if program == "curl":
                answer = subprocess.run(["curl", "-sf", *arguments], check=True, capture_output=True, text=True).stdout
                assert answer.startswith('{"phase":"')
            else:
                assert program == "unified-memory"
                ran = run_command(*arguments, "--data-dir", str(data_dir))
                assert (ran.status, ran.err) == (0, ""), line


def test_the_commands_of_the_page_that_need_older_services_are_spelled_well() -> None:
    page = (ROOT / "docs/migration.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    asked = [line.partition("unified-memory migrate ")[2] for line in lines if "unified-memory migrate " in line]
    assert len(asked) > 4
    root = get_command(app)
    assert isinstance(root, TyperGroup)
    group = root.commands["migrate"]
    assert isinstance(group, TyperGroup)
    for line in asked:
        name, *arguments = shlex.split(line)
        # Raises where there is no such option.
        group.commands[name].make_context(name, arguments)


def make_older(older: Path) -> None:
    """A bank, and a database as extended-memory makes it."""
    (older / "bank/billing").mkdir(parents=True)
    (older / "bank/billing/brief.md").write_text("Invoices go out on Fridays", encoding="utf-8")
    (older / "extended-memory").mkdir()
    with sqlite3.connect(older / "extended-memory/memory.db") as database:
        database.executescript(SCHEMA)
    database.close()


# Of extended-memory 0.9.0.
SCHEMA = """
CREATE TABLE contexts (id INTEGER PRIMARY KEY AUTOINCREMENT, project_id TEXT, content TEXT NOT NULL,
  importance_level INTEGER NOT NULL, status TEXT DEFAULT 'active', created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  expires_at TIMESTAMP, access_count INTEGER DEFAULT 0, last_accessed TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE tags (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE NOT NULL);
CREATE TABLE context_tags (context_id INTEGER, tag_id INTEGER, PRIMARY KEY (context_id, tag_id));
CREATE TABLE projects (id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT,
  last_accessed TIMESTAMP DEFAULT CURRENT_TIMESTAMP, status TEXT DEFAULT 'active');
INSERT INTO contexts (project_id, content, importance_level, created_at, last_accessed)
  VALUES ('billing', 'The database is PostgreSQL', 8, '2026-01-02T03:04:05.000006', '2026-01-02 03:04:05');
"""
