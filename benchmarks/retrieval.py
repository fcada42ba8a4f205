"""How well search finds what answers a question, through REST: LoCoMo's turns and facts, and our own questions.

Each set is stored in a service of its own and asked in every mode. LoCoMo's headline is categories 1 to 4; category 5 asks
about the wrong person, and its "evidence" is the turn that misleads. Our own set is told by bands: benchmarks/_questions.py.
"""

import argparse
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, structs
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks import _conversations, _questions
from benchmarks._conversations import ADVERSARIAL, CATEGORIES
from benchmarks._load import percentile
from benchmarks._machine import Machine, machine
from benchmarks._ranking import Score, mean, score
from benchmarks._resampling import Interval, over_conversations, over_questions
from benchmarks._rest import API, RequestFailedError, Rest, quote
from benchmarks._servers import service
from benchmarks._sizes import Sizes, sizes

SETS = ("turns", "facts", "own")
MODES = ("fulltext", "semantic", "hybrid", "auto")
DEFAULT_MODE = "fulltext"
HEADLINE = {"turns": "1 to 4", "facts": "1 to 4", "own": "all bands"}
MEASURES = {"recall_5": "recall@5", "recall_10": "recall@10", "ndcg_10": "nDCG@10", "mrr": "MRR"}
OWN_ROOT = "retrieval-questions"
_DATABASE = "unified-memory.db"
_LIMIT = 10
_REFUSED = (400, 422, 501, 503)
_NOT_FOUND = 404
_POLL_SECONDS = 0.1
_MODE_HELP = "how; fulltext alone is asked without any vectors (default: %(default)s)"
_WIDTH = 140


class Item(Struct, frozen=True):
    """What becomes one memory. `covers`: the ids of what it answers for."""

    namespace: str
    key: str
    value: Any
    metadata: dict[str, Any]
    covers: frozenset[str]


class Query(Struct, frozen=True):
    """A question, asked in a namespace and all below it. `group`: its category or band."""

    conversation: str
    namespace: str
    text: str
    group: str
    evidence: frozenset[str]


class Dataset(Struct, frozen=True, kw_only=True):
    """A set as it is stored and asked. `roots`: the namespaces that hold all of it; `languages`: by namespace."""

    name: str
    roots: list[str]
    languages: dict[str, str]
    items: list[Item]
    queries: list[Query]
    groups: list[str]
    headline: frozenset[str]
    dropped: int = 0
    unknown: int = 0


class Answered(Struct, frozen=True):
    """One question as it was answered. `found`: the keys, best first."""

    conversation: str
    question: str
    group: str
    found: list[str]
    score: Score


class Latency(Struct, frozen=True):
    """Milliseconds of requests sent one after another over one connection."""

    p50: float
    p95: float


class Group(Struct, frozen=True, kw_only=True):
    """The measures over the questions of a category or band, or of several, with intervals over the questions.

    `by_conversation`: intervals over the conversations, for the headline only.
    """

    name: str
    questions: int
    score: Score
    intervals: dict[str, Interval]
    by_conversation: dict[str, Interval] = {}


class Run(Struct, frozen=True, kw_only=True):
    """A set asked in one mode. `refused`: what the service said where it has no such mode; then there is nothing else."""

    mode: str
    refused: str | None = None
    groups: list[Group] = []
    search_ms: Latency | None = None
    empty_answers: int = 0
    answers: list[Answered] = []


class Measured(Struct, frozen=True, kw_only=True):
    """A set. `sizes` is None for a service elsewhere. `embedding_seconds`: from the last store to the last vector.

    `languages_refused`: what the service said to each language that it does not know.
    """

    name: str
    conversations: int
    memories: int
    questions: int
    dropped: int
    unknown_evidence: int
    languages_refused: dict[str, str]
    store_ms: Latency
    embedding_seconds: float | None
    sizes: Sizes | None
    runs: list[Run]


class Report(Struct, frozen=True, kw_only=True):
    """All that one run of this program found."""

    machine: Machine
    sets: list[Measured]


class Difference(Struct, frozen=True, kw_only=True):
    """A set's headline questions that both of two runs answered: the later's measures less the earlier's.

    `part`: all conversations, or one half of them.
    """

    set: str
    mode: str
    against: str
    part: str
    questions: int
    intervals: dict[str, Interval]


