"""The tools of the knowledge graph answer as the reference server does, within a budget, and by their schemas."""

import json
from collections.abc import AsyncIterator
from typing import Any

import jsonschema_rs
import pytest

from tests.service.asking import Held, holding
from unified_memory.mcp.budget import DEFAULT_TOKENS, tokens
from unified_memory.mcp.graph import KNOWLEDGE_GRAPH
from unified_memory.mcp.server import tool_entry
from unified_memory.mcp.sizes import answer_tokens
from unified_memory.mcp.tool import Answer, Call, call_tool
from unified_memory.model.clock import SettableClock
from unified_memory.model.principal import ANONYMOUS
from unified_memory.storage.inmemory import InMemoryStorage

# More answers than any graph here takes.
PAGES = 500
ADA = {"name": "Ada", "entityType": "person", "observations": ["wrote programs"]}
BABBAGE = {"name": "Babbage", "entityType": "person", "observations": []}
KNOWS = {"from": "Ada", "to": "Babbage", "relationType": "knows"}


class Agent:
    """Calls tools; whatever goes in and comes out is checked against the schemas."""

    def __init__(self, held: Held) -> None:
        self.held = held

    async def ask(self, name: str, key: str | None = None, **arguments: Any) -> Answer:
        tool = KNOWLEDGE_GRAPH.tool(name)
        assert tool is not None
        jsonschema_rs.validate(tool.input, arguments)
        answer = await call_tool(KNOWLEDGE_GRAPH, Call(self.held.service, ANONYMOUS, key), name, arguments)
        if not answer.is_error:
            assert tool.output is not None
            jsonschema_rs.validate(tool.output, answer.structured)
        return answer

    async def text(self, name: str, **arguments: Any) -> str:
        answer = await self.ask(name, **arguments)
        assert not answer.is_error, answer.text
        assert answer.text is not None
        return answer.text


@pytest.fixture
async def agent() -> AsyncIterator[Agent]:
    async with holding(InMemoryStorage(), SettableClock()) as held:
        yield Agent(held)


@pytest.fixture
async def known(agent: Agent) -> Agent:
    await agent.ask("create_entities", entities=[ADA, BABBAGE])
    await agent.ask("create_relations", relations=[KNOWS])
    return agent


def test_the_nine_tools_have_the_names_that_agents_know() -> None:
    assert [tool.name for tool in KNOWLEDGE_GRAPH.tools] == [
        "create_entities",
        "create_relations",
        "add_observations",
        "delete_entities",
        "delete_observations",
        "delete_relations",
        "read_graph",
        "search_nodes",
        "open_nodes",
    ]


@pytest.mark.parametrize("tool", KNOWLEDGE_GRAPH.tools, ids=lambda tool: tool.name)
def test_every_schema_is_one_and_its_objects_are_closed(tool: Any) -> None:
    for schema in (tool.input, tool.output):
        jsonschema_rs.meta.validate(schema)
        assert schema["type"] == "object"
        assert schema["additionalProperties"] is False


def test_what_agents_read_of_the_tools_is_short() -> None:
    told = json.dumps([tool_entry(tool) for tool in KNOWLEDGE_GRAPH.tools], separators=(",", ":"))
    assert tokens(told) < 2300


async def test_create_entities_answers_with_the_new_ones_indented_by_two(agent: Agent) -> None:
    answer = await agent.ask("create_entities", entities=[ADA])
    assert answer.text == json.dumps([ADA], indent=2)
    assert answer.structured == {"entities": [ADA]}
    again = await agent.ask("create_entities", entities=[ADA, BABBAGE])
    assert again.structured == {"entities": [BABBAGE]}


async def test_create_relations_answers_with_the_new_ones(known: Agent) -> None:
    back = {"from": "Babbage", "to": "Ada", "relationType": "knows"}
    answer = await known.ask("create_relations", relations=[KNOWS, back])
    assert answer.text == json.dumps([back], indent=2)
    assert answer.structured == {"relations": [back]}


