"""Memories: store, retrieve, update, patch, delete, move, list, search, query."""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Struct

from unified_memory.model.clock import Clock, to_rfc3339
from unified_memory.model.errors import (
    AlreadyExistsError,
    InvalidInputError,
    MemoryNotFoundError,
    PermissionDeniedError,
    VersionConflictError,
)
from unified_memory.model.memory import Memory, SearchIndex, check_key
from unified_memory.model.namespace import DEFAULT_NAMESPACE, NamespaceConfig, check_namespace
from unified_memory.model.principal import Principal
from unified_memory.model.query import (
    BY_ID,
    MAX_LIMIT,
    MISSING,
    Comparison,
    Field,
    Filter,
    Kind,
    Op,
    Selection,
    decode_cursor,
    encode_cursor,
    every,
    matches,
    parse_field,
    parse_filter,
    parse_order,
    resolve,
)
from unified_memory.model.value import text_of
from unified_memory.service.access import Accesses
from unified_memory.service.drafting import (
    Change,
    Limits,
    Stored,
    changed,
    check_ahead,
    check_tags,
    inherited_expiry,
    patched,
    read_changes,
    read_patch,
    read_store,
    read_update,
)
from unified_memory.service.guard import Guard
from unified_memory.service.requests import (
    UNCONDITIONAL,
    BatchKeysRequest,
    BatchStoreRequest,
    Conditions,
    DeleteWhereRequest,
    ExactQuery,
    Idempotent,
    KeyRef,
    ListQuery,
    MoveRequest,
    PatchRequest,
    StoreRequest,
    UpdateRequest,
    UpdateWhereRequest,
)
from unified_memory.service.sizes import check_limit
from unified_memory.service.tiering import COLD, Tiering
from unified_memory.storage.base import (
    KEEP,
    REMOVE,
    Decision,
    Edit,
    Group,
    Idempotency,
    Outcome,
    Reading,
    Replayed,
    Storage,
)

WHERE_CHUNK = 200
# A repeated request is recognised for a day.
IDEMPOTENCY_MICROSECONDS = 24 * 3600 * 1_000_000
MAX_IDEMPOTENCY_KEY = 255

_pack = msgspec.msgpack.Encoder().encode
_unpack = msgspec.msgpack.Decoder(list[Outcome]).decode


class Listing(Struct):
    """A page of memories and the cursor of the next one (None: this is the last)."""

    memories: list[Memory]
    next_cursor: str | None


class Queried(Struct):
    """A page of a query: memories or (with `select`) rows, and where asked for count and groups.

    `cold_read`: how many values were fetched from archives for it.
    """

    memories: list[Memory]
    next_cursor: str | None
    rows: list[dict[str, Any]] | None = None
    count: int | None = None
    groups: list[Group] | None = None
    cold_read: int = 0


class Affected(Struct):
    """What a change by filter did, or (dry run) would do."""

    matched: int
    changed: int
    dry_run: bool
    sample: list[KeyRef]


