"""Conversations that go on whoever answers: an older server as a program, ours, and what lies between them."""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.manager import BOUND, RecordingManager, make_service, until
from unified_memory.model.errors import SourceError
from unified_memory.model.principal import ANONYMOUS
from unified_memory.proxy import links
from unified_memory.proxy.links import Child
from unified_memory.proxy.stand import Stand
from unified_memory.proxy.talk import Desk, Talk
from unified_memory.sources.ledger import Phase

OLDER = Path(__file__).with_name("older.py")
GREETING = {"protocolVersion": "2025-03-26", "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}


class Scene:
    """A proxy before the older program, and one client's conversation."""

    def __init__(self, directory: Path, tools: str) -> None:
        self.directory = directory / "older"
        self.directory.mkdir()
        self.manager = RecordingManager(Phase.SHADOW)
        self.stand = Stand(make_service(directory / "ours"), self.manager, "memory-bank-mcp")
        older = Child.by([sys.executable, str(OLDER), str(self.directory)])
        self.desk = Desk(self.stand, tools, older, max_body=10**6)
        self.unasked: list[bytes] = []
        self.talk: Talk = self.desk.talk(self.unasked.append)
        self._number = 0

    async def ask(self, method: str, params: Any) -> Any:
        self._number += 1
        message = {"jsonrpc": "2.0", "id": self._number, "method": method, "params": params}
        async with asyncio.timeout(BOUND):
            answer = await (await self.talk.begin(json.dumps(message).encode()))
        assert answer is not None
        told = json.loads(answer)
        assert told["id"] == self._number
        return told

    async def greet(self) -> Any:
        told = (await self.ask("initialize", GREETING))["result"]
        done = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        assert await (await self.talk.begin(json.dumps(done).encode())) is None
        return told

    async def call(self, tool: str, **arguments: Any) -> str:
        result = (await self.ask("tools/call", {"name": tool, "arguments": arguments}))["result"]
        assert not result.get("isError"), result
        return str(result["content"][0]["text"])

    async def write(self, file: str, content: str) -> str:
        return await self.call("memory_bank_write", projectName="p", fileName=file, content=content)

    async def read(self, file: str) -> str:
        return await self.call("memory_bank_read", projectName="p", fileName=file)

    def files(self) -> dict[str, str]:
        return {file.name: file.read_text("utf-8") for file in (self.directory / "bank" / "p").iterdir()}

    def done(self, tool: str) -> int:
        """How often the older server has done it."""
        lines = (self.directory / "log").read_text().splitlines()
        return Counter(json.loads(line)[0] for line in lines)[tool]

    def older(self) -> int:
        """The process id of the older server."""
        return int((self.directory / "pid").read_text())

    def kill_older(self) -> None:
        """Kills it so that its end is there, and the proxy had no turn to see it."""
        number = self.older()
        os.kill(number, signal.SIGKILL)
        # The thread that waits for children may have reaped it already; the loop has not heard of that.
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, number, os.WEXITED | os.WNOWAIT)

    async def quiet(self) -> None:
        await until(lambda: not self.stand.busy)


async def opened(directory: Path, tools: str) -> AsyncIterator[Scene]:
    scene = Scene(directory, tools)
    await scene.desk.open()
    yield scene
    await scene.talk.close()
    await scene.desk.close()


@pytest.fixture
async def bank(tmp_path: Path) -> AsyncIterator[Scene]:
    async for scene in opened(tmp_path, "memory-bank"):
        yield scene


@pytest.fixture
async def contexts(tmp_path: Path) -> AsyncIterator[Scene]:
    async for scene in opened(tmp_path, "extended-memory"):
        yield scene


async def test_the_older_server_answers_until_the_switch_and_then_ours_without_a_new_greeting(bank: Scene) -> None:
    assert (await bank.greet())["serverInfo"]["name"] == "older"
    await bank.write("a.md", "one")
    assert bank.manager.mirrored == [("memory-bank-mcp", "file", "p", "a.md")]
    bank.manager.now = Phase.SWITCHED
    assert await bank.write("b.md", "two") == "File b.md written successfully to project p"
    assert await bank.read("b.md") == "two"
    await bank.quiet()
    assert bank.manager.passes >= 1
    assert bank.files() == {"a.md": "one"}
    assert await bank.stand.service.bank.read(ANONYMOUS, "p", "b.md") == "two"


async def test_after_the_return_a_new_older_server_is_greeted_by_the_proxy(bank: Scene) -> None:
    bank.manager.now = Phase.SWITCHED
    assert (await bank.greet())["serverInfo"]["name"] == "unified-memory"
    bank.manager.now = Phase.RETURNED
    await bank.write("a.md", "one")
    assert bank.files() == {"a.md": "one"}
    assert bank.manager.mirrored == []
    assert bank.unasked == []


async def test_in_shadow_a_context_is_mirrored_by_the_id_that_it_got(contexts: Scene) -> None:
    await contexts.greet()
    assert "Context ID: 1" in await contexts.call("save_context", content="x", project_id="My_Project")
    assert "deleted" in await contexts.call("forget_context", context_id=" 1 ")
    assert "not found" in await contexts.call("forget_context", context_id=7)
    assert contexts.manager.mirrored == [
        ("memory-bank-mcp", "context", "my project", "1"),
        ("memory-bank-mcp", "context", None, "1"),
    ]


