"""The knowledge graph: entities with observations, and relations between them, each a memory of the namespace `graph`.

An entity lies under the key `entity/NAME`, a relation under `relation/FROM|TYPE|TO`; in the names `%`, `|` and NUL are
percent-encoded. Only what lies under the key of its own names is a part of the graph: any other memory there is left alone.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec
from msgspec import Raw, Struct

from unified_memory.model.clock import Clock
from unified_memory.model.errors import ConflictError, MalformedInputError, NotFoundError, PermissionDeniedError
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.principal import Principal
from unified_memory.model.query import Comparison, Op, Selection, parse_field
from unified_memory.model.value import check_size, encode
from unified_memory.service.drafting import Change, changed, inherited_expiry, read_store
from unified_memory.service.guard import Guard
from unified_memory.service.memories import IDEMPOTENCY_MICROSECONDS, Memories
from unified_memory.service.requests import BatchKeysRequest, Idempotent, KeyRef, StoreRequest
from unified_memory.storage.base import KEEP, REMOVE, Decision, Draft, Edit, Idempotency, Outcome, Replayed, Storage

NAMESPACE = "graph"
ENTITIES = "entity/"
RELATIONS = "relation/"
_PAGE = 1000
_ESCAPES = str.maketrans({"%": "%25", "|": "%7C", "\0": "%00"})
_KEY = parse_field("key")

T = TypeVar("T")
P = TypeVar("P", "Entity", "Relation")
_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.decode


class Entity(Struct, rename="camel"):
    """A thing by its name, what kind of thing it is, and what is known of it, in the order in which it was told."""

    name: str
    entity_type: str
    observations: list[str]

    @property
    def key(self) -> str:
        """The key of its memory."""
        return entity_key(self.name)


class Relation(Struct, rename={"source": "from", "target": "to", "relation_type": "relationType"}):
    """What one entity has to do with another."""

    source: str
    target: str
    relation_type: str

    @property
    def key(self) -> str:
        """The key of its memory."""
        names = (self.source, self.relation_type, self.target)
        return RELATIONS + "|".join(name.translate(_ESCAPES) for name in names)


_read_entity = msgspec.json.Decoder(Entity)
_read_relation = msgspec.json.Decoder(Relation)


class Observations(Struct):
    """Observations of one entity: to add or to delete, or what came of it."""

    name: str
    contents: list[str]


class Found(Struct):
    """A part of the graph in the order in which it was made; each with the id of its memory."""

    entities: list[tuple[int, Entity]]
    relations: list[tuple[int, Relation]]


def entity_key(name: str) -> str:
    """The key of the memory of the entity of that name."""
    return ENTITIES + name.translate(_ESCAPES)


class Graph:
    """Every operation on the graph. Each change is one transaction, decided on what is there when it is applied."""

    def __init__(self, storage: Storage, memories: Memories, clock: Clock, guard: Guard) -> None:
        self._storage = storage
        self._memories = memories
        self._clock = clock
        self._guard = guard

    # ---- changes
    async def create_entities(
        self, principal: Principal, entities: Sequence[Entity], idempotent: Idempotent | None = None
    ) -> list[Entity]:
        """Creates the entities whose names are new; which those are. Raises what `Memories.store` raises."""
        edits = [await self._creation(one, _entity) for one in entities]
        return [entities[i] for i in await self._apply(principal, edits, _created, idempotent)]

    async def create_relations(
        self, principal: Principal, relations: Sequence[Relation], idempotent: Idempotent | None = None
    ) -> list[Relation]:
        """Creates the relations that are new; which those are.

        Raises NotFoundError where one of the entities does not exist, and what `Memories.store` raises.
        """
        names = dict.fromkeys(name for one in relations for name in (one.source, one.target))
        ends = [Edit(NAMESPACE, entity_key(name), _existing(name), whole=True) for name in names]
        edits = [await self._creation(one, _relation) for one in relations]

        def answer(outcomes: list[Outcome]) -> list[int]:
            return _created(outcomes[len(ends) :])

        return [relations[i] for i in await self._apply(principal, [*ends, *edits], answer, idempotent)]

    async def add_observations(
        self, principal: Principal, additions: Sequence[Observations], idempotent: Idempotent | None = None
    ) -> list[Observations]:
        """Adds the observations that an entity does not have yet; which those are, entity by entity.

        Raises NotFoundError where one of the entities does not exist, and what `Memories.store` raises.
        """
        added: dict[int, list[str]] = {}

        def edit(place: int, one: Observations) -> Edit:
            def decide(current: Memory | None, _config: NamespaceConfig) -> Decision:
                if current is None:
                    raise _not_found(one.name)
                memory, entity = current, _told(_entity, current)
                added[place] = [text for text in one.contents if text not in entity.observations]
                return self._observed(memory, [*entity.observations, *added[place]]) if added[place] else KEEP

            return Edit(NAMESPACE, entity_key(one.name), decide, whole=True)

        edits = [edit(i, one) for i, one in enumerate(additions)]
        told = await self._apply(principal, edits, lambda _: [added[i] for i in range(len(edits))], idempotent)
        return [Observations(one.name, contents) for one, contents in zip(additions, told, strict=True)]

    async def delete_entities(
        self, principal: Principal, names: Sequence[str], idempotent: Idempotent | None = None
    ) -> list[str]:
        """Deletes the entities and every relation of theirs; the names of those that were there."""
        _check_sees(principal)
        unique = list(dict.fromkeys(names))
        # The key of a call stands for its first unit: the later ones only take what came meanwhile.
        deleted = await self._delete_entities(principal, unique, await self._touching(unique), idempotent)
        # Once an entity is gone no relation of it can be made, so there is an end to this.
        while late := await self._touching(unique):
            if not await self._sweep(principal, unique, late):
                break
        return [unique[i] for i in deleted]

    async def _delete_entities(
        self, principal: Principal, names: list[str], relations: list[Relation], idempotent: Idempotent | None
    ) -> list[int]:
        edits = [_removal(entity_key(name), _entity) for name in names]
        ends = [_removal(one.key, _relation) for one in relations]

        def answer(outcomes: list[Outcome]) -> list[int]:
            return _removed(outcomes[: len(edits)])

        return await self._apply(principal, [*edits, *ends], answer, idempotent)

    async def _sweep(self, principal: Principal, names: list[str], relations: list[Relation]) -> list[int]:
        """Deletes these relations, as far as one of those entities does not exist; which ones went."""
        gone: dict[str, bool] = {}

        def look(name: str) -> Edit:
            def decide(current: Memory | None, _config: NamespaceConfig) -> Decision:
                gone[name] = current is None
                return KEEP

            return Edit(NAMESPACE, entity_key(name), decide)

        def sweep(one: Relation) -> Edit:
            def decide(_current: Memory | None, _config: NamespaceConfig) -> Decision:
                return REMOVE if gone.get(one.source) or gone.get(one.target) else KEEP

            return Edit(NAMESPACE, one.key, decide)

        edits = [*map(look, names), *map(sweep, relations)]
        return await self._apply(principal, edits, _removed, None)

    async def delete_observations(
        self, principal: Principal, deletions: Sequence[Observations], idempotent: Idempotent | None = None
    ) -> list[Observations]:
        """Deletes observations of entities; which of them were there, entity by entity. Raises what `Memories.store` raises."""
        deleted: dict[int, list[str]] = {}

        def edit(place: int, one: Observations) -> Edit:
            unwanted = dict.fromkeys(one.contents)

            def decide(current: Memory | None, _config: NamespaceConfig) -> Decision:
                if current is None:
                    deleted[place] = []
                    return KEEP
                memory, entity = current, _told(_entity, current)
                deleted[place] = [text for text in unwanted if text in entity.observations]
                left = [text for text in entity.observations if text not in unwanted]
                return self._observed(memory, left) if deleted[place] else KEEP

            return Edit(NAMESPACE, entity_key(one.name), decide, whole=True)

        edits = [edit(i, one) for i, one in enumerate(deletions)]
        told = await self._apply(principal, edits, lambda _: [deleted[i] for i in range(len(edits))], idempotent)
        return [Observations(one.name, contents) for one, contents in zip(deletions, told, strict=True)]

    async def delete_relations(
        self, principal: Principal, relations: Sequence[Relation], idempotent: Idempotent | None = None
    ) -> list[Relation]:
        """Deletes relations; which of them were there."""
        edits = [_removal(one.key, _relation) for one in relations]
        return [relations[i] for i in await self._apply(principal, edits, _removed, idempotent)]

    # ---- reading
    async def read(self, principal: Principal) -> Found:
        """The whole graph."""
        _check_sees(principal)
        return Found(await self._all(ENTITIES, _entity), await self._all(RELATIONS, _relation))

    async def search(self, principal: Principal, query: str) -> Found:
        """The entities with the query in their name, type or an observation, whatever its case, and their relations."""
        _check_sees(principal)
        wanted = query.lower()
        entities = [
            (number, one)
            for number, one in await self._all(ENTITIES, _entity)
            if any(wanted in text.lower() for text in (one.name, one.entity_type, *one.observations))
        ]
        return await self._with_relations(entities)

    async def open(self, principal: Principal, names: Sequence[str]) -> Found:
        """The entities of these names, as far as they exist, and their relations. The accesses are counted."""
        _check_sees(principal)
        keys = [KeyRef(entity_key(name), NAMESPACE) for name in dict.fromkeys(names)]
        entities: list[tuple[int, Entity]] = []
        batch = self._memories.limits.batch
        for start in range(0, len(keys), batch):
            request = BatchKeysRequest(keys[start : start + batch])
            there = [one for one in await self._memories.retrieve_batch(principal, request) if one is not None]
            entities += [(memory.id, entity) for memory in there if (entity := _entity(memory)) is not None]
        return await self._with_relations(sorted(entities, key=lambda one: one[0]))

    async def _with_relations(self, entities: list[tuple[int, Entity]]) -> Found:
        """With every relation that has one of the entities at either end."""
        names = {one.name for _, one in entities}
        relations = await self._all(RELATIONS, _relation) if names else []
        return Found(entities, [one for one in relations if one[1].source in names or one[1].target in names])

    async def _touching(self, names: Sequence[str]) -> list[Relation]:
        wanted = set(names)
        relations = await self._all(RELATIONS, _relation)
        return [one for _, one in relations if one.source in wanted or one.target in wanted]

    async def _all(self, prefix: str, read: Callable[[Memory], T | None]) -> list[tuple[int, T]]:
        found: list[tuple[int, T]] = []
        selection = Selection((NAMESPACE,), recursive=False, where=Comparison(_KEY, Op.STARTSWITH, prefix), limit=_PAGE)
        while True:
            page = await self._storage.select(selection, self._clock.now())
            found += [(memory.id, one) for memory in page.items if (one := read(memory)) is not None]
            if page.next is None:
                return found
            selection = msgspec.structs.replace(selection, after=page.next)

    # ---- within
    async def _apply(
        self,
        principal: Principal,
        edits: list[Edit],
        answer: Callable[[list[Outcome]], list[T]],
        idempotent: Idempotent | None,
    ) -> list[T]:
        """Applies the edits as one unit; what `answer` makes of the outcomes, or made of them the first time."""
        _check_sees(principal)
        idempotency = None
        if idempotent is not None:
            idempotency = Idempotency(
                principal.name,
                idempotent.key,
                idempotent.fingerprint,
                lambda outcomes: _pack(answer(outcomes)),
                IDEMPOTENCY_MICROSECONDS,
            )
        outcomes = await self._storage.edit(edits, self._clock.now(), idempotency=idempotency)
        if isinstance(outcomes, Replayed):
            told: list[T] = _unpack(outcomes.record)
            return told
        return answer(outcomes)

    async def _creation(self, one: Entity | Relation, read: Callable[[Memory], Entity | Relation | None]) -> Edit:
        """What stores it where there is nothing yet. Raises what a checked store request raises."""
        self._guard.check()
        now = self._clock.now()
        request = StoreRequest(Raw(_json(one)), key=one.key, namespace=NAMESPACE)
        draft = (await read_store(request, one.key, self._memories.limits, now)).draft

        def decide(current: Memory | None, config: NamespaceConfig) -> Decision:
            if current is not None:
                _told(read, current)
                return KEEP
            draft.expires_at = inherited_expiry(config, now)
            return draft

        return Edit(NAMESPACE, one.key, decide, whole=True)

    def _observed(self, memory: Memory, observations: list[str]) -> Draft:
        """The memory of an entity with these observations."""
        self._guard.check()
        value = _json({**memory.parsed(), "observations": observations})
        check_size(value, self._memories.limits.value_bytes)
        return changed(memory, Change(value=value), self._memories.limits)


def _check_sees(principal: Principal) -> None:
    if not principal.sees(NAMESPACE):
        raise PermissionDeniedError("Not allowed in this namespace", namespace=NAMESPACE)


def _entity(memory: Memory) -> Entity | None:
    return _under_its_key(_read_entity, memory)


def _relation(memory: Memory) -> Relation | None:
    return _under_its_key(_read_relation, memory)


def _under_its_key(read: msgspec.json.Decoder[P], memory: Memory) -> P | None:
    """What the memory says, where it can be read and lies under its own key."""
    try:
        told = read.decode(memory.value)
    except msgspec.DecodeError:
        return None
    return told if told.key == memory.key else None


def _told(read: Callable[[Memory], T | None], memory: Memory) -> T:
    """The entity or relation that a memory is. Raises ConflictError where it is none."""
    told = read(memory)
    if told is None:
        raise ConflictError("A memory of this key is no part of the graph", namespace=NAMESPACE, key=memory.key)
    return told


def _not_found(name: str) -> NotFoundError:
    return NotFoundError(f"Entity with name {name} not found", entityName=name)


def _existing(name: str) -> Callable[[Memory | None, NamespaceConfig], Decision]:
    """Decides to keep an entity, which must be there."""

    def decide(current: Memory | None, _config: NamespaceConfig) -> Decision:
        if current is None:
            raise _not_found(name)
        _told(_entity, current)
        return KEEP

    return decide


def _removal(key: str, read: Callable[[Memory], Any]) -> Edit:
    """Deletes what is there, where it is a part of the graph."""

    def decide(current: Memory | None, _config: NamespaceConfig) -> Decision:
        return KEEP if current is None or read(current) is None else REMOVE

    return Edit(NAMESPACE, key, decide, whole=True)


def _created(outcomes: list[Outcome]) -> list[int]:
    return [i for i, outcome in enumerate(outcomes) if outcome.created]


def _removed(outcomes: list[Outcome]) -> list[int]:
    return [i for i, outcome in enumerate(outcomes) if outcome.removed]


def _json(one: Any) -> bytes:
    try:
        return encode(one)
    except UnicodeEncodeError:
        raise MalformedInputError("value", "A text holds a lone surrogate") from None
