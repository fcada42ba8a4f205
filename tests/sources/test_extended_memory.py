"""The SQLite file of extended-memory: what is read from it, and what is written back."""

import hashlib
import json
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import apsw
import pytest

from unified_memory.model.clock import SECOND, from_rfc3339
from unified_memory.model.errors import InvalidInputError, SourceError, SourceUnavailableError
from unified_memory.sources import sqlite_file
from unified_memory.sources.base import Back, Item, Options, Quarantined
from unified_memory.sources.extended_memory import ExtendedMemorySQLite, clamp, importance_facts, normalised
from unified_memory.sources.kinds import open_source

SHARED = Path(__file__).parents[3] / "shared" / "legacy" / "fixtures"
needs_fixtures = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"the fixtures of the older services are not there: {SHARED}"
)

SCHEMA = """
CREATE TABLE contexts (id INTEGER PRIMARY KEY AUTOINCREMENT, project_id TEXT, content TEXT NOT NULL,
  importance_level INTEGER NOT NULL, status TEXT DEFAULT 'active', created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  expires_at TIMESTAMP, access_count INTEGER DEFAULT 0, last_accessed TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE tags (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE NOT NULL);
CREATE TABLE context_tags (context_id INTEGER, tag_id INTEGER, PRIMARY KEY (context_id, tag_id),
  FOREIGN KEY (context_id) REFERENCES contexts(id) ON DELETE CASCADE,
  FOREIGN KEY (tag_id) REFERENCES tags(id) ON DELETE CASCADE);
CREATE TABLE projects (id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT,
  last_accessed TIMESTAMP DEFAULT CURRENT_TIMESTAMP, status TEXT DEFAULT 'active');
CREATE INDEX idx_contexts_created_at ON contexts(created_at);
"""
BERLIN = ZoneInfo("Europe/Berlin")
NOON = datetime(2025, 7, 1, 12, 0, 0, 250_000, tzinfo=UTC)


class Made:
    """A database written as extended-memory writes it, by a server whose clock is in that zone."""

    def __init__(self, path: Path, zone: ZoneInfo = BERLIN) -> None:
        self.path = path
        self.zone = zone
        self.database = apsw.Connection(str(path))
        self.database.execute(SCHEMA)
        self.database.execute("PRAGMA foreign_keys = ON")

    def save(
        self,
        content: Any = "text",
        importance: Any = 5,
        project: Any = "general",
        tags: tuple[Any, ...] = (),
        at: datetime = NOON,
        waits: float = 0.01,
    ) -> int:
        local = at.astimezone(self.zone).replace(tzinfo=None).isoformat()
        self.database.execute(
            "INSERT INTO contexts (project_id, content, importance_level, created_at, last_accessed) VALUES (?, ?, ?, ?, ?)",
            (project, content, importance, local, f"{at + timedelta(seconds=waits):%Y-%m-%d %H:%M:%S}"),
        )
        number = self.database.last_insert_rowid()
        for tag in tags:
            self.database.execute("INSERT OR IGNORE INTO tags (name) VALUES (?)", (tag,))
            self.database.execute(
                "INSERT OR IGNORE INTO context_tags SELECT ?, id FROM tags WHERE name IS ?", (number, tag)
            )
        return number

    def rows(self, sql: str, *bindings: Any) -> list[Any]:
        return self.database.execute(sql, bindings).fetchall()

    def open(self, options: Options | None = None) -> ExtendedMemorySQLite:
        return ExtendedMemorySQLite.open(str(self.path), options or Options())

    def items(self) -> list[Item]:
        source = self.open()
        found = list(source.read())
        source.close()
        assert all(isinstance(one, Item) for one in found)
        return [one for one in found if isinstance(one, Item)]


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return Made(tmp_path / "memory.db")


def instant(moment: datetime) -> int:
    return from_rfc3339(moment.isoformat())


