"""Commands on backups, on the past, and on lines of memories; over a data directory and over a running service."""

import io
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tests.cli.conftest import Run, run_command
from tests.client.serving import serving
from unified_memory.cli import asking, views
from unified_memory.cli.progress import progress

LAST_SECONDS = 30


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(tmp_path_factory.mktemp("service")) as url:
        yield url


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


def keys(run: Run, *where: str) -> list[str]:
    return [one["key"] for one in run("list", *where, "--json").answer["memories"]]


# ---- backups
def test_a_backup_is_made_shown_proven_and_deleted(good: Run) -> None:
    good("store", "k", "v", "-n", "acme")
    made = good("backup", "create", "--note", "before the upgrade", "--json").answer
    assert good("backup", "list", "--json").answer["backups"] == [made]
    listed = good("backup", "list").out
    assert made["id"] in listed
    assert "before the upgrade" in listed
    assert "never" in listed
    assert re.search(r"is whole: 1 memory restored aside and compared in \d", good("backup", "verify", made["id"]).out)
    shown = good("backup", "show", made["id"]).out
    assert "acme (1)" in shown
    assert re.search(r"verified +whole 20\d\d-", shown)
    assert re.search(r"memories-\S+ +memories +1 ", shown)
    assert "Last backup: 20" in good("health").out
    assert good("backup", "delete", made["id"]).out.startswith(f"Deleted the backup {made['id']} of 20")
    assert good("backup", "list").out == "Nothing found\n"


def test_backup_alone_makes_one(good: Run) -> None:
    good("store", "k", "v")
    assert re.fullmatch(r"Made the backup \S+: 1 memory, \d\S* \w+\n", good("backup").out)
    second = good("backup", "create", "--parent", "latest", "--verify")
    assert re.search(r", what changed since \S+, whole 20", second.out)


def test_a_backup_that_is_damaged_ends_with_4_and_one_that_is_not_there_with_3(
    good: Run, run: Run, data_dir: Path
) -> None:
    good("store", "k", "a value of some length")
    made = good("backup", "--json").answer["id"]
    (file,) = (data_dir / "backups" / made).glob("memories-*")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    for command in (("backup", "verify", made), ("restore", made, "--yes")):
        ran = run(*command)
        assert (ran.status, ran.out) == (4, "")
        assert file.name in ran.err
    assert "DAMAGED" in good("backup", "list").out
    assert run("backup", "verify", "20260102T030405Z-9f86d081").status == 3
    assert run("backup", "show", "nothing").status == 3


def test_a_restore_shows_what_would_change_and_asks(good: Run, run: Run, terminal: Callable[[bool], list[str]]) -> None:
    good("store", "kept", "1", "-n", "acme")
    made = good("backup", "--json").answer["id"]
    good("store", "new", "1", "-n", "acme")
    asked = terminal(False)
    ran = run("restore", made)
    assert (ran.status, ran.out) == (1, "")
    assert re.search(r"acme +0 +0 +1 +1 +removed: new", ran.err)
    assert "Nothing was done" in ran.err
    assert asked == ["Restore it?"]
    assert keys(good) == ["kept", "new"]
    terminal(True)
    ran = run("restore", made)
    assert ran.status == 0
    assert "0 added, 0 changed, 1 removed, 1 same" in ran.out
    assert "What was there before: " in ran.out
    assert keys(good) == ["kept"]


def test_without_a_terminal_a_restore_wants_yes(good: Run, run: Run) -> None:
    good("store", "k", "1")
    made = good("backup", "--json").answer["id"]
    good("delete", "k")
    ran = run("restore", made)
    assert (ran.status, ran.out) == (2, "")
    assert "--yes" in ran.err
    assert keys(good) == []
    dry = good("restore", made, "--dry-run", "--json").answer
    assert (dry["dry_run"], dry["added"], keys(good)) == (True, 1, [])
    told = good("restore", made, "--yes", "--no-safety", "--json").answer
    assert (told["safety_backup"], keys(good)) == (None, ["k"])


def test_a_namespace_comes_back_under_another_name_and_a_merge_keeps_what_is_there(good: Run) -> None:
    good("store", "k", "1", "-n", "acme")
    full = good("backup", "--json").answer["id"]
    good("store", "l", "1", "-n", "acme")
    second = good("backup", "create", "--parent", full, "--json").answer["id"]
    named = ["--mode", "namespace", "--namespace", "acme", "--target", "copy", "--yes", "--no-safety"]
    good("restore", second, "--as-of", full, *named)
    assert keys(good, "-n", "copy") == ["k"]
    good("restore", second, "--mode", "merge", "--yes", "--no-safety")
    assert keys(good, "-n", "copy") == ["k"]


