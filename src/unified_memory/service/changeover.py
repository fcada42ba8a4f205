"""The change of services: to ours, back to the older ones, and the end of the older ones.

Proxies hold requests back while the phase is `switching` or `returning`, and say so; whoever changes services waits for all of
them, so that nothing is written while the last of it is copied. Where the one who changes services is killed, the phase before
holds again by itself after some seconds.
"""

import asyncio
import hashlib
import shlex
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

import msgspec
from msgspec import Struct

from unified_memory.model.clock import SECOND, Clock, to_rfc3339
from unified_memory.model.errors import (
    BackupDamagedError,
    MigrationStateError,
    SourceError,
    StorageError,
)
from unified_memory.model.principal import Principal
from unified_memory.service.backups import Backups
from unified_memory.service.leasing import (
    CHANGER,
    PASS_LEASE,
    POLL_SECONDS,
    RETURN_LEASE,
    SHORT_LEASE_SECONDS,
    Lease,
    alone,
    at_it,
    note_runner,
)
from unified_memory.service.reaching import Reach
from unified_memory.service.reporting import RETURNED, write_whole
from unified_memory.service.requests import RestoreRequest
from unified_memory.service.returning import CURSOR, Returning
from unified_memory.service.work import Advance, again
from unified_memory.sources.ledger import BEFORE, Ledger, Phase, SourceRef
from unified_memory.storage.base import Storage

# Facts of the ledger: the point to which a rollback would return, and the one to which the last has.
POINT, LAST_POINT = "rollback_point", "last_rollback_point"
# Until when whoever changes services wants to be the only one who writes back.
WANTED = "return_wanted"
# The end waits so long for a pass that is under way.
FINISH_SECONDS = 30.0
# A phase that lasts a moment is renewed so often.
HOLD_AGAIN_SECONDS = 3
# So many problems are told.
MOST_PROBLEMS = 20
CHUNK_BYTES = 1024**2
_encode = msgspec.json.Encoder().encode


class RolledBack(Struct):
    """What the way back came to. `returned`: memories that were written into the older services since the switch, of which
    `verified` are found there as they are here; `lost`: of how many a format could not hold all, listed in `returned_file`.
    `backup_used`: the rollback point. `restored`: the backup of ours that was put back.
    """

    backup_used: str | None
    returned: int = 0
    verified: int = 0
    lost: int = 0
    returned_file: str | None = None
    restored: str | None = None
    status: str = "rollback_complete"
    phase: str = Phase.RETURNED.value


class Finished(Struct):
    """What the end came to. `backups`: the last ones of the older files. `kept`: what of the older services was in no file.
    `commands`: what would remove the older services; none of them was carried out.
    """

    phase: str
    backups: list[str]
    kept: list[str]
    commands: list[str]


