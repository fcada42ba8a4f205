"""mcp-memory-service, from a database that it wrote."""

import json
from pathlib import Path

import apsw
import pytest

from unified_memory.model.errors import InvalidInputError, SourceError
from unified_memory.sources.base import Item, Options, Quarantined, Skipped, each
from unified_memory.sources.mcp_memory_service import MCPMemoryService

FIXTURE = Path(__file__).parent / "fixtures" / "mcp-memory-service" / "sqlite_vec.sql"
DEPLOYS = "a6cd5e348b472293864895658f991fc2f1ba6fa4a30bf4a4daa69357f8506b70"
UNICODE = "288fba2580396507599fab3e501c0f1086d096d5c80ed6b0a67b325c1cdc0f32"
OLDER = "da8788f6e9814dfeb727931473ed07810eea6806bdb0bc1400b0e33ee22abe82"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "sqlite_vec.db"
    connection = apsw.Connection(str(path))
    connection.execute(FIXTURE.read_text())
    connection.close()
    return path


def opened(path: Path) -> MCPMemoryService:
    return MCPMemoryService.open(str(path), Options())


def changed(path: Path, statement: str, *bindings: object) -> MCPMemoryService:
    connection = apsw.Connection(str(path))
    connection.execute(statement, bindings)
    connection.close()
    return opened(path)


def by_origin(path: Path) -> dict[str, Item]:
    return {item.origin.removeprefix("memory/"): item for item in each(opened(path).read())}


def test_a_memory_is_carried_with_its_hash_tags_type_times_and_relations(database: Path) -> None:
    item = by_origin(database)[DEPLOYS]

    assert json.loads(item.value) == "Deploys go out on Tuesdays."
    assert (item.service, item.shape, item.project, item.key) == ("mcp-memory-service", "record", None, DEPLOYS)
    assert item.tags == ("Team", "changed")
    assert (item.created_at, item.updated_at) == (1795473432309568, 1795473432348633)
    assert item.facts == {
        "content_hash": DEPLOYS,
        "memory_type": "decision",
        "agent_id": "planner",
        "metadata": {
            "source": "wiki",
            "importance": 0.9,
            "agent_id": "planner",
            "hostname": "laptop",
            "quality_score": 0.8,
        },
        "relations": [{"type": "supports", "target": UNICODE, "similarity": 0.75, "metadata": {"note": "seen"}}],
    }


def test_text_of_any_script_is_carried(database: Path) -> None:
    assert json.loads(by_origin(database)[UNICODE].value) == "Ünïcode 日本語 🎉\nsecond line"


def test_the_store_is_the_project(database: Path) -> None:
    projects = {item.project for item in by_origin(database).values()}

    assert projects == {None, "side"}


def test_a_superseded_memory_says_by_which(database: Path) -> None:
    found = by_origin(database)
    newer = found[found[OLDER].facts["superseded_by"]]

    assert (newer.facts["parent_id"], newer.facts["version"]) == (OLDER, 2)


def test_an_importance_score_of_0_to_2_becomes_1_to_10(database: Path) -> None:
    assert by_origin(database)["e" * 64].importance == 8
    changed(database, """UPDATE memories SET metadata = '{"importance_score": 0}' WHERE id = 7""")
    assert by_origin(database)["e" * 64].importance == 1
    changed(database, """UPDATE memories SET metadata = '{"importance_score": 9.5}' WHERE id = 7""")
    assert by_origin(database)["e" * 64].importance == 10


def test_what_is_deleted_there_is_skipped_and_counted(database: Path) -> None:
    source = opened(database)
    skipped = [found for found in source.read() if isinstance(found, Skipped)]
    survey = source.survey()

    assert [one.reason for one in skipped] == ["It is deleted there"]
    assert survey.records == len(by_origin(database)) == 6
    assert survey.projects == {"side": 1}
    assert any(remark.startswith("1 memories are deleted") for remark in survey.remarks)
    assert any("Embeddings are not carried" in remark for remark in survey.remarks)