def datasets(names: Sequence[str], data: Path, chosen: Sequence[str]) -> list[Dataset]:
    """The sets of those names; `chosen`: LoCoMo's conversations, all where it is empty.

    Raises FileNotFoundError without LoCoMo's file, ValueError for a conversation that is not in it.
    """
    conversations = _conversations.load(data) if {"turns", "facts"} & set(names) else []
    if chosen:
        known = {conversation.id: conversation for conversation in conversations}
        if unknown := [name for name in chosen if name not in known]:
            raise ValueError(f"There is no conversation {', '.join(unknown)}, only {', '.join(known)}")
        conversations = [known[name] for name in chosen]
    return [_own() if name == "own" else _locomo(name, conversations) for name in names]


def _locomo(name: str, conversations: Sequence[_conversations.Conversation]) -> Dataset:
    items = []
    queries = []
    for conversation in conversations:
        for entry in conversation.facts if name == "facts" else conversation.turns:
            metadata = {"author": entry.author, "occurred_at": entry.occurred_at, "session_id": entry.session_id}
            items.append(Item(conversation.namespace, entry.key, entry.text, metadata, entry.covers))
        for asked in conversation.questions:
            group = f"{asked.category} {CATEGORIES[asked.category]}"
            queries.append(Query(conversation.id, conversation.namespace, asked.text, group, asked.evidence))
    groups = {number: f"{number} {category}" for number, category in CATEGORIES.items()}
    return Dataset(
        name=name,
        roots=[conversation.namespace for conversation in conversations],
        languages={},
        items=items,
        queries=queries,
        groups=list(groups.values()),
        headline=frozenset(group for number, group in groups.items() if number != ADVERSARIAL),
        dropped=sum(conversation.dropped for conversation in conversations),
        unknown=sum(conversation.unknown for conversation in conversations),
    )


def _own() -> Dataset:
    own = _questions.load()
    return Dataset(
        name="own",
        roots=[OWN_ROOT],
        languages={f"{OWN_ROOT}/{space.name}": space.language for space in own.spaces},
        items=[
            Item(f"{OWN_ROOT}/{each.namespace}", each.key, each.value, each.metadata, frozenset({each.key}))
            for each in own.memories
        ],
        queries=[
            Query(each.namespace, f"{OWN_ROOT}/{each.namespace}", each.text, each.band, frozenset(each.answers))
            for each in own.questions
        ],
        groups=list(_questions.BANDS),
        headline=frozenset(_questions.BANDS),
    )


def run(options: argparse.Namespace, console: Console) -> Report:
    """Stores, asks and scores.

    Raises FileNotFoundError without the data, ValueError for a conversation that is not in it or a namespace that holds
    something already, RequestFailedError, OSError and RuntimeError where the service fails.
    """
    chosen = datasets(options.set, options.data, options.conversations)
    with Progress(console=console, transient=True) as progress:
        sets = [_measure(each, options, progress) for each in chosen]
    return Report(machine=machine(Path(tempfile.gettempdir())), sets=sets)


def _measure(dataset: Dataset, options: argparse.Namespace, progress: Progress) -> Measured:
    with tempfile.TemporaryDirectory(prefix="unified-memory-retrieval-") as directory:
        semantic = set(options.mode) != {DEFAULT_MODE}
        with _service(options.url, Path(directory), semantic=semantic) as url, Rest(url) as rest:
            for root in dataset.roots:
                _refuse_foreign(rest, root)
            try:
                refused = _create(rest, dataset)
                task = progress.add_task(f"{dataset.name}: storing", total=len(dataset.items))
                storing = []
                for item in dataset.items:
                    storing.append(_store(rest, item))
                    progress.advance(task)
                embedding = _embedded(rest, dataset, progress) if semantic else None
                runs = [_run(rest, dataset, mode, progress) for mode in options.mode]
            finally:
                if options.url and not options.keep:
                    for root in dataset.roots:
                        _delete(rest, root)
        # The service has ended, so the file is whole.
        filled = None if options.url else sizes(Path(directory) / _DATABASE)
    return Measured(
        name=dataset.name,
        conversations=len({query.conversation for query in dataset.queries}),
        memories=len(dataset.items),
        questions=len(dataset.queries),
        dropped=dataset.dropped,
        unknown_evidence=dataset.unknown,
        languages_refused=refused,
        store_ms=_latency(storing),
        embedding_seconds=embedding,
        sizes=filled,
        runs=runs,
    )


