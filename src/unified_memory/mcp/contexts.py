"""The five tools of extended-memory: as its version 0.9.0 answered, and with more to ask for in the profile `unified`."""

import hashlib
import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, NoReturn

import msgspec
from msgspec import UNSET, Struct, UnsetType

from unified_memory.mcp import schema
from unified_memory.mcp.budget import BYTES_PER_TOKEN, DEFAULT_TOKENS, tokens
from unified_memory.mcp.prompts import MEMORY_INSTRUCTIONS
from unified_memory.mcp.sizes import shortened
from unified_memory.mcp.tool import (
    INTERNAL_ERROR,
    Answer,
    Arguments,
    Call,
    Profile,
    ProtocolError,
    Run,
    Tool,
    failed,
)
from unified_memory.model.clock import SECOND, to_rfc3339
from unified_memory.model.errors import InvalidCursorError, InvalidInputError, MemoryNotFoundError, UnifiedMemoryError
from unified_memory.model.memory import DEFAULT_IMPORTANCE, Memory
from unified_memory.model.query import decode_cursor, encode_cursor
from unified_memory.model.value import encode
from unified_memory.service.contexts import Loaded, normalise
from unified_memory.service.labels import Label, label_of, shown_created_at, shown_importance
from unified_memory.service.requests import Idempotent

INSTRUCTIONS = (
    "This is your memory between conversations. Call load_contexts at the start, before you answer; save decisions, preferences"
    " and open work with save_context as soon as they are known, one fact each, with tags."
)
DEFAULT_LIMIT = 30
DEFAULT_SHOWN = 10
DEFAULT_LEVEL = 7
DEFAULT_TAGS_LIMIT = 20
MAX_FILTER_TAGS = 10
PREVIEW = 100
_LIMIT_OF_NULL = 10
_USAGE_OF_NULL = 2
_OFF = {"false", "0", "no", "off"}
_LAST_INTEGER = 2**63 - 1
_INTEGER_DIGITS = 18
_NUMERAL = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)
_WHOLE_NUMERAL = re.compile(r"\s*\+?\d{1,18}(\.0*)?\s*", re.ASCII)
# What the older server said of an object, of which it stored nothing.
_NO_TEXT = {dict: "unhashable type: 'slice'"}
_DETAILS = "\n\n🔍 **Error Details:**\n- Category: internal\n- Severity: medium"
# Room that is kept for the word on how to go on, in bytes.
_TAIL_BYTES = 400
# What the words above the contexts take without names, tags and instructions; those on what was cut; and the least of a text.
_FRAME_BYTES = 300
_CUT_BYTES = 50
_MORE_BYTES = 150
_LEAST_BYTES = 50


# ---- reading what older callers send
def _project(arguments: Arguments) -> str | None:
    """The project that was named, None where none was. Raises InvalidInputError."""
    sent = arguments.get("project_id")
    if sent and not isinstance(sent, str):
        raise InvalidInputError("project_id", f"'{type(sent).__name__}' object has no attribute 'strip'")
    return sent or None


def _importance(sent: Any) -> int:
    """1 to 10, also as 7.0 or "8". Raises InvalidInputError."""
    number = None
    if isinstance(sent, str) and _WHOLE_NUMERAL.fullmatch(sent):
        number = int(float(sent))
    elif isinstance(sent, int | float) and not isinstance(sent, bool) and sent == sent // 1:
        number = int(sent)
    if number is None or not 1 <= number <= 10:  # noqa: PLR2004 - the scale of the record
        raise InvalidInputError("importance_level", "importance_level must be an integer from 1 to 10")
    return number


def _tags(sent: Any) -> list[str]:
    """What a list, a text (letter by letter) or an object (its names) says of tags; anything else says nothing."""
    parts = sent if isinstance(sent, list | str | dict) else []
    tags = (part.strip().lower() for part in parts if isinstance(part, str))
    return list(dict.fromkeys(filter(None, tags)))


def _number(sent: Any) -> int | float | None:
    """The number that SQLite took a bound value for; None where it took it for none."""
    if isinstance(sent, str):
        if not _NUMERAL.fullmatch(sent):
            return None
        return int(sent) if sent.strip().lstrip("+-").isdigit() and len(sent) <= _INTEGER_DIGITS else float(sent)
    if isinstance(sent, int):
        return int(sent) if -_LAST_INTEGER <= sent <= _LAST_INTEGER else None
    return sent if isinstance(sent, float) else None


