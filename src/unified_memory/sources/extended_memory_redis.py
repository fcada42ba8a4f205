"""The contexts of extended-memory-mcp in Redis: of a server, or of its dump file.

Format: that of version 0.9.0, `redis_provider.py` and the services below it. Where `P` is the prefix, `P:context:<id>` holds a
context as JSON; the lists `P:project:<project>:contexts` and `P:tag:<tag>:contexts` hold ids, newest first.
"""

import contextlib
import hashlib
import json
import math
import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit, urlunsplit

import msgspec
import redis
from msgspec import Struct
from redis import exceptions

from unified_memory.model.clock import SECOND, from_rfc3339, to_rfc3339
from unified_memory.model.errors import InvalidInputError, SourceError, SourceUnavailableError
from unified_memory.model.value import MAX_DEPTH, encode
from unified_memory.sources import rdb, sqlite_file
from unified_memory.sources.base import (
    EXTENDED_MEMORY,
    LEGACY_CREATED_AT,
    LEGACY_ID,
    LEGACY_TAGS,
    Back,
    Found,
    Item,
    OlderSource,
    Options,
    Quarantined,
    Returned,
    Shape,
    Skipped,
    Survey,
)
from unified_memory.sources.extended_memory import (
    LEGACY_EXPIRES_AT,
    LEGACY_UPDATED_AT,
    ORIGIN,
    clamp,
    importance_back,
    importance_facts,
    lost_in_contexts,
    normalised,
    normalised_project,
)

# Of a context that has members which this version does not write.
LEGACY_MEMBERS = "legacy_members"
_MEMBERS = {"id", "content", "importance_level", "project_id", "tags", "created_at", "updated_at"}
_BATCH = 100
_SCAN = 1000
_TRIES = 10
_MILLISECOND = 1000
_INT64 = 2**63
_TOO_DEEP = ("unsupported", f"It is nested deeper than {MAX_DEPTH}")
_GLOB = re.compile(r"([*?\[\]\\^-])")
_URL = ("redis://", "rediss://")
_DATABASE = re.compile(r"(.+)#([0-9]{1,5})")


class _Held(Struct, frozen=True):
    """What a key of a context holds, and when it expires (microseconds)."""

    raw: bytes
    expires_at: int | None


class _Plan(Struct):
    """What is to be done about one context. `value`: None deletes it. `expires_at`: in milliseconds, where not kept."""

    identifier: str
    value: bytes | None
    keeps_expiry: bool = True
    expires_at: int | None = None
    drop_from: list[str] = msgspec.field(default_factory=list)
    push_to: list[str] = msgspec.field(default_factory=list)


_Planner = Callable[[_Held | None], _Plan | None]


class _Keys(ABC):
    """The keys of one database, wherever it is."""

    @abstractmethod
    def contexts(self) -> Iterator[tuple[bytes, _Held | None]]:
        """Every id once, and what it holds; None where that is no text."""

    @abstractmethod
    def dangling(self) -> Iterator[tuple[bytes, int]]:
        """Index lists and how many of their ids are of no context; only after all of `contexts`."""

    @abstractmethod
    def others(self) -> list[str]:
        """What else is there, in sentences."""

    @abstractmethod
    def held(self, identifier: str) -> _Held | None:
        """What the context of that id holds."""

    @abstractmethod
    def token(self) -> object: ...

    @abstractmethod
    def carry_out(self, planners: Sequence[tuple[str, _Planner]]) -> None:
        """Asks for a plan for each id by what it holds, and does it."""

    @abstractmethod
    def writable(self) -> str | None: ...

    @abstractmethod
    def close(self) -> None: ...


