"""Former versions in SQLite: how they are written, what leaves the files when they go, and databases of before."""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.storage.drafts import NOW, apply, remove, store, storing
from tests.storage.parts.opened import LATER
from tests.storage.test_search_bytes import fill, held, secrets
from tests.storage.test_tiered import tiered
from unified_memory.model.errors import ChangesGoneError, StorageCorruptError
from unified_memory.model.history import Keeping, Kind
from unified_memory.storage.base import Storage
from unified_memory.storage.sqlite import SQLiteStorage
from unified_memory.storage.sqlite.past import DIFFERENCE, GONE, MAX_DEPTH, PLAIN, ZSTD
from unified_memory.storage.sqlite.schema import STEPS
from unified_memory.storage.tiered import TieredStorage

LINGER = 61_000_000


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    storage = SQLiteStorage(tmp_path / "memory.db", keeping=Keeping(versions=None, days=None))
    await storage.open()
    yield storage
    assert await storage.check(fix=False) == []
    await storage.close()


def rows(directory: Path, columns: str) -> list[Any]:
    database = apsw.Connection(os.fspath(directory / "memory.db"))
    try:
        return database.execute(f"SELECT {columns} FROM past ORDER BY memory_id, version").fetchall()  # noqa: S608 - our own
    finally:
        database.close()


async def values(storage: Storage, key: str, last: int) -> list[bytes | None]:
    found = [await storage.past_version("default", key, version, NOW) for version in range(1, last + 1)]
    return [None if one is None or not one.kept else one.memory.value for one in found]


def text(number: int) -> str:
    """Long, and hardly another from one number to the next."""
    return " ".join(f"sentence {n} of the story" for n in range(40)) + f" as told for the {number}th time"


async def test_versions_are_written_as_differences_where_that_is_less(storage: Storage, tmp_path: Path) -> None:
    for number in range(40):
        await store(storage, "k", text(number))
    before = await values(storage, "k", 39)
    assert await storage.shrink_past(100) == 39
    assert await storage.shrink_past(100) == 0
    assert await values(storage, "k", 39) == before == [f'"{text(number)}"'.encode() for number in range(39)]
    written = rows(tmp_path, "coding, depth, length(value), bytes")
    assert {coding for coding, *_ in written} == {ZSTD, DIFFERENCE}
    assert max(depth for _, depth, *_ in written) == MAX_DEPTH
    assert sum(length for *_, length, _ in written) < sum(size for *_, size in written) / 10


async def test_what_does_not_shrink_is_kept_as_it_is(storage: Storage, tmp_path: Path) -> None:
    dice = random.Random(3)
    for _ in range(3):
        await store(storage, "short", 1)
        await store(storage, "long", "".join(chr(dice.randrange(0x4E00, 0x9FFF)) for _ in range(40)))
    await storage.shrink_past(100)
    codings = rows(tmp_path, "coding, length(value), bytes")
    assert [coding for coding, *_ in codings[:2]] == [PLAIN, PLAIN]
    assert all(length <= size for _, length, size in codings)


@pytest.mark.parametrize("gone", [1, 7, 16, 17, 39])
async def test_a_redacted_version_takes_nothing_with_it_that_stands_on_it(storage: Storage, gone: int) -> None:
    for number in range(40):
        await store(storage, "k", text(number))
    await storage.shrink_past(100)
    before = await values(storage, "k", 39)
    assert (await storage.redact("default", "k", gone, NOW)).versions == [gone]
    before[gone - 1] = None
    assert await values(storage, "k", 39) == before


async def test_forgotten_versions_take_nothing_with_them_that_stands_on_them(storage: Storage) -> None:
    for number in range(40):
        await store(storage, "k", text(number))
    await storage.shrink_past(100)
    before = await values(storage, "k", 39)
    # In small steps: each leaves others standing on what went.
    while await storage.prune_past(("",), recursive=True, keep=9, before=None, limit=4):
        after = await values(storage, "k", 39)
        assert [one for one in after if one is not None] == before[39 - sum(one is not None for one in after) :]
    assert await values(storage, "k", 39) == [None] * 30 + before[30:]


