"""What help and docs/cli.md say, against what there is."""

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.core import TyperArgument, TyperGroup, TyperOption
from typer.main import get_command

from tests.cli.conftest import run_command
from tests.client.serving import serving
from tests.conftest import absent
from unified_memory.cli.application import app
from unified_memory.settings import OPTIONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/cli.md").read_text(encoding="utf-8")


def commands(
    group: TyperGroup, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], list[TyperOption | TyperArgument]]]:
    for name, command in group.commands.items():
        # Of groups those that answer by themselves; `mcp` serves.
        if not isinstance(command, TyperGroup) or (command.invoke_without_command and name != "mcp"):
            yield (*path, name), [p for p in command.params if isinstance(p, TyperOption | TyperArgument)]
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))


ROOT_GROUP = get_command(app)
assert isinstance(ROOT_GROUP, TyperGroup)
COMMANDS = dict(commands(ROOT_GROUP))


def test_the_commands_are_these() -> None:
    assert [" ".join(path) for path in COMMANDS] == [
        "serve",
        "settings",
        "mcp install",
        "store",
        "retrieve",
        "update",
        "patch",
        "delete",
        "move",
        "list",
        "search",
        "similar",
        "recall",
        "query",
        "changes",
        "history list",
        "history show",
        "history restore",
        "history redact",
        "export",
        "import",
        "namespaces list",
        "namespaces get",
        "namespaces create",
        "namespaces configure",
        "namespaces delete",
        "sessions list",
        "sessions get",
        "sessions create",
        "sessions end",
        "health",
        "stats",
        "cleanup",
        "read-only",
        "check",
        "schema",
        "jobs list",
        "jobs get",
        "jobs cancel",
        "tiers",
        "tiers archive",
        "tiers recall",
        "tiers pass",
        "restore",
        "backup",
        "backup create",
        "backup list",
        "backup show",
        "backup verify",
        "backup delete",
        "migrate plan",
        "migrate run",
        "migrate verify",
        "migrate status",
        "migrate switch",
        "migrate rollback",
        "migrate finish",
        "migrate report",
        "proxy http",
        "proxy bank",
        "proxy stdio",
        "spool list",
        "spool show",
        "spool replay",
        "spool drop",
    ]


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_command_explains_itself_and_all_it_takes(path: tuple[str, ...]) -> None:
    told = run_command(*path, "--help")
    assert told.status == 0
    assert re.search(r"\n  [A-Z].*\.", told.out)
    # The help breaks lines at blanks and behind hyphens.
    said = "".join(told.out.split())
    for parameter in COMMANDS[path]:
        assert parameter.help
        assert "".join(parameter.help.split()) in said


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_a_command_and_its_options_are_documented(path: tuple[str, ...]) -> None:
    assert re.search(rf"`{' '.join(path)}[ `]", PAGE)
    options = {name for parameter in COMMANDS[path] if isinstance(parameter, TyperOption) for name in parameter.opts}
    assert [name for name in options if not re.search(rf"`{name}[` ]", PAGE)] == []


# Those that serve until they are ended, and those that look into the file of a client.
SERVERS = [("serve",), ("proxy", "http"), ("proxy", "bank"), ("proxy", "stdio")]
SPOOL = [("spool", "list"), ("spool", "show"), ("spool", "replay"), ("spool", "drop")]


@pytest.mark.parametrize("path", SPOOL, ids=" ".join)
def test_a_command_on_a_spool_speaks_json_and_knows_where(path: tuple[str, ...]) -> None:
    names = {parameter.name for parameter in COMMANDS[path]}
    assert {"json", "spool"} <= names
    assert ("url" in names) is (path == ("spool", "replay"))


@pytest.mark.parametrize("path", [path for path in COMMANDS if path not in {*SERVERS, *SPOOL}], ids=" ".join)
def test_every_command_speaks_json_and_knows_where(path: tuple[str, ...]) -> None:
    names = {parameter.name for parameter in COMMANDS[path]}
    assert {"json", "data_dir"} <= names
    assert ("url" in names) is (path not in {("check",), ("settings",), ("mcp", "install")})


def test_serve_takes_every_option_of_the_service() -> None:
    told = " ".join(run_command("serve", "--help").out.split())
    for option in OPTIONS:
        assert f"--{option.name.replace('_', '-')} " in told
        assert option.variable in told
        assert f"| `{option.variable}` | {option.help} |" in PAGE, f"docs/cli.md: {option.variable}"


# A backup that the pages speak of.
BACKUP_ID = "20261123T020000Z-0a1b2c3d"
SERVICE = "http://127.0.0.1:3200"


@pytest.mark.parametrize("page", ["backups", "history"])
def test_the_examples_of_other_pages_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside a service on the same directory; of what goes on for ever the first event is awaited."""
    if shutil.which("curl") is None:
        absent("curl is not installed; scripts/setup --system does it")
    monkeypatch.chdir(tmp_path)
    text = (ROOT / f"docs/{page}.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(lines) > 8
    data_dir = tmp_path / "data"
    with serving(data_dir) as url:
        for line in lines:
            made = sorted(one.name for one in (data_dir / "backups").glob("*Z-*") if one.is_dir())
            told = line.replace(SERVICE, url).replace(BACKUP_ID, made[-1] if made else BACKUP_ID)
            program, *arguments = shlex.split(told)
            if program == "curl":
                answer = curl(arguments)
                assert re.search(r'^(\{"|id: \d)', answer, re.MULTILINE), line
                assert '"type":"about:blank"' not in answer, line
            else:
                assert program == "unified-memory"
                ran = run_command(*arguments, "--data-dir", str(data_dir))
                assert (ran.status, ran.err) == (0, ""), line


def curl(arguments: list[str]) -> str:
    """What it prints, of a stream of events up to the first one."""
    with subprocess.Popen(
        ["curl", "--silent", "--noproxy", "*", *arguments], stdout=subprocess.PIPE, text=True
    ) as running:
        assert running.stdout is not None
        told = ""
        for line in running.stdout:
            told += line
            if line.startswith("data:"):
                running.terminate()
                break
    return told


def test_the_examples_of_the_page_run(tmp_path: Path) -> None:
    lines = [line for block in re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL) for line in block.splitlines()]
    assert len(lines) > 20
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "unified-memory"
        end = arguments.index("--") if "--" in arguments else len(arguments)
        ran = run_command(*arguments[:end], "--data-dir", str(tmp_path / "data"), *arguments[end:])
        assert (ran.status, ran.err) == (0, ""), line
