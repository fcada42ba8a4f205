"""Jobs and their streams, mode, cleanup, statistics, health."""

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.rest.asking import PREFIX, Rest, make_storage, refused, serving
from tests.rest.failing import FailingStorage
from unified_memory import __version__
from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import StorageFullError
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.jobs import Running
from unified_memory.storage.inmemory import InMemoryStorage

BOUND = 10.0


# ---- long work
async def held_job(rest: Rest) -> tuple[str, asyncio.Event]:
    """A job that goes on until the event is set."""
    go_on = asyncio.Event()

    async def work(running: Running) -> dict[str, Any]:
        await running.advance(3, 10)
        await go_on.wait()
        await running.advance(7)
        return {"expired": 10, "namespaces": {}, "purged": 0}

    job = await rest.service.jobs.start(ANONYMOUS, "cleanup", "", work)
    return job.id, go_on


async def test_long_work_that_is_not_waited_for_is_accepted_as_a_job(rest: Rest) -> None:
    for number in range(3):
        await rest.store(f"k{number}", namespace="acme")
    for method, path, body in (
        ("POST", "/update/where?wait=0", {"filter": {"id": {"gt": 0}}, "set": {"add_tags": ["t"]}}),
        ("POST", "/cleanup?wait=0", None),
        ("POST", "/delete/where?wait=0", {"filter": {"key": "k0"}}),
        ("DELETE", "/namespaces/acme?recursive=true&wait=0", None),
    ):
        answer = await rest.ask(method, path, body)
        if isinstance(rest.service.storage, InMemoryStorage) and answer.status_code == 200:
            continue  # it was done before anyone could begin to wait
        assert answer.status_code == 202, answer.text
        job = answer.json()["job"]
        assert answer.headers["location"] == f"{PREFIX}/jobs/{job['id']}"
        ended = await asyncio.wait_for(rest.service.jobs.finished(ANONYMOUS, job["id"]), BOUND)
        told = await rest.ok("GET", f"/jobs/{ended.id}")
        assert (told["state"], told["error"]) == ("done", None)
        assert told["result"]
    assert (await rest.ok("GET", "/stats"))["memories"] == 0
    assert len((await rest.ok("GET", "/jobs?state=done"))["jobs"]) == 4


async def test_a_job_tells_how_far_it_is(rest: Rest) -> None:
    job, go_on = await held_job(rest)
    await asyncio.sleep(0)
    told = await rest.ok("GET", f"/jobs/{job}")
    assert (told["state"], told["done"], told["total"], told["finished_at"]) == ("running", 3, 10, None)
    assert [one["id"] for one in (await rest.ok("GET", "/jobs?state=running"))["jobs"]] == [job]
    go_on.set()
    await rest.service.jobs.finished(ANONYMOUS, job)
    told = await rest.ok("GET", f"/jobs/{job}")
    assert (told["state"], told["done"], told["result"]["expired"]) == ("done", 10, 10)


async def test_a_job_can_be_cancelled(rest: Rest) -> None:
    job, _ = await held_job(rest)
    assert (await rest.ok("DELETE", f"/jobs/{job}"))["state"] == "cancelled"
    assert (await rest.ok("GET", f"/jobs/{job}"))["state"] == "cancelled"
    assert (await rest.ok("DELETE", f"/jobs/{job}"))["state"] == "cancelled"


async def test_a_job_whose_process_is_silent_counts_as_interrupted(rest: Rest) -> None:
    job, go_on = await held_job(rest)
    rest.clock.advance(61)
    other = make_service_beside(rest)
    told = await other.get(ANONYMOUS, job)
    assert told.state == "interrupted"
    go_on.set()
    await rest.service.jobs.finished(ANONYMOUS, job)


def make_service_beside(rest: Rest) -> Any:
    """The jobs as another process on the same storage sees them."""
    return type(rest.service.jobs)(rest.service.storage, rest.clock)


# ---- the stream
def events_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    found = re.findall(r"event: (\w+)\ndata: (.*)\n\n", text)
    assert "".join(f"event: {kind}\ndata: {data}\n\n" for kind, data in found) == text
    return [(kind, json.loads(data)) for kind, data in found]


