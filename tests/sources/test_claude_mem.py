"""claude-mem's database, as its own store wrote it."""

import json
from pathlib import Path

import apsw
import pytest

from tests.sources.dumps import build
from unified_memory.model.clock import from_rfc3339
from unified_memory.model.errors import InvalidInputError, SourceError
from unified_memory.sources.base import Item, Quarantined, each
from unified_memory.sources.kinds import open_source

KIND = "claude-mem"
DUMP = "claude-mem/claude-mem.sql"


def items(path: Path) -> dict[str, Item]:
    source = open_source(KIND, str(path))
    found = {item.key: item for item in each(source.read())}
    source.close()
    return found


def test_an_observation_becomes_what_it_says(tmp_path: Path) -> None:
    item = items(build(DUMP, tmp_path / "claude-mem.db"))["observation/1"]
    assert json.loads(item.value) == {
        "type": "decision",
        "title": "Chose PostgreSQL",
        "subtitle": "over MySQL",
        "narrative": "We compared both.",
        "facts": ["It has JSONB", "Port 5432"],
        "concepts": ["trade-off", "why-it-exists"],
        "files_read": ["docs/db.md"],
    }
    assert (item.project, item.session_id) == ("web-shop", "mem-1")
    assert item.tags == ("decision", "trade-off", "why-it-exists")
    assert item.created_at == from_rfc3339("2026-01-01T00:00:00.123Z")
    assert item.facts == {"prompt_number": 1, "platform_source": "claude", "content_session_id": "content-1"}


def test_who_observed_is_kept(tmp_path: Path) -> None:
    facts = items(build(DUMP, tmp_path / "claude-mem.db"))["observation/2"].facts
    assert (facts["agent_type"], facts["agent_id"], facts["observation_metadata"]) == (
        "reviewer",
        "a-1",
        {"ticket": 12},
    )


def test_summaries_and_prompts_are_carried(tmp_path: Path) -> None:
    found = items(build(DUMP, tmp_path / "claude-mem.db"))
    summary, prompt = found["summary/1"], found["prompt/1"]
    assert json.loads(summary.value)["learned"] == "Races happen"
    assert "notes" not in json.loads(summary.value)
    assert json.loads(prompt.value) == "Build the checkout with Ünï 🎉"
    assert (prompt.project, prompt.session_id, prompt.tags) == ("web-shop", "mem-1", ("prompt",))
    assert (found["prompt/2"].project, found["prompt/2"].session_id) == ("blog", None)


def test_the_survey_counts(tmp_path: Path) -> None:
    message = """INSERT INTO pending_messages (session_db_id, content_session_id, message_type, created_at_epoch)
        VALUES (1, 'content-1', 'observation', 0)"""
    survey = open_source(KIND, str(build(DUMP, tmp_path / "claude-mem.db", message).parent)).survey()
    assert (survey.records, survey.projects) == (5, {"web-shop": 2})
    assert "1 messages that it has not worked off stay there" in survey.remarks


def test_what_is_no_text_is_quarantined(tmp_path: Path) -> None:
    odd = "UPDATE observations SET narrative = X'00FF' WHERE id = 1"
    source = open_source(KIND, str(build(DUMP, tmp_path / "claude-mem.db", odd)))
    found = list(source.read())
    assert [(one.origin, one.code) for one in found if isinstance(one, Quarantined)] == [("observations/1", "binary")]
    assert len(list(each(found))) == 4


def test_another_database_is_refused(tmp_path: Path) -> None:
    apsw.Connection(str(tmp_path / "x.db")).execute("CREATE TABLE t (a)")
    with pytest.raises(SourceError, match="not one of claude-mem"):
        open_source(KIND, str(tmp_path / "x.db"))
    with pytest.raises(InvalidInputError):
        open_source(KIND, "\0")
