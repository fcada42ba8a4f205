"""Chains of backups: which links a backup needs, and how what they hold is put back."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress

from unified_memory.model.clock import SECOND, from_rfc3339
from unified_memory.model.errors import (
    BackupDamagedError,
    BackupNotFoundError,
    ConflictError,
    InvalidInputError,
    RefusedError,
)
from unified_memory.model.history import Past
from unified_memory.model.memory import Memory
from unified_memory.model.when import read_instant
from unified_memory.service.labels import highest_label
from unified_memory.service.requests import RestoreRequest
from unified_memory.service.work import Work
from unified_memory.storage.backup import KINDS, Manifest, Place, Reading
from unified_memory.storage.dump import Buried, Row, Snapshot, Space

MANIFEST = "manifest.json"
SPACES, MEMORIES = "spaces", "memories"
LATEST = "latest"
FULL_FIRST = "Make a full one first, without parent"
# Accesses are written down some time after they happened.
ACCESS_SLACK = 3600 * SECOND
CHUNK_ROWS = 500
CHUNK_BYTES = 4 * 1024**2
# So many memories of a backup are searched for when it is proven.
SEARCHED = 20


class Tally:
    """What was put back. `ids`: some of the memories, spread over all. `label`: the highest number by which one goes that is not
    its id.
    """

    def __init__(self, now: int) -> None:
        self._now = now
        self._numbers: dict[str, int] = {}
        self._expired: set[tuple[str, str]] = set()
        self._memories = 0
        self.ids: list[int] = []
        self.label = 0

    @property
    def expired(self) -> dict[str, int]:
        """Memories of the last link that have expired since, by namespace."""
        found: dict[str, int] = {}
        for namespace, _ in self._expired:
            found[namespace] = found.get(namespace, 0) + 1
        return found

    def add(self, rows: Sequence[Row], stride: int) -> None:
        """Rows of one kind, all where they are Spaces. Of every `stride` memories one is remembered."""
        self.label = max(self.label, highest_label(row.attributes for row in rows if isinstance(row, Memory)))
        for row in rows:
            if isinstance(row, Buried):
                self._expired.discard((row.namespace, row.key))
            elif isinstance(row, Memory):
                # A key is told anew whatever became of the memory that it had.
                if row.visible(self._now):
                    self._expired.discard((row.namespace, row.key))
                else:
                    self._expired.add((row.namespace, row.key))
                if self._memories % stride == 0:
                    self.ids.append(row.id)
                self._memories += 1

    def begin(self, spaces: Sequence[Row]) -> None:
        """A link with those Spaces: what lay in others has gone with them."""
        numbers = {space.name: space.number for space in spaces if isinstance(space, Space)}
        gone = {name for name, number in self._numbers.items() if numbers.get(name) != number}
        self._expired = {one for one in self._expired if one[0] not in gone}
        self._numbers = numbers


def manifests(place: Place) -> tuple[list[Manifest], list[str]]:
    """The manifests, newest first, and ids of backups whose manifest is none."""
    found, damaged = [], []
    for backup_id in place.ids():
        # It may be removed at this very moment.
        with suppress(BackupNotFoundError):
            try:
                found.append(place.manifest(backup_id))
            except (BackupDamagedError, RefusedError):
                damaged.append(backup_id)
    if damaged:
        there = set(place.ids())
        damaged = [one for one in damaged if one in there]
    # Ids tell seconds only.
    return sorted(found, key=lambda one: (one.created_at, one.id), reverse=True), damaged


def chain(place: Place, backup_id: str) -> list[Manifest]:
    """The backup and those that it needs, the full one first.

    Raises BackupNotFoundError, ConflictError where one of those is missing, BackupDamagedError where one is another.
    """
    links = [place.manifest(backup_id)]
    while (parent := links[-1].parent) is not None:
        child = links[-1]
        try:
            links.append(place.manifest(parent))
        except BackupNotFoundError:
            raise ConflictError(
                f"The backup {child.id} needs {parent}, which is missing",
                hint="Put it back where the backups lie, or use another backup",
                backup_id=child.id,
                missing=parent,
            ) from None
        if links[-1].sha256 != child.parent_sha256:
            raise BackupDamagedError(parent, MANIFEST, f"it is not what {child.id} was made from")
    return links[::-1]


def up_to(links: list[Manifest], request: RestoreRequest, now: int) -> list[Manifest]:
    """The chain up to `as_of`. Raises InvalidInputError where that is none of it."""
    if request.as_of is None:
        return links
    ids = [link.id for link in links]
    if request.as_of in ids:
        return links[: ids.index(request.as_of) + 1]
    instant = read_instant(request.as_of, "as_of", now, end=True)
    reached = [link for link in links if from_rfc3339(link.created_at) <= instant]
    if not reached:
        raise InvalidInputError(
            "as_of", f"The backups up to {request.backup_id} begin at {links[0].created_at}", begin=links[0].created_at
        )
    return reached


def find_parent(place: Place, name: str, snapshot: Snapshot) -> Manifest:
    """What an incremental backup of the snapshot goes on from.

    Raises BackupNotFoundError, BackupDamagedError, ConflictError where it cannot.
    """
    if name == LATEST:
        for one in manifests(place)[0]:
            if _precedes(one, snapshot) and _whole(place, one):
                return one
        raise ConflictError("There is no backup yet that an incremental one can go on from", hint=FULL_FIRST)
    parent = chain(place, name)[-1]
    if not _precedes(parent, snapshot):
        raise ConflictError(
            f"The backup {name} is of another store, or of what this one was before a restore",
            hint=FULL_FIRST,
            backup_id=name,
        )
    return parent


def accessed_since(parent: Manifest, snapshot: Snapshot) -> int:
    """From when on accesses are ones that the parent may not hold."""
    made = from_rfc3339(parent.created_at)
    # Where the clock was set back since, instants tell nothing.
    return made - ACCESS_SLACK if made <= snapshot.instant else 0


def _precedes(manifest: Manifest, snapshot: Snapshot) -> bool:
    return manifest.store == snapshot.store and manifest.seq <= snapshot.seq


def _whole(place: Place, manifest: Manifest) -> bool:
    """Whether all that it needs is there."""
    try:
        chain(place, manifest.id)
    except (ConflictError, BackupNotFoundError):
        return False
    return True


def _needed(readings: list[Reading]) -> list[Reading]:
    """The links that bear on what comes back: where no namespace was left, nothing before does."""
    ends = (i for i, reading in enumerate(readings) if not count_of(reading.manifest, SPACES))
    return readings[max(ends, default=0) :]


def put_back(readings: list[Reading], put: Callable[[list[Row]], Future[None]], tally: Tally, work: Work) -> None:
    """Puts all rows back, and reads on meanwhile; on a thread. Nothing of it goes on when this has ended."""
    under_way: list[Future[None]] = []
    try:
        for reading in _needed(readings):
            stride = max(1, count_of(reading.manifest, MEMORIES) // SEARCHED)
            for kind in KINDS:
                for rows in _chunks(reading.rows(kind), whole=kind == SPACES):
                    if kind == SPACES:
                        tally.begin(rows)
                    tally.add(rows, stride)
                    if under_way:
                        under_way.pop().result()
                    under_way.append(put(rows))
                    work.step(len(rows))
        if under_way:
            under_way.pop().result()
    finally:
        wait(under_way)


def records_of(links: Iterable[Manifest]) -> int:
    """How many rows the links hold."""
    return sum(part.records for link in links for part in link.parts)


def count_of(link: Manifest, kind: str) -> int:
    """How many rows of a kind a link holds."""
    return sum(part.records for part in link.parts if part.kind == kind)


def _chunks(rows: Iterable[Row], *, whole: bool) -> Iterator[list[Row]]:
    """The rows in lists of some hundred and some megabytes, or in one list."""
    chunk: list[Row] = []
    size = 0
    for row in rows:
        chunk.append(row)
        memory = row.memory if isinstance(row, Past) else row
        size += len(memory.value) + len(memory.attributes) if isinstance(memory, Memory) else 0
        if not whole and (len(chunk) >= CHUNK_ROWS or size >= CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
