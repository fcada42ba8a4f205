"""What extended-memory 0.9.0 was recorded to answer is asked again, in order; every difference is one that is listed here."""

import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.asking import Held, holding
from unified_memory.mcp.contexts import EXTENDED_MEMORY
from unified_memory.mcp.tool import Call, ProtocolError, call_tool
from unified_memory.model.clock import SettableClock
from unified_memory.model.principal import ANONYMOUS
from unified_memory.storage.sqlite import SQLiteStorage

RECORDINGS = Path(__file__).parents[3] / "shared" / "legacy" / "transcripts"
pytestmark = pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason=f"the recordings of the older servers are not there: {RECORDINGS}"
)

# What is wrong with the message rather than with the call: replayed through the wire.
OF_THE_WIRE = {
    "tools/call/no name",
    "tools/call/name null",
    "tools/call/arguments null (save)",
    "tools/call/arguments null (list_all_projects works)",
    "tools/call/arguments array",
    "tools/call/arguments string",
}
# Every difference by the row of ../shared/legacy/FORMATS.md (section 7; "isError": section 6, "Errors") that asks for it:
# the row -> what it was before, what it is now.
ROWS = {
    "isError": ("a failure was told as text of a successful result", "the same text with isError true"),
    "E2": (
        "10 contexts were shown at most, whatever the limit",
        "a limit above 10 that is given is how many are shown",
    ),
    "E3": (
        "what could not be stored was told as saved, with Context ID None, or broke the answer",
        "❌ Error saving context: …",
    ),
    "E4": (
        "any importance was stored; a text one made its project unloadable",
        "what is no integer from 1 to 10 is refused; loads show what was stored",
    ),
    "E5": (
        "without hits, or for a project that is no text, the result had no content",
        "the message, or the error, as content",
    ),
    "E11": ("5.9 deleted 5, true deleted 1, 9_9 deleted 99", "only integers and their digits name a context"),
    "E16": ("content that is no text was stored, then told as failed or saved", "refused before anything is stored"),
}
BY_ROW = {
    "isError": (
        "forget/empty store",
        "save/content object",
        "save/project 5",
        "save/project true",
        'save/project ["a"]',
        'save/project {"a": 1}',
        "load/project number",
        "load/project list",
        "load/tags_filter string instead of list",
        "load/tags_filter dict instead of list",
        "load/tags_filter 11 tags",
        "forget/again (not found)",
        "forget/integer 999999",
        "forget/0",
        "forget/-1",
        "forget/string abc",
        "forget/string sqlish",
        "forget/null",
        "forget/list",
        "forget/bool true (int(True)=1)",
        "forget/huge 2**70",
        "forget/wildcard *",
    ),
    "E2": tuple(f"load/bulk importance 1 limit {limit}" for limit in (11, 12, 30, 35, 100, 1000000000000)),
    "E3": ("save/lone surrogate (escaped)",),
    "E4": (
        "save/importance 0",
        "save/importance 11",
        "save/importance -5",
        "save/importance 1000000",
        "save/importance 5.5",
        "save/importance 'abc'",
        "save/importance True",
        "save/importance False",
        "save/importance None",
        "save/importance [7]",
        "save/importance {'a': 1}",
        "save/importance 1099511627776",
        "save/importance 9223372036854775808",
        "save/importance 1e+308",
        "load/poison: one text importance makes the whole project unloadable (SQLite)",
        "load/poison: good row cannot be reached",
        "load/importance list imp default threshold 7",
        "load/importance 1",
        "load/importance 10",
        "load/importance 0",
        "load/importance 11",
        "load/importance -100",
        "load/importance null",
        "load/importance string '8'",
        "load/importance 7.5",
    ),
    "E5": (
        "tags/empty store",
        "tags/empty store min_usage 5 limit 3",
        "tags/defaults (project general, not all)",
        "tags/general with tags none",
        "tags/bulk limit 0",
        "tags/bulk limit 'x'",
        "tags/unknown project",
        "tags/project number",
        "tags/tags of a forgotten context are gone",
    ),
    "E11": ("forget/float (truncated: deletes a row in SQLite)", "forget/underscore digits '9_9'"),
    "E16": ("save/content list", "load/odd all"),
}
DIFFERENT = {case: row for row, cases in BY_ROW.items() for case in cases}
# Of the inputs that were tried one in a fresh process each, those that are whole calls.
FATAL = {
    "raw NaN literal accepted": "E4",
    "raw escaped surrogate pair half in project": "E3",
    "raw duplicate keys": None,
}
TIMES = (
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r"(?<=/10 )\(\d\d-\d\d \d\d:\d\d\)"), "(TIME)"),
)
SAVED = re.compile(r"- Context ID: (\d+|None)\n- Project")


