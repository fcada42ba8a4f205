"""How fast tools are called over MCP, beside the older servers and a server with one empty tool on the same SDK.

One request is in flight. All servers are measured in turn in short rounds of one run; a ratio compares two rounds of the same
turn, and the median of the ratios counts. docs/performance.md explains it all.
"""

import argparse
import gc
import itertools
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks._load import percentile
from benchmarks._machine import ROOT, Machine, machine
from benchmarks._mcp_callers import HANDSHAKE_ERA, MODERN_ERA, Caller, CallFailedError, StdioCaller, http, stdio
from benchmarks._mcp_empty import READY, TOOL
from benchmarks._mcp_stores import (
    Context,
    File,
    contexts,
    files,
    fill_bank_database,
    fill_bank_folder,
    fill_extended_memory,
)
from benchmarks._rest import RequestFailedError
from benchmarks._servers import Server, free_port, running, service
from tests.legacy.commands import Start, extended_memory, memory_bank_npm, memory_bank_pypi

# The goals of the project.
OLDER_GOAL = 3.0
OLDER_LARGE_GOAL = 10.0
LARGE = 10_000
EMPTY_GOAL = 0.7
FORWARDING_START_GOAL_SECONDS = 0.4
DIRECT_START_GOAL_SECONDS = 1.5

_FULL = {"sizes": [1_000, LARGE], "seconds": 0.4, "rounds": 7, "starts": 7}
_QUICK = {"sizes": [100], "seconds": 0.05, "rounds": 1, "starts": 1}
# What is written in a round is bounded, so that a fast server does not end with a far larger store than a slow one.
_WRITES = 100
_SAID_AT_ONCE = 50
# What load_contexts shows by default.
DEFAULT_LEVEL = 7
LOADED = "chronological order"
SAVED = "Context saved successfully"
_MIB = 1024**2
_WIDTH = 120


class Call(Struct, frozen=True):
    """A call of a tool; the text of its answer must hold `expected`."""

    tool: str
    arguments: dict[str, Any]
    expected: str = ""


class Operation(Struct, frozen=True, kw_only=True):
    """What is measured under one name. `calls` are those of a server, by its name. `most`: calls a round."""

    name: str
    title: str
    calls: Callable[[str], Iterator[Call]]
    most: int | None = None


_EMPTY = Operation(name="empty", title="the empty tool", calls=lambda _: itertools.repeat(Call(TOOL, {})))


class Participant(Struct, frozen=True, kw_only=True):
    """A server as it is called. `empty` names the one with the empty tool that is called in the same way."""

    name: str
    title: str
    caller: Caller
    server: Server
    empty: str | None = None

    @property
    def ours(self) -> bool:
        """Whether it is the service."""
        return self.name.startswith("ours")


