"""How fast the service is over HTTP, beside a bare ASGI application under the same server.

Every rate is also given as its share of the bare application's in the same run: the bare application is measured before
and after each short round of the service, and the median of the ratios counts. docs/performance.md explains it all.
"""

import argparse
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks._corpus import ONE_NAMESPACE_MEMORIES, Corpus, Note
from benchmarks._load import LoadGenerator, Outcome, Plan, request
from benchmarks._machine import Machine, machine
from benchmarks._rest import API, RequestFailedError, Rest, quote
from benchmarks._servers import HOST, Server, bare, disk_bytes, service

# The goals of the project, all of them at 100,000 memories.
RETRIEVE_GOAL = 0.5
STORE_GOAL = 0.3
SEARCH_GOAL_MS = 10.0
START_GOAL_SECONDS = 1.0
RESIDENT_GOAL_BYTES = 150 * 1024**2

_SEARCH_GOAL_CONNECTIONS = (1, 32)
_FULL = {"sizes": [10_000, 100_000], "connections": [1, 32, 128], "seconds": 1.0, "rounds": 5}
_QUICK = {"sizes": [1_000], "connections": [1, 32, 128], "seconds": 0.1, "rounds": 1}
_BATCH = 1_000
_REQUESTS = 20_000
# More than any server here stores in a second; when they run out a round ends early.
_NEW_PER_SECOND = 40_000
_MIB = 1024**2
_TOO_BUSY = 0.9
_WIDTH = 120


class Operation(Struct, frozen=True):
    """What is measured under one name. `requests` makes the requests of a round; `least`: the goal for the ratio."""

    name: str
    title: str
    requests: Callable[[float], Sequence[bytes]]
    repeat: bool = True
    least: float | None = None


class Row(Struct, frozen=True, kw_only=True):
    """An operation at one size and number of connections: medians over the rounds; latencies in milliseconds.

    `ratio`: the share of the bare application's rate, median of the rounds. `bare`: its requests a second.
    """

    size: int
    operation: str
    title: str
    connections: int
    rate: float
    p50: float
    p95: float
    p99: float
    ratio: float
    bare: float
    least: float | None
    rounds: list[Outcome]


class Filled(Struct, frozen=True, kw_only=True):
    """What a data directory of one size costs: seconds, bytes, memories a second."""

    size: int
    namespaces: int
    fill_rate: float
    raw_bytes: int
    disk_bytes: int
    start_empty_seconds: float
    start_seconds: float
    resident_filled_bytes: int
    resident_bytes: int


class Goal(Struct, frozen=True, kw_only=True):
    """A goal of the project and what was reached."""

    name: str
    wanted: str
    reached: str
    met: bool


class Report(Struct, frozen=True, kw_only=True):
    """All that one run found."""

    machine: Machine
    texts: str
    seconds: float
    rounds: int
    generator_busy: float
    sizes: list[Filled]
    rows: list[Row]
    goals: list[Goal]
    errors: list[str]


class Bench:
    """One run: the generator, the bare application, and what was found so far."""

    def __init__(
        self, generator: LoadGenerator, bare_server: Server, options: argparse.Namespace, progress: Progress
    ) -> None:
        self.rows: list[Row] = []
        self.errors: list[str] = []
        self.busiest = 0.0
        self._generator = generator
        self._bare = bare_server
        self._seconds: float = options.seconds
        self._rounds: int = options.rounds
        self._connections: list[int] = options.connections
        self._progress = progress

    def measure(self, server: Server, size: int, groups: Sequence[Sequence[Operation]]) -> None:
        """Rounds of each operation of a group in turn, for every number of connections; then the next group.

        The bare application has a round before and after each.
        """
        names = ", ".join(each.name for group in groups for each in group)
        steps = len(self._connections) * self._rounds * sum(len(group) for group in groups)
        task = self._progress.add_task(f"{size:,}: {names}", total=steps)
        rows: list[Row] = []
        bare_rounds: dict[int, list[Outcome]] = {connections: [] for connections in self._connections}
        for group, connections in itertools.product(groups, self._connections):
            found: dict[str, list[tuple[Outcome, float]]] = {each.name: [] for each in group}
            before = self._round(self._bare, _BARE, connections)
            bare_rounds[connections].append(before)
            for each in [*group] * self._rounds:
                outcome = self._round(server, each, connections)
                after = self._round(self._bare, _BARE, connections)
                bare_rounds[connections].append(after)
                found[each.name].append((outcome, (before.rate + after.rate) / 2))
                before = after
                self._progress.advance(task)
            rows += [_row(size, each, connections, found[each.name]) for each in group]
        for connections, outcomes in bare_rounds.items():
            self.rows.append(_row(size, _BARE, connections, [(outcome, outcome.rate) for outcome in outcomes]))
        # Measured by numbers of connections, shown by operations.
        order = [each.name for group in groups for each in group]
        self.rows += sorted(rows, key=lambda row: order.index(row.operation))

    def _round(self, server: Server, operation: Operation, connections: int) -> Outcome:
        outcome = self._generator.run(
            Plan(
                host=HOST,
                port=server.port,
                connections=connections,
                seconds=self._seconds,
                requests=operation.requests(self._seconds),
                repeat=operation.repeat,
            )
        )
        self.busiest = max(self.busiest, outcome.busy)
        if outcome.errors:
            self.errors.append(
                f"{operation.name}, {connections} connections: {outcome.errors} of "
                f"{outcome.errors + outcome.requests} requests failed: {'; '.join(outcome.told)}"
            )
        if outcome.requests == 0:
            raise RuntimeError(f"{operation.name}: not one request was answered: {'; '.join(outcome.told)}")
        return outcome


