"""Taking over another storage, memory by memory."""

import secrets
from collections.abc import Iterable

from msgspec import Struct, structs

from unified_memory.model.errors import ConflictError
from unified_memory.model.history import Kind, Past
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import contains
from unified_memory.model.session import Session
from unified_memory.storage.base import Storage
from unified_memory.storage.dump import Buried, Difference, Floor, Mode, Snapshot, Space, Takeover
from unified_memory.storage.inmemory.record import derive
from unified_memory.storage.inmemory.state import State
from unified_memory.storage.inmemory.unit import Ref, Unit


class Theirs(Struct):
    """What the other storage holds of what is taken over, under the names that it has here."""

    spaces: list[Space]
    floors: list[Floor]
    buried: list[Buried]
    memories: dict[Ref, Memory]
    past: list[Past]
    sessions: list[Session]


class Plan(Struct):
    """What comes (as it is there), what goes, and what stays (as it is here)."""

    added: list[Memory]
    changed: list[Memory]
    removed: list[Memory]
    same: list[Memory]


def concerns(takeover: Takeover, name: str) -> bool:
    """Whether what lies in that namespace here is to become as it is there."""
    return takeover.mode is not Mode.NAMESPACE or contains(_target(takeover), name)


def _target(takeover: Takeover) -> str:
    return takeover.target or takeover.namespace or ""


def read(snapshot: Snapshot, takeover: Takeover) -> Theirs:
    """What the snapshot of the other storage holds of it."""
    source = (takeover.namespace or "") if takeover.mode is Mode.NAMESPACE else ""
    target = _target(takeover) if takeover.mode is Mode.NAMESPACE else ""

    def name_here(name: str) -> str:
        return target + name[len(source) :]

    def moved(memory: Memory) -> Memory:
        return structs.replace(memory, namespace=name_here(memory.namespace))

    memories = [moved(memory) for memory in snapshot.memories() if contains(source, memory.namespace)]
    return Theirs(
        [structs.replace(one, name=name_here(one.name)) for one in snapshot.spaces() if contains(source, one.name)],
        [structs.replace(one, name=name_here(one.name)) for one in snapshot.floors() if contains(source, one.name)],
        [
            structs.replace(one, namespace=name_here(one.namespace))
            for one in snapshot.buried()
            if contains(source, one.namespace)
        ],
        {(memory.namespace, memory.key): memory for memory in sorted(memories, key=lambda memory: memory.seq)},
        [
            structs.replace(row, memory=moved(row.memory))
            for row in snapshot.past()
            if contains(source, row.memory.namespace)
        ],
        [
            structs.replace(one, namespace=name_here(one.namespace))
            for one in snapshot.sessions()
            if contains(source, one.namespace)
        ],
    )


def plan(ours: dict[Ref, Memory], theirs: dict[Ref, Memory], mode: Mode) -> Plan:
    """What is to be done with the visible memories of both."""
    planned = Plan([], [], [], [])
    for ref, memory in theirs.items():
        here = ours.get(ref)
        if here is None:
            planned.added.append(memory)
        elif _content(here) == _content(memory) or (mode is Mode.MERGE and here.updated_at >= memory.updated_at):
            planned.same.append(here)
        else:
            planned.changed.append(memory)
    if mode is not Mode.MERGE:
        planned.removed = [memory for ref, memory in ours.items() if ref not in theirs]
    return planned


def differences(planned: Plan, samples: int) -> list[Difference]:
    """What a plan changes, by namespace."""
    told: dict[str, Difference] = {}

    def difference(name: str) -> Difference:
        return told.setdefault(name, Difference(name, samples={}))

    def count(kind: str, memories: Iterable[Memory]) -> None:
        for memory in memories:
            one = difference(memory.namespace)
            setattr(one, kind, getattr(one, kind) + 1)
            keys = one.samples.setdefault(kind, [])
            if len(keys) < samples:
                keys.append(memory.key)

    count("added", planned.added)
    count("changed", planned.changed)
    count("removed", planned.removed)
    for memory in planned.same:
        difference(memory.namespace).same += 1
    return [told[name] for name in sorted(told)]


