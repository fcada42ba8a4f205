"""One pass through a source: what it holds is stored here, what is here already stays, what has gone there goes here.

The source is read on its own thread, by batches; each batch is one unit of the storage, and is noted in
the ledger once it is durable. So a kill between any two steps loses nothing: what is here already is found to be equal.
"""

import asyncio
import hashlib
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import BinaryIO, Literal

import msgspec
from msgspec import Struct

from unified_memory.model.clock import Clock, to_rfc3339
from unified_memory.model.errors import InvalidInputError
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.query import Selection, parse_order
from unified_memory.service.labels import CONTEXT_PREFIX, LAST_LABEL, own_label
from unified_memory.service.mapping import (
    MIGRATED_FROM,
    Mapping,
    content_of,
    digest_of,
    draft_of,
    facts_of,
    item_label,
    mark_of,
    place_of,
)
from unified_memory.service.projects import project_of
from unified_memory.service.reaching import Reached
from unified_memory.service.work import Work
from unified_memory.sources.base import (
    LEGACY_CREATED_AT,
    LEGACY_ID,
    LEGACY_IMPORTANCE,
    Found,
    Item,
    Quarantined,
    Skipped,
)
from unified_memory.sources.ledger import Ledger, Notice, Renumbered, Row, SourceRef
from unified_memory.storage.base import KEEP, REMOVE, Decision, Draft, Edit, Outcome, Replayed, Storage

OnConflict = Literal["skip", "replace"]
# A unit holds so many records, or so many bytes of values where they are large.
BATCH_RECORDS = 1000
BATCH_BYTES = 4 * 1024**2
PAGE_ROWS = 500
# Ids that an older service may give out while it is copied are left to it.
HEADROOM = 1000
CONFLICTS_SHOWN = 100
# Whoever else writes the same key again and again is waited for so often.
TRIES = 20
# Why a record is quarantined (see `sources.base.Quarantined`).
CODES = frozenset(("nan", "surrogate", "pickle", "huge", "binary", "malformed", "unsupported"))
_NEWEST_ID = parse_order("-id")
_encode = msgspec.json.Encoder().encode


class Counts(Struct):
    """What came of the records of a project. `read`: all; `copied`: new here; `same`: as they were copied before, or here
    already; `changed`: written again; `removed`: gone from the source, and so from here; `quarantined`: not to be stored;
    `noted`: stored, though odd; `skipped`: left where they are; `conflicts`: something else is here; `renumbered`: known by
    another number here.
    """

    read: int = 0
    copied: int = 0
    same: int = 0
    changed: int = 0
    removed: int = 0
    quarantined: int = 0
    noted: int = 0
    skipped: int = 0
    conflicts: int = 0
    renumbered: int = 0


class Rules(Struct, frozen=True):
    """How a pass decides. `truth`: the source is right wherever ours says something else of a record that came from it."""

    mapping: Mapping = Mapping()
    on_conflict: OnConflict = "skip"
    truth: bool = False
    dry_run: bool = False


class Shown(Struct):
    """A record as it would be here; of a long value the beginning."""

    origin: str
    namespace: str
    key: str
    value: str
    importance: int
    tags: tuple[str, ...]
    created_at: str | None
    metadata: dict[str, object]


class Prepared(Struct):
    """A record, ready to be stored. `row`: what the ledger says of it."""

    item: Item
    digest: bytes
    row: Row | None
    namespace: str
    key: str
    draft: Draft
    label: str | None
    former: bool = False

    @property
    def stays(self) -> bool:
        """Whether it is noted under the key that it is to have."""
        return self.row is not None and (self.row.namespace, self.row.key) == (self.namespace, self.key)


class Batch(Struct):
    """Some hundred records that are to be written, and what is to be told of others."""

    prepared: list[Prepared]
    notices: list[Notice]
    last: bool = False


class Written(Struct):
    """What is to be noted of a batch."""

    rows: list[Row]
    renumbered: list[Renumbered]
    notices: list[Notice]


