"""A process that returns to the older services, to be killed: `python -m tests.faults.returning DIRECTORY STEP [COUNT [CALL]]`.

STEP is `switch`, `pass`, `rollback` or `finish`. With a count it kills itself when it is about to make that call (by default to
note what was written into the older services) for that time.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from unified_memory.bootstrap import build
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service import returning
from unified_memory.service.service import Service
from unified_memory.settings import load
from unified_memory.sources.ledger import Ledger


async def go(directory: Path, step: str) -> None:
    """Does it; says so when it begins."""
    service = build(load({}, data_dir=directory))
    await service.open()
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    await _step(service, step)
    await service.close()


async def _step(service: Service, step: str) -> None:
    migration = service.migration
    match step:
        case "switch":
            await migration.switch(ANONYMOUS)
        case "pass":
            await migration.return_pass()
        case "rollback":
            await migration.rollback(ANONYMOUS)
        case _:
            await migration.finish(ANONYMOUS)


def die_at(name: str, count: int) -> None:
    """Ends this process with SIGKILL when it is about to make that call of the ledger for that time."""
    call, calls = getattr(Ledger, name), iter(range(1, 10**9))

    def counted(ledger: Ledger, *args: Any, **told: Any) -> Any:
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(ledger, *args, **told)

    setattr(Ledger, name, counted)


if __name__ == "__main__":
    if len(sys.argv) > 3:
        die_at(sys.argv[4] if len(sys.argv) > 4 else "put_rows", int(sys.argv[3]))
    # Many steps, so that a kill finds each of them.
    returning.PAGE_CHANGES = 20
    asyncio.run(go(Path(sys.argv[1]), sys.argv[2]))