class Changeover:
    """Changes services. `catch_up`: copies once more what has changed in the older services."""

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        ledger: Ledger,
        backups: Backups,
        reach: Reach,
        directory: Path,
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._ledger = ledger
        self._backups = backups
        self._reach = reach
        self._directory = directory
        self._catch_up = catch_up
        self._returning = Returning(storage, clock, ledger, reach)

    async def phase(self) -> Phase:
        """The phase that holds."""
        return await asyncio.to_thread(self._ledger.phase)

    # ---- to ours
    async def switch(self, wait: float) -> None:
        """Ours answers from now on. Raises MigrationStateError, InProgressError and SourceError; then all is as it was."""
        await self._require_complete(await self.phase())
        async with self._changing(wait) as lease:
            self._require(await self.phase(), Phase.SHADOW, "Nothing was copied that could be switched to")
            # What takes long is done before anybody has to wait.
            await self._catch_up()
            async with self._holding(Phase.SWITCHING, wait):
                await self._catch_up()
                await asyncio.to_thread(self._ledger.clear_returned)
                await asyncio.to_thread(self._ledger.put, CURSOR, await self._storage.last_seq())
                lease.check()
                await self._set(Phase.SWITCHED)

    async def _require_complete(self, phase: Phase) -> None:
        if phase is not Phase.SWITCHING:
            self._require(phase, Phase.SHADOW, "Nothing was copied that could be switched to")
        if await asyncio.to_thread(self._ledger.get, "complete") is None:
            raise MigrationStateError(
                "No run was complete yet", Phase.SHADOW.value, hint="unified-memory migrate run, and verify"
            )

    # ---- back
    async def return_pass(self, check: Callable[[], None]) -> int:
        """Writes back what has changed; how many memories. `check` raises where another process is at it. Raises SourceError."""
        returned = 0
        await self._returning.require_same_storage()
        while await self.phase() is Phase.SWITCHED and not await self.gives_way():
            check()
            number, more = await self._returning.some()
            returned += number
            if not more:
                break
        return returned

    async def rollback(
        self, principal: Principal, point: dict[str, Any], *, restore: bool, advance: Advance | None, wait: float
    ) -> RolledBack:
        """The older services alone answer from now on, and hold everything that is here."""
        phase = await self.phase()
        if phase is Phase.RETURNED:
            told = msgspec.convert(await asyncio.to_thread(self._ledger.get, "rolled_back"), RolledBack)
            return await self._restored(principal, told, advance) if restore and told.restored is None else told
        if phase not in BEFORE:
            self._require_return(phase)
        if restore and point.get("backup") is None:
            raise MigrationStateError("There is no backup of ours from before the migration", phase.value)
        told = RolledBack(point.get("path"))
        async with self._changing(wait) as lease:
            phase = await self.phase()
            self._require_return(phase)
            if phase is Phase.SHADOW:
                # The older services have answered all the time.
                await self._end_return(told)
            else:
                await self._require_writable()
                async with self._holding(Phase.RETURNING, wait):
                    await self._return_all(told, advance, lease)
                    lease.check()
                    await self._end_return(told)
        return await self._restored(principal, told, advance) if restore else told

    async def _restored(self, principal: Principal, told: RolledBack, advance: Advance | None) -> RolledBack:
        """Puts ours back as it was before the migration."""
        backup = (await asyncio.to_thread(self._ledger.get, LAST_POINT) or {}).get("backup")
        if backup is None:
            raise MigrationStateError("There is no backup of ours from before the migration", Phase.RETURNED.value)
        await self._backups.restore(principal, RestoreRequest(backup, mode="replace"), advance)
        told.restored = backup
        await asyncio.to_thread(self._ledger.clear)
        await asyncio.to_thread(self._ledger.put, "rolled_back", msgspec.to_builtins(told))
        return told

    async def _require_writable(self) -> None:
        """Raises SourceError where something waits for a source that cannot be written, before anything is done."""
        await self._returning.require_same_storage()
        await self._returning.require_all_there()
        for ref in await self._returning.waiting():
            if (why := await self._returning.why_not(ref)) is not None:
                raise SourceError(
                    ref.kind,
                    ref.location,
                    f"What has changed since the switch cannot be written back: {why}",
                    hint="Nothing was done; export what has changed, or make the source writable",
                )

    def _require_return(self, phase: Phase) -> None:
        if phase is not Phase.SHADOW:
            self._require(phase, Phase.SWITCHED, "There is nothing to return from")

    async def _return_all(self, told: RolledBack, advance: Advance | None, lease: Lease) -> None:
        more = True
        while more:
            lease.check()
            number, more = await self._returning.some()
            told.returned += number
            if advance is not None:
                await advance(told.returned, None)
        told.returned += await self._returning.sweep()
        told.verified, problems = await self._returning.verify()
        if problems:
            await self._returning.mend()
            told.verified, problems = await self._returning.verify()
        if problems:
            raise StorageError(
                f"The older services do not hold all of it: {problems[0]}", problems=problems[:MOST_PROBLEMS]
            )
        told.returned = await asyncio.to_thread(self._ledger.returned_count)

    async def _end_return(self, told: RolledBack) -> None:
        path = self._directory / RETURNED
        told.lost = await asyncio.to_thread(_write_returned, self._ledger, path)
        told.returned_file = str(path)
        await asyncio.to_thread(self._ledger.put, "rolled_back", msgspec.to_builtins(told))
        # Whoever migrates again begins anew, with another point to return to.
        await asyncio.to_thread(self._ledger.put, LAST_POINT, await asyncio.to_thread(self._ledger.get, POINT))
        await asyncio.to_thread(self._ledger.put, POINT, None)
        await self._set(Phase.RETURNED)

    # ---- the end
    async def finish(self, place: Path, wait: float = FINISH_SECONDS) -> Finished:
        """Ours alone, after a last backup of the older files into `place`; a pass under way is waited for."""
        phase = await self.phase()
        if phase not in BEFORE:
            self._require(phase, Phase.SWITCHED, "Ours does not answer yet")
        async with self._changing(wait) as lease:
            self._require(await self.phase(), Phase.SWITCHED, "Ours does not answer yet")
            # The last backups hold what came last.
            while (await self._returning.some())[1]:
                lease.check()
            backups, kept = [], []
            refs = await asyncio.to_thread(self._ledger.sources)
            for ref in refs:
                if (files := await asyncio.to_thread(_files_of, ref)) is None:
                    kept.append(f"{ref.kind} at {ref.shown} is no file here; keep a copy where it runs")
                    continue
                name = f"last-{ref.id}-{ref.kind}-{to_rfc3339(self._clock.now()).replace(':', '')}.tar.gz"
                await asyncio.to_thread(_pack, files, place / name)
                backups.append(str(place / name))
            await self._set(Phase.FINISHED)
        return Finished(Phase.FINISHED.value, backups, kept, _commands(refs))

    # ---- within
    def _require(self, phase: Phase, wanted: Phase, otherwise: str) -> None:
        if phase in BEFORE:
            raise MigrationStateError("Services are being changed at this moment; try again", phase.value)
        if phase is not wanted:
            raise MigrationStateError(otherwise, phase.value)

    @asynccontextmanager
    async def _changing(self, wait: float) -> AsyncIterator[Lease]:
        """As the only one who changes services, reads the sources or writes into them. A change of services whose doer was killed
        did not take place.
        """
        async with at_it(self._ledger, CHANGER, self._storage, self._clock) as (runner, former):
            was_killed = former is not None and former.is_dead()
            async with (
                self._alone(PASS_LEASE, wait, runner.holder) as lease,
                self._alone_returning(wait, runner.holder),
            ):
                await asyncio.to_thread(note_runner, self._ledger, CHANGER, runner)
                await self._settled(wait, at_once=was_killed)
                yield lease

    async def _settled(self, wait: float, *, at_once: bool) -> None:
        """Waits until a change that nobody brings to its end any longer lapses. Raises MigrationStateError."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while (phase := await self.phase()) in BEFORE:
            if at_once:
                await asyncio.to_thread(self._ledger.undo_phase, phase)
            elif loop.time() >= until:
                raise MigrationStateError("Services are being changed at this moment; try again", phase.value)
            else:
                await asyncio.sleep(POLL_SECONDS)

    def _alone(self, name: str, wait: float, holder: str) -> AbstractAsyncContextManager[Lease]:
        busy = "The sources are being read or written at this moment"
        return alone(self._storage, self._clock, name, busy, wait=wait, holder=holder, seconds=SHORT_LEASE_SECONDS)

    async def gives_way(self) -> bool:
        """Whether somebody who changes services waits for the passes back to end."""
        return (await asyncio.to_thread(self._ledger.get, WANTED) or 0) > self._clock.now()

    @asynccontextmanager
    async def _alone_returning(self, wait: float, holder: str) -> AsyncIterator[None]:
        """Nobody else writes back meanwhile. Proxies whose clients write all the time would follow one upon the other: they are
        asked to give way.
        """
        await asyncio.to_thread(
            self._ledger.put, WANTED, self._clock.now() + int((wait + SHORT_LEASE_SECONDS) * SECOND)
        )
        try:
            async with self._alone(RETURN_LEASE, wait, holder):
                yield
        finally:
            await asyncio.shield(asyncio.to_thread(self._ledger.put, WANTED, None))

    async def _set(self, phase: Phase) -> None:
        await asyncio.to_thread(self._ledger.set_phase, phase)

    @asynccontextmanager
    async def _holding(self, phase: Phase, wait: float) -> AsyncIterator[None]:
        """All proxies hold requests back meanwhile. Where it does not come to its end the phase before holds again."""

        async def renew() -> None:
            await asyncio.to_thread(self._ledger.renew_phase, phase)

        try:
            await self._set(phase)
            async with again(renew, HOLD_AGAIN_SECONDS):
                await self._acknowledged(phase, wait)
                yield
        except BaseException:
            await asyncio.shield(asyncio.to_thread(self._ledger.undo_phase, phase))
            raise

    async def _acknowledged(self, phase: Phase, wait: float) -> None:
        """Waits until all proxies hold back. Raises MigrationStateError naming those that do not."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            members = await asyncio.to_thread(self._ledger.members, self._clock.now())
            silent = [one for one in members if one.phase is not phase]
            if not silent:
                return
            if loop.time() >= until:
                names = ", ".join(f"{one.service} (process {one.pid})" for one in silent)
                raise MigrationStateError(
                    f"Proxies did not hold requests back in {wait:g} seconds: {names}", BEFORE[phase].value
                )
            await asyncio.sleep(POLL_SECONDS)


