"""Any number of processes on one directory: none is locked out, nothing is lost, one that hangs holds no other up for long."""

import asyncio
import contextlib
import fcntl
import json
import os
import random
import signal
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from msgspec import Raw

from tests.faults.clients import PATIENCE
from tests.faults.conftest import Start
from tests.faults.directories import DATABASE, check_is_clean, opened
from tests.faults.disk import Event, Point, disk
from tests.faults.processes import Runner
from tests.faults.runner import SHARED, Done
from unified_memory.bootstrap import build
from unified_memory.model.errors import (
    MemoryNotFoundError,
    NamespaceNotFoundError,
    StorageBusyError,
    VersionConflictError,
)
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.requests import BatchStoreRequest, StoreRequest
from unified_memory.service.service import Service
from unified_memory.settings import load
from unified_memory.storage.sqlite import writer

T = TypeVar("T")
PROCESSES = 8
STORES = 500
INCREMENTS = 50
# Far above what one store ever waited for seven others (some 50 ms), far below a writer that is starved.
LONGEST_WAIT = 5.0


async def store(service: Service, key: str, value: bytes = b"1", namespace: str = "default") -> Memory:
    outcome = await service.memories.store(ANONYMOUS, StoreRequest(Raw(value), key, namespace))
    assert outcome.memory is not None
    return outcome.memory


async def soon(awaited: Awaitable[T]) -> T:
    """Waits, far longer than it takes, and not for ever."""
    async with asyncio.timeout(PATIENCE / 4):
        return await awaited


async def there(service: Service, key: str, namespace: str = "default") -> bool:
    try:
        await service.memories.retrieve(ANONYMOUS, namespace, key)
    except MemoryNotFoundError:
        return False
    return True


async def test_eight_processes_with_500_stores_each_lose_none_and_wait_for_none_too_long(
    tmp_path: Path, start: Start, record_property: Callable[[str, object], None]
) -> None:
    async with opened(tmp_path) as service:
        await store(service, SHARED, b'{"n": 0}')
    runners: list[Runner] = [
        await start("store", tmp_path, name=f"process {i}", stores=STORES, increments=INCREMENTS, tasks=4)
        for i in range(PROCESSES)
    ]
    for runner in runners:
        await runner.line("ready")
    for runner in runners:
        runner.send("go")
    done = [await runner.told(Done) for runner in runners]
    slowest = [round(one.slowest * 1000) for one in done]
    record_property("slowest store of each process, ms", slowest)
    sys.stdout.write(f"slowest store of each process, ms: {slowest}\n")

    assert [error for one in done for error in one.errors] == []
    stored = [told for one in done for told in one.stored if told[2] != SHARED]
    ids, keys = {number for number, _, _ in stored}, {key for _, _, key in stored}
    assert len(stored) == len(ids) == len(keys) == PROCESSES * STORES
    every_seq = [seq for one in done for _, seq, _ in one.stored]
    assert len(every_seq) == len(set(every_seq)) == PROCESSES * (STORES + INCREMENTS)
    assert max(one.slowest for one in done) < LONGEST_WAIT

    async with opened(tmp_path) as service:
        found = await service.storage.get_many([("default", key) for _, _, key in stored], service.clock.now())
        assert [(m.id, m.seq, m.key) if m else None for m in found] == stored
        counter = await service.memories.retrieve(ANONYMOUS, "default", SHARED)
        assert (json.loads(counter.value), counter.version) == (
            {"n": PROCESSES * INCREMENTS},
            1 + PROCESSES * INCREMENTS,
        )
        assert (await service.upkeep.stats(ANONYMOUS, None)).memories == PROCESSES * STORES + 1
    await check_is_clean(tmp_path)


