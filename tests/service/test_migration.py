"""What a run copies, and what it leaves as it is."""

import asyncio
import hashlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.moving import PLAIN, Moving, moving, until
from tests.service.older import Notes, context, file, write
from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import (
    InProgressError,
    InvalidInputError,
    MigrationStateError,
    PermissionDeniedError,
    ReadOnlyError,
    SourceError,
)
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.service.leasing import RUN_LEASE, alone
from unified_memory.service.mapping import Mapping
from unified_memory.service.migration import RollbackManager, RunOptions
from unified_memory.service.requests import PatchRequest
from unified_memory.sources.ledger import Phase

CONTEXTS, FILES, NOTES = "extended-memory-sqlite", "memory-bank-files", Notes.kind


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Moving]:
    async with moving(tmp_path) as made:
        yield made


async def test_a_run_copies_each_record_and_says_so(one: Moving) -> None:
    one.holds(
        CONTEXTS,
        [context(1, "first", tags=["a"], importance=9), context(2, "second", "infra"), context(4, "none", None)],
    )
    one.holds(FILES, [file("notes.md")])
    report = await one.run(CONTEXTS, FILES)
    memories = await one.memories()
    assert {(namespace, key.partition("~")[0]) for namespace, key in memories} == {
        ("projects/web", "context/1"),
        ("projects/infra", "context/2"),
        ("migrated_extended", "context/4"),
        ("projects/web", "notes.md"),
    }
    first = next(memory for (_, key), memory in memories.items() if key.startswith("context/1~"))
    assert (first.tags, first.importance, first.project_id, first.created_at) == (("a",), 9, "web", 1_000_000)
    assert {name: json.loads(bytes(raw)) for name, raw in first.extra.items()} == {
        "migrated_from": "extended-memory",
        "legacy_id": 1,
        "legacy_created_at": "1000000",
    }
    assert [(one.counts.read, one.counts.copied) for one in report.sources] == [(3, 3), (1, 1)]
    assert [(part.project, part.counts.copied) for part in report.sources[0].projects] == [
        (None, 1),
        ("infra", 1),
        ("web", 1),
    ]
    assert report.complete
    assert await one.migration.phase() is Phase.SHADOW
    assert await one.migration.report() == report


async def test_the_list_of_records_tells_what_the_older_service_had(one: Moving) -> None:
    one.holds(CONTEXTS, [context(1, "größer", tags=["a", "b"], importance=8)])
    await one.run(CONTEXTS)
    (line,) = one.lines("records.jsonl")
    text = "größer".encode()
    assert line["sha256"] == hashlib.sha256(text).hexdigest()
    assert (line["bytes"], line["tags"], line["importance"], line["id"]) == (len(text), ["a", "b"], 8, 1)
    assert (line["created_at"], line["created_at_utc"]) == ("1000000", "1970-01-01T00:00:01.000000Z")


async def test_a_second_run_changes_nothing(one: Moving) -> None:
    one.holds(CONTEXTS, [context(1), context(2)])
    await one.run(CONTEXTS)
    before = await one.memories()
    report = await one.run()
    assert report.sources[0].counts.same == 2
    assert await one.memories() == before


async def test_what_a_lost_ledger_knew_is_found_by_what_is_stored(one: Moving) -> None:
    one.holds(CONTEXTS, [context(1), context(2)])
    await one.run(CONTEXTS)
    before = await one.memories()
    (await one.migration.ledger()).clear()
    report = await one.run()
    assert report.sources[0].counts.same == 2
    assert await one.memories() == before
    assert (await one.migration.status(ANONYMOUS)).sources[0].copied == 2


async def test_a_copy_that_a_kill_has_left_unnoted_is_still_of_its_record(one: Moving) -> None:
    one.holds(FILES, [file("a", "1")])
    await one.run(FILES)
    (await one.migration.ledger()).clear()
    one.holds(FILES, [file("a", "one")])
    assert (await one.run()).conflicts == []
    assert await one.texts() == {"a": "one"}


async def test_what_changed_in_the_source_is_written_and_what_is_gone_goes(one: Moving) -> None:
    one.holds(FILES, [file("a", "1"), file("b", "2"), file("c", "3")])
    await one.run(FILES)
    one.holds(FILES, [file("a", "one"), file("c", "3"), file("d", "4")])
    counts = (await one.run()).sources[0].counts
    assert (counts.changed, counts.removed, counts.copied, counts.same) == (1, 1, 1, 1)
    assert await one.texts() == {"a": "one", "c": "3", "d": "4"}


