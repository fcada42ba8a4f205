"""basic-memory, from the folder of a project that it wrote."""

import json
import os
import shutil
from pathlib import Path

import pytest

from unified_memory.model.errors import SourceError
from unified_memory.sources.base import Found, Item, Options, Quarantined, Skipped, each
from unified_memory.sources.basic_memory import BasicMemory

FIXTURE = Path(__file__).parent / "fixtures" / "basic-memory" / "demo"
COFFEE = "kitchen/notes/Coffee Brewing- Methods.md"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return Path(shutil.copytree(FIXTURE, tmp_path / "demo"))


def read(path: Path) -> list[Found]:
    return list(BasicMemory.open(str(path), Options()).read())


def by_origin(path: Path) -> dict[str, Item]:
    return {item.origin: item for item in each(read(path))}


def test_a_note_is_carried_whole_with_what_its_front_matter_says(project: Path) -> None:
    os.utime(project / COFFEE, ns=(1, 1_750_000_000_123_456_789))
    coffee = by_origin(project)[COFFEE]

    assert json.loads(coffee.value) == (FIXTURE / COFFEE).read_text()
    assert (coffee.service, coffee.shape, coffee.project) == ("basic-memory", "record", "kitchen/notes")
    assert (coffee.key, coffee.namespace) == (
        "demo/kitchen/notes/coffee-brewing-methods",
        "migrated_basic_memory/kitchen/notes",
    )
    assert coffee.tags == ("coffee", "slow mornings")
    assert coffee.created_at == coffee.updated_at == 1_750_000_000_123_456
    assert coffee.facts == {
        "path": COFFEE,
        "title": "Coffee Brewing: Methods",
        "type": "note",
        "permalink": "demo/kitchen/notes/coffee-brewing-methods",
        "relations": [["relates_to", "Grinders"]],
        "observation_tags": ["clarity", "light"],
    }


def test_front_matter_of_the_author_is_a_fact(project: Path) -> None:
    found = by_origin(project)

    assert found["kitchen/Front matter.md"].facts["front_matter"] == {
        "status": "it's",
        "when": "2024-05-06",
        "ratio": 1.5,
        "done": False,
        "nothing": None,
        "list": ["one", "two: x"],
        "nested": {"a": 1, "b": ["x", "y"]},
        "text": "line one\nline two\n",
    }
    assert found["kitchen/Grinders.md"].facts["type"] == "guide"
    assert found["At the top.md"].namespace == "migrated_basic_memory"
    assert found["At the top.md"].project is None


def test_times_in_the_front_matter_count_before_those_of_the_file(project: Path) -> None:
    (project / "n.md").write_text("---\ncreated: 2024-01-02T03:04:05+01:00\nmodified: '2024-02-03'\n---\n")
    (project / "o.md").write_text("---\ncreated: some day\n---\n")
    os.utime(project / "o.md", ns=(5_000, 7_000))
    found = by_origin(project)

    assert (found["n.md"].created_at, found["n.md"].updated_at) == (1704161045000000, 1706918400000000)
    assert (found["o.md"].created_at, found["o.md"].updated_at) == (7, 7)
    assert found["o.md"].facts["front_matter"] == {"created": "some day"}


def test_a_note_without_front_matter_is_named_by_its_file(project: Path) -> None:
    (project / "a folder").mkdir()
    (project / "a folder" / "plain.note.md").write_text("Just text")
    plain = by_origin(project)["a folder/plain.note.md"]

    assert (plain.key, plain.namespace, plain.tags) == ("plain.note", "migrated_basic_memory/a folder", ())
    assert plain.facts == {"path": "a folder/plain.note.md"}