class Stream:
    """A GET of events, spoken as a server would: what is sent can be seen while it goes on."""

    def __init__(self, rest: Rest, job: str) -> None:
        path = f"{PREFIX}/jobs/{job}/events"
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [],
        }
        self.sent: list[dict[str, Any]] = []
        self.some = asyncio.Event()
        self.left = asyncio.Event()
        self.task = asyncio.create_task(rest.application(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(dict(message))
        self.some.set()

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()


async def test_a_stream_of_events_follows_a_job_to_its_end(rest: Rest) -> None:
    job, go_on = await held_job(rest)
    await asyncio.sleep(0)
    stream = Stream(rest, job)
    await asyncio.wait_for(stream.some.wait(), BOUND)
    assert stream.sent[0]["status"] == 200
    assert (b"content-type", b"text/event-stream") in stream.sent[0]["headers"]
    go_on.set()
    await asyncio.wait_for(stream.task, BOUND)
    told = events_of(stream.text)
    assert [kind for kind, _ in told] == ["progress", "end"]
    assert [(job["state"], job["done"]) for _, job in told] == [("running", 3), ("done", 10)]
    assert told[-1][1] == await rest.ok("GET", f"/jobs/{job}")
    assert stream.sent[-1].get("more_body", False) is False


async def test_a_stream_of_a_job_that_has_ended_tells_its_end(rest: Rest) -> None:
    await rest.ok("POST", "/cleanup")
    (job,) = (await rest.ok("GET", "/jobs"))["jobs"]
    answer = await rest.ask("GET", f"/jobs/{job['id']}/events")
    assert events_of(answer.text) == [("end", job)]


async def test_a_stream_ends_when_its_reader_has_gone(rest: Rest) -> None:
    job, go_on = await held_job(rest)
    stream = Stream(rest, job)
    await asyncio.wait_for(stream.some.wait(), BOUND)
    stream.left.set()
    await asyncio.wait_for(stream.task, BOUND)
    assert (await rest.ok("GET", f"/jobs/{job}"))["state"] == "running"
    go_on.set()


async def test_a_stream_of_no_job_is_a_problem(rest: Rest) -> None:
    refused(await rest.ask("GET", "/jobs/nothing/events"), 404, "job_not_found")
    refused(await rest.ask("GET", "/jobs/nothing/events?x=1"), 422, "invalid_input", "x")


async def test_a_stream_that_cannot_be_read_is_a_problem() -> None:
    storage = FailingStorage()
    async with serving(storage, SettableClock()) as rest:
        storage.failure = StorageFullError()
        refused_status = (await rest.client.get(f"{PREFIX}/jobs/1/events")).status_code
        storage.failure = RuntimeError("ours")
        ours = await rest.ask("GET", "/jobs/1/events")
        storage.failure = None
    assert refused_status == 507
    refused(ours, 500, "internal_error")


# ---- mode
WRITES: list[tuple[str, str, Any]] = [
    ("POST", "/store", {"key": "new", "value": 1}),
    ("PUT", "/update/k", {"value": 2}),
    ("PATCH", "/update/k", {"merge": 2}),
    ("POST", "/move", {"from": {"key": "k"}, "to": {"key": "l"}}),
    ("POST", "/move", {"from": {"namespace": "default"}, "to": {"namespace": "other"}}),
    ("POST", "/store/batch", {"memories": [{"value": 1}]}),
    ("POST", "/update/where", {"filter": {"key": "k"}, "set": {"ttl": 5}}),
    ("POST", "/namespaces", {"name": "new"}),
    ("PUT", "/namespaces/default", {"max_memories": 5}),
    ("POST", "/sessions", {"id": "2"}),
]
DELETES: list[tuple[str, str, Any]] = [
    ("DELETE", "/delete/k", None),
    ("POST", "/delete/batch", {"keys": [{"key": "k"}]}),
    ("POST", "/delete/where", {"filter": {"key": "k"}}),
    ("DELETE", "/namespaces/default?recursive=true", None),
    ("DELETE", "/sessions/1?memories=delete", None),
    ("POST", "/cleanup", None),
]
READS: list[tuple[str, str, Any]] = [
    ("GET", "/retrieve/k", None), ("GET", "/list", None), ("POST", "/search", {"query": "v"}), ("POST", "/query", {}),
    ("GET", "/stats", None), ("GET", "/namespaces", None), ("GET", "/sessions/1", None), ("GET", "/health", None),
    ("POST", "/retrieve/batch", {"keys": [{"key": "k"}]}), ("GET", "/jobs", None),
]  # fmt: skip


def told_by(requests: list[tuple[str, str, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("method", "path", "body"), requests, ids=[f"{m} {p}" for m, p, _ in requests])


async def read_only(rest: Rest) -> None:
    await rest.store("k", metadata={"session_id": "1"})
    reason = {"read_only": True, "reason": "moving"}
    assert await rest.ok("PUT", "/mode", reason) == reason
    assert await rest.ok("GET", "/mode") == reason


@told_by(WRITES)
async def test_read_only_refuses_every_write(rest: Rest, method: str, path: str, body: Any) -> None:
    await read_only(rest)
    told = refused(await rest.ask(method, path, body), 403, "read_only")
    assert told["reason"] == "moving"
    stats = await rest.ok("GET", "/stats")
    assert (stats["memories"], stats["read_only"], stats["last_seq"]) == (1, "moving", 1)
    assert await rest.ok("PUT", "/mode", {"read_only": False}) == {"read_only": False, "reason": None}
    assert (await rest.ask(method, path, body)).status_code == 200


@told_by(DELETES)
async def test_read_only_lets_every_delete_through(rest: Rest, method: str, path: str, body: Any) -> None:
    await read_only(rest)
    assert (await rest.ask(method, path, body)).status_code == 200
    assert (await rest.ok("GET", "/stats"))["memories"] == (1 if path == "/cleanup" else 0)


@told_by(READS)
async def test_read_only_lets_every_read_through(rest: Rest, method: str, path: str, body: Any) -> None:
    await read_only(rest)
    assert (await rest.ask(method, path, body)).status_code == 200


@told_by(WRITES)
async def test_read_only_by_setting_refuses_alike(directory: Path, method: str, path: str, body: Any) -> None:
    clock = SettableClock()
    storage = make_storage("sqlite", directory, clock)
    async with serving(storage, clock) as rest:
        await rest.store("k")
    async with serving(make_storage("sqlite", directory, clock), clock, read_only=True) as rest:
        refused(await rest.ask(method, path, body), 403, "read_only")
        assert (await rest.ok("GET", "/mode"))["read_only"] is True
        assert (await rest.ok("GET", "/health"))["status"] == "degraded"


async def test_near_the_storage_limit_writes_stop_and_deletes_go_on(directory: Path) -> None:
    clock = SettableClock()
    async with serving(make_storage("sqlite", directory, clock), clock, storage_limit=1) as rest:
        refused(await rest.ask("POST", "/store", {"value": 1}), 507, "storage_full")
        assert (await rest.ok("POST", "/delete/batch", {"keys": [{"key": "k"}]}))["results"][0]["status"] == "not_found"
        assert (await rest.ok("GET", "/mode"))["read_only"] is True


# ---- statistics
async def test_the_statistics_add_up(rest: Rest) -> None:
    values: dict[str, list[Any]] = {"a": ["xx", "é"], "a/b": [{"n": 1}], "c": [1, 2, 3]}
    for namespace, told in values.items():
        for number, value in enumerate(told):
            await rest.store(f"k{number}", value, namespace, metadata={"tags": ["t", namespace], "session_id": "1"})
            rest.clock.advance(1)
    await rest.store("gone", 1, "c", ttl=1)
    rest.clock.advance(1)
    stats = await rest.ok("GET", "/stats")
    sizes = {
        name: sum(len(json.dumps(v, ensure_ascii=False, separators=(",", ":")).encode()) for v in told)
        for name, told in values.items()
    }
    assert (stats["memories"], stats["bytes_raw"], stats["expired"], stats["sessions"]) == (
        6,
        sum(sizes.values()),
        1,
        3,
    )
    assert {one["name"]: (one["memories"], one["bytes"]) for one in stats["namespaces"]} == {
        name: (len(values[name]), sizes[name]) for name in values
    }
    assert (stats["tiers"], stats["read_only"]) == ({"hot": 0, "warm": 6, "cold": 0}, None)
    assert stats["top_tags"][0] == {"tag": "t", "count": 6}
    assert {one["tag"]: one["count"] for one in stats["top_tags"]} == {"t": 6, "a": 2, "a/b": 1, "c": 3}
    assert (stats["oldest"], stats["newest"]) == ("2025-06-15T15:06:40.000000Z", "2025-06-15T15:06:45.000000Z")
    below = await rest.ok("GET", "/stats?namespace=a")
    assert (below["memories"], below["bytes_raw"], below["expired"], below["sessions"]) == (
        3,
        sizes["a"] + sizes["a/b"],
        0,
        2,
    )
    for name, told in values.items():
        one = await rest.ok("GET", f"/namespaces/{name}")
        assert (one["memories"], one["bytes"]) == (len(told), sizes[name])
    one = await rest.ok("GET", "/namespaces/a")
    assert (one["total_memories"], one["total_bytes"], one["namespaces"]) == (3, sizes["a"] + sizes["a/b"], 1)
    assert (await rest.ok("GET", "/stats?namespace=nothing"))["memories"] == 0


# ---- namespaces
async def test_a_namespace_with_something_in_it_goes_only_when_that_is_said(rest: Rest) -> None:
    await rest.store("k", 1, "a/b")
    await rest.store("k", 1, "a")
    told = refused(await rest.ask("DELETE", "/namespaces/a"), 409, "namespace_not_empty")
    assert (told["memories"], told["namespaces"]) == (2, 1)
    dry = await rest.ok("DELETE", "/namespaces/a?recursive=true&dry_run=true")
    assert dry == {"deleted": False, "namespace": "a", "memories": 2, "namespaces": 2, "dry_run": True}
    assert (await rest.ok("GET", "/stats"))["memories"] == 2
    assert await rest.ok("DELETE", "/namespaces/a?recursive=true") == {**dry, "deleted": True, "dry_run": False}
    refused(await rest.ask("DELETE", "/namespaces/a?recursive=true"), 404, "namespace_not_found")
    assert (await rest.store("k", 1, "a"))["version"] > 1


async def test_settings_are_inherited_from_the_nearest_that_sets_them(rest: Rest) -> None:
    await rest.ok("POST", "/namespaces", {"name": "a", "config": {"default_ttl": 60, "description": "of a"}})
    await rest.ok("POST", "/namespaces", {"name": "a/b", "config": {"max_bytes": 1000}})
    told = await rest.ok("GET", "/namespaces/a/b")
    assert told["config"] == {"max_bytes": 1000}
    assert told["effective"] == {"default_ttl": 60.0, "max_bytes": 1000}
    told = await rest.ok("PUT", "/namespaces/a/b", {"default_ttl": None})
    assert (told["config"], told["effective"]) == ({"default_ttl": None}, {"default_ttl": None})


# ---- health
async def test_health_is_ok_then_degraded_then_unavailable(rest: Rest) -> None:
    told = await rest.ok("GET", "/health")
    assert (told["status"], told["reasons"], told["version"]) == ("ok", [], __version__)
    await rest.ok("PUT", "/mode", {"read_only": True, "reason": "moving"})
    rest.clock.advance(2)
    told = await rest.ok("GET", "/health")
    assert (told["status"], told["reasons"]) == ("degraded", ["read-only: moving"])
    rest.service.upkeep.draining = True
    for path in ("/health", "/health/ready"):
        answer = await rest.ask("GET", path)
        assert (answer.status_code, answer.json()["status"]) == (503, "failing")
    assert await rest.ok("GET", "/health/live") == {"status": "ok"}


async def test_health_is_unavailable_when_nothing_can_be_written() -> None:
    storage = FailingStorage()
    async with serving(storage, SettableClock()) as rest:
        storage.failure = StorageFullError()
        answer = await rest.ask("GET", "/health/ready")
        live = await rest.ask("GET", "/health/live")
        storage.failure = None
    assert (answer.status_code, answer.json()["status"]) == (503, "failing")
    assert "storage_full" in answer.json()["reasons"][0]
    assert live.status_code == 200


async def test_a_request_of_which_the_client_thinks_better_is_not_answered(one_rest: Rest) -> None:
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    path = f"{PREFIX}/store"
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [],
    }
    await one_rest.application(scope, receive, send)
    assert sent == []


async def test_head_says_what_get_says_without_saying_it(one_rest: Rest) -> None:
    await one_rest.store("k")
    for path in ("/retrieve/k", "/list", "/health"):
        answer: httpx2.Response = await one_rest.client.head(PREFIX + path)
        assert answer.status_code == 200