class Reading:
    """The side of the thread: reads, tells what is new or changed, and prepares it."""

    def __init__(
        self,
        ref: SourceRef,
        found: Iterable[Found],
        ledger: Ledger | None,
        rules: Rules,
        now: int,
        counts: dict[str | None, Counts],
        records: BinaryIO | None,
        first: int,
    ) -> None:
        self._ref = ref
        self._found = iter(found)
        self._ledger = ledger
        self._rules = rules
        self._now = now
        self._counts = counts
        self._records = records
        self._first = first
        self.shown: list[Shown] = []
        known = 0 if ledger is None else ledger.count(ref.id)
        self._known = known > 0
        self.last_number = 0 if ledger is None else ledger.last_number()
        self.unseen = known
        self._seen = bytearray(self.last_number // 8 + 1)

    def saw(self, number: int) -> bool:
        """Whether the record of that row was there."""
        return number > self.last_number or bool(self._seen[number >> 3] & 1 << (number & 7))

    def batch(self) -> Batch:
        """The next records. Raises SourceError, StorageError, StoppedError."""
        batch = Batch([], [])
        items: list[Item] = []
        size = 0
        while len(items) < BATCH_RECORDS and size < BATCH_BYTES:
            found = next(self._found, None)
            if found is None:
                batch.last = True
                break
            if isinstance(found, Item):
                if found.expires_at is not None and found.expires_at <= self._now:
                    self._of(found.project).skipped += 1
                    batch.notices.append(Notice("skipped", found.origin, "expired", "Its time has passed"))
                    continue
                items.append(found)
                size += len(found.value)
            else:
                batch.notices.append(self._notice(found))
        rows = self._ledger.rows(self._ref.id, [item.origin for item in items]) if self._ledger and self._known else {}
        for item in items:
            self._take(item, rows.get(item.origin), batch)
        return batch

    def _take(self, item: Item, row: Row | None, batch: Batch) -> None:
        counts = self._of(item.project)
        counts.read += 1
        if row is not None and row.number <= self.last_number:
            self._seen[row.number >> 3] |= 1 << (row.number & 7)
            self.unseen -= 1
        try:
            digest = digest_of(item)
            if row is not None and row.digest == digest and self._rules.on_conflict != "replace":
                counts.same += 1
                place = row.namespace, row.key
            else:
                prepared = prepare(self._ref, item, digest, row, self._rules.mapping, self._now)
                place = prepared.namespace, prepared.key
                batch.prepared.append(prepared)
                if len(self.shown) < self._first:
                    self.shown.append(_shown(item, prepared))
        except (InvalidInputError, UnicodeEncodeError) as error:
            counts.quarantined += 1
            batch.notices.append(unfit(item, error))
            return
        if item.notes:
            counts.noted += 1
            batch.notices.append(_noted(item))
        if self._records is not None:
            self._records.write(record_line(self._ref, item, *place))

    def _notice(self, found: Quarantined | Skipped) -> Notice:
        if isinstance(found, Quarantined):
            self._of(None).read += 1
            self._of(None).quarantined += 1
            return Notice("quarantine", found.origin, found.code, found.reason, raw=found.raw)
        self._of(None).skipped += 1
        return Notice("skipped", found.origin, "skipped", found.reason)

    def _of(self, project: str | None) -> Counts:
        if project is not None and not project.isascii():
            project = project.encode(errors="replace").decode()
        return self._counts.setdefault(project, Counts())


class Pass:
    """One pass through one source. `lookups`: the source once more, for what has to be looked at again meanwhile. `expected`: how
    many records it may have.
    """

    def __init__(
        self,
        storage: Storage,
        clock: Clock,
        ledger: Ledger | None,
        lookups: Reached,
        rules: Rules,
        check: Callable[[], None],
        expected: int = 0,
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._ledger = ledger
        self._lookups = lookups
        self._ref = lookups.ref
        self._rules = rules
        self._check = check
        self._expected = expected
        # Ids up to the one are kept free; of those up to the other some may be of contexts that were first here.
        self._reserved = self._highest_id = 0
        self._turn = 0
        self.counts: dict[str | None, Counts] = {}
        self.shown: list[Shown] = []
        self.conflicts: list[Notice] = []

    async def run(
        self, reader: Reached, work: Work, *, records: BinaryIO | None = None, first: int = 0, most: int | None = None
    ) -> None:
        """Copies everything, or with `most` looks at so many records only.

        Raises SourceError (then nothing was removed), ReadOnlyError, QuotaExceededError, StorageError.
        """
        now = self._clock.now()
        begun = await reader.do(self._begin, reader, work, now, records, first, most)
        while True:
            # One after the other: a thread that computes makes each of the thousand calls of the one that writes wait its turn.
            batch = await work.end(reader.do(begun.batch))
            await self._write(batch, now)
            if batch.last:
                break
        self.shown = begun.shown
        if self._ledger is None or self._rules.dry_run:
            return
        if begun.unseen > 0:
            await self._remove_gone(begun)
        await asyncio.to_thread(self._ledger.end_pass, self._ref.id, self._turn)

    def _begin(
        self, reader: Reached, work: Work, now: int, records: BinaryIO | None, first: int, most: int | None
    ) -> Reading:
        if self._ledger is not None and not self._rules.dry_run:
            self._turn = self._ledger.begin_pass(self._ref.id)
        found = work.watched(islice(reader.source.read(), most), counted=True)
        return Reading(self._ref, found, self._ledger, self._rules, now, self.counts, records, first)

    async def one(self, item: Item) -> None:
        """Copies one record, as it is at this moment."""
        row = None if self._ledger is None else await asyncio.to_thread(self._ledger.row, self._ref.id, item.origin)
        now = self._clock.now()
        self._of(item).read += 1
        try:
            digest = digest_of(item)
            if row is not None and row.digest == digest:
                return
            prepared = [prepare(self._ref, item, digest, row, self._rules.mapping, now)]
            notices = [_noted(item)] if item.notes else []
        except (InvalidInputError, UnicodeEncodeError) as error:
            prepared, notices = [], [unfit(item, error)]
        await self._write(Batch(prepared, notices), now)

    async def told(self, found: Quarantined) -> None:
        """Notes a record that cannot be stored."""
        notice = Notice("quarantine", found.origin, found.code, found.reason, raw=found.raw)
        await self._write(Batch([], [notice]), self._clock.now())

    # ---- writing
    async def _write(self, batch: Batch, now: int) -> None:
        self._check()
        labels = await self._label(batch.prepared, now)
        written = Written([], [], list(batch.notices))
        aside = batch.prepared
        if batch.prepared and not self._rules.dry_run:
            outcomes = await self._edit(batch.prepared, now)
            aside = []
            for one, outcome in zip(batch.prepared, outcomes, strict=False):
                if outcome.written and outcome.memory is not None:
                    self._count(one.item, created=outcome.created)
                    self._note(written, one, outcome.memory)
                else:
                    aside.append(one)
        memories = await self._storage.get_many([(one.namespace, one.key) for one in aside], now)
        for one, memory in zip(aside, memories, strict=True):
            if memory is not None and is_equal(memory, one.draft, one.item):
                self._of(one.item).same += 1
                self._note(written, one, memory)
            elif self._rules.dry_run:
                await self._foretell(one, memory)
            else:
                await self._settle(one, written, now)
        if self._ledger is None or self._rules.dry_run or not (written.rows or written.notices or labels):
            return
        note = partial(
            self._ledger.put_rows,
            written.rows,
            labels=labels,
            renumbered=written.renumbered,
            notices=written.notices,
            source=self._ref.id,
            turn=self._turn,
        )
        await asyncio.to_thread(note)

    def _note(self, written: Written, one: Prepared, memory: Memory) -> None:
        mark = None if one.row is None or not one.stays else one.row.mark
        written.rows.append(
            Row(self._ref.id, one.item.origin, one.namespace, one.key, one.digest, memory.version, mark)
        )
        if one.former:
            self._of(one.item).renumbered += 1
            written.renumbered.append(Renumbered(self._ref.id, one.item.origin, one.label or "", memory.id))

    def _told(self, written: Written, one: Prepared, reason: str) -> None:
        """Tells of a record that is not written."""
        self._of(one.item).conflicts += 1
        notice = Notice(
            "conflict", one.item.origin, "conflict", f"{reason}: {one.namespace}: {one.key}", raw=one.item.value
        )
        if len(self.conflicts) < CONFLICTS_SHOWN:
            self.conflicts.append(notice)
        written.notices.append(notice)

    async def _foretell(self, one: Prepared, memory: Memory | None) -> None:
        """What would become of a record."""
        if await self._may_write(one, memory):
            self._count(one.item, created=memory is None)
        else:
            self._told(Written([], [], []), one, _why_not(memory))

    async def _edit(self, batch: list[Prepared], now: int) -> list[Outcome]:
        """Writes what is new and what is still as it was copied; the outcomes of the batch come first."""
        edits = [Edit(one.namespace, one.key, partial(self._decide, one)) for one in batch]
        edits.extend(
            Edit(one.row.namespace, one.row.key, partial(self._leave, one.row))
            for one in batch
            if one.row is not None and not one.stays
        )
        return await self._apply(edits, now)

    def _decide(self, one: Prepared, current: Memory | None, config: NamespaceConfig) -> Decision:  # noqa: ARG002 - as an edit asks
        if current is None:
            # What was deleted here stays so, unless its own service, which has changed it since, is still right.
            return one.draft if not one.stays or self._rules.truth else KEEP
        as_copied = one.row is not None and one.stays and one.row.version == current.version
        return one.draft if as_copied and self._rules.on_conflict != "replace" else KEEP

    def _leave(self, row: Row, current: Memory | None, config: NamespaceConfig) -> Decision:  # noqa: ARG002 - as an edit asks
        """What becomes of the memory that a record was under another key."""
        return REMOVE if current is not None and (self._rules.truth or current.version == row.version) else KEEP

    async def _settle(self, one: Prepared, written: Written, now: int) -> None:
        """Decides on a record where something is here that was not expected."""
        for _ in range(TRIES):
            if not await self._look_again(one, now):
                return
            memory = await self._storage.get(one.namespace, one.key, now)
            if memory is not None and is_equal(memory, one.draft, one.item):
                self._of(one.item).same += 1
                self._note(written, one, memory)
                return
            if not await self._may_write(one, memory):
                self._told(written, one, _why_not(memory))
                return
            outcome = await self._edit_one(one, None if memory is None else memory.version, now)
            if outcome.written and outcome.memory is not None:
                self._count(one.item, created=outcome.created)
                self._note(written, one, outcome.memory)
                return
        self._told(written, one, "It is written all the time here")

    async def _look_again(self, one: Prepared, now: int) -> bool:
        """Takes the record as it is at this moment in an older service, which its clients write too; whether it is there."""
        if self._ledger is not None:
            one.row = await asyncio.to_thread(self._ledger.row, self._ref.id, one.item.origin)
        if not self._lookups.is_older:
            return True
        found = await self._lookups.do(self._lookups.older.lookup, one.item.origin)
        if not isinstance(found, Item):
            return False
        digest = digest_of(found)
        if digest != one.digest:
            fresh = prepare(self._ref, found, digest, one.row, self._rules.mapping, now, former=one.former)
            one.item, one.digest, one.namespace, one.key = found, digest, fresh.namespace, fresh.key
            one.draft, one.label = fresh.draft, fresh.label
        return True

    async def _edit_one(self, one: Prepared, version: int | None, now: int) -> Outcome:
        """Writes it where the memory still has that version (None: where there is none)."""

        def decide(current: Memory | None, config: NamespaceConfig) -> Decision:  # noqa: ARG001 - as an edit asks
            return one.draft if (None if current is None else current.version) == version else KEEP

        edits = [Edit(one.namespace, one.key, decide)]
        if one.row is not None and not one.stays:
            edits.append(Edit(one.row.namespace, one.row.key, partial(self._leave, one.row)))
        return (await self._apply(edits, now))[0]

    async def _apply(self, edits: list[Edit], now: int) -> list[Outcome]:
        outcomes = await self._storage.edit(edits, now)
        if isinstance(outcomes, Replayed):  # only a unit with an idempotency key can be
            raise TypeError
        return outcomes

    async def _may_write(self, one: Prepared, memory: Memory | None) -> bool:
        """Whether a record may be written over what is here."""
        if self._rules.on_conflict == "replace":
            return True
        if memory is None:
            return not one.stays or self._rules.truth
        if one.row is not None and one.stays:
            return self._rules.truth or one.row.version == memory.version
        if not self._rules.truth or facts_of(memory.attributes).get(MIGRATED_FROM) != one.item.service:
            return False
        # A copy that a kill has left without a note, of a record that has changed since.
        return self._ledger is None or not await asyncio.to_thread(self._ledger.by_place, one.namespace, one.key)

    # ---- labels
    async def _label(self, batch: list[Prepared], now: int) -> list[tuple[str, int, str]]:
        """Sees to it that no two contexts go by one number; the labels that are taken with this batch."""
        wanted = {one.label: one for one in batch if one.label is not None}
        if not wanted:
            return []
        taken = {} if self._ledger is None else await asyncio.to_thread(self._ledger.labels, list(wanted))
        ours = await self._natives(
            {label: number for label, one in wanted.items() if (number := _number(one.item))}, now
        )
        claims: list[tuple[str, int, str]] = []
        mine: dict[str, tuple[int, str]] = {}
        for one in batch:
            if one.label is None:
                continue
            me = (self._ref.id, one.item.origin)
            owner = taken.get(one.label) or mine.get(one.label)
            if owner is None and one.label in ours:
                owner = mine[one.label] = (0, "")
                claims.append((one.label, 0, ""))
            if owner is None:
                mine[one.label] = me
                claims.append((one.label, *me))
            elif owner != me and not await self._is_same(owner, one):
                one.former = True
                one.draft = draft_of(one.item, one.key, self._ref.kind, self._rules.mapping, now, former=True)
        return claims

    async def _natives(self, numbers: dict[str, int], now: int) -> set[str]:
        """Those of the labels that are the id of a context that was first here; no memory gets any of these ids any longer."""
        numbers = {label: number for label, number in numbers.items() if 0 < number <= LAST_LABEL}
        highest = max(numbers.values(), default=0)
        if highest > self._reserved:
            page = await self._storage.select(Selection(("",), order=_NEWEST_ID, limit=1), now)
            self._highest_id = page.items[0].id if page.items else 0
            self._reserved = max(highest, self._expected) + HEADROOM
            if not self._rules.dry_run:
                await self._storage.reserve_ids(self._reserved)
        near = [label for label, number in numbers.items() if number <= self._highest_id]
        memories = await self._storage.get_by_id([numbers[label] for label in near], now)
        return {
            label
            for label, memory in zip(near, memories, strict=True)
            if memory is not None and own_label(memory) is None and memory.key.startswith(CONTEXT_PREFIX)
        }

    async def _is_same(self, owner: tuple[int, str], one: Prepared) -> bool:
        """Whether another source's record is the very same memory."""
        row = None if self._ledger is None else await asyncio.to_thread(self._ledger.row, *owner)
        return row is not None and (row.namespace, row.key) == (one.namespace, one.key)

    # ---- what has gone
    async def _remove_gone(self, reading: Reading) -> None:
        if self._ledger is None:
            return
        after = 0
        while rows := await asyncio.to_thread(self._ledger.page, self._ref.id, after, PAGE_ROWS):
            after = rows[-1].number
            gone = [row for row in rows if not reading.saw(row.number)]
            if gone:
                await self.remove(gone)

    async def remove(self, gone: list[Row]) -> None:
        """Removes the memories of records that are no longer in the source, and tells of those that were changed here."""
        if self._ledger is None:
            return
        self._check()
        now = self._clock.now()
        dropped, notices = [], []
        for row in gone:
            if self._lookups.is_older and await self._lookups.do(self._lookups.older.lookup, row.origin) is not None:
                continue
            others = await asyncio.to_thread(self._ledger.by_place, row.namespace, row.key)
            outcome = None
            if len(others) == 1:
                outcome = (await self._apply([Edit(row.namespace, row.key, partial(self._leave, row))], now))[0]
            if outcome is not None and outcome.memory is not None and not outcome.removed:
                self._gone(row).conflicts += 1
                reason = f"It is gone from the source, and was changed here: {row.namespace}: {row.key}"
                notices.append(Notice("conflict", row.origin, "conflict", reason, stored=True))
            else:
                self._gone(row).removed += 1
                dropped.append(row.origin)
        self.conflicts = [*self.conflicts, *notices][:CONFLICTS_SHOWN]
        await asyncio.to_thread(self._ledger.put_rows, [], notices=notices, source=self._ref.id, turn=self._turn)
        await asyncio.to_thread(self._ledger.drop, self._ref.id, dropped)

    # ---- within
    def _of(self, item: Item) -> Counts:
        return self.counts.setdefault(item.project, Counts())

    def _gone(self, row: Row) -> Counts:
        return self.counts.setdefault(project_of(row.namespace), Counts())

    def _count(self, item: Item, *, created: bool) -> None:
        counts = self._of(item)
        counts.copied += created
        counts.changed += not created


def prepare(
    ref: SourceRef, item: Item, digest: bytes, row: Row | None, mapping: Mapping, now: int, *, former: bool = False
) -> Prepared:
    """What is to be stored of a record. Raises InvalidInputError, UnicodeEncodeError."""
    namespace, key = place_of(item, ref.kind, mapping)
    if row is not None and row.mark is not None and (item.shape != "context" or row.mark == mark_of(item)):
        namespace, key = row.namespace, row.key
    draft = draft_of(item, key, ref.kind, mapping, now, former=former)
    return Prepared(item, digest, row, namespace, key, draft, item_label(item), former)


def unfit(item: Item, error: InvalidInputError | UnicodeEncodeError) -> Notice:
    """What a source takes for a record and no memory can be."""
    if isinstance(error, UnicodeEncodeError):
        return Notice("quarantine", item.origin, "surrogate", "Its name holds half a character", raw=item.value)
    return Notice("quarantine", item.origin, "unsupported", error.detail, raw=item.value)


def is_equal(memory: Memory, draft: Draft, item: Item) -> bool:
    """Whether that is what would be stored."""
    return (
        (memory.value, memory.attributes, memory.importance) == (draft.value, draft.attributes, draft.importance)
        and (memory.session_id, memory.project_id, memory.expires_at)
        == (draft.session_id, draft.project_id, draft.expires_at)
        and (item.created_at is None or memory.created_at == item.created_at)
    )


def record_line(ref: SourceRef, item: Item, namespace: str, key: str) -> bytes:
    """What `records.jsonl` says of a record: enough to compare it with what the older service had."""
    content = content_of(item.value).encode()
    facts = item.facts
    line = {
        "source": ref.kind,
        "location": ref.shown,
        "origin": item.origin,
        "namespace": namespace,
        "key": key,
        "id": facts.get(LEGACY_ID),
        "name": item.key,
        "project": item.project,
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "tags": item.tags,
        "importance": facts.get(LEGACY_IMPORTANCE, item.importance),
        "created_at": facts.get(LEGACY_CREATED_AT),
        "created_at_utc": _time(item.created_at),
        "updated_at_utc": _time(item.updated_at),
        "last_accessed_utc": _time(item.last_accessed),
        "access_count": item.access_count,
        "expires_at_utc": _time(item.expires_at),
        "session_id": item.session_id,
        "notes": item.notes,
    }
    return _encode(line) + b"\n"


def _time(instant: int | None) -> str | None:
    return None if instant is None else to_rfc3339(instant)


def _number(item: Item) -> int | None:
    told = item.facts.get(LEGACY_ID)
    return told if isinstance(told, int) and not isinstance(told, bool) else None


def _noted(item: Item) -> Notice:
    """The notice of a record that is stored though it is odd: of each note the part before the colon is its code."""
    code, _, reason = item.notes[0].partition(": ")
    if code not in CODES or not reason:
        code, reason = "odd", item.notes[0]
    return Notice("quarantine", item.origin, code, "; ".join((reason, *item.notes[1:])), stored=True, raw=item.value)


def _shown(item: Item, one: Prepared) -> Shown:
    metadata = dict(facts_of(one.draft.attributes))
    text = one.draft.value[:200].decode(errors="ignore")
    return Shown(
        item.origin,
        one.namespace,
        one.key,
        text,
        one.draft.importance,
        one.draft.tags,
        _time(item.created_at),
        metadata,
    )


def _why_not(memory: Memory | None) -> str:
    return "It was deleted here" if memory is None else "Something else is stored here in its place"
