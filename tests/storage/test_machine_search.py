"""The index of SQLite against the plainest search: whatever is written, moved, archived, forgotten or said in another language,
both find the same memories by a word, and after each step `check` finds nothing.
"""

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.storage.drafts import NOW, apply, removing, storing
from tests.storage.parts.asked import ask
from tests.storage.test_tiered import LAST, tiered
from unified_memory.model.clock import SECOND, SettableClock
from unified_memory.model.errors import UnifiedMemoryError
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.session import WithMemories
from unified_memory.storage.inmemory import InMemoryStorage
from unified_memory.storage.tiered import TieredStorage

# Forms of the same words in some language or other.
WORDS = (
    "Häuser",
    "Haus",
    "deployed",
    "deploying",
    "серверы",
    "сервер",
    "部署",
    "fichiers",
    "fichier",
    "runs",
    "parseQuery",
)
QUERIES = (*WORDS, "query", "houses", "May", "2023", "lynx", "ocelot")
_namespaces = st.sampled_from(("a", "a/x", "a/x/y", "b"))
_keys = st.sampled_from(("ocelot", "lynx", "k"))
_sessions = st.sampled_from((None, "s", "s", "t"))
_texts = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
_languages = st.sampled_from(("german", "french", "russian", "english", "none", None))
_ttls = st.sampled_from((None, None, SECOND, 5 * SECOND))
_days = st.sampled_from(({}, {}, {"occurred_at": "2023-05-08T10:00:00Z"}, {"author": "lynx"}))


class SearchMachine(RuleBasedStateMachine):
    """Two storages that are told the same."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = SettableClock(NOW)
        self.runner = asyncio.Runner()
        self.directory = TemporaryDirectory()
        self.index = tiered(Path(self.directory.name))
        self.plain = InMemoryStorage()
        self.tickets: tuple[list[int], list[int]] = ([], [])
        self.waiting = False
        self.run(self.index.open())

    def teardown(self) -> None:
        self.run(self.index.close())
        self.runner.close()
        self.directory.cleanup()

    def run(self, operation: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(operation)

    def both(self, *operations: Coroutine[Any, Any, Any]) -> list[Any]:
        """The results of both; where one refuses the other must, and None is returned for both."""
        results: list[Any] = []
        for operation in operations:
            try:
                results.append(self.run(operation))
            except UnifiedMemoryError as error:
                results.append(type(error))
        refused = [isinstance(result, type) for result in results]
        assert refused[0] == refused[1], results
        return [None, None] if refused[0] else results

    @rule(name=_namespaces, key=_keys, text=_texts, session=_sessions, ttl=_ttls, more=_days)
    def store(self, name: str, key: str, text: str, session: str | None, ttl: int | None, more: dict[str, Any]) -> None:
        expires_at = None if ttl is None else self.clock.now() + ttl
        for storage in (self.index, self.plain):
            edit = storing(key, text, namespace=name, session_id=session, expires_at=expires_at, **more)
            self.run(apply(storage, edit, now=self.clock.now()))

    @rule(name=_namespaces, key=_keys)
    def remove(self, name: str, key: str) -> None:
        for storage in (self.index, self.plain):
            self.run(apply(storage, removing(key, namespace=name), now=self.clock.now()))

    @rule(old=_namespaces, new=_namespaces, key=_keys, other=_keys)
    def move(self, old: str, new: str, key: str, other: str) -> None:
        now = self.clock.now()
        self.both(*(storage.move((old, key), (new, other), now) for storage in (self.index, self.plain)))

    @rule(name=_namespaces, language=_languages)
    def speak(self, name: str, language: str | None) -> None:
        config = NamespaceConfig() if language is None else NamespaceConfig(language=language)
        now = self.clock.now()
        results = self.both(
            *(storage.put_namespace(name, config, now, create=False) for storage in (self.index, self.plain))
        )
        self.waiting |= results[0] is not None

    @rule(limit=st.integers(1, 4))
    def refresh(self, limit: int) -> None:
        self.waiting = self.run(self.index.refresh_index(limit)) > 0

    @rule(old=_namespaces, new=_namespaces)
    def rename(self, old: str, new: str) -> None:
        now = self.clock.now()
        self.both(*(storage.rename_namespace(old, new, now) for storage in (self.index, self.plain)))

    @rule(name=_namespaces)
    def delete(self, name: str) -> None:
        now = self.clock.now()
        gone = self.both(*(storage.delete_namespace(name, now, recursive=True) for storage in (self.index, self.plain)))
        for kept, tickets in zip(self.tickets, gone, strict=True):
            kept.extend(tickets or ())

    @rule(limit=st.integers(1, 3))
    def purge(self, limit: int) -> None:
        for storage, tickets in zip((self.index, self.plain), self.tickets, strict=True):
            while tickets:
                if not self.run(storage.purge(tickets[-1], self.clock.now(), limit)):
                    tickets.pop()

    @rule(name=_namespaces, memories=st.sampled_from(WithMemories))
    def end_session(self, name: str, memories: WithMemories) -> None:
        now = self.clock.now()
        self.both(*(storage.end_session(name, "s", memories, now) for storage in (self.index, self.plain)))

    @rule(micros=st.sampled_from((1, SECOND, 5 * SECOND)))
    def time_passes(self, micros: int) -> None:
        self.clock.instant += micros

    @rule()
    def clean_up(self) -> None:
        for storage in (self.index, self.plain):
            self.run(storage.expire(self.clock.now(), 100))

    @rule(number=st.integers(1, 4))
    def demote(self, number: int) -> None:
        now = self.clock.now()
        chosen = self.run(self.index.demotable(("",), now, recursive=True, used_before=LAST, limit=number))
        self.run(self.index.demote(chosen, now))

    @rule(number=st.integers(1, 4))
    def promote(self, number: int) -> None:
        now = self.clock.now()
        ids = self.run(self.index.archived_ids(("",), now, recursive=True, after_id=0, limit=number))
        self.run(self.index.promote(ids, now))

    @rule()
    def shrink(self) -> None:
        self.run(self.index.shrink())

    def found(self, storage: TieredStorage | InMemoryStorage, query: str, scope: str) -> set[tuple[str, str]]:
        """What holds a word by itself, in whatever form."""
        result = self.run(ask(storage, query, scope, now=self.clock.now()))
        return {
            (hit.memory.namespace, hit.memory.key)
            for hit in result.hits
            if hit.score > 0 and not result.corrected and hit.matched != ["context"]
        }

    @rule(scope=_namespaces | st.just(""))
    def search_each_word(self, scope: str) -> None:
        for query in QUERIES:
            indexed, plain = self.found(self.index, query, scope), self.found(self.plain, query, scope)
            if not self.waiting:
                assert indexed == plain, query
                continue
            # What waits is found by its words as they stand there, and by the forms of its former language.
            for ref in indexed | plain:
                memory = self.run(self.plain.get(*ref, self.clock.now()))
                assert memory is not None, query
                assert ref in indexed or query not in memory.parsed().split(), query

    @invariant()
    def nothing_disagrees(self) -> None:
        assert self.run(self.index.check(fix=False)) == []
        assert self.run(self.plain.check(fix=False)) == []


TestSearchMachine = SearchMachine.TestCase
TestSearchMachine.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
