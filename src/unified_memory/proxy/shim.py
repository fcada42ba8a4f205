"""The HTTP service of extended-memory on port 3009, answered from the memories here: every key a memory of one namespace.

Statuses, bodies and formats of time are those of its version 2.0.0. Where an answer differs on purpose, docs/proxy.md says so.
"""

import json
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from email.message import Message as MailMessage
from typing import Any, cast

from msgspec import Raw, Struct

from unified_memory.model.clock import SECOND
from unified_memory.model.errors import AlreadyExistsError, InvalidInputError, MemoryNotFoundError, UnifiedMemoryError
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS
from unified_memory.model.query import (
    BY_ID,
    MAX_LIMIT,
    Comparison,
    Filter,
    Op,
    Order,
    Selection,
    parse_field,
    parse_order,
)
from unified_memory.proxy.shim_schema import DOCUMENTS, OPENAPI
from unified_memory.rest.exchange import Answer
from unified_memory.service.mapping import MIGRATED_EXTENDED, entry_key, entry_of
from unified_memory.service.requests import BackupRequest, Conditions, StoreRequest, UpdateRequest
from unified_memory.service.service import Service
from unified_memory.storage.base import Access

VERSION = "2.0.0"
DEFAULT_PORT = 3009
NAME = "extended-memory"
TOP = 10
# The older service kept every key that it had met; here only which ones they are is kept, of so many.
MAX_MET = 100_000
INT64 = 2**63
ALL = 2**63 - 1

ROUTES = {
    "/": "GET",
    "/health": "GET",
    "/store": "POST",
    "/list": "GET",
    "/stats": "GET",
    "/clear": "DELETE",
    "/backup": "POST",
    "/openapi.json": "GET",
    "/docs": "GET",
    "/redoc": "GET",
}
RETRIEVE = "/retrieve/"

_TRUE = {"1", "on", "t", "true", "y", "yes"}
_FALSE = {"0", "off", "f", "false", "n", "no"}
_INTEGER = re.compile(r"\s*[+-]?\d+(_\d+)*(\.0+)?\s*", re.ASCII)
_TYPES = {str: "str", int: "int", float: "float", bool: "bool", type(None): "none", dict: "dict", list: "list"}
_CREATE = Conditions(create_only=True)
_RECENT = parse_order("-last_accessed")
_ACCESSES = parse_field("access_count")


class Request(Struct):
    """A request for the service: `path` decoded, `query` and `body` as they came; `content_type` None where none was told."""

    method: str
    path: str
    query: dict[str, str]
    body: bytes
    content_type: str | None = "application/json"
    host: str = ""