@contextmanager
def _service(url: str | None, directory: Path, *, semantic: bool) -> Iterator[str]:
    """The service at a URL, or one of our own over an empty directory."""
    if url is not None:
        yield url
        return
    with service(directory, semantic=semantic) as server:
        yield server.url


def _embedded(rest: Rest, dataset: Dataset, progress: Progress) -> float:
    """Waits until every memory has its vector; seconds that were left to wait for when all was stored.

    Raises RuntimeError where the service cannot make them.
    """
    task = progress.add_task(f"{dataset.name}: embedding", total=len(dataset.items))
    start = time.perf_counter()
    while (told := rest.get("/health")["meaning"]) is not None:
        if told["state"] == "failing":
            raise RuntimeError(f"The service makes no vectors: {told['troubles']}")
        progress.update(task, completed=told["embedded"])
        if told["state"] == "ready" and not told["waiting"]:
            break
        time.sleep(_POLL_SECONDS)
    progress.remove_task(task)
    return time.perf_counter() - start


def _refuse_foreign(rest: Rest, namespace: str) -> None:
    """Raises ValueError where the namespace is in use: what is in it would be found too, and deleted at the end."""
    there = rest.post("/query", {"namespace": namespace, "count": True, "limit": 1})["count"]
    if there:
        raise ValueError(f"Namespace {namespace} holds {there} memories already; delete it")


def _create(rest: Rest, dataset: Dataset) -> dict[str, str]:
    """Creates the namespaces that have a language; what the service said to each language that it does not know."""
    refused = {}
    for namespace, language in dataset.languages.items():
        try:
            rest.post("/namespaces", {"name": namespace, "config": {"language": language}})
        except RequestFailedError as error:
            if error.status not in _REFUSED:
                raise
            refused[language] = str(error)
    return refused


def _delete(rest: Rest, namespace: str) -> None:
    try:
        rest.delete(f"/namespaces/{quote(namespace)}?recursive=true")
    except RequestFailedError as error:
        # Nothing had been stored in it yet.
        if error.status != _NOT_FOUND:
            raise


def _store(rest: Rest, item: Item) -> float:
    """Seconds that storing took."""
    body = msgspec.json.encode(
        {"namespace": item.namespace, "key": item.key, "value": item.value, "metadata": item.metadata}
    )
    start = time.perf_counter()
    rest.send("POST", f"{API}/store", body)
    return time.perf_counter() - start


def _run(rest: Rest, dataset: Dataset, mode: str, progress: Progress) -> Run:
    covers = {(item.namespace, item.key): item.covers for item in dataset.items}
    task = progress.add_task(f"{dataset.name}: asking, {mode}", total=len(dataset.queries))
    answers: list[Answered] = []
    searching: list[float] = []
    for query in dataset.queries:
        try:
            taken, found = _ask(rest, query, mode)
        except RequestFailedError as error:
            # A mode is refused at once; what fails later is a failure.
            if answers or error.status not in _REFUSED:
                raise
            progress.remove_task(task)
            return Run(mode=mode, refused=str(error))
        searching.append(taken)
        ranked = score([covers[place] for place in found], query.evidence)
        answers.append(Answered(query.conversation, query.text, query.group, [key for _, key in found], ranked))
        progress.advance(task)
    return Run(
        mode=mode,
        groups=_groups(dataset, answers),
        search_ms=_latency(searching),
        empty_answers=sum(not answer.found for answer in answers),
        answers=answers,
    )


def _ask(rest: Rest, query: Query, mode: str) -> tuple[float, list[tuple[str, str]]]:
    """Seconds that the search took, and namespace and key of each result."""
    told = {"query": query.text, "namespace": query.namespace, "limit": _LIMIT, "mode": mode}
    body = msgspec.json.encode(told)
    start = time.perf_counter()
    answer = rest.send("POST", f"{API}/search", body)
    taken = time.perf_counter() - start
    results: list[dict[str, Any]] = msgspec.json.decode(answer)["results"]
    return taken, [(result["namespace"], result["key"]) for result in results]


