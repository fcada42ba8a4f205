"""Finding memories by what they say: search, what is like a memory, and what to be reminded of in a conversation."""

import asyncio
from collections.abc import Sequence
from typing import Any, Protocol

from msgspec import Struct

from unified_memory.model.clock import SECOND, Clock
from unified_memory.model.errors import (
    EmptyQueryError,
    InvalidInputError,
    MemoryNotFoundError,
    SemanticUnavailableError,
)
from unified_memory.model.found import Hit, Result, SearchRequest, encode_result
from unified_memory.model.likeness import collapse
from unified_memory.model.memory import Memory, check_key
from unified_memory.model.namespace import check_namespace
from unified_memory.model.passages import Match, passages
from unified_memory.model.principal import Principal
from unified_memory.model.query import (
    And,
    Comparison,
    Filter,
    Not,
    Op,
    decode_cursor,
    encode_cursor,
    every,
    parse_field,
    parse_filter,
)
from unified_memory.model.ranking import Nearness, Rank
from unified_memory.model.search import SearchTerms, parse_search, plain_search
from unified_memory.model.value import encode, text_of
from unified_memory.model.when import needs_library, read_duration, read_instant
from unified_memory.service.access import Accesses
from unified_memory.service.drafting import Limits, check_importance, check_name, check_tags
from unified_memory.service.requests import Narrowing, RankOptions, RecallQuery, SearchQuery, Showing, SimilarQuery
from unified_memory.service.sizes import check_limit, check_max_tokens
from unified_memory.storage.base import Storage

NO_MEANING_HINT = "Install the extra, mcp-unified-memory[semantic], and do not switch it off"
MODES = ("auto", "fulltext", "semantic", "hybrid")
# Near-duplicates are looked for among so many of the best.
COLLAPSED = 200
# A value that would take more of a budget than its share is shown by its best passages, which get at least so many bytes.
LEAST_SHARE = 800
SHARES = 5
FITTINGS = 6
# What an answer takes beside its results and the corrected words.
ENVELOPE_BYTES = 140
PASSAGES_CHARS = 1_200
# How much of the score importance adds or takes at the ends of its scale, and what age takes, where nobody says otherwise.
DEFAULT_IMPORTANCE = 0.1
# A conversation asks by its last messages; each further back counts less.
RECALLED_MESSAGES = 6
FADING = 0.7
# What another message also finds adds so much of its score there.
AGREEMENT = 0.1
# Each further memory of a session counts that much less than the one before it.
SAME_SESSION = 0.9
RECALL_POOL = 30
RECALL_CHARS = 600


class Meaning(Protocol):
    """Search by meaning."""

    async def near(self, text: str, scopes: tuple[str, ...], *, recursive: bool) -> Nearness | None:
        """What is near to the text; None while nothing can tell."""


class Found(Struct):
    """A page of ranked results. `left_out`: results of this page that did not fit into `max_tokens`; the cursor begins with
    them. `corrected`: words for which others were taken. `mode`: by what was searched: fulltext, semantic or hybrid.
    """

    results: list[Result]
    next_cursor: str | None
    left_out: int = 0
    corrected: dict[str, str] = {}
    mode: str = "fulltext"

    @property
    def hits(self) -> list[Hit]:
        """The found memories alone."""
        return [one.hit for one in self.results]


class _Plan(Struct):
    """What is asked, checked."""

    terms: SearchTerms
    scopes: tuple[str, ...]
    recursive: bool
    where: Filter | None
    rank: Rank
    near: Nearness | None
    mode: str


