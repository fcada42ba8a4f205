"""A tool: what an agent reads of it, and what is done when it is called. Without the SDK."""

import hashlib
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from unified_memory.model.errors import InvalidInputError, UnifiedMemoryError
from unified_memory.model.principal import Principal
from unified_memory.service.requests import Idempotent
from unified_memory.service.service import Service

Arguments = dict[str, Any]
T = TypeVar("T")

INTERNAL_ERROR = -32603
INVALID_PARAMS = -32602


async def unheard(_done: float, _total: float | None, _message: str | None) -> None:
    """Progress that nobody asked for."""


class Call(Struct):
    """A call of a tool: on what, by whom. `key` names this very call, where its sender can repeat it (None: it cannot).

    `report` tells progress: done, total (None: unknown), a word on it.
    """

    service: Service
    principal: Principal
    key: str | None = None
    report: Callable[[float, float | None, str | None], Awaitable[None]] = unheard

    def idempotent(self, arguments: Arguments, part: str = "") -> Idempotent | None:
        """What makes a write of this call happen once, however often the call is repeated; `part`: which of its writes."""
        if self.key is None:
            return None
        told = msgspec.json.encode(arguments, order="deterministic")
        return Idempotent(f"mcp:{self.key}{part}", hashlib.blake2b(told, digest_size=16).digest())


class Answer(Struct):
    """What a tool says. `text` None: no content block. `structured`: the structured content. `extra`: further members of the
    result, which older clients read.
    """

    text: str | None
    structured: Any = UNSET
    is_error: bool = False
    extra: dict[str, Any] = {}


class ProtocolError(Exception):
    """A failure that older servers told as an error of JSON-RPC rather than as a result."""

    def __init__(self, code: int, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.data = data


Run = Callable[[Call, Arguments], Awaitable[Answer]]


class Tool(Struct, frozen=True, kw_only=True):
    """A tool. Schemas are JSON Schema (2020-12) of objects; `output` None: it has no structured content.

    `read_only`, `destructive` (may overwrite or remove), `idempotent` (again with the same arguments changes nothing more).
    """

    name: str
    title: str
    description: str
    input: dict[str, Any]
    run: Run
    output: dict[str, Any] | None = None
    read_only: bool = False
    destructive: bool = False
    idempotent: bool = False


class Prompt(Struct, frozen=True, kw_only=True):
    """A prompt: `arguments` are (name, description, required), `render` makes its text of them."""

    name: str
    title: str
    description: str
    arguments: tuple[tuple[str, str, bool], ...] = ()
    render: Callable[[dict[str, str]], str]


class Profile(Struct, frozen=True, kw_only=True):
    """A set of tools under a name. `unknown`: what is answered where there is no such tool (None: a plain JSON-RPC error).

    `resources`: whether memories are served as resources too.
    """

    name: str
    instructions: str
    tools: tuple[Tool, ...]
    prompts: tuple[Prompt, ...] = ()
    resources: bool = True
    unknown: Callable[[str], Answer | ProtocolError] | None = None

    def tool(self, name: str) -> Tool | None:
        """The tool of that name."""
        return next((tool for tool in self.tools if tool.name == name), None)


async def call_tool(profile: Profile, call: Call, name: str, arguments: Arguments) -> Answer:
    """Calls the tool. Every error of the tree becomes an answer that says so; nothing is told as an empty answer.

    Raises ProtocolError.
    """
    tool = profile.tool(name)
    if tool is None:
        told = profile.unknown(name) if profile.unknown else ProtocolError(INVALID_PARAMS, f"Unknown tool: {name}")
        if isinstance(told, ProtocolError):
            raise told
        return told
    try:
        return await tool.run(call, arguments)
    except UnifiedMemoryError as error:
        return failed(error)


def failed(error: UnifiedMemoryError, text: str | None = None) -> Answer:
    """The answer that tells an error: in words (`text`: other words), and its code and facts as structured content."""
    words = f"Error ({error.code}): {error.detail}" if text is None else text
    if text is None and error.hint:
        words += f"\n{error.hint}"
    told: dict[str, Any] = {"code": error.code, "detail": error.detail}
    if error.hint:
        told["hint"] = error.hint
    return Answer(words, {"error": {**told, **error.facts}}, is_error=True)


def read(arguments: Arguments, shape: type[T]) -> T:
    """The arguments as a typed struct. Raises InvalidInputError naming the one that is wrong."""
    try:
        return msgspec.convert(arguments, shape)
    except msgspec.ValidationError as error:
        detail, _, path = str(error).rpartition(" - at `")
        field = path.rstrip("`").removeprefix("$").removeprefix(".") if detail else ""
        detail = detail or str(error)
        if "unknown field" in detail or "missing required field" in detail:
            field = ".".join(filter(None, (field, detail.split("`")[1])))
        raise InvalidInputError(field or "arguments", detail) from None


def given(value: T | UnsetType | None, default: T) -> T:
    """The value, or the default where none (or null) was given."""
    return default if value is UNSET or value is None else value
