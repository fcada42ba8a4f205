"""Older servers over streamable HTTP that answer in other ways than they should."""

import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.proxy.test_http import served
from unified_memory.model.errors import SourceUnavailableError
from unified_memory.proxy.calls import read_head
from unified_memory.proxy.forward import LostAnswerError
from unified_memory.proxy.links import Posts
from unified_memory.proxy.talk import Handshake, Peer
from unified_memory.rest.exchange import Receive, Scope, Send, read_body

STREAM = "text/event-stream"
CALL = b'{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"save_context"}}'


class Older:
    """Greets anybody, and answers calls of its sessions by `says`: status, type and body."""

    def __init__(self) -> None:
        self.says: tuple[int, str, bytes] = (200, "application/json", b'{"jsonrpc":"2.0","id":7,"result":{}}')
        self.sessions: set[bytes] = set()
        self.calls = 0
        self._begun = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(scope, receive, 10**6)
        sent: Any = json.loads(body or b"{}")
        session = dict(scope["headers"]).get(b"mcp-session-id")
        headers: list[tuple[bytes, bytes]] = []
        told = 202, "application/json", b""
        if sent.get("method") == "initialize":
            self._begun += 1
            self.sessions.add(b"%d" % self._begun)
            headers.append((b"mcp-session-id", b"%d" % self._begun))
            result = {"protocolVersion": "2025-03-26", "capabilities": {}, "serverInfo": {"name": "o", "version": "1"}}
            told = 200, told[1], json.dumps({"jsonrpc": "2.0", "id": sent["id"], "result": result}).encode()
        elif session not in self.sessions:
            told = 404, told[1], b'{"jsonrpc":"2.0","id":null,"error":{"code":-32001,"message":"Session not found"}}'
        elif "id" in sent:
            self.calls += 1
            told = self.says
        status, kind, content = told
        headers.append((b"content-type", kind.encode()))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


@pytest.fixture
def older() -> Older:
    return Older()


@pytest.fixture
async def peer(older: Older) -> AsyncIterator[Peer]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        async with served(older, listening) as url:
            peer = Peer(Posts.by(f"{url}/mcp"), Handshake(), lambda _: None, greets=True)
            yield peer
            await peer.close()


async def asked(peer: Peer) -> bytes:
    answer = await (await peer.ask(read_head(CALL), CALL))
    assert answer is not None
    return answer


@pytest.mark.parametrize(
    "says",
    [
        (200, STREAM, b": nothing\n\n"),
        (200, STREAM, b'data: {"jsonrpc":"2.0","id":7,'),
        (200, "text/html", b"<html>"),
        (200, "application/json", b""),
        (202, "application/json", b""),
        (500, "text/plain", b"Internal Server Error"),
    ],
)
async def test_an_answer_that_never_comes_is_lost(peer: Peer, older: Older, says: Any) -> None:
    good, older.says = older.says, says
    with pytest.raises(LostAnswerError):
        await asked(peer)
    older.says = good
    assert b"result" in await asked(peer)


@pytest.mark.parametrize(
    "content", [b"nope", b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-1,"message":""}}']
)
async def test_what_is_refused_was_not_done(peer: Peer, older: Older, content: bytes) -> None:
    older.says = (400, "application/json", content)
    with pytest.raises(SourceUnavailableError) as caught:
        await asked(peer)
    assert not isinstance(caught.value, LostAnswerError)


async def test_a_refusal_in_the_words_of_the_protocol_is_the_answer(peer: Peer, older: Older) -> None:
    older.says = (400, "application/json", b'{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"no"}}')
    assert b"-32602" in await asked(peer)


async def test_a_session_that_is_forgotten_is_begun_again(peer: Peer, older: Older) -> None:
    await asked(peer)
    older.sessions.clear()
    with pytest.raises(SourceUnavailableError) as caught:
        await asked(peer)
    assert not isinstance(caught.value, LostAnswerError)
    assert b"result" in await asked(peer)
    assert older.calls == 2
