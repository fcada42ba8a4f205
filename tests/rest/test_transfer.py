"""Export and import over REST: as lines that come and go, never as a whole."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.rest.asking import LIMITS, MAX_BODY, PREFIX, Rest, make_storage, refused, serving
from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import StorageCorruptError
from unified_memory.storage.inmemory import InMemoryStorage

BOUND = 20.0
LINES = "application/x-ndjson"


async def exported(rest: Rest, query: str = "") -> bytes:
    answer = await rest.ask("GET", f"/export{query}")
    assert (answer.status_code, answer.headers["content-type"]) == (200, LINES)
    return answer.content


async def imported(rest: Rest, lines: bytes, query: str = "") -> dict[str, Any]:
    """The counts of an import."""
    told = await rest.ok("POST", f"/import{query}", lines, headers={"Content-Type": LINES})
    assert told["read"] == told["stored"] + told["replaced"] + told["skipped"] + told["failed"]
    return {name: told[name] for name in ("stored", "replaced", "skipped", "failed")}


def line(key: str, value: Any, **more: Any) -> bytes:
    return json.dumps({"key": key, "namespace": "acme", "value": value, **more}).encode() + b"\n"


# ---- there and back
async def test_what_goes_out_comes_in_again_as_it_was(rest: Rest) -> None:
    await rest.store("a", {"n": 1.10}, "acme", metadata={"tags": ["t"], "author": "ann", "importance": 9})
    await rest.store("ä/日\n", None, "acme/web", ttl=3600)
    await rest.ok("POST", "/namespaces", {"name": "acme", "config": {"default_ttl": 60}})
    lines = await exported(rest)
    assert [json.loads(one).get("key") for one in lines.splitlines()] == [None, "a", "ä/日\n"]
    rest.clock.advance(1)
    async with serving(InMemoryStorage(rest.clock), rest.clock) as other:
        told = await imported(other, lines)
        assert (told["failed"], told["stored"]) == (0, 3)
        assert await exported(other) == lines
        assert (await imported(other, lines))["stored"] == 0
        assert (await other.ok("GET", "/namespaces/acme"))["config"] == {"default_ttl": 60}


async def test_a_namespace_goes_out_alone_or_with_those_below(rest: Rest) -> None:
    for namespace in ("acme", "acme/web", "acme-corp"):
        await rest.store("k", namespace, namespace)
    for query, wanted in (("", ["acme", "acme/web"]), ("&recursive=false", ["acme"])):
        lines = await exported(rest, f"?namespace=acme{query}")
        assert [json.loads(one)["value"] for one in lines.splitlines()] == wanted
    told = await imported(rest, await exported(rest, "?namespace=acme"), "?into=copy/of")
    assert told["stored"] == 2
    assert (await rest.ok("GET", "/retrieve/k?namespace=copy/of/acme/web"))["value"] == "acme/web"
    refused(await rest.ask("GET", "/export?namespace=nowhere"), 404, "namespace_not_found")
    refused(await rest.ask("GET", "/export?namespace=a//b"), 422, "invalid_input", "namespace")


async def test_nothing_goes_out_of_nothing(rest: Rest) -> None:
    assert await exported(rest) == b""
    assert await imported(rest, b"") == {"stored": 0, "replaced": 0, "skipped": 0, "failed": 0}


# ---- in
@pytest.mark.parametrize(
    ("on_conflict", "count", "value"),
    [
        (None, "skipped", "here"),
        ("skip", "skipped", "here"),
        ("replace", "replaced", "line"),
        ("newer", "skipped", "here"),
    ],
)
async def test_a_conflict_ends_as_it_was_told(rest: Rest, on_conflict: str | None, count: str, value: str) -> None:
    await rest.store("k", "here", "acme")
    old = {"metadata": {"updated_at": "2020-01-01T00:00:00Z"}}
    told = await imported(rest, line("k", "line", **old), "" if on_conflict is None else f"?on_conflict={on_conflict}")
    assert told == {"stored": 0, "replaced": 0, "skipped": 0, "failed": 0, count: 1}
    assert (await rest.ok("GET", "/retrieve/k?namespace=acme"))["value"] == value


async def test_an_import_that_is_to_fail_ends_at_the_line(rest: Rest) -> None:
    await rest.store("b", "here", "acme")
    answer = await rest.ask("POST", "/import?on_conflict=fail", line("a", 1) + line("b", 2) + line("c", 3))
    told = refused(answer, 409, "conflict")
    assert told["line"] == 2
    refused(await rest.ask("POST", "/import?on_conflict=perhaps", b""), 422, "invalid_input", "on_conflict")
    refused(await rest.ask("POST", "/import?into=a//b", b""), 422, "invalid_input", "into")


async def test_a_line_that_cannot_be_stored_is_told_and_the_others_are_stored(rest: Rest) -> None:
    lines = b"".join(
        [line("a", 1), b"{no JSON\n", line("", 1), line("b", "x" * (LIMITS.value_bytes + 1)), b"\xff\n", line("c", 1)]
    )
    answer = await rest.ok("POST", "/import", lines)
    assert (answer["read"], answer["stored"], answer["failed"]) == (6, 2, 4)
    assert [one["line"] for one in answer["errors"]] == [2, 3, 4, 5]
    assert answer["errors"][2]["code"] == "too_large"


async def test_an_import_is_not_bound_by_the_size_of_a_body(one_rest: Rest) -> None:
    count = 3 * MAX_BODY // 50_000
    lines = b"".join(line(f"k{number}", "x" * 50_000) for number in range(count))
    assert len(lines) > MAX_BODY
    assert (await imported(one_rest, lines))["stored"] == count


# ---- bit by bit
class Exchange:
    """A request spoken as a server would: what the application takes and sends can be seen while it goes on."""

    def __init__(self, rest: Rest, method: str, path: str, parts: AsyncIterator[bytes] | None = None) -> None:
        scope = {
            "type": "http",
            "method": method,
            "path": PREFIX + path,
            "raw_path": (PREFIX + path).encode(),
            "query_string": b"",
            "headers": [],
        }
        self._parts = parts
        self.taken = 0
        self.sent: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self.may_send = asyncio.Semaphore(0)
        self.stuck = asyncio.Event()
        self.task = asyncio.create_task(rest.application(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        if self._parts is not None:
            part = await anext(self._parts, None)
            if part is None:
                return {"type": "http.disconnect"}
            self.taken += 1
            return {"type": "http.request", "body": part, "more_body": True}
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if self.may_send.locked():
            self.stuck.set()
        await self.may_send.acquire()
        self.sent.append(dict(message))


async def test_an_export_is_made_as_it_is_taken_and_ends_with_its_reader(one_rest: Rest) -> None:
    for number in range(40):
        await one_rest.store(f"k{number:02}", "x" * 90_000)
    exchange = Exchange(one_rest, "GET", "/export")
    for _ in range(3):
        exchange.may_send.release()
    await asyncio.wait_for(exchange.stuck.wait(), BOUND)
    assert exchange.sent[0]["status"] == 200
    # Two pieces of some lines: the rest was not made yet.
    assert all(len(message["body"]) < 1_000_000 for message in exchange.sent[1:])
    exchange.left.set()
    await asyncio.wait_for(exchange.task, BOUND)
    assert len(exchange.sent) == 3
    assert exchange.sent[-1]["more_body"] is True


async def test_an_export_that_fails_on_its_way_does_not_look_whole(one_rest: Rest) -> None:
    for number in range(40):
        await one_rest.store(f"k{number:02}", "x" * 90_000)
    storage: Any = one_rest.service.storage
    select, asked = storage.select, []

    async def failing(*args: Any, **kwargs: Any) -> Any:
        asked.append(args)
        if len(asked) > 1:
            raise StorageCorruptError("A page is damaged")
        return await select(*args, **kwargs)

    storage.select = failing
    exchange = Exchange(one_rest, "GET", "/export")
    for _ in range(100):
        exchange.may_send.release()
    with pytest.raises(StorageCorruptError):
        await asyncio.wait_for(exchange.task, BOUND)
    assert len(exchange.sent) > 1
    assert exchange.sent[-1].get("more_body") is True


async def test_a_client_that_leaves_has_imported_what_was_stored(one_rest: Rest) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(1000):
            yield line(f"k{number}", number)
        # It leaves in the middle of a line.
        yield b'{"key": "ha'

    exchange = Exchange(one_rest, "POST", "/import", parts())
    await asyncio.wait_for(exchange.task, BOUND)
    assert (exchange.taken, exchange.sent) == (1001, [])
    kept = (await one_rest.ok("GET", "/stats"))["memories"]
    assert 0 < kept <= 1000
    # Sent again it is whole.
    told = await imported(one_rest, b"".join(line(f"k{number}", number) for number in range(1000)))
    assert told == {"stored": 1000 - kept, "replaced": 0, "skipped": kept, "failed": 0}


async def test_an_import_goes_on_in_the_middle_of_a_line(one_rest: Rest) -> None:
    whole = line("ä/日", {"n": 1}) + line("b", 2).rstrip(b"\n")

    async def parts() -> AsyncIterator[bytes]:
        for place in range(len(whole)):
            yield whole[place : place + 1]

    answer = await one_rest.client.post(f"{PREFIX}/import", content=parts())
    assert (answer.status_code, answer.json()["stored"]) == (200, 2)


async def test_read_only_refuses_an_import(directory: Path) -> None:
    clock = SettableClock()
    async with serving(make_storage("sqlite", directory, clock), clock, read_only=True) as rest:
        refused(await rest.ask("POST", "/import", line("a", 1)), 403, "read_only")
        assert await exported(rest) == b""
