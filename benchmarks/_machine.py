"""The machine that a benchmark runs on, for the line above its figures."""

import os
import platform
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from msgspec import Struct

from unified_memory.model.clock import SystemClock, to_rfc3339

ROOT = Path(__file__).resolve().parents[1]
_SYNCS = 50
_PACKAGES = ("uvicorn", "uvloop", "httptools", "apsw")


class Machine(Struct, frozen=True, kw_only=True):
    """Where and when. `sync_ms`: median of writing 4 KiB and syncing it in the directory of the data."""

    date: str
    processor: str
    cores: int
    load: float
    python: str
    kernel: str
    packages: dict[str, str]
    filesystem: str
    sync_ms: float

    def __str__(self) -> str:
        packages = ", ".join(f"{name} {number}" for name, number in self.packages.items())
        return (
            f"{self.date[:16].replace('T', ' ')} UTC · {self.cores} cores of {self.processor} (load {self.load:.1f}) · "
            f"Python {self.python} · {self.kernel} · {packages} · {self.filesystem}, a sync takes {self.sync_ms:.2f} ms"
        )


def machine(directory: Path) -> Machine:
    """This machine, with `directory` holding the data."""
    return Machine(
        date=to_rfc3339(SystemClock().now()),
        processor=_processor(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        load=os.getloadavg()[0],
        python=platform.python_version(),
        kernel=f"{platform.system()} {platform.release()}",
        packages={name: version(name) for name in _PACKAGES},
        filesystem=_filesystem(directory),
        sync_ms=_sync_ms(directory),
    )


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _filesystem(directory: Path) -> str:
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "unknown file system"
    best, kind = Path("/"), "unknown file system"
    for line in mounts.read_text(encoding="utf-8").splitlines():
        place, name = line.split()[1:3]
        mount = Path(place)
        if directory.resolve().is_relative_to(mount) and len(mount.parts) >= len(best.parts):
            best, kind = mount, name
    return kind


def _sync_ms(directory: Path) -> float:
    taken = []
    with tempfile.TemporaryFile(dir=directory) as file:
        for _ in range(_SYNCS):
            start = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fsync(file.fileno())
            taken.append(time.perf_counter() - start)
    return sorted(taken)[_SYNCS // 2] * 1000
