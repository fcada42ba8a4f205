"""Everything that is kept, as rows that every backend gives and takes: what backups hold.

A *snapshot* is everything of one instant. A *link* is what a backup holds of a snapshot: all of it, or what has changed since the
snapshot of another link. Rows are put back, as they were, into a storage that was begun *aside*, link by link; the one that
serves takes it over in one step.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from enum import StrEnum

from msgspec import Struct

from unified_memory.model.history import Past
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.session import Session

# What whoever holds writes is told where that came to its end before the work did.
LAPSED = "Writes were held no longer; others may have written meanwhile"


class Space(Struct):
    """A namespace that is there. `number`: another one of the same name has another number. `top_version`: no version that was
    ever used in it is higher.
    """

    name: str
    number: int
    config: NamespaceConfig
    created_at: int
    explicit: bool
    top_version: int


class Floor(Struct):
    """No version of a namespace of that name, which was deleted, was higher."""

    name: str
    version: int


class Buried(Struct):
    """A key that has no memory any longer: its last version, the place of its end in the commit order, and why it ended
    (deleted, expired, moved, redacted). `id`: of that memory.
    """

    namespace: str
    key: str
    version: int
    seq: int
    id: int
    at: int
    reason: str


class Used(Struct):
    """Access data of a memory."""

    id: int
    count: int
    last: int


Row = Space | Floor | Buried | Memory | Past | Used | Session


class Snapshot(ABC):
    """Everything of one instant. Only for use inside of `Storage.snapshot`, on the thread that it gives.

    `store`: names the storage; changes when it is taken over by another one. `instant`: when; `seq`: the end of the commit order
    then; `schema`: the version of the storage's own schema, 0 where it has none. `memory_count` and `memory_bytes`: visible, of
    values; `namespaces`: how many lie in each that holds any. `after`: only what changed behind that place in the commit order.
    """

    store: str
    instant: int
    seq: int
    schema: int
    memory_count: int
    memory_bytes: int
    namespaces: dict[str, int]

    @abstractmethod
    def spaces(self) -> Iterator[Space]:
        """All namespaces that are there, by name."""

    @abstractmethod
    def floors(self) -> Iterator[Floor]:
        """The names of all that were deleted."""

    @abstractmethod
    def buried(self, after: int = 0) -> Iterator[Buried]:
        """Keys without a memory; memories that have expired are told so too."""

    @abstractmethod
    def memories(self, after: int = 0) -> Iterator[Memory]:
        """The visible memories with their values, cold ones too. Raises StorageCorruptError, ArchiveMissingError."""

    @abstractmethod
    def past(self, after: int = 0) -> Iterator[Past]:
        """Versions that were replaced, of one key after each other, oldest first; none of a memory that has expired."""

    @abstractmethod
    def used(self, after: int, since: int) -> Iterator[Used]:
        """Access data of visible memories that did not change behind `after`, and were accessed at or after the instant
        `since`.
        """

    @abstractmethod
    def sessions(self) -> Iterator[Session]:
        """All sessions of the namespaces that are there."""


class Mode(StrEnum):
    """REPLACE: everything is as in the other storage. MERGE: what is missing here, or older, comes from there, all else stays.
    NAMESPACE: one namespace, with all below it, is as there; all else stays.
    """

    REPLACE = "replace"
    MERGE = "merge"
    NAMESPACE = "namespace"


class Takeover(Struct, frozen=True):
    """What is taken over. `namespace`: which, for NAMESPACE; `target`: the name that it gets here, None for the same."""

    mode: Mode
    namespace: str | None = None
    target: str | None = None


class Difference(Struct):
    """What a takeover changes in a namespace: memories `added`, `changed` (another content), `removed`, and those that are the
    `same`; `samples`: some keys of each of the first three.
    """

    namespace: str
    added: int = 0
    changed: int = 0
    removed: int = 0
    same: int = 0
    samples: dict[str, list[str]] = {}
