"""The tools on memories themselves: ranked search, keys by pattern, and the one that stores, retrieves, lists and deletes."""

import fnmatch
import json
import math
import re
from typing import Any, Literal

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from unified_memory.mcp.budget import BYTES_PER_TOKEN
from unified_memory.mcp.schema import Schema, anything, array, boolean, integer, number, obj, text
from unified_memory.mcp.sizes import MAX_TOKENS, answer_tokens, max_tokens_schema, room, shortened
from unified_memory.mcp.tool import Answer, Arguments, Call, Tool, read
from unified_memory.model.clock import to_rfc3339
from unified_memory.model.errors import InvalidCursorError, InvalidInputError
from unified_memory.model.found import Result, explained
from unified_memory.model.memory import Memory, encode_memory
from unified_memory.model.namespace import DEFAULT_NAMESPACE
from unified_memory.model.passages import Match, shorten
from unified_memory.model.query import MAX_LIMIT, decode_cursor, encode_cursor
from unified_memory.model.value import encode, text_of
from unified_memory.service.contexts import normalise
from unified_memory.service.projects import project_namespace
from unified_memory.service.requests import ExactQuery, RecallQuery, SearchQuery, StoreRequest
from unified_memory.service.searching import Found

DEFAULT_LIMIT = 10
# The least that one found memory takes of an answer, and what the word on how to go on takes.
_LEAST_BYTES = 100
# A stored value up to this size is told back in the record.
MAX_ECHO_BYTES = 8_000
_TAIL_BYTES = 300
_SHORT_BYTES = 200
# What a result must tell in the text; what its score is made of comes behind.
_LINES = 2
_LEAST_TEXT_BYTES = 12
# A longer key is not held by a cursor, which would be as long.
_CURSOR_KEY_BYTES = 60
# How many keys one call looks at, and at once, where the pattern cannot be left to the storage.
_LOOKS = 10_000
_LOOKS_AT_ONCE = 200
_PIECES = 20
_DATE = len("2026-01-31")
# Of a found memory's words as many characters are told as many results leave room for; each stands in both forms of an answer.
_LEAST_TOLD, _MOST_TOLD = 240, 600
# A corrected word, and the one in its place, may each take such a part of an answer.
_WORDS_SHARE = 64
_HEAD_BYTES = 150


class _Search(Struct, forbid_unknown_fields=True):
    query: str | None = None
    messages: list[str] | None = None
    namespace: str | None = None
    tags: list[str] | None = None
    importance_min: int | None = None
    session_id: str | None = None
    project_id: str | None = None
    since: str | None = None
    until: str | None = None
    min_score: float | None = None
    mode: str = "auto"
    collapse: bool = False
    explain: bool = False
    limit: int | None = None
    cursor: str | None = None
    max_tokens: int | None = None
    format: Literal["text", "json"] | None = None


class _Usage(Struct, forbid_unknown_fields=True):
    action: Literal["store", "retrieve", "list", "delete", "search"] | None = None
    key: str | None = None
    value: Any = UNSET
    namespace: str | None = None
    ttl: float | UnsetType | None = UNSET
    metadata: dict[str, Any] | None = None
    pattern: str | None = None
    limit: int | None = None
    cursor: str | None = None
    max_tokens: int | None = None


class _Pattern(Struct, forbid_unknown_fields=True):
    pattern: str
    namespace: str | None = None
    limit: int | None = None
    cursor: str | None = None
    max_tokens: int | None = None


class _Entry(Struct):
    """One found memory: what is told of it as structured content, its lines in the text (None: that as JSON, in one line), and
    the cursor that goes on after it.
    """

    told: dict[str, Any]
    lines: str | None = None
    cursor: str = ""

    @property
    def text(self) -> str:
        """What stands in the text."""
        return encode(self.told).decode() if self.lines is None else self.lines

    @property
    def size(self) -> int:
        """The bytes that it takes in both."""
        return len(self.text.encode()) + len(encode(self.told)) + 2


# ---- ranked search
async def _search_memory(call: Call, arguments: Arguments) -> Answer:
    return await _ranked(call, read(arguments, _Search))