def _write_returned(ledger: Ledger, path: Path) -> int:
    """Lists what was written back; of how many a format could not hold all."""
    lost = 0
    sources = {ref.id: ref for ref in ledger.sources()}

    def write(file: BinaryIO) -> None:
        nonlocal lost
        after = (0, "", "")
        while notes := ledger.returned(after):
            after = notes[-1].source, notes[-1].namespace, notes[-1].key
            for note in notes:
                lost += bool(note.lost)
                line = {
                    "source": sources[note.source].kind,
                    "location": sources[note.source].shown,
                    "origin": note.origin,
                    "namespace": note.namespace,
                    "key": note.key,
                    "lost": note.lost,
                }
                file.write(_encode(line) + b"\n")

    write_whole(path, write)
    return lost


def _files_of(ref: SourceRef) -> list[Path] | None:
    """The files of a source: a folder, or a file with what its database has beside it; None where it is none."""
    path = Path(ref.location).expanduser()
    with suppress(OSError, ValueError):
        if path.is_dir():
            return [path]
        if path.is_file():
            beside = (path.with_name(path.name + end) for end in ("-wal", "-journal"))
            return [path, *(one for one in beside if one.is_file())]
    return None


def _pack(files: list[Path], target: Path) -> None:
    """Copies files into an archive, and reads it again. Raises StorageError, BackupDamagedError."""

    def write(file: BinaryIO) -> None:
        with tarfile.open(fileobj=file, mode="w:gz") as archive:
            for path in files:
                archive.add(path, path.name)

    write_whole(target, write)
    try:
        with tarfile.open(target) as archive:
            for member in archive:
                if not member.isfile():
                    continue
                packed = archive.extractfile(member)
                top, _, below = member.name.partition("/")
                original = next(path for path in files if path.name == top)
                there = original / below if below else original
                with there.open("rb") as known:
                    same = packed is not None and _sum(packed) == _sum(known)
                if not same:
                    raise BackupDamagedError(target.name, member.name, "it differs from the file that was copied")
    except (OSError, tarfile.TarError) as error:
        raise StorageError(f"The last backup {target} cannot be read: {error}") from error


def _sum(file: IO[bytes]) -> bytes:
    total = hashlib.sha256()
    while data := file.read(CHUNK_BYTES):
        total.update(data)
    return total.digest()


def _commands(refs: list[SourceRef]) -> list[str]:
    """What would remove the older services."""
    found = (files for ref in refs if (files := _files_of(ref)) is not None)
    commands = ["rm -r " + " ".join(shlex.quote(str(path)) for path in files) for files in found]
    services = {"mcp-extended-memory": "extended-memory", "mcp-memory-bank-mcp": "memory-bank"}
    for container, kind in services.items():
        if any(ref.kind.startswith(kind) for ref in refs):
            commands.append(f"docker stop {container} && docker rm {container}")
            commands.append(f"docker volume ls --quiet --filter name={kind}  # then: docker volume rm …")
    return commands