def test_notes_of_one_permalink_stay_apart(project: Path) -> None:
    shutil.copy(project / "kitchen" / "Grinders.md", project / "kitchen" / "Grinders copy.md")
    shutil.copy(project / "kitchen" / "Grinders.md", project / "Grinders.md")
    found = by_origin(project)

    assert found["kitchen/Grinders copy.md"].key == found["Grinders.md"].key == "demo/kitchen/grinders"
    assert found["kitchen/Grinders.md"].key == "Grinders.md"
    assert found["kitchen/Grinders.md"].facts["permalink"] == "demo/kitchen/grinders"


@pytest.mark.parametrize(
    ("written", "tags"),
    [
        ("tags: [a, 'b c']", ("a", "b c")),
        ("tags: a, '#b'", ("a", "'#b'")),
        ("tags: '#a, b'", ("a", "b")),
        ("tags:\n  - a\n  - a\n  - 7", ("a", "7")),
        ("tags:", ()),
    ],
)
def test_tags_are_read_in_every_form(project: Path, written: str, tags: tuple[str, ...]) -> None:
    (project / "t.md").write_text(f"---\n{written}\n---\n")

    assert by_origin(project)["t.md"].tags == tags


def test_relations_and_observations_are_told(project: Path) -> None:
    text = "- [ ] a task #no\n* [idea] x #one #two\n- part of [[A]]\n- [[B|b]]\n1. [[C]]\ntext [[D]]\n"
    (project / "r.md").write_text(text)
    note = by_origin(project)["r.md"]

    assert note.facts["relations"] == [["part of", "A"], ["relates_to", "B|b"]]
    assert note.facts["observation_tags"] == ["one", "two"]


def test_what_is_no_note_is_skipped(project: Path) -> None:
    (project / ".obsidian").mkdir()
    (project / ".obsidian" / "x.md").write_text("hidden")
    (project / "picture.png").write_bytes(b"\x89PNG")
    (project / "link.md").symlink_to(project / "At the top.md")
    (project / "loop").symlink_to(project)
    os.mkfifo(project / "pipe.md")
    skipped = {one.origin: one.reason for one in read(project) if isinstance(one, Skipped)}

    assert sorted(skipped) == [".obsidian", "link.md", "loop", "picture.png", "pipe.md"]
    assert skipped["link.md"] == "It is a symbolic link"
    survey = BasicMemory.open(str(project), Options()).survey()
    assert (survey.records, survey.projects) == (4, {"kitchen": 2, "kitchen/notes": 1})
    assert any(remark.startswith("5 files and folders") for remark in survey.remarks)


def test_a_note_that_is_no_utf_8_is_quarantined_as_it_is(project: Path) -> None:
    (project / "latin.md").write_bytes(b"caf\xe9")
    (project / os.fsdecode(b"n\xe9.md")).write_bytes(b"text")
    odd = {one.origin: one for one in read(project) if isinstance(one, Quarantined)}

    assert (odd["latin.md"].code, odd["latin.md"].raw) == ("binary", b"caf\xe9")
    assert (odd["n\\xe9.md"].code, odd["n\\xe9.md"].raw) == ("binary", b"text")


def test_an_empty_folder_has_nothing_and_a_missing_one_is_an_error(tmp_path: Path) -> None:
    assert read(tmp_path) == []
    assert BasicMemory.open(str(tmp_path), Options()).survey().records == 0
    with pytest.raises(SourceError, match="no folder"):
        BasicMemory.open(str(tmp_path / "none"), Options())


def test_notes_and_folders_that_go_meanwhile_hide_no_other(project: Path) -> None:
    (project / "zoo.md").write_text("last")
    source = BasicMemory.open(str(project), Options())
    before = source.token()
    reading = each(source.read())
    told = [next(reading).origin, next(reading).origin]
    # Both are listed already, with the note that was told.
    (project / "kitchen" / "Grinders.md").unlink()
    shutil.rmtree(project / "kitchen" / "notes")
    told += [item.origin for item in reading]

    assert told == ["At the top.md", "kitchen/Front matter.md", "zoo.md"]
    assert source.token() != before
