"""JSON-RPC, a message a line, over any pair of streams: standard input and output, or a socket. Loads the SDK."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import mcp_types as types
import msgspec
from mcp.shared.message import SessionMessage
from msgspec import UNSET, Struct, UnsetType

from unified_memory.mcp.server import MemoryServer

Write = Callable[[bytes], Awaitable[None]]
# How long the answers still under way are waited for when the client has said all it had to say.
LAST_ANSWERS_SECONDS = 30.0


class _Head(Struct):
    """What a message says of itself."""

    id: Any = UNSET
    method: str | UnsetType = UNSET


_head = msgspec.json.Decoder(_Head)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


async def serve_lines(server: MemoryServer, lines: AsyncIterator[bytes], write: Write) -> None:
    """Serves one connection until its lines end, and the answers to all of them are written.

    A line that is no JSON-RPC message is answered with the error that the protocol has for it.
    """
    incoming, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_stream, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    owed: dict[str, None] = {}
    settled = asyncio.Event()

    async def read() -> None:
        async with incoming:
            async for line in lines:
                if not line.strip():
                    continue
                try:
                    message = _message(line)
                except (ValueError, RecursionError):
                    await write(_refusal(line))
                    continue
                if isinstance(message, types.JSONRPCRequest) and message.method != "subscriptions/listen":
                    owed[_name(message.id)] = None
                    settled.clear()
                await incoming.send(SessionMessage(message))
            if owed:
                with anyio.move_on_after(LAST_ANSWERS_SECONDS):
                    await settled.wait()

    async def deliver() -> None:
        async with outgoing:
            async for one in outgoing:
                message = one.message
                await write(message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n")
                if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
                    owed.pop(_name(message.id), None)
                    if not owed:
                        settled.set()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            group.start_soon(deliver)
            await server.sdk.run(read_stream, write_stream, server.options)
            group.cancel_scope.cancel()
    finally:
        server.close()


def _name(number: Any) -> str:
    return msgspec.json.encode(number).decode()


def _message(line: bytes) -> Any:
    """The message that a line is. Raises ValueError where it is none."""
    if _SURROGATE.search(line):
        # Python's reader alone takes a lone surrogate; the tools know what to do with one.
        told = json.loads(line)
        if isinstance(told, dict) and _unfit(told.get("id", UNSET)):
            raise ValueError
        return types.jsonrpc_message_adapter.validate_python(told, by_name=False)
    if b'"id"' in line and _unfit(_head.decode(line).id):
        raise ValueError
    return types.jsonrpc_message_adapter.validate_json(line, by_name=False)


def _unfit(number: Any) -> bool:
    """Whether it is given, and can name no request: the SDK would take such a request for a notification."""
    return number is not UNSET and (isinstance(number, bool) or not isinstance(number, str | int))


def _refusal(line: bytes) -> bytes:
    """The answer to a line that is no message."""
    number: Any = None
    code, message = types.INVALID_REQUEST, "Invalid request: a line holds one JSON-RPC message"
    try:
        told = json.loads(line)
    except (ValueError, RecursionError):
        code, message = types.PARSE_ERROR, "Parse error"
    else:
        if isinstance(told, dict) and not _unfit(told.get("id", UNSET)):
            number = told.get("id")
    answer = {"jsonrpc": "2.0", "id": number, "error": {"code": code, "message": message}}
    return msgspec.json.encode(answer) + b"\n"
