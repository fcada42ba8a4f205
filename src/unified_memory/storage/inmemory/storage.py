"""The storage contract in plain dicts: no I/O, no cleverness, every read a look at everything."""

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from msgspec import MsgspecError, structs

from unified_memory.model.analysis import ENGLISH
from unified_memory.model.errors import (
    AlreadyExistsError,
    ConflictError,
    IdempotencyMismatchError,
    InvalidInputError,
    MemoryNotFoundError,
    NamespaceNotEmptyError,
    NamespaceNotFoundError,
    QuotaExceededError,
    SessionNotFoundError,
    UnifiedMemoryError,
    VersionConflictError,
)
from unified_memory.model.found import SearchRequest, SearchResult
from unified_memory.model.history import Event
from unified_memory.model.history import Kind as Happening
from unified_memory.model.job import Job, JobState
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import Namespace, NamespaceConfig, ancestors, contains
from unified_memory.model.query import (
    MISSING,
    Field,
    Kind,
    Order,
    Page,
    Scalar,
    Selection,
    order_value,
    resolve,
)
from unified_memory.model.search import Description
from unified_memory.model.session import Session, WithMemories
from unified_memory.storage.base import (
    Access,
    Change,
    Code,
    Draft,
    Edit,
    Group,
    Idempotency,
    NamespaceUse,
    Origin,
    Outcome,
    Problem,
    Progress,
    Reading,
    Remove,
    Replayed,
    Stats,
    TagUse,
    Vector,
    VectorCounts,
    VectorNews,
)
from unified_memory.storage.dump import LAPSED, Buried
from unified_memory.storage.inmemory.dumping import DumpPart
from unified_memory.storage.inmemory.past import PastPart
from unified_memory.storage.inmemory.ranking import Ranking
from unified_memory.storage.inmemory.record import Record, derive, make_record
from unified_memory.storage.inmemory.state import KeptUnit, Made, within
from unified_memory.storage.inmemory.takeover import TakeoverPart
from unified_memory.storage.inmemory.unit import Ref, Unit

T = TypeVar("T")


