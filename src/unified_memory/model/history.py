"""What is kept of the past: versions of memories that are no longer current, and what happened in which order."""

from enum import StrEnum

from msgspec import UNSET, Struct

from unified_memory.model.memory import Memory
from unified_memory.model.namespace import NamespaceConfig

DAY = 24 * 3600 * 1_000_000


class Past(Struct):
    """A version of a memory that another one, or the end of the memory, has replaced.

    `memory`: as it was then, `updated_at` being when that version was written; access data are empty. `ended_at`: when it was
    replaced. `bytes`: of its value, also where nothing else is known of it any longer. `kept` False: the content is gone (the
    value is empty, there are no attributes); `redacted_at`: since when, where it was taken out on purpose. `touched`: the place
    in the commit order where this row itself last changed.
    """

    memory: Memory
    ended_at: int
    bytes: int
    touched: int
    kept: bool = True
    redacted_at: int | None = None


class Keeping(Struct, frozen=True):
    """How much of the past is kept: so many versions of each memory, for so many days; None is no limit, 0 is nothing."""

    versions: int | None = 20
    days: float | None = 30.0

    @property
    def on(self) -> bool:
        """Whether anything is kept."""
        return self.versions != 0 and self.days != 0

    def within(self, config: NamespaceConfig) -> "Keeping":
        """What holds in a namespace with those settings (after inheritance)."""
        return Keeping(
            self.versions if config.history_keep is UNSET else config.history_keep,
            self.days if config.history_days is UNSET else config.history_days,
        )


class Kind(StrEnum):
    """What happened. MOVE: the memory left that key (a STORE of its new key follows). DROP: a namespace went with all in it."""

    STORE = "store"
    UPDATE = "update"
    DELETE = "delete"
    EXPIRE = "expire"
    MOVE = "move"
    REDACT = "redact"
    DROP = "drop"


class Event(Struct):
    """One change, at its place `seq` in the commit order. `key`, `version`, `id`: of the memory; None where a namespace went."""

    seq: int
    at: int
    kind: Kind
    namespace: str
    key: str | None = None
    version: int | None = None
    id: int | None = None