def back(origin: str | None = None, content: str | None = "new", number: int = 1000, **parts: Any) -> Back:
    told = {"shape": "context", "project": "general", "key": "k", "created_at": instant(NOON), **parts}
    return Back(origin=origin, number=number, content=content, value=json.dumps(content).encode(), **told)


def texts(value: bytes) -> str:
    text = json.loads(value)
    assert isinstance(text, str)
    return text


@needs_fixtures
def test_the_fixture_is_what_its_manifest_says() -> None:
    manifest = json.loads((SHARED / "manifest.json").read_text())["em_sqlite"]
    source = open_source("extended-memory-sqlite", str(SHARED / manifest["file"]))
    survey = source.survey()
    assert survey.records == manifest["contexts"]
    assert survey.projects == manifest["per_project"]
    items = {item.key: item for item in source.read() if isinstance(item, Item)}
    source.close()
    assert len(items) == len(manifest["records"]) == manifest["contexts"]
    for record in manifest["records"]:
        item = items[str(record["id"])]
        assert item.origin == f"context/{record['id']}"
        assert item.project == record["project"]
        assert hashlib.sha256(texts(item.value).encode()).hexdigest() == record["sha256"]
        # The manifest has the tags in the order of the alphabet.
        assert sorted(item.tags) == record["tags"]
        assert item.facts.get("legacy_importance", item.importance) == record["importance"]
        assert item.facts["legacy_id"] == record["id"]
        assert item.facts["legacy_created_at"] == record["created_at"]
        assert item.created_at == from_rfc3339(record["created_at_utc"])
        assert item.notes == ()
    counts = Counter(json.dumps(item.facts.get("legacy_importance", item.importance)) for item in items.values())
    assert counts == manifest["per_importance"]
    assert not {str(record["id"]) for record in manifest["forgotten"]} & set(items)
    remarks = " ".join(survey.remarks)
    assert repr(manifest["orphan_tags"][0]) in remarks
    assert str(manifest["sqlite_sequence"]["contexts"]) in remarks


def test_tags_stand_in_the_order_in_which_each_was_first_used(made: Made) -> None:
    made.save(tags=("zebra", "apple"))
    made.save(tags=("middle", "apple", "zebra"))
    assert [item.tags for item in made.items()] == [("zebra", "apple"), ("zebra", "apple", "middle")]


def test_the_zone_is_told_by_each_row_through_both_changes_of_the_clocks(made: Made) -> None:
    changes = [datetime(2025, 3, 30, 1, tzinfo=UTC), datetime(2025, 10, 26, 1, tzinfo=UTC)]
    moments = [
        change + timedelta(minutes=minutes, microseconds=minutes * 7919 % 1_000_000)
        for change in changes
        for minutes in range(-180, 180, 7)
    ]
    with made.database:
        for number, moment in enumerate(moments):
            made.save(at=moment, waits=number % 14)
    items = made.items()
    assert [item.created_at for item in items] == [instant(moment) for moment in moments]
    assert not any(item.notes for item in items)
    # In the repeated hour the older spelling does not tell the instants apart.
    spelled = [item.facts["legacy_created_at"] for item in items]
    assert sorted(spelled) != spelled


def test_the_zone_of_kathmandu_is_told_to_the_quarter_of_an_hour(tmp_path: Path) -> None:
    made = Made(tmp_path / "a.db", ZoneInfo("Asia/Kathmandu"))
    made.save()
    assert made.items()[0].created_at == instant(NOON)


