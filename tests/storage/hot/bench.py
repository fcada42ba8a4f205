"""What the nodes of a test share, and what is waited for."""

import asyncio
from collections.abc import Awaitable, Callable

from tests.storage.hot.keeper import MemoryKeeper, Rows, Warmed
from unified_memory.model.clock import SettableClock
from unified_memory.storage.redis import RedisHot

MAX_BYTES = 16_000_000
PATIENCE = 30.0


class Bench:
    """One warm tier, one keeper, one clock."""

    def __init__(self) -> None:
        self.keeper = MemoryKeeper()
        self.rows = Rows()
        self.clock = SettableClock()
        self.nodes: list[RedisHot] = []

    async def node(self, url: str, *, max_bytes: int = MAX_BYTES, ttl: float = 60.0, reads: bool = True) -> Warmed:
        """A node that reaches the server by that URL."""
        hot = RedisHot(url, self.keeper, clock=self.clock, max_bytes=max_bytes, ttl=ttl, reads=reads)
        self.nodes.append(hot)
        await hot.open()
        return Warmed(hot, self.rows, self.clock)

    async def close(self) -> None:
        for hot in self.nodes:
            await hot.close()


async def until(holds: Callable[[], bool | Awaitable[bool]]) -> None:
    """Returns once that holds, which it does within a bound."""
    clock = asyncio.get_running_loop().time
    # Not asyncio.timeout: clients of the redis library may swallow what ends a task.
    end = clock() + PATIENCE
    while clock() < end:
        found = holds()
        if found is True or (not isinstance(found, bool) and await found):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("It never came to hold")


async def recovered(*nodes: Warmed) -> None:
    """Returns once all the nodes use copies again."""
    for node in nodes:

        async def trusted(node: Warmed = node) -> bool:
            await node.hot.open()
            return node.hot.state().trusted

        await until(trusted)