class InMemoryStorage(PastPart, DumpPart, TakeoverPart):
    """Everything in the memory of one process, gone with it. See `State`."""

    # ---- one's own life

    async def open(self) -> None:
        """Nothing is to be done."""

    async def close(self) -> None:
        """Nothing is to be done."""

    async def probe(self) -> None:
        """Nothing can stand in the way."""

    async def shrink(self) -> None:
        """See `Storage.shrink`. Nothing to give back."""

    async def forget(self) -> None:
        """See `Storage.forget`. Nothing is kept of what was removed."""

    async def size(self) -> int | None:
        """None: there are no files."""
        return None

    # ---- memories: one by one

    async def get(self, namespace: str, key: str, now: int) -> Memory | None:
        """See `Storage.get`."""
        return self._shown(self._records.get((namespace, key)), now)

    async def get_many(self, refs: Sequence[Ref], now: int) -> list[Memory | None]:
        """See `Storage.get_many`."""
        return [self._shown(self._records.get(ref), now) for ref in refs]

    async def get_by_id(self, ids: Sequence[int], now: int) -> list[Memory | None]:
        """See `Storage.get_by_id`."""
        held = (self._records[self._refs[one]] if one in self._refs else None for one in ids)
        return [self._shown(record, now) for record in held]

    async def edit(
        self, edits: Sequence[Edit], now: int, *, idempotency: Idempotency | None = None
    ) -> list[Outcome] | Replayed:
        """See `Storage.edit`."""
        if idempotency is not None:
            kept = self._kept.get((idempotency.scope, idempotency.key))
            if kept is not None and kept.until > now:
                if kept.fingerprint != idempotency.fingerprint:
                    raise IdempotencyMismatchError(idempotency.key)
                return Replayed(kept.record)
        unit = self._begin(now)
        outcomes = [self._stage(unit, edit) for edit in edits]
        record = idempotency.record(outcomes) if idempotency is not None else b""
        self._commit(unit)
        if idempotency is not None:
            kept = KeptUnit(idempotency.fingerprint, record, now + idempotency.keep)
            self._kept[idempotency.scope, idempotency.key] = kept
        return outcomes

    def _stage(self, unit: Unit, edit: Edit) -> Outcome:
        ref = (edit.namespace, edit.key)
        old = self._staged(unit, ref)
        shown = self._shown(old, unit.now)
        if shown is not None and not edit.whole:
            shown.value = b""
        decision = edit.decide(copy.copy(shown), self._effective(edit.namespace))
        if isinstance(decision, Draft):
            self._refuse_when_read_only()
            if old is not None and shown is None:
                self._end(unit, old.memory, Happening.EXPIRE)
            memory = self._memory_of(decision, unit, ref, old if shown is not None else None)
            about = Description(decision.text, decision.title_text, decision.keywords, decision.content_hash)
            if old is not None and shown is not None:
                self._retire(unit, old.memory, memory.seq)
            unit.write(make_record(memory, about), Happening.STORE if shown is None else Happening.UPDATE)
            if decision.session_id is not None:
                unit.sessions.append(((edit.namespace, decision.session_id), decision.project_id))
            return Outcome(copy.copy(memory), written=True, created=shown is None)
        if isinstance(decision, Remove) and old is not None and shown is not None:
            self._end(unit, old.memory, Happening.DELETE)
            return Outcome(shown, removed=True)
        return Outcome(shown)

    def _memory_of(self, draft: Draft, unit: Unit, ref: Ref, old: Record | None) -> Memory:
        before = None if old is None else old.memory
        origin = draft.origin
        if origin is None:
            origin = Origin(unit.now, unit.now)
            if before is not None:
                origin = Origin(before.created_at, unit.now, before.access_count, before.last_accessed)
        return Memory(
            id=unit.next_id() if before is None else before.id,
            namespace=ref[0],
            key=ref[1],
            value=draft.value,
            attributes=draft.attributes,
            importance=draft.importance,
            session_id=draft.session_id,
            project_id=draft.project_id,
            created_at=origin.created_at,
            updated_at=origin.updated_at,
            expires_at=draft.expires_at,
            access_count=origin.access_count,
            last_accessed=origin.last_accessed,
            version=self._last_version(unit, ref) + 1,
            seq=unit.next_seq(),
        )

    async def move(self, source: Ref, target: Ref, now: int, *, expected_version: int | None = None) -> Memory:
        """See `Storage.move`."""
        self._refuse_when_read_only()
        unit = self._begin(now)
        record = self._records.get(source)
        if record is None or not record.memory.visible(now):
            raise MemoryNotFoundError(*source)
        if expected_version is not None and expected_version != record.memory.version:
            raise VersionConflictError(*source, expected_version, record.memory.version)
        occupant = self._records.get(target)
        if occupant is not None:
            if occupant.memory.visible(now):
                raise AlreadyExistsError("There is a memory of that key", namespace=target[0], key=target[1])
            self._end(unit, occupant.memory, Happening.EXPIRE)
        moved = self._stage_move(unit, record, target)
        self._commit(unit)
        if moved.session_id is not None:
            self._make_session((target[0], moved.session_id), moved.project_id, now)
        return copy.copy(moved)

    def _stage_move(self, unit: Unit, record: Record, target: Ref) -> Memory:
        """The version rises above those that either key has had."""
        old = record.memory
        self._retire(unit, old, unit.remove(old, Happening.MOVE))
        memory = structs.replace(
            old,
            namespace=target[0],
            key=target[1],
            version=max(old.version, self._last_version(unit, target)) + 1,
            updated_at=unit.now,
            seq=unit.next_seq(),
        )
        unit.write(derive(memory), Happening.STORE)
        if old.namespace == target[0]:
            self._carry_past(unit, (old.namespace, old.key), target, memory.seq)
        return memory

    def _carry_past(self, unit: Unit, source: Ref, target: Ref, seq: int) -> None:
        """Stages that the past of a key stands under another one, where that has none of its own."""
        rows, there = self._staged_past(unit, source), self._staged_past(unit, target)
        if not there:
            there += [
                structs.replace(
                    row, memory=structs.replace(row.memory, namespace=target[0], key=target[1]), touched=seq
                )
                for row in rows
            ]
            rows.clear()

    async def touch(self, accesses: Sequence[Access]) -> None:
        """See `Storage.touch`."""
        for access in accesses:
            ref = self._refs.get(access.id)
            if ref is not None:
                record = self._records[ref]
                memory = structs.replace(
                    record.memory,
                    access_count=record.memory.access_count + access.count,
                    last_accessed=max(record.memory.last_accessed or access.last, access.last),
                )
                self._records[ref] = structs.replace(record, memory=memory)

    async def expire(self, now: int, limit: int) -> list[tuple[str, int]]:
        """See `Storage.expire`."""
        unit = self._begin(now)
        passed = [ref for ref, record in self._records.items() if not record.memory.visible(now)]
        for ref in passed[:limit]:
            self._end(unit, self._records[ref].memory, Happening.EXPIRE)
        self._commit(unit)
        self._kept = {key: kept for key, kept in self._kept.items() if kept.until > now}
        for ref, (_, session) in list(self._sessions.items()):
            passed_by = session.expires_at is not None and session.expires_at <= now
            if passed_by and not any(self._memories_of(session)):
                del self._sessions[ref]
        return sorted(Counter(namespace for namespace, _ in passed[:limit]).items())

    # ---- memories: many at once

    async def select(self, selection: Selection, now: int, *, reading: Reading | None = None) -> Page[Memory]:  # noqa: ARG002 - nothing is cold
        """See `Storage.select`."""
        order = selection.order
        placed = [(order_value(order, memory), memory.id, memory) for memory in self._selected(selection, now)]
        if selection.after is not None:
            value, last = selection.after
            placed = [one for one in placed if _is_after(order, (one[0], one[1]), (value, last))]
        present = [one for one in placed if one[0] is not None]
        absent = [one for one in placed if one[0] is None]
        present.sort(key=lambda one: (_rank(one[0]), one[1]), reverse=order.descending)
        absent.sort(key=lambda one: one[1], reverse=order.descending)
        page = _page([*present, *absent], selection.limit, lambda one: (one[0], one[1]))
        return Page([copy.copy(memory) for _, _, memory in page.items], page.next)

    async def count(self, selection: Selection, now: int, *, reading: Reading | None = None) -> int:  # noqa: ARG002 - as above
        """See `Storage.count`."""
        return len(self._selected(selection, now))

    async def group(
        self,
        selection: Selection,
        field: Field,
        now: int,
        limit: int,
        *,
        reading: Reading | None = None,  # noqa: ARG002 - as above
    ) -> list[Group]:
        """See `Storage.group`. A content hash is told in hexadecimal."""
        # true and 1 are equal in Python and two values in JSON.
        counts = Counter(
            (isinstance(value, bool), value)
            for memory in self._selected(selection, now)
            for value in _grouped(field, memory)
        )
        rows = [(-count, value is None, _rank(value), is_bool) for (is_bool, value), count in counts.items()]
        groups = [Group(value, count) for (_, value), count in counts.items()]
        return [group for _, group in sorted(zip(rows, groups, strict=True), key=lambda pair: pair[0])][:limit]

    async def tag_uses(self, scopes: tuple[str, ...], now: int) -> list[TagUse]:
        """See `Storage.tag_uses`."""
        uses: dict[str, TagUse] = {}
        for memory in self._selected(Selection(scopes), now):
            for tag in set(memory.tags):
                use = uses.setdefault(tag, TagUse(tag, 0, 0))
                use.count += 1
                use.newest = max(use.newest, memory.created_at)
        return sorted(uses.values(), key=lambda use: (-use.count, -use.newest, use.tag))

    async def last_seq(self) -> int:
        """See `Storage.last_seq`."""
        return self._seq

    async def changes(self, after: int, limit: int) -> list[Change]:
        """See `Storage.changes`."""
        memories = [record.memory for record in self._records.values()]
        written = [Change(m.seq, m.namespace, m.key, m.version, deleted=False) for m in memories]
        known = {(m.namespace, m.key) for m in memories}
        gone = [
            Change(one.seq, one.namespace, one.key, one.version, deleted=True)
            for ref, one in self._buried.items()
            if ref not in known
        ]
        return sorted((c for c in (*written, *gone) if c.seq > after), key=lambda change: change.seq)[:limit]

    async def search(self, request: SearchRequest, now: int, *, reading: Reading | None = None) -> SearchResult:  # noqa: ARG002 - as above
        """See `Storage.search`."""
        selection = Selection(request.scopes, request.recursive, request.where)
        chosen = [self._records[memory.namespace, memory.key] for memory in self._selected(selection, now)]
        result = Ranking(request, chosen, list(self._records.values()), self._language, now).find()
        for hit in result.hits:
            hit.memory = copy.copy(hit.memory)
        return result

    def _language(self, namespace: str) -> str:
        language = self._effective(namespace).language
        return language if isinstance(language, str) else ENGLISH

    async def refresh_index(self, limit: int) -> int:  # noqa: ARG002 - nothing is kept that could be old
        """See `Storage.refresh_index`. Nothing ever waits: a search reads the words themselves."""
        return 0

    async def index_entry(self, memory: Memory) -> tuple[str, list[str]]:
        """See `Storage.index_entry`. Raises MemoryNotFoundError where the memory is gone."""
        ref = self._refs.get(memory.id)
        if ref is None:
            raise MemoryNotFoundError(memory.namespace, memory.key)
        record = self._records[ref]
        return record.about.content_hash.hex(), list(record.about.keywords)

    # ---- vectors

    async def unembedded(self, model: str, now: int, after_seq: int, limit: int) -> list[Memory]:
        """See `Storage.unembedded`."""
        visible = (record.memory for record in self._records.values() if record.memory.visible(now))
        waiting = [memory for memory in visible if memory.seq > after_seq and not self._is_made(memory.id, model)]
        return [copy.copy(memory) for memory in sorted(waiting, key=lambda memory: memory.seq)[:limit]]

    async def put_vectors(self, model: str, codes: Sequence[Code]) -> int:
        """See `Storage.put_vectors`."""
        if codes:
            self._refuse_when_read_only()
        lengths = {len(made.code) for made in self._vectors.values() if made.model == model}
        if len(lengths | {len(one.code) for one in codes}) > 1:
            raise InvalidInputError("codes", f"Not all codes of {model} have the same length")
        put = 0
        for one in codes:
            ref = self._refs.get(one.id)
            if ref is not None and self._records[ref].memory.seq == one.seq:
                self._vectors[one.id] = Made(self._next_place(), model, one.code)
                put += 1
        return put

    async def vector_news(
        self, model: str, scopes: tuple[str, ...], *, recursive: bool, after_place: int, after_seq: int, limit: int
    ) -> VectorNews:
        """See `Storage.vector_news`."""
        found = [
            Vector(made.place, number, made.code)
            for number, made in self._vectors.items()
            if made.model == model
            and made.place > after_place
            and within(scopes, self._refs[number][0], recursive=recursive)
        ]
        gone = [number for number, seq in self._changed.items() if seq > after_seq] if after_seq else []
        return VectorNews(gone, sorted(found, key=lambda vector: vector.place)[:limit], self._seq)

    async def with_vectors(self, model: str, ids: Sequence[int], now: int) -> set[int]:
        """See `Storage.with_vectors`."""
        made = (number for number in ids if self._is_made(number, model))
        return {number for number in made if self._records[self._refs[number]].memory.visible(now)}

    async def vector_counts(self, model: str, now: int) -> VectorCounts:
        """See `Storage.vector_counts`."""
        visible = [record.memory.id for record in self._records.values() if record.memory.visible(now)]
        embedded = sum(1 for number in visible if self._is_made(number, model))
        others = sum(1 for made in self._vectors.values() if made.model != model)
        return VectorCounts(embedded, len(visible) - embedded, others)

    async def drop_vectors(self, keep: str | None, limit: int) -> int:
        """See `Storage.drop_vectors`."""
        gone = [number for number, made in self._vectors.items() if made.model != keep][:limit]
        for number in gone:
            del self._vectors[number]
        return len(gone)

    def _is_made(self, number: int, model: str) -> bool:
        return number in self._vectors and self._vectors[number].model == model

    # ---- namespaces

    async def get_namespace(self, name: str, now: int) -> Namespace | None:
        """See `Storage.get_namespace`."""
        return self._namespace(name, now) if name in self._spaces else None

    async def put_namespace(
        self, name: str, config: NamespaceConfig, now: int, *, create: bool, limit: int = 0
    ) -> Namespace:
        """See `Storage.put_namespace`."""
        self._refuse_when_read_only()
        space = self._spaces.get(name)
        if space is None and not create:
            raise NamespaceNotFoundError(name)
        if space is not None and space.explicit and create:
            raise AlreadyExistsError("The namespace exists already", namespace=name)
        is_new = space is None or not space.explicit
        if limit and is_new and sum(one.explicit for one in self._spaces.values()) >= limit:
            raise QuotaExceededError("", "max_namespace_count", limit)
        self._make_space(name, now)
        self._spaces[name] = structs.replace(self._spaces[name], config=config, explicit=True)
        return self._namespace(name, now)

    async def list_namespaces(
        self, scopes: tuple[str, ...], now: int, *, depth: int | None, limit: int, after: str | None
    ) -> Page[Namespace]:
        """See `Storage.list_namespaces`. Nothing is folded into a namespace outside of the scopes."""
        names = set()
        for name in self._spaces:
            line = [one for one in ancestors(name) if within(scopes, one)]
            if line:
                folded = (one for one in line if depth is None or one.count("/") < depth)
                names.add(next(folded, line[-1]))
        rows = sorted(name for name in names if after is None or name > after)
        page = _page(rows, limit, lambda name: (name, 0))
        return Page([self._namespace(name, now) for name in page.items], page.next)

    async def delete_namespace(self, name: str, now: int, *, recursive: bool) -> list[int]:
        """See `Storage.delete_namespace`. One that only has others below it can be deleted with them."""
        doomed = [one for one in self._spaces if contains(name, one)]
        if not doomed:
            raise NamespaceNotFoundError(name)
        namespace = self._namespace(name, now)
        if not recursive and (namespace.total_memories or namespace.namespaces):
            raise NamespaceNotEmptyError(name, namespace.total_memories, namespace.namespaces)
        tickets = []
        for one in doomed:
            refs = [ref for ref in self._records if ref[0] == one]
            dead = [self._records.pop(ref) for ref in refs]
            for record in dead:
                del self._refs[record.memory.id]
                self._vectors.pop(record.memory.id, None)
            self._drop_past({record.memory.id for record in dead if not record.memory.visible(now)})
            self._leave(one)
            for session in [ref for ref in self._sessions if ref[0] == one]:
                del self._sessions[session]
            self._seq += 1
            tickets.append(self._seq)
            self._dead[tickets[-1]] = dead
            self._events.append(Event(self._seq, now, Happening.DROP, one))
        return tickets

    async def purge(self, ticket: int, now: int, limit: int) -> int:
        """See `Storage.purge`."""
        held = self._dead.get(ticket, [])
        gone = held[:limit]
        self._dead[ticket] = held[limit:]
        if not self._dead[ticket]:
            del self._dead[ticket]
        for record in gone:
            self._seq += 1
            memory = record.memory
            ref = (memory.namespace, memory.key)
            # Where the namespace was made anew, what is stored there now came later than this delete.
            if ref not in self._records and ref not in self._buried:
                self._buried[ref] = Buried(*ref, memory.version, self._seq, memory.id, now, "deleted")
        return len(gone)

    async def dead_namespaces(self) -> list[int]:
        """See `Storage.dead_namespaces`."""
        return [ticket for ticket, held in self._dead.items() if held]

    async def rename_namespace(self, source: str, target: str, now: int) -> int:
        """See `Storage.rename_namespace`. One that only has others below it can be renamed with them."""
        self._refuse_when_read_only()
        if contains(source, target) or contains(target, source):
            raise InvalidInputError("target", "A namespace cannot be renamed into or around itself")
        moving = [name for name in self._spaces if contains(source, name)]
        if not moving:
            raise NamespaceNotFoundError(source)
        if any(contains(target, name) for name in self._spaces):
            raise AlreadyExistsError("The namespace exists already", namespace=target)
        unit = self._begin(now)
        names = {name: target + name[len(source) :] for name in moving}
        moved = [record for ref, record in self._records.items() if ref[0] in names]
        for record in moved:
            there = (names[record.memory.namespace], record.memory.key)
            self._carry_past(
                unit, (record.memory.namespace, record.memory.key), there, self._stage_move(unit, record, there).seq
            )
        for ref, rows in self._past.items():
            if rows and ref[0] in names and ref not in self._records:
                there = (names[ref[0]], ref[1])
                self._carry_past(unit, ref, there, unit.next_seq())
                unit.versions[there] = self._versions[ref]
        # A quota of a renamed namespace goes with it: what it bounds stays the same.
        self._check_quotas(unit)
        for old, new in names.items():
            self._spaces[new] = structs.replace(self._spaces[old], number=self._next_serial(), top_version=0)
            for ref in [ref for ref in self._sessions if ref[0] == old]:
                serial, session = self._sessions.pop(ref)
                self._sessions[new, ref[1]] = (serial, structs.replace(session, namespace=new))
        self._apply(unit)
        for old in names:
            self._leave(old)
        return sum(1 for record in moved if record.memory.visible(now))

    # ---- sessions

    async def get_session(self, namespace: str, session_id: str, now: int) -> Session | None:
        """See `Storage.get_session`."""
        kept = self._sessions.get((namespace, session_id))
        return None if kept is None else self._counted(kept[1], now)

    async def put_session(self, session: Session) -> Session:
        """See `Storage.put_session`."""
        self._refuse_when_read_only()
        ref = (session.namespace, session.id)
        serial, before = self._sessions.get(ref, (self._next_serial(), session))
        self._sessions[ref] = (serial, structs.replace(session, created_at=before.created_at))
        self._make_space(session.namespace, session.created_at)
        return self._counted(self._sessions[ref][1], session.last_used)

    async def touch_sessions(self, refs: Sequence[Ref], now: int) -> None:
        """See `Storage.touch_sessions`."""
        for ref in refs:
            if ref in self._sessions and self._sessions[ref][1].active(now):
                self._use_session(ref, now)

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
        """See `Storage.list_sessions`."""
        chosen = [
            (serial, session)
            for serial, session in self._sessions.values()
            if within(scopes, session.namespace, recursive=recursive)
            and cluster_id in {None, session.cluster_id}
            and active in {None, session.active(now)}
        ]
        page = _newest([(session.last_used, serial, session) for serial, session in chosen], limit, after)
        return Page([self._counted(session, now) for session in page.items], page.next)

    async def end_session(
        self, namespace: str, session_id: str, memories: WithMemories, now: int
    ) -> tuple[Session, int]:
        """See `Storage.end_session`. Of memories that are kept none is affected."""
        ref = (namespace, session_id)
        if ref not in self._sessions:
            raise SessionNotFoundError(namespace, session_id)
        serial, session = self._sessions[ref]
        unit = self._begin(now)
        visible = [record for record in self._memories_of(session) if record.memory.visible(now)]
        affected = [] if memories is WithMemories.KEEP else visible
        for record in affected:
            memory = record.memory
            if memories is WithMemories.DELETE:
                self._end(unit, memory, Happening.DELETE)
            else:
                seq, version = unit.next_seq(), memory.version + 1
                expired = structs.replace(memory, expires_at=now, updated_at=now, version=version, seq=seq)
                # Its past needs no row: it has expired at once.
                unit.write(structs.replace(record, memory=expired), Happening.UPDATE)
        self._apply(unit)
        ended_at = now if session.ended_at is None else session.ended_at
        self._sessions[ref] = (serial, structs.replace(session, ended_at=ended_at))
        return self._counted(self._sessions[ref][1], now), len(affected)

    async def cluster_sessions(self, namespace: str, cluster_id: str) -> list[str]:
        """See `Storage.cluster_sessions`."""
        sessions = (session for _, session in self._sessions.values())
        return [one.id for one in sessions if (one.namespace, one.cluster_id) == (namespace, cluster_id)]

    # ---- jobs

    async def put_job(self, job: Job) -> None:
        """See `Storage.put_job`."""
        serial, _ = self._jobs.get(job.id) or (self._next_serial(), job)
        self._jobs[job.id] = (serial, copy.copy(job))

    async def get_job(self, job_id: str) -> Job | None:
        """See `Storage.get_job`."""
        return copy.copy(self._jobs[job_id][1]) if job_id in self._jobs else None

    async def list_jobs(
        self, scopes: tuple[str, ...], *, state: JobState | None, limit: int, after: tuple[Scalar, int] | None
    ) -> Page[Job]:
        """See `Storage.list_jobs`."""
        chosen = [
            (job.created_at, serial, job)
            for serial, job in self._jobs.values()
            if within(scopes, job.namespace) and state in {None, job.state}
        ]
        page = _newest(chosen, limit, after)
        return Page([copy.copy(job) for job in page.items], page.next)

    # ---- the whole

    async def stats(self, scopes: tuple[str, ...], now: int, *, top: int) -> Stats:
        """See `Storage.stats`. `oldest` and `newest` are times of creation; fullest namespaces first."""
        stored = [r.memory for r in self._records.values() if within(scopes, r.memory.namespace)]
        visible = [memory for memory in stored if memory.visible(now)]
        spaces = [self._namespace(name, now) for name in self._spaces if within(scopes, name)]
        spaces = [space for space in spaces if space.memories]
        spaces.sort(key=lambda space: (-space.memories, space.name))
        tags = Counter(tag for memory in visible for tag in set(memory.tags))
        return Stats(
            memories=len(visible),
            bytes_raw=sum(len(memory.value) for memory in visible),
            bytes_stored=None,
            expired=len(stored) - len(visible),
            sessions=sum(1 for namespace, _ in self._sessions if within(scopes, namespace)),
            namespaces=[NamespaceUse(space.name, space.memories, space.bytes) for space in spaces[:top]],
            tiers={"warm": len(visible), "cold": 0},
            top_tags=sorted(tags.items(), key=lambda pair: (-pair[1], pair[0]))[:top],
            oldest=min((memory.created_at for memory in visible), default=None),
            newest=max((memory.created_at for memory in visible), default=None),
            last_seq=self._seq,
        )

    async def reserve_ids(self, last: int) -> None:
        """See `Storage.reserve_ids`."""
        self._last_id = max(self._last_id, last)

    async def read_only(self) -> str | None:
        """See `Storage.read_only`."""
        return self._why_read_only()

    async def set_read_only(self, reason: str | None) -> None:
        """See `Storage.set_read_only`."""
        self._read_only = reason

    async def hold_writes(self, reason: str | None, until: int) -> None:
        """See `Storage.hold_writes`."""
        if reason is not None and self._held is not None and self._held[1] <= self._clock.now():
            raise ConflictError(LAPSED)
        self._held = None if reason is None else (reason, until)

    async def lease(self, name: str, holder: str, now: int, until: int) -> bool:
        """See `Storage.lease`."""
        held_by, held_until = self._leases.get(name, (holder, until))
        if held_by != holder and held_until > now:
            return False
        self._leases[name] = (holder, until)
        return True

    async def check(self, *, fix: bool, progress: Progress | None = None) -> list[Problem]:
        """See `Storage.check`."""
        problems = []
        refs = {record.memory.id: ref for ref, record in self._records.items()}
        if refs != self._refs:
            problems.append(Problem("ids", "The ids do not lead to the memories that have them", fixed=fix))
            self._refs = refs if fix else self._refs
        for done, (ref, record) in enumerate(list(self._records.items()), start=1):
            problems.extend(self._check_record(ref, record, fix=fix))
            if progress is not None:
                progress(done, len(self._records))
        return problems

    def _check_record(self, ref: Ref, record: Record, *, fix: bool) -> Iterable[Problem]:
        memory = record.memory
        where = "/".join(ref)
        if (memory.namespace, memory.key) != ref:
            yield Problem(where, f"The record is damaged: it is that of {memory.namespace}/{memory.key}")
        if memory.namespace not in self._spaces:
            if fix:
                self._make_space(memory.namespace, memory.created_at)
            yield Problem(where, "Its namespace is not there", fixed=fix)
        if self._versions.get(ref, 0) < memory.version:
            if fix:
                self._versions[ref] = memory.version
            yield Problem(where, "The last version of the key is below the memory's", fixed=fix)
        try:
            derived = derive(memory)
        except (UnifiedMemoryError, MsgspecError) as error:
            yield Problem(where, f"The record is damaged: {error}")
            return
        if record != derived:
            if fix:
                self._records[ref] = derived
            yield Problem(where, "What is kept for searching it does not come from it", fixed=fix)


