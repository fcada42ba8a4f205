"""Storages that fail when they are told to, as a full or busy disk would."""

from typing import Any

from unified_memory.model import errors
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.service.migration import MemoryMigrationManager, Status
from unified_memory.service.reporting import Report
from unified_memory.service.service import Service
from unified_memory.storage.backup import Place
from unified_memory.storage.base import Storage
from unified_memory.storage.inmemory import InMemoryStorage
from unified_memory.storage.tiered import TieredStorage

_FAILING = Storage.__abstractmethods__ - {"open", "close"} | {"archives", "uses"}


class Failing:
    """Every method of the storage raises `failure` while there is one."""

    failure: Exception | None = None

    def __getattribute__(self, name: str) -> Any:
        if name in _FAILING and (failure := object.__getattribute__(self, "failure")) is not None:

            async def fail(*_: Any, **__: Any) -> Any:
                raise failure

            return fail
        return super().__getattribute__(name)


class FailingStorage(Failing, InMemoryStorage):
    """One tier."""


class FailingTiers(Failing, TieredStorage):
    """Several tiers."""


class FailingPlace(Place):
    """Every method of the place raises `failure` while there is one."""

    failure: Exception | None = None

    def __getattribute__(self, name: str) -> Any:
        if name in vars(Place) and not name.startswith("_"):
            failure = object.__getattribute__(self, "failure")
            if failure is not None:
                raise failure
        return super().__getattribute__(name)


class FailingMigration(MemoryMigrationManager):
    """Looking at it raises `failure`, as where its own files cannot be read."""

    failure: Exception | None = None

    async def status(self, principal: Principal) -> Status:
        if self.failure is not None:
            raise self.failure
        return await super().status(principal)

    async def report(self, principal: Principal = ANONYMOUS) -> Report:
        if self.failure is not None:
            raise self.failure
        return await super().report(principal)


def failing_migration(service: Service) -> FailingMigration:
    """One that takes the place of the service's own."""
    own = service.migration
    taking = FailingMigration(own.storage, own.clock, own.guard, own.backups, own.directory, own.points)
    service.migration = taking
    return taking


def storage_failures() -> dict[str, Exception]:
    """What can befall a storage, by the code that the caller is told."""
    told = [
        errors.StorageError("The storage failed"),
        errors.StorageFullError(),
        errors.StorageBusyError("Too much is waiting", retry_after=7),
        errors.StorageCorruptError("A page is damaged"),
        errors.ArchiveMissingError("20260102T030405Z-7f3a90c1d2e4b586.zar"),
    ]
    return {**{error.code: error for error in told}, "internal_error": RuntimeError("a fault of ours")}