def _groups(dataset: Dataset, answers: Sequence[Answered]) -> list[Group]:
    members = {name: frozenset({name}) for name in dataset.groups if name in dataset.headline}
    members[HEADLINE[dataset.name]] = dataset.headline
    members |= {name: frozenset({name}) for name in dataset.groups if name not in dataset.headline}
    groups = []
    for name, wanted in members.items():
        if chosen := [answer for answer in answers if answer.group in wanted]:
            by_conversation = {}
            if name == HEADLINE[dataset.name]:
                conversations = [answer.conversation for answer in chosen]
                by_conversation = {
                    measure: over_conversations(_values(chosen, measure), conversations) for measure in MEASURES
                }
            groups.append(
                Group(
                    name=name,
                    questions=len(chosen),
                    score=mean([answer.score for answer in chosen]),
                    intervals={measure: over_questions(_values(chosen, measure)) for measure in MEASURES},
                    by_conversation=by_conversation,
                )
            )
    return groups


def _values(answers: Sequence[Answered], measure: str) -> list[float]:
    return [getattr(answer.score, measure) for answer in answers]


def _latency(seconds: Sequence[float]) -> Latency:
    ordered = sorted(seconds)
    return Latency(percentile(ordered, 50) * 1000, percentile(ordered, 95) * 1000)


def differences(report: Report, earlier: Report | None) -> list[Difference]:
    """Each run less the earlier report's of the same set and mode, and each further mode less the first of this report.

    Raises ValueError where the earlier report has none of this one's runs.
    """
    found: list[Difference] = []
    for measured in report.sets:
        runs = [each for each in measured.runs if each.refused is None]
        for each in runs[1:]:
            found += _paired(measured.name, each, runs[0], f"mode {runs[0].mode}")
    if earlier is None:
        return found
    before = {(each.name, r.mode): r for each in earlier.sets for r in each.runs if r.refused is None}
    pairs = [
        (measured.name, each, before[measured.name, each.mode])
        for measured in report.sets
        for each in measured.runs
        if each.refused is None and (measured.name, each.mode) in before
    ]
    if not pairs:
        raise ValueError(f"The earlier report has only {', '.join(' '.join(place) for place in before) or 'nothing'}")
    for name, each, other in pairs:
        found += _paired(name, each, other, "earlier")
    return found


def _paired(name: str, later: Run, earlier: Run, against: str) -> list[Difference]:
    excluded = f"{ADVERSARIAL} {CATEGORIES[ADVERSARIAL]}"
    before = dict(_numbered(earlier.answers))
    pairs = [
        (answer, before[place])
        for place, answer in _numbered(later.answers)
        if place in before and answer.group != excluded
    ]
    conversations = list(dict.fromkeys(answer.conversation for answer, _ in pairs))
    middle = (len(conversations) + 1) // 2
    parts = {"all": conversations}
    if len(conversations) > 1:
        parts |= {"first half": conversations[:middle], "second half": conversations[middle:]}
    found = []
    for part, names in parts.items():
        chosen = [(now, then) for now, then in pairs if now.conversation in names]
        if chosen:
            intervals = {
                measure: over_questions(
                    [getattr(now.score, measure) - getattr(then.score, measure) for now, then in chosen]
                )
                for measure in MEASURES
            }
            found.append(
                Difference(
                    set=name, mode=later.mode, against=against, part=part, questions=len(chosen), intervals=intervals
                )
            )
    return found


def _numbered(answers: Sequence[Answered]) -> Iterator[tuple[tuple[str, str, str, int], Answered]]:
    """The answers, each under what tells it from all others: a few questions are asked twice."""
    seen: dict[tuple[str, str, str], int] = {}
    for answer in answers:
        place = (answer.conversation, answer.group, answer.question)
        seen[place] = seen.get(place, -1) + 1
        yield (*place, seen[place]), answer


def show(report: Report, console: Console) -> None:
    """Prints what a run found."""
    console.print(str(report.machine), highlight=False)
    for measured in report.sets:
        console.print()
        console.print(
            f"{measured.name}: {measured.conversations} conversations, {measured.memories:,} memories, {measured.questions} "
            f"questions ({measured.dropped} without evidence left out, {measured.unknown_evidence} evidence ids name no turn)",
            highlight=False,
        )
        if measured.languages_refused:
            refused = ", ".join(measured.languages_refused)
            reason = next(iter(measured.languages_refused.values()))
            console.print(f"Stored without their languages {refused}: {reason}", markup=False, highlight=False)
        for each in measured.runs:
            if each.refused is None:
                _show_run(measured.name, each, console)
            else:
                console.print(f"mode {each.mode}: refused: {each.refused}", markup=False, highlight=False)
        told = f" · {measured.sizes}" if measured.sizes else ""
        if measured.embedding_seconds is not None:
            told += f" · vectors {measured.embedding_seconds:.1f} s later"
        console.print(
            f"store p50 {measured.store_ms.p50:.2f} ms, p95 {measured.store_ms.p95:.2f} ms{told}", highlight=False
        )


