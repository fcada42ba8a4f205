"""The migration as the clients ask for it."""

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from unified_memory.app import make_app
from unified_memory.bootstrap import build
from unified_memory.client import SyncUnifiedMemoryClient, UnifiedMemoryClient, protocol
from unified_memory.client.protocol import Call
from unified_memory.model import errors
from unified_memory.settings import load

PYPI = {"project_name": "billing", "file_name": "brief.md"}


def body_of(call: Call[Any]) -> Any:
    return json.loads(call.content)


def test_a_migration_is_asked_for_with_what_was_given() -> None:
    bank = ("memory-bank-files", "bank")
    assert body_of(protocol.plan_migration()) == {"sources": []}
    plan = protocol.plan_migration(
        [bank], mapping={"tags": ["older"]}, namespace_template="a/{project}", first=3, wait=5
    )
    assert (plan.method, plan.target, plan.wait) == ("POST", "/api/v1/memory/migration/plan?wait=5", 5)
    assert body_of(plan) == {
        "sources": [{"kind": "memory-bank-files", "location": "bank"}],
        "mapping": {"tags": ["older"]},
        "namespace_template": "a/{project}",
        "first": 3,
    }
    run = protocol.run_migration(
        [bank],
        on_conflict="replace",
        prefix="old",
        keep_ttl=True,
        follow=True,
        interval=0.5,
        dry_run=True,
        rollback_point=False,
    )
    assert run.target == "/api/v1/memory/migration/run"
    assert body_of(run) == {
        "sources": [{"kind": "memory-bank-files", "location": "bank"}],
        "on_conflict": "replace",
        "prefix": "old",
        "keep_ttl": True,
        "follow": True,
        "interval": 0.5,
        "dry_run": True,
        "rollback_point": False,
    }
    assert body_of(protocol.verify_migration(samples=5, older="id")) == {"samples": 5, "older": "id"}
    assert body_of(protocol.switch_migration(timeout=3)) == {"timeout": 3}
    assert body_of(protocol.rollback_migration()) == {}
    assert body_of(protocol.rollback_migration(restore=True, timeout=0)) == {"restore": True, "timeout": 0}
    assert protocol.finish_migration(wait=0).target == "/api/v1/memory/migration/finish?wait=0"
    assert protocol.migration().target == "/api/v1/memory/migration"
    assert protocol.migration_report().target == "/api/v1/memory/migration/report"


@pytest.mark.parametrize("sources", ["memory-bank-files=bank", {"memory-bank-files": "bank"}])
def test_sources_are_pairs(sources: Any) -> None:
    with pytest.raises(errors.InvalidInputError, match="pairs"):
        protocol.run_migration(sources)


def test_a_service_without_a_directory_of_sources_refuses(client: SyncUnifiedMemoryClient) -> None:
    assert client.migration()["phase"] == "none"
    with pytest.raises(errors.RefusedError, match="MIGRATION_DIR"):
        client.run_migration([("memory-bank-files", "bank")])
    with pytest.raises(errors.MigrationStateError) as told:
        client.migration_report()
    assert told.value.facts["state"] == "none"


async def test_all_the_way_and_back(tmp_path: Path) -> None:
    file = tmp_path / "older/bank/billing/brief.md"
    file.parent.mkdir(parents=True)
    file.write_text("Invoices go out on Fridays", encoding="utf-8")
    settings = load({"MIGRATION_DIR": str(tmp_path / "older")}, data_dir=tmp_path / "data", semantic="off")
    service = build(settings)
    await service.open()
    transport = httpx2.ASGITransport(make_app(service, settings))
    try:
        async with UnifiedMemoryClient("http://127.0.0.1", transport=transport) as client:
            bank = [("memory-bank-files", "bank")]
            plan = await client.plan_migration(bank)
            assert "job" not in plan
            assert plan["sources"][0]["survey"]["projects"] == {"billing": 1}
            report = await client.run_migration(bank)
            assert "job" not in report
            assert report["sources"][0]["counts"]["copied"] == 1
            assert await client.migration_report() == report
            # The older tools find it where they look.
            assert service.migration.answers is not None
            for arguments in ({"projectName": "billing", "fileName": "brief.md"}, PYPI):
                answered = await service.migration.answers("memory-bank-mcp", "memory_bank_read", arguments)
                assert answered == "Invoices go out on Fridays"
            assert "brief.md" not in await service.migration.answers("extended-memory", "list_all_projects", {})
            verification = await client.verify_migration()
            assert verification.get("ok") is True
            assert (await client.switch_migration()).get("phase") == "switched"
            assert (await client.migration())["sources"][0]["copied"] == 1
            with pytest.raises(errors.SourceError):
                await client.plan_migration([("memory-bank-files", "nowhere")])
            assert (await client.rollback_migration()).get("status") == "rollback_complete"
            await client.run_migration()
            await client.switch_migration()
            assert (await client.finish_migration()).get("phase") == "finished"
            with pytest.raises(errors.MigrationStateError):
                await client.rollback_migration()
    finally:
        await service.close()
