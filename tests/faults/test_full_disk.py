"""A disk without room: stores are refused, nothing that was acknowledged is lost, and work goes on once there is room.

On a real small tmpfs, which needs root, and on a simulated disk with a quota, which needs nothing.
"""

import asyncio
import os
import random
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from msgspec import Raw

from tests.faults.callers import Asks, Bench, Caller, look_after, prepare
from tests.faults.clients import Client, Inside
from tests.faults.conftest import SmallDisk, Start
from tests.faults.directories import check_is_clean, opened
from tests.faults.disk import Event, disk
from unified_memory.app import make_app
from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import StorageError, StorageFullError
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.requests import ListQuery, SearchQuery, StoreRequest
from unified_memory.service.service import Service
from unified_memory.settings import load

MIB = 2**20
CALLERS = 8


class Quota:
    """The hook of a disk that has room for so many bytes of the database's files."""

    def __init__(self, room: int) -> None:
        self.room = room
        self._sizes: dict[str, int] = {}

    def __call__(self, event: Event, perform: Callable[[bytes], None]) -> None:
        have = self._sizes.get(event.path, 0)
        if event.call == "write":
            need = max(have, event.at + len(event.data))
            if sum(self._sizes.values()) - have + need > self.room:
                raise apsw.FullError("no room")
            self._sizes[event.path] = need
        perform(event.data)
        if event.call in {"truncate", "delete"}:
            self._sizes[event.path] = event.at


async def fill(bench: Bench, connect: Callable[[], Client | Inside]) -> None:
    """All callers at once, until each was refused."""
    async with asyncio.TaskGroup() as group:
        for number in range(CALLERS):
            group.create_task(Caller(bench, number, connect()).run())


async def works_without_room(client: Asks) -> None:
    """Reads answer as ever; a large store is refused in the words of the interface."""
    assert (await client.ask("POST", "/search", {"query": "fern"})).body["results"]
    assert (await client.ask("GET", "/list?limit=10")).body["memories"]
    refused = await client.ask("POST", "/store", {"key": "large", "value": "-" * 4 * MIB})
    assert (refused.status, refused.body["code"]) == (507, "storage_full")
    assert (await client.ask("GET", "/retrieve/large")).status == 404


async def works_again(client: Asks) -> None:
    stored = await client.ask("POST", "/store", {"key": "large", "value": "-" * 4 * MIB})
    assert (stored.status, stored.body["version"]) == (200, 1)
    assert (await client.ask("DELETE", "/delete/large")).status == 200


async def test_a_full_disk_answers_507_keeps_what_was_acknowledged_and_goes_on_once_it_has_grown(
    rng: random.Random, small_disk: SmallDisk, start: Start
) -> None:
    bench = Bench(rng)
    runner = await start("serve", small_disk.path)
    port = await runner.port()
    client = Client(port)
    await prepare(bench, client)
    for _ in range(3):
        await fill(bench, lambda: Client(port))
        await look_after(bench, client)
    await works_without_room(client)
    sys.stdout.write(f"{bench.ledger.acknowledged} writes acknowledged before it was full\n")

    small_disk.resize(64 * MIB)
    await works_again(client)
    await look_after(bench, client)
    await check_is_clean(small_disk.path)
    await client.close()


@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGTERM])
async def test_a_service_that_was_stopped_on_a_full_disk_starts_there_again(
    stop: signal.Signals, rng: random.Random, small_disk: SmallDisk, start: Start
) -> None:
    bench = Bench(rng)
    runner = await start("serve", small_disk.path)
    port = await runner.port()
    client = Client(port)
    await prepare(bench, client)
    await fill(bench, lambda: Client(port))
    await client.close()
    runner.signal(stop)
    assert await runner.end() in {-stop, 0}, runner.said
    # Nothing is left of what a stop may have freed.
    crowd(small_disk.path)

    runner = await start("serve", small_disk.path)
    client = Client(await runner.port())
    await works_without_room(client)
    await look_after(bench, client)
    small_disk.resize(64 * MIB)
    await works_again(client)
    await look_after(bench, client)
    await client.close()
    await check_is_clean(small_disk.path)


def crowd(directory: Path) -> None:
    """Something else takes all the room that there is."""
    with (directory / "something else").open("ab", buffering=0) as other:
        try:
            while True:
                other.write(bytes(4096))
        except OSError:
            return


async def test_a_directory_cannot_be_made_on_a_full_disk_and_can_once_there_is_room(small_disk: SmallDisk) -> None:
    crowd(small_disk.path)
    with pytest.raises(StorageError):
        async with opened(small_disk.path):
            pass
    os.truncate(small_disk.path / "something else", 0)
    async with opened(small_disk.path) as service:
        await service.memories.store(ANONYMOUS, StoreRequest(Raw(b"1"), "key"))
    await check_is_clean(small_disk.path)


@pytest.mark.parametrize("room", [1_000_000, 1_500_000, 4_000_000])
async def test_without_root_too_a_full_disk_loses_nothing_and_goes_on_once_there_is_room(
    room: int, rng: random.Random, tmp_path: Path
) -> None:
    quota = Quota(room + rng.randint(0, 100_000))
    bench = Bench(rng)
    with disk(quota):
        async with opened(tmp_path) as service:
            app = make_app(service, load({}))
            client = Inside(app)
            await prepare(bench, client)
            for _ in range(4):
                await fill(bench, lambda: Inside(app))
                await look_after(bench, client)
                quota.room += rng.randint(0, 100_000)
            await works_without_room(client)
            quota.room = 64 * MIB
            await works_again(client)
            await look_after(bench, client)
            assert await service.upkeep.check(fix=False) == []
    assert bench.ledger.acknowledged >= 10
    await check_is_clean(tmp_path)


