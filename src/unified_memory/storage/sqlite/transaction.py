"""What is done inside one transaction of the writer: edits of memories, and the book-keeping that goes with them."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from unified_memory.model.analysis import ENGLISH, index_text
from unified_memory.model.clock import SECOND, Clock
from unified_memory.model.errors import (
    AlreadyExistsError,
    IdempotencyMismatchError,
    InvalidInputError,
    MemoryNotFoundError,
    NamespaceNotEmptyError,
    NamespaceNotFoundError,
    QuotaExceededError,
    ReadOnlyError,
    SchemaTooNewError,
    SessionNotFoundError,
    StorageCorruptError,
    VersionConflictError,
)
from unified_memory.model.history import Event, Keeping, Kind
from unified_memory.model.memory import NO_ATTRIBUTES, Memory
from unified_memory.model.namespace import NamespaceConfig, ancestors, contains, inherit
from unified_memory.model.search import Description, describe
from unified_memory.model.session import Session, WithMemories
from unified_memory.storage.base import (
    Access,
    Code,
    Draft,
    Edit,
    Idempotency,
    Keep,
    Outcome,
    Redacted,
    Remove,
    Replayed,
)
from unified_memory.storage.sqlite import past, stubs, trust, vectors
from unified_memory.storage.sqlite.connection import Database
from unified_memory.storage.sqlite.filters import select_scope
from unified_memory.storage.sqlite.pending import Pending
from unified_memory.storage.sqlite.rows import (
    FIND_HEAD,
    FIND_HEADS,
    FIND_LAST,
    FIND_WHOLE,
    HEAD,
    MEMORY_AS_NAMED,
    SESSION,
    SIZE,
    memory_of,
    session_of,
)
from unified_memory.storage.sqlite.schema import MEMORY_TEXT, VERSION
from unified_memory.storage.sqlite.scopes import scope_tokens
from unified_memory.storage.warm import MUTE_SECONDS
from unified_memory.storage.warm import Place as ColdPlace

_config = msgspec.json.Decoder(NamespaceConfig)
_encode = msgspec.json.Encoder().encode

FIND_ID = f"SELECT {MEMORY_AS_NAMED} FROM memories m JOIN namespaces n ON n.id = m.namespace_id WHERE m.id = ?"  # noqa: S608
VACUUM_PAGES = 1000
MERGE_PAGES = 200
# From there on the index keeps what it has not yet taken out of its segments: FTS5_TOMBSTONE_ROWID in SQLite's fts5_index.c.
REMOVED = 1 << 53
REBUILD_FLUSH = 500
MAX_KNOWN_TAGS = 10_000
# Why a key has no memory any longer, as its tombstone says.
REASONS = {Kind.DELETE: "deleted", Kind.EXPIRE: "expired", Kind.MOVE: "moved", Kind.REDACT: "redacted"}
BURY = "INSERT OR REPLACE INTO tombstones VALUES (?, ?, ?, ?, ?, ?, ?)"


class Place(Struct):
    """A namespace inside a transaction: its row (0: none yet), what its versions start above, and its settings.

    `limits`: (namespace that sets it, max_memories or None, max_bytes or None) for itself and each ancestor. `keeps`: whether
    former versions are kept.
    """

    id: int
    name: str
    floor: int
    config: NamespaceConfig
    limits: list[tuple[str, int | None, int | None]]
    keeps: bool = False

    @property
    def language(self) -> str:
        """The language of its memories."""
        return self.config.language if isinstance(self.config.language, str) else ENGLISH


class Mark(NamedTuple):
    """Where a unit began."""

    last_id: int
    last_seq: int
    epoch: int


class Transaction:
    """The writer's view inside BEGIN … COMMIT. Kept from one transaction to the next for what it knows of namespaces."""

    def __init__(self, connection: Database, clock: Clock, keeping: Keeping) -> None:
        self.connection = connection
        self._clock = clock
        self._keeping = keeping
        self._places: dict[str, Place] = {}
        self._tags: dict[str, int] = {}
        self._epoch = -1
        self.last_id = self.last_seq = 0
        self.read_only: str | None = None
        # Whether there may be vectors: without them no write pays for them.
        self._embedded = False
        self._stale = False
        # Whether there may be stubs.
        self.archived = False
        # Whether anybody may be using hot copies.
        self.copies_used = False
        # Who ends the era of hot copies with its writes, None where they are told.
        self.mute_as: str | None = None
        self._era = False
        self._use: dict[int, list[int]] = {}
        self._sessions: dict[tuple[int, str], tuple[str | None, int]] = {}
        self._written = 0
        self._pending = Pending(connection)
        # Heads that were read ahead, by (namespace id, key): None where there is no such memory.
        self._heads: dict[tuple[int, str], tuple[Any, ...] | None] = {}
        # Last versions of keys that have no memory, read ahead.
        self._buried: dict[tuple[int, str], int] = {}

    # ---- the frame
    def begin(self) -> None:
        """Reads the counters. Raises SchemaTooNewError where a newer program has taken over."""
        found = self.connection.execute("PRAGMA user_version").get
        if found != VERSION:
            raise SchemaTooNewError(found, VERSION)
        self.last_id, self.last_seq, epoch, self.read_only, embedded, stale, archived, era, muted, held, until = (
            self.connection.execute(
                "SELECT last_id, last_seq, epoch, read_only, EXISTS (SELECT 1 FROM models), EXISTS (SELECT 1 FROM stale_text),"
                " EXISTS (SELECT 1 FROM archived), hot_era <> '', EXISTS (SELECT 1 FROM hot_mutes), held_reason, held_until"
                " FROM counters"
            ).get
        )
        if held is not None and until > self._clock.now():
            self.read_only = held
        self._embedded, self._stale, self.archived = bool(embedded), bool(stale), bool(archived)
        self._era, self.copies_used = bool(era), bool(era or muted)
        self._written = self.last_seq
        if epoch != self._epoch:
            self._places.clear()
            # Another storage may have been taken over, whose tags have other ids.
            self._tags.clear()
            self._epoch = epoch

    def finish(self) -> None:
        """Writes what was gathered: memories, the counters, the use of namespaces, the sessions that were used."""
        self.flush()
        self.flush_use()
        self.flush_sessions()
        if self.last_seq != self._written:
            if self._era and self.mute_as is not None:
                # In this very commit: whoever is killed after it leaves no old copy to others.
                now = self._clock.now()
                trust.mute(self.connection, self.mute_as, now, now + MUTE_SECONDS * SECOND)
            self.connection.execute("UPDATE counters SET last_id = ?, last_seq = ?", (self.last_id, self.last_seq))
        self._heads.clear()
        self._buried.clear()

    def settle(self) -> None:
        """Before anything but an edit: all that was decided is written, and nothing that was read ahead holds any longer."""
        self.flush()
        self._heads.clear()
        self._buried.clear()

    def settled(self) -> Database:
        """The connection, for work of its own: `settle` was called."""
        self.settle()
        return self.connection

    def flush(self) -> None:
        """Writes the memories that were decided; whoever reads or changes them by another statement calls it first."""
        self._pending.flush()

    def forget(self) -> None:
        """After a rollback nothing that was gathered or learned holds."""
        self._places.clear()
        self._tags.clear()
        self._epoch = -1
        self._use = {}
        self._sessions = {}
        self._forget_memories()

    def _forget_memories(self) -> None:
        self._pending.forget()
        self._heads.clear()
        self._buried.clear()

    def mark(self) -> Mark:
        """What `back_to` needs."""
        self.flush()
        self.flush_use()
        self.flush_sessions()
        return Mark(self.last_id, self.last_seq, self._epoch)

    def back_to(self, mark: Mark) -> None:
        """Forgets what was gathered since the mark."""
        self.last_id, self.last_seq, self._epoch = mark
        self._use, self._sessions = {}, {}
        self._forget_memories()
        self._places.clear()
        self._tags.clear()

    def next_seq(self) -> int:
        self.last_seq += 1
        return self.last_seq

    # ---- namespaces, as edits need them
    def place(self, name: str) -> Place:
        """What is known of the namespace, whether or not it exists."""
        place = self._places.get(name)
        if place is None:
            place = self._places[name] = self._look_up(name)
        return place

    def _look_up(self, name: str) -> Place:
        chain = ancestors(name)
        rows = {
            row[0]: row
            for row in self.connection.execute(
                "SELECT name, id, version_floor, config FROM namespaces WHERE name IN (SELECT value FROM json_each(?))",
                (_encode(chain).decode(),),
            )
        }
        configs = [(one, _config.decode(rows[one][3])) for one in chain if one in rows]
        limits = [
            (one, c.max_memories or None, c.max_bytes or None) for one, c in configs if c.max_memories or c.max_bytes
        ]
        own = rows.get(name)
        settings = [c for _, c in configs] if own else [NamespaceConfig(), *(c for _, c in configs)]
        config = inherit(settings)
        keeps = self._keeping.within(config).on
        return Place(own[1] if own else 0, name, own[2] if own else 0, config, limits, keeps)

    def found(self, place: Place, now: int) -> None:
        """Creates the namespace of the place where there is none."""
        if place.id:
            return
        floor = (
            self.connection.execute("SELECT max(top_version) FROM namespaces WHERE deleted_name = ?", (place.name,)).get
            or 0
        )
        self.connection.execute(
            "INSERT INTO namespaces (name, created_at, top_version, version_floor) VALUES (?, ?, ?, ?)",
            (place.name, now, floor, floor),
        )
        place.id, place.floor = self.connection.last_insert_rowid(), floor
        self._changed_namespaces(keep=True)

    def _changed_namespaces(self, *, keep: bool = False) -> None:
        """Tells every process that what it knows of namespaces may be old."""
        self.connection.execute("UPDATE counters SET epoch = epoch + 1")
        if keep:
            self._epoch += 1
        else:
            self._places.clear()
            self._epoch = self.connection.execute("SELECT epoch FROM counters").get

    def _count(self, namespace_id: int, memories: int, size: int, version: int) -> None:
        use = self._use.get(namespace_id)
        if use is None:
            self._use[namespace_id] = [memories, size, version]
        else:
            use[0] += memories
            use[1] += size
            use[2] = max(use[2], version)

    def flush_use(self) -> None:
        """Writes what was gathered of the use of namespaces."""
        for namespace_id, (memories, size, version) in self._use.items():
            self.connection.execute(
                "UPDATE namespaces SET memories = memories + ?, bytes = bytes + ?, top_version = max(top_version, ?)"
                " WHERE id = ?",
                (memories, size, version, namespace_id),
            )
        self._use = {}

    def _check_quotas(self, place: Place, now: int, memories: int, size: int) -> None:
        self.flush()
        for owner, max_memories, max_bytes in place.limits:
            self.flush_use()
            scope, bound = select_scope((owner,), recursive=True)
            have, have_bytes = self.connection.execute(
                f"SELECT total(n.memories), total(n.bytes) FROM namespaces n WHERE {scope}",  # noqa: S608 - condition from the compiler
                bound,
            ).get
            over = (max_memories and memories > 0 and have + memories > max_memories) or (
                max_bytes and size > 0 and have_bytes + size > max_bytes
            )
            if not over:
                continue
            # Those whose time has passed do not count, although they are still there.
            dead, dead_bytes = self.connection.execute(
                f"SELECT count(*), total({SIZE}) FROM memories m JOIN namespaces n ON n.id = m.namespace_id"  # noqa: S608
                f" WHERE m.expires_at <= ? AND {scope}",
                (now, *bound),
            ).get
            if max_memories and memories > 0 and have - dead + memories > max_memories:
                raise QuotaExceededError(owner, "max_memories", max_memories)
            if max_bytes and size > 0 and have_bytes - dead_bytes + size > max_bytes:
                raise QuotaExceededError(owner, "max_bytes", max_bytes)

    # ---- edits
    def edit_all(self, edits: Sequence[Edit], now: int, idempotency: Idempotency | None) -> list[Outcome] | Replayed:
        """A unit."""
        if idempotency is not None:
            kept = self.connection.execute(
                "SELECT fingerprint, record FROM idempotency WHERE scope = ? AND key = ? AND expires_at > ?",
                (idempotency.scope, idempotency.key, now),
            ).get
            if kept is not None:
                if kept[0] != idempotency.fingerprint:
                    raise IdempotencyMismatchError(idempotency.key)
                return Replayed(kept[1])
        outcomes = [self.edit(one, now) for one in edits]
        if idempotency is not None:
            self.connection.execute(
                "INSERT OR REPLACE INTO idempotency VALUES (?, ?, ?, ?, ?)",
                (
                    idempotency.scope,
                    idempotency.key,
                    idempotency.fingerprint,
                    idempotency.record(outcomes),
                    now + idempotency.keep,
                ),
            )
        return outcomes

    def read_ahead(self, edits: Iterable[Edit]) -> None:
        """Reads what these edits will ask for, in one statement for all of them."""
        wanted = []
        for edit in edits:
            place = self.place(edit.namespace)
            ref = (place.id, edit.key)
            if place.id and not edit.whole and ref not in self._heads:
                self._heads[ref] = None
                wanted.append((place.id, edit.key, place.name))
        if not wanted:
            return
        for row in self.connection.execute(FIND_HEADS, (_encode(wanted).decode(),)):
            place_id, key, _ = wanted[row[-1]]
            self._heads[place_id, key] = row[:-1]
        missing = [one for one in wanted if self._heads[one[0], one[1]] is None]
        if missing:
            for index, version in self.connection.execute(FIND_LAST, (_encode(missing).decode(),)):
                self._buried[missing[index][0], missing[index][1]] = version

    def _find(self, place: Place, edit: Edit) -> tuple[Any, ...] | None:
        """The row of the key, with the value where the edit needs it."""
        ref = (place.id, edit.key)
        if ref in self._pending.keys:
            self.flush()
        elif not edit.whole and ref in self._heads:
            return self._heads[ref]
        if not place.id:
            return None
        find = FIND_WHOLE if edit.whole else FIND_HEAD
        return self.connection.execute(find, (place.name, place.id, edit.key)).fetchone()

    def edit(self, edit: Edit, now: int) -> Outcome:
        """One edit. Everything that may raise does so before the first write."""
        place = self.place(edit.namespace)
        row = self._find(place, edit)
        there = None if row is None else memory_of(row)
        current = there if there is not None and there.visible(now) else None
        decision = edit.decide(current, place.config)
        if isinstance(decision, Keep):
            return Outcome(current)
        old_size = 0 if row is None else row[-1]
        if isinstance(decision, Remove):
            if current is None:
                return Outcome(None)
            self.remove(current, place, old_size, now, Kind.DELETE)
            return Outcome(current, removed=True)
        return Outcome(self._write(decision, edit, place, there, old_size, now), written=True, created=current is None)

    def _write(self, draft: Draft, edit: Edit, place: Place, there: Memory | None, old_size: int, now: int) -> Memory:
        if self.read_only is not None:
            raise ReadOnlyError(self.read_only)
        size = len(draft.value)
        current = there if there is not None and there.visible(now) else None
        if place.limits:
            self._check_quotas(place, now, 0 if current else 1, size - (old_size if current else 0))
        self.found(place, now)
        ref = (place.id, edit.key)
        if there is not None and current is None:
            self.remove(there, place, old_size, now, Kind.EXPIRE)
        metadata = None if draft.attributes == NO_ATTRIBUTES else draft.attributes.decode()
        if current is None:
            if there is not None:
                version = there.version + 1
            elif ref in self._buried:
                version = max(self._buried[ref], place.floor) + 1
            else:
                version = max(self._last_version(place, edit.key), place.floor) + 1
            self.last_id += 1
            number, created_at, count, last_accessed = self.last_id, now, 0, None
            seq = self.next_seq()
            self._pending.insert(number, ref, version, seq, now, draft, metadata)
            self._count(place.id, 1, size, version)
            old_tags: tuple[str, ...] = ()
        else:
            number, created_at, old_tags = current.id, current.created_at, current.tags
            count, last_accessed = current.access_count, current.last_accessed
            seq, version = self.next_seq(), current.version + 1
            if place.keeps:
                self._keep(current, now, seq)
            self._pending.update(number, ref, version, seq, now, draft, metadata)
            if self.archived:
                self._pending.unarchive(number)
            if self._embedded:
                self._pending.unembed(number)
            self._count(place.id, 0, size - old_size, version)
        kind = Kind.STORE if current is None else Kind.UPDATE
        self._pending.log(Event(seq, now, kind, place.name, edit.key, version, number))
        updated_at = now
        if draft.origin is not None:
            self._pending.come(number, draft.origin)
            created_at, updated_at = draft.origin.created_at, draft.origin.updated_at
            count, last_accessed = draft.origin.access_count, draft.origin.last_accessed
        self._heads.pop(ref, None)
        self._buried.pop(ref, None)
        if old_tags or draft.tags:
            self._retag(number, old_tags, draft.tags)
        self._index(number, place, draft)
        if draft.session_id is not None:
            self._sessions[place.id, draft.session_id] = (draft.project_id, now)
        return Memory(
            number, place.name, edit.key, draft.value, draft.attributes, draft.importance, draft.session_id,
            draft.project_id, created_at, updated_at, draft.expires_at, count, last_accessed, version, seq,
        )  # fmt: skip

    def _keep(self, memory: Memory, now: int, seq: int) -> None:
        """Keeps the version that is about to end."""
        if memory.tier == "cold":
            self.flush()
            past.keep(self.connection, memory.id, now, seq, cold=True)
        else:
            self._pending.keep(memory.id, now, seq)

    def _last_version(self, place: Place, key: str) -> int:
        """The last version of a key that has no memory."""
        return int(self.connection.execute(FIND_LAST, (_encode([(place.id, key, place.name)]).decode(),)).get[1])

    def reindex(self, number: int) -> None:
        """Derives what the index holds of a memory again."""
        memory = self._by_id(number)
        self._index(number, self.place(memory.namespace), describe(memory.key, memory.attributes, memory.parsed()))

    def _reindex_readable(self, number: int) -> None:
        """The same, but of a value that cannot be read: `check` names it, and mends its index once it can."""
        try:
            self.reindex(number)
        except StorageCorruptError:
            self.connection.execute("DELETE FROM stale_text WHERE memory_id = ?", (number,))

    def _index(self, number: int, place: Place, told: Draft | Description) -> None:
        if self._stale:
            self.connection.execute("DELETE FROM stale_text WHERE memory_id = ?", (number,))
        self._pending.index(
            number,
            keywords_text(told.keywords),
            told.content_hash,
            index_text(told.text, place.language),
            index_text(told.title_text, place.language),
            scope_tokens(place.name),
        )

    def derive(self, numbers: list[int]) -> None:
        """Derives everything that is derived of these memories again, their tags too."""
        self.connection.execute(
            "DELETE FROM memory_tags WHERE memory_id IN (SELECT value FROM json_each(?))", (_encode(numbers).decode(),)
        )
        there = self.connection.execute(
            "SELECT id FROM memories WHERE id IN (SELECT value FROM json_each(?))", (_encode(numbers).decode(),)
        ).fetchall()
        for (number,) in there:
            self.reindex(number)
            self._retag(number, (), self._by_id(number).tags)

    def refresh(self, limit: int) -> int:
        """Indexes memories again that are indexed as they were; how many are left."""
        self.settle()
        for (number,) in self.connection.execute("SELECT memory_id FROM stale_text LIMIT ?", (limit,)).fetchall():
            self._reindex_readable(number)
        return int(self.connection.execute("SELECT count(*) FROM stale_text").get)

    def rebuild(self) -> None:
        """Makes the full-text index anew, of everything."""
        self.settle()
        self.connection.execute("DROP TABLE memory_text")
        self.connection.execute(MEMORY_TEXT)
        for (number,) in self.connection.execute("SELECT id FROM memories ORDER BY id").fetchall():
            self._reindex_readable(number)
            if number % REBUILD_FLUSH == 0:
                self.flush()

    def restore_indexes(self) -> None:
        """Makes the indexes of the tables anew."""
        self.settle()
        self.connection.execute("REINDEX")

    def _by_id(self, number: int) -> Memory:
        self.flush()
        row = self.connection.execute(FIND_ID, (number,)).fetchone()
        if row is None:
            raise StorageCorruptError(f"Memory {number} has gone")
        return memory_of(row)

    def _retag(self, number: int, old: tuple[str, ...], new: tuple[str, ...]) -> None:
        for tag in set(old) - set(new):
            self._pending.untag(self._tag(tag), number)
        for tag in set(new) - set(old):
            self._pending.tag(self._tag(tag), number)

    def _tag(self, name: str) -> int:
        """The id of a tag, made where there is none. What was seen once stays so while the epoch does."""
        found = self._tags.get(name)
        if found is None:
            found = self.connection.execute("SELECT id FROM tags WHERE name = ?", (name,)).get
            if found is None:
                self.connection.execute("INSERT INTO tags (name) VALUES (?)", (name,))
                found = self.connection.last_insert_rowid()
            if len(self._tags) >= MAX_KNOWN_TAGS:
                self._tags.clear()
            self._tags[name] = found
        return found

    def remove(self, memory: Memory, place: Place, size: int, now: int, kind: Kind) -> int:
        """Deletes a memory; its version is remembered, and its going stands in the commit order, at the place that is told."""
        ref = (place.id, memory.key)
        self._heads.pop(ref, None)
        self._buried.pop(ref, None)
        seq = self.next_seq()
        if kind is Kind.EXPIRE:
            self.flush()
            past.forget_memory(self.connection, memory.id)
        elif kind is Kind.REDACT:
            self.flush()
            past.keep_redacted(self.connection, memory.id, now, seq)
        elif place.keeps:
            self._keep(memory, now, seq)
        self._erase(memory.id, memory.tags)
        self._count(place.id, -1, -size, memory.version)
        self.connection.execute(
            BURY, (memory.namespace, memory.key, memory.version, seq, memory.id, now, REASONS[kind])
        )
        self._pending.log(Event(seq, now, kind, memory.namespace, memory.key, memory.version, memory.id))
        return seq

    def redact(self, namespace: str, key: str, version: int | None, now: int) -> Redacted:
        """Takes the content of a version, or of all, for good."""
        self.settle()
        place = self.place(namespace)
        row = self.connection.execute(FIND_HEAD, (place.name, place.id, key)).fetchone() if place.id else None
        memory = None if row is None else memory_of(row)
        found: list[tuple[int, int]] = []
        seq = None
        if memory is not None and row is not None:
            if not memory.visible(now):
                self.remove(memory, place, row[-1], now, Kind.EXPIRE)
            elif version in {None, memory.version}:
                seq = self.remove(memory, place, row[-1], now, Kind.REDACT)
        self.flush()
        found = past.redact(self.connection, place.id, key, version, now, self.last_seq + 1 if seq is None else seq)
        if not found:
            raise MemoryNotFoundError(namespace, key)
        if seq is None:
            id_ = found[-1][0]
            self._pending.log(Event(self.next_seq(), now, Kind.REDACT, namespace, key, version, id_))
        # What repeated requests are answered with may hold it, and so may the name of a tag that nothing bears any longer.
        self.flush()
        self.connection.execute("DELETE FROM idempotency")
        self.connection.execute("DELETE FROM tags WHERE NOT EXISTS (SELECT 1 FROM memory_tags WHERE tag_id = tags.id)")
        self._tags.clear()
        self._changed_namespaces(keep=True)
        return Redacted(sorted({one[1] for one in found}), sorted({one[0] for one in found}))

    def _erase(self, number: int, tags: tuple[str, ...]) -> None:
        run = self.connection.execute
        self._retag(number, tags, ())
        self.flush()
        run("DELETE FROM memory_text WHERE rowid = ?", (number,))
        run("DELETE FROM search_index WHERE memory_id = ?", (number,))
        if self._embedded:
            run("DELETE FROM vectors WHERE memory_id = ?", (number,))
        if self._stale:
            run("DELETE FROM stale_text WHERE memory_id = ?", (number,))
        if self.archived:
            run("DELETE FROM archived WHERE memory_id = ?", (number,))
        run("DELETE FROM memories WHERE id = ?", (number,))

    def move(self, source: tuple[str, str], target: tuple[str, str], now: int, expected: int | None) -> Memory:
        """Renames a key."""
        self.settle()
        if self.read_only is not None:
            raise ReadOnlyError(self.read_only)
        origin, goal = self.place(source[0]), self.place(target[0])
        row = self.connection.execute(FIND_WHOLE, (origin.name, origin.id, source[1])).fetchone() if origin.id else None
        memory = None if row is None else memory_of(row)
        if memory is None or not memory.visible(now):
            raise MemoryNotFoundError(*source)
        if expected is not None and expected != memory.version:
            raise VersionConflictError(*source, expected, memory.version)
        size = len(memory.value)
        in_the_way = self.connection.execute(FIND_HEAD, (goal.name, goal.id, target[1])).fetchone() if goal.id else None
        occupant = None if in_the_way is None else memory_of(in_the_way)
        if occupant is not None and occupant.visible(now):
            raise AlreadyExistsError("There is a memory of that key already", namespace=target[0], key=target[1])
        limits = [limit for limit in goal.limits if not contains(limit[0], source[0])]
        if limits:
            self._check_quotas(Place(goal.id, goal.name, goal.floor, goal.config, limits), now, 1, size)
        self.found(goal, now)
        if occupant is not None and in_the_way is not None:
            self.remove(occupant, goal, in_the_way[-1], now, Kind.EXPIRE)
        return self._carry(memory, (origin.id, origin.keeps), goal, target[1], size, now)

    def _carry(self, memory: Memory, origin: tuple[int, bool], goal: Place, key: str, size: int, now: int) -> Memory:
        run = self.connection.execute
        origin_id, keeps = origin
        last = self._last_version(goal, key)
        version = max(memory.version, last, goal.floor) + 1
        left = self.next_seq()
        run(BURY, (memory.namespace, memory.key, memory.version, left, memory.id, now, REASONS[Kind.MOVE]))
        self._pending.log(Event(left, now, Kind.MOVE, memory.namespace, memory.key, memory.version, memory.id))
        if keeps and memory.visible(now):
            past.keep(self.connection, memory.id, now, left, cold=memory.tier == "cold")
        if origin_id == goal.id:
            past.carry(self.connection, (origin_id, memory.key), (goal.id, key), left)
        self._count(origin_id, -1, -size, memory.version)
        self._count(goal.id, 1, size, version)
        seq = self.next_seq()
        self._pending.log(Event(seq, now, Kind.STORE, goal.name, key, version, memory.id))
        run(
            "UPDATE memories SET namespace_id = ?, key = ?, version = ?, seq = ?, updated_at = ? WHERE id = ?",
            (goal.id, key, version, seq, now, memory.id),
        )
        if self._embedded:
            # What it means stays; whoever holds vectors of the target finds it as a new one.
            run(vectors.MOVE, (memory.id,))
        if memory.session_id is not None:
            run(
                "INSERT OR IGNORE INTO sessions (namespace_id, id, project_id, created_at, last_used)"
                " VALUES (?1, ?2, ?3, ?4, ?4)",
                (goal.id, memory.session_id, memory.project_id, now),
            )
        self.reindex(memory.id)
        return msgspec.structs.replace(memory, namespace=goal.name, key=key, version=version, seq=seq, updated_at=now)

    def put_vectors(self, model: str, codes: Sequence[Code]) -> int:
        """Puts vectors of memories that are still as they were."""
        self.settle()
        if self.read_only is not None:
            raise ReadOnlyError(self.read_only)
        self._embedded = True
        return vectors.put(self.connection, model, codes)

    def drop_vectors(self, keep: str | None, limit: int) -> int:
        """Removes vectors of other models."""
        self.settle()
        return vectors.drop(self.connection, keep, limit)

    def put_stubs(self, archive: str, places: Sequence[ColdPlace]) -> tuple[int, int]:
        """Takes values out of the database that an archive holds."""
        self.settle()
        self.archived = True
        return stubs.put(self.connection, archive, places)

    def take_back(self, values: Sequence[tuple[int, int, bytes]]) -> tuple[int, int]:
        """Puts values of stubs back."""
        self.settle()
        return stubs.take_back(self.connection, values)

    def move_stubs(self, source: str, target: str, places: Sequence[ColdPlace]) -> int:
        """Lets stubs refer to another archive."""
        self.settle()
        return stubs.move(self.connection, source, target, places)

    def touch(self, accesses: Sequence[Access]) -> None:
        """Writes down accesses."""
        self.settle()
        self.connection.executemany(
            "UPDATE memories SET access_count = access_count + ?, last_accessed = max(coalesce(last_accessed, 0), ?)"
            " WHERE id = ?",
            [(one.count, one.last, one.id) for one in accesses],
        )

    def expire(self, now: int, limit: int) -> list[tuple[str, int]]:
        """Removes what has passed its time."""
        self.settle()
        gone: dict[str, int] = {}
        rows = self.connection.execute(
            f"SELECT {HEAD} FROM memories m JOIN namespaces n ON n.id = m.namespace_id"  # noqa: S608 - fixed columns
            " WHERE m.expires_at <= ? AND n.name IS NOT NULL ORDER BY m.expires_at LIMIT ?",
            (now, limit),
        ).fetchall()
        for row in rows:
            memory = memory_of(row)
            self.remove(memory, self.place(memory.namespace), row[-1], now, Kind.EXPIRE)
            gone[memory.namespace] = gone.get(memory.namespace, 0) + 1
        self.connection.execute("DELETE FROM idempotency WHERE expires_at <= ?", (now,))
        self.connection.execute(
            "DELETE FROM sessions WHERE expires_at <= ? AND NOT EXISTS (SELECT 1 FROM memories m"
            " WHERE m.namespace_id = sessions.namespace_id AND m.session_id = sessions.id)",
            (now,),
        )
        return list(gone.items())

    def vacuum(self) -> bool:
        """Gives some of the free pages back; whether there are more."""
        self.settle()
        for _ in self.connection.execute(f"PRAGMA incremental_vacuum({VACUUM_PAGES:d})"):
            pass
        return bool(self.connection.execute("PRAGMA freelist_count").get)

    def merge(self, *, first: bool) -> bool:
        """Merges some of the index, without what was removed from it; whether more is to be done.

        The `first` step says that all of it is to be merged, also where only something was removed; see "merge" in
        https://sqlite.org/fts5.html#the_merge_command.
        """
        self.settle()
        removed = "SELECT EXISTS (SELECT 1 FROM memory_text_data WHERE id >= ?)"
        if first and not self.connection.execute(removed, (REMOVED,)).get:
            return False
        before = self.connection.total_changes()
        pages = -MERGE_PAGES if first else MERGE_PAGES
        self.connection.execute("INSERT INTO memory_text (memory_text, rank) VALUES ('merge', ?)", (pages,))
        # Where nothing was left to do the command alone counts.
        return self.connection.total_changes() - before > 1

    # ---- namespaces
    def put_namespace(self, name: str, config: NamespaceConfig, now: int, *, create: bool, limit: int) -> None:
        """Creates or configures a namespace."""
        self.settle()
        if self.read_only is not None:
            raise ReadOnlyError(self.read_only)
        place = self.place(name)
        explicit = bool(
            place.id and self.connection.execute("SELECT explicit FROM namespaces WHERE id = ?", (place.id,)).get
        )
        if create and explicit:
            raise AlreadyExistsError("The namespace exists already", namespace=name)
        if not create and not place.id:
            raise NamespaceNotFoundError(name)
        if limit and not explicit:
            have = self.connection.execute("SELECT count(*) FROM namespaces WHERE explicit AND name IS NOT NULL").get
            if have >= limit:
                raise QuotaExceededError("", "MAX_NAMESPACE_COUNT", limit)
        self.found(place, now)
        scope, bound = select_scope((name,), recursive=True)
        below = self.connection.execute(f"SELECT n.id, n.name FROM namespaces n WHERE {scope}", bound).fetchall()  # noqa: S608
        spoken = {number: self.place(one).language for number, one in below}
        self.connection.execute(
            "UPDATE namespaces SET config = ?, explicit = 1 WHERE id = ?", (_encode(config).decode(), place.id)
        )
        self._changed_namespaces()
        changed = [(spoken[number], number) for number, one in below if self.place(one).language != spoken[number]]
        self._stale = True
        # Where a memory waits already, what stands in the index is older still.
        self.connection.executemany(
            "INSERT OR IGNORE INTO stale_text SELECT id, ? FROM memories WHERE namespace_id = ?", changed
        )

    def delete_namespace(self, name: str, now: int, *, recursive: bool) -> list[int]:
        """Takes the names away; what they held is no longer reachable."""
        self.settle()
        self.flush_use()
        scope, bound = select_scope((name,), recursive=True)
        rows = self.connection.execute(
            f"SELECT n.id, n.name, n.memories FROM namespaces n WHERE {scope}",  # noqa: S608 - from the compiler
            bound,
        ).fetchall()
        if not rows:
            raise NamespaceNotFoundError(name)
        below = sum(1 for row in rows if row[1] != name)
        if not recursive:
            visible = self.connection.execute(
                "SELECT count(*) FROM memories m JOIN namespaces n ON n.id = m.namespace_id"  # noqa: S608 - condition from the compiler
                f" WHERE {scope} AND (m.expires_at IS NULL OR m.expires_at > ?)",
                (*bound, now),
            ).get
            if visible or below:
                raise NamespaceNotEmptyError(name, visible, below)
        self.connection.executemany(
            "UPDATE namespaces SET deleted_name = name, name = NULL, explicit = 0 WHERE id = ?",
            [(row[0],) for row in rows],
        )
        for row in rows:
            self._pending.log(Event(self.next_seq(), now, Kind.DROP, row[1]))
        self._changed_namespaces()
        trust.another(self.connection)
        return [row[0] for row in rows]

    def purge(self, ticket: int, now: int, limit: int) -> int:
        """Removes memories of a deleted namespace."""
        self.settle()
        name = self.connection.execute("SELECT deleted_name FROM namespaces WHERE id = ?", (ticket,)).get
        if name is None:
            # Another storage has been taken over since: the number is that of a namespace which is there.
            return 0
        rows = self.connection.execute(
            "SELECT id, key, version, metadata FROM memories WHERE namespace_id = ? LIMIT ?", (ticket, limit)
        ).fetchall()
        for number, key, version, metadata in rows:
            self._erase(number, _tags_of(metadata))
            past.forget_memory(self.connection, number)
            # Where the namespace was made anew, what is stored there now came later than this delete.
            self.connection.execute(
                "INSERT OR IGNORE INTO tombstones SELECT ?, ?, ?, ?, ?, ?, 'deleted' WHERE NOT EXISTS"
                " (SELECT 1 FROM memories m JOIN namespaces n ON n.id = m.namespace_id WHERE n.name = ? AND m.key = ?)",
                (name, key, version, self.next_seq(), number, now, name, key),
            )
        self.connection.execute(
            "UPDATE namespaces SET memories = max(0, memories - ?) WHERE id = ?", (len(rows), ticket)
        )
        if not rows:
            self.connection.execute("UPDATE namespaces SET memories = 0, bytes = 0 WHERE id = ?", (ticket,))
            self.connection.execute("DELETE FROM sessions WHERE namespace_id = ?", (ticket,))
            # Of keys that had no memory any longer.
            self.connection.execute("DELETE FROM past WHERE namespace_id = ?", (ticket,))
        return len(rows)

    def rename_namespace(self, source: str, target: str, now: int) -> int:
        """Renames a namespace with all below it."""
        self.settle()
        if self.read_only is not None:
            raise ReadOnlyError(self.read_only)
        if contains(source, target) or contains(target, source):
            raise InvalidInputError("to.namespace", "A namespace cannot be moved into itself or onto one above it")
        self.flush_use()
        scope, bound = select_scope((target,), recursive=True)
        if self.connection.execute(f"SELECT 1 FROM namespaces n WHERE {scope} LIMIT 1", bound).get:  # noqa: S608 - from the compiler
            raise AlreadyExistsError("The target exists already", namespace=target)
        scope, bound = select_scope((source,), recursive=True)
        rows = self.connection.execute(
            f"SELECT n.id, n.name, n.config, n.explicit, n.created_at FROM namespaces n WHERE {scope}",  # noqa: S608 - from the compiler
            bound,
        ).fetchall()
        if not rows:
            raise NamespaceNotFoundError(source)
        moved = 0
        for namespace_id, name, config, explicit, created_at in rows:
            new_name = target + name[len(source) :]
            self._places.clear()
            keeps = self.place(name).keeps
            goal = self.place(new_name)
            self.found(goal, now)
            self.connection.execute(
                "UPDATE namespaces SET config = ?, explicit = ?, created_at = ? WHERE id = ?",
                (config, explicit, created_at, goal.id),
            )
            # Its settings hold for what moves there.
            self._places.clear()
            goal = self.place(new_name)
            self.connection.execute(
                "UPDATE sessions SET namespace_id = ? WHERE namespace_id = ?", (goal.id, namespace_id)
            )
            numbers = self.connection.execute(
                "SELECT id FROM memories WHERE namespace_id = ? ORDER BY id", (namespace_id,)
            ).fetchall()
            for (number,) in numbers:
                memory = self._by_id(number)
                if memory.visible(now) and (limits := _from_outside(goal, source, target)):
                    self._check_quotas(
                        Place(goal.id, goal.name, goal.floor, goal.config, limits), now, 1, len(memory.value)
                    )
                self._carry(memory, (namespace_id, keeps), goal, memory.key, len(memory.value), now)
                moved += memory.visible(now)
            # That of keys without a memory, too.
            if self.connection.execute(
                "SELECT EXISTS (SELECT 1 FROM past WHERE namespace_id = ?)", (namespace_id,)
            ).get:
                self.connection.execute(
                    "UPDATE past SET namespace_id = ?, touched = ? WHERE namespace_id = ?",
                    (goal.id, self.next_seq(), namespace_id),
                )
            self.flush_use()
            self.connection.execute(
                "UPDATE namespaces SET deleted_name = name, name = NULL, explicit = 0, memories = 0, bytes = 0 WHERE id = ?",
                (namespace_id,),
            )
        self._changed_namespaces()
        trust.another(self.connection)
        return moved

    # ---- sessions
    def flush_sessions(self) -> None:
        """Writes down which sessions stores have used: created, reopened, their ttl slid."""
        if not self._sessions:
            return
        used = [(*ref, *told) for ref, told in self._sessions.items()]
        self.connection.execute(
            "INSERT INTO sessions (namespace_id, id, project_id, created_at, last_used)"
            " SELECT value->>0, value->>1, value->>2, value->>3, value->>3 FROM json_each(?1) WHERE true"
            " ON CONFLICT DO UPDATE SET last_used = max(last_used, excluded.last_used), ended_at = NULL,"
            " expires_at = excluded.last_used + CAST(round(ttl * ?2) AS INTEGER)",
            (_encode(used).decode(), SECOND),
        )
        self._sessions = {}

    def _session(self, namespace: str, session_id: str, now: int) -> Session:
        """The session as it stands in this transaction. Raises SessionNotFoundError."""
        self.flush_sessions()
        row = self.connection.execute(
            f"SELECT {SESSION} FROM sessions s JOIN namespaces n ON n.id = s.namespace_id WHERE n.name = ? AND s.id = ?",  # noqa: S608
            (now, namespace, session_id),
        ).fetchone()
        if row is None:
            raise SessionNotFoundError(namespace, session_id)
        return session_of(row)

    def put_session(self, session: Session) -> Session:
        """Creates or replaces a session."""
        self.settle()
        if self.read_only is not None:
            raise ReadOnlyError(self.read_only)
        place = self.place(session.namespace)
        self.found(place, session.last_used)
        self.connection.execute(
            "INSERT INTO sessions (namespace_id, id, cluster_id, project_id, ttl, metadata, created_at, last_used, expires_at,"
            " ended_at) VALUES (?, ?, ?, ?, ?, CAST(? AS TEXT), ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET cluster_id = excluded.cluster_id,"
            " project_id = excluded.project_id, ttl = excluded.ttl, metadata = excluded.metadata,"
            " last_used = excluded.last_used,"
            " expires_at = excluded.expires_at, ended_at = excluded.ended_at",
            (
                place.id,
                session.id,
                session.cluster_id,
                session.project_id,
                session.ttl,
                session.metadata,
                session.created_at,
                session.last_used,
                session.expires_at,
                session.ended_at,
            ),  # fmt: skip - a record in its own order
        )
        return self._session(session.namespace, session.id, session.last_used)

    def touch_sessions(self, refs: Sequence[tuple[str, str]], now: int) -> None:
        """Slides the ttl of active sessions."""
        self.settle()
        self.connection.executemany(
            "UPDATE sessions SET last_used = max(last_used, ?1), expires_at = ?1 + CAST(round(ttl * ?2) AS INTEGER)"
            " WHERE id = ?4 AND namespace_id = (SELECT id FROM namespaces WHERE name = ?3)"
            " AND ended_at IS NULL AND (expires_at IS NULL OR expires_at > ?1)",
            [(now, SECOND, namespace, session_id) for namespace, session_id in refs],
        )

    def end_session(self, namespace: str, session_id: str, memories: WithMemories, now: int) -> tuple[Session, int]:
        """Ends a session, with its memories as asked."""
        self.settle()
        self._session(namespace, session_id, now)
        place = self.place(namespace)
        affected = 0
        if memories is not WithMemories.KEEP:
            rows = self.connection.execute(
                f"SELECT {HEAD} FROM memories m JOIN namespaces n ON n.id = m.namespace_id"  # noqa: S608 - fixed columns
                " WHERE m.namespace_id = ? AND m.session_id = ? AND (m.expires_at IS NULL OR m.expires_at > ?)",
                (place.id, session_id, now),
            ).fetchall()
            for row in rows:
                memory = memory_of(row)
                if memories is WithMemories.DELETE:
                    self.remove(memory, place, row[-1], now, Kind.DELETE)
                else:
                    seq, version = self.next_seq(), memory.version + 1
                    self.connection.execute(
                        "UPDATE memories SET expires_at = ?, version = ?, seq = ?, updated_at = ? WHERE id = ?",
                        (now, version, seq, now, memory.id),
                    )
                    self._pending.log(Event(seq, now, Kind.UPDATE, namespace, memory.key, version, memory.id))
                    self._count(place.id, 0, 0, memory.version + 1)
            affected = len(rows)
            trust.another(self.connection)
        self.connection.execute(
            "UPDATE sessions SET ended_at = coalesce(ended_at, ?) WHERE namespace_id = ? AND id = ?",
            (now, place.id, session_id),
        )
        return self._session(namespace, session_id, now), affected


def _from_outside(goal: Place, source: str, target: str) -> list[tuple[str, int | None, int | None]]:
    """The limits that are new to what moves: not those that hold at the source too, nor those that move along."""
    return [limit for limit in goal.limits if not contains(limit[0], source) and not contains(target, limit[0])]


def keywords_text(keywords: tuple[str, ...]) -> str:
    """Keywords as they are kept: a JSON array."""
    return _encode(keywords).decode()


class _Tags(Struct):
    tags: tuple[str, ...] = ()


_tags = msgspec.json.Decoder(_Tags)


def _tags_of(metadata: str | None) -> tuple[str, ...]:
    return () if metadata is None else _tags.decode(metadata).tags