async def test_in_shadow_reads_are_compared_with_ours(bank: Scene) -> None:
    await bank.greet()
    bank.manager.mirrors = lambda _shape, project, file: copied(bank, project or "", file)
    await bank.write("a.md", "one")
    await bank.read("a.md")
    await bank.quiet()
    assert bank.manager.told == [("memory-bank-mcp", "memory_bank_read", True, None)]
    await bank.stand.service.bank.update(ANONYMOUS, "p", "a.md", "otherwise")
    await bank.read("a.md")
    await bank.quiet()
    assert [same for _, _, same, _ in bank.manager.told] == [True, False]


async def copied(scene: Scene, project: str, file: str) -> None:
    await scene.stand.service.bank.write(ANONYMOUS, project, file, scene.files()[file])


async def test_what_fails_here_in_shadow_is_not_the_clients_business(bank: Scene) -> None:
    async def fails(_shape: str, _project: str | None, _key: str) -> None:
        raise SourceError("memory-bank-files", "x", "It cannot be read")

    bank.manager.mirrors = fails
    await bank.greet()
    await bank.write("a.md", "one")
    await bank.quiet()
    assert bank.stand.failures == {"mirror": 1}


# ---- an older server that dies
async def test_a_read_is_asked_again_where_the_older_server_dies(bank: Scene) -> None:
    await bank.greet()
    await bank.write("a.md", "one")
    for moment in ("before", "after"):
        (bank.directory / f"die-{moment}-memory_bank_read").touch()
        assert await bank.read("a.md") == "one"


async def test_a_file_that_was_written_before_the_older_server_died_is_told_as_written(bank: Scene) -> None:
    await bank.greet()
    (bank.directory / "die-after-memory_bank_write").touch()
    assert await bank.write("a.md", "one") == "File a.md written successfully to project p"
    assert bank.done("memory_bank_write") == 1
    assert bank.manager.mirrored == [("memory-bank-mcp", "file", "p", "a.md")]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_save_whose_answer_was_lost_is_an_error_and_never_done_twice(contexts: Scene, moment: str) -> None:
    await contexts.greet()
    (contexts.directory / f"die-{moment}-save_context").touch()
    told = await contexts.ask("tools/call", {"name": "save_context", "arguments": {"content": "x"}})
    assert "Whether it wrote is not known" in told["error"]["message"]
    assert "Context ID" in await contexts.call("save_context", content="y")
    assert contexts.done("save_context") == (1 if moment == "before" else 2)


async def test_a_file_that_was_not_written_when_the_older_server_died_is_an_error(bank: Scene) -> None:
    await bank.greet()
    (bank.directory / "die-before-memory_bank_write").touch()
    arguments = {"projectName": "p", "fileName": "a.md", "content": "one"}
    told = await bank.ask("tools/call", {"name": "memory_bank_write", "arguments": arguments})
    assert "Whether it wrote is not known" in told["error"]["message"]


async def test_what_was_to_be_forgotten_is_gone_whenever_the_older_server_dies(contexts: Scene) -> None:
    await contexts.greet()
    await contexts.call("save_context", content="x")
    (contexts.directory / "die-before-forget_context").touch()
    assert "deleted" in await contexts.call("forget_context", context_id=1)
    assert json.loads((contexts.directory / "kept.json").read_text())["contexts"] == {}


async def test_an_older_server_that_cannot_be_started_is_told_and_not_noticed_after_the_switch(tmp_path: Path) -> None:
    manager = RecordingManager(Phase.SHADOW)
    stand = Stand(make_service(tmp_path), manager, "memory-bank-mcp")
    desk = Desk(stand, "memory-bank", Child.by([str(tmp_path / "missing")]), max_body=10**6)
    await desk.open()
    talk = desk.talk(lambda _: None)
    try:
        message = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": GREETING}
        told = json.loads(await (await talk.begin(json.dumps(message).encode())) or b"")
        assert "cannot be started" in told["error"]["message"]
        manager.now = Phase.SWITCHED
        told = json.loads(await (await talk.begin(json.dumps(message).encode())) or b"")
        assert told["result"]["serverInfo"]["name"] == "unified-memory"
    finally:
        await talk.close()
        await desk.close()


async def test_an_older_server_that_takes_no_greeting_is_told_and_tried_again(bank: Scene) -> None:
    bank.manager.now = Phase.SWITCHED
    await bank.greet()
    bank.manager.now = Phase.RETURNED
    (bank.directory / "no-greeting").touch()
    arguments = {"projectName": "p", "fileName": "a.md", "content": "one"}
    told = await bank.ask("tools/call", {"name": "memory_bank_write", "arguments": arguments})
    assert "handshake" in told["error"]["message"]
    (bank.directory / "no-greeting").unlink()
    await bank.write("a.md", "one")
    assert bank.files() == {"a.md": "one"}


