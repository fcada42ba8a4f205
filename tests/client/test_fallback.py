"""Both clients while the service comes and goes: where writes are kept, what reads see, and that each write is done once."""

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx2
import pytest

from tests.client.conftest import Awaited
from unified_memory.client import (
    Breaker,
    ServiceUnavailableError,
    Spool,
    SpoolError,
    SpoolFullError,
    SyncUnifiedMemoryClient,
    UnexpectedAnswerError,
    UnifiedMemoryClient,
    protocol,
)
from unified_memory.client.fallback import MOST_WITH_FALLBACK, older_key
from unified_memory.client.resilience import with_key
from unified_memory.client.spool import KEY_SECONDS
from unified_memory.model.clock import SettableClock, SystemClock
from unified_memory.model.errors import (
    InProgressError,
    InvalidInputError,
    MemoryNotFoundError,
    ReadOnlyError,
    StorageError,
    StorageFullError,
    UnifiedMemoryError,
    VersionConflictError,
)

NEVER = 3600.0
PATIENCE = 30.0


class Wire(httpx2.BaseTransport, httpx2.AsyncBaseTransport):
    """The network to the service: it is `up`, `down`, or `loses` answers. `wrote`: a POST was answered."""

    def __init__(self) -> None:
        self.state = "up"
        self.wrote = threading.Event()
        self._wire = httpx2.HTTPTransport()
        self._async_wire = httpx2.AsyncHTTPTransport()

    def _before(self, request: httpx2.Request) -> None:
        if self.state == "down":
            raise httpx2.ConnectError("down", request=request)

    def _after(self, request: httpx2.Request, response: httpx2.Response) -> httpx2.Response:
        if self.state == "loses":
            raise httpx2.ReadError("lost", request=request)
        if request.method == "POST":
            self.wrote.set()
        return response

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        self._before(request)
        response = self._wire.handle_request(request)
        response.read()
        return self._after(request, response)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self._before(request)
        response = await self._async_wire.handle_async_request(request)
        await response.aread()
        return self._after(request, response)

    def close(self) -> None:
        self._wire.close()

    async def aclose(self) -> None:
        await self._async_wire.aclose()


class Older:
    """The older service's HTTP API, as it is recorded."""

    def __init__(self) -> None:
        self.held: dict[str, Any] = {}
        self.up = True

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        if not self.up:
            raise httpx2.ConnectError("down", request=request)
        if request.method == "POST":
            body = json.loads(request.content)
            self.held[body["key"]] = body["value"]
            return httpx2.Response(
                200, json={"status": "stored", "key": body["key"], "persisted": True, "timestamp": ""}
            )
        key = unquote(request.url.raw_path.decode().removeprefix("/retrieve/"))
        if "/" in key:
            return httpx2.Response(404, json={"detail": "Not Found"})
        if key not in self.held:
            return httpx2.Response(200, json={"status": "not_found", "key": key})
        return httpx2.Response(200, json={"status": "found", "key": key, "value": self.held[key], "source": "cache"})


class World:
    """A client of the kind under test, and what is around it."""

    def __init__(self, url: str, path: Path, kind: str) -> None:
        self.url = url
        self.wire = Wire()
        self.older = Older()
        self.clock = SettableClock(SystemClock().now())
        self.spool = Spool(path / "spool.db", max_entries=20, clock=self.clock)
        self._kind = kind

    @contextmanager
    def client(self, **options: Any) -> Iterator[Any]:
        given: dict[str, Any] = {
            "transport": self.wire,
            "retries": None,
            "breaker": Breaker(1000),
            "spool": self.spool,
            "replay_every": NEVER,
            **options,
        }
        if self._kind == "synchronous":
            with SyncUnifiedMemoryClient(self.url, **given) as synchronous:
                yield synchronous
            return
        with asyncio.Runner() as runner:

            async def result(awaitable: Any) -> Any:
                return await awaitable

            made = UnifiedMemoryClient(self.url, **given)
            try:
                yield Awaited(made, lambda awaitable: runner.run(result(awaitable)))
            finally:
                runner.run(made.close())

    def with_older(self) -> Any:
        transport = httpx2.MockTransport(self.older)
        return self.client(fallback_url="http://127.0.0.1:3009", fallback_transport=transport)


