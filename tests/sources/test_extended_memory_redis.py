"""extended-memory's contexts in Redis: of a server and of its dump file, read and written back."""

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import redis

from tests.storage.hot.servers import Server, free_port
from unified_memory.model.clock import SECOND, from_rfc3339
from unified_memory.model.errors import InvalidInputError, SourceError, SourceUnavailableError
from unified_memory.sources.base import Back, Item, OlderSource, Options, Quarantined, Skipped
from unified_memory.sources.extended_memory_redis import ExtendedMemoryRedis
from unified_memory.sources.kinds import open_source
from unified_memory.sources.rdb import Dump

SHARED = Path(__file__).parents[3] / "shared" / "legacy" / "fixtures"
needs_fixtures = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"the fixtures of the older services are not there: {SHARED}"
)
P = "extended_memory"
FIRST, SECOND_ID, THIRD = (f"0000000{number}-1111-4222-8333-444444444444" for number in (1, 2, 3))
CREATED = "2025-07-01T12:00:00.250000+00:00"
FAR = from_rfc3339("2090-01-01") // 1000


class Place:
    """A server with what extended-memory writes; read and written back over its URL, or in its dump file."""

    def __init__(self, directory: Path, kind: str) -> None:
        self.server = Server(directory)
        self.kind = kind

    async def save(self, identifier: str, ttl: int | None = None, prefix: str = P, **parts: Any) -> None:
        """As its provider does, down to the order of commands; what is no text among the tags ends it there."""
        data = {
            "id": identifier,
            "content": "text",
            "importance_level": 5,
            "project_id": "general",
            "tags": [],
            "created_at": CREATED,
            "updated_at": CREATED.replace("250000", "250007"),
            **parts,
        }
        await self.server.do("SET", f"{prefix}:context:{identifier}", json.dumps(data), *(("EX", ttl) if ttl else ()))
        tags = data["tags"] if isinstance(data["tags"], list) else []
        lists = [f"{prefix}:project:{data['project_id']}:contexts"] if data["project_id"] else []
        for tag in tags:
            if not isinstance(tag, str):
                break
            lists.append(f"{prefix}:tag:{tag}:contexts")
        for name in lists:
            await self.server.do("LPUSH", name, identifier)
            if ttl:
                await self.server.do("EXPIRE", name, ttl)

    async def open(self, options: Options | None = None) -> ExtendedMemoryRedis:
        if self.kind == "server":
            return ExtendedMemoryRedis.open(self.server.url, options or Options())
        await self.server.do("SAVE")
        return ExtendedMemoryRedis.open(str(self.server.directory / "dump.rdb"), options or Options())

    async def put(self, *backs: Back, options: Options | None = None) -> list[str | None]:
        """What became of them; done again it changes nothing. Afterwards the server has what was written."""
        source = await self.open(options)
        first = source.put_back(backs)
        once = source.token()
        assert source.put_back(backs) == first
        if self.kind == "file":
            assert source.token() == once
            source.close()
            await self.server.kill()
            await self.server.start()
        else:
            assert self.changes(once) == self.changes(source.token())
            source.close()
        return [one.origin for one in first]

    @staticmethod
    def changes(token: object) -> object:
        assert isinstance(token, tuple)
        return token[2]

    async def data(self, identifier: str) -> Any:
        raw = await self.server.do("GET", f"{P}:context:{identifier}")
        return None if raw is None else json.loads(raw)

    async def ids(self, name: str) -> list[str]:
        return [one.decode() for one in await self.server.do("LRANGE", f"{P}:{name}:contexts", 0, -1)]

    async def expiry(self, name: str) -> Any:
        return await self.server.do("PEXPIRETIME", f"{P}:{name}")


@pytest.fixture(params=["server", "file"])
async def place(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path / "server", request.param)
    await made.server.start()
    await made.server.do("HSET", f"{P}:projects", "initialized", "true")
    yield made
    await made.server.kill()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    """One that is not started yet."""
    made = Server(tmp_path / "server")
    yield made
    await made.kill()


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Place]:
    made = Place(tmp_path / "server", "server")
    await made.server.start()
    yield made
    await made.server.kill()


def back(origin: str | None = None, content: str | None = "new", number: int = 77, **parts: Any) -> Back:
    created = from_rfc3339(CREATED)
    told = {"project": "general", "key": "k", "created_at": created, "updated_at": created + SECOND, **parts}
    return Back(
        origin=None if origin is None else f"context/{origin}",
        shape="context",
        number=number,
        content=content,
        value=json.dumps(content).encode(),
        **told,
    )


