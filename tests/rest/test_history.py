"""Former versions over REST, and the feed of changes as a list and as server-sent events."""

import asyncio
import json
import re
from typing import Any

import pytest

from tests.rest.asking import PREFIX, Rest, escaped, refused
from unified_memory.rest.application import RestApplication

BOUND = 20.0
NAMED = {"key": "k", "namespace": "acme"}
AT = "/history/k?namespace=acme"


async def three_versions(rest: Rest) -> list[str]:
    """A memory that was changed twice, a minute apart; when each version was written."""
    written = []
    for value in (1, {"n": 2}, "three"):
        told = await rest.store("k", value, "acme", metadata={"tags": ["t"], "author": "ann"})
        written.append(told["metadata"]["updated_at"])
        rest.clock.advance(60)
    return written


# ---- versions
async def test_the_versions_are_listed_newest_first_and_page_by_page(rest: Rest) -> None:
    first, second, third = await three_versions(rest)
    told = await rest.ok("GET", AT)
    assert [(one["version"], one["at"], one["ended_at"], one["bytes"]) for one in told["versions"]] == [
        (3, third, None, 7),
        (2, second, third, 7),
        (1, first, second, 1),
    ]
    assert [one["current"] for one in told["versions"]] == [True, False, False]
    assert {(one["kept"], one["redacted_at"]) for one in told["versions"]} == {(True, None)}
    page = await rest.ok("GET", f"{AT}&limit=2")
    assert [one["version"] for one in page["versions"]] == [3, 2]
    page = await rest.ok("GET", f"{AT}&limit=2&cursor={page['next_cursor']}")
    assert ([one["version"] for one in page["versions"]], page["next_cursor"]) == ([1], None)


async def test_a_version_is_the_whole_record_as_it_was(rest: Rest) -> None:
    first, second, _ = await three_versions(rest)
    told = await rest.ok("GET", f"{AT}&version=2")
    assert (told["value"], told["version"], told["key"]) == ({"n": 2}, 2, "k")
    assert (told["metadata"]["tags"], told["metadata"]["author"]) == (["t"], "ann")
    assert (told["metadata"]["created_at"], told["metadata"]["updated_at"]) == (first, second)
    assert (await rest.ok("GET", f"{AT}&version=3"))["value"] == "three"
    refused(await rest.ask("GET", f"{AT}&version=4"), 404, "memory_not_found")
    refused(await rest.ask("GET", f"{AT}&version=0"), 422, "invalid_input", "version")
    refused(await rest.ask("GET", f"{AT}&version=1&limit=5"), 422, "invalid_input", "limit")


@pytest.mark.parametrize("key", ["a/b", "a//b", "..", "restore", "redact", "%2F", "ä日😀", "a b?c#d"])
async def test_a_key_of_any_kind_has_its_history(one_rest: Rest, key: str) -> None:
    await one_rest.store(key, 1)
    await one_rest.store(key, 2)
    path = "/history/" + escaped(key).replace(".", "%2E")
    assert [one["version"] for one in (await one_rest.ok("GET", path))["versions"]] == [2, 1]
    assert (await one_rest.ok("GET", f"{path}?version=1"))["value"] == 1


async def test_a_memory_is_retrieved_as_it_was_at_an_instant(rest: Rest) -> None:
    first, second, _ = await three_versions(rest)
    at = "/retrieve/k?namespace=acme&as_of="
    for instant, value in ((first, 1), (second, {"n": 2}), ("2025-06-15T15:08:10+00:00", {"n": 2})):
        answer = await rest.ask("GET", at + instant.replace("+", "%2B"))
        assert answer.json()["value"] == value, instant
        assert answer.headers["etag"] == f'"{answer.json()["version"]}"'
    assert (await rest.ok("GET", "/retrieve/k?namespace=acme"))["metadata"]["access_count"] == 1
    refused(await rest.ask("GET", at + "2020-01-01T00:00:00Z"), 404, "memory_not_found")
    refused(await rest.ask("GET", at + "yesterday"), 422, "invalid_input", "as_of")
    refused(await rest.ask("GET", at + "2999-01-01T00:00:00Z"), 422, "invalid_input", "as_of")
    both = await rest.ask("GET", f"{at}{first}&include=search_index")
    refused(both, 422, "invalid_input", "include")


async def test_a_former_version_becomes_current_again_as_a_new_one(rest: Rest) -> None:
    await three_versions(rest)
    answer = await rest.ask("POST", "/history/restore", {**NAMED, "version": 1})
    assert (answer.json()["value"], answer.json()["version"], answer.headers["etag"]) == (1, 4, '"4"')
    refused(await rest.ask("POST", "/history/restore", {**NAMED, "expected_version": 3}), 409, "version_conflict")
    headers = {"Idempotency-Key": "once"}
    for _ in range(2):
        told = await rest.ok("POST", "/history/restore", {**NAMED, "version": 2}, headers=headers)
        assert (told["version"], told["value"]) == (5, {"n": 2})


