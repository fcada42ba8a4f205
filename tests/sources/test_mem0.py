"""mem0, from a history that it wrote and from what its get_all answered."""

import json
from pathlib import Path

import apsw
import pytest

from unified_memory.model.errors import SourceError
from unified_memory.sources.base import Item, Options, Quarantined, Skipped, each
from unified_memory.sources.mem0 import Mem0

FIXTURES = Path(__file__).parent / "fixtures" / "mem0"
EXPORT = FIXTURES / "export.json"
TEA = "6671d61c-c6d5-4d1c-aff1-a4f81f2c1a34"
CITY = "7d40884c-b504-4655-90e4-528a2864da71"
FORGOTTEN = "72cb893d-c3c3-439f-b96b-affa68ccab4e"


@pytest.fixture
def history(tmp_path: Path) -> Path:
    path = tmp_path / "history.db"
    connection = apsw.Connection(str(path))
    connection.execute((FIXTURES / "history.sql").read_text())
    connection.close()
    return path


def opened(path: Path, *, keep_ttl: bool = False) -> Mem0:
    return Mem0.open(str(path), Options(keep_ttl=keep_ttl))


def by_key(path: Path) -> dict[str, Item]:
    return {item.key: item for item in each(opened(path).read())}


def exported(path: Path, content: object) -> Path:
    path /= "export.json"
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_the_history_tells_each_memory_as_it_is_now(history: Path) -> None:
    found = by_key(history)
    tea = found[TEA]

    assert len(found) == 4
    assert json.loads(tea.value) == "Ada prefers green tea, no sugar"
    assert (tea.created_at, tea.updated_at) == (1795473274271620, 1795473274285045)
    assert tea.facts == {"mem0_id": TEA, "mem0_role": "user", "mem0_former_versions": 2}
    assert (tea.service, tea.shape, tea.project, tea.origin) == ("mem0", "record", None, f"memory/{TEA}")


def test_deleted_memories_are_skipped_and_former_versions_told(history: Path) -> None:
    source = opened(history)
    survey = source.survey()

    assert [one.origin for one in source.read() if isinstance(one, Skipped)] == [f"memory/{FORGOTTEN}"]
    assert survey.records == 4
    assert "1 memories are deleted there and stay behind" in survey.remarks
    assert any(remark.startswith("2 former versions") for remark in survey.remarks)


def test_a_memory_that_came_again_after_it_was_deleted_is_there(history: Path) -> None:
    connection = apsw.Connection(str(history))
    connection.execute(
        "INSERT INTO history (id, memory_id, new_memory, event) VALUES ('x', ?, 'back', 'ADD')", (FORGOTTEN,)
    )
    connection.close()

    assert json.loads(by_key(history)[FORGOTTEN].value) == "back"
    assert opened(history).survey().records == 5


def test_the_export_tells_whose_a_memory_is(tmp_path: Path) -> None:
    found = by_key(EXPORT)
    city = found[CITY]

    assert {key: item.value for key, item in found.items()} == {
        json.loads(json.dumps(one["id"])): json.dumps(one["memory"], ensure_ascii=False).encode()
        for one in json.loads(EXPORT.read_bytes())["results"]
    }
    assert city.project == "ada"
    assert city.created_at == 1795473274275230
    assert city.facts == {
        "mem0_id": CITY,
        "user_id": "ada",
        "agent_id": "helper",
        "run_id": "run-1",
        "mem0": {"hash": "c885d99558facff7f20cc8a07c4c1937", "role": "user"},
    }
    assert found[TEA].facts["metadata"] == {"category": "taste", "weight": 2.5}
    assert opened(EXPORT).survey().projects == {"ada": 3, "bob": 1}
    assert by_key(exported(tmp_path, list(json.loads(EXPORT.read_bytes())["results"]))) == found


def test_categories_are_tags_and_an_expiration_is_kept_where_it_is_wanted(tmp_path: Path) -> None:
    memory = {
        "id": "a",
        "memory": "m",
        "categories": ["food", "food", " "],
        "expiration_date": "2030-01-02",
        "user_id": None,
    }
    path = exported(tmp_path, {"memories": [memory]})
    [told], [kept] = (list(each(opened(path, keep_ttl=keep).read())) for keep in (False, True))

    assert told.tags == ("food",)
    assert (told.expires_at, told.facts["mem0_expiration_date"]) == (None, "2030-01-02")
    assert kept.expires_at == 1893542400000000
    assert told.project is None