async def test_add_observations_answers_with_what_is_new_of_each_entity(known: Agent) -> None:
    answer = await known.ask(
        "add_observations", observations=[{"entityName": "Ada", "contents": ["wrote programs", "was first"]}]
    )
    told = [{"entityName": "Ada", "addedObservations": ["was first"]}]
    assert answer.text == json.dumps(told, indent=2)
    assert answer.structured == {"results": told}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("add_observations", {"observations": [{"entityName": "Nobody", "contents": ["x"]}]}),
        ("create_relations", {"relations": [{"from": "Ada", "to": "Nobody", "relationType": "knows"}]}),
    ],
)
async def test_an_unknown_entity_is_an_error_that_names_it(known: Agent, name: str, arguments: Any) -> None:
    answer = await known.ask(name, **arguments)
    assert answer.is_error
    assert answer.text == "Entity with name Nobody not found"
    assert answer.structured["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("delete_entities", {"entityNames": ["Ada"]}, "Entities deleted successfully"),
        (
            "delete_observations",
            {"deletions": [{"entityName": "Ada", "observations": ["wrote programs"]}]},
            "Observations deleted successfully",
        ),
        ("delete_relations", {"relations": [KNOWS]}, "Relations deleted successfully"),
    ],
)
async def test_a_deletion_says_that_it_was_done(known: Agent, name: str, arguments: Any, words: str) -> None:
    answer = await known.ask(name, **arguments)
    assert answer.text == words
    assert answer.structured == {"success": True, "message": words}


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("delete_entities", {"entityNames": ["Ada", "Nobody"]}, "1 of 2. These were not there: Nobody"),
        (
            "delete_observations",
            {"deletions": [{"entityName": "Ada", "observations": ["x"]}]},
            "0 of 1. These were not there: Ada: x",
        ),
        (
            "delete_relations",
            {"relations": [KNOWS, {**KNOWS, "relationType": "likes"}]},
            "1 of 2. These were not there: Ada likes Babbage",
        ),
    ],
)
async def test_a_deletion_says_what_was_not_there(known: Agent, name: str, arguments: Any, words: str) -> None:
    assert (await known.text(name, **arguments)).endswith(words)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("read_graph", {}), ("search_nodes", {"query": "A"}), ("open_nodes", {"names": ["Babbage", "Ada"]})],
)
async def test_reading_answers_with_entities_and_relations(known: Agent, name: str, arguments: Any) -> None:
    graph = {"entities": [ADA, BABBAGE], "relations": [KNOWS]}
    answer = await known.ask(name, **arguments)
    assert answer.text == json.dumps(graph, indent=2)
    assert answer.structured == graph


async def test_an_empty_graph_is_told_as_one(agent: Agent) -> None:
    assert await agent.text("read_graph") == '{\n  "entities": [],\n  "relations": []\n}'


async def test_texts_are_told_in_their_own_letters(agent: Agent) -> None:
    await agent.ask("create_entities", entities=[{"name": "Zoë 🎉", "entityType": "", "observations": ["\u2028"]}])
    assert '"Zoë 🎉"' in await agent.text("read_graph")


async def test_a_wrong_argument_is_an_error_that_names_it(agent: Agent) -> None:
    call = Call(agent.held.service, ANONYMOUS)
    answer = await call_tool(KNOWLEDGE_GRAPH, call, "create_entities", {"entities": [{"name": "a"}]})
    assert answer.is_error
    assert answer.structured["error"]["code"] == "invalid_input"
    assert answer.structured["error"]["field"] == "entities[0].entityType"


async def test_a_call_repeated_under_its_key_happens_once(known: Agent) -> None:
    first = await known.ask("create_entities", "call-1", entities=[{**ADA, "name": "Grace"}])
    assert first == await known.ask("create_entities", "call-1", entities=[{**ADA, "name": "Grace"}])
    assert first.structured["entities"]


