"""Callers that do everything at once, each knowing what every answer must be."""

import random
from collections.abc import Callable
from typing import Any, Protocol

from tests.faults.clients import GoneError, Reply
from tests.faults.ledger import GONE, Ledger, Ref, State, state_of

OWN_KEYS = 4
BATCH = 5
NAMESPACES = ("acme/web", "acme/api")
COUNTER = "counter"
CONTENDED = "contended"
PAGE = 1000
WORDS = [
    "fern",
    "gravel",
    "harbour",
    "ink",
    "juniper",
    "kettle",
    "lantern",
    "meadow",
    "needle",
    "orchard",
    "pebble",
    "quilt",
]


FULL = 507


class FullError(Exception):
    """The server has no room, and has not done it."""


class Asks(Protocol):
    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        """Sends a request below the prefix and waits for the answer. Raises GoneError where the server went away."""
        ...


class Connection(Asks, Protocol):
    """A connection to the service."""

    async def close(self) -> None:
        """Drops the connection."""


class Bench:
    """What all callers of all rounds share: the ledger, and the two keys that all of them write."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.ledger = Ledger()
        self.stamps = 0
        self.wins: dict[int, str] = {}
        self.increments_sent: set[str] = set()
        self.increments_known: set[str] = set()
        self.watch: Callable[[], None] = lambda: None

    def stamp(self) -> str:
        """Something that no one has stored before."""
        self.stamps += 1
        return f"stamp {self.stamps}"

    def value(self) -> dict[str, Any]:
        """A value of many sizes, from a part of a page to some pages."""
        words = self.rng.choices(WORDS, k=self.rng.choice((1, 5, 20)))
        return {"stamp": self.stamp(), "text": " ".join(words), "rest": "-" * self.rng.choice((0, 100, 1_000, 20_000))}

    def acknowledged(self) -> None:
        self.watch()


class Caller:
    """One connection that does one thing after the other with keys of its own, and some with those of all."""

    def __init__(self, bench: Bench, number: int, client: Connection) -> None:
        self._bench = bench
        self._name = f"caller {number}"
        self._client = client
        self._keys: list[Ref] = [(namespace_of(i), f"{self._name}/key/{i}") for i in range(OWN_KEYS)]
        self._batch: list[Ref] = [(namespace_of(i), f"{self._name}/batch/{i}") for i in range(BATCH)]

    async def run(self) -> None:
        """Goes on until the server is gone or full."""
        ways = (
            (self._store, 4),
            (self._store_batch, 3),
            (self._refused_batch, 1),
            (self._update, 4),
            (self._delete, 2),
            (self._delete_batch, 1),
            (self._move, 1),
            (self._mint, 1),
            (self._contend, 2),
            (self._increment, 1),
        )
        try:
            while True:
                (way,) = self._bench.rng.choices([way for way, _ in ways], weights=[weight for _, weight in ways])
                await way()
        except (GoneError, FullError):
            return
        finally:
            await self._client.close()

    async def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Reply:
        reply = await self._client.ask(method, path, body, **headers)
        if reply.status == FULL:
            assert reply.body["code"] == "storage_full", reply
            raise FullError
        return reply

    async def _operate(
        self, would_be: dict[Ref, State], method: str, path: str, body: Any = None, **headers: str
    ) -> Any:
        number = self._bench.ledger.begin(would_be)
        try:
            reply = await self.ask(method, path, body, **headers)
        except FullError:
            self._bench.ledger.refuse(number)
            raise
        assert reply.status == 200, reply
        self._bench.ledger.confirm(number)
        self._bench.acknowledged()
        return reply.body

    def _there(self, refs: list[Ref]) -> list[Ref]:
        return [ref for ref in refs if self._bench.ledger.state(ref).there]

    def _next(self, ref: Ref) -> tuple[State, dict[str, Any]]:
        """What a store of that key will come to, and its request."""
        tags = tuple(self._bench.rng.sample(WORDS, self._bench.rng.randint(0, 3)))
        state = State(self._bench.ledger.state(ref).version + 1, self._bench.value(), tags)
        return state, {"namespace": ref[0], "key": ref[1], "value": state.value, "metadata": {"tags": tags}}

    async def _store(self) -> None:
        ref = self._bench.rng.choice(self._keys)
        state, request = self._next(ref)
        if self._bench.rng.random() < 0.2:
            request["metadata"]["session_id"] = self._name
        record = await self._operate({ref: state}, "POST", "/store", request)
        assert state_of(record) == state

    async def _store_batch(self) -> None:
        made = {ref: self._next(ref) for ref in self._bench.rng.sample(self._batch, BATCH)}
        would_be = {ref: state for ref, (state, _) in made.items()}
        answer = await self._operate(
            would_be, "POST", "/store/batch", {"memories": [request for _, request in made.values()]}
        )
        assert [state_of(result["memory"]) for result in answer["results"]] == list(would_be.values())

    async def _refused_batch(self) -> None:
        made = {ref: self._next(ref)[1] for ref in self._batch}
        made[self._batch[-1]]["expected_version"] = self._bench.ledger.state(self._batch[-1]).version + 1
        reply = await self.ask("POST", "/store/batch", {"memories": list(made.values())})
        assert reply.status == 409, reply

    async def _update(self) -> None:
        for ref in self._bench.rng.sample(self._there(self._keys), min(1, len(self._there(self._keys)))):
            before = self._bench.ledger.state(ref)
            state = State(before.version + 1, self._bench.value(), before.tags)
            path, body = f"/update/{quoted(ref[1])}?namespace={ref[0]}", {"value": state.value}
            stale = await self.ask("PUT", path, body, If_Match=f'"{before.version + 1}"')
            assert (stale.status, stale.body["current_version"]) == (412, before.version)
            record = await self._operate({ref: state}, "PUT", path, body, If_Match=f'"{before.version}"')
            assert state_of(record) == state

    async def _delete(self) -> None:
        for ref in self._there(self._keys)[:1]:
            version = self._bench.ledger.state(ref).version
            path = f"/delete/{quoted(ref[1])}?namespace={ref[0]}"
            answer = await self._operate({ref: State(version, GONE)}, "DELETE", path)
            assert answer["version"] == version

    async def _delete_batch(self) -> None:
        there = self._there(self._batch)
        would_be = {ref: State(self._bench.ledger.state(ref).version, GONE) for ref in there}
        keys = [{"namespace": namespace, "key": key} for namespace, key in self._batch]
        answer = await self._operate(would_be, "POST", "/delete/batch", {"keys": keys})
        assert [result["status"] == "deleted" for result in answer["results"]] == [
            ref in would_be for ref in self._batch
        ]

    async def _move(self) -> None:
        there = self._there(self._keys)
        free = [ref for ref in self._keys if ref not in there]
        if not there or not free:
            return
        source, target = self._bench.rng.choice(there), self._bench.rng.choice(free)
        before = self._bench.ledger.state(source)
        moved = State(max(before.version, self._bench.ledger.state(target).version) + 1, before.value, before.tags)
        body = {end: {"namespace": ref[0], "key": ref[1]} for end, ref in (("from", source), ("to", target))}
        record = await self._operate({source: State(before.version, GONE), target: moved}, "POST", "/move", body)
        assert state_of(record) == moved

    async def _mint(self) -> None:
        value = self._bench.value()
        reply = await self.ask("POST", "/store", {"value": value})
        assert reply.status == 200, reply
        number = self._bench.ledger.begin({("default", reply.body["key"]): State(1, value)})
        self._bench.ledger.confirm(number)
        self._bench.acknowledged()

    async def _contend(self) -> None:
        held = await self._client.ask("GET", f"/retrieve/{CONTENDED}")
        version, stamp = held.body["version"], self._bench.stamp()
        reply = await self.ask("PUT", f"/update/{CONTENDED}", {"value": stamp}, If_Match=held.headers["etag"])
        if reply.status == 412:
            assert reply.body["current_version"] > version
            return
        assert (reply.status, reply.body["version"]) == (200, version + 1), reply
        assert version + 1 not in self._bench.wins, "Two callers have won one version"
        self._bench.wins[version + 1] = stamp
        self._bench.acknowledged()

    async def _increment(self) -> None:
        once = self._bench.stamp()
        self._bench.increments_sent.add(once)
        try:
            await increment(self, once)
        except FullError:
            self._bench.increments_sent.remove(once)
            raise
        self._bench.increments_known.add(once)
        self._bench.acknowledged()


def namespace_of(number: int) -> str:
    """Half of the keys in either namespace."""
    return NAMESPACES[number % len(NAMESPACES)]


def quoted(key: str) -> str:
    """A key as a part of a path."""
    return key.replace(" ", "%20")


async def increment(client: Asks, once: str) -> None:
    """Adds 1 to the counter, once however often this is asked."""
    body = {"increment": {"n": 1}}
    reply = await client.ask("PATCH", f"/update/{COUNTER}", body, Idempotency_Key=once)
    assert reply.status == 200, reply


async def what_is_there(client: Asks, refs: list[Ref]) -> dict[Ref, State]:
    """The states of those keys that are there."""
    found: dict[Ref, State] = {}
    for at in range(0, len(refs), PAGE):
        keys = [{"namespace": namespace, "key": key} for namespace, key in refs[at : at + PAGE]]
        reply = await client.ask("POST", "/retrieve/batch", {"keys": keys})
        assert reply.status == 200, reply
        records = [result["memory"] for result in reply.body["results"] if result["status"] == "found"]
        found |= {(record["namespace"], record["key"]): state_of(record) for record in records}
    return found


async def prepare(bench: Bench, client: Asks) -> None:
    """Stores the two keys that all write."""
    bench.wins[1] = bench.stamp()
    assert (await client.ask("POST", "/store", {"key": CONTENDED, "value": bench.wins[1]})).status == 200
    assert (await client.ask("POST", "/store", {"key": COUNTER, "value": {"n": 0}})).status == 200


async def look_after(bench: Bench, client: Asks) -> None:
    """Holds what was acknowledged against what the service has."""
    bench.ledger.settle(await what_is_there(client, bench.ledger.refs()))

    contended = (await client.ask("GET", f"/retrieve/{CONTENDED}")).body
    top = max(bench.wins, default=1)
    assert contended["version"] >= top
    assert contended["version"] > top or contended["value"] == bench.wins[top]
    bench.wins[contended["version"]] = contended["value"]

    # Whether an unanswered increment was done no one knows; asked again it must have been done exactly once.
    for once in sorted(bench.increments_sent - bench.increments_known):
        await increment(client, once)
    bench.increments_known |= bench.increments_sent
    counter = (await client.ask("GET", f"/retrieve/{COUNTER}")).body
    assert counter["value"]["n"] == len(bench.increments_sent)