@pytest.mark.parametrize(
    ("created_at", "last_accessed", "instant_", "note"),
    [
        ("2025-07-01T12:00:00", "2025-06-30 12:00:00", "2025-07-01T12:00:00", "not of the same moment"),
        ("2025-07-01T12:00:00", "2025-07-01 11:05:00", "2025-07-01T12:00:00", "not of the same moment"),
        ("2025-07-01T12:00:00", None, "2025-07-01T12:00:00", "taken for UTC"),
        ("2025-07-01T12:00:00+02:00", None, "2025-07-01T10:00:00", None),
        ("2025-07-01 12:00:00", "2025-07-01 12:00:00", "2025-07-01T12:00:00", None),
        ("yesterday", "2025-07-01 12:00:00", "2025-07-01T12:00:00", "no time"),
    ],
)
def test_times_that_do_not_tell_their_zone_are_noted(
    made: Made, created_at: str, last_accessed: str | None, instant_: str, note: str | None
) -> None:
    made.save()
    made.database.execute("UPDATE contexts SET created_at = ?, last_accessed = ?", (created_at, last_accessed))
    (item,) = made.items()
    assert item.created_at == from_rfc3339(instant_)
    assert item.facts["legacy_created_at"] == created_at
    assert [note in one for one in item.notes if note] == ([] if note is None else [True])


@pytest.mark.parametrize(
    ("raw", "clamped", "facts"),
    [
        (7, 7, {}),
        (0, 1, {"legacy_importance": 0}),
        (-3, 1, {"legacy_importance": -3}),
        (1_000_000, 10, {"legacy_importance": 1_000_000}),
        (5.5, 5, {"legacy_importance": 5.5}),
        (5.0, 5, {"legacy_importance": 5.0}),
        (1e308, 10, {"legacy_importance": 1e308}),
        (float("inf"), 10, {"legacy_importance": "inf"}),
        (float("nan"), 5, {"legacy_importance": "nan"}),
        ("abc", 5, {"legacy_importance": "abc"}),
        ("8", 8, {"legacy_importance": "8"}),
        ("0000000000012", 10, {"legacy_importance": "0000000000012"}),
        ("²", 5, {"legacy_importance": "²"}),
        (True, 1, {"legacy_importance": True}),
        (None, 5, {"legacy_importance": None}),
        ([7], 5, {"legacy_importance": [7]}),
        (10**30, 10, {"legacy_importance": str(10**30)}),
    ],
)
def test_an_importance_of_any_kind_is_clamped_and_kept(raw: Any, clamped: int, facts: dict[str, Any]) -> None:
    assert clamp(raw) == clamped
    assert importance_facts(raw) == facts
    assert type(importance_facts(raw).get("legacy_importance")) is type(facts.get("legacy_importance"))


def test_odd_rows_are_carried_with_what_is_odd(made: Made) -> None:
    made.save(content="a\0b\ufeff\r\n", project="")
    made.save(project=None)
    made.save(importance="abc")
    made.save(importance=float("inf"))
    made.save(importance=2**63 - 1)
    made.save(importance=b"\1\2")
    items = made.items()
    assert texts(items[0].value) == "a\0b\ufeff\r\n"
    assert [item.project for item in items[:2]] == ["", None]
    assert [item.facts["legacy_importance"] for item in items[2:]] == ["abc", "inf", 2**63 - 1, "b'\\x01\\x02'"]
    assert [bool(item.notes) for item in items] == [False, False, False, True, False, True]


def test_what_is_no_text_is_quarantined_whole(made: Made) -> None:
    made.save(content=b"\x80\x02.", project="p")
    made.save(project=b"blob")
    made.save()
    made.database.execute("UPDATE contexts SET content = CAST(x'c328a0ff' AS TEXT) WHERE id = 3")
    made.save(tags=("good",))
    made.database.execute("UPDATE contexts SET content = CAST(x'61eda080' AS TEXT) WHERE id = 4")
    source = made.open()
    found = [one for one in source.read() if isinstance(one, Quarantined)]
    assert [(one.origin, one.code) for one in found] == [
        ("context/1", "binary"),
        ("context/2", "binary"),
        ("context/3", "binary"),
        ("context/4", "surrogate"),
    ]
    assert json.loads(found[0].raw)["content"] == {"hex": "80022e", "type": "blob"}
    assert json.loads(found[2].raw)["content"] == {"hex": "c328a0ff", "type": "text"}
    assert json.loads(found[3].raw)["tags"] == ["good"]
    assert source.lookup("context/4") == found[3]
    source.close()


