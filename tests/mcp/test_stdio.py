"""The command `unified-memory mcp`: alone, before a running service, and when either goes away."""

import asyncio
import fcntl
import json
import os
import stat
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.mcp.conftest import Start
from tests.mcp.wire import BOUND, COMMAND, HANDSHAKE, META, MODERN, Process, text
from unified_memory.mcp.greeting import LOCK, TOKEN

STORE = {"action": "store", "namespace": "wire"}
either = pytest.mark.parametrize("behind", ["a running service", "nobody"])


async def opened(start: Start, serve: Start, directory: Path, behind: str, *arguments: str) -> Process:
    if behind != "nobody":
        await serve(directory)
    process: Process = await start(directory, *arguments)
    return process


async def stored(process: Process, key: str, value: Any = 1) -> Any:
    result = await process.call("memory_usage", {**STORE, "key": key, "value": value})
    assert not result["isError"], result
    return result["structuredContent"]["memory"]


async def keys(process: Process) -> set[str]:
    found: set[str] = set()
    cursor: dict[str, Any] = {}
    while True:
        arguments = {"action": "list", "namespace": "wire", "limit": 100, **cursor}
        told = (await process.call("memory_usage", arguments))["structuredContent"]
        found |= {memory["key"] for memory in told["memories"]}
        if not told.get("next_cursor"):
            return found
        cursor = {"cursor": told["next_cursor"]}


def opened_files(pid: int, name: str) -> list[Path]:
    """What the process has open under that name."""
    return [file for fd in Path(f"/proc/{pid}/fd").iterdir() if name in str(file := fd.resolve())]


# ---- both eras
@either
@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", HANDSHAKE])
async def test_the_handshake_era_is_served(
    start: Start, serve: Start, tmp_path: Path, behind: str, version: str
) -> None:
    process = await opened(start, serve, tmp_path, behind)
    told = await process.handshake(version)
    assert (told["protocolVersion"], told["serverInfo"]["name"]) == (version, "unified-memory")
    assert (await process.ask("ping"))["result"] == {}
    assert len((await process.ask("tools/list"))["result"]["tools"]) == 7
    assert (await stored(process, "k"))["version"] == 1
    assert await process.end() == 0


@either
async def test_the_present_era_is_served_without_a_handshake(
    start: Start, serve: Start, tmp_path: Path, behind: str
) -> None:
    process = await opened(start, serve, tmp_path, behind)
    told = (await process.ask("server/discover", {"_meta": META}))["result"]
    assert told["supportedVersions"] == [MODERN]
    arguments = {**STORE, "key": "k", "value": 1}
    result = (await process.ask("tools/call", {"name": "memory_usage", "arguments": arguments, "_meta": META}))[
        "result"
    ]
    assert (result["isError"], result["resultType"]) == (False, "complete")
    assert await process.end() == 0


# ---- bad input
@either
async def test_what_is_no_message_is_answered_and_the_conversation_goes_on(
    start: Start, serve: Start, tmp_path: Path, behind: str
) -> None:
    process = await opened(start, serve, tmp_path, behind)
    await process.handshake()
    deep = b'{"jsonrpc":"2.0","id":7,"method":"x","params":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    for line, number, code in [
        (b"nonsense", None, -32700),
        (b'{"jsonrpc":"2.0","id":5,"method":"tools/list"', None, -32700),
        (b'"hello"', None, -32600),
        (b"[]", None, -32600),
        (b'[{"jsonrpc":"2.0","id":1,"method":"tools/list"}]', None, -32600),
        (b'{"jsonrpc":"2.0","id":6}', 6, -32600),
        (b'{"jsonrpc":"2.0","id":1,"method":"\xff"}', None, -32700),
        (deep, None, -32700),
    ]:
        expected = process.expect(number)
        await process.write(line)
        answer = await asyncio.wait_for(expected, BOUND)
        assert answer["error"]["code"] == code, (line[:60], answer)
    await process.write(b"")
    await process.write(b"   ")
    unknown = await process.ask("no/such")
    assert unknown["error"]["code"] == -32601
    wrong: Any
    for wrong in ([], "x", 5):
        answer = await process.ask("tools/call", {"name": "memory_usage", "arguments": wrong})
        assert answer["error"]["code"] == -32602
    assert (await process.ask("tools/call", {"name": "no_such_tool", "arguments": {}}))["error"]["code"] == -32602
    wrong = await process.call("memory_usage", {"action": "explode"})
    assert wrong["isError"]
    assert wrong["structuredContent"]["error"]["code"] == "invalid_input"
    assert await process.end() == 0
    assert process.others == []


