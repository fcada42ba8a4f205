"""`mcp install`: for each client in a home of the test's own, twice, and what it refuses."""

import json
import os
import pty
import stat
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.conftest import Ran, run_command
from unified_memory.install.clients import CLIENTS, Format, Places, file_of, find
from unified_memory.install.edit import edited, snippet
from unified_memory.install.file import plan, write
from unified_memory.model.errors import ConflictError

URL = "http://127.0.0.1:3200/mcp"
USER_FILES = {
    "claude-code": ".claude.json",
    "claude-desktop": ".config/Claude/claude_desktop_config.json",
    "cursor": ".cursor/mcp.json",
    "vscode": ".config/Code/User/mcp.json",
    "codex": ".codex/config.toml",
    "windsurf": ".codeium/windsurf/mcp_config.json",
}
PROJECT_FILES = {
    "claude-code": ".mcp.json",
    "cursor": ".cursor/mcp.json",
    "vscode": ".vscode/mcp.json",
    "codex": ".codex/config.toml",
}
HTTP_ENTRIES = {
    "claude-code": {"type": "http", "url": URL},
    "cursor": {"url": URL},
    "vscode": {"type": "http", "url": URL},
    "codex": {"url": URL},
    "windsurf": {"serverUrl": URL},
}
CONTAINERS = {"vscode": "servers", "codex": "mcp_servers"}
NAMES = [client.name for client in CLIENTS]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    return tmp_path / "bin" / "unified-memory"


@pytest.fixture
def home(tmp_path: Path, program: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's directory; the command is run in a project, as the program of that name."""
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setattr(sys, "argv", [str(program)])
    return tmp_path / "home"


def install(client: str, *arguments: str) -> Ran:
    return run_command("mcp", "install", "--client", client, *arguments)


def servers(client: str, file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    return (tomllib.loads(text) if file.suffix == ".toml" else json.loads(text))[CONTAINERS.get(client, "mcpServers")]


def written(file: Path, content: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode())
    return file


# ---- which file, and what
def test_every_client_is_tested() -> None:
    assert list(USER_FILES) == NAMES


@pytest.mark.parametrize("client", NAMES)
def test_the_command_is_entered_once(home: Path, program: Path, client: str) -> None:
    file = home / USER_FILES[client]
    first = install(client, "--yes")
    assert (first.status, first.err) == (0, "")
    assert f"+++ {file}" in first.out
    entry = servers(client, file)["unified-memory"]
    assert (entry.pop("type", "stdio"), entry) == ("stdio", {"command": str(program), "args": ["mcp"]})
    before = file.stat()
    second = install(client)
    assert (second.status, second.out) == (0, f"unified-memory stands in {file} already; nothing was written\n")
    assert file.stat() == before
    assert sorted(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("client", PROJECT_FILES)
def test_a_project_has_a_file_of_its_own(home: Path, program: Path, client: str) -> None:
    file = Path.cwd() / PROJECT_FILES[client]
    assert install(client, "--yes", "--scope", "project", "--name", "memory").status == 0
    assert servers(client, file)["memory"]["command"] == str(program)
    assert not home.exists()


@pytest.mark.parametrize("client", HTTP_ENTRIES)
def test_the_address_of_a_service_is_entered(home: Path, client: str) -> None:
    file = home / USER_FILES[client]
    assert install(client, "--yes", "--http").status == 0
    assert servers(client, file) == {"unified-memory": HTTP_ENTRIES[client]}
    assert "already" in install(client, "--http").out


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        (["http://localhost:4000"], "http://localhost:4000/mcp"),
        (["http://localhost:4000/memory/mcp/"], "http://localhost:4000/memory/mcp"),
        (["--tools", "all"], URL + "/all"),
        (["http://localhost:4000", "--tools", "memory-bank"], "http://localhost:4000/mcp/memory-bank"),
    ],
)
def test_the_address_ends_with_the_profile(home: Path, arguments: list[str], url: str) -> None:
    ran = install("cursor", "--json", "--print", "--http", *arguments)
    assert ran.answer["entry"] == {"url": url}
    assert not home.exists()


def test_profile_and_data_directory_become_options(home: Path) -> None:
    ran = install("cursor", "--json", "--yes", "--tools", "extended-memory", "--data-dir", "kept")
    assert ran.answer["entry"]["args"] == ["mcp", "--tools", "extended-memory", "--data-dir", str(Path.cwd() / "kept")]
    assert (ran.answer["changed"], ran.answer["backup"]) == (True, None)
    assert ran.answer["file"] == str(home / ".cursor/mcp.json")
    assert ran.err.startswith("--- ")


def test_run_as_a_module_it_enters_the_module(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(home / "unified_memory/__main__.py")])
    assert install("cursor", "--json", "--print").answer["entry"] == {
        "command": sys.executable,
        "args": ["-m", "unified_memory", "mcp"],
    }


