"""JSON-RPC, a message a line, over any pair of streams: standard input and output, or a socket. Loads the SDK."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any

import anyio
import mcp_types as types
import msgspec
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from msgspec import UNSET, Struct, UnsetType

from unified_memory.mcp.server import MemoryServer

Write = Callable[[bytes], Awaitable[None]]
# How long the answers still under way are waited for when the client has said all it had to say.
LAST_ANSWERS_SECONDS = 30.0
# How many requests of a connection may wait for their answers; more are not read meanwhile.
MAX_UNDER_WAY = 1000


class _Head(Struct):
    """What a message says of itself."""

    id: Any = UNSET
    method: str | UnsetType = UNSET


_head = msgspec.json.Decoder(_Head)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


async def serve_lines(server: MemoryServer, lines: AsyncIterator[bytes], write: Write) -> None:
    """Serves one connection until its lines end, and the answers to all of them are written.

    Before each line stand its number in the conversation and a blank: by it a call that is repeated is recognised.
    A line that is no JSON-RPC message is answered with the error that the protocol has for it.
    """
    incoming, read_stream = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    write_stream, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
    under_way = 0
    streams: set[str] = set()
    answered = asyncio.Event()

    async def settle() -> None:
        nonlocal under_way
        under_way -= 1
        answered.set()

    async def wait_for(most: int) -> None:
        while under_way > most:
            answered.clear()
            await answered.wait()

    async def read() -> None:
        nonlocal under_way
        async with incoming:
            async for numbered in lines:
                number, _, line = numbered.partition(b" ")
                if not line.strip():
                    continue
                try:
                    message = _message(line)
                except (ValueError, RecursionError):
                    await write(_refusal(line))
                    continue
                metadata = ServerMessageMetadata(request_context=number.decode())
                if isinstance(message, types.JSONRPCRequest):
                    if message.method == "subscriptions/listen":
                        streams.add(_name(message.id))
                        metadata.on_request_unanswered = partial(end_stream, message.id)
                    else:
                        await wait_for(MAX_UNDER_WAY - 1)
                        under_way += 1
                        metadata.on_request_unanswered = settle
                try:
                    await incoming.send(SessionMessage(message, metadata))
                except anyio.BrokenResourceError:
                    # The connection is being ended from this side.
                    return
            with anyio.move_on_after(LAST_ANSWERS_SECONDS):
                await wait_for(0)

    async def end_stream(number: Any) -> None:
        streams.discard(_name(number))

    async def deliver() -> None:
        async with outgoing:
            async for one in outgoing:
                message = one.message
                await write(_line(message))
                if isinstance(message, types.JSONRPCResponse | types.JSONRPCError):
                    if _name(message.id) in streams:
                        streams.discard(_name(message.id))
                    else:
                        await settle()

    try:
        async with anyio.create_task_group() as group:
            group.start_soon(read)
            group.start_soon(deliver)
            await server.sdk.run(read_stream, write_stream, server.options)
            group.cancel_scope.cancel()
    finally:
        server.close()


def _name(number: Any) -> str:
    return json.dumps(number)


def _line(message: Any) -> bytes:
    try:
        return message.model_dump_json(by_alias=True, exclude_unset=True).encode() + b"\n"  # type: ignore[no-any-return]
    except ValueError:
        # A lone surrogate that the client sent, and is told again.
        return json.dumps(message.model_dump(by_alias=True, exclude_unset=True)).encode() + b"\n"


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
    if isinstance(number, str):
        return any("\ud800" <= letter <= "\udfff" for letter in number)
    return number is not UNSET and (isinstance(number, bool) or not isinstance(number, int))


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
