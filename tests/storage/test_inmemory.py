from collections.abc import AsyncIterator

import pytest
from msgspec import structs

from tests.storage.contract import StorageContract
from tests.storage.drafts import NOW, found, store
from unified_memory.storage.base import Storage
from unified_memory.storage.inmemory import InMemoryStorage


class TestInMemoryStorage(StorageContract):
    @pytest.fixture
    async def storage(self) -> AsyncIterator[Storage]:
        storage = InMemoryStorage()
        await storage.open()
        yield storage
        await storage.close()

    async def test_a_check_finds_what_disagrees_and_mends_what_is_derived(self) -> None:
        storage = InMemoryStorage()
        memory = await store(storage, "k", "value")
        broken = structs.replace(memory, value=b'"other"')
        storage._records["default", "k"] = structs.replace(storage._records["default", "k"], memory=broken)  # noqa: SLF001 - the damage
        storage._refs[99] = ("default", "none")  # noqa: SLF001
        assert [problem.fixed for problem in await storage.check(fix=False)] == [False, False]
        assert [problem.fixed for problem in await storage.check(fix=True)] == [True, True]
        assert await storage.check(fix=False) == []
        assert await found(storage, "other") == ["k"]

    async def test_a_check_tells_a_damaged_record_and_never_drops_it(self) -> None:
        storage = InMemoryStorage()
        memory = await store(storage, "k", "value")
        broken = structs.replace(memory, value=b"[1,")
        storage._records["default", "k"] = structs.replace(storage._records["default", "k"], memory=broken)  # noqa: SLF001 - the damage
        for fix in (True, False):
            assert [problem.fixed for problem in await storage.check(fix=fix)] == [False]
        assert await storage.get("default", "k", NOW) == broken