def test_a_tag_that_is_no_text_is_kept_as_a_fact(made: Made) -> None:
    made.save(tags=("good", b"\xff", "a\0b"))
    (item,) = made.items()
    assert item.tags == ("good",)
    assert item.facts["legacy_tags"] == ["good", {"hex": "ff", "type": "blob"}, "a\0b"]
    assert item.notes == ("A tag is no text",)


def test_further_columns_and_tables_are_kept_or_told(made: Made) -> None:
    made.database.execute('ALTER TABLE contexts ADD COLUMN "kind ""of"" it" TEXT')
    made.database.execute("ALTER TABLE contexts ADD COLUMN more BLOB")
    made.database.execute("CREATE TABLE decisions (id INTEGER, text TEXT)")
    made.database.execute("INSERT INTO decisions VALUES (1, 'yes')")
    made.database.execute("INSERT INTO projects (id, name) VALUES ('p', 'P')")
    made.save()
    made.save()
    made.database.execute(
        "UPDATE contexts SET \"kind \"\"of\"\" it\" = 'x', more = x'00ff', status = 'gone' WHERE id = 2"
    )
    first, second = made.items()
    assert "legacy_columns" not in first.facts
    assert second.facts["legacy_columns"] == {'kind "of" it': "x", "more": {"hex": "00ff", "type": "blob"}}
    assert second.facts["legacy_status"] == "gone"
    source = made.open()
    remarks = " ".join(source.survey().remarks)
    source.close()
    assert "decisions has 1 rows" in remarks
    assert "projects has 1 rows" in remarks


def test_columns_that_are_missing_are_done_without(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    database = apsw.Connection(str(path))
    database.execute(
        "CREATE TABLE contexts (id INTEGER PRIMARY KEY, project_id, content, importance_level, created_at)"
    )
    database.execute("INSERT INTO contexts VALUES (3, 'p', 'text', 5, '2025-07-01T12:00:00')")
    source = ExtendedMemorySQLite.open(str(path), Options())
    (item,) = source.read()
    assert isinstance(item, Item)
    assert item.notes == ("last_accessed does not tell the zone of created_at, which is taken for UTC",)
    assert "no tables of tags" in " ".join(source.survey().remarks)
    source.close()


def test_an_expiry_is_a_fact_unless_it_is_asked_for(made: Made) -> None:
    made.save()
    made.database.execute("UPDATE contexts SET expires_at = '2030-01-01T00:00:00'")
    (item,) = made.items()
    assert item.expires_at is None
    assert item.facts["legacy_expires_at"] == "2030-01-01T00:00:00.000000Z"
    source = made.open(Options(keep_ttl=True))
    (kept,) = source.read()
    source.close()
    assert isinstance(kept, Item)
    assert kept.expires_at == from_rfc3339("2030-01-01")


def test_another_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    apsw.Connection(str(path)).execute("CREATE TABLE memory_store (key)")
    with pytest.raises(SourceError, match="no table contexts"):
        ExtendedMemorySQLite.open(str(path), Options())
    with pytest.raises(InvalidInputError):
        ExtendedMemorySQLite.open(" ", Options())
    with pytest.raises(InvalidInputError, match="home"):
        ExtendedMemorySQLite.open("~nobody-of-that-name/memory.db", Options())


def test_its_connection_string_is_a_location(made: Made) -> None:
    made.save()
    for location in (f"sqlite:///{made.path}", f"sqlite://{made.path}"):
        source = ExtendedMemorySQLite.open(location, Options())
        assert source.survey().records == 1
        source.close()


def test_a_damaged_file_is_an_error_and_not_an_empty_answer(made: Made) -> None:
    with made.database:
        for number in range(400):
            made.save(content=f"{number} " * 200)
    made.database.close()
    content = bytearray(made.path.read_bytes())
    content[40_000:400_000] = b"\xa5" * 360_000
    made.path.write_bytes(content)
    source = made.open()
    with pytest.raises(SourceError, match="damaged"):
        list(source.read())
    source.close()


_WRITES = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=15)
connection.execute("PRAGMA synchronous = OFF")
for number in range(60):
    connection.execute("INSERT INTO contexts (project_id, content, importance_level) VALUES ('p', ?, 5)", (str(number),))
    connection.execute("UPDATE contexts SET content = content || '.' WHERE id = 1 + abs(random() % 50)")
    connection.commit()
