"""One piece of a backup's work in a process of its own, so that what it takes of memory can be told:
`python -m benchmarks._backing fill|create|verify|restore DATA BACKUPS [ID|COUNT]`.
"""

import asyncio
import itertools
import resource
import sys
import time
from pathlib import Path

import msgspec
from msgspec import Raw, Struct

from benchmarks._texts import Texts
from unified_memory.bootstrap import build
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.requests import BackupRequest, BatchStoreRequest, RestoreRequest, StoreRequest
from unified_memory.service.service import Service
from unified_memory.settings import load

_BATCH = 1_000
_PER_NAMESPACE = 5_000
# Every so many memories have a former version, too.
_REPLACED = 10


class Done(Struct, frozen=True):
    """What it came to. `seconds` of the work alone, `resident` bytes before it, `peak` bytes of the whole process."""

    id: str
    memories: int
    seconds: float
    resident: int
    peak: int


async def _fill(service: Service, count: int) -> int:
    texts = enumerate(itertools.islice(Texts().make(1), count))
    while batch := list(itertools.islice(texts, _BATCH)):
        requests = [_store(number, text) for number, text in batch]
        await service.memories.store_batch(ANONYMOUS, BatchStoreRequest(requests))
        again = [_store(number, f"{text} (again)") for number, text in batch if number % _REPLACED == 0]
        await service.memories.store_batch(ANONYMOUS, BatchStoreRequest(again))
    return count


def _store(number: int, text: str) -> StoreRequest:
    namespace = f"bench/{number // _PER_NAMESPACE}"
    return StoreRequest(value=Raw(msgspec.json.encode(text)), key=f"note-{number:07d}", namespace=namespace)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()


async def _run(work: str, data: Path, backups: Path, name: str) -> Done:
    service = build(
        load({}, data_dir=data, backup_dir=backups, semantic="off", demote_after=0.0, warm_max_bytes=0), copies=False
    )
    await service.open()
    try:
        resident = _resident()
        start = time.perf_counter()
        match work:
            case "fill":
                number, made = await _fill(service, int(name)), ""
            case "create":
                backup = await service.backups.create(ANONYMOUS, BackupRequest(parent=name or None))
                number, made = backup.manifest.memories, backup.manifest.id
            case "verify":
                number, made = (await service.backups.verify(ANONYMOUS, name)).memories, name
            case "restore":
                restored = await service.backups.restore(ANONYMOUS, RestoreRequest(name, safety=False))
                number, made = restored.added + restored.changed + restored.same, name
            case _:
                raise ValueError(work)
        seconds = time.perf_counter() - start
    finally:
        await service.close()
    return Done(made, number, seconds, resident, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    """The process."""
    work, data, backups, *rest = sys.argv[1:]
    done = asyncio.run(_run(work, Path(data), Path(backups), rest[0] if rest else ""))
    sys.stdout.write(msgspec.json.encode(done).decode())


if __name__ == "__main__":
    main()
