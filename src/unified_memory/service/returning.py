"""What changed here goes back into the older services' own files.

Changes are taken in the commit order of the storage, from a cursor in the ledger. The cursor moves on when what was written is
durable and noted, so that after a kill the last of it is written once more, which changes nothing.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

from msgspec import Struct

from unified_memory.model.clock import Clock
from unified_memory.model.errors import SourceError, SourceUnavailableError, StorageCorruptError
from unified_memory.model.memory import Memory
from unified_memory.service.bank import file_of
from unified_memory.service.labels import label_of
from unified_memory.service.mapping import content_of, digest_of, entry_of, facts_of, mark_of, says_the_same, shape_of
from unified_memory.service.projects import project_of
from unified_memory.service.reaching import Reach, is_older_kind, shape_of_kind
from unified_memory.sources.base import ALL_LOST, Back, Item, Returned, Shape
from unified_memory.sources.ledger import BackNote, Ledger, Row, SourceRef
from unified_memory.storage.base import Storage

CURSOR = "cursor"
# So many changes are looked at, and at most so many written, at a time.
PAGE_CHANGES = 200
PAGE_ROWS = 500


class Going(Struct):
    """What is to be written into a source. `row`: None where it is new there. `memory`: None where it was deleted here."""

    ref: SourceRef
    namespace: str
    key: str
    row: Row | None
    memory: Memory | None


class Returning:
    """The way back."""

    def __init__(self, storage: Storage, clock: Clock, ledger: Ledger, reach: Reach) -> None:
        self._storage = storage
        self._clock = clock
        self._ledger = ledger
        self._reach = reach

    async def some(self) -> tuple[int, bool]:
        """Writes back some of what changed: (how many memories, whether more may wait). Raises SourceError."""
        after = await asyncio.to_thread(self._ledger.get, CURSOR) or 0
        changes = await self._storage.changes(after, PAGE_CHANGES)
        if not changes:
            return 0, False
        going = await self._going([(change.namespace, change.key) for change in changes])
        await self._write(going)
        await asyncio.to_thread(self._ledger.put, CURSOR, changes[-1].seq)
        return len(going), True

    async def waiting(self) -> list[SourceRef]:
        """The sources for which something waits; nothing is written."""
        after = await asyncio.to_thread(self._ledger.get, CURSOR) or 0
        found: dict[int, SourceRef] = {}
        while changes := await self._storage.changes(after, PAGE_CHANGES):
            after = changes[-1].seq
            going = await self._going([(change.namespace, change.key) for change in changes])
            found.update({one.ref.id: one.ref for one in going})
        return list(found.values())

    async def require_same_storage(self) -> None:
        """Raises StorageCorruptError where the storage is not the one that the ledger speaks of: what it lacks would be taken
        for deleted.
        """
        after = await asyncio.to_thread(self._ledger.get, CURSOR) or 0
        if await self._storage.last_seq() < after:
            raise StorageCorruptError(
                "The ledger of the migration speaks of another storage than this one",
                hint="Restore the storage from its backup first; nothing was written back",
            )

    async def sweep(self) -> int:
        """Takes out of the sources what is no longer here though no change told of it (a namespace that was deleted as a whole);
        how many.
        """
        swept = 0
        for ref in await self._older():
            after = 0
            while rows := await asyncio.to_thread(self._ledger.page, ref.id, after, PAGE_ROWS):
                after = rows[-1].number
                places = [(row.namespace, row.key) for row in rows]
                memories = await self._storage.get_many(places, self._clock.now())
                gone = [place for place, memory in zip(places, memories, strict=True) if memory is None]
                going = await self._going(gone)
                await self._write(going)
                swept += len(going)
        return swept

    async def mend(self) -> None:
        """Writes back once more what the sources do not have as it was written: others have written it there since."""
        async for ref, note, memory, problem in self._compared():
            if problem is None:
                continue
            row = None if note.origin is None else await asyncio.to_thread(self._ledger.row, ref.id, note.origin)
            if row is None or (row.namespace, row.key) == (note.namespace, note.key):
                await self._write([Going(ref, note.namespace, note.key, row, memory)])

    async def verify(self) -> tuple[int, list[str]]:
        """Compares what was written back with what the sources have now: (how many are right, what is wrong with others)."""
        right, wrong = 0, []
        async for _, _, _, problem in self._compared():
            right += problem is None
            wrong += [] if problem is None else [problem]
        return right, wrong

    async def _compared(self) -> AsyncIterator[tuple[SourceRef, BackNote, Memory | None, str | None]]:
        """What was written back, the memories as they are now, and what is wrong with it in the sources."""
        refs = {ref.id: ref for ref in await self._older()}
        after = (0, "", "")
        while notes := await asyncio.to_thread(self._ledger.returned, after):
            after = notes[-1].source, notes[-1].namespace, notes[-1].key
            memories = await self._storage.get_many([(one.namespace, one.key) for one in notes], self._clock.now())
            for note, memory in zip(notes, memories, strict=True):
                yield refs[note.source], note, memory, await self._compare(refs[note.source], note, memory)

    async def _compare(self, ref: SourceRef, note: BackNote, memory: Memory | None) -> str | None:
        """What is wrong with something that was written back."""
        where = f"{ref.kind} {note.origin or ''}: {note.namespace}: {note.key}"
        if memory is None:
            # What its service cannot delete is told in the list of what was lost.
            if note.origin is None or note.lost:
                return None
            row = await asyncio.to_thread(self._ledger.row, ref.id, note.origin)
            is_others = row is not None and (row.namespace, row.key) != (note.namespace, note.key)
            return None if is_others else f"It is still there, though it is not here: {where}"
        if note.origin is None:
            return None if note.lost else f"It is here, and not there: {where}"
        reached = await self._reach.at(ref)
        found = await reached.do(reached.older.lookup, note.origin)
        if not isinstance(found, Item):
            return f"It is here, and not there: {where}"
        refused = any(one.startswith(ALL_LOST) for one in note.lost)
        return None if refused or says_the_same(found, memory.value) else f"It says something else there: {where}"

    # ---- within
    async def _older(self) -> list[SourceRef]:
        return [ref for ref in await asyncio.to_thread(self._ledger.sources) if is_older_kind(ref.kind)]

    async def _going(self, places: Sequence[tuple[str, str]]) -> list[Going]:
        """What of these memories is not in the sources as it is here."""
        older = await self._older()
        writable = [ref for ref in older if await self.why_not(ref) is None]
        memories = await self._storage.get_many(places, self._clock.now())
        going = []
        for (namespace, key), memory in zip(places, memories, strict=True):
            rows = await asyncio.to_thread(self._ledger.by_place, namespace, key)
            ref: SourceRef | None = None
            if rows:
                mine = _to_write([row for row in rows if any(ref.id == row.source for ref in older)], writable)
                stale = [row for row in mine if memory is None or row.version != memory.version]
                refs = {ref.id: ref for ref in older}
                if stale and not any(ref.id == stale[0].source for ref in writable):
                    # What no service writes any longer, such as a file of a former version, gives way to what one does.
                    ref = _first(writable, shape_of_kind(refs[stale[0].source].kind))
                if ref is None:
                    going += [Going(refs[row.source], namespace, key, row, memory) for row in stale]
            else:
                shape = shape_of(namespace, key)
                ref = _first(writable, shape) or _first(older, shape)
            if ref is not None and memory is not None:
                going.append(Going(ref, namespace, key, None, memory))
        return going

    async def why_not(self, ref: SourceRef) -> str | None:
        """Why a source cannot be written; None where it can. Raises SourceUnavailableError where it may do later."""
        try:
            reached = await self._reach.at(ref)
            return await reached.do(reached.older.writable)
        except SourceUnavailableError:
            raise
        except SourceError as error:
            # What is no longer there does not stand in the way of others.
            return error.detail

    async def require_all_there(self) -> None:
        """Raises SourceError where an older service has lost what it held: without it nobody may return to it."""
        for ref in await self._older():
            if await asyncio.to_thread(self._ledger.count, ref.id) == 0:
                continue
            try:
                await self._reach.at(ref)
            except SourceUnavailableError:
                raise
            except SourceError as error:
                raise SourceError(
                    ref.kind,
                    ref.location,
                    f"The older service at {ref.shown} is not there to return to: {error.detail}",
                    hint="Put its data back, from a backup of its own or with rollback_to_previous_state of the rollback point",
                ) from error

    async def _write(self, going: list[Going]) -> None:
        """Writes it, source by source, and notes what has become of it."""
        for ref in dict.fromkeys(one.ref.id for one in going):
            await self._write_to([one for one in going if one.ref.id == ref])

    async def _write_to(self, going: list[Going]) -> None:
        ref = going[0].ref
        if (why := await self.why_not(ref)) is not None:
            raise SourceError(ref.kind, ref.location, f"Nothing can be written back there: {why}")
        reached = await self._reach.at(ref)
        older = reached.older

        def write() -> list[tuple[Returned, Item | None]]:
            there = [older.lookup(one.row.origin) if one.row else None for one in going]
            backs = [_back(one, found) for one, found in zip(going, there, strict=True)]
            told = older.put_back(backs)
            for one, found, returned in zip(going, there, told, strict=False):
                returned.lost = (*returned.lost, *_written_over(one, found, returned))
            if len(told) != len(backs):
                raise StorageCorruptError(f"{reached.ref.kind} has told of {len(told)} of {len(backs)} records")
            looked = (older.lookup(one.origin) if one.origin is not None else None for one in told)
            return [(one, found if isinstance(found, Item) else None) for one, found in zip(told, looked, strict=True)]

        written = await reached.do(write)
        await asyncio.to_thread(self._note, going, written)

    def _note(self, going: list[Going], written: list[tuple[Returned, Item | None]]) -> None:
        rows, gone, notes = [], [], []
        for one, (told, found) in zip(going, written, strict=True):
            notes.append(BackNote(one.ref.id, one.namespace, one.key, told.origin, told.lost))
            if one.row is not None and one.row.origin != told.origin:
                gone.append(one.row.origin)
            if told.origin is not None and one.memory is not None:
                digest = b"" if found is None else digest_of(found)
                mark = None if found is None else mark_of(found)
                rows.append(Row(one.ref.id, told.origin, one.namespace, one.key, digest, one.memory.version, mark))
        if gone:
            self._ledger.drop(going[0].ref.id, gone)
        self._ledger.put_rows(rows)
        self._ledger.put_returned(notes)


def _first(refs: list[SourceRef], shape: Shape | None) -> SourceRef | None:
    return next((ref for ref in refs if shape_of_kind(ref.kind) == shape), None)


def _to_write(rows: list[Row], writable: list[SourceRef]) -> list[Row]:
    """Of the rows of one memory those whose sources can be written, where there are any."""
    return [row for row in rows if any(ref.id == row.source for ref in writable)] or rows


def _back(one: Going, found: object) -> Back:
    """What the source is to hold. `found`: what it has."""
    origin = None if one.row is None else one.row.origin
    shape: Shape = shape_of_kind(one.ref.kind)
    memory, there = one.memory, found if isinstance(found, Item) else None
    project = project_of(one.namespace) if there is None else there.project
    if memory is None:
        return Back(
            origin=origin,
            shape=shape,
            project=project,
            key=_key(shape, one.key) if there is None else there.key,
            number=0,
            content=None,
            value=b"",
        )
    if there is None and project is None and shape != "entry":
        project = memory.project_id
    label = label_of(memory)
    number = label if isinstance(label, int) else memory.id
    key = str(number) if shape == "context" else _key(shape, one.key)
    return Back(
        origin=origin,
        shape=shape,
        project=project,
        key=key if there is None else there.key,
        number=number,
        content=content_of(memory.value),
        value=memory.value,
        tags=memory.tags,
        importance=memory.importance,
        created_at=memory.created_at,
        updated_at=memory.updated_at,
        expires_at=memory.expires_at,
        facts=dict(facts_of(memory.attributes)),
    )


def _written_over(one: Going, found: object, returned: Returned) -> list[str]:
    """What others have written into the source since ours answers, in whose place ours was put now."""
    if one.row is None or not one.row.digest or any(told.startswith(ALL_LOST) for told in returned.lost):
        return []
    if found is None:
        return [] if one.memory is None else ["That it was deleted there since the switch"]
    if not isinstance(found, Item) or digest_of(found) == one.row.digest:
        return []
    if one.memory is not None and _is_as_here(found, one.memory):
        # It was written back already, by a process that was killed before it could note it.
        return []
    return [f"What was written there since the switch: {content_of(found.value)}"]


def _is_as_here(found: Item, memory: Memory) -> bool:
    same = says_the_same(found, memory.value)
    if not same or found.shape != "context":
        return same
    tags, ours = ({tag.strip().lower() for tag in tags} for tags in (found.tags, memory.tags))
    return (tags, found.importance) == (ours, memory.importance)


def _key(shape: Shape, key: str) -> str:
    return entry_of(key) if shape == "entry" else file_of(key) or "" if shape == "file" else key
