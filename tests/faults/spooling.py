"""A client that stores all the time, with a spool: `python -m tests.faults.spooling URL SPOOL FIRST`.

Each task stores numbers that only grow, from FIRST on, under a key of its own. What was acknowledged is told on standard output
as `KEY NUMBER STATUS`. As standard input ends it stores no more, sends what waits, and says `done`.
"""

import asyncio
import sys
from pathlib import Path

from unified_memory.client import ServiceUnavailableError, Spool, UnifiedMemoryClient
from unified_memory.model.errors import InProgressError

TASKS = 4
NAMESPACE = "faults"
PAUSE_SECONDS = 0.02


async def store(client: UnifiedMemoryClient, key: str, number: int, over: asyncio.Event) -> None:
    while not over.is_set():
        kept = await client.store_with_fallback(key, number, NAMESPACE)
        say(f"{key} {number} {kept.get('status', 'stored')}")
        number += 1
        await asyncio.sleep(PAUSE_SECONDS)


def say(line: str) -> None:
    """One write to the pipe: what was said is there, whatever happens to this process."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def main(url: str, path: str, first: int) -> None:
    over = asyncio.Event()
    with Spool(Path(path), max_entries=100_000) as spool:
        async with UnifiedMemoryClient(url, spool=spool, timeout=10, replay_every=0.1) as client:
            async with asyncio.TaskGroup() as group:
                for number in range(TASKS):
                    group.create_task(store(client, f"k{number}", first, over))
                await asyncio.to_thread(sys.stdin.read)
                over.set()
            while spool.waits():
                try:
                    await client.replay()
                except (ServiceUnavailableError, InProgressError):
                    await asyncio.sleep(PAUSE_SECONDS)
        say(f"done {spool.totals().failed}")


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
