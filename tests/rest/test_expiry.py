"""A memory is invisible in every route from the very microsecond at which it expires, and its ttl is never lost."""

import pytest

from tests.rest.asking import Rest, refused

MICRO = 1e-6


async def told_everywhere(rest: Rest) -> dict[str, int]:
    """How many memories each route shows."""
    count: dict[str, int] = {}
    count["retrieve"] = int((await rest.ask("GET", "/retrieve/k")).status_code == 200)
    batch = await rest.ok("POST", "/retrieve/batch", {"keys": [{"key": "k"}]})
    count["batch"] = sum(one["status"] == "found" for one in batch["results"])
    count["list"] = len(await rest.keys("GET", "/list"))
    count["list by tag"] = len(await rest.keys("GET", "/list?tags=t&prefix=k&order_by=-expires_at"))
    count["search"] = len(await rest.keys("POST", "/search", {"query": "word"}))
    count["search inside"] = len(await rest.keys("POST", "/search", {"query": "wor", "tags": ["t"]}))
    queried = await rest.ok("POST", "/query", {"filter": {"value.a": "word"}, "count": True})
    count["query"], count["count"] = len(queried["memories"]), queried["count"]
    count["group"] = len((await rest.ok("POST", "/query", {"group_by": "tags"}))["groups"])
    stats = await rest.ok("GET", "/stats")
    count["stats"], count["tags"] = stats["memories"], len(stats["top_tags"])
    count["stats of namespaces"] = sum(one["memories"] for one in stats["namespaces"])
    count["bytes"] = int(stats["bytes_raw"] > 0)
    count["namespace"] = (await rest.ok("GET", "/namespaces/default"))["memories"]
    count["namespaces"] = (await rest.ok("GET", "/namespaces"))["namespaces"][0]["total_memories"]
    count["session"] = len((await rest.ok("GET", "/sessions/1"))["memories"])
    where = {"filter": {"key": "k"}, "dry_run": True}
    count["delete where"] = (await rest.ok("POST", "/delete/where", where))["matched"]
    count["update where"] = (await rest.ok("POST", "/update/where", {**where, "set": {}}))["matched"]
    return count


async def test_a_memory_is_gone_everywhere_from_the_very_microsecond(rest: Rest) -> None:
    await rest.store("k", {"a": "word"}, ttl=10, metadata={"tags": ["t"], "session_id": "1"})
    rest.clock.advance(10 - MICRO)
    assert set((await told_everywhere(rest)).values()) == {1}
    rest.clock.advance(MICRO)
    assert {name: n for name, n in (await told_everywhere(rest)).items() if n} == {}
    for method, path, body in (
        ("PUT", "/update/k", {"ttl": None}),
        ("PATCH", "/update/k", {"merge": 1}),
        ("DELETE", "/delete/k", None),
        ("POST", "/move", {"from": {"key": "k"}, "to": {"key": "l"}}),
    ):
        refused(await rest.ask(method, path, body), 404, "memory_not_found")
    assert (await rest.ok("POST", "/delete/batch", {"keys": [{"key": "k"}]}))["results"][0]["status"] == "not_found"


async def test_cleanup_removes_what_has_expired_and_says_what(rest: Rest) -> None:
    for namespace, ttl in (("a", 5), ("a", 5), ("a/b", 6), ("c", 20)):
        await rest.store(f"k{ttl}{rest.clock.now()}", "word", namespace, ttl=ttl)
        rest.clock.advance(MICRO)
    await rest.store("for ever")
    rest.clock.advance(10)
    assert (await rest.ok("GET", "/stats"))["expired"] == 3
    assert await rest.ok("POST", "/cleanup") == {"expired": 3, "namespaces": {"a": 2, "a/b": 1}, "purged": 0}
    stats = await rest.ok("GET", "/stats")
    assert (stats["expired"], stats["memories"]) == (0, 2)
    assert await rest.ok("POST", "/cleanup?wait=0.5") == {"expired": 0, "namespaces": {}, "purged": 0}


@pytest.mark.parametrize("cleaned", [False, True])
async def test_a_store_over_an_expired_key_makes_a_new_memory(rest: Rest, cleaned: bool) -> None:  # noqa: FBT001
    first = await rest.store("k", ttl=5)
    await rest.ok("GET", "/retrieve/k")
    rest.clock.advance(5)
    if cleaned:
        await rest.ok("POST", "/cleanup")
    again = await rest.store("k")
    assert again["version"] == 2
    assert again["id"] != first["id"]
    assert again["metadata"]["created_at"] > first["metadata"]["created_at"]
    assert (again["metadata"]["access_count"], again["metadata"]["expires_at"]) == (0, None)