def check_against_manifest(found: Sequence[object]) -> None:
    manifest = json.loads((SHARED / "manifest.json").read_text())["em_redis"]
    items = {item.key: item for item in found if isinstance(item, Item)}
    assert not [one for one in found if isinstance(one, Quarantined)]
    unacknowledged = {record["id"]: record for record in manifest["stored_but_not_acknowledged"]}
    assert len(items) == manifest["contexts"] + len(unacknowledged)
    for record in manifest["records"] + list(unacknowledged.values()):
        item = items[record["id"]]
        assert item.origin == f"context/{record['id']}"
        assert item.facts["legacy_id"] == record["id"]
        assert item.project == record["project"]
        assert hashlib.sha256(json.loads(item.value).encode()).hexdigest() == record["sha256"]
        assert item.facts.get("legacy_tags", list(item.tags)) == record["tags"]
        assert item.tags == tuple(dict.fromkeys(t.strip().lower() for t in record["tags"] if isinstance(t, str)))
        assert item.facts.get("legacy_importance", item.importance) == record["importance"]
        assert item.facts["legacy_created_at"] == record["created_at"]
        assert item.created_at == from_rfc3339(record["created_at"])
        assert item.notes == ()
        if "updated_at" in record:
            assert item.updated_at == from_rfc3339(record["updated_at"])
            assert ("legacy_expires_at" in item.facts) == record["ttl"]
    acknowledged = [item for item in items.values() if item.key not in unacknowledged]
    assert Counter(item.project for item in acknowledged) == manifest["per_project"]
    told = Counter(json.dumps(item.facts.get("legacy_importance", item.importance)) for item in acknowledged)
    assert told == manifest["per_importance"]
    assert not {record["id"] for record in manifest["forgotten"]} & set(items)


@needs_fixtures
def test_the_dump_file_is_what_its_manifest_says() -> None:
    source = open_source("extended-memory-redis", str(SHARED / "extended_memory_redis" / "dump.rdb"))
    check_against_manifest(list(source.read()))
    survey = source.survey()
    assert survey.records == sum(survey.projects.values()) == 618
    source.close()


@needs_fixtures
async def test_a_server_on_that_file_is_the_same(server: Server) -> None:
    server.directory.mkdir()
    shutil.copy(SHARED / "extended_memory_redis" / "dump.rdb", server.directory / "dump.rdb")
    await server.start()
    source = open_source("extended-memory-redis", server.url)
    check_against_manifest(list(source.read()))
    assert source.survey().records == 618
    source.close()


@needs_fixtures
async def test_that_file_written_back_is_read_by_a_server(server: Server) -> None:
    server.directory.mkdir()
    path = server.directory / "dump.rdb"
    path.write_bytes((SHARED / "extended_memory_redis" / "dump.rdb").read_bytes())
    told = json.loads((SHARED / "extended_memory_redis" / "keys.json").read_text())["keys"]
    gone = next(name for name in told if name.startswith(f"{P}:context:"))
    source = open_source("extended-memory-redis", str(path))
    assert isinstance(source, OlderSource)
    (new, _) = source.put_back([back(project="new"), back(gone.rpartition(":")[2], None)])
    source.close()
    await server.start()
    place = Place(server.directory, "file")
    place.server = server
    assert (await place.data(str(new.origin).removeprefix("context/")))["content"] == "new"
    assert await place.data(gone.rpartition(":")[2]) is None
    data = json.loads(told[gone]["value"])
    touched = {gone, f"{P}:project:{data['project_id']}:contexts", *(f"{P}:tag:{tag}:contexts" for tag in data["tags"])}
    for name, key in told.items():
        if name in touched:
            continue
        if key["type"] == "string":
            assert (await server.do("GET", name)).decode() == key["value"]
        elif key["type"] == "list":
            assert [one.decode() for one in await server.do("LRANGE", name, 0, -1)] == key["value"]


