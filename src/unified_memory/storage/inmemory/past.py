"""Former versions, and the feed of what happened."""

from msgspec import structs

from unified_memory.model.errors import ChangesGoneError, MemoryNotFoundError, VersionGoneError
from unified_memory.model.history import Event, Kind, Past
from unified_memory.model.memory import NO_ATTRIBUTES, Memory
from unified_memory.storage.base import Redacted
from unified_memory.storage.inmemory.state import State, past_of, within
from unified_memory.storage.inmemory.unit import Ref


class PastPart(State):
    """The part of the storage that tells what was."""

    # ---- the past

    async def past(self, namespace: str, key: str, now: int, *, before: int | None, limit: int) -> list[Past]:
        """See `Storage.past`."""
        rows = self._shown_past((namespace, key), now)
        chosen = [row for row in rows if before is None or row.memory.version < before]
        return [_emptied(row) for row in reversed(chosen)][:limit]

    async def past_version(self, namespace: str, key: str, version: int, now: int) -> Past | None:
        """See `Storage.past_version`."""
        rows = self._shown_past((namespace, key), now)
        return next((_copied(row) for row in rows if row.memory.version == version), None)

    async def as_of(self, namespace: str, key: str, instant: int, now: int) -> Memory | None:
        """See `Storage.as_of`."""
        rows = self._shown_past((namespace, key), now)
        current = self._shown(self._records.get((namespace, key)), now)
        for row in rows:
            if row.memory.updated_at <= instant < row.ended_at and row.memory.visible(instant):
                if not row.kept:
                    raise _gone(row.memory, row.memory.version, redacted=row.redacted_at is not None)
                return structs.replace(row.memory)
        known = [row.memory for row in rows] + ([] if current is None else [current])
        for memory in known:
            if memory.created_at <= instant < memory.updated_at:
                # The memory was there, and the version that it was then at is not.
                raise _gone(memory, memory.version - 1, redacted=False)
        return current if current is not None and current.updated_at <= instant and current.visible(instant) else None

    async def redact(self, namespace: str, key: str, version: int | None, now: int) -> Redacted:
        """See `Storage.redact`."""
        ref = (namespace, key)
        unit = self._begin(now)
        record = self._records.get(ref)
        current = record.memory if record is not None and record.memory.visible(now) else None
        if current is not None and version not in {None, current.version}:
            current = None
        named = [row for row in self._shown_past(ref, now) if version in {None, row.memory.version}]
        if current is not None:
            seq = unit.remove(current, Kind.REDACT)
            self._staged_past(unit, ref).append(past_of(current, now, seq))
        elif named:
            seq = unit.next_seq()
            unit.events.append(Event(seq, now, Kind.REDACT, namespace, key, version, named[-1].memory.id))
        else:
            raise MemoryNotFoundError(namespace, key)
        memories = [row.memory for row in named] + ([] if current is None else [current])
        versions = {memory.version for memory in memories}
        rows = self._staged_past(unit, ref)
        rows[:] = [_redacted(row, now, seq) if row.memory.version in versions else row for row in rows]
        self._apply(unit)
        return Redacted(sorted(versions), sorted({memory.id for memory in memories}))

    async def prune_past(
        self, scopes: tuple[str, ...], *, recursive: bool, keep: int | None, before: int | None, limit: int
    ) -> int:
        """See `Storage.prune_past`. The oldest of each key first."""
        gone = 0
        for ref, rows in list(self._past.items()):
            if within(scopes, ref[0], recursive=recursive):
                newer = range(len(rows) - 1, -1, -1)
                doomed = [
                    row
                    for place, row in zip(newer, rows, strict=True)
                    if row.redacted_at is None and _is_behind(place, row, keep, before)
                ]
                versions = {row.memory.version for row in doomed[: limit - gone]}
                gone += len(versions)
                self._past[ref] = [row for row in rows if row.memory.version not in versions]
        self._past = {ref: rows for ref, rows in self._past.items() if rows}
        return gone

    async def shrink_past(self, limit: int) -> int:  # noqa: ARG002 - nothing takes less room than it does
        """See `Storage.shrink_past`. Nothing ever waits."""
        return 0

    def _shown_past(self, ref: Ref, now: int) -> list[Past]:
        """The past of a key, oldest first, without that of memories that have expired."""
        return [row for row in self._past.get(ref, ()) if not self._has_expired(row.memory.id, now)]

    def _has_expired(self, number: int, now: int) -> bool:
        return number in self._refs and not self._records[self._refs[number]].memory.visible(now)

    # ---- the feed

    async def feed(self, after: int, limit: int) -> list[Event]:
        """See `Storage.feed`."""
        if after < self._feed_floor:
            raise ChangesGoneError(after, self._feed_floor)
        return [structs.replace(event) for event in self._events if event.seq > after][:limit]

    async def prune_feed(self, before: int, limit: int) -> int:
        """See `Storage.prune_feed`."""
        gone = 0
        while gone < min(limit, len(self._events)) and self._events[gone].at < before:
            gone += 1
        if gone:
            self._feed_floor = self._events[gone - 1].seq
            self._events = self._events[gone:]
        return gone


def _copied(row: Past) -> Past:
    return structs.replace(row, memory=structs.replace(row.memory))


def _emptied(row: Past) -> Past:
    return structs.replace(row, memory=structs.replace(row.memory, value=b"", attributes=NO_ATTRIBUTES))


def _redacted(row: Past, now: int, seq: int) -> Past:
    at = now if row.redacted_at is None else row.redacted_at
    return structs.replace(_emptied(row), kept=False, redacted_at=at, touched=seq)


def _is_behind(place: int, row: Past, keep: int | None, before: int | None) -> bool:
    """Whether a row is no longer to be kept; `place`: how many of its key are newer."""
    return (keep is not None and place >= keep) or (before is not None and row.ended_at < before)


def _gone(memory: Memory, version: int, *, redacted: bool) -> VersionGoneError:
    return VersionGoneError(memory.namespace, memory.key, version, redacted=redacted)
