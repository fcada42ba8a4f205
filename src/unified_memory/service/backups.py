"""Backups: made, proven by restoring them aside, restored, and made by themselves on a schedule."""

import asyncio
import logging
import secrets
import shutil
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager, suppress
from datetime import tzinfo
from pathlib import Path
from typing import Literal, TypeVar

from msgspec import Struct

from unified_memory.model.clock import SECOND, Clock, from_rfc3339, to_rfc3339
from unified_memory.model.errors import (
    BackupDamagedError,
    BackupNotFoundError,
    ConflictError,
    InProgressError,
    InvalidInputError,
    NamespaceNotFoundError,
    PermissionDeniedError,
    ReadOnlyError,
    RefusedError,
    StorageError,
    StorageFullError,
    UnifiedMemoryError,
)
from unified_memory.model.namespace import check_namespace
from unified_memory.model.principal import Principal
from unified_memory.service.chains import (
    LATEST,
    MANIFEST,
    MEMORIES,
    Tally,
    accessed_since,
    chain,
    find_parent,
    manifests,
    put_back,
    records_of,
    up_to,
)
from unified_memory.service.guard import Guard
from unified_memory.service.proving import compare_counts, search_some
from unified_memory.service.requests import BackupRequest, RestoreRequest
from unified_memory.service.schedule import Made, Schedule, superfluous
from unified_memory.service.work import Advance, Work, again, to_its_end
from unified_memory.storage.backup import Key, Manifest, Place, Reading, Verified, new_id
from unified_memory.storage.base import Storage
from unified_memory.storage.dump import Difference, Mode, Row, Snapshot, Takeover

T = TypeVar("T")
Reason = Literal["manual", "scheduled", "safety"]
log = logging.getLogger("unified_memory.backups")

# The one lease is held by what adds backups or removes them, the other by what reads them.
WRITING_LEASE, READING_LEASE, SCHEDULE_LEASE = "backup", "restore", "backup-schedule"
LEASE_SECONDS = 60
RENEW_SECONDS = 15
HOLD_SECONDS = 30
HOLD_AGAIN_SECONDS = 5
HELD = "a restore is under way"
BEING_WRITTEN = "Another backup is being made or removed"
BEING_READ = "A backup is being restored or verified"
RETRY_SECONDS = 15 * 60
# A look at the directory is good for so long.
STATE_SECONDS = 5
SAFETY_KEPT = 3
# What is estimated where nothing was measured: bytes in a backup, and in a database with its index, for a byte of values.
BACKUP_RATIO = 0.6
DATABASE_RATIO = 2.5
# The least from which a ratio is measured, and what comes on top of it.
MEASURED_BYTES = 1024**2
BYTES_A_MEMORY = 200
SPARE_BYTES = 16 * 1024**2
DIFFERENCE_SAMPLES = 20


class BackupPolicy(Struct, frozen=True):
    """When backups are made by themselves and which stay. `schedule`: a cron expression, None for never. `keep`: the newest of so
    many days, weeks and months; all where it is empty. `verify_after`: each is proven. `program`: who is named in a backup.
    `zone`: where the schedule's clock hangs, None for the time zone of the machine.
    """

    schedule: str | None = None
    keep: dict[str, int] = {}
    verify_after: bool = False
    program: str = "unified-memory"
    zone: tzinfo | None = None


class Backup(Struct):
    """A complete backup. `bytes`: of its files. `verified`: how it was proven last."""

    manifest: Manifest
    bytes: int
    verified: Verified | None


class Restored(Struct):
    """What a restore has changed, or with `dry_run` would. `used`: the backup up to which the chain was restored.
    `safety_backup`: what was there before.
    """

    backup_id: str
    used: str
    mode: str
    dry_run: bool
    differences: list[Difference]
    safety_backup: str | None
    added: int
    changed: int
    removed: int
    same: int


class BackupState(Struct):
    """Backups at a glance. `last` and `last_at`: the newest one; `verified*`: the last that was proven, and how it came out;
    `failed*`: why the last scheduled run of this process failed; `due_at`: when the next one is due, None without a schedule;
    `bytes`: of all. Instants in microseconds.
    """

    last: str | None = None
    last_at: int | None = None
    verified: str | None = None
    verified_at: int | None = None
    verified_ok: bool | None = None
    failed: str | None = None
    failed_at: int | None = None
    due_at: int | None = None
    count: int = 0
    bytes: int = 0


