"""What is too large is told by its name, and nothing of it is stored."""

from typing import Any

import pytest

from tests.rest.asking import LIMITS, MAX_BODY, Rest, escaped, refused, stored

VALUE = "x" * (LIMITS.value_bytes - 2)
LIST = [1] * (LIMITS.value_bytes // 2 - 2)
BEYOND: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/store", {"key": "new", "value": VALUE + "x"}, 413, "value"),
    ("POST", "/store/batch", {"memories": [{"value": 1}, {"value": VALUE + "x"}]}, 413, "memories[1].value"),
    ("PUT", "/update/k", {"value": VALUE + "x"}, 413, "value"),
    ("PATCH", "/update/k", {"merge": VALUE + "x"}, 413, "value"),
    ("PATCH", "/update/k", {"append": {"": VALUE}}, 413, "value"),
    ("POST", "/store", {"key": "k" * 1001, "value": 1}, 413, "key"),
    ("POST", "/store", {"key": "é" * 501, "value": 1}, 413, "key"),
    ("POST", "/store/batch", {"memories": [{"key": "k" * 1001, "value": 1}]}, 413, "memories[0].key"),
    ("GET", f"/retrieve/{'k' * 1001}", None, 413, "key"),
    ("GET", f"/retrieve/{escaped('é' * 501)}", None, 413, "key"),
    ("PUT", f"/update/{'k' * 1001}", {"value": 1}, 413, "key"),
    ("PATCH", f"/update/{'k' * 1001}", {"merge": 1}, 413, "key"),
    ("DELETE", f"/delete/{'k' * 1001}", None, 413, "key"),
    ("POST", "/move", {"from": {"key": "k"}, "to": {"key": "k" * 1001}}, 413, "to.key"),
    ("POST", "/delete/batch", {"keys": [{"key": "k" * 1001}]}, 413, "keys[0].key"),
    ("POST", "/store", {"value": 1, "metadata": {"tags": [str(n) for n in range(9)]}}, 422, "metadata.tags"),
    ("PUT", "/update/k", {"metadata": {"tags": [str(n) for n in range(9)]}}, 422, "metadata.tags"),
    ("POST", "/store", {"value": 1, "metadata": {"tags": ["t" * 1025]}}, 422, "metadata.tags"),
    ("POST", "/store", {"value": 1, "metadata": {"tags": ["é" * 513]}}, 422, "metadata.tags"),
    ("POST", "/store", {"value": 1, "metadata": {"note": "x" * 10_000}}, 422, "metadata"),
    ("PUT", "/update/k", {"metadata": {"note": "x" * 10_000}}, 422, "metadata"),
    ("POST", "/store/batch", {"memories": [{"value": 1}] * 21}, 422, "memories"),
    ("POST", "/store/batch", {"memories": []}, 422, "memories"),
    ("POST", "/retrieve/batch", {"keys": [{"key": "k"}] * 21}, 422, "keys"),
    ("POST", "/delete/batch", {"keys": [{"key": "k"}] * 21}, 422, "keys"),
    ("GET", "/list?limit=1001", None, 422, "limit"),
    ("GET", "/list?limit=0", None, 422, "limit"),
    ("GET", "/list?limit=-1", None, 422, "limit"),
    ("GET", "/list?limit=--1", None, 422, "limit"),
    ("GET", "/list?limit=1.5", None, 422, "limit"),
    ("GET", "/list?limit=", None, 422, "limit"),
    ("GET", "/list?limit=99999999999999999999", None, 422, "limit"),
    ("GET", "/list?recursive=maybe", None, 422, "recursive"),
    ("GET", "/namespaces?limit=1001", None, 422, "limit"),
    ("GET", "/namespaces?depth=0", None, 422, "depth"),
    ("GET", "/sessions?limit=0", None, 422, "limit"),
    ("GET", "/sessions?active=maybe", None, 422, "active"),
    ("GET", "/sessions/1?limit=0", None, 422, "limit"),
    ("GET", "/sessions/1?scope=all", None, 422, "scope"),
    ("DELETE", "/sessions/1?memories=burn", None, 422, "memories"),
    ("GET", "/jobs?limit=0", None, 422, "limit"),
    ("GET", "/jobs?state=lost", None, 422, "state"),
    ("POST", "/cleanup?wait=61", None, 422, "wait"),
    ("POST", "/cleanup?wait=-1", None, 422, "wait"),
    ("POST", "/cleanup?wait=nan", None, 422, "wait"),
    ("POST", "/delete/where?wait=soon", {"filter": {"key": "k"}}, 422, "wait"),
    ("POST", "/delete/where?dry_run=true", {"filter": {"key": "k"}}, 422, "dry_run"),
    ("DELETE", "/namespaces/default?recursive=true&wait=soon", None, 422, "wait"),
    ("DELETE", "/namespaces/default?recursive=yes", None, 422, "recursive"),
    ("GET", "/retrieve/k?include=everything", None, 422, "include"),
    ("POST", "/query", {"filter": {"or": [{"id": 1}] * 500}}, 422, "filter"),
    ("POST", "/query", {"filter": {"id": {"in": list(range(1001))}}}, 422, "filter.id.in"),
    ("POST", "/query", {"limit": 1001}, 422, "limit"),
    ("POST", "/query", {"order_by": "tags"}, 422, "order_by"),
    ("POST", "/query", {"select": ["colour"]}, 422, "select"),
    ("POST", "/query", {"group_by": "colour"}, 422, "group_by"),
    ("POST", "/search", {"query": "k", "limit": 0}, 422, "limit"),
    ("POST", "/search", {"query": "k", "max_tokens": 0}, 422, "max_tokens"),
    ("POST", "/search", {"query": "k", "importance_min": 10**30}, 422, "importance_min"),
    ("POST", "/search", {"query": "k", "since": "some day"}, 422, "since"),
    ("POST", "/sessions", {"id": "s" * 256}, 422, "id"),
    ("POST", "/sessions", {"ttl": 10**11}, 422, "ttl"),
    ("POST", "/namespaces", {"name": "n", "config": {"max_memories": 0}}, 422, "config.max_memories"),
    ("POST", "/namespaces", {"name": "n", "config": {"description": "d" * 4097}}, 422, "config.description"),
    ("PUT", "/mode", {"read_only": True, "reason": "r" * 1001}, 422, "reason"),
]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "field"), BEYOND, ids=[f"{m} {p[:30]} {s} {f}" for m, p, _, s, f in BEYOND]
)
async def test_what_is_beyond_a_limit_is_refused_by_name_and_changes_nothing(
    rest: Rest, method: str, path: str, body: Any, status: int, field: str
) -> None:
    await rest.store("k", LIST, metadata={"session_id": "1"})
    before = await stored(rest)
    refused(await rest.ask(method, path, body), status, "too_large" if status == 413 else "invalid_input", field)
    assert await stored(rest) == before


