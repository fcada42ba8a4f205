"""The tools of the memory bank, answered as two older servers did: npm's @allpepper/memory-bank-mcp 0.2.2, and PyPI's
memory-bank-mcp 0.0.1 with fastmcp 2.11. Each takes the arguments as either spelled them.

Where an answer differs from theirs on purpose, docs/compatibility.md says so.
"""

import json
import re
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from typing import Any

from msgspec import Struct

from unified_memory.mcp.schema import Schema, array, obj, text
from unified_memory.mcp.tool import Answer, Arguments, Call, Profile, ProtocolError, Run, Tool, failed
from unified_memory.model.errors import AlreadyExistsError, InvalidInputError, MemoryNotFoundError, UnifiedMemoryError
from unified_memory.service.requests import Idempotent

METHOD_NOT_FOUND = -32601
# Of a file's or folder's name, where the npm server kept them.
MAX_NAME_BYTES = 255
# The npm server's own folder: its files are those of a project that it never listed.
ROOT = "."

PROJECT, FILE, CONTENT = "projectName", "fileName", "content"
PLACE = (PROJECT, FILE)
CAMEL = {"project_name": PROJECT, "file_name": FILE}
SNAKE = {camel: snake for snake, camel in CAMEL.items()}

_ACCEPTED = re.compile(r"[a-zA-Z0-9_.-]+")
_SURROGATE = re.compile("[\ud800-\udfff]")
_UNDEFINED = object()


def _spelled(arguments: Arguments, names: Mapping[str, str]) -> Arguments:
    """The arguments under these names; one that is given in both spellings is left as it is."""
    return {
        names[name] if name in names and names[name] not in arguments else name: value
        for name, value in arguments.items()
    }


def _json(value: Any) -> str:
    """JSON as JavaScript and pydantic write it: no blanks, only what must be is escaped."""
    dumped = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return _SURROGATE.sub(lambda found: f"\\u{ord(found[0]):04x}", dumped)


def _idempotent(call: Call, tool: str, project: str, file: str, content: str) -> Idempotent | None:
    return call.idempotent({"tool": tool, "project": project, "file": file, "content": content})


# ---- npm
class _NpmError(Exception):
    """A failure by the name and in the words that the npm server has for it."""

    def __init__(self, name: str, error: str) -> None:
        super().__init__(error)
        self.name = name
        self.error = error


def _npm(run: Callable[[Call, Arguments], Awaitable[str]]) -> Run:
    """The tool that answers with the text that `run` returns."""

    async def answered(call: Call, arguments: Arguments) -> Answer:
        try:
            return Answer(await run(call, _spelled(arguments, CAMEL)), extra={"tools": []})
        except _NpmError as failure:
            name, error = failure.name, failure.error
        except UnifiedMemoryError as failure:
            name, error = type(failure).__name__, failure.detail
        return Answer(_json({"name": name, "error": error}), is_error=True, extra={"tools": []})

    return answered


async def _npm_list_projects(call: Call, _arguments: Arguments) -> str:
    return ",".join(name for name in await call.service.bank.projects(call.principal) if name != ROOT)


async def _npm_list_project_files(call: Call, arguments: Arguments) -> str:
    told = arguments.get(PROJECT, _UNDEFINED)
    _check_segments({PROJECT: told})
    project = _path(told, "stat") or ROOT
    files = await call.service.bank.files(call.principal, project)
    if not files and project != ROOT:
        raise _not_found(told)
    return ",".join(files)


async def _npm_read(call: Call, arguments: Arguments) -> str:
    _check_required(arguments, PLACE)
    _check_segments(arguments)
    project, file = _path(arguments[PROJECT], "stat"), _existing(arguments[FILE])
    try:
        return await call.service.bank.read(call.principal, project, file)
    except MemoryNotFoundError:
        raise _not_found(arguments[FILE]) from None