class Workload:
    """The operations on a service that holds a corpus."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._numbered = 0
        chance = random.Random(2)
        self._some = chance.choices(corpus.notes, k=_REQUESTS)

    def fill(self, server: Server, progress: Progress) -> float:
        """Stores the corpus through `POST /store/batch`; memories a second."""
        task = progress.add_task(f"{self._corpus.size:,}: filling", total=self._corpus.size)
        start = time.perf_counter()
        with Rest(server.url) as rest:
            notes = self._corpus.notes
            for first in range(0, len(notes), _BATCH):
                batch = notes[first : first + _BATCH]
                rest.post("/store/batch", {"memories": batch})
                progress.advance(task, len(batch))
        return self._corpus.size / (time.perf_counter() - start)

    def check(self, server: Server) -> None:
        """Asks once for everything and looks at the answers, so that no figure is of something that does not work.

        Raises RuntimeError.
        """
        with Rest(server.url) as rest:
            note = self._corpus.notes[-1]
            got = rest.get(_retrieve_path(note))
            if got["value"] != note.value:
                raise RuntimeError(f"{note.key} came back with another value")
            total = rest.get("/stats")["memories"]
            if total != self._corpus.size:
                raise RuntimeError(f"{self._corpus.size} memories were stored, the service counts {total}")
            words = " ".join(note.value.split()[:4])
            if not rest.post("/search", _search(words, note.namespace))["results"]:
                raise RuntimeError(f"A search for the words of {note.key} found nothing")

    def reads(self) -> list[Operation]:
        """Retrieve, and the searches that the corpus allows."""
        retrieves = [request("GET", API + _retrieve_path(note)) for note in self._some]
        operations = [Operation("retrieve", "retrieve", _always(retrieves), least=RETRIEVE_GOAL)]
        titles = {"one": f"search, one namespace of {min(self._corpus.size, ONE_NAMESPACE_MEMORIES):,}"}
        if self._corpus.size > ONE_NAMESPACE_MEMORIES:
            titles |= {"zipf": "search, 1,000 namespaces", "all": "search, everything at once"}
        for where, title in titles.items():
            asked = [
                request("POST", f"{API}/search", msgspec.json.encode(_search(text, namespace)))
                for text, namespace in self._corpus.queries(_REQUESTS // 10, where)
            ]
            operations.append(Operation(f"search_{where}", title, _always(asked)))
        return operations

    def overwrites(self) -> Operation:
        """Stores over keys that exist."""
        stores = [_store(note) for note in self._some]
        return Operation("store_overwrite", "store, existing keys", _always(stores), least=STORE_GOAL)

    def stores(self) -> Operation:
        """Stores of new keys."""
        return Operation("store_new", "store, new keys", self._new, repeat=False, least=STORE_GOAL)

    def _new(self, seconds: float) -> list[bytes]:
        count = int(_NEW_PER_SECOND * seconds)
        first, self._numbered = self._numbered, self._numbered + count
        return [_store(note) for note in itertools.islice(self._corpus.fresh(first), count)]


_BARE = Operation("bare", "bare application", lambda _: [request("GET", "/")])


def _always(requests: Sequence[bytes]) -> Callable[[float], Sequence[bytes]]:
    return lambda _: requests


def _retrieve_path(note: Note) -> str:
    return f"/retrieve/{quote(note.key)}?namespace={quote(note.namespace)}"


def _store(note: Note) -> bytes:
    return request("POST", f"{API}/store", msgspec.json.encode(note))


def _search(text: str, namespace: str) -> dict[str, Any]:
    return {"query": text, "namespace": namespace, "limit": 10}


def _row(size: int, operation: Operation, connections: int, found: list[tuple[Outcome, float]]) -> Row:
    outcomes = [outcome for outcome, _ in found]
    return Row(
        size=size,
        operation=operation.name,
        title=operation.title,
        connections=connections,
        rate=statistics.median(outcome.rate for outcome in outcomes),
        p50=statistics.median(outcome.p50 for outcome in outcomes),
        p95=statistics.median(outcome.p95 for outcome in outcomes),
        p99=statistics.median(outcome.p99 for outcome in outcomes),
        ratio=statistics.median(outcome.rate / bare_rate for outcome, bare_rate in found),
        bare=statistics.median(bare_rate for _, bare_rate in found),
        least=operation.least,
        rounds=outcomes,
    )


def run(options: argparse.Namespace, console: Console) -> Report:
    """Measures everything. Raises RuntimeError where a server or an answer is not what it must be."""
    with (
        tempfile.TemporaryDirectory(prefix="unified-memory-bench-", dir=options.directory) as directory,
        Progress(console=console, transient=True) as progress,
        LoadGenerator() as generator,
        bare() as bare_server,
    ):
        here = machine(Path(directory))
        bench = Bench(generator, bare_server, options, progress)
        filled = []
        texts = ""
        for size in options.sizes:
            corpus = Corpus(size)
            texts = corpus.source
            filled.append(_measure_size(bench, corpus, Path(directory) / str(size), progress))
        return Report(
            machine=here,
            texts=texts,
            seconds=options.seconds,
            rounds=options.rounds,
            generator_busy=bench.busiest,
            sizes=filled,
            rows=bench.rows,
            goals=_goals(bench.rows, filled),
            errors=bench.errors,
        )


def _measure_size(bench: Bench, corpus: Corpus, data_dir: Path, progress: Progress) -> Filled:
    workload = Workload(corpus)
    with service(data_dir) as server:
        start_empty = server.start_seconds
        fill_rate = workload.fill(server, progress)
        resident_filled = server.resident_bytes()
    on_disk = disk_bytes(data_dir)
    with service(data_dir) as server:
        workload.check(server)
        # New keys come last: until then there are as many memories as the table says.
        bench.measure(server, corpus.size, [workload.reads(), [workload.overwrites()], [workload.stores()]])
        return Filled(
            size=corpus.size,
            namespaces=len({note.namespace for note in corpus.notes}),
            fill_rate=fill_rate,
            raw_bytes=sum(len(note.value.encode()) for note in corpus.notes),
            disk_bytes=on_disk,
            start_empty_seconds=start_empty,
            start_seconds=server.start_seconds,
            resident_filled_bytes=resident_filled,
            resident_bytes=server.resident_bytes(),
        )


def _goals(rows: Sequence[Row], filled: Sequence[Filled]) -> list[Goal]:
    """What was wanted and what was reached, at the largest size; a search's latency with 1 and with 32 connections."""
    largest = max(filled, key=lambda each: each.size)
    goals = []
    for row in rows:
        if row.size != largest.size:
            continue
        where = f"{row.operation}, {_counted(row.connections)}"
        if row.least is not None:
            goals.append(
                Goal(
                    name=f"{where}: share of bare",
                    wanted=f"≥ {row.least}",
                    reached=f"{row.ratio:.2f}",
                    met=row.ratio >= row.least,
                )
            )
        elif row.operation in {"search_one", "search_zipf"} and row.connections in _SEARCH_GOAL_CONNECTIONS:
            goals.append(
                Goal(
                    name=f"{where}: p95",
                    wanted=f"< {SEARCH_GOAL_MS:g} ms",
                    reached=f"{row.p95:.2f} ms",
                    met=row.p95 < SEARCH_GOAL_MS,
                )
            )
    start = max(max(each.start_empty_seconds, each.start_seconds) for each in filled)
    resident = max(largest.resident_filled_bytes, largest.resident_bytes)
    return [
        *goals,
        Goal(
            name="process start to first answered /health",
            wanted=f"< {START_GOAL_SECONDS:g} s",
            reached=f"{start:.2f} s",
            met=start < START_GOAL_SECONDS,
        ),
        Goal(
            name="resident memory",
            wanted=f"< {RESIDENT_GOAL_BYTES // _MIB} MiB",
            reached=f"{resident / _MIB:.0f} MiB",
            met=0 < resident < RESIDENT_GOAL_BYTES,
        ),
    ]