def record_of(request: httpx2.Request) -> httpx2.Response:
    """What the service answers to a store."""
    body = json.loads(request.content)
    record = {"key": body["key"], "namespace": body["namespace"], "value": body["value"], "version": 1, "metadata": {}}
    return httpx2.Response(200, json=record)


def problem(status: int, code: str) -> httpx2.Response:
    told = {"status": status, "detail": "No", "code": code}
    return httpx2.Response(status, json=told, headers={"content-type": "application/problem+json"})


@pytest.fixture(params=["asynchronous", "synchronous"])
def world(request: pytest.FixtureRequest, service_url: str, tmp_path: Path) -> Iterator[World]:
    made = World(service_url, tmp_path, request.param)
    yield made
    made.spool.close()


@pytest.fixture
def truth(service_url: str) -> Iterator[SyncUnifiedMemoryClient]:
    """What the service itself says."""
    with SyncUnifiedMemoryClient(service_url) as made:
        yield made


def versions(truth: SyncUnifiedMemoryClient, key: str, namespace: str) -> list[int]:
    return [head["version"] for head in truth.iterate_history(key, namespace)]


# ---- where a write is kept
def test_the_answer_of_a_service_that_is_there_is_the_service_s(world: World, namespace: str) -> None:
    with world.with_older() as client:
        record = client.store_with_fallback("k", 1, namespace, metadata={"tags": ["x"]})
        assert (record["version"], record["metadata"]["tags"]) == (1, ["x"])
        assert client.update_with_fallback("k", namespace, value=2)["version"] == 2
        assert client.retrieve_with_fallback("k", namespace)["value"] == 2
        assert client.delete_with_fallback("k", namespace)["version"] == 2
        assert client.retrieve_with_fallback("k", namespace) is None
    assert world.older.held == {}
    assert world.spool.totals().waiting == 0


def test_a_write_goes_to_the_older_service_and_reaches_the_service_later(
    world: World, truth: SyncUnifiedMemoryClient, namespace: str
) -> None:
    with world.with_older() as client:
        world.wire.state = "down"
        assert client.store_with_fallback("a/b", [1], namespace) == {"status": "stored_in_fallback", "key": "a/b"}
        assert world.older.held == {older_key(namespace, "a/b"): [1]}
        (entry,) = world.spool.entries()
        assert entry.in_fallback
        world.wire.state = "up"
        assert client.replay() == {"replayed": 1, "failed": 0, "waiting": 0}
    record = truth.retrieve("a/b", namespace)
    assert record is not None
    assert (record["value"], record["version"]) == ([1], 1)


def test_a_write_is_cached_locally_where_nobody_else_is_there(world: World, namespace: str) -> None:
    world.wire.state, world.older.up = "down", False
    with world.with_older() as client:
        assert client.store_with_fallback("k", 1, namespace) == {"status": "cached_locally", "key": "k"}
        minted = client.store_with_fallback(value=2, namespace=namespace)["key"]
        assert client.update_with_fallback("k", namespace, value=2) == {"status": "cached_locally", "key": "k"}
        assert client.delete_with_fallback("k", namespace) == {"status": "cached_locally", "key": "k"}
    assert [(entry.kind, entry.key) for entry in world.spool.entries()] == [
        ("store", "k"),
        ("store", minted),
        ("update", "k"),
        ("delete", "k"),
    ]


