"""Memories out as lines and in again."""

import asyncio
import json
import tracemalloc
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from tests.service.asking import Held, holding, raws
from unified_memory.model.clock import SECOND, SettableClock, to_rfc3339
from unified_memory.model.errors import (
    ConflictError,
    InvalidInputError,
    NamespaceNotFoundError,
    PermissionDeniedError,
    ReadOnlyError,
    StorageFullError,
    UnifiedMemoryError,
)
from unified_memory.model.memory import Memory, encode_memory
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.model.query import Page, Selection
from unified_memory.service import transfer as module
from unified_memory.service.access import Accesses
from unified_memory.service.drafting import Limits
from unified_memory.service.guard import Guard
from unified_memory.service.transfer import Imported, Transfer, line_bytes, one_line, split_lines
from unified_memory.storage.base import Edit, Outcome, Replayed, Storage
from unified_memory.storage.forwarding import Forwarding
from unified_memory.storage.inmemory import InMemoryStorage

WEB = Principal("web", ("acme/web",))
SMALL = Limits(value_bytes=100, key_bytes=20, metadata_bytes=100, tags=2)


def carrying(held: Held, storage: Storage | None = None, limits: Limits | None = None) -> Transfer:
    storage = storage or held.storage
    accesses = Accesses(storage)
    return Transfer(storage, held.clock, Guard(storage, read_only=False, limit=0), limits or Limits(), accesses)


@pytest.fixture
async def empty(each: Held) -> Held:
    """Another store, whose clock stands elsewhere."""
    return Held(each.service, InMemoryStorage(), SettableClock(each.clock.now() + 1000 * SECOND))


async def chunked(text: bytes, size: int = 64 * 1024) -> AsyncIterator[bytes]:
    for start in range(0, len(text), size):
        yield text[start : start + size]


async def exported(
    held: Held, namespace: str | None = None, *, recursive: bool = True, principal: Principal = ANONYMOUS
) -> bytes:
    return b"".join(
        [chunk async for chunk in carrying(held).export(principal, namespace=namespace, recursive=recursive)]
    )


async def imported(held: Held, text: bytes, *, principal: Principal = ANONYMOUS, **more: Any) -> Imported:
    return await carrying(held).import_lines(principal, chunked(text), **more)


def line(key: str, value: Any = "v", namespace: str = "default", **metadata: Any) -> bytes:
    return json.dumps({"key": key, "namespace": namespace, "value": value, "metadata": metadata}).encode() + b"\n"


async def everything(held: Held) -> list[Memory]:
    return (await held.storage.select(Selection(limit=None), held.clock.now())).items


async def value(held: Held, key: str, namespace: str = "default") -> bytes | None:
    memory = await held.storage.get(namespace, key, held.clock.now())
    return None if memory is None else memory.value


def content(memory: Memory) -> tuple[Any, ...]:
    """All but its id, version and place in the commit order, which are the store's own."""
    m = memory
    told = (m.namespace, m.key, m.value, m.attributes, m.importance, m.session_id, m.project_id)
    return (*told, m.created_at, m.updated_at, m.expires_at, m.access_count, m.last_accessed)


async def fill(held: Held) -> None:
    await held.service.namespaces.create(ANONYMOUS, "acme", raws({"default_ttl": 9000, "description": "ü"}))
    await held.store("plain")
    held.clock.advance(1)
    await held.store("ü\n\u2028", Raw(b'{"a": 1.50, "a":  2e3}'), "acme/web", ttl=5000)
    metadata = {"tags": ["b", "a\n"], "importance": 9, "session_id": "s", "project_id": "p", "x": {"y": [1.0]}}
    await held.store("full", [None, True, "\n"], "acme", metadata=metadata)
    await held.store("gone", namespace="acme", ttl=1)
    held.clock.advance(1)
    await held.retrieve("plain")
    await held.service.upkeep.flush()
    await held.store("plain", "second version")


# ---- out


async def test_each_line_is_the_record_as_answers_show_it(each: Held) -> None:
    await each.store("k", {"a": 1}, metadata={"tags": ["t"]})
    await each.store("l")
    assert await exported(each) == b"".join(encode_memory(m) + b"\n" for m in await everything(each))


