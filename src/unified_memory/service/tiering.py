"""The passes between the tiers: what is archived and when, what comes back, and what archives are compacted."""

import logging
from collections.abc import AsyncIterator, Sequence

from msgspec import UNSET, Struct

from unified_memory.model.clock import FIRST_INSTANT, SECOND, Clock
from unified_memory.model.errors import (
    PermissionDeniedError,
    ReadOnlyError,
    RefusedError,
    StorageCorruptError,
    StorageError,
)
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import check_namespace
from unified_memory.model.principal import Principal
from unified_memory.model.query import MAX_LIMIT
from unified_memory.service.guard import Guard
from unified_memory.storage.base import Storage
from unified_memory.storage.hot import NO_HOT, HotState
from unified_memory.storage.tiers import Compacted, Moved, TierCounts, Tiers
from unified_memory.storage.warm import ArchiveUse, Demotable, TierUses

COLD = "cold"
ONE_TIER = "The storage has one tier only"
log = logging.getLogger("unified_memory.tiering")
# One archive holds at most so many memories, and about so many bytes of values.
ARCHIVE_MEMORIES = 50_000
ARCHIVE_BYTES = 128 * 1024**2
# The pass by age waits until so much has come together: a file for a few memories frees nothing.
LEAST_BYTES = 64 * 1024
LEAST_MEMORIES = 500
# Where a size is exceeded, so much of it is left, so that the next write does not exceed it again.
RELIEVED = 0.9
# An archive of which so much is dead is compacted.
COMPACT_SHARE = 0.5
# Namespaces that are asked for together.
TOGETHER = 200
RECALLED = 200


class Policy(Struct, frozen=True):
    """When values leave the warm tier. `demote_after`: seconds without use, where a namespace says nothing; None for never.

    `warm_bytes`: largest size of the warm tier's files. `value_bytes`: of the values in it. 0 is unlimited.
    """

    demote_after: float | None = None
    warm_bytes: int = 0
    value_bytes: int = 0


class TierState(Struct):
    """All tiers: what lies where, what happened since this process began, and how the hot tier fares."""

    uses: TierUses
    counts: TierCounts
    hot: HotState
    archives: list[ArchiveUse]
    archive_bytes: int
    cold_off: str | None