def test_each_system_has_its_own_place(tmp_path: Path) -> None:
    for settings in ("Library/Application Support", "AppData/Roaming", ".config"):
        places = Places(home=tmp_path, settings=tmp_path / settings, project=tmp_path / "project")
        assert file_of(find("vscode"), "user", places) == tmp_path / settings / "Code/User/mcp.json"
        assert file_of(find("cursor"), "user", places) == tmp_path / ".cursor/mcp.json"


def test_settings_are_where_the_system_says(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "etc"))
    answer = install("claude-desktop", "--json", "--print").answer
    assert answer["file"] == str(tmp_path / "etc/Claude/claude_desktop_config.json")
    assert not home.exists()


def test_another_file_may_be_named(home: Path, tmp_path: Path) -> None:
    assert install("codex", "--yes", "--file", str(tmp_path / "else/config.toml")).status == 0
    assert "unified-memory" in servers("codex", tmp_path / "else/config.toml")
    assert not home.exists()


@pytest.mark.parametrize("client", NAMES)
def test_print_prints_the_whole_file_and_writes_nothing(home: Path, program: Path, client: str) -> None:
    ran = install(client, "--print")
    assert (ran.status, ran.err) == (0, "")
    assert not home.exists()
    assert servers(client, written(home / USER_FILES[client], ran.out))["unified-memory"]["command"] == str(program)


# ---- what stays
def test_all_else_stays_as_it_is(home: Path) -> None:
    text = '// mine\n{\n\t"inputs": [],\n\t"servers": {\n\t\t"other": {"url": "https://a//b"}, // keep\n\t},\n}\n'
    file = written(home / USER_FILES["vscode"], text)
    file.chmod(0o640)
    assert install("vscode", "--yes", "--http").status == 0
    ours = f'\t\t"unified-memory": {{\n\t\t\t"type": "http",\n\t\t\t"url": "{URL}"\n\t\t}},\n'
    assert file.read_text() == text.replace("\t},\n}", ours + "\t},\n}")
    backup = file.with_name("mcp.json.bak")
    assert backup.read_text() == text
    assert {stat.S_IMODE(path.stat().st_mode) for path in (file, backup)} == {0o640}
    assert sorted(file.parent.iterdir()) == [file, backup]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '{\n  "s": {\n    "n": {\n      "command": "c"\n    }\n  }\n}\n'),
        ("{}", '{\n  "s": {\n    "n": {\n      "command": "c"\n    }\n  }\n}'),
        ('{"a": 1.50}', '{"a": 1.50, "s": {"n": {"command": "c"}}}'),
        ('{"s": {}}', '{"s": {"n": {"command": "c"}}}'),
        ('{\r\n "s": {\r\n }\r\n}', '{\r\n "s": {\r\n  "n": {\r\n   "command": "c"\r\n  }\r\n }\r\n}'),
        (
            '{\n  "s": {\n    // none\n  }\n}',
            '{\n  "s": {\n    // none\n    "n": {\n      "command": "c"\n    }\n  }\n}',
        ),
        ('{"s": {"n": {"command": "old", "env": {"A": "b"}}}}', '{"s": {"n": {"command": "c", "env": {"A": "b"}}}}'),
        ('{"s": {"n": {"url": "u", "headers": {"A": "b"}}}}', '{"s": {"n": {"command": "c"}}}'),
        ('{"s": {"n": {}, "n": {"command": "o"}}}', '{"s": {"n": {}, "n": {"command": "c"}}}'),
        ('{"s": {"//": ",}", "n": 0}}', '{"s": {"//": ",}", "n": {"command": "c"}}}'),
        ('{"s": {"n": {"env": {}, "command": "c"}}}', '{"s": {"n": {"env": {}, "command": "c"}}}'),
    ],
)
def test_json_is_edited_in_its_place(before: str, after: str) -> None:
    assert edited(Format.JSON, before, "s", "n", {"command": "c"}) == after
    assert edited(Format.JSON, after, "s", "n", {"command": "c"}) == after