async def _npm_write(call: Call, arguments: Arguments) -> str:
    _check_written(arguments)
    project, file, content = _path(arguments[PROJECT], "mkdir"), _file(arguments[FILE]), _data(arguments[CONTENT])
    if _too_long(file):
        raise _unexpected("ENAMETOOLONG: name too long, open")
    key = _idempotent(call, "write", project, file, content)
    try:
        await call.service.bank.write(call.principal, project, file, content, key)
    except AlreadyExistsError:
        told = (
            f"File {file} already exists in project {project}; nothing was written. To replace it: memory_bank_update"
        )
        raise _NpmError("AlreadyExistsError", told) from None
    return f"File {file} written successfully to project {project}"


async def _npm_update(call: Call, arguments: Arguments) -> str:
    _check_written(arguments)
    bank, told = call.service.bank, arguments[CONTENT]
    project, file = _path(arguments[PROJECT], "stat"), _existing(arguments[FILE])
    try:
        if not isinstance(told, str):
            # Where the file is missing, that is told rather than what is wrong with the content.
            await bank.read(call.principal, project, file)
        content = _data(told)
        await bank.update(call.principal, project, file, content, _idempotent(call, "update", project, file, content))
    except MemoryNotFoundError:
        raise _not_found(file) from None
    return f"File {file} updated successfully in project {project}"


def _check_written(arguments: Arguments) -> None:
    _check_required(arguments, (*PLACE, CONTENT))
    for name in PLACE:
        told = _string(arguments[name])
        if not _ACCEPTED.fullmatch(told):
            raise _NpmError("InvalidParamError", f"Invalid parameter: {told}")
    _check_segments(arguments)


def _check_required(arguments: Arguments, names: tuple[str, ...]) -> None:
    for name in names:
        told = arguments.get(name)
        if told is None or told == "":
            raise _NpmError("MissingParamError", f"Missing parameter: {name}")


def _check_segments(arguments: Arguments) -> None:
    for name in PLACE:
        told = arguments.get(name)
        if isinstance(told, str) and (".." in told or "/" in told):
            raise _NpmError("InvalidParamError", f"Invalid parameter: {name} contains invalid path segments")


def _path(project: Any, action: str) -> str:
    """The project, where its name can be a folder's; `action` is what the file system failed to do where it cannot."""
    name = _string_for("path", "string", project)
    if _too_long(name):
        raise _unexpected(f"ENAMETOOLONG: name too long, {action}")
    return name


def _file(file: Any) -> str:
    name = _string_for("path", "string", file)
    if name == ".":
        raise _unexpected("EISDIR: illegal operation on a directory, read")
    return name


def _existing(file: Any) -> str:
    name = _file(file)
    if _too_long(name):
        raise _not_found(file)
    return name


def _data(content: Any) -> str:
    return _string_for("data", "string or an instance of Buffer, TypedArray, or DataView", content)


def _string_for(argument: str, wanted: str, told: Any) -> str:
    """The text, in which U+FFFD stands for a lone surrogate, as in everything that Node.js writes down."""
    if not isinstance(told, str):
        received = _received(told)
        detail = f'The "{argument}" argument must be of type {wanted}. Received {received}'
        raise _NpmError("UnexpectedError", f"An unexpected error occurred: TypeError [ERR_INVALID_ARG_TYPE]: {detail}")
    return told.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _too_long(name: str) -> bool:
    return len(name.encode()) > MAX_NAME_BYTES


def _unexpected(error: str) -> _NpmError:
    return _NpmError("UnexpectedError", f"An unexpected error occurred: Error: {error}")


def _not_found(name: str) -> _NpmError:
    return _NpmError("NotFoundError", f"Resource not found: {name}")


def _received(told: Any) -> str:
    """A value as Node.js names the type of what it received."""
    if told is _UNDEFINED:
        return "undefined"
    if told is None:
        return "null"
    if isinstance(told, list | dict):
        return f"an instance of {'Array' if isinstance(told, list) else 'Object'}"
    return f"type {'boolean' if isinstance(told, bool) else 'number'} ({_string(told)})"


def _string(told: Any) -> str:
    """A value of JSON as JavaScript turns it into a string."""
    match told:
        case str():
            return told
        case None:
            return "null"
        case bool():
            return "true" if told else "false"
        case list():
            return ",".join("" if one is None else _string(one) for one in told)
        case dict():
            return "[object Object]"
    number = Decimal(repr(float(str(told)))).normalize()
    return f"{number:f}" if -7 < number.adjusted() < 21 else f"{number:e}"  # noqa: PLR2004 - ECMA-262, Number::toString


