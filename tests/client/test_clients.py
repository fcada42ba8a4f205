"""Every operation of both clients on a real service."""

import asyncio
import inspect
import re
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from unified_memory import client as package
from unified_memory.client import (
    ServiceUnavailableError,
    SyncUnifiedMemoryClient,
    UnexpectedAnswerError,
    UnifiedMemoryClient,
    protocol,
)
from unified_memory.client.connection import options
from unified_memory.model import errors

HOSTILE = [
    "..",
    ".",
    "a//b",
    "/a",
    "a/",
    "a/../b",
    "//",
    "a b",
    "ä/漢字",
    "?x=1#y",
    "100%",
    "%2F",
    "batch",
    "where",
    '"',
    "\\",
]


# ---- the door
def test_the_public_names_are_these() -> None:
    assert package.__all__ == [
        "UNSET",
        "Breaker",
        "BreakerState",
        "Retries",
        "ServiceUnavailableError",
        "Spool",
        "SpoolError",
        "SpoolFullError",
        "SyncUnifiedMemoryClient",
        "UnexpectedAnswerError",
        "UnifiedMemoryClient",
    ]


def operations(part: Any) -> dict[str, str]:
    return {
        name: str(inspect.signature(found)).replace("AsyncIterator", "Iterator")
        for name, found in inspect.getmembers(part, callable)
        if not name.startswith("_")
    }


async def test_both_clients_have_the_same_operations() -> None:
    async with UnifiedMemoryClient() as one:
        with SyncUnifiedMemoryClient() as other:
            assert operations(one) == operations(other)
            assert operations(one.namespaces) == operations(other.namespaces)
            assert operations(one.sessions) == operations(other.sessions)


def test_help_shows_what_an_operation_takes() -> None:
    with SyncUnifiedMemoryClient() as one:
        told = inspect.signature(one.retrieve)
    assert list(told.parameters) == ["key", "namespace", "include_search_index", "as_of"]
    assert (SyncUnifiedMemoryClient.store.__doc__ or "").startswith("Stores a whole record")


async def test_every_call_of_the_protocol_is_an_operation() -> None:
    public = {
        name: found for name, found in vars(protocol).items() if inspect.isfunction(found) and not name.startswith("_")
    }
    calls = {
        name
        for name, found in public.items()
        if re.search("Call|Listing|Flow", str(inspect.signature(found).return_annotation))
    }
    async with UnifiedMemoryClient() as one:
        parts = [type(one), type(one.namespaces), type(one.sessions)]
    made_of = {
        found.__wrapped__.__name__ for part in parts for found in vars(part).values() if hasattr(found, "__wrapped__")
    }
    # `fetch` is `retrieve` for whoever wants the error.
    assert calls - made_of == {"fetch"}


