"""Deleted text leaves the bytes of the database with the next pass that forgets, that of its index too."""

import random
import string
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.storage.drafts import NOW, apply, found, remove, store, storing
from tests.storage.parts.opened import LATER, configure
from unified_memory.model.history import Keeping
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.storage.base import Storage
from unified_memory.storage.sqlite import SQLiteStorage

# The index keeps of a word what it does not share with the one before it in the alphabet.
SHARED = 4


@pytest.fixture
async def storage(tmp_path: Path) -> AsyncIterator[Storage]:
    # Former versions are kept on purpose: see test_past.py for those.
    storage = SQLiteStorage(tmp_path / "memory.db", keeping=Keeping(versions=0))
    await storage.open()
    yield storage
    await storage.close()


def secrets(count: int) -> list[str]:
    """Words that begin like no other; no stemmer changes what ends in a digit."""
    dice = random.Random(7)
    return ["".join(dice.choices(string.ascii_lowercase, k=20)) + "7" for _ in range(count)]


def held(directory: Path, words: list[str]) -> set[str]:
    """Those of the words that stand anywhere in the files."""
    raw = b"\0".join(file.read_bytes().lower() for file in directory.iterdir())
    return {word for word in words if word[SHARED:].encode() in raw}


async def fill(storage: Storage) -> None:
    """Text enough for an index of many pages, in many commits."""
    dice = random.Random(1)
    words = ["".join(dice.choices(string.ascii_lowercase, k=8)) for _ in range(2000)]
    for start in range(0, 600, 20):
        await apply(storage, *(storing(f"f{n}", " ".join(dice.choices(words, k=20))) for n in range(start, start + 20)))


async def test_words_of_what_was_removed_leave_the_files(storage: Storage, tmp_path: Path) -> None:
    words = secrets(30)
    for n, word in enumerate(words):
        await store(storage, f"k{n}", f"some {word}")
    await fill(storage)
    assert held(tmp_path, words) == set(words)
    for n in range(30):
        await remove(storage, f"k{n}")
    assert [await found(storage, word) for word in words] == [[]] * 30
    await storage.forget()
    assert held(tmp_path, words) == set()


async def test_words_of_what_was_replaced_leave_the_files_and_the_new_ones_stay(
    storage: Storage, tmp_path: Path
) -> None:
    words = secrets(40)
    for n, word in enumerate(words[:20]):
        await store(storage, f"k{n}", f"some {word}", title=word, tags=(word,))
    await fill(storage)
    for n, word in enumerate(words[20:]):
        await store(storage, f"k{n}", f"some {word}")
    await storage.forget()
    # Names of tags are kept in a list of their own.
    assert held(tmp_path, words[20:]) == set(words[20:])
    assert [await found(storage, word) for word in words] == [[]] * 20 + [[f"k{n}"] for n in range(20)]
    assert await storage.check(fix=False) == []


async def test_words_of_what_has_expired_leave_the_files(storage: Storage, tmp_path: Path) -> None:
    words = secrets(30)
    for n, word in enumerate(words):
        await store(storage, f"k{n}", f"some {word}", expires_at=LATER)
    await fill(storage)
    assert await storage.expire(LATER, 100)
    await storage.forget()
    assert held(tmp_path, words) == set()
    assert await storage.check(fix=False) == []


async def test_words_of_a_purged_namespace_leave_the_files(storage: Storage, tmp_path: Path) -> None:
    words = secrets(30)
    await configure(storage, "de", language="german")
    for n, word in enumerate(words):
        await store(storage, f"k{n}", f"some {word}", namespace="de")
    await fill(storage)
    for ticket in await storage.delete_namespace("de", NOW, recursive=True):
        while await storage.purge(ticket, NOW, 10):
            pass
    await storage.forget()
    assert held(tmp_path, words) == set()


async def test_words_of_the_old_language_leave_the_files(storage: Storage) -> None:
    await configure(storage, "a")
    await store(storage, "k", "untersuchungen", namespace="a")
    await fill(storage)
    await storage.put_namespace("a", NamespaceConfig(language="german"), NOW, create=False)
    while await storage.refresh_index(10):
        pass
    await storage.forget()
    assert await found(storage, "untersuchung", "a") == ["k"]
    assert await storage.check(fix=False) == []


async def test_a_second_pass_finds_what_was_removed_since(storage: Storage, tmp_path: Path) -> None:
    words = secrets(2)
    await fill(storage)
    for word in words:
        await store(storage, "k", word)
        await remove(storage, "k")
        await storage.forget()
        assert held(tmp_path, words) == set()


async def test_a_pass_of_what_forgets_nothing_writes_nothing(storage: Storage, tmp_path: Path) -> None:
    await fill(storage)
    await storage.forget()
    before = (tmp_path / "memory.db").read_bytes()
    await storage.forget()
    assert (tmp_path / "memory.db").read_bytes() == before
