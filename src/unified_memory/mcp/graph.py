"""The tools of the knowledge graph, as agents know them from the reference memory server of the MCP project."""

import json
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Struct

from unified_memory.mcp.schema import Schema, array, boolean, obj, text
from unified_memory.mcp.sizes import max_tokens_schema, room, shortened
from unified_memory.mcp.tool import Answer, Arguments, Call, Profile, Tool, failed, read
from unified_memory.model.errors import InvalidCursorError, NotFoundError
from unified_memory.model.query import decode_cursor, encode_cursor
from unified_memory.service.graph import Entity, Found, Observations, Relation

# What stands around the entities and relations of an answer, and the words that say what was left out.
_FRAME_BYTES = 500
_SHORT_BYTES = 200
_LEAST_BYTES = 12
_IN_RELATIONS = -1


class _Entities(Struct):
    entities: list[Entity]


class _Relations(Struct):
    relations: list[Relation]


class _Addition(Struct, rename="camel"):
    entity_name: str
    contents: list[str]


class _Additions(Struct):
    observations: list[_Addition]


class _Names(Struct, rename="camel"):
    entity_names: list[str]


class _Deletion(Struct, rename="camel"):
    entity_name: str
    observations: list[str]


class _Deletions(Struct):
    deletions: list[_Deletion]


class _Reading(Struct):
    cursor: str | None = None
    max_tokens: int | None = None


class _Searching(_Reading, kw_only=True):
    query: str


class _Opening(_Reading, kw_only=True):
    names: list[str]


# ---- changes
async def _create_entities(call: Call, arguments: Arguments) -> Answer:
    asked = read(arguments, _Entities)
    new = await call.service.graph.create_entities(call.principal, asked.entities, call.idempotent(arguments))
    return _listed("entities", new)


async def _create_relations(call: Call, arguments: Arguments) -> Answer:
    asked = read(arguments, _Relations)
    try:
        new = await call.service.graph.create_relations(call.principal, asked.relations, call.idempotent(arguments))
    except NotFoundError as error:
        return failed(error, error.detail)
    return _listed("relations", new)


async def _add_observations(call: Call, arguments: Arguments) -> Answer:
    asked = [Observations(one.entity_name, one.contents) for one in read(arguments, _Additions).observations]
    try:
        added = await call.service.graph.add_observations(call.principal, asked, call.idempotent(arguments))
    except NotFoundError as error:
        return failed(error, error.detail)
    return _listed("results", [{"entityName": one.name, "addedObservations": one.contents} for one in added])


async def _delete_entities(call: Call, arguments: Arguments) -> Answer:
    names = list(dict.fromkeys(read(arguments, _Names).entity_names))
    deleted = await call.service.graph.delete_entities(call.principal, names, call.idempotent(arguments))
    missing = [name for name in names if name not in set(deleted)]
    return _deleted("Entities", len(deleted), len(names), missing)


async def _delete_observations(call: Call, arguments: Arguments) -> Answer:
    asked = [Observations(one.entity_name, one.observations) for one in read(arguments, _Deletions).deletions]
    deleted = await call.service.graph.delete_observations(call.principal, asked, call.idempotent(arguments))
    pairs = dict.fromkeys((one.name, content) for one in asked for content in one.contents)
    there = {(one.name, content) for one in deleted for content in one.contents}
    missing = [f"{name}: {content}" for name, content in pairs if (name, content) not in there]
    return _deleted("Observations", len(there), len(pairs), missing)


async def _delete_relations(call: Call, arguments: Arguments) -> Answer:
    asked = list({one.key: one for one in read(arguments, _Relations).relations}.values())
    deleted = await call.service.graph.delete_relations(call.principal, asked, call.idempotent(arguments))
    there = {one.key for one in deleted}
    missing = [f"{one.source} {one.relation_type} {one.target}" for one in asked if one.key not in there]
    return _deleted("Relations", len(deleted), len(asked), missing)


def _listed(name: str, found: Sequence[Any]) -> Answer:
    told = msgspec.to_builtins(found)
    return Answer(_indented(told), {name: told})


def _deleted(what: str, deleted: int, asked: int, missing: list[str]) -> Answer:
    message = f"{what} deleted successfully"
    if missing:
        names = shortened(", ".join(missing), _SHORT_BYTES)
        message = f"{what} deleted: {deleted} of {asked}. These were not there: {names}"
    return Answer(message, {"success": True, "message": message})


