"""What is redacted is nowhere in the files of a service: each of its places is searched, where it was found before."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec import Raw

from tests.service.asking import Held, raws, storing
from tests.storage.test_search_bytes import SHARED, secrets
from unified_memory.bootstrap import build
from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import MemoryNotFoundError, VersionGoneError
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS
from unified_memory.model.value import encode
from unified_memory.service.requests import (
    BackupRequest,
    Idempotent,
    MoveRequest,
    RedactRequest,
    RestoreRequest,
    SearchQuery,
    StoreRequest,
    UpdateRequest,
)
from unified_memory.service.requests import Place as Where
from unified_memory.settings import load
from unified_memory.storage import tiered
from unified_memory.storage.archive import Archive, Block, Directory
from unified_memory.storage.backup import KINDS, Place
from unified_memory.storage.backup.codec import decompress
from unified_memory.storage.sqlite import past

# Files of archives linger for a minute, and the index is written anew as often as its size allows.
PASS_SECONDS = 1800
# An archive has a dictionary where it holds enough to train one.
OTHERS = 300


class House(Held):
    """A service, and where its files lie."""

    data: Path
    place: Path

    async def put(self, key: str, value: str, request_id: str | None = None, **metadata: Any) -> Memory:
        """Stores it, whatever was there."""
        idempotent = None if request_id is None else Idempotent(request_id, b"1")
        request = storing(key, value, metadata=metadata)
        outcome = await self.service.memories.store(ANONYMOUS, request, idempotent=idempotent)
        assert outcome.memory is not None
        return outcome.memory

    async def archive(self) -> None:
        async for _ in self.service.tiering.archive(ANONYMOUS, "default", recursive=True):
            pass

    async def redact(self, key: str, version: int | None = None) -> list[int]:
        return (await self.service.histories.redact(ANONYMOUS, RedactRequest(key, version=version))).versions

    async def passes(self) -> None:
        """Every pass there is, as often as an hour brings it."""
        for _ in range(2):
            async for _ in self.service.upkeep.cleanup():
                pass
            async for _ in self.service.tiering.demote():
                pass
            async for _ in self.service.tiering.compact():
                pass
            self.clock.advance(PASS_SECONDS)

    async def back_up(self) -> str:
        return (await self.service.backups.create(ANONYMOUS, BackupRequest())).manifest.id

    def held(self, words: dict[str, str]) -> dict[str, set[str]]:
        """Which of the words stand where, those places left out that hold none."""
        found = {
            name: {label for label, word in words.items() if word[SHARED:].encode() in text.lower()}
            for name, text in self.texts().items()
        }
        return {name: labels for name, labels in found.items() if labels}

    def texts(self) -> dict[str, bytes]:
        """Everything that lies in the directory, by place: files as they are, and what is packed in them."""
        files = sorted(one for one in self.data.rglob("*") if one.is_file())
        texts = {
            "database": b"\0".join(one.read_bytes() for one in files if one.parent == self.data),
            "archive files": b"\0".join(one.read_bytes() for one in files if one.parent != self.data),
            "archived values": self.archived(),
        }
        connection = apsw.Connection(os.fspath(self.data / "unified-memory.db"), flags=apsw.SQLITE_OPEN_READONLY)
        try:
            connection.execute("CREATE VIRTUAL TABLE temp.terms USING fts5vocab(main, memory_text, row)")
            texts["terms"] = joined(connection.execute("SELECT term FROM temp.terms"))
            tables = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
            for table in (str(row[0]) for row in tables):
                if not table.startswith("memory_text"):
                    texts[table] = joined(connection.execute(f"SELECT * FROM {table}"))  # noqa: S608 - our own
            for number, version in connection.execute(
                "SELECT memory_id, version FROM past WHERE coding <> ?", (past.GONE,)
            ).fetchall():
                texts["past"] += b"\0" + past.content(connection, number, version)  # type: ignore[arg-type]  # as `Database`
        finally:
            connection.close()
        return texts

    def archived(self) -> bytes:
        """Every value of every archive."""
        archive = Archive(Directory(self.data / "archive"), cache_bytes=0)
        try:
            return b"\0".join(
                archive.read(name, block.number, slot, number)
                for name in archive.names()
                for block in archive.verify(name)
                if isinstance(block, Block)
                for slot, number in enumerate(block.ids)
            )
        finally:
            archive.close()

    def backed_up(self) -> bytes:
        """Everything that lies where backups are, decompressed and as it is."""
        place = Place(self.place)
        texts = [one.read_bytes() for one in sorted(self.place.rglob("*")) if one.is_file()]
        for backup_id in place.ids():
            for part in place.manifest(backup_id).parts:
                assert part.kind in KINDS
                texts += decompress(iter([(self.place / backup_id / part.name).read_bytes()]), part.raw_bytes)
        return b"\0".join(texts)


def joined(rows: Any) -> bytes:
    cells = (cell for row in rows for cell in row)
    return b"\0".join(cell if isinstance(cell, bytes) else str(cell).encode() for cell in cells)


def text(number: int) -> str:
    """Long, and hardly another from one number to the next."""
    return " ".join(f"sentence {n} of the story" for n in range(40)) + f" as told for the {number}th time"


@asynccontextmanager
async def opened(directory: Path, name: str, clock: SettableClock) -> AsyncIterator[House]:
    """A service with a directory of its own, and the place of backups that all share."""
    told = load({}, data_dir=directory / name, backup_dir=directory / "backups", semantic="off", history_days=-1.0)
    service = build(told, clock)
    await service.open()
    try:
        yield House(service, service.storage, clock, directory / name, directory / "backups")
        assert await service.upkeep.check(fix=False) == []
    finally:
        await service.close()


@pytest.fixture
async def house(directory: Path) -> AsyncIterator[House]:
    async with opened(directory, "data", SettableClock()) as one:
        yield one


LABELS = (
    "written small", "difference", "cold once", "cold again", "fresh", "current", "title", "tag", "own field", "deleted",
    "cold", "of a request", "moved", "stays",
)  # fmt: skip


async def fill(one: House) -> dict[str, str]:
    """Puts a word of its own into each place where a text may lie; the words."""
    words = dict(zip(LABELS, secrets(len(LABELS)), strict=True))
    for n in range(OTHERS):
        await one.put(f"other {n}", f"{text(n)} {n * n}")
    await one.put("stays", f"{text(0)} {words['stays']}")
    metadata = {"title": f"a {words['title']}", "tags": [words["tag"]], "field": {"in": words["own field"]}}
    await one.put("k", f"{text(1)} {words['written small']}", "first", **metadata)
    await one.put("k", f"{text(2)} {words['difference']}")
    await one.put("k", f"{text(3)} {words['cold once']}")
    async for _ in one.service.upkeep.cleanup():
        pass
    await one.put("cold", f"{text(1)} {words['cold']}")
    await one.archive()
    await one.put("k", f"{text(4)} {words['cold again']}")
    await one.archive()
    await one.put("k", f"{text(5)} {words['fresh']}")
    await one.put("k", f"{text(6)} {words['current']}")
    await one.put("deleted", f"{text(7)} {words['deleted']}")
    await one.service.memories.delete(ANONYMOUS, "default", "deleted")
    await one.put("answered", "harmless")
    change = UpdateRequest(Raw(encode(f"{text(8)} {words['of a request']}")))
    await one.service.memories.update(ANONYMOUS, "default", "answered", change, idempotent=Idempotent("second", b"1"))
    await one.put("here", f"{text(9)} {words['moved']}")
    await one.archive()
    await one.put("here", "harmless")
    await one.service.memories.move(ANONYMOUS, MoveRequest(Where(key="here"), Where(key="there")))
    return words


KEYS = ("k", "cold", "deleted", "answered", "there")


async def test_a_redacted_text_is_nowhere_in_the_data_directory(house: House) -> None:
    words = await fill(house)
    before = house.held(words)
    assert before["past"] >= {
        "written small", "difference", "cold once", "cold again", "fresh", "title", "tag", "own field", "deleted", "moved",
    }  # fmt: skip
    assert before["archived values"] >= {"cold once", "cold again", "cold", "moved", "stays", "current", "of a request"}
    assert before["terms"] >= {"current", "cold", "of a request", "stays"}
    assert before["idempotency"] == {"title", "tag", "own field", "of a request"}
    assert before["tags"] == {"tag"}
    assert before["database"] >= {"fresh", "current", "deleted", "tag", "of a request"}
    assert house.backed_up() == b""
    backup_id = await house.back_up()
    for key in KEYS:
        assert await house.redact(key)
    await house.passes()
    after = house.held(words)
    assert {label for labels in after.values() for label in labels} == {"stays"}
    assert after["archived values"] == {"stays"}
    found = await house.service.searching.search(ANONYMOUS, SearchQuery(query=words["stays"]))
    assert [hit.memory.key for hit in found.hits] == ["stays"]
    for key in KEYS:
        with pytest.raises(MemoryNotFoundError):
            await house.retrieve(key)
        versions = (await house.service.histories.versions(ANONYMOUS, "default", key, limit=99, cursor=None)).versions
        assert versions
        assert not any(one.kept for one in versions)
        with pytest.raises(VersionGoneError):
            await house.service.histories.version(ANONYMOUS, "default", key, 1)
    # A backup of before holds it; without that nothing does.
    assert all(word.encode() in house.backed_up() for word in words.values())
    await house.service.backups.delete(ANONYMOUS, backup_id)
    await house.back_up()
    assert {label for label, word in words.items() if word.encode() in house.backed_up()} == {"stays"}


@pytest.mark.parametrize(
    ("version", "label"), [(1, "written small"), (2, "difference"), (3, "cold once"), (4, "cold again"), (6, "current")]
)
async def test_of_one_redacted_version_nothing_is_left_and_of_the_others_all(
    house: House, version: int, label: str
) -> None:
    words = await fill(house)
    before = {at for labels in house.held(words).values() for at in labels}
    assert before == set(words)
    histories = house.service.histories
    others = [one for one in range(1, 7) if one != version]
    values = [await histories.version(ANONYMOUS, "default", "k", one) for one in others]
    assert await house.redact("k", version) == [version]
    await house.passes()
    left = {at for labels in house.held(words).values() for at in labels}
    gone = {label} | ({"title", "tag", "own field"} if version == 1 else set())
    assert left == before - gone
    kept = [await histories.version(ANONYMOUS, "default", "k", one) for one in others]
    assert [one.value for one in kept] == [one.value for one in values]


async def test_what_an_incremental_backup_goes_on_from_still_holds_what_was_redacted(house: House) -> None:
    words = await fill(house)
    full = await house.back_up()
    for key in KEYS:
        await house.redact(key)
    house.clock.advance(1)
    made = await house.service.backups.create(ANONYMOUS, BackupRequest(full))
    assert made.manifest.parent == full
    own = b"".join(
        chunk
        for part in made.manifest.parts
        for chunk in decompress(iter([(house.place / made.manifest.id / part.name).read_bytes()]), part.raw_bytes)
    )
    assert [label for label, word in words.items() if word.encode() in own] == []
    assert words["fresh"].encode() in house.backed_up()


async def test_what_was_redacted_along_a_chain_does_not_come_back_with_it(
    house: House, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So that values of the first link are archived before the second one comes.
    monkeypatch.setattr(tiered, "GATHERED", 50)
    words = await fill(house)
    await house.archive()
    full = await house.back_up()
    for key in KEYS:
        await house.redact(key)
    house.clock.advance(1)
    last = (await house.service.backups.create(ANONYMOUS, BackupRequest(full))).manifest.id
    async with opened(directory, "elsewhere", house.clock) as other:
        for one in (house, other):
            await one.service.backups.restore(ANONYMOUS, RestoreRequest(last, safety=False))
            await one.passes()
            assert {label for labels in one.held(words).values() for label in labels} == {"stays"}
            assert (await one.service.histories.versions(ANONYMOUS, "default", "k", limit=9, cursor=None)).versions


async def test_a_repeated_request_does_not_bring_a_redacted_text_back(house: House) -> None:
    request = StoreRequest(Raw(b'"secret"'), "k", metadata=raws({"title": "secret"}))
    idempotent = Idempotent("once", b"1")
    await house.service.memories.store(ANONYMOUS, request, idempotent=idempotent)
    await house.redact("k")
    with pytest.raises(MemoryNotFoundError):
        await house.retrieve("k")
    assert b"secret" not in b"".join(house.texts().values())