async def test_settings_of_namespaces_come_first(each: Held) -> None:
    await each.store("k", namespace="implicit")
    for name in ("z", "z/a", "b"):
        await each.service.namespaces.create(ANONYMOUS, name, raws({"max_memories": 5}))
    lines = (await exported(each)).splitlines()
    assert [json.loads(one) for one in lines[:3]] == [
        {"namespace": name, "config": {"max_memories": 5}} for name in ("b", "z", "z/a")
    ]
    assert [json.loads(one)["key"] for one in lines[3:]] == ["k"]


@pytest.mark.parametrize(
    ("principal", "namespace", "deep", "keys"),
    [
        (ANONYMOUS, None, True, "abcd"),
        (ANONYMOUS, "acme", True, "bcd"),
        (ANONYMOUS, "acme", False, "b"),
        (WEB, None, True, "cd"),
        (WEB, "acme", True, "cd"),
        (WEB, "acme/web", False, "c"),
    ],
)
async def test_what_is_exported_is_what_is_asked_for_and_seen(
    each: Held, principal: Principal, namespace: str | None, *, deep: bool, keys: str
) -> None:
    for key, name in zip("abcd", ("default", "acme", "acme/web", "acme/web/deep"), strict=True):
        await each.store(key, namespace=name)
    for name in ("acme", "acme/web"):
        await each.service.namespaces.configure(ANONYMOUS, name, raws({}))
    lines = [
        json.loads(one) for one in (await exported(each, namespace, recursive=deep, principal=principal)).splitlines()
    ]
    assert "".join(one["key"] for one in lines if "key" in one) == keys
    settled = [one["namespace"] for one in lines if "key" not in one]
    assert settled == [name for key, name in (("b", "acme"), ("c", "acme/web")) if key in keys]


@pytest.mark.parametrize(("principal", "namespace"), [(ANONYMOUS, "acme/we"), (WEB, "default"), (WEB, "acme")])
async def test_a_namespace_that_is_not_there_is_no_empty_export(
    each: Held, principal: Principal, namespace: str
) -> None:
    await each.store("k")
    await each.store("k", namespace="acme/web")
    with pytest.raises(NamespaceNotFoundError):
        await exported(each, namespace, recursive=False, principal=principal)


async def test_an_empty_store_exports_nothing(each: Held) -> None:
    assert await exported(each) == b""


class Watched(Forwarding):
    """Keeps how many memories were asked for at once, and how many bytes of values came."""

    def __init__(self, storage: Storage) -> None:
        super().__init__(storage)
        self.pages: list[tuple[int | None, int]] = []

    async def select(self, selection: Selection, now: int, **more: Any) -> Page[Memory]:
        page: Page[Memory] = await self._warm.select(selection, now, **more)
        self.pages.append((selection.limit, sum(len(one.value) for one in page.items)))
        return page


async def test_large_values_are_read_few_at_a_time_and_small_ones_many(held: Held) -> None:
    for number in range(40):
        await held.store(f"large {number}", "x" * 2**20)
    for number in range(600):
        await held.store(f"small {number}")
    storage = Watched(held.storage)  # type: ignore[abstract]  # see `storage/forwarding.py`
    chunks = [chunk async for chunk in carrying(held, storage).export(ANONYMOUS, namespace=None, recursive=True)]
    assert max(size for _, size in storage.pages) < 17 * 2**20
    assert storage.pages[1][0] == 3
    assert storage.pages[-1][0] == module.PAGE_MEMORIES
    assert all(chunk.endswith(b"}\n") and len(chunk) < module.CHUNK_BYTES + 2**20 + 1000 for chunk in chunks)
    keys = [json.loads(one)["key"] for one in b"".join(chunks).splitlines()]
    assert keys == [f"large {number}" for number in range(40)] + [f"small {number}" for number in range(600)]


async def test_an_export_tells_accesses_that_are_not_written_down_yet(each: Held) -> None:
    memory = await each.store("k")
    accesses = Accesses(each.storage)
    accesses.count(memory, each.clock.now())
    guard = Guard(each.storage, read_only=False, limit=0)
    transfer = Transfer(each.storage, each.clock, guard, Limits(), accesses)
    chunks = [chunk async for chunk in transfer.export(ANONYMOUS, namespace=None, recursive=True)]
    assert json.loads(chunks[0])["metadata"]["access_count"] == 1


