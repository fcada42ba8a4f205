"""The kinds of sources by name. A module is loaded when its kind is opened: none of them is needed otherwise."""

from importlib import import_module

from unified_memory.model.errors import InvalidInputError
from unified_memory.sources.base import Options, Source

# Module and class of each kind.
KINDS: dict[str, tuple[str, str]] = {
    "extended-memory-sqlite": ("extended_memory", "ExtendedMemorySQLite"),
    "extended-memory-redis": ("extended_memory_redis", "ExtendedMemoryRedis"),
    "extended-memory-mcp": ("live", "ExtendedMemoryLive"),
    "extended-memory-http": ("shim_http", "ShimHTTP"),
    "extended-memory-http-db": ("shim", "ShimSQLite"),
    "extended-memory-http-json": ("shim", "ShimJSON"),
    "memory-bank-files": ("bank_files", "BankFiles"),
    "memory-bank-sqlite": ("bank_sqlite", "BankSQLite"),
    "memory-bank-mcp": ("live", "MemoryBankLive"),
    "server-memory": ("server_memory", "ServerMemory"),
    "memory-keeper": ("memory_keeper", "MemoryKeeper"),
    "claude-flow": ("claude_flow", "ClaudeFlow"),
    "claude-mem": ("claude_mem", "ClaudeMem"),
    "mcp-memory-service": ("mcp_memory_service", "MCPMemoryService"),
    "basic-memory": ("basic_memory", "BasicMemory"),
    "mem0": ("mem0", "Mem0"),
    "langgraph": ("langgraph", "LangGraph"),
    "letta": ("letta", "Letta"),
}


def kind_of(name: str) -> type[Source]:
    """The class of that kind. Raises InvalidInputError naming `source`."""
    if name not in KINDS:
        raise InvalidInputError("source", f"There is no kind of source {name!r}", hint="One of: " + ", ".join(KINDS))
    module, kind = KINDS[name]
    found: type[Source] = getattr(import_module(f"unified_memory.sources.{module}"), kind)
    return found


def open_source(kind: str, location: str, options: Options | None = None) -> Source:
    """The source at that location. Raises InvalidInputError naming `source`, SourceError."""
    return kind_of(kind).open(location, options or Options())
