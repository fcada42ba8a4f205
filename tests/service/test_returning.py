"""The switch, what goes back, and the way back itself."""

import asyncio
import json
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.service.moving import PLAIN, Moving, moving, until
from tests.service.older import Contexts, Files, Notes, Record, context, file, write
from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import (
    InProgressError,
    MigrationStateError,
    PermissionDeniedError,
    SourceError,
    StorageCorruptError,
)
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.service.leasing import PASS_LEASE, RETURN_LEASE, SHORT_LEASE_SECONDS, Lease, alone
from unified_memory.service.mapping import Mapping
from unified_memory.service.migration import RollbackManager, RunOptions
from unified_memory.service.returning import CURSOR
from unified_memory.sources.base import ALL_LOST, Back, Returned
from unified_memory.sources.ledger import TRANSITION_SECONDS, Phase

CONTEXTS, FILES, NOTES = "extended-memory-sqlite", "memory-bank-files", Notes.kind


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Moving]:
    async with moving(tmp_path) as made:
        yield made


@pytest.fixture
async def switched(one: Moving) -> Moving:
    """After the switch, with two contexts and two files copied."""
    one.holds(CONTEXTS, [context(1), context(2, tags=["a"])])
    one.holds(FILES, [file("a"), file("b")])
    await one.run(CONTEXTS, FILES, options=RunOptions())
    await one.migration.switch(ANONYMOUS)
    return one


def contents(one: Moving, name: str) -> dict[Any, str]:
    return {record.get("name", record.get("id")): record["content"] for record in one.records(name)}


async def save(one: Moving, text: str) -> int:
    return (await one.service.contexts.save(ANONYMOUS, text, project="web", importance=5, tags=())).id


# ---- the switch
async def test_the_switch_copies_what_came_last(one: Moving) -> None:
    one.holds(FILES, [file("a")])
    await one.run(FILES)
    one.holds(FILES, [file("b")])
    status = await one.migration.switch(ANONYMOUS)
    assert (status.phase, set(await one.texts())) == ("switched", {"b"})


async def test_there_is_no_switch_without_a_complete_run(one: Moving) -> None:
    with pytest.raises(MigrationStateError) as refused:
        await one.migration.switch(ANONYMOUS)
    assert refused.value.facts["state"] == "none"
    one.holds(FILES, [file("a"), {"project": "web", "name": "x", "break": True}])
    with pytest.raises(SourceError):
        await one.run(FILES)
    with pytest.raises(MigrationStateError, match="complete"):
        await one.migration.switch(ANONYMOUS)


async def test_the_switch_waits_for_every_proxy_to_hold_back(one: Moving) -> None:
    one.holds(FILES, [file("a")])
    await one.run(FILES)
    proxy_id = await one.migration.join("memory-bank-mcp")
    await one.migration.beat(proxy_id, Phase.SHADOW)
    with pytest.raises(MigrationStateError, match="memory-bank-mcp"):
        await one.migration.switch(ANONYMOUS, wait=0.05)
    assert await one.migration.phase() is Phase.SHADOW
    switching = asyncio.create_task(one.migration.switch(ANONYMOUS))

    async def held() -> bool:
        return await one.migration.phase() is Phase.SWITCHING

    await until(held)
    # What was in flight is still copied.
    one.holds(FILES, [file("a"), file("late")])
    await one.migration.beat(proxy_id, Phase.SWITCHING)
    status = await switching
    assert (status.phase, status.proxies[0].service) == ("switched", "memory-bank-mcp")
    assert "late" in await one.texts()


async def test_a_switch_that_fails_leaves_the_phase_as_it_was(one: Moving) -> None:
    one.holds(FILES, [file("a")])
    await one.run(FILES)
    one.holds(FILES, [{"project": "web", "name": "x", "break": True}])
    with pytest.raises(SourceError):
        await one.migration.switch(ANONYMOUS)
    assert await one.migration.phase() is Phase.SHADOW
    assert set(await one.texts()) == {"a"}


