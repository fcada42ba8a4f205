"""Directories that this program must not use or must not trust: a newer schema, a wrong place, damage of every kind."""

import asyncio
import hashlib
import os
import random
import shutil
from functools import partial
from pathlib import Path

import apsw
import pytest
from msgspec import Raw

from tests.faults.clients import Inside
from tests.faults.conftest import SmallDisk
from tests.faults.directories import DATABASE, check_is_clean, opened
from unified_memory.app import make_app
from unified_memory.model.errors import (
    SchemaTooNewError,
    StorageCorruptError,
    StorageError,
    UnsuitableDirectoryError,
)
from unified_memory.model.found import SearchRequest
from unified_memory.model.memory import NO_ATTRIBUTES
from unified_memory.model.principal import ANONYMOUS
from unified_memory.model.search import describe, parse_search
from unified_memory.model.value import encode, parse
from unified_memory.service.requests import BatchKeysRequest, KeyRef, SearchQuery, StoreRequest
from unified_memory.service.service import Service
from unified_memory.settings import load
from unified_memory.storage.base import Problem, Storage
from unified_memory.storage.sqlite import SQLiteStorage, connection
from unified_memory.storage.sqlite.schema import STEPS, VERSION
from unified_memory.storage.sqlite.scopes import scope_tokens


async def store(service: Service, key: str, value: bytes = b"1", **metadata: bytes) -> int:
    request = StoreRequest(Raw(value), key, metadata={name: Raw(raw) for name, raw in metadata.items()})
    outcome = await service.memories.store(ANONYMOUS, request)
    assert outcome.memory is not None
    return outcome.memory.id


def damage(directory: Path, *statements: str) -> None:
    """Carries out SQL past the service."""
    with apsw.Connection(os.fspath(directory / DATABASE)) as database:
        for statement in statements:
            database.execute(statement).fetchall()
    database.close()


def contents(directory: Path) -> dict[str, str]:
    """A hash of every file."""
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in directory.iterdir()}


# ---- newer and older programs


async def test_a_directory_with_a_newer_schema_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        await store(service, "key")
    damage(tmp_path, f"PRAGMA user_version = {VERSION + 1}")
    before = contents(tmp_path)
    with pytest.raises(SchemaTooNewError) as refused:
        async with opened(tmp_path):
            pass
    assert (refused.value.facts["found"], refused.value.facts["known"]) == (VERSION + 1, VERSION)
    assert contents(tmp_path) == before