async def test_a_value_of_several_lines_is_one_line_and_the_same_afterwards(each: Held, empty: Held) -> None:
    await each.store("k", Raw(b'{\r\n  "a":\n1}'), metadata={"x": Raw(b"[1,\n2]")})
    text = await exported(each)
    assert text.count(b"\n") == 1
    await imported(empty, text)
    assert await value(empty, "k") == b'{    "a": 1}'
    for held in (each, empty):
        assert (await imported(held, text, on_conflict="replace")).skipped == 1


# ---- out and in again


async def test_everything_is_the_same_elsewhere(each: Held, empty: Held) -> None:
    await fill(each)
    text = await exported(each)
    report = await imported(empty, text)
    assert (report.read, report.stored, report.failed) == (4, 4, 0)
    assert [content(one) for one in await everything(empty)] == [content(one) for one in await everything(each)]
    assert next(one for one in await everything(empty) if one.key == "plain").access_count == 1
    namespace = await empty.storage.get_namespace("acme", empty.clock.now())
    here = await each.storage.get_namespace("acme", each.clock.now())
    assert namespace is not None
    assert here is not None
    assert namespace.explicit
    assert namespace.config == here.config
    assert await empty.storage.get_session("acme", "s", empty.clock.now()) is not None


@pytest.mark.parametrize("on_conflict", ["skip", "replace", "newer", "fail"])
async def test_what_was_imported_before_stores_nothing_again(each: Held, empty: Held, on_conflict: str) -> None:
    await fill(each)
    text = await exported(each)
    first = await imported(empty, text[: text.rindex(b"\n", 0, -1) + 1])
    report = await imported(empty, text, on_conflict=on_conflict)
    assert (report.read, report.stored, report.replaced, report.skipped) == (4, 1, 0, first.stored)
    seq = await empty.storage.last_seq()
    assert (await imported(empty, text, on_conflict=on_conflict)).skipped == 4
    assert await empty.storage.last_seq() == seq


async def test_everything_may_be_put_below_a_namespace(each: Held, empty: Held) -> None:
    await fill(each)
    report = await imported(empty, await exported(each), into="copy")
    assert report.stored == 4
    assert [one.namespace for one in await everything(empty)] == [
        f"copy/{one.namespace}" for one in await everything(each)
    ]
    namespace = await empty.storage.get_namespace("copy/acme", empty.clock.now())
    assert namespace is not None
    assert namespace.explicit


TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS
VALUES = st.recursive(SCALARS, lambda part: st.lists(part, max_size=3) | st.dictionaries(TEXTS, part, max_size=3))
# JSON is written in many ways.
SPELLED = st.builds(
    lambda value, indent, ascii_only: Raw(json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()),
    VALUES,
    st.sampled_from([None, 1, "\t"]),
    st.booleans(),
)
RECORDS = st.fixed_dictionaries(
    {"key": TEXTS, "value": SPELLED, "namespace": st.sampled_from(["a", "a/ü", "b c"])},
    optional={
        "ttl": st.floats(0.001, 1e9),
        "metadata": st.fixed_dictionaries(
            {},
            optional={
                "tags": st.lists(TEXTS.filter(lambda tag: bool(tag.strip())), max_size=3),
                "importance": st.integers(1, 10),
                "session_id": TEXTS,
                "project_id": TEXTS,
                "x": SPELLED,
                'a\n"b': SPELLED,
            },
        ),
    },
)


@given(st.lists(RECORDS, max_size=6), st.integers(1, 300))
def test_whatever_is_exported_is_the_same_elsewhere(records: list[dict[str, Any]], size: int) -> None:
    async def run() -> None:
        clock = SettableClock()
        async with holding(InMemoryStorage(clock), clock) as here, holding(InMemoryStorage(clock), clock) as there:
            for record in records:
                await here.store(**record)
            text = await exported(here)
            report = await carrying(there).import_lines(ANONYMOUS, chunked(text, size))
            assert (report.skipped, report.failed) == (0, 0)
            expected = [content(one) for one in await everything(here)]
            for place, one in enumerate(expected):
                expected[place] = (*one[:2], one_line(one[2]), one_line(one[3]), *one[4:])
            assert [content(one) for one in await everything(there)] == expected
            assert (await imported(here, text, on_conflict="fail")).skipped == report.read

    asyncio.run(run())


# ---- conflicts