class _Seen(Struct):
    """What lay there `at` that instant: the backups, newest first, and ids of those that cannot be read."""

    at: int
    backups: list[Backup]
    damaged: list[str]


class Backups:
    """Everything about backups. Only a principal that sees all namespaces may have it done.

    `place`: where they lie, None for nowhere. `key`: they are encrypted. `data`: a directory on the disk of the storage, so that
    what a restore needs can be estimated, None where it needs no disk.
    """

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        guard: Guard,
        place: Place | None,
        policy: BackupPolicy,
        key: Key | None = None,
        data: Path | None = None,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._guard = guard
        self._place = place
        self._policy = policy
        self._key = key
        self._data = data
        self._schedule = None if policy.schedule is None else Schedule(policy.schedule, policy.zone)
        self._holder = secrets.token_hex(8)
        self._looked: int | None = None
        self._empty = False
        self._failed: str | None = None
        self._failed_at: int | None = None
        self._seen: _Seen | None = None
        self._unreadable: str | None = None

    # ---- making
    async def create(
        self, principal: Principal, request: BackupRequest, *, reason: Reason = "manual", advance: Advance | None = None
    ) -> Backup:
        """Makes a backup of this instant while others write. `advance` is told memories.

        Raises InProgressError, BackupNotFoundError, ConflictError where the parent cannot be one, BackupDamagedError,
        StorageFullError before a byte is written, and below.
        """
        _require_all(principal)
        return await self._create(request, reason, advance)

    async def _create(self, request: BackupRequest, reason: Reason, advance: Advance | None) -> Backup:
        place = self._somewhere()
        async with self._alone(WRITING_LEASE, BEING_WRITTEN):
            await asyncio.to_thread(place.sweep)
            await self._require_room(place, request)
            async with Work(advance) as work:
                written = self._storage.snapshot(
                    lambda snapshot: self._write(place, request, reason, snapshot, work), self._clock.now()
                )
                manifest = await work.end(written)
            self._seen = None
            return await asyncio.to_thread(_backup, place, manifest)

    def _write(self, place: Place, request: BackupRequest, reason: Reason, snapshot: Snapshot, work: Work) -> Manifest:
        """Writes what the snapshot holds; on a thread."""
        parent = None if request.parent is None else find_parent(place, request.parent, snapshot)
        after, since = (0, 0) if parent is None else (parent.seq, accessed_since(parent, snapshot))
        work.total = snapshot.memory_count if parent is None else None
        with place.writing(new_id(snapshot.instant), self._key) as writing:
            writing.write("spaces", work.watched(snapshot.spaces()))
            writing.write("floors", work.watched(snapshot.floors()))
            writing.write("buried", work.watched(snapshot.buried(after)))
            writing.write("memories", work.watched(snapshot.memories(after), counted=True))
            writing.write("past", work.watched(snapshot.past(after)))
            writing.write("used", work.watched(() if parent is None else snapshot.used(after, since)))
            writing.write("sessions", work.watched(snapshot.sessions()))
            return writing.finish(
                created_at=to_rfc3339(snapshot.instant),
                store=snapshot.store,
                seq=snapshot.seq,
                schema=snapshot.schema,
                program=self._policy.program,
                kind="full" if parent is None else "incremental",
                parent=None if parent is None else parent.id,
                parent_sha256=None if parent is None else parent.sha256,
                reason=reason,
                note=request.note,
                memories=snapshot.memory_count,
                bytes=snapshot.memory_bytes,
                namespaces=snapshot.namespaces,
            )

    async def _require_room(self, place: Place, request: BackupRequest) -> None:
        stats = await self._storage.stats(("",), self._clock.now(), top=0)
        seq = await self._storage.last_seq()

        def estimated() -> tuple[int, int]:
            made, _ = manifests(place)
            full = next((one for one in made if one.parent is None), None)
            ratio = (
                BACKUP_RATIO
                if full is None
                else _ratio(place.stored_bytes(full.id), full.bytes, otherwise=BACKUP_RATIO)
            )
            share = 1.0
            if request.parent is not None:
                parent = next((one for one in made if request.parent in {one.id, LATEST}), None)
                # Each change is one memory at most.
                share = 1.0 if parent is None else min(1.0, max(0, seq - parent.seq) / max(1, stats.memories))
            need = (stats.bytes_raw * ratio + stats.memories * BYTES_A_MEMORY) * share
            return round(need) + SPARE_BYTES, place.free_bytes()

        need, free = await asyncio.to_thread(estimated)
        if free < need:
            raise StorageFullError(
                f"The backup may need {need} bytes, and {free} are free where backups lie; nothing was written"
            )

    # ---- what there is
    async def list_all(self, principal: Principal) -> list[Backup]:
        """All backups whose manifest is as it was written, newest first; `troubles` names the others."""
        _require_all(principal)
        return (await self._look(self._somewhere())).backups

    async def get(self, principal: Principal, backup_id: str) -> Backup:
        """One of them. Raises BackupNotFoundError, BackupDamagedError."""
        _require_all(principal)
        place = self._somewhere()
        return await asyncio.to_thread(lambda: _backup(place, place.manifest(backup_id)))

    async def delete(self, principal: Principal, backup_id: str) -> Backup:
        """Removes a backup. Raises ConflictError naming those that need it, InProgressError, BackupNotFoundError,
        BackupDamagedError.
        """
        _require_all(principal)
        place = self._somewhere()

        def remove() -> Backup:
            backup = _backup(place, place.manifest(backup_id))
            heirs = [one.id for one in manifests(place)[0] if one.parent == backup_id]
            if heirs:
                raise ConflictError(
                    f"The backup is needed by {', '.join(heirs)}",
                    hint="Delete those first",
                    backup_id=backup_id,
                    needed_by=heirs,
                )
            place.remove(backup_id)
            return backup

        async with self._alone(WRITING_LEASE, BEING_WRITTEN), self._alone(READING_LEASE, BEING_READ):
            self._seen = None
            return await asyncio.to_thread(remove)

    # ---- proving
    async def verify(self, principal: Principal, backup_id: str, advance: Advance | None = None) -> Verified:
        """Restores a backup aside and compares counts, hashes and the index, and searches for some memories.

        How it came out is noted beside the backup. Raises BackupDamagedError where it is not what was backed up, ConflictError
        where a backup that it needs is missing, InProgressError, BackupNotFoundError, StorageFullError and below.
        """
        _require_all(principal)
        return await self._verify(backup_id, advance)

    async def _verify(self, backup_id: str, advance: Advance | None) -> Verified:
        place = self._somewhere()
        async with self._alone(READING_LEASE, BEING_READ):
            begun = self._clock.now()
            try:
                memories = await self._prove(place, backup_id, advance)
            except ConflictError as error:
                await self._note(place, backup_id, begun, 0, error.detail)
                raise
            return await self._note(place, backup_id, begun, memories, None)

    async def _note(self, place: Place, backup_id: str, begun: int, memories: int, detail: str | None) -> Verified:
        now = self._clock.now()
        verified = Verified(
            at=to_rfc3339(now),
            ok=detail is None,
            detail=detail,
            seconds=(now - begun) / SECOND,
            memories=memories,
        )
        await asyncio.to_thread(place.note_verified, backup_id, verified)
        self._seen = None
        return verified

    async def _prove(self, place: Place, backup_id: str, advance: Advance | None) -> int:
        """How many memories came back, all as they were. Raises what `verify` raises."""
        links = await asyncio.to_thread(chain, place, backup_id)
        last = links[-1]
        await self._require_room_aside(last)
        # At the instant of the backup, so that nothing has expired since.
        now = from_rfc3339(last.created_at)
        async with Work(advance) as work:
            work.total = 2 * records_of(links) + last.memories
            async with self._put_aside(place, links, now, work) as (aside, tally):
                before = work.done
                checking = aside.check(
                    fix=False, progress=lambda done, _: work.step(before + min(done, last.memories) - work.done)
                )
                problems = await work.end(checking)
                if problems:
                    raise BackupDamagedError(last.id, MEMORIES, f"{problems[0].where}: {problems[0].detail}")
                await search_some(aside, last, tally.ids, now)
                work.step(before + last.memories - work.done)
        return last.memories

    # ---- restoring
    async def restore(self, principal: Principal, request: RestoreRequest, advance: Advance | None = None) -> Restored:
        """Restores a backup, in one step at its end; until then, and where it fails, nothing has changed.

        Writes are off from the safety backup to that step, which can no longer be cancelled. Raises InvalidInputError,
        ReadOnlyError, InProgressError, BackupNotFoundError, BackupDamagedError, ConflictError where a backup that it needs is
        missing, NamespaceNotFoundError where the backup has no such namespace, StorageFullError and below.
        """
        _require_all(principal)
        takeover = _takeover(request)
        place = self._somewhere()
        async with self._alone(READING_LEASE, BEING_READ):
            if not request.dry_run and (reason := await self._guard.switched_off()) is not None:
                raise ReadOnlyError(reason)
            now = self._clock.now()
            links = await asyncio.to_thread(lambda: up_to(chain(place, request.backup_id), request, now))
            await self._require_room_aside(links[-1])
            async with Work(advance) as work:
                work.total = 2 * records_of(links)
                async with self._put_aside(place, links, now, work) as (aside, _):
                    if takeover.namespace is not None:
                        await _require_namespace(aside, takeover.namespace, now)
                    safety = None
                    if request.dry_run:
                        now = self._clock.now()
                        comparing = self._storage.compare(aside, takeover, now, samples=DIFFERENCE_SAMPLES)
                        differences = await work.end(comparing)
                    else:
                        safety, differences = await self._switch(aside, takeover, request)
        return Restored(
            request.backup_id,
            links[-1].id,
            request.mode,
            request.dry_run,
            differences,
            safety,
            sum(one.added for one in differences),
            sum(one.changed for one in differences),
            sum(one.removed for one in differences),
            sum(one.same for one in differences),
        )

    async def _switch(
        self, aside: Storage, takeover: Takeover, request: RestoreRequest
    ) -> tuple[str | None, list[Difference]]:
        """Takes over, while nobody writes; (the backup of what was there before, what has changed)."""
        async with self._holding():
            safety = None
            # Where nothing was ever stored there is nothing to go back to.
            if request.safety and await self._storage.last_seq():
                note = f"before the restore of {request.backup_id}"
                safety = (await self._create(BackupRequest(note=note), "safety", None)).manifest.id
            return safety, await to_its_end(self._storage.take_over(aside, takeover, self._clock.now()))

    @asynccontextmanager
    async def _holding(self) -> AsyncIterator[None]:
        """Nobody writes meanwhile, in any process; where this one is killed only for some seconds more."""

        async def hold() -> None:
            await self._storage.hold_writes(HELD, self._clock.now() + HOLD_SECONDS * SECOND)

        try:
            # What a killed process held has lapsed.
            await self._storage.hold_writes(None, self._clock.now())
            await hold()
            async with again(hold, HOLD_AGAIN_SECONDS):
                yield
        finally:
            await asyncio.shield(self._let_go())

    async def _let_go(self) -> None:
        try:
            await self._storage.hold_writes(None, self._clock.now())
        except StorageError as error:
            log.warning("Writes stay off for some seconds: %s", error.detail)

    # ---- both
    @asynccontextmanager
    async def _put_aside(
        self, place: Place, links: list[Manifest], now: int, work: Work
    ) -> "AsyncIterator[tuple[Storage, Tally]]":
        """What the links hold, in a storage aside, once all their files were found to be whole; and what was in them."""
        readings = await work.end(asyncio.to_thread(self._checked, place, links, work))
        beginning = asyncio.ensure_future(self._storage.aside())
        try:
            aside = await asyncio.shield(beginning)
        except asyncio.CancelledError:
            await self._drop(await to_its_end(_result(beginning)))
            raise
        try:
            tally = Tally(now)
            loop = asyncio.get_running_loop()

            def put(rows: list[Row]) -> Future[None]:
                return asyncio.run_coroutine_threadsafe(aside.put_back(rows, now), loop)

            await work.end(asyncio.to_thread(put_back, readings, put, tally, work))
            await work.end(aside.all_back(now))
            if tally.label:
                await aside.reserve_ids(tally.label)
            await compare_counts(aside, links[-1], tally.expired, now)
            yield aside, tally
        finally:
            await asyncio.shield(self._drop(aside))

    async def _drop(self, aside: Storage) -> None:
        try:
            await self._storage.drop_aside(aside)
        except StorageError as error:
            # What it leaves is removed when the next one is begun; whether it was taken over does not hang on it.
            log.warning("A storage that was begun aside cannot be removed: %s", error.detail)

    def _checked(self, place: Place, links: list[Manifest], work: Work) -> list[Reading]:
        """The links, all whole; on a thread. Raises BackupDamagedError, RefusedError where there is no key that opens them."""
        readings = []
        for link in links:
            before, records = work.done, records_of([link])

            def checked(done: int, total: int, before: int = before, records: int = records) -> None:
                work.step(before + records * done // max(1, total) - work.done)

            readings.append(place.reading(link.id, self._key))
            readings[-1].check(checked)
        return readings

    async def _require_room_aside(self, manifest: Manifest) -> None:
        if self._data is None:
            return
        stats = await self._storage.stats(("",), self._clock.now(), top=0)
        size = await self._storage.size()
        ratio = DATABASE_RATIO if size is None else _ratio(size, stats.bytes_raw, otherwise=DATABASE_RATIO)
        need = round(manifest.bytes * ratio) + manifest.memories * BYTES_A_MEMORY + SPARE_BYTES
        free = (await asyncio.to_thread(shutil.disk_usage, self._data)).free
        if free < need:
            raise StorageFullError(
                f"To put the backup back may need {need} bytes, and {free} are free; nothing was changed"
            )

    # ---- by themselves
    async def run_if_due(self) -> Backup | None:
        """Makes the scheduled backup where it is due, verifies it where that is asked for, and removes what need not stay; None
        where nothing was made. A run that fails is tried again a quarter of an hour later. Raises what `create` and `verify`
        raise.
        """
        if self._schedule is None or self._place is None:
            return None
        now = self._clock.now()
        if self._looked is None:
            self._looked = now
        if self._failed_at is not None and 0 <= now - self._failed_at < RETRY_SECONDS * SECOND:
            return None
        seen = await self._look(self._place)
        if not self._overdue(seen, now, missed=1):
            return None
        self._empty = not (await self._storage.stats(("",), now, top=0)).memories
        until = now + RETRY_SECONDS * SECOND
        if self._empty or not await self._storage.lease(SCHEDULE_LEASE, self._holder, now, until):
            return None
        backup = None
        try:
            backup = await self._create(BackupRequest(), "scheduled", None)
            if self._policy.verify_after:
                backup.verified = await self._verify(backup.manifest.id, None)
            await self._prune(self._place)
        except InProgressError as error:
            log.info("The schedule waits: %s", error.detail)
        except UnifiedMemoryError as error:
            self._failed, self._failed_at = error.detail, self._clock.now()
            raise
        else:
            self._failed = self._failed_at = None
        await self._storage.lease(SCHEDULE_LEASE, self._holder, now, 0)
        return backup

    async def _prune(self, place: Place) -> None:
        """Removes what need not stay."""
        async with self._alone(WRITING_LEASE, BEING_WRITTEN), self._alone(READING_LEASE, BEING_READ):
            made = [
                Made(one.id, from_rfc3339(one.created_at), one.reason, one.parent)
                for one in (backup.manifest for backup in (await self._look(place)).backups)
            ]
            self._seen = None
            for backup_id in superfluous(made, self._policy.keep, safety=SAFETY_KEPT, zone=self._policy.zone):
                await asyncio.to_thread(place.remove, backup_id)
                log.info("Removed the backup %s", backup_id)

    # ---- how they fare
    async def state(self) -> BackupState:
        """All backups at a glance, from at most some seconds ago; nothing where they cannot be read, which `troubles` tells."""
        if self._place is None:
            return BackupState()
        now = self._clock.now()
        seen = self._seen
        if seen is None or not 0 <= now - seen.at < STATE_SECONDS * SECOND:
            try:
                seen = await self._look(self._place)
            except StorageError as error:
                self._unreadable = error.detail
                return BackupState(failed=self._failed, failed_at=self._failed_at)
        proven = [(one.verified, one.manifest.id) for one in seen.backups if one.verified is not None]
        verified, verified_id = max(proven, key=lambda one: one[0].at, default=(None, None))
        last = seen.backups[0].manifest if seen.backups else None
        return BackupState(
            None if last is None else last.id,
            None if last is None else from_rfc3339(last.created_at),
            verified_id,
            None if verified is None else from_rfc3339(verified.at),
            None if verified is None else verified.ok,
            self._failed,
            self._failed_at,
            self._due_at(seen, now),
            len(seen.backups),
            sum(one.bytes for one in seen.backups),
        )

    def troubles(self) -> list[str]:
        """Why backups do not fare as they should, as `state` found them last."""
        seen, found = self._seen, []
        if self._unreadable is not None:
            found.append(f"the backups cannot be read: {self._unreadable}")
        if self._failed is not None:
            found.append(f"the last scheduled backup failed: {self._failed}")
        if seen is None:
            return found
        found += [f"the backup {one} is damaged: {MANIFEST}" for one in seen.damaged]
        proven = [(one.verified, one.manifest.id) for one in seen.backups if one.verified is not None]
        verified, backup_id = max(proven, key=lambda one: one[0].at, default=(None, None))
        if verified is not None and not verified.ok:
            found.append(f"the backup {backup_id} did not prove good: {verified.detail}")
        if self._looked is not None and not self._empty and self._overdue(seen, self._clock.now(), missed=2):
            found.append("the newest backup is older than twice the interval of the schedule")
        return found

    def _newest(self, seen: _Seen) -> int | None:
        """The instant from which on the schedule counts."""
        full = (one.manifest for one in seen.backups if one.manifest.parent is None)
        newest = next((one for one in full if one.reason != "safety"), None)
        return self._looked if newest is None else from_rfc3339(newest.created_at)

    def _overdue(self, seen: _Seen, now: int, *, missed: int) -> bool:
        """Whether so many scheduled instants lie behind the newest backup."""
        newest = self._newest(seen)
        if self._schedule is None or newest is None:
            return False
        instants = self._schedule.before(now, missed)
        return len(instants) == missed and instants[-1] > newest

    def _due_at(self, seen: _Seen, now: int) -> int | None:
        if self._schedule is None:
            return None
        if self._overdue(seen, now, missed=1):
            return self._schedule.before(now, 1)[0]
        return self._schedule.after(now)

    # ---- within
    def _somewhere(self) -> Place:
        if self._place is None:
            raise RefusedError("No place for backups is set", hint="Set MCP_BACKUP_DIR")
        return self._place

    async def _look(self, place: Place) -> _Seen:
        """Reads what lies there."""
        now = self._clock.now()

        def read() -> _Seen:
            found, damaged = manifests(place)
            backups = []
            for manifest in found:
                # It may be removed at this very moment.
                with suppress(BackupNotFoundError):
                    backups.append(_backup(place, manifest))
            return _Seen(now, backups, damaged)

        self._seen = await asyncio.to_thread(read)
        self._unreadable = None
        return self._seen

    @asynccontextmanager
    async def _alone(self, lease: str, otherwise: str) -> AsyncIterator[None]:
        """Holds a lease over all processes meanwhile. Raises InProgressError with the detail `otherwise`."""
        holder = secrets.token_hex(8)

        async def take() -> bool:
            now = self._clock.now()
            return await self._storage.lease(lease, holder, now, now + LEASE_SECONDS * SECOND)

        if not await take():
            raise InProgressError(otherwise, hint="Wait for its end, or cancel its job")
        try:
            async with again(take, RENEW_SECONDS):
                yield
        finally:
            await asyncio.shield(self._give_back(lease, holder))

    async def _give_back(self, lease: str, holder: str) -> None:
        try:
            # It ends at whatever instant comes next: the clock may be set back.
            await self._storage.lease(lease, holder, self._clock.now(), 0)
        except StorageError as error:
            log.warning("The next backup may have to wait a minute: %s", error.detail)


async def _result(task: "asyncio.Future[T]") -> T:
    return await task


def _require_all(principal: Principal) -> None:
    if "" not in principal.scopes:
        raise PermissionDeniedError("Backups hold all namespaces; only who sees them all may have to do with them")


def _ratio(stored: int, raw: int, *, otherwise: float) -> float:
    """Bytes stored for a byte of values, as measured where there are enough of them."""
    return stored / raw if raw >= MEASURED_BYTES else otherwise


def _backup(place: Place, manifest: Manifest) -> Backup:
    return Backup(manifest, place.stored_bytes(manifest.id), place.verified(manifest.id))


def _takeover(request: RestoreRequest) -> Takeover:
    """Raises InvalidInputError where parts of the request do not go together."""
    mode = Mode(request.mode)
    if mode is Mode.NAMESPACE:
        if request.namespace is None:
            raise InvalidInputError("namespace", "namespace must be given for the mode namespace")
        check_namespace(request.namespace)
        if request.target is not None:
            check_namespace(request.target, "target")
    else:
        for field in ("namespace", "target"):
            if getattr(request, field) is not None:
                raise InvalidInputError(field, f"{field} goes with the mode namespace only")
    return Takeover(mode, request.namespace, request.target)


async def _require_namespace(aside: Storage, namespace: str, now: int) -> None:
    if not (await aside.list_namespaces((namespace,), now, depth=None, limit=1, after=None)).items:
        raise NamespaceNotFoundError(namespace)