def test_a_write_that_nobody_keeps_is_an_error(world: World, namespace: str) -> None:
    world.wire.state = "down"
    with world.client(spool=None) as client:
        for operation in (client.store_with_fallback, client.update_with_fallback):
            with pytest.raises(ServiceUnavailableError):
                operation("k", namespace=namespace, value=1)
        with pytest.raises(ServiceUnavailableError):
            client.delete_with_fallback("k", namespace)
        with pytest.raises(ServiceUnavailableError):
            client.retrieve_with_fallback("k", namespace)


def test_a_full_spool_refuses_also_where_the_older_service_is_there(world: World, namespace: str) -> None:
    world.wire.state = "down"
    with world.with_older() as client:
        for number in range(20):
            client.store_with_fallback(f"k{number}", number, namespace)
        with pytest.raises(SpoolFullError):
            client.store_with_fallback("more", 1, namespace)
    assert older_key(namespace, "more") not in world.older.held


def test_an_error_of_the_service_is_told_and_kept_nowhere(world: World, namespace: str) -> None:
    with world.with_older() as client:
        client.store("k", 1, namespace)
        with pytest.raises(VersionConflictError):
            client.store_with_fallback("k", 2, namespace, expected_version=7)
        with pytest.raises(InvalidInputError):
            client.store_with_fallback("k", 2, "a//b")
        with pytest.raises(MemoryNotFoundError):
            client.update_with_fallback("none", namespace, value=1)
    assert world.older.held == {}
    assert world.spool.entries() == []


def test_without_a_spool_the_older_service_keeps_it_alone(world: World, namespace: str) -> None:
    world.wire.state = "down"
    transport = httpx2.MockTransport(world.older)
    with world.client(spool=None, fallback_url="http://127.0.0.1:3009", fallback_transport=transport) as client:
        assert client.store_with_fallback("k", 1, namespace)["status"] == "stored_in_fallback"
        assert client.update_with_fallback("k", namespace, value=2)["status"] == "stored_in_fallback"
        found = client.retrieve_with_fallback("k", namespace)
        assert (found["value"], found["status"]) == (2, "found_in_fallback")
        with pytest.raises(ServiceUnavailableError):
            client.update_with_fallback("none", namespace, value=2)
        with pytest.raises(ServiceUnavailableError):
            client.retrieve_with_fallback("none", namespace)
        # It has no conditions.
        with pytest.raises(ServiceUnavailableError):
            client.store_with_fallback("l", 1, namespace, if_none_match=True)


@pytest.mark.parametrize("answer", [{}, [], None, {"status": "ok"}, {"key": "k", "namespace": "demo"}, "stored"])
def test_what_does_not_tell_of_the_memory_confirms_no_write(world: World, answer: Any) -> None:
    world.wire.state = "down"
    with world.client() as client:
        client.store_with_fallback("k", 1, "demo")
    other = httpx2.MockTransport(lambda _: httpx2.Response(200, json=answer))
    with world.client(transport=other) as client:
        with pytest.raises(UnexpectedAnswerError):
            client.replay()
        with pytest.raises(UnexpectedAnswerError):
            client.store_with_fallback("other", 1, "demo")
    assert [entry.key for entry in world.spool.entries("waiting")] == ["k"]


def test_a_write_is_handed_on_from_spool_to_spool(world: World, namespace: str) -> None:
    world.wire.state = "down"
    with world.client() as client:
        client.store_with_fallback("k", 1, namespace)
    # An application before the service.
    front = httpx2.MockTransport(lambda _: httpx2.Response(200, json={"status": "cached_locally", "key": "k"}))
    with world.client(transport=front) as client:
        assert client.replay()["replayed"] == 1
        assert client.store_with_fallback("k", 2, namespace) == {"status": "cached_locally", "key": "k"}


@pytest.mark.parametrize("wrong", [{"namespace": "a//b"}, {"key": ""}, {"key": "a\0"}])
def test_what_the_service_would_refuse_is_not_kept(world: World, wrong: dict[str, str]) -> None:
    world.wire.state = "down"
    with world.client() as client, pytest.raises(InvalidInputError):
        client.store_with_fallback(**{"key": "k", "value": 1, **wrong})
    assert world.spool.entries() == []