class Tiering:
    """Every move between tiers. `tiers` None: the storage has one only."""

    def __init__(self, storage: Storage, tiers: Tiers | None, clock: Clock, guard: Guard, policy: Policy) -> None:
        self._storage = storage
        self._tiers = tiers
        self._clock = clock
        self._guard = guard
        self._policy = policy

    # ---- on purpose
    async def plan(self, principal: Principal, namespace: str, *, recursive: bool) -> TierUses:
        """What lies where in a namespace: so much `archive` and `recall` would move. Raises InvalidInputError, RefusedError."""
        scopes = self._scopes(principal, namespace)
        return await self._several().uses(scopes, self._clock.now(), recursive=recursive)

    async def archive(self, principal: Principal, namespace: str, *, recursive: bool) -> AsyncIterator[Moved]:
        """Archives all that lies in the warm tier of a namespace, archive by archive.

        Raises RefusedError where there is no cold tier, ReadOnlyError, StorageFullError and below.
        """
        scopes = self._scopes(principal, namespace)
        await self.require_moves()
        self.require_cold()
        async for moved in self._demote_all(scopes, self._clock.now() + 1, recursive=recursive):
            yield moved

    async def recall(self, principal: Principal, namespace: str, *, recursive: bool) -> AsyncIterator[Moved]:
        """Brings all cold memories of a namespace back, some hundred at a time.

        Raises ReadOnlyError, StorageFullError, and at the end StorageCorruptError where some cannot be read.
        """
        scopes = self._scopes(principal, namespace)
        await self.require_writes()
        tiers, last, damaged = self._several(), 0, 0
        while ids := await tiers.archived_ids(
            scopes, self._clock.now(), recursive=recursive, after_id=last, limit=RECALLED
        ):
            moved = await tiers.promote(ids, self._clock.now())
            damaged += moved.damaged
            yield moved
            last = ids[-1]
            await self._guard.look()
            await self.require_writes()
        if damaged:
            raise StorageCorruptError(
                f"{damaged} values cannot be read and stay archived; all others are back",
                hint="unified-memory check names them",
                damaged=damaged,
            )

    def _scopes(self, principal: Principal, namespace: str) -> tuple[str, ...]:
        check_namespace(namespace)
        if not principal.sees(namespace):
            raise PermissionDeniedError("Not allowed in this namespace", namespace=namespace)
        return (namespace,)

    def _several(self) -> Tiers:
        if self._tiers is None:
            raise RefusedError(ONE_TIER)
        return self._tiers

    async def require_moves(self) -> None:
        """Raises ReadOnlyError where writes are switched off. Near STORAGE_LIMIT archives are what makes room."""
        if (reason := await self._guard.switched_off()) is not None:
            raise ReadOnlyError(reason)

    async def require_writes(self) -> None:
        """Raises ReadOnlyError where writes are off."""
        if (reason := await self._guard.reason()) is not None:
            raise ReadOnlyError(reason)

    def require_cold(self) -> None:
        """Raises RefusedError where nothing can be archived."""
        off = ONE_TIER if self._tiers is None else self._tiers.cold_off
        if off is not None:
            raise RefusedError(f"There is no cold tier: {off}")

    # ---- by use
    async def retrieved(self, memories: Sequence[Memory | None]) -> None:
        """Promotes those that were retrieved from the cold tier. That they could not be is no failure of the retrieve."""
        cold = [one.id for one in memories if one is not None and one.tier == COLD]
        if not cold or self._tiers is None or await self._guard.reason() is not None:
            return
        try:
            await self._tiers.promote(cold, self._clock.now())
        except StorageError as error:
            log.warning("Retrieved memories stay cold: %s", error.detail)

    # ---- by time and by size
    async def demote(self) -> AsyncIterator[Moved]:
        """One pass: values that were not used for long, then as many as the sizes ask for, least important first.

        None while writes are switched off.
        """
        if await self._rests() or self._tiers is None:
            return
        now = self._clock.now()
        for after, scopes, recursive in await self._by_age():
            used_before = max(FIRST_INSTANT, now - round(after * SECOND))
            async for moved in self._demote_all(scopes, used_before, recursive=recursive, least=True):
                yield moved
        if await self._excess() <= 0:
            return
        # The log, and pages that are free already, are no reason to archive anything.
        await self._storage.shrink()
        excess = await self._excess()
        while excess > 0:
            # What is written while this goes on waits for the next pass.
            chosen = await self._tiers.demotable(
                ("",), self._clock.now(), recursive=True, used_before=now + 1, limit=ARCHIVE_MEMORIES
            )
            if _few(chosen) and sum(one.bytes for one in chosen) < excess:
                # All of it would not be enough, and a file for it would free nothing.
                break
            moved = await self._tiers.demote(_first(chosen, min(excess, ARCHIVE_BYTES)), self._clock.now())
            if not moved.memories:
                break
            yield moved
            await self._storage.shrink()
            excess = min(excess - moved.bytes, await self._excess())

    async def _rests(self) -> bool:
        if self._tiers is not None:
            await self._tiers.look_for_archives()
        return self._tiers is None or self._tiers.cold_off is not None or bool(await self._guard.switched_off())

    async def _by_age(self) -> list[tuple[float, tuple[str, ...], bool]]:
        """(seconds without use, namespaces, whether all below them) of each group of namespaces that has such a limit."""
        groups: dict[float | None, list[str]] = {}
        own, after = False, None
        while True:
            page = await self._storage.list_namespaces(
                ("",), self._clock.now(), depth=None, limit=MAX_LIMIT, after=after
            )
            for one in page.items:
                told = one.effective.demote_after
                own |= told is not UNSET
                seconds = (
                    told if isinstance(told, int | float) else self._policy.demote_after if told is UNSET else None
                )
                groups.setdefault(seconds, []).append(one.name)
            if page.next is None:
                break
            after = str(page.next[0])
        if not own:
            return [] if self._policy.demote_after is None else [(self._policy.demote_after, ("",), True)]
        return [
            (seconds, tuple(names[start : start + TOGETHER]), False)
            for seconds, names in groups.items()
            if seconds is not None
            for start in range(0, len(names), TOGETHER)
        ]

    async def _excess(self) -> int:
        """How many bytes of values must leave the warm tier."""
        policy, tiers = self._policy, self._several()
        excess = 0
        if policy.value_bytes:
            held = (await tiers.uses(("",), self._clock.now(), recursive=True)).warm_bytes
            if held > policy.value_bytes:
                excess = held - round(policy.value_bytes * RELIEVED)
        if policy.warm_bytes:
            size = await tiers.warm_files()
            if size > policy.warm_bytes:
                excess = max(excess, size - round(policy.warm_bytes * RELIEVED))
        return excess

    async def _demote_all(
        self, scopes: tuple[str, ...], used_before: int, *, recursive: bool, least: bool = False
    ) -> AsyncIterator[Moved]:
        tiers = self._several()
        while chosen := await tiers.demotable(
            scopes, self._clock.now(), recursive=recursive, used_before=used_before, limit=ARCHIVE_MEMORIES
        ):
            if least and _few(chosen):
                return
            moved = await tiers.demote(_first(chosen, ARCHIVE_BYTES), self._clock.now())
            if not moved.memories:
                # All of them were written meanwhile.
                return
            yield moved

    # ---- archives
    async def compact(self) -> AsyncIterator[Compacted]:
        """One pass: removes the files of dead archives, and compacts those of which half is dead. None while writes are
        switched off.
        """
        if await self._rests() or self._tiers is None:
            return
        await self._tiers.tidy(self._clock.now())
        for one in await self._tiers.archives():
            if one.state == "live" and one.live_bytes <= one.bytes_raw * COMPACT_SHARE:
                compacted = await self._tiers.compact(one.name, self._clock.now())
                # What is damaged stays, and is tried again each time: it may be mended.
                if compacted.memories or not compacted.damaged:
                    yield compacted

    async def state(self) -> TierState:
        """All tiers at a glance; where the storage has one only, that as the warm one."""
        if self._tiers is None:
            stats = await self._storage.stats(("",), self._clock.now(), top=0)
            return TierState(TierUses(stats.memories, stats.bytes_raw), TierCounts(), NO_HOT, [], 0, ONE_TIER)
        archives = await self._tiers.archives()
        return TierState(
            await self._tiers.uses(("",), self._clock.now(), recursive=True),
            self._tiers.counts,
            self._tiers.hot_state(),
            archives,
            sum(one.bytes_stored for one in archives if one.state != "dead"),
            self._tiers.cold_off,
        )

    async def database_bytes(self) -> int | None:
        """Bytes of the warm tier's files, None where the storage has none."""
        return await self._storage.size() if self._tiers is None else await self._tiers.warm_files()

    def troubles(self) -> list[str]:
        """Why tiers are not used although they should be."""
        hot = self.hot_state().trouble
        cold = None if self._tiers is None else self._tiers.cold_trouble
        return [*([f"hot tier: {hot}"] if hot else []), *([f"cold tier: {cold}"] if cold else [])]

    def hot_state(self) -> HotState:
        """How the hot tier fares."""
        return NO_HOT if self._tiers is None else self._tiers.hot_state()


def _few(chosen: list[Demotable]) -> bool:
    return len(chosen) < LEAST_MEMORIES and sum(one.bytes for one in chosen) < LEAST_BYTES


def _first(chosen: list[Demotable], limit: int) -> list[Demotable]:
    """Those from the beginning that together have about so many bytes, at least one."""
    size = 0
    for count, one in enumerate(chosen, start=1):
        size += one.bytes
        if size >= limit:
            return chosen[:count]
    return chosen