@pytest.mark.parametrize(
    ("file", "call", "chance"),
    [("wal", "write", 0.01), ("wal", "sync", 0.3), ("db", "write", 0.02), ("db", "sync", 0.3)],
)
async def test_a_disk_that_fails_now_and_then_loses_nothing_that_was_acknowledged(
    file: str, call: str, chance: float, rng: random.Random, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unified_memory.storage.sqlite.writer.CHECKPOINT_PAGES", 30)
    failing = False
    failed = 0

    def hook(event: Event, perform: Callable[[bytes], None]) -> None:
        nonlocal failed
        # The first one fails for certain: there may be few.
        if failing and (event.file, event.call) == (file, call) and (not failed or rng.random() < chance):
            failed += 1
            raise apsw.IOError("the disk failed")
        perform(event.data)

    acknowledged: dict[str, bytes] = {}
    refused: set[str] = set()

    async def one(service: Service, key: str) -> None:
        value = b'"%b"' % (b"-" * rng.choice((10, 20_000)))
        try:
            await service.memories.store(ANONYMOUS, StoreRequest(Raw(value), key))
        except StorageError:
            refused.add(key)
        else:
            acknowledged[key] = value

    with disk(hook):
        async with opened(tmp_path) as service:
            failing = True
            for i in range(30):
                await asyncio.gather(*(one(service, f"{i}/{n}") for n in range(4)))
            failing = False
            await service.memories.store(ANONYMOUS, StoreRequest(Raw(b"1"), "after"))
            for key, value in acknowledged.items():
                assert (await service.memories.retrieve(ANONYMOUS, "default", key)).value == value
            found = await service.storage.get_many([("default", key) for key in refused], service.clock.now())
            assert not any(found), "It was told that nothing was done"
            assert await service.upkeep.check(fix=False) == []
    assert failed
    assert acknowledged
    await check_is_clean(tmp_path)


async def fill_to_the_limit(service: Service) -> list[str]:
    keys: list[str] = []
    while len(keys) < 1000:
        await service.upkeep.flush()
        for _ in range(10):
            key = str(len(keys))
            ttl = 100 if len(keys) % 2 else None
            try:
                await service.memories.store(ANONYMOUS, StoreRequest(Raw(b'"word %b"' % (b"-" * 40_000)), key, ttl=ttl))
            except StorageFullError:
                return keys
            keys.append(key)
    raise AssertionError("The limit was never reached")


async def test_at_the_storage_limit_stores_are_refused_and_reads_and_deletes_work(tmp_path: Path) -> None:
    limit = 6 * MIB
    async with opened(tmp_path, storage_limit=limit) as service:
        keys = await fill_to_the_limit(service)
        assert len(keys) >= 50
        size = await service.storage.size()
        assert size is not None
        assert 0.9 * limit < size < 1.3 * limit
        client = Inside(make_app(service, load({})))
        for method, path, body in (
            ("POST", "/store", {"value": 1}),
            ("POST", "/store/batch", {"memories": [{"value": 1}]}),
            ("PUT", f"/update/{keys[0]}", {"value": 1}),
            ("PATCH", f"/update/{keys[0]}", {"merge": {"a": 1}}),
            ("POST", "/move", {"from": {"key": keys[0]}, "to": {"key": "moved"}}),
        ):
            reply = await client.ask(method, path, body)
            assert (reply.status, reply.body["code"]) == (507, "storage_full"), (method, path, reply)
        health = await client.ask("GET", "/health/ready")
        assert (health.status, health.body["status"]) == (200, "degraded")
        assert (await service.memories.list_all(ANONYMOUS, ListQuery(limit=1000))).memories
        assert (await service.searching.search(ANONYMOUS, SearchQuery("word"))).hits
        assert (await client.ask("DELETE", f"/delete/{keys[0]}")).status == 200
        assert (await client.ask("POST", "/delete/batch", {"keys": [{"key": keys[1]}]})).status == 200
        assert await service.upkeep.check(fix=False) == []


async def test_below_the_storage_limit_again_after_deletes_and_a_cleanup_stores_work_again(tmp_path: Path) -> None:
    clock = SettableClock()
    async with opened(tmp_path, clock, storage_limit=6 * MIB) as service:
        keys = await fill_to_the_limit(service)
        for key in keys[::2]:
            await service.memories.delete(ANONYMOUS, "default", key)
        clock.advance(1000)
        async for _ in service.upkeep.cleanup():
            pass
        await service.memories.store(ANONYMOUS, StoreRequest(Raw(b"1"), "again"))
        assert await service.upkeep.check(fix=False) == []


async def test_a_cleanup_gives_the_room_of_what_it_removed_back(tmp_path: Path) -> None:
    clock = SettableClock()
    async with opened(tmp_path, clock) as service:
        for i in range(100):
            await service.memories.store(ANONYMOUS, StoreRequest(Raw(b'"%b"' % (b"-" * 50_000)), str(i), ttl=1))
        clock.advance(1)
        async for _ in service.upkeep.cleanup():
            pass
    # Closed, so that nothing waits in the log.
    with apsw.Connection(str(tmp_path / "unified-memory.db")) as connection:
        pages, free = (connection.pragma(name) for name in ("page_count", "freelist_count"))
    connection.close()
    assert free < 0.2 * pages, f"{free} of {pages} pages are free"
