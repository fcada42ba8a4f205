"""What is told of a migration: the report, for people and for programs, and the lists of records beside it."""

import base64
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from unified_memory.model.errors import StorageError
from unified_memory.service.copying import Counts, Shown
from unified_memory.sources.ledger import Notice, Renumbered, SourceRef

REPORT_JSON, REPORT_TEXT = "report.json", "report.md"
RECORDS, QUARANTINE, RETURNED = "records.jsonl", "quarantine.jsonl", "returned.jsonl"
_encode = msgspec.json.Encoder().encode


class ProjectReport(Struct):
    """What came of the records of a project; None: of those that have none."""

    project: str | None
    counts: Counts


class SourceReport(Struct):
    """What came of a source, in all and by project. `seconds`: what its last pass took. `remarks`: what it cannot show."""

    kind: str
    location: str
    counts: Counts
    projects: list[ProjectReport]
    seconds: float = 0.0
    remarks: list[str] = []


class Conflict(Struct):
    """A record that was not written, and why."""

    source: str
    location: str
    origin: str
    reason: str


class Report(Struct):
    """What a run has done, or with `dry_run` would. Counts are of its first pass through each source, with what the passes after
    it (`passes` in all) have copied, changed and removed. `complete`: every source was read to its end. `rate`: records a
    second. `conflicts`: the first hundred; `first`: the first records as they are here, by source. Instants in RFC 3339.
    """

    started_at: str
    finished_at: str = ""
    seconds: float = 0.0
    records: int = 0
    rate: float = 0.0
    phase: str = "none"
    dry_run: bool = False
    complete: bool = False
    passes: int = 0
    sources: list[SourceReport] = []
    conflicts: list[Conflict] = []
    renumbered: list[Renumbered] = []
    first: list[Shown] = []
    rollback_point: str | None = None


def total_of(projects: Iterable[Counts]) -> Counts:
    """The sum."""
    total = Counts()
    for counts in projects:
        for name in Counts.__struct_fields__:
            setattr(total, name, getattr(total, name) + getattr(counts, name))
    return total


def source_report(ref: SourceRef, counts: dict[str | None, Counts], seconds: float, remarks: list[str]) -> SourceReport:
    """What came of a source, projects by name."""
    ordered = sorted(counts.items(), key=lambda one: (one[0] is not None, one[0] or ""))
    projects = [ProjectReport(project, counts) for project, counts in ordered]
    return SourceReport(ref.kind, ref.shown, total_of(counts.values()), projects, round(seconds, 3), remarks)


def merged(former: SourceReport, later: SourceReport) -> SourceReport:
    """What came of a source in two passes: what each has done adds up, the rest is as the later one has seen it."""
    before = {one.project: one.counts for one in former.projects}
    for one in later.projects:
        for name in ("copied", "changed", "removed", "renumbered"):
            was = getattr(before.get(one.project, Counts()), name)
            setattr(one.counts, name, getattr(one.counts, name) + was)
        # What was copied by the first pass is the same to the second.
        one.counts.same = max(0, one.counts.same - before.get(one.project, Counts()).copied)
    seen = {one.project for one in later.projects}
    later.projects += [one for one in former.projects if one.project not in seen and one.counts.removed]
    later.counts = total_of(one.counts for one in later.projects)
    return later


def text_of(report: Report) -> str:
    """The report in Markdown."""
    lines = [
        "# Migration" + (" (a dry run: nothing was written)" if report.dry_run else ""),
        "",
        f"From {report.started_at} to {report.finished_at}: {report.records} records in {report.seconds:.1f} s"
        f" ({report.rate:.0f} a second), passes: {report.passes}, phase: {report.phase}."
        + ("" if report.complete else " **Not complete: it ended early.**"),
        "",
    ]
    if report.rollback_point is not None:
        lines += [f"Rollback point: `{report.rollback_point}`", ""]
    names = [name for name in Counts.__struct_fields__ if any(getattr(one.counts, name) for one in report.sources)]
    names = [name for name in Counts.__struct_fields__ if name in {"read", "copied", "same", *names}]
    for one in report.sources:
        lines += [f"## {one.kind} `{_cell(one.location)}`", ""]
        lines += [f"- {remark}" for remark in one.remarks] + ([""] if one.remarks else [])
        lines += ["| project | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
        for part in one.projects:
            shown = "(none)" if part.project is None else f"`{_cell(part.project)}`"
            lines.append(f"| {shown} | " + " | ".join(str(getattr(part.counts, name)) for name in names) + " |")
        lines += ["| **all** | " + " | ".join(str(getattr(one.counts, name)) for name in names) + " |", ""]
    if report.conflicts:
        lines += ["## Not written", ""]
        lines += [f"- {one.source} `{_cell(one.origin)}`: {_cell(one.reason)}" for one in report.conflicts]
        lines.append("")
    if report.renumbered:
        lines += ["## Known by another number here", "", "| former | now |", "|---|---|"]
        lines += [f"| {_cell(one.former)} | {one.number} |" for one in report.renumbered]
        lines.append("")
    if report.first:
        lines += ["## The first records", ""]
        lines += [f"- `{_cell(one.origin)}` is `{_cell(one.namespace)}`: `{_cell(one.key)}`" for one in report.first]
        lines.append("")
    lines.append(f"What is quarantined stands in {QUARANTINE}, every record in {RECORDS}.")
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """A text as it may stand in a cell of a table, and between back quotes."""
    return " ".join(text.replace("|", "\\|").replace("`", "'").split())


def quarantine_line(source: SourceRef, notice: Notice) -> bytes:
    """A line of the list of what is quarantined; what is no UTF-8 is in base64."""
    line: dict[str, Any] = {
        "source": source.kind,
        "location": source.shown,
        "origin": notice.origin,
        "code": notice.code,
        "reason": notice.reason,
        "stored": notice.stored,
    }
    try:
        line["raw"] = notice.raw.decode()
    except UnicodeDecodeError:
        line["raw_base64"] = base64.b64encode(notice.raw).decode()
    return _encode(line) + b"\n"


def write_whole(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Makes a file, or replaces it, durably: the former one stays until the new one is whole. Raises StorageError."""
    temp = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temp.replace(path)
        directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise StorageError(f"Cannot write {path}: {error.strerror or error}") from error


def join_files(path: Path, parts: list[Path]) -> None:
    """Makes one file of those that are there. Raises StorageError."""

    def write(file: BinaryIO) -> None:
        for part in parts:
            if part.exists():
                with part.open("rb") as source:
                    shutil.copyfileobj(source, file)

    write_whole(path, write)


def save(directory: Path, report: Report) -> None:
    """Writes the report for programs and for people. Raises StorageError."""
    data, text = msgspec.json.format(_encode(report), indent=2), text_of(report).encode(errors="replace")
    write_whole(directory / REPORT_JSON, lambda file: _put(file, data))
    write_whole(directory / REPORT_TEXT, lambda file: _put(file, text))


def load(directory: Path) -> Report | None:
    """The last report; None where there is none. Raises StorageError."""
    try:
        return msgspec.json.decode((directory / REPORT_JSON).read_bytes(), type=Report)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise StorageError(f"The report cannot be read: {error}") from error


def _put(file: BinaryIO, data: bytes) -> None:
    file.write(data)