def test_an_error_of_the_older_service_does_not_undo_what_is_kept(world: World, namespace: str) -> None:
    world.wire.state = "down"
    older = httpx2.MockTransport(lambda _: problem(404, "not_found"))
    with world.client(fallback_url="http://127.0.0.1:3009", fallback_transport=older) as client:
        assert client.store_with_fallback("k", 1, namespace)["status"] == "cached_locally"
        with pytest.raises(ServiceUnavailableError):
            client.retrieve_with_fallback("other", namespace)


def test_a_spool_that_cannot_note_where_else_a_write_is_has_it_all_the_same(
    world: World, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.spool, "mark_in_fallback", full)
    world.wire.state = "down"
    with world.with_older() as client:
        assert client.store_with_fallback("k", 1, namespace)["status"] == "stored_in_fallback"
    assert len(world.spool.entries()) == 1


def full(_: Any) -> None:
    raise StorageFullError


def test_older_keys_can_be_taken_apart_and_never_hold_a_slash() -> None:
    places = [("a", "b/c"), ("a/b", "c"), ("a:b", "c"), ("a", "b:c"), ("a%2Fb", "c"), ("..", "?#")]
    keys = [older_key(*place) for place in places]
    assert [tuple(map(unquote, key.split(":"))) for key in keys] == places
    assert not any("/" in key for key in keys)


# ---- what reads see
def test_reads_see_what_waits(world: World, namespace: str) -> None:
    with world.client() as client:
        client.store("old", {"n": 0}, namespace, metadata={"tags": ["x"], "author": "ann"})
        client.store("gone", 1, namespace)
        world.wire.state = "down"
        client.store_with_fallback("new", {"n": 1}, namespace, metadata={"importance": 7})
        client.update_with_fallback("new", namespace, metadata={"importance": None, "author": "bob"})
        client.delete_with_fallback("gone", namespace)
        for retrieve in (client.retrieve, client.retrieve_with_fallback):
            assert retrieve("new", namespace) == {
                "key": "new",
                "namespace": namespace,
                "value": {"n": 1},
                "metadata": {"author": "bob"},
                "version": None,
                "status": "cached_locally",
            }
            assert retrieve("gone", namespace) is None
            with pytest.raises(ServiceUnavailableError):
                retrieve("old", namespace)
        client.update_with_fallback("old", namespace, value={"n": 2})
        with pytest.raises(ServiceUnavailableError):
            client.retrieve("old", namespace)
        world.wire.state = "up"
        found = client.retrieve("old", namespace)
        assert (found["value"], found["status"]) == ({"n": 2}, "cached_locally")
        assert found["metadata"]["author"] == "ann"


@pytest.mark.parametrize("answer", [{}, [], "found"])
def test_what_is_no_memory_is_no_base_for_what_waits(world: World, answer: Any) -> None:
    world.wire.state = "down"
    with world.client() as client:
        client.update_with_fallback("k", "demo", metadata={"author": "ann"})
    found = {
        "key": "k",
        "namespace": "demo",
        "value": 1,
        "metadata": {},
        "version": None,
        "status": "found_in_fallback",
    }
    other = httpx2.MockTransport(lambda _: httpx2.Response(200, json=answer))
    with world.client(transport=other) as client, pytest.raises(UnexpectedAnswerError):
        client.retrieve("k", "demo")
    # An application before the service has asked the older one.
    front = httpx2.MockTransport(lambda _: httpx2.Response(200, json=found))
    with world.client(transport=front) as client:
        seen = client.retrieve("k", "demo")
    assert (seen["value"], seen["metadata"], seen["status"]) == (1, {"author": "ann"}, "cached_locally")


