"""Whether what is here is what the sources hold: every record is read again and compared."""

import asyncio
from collections.abc import Iterator
from itertools import islice

from msgspec import Struct

from unified_memory.model.clock import Clock
from unified_memory.model.errors import InvalidInputError
from unified_memory.model.memory import Memory
from unified_memory.service.copying import PAGE_ROWS, is_equal, prepare
from unified_memory.service.mapping import FORMER_ID, Mapping, digest_of, facts_of, says_the_same
from unified_memory.service.reaching import Reached
from unified_memory.service.work import Work
from unified_memory.sources.base import Found, Item, Quarantined
from unified_memory.sources.ledger import Ledger, Row
from unified_memory.storage.base import Storage

# So many records are compared at a time, and so many differences told.
BATCH_RECORDS = 500
DIFFERENCES = 100
# The forms in which older services keep the very same: fields of a memory that went back and came again may differ in them.
_COMPARED = ("value", "tags", "importance", "created_at")


class ProjectCheck(Struct):
    """Records of a project: `there` in the source, `here`, and of these `same` in content, tags, importance and times."""

    project: str | None
    there: int = 0
    here: int = 0
    same: int = 0


class Difference(Struct):
    """A record that is not here as it is in its source. `what`: missing, only_here, not_quarantined, or what differs."""

    source: str
    location: str
    origin: str
    what: str


class SourceCheck(Struct):
    """How a source compares. `quarantined`: what cannot be stored, as the ledger says too; `only_here`: noted in the ledger,
    and no longer in the source.
    """

    kind: str
    location: str
    there: int = 0
    here: int = 0
    same: int = 0
    quarantined: int = 0
    only_here: int = 0
    projects: list[ProjectCheck] = []


class _Page(Struct):
    items: list[Item]
    rows: dict[str, Row]
    quarantined: list[str]


class Verifying:
    """The comparison of one source."""

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        ledger: Ledger,
        reached: Reached,
        mapping: Mapping,
        differences: list[Difference],
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._ledger = ledger
        self._reached = reached
        self._ref = reached.ref
        self._mapping = mapping
        self._differences = differences
        self._projects: dict[str | None, ProjectCheck] = {}
        self._check = SourceCheck(self._ref.kind, self._ref.shown)

    async def run(self, work: Work) -> SourceCheck:
        """Compares all. Raises SourceError, StorageError."""
        last = await asyncio.to_thread(self._ledger.last_number)
        seen = bytearray(last // 8 + 1)
        found = await self._reached.do(lambda: work.watched(self._reached.source.read(), counted=True))
        while True:
            page = await work.end(self._reached.do(self._page, found))
            if page is None:
                break
            for row in page.rows.values():
                if row.number <= last:
                    seen[row.number >> 3] |= 1 << (row.number & 7)
            await self._compare(page)
        await self._only_here(seen, last)
        self._check.projects = sorted(
            self._projects.values(), key=lambda one: (one.project is not None, one.project or "")
        )
        return self._check

    def _page(self, read: Iterator[Found]) -> _Page | None:
        """The next records and their rows; on the thread."""
        records = list(islice(read, BATCH_RECORDS))
        if not records:
            return None
        now = self._clock.now()
        found = [one for one in records if isinstance(one, Item)]
        rows = self._ledger.rows(self._ref.id, [item.origin for item in found])
        items = [one for one in found if one.expires_at is None or one.expires_at > now]
        return _Page(items, rows, [one.origin for one in records if isinstance(one, Quarantined)])

    async def _compare(self, page: _Page) -> None:
        now = self._clock.now()
        self._check.quarantined += len(page.quarantined)
        listed = await asyncio.to_thread(self._listed, [*page.quarantined, *(item.origin for item in page.items)])
        for origin in page.quarantined:
            if origin not in listed:
                self._tell(origin, "not_quarantined")
        items = [item for item in page.items if item.origin in page.rows]
        places = [(page.rows[item.origin].namespace, page.rows[item.origin].key) for item in items]
        memories = dict(zip((item.origin for item in items), await self._storage.get_many(places, now), strict=True))
        for item in page.items:
            if item.origin in listed and item.origin not in page.rows:
                self._check.quarantined += 1
                continue
            project = self._projects.setdefault(item.project, ProjectCheck(item.project))
            project.there += 1
            self._check.there += 1
            memory = memories.get(item.origin)
            if memory is None:
                self._tell(item.origin, "missing")
                continue
            project.here += 1
            self._check.here += 1
            what = self._differs(item, page.rows[item.origin], memory, now)
            if what is None:
                project.same += 1
                self._check.same += 1
            else:
                self._tell(item.origin, what)

    def _listed(self, origins: list[str]) -> set[str]:
        return {origin for origin in origins if self._ledger.is_quarantined(self._ref.id, origin)}

    def _differs(self, item: Item, row: Row, memory: Memory, now: int) -> str | None:
        """In what a memory is not what its record says."""
        if row.mark is not None:
            # It was here first, or has come back from there: what a format cannot hold is not asked of it.
            return None if says_the_same(item, memory.value) else "value"
        former = FORMER_ID in facts_of(memory.attributes)
        try:
            one = prepare(self._ref, item, digest_of(item), row, self._mapping, now, former=former)
        except (InvalidInputError, UnicodeEncodeError):
            return "not_quarantined"
        if is_equal(memory, one.draft, item):
            return None
        there = (one.draft.value, one.draft.tags, one.draft.importance, item.created_at)
        here = (memory.value, memory.tags, memory.importance, memory.created_at)
        differs = [name for name, theirs, ours in zip(_COMPARED, there, here, strict=True) if theirs != ours]
        return ", ".join(differs) or "metadata"

    async def _only_here(self, seen: bytearray, last: int) -> None:
        after = 0
        while rows := await asyncio.to_thread(self._ledger.page, self._ref.id, after, PAGE_ROWS):
            after = rows[-1].number
            for row in rows:
                if row.number <= last and not seen[row.number >> 3] & 1 << (row.number & 7):
                    self._check.only_here += 1
                    self._tell(row.origin, "only_here")

    def _tell(self, origin: str, what: str) -> None:
        if len(self._differences) < DIFFERENCES:
            self._differences.append(Difference(self._ref.kind, self._ref.shown, origin, what))


def is_right(check: SourceCheck) -> bool:
    """Whether everything of a source is here as it is there."""
    return check.there == check.here == check.same and not check.only_here