async def test_odd_ones_are_carried_with_what_is_odd(place: Place) -> None:
    await place.save(FIRST, importance_level=float("nan"), project_id="", tags=[" Mixed ", "mixed", 5, "after"])
    await place.save(SECOND_ID, importance_level=10**30, project_id=None, tags="ab", more={"x": 1})
    await place.save(THIRD, content=[1, "two"], created_at="2025-07-01T12:00:00", updated_at=7, importance_level="8")
    source = await place.open()
    items = {item.key: item for item in source.read() if isinstance(item, Item)}
    survey = source.survey()
    source.close()
    first, second, third = (items[one] for one in (FIRST, SECOND_ID, THIRD))
    assert (first.project, first.tags, first.importance) == ("", ("mixed", "after"), 5)
    assert first.facts["legacy_tags"] == [" Mixed ", "mixed", 5, "after"]
    assert first.facts["legacy_importance"] == "nan"
    assert first.notes == ("importance_level is nan",)
    assert (second.project, second.tags, second.importance) == (None, ("a", "b"), 10)
    assert second.facts["legacy_importance"] == str(10**30)
    assert second.facts["legacy_members"] == {"more": {"x": 1}}
    assert second.notes == ("importance_level is an integer beyond 64 bits",)
    assert json.loads(third.value) == [1, "two"]
    assert third.created_at == from_rfc3339("2025-07-01T12:00:00")
    assert (third.updated_at, third.importance) == (None, 8)
    assert len(third.notes) == 3
    assert survey.records == 3
    assert survey.projects == {"": 1, "general": 1}


@pytest.mark.parametrize("number", range(10))
async def test_what_no_json_holds_is_quarantined_as_it_lies_there(place: Place, number: int) -> None:
    whole = {"id": FIRST, "content": "text", "importance_level": 5, "project_id": "p", "tags": []}
    raw, code = [
        (json.dumps({**whole, "content": "\ud800"}), "surrogate"),
        (json.dumps({**whole, "tags": ["\udfff"]}), "surrogate"),
        (json.dumps({**whole, "content": [float("inf")]}), "nan"),
        (json.dumps({**whole, "content": 2**64}), "huge"),
        (b'{"content": "\xff"}', "malformed"),
        ("no JSON", "malformed"),
        ("[" * 100_000, "unsupported"),
        (json.dumps({**whole, "content": json.loads("[" * 300 + "]" * 300)}), "unsupported"),
        ('{"id": 1}', "malformed"),
        (json.dumps({**whole, "project_id": 5}), "malformed"),
    ][number]
    assert isinstance(raw, str | bytes)
    await place.server.do("SET", f"{P}:context:{FIRST}", raw)
    source = await place.open()
    (found,) = source.read()
    assert isinstance(found, Quarantined)
    assert (found.origin, found.code) == (f"context/{FIRST}", code)
    assert found.raw == (raw if isinstance(raw, bytes) else raw.encode())
    assert source.lookup(found.origin) == found
    source.close()


async def test_what_is_no_context_is_told(place: Place) -> None:
    await place.save(FIRST, tags=["a"])
    await place.save(SECOND_ID, tags=["a", "b"])
    await place.server.do("DEL", f"{P}:context:{SECOND_ID}")
    await place.server.do("SADD", f"{P}:context:set", "x")
    await place.server.do("SET", "other:context:1", "x")
    await place.save(THIRD, prefix="another")
    source = await place.open()
    found = list(source.read())
    remarks = " ".join(source.survey().remarks)
    source.close()
    assert [one.origin for one in found if isinstance(one, Item)] == [f"context/{FIRST}"]
    skipped = {one.origin: one.reason for one in found if isinstance(one, Skipped)}
    assert set(skipped) == {
        "context/set",
        f"{P}:project:general:contexts",
        f"{P}:tag:a:contexts",
        f"{P}:tag:b:contexts",
    }
    assert "1 of its entries" in skipped[f"{P}:tag:a:contexts"]
    assert "3 entries of its indexes" in remarks
    assert "3 keys of its database begin otherwise" in remarks


async def test_another_prefix_is_asked_for_even_one_with_signs(place: Place) -> None:
    prefix = "a*[b]?\\c"
    await place.save(FIRST, prefix=prefix)
    await place.save(SECOND_ID, prefix="aX[b]?\\c")
    source = await place.open(Options(prefix=prefix))
    assert [one.origin for one in source.read()] == [f"context/{FIRST}"]
    source.close()


