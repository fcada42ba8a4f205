"""Backups over REST: made, proven, restored, deleted, and what health and figures say of them."""

import asyncio
import re
from typing import Any

import pytest

from tests.rest.asking import PREFIX, Rest, refused
from tests.rest.examples import some_backup
from unified_memory.model.principal import ANONYMOUS

BOUND = 20.0


async def values(rest: Rest, namespace: str = "acme") -> dict[str, Any]:
    """What is stored there, by key."""
    listed = await rest.ok("GET", f"/list?namespace={namespace}")
    return {one["key"]: one["value"] for one in listed["memories"]}


# ---- made
async def test_a_backup_tells_what_it_holds(rest: Rest) -> None:
    await rest.store("a", {"n": 1}, "acme")
    await rest.store("b", "x", "acme/web")
    made = await rest.ok("POST", "/backup", {"note": "before the upgrade"})
    assert (made["kind"], made["parent"], made["reason"], made["note"]) == (
        "full",
        None,
        "manual",
        "before the upgrade",
    )
    assert (made["memories"], made["raw_bytes"], made["seq"]) == (2, 10, 2)
    assert made["namespaces"] == {"acme": 1, "acme/web": 1}
    assert (made["encrypted"], made["verified"]) == (False, None)
    told = await rest.ok("GET", f"/backups/{made['id']}")
    parts = told.pop("parts")
    assert told == made
    assert sum(part["records"] for part in parts if part["kind"] == "memories") == 2
    for part in parts:
        assert (rest.backups / made["id"] / part["name"]).stat().st_size == part["bytes"]
    assert (await rest.ok("GET", "/backups"))["backups"] == [made]


async def test_a_backup_needs_no_body(rest: Rest) -> None:
    await rest.store("a")
    answer = await rest.client.post(f"{PREFIX}/backup")
    assert (answer.status_code, answer.json()["memories"]) == (200, 1)


async def test_a_chain_holds_what_changed_and_restores_as_one(rest: Rest) -> None:
    await rest.store("a", 1, "acme")
    full = await some_backup(rest)
    rest.clock.advance(60)
    await rest.store("b", 2, "acme")
    second = await rest.ok("POST", "/backup", {"parent": "latest"})
    assert (second["kind"], second["parent"]) == ("incremental", full)
    rest.clock.advance(60)
    await rest.ok("DELETE", "/delete/a?namespace=acme")
    third = await some_backup(rest, parent=second["id"])
    listed = [one["id"] for one in (await rest.ok("GET", "/backups"))["backups"]]
    assert listed == [third, second["id"], full]
    await rest.ok("DELETE", "/delete/b?namespace=acme")
    told = await rest.ok("POST", "/restore", {"backup_id": third, "safety": False})
    assert (told["used"], told["safety_backup"], await values(rest)) == (third, None, {"b": 2})
    told = await rest.ok("POST", "/restore", {"backup_id": third, "as_of": second["id"], "safety": False})
    assert (told["backup_id"], told["used"], await values(rest)) == (third, second["id"], {"a": 1, "b": 2})
    at = {"backup_id": third, "as_of": second["created_at"], "dry_run": True}
    assert (await rest.ok("POST", "/restore", at))["used"] == second["id"]


async def test_a_backup_that_is_not_waited_for_is_a_job_with_its_progress(rest: Rest) -> None:
    for number in range(3):
        await rest.store(f"k{number}")
    answer = await rest.ask("POST", "/backup?wait=0", {})
    assert answer.status_code == 202, answer.text
    job = answer.json()["job"]
    assert answer.headers["location"] == f"{PREFIX}/jobs/{job['id']}"
    ended = await asyncio.wait_for(rest.service.jobs.finished(ANONYMOUS, job["id"]), BOUND)
    told = await rest.ok("GET", f"/jobs/{ended.id}")
    assert (told["kind"], told["state"], told["result"]["memories"]) == ("backup", "done", 3)
    assert [one["id"] for one in (await rest.ok("GET", "/backups"))["backups"]] == [told["result"]["id"]]
    # What is told is how much is done in all, whatever the work told in between.
    assert told["total"] is None or told["done"] <= told["total"]


# ---- proven
async def test_a_verified_backup_says_so_everywhere(rest: Rest) -> None:
    await rest.store("a", namespace="acme")
    assert (await rest.ok("GET", "/health/ready"))["backup"] == {
        "last_at": None,
        "verified_at": None,
        "verified_ok": None,
    }
    made = await rest.ok("POST", "/backup")
    verified = await rest.ok("POST", f"/backups/{made['id']}/verify")
    assert (verified["backup_id"], verified["ok"], verified["detail"], verified["memories"]) == (
        made["id"],
        True,
        None,
        1,
    )
    told = await rest.ok("GET", f"/backups/{made['id']}")
    assert {"backup_id": made["id"], **told["verified"]} == verified
    at = made["created_at"]
    assert (await rest.ok("GET", "/health/ready"))["backup"] == {"last_at": at, "verified_at": at, "verified_ok": True}


async def test_a_damaged_backup_is_found_and_refused_by_the_name_of_its_part(rest: Rest) -> None:
    await rest.store("a", "something of some length", "acme")
    made = await rest.ok("POST", "/backup")
    parts = (await rest.ok("GET", f"/backups/{made['id']}"))["parts"]
    (name,) = [part["name"] for part in parts if part["kind"] == "memories"]
    file = rest.backups / made["id"] / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    told = refused(await rest.ask("POST", f"/backups/{made['id']}/verify"), 409, "backup_damaged")
    assert (told["backup_id"], told["part"]) == (made["id"], name)
    told = refused(await rest.ask("POST", "/restore", {"backup_id": made["id"]}), 409, "backup_damaged")
    assert told["part"] == name
    assert (await rest.ok("GET", f"/backups/{made['id']}"))["verified"]["ok"] is False
    rest.clock.advance(10)
    health = await rest.ok("GET", "/health/ready")
    assert health["backup"]["verified_ok"] is False
    assert health["status"] == "degraded"