class Memories:
    """Every operation on memories. Each takes the principal who asks and sees only what that one may see."""

    def __init__(
        self, storage: Storage, clock: Clock, limits: Limits, accesses: Accesses, guard: Guard, tiering: Tiering
    ) -> None:
        self._storage = storage
        self._clock = clock
        self._accesses = accesses
        self._guard = guard
        self._tiering = tiering
        self.limits = limits

    # ---- one memory
    async def store(
        self,
        principal: Principal,
        request: StoreRequest,
        conditions: Conditions = UNCONDITIONAL,
        idempotent: Idempotent | None = None,
    ) -> Outcome:
        """Stores a whole record, replacing what was there; without a key one is minted.

        Raises InvalidInputError and below, VersionConflictError, AlreadyExistsError, PermissionDeniedError,
        ReadOnlyError, QuotaExceededError.
        """
        self._may_write(principal, request.namespace)
        self._guard.check()
        now = self._clock.now()
        stored = await read_store(request, request.key if request.key is not None else mint_key(), self.limits, now)
        edit = _store_edit(stored, request.expected_version, conditions, now)
        return (await self._edit(principal, [edit], now, idempotent, values=[stored.draft.value]))[0]

    async def retrieve(self, principal: Principal, namespace: str, key: str) -> Memory:
        """The memory of that key; the access is counted. Raises MemoryNotFoundError."""
        now = self._clock.now()
        memory = await self._storage.get(namespace, key, now) if principal.sees(namespace) else None
        if memory is None:
            # Only now does it matter whether the names could exist at all.
            check_namespace(namespace)
            check_key(key, self.limits.key_bytes)
            raise MemoryNotFoundError(namespace, key)
        self._accesses.count(memory, now)
        if memory.tier == COLD:
            await self._tiering.retrieved([memory])
        return memory

    async def retrieve_id(self, principal: Principal, number: int) -> Memory:
        """The memory of that id; the access is counted. Raises MemoryNotFoundError."""
        memory = (await self._storage.get_by_id([number], self._clock.now()))[0]
        if memory is None or not principal.sees(memory.namespace):
            raise MemoryNotFoundError("", f"id {number}")
        self._accesses.count(memory, self._clock.now())
        await self._tiering.retrieved([memory])
        return memory

    async def search_index(self, memory: Memory) -> SearchIndex:
        """What the search knows of a memory that was retrieved."""
        content_hash, keywords = await self._storage.index_entry(memory)
        return SearchIndex(content_hash, keywords, text_of(memory.parsed()))

    async def update(
        self,
        principal: Principal,
        namespace: str,
        key: str,
        request: UpdateRequest,
        conditions: Conditions = UNCONDITIONAL,
        idempotent: Idempotent | None = None,
    ) -> Outcome:
        """Changes what the request names of a memory; a ttl runs on unless it is named.

        Raises MemoryNotFoundError and what `store` raises.
        """
        namespace = _one_namespace(request.namespace, namespace)
        now = self._clock.now()
        change = read_update(request, self.limits, now)

        def decide(current: Memory, _config: NamespaceConfig) -> Decision:
            check_ahead(change.expires_at, now)
            return changed(current, change, self.limits)

        return await self._change(
            principal, namespace, key, decide, now, request.expected_version, conditions, idempotent
        )

    async def patch(
        self,
        principal: Principal,
        namespace: str,
        key: str,
        request: PatchRequest,
        conditions: Conditions = UNCONDITIONAL,
        idempotent: Idempotent | None = None,
    ) -> Outcome:
        """Changes a value from inside, atomically. Raises MemoryNotFoundError, ConflictError where the patch does not
        fit what is stored, and what `store` raises.
        """
        namespace = _one_namespace(request.namespace, namespace)
        patch = read_patch(request)

        def decide(current: Memory, _config: NamespaceConfig) -> Decision:
            return changed(current, Change(value=patched(current, patch, self.limits)), self.limits)

        return await self._change(
            principal, namespace, key, decide, self._clock.now(), request.expected_version, conditions, idempotent
        )

    async def _change(
        self,
        principal: Principal,
        namespace: str,
        key: str,
        decide: Callable[[Memory, NamespaceConfig], Decision],
        now: int,
        expected_version: int | None,
        conditions: Conditions,
        idempotent: Idempotent | None,
    ) -> Outcome:
        check_namespace(namespace)
        check_key(key, self.limits.key_bytes)
        self._may_see(principal, namespace, key)
        self._guard.check()
        check = version_check(namespace, key, expected_version, conditions)

        def if_there(current: Memory | None, config: NamespaceConfig) -> Decision:
            if current is None:
                raise MemoryNotFoundError(namespace, key)
            check(current)
            return decide(current, config)

        return (await self._edit(principal, [Edit(namespace, key, if_there, whole=True)], now, idempotent))[0]

    async def delete(
        self,
        principal: Principal,
        namespace: str,
        key: str,
        conditions: Conditions = UNCONDITIONAL,
        idempotent: Idempotent | None = None,
    ) -> Memory:
        """Deletes a memory; returns its head as it was. Raises MemoryNotFoundError, VersionConflictError."""
        check_namespace(namespace)
        check_key(key, self.limits.key_bytes)
        self._may_see(principal, namespace, key)
        check = version_check(namespace, key, None, conditions)

        def decide(current: Memory | None, _config: NamespaceConfig) -> Decision:
            if current is None:
                raise MemoryNotFoundError(namespace, key)
            check(current)
            return REMOVE

        outcome = (await self._edit(principal, [Edit(namespace, key, decide)], self._clock.now(), idempotent))[0]
        if outcome.memory is None:
            raise MemoryNotFoundError(namespace, key)
        return outcome.memory

    async def move(self, principal: Principal, request: MoveRequest) -> Memory | int:
        """Renames a key (returns the memory) or a whole namespace (returns how many memories moved).

        Raises MemoryNotFoundError, NamespaceNotFoundError, AlreadyExistsError, VersionConflictError and what `store` raises.
        """
        source, target = request.source, request.target
        check_namespace(source.namespace, "from.namespace")
        check_namespace(target.namespace, "to.namespace")
        self._may_write(principal, target.namespace)
        self._guard.check()
        now = self._clock.now()
        if source.key is None and target.key is None:
            self._may_write(principal, source.namespace)
            return await self._storage.rename_namespace(source.namespace, target.namespace, now)
        if source.key is None or target.key is None:
            raise InvalidInputError("to.key", "Either both ends have a key, or neither has")
        check_key(source.key, self.limits.key_bytes, "from.key")
        check_key(target.key, self.limits.key_bytes, "to.key")
        self._may_see(principal, source.namespace, source.key)
        if (source.namespace, source.key) == (target.namespace, target.key):
            raise InvalidInputError("to.key", "Both ends are the same")
        moved = await self._storage.move(
            (source.namespace, source.key),
            (target.namespace, target.key),
            now,
            expected_version=request.expected_version,
        )
        return self._accesses.show(moved)

    # ---- many
    async def store_batch(
        self, principal: Principal, request: BatchStoreRequest, idempotent: Idempotent | None = None
    ) -> list[Outcome]:
        """Stores all or nothing; the outcomes in order. Raises what `store` raises, naming the item."""
        self._check_batch(len(request.memories), "memories")
        self._guard.check()
        now = self._clock.now()
        edits, values = [], []
        for i, one in enumerate(request.memories):
            try:
                self._may_write(principal, one.namespace)
                stored = await read_store(one, one.key if one.key is not None else mint_key(), self.limits, now)
            except InvalidInputError as error:
                error.field = error.facts["field"] = f"memories[{i}].{error.field}"
                raise
            edits.append(_store_edit(stored, one.expected_version, UNCONDITIONAL, now, f"memories[{i}]."))
            values.append(stored.draft.value)
        return await self._edit(principal, edits, now, idempotent, values=values)

    async def retrieve_batch(self, principal: Principal, request: BatchKeysRequest) -> list[Memory | None]:
        """The memories in order, None for each that is not there; accesses are counted."""
        self._check_batch(len(request.keys), "keys")
        for i, ref in enumerate(request.keys):
            self._check_ref(ref, i)
        now = self._clock.now()
        found = await self._storage.get_many([(ref.namespace, ref.key) for ref in request.keys], now)
        memories = [m if m is not None and principal.sees(m.namespace) else None for m in found]
        for memory in memories:
            if memory is not None:
                self._accesses.count(memory, now)
        await self._tiering.retrieved(memories)
        return memories

    async def delete_batch(
        self, principal: Principal, request: BatchKeysRequest, idempotent: Idempotent | None = None
    ) -> list[Outcome]:
        """Deletes what is there of these keys, in one transaction; the outcomes in order."""
        self._check_batch(len(request.keys), "keys")

        def decide(_current: Memory | None, _config: NamespaceConfig) -> Decision:
            return REMOVE

        def ignore(_current: Memory | None, _config: NamespaceConfig) -> Decision:
            return KEEP

        edits = []
        for i, ref in enumerate(request.keys):
            self._check_ref(ref, i)
            edits.append(Edit(ref.namespace, ref.key, decide if principal.sees(ref.namespace) else ignore))
        outcomes = await self._edit(principal, edits, self._clock.now(), idempotent)
        return [o if o.removed else Outcome(None) for o in outcomes]

    def _check_ref(self, ref: KeyRef, place: int) -> None:
        check_namespace(ref.namespace, f"keys[{place}].namespace")
        check_key(ref.key, self.limits.key_bytes, f"keys[{place}].key")

    def _check_batch(self, items: int, field: str) -> None:
        if not 1 <= items <= self.limits.batch:
            raise InvalidInputError(field, f"{field} must have 1 to {self.limits.batch} items", limit=self.limits.batch)

    # ---- by filter
    async def matching(
        self, principal: Principal, request: UpdateWhereRequest | DeleteWhereRequest
    ) -> tuple[Selection, Affected]:
        """What a change by filter selects: for its dry run, and for how long the work is."""
        where = parse_filter(request.filter)
        scopes, recursive = _reach(principal, request)
        selection = Selection(scopes=scopes, recursive=recursive, where=where, limit=10)
        now = self._clock.now()
        count = await self._storage.count(selection, now)
        sample = (await self._storage.select(selection, now)).items
        return selection, Affected(count, 0, request.dry_run, [KeyRef(m.key, m.namespace) for m in sample])

    def read_where(self, request: UpdateWhereRequest) -> Change:
        """Checks what `update/where` is to change. Raises InvalidInputError and below."""
        return read_changes(request.set, self.limits, self._clock.now())

    async def change_where(self, selection: Selection, change: Change | None) -> AsyncIterator[int]:
        """Changes (None: deletes) every selected memory, chunk by chunk; yields how many each chunk changed.

        A memory that no longer matches when its turn comes is left alone.
        """
        where = selection.where

        def decide(current: Memory | None, _config: NamespaceConfig) -> Decision:
            if current is None or (where is not None and not matches(where, current)):
                return KEEP
            return REMOVE if change is None else changed(current, change, self.limits)

        after: tuple[Any, int] | None = None
        while True:
            if change is not None:
                self._guard.check()
            now = self._clock.now()
            page = await self._storage.select(
                msgspec.structs.replace(selection, order=BY_ID, limit=WHERE_CHUNK, after=after), now
            )
            edits = [Edit(m.namespace, m.key, decide, whole=True) for m in page.items]
            if edits:
                outcomes = await self._storage.edit(edits, now)
                if isinstance(outcomes, Replayed):  # only a unit with an idempotency key can be
                    raise TypeError
                yield sum(1 for o in outcomes if o.written or o.removed)
            if page.next is None:
                return
            after = page.next

    # ---- finding
    async def list_all(self, principal: Principal, query: ListQuery) -> Listing:
        """Memories in order. Raises InvalidInputError and below."""
        prefix = Comparison(_KEY, Op.STARTSWITH, query.prefix) if query.prefix else None
        order = parse_order(query.order_by)
        listing = (query.namespace, query.recursive, query.prefix, query.tags, query.order_by)
        scopes, recursive = _reach(principal, query)
        selection = Selection(
            scopes=scopes,
            recursive=recursive,
            where=every(prefix, *_tags(query.tags)),
            order=order,
            limit=check_limit(query.limit),
            after=decode_cursor(query.cursor, *listing),
        )
        page = await self._storage.select(selection, self._clock.now())
        return Listing([self._accesses.show(m) for m in page.items], encode_cursor(page.next, *listing))

    async def query(self, principal: Principal, query: ExactQuery) -> Queried:
        """Memories by exact filter. Raises InvalidInputError and below."""
        where = parse_filter(query.filter) if query.filter else None
        order = parse_order(query.order_by)
        fields = [_selectable(name, "select") for name in query.select] if query.select is not None else None
        listing = (query.namespace, query.recursive, query.filter, query.order_by)
        scopes, recursive = _reach(principal, query)
        selection = Selection(
            scopes=scopes,
            recursive=recursive,
            where=where,
            order=order,
            limit=check_limit(query.limit),
            after=decode_cursor(query.cursor, *listing),
        )
        now, reading = self._clock.now(), Reading()
        if query.group_by is not None:
            field = _selectable(query.group_by, "group_by")
            if field.kind is Kind.HASH:
                raise InvalidInputError("group_by", "content_hash cannot be grouped by")
            groups = await self._storage.group(selection, field, now, selection.limit or MAX_LIMIT, reading=reading)
            if field.kind is Kind.INSTANT:
                groups = [Group(None if g.value is None else to_rfc3339(g.value), g.count) for g in groups]
            count = await self._storage.count(selection, now, reading=reading) if query.count else None
            return Queried([], None, count=count, groups=groups, cold_read=reading.cold)
        page = await self._storage.select(selection, now, reading=reading)
        for memory in page.items:
            self._accesses.show(memory)
        rows = None if fields is None else [{f.name: shown(f, m) for f in fields} for m in page.items]
        count = await self._storage.count(selection, now, reading=reading) if query.count else None
        return Queried(page.items, encode_cursor(page.next, *listing), rows, count, cold_read=reading.cold)

    # ---- within
    async def _edit(
        self,
        principal: Principal,
        edits: list[Edit],
        now: int,
        idempotent: Idempotent | None,
        values: list[bytes] | None = None,
    ) -> list[Outcome]:
        """Applies a unit. `values`: what the request itself carries of values, not kept again for a repetition."""
        outcomes = await apply_unit(self._storage, principal, edits, now, idempotent, values)
        for outcome in outcomes:
            if outcome.memory is not None:
                self._accesses.show(outcome.memory)
        return outcomes

    def _may_write(self, principal: Principal, namespace: str) -> None:
        if not principal.sees(namespace):
            raise PermissionDeniedError("Not allowed in this namespace", namespace=namespace)

    def _may_see(self, principal: Principal, namespace: str, key: str) -> None:
        if not principal.sees(namespace):
            raise MemoryNotFoundError(namespace, key)


