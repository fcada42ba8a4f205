"""Migration: other programs' memories copied here while they go on working, the change of services, and the way back.

The phases are those of `sources/ledger.py`. Before the switch the older services are right wherever ours says something else;
from the switch on ours are, and what changes here is written back.
"""

import asyncio
import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
from msgspec import Struct

from unified_memory.model.clock import SECOND, Clock, from_rfc3339, to_rfc3339
from unified_memory.model.errors import (
    InProgressError,
    InvalidInputError,
    MigrationStateError,
    PermissionDeniedError,
    ReadOnlyError,
    RefusedError,
)
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.service.backups import Backup, Backups
from unified_memory.service.changeover import FINISH_SECONDS, POINT, Changeover, Finished, RolledBack
from unified_memory.service.copying import Counts, OnConflict, Pass, Rules, Shown
from unified_memory.service.drafting import Limits
from unified_memory.service.guard import Guard
from unified_memory.service.leasing import (
    PASS_LEASE,
    POLL_SECONDS,
    RETURN_LEASE,
    RUN_LEASE,
    RUNNER,
    SHORT_LEASE_SECONDS,
    Lease,
    alone,
    at_it,
    note_runner,
    runner_of,
)
from unified_memory.service.mapping import Mapping, place_of
from unified_memory.service.points import check_point, exported, lines_of, plain, transformed, write_point
from unified_memory.service.reaching import OpenSource, Reach, is_older_kind, shape_of_kind
from unified_memory.service.replaying import Answers, Replay, Replayed, Replaying
from unified_memory.service.reporting import (
    QUARANTINE,
    RECORDS,
    Conflict,
    Report,
    SourceReport,
    join_files,
    load,
    merged,
    quarantine_line,
    save,
    source_report,
    text_of,
    write_whole,
)
from unified_memory.service.requests import BackupRequest
from unified_memory.service.transfer import Imported, Transfer
from unified_memory.service.verifying import Difference, SourceCheck, Verifying, is_right
from unified_memory.service.work import Advance, Work
from unified_memory.sources.base import (
    EXTENDED_MEMORY,
    MEMORY_BANK,
    Item,
    OlderSource,
    Options,
    Quarantined,
    Shape,
    Survey,
)
from unified_memory.sources.kinds import open_source
from unified_memory.sources.ledger import BEFORE, Comparison, Ledger, Member, Phase, Row, SourceRef
from unified_memory.storage.base import Storage

LEDGER = "ledger.db"
# A rollback point waits so long for another backup, or for one that was killed to lapse.
BACKUP_WAIT_SECONDS = 75.0
# A plan looks at so many records of each source.
PLANNED_RECORDS = 1000
# What is estimated for a record and its index: bytes for each, and for each byte of a source.
RECORD_BYTES = 900
SOURCE_RATIO = 3
# Where programs keep their memories when nobody says otherwise.
DEFAULT_PLACES = (
    ("extended-memory-sqlite", "~/.local/share/extended-memory-mcp/memory.db"),
    ("extended-memory-http-db", "/var/lib/mcp/extended_memory.db"),
    ("extended-memory-http-db", "/opt/sutazaiapp/data/mcp/extended-memory/extended_memory.db"),
    ("extended-memory-http-json", "/var/lib/mcp/memory.json"),
    ("memory-bank-sqlite", "memory_bank.db"),
    ("memory-keeper", "~/mcp-data/memory-keeper/context.db"),
    ("claude-mem", "~/.claude-mem/claude-mem.db"),
    ("basic-memory", "~/basic-memory"),
    ("mem0", "~/.mem0/history.db"),
    ("mcp-memory-service", "~/.local/share/mcp-memory/sqlite_vec.db"),
)
# Phases in which an older service is right.
_OLDER_IS_RIGHT = {Phase.NONE, Phase.SHADOW, Phase.SWITCHING, Phase.RETURNED}

Named = Sequence[tuple[str, str]]


class RunOptions(Struct, frozen=True, kw_only=True):
    """How a run goes. `follow`: it goes on copying what is newly written, with `interval` seconds between looks at the source.
    `dry_run`: nothing is written anywhere. `first`: so many records of each source are shown. `on_conflict`: what happens where
    something else is stored here; with "replace" what was deleted or changed here comes back too. `options`: of the sources.
    """

    follow: bool = False
    interval: float = 2.0
    dry_run: bool = False
    first: int = 5
    mapping: Mapping = Mapping()
    on_conflict: OnConflict = "skip"
    rollback_point: bool = True
    options: Options = Options()


