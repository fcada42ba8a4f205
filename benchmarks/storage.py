"""What memories cost on disk in each older service and here, and how fast they move in.

The same notes lie in a store of each older service, in its own format. Each is migrated into an empty data directory by the
command that users run, a process of its own. Bytes beyond the raw text are counted a memory: of the older service its whole file
(of a folder whole blocks), of ours the tables without the search index, which the older ones have not; that is told beside.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from benchmarks._machine import ROOT, Machine, machine
from benchmarks._older_stores import STORES, Store, extended_memory_sqlite
from benchmarks._sizes import sizes

COUNT, MANY = 10_000, 1_000_000
BYTES_GOAL, RATE_GOAL, PEAK_GOAL = 0.5, 5_000, 200 * 1024**2
_MIB = 1024**2


class Moved(Struct, frozen=True, kw_only=True):
    """One store and what became of it. Bytes beyond the raw text, of one memory: `theirs`, `ours`, and of ours `keywords` (the
    table of keywords and hashes) and `index` (the full text) besides; `ledger`: of the migration's own notes, until it is
    finished. `peak`: bytes of the process that migrated, at most.
    """

    title: str
    memories: int
    raw: int
    theirs: float
    ours: float
    keywords: float
    index: float
    ledger: float
    seconds: float
    peak: int

    @property
    def ratio(self) -> float:
        """Ours over theirs."""
        return self.ours / self.theirs


class Report(Struct, frozen=True, kw_only=True):
    """What a run came to."""

    machine: Machine
    stores: list[Moved]


def migrate(store: Store, data: Path) -> tuple[float, int]:
    """Seconds, and the most bytes of memory, of the migration of a store. Raises RuntimeError where it fails."""
    command = [sys.executable, "-m", "unified_memory", "migrate", "run", "--yes", "--json"]
    command += ["--source", store.source, "--data-dir", str(data)]
    with tempfile.TemporaryFile() as said:
        begun = time.perf_counter()
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - begun
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            raise RuntimeError(f"The migration failed: {said.read().decode()[-2000:]}")
    return seconds, used.ru_maxrss * 1024


def move(make: Callable[[Path, int], Store], count: int) -> Moved:
    """Makes a store of so many memories, migrates it and looks at both."""
    with tempfile.TemporaryDirectory(prefix="unified-memory-bench-") as name:
        directory = Path(name)
        older, data = directory / "older", directory / "data"
        older.mkdir()
        store = make(older, count)
        seconds, peak = migrate(store, data)
        held = sizes(data / "unified-memory.db")
        ledger = sum(file.stat().st_size for file in (data / "migration").glob("ledger.db*"))
        return Moved(
            title=store.title,
            memories=count,
            raw=store.raw,
            theirs=(store.bytes - store.raw) / count,
            ours=(held.records - store.raw) / count,
            keywords=held.keywords / count,
            index=held.index / count,
            ledger=ledger / count,
            seconds=seconds,
            peak=peak,
        )


def print_report(report: Report, console: Console) -> None:
    """The table, with what misses a goal marked."""
    console.print(str(report.machine), soft_wrap=True)
    table = Table(title="Bytes a memory beyond its text, and the migration")
    for heading in (
        "store",
        "memories",
        "theirs",
        "ours",
        "ratio",
        "+ keywords",
        "+ index",
        "ledger",
        "a second",
        "peak MiB",
    ):
        table.add_column(heading, justify="left" if heading == "store" else "right")
    for one in report.stores:
        rate = one.memories / one.seconds
        table.add_row(
            one.title,
            f"{one.memories:,}",
            f"{one.theirs:.0f}",
            f"{one.ours:.0f}",
            f"{one.ratio:.2f}" + ("" if one.ratio <= BYTES_GOAL else " !"),
            f"{one.keywords:.0f}",
            f"{one.index:.0f}",
            f"{one.ledger:.0f}",
            f"{rate:,.0f}" + ("" if rate > RATE_GOAL else " !"),
            f"{one.peak / _MIB:.0f}" + ("" if one.peak < PEAK_GOAL else " !"),
        )
    console.print(table)
    console.print(
        f"Goals: at most {BYTES_GOAL} of theirs; over {RATE_GOAL:,} memories a second (the start of the process included), under"
        f" {PEAK_GOAL // _MIB} MiB. ! misses one."
    )


def run(count: int, many: int) -> Report:
    """All stores at `count` memories, and the first of them at `many` (0: not)."""
    with tempfile.TemporaryDirectory(prefix="unified-memory-bench-") as name:
        told = machine(Path(name))
    stores = [move(make, count) for make in STORES]
    if many:
        stores.append(move(extended_memory_sqlite, many))
    return Report(machine=told, stores=stores)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="scripts/bench storage", description=__doc__)
    parser.add_argument("--count", type=int, default=COUNT, help=f"memories in each store (default {COUNT})")
    parser.add_argument(
        "--many", type=int, default=MANY, help=f"memories of one more extended-memory (default {MANY}, 0: none)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    given = parser.parse_args(arguments)
    report = run(given.count, given.many)
    print_report(report, Console(width=140))
    if given.json is not None:
        given.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
