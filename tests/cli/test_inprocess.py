"""An application in this process gives its answers piece by piece, and its errors as they are."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx2
import pytest

from unified_memory.cli.inprocess import InProcess
from unified_memory.model.errors import StorageCorruptError

BOUND = 20.0
Application = Callable[[Any, Callable[[], Awaitable[Any]], Callable[[Any], Awaitable[None]]], Awaitable[None]]
START = {"type": "http.response.start", "status": 200, "headers": [(b"x-told", b"so")]}


def asking(application: Application) -> httpx2.AsyncClient:
    return httpx2.AsyncClient(transport=InProcess(application), base_url="http://127.0.0.1")


def piece(body: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


async def test_pieces_come_as_they_are_made_and_no_sooner_than_they_are_taken() -> None:
    made: list[int] = []

    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        for number in range(100):
            made.append(number)
            await send(piece(b"%d," % number))
        await send(piece(b"end", more=False))

    async with asking(application) as client, client.stream("GET", "/x?y=1") as answer:
        assert (answer.status_code, answer.headers["x-told"]) == (200, "so")
        pieces = answer.aiter_bytes()
        assert await anext(pieces) == b"0,"
        assert len(made) < 5
        rest = b"".join([one async for one in pieces])
    assert rest.endswith(b"98,99,end")
    assert len(made) == 100


async def test_whoever_leaves_ends_the_application() -> None:
    ended = asyncio.Event()

    async def application(_scope: Any, receive: Any, send: Any) -> None:
        try:
            await send(START)
            await send(piece(b"first"))
            while (await receive())["type"] != "http.disconnect":
                pass
        finally:
            ended.set()

    async with asking(application) as client, client.stream("GET", "/") as answer:
        assert await anext(answer.aiter_bytes()) == b"first"
        assert not ended.is_set()
    await asyncio.wait_for(ended.wait(), BOUND)


async def test_an_error_comes_out_of_the_request_or_of_the_reading() -> None:
    async def at_once(_scope: Any, _receive: Any, _send: Any) -> None:
        raise StorageCorruptError("A page is damaged")

    async def later(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)
        await send(piece(b"first"))
        raise StorageCorruptError("A page is damaged")

    for application in (at_once, later):
        async with asking(application) as client:
            with pytest.raises(StorageCorruptError):
                await client.get("/")


async def test_an_answer_without_an_end_is_no_answer() -> None:
    async def application(_scope: Any, _receive: Any, send: Any) -> None:
        await send(START)

    async with asking(application) as client:
        with pytest.raises(EOFError):
            await client.get("/")


async def test_a_body_is_taken_bit_by_bit() -> None:
    taken: list[bytes] = []

    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            assert len(taken) == number
            yield b"%d" % number

    async def application(scope: Any, receive: Any, send: Any) -> None:
        assert (scope["method"], scope["path"], scope["query_string"]) == ("POST", "/a b", b"c=%20")
        while (message := await receive())["more_body"]:
            taken.append(message["body"])
        await send(START)
        await send(piece(b"done", more=False))

    async with asking(application) as client:
        answer = await client.post("/a%20b?c=%20", content=parts())
    assert (answer.content, taken) == (b"done", [b"0", b"1", b"2"])
