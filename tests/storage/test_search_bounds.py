"""What is searched otherwise where there is too much of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.storage.drafts import found, store
from tests.storage.parts.languages import LanguageContract
from tests.storage.parts.opened import configure
from tests.storage.parts.searches import SearchContract
from tests.storage.parts.spelling import SpellingContract
from unified_memory.model.search import MAX_PREFIXES, parse_search
from unified_memory.storage.base import Storage
from unified_memory.storage.sqlite import SQLiteStorage, search, vocabulary


@pytest.fixture
async def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Storage]:
    """Where every prefix that begins more than three entries is a short one."""
    monkeypatch.setattr(vocabulary, "MAX_PREFIX_ENTRIES", 3)
    monkeypatch.setattr(vocabulary, "MAX_PREFIX_TERMS", 2)
    storage = SQLiteStorage(tmp_path / "memory.db")
    await storage.open()
    for number, text in enumerate(("deploying", "deployment", "depth", "depth", "deputy", "depot")):
        await store(storage, f"k{number}", f"in {text}")
    yield storage
    await storage.close()


class TestSQLiteOfMany(SpellingContract, SearchContract, LanguageContract):
    """As if there were more than a few memories: what is inside of words and what is misspelt is told by the index's terms."""

    @pytest.fixture
    async def storage(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Storage]:
        monkeypatch.setattr(search, "FEW", -1)
        storage = SQLiteStorage(tmp_path / "memory.db")
        await storage.open()
        yield storage
        await storage.close()


async def test_a_short_prefix_finds_its_most_frequent_terms(storage: Storage) -> None:
    assert set(await found(storage, "dep*")) == {"k0", "k2", "k3"}
    assert set(await found(storage, "in/dep*")) == {"k0", "k2", "k3"}
    assert await found(storage, "depo*") == ["k5"]


async def test_a_short_prefix_that_must_not_occur_keeps_all_away(storage: Storage) -> None:
    await store(storage, "other", "in the house")
    assert await found(storage, "in -dep*") == ["other"]


async def test_a_short_prefix_is_told_in_every_language(storage: Storage) -> None:
    await configure(storage, "de", language="german")
    for number, text in enumerate(("Hausmeister", "Häuser", "Haus", "Hausboot", "Hausboote")):
        await store(storage, f"h{number}", f"das {text}", namespace="de")
    assert set(await found(storage, "haus*", "de")) == {"h1", "h2", "h3", "h4"}


async def test_of_what_may_hold_a_text_the_newest_are_read(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await found(storage, "eploym") == ["k1"]
    monkeypatch.setattr(search, "MAX_LIKELY", 1)
    await store(storage, "newer", "redeploy")
    assert await found(storage, "eploym") == []


def test_of_many_prefixes_the_rest_are_words() -> None:
    terms = parse_search(" ".join(f"p{n}*" for n in range(MAX_PREFIXES + 2))).any
    assert [term.prefix for term in terms] == [True] * MAX_PREFIXES + [False] * 2
