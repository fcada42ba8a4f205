"""Whether a comparison finds what is not the same."""

import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.moving import Moving, moving
from tests.service.older import context, file
from unified_memory.model.errors import InvalidInputError, MigrationStateError, PermissionDeniedError, RefusedError
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.service.migration import MemoryMigrationManager, Replay

CONTEXTS, FILES = "extended-memory-sqlite", "memory-bank-files"
TOOLS = Path(__file__).with_name("older_tools.py")


@pytest.fixture
async def one(tmp_path: Path) -> AsyncIterator[Moving]:
    async with moving(tmp_path) as made:
        made.holds(CONTEXTS, [context(1, tags=["a"]), context(2), {"id": 3, "bad": "NaN"}])
        made.holds(FILES, [file("a"), file("b", project="infra")])
        await made.run(CONTEXTS, FILES)
        yield made


async def differences(one: Moving) -> list[tuple[str, str]]:
    told = await one.migration.verify(ANONYMOUS)
    assert told.ok == (not told.differences)
    return [(found.origin, found.what) for found in told.differences]


async def test_what_was_copied_is_the_same(one: Moving) -> None:
    told = await one.migration.verify(ANONYMOUS)
    assert told.ok
    assert [(check.there, check.here, check.same, check.quarantined) for check in told.sources] == [
        (2, 2, 2, 1),
        (2, 2, 2, 0),
    ]
    assert [(part.project, part.same) for part in told.sources[1].projects] == [("infra", 1), ("web", 1)]


async def test_what_is_missing_here_is_found(one: Moving) -> None:
    await one.service.memories.delete(ANONYMOUS, "projects/web", "a")
    assert await differences(one) == [("file/web/a", "missing")]


async def test_what_was_changed_here_is_found(one: Moving) -> None:
    await one.store("projects/web", "a", "ours")
    assert await differences(one) == [("file/web/a", "value, importance")]


async def test_what_has_changed_there_is_found(one: Moving) -> None:
    one.holds(CONTEXTS, [context(1, tags=["b"]), context(2, importance=9), context(4)])
    assert await differences(one) == [("context/1", "tags"), ("context/2", "importance"), ("context/4", "missing")]


async def test_what_is_gone_there_is_found(one: Moving) -> None:
    one.holds(FILES, [file("a")])
    assert await differences(one) == [("file/infra/b", "only_here")]


async def test_what_is_not_in_the_quarantine_list_is_found(one: Moving) -> None:
    one.holds(CONTEXTS, [context(1, tags=["a"]), context(2), {"id": 3, "bad": "NaN"}, {"id": 4, "bad": "NaN"}])
    assert await differences(one) == [("context/4", "not_quarantined")]


async def test_after_the_switch_what_went_back_is_the_same(one: Moving) -> None:
    await one.migration.switch(ANONYMOUS)
    await one.service.contexts.save(ANONYMOUS, "new", project="web", importance=5, tags=())
    await one.service.bank.update(ANONYMOUS, "web", "a", "changed")
    await one.migration.return_pass()
    assert await differences(one) == []
    await one.service.bank.update(ANONYMOUS, "web", "a", "changed again")
    assert await differences(one) == [("file/web/a", "value")]


async def test_without_a_migration_there_is_nothing_to_compare(tmp_path: Path) -> None:
    async with moving(tmp_path / "other") as other:
        with pytest.raises(MigrationStateError):
            await other.migration.verify(ANONYMOUS)
        with pytest.raises(PermissionDeniedError):
            await other.migration.verify(Principal("narrow", ("projects",)))


# ---- the same reads asked of both
def command(*tools: str) -> Replay:
    return Replay(f"{sys.executable} {TOOLS} {' '.join(tools)}")


async def echo(service: str, tool: str, arguments: dict[str, Any]) -> str:
    return json.dumps([tool, arguments]) if tool != "list_project_files" else f"other in {service}"


async def test_the_same_reads_are_asked_of_both(one: Moving) -> None:
    one.migration.answers = echo
    told = (await one.migration.verify(ANONYMOUS, replay=command("load_contexts"))).replay
    assert told is not None
    # All projects, and of the one project its contexts and tags.
    assert (told.asked, told.same) == (3, 3)


async def test_what_is_answered_otherwise_is_shown(one: Moving) -> None:
    one.migration.answers = echo
    told = await one.migration.verify(ANONYMOUS, replay=command("memory_bank_read"), samples=4)
    assert told.replay is not None
    assert not told.ok
    assert (told.replay.asked, told.replay.same) == (4, 2)
    first = told.replay.differences[0]
    assert (first.tool, first.arguments, first.ours) == (
        "list_project_files",
        {"projectName": "web"},
        "other in memory-bank-mcp",
    )


async def test_the_memory_bank_of_pypi_is_compared_with_its_own_profile(one: Moving) -> None:
    asked = []

    async def answers(service: str, tool: str, arguments: dict[str, Any]) -> str:
        asked.append((service, sorted(arguments)))
        return json.dumps([tool, arguments])

    one.migration.answers = answers
    told = await one.migration.verify(ANONYMOUS, replay=command("--pypi", "memory_bank_read"))
    assert told.ok
    assert {service for service, _ in asked} == {"memory-bank-pypi"}
    assert [arguments for _, arguments in asked][:2] == [[], ["project_name"]]


async def test_a_command_that_is_no_older_service_is_refused(one: Moving) -> None:
    one.migration.answers = echo
    with pytest.raises(InvalidInputError):
        await one.migration.verify(ANONYMOUS, replay=command("something"))


async def test_somebody_must_answer_as_the_older_tools_do(one: Moving) -> None:
    with pytest.raises(RefusedError):
        await one.migration.verify(ANONYMOUS, replay=command("load_contexts"))


# ---- under the mission's names
async def test_the_mission_exports_transforms_and_imports(one: Moving) -> None:
    extended = await one.migration.export_extended_memory()
    bank = await one.migration.export_memory_bank()
    memories = one.migration.transform_to_unified_schema(extended, bank)
    assert memories[0] == {
        "key": "1",
        "namespace": "migrated_extended",
        "value": "context 1",
        "metadata": {
            "created_at": "1970-01-01T00:00:01.000000Z",
            "importance": 5,
            "tags": ["a"],
            "project_id": "web",
            "migrated_from": "extended-memory",
        },
    }
    assert {memory["key"]: memory["metadata"]["importance"] for memory in memories[2:]} == {"web/a": 7, "infra/b": 7}
    told = await one.migration.import_to_unified(memories)
    assert (told.stored, told.failed) == (4, 0)
    again = await one.migration.import_to_unified(memories)
    assert (again.stored, again.skipped) == (0, 4)
    assert (await one.memories())["migrated_bank", "web/a"].value == b'"content of a"'


def test_the_transformation_takes_what_the_mission_gives() -> None:
    told = MemoryMigrationManager.transform_to_unified_schema(
        [{"key": "k", "namespace": "n", "content": {"a": 1}, "timestamp": "2025-01-01T00:00:00Z"}],
        [{"id": "i", "data": "d", "created": "2025-01-01T00:00:00Z"}],
    )
    assert told[0]["namespace"] == "n"
    assert told[1] == {
        "key": "i",
        "namespace": "migrated_bank",
        "value": "d",
        "metadata": {"created_at": "2025-01-01T00:00:00Z", "importance": 7, "migrated_from": "memory-bank-mcp"},
    }


async def test_the_mission_migrates_everything(one: Moving) -> None:
    one.holds(FILES, [file("a"), file("c")])
    told = await one.migration.migrate_all_data()
    assert told.ok
    assert "c" in await one.texts()
