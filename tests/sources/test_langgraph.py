"""LangGraph's long-term memory, from a database that its SqliteStore wrote."""

import json
from pathlib import Path

import apsw
import pytest

from unified_memory.model.errors import SourceError
from unified_memory.model.namespace import check_namespace
from unified_memory.sources.base import Item, Options, Quarantined, each
from unified_memory.sources.langgraph import LangGraph

FIXTURE = Path(__file__).parent / "fixtures" / "langgraph" / "store.sql"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "store.db"
    connection = apsw.Connection(str(path))
    connection.execute(FIXTURE.read_text())
    connection.close()
    return path


def opened(path: Path, *, keep_ttl: bool = False) -> LangGraph:
    return LangGraph.open(str(path), Options(keep_ttl=keep_ttl))


def put(path: Path, prefix: object, key: object, value: object) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("INSERT OR REPLACE INTO store (prefix, key, value) VALUES (?, ?, ?)", (prefix, key, value))
    connection.close()


def by_key(source: LangGraph) -> dict[str, Item]:
    return {item.key: item for item in each(source.read())}


def test_a_record_keeps_its_json_namespace_key_and_times(database: Path) -> None:
    theme = by_key(opened(database))["theme"]

    assert theme.value == b'{"text":"Prefers dark mode","tags":["ui","taste"]}'
    assert theme.namespace == "migrated_langgraph/users/ada/preferences"
    assert (theme.origin, theme.project) == ("users.ada.preferences/theme", None)
    assert theme.facts == {"langgraph_namespace": ["users", "ada", "preferences"], "langgraph_key": "theme"}
    assert theme.created_at == theme.updated_at == 1795473042000000


def test_numbers_keep_their_digits(database: Path) -> None:
    put(database, "n", "1", '{"x": 1.50, "y": 12345678901234567890123}')
    found = by_key(opened(database))

    assert found["1"].value == b'{"x": 1.50, "y": 12345678901234567890123}'
    assert found["1"].notes == ("huge: an integer beyond 64 bits: 12345678901234567890123",)
    assert found["n/1 ?"].value == b'{"score":9007199254740993}'


def test_a_part_of_a_namespace_that_no_segment_can_hold_is_escaped(database: Path) -> None:
    odd = by_key(opened(database))["k"]

    assert odd.namespace == "migrated_langgraph/a%2Fb/café%20/%25"
    assert odd.origin == "a%2Fb.café .%25/k"


@pytest.mark.parametrize("prefix", [".".join("abcdefghijklmnopqrst"), "é" * 400, "..", "", "a." + "x" * 256, "\n. .\t"])
def test_any_namespace_becomes_one_that_is_allowed(database: Path, prefix: str) -> None:
    put(database, prefix, "odd", "{}")
    item = by_key(opened(database))["odd"]

    assert item.namespace is not None
    assert check_namespace(item.namespace).startswith("migrated_langgraph/")
    assert item.facts["langgraph_namespace"] == prefix.split(".")


def test_different_namespaces_stay_apart(database: Path) -> None:
    deep = ".".join("abcdefghijklmn")
    prefixes = [deep + ".o.p", deep + ".o%p", deep + ".o/p", deep + ".o%2Fp", "z" * 300, "z" * 301, "z" * 299 + "y"]
    for prefix in prefixes:
        put(database, prefix, "same", "{}")
    namespaces = {item.namespace for item in each(opened(database).read()) if item.key == "same"}

    assert len(namespaces) == len(prefixes)


def test_a_time_to_live_is_a_fact_unless_it_is_to_be_kept(database: Path) -> None:
    told = by_key(opened(database))["0a1b"]
    kept = by_key(opened(database, keep_ttl=True))["0a1b"]

    assert told.expires_at is None
    assert told.facts["langgraph_expires_at"] == "2026-11-24 00:00:42.444762+00:00"
    assert told.facts["langgraph_ttl_minutes"] == kept.facts["langgraph_ttl_minutes"] == 90
    assert kept.expires_at == 1795478442444762
    assert "langgraph_expires_at" not in kept.facts