class _RefusedError(Exception):
    """A request that is answered with that status and detail."""

    def __init__(self, status: int, detail: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


class Shim:
    """The service over the memories of a namespace. `port` and `database`: what it says of itself; `backups`: where they lie.

    What it calls its cache is which keys this process has met.
    """

    def __init__(
        self,
        service: Service,
        *,
        namespace: str = MIGRATED_EXTENDED,
        port: int = DEFAULT_PORT,
        database: str = "",
        backups: str = "",
    ) -> None:
        self._service = service
        self._namespace = namespace
        self._port = port
        self._database = database
        self._backups = backups
        self._begun = service.clock.now()
        # In the order in which they were met; a key that was sent as a number is met as that.
        self._met: dict[Any, None] = {}

    async def answer(self, request: Request) -> Answer:
        """The answer to any request."""
        path, method = request.path, request.method
        if path.startswith(RETRIEVE) and len(path) > len(RETRIEVE):
            allowed = "GET"
        elif path in ROUTES:
            allowed = ROUTES[path]
        elif path.endswith("/") and path.rstrip("/") in ROUTES:
            target = f"http://{request.host}{path.rstrip('/')}".encode()
            return Answer(b"", 307, ((b"location", target),))
        else:
            return _answer({"detail": "Not Found"}, 404)
        if method != allowed:
            told = _answer({"detail": "Method Not Allowed"}, 405)
            return Answer(told.body, 405, (*told.headers, (b"allow", allowed.encode())))
        try:
            return await self._answer(request)
        except _RefusedError as refused:
            return _answer({"detail": refused.detail}, refused.status)

    async def _answer(self, request: Request) -> Answer:
        match request.path:
            case "/":
                return _answer(self._root())
            case "/health":
                return await self._health()
            case "/store":
                return await self._store(request)
            case "/list":
                return await self._list(request.query)
            case "/stats":
                return await self._stats()
            case "/clear":
                return await self._clear(request.query)
            case "/backup":
                return await self._backup()
            case "/openapi.json":
                return _answer(OPENAPI)
            case "/docs" | "/redoc":
                return Answer(DOCUMENTS, headers=((b"content-type", b"text/html; charset=utf-8"),))
        return await self._retrieve(request.path[len(RETRIEVE) :])

    # ---- what it says of itself
    def _root(self) -> Any:
        return {
            "message": "Extended Memory MCP Service v2.0",
            "capabilities": ["store", "retrieve", "list", "clear", "stats", "backup", "health"],
            "features": {
                "persistence": "SQLite database",
                "caching": True,
                "versioning": VERSION,
                "backup": "Available",
                "statistics": "Detailed tracking",
            },
            "api_docs": "/docs",
        }

    async def _health(self) -> Answer:
        try:
            items = await self._count()
        except UnifiedMemoryError as error:
            return _answer({"status": "unhealthy", "error": error.detail}, 500)
        return _answer(
            {
                "status": "healthy",
                "service": NAME,
                "version": VERSION,
                "port": self._port,
                "timestamp": self._timestamp(),
                "persistence": {
                    "enabled": True,
                    "type": "SQLite",
                    "path": self._database,
                    "initialized": _iso(self._begun),
                },
                "statistics": {"memory_items": items, "cache_enabled": True, "cache_items": len(self._met)},
            }
        )

    # ---- one key
    async def _store(self, request: Request) -> Answer:
        sent = _body(request)
        key, value = sent.get("key"), sent.get("value")
        if not key:
            raise _RefusedError(400, "Key is required")
        try:
            name = entry_key(_text(key))
            raw = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except UnicodeEncodeError as error:
            raise _RefusedError(500 if _unencodable(key) else 422, f"Storage failed: {error}") from None
        except ValueError:
            words = "The value holds NaN or an infinity (or a number that is one), which JSON does not have"
            raise _RefusedError(422, f"{words}; nothing was stored") from None
        try:
            await self._write(name, raw)
        except InvalidInputError as error:
            raise _RefusedError(422, f"Storage failed: {error.detail}") from None
        except UnifiedMemoryError as error:
            raise _RefusedError(500, f"Storage failed: {error.detail}") from None
        self._meet(key)
        return _answer({"status": "stored", "key": key, "persisted": True, "timestamp": self._timestamp()})

    async def _write(self, name: str, raw: bytes) -> None:
        """Stores a value, its metadata stay; that counts as an access, of which only the first is told as the last one."""
        memories = self._service.memories
        while True:
            try:
                outcome = await memories.update(ANONYMOUS, self._namespace, name, UpdateRequest(value=Raw(raw)))
            except MemoryNotFoundError:
                request = StoreRequest(value=Raw(raw), key=name, namespace=self._namespace)
                try:
                    outcome = await memories.store(ANONYMOUS, request, _CREATE)
                except AlreadyExistsError:
                    # Somebody else has made it meanwhile.
                    continue
            memory = cast("Memory", outcome.memory)
            access = Access(memory.id, 1, memory.last_accessed or memory.created_at, self._namespace, name)
            await self._service.storage.touch([access])
            return

    async def _retrieve(self, key: str) -> Answer:
        try:
            name = entry_key(key)
            memory = await (self._peek(name) if key in self._met else self._fetch(name))
        except UnicodeEncodeError:
            # Bytes in the path that are no UTF-8.
            memory = None
        except UnifiedMemoryError as error:
            raise _RefusedError(500, f"Retrieval failed: {error.detail}") from None
        if memory is None:
            self._met.pop(key, None)
            return _answer({"status": "not_found", "key": key.encode(errors="replace").decode()})
        source = "cache" if key in self._met else "database"
        self._meet(key)
        head, _, tail = _dumps({"status": "found", "key": key, "value": None, "source": source}).rpartition(b"null")
        return Answer(head + respelled(memory.value) + tail)

    async def value(self, key: str) -> bytes | None:
        """The value of a key as it would be answered, without counting an access; None where there is none."""
        memory = await self._peek(entry_key(key))
        return None if memory is None else respelled(memory.value)

    async def _peek(self, name: str) -> Memory | None:
        return await self._service.storage.get(self._namespace, name, self._service.clock.now())

    async def _fetch(self, name: str) -> Memory | None:
        """As what the older one read in its database: the access is counted."""
        try:
            return await self._service.memories.retrieve(ANONYMOUS, self._namespace, name)
        except (MemoryNotFoundError, InvalidInputError):
            # A name that no memory can have.
            return None

    def _meet(self, key: Any) -> None:
        # 1, 1.0 and true were one key of its cache, and "1" another, as Python has it.
        if key not in self._met and len(self._met) >= MAX_MET:
            del self._met[next(iter(self._met))]
        self._met[key] = None

    # ---- all keys
    async def keys(self) -> list[str]:
        """Every key that is here."""
        return [entry_of(memory.key) async for memory in self._all(BY_ID)]

    async def count(self) -> int:
        """How many keys are here."""
        return await self._count()

    async def _count(self) -> int:
        return await self._service.storage.count(self._entries(), self._service.clock.now())

    async def _all(self, order: Order, most: int | None = None, where: Filter | None = None) -> AsyncIterator[Memory]:
        """The first of them in that order, page by page."""
        selection, told = self._entries(order, where=where), 0
        while True:
            page = await self._service.storage.select(selection, self._service.clock.now())
            for memory in page.items:
                if most is not None and told >= most:
                    return
                told += 1
                yield memory
            if page.next is None:
                return
            selection = self._entries(order, page.next, where)

    async def _list(self, query: dict[str, str]) -> Answer:
        limit, offset = _integer(query, "limit", 100), _integer(query, "offset", 0)
        try:
            await self._service.upkeep.flush()
            total = await self._count()
            first = max(offset, 0)
            most = None if limit < 0 else first + limit
            found = [] if limit == 0 else [memory async for memory in self._all(_RECENT, most)][first:]
        except UnifiedMemoryError as error:
            raise _RefusedError(500, f"List failed: {error.detail}") from None
        return _answer(
            {
                "keys": [entry_of(memory.key) for memory in found],
                "metadata": [
                    {
                        "key": entry_of(memory.key),
                        "type": _TYPES[type(_parsed(memory.value))],
                        "created_at": _spaced(memory.created_at // SECOND * SECOND),
                        "updated_at": _spaced(memory.updated_at),
                        "accessed_at": _spaced(_accessed(memory)),
                        "access_count": memory.access_count,
                    }
                    for memory in found
                ],
                "total_count": total,
                "limit": limit,
                "offset": offset,
                "has_more": offset + limit < total,
            }
        )

    async def _stats(self) -> Answer:
        service = self._service
        try:
            await service.upkeep.flush()
            now = service.clock.now()
            groups = await service.storage.group(self._entries(), _ACCESSES, now, ALL)
            most = await self._most_accessed([group.value for group in groups])
            recent = [memory async for memory in self._all(_RECENT, TOP)]
        except UnifiedMemoryError as error:
            raise _RefusedError(500, f"Statistics failed: {error.detail}") from None
        items = sum(group.count for group in groups)
        accesses = sum(group.value * group.count for group in groups)
        return _answer(
            {
                "statistics": {
                    "total_items": items,
                    "total_accesses": accesses if items else None,
                    "avg_accesses": accesses / items if items else None,
                    "max_accesses": max(group.value for group in groups) if items else None,
                },
                "most_accessed": [{"key": entry_of(one.key), "count": one.access_count} for one in most],
                "recently_accessed": [
                    {"key": entry_of(one.key), "accessed_at": _spaced(_accessed(one))} for one in recent
                ],
                "cache_size": len(self._met),
                "database_path": self._database,
            }
        )

    async def _most_accessed(self, counts: list[int]) -> list[Memory]:
        """The first of those that were accessed most; of the same count the oldest first."""
        found: list[Memory] = []
        for count in sorted(counts, reverse=True):
            if len(found) < TOP:
                where = Comparison(_ACCESSES, Op.EQ, count)
                found += [memory async for memory in self._all(BY_ID, TOP - len(found), where)]
        return found

    async def _clear(self, query: dict[str, str]) -> Answer:
        if not _boolean(query, "confirm"):
            raise _RefusedError(400, "Confirmation required. Pass confirm=true to clear all memory.")
        try:
            async for _ in self._service.memories.change_where(self._entries(), None):
                pass
        except UnifiedMemoryError as error:
            raise _RefusedError(500, f"Clear failed: {error.detail}") from None
        self._met.clear()
        return _answer({"status": "cleared", "timestamp": self._timestamp()})

    async def _backup(self) -> Answer:
        try:
            backup = await self._service.backups.create(ANONYMOUS, BackupRequest(note="POST /backup of the proxy"))
        except UnifiedMemoryError as error:
            raise _RefusedError(500, f"Backup failed: {error.detail}") from None
        return _answer(
            {
                "status": "backup_created",
                "path": f"{self._backups}/{backup.manifest.id}",
                "timestamp": self._timestamp(),
            }
        )

    def _entries(self, order: Order = BY_ID, after: Any = None, where: Filter | None = None) -> Selection:
        return Selection((self._namespace,), recursive=False, where=where, order=order, limit=MAX_LIMIT, after=after)

    def _timestamp(self) -> str:
        return _iso(self._service.clock.now())


# ---- reading what older callers send
def _body(request: Request) -> dict[str, Any]:
    """The object that a body is. Raises _RefusedError in the words of the older service."""
    kind = MailMessage()
    kind["content-type"] = request.content_type or "application/json"
    if not request.body:
        raise _invalid("missing", ["body"], "Field required", None)
    if kind.get_content_maintype() != "application" or not re.fullmatch(r"(.*\+)?json", kind.get_content_subtype()):
        told = request.body.decode(errors="replace")
        raise _invalid("dict_type", ["body"], "Input should be a valid dictionary", told)
    try:
        sent = json.loads(request.body)
    except json.JSONDecodeError as error:
        ctx = {"error": error.msg}
        raise _invalid("json_invalid", ["body", error.pos], "JSON decode error", {}, ctx=ctx) from None
    except (ValueError, RecursionError):
        raise _RefusedError(400, "There was an error parsing the body") from None
    if sent is None:
        raise _invalid("missing", ["body"], "Field required", None)
    if not isinstance(sent, dict):
        raise _invalid("dict_type", ["body"], "Input should be a valid dictionary", sent)
    return sent


def _invalid(kind: str, place: list[Any], words: str, sent: Any, **more: Any) -> _RefusedError:
    return _RefusedError(422, [{"type": kind, "loc": place, "msg": words, "input": sent, **more}])


def _integer(query: dict[str, str], name: str, default: int) -> int:
    text = query.get(name)
    if text is None:
        return default
    if not _INTEGER.fullmatch(text):
        words = "Input should be a valid integer, unable to parse string as an integer"
        raise _invalid("int_parsing", ["query", name], words, text)
    number = int(text.partition(".")[0])
    if not -INT64 <= number < INT64:
        raise _RefusedError(500, "List failed: Python int too large to convert to SQLite INTEGER")
    return number


def _boolean(query: dict[str, str], name: str) -> bool:
    text = query.get(name, "false")
    if text.lower() not in _TRUE | _FALSE:
        words = "Input should be a valid boolean, unable to interpret input"
        raise _invalid("bool_parsing", ["query", name], words, text)
    return text.lower() in _TRUE


def stored_key(body: bytes) -> str | None:
    """The key that a body of POST /store names, as the older service keeps it; None where it keeps none."""
    try:
        key = json.loads(body)["key"]
        return _text(key) if key else None
    except (ValueError, RecursionError, TypeError, KeyError, _RefusedError):
        return None


def _text(key: Any) -> str:
    """A key of JSON as the text that SQLite made of it. Raises _RefusedError, ValueError for one that is no number."""
    if isinstance(key, str):
        key.encode()
        return key
    if isinstance(key, list | dict):
        kind = type(key).__name__
        raise _RefusedError(500, f"Storage failed: Error binding parameter 1: type '{kind}' is not supported")
    if isinstance(key, float):
        if key != key or key in {float("inf"), float("-inf")}:  # noqa: PLR0124 - NaN alone differs from itself
            raise ValueError
        mantissa, e, exponent = f"{key:.15g}".partition("e")
        return mantissa + ("" if "." in mantissa else ".0") + e + exponent
    if not -INT64 <= key < INT64:
        raise _RefusedError(500, "Storage failed: Python int too large to convert to SQLite INTEGER")
    return str(int(key))


def _unencodable(key: Any) -> bool:
    return isinstance(key, str) and any("\ud800" <= letter <= "\udfff" for letter in key)


# ---- telling
def _dumps(told: Any) -> bytes:
    try:
        return json.dumps(told, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        # What a refused body held is shown in an answer, though no JSON has it.
        return json.dumps(_without_constants(told), separators=(",", ":")).encode()


def _without_constants(told: Any) -> Any:
    return json.loads(json.dumps(told), parse_constant=_name)


def _name(constant: str) -> str:
    return constant


def _answer(told: Any, status: int = 200) -> Answer:
    return Answer(_dumps(told), status)


def respelled(raw: bytes) -> bytes:
    """A value as the older service would have written it; what its parser cannot read or write stays as it is."""
    parse: Callable[[bytes], Any] = json.loads
    try:
        return json.dumps(parse(raw), ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        return raw


def _parsed(raw: bytes) -> Any:
    """Enough of a value to tell its type."""
    first = raw.lstrip()[:1]
    if first in {b"{", b"["}:
        return {} if first == b"{" else []
    if first == b'"':
        return ""
    if first in {b"t", b"f", b"n"}:
        return None if first == b"n" else True
    return 0.0 if any(mark in raw for mark in (b".", b"e", b"E")) else 0


def _accessed(memory: Memory) -> int:
    return memory.last_accessed or memory.created_at


def _moment(instant: int) -> datetime:
    return datetime.fromtimestamp(instant // SECOND, UTC).replace(tzinfo=None, microsecond=instant % SECOND)


def _iso(instant: int) -> str:
    return _moment(instant).isoformat()


def _spaced(instant: int) -> str:
    return _moment(instant).isoformat(sep=" ")