# ---- PyPI
def _pypi(tool: str, names: tuple[str, ...], run: Callable[..., Awaitable[Answer]]) -> Run:
    """The tool of these arguments, all of them texts; `run` is given them in order."""

    async def answered(call: Call, arguments: Arguments) -> Answer:
        told = _spelled(arguments, SNAKE)
        refusal = _refusal(tool, names, told)
        if refusal is not None:
            return Answer(refusal, is_error=True)
        try:
            for name in names:
                if _SURROGATE.search(told[name]):
                    raise InvalidInputError(name, f"{name} holds a lone surrogate, which cannot be stored")
            return await run(call, *(told[name] for name in names))
        except UnifiedMemoryError as error:
            return failed(error, f"Error: {error.detail}")

    return answered


def _refusal(tool: str, names: tuple[str, ...], arguments: Arguments) -> str | None:
    """What jsonschema (what is missing, then wrong types) and pydantic (what is too much) said of the arguments."""
    for name in names:
        if name not in arguments:
            return f"Input validation error: {name!r} is a required property"
    for name in names:
        if not isinstance(arguments[name], str):
            return f"Input validation error: {arguments[name]!r} is not of type 'string'"
    unknown = [name for name in arguments if name not in names]
    if not unknown:
        return None
    told = "".join(
        f"\n{name}\n  Unexpected keyword argument [type=unexpected_keyword_argument,"
        f" input_value={_cut(repr(arguments[name]))}, input_type={type(arguments[name]).__name__}]"
        "\n    For further information visit https://errors.pydantic.dev/2.11/v/unexpected_keyword_argument"
        for name in unknown
    )
    errors = f"{len(unknown)} validation error{'s' if len(unknown) > 1 else ''}"
    return _SURROGATE.sub("\ufffd", f"Error calling tool '{tool}': {errors} for call[{tool}]{told}")


def _cut(told: str) -> str:
    """The text as pydantic shows it: of more than 50 bytes the first 25 and the last 24, in whole characters."""
    whole = told.encode()
    if len(whole) <= 50:  # noqa: PLR2004 - see above
        return told
    return f"{whole[:25].decode(errors='ignore')}...{whole[-24:].decode(errors='ignore')}"


def _listed(names: list[str]) -> Answer:
    return Answer(_json(names) if names else None, {"result": names})


def _said(words: str, *, is_error: bool = False) -> Answer:
    return Answer(words, {"result": words}, is_error=is_error)


async def _pypi_list_projects(call: Call) -> Answer:
    return _listed(await call.service.bank.projects(call.principal))


async def _pypi_list_project_files(call: Call, project: str) -> Answer:
    return _listed(await call.service.bank.files(call.principal, project))


async def _pypi_read(call: Call, project: str, file: str) -> Answer:
    try:
        return _said(await call.service.bank.read(call.principal, project, file))
    except MemoryNotFoundError:
        # This server has a result of its own for it, which its output schema names.
        return Answer(None, {"result": None})


async def _pypi_write(call: Call, project: str, file: str, content: str) -> Answer:
    key = _idempotent(call, "write", project, file, content)
    try:
        await call.service.bank.write(call.principal, project, file, content, key)
    except AlreadyExistsError:
        return _said(f"Error: File '{file}' already exists in project '{project}'. Not overwriting.", is_error=True)
    return _said(f"Successfully wrote file '{file}' to project '{project}'.")


async def _pypi_update(call: Call, project: str, file: str, content: str) -> Answer:
    key = _idempotent(call, "update", project, file, content)
    try:
        await call.service.bank.update(call.principal, project, file, content, key)
    except MemoryNotFoundError:
        return _said(f"Error: File '{file}' not found in project '{project}'. Cannot update.", is_error=True)
    return _said(f"Successfully updated file '{file}' in project '{project}'.")