def test_a_backup_restores_where_nothing_is(good: Run, data_dir: Path) -> None:
    good("store", "k", "1")
    made = good("backup", "--json").answer["id"]
    for file in data_dir.glob("unified-memory.db*"):
        file.unlink()
    assert made in good("backup", "list").out
    assert good("backup", "show", made, "--json").answer["id"] == made
    assert not (data_dir / "unified-memory.db").exists()
    told = good("restore", made, "--yes", "--json").answer
    assert (told["added"], told["safety_backup"]) == (1, None)
    assert good("retrieve", "k", "--value").out == "1\n"


def test_a_mistyped_directory_is_an_error(run: Run, data_dir: Path) -> None:
    for command in (("backup",), ("backup", "list"), ("restore", "x", "--yes"), ("export",), ("changes",)):
        ran = run(*command)
        assert (ran.status, ran.out) == (3, "")
        assert "There is no database" in ran.err
    assert not data_dir.exists()


# ---- history
def test_the_versions_of_a_memory_are_listed_shown_and_brought_back(good: Run) -> None:
    good("store", "k", "first", "-n", "acme")
    good("store", "k", "second", "-n", "acme")
    assert [one["version"] for one in good("history", "list", "k", "-n", "acme", "--json").answer["versions"]] == [2, 1]
    assert "current" in good("history", "list", "k", "-n", "acme").out
    assert good("history", "show", "k", "1", "-n", "acme", "--value").out == "first\n"
    at = good("history", "show", "k", "1", "-n", "acme", "--json").answer["metadata"]["updated_at"]
    assert good("retrieve", "k", "-n", "acme", "--as-of", at, "--value").out == "first\n"
    assert good("history", "restore", "k", "-n", "acme").out == "Restored k in acme: now at version 3\n"
    good("delete", "k", "-n", "acme")
    assert good("history", "restore", "k", "-n", "acme", "--version", "2").out.endswith("at version 4\n")
    assert good("retrieve", "k", "-n", "acme", "--value").out == "second\n"


def test_a_redaction_asks_and_takes_the_content_out(good: Run, run: Run, terminal: Callable[[bool], list[str]]) -> None:
    good("store", "k", "secret")
    good("store", "k", "public")
    assert run("history", "redact", "k", "--version", "1").status == 2
    asked = terminal(False)
    assert run("history", "redact", "k").status == 1
    assert asked == ["Take the content of all versions of k in default out for good?"]
    assert good("history", "redact", "k", "--version", "1", "--yes").out == "Redacted k in default: version 1\n"
    assert run("history", "show", "k", "1").status == 3
    assert "redacted 20" in good("history", "list", "k").out
    assert good("retrieve", "k", "--value").out == "public\n"


def test_a_namespace_is_told_how_much_of_the_past_to_keep(good: Run, run: Run) -> None:
    made = good("namespaces", "create", "n", "--history-keep", "0", "--history-days", "7.5", "--json").answer
    assert made["config"] == {"history_keep": 0, "history_days": 7.5}
    told = good("namespaces", "configure", "n", "--history-keep", "none", "--json").answer
    assert told["config"] == {"history_keep": None}
    assert run("namespaces", "configure", "n", "--history-days", "a week").status == 2


def test_the_changes_are_listed(good: Run, run: Run) -> None:
    good("store", "a", "1", "-n", "acme")
    good("store", "b", "1", "-n", "other")
    told = good("changes", "--since", "0", "-n", "acme", "--json").answer
    assert [(one["kind"], one["key"]) for one in told["changes"]] == [("store", "a")]
    shown = good("changes", "--limit", "1").out
    assert re.search(r"1 +20\S+ \S+ +store +acme +a +1", shown)
    assert "Behind these: --since 1" in shown
    assert run("changes", "--follow", "--limit", "1").status == 2
    assert run("changes", "--since", "99").status == 2


@pytest.mark.parametrize("more", [[], ["--json"]])
def test_the_changes_are_followed(url: str, tmp_path: Path, more: list[str]) -> None:
    for where in (["--url", url], ["--data-dir", str(tmp_path / "data")]):
        run_command("store", "first", "1", *where)
        since = run_command("changes", "--json", *where).answer["next"] - 1
        command = [sys.executable, "-m", "unified_memory", "changes", "--follow", "--since", str(since), *more, *where]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
            assert following.stdout is not None
            lines = [following.stdout.readline()]
            run_command("store", "second", "1", *where)
            lines.append(following.stdout.readline())
            following.terminate()
        if more:
            assert [json.loads(line)["key"] for line in lines] == ["first", "second"]
        else:
            assert [line.split()[-3] for line in lines] == ["first", "second"]