# ---- order
@pytest.mark.parametrize("operation", ["store", "store_with_fallback"])
def test_writes_of_a_key_go_behind_those_that_wait(
    world: World, truth: SyncUnifiedMemoryClient, namespace: str, operation: str
) -> None:
    with world.client() as client:
        world.wire.state = "down"
        for number in range(3):
            client.store_with_fallback("k", number, namespace)
        client.store_with_fallback("other", 0, namespace)
        world.wire.state = "up"
        assert getattr(client, operation)("k", 3, namespace)["version"] == 4
        # What belongs to other keys is not waited for.
        assert [entry.key for entry in world.spool.entries()] == ["other"]
    assert [truth.version("k", number, namespace)["value"] for number in range(1, 5)] == [0, 1, 2, 3]


def test_a_write_that_may_be_kept_does_not_wait_for_all_that_is_before_it(world: World, namespace: str) -> None:
    with world.client() as client:
        world.wire.state = "down"
        for number in range(MOST_WITH_FALLBACK + 2):
            client.store_with_fallback("k", number, namespace)
        world.wire.state = "up"
        assert client.store_with_fallback("k", "last", namespace)["status"] == "cached_locally"
        assert world.spool.totals().waiting == 3
        assert client.store_with_fallback("k", "more", namespace)["version"] == MOST_WITH_FALLBACK + 4


def test_a_plain_write_fails_rather_than_overtakes(world: World, namespace: str) -> None:
    with world.client() as client:
        world.wire.state = "down"
        client.store_with_fallback("k", 1, namespace)
        with pytest.raises(ServiceUnavailableError):
            client.store("k", 2, namespace)
        with pytest.raises(ServiceUnavailableError):
            client.move("x", "y", namespace=namespace)
        assert world.spool.totals().waiting == 1


# ---- once
def test_a_write_whose_answer_was_lost_is_done_once(
    world: World, truth: SyncUnifiedMemoryClient, namespace: str
) -> None:
    with world.client() as client:
        world.wire.state = "loses"
        assert client.store_with_fallback("k", 1, namespace)["status"] == "cached_locally"
        assert versions(truth, "k", namespace) == [1]
        for _ in range(3):
            with pytest.raises(ServiceUnavailableError):
                client.replay()
        world.wire.state = "up"
        assert client.replay()["replayed"] == 1
    assert versions(truth, "k", namespace) == [1]


def test_a_write_is_not_repeated_where_the_service_may_have_forgotten_its_key(
    world: World, truth: SyncUnifiedMemoryClient, namespace: str
) -> None:
    with world.client() as client:
        world.wire.state = "loses"
        client.store_with_fallback("done", 1, namespace)
        world.wire.state = "down"
        client.store_with_fallback("new", 1, namespace)
        client.update_with_fallback("new", namespace, value=2)
        client.delete_with_fallback("new", namespace)
        client.store_with_fallback("new", 3, namespace)
        world.clock.advance(KEY_SECONDS + 60)
        world.wire.state = "up"
        assert client.replay() == {"replayed": 4, "failed": 1, "waiting": 0}
    assert versions(truth, "done", namespace) == [1]
    (failed,) = world.spool.entries("failed")
    assert failed.key == "done"
    assert failed.error is not None
    assert failed.error["facts"]["current_version"] == 1
    record = truth.retrieve("new", namespace)
    assert record is not None
    assert record["value"] == 3


def test_an_old_write_is_bound_to_what_was_there(world: World, truth: SyncUnifiedMemoryClient, namespace: str) -> None:
    truth.store("k", 1, namespace)
    with world.client() as client:
        world.clock.advance(5)
        world.wire.state = "down"
        client.store_with_fallback("k", 2, namespace)
        world.clock.advance(KEY_SECONDS + 60)
        world.wire.state = "loses"
        with pytest.raises(ServiceUnavailableError):
            client.replay()
        world.wire.state = "up"
        assert client.replay()["replayed"] == 1
    assert versions(truth, "k", namespace) == [2, 1]


