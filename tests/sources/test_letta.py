"""Letta's agent files, in both formats."""

import json
from pathlib import Path

import pytest

from unified_memory.model.errors import SourceError
from unified_memory.sources.base import Found, Item, Options, Quarantined, Skipped, each
from unified_memory.sources.letta import Letta

FIXTURES = Path(__file__).parent / "fixtures" / "letta"
AGENTS = FIXTURES / "agents.af"


def opened(path: Path) -> Letta:
    return Letta.open(str(path), Options())


def read(path: Path) -> list[Found]:
    return list(opened(path).read())


def by_key(path: Path) -> dict[str, Item]:
    return {item.key: item for item in each(read(path))}


def written(path: Path, content: bytes) -> Path:
    path /= "agent.af"
    path.write_bytes(content)
    return path


def test_a_block_is_carried_below_its_agent() -> None:
    human = by_key(AGENTS)["block/human"]

    assert json.loads(human.value) == "Name: Ada\nLives in Kraków"
    assert (human.service, human.shape, human.project) == ("letta", "record", "Sam")
    assert human.facts["description"] == "What is known of the person"
    assert human.facts["metadata"] == {"source": "chat", "weight": 2.5}
    assert human.facts["agent_id"] == "agent-0"
    assert human.facts["letta_block"]["limit"] == 5000


def test_a_block_of_several_agents_or_of_none_names_them() -> None:
    found = by_key(AGENTS)
    shared, spare = found["block/block-1/house_rules"], found["block/block-2/spare"]

    assert (shared.project, shared.facts["letta_agents"]) == (None, ["Sam", "Kim"])
    assert (spare.project, "letta_agents" in spare.facts) == (None, False)


def test_a_message_that_is_a_text_stays_one_and_another_stays_json() -> None:
    found = by_key(AGENTS)
    told, called = found["message/message-1"], found["message/message-2"]

    assert json.loads(told.value) == "I moved to Kraków 🎉"
    assert told.created_at == 1772600761123456
    assert (told.facts["role"], told.facts["letta_id"]) == ("user", "message-1")
    assert json.loads(called.value)["tool_calls"][0]["function"]["name"] == "core_memory_append"
    assert json.loads(called.value)["content"][0]["text"] == "Noted."


def test_a_file_is_carried_where_its_content_is_there() -> None:
    guide = by_key(AGENTS)["file/file-0/guide.md"]

    assert json.loads(guide.value) == "# Guide\n"
    assert guide.created_at == 1772323200000000
    assert guide.facts["letta_file"]["file_name"] == "guide.md"


def test_what_is_no_memory_is_skipped_and_no_secret_is_carried() -> None:
    found = read(AGENTS)

    assert [one.origin for one in found if isinstance(one, Skipped)] == [
        "agents/0/messages/0",
        "agents/0",
        "agents/1",
        "files/1",
        "sources/0",
    ]
    assert "not-a-secret" in AGENTS.read_text()
    assert "not-a-secret" not in str(found)


def test_the_survey_counts_what_each_agent_has() -> None:
    survey = opened(AGENTS).survey()

    assert survey.records == 8
    assert survey.projects == {"Sam": 5}
    assert survey.bytes == AGENTS.stat().st_size
    assert any("archival" in remark for remark in survey.remarks)


def test_the_earlier_format_is_read() -> None:
    found = by_key(FIXTURES / "one_agent.af")

    assert sorted(found) == ["block/human", "message/1"]
    assert {item.project for item in found.values()} == {"Max"}
    assert (found["block/human"].created_at, found["block/human"].updated_at) == (1743501600250000, 1743588000000000)
    assert json.loads(found["message/1"].value) == "Hello"


def test_a_file_that_is_one_json_text_is_read(tmp_path: Path) -> None:
    quoted = written(tmp_path, json.dumps(AGENTS.read_text()).encode())

    assert by_key(quoted) == by_key(AGENTS)