_KEY = parse_field("key")
_TAGS = parse_field("tags")


async def apply_unit(
    storage: Storage,
    principal: Principal,
    edits: list[Edit],
    now: int,
    idempotent: Idempotent | None,
    values: list[bytes] | None = None,
) -> list[Outcome]:
    """Applies a unit, or where the same request was applied before tells what came of it then.

    `values`: what the request itself carries of values, not kept again for a repetition. Raises what `Storage.edit` raises.
    """
    if idempotent is None:
        outcomes = await storage.edit(edits, now)
    else:
        if not 0 < len(idempotent.key) <= MAX_IDEMPOTENCY_KEY:
            raise InvalidInputError(
                "Idempotency-Key", f"Idempotency-Key must have 1 to {MAX_IDEMPOTENCY_KEY} characters"
            )
        outcomes = await storage.edit(
            edits,
            now,
            idempotency=Idempotency(
                principal.name, idempotent.key, idempotent.fingerprint, _recorder(values), IDEMPOTENCY_MICROSECONDS
            ),
        )
    if isinstance(outcomes, Replayed):
        outcomes = _unpack(outcomes.record)
        if values is not None:
            for outcome, value in zip(outcomes, values, strict=True):
                if outcome.memory is not None:
                    outcome.memory.value = value
    return outcomes