@either
async def test_ten_megabytes_are_stored_and_more_than_may_be_are_refused(
    start: Start, serve: Start, tmp_path: Path, behind: str
) -> None:
    process = await opened(start, serve, tmp_path, behind)
    await process.handshake()
    await stored(process, "large", "x" * 10_000_000)
    told = await process.call("memory_usage", {"action": "retrieve", "namespace": "wire", "key": "large"})
    assert len(json.dumps(told)) < 20_000
    assert told["structuredContent"]["left_out"] > 9_900_000
    refused = await process.call("memory_usage", {**STORE, "key": "larger", "value": "x" * 17_000_000})
    assert refused["structuredContent"]["error"]["code"] == "too_large"
    assert await keys(process) == {"large"}


# ---- the ends of a conversation
@either
async def test_everything_that_was_asked_is_answered_before_it_ends(
    start: Start, serve: Start, tmp_path: Path, behind: str
) -> None:
    process = await opened(start, serve, tmp_path, behind)
    await process.handshake()
    answers = [process.expect(1000 + n) for n in range(50)]
    for n in range(50):
        params = {"name": "memory_usage", "arguments": {**STORE, "key": f"k{n}", "value": n}}
        await process.write(
            json.dumps({"jsonrpc": "2.0", "id": 1000 + n, "method": "tools/call", "params": params}).encode()
        )
    assert await process.end() == 0
    told = [answer.result()["result"]["structuredContent"]["memory"] for answer in answers]
    # They were done in the order in which they came.
    assert [memory["key"] for memory in told] == [f"k{n}" for n in range(50)]
    assert [memory["id"] for memory in told] == sorted(memory["id"] for memory in told)


@either
async def test_it_ends_when_nobody_reads_it_any_more(start: Start, serve: Start, tmp_path: Path, behind: str) -> None:
    process = await opened(start, serve, tmp_path, behind)
    await process.handshake()
    assert process.process.stdout is not None
    transport = process.process.stdout._transport  # type: ignore[attr-defined]  # noqa: SLF001 - its reading end
    transport.close()
    # It is closed at the next turn of the loop: an answer before that would still be taken.
    await asyncio.sleep(0)
    await process.write(b'{"jsonrpc":"2.0","id":9,"method":"ping"}')
    assert await asyncio.wait_for(process.process.wait(), BOUND) == 0


async def test_a_newer_schema_is_told_to_the_client_and_left_alone(start: Start, tmp_path: Path) -> None:
    first = await start(tmp_path)
    await first.handshake()
    await stored(first, "k")
    assert await first.end() == 0
    database = apsw.Connection(str(tmp_path / "unified-memory.db"))
    database.execute("PRAGMA user_version = 999")
    database.close()
    process = await start(tmp_path)
    answer = await process.ask("initialize", {"protocolVersion": HANDSHAKE, "capabilities": {}, "clientInfo": {}})
    assert answer["error"]["data"]["code"] == "schema_too_new"
    assert await asyncio.wait_for(process.process.wait(), BOUND) == 1
    assert "schema_too_new" in await process.said()


@either
async def test_an_unknown_profile_is_told(start: Start, serve: Start, tmp_path: Path, behind: str) -> None:
    process = await opened(start, serve, tmp_path, behind, "--tools", "nope")
    answer = await process.ask("initialize", {})
    assert "nope" in answer["error"]["message"]
    assert await asyncio.wait_for(process.process.wait(), BOUND) == 1


@either
async def test_it_ends_with_its_input_whatever_was_asked(
    start: Start, serve: Start, tmp_path: Path, behind: str
) -> None:
    process = await opened(start, serve, tmp_path, behind)
    await process.handshake()
    for line in (b'{"jsonrpc":"2.0","id":1.5,"method":"ping"}', b'{"jsonrpc":"2.0","id":true,"method":"ping"}'):
        await process.write(line)
    for n in range(100, 150):
        params = {"name": "memory_usage", "arguments": {**STORE, "key": f"k{n}", "value": n}}
        await process.write(json.dumps({"jsonrpc": "2.0", "id": n, "method": "tools/call", "params": params}).encode())
        await process.notify("notifications/cancelled", {"requestId": str(n)})
    async with asyncio.timeout(BOUND / 2):  # less than answers are waited for
        assert await process.end() == 0
    refused = [one for one in process.others if "error" in one]
    assert [(one["id"], one["error"]["code"]) for one in refused] == [(None, -32600)] * 2


@either
async def test_an_id_that_is_used_again_is_another_call(
    start: Start, serve: Start, tmp_path: Path, behind: str
) -> None:
    process = await opened(start, serve, tmp_path, behind)
    await process.handshake()
    told = [
        await process.ask("tools/call", {"name": "memory_usage", "arguments": {**STORE, "key": "k", "value": n}}, 7)
        for n in (1, 1, 2)
    ]
    assert [one["result"]["structuredContent"]["memory"]["version"] for one in told] == [1, 2, 3]