def recorded(name: str) -> list[dict[str, Any]]:
    lines = (RECORDINGS / name).read_text("utf-8").split("\n")
    cases = sorted((json.loads(line) for line in lines if line), key=lambda case: int(case["seq"]))
    return [case for case in cases if case["request"].get("method") == "tools/call" and case["case"] not in OF_THE_WIRE]


@pytest.fixture
async def on_disk(tmp_path: Path) -> AsyncIterator[Held]:
    clock = SettableClock()
    async with holding(SQLiteStorage(tmp_path / "memory.db", clock=clock), clock) as held:
        yield held


class Replay:
    """A session that is asked again. `ids`: recorded id -> ours, as strings."""

    def __init__(self, held: Held) -> None:
        self.held = held
        self.ids: dict[str, str] = {}

    async def ask(self, case: dict[str, Any]) -> Any:
        params = case["request"]["params"]
        arguments = dict(params.get("arguments", {}))
        if "id_ref" in case:
            sent = arguments["context_id"]
            arguments["context_id"] = type(sent)(str(sent).replace(*self.forgotten(str(sent))))
        self.held.clock.advance(0.01)
        try:
            answer = await call_tool(EXTENDED_MEMORY, Call(self.held.service, ANONYMOUS), params["name"], arguments)
        except ProtocolError as error:
            return {"code": error.code, "message": error.message, "data": error.data}
        content = [] if answer.text is None else [{"type": "text", "text": answer.text}]
        told = {**answer.extra, "content": content, "isError": answer.is_error}
        if not content:
            del told["content"]
        return told

    def forgotten(self, sent: str) -> tuple[str, str]:
        """The id in what was sent, and ours."""
        number = sent.split(".", maxsplit=1)[0].strip()
        return number, self.ids[number]

    def learn(self, told: Any, answer: Any) -> None:
        """Which of our ids stands for the one that was saved under another then."""
        then, now = (SAVED.search(one["content"][0]["text"]) if "content" in one else None for one in (told, answer))
        if then and now:
            self.ids[then[1]] = now[1]


def expected(case: dict[str, Any], ids: dict[str, str]) -> Any:
    """What was recorded, with our ids for those of then and without times."""
    response = case["response"]
    if "error" in response:
        return response["error"]
    told = {"isError": False, **response["result"]}

    def ours(found: re.Match[str]) -> str:
        return found[1] + ids.get(found[2], found[2])

    return normal(told, lambda text: re.sub(r"(\(ID: |Context ID: +)(\d+)", ours, text))


def normal(told: Any, change: Any = lambda text: text) -> Any:
    if "content" not in told:
        return told
    text = change(told["content"][0]["text"])
    for pattern, name in TIMES:
        text = pattern.sub(name, text)
    return {**told, "content": [{"type": "text", "text": text}]}


def differs(row: str | None, answer: Any, told: Any) -> bool:
    """Whether the answer is another than the one of then; a row that changes but the mark of failure changes no more."""
    assert row != "isError" or answer == {**told, "isError": True}, (answer, told)
    return bool(answer != told)


async def test_answers_are_those_recorded_except_where_a_difference_is_listed(on_disk: Held) -> None:
    replay = Replay(on_disk)
    cases = recorded("em_sqlite_main.jsonl")
    unlisted, alike = [], []
    for case in cases:
        answer = await replay.ask(case)
        if "result" in case["response"]:
            replay.learn(case["response"]["result"], answer)
        row = DIFFERENT.get(case["case"])
        then, now = expected(case, replay.ids), normal(answer)
        if differs(row, now, then) and row is None:
            unlisted.append((case["case"], then, now))
        elif now == then and row is not None:
            alike.append(case["case"])
    assert not unlisted, f"{len(unlisted)} answers differ and are not listed, first: {unlisted[0]}"
    assert not alike, "listed as different, but alike"
    assert set(DIFFERENT) <= {case["case"] for case in cases}


@pytest.mark.parametrize("name", FATAL)
async def test_what_older_processes_were_tried_with_is_answered_too(on_disk: Held, name: str) -> None:
    lines = (RECORDINGS / "em_sqlite_fatal.jsonl").read_text("utf-8").split("\n")
    case = next(case for line in lines if line and (case := json.loads(line))["case"] == name)
    case["request"] = json.loads(case["request"]["_raw"])
    replay = Replay(on_disk)
    answer = await replay.ask(case)
    assert (normal(answer) != expected(case, {})) is (FATAL[name] is not None), answer
    assert FATAL[name] is None or answer["isError"]


def test_every_row_says_what_was_before_and_what_is_now() -> None:
    assert set(BY_ROW) == set(ROWS)
    assert sum(map(len, BY_ROW.values())) == len(DIFFERENT)
    assert {row for row in FATAL.values() if row} <= set(ROWS)
