"""How well search finds the turns that answer LoCoMo's questions, through REST.

Stores every turn (or with --facts every observation) of the conversations in ../shared/locomo and asks all questions. The
headline is categories 1 to 4; category 5 asks about the wrong person, and its "evidence" is the turn that misleads.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks._conversations import ADVERSARIAL, CATEGORIES, DATA, Conversation, Entry, Question, load
from benchmarks._load import percentile
from benchmarks._machine import Machine, machine
from benchmarks._ranking import Score, mean, score
from benchmarks._rest import API, RequestFailedError, Rest, quote
from benchmarks._servers import service

HEADLINE = "1 to 4"
_LIMIT = 10
_NOT_FOUND = 404
_WIDTH = 120


class Answered(Struct, frozen=True):
    """One question as it was answered. `found`: the keys, best first."""

    conversation: str
    question: str
    category: int
    found: list[str]
    score: Score


class Latency(Struct, frozen=True):
    """Milliseconds of requests sent one after another over one connection."""

    p50: float
    p95: float


class Group(Struct, frozen=True):
    """The means over the questions of a category, or of several."""

    name: str
    questions: int
    score: Score


class Report(Struct, frozen=True, kw_only=True):
    """All that one run found. `groups`: each category that has questions, and all of 1 to 4, the headline."""

    machine: Machine
    stored: str
    conversations: int
    memories: int
    dropped: int
    unknown_evidence: int
    empty_answers: int
    groups: list[Group]
    store_ms: Latency
    search_ms: Latency
    answers: list[Answered]


def run(options: argparse.Namespace, console: Console) -> Report:
    """Stores, asks and scores.

    Raises FileNotFoundError without the data, ValueError for a conversation that is not in it or a namespace that holds
    something already, RequestFailedError and OSError where the service fails.
    """
    conversations = load(options.data)
    if options.conversations:
        known = {conversation.id: conversation for conversation in conversations}
        if unknown := [name for name in options.conversations if name not in known]:
            raise ValueError(f"There is no conversation {', '.join(unknown)}, only {', '.join(known)}")
        conversations = [known[name] for name in options.conversations]
    answers: list[Answered] = []
    storing: list[float] = []
    searching: list[float] = []
    with _service(options.url) as url, Rest(url) as rest, Progress(console=console, transient=True) as progress:
        for conversation in conversations:
            _refuse_foreign(rest, conversation)
        try:
            for conversation in conversations:
                entries = _entries(conversation, facts=options.facts)
                task = progress.add_task(f"{conversation.id}: storing", total=len(entries))
                for entry in entries:
                    storing.append(_store(rest, conversation, entry))
                    progress.advance(task)
            for conversation in conversations:
                covers = {entry.key: entry.covers for entry in _entries(conversation, facts=options.facts)}
                task = progress.add_task(f"{conversation.id}: asking", total=len(conversation.questions))
                for question in conversation.questions:
                    taken, found = _ask(rest, conversation, question)
                    searching.append(taken)
                    ranked = score([covers[key] for key in found], question.evidence)
                    answers.append(Answered(conversation.id, question.text, question.category, found, ranked))
                    progress.advance(task)
        finally:
            if options.url and not options.keep:
                for conversation in conversations:
                    _delete(rest, conversation)
    return Report(
        machine=machine(Path(tempfile.gettempdir())),
        stored="facts" if options.facts else "turns",
        conversations=len(conversations),
        memories=len(storing),
        dropped=sum(conversation.dropped for conversation in conversations),
        unknown_evidence=sum(conversation.unknown for conversation in conversations),
        empty_answers=sum(not answer.found for answer in answers),
        groups=_groups(answers),
        store_ms=_latency(storing),
        search_ms=_latency(searching),
        answers=answers,
    )


@contextmanager
def _service(url: str | None) -> Iterator[str]:
    """The service at a URL, or one of our own over an empty directory."""
    if url is not None:
        yield url
        return
    with tempfile.TemporaryDirectory(prefix="unified-memory-locomo-") as directory, service(Path(directory)) as server:
        yield server.url


def _refuse_foreign(rest: Rest, conversation: Conversation) -> None:
    """Raises ValueError where the namespace is in use: what is in it would be found too, and deleted at the end."""
    try:
        there = rest.get(f"/namespaces/{quote(conversation.namespace)}")
    except RequestFailedError as error:
        if error.status != _NOT_FOUND:
            raise
        return
    if there["total_memories"]:
        raise ValueError(
            f"Namespace {conversation.namespace} holds {there['total_memories']} memories already; delete it"
        )


def _delete(rest: Rest, conversation: Conversation) -> None:
    try:
        rest.delete(f"/namespaces/{quote(conversation.namespace)}?recursive=true")
    except RequestFailedError as error:
        # Nothing had been stored in it yet.
        if error.status != _NOT_FOUND:
            raise


def _entries(conversation: Conversation, *, facts: bool) -> list[Entry]:
    return conversation.facts if facts else conversation.turns


def _store(rest: Rest, conversation: Conversation, entry: Entry) -> float:
    """Seconds that storing took."""
    body = msgspec.json.encode(
        {
            "namespace": conversation.namespace,
            "key": entry.key,
            "value": entry.text,
            "metadata": {
                "author": entry.author,
                "occurred_at": entry.occurred_at,
                "session_id": entry.session_id,
            },
        }
    )
    start = time.perf_counter()
    rest.send("POST", f"{API}/store", body)
    return time.perf_counter() - start


def _ask(rest: Rest, conversation: Conversation, question: Question) -> tuple[float, list[str]]:
    """Seconds that the search took, and the keys it found."""
    body = msgspec.json.encode({"query": question.text, "namespace": conversation.namespace, "limit": _LIMIT})
    start = time.perf_counter()
    answer = rest.send("POST", f"{API}/search", body)
    taken = time.perf_counter() - start
    results: list[dict[str, Any]] = msgspec.json.decode(answer)["results"]
    return taken, [result["key"] for result in results]


def _groups(answers: Sequence[Answered]) -> list[Group]:
    members = {f"{number} {name}": {number} for number, name in CATEGORIES.items() if number != ADVERSARIAL}
    members[HEADLINE] = set(CATEGORIES) - {ADVERSARIAL}
    members[f"{ADVERSARIAL} {CATEGORIES[ADVERSARIAL]}"] = {ADVERSARIAL}
    groups = []
    for name, categories in members.items():
        if scores := [answer.score for answer in answers if answer.category in categories]:
            groups.append(Group(name, len(scores), mean(scores)))
    return groups


def _latency(seconds: Sequence[float]) -> Latency:
    ordered = sorted(seconds)
    return Latency(percentile(ordered, 50) * 1000, percentile(ordered, 95) * 1000)


def show(report: Report, console: Console) -> None:
    """Prints what a run found."""
    console.print(str(report.machine), highlight=False)
    console.print(
        f"{report.conversations} conversations, {report.memories:,} {report.stored}, {len(report.answers)} questions "
        f"({report.dropped} without evidence left out, {report.unknown_evidence} evidence ids name no turn)",
        highlight=False,
    )
    table = Table(title=f"LoCoMo, {report.stored}", title_justify="left")
    table.add_column("category")
    for heading in ("questions", "recall@5", "recall@10", "nDCG@10", "MRR"):
        table.add_column(heading, justify="right")
    for group in report.groups:
        if group.name == HEADLINE:
            table.add_section()
        measures = (group.score.recall_5, group.score.recall_10, group.score.ndcg_10, group.score.mrr)
        table.add_row(
            group.name,
            str(group.questions),
            *(f"{measure:.3f}" for measure in measures),
            style="bold" if group.name == HEADLINE else None,
            end_section=group.name == HEADLINE,
        )
    console.print(table)
    console.print("Category 5 asks about the wrong person: its figures tell how often the misleading turn is found.")
    console.print(
        f"search p50 {report.search_ms.p50:.2f} ms, p95 {report.search_ms.p95:.2f} ms · "
        f"store p50 {report.store_ms.p50:.2f} ms, p95 {report.store_ms.p95:.2f} ms · "
        f"{report.empty_answers} questions had no result at all",
        highlight=False,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status is 1 where it could not be done."""
    parser = argparse.ArgumentParser(prog="scripts/bench locomo", description=__doc__)
    parser.add_argument("--facts", action="store_true", help="store the observations instead of the turns")
    parser.add_argument("--url", help="a running service (default: starts one over an empty directory)")
    parser.add_argument("--keep", action="store_true", help="with --url: leave what was stored")
    parser.add_argument("--data", type=Path, default=DATA, help="LoCoMo's file (default: %(default)s)")
    parser.add_argument(
        "--conversations", type=lambda text: text.split(","), help="only these, such as conv-26,conv-30", default=[]
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write everything found, with every answer's keys"
    )
    options = parser.parse_args(arguments)
    progress = Console(stderr=True)
    try:
        report = run(options, progress)
    except (OSError, ValueError, RuntimeError, RequestFailedError) as error:
        progress.print(f"scripts/bench locomo: {error}", style="bold red", markup=False, highlight=False)
        return 1
    show(report, Console(width=None if sys.stdout.isatty() else _WIDTH))
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