class ExtendedMemoryRedis(OlderSource):
    """What extended-memory-mcp keeps in Redis."""

    kind: ClassVar[str] = "extended-memory-redis"
    takes: ClassVar[str] = "a URL (redis://, rediss://), or a file (dump.rdb; dump.rdb#2 for its database 2)"
    service: ClassVar[str] = EXTENDED_MEMORY

    def __init__(self, location: str, options: Options, keys: _Keys) -> None:
        self._location = location
        self._options = options
        self._keys = keys

    @classmethod
    def open(cls, location: str, options: Options) -> Self:
        """The server or the file. Raises SourceError, SourceUnavailableError, InvalidInputError naming `source`."""
        if location.startswith(_URL):
            return cls(_shown(location), options, _Server(location, options))
        if not location.strip() or "\0" in location or "://" in location:
            raise InvalidInputError("source", "A source of this kind is a redis:// URL or a dump file")
        return cls(location, options, _File(location, options))

    def survey(self) -> Survey:
        """Reads all of it to count by project; see Source."""
        projects: dict[str, int] = {}
        remarks: list[str] = []
        counts = {"records": 0, "without": 0, "expiring": 0, "broken": 0, "bytes": 0}
        for identifier, held in self._keys.contexts():
            if held is None:
                continue
            found = self._found(identifier, held)
            counts["records"] += 1
            counts["bytes"] += len(held.raw)
            counts["expiring"] += held.expires_at is not None
            if isinstance(found, Quarantined):
                counts["broken"] += 1
            elif found.project is None:
                counts["without"] += 1
            else:
                projects[found.project] = projects.get(found.project, 0) + 1
        if counts["without"]:
            remarks.append(f"{counts['without']} contexts have no project")
        if counts["broken"]:
            remarks.append(f"{counts['broken']} contexts cannot be stored as they are")
        if counts["expiring"]:
            kept = "here too" if self._options.keep_ttl else "not here, where it is kept as a fact"
            remarks.append(f"{counts['expiring']} contexts expire there, {kept}")
        dangling = sum(count for _, count in self._keys.dangling())
        if dangling:
            remarks.append(f"{dangling} entries of its indexes are of contexts that expired or were deleted")
        return Survey(
            kind=self.kind,
            location=self._location,
            records=counts["records"],
            projects=projects,
            remarks=remarks + self._keys.others(),
            bytes=counts["bytes"],
        )

    def read(self) -> Iterator[Found]:
        """Every context, then the indexes that name lost ones; see Source."""
        for identifier, held in self._keys.contexts():
            if held is None:
                yield Skipped(origin=_origin(identifier), reason="The key of a context holds no text")
            else:
                yield self._found(identifier, held)
        for key, count in self._keys.dangling():
            yield Skipped(
                origin=key.decode(errors="backslashreplace"),
                reason=f"{count} of its entries are of contexts that expired or were deleted",
            )

    def token(self) -> object:
        """Of a server the count of its changes, where it tells it, of a file its size and time; see Source."""
        return self._keys.token()

    def close(self) -> None:
        """Ends the connection; see Source."""
        self._keys.close()

    def lookup(self, origin: str) -> Item | Quarantined | None:
        """The context of `context/<uuid>`; see OlderSource."""
        if not origin.startswith(ORIGIN):
            return None
        identifier = origin.removeprefix(ORIGIN)
        held = self._keys.held(identifier)
        return None if held is None else self._found(identifier.encode(), held)

    def find(self, shape: Shape, project: str | None, key: str) -> str | None:  # noqa: ARG002 - an id says it alone
        """The context of that id; see OlderSource."""
        if shape != "context" or self._keys.held(key) is None:
            return None
        return ORIGIN + key

    def writable(self) -> str | None:
        """Whether the server takes writes, or the file may be replaced; see OlderSource."""
        return self._keys.writable()

    def put_back(self, backs: Sequence[Back]) -> list[Returned]:
        """Each of them in a transaction of its own, or the whole file written anew; see OlderSource."""
        planners: list[tuple[str, _Planner]] = []
        returned: list[Returned] = []
        for back in backs:
            identifier = _minted(back) if back.origin is None else back.origin.removeprefix(ORIGIN)
            if back.content is None:
                returned.append(Returned(origin=None))
                if back.origin is not None:
                    planners.append((identifier, self._deletion(identifier)))
                continue
            lost = list(lost_in_contexts(back))
            if back.origin is None:
                lost.append(f"Its id there is {identifier}, not {back.number}")
            returned.append(Returned(origin=ORIGIN + identifier, lost=tuple(lost)))
            planners.append((identifier, self._writing(identifier, back)))
        self._keys.carry_out(planners)
        return returned

    def _found(self, identifier: bytes, held: _Held) -> Item | Quarantined:
        origin = _origin(identifier)

        def broken(code: str, reason: str) -> Quarantined:
            return Quarantined(origin=origin, code=code, reason=reason, raw=held.raw)

        try:
            name = identifier.decode()
            data = _parsed(held.raw)
        except RecursionError:
            return broken(*_TOO_DEEP)
        except ValueError as error:
            return broken("malformed", f"It is no JSON: {error}")
        if not isinstance(data, dict) or "content" not in data:
            return broken("malformed", "It is no context: an object with a member content was expected")
        if not isinstance(data.get("project_id"), str | None):
            return broken("malformed", "project_id is no text")
        importance = data.get("importance_level")
        unusual = isinstance(importance, float) and not math.isfinite(importance)
        rest = {member: part for member, part in data.items() if member != "importance_level"}
        if not unusual:
            rest["importance_level"] = _no_huge(importance)
        flaw = _flaw(rest)
        if flaw is not None:
            return broken(*flaw)
        return self._item(name, data, held.expires_at)

    def _item(self, name: str, data: dict[str, Any], expires_at: int | None) -> Item:
        notes: list[str] = []
        facts: dict[str, Any] = {LEGACY_ID: name}
        instants: dict[str, int | None] = {}
        for member in ("created_at", "updated_at"):
            instants[member], odd = _instant(data.get(member))
            if odd is not None:
                notes.append(f"{member} {odd}")
        if isinstance(data.get("created_at"), str):
            facts[LEGACY_CREATED_AT] = data["created_at"]
        if isinstance(data.get("updated_at"), str):
            facts[LEGACY_UPDATED_AT] = data["updated_at"]
        importance = data.get("importance_level")
        facts |= importance_facts(importance)
        if isinstance(importance, float) and not math.isfinite(importance):
            notes.append(f"importance_level is {importance}")
        elif _no_huge(importance) is not importance:
            notes.append("importance_level is an integer beyond 64 bits")
        told = data.get("tags")
        tags = normalised(told)
        if list(tags) != told:
            facts[LEGACY_TAGS] = told
        if not isinstance(data["content"], str):
            notes.append("content is no text")
        if data.get("id") != name:
            notes.append("Its own id is not that of its key")
        if expires_at is not None and not self._options.keep_ttl:
            facts[LEGACY_EXPIRES_AT] = to_rfc3339(expires_at)
        further = {member: part for member, part in data.items() if member not in _MEMBERS}
        if further:
            facts[LEGACY_MEMBERS] = further
        return Item(
            origin=ORIGIN + name,
            service=EXTENDED_MEMORY,
            shape="context",
            project=data.get("project_id"),
            key=name,
            value=encode(data["content"]),
            tags=tags,
            importance=clamp(importance),
            created_at=instants["created_at"],
            updated_at=instants["updated_at"],
            expires_at=expires_at if self._options.keep_ttl else None,
            facts=facts,
            notes=tuple(notes),
        )

    def _deletion(self, identifier: str) -> _Planner:
        def plan(held: _Held | None) -> _Plan | None:
            if held is None:
                return None
            with contextlib.suppress(ValueError, RecursionError):
                data = _parsed(held.raw)
                if isinstance(data, dict):
                    return _Plan(identifier, None, drop_from=_lists(data))
            return _Plan(identifier, None)

        return plan

    def _writing(self, identifier: str, back: Back) -> _Planner:
        def plan(held: _Held | None) -> _Plan | None:
            if held is None:
                return self._new(identifier, back)
            data = _parsed(held.raw)
            if not isinstance(data, dict):
                raise SourceError(self.kind, self._location, f"The context {identifier} is no object any longer")
            return self._changed(identifier, back, data, held)

        return plan

    def _new(self, identifier: str, back: Back) -> _Plan:
        again = back.origin is not None
        told = back.facts.get(LEGACY_TAGS) if again else None
        created_at = back.facts.get(LEGACY_CREATED_AT) if again else None
        data = {
            "id": identifier,
            "content": back.content,
            "importance_level": importance_back(back, ()),
            "project_id": back.project if again else normalised_project(back.project),
            "tags": told
            if told is not None and set(normalised(told)) == set(back.tags)
            else list(normalised(back.tags)),
            "created_at": created_at if isinstance(created_at, str) else _iso(back.created_at),
            "updated_at": _iso(back.updated_at),
        }
        return _Plan(
            identifier,
            _dumped(data),
            keeps_expiry=False,
            expires_at=None if back.expires_at is None else back.expires_at // _MILLISECOND,
            push_to=_lists(data),
        )

    def _changed(self, identifier: str, back: Back, data: dict[str, Any], held: _Held) -> _Plan | None:
        before = _lists(data)
        changed = dict(data)
        text = data.get("content")
        if text != back.content and (isinstance(text, str) or encode(text) != back.value):
            changed["content"] = back.content
        raw = data.get("importance_level")
        if clamp(raw) != back.importance:
            changed["importance_level"] = importance_back(back, (raw,))
        if data.get("project_id") != back.project:
            project = normalised_project(back.project)
            if project != data.get("project_id"):
                changed["project_id"] = project
        wanted = normalised(back.tags)
        if set(normalised(data.get("tags"))) != set(wanted):
            # What could not be carried stays.
            texts = [tag for tag in _each_tag(data.get("tags")) if isinstance(tag, str)]
            kept = [tag for tag in texts if set(normalised([tag])) <= set(wanted)]
            changed["tags"] = kept + [tag for tag in wanted if tag not in normalised(kept)]
        keeps_expiry = back.expires_at is None and not self._options.keep_ttl
        same_expiry = keeps_expiry or (held.expires_at or 0) // _MILLISECOND == (back.expires_at or 0) // _MILLISECOND
        unchanged = all(changed[member] is data.get(member) for member in changed)
        if unchanged and same_expiry:
            return None
        if not unchanged:
            changed["updated_at"] = _iso(back.updated_at)
        after = _lists(changed)
        return _Plan(
            identifier,
            held.raw if unchanged else _dumped(changed),
            keeps_expiry=keeps_expiry,
            expires_at=None if back.expires_at is None else back.expires_at // _MILLISECOND,
            drop_from=[key for key in before if key not in after],
            push_to=[key for key in after if key not in before],
        )


