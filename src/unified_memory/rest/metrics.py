"""Figures for a monitoring system, in the text format of Prometheus.

The format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import asyncio

from unified_memory.model.clock import SECOND
from unified_memory.rest.backups import age_seconds
from unified_memory.rest.exchange import Answer, Call
from unified_memory.rest.tiers import held, living
from unified_memory.service.backups import BackupState
from unified_memory.service.service import Service
from unified_memory.service.tiering import TierState
from unified_memory.storage.hot import HotState

MEDIA_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# What lies where is counted row by row, about a second for a million memories.
COUNTED_SECONDS = 15
Samples = dict[str, float | None]


class Metrics:
    """The figures of the tiers and of backups as text.

    What takes long to count is kept for COUNTED_SECONDS, everything else is of now.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self._counted: tuple[TierState, BackupState] | None = None
        self._counted_at = 0
        self._counting = asyncio.Lock()

    async def text(self) -> str:
        """The exposition. Raises StorageError and below."""
        async with self._counting:
            # However many ask, it is counted once.
            now = self._service.clock.now()
            if self._counted is None or not 0 <= now - self._counted_at < COUNTED_SECONDS * SECOND:
                self._counted = (await self._service.tiering.state(), await self._service.backups.state())
                self._counted_at = now
            state, backups = self._counted
        return _exposition(state, self._service.tiering.hot_state(), backups, now)


async def metrics(_service: Service, call: Call) -> Answer:
    """GET /metrics."""
    call.query()
    text = await call.scope["unified_memory.metrics"].text()
    return Answer(text.encode(), headers=((b"content-type", MEDIA_TYPE.encode()),))


def _exposition(state: TierState, hot: HotState, backups: BackupState, now: int) -> str:
    counts, uses = state.counts, state.uses
    memories: Samples = {
        '{tier="hot"}': held(hot, hot.counts.entries),
        '{tier="warm"}': uses.warm,
        '{tier="cold"}': uses.cold,
    }
    sizes: Samples = {
        '{tier="hot"}': held(hot, hot.counts.bytes),
        '{tier="warm"}': uses.warm_bytes,
        '{tier="cold"}': uses.cold_bytes,
    }
    looks: Samples = {'{result="hit"}': hot.counts.hits, '{result="miss"}': hot.counts.misses}
    lately = f"counted at most {COUNTED_SECONDS} seconds ago"
    since = "since this process began"
    families: list[tuple[str, str, str, Samples]] = [
        ("tier_memories", "gauge", f"Memories by tier; hot ones are copies. Warm and cold ones {lately}.", memories),
        ("tier_bytes", "gauge", f"Bytes of values by tier. Warm and cold ones {lately}.", sizes),
        ("hot_looks_total", "counter", f"Looks for a hot copy {since}.", looks),
        ("hot_evictions_total", "counter", f"Hot copies that gave way to others {since}.", {"": hot.counts.evictions}),
        ("hot_refused_total", "counter", f"Copies that were not taken {since}.", {"": hot.counts.refused}),
        ("hot_failures_total", "counter", f"Requests that the hot tier failed {since}.", {"": hot.counts.failures}),
        ("hot_trusted", "gauge", "Whether hot copies are being read.", {"": int(hot.trusted)}),
        ("promotions_total", "counter", f"Values brought back from archives {since}.", {"": counts.promotions}),
        ("demotions_total", "counter", f"Values moved to archives {since}.", {"": counts.demotions}),
        ("compactions_total", "counter", f"Archives compacted {since}.", {"": counts.compactions}),
        ("archives", "gauge", f"Archives, {lately}.", {"": living(state)}),
        ("archive_bytes", "gauge", f"Bytes of archives, {lately}.", {"": state.archive_bytes}),
        (
            "backup_age_seconds",
            "gauge",
            "Age of the last backup; none: there is no sample.",
            {"": age_seconds(backups.last_at, now)},
        ),
        (
            "backup_verified_age_seconds",
            "gauge",
            "Since a backup was verified last; never: there is no sample.",
            {"": age_seconds(backups.verified_at, now)},
        ),
        (
            "backup_verified",
            "gauge",
            "Whether the last verification found a backup whole.",
            {"": int(bool(backups.verified_ok))},
        ),
        ("backups", "gauge", f"Backups, {lately}.", {"": backups.count}),
        ("backup_bytes", "gauge", f"Bytes of backups, {lately}.", {"": backups.bytes}),
    ]
    lines = []
    for name, kind, told, samples in families:
        if all(value is None for value in samples.values()):
            continue
        full = f"unified_memory_{name}"
        lines += [f"# HELP {full} {told}", f"# TYPE {full} {kind}"]
        lines += [f"{full}{labels} {value}" for labels, value in samples.items() if value is not None]
    return "\n".join(lines) + "\n"