async def test_a_deleted_memory_is_brought_back(rest: Rest) -> None:
    first, *_ = await three_versions(rest)
    await rest.ok("DELETE", "/delete/k?namespace=acme")
    told = await rest.ok("GET", AT)
    assert [(one["version"], one["current"]) for one in told["versions"]] == [(3, False), (2, False), (1, False)]
    told = await rest.ok("POST", "/history/restore", NAMED)
    assert (told["value"], told["metadata"]["created_at"]) == ("three", first)
    assert (await rest.ok("GET", "/retrieve/k?namespace=acme"))["value"] == "three"


async def test_what_is_redacted_is_gone_and_the_fact_stays(rest: Rest) -> None:
    first, *_ = await three_versions(rest)
    told = await rest.ok("POST", "/history/redact", {**NAMED, "version": 1})
    assert (told["key"], told["namespace"], told["versions"]) == ("k", "acme", [1])
    gone = refused(await rest.ask("GET", f"{AT}&version=1"), 410, "version_gone")
    assert (gone["key"], gone["version"]) == ("k", 1)
    refused(await rest.ask("GET", f"/retrieve/k?namespace=acme&as_of={first}"), 410, "version_gone")
    head = (await rest.ok("GET", AT))["versions"][-1]
    assert (head["version"], head["kept"]) == (1, False)
    assert head["redacted_at"] is not None
    assert (await rest.ok("POST", "/history/redact", NAMED))["versions"] == [1, 2, 3]
    refused(await rest.ask("GET", "/retrieve/k?namespace=acme"), 404, "memory_not_found")


async def test_a_namespace_says_how_much_of_the_past_is_kept(rest: Rest) -> None:
    config = {"history_keep": 1, "history_days": 7.5}
    made = await rest.ok("POST", "/namespaces", {"name": "acme", "config": config})
    assert (made["config"], made["effective"]) == (config, config)
    await rest.ok("PUT", "/namespaces/acme", {"history_keep": 0})
    await three_versions(rest)
    assert [one["version"] for one in (await rest.ok("GET", AT))["versions"]] == [3]
    for wrong in ({"history_keep": -1}, {"history_days": -0.5}, {"history_keep": 1.5}):
        refused(await rest.ask("PUT", "/namespaces/acme", wrong), 422, "invalid_input")


# ---- the feed as a list
async def test_the_changes_come_in_commit_order_and_go_on_from_next(rest: Rest) -> None:
    await rest.store("a", namespace="acme")
    await rest.store("b", namespace="acme/web")
    await rest.ok("PUT", "/update/a?namespace=acme", {"value": 2})
    await rest.ok("DELETE", "/delete/b?namespace=acme/web")
    await rest.store("c", namespace="other")
    told = await rest.ok("GET", "/changes")
    assert [(one["seq"], one["kind"], one["namespace"], one["key"], one["version"]) for one in told["changes"]] == [
        (1, "store", "acme", "a", 1),
        (2, "store", "acme/web", "b", 1),
        (3, "update", "acme", "a", 2),
        (4, "delete", "acme/web", "b", 1),
        (5, "store", "other", "c", 1),
    ]
    assert told["next"] == 5
    seen: list[int] = []
    since = 0
    while page := (told := await rest.ok("GET", f"/changes?since={since}&limit=2"))["changes"]:
        seen += [one["seq"] for one in page]
        since = told["next"]
    assert (seen, since) == ([1, 2, 3, 4, 5], 5)


async def test_the_changes_of_a_namespace_are_told_alone(rest: Rest) -> None:
    for namespace in ("acme", "acme/web", "acme-corp"):
        await rest.store("k", namespace=namespace)
    told = await rest.ok("GET", "/changes?namespace=acme")
    assert ([one["namespace"] for one in told["changes"]], told["next"]) == (["acme", "acme/web"], 3)
    told = await rest.ok("GET", "/changes?namespace=acme&recursive=false")
    assert [one["namespace"] for one in told["changes"]] == ["acme"]


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("since=-1", "since"),
        ("since=x", "since"),
        ("since=99", "since"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("namespace=a//b", "namespace"),
        ("recursive=perhaps", "recursive"),
    ],
)
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_a_feed_that_cannot_be_is_refused(one_rest: Rest, query: str, field: str, accept: str) -> None:
    answer = await one_rest.ask("GET", f"/changes?{query}", headers={"Accept": accept})
    refused(answer, 422, "invalid_input", field)