@pytest.mark.parametrize(
    ("on_conflict", "later", "replaced"),
    [
        ("skip", 1, False),
        ("replace", -1, True),
        ("newer", 1, True),
        ("newer", 0, False),
        ("newer", -1, False),
        ("newer", None, False),
    ],
)
async def test_what_is_stored_otherwise_stays_or_goes_as_asked(
    each: Held, on_conflict: str, later: int | None, *, replaced: bool
) -> None:
    here = await each.store("k", "here")
    metadata = {} if later is None else {"updated_at": to_rfc3339(each.clock.now() + later)}
    text = line("k", "there", **metadata) + line("new")
    report = await imported(each, text, on_conflict=on_conflict)
    assert (report.stored, report.replaced, report.skipped) == (1, int(replaced), int(not replaced))
    assert await value(each, "k") == (b'"there"' if replaced else b'"here"')
    memory = await each.storage.get("default", "k", each.clock.now())
    assert memory is not None
    assert (memory.id, memory.version) == (here.id, 2 if replaced else 1)
    if replaced and later is not None:
        assert memory.updated_at == each.clock.now() + later


@pytest.mark.parametrize(
    "other",
    [
        {"tags": ["x"]},
        {"importance": 6},
        {"session_id": "s"},
        {"project_id": "p"},
        {"expires_at": "2100-01-01T00:00:00Z"},
        {"more": 1},
    ],
)
async def test_other_metadata_are_another_record(each: Held, other: dict[str, Any]) -> None:
    await each.store("k")
    assert (await imported(each, line("k", **other), on_conflict="replace")).replaced == 1
    assert (await imported(each, line("k", **other), on_conflict="replace")).skipped == 1


async def test_a_replaced_memory_keeps_what_the_line_does_not_say(each: Held) -> None:
    here = await each.store("k", "here")
    await each.retrieve("k")
    await each.service.upkeep.flush()
    each.clock.advance(5)
    await imported(each, line("k", "there"), on_conflict="replace")
    memory = await each.storage.get("default", "k", each.clock.now())
    assert memory is not None
    assert (memory.created_at, memory.updated_at, memory.access_count) == (here.created_at, each.clock.now(), 1)


async def test_an_import_that_is_to_fail_ends_at_the_line_in_the_way(each: Held) -> None:
    await each.store("k", "here")
    text = line("before") + b"\n" + line("k", "there") + line("behind")
    with pytest.raises(ConflictError, match="Line 3 ") as raised:
        await imported(each, text, on_conflict="fail")
    assert raised.value.facts == {"line": 3, "namespace": "default", "key": "k", "lines_done": 1}
    assert [await value(each, key) for key in ("before", "k", "behind")] == [b'"v"', b'"here"', None]


async def test_settings_of_a_namespace_stay_or_go_as_asked(each: Held) -> None:
    await each.service.namespaces.create(ANONYMOUS, "n", raws({"max_memories": 1}))
    text = b'{"namespace":"n","config":{"max_memories":2}}\n{"namespace":"new","config":{}}\n'
    with pytest.raises(ConflictError, match="Line 1 "):
        await imported(each, text, on_conflict="fail")
    for on_conflict, limit in (("skip", 1), ("newer", 1), ("replace", 2)):
        await imported(each, text, on_conflict=on_conflict)
        namespace = await each.storage.get_namespace("n", each.clock.now())
        assert namespace is not None
        assert namespace.config.max_memories == limit
    assert (await imported(each, text, on_conflict="fail")).skipped == 2


async def test_a_namespace_that_was_not_explicit_gets_the_settings(each: Held) -> None:
    await each.store("k", namespace="n")
    report = await imported(each, b'{"namespace":"n","config":{"default_ttl":5}}\n' + line("l", namespace="n"))
    assert (report.stored, report.failed) == (2, 0)
    memory = await each.storage.get("n", "l", each.clock.now())
    assert memory is not None
    assert memory.expires_at == each.clock.now() + 5 * SECOND


# ---- lines


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100_000])
async def test_lines_are_found_however_they_come(each: Held, size: int) -> None:
    text = b"\xef\xbb\xbf" + line("a").replace(b"\n", b"\r\n") + b"\r\n  \n" + line("b") + line("c").rstrip()
    report = await carrying(each).import_lines(ANONYMOUS, chunked(text, size))
    assert (report.read, report.stored, report.errors) == (3, 3, [])
    assert [one.key for one in await everything(each)] == ["a", "b", "c"]


