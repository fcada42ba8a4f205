"""Contexts: what the five tools of extended-memory keep, each a memory in the namespace of its project."""

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from msgspec import UNSET, Raw, Struct, UnsetType

from unified_memory.model.clock import SECOND, Clock
from unified_memory.model.errors import ConflictError, InvalidInputError, MemoryNotFoundError, VersionConflictError
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import check_namespace, contains
from unified_memory.model.principal import Principal
from unified_memory.model.query import (
    MAX_LIMIT,
    And,
    Comparison,
    Filter,
    Not,
    Op,
    Or,
    Selection,
    decode_cursor,
    encode_cursor,
    every,
    parse_field,
    parse_order,
)
from unified_memory.model.value import encode
from unified_memory.service.labels import CONTEXT_PREFIX, MARK, Label, own_label, shown_importance
from unified_memory.service.memories import Memories, mint_key
from unified_memory.service.projects import PROJECTS, project_namespace, project_of
from unified_memory.service.requests import Conditions, Idempotent, StoreRequest
from unified_memory.sources.base import LEGACY_IMPORTANCE
from unified_memory.storage.base import Storage, TagUse

GENERAL = "general"
HIGH_IMPORTANCE = 8
DAY_SECONDS = 86_400
# Of the tags that stand above loaded contexts.
LOADED_TAGS = 10
LOADED_TAGS_MIN_USAGE = 2
INSTRUCTION_SUFFIXES = {".md", ".markdown", ".txt", ".text"}
_MOST = 1_000_000_000
_LAST_ID = 2**63 - 1
_CACHED_SCOPES = 256
# Tags are counted from the beginning so often whatever is told of changes: a deleted namespace tells none until it is purged.
RECOUNT_SECONDS = 60
_MOST_ADDED = 64

_IMPORTANCE = parse_field("importance")
_OLDER_IMPORTANCE = parse_field(f"metadata.{LEGACY_IMPORTANCE}")
_KEY = parse_field("key")
_CREATED_AT = parse_field("created_at")
_TAGS = parse_field("tags")
_NEWEST = parse_order("-created_at")
_HIGHEST_ID = parse_order("-id")
_SOONEST = parse_order("expires_at")
_EXPIRES = Comparison(parse_field("expires_at"), Op.EXISTS, True)  # noqa: FBT003 - an operand
_IS_CONTEXT = Comparison(_KEY, Op.STARTSWITH, CONTEXT_PREFIX)
_LEAST, _MOST_IMPORTANT = 1, 10
# Of several that go by one id so many are told.
_LABELLED = 3
log = logging.getLogger("unified_memory.contexts")


class Loaded(Struct):
    """What was loaded. `contexts`: those to be shown, oldest first. Of the `count` that were found `recent` were created
    within 24 hours and `high` have an importance of 8 or more. `tags`: in use in all projects. `more`: there are older ones
    than those to be shown.
    """

    contexts: list[Memory]
    count: int
    recent: int
    high: int
    tags: list[TagUse]
    more: bool
    listing: tuple[object, ...]

    def cursor(self, oldest: Memory) -> str | None:
        """What continues with the contexts before this one, which was the oldest shown."""
        return encode_cursor((oldest.created_at, oldest.id), *self.listing)


class _Uses(Struct):
    """Tags in use at that place in the commit order; counted at an instant, to be counted anew at another.

    `places`: where in the memory that was created at an instant its tags stand.
    """

    seq: int
    at: int
    until: int
    uses: list[TagUse]
    places: dict[int, dict[str, int]] = {}


def normalise(project: str | None) -> str:
    """The name under which a project is known: in lower case, words parted by single blanks; nothing is `general`."""
    if project is None or not project.strip():
        return GENERAL
    return " ".join(project.strip().lower().replace("_", " ").replace("-", " ").split())


