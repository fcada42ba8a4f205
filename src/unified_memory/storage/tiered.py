"""Hot, warm and cold as one storage that keeps the contract.

The warm tier is the truth. A retrieve may be answered by a hot copy; whatever shows several memories of one instant asks the warm
tier, which fetches the values of stubs from their archives by itself. Writes tell the hot tier as `hot.py` says.

A demotion, step by step, each of them durable before the next: the archive is named in the warm tier; its file is written, synced
and gets its name; the memories that are still as they were give their values for stubs, some hundred in a transaction; the
archive is live. A kill before the third step leaves a file to which nothing refers, a kill after it an archive with fewer stubs:
`tidy` removes the one and declares the other live. A compaction is the same with values of an older archive, which is dead
afterwards.
"""

import asyncio
import contextlib
import secrets
import statistics
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Iterator, Sequence
from typing import Any, TypeVar

from msgspec.structs import replace

from unified_memory.model.clock import SECOND, Clock
from unified_memory.model.errors import ArchiveMissingError, RefusedError, StorageCorruptError, StorageError
from unified_memory.model.memory import Memory
from unified_memory.model.session import Session, WithMemories
from unified_memory.storage.archive import Archive, Damage, Record, Written, new_name
from unified_memory.storage.base import (
    Access,
    Edit,
    Idempotency,
    Outcome,
    Problem,
    Progress,
    Redacted,
    Replayed,
    Stats,
    Storage,
)
from unified_memory.storage.dump import Difference, Row, Snapshot, Takeover
from unified_memory.storage.forwarding import Forwarding
from unified_memory.storage.hot import NO_HOT, Hot, HotState, Ref, Ticket
from unified_memory.storage.portions import portions
from unified_memory.storage.tiers import Compacted, Moved, TierCounts, Tiers
from unified_memory.storage.warm import ArchiveUse, Demotable, Place, TierUses, Warm

T = TypeVar("T")
# Memories that are read at once to be archived, and stubs of one transaction.
CHUNK = 200
STUBS = 500
# Whose values are read at once to be brought back: they may be large.
PROMOTED = 16
# Copies are worth having where a look takes at most this part of a read of the warm tier.
WORTH = 0.5
SAMPLES = 32
ASTRAY = "the archives of this database are not where UNIFIED_MEMORY_ARCHIVE says"
# A move that has said nothing for so long has been interrupted. Both passes run under one lease, so this is for moves by hand.
INTERRUPTED_MICROSECONDS = 3600 * SECOND
# A dead archive's file stays for readers that began before.
LINGER_MICROSECONDS = 60 * SECOND
# Whoever reads for longer says so, again and again.
PIN_MICROSECONDS = 60 * SECOND
PIN_AGAIN_SECONDS = 20.0
# An archive of a storage aside is left alone so long, where nobody takes it over: putting back may take hours.
ASIDE_MICROSECONDS = 24 * 3600 * SECOND
# What is put back cold is archived once it is so much.
GATHERED = 20_000
GATHERED_BYTES = 64 * 1024**2


