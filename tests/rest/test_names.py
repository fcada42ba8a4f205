"""Keys, namespaces and ids are data: any of them works in a path, in the query and in a body, and is no other one."""

from itertools import pairwise

import httpx2
import pytest

from tests.rest.asking import LIMITS, Rest, escaped, refused

KEYS = [
    "a/b",
    "/",
    "//",
    "a//b",
    "/a",
    "a/",
    "a b",
    " a",
    "a ",
    " ",
    "a%2Fb",
    "%",
    "%2",
    "%00",
    "a?b",
    "a#b",
    "a&b=c",
    "a+b",
    "..",
    ".",
    "a/../b",
    "../../etc/passwd",
    "é",
    "日本語",
    "😀",
    "e\u0301",
    "a\nb",
    "a\rb",
    "a\tb",
    "\x7f",
    "\u2028",
    "\ufffd",
    "where",
    "batch",
    "events",
    "null",
    '"',
    "'",
    "\\",
    "'; DROP TABLE memories; --",
    "<script>",
    "{key}",
    "*",
    ":",
    "@",
    "a;b",
    "a,b",
    "k" * LIMITS.key_bytes,
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=lambda k: ascii(k)[:20])
async def test_any_key_is_stored_retrieved_changed_moved_and_deleted(rest: Rest, key: str) -> None:
    path = escaped(key) if key not in {".", ".."} else key.replace(".", "%2E")
    assert (await rest.store(key, 1))["key"] == key
    assert (await rest.ok("GET", f"/retrieve/{path}"))["key"] == key
    assert (await rest.ok("PUT", f"/update/{path}", {"value": {"n": 2}}))["version"] == 2
    assert (await rest.ok("PATCH", f"/update/{path}", {"increment": {"n": 1}}))["value"] == {"n": 3}
    assert await rest.keys("GET", f"/list?prefix={path}") == [key]
    assert await rest.keys("POST", "/query", {"filter": {"key": key}}) == [key]
    told = await rest.ok("POST", "/retrieve/batch", {"keys": [{"key": key}]})
    assert told["results"][0]["memory"]["key"] == key
    assert (await rest.ok("POST", "/move", {"from": {"key": key}, "to": {"key": key, "namespace": "n"}}))["key"] == key
    told = await rest.ok("DELETE", f"/delete/{path}?namespace=n")
    assert (told["key"], told["namespace"], told["version"]) == (key, "n", 4)
    refused(await rest.ask("GET", f"/retrieve/{path}?namespace=n"), 404, "memory_not_found")


async def test_no_two_keys_are_one(rest: Rest) -> None:
    for number, key in enumerate(KEYS):
        await rest.store(key, number)
    for number, key in enumerate(KEYS):
        if key not in {".", ".."}:
            assert (await rest.ok("GET", f"/retrieve/{escaped(key)}"))["value"] == number
    listed = [key for chunk in pages(await rest.ok("GET", "/list?limit=1000")) for key in chunk]
    assert listed == KEYS


def pages(told: dict[str, list[dict[str, str]]]) -> list[list[str]]:
    return [[one["key"] for one in told["memories"]]]


async def test_slashes_of_a_key_may_stand_plain(rest: Rest) -> None:
    await rest.store("a/b c")
    for path in ("/retrieve/a/b%20c", "/retrieve/a%2Fb%20c", "/retrieve/a%2fb%20c"):
        assert (await rest.ok("GET", path))["key"] == "a/b c"


@pytest.mark.parametrize("path", ["%FF", "a%C0%80", "%ED%A0%80", "%EF%BF%BD%FF"])
@pytest.mark.parametrize(("method", "route"), [("GET", "/retrieve/"), ("DELETE", "/delete/"), ("PUT", "/update/")])
async def test_a_path_that_is_no_utf_8_names_nothing(rest: Rest, method: str, route: str, path: str) -> None:
    key = httpx2.URL(f"http://x/{path}").path[1:]
    await rest.store(key)
    answer = await rest.ask(method, route + path, None if method != "PUT" else {"value": 2})
    refused(answer, 422, "invalid_input", "path")
    assert (await rest.ok("GET", f"/retrieve/{escaped(key)}"))["version"] == 1