# ---- the feed as events
class Following:
    """A GET of the feed, spoken as a server would: what is sent can be seen while it goes on."""

    def __init__(self, rest: Rest, query: str = "", **headers: str) -> None:
        path = f"{PREFIX}/changes"
        told = {"accept": "text/event-stream", **{name.replace("_", "-"): value for name, value in headers.items()}}
        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in told.items()],
        }
        self.sent: list[dict[str, Any]] = []
        self.left = asyncio.Event()
        self._some = asyncio.Event()
        self.task = asyncio.create_task(rest.application(scope, self._receive, self._send))

    async def _receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        self.sent.append(dict(message))
        self._some.set()

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.sent).decode()

    async def until(self, part: str) -> str:
        """All that was sent, when that stands in it."""

        async def wait() -> None:
            while part not in self.text:
                self._some.clear()
                await self._some.wait()

        await asyncio.wait_for(wait(), BOUND)
        return self.text

    async def end(self) -> None:
        self.left.set()
        await asyncio.wait_for(self.task, BOUND)


def events_of(text: str) -> list[tuple[int, str, dict[str, Any]]]:
    found = re.findall(r"^id: (\d+)\nevent: (\w+)\ndata: (.*)\n\n", text, re.MULTILINE)
    return [(int(place), kind, json.loads(data)) for place, kind, data in found]


async def test_the_events_are_those_of_the_list_and_go_on(rest: Rest) -> None:
    await rest.store("a", namespace="acme")
    stream = Following(rest, "since=0")
    await stream.until("id: 1\nevent: store")
    assert stream.sent[0]["status"] == 200
    assert (b"content-type", b"text/event-stream") in stream.sent[0]["headers"]
    assert stream.text.startswith("retry: 1000\nid: 0\n\n")
    await rest.ok("PUT", "/update/a?namespace=acme", {"value": 2})
    text = await stream.until("id: 2\nevent: update")
    listed = (await rest.ok("GET", "/changes"))["changes"]
    assert events_of(text) == [(one["seq"], one["kind"], one) for one in listed]
    await stream.end()
    assert stream.sent[-1].get("more_body") is True


async def test_a_client_that_connects_again_misses_nothing_and_is_told_nothing_twice(rest: Rest) -> None:
    seen: list[int] = []
    last: dict[str, str] = {}
    for number in range(1, 4):
        # Its URL is the same each time: the place it is at stands in the header.
        stream = Following(rest, "since=0", **last)
        await rest.store(f"while connected {number}")
        text = await stream.until(f'"key":"while connected {number}"')
        await stream.end()
        seen += [place for place, *_ in events_of(text)]
        last = {"last_event_id": str(seen[-1])}
        await rest.store(f"while away {number}")
    assert seen == [1, 2, 3, 4, 5]


async def test_without_a_place_the_events_begin_now_and_say_where(rest: Rest) -> None:
    await rest.store("old")
    stream = Following(rest)
    assert (await stream.until("id: 1\n\n")).startswith("retry: 1000\nid: 1\n\n: nothing new\n\n")
    await rest.store("new")
    assert [event["key"] for *_, event in events_of(await stream.until("event:"))] == ["new"]
    await stream.end()


async def test_the_events_of_a_namespace_are_told_alone(rest: Rest) -> None:
    stream = Following(rest, "since=0&namespace=acme")
    await stream.until("id: 0\n\n")
    await rest.store("k", namespace="acme-corp")
    await rest.store("k", namespace="acme/web")
    assert [place for place, *_ in events_of(await stream.until("event:"))] == [2]
    await stream.end()


async def test_events_that_are_no_longer_kept_are_a_problem_and_no_stream(rest: Rest) -> None:
    for number in range(3):
        await rest.store(f"k{number}")
    assert await rest.service.storage.prune_feed(rest.clock.now() + 1, 2) == 2
    for headers in ({"Accept": "text/event-stream"}, {"Accept": "text/event-stream", "Last-Event-ID": "1"}):
        told = refused(await rest.ask("GET", "/changes?since=0", headers=headers), 410, "changes_gone")
        assert told["oldest"] == 2
    assert [one["seq"] for one in (await rest.ok("GET", "/changes?since=2"))["changes"]] == [3]


async def test_a_last_event_id_that_is_none_is_refused(one_rest: Rest) -> None:
    for seen in ("x", "-1", "1e3"):
        answer = await one_rest.ask("GET", "/changes", headers={"Last-Event-ID": seen})
        refused(answer, 422, "invalid_input", "Last-Event-ID")


async def test_a_stream_ends_whole_when_the_service_stops(one_rest: Rest) -> None:
    application: RestApplication = one_rest.application
    stream = Following(one_rest)
    await stream.until("retry")
    application.end_streams()
    await asyncio.wait_for(stream.task, BOUND)
    assert stream.sent[-1] == {"type": "http.response.body", "body": b""}


async def test_a_head_of_a_stream_ends_at_once(one_rest: Rest) -> None:
    answer = await asyncio.wait_for(
        one_rest.client.head(f"{PREFIX}/changes", headers={"Accept": "text/event-stream"}), BOUND
    )
    assert (answer.status_code, answer.headers["content-type"], answer.content) == (200, "text/event-stream", b"")
    assert "content-length" not in answer.headers
