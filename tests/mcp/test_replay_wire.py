"""The older servers' recordings, said line by line to the real process: what differs is what docs/compatibility.md lists."""

import asyncio
import fnmatch
import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.mcp.conftest import Start
from tests.mcp.wire import BOUND, Process

ROOT = Path(__file__).parents[2]
RECORDINGS = ROOT.parent / "shared" / "legacy" / "transcripts"
LIST = ROOT / "docs" / "compatibility.md"
pytestmark = pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason=f"the recordings of the older servers are not there: {RECORDINGS}"
)
MAIN = {
    "em_sqlite_main": "extended-memory",
    "em_redis_main": "extended-memory",
    "mb_npm_main": "memory-bank",
    "mb_pypi-2.11_main": "memory-bank-pypi",
}
FATAL = {"em_sqlite_fatal": "extended-memory", "em_redis_fatal": "extended-memory"}
# Names and descriptions of tools and prompts are our own; disk/… follows files placed by hand in the older program's folder.
LEFT_OUT = ("tools/list*", "prompts/get", "prompts/list", "disk/*", "process exit code*")
NUMBER = re.compile(r"((?:- Context ID: +)|(?:\(ID: ))([0-9a-f-]{36}|\d+)")
SAVED = re.compile(r"- Context ID: ([0-9a-f-]{36}|\d+)\n- Project")
TIMES = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"(?<=/10 )\(\d\d-\d\d \d\d:\d\d\)"), "(TIME)"),
)


def recorded(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(case, line) in order; a case that stands again has ` #2` and so on added."""
    seen: Counter[str] = Counter()
    lines = (RECORDINGS / f"{name}.jsonl").read_text("utf-8").rstrip("\n").split("\n")
    for line in sorted((json.loads(line) for line in lines), key=lambda told: int(told["seq"])):
        seen[line["case"]] += 1
        case = line["case"] if seen[line["case"]] == 1 else f"{line['case']} #{seen[line['case']]}"
        if not any(fnmatch.fnmatchcase(case, pattern) for pattern in LEFT_OUT):
            yield case, line


def listed(recording: str) -> set[str]:
    """The cases that docs/compatibility.md says to differ: its lists `- recording: case`."""
    told = LIST.read_text("utf-8")
    found = re.findall(rf"^- `{re.escape(recording)}`: `` (.*) ``$", told, re.MULTILINE)
    assert len(found) == len(set(found))
    return set(found)


class Conversation:
    """A session said again. `ids`: recorded id -> ours."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.ids: dict[str, str] = {}

    async def say(self, line: dict[str, Any]) -> Any:
        """Sends the recorded line; the answer, None where none is owed."""
        request = line["request"]
        raw = request["_raw"] if "_raw" in request else json.dumps(self.renamed(request, line))
        number = self.number(raw)
        if number is Conversation:
            await self.process.write(raw.encode("utf-8", "surrogatepass"))
            # Nothing is owed: a ping behind it shows that nothing came either.
            await self.process.ask("ping", {}, number="nothing is owed")
            return self.process.others.pop() if self.process.others else None
        expected = self.process.expect(number)
        for part in raw.split("\n"):
            await self.process.write(part.encode("utf-8", "surrogatepass"))
        return await asyncio.wait_for(expected, BOUND)

    @staticmethod
    def number(raw: str) -> Any:
        """The id under which the answer to the line comes; the class itself where none is owed."""
        try:
            message = json.loads(raw.strip())
        except (json.JSONDecodeError, RecursionError):
            return None
        if not isinstance(message, dict):
            return None
        number = message.get("id", Conversation)
        if isinstance(number, bool | float | list | dict) or (number is None and "id" in message):
            return None
        return number

    def renamed(self, request: dict[str, Any], line: dict[str, Any]) -> dict[str, Any]:
        """The request, with our id for the recorded one."""
        if "id_ref" not in line:
            return request
        params = request["params"]
        sent = params["arguments"]["context_id"]
        number = re.sub(r"[ _]", "", str(sent)).split(".", maxsplit=1)[0]
        ours = str(sent).replace(number, self.ids.get(number, number)) if number in self.ids else str(sent)
        changed = type(sent)(ours) if not isinstance(sent, bool) else sent
        return {**request, "params": {**params, "arguments": {**params["arguments"], "context_id": changed}}}

    def learn(self, then: Any, now: Any) -> None:
        """Which of our ids stands for the one of then."""
        found = [SAVED.search(told) for told in (words(then), words(now))]
        if found[0] and found[1]:
            self.ids[found[0][1]] = found[1][1]


def words(message: Any) -> str:
    content = ((message or {}).get("result") or {}).get("content") or [{}]
    return str(content[0].get("text", ""))


def normal(message: Any, ids: dict[str, str]) -> Any:
    """A message without its envelope and times; what the older server did not say of isError counts as false."""
    if message is None:
        return None
    if "error" in message:
        return {name: message["error"].get(name) for name in ("code", "message", "data")}
    result = dict(message["result"])
    if "content" in result or "success" in result:
        result.setdefault("isError", False)
    blocks = [dict(block) for block in result.get("content", [])]
    for block in blocks:
        text = NUMBER.sub(lambda found: found[1] + ids.get(found[2], found[2]), block["text"])
        for pattern, name in TIMES:
            text = pattern.sub(name, text)
        block["text"] = text
    return {**result, **({"content": blocks} if "content" in result else {})}


async def differing(process: Process, lines: Iterator[tuple[str, dict[str, Any]]]) -> dict[str, tuple[Any, Any]]:
    conversation = Conversation(process)
    found: dict[str, tuple[Any, Any]] = {}
    for case, line in lines:
        answer = await conversation.say(line)
        conversation.learn(line["response"], answer)
        then, now = normal(line["response"], conversation.ids), normal(answer, {})
        if then != now:
            found[case] = (then, now)
    return found


@pytest.mark.parametrize("recording", MAIN)
async def test_what_differs_is_what_is_listed(recording: str, start: Start, tmp_path: Path) -> None:
    process = await start(tmp_path, "--tools", MAIN[recording])
    found = await differing(process, recorded(recording))
    expected = listed(recording)
    unlisted = [(case, *found[case]) for case in found if case not in expected]
    assert not unlisted, (
        f"{len(unlisted)} differ and are not listed: {[one[0] for one in unlisted]}; the first: {unlisted[0]}"
    )
    assert sorted(expected - set(found)) == [], "listed as different, but alike"
    assert await process.end() == 0


@pytest.mark.parametrize("recording", FATAL)
async def test_what_ended_older_processes_is_answered(recording: str, start: Start, tmp_path: Path) -> None:
    process = await start(tmp_path, "--tools", FATAL[recording])
    await process.handshake("2024-11-05")
    conversation = Conversation(process)
    for case, line in recorded(recording):
        raw = line["request"].get("_raw", "")
        if "...(" in raw:
            continue  # The recording holds the beginning of the line only; the tests of stdio send one as long.
        answer = await conversation.say(line)
        assert answer is None or "error" in answer or "result" in answer, case
        assert (await process.ask("ping"))["result"] == {}, case
    assert await process.end() == 0