async def test_a_number_that_was_used_again_names_another_memory(one: Moving) -> None:
    one.holds(CONTEXTS, [context(1, "old")])
    await one.run(CONTEXTS)
    (before,) = await one.memories()
    one.holds(CONTEXTS, [context(1, "new")])
    await one.run()
    (after,) = await one.memories()
    assert list((await one.texts()).values()) == ["new"]
    assert before != after


async def test_before_the_switch_the_source_is_right_where_both_have_changed(one: Moving) -> None:
    one.holds(FILES, [file("a", "1"), file("b", "2")])
    await one.run(FILES)
    await one.store("projects/web", "a", "ours")
    await one.store("projects/web", "b", "ours")
    one.holds(FILES, [file("a", "one"), file("b", "2")])
    await one.run()
    # What has not changed in the source since is left as it is here.
    assert await one.texts() == {"a": "one", "b": "ours"}


async def test_what_was_here_before_stays_and_is_told(one: Moving) -> None:
    await one.store("projects/web", "a", "ours")
    await one.store("projects/web", "b", "content of b")
    one.holds(FILES, [file("a"), file("b")])
    report = await one.run(FILES)
    assert (await one.texts())["a"] == "ours"
    assert [(told.origin, told.reason) for told in report.conflicts] == [
        ("file/web/a", "Something else is stored here in its place: projects/web: a"),
        ("file/web/b", "Something else is stored here in its place: projects/web: b"),
    ]
    assert (await one.migration.status(ANONYMOUS)).sources[0].conflicts == 2


async def test_what_was_here_before_is_replaced_where_that_is_asked_for(one: Moving) -> None:
    await one.store("projects/web", "a", "ours")
    one.holds(FILES, [file("a")])
    report = await one.run(FILES, options=RunOptions(rollback_point=False, on_conflict="replace"))
    assert await one.texts() == {"a": "content of a"}
    assert (report.sources[0].counts.changed, report.conflicts) == (1, [])
    past = await one.service.storage.past("projects/web", "a", one.service.clock.now(), before=None, limit=9)
    assert len(past) == 1


async def test_what_was_deleted_here_stays_deleted_unless_it_is_asked_for(one: Moving) -> None:
    one.holds(FILES, [file("a"), file("b")])
    await one.run(FILES)
    await one.service.memories.delete(ANONYMOUS, "projects/web", "a")
    await one.run()
    assert set(await one.texts()) == {"b"}
    await one.run(options=RunOptions(on_conflict="replace"))
    assert set(await one.texts()) == {"a", "b"}


async def test_other_programs_are_not_right_where_ours_was_changed(one: Moving) -> None:
    one.older(NOTES).write_text(json.dumps({"a": "1", "b": "2", "c": "3"}))
    await one.run(NOTES)
    assert await one.migration.phase() is Phase.NONE
    await one.store("migrated_server_memory", "a", "ours")
    await one.store("migrated_server_memory", "c", "ours too")
    one.older(NOTES).write_text(json.dumps({"a": "one", "b": "two"}))
    report = await one.run(NOTES)
    assert await one.texts() == {"a": "ours", "b": "two", "c": "ours too"}
    assert [told.origin for told in report.conflicts] == ["a", "c"]


async def test_what_cannot_be_stored_is_listed_with_the_reason(one: Moving) -> None:
    one.holds(
        CONTEXTS,
        [
            context(1, notes=["huge: Its number has 30 digits"]),
            {"id": 2, "bad": "NaN"},
            {"id": 3, "skip": "It is a folder"},
            context(4, "x", "a\ud800b"),
        ],
    )
    report = await one.run(CONTEXTS)
    assert [(line["origin"], line["code"], line["stored"], line["raw"]) for line in one.lines("quarantine.jsonl")] == [
        ("context/1", "huge", True, '"context 1"'),
        ("context/2", "nan", False, "NaN"),
        ("context/4", "surrogate", False, '"x"'),
    ]
    counts = report.sources[0].counts
    assert (counts.copied, counts.noted, counts.quarantined, counts.skipped) == (1, 1, 2, 1)
    one.holds(CONTEXTS, [context(1)])
    await one.run()
    assert one.lines("quarantine.jsonl") == []