async def test_an_expiry_is_a_fact_unless_it_is_asked_for(place: Place) -> None:
    await place.save(FIRST)
    await place.server.do("PEXPIREAT", f"{P}:context:{FIRST}", FAR)
    source = await place.open()
    (item,) = source.read()
    assert isinstance(item, Item)
    assert item.expires_at is None
    assert item.facts["legacy_expires_at"] == "2090-01-01T00:00:00.000000Z"
    source.close()
    source = await place.open(Options(keep_ttl=True))
    (item,) = source.read()
    assert isinstance(item, Item)
    assert item.expires_at == FAR * 1000
    assert "legacy_expires_at" not in item.facts
    source.close()


async def test_lookup_and_find_know_an_id_alone(place: Place) -> None:
    await place.save(FIRST)
    source = await place.open()
    found = source.lookup(f"context/{FIRST}")
    assert isinstance(found, Item)
    assert list(source.read()) == [found]
    assert source.find("context", "elsewhere", FIRST) == f"context/{FIRST}"
    assert source.find("context", None, SECOND_ID) is None
    assert source.find("file", None, FIRST) is None
    assert source.lookup(f"context/{SECOND_ID}") is None
    assert source.lookup(FIRST) is None
    assert source.writable() is None
    source.close()
    source.close()


async def test_the_token_tells_a_change(place: Place) -> None:
    await place.save(FIRST)
    source = await place.open()
    before = source.token()
    assert before is not None
    assert source.token() == before
    await place.save(SECOND_ID)
    (await place.open()).close()
    assert source.token() != before
    assert isinstance(source.lookup(f"context/{SECOND_ID}"), Item)
    source.close()


async def test_more_than_a_page_is_read_once_each(place: Place) -> None:
    pieces = [(f"{P}:context:{number}", '{"content":"x"}') for number in range(3000)]
    await place.server.do("MSET", *[part for piece in pieces for part in piece])
    source = await place.open()
    assert sorted(int(one.key) for one in source.read() if isinstance(one, Item)) == list(range(3000))
    source.close()


async def test_a_new_context_is_as_its_provider_writes_it(place: Place) -> None:
    await place.save(FIRST, tags=["old"], ttl=1000)
    new = back(content="späť \x00", project="My_New-Project", tags=("Old", "b:c"), importance=9)
    (origin,) = await place.put(new)
    assert origin is not None
    identifier = origin.removeprefix("context/")
    raw = await place.server.do("GET", f"{P}:context:{identifier}")
    assert raw.decode() == json.dumps(
        {
            "id": identifier,
            "content": "späť \x00",
            "importance_level": 9,
            "project_id": "my new project",
            "tags": ["old", "b:c"],
            "created_at": CREATED,
            "updated_at": CREATED.replace(":00.25", ":01.25"),
        }
    )
    assert identifier[14] == "4"
    assert await place.ids("project:my new project") == [identifier]
    assert await place.ids("tag:old") == [identifier, FIRST]
    assert await place.ids("tag:b:c") == [identifier]
    assert await place.expiry(f"context:{identifier}") == -1
    # Else its index would be gone before it.
    assert await place.expiry("tag:old:contexts") == -1
    assert await place.expiry("project:general:contexts") > 0


async def test_several_of_the_same_content_stay_several(place: Place) -> None:
    origins = await place.put(back(number=1), back(number=2), back(number=3, expires_at=FAR * 1000))
    assert len(set(origins)) == 3
    assert await place.ids("project:general") == [str(one).removeprefix("context/") for one in reversed(origins)]
    assert await place.expiry(str(origins[2]).replace("/", ":")) == FAR


async def test_a_change_leaves_all_else_as_it_was(place: Place) -> None:
    await place.save(
        FIRST, importance_level="8", tags=[" Keep ", 5, "drop", "a\0b"], project_id="p", more=[1, 2.5], ttl=5000
    )
    await place.save(SECOND_ID, project_id="p", tags=["drop"])
    before = await place.expiry(f"context:{FIRST}")
    data = await place.data(FIRST)
    changed = back(FIRST, "new", project="p", tags=("keep", "add"), importance=8)
    assert await place.put(changed) == [f"context/{FIRST}"]
    after = await place.data(FIRST)
    updated = CREATED.replace(":00.25", ":01.25")
    assert after == {**data, "content": "new", "tags": [" Keep ", "a\0b", "add"], "updated_at": updated}
    assert list(after) == list(data)
    assert await place.expiry(f"context:{FIRST}") == before
    assert await place.ids("project:p") == [SECOND_ID, FIRST]
    assert await place.ids("tag:add") == [FIRST]
    assert await place.ids("tag: Keep ") == [FIRST]
    assert await place.ids("tag:drop") == [SECOND_ID]
    await place.put(back(FIRST, "new", project="q", tags=("keep", "add"), importance=2))
    assert (await place.data(FIRST))["importance_level"] == 2
    assert await place.ids("project:p") == [SECOND_ID]
    assert await place.ids("project:q") == [FIRST]


