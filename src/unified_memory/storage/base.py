"""The storage contract: what every backend promises, method by method.

Words used below. *Visible*: not expired at `now`, in a namespace that was not deleted; a memory is gone from the very
instant `expires_at`. *Durable*: committed and synced; a kill at any instant afterwards loses nothing of it. *Unit*: the
edits of one call; they are applied together or not at all, and no reader ever sees a part of them.

For all methods: `now` is the caller's instant (microseconds). A write is durable when the call returns; when it raises, nothing
of it was stored. All changes of all processes stand in one commit order (`Memory.seq`, strictly rising). Units that touch the
same key are applied one after the other, each on the result of the one before. Every method may raise StorageBusyError (nothing
was done, try again), StorageFullError, StorageCorruptError and StorageError; only what else it raises is named.

Storage holds no policy: defaults, limits of size, and who may see what are the service's. It does apply the settings of
a namespace that must be decided inside a transaction: inherited configuration is handed to `decide`, quotas are enforced.

`tests/storage/contract.py` is this text as tests.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from unified_memory.model.found import SearchRequest, SearchResult
from unified_memory.model.history import Event, Past
from unified_memory.model.job import Job, JobState
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import Namespace, NamespaceConfig
from unified_memory.model.query import Field, Page, Scalar, Selection
from unified_memory.model.session import Session, WithMemories
from unified_memory.storage.dump import Difference, Row, Snapshot, Takeover

T = TypeVar("T")


class Origin(Struct, frozen=True):
    """What a memory that comes from elsewhere brings along: its instants (microseconds) and access data."""

    created_at: int
    updated_at: int
    access_count: int = 0
    last_accessed: int | None = None


class Draft(Struct):
    """A memory to be written: what the caller decides, and what the index needs of it.

    `text`: the value's words. `title_text`: key, tags, title and author as words. `content_hash`: 32 bytes. `origin`: instants
    and access data that it gets instead of `now`, none and those of the memory that it replaces.
    """

    value: bytes
    attributes: bytes
    tags: tuple[str, ...]
    importance: int
    session_id: str | None
    project_id: str | None
    expires_at: int | None
    text: str
    title_text: str
    keywords: tuple[str, ...]
    content_hash: bytes
    origin: Origin | None = None


class Remove(Struct, frozen=True):
    """The decision to delete the memory."""


class Keep(Struct, frozen=True):
    """The decision to change nothing."""


REMOVE = Remove()
KEEP = Keep()
Decision = Draft | Remove | Keep
Decide = Callable[[Memory | None, NamespaceConfig], Decision]


class Edit(Struct):
    """A change of one key. `decide` is given the visible memory (None: there is none) and the settings that hold in the
    namespace; it is called inside the transaction, must be quick and pure (it may be called again), and may raise any
    UnifiedMemoryError, which ends the whole unit. `whole`: it needs the value too, not only the head.
    """

    namespace: str
    key: str
    decide: Decide
    whole: bool = False


class Outcome(Struct):
    """What came of one edit: `written` (the memory as it is now), `removed` (as it was), or neither (as it is).

    `created`: there was no visible memory before.
    """

    memory: Memory | None
    written: bool = False
    removed: bool = False
    created: bool = False


class Idempotency(Struct):
    """A request's idempotency key in its `scope` (namespace or principal); `fingerprint` is of the request.

    `record` makes what is kept of the outcomes, for `keep` microseconds.
    """

    scope: str
    key: str
    fingerprint: bytes
    record: Callable[[list[Outcome]], bytes]
    keep: int


class Replayed(Struct, frozen=True):
    """The unit was applied before, by the same request; `record` is what was kept of it."""

    record: bytes


class Access(Struct):
    """`count` accesses of the memory with that id, the last at `last`; `namespace` and `key` are those it had then."""

    id: int
    count: int
    last: int
    namespace: str = ""
    key: str = ""


class Group(Struct):
    """Memories that share a value of a field (None: those without it)."""

    value: Any
    count: int


class TagUse(Struct):
    """How many memories bear a tag, and when the youngest of them was created."""

    tag: str
    count: int
    newest: int


class Change(Struct):
    """What happened last to a key: `deleted`, or written at that version (a move is a deletion and a write)."""

    seq: int
    namespace: str
    key: str
    version: int
    deleted: bool


class NamespaceUse(Struct):
    """How much lies in a namespace."""

    name: str
    memories: int
    bytes: int


class Stats(Struct):
    """Totals over the visible memories of the scopes.

    `bytes_raw`: of the values. `bytes_stored`: of the whole storage on disk, None where it cannot be told apart.
    `expired`: memories that passed their time and await cleanup.
    """

    memories: int
    bytes_raw: int
    bytes_stored: int | None
    expired: int
    sessions: int
    namespaces: list[NamespaceUse]
    tiers: dict[str, int]
    top_tags: list[tuple[str, int]]
    oldest: int | None
    newest: int | None
    last_seq: int


class Code(Struct, frozen=True):
    """The code of a vector that was made of a memory's content as it was at `seq`, its place in the commit order."""

    id: int
    seq: int
    code: bytes


