"""docs/backup-format.md says how it is, and its commands do what it says."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import absent
from tests.storage.backup import samples
from tests.storage.backup.samples import ID, ROWS, back_up, unpacked
from unified_memory.storage.backup import KINDS, Manifest, Part, lines

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/backup-format.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PROGRAMS = ("bash", "sha256sum", "zstd", "jq", "wc")
LINES = {kind: set(fields) for kind, fields in lines.MEMBERS.items()}
LINES["past"] -= LINES["memories"]


def members(after: str) -> set[str]:
    """The names in the first column of the first table behind a text."""
    table = PAGE.partition(after)[2].partition("| --- | --- |\n")[2].partition("\n\n")[0]
    first = " ".join(line.split("|")[1] for line in table.splitlines())
    return set(re.findall(r"`(\w+)`", first))


@pytest.mark.parametrize("kind", KINDS)
def test_every_member_of_a_line_is_documented_and_no_other(kind: str) -> None:
    assert members(f"\n**`{kind}`**:") == LINES[kind]


def test_every_member_of_the_manifest_is_documented_and_no_other() -> None:
    assert members("\n## The manifest\n") == set(Manifest.__struct_fields__)
    row = next(line for line in PAGE.splitlines() if line.startswith("| `parts` |"))
    assert set(re.findall(r"`(\w+)`", row)) == {"parts", *Part.__struct_fields__}


def test_the_kinds_are_in_the_order_in_which_they_are_put_back() -> None:
    assert tuple(re.findall(r"^\*\*`(\w+)`\*\*:", PAGE, re.MULTILINE)) == KINDS


def test_the_steps_of_the_page_work_with_the_standard_library(tmp_path: Path) -> None:
    manifest = back_up(tmp_path)
    folder = tmp_path / ID
    listed = dict(line.split("  ")[::-1] for line in (folder / "SHA256SUMS").read_text(encoding="utf-8").splitlines())
    assert listed == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.name != "SHA256SUMS"
    }
    told = json.loads((folder / "manifest.json").read_bytes())
    sums = "".join(f"{part['sha256']}\n" for part in told["parts"])
    assert hashlib.sha256(sums.encode()).hexdigest() == told["sha256"] == manifest.sha256
    text = b"".join(unpacked(path.read_bytes()) for path in sorted(folder.glob("memories-*.jsonl.zst")))
    found = [json.loads(line) for line in text.splitlines()]
    assert [each["key"] for each in found] == ["key 1", "key 2"]
    assert found[0]["value"] == {"text": "value"}


def test_the_commands_of_the_page_run(tmp_path: Path) -> None:
    found = {program: shutil.which(program) for program in PROGRAMS}
    if None in found.values():
        lacking = ", ".join(program for program, path in found.items() if path is None)
        absent(f"Not installed: {lacking}; scripts/setup --system does it")
    manifest = back_up(tmp_path)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", COMMANDS[0]],
        env={
            "MCP_BACKUP_DIR": str(tmp_path),
            "PATH": ":".join(str(Path(path).parent) for path in found.values() if path),
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    said = done.stdout.splitlines()
    files = [part.name for part in manifest.parts] + ["manifest.json"]
    assert said[: len(files)] == [f"{name}: OK" for name in files]
    whole, *rest = said[len(files) :]
    assert whole.split()[0] == manifest.sha256
    text = "\n".join(rest)
    described, _, shown = text.partition("]\n")
    assert json.loads(described + "]") == ["full", manifest.created_at, 2]
    assert shown.splitlines() == [
        "2",
        '["acme/web","key 1",2]',
        '["acme/web","key 2",2]',
        '{"text":"value"}',
        '[1,"2026-11-23T02:00:00Z"]',
        '[0,"2026-11-23T02:00:00Z"]',
    ]


def test_the_program_that_checks_sums_finds_damage(tmp_path: Path) -> None:
    if shutil.which("sha256sum") is None:
        absent("Not installed: sha256sum, which comes with coreutils")
    back_up(tmp_path, {"used": ROWS["used"]})
    check = ["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"]
    assert subprocess.run(check, cwd=tmp_path / ID, check=False, capture_output=True).returncode == 0
    part = tmp_path / ID / "used-0001.jsonl.zst"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    told = subprocess.run(check, cwd=tmp_path / ID, check=False, capture_output=True, text=True)
    assert told.returncode != 0
    assert "used-0001.jsonl.zst: FAILED" in told.stdout


def test_the_instant_of_the_samples_is_that_of_the_page() -> None:
    assert samples.ID in PAGE