class SourcePlan(Struct):
    """What a run would do with a source, as far as its first thousand records tell."""

    survey: Survey
    first: list[Shown]
    looked_at: Counts
    conflicts: list[Conflict]


class Plan(Struct):
    """What a run would do. `found`: what lies at its usual place, where no source was named. `needed_bytes`: an estimate, None
    where a source does not tell; `free_bytes`: on the disk of the data.
    """

    phase: str
    sources: list[SourcePlan]
    found: list[tuple[str, str]]
    needed_bytes: int | None
    free_bytes: int | None


class SourceStatus(Struct):
    """How a source stands."""

    kind: str
    location: str
    copied: int
    quarantined: int
    conflicts: int
    skipped: int


class Status(Struct):
    """How a migration stands. `complete`: all sources were read to their end once. `run`: who is copying at this moment.
    `returned`: memories that were written back. `since`: of the phase, RFC 3339.
    """

    phase: str
    since: str | None = None
    complete: bool = False
    run: str | None = None
    sources: list[SourceStatus] = []
    proxies: list[Member] = []
    comparisons: list[Comparison] = []
    returned: int = 0
    rollback_point: str | None = None


class Verification(Struct):
    """Whether the sources and ours say the same. `differences`: the first hundred. `replay`: reads that both were asked."""

    ok: bool
    seconds: float
    sources: list[SourceCheck]
    differences: list[Difference]
    replay: Replayed | None = None


class _Course(Struct):
    """A run under way. `lease`: as the only one; `held`: as the one who reads the sources at this moment."""

    ledger: Ledger
    rules: Rules
    work: Work
    report: Report
    lease: Lease
    held: Lease | None = None

    def check(self) -> None:
        """Raises InProgressError where another process has taken over meanwhile."""
        self.lease.check()
        if self.held is not None:
            self.held.check()