class _Server(_Keys):
    """A running server."""

    def __init__(self, url: str, options: Options) -> None:
        self._shown = _shown(url)
        self._prefix = options.prefix
        self._seen: set[bytes] = set()
        try:
            self._client: Any = redis.Redis.from_url(
                url, socket_timeout=options.timeout, socket_connect_timeout=options.timeout
            )
        except ValueError as error:
            raise InvalidInputError("source", f"It is no URL of Redis: {error}") from None
        try:
            with self._errors():
                self._client.ping()
        except SourceError:
            self._client.close()
            raise

    def contexts(self) -> Iterator[tuple[bytes, _Held | None]]:
        """By SCAN: what is there from its beginning to its end is told."""
        self._seen = set()
        start = _key(self._prefix, "context", "").encode()
        for batch in self._scanned(start):
            # SCAN may tell a key twice.
            identifiers = [key.removeprefix(start) for key in dict.fromkeys(batch)]
            identifiers = [one for one in identifiers if one not in self._seen]
            self._seen.update(identifiers)
            for first in range(0, len(identifiers), _BATCH):
                part = identifiers[first : first + _BATCH]
                yield from self._values(part, [start + one for one in part])

    def dangling(self) -> Iterator[tuple[bytes, int]]:
        for kind in ("project", "tag"):
            for batch in self._scanned(_key(self._prefix, kind, "").encode()):
                for key in dict.fromkeys(batch):
                    with self._errors():
                        if self._client.type(key) != b"list":
                            continue
                        unseen = [one for one in self._client.lrange(key, 0, -1) if one not in self._seen]
                    gone = len(unseen) - self._there(unseen)
                    if gone > 0:
                        yield key, gone

    def others(self) -> list[str]:
        ours = sum(len(set(batch)) for batch in self._scanned(f"{self._prefix}:".encode()))
        with self._errors():
            rest = self._client.dbsize() - ours
        return [f"{rest} keys of its database begin otherwise, and are left there"] if rest > 0 else []

    def held(self, identifier: str) -> _Held | None:
        for _, held in self._values([b""], [_key(self._prefix, "context", identifier).encode()]):
            return held
        return None

    def token(self) -> object:
        try:
            with self._errors():
                told = {
                    **self._client.info("server"),
                    **self._client.info("persistence"),
                    **self._client.info("replication"),
                }
        except SourceUnavailableError:
            raise
        except SourceError:
            # Some servers keep INFO to their administrators.
            return None
        names = ("run_id", "rdb_last_save_time", "rdb_changes_since_last_save", "master_repl_offset")
        if any(name not in told for name in names):
            return None
        return tuple(told[name] for name in names)

    def carry_out(self, planners: Sequence[tuple[str, _Planner]]) -> None:
        for identifier, planner in planners:
            with self._errors():
                for _ in range(_TRIES):
                    if self._once(identifier, planner):
                        break
                else:
                    raise SourceUnavailableError(
                        ExtendedMemoryRedis.kind, self._shown, f"The context {identifier} changes all the time"
                    )

    def writable(self) -> str | None:
        with self._errors():
            told = self._client.info("replication")
        return "The server is a replica" if told.get("role") == "slave" else None

    def close(self) -> None:
        self._client.close()

    def _there(self, identifiers: list[bytes]) -> int:
        """How many of them have come since."""
        start = _key(self._prefix, "context", "").encode()
        found = 0
        for first in range(0, len(identifiers), _SCAN):
            with self._errors():
                found += self._client.exists(*(start + one for one in identifiers[first : first + _SCAN]))
        return found

    def _once(self, identifier: str, planner: _Planner) -> bool:
        """Whether nobody else changed it meanwhile."""
        key = _key(self._prefix, "context", identifier).encode()
        with self._client.pipeline() as pipeline:
            pipeline.watch(key)
            plan = planner(self.held(identifier))
            if plan is None:
                return True
            pipeline.multi()
            self._queue(pipeline, key, plan)
            try:
                pipeline.execute()
            except exceptions.WatchError:
                return False
        return True

    def _queue(self, pipeline: Any, key: bytes, plan: _Plan) -> None:
        name = plan.identifier.encode()
        if plan.value is None:
            pipeline.delete(key)
        elif plan.keeps_expiry:
            pipeline.set(key, plan.value, keepttl=True)
        else:
            pipeline.set(key, plan.value)
            if plan.expires_at is not None:
                pipeline.pexpireat(key, plan.expires_at)
        for suffix in plan.drop_from:
            pipeline.lrem(f"{self._prefix}:{suffix}".encode(), 1, name)
        for suffix in plan.push_to:
            index = f"{self._prefix}:{suffix}".encode()
            pipeline.lpush(index, name)
            if plan.expires_at is None:
                # Else the context would be found no longer when its index expires.
                pipeline.persist(index)

    def _scanned(self, start: bytes) -> Iterator[list[bytes]]:
        pattern = _GLOB.sub(r"\\\1", start.decode()) + "*"
        cursor = 0
        while True:
            with self._errors():
                cursor, found = self._client.scan(cursor, match=pattern, count=_SCAN)
            yield found
            if cursor == 0:
                return

    def _values(self, names: list[bytes], keys: list[bytes]) -> Iterator[tuple[bytes, _Held | None]]:
        """What the keys hold; those that are gone are left out, and what is no text is None."""
        with self._errors(), self._client.pipeline(transaction=False) as pipeline:
            pipeline.time()
            for key in keys:
                pipeline.get(key)
                pipeline.pttl(key)
            (seconds, micros), *answers = pipeline.execute(raise_on_error=False)
        for name, value, left in zip(names, answers[::2], answers[1::2], strict=True):
            if isinstance(value, exceptions.ResponseError) and str(value).startswith("WRONGTYPE"):
                yield name, None
            elif isinstance(value, Exception) or isinstance(left, Exception):
                with self._errors():
                    raise value if isinstance(value, Exception) else left
            elif value is not None:
                # To the second: the clock has gone on by some milliseconds since it was asked.
                soon = seconds * SECOND + micros + left * _MILLISECOND
                yield name, _Held(value, round(soon / SECOND) * SECOND if left >= 0 else None)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        kind = ExtendedMemoryRedis.kind
        try:
            yield
        except (exceptions.AuthenticationError, exceptions.AuthorizationError) as error:
            raise SourceError(
                kind, self._shown, f"The server refuses: {error}", hint="redis://:PASSWORD@HOST:PORT/DB"
            ) from error
        except (exceptions.ConnectionError, exceptions.TimeoutError, exceptions.TryAgainError) as error:
            raise SourceUnavailableError(kind, self._shown, f"The server does not answer: {error}") from error
        except exceptions.RedisError as error:
            raise SourceError(kind, self._shown, f"The server refuses: {error}") from error


