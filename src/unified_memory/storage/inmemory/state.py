"""What is kept, and what all parts of the storage use."""

import copy
import secrets
from collections.abc import Iterable

from msgspec import Struct, structs

from unified_memory.model.clock import SECOND, Clock, SystemClock
from unified_memory.model.errors import QuotaExceededError, ReadOnlyError
from unified_memory.model.history import Event, Keeping, Kind, Past
from unified_memory.model.job import Job
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import Namespace, NamespaceConfig, ancestors, contains, inherit
from unified_memory.model.query import Selection, matches
from unified_memory.model.session import Session
from unified_memory.storage.base import Storage
from unified_memory.storage.dump import Buried
from unified_memory.storage.inmemory.record import Record
from unified_memory.storage.inmemory.unit import Ref, Unit


class KeptSpace(Struct):
    """What is kept of a namespace. `top_version`: at least so high were versions in it."""

    config: NamespaceConfig
    created_at: int
    explicit: bool
    number: int
    top_version: int = 0


class KeptUnit(Struct):
    """What is kept of a unit under its idempotency key."""

    fingerprint: bytes
    record: bytes
    until: int


class Made(Struct):
    """A vector as it is kept."""

    place: int
    model: str
    code: bytes


class State(Storage):
    """Everything in the memory of one process, gone with it.

    No method gives way to another task in its middle, so each is atomic by itself. Memories, sessions, former versions and
    jobs are never changed in place but replaced, and are copied on their way out.

    `clock`: tells whether a hold of the writes has passed. `keeping`: how much of the past is kept where no namespace says so.
    """

    def __init__(self, clock: Clock | None = None, keeping: Keeping = Keeping()) -> None:  # noqa: B008 - it is frozen
        self._clock = clock or SystemClock()
        self._keeping = keeping
        self._store = secrets.token_hex(8)
        self._records: dict[Ref, Record] = {}
        self._refs: dict[int, Ref] = {}
        # The last version that each key ever had, and the highest of each namespace that has gone.
        self._versions: dict[Ref, int] = {}
        self._floors: dict[str, int] = {}
        self._spaces: dict[str, KeptSpace] = {}
        self._dead: dict[int, list[Record]] = {}
        # The last removal of each key that has no memory.
        self._buried: dict[Ref, Buried] = {}
        # Former versions by the key under which they stand, oldest first.
        self._past: dict[Ref, list[Past]] = {}
        # What happened behind the floor, in the commit order.
        self._events: list[Event] = []
        self._feed_floor = 0
        self._sessions: dict[Ref, tuple[int, Session]] = {}
        self._jobs: dict[str, tuple[int, Job]] = {}
        self._leases: dict[str, tuple[str, int]] = {}
        self._kept: dict[Ref, KeptUnit] = {}
        # Vectors by memory, and where in the commit order a memory last was written, moved or removed.
        self._vectors: dict[int, Made] = {}
        self._changed: dict[int, int] = {}
        # Memories that were put back and whose end no row has told so far, with their versions.
        self._doubtful: dict[int, int] = {}
        self._last_place = 0
        self._read_only: str | None = None
        self._held: tuple[str, int] | None = None
        self._seq = 0
        self._last_id = 0
        self._last_serial = 0

    # ---- reading

    def _shown(self, record: Record | None, now: int) -> Memory | None:
        return copy.copy(record.memory) if record is not None and record.memory.visible(now) else None

    def _selected(self, selection: Selection, now: int) -> list[Memory]:
        return [
            record.memory
            for record in self._records.values()
            if record.memory.visible(now)
            and within(selection.scopes, record.memory.namespace, recursive=selection.recursive)
            and (selection.where is None or matches(selection.where, record.memory))
        ]

    # ---- changing

    def _begin(self, now: int) -> Unit:
        return Unit(now, self._seq, self._last_id)

    def _staged(self, unit: Unit, ref: Ref) -> Record | None:
        return unit.records[ref] if ref in unit.records else self._records.get(ref)

    def _last_version(self, unit: Unit, ref: Ref) -> int:
        return max(unit.versions.get(ref) or self._versions.get(ref, 0), self._floors.get(ref[0], 0))

    def _end(self, unit: Unit, memory: Memory, kind: Kind) -> None:
        """Stages the removal of a memory, and what stays of it."""
        seq = unit.remove(memory, kind)
        if kind is Kind.EXPIRE:
            self._forget_past(unit, memory.id)
        elif kind is Kind.DELETE:
            self._retire(unit, memory, seq)

    def _retire(self, unit: Unit, memory: Memory, seq: int) -> None:
        """Leaves a version in the past, where any are kept. `seq`: the place of what ended it."""
        if self._keeping.within(self._effective(memory.namespace)).on:
            self._staged_past(unit, (memory.namespace, memory.key)).append(past_of(memory, unit.now, seq))

    def _staged_past(self, unit: Unit, ref: Ref) -> list[Past]:
        """The past of a key as the unit leaves it, to be changed."""
        return unit.past.setdefault(ref, list(self._past.get(ref, ())))

    def _forget_past(self, unit: Unit, number: int) -> None:
        """Leaves nothing of a memory, under whatever key it stands."""
        for ref in self._past.keys() | unit.past.keys():
            rows = self._staged_past(unit, ref)
            rows[:] = [row for row in rows if row.memory.id != number]

    def _drop_past(self, ids: set[int]) -> None:
        """Leaves nothing of these memories, at once."""
        kept = {ref: [row for row in rows if row.memory.id not in ids] for ref, rows in self._past.items()}
        self._past = {ref: rows for ref, rows in kept.items() if rows}

    def _commit(self, unit: Unit) -> None:
        self._check_quotas(unit)
        self._apply(unit)

    def _apply(self, unit: Unit) -> None:
        """Makes the unit's changes; nothing in here can fail. Removals first: a moved memory keeps its id."""
        before: dict[int, Ref] = {}
        for ref in unit.records:
            if ref in self._records:
                number = self._records.pop(ref).memory.id
                before[number] = ref
                del self._refs[number]
        self._buried |= unit.buried
        for ref, record in unit.records.items():
            if record is not None:
                self._records[ref] = record
                self._refs[record.memory.id] = ref
                self._buried.pop(ref, None)
        self._follow(before, unit)
        self._events += unit.events
        self._past = {ref: rows for ref, rows in (self._past | unit.past).items() if rows}
        self._versions |= unit.versions
        for namespace, _ in unit.versions:
            self._make_space(namespace, unit.now)
        for ref, project_id in unit.sessions:
            self._make_session(ref, project_id, unit.now)
            self._use_session(ref, unit.now)
        self._seq = unit.seq
        self._last_id = unit.last_id

    def _check_quotas(self, unit: Unit) -> None:
        """Raises where the unit makes a subtree grow beyond a quota."""
        for name in dict.fromkeys(one for namespace, _ in unit.versions for one in ancestors(namespace)):
            config = self._config(name)
            if not isinstance(config.max_memories, int) and not isinstance(config.max_bytes, int):
                continue
            memories, size = self._use(self._records | unit.records, name, unit.now)
            memories_before, size_before = self._use(self._records, name, unit.now)
            if isinstance(config.max_memories, int) and memories > max(config.max_memories, memories_before):
                raise QuotaExceededError(name, "max_memories", config.max_memories)
            if isinstance(config.max_bytes, int) and size > max(config.max_bytes, size_before):
                raise QuotaExceededError(name, "max_bytes", config.max_bytes)

    @staticmethod
    def _use(records: "dict[Ref, Record] | dict[Ref, Record | None]", name: str, now: int) -> tuple[int, int]:
        """How many visible memories, and how many bytes of values, lie in the subtree."""
        sizes = [
            len(record.memory.value)
            for (namespace, _), record in records.items()
            if record is not None and record.memory.visible(now) and contains(name, namespace)
        ]
        return len(sizes), sum(sizes)

    def _refuse_when_read_only(self) -> None:
        reason = self._why_read_only()
        if reason is not None:
            raise ReadOnlyError(reason)

    def _why_read_only(self) -> str | None:
        return (
            self._held[0] if self._read_only is None and self._held is not None and self._is_held() else self._read_only
        )

    def _is_held(self) -> bool:
        """Whether writes are held."""
        return self._held is not None and self._held[1] > self._clock.now()

    def _make_space(self, name: str, now: int) -> None:
        if name not in self._spaces:
            self._spaces[name] = KeptSpace(NamespaceConfig(), now, explicit=False, number=self._next_serial())

    def _effective(self, name: str) -> NamespaceConfig:
        return inherit([self._config(one) for one in ancestors(name)])

    def _config(self, name: str) -> NamespaceConfig:
        return self._spaces[name].config if name in self._spaces else NamespaceConfig()

    def _namespace(self, name: str, now: int) -> Namespace:
        """The namespace, also where it exists only through others below it."""
        below = [space for one, space in self._spaces.items() if one != name and contains(name, one)]
        space = self._spaces.get(name)
        if space is None:
            space = KeptSpace(NamespaceConfig(), min(one.created_at for one in below), explicit=False, number=0)
        own = {ref: record for ref, record in self._records.items() if ref[0] == name}
        memories, size = self._use(own, name, now)
        total_memories, total_bytes = self._use(self._records, name, now)
        return Namespace(
            name,
            space.config,
            self._effective(name),
            space.created_at,
            space.explicit,
            memories=memories,
            bytes=size,
            total_memories=total_memories,
            total_bytes=total_bytes,
            namespaces=len(below),
        )

    # ---- what goes along

    def _next_serial(self) -> int:
        self._last_serial += 1
        return self._last_serial

    def _next_place(self) -> int:
        self._last_place += 1
        return self._last_place

    def _follow(self, gone: dict[int, Ref], unit: Unit) -> None:
        """Moves the vectors of what was moved, and drops those of what was written over or removed."""
        written = {record.memory.id: ref for ref, record in unit.records.items() if record is not None}
        for number in gone.keys() | written.keys():
            self._changed[number] = unit.seq
            if number in self._vectors:
                made = self._vectors.pop(number)
                if number in written and written[number] != gone.get(number):
                    self._vectors[number] = structs.replace(made, place=self._next_place())

    def _top_version(self, name: str) -> int:
        """The highest version that was ever used in a namespace of that name."""
        here = self._spaces[name].top_version if name in self._spaces else 0
        used = (version for (namespace, _), version in self._versions.items() if namespace == name)
        return max([here, self._floors.get(name, 0), *used])

    def _leave(self, name: str) -> None:
        """Takes a namespace away; of it is remembered only how far its versions went."""
        self._floors[name] = self._top_version(name)
        self._versions = {ref: version for ref, version in self._versions.items() if ref[0] != name}
        self._past = {ref: rows for ref, rows in self._past.items() if ref[0] != name}
        del self._spaces[name]

    def _make_session(self, ref: Ref, project_id: str | None, now: int) -> None:
        if ref not in self._sessions:
            namespace, session_id = ref
            new = Session(session_id, namespace, None, project_id, None, b"{}", now, now, None)
            self._sessions[ref] = (self._next_serial(), new)

    def _use_session(self, ref: Ref, now: int) -> None:
        serial, session = self._sessions[ref]
        expires_at = session.expires_at if session.ttl is None else now + round(session.ttl * SECOND)
        used = structs.replace(session, last_used=now, expires_at=expires_at, ended_at=None)
        self._sessions[ref] = (serial, used)

    def _memories_of(self, session: Session) -> Iterable[Record]:
        whose = (session.namespace, session.id)
        return (r for r in self._records.values() if (r.memory.namespace, r.memory.session_id) == whose)

    def _counted(self, session: Session, now: int) -> Session:
        held = [r for r in self._memories_of(session) if r.memory.visible(now)]
        return structs.replace(session, memories=len(held))


def past_of(memory: Memory, now: int, seq: int) -> Past:
    """The version that ends now, by what happens at the place `seq`."""
    return Past(structs.replace(memory, access_count=0, last_accessed=None), now, len(memory.value), seq)


def within(scopes: tuple[str, ...], namespace: str, *, recursive: bool = True) -> bool:
    """Whether the namespace is one of the scopes, or lies below one."""
    return any(contains(scope, namespace) if recursive else scope == namespace for scope in scopes)