@pytest.mark.parametrize("text", [b"", b"\n", b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n\n"])
async def test_an_empty_file_is_fine(each: Held, text: bytes) -> None:
    assert await imported(each, text) == Imported()


@pytest.mark.parametrize("size", [1, 5, 1000])
async def test_a_line_that_is_too_long_is_told_by_its_length_alone(size: int) -> None:
    text = b"0123456789\nshort\n01234567890\n" + b"x" * 1000
    lines = [one async for one in split_lines(chunked(text, size), 10)]
    assert lines == [(1, b"0123456789"), (2, b"short"), (3, 11), (4, 1000)]


async def test_a_line_that_is_too_long_is_not_held() -> None:
    async def endless() -> AsyncIterator[bytes]:
        for number in range(200):
            yield b"%d" % number + b"x" * 2**16

    tracemalloc.start()
    try:
        lines = [one async for one in split_lines(endless(), 10)]
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert lines == [(1, sum(len(str(number)) + 2**16 for number in range(200)))]


async def test_what_is_behind_a_line_that_is_too_long_is_imported(held: Held) -> None:
    transfer = carrying(held, limits=SMALL)
    long = line("long", "x" * line_bytes(SMALL))
    report = await transfer.import_lines(ANONYMOUS, chunked(line("a") + long + line("b"), 1000))
    assert (report.stored, report.failed) == (2, 1)
    assert report.errors[0]["line"] == 2
    assert report.errors[0]["code"] == "too_large"


@pytest.mark.parametrize(
    ("broken", "code", "detail"),
    [
        (b"{", "malformed_input", "not JSON"),
        (b'{"key":"\xff","value":1}', "malformed_input", "not JSON"),
        (b'{"key":"k","value":"\xff"}', "malformed_input", "not UTF-8"),
        (b'{"key":"k","value":1,"metadata":{"created_at":"\xff"}}', "malformed_input", "metadata.created_at"),
        (b'{"key":"k","value":1,"metadata":{"x":"\xff"}}', "malformed_input", "metadata.x"),
        (b"[]", "invalid_input", "no record"),
        (b'{"key":1,"value":1}', "invalid_input", "no record"),
        (b'{"value":1}', "invalid_input", "key is missing"),
        (b'{"namespace":"n","value":1,"config":{}}', "invalid_input", "key is missing"),
        (b'{"key":"k"}', "invalid_input", "value is missing"),
        (b'{"key":"","value":1}', "invalid_input", "key is empty"),
        (b'{"key":"k","value":1,"ttl":5}', "invalid_input", "ttl does not stand there"),
        (b'{"key":"k","value":1,"namespace":"a//b"}', "invalid_input", "namespace"),
        (b'{"key":"k","value":1,"namespace":"n","metadata":{"importance":11}}', "invalid_input", "importance"),
        (b'{"key":"k","value":1,"metadata":{"tags":[" "]}}', "invalid_input", "tags"),
        (b'{"key":"k","value":1,"metadata":{"created_at":"then"}}', "invalid_input", "metadata.created_at"),
        (b'{"key":"k","value":1,"metadata":{"updated_at":5}}', "invalid_input", "metadata.updated_at"),
        (b'{"key":"k","value":1,"metadata":{"expires_at":"then"}}', "invalid_input", "expires_at"),
        (b'{"key":"k","value":1,"metadata":{"expires_at":5}}', "invalid_input", "metadata.expires_at"),
        (b'{"key":"k","value":1,"metadata":{"access_count":-1}}', "invalid_input", "metadata.access_count"),
        (b'{"key":"k","value":[' + b"[" * 300 + b"]" * 300 + b"]}", "invalid_input", "nested deeper"),
        (b'{"key":"k","value":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "invalid_input", "nested deeper"),
        (b'{"namespace":"n","config":{"default_ttl":-1}}', "invalid_input", "config.default_ttl"),
        (b'{"namespace":"n","config":{"unknown":1}}', "invalid_input", "config"),
    ],
)
async def test_a_broken_line_is_told_and_the_others_are_imported(
    held: Held, broken: bytes, code: str, detail: str
) -> None:
    report = await imported(held, line("a") + broken + b"\n" + line("b"))
    assert (report.read, report.stored, report.failed) == (3, 2, 1)
    assert len(report.errors) == 1
    error = report.errors[0]
    assert (error["line"], error["code"]) == (2, code)
    assert detail in error["detail"]
    assert [one.key for one in await everything(held)] == ["a", "b"]


async def test_what_is_larger_than_a_limit_is_told(held: Held) -> None:
    text = line("k", "x" * 99) + line("k" * 21) + line("t", tags=["a", "b", "c"]) + line("m", x="y" * 100)
    report = await carrying(held, limits=SMALL).import_lines(ANONYMOUS, chunked(text))
    assert [one["code"] for one in report.errors] == ["too_large", "too_large", "invalid_input", "invalid_input"]
    assert await everything(held) == []


def test_a_line_has_room_for_every_record_within_the_limits() -> None:
    limits = Limits(value_bytes=100, key_bytes=4096, metadata_bytes=100_000, tags=50)
    name = "\x01" * 50_000
    memory = Memory(
        id=2**63 - 1,
        namespace="/".join(["ü" * 127] * 16),
        key="\x01" * limits.key_bytes,
        value=b"1" * limits.value_bytes,
        attributes=json.dumps({"tags": ["\x01" * 1024] * limits.tags, name: "x" * 49_998}).encode(),
        importance=10,
        session_id="\x01" * 255,
        project_id="\x01" * 255,
        created_at=0,
        updated_at=1,
        expires_at=1,
        access_count=2**63 - 1,
        last_accessed=1,
        version=2**63 - 1,
        seq=1,
    )
    assert len(encode_memory(memory)) < line_bytes(limits)


async def test_only_the_first_errors_are_told_and_all_are_counted(held: Held) -> None:
    report = await imported(held, b"{\n" * 150)
    assert (report.failed, len(report.errors), report.errors[-1]["line"]) == (150, 100, 100)


async def test_members_that_are_not_of_the_content_are_passed_over(each: Held) -> None:
    text = (
        b'{"id":7,"key":"k","namespace":"n","value": 1.0 ,"metadata":{"tags":null},"version":9,"tier":"cold",'
        b'"search_index":{"full_text":"x"}}'
    )
    assert (await imported(each, text)).stored == 1
    memory = await each.storage.get("n", "k", each.clock.now())
    assert memory is not None
    assert (memory.value, memory.version, memory.tier, memory.attributes) == (b"1.0", 1, "warm", b'{"tags":[]}')


async def test_what_has_expired_stays_out(each: Held) -> None:
    now = each.clock.now()
    text = line("past", expires_at=to_rfc3339(now)) + line("ahead", expires_at=to_rfc3339(now + 1))
    report = await imported(each, text)
    assert (report.stored, report.skipped, report.failed) == (1, 1, 0)
    assert [one.key for one in await everything(each)] == ["ahead"]


async def test_a_key_that_comes_twice_is_stored_once(each: Held) -> None:
    report = await imported(each, line("k", 1) + line("k", 2) + line("k", 2))
    assert (report.stored, report.skipped) == (1, 2)
    assert await value(each, "k") == b"1"
    report = await imported(each, line("k", 1) + line("k", 2) + line("k", 2), on_conflict="replace")
    assert (report.replaced, report.skipped) == (1, 2)
    assert await value(each, "k") == b"2"


# ---- who may, and what stands in the way


async def test_what_one_may_not_write_is_told(each: Held) -> None:
    text = line("a", namespace="acme/web") + line("b", namespace="acme") + b'{"namespace":"acme","config":{}}\n'
    report = await imported(each, text, principal=WEB)
    assert (report.stored, report.failed) == (1, 2)
    assert {one["code"] for one in report.errors} == {"permission_denied"}
    assert [one.key for one in await everything(each)] == ["a"]
    assert (await imported(each, text, principal=WEB, into="acme/web/in")).stored == 3
    with pytest.raises(PermissionDeniedError):
        await imported(each, text, principal=WEB, into="acme")


async def test_what_is_asked_must_be_known(held: Held) -> None:
    with pytest.raises(InvalidInputError) as raised:
        await imported(held, line("k"), on_conflict="overwrite")
    assert raised.value.field == "on_conflict"
    with pytest.raises(InvalidInputError) as raised:
        await imported(held, line("k"), into="a//b")
    assert raised.value.field == "into"
    assert await everything(held) == []


async def test_settings_hold_for_the_lines_behind_them(each: Held) -> None:
    settings = b'{"namespace":"n","config":{"default_ttl":5}}\n'
    await imported(each, line("before", namespace="n") + settings + line("behind", namespace="n"))
    now = each.clock.now()
    assert [(one.key, one.expires_at) for one in await everything(each)] == [
        ("before", None),
        ("behind", now + 5 * SECOND),
    ]


async def test_lines_beyond_a_quota_are_told_and_the_others_stored(each: Held) -> None:
    await each.service.namespaces.create(ANONYMOUS, "n", raws({"max_memories": 2}))
    text = b"".join(line(key, namespace="n") for key in "abcd") + line("e")
    report = await imported(each, text)
    assert (report.stored, report.failed) == (3, 2)
    assert [(one["line"], one["code"]) for one in report.errors] == [(3, "quota_exceeded"), (4, "quota_exceeded")]
    assert [one.key for one in await everything(each)] == ["a", "b", "e"]


async def test_nothing_is_imported_while_writes_are_off(each: Held) -> None:
    guard = Guard(each.storage, read_only=True, limit=0)
    off = Transfer(each.storage, each.clock, guard, Limits(), Accesses(each.storage))
    with pytest.raises(ReadOnlyError):
        await off.import_lines(ANONYMOUS, chunked(b""))
    await each.service.upkeep.switch_read_only("maintenance")
    with pytest.raises(ReadOnlyError) as raised:
        await imported(each, line("k"))
    assert raised.value.facts["lines_done"] == 0
    assert await everything(each) == []


class Failing(Forwarding):
    """Fails at the n-th unit."""

    def __init__(self, storage: Storage, at: int, error: UnifiedMemoryError) -> None:
        super().__init__(storage)
        self.left = at
        self.error = error
        self.units: list[int] = []

    async def edit(self, edits: Sequence[Edit], now: int, **more: Any) -> list[Outcome] | Replayed:
        self.left -= 1
        if not self.left:
            raise self.error
        self.units.append(len(edits))
        outcomes: list[Outcome] | Replayed = await self._warm.edit(edits, now, **more)
        return outcomes


@pytest.mark.parametrize("error", [StorageFullError(), ReadOnlyError("maintenance")])
async def test_an_import_that_the_storage_ends_tells_how_far_it_came(each: Held, error: UnifiedMemoryError) -> None:
    text = b"".join(line(f"k{number}") for number in range(500))
    storage = Failing(each.storage, 3, error)  # type: ignore[abstract]  # see `storage/forwarding.py`
    with pytest.raises(type(error)) as raised:
        await carrying(each, storage).import_lines(ANONYMOUS, chunked(text))
    assert raised.value.facts["lines_done"] == 400
    assert storage.units == [200, 200]
    assert len(await everything(each)) == 400
    report = await imported(each, text)
    assert (report.stored, report.skipped) == (100, 400)


async def test_lines_that_were_told_before_the_storage_failed_are_done(held: Held) -> None:
    storage = Failing(held.storage, 1, StorageFullError())  # type: ignore[abstract]  # as above
    with pytest.raises(StorageFullError) as raised:
        await carrying(held, storage).import_lines(ANONYMOUS, chunked(b"{\n" * 3 + line("k") + b"{\n"))
    assert raised.value.facts["lines_done"] == 3


async def test_large_values_are_written_few_at_a_time_and_progress_is_told(held: Held) -> None:
    text = b"".join(line(f"k{number}", "x" * 2**20) for number in range(10))
    storage = Failing(held.storage, 0, StorageFullError())  # type: ignore[abstract]  # as above
    done: list[tuple[int, int | None]] = []

    async def advance(lines: int, total: int | None) -> None:
        done.append((lines, total))

    await carrying(held, storage).import_lines(ANONYMOUS, chunked(text), advance=advance)
    assert storage.units == [4, 4, 2]
    assert done == [(4, None), (8, None), (10, None)]


def test_only_breaks_of_lines_are_written_otherwise() -> None:
    assert one_line(b'{\n"a\\n":\r\n"\xe2\x80\xa8"}') == b'{ "a\\n":  "\xe2\x80\xa8"}'