async def test_a_switch_whose_process_was_killed_did_not_take_place(tmp_path: Path) -> None:
    clock = SettableClock()
    async with moving(tmp_path, clock) as one:
        one.holds(FILES, [file("a")])
        await one.run(FILES)
        (await one.migration.ledger()).set_phase(Phase.SWITCHING)
        assert await one.migration.phase() is Phase.SWITCHING
        clock.advance(TRANSITION_SECONDS)
        assert await one.migration.phase() is Phase.SHADOW


async def test_after_the_switch_nothing_is_copied_from_the_older_service(switched: Moving) -> None:
    with pytest.raises(MigrationStateError):
        await switched.run()
    await switched.migration.mirror("memory-bank-mcp", "file", "web", "a")
    switched.older(NOTES).write_text(json.dumps({"n": "1"}))
    assert (await switched.run(NOTES)).sources[0].counts.copied == 1
    assert await switched.migration.phase() is Phase.SWITCHED


# ---- what goes back
async def test_what_is_stored_changed_and_deleted_goes_back(switched: Moving) -> None:
    one = switched
    number = await save(one, "new")
    await one.service.contexts.forget(ANONYMOUS, 1)
    await one.service.bank.update(ANONYMOUS, "web", "a", "changed")
    await one.service.bank.write(ANONYMOUS, "other", "c", "made")
    await one.service.memories.delete(ANONYMOUS, "projects/web", "b")
    await one.store("default", "elsewhere", 1)
    assert await one.migration.return_pass() == 5
    assert contents(one, CONTEXTS) == {2: "context 2", number: "new"}
    assert contents(one, FILES) == {"a": "changed", "c": "made"}
    assert await one.migration.return_pass() == 0


async def test_what_goes_back_twice_after_a_kill_changes_nothing_more(switched: Moving) -> None:
    one = switched
    ledger = await one.migration.ledger()
    cursor = ledger.get(CURSOR)
    number = await save(one, "new")
    await one.service.bank.write(ANONYMOUS, "web", "c", "made")
    await one.migration.return_pass()
    ledger.put(CURSOR, cursor)
    for row in ledger.by_place("projects/web", "c"):
        ledger.drop(row.source, [row.origin])
    # The context is noted as it is here already.
    assert await one.migration.return_pass() == 1
    assert set(contents(one, CONTEXTS)) == {1, 2, number}
    assert contents(one, FILES) == {"a": "content of a", "b": "content of b", "c": "made"}


async def test_what_a_format_cannot_hold_is_listed(switched: Moving) -> None:
    await switched.store("projects/web", "context/ours", {"a": 1})
    told = await switched.migration.rollback(ANONYMOUS)
    assert (told.returned, told.lost) == (1, 1)
    (line,) = switched.lines("returned.jsonl")
    assert (line["key"], line["lost"]) == ("context/ours", ["It is no text"])


async def test_what_the_older_service_cannot_do_is_listed_and_does_not_prevent_the_way_back(
    switched: Moving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Files, records: dict[str, Record], back: Back) -> Returned:  # noqa: ARG001 - as a source does
        return Returned(origin=back.origin, lost=(f"{ALL_LOST}its tools delete nothing and empty nothing",))

    monkeypatch.setattr(Files, "put", refuse)
    await switched.service.memories.delete(ANONYMOUS, "projects/web", "a")
    await switched.service.bank.update(ANONYMOUS, "web", "b", "changed")
    told = await switched.migration.rollback(ANONYMOUS)
    assert (told.status, told.lost) == ("rollback_complete", 2)
    assert {line["key"] for line in switched.lines("returned.jsonl")} == {"a", "b"}
    assert contents(switched, FILES) == {"a": "content of a", "b": "content of b"}


