"""What a message of MCP asks of the older tools: which record it writes, and what of its answer can be compared."""

import json
import re
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from unified_memory.mcp.tool import INTERNAL_ERROR
from unified_memory.model.errors import UnifiedMemoryError
from unified_memory.proxy.stand import Place
from unified_memory.service.contexts import normalise

SAVE, FORGET = "save_context", "forget_context"
WRITE, UPDATE, READ = "memory_bank_write", "memory_bank_update", "memory_bank_read"
WRITES = frozenset({SAVE, FORGET, WRITE, UPDATE})
READS = frozenset(
    {
        "load_contexts",
        "list_all_projects",
        "get_popular_tags",
        "list_projects",
        "list_project_files",
        READ,
    }
)
_LISTS = frozenset({"list_projects", "list_project_files"})
# The order of the projects is Redis's own, and no promise.
_UNORDERED = frozenset({"list_all_projects"})

_ID = re.compile(r"^- Context ID: (\S+)$", re.MULTILINE)
_NOW = re.compile(r"((?:Checked|Generated|Saved) at:(?:\*\*)? )[-0-9]{10} [:0-9]{8}")


class Head(Struct):
    """What a message says of itself. `name`: by which its answer is found, None where none can be awaited. `told`: all of it."""

    name: str | None
    method: str | None
    told: dict[str, Any]

    @property
    def is_answer(self) -> bool:
        """Whether it is an answer to something that was asked."""
        return self.method is None and self.name is not None

    @property
    def tool(self) -> str | None:
        """The tool that it calls."""
        params = self.told.get("params")
        return params.get("name") if self.method == "tools/call" and isinstance(params, dict) else None

    @property
    def arguments(self) -> dict[str, Any]:
        """What it calls the tool with."""
        params = self.told.get("params")
        arguments = params.get("arguments") if isinstance(params, dict) else None
        return arguments if isinstance(arguments, dict) else {}

    @property
    def writes(self) -> bool:
        """Whether it calls a tool that writes."""
        return self.tool in WRITES


def read_head(message: bytes) -> Head:
    """What a message says of itself; of one that is none, nothing."""
    try:
        told = json.loads(message)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        return Head(None, None, {})
    method = told.get("method")
    return Head(name_of(told.get("id")), method if isinstance(method, str) else None, told)


def name_of(number: Any) -> str | None:
    """An id as the key under which its answer is awaited; 1.0 is answered as 1."""
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    return json.dumps(number) if isinstance(number, str | int) and not isinstance(number, bool) else None


def as_line(message: bytes) -> bytes:
    """The message on one line: blanks may be line ends in JSON."""
    return message.strip().replace(b"\r", b" ").replace(b"\n", b" ")


def refusal(head: Head, error: UnifiedMemoryError) -> bytes:
    """The answer that tells an error."""
    message = error.detail + (f". {error.hint}" if error.hint else "")
    told = {"code": INTERNAL_ERROR, "message": message, "data": {"code": error.code}}
    return json.dumps({"jsonrpc": "2.0", "id": head.told.get("id"), "error": told}).encode()


def with_version(initialize: bytes, version: str | None) -> bytes:
    """The client's handshake, for the version that it was told."""
    told = json.loads(initialize)
    if version is not None and isinstance(told.get("params"), dict):
        told["params"]["protocolVersion"] = version
    return json.dumps(told).encode()


def version_of(answer: bytes) -> str | None:
    """The version that the answer to a handshake tells."""
    result = read_head(answer).told.get("result")
    version = result.get("protocolVersion") if isinstance(result, dict) else None
    return version if isinstance(version, str) else None


# ---- writes
def place_written(head: Head, answer: bytes | None) -> Place | None:
    """The record that a call has written, as its tool names it; None where it wrote none. `answer` None: it is not known."""
    texts, is_error = told_by(answer)
    if is_error or any(text.startswith("❌") for text in texts):
        return None
    arguments = head.arguments
    match head.tool:
        case "save_context":
            found = _ID.search("\n".join(texts))
            if found is None or found[1] == "None":
                return None
            project = arguments.get("project_id")
            return Place("context", normalise(project if isinstance(project, str) else None), found[1])
        case "forget_context":
            return Place("context", None, _number(arguments.get("context_id")))
        case "memory_bank_write" | "memory_bank_update":
            return file_of(arguments)
    return None


def file_of(arguments: dict[str, Any]) -> Place | None:
    """The file that a call names, in either spelling."""
    project = arguments.get("projectName", arguments.get("project_name"))
    file = arguments.get("fileName", arguments.get("file_name"))
    return Place("file", project, file) if isinstance(project, str) and isinstance(file, str) else None


def _number(sent: Any) -> str:
    """The id as the older server read it: of SQLite Python's `int`, of Redis the text."""
    try:
        return str(int(sent))
    except (ValueError, TypeError, OverflowError):
        return str(sent)


def reading_of(head: Head, number: str) -> bytes:
    """The message that reads the file which a call has written."""
    arguments = {name: value for name, value in head.arguments.items() if name != "content"}
    params = {"name": READ, "arguments": arguments}
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}).encode()


def written_answer(head: Head) -> bytes:
    """What the older server would have answered, had it not gone: the file is as the call wanted it."""
    arguments = head.arguments
    if "projectName" in arguments:
        done = "written successfully to" if head.tool == WRITE else "updated successfully in"
        text = f"File {arguments['fileName']} {done} project {arguments['projectName']}"
    else:
        file, project = f"file '{arguments['file_name']}'", f"project '{arguments['project_name']}'"
        text = (
            f"Successfully wrote {file} to {project}."
            if head.tool == WRITE
            else (f"Successfully updated {file} in {project}.")
        )
    result = {"content": [{"type": "text", "text": text}], "isError": False}
    return json.dumps({"jsonrpc": "2.0", "id": head.told.get("id"), "result": result}).encode()


# ---- answers
def told_by(answer: bytes | None) -> tuple[list[str], bool]:
    """The texts of a tool's result, and whether it is an error."""
    if answer is None:
        return [], False
    told = read_head(answer).told
    result = told.get("result")
    if not isinstance(result, dict):
        return [], "error" in told
    content = result.get("content")
    blocks = content if isinstance(content, list) else []
    texts = [block["text"] for block in blocks if isinstance(block, dict) and isinstance(block.get("text"), str)]
    return texts, result.get("isError") is True


def comparable(tool: str, texts: Sequence[str], *, is_error: bool) -> object:
    """What of an answer has to be the same: without the time at which it was given, and an order that is no promise."""
    if is_error:
        return "error"
    text = _NOW.sub(r"\1", "\n".join(texts))
    if tool in _LISTS:
        return sorted(_names(text))
    return sorted(text.split("\n")) if tool in _UNORDERED else text


def _names(text: str) -> list[str]:
    try:
        told = msgspec.json.decode(text, type=list[str])
    except msgspec.MsgspecError:
        told = text.split(",") if text else []
    return told
