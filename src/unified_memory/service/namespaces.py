"""Namespaces: create, configure, list, delete."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct

from unified_memory.model.analysis import LANGUAGES
from unified_memory.model.clock import Clock
from unified_memory.model.errors import (
    InvalidInputError,
    NamespaceNotEmptyError,
    NamespaceNotFoundError,
    PermissionDeniedError,
)
from unified_memory.model.namespace import Namespace, NamespaceConfig, check_namespace
from unified_memory.model.principal import Principal
from unified_memory.model.query import MAX_LIMIT, Page, decode_cursor, encode_cursor
from unified_memory.service.guard import Guard
from unified_memory.storage.base import Storage

PURGE_CHUNK = 500
MAX_DESCRIPTION = 4096
MAX_HISTORY_KEEP = 100_000
MAX_HISTORY_DAYS = 36_500
_config = msgspec.json.Decoder(NamespaceConfig)


class NamespaceList(Struct):
    """A page of namespaces and the cursor of the next one."""

    namespaces: list[Namespace]
    next_cursor: str | None


class Deletion(Struct):
    """What went, or (dry run) would go; `tickets` are for `purge`."""

    namespace: str
    memories: int
    namespaces: int
    dry_run: bool
    tickets: list[int] = []


class Namespaces:
    """Every operation on namespaces."""

    def __init__(self, storage: Storage, clock: Clock, guard: Guard, limit: int) -> None:
        self._storage = storage
        self._clock = clock
        self._guard = guard
        self._limit = limit

    async def create(self, principal: Principal, name: str, config: Mapping[str, Raw] | None) -> Namespace:
        """Creates a namespace explicitly. Raises AlreadyExistsError, QuotaExceededError, InvalidInputError."""
        return await self._put(principal, check_namespace(name, "name"), config, create=True)

    async def configure(self, principal: Principal, name: str, config: Mapping[str, Raw]) -> Namespace:
        """Replaces a namespace's settings. Raises NamespaceNotFoundError, InvalidInputError."""
        return await self._put(principal, check_namespace(name), config, create=False)

    async def _put(
        self, principal: Principal, name: str, config: Mapping[str, Raw] | None, *, create: bool
    ) -> Namespace:
        if not principal.sees(name):
            raise PermissionDeniedError("Not allowed in this namespace", namespace=name)
        self._guard.check()
        settings = read_config(config or {})
        return await self._storage.put_namespace(name, settings, self._clock.now(), create=create, limit=self._limit)

    async def get(self, principal: Principal, name: str) -> Namespace:
        """The namespace with counts. Raises NamespaceNotFoundError."""
        check_namespace(name)
        found = await self._storage.get_namespace(name, self._clock.now()) if principal.sees(name) else None
        if found is None:
            raise NamespaceNotFoundError(name)
        return found

    async def list_all(
        self, principal: Principal, *, prefix: str | None, depth: int | None, limit: int, cursor: str | None
    ) -> NamespaceList:
        """Namespaces by name. `prefix`: a namespace, with all below it; `depth`: counted from there (from the root
        without a prefix), what is deeper is folded into its ancestor.
        """
        if not 1 <= limit <= MAX_LIMIT:
            raise InvalidInputError("limit", f"limit must be from 1 to {MAX_LIMIT}", limit=MAX_LIMIT)
        if depth is not None and depth < 1:
            raise InvalidInputError("depth", "depth must be at least 1")
        if prefix is not None:
            check_namespace(prefix, "prefix")
        listing = ("namespaces", prefix, depth)
        after = decode_cursor(cursor, *listing)
        levels = None if depth is None else depth + (prefix.count("/") + 1 if prefix else 0)
        page: Page[Namespace] = await self._storage.list_namespaces(
            principal.narrowed(prefix),
            self._clock.now(),
            depth=levels,
            limit=limit,
            after=None if after is None else str(after[0]),
        )
        return NamespaceList(page.items, encode_cursor(page.next, *listing))

    async def delete(self, principal: Principal, name: str, *, recursive: bool, dry_run: bool) -> Deletion:
        """Makes a namespace (with `recursive` all below it) disappear at once; `purge` then removes what it held.

        Raises NamespaceNotFoundError, NamespaceNotEmptyError.
        """
        check_namespace(name)
        if not principal.sees(name):
            raise NamespaceNotFoundError(name)
        now = self._clock.now()
        found = [one async for one in every_namespace(self._storage, (name,), now)]
        if not found:
            raise NamespaceNotFoundError(name)
        memories, below = sum(one.memories for one in found), sum(1 for one in found if one.name != name)
        deletion = Deletion(name, memories, len(found), dry_run)
        if dry_run:
            return deletion
        if not recursive and (memories or below):
            raise NamespaceNotEmptyError(name, memories, below)
        deletion.tickets = await self._storage.delete_namespace(name, now, recursive=recursive)
        return deletion

    async def purge(self, tickets: list[int]) -> AsyncIterator[int]:
        """Removes for good what deleted namespaces held, in chunks; yields how many memories each chunk removed."""
        for ticket in tickets:
            while gone := await self._storage.purge(ticket, self._clock.now(), PURGE_CHUNK):
                yield gone


async def every_namespace(storage: Storage, scopes: tuple[str, ...], now: int) -> AsyncIterator[Namespace]:
    """All namespaces in these subtrees, by name."""
    after: str | None = None
    while True:
        page = await storage.list_namespaces(scopes, now, depth=None, limit=MAX_LIMIT, after=after)
        for one in page.items:
            yield one
        if page.next is None:
            return
        after = str(page.next[0])


def read_config(config: Mapping[str, Raw]) -> NamespaceConfig:
    """Checks a namespace's settings. Raises InvalidInputError naming the field."""
    try:
        settings = _config.decode(msgspec.json.encode(config))
    except msgspec.ValidationError as error:
        raise InvalidInputError("config", f"config: {error}") from None
    for name in ("default_ttl", "max_memories", "max_bytes", "demote_after"):
        told: Any = getattr(settings, name)
        if isinstance(told, int | float) and not 0 < told < 10**15:
            raise InvalidInputError(
                f"config.{name}", f"config.{name} must be greater than 0", hint="null to switch it off"
            )
    for name, most in (("history_keep", MAX_HISTORY_KEEP), ("history_days", MAX_HISTORY_DAYS)):
        told = getattr(settings, name)
        if isinstance(told, int | float) and not 0 <= told <= most:
            raise InvalidInputError(
                f"config.{name}",
                f"config.{name} must be from 0 to {most}",
                hint="0 to keep no former versions, null for no limit",
                limit=most,
            )
    if settings.language is None:
        settings = msgspec.structs.replace(settings, language=UNSET)
    elif isinstance(settings.language, str) and settings.language not in LANGUAGES:
        raise InvalidInputError(
            "config.language",
            "config.language is not a language that is known",
            hint=f"One of {', '.join(LANGUAGES)}; null for that of the namespace above",
        )
    if isinstance(settings.description, str) and len(settings.description) > MAX_DESCRIPTION:
        raise InvalidInputError("config.description", f"config.description has more than {MAX_DESCRIPTION} characters")
    return settings