def _rank(value: Scalar) -> tuple[int, Scalar]:
    """Numbers before texts."""
    return (1, value) if isinstance(value, str) else (0, 0 if value is None else value)


def _is_after(order: Order, mine: tuple[Scalar, int], last: tuple[Scalar, int]) -> bool:
    """Whether a place in the order comes behind another: nulls are last in both directions."""
    if (mine[0] is None) != (last[0] is None):
        return mine[0] is None
    here, there = (_rank(mine[0]), mine[1]), (_rank(last[0]), last[1])
    return here < there if order.descending else here > there


def _page(items: list[T], limit: int | None, place: Callable[[T], tuple[Scalar, int]]) -> Page[T]:
    if limit is None or len(items) <= limit:
        return Page(items)
    return Page(items[:limit], place(items[limit - 1]))


def _newest(placed: list[tuple[int, int, T]], limit: int, after: tuple[Scalar, int] | None) -> Page[T]:
    """By the first two, falling; `after` is those of the last one shown."""
    rows = [one for one in placed if after is None or one[:2] < after]
    rows.sort(key=lambda one: one[:2], reverse=True)
    page = _page(rows, limit, lambda one: (one[0], one[1]))
    return Page([row[2] for row in page.items], page.next)


def _grouped(field: Field, memory: Memory) -> list[Scalar]:
    """What the memory is counted under."""
    held = resolve(field, memory)
    if field.kind is Kind.TAGS:
        return list(dict.fromkeys(held)) or [None]
    if isinstance(held, bytes):
        return [held.hex()]
    return [None if held is MISSING or isinstance(held, dict | list) else held]