def show(report: Report, console: Console) -> None:
    """Prints what a run found."""
    console.print(str(report.machine), highlight=False)
    console.print(
        f"{report.rounds} rounds of {report.seconds:g} s each, the bare application between any two; medians. "
        f"Texts: {report.texts}. The load generator used at most {report.generator_busy:.0%} of a processor.",
        highlight=False,
    )
    for filled in report.sizes:
        table = Table(
            title=f"{filled.size:,} memories in {_counted(filled.namespaces, 'namespace')}", title_justify="left"
        )
        table.add_column("operation")
        for heading in ("connections", "requests/s", "p50 ms", "p95 ms", "p99 ms", "share of bare", "goal"):
            table.add_column(heading, justify="right")
        last = ""
        for row in report.rows:
            if row.size != filled.size:
                continue
            if last not in {"", row.operation}:
                table.add_section()
            table.add_row(
                row.title if row.operation != last else "",
                str(row.connections),
                f"{row.rate:,.0f}",
                f"{row.p50:.2f}",
                f"{row.p95:.2f}",
                f"{row.p99:.2f}",
                "" if row.operation == _BARE.name else f"{row.ratio:.3f}",
                "" if row.least is None else f"≥ {row.least}",
            )
            last = row.operation
        console.print(table)
        console.print(
            f"filled at {filled.fill_rate:,.0f} memories/s · {filled.raw_bytes / _MIB:.1f} MiB of text take "
            f"{filled.disk_bytes / _MIB:.1f} MiB on disk ({filled.disk_bytes / filled.size:,.0f} bytes a memory) · "
            f"started in {filled.start_empty_seconds:.2f} s empty, {filled.start_seconds:.2f} s filled · "
            f"resident {filled.resident_filled_bytes / _MIB:.0f} MiB after filling, "
            f"{filled.resident_bytes / _MIB:.0f} MiB after all rounds\n",
            highlight=False,
        )
    goals = Table(title=f"Goals, at {max(each.size for each in report.sizes):,} memories", title_justify="left")
    for heading in ("what", "goal", "reached", ""):
        goals.add_column(heading)
    for goal in report.goals:
        goals.add_row(goal.name, goal.wanted, goal.reached, "met" if goal.met else "MISSED")
    console.print(goals)
    if report.generator_busy > _TOO_BUSY:
        console.print("The load generator had no time to spare: rates are too low.", style="bold red")
    for error in report.errors:
        console.print(f"ERROR {error}", style="bold red", markup=False, highlight=False)


