"""Where a record of another program goes, and what is said of it here."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unified_memory.model.errors import InvalidInputError
from unified_memory.model.memory import check_key
from unified_memory.model.value import encode
from unified_memory.service.graph import entity_key
from unified_memory.service.mapping import (
    FORMER_ID,
    Mapping,
    clamped,
    digest_of,
    draft_of,
    entry_key,
    entry_of,
    facts_of,
    item_label,
    mark_of,
    place_of,
    read_mapping,
    says_the_same,
    shape_of,
)
from unified_memory.sources.base import LEGACY_CREATED_AT, LEGACY_ID, Item, Shape


def item(shape: Shape = "context", project: str | None = "web", key: str = "12", **more: Any) -> Item:
    told = {"origin": f"{shape}/{key}", "service": "extended-memory", "value": encode("text"), "created_at": 5, **more}
    return Item(shape=shape, project=project, key=key, **told)


def drafted(one: Item, mapping: Mapping = Mapping(), **more: Any) -> Any:  # noqa: B008 - it is frozen
    return draft_of(one, "key", "extended-memory-sqlite", mapping, 99, **more)


@pytest.mark.parametrize(
    ("shape", "project", "key", "place"),
    [
        ("context", "web", "12", ("projects/web", "context/12~")),
        ("context", "", "12", ("projects/%", "context/12~")),
        ("context", None, "12", ("migrated_extended", "context/12~")),
        ("file", "web", "a.md", ("projects/web", "a.md")),
        ("file", "web", "context/x", ("projects/web", "%63ontext/x")),
        ("file", None, "a.md", ("migrated_bank", "a.md")),
        ("entry", None, "", ("migrated_extended", "%")),
        ("record", None, "k", ("migrated_some_kind", "k")),
        ("record", "a/b", "k", ("migrated_some_kind/a%2Fb", "k")),
    ],
)
def test_each_shape_has_its_place(shape: Shape, project: str | None, key: str, place: tuple[str, str]) -> None:
    namespace, found = place_of(item(shape, project, key), "some-kind", Mapping())
    assert (namespace, found.partition("~")[0] + "~" if shape == "context" else found) == place


def test_a_record_may_name_its_namespace() -> None:
    assert place_of(item("entry", None, "k", namespace="a/b"), "x", Mapping()) == ("a/b", "k")


@pytest.mark.parametrize("name", ["plain", "a\0b", "literal %00", "a%2500|b", "%"])
def test_an_entity_has_the_key_by_which_the_graph_finds_it(name: str) -> None:
    key = entity_key(name)
    assert place_of(item("record", None, key, namespace="graph"), "server-memory", Mapping()) == ("graph", key)


def test_a_number_with_another_content_has_another_key() -> None:
    one, other = item(facts={LEGACY_CREATED_AT: "x"}), item(facts={LEGACY_CREATED_AT: "y"})
    assert mark_of(one) != mark_of(other)
    assert mark_of(one) != mark_of(item(value=encode("other"), facts={LEGACY_CREATED_AT: "x"}))
    assert len(mark_of(one)) == 8


def test_a_template_says_where_everything_goes() -> None:
    mapping = Mapping(namespace_template="in/{kind}/{project}", namespaces={"file": "files/{namespace}"})
    assert place_of(item(), "k", mapping)[0] == "in/k/web"
    assert place_of(item(project=None), "k", mapping)[0] == "in/k"
    assert place_of(item("file"), "k", mapping)[0] == "files/projects/web"


def test_files_of_two_projects_do_not_meet_where_a_template_names_none() -> None:
    mapping = Mapping(namespace_template="all")
    assert place_of(item("file", "a", "x"), "k", mapping) == ("all", "a/x")
    assert place_of(item("file", "b", "x"), "k", mapping) == ("all", "b/x")


@pytest.mark.parametrize(
    "template",
    [
        "{no_such}",
        "a//b",
        "{project",
        "a/../b",
        "",
        "{project:>9}",
        "{project:{kind}}",
        "{project!r}",
        "{project.name}",
    ],
)
def test_a_template_that_names_no_namespace_is_refused(template: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        Mapping(namespace_template=template).check()
    assert refused.value.field == "namespace_template"


def test_a_mapping_says_nothing_that_a_memory_says_of_itself() -> None:
    with pytest.raises(InvalidInputError):
        Mapping(metadata={"tags": []}).check()
    with pytest.raises(InvalidInputError):
        Mapping(importance={"file": 11}).check()


def test_the_metadata_tell_where_a_memory_comes_from() -> None:
    draft = drafted(
        item(facts={LEGACY_ID: 12, "title": "T", "tags": "odd"}, tags=("a", "a", "b")), Mapping(metadata={"by": "me"})
    )
    assert json.loads(draft.attributes) == {
        "tags": ["a", "b"],
        "migrated_from": "extended-memory",
        "legacy_id": 12,
        "title": "T",
        "source_tags": "odd",
        "by": "me",
    }
    assert draft.project_id == "web"


def test_a_number_that_is_taken_is_a_former_one() -> None:
    one = item(facts={LEGACY_ID: 12})
    assert item_label(one) == "12"
    assert facts_of(drafted(one, former=True).attributes)[FORMER_ID] == 12


@pytest.mark.parametrize("project", ["", "x" * 256, "a\0b", None])
def test_what_is_no_name_of_a_project_is_no_project_id(project: str | None) -> None:
    assert drafted(item(project=project)).project_id is None


def test_instants_are_those_of_the_source() -> None:
    origin = drafted(item(created_at=5, updated_at=7, access_count=3, last_accessed=9)).origin
    assert (origin.created_at, origin.updated_at, origin.access_count, origin.last_accessed) == (5, 7, 3, 9)
    origin = drafted(item(created_at=None)).origin
    assert (origin.created_at, origin.updated_at) == (99, 99)


def test_what_cannot_be_stored_is_refused() -> None:
    with pytest.raises(InvalidInputError):
        drafted(item(value=b"[" * 300 + b"]" * 300))
    with pytest.raises(UnicodeEncodeError):
        place_of(item("entry", None, "\ud800"), "k", Mapping())


def test_a_digest_is_of_all_but_how_often_it_was_read() -> None:
    one = item()
    assert digest_of(one) == digest_of(item(access_count=4, last_accessed=7))
    assert digest_of(one) != digest_of(item(tags=("a",)))
    assert len(digest_of(one)) == 16


@pytest.mark.parametrize(
    ("told", "importance"),
    [
        (7, 7),
        (0, 1),
        (-3, 1),
        (5.9, 5),
        (1e308, 10),
        (True, 1),
        (False, 5),
        ("8", 8),
        (" 12 ", 10),
        ("9" * 9999, 10),
        ("-" + "9" * 9999, 1),
        ("abc", 5),
        (None, 5),
        ([7], 5),
        (math.nan, 5),
        (math.inf, 10),
    ],
)
def test_importances_of_the_older_services_become_one_of_ours(told: Any, importance: int) -> None:
    assert clamped(told) == importance


@given(st.text(alphabet=st.sampled_from("%25\x000a/c"), max_size=8) | st.text(max_size=20))
def test_every_key_of_an_entry_has_a_key_here_and_back(key: str) -> None:
    found = entry_key(key)
    assert check_key(found, 10**6) == found
    assert entry_of(found) == key


@given(st.text(alphabet=st.sampled_from("%25\x000a"), min_size=1, max_size=8).filter(lambda key: "\0" not in key))
def test_every_key_here_is_that_of_an_entry(key: str) -> None:
    assert entry_key(entry_of(key)) == key


DIGITS = "9" * 6000


@pytest.mark.parametrize(
    ("there", "here", "same"),
    [
        ('{"n": 1, "m": [true, null]}', '{"m":[true,null],"n":1}', True),
        ('"\\u00e9"', '"é"', True),
        ("1.50", "1.5", True),
        ("100.0", "1e2", True),
        ("1", "1.0", True),
        (DIGITS, DIGITS, True),
        (f"[{DIGITS}]", f"[ {DIGITS} ]", True),
        (f"[{DIGITS}]", f"[{DIGITS}0]", False),
        ("1e999999999999999999999", "[1e999999999999999999999]", False),
        ("[1e999999999999999999999]", "[ 1e999999999999999999999]", True),
        ("0.1", "0.10000000000000000555", False),
        ("true", "1", False),
        ("null", '"null"', False),
        ('{"n": 1}', '"{\\"n\\": 1}"', False),
        ('{"n": 1}', '{"n": 2}', False),
        ('{"n": 1}', '{"n": 1, "m": 1}', False),
        ("[1, 2]", "[2, 1]", False),
        ("[1]", "[1, 2]", False),
        ("NaN", "1", False),
    ],
)
def test_a_value_is_the_same_however_its_service_spells_it(there: str, here: str, *, same: bool) -> None:
    assert says_the_same(item("entry", None, value=there.encode()), here.encode()) is same


def test_a_service_of_texts_holds_the_json_text_of_what_is_none() -> None:
    assert says_the_same(item("file", value=encode('{"n":1.50}')), b'{"n":1.50}')
    assert not says_the_same(item("file", value=encode('{"n":1.50}')), b'{"n":1.5}')


@pytest.mark.parametrize(
    ("namespace", "key", "shape"),
    [
        ("projects/web", "context/1", "context"),
        ("projects/web", "a.md", "file"),
        ("migrated_extended", "k", "entry"),
        ("projects", "k", None),
        ("projectsx/web", "k", None),
        ("default", "context/1", None),
    ],
)
def test_what_is_first_here_would_go_where_its_like_came_from(namespace: str, key: str, shape: Shape | None) -> None:
    assert shape_of(namespace, key) == shape


def test_a_mapping_is_read_from_a_file(tmp_path: Path) -> None:
    toml, told = tmp_path / "m.toml", tmp_path / "m.json"
    toml.write_text('namespace_template = "a/{project}"\ntags = ["x"]\n[projects]\nweb = "site"\n')
    told.write_text('{"namespace_template": "a/{project}", "tags": ["x"], "projects": {"web": "site"}}')
    assert (
        read_mapping(toml)
        == read_mapping(told)
        == Mapping(namespace_template="a/{project}", tags=("x",), projects={"web": "site"})
    )


@pytest.mark.parametrize("text", ["{", '{"unknown": 1}', '{"namespace_template": "{x}"}', "\xff"])
def test_a_file_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "m.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInputError):
        read_mapping(path)
    with pytest.raises(InvalidInputError):
        read_mapping(tmp_path / "none.json")