# ---- restored
async def test_a_restore_makes_everything_as_it_was_and_can_itself_be_undone(rest: Rest) -> None:
    await rest.store("kept", 1, "acme")
    await rest.store("changed", 1, "acme")
    made = await some_backup(rest)
    rest.clock.advance(60)
    await rest.store("changed", 2, "acme")
    await rest.store("new", 2, "acme")
    plan = await rest.ok("POST", "/restore", {"backup_id": made, "dry_run": True})
    assert (plan["added"], plan["changed"], plan["removed"], plan["same"]) == (0, 1, 1, 1)
    assert plan["differences"][0]["samples"]["removed"] == ["new"]
    assert await values(rest) == {"kept": 1, "changed": 2, "new": 2}
    told = await rest.ok("POST", "/restore", {"backup_id": made})
    assert (told["changed"], told["removed"]) == (1, 1)
    assert await values(rest) == {"kept": 1, "changed": 1}
    safety = (await rest.ok("GET", "/backups"))["backups"][0]
    assert (safety["id"], safety["reason"]) == (told["safety_backup"], "safety")
    await rest.ok("POST", "/restore", {"backup_id": safety["id"], "safety": False})
    assert await values(rest) == {"kept": 1, "changed": 2, "new": 2}


async def test_a_merge_brings_back_what_is_missing_and_a_namespace_may_get_another_name(rest: Rest) -> None:
    await rest.store("a", 1, "acme")
    await rest.store("b", 1, "other")
    made = await some_backup(rest)
    await rest.ok("DELETE", "/delete/a?namespace=acme")
    await rest.store("new", 2, "acme")
    await rest.ok("POST", "/restore", {"backup_id": made, "mode": "merge", "safety": False})
    assert await values(rest) == {"a": 1, "new": 2}
    asked = {"backup_id": made, "mode": "namespace", "namespace": "acme", "target": "acme/before", "safety": False}
    await rest.ok("POST", "/restore", asked)
    assert await values(rest, "acme/before") == {"a": 1}
    assert await values(rest, "other") == {"b": 1}


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"mode": "namespace"}, "namespace"),
        ({"mode": "merge", "namespace": "acme"}, "namespace"),
        ({"mode": "replace", "target": "acme"}, "target"),
        ({"mode": "namespace", "namespace": "a//b"}, "namespace"),
        ({"as_of": "the day before"}, "as_of"),
    ],
)
async def test_a_restore_that_means_nothing_is_refused(one_rest: Rest, asked: dict[str, Any], field: str) -> None:
    made = await some_backup(one_rest)
    answer = await one_rest.ask("POST", "/restore", {"backup_id": made, **asked})
    refused(answer, 422, "invalid_input", field)


@pytest.mark.parametrize("backup_id", ["..", "../..", "/etc", "20260102T030405Z-9f86d081/../x", "a\0b", "*"])
async def test_no_id_leads_out_of_where_backups_lie(one_rest: Rest, backup_id: str) -> None:
    for method, path, body in (
        ("POST", "/restore", {"backup_id": backup_id}),
        ("POST", "/backup", {"parent": backup_id}),
    ):
        refused(await one_rest.ask(method, path, body), 404, "backup_not_found")
    written = backup_id.replace("/", "%2F").replace(".", "%2E").replace("\0", "%00")
    code = "no_such_route" if "/" in backup_id else "backup_not_found"
    for method in ("GET", "DELETE"):
        refused(await one_rest.ask(method, f"/backups/{written}"), 404, code)


# ---- deleted
async def test_a_backup_is_deleted_but_not_under_another_that_needs_it(rest: Rest) -> None:
    full = await rest.ok("POST", "/backup")
    heir = await some_backup(rest, parent=full["id"])
    told = refused(await rest.ask("DELETE", f"/backups/{full['id']}"), 409, "conflict")
    assert told["needed_by"] == [heir]
    await rest.ok("DELETE", f"/backups/{heir}")
    assert await rest.ok("DELETE", f"/backups/{full['id']}") == full
    assert (await rest.ok("GET", "/backups"))["backups"] == []
    refused(await rest.ask("GET", f"/backups/{full['id']}"), 404, "backup_not_found")


# ---- figures
async def figures(rest: Rest) -> dict[str, int]:
    """The samples of backups by name."""
    text = (await rest.client.get("/metrics")).text
    return {name: int(value) for name, value in re.findall(r"^unified_memory_(backup\w*) (\d+)$", text, re.MULTILINE)}


async def test_the_figures_tell_how_old_the_last_backup_and_its_proof_are(rest: Rest) -> None:
    assert await figures(rest) == {"backup_verified": 0, "backups": 0, "backup_bytes": 0}
    made = await rest.ok("POST", "/backup")
    rest.clock.advance(30)
    told = await figures(rest)
    assert (told["backup_age_seconds"], told["backups"], told["backup_bytes"]) == (30, 1, made["bytes"])
    assert "backup_verified_age_seconds" not in told
    await rest.ok("POST", f"/backups/{made['id']}/verify")
    rest.clock.advance(3600)
    told = await figures(rest)
    assert (told["backup_age_seconds"], told["backup_verified_age_seconds"], told["backup_verified"]) == (3630, 3600, 1)