async def test_expiry_follows_where_it_was_taken_along(place: Place) -> None:
    await place.save(FIRST, ttl=5000)
    await place.put(back(FIRST, "text", expires_at=FAR * 1000))
    assert await place.expiry(f"context:{FIRST}") == FAR
    await place.put(back(FIRST, "text"))
    assert await place.expiry(f"context:{FIRST}") == FAR
    await place.put(back(FIRST, "text"), options=Options(keep_ttl=True))
    assert await place.expiry(f"context:{FIRST}") == -1


async def test_a_deletion_leaves_no_index_entry(place: Place) -> None:
    await place.save(FIRST, tags=["a", "b"])
    await place.save(SECOND_ID, tags=["a"])
    assert await place.put(back(FIRST, None), back(THIRD, None), back(None, None)) == [None, None, None]
    assert await place.data(FIRST) is None
    assert await place.ids("project:general") == [SECOND_ID]
    assert await place.ids("tag:a") == [SECOND_ID]
    assert await place.server.do("EXISTS", f"{P}:tag:b:contexts") == 0
    if place.kind == "file":
        entries = Dump(place.server.directory / "dump.rdb", "test").entries(lambda _: True)
        assert not [entry.key for entry in entries if entry.value == []]


async def test_what_a_scan_tells_twice_is_told_once(live: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(300):
        await live.server.do("SET", f"{P}:context:{number}", '{"content":"x"}')
    source = await live.open()
    scan = redis.Redis.scan
    before: list[Any] = []

    def scanned(client: Any, cursor: int, **options: Any) -> Any:
        following, found = scan(client, cursor, **{**options, "count": 20})
        told = [*before, *found]
        before[:] = found
        return following, told

    monkeypatch.setattr(redis.Redis, "scan", scanned)
    keys = [one.key for one in source.read() if isinstance(one, Item)]
    assert sorted(keys) == sorted(str(number) for number in range(300))
    source.close()


async def test_what_comes_while_it_is_read_is_not_taken_for_lost(live: Place) -> None:
    await live.save(FIRST)
    source = await live.open()
    reading = source.read()
    assert isinstance(next(reading), Item)
    await live.save(SECOND_ID)
    assert list(reading) == []
    source.close()


async def test_a_context_that_changes_under_it_is_looked_at_again(live: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    await live.save(FIRST)
    source = await live.open()
    multi = redis.client.Pipeline.multi
    left = 3

    def beginning(pipeline: Any) -> None:
        nonlocal left
        if left:
            left -= 1
            with redis.Redis.from_url(live.server.url) as other:
                other.set(f"{P}:context:{FIRST}", json.dumps({"id": FIRST, "content": "theirs", "left": left}))
        multi(pipeline)

    monkeypatch.setattr(redis.client.Pipeline, "multi", beginning)
    source.put_back([back(FIRST, "ours")])
    assert (await live.data(FIRST)).items() >= {"content": "ours", "left": 0}.items()
    left = 1000
    with pytest.raises(SourceUnavailableError, match="changes all the time"):
        source.put_back([back(FIRST, "ours again")])
    source.close()


async def test_a_save_that_ended_half_way_is_indexed_by_the_next_change(place: Place) -> None:
    await place.save(FIRST, tags=["a", 5, "after"])
    assert await place.ids("tag:after") == []
    await place.put(back(FIRST, "text", tags=("a", "after", "b")))
    assert (await place.data(FIRST))["tags"] == ["a", "after", "b"]
    assert await place.ids("tag:after") == await place.ids("tag:b") == await place.ids("tag:a") == [FIRST]


async def test_one_that_is_gone_comes_back_as_it_was(place: Place) -> None:
    await place.save(FIRST, tags=["Mixed", " b "], importance_level="abc", project_id="")
    before = await place.data(FIRST)
    source = await place.open()
    (item,) = source.read()
    source.close()
    assert isinstance(item, Item)
    await place.server.do("FLUSHALL")
    again = back(
        FIRST,
        "text",
        project="",
        tags=item.tags,
        importance=item.importance,
        facts=item.facts,
        updated_at=item.updated_at or 0,
    )
    assert await place.put(again) == [f"context/{FIRST}"]
    assert await place.data(FIRST) == before
    assert await place.ids("tag:Mixed") == [FIRST]


async def test_all_that_was_read_put_back_changes_nothing(place: Place) -> None:
    await place.save(FIRST, importance_level=float("inf"), project_id=None, tags="ab", content=[1], ttl=500)
    await place.save(SECOND_ID, importance_level=None, tags=["X", 5, "x", "y"])
    source = await place.open()
    token = source.token()
    backs = [
        back(
            item.key,
            json.loads(item.value) if item.value.startswith(b'"') else item.value.decode(),
            project=item.project,
            tags=item.tags,
            importance=item.importance,
            facts=item.facts,
        )
        for item in source.read()
        if isinstance(item, Item)
    ]
    for one in backs:
        one.value = one.value if one.content == "text" else b"[1]"
    assert len(source.put_back(backs)) == 2
    assert source.token() == token
    source.close()


async def test_several_changes_of_one_context_end_as_the_last(place: Place) -> None:
    await place.save(FIRST, tags=["a"])
    source = await place.open()
    source.put_back([back(FIRST, "one", tags=("b",)), back(FIRST, None), back(FIRST, "two", tags=("c",))])
    found = source.lookup(f"context/{FIRST}")
    assert isinstance(found, Item)
    assert (found.value, found.tags) == (b'"two"', ("c",))
    source.close()
    if place.kind == "file":
        await place.server.kill()
        await place.server.start()
    assert await place.ids("tag:c") == [FIRST]
    assert await place.server.do("EXISTS", f"{P}:tag:a:contexts", f"{P}:tag:b:contexts") == 0


async def test_what_cannot_be_held_there_is_told(place: Place) -> None:
    source = await place.open()
    (returned,) = source.put_back([back(tags=("Upper",), facts={"colour": "red", "legacy_id": 3})])
    source.close()
    told = " ".join(returned.lost)
    assert "colour" in told
    assert "lower case" in told
    assert "not 77" in told


async def test_a_file_of_several_databases_asks_which(tmp_path: Path, server: Server) -> None:
    place = Place(tmp_path / "server", "file")
    place.server = server
    await server.start()
    await place.save(FIRST)
    await place.server.do("COPY", f"{P}:context:{FIRST}", f"{P}:context:{SECOND_ID}", "DB", 4)
    path = tmp_path / "server" / "dump.rdb"
    source = await place.open()
    with pytest.raises(SourceError, match="0, 4"):
        list(source.read())
    source.close()
    source = ExtendedMemoryRedis.open(f"{path}#4", Options())
    assert [one.origin for one in source.read()] == [f"context/{SECOND_ID}"]
    assert "2 keys are in databases other than 4" in " ".join(source.survey().remarks)
    source.close()


async def test_a_server_that_is_gone_is_unavailable(server: Server) -> None:
    url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    with pytest.raises(SourceUnavailableError) as raised:
        ExtendedMemoryRedis.open(url, Options(timeout=1))
    assert "secret" not in str(raised.value.facts) + raised.value.detail
    await server.start()
    source = ExtendedMemoryRedis.open(server.url, Options(timeout=1))
    await server.kill()
    with pytest.raises(SourceUnavailableError):
        list(source.read())
    with pytest.raises(SourceUnavailableError):
        source.put_back([back()])
    source.close()


async def test_a_server_that_refuses_is_an_error(server: Server) -> None:
    await server.start()
    await server.do("CONFIG", "SET", "requirepass", "secret")
    with pytest.raises(SourceError, match="refuses"):
        ExtendedMemoryRedis.open(server.url, Options())
    url = f"redis://:secret@127.0.0.1:{server.port}/0"
    source = ExtendedMemoryRedis.open(url, Options())
    assert "secret" not in source.survey().location
    source.close()


def test_what_is_no_place_of_it_is_refused(tmp_path: Path) -> None:
    for location in ("", "http://localhost:6379", "redis://localhost:port/0"):
        with pytest.raises(InvalidInputError):
            ExtendedMemoryRedis.open(location, Options())
    with pytest.raises(SourceError):
        ExtendedMemoryRedis.open(str(tmp_path / "none.rdb"), Options())