async def test_a_source_that_fails_in_the_middle_removes_nothing(one: Moving) -> None:
    one.holds(FILES, [file("a"), file("b")])
    await one.run(FILES)
    one.holds(FILES, [file("a"), {"project": "web", "name": "x", "break": True}])
    with pytest.raises(SourceError, match="damaged"):
        await one.run()
    assert set(await one.texts()) == {"a", "b"}
    assert (await one.migration.status(ANONYMOUS)).run is None


async def test_contexts_of_two_sources_do_not_go_by_one_number(one: Moving) -> None:
    native = await one.service.contexts.save(ANONYMOUS, "ours", project="web", importance=5, tags=())
    one.holds(CONTEXTS, [context(native.id, "theirs"), context(native.id + 1, "other")])
    report = await one.run(CONTEXTS)
    theirs = next(memory for memory in (await one.memories()).values() if memory.value == b'"theirs"')
    assert [(told.former, told.number) for told in report.renumbered] == [(str(native.id), theirs.id)]
    assert "former_id" in theirs.extra
    await one.service.contexts.forget(ANONYMOUS, native.id + 1)
    later = await one.service.contexts.save(ANONYMOUS, "later", project="web", importance=5, tags=())
    assert later.id > native.id + 1
    assert set((await one.texts()).values()) == {"ours", "theirs", "later"}


async def test_a_dry_run_tells_the_same_and_writes_nothing(one: Moving) -> None:
    one.holds(CONTEXTS, [context(1, "x" * 500), context(2)])
    one.holds(FILES, [file("a")])
    await one.store("projects/web", "a", "ours")
    before, listed = await one.memories(), sorted(path.name for path in one.directory.iterdir())
    told = await one.run(CONTEXTS, FILES, options=RunOptions(dry_run=True, first=1))
    assert await one.memories() == before
    assert sorted(path.name for path in one.directory.iterdir()) == listed
    assert [(shown.origin, len(shown.value)) for shown in told.first] == [("context/1", 200), ("file/web/a", 18 - 4)]
    done = await one.run(CONTEXTS, FILES)
    assert [one.counts for one in told.sources] == [one.counts for one in done.sources]
    assert told.conflicts == done.conflicts


async def test_a_plan_looks_at_the_sources_and_at_what_is_in_the_way(one: Moving) -> None:
    one.holds(FILES, [file("a"), file("b")])
    await one.store("projects/web", "a", "ours")
    plan = await one.migration.plan(ANONYMOUS, [one.source(FILES)], RunOptions(first=1))
    (planned,) = plan.sources
    assert (planned.survey.records, len(planned.first), [told.origin for told in planned.conflicts]) == (
        2,
        1,
        ["file/web/a"],
    )
    assert plan.free_bytes
    assert not (one.directory / "migration").exists()


async def test_a_plan_without_a_source_tells_what_is_found(
    one: Moving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    for place in (".local/share/extended-memory-mcp/memory.db", ".claude-mem/claude-mem.db", "memory_bank.db"):
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).touch()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(home)
    # With a ledger that knows of no source, and without one.
    for _ in range(2):
        plan = await one.migration.plan(ANONYMOUS)
        assert (plan.phase, plan.sources, plan.needed_bytes) == ("none", [], 0)
        assert [found for found in plan.found if found[1].startswith(str(home))] == [
            ("extended-memory-sqlite", f"{home}/.local/share/extended-memory-mcp/memory.db"),
            ("memory-bank-sqlite", f"{home}/memory_bank.db"),
            ("claude-mem", f"{home}/.claude-mem/claude-mem.db"),
        ]
        await one.migration.ledger()


async def test_what_is_noted_of_places_is_found_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with moving(Path("data")) as one:
        one.holds(FILES, [file("a")])
        report = await one.run(FILES, options=RunOptions())
        assert one.migration.directory == tmp_path / "data/migration"
    assert Path(report.rollback_point or "").is_relative_to(tmp_path)