# ---- the tools
def _result(of: Schema) -> Schema:
    """The structured content of a tool: by the last member fastmcp's clients know to unwrap it."""
    return {**obj(("result",), result=of), "x-fastmcp-wrap-result": True}


class _Spec(Struct, frozen=True):
    """A tool, whatever the dialect. `takes`: its arguments as npm spells them."""

    name: str
    title: str
    description: str
    takes: tuple[str, ...]
    npm: Callable[[Call, Arguments], Awaitable[str]]
    pypi: Callable[..., Awaitable[Answer]]
    result: Schema
    read_only: bool = False
    destructive: bool = False


_ARGUMENTS = {
    PROJECT: "Name of the project, exactly as list_projects shows it",
    FILE: "Name of the file, exactly as list_project_files shows it; a new one for example progress.md",
    CONTENT: "The whole text of the file",
}
_SPECS = (
    _Spec(
        "list_projects",
        "List projects",
        "Names every project that has files in the memory bank. Call it first, to see what is remembered and how the"
        " projects are spelled.",
        (),
        _npm_list_projects,
        _pypi_list_projects,
        array(text()),
        read_only=True,
    ),
    _Spec(
        "list_project_files",
        "List a project's files",
        "Names every file of one project. Call it before reading or writing, to see what is there already.",
        (PROJECT,),
        _npm_list_project_files,
        _pypi_list_project_files,
        array(text()),
        read_only=True,
    ),
    _Spec(
        "memory_bank_read",
        "Read a file",
        "Gives the whole text of one file. Read a project's files when you take up work on it.",
        PLACE,
        _npm_read,
        _pypi_read,
        {"type": ["string", "null"]},
        read_only=True,
    ),
    _Spec(
        "memory_bank_write",
        "Create a file",
        "Creates a file, and the project with its first one. It never overwrites: for a file that exists it fails, and"
        " memory_bank_update replaces it.",
        (*PLACE, CONTENT),
        _npm_write,
        _pypi_write,
        text(),
    ),
    _Spec(
        "memory_bank_update",
        "Replace a file's content",
        "Replaces the whole text of a file that exists; what is to stay must be in the new text, so read it first.",
        (*PLACE, CONTENT),
        _npm_update,
        _pypi_update,
        text(),
        destructive=True,
    ),
)


def _tool(spec: _Spec, takes: tuple[str, ...], run: Run, output: Schema | None) -> Tool:
    described = {name: text(_ARGUMENTS[one]) for name, one in zip(takes, spec.takes, strict=True)}
    return Tool(
        name=spec.name,
        title=spec.title,
        description=spec.description,
        input=obj(takes, **described),
        run=run,
        output=output,
        read_only=spec.read_only,
        destructive=spec.destructive,
        # Written again nothing more happens: the file is there, or holds this text already.
        idempotent=True,
    )


def _npm_tool(spec: _Spec) -> Tool:
    return _tool(spec, spec.takes, _npm(spec.npm), None)


def _pypi_tool(spec: _Spec) -> Tool:
    takes = tuple(SNAKE.get(name, name) for name in spec.takes)
    return _tool(spec, takes, _pypi(spec.name, takes, spec.pypi), _result(spec.result))


_INSTRUCTIONS = (
    "A memory bank: projects of text files that outlast the conversation. See what there is with list_projects and"
    " list_project_files, read it before you begin, and keep it up to date with memory_bank_write (new files) and"
    " memory_bank_update (whole files)."
)

MEMORY_BANK = Profile(
    name="memory-bank",
    instructions=_INSTRUCTIONS,
    tools=tuple(_npm_tool(spec) for spec in _SPECS),
    resources=False,
    unknown=lambda name: ProtocolError(METHOD_NOT_FOUND, f"MCP error {METHOD_NOT_FOUND}: Tool {name} not found"),
)
MEMORY_BANK_PYPI = Profile(
    name="memory-bank-pypi",
    instructions=_INSTRUCTIONS,
    tools=tuple(_pypi_tool(spec) for spec in _SPECS),
    resources=False,
    unknown=lambda name: Answer(f"Unknown tool: {name}", is_error=True),
)
