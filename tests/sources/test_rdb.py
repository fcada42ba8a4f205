"""Dump files of Redis: read as a server wrote them, and written so that a server reads them."""

import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from redis import asyncio as aredis

from tests.storage.hot.servers import Server
from unified_memory.model.errors import SourceError, SourceUnavailableError
from unified_memory.sources import rdb
from unified_memory.sources.rdb import Change, Dump

KIND = "test"
FAR = 4_000_000_000_000
FOX = b"the quick brown fox jumps over the lazy dog, again and again; " * 40


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    made = Server(tmp_path / "server", "--enable-debug-command", "yes")
    await made.start()
    yield made
    await made.kill()


def client_of(server: Server, database: int) -> Any:
    return aredis.Redis(host="127.0.0.1", port=server.port, db=database)


async def fill(server: Server) -> None:
    """Keys of every type, small and large, so that every encoding is there that this server writes."""
    many = 700
    for database in (0, 3, 9):
        client = client_of(server, database)
        await client.set("text", "short")
        await client.set("empty", "")
        await client.set("long", FOX)
        await client.set("bytes", bytes(range(256)) * 70)
        await client.set("raw", b"".join(struct.pack("<I", number * 2_654_435_761 % 2**32) for number in range(5000)))
        for number in (0, 127, -129, 40_000, -70_000, 2**31, 10**12):
            await client.set(f"number {number}", number)
        await client.set("4711", "an integer for a key")
        await client.set("key " + "k" * 300, "a compressed key", px=10**12)
        await client.set("expires", "later", pxat=FAR)
        small = [b"a", b"", b"-1", b"5", b"300", b"-5000", b"100000", b"-9000000", b"123456789012", b"x" * 70, FOX]
        await client.rpush("list", *small)
        await client.rpush("long list", *[f"element {number} " * 9 for number in range(many)])
        await client.rpush("wide list", b"w" * 100_000, "narrow", 7)
        await client.rpush("one", *range(-20, 5000, 97))
        await client.sadd("integers", *range(40))
        await client.sadd("words", "a", "b", 3)
        await client.sadd("many words", *[f"word {number}" for number in range(many)])
        await client.hset("hash", mapping={"a": 1, "b": FOX})
        await client.hset("large hash", mapping={f"field {number}": number for number in range(many)})
        await client.hset("fading hash", mapping={f"field {number}": number for number in range(3)})
        await client.execute_command("HPEXPIREAT", "fading hash", FAR, "FIELDS", 1, "field 1")
        await client.zadd("scores", {"a": 1.5, "b": float("inf"), "c": float("-inf")})
        await client.zadd("many scores", {f"member {number}": number / 7 for number in range(many)})
        for number in range(300):
            await client.xadd("stream", {"n": number, "text": "x" * 40})
        await client.xgroup_create("stream", "group", id="0")
        await client.xreadgroup("group", "consumer", {"stream": ">"}, count=5)
        await client.pfadd("estimate", *range(100))
        await client.aclose()


async def keys_of(server: Server, database: int) -> dict[bytes, tuple[bytes, int]]:
    """Each key, a digest of what it holds, and when it expires."""
    client = client_of(server, database)
    found = {
        key: ((await client.execute_command("DEBUG", "DIGEST-VALUE", key))[0], await client.pexpiretime(key))
        async for key in client.scan_iter(count=1000)
    }
    await client.aclose()
    return found


async def saved(server: Server) -> Dump:
    await server.do("SAVE")
    return Dump(server.directory / "dump.rdb", KIND)


async def test_every_key_of_every_database_is_found(server: Server) -> None:
    await fill(server)
    await server.do("FUNCTION", "LOAD", "#!lua name=f\nredis.register_function('f', function() return 1 end)")
    for eviction in ("noeviction", "allkeys-lfu", "allkeys-lru"):
        await server.do("CONFIG", "SET", "maxmemory-policy", eviction)
        dump = await saved(server)
        entries = list(dump.entries(lambda _: True))
        assert "valkey-ver" in dump.about or "redis-ver" in dump.about
        for database in (0, 3, 9):
            there = await keys_of(server, database)
            mine = {entry.key: entry for entry in entries if entry.database == database}
            assert set(mine) == set(there)
            client = client_of(server, database)
            for key, entry in mine.items():
                assert (entry.expires_at or -1) == there[key][1]
                if entry.is_list:
                    assert entry.value == await client.lrange(key, 0, -1)
                elif entry.type == rdb.STRING:
                    assert entry.value == await client.get(key)
                else:
                    assert entry.value is None
            await client.aclose()