def _content(memory: Memory) -> Memory:
    """What is the same in two storages where a memory is the same."""
    return structs.replace(memory, id=0, version=0, seq=0, access_count=0, last_accessed=None, tier="warm")


class TakeoverPart(State):
    """The part of the storage that takes over another one."""

    async def compare(self, other: Storage, takeover: Takeover, now: int, *, samples: int) -> list[Difference]:
        """See `Storage.compare`."""
        theirs = await other.snapshot(lambda snapshot: read(snapshot, takeover), now)
        return differences(self._plan(theirs, takeover, now), samples)

    async def take_over(self, other: Storage, takeover: Takeover, now: int) -> list[Difference]:
        """See `Storage.take_over`. From the plan on nothing gives way to others."""
        theirs = await other.snapshot(lambda snapshot: read(snapshot, takeover), now)
        if not self._is_held():
            raise ConflictError("Another storage is taken over only while writes are held")
        is_new = self._seq == 0
        planned = self._plan(theirs, takeover, now)
        unit = self._begin(now)
        self._stage_removals(unit, theirs, planned, takeover)
        ids = self._stage_theirs(unit, theirs, planned, takeover, is_new=is_new)
        if is_new or takeover.mode is not Mode.MERGE:
            self._stage_their_ends(unit, theirs, is_new=is_new)
            self._stage_their_past(unit, theirs, takeover, ids, is_new=is_new)
        there_before = set(self._spaces)
        self._apply(unit)
        self._take_spaces(theirs, takeover, there_before, is_new=is_new)
        self._take_sessions(theirs, takeover)
        if takeover.mode is Mode.REPLACE:
            self._store = secrets.token_hex(8)
            self._vectors.clear()
        return differences(planned, 0)

    def _plan(self, theirs: Theirs, takeover: Takeover, now: int) -> Plan:
        ours = {
            ref: record.memory
            for ref, record in self._records.items()
            if record.memory.visible(now) and concerns(takeover, ref[0])
        }
        return plan(ours, theirs.memories, takeover.mode)

    def _stage_removals(self, unit: Unit, theirs: Theirs, planned: Plan, takeover: Takeover) -> None:
        for ref, record in self._records.items():
            goes = concerns(takeover, ref[0]) if takeover.mode is not Mode.MERGE else ref in theirs.memories
            if goes and not record.memory.visible(unit.now):
                self._end(unit, record.memory, Kind.EXPIRE)
        for memory in planned.removed:
            unit.remove(memory, Kind.DELETE)

    def _stage_theirs(
        self, unit: Unit, theirs: Theirs, planned: Plan, takeover: Takeover, *, is_new: bool
    ) -> dict[int, int]:
        """Stages the memories that come. The ids that memories of the other storage have here."""
        used = [memory.id for memory in (*theirs.memories.values(), *(row.memory for row in theirs.past))]
        unit.last_id = max([unit.last_id, *used, *(one.id for one in theirs.buried)])
        ids = {theirs.memories[one.namespace, one.key].id: one.id for one in planned.same}
        for memory in (*planned.added, *planned.changed):
            ref = (memory.namespace, memory.key)
            before, last = self._staged(unit, ref), self._last_version(unit, ref)
            others = (row.memory.id for there, rows in self._past.items() if there != ref for row in rows)
            is_taken = self._refs.get(memory.id, ref) != ref or memory.id in others
            comes = structs.replace(
                memory,
                id=unit.next_id() if is_taken else memory.id,
                version=memory.version if is_new or memory.version > last else last + 1,
                seq=memory.seq if is_new else unit.next_seq(),
            )
            unit.seq = max(unit.seq, comes.seq)
            ids[memory.id] = comes.id
            unit.write(derive(comes), Kind.STORE if before is None else Kind.UPDATE)
            if takeover.mode is Mode.MERGE:
                if before is not None:
                    self._retire(unit, before.memory, comes.seq)
                elif not is_new:
                    self._bring_past(unit, theirs, ref, comes, ids)
        return ids

    def _bring_past(self, unit: Unit, theirs: Theirs, ref: Ref, comes: Memory, ids: dict[int, int]) -> None:
        """Stages that the past of a memory comes with it, where the key has none here."""
        if not self._staged_past(unit, ref):
            rows = (row for row in theirs.past if (row.memory.namespace, row.memory.key) == ref)
            unit.past[ref] = [_as_here(row, ids, comes.seq) for row in rows]

    def _stage_their_past(
        self, unit: Unit, theirs: Theirs, takeover: Takeover, ids: dict[int, int], *, is_new: bool
    ) -> None:
        """Stages that the past is as there, but of memories that stay at another version than they have there."""
        there: dict[Ref, list[Past]] = {}
        for row in theirs.past:
            there.setdefault((row.memory.namespace, row.memory.key), []).append(row)
        for ref in {ref for ref in self._past if concerns(takeover, ref[0])} | there.keys():
            memory = theirs.memories.get(ref)
            if memory is not None and ref not in unit.records and self._records[ref].memory.version != memory.version:
                continue
            rows = there.get(ref, [])
            place = 0 if is_new or not rows else unit.next_seq()
            unit.past[ref] = [_as_here(row, ids, place or row.touched) for row in rows]
            if rows:
                unit.versions[ref] = max(self._last_version(unit, ref), rows[-1].memory.version)
            unit.seq = max([unit.seq, *(row.touched for row in unit.past[ref])])

    def _stage_their_ends(self, unit: Unit, theirs: Theirs, *, is_new: bool) -> None:
        """Stages what the other storage knows of keys without a memory, where it goes further than what is known here."""
        names = {space.name for space in theirs.spaces}
        for one in theirs.buried:
            ref = (one.namespace, one.key)
            if self._staged(unit, ref) is not None or one.version <= self._last_version(unit, ref):
                continue
            unit.buried[ref] = structs.replace(one, seq=one.seq if is_new else unit.next_seq())
            unit.seq = max(unit.seq, unit.buried[ref].seq)
            if one.namespace in names:
                unit.versions[ref] = one.version

    def _take_spaces(self, theirs: Theirs, takeover: Takeover, there_before: set[str], *, is_new: bool) -> None:
        if is_new or takeover.mode is not Mode.MERGE:
            for floor in theirs.floors:
                self._floors[floor.name] = max(self._floors.get(floor.name, 0), floor.version)
        names = {space.name for space in theirs.spaces}
        if takeover.mode is not Mode.MERGE:
            for name in [one for one in self._spaces if concerns(takeover, one) and one not in names]:
                self._leave(name)
        for space in theirs.spaces:
            if takeover.mode is not Mode.MERGE or space.name not in there_before:
                self._make_space(space.name, space.created_at)
                self._spaces[space.name] = structs.replace(
                    self._spaces[space.name],
                    config=space.config,
                    created_at=space.created_at,
                    explicit=space.explicit,
                    top_version=max(self._top_version(space.name), space.top_version),
                )

    def _take_sessions(self, theirs: Theirs, takeover: Takeover) -> None:
        if takeover.mode is not Mode.MERGE:
            self._sessions = {ref: one for ref, one in self._sessions.items() if not concerns(takeover, ref[0])}
        for session in theirs.sessions:
            ref = (session.namespace, session.id)
            if ref not in self._sessions or self._sessions[ref][1].last_used < session.last_used:
                self._sessions[ref] = (self._next_serial(), session)


def _as_here(row: Past, ids: dict[int, int], touched: int) -> Past:
    memory = structs.replace(row.memory, id=ids.get(row.memory.id, row.memory.id))
    return structs.replace(row, memory=memory, touched=touched)
