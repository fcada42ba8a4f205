"""claude-flow's stores, as 2 and 3 wrote them."""

import json
import shutil
from pathlib import Path

import apsw
import pytest

from tests.sources.dumps import FIXTURES, build
from unified_memory.model.clock import SECOND, from_rfc3339
from unified_memory.model.errors import InvalidInputError, SourceError
from unified_memory.sources.base import Found, Item, Options, Quarantined, Skipped, each
from unified_memory.sources.kinds import open_source

KIND = "claude-flow"


def read(path: Path, *, keep_ttl: bool = False) -> list[Found]:
    source = open_source(KIND, str(path), Options(keep_ttl=keep_ttl))
    found = list(source.read())
    source.close()
    return found


def items(path: Path, *, keep_ttl: bool = False) -> dict[tuple[str | None, str], Item]:
    return {(item.project, item.key): item for item in each(read(path, keep_ttl=keep_ttl))}


def store(directory: Path) -> Path:
    (directory / "memory").mkdir()
    return Path(shutil.copy(FIXTURES / KIND / "memory-store.json", directory / "memory"))


def test_the_store_in_json(tmp_path: Path) -> None:
    found = items(store(tmp_path))
    assert {place: json.loads(item.value) for place, item in found.items()} == {
        ("web", "first"): "The port is 3200",
        ("web", "second"): "Ünï_🎉",
        ("default", "first"): "again",
    }
    item = found["web", "first"]
    assert (item.created_at, item.facts) == (1795473013451 * SECOND // 1000, {"redacted": False})


def test_the_database_of_2(tmp_path: Path) -> None:
    found = items(build("claude-flow/memory-2.sql", tmp_path / ".swarm/memory.db"))
    plan = found["project/web", "plan"]
    assert json.loads(plan.value) == "Ship on Monday"
    assert (plan.access_count, plan.created_at) == (2, 1795473041 * SECOND)
    assert plan.session_id == "session-cf-1795473041205-bmz1"
    assert plan.facts["entry_metadata"]["type"] == "knowledge"
    assert found["default", "note"].value == b'{"a":1,"b":["x"]}'
    brief = found["cache", "brief"]
    assert (brief.facts["legacy_expires_at"], brief.expires_at) == (1795559441, None)


def test_what_expires_there_expires_here_where_asked(tmp_path: Path) -> None:
    found = items(build("claude-flow/memory-2.sql", tmp_path / "memory.db"), keep_ttl=True)
    assert found["cache", "brief"].expires_at == 1795559441 * SECOND
    assert "legacy_expires_at" not in found["cache", "brief"].facts
    assert found["project/web", "plan"].expires_at is None


def test_the_database_of_3(tmp_path: Path) -> None:
    found = read(build("claude-flow/memory-3.sql", tmp_path / "memory.db"), keep_ttl=True)
    plan, brief = each(found)
    assert (plan.project, plan.key, json.loads(plan.value)) == ("web", "plan", "Ship on Friday, Ünï")
    assert (plan.tags, plan.access_count) == (("a", "b"), 1)
    assert plan.created_at == from_rfc3339("2026-11-23T22:32:01.738Z")
    assert plan.facts == {"type": "semantic", "provenance_type": "unknown"}
    assert brief.expires_at == 1795559522609 * SECOND // 1000
    [gone] = [one for one in found if isinstance(one, Skipped)]
    assert "deleted" in gone.reason


def test_a_folder_is_read_with_all_its_stores(tmp_path: Path) -> None:
    store(tmp_path)
    build("claude-flow/memory-2.sql", tmp_path / ".swarm/memory.db")
    found = items(tmp_path)
    assert len(found) == 6
    assert found["cache", "brief"].origin == ".swarm/memory.db/memory_entries/cache/brief"
    survey = open_source(KIND, str(tmp_path)).survey()
    assert survey.records == 6
    assert survey.projects == {"web": 2, "default": 2, "project/web": 1, "cache": 1}
    assert any("more than one store" in remark for remark in survey.remarks)


def test_patterns_of_the_reasoning_bank_are_carried(tmp_path: Path) -> None:
    pattern = """CREATE TABLE patterns (id TEXT PRIMARY KEY, type TEXT, pattern_data TEXT, usage_count INTEGER, created_at TEXT);
        INSERT INTO patterns VALUES
        ('p1', 'reasoning_memory', '{"title":"t","content":"c","domain":"api"}', 3, '2026-01-01 00:00:00')"""
    item = items(build("claude-flow/memory-2.sql", tmp_path / "memory.db", pattern))["api", "pattern/p1"]
    assert json.loads(item.value)["pattern_data"]["content"] == "c"
    assert (item.access_count, item.created_at) == (3, from_rfc3339("2026-01-01T00:00:00Z"))


def test_what_cannot_be_carried_is_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "memory-store.json"
    surrogate = '{"key": "s", "value": "\\ud800"}'
    path.write_text(
        f'{{"web": [{{"value": 1}}, {surrogate}, {{"key": "k", "value": {{"deep": [1]}}}}]}}', encoding="utf-8"
    )
    odd, lone, item = read(path)
    assert isinstance(odd, Quarantined)
    assert odd.raw == b'["web",{"value":1}]'
    assert isinstance(lone, Quarantined)
    assert lone.code == "surrogate"
    assert json.loads(lone.raw) == ["web", json.loads(surrogate)]
    assert isinstance(item, Item)
    assert item.value == b'{"deep":[1]}'


def test_compressed_values_are_quarantined(tmp_path: Path) -> None:
    path = tmp_path / "hive.db"
    apsw.Connection(str(path)).execute(
        "CREATE TABLE memory_store (id INTEGER PRIMARY KEY, key TEXT, namespace TEXT, value TEXT, compressed INTEGER);"
        "INSERT INTO memory_store VALUES (1, 'a', 'n', 'plain', 0), (2, 'b', 'n', 'H4sI', 1)"
    )
    item, odd = read(path)
    assert isinstance(item, Item)
    assert isinstance(odd, Quarantined)
    assert odd.code == "unsupported"


def test_what_is_no_store_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no memories of it"):
        open_source(KIND, str(tmp_path))
    with pytest.raises(InvalidInputError):
        open_source(KIND, "")
    (tmp_path / "x.json").write_text("[]", encoding="utf-8")
    with pytest.raises(SourceError, match="no memory store"):
        open_source(KIND, str(tmp_path / "x.json")).survey()
    apsw.Connection(str(tmp_path / "x.db")).execute("CREATE TABLE t (a)")
    with pytest.raises(SourceError, match="not one of claude-flow"):
        open_source(KIND, str(tmp_path / "x.db"))
