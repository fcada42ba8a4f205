"""The file of the reference memory server becomes the graph that our tools of a knowledge graph show."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Raw

from tests.service.asking import holding
from tests.sources.dumps import FIXTURES
from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import InvalidInputError, SourceError
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.mapping import Mapping, place_of
from unified_memory.sources.base import Found, Item, Options, Quarantined, Skipped, each
from unified_memory.sources.kinds import open_source
from unified_memory.storage.inmemory import InMemoryStorage

KIND = "server-memory"
FIXTURE = FIXTURES / KIND / "memory.jsonl"


def read(path: Path) -> list[Found]:
    source = open_source(KIND, str(path))
    found = list(source.read())
    source.close()
    return found


def written(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def entity(name: str, *observations: str) -> str:
    return json.dumps({"type": "entity", "name": name, "entityType": "thing", "observations": observations})


def lines(kind: str) -> list[dict[str, Any]]:
    told = [json.loads(line) for line in FIXTURE.read_text(encoding="utf-8").splitlines()]
    return [{name: one for name, one in line.items() if name != "type"} for line in told if line["type"] == kind]


async def test_our_tools_show_the_same_graph() -> None:
    async with holding(InMemoryStorage(), SettableClock()) as held:
        for item in each(read(FIXTURE)):
            namespace, key = place_of(item, KIND, Mapping())
            await held.store(key, Raw(item.value), namespace)
        found = await held.service.graph.read(ANONYMOUS)
    assert [msgspec.to_builtins(one) for _, one in found.entities] == lines("entity")
    assert [msgspec.to_builtins(one) for _, one in found.relations] == lines("relation")


def test_the_survey_counts_and_names_relations_without_an_end() -> None:
    survey = open_source(KIND, str(FIXTURE)).survey()
    assert survey.records == 8
    assert survey.bytes == FIXTURE.stat().st_size
    assert "1 relations name an entity that does not exist; they are carried all the same" in survey.remarks


def test_a_folder_is_read_by_the_name_of_its_file() -> None:
    assert read(FIXTURE.parent) == read(FIXTURE)


def test_malformed_lines_are_quarantined_as_they_are(tmp_path: Path) -> None:
    surrogate = '{"type":"entity","name":"\\ud800","entityType":"t","observations":[]}'
    odd = ["{", "[1]", '{"type":"entity","name":"x"}', surrogate]
    found = read(written(tmp_path / "m.jsonl", *odd, "", entity("a")))
    assert [one.code for one in found if isinstance(one, Quarantined)] == ["malformed"] * 3 + ["surrogate"]
    assert [one.raw.strip().decode() for one in found if isinstance(one, Quarantined)] == odd
    assert [one.key for one in each(found)] == ["entity/a"]


def test_of_two_lines_of_one_name_the_second_is_told(tmp_path: Path) -> None:
    found = read(written(tmp_path / "m.jsonl", entity("a", "x"), entity("a", "x"), entity("a", "y")))
    assert [type(one) for one in found] == [Item, Skipped, Quarantined]


def test_lines_of_another_type_are_told(tmp_path: Path) -> None:
    [found, _] = read(written(tmp_path / "m.jsonl", '{"type":"note","text":"x"}', entity("a")))
    assert isinstance(found, Skipped)
    assert "note" in found.reason


def test_what_its_tools_do_not_know_becomes_metadata(tmp_path: Path) -> None:
    line = {**json.loads(entity("a")), "colour": "red"}
    [item] = each(read(written(tmp_path / "m.jsonl", json.dumps(line))))
    assert item.facts == {"colour": "red"}
    assert json.loads(item.value) == {"name": "a", "entityType": "thing", "observations": []}


def test_a_file_without_a_graph_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No line of it"):
        open_source(KIND, str(written(tmp_path / "m.jsonl", "{}", "x"))).survey()


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="There is no such file"):
        open_source(KIND, str(tmp_path / "none.jsonl"), Options())
    with pytest.raises(InvalidInputError):
        open_source(KIND, "")


def test_the_token_changes_with_the_file(tmp_path: Path) -> None:
    source = open_source(KIND, str(written(tmp_path / "m.jsonl", entity("a"))))
    before = source.token()
    assert source.token() == before
    written(tmp_path / "m.jsonl", entity("a"), entity("b"))
    assert source.token() != before