async def pages(agent: Agent, name: str, **arguments: Any) -> tuple[list[Any], list[Any], int]:
    """Everything that a reading tool has to say, and in how many answers. Observations of one entity are put together."""
    entities: dict[str, Any] = {}
    relations: list[Any] = []
    count, cursor = 0, None
    while count == 0 or cursor:
        answer = await agent.ask(name, **arguments, **({"cursor": cursor} if cursor else {}))
        assert not answer.is_error, answer.text
        assert answer.text is not None
        assert json.loads(answer.text) == answer.structured
        assert answer_tokens(answer.text, answer.structured) <= arguments.get("max_tokens", DEFAULT_TOKENS)
        for one in answer.structured["entities"]:
            entities.setdefault(one["name"], {**one, "observations": []})["observations"] += one["observations"]
        relations += answer.structured["relations"]
        cursor = answer.structured.get("next_cursor")
        assert ("left_out" in answer.structured) == (cursor is not None)
        count += 1
        assert count < PAGES
    return list(entities.values()), relations, count


@pytest.mark.parametrize("max_tokens", [300, 1000, DEFAULT_TOKENS, 50_000])
async def test_a_large_graph_is_told_part_by_part_and_whole(agent: Agent, max_tokens: int) -> None:
    entities = [
        {"name": f"e{i}", "entityType": "t", "observations": [f"fact {i} {j} é" * 3 for j in range(i % 20)]}
        for i in range(40)
    ]
    relations = [{"from": f"e{i}", "to": f"e{i + 1}", "relationType": "before"} for i in range(39)]
    await agent.ask("create_entities", entities=entities)
    await agent.ask("create_relations", relations=relations)
    for name, arguments in (("read_graph", {}), ("search_nodes", {"query": "E"})):
        told = await pages(agent, name, max_tokens=max_tokens, **arguments)
        assert told[:2] == (entities, relations)
        assert told[2] > 1 or max_tokens > 1000


async def test_the_observations_of_one_entity_are_told_part_by_part(agent: Agent) -> None:
    large = {"name": "large", "entityType": "t", "observations": [f"fact {i}" for i in range(3000)]}
    await agent.ask("create_entities", entities=[{**ADA}, large, {**BABBAGE}])
    assert (await pages(agent, "open_nodes", names=["large", "Babbage"]))[0] == [large, BABBAGE]


async def test_an_observation_too_long_for_the_budget_is_cut_and_a_larger_budget_shows_it(agent: Agent) -> None:
    long = {"name": "long", "entityType": "k" * 9000, "observations": ["x" * 40_000, "short"]}
    await agent.ask("create_entities", entities=[long])
    entities, _, count = await pages(agent, "read_graph")
    assert count == 2
    assert entities[0]["observations"][0].endswith("x…")
    assert entities[0]["observations"][1] == "short"
    assert (await pages(agent, "read_graph", max_tokens=100_000))[0] == [long]


async def test_a_cursor_of_another_listing_is_refused(agent: Agent) -> None:
    entities = [{"name": f"e{i}", "entityType": "t", "observations": []} for i in range(200)]
    await agent.ask("create_entities", entities=entities)
    cursor = (await agent.ask("read_graph", max_tokens=500)).structured["next_cursor"]
    answer = await agent.ask("search_nodes", query="e", cursor=cursor)
    assert answer.structured["error"]["code"] == "invalid_cursor"


async def test_what_came_or_went_between_the_parts_spoils_nothing(agent: Agent) -> None:
    entities = [{"name": f"e{i}", "entityType": "t", "observations": []} for i in range(200)]
    await agent.ask("create_entities", entities=entities)
    first = (await agent.ask("read_graph", max_tokens=2000)).structured
    after = int(first["entities"][-1]["name"][1:]) + 1
    await agent.ask("delete_entities", entityNames=[f"e{after}", "e0"])
    rest = (await agent.ask("read_graph", cursor=first["next_cursor"], max_tokens=90_000)).structured
    assert [one["name"] for one in rest["entities"]] == [f"e{i}" for i in range(after + 1, 200)]