async def test_what_a_killed_newer_program_left_in_its_log_is_still_there_after_the_refusal(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    async with opened(tmp_path / "data") as service:
        damage(tmp_path / "data", f"PRAGMA user_version = {VERSION}")
        await store(service, "key")
        newer = apsw.Connection(os.fspath(tmp_path / "data" / DATABASE))
        newer.execute(f"PRAGMA user_version = {VERSION + 1}")
        newer.execute("UPDATE memories SET key = 'newer'")
        for file in (tmp_path / "data").glob(f"{DATABASE}*"):
            shutil.copy(file, left)
        newer.close()
    assert (left / f"{DATABASE}-wal").stat().st_size
    with pytest.raises(SchemaTooNewError):
        async with opened(left):
            pass
    with apsw.Connection(os.fspath(left / DATABASE)) as database:
        assert database.execute("SELECT key FROM memories").fetchall() == [("newer",)]
        assert database.pragma("user_version") == VERSION + 1
    database.close()


async def test_a_running_process_writes_nothing_more_once_another_has_upgraded_the_schema(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        await store(service, "before")
        damage(tmp_path, f"PRAGMA user_version = {VERSION + 1}")
        with pytest.raises(SchemaTooNewError):
            await store(service, "after")
        client = Inside(make_app(service, load({})))
        refused = await client.ask("DELETE", "/delete/before")
        assert (refused.status, refused.body["code"]) == (503, "schema_too_new")
        assert (await client.ask("GET", "/health/ready")).status == 503
    with apsw.Connection(os.fspath(tmp_path / DATABASE)) as database:
        assert database.execute("SELECT key FROM memories").fetchall() == [("before",)]
    database.close()


# By key: attributes, value, and the text and names as the program of step 2 indexed them: not the day on which it happened,
# names in camel case and Korean by whole words.
OLDER = {
    "plain": ('{"tags":[]}', '"some words"', "some words", "plain"),
    "dated": (
        '{"tags":[],"occurred_at":"2023-05-08T10:00:00Z","author":"Ann"}', '"a meeting"', "a meeting", "dated\n\n\nAnn",
    ),
    "korean": ('{"tags":[]}', '"데이터베이스를 배포"', "데이터베이스를 배포", "korean"),
    "chinese": ('{"tags":[]}', '"部署流水"', " 部  署  流  水 ", "chinese"),
    "accents": ('{"tags":["café"],"title":"Zürich"}', '"naïve"', "naïve", "accents\ncafé\nZürich\n"),
    "escaped": ('{"tags":[]}', '"na\\u00efve"', "naïve", "escaped"),
    "camel": ('{"tags":[]}', '"the parseQuery function"', "the parseQuery function", "camel"),
}  # fmt: skip


def make_older(directory: Path) -> None:
    """A database as a program of schema step 2 left it."""
    directory.mkdir(parents=True, exist_ok=True)
    with apsw.Connection(os.fspath(directory / DATABASE)) as database:
        for pragma in ("auto_vacuum = INCREMENTAL", "journal_mode = WAL"):
            database.execute(f"PRAGMA {pragma}").fetchall()
        for number, (name, script) in enumerate(STEPS[:2], 1):
            database.execute(script).fetchall()
            database.execute("INSERT INTO schema_steps VALUES (?, ?, 0, 'older')", (number, name))
        database.execute("PRAGMA user_version = 2")
        database.execute("INSERT INTO namespaces (id, name, created_at, top_version) VALUES (1, 'default', 1, 1)")
        database.execute("INSERT INTO tags VALUES (1, 'café')")
        for number, (key, (attributes, value, text, names)) in enumerate(OLDER.items(), 1):
            told = describe(key, attributes.encode(), parse(value.encode()))
            database.execute(
                "INSERT INTO memories (id, key, namespace_id, importance, version, seq, created_at, updated_at, metadata,"
                " value_json) VALUES (?1, ?2, 1, 5, 1, ?1, 1, 1, ?3, ?4)",
                (number, key, None if attributes.encode() == NO_ATTRIBUTES else attributes, value),
            )
            database.execute(
                "INSERT INTO search_index (memory_id, keywords, content_hash) VALUES (?, ?, ?)",
                (number, encode(told.keywords).decode(), told.content_hash),
            )
            database.execute(
                "INSERT INTO memory_text (rowid, body, title, scope) VALUES (?, ?, ?, ?)",
                (number, text, names, scope_tokens("default")),
            )
            if "café" in attributes:
                database.execute("INSERT INTO memory_tags VALUES (1, ?)", (number,))
        database.execute("UPDATE counters SET last_id = ?1, last_seq = ?1", (len(OLDER),))
        database.execute(
            "UPDATE namespaces SET (memories, bytes) = (SELECT count(*), sum(octet_length(value_json)) FROM memories)"
        )
    database.close()


async def keys_of(storage: Storage, query: str) -> set[str]:
    """What is found by whole words."""
    result = await storage.search(SearchRequest(("",), True, parse_search(query), None, 50), 2)
    return set() if result.corrected else {hit.memory.key for hit in result.hits if hit.score > 0}


async def test_a_database_of_an_older_program_is_searched_as_it_is_and_indexed_again_bit_by_bit(tmp_path: Path) -> None:
    make_older(tmp_path)
    storage = SQLiteStorage(tmp_path / DATABASE)
    await storage.open()
    assert await storage.check(fix=False) == []
    for query, keys in (
        ("some words", {"plain"}),
        ("meeting", {"dated"}),
        ("部署", {"chinese"}),
        ("zurich", {"accents"}),
    ):
        assert await keys_of(storage, query) == keys
    assert await keys_of(storage, "8 May 2023") == set()

    left = len(OLDER)
    while left:
        before, left = left, await storage.refresh_index(1)
        assert left < before
        assert await storage.check(fix=False) == []
    for query, keys in (
        ("8 May 2023", {"dated"}),
        ("2023-05-08", {"dated"}),
        ("데이터베이스", {"korean"}),
        ("배포", {"korean"}),
        ("署流", {"chinese"}),
        ("naive", {"accents", "escaped"}),
        ("cafe", {"accents"}),
        ("query", {"camel"}),
        ("parseQuery", {"camel"}),
        ("plain", {"plain"}),
    ):
        assert await keys_of(storage, query) == keys, query
    await storage.close()
    await check_is_clean(tmp_path)


async def test_a_kill_between_the_upgrade_and_the_new_index_loses_nothing(tmp_path: Path) -> None:
    make_older(tmp_path)
    for _ in OLDER:
        storage = SQLiteStorage(tmp_path / DATABASE)
        await storage.open()
        await storage.refresh_index(1)
        await storage.close()
    storage = SQLiteStorage(tmp_path / DATABASE)
    await storage.open()
    assert await storage.refresh_index(1) == 0
    assert await keys_of(storage, "8 May 2023") == {"dated"}
    await storage.close()
    await check_is_clean(tmp_path)


async def test_what_an_older_program_indexed_is_mended_by_a_check_too(tmp_path: Path) -> None:
    make_older(tmp_path)
    assert await look(tmp_path, fix=True) == []
    assert await look(tmp_path, fix=False) == []
    storage = SQLiteStorage(tmp_path / DATABASE)
    await storage.open()
    assert await keys_of(storage, "8 May 2023") == {"dated"}
    await storage.close()


# ---- unsuitable places


def mountinfo(tmp_path: Path, *mounts: tuple[str, str]) -> Path:
    """A table of mounts as the kernel writes it, of (mount point, kind)."""
    lines = [
        f"{20 + i} 1 0:{i} / {point} rw,relatime shared:1 - {kind} source rw" for i, (point, kind) in enumerate(mounts)
    ]
    file = tmp_path / "mountinfo"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


@pytest.mark.parametrize(
    "kind",
    ["nfs", "nfs4", "cifs", "smb3", "9p", "afs", "ceph", "lustre", "fuse.sshfs", "fuse.glusterfs", "fuse.ceph-fuse"],
)
async def test_a_network_file_system_is_refused(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "shared" / "data"
    mounts = mountinfo(tmp_path, ("/", "ext4"), (str(tmp_path / "shared"), kind))
    monkeypatch.setattr(connection, "file_system", partial(connection.file_system, mounts=mounts))
    with pytest.raises(UnsuitableDirectoryError) as refused:
        async with opened(directory):
            pass
    assert refused.value.facts["file_system"] == kind
    assert not list(directory.iterdir())


@pytest.mark.parametrize(
    ("mounts", "place", "kind"),
    [
        ((("/", "ext4"), ("/data", "nfs4")), "/data", "nfs4"),
        ((("/", "ext4"), ("/data", "nfs4")), "/data/a/b", "nfs4"),
        ((("/", "ext4"), ("/data", "nfs4")), "/database", "ext4"),
        ((("/", "nfs4"), ("/data", "ext4")), "/data/a", "ext4"),
        ((("/", "ext4"), ("/data", "ext4"), ("/data", "nfs4")), "/data", "nfs4"),
        ((("/", "ext4"), ("/data/a", "nfs4"), ("/data", "xfs")), "/data/a/b", "nfs4"),
        ((("/", "ext4"), (r"/my\040data", "nfs4")), "/my data/a", "nfs4"),
        ((("/", "ext4"), ("/Daten/Über", "nfs4")), "/Daten/Über/a", "nfs4"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(
    mounts: tuple[tuple[str, str], ...], place: str, kind: str, tmp_path: Path
) -> None:
    assert connection.file_system(Path(place), mountinfo(tmp_path, *mounts)) == kind


async def test_a_place_where_no_directory_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory", encoding="utf-8")
    with pytest.raises(UnsuitableDirectoryError):
        async with opened(tmp_path / "file" / "data"):
            pass


async def test_a_directory_that_cannot_be_written_is_refused(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    directory = tmp_path
    if os.geteuid():
        directory.chmod(0o500)
    else:
        # Root may write wherever the disk can be written.
        small: SmallDisk = request.getfixturevalue("small_disk")
        small.make_read_only()
        directory = small.path
    with pytest.raises(UnsuitableDirectoryError):
        async with opened(directory):
            pass


@pytest.mark.parametrize("size", [100, 4096, 100_000])
async def test_a_file_that_is_no_database_is_told_and_left_as_it_is(
    size: int, rng: random.Random, tmp_path: Path
) -> None:
    (tmp_path / DATABASE).write_bytes(rng.randbytes(size))
    before = contents(tmp_path)
    with pytest.raises(StorageCorruptError):
        async with opened(tmp_path):
            pass
    assert contents(tmp_path)[DATABASE] == before[DATABASE]


@pytest.mark.parametrize("tables", ["CREATE TABLE memories (id, text)", "CREATE TABLE notes (id, text)"])
async def test_a_database_of_another_program_is_refused_and_left_as_it_is(tables: str, tmp_path: Path) -> None:
    damage(tmp_path, tables)
    before = contents(tmp_path)
    with pytest.raises(StorageError):
        async with opened(tmp_path):
            pass
    assert contents(tmp_path)[DATABASE] == before[DATABASE]


async def test_a_database_of_which_a_part_is_missing_is_told(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        for i in range(50):
            await store(service, str(i), b'"%b"' % (b"some words " * 500))
    os.truncate(tmp_path / DATABASE, (tmp_path / DATABASE).stat().st_size // 2)
    try:
        async with opened(tmp_path) as service:
            assert await service.upkeep.check(fix=False)
    except StorageCorruptError:
        return


# ---- check


async def filled(directory: Path) -> list[int]:
    """Five memories with everything that is derived of one."""
    async with opened(directory) as service:
        return [
            await store(
                service,
                f"key {i}",
                b'{"text": "unmistakable number %d"}' % i,
                tags=b'["red", "blue"]',
                session_id=b'"s"',
            )
            for i in range(5)
        ]


async def look(directory: Path, *, fix: bool) -> list[Problem]:
    async with opened(directory) as service:
        return await service.upkeep.check(fix=fix)


async def whole(directory: Path) -> bool:
    """Whether each of the five is there and found by its words and by its tags."""
    async with opened(directory) as service:
        keys = [f"key {i}" for i in range(5)]
        there = await service.memories.retrieve_batch(ANONYMOUS, BatchKeysRequest([KeyRef(key) for key in keys]))
        hits = (await service.searching.search(ANONYMOUS, SearchQuery("unmistakable", tags=["red"]))).hits
        return [m.key for m in there if m] == keys == sorted(hit.memory.key for hit in hits)


DERIVED = {
    "a missing tag row": ("DELETE FROM memory_tags WHERE memory_id = 3 AND tag_id = 1",),
    "a tag row too many": ("INSERT INTO tags VALUES (9, 'green')", "INSERT INTO memory_tags VALUES (9, 3)"),
    "a tag row of no memory": ("INSERT INTO memory_tags VALUES (1, 99)",),
    "a missing tag": ("DELETE FROM tags WHERE name = 'red'",),
    "a wrong hash": ("UPDATE search_index SET content_hash = zeroblob(32) WHERE memory_id = 3",),
    "wrong keywords": ("""UPDATE search_index SET keywords = '["wrong"]' WHERE memory_id = 3""",),
    "a missing row of search_index": ("DELETE FROM search_index WHERE memory_id = 3",),
    "a row of search_index too many": ("INSERT INTO search_index VALUES (99, '[]', zeroblob(32), NULL)",),
    "a missing row of the full-text index": ("DELETE FROM memory_text WHERE rowid = 3",),
    "a row of the full-text index too many": ("INSERT INTO memory_text (rowid, body) VALUES (99, 'unmistakable')",),
    "wrong words in the full-text index": (
        "DELETE FROM memory_text WHERE rowid = 3",
        "INSERT INTO memory_text (rowid, body, title, scope) VALUES (3, 'others', 'key', 'n1')",
    ),
    "a wrong count": ("UPDATE namespaces SET memories = memories + 1",),
    "wrong bytes": ("UPDATE namespaces SET bytes = bytes - 1",),
    "a counter of ids that lags": ("UPDATE counters SET last_id = 2",),
    "a counter of changes that lags": ("UPDATE counters SET last_seq = 2",),
    "a missing session": ("DELETE FROM sessions",),
    "a damaged full-text index": ("UPDATE memory_text_data SET block = zeroblob(length(block)) WHERE id > 10",),
    "a full-text index that is gone": ("DELETE FROM memory_text_data WHERE id > 10",),
    "an index of a table without a row": (
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET sql = sql || ' WHERE id <> 3' WHERE name = 'idx_memories_key_ns'",
        "PRAGMA writable_schema = RESET",
        "REINDEX idx_memories_key_ns",
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_schema SET sql = replace(sql, ' WHERE id <> 3', '') WHERE name = 'idx_memories_key_ns'",
    ),
}


@pytest.mark.parametrize("statements", DERIVED.values(), ids=DERIVED)
async def test_check_finds_what_is_derived_and_wrong_and_mends_it(statements: tuple[str, ...], tmp_path: Path) -> None:
    assert await filled(tmp_path) == [1, 2, 3, 4, 5]
    assert await look(tmp_path, fix=False) == []
    damage(tmp_path, *statements)

    found = await look(tmp_path, fix=False)
    assert found
    assert not any(problem.fixed for problem in found)
    assert await look(tmp_path, fix=False) == found, "Looking alone changes nothing"

    mended = await look(tmp_path, fix=True)
    assert [problem for problem in mended if not problem.fixed] == []
    assert await look(tmp_path, fix=False) == []
    assert await whole(tmp_path)
    async with opened(tmp_path) as service:
        assert await store(service, "another") == 6, "An id is never used again"
    await check_is_clean(tmp_path)


async def test_check_tells_a_flipped_byte_of_a_value_and_takes_it_for_no_truth(tmp_path: Path) -> None:
    await filled(tmp_path)
    file = tmp_path / DATABASE
    raw = file.read_bytes()
    assert raw.count(b"unmistakable number 3") == 1
    file.write_bytes(raw.replace(b"unmistakable number 3", b"unmistakable numbes 3"))

    for fix in (False, True, False):
        problems = await look(tmp_path, fix=fix)
        assert problems, "Nothing can mend it, so it must be told until someone stores the value again"
        assert any("key 3" in problem.where for problem in problems)
        assert not any(problem.fixed for problem in problems if "hash" in problem.detail)
    async with opened(tmp_path) as service:
        await store(service, "key 3", b'"stored again"')
    await check_is_clean(tmp_path)


UNDERIVED = {
    "a value that is no JSON": "UPDATE memories SET value_json = '{\"text' WHERE id = 3",
    "a value that is no UTF-8": "UPDATE memories SET value_json = CAST(x'22ff22' AS TEXT) WHERE id = 3",
    "metadata that is no JSON": "UPDATE memories SET metadata = '{\"tags' WHERE id = 3",
    "a memory without its namespace": "DELETE FROM namespaces",
}


@pytest.mark.parametrize("statement", UNDERIVED.values(), ids=UNDERIVED)
async def test_check_tells_a_damaged_record_and_never_drops_it(statement: str, tmp_path: Path) -> None:
    await filled(tmp_path)
    damage(tmp_path, statement)
    for fix in (False, True, False):
        problems = await look(tmp_path, fix=fix)
        assert any("memory 3" in problem.where and not problem.fixed for problem in problems), problems
    with apsw.Connection(os.fspath(tmp_path / DATABASE)) as database:
        assert database.execute("SELECT count(*) FROM memories").get == 5
    database.close()


async def test_check_mends_what_a_deleted_namespace_still_holds(tmp_path: Path) -> None:
    async with opened(tmp_path) as service:
        await store(service, "key", b'"words"')
        await service.namespaces.delete(ANONYMOUS, "default", recursive=True, dry_run=False)
        damage(tmp_path, "UPDATE search_index SET content_hash = zeroblob(32)")
        assert await service.upkeep.check(fix=False)
        assert await service.upkeep.check(fix=True)
        assert await service.upkeep.check(fix=False) == []


async def test_check_of_a_service_that_has_been_at_work_for_long_finds_nothing(
    rng: random.Random, tmp_path: Path
) -> None:
    words = [f"word{i}" for i in range(3000)]
    async with opened(tmp_path) as service:
        for i in range(60):
            await store(service, str(i), b'"%b"' % " ".join(rng.choices(words, k=300)).encode())
            await service.searching.search(ANONYMOUS, SearchQuery("word1"))
            if i % 6 == 0:
                assert await service.upkeep.check(fix=False) == []


async def test_check_finds_nothing_while_others_write(tmp_path: Path) -> None:
    async with opened(tmp_path) as service, opened(tmp_path) as other:
        over = False

        async def write(name: str) -> None:
            i = 0
            while not over:
                i += 1
                await store(other, f"{name} {i % 7}", b'"value %d"' % i, tags=b'["tag %d"]' % (i % 3))
                if i % 5 == 0:
                    await other.memories.delete(ANONYMOUS, "default", f"{name} {i % 7}")

        writers = [asyncio.create_task(write(name)) for name in ("one", "other")]
        try:
            for _ in range(20):
                assert await service.upkeep.check(fix=False) == []
        finally:
            over = True
            await asyncio.gather(*writers)


async def test_mending_while_others_delete_mends_the_rest(tmp_path: Path) -> None:
    async with opened(tmp_path) as service, opened(tmp_path) as other:
        for i in range(300):
            await store(service, str(i), b'"words"')
        damage(tmp_path, "UPDATE search_index SET content_hash = zeroblob(32)")

        async def delete() -> None:
            for i in range(299, 0, -1):
                await other.memories.delete(ANONYMOUS, "default", str(i))

        _, problems = await asyncio.gather(delete(), service.upkeep.check(fix=True))
        assert problems
        assert await service.upkeep.check(fix=False) == []
