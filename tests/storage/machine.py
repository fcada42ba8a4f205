"""A storage against a plain dict: any operations in any order, and after each both must hold the same.

`machine_of(factory).TestCase` is what pytest runs; a call of the factory gives an async context with an
opened, empty storage.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, ClassVar

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule
from msgspec import Struct, structs

from tests.storage.drafts import NOW, apply, failing, found, keys, removing, selection, store, storing
from tests.storage.parts.opened import events, replay
from unified_memory.model.clock import SECOND, SettableClock
from unified_memory.model.errors import (
    AlreadyExistsError,
    InvalidInputError,
    MemoryNotFoundError,
    NamespaceNotEmptyError,
    NamespaceNotFoundError,
    UnifiedMemoryError,
    VersionConflictError,
    VersionGoneError,
)
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import contains
from unified_memory.storage.base import Access, Storage

Factory = Callable[[], AbstractAsyncContextManager[Storage]]
Ref = tuple[str, str]

_NAMESPACES = ("acme", "acme/x", "acme/x/y", "acme-corp", "b")
_namespaces = st.sampled_from(_NAMESPACES)
refs = st.tuples(_namespaces, st.sampled_from(("k", "k/l", "ü %")))
_ttls = st.sampled_from((None, None, 1, SECOND, 5 * SECOND))


class _Kept(Struct, frozen=True):
    """What the model knows of a memory; `word` stands in no other memory that ever was."""

    id: int
    version: int
    word: str
    created_at: int
    updated_at: int
    expires_at: int | None
    accesses: int = 0


class _Former(Struct, frozen=True):
    """What the model knows of a former version."""

    id: int
    version: int
    word: str
    updated_at: int
    ended_at: int


class StorageMachine(RuleBasedStateMachine):
    """One storage, one dict, one clock."""

    factory: ClassVar[Factory]
    tickets = Bundle("tickets")

    def __init__(self) -> None:
        super().__init__()
        self.clock = SettableClock(NOW)
        self.memories: dict[Ref, _Kept] = {}
        self.namespaces: set[str] = set()
        # The last version of each key, and of each namespace that was deleted or renamed the highest in it.
        self.versions: dict[Ref, int] = {}
        self.floors: dict[str, int] = {}
        self.words: list[str] = ["w0000w"]
        self.highest_id = 0
        self.last_seq = 0
        self.runner = asyncio.Runner()
        self.context = type(self).factory()
        self.storage = self.runner.run(self.context.__aenter__())

    def teardown(self) -> None:
        try:
            assert self.run(self.storage.check(fix=False)) == []
        finally:
            self.runner.run(self.context.__aexit__(None, None, None))
            self.runner.close()

    def run(self, operation: Any) -> Any:
        return self.runner.run(operation)

    # ---- the model

    @property
    def now(self) -> int:
        return self.clock.now()

    def visible(self, ref: Ref) -> _Kept | None:
        kept = self.memories.get(ref)
        return None if kept is None or (kept.expires_at is not None and kept.expires_at <= self.now) else kept

    def seen(self, scope: str = "") -> dict[Ref, _Kept]:
        return {
            ref: kept for ref in self.memories if contains(scope, ref[0]) and (kept := self.visible(ref)) is not None
        }

    def new_word(self) -> str:
        self.words.append(f"w{len(self.words):04}w")
        return self.words[-1]

    def only_through_others(self, name: str) -> bool:
        return name not in self.namespaces and any(contains(name, one) for one in self.namespaces)

    def written(self, ref: Ref, memory: Memory, word: str) -> None:
        """Checks the version and the id of a memory that was stored, and takes it into the model."""
        before = self.visible(ref)
        if before is not None:
            assert (memory.id, memory.created_at) == (before.id, before.created_at)
            assert memory.version == before.version + 1
        else:
            assert memory.id > self.highest_id
            assert memory.created_at == self.now
            if ref in self.versions:
                assert memory.version == self.versions[ref] + 1
            elif ref[0] in self.floors:
                assert memory.version > self.floors[ref[0]]
            else:
                assert memory.version == 1
        self.highest_id = max(self.highest_id, memory.id)
        self.take(ref, memory, word, 0 if before is None else before.accesses)

    def take(self, ref: Ref, memory: Memory, word: str, accesses: int) -> None:
        instants = (memory.created_at, memory.updated_at, memory.expires_at)
        kept = _Kept(memory.id, memory.version, word, *instants, accesses)
        self.memories[ref] = kept
        self.versions[ref] = memory.version
        self.namespaces.add(ref[0])

    def leave(self, name: str) -> None:
        """Forgets a namespace that went, but for how far its versions had come."""
        gone = [ref for ref in self.versions if ref[0] == name]
        self.floors[name] = max([self.floors.get(name, 0), *(self.versions.pop(ref) for ref in gone)])
        self.namespaces.discard(name)
        self.memories = {ref: kept for ref, kept in self.memories.items() if ref[0] != name}

    def removed(self, ref: Ref) -> None:
        """Takes a memory out of the model that was deleted."""
        del self.memories[ref]

    def renamed(self, names: dict[str, str]) -> None:
        """Moves what else the model knows of renamed namespaces."""

    # ---- writing

    @rule(ref=refs, ttl=_ttls)
    def store_one(self, ref: Ref, ttl: int | None) -> None:
        expires_at = None if ttl is None else self.now + ttl
        word = self.new_word()
        memory = self.run(store(self.storage, ref[1], word, namespace=ref[0], now=self.now, expires_at=expires_at))
        self.written(ref, memory, word)

    @rule(ref=refs, off=st.sampled_from((0, 0, 1, -1)))
    def update_the_expected_version(self, ref: Ref, off: int) -> None:
        before = self.visible(ref)
        current = 0 if before is None else before.version
        expires_at = None if before is None else before.expires_at
        word = self.new_word()
        edit = storing(ref[1], word, namespace=ref[0], expected=current + off, expires_at=expires_at)
        if off:
            with pytest.raises(VersionConflictError) as refused:
                self.run(apply(self.storage, edit, now=self.now))
            assert refused.value.facts["current_version"] == current
        else:
            (outcome,) = self.run(apply(self.storage, edit, now=self.now))
            assert outcome.created is (before is None)
            self.written(ref, outcome.memory, word)

    @rule(ref=refs)
    def remove_one(self, ref: Ref) -> None:
        before = self.visible(ref)
        (outcome,) = self.run(apply(self.storage, removing(ref[1], namespace=ref[0]), now=self.now))
        assert outcome.removed is (before is not None)
        if before is not None:
            assert (outcome.memory.id, outcome.memory.version) == (before.id, before.version)
            self.removed(ref)

    @rule(first=refs, second=refs, fails=st.booleans())
    def store_and_remove_in_one_unit(self, first: Ref, second: Ref, fails: bool) -> None:  # noqa: FBT001 - drawn
        word = self.new_word()
        edits = [storing(first[1], word, namespace=first[0]), removing(second[1], namespace=second[0])]
        if fails:
            with pytest.raises(MemoryNotFoundError):
                self.run(apply(self.storage, *edits, failing("x"), now=self.now))
            return
        stored, removed = self.run(apply(self.storage, *edits, now=self.now))
        self.written(first, stored.memory, word)
        assert removed.removed is (self.visible(second) is not None)
        if removed.removed:
            self.removed(second)

    @rule(old=refs, new=refs, off=st.sampled_from((None, 0, 1)))
    def move_one(self, old: Ref, new: Ref, off: int | None) -> None:
        before = self.visible(old)
        expected = None if off is None or before is None else before.version + off
        move = self.storage.move(old, new, self.now, expected_version=expected)
        refusal: type[UnifiedMemoryError] | None = None
        if before is None:
            refusal = MemoryNotFoundError
        elif expected not in {None, before.version}:
            refusal = VersionConflictError if self.visible(new) is None else UnifiedMemoryError
        elif self.visible(new) is not None:
            refusal = AlreadyExistsError
        if refusal is not None:
            with pytest.raises(refusal):
                self.run(move)
            return
        assert before is not None
        memory = self.run(move)
        self.moved(old, new, before, memory)

    def moved(self, source: Ref, target: Ref, before: _Kept, memory: Memory) -> None:
        assert (memory.id, memory.created_at, memory.expires_at) == (
            before.id,
            before.created_at,
            before.expires_at,
        )
        past = max(self.versions.get(target, 0), self.floors.get(target[0], 0))
        assert memory.version > max(before.version, past)
        assert memory.version == before.version + 1 or past > before.version
        del self.memories[source]
        self.take(target, memory, before.word, before.accesses)

    @rule(ref=refs, number=st.integers(1, 3))
    def touch_one(self, ref: Ref, number: int) -> None:
        kept = self.visible(ref)
        if kept is not None:
            self.run(self.storage.touch([Access(kept.id, number, self.now)]))
            self.memories[ref] = structs.replace(kept, accesses=kept.accesses + number)

    # ---- time

    @rule(micros=st.sampled_from((1, SECOND - 1, SECOND, 5 * SECOND)))
    def time_passes(self, micros: int) -> None:
        self.clock.instant += micros

    @rule(limit=st.integers(1, 5))
    def clean_up(self, limit: int) -> None:
        before = self.run(self.storage.stats(("",), self.now, top=1)).expired
        removed = sum(number for _, number in self.run(self.storage.expire(self.now, limit)))
        assert removed == min(limit, before)
        assert self.run(self.storage.stats(("",), self.now, top=1)).expired == before - removed

    # ---- namespaces

    @rule(name=_namespaces, recursive=st.booleans(), target=tickets)
    def delete_a_namespace(self, name: str, recursive: bool) -> Any:  # noqa: FBT001 - drawn
        if self.only_through_others(name):
            return multiple()
        deletion = self.storage.delete_namespace(name, self.now, recursive=recursive)
        below = [one for one in self.namespaces if contains(name, one)]
        if not below:
            with pytest.raises(NamespaceNotFoundError):
                self.run(deletion)
            return multiple()
        if not recursive and (len(below) > 1 or self.seen(name)):
            with pytest.raises(NamespaceNotEmptyError):
                self.run(deletion)
            return multiple()
        tickets = self.run(deletion)
        for one in below:
            self.leave(one)
        return multiple(*tickets)

    @rule(ticket=consumes(tickets), limit=st.integers(1, 3))
    def purge_a_namespace(self, ticket: int, limit: int) -> None:
        while removed := self.run(self.storage.purge(ticket, self.now, limit)):
            assert removed <= limit
        assert ticket not in self.run(self.storage.dead_namespaces())

    @rule(old=_namespaces, new=_namespaces)
    def rename_a_namespace(self, old: str, new: str) -> None:
        if self.only_through_others(old):
            return
        rename = self.storage.rename_namespace(old, new, self.now)
        if contains(old, new) or contains(new, old):
            with pytest.raises(InvalidInputError):
                self.run(rename)
            return
        if old not in self.namespaces:
            with pytest.raises((NamespaceNotFoundError, AlreadyExistsError)):
                self.run(rename)
            return
        if any(contains(new, one) for one in self.namespaces):
            with pytest.raises(AlreadyExistsError):
                self.run(rename)
            return
        moving = self.seen(old)
        assert self.run(rename) == len(moving)
        names = {one: new + one[len(old) :] for one in self.namespaces if contains(old, one)}
        for ref, kept in moving.items():
            there = (names[ref[0]], ref[1])
            self.moved(ref, there, kept, self.run(self.storage.get(*there, self.now)))
        self.renamed(names)
        for before, after in names.items():
            self.leave(before)
            self.namespaces.add(after)
            # Left open: whether the past of keys that were removed goes along.
            self.floors.setdefault(after, 0)

    # ---- reading

    @rule(ref=refs)
    def get_one(self, ref: Ref) -> None:
        kept, memory = self.visible(ref), self.run(self.storage.get(*ref, self.now))
        assert (memory is None) is (kept is None)
        if kept is not None:
            assert (memory.id, memory.version, memory.access_count) == (kept.id, kept.version, kept.accesses)
            assert (memory.parsed(), memory.expires_at) == (kept.word, kept.expires_at)
            assert self.run(self.storage.get_by_id([kept.id], self.now)) == [memory]

    @rule(scope=_namespaces | st.just(""), descending=st.booleans())
    def list_and_count(self, scope: str, descending: bool) -> None:  # noqa: FBT001 - drawn
        expected = [ref[1] for ref, _ in sorted(self.seen(scope).items(), key=lambda item: (item[0][1], item[1].id))]
        if descending:
            expected.reverse()
        assert self.run(keys(self.storage, scope, now=self.now, order="-key" if descending else "key")) == expected
        assert self.run(self.storage.count(selection(scope), self.now)) == len(expected)

    @rule(data=st.data(), scope=_namespaces | st.just(""), inside=st.booleans())
    def search_a_word(self, data: st.DataObject, scope: str, inside: bool) -> None:  # noqa: FBT001 - drawn
        word = data.draw(st.sampled_from(self.words), label="word")
        expected = [ref[1] for ref, kept in self.seen(scope).items() if kept.word == word]
        query = word[1:] if inside else word
        assert self.run(found(self.storage, query, scope, now=self.now)) == expected

    @rule()
    def list_namespaces(self) -> None:
        page = self.run(self.storage.list_namespaces(("",), self.now, depth=None, limit=100, after=None))
        assert [one.name for one in page.items] == sorted(self.namespaces)
        for one in page.items:
            assert one.memories == sum(1 for ref in self.seen() if ref[0] == one.name)
            assert one.total_memories == len(self.seen(one.name))

    @invariant()
    def both_hold_the_same(self) -> None:
        page = self.run(self.storage.select(selection(), self.now))
        held = {(memory.namespace, memory.key): (memory.id, memory.version, memory.parsed()) for memory in page.items}
        assert held == {ref: (kept.id, kept.version, kept.word) for ref, kept in self.seen().items()}

    @invariant()
    def changes_are_numbered_upwards(self) -> None:
        seq = self.run(self.storage.stats(("",), self.now, top=1)).last_seq
        assert seq >= self.last_seq
        self.last_seq = seq


class PastMachine(StorageMachine):
    """Keeps a log of its own too: the former versions of each key, and what followed the feed holds."""

    def __init__(self) -> None:
        super().__init__()
        self.past: dict[Ref, list[_Former]] = {}
        self.followed = 0
        self.looked = self.now
        self.held: dict[Ref, int] = {}
        self.steps = 0

    # ---- the model

    def rows(self, ref: Ref) -> list[_Former]:
        """The former versions of the key that are to be seen, oldest first."""
        passed = {kept.id for one, kept in self.memories.items() if self.visible(one) is None}
        return [row for row in self.past.get(ref, []) if row.id not in passed]

    def retire(self, ref: Ref, kept: _Kept) -> None:
        former = _Former(kept.id, kept.version, kept.word, kept.updated_at, self.now)
        self.past.setdefault(ref, []).append(former)

    def forget(self, number: int) -> None:
        """Leaves nothing of a memory that has expired."""
        self.past = {ref: [row for row in rows if row.id != number] for ref, rows in self.past.items()}

    def end(self, ref: Ref) -> None:
        """What was under a key before something else is, or nothing."""
        kept = self.memories.get(ref)
        if kept is not None and self.visible(ref) is None:
            self.forget(kept.id)
        elif kept is not None:
            self.retire(ref, kept)

    def carry(self, source: Ref, target: Ref) -> None:
        if not self.past.get(target):
            self.past[target] = self.past.pop(source, [])

    def take(self, ref: Ref, memory: Memory, word: str, accesses: int) -> None:
        self.end(ref)
        super().take(ref, memory, word, accesses)

    def removed(self, ref: Ref) -> None:
        self.end(ref)
        super().removed(ref)

    def moved(self, source: Ref, target: Ref, before: _Kept, memory: Memory) -> None:
        self.end(source)
        super().moved(source, target, before, memory)
        if source[0] == target[0]:
            self.carry(source, target)

    def renamed(self, names: dict[str, str]) -> None:
        for ref, kept in self.memories.items():
            if ref[0] in names and self.visible(ref) is None:
                self.forget(kept.id)
        for ref in [ref for ref in self.past if ref[0] in names]:
            self.carry(ref, (names[ref[0]], ref[1]))

    def leave(self, name: str) -> None:
        for ref, kept in self.memories.items():
            if ref[0] == name and self.visible(ref) is None:
                self.forget(kept.id)
        self.past = {ref: rows for ref, rows in self.past.items() if ref[0] != name}
        super().leave(name)

    # ---- what chance alone would seldom do in this order

    @rule(old=refs, new=refs)
    def move_to_a_key_with_a_past(self, old: Ref, new: Ref) -> None:
        for ref in (old, old, new):
            self.store_one(ref, None)
        self.remove_one(new)
        self.move_one(old, new, None)

    @rule(ref=refs, again=st.booleans())
    def let_one_with_a_past_expire(self, ref: Ref, again: bool) -> None:  # noqa: FBT001 - drawn
        self.store_one(ref, None)
        self.store_one(ref, 1)
        self.time_passes(1)
        if again:
            self.store_one(ref, None)
        else:
            self.clean_up(100)

    # ---- what is asked

    @rule(ref=refs, which=st.sampled_from(("former", "current", "all")))
    def redact(self, ref: Ref, which: str) -> None:
        """Former versions lose what they hold; the model takes them as rows without a word."""
        kept, rows = self.visible(ref), self.rows(ref)
        if which == "former" and rows:
            self.run(self.storage.redact(*ref, rows[0].version, self.now))
            self.empty(ref, {rows[0].version})
        elif which == "current" and kept is not None:
            self.run(self.storage.redact(*ref, kept.version, self.now))
            self.removed(ref)
            self.empty(ref, {kept.version})
        elif which == "all" and (kept is not None or rows):
            self.run(self.storage.redact(*ref, None, self.now))
            if kept is not None:
                self.removed(ref)
            self.empty(ref, {row.version for row in self.rows(ref)})

    def empty(self, ref: Ref, versions: set[int]) -> None:
        self.past[ref] = [structs.replace(row, word="") if row.version in versions else row for row in self.past[ref]]

    @invariant()
    def whoever_follows_the_feed_holds_the_same(self) -> None:
        told = self.run(events(self.storage, self.followed, limit=7))
        assert all(self.looked <= event.at <= self.now for event in told)
        self.looked = self.now
        self.followed = told[-1].seq if told else self.followed
        self.held = replay(told, self.held)
        seen = {ref: kept.version for ref, kept in self.seen().items()}
        assert {ref: version for ref, version in self.held.items() if ref in seen} == seen
        stats = self.run(self.storage.stats(("",), self.now, top=1))
        assert len(self.held) == stats.memories + stats.expired

    @invariant()
    def the_past_is_as_it_was(self) -> None:
        everything = [*self.past, *self.memories]
        for ref in everything:
            rows = self.run(self.storage.past(*ref, self.now, before=None, limit=1000))
            held = [(row.memory.id, row.memory.version, row.memory.updated_at, row.ended_at, row.kept) for row in rows]
            assert held[::-1] == [
                (row.id, row.version, row.updated_at, row.ended_at, bool(row.word)) for row in self.rows(ref)
            ]
        # One key in turn is looked at more closely.
        self.steps += 1
        if everything:
            self.look_back(everything[self.steps % len(everything)])

    def look_back(self, ref: Ref) -> None:
        """Each former version by its number, and by each instant at which it was visible first or last."""
        rows, kept = self.rows(ref), self.visible(ref)
        for row in rows:
            former = self.run(self.storage.past_version(*ref, row.version, self.now))
            assert former is not None
            assert (former.memory.parsed() if former.kept else "") == row.word
            for instant in (row.updated_at, row.ended_at - 1):
                if row.updated_at <= instant < row.ended_at:
                    assert self.seen_at(ref, instant) == (row.version if row.word else -1)
        if kept is not None:
            assert self.seen_at(ref, self.now) == kept.version
            assert self.seen_at(ref, kept.updated_at) == kept.version
        elif not rows:
            assert self.seen_at(ref, self.now) is None

    def seen_at(self, ref: Ref, instant: int) -> int | None:
        """The version that was visible, -1 where its content is gone."""
        try:
            memory = self.run(self.storage.as_of(*ref, instant, self.now))
        except VersionGoneError:
            return -1
        return None if memory is None else int(memory.version)


def machine_of(factory: Factory) -> type[PastMachine]:
    """The machine on the storages that the factory gives, a new one for each run."""
    return type("PastMachine", (PastMachine,), {"factory": staticmethod(factory)})
