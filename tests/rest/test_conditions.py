"""ETag, If-Match, If-None-Match, expected_version and Idempotency-Key."""

import asyncio
from typing import Any

import httpx2
import pytest

from tests.rest.asking import Rest, refused
from unified_memory.model.clock import SECOND, to_rfc3339

DAY = 24 * 3600
WRITES: list[tuple[str, str, Any]] = [
    ("POST", "/store", {"key": "k", "value": 2}),
    ("PUT", "/update/k", {"value": 2}),
    ("PATCH", "/update/k", {"merge": 2}),
    ("DELETE", "/delete/k", None),
]
each_write = pytest.mark.parametrize(("method", "path", "body"), WRITES, ids=[f"{m} {p}" for m, p, _ in WRITES])


async def version(rest: Rest, key: str = "k") -> int:
    told = await rest.ok("GET", f"/retrieve/{key}")
    number: int = told["version"]
    return number


# ---- ETag
async def test_every_answer_with_one_record_carries_its_version_as_etag(rest: Rest) -> None:
    for number, (method, path, body) in enumerate(
        [
            ("POST", "/store", {"key": "k", "value": {}}),
            ("PUT", "/update/k", {"ttl": 60}),
            ("PATCH", "/update/k", {"merge": {"a": 1}}),
            ("POST", "/move", {"from": {"key": "k"}, "to": {"key": "l"}}),
        ],
        1,
    ):
        answer = await rest.ask(method, path, body)
        assert (answer.headers["etag"], answer.json()["version"]) == (f'"{number}"', number)
    for path in ("/retrieve/l", "/retrieve/l?include=search_index"):
        assert (await rest.ask("GET", path)).headers["etag"] == '"4"'


@pytest.mark.parametrize(
    ("known", "status"),
    [
        ('"2"', 304),
        ("*", 304),
        ('"1", "2"', 304),
        ('W/"2"', 304),
        ('"1"', 200),
        ('"22"', 200),
        ("2", 200),
        ('"x"', 200),
    ],
)
async def test_what_is_known_already_is_not_sent_again(rest: Rest, known: str, status: int) -> None:
    await rest.store("k")
    await rest.store("k")
    answer = await rest.ask("GET", "/retrieve/k", headers={"If-None-Match": known})
    assert (answer.status_code, answer.headers["etag"], bool(answer.content)) == (status, '"2"', status == 200)
    assert ("content-length" in answer.headers) == (status == 200)


async def test_what_is_gone_is_not_found_whatever_is_known(rest: Rest) -> None:
    refused(await rest.ask("GET", "/retrieve/k", headers={"If-None-Match": "*"}), 404, "memory_not_found")


# ---- If-Match
@each_write
async def test_a_write_at_the_version_that_is_named_succeeds(rest: Rest, method: str, path: str, body: Any) -> None:
    await rest.store("k")
    assert (await rest.ask(method, path, body, headers={"If-Match": '"1"'})).status_code == 200


@each_write
async def test_a_write_at_another_version_is_refused_with_the_current_one(
    rest: Rest, method: str, path: str, body: Any
) -> None:
    await rest.store("k", 1)
    await rest.store("k", 1)
    told = refused(await rest.ask(method, path, body, headers={"If-Match": '"1"'}), 412, "version_conflict")
    assert (told["expected_version"], told["current_version"]) == (1, 2)
    assert (await rest.ok("GET", "/retrieve/k"))["value"] == 1


@each_write
async def test_if_match_any_needs_a_memory(rest: Rest, method: str, path: str, body: Any) -> None:
    answer = await rest.ask(method, path, body, headers={"If-Match": "*"})
    if path == "/store":
        assert refused(answer, 412, "version_conflict")["current_version"] == 0
    else:
        refused(answer, 404, "memory_not_found")
    await rest.store("k")
    assert (await rest.ask(method, path, body, headers={"If-Match": "*"})).status_code == 200


@each_write
@pytest.mark.parametrize("etag", ["", '""', '"0"', '"-1"', '"a"', '"1", "2"', '"1.0"', '"9999999999999999999"'])
async def test_what_is_no_etag_of_ours_is_refused(rest: Rest, method: str, path: str, body: Any, etag: str) -> None:
    await rest.store("k")
    refused(await rest.ask(method, path, body, headers={"If-Match": etag}), 422, "invalid_input", "If-Match")
    assert await version(rest) == 1