def test_beliefs_are_carried_too(database: Path) -> None:
    statement = """INSERT INTO beliefs (belief_hash, content, confidence, created_at, updated_at, derived_from)
        VALUES ('b1', 'Tuesdays are busy', 0.7, '2026-01-02T03:04:05Z', '2026-01-02T03:04:06Z', '["x"]')"""
    belief = list(each(changed(database, statement).read()))[-1]

    assert (belief.origin, belief.key) == ("belief/b1", "belief/b1")
    assert belief.created_at == 1767323045000000
    assert belief.facts == {"belief_hash": "b1", "confidence": 0.7, "status": "candidate", "derived_from": ["x"]}
    assert opened(database).survey().records == 7


def test_metadata_that_is_no_json_is_kept_as_text_and_noted(database: Path) -> None:
    changed(database, "UPDATE memories SET metadata = '{\"a\": NaN}' WHERE id = 2")
    item = by_origin(database)[UNICODE]

    assert item.facts["metadata"] == '{"a": NaN}'
    assert item.notes == ("nan: Its metadata holds NaN, which JSON has not; it is kept as a text",)


def test_content_that_is_no_text_is_quarantined_with_all_of_the_row(database: Path) -> None:
    source = changed(database, "UPDATE memories SET content = CAST(x'68ff69' AS TEXT) WHERE id = 2")
    [odd] = [found for found in source.read() if isinstance(found, Quarantined)]

    assert (odd.origin, odd.code) == (f"memory/{UNICODE}", "binary")
    assert json.loads(odd.raw)["content"] == "aP9p"
    assert json.loads(odd.raw)["tags"] == "alpha,beta,gamma"
    assert len(by_origin(database)) == 5


def test_an_earlier_schema_is_read(tmp_path: Path) -> None:
    path = tmp_path / "early.db"
    source_of = """CREATE TABLE memories (id INTEGER PRIMARY KEY, content_hash TEXT, content TEXT, tags TEXT, memory_type TEXT,
        metadata TEXT, created_at REAL, updated_at REAL);
        INSERT INTO memories VALUES (1, 'h', 'text', 'a, b', NULL, NULL, 1.5, 2.25)"""
    apsw.Connection(str(path)).execute(source_of)
    [item] = each(opened(path).read())

    assert (item.tags, item.created_at, item.updated_at) == (("a", "b"), 1_500_000, 2_250_000)
    assert opened(path).survey().records == 1


def test_an_empty_database_has_nothing(database: Path) -> None:
    source = changed(database, "DELETE FROM memories")

    assert list(source.read()) == []
    assert source.survey().records == 0


def test_it_is_read_while_its_program_writes(database: Path) -> None:
    writer = apsw.Connection(str(database))
    writer.execute("PRAGMA journal_mode = WAL")
    source = opened(database)
    before = source.token()
    reading = source.read()
    first = next(reading)
    writer.execute(
        "INSERT INTO memories (content_hash, content, tags, metadata, created_at) VALUES ('n', 'new', '', '{}', 1)"
    )
    rest = list(reading)
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO memories (content_hash, content) VALUES ('o', 'open')")
    held = {item.key for item in each(source.read())}
    writer.execute("ROLLBACK")

    assert len([first, *rest]) >= 7
    assert {"n"} <= held
    assert "o" not in held
    assert source.token() != before
    writer.close()


def test_another_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    apsw.Connection(str(path)).execute("CREATE TABLE memories (id INTEGER)")

    with pytest.raises(SourceError, match="no table memories with content"):
        opened(path)
    with pytest.raises(InvalidInputError):
        MCPMemoryService.open("", Options())


def test_a_damaged_database_is_an_error(database: Path) -> None:
    content = bytearray(database.read_bytes())
    content[4096:] = b"\x5a" * (len(content) - 4096)
    database.write_bytes(content)

    with pytest.raises(SourceError):
        list(opened(database).read())
