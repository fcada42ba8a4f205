"""A process that migrates, to be killed: `python -m tests.faults.migrating DIRECTORY [COUNT]`.

With a count it kills itself when that many batches are stored, and the last of them is not noted.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tests.service.older import open_older
from unified_memory.bootstrap import build
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service import copying
from unified_memory.service.migration import RunOptions
from unified_memory.service.reaching import Reach
from unified_memory.settings import load
from unified_memory.sources.ledger import Ledger

SOURCES = ("extended-memory-sqlite", "memory-bank-files")


async def migrate(directory: Path) -> None:
    """Migrates what lies in the directory; says so when it begins."""
    service = build(load({}, data_dir=directory))
    service.migration.reach = Reach(open_older)
    await service.open()
    sys.stdout.write("begins\n")
    sys.stdout.flush()
    named = [(kind, str(directory / f"{kind}.jsonl")) for kind in SOURCES]
    await service.migration.run(ANONYMOUS, named, RunOptions(rollback_point=False))
    await service.close()


def die_at(count: int) -> None:
    """Ends this process with SIGKILL when it is about to note a batch for that time."""
    put_rows, calls = Ledger.put_rows, iter(range(1, count + 1))

    def counted(ledger: Ledger, *args: Any, **told: Any) -> None:
        if next(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        put_rows(ledger, *args, **told)

    Ledger.put_rows = counted  # type: ignore[assignment, method-assign]  # only in this process


if __name__ == "__main__":
    if len(sys.argv) > 2:
        die_at(int(sys.argv[2]))
    # Many steps of the run, so that a kill finds each of them.
    copying.BATCH_RECORDS = 100
    asyncio.run(migrate(Path(sys.argv[1])))
