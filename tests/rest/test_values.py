"""A value comes back byte for byte as it went in, wherever it comes back; what is no JSON never gets in."""

import json

import pytest

from tests.rest.asking import LIMITS, Rest, refused

FAITHFUL = [
    b"1.50",
    b"1E400",
    b"-0",
    b"-0.0",
    b"1e-400",
    b"12345678901234567890123",
    b"123456789.0000000000000000001",
    b"18446744073709551616",
    b"null",
    b"true",
    b'""',
    b"[]",
    b"{}",
    b'{"b":1,"a":2}',
    b'{"a":1,"a":2}',
    b'{"a": [1, 2.0,\n 3]}',
    b'"\\u0000"',
    b'"\\u00e9\\/\\ud83d\\ude00"',
    '"é/😀"'.encode(),
    b'" "',
    b'"\x7f"',
    b'{"":{"":null}}',
    b'{"value":{"metadata":1}}',
    b'"' + b"x" * 20_000 + b'"',
    b"9" * 5000,
    b"[" * 200 + b"]" * 200,
    b'{"a":' * 200 + b"1" + b"}" * 200,
    b'"\\u2028\\u2029"',
    b'"</script>"',
]  # fmt: skip


def ids(values: list[bytes]) -> list[str]:
    return [repr(value)[2:30] for value in values]


@pytest.mark.parametrize("value", FAITHFUL, ids=ids(FAITHFUL))
async def test_a_value_comes_back_as_the_very_bytes_that_came(rest: Rest, value: bytes) -> None:
    held = b'"value":' + value + b","
    stored = await rest.ask("POST", "/store", b'{"key":"k","metadata":{"tags":["t"]},"value":' + value + b"}")
    assert stored.status_code == 200, stored.text
    assert held in stored.content
    for method, path, body in (
        ("GET", "/retrieve/k", None),
        ("PUT", "/update/k", {"metadata": {"importance": 6}}),
        ("POST", "/retrieve/batch", {"keys": [{"key": "k"}]}),
        ("GET", "/list", None),
        ("POST", "/query", {"filter": {"key": "k"}}),
        ("POST", "/search", {"query": "t", "tags": ["t"]}),
        ("POST", "/update/where", {"filter": {"key": "k"}, "set": {"add_tags": ["u"]}}),
        ("POST", "/move", {"from": {"key": "k"}, "to": {"key": "l", "namespace": "other"}}),
        ("GET", "/retrieve/l?namespace=other&include=search_index", None),
    ):
        answer = await rest.ask(method, path, body)
        assert answer.status_code == 200, answer.text
        assert held in answer.content or path == "/update/where", path
    updated = await rest.ask("PUT", "/update/l?namespace=other", b'{"value":' + value + b"}")
    assert held in updated.content
    batch = await rest.ask("POST", "/store/batch", b'{"memories":[{"key":"m","value":' + value + b"}]}")
    assert held in batch.content


async def test_blanks_around_a_value_are_not_of_the_value(rest: Rest) -> None:
    await rest.ask("POST", "/store", b'{"key":"k","value": \n {"a" : 1} \t }')
    assert b'"value":{"a" : 1},' in (await rest.ask("GET", "/retrieve/k")).content


async def test_the_callers_own_metadata_comes_back_as_it_came(rest: Rest) -> None:
    own = b'"author":"ann","rate":1.50,"big":12345678901234567890123,"nested":{"b":1,"a":[1E400]},"nothing":null'
    answer = await rest.ask("POST", "/store", b'{"key":"k","value":1,"metadata":{' + own + b',"tags":["t"]}}')
    assert b'"tags":["t"],' + own + b"}" in answer.content
    assert b'"tags":["t"],' + own + b"}" in (await rest.ask("GET", "/retrieve/k")).content


@pytest.mark.parametrize(
    ("value", "status"),
    [
        (b"[" * 300 + b"]" * 300, 422),
        (b'{"a":' * 300 + b"1" + b"}" * 300, 422),
        (b"[" * 20_000 + b"]" * 20_000, 422),
        (b'"\\ud800"', 400),
        (b'"\\udc00x"', 400),
        (b'"\xff"', 400),
        (b'"\xed\xa0\x80"', 400),
        (b'"\xc0\x80"', 400),
        (b"NaN", 400),
        (b"Infinity", 400),
        (b"01", 400),
        (b"1.", 400),
        (b".5", 400),
        (b"+1", 400),
        (b"[1,]", 400),
        (b"{'a':1}", 400),
        (b'"a\nb"', 400),
        (b"tru", 400),
        (b"", 400),
    ],
    ids=lambda v: repr(v)[2:20] if isinstance(v, bytes) else None,
)
async def test_what_is_no_value_is_refused_and_nothing_is_stored(rest: Rest, value: bytes, status: int) -> None:
    code = {400: "malformed_input", 422: "invalid_input"}[status]
    for method, path, body in (
        ("POST", "/store", b'{"key":"k","value":' + value + b"}"),
        ("POST", "/store", b'{"key":"k","value":1,"metadata":{"own":' + value + b"}}"),
        ("POST", "/store/batch", b'{"memories":[{"key":"a","value":1},{"key":"k","value":' + value + b"}]}"),
    ):
        refused(await rest.ask(method, path, body), status, code)
    assert await rest.keys("GET", "/list") == []
    await rest.store("k", {"there": 1})
    for body in (b'{"merge":' + value + b"}", b'{"append":{"list":' + value + b"}}"):
        refused(await rest.ask("PATCH", "/update/k", body), status, code)
    refused(await rest.ask("PUT", "/update/k", b'{"value":' + value + b"}"), status, code)
    merge = {"content-type": "application/merge-patch+json"}
    refused(await rest.ask("PATCH", "/update/k", value, headers=merge), status, code)
    assert (await rest.ok("GET", "/retrieve/k"))["version"] == 1


