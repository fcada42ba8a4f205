"""The knowledge graph as memories: what a change does and says, whoever else changes it meanwhile."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.service.asking import Held, storing
from unified_memory.model.errors import (
    ConflictError,
    InvalidInputError,
    MalformedInputError,
    NotFoundError,
    PermissionDeniedError,
    ReadOnlyError,
    TooLargeError,
)
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.model.query import Selection
from unified_memory.service.graph import NAMESPACE, Entity, Found, Graph, Observations, Relation, entity_key
from unified_memory.service.requests import Idempotent

ODD_NAMES = ["", "a|b", "a%7Cb", "%", "a\0b", "a%00b", "entity/a", "a/b", " a ", "Ünï 🎉"]
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.sampled_from(ODD_NAMES)


def entity(name: str, *observations: str, kind: str = "thing") -> Entity:
    return Entity(name, kind, list(observations))


def told(found: Found) -> tuple[list[str], list[str]]:
    """The names of the entities and the relations, in order."""
    return [one.name for _, one in found.entities], [
        f"{one.source} {one.relation_type} {one.target}" for _, one in found.relations
    ]


async def graph_of(held: Held, *entities: Entity, relations: tuple[Relation, ...] = ()) -> Graph:
    await held.service.graph.create_entities(ANONYMOUS, entities)
    await held.service.graph.create_relations(ANONYMOUS, relations)
    return held.service.graph


async def test_an_entity_is_a_memory_that_everything_else_sees(each: Held) -> None:
    await graph_of(each, entity("Ada", "wrote programs", kind="person"))
    memory = await each.retrieve("entity/Ada", NAMESPACE)
    assert memory.parsed() == {"name": "Ada", "entityType": "person", "observations": ["wrote programs"]}


async def test_a_relation_is_a_memory(each: Held) -> None:
    await graph_of(each, entity("Ada"), entity("Babbage"), relations=(Relation("Ada", "Babbage", "knows"),))
    memory = await each.retrieve("relation/Ada|knows|Babbage", NAMESPACE)
    assert memory.parsed() == {"from": "Ada", "to": "Babbage", "relationType": "knows"}


async def test_only_entities_of_new_names_are_created(each: Held) -> None:
    graph = await graph_of(each, entity("a", "first"))
    created = await graph.create_entities(ANONYMOUS, [entity("a", "other"), entity("b"), entity("b", "again")])
    assert created == [entity("b")]
    assert [one for _, one in (await graph.read(ANONYMOUS)).entities] == [entity("a", "first"), entity("b")]


async def test_the_same_relation_is_created_once(each: Held) -> None:
    graph = await graph_of(each, entity("a"), entity("b"), relations=(Relation("a", "b", "likes"),))
    new = [Relation("a", "b", "likes"), Relation("b", "a", "likes"), Relation("b", "a", "likes")]
    assert await graph.create_relations(ANONYMOUS, new) == [Relation("b", "a", "likes")]


async def test_a_relation_of_an_entity_that_does_not_exist_is_refused_with_all_others(each: Held) -> None:
    graph = await graph_of(each, entity("a"), entity("b"))
    with pytest.raises(NotFoundError, match="Entity with name c not found"):
        await graph.create_relations(ANONYMOUS, [Relation("a", "b", "likes"), Relation("a", "c", "likes")])
    assert (await graph.read(ANONYMOUS)).relations == []


async def test_only_new_observations_are_added(each: Held) -> None:
    graph = await graph_of(each, entity("a", "one"))
    added = await graph.add_observations(
        ANONYMOUS, [Observations("a", ["one", "two"]), Observations("a", ["two", "3"])]
    )
    assert added == [Observations("a", ["two"]), Observations("a", ["3"])]
    assert (await graph.read(ANONYMOUS)).entities[0][1] == entity("a", "one", "two", "3")


async def test_observations_of_an_entity_that_does_not_exist_are_refused_with_all_others(each: Held) -> None:
    graph = await graph_of(each, entity("a"))
    with pytest.raises(NotFoundError, match="Entity with name b not found"):
        await graph.add_observations(ANONYMOUS, [Observations("a", ["one"]), Observations("b", ["two"])])
    assert (await graph.read(ANONYMOUS)).entities[0][1] == entity("a")


async def test_observations_are_added_to_whatever_else_the_memory_says(each: Held) -> None:
    value = {"name": "a", "entityType": "thing", "colour": "red", "observations": []}
    await each.store("entity/a", value, NAMESPACE, metadata={"tags": ["kept"], "importance": 9})
    await each.service.graph.add_observations(ANONYMOUS, [Observations("a", ["one"])])
    memory = await each.retrieve("entity/a", NAMESPACE)
    assert memory.parsed() == {**value, "observations": ["one"]}
    assert (memory.tags, memory.importance, memory.version) == (("kept",), 9, 2)


async def test_an_entity_goes_with_its_relations(each: Held) -> None:
    relations = (Relation("a", "b", "likes"), Relation("b", "a", "likes"), Relation("b", "c", "likes"))
    graph = await graph_of(each, entity("a"), entity("b"), entity("c"), relations=relations)
    assert await graph.delete_entities(ANONYMOUS, ["a", "nobody", "a"]) == ["a"]
    assert told(await graph.read(ANONYMOUS)) == (["b", "c"], ["b likes c"])


async def test_observations_are_deleted_wherever_they_stand(each: Held) -> None:
    graph = await graph_of(each, entity("a", "one", "two", "one"))
    asked = [Observations("a", ["one", "none"]), Observations("nobody", ["one"])]
    assert await graph.delete_observations(ANONYMOUS, asked) == [Observations("a", ["one"]), Observations("nobody", [])]
    assert (await graph.read(ANONYMOUS)).entities[0][1] == entity("a", "two")


async def test_relations_are_deleted_by_all_three_names(each: Held) -> None:
    relations = (Relation("a", "b", "likes"), Relation("a", "b", "knows"))
    graph = await graph_of(each, entity("a"), entity("b"), relations=relations)
    assert await graph.delete_relations(ANONYMOUS, [Relation("a", "b", "knows"), Relation("b", "a", "likes")]) == [
        Relation("a", "b", "knows")
    ]
    assert told(await graph.read(ANONYMOUS)) == (["a", "b"], ["a likes b"])


@pytest.mark.parametrize("query", ["ADA", "Person", "wrote PROGRAMS"])
async def test_a_search_looks_at_names_types_and_observations_whatever_their_case(each: Held, query: str) -> None:
    graph = await graph_of(each, entity("other"), entity("Ada", "She wrote programs", kind="person"))
    assert told(await graph.search(ANONYMOUS, query)) == (["Ada"], [])


async def test_relations_are_found_by_either_end(each: Held) -> None:
    relations = (Relation("a", "b", "likes"), Relation("c", "a", "likes"), Relation("b", "c", "likes"))
    graph = await graph_of(each, entity("a"), entity("b"), entity("c"), relations=relations)
    assert told(await graph.search(ANONYMOUS, "a")) == (["a"], ["a likes b", "c likes a"])
    assert told(await graph.open(ANONYMOUS, ["b", "a", "nobody", "b"])) == (
        ["a", "b"],
        ["a likes b", "c likes a", "b likes c"],
    )


async def test_opening_counts_as_an_access(each: Held) -> None:
    graph = await graph_of(each, entity("a"))
    await graph.open(ANONYMOUS, ["a"])
    assert (await each.retrieve("entity/a", NAMESPACE)).access_count == 2


async def test_everything_keeps_the_order_in_which_it_was_made(each: Held) -> None:
    graph = await graph_of(each, entity("z"), entity("a"), entity("m"))
    await graph.add_observations(ANONYMOUS, [Observations("z", ["later"])])
    assert told(await graph.read(ANONYMOUS))[0] == ["z", "a", "m"]


@pytest.mark.parametrize("name", ODD_NAMES)
async def test_a_name_may_be_odd(each: Held, name: str) -> None:
    relation = Relation(name, "plain", name)
    graph = await graph_of(each, entity(name), entity("plain"), relations=(relation,))
    assert [one for _, one in (await graph.open(ANONYMOUS, [name])).entities] == [entity(name)]
    assert [one for _, one in (await graph.read(ANONYMOUS)).relations] == [relation]


@given(st.tuples(names, names, names), st.tuples(names, names, names))
def test_different_relations_have_different_keys(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    assert (Relation(*one).key == Relation(*other).key) == (one == other)
    assert (entity_key(one[0]) == entity_key(other[0])) == (one[0] == other[0])


async def test_what_cannot_be_stored_is_refused_by_name(held: Held) -> None:
    with pytest.raises(TooLargeError):
        await held.service.graph.create_entities(ANONYMOUS, [entity("n" * 5000)])
    with pytest.raises(InvalidInputError):
        await held.service.graph.create_entities(ANONYMOUS, [entity("\ud800")])
    with pytest.raises(MalformedInputError):
        await held.service.graph.create_entities(ANONYMOUS, [entity("a", "\ud800")])


async def test_other_memories_of_the_namespace_are_no_part_of_the_graph(each: Held) -> None:
    others: dict[str, Any] = {
        "entity/text": "a text",
        "entity/b": {"name": "a", "entityType": "t", "observations": []},
        "note": {"name": "note", "entityType": "t", "observations": []},
        "entity/list": {"name": "list", "entityType": "t", "observations": "none"},
    }
    for key, value in others.items():
        await each.store(key, value, NAMESPACE)
    graph = await graph_of(each, entity("real"))
    assert await graph.delete_entities(ANONYMOUS, ["text", "b", "list"]) == []
    assert told(await graph.read(ANONYMOUS)) == (["real"], [])
    assert await each.storage.count(Selection((NAMESPACE,)), each.clock.now()) == len(others) + 1
    with pytest.raises(ConflictError):
        await graph.create_entities(ANONYMOUS, [entity("text")])
    with pytest.raises(ConflictError):
        await graph.add_observations(ANONYMOUS, [Observations("text", ["one"])])


async def test_observations_added_at_once_are_all_there(each: Held) -> None:
    graph = await graph_of(each, entity("a"))
    await asyncio.gather(*(graph.add_observations(ANONYMOUS, [Observations("a", [str(i)])]) for i in range(30)))
    assert sorted((await graph.read(ANONYMOUS)).entities[0][1].observations, key=int) == [str(i) for i in range(30)]


async def test_entities_created_at_once_are_created_once(each: Held) -> None:
    graph = each.service.graph
    created = await asyncio.gather(*(graph.create_entities(ANONYMOUS, [entity("a", str(i))]) for i in range(10)))
    assert sum(map(len, created)) == 1


async def test_no_relation_outlives_its_entity_however_the_calls_meet(each: Held) -> None:
    for _ in range(5):
        graph = await graph_of(each, entity("a"), entity("b"))

        async def relate(kind: str, graph: Graph = graph) -> None:
            try:
                await graph.create_relations(ANONYMOUS, [Relation("b", "a", kind)])
            except NotFoundError:
                return

        await asyncio.gather(*(relate(str(i)) for i in range(5)), graph.delete_entities(ANONYMOUS, ["a"]), relate("x"))
        assert told(await graph.read(ANONYMOUS)) == (["b"], [])


async def test_a_repeated_call_happens_once_and_says_the_same(each: Held) -> None:
    graph = await graph_of(each, entity("a", "one"))
    key = Idempotent("mcp:1", b"f")
    first = await graph.add_observations(ANONYMOUS, [Observations("a", ["two"])], key)
    await graph.delete_observations(ANONYMOUS, [Observations("a", ["two"])])
    assert await graph.add_observations(ANONYMOUS, [Observations("a", ["two"])], key) == first
    assert (await graph.read(ANONYMOUS)).entities[0][1] == entity("a", "one")


async def test_a_repeated_deletion_does_not_take_what_was_made_since(each: Held) -> None:
    graph = await graph_of(each, entity("a"), entity("b"), relations=(Relation("a", "b", "likes"),))
    key = Idempotent("mcp:1", b"f")
    assert await graph.delete_entities(ANONYMOUS, ["a"], key) == ["a"]
    await graph_of(each, entity("a"), relations=(Relation("a", "b", "likes"),))
    assert await graph.delete_entities(ANONYMOUS, ["a"], key) == ["a"]
    assert told(await graph.read(ANONYMOUS)) == (["b", "a"], ["a likes b"])


async def test_nothing_asked_is_nothing_done(each: Held) -> None:
    graph = await graph_of(each)
    assert await graph.add_observations(ANONYMOUS, []) == []
    assert await graph.delete_entities(ANONYMOUS, []) == []
    assert await graph.delete_observations(ANONYMOUS, []) == []
    assert await graph.delete_relations(ANONYMOUS, []) == []
    assert await graph.open(ANONYMOUS, []) == Found([], [])


async def test_one_who_may_not_see_the_graph_is_told_so(held: Held) -> None:
    graph = await graph_of(held, entity("a"))
    other = Principal("other", ("elsewhere",))
    for call in (
        graph.read(other),
        graph.search(other, "a"),
        graph.open(other, ["a"]),
        graph.create_entities(other, [entity("b")]),
        graph.delete_entities(other, ["a"]),
        graph.delete_relations(other, [Relation("a", "a", "is")]),
    ):
        with pytest.raises(PermissionDeniedError):
            await call


async def test_a_read_only_service_still_deletes(held: Held) -> None:
    graph = await graph_of(held, entity("a", "one"))
    await held.service.upkeep.switch_read_only("for a test")
    with pytest.raises(ReadOnlyError):
        await graph.create_entities(ANONYMOUS, [entity("b")])
    with pytest.raises(ReadOnlyError):
        await graph.delete_observations(ANONYMOUS, [Observations("a", ["one"])])
    assert await graph.delete_entities(ANONYMOUS, ["a"]) == ["a"]


async def test_a_ttl_of_the_namespace_holds_for_entities(each: Held) -> None:
    await each.service.memories.store(ANONYMOUS, storing("before", namespace=NAMESPACE))
    await each.storage.put_namespace(NAMESPACE, NamespaceConfig(default_ttl=60), each.clock.now(), create=False)
    graph = await graph_of(each, entity("a"))
    each.clock.advance(30)
    await graph.add_observations(ANONYMOUS, [Observations("a", ["one"])])
    each.clock.advance(31)
    assert await graph.read(ANONYMOUS) == Found([], [])
