"""A service in hand, and short ways to ask it."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from msgspec import Raw, Struct

from unified_memory.model.clock import SettableClock
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import DEFAULT_NAMESPACE
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.model.value import encode
from unified_memory.service.drafting import Limits
from unified_memory.service.requests import StoreRequest
from unified_memory.service.service import Service, assemble
from unified_memory.storage.base import Storage


def raw(value: Any) -> Raw:
    """Any Python value as JSON text; Raw as it is."""
    return value if isinstance(value, Raw) else Raw(encode(value))


def raws(values: dict[str, Any]) -> dict[str, Raw]:
    return {name: raw(value) for name, value in values.items()}


def storing(key: str | None, value: Any = "v", namespace: str = DEFAULT_NAMESPACE, **more: Any) -> StoreRequest:
    """A store request; `more` are its other members, `metadata` as Python values."""
    if "metadata" in more:
        more["metadata"] = raws(more["metadata"])
    return StoreRequest(value=raw(value), key=key, namespace=namespace, **more)


class Held(Struct):
    """A service, its storage and its clock."""

    service: Service
    storage: Storage
    clock: SettableClock

    async def store(self, key: str, value: Any = "v", namespace: str = DEFAULT_NAMESPACE, **more: Any) -> Memory:
        outcome = await self.service.memories.store(ANONYMOUS, storing(key, value, namespace, **more))
        assert outcome.memory is not None
        return outcome.memory

    async def retrieve(self, key: str, namespace: str = DEFAULT_NAMESPACE, principal: Principal = ANONYMOUS) -> Memory:
        return await self.service.memories.retrieve(principal, namespace, key)


@contextlib.asynccontextmanager
async def holding(
    storage: Storage, clock: SettableClock, limits: Limits | None = None, **settings: Any
) -> AsyncIterator[Held]:
    """A service over a storage, opened and closed."""
    service = assemble(storage, clock, limits, **settings)
    await service.open()
    try:
        yield Held(service, storage, clock)
    finally:
        await service.close()