print("done")
"""


def test_it_is_read_while_its_program_writes(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "PAGE_ROWS", 7)
    for _ in range(50):
        made.save()
    made.database.close()
    source = made.open()
    writer = subprocess.Popen([sys.executable, "-c", _WRITES, made.path], stdout=subprocess.PIPE)
    passes = 0
    while writer.poll() is None or passes == 0:
        keys = [one.key for one in source.read() if isinstance(one, Item)]
        assert len(keys) == len(set(keys))
        assert {str(number) for number in range(1, 51)} <= set(keys)
        passes += 1
    assert writer.communicate()[0] == b"done\n"
    assert len(list(source.read())) == 110
    source.close()


_KILLED = """
import os, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA cache_size = 1")
connection.execute("UPDATE contexts SET content = 'half' || zeroblob(3000)")
os.kill(os.getpid(), 9)
"""


def test_a_hot_journal_shows_what_was_committed(made: Made) -> None:
    for _ in range(100):
        made.save()
    made.database.close()
    source = made.open()
    assert len(list(source.read())) == 100
    subprocess.run([sys.executable, "-c", _KILLED, made.path], check=False)
    assert made.path.with_name("memory.db-journal").exists()
    assert {texts(one.value) for one in source.read() if isinstance(one, Item)} == {"text"}
    # Its program is started again, rolls back and writes: the copy is not read any longer.
    connection = sqlite3.connect(made.path)
    connection.execute("UPDATE contexts SET content = 'later'")
    connection.commit()
    connection.close()
    assert {texts(one.value) for one in source.read() if isinstance(one, Item)} == {"later"}
    source.close()


def test_lookup_and_find_know_an_id_alone(made: Made) -> None:
    made.save(content="one")
    made.save(content="two", project="p")
    source = made.open()
    found = source.lookup("context/2")
    assert isinstance(found, Item)
    assert texts(found.value) == "two"
    assert source.find("context", None, "2") == "context/2"
    for wrong in ("3", "x", "", "2.0", "9" * 30):
        assert source.find("context", None, wrong) is None
        assert source.lookup(f"context/{wrong}") is None
    assert source.find("file", "p", "2") is None
    source.close()


def test_the_token_tells_a_change(made: Made) -> None:
    made.save()
    source = made.open()
    before = source.token()
    assert source.token() == before
    made.save()
    assert source.token() != before
    source.close()


def dump(made: Made) -> list[str]:
    shell = apsw.Connection(str(made.path))
    queries = (
        "SELECT id, project_id, hex(content), typeof(importance_level), hex(importance_level), hex(created_at) FROM contexts",
        "SELECT id, typeof(name), hex(name) FROM tags",
        "SELECT rowid, context_id, tag_id FROM context_tags",
        "SELECT * FROM sqlite_sequence",
    )
    return [str(row) for query in queries for row in shell.execute(query)]


def put(made: Made, *backs: Back) -> list[str | None]:
    """What became of them; done again it changes nothing."""
    source = made.open()
    first = source.put_back(backs)
    once = dump(made)
    assert source.put_back(backs) == first
    source.close()
    assert dump(made) == once
    return [one.origin for one in first]


def test_a_new_context_gets_its_number_and_the_time_of_the_newest(made: Made) -> None:
    made.save(tags=("old",))
    moment = datetime(2025, 7, 2, 8, 30, tzinfo=UTC)
    new = back(
        content="späť",
        number=7,
        project="My_New-Project",
        tags=("Old", "fresh"),
        importance=9,
        created_at=instant(moment),
    )
    assert put(made, new) == ["context/7"]
    assert made.rows(
        "SELECT project_id, content, importance_level, created_at, last_accessed, status FROM contexts WHERE id = 7"
    ) == [("my new project", "späť", 9, "2025-07-02T10:30:00", "2025-07-02 08:30:00", "active")]
    assert made.rows("SELECT name FROM tags ORDER BY id") == [("old",), ("fresh",)]
    assert made.rows("SELECT seq FROM sqlite_sequence WHERE name = 'contexts'") == [(7,)]
    source = made.open()
    item = source.lookup("context/7")
    source.close()
    assert isinstance(item, Item)
    assert (item.created_at, item.tags, item.notes) == (instant(moment), ("old", "fresh"), ())
    assert made.save() == 8


def test_a_number_that_is_taken_is_not_taken_from_it(made: Made) -> None:
    for _ in range(5):
        made.save()
    made.database.execute("DELETE FROM contexts WHERE id = 5")
    later = instant(NOON) + SECOND
    twins = [back(content="same", number=number, created_at=later) for number in (2, 3, 9)]
    assert put(made, *twins) == ["context/6", "context/7", "context/9"]
    assert made.rows("SELECT content FROM contexts WHERE id IN (2, 3)") == [("text",), ("text",)]


def test_one_that_was_put_back_and_changed_since_is_not_doubled(made: Made) -> None:
    assert put(made, back(content="first", number=4)) == ["context/4"]
    assert put(made, back(content="second", number=4)) == ["context/4"]
    assert made.rows("SELECT id, content FROM contexts") == [(4, "second")]


def test_a_change_leaves_all_else_as_it_was(made: Made) -> None:
    made.save(content="old", importance=5.5, project="p", tags=("a", "b"))
    made.save(content="other")
    before = made.rows("SELECT created_at, last_accessed FROM contexts")
    changed = back("context/1", "new", project="p", tags=("b", "c"), importance=5, created_at=instant(NOON) + SECOND)
    assert put(made, changed) == ["context/1"]
    assert made.rows("SELECT project_id, content, importance_level FROM contexts WHERE id = 1") == [("p", "new", 5.5)]
    assert made.rows("SELECT created_at, last_accessed FROM contexts") == before
    names = "SELECT t.name FROM context_tags l JOIN tags t ON t.id = l.tag_id WHERE l.context_id = 1 ORDER BY l.rowid"
    assert made.rows(names) == [("b",), ("c",)]
    # As the older program leaves them.
    assert ("a",) in made.rows("SELECT name FROM tags")
    put(made, back("context/1", "new", project="q", tags=("b", "c"), importance=8))
    assert made.rows("SELECT project_id, importance_level FROM contexts WHERE id = 1") == [("q", 8)]


def test_a_deletion_takes_its_links_along(made: Made) -> None:
    made.save(tags=("a",))
    made.save(tags=("a",))
    assert put(made, back("context/2", None), back("context/77", None), back(None, None)) == [None, None, None]
    assert made.rows("SELECT context_id FROM context_tags") == [(1,)]
    assert made.rows("SELECT seq FROM sqlite_sequence WHERE name = 'contexts'") == [(2,)]
    assert made.save() == 3


def test_a_deletion_takes_its_links_along_where_the_schema_does_not(made: Made) -> None:
    made.save(tags=("a",))
    made.database.execute("ALTER TABLE context_tags RENAME TO before")
    made.database.execute("CREATE TABLE context_tags AS SELECT * FROM before")
    made.database.execute("DROP TABLE before")
    put(made, back("context/1", None))
    assert made.rows("SELECT * FROM context_tags") == []


def test_two_programs_write_at_once(made: Made) -> None:
    for _ in range(50):
        made.save()
    made.database.close()
    source = made.open()
    writer = subprocess.Popen([sys.executable, "-c", _WRITES, made.path], stdout=subprocess.PIPE)
    written = 0
    while writer.poll() is None:
        source.put_back([back(content="ours", number=10_000 + written, created_at=instant(NOON) + written * SECOND)])
        written += 1
    assert writer.communicate()[0] == b"done\n"
    kept = Counter(texts(one.value) == "ours" for one in source.read() if isinstance(one, Item))
    assert kept == Counter({True: written, False: 110})
    source.close()


def test_one_that_is_gone_comes_back_as_it_was(made: Made) -> None:
    made.save(importance="abc", project="", tags=("a",), at=datetime(2025, 1, 5, 3, 4, 5, 6, tzinfo=UTC))
    made.save()
    (item, _) = made.items()
    row = made.rows("SELECT * FROM contexts WHERE id = 1")
    made.database.execute("DELETE FROM contexts WHERE id = 1")
    assert item.created_at is not None
    again = back(
        item.origin,
        "text",
        project="",
        tags=item.tags,
        importance=item.importance,
        created_at=item.created_at,
        facts=item.facts,
    )
    assert put(made, again) == ["context/1"]
    assert made.rows("SELECT * FROM contexts WHERE id = 1") == row


def test_all_that_was_read_put_back_changes_nothing(made: Made) -> None:
    made.save(project=None, importance=float("inf"))
    made.save(importance=0, tags=("z", "a"))
    made.save(content="\0", importance=b"x", tags=("good", b"\xff", "a\0b", "Upper"))
    made.save(importance="abc")
    made.database.execute("UPDATE contexts SET importance_level = CAST(x'ff61' AS TEXT) WHERE id = 4")
    made.database.execute("INSERT INTO tags (name) VALUES (CAST(x'ff62' AS TEXT))")
    made.database.execute("INSERT INTO context_tags SELECT 4, max(id) FROM tags")
    made.save()
    made.database.execute("UPDATE contexts SET created_at = CAST(x'ff' AS TEXT) WHERE id = 5")
    before = dump(made)
    backs = [
        back(
            item.origin,
            texts(item.value),
            project=item.project,
            tags=item.tags,
            importance=item.importance,
            created_at=item.created_at,
            facts=item.facts,
        )
        for item in made.items()
    ]
    put(made, *backs)
    assert dump(made) == before


def test_what_cannot_be_held_there_is_told(made: Made) -> None:
    source = made.open()
    item = Back(
        origin=None,
        shape="context",
        project="A B",
        key="k",
        number=3,
        content='{"a":1}',
        value=b'{"a":1}',
        tags=("Upper",),
        expires_at=instant(NOON),
        facts={"colour": "red", "legacy_id": 3, "migrated_from": "extended-memory"},
    )
    (returned,) = source.put_back([item])
    source.close()
    told = " ".join(returned.lost)
    assert all(part in told for part in ("JSON text", "'a b'", "lower case", "colour", "2025-07-01T12:00:00"))
    assert "legacy_id" not in told


def test_the_journal_mode_stays_and_nothing_is_left_beside(made: Made) -> None:
    put(made, back())
    assert made.rows("PRAGMA journal_mode") == [("delete",)]
    assert [path.name for path in made.path.parent.iterdir()] == ["memory.db"]


def test_a_database_that_is_held_takes_nothing_and_says_so(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_file, "WRITE_TIMEOUT_MS", 10)
    source = made.open()
    made.database.execute("BEGIN IMMEDIATE")
    with pytest.raises(SourceUnavailableError, match="holds"):
        source.put_back([back()])
    made.database.execute("ROLLBACK")
    assert made.rows("SELECT count(*) FROM contexts") == [(0,)]
    source.close()


def test_whether_it_can_be_written_is_told(made: Made) -> None:
    source = made.open()
    assert source.writable() is None
    shutil.move(made.path, made.path.with_name("elsewhere.db"))
    assert source.writable() is not None
    source.close()


def test_tags_are_spelled_as_extended_memory_spells_them() -> None:
    assert normalised([" A ", "a", "", 5, "B c", None]) == ("a", "b c")
    assert normalised("Hi i") == ("h", "i")
    assert normalised({"X": 1}) == ("x",)
    assert normalised(None) == ()
