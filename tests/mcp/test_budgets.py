"""However much is stored, answers keep to their budget and tell everything part by part; and what agents read of the tools."""

import itertools
import json
import re
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import jsonschema_rs
import pytest
import pytest_asyncio
from msgspec import UNSET, Struct

from tests.service.asking import Held, holding, storing
from unified_memory.mcp.budget import DEFAULT_TOKENS, tokens
from unified_memory.mcp.profiles import PROFILES
from unified_memory.mcp.server import tool_entry
from unified_memory.mcp.tool import Answer, Call, Profile, Tool, call_tool
from unified_memory.model.clock import SettableClock
from unified_memory.model.principal import ANONYMOUS
from unified_memory.model.value import encode
from unified_memory.service.graph import Entity, Relation
from unified_memory.service.projects import project_namespace
from unified_memory.service.requests import BatchStoreRequest, StoreRequest
from unified_memory.storage.inmemory import InMemoryStorage
from unified_memory.storage.sqlite import SQLiteStorage

PROJECTS = 2_000
TAGS = 3_000
# Memories of one namespace; of the projects each has one.
MANY = 150
MEGABYTE = 1_000_000
SMALL = 200
LARGE = 20_000
SIZES = [None, SMALL, LARGE]
# More answers than any walk here takes.
PAGES = 3_000
BANK = {tool.name for tool in PROFILES["memory-bank"].tools}
OURS = ("unified", "knowledge-graph", "all")
LONG_TAG = "filter " + "w" * 900
CURSOR = re.compile(r'with cursor "([^"]+)"')


class Reading(Struct):
    """A call that reads; `shown`: the names of what an answer shows (None: it is not gone through)."""

    tool: str
    arguments: dict[str, Any] = {}
    shown: Callable[[Answer], list[Any]] | None = None


def _ids(listed: str) -> Callable[[Answer], list[Any]]:
    return lambda answer: [one["id"] for one in answer.structured[listed]]


def _lines(pattern: str) -> Callable[[Answer], list[Any]]:
    return lambda answer: re.findall(pattern, answer.text or "", re.MULTILINE)


CONTEXTS = _lines(r"^\(ID: (\d+), ")
MEMORIES, RESULTS, JSON_CONTEXTS = _ids("memories"), _ids("results"), _ids("contexts")
NAMES = _lines(r"^- (.*) \(")
USES = _lines(r"^• `(.*)` \(")
DEFAULT = {"namespace": "default", "importance_level": 1}
READINGS = {
    "contexts": Reading("load_contexts", {}, CONTEXTS),
    "contexts as JSON": Reading("load_contexts", {"format": "json"}, JSON_CONTEXTS),
    "many contexts": Reading("load_contexts", {"limit": 1000}, CONTEXTS),
    "contexts with a tag": Reading("load_contexts", {"tags_filter": [LONG_TAG]}, CONTEXTS),
    "huge contexts": Reading("load_contexts", DEFAULT, CONTEXTS),
    "huge contexts as JSON": Reading("load_contexts", {**DEFAULT, "format": "json"}, JSON_CONTEXTS),
    "projects": Reading("list_all_projects", {}, NAMES),
    "popular tags": Reading("get_popular_tags", {}, USES),
    "all tags": Reading("get_popular_tags", {"limit": -1}, USES),
    "search": Reading("search_memory", {"query": "apple"}),
    "search for many": Reading("search_memory", {"query": "apple", "limit": 1000, "namespace": "notes"}, RESULTS),
    "search as JSON": Reading(
        "search_memory", {"query": "apple", "limit": 1000, "namespace": "notes", "format": "json"}, RESULTS
    ),
    "search for huge": Reading("search_memory", {"query": "apple", "namespace": "default"}, RESULTS),
    "search explained": Reading(
        "search_memory", {"query": "apple long text", "explain": True, "limit": 50, "namespace": "notes"}
    ),
    "search without duplicates": Reading("search_memory", {"query": "apple", "collapse": True, "limit": 50}),
    "search misspelt": Reading("search_memory", {"query": "aple", "limit": 50}),
    "what messages call for": Reading("search_memory", {"messages": ["apple", "emoji", "long text"], "limit": 50}),
    "statistics": Reading("memory_usage"),
    "keys": Reading("memory_usage", {"action": "list", "namespace": "notes", "limit": 1000}, MEMORIES),
    "huge keys": Reading("memory_usage", {"action": "list"}, MEMORIES),
    "keys by pattern": Reading("memory_usage", {"action": "search", "pattern": "*1*", "namespace": "notes"}, MEMORIES),
    "words": Reading("memory_usage", {"action": "search", "pattern": "apple", "namespace": "notes"}, RESULTS),
    "a huge text": Reading("memory_usage", {"action": "retrieve", "key": "text"}),
    "huge characters": Reading("memory_usage", {"action": "retrieve", "key": "characters"}),
    "huge metadata": Reading("memory_usage", {"action": "retrieve", "key": "metadata"}),
    "all keys": Reading("memory_search", {"pattern": "*", "namespace": "notes", "limit": 1000}, MEMORIES),
    "keys in the middle": Reading("memory_search", {"pattern": "?*1/*", "namespace": "notes"}, MEMORIES),
    "graph": Reading("read_graph"),
    "nodes": Reading("search_nodes", {"query": "entity"}),
    "a huge node": Reading("open_nodes", {"names": ["Huge"]}),
    "a long name": Reading("open_nodes", {"names": ["L" * 600]}),
}
WALKS = {name: one for name, one in READINGS.items() if one.shown is not None}
# Without those that take thousands of answers.
WALKED = [(name, size) for name in WALKS for size in SIZES if size != SMALL or name not in {"projects", "all tags"}]
ENTITIES = [
    *(
        Entity(f"entity {i} " + "n" * (i % 200), "thing", [f"fact {j} 🎉" * (1 + i % 20) for j in range(i % 12)])
        for i in range(200)
    ),
    Entity("Huge", "t" * 5000, ["o" * MEGABYTE, *(f"fact {j}" for j in range(500))]),
    Entity("L" * 600, "thing", ["y" * 3000]),
]
RELATIONS = [
    *(Relation(ENTITIES[i].name, ENTITIES[i * 7 % 200].name, "knows " + "r" * (i % 200)) for i in range(200)),
    Relation("L" * 600, "L" * 600, "R" * 900),
]


