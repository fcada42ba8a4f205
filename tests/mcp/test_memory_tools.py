"""Search, keys by pattern, and the tool that stores, retrieves, lists and deletes: the same memories and errors as REST."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from msgspec import Raw

from tests.rest.asking import Rest, make_storage, serving
from unified_memory.mcp.budget import DEFAULT_TOKENS, tokens
from unified_memory.mcp.memory import MEMORY_SEARCH, MEMORY_USAGE, SEARCH_MEMORY
from unified_memory.mcp.server import tool_entry
from unified_memory.mcp.sizes import answer_tokens
from unified_memory.mcp.tool import Answer, Call, Profile, Tool, call_tool
from unified_memory.model.clock import SettableClock
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.service.drafting import Limits
from unified_memory.service.projects import project_namespace
from unified_memory.service.requests import StoreRequest

PROFILE = Profile(name="test", instructions="", tools=(SEARCH_MEMORY, MEMORY_USAGE, MEMORY_SEARCH))
# More answers than any listing here has.
PAGES = 200
VALUES = [
    "text",
    "",
    " two\nlines ",
    "ünï 🎉",
    1,
    1.5,
    -0.0,
    10**30,
    True,
    None,
    [],
    {},
    {"b": [1, {"a": None}], "a": "x"},
]


class Agent:
    """Calls tools; whatever goes in and comes out is checked against the schemas, the budget and each other."""

    def __init__(self, rest: Rest) -> None:
        self.rest = rest

    async def ask(self, name: str, *call: str, **arguments: Any) -> Answer:
        tool = PROFILE.tool(name)
        assert tool is not None
        jsonschema_rs.validate(tool.input, arguments)
        answer = await self.ask_anything(name, arguments, *call)
        if not answer.is_error:
            assert tool.output is not None
            jsonschema_rs.validate(tool.output, answer.structured)
        return answer

    async def ask_anything(self, name: str, arguments: Any, call: str | None = None) -> Answer:
        return await call_tool(PROFILE, Call(self.rest.service, ANONYMOUS, call), name, arguments)

    async def ok(self, name: str, **arguments: Any) -> Any:
        """The structured content of an answer that must be none of an error."""
        answer = await self.ask(name, **arguments)
        assert not answer.is_error, answer.text
        return answer.structured

    async def text(self, name: str, **arguments: Any) -> str:
        answer = await self.ask(name, **arguments)
        assert not answer.is_error, answer.text
        assert answer.text is not None
        return answer.text

    async def store(self, key: str, value: Any = "v", **more: Any) -> Any:
        return (await self.ok("memory_usage", action="store", key=key, value=value, **more))["memory"]

    async def error(self, name: str, **arguments: Any) -> Any:
        """What the answer says of an error, which it must be."""
        answer = await self.ask(name, **arguments)
        assert answer.is_error
        assert answer.text is not None
        told = answer.structured["error"]
        assert told["code"] in answer.text
        return told

    async def pages(self, name: str, listed: str, **arguments: Any) -> list[list[Any]]:
        """What a listing tells, answer by answer, each within its budget."""
        told: list[list[Any]] = []
        cursor: str | None = None
        while not told or cursor:
            answer = await self.ask(name, **arguments, **({"cursor": cursor} if cursor else {}))
            assert not answer.is_error, answer.text
            assert within(answer, arguments.get("max_tokens", DEFAULT_TOKENS))
            told.append(answer.structured[listed])
            assert len(told) < PAGES
            cursor = answer.structured.get("next_cursor")
        return told


def within(answer: Answer, max_tokens: int) -> bool:
    return answer_tokens(answer.text or "", answer.structured) <= max_tokens


@pytest.fixture(params=["sqlite", "inmemory"])
async def agent(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Agent]:
    clock = SettableClock()
    async with serving(make_storage(request.param, tmp_path, clock), clock, Limits()) as rest:
        yield Agent(rest)


@pytest.fixture
async def one_agent() -> AsyncIterator[Agent]:
    """Over the storage in memory, where the storage does not matter."""
    clock = SettableClock()
    async with serving(make_storage("inmemory", Path(), clock), clock, Limits()) as rest:
        yield Agent(rest)


# ---- what agents read
@pytest.mark.parametrize("tool", PROFILE.tools, ids=lambda tool: tool.name)
def test_every_schema_is_one_and_its_objects_are_closed(tool: Tool) -> None:
    for schema in (tool.input, tool.output):
        assert schema is not None
        jsonschema_rs.meta.validate(schema)
        assert schema["additionalProperties"] is False


def test_search_memory_and_memory_usage_together_cost_little() -> None:
    told = [json.dumps(tool_entry(tool), separators=(",", ":")) for tool in (SEARCH_MEMORY, MEMORY_USAGE)]
    assert sum(map(tokens, told)) < 850


def test_the_annotations_tell_what_may_be_lost() -> None:
    told = {tool.name: (tool.read_only, tool.destructive) for tool in PROFILE.tools}
    assert told == {"search_memory": (True, False), "memory_search": (True, False), "memory_usage": (False, True)}


# ---- store, retrieve, delete
@pytest.mark.parametrize("value", VALUES, ids=repr)
async def test_a_value_comes_back_as_it_was_stored(agent: Agent, value: Any) -> None:
    stored = await agent.store("k", value)
    answer = await agent.ask("memory_usage", action="retrieve", key="k")
    assert answer.structured["memory"]["value"] == stored["value"] == value
    assert answer.text == value if isinstance(value, str) else json.loads(answer.text or "") == value


async def test_the_record_is_the_one_that_rest_gives(agent: Agent) -> None:
    metadata = {"tags": ["a", "b"], "importance": 8, "session_id": "s", "project_id": "p", "title": "T", "n": [1, 1.5]}
    stored = await agent.store("k", {"a": 1}, namespace="acme/web", ttl=60, metadata=metadata)
    assert stored == await agent.rest.ok("GET", "/retrieve/k?namespace=acme/web") | {
        "metadata": {**stored["metadata"], "access_count": 0, "last_accessed": None}
    }
    assert stored["metadata"]["importance"] == 8
    there = await agent.ok("memory_usage", action="retrieve", key="k", namespace="acme/web")
    again = await agent.rest.ok("GET", "/retrieve/k?namespace=acme/web")
    there["memory"]["metadata"]["access_count"] += 1
    assert there["memory"] == again


async def test_what_rest_stored_is_retrieved_with_its_digits(agent: Agent) -> None:
    text = b'{"price": 1.10, "far": 1e999, "long": ' + b"7" * 5000 + b"}"
    await agent.rest.service.memories.store(ANONYMOUS, StoreRequest(Raw(text), key="k"))
    answer = await agent.ask("memory_usage", action="retrieve", key="k")
    assert answer.text == text.decode()
    assert answer.structured["memory"]["value"] == {"price": 1.1, "far": "1e999", "long": "7" * 5000}


async def test_a_memory_stored_without_a_namespace_is_in_the_default_one(agent: Agent) -> None:
    assert (await agent.store("k"))["namespace"] == "default"
    assert await agent.rest.ok("GET", "/retrieve/k")


async def test_store_says_in_one_line_what_it_did(agent: Agent) -> None:
    told = json.loads(await agent.text("memory_usage", action="store", key="k", value="v"))
    assert told == {"stored": True, "key": "k", "namespace": "default", "id": told["id"], "version": 1, "created": True}
    assert json.loads(await agent.text("memory_usage", action="store", key="k", value="v"))["created"] is False


async def test_a_ttl_is_in_seconds_and_exact(agent: Agent) -> None:
    await agent.store("k", ttl=1.5)
    agent.rest.clock.advance(1.499999)
    assert await agent.ok("memory_usage", action="retrieve", key="k")
    agent.rest.clock.advance(0.000001)
    assert (await agent.error("memory_usage", action="retrieve", key="k"))["code"] == "memory_not_found"


async def test_a_call_repeated_under_its_key_happens_once(agent: Agent) -> None:
    arguments: dict[str, Any] = {"action": "store", "key": "k", "value": {"a": 1}}
    first = await agent.ask("memory_usage", "call-1", **arguments)
    await agent.store("k", "other")
    assert await agent.ask("memory_usage", "call-1", **arguments) == first
    assert await agent.text("memory_usage", action="retrieve", key="k") == "other"


async def test_a_deleted_memory_is_gone(agent: Agent) -> None:
    stored = await agent.store("k")
    told = await agent.ok("memory_usage", action="delete", key="k")
    assert told["deleted"] is True
    assert told["memory"] == {"key": "k", "namespace": "default", "id": stored["id"], "version": 1}
    assert (await agent.error("memory_usage", action="delete", key="k"))["code"] == "memory_not_found"


@pytest.mark.parametrize(
    ("arguments", "code", "field"),
    [
        ({"action": "retrieve", "key": "nothing"}, "memory_not_found", None),
        ({"action": "retrieve"}, "invalid_input", "key"),
        ({"action": "delete"}, "invalid_input", "key"),
        ({"action": "store", "key": "k"}, "invalid_input", "value"),
        ({"action": "search"}, "invalid_input", "pattern"),
        ({"action": "store", "key": "", "value": 1}, "invalid_input", "key"),
        ({"action": "store", "key": "k", "value": 1, "namespace": "a//b"}, "invalid_input", "namespace"),
        (
            {"action": "store", "key": "k", "value": 1, "metadata": {"importance": 11}},
            "invalid_input",
            "metadata.importance",
        ),
        ({"action": "store", "key": "k" * 5000, "value": 1}, "too_large", "key"),
        ({"action": "retrieve", "key": "k", "cursor": "x"}, "memory_not_found", None),
        ({"action": "list", "cursor": "x"}, "invalid_cursor", "cursor"),
        ({"namespace": "a//b"}, "invalid_input", "namespace"),
    ],
)
async def test_what_cannot_be_done_is_an_error(one_agent: Agent, arguments: Any, code: str, field: str | None) -> None:
    told = await one_agent.error("memory_usage", **arguments)
    assert (told["code"], told.get("field")) == (code, field)


@pytest.mark.parametrize(
    ("name", "arguments", "field"),
    [
        ("memory_usage", {"action": "destroy"}, "action"),
        ("memory_usage", {"action": "store", "key": "k", "value": float("nan")}, "value"),
        ("memory_usage", {"action": "store", "key": "k", "value": {"a": [float("inf")]}}, "value"),
        ("memory_usage", {"action": "store", "key": "k", "value": "\ud800"}, "value"),
        ("memory_usage", {"action": "store", "key": "k", "value": "v", "ttl": 0}, "ttl"),
        ("memory_usage", {"action": "list", "limit": 0}, "limit"),
        ("memory_usage", {"owner": "me"}, "owner"),
        ("search_memory", {}, "query"),
        ("search_memory", {"query": "x", "messages": ["y"]}, "query"),
        ("search_memory", {"query": "x", "since": "nonsense"}, "since"),
        ("search_memory", {"query": "x", "mode": "psychic"}, "mode"),
        ("search_memory", {"query": " "}, "query"),
        ("search_memory", {"messages": []}, "query"),
        ("search_memory", {"messages": "x"}, "messages"),
        ("search_memory", {"messages": ["x"], "until": "nonsense"}, "until"),
        ("search_memory", {"messages": ["x"], "limit": 0}, "limit"),
        ("search_memory", {"messages": ["x"], "max_tokens": 0}, "max_tokens"),
        ("search_memory", {"query": "x", "limit": 1001}, "limit"),
        ("search_memory", {"query": "x", "max_tokens": 0}, "max_tokens"),
        ("search_memory", {"query": "x", "max_tokens": 100_001}, "max_tokens"),
        ("search_memory", {"query": "x", "format": "xml"}, "format"),
        ("memory_search", {"pattern": ""}, "pattern"),
        ("memory_search", {"pattern": "*", "limit": 1001}, "limit"),
    ],
)
async def test_a_wrong_argument_is_an_error_that_names_it(
    one_agent: Agent, name: str, arguments: Any, field: str
) -> None:
    answer = await one_agent.ask_anything(name, arguments)
    assert answer.is_error
    assert answer.structured["error"]["field"] == field


async def test_the_errors_are_those_of_rest(one_agent: Agent) -> None:
    told = await one_agent.error("memory_usage", action="retrieve", key="nothing")
    problem = (await one_agent.rest.ask("GET", "/retrieve/nothing")).json()
    assert told == {name: problem[name] for name in ("code", "detail", "namespace", "key")}


async def test_another_tenant_sees_nothing(one_agent: Agent) -> None:
    await one_agent.store("k", namespace="acme")
    call = Call(one_agent.rest.service, Principal("other", ("umbrella",)))
    arguments = {"action": "retrieve", "key": "k", "namespace": "acme"}
    answer = await call_tool(PROFILE, call, "memory_usage", arguments)
    assert answer.structured["error"]["code"] == "memory_not_found"
    assert (await call_tool(PROFILE, call, "memory_search", {"pattern": "*"})).structured["memories"] == []


async def test_a_long_value_is_told_whole_or_part_by_part(one_agent: Agent) -> None:
    value = "".join(f"line {i} \x01 é\n" for i in range(3000))
    await one_agent.store("k", value)
    assert await one_agent.text("memory_usage", action="retrieve", key="k", max_tokens=100_000) == value
    assert within(await one_agent.ask("memory_usage", action="retrieve", key="k"), 4_000)
    parts: list[str] = []
    arguments: dict[str, Any] = {"action": "retrieve", "key": "k", "max_tokens": 1000}
    while True:
        answer = await one_agent.ask("memory_usage", **arguments)
        assert within(answer, 1000)
        parts.append(answer.structured["memory"]["part"])
        assert (answer.text or "").startswith(parts[-1])
        assert answer.structured["left_out"] == len(value) - len("".join(parts))
        if "next_cursor" not in answer.structured:
            break
        assert answer.structured["next_cursor"] in (answer.text or "")
        arguments["cursor"] = answer.structured["next_cursor"]
    assert "".join(parts) == value
    assert len(parts) > 10


async def test_a_value_that_changed_between_its_parts_is_not_patched_together(one_agent: Agent) -> None:
    await one_agent.store("k", "a" * 9000)
    first = await one_agent.ok("memory_usage", action="retrieve", key="k", max_tokens=500)
    await one_agent.store("k", "b" * 9000)
    told = await one_agent.error("memory_usage", action="retrieve", key="k", cursor=first["next_cursor"])
    assert told["code"] == "invalid_cursor"


# ---- statistics
async def test_without_an_action_it_tells_how_much_is_stored(agent: Agent) -> None:
    await agent.store("a", namespace="x", metadata={"tags": ["t"]})
    await agent.store("b", namespace="y/z")
    answer = await agent.ask("memory_usage")
    assert answer.structured == {"stats": await agent.rest.ok("GET", "/stats"), "left_out": 0}
    lines = [json.loads(line) for line in (answer.text or "").splitlines()]
    assert lines[0]["memories"] == 2
    assert {"name": "x", "memories": 1, "bytes": 3} in lines
    assert {"tag": "t", "count": 1} in lines
    assert (await agent.ok("memory_usage", namespace="y"))["stats"]["memories"] == 1


async def test_the_statistics_stay_within_the_budget(one_agent: Agent) -> None:
    for i in range(20):
        await one_agent.store("k", namespace=f"{i:02}" + "/n" * 10 + "x" * 200, metadata={"tags": [f"{i}" + "t" * 200]})
    answer = await one_agent.ask("memory_usage", max_tokens=600)
    assert within(answer, 600)
    assert answer.structured["left_out"] > 0
    assert answer.structured["stats"]["memories"] == 20


# ---- ranked search
async def test_search_finds_what_rest_finds_in_the_same_order(agent: Agent) -> None:
    for i in range(8):
        await agent.store(f"k{i}", "apple " * (i + 1) + "pear", metadata={"tags": ["fruit"], "importance": i + 1})
    told = await agent.ok("search_memory", query="apple")
    asked = await agent.rest.ok("POST", "/search", {"query": "apple"})
    assert [(one["key"], one["snippet"]) for one in told["results"]] == [
        (one["key"], one["snippet"]) for one in asked["results"]
    ]
    assert told["results"][0]["tags"] == ["fruit"]
    assert told["left_out"] == 0


async def test_the_text_names_each_memory_in_two_lines(one_agent: Agent) -> None:
    stored = await one_agent.store("notes/a", "We chose\nPostgreSQL", namespace="acme", metadata={"tags": ["db", "x"]})
    text = await one_agent.text("search_memory", query="postgresql")
    head, snippet = text.splitlines()
    assert head.startswith(f"{stored['id']} acme/notes/a (")
    assert head.endswith(", 2025-06-15) #db #x")
    assert snippet == "  We chose PostgreSQL"


async def test_the_text_may_be_json(one_agent: Agent) -> None:
    await one_agent.store("k", "apple")
    answer = await one_agent.ask("search_memory", query="apple", format="json")
    assert json.loads(answer.text or "") == answer.structured


@pytest.mark.parametrize(
    ("more", "keys"),
    [
        ({"namespace": "acme"}, ["a", "b"]),
        ({"namespace": "acme/web"}, ["b"]),
        ({"tags": ["t"]}, ["b"]),
        ({"importance_min": 7}, ["c"]),
        ({"session_id": "s"}, ["c"]),
        ({"project_id": "My_Project"}, ["d", "e"]),
        ({"project_id": "My_Project", "namespace": "default"}, ["e"]),
        ({"project_id": "other"}, []),
        ({"since": "1h"}, ["d", "e"]),
        ({"until": "yesterday"}, ["a", "b", "c"]),
        ({"since": "1h", "until": "2h"}, []),
        ({"min_score": 0.9}, []),
        ({"mode": "fulltext", "limit": 1}, ["c"]),
    ],
)
@pytest.mark.parametrize(
    "asked", [{"query": "apple"}, {"messages": ["Hello", "Have an apple"]}], ids=["query", "messages"]
)
async def test_a_search_can_be_narrowed(agent: Agent, asked: Any, more: Any, keys: list[str]) -> None:
    await agent.store("a", "one apple", namespace="acme")
    await agent.store("b", "two apples", namespace="acme/web", metadata={"tags": ["t"]})
    await agent.store("c", "red apples", namespace="acme-corp", metadata={"importance": 7, "session_id": "s"})
    agent.rest.clock.advance(86_400)
    await agent.store("d", "green apples", namespace=project_namespace("my project"))
    await agent.store("e", "an apple and much that is no fruit", metadata={"project_id": "My_Project"})
    told = await agent.ok("search_memory", **asked, **more)
    assert sorted(one["key"] for one in told["results"]) == keys


async def test_a_search_takes_times_scores_and_duplicates(agent: Agent) -> None:
    await agent.store("old", "Deploy on Fridays only.", metadata={"importance": 1})
    agent.rest.clock.advance(86_400)
    await agent.store("new", "deploy on fridays only")
    await agent.store("other", "Never deploy at night")
    search = {"query": "deploy fridays"}
    assert [one["key"] for one in (await agent.ok("search_memory", **search, min_score=0.3))["results"]] == [
        "new",
        "old",
    ]
    assert [one["key"] for one in (await agent.ok("search_memory", **search, until="1h"))["results"]] == ["old"]
    told = await agent.ok("search_memory", **search, since="1h", mode="fulltext", explain=True)
    assert [(one["key"], one["explain"]["importance"]) for one in told["results"]] == [("new", 1), ("other", 1)]
    told = await agent.ok("search_memory", **search, collapse=True)
    assert [(one["key"], one["duplicates"]) for one in told["results"]] == [("new", 1), ("other", 0)]
    head, _, _, _ = (await agent.text("search_memory", **search, collapse=True)).splitlines()
    assert head.endswith(" (+1 that say the same)")
    _, _, explained = (await agent.text("search_memory", **search, explain=True, limit=1)).splitlines()[:3]
    assert json.loads(explained)["terms"].keys() == {"deploy", "fridays"}


async def test_a_misspelt_word_is_told_with_the_one_that_was_searched_for(agent: Agent) -> None:
    await agent.store("k", "an apple")
    answer = await agent.ask("search_memory", query="appel")
    assert answer.structured["corrected"] == {"appel": "apple"}
    assert (answer.text or "").startswith("Nothing holds 'appel'; searched for 'apple'.\n")


async def test_long_misspelt_words_keep_to_the_budget(one_agent: Agent) -> None:
    words = [letter * 50 + "pple" for letter in "abcd"]
    await one_agent.store("k", " ".join(words) + " and more" * 100)
    for max_tokens in (200, 1_000):
        answer = await one_agent.ask(
            "search_memory", query=" ".join(f"{word}x" for word in words), max_tokens=max_tokens
        )
        assert within(answer, max_tokens)
        assert len(answer.structured["corrected"]) == len(words)
        assert [one["key"] for one in answer.structured["results"]] == ["k"]


async def test_an_explanation_that_does_not_fit_gives_way_to_the_result(one_agent: Agent) -> None:
    words = [f"word{i:03}" for i in range(300)]
    await one_agent.store("k", " ".join(words))
    answer = await one_agent.ask("search_memory", query=" ".join(words), explain=True, max_tokens=300)
    assert within(answer, 300)
    (one,) = answer.structured["results"]
    assert one["key"] == "k"
    assert "explain" not in one
    assert (answer.text or "").count("\n") == 1


async def test_of_a_long_memory_the_best_passages_are_told(agent: Agent) -> None:
    filler = "Nothing of interest happened here. " * 40
    await agent.store("k", f"{filler}The apple fell far. {filler}The pear did not. {filler}")
    (one,) = (await agent.ok("search_memory", query="apple pear"))["results"]
    assert "The apple fell far." in one["snippet"]
    assert "The pear did not." in one["snippet"]
    assert len(one["snippet"]) <= 600


async def test_messages_recall_what_they_call_for(agent: Agent) -> None:
    await agent.store("a", "Ship the release on Friday", metadata={"session_id": "s"})
    await agent.store("b", "The release was shipped by ann", namespace="acme")
    await agent.store("c", "Buy milk")
    messages = ["Buy milk?", "When do we ship the release?"]
    told = await agent.ok("search_memory", messages=messages)
    assert [(one["key"], one["message"]) for one in told["results"]] == [("a", 1), ("b", 1), ("c", 0)]
    assert "next_cursor" not in told
    told = await agent.ok("search_memory", messages=messages, namespace="acme", min_score=0.1)
    assert [one["key"] for one in told["results"]] == ["b"]
    (one,) = (await agent.ok("search_memory", messages=messages, explain=True, limit=1))["results"]
    assert one["explain"]["terms"].keys() == {"ship", "release"}
    assert "Ship the release on Friday" in await agent.text("search_memory", messages=messages)
    assert await agent.text("search_memory", messages=["Nobody knows"]) == "Nothing found."
    assert (await agent.error("search_memory", messages=["…"]))["code"] == "empty_query"
    assert (await agent.error("search_memory", messages=messages, cursor="x"))["code"] == "invalid_cursor"


async def test_a_recall_that_is_cut_says_what_it_left_out(one_agent: Agent) -> None:
    for i in range(20):
        await one_agent.store(f"k{i}", f"apple {i} " + f"{i}-" * 80)
    answer = await one_agent.ask("search_memory", messages=["apple"], limit=20, max_tokens=500)
    assert within(answer, 500)
    assert answer.structured["left_out"] == min(20, 2000 // 100 + 1) - len(answer.structured["results"])
    assert (answer.text or "").endswith(f"{answer.structured['left_out']} more left out; max_tokens bounds the answer")


async def test_a_search_by_meaning_that_cannot_be_done_is_an_error(one_agent: Agent) -> None:
    for asked in ({"query": "apple"}, {"messages": ["apple"]}):
        for mode in ("semantic", "hybrid"):
            told = await one_agent.error("search_memory", **asked, mode=mode)
            assert told["code"] == "semantic_unavailable"
            assert "[semantic]" in told["hint"]


async def test_query_and_messages_exclude_each_other_and_one_is_needed(one_agent: Agent) -> None:
    told = [
        (await one_agent.error("search_memory", **asked))["detail"] for asked in ({}, {"query": "x", "messages": []})
    ]
    assert told == ["query or messages must be given", "Either query or messages is given, not both"]


async def test_nothing_found_is_said(one_agent: Agent) -> None:
    assert await one_agent.text("search_memory", query="nothing") == "Nothing found."


async def test_a_query_of_nothing_is_an_error(one_agent: Agent) -> None:
    assert (await one_agent.error("search_memory", query=" "))["code"] == "empty_query"


@pytest.mark.parametrize("more", [{}, {"max_tokens": 500}, {"limit": 3}, {"format": "json"}, {"max_tokens": 100_000}])
async def test_a_search_tells_everything_part_by_part(agent: Agent, more: Any) -> None:
    for i in range(60):
        await agent.store(f"k{i}", f"apple é {i} " + "lorem ipsum \x01 " * 60, metadata={"tags": ["t" * 50] * (i % 4)})
    pages = await agent.pages("search_memory", "results", query="apple", **{"limit": 1000, **more})
    assert sorted(one["key"] for page in pages for one in page) == sorted(f"k{i}" for i in range(60))
    assert (len(pages) > 1) == ("max_tokens" not in more or more["max_tokens"] < 100_000)


async def test_a_cut_search_says_what_it_left_out_and_how_to_go_on(one_agent: Agent) -> None:
    for i in range(20):
        await one_agent.store(f"k{i}", "apple " + "x" * 150)
    answer = await one_agent.ask("search_memory", query="apple", limit=20, max_tokens=1000)
    assert answer.structured["left_out"] == min(20, 4000 // 100 + 1) - len(answer.structured["results"])
    last = (answer.text or "").splitlines()[-1]
    assert (
        last == f"{answer.structured['left_out']} more left out; go on with cursor={answer.structured['next_cursor']}"
    )


async def test_hostile_names_do_not_burst_the_budget(one_agent: Agent) -> None:
    namespace = "/".join(["n" * 255] * 16)
    for i in range(3):
        tags = [f"{i}{j}" + "t" * 200 for j in range(200)]
        await one_agent.store(f"{i}" + "k" * 4095, "apple " * 100, namespace=namespace, metadata={"tags": tags})
    for format_ in ("text", "json"):
        pages = await one_agent.pages("search_memory", "results", query="apple", format=format_)
        assert [len(page) for page in pages] == [1, 1, 1]
    assert [len(page) for page in await one_agent.pages("memory_search", "memories", pattern="*")] == [1, 1, 1]


# ---- keys by pattern
KEYS = ["a", "a*b", "a/b", "a/c", "ab", "a[b]", "b", "ba", "é", "l\nn", "a?", "A"]


@pytest.mark.parametrize(
    ("pattern", "keys"),
    [
        ("*", sorted(KEYS)),
        ("a", ["a"]),
        ("a*", ["a", "a*b", "a/b", "a/c", "a?", "a[b]", "ab"]),
        ("a/*", ["a/b", "a/c"]),
        ("a?", ["a?", "ab"]),
        ("?", ["A", "a", "b", "é"]),
        ("*b", ["a*b", "a/b", "ab", "b"]),
        ("a[b]", ["a[b]"]),
        ("a*b*", ["a*b", "a/b", "a[b]", "ab"]),
        ("l*n", ["l\nn"]),
        ("[!a]", []),
        ("**", sorted(KEYS)),
    ],
)
async def test_only_star_and_question_mark_mean_anything_in_a_pattern(
    agent: Agent, pattern: str, keys: list[str]
) -> None:
    for key in KEYS:
        await agent.store(key)
    told = await agent.ok("memory_search", pattern=pattern, limit=100)
    assert [one["key"] for one in told["memories"]] == keys


@pytest.mark.parametrize("more", [{}, {"limit": 7}, {"max_tokens": 400, "limit": 1000}])
@pytest.mark.parametrize("pattern", ["k*", "k?*1", "*1*"])
async def test_all_keys_of_a_pattern_come_part_by_part_in_order(agent: Agent, pattern: str, more: Any) -> None:
    for i in range(30):
        for namespace in ("a", "b"):
            await agent.store(f"k{i:02}1" if i % 3 else f"k{i:02}", "v" * 300, namespace=namespace)
    everything = (await agent.ok("memory_search", pattern=pattern, limit=1000, max_tokens=100_000))["memories"]
    assert [one["key"] for one in everything] == sorted(one["key"] for one in everything)
    pages = await agent.pages("memory_search", "memories", pattern=pattern, **more)
    assert [one for page in pages for one in page] == everything
    assert len(pages) > 1


async def test_a_search_for_few_among_many_looks_on(agent: Agent) -> None:
    for start in range(0, 700, 20):
        batch = [{"key": f"k{i:04}", "value": "v"} for i in range(start, start + 20)]
        await agent.rest.ok("POST", "/store/batch", {"memories": batch})
    pages = await agent.pages("memory_search", "memories", pattern="k?699")
    assert [[one["key"] for one in page] for page in pages] == [["k0699"]]


async def test_a_listing_shortens_values_and_is_a_json_object_a_line(one_agent: Agent) -> None:
    await one_agent.store("long", "word " * 1000)
    await one_agent.store("object", {"a": 1})
    lines = [json.loads(line) for line in (await one_agent.text("memory_usage", action="list")).splitlines()]
    assert len(lines[0]["value"].encode()) <= 200
    assert lines[0]["value"].endswith("…")
    assert lines[1]["value"] == '{"a":1}'
    assert lines[2] == {"left_out": 0}


async def test_a_listing_is_of_the_default_namespace_unless_another_is_named(one_agent: Agent) -> None:
    await one_agent.store("a")
    await one_agent.store("b", namespace="other")
    assert [one["key"] for one in (await one_agent.ok("memory_usage", action="list"))["memories"]] == ["a"]
    told = await one_agent.ok("memory_usage", action="list", namespace="other")
    assert [one["key"] for one in told["memories"]] == ["b"]


@pytest.mark.parametrize("arguments", [{"pattern": "apple"}, {"value": "apple"}, {"key": "apple"}])
async def test_older_agents_search_by_words(one_agent: Agent, arguments: Any) -> None:
    await one_agent.store("k", "an apple")
    told = await one_agent.ok("memory_usage", action="search", **arguments)
    assert [one["key"] for one in told["results"]] == ["k"]


async def test_older_agents_search_by_a_pattern_of_keys(one_agent: Agent) -> None:
    await one_agent.store("notes/1", "x")
    told = await one_agent.ok("memory_usage", action="search", pattern="notes/*")
    assert [one["key"] for one in told["memories"]] == ["notes/1"]


async def test_a_cursor_of_another_pattern_is_refused(one_agent: Agent) -> None:
    for i in range(3):
        await one_agent.store(f"k{i}")
    cursor = (await one_agent.ok("memory_search", pattern="k*", limit=1))["next_cursor"]
    assert (await one_agent.error("memory_search", pattern="*", cursor=cursor))["code"] == "invalid_cursor"
