"""The migration over REST: which sources may be named, and what each step answers."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.rest.asking import Rest, refused
from unified_memory.model.errors import InvalidInputError, RefusedError, SourceError, UnifiedMemoryError
from unified_memory.model.principal import ANONYMOUS
from unified_memory.rest.migration import LIVE, Reachable
from unified_memory.sources.base import Options
from unified_memory.sources.kinds import KINDS, kind_of

BOUND = 20.0
BANK = {"kind": "memory-bank-files", "location": "bank"}


def put(rest: Rest, name: str, text: str) -> Path:
    """A file of the older bank."""
    path = rest.older / "bank" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def there(path: str) -> bool:
    return Path(path).exists()


async def keys(rest: Rest, namespace: str = "projects") -> dict[str, Any]:
    """What is stored there, by key."""
    listed = await rest.ok("GET", f"/list?namespace={namespace}")
    return {one["key"]: one["value"] for one in listed["memories"]}


async def until_there(rest: Rest, key: str) -> None:
    """Waits for what a run in the background copies."""
    async with asyncio.timeout(BOUND):
        since = 0
        while True:
            told = await rest.ok("GET", f"/changes?since={since}")
            if any(one["key"] == key for one in told["changes"]):
                return
            since = told["next"]
            await asyncio.sleep(0.02)


# ---- which sources may be named
@pytest.fixture
def older(tmp_path: Path) -> Path:
    """The directory below which sources may be named; beside it lies what nobody may read."""
    for name in ("older/bank/billing", "secret/billing"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "a.md").write_text("text")
    (tmp_path / "older/link").symlink_to(tmp_path / "secret")
    (tmp_path / "older/inner").symlink_to(tmp_path / "older/bank")
    return tmp_path / "older"


def test_what_lies_below_the_directory_may_be_named_however_it_is_spelled(older: Path) -> None:
    reachable = Reachable(older)
    for location in ("bank", "./bank/", "bank/../bank", str(older / "bank"), "inner"):
        assert reachable.place("memory-bank-files", location) == str(older / "bank"), location


def test_the_directory_may_be_a_link_itself(older: Path, tmp_path: Path) -> None:
    (tmp_path / "other").symlink_to(older)
    reachable = Reachable(tmp_path / "other")
    assert reachable.place("memory-bank-files", str(tmp_path / "other/bank")) == str(older / "bank")


@pytest.mark.parametrize(
    "location",
    [
        "..",
        "../secret",
        "bank/../../secret",
        "../nothing",
        "link",
        "link/billing",
        "/etc",
        "/nothing",
        "/proc/self/root/etc",
        "redis://127.0.0.1:6379/0",
        "http://127.0.0.1:3009",
        "file:///etc",
    ],
)
def test_what_lies_elsewhere_may_not_be_named_and_is_not_told_to_be_there(older: Path, location: str) -> None:
    with pytest.raises(RefusedError) as told:
        Reachable(older).place("memory-bank-files", location)
    assert "secret" not in told.value.detail
    assert told.value.hint


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_and_no_folder_may_not_be_named(older: Path, kind: str) -> None:
    (older / "run").write_text("#!/bin/sh\n")
    (older / "run").chmod(0o700)
    takes = kind_of(kind).takes
    assert (kind in LIVE) is not ("file" in takes or "folder" in takes), takes
    if kind in LIVE:
        with pytest.raises(RefusedError):
            Reachable(older).place(kind, "run")
    else:
        assert Reachable(older).place(kind, "run") == str(older / "run")


def test_where_nothing_is_below_the_directory_it_is_told(older: Path) -> None:
    with pytest.raises(SourceError):
        Reachable(older).place("memory-bank-files", "nothing")
    with pytest.raises(SourceError):
        Reachable(older).place("memory-bank-files", "a\0b")


def test_without_a_directory_nothing_may_be_named(older: Path) -> None:
    with pytest.raises(RefusedError, match="MIGRATION_DIR"):
        Reachable().place("memory-bank-files", str(older / "bank"))
    with pytest.raises(RefusedError):
        Reachable().check(live=True)


def test_on_the_machine_itself_anything_may_be_named(older: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reachable = Reachable(anything=True)
    monkeypatch.chdir(older)
    assert reachable.place("memory-bank-files", "../secret") == os.path.join(older, "../secret")  # noqa: PTH118 - as it was said
    assert reachable.place("memory-bank-files", "~/bank") == str(Path.home() / "bank")
    with pytest.raises(SourceError):
        reachable.place("memory-bank-files", "~nobody-of-that-name/bank")
    assert reachable.place("extended-memory-http", "http://127.0.0.1:3009") == "http://127.0.0.1:3009"
    assert reachable.place("extended-memory-mcp", "extended-memory-mcp --fast") == "extended-memory-mcp --fast"


@pytest.mark.parametrize("reachable", [Reachable(), Reachable(Path("/")), Reachable(anything=True)])
def test_a_kind_that_there_is_not_is_told_first(reachable: Reachable) -> None:
    with pytest.raises(InvalidInputError) as told:
        reachable.place("postgres", "/x")
    assert isinstance(told.value, UnifiedMemoryError)
    assert "memory-bank-files" in (told.value.hint or "")


# ---- the steps
async def test_a_plan_tells_what_would_come_of_it_and_changes_nothing(rest: Rest) -> None:
    for number in range(3):
        put(rest, f"billing/{number}.md", f"text {number}")
    plan = await rest.ok("POST", "/migration/plan", {"sources": [BANK], "first": 2})
    (source,) = plan["sources"]
    assert (source["survey"]["records"], source["survey"]["projects"]) == (3, {"billing": 3})
    assert [one["key"] for one in source["first"]] == ["0.md", "1.md"]
    assert source["looked_at"]["copied"] == 3
    assert await keys(rest) == {}
    assert (await rest.ok("GET", "/migration"))["phase"] == "none"


async def test_a_run_may_be_repeated_and_tells_what_it_did(rest: Rest) -> None:
    put(rest, "billing/a.md", "one")
    first = await rest.ok("POST", "/migration/run", {"sources": [BANK]})
    assert (first["complete"], first["phase"], first["sources"][0]["counts"]["copied"]) == (True, "shadow", 1)
    assert await keys(rest) == {"a.md": "one"}
    assert await rest.ok("GET", "/migration/report") == first
    put(rest, "billing/b.md", "two")
    # Without sources those of the run before are meant.
    second = await rest.ok("POST", "/migration/run", {"sources": []})
    counts = second["sources"][0]["counts"]
    assert (counts["read"], counts["copied"], counts["same"]) == (2, 1, 1)
    assert await keys(rest) == {"a.md": "one", "b.md": "two"}


async def test_what_becomes_of_records_may_be_said(rest: Rest) -> None:
    put(rest, "billing/a.md", "one")
    asked = {
        "sources": [BANK],
        "mapping": {"tags": ["older"], "importance": {"file": 3}, "projects": {"billing": "invoices"}},
        "namespace_template": "archive/{project}",
    }
    await rest.ok("POST", "/migration/run", asked)
    (stored,) = (await rest.ok("GET", "/list?namespace=archive"))["memories"]
    assert (stored["namespace"], stored["metadata"]["tags"], stored["metadata"]["importance"]) == (
        "archive/invoices",
        ["older"],
        3,
    )


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({"mapping": {"colours": 1}}, "mapping.colours"),
        ({"mapping": {"importance": {"file": 11}}}, "importance.file"),
        ({"namespace_template": "{colour}"}, "namespace_template"),
        ({"namespace_template": "{project:>300000000}"}, "namespace_template"),
        ({"mapping": {"namespaces": {"file": "{project:{kind}}"}}}, "namespaces.file"),
        ({"on_conflict": "newer"}, "on_conflict"),
        ({"prefix": 5}, "prefix"),
    ],
)
@pytest.mark.parametrize("step", ["plan", "run"])
async def test_what_cannot_be_said_is_refused_at_once(
    one_rest: Rest, step: str, asked: dict[str, Any], field: str
) -> None:
    put(one_rest, "billing/a.md", "one")
    told = await one_rest.ask("POST", f"/migration/{step}?wait=0", {"sources": [BANK], **asked})
    refused(told, 422, "invalid_input", field)


async def test_a_source_that_may_not_be_named_is_refused_at_once(one_rest: Rest) -> None:
    for step in ("plan", "run"):
        for kind, location in (("memory-bank-files", "/etc"), ("extended-memory-mcp", "id")):
            asked = {"sources": [{"kind": kind, "location": location}]}
            told = refused(await one_rest.ask("POST", f"/migration/{step}?wait=0", asked), 403, "refused")
            assert "unified-memory migrate" in told["hint"]
    told = await one_rest.ask("POST", "/migration/verify?wait=0", {"older": "id"})
    refused(told, 403, "refused")


async def test_a_run_that_follows_goes_on_until_its_job_is_cancelled(rest: Rest) -> None:
    put(rest, "billing/a.md", "one")
    answer = await rest.ask("POST", "/migration/run?wait=0", {"sources": [BANK], "follow": True, "interval": 0.1})
    assert answer.status_code == 202
    job_id = answer.json()["job"]["id"]

    await until_there(rest, "a.md")
    put(rest, "billing/b.md", "two")
    await until_there(rest, "b.md")
    refused(await rest.ask("POST", "/migration/run", {"sources": []}), 409, "in_progress")
    ended = await rest.ok("DELETE", f"/jobs/{job_id}")
    assert (ended["state"], ended["total"]) == ("cancelled", None)
    assert (await rest.ok("GET", "/migration/report"))["sources"][0]["counts"]["copied"] >= 1
    again = await rest.ok("POST", "/migration/run", {"sources": []})
    assert again["sources"][0]["counts"]["same"] == 2


async def test_a_run_that_follows_ends_with_the_switch(rest: Rest) -> None:
    put(rest, "billing/a.md", "one")
    await rest.ok("POST", "/migration/run", {"sources": [BANK]})
    put(rest, "billing/b.md", "two")
    answer = await rest.ask("POST", "/migration/run?wait=0", {"sources": [], "follow": True, "interval": 0.1})
    job_id = answer.json()["job"]["id"]
    await until_there(rest, "b.md")
    assert (await rest.ok("POST", "/migration/switch", {}))["phase"] == "switched"
    ended = await asyncio.wait_for(rest.service.jobs.finished(ANONYMOUS, job_id), BOUND)
    assert ended.state == "done"


async def test_there_and_back_again_loses_nothing(rest: Rest) -> None:
    older = put(rest, "billing/a.md", "one")
    await rest.ok("POST", "/migration/run", {"sources": [BANK]})
    refused(await rest.ask("POST", "/migration/finish", {}), 409, "migration_state")
    switched = await rest.ok("POST", "/migration/switch", {"timeout": 5})
    assert switched["phase"] == "switched"
    await rest.ok("PUT", "/update/a.md?namespace=projects/billing", {"value": "uno"})
    await rest.store("b.md", "due", "projects/billing")
    back = await rest.ok("POST", "/migration/rollback", {})
    assert (back["status"], back["phase"], back["returned"]) == ("rollback_complete", "returned", 2)
    assert Path(back["backup_used"]).is_relative_to(rest.backups / "pre-migration")
    assert older.read_text() == "uno"
    assert older.with_name("b.md").read_text() == "due"
    assert await rest.ok("POST", "/migration/rollback", {}) == back
    # And once more, to the end.
    await rest.ok("POST", "/migration/run", {"sources": []})
    await rest.ok("POST", "/migration/switch", {})
    finished = await rest.ok("POST", "/migration/finish", {})
    assert finished["phase"] == "finished"
    assert [there(one) for one in finished["backups"]] == [True]
    assert any(str(rest.older) in one for one in finished["commands"])
    assert older.exists()
    refused(await rest.ask("POST", "/migration/rollback", {}), 409, "migration_state")


async def test_what_differs_from_its_source_is_told(rest: Rest) -> None:
    for name in ("billing/a.md", "billing/b.md", "web/a.md"):
        put(rest, name, f"This is {name}")
    refused(await rest.ask("POST", "/migration/verify", {}), 409, "migration_state")
    await rest.ok("POST", "/migration/run", {"sources": [BANK]})
    told = await rest.ok("POST", "/migration/verify", {"samples": 5})
    assert (told["ok"], told["differences"], told["replay"]) == (True, [], None)
    assert told["sources"][0]["projects"] == [
        {"project": "billing", "there": 2, "here": 2, "same": 2},
        {"project": "web", "there": 1, "here": 1, "same": 1},
    ]
    await rest.ok("PUT", "/update/a.md?namespace=projects/web", {"value": "Something else"})
    await rest.ok("DELETE", "/delete/b.md?namespace=projects/billing")
    told = await rest.ok("POST", "/migration/verify", {})
    assert not told["ok"]
    assert [(one["origin"], one["what"]) for one in told["differences"]] == [
        ("file/billing/b.md", "missing"),
        ("file/web/a.md", "value"),
    ]


@pytest.mark.parametrize(
    ("location", "told"),
    [
        ("redis://:secret@127.0.0.1:6379/0", "redis://:***@127.0.0.1:6379/0"),
        ("redis://ann:se:cr@t@127.0.0.1", "redis://ann:***@127.0.0.1"),
        ("http://127.0.0.1:3009/a:b@c", "http://127.0.0.1:3009/a:b@c"),
        ("/srv/a:b@c", "/srv/a:b@c"),
    ],
)
async def test_a_password_is_never_told(one_rest: Rest, location: str, told: str) -> None:
    ledger = await one_rest.service.migration.ledger()
    ledger.add_source("extended-memory-redis", location, Options())
    (source,) = (await one_rest.ok("GET", "/migration"))["sources"]
    assert source["location"] == told