def everything() -> list[StoreRequest]:
    """Texts of every length and script, long names, many projects and tags."""
    told = [
        storing(
            f"context/{i}",
            f"project {i} " + "日本語 🎉 " * 20,
            project_namespace(f"project {i:04} " + "名" * (i % 200)),
            metadata={"tags": [f"tag {i}", f"group {i % 7}"], "importance": 7 + i % 4},
        )
        for i in range(PROJECTS)
    ]
    told += [
        storing(
            f"context/{i}",
            f"{i} " + "emoji 🎉 \x01 " * (30_000 if i == 90 else 400 if i % 3 else 1),
            project_namespace("general"),
            metadata={
                "tags": [LONG_TAG] * (i % 2) + [f"{i}/{j} " + "w" * (900 * bool(i % 3)) for j in range(TAGS // MANY)],
                "importance": 9,
            },
        )
        for i in range(MANY)
    ]
    told += [
        storing(
            f"{i}/" + "k" * (2 * i),
            "apple " + "long text " * (2000 if i % 10 == 0 else i % 30),
            f"notes/{i % 50}/" + "n" * 200,
            metadata={"tags": [f"{i} " + "ü" * 200], "note": "big " * 500, "importance": 8},
        )
        for i in range(MANY)
    ]
    hostile = {"tags": [f"{i} " + "T" * 1000 for i in range(256)], "big": ["z" * 1000] * 500}
    told += [
        storing("text", "apple " + "x" * MEGABYTE),
        storing("characters", "日本語🎉" * 80_000 + " apple"),
        storing("metadata", "apple", metadata=hostile),
        storing("k" * 500, {"apple": ["\x01" * 3000]}),
    ]
    return told


class Agent:
    """Asks the service; every answer is one of no error and within its budget."""

    def __init__(self, held: Held) -> None:
        self.held = held

    async def ask(self, tool: str, max_tokens: int | None, **arguments: Any) -> Answer:
        if max_tokens is not None:
            arguments["max_tokens"] = max_tokens
        answer = await call_tool(PROFILES["all"], Call(self.held.service, ANONYMOUS), tool, arguments)
        assert not answer.is_error, answer.text
        assert size(answer) <= (max_tokens or DEFAULT_TOKENS), (tool, size(answer), (answer.text or "")[:500])
        return answer

    async def pages(self, tool: str, max_tokens: int | None, **arguments: Any) -> list[Answer]:
        """The answers to the end; each but the last says how to go on."""
        told = [await self.ask(tool, max_tokens, **arguments)]
        while (cursor := cursor_of(told[-1])) is not None:
            assert len(told) < PAGES
            told.append(await self.ask(tool, max_tokens, **arguments, cursor=cursor))
        return told


def size(answer: Answer) -> int:
    """The tokens of the whole answer: its text, its structured content and its further members."""
    parts = [answer.text or ""]
    if answer.structured is not UNSET:
        parts.append(encode(answer.structured).decode())
    if answer.extra:
        parts.append(encode(answer.extra).decode())
    return sum(tokens(part) for part in parts)


def cursor_of(answer: Answer) -> str | None:
    """What goes on; the text says it, whatever else does."""
    if answer.structured is UNSET:
        found = CURSOR.findall(answer.text or "")
        return found[-1] if found else None
    told: str | None = answer.structured.get("next_cursor")
    assert told is None or told in (answer.text or "")
    return told


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def full(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Agent]:
    clock = SettableClock()
    path = tmp_path_factory.mktemp("budgets") / "memory.db"
    async with holding(SQLiteStorage(path, clock=clock), clock) as held:
        requests = everything()
        for start in range(0, len(requests), 300):
            clock.advance(1)
            await held.service.memories.store_batch(ANONYMOUS, BatchStoreRequest(requests[start : start + 300]))
        await held.service.graph.create_entities(ANONYMOUS, ENTITIES)
        await held.service.graph.create_relations(ANONYMOUS, RELATIONS)
        yield Agent(held)


@pytest.mark.parametrize("max_tokens", SIZES)
@pytest.mark.parametrize("reading", READINGS)
@pytest.mark.asyncio(loop_scope="module")
async def test_an_answer_keeps_to_its_budget(full: Agent, reading: str, max_tokens: int | None) -> None:
    one = READINGS[reading]
    answer = await full.ask(one.tool, max_tokens, **one.arguments)
    assert answer.text


@pytest.mark.parametrize(("reading", "max_tokens"), WALKED)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_cursors_lead_through_everything_once(full: Agent, reading: str, max_tokens: int | None) -> None:
    one = WALKS[reading]
    assert one.shown is not None
    pages = await full.pages(one.tool, max_tokens, **one.arguments)
    shown = Counter(str(name) for page in pages for name in one.shown(page))
    assert shown
    assert max(shown.values()) == 1
    assert len(shown) == expected(reading)


def expected(reading: str) -> int:
    """How many there are to be told."""
    stored = everything()
    general = [one for one in stored if one.namespace == "projects/general"]
    notes = [one.key or "" for one in stored if one.namespace.startswith("notes/")]
    tags = [json.loads(bytes((one.metadata or {})["tags"])) for one in general]
    match reading:
        case "contexts with a tag":
            return sum(LONG_TAG in one for one in tags)
        case "projects":
            return PROJECTS + 1
        case "popular tags":
            return 20
        case "all tags":
            return len(set(itertools.chain(*tags)))
        case "keys by pattern":
            return sum("1" in key for key in notes)
        case "keys in the middle":
            return sum(re.match("[0-9]+1/", key) is not None for key in notes)
        case "huge contexts" | "huge contexts as JSON" | "huge keys":
            return sum(one.namespace == "default" for one in stored)
        case "search for huge":
            return sum(one.namespace == "default" and b"apple" in bytes(one.value) for one in stored)
        case _:
            return len(general) if "contexts" in reading else len(notes)


@pytest.mark.parametrize("max_tokens", [None, LARGE])
@pytest.mark.parametrize(
    ("key", "value"), [("text", "apple " + "x" * MEGABYTE), ("characters", "日本語🎉" * 80_000 + " apple")]
)
@pytest.mark.asyncio(loop_scope="module")
async def test_a_huge_value_is_told_whole_part_by_part(
    full: Agent, key: str, value: str, max_tokens: int | None
) -> None:
    pages = await full.pages("memory_usage", max_tokens, action="retrieve", key=key)
    assert "".join(page.structured["memory"]["part"] for page in pages) == value
    left = [page.structured["left_out"] for page in pages]
    assert left == sorted(left, reverse=True)
    assert left[-1] == 0


@pytest.mark.asyncio(loop_scope="module")
async def test_the_statistics_say_how_much_they_leave_out(full: Agent) -> None:
    told = []
    for max_tokens in SIZES:
        answer = await full.ask("memory_usage", max_tokens)
        told.append(answer.structured["left_out"])
        shown = len(answer.structured["stats"]["namespaces"]) + len(answer.structured["stats"]["top_tags"])
        assert shown + told[-1] == 2 * 20
        assert ('"left_out"' in (answer.text or "")) is bool(told[-1])
    assert told[1] > told[2] == 0


@pytest.mark.parametrize(
    ("reading", "max_tokens"),
    [
        *itertools.product(["read_graph", "search_nodes", "open_nodes"], [None, LARGE]),
        # Of the whole graph that would be thousands of answers.
        ("open_nodes", SMALL),
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_the_graph_is_told_whole_part_by_part(full: Agent, reading: str, max_tokens: int | None) -> None:
    ends = ENTITIES[:6] if max_tokens == SMALL else ENTITIES
    names = {one.name for one in ends}
    asked: dict[str, Any] = {"read_graph": {}, "search_nodes": {"query": ""}, "open_nodes": {"names": list(names)}}
    pages = await full.pages(reading, max_tokens, **asked[reading])
    observations: dict[str, list[str]] = {}
    for page in pages:
        assert ("left_out" in page.structured) is ("next_cursor" in page.structured)
        for entity in page.structured["entities"]:
            observations.setdefault(entity["name"], []).extend(entity["observations"])
    assert set(observations) == names
    for entity in ends:
        assert len(observations[entity.name]) == len(entity.observations)
        if len("".join(entity.observations)) < 2000:
            assert observations[entity.name] == entity.observations
    relations = [
        (one["from"], one["to"], one["relationType"]) for page in pages for one in page.structured["relations"]
    ]
    there = [(one.source, one.target, one.relation_type) for one in RELATIONS if names & {one.source, one.target}]
    assert len(relations) == len(there)
    assert all(alike(*pair) for pair in zip(itertools.chain(*relations), itertools.chain(*there), strict=True))


def alike(shown: str, whole: str) -> bool:
    """Whether it is the whole, or a beginning of it that says so."""
    return shown == whole or (shown.endswith("…") and whole.startswith(shown[:-1]))


# ---- what agents read of the tools
def test_the_tools_of_unified_take_less_than_two_thousand_tokens() -> None:
    listed = {"tools": [tool_entry(tool) for tool in PROFILES["unified"].tools]}
    assert tokens(encode(listed).decode()) < 2_000


@pytest.mark.parametrize("profile", OURS)
def test_each_tool_that_reads_takes_a_size(profile: str) -> None:
    reading = [tool for tool in PROFILES[profile].tools if tool.read_only or tool.name == "memory_usage"]
    without = {tool.name for tool in reading if "max_tokens" not in tool.input["properties"]}
    assert without == (BANK & {tool.name for tool in reading})


EVERY = [(profile, tool) for profile in PROFILES.values() for tool in profile.tools]


@pytest.mark.parametrize(("profile", "tool"), EVERY, ids=[f"{profile.name}-{tool.name}" for profile, tool in EVERY])
def test_a_tool_is_listed_with_all_that_clients_ask_for(profile: Profile, tool: Tool) -> None:
    entry = tool_entry(tool)
    assert entry["title"]
    assert entry["description"]
    hints = entry["annotations"]
    assert set(hints) == {"readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint"}
    assert all(isinstance(hint, bool) for hint in hints.values())
    assert not (hints["readOnlyHint"] and hints["destructiveHint"])
    assert entry["inputSchema"]["type"] == "object"
    closed = entry["inputSchema"].get("additionalProperties") is False
    # The older server's schemas were open.
    assert closed is (profile.name != "extended-memory")
    for schema in (entry["inputSchema"], entry.get("outputSchema", {"type": "object"})):
        assert schema["type"] == "object"
        jsonschema_rs.meta.validate(schema)


@pytest.mark.parametrize("profile", PROFILES)
def test_no_two_tools_have_one_name(profile: str) -> None:
    names = [tool.name for tool in PROFILES[profile].tools]
    assert len(names) == len(set(names))


PLACE = {"projectName": "p", "fileName": "f"}
RELATION = {"from": "a", "to": "b", "relationType": "knows"}
ENTITY = {"name": "a", "entityType": "thing", "observations": ["x"]}
# Of each tool: calls that succeed, one after the other, and one that fails.
EXAMPLES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "save_context": (
        [{"content": "apple", "importance_level": 8, "tags": ["t"]}],
        {"content": "x", "importance_level": 11},
    ),
    "load_contexts": ([{}, {"limit": 5}, {"tags_filter": ["t"]}], {"tags_filter": "t"}),
    "get_popular_tags": ([{}, {"min_usage": 5}], {"project_id": 5}),
    "memory_usage": (
        [
            {"action": "store", "key": "k", "value": {"apple": 1}},
            {"action": "retrieve", "key": "k"},
            {"action": "list"},
            {"action": "search", "pattern": "apple"},
            {},
            {"action": "delete", "key": "k"},
        ],
        {"action": "retrieve", "key": "nothing"},
    ),
    "search_memory": ([{"query": "apple"}, {"query": "apple", "format": "json"}, {"query": "pear"}], {"query": ""}),
    "memory_search": ([{"pattern": "*"}, {"pattern": "none"}], {"pattern": ""}),
    "create_entities": ([{"entities": [ENTITY, {**ENTITY, "name": "b"}]}], {"entities": [{"name": "a"}]}),
    "create_relations": ([{"relations": [RELATION]}], {"relations": [{**RELATION, "to": "nobody"}]}),
    "add_observations": (
        [{"observations": [{"entityName": "a", "contents": ["y"]}]}],
        {"observations": [{"entityName": "nobody", "contents": ["y"]}]},
    ),
    "read_graph": ([{}, {"max_tokens": 300}], {"max_tokens": 0}),
    "search_nodes": ([{"query": "a"}], {"query": 5}),
    "open_nodes": ([{"names": ["a"]}], {"names": "a"}),
    "delete_observations": ([{"deletions": [{"entityName": "a", "observations": ["y"]}]}], {"deletions": [{}]}),
    "delete_relations": ([{"relations": [RELATION]}], {"relations": [{}]}),
    "delete_entities": ([{"entityNames": ["a", "b"]}], {"entityNames": "a"}),
    "memory_bank_write": ([{**PLACE, "content": "x"}], {**PLACE, "content": "x"}),
    "memory_bank_update": ([{**PLACE, "content": "y"}], {**PLACE, "fileName": "none", "content": "y"}),
    "memory_bank_read": ([PLACE], {"projectName": 5, "fileName": "f"}),
    "list_project_files": ([{"projectName": "p"}], {"projectName": 5}),
    "list_all_projects": ([{}], {"cursor": 5}),
    "list_projects": ([{}], {}),
    "forget_context": ([{"context_id": 1}], {"context_id": 999}),
}


@pytest.mark.parametrize("profile", PROFILES)
async def test_answers_and_errors_are_as_their_schema_says(profile: str) -> None:
    clock = SettableClock()
    async with holding(InMemoryStorage(), clock) as held:
        tools = {tool.name: tool for tool in PROFILES[profile].tools}
        assert set(tools) <= set(EXAMPLES)
        for name, (good, bad) in EXAMPLES.items():
            if name not in tools:
                continue
            # All projects are listed, whatever is asked.
            harmless = name == "list_projects" or (name, profile) == ("list_all_projects", "extended-memory")
            for arguments, wrong in [*((one, False) for one in good), *([] if harmless else [(bad, True)])]:
                sent = {_spelled(profile, part): value for part, value in arguments.items()}
                answer = await call_tool(PROFILES[profile], Call(held.service, ANONYMOUS), name, sent)
                assert answer.is_error is wrong, (name, sent, answer)
                conforms(tools[name], sent, answer)


def conforms(tool: Tool, sent: dict[str, Any], answer: Answer) -> None:
    """Asserts that the answer is one of the listed schema, and what was sent where it is no error."""
    entry = tool_entry(tool)
    if not answer.is_error:
        jsonschema_rs.validate(entry["inputSchema"], sent)
    if tool.output is not None and (not answer.is_error or answer.structured is not UNSET):
        jsonschema_rs.validate(entry["outputSchema"], answer.structured)
        # An answer that is no error has also what only such a one must have.
        assert answer.is_error or jsonschema_rs.is_valid(tool.output, answer.structured)


def _spelled(profile: str, argument: str) -> str:
    """An argument of the bank as that profile spells it."""
    pypi = {"projectName": "project_name", "fileName": "file_name"}
    return pypi.get(argument, argument) if profile == "memory-bank-pypi" else argument
