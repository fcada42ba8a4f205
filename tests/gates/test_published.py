"""What registries, clients and readers are told, against what there is."""

import json
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from mcpb.pack import default_target, pack
from unified_memory import __version__
from unified_memory.install.clients import CLIENTS, DEFAULT_NAME, Client, stdio_entry
from unified_memory.install.edit import snippet
from unified_memory.mcp.profiles import DEFAULT_PROFILE, NAMES
from unified_memory.settings import OPTIONS, load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/mcp-clients.md").read_text(encoding="utf-8")
VARIABLES = {option.variable for option in OPTIONS}
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}},
}


def read(name: str) -> Any:
    return json.loads((ROOT / name).read_bytes())


SERVER = read("server.json")
MANIFEST = read("mcpb/manifest.json")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


# ---- the registry
def test_the_registry_is_told_this_version() -> None:
    assert SERVER["version"] == __version__
    assert [package["version"] for package in SERVER["packages"]] == [__version__]


def test_the_registry_entry_keeps_the_rules_of_its_schema() -> None:
    assert SERVER["$schema"] == "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json"
    assert re.fullmatch(r"[a-zA-Z0-9.-]+/[a-zA-Z0-9._-]+", SERVER["name"])
    assert 3 <= len(SERVER["name"]) <= 200
    assert 1 <= len(SERVER["description"]) <= 100
    assert 1 <= len(SERVER["title"]) <= 100
    # What runs on one's own machine has no address of its own.
    assert "remotes" not in SERVER
    assert set(SERVER) == {"$schema", "name", "title", "description", "version", "packages"}


def test_the_registry_entry_starts_the_package_over_stdio() -> None:
    (package,) = SERVER["packages"]
    assert (package["registryType"], package["identifier"]) == ("pypi", PROJECT["name"])
    assert (package["runtimeHint"], package["transport"]) == ("uvx", {"type": "stdio"})
    assert package["packageArguments"] == [{"type": "positional", "value": "mcp"}]
    assert {variable["name"] for variable in package["environmentVariables"]} == {"TOOLS", "MCP_DATA_DIR"} & VARIABLES
    tools = next(variable for variable in package["environmentVariables"] if variable["name"] == "TOOLS")
    assert (tuple(tools["choices"]), tools["default"]) == (NAMES, DEFAULT_PROFILE)


def test_the_package_has_a_program_of_its_own_name() -> None:
    # "uvx NAME" starts the program NAME of the package NAME.
    assert PROJECT["scripts"][SERVER["packages"][0]["identifier"]] == PROJECT["scripts"]["unified-memory"]


def test_the_readme_proves_whose_name_it_is() -> None:
    lines = (ROOT / PROJECT["readme"]).read_text(encoding="utf-8").splitlines()
    assert f"<!-- mcp-name: {SERVER['name']} -->" in lines


def test_the_example_of_a_project_is_what_install_writes() -> None:
    entry = stdio_entry(CLIENTS[0], ["unified-memory", "mcp"])
    assert read(".mcp.json") == {CLIENTS[0].container: {DEFAULT_NAME: entry}}


# ---- the bundle
@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("bundle") / "packed.mcpb"
    pack(target)
    return target


def test_the_bundle_is_of_this_version() -> None:
    assert (MANIFEST["name"], MANIFEST["version"]) == (PROJECT["name"], __version__)
    assert default_target().name == f"{PROJECT['name']}-{__version__}.mcpb"
    assert MANIFEST["license"] == PROJECT["license"]
    assert MANIFEST["compatibility"]["runtimes"]["python"] == PROJECT["requires-python"]


def test_the_manifest_keeps_the_rules_of_its_schema() -> None:
    assert MANIFEST["manifest_version"] == "0.4"
    assert {"name", "version", "description", "author", "server"} <= set(MANIFEST)
    assert MANIFEST["server"]["type"] == "uv"
    for asked in MANIFEST["user_config"].values():
        assert {"type", "title", "description"} <= set(asked)
        # A client may leave the mark of an answer that was not given as it is.
        assert asked["required"]
        assert asked["default"]


def test_the_manifest_asks_for_what_it_passes_on() -> None:
    environment = MANIFEST["server"]["mcp_config"]["env"]
    assert set(environment) <= VARIABLES
    assert set(environment.values()) == {f"${{user_config.{name}}}" for name in MANIFEST["user_config"]}
    asked = MANIFEST["user_config"]
    assert asked["tools"]["default"] == DEFAULT_PROFILE
    assert all(name in asked["tools"]["description"] for name in NAMES)
    home = Path.home()
    assert Path(asked["data_dir"]["default"].replace("${HOME}", str(home))) == load(environment={}).data_dir


def test_the_same_sources_give_the_same_bundle(bundle: Path, tmp_path: Path) -> None:
    again = tmp_path / "deep/again.mcpb"
    pack(again)
    assert again.read_bytes() == bundle.read_bytes()


def test_the_bundle_holds_what_it_needs_and_nothing_else(bundle: Path) -> None:
    with zipfile.ZipFile(bundle) as packed:
        assert packed.testzip() is None
        names = packed.namelist()
        project = tomllib.loads(packed.read("pyproject.toml").decode())
        assert json.loads(packed.read("manifest.json")) == MANIFEST
    assert project["project"] == PROJECT
    assert set(project) == {"build-system", "project", "tool"}
    assert set(project["tool"]) == {"hatch"}
    outside = {name for name in names if not name.startswith("src/unified_memory/")}
    assert outside == {"manifest.json", "pyproject.toml", "README.md", "LICENSE", MANIFEST["server"]["entry_point"]}
    assert "src/unified_memory/py.typed" in names
    assert [name for name in names if "__pycache__" in name or name.endswith(".pyc")] == []


def test_the_bundle_serves(bundle: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(bundle) as packed:
        packed.extractall(tmp_path / "bundle")
    done = subprocess.run(
        [sys.executable, tmp_path / "bundle" / MANIFEST["server"]["entry_point"], "--data-dir", tmp_path / "data"],
        input=json.dumps(HELLO).encode() + b"\n",
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )
    assert json.loads(done.stdout)["result"]["serverInfo"]["version"] == __version__
    assert (tmp_path / "data").is_dir()


# ---- the page on clients
@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_the_page_shows_what_install_writes(client: Client) -> None:
    section = re.search(rf"^### {client.title}\n(.*?)(?=^##)", PAGE, re.DOTALL | re.MULTILINE)
    assert section
    assert f"unified-memory mcp install --client {client.name}\n" in section[1]
    assert client.user.rsplit("/", 1)[-1] in section[1]
    assert (
        f"`{client.project}`" in section[1]
        if client.project
        else "no file of a project" in " ".join(section[1].split())
    )
    block = snippet(
        client.format, client.container, DEFAULT_NAME, stdio_entry(client, ["/usr/local/bin/unified-memory", "mcp"])
    )
    assert f"```{client.format.value.lower()}\n{block}```" in section[1]
    if client.url_key:
        assert client.url_key in section[1]


def test_the_page_tells_of_every_profile() -> None:
    assert re.findall(r"^\| `([\w-]+)` \|", PAGE.split("## Choose a profile")[1], re.MULTILINE) == list(NAMES)