@pytest.mark.parametrize("key", ["", "a\0b", "\0"])
async def test_what_is_no_key_is_refused_everywhere(rest: Rest, key: str) -> None:
    for method, path, body in (
        ("POST", "/store", {"key": key, "value": 1}),
        ("GET", f"/retrieve/{escaped(key)}", None),
        ("PUT", f"/update/{escaped(key)}", {"value": 1}),
        ("PATCH", f"/update/{escaped(key)}", {"merge": 1}),
        ("DELETE", f"/delete/{escaped(key)}", None),
    ):
        refused(await rest.ask(method, path, body), 422, "invalid_input", "key")


async def test_without_a_key_one_is_minted_and_never_twice(rest: Rest) -> None:
    minted = {(await rest.ok("POST", "/store", {"value": 1}))["key"] for _ in range(20)}
    assert len(minted) == 20
    told = await rest.ok("POST", "/store/batch", {"memories": [{"value": 1}, {"value": 1, "key": None}]})
    minted |= {one["memory"]["key"] for one in told["results"]}
    assert len(minted) == 22


# ---- namespaces are segments
SIBLINGS = ["acme", "acme/x", "acme/x/y", "acme-corp", "acme-corp/x", "acm", "acme x", "ACME", "acme.", "acmé"]


def below(namespace: str) -> list[str]:
    return [name for name in SIBLINGS if name == namespace or name.startswith(namespace + "/")]


@pytest.mark.parametrize("namespace", SIBLINGS)
async def test_a_namespace_shows_itself_and_what_is_below_it_and_nothing_else(rest: Rest, namespace: str) -> None:
    for name in SIBLINGS:
        await rest.store("k", f"word in {name}", name, metadata={"tags": ["t"], "session_id": "1"})
    asked, expected = escaped(namespace), below(namespace)

    async def places(method: str, path: str, body: object = None) -> list[str]:
        told = await rest.ok(method, path, body)
        return sorted(one["namespace"] for one in told.get("memories", told.get("results", told.get("sessions"))))

    for scope, names in ((f"namespace={asked}", expected), (f"namespace={asked}&recursive=false", [namespace])):
        assert await places("GET", f"/list?{scope}") == sorted(names)
        assert await places("GET", f"/list?{scope}&tags=t&prefix=k&order_by=key") == sorted(names)
        assert await places("GET", f"/sessions?{scope}") == sorted(names)
    for body, names in (
        ({"namespace": namespace}, expected),
        ({"namespace": namespace, "recursive": False}, [namespace]),
    ):
        assert await places("POST", "/search", {"query": "word", **body}) == sorted(names)
        assert await places("POST", "/query", {"filter": {"key": "k"}, **body}) == sorted(names)
        told = await rest.ok("POST", "/query", {"group_by": "namespace", **body})
        assert sorted(group["value"] for group in told["groups"]) == sorted(names)
        for route in ("/delete/where", "/update/where"):
            change = {"set": {"ttl": 5}} if "update" in route else {}
            told = await rest.ok("POST", route, {"filter": {"key": "k"}, "dry_run": True, **change, **body})
            assert (told["matched"], sorted(one["namespace"] for one in told["sample"])) == (len(names), sorted(names))
    assert (await rest.ok("GET", f"/stats?namespace={asked}"))["memories"] == len(expected)
    told = await rest.ok("GET", f"/namespaces?prefix={asked}")
    assert [one["name"] for one in told["namespaces"]] == sorted(expected)
    told = await rest.ok("GET", f"/namespaces/{asked}")
    assert (told["memories"], told["total_memories"], told["namespaces"]) == (1, len(expected), len(expected) - 1)
    told = await rest.ok("GET", f"/sessions/1?namespace={asked}")
    assert [one["namespace"] for one in told["memories"]] == [namespace]
    assert (await rest.ok("GET", f"/retrieve/k?namespace={asked}"))["namespace"] == namespace
    # What is deleted, moved or set goes no further either.
    await rest.ok("PUT", f"/namespaces/{asked}", {"default_ttl": 60})
    for name in SIBLINGS:
        told = await rest.ok("GET", f"/namespaces/{escaped(name)}")
        assert (told["effective"].get("default_ttl") == 60) == (name in expected), name
    told = await rest.ok("DELETE", f"/namespaces/{asked}?recursive=true")
    assert (told["memories"], told["namespaces"]) == (len(expected), len(expected))
    left = [one["name"] for one in (await rest.ok("GET", "/namespaces"))["namespaces"]]
    assert left == sorted(set(SIBLINGS) - set(expected))
    assert await places("POST", "/search", {"query": "word", "limit": 100}) == left