class TieredStorage(Forwarding, Tiers):
    """The tiers over one `warm` storage.

    `hot`: gives copies and is told of writes. With `auto` copies are read only where that is quicker than reading the warm tier.
    `others`: ends the era of copies that only other processes have, after writes that they are not told of. `archive` None:
    nothing can be archived, for the reason `cold_off`. `home`: the warm tier beside which this storage was begun aside; it names
    the archives of this one too, so that they are removed where it is killed.
    """

    _warm: Warm

    def __init__(
        self,
        warm: Warm,
        clock: Clock,
        *,
        hot: Hot | None = None,
        others: Hot | None = None,
        auto: bool = False,
        archive: Archive | None = None,
        cold_off: str | None = None,
        home: Warm | None = None,
    ) -> None:
        super().__init__(warm)
        self.warm = warm
        self._clock = clock
        self._hot = hot
        self._others = others
        self._auto = auto
        # Whom to ask for copies, and whom to tell of writes.
        self._copies = self._told_of = hot
        self._note: str | None = None
        self._measured = 0
        self._archive = archive
        self._cold_off = cold_off
        # Why the archives are not where they should be.
        self._astray: str | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._counts = TierCounts()
        self._home = home
        # Archives that were written, and memories that are to be archived, of a storage aside.
        self.written: list[str] = []
        self._gathered: list[Demotable] = []
        self._gathered_bytes = 0

    # ---- one's own life
    async def open(self) -> None:
        """See `Storage.open`."""
        await self._warm.open()
        for hot in (self._hot, self._others):
            if hot is not None:
                await hot.open()
        if self._others is not None:
            self._warm.mute_with_writes(secrets.token_hex(8))
        if self._auto and self._hot is not None:
            await self._measure(self._hot)
        await self.look_for_archives()

    async def _measure(self, copies: Hot) -> None:
        """Decides whether hot copies are read: they must be quicker than the warm tier by a good part of what that takes."""
        key = secrets.token_hex(8)
        now = self._clock.now()
        warm = await _median(lambda: self._warm.get(key, key, now))
        hot = await _median(lambda: copies.look(key, key, now))
        # A look that asked nobody tells nothing.
        tried = copies.state().trusted
        worth = tried and hot < warm * WORTH
        self._measured = copies.state().counts.misses
        took = f"A look takes {hot * 1e6:.0f} µs, a read of the warm tier {warm * 1e6:.0f} µs"
        self._note = (
            f"{took if tried else 'Copies could not be tried at the start'}: they are"
            f" {'read' if worth else 'not read'} (HOT_TIER=auto)"
        )
        if not worth:
            copies.rest()
            self._copies = None
            if not copies.shared:
                self._told_of = None

    async def close(self) -> None:
        """See `Storage.close`."""
        if self._tasks:
            await asyncio.wait(self._tasks)
        for hot in (self._hot, self._others):
            if hot is not None:
                await hot.close()
        await self._warm.close()
        if self._archive is not None and self._home is None:
            await asyncio.to_thread(self._archive.close)

    async def size(self) -> int | None:
        """See `Storage.size`."""
        size = await self._warm.size()
        if size is None or self._archive is None:
            return size
        return size + await asyncio.to_thread(self._archive.total)

    # ---- reading
    async def get(self, namespace: str, key: str, now: int) -> Memory | None:
        """See `Storage.get`."""
        if self._copies is None:
            return await self._warm.get(namespace, key, now)
        found = await self._copies.look(namespace, key, now)
        if isinstance(found, Memory):
            return found
        memory = await self._warm.get(namespace, key, now)
        # A cold memory is about to become warm; a copy would go on saying that it is not.
        if isinstance(found, Ticket) and memory is not None and memory.tier == "warm":
            # One of its own: whoever asked counts this access in theirs.
            self._behind(self._copies.fill([(found, replace(memory))], now))
        return memory

    def _behind(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        """Does what goes on although nobody may wait for it; `close` does."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # ---- writing
    async def edit(
        self, edits: Sequence[Edit], now: int, *, idempotency: Idempotency | None = None
    ) -> list[Outcome] | Replayed:
        """See `Storage.edit`."""
        if self._told_of is None:
            outcomes = await self._warm.edit(edits, now, idempotency=idempotency)
            await self._look_round()
            return outcomes
        refs = list(dict.fromkeys((edit.namespace, edit.key) for edit in edits))

        def standing(outcomes: list[Outcome] | Replayed) -> list[Memory]:
            if isinstance(outcomes, Replayed):
                return []
            last = {(edit.namespace, edit.key): one for edit, one in zip(edits, outcomes, strict=True)}
            return [one.memory for one in last.values() if one.written and one.memory is not None]

        work = self._tell(
            self._told_of, refs, now, lambda: self._warm.edit(edits, now, idempotency=idempotency), standing
        )
        # Whoever gives up waiting leaves nothing half told.
        return await asyncio.shield(self._behind(work))

    async def move(
        self, source: tuple[str, str], target: tuple[str, str], now: int, *, expected_version: int | None = None
    ) -> Memory:
        """See `Storage.move`."""
        if self._told_of is None:
            moved = await self._warm.move(source, target, now, expected_version=expected_version)
            await self._look_round()
            return moved

        def standing(_moved: Memory) -> list[Memory]:
            return []

        work = self._tell(
            self._told_of,
            [source, target],
            now,
            lambda: self._warm.move(source, target, now, expected_version=expected_version),
            standing,
        )
        return await asyncio.shield(self._behind(work))

    async def _look_round(self) -> None:
        """After a commit of a process that has no copies: others on the same database may have some."""
        if self._others is not None and self._warm.copies_used:
            await self._others.outlive(self._clock.now())

    async def _tell(
        self,
        hot: Hot,
        refs: list[Ref],
        now: int,
        write: Callable[[], Awaitable[T]],
        standing: Callable[[T], list[Memory]],
    ) -> T:
        """A write of which the hot tier is told before and after."""
        pledge = await hot.begin(refs, now)
        try:
            written = await write()
        except BaseException:
            with contextlib.suppress(StorageError):
                # Nothing has changed; marks that are left give way by themselves.
                await hot.settle(pledge, [], self._clock.now())
            raise
        await hot.settle(pledge, standing(written), self._clock.now())
        await self._look_round()
        return written

    async def delete_namespace(self, name: str, now: int, *, recursive: bool) -> list[int]:
        """See `Storage.delete_namespace`."""
        return await self._ending(self._warm.delete_namespace(name, now, recursive=recursive))

    async def rename_namespace(self, source: str, target: str, now: int) -> int:
        """See `Storage.rename_namespace`."""
        return await self._ending(self._warm.rename_namespace(source, target, now))

    async def end_session(
        self, namespace: str, session_id: str, memories: WithMemories, now: int
    ) -> tuple[Session, int]:
        """See `Storage.end_session`."""
        return await self._ending(self._warm.end_session(namespace, session_id, memories, now))

    async def _ending(self, write: Coroutine[Any, Any, T]) -> T:
        """A write that ends the era of hot copies in its own commit."""
        if self._told_of is None:
            written = await write
            await self._look_round()
            return written
        return await asyncio.shield(self._behind(self._end(write)))

    async def _end(self, write: Coroutine[Any, Any, T]) -> T:
        written = await write
        if self._told_of is not None:
            await self._told_of.outlive(self._clock.now())
        await self._look_round()
        return written

    async def touch(self, accesses: Sequence[Access]) -> None:
        """See `Storage.touch`."""
        await self._warm.touch(accesses)
        if self._told_of is not None:
            await self._told_of.count(accesses)

    # ---- the past
    async def redact(self, namespace: str, key: str, version: int | None, now: int) -> Redacted:
        """See `Storage.redact`. Archives that hold a version of those memories are written anew without those that no stub refers
        to; their files go with `tidy`. Raises RefusedError where archives are not at hand.
        """
        if await self._warm.archives():
            self._cold()
        return await asyncio.shield(self._behind(self._redact(namespace, key, version, now)))

    async def _redact(self, namespace: str, key: str, version: int | None, now: int) -> Redacted:
        def write() -> Coroutine[Any, Any, Redacted]:
            return self._warm.redact(namespace, key, version, now)

        def standing(_redacted: Redacted) -> list[Memory]:
            return []

        if self._told_of is None:
            redacted = await write()
            await self._look_round()
        else:
            redacted = await self._tell(self._told_of, [(namespace, key)], now, write, standing)
        ids = set(redacted.ids)
        for one in await self._warm.archives():
            if one.state != "dead" and await self._holds(one.name, ids):
                await self.compact(one.name, now)
        return redacted

    async def _holds(self, archive: str, ids: set[int]) -> bool:
        try:
            return await asyncio.to_thread(self._cold().holds, archive, ids)
        except ArchiveMissingError:
            # It is not written yet, or no longer there; `check` names one that is missed.
            return False

    # ---- everything, out and in again
    async def snapshot(self, work: Callable[[Snapshot], T], now: int) -> T:
        """See `Storage.snapshot`. Until it has ended no archive's file is removed."""
        return await asyncio.shield(self._behind(self._snapshot(work, now)))

    async def _snapshot(self, work: Callable[[Snapshot], T], now: int) -> T:
        if self._archive is None:
            return await self._warm.snapshot(work, now)
        holder = secrets.token_hex(8)
        await self._pin(holder, PIN_MICROSECONDS)
        again = asyncio.create_task(self._pin_again(holder))
        try:
            return await self._warm.snapshot(work, now)
        finally:
            again.cancel()
            await asyncio.wait({again})
            with contextlib.suppress(StorageError):
                # It lapses by itself.
                await self._pin(holder, 0)

    async def _pin(self, holder: str, lasts: int) -> None:
        now = self._clock.now()
        await self._warm.pin_archives(holder, now, now + lasts)

    async def _pin_again(self, holder: str) -> None:
        while True:
            await asyncio.sleep(PIN_AGAIN_SECONDS)
            with contextlib.suppress(StorageError):
                # There are two more tries before it lapses; without it the read itself fails where a file is missing.
                await self._pin(holder, PIN_MICROSECONDS)

    async def aside(self) -> "TieredStorage":
        """See `Storage.aside`. Its archives go where those of this one are."""
        off = self.cold_off
        other: TieredStorage = TieredStorage(  # type: ignore[abstract]  # its methods are made of the contract, see `forwarding`
            await self._warm.aside(),
            self._clock,
            archive=None if off else self._archive,
            cold_off=off,
            home=self._warm,
        )
        return other

    async def drop_aside(self, other: Storage) -> None:
        """See `Storage.drop_aside`."""
        aside = _tiered(other)
        await aside.close()
        await self._warm.drop_aside(aside.warm)
        for name in aside.written:
            # Unless it was taken over, with stubs that refer to it.
            if await self._warm.retire_archive(name, self._clock.now()):
                await asyncio.to_thread(self._cold().remove, name)
                await self._warm.forget_archive(name)

    async def put_back(self, rows: Sequence[Row], now: int) -> None:
        """See `Storage.put_back`. What is cold is put warm, and archived with others as soon as there is enough of it."""
        await self._warm.put_back(rows, now)
        if self.cold_off is not None:
            return
        for row in rows:
            if isinstance(row, Memory) and row.tier == "cold":
                self._gathered.append(Demotable(row.id, row.seq, len(row.value), row.importance, row.updated_at))
                self._gathered_bytes += len(row.value)
        if len(self._gathered) >= GATHERED or self._gathered_bytes >= GATHERED_BYTES:
            await self._archive_gathered(now)

    async def all_back(self, now: int) -> None:
        """See `Storage.all_back`."""
        await self._warm.all_back(now)
        await self._archive_gathered(now)
        for one in await self._warm.archives():
            if one.live < one.memories:
                # Later links have replaced, removed or redacted some of what it holds.
                await self.compact(one.name, now)

    async def _archive_gathered(self, now: int) -> None:
        gathered, self._gathered, self._gathered_bytes = self._gathered, [], 0
        await self.demote(gathered, now)

    async def compare(self, other: Storage, takeover: Takeover, now: int, *, samples: int) -> list[Difference]:
        """See `Storage.compare`."""
        return await self._warm.compare(_tiered(other).warm, takeover, now, samples=samples)

    async def take_over(self, other: Storage, takeover: Takeover, now: int) -> list[Difference]:
        """See `Storage.take_over`. No hot copy of before is read afterwards."""
        told = await self._ending(self._warm.take_over(_tiered(other).warm, takeover, now))
        await self.look_for_archives()
        return told

    # ---- the whole
    async def stats(self, scopes: tuple[str, ...], now: int, *, top: int) -> Stats:
        """See `Storage.stats`; `tiers` tells how many copies are hot, where everything is asked for."""
        stats = await self._warm.stats(scopes, now, top=top)
        if "" in scopes:
            stats.bytes_stored = await self.size()
            stats.tiers["hot"] = self.hot_state().counts.entries or 0
        return stats

    async def check(self, *, fix: bool, progress: Progress | None = None) -> list[Problem]:
        """See `Storage.check`; of the archives too."""
        before = (0, 0)

        def first(done: int, total: int | None) -> None:
            nonlocal before
            before = (done, total or 0)
            if progress is not None:
                progress(done, total)

        def then(done: int, total: int | None) -> None:
            if progress is not None:
                progress(before[0] + done, before[1] + (total or 0))

        return [*await self._warm.check(fix=fix, progress=first), *await self.check_archives(then)]

    # ---- between warm and cold
    async def _claim(self, archive: Archive) -> None:
        """Makes sure that archives go where those before them are. Raises RefusedError where they are not there."""
        home = self._home or self._warm
        proposed = secrets.token_hex(8)
        token = await home.archive_token(proposed)
        if self._home is not None:
            await self._warm.archive_token(token)
        # One that was killed between the database and the file has left no archive behind.
        if token == proposed or not await home.archives():
            await asyncio.to_thread(archive.claim, token)
        elif not await asyncio.to_thread(archive.claimed, token):
            self._astray = ASTRAY
            self._cold()

    async def look_for_archives(self) -> None:
        """See `Tiers.look_for_archives`."""
        if self._archive is None:
            return
        try:
            token = await self._warm.archive_token("")
            there = not token or await asyncio.to_thread(self._archive.claimed, token)
            self._astray = None if there or not await self._warm.archives() else ASTRAY
        except StorageError as error:
            self._astray = f"the place of the archives cannot be read: {error.detail}"

    @property
    def counts(self) -> TierCounts:
        """See `Tiers.counts`."""
        return replace(self._counts, cold_reads=0 if self._archive is None else self._archive.reads)

    @property
    def cold_off(self) -> str | None:
        """See `Tiers.cold_off`."""
        return self._cold_off if self._archive is None else self._astray

    @property
    def cold_trouble(self) -> str | None:
        """See `Tiers.cold_trouble`."""
        return self._astray

    async def demotable(
        self, scopes: tuple[str, ...], now: int, *, recursive: bool, used_before: int, limit: int
    ) -> list[Demotable]:
        """See `Tiers.demotable`."""
        return await self._warm.demotable(scopes, now, recursive=recursive, used_before=used_before, limit=limit)

    async def archived_ids(
        self, scopes: tuple[str, ...], now: int, *, recursive: bool, after_id: int, limit: int
    ) -> list[int]:
        """See `Tiers.archived_ids`."""
        return await self._warm.stub_ids(scopes, now, recursive=recursive, after_id=after_id, limit=limit)

    async def archives(self) -> list[ArchiveUse]:
        """See `Tiers.archives`."""
        return await self._warm.archives()

    async def demote(self, chosen: Sequence[Demotable], now: int, progress: Progress | None = None) -> Moved:
        """See `Tiers.demote`."""
        if not chosen:
            return Moved()
        wanted = {one.id: one.seq for one in chosen}
        sizes = {one.id: one.bytes for one in chosen}
        ids = sorted(wanted)
        chunks = list(portions(ids, sizes.__getitem__, CHUNK))

        async def values(chunk: list[int]) -> list[Record]:
            found = await self._warm.get_by_id(chunk, now)
            chosen = [m for m in found if m is not None and m.tier == "warm" and m.seq == wanted[m.id]]
            if self._told_of is not None:
                refs.update((m.id, (m.namespace, m.key)) for m in chosen)
            return [Record(m.id, m.seq, m.value) for m in chosen]

        moved = Moved()
        refs: dict[int, Ref] = {}

        async def put(name: str, written: Written) -> None:
            if self._told_of is None and self._others is not None:
                # Copies that others have would go on saying that they are warm.
                await self._others.outlive(self._clock.now())
            for part in portions(written.places, lambda place: sizes[place.id], STUBS):
                moved.__iadd__(Moved(*await self._warm.put_stubs(name, part)))
                if self._told_of is not None:
                    # Copies would go on saying that they are warm.
                    pledge = await self._told_of.begin([refs[one.id] for one in part], self._clock.now())
                    await self._told_of.settle(pledge, [], self._clock.now())
                if progress is not None:
                    progress(moved.memories, len(ids))

        await self._write_archive(chunks, values, put, now)
        self._counts.demotions += moved.memories
        return moved

    async def _write_archive(
        self,
        chunks: Iterable[T],
        values: Callable[[T], Awaitable[list[Record]]],
        put: Callable[[str, Written], Awaitable[None]],
        now: int,
    ) -> Written | None:
        """One archive, from its name to its stubs; None where there was nothing to write."""
        archive = self._cold()
        await self._claim(archive)
        loop = asyncio.get_running_loop()
        given_up = False

        def records() -> Iterator[Record]:
            for chunk in chunks:
                if given_up:
                    raise StorageError(f"The archive {name} was given up")
                # The thread waits for the loop, which does not wait for it.
                yield from asyncio.run_coroutine_threadsafe(_awaited(values(chunk)), loop).result()

        name = new_name(now)
        if self._home is not None:
            await self._home.reserve_archive(name, self._clock.now() + ASIDE_MICROSECONDS)
            self.written.append(name)
        await self._warm.reserve_archive(name, now)
        writing = asyncio.ensure_future(asyncio.to_thread(archive.write, name, records()))
        try:
            written = await asyncio.shield(writing)
            if written.memories:
                await put(name, written)
                await self._warm.publish_archive(
                    name, written.memories, written.bytes_raw, written.bytes_stored, self._clock.now()
                )
                return written
        except BaseException:
            given_up = True
            await asyncio.wait({writing})
            if not writing.cancelled():
                # Nobody else asks for it.
                writing.exception()
            await asyncio.shield(self._drop(name))
            raise
        await self._drop(name)
        return None

    async def _drop(self, name: str) -> None:
        """Takes an archive back that came to nothing. One that has stubs already stays, and `tidy` declares it live."""
        if await self._warm.retire_archive(name, self._clock.now()):
            await asyncio.to_thread(self._cold().remove, name)
            await self._warm.forget_archive(name)
            if self._home is not None:
                await self._home.retire_archive(name, self._clock.now())
                await self._home.forget_archive(name)

    async def promote(self, ids: Sequence[int], now: int) -> Moved:
        """See `Tiers.promote`."""
        moved = Moved()
        for start in range(0, len(ids), PROMOTED):
            found, damaged = await self._readable(ids[start : start + PROMOTED], now)
            moved.damaged += damaged
            values = [(m.id, m.seq, m.value) for m in found if m is not None and m.tier == "cold"]
            for part in portions(values, lambda value: len(value[2]), STUBS):
                moved += Moved(*await self._warm.take_back(part))
        self._counts.promotions += moved.memories
        return moved

    async def _readable(self, ids: Sequence[int], now: int) -> tuple[list[Memory | None], int]:
        """Memories by id, and how many of them cannot be read."""
        try:
            return await self._warm.get_by_id(ids, now), 0
        except StorageCorruptError:
            if len(ids) == 1:
                # `check` names it.
                return [], 1
        halves = [await self._readable(half, now) for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :])]
        return [*halves[0][0], *halves[1][0]], halves[0][1] + halves[1][1]

    async def compact(self, archive: str, now: int) -> Compacted:
        """See `Tiers.compact`."""
        cold = self._cold()
        before = next((one.bytes_stored for one in await self._warm.archives() if one.name == archive), 0)
        places: list[Place] = []
        while page := await self._warm.stubs(archive, places[-1].id if places else 0, STUBS):
            places += page
        # As they lie: each block is read once.
        places.sort(key=lambda one: (one.block, one.slot))
        damaged = 0

        def read(chunk: list[Place]) -> list[Record]:
            nonlocal damaged
            records = []
            for one in chunk:
                try:
                    value = cold.read(archive, one.block, one.slot, one.id)
                except StorageCorruptError:
                    # It stays where it is, and `check` names it.
                    damaged += 1
                else:
                    records.append(Record(one.id, one.seq, value))
            return records

        async def values(chunk: list[Place]) -> list[Record]:
            return await asyncio.to_thread(read, chunk)

        carried = 0

        async def put(name: str, written: Written) -> None:
            nonlocal carried
            for start in range(0, len(written.places), STUBS):
                carried += await self._warm.move_stubs(archive, name, written.places[start : start + STUBS])

        chunks = [places[start : start + CHUNK] for start in range(0, len(places), CHUNK)]
        written = await self._write_archive(chunks, values, put, now) if chunks else None
        dead = await self._warm.retire_archive(archive, self._clock.now())
        self._counts.compactions += dead or carried > 0
        return Compacted(carried, before, 0 if written is None else written.bytes_stored, damaged)

    async def tidy(self, now: int) -> int:
        """See `Tiers.tidy`."""
        if self._archive is None or self._astray is not None:
            return 0
        archive, gone = self._archive, 0
        pinned = await self._warm.archives_pinned(now)
        for one in await self._warm.archives():
            name = one.name
            if one.state == "writing" and one.changed_at <= now - INTERRUPTED_MICROSECONDS:
                if one.live:
                    try:
                        size = await asyncio.to_thread(archive.size, name)
                    except ArchiveMissingError:
                        # `check` names what it held; the others are not kept waiting.
                        size = 0
                    await self._warm.publish_archive(name, one.live, one.live_bytes, size, now)
                    # It holds what was never taken out of the warm tier, too.
                    await self.compact(name, now)
                else:
                    await self._warm.retire_archive(name, now)
            elif one.state == "dead" and one.changed_at <= now - LINGER_MICROSECONDS and not pinned:
                # The file first: nothing would name it any longer.
                await asyncio.to_thread(archive.remove, name)
                gone += await self._warm.forget_archive(name)
        await asyncio.to_thread(archive.sweep)
        return gone

    async def uses(
        self, scopes: tuple[str, ...], now: int, *, recursive: bool, used_before: int | None = None
    ) -> TierUses:
        """See `Tiers.uses`."""
        return await self._warm.tier_uses(scopes, now, recursive=recursive, used_before=used_before)

    async def warm_files(self) -> int:
        """See `Tiers.warm_files`."""
        return await self._warm.size() or 0

    async def check_archives(self, progress: Progress | None) -> list[Problem]:
        """See `Tiers.check_archives`."""
        if self._archive is None:
            return []
        archive = self._archive
        # Files first: one that is named meanwhile is not taken for one without a name.
        there = set(await asyncio.to_thread(archive.names))
        known = await self._warm.archives()
        # Beside a storage aside lie those of the one that serves.
        unknown = set() if self._home is not None else there - {one.name for one in known}
        if unknown:
            unknown &= set(await asyncio.to_thread(archive.names))
        problems = [
            Problem(f"archive {name}", "The database does not name it; it may be of another one")
            for name in sorted(unknown)
        ]
        live = [one.name for one in known if one.state == "live"]
        for done, name in enumerate(live, start=1):
            try:
                damages = await asyncio.to_thread(_damages, archive, name)
            except ArchiveMissingError as error:
                # It may have been compacted since.
                if any(one.name == name and one.state == "live" for one in await self._warm.archives()):
                    problems.append(Problem(f"archive {name}", error.detail))
            else:
                problems += map(_problem, damages)
            if progress is not None:
                progress(done, len(live))
        return problems

    def hot_state(self) -> HotState:
        """See `Tiers.hot_state`."""
        if self._hot is None:
            return NO_HOT
        state = self._hot.state()
        # The looks of the measurement were nobody's.
        counts = replace(state.counts, misses=state.counts.misses - self._measured)
        return replace(state, note=self._note, counts=counts)

    def _cold(self) -> Archive:
        if self._archive is None or self._astray is not None:
            raise RefusedError(f"There is no cold tier: {self.cold_off}")
        return self._archive


def _tiered(other: Storage) -> TieredStorage:
    if not isinstance(other, TieredStorage):
        raise StorageError("It is not a storage that was begun aside of one with tiers")
    return other


async def _median(read: Callable[[], Awaitable[Any]]) -> float:
    """Seconds that a read takes, half of the time."""
    taken = []
    for _ in range(SAMPLES):
        began = time.perf_counter()
        await read()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken)


async def _awaited(work: Awaitable[T]) -> T:
    return await work


def _problem(damage: Damage) -> Problem:
    block = "" if damage.block is None else f", block {damage.block}"
    return Problem(f"archive {damage.archive}{block}", damage.detail)


def _damages(archive: Archive, name: str) -> list[Damage]:
    return [one for one in archive.verify(name) if isinstance(one, Damage)]