class _File(_Keys):
    """A dump file; one of its databases."""

    def __init__(self, location: str, options: Options) -> None:
        path, number = sqlite_file.place(location), None
        named = _DATABASE.fullmatch(location)
        if named is not None and not path.exists():
            path, number = sqlite_file.place(named[1]), int(named[2])
        self._path = path
        self._prefix = options.prefix
        self._start = _key(options.prefix, "context", "").encode()
        self._dump = rdb.Dump(path, ExtendedMemoryRedis.kind)
        self._named = number
        self._places: dict[bytes, rdb.Entry] = {}
        self._token: tuple[int, ...] = ()
        self._dump.verify()

    def contexts(self) -> Iterator[tuple[bytes, _Held | None]]:
        database = self._database()
        for entry in self._dump.entries(lambda key: key.startswith(self._start)):
            if entry.database == database and entry.key.startswith(self._start):
                yield entry.key.removeprefix(self._start), _held(entry, entry.value)

    def dangling(self) -> Iterator[tuple[bytes, int]]:
        self._index()
        indexes = tuple(_key(self._prefix, kind, "").encode() for kind in ("project", "tag"))
        database = self._database()
        for entry in self._dump.entries(lambda key: key.startswith(indexes)):
            if entry.database == database and isinstance(entry.value, list):
                gone = sum(self._start + one not in self._places for one in entry.value)
                if gone:
                    yield entry.key, gone

    def others(self) -> list[str]:
        database = self._database()
        start = f"{self._prefix}:".encode()
        strange = elsewhere = 0
        for entry in self._dump.entries(lambda _: False):
            strange += entry.database == database and not entry.key.startswith(start)
            elsewhere += entry.database != database
        told = [f"Written by version {self._dump.about['redis-ver']}"] if "redis-ver" in self._dump.about else []
        if strange:
            told.append(f"{strange} keys of its database begin otherwise, and are left there")
        if elsewhere:
            told.append(f"{elsewhere} keys are in databases other than {database}, and are left there")
        return told

    def held(self, identifier: str) -> _Held | None:
        self._index()
        entry = self._places.get(self._start + identifier.encode())
        if entry is None or entry.type != rdb.STRING:
            return None
        return _held(entry, self._dump.value(entry, self._token))

    def token(self) -> object:
        return self._dump.token()

    def carry_out(self, planners: Sequence[tuple[str, _Planner]]) -> None:
        self._index()
        token, database = self._token, self._database()
        changes: dict[tuple[int, bytes], rdb.Change] = {}
        for identifier, planner in planners:
            key = self._start + identifier.encode()
            made = changes.get((database, key))
            held = self.held(identifier)
            if made is not None:
                before = None if held is None else held.expires_at
                expires_at = before if made.keeps_expiry else _micros(made.expires_at)
                held = _Held(made.value, expires_at) if isinstance(made.value, bytes) else None
            plan = planner(held)
            if plan is None:
                continue
            expiry = plan.expires_at
            keeps = plan.keeps_expiry
            if keeps and made is not None:
                expiry, keeps = made.expires_at, made.keeps_expiry
            changes[database, key] = rdb.Change(plan.value, expiry, keeps)
            for suffix in plan.drop_from:
                self._relist(changes, database, suffix, identifier, add=False, forever=False)
            for suffix in plan.push_to:
                self._relist(changes, database, suffix, identifier, add=True, forever=plan.expires_at is None)
        if changes:
            self._dump.rewrite(changes, token)

    def writable(self) -> str | None:
        target = self._path.resolve()
        if not os.access(target, os.W_OK):
            return f"{target} may not be written"
        if not os.access(target.parent, os.W_OK | os.X_OK):
            return f"No new file may be made in {target.parent}"
        return None

    def close(self) -> None:
        self._places = {}
        self._token = ()

    def _relist(
        self,
        changes: dict[tuple[int, bytes], rdb.Change],
        database: int,
        suffix: str,
        identifier: str,
        *,
        add: bool,
        forever: bool,
    ) -> None:
        key = f"{self._prefix}:{suffix}".encode()
        made = changes.get((database, key))
        entry = self._places.get(key)
        keeps = True
        elements: list[bytes] = []
        if made is not None:
            keeps = made.keeps_expiry
            elements = made.value if isinstance(made.value, list) else []
        elif entry is not None and entry.is_list:
            found = self._dump.value(entry, self._token)
            elements = found if isinstance(found, list) else []
        name = identifier.encode()
        if add:
            elements = [name, *elements]
        elif name in elements:
            elements = [*elements]
            elements.remove(name)
        # No list is empty in Redis.
        changes[database, key] = rdb.Change(elements or None, None, keeps and not (add and forever))

    def _index(self) -> None:
        """Where each key is, as long as the file is the same."""
        token = self._dump.token()
        if token == self._token:
            return
        database = self._database()
        start = f"{self._prefix}:".encode()
        self._places = {
            entry.key: entry
            for entry in self._dump.entries(lambda _: False)
            if entry.database == database and entry.key.startswith(start)
        }
        self._token = token

    def _database(self) -> int:
        if self._named is None:
            there = {
                entry.database for entry in self._dump.entries(lambda _: False) if entry.key.startswith(self._start)
            }
            if len(there) > 1:
                raise SourceError(
                    ExtendedMemoryRedis.kind,
                    str(self._path),
                    "Several of its databases hold contexts: " + ", ".join(str(one) for one in sorted(there)),
                    hint=f"Name one of them: {self._path}#{min(there)}",
                )
            self._named = min(there, default=0)
        return self._named


