"""Batches are all or nothing; changes by filter change what they say and nothing else."""

from typing import Any

import pytest

from tests.rest.asking import Rest, refused, stored


# ---- batches
async def test_a_batch_answers_in_order(rest: Rest) -> None:
    await rest.store("b", 0, "n")
    memories = [{"key": key, "value": number, "namespace": "n"} for number, key in enumerate("abcb")]
    told = await rest.ok("POST", "/store/batch", {"memories": memories})
    outcome = [
        (one["status"], one["memory"]["key"], one["memory"]["value"], one["memory"]["version"])
        for one in told["results"]
    ]
    assert outcome == [("created", "a", 0, 1), ("replaced", "b", 1, 2), ("created", "c", 2, 1), ("replaced", "b", 3, 3)]
    keys = [{"key": key, "namespace": "n"} for key in "cxab"] + [{"key": "a"}]
    told = await rest.ok("POST", "/retrieve/batch", {"keys": keys})
    found = [one["memory"]["value"] if one["status"] == "found" else None for one in told["results"]]
    assert found == [2, None, 0, 3, None]
    assert told["results"][1] == {"status": "not_found", "key": "x", "namespace": "n"}
    told = await rest.ok("POST", "/delete/batch", {"keys": [*keys, {"key": "c", "namespace": "n"}]})
    assert [one["status"] for one in told["results"]] == [
        "deleted", "not_found", "deleted", "deleted", "not_found", "not_found",
    ]  # fmt: skip
    assert (await rest.ok("GET", "/stats"))["memories"] == 0


BAD: list[tuple[Any, int, str]] = [
    ({"key": "", "value": 1}, 422, "invalid_input"),
    ({"key": "z"}, 422, "invalid_input"),
    ({"key": "z", "value": 1, "metadata": {"importance": 11}}, 422, "invalid_input"),
    ({"key": "z", "value": 1, "namespace": "a//b"}, 422, "invalid_input"),
    ({"key": "z", "value": 1, "ttl": -1}, 422, "invalid_input"),
    ({"key": "z", "value": 1, "expected_version": 5}, 409, "version_conflict"),
    ({"key": "there", "value": 1, "expected_version": 0}, 409, "version_conflict"),
    ({"key": "z", "value": 1, "namespace": "full"}, 403, "quota_exceeded"),
]


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(("bad", "status", "code"), BAD, ids=[f"{s} {c} {str(b)[:50]}" for b, s, c in BAD])
async def test_a_batch_with_one_bad_item_stores_nothing(
    rest: Rest, bad: Any, status: int, code: str, place: int
) -> None:
    await rest.store("there", 0)
    await rest.ok("POST", "/namespaces", {"name": "full", "config": {"max_memories": 1}})
    await rest.store("only", 0, "full")
    before = await stored(rest)
    memories: list[Any] = [{"key": "there", "value": "changed"}, {"key": "new", "value": 1, "namespace": "made"}]
    memories.insert(place, bad)
    refused(await rest.ask("POST", "/store/batch", {"memories": memories}), status, code)
    assert await stored(rest) == before
    assert (await rest.ok("GET", "/retrieve/there"))["value"] == 0
    refused(await rest.ask("GET", "/namespaces/made"), 404, "namespace_not_found")


# ---- by filter
async def fill(rest: Rest) -> None:
    for number in range(6):
        await rest.store(
            f"k{number}", {"n": number}, "acme/x" if number < 4 else "acme-corp", metadata={"tags": ["t", f"t{number}"]}
        )


async def test_a_dry_run_tells_what_would_change_and_changes_nothing(rest: Rest) -> None:
    await fill(rest)
    before = await rest.ok("GET", "/list")
    for path, more in (("/delete/where", {}), ("/update/where", {"set": {"ttl": 5, "add_tags": ["u"]}})):
        told = await rest.ok("POST", path, {"filter": {"value.n": {"gte": 2}}, "dry_run": True, **more})
        assert (told["matched"], told["changed"], told["dry_run"]) == (4, 0, True)
        assert [one["key"] for one in told["sample"]] == ["k2", "k3", "k4", "k5"]
    assert await rest.ok("GET", "/list") == before
    assert (await rest.ok("GET", "/jobs"))["jobs"] == []


async def test_deleting_by_filter_deletes_what_matches_and_nothing_else(rest: Rest) -> None:
    await fill(rest)
    told = await rest.ok("POST", "/delete/where", {"filter": {"value.n": {"gte": 2}}, "namespace": "acme"})
    assert (told["matched"], told["changed"], told["dry_run"]) == (2, 2, False)
    assert await rest.keys("GET", "/list") == ["k0", "k1", "k4", "k5"]
    told = await rest.ok(
        "POST", "/delete/where", {"filter": {"tags": {"contains": "t"}}, "namespace": "acme", "recursive": False}
    )
    assert told["changed"] == 0


async def test_changing_by_filter_changes_what_is_said_of_what_matches(rest: Rest) -> None:
    await fill(rest)
    change = {
        "add_tags": ["new", "t"],
        "remove_tags": ["t3", "nothing"],
        "ttl": 60,
        "metadata": {"author": "ann", "importance": 9},
    }
    told = await rest.ok("POST", "/update/where", {"filter": {"value.n": {"in": [3, 4]}}, "set": change})
    assert (told["matched"], told["changed"]) == (2, 2)
    for one in (await rest.ok("GET", "/list"))["memories"]:
        told = one["metadata"]
        if one["key"] in {"k3", "k4"}:
            assert told["tags"] == [*(["t"] if one["key"] == "k3" else ["t", "t4"]), "new"]
            assert (told["importance"], told["author"], one["version"]) == (9, "ann", 2)
            assert told["expires_at"] == "2025-06-15T15:07:40.000000Z"
        else:
            assert (told["importance"], one["version"], told["expires_at"]) == (5, 1, None)
            assert "author" not in told
    told = await rest.ok(
        "POST",
        "/update/where",
        {"filter": {"metadata.author": "ann"}, "set": {"metadata": {"author": None, "tags": None}}},
    )
    assert told["changed"] == 2
    told = await rest.ok("GET", "/retrieve/k3?namespace=acme/x")
    assert (told["metadata"]["tags"], "author" in told["metadata"]) == ([], False)


async def test_a_change_of_more_than_a_chunk_reaches_all(rest: Rest) -> None:
    for start in range(0, 460, 20):
        memories = [{"key": f"k{n}", "value": n} for n in range(start, start + 20)]
        await rest.ok("POST", "/store/batch", {"memories": memories})
    told = await rest.ok("POST", "/update/where", {"filter": {"id": {"gt": 0}}, "set": {"add_tags": ["t"]}})
    assert (told["matched"], told["changed"], len(told["sample"])) == (460, 460, 10)
    told = await rest.ok("POST", "/delete/where", {"filter": {"tags": {"contains": "t"}}})
    assert (told["matched"], told["changed"]) == (460, 460)
    assert (await rest.ok("GET", "/stats"))["memories"] == 0


async def test_a_change_that_does_not_fit_one_memory_is_told_as_what_it_is(rest: Rest) -> None:
    await rest.store("k", metadata={"tags": list("abcdefgh")})
    answer = await rest.ask("POST", "/update/where", {"filter": {"key": "k"}, "set": {"add_tags": ["i"]}})
    told = refused(answer, 422, "invalid_input", "tags")
    job = await rest.ok("GET", f"/jobs/{told['job_id']}")
    assert (job["state"], job["error"]["code"]) == ("failed", "invalid_input")