async def test_two_processes_that_make_one_directory_at_the_same_moment_both_work(tmp_path: Path, start: Start) -> None:
    runners = [await start("open many", tmp_path, name=name) for name in ("one", "other")]
    for runner in runners:
        await runner.line("ready")
    for i in range(10):
        directory = tmp_path / f"fresh {i}"
        for runner in runners:
            runner.send(str(directory))
        told = [await runner.told(dict[str, int | str]) for runner in runners]
        assert sorted(told, key=str) == [{"id": 1}, {"id": 2}]
        await check_is_clean(directory)


@asynccontextmanager
async def stopped_in_a_write(start: Start, directory: Path) -> AsyncIterator[Runner]:
    """A process that is stopped in the middle of a transaction, with all locks in its hands; at the end it goes on."""
    async with opened(directory) as service:
        await store(service, SHARED)
    runner = await start(
        "store",
        directory,
        name="stopped",
        stores=40,
        tasks=4,
        point=Point("wal", "write", 30, "before", signal.SIGSTOP),
    )
    await runner.line("ready")
    runner.send("go")
    await runner.line("reached")
    await runner.stopped()
    try:
        yield runner
    finally:
        runner.signal(signal.SIGCONT)


async def test_a_stopped_process_holds_up_writes_for_a_bounded_time_and_reads_not_at_all(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PATIENCE_SECONDS", 0.5)
    async with opened(tmp_path) as service, stopped_in_a_write(start, tmp_path) as stopped:
        with pytest.raises(StorageBusyError) as refused:
            await soon(store(service, "refused"))
        assert refused.value.retry_after > 0
        assert await there(service, SHARED)
        assert [m.key for m in (await service.storage.get_by_id([1], service.clock.now())) if m] == [SHARED]

        stopped.signal(signal.SIGCONT)
        done = await stopped.told(Done)
        assert done.errors == []
        await store(service, "after")
        assert not await there(service, "refused"), "It was told that nothing was done"
        found = await service.storage.get_many([("default", key) for _, _, key in done.stored], service.clock.now())
        assert [(m.id, m.seq, m.key) if m else None for m in found] == done.stored
    await check_is_clean(tmp_path)


@pytest.mark.parametrize("then", [signal.SIGCONT, signal.SIGKILL])
async def test_a_write_goes_on_as_soon_as_the_stopped_process_does_or_is_killed(
    then: signal.Signals, tmp_path: Path, start: Start
) -> None:
    async with opened(tmp_path) as service, stopped_in_a_write(start, tmp_path) as stopped:
        waiting = asyncio.create_task(store(service, "waiting"))
        assert not await there(service, "waiting")
        stopped.signal(then)
        await soon(waiting)
        assert await there(service, "waiting")
    await check_is_clean(tmp_path)


async def test_a_service_opens_and_closes_in_bounded_time_though_another_process_hangs(
    tmp_path: Path, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "PATIENCE_SECONDS", 0.5)
    async with stopped_in_a_write(start, tmp_path):
        service = build(load({}, data_dir=tmp_path))
        await soon(service.open())
        with pytest.raises(StorageBusyError):
            await soon(store(service, "refused"))
        await soon(service.close())
    await check_is_clean(tmp_path)


async def test_a_write_that_is_told_busy_was_not_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer, "PATIENCE_SECONDS", 0.2)
    stall, goes_on = threading.Event(), threading.Event()
    reached = threading.Event()

    def stalling(event: Event, perform: Callable[[bytes], None]) -> None:
        """A disk that takes its time for one sync."""
        if stall.is_set() and (event.file, event.call) == ("wal", "sync"):
            stall.clear()
            reached.set()
            goes_on.wait(PATIENCE)
        perform(event.data)

    with disk(stalling):
        async with opened(tmp_path) as service:
            await store(service, "before")
            stall.set()
            slow = asyncio.create_task(store(service, "slow"))
            await asyncio.to_thread(reached.wait, PATIENCE)
            # One that came later, so that it is known when the patience of the first was over.
            with pytest.raises(StorageBusyError):
                await store(service, "later")
            goes_on.set()
            (told,) = await asyncio.gather(slow, return_exceptions=True)
            # When a later write is there, nothing of an earlier one is still to come.
            await store(service, "after")
            assert not await there(service, "later"), "It was told that nothing was done"
            if await there(service, "slow"):
                assert isinstance(told, Memory), told
            else:
                assert isinstance(told, StorageBusyError)
    await check_is_clean(tmp_path)