# ---- out and in
def test_what_goes_out_comes_in_again(good: Run, tmp_path: Path) -> None:
    for number in range(3):
        good("store", f"k{number}", str(number), "-n", "acme")
    good("store", "other", "1", "-n", "other")
    lines = good("export", "-n", "acme").out
    assert [json.loads(line)["key"] for line in lines.splitlines()] == ["k0", "k1", "k2"]
    elsewhere = ["--data-dir", str(tmp_path / "elsewhere")]
    ran = run_command("import", "-", *elsewhere, stdin=lines.encode())
    assert (ran.status, ran.out) == (0, "Read 3 lines: 3 stored, 0 replaced, 0 skipped, 0 failed\n")
    again = run_command("import", "-", *elsewhere, "--json", stdin=lines.encode()).answer
    assert (again["stored"], again["skipped"]) == (0, 3)
    assert run_command("export", *elsewhere).out == lines
    into = run_command("import", "-", "--into", "copy", *elsewhere, "--json", stdin=lines.encode())
    assert into.answer["stored"] == 3


def test_a_file_is_written_whole_or_not_at_all(good: Run, run: Run, tmp_path: Path) -> None:
    good("store", "k", "1", "-n", "acme")
    file = tmp_path / "acme.jsonl"
    told = good("export", "-n", "acme", "--output", str(file)).out
    assert told == f"Wrote 1 line ({file.stat().st_size} B) to {file}\n"
    before = file.read_bytes()
    assert json.loads(before)["key"] == "k"
    assert run("export", "-n", "nowhere", "--output", str(file)).status == 3
    assert run("export", "--output", str(tmp_path / "no" / "x")).status == 2
    assert file.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir() if one.is_file()] == ["acme.jsonl"]
    good("delete", "k", "-n", "acme")
    assert good("import", str(file), "--json").answer["stored"] == 1


def test_lines_that_fail_are_told_and_the_end_says_so(good: Run, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "lines.jsonl"
    file.write_text('{"key": "a", "value": 1}\nnonsense\n', encoding="utf-8")
    ran = run("import", str(file))
    assert ran.status == 1
    assert ran.out.startswith("Read 2 lines: 1 stored, 0 replaced, 0 skipped, 1 failed\n")
    assert re.search(r"2 +malformed_input ", ran.out)
    good("store", "a", "2")
    assert run("import", str(file), "--on-conflict", "fail").status == 4
    assert run("import", str(file), "--on-conflict", "perhaps").status == 2
    assert run("import", str(tmp_path / "nothing")).status == 2
    assert run("import", str(tmp_path)).status == 2


# ---- a running service gives the same
def test_a_service_does_the_same(url: str, tmp_path: Path) -> None:
    where = ["--url", url]
    run_command("store", "k", '"v"', "-n", "here", *where)
    run_command("store", "k", '"w"', "-n", "here", *where)
    file = tmp_path / "here.jsonl"
    assert run_command("export", "-n", "here", "-o", str(file), *where).status == 0
    assert run_command("export", "-n", "here", *where).out == file.read_text(encoding="utf-8")
    assert run_command("history", "show", "k", "1", "-n", "here", "--value", *where).out == "v\n"
    made = run_command("backup", "create", "--verify", "--json", *where).answer
    assert made["verified"]["ok"] is True
    run_command("delete", "k", "-n", "here", *where)
    assert run_command("import", str(file), "--json", *where).answer["stored"] == 1
    told = run_command("restore", made["id"], "--mode", "merge", "--yes", "--json", *where)
    assert told.answer["backup_id"] == made["id"]
    assert run_command("backup", "delete", made["id"], *where).status == 0


# ---- what is seen of it
def test_the_bar_tells_how_long_it_may_still_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    seen = io.StringIO()
    monkeypatch.setattr(sys, "stderr", seen)
    for unit, counted in (("memories", "50/100"), ("bytes", "50/100 bytes")):
        with progress("backup", unit) as advance:
            advance(0, 100)
            advance(50, 100)
        told = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", seen.getvalue())
        assert counted in told
        assert re.search(r"left: +(\d:\d\d:\d\d|-:--:--)", told)


def test_health_names_a_backup_that_did_not_prove_good() -> None:
    answer: dict[str, Any] = {"service": "s", "version": "1", "status": "ok", "reasons": [], "meaning": None}
    at = "2026-01-02T03:04:05.000006Z"
    answer["backup"] = {"last_at": at, "verified_at": at, "verified_ok": False}
    assert views.health(answer).endswith(
        "Last backup: 2026-01-02 03:04:05Z; last verified: 2026-01-02 03:04:05Z, which found damage"
    )