KEYS = st.sampled_from(["s", "n", "env", "//", "/*", ",}", '"', "ü"])
DOCUMENTS = st.dictionaries(
    KEYS, st.recursive(st.none() | KEYS | st.integers(), lambda v: st.lists(v) | st.dictionaries(KEYS, v), max_leaves=8)
)


@given(document=DOCUMENTS, servers=st.dictionaries(KEYS, st.dictionaries(KEYS, st.booleans())), spread=st.booleans())
def test_any_json_takes_the_entry_and_keeps_the_rest(document: Any, servers: Any, *, spread: bool) -> None:
    document["s"] = servers
    text = json.dumps(document, indent="\t" if spread else None, ensure_ascii=False)
    once = edited(Format.JSON, text, "s", "n", {"command": "c"})
    assert edited(Format.JSON, once, "s", "n", {"command": "c"}) == once
    found = json.loads(once)
    assert found["s"].pop("n")["command"] == "c"
    document["s"].pop("n", None)
    assert found == document


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", '[s.n]\ncommand = "c"\n'),
        ("a = 1 # one", 'a = 1 # one\n\n[s.n]\ncommand = "c"\n'),
        ("[s.other]\r\na = 1\r\n", '[s.other]\r\na = 1\r\n\r\n[s.n]\r\ncommand = "c"\r\n'),
        (
            '[s.n] # ours\ncommand = "o"\nargs = [\n  "[x]",\n]\nwait = 20\n\n[s.n.env]\nA = "b"\n# of z\n[z]\nurl = "u"',
            '[s.n] # ours\ncommand = "c"\nwait = 20\n\n[s.n.env]\nA = "b"\n# of z\n[z]\nurl = "u"',
        ),
        ('[s.n]\nurl = "u"\ntoken = "t"\n[s.n.headers]\nA = "b"\n\n[z]\n', '[s.n]\ncommand = "c"\n\n[z]\n'),
        ('[s."n"]\ncommand = "o"\nenv.A = "b"\n', '[s."n"]\ncommand = "c"\nenv.A = "b"\n'),
        ('[s.n]\ncommand = "c"\nwait = 1\n', '[s.n]\ncommand = "c"\nwait = 1\n'),
    ],
)
def test_toml_is_edited_in_its_place(before: str, after: str) -> None:
    assert edited(Format.TOML, before, "s", "n", {"command": "c"}) == after
    assert edited(Format.TOML, after, "s", "n", {"command": "c"}) == after


def test_names_and_paths_are_quoted() -> None:
    entry = {"command": 'C:\\Program Files\\"ü".exe', "args": ["mcp"]}
    for form, parse in ((Format.JSON, json.loads), (Format.TOML, tomllib.loads)):
        assert parse(snippet(form, "s", "a.b", entry)) == {"s": {"a.b": entry}}


def test_a_byte_order_mark_stays(home: Path) -> None:
    file = written(home / USER_FILES["cursor"], "\ufeff{}")
    assert install("cursor", "--yes").status == 0
    assert file.read_bytes().startswith(b"\xef\xbb\xbf{\n")


def test_a_link_stays_a_link(home: Path, tmp_path: Path) -> None:
    kept = written(tmp_path / "dotfiles/mcp.json", "{}")
    file = home / USER_FILES["cursor"]
    file.parent.mkdir(parents=True)
    file.symlink_to(kept)
    assert install("cursor", "--yes").status == 0
    assert file.is_symlink()
    assert "unified-memory" in servers("cursor", kept)


def test_long_lines_of_the_difference_are_cut(home: Path) -> None:
    written(home / USER_FILES["claude-code"], json.dumps({"history": "x" * 10_000}))
    ran = install("claude-code", "--yes")
    assert ran.status == 0
    assert max(map(len, ran.out.splitlines())) < 1000


# ---- what it refuses
def test_without_a_terminal_nothing_is_written(home: Path) -> None:
    ran = install("cursor")
    assert (ran.status, home.exists()) == (5, False)
    assert ran.out.startswith("--- ")
    assert "--yes" in ran.err