class MemoryMigrationManager:
    """Everything about a migration. Only a principal that sees all namespaces may have it done.

    `directory`: where the ledger and the reports lie, None for nowhere. `points`: where rollback points are put.
    `answers`: asks a tool of ours as a client of the older services would; set by whoever composes the interfaces.
    """

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        guard: Guard,
        backups: Backups,
        directory: Path | None = None,
        points: Path | None = None,
        *,
        open_source: OpenSource = open_source,
    ) -> None:
        self.storage = storage
        self.clock = clock
        self.guard = guard
        self.backups = backups
        self.directory = directory
        self.points = points
        self.reach = Reach(open_source)
        self.answers: Answers | None = None
        self._ledger: Ledger | None = None
        self._opening = asyncio.Lock()
        self._tokens: dict[int, object] = {}

    async def close(self) -> None:
        """Frees everything."""
        await self.reach.close()
        ledger, self._ledger = self._ledger, None
        if ledger is not None:
            await asyncio.to_thread(ledger.close)

    # ---- looking
    async def plan(self, principal: Principal, sources: Named = (), options: RunOptions | None = None) -> Plan:
        """What a run would do; nothing is written. Raises SourceError, InvalidInputError."""
        _require_all(principal)
        options = options or RunOptions()
        options.mapping.check()
        ledger = await self._known()
        plans = []
        known = [] if ledger is None else await asyncio.to_thread(ledger.sources)
        for ref in await self._refs(ledger, sources, options.options) if sources or known else []:
            reached = await self.reach.at(ref)
            survey = await reached.do(reached.source.survey)
            one = await self._look_at(ref, ledger, options, most=max(PLANNED_RECORDS, options.first))
            looked_at = source_report(ref, one.counts, 0.0, []).counts
            conflicts = [Conflict(ref.kind, ref.shown, notice.origin, notice.reason) for notice in one.conflicts]
            plans.append(SourcePlan(survey, one.shown, looked_at, conflicts))
        needs = [_needed(plan.survey) for plan in plans]
        return Plan(
            (await self.phase()).value,
            plans,
            [] if sources else await asyncio.to_thread(_usual_places),
            None if None in needs else sum(need for need in needs if need is not None),
            await asyncio.to_thread(self._free_bytes),
        )

    async def status(self, principal: Principal) -> Status:
        """How it stands."""
        _require_all(principal)
        ledger = await self._known()
        return Status(Phase.NONE.value) if ledger is None else await asyncio.to_thread(self._status, ledger)

    def _status(self, ledger: Ledger) -> Status:
        told = ledger.get("phase")
        return Status(
            ledger.phase().value,
            None if told is None else to_rfc3339(told["since"]),
            complete=ledger.get("complete") is not None,
            run=None if (runner := runner_of(ledger, RUNNER)) is None or runner.is_dead() else runner.shown,
            sources=[
                SourceStatus(
                    ref.kind,
                    ref.shown,
                    ledger.count(ref.id),
                    ledger.notice_count(ref.id, "quarantine"),
                    ledger.notice_count(ref.id, "conflict"),
                    ledger.notice_count(ref.id, "skipped"),
                )
                for ref in ledger.sources()
            ],
            proxies=ledger.members(self.clock.now()),
            comparisons=ledger.comparisons(),
            returned=ledger.returned_count(),
            rollback_point=(ledger.get("rollback_point") or {}).get("path"),
        )

    async def report(self, principal: Principal = ANONYMOUS) -> Report:
        """What the last run has done. Raises MigrationStateError where there was none."""
        _require_all(principal)
        found = None if self.directory is None else await asyncio.to_thread(load, self.directory)
        if found is None:
            raise MigrationStateError("Nothing was migrated yet", (await self.phase()).value)
        return found

    @staticmethod
    def report_text(report: Report) -> str:
        """A report in Markdown."""
        return text_of(report)

    # ---- copying
    async def run(
        self,
        principal: Principal,
        sources: Named = (),
        options: RunOptions | None = None,
        advance: Advance | None = None,
    ) -> Report:
        """Copies what the sources hold (without any: those that were named before), and with `follow` goes on until the phase
        is another one. `advance` is told records.

        Ended at any instant it may be run again. Raises InvalidInputError, MigrationStateError, InProgressError, ReadOnlyError,
        QuotaExceededError, SourceError (what was copied before stays, nothing is removed), and StorageError.
        """
        _require_all(principal)
        options = options or RunOptions()
        options.mapping.check()
        if options.dry_run:
            return await self._dry_run(sources, options, advance)
        await self._require_writes()
        ledger = await self.ledger()
        async with at_it(ledger, RUNNER, self.storage, self.clock) as (runner, former):
            who = f"A migration is under way already ({'another process' if former is None else former.shown})"
            async with alone(self.storage, self.clock, RUN_LEASE, who, holder=runner.holder) as lease:
                await asyncio.to_thread(note_runner, ledger, RUNNER, runner)
                return await self._run(principal, ledger, lease, sources, options, advance)

    async def _run(
        self,
        principal: Principal,
        ledger: Ledger,
        lease: Lease,
        sources: Named,
        options: RunOptions,
        advance: Advance | None,
    ) -> Report:
        refs = await self._refs(ledger, sources, options.options)
        surveys = await self._surveys(refs)
        older = [ref for ref in refs if is_older_kind(ref.kind)]
        phase = await asyncio.to_thread(ledger.phase)
        _require_may_run(phase, older)
        point = (await asyncio.to_thread(ledger.get, POINT) or {}).get("path")
        if point is None and options.rollback_point:
            point = await RollbackManager(self).create_rollback_point(principal, older)
        added = [await asyncio.to_thread(ledger.add_source, ref.kind, ref.location, ref.options) for ref in refs]
        if older and phase in {Phase.NONE, Phase.RETURNED}:
            await asyncio.to_thread(ledger.put, "complete", None)
            await asyncio.to_thread(ledger.put, "rolled_back", None)
            phase = Phase.SHADOW
            await asyncio.to_thread(ledger.set_phase, phase)
        await asyncio.to_thread(ledger.put, "mapping", msgspec.to_builtins(options.mapping))
        report = Report(to_rfc3339(self.clock.now()), phase=phase.value, rollback_point=point)
        async with Work(advance) as work:
            totals = [survey.records for survey in surveys]
            work.total = None if None in totals else sum(total for total in totals if total is not None)
            course = _Course(ledger, Rules(options.mapping, options.on_conflict), work, report, lease)
            async with self._passing(lease, wait=10.0) as course.held:
                for ref, survey in zip(added, surveys, strict=True):
                    report.sources.append(await self._pass(course, ref, survey, first=options.first))
            await asyncio.to_thread(ledger.put, "complete", {"at": self.clock.now()})
            await self._finish_report(ledger, report)
            course.rules = Rules(options.mapping)
            while options.follow and await asyncio.to_thread(ledger.phase) is phase:
                await asyncio.sleep(options.interval)
                lease.check()
                await self._follow(course, added, phase)
        return report

    async def _follow(self, course: _Course, refs: list[SourceRef], phase: Phase) -> None:
        """One pass through each source that has changed since the last one."""
        passed, reports = False, course.report.sources
        for place, ref in enumerate(refs):
            if not await self._has_changed(ref):
                continue
            try:
                async with self._passing(course.lease) as course.held:
                    if await asyncio.to_thread(course.ledger.phase) is not phase:
                        return
                    one = await self._pass(course, ref)
            except InProgressError:
                course.lease.check()
                # Services are being changed; whoever does so copies the rest.
                return
            one.remarks = reports[place].remarks
            reports[place] = merged(reports[place], one)
            passed = True
        if passed:
            await self._finish_report(course.ledger, course.report)

    async def _pass(
        self, course: _Course, ref: SourceRef, survey: Survey | None = None, *, first: int = 0
    ) -> SourceReport:
        """One pass through a source, with its list of records."""
        begun = self.clock.now()
        lookups = await self.reach.at(ref)
        token = await lookups.do(lookups.source.token)
        right = await asyncio.to_thread(course.ledger.phase) in _OLDER_IS_RIGHT
        rules = msgspec.structs.replace(course.rules, truth=right and lookups.is_older)

        def check() -> None:
            course.check()
            self.guard.check()

        expected = 0 if survey is None else survey.records or 0
        one = Pass(self.storage, self.clock, course.ledger, lookups, rules, check, expected)
        await self._with_reader(ref, one, course.work, first)
        self._tokens[ref.id] = token
        report = course.report
        report.passes += 1
        report.first += one.shown
        report.conflicts = [
            *(told for told in report.conflicts if (told.source, told.location) != (ref.kind, ref.shown)),
            *(Conflict(ref.kind, ref.shown, told.origin, told.reason) for told in one.conflicts),
        ]
        seconds = (self.clock.now() - begun) / SECOND
        return source_report(ref, one.counts, seconds, [] if survey is None else survey.remarks)

    async def _with_reader(self, ref: SourceRef, one: Pass, work: Work, first: int) -> None:
        if self.directory is None:
            raise TypeError
        reader = await self.reach.new(ref)
        try:
            temp = self._part(ref).with_suffix(".tmp")
            with await asyncio.to_thread(temp.open, "wb") as records:
                await one.run(reader, work, records=records, first=first)
            await asyncio.to_thread(temp.replace, self._part(ref))
        finally:
            await reader.close()

    async def _finish_report(self, ledger: Ledger, report: Report) -> None:
        """Writes the report and the lists beside it."""
        now = self.clock.now()
        report.finished_at = to_rfc3339(now)
        report.seconds = (now - from_rfc3339(report.started_at)) / SECOND
        report.records = sum(one.counts.read for one in report.sources)
        taken = sum(one.seconds for one in report.sources)
        report.rate = round(report.records / taken, 1) if taken else 0.0
        report.complete = True
        directory = self.directory
        if directory is None:
            raise TypeError

        def write() -> None:
            report.renumbered = ledger.renumbered()
            report.phase = ledger.phase().value
            join_files(directory / RECORDS, [self._part(ref) for ref in ledger.sources()])
            write_whole(directory / QUARANTINE, lambda file: _write_quarantine(ledger, file))
            save(directory, report)

        await asyncio.to_thread(write)

    async def _dry_run(self, sources: Named, options: RunOptions, advance: Advance | None) -> Report:
        ledger = await self._known()
        refs = await self._refs(ledger, sources, options.options)
        surveys = await self._surveys(refs)
        report = Report(to_rfc3339(self.clock.now()), phase=(await self.phase()).value, dry_run=True)
        async with Work(advance) as work:
            for ref, survey in zip(refs, surveys, strict=True):
                begun = self.clock.now()
                one = await self._look_at(ref, ledger, options, work=work)
                seconds = (self.clock.now() - begun) / SECOND
                report.sources.append(source_report(ref, one.counts, seconds, survey.remarks))
                report.first += one.shown
                report.conflicts += [Conflict(ref.kind, ref.shown, told.origin, told.reason) for told in one.conflicts]
                report.passes += 1
        now = self.clock.now()
        report.finished_at, report.seconds = to_rfc3339(now), (now - from_rfc3339(report.started_at)) / SECOND
        report.records = sum(one.counts.read for one in report.sources)
        report.rate = round(report.records / report.seconds, 1) if report.seconds else 0.0
        report.complete = True
        return report

    async def _look_at(
        self,
        ref: SourceRef,
        ledger: Ledger | None,
        options: RunOptions,
        *,
        work: Work | None = None,
        most: int | None = None,
    ) -> Pass:
        """A pass that writes nothing."""
        lookups = await self.reach.at(ref)
        right = await self.phase() in _OLDER_IS_RIGHT
        rules = Rules(options.mapping, options.on_conflict, truth=right and lookups.is_older, dry_run=True)
        one = Pass(self.storage, self.clock, ledger, lookups, rules, lambda: None)
        reader = await self.reach.new(ref)
        try:
            await one.run(reader, work or Work(None), first=options.first, most=most)
        finally:
            await reader.close()
        return one

    async def verify(
        self, principal: Principal, *, replay: Replay | None = None, samples: int = 50, advance: Advance | None = None
    ) -> Verification:
        """Reads every source again and compares it with what is here; with `replay` asks up to `samples` reads of the older
        service and of ours. `advance` is told records. Raises MigrationStateError where nothing was migrated, SourceError,
        InvalidInputError, RefusedError where nobody answers as the older tools do.
        """
        _require_all(principal)
        ledger = await self._known()
        if ledger is None:
            raise MigrationStateError("Nothing was migrated yet", Phase.NONE.value)
        begun = self.clock.now()
        mapping = msgspec.convert(await asyncio.to_thread(ledger.get, "mapping") or {}, Mapping)
        differences: list[Difference] = []
        checks = []
        async with Work(advance) as work:
            for ref in await asyncio.to_thread(ledger.sources):
                reader = await self.reach.new(ref)
                try:
                    one = Verifying(self.storage, self.clock, ledger, reader, mapping, differences)
                    checks.append(await one.run(work))
                finally:
                    await reader.close()
        replayed = None
        if replay is not None:
            replayed = await Replaying(self.storage, self.clock, ledger, self.answers).run(replay, samples)
        right = all(map(is_right, checks)) and not differences
        return Verification(
            right and (replayed is None or replayed.same == replayed.asked),
            (self.clock.now() - begun) / SECOND,
            checks,
            differences,
            replayed,
        )

    # ---- the change of services
    async def switch(self, principal: Principal, *, wait: float = 30.0) -> Status:
        """Ours answers from now on, with everything that the older services hold; proxies have `wait` seconds to hold requests
        back. Raises MigrationStateError unless a run was complete, InProgressError, SourceError; then nothing has changed.
        """
        _require_all(principal)
        await self._require_writes()
        await (await self._changeover()).switch(wait)
        return await self.status(principal)

    async def rollback(
        self, principal: Principal, *, restore: bool = False, advance: Advance | None = None, wait: float = 30.0
    ) -> RolledBack:
        """The older services alone answer from now on, and hold everything that was stored, changed or deleted here since the
        switch. `restore`: ours becomes what it was before the migration. Tried again it changes nothing.

        Raises MigrationStateError, InProgressError, and SourceError before anything is done where a source cannot be written.
        """
        _require_all(principal)
        ledger, changeover = await self.ledger(), await self._changeover()
        point = await asyncio.to_thread(ledger.get, POINT) or {}
        return await changeover.rollback(principal, point, restore=restore, advance=advance, wait=wait)

    async def finish(self, principal: Principal, *, wait: float = FINISH_SECONDS) -> Finished:
        """The end of the older services: a last backup of their files, and the commands that would remove them. A pass that is
        under way is waited for, so many seconds at most.

        Raises MigrationStateError unless ours answers, SourceError, StorageError.
        """
        _require_all(principal)
        if self.points is None:
            raise RefusedError(
                "There is no place for the last backups of the older services", hint="Set MCP_BACKUP_DIR"
            )
        await self.return_pass()
        return await (await self._changeover()).finish(self.points, wait)

    # ---- for the proxy
    async def phase(self) -> Phase:
        """The phase that holds; takes microseconds."""
        ledger = await self._known()
        return Phase.NONE if ledger is None else ledger.phase()

    async def mirror(self, service: str, shape: Shape, project: str | None, key: str) -> None:
        """Copies what the older service of that name has now under that address, or that it has nothing there any longer.

        Only in the shadow phase; otherwise nothing is done. Raises SourceError, StorageError.
        """
        ledger = await self._known()
        if ledger is None or ledger.phase() is not Phase.SHADOW:
            return
        mapping = msgspec.convert(await asyncio.to_thread(ledger.get, "mapping") or {}, Mapping)
        for ref in await asyncio.to_thread(ledger.sources):
            if shape_of_kind(ref.kind) != shape:
                continue
            reached = await self.reach.at(ref)
            if reached.older.service != service:
                continue
            one = Pass(self.storage, self.clock, ledger, reached, Rules(mapping, truth=True), self.guard.check)
            origin = await reached.do(reached.older.find, shape, project, key)
            found = None if origin is None else await reached.do(reached.older.lookup, origin)
            if isinstance(found, Item):
                await one.one(found)
            elif isinstance(found, Quarantined):
                await one.told(found)
            else:
                await one.remove(await self._rows_at(ledger, ref, service, shape, project, key, mapping))

    async def return_pass(self) -> int:
        """Writes back into the older services what has changed here since the last time, where ours answers; how many memories.

        Nothing where another process is at it, or wants to be. Raises SourceError, StorageError.
        """
        ledger = await self._known()
        if ledger is None or ledger.phase() is not Phase.SWITCHED:
            return 0
        changeover = await self._changeover()
        lease = Lease(self.storage, self.clock, RETURN_LEASE, seconds=SHORT_LEASE_SECONDS)
        if await changeover.gives_way() or not await lease.take():
            return 0
        async with lease.held():
            return await changeover.return_pass(lease.check)

    async def join(self, service: str) -> str:
        """A proxy begins to stand in for a service; its id."""
        ledger, proxy_id = await self.ledger(), secrets.token_hex(8)
        await asyncio.to_thread(ledger.join, proxy_id, service, os.getpid(), self.clock.now())
        return proxy_id

    async def beat(self, proxy_id: str, acknowledged: Phase) -> None:
        """A proxy does as that phase says; to be told at once when it changes, and every second or two."""
        await asyncio.to_thread((await self.ledger()).beat, proxy_id, acknowledged, self.clock.now())

    async def leave(self, proxy_id: str) -> None:
        """A proxy ends."""
        await asyncio.to_thread((await self.ledger()).leave, proxy_id)

    async def compared(self, service: str, tool: str, same: bool, sample: str | None = None) -> None:  # noqa: FBT001 - what came of it
        """Both services were asked. `sample`: what was different."""
        await asyncio.to_thread((await self.ledger()).compare_note, service, tool, same, sample)

    # ---- as the mission names it
    async def migrate_all_data(self, principal: Principal = ANONYMOUS, advance: Advance | None = None) -> Verification:
        """Copies everything from the sources that were named before, and compares. Raises what `run` and `verify` raise."""
        await self.run(principal, (), advance=advance)
        return await self.validate_migration(principal)

    async def export_extended_memory(self, principal: Principal = ANONYMOUS) -> list[dict[str, Any]]:
        """What the sources of extended-memory hold, as plain records. All of it is held at once; `run` copies without that."""
        return await self._exported(principal, EXTENDED_MEMORY)

    async def export_memory_bank(self, principal: Principal = ANONYMOUS) -> list[dict[str, Any]]:
        """What the sources of the memory bank hold, as plain records; see `export_extended_memory`."""
        return await self._exported(principal, MEMORY_BANK)

    @staticmethod
    def transform_to_unified_schema(
        extended_data: Iterable[dict[str, Any]], bank_data: Iterable[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """The memories that exported records become, as the architecture has it: those of extended-memory below
        `migrated_extended`, those of the bank below `migrated_bank`. `run` places them where the older tools look for them.
        """
        return transformed(extended_data, bank_data)

    async def import_to_unified(
        self, unified_data: Iterable[dict[str, Any]], principal: Principal = ANONYMOUS
    ) -> Imported:
        """Stores such memories; what is stored already stays. Raises as an import does."""
        _require_all(principal)
        await self._require_writes()
        transfer = Transfer(self.storage, self.clock, self.guard, Limits())
        return await transfer.import_lines(principal, lines_of(unified_data))

    async def validate_migration(self, principal: Principal = ANONYMOUS) -> Verification:
        """As `verify`."""
        return await self.verify(principal)

    async def _exported(self, principal: Principal, service: str) -> list[dict[str, Any]]:
        _require_all(principal)
        ledger = await self._known()
        records: list[dict[str, Any]] = []
        for ref in [] if ledger is None else await asyncio.to_thread(ledger.sources):
            if not is_older_kind(ref.kind):
                continue
            reached = await self.reach.at(ref)
            if reached.older.service == service:
                async with Work(None) as work:
                    records += await work.end(reached.do(_all_of, reached.older, work))
        return [plain(record) for record in records if "quarantined" not in record]

    # ---- within
    async def _changeover(self) -> Changeover:
        if self.directory is None:
            raise RefusedError("There is no place for the ledger of a migration", hint="Set MCP_DATA_DIR")
        ledger = await self.ledger()
        return Changeover(
            self.storage, self.clock, ledger, self.backups, self.reach, self.directory, partial(self._catch_up, ledger)
        )

    async def _catch_up(self, ledger: Ledger) -> None:
        """One pass through each older service that has changed since the last one of this process."""
        mapping = msgspec.convert(await asyncio.to_thread(ledger.get, "mapping") or {}, Mapping)
        lease = Lease(self.storage, self.clock, PASS_LEASE)
        async with Work(None) as work:
            course = _Course(ledger, Rules(mapping), work, Report(to_rfc3339(self.clock.now())), lease)
            for ref in await asyncio.to_thread(ledger.sources):
                if is_older_kind(ref.kind) and await self._has_changed(ref):
                    await self._pass(course, ref)

    async def _rows_at(
        self,
        ledger: Ledger,
        ref: SourceRef,
        service: str,
        shape: Shape,
        project: str | None,
        key: str,
        mapping: Mapping,
    ) -> list[Row]:
        """The rows of what an older service had under an address."""
        if shape == "context":
            row = await asyncio.to_thread(ledger.row, ref.id, f"context/{key}")
            return [] if row is None else [row]
        item = Item(origin="", service=service, shape=shape, project=project, key=key, value=b"null")
        rows = await asyncio.to_thread(ledger.by_place, *place_of(item, ref.kind, mapping))
        return [row for row in rows if row.source == ref.id]

    async def _require_writes(self) -> None:
        await self.guard.look()
        self.guard.check()
        if (reason := await self.guard.switched_off()) is not None:
            raise ReadOnlyError(reason)

    async def ledger(self) -> Ledger:
        """The ledger, which is made where there is none. Raises RefusedError where it has no place, StorageError."""
        if self.directory is None:
            raise RefusedError("There is no place for the ledger of a migration", hint="Set MCP_DATA_DIR")
        async with self._opening:
            if self._ledger is None:
                ledger = Ledger(self.directory / LEDGER, self.clock)
                await asyncio.to_thread(ledger.open)
                self._ledger = ledger
            return self._ledger

    async def _known(self) -> Ledger | None:
        """The ledger, where there is one."""
        if self._ledger is None and (self.directory is None or not Ledger.exists(self.directory / LEDGER)):
            return None
        return await self.ledger()

    async def _refs(self, ledger: Ledger | None, sources: Named, options: Options) -> list[SourceRef]:
        """The sources that are meant. Raises InvalidInputError naming `source` where there are none."""
        known = [] if ledger is None else await asyncio.to_thread(ledger.sources)
        if not sources:
            if not known:
                raise InvalidInputError("source", "No source is named", hint="--source KIND=LOCATION")
            return known
        ids = {(ref.kind, ref.location): ref.id for ref in known}
        return [SourceRef(ids.get((kind, at), 0), kind, at, options) for kind, at in dict.fromkeys(map(tuple, sources))]

    async def _surveys(self, refs: list[SourceRef]) -> list[Survey]:
        reached = [await self.reach.at(ref) for ref in refs]
        return [await one.do(one.source.survey) for one in reached]

    async def _has_changed(self, ref: SourceRef) -> bool:
        reached = await self.reach.at(ref)
        token = await reached.do(reached.source.token)
        return token is None or token != self._tokens.get(ref.id)

    def _passing(self, lease: Lease, wait: float = 0.0) -> AbstractAsyncContextManager[Lease]:
        """Nobody else reads the sources meanwhile, so that services are not changed in the middle of it."""
        busy = "The sources are being read already"
        return alone(
            self.storage,
            self.clock,
            PASS_LEASE,
            busy,
            wait=wait,
            holder=lease.holder,
            seconds=SHORT_LEASE_SECONDS,
        )

    def _part(self, ref: SourceRef) -> Path:
        if self.directory is None:
            raise TypeError
        return self.directory / f"records-{ref.id}.jsonl"

    def _free_bytes(self) -> int | None:
        if self.directory is None:
            return None
        place = next(parent for parent in (self.directory, *self.directory.parents) if parent.exists())
        return shutil.disk_usage(place).free


def _require_all(principal: Principal) -> None:
    if "" not in principal.scopes:
        raise PermissionDeniedError(
            "A migration concerns all namespaces; only who sees them all may have to do with it"
        )


def _all_of(older: OlderSource, work: Work) -> list[dict[str, Any]]:
    return list(exported([older], work))


def _require_may_run(phase: Phase, older: list[SourceRef]) -> None:
    if phase in BEFORE:
        raise MigrationStateError("Services are being changed at this moment; try again", phase.value)
    if older and phase in {Phase.SWITCHED, Phase.FINISHED}:
        raise MigrationStateError(
            "Ours answers by now: an older service is no longer copied from",
            phase.value,
            hint="rollback returns to it" if phase is Phase.SWITCHED else None,
        )


def _usual_places() -> list[tuple[str, str]]:
    """Programs whose memories lie where they do when nobody says otherwise."""
    found = []
    for kind, place in DEFAULT_PLACES:
        # A home that nobody knows, and a folder that may not be looked into, hold nothing for us.
        with suppress(OSError, RuntimeError):
            path = Path(place).expanduser().absolute()
            if path.exists():
                found.append((kind, str(path)))
    return found


def _needed(survey: Survey) -> int | None:
    if survey.bytes is None and survey.records is None:
        return None
    return SOURCE_RATIO * (survey.bytes or 0) + RECORD_BYTES * (survey.records or 0)


def _write_quarantine(ledger: Ledger, file: BinaryIO) -> None:
    file.writelines(quarantine_line(source, notice) for source, notice in ledger.notices("quarantine"))


class RollbackManager:
    """Points to which one may return."""

    def __init__(self, manager: MemoryMigrationManager) -> None:
        self._manager = manager

    async def create_rollback_point(
        self, principal: Principal = ANONYMOUS, older: Sequence[SourceRef] | None = None
    ) -> str:
        """Writes everything that the older services hold (those that were named, or `older`) into one file of JSON, beside which
        a backup of ours is made; its path. Raises RefusedError where there is no place for it, SourceError, StorageError.
        """
        manager = self._manager
        _require_all(principal)
        if manager.points is None:
            raise RefusedError("There is no place for rollback points", hint="Set MCP_BACKUP_DIR")
        ledger = await manager.ledger()
        if older is None:
            older = await asyncio.to_thread(ledger.sources)
        now = manager.clock.now()
        backup = await self._backup(principal)
        path = manager.points / f"rollback-{to_rfc3339(now).replace(':', '')}.json"
        opened = [await manager.reach.new(ref) for ref in older]
        try:
            async with Work(None) as work:
                await work.end(
                    asyncio.to_thread(write_point, path, [one.source for one in opened], to_rfc3339(now), work)
                )
        finally:
            for one in opened:
                await one.close()
        await asyncio.to_thread(ledger.put, POINT, {"path": str(path), "backup": backup.manifest.id})
        return str(path)

    async def _backup(self, principal: Principal) -> Backup:
        """A backup of ours. One that is being made is waited for."""
        loop = asyncio.get_running_loop()
        until = loop.time() + BACKUP_WAIT_SECONDS
        while True:
            try:
                return await self._manager.backups.create(principal, BackupRequest(note="before the migration"))
            except InProgressError:
                if loop.time() >= until:
                    raise
            await asyncio.sleep(POLL_SECONDS)

    async def rollback_to_previous_state(self, backup_file: str, principal: Principal = ANONYMOUS) -> dict[str, Any]:
        """Returns to the older services, into which everything that has changed here since is written: of what they held at
        that point nothing was taken from them. Raises InvalidInputError naming `backup_file` where the file is no rollback
        point, or not whole, and what `rollback` raises.
        """
        manager = self._manager
        _require_all(principal)
        path = Path(backup_file)
        await asyncio.to_thread(check_point, path)
        told = await manager.rollback(principal)
        return {"status": told.status, "backup_used": backup_file, "returned": told.returned}


__all__ = [
    "Answers",
    "Finished",
    "MemoryMigrationManager",
    "Plan",
    "Replay",
    "RollbackManager",
    "RolledBack",
    "RunOptions",
    "SourcePlan",
    "SourceStatus",
    "Status",
    "Verification",
]