@either
async def test_a_lone_surrogate_is_told_again(start: Start, serve: Start, tmp_path: Path, behind: str) -> None:
    process = await opened(start, serve, tmp_path, behind)
    await process.handshake()
    for method, params, code in [
        ("\ud800", None, -32601),
        ("tools/call", {"name": "\ud800", "arguments": {}}, -32602),
        ("prompts/get", {"name": "\ud800"}, -32602),
        ("resources/read", {"uri": "memory://a/\ud800"}, -32602),
    ]:
        assert (await process.ask(method, params))["error"]["code"] == code
    expected = process.expect(None)
    await process.write(b'{"jsonrpc":"2.0","id":"\\ud800","method":"ping"}')
    assert (await asyncio.wait_for(expected, BOUND))["error"]["code"] == -32600


@either
async def test_it_stops_when_told_although_nobody_reads(serve: Start, tmp_path: Path, behind: str) -> None:
    if behind != "nobody":
        await serve(tmp_path)
    reading, writing = os.pipe()
    process = await asyncio.create_subprocess_exec(
        COMMAND, "mcp", "--data-dir", str(tmp_path), stdin=asyncio.subprocess.PIPE, stdout=writing
    )
    os.close(writing)
    assert process.stdin is not None
    line = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": META}}
    try:
        process.stdin.write((json.dumps(line) + "\n").encode() * 100)
        # It serves once something comes.
        await asyncio.wait_for(asyncio.to_thread(os.read, reading, 1), BOUND)
        process.terminate()
        assert await asyncio.wait_for(process.wait(), BOUND) == 0
    finally:
        os.close(reading)


async def test_a_client_that_has_closed_standard_error_goes_on(serve: Start, tmp_path: Path) -> None:
    service = await serve(tmp_path)
    reading, writing = os.pipe()
    process = Process(
        await asyncio.create_subprocess_exec(
            COMMAND,
            "mcp",
            "--data-dir",
            str(tmp_path),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=writing,
        )
    )
    os.close(reading)
    os.close(writing)
    await process.handshake()
    await service.kill()
    assert (await process.ask("ping"))["result"] == {}
    assert await process.end() == 0


# ---- the door
async def test_a_service_of_another_database_is_not_used(start: Start, serve: Start, tmp_path: Path) -> None:
    await serve(tmp_path, "--sqlite-path", str(tmp_path / "a.db"))
    process = await start(tmp_path, "--sqlite-path", str(tmp_path / "b.db"))
    await process.handshake()
    await stored(process, "k")
    assert opened_files(process.process.pid, "b.db")


async def test_the_door_opens_although_somebody_looks_at_the_lock(start: Start, serve: Start, tmp_path: Path) -> None:
    lock = (tmp_path / LOCK).open("a+")
    fcntl.flock(lock, fcntl.LOCK_SH)
    starting = asyncio.create_task(serve(tmp_path))
    database = tmp_path / "unified-memory.db"
    async with asyncio.timeout(BOUND):
        while not database.exists():  # noqa: ASYNC110 - a file of another process
            await asyncio.sleep(0.01)
    # By now it is about to take the lock.
    asyncio.get_running_loop().call_later(0.5, lock.close)
    service = await starting
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == service.process.pid
    process = await start(tmp_path)
    await process.handshake()
    assert not opened_files(process.process.pid, "unified-memory.db")


async def test_a_running_service_is_used(start: Start, serve: Start, tmp_path: Path) -> None:
    service = await serve(tmp_path)
    assert stat.S_IMODE((tmp_path / TOKEN).stat().st_mode) == 0o600
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == service.process.pid
    process = await start(tmp_path)
    await process.handshake()
    await stored(process, "k")
    assert not opened_files(process.process.pid, "unified-memory.db")


async def test_nobody_is_let_in_without_the_token(serve: Start, tmp_path: Path) -> None:
    await serve(tmp_path)
    port = json.loads((tmp_path / LOCK).read_text())["port"]
    for hello in (b'{"token":"wrong","session":"s"}', b'{"session":"s"}', b"nonsense", b'{"token":"","session":""}'):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(hello + b"\n" + b'{"jsonrpc":"2.0","id":1,"method":"ping"}\n')
        told = await asyncio.wait_for(reader.read(), BOUND)
        assert b"jsonrpc" not in told
        writer.close()