def _counted(count: int, noun: str = "connection") -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _numbers(text: str) -> list[int]:
    return [int(part.replace("_", "")) for part in text.split(",")]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench http", description=__doc__)
    parser.add_argument("--sizes", type=_numbers, help="numbers of memories (default 10000,100000)")
    parser.add_argument("--connections", type=_numbers, help="numbers of connections (default 1,32,128)")
    parser.add_argument("--seconds", type=float, help="length of a round (default 1)")
    parser.add_argument("--rounds", type=int, help="rounds of each operation (default 5)")
    parser.add_argument("--quick", action="store_true", help="a few seconds, only to see that all of it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything found, with every round")
    parser.add_argument(
        "--directory", type=Path, help="where data directories are made (default: that of temporary files)"
    )
    options = parser.parse_args(arguments)
    usual = (_QUICK if options.quick else _FULL).items()
    for name, value in usual:
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status is 1 where any request failed."""
    options = _options(arguments)
    progress = Console(stderr=True)
    try:
        report = run(options, progress)
    except (OSError, RuntimeError, RequestFailedError) as error:
        progress.print(f"scripts/bench http: {error}", style="bold red", markup=False, highlight=False)
        return 1
    show(report, Console(width=None if sys.stdout.isatty() else _WIDTH))
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 1 if report.errors else 0


if __name__ == "__main__":
    sys.exit(main())