async def test_what_others_have_written_there_since_the_switch_is_told(switched: Moving) -> None:
    one = switched
    one.holds(CONTEXTS, [context(1, "theirs"), context(2, tags=["a"])])
    one.holds(FILES, [file("b", "not ours")])
    await one.service.contexts.forget(ANONYMOUS, 1)
    await one.service.bank.update(ANONYMOUS, "web", "a", "ours")
    told = await one.migration.rollback(ANONYMOUS)
    assert (told.returned, told.lost) == (2, 2)
    assert contents(one, CONTEXTS) == {2: "context 2"}
    assert contents(one, FILES) == {"a": "ours", "b": "not ours"}
    assert {line["key"].partition("~")[0]: line["lost"] for line in one.lines("returned.jsonl")} == {
        "context/1": ["What was written there since the switch: theirs"],
        "a": ["That it was deleted there since the switch"],
    }


async def test_what_others_have_written_over_what_went_back_is_told_and_gives_way(switched: Moving) -> None:
    one = switched
    await one.service.bank.update(ANONYMOUS, "web", "a", "ours")
    number = await save(one, "new")
    assert await one.migration.return_pass() == 2
    one.holds(FILES, [file("a", "theirs"), file("b")])
    one.holds(CONTEXTS, [context(1), context(2, tags=["a"])])
    told = await one.migration.rollback(ANONYMOUS)
    assert (contents(one, FILES)["a"], contents(one, CONTEXTS)[number]) == ("ours", "new")
    assert (told.returned, told.verified, told.lost) == (2, 2, 2)
    lost = [line["lost"] for line in one.lines("returned.jsonl")]
    assert ["What was written there since the switch: theirs"] in lost


async def test_what_went_back_before_says_nothing_of_the_next_way_back(switched: Moving) -> None:
    one = switched
    number = await save(one, "new")
    await one.migration.rollback(ANONYMOUS)
    one.holds(CONTEXTS, [record for record in one.records(CONTEXTS) if record["id"] != number])
    await one.run()
    await one.migration.switch(ANONYMOUS)
    told = await one.migration.rollback(ANONYMOUS)
    assert (told.returned, set(contents(one, CONTEXTS))) == (0, {1, 2})


async def test_one_that_was_killed_while_it_wrote_back_is_not_waited_for_long(tmp_path: Path) -> None:
    clock = SettableClock()
    async with moving(tmp_path, clock) as one:
        one.holds(FILES, [file("a")])
        await one.run(FILES)
        await one.migration.switch(ANONYMOUS)
        for name in (RETURN_LEASE, PASS_LEASE):
            killed = Lease(one.service.storage, clock, name, seconds=SHORT_LEASE_SECONDS)
            assert await killed.take()
        with pytest.raises(InProgressError):
            await one.migration.rollback(ANONYMOUS, wait=0)
        clock.advance(SHORT_LEASE_SECONDS)
        assert (await one.migration.rollback(ANONYMOUS, wait=0)).status == "rollback_complete"


async def test_only_one_process_writes_back(switched: Moving) -> None:
    await save(switched, "new")
    async with alone(switched.service.storage, switched.service.clock, RETURN_LEASE, ""):
        assert await switched.migration.return_pass() == 0
    assert await switched.migration.return_pass() == 1


async def test_nothing_goes_back_before_the_switch(one: Moving) -> None:
    one.holds(CONTEXTS, [context(1)])
    await one.run(CONTEXTS)
    await save(one, "new")
    assert await one.migration.return_pass() == 0
    assert contents(one, CONTEXTS) == {1: "context 1"}


async def test_what_was_stored_here_before_the_switch_does_not_go_back(one: Moving) -> None:
    one.holds(CONTEXTS, [context(1)])
    await one.run(CONTEXTS)
    await save(one, "before")
    await one.migration.switch(ANONYMOUS)
    number = await save(one, "after")
    assert await one.migration.return_pass() == 1
    assert contents(one, CONTEXTS) == {1: "context 1", number: "after"}


async def test_memories_that_were_placed_otherwise_go_back_where_they_came_from(one: Moving) -> None:
    one.holds(FILES, [file("a")])
    await one.run(FILES, options=RunOptions(rollback_point=False, mapping=Mapping(namespace_template="old/{project}")))
    await one.migration.switch(ANONYMOUS)
    await one.store("old/web", "a", "changed")
    await one.migration.return_pass()
    assert one.records(FILES)[0] | {"at": 0} == {"project": "web", "name": "a", "content": "changed", "at": 0}