def test_one_odd_memory_does_not_hide_the_others(tmp_path: Path) -> None:
    raw = b"""{"results": [{"id": "a", "memory": "one"}, {"id": "b", "memory": "two", "metadata": {"x": NaN}},
        {"id": "c", "memory": "\\ud83d"}, {"id": "a", "memory": "again"}, {"memory": "x"}, 5, {"id": "d" "memory": "y"},
        {"id": "e", "memory": "five, ]}\\" [", "metadata": {"big": 123456789012345678901}}], "relations": [{"source": "ada"}]}"""
    found = list(opened(exported(tmp_path, raw)).read())
    odd = [one for one in found if isinstance(one, Quarantined)]

    assert [item.key for item in each(found)] == ["a", "e"]
    assert [one.code for one in odd] == ["nan", "surrogate", "malformed", "malformed", "malformed", "malformed"]
    assert odd[0].raw == b'{"id": "b", "memory": "two", "metadata": {"x": NaN}}'
    assert odd[0].origin == "results/1"
    assert [one.origin for one in found if isinstance(one, Skipped)] == ["relations/0"]
    assert list(each(found))[1].notes == ("huge: an integer beyond 64 bits: 123456789012345678901",)
    assert json.loads(list(each(found))[1].value) == 'five, ]}" ['


def test_a_file_that_was_cut_tells_what_is_whole_and_puts_the_rest_aside(tmp_path: Path) -> None:
    path = exported(tmp_path, EXPORT.read_bytes()[:900])
    *whole, last = opened(path).read()

    assert [type(one) for one in whole] == [Item, Item]
    assert isinstance(last, Quarantined)
    assert (last.origin, last.code) == ("rest", "malformed")
    assert last.raw.startswith(b"{")
    with pytest.raises(SourceError, match="no whole JSON file"):
        opened(path).survey()


@pytest.mark.parametrize("content", [b"", b"  \n", b"hello", b'"text"'])
def test_what_is_no_export_is_an_error(tmp_path: Path, content: bytes) -> None:
    source = opened(exported(tmp_path, content))

    with pytest.raises(SourceError):
        source.survey()


@pytest.mark.parametrize("content", [b"[]", b"{}", b'{"results": []}', b'\xef\xbb\xbf {"results":[ ]}\n'])
def test_an_empty_export_has_nothing(tmp_path: Path, content: bytes) -> None:
    source = opened(exported(tmp_path, content))

    assert list(source.read()) == []
    assert source.survey().records == 0


def test_an_export_larger_than_a_piece_is_read_whole(tmp_path: Path) -> None:
    memories = [{"id": str(number), "memory": f'{number} é\\"' * 300, "user_id": "u"} for number in range(1_000)]
    raw = json.dumps({"results": memories}, ensure_ascii=False).encode()
    assert len(raw) > 2 << 20
    found = list(each(opened(exported(tmp_path, raw)).read()))

    assert [json.loads(item.value) for item in found] == [one["memory"] for one in memories]


def test_an_earlier_history_is_read(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    connection = apsw.Connection(str(path))
    connection.execute((FIXTURES / "history_0.0.5.sql").read_text())
    connection.close()
    [item] = each(opened(path).read())

    assert json.loads(item.value) == "Likes green tea"
    assert item.created_at is not None
    assert item.updated_at is not None
    assert item.created_at < item.updated_at
    assert [one.origin for one in opened(path).read() if isinstance(one, Skipped)] == ["memory/m-2"]


def test_a_row_that_is_odd_is_quarantined_or_noted(history: Path) -> None:
    connection = apsw.Connection(str(history))
    connection.execute("DELETE FROM history")
    connection.execute("""INSERT INTO history (id, memory_id, new_memory, event, created_at) VALUES
        ('1', NULL, 'whose', 'ADD', NULL), ('2', 'n', NULL, 'ADD', NULL), ('3', 'm', 'text', 'ADD', 'soon'),
        ('4', 'o', x'ff', 'ADD', NULL), ('5', 'p', 'there', 'ADD', '2024-07-01T10:00:00.5-07:00')""")
    connection.close()
    found = list(opened(history).read())
    noted, dated = each(found)

    assert [(one.origin, one.code) for one in found if isinstance(one, Quarantined)] == [
        ("history/1", "malformed"),
        ("memory/n", "malformed"),
        ("memory/o", "binary"),
    ]
    assert (noted.created_at, noted.notes) == (None, ("malformed: created_at is no instant: 'soon'",))
    assert (dated.created_at, dated.updated_at) == (1719853200500000, 1719853200500000)


def test_the_history_is_read_while_it_is_written(history: Path) -> None:
    writer = apsw.Connection(str(history))
    source = opened(history)
    before = source.token()
    reading = source.read()
    first = next(reading)
    writer.execute("INSERT INTO history (id, memory_id, new_memory, event) VALUES ('x', 'new', 'later', 'ADD')")
    rest = list(reading)

    assert len([first, *rest]) == 5
    assert source.token() != before
    assert len(list(source.read())) == 6
    writer.close()


def test_an_empty_history_has_nothing(history: Path) -> None:
    connection = apsw.Connection(str(history))
    connection.execute("DELETE FROM history")
    connection.close()

    assert list(opened(history).read()) == []
    assert opened(history).survey().records == 0


def test_another_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    apsw.Connection(str(path)).execute("CREATE TABLE t (a)")

    with pytest.raises(SourceError, match="no table history"):
        opened(path)
    with pytest.raises(SourceError, match="no such file"):
        opened(tmp_path / "none")