async def test_only_who_names_the_ttl_changes_it(rest: Rest) -> None:
    until = (await rest.store("k", {"n": 1}, ttl=100))["metadata"]["expires_at"]
    rest.clock.advance(50)
    for method, path, body in (
        ("PUT", "/update/k", {"value": {"n": 2}, "metadata": {"tags": ["t"]}}),
        ("PATCH", "/update/k", {"increment": {"n": 1}}),
        ("POST", "/move", {"from": {"key": "k"}, "to": {"key": "l", "namespace": "other"}}),
        ("GET", "/retrieve/l?namespace=other", None),
    ):
        assert (await rest.ok(method, path, body))["metadata"]["expires_at"] == until
    await rest.ok("POST", "/update/where", {"filter": {"key": "l"}, "set": {"add_tags": ["u"]}})
    await rest.ok("POST", "/move", {"from": {"namespace": "other"}, "to": {"namespace": "third"}})
    assert (await rest.ok("GET", "/retrieve/l?namespace=third"))["metadata"]["expires_at"] == until
    told = await rest.ok("PUT", "/update/l?namespace=third", {"ttl": 100})
    assert told["metadata"]["expires_at"] == "2025-06-15T15:09:10.000000Z"
    told = await rest.ok("PUT", "/update/l?namespace=third", {"expires_at": "2030-01-01T00:00:00+02:00"})
    assert told["metadata"]["expires_at"] == "2029-12-31T22:00:00.000000Z"
    told = await rest.ok("PUT", "/update/l?namespace=third", {"ttl": None})
    assert told["metadata"]["expires_at"] is None


async def test_a_store_replaces_the_ttl_too(rest: Rest) -> None:
    await rest.store("k", ttl=5)
    assert (await rest.store("k"))["metadata"]["expires_at"] is None


async def test_the_nearest_namespace_that_says_so_gives_the_ttl(rest: Rest) -> None:
    await rest.ok("POST", "/namespaces", {"name": "a", "config": {"default_ttl": 60}})
    await rest.ok("POST", "/namespaces", {"name": "a/b", "config": {"default_ttl": None}})
    minute = "2025-06-15T15:07:40.000000Z"
    assert (await rest.store("k", 1, "a"))["metadata"]["expires_at"] == minute
    assert (await rest.store("k", 1, "a/c/d"))["metadata"]["expires_at"] == minute
    assert (await rest.store("k", 1, "a/b/c"))["metadata"]["expires_at"] is None
    assert (await rest.store("k", 1, "a", ttl=None))["metadata"]["expires_at"] is None
    assert (await rest.store("k", 1, "ab"))["metadata"]["expires_at"] is None
    told = await rest.ok("POST", "/store/batch", {"memories": [{"key": "l", "value": 1, "namespace": "a"}]})
    assert told["results"][0]["memory"]["metadata"]["expires_at"] == minute


async def test_a_session_expires_at_its_instant_and_slides_with_use(rest: Rest) -> None:
    await rest.ok("POST", "/sessions", {"id": "1", "ttl": 10})
    rest.clock.advance(9)
    await rest.store("k", metadata={"session_id": "1"})
    rest.clock.advance(9)
    assert (await rest.ok("GET", "/sessions/1"))["session"]["state"] == "active"
    rest.clock.advance(10 - MICRO)
    assert [one["state"] for one in (await rest.ok("GET", "/sessions?active=true"))["sessions"]] == ["active"]
    rest.clock.advance(MICRO)
    assert (await rest.ok("GET", "/sessions?active=true"))["sessions"] == []
    told = await rest.ok("GET", "/sessions/1")
    assert (told["session"]["state"], len(told["memories"])) == ("expired", 1)


@pytest.mark.parametrize(("memories", "left"), [("keep", 1), ("delete", 0), ("expire", 0)])
async def test_ending_a_session_does_with_its_memories_what_was_asked(rest: Rest, memories: str, left: int) -> None:
    await rest.store("k", "word", metadata={"session_id": "1"})
    await rest.store("other", "word")
    told = await rest.ok("DELETE", f"/sessions/1?memories={memories}")
    assert (told["session"]["state"], told["memories"], told["affected"]) == ("ended", memories, 1 - left)
    assert sorted(await rest.keys("POST", "/search", {"query": "word"})) == (["k", "other"] if left else ["other"])
    reopened = await rest.store("again", metadata={"session_id": "1"})
    assert reopened["metadata"]["session_id"] == "1"
    assert (await rest.ok("GET", "/sessions/1"))["session"]["state"] == "active"