def test_all_agent_files_of_a_folder_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.af").write_bytes(AGENTS.read_bytes())
    (tmp_path / "b.af").write_bytes((FIXTURES / "one_agent.af").read_bytes())
    (tmp_path / "c.txt").write_text("no agent")
    (tmp_path / "c.af").write_bytes(b"none")
    (tmp_path / "d.af").symlink_to(tmp_path / "a.af")
    source = opened(tmp_path)
    found = list(source.read())

    assert len({one.origin for one in found}) == len(found)
    assert {item.project for item in each(found)} == {"Sam", "Max", None}
    assert next(item.origin for item in each(found)) == "a.af/agents/0/messages/1"
    assert [one.origin for one in found if isinstance(one, Skipped)][-1] == "d.af"
    assert [(one.origin, one.raw) for one in found if isinstance(one, Quarantined)] == [("c.af", b"none")]
    assert source.survey().records == 10
    before = source.token()
    (tmp_path / "b.af").write_bytes(AGENTS.read_bytes())
    assert source.token() != before


def test_what_two_files_call_the_same_stays_apart(tmp_path: Path) -> None:
    for name in ("a.af", "b.af"):
        (tmp_path / name).write_bytes((FIXTURES / "one_agent.af").read_bytes())

    assert sorted(item.key for item in each(read(tmp_path))) == [
        "block/human",
        "block/human~b.af/core_memory/0",
        "message/1",
        "message/1~b.af/messages/1",
    ]


def test_agents_of_one_name_stay_apart(tmp_path: Path) -> None:
    content = json.loads(AGENTS.read_bytes())
    content["agents"][1] |= {"name": "Sam", "block_ids": ["block-2"]}
    found = by_key(written(tmp_path, json.dumps(content).encode()))

    assert found["block/human"].project == "Sam agent-0"
    assert found["block/spare"].project == "Sam agent-1"


def test_one_odd_part_does_not_hide_the_others(tmp_path: Path) -> None:
    raw = b"""{
        "agents": [{"id": "a", "name": "A", "block_ids": ["b0", "b3"], "messages": [
            {"id": "m", "role": "user", "content": NaN}, {"id": "n", "role": "user", "content": "text"}]}, 7],
        "blocks": [{"id": "b0", "label": "x", "value": "1"}, {"id": "b1", "label": "y"},
            {"id": "b2", "value": "\\udfff"}, {"id": ["b"], "label": {}, "value": "4"},
            {"id": "b3", "label": "z", "value": "3", "limit": {"x": 1}}]}"""
    found = read(written(tmp_path, raw))
    odd = {one.origin: one.code for one in found if isinstance(one, Quarantined)}

    assert odd == {
        "agents/0/messages/0": "nan",
        "agents/1": "malformed",
        "blocks/1": "malformed",
        "blocks/2": "surrogate",
    }
    assert sorted(item.key for item in each(found)) == ["block/3/3", "block/x", "block/z", "message/n"]


def test_a_file_that_was_cut_tells_what_is_whole_and_puts_the_rest_aside(tmp_path: Path) -> None:
    cut = written(tmp_path, AGENTS.read_bytes()[:8_500])
    *_, last = read(cut)

    assert isinstance(last, Quarantined)
    assert (last.origin, last.code) == ("rest", "malformed")
    assert "message/message-4" in by_key(cut)
    with pytest.raises(SourceError, match="no whole JSON file"):
        opened(cut).survey()


@pytest.mark.parametrize("content", [b"", b"hello", b'"no json"', b'"\xff"', b"5"])
def test_what_is_no_agent_file_is_an_error(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(SourceError):
        opened(written(tmp_path, content)).survey()


def test_a_file_without_anything_has_nothing(tmp_path: Path) -> None:
    empty = written(tmp_path, b'{"agents": [], "groups": [], "blocks": [], "files": [], "sources": [], "tools": []}')

    assert read(empty) == []
    assert opened(empty).survey().records == 0


def test_a_folder_without_agent_files_and_a_missing_file_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no \.af file"):
        opened(tmp_path)
    with pytest.raises(SourceError, match="no such file"):
        opened(tmp_path / "none.af")