# ---- reading
async def _read_graph(call: Call, arguments: Arguments) -> Answer:
    asked = read(arguments, _Reading)
    return _page(await call.service.graph.read(call.principal), asked, "read_graph")


async def _search_nodes(call: Call, arguments: Arguments) -> Answer:
    asked = read(arguments, _Searching)
    return _page(await call.service.graph.search(call.principal, asked.query), asked, "search_nodes", asked.query)


async def _open_nodes(call: Call, arguments: Arguments) -> Answer:
    asked = read(arguments, _Opening)
    return _page(await call.service.graph.open(call.principal, asked.names), asked, "open_nodes", asked.names)


def _page(found: Found, asked: _Reading, *listing: object) -> Answer:
    """As much as fits, from the cursor on: entities, then relations; at least one of them.

    A cursor is (observations of the entity that were shown already, its id), or (-1, the id of a relation).
    """
    shown_before, first = decode_cursor(asked.cursor, *listing) or (0, 0)
    if not isinstance(shown_before, int):
        raise InvalidCursorError
    in_relations = shown_before == _IN_RELATIONS
    entities = [] if in_relations else [one for one in found.entities if one[0] >= first]
    relations = [one for one in found.relations if not in_relations or one[0] >= first]
    space = room(asked.max_tokens)
    left = space - min(_FRAME_BYTES, space // 2)
    told: dict[str, list[Any]] = {"entities": [], "relations": []}
    after: tuple[int, int] | None = None
    while entities and after is None:
        number, entity = entities[0]
        begin = shown_before if number == first else 0
        rest = Entity(entity.name, entity.entity_type, entity.observations[begin:])
        if (size := _size(rest)) > left:
            if told["entities"]:
                after = (begin, number)
                break
            rest = _part(rest, left)
            size = left
        if begin + len(rest.observations) < len(entity.observations):
            after = (begin + len(rest.observations), number)
        else:
            entities.pop(0)
        told["entities"].append(msgspec.to_builtins(rest))
        left -= size
    while relations and after is None:
        number, relation = relations[0]
        if not any(told.values()):
            relation = _cut(relation, left)
        left -= _size(relation)
        if left < 0 and any(told.values()):
            after = (_IN_RELATIONS, number)
            break
        told["relations"].append(msgspec.to_builtins(relation))
        relations.pop(0)
    more: dict[str, Any] = {}
    if after is not None:
        words = f"{len(entities)} entities and {len(relations)} relations; call again with next_cursor as cursor"
        more = {"left_out": words, "next_cursor": encode_cursor(after, *listing)}
    return Answer(_indented({**told, **more}), {**told, **more})


def _part(entity: Entity, size: int) -> Entity:
    """As much of the entity as fits into `size` bytes: the first observations, at least one; what is too long is cut."""
    least = max(_LEAST_BYTES, min(_SHORT_BYTES, size // 12))
    name = shortened(entity.name, max(least, size // 4))
    part = Entity(name, shortened(entity.entity_type, least), [])
    for observation in entity.observations:
        longer = Entity(part.name, part.entity_type, [*part.observations, observation])
        if _size(longer) > size:
            break
        part = longer
    if entity.observations and not part.observations:
        left = max(least, (size - _size(part)) // 3)
        part.observations = [shortened(entity.observations[0], left)]
    return part


def _cut(relation: Relation, size: int) -> Relation:
    """The relation, its names cut where it takes more than `size` bytes."""
    if _size(relation) <= size:
        return relation
    most = max(_LEAST_BYTES, (size - _size(Relation("", "", ""))) // 6)
    return Relation(*(shortened(name, most) for name in (relation.source, relation.target, relation.relation_type)))


def _size(one: Entity | Relation) -> int:
    """The bytes that it takes in the text and in the structured content."""
    told = msgspec.to_builtins(one)
    lines = _indented(told)
    deeper = 4 * (lines.count("\n") + 1)
    return len(lines.encode()) + deeper + len(msgspec.json.encode(told)) + len(",\n,")


def _indented(told: Any) -> str:
    return json.dumps(told, indent=2, ensure_ascii=False)


# ---- what agents read of them
_NAME = text("Name of an entity")
_ENTITIES = array(
    obj(
        ("name", "entityType", "observations"),
        name=text("Unique"),
        entityType=text("Such as person or project"),
        observations=array(text(), "One fact each"),
    )
)
_RELATIONS = array(
    obj(
        ("from", "to", "relationType"),
        **{"from": _NAME, "to": _NAME, "relationType": text("In active voice, such as works_at")},
    )
)
# What is answered has the same shapes; agents need no words about it.
_ENTITIES_TOLD = array(
    obj(("name", "entityType", "observations"), name=text(), entityType=text(), observations=array(text()))
)
_RELATIONS_TOLD = array(obj(("from", "to", "relationType"), **dict.fromkeys(("from", "to", "relationType"), text())))
_FOUND = obj(
    ("entities", "relations"),
    entities=_ENTITIES_TOLD,
    relations=_RELATIONS_TOLD,
    left_out=text(),
    next_cursor=text(),
)
_DONE = obj(("success", "message"), success=boolean(), message=text())
_PAGING: dict[str, Schema] = {
    "cursor": text("next_cursor of the last answer"),
    "max_tokens": max_tokens_schema(),
}

KNOWLEDGE_GRAPH = Profile(
    name="knowledge-graph",
    instructions=(
        "A knowledge graph that outlives the conversation. Search it for whatever the user mentions before you answer; "
        "record people, projects and decisions as entities, single facts about them as observations, and how they "
        "belong together as relations."
    ),
    tools=(
        Tool(
            name="create_entities",
            title="Create entities",
            description="Record new things worth knowing about. Names that exist already are skipped; answers with the new ones.",
            input=obj(("entities",), entities=_ENTITIES),
            output=obj(("entities",), entities=_ENTITIES_TOLD),
            run=_create_entities,
            idempotent=True,
        ),
        Tool(
            name="create_relations",
            title="Create relations",
            description=(
                "Record how existing entities belong together. Relations that exist already are skipped; an unknown "
                "entity is an error."
            ),
            input=obj(("relations",), relations=_RELATIONS),
            output=obj(("relations",), relations=_RELATIONS_TOLD),
            run=_create_relations,
            idempotent=True,
        ),
        Tool(
            name="add_observations",
            title="Add observations",
            description="Record further facts about existing entities. Known facts are skipped; an unknown entity is an error.",
            input=obj(
                ("observations",),
                observations=array(
                    obj(
                        ("entityName", "contents"),
                        entityName=_NAME,
                        contents=array(text(), "Facts to add"),
                    )
                ),
            ),
            output=obj(
                ("results",),
                results=array(
                    obj(("entityName", "addedObservations"), entityName=text(), addedObservations=array(text()))
                ),
            ),
            run=_add_observations,
            idempotent=True,
        ),
        Tool(
            name="delete_entities",
            title="Delete entities",
            description="Forget entities, with every relation of theirs. Cannot be undone.",
            input=obj(("entityNames",), entityNames=array(text())),
            output=_DONE,
            run=_delete_entities,
            destructive=True,
            idempotent=True,
        ),
        Tool(
            name="delete_observations",
            title="Delete observations",
            description="Forget facts that are wrong or out of date; the entities stay.",
            input=obj(
                ("deletions",),
                deletions=array(
                    obj(
                        ("entityName", "observations"),
                        entityName=_NAME,
                        observations=array(text(), "Facts as they were recorded"),
                    )
                ),
            ),
            output=_DONE,
            run=_delete_observations,
            destructive=True,
            idempotent=True,
        ),
        Tool(
            name="delete_relations",
            title="Delete relations",
            description="Forget relations; the entities stay.",
            input=obj(("relations",), relations=_RELATIONS),
            output=_DONE,
            run=_delete_relations,
            destructive=True,
            idempotent=True,
        ),
        Tool(
            name="read_graph",
            title="Read graph",
            description="Everything that is recorded, oldest first. In a large graph search_nodes costs less.",
            input=obj(**_PAGING),
            output=_FOUND,
            run=_read_graph,
            read_only=True,
            idempotent=True,
        ),
        Tool(
            name="search_nodes",
            title="Search nodes",
            description="Entities with this text in their name, type or facts, whatever its case, and all their relations.",
            input=obj(("query",), query=text("One word or phrase, taken literally"), **_PAGING),
            output=_FOUND,
            run=_search_nodes,
            read_only=True,
            idempotent=True,
        ),
        Tool(
            name="open_nodes",
            title="Open nodes",
            description="Entities by their exact names, and all their relations. Unknown names are skipped.",
            input=obj(("names",), names=array(text()), **_PAGING),
            output=_FOUND,
            run=_open_nodes,
            read_only=True,
            idempotent=True,
        ),
    ),
)