async def _ranked(call: Call, asked: _Search) -> Answer:
    space = room(asked.max_tokens)
    limit = _limit(asked.limit, space)
    found = await _find_ranked(call, asked, limit)
    # A word may be as long as a text.
    word_size = max(_LEAST_TEXT_BYTES, space // _WORDS_SHARE)
    corrected = {shortened(word, word_size): shortened(other, word_size) for word, other in found.corrected.items()}
    corrections = [f"Nothing holds {word!r}; searched for {other!r}." for word, other in corrected.items()]
    if corrected:
        space -= len(encode(corrected)) + len("\n".join(corrections).encode())
    size = max(_LEAST_TOLD, min(_MOST_TOLD, space // (2 * max(1, limit)) - _HEAD_BYTES))
    entries = [_result(one, size, as_json=asked.format == "json") for one in found.results]
    shown = _fitting(entries, space)
    left_out = len(entries) - len(shown) + found.left_out
    if left_out and asked.messages is None:
        found.next_cursor = (await _find_ranked(call, asked, len(shown))).next_cursor
    told: dict[str, Any] = {"results": [entry.told for entry in shown], "left_out": left_out, "mode": found.mode}
    if corrected:
        told["corrected"] = corrected
    if found.next_cursor is not None:
        told["next_cursor"] = found.next_cursor
    if asked.format == "json":
        return Answer(encode(told).decode(), told)
    lines = corrections + ([entry.text for entry in shown] or ["Nothing found."])
    if found.next_cursor is not None:
        more = f"{left_out} more left out; " if left_out else "There is more; "
        lines.append(f"{more}go on with cursor={found.next_cursor}")
    elif left_out:
        lines.append(f"{left_out} more left out; max_tokens bounds the answer")
    return Answer("\n".join(lines), told)


async def _find_ranked(call: Call, asked: _Search, limit: int) -> Found:
    """By the query, or what the messages remind of. Raises InvalidInputError where it is not one of both."""
    if asked.query is not None and asked.messages is not None:
        raise InvalidInputError("query", "Either query or messages is given, not both")
    narrowing: dict[str, Any] = {
        "namespace": asked.namespace,
        "tags": asked.tags,
        "importance_min": asked.importance_min,
        "session_id": asked.session_id,
        "filter": None if asked.project_id is None else _of_project(asked.project_id),
        "since": asked.since,
        "until": asked.until,
        "min_score": asked.min_score,
        "mode": asked.mode,
        "explain": asked.explain,
        "limit": limit,
    }
    if asked.query is not None:
        query = SearchQuery(query=asked.query, collapse=asked.collapse, cursor=asked.cursor, **narrowing)
        return await call.service.searching.search(call.principal, query)
    if asked.messages is None:
        raise InvalidInputError("query", "query or messages must be given")
    if asked.cursor is not None:
        raise InvalidCursorError
    recalled = RecallQuery(messages=list(asked.messages), max_tokens=MAX_TOKENS, **narrowing)
    return await call.service.searching.recall(call.principal, recalled)


def _of_project(project: str) -> dict[str, Any]:
    """What belongs to a project: its contexts, and memories that name it."""
    name = normalise(project)
    return {"or": [{"namespace": project_namespace(name)}, {"project_id": {"in": [project, name]}}]}


def _result(result: Result, size: int, *, as_json: bool) -> _Entry:
    memory = result.hit.memory
    told: dict[str, Any] = {
        "id": memory.id,
        "namespace": memory.namespace,
        "key": memory.key,
        "score": round(result.score, 3),
        "snippet": _best(result, size),
        "importance": memory.importance,
        "tags": list(memory.tags),
        "updated_at": to_rfc3339(memory.updated_at),
    }
    if result.duplicates is not None:
        told["duplicates"] = result.duplicates
    if result.message is not None:
        told["message"] = result.message
    if result.explain:
        told["explain"] = explained(result, result.hit.asked)
    if as_json:
        return _Entry(told)
    tags = "".join(f" #{tag}" for tag in memory.tags)
    head = (
        f"{memory.id} {memory.namespace}/{memory.key} ({told['score']}, {to_rfc3339(memory.updated_at)[:_DATE]}){tags}"
    )
    same = f" (+{result.duplicates} that say the same)" if result.duplicates else ""
    lines = [f"{head}{same}", f"  {' '.join(told['snippet'].split())}"]
    if result.explain:
        lines.append(f"  {encode(told['explain']).decode()}")
    return _Entry(told, "\n".join(lines))


def _best(result: Result, size: int) -> str:
    """The value's words, or the best passages of a long one."""
    hit = result.hit
    shares = [] if hit.parts is None else hit.parts.terms
    matches = [Match(start, end, term, shares[term] if term < len(shares) else 1.0) for start, end, term in hit.spans]
    return shorten(text_of(hit.memory.parsed()), matches, size)


def _limit(limit: int | None, space: int) -> int:
    """No more than could fit; what is no limit at all is left for the service to refuse."""
    if limit is None:
        limit = DEFAULT_LIMIT
    return min(limit, space // _LEAST_BYTES + 1) if limit <= MAX_LIMIT else limit


def _fitting(entries: list[_Entry], space: int) -> list[_Entry]:
    """The first entries that fit into so many bytes; at least one, shortened where it must be."""
    left = space - _TAIL_BYTES
    for i, entry in enumerate(entries):
        left -= entry.size
        if left - 2 * len(entry.cursor) < 0:
            return entries[:i] or [_short(entry, space - _TAIL_BYTES - 2 * len(entry.cursor))]
    return entries


def _short(entry: _Entry, space: int) -> _Entry:
    """The entry without tags, and with every text in it cut until it fits, or no more of them is left that tells anything."""
    size = _SHORT_BYTES
    while True:
        told = {
            name: shortened(part, size) if isinstance(part, str) and name != "updated_at" else part
            for name, part in entry.told.items()
        }
        told["tags"] = []
        told.pop("explain", None)
        lines = None
        if entry.lines is not None:
            lines = "\n".join(shortened(line, 2 * size) for line in entry.lines.splitlines()[:_LINES])
        short = _Entry(told, lines, entry.cursor)
        if short.size <= space or size <= _LEAST_TEXT_BYTES:
            return short
        size //= 2


# ---- keys by pattern
async def _memory_search(call: Call, arguments: Arguments) -> Answer:
    return await _matching(call, read(arguments, _Pattern))


async def _matching(call: Call, asked: _Pattern) -> Answer:
    """The memories whose keys match, by key; a cursor is (the last key that was looked at, None where it is long; its id)."""
    if not asked.pattern:
        raise InvalidInputError("pattern", "pattern is empty", hint="* for every key")
    space = room(asked.max_tokens)
    listing = ("keys", asked.namespace, asked.pattern)
    limit = _limit(asked.limit, space)
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInputError("limit", f"limit must be from 1 to {MAX_LIMIT}", limit=MAX_LIMIT)
    certain = "?" not in asked.pattern and "*" not in asked.pattern[:-1]
    # Only * and ? mean anything here; elsewhere [ begins a set of characters.
    matches = re.compile(fnmatch.translate(asked.pattern.replace("[", "[[]"))).match
    query = ExactQuery(
        filter={"and": [*_of_pattern(asked.pattern), *await _after(call, asked.cursor, listing)]},
        namespace=asked.namespace,
        order_by="key",
        limit=min(limit + 1, MAX_LIMIT) if certain else _LOOKS_AT_ONCE,
    )
    entries: list[_Entry] = []
    looks, last = 0, ""
    while True:
        page = await call.service.memories.query(call.principal, query)
        for memory in page.memories:
            named = memory.key if len(memory.key.encode()) <= _CURSOR_KEY_BYTES else None
            last = encode_cursor((named, memory.id), *listing) or ""
            if matches(memory.key):
                entries.append(_preview(memory, last))
        looks += len(page.memories)
        query.cursor = page.next_cursor
        if page.next_cursor is None or len(entries) > limit or looks >= _LOOKS:
            break
        await call.report(looks, _LOOKS, f"{len(entries)} keys match so far")
    shown = _fitting(entries[:limit], space)
    told: dict[str, Any] = {
        "memories": [entry.told for entry in shown],
        "left_out": min(len(entries), limit) - len(shown),
    }
    if len(shown) < len(entries):
        told["next_cursor"] = shown[-1].cursor
    elif query.cursor is not None:
        told["next_cursor"] = last
    lines = [entry.text for entry in shown]
    lines.append(encode({name: part for name, part in told.items() if name != "memories"}).decode())
    return Answer("\n".join(lines), told)


def _of_pattern(pattern: str) -> list[dict[str, Any]]:
    """What the storage can tell of a key that matches the pattern."""
    if "*" not in pattern and "?" not in pattern:
        return [{"key": pattern}]
    first, *others = re.split(r"[*?]+", pattern)
    parts = [part for part in others if part][:_PIECES]
    return [{"key": {"startswith": first}}, *({"key": {"contains": part}} for part in parts)]


async def _after(call: Call, cursor: str | None, listing: tuple[object, ...]) -> list[dict[str, Any]]:
    """What comes after the cursor. Raises InvalidCursorError, also where its memory had a long key and has gone."""
    after = decode_cursor(cursor, *listing)
    if after is None:
        return []
    key, number = after
    if key is None:
        found = await call.service.memories.query(call.principal, ExactQuery(filter={"id": number}, limit=1))
        key = found.memories[0].key if found.memories else None
    if not isinstance(key, str):
        raise InvalidCursorError
    return [{"key": {"gte": key}}, {"not": {"key": key, "id": {"lte": number}}}]


def _preview(memory: Memory, cursor: str) -> _Entry:
    told = {
        "id": memory.id,
        "namespace": memory.namespace,
        "key": memory.key,
        "value": shortened(_beginning(memory), _SHORT_BYTES),
        "tags": list(memory.tags),
        "updated_at": to_rfc3339(memory.updated_at),
    }
    return _Entry(told, None, cursor)


def _beginning(memory: Memory) -> str:
    if memory.value.lstrip()[:1] == b'"':
        return _text(memory)
    return memory.value[: 2 * _SHORT_BYTES].decode(errors="ignore")


# ---- by action
async def _memory_usage(call: Call, arguments: Arguments) -> Answer:
    asked = read(arguments, _Usage)
    match asked.action:
        case None:
            return await _stats(call, asked)
        case "store":
            return await _store(call, asked, arguments)
        case "retrieve":
            return await _retrieve(call, asked)
        case "delete":
            return await _delete(call, asked, arguments)
        case "list":
            return await _matching(call, _pattern(asked, asked.pattern or "*"))
        case "search":
            return await _find(call, asked)


async def _store(call: Call, asked: _Usage, arguments: Arguments) -> Answer:
    if asked.value is UNSET:
        raise InvalidInputError("value", "store needs a value")
    metadata = {name: _raw(part) for name, part in (asked.metadata or {}).items()}
    request = StoreRequest(_raw(asked.value), asked.key, _namespace(asked), ttl=asked.ttl, metadata=metadata or None)
    outcome = await call.service.memories.store(call.principal, request, idempotent=call.idempotent(arguments))
    if outcome.memory is None:  # a write that was applied has a result
        raise TypeError
    line = {"stored": True, **_name(outcome.memory), "created": outcome.created}
    told = _record(outcome.memory)
    if len(outcome.memory.value) > MAX_ECHO_BYTES:
        # Whoever stored it has it: an answer as long would only fill the context.
        del told["value"]
    return Answer(encode(line).decode(), {"memory": told})


async def _retrieve(call: Call, asked: _Usage) -> Answer:
    """The value as it is, or as much of a longer one as fits.

    A cursor is (characters that were shown already, the version that they are of).
    """
    key, namespace = _key(asked), _namespace(asked)
    memory = await call.service.memories.retrieve(call.principal, namespace, key)
    value = _text(memory)
    listing = ("retrieve", namespace, key)
    after = decode_cursor(asked.cursor, *listing)
    space = room(asked.max_tokens)
    if after is None:
        told = {"memory": _record(memory)}
        if answer_tokens(value, told) * BYTES_PER_TOKEN <= space:
            return Answer(value, told)
    begin, version = after or (0, memory.version)
    if not isinstance(begin, int) or version != memory.version:
        raise InvalidCursorError
    rest = value[begin:]
    size = max(1, (space - _TAIL_BYTES) // 2)
    while True:
        part = rest.encode()[:size].decode(errors="ignore") or rest[:1]
        answer = _partial(memory, part, len(rest) - len(part), begin + len(part), listing)
        if size == 1 or answer_tokens(answer.text or "", answer.structured) * BYTES_PER_TOKEN <= space:
            return answer
        size = max(1, size // 2)


def _partial(memory: Memory, part: str, left_out: int, end: int, listing: tuple[object, ...]) -> Answer:
    """A part of a value, of which so many characters are left."""
    told: dict[str, Any] = {
        "memory": {"id": memory.id, "version": memory.version, "part": part},
        "left_out": left_out,
    }
    if not left_out:
        return Answer(part, told)
    told["next_cursor"] = encode_cursor((end, memory.version), *listing)
    return Answer(f"{part}\n[{left_out} more characters; go on with cursor={told['next_cursor']}]", told)


async def _delete(call: Call, asked: _Usage, arguments: Arguments) -> Answer:
    memory = await call.service.memories.delete(
        call.principal, _namespace(asked), _key(asked), idempotent=call.idempotent(arguments)
    )
    told = {"deleted": True, **_name(memory)}
    return Answer(encode(told).decode(), {"deleted": True, "memory": _name(memory)})


async def _find(call: Call, asked: _Usage) -> Answer:
    """By words, or keys by a pattern. Older agents name what they look for as the value."""
    wanted = asked.pattern or (asked.value if isinstance(asked.value, str) else None) or asked.key
    if not wanted:
        raise InvalidInputError("pattern", "search needs a pattern")
    if re.search(r"[*?]", wanted) and not re.search(r"\s", wanted):
        return await _matching(call, _pattern(asked, wanted))
    search = _Search(
        wanted,
        namespace=_namespace(asked),
        limit=asked.limit,
        cursor=asked.cursor,
        max_tokens=asked.max_tokens,
        format="json",
    )
    return await _ranked(call, search)


async def _stats(call: Call, asked: _Usage) -> Answer:
    """What REST's GET /stats says; of the largest namespaces and most used tags as many as fit."""
    stats = await call.service.upkeep.stats(call.principal, asked.namespace)
    fields = msgspec.to_builtins(stats)
    for end in ("oldest", "newest"):
        fields[end] = None if fields[end] is None else to_rfc3339(fields[end])
    fields["top_tags"] = [{"tag": tag, "count": count} for tag, count in stats.top_tags]
    fields["read_only"] = await call.service.upkeep.read_only()
    left_out = 0
    while True:
        totals = {name: part for name, part in fields.items() if name not in {"namespaces", "top_tags"}}
        lines = [totals, *fields["namespaces"], *fields["top_tags"], *([{"left_out": left_out}] if left_out else [])]
        answer = Answer("\n".join(encode(line).decode() for line in lines), {"stats": fields, "left_out": left_out})
        longest = max(("namespaces", "top_tags"), key=lambda name: len(encode(fields[name])))
        if answer_tokens(answer.text or "", answer.structured) * 4 <= room(asked.max_tokens) or not fields[longest]:
            return answer
        fields[longest].pop()
        left_out += 1


def _pattern(asked: _Usage, pattern: str) -> _Pattern:
    return _Pattern(pattern, _namespace(asked), asked.limit, asked.cursor, asked.max_tokens)


def _namespace(asked: _Usage) -> str:
    return DEFAULT_NAMESPACE if asked.namespace is None else asked.namespace


def _key(asked: _Usage) -> str:
    if asked.key is None:
        raise InvalidInputError("key", f"{asked.action} needs a key")
    return asked.key


def _name(memory: Memory) -> dict[str, Any]:
    return {"key": memory.key, "namespace": memory.namespace, "id": memory.id, "version": memory.version}


def _raw(value: Any) -> Raw:
    """The JSON of an argument. What some clients' JSON holds and JSON has not, such as NaN, is left for the service to refuse."""
    return Raw(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass"))


def _text(memory: Memory) -> str:
    """The value as text: a string itself, anything else as its JSON, spelled as it was stored."""
    value = memory.parsed()
    return value if isinstance(value, str) else memory.value.decode()


def _record(memory: Memory) -> dict[str, Any]:
    """The record as REST gives it. Numbers beyond what programs hold are told as texts."""
    told: dict[str, Any] = json.loads(encode_memory(memory), parse_float=_float, parse_int=_integer)
    return told


def _float(digits: str) -> float | str:
    held = float(digits)
    return held if math.isfinite(held) else digits


def _integer(digits: str) -> int | str:
    return int(digits) if len(digits) <= _DIGITS else digits


# As many as Python reads as an integer.
_DIGITS = 4300

# ---- what agents read of them
_CURSOR = text("next_cursor of the last answer")
_LIMIT = integer(maximum=MAX_LIMIT, default=DEFAULT_LIMIT)
_TAGS = array(text())
_MORE: dict[str, Schema] = {"left_out": integer(), "next_cursor": text()}

SEARCH_MEMORY = Tool(
    name="search_memory",
    title="Search memory",
    description=(
        'Find memories by words, "phrases", prefix* and -not, or by what the last messages call for, best first, before you ask '
        "the user or solve something anew. Of long ones the best passages; memory_usage retrieve gives the whole."
    ),
    input=obj(
        query=text(),
        messages=array(text(), "Instead of query; oldest first"),
        namespace=text(),
        tags=array(text(), "All of them"),
        importance_min=integer(minimum=1, maximum=10),
        session_id=text(),
        project_id=text("Project name"),
        since=text("Changed since: instant, 7d, last week"),
        until=text(),
        min_score=number("0 to 1"),
        mode=text(enum=["auto", "fulltext", "semantic", "hybrid"]),
        collapse=boolean("Duplicates as one"),
        explain=boolean(),
        limit=_LIMIT,
        cursor=_CURSOR,
        max_tokens=max_tokens_schema(),
        format=text(enum=["text", "json"]),
    ),
    output=obj(
        ("results", "left_out"),
        results=array(
            obj(
                id=integer(),
                namespace=text(),
                key=text(),
                score=number(),
                snippet=text(),
                importance=integer(),
                tags=_TAGS,
                updated_at=text(),
                duplicates=integer(),
                message=integer(),
                explain={"type": "object"},
            )
        ),
        mode=text(),
        corrected={"type": "object"},
        **_MORE,
    ),
    run=_search_memory,
    read_only=True,
    idempotent=True,
)

MEMORY_USAGE = Tool(
    name="memory_usage",
    title="Memory usage",
    description=(
        "Keep one value under a key: store (replaces), retrieve, delete; list keys; search (words, or keys with * and ?). "
        "Without action: how much is stored."
    ),
    input=obj(
        action=text(enum=["store", "retrieve", "list", "delete", "search"]),
        key=text(),
        value=anything("Any JSON"),
        namespace=text(default=DEFAULT_NAMESPACE),
        ttl=number("Seconds", exclusiveMinimum=0),
        metadata={"type": "object", "description": "tags, importance 1-10, session_id, project_id"},
        pattern=text(),
        limit=_LIMIT,
        cursor=_CURSOR,
        max_tokens=max_tokens_schema(),
    ),
    output=obj(
        memory={"type": "object"},
        memories={"type": "array"},
        results={"type": "array"},
        stats={"type": "object"},
        deleted=boolean(),
        mode=text(),
        corrected={"type": "object"},
        **_MORE,
    ),
    run=_memory_usage,
    destructive=True,
)

MEMORY_SEARCH = Tool(
    name="memory_search",
    title="Search keys",
    description="List memories by key: * stands for any text, ? for one character. For words in values use search_memory.",
    input=obj(
        ("pattern",),
        pattern=text("Such as notes/*"),
        namespace=text("This one and all below it"),
        limit=_LIMIT,
        cursor=_CURSOR,
        max_tokens=max_tokens_schema(),
    ),
    output=obj(
        ("memories", "left_out"),
        memories=array(
            obj(id=integer(), namespace=text(), key=text(), value=text(), tags=_TAGS, updated_at=text()),
        ),
        **_MORE,
    ),
    run=_memory_search,
    read_only=True,
    idempotent=True,
)
