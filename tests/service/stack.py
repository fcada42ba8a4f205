"""The real stack against a model: requests through the whole application over SQLite, in any order, and after each
everything that can be seen.

Two services stand on one directory, as two processes would; requests go now to one, now to the other, and what one
has written the other is asked for.
"""

import asyncio
import itertools
import json
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlencode

import msgspec
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from msgspec import Raw, Struct, structs

from tests.service.world import DAY, MAX_NAMESPACES, Ref, Refusal, Wanted, World, patched
from unified_memory.app import App, make_app
from unified_memory.bootstrap import build
from unified_memory.model.clock import SECOND, SettableClock, to_rfc3339
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import contains
from unified_memory.model.query import matches, order_value, parse_filter, parse_order
from unified_memory.model.session import Session
from unified_memory.rest.routes import PREFIXES
from unified_memory.service.service import Service
from unified_memory.settings import Settings

T = TypeVar("T")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory in it with a name of its own

# Neighbours that a comparison of prefixes takes for one another; "acme0" follows all of "acme/…".
NAMESPACES = ("acme", "acme-corp", "acme/x", "acme/x/y", "acme0")
# Where nothing is but what was moved there.
ELSEWHERE = ("b/c", "acme/y")
KEYS = ("k", "k/l", " ü %2F?#", "日本 語&k", "K")
SESSIONS = ("1", "s/2 ü")
TAGS = ("t", "ü t", "T")
# `W` stands for a word that stands nowhere else.
VALUES = (
    '"W"',
    '{"text": "W \\u00e9é", "n": 1.50,  "items": [1, "a"], "stats": {"n": 0.1}}',
    '["W", 1E2, -0.0, {"a": true, "b": null}]',
    '{"items": ["W"], "stats": {"n": 12345678901234567890}, "text": "1"}',
    '{"b": {"deep": [[{"W": 1}]]}, "items": "none", "n": "x"}',
)
EXTRAS = ("1.50", '"ann"', '{"b":  [1, 2.0], "a": null}', "true")
FILTERS: tuple[dict[str, Any], ...] = (
    {"importance": {"gte": 5}},
    {"tags": {"contains": "t"}},
    {"key": {"startswith": "k"}},
    {"value.stats.n": {"gt": 0.1}},
    {"or": [{"value.n": 1.5}, {"value[1]": {"exists": True}}]},
    {"metadata.author": {"ne": "ann"}},
    {"session_id": "1"},
    {"and": [{"version": {"gte": 2}}, {"not": {"tags": {"exists": True}}}]},
    {"expires_at": {"exists": True}},
    {"namespace": {"in": ["acme", "acme/x"]}},
    {"value.items": {"contains": "a"}},
)
ORDERS = ("id", "key", "updated_at", "importance", "expires_at", "value.n", "namespace")

_one_in_four = st.sampled_from((False, False, False, True))
_refs = st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(KEYS))
# A place, and a number that says which of those that hold something is meant instead: see `Stack.aim`.
_aims = st.tuples(_refs, st.integers(0, 99))
_namespaces = st.sampled_from(NAMESPACES)
_session_aims = st.tuples(st.tuples(_namespaces, st.sampled_from(SESSIONS)), st.integers(0, 99))
_values = st.sampled_from(VALUES)
_ttls = st.sampled_from((..., ..., None, 0.000001, 1, 2.5, 3600))
_tags = st.lists(st.sampled_from(TAGS), max_size=3).map(tuple)
_facts = st.fixed_dictionaries(
    {},
    optional={
        "tags": _tags,
        "importance": st.sampled_from((1, 5, 10)),
        "session_id": st.sampled_from(SESSIONS),
        "project_id": st.sampled_from(("p", "q")),
        "author": st.sampled_from(EXTRAS),
        "Ärger": st.sampled_from(EXTRAS),
    },
)
_changes = st.fixed_dictionaries(
    {},
    optional={
        "tags": st.none() | _tags,
        "importance": st.sampled_from((None, 2, 9)),
        "session_id": st.sampled_from((None, *SESSIONS)),
        "project_id": st.sampled_from((None, "q")),
        "author": st.sampled_from((*EXTRAS, "null")),
        "Ärger": st.sampled_from((*EXTRAS, " null ")),
    },
)
# How a condition lies beside the current version.
_conditions = st.sampled_from(
    (*itertools.repeat("", 6), "create", "match", "stale match", "match any", "expected", "stale expected")
)
_filters = st.sampled_from(FILTERS)
_scopes = st.none() | _namespaces
_configs = st.fixed_dictionaries(
    {},
    optional={
        "default_ttl": st.sampled_from((None, 2, 60.5)),
        "max_memories": st.sampled_from((None, 1, 3)),
        "max_bytes": st.sampled_from((None, 60, 150)),
        "description": st.sampled_from((None, "of ours")),
    },
)
_OWN = ("tags", "importance", "session_id", "project_id")


class Answer(Struct):
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Record(Struct, forbid_unknown_fields=True):
    """A memory as an answer shows it, the bytes of its parts untouched."""

    id: int
    key: str
    namespace: str
    value: Raw
    metadata: dict[str, Raw]
    version: int
    tier: str


class _Records(Struct):
    memories: list[Record]
    next_cursor: str | None = None
    count: int | None = None


class _Result(Struct):
    status: str
    memory: Record | None = None


class _Results(Struct):
    results: list[_Result]


class _Hit(Struct):
    id: int
    key: str
    namespace: str


class _Hits(Struct):
    results: list[_Hit]


class Kept(Struct, frozen=True):
    """What a request with an idempotency key was, and what came of it."""

    fingerprint: tuple[Any, ...]
    answer: Answer
    until: int


class Node(Struct):
    """One of the services on the directory, and what it has gathered of accesses: how many and when last, by id."""

    service: Service
    app: App
    gathered: dict[int, tuple[int, int]]


