"""What the clients do with the past, with backups and with lines, on a real service; and streams that break."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import datetime
from typing import Any

import httpx2
import pytest

from unified_memory.client import (
    ServiceUnavailableError,
    SyncUnifiedMemoryClient,
    UnexpectedAnswerError,
    UnifiedMemoryClient,
)
from unified_memory.model import errors
from unified_memory.rest.problems import problem


# ---- history
def test_former_versions_are_listed_shown_and_brought_back(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    for number in range(4):
        client.store("a/b", {"n": number}, namespace)
    assert [one["version"] for one in client.history("a/b", namespace, limit=2)["versions"]] == [4, 3]
    heads = list(client.iterate_history("a/b", namespace, limit=2))
    assert [(one["version"], one["current"]) for one in heads] == [(4, True), (3, False), (2, False), (1, False)]
    former = client.version("a/b", 2, namespace)
    assert former["value"] == {"n": 1}
    for instant in (heads[2]["at"], datetime.fromisoformat(heads[2]["at"])):
        found = client.retrieve("a/b", namespace, as_of=instant)
        assert found is not None
        assert found["value"] == {"n": 1}
    assert client.retrieve("a/b", namespace, as_of="2020-01-01T00:00:00Z") is None
    assert client.restore_version("a/b", namespace, version=1, expected_version=4)["value"] == {"n": 0}
    client.delete("a/b", namespace)
    assert client.restore_version("a/b", namespace)["version"] == 6
    with pytest.raises(errors.VersionConflictError):
        client.restore_version("a/b", namespace, version=1, expected_version=4)


def test_what_is_redacted_is_an_error_that_says_so(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    for value in ("secret", "public"):
        client.store("k", value, namespace)
    assert client.redact("k", namespace, version=1).get("versions") == [1]
    with pytest.raises(errors.VersionGoneError) as told:
        client.version("k", 1, namespace)
    assert told.value.facts == {"namespace": namespace, "key": "k", "version": 1}
    assert client.redact("k", namespace, wait=30).get("versions") == [1, 2]
    assert client.retrieve("k", namespace) is None


def test_a_namespace_says_how_much_is_kept(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    made = client.namespaces.create(namespace, history_keep=3, history_days=1.5)
    assert made["config"] == {"history_keep": 3, "history_days": 1.5}
    assert client.namespaces.configure(namespace, history_keep=None)["config"] == {"history_keep": None}


# ---- changes
def test_changes_go_on_from_next(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    begin = client.changes(limit=1000)["next"]
    for number in range(3):
        client.store(f"k{number}", number, namespace)
    page = client.changes(begin, namespace=namespace, limit=2)
    assert [(one["kind"], one["key"]) for one in page["changes"]] == [("store", "k0"), ("store", "k1")]
    assert [one["key"] for one in client.changes(page["next"], namespace=namespace)["changes"]] == ["k2"]
    with pytest.raises(errors.InvalidInputError) as wrong:
        client.changes(10**9)
    assert wrong.value.field == "since"


def test_changes_are_followed(service_url: str, namespace: str) -> None:
    with SyncUnifiedMemoryClient(service_url) as one:
        since = one.changes(limit=1000)["next"]
        while (page := one.changes(since, limit=1000))["changes"]:
            since = page["next"]
        one.store("a", 1, namespace)
        followed = one.follow_changes(since, namespace=namespace)
        assert next(followed)["key"] == "a"
        one.store("b", 1, namespace)
        assert next(followed)["key"] == "b"
        with pytest.raises(errors.InvalidInputError):
            next(one.follow_changes(10**9))


async def test_changes_are_followed_by_a_task(service_url: str, namespace: str) -> None:
    async with UnifiedMemoryClient(service_url) as one:
        await one.store("a", 1, namespace)
        followed = one.follow_changes(0, namespace=namespace)
        assert (await anext(followed))["key"] == "a"
        coming = asyncio.ensure_future(anext(followed))
        await one.store("b", 1, namespace)
        assert (await asyncio.wait_for(coming, 20))["key"] == "b"


# ---- backups
def test_a_backup_is_made_proven_and_restored(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    client.store("k", "v", namespace)
    made: Any = client.backup(note="a test", wait=60)
    assert (made["kind"], made["note"]) == ("full", "a test")
    second: Any = client.backup(parent=made["id"], wait=60)
    assert {made["id"], second["id"]} <= {one["id"] for one in client.backups()["backups"]}
    assert client.verify_backup(second["id"], wait=60).get("ok") is True
    assert client.get_backup(second["id"])["parts"]
    client.delete("k", namespace)
    where: dict[str, Any] = {"mode": "namespace", "namespace": namespace}
    plan: Any = client.restore(second["id"], as_of=made["id"], dry_run=True, wait=60, **where)
    assert (plan["used"], plan["added"]) == (made["id"], 1)
    client.restore(second["id"], safety=False, wait=60, **where)
    assert client.retrieve("k", namespace) is not None
    with pytest.raises(errors.ConflictError) as needed:
        client.delete_backup(made["id"])
    assert needed.value.facts["needed_by"] == [second["id"]]
    for one in (second, made):
        assert client.delete_backup(one["id"])["id"] == one["id"]
    with pytest.raises(errors.BackupNotFoundError):
        client.get_backup(made["id"])
    assert client.health()["backup"]["last_at"] is None or client.backups()["backups"]


# ---- out and in
def test_lines_go_out_and_come_in(client: SyncUnifiedMemoryClient, namespace: str) -> None:
    for number in range(5):
        client.store(f"k{number}", {"n": number}, namespace)
    lines = list(client.export(namespace))
    assert [json.loads(line)["key"] for line in lines] == [f"k{number}" for number in range(5)]
    assert all(line.endswith(b"\n") for line in lines)
    told = client.import_lines(lines, into="copy")
    assert (told["stored"], told["failed"]) == (5, 0)
    assert client.import_lines([line.decode() for line in lines], into="copy")["skipped"] == 5
    mixed = client.import_lines([{"key": "new", "namespace": namespace, "value": 1}, "nonsense"], on_conflict="newer")
    assert (mixed["stored"], mixed["failed"], mixed["errors"][0]["line"]) == (1, 1, 2)
    with pytest.raises(errors.NamespaceNotFoundError):
        list(client.export(namespace + "/nowhere"))
    with pytest.raises(errors.ConflictError):
        client.import_lines([{"key": "new", "namespace": namespace, "value": 2}], on_conflict="fail")


async def test_a_task_sends_lines_as_they_are_made(service_url: str, namespace: str) -> None:
    async def lines() -> AsyncIterator[dict[str, Any]]:
        for number in range(3000):
            yield {"key": f"k{number}", "namespace": namespace, "value": "x" * 50}

    async with UnifiedMemoryClient(service_url) as one:
        assert (await one.import_lines(lines()))["stored"] == 3000
        assert len([line async for line in one.export(namespace)]) == 3000
    with SyncUnifiedMemoryClient(service_url) as other, pytest.raises(errors.InvalidInputError):
        other.import_lines(lines())


# ---- streams that break
Answer = Callable[[httpx2.Request], httpx2.Response]


def event(place: int) -> bytes:
    return b'id: %d\nevent: store\ndata: {"seq":%d}\n\n' % (place, place)


class Broken(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that breaks off, or ends, after these pieces."""

    def __init__(self, *pieces: bytes, ends: bool = False) -> None:
        self._pieces = pieces
        self._ends = ends

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces
        if not self._ends:
            raise httpx2.ReadError("cut")

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self:
            yield piece