async def test_lists_and_texts_are_read_by_their_place_too(server: Server) -> None:
    await fill(server)
    dump = await saved(server)
    token = dump.token()
    entries = list(dump.entries(lambda _: True))
    placed = list(dump.entries(lambda _: False))
    assert all(entry.value is None for entry in placed)
    read = [dump.value(entry, token) for entry in placed if entry.is_list or entry.type == rdb.STRING]
    assert read == [entry.value for entry in entries if entry.value is not None]
    await server.do("SET", "more", 1)
    await saved(server)
    with pytest.raises(SourceUnavailableError):
        dump.value(placed[0], token)


@pytest.mark.parametrize("eviction", ["noeviction", "allkeys-lfu"])
async def test_a_file_written_anew_is_read_by_a_server(server: Server, eviction: str) -> None:
    await fill(server)
    await server.do("CONFIG", "SET", "maxmemory-policy", eviction)
    before = {database: await keys_of(server, database) for database in (0, 3, 9)}
    dump = await saved(server)
    await server.kill()
    dump.rewrite(
        {
            (0, b"text"): Change(b"changed"),
            (0, b"long"): Change(None),
            (3, b"expires"): Change(b"still later", keeps_expiry=True),
            (3, b"key " + b"k" * 300): Change(b"for ever"),
            (3, b"list"): Change([b"x", FOX, b"12"]),
            (9, b"new"): Change(b"n" * 20_000, expires_at=FAR),
            (9, b"new list"): Change([b"a"] * 70),
            (9, b"4711"): Change(b"seven", keeps_expiry=True),
            (12, b"far"): Change(b"away"),
            (5, b"none"): Change(None),
        },
        dump.token(),
    )
    await server.start()
    after = {database: await keys_of(server, database) for database in (0, 3, 9, 12)}
    changed = {0: {b"text"}, 3: {b"expires", b"key " + b"k" * 300, b"list"}, 9: {b"4711"}}
    for database, keys in changed.items():
        for key, held in before[database].items():
            if key not in keys and (database, key) != (0, b"long"):
                assert after[database][key] == held
    assert len(after[0]) == len(before[0]) - 1
    assert set(after[9]) - set(before[9]) == {b"new", b"new list"}
    assert set(after[12]) == {b"far"}
    client = client_of(server, 3)
    assert await client.get("expires") == b"still later"
    assert await client.pexpiretime("expires") == FAR
    assert await client.pexpiretime("key " + "k" * 300) == -1
    assert await client.lrange("list", 0, -1) == [b"x", FOX, b"12"]
    await client.aclose()
    client = client_of(server, 9)
    assert await client.pexpiretime("new") == FAR
    assert await client.lrange("new list", 0, -1) == [b"a"] * 70
    assert await client.get("4711") == b"seven"
    await client.aclose()


async def test_without_changes_it_is_the_same_byte_for_byte(server: Server) -> None:
    await fill(server)
    dump = await saved(server)
    path = server.directory / "dump.rdb"
    path.chmod(0o640)
    before = path.read_bytes()
    dump.rewrite({}, dump.token())
    assert path.read_bytes() == before
    assert path.stat().st_mode & 0o777 == 0o640
    assert [one.name for one in server.directory.iterdir() if "rdb" in one.name] == ["dump.rdb"]


async def test_damage_is_found_before_anything_is_told(server: Server) -> None:
    await fill(server)
    await saved(server)
    path = server.directory / "dump.rdb"
    whole = path.read_bytes()
    for place in (100, len(whole) // 2, len(whole) - 20, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(SourceError, match="damaged"):
            next(Dump(path, KIND).entries(lambda _: True))
    for size in (0, 5, 9, 40, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(SourceError):
            list(Dump(path, KIND).entries(lambda _: True))


async def test_a_file_without_a_checksum_is_read(server: Server) -> None:
    await fill(server)
    await saved(server)
    path = server.directory / "dump.rdb"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8] + bytes(8))
    count = len(list(Dump(path, KIND).entries(lambda _: False)))
    assert count == sum([len(await keys_of(server, database)) for database in (0, 3, 9)])
    path.write_bytes(whole[:-500] + bytes(8))
    with pytest.raises(SourceError):
        list(Dump(path, KIND).entries(lambda _: True))


def dump_of(tmp_path: Path, body: bytes, magic: bytes = b"REDIS0009") -> Dump:
    path = tmp_path / "dump.rdb"
    content = magic + body + b"\xff"
    path.write_bytes(content + struct.pack("<Q", rdb.crc64(content)))
    return Dump(path, KIND)