async def test_a_password_is_in_the_ledger_and_nowhere_else(one: Moving) -> None:
    location = f"{one.directory}/redis://me:secret@host"
    Path(location).parent.mkdir(parents=True)
    write(Path(location), [context(1), {"id": 2, "bad": "NaN"}, context(4, tags=["x"])])
    await one.migration.run(ANONYMOUS, [(CONTEXTS, location)], RunOptions())
    await one.store("projects/web", "context/4~x", "1")
    told: list[Any] = [
        await one.migration.status(ANONYMOUS),
        await one.migration.verify(ANONYMOUS),
        await one.migration.switch(ANONYMOUS),
    ]
    await one.service.contexts.forget(ANONYMOUS, 1)
    told.append(await one.migration.rollback(ANONYMOUS))
    directory = one.directory / "migration"
    assert "secret" not in repr(told)
    assert "me:***@host" in repr(told)
    lists = {path.name: path.read_text() for path in directory.iterdir() if path.suffix in {".json", ".jsonl", ".md"}}
    assert {"report.json", "report.md", "records.jsonl", "quarantine.jsonl", "returned.jsonl"} <= lists.keys()
    assert [name for name, text in lists.items() if "secret" in text] == []


async def test_the_mapping_says_where_everything_goes(one: Moving) -> None:
    mapping = Mapping(
        namespace_template="old/{service}/{project}",
        projects={"web": "site"},
        tags=("imported",),
        importance={"file": 3},
    )
    one.holds(FILES, [file("a")])
    await one.run(FILES, options=RunOptions(rollback_point=False, mapping=mapping))
    ((place, memory),) = (await one.memories()).items()
    assert place == ("old/memory-bank-mcp/site", "a")
    assert (memory.tags, memory.importance, memory.project_id) == (("imported",), 3, "web")


async def test_with_another_mapping_memories_move(one: Moving) -> None:
    one.holds(FILES, [file("a")])
    await one.run(FILES)
    await one.run(options=RunOptions(mapping=Mapping(namespace_template="old/{project}"), on_conflict="replace"))
    assert set(await one.memories()) == {("old/web", "a")}


async def test_a_run_that_follows_copies_what_comes_until_the_switch(one: Moving) -> None:
    one.holds(FILES, [file("a")])
    running = asyncio.create_task(one.run(FILES, options=RunOptions(rollback_point=False, follow=True, interval=0.01)))
    await until(lambda: one.has("a"))
    one.holds(FILES, [file("a"), file("b")])
    await until(lambda: one.has("b"))
    await one.migration.switch(ANONYMOUS)
    report = await running
    assert (report.sources[0].counts.copied, report.sources[0].counts.read) == (2, 2)


async def test_a_run_that_is_cancelled_lets_the_next_one_begin(one: Moving) -> None:
    one.holds(FILES, [file("a")])
    running = asyncio.create_task(one.run(FILES, options=RunOptions(rollback_point=False, follow=True, interval=60)))
    await until(lambda: one.has("a"))
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert (await one.migration.status(ANONYMOUS)).run is None
    assert (await one.run()).sources[0].counts.same == 1


async def test_what_a_dead_process_held_is_taken_over(one: Moving) -> None:
    one.holds(FILES, [file("a")])
    await one.run(FILES)
    dead = await asyncio.create_subprocess_exec("true")
    await dead.wait()
    runner = {"host": socket.gethostname(), "pid": dead.pid, "holder": "x"}
    (await one.migration.ledger()).put("run", runner)
    now = one.service.clock.now()
    assert await one.service.storage.lease(RUN_LEASE, "x", now, now + 10**9)
    assert (await one.migration.status(ANONYMOUS)).run is None
    assert (await one.run()).complete


async def test_progress_is_told_in_records(one: Moving) -> None:
    one.holds(FILES, [file(f"f{number}") for number in range(120)])
    told: list[tuple[int, int | None]] = []

    async def advance(done: int, total: int | None) -> None:
        told.append((done, total))

    await one.migration.run(ANONYMOUS, [one.source(FILES)], PLAIN, advance)
    assert told[-1] == (120, 120)
    assert told == sorted(told)


async def test_one_run_at_a_time(one: Moving) -> None:
    one.holds(FILES, [file("a")])
    await one.run(FILES)
    (await one.migration.ledger()).put("run", {"host": "other", "pid": 7, "holder": "x"})
    async with alone(one.service.storage, one.service.clock, RUN_LEASE, ""):
        with pytest.raises(InProgressError, match="process 7 on other"):
            await one.run()