# ---- memories
def test_a_memory_goes_and_comes(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    value = {"name": "vim", "since": 1998.5, "none": None, "big": 2**80, "漢": ["\U0001f600", True]}
    stored = client.store("editor", value, namespace, 3600, {"tags": ["x"], "importance": 7, "author": "ann"})
    record = client.retrieve("editor", namespace)
    assert record is not None
    assert record["value"] == value
    assert list(record["value"]) == list(value)
    assert record["version"] == stored["version"] == 1
    metadata = record["metadata"]
    assert (metadata["tags"], metadata["importance"], metadata["author"]) == (["x"], 7, "ann")
    assert metadata["expires_at"] > metadata["created_at"]


def test_a_missing_memory_is_none_and_deleting_it_an_error(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    assert client.retrieve("nothing", namespace) is None
    for operation in (client.delete, client.update):
        with pytest.raises(errors.MemoryNotFoundError) as told:
            operation("nothing", namespace)
        assert told.value.facts == {"namespace": namespace, "key": "nothing"}


@pytest.mark.parametrize("key", HOSTILE)
def test_a_hostile_key_works_in_every_operation(client: SyncUnifiedMemoryClient, key: str) -> None:
    assert client.store(key, 1, "hostile")["key"] == key
    record = client.retrieve(key, "hostile")
    assert record is not None
    assert record["key"] == key
    assert client.update(key, "hostile", value={"n": 1})["value"] == {"n": 1}
    assert client.patch(key, "hostile", increment={"n": 2})["value"] == {"n": 3}
    assert client.delete(key, "hostile")["key"] == key
    assert client.retrieve(key, "hostile") is None


def test_a_bad_namespace_is_an_error_and_not_a_missing_memory(client: SyncUnifiedMemoryClient) -> None:
    with pytest.raises(errors.InvalidInputError) as told:
        client.retrieve("k", "a//b")
    assert told.value.field == "namespace"


def test_a_store_without_a_key_gets_one(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    record = client.store(value="x", namespace=namespace)
    found = client.retrieve(record["key"], namespace)
    assert found is not None
    assert found["id"] == record["id"]


def test_preconditions_hold(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    client.store("k", 1, namespace)
    with pytest.raises(errors.AlreadyExistsError) as exists:
        client.store("k", 2, namespace, if_none_match=True)
    assert exists.value.precondition
    with pytest.raises(errors.VersionConflictError) as conflict:
        client.store("k", 2, namespace, expected_version=7)
    assert not conflict.value.precondition
    assert conflict.value.facts["current_version"] == 1
    with pytest.raises(errors.VersionConflictError):
        client.update("k", namespace, value=2, expected_version=7)
    with pytest.raises(errors.VersionConflictError) as conflict:
        client.delete("k", namespace, expected_version=7)
    assert conflict.value.precondition
    assert client.delete("k", namespace, expected_version=1)["deleted"]


def test_a_repeated_request_with_its_idempotency_key_does_nothing_more(
    client: SyncUnifiedMemoryClient, namespace: str
) -> None:
    one = client.store("k", 1, namespace, idempotency_key=namespace.encode("ascii", "ignore").decode())
    again = client.store("k", 1, namespace, idempotency_key=namespace.encode("ascii", "ignore").decode())
    assert one["version"] == again["version"] == 1


def test_update_changes_what_is_named(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    stored = client.store("k", {"a": 1}, namespace, ttl=60, metadata={"tags": ["x"], "author": "ann"})
    changed = client.update("k", namespace, metadata={"author": None, "importance": 9})
    assert changed["value"] == {"a": 1}
    assert changed["metadata"]["expires_at"] == stored["metadata"]["expires_at"]
    assert "author" not in changed["metadata"]
    assert client.update("k", namespace, ttl=None)["metadata"]["expires_at"] is None
    assert client.update("k", namespace, value=None)["value"] is None


def test_patch_changes_from_inside(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    client.store("k", {"items": [1], "n": 1, "gone": 1}, namespace)
    client.patch("k", namespace, merge={"gone": None})
    assert client.patch("k", namespace, append={"items": 2}, increment={"n": 2})["value"] == {"items": [1, 2], "n": 3}
    with pytest.raises(errors.ConflictError):
        client.patch("k", namespace, append={"n": 1})


def test_a_memory_moves_and_a_namespace_does(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    client.store("a", 1, namespace)
    assert client.move("a", "b", namespace=namespace)["key"] == "b"
    assert client.move("b", namespace=namespace, to_namespace=namespace + " two")["namespace"] == namespace + " two"
    assert client.namespaces.move(namespace + " two", namespace + " three") == {"moved": 1}
    assert client.retrieve("b", namespace + " three") is not None


def test_batches_keep_their_order(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    stored = client.store_batch([{"key": key, "value": key, "namespace": namespace} for key in "abc"])
    assert [(one["status"], one["memory"]["key"]) for one in stored] == [("created", key) for key in "abc"]
    found = client.retrieve_batch(["c", "x", "a"], namespace)
    assert [one["status"] for one in found] == ["found", "not_found", "found"]
    assert found[0]["memory"]["value"] == "c"
    gone = client.delete_batch([{"key": "a", "namespace": namespace}, "x"], namespace)
    assert [one["status"] for one in gone] == ["deleted", "not_found"]


def test_changes_by_filter_tell_what_they_did(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    client.store_batch([{"key": str(i), "value": {"n": i}, "namespace": namespace} for i in range(6)])
    told = client.update_where({"value.n": {"gte": 3}}, add_tags=["high"], namespace=namespace, dry_run=True)
    assert (told.get("matched"), told.get("changed"), told.get("dry_run")) == (3, 0, True)
    told = client.update_where({"value.n": {"gte": 3}}, add_tags=["high"], namespace=namespace)
    assert told.get("changed") == 3
    told = client.delete_where({"metadata.tags": {"contains": "high"}}, namespace=namespace, wait=5)
    assert told.get("changed") == 3
    assert [one["key"] for one in client.list(namespace=namespace)["memories"]] == ["0", "1", "2"]


# ---- finding
def test_pages_are_iterated_to_their_end(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    client.store_batch(
        [
            {"key": f"k{i}", "value": f"walnut {i}", "namespace": namespace, "metadata": {"session_id": "s"}}
            for i in range(7)
        ]
    )
    keys = {f"k{i}" for i in range(7)}
    assert len(client.list(namespace=namespace, limit=3)["memories"]) == 3
    assert [one["key"] for one in client.iterate(namespace=namespace, limit=3)] == sorted(keys)
    assert {hit["key"] for hit in client.iterate_search("walnut", namespace=namespace, limit=2)} == keys
    rows = client.iterate_query(namespace=namespace, select=["key"], limit=3)
    assert {row["key"] for row in rows} == keys
    memories = client.sessions.iterate_memories("s", namespace=namespace, limit=2)
    assert [one["key"] for one in memories] == sorted(keys)
    assert [one["id"] for one in client.sessions.iterate(namespace=namespace, limit=1)] == ["s"]
    assert namespace in [one["name"] for one in client.namespaces.iterate(prefix="test", limit=1)]


def test_search_ranks_and_query_counts(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    client.store("a", "the quick brown fox", namespace, metadata={"tags": ["x"], "importance": 9})
    client.store("b", "a fox", namespace)
    hits = client.search("fox", namespace=namespace, tags=["x"], importance_min=8)["results"]
    assert [hit["key"] for hit in hits] == ["a"]
    assert hits[0]["score"] > 0
    assert "fox" in hits[0]["snippet"]
    told = client.query({"metadata.importance": {"gte": 1}}, namespace=namespace, count=True, group_by="importance")
    assert told["count"] == 2
    assert {group["value"]: group["count"] for group in told["groups"]} == {9: 1, 5: 1}
    with pytest.raises(errors.InvalidInputError) as wrong:
        client.query({"nonsense": 1}, namespace=namespace)
    assert wrong.value.field


def test_a_search_is_narrowed_ranked_explained_and_shortened(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    client.store("old", "Deploy on Fridays only.", namespace, metadata={"importance": 1})
    client.store("new", "deploy on fridays only", namespace)
    client.store("long", "Never deploy at night. " * 100, namespace)
    page = client.search(
        "deploy fridays",
        namespace=namespace,
        since=datetime(2020, 1, 1, tzinfo=UTC),
        min_score=0.01,
        mode="fulltext",
        rank={"recency_half_life": "30d", "importance": 0.5},
        explain=True,
        collapse=True,
        content="passages",
    )
    assert [(hit["key"], hit.get("duplicates")) for hit in page["results"]] == [("new", 1), ("long", 0)]
    new, long = page["results"]
    assert (new["value"], long["value"]) == ("deploy on fridays only", None)
    assert long["passages"][0]["text"].startswith("Never deploy")
    assert new.get("explain", {})["importance"] == 1
    assert (page["mode"], page["corrected"]) == ("fulltext", {})
    assert client.search("fridys", namespace=namespace)["corrected"] == {"fridys": "fridays"}
    assert client.search("deploy", namespace=namespace, until="2 days ago")["results"] == []
    with pytest.raises(errors.InvalidInputError) as wrong:
        client.search("deploy", since="nonsense")
    assert wrong.value.field == "since"


def test_what_is_like_a_memory_and_what_to_be_reminded_of(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    client.store("a", "Ship the release on Friday", namespace, metadata={"session_id": "s"})
    client.store("b", "The release was shipped by ann", namespace)
    client.store("c", "The milk was shipped", namespace)
    like = [hit["key"] for hit in client.iterate_similar("a", namespace, namespace=namespace, limit=1)]
    assert like == ["b", "c"]
    assert [hit["key"] for hit in client.similar(text="milk?", namespace=namespace)["results"]] == ["c"]
    messages: list[Any] = ["Hello", {"role": "user", "content": "When do we release?"}]
    told = client.recall(messages, namespace=namespace)
    assert [(hit["key"], hit.get("message")) for hit in told["results"]] == [("a", 1), ("b", 1)]
    others = client.recall(messages, namespace=namespace, exclude_session="s", limit=1, max_tokens=200)
    assert [hit["key"] for hit in others["results"]] == ["b"]
    with pytest.raises(errors.MemoryNotFoundError):
        client.similar("gone", namespace)
    with pytest.raises(errors.EmptyQueryError):
        client.recall(["…"])
    wrong: Any
    for wrong in ("When do we release?", {"role": "user", "content": "When do we release?"}):
        with pytest.raises(errors.InvalidInputError, match="list of messages"):
            client.recall(wrong)


def test_a_walk_through_results_that_do_not_fit_misses_none(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    for i in range(12):
        client.store(f"k{i:02}", f"release {i} " + "and much more " * (40 * i), namespace)
    keys = [f"k{i:02}" for i in range(12)]
    for walk in (
        client.iterate_search("release", namespace=namespace, limit=5, max_tokens=400),
        client.iterate_search("release", namespace=namespace, limit=5, since="last week", min_score=0.01, explain=True),
        client.iterate_search("release", namespace=namespace, limit=5, collapse=True, content="none"),
        client.iterate_similar(text="the release", namespace=namespace, limit=5, content="passages"),
    ):
        assert sorted(hit["key"] for hit in walk) == keys


def test_every_option_narrows_what_is_searched_liked_and_recalled(
    client: SyncUnifiedMemoryClient, namespace: str
) -> None:
    below = f"{namespace}/below"
    about = {"tags": ["t"], "importance": 9, "session_id": "s", "project_id": "p"}
    client.store("a", "one release", below, metadata=about)
    client.store("b", "a release of a kind", namespace)
    options: dict[str, tuple[dict[str, Any], list[str]]] = {
        "nothing": ({}, ["a", "b"]),
        "not below": ({"recursive": False}, ["b"]),
        "tags": ({"tags": ["t"]}, ["a"]),
        "importance": ({"importance_min": 9}, ["a"]),
        "session": ({"session_id": "s"}, ["a"]),
        "project": ({"project_id": "p"}, ["a"]),
        "time": ({"until": datetime(2020, 1, 1, tzinfo=UTC)}, []),
        "words of time": ({"since": "tomorrow"}, []),
        "filter": ({"filter": {"key": "b"}}, ["b"]),
        "score": ({"min_score": 0.99}, []),
        "page": ({"limit": 1, "rank": {"importance": 1}}, ["a"]),
        "budget": ({"max_tokens": 150, "rank": {"importance": 1}}, ["a"]),
    }
    for name, (more, keys) in options.items():
        for page in (
            client.search("release", namespace=namespace, **more),
            client.similar(text="the release", namespace=namespace, **more),
            client.recall(["the release"], namespace=namespace, **more),
        ):
            assert sorted(hit["key"] for hit in page["results"]) == keys, name


# ---- namespaces, sessions, the service
def test_namespaces_are_managed(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    made = client.namespaces.create(namespace, default_ttl=60, description="tests")
    assert made["config"] == {"default_ttl": 60, "description": "tests"}
    with pytest.raises(errors.AlreadyExistsError):
        client.namespaces.create(namespace)
    assert client.namespaces.configure(namespace, max_memories=1)["config"] == {"max_memories": 1}
    client.store("k", 1, namespace)
    with pytest.raises(errors.QuotaExceededError):
        client.store("l", 1, namespace)
    assert client.namespaces.get(namespace)["memories"] == 1
    assert [one["name"] for one in client.namespaces.list(prefix=namespace)["namespaces"]] == [namespace]
    with pytest.raises(errors.NamespaceNotEmptyError):
        client.namespaces.delete(namespace)
    assert client.namespaces.delete(namespace, recursive=True, dry_run=True).get("memories") == 1
    assert client.namespaces.delete(namespace, recursive=True).get("deleted")
    with pytest.raises(errors.NamespaceNotFoundError):
        client.namespaces.get(namespace)


def test_sessions_are_managed(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    made = client.sessions.create("a/b c", namespace=namespace, cluster_id="c", ttl=60, metadata={"agent": "x"})
    assert (made["id"], made["state"], made["metadata"]) == ("a/b c", "active", {"agent": "x"})
    client.store("k", 1, namespace, metadata={"session_id": "a/b c"})
    assert [one["key"] for one in client.sessions.get("a/b c", namespace=namespace, scope="cluster")["memories"]] == [
        "k"
    ]
    assert [one["id"] for one in client.sessions.list(namespace=namespace, active=True)["sessions"]] == ["a/b c"]
    assert client.sessions.end("a/b c", namespace=namespace, memories="delete")["affected"] == 1
    assert client.retrieve("k", namespace) is None
    with pytest.raises(errors.SessionNotFoundError):
        client.sessions.get("nothing", namespace=namespace)


def test_values_are_archived_and_brought_back(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    below = f"{namespace}/below"
    client.store("k", "value", namespace)
    client.store("k", "another value", below)
    moved = {"namespace": namespace, "recursive": True, "dry_run": False, "memories": 2, "bytes": 22}
    before = client.tiers()
    assert client.archive(namespace, dry_run=True) == {**moved, "dry_run": True}
    assert client.archive(namespace) == moved
    assert [one["tier"] for one in client.list(namespace=namespace)["memories"]] == ["cold", "cold"]
    now = client.tiers()
    assert now["cold"]["memories"] == before["cold"]["memories"] + 2
    assert now["demotions"] == before["demotions"] + 2
    assert client.query({"value": "value"}, namespace=namespace).get("cold_read")
    assert client.recall_archived(namespace, recursive=False, dry_run=True).get("memories") == 1
    assert client.recall_archived(namespace, recursive=False).get("memories") == 1
    assert [one["tier"] for one in client.list(namespace=namespace)["memories"]] == ["warm", "cold"]
    assert client.recall_archived(below, wait=60).get("memories") == 1
    client.tier_pass()
    assert client.tiers()["cold"]["memories"] == before["cold"]["memories"]
    with pytest.raises(errors.NamespaceNotFoundError):
        client.archive("nothing")


def test_a_namespace_says_when_its_values_are_archived(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    assert client.namespaces.create(namespace, demote_after=3600)["config"] == {"demote_after": 3600}
    assert client.namespaces.get(namespace)["effective"].get("demote_after") == 3600
    assert client.namespaces.configure(namespace, demote_after=None)["config"] == {"demote_after": None}
    assert client.namespaces.configure(namespace)["config"] == {}


def test_the_service_tells_of_itself(client: SyncUnifiedMemoryClient) -> None:
    assert client.health()["status"] == "ok"
    assert client.stats()["memories"] >= 0
    assert client.stats("nowhere")["memories"] == 0
    assert client.cleanup().get("expired") == 0
    assert client.schema()["openapi"].startswith("3.1")
    job = next(iter(client.iterate_jobs(limit=2)))
    assert job["kind"] == client.job(job["id"])["kind"]
    assert client.jobs(state="done", limit=1)["jobs"]
    assert client.cancel_job(job["id"])["state"] == "done"
    with pytest.raises(errors.JobNotFoundError):
        client.job("nothing")


def test_writes_are_switched_off_and_on(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    try:
        assert client.set_read_only(reason="test") == {"read_only": True, "reason": "test"}
        assert client.read_only()["read_only"]
        with pytest.raises(errors.ReadOnlyError):
            client.store("k", 1, namespace)
    finally:
        assert client.set_read_only(read_only=False) == {"read_only": False, "reason": None}


# ---- what goes wrong on the way
@pytest.fixture
def silent_url() -> str:
    """Where nothing listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


async def test_a_service_that_is_not_there_is_told(silent_url: str) -> None:
    with (
        SyncUnifiedMemoryClient(silent_url) as one,
        pytest.raises(ServiceUnavailableError, match="does not answer") as told,
    ):
        one.retrieve("k")
    assert told.value.facts == {"url": silent_url}
    async with UnifiedMemoryClient(silent_url) as other:
        with pytest.raises(ServiceUnavailableError):
            await other.retrieve("k")


def test_a_service_that_does_not_answer_in_time_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        with SyncUnifiedMemoryClient(url, timeout=0.05) as one, pytest.raises(ServiceUnavailableError, match=r"[Tt]im"):
            one.health()


def test_waiting_for_long_work_is_no_time_out() -> None:
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.extensions["timeout"]["read"])
        return httpx2.Response(200, json={"expired": 0, "namespaces": {}, "purged": 0})

    with SyncUnifiedMemoryClient(timeout=2, transport=httpx2.MockTransport(answer)) as one:
        one.cleanup(wait=60)
        one.cleanup()
    assert seen == [62, 2]


def test_headers_are_sent_with_every_request() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, json={"status": "ok", "told": request.headers["x-team"]})

    transport = httpx2.MockTransport(answer)
    with SyncUnifiedMemoryClient(headers={"X-Team": "a"}, transport=transport) as one:
        assert dict(one.health())["told"] == "a"


def test_another_program_at_the_url_is_told() -> None:
    transport = httpx2.MockTransport(lambda _request: httpx2.Response(200, html="<html>Welcome</html>"))
    with SyncUnifiedMemoryClient(transport=transport) as one, pytest.raises(UnexpectedAnswerError) as told:
        one.list()
    assert told.value.facts["excerpt"] == "<html>Welcome</html>"


@pytest.mark.parametrize(
    "url", ["127.0.0.1:3200", "ftp://x", "http://", "http://x:port", "http://x/?q=1", "nonsense", ""]
)
def test_what_is_no_url_is_refused_at_once(url: str) -> None:
    with pytest.raises(errors.InvalidInputError) as told:
        SyncUnifiedMemoryClient(url)
    assert told.value.field == "url"


def test_a_path_before_the_service_stays() -> None:
    seen = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.url.raw_path)
        return httpx2.Response(200, json={"key": "k"})

    with SyncUnifiedMemoryClient("https://example.org/memory/", transport=httpx2.MockTransport(answer)) as one:
        one.retrieve("../x")
    assert seen == [b"/memory/api/v1/memory/retrieve/%2E%2E%2Fx?namespace=default"]


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://127.0.0.1:3200", False),
        ("http://[::1]:3200", False),
        ("http://localhost", False),
        ("http://memory.example.org", True),
        ("http://10.0.0.1", True),
    ],
)
def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(url: str, *, asked: bool) -> None:
    assert options(url, None, 1.0)["trust_env"] is asked


async def test_many_tasks_share_one_client(service_url: str) -> None:
    async with UnifiedMemoryClient(service_url) as one:
        stored = await asyncio.gather(*(one.store(f"k{i}", i, "tasks") for i in range(50)))
        assert sorted(record["value"] for record in stored) == list(range(50))


def test_the_client_loads_neither_service_nor_storage() -> None:
    source = Path(package.__file__).parent
    text = "".join(path.read_text() for path in source.glob("*.py"))
    assert not any(f"unified_memory.{part}" in text for part in ("service", "storage", "settings", "rest", "bootstrap"))


def test_raw_json_survives_both_ways(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    client.store("k", msgspec.Raw(b'{"a":1.10,"a":2,"e":1E400}'), namespace)
    record = client.retrieve("k", namespace)
    assert record is not None
    assert str(record["value"]["e"]) == "1E+400"
    again = client.store("again", record["value"]["e"], namespace)
    assert again["value"] == record["value"]["e"]