def _show_run(name: str, told: Run, console: Console) -> None:
    table = Table(title=f"{name}, mode {told.mode}", title_justify="left")
    table.add_column("group")
    for heading in ("questions", *MEASURES.values(), "recall@10, 95 %"):
        table.add_column(heading, justify="right")
    for group in told.groups:
        headline = group.name == HEADLINE[name]
        if headline:
            table.add_section()
        interval = group.intervals["recall_10"]
        table.add_row(
            group.name,
            str(group.questions),
            *(f"{measure:.3f}" for measure in structs.astuple(group.score)),
            f"[{interval.low:.3f}, {interval.high:.3f}]",
            style="bold" if headline else None,
            end_section=headline,
        )
    console.print(table, markup=False)
    for group in told.groups:
        for title, intervals in (("questions", group.intervals), ("conversations", group.by_conversation)):
            if group.by_conversation:
                told_intervals = ", ".join(f"{MEASURES[measure]} {each}" for measure, each in intervals.items())
                console.print(f"{group.name}, over {title}: {told_intervals}", markup=False, highlight=False)
    if told.search_ms is not None:
        console.print(
            f"search p50 {told.search_ms.p50:.2f} ms, p95 {told.search_ms.p95:.2f} ms · "
            f"{told.empty_answers} questions had no result at all",
            highlight=False,
        )


def show_differences(found: Sequence[Difference], console: Console) -> None:
    """Prints paired differences."""
    table = Table(title="Paired differences, 95 % over the headline's questions", title_justify="left")
    for heading in ("set", "mode", "less", "conversations", "questions"):
        table.add_column(heading)
    for heading in MEASURES.values():
        table.add_column(heading, justify="right")
    for _, group in itertools.groupby(found, lambda each: (each.set, each.mode, each.against)):
        for each in group:
            told = (each.set, each.mode, each.against, each.part, str(each.questions))
            table.add_row(*told, *(each.intervals[measure].signed().replace("[", "\\[") for measure in MEASURES))
        table.add_section()
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; the exit status is 1 where it could not be done."""
    parser = argparse.ArgumentParser(prog="scripts/bench retrieval", description=__doc__)
    parser.add_argument("--set", nargs="+", choices=SETS, default=list(SETS), help="what to ask (default: all)")
    parser.add_argument(
        "--mode",
        nargs="+",
        choices=MODES,
        default=[DEFAULT_MODE],
        help="how; fulltext alone is asked without any vectors (default: %(default)s)",
    )
    parser.add_argument("--url", help="a running service (default: starts one over an empty directory for each set)")
    parser.add_argument("--keep", action="store_true", help="with --url and one set: leave what was stored")
    parser.add_argument("--data", type=Path, default=_conversations.DATA, help="LoCoMo's file (default: %(default)s)")
    parser.add_argument(
        "--conversations", type=lambda text: text.split(","), help="only these, such as conv-26,conv-30", default=[]
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="also write everything found, with every answer's keys"
    )
    parser.add_argument(
        "--compare", type=Path, metavar="FILE", help="print the differences to what --json wrote earlier"
    )
    options = parser.parse_args(arguments)
    if options.keep and len(options.set) > 1:
        parser.error("--keep goes with one set: turns and facts share their namespaces")
    progress = Console(stderr=True)
    try:
        earlier = msgspec.json.decode(options.compare.read_bytes(), type=Report) if options.compare else None
        report = run(options, progress)
        found = differences(report, earlier)
    except (OSError, ValueError, RuntimeError, RequestFailedError) as error:
        progress.print(f"scripts/bench retrieval: {error}", style="bold red", markup=False, highlight=False)
        return 1
    console = Console(width=None if sys.stdout.isatty() else _WIDTH)
    show(report, console)
    if found:
        show_differences(found, console)
    if options.json is not None:
        options.json.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
