"""Two nodes and a server, of which everything may happen in any order: no copy is older than what was acknowledged."""

import asyncio
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from msgspec import Struct

from tests.storage.hot.bench import Bench
from tests.storage.hot.keeper import Warmed
from tests.storage.hot.servers import Proxy, Server
from unified_memory.model.memory import Memory
from unified_memory.storage.hot import Pledge, Ticket

KEYS = st.sampled_from(["a", "b"])
NODES = st.sampled_from([0, 1])
PICKS = st.integers(0, 7)


class _Write(Struct):
    """A write that is under way. `version`: what its commit made, None before it. `memory`: None for a removal."""

    node: Warmed
    key: str
    pledge: Pledge
    version: int | None = None
    memory: Memory | None = None


class HotMachine(RuleBasedStateMachine):
    """One node reaches the server through a proxy, which may refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp())
        self.acknowledged: dict[str, int] = {}
        self.writes: list[_Write] = []
        self.tickets: list[tuple[Warmed, Ticket, Memory | None]] = []
        self.runner.run(self._begin())

    async def _begin(self) -> None:
        self.server = Server(self.directory / "server")
        await self.server.start()
        self.proxy = Proxy(self.server.port)
        await self.proxy.start()
        self.bench = Bench()
        self.nodes = [await self.bench.node(self.server.url), await self.bench.node(self.proxy.url)]

    def teardown(self) -> None:
        self.runner.run(self._end())
        self.runner.close()
        shutil.rmtree(self.directory)

    async def _end(self) -> None:
        await self.bench.close()
        await self.proxy.close()
        await self.server.kill()

    async def _look(self, node: Warmed, key: str) -> None:
        """Looks, and keeps the ticket that it is given with what stands in the warm tier at some instant after."""
        acknowledged = self.acknowledged.get(key, 0)
        found = await node.hot.look("n", key, self.bench.clock.now())
        if isinstance(found, Memory):
            assert found.version >= acknowledged, (found, acknowledged)
            assert found.key == key
        elif isinstance(found, Ticket):
            self.tickets.append((node, found, None))

    @rule(node=NODES, key=KEYS, renewed=st.booleans())
    def look(self, node: int, key: str, *, renewed: bool) -> None:
        async def work() -> None:
            if renewed:
                await self.nodes[node].hot.open()
            await self._look(self.nodes[node], key)

        self.runner.run(work())

    # Whether there is a ticket hangs on the time that has passed, so nothing that is drawn may hang on it.
    @rule(pick=PICKS)
    def read_warm(self, pick: int) -> None:
        if not self.tickets:
            return
        at = pick % len(self.tickets)
        node, ticket, memory = self.tickets[at]
        if memory is None and (ticket.namespace, ticket.key) in node.rows.memories:
            self.tickets[at] = (node, ticket, node.rows.get((ticket.namespace, ticket.key)))

    @rule(pick=PICKS)
    def fill(self, pick: int) -> None:
        read = [(node, ticket, memory) for node, ticket, memory in self.tickets if memory is not None]
        if read:
            node, ticket, memory = read[pick % len(read)]
            self.runner.run(node.hot.fill([(ticket, memory)], self.bench.clock.now()))

    @rule(node=NODES, key=KEYS)
    def read_through(self, node: int, key: str) -> None:
        async def work() -> None:
            await self.nodes[node].hot.open()
            await self.nodes[node].read(key)
            await self._look(self.nodes[node], key)

        self.runner.run(work())

    @rule(node=NODES, key=KEYS)
    def begin(self, node: int, key: str) -> None:
        pledge = self.runner.run(self.nodes[node].begin(key))
        self.writes.append(_Write(self.nodes[node], key, pledge))

    @precondition(lambda self: any(write.version is None for write in self.writes))
    @rule(data=st.data(), removes=st.booleans())
    def commit(self, data: st.DataObject, *, removes: bool) -> None:
        write = data.draw(st.sampled_from([write for write in self.writes if write.version is None]))
        rows = self.bench.rows
        if removes and ("n", write.key) in rows.memories:
            rows.remove(write.key)
        else:
            write.memory = rows.put(write.key)
        write.version = rows.versions["n", write.key]

    @precondition(lambda self: any(write.version is not None for write in self.writes))
    @rule(data=st.data(), reads=st.booleans())
    def settle(self, data: st.DataObject, *, reads: bool) -> None:
        write = data.draw(st.sampled_from([write for write in self.writes if write.version is not None]))
        self.writes.remove(write)

        async def work() -> None:
            memories = [] if write.memory is None else [write.memory]
            settling = write.node.settle(write.pledge, *memories)
            looks = [self._look(node, write.key) for node in self.nodes if reads]
            await asyncio.gather(settling, *looks)

        self.runner.run(work())
        assert write.version is not None
        self.acknowledged[write.key] = max(self.acknowledged.get(write.key, 0), write.version)
        # Whoever still holds a lease must not be given what was there before.
        for node in self.nodes:
            self.runner.run(self._look(node, write.key))

    @precondition(lambda self: self.writes)
    @rule(data=st.data())
    def fail_or_be_killed(self, data: st.DataObject) -> None:
        self.writes.remove(data.draw(st.sampled_from(self.writes)))

    @rule()
    def end_the_era_by_a_commit(self) -> None:
        self.bench.keeper.end_by_commit(f"era {self.bench.keeper.changes}")
        self.runner.run(self.nodes[0].hot.outlive(self.bench.clock.now()))

    @rule()
    def time_passes(self) -> None:
        self.bench.clock.advance(11)

    @rule()
    def save(self) -> None:
        self.runner.run(self.server.do("SAVE"))

    @rule(old_data=st.booleans())
    def restart(self, *, old_data: bool) -> None:
        async def work() -> None:
            await self.server.kill()
            if not old_data:
                (self.server.directory / "dump.rdb").unlink(missing_ok=True)
            await self.server.start()

        self.runner.run(work())

    @rule(key=st.binary(min_size=1, max_size=1))
    def lose_a_key(self, key: bytes) -> None:
        async def work() -> None:
            found = sorted(
                [*await self.server.keys(b"c"), *await self.server.keys(b"t"), *await self.server.keys(b"m")]
            )
            if found:
                await self.server.do("DEL", found[key[0] % len(found)])

        self.runner.run(work())

    @rule(refuses=st.booleans())
    def cut(self, *, refuses: bool) -> None:
        async def work() -> None:
            self.proxy.refuses = refuses
            self.proxy.cut()
            await asyncio.sleep(0)

        self.runner.run(work())

    @rule()
    def wait_a_moment(self) -> None:
        """Long enough for a probe."""
        self.runner.run(asyncio.sleep(0.12))


def _run(examples: int, steps: int) -> None:
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(HotMachine, settings=chosen)


def test_no_copy_is_older_than_what_was_acknowledged() -> None:
    _run(3, 20)


@pytest.mark.slow
def test_no_copy_is_older_than_what_was_acknowledged_in_longer_runs() -> None:
    _run(10, 50)


@pytest.mark.nightly
def test_no_copy_is_older_than_what_was_acknowledged_in_many_runs() -> None:
    _run(150, 60)