@pytest.mark.parametrize("answer", ["y", "n"])
def test_in_a_terminal_it_asks(home: Path, answer: str) -> None:
    ours, theirs = pty.openpty()
    program = Path(sys.executable).with_name("unified-memory")
    with subprocess.Popen(
        [program, "mcp", "install", "--client", "cursor"], stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        os.close(theirs)
        os.write(ours, answer.encode() + b"\n")
        out, err = running.communicate(timeout=60)
    os.close(ours)
    file = home / USER_FILES["cursor"]
    assert f"Write {file}?" in err.decode()
    assert f"+++ {file}" in out.decode()
    assert (running.returncode, file.exists()) == ((0, True) if answer == "y" else (1, False))


@pytest.mark.parametrize(
    ("client", "content"),
    [
        ("cursor", '{"mcpServers": {'),
        ("cursor", "[]"),
        ("cursor", '{"mcpServers": []}'),
        ("codex", "a = "),
        ("codex", "mcp_servers = { other = { url = 'u' } }\n"),
        ("codex", "[mcp_servers]\nunified-memory = { command = 'o' }\n"),
        ("codex", "[[mcp_servers.unified-memory]]\nurl = 'u'\n"),
    ],
)
def test_a_file_that_cannot_be_added_to_is_left_alone(home: Path, client: str, content: str) -> None:
    file = written(home / USER_FILES[client], content)
    ran = install(client, "--yes")
    assert (ran.status, ran.out) == (2, "")
    assert f"Add this to {file} by hand:\n\n{install(client, '--print').out}" in ran.err
    assert f"error: {file}: " in ran.err
    assert file.read_text() == content
    assert list(file.parent.iterdir()) == [file]


def test_a_file_in_another_encoding_is_left_alone(home: Path) -> None:
    file = home / USER_FILES["cursor"]
    file.parent.mkdir(parents=True)
    file.write_bytes("{}".encode("utf-16"))
    ran = install("cursor", "--yes")
    assert (ran.status, file.read_bytes()) == (2, "{}".encode("utf-16"))
    assert "is no UTF-8" in ran.err


def test_a_file_changed_meanwhile_is_left_alone(tmp_path: Path) -> None:
    file = written(tmp_path / "mcp.json", "{}")
    planned = plan(find("cursor"), file, "n", {"command": "c"})
    file.write_text('{"new": 1}')
    with pytest.raises(ConflictError):
        write(planned)
    assert file.read_text() == '{"new": 1}'
    assert list(tmp_path.iterdir()) == [file]


def test_a_directory_that_cannot_be_written_is_an_error(home: Path) -> None:
    written(home / ".cursor", "a file, where a directory should be")
    ran = install("cursor", "--yes")
    assert (ran.status, ran.err.count("error: ")) == (6, 1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--client", "emacs"], "claude-code, claude-desktop"),
        (["--client", "cursor", "--scope", "world"], "user, project"),
        (["--client", "windsurf", "--scope", "project"], "--scope user"),
        (["--client", "claude-desktop", "--http"], "--http"),
        (["--client", "cursor", "--http", "ftp://localhost"], "is no address"),
        (["--client", "cursor", "--http", "http://[/mcp"], "is no address"),
        (["--client", "cursor", "--http", "http://localhost/?a=b"], "is no address"),
        (["--client", "cursor", "http://localhost:3200"], "--http"),
        (["--client", "cursor", "--http", "--data-dir", "d"], "--data-dir"),
        (["--client", "cursor", "--tools", "none"], "memory-bank"),
        (["--client", "cursor", "--name", "a b"], "no name"),
        ([], "--client"),
    ],
)
def test_what_makes_no_sense_is_refused(home: Path, arguments: list[str], said: str) -> None:
    ran = run_command("mcp", "install", "--yes", *arguments)
    assert (ran.status, ran.out) == (2, "")
    assert said in ran.err
    assert not home.exists()


def test_a_program_that_is_not_there_is_not_entered(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(home / "gone")])
    assert (install("cursor", "--yes").status, home.exists()) == (3, False)


def test_options_of_the_server_do_not_vanish_before_install(home: Path) -> None:
    ran = run_command("mcp", "--tools", "all", "install", "--client", "cursor", "--yes")
    assert (ran.status, home.exists()) == (2, False)
    assert "belongs behind install" in ran.err


def test_help_tells_of_stdio_and_install() -> None:
    told = " ".join(run_command("mcp", "--help").out.split())
    for word in (
        "standard input and output",
        "--tools",
        "TOOLS",
        "--data-dir",
        "MCP_DATA_DIR",
        "--sqlite-path",
        "install",
    ):
        assert word in told