async def test_moving_a_namespace_takes_what_is_below_it_and_nothing_else(rest: Rest) -> None:
    for name in SIBLINGS:
        await rest.store("k", 1, name)
    assert await rest.ok("POST", "/move", {"from": {"namespace": "acme"}, "to": {"namespace": "moved/here"}}) == {
        "moved": 3
    }
    left = [one["name"] for one in (await rest.ok("GET", "/namespaces"))["namespaces"]]
    moved = ["moved/here", "moved/here/x", "moved/here/x/y"]
    assert left == sorted([name for name in SIBLINGS if name not in below("acme")] + moved)


@pytest.mark.parametrize(
    "name", ["", "/", "a//b", "/a", "a/", "..", "a/..", "a\nb", "a\n", " a", "a/" * 16 + "a", "x" * 256]
)
async def test_what_is_no_namespace_is_refused_by_every_route_that_takes_one(rest: Rest, name: str) -> None:
    told = escaped(name).replace("..", "%2E%2E")
    for method, path, body, field in (
        ("POST", "/store", {"value": 1, "namespace": name}, "namespace"),
        ("GET", f"/retrieve/k?namespace={told}", None, "namespace"),
        ("PUT", f"/update/k?namespace={told}", {"value": 1}, "namespace"),
        ("PATCH", f"/update/k?namespace={told}", {"merge": 1}, "namespace"),
        ("PUT", "/update/k", {"namespace": name}, "namespace"),
        ("DELETE", f"/delete/k?namespace={told}", None, "namespace"),
        ("POST", "/move", {"from": {"namespace": name, "key": "k"}, "to": {"key": "k"}}, "from.namespace"),
        ("POST", "/move", {"from": {"key": "k"}, "to": {"namespace": name, "key": "k"}}, "to.namespace"),
        ("POST", "/store/batch", {"memories": [{"value": 1, "namespace": name}]}, "memories[0].namespace"),
        ("POST", "/retrieve/batch", {"keys": [{"key": "k", "namespace": name}]}, "keys[0].namespace"),
        ("POST", "/delete/batch", {"keys": [{"key": "k", "namespace": name}]}, "keys[0].namespace"),
        ("POST", "/update/where", {"filter": {"key": "k"}, "set": {}, "namespace": name}, "namespace"),
        ("POST", "/delete/where", {"filter": {"key": "k"}, "namespace": name}, "namespace"),
        ("GET", f"/list?namespace={told}", None, "namespace"),
        ("POST", "/search", {"query": "k", "namespace": name}, "namespace"),
        ("POST", "/query", {"namespace": name}, "namespace"),
        ("POST", "/namespaces", {"name": name}, "name"),
        ("GET", f"/namespaces?prefix={told}", None, "prefix"),
        ("POST", "/sessions", {"namespace": name}, "namespace"),
        ("GET", f"/sessions?namespace={told}", None, "namespace"),
        ("GET", f"/sessions/1?namespace={told}", None, "namespace"),
        ("DELETE", f"/sessions/1?namespace={told}", None, "namespace"),
        ("GET", f"/stats?namespace={told}", None, "namespace"),
        *[
            (method, f"/namespaces/{told}", {} if method == "PUT" else None, "namespace")
            for method in ("GET", "PUT", "DELETE")
        ],
    ):
        refused(await rest.ask(method, path, body), 422, "invalid_input", field)
    assert (await rest.ok("GET", "/stats"))["memories"] == 0