async def test_what_a_dead_service_left_behind_is_seen_through(start: Start, serve: Start, tmp_path: Path) -> None:
    service = await serve(tmp_path)
    await service.kill()
    assert (tmp_path / LOCK).read_text()
    process = await start(tmp_path)
    await process.handshake()
    await stored(process, "k")
    assert await process.end() == 0


async def test_a_second_service_leaves_the_door_to_the_first(start: Start, serve: Start, tmp_path: Path) -> None:
    first = await serve(tmp_path)
    await serve(tmp_path)
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == first.process.pid
    process = await start(tmp_path)
    await process.handshake()
    await stored(process, "k")


async def test_a_conversation_outlives_its_service_and_each_call_is_done_once(
    start: Start, serve: Start, tmp_path: Path
) -> None:
    process: Process = await start(tmp_path)
    for turn in range(3):
        service = await serve(tmp_path)
        if turn == 0:
            process = await start(tmp_path)
            await process.handshake()
        for n in range(200):
            params = {"name": "save_context", "arguments": {"content": f"{turn}-{n}", "project_id": "once"}}
            number = turn * 1000 + n
            process.expect(number)
            line = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
            await process.write(json.dumps(line).encode())
        answers = [process.expect(turn * 1000 + n) for n in range(200)]
        await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED, timeout=BOUND)
        await service.kill()
        done, _ = await asyncio.wait(answers, timeout=BOUND)
        assert len(done) == 200
        assert not [one for one in done if one.result().get("result", {"isError": True})["isError"]]
        if turn == 0:
            # From here on it holds the directory itself; what it answers must not change.
            told = await process.call("load_contexts", {"project_id": "once", "importance_level": 1, "limit": -1})
            assert "Found 200" in text(told)
    told = await process.call("load_contexts", {"project_id": "once", "importance_level": 1, "limit": -1})
    assert "Found 600" in text(told)


# ---- subscriptions
@either
async def test_a_subscription_hears_of_a_store_through_another_process(
    start: Start, serve: Start, tmp_path: Path, behind: str
) -> None:
    listener = await opened(start, serve, tmp_path, behind)
    other = await start(tmp_path)
    for process in (listener, other):
        await process.handshake()
    uri = "memory://wire/k"
    assert (await listener.ask("resources/subscribe", {"uri": uri}))["result"] == {}
    await stored(other, "unheard")
    await stored(other, "k")
    await asyncio.wait_for(listener.heard.wait(), BOUND)
    assert [(one["method"], one["params"]["uri"]) for one in listener.others] == [
        ("notifications/resources/updated", uri)
    ]
    listener.heard.clear()
    await listener.ask("resources/unsubscribe", {"uri": uri})
    await stored(other, "k")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(listener.heard.wait(), 1)


@either
async def test_a_subscription_of_the_present_era_hears_it_too(
    start: Start, serve: Start, tmp_path: Path, behind: str
) -> None:
    listener = await opened(start, serve, tmp_path, behind)
    other = await start(tmp_path)
    await other.handshake()
    uri = "memory://wire/k"
    params = {"notifications": {"resourceSubscriptions": [uri]}, "_meta": META}
    listener.expect("s")
    await listener.write(
        json.dumps({"jsonrpc": "2.0", "id": "s", "method": "subscriptions/listen", "params": params}).encode()
    )
    await asyncio.wait_for(listener.heard.wait(), BOUND)
    listener.heard.clear()
    await stored(other, "k")
    await asyncio.wait_for(listener.heard.wait(), BOUND)
    assert [one["method"] for one in listener.others] == [
        "notifications/subscriptions/acknowledged",
        "notifications/resources/updated",
    ]
    assert listener.others[1]["params"]["uri"] == uri


# ---- progress
@either
@pytest.mark.parametrize("era", ["handshake", "present"])
async def test_progress_of_a_long_call_is_seen(
    start: Start, serve: Start, tmp_path: Path, behind: str, era: str
) -> None:
    process = await opened(start, serve, tmp_path, behind, "--tools", "all")
    envelope: dict[str, Any] = {} if era == "handshake" else META
    if era == "handshake":
        await process.handshake()
    for n in range(450):
        told = {"name": "memory_usage", "arguments": {**STORE, "key": f"k{n:04}", "value": n}, "_meta": envelope}
        assert "result" in await process.ask("tools/call", told)
    arguments = {"pattern": "k??????", "namespace": "wire"}
    params = {"name": "memory_search", "arguments": arguments, "_meta": {**envelope, "progressToken": "p"}}
    found = (await process.ask("tools/call", params))["result"]["structuredContent"]["memories"]
    assert [memory["key"] for memory in found] == []
    heard = [one["params"] for one in process.others if one["method"] == "notifications/progress"]
    assert [(one["progressToken"], one["progress"]) for one in heard] == [("p", 200), ("p", 400)]