async def test_of_many_updates_of_one_version_exactly_one_wins(rest: Rest) -> None:
    await rest.store("k", 0)
    for number in range(1, 6):
        answers = await asyncio.gather(
            *(rest.ask("PUT", "/update/k", {"value": i}, headers={"If-Match": f'"{number}"'}) for i in range(16))
        )
        assert sorted(answer.status_code for answer in answers) == [200] + [412] * 15
    assert await version(rest) == 6


async def test_of_many_increments_none_is_lost(rest: Rest) -> None:
    await rest.store("k", {"n": 0})
    await asyncio.gather(*(rest.ok("PATCH", "/update/k", {"increment": {"n": 1}}) for _ in range(50)))
    told = await rest.ok("GET", "/retrieve/k")
    assert (told["value"], told["version"]) == ({"n": 50}, 51)


# ---- If-None-Match: *
async def test_create_only_creates_only(rest: Rest) -> None:
    create = {"If-None-Match": "*"}
    assert (await rest.ask("POST", "/store", {"key": "k", "value": 1}, headers=create)).status_code == 200
    told = refused(await rest.ask("POST", "/store", {"key": "k", "value": 2}, headers=create), 412, "already_exists")
    assert told["current_version"] == 1
    assert (await rest.ok("GET", "/retrieve/k"))["value"] == 1
    await rest.ok("PUT", "/update/k", {"ttl": 10})
    rest.clock.advance(10)
    told = await rest.ok("POST", "/store", {"key": "k", "value": 3}, headers=create)
    assert (told["value"], told["version"]) == (3, 3)


async def test_a_write_knows_no_etag_that_must_not_be(rest: Rest) -> None:
    answer = await rest.ask("POST", "/store", {"key": "k", "value": 1}, headers={"If-None-Match": '"1"'})
    refused(answer, 422, "invalid_input", "If-None-Match")


# ---- expected_version
async def test_expected_version_is_checked_in_the_body(rest: Rest) -> None:
    wrong = {"key": "k", "value": 1, "expected_version": 1}
    told = refused(await rest.ask("POST", "/store", wrong), 409, "version_conflict")
    assert (told["expected_version"], told["current_version"]) == (1, 0)
    assert (await rest.store("k", expected_version=0))["version"] == 1
    refused(await rest.ask("POST", "/store", {"key": "k", "value": 1, "expected_version": 0}), 409, "version_conflict")
    assert (await rest.store("k", expected_version=1))["version"] == 2
    assert (await rest.ok("PUT", "/update/k", {"ttl": 5, "expected_version": 2}))["version"] == 3
    assert (await rest.ok("PATCH", "/update/k", {"merge": 1, "expected_version": 3}))["version"] == 4
    move = {"from": {"key": "k"}, "to": {"key": "l"}}
    refused(await rest.ask("POST", "/move", {**move, "expected_version": 3}), 409, "version_conflict")
    assert (await rest.ok("POST", "/move", {**move, "expected_version": 4}))["version"] == 5


async def test_a_version_beyond_all_numbers_is_a_conflict_like_any_other(rest: Rest) -> None:
    for number in (-1, 2**63, 10**30):
        answer = await rest.ask("POST", "/store", {"key": "k", "value": 1, "expected_version": number})
        refused(answer, 409, "version_conflict")


async def test_versions_go_on_when_a_key_is_made_anew(rest: Rest) -> None:
    await rest.store("k")
    await rest.store("k")
    await rest.ok("DELETE", "/delete/k")
    again = await rest.store("k")
    assert (again["version"], again["id"]) == (3, 2)
    assert (await rest.ask("GET", "/retrieve/k", headers={"If-None-Match": '"1"'})).status_code == 200


# ---- Idempotency-Key
async def again(rest: Rest, method: str, path: str, body: Any) -> tuple[httpx2.Response, httpx2.Response]:
    headers = {"Idempotency-Key": "once"}
    first = await rest.ask(method, path, body, headers=headers)
    rest.clock.advance(1)
    return first, await rest.ask(method, path, body, headers=headers)