async def test_a_redacted_text_leaves_every_file(storage: Storage, tmp_path: Path) -> None:
    words = secrets(60)
    for n, word in enumerate(words):
        await store(storage, f"k{n % 20}", f"{text(n)} {word}", title=word, tags=(word,))
    await fill(storage)
    await storage.shrink_past(1000)
    await store(storage, "other", "text")
    # Past ones stand in them as they are, or compressed: the reading shows those.
    kept = [await storage.past_version("default", f"k{n % 20}", n // 20 + 1, NOW) for n in range(40)]
    assert all(one is not None and words[n].encode() in one.memory.value for n, one in enumerate(kept))
    assert held(tmp_path, words) >= set(words[40:])
    for n in range(20):
        assert (await storage.redact("default", f"k{n}", None, NOW)).versions == [1, 2, 3]
    await storage.forget()
    assert held(tmp_path, words) == set()
    assert await storage.get("default", "k0", NOW) is None
    assert [one.kept for one in await storage.past("default", "k0", NOW, before=None, limit=9)] == [False] * 3
    assert {coding for (coding,) in rows(tmp_path, "coding")} == {GONE}


async def test_what_is_cold_is_kept_when_it_is_replaced(tmp_path: Path) -> None:
    tiers = tiered(tmp_path)
    await tiers.open()
    await apply(tiers, *(storing(f"k{n}", text(n)) for n in range(20)))
    await archive_all(tiers)
    await store(tiers, "k3", "new")
    await remove(tiers, "k4")
    for key, number in (("k3", 3), ("k4", 4)):
        found = await tiers.past_version("default", key, 1, NOW)
        assert found is not None
        assert found.memory.value == f'"{text(number)}"'.encode()
    assert await tiers.check(fix=False) == []
    await tiers.close()


async def test_a_damaged_cold_value_can_still_be_replaced(tmp_path: Path) -> None:
    tiers = tiered(tmp_path)
    await tiers.open()
    await apply(tiers, *(storing(f"k{n}", text(n)) for n in range(20)))
    await archive_all(tiers)
    await tiers.close()
    for file in (tmp_path / "archive").glob("*.zar"):
        file.unlink()
    tiers = tiered(tmp_path)
    await tiers.open()
    with pytest.raises(StorageCorruptError):
        await tiers.get("default", "k3", NOW)
    await store(tiers, "k3", "new")
    await remove(tiers, "k4")
    found = await tiers.get("default", "k3", NOW)
    assert found is not None
    assert (found.value, found.version) == (b'"new"', 2)
    lost = [await tiers.past_version("default", key, 1, NOW) for key in ("k3", "k4")]
    assert [(one.kept, one.redacted_at, one.bytes) for one in lost if one is not None] == [
        (False, None, len(text(3)) + 2),
        (False, None, len(text(4)) + 2),
    ]
    await tiers.close()


async def archive_all(tiers: TieredStorage) -> None:
    chosen = await tiers.demotable(("",), NOW, recursive=True, used_before=2**62, limit=1000)
    assert (await tiers.demote(chosen, NOW)).memories == len(chosen)


async def test_damaged_versions_are_named(storage: Storage, tmp_path: Path) -> None:
    for number in range(4):
        await store(storage, "k", text(number))
    await storage.shrink_past(100)
    database = apsw.Connection(os.fspath(tmp_path / "memory.db"))
    database.execute("UPDATE past SET value = CAST(x'00' || substr(value, 2) AS BLOB) WHERE version = 1")
    problems = await storage.check(fix=False)
    assert [one.where for one in problems] == [f"version {n} of memory 1" for n in (1, 2, 3)]
    with pytest.raises(StorageCorruptError, match="damaged"):
        await storage.past_version("default", "k", 2, NOW)
    database.execute("DELETE FROM past")
    database.close()


async def test_a_feed_that_begins_with_an_upgrade_says_so(tmp_path: Path) -> None:
    path = tmp_path / "memory.db"
    database = apsw.Connection(os.fspath(path))
    database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    database.execute("PRAGMA journal_mode = WAL")
    # Without the last step: as the program before wrote it.
    for number, (name, script) in enumerate(STEPS[:5], start=1):
        database.execute(script)
        database.execute("INSERT INTO schema_steps VALUES (?, ?, ?, ?)", (number, name, 1, "before"))
    database.execute("PRAGMA user_version = 5")
    database.execute("UPDATE counters SET last_seq = 7")
    database.close()
    storage = SQLiteStorage(path)
    await storage.open()
    with pytest.raises(ChangesGoneError) as gone:
        await storage.feed(6, 9)
    assert (gone.value.facts["since"], gone.value.facts["oldest"]) == (6, 7)
    await store(storage, "k")
    assert [(event.seq, event.kind) for event in await storage.feed(7, 9)] == [(8, Kind.STORE)]
    await storage.close()


async def test_the_feed_of_a_clock_that_went_back_loses_nothing_in_between(storage: Storage) -> None:
    for instant in (NOW, LATER, NOW, LATER):
        await apply(storage, storing("k"), now=instant)
    assert await storage.prune_feed(LATER, 10) == 1
    assert [event.at for event in await storage.feed(1, 9)] == [LATER, NOW, LATER]


async def test_whoever_asks_at_once_for_room_to_be_given_back_has_an_answer(storage: Storage) -> None:
    await fill(storage)
    asked = [asyncio.create_task(storage.shrink()) for _ in range(5)]
    asked[2].cancel()
    done, waiting = await asyncio.wait(asked, timeout=30)
    assert (len(done), waiting) == (5, set())