@contextmanager
def writers_held_up(directory: Path) -> Iterator[None]:
    """No process gets to write meanwhile; what is asked for gathers."""
    held = os.open(directory / f"{DATABASE}-write", os.O_RDWR)
    try:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield
    finally:
        os.close(held)


async def test_a_namespace_that_another_process_deleted_is_not_written_to_even_after_a_refused_batch(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as other:
        await store(one, "a", namespace="doomed")
        with writers_held_up(tmp_path):
            first = asyncio.create_task(store(one, "first"))
            await asyncio.sleep(0)
            # These two share a transaction: the batch makes a namespace and is taken back, the store looks one up.
            batch = BatchStoreRequest(
                [StoreRequest(Raw(b"1"), "b", "fresh"), StoreRequest(Raw(b"1"), "first", expected_version=7)]
            )
            refused = asyncio.create_task(one.memories.store_batch(ANONYMOUS, batch))
            looked_up = asyncio.create_task(store(one, "b", namespace="doomed"))
            await asyncio.sleep(0)
        await asyncio.gather(first, looked_up)
        with pytest.raises(VersionConflictError):
            await refused
        await other.namespaces.delete(ANONYMOUS, "doomed", recursive=True, dry_run=False)
        await store(one, "c", namespace="doomed")
        assert await there(other, "c", "doomed"), "It was acknowledged"
    await check_is_clean(tmp_path)


async def test_processes_that_make_and_delete_namespaces_under_each_other_lose_nothing(
    rng: random.Random, tmp_path: Path
) -> None:
    async with opened(tmp_path) as one, opened(tmp_path) as other:

        async def refused_batch(service: Service, name: str) -> None:
            batch = [
                StoreRequest(Raw(b"1"), "x", f"fresh/{name}"),
                StoreRequest(Raw(b"1"), "x", "kept", expected_version=10**6),
            ]
            with pytest.raises(VersionConflictError):
                await service.memories.store_batch(ANONYMOUS, BatchStoreRequest(batch))

        async def delete(service: Service, namespace: str) -> None:
            with contextlib.suppress(NamespaceNotFoundError):
                await service.namespaces.delete(ANONYMOUS, namespace, recursive=True, dry_run=False)

        async def work(service: Service, name: str) -> list[str]:
            kept = []
            for i in range(50):
                shared = f"shared/{rng.randint(0, 2)}"
                match rng.choices(("refused", "delete", "store"), (1, 1, 3))[0]:
                    case "refused":
                        await refused_batch(service, f"{name}/{i}")
                    case "delete":
                        await delete(service, shared)
                    case _:
                        await store(service, f"{name}/{i}", namespace=shared)
                        kept.append(
                            (await store(service, f"{name}/{i}", namespace=f"kept/{rng.randint(0, 5)}")).namespace
                        )
            return kept

        workers = [(one, "a"), (one, "b"), (one, "c"), (other, "d"), (other, "e"), (other, "f")]
        kept = [
            namespace for told in await asyncio.gather(*(work(*worker) for worker in workers)) for namespace in told
        ]
        counts = {
            one.name: one.memories
            for one in (
                await one.namespaces.list_all(ANONYMOUS, prefix="kept", depth=None, limit=50, cursor=None)
            ).namespaces
        }
        assert counts == Counter(kept)
        everything = await one.namespaces.list_all(ANONYMOUS, prefix=None, depth=None, limit=1000, cursor=None)
        assert not [namespace.name for namespace in everything.namespaces if namespace.name.startswith("fresh")]
    await check_is_clean(tmp_path)