async def test_an_import_that_is_no_longer_there_does_not_stand_in_the_way(switched: Moving) -> None:
    switched.older(NOTES).write_text(json.dumps({"n": "1"}))
    await switched.run(NOTES)
    await switched.migration.reach.close()
    switched.older(NOTES).unlink()
    await save(switched, "new")
    assert await switched.migration.return_pass() == 1
    assert (await switched.migration.rollback(ANONYMOUS)).returned == 1


async def test_what_no_service_writes_any_longer_gives_way_to_what_one_does(one: Moving) -> None:
    older = one.directory / "older.jsonl"
    write(older, [file("a"), file("only")])
    older.with_suffix(".readonly").touch()
    one.holds(FILES, [file("a")])
    await one.migration.run(ANONYMOUS, [(FILES, str(older)), one.source(FILES)], PLAIN)
    await one.migration.switch(ANONYMOUS)
    for name in ("a", "only"):
        await one.service.bank.update(ANONYMOUS, "web", name, "changed")
    await one.service.bank.write(ANONYMOUS, "web", "new", "made")
    assert (await one.migration.rollback(ANONYMOUS)).returned == 3
    assert contents(one, FILES) == {"a": "changed", "only": "changed", "new": "made"}


# ---- the way back
async def test_a_rollback_returns_everything_and_done_again_does_nothing(switched: Moving) -> None:
    one = switched
    await save(one, "new")
    await one.service.contexts.forget(ANONYMOUS, 2)
    told = await one.migration.rollback(ANONYMOUS)
    assert (told.status, told.returned, told.verified, told.lost) == ("rollback_complete", 2, 2, 0)
    assert told.backup_used is not None
    assert "pre-migration/rollback-" in told.backup_used
    assert await one.migration.phase() is Phase.RETURNED
    assert set(contents(one, CONTEXTS).values()) == {"context 1", "new"}
    before = one.older(CONTEXTS).stat().st_mtime_ns
    assert await one.migration.rollback(ANONYMOUS) == told
    assert one.older(CONTEXTS).stat().st_mtime_ns == before
    assert msgspec.to_builtins(told)["status"] == "rollback_complete"


async def test_a_namespace_that_went_as_a_whole_goes_there_too(switched: Moving) -> None:
    await switched.service.namespaces.delete(ANONYMOUS, "projects/web", recursive=True, dry_run=False)
    await switched.migration.rollback(ANONYMOUS)
    assert (switched.records(CONTEXTS), switched.records(FILES)) == ([], [])


async def test_after_a_rollback_one_may_migrate_again(switched: Moving) -> None:
    one = switched
    number = await save(one, "new")
    before = await one.memories()
    await one.migration.rollback(ANONYMOUS)
    one.holds(CONTEXTS, [*one.records(CONTEXTS), context(number + 1, "later")])
    report = await one.run()
    assert (report.sources[0].counts.same, report.sources[0].counts.copied) == (3, 1)
    after = await one.memories()
    assert {place: after[place] for place in before} == before
    assert (await one.migration.switch(ANONYMOUS)).phase == "switched"


async def test_in_the_shadow_there_is_nothing_to_write_back(one: Moving) -> None:
    one.holds(CONTEXTS, [context(1)])
    await one.run(CONTEXTS)
    await save(one, "new")
    assert (await one.migration.rollback(ANONYMOUS)).returned == 0
    assert await one.migration.phase() is Phase.RETURNED
    assert contents(one, CONTEXTS) == {1: "context 1"}