def place(kind: str, name: str) -> str:
    """The path of something that is named in it."""
    return f"/{kind}/{quote(name, safe='/')}"


def with_words(template: str, word: str) -> bytes:
    return template.replace("W", word).encode()


def members(parts: dict[str, Any]) -> bytes:
    """A JSON object; parts that are bytes are JSON already."""
    texts = (
        json.dumps(name).encode() + b": " + (part if isinstance(part, bytes) else json.dumps(part).encode())
        for name, part in parts.items()
    )
    return b"{" + b", ".join(texts) + b"}"


def metadata_of(facts: dict[str, Any]) -> bytes:
    """The facts as a caller writes them."""
    return members({name: part if name in _OWN else part.encode() for name, part in facts.items()})


def extras(facts: dict[str, Any]) -> dict[str, bytes]:
    return {name: part.strip().encode() for name, part in facts.items() if name not in _OWN}


def ordered(memories: Iterable[Memory], by: str) -> list[Memory]:
    """In the order of a listing: by the field, then by id in the same direction; what has none comes last."""
    order = parse_order(by)
    placed = [(order_value(order, memory), memory.id, memory) for memory in memories]
    there = [one for one in placed if one[0] is not None]
    there.sort(key=lambda one: (isinstance(one[0], str), one[0], one[1]), reverse=order.descending)
    absent = sorted((one for one in placed if one[0] is None), key=lambda one: one[1], reverse=order.descending)
    return [memory for _, _, memory in (*there, *absent)]