async def test_every_level_of_a_path_up_to_sixteen_is_a_namespace(rest: Rest) -> None:
    names = ["/".join(["n"] * depth) for depth in range(1, 17)]
    for shorter, longer in pairwise(names):
        await rest.store("k", 1, longer)
        assert (await rest.ok("GET", f"/namespaces/{escaped(longer)}"))["memories"] == 1
        assert (await rest.ok("GET", f"/stats?namespace={escaped(shorter)}"))["memories"] == len(longer.split("/")) - (
            1 if shorter == "n" else len(shorter.split("/")) - 1
        )


async def test_a_list_of_namespaces_folds_what_lies_deeper(rest: Rest) -> None:
    for name in ("a/b/c", "a/b/d", "a-b", "e"):
        await rest.store("k", 1, name)
    told = await rest.ok("GET", "/namespaces?depth=1")
    assert [(one["name"], one["total_memories"]) for one in told["namespaces"]] == [("a", 2), ("a-b", 1), ("e", 1)]
    told = await rest.ok("GET", "/namespaces?prefix=a&depth=1")
    assert [(one["name"], one["total_memories"]) for one in told["namespaces"]] == [("a/b", 2)]


# ---- sessions belong to a namespace
async def test_two_sessions_of_one_name_in_two_namespaces_share_nothing(rest: Rest) -> None:
    for namespace in ("acme", "acme-corp"):
        session = {"id": "1", "namespace": namespace, "cluster_id": "c", "metadata": {"of": namespace}}
        await rest.ok("POST", "/sessions", session)
        await rest.store("k", namespace, namespace, metadata={"session_id": "1"})
    for namespace in ("acme", "acme-corp"):
        told = await rest.ok("GET", f"/sessions/1?namespace={namespace}&scope=cluster")
        assert [one["value"] for one in told["memories"]] == [namespace]
        assert (told["session"]["metadata"], told["session"]["memories"]) == ({"of": namespace}, 1)
        found = await rest.ok("POST", "/search", {"query": "acme", "namespace": namespace, "session_id": "1"})
        assert [one["namespace"] for one in found["results"]] == [namespace]
    ended = await rest.ok("DELETE", "/sessions/1?namespace=acme&memories=delete")
    assert (ended["affected"], ended["session"]["state"]) == (1, "ended")
    told = await rest.ok("GET", "/sessions/1?namespace=acme-corp")
    assert (told["session"]["state"], len(told["memories"])) == ("active", 1)
    refused(await rest.ask("GET", "/sessions/1"), 404, "session_not_found")


@pytest.mark.parametrize("session_id", ["a/b", "..x", "%2F", "日本", "events", "a b?c#d", "a\n", "a\nb", "s" * 255])
async def test_any_id_of_a_session_works_in_a_path(rest: Rest, session_id: str) -> None:
    await rest.store("k", metadata={"session_id": session_id})
    told = await rest.ok("GET", f"/sessions/{escaped(session_id)}")
    assert (told["session"]["id"], len(told["memories"])) == (session_id, 1)
    assert (await rest.ok("DELETE", f"/sessions/{escaped(session_id)}"))["session"]["id"] == session_id


# ---- both prefixes are one service
async def test_what_is_stored_under_one_prefix_is_retrieved_under_the_other(rest: Rest) -> None:
    other = "/api/v1/mcp/memory"
    answer = await rest.ask("POST", "/store", {"key": "a/b", "value": 1}, prefix=other)
    assert answer.status_code == 200
    assert (await rest.ok("GET", "/retrieve/a/b")) == (await rest.ask("GET", "/retrieve/a/b", prefix=other)).json() | {
        "metadata": {**answer.json()["metadata"], "access_count": 1, "last_accessed": "2025-06-15T15:06:40.000000Z"}
    }
    assert (await rest.ask("GET", "/namespaces/default", prefix=other)).json()["memories"] == 1
    assert (await rest.ask("DELETE", "/delete/a/b", prefix=other)).status_code == 200
    refused(await rest.ask("GET", "/retrieve/a/b"), 404, "memory_not_found")
