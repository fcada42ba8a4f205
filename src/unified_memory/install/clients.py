"""The MCP clients: where each keeps its servers, and what an entry for ours looks like there."""

from enum import Enum
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct

from unified_memory.model.errors import InvalidInputError

DEFAULT_NAME = "unified-memory"
DEFAULT_URL = "http://127.0.0.1:3200/mcp"
PATH = "/mcp"
SLASHES_OF_HOST = 2


class Format(Enum):
    """How a client writes its file."""

    JSON = "JSON"
    TOML = "TOML"


class Places(Struct, frozen=True):
    """Directories: the user's own, the one where the system keeps the settings of programs, and the project's."""

    home: Path
    settings: Path
    project: Path


class Client(Struct, frozen=True):
    """One client.

    `user` is its file below the home directory, or below the system's settings where `in_settings`; `project` its file
    below a project. `container` is the key that holds the servers, `url_key` the one of an address; None: it has none.
    `typed`: whether an entry names its transport.
    """

    name: str
    title: str
    user: str
    project: str | None
    in_settings: bool = False
    format: Format = Format.JSON
    container: str = "mcpServers"
    url_key: str | None = "url"
    typed: bool = False


CLIENTS: tuple[Client, ...] = (
    Client("claude-code", "Claude Code", user=".claude.json", project=".mcp.json", typed=True),
    Client(
        "claude-desktop",
        "Claude Desktop",
        user="Claude/claude_desktop_config.json",
        project=None,
        in_settings=True,
        url_key=None,
    ),
    Client("cursor", "Cursor", user=".cursor/mcp.json", project=".cursor/mcp.json"),
    Client(
        "vscode",
        "VS Code",
        user="Code/User/mcp.json",
        project=".vscode/mcp.json",
        in_settings=True,
        container="servers",
        typed=True,
    ),
    Client(
        "codex",
        "Codex",
        user=".codex/config.toml",
        project=".codex/config.toml",
        format=Format.TOML,
        container="mcp_servers",
    ),
    Client("windsurf", "Windsurf", user=".codeium/windsurf/mcp_config.json", project=None, url_key="serverUrl"),
)
SCOPES = ("user", "project")


def find(name: str) -> Client:
    """The client of that name. Raises InvalidInputError."""
    for client in CLIENTS:
        if client.name == name:
            return client
    names = ", ".join(client.name for client in CLIENTS)
    raise InvalidInputError("--client", f"There is no client {name!r}", hint=f"One of: {names}")


def file_of(client: Client, scope: str, places: Places) -> Path:
    """The file of the client that holds the servers of that scope. Raises InvalidInputError."""
    if scope not in SCOPES:
        raise InvalidInputError("--scope", f"There is no scope {scope!r}", hint="One of: " + ", ".join(SCOPES))
    if scope == "user":
        return (places.settings if client.in_settings else places.home) / client.user
    if client.project is None:
        raise InvalidInputError("--scope", f"{client.title} has no file in a project", hint="Use --scope user")
    return places.project / client.project


def stdio_entry(client: Client, command: list[str]) -> dict[str, Any]:
    """The entry by which the client starts the command and speaks with it over stdio."""
    kind = {"type": "stdio"} if client.typed else {}
    return {**kind, "command": command[0], "args": command[1:]}


def http_entry(client: Client, url: str) -> dict[str, Any]:
    """The entry by which the client speaks with a running service. Raises InvalidInputError."""
    if client.url_key is None:
        raise InvalidInputError(
            "--http",
            f"{client.title} starts servers only, its file takes no address",
            hint="Leave out --http: the command that it starts uses the running service",
        )
    kind = {"type": "http"} if client.typed else {}
    return {**kind, client.url_key: url}


def address(url: str | None, profile: str | None) -> str:
    """The URL of the service's MCP endpoint: of the given one or the default, with the profile at its end.

    Raises InvalidInputError.
    """
    found = (url or DEFAULT_URL).rstrip("/")
    try:
        parts = urlsplit(found)
        known = parts.scheme in {"http", "https"} and parts.hostname and not parts.query and not parts.fragment
    except ValueError:
        known = False
    if not known:
        raise InvalidInputError("--http", f"{url!r} is no address of a service", hint=f"Such as {DEFAULT_URL}")
    if found.count("/") == SLASHES_OF_HOST:
        found += PATH
    return found if profile is None else f"{found}/{profile}"