class Stack(RuleBasedStateMachine):
    """Two services, one directory, one clock, one model."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = SettableClock()
        self.world = World()
        self.words = 0
        self.recent: list[str] = []
        self.sent: list[tuple[tuple[Any, ...], Callable[[Answer], None]]] = []
        self.kept: dict[str, Kept] = {}
        self.looks = 0
        self.turn = self.shift = 0
        self.directory = tempfile.TemporaryDirectory(
            dir=SHARED_MEMORY if SHARED_MEMORY.is_dir() else None, prefix="unified-memory-test-"
        )
        self.runner = asyncio.Runner()
        self.nodes = [self.open_node(), self.open_node()]

    def teardown(self) -> None:
        try:
            assert self.runner.run(self.node.service.upkeep.check(fix=False)) == []
        finally:
            for node in self.nodes:
                self.runner.run(node.service.close())
            self.runner.close()
            self.directory.cleanup()

    def open_node(self) -> Node:
        settings = Settings(data_dir=Path(self.directory.name), max_namespace_count=MAX_NAMESPACES, cpu_limit=1)
        service = build(settings, self.clock)
        self.runner.run(service.open())
        return Node(service, make_app(service, settings), {})

    # ---- asking

    @property
    def now(self) -> int:
        return self.clock.now()

    @property
    def node(self) -> Node:
        """The one that is asked at the moment."""
        return self.nodes[self.turn]

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None, **query: Any
    ) -> Answer:
        """One request to the node whose turn it is."""
        full = PREFIXES[0] + path
        told = [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()]
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(full),
            "raw_path": full.encode(),
            "query_string": urlencode({name: value for name, value in query.items() if value is not None}).encode(),
            "headers": [(b"content-length", b"%d" % len(body)), *told],
        }
        messages: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            messages.append(message)

        self.runner.run(self.node.app(scope, receive, send))
        start, *parts = messages
        shown = {str(name, "latin-1"): str(value, "latin-1") for name, value in start["headers"]}
        return Answer(start["status"], shown, b"".join(part["body"] for part in parts))

    def read(self, kind: type[T], method: str, path: str, body: bytes = b"", **query: Any) -> T:
        """A read that must succeed."""
        answer = self.ask(method, path, body, **query)
        assert answer.status == 200, answer.body
        return msgspec.json.decode(answer.body, type=kind)

    def change(
        self,
        method: str,
        path: str,
        body: bytes,
        check: Callable[[Answer], None],
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> None:
        """A write; one with an idempotency key may be sent again later."""
        request = (method, path, body, headers or {}, query)
        if headers and "Idempotency-Key" in headers:
            self.sent.append((request, check))
        self.send(request, check)

    def send(self, request: tuple[Any, ...], check: Callable[[Answer], None]) -> None:
        method, path, body, headers, query = request
        answer = self.ask(method, path, body, headers, **query)
        key = headers.get("Idempotency-Key")
        kept = self.kept.get(key)
        fingerprint = (method, path, body, query)
        if kept is None or kept.until <= self.now:
            check(answer)
            if key is not None and answer.status == 200:
                self.kept[key] = Kept(fingerprint, answer, self.now + DAY)
        elif kept.fingerprint != fingerprint:
            self.refused(answer, Refusal(422, "idempotency_mismatch"))
        else:
            assert answer.status == 200, answer.body
            assert without_accesses(answer.json) == without_accesses(kept.answer.json)

    def refused(self, answer: Answer, expected: Refusal) -> None:
        told = answer.json
        assert (answer.status, told.get("code")) == (expected.status, expected.code), answer.body
        assert expected.facts.items() <= told.items()

    def outcome(self, answer: Answer, act: Callable[[World], T]) -> T | None:
        """What the model says came of a request; None where it must have been refused, and was."""
        world = self.world.copy()
        try:
            expected = act(world)
        except Refusal as refusal:
            self.refused(answer, refusal)
            return None
        assert answer.status == 200, answer.body
        self.world = world
        return expected

    # ---- what answers show

    def new_word(self) -> str:
        self.words += 1
        word = f"w{self.words:04}w"
        self.recent = [*self.recent[-2:], word]
        return word

    def metadata_shown(self, memory: Memory) -> list[tuple[str, bytes]]:
        count, last = self.node.gathered.get(memory.id, (0, None))
        lasts = [one for one in (memory.last_accessed, last) if one is not None]

        def instant(told: int | None) -> bytes:
            return b"null" if told is None else json.dumps(to_rfc3339(told)).encode()

        def text(told: Any) -> bytes:
            return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()

        return [
            ("created_at", instant(memory.created_at)),
            ("updated_at", instant(memory.updated_at)),
            ("expires_at", instant(memory.expires_at)),
            ("access_count", text(memory.access_count + count)),
            ("last_accessed", instant(max(lasts, default=None))),
            ("importance", text(memory.importance)),
            ("session_id", text(memory.session_id)),
            ("project_id", text(memory.project_id)),
            ("tags", text(memory.tags)),
            *((name, bytes(raw)) for name, raw in memory.extra.items()),
        ]

    def shows(self, record: Record, memory: Memory) -> None:
        """The record is the model's memory, byte for byte."""
        assert (record.id, record.namespace, record.key) == (memory.id, memory.namespace, memory.key)
        assert bytes(record.value) == memory.value
        assert (record.version, record.tier) == (memory.version, "warm")
        assert [(name, bytes(raw)) for name, raw in record.metadata.items()] == self.metadata_shown(memory)

    def shows_one(self, answer: Answer, act: Callable[[World, int], Memory]) -> None:
        """The answer is the record that the model comes to, or its refusal."""
        record = msgspec.json.decode(answer.body, type=Record) if answer.status == 200 else None
        memory = self.outcome(answer, lambda world: act(world, record.id if record else world.highest_id + 1))
        if memory is not None:
            assert record is not None
            self.shows(record, memory)
            assert answer.headers["etag"] == f'"{memory.version}"'

    def count_access(self, memory: Memory) -> None:
        count, _ = self.node.gathered.get(memory.id, (0, 0))
        self.node.gathered[memory.id] = (count + 1, self.now)

    def aim(self, aimed: tuple[Ref, int]) -> Ref:
        """Mostly a memory that is there."""
        ref, number = aimed
        there = sorted((one.namespace, one.key) for one in self.world.seen(self.now))
        return there[number % len(there)] if number % 8 and there else ref

    def aim_at_session(self, aimed: tuple[Ref, int]) -> Ref:
        """Mostly a session that is there."""
        ref, number = aimed
        there = sorted(self.world.sessions)
        return there[number % len(there)] if number % 8 and there else ref

    # ---- conditions

    def condition(self, ref: Ref, kind: str) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        """The headers and the members of the body that say it, and what it is for the model."""
        memory = self.world.visible(ref, self.now)
        current = 0 if memory is None else memory.version
        version = max(0, current - 1) if kind.startswith("stale") else current
        match kind.removeprefix("stale "):
            case "create":
                return {"If-None-Match": "*"}, {}, {"create_only": True}
            case "match":
                return {"If-Match": f'"{version or 7}"'}, {}, {"match": version or 7}
            case "match any":
                return {"If-Match": "*"}, {}, {"match": 0}
            case "expected":
                return {}, {"expected_version": version}, {"expected": version}
            case _:
                return {}, {}, {}

    # ---- writing one

    def drafted(self, value: bytes, facts: dict[str, Any], ttl: Any, namespace: str, world: World) -> Wanted:
        """What a store asks for."""
        expires_at = (
            world.default_expiry(namespace, self.now)
            if ttl is ...
            else None
            if ttl is None
            else self.now + round(ttl * SECOND)
        )
        return Wanted(
            value,
            tuple(dict.fromkeys(facts.get("tags", ()))),
            extras(facts),
            facts.get("importance", 5),
            facts.get("session_id"),
            facts.get("project_id"),
            expires_at,
        )

    @initialize(
        values=st.lists(st.tuples(_refs, _values, _facts), min_size=4, max_size=10),
        config=st.sampled_from((None, {"max_memories": 5}, {"max_bytes": 400, "default_ttl": 60.5})),
    )
    def begin_with_some(self, values: list[tuple[Ref, str, dict[str, Any]]], config: dict[str, Any] | None) -> None:
        if config is not None:
            self.set_a_namespace("acme", config, create=True)
        for value in values:
            self.store_many([value], None)

    @rule(
        ref=_refs,
        template=_values,
        facts=_facts,
        ttl=_ttls,
        condition=_conditions,
        again=st.sampled_from((None, None, "i", "j")),
    )
    def store(
        self, ref: Ref, template: str, facts: dict[str, Any], ttl: Any, condition: str, again: str | None
    ) -> None:
        value = with_words(template, self.new_word())
        headers, more, check = self.condition(ref, condition)
        body = {"key": ref[1], "namespace": ref[0], "value": value, "metadata": metadata_of(facts), **more}
        if ttl is not ...:
            body["ttl"] = ttl
        if again:
            headers["Idempotency-Key"] = again

        def act(world: World, number: int) -> Memory:
            world.check_version(ref, self.now, **check)
            return world.write(ref, self.drafted(value, facts, ttl, ref[0], world), self.now, number)

        self.change("POST", "/store", members(body), lambda answer: self.shows_one(answer, act), headers)

    @rule(ref=_refs, template=_values, later=st.sampled_from((-SECOND, 0, 1, SECOND)))
    def store_until(self, ref: Ref, template: str, later: int) -> None:
        value = with_words(template, self.new_word())
        instant = self.now + later
        body = {"key": ref[1], "namespace": ref[0], "value": value, "expires_at": to_rfc3339(instant)}

        def act(world: World, number: int) -> Memory:
            if later <= 0:
                raise Refusal(422, "invalid_input", field="expires_at")
            return world.write(ref, Wanted(value, expires_at=instant), self.now, number)

        self.shows_one(self.ask("POST", "/store", members(body)), act)

    @rule(namespace=_namespaces, again=st.sampled_from((None, "i")))
    def store_without_a_key(self, namespace: str, again: str | None) -> None:
        value = with_words('"W"', self.new_word())

        def check(answer: Answer) -> None:
            key = answer.json.get("key", "minted")
            assert key not in KEYS

            def act(world: World, number: int) -> Memory:
                wanted = self.drafted(value, {}, ..., namespace, world)
                return world.write((namespace, key), wanted, self.now, number)

            self.shows_one(answer, act)

        headers = {"Idempotency-Key": again} if again else {}
        self.change("POST", "/store", members({"namespace": namespace, "value": value}), check, headers)

    @rule(
        aimed=_aims,
        template=st.none() | _values,
        facts=_changes,
        ttl=_ttls,
        condition=_conditions,
        again=st.sampled_from((None, None, None, "j")),
    )
    def update(
        self,
        aimed: tuple[Ref, int],
        template: str | None,
        facts: dict[str, Any],
        ttl: Any,
        condition: str,
        again: str | None,
    ) -> None:
        ref = self.aim(aimed)
        headers, more, check = self.condition(ref, condition)
        body: dict[str, Any] = {"metadata": metadata_of(facts), **more}
        value = None if template is None else with_words(template, self.new_word())
        if value is not None:
            body["value"] = value
        if ttl is not ...:
            body["ttl"] = ttl
        if again:
            headers["Idempotency-Key"] = again

        def act(world: World, number: int) -> Memory:
            memory = world.existing(ref, self.now)
            world.check_version(ref, self.now, **check)
            wanted = self.updated(memory, facts, ttl)
            return world.write(ref, structs.replace(wanted, value=value or memory.value), self.now, number)

        self.change(
            "PUT",
            place("update", ref[1]),
            members(body),
            lambda answer: self.shows_one(answer, act),
            headers,
            namespace=ref[0],
        )

    def updated(self, memory: Memory, facts: dict[str, Any], ttl: Any) -> Wanted:
        """What an update makes of a memory: null removes, what is not named stays."""
        extra = {name: bytes(raw) for name, raw in memory.extra.items()}
        for name, raw in extras(facts).items():
            if raw == b"null":
                extra.pop(name, None)
            else:
                extra[name] = raw
        return Wanted(
            memory.value,
            tuple(dict.fromkeys(facts.get("tags", memory.tags) or ())),
            extra,
            facts.get("importance", memory.importance) or 5,
            facts.get("session_id", memory.session_id),
            facts.get("project_id", memory.project_id),
            memory.expires_at if ttl is ... else None if ttl is None else self.now + round(ttl * SECOND),
        )

    @rule(
        aimed=_aims,
        merge=st.sampled_from((None, '{"text": "W", "n": null}', '{"stats": {"n": 1.0, "m": null}}', '["W"]')),
        append=st.dictionaries(
            st.sampled_from(("items", "stats.all", "")), st.sampled_from(('"W"', "1.0")), max_size=1
        ),
        increment=st.dictionaries(
            st.sampled_from(("stats.n", "n", "new.one")), st.sampled_from(("1", "0.2", "-3.50")), max_size=1
        ),
        condition=_conditions,
    )
    def patch(
        self,
        aimed: tuple[Ref, int],
        merge: str | None,
        append: dict[str, str],
        increment: dict[str, str],
        condition: str,
    ) -> None:
        ref = self.aim(aimed)
        headers, more, check = self.condition(ref, condition)
        word = self.new_word()
        merge_raw = None if merge is None else with_words(merge, word)
        elements = {path: with_words(element, word) for path, element in append.items()}
        body: dict[str, Any] = {
            "append": members(elements),
            "increment": members({path: amount.encode() for path, amount in increment.items()}),
            **more,
        }
        if merge_raw is not None:
            body["merge"] = merge_raw
        answer = self.ask("PATCH", place("update", ref[1]), members(body), headers, namespace=ref[0])

        def act(world: World, number: int) -> Memory:
            if merge_raw is None and not append and not increment:
                raise Refusal(422, "invalid_input", field="merge")
            memory = world.existing(ref, self.now)
            world.check_version(ref, self.now, **check)
            value = patched(memory.value, merge_raw, elements, increment)
            return world.write(ref, structs.replace(self.updated(memory, {}, ...), value=value), self.now, number)

        self.shows_one(answer, act)

    @rule(aimed=_aims, condition=st.sampled_from(("", "", "match", "stale match")), again=st.sampled_from((None, "d")))
    def delete(self, aimed: tuple[Ref, int], condition: str, again: str | None) -> None:
        ref = self.aim(aimed)
        headers, _, check = self.condition(ref, condition)
        if again:
            headers["Idempotency-Key"] = again

        def act(world: World) -> dict[str, Any]:
            memory = world.existing(ref, self.now)
            world.check_version(ref, self.now, **check)
            world.remove(ref)
            return {"deleted": True, **named(memory)}

        def compare(answer: Answer) -> None:
            told = self.outcome(answer, act)
            assert told is None or answer.json == told

        self.change("DELETE", place("delete", ref[1]), b"", compare, headers, namespace=ref[0])

    @rule(aimed=_aims, new=_refs, expected=st.sampled_from((None, None, "expected", "stale expected")))
    def move(self, aimed: tuple[Ref, int], new: Ref, expected: str | None) -> None:
        old = self.aim(aimed)
        _, more, check = self.condition(old, expected or "")
        body = {"from": {"namespace": old[0], "key": old[1]}, "to": {"namespace": new[0], "key": new[1]}, **more}
        answer = self.ask("POST", "/move", members(body))
        self.shows_one(answer, lambda world, _number: world.move(old, new, self.now, check.get("expected")))

    # ---- writing many

    @rule(
        items=st.lists(st.tuples(_refs, _values, _facts), min_size=1, max_size=4),
        wrong=st.sampled_from((None, None, "expected_version", "importance", "value")),
        at=st.integers(0, 3),
        again=st.sampled_from((None, None, "i")),
    )
    def store_a_batch(
        self, items: list[tuple[Ref, str, dict[str, Any]]], wrong: str | None, at: int, again: str | None
    ) -> None:
        self.store_many(items, wrong, at % len(items), again)

    def store_many(
        self, items: list[tuple[Ref, str, dict[str, Any]]], wrong: str | None, at: int = 0, again: str | None = None
    ) -> None:
        """`wrong`: what is wrong with the item `at`; then nothing of any item is stored."""
        # Which project a new session belongs to is left open where several items of one batch name it.
        told = [
            (ref, with_words(template, self.new_word()), {n: p for n, p in facts.items() if n != "project_id"})
            for ref, template, facts in items
        ]
        bodies = []
        for i, (ref, value, facts) in enumerate(told):
            body: dict[str, Any] = {"key": ref[1], "namespace": ref[0], "value": value, "metadata": metadata_of(facts)}
            if i == at and wrong == "expected_version":
                body["expected_version"] = 1_000_000
            elif i == at and wrong == "importance":
                body["metadata"] = b'{"importance": 11}'
            elif i == at and wrong == "value":
                # A lone surrogate: the body is JSON, the value cannot be kept.
                body["value"] = b'"\\ud800"'
            bodies.append(members(body))

        def act(world: World, numbers: list[int]) -> list[tuple[str, Memory]]:
            if wrong == "importance":
                raise Refusal(422, "invalid_input", field=f"memories[{at}].metadata.importance")
            if wrong == "value":
                raise Refusal(400, "malformed_input")
            stored = []
            for i, ((ref, value, facts), number) in enumerate(zip(told, numbers, strict=True)):
                before = world.visible(ref, self.now)
                world.check_version(ref, self.now, expected=1_000_000 if i == at and wrong else None)
                wanted = self.drafted(value, facts, ..., ref[0], world)
                known = number or (before.id if before else world.highest_id + 1)
                stored.append(("replaced" if before else "created", world.write(ref, wanted, self.now, known)))
            return stored

        def check(answer: Answer) -> None:
            shown = msgspec.json.decode(answer.body, type=_Results).results if answer.status == 200 else []
            numbers = [one.memory.id for one in shown if one.memory] or [0] * len(told)
            stored = self.outcome(answer, lambda world: act(world, numbers))
            for one, (status, memory) in zip(shown, stored or [], strict=True):
                assert one.status == status
                assert one.memory is not None
                self.shows(one.memory, memory)

        # What is malformed is refused before anything is looked up.
        headers = {"Idempotency-Key": again} if again and wrong in {None, "expected_version"} else {}
        self.change("POST", "/store/batch", b'{"memories": [' + b", ".join(bodies) + b"]}", check, headers)

    @rule(aims=st.lists(_aims, min_size=1, max_size=4))
    def delete_a_batch(self, aims: list[tuple[Ref, int]]) -> None:
        refs = [self.aim(one) for one in aims]
        expected: list[dict[str, Any]] = []
        world = self.world.copy()
        for ref in refs:
            memory = world.visible(ref, self.now)
            if memory is None:
                expected.append({"status": "not_found", "key": ref[1], "namespace": ref[0]})
            else:
                expected.append({"status": "deleted", **named(world.remove(ref))})
        answer = self.ask("POST", "/delete/batch", members({"keys": listed(refs)}))
        assert (answer.status, answer.json) == (200, {"results": expected})
        self.world = world

    @rule(
        where=_filters,
        namespace=_scopes,
        recursive=st.booleans(),
        dry_run=_one_in_four,
        facts=_changes,
        ttl=_ttls,
        add=_tags,
        remove=_tags,
    )
    def update_where(
        self,
        where: dict[str, Any],
        namespace: str | None,
        recursive: bool,  # noqa: FBT001 - drawn
        dry_run: bool,  # noqa: FBT001 - drawn
        facts: dict[str, Any],
        ttl: Any,
        add: tuple[str, ...],
        remove: tuple[str, ...],
    ) -> None:
        change: dict[str, Any] = {"metadata": metadata_of(facts), "add_tags": add, "remove_tags": remove}
        if ttl is not ...:
            change["ttl"] = ttl

        def act(world: World, memory: Memory) -> None:
            wanted = self.updated(memory, facts, ttl)
            tags = [*(tag for tag in wanted.tags if tag not in remove), *add]
            world.write(
                (memory.namespace, memory.key),
                structs.replace(wanted, tags=tuple(dict.fromkeys(tags))),
                self.now,
                memory.id,
            )

        self.affect("/update/where", where, namespace, act, recursive=recursive, dry_run=dry_run, set=members(change))

    @rule(where=_filters, namespace=_namespaces, recursive=st.booleans(), dry_run=_one_in_four)
    def delete_where(
        self,
        where: dict[str, Any],
        namespace: str,
        recursive: bool,  # noqa: FBT001 - drawn
        dry_run: bool,  # noqa: FBT001 - drawn
    ) -> None:
        self.affect(
            "/delete/where",
            where,
            namespace,
            lambda world, memory: void(world.remove((memory.namespace, memory.key))),
            recursive=recursive,
            dry_run=dry_run,
        )

    def affect(
        self,
        path: str,
        where: dict[str, Any],
        namespace: str | None,
        act: Callable[[World, Memory], None],
        *,
        recursive: bool,
        dry_run: bool,
        **more: bytes,
    ) -> None:
        # Without a namespace it is everything, whatever is said of recursion.
        memories = self.world.selected(
            parse_filter(where), self.now, namespace, recursive=recursive or namespace is None
        )
        body = {"filter": where, "recursive": recursive, "dry_run": dry_run, **more}
        if namespace is not None:
            body["namespace"] = namespace
        answer = self.ask("POST", path, members(body))
        assert answer.status == 200, answer.body
        assert answer.json == {
            "matched": len(memories),
            "changed": 0 if dry_run else len(memories),
            "dry_run": dry_run,
            "sample": [{"key": one.key, "namespace": one.namespace} for one in memories[:10]],
        }
        if not dry_run:
            for memory in memories:
                act(self.world, memory)

    # ---- namespaces

    @rule(name=_namespaces, config=_configs, create=st.booleans())
    def set_a_namespace(self, name: str, config: dict[str, Any], create: bool) -> None:  # noqa: FBT001 - drawn
        answer = (
            self.ask("POST", "/namespaces", members({"name": name, "config": config}))
            if create
            else self.ask("PUT", place("namespaces", name), members(config))
        )

        def act(world: World) -> bool:
            world.put_namespace(name, config, self.now, create=create)
            return True

        if self.outcome(answer, act):
            assert answer.json == self.namespace_shown(name)

    @rule(name=_namespaces, recursive=st.booleans(), dry_run=_one_in_four)
    def delete_a_namespace(self, name: str, recursive: bool, dry_run: bool) -> None:  # noqa: FBT001 - drawn
        answer = self.ask(
            "DELETE", place("namespaces", name), recursive=str(recursive).lower(), dry_run=str(dry_run).lower()
        )
        told = self.outcome(
            answer, lambda world: world.delete_namespace(name, self.now, recursive=recursive, dry_run=dry_run)
        )
        assert told is None or answer.json == told

    @rule(old=st.sampled_from((*NAMESPACES, *ELSEWHERE)), new=st.sampled_from((*NAMESPACES, *ELSEWHERE, *ELSEWHERE)))
    def move_a_namespace(self, old: str, new: str) -> None:
        answer = self.ask("POST", "/move", members({"from": {"namespace": old}, "to": {"namespace": new}}))
        moved = self.outcome(answer, lambda world: world.rename_namespace(old, new, self.now))
        assert moved is None or answer.json == {"moved": moved}

    # ---- sessions

    @rule(
        session=st.sampled_from(SESSIONS),
        namespace=_namespaces,
        cluster=st.sampled_from((None, "c")),
        ttl=st.sampled_from((None, 1, 3.5)),
    )
    def create_a_session(self, session: str, namespace: str, cluster: str | None, ttl: float | None) -> None:
        metadata = b'{"why": "W ",  "n": 1.0}'
        body = {"id": session, "namespace": namespace, "cluster_id": cluster, "ttl": ttl, "metadata": metadata}
        answer = self.ask("POST", "/sessions", members(body))
        expires_at = None if ttl is None else self.now + round(ttl * SECOND)
        made = Session(session, namespace, cluster, None, ttl, metadata, self.now, self.now, expires_at)
        self.world.put_session(made)
        assert answer.status == 200, answer.body
        assert answer.json == self.session_shown((namespace, session))

    @rule(aimed=_session_aims, scope=st.sampled_from(("session", "cluster")))
    def look_at_a_session(self, aimed: tuple[Ref, int], scope: str) -> None:
        ref = namespace, session = self.aim_at_session(aimed)
        found: list[Record] = []
        cursor = None
        while True:
            answer = self.ask(
                "GET", place("sessions", session), namespace=namespace, scope=scope, limit=2, cursor=cursor
            )

            def act(world: World) -> bool:
                world.look_at_session(ref, self.now)
                return True

            if not self.outcome(answer, act):
                return
            assert answer.json["session"] == self.session_shown(ref)
            page = msgspec.json.decode(answer.body, type=_Records)
            found += page.memories
            cursor = page.next_cursor
            if cursor is None:
                break
        cluster = self.world.sessions[ref].cluster_id
        ids = {session} | {
            one.id
            for one in self.world.sessions.values()
            if scope == "cluster" and cluster is not None and (one.namespace, one.cluster_id) == (namespace, cluster)
        }
        expected = [one for one in self.world.seen(self.now, namespace, recursive=False) if one.session_id in ids]
        for record, memory in zip(found, expected, strict=True):
            self.shows(record, memory)

    @rule(aimed=_session_aims, memories=st.sampled_from(("keep", "delete", "expire")))
    def end_a_session(self, aimed: tuple[Ref, int], memories: str) -> None:
        ref = namespace, session = self.aim_at_session(aimed)
        answer = self.ask("DELETE", place("sessions", session), namespace=namespace, memories=memories)
        affected = self.outcome(answer, lambda world: world.end_session(ref, memories, self.now))
        if affected is not None:
            told = {"session": self.session_shown(ref), "memories": memories, "affected": affected}
            assert answer.json == told

    # ---- time and the service itself

    @rule(micros=st.sampled_from((1, SECOND - 1, SECOND, 60 * SECOND)))
    def time_passes(self, micros: int) -> None:
        self.clock.instant += micros

    @precondition(lambda self: self.kept)
    @rule()
    def a_day_passes(self) -> None:
        self.clock.instant += DAY

    @rule(early=st.booleans(), pick=st.randoms(use_true_random=False))
    def time_comes_to_an_end_of_something(self, early: bool, pick: Any) -> None:  # noqa: FBT001 - drawn
        """The very instant at which a memory or a session expires, or the microsecond before."""
        ends = [one.expires_at for one in self.world.memories.values()]
        ends += [one.expires_at for one in self.world.sessions.values()]
        instants = sorted({one for one in ends if one is not None and one > self.now})
        if instants:
            self.clock.instant = pick.choice(instants) - early

    @rule()
    def clean_up(self) -> None:
        answer = self.ask("POST", "/cleanup")
        self.write_accesses()
        gone = self.world.clean_up(self.now)
        assert (answer.status, answer.json) == (
            200,
            {"expired": sum(gone.values()), "namespaces": gone, "purged": 0},
        )

    @rule()
    def the_other_one_takes_over(self) -> None:
        self.shift += 1

    @rule()
    def restart(self) -> None:
        self.runner.run(self.node.service.close())
        self.write_accesses()
        self.nodes[self.turn] = self.open_node()

    @rule()
    def flush(self) -> None:
        self.runner.run(self.node.service.upkeep.flush())
        self.write_accesses()

    def write_accesses(self) -> None:
        """What the node has gathered is in the storage; what has gone meanwhile counts nothing."""
        for ref, memory in self.world.memories.items():
            if memory.id in self.node.gathered:
                count, last = self.node.gathered[memory.id]
                self.world.memories[ref] = structs.replace(
                    memory,
                    access_count=memory.access_count + count,
                    last_accessed=max(memory.last_accessed or last, last),
                )
        self.node.gathered.clear()

    @precondition(lambda self: self.sent)
    @rule(pick=st.randoms(use_true_random=False))
    def repeat_a_request(self, pick: Any) -> None:
        self.send(*pick.choice(self.sent))

    # ---- reading

    @rule(aimed=_aims, known=st.sampled_from((0, 1, None)))
    def retrieve(self, aimed: tuple[Ref, int], known: int | None) -> None:
        """`known`: how far the version that the caller names lies behind, None where none is named."""
        ref = self.aim(aimed)
        memory = self.world.visible(ref, self.now)
        version = 0 if memory is None else memory.version
        headers = {} if known is None else {"If-None-Match": f'"{version - known}"'}
        answer = self.ask("GET", place("retrieve", ref[1]), b"", headers, namespace=ref[0])
        if memory is None:
            self.refused(answer, Refusal(404, "memory_not_found", namespace=ref[0], key=ref[1]))
            return
        self.count_access(memory)
        assert answer.headers["etag"] == f'"{version}"'
        if known == 0:
            assert (answer.status, answer.body) == (304, b"")
        else:
            assert answer.status == 200
            self.shows(msgspec.json.decode(answer.body, type=Record), memory)

    @rule(number=st.integers(0, 200), namespace=_scopes, recursive=st.booleans())
    def search_a_word(self, number: int, namespace: str | None, recursive: bool) -> None:  # noqa: FBT001 - drawn
        self.finds(f"w{number % (self.words + 1):04}w", namespace, recursive=recursive or namespace is None)

    @rule(where=_filters, namespace=_scopes, recursive=st.booleans(), by=st.sampled_from(ORDERS))
    def query(self, where: dict[str, Any], namespace: str | None, recursive: bool, by: str) -> None:  # noqa: FBT001 - drawn
        recursive = recursive or namespace is None
        body = {
            "filter": where,
            "namespace": namespace,
            "recursive": recursive,
            "order_by": by,
            "count": True,
            "limit": 4,
        }
        page = self.read(_Records, "POST", "/query", members(body))
        condition = parse_filter(where)
        expected = ordered(
            (one for one in self.world.seen(self.now, namespace or "", recursive=recursive) if matches(condition, one)),
            by,
        )
        assert page.count == len(expected)
        assert [(one.namespace, one.key) for one in page.memories] == [(one.namespace, one.key) for one in expected[:4]]

    @rule(
        wrong=st.sampled_from(
            (
                ("POST", "/store", b'{"value": 1, "key": ""}', 422, "key"),
                ("POST", "/store", b'{"value": 1, "key": "k", "namespace": "acme/"}', 422, "namespace"),
                ("POST", "/store", b'{"value": 1, "key": "k", "ttl": 0}', 422, "ttl"),
                ("POST", "/store", b'{"value": 1, "key": "k", "more": 1}', 422, "more"),
                ("POST", "/store", b'{"value": 1, "key": "k"', 400, "body"),
                ("POST", "/move", b'{"from": {"key": "k"}, "to": {}}', 422, "to.key"),
                ("POST", "/delete/where", b'{"filter": {}}', 422, "filter"),
                ("POST", "/store/batch", b'{"memories": []}', 422, "memories"),
                ("POST", "/query", b'{"limit": 1001}', 422, "limit"),
                ("GET", "/list?cursor=x", b"", 422, "cursor"),
            )
        )
    )
    def ask_something_wrong(self, wrong: tuple[str, str, bytes, int, str]) -> None:
        method, path, body, status, field = wrong
        path, _, cursor = path.partition("?cursor=")
        answer = self.ask(method, path, body, cursor=cursor or None)
        assert (answer.status, answer.json.get("field")) == (status, field), answer.body

    # ---- everything that can be seen

    @invariant()
    def all_is_as_the_model_says(self) -> None:
        """What one has written the other shows, and the other writes next: each knows only from the files what was done."""
        self.looks += 1
        self.turn = self.looks % 2
        self.retrieves_all()
        self.lists_all()
        self.counts()
        self.tells_namespaces()
        self.tells_sessions()
        self.tells_totals()
        for word in self.recent:
            self.finds(word, None, recursive=True)
        self.turn = (self.looks // 2 + self.shift) % 2

    def retrieves_all(self) -> None:
        refs = sorted({*itertools.product(NAMESPACES, KEYS), *self.world.memories})
        results = self.read(_Results, "POST", "/retrieve/batch", members({"keys": listed(refs)})).results
        for ref, result in zip(refs, results, strict=True):
            memory = self.world.visible(ref, self.now)
            assert (result.status, result.memory is None) == (
                "not_found" if memory is None else "found",
                memory is None,
            )
            if memory is not None and result.memory is not None:
                self.count_access(memory)
                self.shows(result.memory, memory)

    def lists_all(self) -> None:
        by = ORDERS[self.looks % len(ORDERS)]
        scope = (None, *NAMESPACES)[self.looks % (len(NAMESPACES) + 1)]
        for order in (by, "-" + by):
            expected = ordered(self.world.seen(self.now, scope or ""), order)
            found: list[Record] = []
            cursor = None
            while True:
                page = self.read(_Records, "GET", "/list", namespace=scope, order_by=order, limit=5, cursor=cursor)
                found += page.memories
                cursor = page.next_cursor
                if cursor is None:
                    break
                assert len(page.memories) == 5
            for record, memory in zip(found, expected, strict=True):
                self.shows(record, memory)

    def counts(self) -> None:
        where = FILTERS[self.looks % len(FILTERS)]
        condition = parse_filter(where)
        page = self.read(_Records, "POST", "/query", members({"filter": where, "count": True, "limit": 1}))
        assert page.count == len(self.world.selected(condition, self.now))

    def finds(self, word: str, namespace: str | None, *, recursive: bool) -> None:
        body = {"query": word, "namespace": namespace, "recursive": recursive}
        hits = self.read(_Hits, "POST", "/search", members(body)).results
        assert sorted(one.id for one in hits) == [
            one.id
            for one in self.world.seen(self.now, namespace or "", recursive=recursive)
            if word.encode() in one.value
        ]

    def namespace_shown(self, name: str) -> dict[str, Any]:
        space = self.world.spaces[name]
        own = self.world.seen(self.now, name, recursive=False)
        below = self.world.seen(self.now, name)
        return {
            "name": name,
            "config": space.config,
            "effective": self.world.effective(name),
            "created_at": to_rfc3339(space.created_at),
            "explicit": space.explicit,
            "memories": len(own),
            "bytes": sum(len(one.value) for one in own),
            "total_memories": len(below),
            "total_bytes": sum(len(one.value) for one in below),
            "namespaces": sum(contains(name, one) for one in self.world.spaces) - 1,
        }

    def tells_namespaces(self) -> None:
        told = self.read(dict[str, Any], "GET", "/namespaces", limit=1000)
        assert told == {
            "namespaces": [self.namespace_shown(name) for name in sorted(self.world.spaces)],
            "next_cursor": None,
        }

    def session_shown(self, ref: Ref) -> dict[str, Any]:
        one = self.world.session(ref, self.now)

        def instant(told: int | None) -> str | None:
            return None if told is None else to_rfc3339(told)

        return {
            "id": one.id,
            "namespace": one.namespace,
            "cluster_id": one.cluster_id,
            "project_id": one.project_id,
            "ttl": one.ttl,
            "state": "active" if one.active(self.now) else "ended" if one.ended_at is not None else "expired",
            "memories": one.memories,
            "metadata": json.loads(one.metadata),
            "created_at": instant(one.created_at),
            "last_used": instant(one.last_used),
            "expires_at": instant(one.expires_at),
            "ended_at": instant(one.ended_at),
        }

    def tells_sessions(self) -> None:
        sessions: list[dict[str, Any]] = []
        cursor = None
        while True:
            told = self.read(dict[str, Any], "GET", "/sessions", limit=4, cursor=cursor)
            sessions += told["sessions"]
            cursor = told["next_cursor"]
            if cursor is None:
                break
        used = [one["last_used"] for one in sessions]
        assert used == sorted(used, reverse=True)
        shown = {(one["namespace"], one["id"]): one for one in sessions}
        assert len(shown) == len(sessions)
        assert shown == {ref: self.session_shown(ref) for ref in self.world.sessions}

    def tells_totals(self) -> None:
        scope = (None, *NAMESPACES)[self.looks % (len(NAMESPACES) + 1)]
        told = self.read(dict[str, Any], "GET", "/stats", namespace=scope)
        seen = self.world.seen(self.now, scope or "")
        stored = [one for one in self.world.memories.values() if contains(scope or "", one.namespace)]
        tags = [tag for one in seen for tag in one.tags]
        spaces: dict[str, list[int]] = {}
        for one in seen:
            spaces.setdefault(one.namespace, []).append(len(one.value))
        created = [one.created_at for one in seen]
        assert (told["memories"], told["bytes_raw"]) == (len(seen), sum(len(one.value) for one in seen))
        assert told["expired"] == len(stored) - len(seen)
        assert told["sessions"] == sum(contains(scope or "", ref[0]) for ref in self.world.sessions)
        assert told["tiers"] == {"hot": 0, "warm": len(seen), "cold": 0}
        assert told["top_tags"] == [
            {"tag": tag, "count": tags.count(tag)} for tag in sorted(set(tags), key=lambda tag: (-tags.count(tag), tag))
        ]
        assert {one["name"]: (one["memories"], one["bytes"]) for one in told["namespaces"] if one["memories"]} == {
            name: (len(sizes), sum(sizes)) for name, sizes in spaces.items()
        }
        assert (told["oldest"], told["newest"]) == (
            (to_rfc3339(min(created)), to_rfc3339(max(created))) if created else (None, None)
        )


def listed(refs: Iterable[Ref]) -> list[dict[str, str]]:
    return [{"namespace": namespace, "key": key} for namespace, key in refs]


def named(memory: Memory) -> dict[str, Any]:
    return {"key": memory.key, "namespace": memory.namespace, "id": memory.id, "version": memory.version}


def void(_result: object) -> None:
    """Drops a result."""


def without_accesses(told: Any) -> Any:
    """An answer without what changes by reading."""
    if isinstance(told, dict):
        return {
            name: without_accesses(part) for name, part in told.items() if name not in {"access_count", "last_accessed"}
        }
    return [without_accesses(part) for part in told] if isinstance(told, list) else told
