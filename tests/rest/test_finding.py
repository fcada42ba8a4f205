"""List, search and query: what is found, in which order, page by page."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.rest.asking import Rest, refused

ODD = [
    '"',
    '""',
    "'",
    "*",
    "**",
    "a*",
    "*a",
    "-",
    "--",
    "- a",
    "a-",
    "(",
    ")",
    "()",
    "a AND b",
    "a OR",
    "NOT",
    "NOT a",
    "NEAR",
    "NEAR(a b)",
    "a:b",
    "key:a",
    "^a",
    "a^2",
    "{a}",
    "[a]",
    "\\",
    "a\\b",
    "%",
    "_",
    ";",
    "--;",
    "/*",
    "a\0b",
    "\0",
    "+",
    "+a",
    "a + b",
    '"a',
    'a"',
    '"a b',
    "a\nb",
    "\ta",
    "é",
    "日本",
    "😀",
    "\ufffd",
    "\u202e",
    "?",
    "!",
    "#",
    "$",
    "&",
    "|",
    "~",
    "`",
    "<b>",
    "@",
    "=",
    ",",
    ".",
    "...",
    "a" * 5000,
    "a " * 60,
    '"' * 999,
    "-" * 999 + "a",
    "*" * 99,
    "a" * 50 + "*",
]  # fmt: skip


@pytest.mark.parametrize("query", ODD, ids=lambda q: ascii(q)[:20])
async def test_odd_characters_are_data_and_never_an_error(rest: Rest, query: str) -> None:
    await rest.store("k", {"said": query, "and": "a b"})
    answer = await rest.ask("POST", "/search", {"query": query})
    if answer.status_code != 200:
        refused(answer, 422, "empty_query", "query")
        assert not any(c.isalnum() for c in query) or query.startswith("-")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(min_size=1))
async def test_no_query_at_all_is_an_error(one_rest: Rest, query: str) -> None:
    answer = await one_rest.ask("POST", "/search", {"query": query})
    if answer.status_code != 200:
        refused(answer, 422, "empty_query")


@pytest.mark.parametrize("query", ["", "  ", "\n", "-word", '-"two words"', "\u200b"])
async def test_a_query_without_anything_to_search_for_is_told_so(rest: Rest, query: str) -> None:
    refused(await rest.ask("POST", "/search", {"query": query}), 422, "empty_query", "query")


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("cherry", ["c"]),
        ("CHERRY Pie", ["c", "p"]),
        ('"apple pie"', ["p"]),
        ("app*", ["a", "p"]),
        ("apple -pie", ["a"]),
        ("苹果", ["cn"]),
        ("naive", ["i"]),
        ("erry", ["c"]),
        ("tagged", ["t"]),
        ("zebra", []),
        ("c", ["c"]),
    ],
)
async def test_words_phrases_prefixes_exclusions_and_parts_are_found(rest: Rest, query: str, found: list[str]) -> None:
    for key, value, tags in (
        ("a", "an apple a day", []),
        ("p", {"dish": "apple pie"}, []),
        ("c", ["cherry", 1], []),
        ("cn", "我喜欢苹果派", []),
        ("i", "naïve", []),
        ("t", 1, ["tagged"]),
    ):
        await rest.store(key, value, metadata={"tags": tags})
    told = await rest.ok("POST", "/search", {"query": query})
    assert sorted(one["key"] for one in told["results"]) == found
    for one in told["results"]:
        assert one["score"] >= 0
        assert one["matched"]
        assert one["snippet"] or one["matched"] == ["tags"] or one["matched"] == ["key"]


async def test_filters_beside_a_query_must_all_hold(rest: Rest) -> None:
    for number in range(8):
        facts = {
            "importance": number + 1,
            "tags": ["even"] if number % 2 == 0 else ["odd"],
            "project_id": f"p{number % 3}",
        }
        await rest.store(
            f"k{number}", {"said": "word", "n": number}, metadata={**facts, "session_id": f"s{number % 4}"}
        )
        rest.clock.advance(1)
    for beside, found in (
        ({}, list(range(8))),
        ({"tags": ["even"]}, [0, 2, 4, 6]),
        ({"tags": ["even", "odd"]}, []),
        ({"importance_min": 6}, [5, 6, 7]),
        ({"session_id": "s1"}, [1, 5]),
        ({"project_id": "p2", "importance_min": 4}, [5]),
        ({"since": "2025-06-15T15:06:42Z", "until": "2025-06-15T15:06:44Z"}, [2, 3, 4]),
        ({"filter": {"value.n": {"between": [2, 3]}}}, [2, 3]),
        ({"filter": {"value.n": {"gt": 2}}, "tags": ["odd"], "importance_min": 7}, [7]),
    ):
        found_keys = await rest.keys("POST", "/search", {"query": "word", **beside})
        assert sorted(found_keys) == [f"k{number}" for number in found], beside


async def pages(rest: Rest, method: str, path: str, body: dict[str, Any] | None, limit: int) -> list[str]:
    """The keys of all pages, one after the other."""
    keys: list[str] = []
    cursor = None
    for _ in range(50):
        if method == "GET":
            more = f"&limit={limit}" + (f"&cursor={cursor}" if cursor else "")
            told = await rest.ok(method, path + ("" if "?" in path else "?") + more)
        else:
            told = await rest.ok(
                method, path, {**(body or {}), "limit": limit, **({"cursor": cursor} if cursor else {})}
            )
        items = next(told[name] for name in ("memories", "results", "sessions", "namespaces", "jobs") if name in told)
        assert len(items) <= limit
        keys += [item.get("key") or item.get("id") or item["name"] for item in items]
        cursor = told["next_cursor"]
        if cursor is None:
            return keys
    raise AssertionError("the pages do not end")


LISTINGS: list[tuple[str, str, dict[str, Any] | None]] = [
    ("GET", "/list?prefix=k", None),
    ("GET", "/list?order_by=-importance", None),
    ("GET", "/list?tags=t&order_by=value.n", None),
    ("GET", "/list?order_by=-last_accessed", None),
    ("GET", "/sessions/1?scope=session", None),
    ("POST", "/query", {"order_by": "-value.n", "filter": {"value.n": {"gte": 0}}}),
    ("POST", "/query", {"select": ["key"], "order_by": "key"}),
    ("POST", "/search", {"query": "word"}),
]


@pytest.mark.parametrize("limit", [1, 3, 7, 100])
@pytest.mark.parametrize(("method", "path", "body"), LISTINGS, ids=[f"{m} {p} {b or ''}" for m, p, b in LISTINGS])
async def test_all_pages_together_show_everything_once(
    rest: Rest, method: str, path: str, body: dict[str, Any] | None, limit: int
) -> None:
    memories = [
        {"key": f"k{n:02}", "value": {"n": n % 5, "said": "word"}, "metadata": {"importance": n % 4 + 1, "tags": ["t"],
         "session_id": "1"}}
        for n in range(20)
    ]  # fmt: skip
    await rest.ok("POST", "/store/batch", {"memories": memories})
    keys = await pages(rest, method, path, body, limit)
    assert sorted(keys) == [memory["key"] for memory in memories]
    assert keys == await pages(rest, method, path, body, 1000)


async def test_pages_of_sessions_namespaces_and_jobs_show_everything_once(rest: Rest) -> None:
    for number in range(7):
        await rest.ok("POST", "/sessions", {"id": f"s{number}", "namespace": f"n{number}"})
        await rest.ok("POST", "/cleanup")
        rest.clock.advance(1)
    assert await pages(rest, "GET", "/sessions", None, 2) == [f"s{n}" for n in range(6, -1, -1)]
    assert await pages(rest, "GET", "/namespaces", None, 3) == [f"n{n}" for n in range(7)]
    jobs = await pages(rest, "GET", "/jobs", None, 3)
    assert (len(jobs), len(set(jobs))) == (7, 7)


async def test_a_page_survives_what_is_written_meanwhile(rest: Rest) -> None:
    for number in range(6):
        await rest.store(f"k{number}")
    first = await rest.ok("GET", "/list?limit=3")
    await rest.ok("DELETE", "/delete/k0")
    await rest.ok("DELETE", "/delete/k3")
    await rest.store("k1")
    await rest.store("new")
    second = await rest.ok("GET", f"/list?limit=3&cursor={first['next_cursor']}")
    assert [one["key"] for one in second["memories"]] == ["k4", "k5", "new"]


@pytest.mark.parametrize(("method", "path", "body"), LISTINGS, ids=[f"{m} {p} {b or ''}" for m, p, b in LISTINGS])
async def test_a_cursor_belongs_to_its_listing(rest: Rest, method: str, path: str, body: dict[str, Any] | None) -> None:
    for number in range(3):
        await rest.store(f"k{number}", {"n": number, "said": "word"}, metadata={"tags": ["t"], "session_id": "1"})
    if method == "GET":
        cursor = (await rest.ok("GET", f"{path}&limit=1"))["next_cursor"]
        other = await rest.ask("GET", f"/list?order_by=-key&limit=1&cursor={cursor}")
        mangled = await rest.ask("GET", f"{path}&cursor={cursor[:-3]}")
    else:
        assert body is not None
        cursor = (await rest.ok("POST", path, {**body, "limit": 1}))["next_cursor"]
        other = await rest.ask("POST", path, {**body, "namespace": "default", "cursor": cursor})
        mangled = await rest.ask("POST", path, {**body, "cursor": "x" + cursor})
    for answer in (other, mangled):
        refused(answer, 422, "invalid_cursor", "cursor")


async def test_select_count_and_groups(rest: Rest) -> None:
    for number in range(4):
        metadata = {"tags": ["t", f"t{number % 2}"], "author": ["ann", "bob"][number // 3]}
        await rest.store(f"k{number}", {"n": number, "big": 10**20}, metadata=metadata)
    select = ["key", "value.n", "metadata.author", "value.missing", "tags", "created_at", "expires_at", "value"]
    told = await rest.ok("POST", "/query", {"select": select, "count": True, "limit": 1, "order_by": "-key"})
    (row,) = told["memories"]
    assert list(row) == select
    assert row == {
        "key": "k3", "value.n": 3, "metadata.author": "bob", "value.missing": None, "tags": ["t", "t1"],
        "created_at": "2025-06-15T15:06:40.000000Z", "expires_at": None, "value": {"n": 3, "big": 10**20},
    }  # fmt: skip
    assert told["count"] == 4
    told = await rest.ok("POST", "/query", {"group_by": "metadata.author", "count": True})
    assert (told["groups"], told["count"]) == ([{"value": "ann", "count": 3}, {"value": "bob", "count": 1}], 4)
    told = await rest.ok("POST", "/query", {"group_by": "tags"})
    assert told["groups"] == [{"value": "t", "count": 4}, {"value": "t0", "count": 2}, {"value": "t1", "count": 2}]
    assert "count" not in told


async def test_a_budget_of_tokens_bounds_the_answer(rest: Rest) -> None:
    for number in range(10):
        await rest.store(f"k{number}", "word " * 100)
    told = await rest.ok("POST", "/search", {"query": "word", "max_tokens": 1000})
    shown = len(told["results"])
    assert 1 < shown < 10
    assert (told["left_out"], bool(told["next_cursor"])) == (10 - shown, True)
    assert len(str(told["results"])) < 4 * 1000 * 1.2
    rest_of_it = await rest.ok("POST", "/search", {"query": "word", "cursor": told["next_cursor"]})
    assert len(rest_of_it["results"]) == 10 - shown
    assert len((await rest.ok("POST", "/search", {"query": "word", "max_tokens": 1}))["results"]) == 1


async def test_a_listing_shows_accesses_and_does_not_count_as_one(rest: Rest) -> None:
    await rest.store("k")
    for _ in range(3):
        await rest.ok("GET", "/retrieve/k")
    for _ in range(2):
        for method, path, body in (("GET", "/list", None), ("POST", "/query", {}), ("POST", "/search", {"query": "v"})):
            told = await rest.ok(method, path, body)
            (one,) = told.get("memories", told.get("results"))
            assert one["metadata"]["access_count"] == 3
        await rest.service.upkeep.flush()