async def test_a_rollback_can_make_ours_what_it_was(one: Moving) -> None:
    await one.store("default", "before", 1)
    one.holds(FILES, [file("a")])
    await one.run(FILES, options=RunOptions())
    await one.migration.switch(ANONYMOUS)
    await one.service.bank.update(ANONYMOUS, "web", "a", "changed")
    told = await one.migration.rollback(ANONYMOUS, restore=True)
    assert told.restored is not None
    assert await one.texts() == {"before": 1}
    assert contents(one, FILES) == {"a": "changed"}
    assert (await one.run()).sources[0].counts.copied == 1


async def test_a_source_that_cannot_be_written_is_told_before_anything_is_done(switched: Moving) -> None:
    one = switched
    one.older(CONTEXTS).with_suffix(".readonly").touch()
    await one.service.bank.update(ANONYMOUS, "web", "a", "changed")
    assert await one.migration.return_pass() == 1
    await one.service.bank.update(ANONYMOUS, "web", "a", "changed again")
    await save(one, "new")
    with pytest.raises(SourceError, match="may not be written"):
        await one.migration.rollback(ANONYMOUS)
    assert await one.migration.phase() is Phase.SWITCHED
    assert contents(one, FILES)["a"] == "changed"


async def test_one_that_has_not_changed_need_not_be_written(switched: Moving) -> None:
    switched.older(CONTEXTS).with_suffix(".readonly").touch()
    assert (await switched.migration.rollback(ANONYMOUS)).returned == 0


async def test_a_source_that_lies_is_found_out(switched: Moving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Contexts, "lookup", lambda *_: None)
    await save(switched, "new")
    with pytest.raises(Exception, match="not there"):
        await switched.migration.rollback(ANONYMOUS)
    assert await switched.migration.phase() is Phase.SWITCHED


async def test_another_storage_is_not_taken_for_one_in_which_all_was_deleted(switched: Moving) -> None:
    (await switched.migration.ledger()).put(CURSOR, 10**9)
    with pytest.raises(StorageCorruptError, match="another storage"):
        await switched.migration.rollback(ANONYMOUS)
    assert len(switched.records(CONTEXTS)) == 2


async def test_from_the_end_there_is_no_way_back(switched: Moving) -> None:
    one = switched
    await save(one, "new")
    finished = await one.migration.finish(ANONYMOUS)
    assert finished.phase == "finished"
    assert [one.partition(" ")[0] for one in finished.commands[:2]] == ["rm", "rm"]
    (path,) = [path for path in finished.backups if CONTEXTS in path]
    with tarfile.open(path) as archive:
        packed = archive.extractfile(one.older(CONTEXTS).name)
        assert packed is not None
        assert packed.read() == one.older(CONTEXTS).read_bytes()
    assert "new" in contents(one, CONTEXTS).values()
    for call in (one.migration.rollback, one.migration.finish, one.migration.switch):
        with pytest.raises(MigrationStateError):
            await call(ANONYMOUS)


async def test_who_does_not_see_all_may_not_change_services(switched: Moving) -> None:
    narrow = Principal("narrow", ("projects",))
    for call in (switched.migration.rollback, switched.migration.finish, switched.migration.switch):
        with pytest.raises(PermissionDeniedError):
            await call(narrow)


async def test_the_mission_returns_by_the_file_of_the_point(switched: Moving) -> None:
    point = (await switched.migration.status(ANONYMOUS)).rollback_point
    assert point is not None
    told = await RollbackManager(switched.migration).rollback_to_previous_state(point)
    assert (told["status"], told["backup_used"]) == ("rollback_complete", point)


async def test_passes_that_follow_one_upon_the_other_give_way_to_the_way_back(switched: Moving) -> None:
    one = switched

    async def write() -> None:
        # As proxies do: they hold back in another phase.
        while await one.migration.phase() is Phase.SWITCHED:
            await save(one, "new")
            await one.migration.return_pass()

    writing = [asyncio.create_task(write()) for _ in range(8)]
    try:
        # A second is ten looks at whether they have ended.
        told = await one.migration.rollback(ANONYMOUS, wait=1.0)
    finally:
        for task in writing:
            task.cancel()
        await asyncio.wait(writing)
    assert told.status == "rollback_complete"