async def test_what_is_just_within_a_limit_is_taken(rest: Rest) -> None:
    tags = ["t" * 1024, "é" * 512, *"abcdef"]
    told = await rest.store("k" * 1000, VALUE, metadata={"tags": tags, "note": "x" * 9_000})
    assert (told["value"], told["metadata"]["tags"]) == (VALUE, tags)
    assert (await rest.store("é" * 500))["key"] == "é" * 500
    batch = await rest.ok("POST", "/store/batch", {"memories": [{"value": n} for n in range(20)]})
    assert len(batch["results"]) == 20
    assert len((await rest.ok("GET", "/list?limit=1000"))["memories"]) == 22


async def test_a_body_beyond_the_limit_is_refused_whether_its_length_was_told_or_not(rest: Rest) -> None:
    body = b'{"key":"k","value":"' + b"x" * MAX_BODY + b'"}'
    told = refused(await rest.ask("POST", "/store", body), 413, "too_large", "body")
    assert told["limit"] == MAX_BODY

    async def chunks() -> Any:
        for start in range(0, len(body), 100_000):
            yield body[start : start + 100_000]

    answer = await rest.client.post("/api/v1/memory/store", content=chunks())
    assert "content-length" not in answer.request.headers
    refused(answer, 413, "too_large", "body")
    assert (await rest.ok("GET", "/stats"))["memories"] == 0


async def test_a_body_may_come_in_pieces(rest: Rest) -> None:
    async def pieces() -> Any:
        for byte in b'{"key":"k","value":"\xc3\xa9"}':
            yield bytes([byte])

    answer = await rest.client.post("/api/v1/memory/store", content=pieces())
    assert answer.json()["value"] == "é"


async def test_a_tag_that_stands_twice_counts_once(rest: Rest) -> None:
    told = await rest.store("k", metadata={"tags": ["b", "a", "b"] * 5})
    assert told["metadata"]["tags"] == ["b", "a"]


# ---- quotas
async def test_a_quota_bounds_its_whole_subtree(rest: Rest) -> None:
    await rest.ok("POST", "/namespaces", {"name": "acme", "config": {"max_memories": 2}})
    await rest.store("a", 1, "acme")
    await rest.store("b", 1, "acme/x")
    told = refused(
        await rest.ask("POST", "/store", {"key": "c", "value": 1, "namespace": "acme/y/z"}), 403, "quota_exceeded"
    )
    assert (told["namespace"], told["quota"], told["limit"]) == ("acme", "max_memories", 2)
    await rest.store("a", 2, "acme")
    await rest.store("c", 1, "acme-corp")
    await rest.ok("DELETE", "/delete/b?namespace=acme/x")
    await rest.store("c", 1, "acme/y/z")


async def test_a_ttl_however_long_ends_in_the_year_9999(rest: Rest) -> None:
    for ttl in (1e11, 1e15, 1e300):
        told = await rest.store("k", ttl=ttl)
        assert told["metadata"]["expires_at"].startswith(("9999", "5194"))
    await rest.ok("PUT", "/namespaces/default", {"default_ttl": 9e14})
    assert (await rest.store("l"))["metadata"]["expires_at"].startswith("9999")
    assert (await rest.ok("GET", "/retrieve/l"))["key"] == "l"