class Turn(Struct, frozen=True):
    """One round of one server: `calls` in so many seconds."""

    calls: int
    seconds: float

    @property
    def rate(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds


class Row(Struct, frozen=True, kw_only=True):
    """An operation on one server: the median of its rounds' calls a second; percentiles, in milliseconds, of all its calls.

    `of_older` and `of_empty`: its rate over that of the older server, and of the empty tool called in the same way; None where
    there is nothing to compare with.
    """

    group: str
    size: int
    operation: str
    title: str
    server: str
    server_title: str
    rate: float
    p50: float
    p95: float
    of_older: float | None
    of_empty: float | None
    rounds: list[Turn]


class Resident(Struct, frozen=True, kw_only=True):
    """The resident memory of a server's process after all rounds of a group."""

    group: str
    size: int
    server: str
    title: str
    bytes: int


class Started(Struct, frozen=True, kw_only=True):
    """From the start of a process to its first answer, that of the handshake: the median, and each start."""

    server: str
    title: str
    seconds: float
    all: list[float]


class Goal(Struct, frozen=True, kw_only=True):
    """A goal of the project and what was reached."""

    name: str
    wanted: str
    reached: str
    met: bool


class Report(Struct, frozen=True, kw_only=True):
    """All that one run found. `missing`: the older servers that are not installed."""

    machine: Machine
    seconds: float
    rounds: int
    missing: list[str]
    starts: list[Started]
    residents: list[Resident]
    rows: list[Row]
    goals: list[Goal]


class Older(Struct, frozen=True):
    """An older server. `group`: what it is compared in; `profile`: ours with its tools."""

    name: str
    title: str
    group: str
    profile: str
    start: Callable[[Path], Start]


EXTENDED_MEMORY = Older("extended_memory", "extended-memory (SQLite)", "contexts", "extended-memory", extended_memory)
BANK_NPM = Older("bank_npm", "memory bank (npm)", "bank of npm", "memory-bank", memory_bank_npm)
BANK_PYPI = Older("bank_pypi", "memory bank (PyPI)", "bank of PyPI", "memory-bank-pypi", memory_bank_pypi)
OLDER = (EXTENDED_MEMORY, BANK_NPM, BANK_PYPI)


class Bench:
    """One run, and what was found so far."""

    def __init__(
        self, options: argparse.Namespace, directory: Path, empty: Sequence[Participant], progress: Progress
    ) -> None:
        self.rows: list[Row] = []
        self.residents: list[Resident] = []
        self._empty = empty
        self._options = options
        self._directory = directory
        self._progress = progress

    def measure(self, older: Older, size: int, fill: Callable[[Path], None], operations: Sequence[Operation]) -> None:
        """Fills the older server and ours and calls both, and the empty tools, in turn.

        `fill` fills the older server's store in a directory. Raises CallFailedError.
        """
        directory = self._directory / f"{older.name}-{size}"
        with ExitStack() as stack:
            participants = self._start(older, size, directory, fill, stack)
            task = self._progress.add_task(f"{older.group}, {size:,}", total=len(operations) * self._options.rounds)
            empty_turns: dict[str, list[Turn]] = {each.name: [] for each in self._empty}
            empty_latencies: dict[str, list[float]] = {each.name: [] for each in self._empty}
            for operation in operations:
                turns: dict[str, list[Turn]] = {each.name: [] for each in participants}
                latencies: dict[str, list[float]] = {each.name: [] for each in participants}
                calls = {
                    each.name: (_EMPTY if each in self._empty else operation).calls(each.name) for each in participants
                }
                for _ in range(self._options.rounds):
                    for each in participants:
                        most = None if each in self._empty else operation.most
                        turn = self.round(each, calls[each.name], most, latencies[each.name])
                        turns[each.name].append(turn)
                    self._progress.advance(task)
                self.rows += [
                    _row(older, size, operation, each, turns, latencies[each.name])
                    for each in participants
                    if each not in self._empty
                ]
                for each in self._empty:
                    empty_turns[each.name] += turns[each.name]
                    empty_latencies[each.name] += latencies[each.name]
            self.rows += [
                _row(older, size, _EMPTY, each, empty_turns, empty_latencies[each.name]) for each in self._empty
            ]
            # Both eras of HTTP are served by one process.
            processes = {each.server.pid: each for each in reversed(participants)}
            self.residents += [
                Resident(
                    group=older.group,
                    size=size,
                    server=each.name,
                    title=each.title.removesuffix(f" {MODERN_ERA}"),
                    bytes=each.server.resident_bytes(),
                )
                for each in reversed(processes.values())
            ]

    def _start(
        self, older: Older, size: int, directory: Path, fill: Callable[[Path], None], stack: ExitStack
    ) -> list[Participant]:
        there = directory / "older"
        there.mkdir(parents=True)
        participants = []
        if older.start(there).installed:
            fill(there)
            caller = stack.enter_context(_older(older, there))
            participants.append(Participant(name=older.name, title=older.title, caller=caller, server=caller.server))
        alone, served = directory / "ours", directory / "served"
        server = stack.enter_context(service(served))
        direct = stack.enter_context(_ours(older.profile, alone))
        forwarding = stack.enter_context(_ours(older.profile, served))
        for each in (direct, forwarding):
            self._fill_ours(older, size, each)
        modern, handshake = (
            stack.enter_context(http(server.port, f"/mcp/{older.profile}", era)) for era in (MODERN_ERA, HANDSHAKE_ERA)
        )
        ours: list[tuple[str, str, Caller, Server, str]] = [
            ("ours_stdio", "ours, stdio", direct, direct.server, "empty_stdio"),
            ("ours_forwarding", "ours, stdio to the service", forwarding, forwarding.server, "empty_stdio"),
            ("ours_http", f"ours, HTTP {MODERN_ERA}", modern, server, "empty_http"),
            ("ours_handshake", f"ours, HTTP {HANDSHAKE_ERA}", handshake, server, "empty_handshake"),
        ]
        participants += [
            Participant(name=name, title=title, caller=caller, server=running, empty=empty)
            for name, title, caller, running, empty in ours
        ]
        return [*participants, *self._empty]

    def _fill_ours(self, older: Older, size: int, caller: StdioCaller) -> None:
        tool, arguments = _fillings(older, size)
        task = self._progress.add_task(f"{older.group}, {size:,}: filling", total=size)
        for first in range(0, len(arguments), _SAID_AT_ONCE):
            part = arguments[first : first + _SAID_AT_ONCE]
            caller.call_all(tool, part)
            self._progress.advance(task, len(part))

    def round(self, on: Participant, calls: Iterator[Call], most: int | None, latencies: list[float]) -> Turn:
        """One round of one server, of at most so many calls; adds the seconds of each to `latencies`.

        Raises CallFailedError, also where an answer is not as expected.
        """
        count = 0
        on.caller.ready()
        # A collection in the middle of a round would be counted as the server's slowness.
        gc.disable()
        try:
            start = now = time.perf_counter()
            deadline = start + self._options.seconds
            while now < deadline and count != most:
                call = next(calls)
                sent = time.perf_counter()
                text = on.caller.call(call.tool, call.arguments)
                now = time.perf_counter()
                if call.expected not in text:
                    raise CallFailedError(f"{on.title}: {call.tool} answered {text[:300]!r}")
                latencies.append(now - sent)
                count += 1
        finally:
            gc.enable()
        return Turn(count, now - start)


def _older(older: Older, directory: Path) -> AbstractContextManager[StdioCaller]:
    start = older.start(directory)
    return stdio(start.command, directory, {"HOME": str(directory), **start.environment})


def _ours(profile: str, data_dir: Path) -> AbstractContextManager[StdioCaller]:
    """Ours over standard input and output; it hands over to the service that runs on the data directory, if any."""
    command = [sys.executable, "-m", "unified_memory", "mcp", "--tools", profile, "--data-dir", str(data_dir)]
    return stdio(command, ROOT, {})


def _empty_stdio() -> AbstractContextManager[StdioCaller]:
    return stdio([sys.executable, "-m", "benchmarks._mcp_empty"], ROOT, {})


@contextmanager
def empty_servers() -> Iterator[list[Participant]]:
    """The servers with the empty tool."""
    port = free_port()
    with (
        _empty_stdio() as direct,
        running(["-m", "benchmarks._mcp_empty", str(port)], port, READY) as server,
        http(port, "/mcp", MODERN_ERA) as modern,
        http(port, "/mcp", HANDSHAKE_ERA) as handshake,
    ):
        yield [
            Participant(name="empty_stdio", title="empty tool, stdio", caller=direct, server=direct.server),
            Participant(name="empty_http", title=f"empty tool, HTTP {MODERN_ERA}", caller=modern, server=server),
            Participant(
                name="empty_handshake", title=f"empty tool, HTTP {HANDSHAKE_ERA}", caller=handshake, server=server
            ),
        ]


def _row(
    older: Older,
    size: int,
    operation: Operation,
    on: Participant,
    turns: dict[str, list[Turn]],
    latencies: Sequence[float],
) -> Row:
    own = turns[on.name]
    ordered = sorted(latencies)
    return Row(
        group=older.group,
        size=size,
        operation=operation.name,
        title=operation.title,
        server=on.name,
        server_title=on.title,
        rate=statistics.median(turn.rate for turn in own),
        p50=percentile(ordered, 50) * 1000,
        p95=percentile(ordered, 95) * 1000,
        of_older=_ratio(own, turns.get(older.name)) if on.ours else None,
        of_empty=None if on.empty is None else _ratio(own, turns[on.empty]),
        rounds=own,
    )


def _ratio(own: Sequence[Turn], other: Sequence[Turn] | None) -> float | None:
    """The median over the rounds that lay beside each other."""
    if other is None:
        return None
    return statistics.median(mine.rate / theirs.rate for mine, theirs in zip(own, other, strict=True))


def _fillings(older: Older, size: int) -> tuple[str, list[dict[str, Any]]]:
    """The tool that fills ours, and its arguments."""
    if older is EXTENDED_MEMORY:
        return "save_context", contexts(size)
    return "memory_bank_write", [_file(older, *file) for file in files(size)]


def _fill_contexts(stored: Sequence[Context], directory: Path) -> None:
    fill_extended_memory(directory / "memory.db", stored)


def _file(older: Older, project: str, name: str, content: str | None = None) -> dict[str, Any]:
    """Arguments of the bank's tools, as each of the two names them."""
    told = (
        {"projectName": project, "fileName": name}
        if older is BANK_NPM
        else {"project_name": project, "file_name": name}
    )
    return told if content is None else {**told, "content": content}


def _context_operations(stored: Sequence[Context]) -> list[Operation]:
    def loads(_server: str) -> Iterator[Call]:
        chance = random.Random(1)
        shown = [each for each in stored if each["importance_level"] >= DEFAULT_LEVEL]
        while True:
            yield Call("load_contexts", {"project_id": chance.choice(shown)["project_id"]}, LOADED)

    def tagged(_server: str) -> Iterator[Call]:
        chance = random.Random(2)
        having = [each for each in stored if each["tags"]]
        while True:
            like = chance.choice(having)
            asked = {"project_id": like["project_id"], "tags_filter": [like["tags"][0]], "importance_level": 1}
            yield Call("load_contexts", asked, LOADED)

    def saves(_server: str) -> Iterator[Call]:
        chance = random.Random(3)
        while True:
            yield Call("save_context", chance.choice(stored), SAVED)

    def both(server: str) -> Iterator[Call]:
        return itertools.chain.from_iterable(zip(saves(server), loads(server), strict=True))

    return [
        Operation(name="load", title="load_contexts, defaults", calls=loads),
        Operation(name="load_tag", title="load_contexts, a tag", calls=tagged),
        Operation(name="save", title="save_context", calls=saves, most=_WRITES),
        Operation(name="both", title="save_context and load_contexts in turn", calls=both, most=_WRITES),
    ]


def _bank_operations(older: Older, stored: Sequence[File]) -> list[Operation]:
    written = "Successfully wrote file" if older is BANK_PYPI else "written successfully"

    def reads(_server: str) -> Iterator[Call]:
        chance = random.Random(4)
        while True:
            project, name, content = chance.choice(stored)
            yield Call("memory_bank_read", _file(older, project, name), content)

    def writes(server: str) -> Iterator[Call]:
        # The three ways to the service share one store.
        for number, (project, _, content) in enumerate(itertools.cycle(stored)):
            yield Call("memory_bank_write", _file(older, project, f"new-{server}-{number}.md", content), written)

    return [
        Operation(name="read", title="memory_bank_read", calls=reads),
        Operation(name="write", title="memory_bank_write, new files", calls=writes, most=_WRITES),
    ]


def _starts(options: argparse.Namespace, directory: Path, progress: Progress) -> list[Started]:
    """Starts each server several times, in turn, over an empty store."""
    there = [older for older in OLDER if older.start(directory).installed]
    task = progress.add_task("starting", total=options.starts)
    found: dict[tuple[str, str], list[float]] = {}

    def start(name: str, title: str, server: AbstractContextManager[StdioCaller]) -> None:
        with server as caller:
            found.setdefault((name, title), []).append(caller.server.start_seconds)

    alone, served = directory / "ours", directory / "served"
    with service(served):
        # The service loads the SDK while it already answers: wait for that.
        with _ours("unified", served):
            pass
        for _ in range(options.starts):
            start("ours_forwarding", "ours, stdio to the service", _ours("unified", served))
            start("ours_stdio", "ours, stdio", _ours("unified", alone))
            start("empty_stdio", "empty tool, stdio", _empty_stdio())
            for older in there:
                place = directory / older.name
                place.mkdir(exist_ok=True)
                start(older.name, older.title, _older(older, place))
            progress.advance(task)
    return [
        Started(server=name, title=title, seconds=statistics.median(seconds), all=seconds)
        for (name, title), seconds in found.items()
    ]


def run(options: argparse.Namespace, console: Console) -> Report:
    """Measures everything.

    Raises RuntimeError, CallFailedError, RequestFailedError where a server or an answer is not what it must be.
    """
    with (
        tempfile.TemporaryDirectory(prefix="unified-memory-bench-", dir=options.directory) as name,
        Progress(console=console, transient=True) as progress,
        empty_servers() as empty,
    ):
        directory = Path(name).resolve()
        bench = Bench(options, directory, empty, progress)
        here = machine(directory)
        started = directory / "starts"
        started.mkdir()
        starts = _starts(options, started, progress)
        for size in options.sizes:
            stored = contexts(size)
            bench.measure(
                EXTENDED_MEMORY,
                size,
                partial(_fill_contexts, stored),
                _context_operations(stored),
            )
        size = min(options.sizes)
        kept = files(size)
        bench.measure(
            BANK_NPM, size, lambda place: fill_bank_folder(place / "bank", kept), _bank_operations(BANK_NPM, kept)
        )
        bench.measure(
            BANK_PYPI,
            size,
            lambda place: fill_bank_database(place / "bank.db", kept),
            _bank_operations(BANK_PYPI, kept),
        )
        return Report(
            machine=here,
            seconds=options.seconds,
            rounds=options.rounds,
            missing=[older.title for older in OLDER if not older.start(directory).installed],
            starts=starts,
            residents=bench.residents,
            rows=bench.rows,
            goals=[*_rate_goals(bench.rows), *_start_goals(starts)],
        )


def _rate_goals(rows: Sequence[Row]) -> Iterator[Goal]:
    """Beside extended-memory, and beside the empty tool at the smallest size: all ways to ours in one line."""
    smallest = min(row.size for row in rows)
    ours = [row for row in rows if row.of_empty is not None]
    for (group, size, title), found in itertools.groupby(ours, lambda row: (row.group, row.size, row.title)):
        ways = list(found)
        where = f"{title}, {group}, {size:,}"
        of_older = [row.of_older for row in ways if row.of_older is not None]
        # At 10,000 the goal is one of loads only.
        if of_older and group == EXTENDED_MEMORY.group and (size < LARGE or ways[0].operation.startswith("load")):
            least = OLDER_LARGE_GOAL if size >= LARGE else OLDER_GOAL
            yield _rate_goal(f"{where}: times {EXTENDED_MEMORY.title}", least, of_older)
        if size == smallest:
            of_empty = [row.of_empty for row in ways if row.of_empty is not None]
            yield _rate_goal(f"{where}: share of the empty tool", EMPTY_GOAL, of_empty)


def _rate_goal(name: str, least: float, reached: Sequence[float]) -> Goal:
    return Goal(
        name=name,
        wanted=f"≥ {least:g}",
        reached=" · ".join(f"{ratio:.3g}" for ratio in reached),
        met=min(reached) >= least,
    )


def _start_goals(starts: Sequence[Started]) -> Iterator[Goal]:
    goals = {"ours_forwarding": FORWARDING_START_GOAL_SECONDS, "ours_stdio": DIRECT_START_GOAL_SECONDS}
    for each in starts:
        if each.server in goals:
            yield Goal(
                name=f"process start to first answer, {each.title}",
                wanted=f"< {goals[each.server]:g} s",
                reached=f"{each.seconds:.2f} s",
                met=each.seconds < goals[each.server],
            )


def show(report: Report, console: Console) -> None:
    """Prints what a run found."""
    console.print(str(report.machine), highlight=False)
    console.print(
        f"One request in flight; {report.rounds} rounds of {report.seconds:g} s of each server in turn; rates and ratios are "
        "medians over the rounds, percentiles those of all calls.",
        highlight=False,
    )
    for missing in report.missing:
        console.print(f"Not compared: {missing} is not installed; scripts/setup --legacy does it", style="yellow")
    for group, size in dict.fromkeys((row.group, row.size) for row in report.rows):
        table = Table(title=f"{group}: {size:,} stored", title_justify="left")
        table.add_column("operation")
        table.add_column("server")
        for heading in ("calls/s", "p50 ms", "p95 ms", "of the older", "of empty"):
            table.add_column(heading, justify="right")
        last = ""
        for row in report.rows:
            if (row.group, row.size) != (group, size):
                continue
            if last not in {"", row.operation}:
                table.add_section()
            table.add_row(
                row.title if row.operation != last else "",
                row.server_title,
                f"{row.rate:,.0f}",
                f"{row.p50:.2f}",
                f"{row.p95:.2f}",
                "" if row.of_older is None else f"{row.of_older:.1f}",
                "" if row.of_empty is None else f"{row.of_empty:.2f}",
            )
            last = row.operation
        console.print(table)
        residents = [
            f"{each.title} {each.bytes / _MIB:.0f} MiB"
            for each in report.residents
            if (each.group, each.size) == (group, size)
        ]
        console.print("resident: " + " · ".join(residents) + "\n", highlight=False)
    starts = Table(title="Process start to first answer", title_justify="left")
    starts.add_column("server")
    starts.add_column("seconds", justify="right")
    for each in report.starts:
        starts.add_row(each.title, f"{each.seconds:.2f}")
    console.print(starts)
    goals = Table(title="Goals; rates: by the ways to ours in the order of the tables above", title_justify="left")
    for heading in ("what", "goal", "reached", ""):
        goals.add_column(heading)
    for goal in report.goals:
        goals.add_row(goal.name, goal.wanted, goal.reached, "met" if goal.met else "MISSED")
    console.print(goals)


def _numbers(text: str) -> list[int]:
    return [int(part.replace("_", "")) for part in text.split(",")]


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench mcp", description=__doc__)
    parser.add_argument(
        "--sizes", type=_numbers, help="numbers of contexts, the least also of files (default 1000,10000)"
    )
    parser.add_argument("--seconds", type=float, help="length of a round (default 0.4)")
    parser.add_argument("--rounds", type=int, help="rounds of each operation on each server (default 7)")
    parser.add_argument("--starts", type=int, help="starts of each server (default 7)")
    parser.add_argument("--quick", action="store_true", help="some seconds, only to see that all of it works")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything found, with every round")
    parser.add_argument(
        "--directory",
        type=Path,
        help="where data directories are made, not below /var (default: that of temporary files)",
    )
    options = parser.parse_args(arguments)
    for name, value in (_QUICK if options.quick else _FULL).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status is 1 where any call failed."""
    options = _options(arguments)
    progress = Console(stderr=True)
    try:
        report = run(options, progress)
    except (OSError, RuntimeError, CallFailedError, RequestFailedError) as error:
        progress.print(f"scripts/bench mcp: {error}", style="bold red", markup=False, highlight=False)
        return 1
    show(report, Console(width=None if sys.stdout.isatty() else _WIDTH))
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