class Vector(Struct, frozen=True):
    """A memory's vector. `place` rises with every vector that is put or moved."""

    place: int
    id: int
    code: bytes


class VectorNews(Struct):
    """What happened to vectors, all of one instant: first `gone` left, then `vectors` came.

    `gone`: ids of the memories that were written, moved or removed; of many of them there never was a vector. `seq`: the end of
    the commit order at that instant.
    """

    gone: list[int]
    vectors: list[Vector]
    seq: int


class VectorCounts(Struct):
    """Visible memories with a vector of the model, and without; `others`: vectors of other models, of whatever memory."""

    embedded: int
    waiting: int
    others: int


class Redacted(Struct):
    """What was redacted: versions of a key, and the ids of the memories that they were of."""

    versions: list[int]
    ids: list[int]


class Reading(Struct):
    """What a read had to do, filled in by the storage: `cold` values were fetched from archives."""

    cold: int = 0


class Problem(Struct):
    """Something that `check` found: where, what, and whether it was mended."""

    where: str
    detail: str
    fixed: bool = False


Progress = Callable[[int, int | None], None]


class Storage(ABC):
    """Everything that a backend must do."""

    # ---- one's own life
    @abstractmethod
    async def open(self) -> None:
        """Makes the storage ready: creates it where there is none, carries out schema steps.

        Any number of processes may do so at once. Raises SchemaTooNewError, UnsuitableDirectoryError.
        """

    @abstractmethod
    async def close(self) -> None:
        """Ends what is under way and frees everything. May be called more than once."""

    @abstractmethod
    async def probe(self) -> None:
        """Writes something durably and reads it back. Raises what stands in the way (StorageError and below)."""

    @abstractmethod
    async def shrink(self) -> None:
        """Gives the room that deletes have freed back, in steps between which others write."""

    @abstractmethod
    async def forget(self) -> None:
        """Takes the words of what was removed or replaced out of the bytes of the index, and the room that they had, in steps
        between which others write. Costs as much as writing the index anew.
        """

    @abstractmethod
    async def size(self) -> int | None:
        """Bytes of all our files, None where this backend has none of its own."""

    # ---- memories
    @abstractmethod
    async def get(self, namespace: str, key: str, now: int) -> Memory | None:
        """The visible memory of that key."""

    @abstractmethod
    async def get_many(self, refs: Sequence[tuple[str, str]], now: int) -> list[Memory | None]:
        """The visible memories of these (namespace, key) pairs, in order, of one instant of the storage."""

    @abstractmethod
    async def get_by_id(self, ids: Sequence[int], now: int) -> list[Memory | None]:
        """The visible memories of these ids, in order, of one instant of the storage."""

    @abstractmethod
    async def edit(
        self, edits: Sequence[Edit], now: int, *, idempotency: Idempotency | None = None
    ) -> list[Outcome] | Replayed:
        """Applies a unit; the outcomes are in the order of the edits. Several edits of one key follow each other.

        A Draft for a visible memory replaces it, keeps id, created_at and access data, and adds 1 to the version. Otherwise it
        makes a new memory: a new id (rising, never used again), created_at = updated_at = now, version 1, or one more than the
        last version that this key ever had in this namespace. The namespace is created where there is none (not
        explicit). A Draft's session is created where there is none, reopened where it ended, and its ttl slides.

        With `idempotency`: where that key was used in that scope, nothing is applied and Replayed is returned.
        Raises what `decide` raises, QuotaExceededError (also over `max_*` of any ancestor), ReadOnlyError for a Draft
        while read-only, IdempotencyMismatchError where the fingerprint differs.
        """

    @abstractmethod
    async def move(
        self, source: tuple[str, str], target: tuple[str, str], now: int, *, expected_version: int | None = None
    ) -> Memory:
        """Renames a key, also into another namespace; id, created_at, ttl and access data stay. The version grows by 1, or
        is one more than the last that the target key ever had, where that is higher. Its session is created there too.

        Raises MemoryNotFoundError, AlreadyExistsError where the target is visible, VersionConflictError,
        QuotaExceededError, ReadOnlyError.
        """

    @abstractmethod
    async def select(self, selection: Selection, now: int, *, reading: Reading | None = None) -> Page[Memory]:
        """The visible memories that are selected, in order. Paging by `after` shows each memory that was there all the
        time and whose order value did not change exactly once, whatever is written meanwhile.
        """

    @abstractmethod
    async def count(self, selection: Selection, now: int, *, reading: Reading | None = None) -> int:
        """How many visible memories are selected (order, limit and after aside)."""

    @abstractmethod
    async def group(
        self, selection: Selection, field: Field, now: int, limit: int, *, reading: Reading | None = None
    ) -> list[Group]:
        """The selected memories counted by a field's value, most first, then by value; by tags each tag counts by itself.

        Values of JSON: scalars as they are, everything else counts as None.
        """

    @abstractmethod
    async def tag_uses(self, scopes: tuple[str, ...], now: int) -> list[TagUse]:
        """The tags of the visible memories of these subtrees, by use, then youngest memory, then name."""

    @abstractmethod
    async def last_seq(self) -> int:
        """The place of the last change in the commit order; quick enough to be asked often."""

    @abstractmethod
    async def changes(self, after: int, limit: int) -> list[Change]:
        """The keys that changed after that place in the commit order, each once, by its last change, in that order."""

    @abstractmethod
    async def feed(self, after: int, limit: int) -> list[Event]:
        """Every change behind that place in the commit order, in that order. Whoever goes on from the last `seq` that was shown
        misses none. Raises ChangesGoneError where some behind that place are no longer kept.
        """

    @abstractmethod
    async def prune_feed(self, before: int, limit: int) -> int:
        """Forgets up to `limit` of the oldest changes that happened before that instant; how many."""

    @abstractmethod
    async def search(self, request: SearchRequest, now: int, *, reading: Reading | None = None) -> SearchResult:
        """The visible memories that match, best first by the rules of `model.ranking`; ties by id, newest first. The words of
        the memories right before and behind in the same session count too, so some are found by those alone.

        Where no word matches, those that hold the query's literal text inside of words or unspaced scripts, whatever its
        case; where none does, those that match the words nearest to the query's which are held by what is visible in the
        scopes, and the result says so.
        """

    @abstractmethod
    async def refresh_index(self, limit: int) -> int:
        """Indexes up to `limit` memories again whose language has changed; how many still wait. Until then they are found by
        their words in either language.
        """

    @abstractmethod
    async def index_entry(self, memory: Memory) -> tuple[str, list[str]]:
        """What is kept for searching a memory: (content_hash in hexadecimal, keywords). Raises MemoryNotFoundError."""

    @abstractmethod
    async def touch(self, accesses: Sequence[Access]) -> None:
        """Adds accesses to the memories that are still there. Changes no version, no updated_at, no seq."""

    @abstractmethod
    async def reserve_ids(self, last: int) -> None:
        """No memory gets an id up to that one from now on: others go by these numbers already."""

    @abstractmethod
    async def expire(self, now: int, limit: int) -> list[tuple[str, int]]:
        """Removes up to `limit` memories whose time has passed, of any namespace; (namespace, how many) of what went.

        Each is a change in the commit order. Also drops what else has passed: idempotency keys, sessions that expired
        and were to take nothing with them stay listed as expired until their last memory is gone.
        """

    # ---- the past
    # A Draft that replaces a visible memory, whatever else changes one, and a Remove leave the version before in the past, where
    # the settings of the namespace, or else those of the storage, keep anything. What expires, and what a deleted namespace held,
    # leaves nothing. A move within a namespace takes the past along, where the target's key has none of its own; into
    # another one it does not, since others may look there. A namespace that is renamed takes that of all its keys along.
    @abstractmethod
    async def past(self, namespace: str, key: str, now: int, *, before: int | None, limit: int) -> list[Past]:
        """Former versions of the key, newest first, those below the version `before`, without their values and attributes.

        None of a memory that has expired.
        """

    @abstractmethod
    async def past_version(self, namespace: str, key: str, version: int, now: int) -> Past | None:
        """One of them, with its value."""

    @abstractmethod
    async def as_of(self, namespace: str, key: str, instant: int, now: int) -> Memory | None:
        """The memory that was visible under that key at the instant, as it was then; the current one where that is it.

        None where there was none, or it has expired since. Raises VersionGoneError where there was one whose content is not kept.
        """

    @abstractmethod
    async def redact(self, namespace: str, key: str, version: int | None, now: int) -> Redacted:
        """Takes the content of a version, or of all, out of the past, for good; that there was one stays. The current version
        is removed with the reason "redacted" where it is named or all are. One change in the commit order.

        Its bytes are gone from the files after `forget`. Raises MemoryNotFoundError where there is no such version, current or
        past, with content or without.
        """

    @abstractmethod
    async def prune_past(
        self, scopes: tuple[str, ...], *, recursive: bool, keep: int | None, before: int | None, limit: int
    ) -> int:
        """Forgets up to `limit` former versions of these namespaces: those behind the `keep` newest of each key, and those that
        were replaced before that instant; how many. That one was redacted is not forgotten: a backup may still hold it.
        """

    @abstractmethod
    async def shrink_past(self, limit: int) -> int:
        """Stores up to `limit` former versions in less room; how many were looked at, 0 when none waits."""

    # ---- vectors
    # A memory has one vector at most, of one model. Writing a Draft over it takes it away in the same unit, and so does
    # whatever removes the memory; a move keeps it.
    @abstractmethod
    async def unembedded(self, model: str, now: int, after_seq: int, limit: int) -> list[Memory]:
        """Visible memories without a vector of that model, by `seq`, those after `after_seq`.

        Up to `limit`, fewer where their values are large; none only where there are none.
        """

    @abstractmethod
    async def put_vectors(self, model: str, codes: Sequence[Code]) -> int:
        """Puts vectors in the place of those that the memories had; how many. Passes over memories that have another `seq` now.

        All codes of a model have the same length. Raises InvalidInputError for another one, ReadOnlyError.
        """

    @abstractmethod
    async def vector_news(
        self, model: str, scopes: tuple[str, ...], *, recursive: bool, after_place: int, after_seq: int, limit: int
    ) -> VectorNews:
        """What came and went after those two places: in `vectors` by `place`, of memories in these subtrees (or, not
        `recursive`, namespaces) that were not deleted with them; in `gone` of all memories.

        Whoever begins at 0 and 0 and goes on from the last place and `seq` that were shown, until fewer than `limit` vectors
        come, holds a vector of each memory that has one, and none that was replaced. `gone` does not tell of memories that
        went with a whole namespace, or whose key was stored and removed again since.
        """

    @abstractmethod
    async def with_vectors(self, model: str, ids: Sequence[int], now: int) -> set[int]:
        """Those of the ids that are of visible memories with a vector of that model."""

    @abstractmethod
    async def vector_counts(self, model: str, now: int) -> VectorCounts:
        """How far a model has come; quick enough to be asked every second."""

    @abstractmethod
    async def drop_vectors(self, keep: str | None, limit: int) -> int:
        """Removes up to `limit` vectors of all models but `keep`; how many went, 0 when nothing is left."""

    # ---- namespaces
    @abstractmethod
    async def get_namespace(self, name: str, now: int) -> Namespace | None:
        """The namespace with its settings and counts; one that only has others below it counts as not there."""

    @abstractmethod
    async def put_namespace(
        self, name: str, config: NamespaceConfig, now: int, *, create: bool, limit: int = 0
    ) -> Namespace:
        """Creates a namespace explicitly, or sets the configuration of one that exists (then explicit too).

        With `create` one that was explicitly created before raises AlreadyExistsError. Without it a missing one raises
        NamespaceNotFoundError. `limit`: how many may be explicit, 0 is unlimited; QuotaExceededError beyond.
        """

    @abstractmethod
    async def list_namespaces(
        self, scopes: tuple[str, ...], now: int, *, depth: int | None, limit: int, after: str | None
    ) -> Page[Namespace]:
        """The namespaces in these subtrees by name; `Page.next` is (name, 0).

        With `depth` those with more segments than that are folded into their ancestor of that depth, which is listed
        (with its totals) also where it exists only through them.
        """

    @abstractmethod
    async def delete_namespace(self, name: str, now: int, *, recursive: bool) -> list[int]:
        """Makes a namespace (and with `recursive` all below it) disappear at once, with everything in it.

        What it held is invisible when this returns; `purge` removes it for good. Returns tickets for `purge`. A namespace
        of that name made afterwards is a new one, in which versions go on above every version of the old.
        Raises NamespaceNotFoundError, and NamespaceNotEmptyError without `recursive` where anything is in it or below it.
        """

    @abstractmethod
    async def purge(self, ticket: int, now: int, limit: int) -> int:
        """Removes up to `limit` memories of a deleted namespace; how many went, 0 when nothing is left."""

    @abstractmethod
    async def dead_namespaces(self) -> list[int]:
        """Tickets of deleted namespaces that still hold something: a purge that a kill has interrupted."""

    @abstractmethod
    async def rename_namespace(self, source: str, target: str, now: int) -> int:
        """Renames a namespace with all below it; how many memories moved. Each moved memory's version grows by 1.

        Raises NamespaceNotFoundError, AlreadyExistsError where the target or something below it exists,
        InvalidInputError where one lies inside of the other, QuotaExceededError, ReadOnlyError.
        """

    # ---- sessions
    @abstractmethod
    async def get_session(self, namespace: str, session_id: str, now: int) -> Session | None:
        """The session, whatever its state, with the number of its visible memories."""

    @abstractmethod
    async def put_session(self, session: Session) -> Session:
        """Creates the session or replaces what it says of itself (created_at stays). Creates its namespace."""

    @abstractmethod
    async def touch_sessions(self, refs: Sequence[tuple[str, str]], now: int) -> None:
        """Slides the ttl of active sessions."""

    @abstractmethod
    async def list_sessions(
        self,
        scopes: tuple[str, ...],
        now: int,
        *,
        recursive: bool,
        cluster_id: str | None,
        active: bool | None,
        limit: int,
        after: tuple[Scalar, int] | None,
    ) -> Page[Session]:
        """Sessions by last use, newest first."""

    @abstractmethod
    async def end_session(
        self, namespace: str, session_id: str, memories: WithMemories, now: int
    ) -> tuple[Session, int]:
        """Ends a session; with its memories as asked: kept, deleted, or expired at `now`. And how many were affected.

        Raises SessionNotFoundError.
        """

    @abstractmethod
    async def cluster_sessions(self, namespace: str, cluster_id: str) -> list[str]:
        """Ids of the sessions of that namespace that share the cluster."""

    # ---- jobs
    @abstractmethod
    async def put_job(self, job: Job) -> None:
        """Creates or replaces a job's record."""

    @abstractmethod
    async def get_job(self, job_id: str) -> Job | None:
        """The job of that id."""

    @abstractmethod
    async def list_jobs(
        self, scopes: tuple[str, ...], *, state: JobState | None, limit: int, after: tuple[Scalar, int] | None
    ) -> Page[Job]:
        """Jobs of namespaces in these subtrees (those of no namespace for the scope `""` alone), newest first."""

    # ---- the whole
    @abstractmethod
    async def stats(self, scopes: tuple[str, ...], now: int, *, top: int) -> Stats:
        """Totals of these subtrees; `top`: how many namespaces and tags are named."""

    @abstractmethod
    async def read_only(self) -> str | None:
        """Why writes are off for every process, None where they are on."""

    @abstractmethod
    async def set_read_only(self, reason: str | None) -> None:
        """Switches writes off, in every process, or on again.

        From the next unit on Drafts, `move`, `put_namespace`, `rename_namespace` and `put_session` raise ReadOnlyError;
        whatever only removes still works.
        """

    @abstractmethod
    async def hold_writes(self, reason: str | None, until: int) -> None:
        """Switches writes off in every process, as `set_read_only` does, until that instant; None lets them go on.

        For work that must not be overtaken: whoever does it says so again and again, and where it is killed writes go on by
        themselves. `read_only` tells the reason. Raises ConflictError where they were held and that has lapsed, since others may
        have written: who holds them for the first time lets them go on before.
        """

    # ---- everything, out and in again
    @abstractmethod
    async def snapshot(self, work: Callable[[Snapshot], T], now: int) -> T:
        """Runs `work` on a thread with everything as of this instant, while others go on writing. Raises what it raises."""

    @abstractmethod
    async def aside(self) -> "Storage":
        """Begins an empty storage of the same kind beside this one, opened. What a killed process left of one is removed."""

    @abstractmethod
    async def drop_aside(self, other: "Storage") -> None:
        """Closes a storage that was begun aside and removes all of it that was not taken over."""

    @abstractmethod
    async def put_back(self, rows: Sequence[Row], now: int) -> None:
        """Puts rows of one kind as they were, with their ids, versions, places in the commit order and instants. Only for a
        storage aside.

        Links come one after the other, that which is whole first. Of each link come first all its Spaces in one call (what lies
        in others, or in one of another number, goes, and so do all sessions), then its Floors, Buried, Memories, Past, Used and
        Sessions. A memory whose time has passed at `now` is put as one that has expired, and its past goes.
        """

    @abstractmethod
    async def all_back(self, now: int) -> None:
        """Nothing more is put back: what was cold is cold again."""

    @abstractmethod
    async def compare(self, other: "Storage", takeover: Takeover, now: int, *, samples: int) -> list[Difference]:
        """What taking over would change, by namespace of this storage, those without any memory left out."""

    @abstractmethod
    async def take_over(self, other: "Storage", takeover: Takeover, now: int) -> list[Difference]:
        """Takes over what was put back aside, in one step: a kill leaves all or nothing of it. What `compare` told is done.

        What is the same stays as it is. Otherwise a version that would be no higher than the last that its key ever had here
        becomes one more than that, and its change, like that of whatever goes, has a new place at the end of the commit order;
        an id that another memory has here is replaced by a new one. Where nothing was ever stored here everything stays as it
        was put. With REPLACE the storage's name (`Snapshot.store`) changes, and vectors go.

        Only while `hold_writes` is in force: raises ConflictError otherwise.
        """

    @abstractmethod
    async def lease(self, name: str, holder: str, now: int, until: int) -> bool:
        """Takes or renews the named lease for `holder`; False where another holds it and it has not run out."""

    @abstractmethod
    async def check(self, *, fix: bool, progress: Progress | None = None) -> list[Problem]:
        """Compares everything with everything: records, hashes, tags, counts, the full-text index term by term.

        With `fix` what is derived is derived again; a damaged record is told, never dropped.
        """