# ---- replay
def test_what_is_refused_is_set_aside_and_blocks_nobody(
    world: World, truth: SyncUnifiedMemoryClient, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    with world.client() as client:
        version = client.store("k", 1, namespace)["version"]
        world.wire.state = "down"
        client.update_with_fallback("k", namespace, value=2, expected_version=version)
        client.store_with_fallback("other", 1, namespace)
        truth.store("k", "theirs", namespace)
        world.wire.state = "up"
        assert client.replay() == {"replayed": 1, "failed": 1, "waiting": 0}
        assert client.retrieve("k", namespace)["value"] == "theirs"
    (failed,) = world.spool.entries("failed")
    assert failed.error is not None
    assert failed.error["code"] == "version_conflict"
    assert "has refused write" in caplog.text


def test_a_write_that_gets_no_answer_does_not_hold_back_other_keys(
    world: World, truth: SyncUnifiedMemoryClient, namespace: str
) -> None:
    class Choosy(Wire):
        def _before(self, request: httpx2.Request) -> None:
            super()._before(request)
            if b"poison" in request.content:
                raise httpx2.ReadTimeout("slow", request=request)

    world.wire.state = "down"
    with world.client() as client:
        for key, value in (("a", "poison"), ("a", 2), ("b", 1)):
            client.store_with_fallback(key, value, namespace)
    with world.client(transport=Choosy()) as client, pytest.raises(ServiceUnavailableError):
        client.replay()
    assert [entry.key for entry in world.spool.entries("waiting")] == ["a", "a"]
    assert truth.retrieve("b", namespace) is not None
    assert truth.retrieve("a", namespace) is None


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (500, "internal_error", UnifiedMemoryError),
        (500, "storage_error", StorageError),
        (503, "schema_too_new", StorageError),
        (507, "storage_full", StorageFullError),
        (403, "read_only", ReadOnlyError),
    ],
)
def test_a_service_that_fails_has_not_refused(world: World, status: int, code: str, kind: type[Exception]) -> None:
    world.wire.state = "down"
    with world.client() as client:
        for number in range(2):
            client.store_with_fallback("k", number, "demo")
    failing = httpx2.MockTransport(lambda _: problem(status, code))
    with world.client(transport=failing) as client, pytest.raises(kind):
        client.replay()
    assert (world.spool.totals().waiting, world.spool.totals().failed) == (2, 0)


def test_what_is_too_large_for_the_way_is_set_aside(world: World) -> None:
    world.wire.state = "down"
    with world.client() as client:
        client.store_with_fallback("k", 1, "demo")
    proxy = httpx2.MockTransport(lambda _: httpx2.Response(413, text="<h1>Request Entity Too Large</h1>"))
    with world.client(transport=proxy) as client:
        assert client.replay() == {"replayed": 0, "failed": 1, "waiting": 0}


def test_some_writes_that_never_get_an_answer_do_not_hold_back_all_others(world: World) -> None:
    sent: list[str] = []

    def choosy(request: httpx2.Request) -> httpx2.Response:
        if b"poison" in request.content:
            raise httpx2.ReadTimeout("slow", request=request)
        answer = record_of(request)
        sent.append(answer.json()["key"] + str(answer.json()["value"]))
        return answer

    world.wire.state = "down"
    with world.client() as client:
        for number in range(5):
            client.store_with_fallback(f"p{number}", "poison", "demo")
        for key, value in (("p0", 2), ("a", 1), ("b", 1), ("a", 2)):
            client.store_with_fallback(key, value, "demo")
    with world.client(transport=httpx2.MockTransport(choosy)) as client:
        for _ in range(3):
            with pytest.raises(ServiceUnavailableError):
                client.replay()
    assert sent == ["a1", "b1", "a2"]
    assert world.spool.totals().waiting == 6


