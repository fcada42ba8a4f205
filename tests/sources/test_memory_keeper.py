"""mcp-memory-keeper's database, as its own program wrote it."""

import json
from pathlib import Path

import apsw
import pytest

from tests.sources.dumps import build
from unified_memory.model.clock import from_rfc3339
from unified_memory.model.errors import InvalidInputError, SourceError
from unified_memory.sources.base import Item, Quarantined, each
from unified_memory.sources.kinds import open_source

KIND = "memory-keeper"
DUMP = "memory-keeper/context.sql"
SESSION = "4f30d804-d755-404c-8de9-e73db66da5a1"
OTHER = "4b39608f-cc42-4234-849e-3ec3dc2115c8"


def items(path: Path) -> dict[str, Item]:
    source = open_source(KIND, str(path))
    found = {item.key: item for item in each(source.read())}
    source.close()
    return found


def test_an_item_keeps_what_is_known_of_it(tmp_path: Path) -> None:
    item = items(build(DUMP, tmp_path / "context.db"))[f"{SESSION}/db"]
    assert json.loads(item.value) == "PostgreSQL 17 für Bestellungen"
    assert (item.project, item.session_id, item.tags, item.importance) == ("web-shop", SESSION, ("decision",), 8)
    assert item.created_at == item.updated_at == from_rfc3339("2026-11-23T22:29:47Z")
    assert item.facts == {
        "priority": "high",
        "category": "decision",
        "channel": "web-shop",
        "session_name": "Sprint 1",
        "session_description": "The first",
        "session_working_directory": "/src/shop",
    }


def test_a_key_of_two_sessions_is_two_memories(tmp_path: Path) -> None:
    found = items(build(DUMP, tmp_path / "context.db"))
    assert json.loads(found[f"{OTHER}/db"].value) == "Another session, the same key"
    assert found[f"{OTHER}/db"].project == "sprint-2"


def test_a_value_that_looks_like_json_stays_a_text(tmp_path: Path) -> None:
    item = items(build(DUMP, tmp_path / "context.db"))[f"{SESSION}/todo/1"]
    assert json.loads(item.value) == '{"a": 1,\n "b": "🎉"}'
    assert (item.project, item.importance) == ("backend", 3)


def test_a_private_item_says_so(tmp_path: Path) -> None:
    assert items(build(DUMP, tmp_path / "context.db"))[f"{SESSION}/secret"].facts["private"] is True


def test_journal_and_relations_are_carried(tmp_path: Path) -> None:
    found = items(build(DUMP, tmp_path / "context.db"))
    [entry] = [one for key, one in found.items() if key.startswith("journal/")]
    [relation] = [one for key, one in found.items() if key.startswith("relation/")]
    assert (json.loads(entry.value), entry.tags, entry.facts["mood"]) == (
        "It went well",
        ("review", "week", "journal"),
        "glad",
    )
    assert json.loads(relation.value) == {"from": "db", "to": "plain", "relationship": "related_to"}
    assert entry.project == relation.project == "web-shop"


def test_compressed_contexts_are_carried(tmp_path: Path) -> None:
    row = """INSERT INTO compressed_context
        SELECT 'c1', id, 7, '{"categories": {}}', 0.5, '2026-01-01', '2026-02-01', '2026-03-01 00:00:00' FROM sessions LIMIT 1"""
    item = items(build(DUMP, tmp_path / "context.db", row))["compressed/c1"]
    assert json.loads(item.value) == {"categories": {}}
    assert item.facts["original_count"] == 7


def test_the_survey_tells_what_stays(tmp_path: Path) -> None:
    survey = open_source(KIND, str(build(DUMP, tmp_path / "context.db").parent)).survey()
    assert survey.records == 7
    assert survey.projects == {"backend": 1, "sprint-2": 1, "web-shop": 3}
    told = " ".join(survey.remarks)
    assert all(what in told for what in ("1 cached files", "1 checkpoints", "5 embeddings"))


def test_what_is_no_text_is_quarantined(tmp_path: Path) -> None:
    odd = "UPDATE context_items SET value = CAST(X'FF61' AS TEXT) WHERE key = 'plain'"
    source = open_source(KIND, str(build(DUMP, tmp_path / "context.db", odd)))
    found = list(source.read())
    [one] = [one for one in found if isinstance(one, Quarantined)]
    assert one.code == "binary"
    assert json.loads(one.raw)["value"] == "/2E="
    assert len(list(each(found))) == 6


def test_an_older_schema_is_read(tmp_path: Path) -> None:
    path = tmp_path / "context.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE sessions (id TEXT PRIMARY KEY, name TEXT)")
    connection.execute(
        "CREATE TABLE context_items (id TEXT PRIMARY KEY, session_id TEXT, key TEXT, value TEXT, created_at TIMESTAMP)"
    )
    connection.execute("INSERT INTO context_items VALUES ('i', 's', 'k', 'v', '2025-01-01 00:00:00')")
    connection.close()
    item = items(path)["s/k"]
    assert (item.project, item.importance, item.facts) == ("general", 5, {"priority": "normal"})


def test_another_database_is_refused(tmp_path: Path) -> None:
    apsw.Connection(str(tmp_path / "x.db")).execute("CREATE TABLE t (a)")
    with pytest.raises(SourceError, match="not one of mcp-memory-keeper"):
        open_source(KIND, str(tmp_path / "x.db"))
    with pytest.raises(SourceError, match="There is no such file"):
        open_source(KIND, str(tmp_path))
    with pytest.raises(InvalidInputError):
        open_source(KIND, "")


def test_the_token_changes_with_the_file(tmp_path: Path) -> None:
    path = build(DUMP, tmp_path / "context.db")
    source = open_source(KIND, str(path))
    before = source.token()
    assert source.token() == before
    apsw.Connection(str(path)).execute("DELETE FROM context_items")
    assert source.token() != before