class Searching:
    """Every ranked search. Each takes the principal who asks and finds only what that one may see."""

    def __init__(
        self, storage: Storage, clock: Clock, accesses: Accesses, limits: Limits, meaning: Meaning | None
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._accesses = accesses
        self._limits = limits
        self._meaning = meaning

    async def search(self, principal: Principal, query: SearchQuery) -> Found:
        """Memories by relevance. Raises EmptyQueryError, SemanticUnavailableError, InvalidInputError and below."""
        plan = await self._plan(principal, query, parse_search(query.query), query.query)
        return await self._page(plan, query, ("search", query.query))

    async def similar(self, principal: Principal, query: SimilarQuery) -> Found:
        """What is like a memory (which is left out) or a text. Raises MemoryNotFoundError and what `search` raises."""
        source: Memory | None = None
        if query.text is not None and query.key is not None:
            raise InvalidInputError("key", "Either key or text is given, not both")
        if query.key is not None:
            source = await self._source(principal, query.key, query.key_namespace)
            text = text_of(source.parsed())
        elif query.text is not None:
            text = query.text
        else:
            raise InvalidInputError("key", "key or text must be given")
        plan = await self._plan(principal, query, plain_search(text), text)
        if source is not None:
            itself = tuple(
                Comparison(parse_field(name), Op.EQ, held)
                for name, held in (("key", source.key), ("namespace", source.namespace))
            )
            plan.where = every(plan.where, Not(And(itself)))
        return await self._page(plan, query, ("similar", query.text, query.key, query.key_namespace))

    async def recall(self, principal: Principal, query: RecallQuery) -> Found:
        """What to be reminded of now: found by several of the last messages, merged, diverse, within `max_tokens`.

        Raises EmptyQueryError where no message holds a word, and what `search` raises.
        """
        check_limit(query.limit)
        room = check_max_tokens(query.max_tokens)
        texts = [message if isinstance(message, str) else message.text for message in query.messages]
        other: Filter | None = None
        if query.exclude_session is not None:
            session = check_name(query.exclude_session, "exclude_session")
            other = Not(Comparison(parse_field("session_id"), Op.EQ, session))
        plans: list[tuple[int, float, _Plan]] = []
        for back, text in enumerate(reversed(texts[-RECALLED_MESSAGES:])):
            try:
                terms = plain_search(text)
            except EmptyQueryError:
                continue
            plan = await self._plan(principal, query, terms, text)
            plan.where = every(plan.where, other)
            plans.append((len(texts) - 1 - back, FADING**back, plan))
        if not plans:
            raise EmptyQueryError
        best: dict[int, Result] = {}
        now = self._clock.now()
        for number, weight, plan in plans:
            found = await self._storage.search(_request(plan, RECALL_POOL, 0), now)
            if found.corrected:
                # What is near to a misspelt word is a guess, and nobody asked.
                continue
            for hit in found.hits:
                score = weight * hit.score
                known = best.get(hit.memory.id)
                if known is None:
                    best[hit.memory.id] = Result(hit, score, message=number)
                else:
                    known.score += AGREEMENT * score if score <= known.score else score - known.score
        ranked = sorted(best.values(), key=lambda one: (-one.score, -one.hit.memory.id))
        ranked = [one for one in ranked if query.min_score is None or one.score >= query.min_score]
        chosen = _diverse(_collapsed(ranked), query.limit)
        for one in chosen:
            self._accesses.show(one.hit.memory)
            one.explain = query.explain
        shown = _within(chosen, None if room is None else room - ENVELOPE_BYTES, RECALL_CHARS)
        return Found(shown, None, len(chosen) - len(shown), {}, plans[0][2].mode)

    # ---- within
    async def _page(self, plan: _Plan, query: Showing, asked: tuple[Any, ...]) -> Found:
        # By what was written: an instant that moves must not make the cursor another search's.
        listing = (
            *asked, query.namespace, query.recursive, query.tags, query.importance_min, query.session_id, query.project_id,
            query.since, query.until, query.filter, query.mode, query.rank, query.collapse, query.min_score,
        )  # fmt: skip
        limit = check_limit(query.limit)
        after = decode_cursor(query.cursor, *listing)
        offset = max(0, after[1]) if after else 0
        room = check_max_tokens(query.max_tokens)
        now = self._clock.now()
        if query.collapse:
            found = await self._storage.search(_request(plan, COLLAPSED, 0), now)
            results = await asyncio.to_thread(_collapsed, [Result(hit, hit.score) for hit in found.hits])
            results = results[offset : offset + limit + 1]
        else:
            found = await self._storage.search(_request(plan, limit + 1, offset), now)
            results = [Result(hit, hit.score) for hit in found.hits]
        if query.min_score is not None:
            results = [one for one in results if one.score >= query.min_score]
        page = results[:limit]
        for one in page:
            self._accesses.show(one.hit.memory)
            one.explain, one.bare = query.explain, query.content == "none"
        if room is not None:
            room -= ENVELOPE_BYTES + len(encode(found.corrected))
        shown = _within(page, room, PASSAGES_CHARS if query.content == "passages" else None)
        cursor = encode_cursor((None, offset + len(shown)), *listing) if len(results) > len(shown) else None
        return Found(shown, cursor, len(page) - len(shown), found.corrected, plan.mode)

    async def _plan(self, principal: Principal, query: Showing | RecallQuery, terms: SearchTerms, text: str) -> _Plan:
        namespace = None if query.namespace is None else check_namespace(query.namespace)
        scopes, recursive = principal.reach(namespace, recursive=query.recursive)
        where = every(*await self._conditions(query))
        if query.mode not in MODES:
            raise InvalidInputError("mode", f"mode must be one of {', '.join(MODES)}")
        near = None
        if query.mode != "fulltext":
            if self._meaning is None and query.mode != "auto":
                raise SemanticUnavailableError("This service does not search by meaning", hint=NO_MEANING_HINT)
            near = None if self._meaning is None else await self._meaning.near(text, scopes, recursive=recursive)
        if query.mode == "semantic" and near is None:
            raise SemanticUnavailableError(
                "Nothing can be searched by meaning yet", hint="Try again later, or mode=auto"
            )
        mode = "fulltext" if near is None else "semantic" if query.mode == "semantic" else "hybrid"
        return _Plan(terms, scopes, recursive, where, read_rank(query.rank), near, mode)

    async def _conditions(self, query: Narrowing) -> list[Filter | None]:
        tests: list[Filter | None] = []
        if query.tags:
            tags = check_tags(list(query.tags), "tags", Limits())
            tests += [Comparison(parse_field("tags"), Op.CONTAINS, tag) for tag in tags]
        check_importance(query.importance_min, "importance_min")
        if query.importance_min is not None:
            tests.append(Comparison(parse_field("importance"), Op.GTE, query.importance_min))
        if query.session_id is not None:
            tests.append(Comparison(parse_field("session_id"), Op.EQ, check_name(query.session_id, "session_id")))
        if query.project_id is not None:
            tests.append(Comparison(parse_field("project_id"), Op.EQ, check_name(query.project_id, "project_id")))
        for field, op, text in (("since", Op.GTE, query.since), ("until", Op.LTE, query.until)):
            if text is not None:
                tests.append(Comparison(parse_field("updated_at"), op, await self._instant(text, field)))
        if query.filter:
            tests.append(parse_filter(query.filter))
        return tests

    async def _instant(self, text: str, field: str) -> int:
        now, end = self._clock.now(), field == "until"
        if needs_library(text):
            # Loading it takes a while, and so may reading a text.
            return await asyncio.to_thread(read_instant, text, field, now, end=end)
        return read_instant(text, field, now, end=end)

    async def _source(self, principal: Principal, key: str, namespace: str) -> Memory:
        check_namespace(namespace, "key_namespace")
        check_key(key, self._limits.key_bytes)
        memory = await self._storage.get(namespace, key, self._clock.now()) if principal.sees(namespace) else None
        if memory is None:
            raise MemoryNotFoundError(namespace, key)
        return memory


def read_rank(options: RankOptions | None) -> Rank:
    """What counts beside relevance. Raises InvalidInputError naming the field."""
    if options is None:
        return Rank(DEFAULT_IMPORTANCE, None)
    importance = DEFAULT_IMPORTANCE if options.importance is None else options.importance
    if not 0 <= importance <= 1:
        raise InvalidInputError("rank.importance", "rank.importance must be from 0 to 1")
    told = options.recency_half_life
    if told is None or told == 0:
        return Rank(importance, None)
    seconds = read_duration(told, "rank.recency_half_life") if isinstance(told, str) else told
    if not 0 <= seconds < 10**11:
        raise InvalidInputError("rank.recency_half_life", "rank.recency_half_life must be a time, such as 30d, or 0")
    return Rank(importance, round(seconds * SECOND) or None)


def _request(plan: _Plan, limit: int, offset: int) -> SearchRequest:
    return SearchRequest(
        plan.scopes,
        plan.recursive,
        plan.terms,
        plan.where,
        limit,
        offset,
        plan.rank,
        plan.near,
        plan.mode != "semantic",
    )


def _collapsed(results: Sequence[Result]) -> list[Result]:
    """The results without those that say the same as another: of each group the newest, in the place of the best."""
    groups = collapse(
        results,
        lambda one: text_of(one.hit.memory.parsed()),
        lambda one: (one.hit.memory.updated_at, one.hit.memory.id),
    )
    collapsed = []
    for newest, others in groups:
        newest.score = max(one.score for one in (newest, *others))
        newest.duplicates = len(others)
        collapsed.append(newest)
    return collapsed


def _diverse(results: Sequence[Result], limit: int) -> list[Result]:
    """The best, of which each further one of the same session counts less."""
    left = list(results)
    chosen: list[Result] = []
    seen: dict[tuple[str, str], int] = {}

    def worth(one: Result) -> float:
        session = one.hit.memory.session_id
        again = 0 if session is None else seen.get((one.hit.memory.namespace, session), 0)
        return one.score * SAME_SESSION**again

    while left and len(chosen) < limit:
        best = max(left, key=lambda one: (worth(one), one.hit.memory.id))
        left.remove(best)
        chosen.append(best)
        session = best.hit.memory.session_id
        if session is not None:
            place = (best.hit.memory.namespace, session)
            seen[place] = seen.get(place, 0) + 1
    return chosen


def _within(results: list[Result], room: int | None, chars: int | None) -> list[Result]:
    """The first of the results that fit into so many bytes, at least one, since an answer of nothing says nothing.

    `chars`: longer values are shown by passages of about so many characters.
    """
    shown: list[Result] = []
    for place, one in enumerate(results):
        if chars is not None and len(text := text_of(one.hit.memory.parsed())) > chars:
            one.passages = _best(one, text, chars)
        if room is not None:
            # With the comma before it.
            room -= 1
            room -= _fitted(one, max(LEAST_SHARE, room // min(SHARES, len(results) - place)))
            if room < 0 and shown:
                break
        shown.append(one)
    return shown


def _fitted(result: Result, share: int) -> int:
    """Shows passages of a value that takes more than its share of bytes; how many the result now takes."""
    size = len(encode_result(result))
    if size <= share or result.bare or result.passages is not None:
        return size
    text = text_of(result.hit.memory.parsed())
    result.passages = []
    bare = len(encode_result(result))
    room = max(LEAST_SHARE // 2, share - bare)
    if not text:
        return bare
    # How many characters take so many bytes is seen by trying.
    chars = room * len(text) // len(encode(text))
    for _ in range(FITTINGS):
        result.passages = _best(result, text, chars)
        size = len(encode_result(result))
        if size - bare <= room:
            break
        chars = max(1, chars * room // (size - bare) - 16)
    return size


def _best(result: Result, text: str, chars: int) -> list[tuple[int, int, str]]:
    """(start, end, text) of the best passages of a value's words, together of at most so many characters."""
    shares = result.hit.parts.terms if result.hit.parts is not None else []
    matches = [
        Match(start, end, term, shares[term] if term < len(shares) else 1.0) for start, end, term in result.hit.spans
    ]
    return [(one.start, one.end, text[one.start : one.end]) for one in passages(text, matches, chars)]