def events(*pieces: bytes, ends: bool = False) -> httpx2.Response:
    return httpx2.Response(200, headers={"Content-Type": "text/event-stream"}, stream=Broken(*pieces, ends=ends))


class Following:
    """A client of either kind that follows."""

    def __init__(self, kind: str, answer: Answer) -> None:
        self._kind = kind
        self._transport = httpx2.MockTransport(answer)
        self.told: list[int] = []

    def follow(self, **how: Any) -> None:
        """Goes on until it fails."""
        if self._kind == "synchronous":
            with SyncUnifiedMemoryClient(transport=self._transport) as one:
                for change in one.follow_changes(**how):
                    self.told.append(change["seq"])
        else:
            asyncio.run(self._follow(**how))

    async def _follow(self, **how: Any) -> None:
        async with UnifiedMemoryClient(transport=self._transport) as one:
            async for change in one.follow_changes(**how):
                self.told.append(change["seq"])


KINDS = pytest.mark.parametrize("kind", ["asynchronous", "synchronous"])


@KINDS
def test_a_stream_that_breaks_or_ends_goes_on_where_it_was(kind: str) -> None:
    answers = [
        events(b"retry: 0\nid: 6\n\n", event(7), b'id: 8\ndata: {"se'),
        events(b"retry: 0\nid: 7\n\n", event(8), ends=True),
        events(b"retry: 0\nid: 8\n\n", event(9)),
    ]
    asked: list[str | None] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.headers.get("last-event-id"))
        if answers:
            return answers.pop(0)
        gone = problem(errors.ChangesGoneError(9, 12))
        return httpx2.Response(gone.status, headers=dict(gone.headers), content=gone.body)

    one = Following(kind, answer)
    with pytest.raises(errors.ChangesGoneError) as told:
        one.follow(since=6)
    assert (one.told, told.value.facts["oldest"]) == ([7, 8, 9], 12)
    assert asked == [None, "7", "8", "9"]


@KINDS
def test_a_stream_that_never_begins_is_an_error_at_once(kind: str) -> None:
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        raise httpx2.ConnectError("refused")

    with pytest.raises(ServiceUnavailableError):
        Following(kind, answer).follow()
    assert len(asked) == 1


@KINDS
def test_a_service_that_stays_away_is_told_after_some_attempts(kind: str) -> None:
    asked = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        if len(asked) == 1:
            return events(b"retry: 0\nid: 1\n\n", event(2))
        raise httpx2.ConnectError("refused")

    one = Following(kind, answer)
    with pytest.raises(ServiceUnavailableError, match="refused"):
        one.follow(attempts=1)
    assert (one.told, len(asked)) == ([2], 2)


@KINDS
def test_something_else_that_answers_is_no_stream(kind: str) -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, html="<html>Welcome</html>")

    with pytest.raises(UnexpectedAnswerError):
        Following(kind, answer).follow()


def test_an_export_that_breaks_off_is_an_error_and_not_an_end() -> None:
    def answer(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"Content-Type": "application/x-ndjson"}, stream=Broken(b'{"key":1}\n{"k'))

    with SyncUnifiedMemoryClient(transport=httpx2.MockTransport(answer)) as one:
        lines = one.export()
        assert next(lines) == b'{"key":1}\n'
        with pytest.raises(ServiceUnavailableError):
            next(lines)