async def test_identical_content_has_one_hash_however_it_is_spelled(rest: Rest) -> None:
    hashes = set()
    for key, value in (("a", b'{"b":1.50,"a":"\\u00e9"}'), ("b", '{ "a" : "é", "b" : 1.50 }'.encode())):
        await rest.ask("POST", "/store", b'{"key":"' + key.encode() + b'","value":' + value + b"}")
        told = await rest.ok("GET", f"/retrieve/{key}?include=search_index")
        hashes.add(told["search_index"]["content_hash"])
    assert len(hashes) == 1
    found = await rest.keys("POST", "/query", {"filter": {"content_hash": hashes.pop()}})
    assert found == ["a", "b"]


async def test_a_patch_keeps_the_digits_of_what_it_does_not_touch(rest: Rest) -> None:
    await rest.ask("POST", "/store", b'{"key":"k","value":{"price":1.50,"big":12345678901234567890123,"n":1E400}}')
    answer = await rest.ask("PATCH", "/update/k", b'{"merge":{"rate":2.50},"increment":{"price":0.25}}')
    assert b'"value":{"price":1.75,"big":12345678901234567890123,"n":1E400,"rate":2.50}' in answer.content


@pytest.mark.parametrize(
    ("held", "amount", "after"),
    [
        (b"1", b"1", b"2"),
        (b"0.1", b"0.2", b"0.3"),
        (b"9007199254740993", b"1", b"9007199254740994"),
        (b"12345678901234567890123456789012345678901", b"1", b"12345678901234567890123456789012345678902"),
        (b"1", b"-1", b"0"),
        (b"1.50", b"0.50", b"2.00"),
        (b"1e3", b"1", b"1001"),
    ],
)
async def test_an_increment_is_exact(rest: Rest, held: bytes, amount: bytes, after: bytes) -> None:
    await rest.ask("POST", "/store", b'{"key":"k","value":{"n":' + held + b"}}")
    answer = await rest.ask("PATCH", "/update/k", b'{"increment":{"n":' + amount + b"}}")
    assert b'"value":{"n":' + after + b"}" in answer.content, answer.text


@pytest.mark.parametrize("amount", [b"1e999999999", b"1e-999999999", b"-1e1000000"])
async def test_an_increment_beyond_all_measure_is_refused_at_once(rest: Rest, amount: bytes) -> None:
    await rest.store("k", {"n": 1})
    answer = await rest.ask("PATCH", "/update/k", b'{"increment":{"n":' + amount + b"}}")
    assert answer.status_code in {413, 422}, answer.text[:200]
    assert len(answer.content) < LIMITS.value_bytes
    assert (await rest.ok("GET", "/retrieve/k"))["value"] == {"n": 1}


async def test_an_increment_where_nothing_is_begins_at_nothing(rest: Rest) -> None:
    await rest.store("k", {})
    told = await rest.ok("PATCH", "/update/k", {"increment": {"a.b": 2}, "append": {"c": "x", '"d.e"': 1}})
    assert told["value"] == {"c": ["x"], "d.e": [1], "a": {"b": 2}}


async def test_a_merge_patch_is_that_of_rfc_7396(rest: Rest) -> None:
    await rest.store(
        "k", {"title": "Goodbye!", "author": {"givenName": "John", "familyName": "Doe"}, "tags": ["example"]}
    )
    patch = {"title": "Hello!", "phoneNumber": "+01", "author": {"familyName": None}, "tags": ["sample"]}
    merge = {"content-type": "application/merge-patch+json; charset=utf-8"}
    told = await rest.ok("PATCH", "/update/k", json.dumps(patch).encode(), headers=merge)
    after = {"title": "Hello!", "author": {"givenName": "John"}, "tags": ["sample"], "phoneNumber": "+01"}
    assert (told["value"], list(told["value"])) == (after, list(after))
    told = await rest.ok("PATCH", "/update/k", b"null", headers=merge)
    assert told["value"] is None
