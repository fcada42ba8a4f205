"""Changes in preparation."""

from msgspec import Struct

from unified_memory.model.history import Event, Kind, Past
from unified_memory.model.memory import Memory
from unified_memory.storage.dump import Buried
from unified_memory.storage.inmemory.record import Record

Ref = tuple[str, str]

REASONS = {Kind.DELETE: "deleted", Kind.EXPIRE: "expired", Kind.MOVE: "moved", Kind.REDACT: "redacted"}


class Unit(Struct):
    """Changes of which nothing shows before they are applied; a record of None is a removal."""

    now: int
    seq: int
    last_id: int
    records: dict[Ref, Record | None] = {}
    versions: dict[Ref, int] = {}
    # Sessions that are used, each with the project of the memory that names it.
    sessions: list[tuple[Ref, str | None]] = []
    # Removed keys, the past of keys as it is to be, and what is told of the changes.
    buried: dict[Ref, Buried] = {}
    past: dict[Ref, list[Past]] = {}
    events: list[Event] = []

    def write(self, record: Record, kind: Kind) -> None:
        """Stages what a key is to hold; its place in the commit order is taken already."""
        memory = record.memory
        ref = (memory.namespace, memory.key)
        self.records[ref] = record
        self.versions[ref] = memory.version
        self.tell(kind, memory, memory.seq)

    def remove(self, memory: Memory, kind: Kind) -> int:
        """Stages the removal of a memory; the place of it in the commit order."""
        ref = (memory.namespace, memory.key)
        seq = self.next_seq()
        self.records[ref] = None
        self.buried[ref] = Buried(*ref, memory.version, seq, memory.id, self.now, REASONS[kind])
        self.tell(kind, memory, seq)
        return seq

    def tell(self, kind: Kind, memory: Memory, seq: int) -> None:
        """Stages an event."""
        told = Event(seq, self.now, kind, memory.namespace, memory.key, memory.version, memory.id)
        self.events.append(told)

    def next_seq(self) -> int:
        """A place at the end of the commit order."""
        self.seq += 1
        return self.seq

    def next_id(self) -> int:
        """An id that no memory had."""
        self.last_id += 1
        return self.last_id