def _limit(sent: Any) -> int:
    """How many SQLite's LIMIT let through: below 0 all, and none where it is no whole number."""
    number = _number(sent)
    if number is None or not math.isfinite(number) or number != int(number) or abs(number) > _LAST_INTEGER:
        return 0
    return int(number)


def _context_id(sent: Any) -> Label:
    """An integer, or its digits with blanks around; another text as it is, and 0, which nothing has, for anything else."""
    if isinstance(sent, str):
        digits = sent.strip()
        digits = digits.lstrip("0") or digits[-1:]
        return int(digits) if digits.isdecimal() and len(digits) <= _INTEGER_DIGITS else sent
    return sent if isinstance(sent, int) and not isinstance(sent, bool) else 0


def _echo(sent: Any) -> str:
    """What was sent, as the older server's Python wrote it; a lone surrogate, which no answer can hold, as `?`."""
    return f"{sent}".encode(errors="replace").decode()


def _idempotent(call: Call, arguments: Arguments) -> Idempotent | None:
    try:
        return call.idempotent(arguments)
    except UnicodeEncodeError:
        raise InvalidInputError("arguments", "The arguments hold a lone surrogate, which is no character") from None


# ---- reading what is new in the profile `unified`
def _namespace(arguments: Arguments) -> str | None:
    namespace = arguments.get("namespace")
    if namespace is not None and arguments.get("project_id") is not None:
        raise InvalidInputError("namespace", "Say project_id or namespace, not both")
    if namespace is not None and not isinstance(namespace, str):
        raise InvalidInputError("namespace", "namespace must be a string")
    return namespace


def _ttl(arguments: Arguments) -> float | UnsetType | None:
    ttl = arguments.get("ttl", UNSET)
    if isinstance(ttl, bool) or not isinstance(ttl, int | float | None | UnsetType):
        raise InvalidInputError("ttl", "ttl must be a number of seconds greater than 0")
    return ttl


def _cursor(arguments: Arguments) -> str | None:
    cursor = arguments.get("cursor")
    if cursor is not None and not isinstance(cursor, str):
        raise InvalidCursorError
    return cursor


def _max_tokens(arguments: Arguments) -> int:
    sent = arguments.get("max_tokens")
    if sent is None:
        return DEFAULT_TOKENS
    if isinstance(sent, bool) or not isinstance(sent, int) or sent < 1:
        raise InvalidInputError("max_tokens", "max_tokens must be an integer of at least 1")
    return sent


def _as_json(arguments: Arguments) -> bool:
    form = arguments.get("format")
    if form not in {None, "text", "json"}:
        raise InvalidInputError("format", 'format must be "text" or "json"')
    return form == "json"


