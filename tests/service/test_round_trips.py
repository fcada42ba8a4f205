"""Everything that a service holds, backed up here and restored elsewhere: as it was, whatever was done before."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Raw, Struct, structs

from tests.service.asking import raws, storing
from tests.storage.backup.samples import pyrage
from tests.storage.parts.dumps import Dump, comparable, dumped
from unified_memory.bootstrap import build
from unified_memory.model.clock import SECOND, SettableClock
from unified_memory.model.errors import ConflictError, EmptyQueryError, NotFoundError, VersionGoneError
from unified_memory.model.history import Past
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS
from unified_memory.model.query import Selection
from unified_memory.model.session import WithMemories
from unified_memory.model.value import text_of
from unified_memory.service.requests import (
    BackupRequest,
    MoveRequest,
    PatchRequest,
    Place,
    RedactRequest,
    RestoreRequest,
    RestoreVersionRequest,
    SearchQuery,
    SessionRequest,
    UpdateRequest,
)
from unified_memory.service.service import Service
from unified_memory.settings import UNLIMITED, load

_NIGHTLY = settings.get_current_profile_name() == "nightly"
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - a directory in it with a name of its own
START = 1_750_000_000 * SECOND
DAY = 86_400
NAMESPACES = ("acme", "acme-corp", "acme/x", "ü %2F/日本")
KEYS = ("k", "k/l", " ü %2F?#", "日本 語&k")
SESSIONS = ("1", "s/2 ü")
# `W` stands for a word that stands nowhere else.
VALUES = (
    '"W"',
    "null",
    "true",
    '""',
    '{"W": {}, "": [], "n": -0.0, "m": 1E400, "o": 1.50, "p": 12345678901234567890123, "q": 1e-7}',
    '{"a": "W", "a": 1, "a": "W again"}',
    '["\\u0000 W", "\\ud83d\\ude00 \\u00e9", "\\/"]',
    '[1,\n "W"\r\n, 2\t]',
    '"über W 日本語 \U0001f600 \u2028 e\u0301"',
    "[" * 60 + '"W"' + "]" * 60,
    json.dumps("long W text, that is told again and again; " * 40),
    json.dumps("long W text, that is told again and again; " * 39 + "and ends in another way"),
)


def _is_utf8(value: Any) -> bool:
    text = json.dumps(value, ensure_ascii=False)
    return text.encode("utf-8", "replace").decode() == text


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
_values = st.sampled_from(VALUES) | st.builds(
    lambda value, ascii_only: json.dumps(value, ensure_ascii=ascii_only),
    _json.filter(_is_utf8),
    st.booleans(),
)
_refs = st.tuples(st.sampled_from(NAMESPACES), st.sampled_from(KEYS))
_ttls = st.sampled_from((None, None, None, 2.5, 60, 5 * DAY))
_facts = st.fixed_dictionaries(
    {},
    optional={
        "tags": st.lists(st.sampled_from(("t", "ü t", "T")), max_size=3, unique=True),
        "importance": st.sampled_from((1, 10)),
        "session_id": st.sampled_from(SESSIONS),
        "project_id": st.sampled_from(("p", "q")),
        "author": st.sampled_from((Raw(b"1.50"), Raw(b'"\\u0000\\u00e9"'), Raw(b'{"b":  [1, 2.0], "a": null}'))),
        "Ärger": st.sampled_from((True, "ann")),
    },
)
_configs = st.fixed_dictionaries(
    {},
    optional={
        "default_ttl": st.sampled_from((None, 100.5)),
        "description": st.sampled_from((None, "of ours")),
        "language": st.sampled_from(("german", "english")),
        "history_keep": st.sampled_from((None, 0, 1, 3)),
        "max_memories": st.just(50),
    },
)


_op = st.one_of(
    st.tuples(st.just("store"), _refs, _values, _ttls, _facts),
    st.tuples(st.just("store"), _refs, _values, _ttls, _facts),
    st.tuples(st.just("store"), _refs, _values, _ttls, _facts),
    st.tuples(st.just("update"), _refs, _values, _facts),
    st.tuples(st.just("patch"), _refs),
    st.tuples(st.just("delete"), _refs),
    st.tuples(st.just("move"), _refs, _refs),
    st.tuples(st.just("rename"), st.sampled_from(NAMESPACES), st.sampled_from((*NAMESPACES, "new", "new/er"))),
    st.tuples(st.just("drop"), st.sampled_from(NAMESPACES)),
    st.tuples(st.just("configure"), st.sampled_from(NAMESPACES), _configs),
    st.tuples(
        st.just("session"), st.sampled_from(NAMESPACES), st.sampled_from(SESSIONS), st.sampled_from((None, 60.0))
    ),
    st.tuples(st.just("end"), st.sampled_from(NAMESPACES), st.sampled_from(SESSIONS), st.sampled_from(WithMemories)),
    st.tuples(st.just("archive"), st.sampled_from(NAMESPACES)),
    st.tuples(st.just("archive"), st.sampled_from(NAMESPACES)),
    st.tuples(st.just("retrieve"), _refs),
    st.tuples(st.just("redact"), _refs, st.sampled_from((None, 1, 2))),
    st.tuples(st.just("undo"), _refs),
    st.tuples(st.just("cleanup")),
    st.tuples(st.just("wait"), st.sampled_from((0.000001, 1.0, 61.0, 2 * DAY))),
)
_steps = st.lists(_op, min_size=4, max_size=25)


class Way(Struct, frozen=True):
    """How it is tried. `sealed`: backups are encrypted; `forgets`: of each memory few versions are kept."""

    sealed: bool = False
    forgets: bool = False


_ways = st.builds(Way, st.booleans(), st.booleans())


class House(Struct):
    """A service over directories, and its clock. `forgets`: of each memory few versions are kept."""

    service: Service
    clock: SettableClock
    forgets: bool = False
    words: int = 0

    async def do(self, op: tuple[Any, ...]) -> None:
        """One change; one that cannot be made is not made."""
        kind, *told = op
        if kind == "wait":
            # What was gathered of accesses is written down every few seconds.
            await self.service.upkeep.flush()
            self.clock.advance(*told)
            return
        try:
            await getattr(self, f"_{kind}")(*told)
        except (NotFoundError, ConflictError):
            return

    def _with_word(self, template: str) -> Raw:
        self.words += 1
        return Raw(template.replace("W", f"w{self.words:04}w").encode())

    async def _store(self, ref: tuple[str, str], value: str, ttl: float | None, facts: dict[str, Any]) -> None:
        more = {} if ttl is None else {"ttl": ttl}
        request = storing(ref[1], self._with_word(value), ref[0], metadata=facts, **more)
        await self.service.memories.store(ANONYMOUS, request)

    async def _update(self, ref: tuple[str, str], value: str, facts: dict[str, Any]) -> None:
        request = UpdateRequest(self._with_word(value), metadata=raws(facts))
        await self.service.memories.update(ANONYMOUS, *ref, request)

    async def _patch(self, ref: tuple[str, str]) -> None:
        await self.service.memories.patch(ANONYMOUS, *ref, PatchRequest(merge=self._with_word('{"W": 1.0}')))

    async def _delete(self, ref: tuple[str, str]) -> None:
        await self.service.memories.delete(ANONYMOUS, *ref)

    async def _move(self, source: tuple[str, str], target: tuple[str, str]) -> None:
        if source != target:
            await self.service.memories.move(ANONYMOUS, MoveRequest(Place(*source), Place(*target)))

    async def _rename(self, source: str, target: str) -> None:
        if not f"{target}/".startswith(f"{source}/") and not f"{source}/".startswith(f"{target}/"):
            await self.service.memories.move(ANONYMOUS, MoveRequest(Place(source), Place(target)))

    async def _drop(self, name: str) -> None:
        await self.service.namespaces.delete(ANONYMOUS, name, recursive=True, dry_run=False)

    async def _configure(self, name: str, config: dict[str, Any]) -> None:
        if not self.forgets:
            config = {field: told for field, told in config.items() if field != "history_keep"}
        try:
            await self.service.namespaces.configure(ANONYMOUS, name, raws(config))
        except NotFoundError:
            await self.service.namespaces.create(ANONYMOUS, name, raws(config))

    async def _session(self, name: str, session_id: str, ttl: float | None) -> None:
        metadata = raws({"a": Raw(b"1.50"), "b": "ü"})
        await self.service.sessions.create(
            ANONYMOUS, SessionRequest(session_id, name, "c", "p", ttl=ttl, metadata=metadata)
        )

    async def _end(self, name: str, session_id: str, memories: WithMemories) -> None:
        await self.service.sessions.end(ANONYMOUS, name, session_id, memories)

    async def _archive(self, name: str) -> None:
        async for _ in self.service.tiering.archive(ANONYMOUS, name, recursive=True):
            pass

    async def _retrieve(self, ref: tuple[str, str]) -> None:
        await self.service.memories.retrieve(ANONYMOUS, *ref)

    async def _redact(self, ref: tuple[str, str], version: int | None) -> None:
        await self.service.histories.redact(ANONYMOUS, RedactRequest(ref[1], ref[0], version))

    async def _undo(self, ref: tuple[str, str]) -> None:
        await self.service.histories.restore(ANONYMOUS, RestoreVersionRequest(ref[1], ref[0]))

    async def _cleanup(self) -> None:
        async for _ in self.service.upkeep.cleanup():
            pass

    # ---- looking
    async def visible(self) -> list[Memory]:
        """All memories, by id."""
        return (await self.service.storage.select(Selection(limit=None), self.clock.now())).items

    async def found(self, memory: Memory) -> list[tuple[str, str]]:
        """What is found by a word of the memory in all of its namespaces."""
        words = text_of(memory.parsed()).split()
        if not words:
            return []
        try:
            found = await self.service.searching.search(ANONYMOUS, SearchQuery(query=words[-1], mode="fulltext"))
        except EmptyQueryError:
            return []
        return sorted((one.memory.namespace, one.memory.key) for one in found.hits)

    async def told(self) -> dict[Any, Any]:
        """What callers are told of everything, the past too."""
        service = self.service
        told: dict[Any, Any] = {}
        names = [one async for one in _spaces(service, self.clock)]
        told["namespaces"] = [(one.name, one.config, one.effective, one.explicit, one.memories) for one in names]
        for name in sorted({*NAMESPACES, "new", "new/er", *(one.name for one in names)}):
            for key in KEYS:
                told[name, key] = await self._versions(name, key)
        for memory in await self.visible():
            told["found", memory.namespace, memory.key] = await self.found(memory)
        return told

    async def _versions(self, name: str, key: str) -> list[Any]:
        histories = self.service.histories
        try:
            heads = (await histories.versions(ANONYMOUS, name, key, limit=1000, cursor=None)).versions
        except NotFoundError:
            return []
        found: list[Any] = []
        for head in heads:
            try:
                content = await histories.version(ANONYMOUS, name, key, head.version)
            except VersionGoneError as error:
                found.append((head, error.facts))
            else:
                found.append((head, structs.replace(content, tier="", access_count=0, last_accessed=None)))
        return found


async def _spaces(service: Service, clock: SettableClock) -> AsyncIterator[Any]:
    page = await service.storage.list_namespaces(("",), clock.now(), depth=None, limit=1000, after=None)
    for one in page.items:
        yield one


@asynccontextmanager
async def house(root: Path, name: str, clock: SettableClock, way: Way) -> AsyncIterator[House]:
    """A service with directories of its own, and the place of backups that all share."""
    key = root / "key"
    if way.sealed and not key.exists():
        key.write_text(f"{pyrage.x25519.Identity.generate()}\n", encoding="ascii")
    told = load(
        {},
        data_dir=root / name,
        backup_dir=root / "backups",
        backup_key_file=key if way.sealed else None,
        history_keep=5 if way.forgets else UNLIMITED,
        history_days=-1.0,
        hot_tier="on",
        semantic="off",
        cpu_limit=1.0,
    )
    service = build(told, clock)
    await service.open()
    try:
        yield House(service, clock, way.forgets)
    finally:
        await service.close()


class Kept(Struct):
    """A backup, when it was made, what was there then (at that instant and later), and what callers were told of it."""

    id: str
    at: int
    now: Dump
    later: Dump
    told: dict[Any, Any]


async def back_up(one: House, parent: str | None, later: int) -> Kept:
    """Makes a backup of what is there."""
    await one.service.upkeep.flush()
    now, storage = one.clock.now(), one.service.storage
    made = await one.service.backups.create(ANONYMOUS, BackupRequest(parent))
    at = Kept(made.manifest.id, now, await dumped(storage, now), await dumped(storage, later), {})
    at.told = await one.told()
    one.clock.advance(1)
    return at


def without_tiers(rows: dict[str, Any]) -> dict[str, Any]:
    """That a value was archived is no change: an incremental backup does not tell it."""
    return {**rows, "memories": [structs.replace(one, tier="") for one in rows["memories"]]}


def without_forgotten(rows: list[Past], expected: list[Past], parents: list[Kept]) -> list[Past]:
    """The versions without those that the passes had forgotten before the backup: an incremental one does not tell that. They
    were the oldest ones with content of their key, and stand in a link before as they come back.
    """
    before = [row for one in parents for row in (*one.now.past, *one.later.past)]
    oldest: dict[tuple[str, str], int] = {}
    for row in expected:
        if row.redacted_at is None:
            oldest.setdefault((row.memory.namespace, row.memory.key), row.memory.version)
    return [
        row
        for row in rows
        if row in expected
        or row not in before
        or row.memory.version > oldest.get((row.memory.namespace, row.memory.key), row.memory.version)
    ]


async def assert_restored(root: Path, kept: Kept, parents: list[Kept], used: list[Kept], *, way: Way, now: int) -> None:
    """Restores a backup into a new directory and compares everything."""
    clock = SettableClock(now)
    name = f"elsewhere-{kept.id}-{now}"
    async with house(root, name, clock, way) as other:
        last = used[-1]
        restored = await other.service.backups.restore(
            ANONYMOUS, RestoreRequest(last.id, as_of=None if last is kept else kept.id)
        )
        assert (restored.used, restored.safety_backup) == (kept.id, None)
        held = comparable(await dumped(other.service.storage, now))
        expected = comparable(kept.now if now == kept.at else kept.later)
        if parents:
            held, expected = without_tiers(held), without_tiers(expected)
        if parents and way.forgets:
            held["past"] = without_forgotten(held["past"], expected["past"], parents)
        for kind, rows in expected.items():
            assert held[kind] == rows, kind
        assert restored.added == len(expected["memories"])
        if now == kept.at:
            told = await other.told()
            for what, answer in kept.told.items():
                # Versions that were forgotten.
                assert (
                    told[what] if not (parents and way.forgets) else [one for one in told[what] if one in answer]
                ) == answer, what
        assert await other.service.upkeep.check(fix=False) == []
        ids = [one.id for one in kept.now.memories]
        for row in kept.now.buried:
            if (row.namespace, row.key) in {(one.namespace, one.key) for one in kept.now.memories}:
                continue
            outcome = await other.service.memories.store(ANONYMOUS, storing(row.key, 1, row.namespace))
            assert outcome.memory is not None
            assert outcome.memory.version > row.version
            assert outcome.memory.id > max(ids, default=0)
        for memory in await other.visible():
            updated = await other.service.memories.update(
                ANONYMOUS, memory.namespace, memory.key, UpdateRequest(Raw(b'"next"'))
            )
            assert updated.memory is not None
            assert updated.memory.version == memory.version + 1
        assert await other.service.upkeep.check(fix=False) == []


async def round_trip(
    root: Path, rounds: list[list[tuple[Any, ...]]], *, way: Way, choose: Callable[[int], int]
) -> None:
    """Changes and backups in turns, then one of these restored elsewhere."""
    clock = SettableClock(START)
    later = START + 300 * DAY * SECOND
    made: list[Kept] = []
    async with house(root, "here", clock, way) as one:
        for steps in rounds:
            for step in steps:
                await one.do(step)
            made.append(await back_up(one, made[-1].id if made else None, later))
    chosen = choose(len(made))
    kept = made[chosen]
    for now in (kept.at, later):
        await assert_restored(root, kept, made[:chosen], made, way=way, now=now)


@given(rounds=st.lists(_steps, min_size=1, max_size=4), way=_ways, data=st.data())
@settings(max_examples=1_000 if _NIGHTLY else 80, deadline=None)
def test_what_was_backed_up_is_the_same_elsewhere(
    rounds: list[list[tuple[Any, ...]]],
    way: Way,
    data: st.DataObject,
) -> None:
    def choose(count: int) -> int:
        return data.draw(st.integers(0, count - 1), label="backup")

    shared = SHARED_MEMORY if SHARED_MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(dir=shared, prefix="unified-memory-test-") as directory:
        asyncio.run(round_trip(Path(directory), rounds, way=way, choose=choose))


@pytest.mark.parametrize("way", [Way(), Way(sealed=True)], ids=["open", "sealed"])
async def test_what_was_cold_is_cold_elsewhere(directory: Path, way: Way) -> None:
    stores: list[tuple[Any, ...]] = [
        ("store", (name, key), value, ttl, {})
        for value in VALUES
        for name, ttl in (("acme", None), ("acme/x", 60), ("acme-corp", None))
        for key in KEYS
    ]
    steps = [*stores, ("archive", "acme"), ("archive", "acme-corp"), *stores[:2]]
    await round_trip(directory, [steps], way=way, choose=lambda _: 0)


async def test_a_clock_that_is_set_back_is_in_the_way_of_no_backup(directory: Path) -> None:
    clock = SettableClock(START)
    async with house(directory, "here", clock, Way()) as one:
        for key in KEYS:
            await one.do(("store", ("acme", key), VALUES[0], None, {}))
        made = [await back_up(one, None, START)]
        clock.advance(-3 * DAY)
        await one.do(("update", ("acme", KEYS[0]), VALUES[1], {}))
        await one.do(("retrieve", ("acme", KEYS[1])))
        made.append(await back_up(one, "latest", clock.now()))
        assert (await one.service.backups.verify(ANONYMOUS, made[1].id)).ok
    await assert_restored(directory, made[1], made[:1], made, way=Way(), now=made[1].at)