def mint_key() -> str:
    """A key for a memory that was stored without one: 128 random bits."""
    return secrets.token_hex(16)


def _recorder(values: list[bytes] | None) -> Callable[[list[Outcome]], bytes]:
    def record(outcomes: list[Outcome]) -> bytes:
        if values is None:
            return _pack(outcomes)
        bare = [
            msgspec.structs.replace(
                o, memory=None if o.memory is None else msgspec.structs.replace(o.memory, value=b"")
            )
            for o in outcomes
        ]
        return _pack(bare)

    return record


def _store_edit(
    stored: Stored, expected_version: int | None, conditions: Conditions, now: int, place: str = ""
) -> Edit:
    draft, expires_at = stored.draft, stored.expires_at
    if expires_at is not UNSET:
        draft.expires_at = expires_at
    ahead = expires_at is None or (expires_at is not UNSET and expires_at > now)
    if ahead and expected_version is None and conditions is UNCONDITIONAL:
        return Edit(stored.namespace, stored.key, lambda _current, _config: draft)
    check = version_check(stored.namespace, stored.key, expected_version, conditions)

    def decide(current: Memory | None, config: NamespaceConfig) -> Decision:
        check_ahead(expires_at, now, f"{place}expires_at")
        check(current)
        if expires_at is UNSET:
            draft.expires_at = inherited_expiry(config, now)
        return draft

    return Edit(stored.namespace, stored.key, decide)