async def test_who_does_not_see_all_may_not_migrate(one: Moving) -> None:
    narrow = Principal("narrow", ("projects",))
    with pytest.raises(PermissionDeniedError):
        await one.migration.run(narrow, [], PLAIN)
    with pytest.raises(PermissionDeniedError):
        await one.migration.status(narrow)


async def test_nothing_is_migrated_while_writes_are_off(one: Moving) -> None:
    one.holds(FILES, [file("a")])
    await one.service.storage.set_read_only("for a while")
    with pytest.raises(ReadOnlyError):
        await one.run(FILES)


async def test_a_run_needs_a_source_that_there_is(one: Moving) -> None:
    with pytest.raises(InvalidInputError) as refused:
        await one.run()
    assert refused.value.field == "source"
    with pytest.raises(SourceError):
        await one.run(FILES)
    assert await one.migration.phase() is Phase.NONE


async def test_nothing_is_reported_before_the_first_run(one: Moving) -> None:
    with pytest.raises(MigrationStateError):
        await one.migration.report()
    assert (await one.migration.status(ANONYMOUS)).phase == "none"


async def test_the_report_is_written_for_people_too(one: Moving) -> None:
    one.holds(FILES, [file("a", project="x|`y")])
    await one.run(FILES)
    text = (one.directory / "migration" / "report.md").read_text()
    assert "| `x\\|'y` | 1 | 1 | 0 |" in text


async def test_a_rollback_point_holds_what_the_older_services_had(one: Moving) -> None:
    one.holds(CONTEXTS, [context(1, "first", tags=["a"]), {"id": 2, "bad": "NaN"}])
    one.holds(FILES, [file("a")])
    await one.store("default", "before", 1)
    report = await one.run(CONTEXTS, FILES, options=RunOptions())
    assert report.rollback_point is not None
    point: dict[str, Any] = one.read(report.rollback_point)
    assert set(point) == {"extended_memory", "memory_bank", "timestamp", "version"}
    assert [one["content"] for one in point["extended_memory"] if "content" in one] == ["first"]
    assert [(one["id"], one["data"]) for one in point["memory_bank"]] == [("web/a", "content of a")]
    (backup,) = await one.service.backups.list_all(ANONYMOUS)
    assert backup.manifest.memories == 1
    again = await one.run(options=RunOptions())
    assert again.rollback_point == report.rollback_point


async def test_a_rollback_point_may_be_empty(one: Moving) -> None:
    path = await RollbackManager(one.migration).create_rollback_point()
    assert one.read(path)["extended_memory"] == []


async def test_the_shadow_sees_what_the_older_service_has_under_an_address(one: Moving) -> None:
    one.holds(FILES, [file("a", "1"), file("b", "2")])
    await one.run(FILES)
    one.holds(FILES, [file("a", "one"), file("c", "3")])
    for name in ("a", "b", "c", "never"):
        await one.migration.mirror("memory-bank-mcp", "file", "web", name)
    assert await one.texts() == {"a": "one", "c": "3"}
    assert (await one.run()).sources[0].counts.same == 2


async def test_the_shadow_forgets_a_context(one: Moving) -> None:
    one.holds(CONTEXTS, [context(1), context(2)])
    await one.run(CONTEXTS)
    one.holds(CONTEXTS, [context(2), context(3)])
    await one.migration.mirror("extended-memory", "context", None, "1")
    await one.migration.mirror("extended-memory", "context", "web", "3")
    assert set((await one.texts()).values()) == {"context 2", "context 3"}


async def test_a_change_here_during_a_copy_is_not_lost_unseen(tmp_path: Path) -> None:
    async with moving(tmp_path, SettableClock()) as one:
        one.holds(FILES, [file("a", '{"n": 1}')])
        await one.run(FILES)
        await one.store("projects/web", "a", {"n": 1})
        await one.service.memories.patch(ANONYMOUS, "projects/web", "a", PatchRequest(increment={"n": b"1"}))  # type: ignore[dict-item]
        assert (await one.run()).sources[0].counts.same == 1
        assert await one.texts() == {"a": {"n": 2}}