# ---- telling
def _local(instant: int, form: str) -> str:
    """An instant by the clock on the wall of this process."""
    return datetime.fromtimestamp(instant // SECOND, UTC).astimezone().strftime(form)


def _now(call: Call) -> str:
    return _local(call.service.clock.now(), "%Y-%m-%d %H:%M:%S")


def _content(memory: Memory) -> str:
    """A context's text; of a value that is none its JSON."""
    value = memory.parsed()
    return value if isinstance(value, str) else memory.value.decode()


def _created(memory: Memory) -> str:
    """Month, day and minute of its creation; of one from an older service as that showed it."""
    older = shown_created_at(memory)
    return _local(memory.created_at, "%m-%d %H:%M") if older is None else older[5:16].replace("T", " ")


def _entry(memory: Memory) -> str:
    told = f"(ID: {label_of(memory)}, Importance: {shown_importance(memory)}/10 ({_created(memory)}))\n"
    if memory.tags:
        told += f"🏷️ Tags: {', '.join(sorted(memory.tags))}\n"
    return f"{told}📝 {_content(memory)}\n\n"


# ---- save_context
async def _save(call: Call, arguments: Arguments) -> Answer:
    sent = arguments.get("importance_level", DEFAULT_IMPORTANCE)
    content = arguments["content"]
    try:
        project, namespace = _project(arguments), _namespace(arguments)
        if not isinstance(content, str):
            raise InvalidInputError("content", _NO_TEXT.get(type(content), "content must be a string"))
        importance = _importance(sent)
        tags, ttl = _tags(arguments.get("tags")), _ttl(arguments)
        memory = await call.service.contexts.save(
            call.principal,
            content,
            project=project,
            importance=importance,
            tags=tags,
            ttl=ttl,
            namespace=namespace,
            idempotent=_idempotent(call, arguments),
        )
    except UnifiedMemoryError as error:
        return failed(error, f"❌ Error saving context: {error.detail}{_DETAILS}")
    return Answer(
        f"✅ Context saved successfully!\n\n📝 **Details:**\n- Context ID: {memory.id}\n"
        f"- Project: {normalise(project) if namespace is None else namespace}\n- Importance: {sent}/10\n"
        f"- Saved at: {_local(memory.created_at, '%Y-%m-%d %H:%M:%S')} \n"
        f"- Content: {content[:PREVIEW]}{'...' if len(content) > PREVIEW else ''}"
    )


# ---- load_contexts
class _Wanted(Struct):
    """What a load asks for. `nothing`: the older server found nothing, since it could not read a limit or an importance."""

    project: str | None
    namespace: str | None
    importance: int | float
    limit: int
    shown: int
    tags: list[str]
    nothing: bool

    @property
    def label(self) -> str:
        """The project, or the namespace where one was named."""
        return normalise(self.project) if self.namespace is None else self.namespace


def _wanted(arguments: Arguments) -> _Wanted:
    project, namespace = _project(arguments), _namespace(arguments)
    level = arguments.get("importance_level")
    level = DEFAULT_LEVEL if level is None else level
    sent = arguments.get("limit", DEFAULT_LIMIT)
    limit, importance, tags = _limit(sent), _number(level), _filter(arguments.get("tags_filter"))
    # With tags it compared and cut in Python, which takes no text for a number and no 2.0 for a place.
    nothing = importance is None or (bool(tags) and not (isinstance(level, int | float) and isinstance(sent, int)))
    explicit = "limit" in arguments and limit > DEFAULT_SHOWN
    shown = limit if explicit else DEFAULT_SHOWN
    return _Wanted(project, namespace, importance or 0, limit, shown, tags, nothing)


class _FilterError(InvalidInputError):
    """A tags_filter that cannot be used, for which the older server had words of its own."""


def _filter(sent: Any) -> list[str]:
    if sent is None:
        return []
    if not isinstance(sent, list):
        raise _FilterError("tags_filter", "tags_filter must be a list of strings")
    tags = [tag.strip().lower() for tag in sent if isinstance(tag, str) and tag.strip()]
    if len(tags) > MAX_FILTER_TAGS:
        raise _FilterError("tags_filter", f"Maximum {MAX_FILTER_TAGS} tags allowed in tags_filter")
    return tags


async def _load(call: Call, arguments: Arguments, *, cut: bool) -> Answer:
    try:
        wanted, cursor, as_json = _wanted(arguments), _cursor(arguments), _as_json(arguments)
        budget = _max_tokens(arguments) if cut else None
        loaded = None
        if not wanted.nothing:
            loaded = await call.service.contexts.load(
                call.principal,
                wanted.project,
                importance=wanted.importance,
                limit=wanted.limit,
                tags=wanted.tags,
                shown=wanted.shown,
                namespace=wanted.namespace,
                cursor=cursor,
                alone=not cut,
            )
    except _FilterError as error:
        return failed(error, f"❌ Error: {error.detail}")
    except UnifiedMemoryError as error:
        return failed(error, f"❌ Error loading contexts: {error.detail}{_DETAILS}")
    if as_json:
        return _json(wanted.label, loaded, budget)
    if loaded is None or not loaded.contexts:
        if cursor is not None:
            return Answer("There are no older contexts.")
        return Answer(
            f"🔍 No saved contexts found for project '{wanted.label or 'current project'}'.\n\n"
            f"Memory is currently empty.\n\n🕐 Checked at: {_now(call)} "
        )
    instruction = await call.service.contexts.instruction() if _truthy(arguments.get("init_load", True)) else ""
    sent = arguments.get("limit", DEFAULT_LIMIT)
    verb = "Loaded only" if sent and loaded.count == sent else "Found"

    def head(size: int | None) -> str:
        return _head(instruction, verb, wanted.label, loaded, size)

    # Whoever goes on by a cursor, or names a size, wants to know where it goes on also where all fits.
    return Answer(_text(head, loaded, budget, paged=cursor is not None or arguments.get("max_tokens") is not None))


def _truthy(sent: Any) -> bool:
    return sent.lower() not in _OFF if isinstance(sent, str) else bool(sent)


def _head(instruction: str, verb: str, label: str, loaded: Loaded, size: int | None) -> str:
    """What stands above the contexts; of what can be long no more than fits into about so many bytes (None: the whole)."""
    tags = ", ".join(f"{use.tag} ({use.count} uses)" for use in loaded.tags)
    if size is not None:
        instruction, label, tags = (
            shortened(instruction, size // 2),
            shortened(label, size // 8),
            shortened(tags, size // 4),
        )
    summary = f"{verb} {loaded.count} saved contexts"
    if label:
        summary += f" for project '{label}'"
    details = [f"{loaded.recent} from last 24h"] if loaded.recent else []
    details += [f"{loaded.high} high-importance"] if loaded.high else []
    if details:
        summary += f" including {', '.join(details)}"
    head = f"## Custom Instructions\n\n{instruction}\n\n" if instruction else ""
    head += f"🧠 **Memory Loaded Successfully**\n\n📊 **Summary:** {summary}.\n\n"
    if tags:
        head += f"🏷️ **Popular Tags:** {tags}\n\n"
    return head + f"Memory contexts in chronological order (showing last {loaded.count} entries):\n\n"


def _text(heading: Callable[[int | None], str], loaded: Loaded, budget: int | None, *, paged: bool) -> str:
    head = heading(None)
    entries = [_entry(memory) for memory in loaded.contexts]
    left = loaded.count - len(entries)
    tail = f"... and {left} more contexts\n" if left > 0 else ""
    whole = head + "".join(entries) + tail
    if budget is None or (tokens(whole) <= budget and not (paged and loaded.more)):
        return whole
    if tokens(whole) > budget:
        space = budget * BYTES_PER_TOKEN
        if len(head.encode()) > space // 2:
            head = heading(max(0, space // 2 - _FRAME_BYTES))
        room = space - len(head.encode()) - min(_TAIL_BYTES, space // 4)
        entries = entries[-_fitting(entries, room) :]
        if len(entries) == 1:
            entries = [_shortened(entries[0], room)]
        left = loaded.count - len(entries)
        tail = f"... and {left} more contexts\n" if left > 0 else ""
    oldest = loaded.contexts[-len(entries)]
    if oldest is not loaded.contexts[0] or loaded.more:
        tail += f'Older ones: the same call with cursor "{loaded.cursor(oldest)}"; max_tokens allows longer answers.\n'
    return head + "".join(entries) + tail


def _fitting(parts: Sequence[str], room: int) -> int:
    """How many of the last parts fit into so many bytes: at least one."""
    for count, part in enumerate(reversed(parts)):
        room -= len(part.encode())
        if room < 0:
            return max(1, count)
    return len(parts)


def _shortened(entry: str, room: int) -> str:
    """An entry of which no more is shown than fits, and the word on that; of its text always a little."""
    whole = entry.encode()
    if len(whole) <= room:
        return entry
    room = max(room - _CUT_BYTES, _LEAST_BYTES)
    return f"{whole[:room].decode(errors='ignore')}…\n(cut after {room} of {len(whole)} bytes)\n\n"


def _json(label: str, loaded: Loaded | None, budget: int | None) -> Answer:
    told: dict[str, Any] = {"project": label, "count": 0, "contexts": []}
    if loaded is not None and loaded.contexts:
        records = [
            {
                "id": label_of(memory),
                "created_at": to_rfc3339(memory.created_at),
                "importance": memory.importance,
                "tags": list(memory.tags),
                "content": _content(memory),
            }
            for memory in loaded.contexts
        ]
        if budget is not None:
            # It stands in the text and in the structured content.
            space = budget * BYTES_PER_TOKEN // 2
            label = shortened(label, space // 8)
            room = space - len(label.encode()) - min(_TAIL_BYTES, space // 2)
            records = records[-_fitting([f"{encode(record).decode()}," for record in records], room) :]
            if len(records) == 1:
                records = [_record_cut(records[0], room)]
        told = {"project": label, "count": loaded.count, "contexts": records}
        oldest = loaded.contexts[-len(records)]
        if oldest is not loaded.contexts[0] or loaded.more:
            told["next_cursor"] = loaded.cursor(oldest)
    return Answer(msgspec.json.encode(told).decode(), told)


def _record_cut(record: dict[str, Any], room: int) -> dict[str, Any]:
    """The record with no more of its text than fits, and without its tags where they leave no room for half of that."""
    told, size = record, room
    while len(encode(told)) > room and size > _LEAST_BYTES // 2:
        size //= 2
        tags = record["tags"] if len(encode(record["tags"])) <= room // 2 else []
        told = {**record, "tags": tags, "content": shortened(str(record["content"]), size)}
    return told


# ---- forget_context
async def _forget(call: Call, arguments: Arguments) -> Answer:
    sent = arguments["context_id"]
    details = f"\n\n📝 **Details:**\n- Context ID: {_echo(sent)}\n"
    try:
        await call.service.contexts.forget(call.principal, _context_id(sent), _idempotent(call, arguments))
    except MemoryNotFoundError as error:
        return failed(error, f"❌ Context not found!{details}- Status: Not found or already deleted")
    except UnifiedMemoryError as error:
        return failed(error, f"❌ Error deleting context!{details}- Error: {error.detail}")
    return Answer(f"✅ Context deleted successfully!{details}- Status: Permanently removed from memory")


# ---- list_all_projects
async def _projects(call: Call, arguments: Arguments, *, cut: bool) -> Answer:
    try:
        names = await call.service.contexts.projects(call.principal, alone=not cut)
        budget = _max_tokens(arguments) if cut else None
        first = _place(names, _cursor(arguments)) if cut else 0
    except UnifiedMemoryError as error:
        return _unsuccessful(error)
    head = "🗂️ **All Projects** (ignores isolation)\n\n"
    if not names:
        return Answer(f"{head}No projects found in memory system.")
    head += f"**Found {len(names)} projects:**\n"
    tail = '\n💡 Use `load_contexts(project_id="project_name")` to load specific project context'
    names = names[first:]
    lines = [f"- {name} ({name})\n" for name in names]
    if budget is not None and tokens(head + "".join(lines) + tail) > budget:
        room = budget * BYTES_PER_TOKEN - len((head + tail).encode()) - _MORE_BYTES
        fit = _fitting(lines[::-1], room)
        if fit == 1:
            name = shortened(names[0], max(_LEAST_BYTES, room // 2 - len("-  ()\n")))
            lines[0] = f"- {name} ({name})\n"
        if fit < len(lines):
            more = encode_cursor((_digest(names[fit - 1]), 0), "projects")
            lines = [*lines[:fit], f'... and {len(lines) - fit} more projects: the same call with cursor "{more}"\n']
    return Answer(f"{head}{''.join(lines)}{tail}")


def _place(names: list[str], cursor: str | None) -> int:
    """Where the list goes on. A cursor names the last one that was shown: raises InvalidCursorError where that has gone."""
    after = decode_cursor(cursor, "projects")
    if after is None:
        return 0
    for i, name in enumerate(names):
        if _digest(name) == after[0]:
            return i + 1
    raise InvalidCursorError


def _digest(name: str) -> str:
    return hashlib.blake2b(name.encode(), digest_size=8).hexdigest()


# ---- get_popular_tags
async def _popular(call: Call, arguments: Arguments, *, cut: bool) -> Answer:
    sent = arguments.get("min_usage", 1)
    limit = arguments.get("limit", DEFAULT_TAGS_LIMIT)
    # It compared the count with what was sent: never with a text as large as that, and not at all with a list.
    usage = _USAGE_OF_NULL if sent is None else math.inf if isinstance(sent, str) else _number(sent)
    try:
        project = _project(arguments)
        budget = _max_tokens(arguments) if cut else None
        listing = ("tags", normalise(project), _echo(sent), _echo(limit))
        first, _ = (decode_cursor(_cursor(arguments), *listing) if cut else None) or (0, 0)
        if not isinstance(first, int) or first < 0:
            raise InvalidCursorError
        uses = []
        if usage is not None:
            uses = await call.service.contexts.popular_tags(
                call.principal, project, limit=_LIMIT_OF_NULL if limit is None else _limit(limit), min_usage=usage
            )
    except UnifiedMemoryError as error:
        return _unsuccessful(error)
    if not uses:
        message = f"No tags found with min_usage >= {_echo(sent)}"
        return Answer(message, extra={"success": True, "tags": [], "message": message, "total": 0})
    head = f"🏷️ **Popular Tags** (min {_echo(sent)} uses, {len(uses)} found)\n\n"
    tail = f"\n🕐 **Generated at:** {_now(call)}"
    shown = [(use.tag, use.count) for use in uses[first:]]
    more = ""
    if budget is not None:
        space = budget * BYTES_PER_TOKEN - len((head + tail).encode()) - _MORE_BYTES
        # Each stands in the text and among the further members.
        both = [f"{_use(tag, count)}{encode({'tag': tag, 'count': count}).decode()}," for tag, count in shown]
        fit = _fitting(both[::-1], space)
        if fit == 1:
            tag, count = shown[0]
            shown[0] = (
                shortened(tag, max(_LEAST_BYTES, (space - len(both[0].encode())) // 2 + len(tag.encode()))),
                count,
            )
        if fit < len(shown):
            cursor = encode_cursor((first + fit, 0), *listing)
            more = f'... and {len(shown) - fit} more tags: the same call with cursor "{cursor}"\n'
            shown = shown[:fit]
    lines = "".join(_use(tag, count) for tag, count in shown)
    return Answer(
        f"{head}{lines}{more}{tail}",
        extra={
            "success": True,
            "tags": [{"tag": tag, "count": count} for tag, count in shown],
            "total": len(uses),
            "min_usage": _echo(sent) if isinstance(sent, str) else sent,
        },
    )


def _use(tag: str, count: int) -> str:
    return f"• `{tag}` ({count} uses)\n"


def _unsuccessful(error: UnifiedMemoryError) -> Answer:
    answer = failed(error, f"❌ Error: {error.detail}")
    answer.extra = {"success": False, "error": error.detail}
    return answer


# ---- which arguments a tool takes
class _Taken(Struct, frozen=True):
    """The arguments of a tool. `function`: what the older server called it by, in its errors."""

    function: str
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    new: tuple[str, ...] = ()


_SAVE = _Taken("save_context", ("content",), ("importance_level", "tags", "project_id"), ("ttl", "namespace"))
_LOAD = _Taken(
    "load_contexts",
    (),
    ("project_id", "importance_level", "init_load", "limit", "tags_filter"),
    ("namespace", "max_tokens", "cursor", "format"),
)
_FORGET = _Taken("forget_context", ("context_id",))
_PROJECTS = _Taken("list_all_projects", new=("max_tokens", "cursor"))
_POPULAR = _Taken("get_popular_tags_tool", (), ("limit", "min_usage", "project_id"), ("max_tokens", "cursor"))


def _internal(data: str) -> NoReturn:
    raise ProtocolError(INTERNAL_ERROR, "Internal error", f"[internal] {data}")


def _older(taken: _Taken, run: Run) -> Run:
    """As the older server called its functions: what does not fit is an internal error of JSON-RPC."""

    async def checked(call: Call, arguments: Arguments) -> Answer:
        name = f"MemoryToolsHandler.{taken.function}()"
        for argument in arguments:
            if argument not in taken.required + taken.optional:
                _internal(f"{name} got an unexpected keyword argument '{_echo(argument)}'")
        for argument in taken.required:
            if argument not in arguments:
                _internal(f"{name} missing 1 required positional argument: '{argument}'")
        content = arguments.get("content", "")
        if not isinstance(content, str | list | dict):
            _internal(f"object of type '{type(content).__name__}' has no len()")
        return await run(call, arguments)

    return checked


def _newer(taken: _Taken, run: Run) -> Run:
    async def checked(call: Call, arguments: Arguments) -> Answer:
        known = taken.required + taken.optional + taken.new
        for argument in arguments:
            if argument not in known:
                field = _echo(argument)
                raise InvalidInputError(field, f"There is no argument {field!r}", hint="There are: " + ", ".join(known))
        for argument in taken.required:
            if argument not in arguments:
                raise InvalidInputError(argument, f"{argument} is required")
        return await run(call, arguments)

    return checked


def _with(run: Callable[..., Any], *, cut: bool) -> Run:
    async def bound(call: Call, arguments: Arguments) -> Answer:
        answer: Answer = await run(call, arguments, cut=cut)
        return answer

    return bound


# ---- what agents read of them
_PROJECT = schema.text("Whose memory it is; general by default.")


def _open(closed: schema.Schema) -> schema.Schema:
    """The schema as the older server had it: it did not forbid further properties."""
    return {name: part for name, part in closed.items() if name != "additionalProperties"}


def _five(*, newer: bool) -> tuple[Tool, ...]:
    """The tools; `newer`: with what the profile `unified` adds."""
    check = _newer if newer else _older
    close: Callable[[schema.Schema], schema.Schema] = (lambda closed: closed) if newer else _open
    more: dict[str, schema.Schema] = {}
    more_of_load: dict[str, schema.Schema] = {}
    paging: dict[str, schema.Schema] = {}
    if newer:
        namespace = schema.text("Instead of a project: a path like acme/web.")
        more = {"ttl": schema.number("Seconds until it is forgotten by itself."), "namespace": namespace}
        paging = {"max_tokens": schema.integer(default=DEFAULT_TOKENS), "cursor": schema.text("From a former answer.")}
        more_of_load = {"namespace": namespace, **paging, "format": schema.text(enum=["text", "json"])}
    level = {"minimum": 1, "maximum": 10}
    return (
        Tool(
            name="save_context",
            title="Save a context",
            description="Keep something worth knowing in a later conversation: a decision and its reason, a preference, a result,"
            " open work. One fact a call, in words that can be understood alone. load_contexts shows importance 7 and more"
            " unless asked for less.",
            input=close(
                schema.obj(
                    ("content",),
                    content=schema.text("The text to keep."),
                    importance_level=schema.integer("10: never miss it.", default=DEFAULT_IMPORTANCE, **level),
                    tags=schema.array(schema.text(), "Words to find it by; see get_popular_tags."),
                    project_id=_PROJECT,
                    **more,
                )
            ),
            run=check(_SAVE, _save),
        ),
        Tool(
            name="load_contexts",
            title="Load contexts",
            description="Read what was saved for a project, newest last. Call it first in every conversation, and before you"
            " answer about earlier work. Too little found: lower importance_level, or name tags.",
            input=close(
                schema.obj(
                    project_id=_PROJECT,
                    importance_level=schema.integer("At least.", default=DEFAULT_LEVEL, **level),
                    limit=schema.integer(
                        "How many of the newest are looked at; more than 10 are shown only where it is given.",
                        default=DEFAULT_LIMIT,
                    ),
                    tags_filter=schema.array(schema.text(), "With any of these tags, 10 at most."),
                    init_load=schema.boolean("False leaves out standing instructions.", default=True),
                    **more_of_load,
                )
            ),
            run=check(_LOAD, _with(_load, cut=newer)),
            read_only=True,
            idempotent=True,
        ),
        Tool(
            name="forget_context",
            title="Forget a context",
            description="Delete one saved context for good: when the user asks for it, or when it is wrong or outdated.",
            input=close(schema.obj(("context_id",), context_id=schema.integer("The ID that load_contexts shows."))),
            run=check(_FORGET, _forget),
            destructive=True,
            idempotent=True,
        ),
        Tool(
            name="list_all_projects",
            title="List projects",
            description="The names of all projects that hold something: to find the right project_id.",
            input=close(schema.obj(**paging)),
            run=check(_PROJECTS, _with(_projects, cut=newer)) if newer else _with(_projects, cut=newer),
            read_only=True,
            idempotent=True,
        ),
        Tool(
            name="get_popular_tags",
            title="Popular tags",
            description="The tags in use in a project, most used first: to tag alike, and to find what tags_filter can ask for.",
            input=close(
                schema.obj(
                    limit=schema.integer(default=DEFAULT_TAGS_LIMIT),
                    min_usage=schema.integer("Used at least so often, or once within a day.", default=1),
                    project_id=_PROJECT,
                    **paging,
                )
            ),
            run=check(_POPULAR, _with(_popular, cut=newer)),
            read_only=True,
            idempotent=True,
        ),
    )


def _unknown(name: str) -> ProtocolError:
    return ProtocolError(INTERNAL_ERROR, "Internal error", f"[internal] Unknown tool: {name}")


UNIFIED_TOOLS = _five(newer=True)
EXTENDED_MEMORY = Profile(
    name="extended-memory",
    instructions=INSTRUCTIONS,
    tools=_five(newer=False),
    prompts=(MEMORY_INSTRUCTIONS,),
    unknown=_unknown,
)