def test_what_a_module_keeps_is_refused_with_a_hint(tmp_path: Path) -> None:
    for body in (b"\xfe\x00\x07\x01k\x81aaaaaaaa\x00", b"\xf7\x81aaaaaaaa\x00", b"\x06\x01kx"):
        with pytest.raises(SourceError, match="module") as raised:
            list(dump_of(tmp_path, body).entries(lambda _: True))
        assert "redis-server" in (raised.value.hint or "")
    with pytest.raises(SourceError, match="unknown type 99"):
        list(dump_of(tmp_path, b"\x63\x01k").entries(lambda _: True))


def test_encodings_of_older_servers_are_read(tmp_path: Path) -> None:
    elements = [
        b"\x00\x02hi",
        b"\x04\xfe\xf6",
        b"\x03\xf1",
        b"\x02\xc0\x00\x80",
        b"\x04\xf0\x00\x00\x80",
        b"\x05\xd0\xff\xff\xff\x7f",
        b"\x06\xe0\x00\x00\x00\x00\x00\x00\x00\x80",
        b"\x0a\x40\x50" + b"y" * 80,
        b"\xfe\x53\x00\x00\x00\x80\x00\x00\x00\x03abc",
    ]
    packed = struct.pack("<IIH", 0, 0, len(elements)) + b"".join(elements) + b"\xff"
    string = rdb._string(packed)  # noqa: SLF001 - what it writes itself is read by servers in other tests
    wanted = [b"hi", b"-10", b"0", b"-32768", b"-8388608", b"2147483647", b"-9223372036854775808", b"y" * 80, b"abc"]
    body = b"\x0a\x01a" + string + b"\x0e\x01b\x02" + string * 2 + b"\xfd\x10\x00\x00\x00\x01\x01c\x02\x01x\xc0\xfe"
    body += b"\x03\x01d\x03\x01x\x03inf\x01y\xfd\x01z\xfe" + b"\x09\x01e\x03\x00\xff\xff" + b"\x00\x01f\x01v"
    found = {entry.key: entry for entry in dump_of(tmp_path, body).entries(lambda _: True)}
    assert found[b"a"].value == wanted
    assert found[b"b"].value == wanted * 2
    assert found[b"c"].value == [b"x", b"-2"]
    assert found[b"c"].expires_at == 16_000
    assert found[b"f"].value == b"v"
    assert list(found) == [b"a", b"b", b"c", b"d", b"e", b"f"]


def test_hashes_with_expiring_fields_of_redis_are_stepped_over(tmp_path: Path) -> None:
    body = b"\x18\x01a" + bytes(8) + b"\x02\x00\x01f\x01v\x05\x01g\x01w" + b"\x19\x01b" + bytes(8) + b"\x02xx"
    found = [entry.key for entry in dump_of(tmp_path, body + b"\x00\x01c\x01v", b"REDIS0012").entries(lambda _: True)]
    assert found == [b"a", b"b", b"c"]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "dump.rdb"
    for content in (b"", b"SQLite format 3\0", b"REDISabcd", b"REDIS"):
        path.write_bytes(content)
        with pytest.raises(SourceError, match="no dump file"):
            Dump(path, KIND).verify()
    with pytest.raises(SourceError, match="cannot be used"):
        Dump(tmp_path / "none", KIND).verify()


def test_checksums_are_those_of_crc_64_jones() -> None:
    assert rdb.crc64(b"123456789") == 0xE9C6D914C4B8D9CA
    block = bytes(range(256)) * 4096
    by_pieces = 0
    for first in range(0, len(block), 999):
        by_pieces = rdb.crc64(block[first : first + 999], by_pieces)
    assert rdb.crc64(block) == by_pieces


@pytest.mark.parametrize(
    ("raw", "size", "said"),
    [(b"\x20\x00", 3, "before"), (b"\x00", 1, "length"), (b"\x00a\x20", 4, "early"), (b"\x00a", 2, "length")],
)
def test_a_text_that_is_compressed_wrongly_is_damage(raw: bytes, size: int, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rdb.decompress(raw, size)


def test_matches_that_overlap_themselves_are_repeated() -> None:
    assert rdb.decompress(b"\x01ab\xe0\x05\x01", 16) == b"ab" * 8
    assert rdb.decompress(b"\x02abc\x20\x02", 6) == b"abcabc"
    assert rdb.decompress(b"\x03abcd\x20\x03", 7) == b"abcdabc"
