from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from hypothesis import settings

from tests.storage.machine import machine_of
from unified_memory.storage.base import Storage
from unified_memory.storage.inmemory import InMemoryStorage


@asynccontextmanager
async def _opened() -> AsyncIterator[Storage]:
    storage = InMemoryStorage()
    await storage.open()
    yield storage
    await storage.close()


TestMachineOnInMemoryStorage = machine_of(_opened).TestCase
TestMachineOnInMemoryStorage.settings = settings(max_examples=30, stateful_step_count=30, deadline=None)
