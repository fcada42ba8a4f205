"""Each store of an older service comes over whole: every count, content, tag, importance and time as its manifest tells."""

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.migration.fixtures import FIXTURES, everything, manifest, migrated
from unified_memory.model.clock import from_rfc3339
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.bank import file_of
from unified_memory.service.mapping import entry_of
from unified_memory.service.projects import project_of

pytestmark = pytest.mark.skipif(not FIXTURES.is_dir(), reason=f"the older services' stores are not there: {FIXTURES}")


def sha256(memory: Memory) -> str:
    return hashlib.sha256(str(memory.parsed()).encode()).hexdigest()


def extra(memory: Memory) -> dict[str, Any]:
    return {name: json.loads(bytes(raw)) for name, raw in memory.extra.items()}


def utc(text: str) -> int:
    return from_rfc3339(text.replace(" ", "T") + ("" if "+" in text else "Z"))


def normal_tags(sent: list[Any]) -> set[str]:
    return {tag.strip().lower() for tag in sent if isinstance(tag, str) and tag.strip()}


def quarantined(directory: Path) -> list[dict[str, Any]]:
    """The list of what was set aside, or is odd."""
    lines = (directory / "migration" / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("name", ["em_sqlite", "em_redis"])
async def test_every_context_of_extended_memory(tmp_path: Path, name: str) -> None:
    told = manifest()[name]
    records = {record["id"]: record for record in [*told["records"], *told["stored_but_not_acknowledged"]]}
    async with migrated(tmp_path, name) as (service, (report,)):
        memories = {extra(memory)["legacy_id"]: memory for memory in await everything(service)}
        names = await service.contexts.projects(ANONYMOUS)
    assert memories.keys() == records.keys()
    assert report.records == len(records)
    projects = Counter(project_of(memory.namespace) for memory in memories.values())
    expected = Counter(record["project"] for record in records.values())
    assert projects == expected
    assert names == sorted(expected)
    for number, record in records.items():
        memory, facts = memories[number], extra(memories[number])
        assert sha256(memory) == record["sha256"]
        assert facts["migrated_from"] == "extended-memory"
        assert facts["legacy_created_at"] == record["created_at"]
        assert memory.created_at == utc(record.get("created_at_utc", record["created_at"]))
        assert facts.get("legacy_importance", memory.importance) == record["importance"]
        assert set(memory.tags) == normal_tags(record["tags"])
        if name == "em_redis":
            assert facts.get("legacy_tags", list(memory.tags)) == record["tags"]
        if record["project"]:
            assert memory.project_id == record["project"]


async def test_what_was_acknowledged_and_never_stored_is_not_invented(tmp_path: Path) -> None:
    told = manifest()["em_sqlite"]
    lost = {record["sha256"] for record in told["acknowledged_but_not_stored"]}
    forgotten = {record["id"] for record in told["forgotten"]}
    assert lost
    assert forgotten
    async with migrated(tmp_path, "em_sqlite") as (service, _):
        memories = await everything(service)
    assert not lost & {sha256(memory) for memory in memories}
    assert not forgotten & {extra(memory)["legacy_id"] for memory in memories}


@pytest.mark.parametrize("name", ["shim", "shim_backup", "shim_json", "shim_memory_json"])
async def test_every_entry_of_the_service_on_port_3009(tmp_path: Path, name: str) -> None:
    told = manifest()["shim" if name == "shim_backup" else "shim_json" if name == "shim_memory_json" else name]
    records = {record["key"]: record for record in told["records"]}
    odd = {key for key, record in records.items() if record.get("not_strict_json")}
    async with migrated(tmp_path, name) as (service, (report,)):
        memories = {entry_of(memory.key): memory for memory in await everything(service)}
    assert memories.keys() == records.keys() - odd
    assert report.records == len(records) == told["items"]
    listed = {one["origin"].removeprefix("entry/"): one for one in quarantined(tmp_path)}
    assert {key for key, one in listed.items() if not one["stored"]} == odd
    for key in odd:
        assert records[key]["value_text"] in json.loads(listed[key]["raw"])["value"]
    for key, record in records.items():
        if key in odd:
            continue
        memory = memories[key]
        assert memory.namespace == "migrated_extended"
        if "value" in record:
            assert json.loads(memory.value) == record["value"]
        assert extra(memory)["migrated_from"] == "extended-memory"
        if name == "shim_memory_json":
            continue
        assert hashlib.sha256(memory.value).hexdigest() == record["value_sha256"]
        if name == "shim_backup":
            continue
        assert memory.access_count == record["access_count"]
        assert memory.created_at == utc(record["created_at"])
        assert memory.updated_at == utc(record["updated_at"])
        assert memory.last_accessed == utc(record["accessed_at"])


@pytest.mark.parametrize("name", ["mb_npm", "mb_pypi"])
async def test_every_file_of_a_memory_bank(tmp_path: Path, name: str) -> None:
    told = manifest()[name]
    records = {(record["project"], record["file"]): record for record in told["records"]}
    async with migrated(tmp_path, name) as (service, (report,)):
        memories = {(project_of(one.namespace), file_of(one.key)): one for one in await everything(service)}
        assert await service.bank.projects(ANONYMOUS) == sorted(told["per_project"])
    assert memories.keys() == records.keys()
    assert report.records == len(records) == told["files"]
    for place, record in records.items():
        memory = memories[place]
        assert sha256(memory) == record["sha256"]
        assert (memory.importance, extra(memory)["migrated_from"]) == (7, "memory-bank-mcp")


async def test_all_of_them_live_beside_each_other(tmp_path: Path) -> None:
    told = manifest()
    names = ("shim", "mb_npm", "mb_pypi", "em_redis", "em_sqlite")
    async with migrated(tmp_path, *names) as (service, reports):
        memories = await everything(service)
        contents = {memory.id: sha256(memory) for memory in memories if memory.key.startswith("context/")}
        for record in told["em_sqlite"]["records"]:
            memory = await service.contexts.forget(ANONYMOUS, record["id"])
            assert contents[memory.id] == record["sha256"]
    odd = sum(1 for record in told["shim"]["records"] if record.get("not_strict_json"))
    assert sum(report.records for report in reports) == len(memories) + _shared_files(told) + odd


def _shared_files(told: dict[str, Any]) -> int:
    """Files that both banks have: the same stays one memory, another content is told as a conflict."""
    npm, pypi = ({(one["project"], one["file"]) for one in told[name]["records"]} for name in ("mb_npm", "mb_pypi"))
    return len(npm & pypi)