def version_check(
    namespace: str, key: str, expected: int | None, conditions: Conditions = UNCONDITIONAL
) -> Callable[[Memory | None], None]:
    """What refuses a memory (None: there is none) that is not at the version which the caller named.

    It raises VersionConflictError and AlreadyExistsError.
    """

    def check(current: Memory | None) -> None:
        version = 0 if current is None else current.version
        if conditions.create_only and current is not None:
            raise AlreadyExistsError(
                "There is a memory of that key already",
                precondition=True,
                namespace=namespace,
                key=key,
                current_version=version,
            )
        if conditions.version is not None and (version == 0 or conditions.version not in {0, version}):
            raise VersionConflictError(namespace, key, conditions.version, version, precondition=True)
        if expected is not None and expected != version:
            raise VersionConflictError(namespace, key, expected, version)

    return check


def _one_namespace(in_body: str | None, beside: str) -> str:
    if in_body is not None and beside not in {DEFAULT_NAMESPACE, in_body}:
        raise InvalidInputError("namespace", "The namespace is named twice, differently")
    return in_body if in_body is not None else beside


def _reach(
    principal: Principal, asked: ListQuery | ExactQuery | UpdateWhereRequest | DeleteWhereRequest
) -> tuple[tuple[str, ...], bool]:
    namespace = None if asked.namespace is None else check_namespace(asked.namespace)
    return principal.reach(namespace, recursive=asked.recursive)


def _tags(tags: Sequence[str] | None) -> list[Filter]:
    return [Comparison(_TAGS, Op.CONTAINS, tag) for tag in check_tags(list(tags), "tags", Limits())] if tags else []


def _selectable(name: str, argument: str) -> Field:
    try:
        return parse_field(name)
    except InvalidInputError as error:
        raise InvalidInputError(argument, error.detail, hint=error.hint) from None


def shown(field: Field, memory: Memory) -> Any:
    """A field of a memory as an answer shows it, null where it is missing."""
    held = resolve(field, memory)
    if held is MISSING:
        return None
    if field.kind is Kind.INSTANT:
        return to_rfc3339(held)
    return held.hex() if field.kind is Kind.HASH else held
