"""What a reader of the repository must never find in it."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PACKAGE_INDEX = re.compile(
    r"--(?:extra-)?index-url[ =]|--find-links[ =]|https?://[^ ]*/simple/"
    r'|"resolved": *"http|(?:registry|index) = "http'
)
MACHINE_PATH = re.compile(r"(?:^|[^\w.])/(?:root|work|farm)/", re.MULTILINE)


@pytest.fixture(scope="module")
def files() -> list[Path]:
    """Every file that is tracked, or would be if everything were added."""
    names = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        stdout=subprocess.PIPE,
    ).stdout.decode()
    return [path for name in names.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("pattern", [PACKAGE_INDEX, MACHINE_PATH], ids=["package index", "machine path"])
def test_no_file_names_what_belongs_to_one_machine(files: list[Path], pattern: re.Pattern[str]) -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in files
        if (match := pattern.search(path.read_text(encoding="utf-8", errors="ignore")))
    ]
    assert found == []


@pytest.mark.parametrize(
    "planted",
    ["--index" + "-url https://example.org", "https://example.org/" + "simple/", 'registry = "' + "http://x"],
)
def test_a_planted_package_index_is_found(planted: str) -> None:
    assert PACKAGE_INDEX.search(planted)


@pytest.mark.parametrize("planted", ["/" + "root/.cache", "cd /" + "work/here"])
def test_a_planted_machine_path_is_found(planted: str) -> None:
    assert MACHINE_PATH.search(planted)


def test_uv_lock_is_not_tracked(files: list[Path]) -> None:
    assert ROOT / "uv.lock" not in files


def test_scripts_can_be_run_and_explain_themselves() -> None:
    for script in [*(ROOT / "scripts").iterdir(), ROOT / ".ci/run"]:
        done = subprocess.run([script, "--help"], check=True, text=True, stdout=subprocess.PIPE)
        assert done.stdout.startswith(f"Usage: {script.relative_to(ROOT)}"), script