REPEATED: list[tuple[str, str, Any]] = [
    ("POST", "/store", {"key": "k", "value": {"n": 1.0}}),
    ("POST", "/store", {"value": "minted"}),
    ("PUT", "/update/there", {"value": 5}),
    ("PATCH", "/update/there", {"increment": {"n": 1}}),
    ("DELETE", "/delete/there", None),
    ("POST", "/store/batch", {"memories": [{"value": 1}, {"key": "there", "value": 2}]}),
    ("POST", "/delete/batch", {"keys": [{"key": "there"}, {"key": "nothing"}]}),
]


@pytest.mark.parametrize(("method", "path", "body"), REPEATED, ids=[f"{m} {p}" for m, p, _ in REPEATED])
async def test_the_same_request_again_is_answered_alike_and_done_once(
    rest: Rest, method: str, path: str, body: Any
) -> None:
    await rest.store("there", {"n": 1.50})
    before = (await rest.ok("GET", "/stats"))["last_seq"]
    first, second = await again(rest, method, path, body)
    assert first.status_code == 200, first.text
    assert (second.content, second.headers.get("etag")) == (first.content, first.headers.get("etag"))
    edits = len(body["memories"]) if path == "/store/batch" else 1
    assert (await rest.ok("GET", "/stats"))["last_seq"] == before + edits


@pytest.mark.parametrize(("method", "path", "body"), REPEATED, ids=[f"{m} {p}" for m, p, _ in REPEATED])
async def test_the_same_key_for_another_request_is_refused(rest: Rest, method: str, path: str, body: Any) -> None:
    await rest.store("there", {"n": 1.50})
    headers = {"Idempotency-Key": "once"}
    assert (await rest.ask(method, path, body, headers=headers)).status_code == 200
    told = refused(
        await rest.ask("POST", "/store", {"key": "other", "value": 1}, headers=headers), 422, "idempotency_mismatch"
    )
    assert (told["field"], told["key"]) == ("Idempotency-Key", "once")
    refused(await rest.ask("GET", "/retrieve/other"), 404, "memory_not_found")


async def test_many_of_the_same_request_at_once_are_done_once(rest: Rest) -> None:
    headers = {"Idempotency-Key": "once"}
    answers = await asyncio.gather(*(rest.ask("POST", "/store", {"value": 1}, headers=headers) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert (await rest.ok("GET", "/stats"))["memories"] == 1


async def test_an_idempotency_key_is_forgotten_after_a_day(rest: Rest) -> None:
    headers = {"Idempotency-Key": "once"}
    first = await rest.ok("POST", "/store", {"value": 1}, headers=headers)
    rest.clock.advance(DAY - 1)
    assert (await rest.ok("POST", "/store", {"value": 1}, headers=headers))["key"] == first["key"]
    rest.clock.advance(2)
    assert (await rest.ok("POST", "/store", {"value": 1}, headers=headers))["key"] != first["key"]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/store", {"key": "k", "value": 1}),
        ("PUT", "/update/there", {}),
        ("POST", "/store/batch", {"memories": [{"key": "k", "value": 1}]}),
    ],
)
async def test_a_repeat_gets_its_first_answer_even_after_what_it_stored_has_expired(
    rest: Rest, method: str, path: str, body: Any
) -> None:
    await rest.store("there")
    told = body["memories"][0] if "memories" in body else body
    told["expires_at"] = to_rfc3339(rest.clock.now() + SECOND // 2)
    first, second = await again(rest, method, path, body)
    assert first.status_code == 200
    assert second.content == first.content
    await rest.store("there")
    late = await rest.ask(method, path, body)
    place = "memories[0].expires_at" if "memories" in body else "expires_at"
    refused(late, 422, "invalid_input", place)


async def test_a_request_that_failed_may_be_tried_again_under_its_key(rest: Rest) -> None:
    headers = {"Idempotency-Key": "once"}
    refused(await rest.ask("PUT", "/update/k", {"value": 2}, headers=headers), 404, "memory_not_found")
    await rest.store("k")
    assert (await rest.ok("PUT", "/update/k", {"value": 2}, headers=headers))["value"] == 2


@pytest.mark.parametrize("key", ["", "x" * 256])
async def test_an_idempotency_key_has_a_length(rest: Rest, key: str) -> None:
    answer = await rest.ask("POST", "/store", {"value": 1}, headers={"Idempotency-Key": key})
    refused(answer, 422, "invalid_input", "Idempotency-Key")