def test_the_survey_counts_each_namespace(database: Path) -> None:
    survey = opened(database).survey()

    assert survey.records == 6
    assert survey.projects == {"a/b.café .%": 1, "memories": 2, "users.ada.preferences": 2, "users.bob": 1}
    assert any("1 records have a time to live" in remark for remark in survey.remarks)
    assert any("Embeddings are not carried" in remark for remark in survey.remarks)


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ('{"x": NaN}', "nan"),
        ('{"x": "\\ud800"}', "surrogate"),
        ('{"x": ', "malformed"),
        ("[" * 300 + "]" * 300, "unsupported"),
        (b"\xff\xfe{}", "binary"),
    ],
)
def test_what_is_no_json_is_quarantined(database: Path, value: object, code: str) -> None:
    put(database, "odd", "one", value)
    found = list(opened(database).read())
    [odd] = [one for one in found if isinstance(one, Quarantined)]

    assert (odd.origin, odd.code) == ("odd/one", code)
    raw = json.loads(odd.raw)
    assert raw["value"] == (value if isinstance(value, str) else "//57fQ==")
    assert len(found) == 7


def test_a_key_that_is_no_text_is_quarantined(database: Path) -> None:
    connection = apsw.Connection(str(database))
    connection.execute("INSERT INTO store (prefix, key, value) VALUES ('odd', CAST(x'ff' AS TEXT), '{}')")
    with connection:
        # More than a page.
        blobs = [(b"users", f"{number:04}".encode()) for number in range(700)]
        connection.executemany("INSERT INTO store (prefix, key, value) VALUES (?, ?, '{}')", blobs)
    connection.close()
    odd = [one for one in opened(database).read() if isinstance(one, Quarantined)]

    assert (odd[0].origin, odd[0].code) == ("row/6f6464/ff", "binary")
    assert [one.origin for one in odd[1:]] == [f"row/7573657273/{key.hex()}" for _, key in blobs]


def test_all_pages_are_read_once(database: Path) -> None:
    connection = apsw.Connection(str(database))
    with connection:
        connection.executemany(
            "INSERT INTO store (prefix, key, value) VALUES (?, ?, '{}')",
            [(f"p{n % 7}", f"{n:05}") for n in range(1_700)],
        )
    connection.close()
    origins = [item.origin for item in each(opened(database).read())]

    assert len(origins) == len(set(origins)) == 1_706


def test_what_is_written_meanwhile_hides_nothing(database: Path) -> None:
    writer = apsw.Connection(str(database))
    with writer:
        writer.executemany(
            "INSERT INTO store (prefix, key, value) VALUES ('p', ?, '{}')", [(f"{n:05}",) for n in range(900)]
        )
    source = opened(database)
    before = source.token()
    reading = each(source.read())
    told = [next(reading).key]
    # As the program does: the record moves to the end of the table.
    writer.execute("INSERT OR REPLACE INTO store (prefix, key, value) VALUES ('p', '00000', '{\"new\": 1}')")
    told += [item.key for item in reading]

    assert len(told) == len(set(told)) == 906
    assert source.token() != before
    writer.close()


def test_a_store_without_time_to_live_and_an_empty_one_are_read(tmp_path: Path) -> None:
    path = tmp_path / "old.db"
    connection = apsw.Connection(str(path))
    connection.execute(
        "CREATE TABLE store (prefix TEXT, key TEXT, value TEXT, created_at, updated_at, PRIMARY KEY (prefix, key))"
    )

    assert list(opened(path).read()) == []
    connection.execute("INSERT INTO store VALUES ('a', 'k', '{}', '2025-01-02 03:04:05', 'never')")
    [item] = each(opened(path).read())
    assert (item.created_at, item.updated_at) == (1735787045000000, None)
    assert opened(path).survey().records == 1
    connection.close()


def test_a_database_in_utf_16_is_read(tmp_path: Path) -> None:
    path = tmp_path / "wide.db"
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA encoding = 'UTF-16le'")
    connection.execute(
        "CREATE TABLE store (prefix TEXT, key TEXT, value TEXT, created_at, updated_at, PRIMARY KEY (prefix, key))"
    )
    connection.execute("""INSERT INTO store VALUES ('é', 'ü', '{"x":"日"}', '2025-01-02 03:04:05', NULL)""")
    connection.execute("INSERT INTO store VALUES ('é', 'v', ?, NULL, NULL)", ('{"x":"日"}'.encode(),))
    connection.close()
    found = by_key(opened(path))

    assert found["ü"].value == found["v"].value == '{"x":"日"}'.encode()
    assert found["ü"].created_at == 1735787045000000


def test_another_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    apsw.Connection(str(path)).execute("CREATE TABLE checkpoints (thread_id TEXT)")

    with pytest.raises(SourceError, match="no table store"):
        opened(path)
    with pytest.raises(SourceError, match="no such file"):
        opened(tmp_path / "none.db")
