"""The machine on hot, warm and cold: one node or two, one database, one Redis that stops, starts empty and starts with old data.

Every operation is answered before the next one begins, on whichever node: so each must show what was acknowledged last.
"""

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import invariant, rule, run_state_machine_as_test

from tests.storage.drafts import NOW, store
from tests.storage.hot.servers import Server
from tests.storage.machine import Ref
from tests.storage.test_machine_tiered import TieredMachine
from tests.storage.test_tiered import node
from unified_memory.model.clock import SECOND, SettableClock
from unified_memory.model.session import WithMemories
from unified_memory.storage.tiered import TieredStorage

MAX_BYTES = 1_000_000


class Cluster:
    """Nodes on one directory and one server."""

    def __init__(self, directory: Path, server: Server, clock: SettableClock, count: int) -> None:
        self.directory = directory
        self.server = server
        self.clock = clock
        self.nodes = [self.new_node() for _ in range(count)]

    def new_node(self) -> TieredStorage:
        return node(self.directory, self.clock, self.server.url, max_bytes=MAX_BYTES)

    @property
    def dump(self) -> Path:
        return self.server.directory / "dump.rdb"


def clusters(count: int) -> Callable[[], AbstractAsyncContextManager[Cluster]]:
    """A factory of clusters of so many nodes."""

    @asynccontextmanager
    async def opened() -> AsyncIterator[Cluster]:
        with TemporaryDirectory() as directory:
            server = Server(Path(directory) / "redis")
            await server.start()
            cluster = Cluster(Path(directory), server, SettableClock(NOW), count)
            for one in cluster.nodes:
                await one.open()
            try:
                yield cluster
            finally:
                for one in cluster.nodes:
                    await one.close()
                await server.kill()

    return opened


class NodesMachine(TieredMachine):
    """`storage` is the node whose turn it is."""

    def __init__(self) -> None:
        super().__init__()
        self.cluster: Cluster = self.storage
        self.clock = self.cluster.clock
        self.storage = self.cluster.nodes[0]
        self.up, self.kept = True, False
        self.hits = 0
        self._since = time.monotonic()

    def teardown(self) -> None:
        self.hits += sum(one.hot_state().counts.hits for one in self.cluster.nodes)
        type(self).told.append(self.hits)
        super().teardown()

    told: list[int] = []  # noqa: RUF012 - of all runs of the class

    @rule(number=st.integers(0, 1))
    def turn(self, number: int) -> None:
        self.storage = self.cluster.nodes[number % len(self.cluster.nodes)]

    @rule()
    def restart(self) -> None:
        at = self.cluster.nodes.index(self.storage)
        self.hits += self.storage.hot_state().counts.hits
        self.run(self.storage.close())
        self.storage = self.cluster.nodes[at] = self.cluster.new_node()
        self.run(self.storage.open())

    @rule(name=st.sampled_from(("acme", "acme/x", "b")), how=st.sampled_from(WithMemories))
    def store_in_a_session_and_end_it(self, name: str, how: WithMemories) -> None:
        """Its memories are written through; ending it may take them all at once."""
        ref, word = (name, "k"), self.new_word()
        memory = self.run(store(self.storage, "k", word, namespace=name, now=self.now, session_id="s"))
        self.written(ref, memory, word)
        self.everybody_sees_it()
        before = self.seen(name)
        mine = {one: kept for one, kept in before.items() if one == ref}
        others = [one for one in before if one[0] == name and one != ref]
        session, affected = self.run(self.storage.end_session(name, "s", how, self.now))
        assert session.ended_at is not None
        if how is WithMemories.KEEP:
            assert affected == 0
            return
        assert affected >= len(mine)
        for one in (ref, *others):
            if self.run(self.storage.get(*one, self.now)) is None:
                kept = self.memories.pop(one, None)
                if kept is not None and how is WithMemories.EXPIRE:
                    # What was expired has a version more.
                    self.versions[one] = kept.version + 1

    # ---- Redis
    @rule(asked=st.booleans())
    def stop_redis(self, asked: bool) -> None:  # noqa: FBT001 - drawn
        if self.up:
            if asked:
                self.run(self.cluster.server.do("SAVE"))
                self.kept = True
            self.run(self.cluster.server.kill())
            self.up = False

    @rule()
    def save_redis(self) -> None:
        if self.up:
            self.run(self.cluster.server.do("SAVE"))
            shutil.copy(self.cluster.dump, self.cluster.dump.with_suffix(".old"))
            self.kept = True

    @rule(old=st.booleans())
    def start_redis(self, old: bool) -> None:  # noqa: FBT001 - drawn
        if not self.up:
            saved = self.cluster.dump.with_suffix(".old")
            if old and saved.exists():
                shutil.copy(saved, self.cluster.dump)
            elif not old:
                self.cluster.dump.unlink(missing_ok=True)
            self.run(self.cluster.server.start())
            self.up = True

    @rule()
    def wait_a_little(self) -> None:
        self.run(asyncio.sleep(0.12))

    @invariant()
    def time_goes_on(self) -> None:
        """As everywhere, so that a mute ends some time."""
        now = time.monotonic()
        self.clock.instant += round((now - self._since) * SECOND)
        self._since = now

    @invariant()
    def everybody_sees_it(self) -> None:
        for ref in (*self.memories, ("acme", "k"), ("b", "k/l")):
            self.everybody_sees(ref)

    def everybody_sees(self, ref: Ref) -> None:
        kept = self.visible(ref)
        for one in self.cluster.nodes:
            # The second look may be at the copy that the first one left.
            for _ in range(2):
                memory: Any = self.run(one.get(*ref, self.now))
                assert (
                    None if memory is None else (memory.id, memory.version, memory.parsed(), memory.expires_at)
                ) == (None if kept is None else (kept.id, kept.version, kept.word, kept.expires_at))


@pytest.mark.parametrize("count", [1, 2])
def test_whatever_happens_every_node_shows_what_was_acknowledged(count: int) -> None:
    told: list[int] = []
    machine = type("NodesMachine", (NodesMachine,), {"factory": staticmethod(clusters(count)), "told": told})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=max(5, settings().max_examples // 50),
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    # The copies were looked at.
    assert sum(told) > 0