def test_what_is_dropped_during_a_replay_is_not_sent(world: World) -> None:
    sent: list[str] = []

    def dropping(request: httpx2.Request) -> httpx2.Response:
        answer = record_of(request)
        sent.append(answer.json()["key"])
        if sent == ["a"]:
            with Spool(world.spool.path) as other:
                other.drop(2)
        return answer

    world.wire.state = "down"
    with world.client() as client:
        for key in ("a", "b", "c"):
            client.store_with_fallback(key, 1, "demo")
    with world.client(transport=httpx2.MockTransport(dropping)) as client:
        assert client.replay()["replayed"] == 2
    assert sent == ["a", "c"]


async def test_a_client_is_closed_also_where_the_spool_cannot_give_the_turn_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = asyncio.Event()

    async def silent(request: httpx2.Request) -> httpx2.Response:
        asked.set()
        await asyncio.Event().wait()
        return record_of(request)

    with Spool(tmp_path / "spool.db") as spool:
        spool.add("store", with_key(protocol.store("k", 1)))
        monkeypatch.setattr(spool, "release", full)
        client = UnifiedMemoryClient(transport=httpx2.MockTransport(silent), spool=spool, replay_every=0.01)
        # It sees what waits, and begins the replays.
        assert await client.retrieve("k") is not None
        async with asyncio.timeout(PATIENCE):
            await asked.wait()
            await client.close()


def test_replays_begin_again_in_another_event_loop(service_url: str, tmp_path: Path, namespace: str) -> None:
    wire = Wire()
    with Spool(tmp_path / "spool.db") as spool:
        client = UnifiedMemoryClient(service_url, transport=wire, spool=spool, retries=None, replay_every=0.01)

        async def keep() -> None:
            wire.state = "down"
            await client.store_with_fallback("k", 1, namespace)

        async def come_back() -> None:
            wire.state = "up"
            await client.retrieve("k", namespace)
            assert await asyncio.to_thread(wire.wrote.wait, PATIENCE)
            await client.close()

        asyncio.run(keep())
        asyncio.run(come_back())


def test_only_one_replays(world: World, namespace: str) -> None:
    world.wire.state = "down"
    with world.client() as client:
        client.store_with_fallback("k", 1, namespace)
        assert world.spool.take("another")
        with pytest.raises(InProgressError):
            client.replay()
        world.spool.release("another")


def test_the_spool_is_replayed_in_the_background(
    service_url: str, truth: SyncUnifiedMemoryClient, tmp_path: Path, namespace: str
) -> None:
    wire, path = Wire(), tmp_path / "spool.db"
    wire.state = "down"
    with SyncUnifiedMemoryClient(service_url, transport=wire, spool=path, replay_every=0.01) as client:
        kept: Any = client.store_with_fallback("k", 1, namespace)
        assert kept["status"] == "cached_locally"
        wire.state = "up"
        assert wire.wrote.wait(PATIENCE)
    record = truth.retrieve("k", namespace)
    assert record is not None
    assert record["version"] == 1
    assert client.spool is not None
    with pytest.raises(SpoolError, match="closed"):
        client.spool.waits()


async def test_a_task_replays_the_spool_in_the_background(service_url: str, tmp_path: Path, namespace: str) -> None:
    wire, path = Wire(), str(tmp_path / "spool.db")
    wire.state = "down"
    async with UnifiedMemoryClient(service_url, transport=wire, spool=path, replay_every=0.01) as client:
        await client.store_with_fallback("k", 1, namespace)
        wire.state = "up"
        assert await asyncio.to_thread(wire.wrote.wait, PATIENCE)
        record = await client.retrieve("k", namespace)
    assert record is not None
    assert record["value"] == 1
    assert client.spool is not None
    with pytest.raises(SpoolError, match="closed"):
        client.spool.waits()


def test_a_client_without_a_spool_has_nothing_to_replay(world: World) -> None:
    with world.client(spool=None) as client, pytest.raises(InvalidInputError):
        client.replay()
