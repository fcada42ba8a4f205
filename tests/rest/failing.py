"""A storage in memory that fails when it is told to, as a full or busy disk would."""

from typing import Any

from unified_memory.model import errors
from unified_memory.storage.base import Storage
from unified_memory.storage.inmemory import InMemoryStorage

_FAILING = Storage.__abstractmethods__ - {"open", "close"}


class FailingStorage(InMemoryStorage):
    """Every method raises `failure` while there is one."""

    failure: Exception | None = None

    def __getattribute__(self, name: str) -> Any:
        if name in _FAILING and (failure := object.__getattribute__(self, "failure")) is not None:

            async def fail(*_: Any, **__: Any) -> Any:
                raise failure

            return fail
        return super().__getattribute__(name)


def storage_failures() -> dict[str, Exception]:
    """What can befall a storage, by the code that the caller is told."""
    told = [
        errors.StorageError("The storage failed"),
        errors.StorageFullError(),
        errors.StorageBusyError("Too much is waiting", retry_after=7),
        errors.StorageCorruptError("A page is damaged"),
    ]
    return {**{error.code: error for error in told}, "internal_error": RuntimeError("a fault of ours")}
