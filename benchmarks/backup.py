"""What backups cost: how fast they are made, verified and restored, what they take of memory and disk, and what those notice who
store meanwhile.

Each piece of work is a process of its own. The memories are notes of about 150 bytes, one in ten with a former version, in
namespaces of 5,000. Beside each backup stand the size of the values and a plain copy of the database; beside each latency that of
the same load without a backup, in turns in one run.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks._backing import Done
from benchmarks._load import LoadGenerator, Outcome, Plan, request
from benchmarks._machine import ROOT, Machine, machine
from benchmarks._rest import API, Rest, quote
from benchmarks._servers import HOST, disk_bytes
from benchmarks._servers import service as serving
from unified_memory.service.requests import BackupRequest

SIZES = (100_000, 1_000_000)
PEAK_GOAL = 200 * 1024**2
P95_GOAL = 2.0
_DATABASE = "unified-memory.db"
_MIB = 1024**2
_CHANGED_SHARE = 100
_CONNECTIONS = 32


class Work(Struct, frozen=True, kw_only=True):
    """One piece of work. `raw`: bytes of all values; `peak` and `resident`: bytes of its process, at most and before the work."""

    name: str
    memories: int
    raw: int
    seconds: float
    peak: int
    resident: int


class Filled(Struct, frozen=True, kw_only=True):
    """A store of one size. Bytes: of the values, of the full backup, of an incremental one after a hundredth was changed, of a
    plain copy of the database; seconds of that copy.
    """

    memories: int
    raw: int
    full: int
    incremental: int
    copy: int
    copy_seconds: float
    works: list[Work]


class Beside(Struct, frozen=True, kw_only=True):
    """Stores by 32 connections, alone and while backups were made. Milliseconds and requests a second, medians of the rounds."""

    memories: int
    rounds: int
    alone_p50: float
    alone_p95: float
    alone_rate: float
    beside_p50: float
    beside_p95: float
    beside_rate: float
    backups: int

    @property
    def ratio(self) -> float:
        """How many times the p95 alone."""
        return self.beside_p95 / self.alone_p95


class Report(Struct, frozen=True, kw_only=True):
    """All that one run found."""

    machine: Machine
    filled: list[Filled]
    beside: list[Beside]


def back(work: str, data: Path, backups: Path, name: str = "") -> Done:
    """Does one piece of work in a process of its own. Raises CalledProcessError."""
    command = [sys.executable, "-m", "benchmarks._backing", work, str(data), str(backups), *([name] if name else [])]
    done = subprocess.run(command, cwd=ROOT, env={}, check=True, stdout=subprocess.PIPE)
    return msgspec.json.decode(done.stdout, type=Done)


def measure(directory: Path, count: int, progress: Progress) -> Filled:
    """A store of that many memories, backed up, verified and restored."""
    data, backups, elsewhere = directory / "data", directory / "backups", directory / "elsewhere"
    task = progress.add_task(f"{count:,}: storing", total=6)
    back("fill", data, backups, str(count))
    works: list[Work] = []

    def step(name: str, work: str, where: Path, of: str = "") -> Done:
        progress.update(task, advance=1, description=f"{count:,}: {name}")
        done = back(work, where, backups, of)
        works.append(
            Work(
                name=name,
                memories=done.memories,
                raw=raw,
                seconds=done.seconds,
                peak=done.peak,
                resident=done.resident,
            )
        )
        return done

    raw = 0
    full = step("backup", "create", data)
    raw = _raw_bytes(backups / full.id)
    works[0] = msgspec.structs.replace(works[0], raw=raw)
    step("verify", "verify", data, full.id)
    step("restore elsewhere", "restore", elsewhere, full.id)
    back("fill", data, backups, str(max(1, count // _CHANGED_SHARE)))
    part = step("incremental backup", "create", data, full.id)
    step("restore in place, the chain", "restore", data, part.id)
    start = time.perf_counter()
    shutil.copy(data / _DATABASE, directory / "copy.db")
    return Filled(
        memories=count,
        raw=raw,
        full=disk_bytes(backups / full.id),
        incremental=disk_bytes(backups / part.id),
        copy=(directory / "copy.db").stat().st_size,
        copy_seconds=time.perf_counter() - start,
        works=works,
    )


class _Manifest(Struct):
    bytes: int


def _raw_bytes(backup: Path) -> int:
    return msgspec.json.decode((backup / "manifest.json").read_bytes(), type=_Manifest).bytes


def beside(directory: Path, count: int, seconds: float, rounds: int, progress: Progress) -> Beside:
    """Stores with and without backups, in turns, over a store of that many memories."""
    data = directory / "data"
    task = progress.add_task(f"{count:,}: storing beside backups", total=1 + 2 * rounds)
    back("fill", data, directory / "backups", str(count))
    progress.advance(task)
    alone: list[Outcome] = []
    among: list[Outcome] = []
    made = 0
    with serving(data) as server, LoadGenerator() as generator:
        for number in range(rounds):
            alone.append(generator.run(_stores(server.port, seconds, f"alone-{number}")))
            progress.advance(task)
            over = threading.Event()
            counts: list[int] = []
            backing = threading.Thread(target=_back_up, args=(server.url, over, counts))
            backing.start()
            among.append(generator.run(_stores(server.port, seconds, f"beside-{number}")))
            over.set()
            backing.join()
            made += len(counts)
            # A connection that was idle for the whole round would be closed.
            with Rest(server.url) as rest:
                for one in rest.get("/backups")["backups"]:
                    rest.delete(f"/backups/{quote(one['id'])}")
            progress.advance(task)
    for outcome in (*alone, *among):
        if outcome.errors:
            raise RuntimeError(f"{outcome.errors} stores failed: {outcome.told}")
    return Beside(
        memories=count,
        rounds=rounds,
        alone_p50=statistics.median(one.p50 for one in alone),
        alone_p95=statistics.median(one.p95 for one in alone),
        alone_rate=statistics.median(one.rate for one in alone),
        beside_p50=statistics.median(one.p50 for one in among),
        beside_p95=statistics.median(one.p95 for one in among),
        beside_rate=statistics.median(one.rate for one in among),
        backups=made,
    )


def _stores(port: int, seconds: float, name: str) -> Plan:
    bodies = [
        msgspec.json.encode(
            {"key": f"{name}-{n}", "namespace": "load", "value": f"note {n} of the load, some words long"}
        )
        for n in range(20_000)
    ]
    return Plan(
        host=HOST,
        port=port,
        connections=_CONNECTIONS,
        seconds=seconds,
        requests=[request("POST", f"{API}/store", body) for body in bodies],
    )


def _back_up(url: str, over: threading.Event, counts: list[int]) -> None:
    with Rest(url) as rest:
        while not over.is_set():
            counts.append(rest.post("/backup?wait=60", BackupRequest())["memories"])


def run(options: argparse.Namespace, console: Console) -> Report:
    """Measures everything. Raises what the work raises."""
    base = options.directory
    filled: list[Filled] = []
    load: list[Beside] = []
    with Progress(console=console, transient=True) as progress:
        for count in options.memories:
            with tempfile.TemporaryDirectory(prefix="unified-memory-backup-", dir=base) as directory:
                filled.append(measure(Path(directory), count, progress))
        for count in options.beside:
            with tempfile.TemporaryDirectory(prefix="unified-memory-backup-", dir=base) as directory:
                load.append(beside(Path(directory), count, options.seconds, options.rounds, progress))
    return Report(machine=machine(base or Path(tempfile.gettempdir())), filled=filled, beside=load)


def show(report: Report, console: Console) -> None:
    """Prints what a run found."""
    console.print(str(report.machine), highlight=False)
    for each in report.filled:
        table = Table(title=f"{each.memories:,} memories, values of {each.raw / _MIB:,.1f} MiB", title_justify="left")
        table.add_column("work")
        for heading in ("seconds", "memories/s", "MB/s of values", "peak MiB", "MiB before it"):
            table.add_column(heading, justify="right")
        for work in each.works:
            table.add_row(
                work.name,
                f"{work.seconds:.1f}",
                f"{work.memories / work.seconds:,.0f}",
                f"{work.raw / work.seconds / 1e6:.1f}",
                f"{work.peak / _MIB:.0f}",
                f"{work.resident / _MIB:.0f}",
            )
        console.print(table)
        console.print(
            f"full backup {each.full / _MIB:,.1f} MiB, {each.full / each.raw:.2f} of the values and"
            f" {each.full / each.copy:.3f} of a copy of the database ({each.copy / _MIB:,.1f} MiB in {each.copy_seconds:.1f} s);"
            f" incremental after a hundredth was changed {each.incremental / _MIB:,.2f} MiB",
            highlight=False,
        )
        worst = max(work.peak for work in each.works)
        console.print(_goal("peak memory", worst < PEAK_GOAL, f"{worst / _MIB:.0f} MiB", f"{PEAK_GOAL / _MIB:.0f} MiB"))
    for load in report.beside:
        console.print(
            f"stores by {_CONNECTIONS} connections over {load.memories:,} memories, {load.rounds} rounds in turns:"
            f" alone p50 {load.alone_p50:.1f}, p95 {load.alone_p95:.1f} ms, {load.alone_rate:,.0f}/s;"
            f" beside {load.backups} backups p50 {load.beside_p50:.1f}, p95 {load.beside_p95:.1f} ms, {load.beside_rate:,.0f}/s",
            highlight=False,
        )
        console.print(_goal("p95 of stores", load.ratio < P95_GOAL, f"{load.ratio:.2f} times", f"{P95_GOAL:.0f} times"))


def _goal(name: str, met: bool, reached: str, goal: str) -> str:  # noqa: FBT001 - a row of a table
    return f"{name}: {reached} (goal under {goal}: {'met' if met else 'missed'})"


def main(arguments: Sequence[str] | None = None) -> int:
    """The program; 0 where everything was measured."""
    parser = argparse.ArgumentParser(prog="scripts/bench backup", description=__doc__)
    parser.add_argument(
        "--memories", type=int, nargs="*", default=list(SIZES), help="sizes of the stores (default %(default)s)"
    )
    parser.add_argument(
        "--beside", type=int, nargs="*", default=[SIZES[0]], help="sizes under load (default %(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="of each round of load (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="of each kind (default %(default)s)")
    parser.add_argument(
        "--directory", type=Path, help="where the data lies meanwhile (default: that of temporary files)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything there too")
    options = parser.parse_args(arguments)
    console = Console(width=130)
    report = run(options, console)
    show(report, console)
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
