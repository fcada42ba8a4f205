"""What every source promises: another program's memories, read as they are, and for the older services written back.

A source is opened on a location and used on one thread at a time, by blocking calls; never on the event loop. Reading changes
nothing in it and holds no lock of it longer than one page takes, so that its own program goes on working. What cannot be
carried is told, never dropped and never executed.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal, Self

import msgspec
from msgspec import Struct

EXTENDED_MEMORY = "extended-memory"
MEMORY_BANK = "memory-bank-mcp"

# Facts of an item that stand in the metadata of the memory which it becomes. The id by which the older tools knew it (an integer,
# or a text), when it was created as the older service wrote it, and importance and tags where ours differ from its own.
LEGACY_ID = "legacy_id"
LEGACY_CREATED_AT = "legacy_created_at"
LEGACY_IMPORTANCE = "legacy_importance"
LEGACY_TAGS = "legacy_tags"

# What a record is: a context of extended-memory, a key with a value of its HTTP service, a file of the memory bank, or anything
# of another program.
Shape = Literal["context", "entry", "file", "record"]


class Item(Struct, kw_only=True):
    """One record of a source.

    `origin` names it in its source for ever, such as `context/12`. `service`: what `migrated_from` says. `project`: as the source
    spells it (None: it has none; the empty text is a name). `key`: what names it within its project, as the source spells it:
    the id of a context, the name of a file. `value`: JSON text. Instants in microseconds. `importance`: 1 to 10. `facts`: further
    metadata, JSON-ready. `notes`: what is odd about it, though all of it is carried; it stands in the quarantine list too.
    """

    origin: str
    service: str
    shape: Shape
    project: str | None
    key: str
    value: bytes
    tags: tuple[str, ...] = ()
    importance: int = 5
    created_at: int | None = None
    updated_at: int | None = None
    last_accessed: int | None = None
    access_count: int = 0
    expires_at: int | None = None
    session_id: str | None = None
    namespace: str | None = None
    facts: dict[str, Any] = msgspec.field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Quarantined(Struct, kw_only=True):
    """A record that cannot be stored here as it is: why (`reason`, a sentence), and all of it as it lies there (`raw`).

    `code`: nan, surrogate, pickle, huge, binary, malformed or unsupported.
    """

    origin: str
    code: str
    reason: str
    raw: bytes


class Skipped(Struct, kw_only=True):
    """Something in the source that is no record of its own and is left there: where, and why."""

    origin: str
    reason: str


Found = Item | Quarantined | Skipped


class Survey(Struct, kw_only=True):
    """What a look at a source tells before anything is copied. `records`: how many (None: only reading tells). `projects`: how
    many in each. `remarks`: what it is, what it cannot show or carry, in sentences. `bytes`: of what lies there, where known.
    """

    kind: str
    location: str
    records: int | None
    projects: dict[str, int] = msgspec.field(default_factory=dict)
    remarks: list[str] = msgspec.field(default_factory=list)
    bytes: int | None = None


class Back(Struct, kw_only=True):
    """What an older service is to hold after the return: a record as it is here, or None where it was deleted here.

    `origin`: what named it in the source, None where it is new there. `number`: the id by which the tools here call a context,
    which a new one should get there too. `content`: the value where it is a text, else its JSON text. `value`: JSON text.
    `facts`: the metadata that it has here, of its own.
    """

    origin: str | None
    shape: Shape
    project: str | None
    key: str
    number: int
    content: str | None
    value: bytes
    tags: tuple[str, ...] = ()
    importance: int = 5
    created_at: int = 0
    updated_at: int = 0
    expires_at: int | None = None
    facts: dict[str, Any] = msgspec.field(default_factory=dict)


# How a loss begins where the source refused a record whole, and still holds what it held.
ALL_LOST = "All of it: "


class Returned(Struct, kw_only=True):
    """What came of one Back: the `origin` that it has in the source now (None: it is gone), and what its format cannot hold."""

    origin: str | None
    lost: tuple[str, ...] = ()


class Options(Struct, frozen=True, kw_only=True):
    """What else may be said of a source. `prefix`: of the keys of an older Redis (REDIS_KEY_PREFIX). `keep_ttl`: what would have
    expired there expires here too. `timeout`: seconds to wait for each answer of a live one. `environment`: of a command.
    """

    prefix: str = "extended_memory"
    keep_ttl: bool = False
    timeout: float = 30.0
    environment: dict[str, str] = {}


class Source(ABC):
    """One source, opened. Every method may raise SourceError where it can no longer be read."""

    kind: ClassVar[str]
    # What a location is, for `--help`: "a file", "a folder", "a URL", "a command".
    takes: ClassVar[str]

    @classmethod
    @abstractmethod
    def open(cls, location: str, options: Options) -> Self:
        """The source at that location. Raises SourceError where there is none, InvalidInputError naming `source` where it cannot
        be a location of this kind.
        """

    @abstractmethod
    def survey(self) -> Survey:
        """Looks at it. Raises SourceError where it is not what its kind says."""

    @abstractmethod
    def read(self) -> Iterator[Found]:
        """All of it as it is now, each record once, streamed: no more than a page is held. What is there all the time is told,
        whatever its own program writes meanwhile.
        """

    @abstractmethod
    def token(self) -> object:
        """Something that is quick to make and equal as long as nothing has changed there; None where that cannot be told."""

    @abstractmethod
    def close(self) -> None:
        """Frees everything; may be called more than once."""


class OlderSource(Source):
    """A source that is an older service, to which one may return."""

    # Of the service that it is of: EXTENDED_MEMORY or MEMORY_BANK.
    service: ClassVar[str]

    @abstractmethod
    def lookup(self, origin: str) -> Item | Quarantined | None:
        """The record of that origin as it is now; None where there is none."""

    @abstractmethod
    def find(self, shape: Shape, project: str | None, key: str) -> str | None:
        """The origin of the record that the older tools would address so (a context by its id alone); None: there is none."""

    @abstractmethod
    def put_back(self, backs: Sequence[Back]) -> list[Returned]:
        """Writes them, durably and so that its own program reads them at once, as it would have written them itself; in order.

        Put back again they change nothing more. A `number` that another record has there already is not taken: another one is
        minted. Raises SourceError where the source cannot be written; then some of them may have been.
        """

    @abstractmethod
    def writable(self) -> str | None:
        """None where `put_back` can work, else why not, in a sentence."""


def each(found: Iterable[Found]) -> Iterator[Item]:
    """Only what can be carried."""
    return (one for one in found if isinstance(one, Item))
