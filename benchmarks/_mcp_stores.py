"""What the MCP servers hold while they are measured: contexts in 20 projects, and files of a memory bank.

The older servers' stores are written in their own formats, since they themselves would take minutes.
"""

import random
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchmarks._corpus import Corpus
from unified_memory.model.clock import SECOND, SystemClock

PROJECTS = [f"project {number:02}" for number in range(20)]
_TAGS = [f"topic-{number}" for number in range(60)]

# As extended-memory 0.9.0 makes it; the indexes it adds itself when it starts.
_EXTENDED_MEMORY = """
CREATE TABLE contexts (id INTEGER PRIMARY KEY AUTOINCREMENT, project_id TEXT, content TEXT NOT NULL,
  importance_level INTEGER NOT NULL, status TEXT DEFAULT 'active', created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP,
  expires_at TIMESTAMP, access_count INTEGER DEFAULT 0, last_accessed TIMESTAMP DEFAULT CURRENT_TIMESTAMP);
CREATE TABLE tags (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE NOT NULL);
CREATE TABLE context_tags (context_id INTEGER, tag_id INTEGER, PRIMARY KEY (context_id, tag_id),
  FOREIGN KEY (context_id) REFERENCES contexts(id) ON DELETE CASCADE,
  FOREIGN KEY (tag_id) REFERENCES tags(id) ON DELETE CASCADE);
CREATE TABLE projects (id TEXT PRIMARY KEY, name TEXT NOT NULL, description TEXT,
  last_accessed TIMESTAMP DEFAULT CURRENT_TIMESTAMP, status TEXT DEFAULT 'active');
"""
_MEMORY_BANK = """
CREATE TABLE files (id INTEGER PRIMARY KEY AUTOINCREMENT, project_name TEXT NOT NULL, file_name TEXT NOT NULL,
  content TEXT, UNIQUE(project_name, file_name));
"""
Context = dict[str, Any]
File = tuple[str, str, str]


def contexts(count: int) -> list[Context]:
    """Arguments of `save_context`: one or two notes of the corpus as content, up to three of 60 tags."""
    chance = random.Random(count)
    notes = Corpus(2 * count).notes
    return [
        {
            "content": f"{notes[2 * number].value} {notes[2 * number + 1].value}"[: chance.randint(200, 540)],
            "importance_level": chance.randint(1, 10),
            "tags": chance.sample(_TAGS, chance.randint(0, 3)),
            "project_id": PROJECTS[number % len(PROJECTS)],
        }
        for number in range(count)
    ]


def files(count: int) -> list[File]:
    """Project, name and content of files."""
    return [
        (context["project_id"].replace(" ", "-"), f"note-{number:05}.md", f"# Notes\n\n{context['content']}")
        for number, context in enumerate(contexts(count))
    ]


def fill_extended_memory(path: Path, stored: Sequence[Context]) -> None:
    """Writes a database of extended-memory; the contexts were saved a millisecond apart, the last one now."""
    now = SystemClock().now() / SECOND
    numbers = {tag: number for number, tag in enumerate(_TAGS, 1)}
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(_EXTENDED_MEMORY)
        database.executemany("INSERT INTO tags (id, name) VALUES (?, ?)", [(numbers[tag], tag) for tag in _TAGS])
        database.executemany(
            "INSERT INTO contexts (id, project_id, content, importance_level, created_at) VALUES (?, ?, ?, ?, ?)",
            [
                (
                    number,
                    each["project_id"],
                    each["content"],
                    each["importance_level"],
                    _local(now, len(stored) - number),
                )
                for number, each in enumerate(stored, 1)
            ],
        )
        database.executemany(
            "INSERT INTO context_tags (context_id, tag_id) VALUES (?, ?)",
            [(number, numbers[tag]) for number, each in enumerate(stored, 1) for tag in each["tags"]],
        )


def fill_bank_folder(root: Path, stored: Sequence[File]) -> None:
    """Writes the folder of the memory bank of npm."""
    for project, name, content in stored:
        (root / project).mkdir(parents=True, exist_ok=True)
        (root / project / name).write_text(content, encoding="utf-8")


def fill_bank_database(path: Path, stored: Sequence[File]) -> None:
    """Writes the database of the memory bank of PyPI."""
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(_MEMORY_BANK)
        database.executemany("INSERT INTO files (project_name, file_name, content) VALUES (?, ?, ?)", stored)


def _local(now: float, milliseconds_ago: int) -> str:
    """Local time without an offset, as extended-memory writes it."""
    at = now - milliseconds_ago / 1000
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(at)) + f".{int(at * 1_000_000) % 1_000_000:06}"