async def test_an_older_server_that_closes_its_output_and_goes_on_is_begun_anew(
    bank: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "END_SECONDS", 0.1)
    await bank.greet()
    (bank.directory / "mute-memory_bank_write").touch()
    assert await bank.write("a.md", "one") == "File a.md written successfully to project p"
    assert bank.done("memory_bank_write") == 1


async def test_a_save_that_the_dead_older_server_cannot_have_heard_is_asked_again(contexts: Scene) -> None:
    await contexts.greet()
    contexts.kill_older()
    assert "Context ID: 1" in await contexts.call("save_context", content="x")


async def test_what_the_dead_older_server_had_heard_is_told_though_another_was_begun_meanwhile(contexts: Scene) -> None:
    await contexts.greet()
    os.kill(contexts.older(), signal.SIGSTOP)
    save = {"jsonrpc": "2.0", "id": "s", "method": "tools/call", "params": {"name": "save_context", "arguments": {}}}
    saving = await contexts.talk.begin(json.dumps(save).encode())
    contexts.kill_older()
    assert await contexts.call("load_contexts") == "[]"
    async with asyncio.timeout(BOUND):
        told = json.loads(await saving or b"")
    assert "Whether it wrote is not known" in told["error"]["message"]


async def test_a_write_that_fails_with_the_older_server_is_mirrored_as_whatever_it_has_done(bank: Scene) -> None:
    await bank.greet()
    (bank.directory / "die-before-memory_bank_write").touch()
    arguments = {"projectName": "p", "fileName": "a.md", "content": "one"}
    assert "error" in await bank.ask("tools/call", {"name": "memory_bank_write", "arguments": arguments})
    assert bank.manager.mirrored == [("memory-bank-mcp", "file", "p", "a.md")]


async def test_nothing_counts_as_ended_while_the_older_server_may_still_do_it(
    bank: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links, "END_SECONDS", 0.3)
    await bank.greet()
    number = bank.older()
    os.kill(number, signal.SIGSTOP)
    arguments = {"projectName": "p", "fileName": "a.md", "content": "one"}
    params = {"name": "memory_bank_write", "arguments": arguments}
    message = {"jsonrpc": "2.0", "id": "w", "method": "tools/call", "params": params}
    writing = await bank.talk.begin(json.dumps(message).encode())
    closing = asyncio.create_task(bank.talk.close())
    await asyncio.wait({writing}, timeout=BOUND)
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
    await closing


@pytest.mark.parametrize("number", [0, "", "1", 1.0, 2**70])
async def test_every_id_is_answered(contexts: Scene, number: Any) -> None:
    await contexts.greet()
    params = {"name": "load_contexts", "arguments": {}}
    message = {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}
    told = json.loads(await (await contexts.talk.begin(json.dumps(message).encode())) or b"")
    assert told["id"] == number
    assert contexts.unasked == []


async def test_a_client_that_greets_nobody_goes_on_with_the_older_server_after_the_return(contexts: Scene) -> None:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "0"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    call = {"name": "load_contexts", "arguments": {}, "_meta": meta}
    contexts.manager.now = Phase.SWITCHED
    assert "result" in await contexts.ask("tools/call", call)
    contexts.manager.now = Phase.RETURNED
    assert "result" in await contexts.ask("tools/call", call)
    contexts.manager.now = Phase.SWITCHED
    assert "result" in await contexts.ask("tools/call", call)


# ---- the switch
async def test_calls_during_the_switch_are_each_done_once_by_one_of_both(bank: Scene) -> None:
    await bank.greet()
    done: list[str] = []

    async def write(client: int) -> None:
        talk = bank.desk.talk(bank.unasked.append, greets=True)
        for number in range(6):
            file = f"{client}-{number}.md"
            arguments = {"projectName": "p", "fileName": file, "content": file}
            params = {"name": "memory_bank_write", "arguments": arguments}
            message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
            told = json.loads(await (await talk.begin(json.dumps(message).encode())) or b"")
            assert not told["result"]["isError"], told
            done.append(file)
        await talk.close()

    writing = asyncio.gather(*(write(client) for client in range(20)))
    await until(lambda: len(done) >= 30)
    bank.manager.now = Phase.SWITCHING
    await until(lambda: bank.manager.acknowledged[-1] is Phase.SWITCHING)
    by_older = set(bank.files())
    bank.manager.now = Phase.SWITCHED
    await asyncio.wait_for(writing, BOUND)
    by_ours = set(await bank.stand.service.bank.files(ANONYMOUS, "p"))
    assert by_older | by_ours == set(done)
    assert by_older & by_ours == set()
    assert len(done) == 120
    assert by_older
    assert by_ours
    assert bank.done("memory_bank_write") == len(by_older)


async def test_messages_that_are_none_and_answers_of_the_client_do_no_harm(bank: Scene) -> None:
    await bank.greet()
    bank.manager.now = Phase.SWITCHED
    for line in (b"nonsense", b"[]", b'{"jsonrpc":"2.0","id":"from the server","result":{}}'):
        assert await (await bank.talk.begin(line)) is None
    assert (await bank.ask("ping", {}))["result"] == {}
    assert {json.loads(line)["error"]["code"] for line in bank.unasked} == {-32700, -32600}