def _shown(url: str) -> str:
    """Without the password."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, place, parts.path, "", ""))


def _key(prefix: str, *parts: str) -> str:
    return ":".join([prefix, *parts])


def _origin(identifier: bytes) -> str:
    return ORIGIN + identifier.decode(errors="backslashreplace")


def _micros(milliseconds: int | None) -> int | None:
    return None if milliseconds is None else milliseconds * _MILLISECOND


def _held(entry: rdb.Entry, value: rdb.Value | None) -> _Held | None:
    return _Held(value, _micros(entry.expires_at)) if isinstance(value, bytes) else None


def _whole(digits: str) -> int | str:
    """Python reads at most 4,300 digits; beyond them they stay a text."""
    try:
        return int(digits)
    except ValueError:
        return digits


def _parsed(raw: bytes) -> Any:
    """As Python's json reads it: NaN, Infinity and lone surrogates too. Raises ValueError, RecursionError."""
    return json.loads(raw.decode(), parse_int=_whole)


def _dumped(data: dict[str, Any]) -> bytes:
    return json.dumps(data).encode()


def _no_huge(value: Any) -> Any:
    """The number, or a text where no 64 bits can hold it."""
    if isinstance(value, int) and not -_INT64 <= value < 2 * _INT64:
        return str(value)
    return value