class Contexts:
    """Contexts of projects. `instructions`: a file of text that is shown before them, where there is one."""

    def __init__(self, storage: Storage, memories: Memories, clock: Clock) -> None:
        self._storage = storage
        self._memories = memories
        self._clock = clock
        self._uses: dict[tuple[str, ...], _Uses] = {}
        self.instructions: Path | None = None

    async def save(
        self,
        principal: Principal,
        content: str,
        *,
        project: str | None,
        importance: int,
        tags: Sequence[str],
        ttl: float | UnsetType | None = UNSET,
        namespace: str | None = None,
        idempotent: Idempotent | None = None,
    ) -> Memory:
        """Stores a context in its project's namespace, or in `namespace`; `ttl` in seconds, None: forever.

        Raises InvalidInputError and what `Memories.store` raises.
        """
        self._check_text(content, "content")
        for tag in tags:
            self._check_text(tag, "tags")
        request = StoreRequest(
            value=Raw(encode(content)),
            key=CONTEXT_PREFIX + mint_key(),
            namespace=self._namespace(project, namespace),
            ttl=ttl,
            metadata={"tags": Raw(encode(list(tags))), "importance": Raw(encode(importance))},
        )
        outcome = await self._memories.store(principal, request, idempotent=idempotent)
        if outcome.memory is None:  # what was stored is always told
            raise TypeError
        return outcome.memory

    async def load(
        self,
        principal: Principal,
        project: str | None,
        *,
        importance: float,
        limit: int,
        tags: Sequence[str] = (),
        shown: int,
        namespace: str | None = None,
        cursor: str | None = None,
        alone: bool = False,
    ) -> Loaded:
        """Finds the newest `limit` contexts (below 0: all) of that importance or more; the newest `shown` of them to be shown.
        With `alone` only what was saved as a context, else whatever lies there.

        With `tags` those that have one of them; the limit then takes the highest ids before importance is asked, and one
        below 0 leaves out as many of the oldest, as the older server did. `cursor` goes on before what a load has shown.
        Raises InvalidInputError, InvalidCursorError.
        """
        name = self._namespace(project, namespace)
        listing = ("contexts", name, importance, tuple(tags))
        after = decode_cursor(cursor, *listing)
        now = self._clock.now()
        limit = min(limit, _MOST)
        scopes, recursive = principal.reach(name, recursive=False)
        kind = _IS_CONTEXT if alone else None
        enough = every(_at_least(importance), kind)
        tagged = _any_of(tags)
        newest = Selection(scopes, recursive, every(enough, tagged), _NEWEST, limit, after)
        if limit == 0 or (tags and tagged is None):
            return Loaded([], 0, 0, 0, [], more=False, listing=listing)
        if tagged is not None and after is None:
            page = await self._storage.select(
                Selection(scopes, recursive, every(tagged, kind), _HIGHEST_ID, None if limit < 0 else limit), now
            )
            found = sorted(
                (m for m in page.items if _importance_of(m) >= importance), key=lambda m: m.created_at, reverse=True
            )
            if limit < 0:
                found = found[:limit]
            loaded = self._counted(found, shown, now, listing, more=page.next is not None)
        elif limit < 0:
            loaded = await self._all(newest, shown, now, listing)
        else:
            page = await self._storage.select(newest, now)
            loaded = self._counted(page.items, shown, now, listing, more=page.next is not None)
        if loaded.contexts:
            everywhere = principal.narrowed(PROJECTS)
            loaded.tags = await self._top(everywhere, LOADED_TAGS, LOADED_TAGS_MIN_USAGE)
        return loaded

    async def forget(self, principal: Principal, label: Label, idempotent: Idempotent | None = None) -> Memory:
        """Deletes the context that the tools show under that id: a memory of a project, or one that was saved as a context
        elsewhere.

        Raises MemoryNotFoundError, and ConflictError where several go by it.
        """
        memory = await self._context(principal, label)
        # Nothing has a minted key: by it only a repetition of the call that deleted finds its first answer.
        place = (*principal.narrowed(PROJECTS), PROJECTS)[0], CONTEXT_PREFIX + mint_key()
        version = 0
        while True:
            if memory is not None:
                place, version = (memory.namespace, memory.key), memory.version
            try:
                return await self._memories.delete(principal, *place, Conditions(version=version), idempotent)
            except VersionConflictError:
                # It has changed meanwhile, or another memory has taken its key.
                memory = await self._context(principal, label)
                if memory is None:
                    raise MemoryNotFoundError("", f"id {label}") from None
            except MemoryNotFoundError:
                raise MemoryNotFoundError("", f"id {label}") from None

    async def projects(self, principal: Principal, *, alone: bool = False) -> list[str]:
        """The names of the projects that hold a visible memory (`alone`: a context), in order of code points."""
        names: set[str] = set()
        async for namespace in self._namespaces(principal):
            name = project_of(namespace)
            if name is not None and (not alone or await self._first(namespace, _IS_CONTEXT)):
                names.add(name)
        return sorted(names)

    async def popular_tags(
        self, principal: Principal, project: str | None, *, limit: int = 20, min_usage: float = 1
    ) -> list[TagUse]:
        """The project's tags by use, `limit` at most (below 0: all): those used `min_usage` times or, within 24 hours, once."""
        scopes, _ = principal.reach(self._namespace(project, None), recursive=False)
        return await self._top(scopes, limit, min_usage)

    async def instruction(self) -> str:
        """The text to be shown before contexts. Without a file that can be read there is none, and a warning says so."""
        path = self.instructions
        if path is None:
            return ""
        if path.suffix.lower() not in INSTRUCTION_SUFFIXES:
            log.warning("The instructions %s are neither Markdown nor text; they are left out", path)
            return ""
        try:
            return (await asyncio.to_thread(path.read_text, "utf-8")).strip()
        except (OSError, UnicodeDecodeError) as error:
            log.warning("The instructions %s cannot be read; they are left out: %s", path, error)
            return ""

    # ---- within
    async def _context(self, principal: Principal, label: Label) -> Memory | None:
        """The context that goes by that id. Raises ConflictError where several do."""
        found = await self._labelled(principal, label)
        if isinstance(label, int) and 0 < label <= _LAST_ID:
            memory = (await self._storage.get_by_id([label], self._clock.now()))[0]
            ours = memory is not None and _is_context(memory) and principal.sees(memory.namespace)
            # One that goes by another id is not meant, and a file of the bank beside a context that goes by it is not either.
            if ours and memory is not None and own_label(memory) is None:
                found += [] if found and not memory.key.startswith(CONTEXT_PREFIX) else [memory]
        if len(found) > 1:
            keys = [f"{one.namespace}: {one.key}" for one in found]
            raise ConflictError(
                f"Several contexts go by the id {label}", hint="Delete the one that is meant by its key", keys=keys
            )
        return found[0] if found else None

    async def _labelled(self, principal: Principal, label: Label) -> list[Memory]:
        """What came from an older service, where it had that id."""
        if not _encodable(str(label)):
            return []
        named = Comparison(_KEY, Op.STARTSWITH, f"{CONTEXT_PREFIX}{label}{MARK}")
        found = [
            one async for place in self._namespaces(principal) for one in await self._first(place, named, _LABELLED)
        ]
        return [memory for memory in found if own_label(memory) == label]

    async def _first(self, namespace: str, where: Filter, limit: int = 1) -> list[Memory]:
        return (await self._storage.select(Selection((namespace,), False, where, limit=limit), self._clock.now())).items  # noqa: FBT003

    async def _namespaces(self, principal: Principal) -> AsyncIterator[str]:
        """Those below `projects` that hold a visible memory."""
        scopes, now = principal.narrowed(PROJECTS), self._clock.now()
        after: str | None = None
        while True:
            page = await self._storage.list_namespaces(scopes, now, depth=None, limit=MAX_LIMIT, after=after)
            for one in page.items:
                if one.memories:
                    yield one.name
            if page.next is None:
                return
            after = str(page.next[0])

    def _namespace(self, project: str | None, namespace: str | None) -> str:
        if namespace is not None:
            return check_namespace(namespace)
        name = normalise(project)
        self._check_text(name, "project_id")
        return check_namespace(project_namespace(name), "project_id")

    def _check_text(self, text: str, field: str) -> None:
        if not text.isascii() and not _encodable(text):
            raise InvalidInputError(field, f"{field} holds a lone surrogate, which is no character")

    def _counted(self, found: list[Memory], shown: int, now: int, listing: tuple[object, ...], *, more: bool) -> Loaded:
        recent = sum(1 for m in found if m.created_at > now - DAY_SECONDS * SECOND)
        high = sum(1 for m in found if m.importance >= HIGH_IMPORTANCE)
        contexts = found[:shown][::-1]
        return Loaded(contexts, len(found), recent, high, [], more=more or len(found) > shown, listing=listing)

    async def _all(self, newest: Selection, shown: int, now: int, listing: tuple[object, ...]) -> Loaded:
        """Counts rather than reads what is not shown."""

        async def count(more: Filter | None = None) -> int:
            return await self._storage.count(Selection(newest.scopes, newest.recursive, every(newest.where, more)), now)

        page = await self._storage.select(
            Selection(newest.scopes, newest.recursive, newest.where, _NEWEST, shown, newest.after), now
        )
        if page.next is None or newest.after is not None:
            return self._counted(page.items, shown, now, listing, more=page.next is not None)
        return Loaded(
            page.items[::-1],
            await count(),
            await count(Comparison(_CREATED_AT, Op.GT, now - DAY_SECONDS * SECOND)),
            await count(Comparison(_IMPORTANCE, Op.GTE, HIGH_IMPORTANCE)),
            [],
            more=True,
            listing=listing,
        )

    async def _top(self, scopes: tuple[str, ...], limit: int, min_usage: float) -> list[TagUse]:
        if not scopes or limit == 0:
            return []
        now = self._clock.now()
        held = await self._uses_of(scopes, now)
        since = now // SECOND - DAY_SECONDS
        chosen = [
            use for use in held.uses if use.count >= min_usage or (use.count == 1 and use.newest // SECOND > since)
        ]
        return await self._settled(held, scopes, chosen, len(chosen) if limit < 0 else limit)

    async def _uses_of(self, scopes: tuple[str, ...], now: int) -> _Uses:
        """Counting looks at every memory: what was only added to since is counted on from there."""
        seq = await self._storage.last_seq()
        held = self._uses.get(scopes)
        if held is not None and held.at <= now < held.until:
            if held.seq == seq:
                return held
            held = await self._counted_on(held, scopes, seq, now)
        else:
            held = None
        if held is None:
            soonest = Selection(scopes, where=_EXPIRES, order=_SOONEST, limit=1)
            until = [now + RECOUNT_SECONDS * SECOND]
            until += [one.expires_at for one in (await self._storage.select(soonest, now)).items if one.expires_at]
            held = _Uses(seq, now, min(until), await self._storage.tag_uses(scopes, now))
        if len(self._uses) >= _CACHED_SCOPES:
            self._uses.clear()
        self._uses[scopes] = held
        return held

    async def _counted_on(self, held: _Uses, scopes: tuple[str, ...], seq: int, now: int) -> _Uses | None:
        """The counts with what is new since; None where something else happened, or too much."""
        if not 0 < seq - held.seq <= _MOST_ADDED:
            return None
        changes = (await self._storage.changes(held.seq, _MOST_ADDED))[: seq - held.seq]
        # A gap is a change that no key shows any more.
        if [one.seq for one in changes] != list(range(held.seq + 1, seq + 1)):
            return None
        ours = [one for one in changes if any(contains(scope, one.namespace) for scope in scopes)]
        if any(one.deleted or one.version > 1 for one in ours):
            return None
        memories = await self._storage.get_many([(one.namespace, one.key) for one in ours], now)
        uses = {use.tag: use for use in held.uses}
        until = held.until
        for memory in memories:
            if memory is None:
                return None
            until = min(until, memory.expires_at or until)
            for tag in memory.tags:
                former = uses.get(tag, TagUse(tag, 0, memory.created_at))
                uses[tag] = TagUse(tag, former.count + 1, max(former.newest, memory.created_at))
        ranked = sorted(uses.values(), key=lambda use: (-use.count, -use.newest, use.tag))
        fresh = {memory.created_at for memory in memories if memory is not None}
        places = {newest: named for newest, named in held.places.items() if newest not in fresh}
        return _Uses(seq, held.at, until, ranked, places)

    async def _settled(self, held: _Uses, scopes: tuple[str, ...], uses: list[TagUse], limit: int) -> list[TagUse]:
        """The first of them. Of tags equally often used, and last by the same memory, the one that it names last is first:
        so the older server had them.
        """
        told: list[TagUse] = []
        start = 0
        while start < len(uses) and len(told) < limit:
            end = start + 1
            while end < len(uses) and (uses[end].count, uses[end].newest) == (uses[start].count, uses[start].newest):
                end += 1
            group = uses[start:end]
            if len(group) > 1:
                places = await self._places(held, scopes, group[0])
                group.sort(key=lambda use: -places.get(use.tag, -1))
            told += group
            start = end
        return told[:limit]

    async def _places(self, held: _Uses, scopes: tuple[str, ...], use: TagUse) -> dict[str, int]:
        if use.newest not in held.places:
            where = every(Comparison(_TAGS, Op.CONTAINS, use.tag), Comparison(_CREATED_AT, Op.EQ, use.newest))
            page = await self._storage.select(
                Selection(scopes, where=where, order=_HIGHEST_ID, limit=1), self._clock.now()
            )
            held.places[use.newest] = {tag: place for m in page.items for place, tag in enumerate(m.tags)}
        return held.places[use.newest]


def _at_least(importance: float) -> Filter:
    """What the older service had at that importance or above: of what lies outside of 1 to 10 ours only knows the nearest."""
    enough = Comparison(_IMPORTANCE, Op.GTE, importance)
    if importance > _MOST_IMPORTANT:
        return Comparison(_OLDER_IMPORTANCE, Op.GTE, importance)
    if importance <= _LEAST:
        return And((enough, Not(Comparison(_OLDER_IMPORTANCE, Op.LT, importance))))
    return enough


def _importance_of(memory: Memory) -> float:
    told = shown_importance(memory)
    return told if isinstance(told, int | float) else memory.importance


def _is_context(memory: Memory) -> bool:
    return contains(PROJECTS, memory.namespace) or memory.key.startswith(CONTEXT_PREFIX)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _any_of(tags: Sequence[str]) -> Filter | None:
    """Has one of them; None where there are none, or none that any memory can have."""
    parts: list[Filter] = [Comparison(_TAGS, Op.CONTAINS, tag) for tag in tags if _encodable(tag)]
    return None if not parts else parts[0] if len(parts) == 1 else Or(tuple(parts))