def _flaw(value: Any, depth: int = 0) -> tuple[str, str] | None:
    """Why no JSON of ours can hold it: a code of Quarantined, and a sentence."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            return "surrogate", "It holds lone surrogates, which no UTF-8 text can"
    elif isinstance(value, float):
        if not math.isfinite(value):
            return "nan", f"It holds {value}, which is no JSON"
    elif isinstance(value, int):
        if _no_huge(value) is not value:
            return "huge", "It holds an integer beyond 64 bits"
    elif isinstance(value, list | dict):
        if depth > MAX_DEPTH:
            return _TOO_DEEP
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        return next((flaw for part in parts if (flaw := _flaw(part, depth + 1)) is not None), None)
    return None


def _instant(told: Any) -> tuple[int | None, str | None]:
    """When, and what is odd about it."""
    if not isinstance(told, str):
        return None, "is no time"
    try:
        instant = from_rfc3339(told)
        odd = None if datetime.fromisoformat(told).tzinfo else "has no offset and is taken for UTC"
    except ValueError:
        return None, f"is no time: {told!r}"
    return instant, odd


def _iso(instant: int) -> str:
    """As Python's isoformat in UTC: the fraction is left out where it is 0."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant)).isoformat()


def _each_tag(tags: Any) -> list[Any]:
    return list(tags) if isinstance(tags, list | dict | str) else []


def _lists(data: dict[str, Any]) -> list[str]:
    """The index lists in which the context stands, without the prefix: of the project and of each tag, as it is spelled."""
    project = data.get("project_id")
    lists = [f"project:{project}:contexts"] if isinstance(project, str) and project else []
    for tag in _each_tag(data.get("tags")):
        if not isinstance(tag, str):
            # Their save ended there.
            break
        lists.append(f"tag:{tag}:contexts")
    return lists


def _minted(back: Back) -> str:
    """A UUID of version 4 by its looks, the same whenever the same memory is put back."""
    told = json.dumps([back.key, back.number, back.created_at]).encode()
    return str(uuid.UUID(bytes=hashlib.blake2b(told, digest_size=16).digest(), version=4))
