"""The memory bank over the storages: names, projects, and who may do what."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.service.asking import Held, holding, storing
from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import (
    AlreadyExistsError,
    InvalidInputError,
    MemoryNotFoundError,
    PermissionDeniedError,
    ReadOnlyError,
    TooLargeError,
)
from unified_memory.model.memory import check_key
from unified_memory.model.namespace import NamespaceConfig
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.model.query import MAX_LIMIT
from unified_memory.service.bank import file_key, file_of
from unified_memory.service.projects import project_namespace
from unified_memory.service.requests import BatchStoreRequest, Idempotent
from unified_memory.storage.inmemory import InMemoryStorage

HOSTILE = (
    "",
    "%",
    "%25",
    "%00",
    "\0",
    "%\0",
    "%2500",
    "a\0b",
    "a%00b",
    "100%.md",
    "context/1",
    "%63ontext/1",
    "%2563ontext/1",
    "context",
    "Context/1",
    "..",
    "../x",
    "/",
    " lead",
    "日本語🔥",
)
_names = st.lists(
    st.sampled_from(["%", "25", "00", "63ontext/", "context/", "\0", "a", "2", "0"]) | st.text(max_size=2), max_size=7
).map("".join)


@given(_names)
def test_every_name_has_a_key_and_no_context_does(name: str) -> None:
    key = check_key(file_key(name), 4096)
    assert not key.startswith("context/")
    assert file_of(key) == name


@given(_names.filter(lambda key: bool(key) and "\0" not in key))
def test_every_key_but_a_contexts_is_that_of_the_name_it_shows(key: str) -> None:
    name = file_of(key)
    assert (name is None) is key.startswith("context/")
    assert name is None or file_key(name) == key


def test_a_name_that_is_a_key_already_is_its_own() -> None:
    for name in ("brief.md", "100%.md", "%2e%2e%2fx", "a/b", "a%25b"):
        assert file_key(name) == name


async def test_whatever_the_names_what_was_written_is_listed_and_read(each: Held) -> None:
    bank = each.service.bank
    for name in HOSTILE:
        await bank.write(ANONYMOUS, "p", name, f"file {name}")
        await bank.write(ANONYMOUS, name, "f.md", f"project {name}")
    assert await bank.files(ANONYMOUS, "p") == sorted(HOSTILE)
    assert await bank.projects(ANONYMOUS) == sorted([*HOSTILE, "p"])
    for name in HOSTILE:
        assert await bank.read(ANONYMOUS, "p", name) == f"file {name}"
        assert await bank.read(ANONYMOUS, name, "f.md") == f"project {name}"
        assert await bank.files(ANONYMOUS, name) == ["f.md"]


async def test_contexts_are_no_files_and_make_no_project(each: Held) -> None:
    bank = each.service.bank
    await each.store("context/1", "c", project_namespace("only contexts"))
    await each.store("context/1", "c", project_namespace("both"))
    await bank.write(ANONYMOUS, "both", "context/1", "f")
    assert await bank.projects(ANONYMOUS) == ["both"]
    assert await bank.files(ANONYMOUS, "both") == ["context/1"]
    assert await bank.read(ANONYMOUS, "both", "context/1") == "f"
    assert (await each.retrieve("context/1", project_namespace("both"))).parsed() == "c"


async def test_a_namespace_that_no_project_has_is_not_listed(each: Held) -> None:
    await each.store("k", "v", "projects")
    await each.store("k", "v", "projects/%61")
    await each.store("k", "v", "projects/a/b")
    await each.store("k", "v", "project")
    assert await each.service.bank.projects(ANONYMOUS) == []


async def test_a_second_write_is_refused_and_changes_nothing(each: Held) -> None:
    bank = each.service.bank
    outcomes = await asyncio.gather(
        *(bank.write(ANONYMOUS, "p", "f", f"{i}") for i in range(5)), return_exceptions=True
    )
    assert [type(one) for one in outcomes].count(AlreadyExistsError) == 4
    kept = await bank.read(ANONYMOUS, "p", "f")
    with pytest.raises(AlreadyExistsError):
        await bank.write(ANONYMOUS, "p", "f", "later")
    assert await bank.read(ANONYMOUS, "p", "f") == kept


async def test_an_update_replaces_the_content_and_nothing_else(each: Held) -> None:
    namespace = project_namespace("p")
    await each.store("f", {"a": 1}, namespace, metadata={"tags": ["t"], "author": "ann"})
    assert await each.service.bank.read(ANONYMOUS, "p", "f") == '{"a":1}'
    memory = await each.service.bank.update(ANONYMOUS, "p", "f", "ü\r\n")
    assert (memory.version, memory.tags, list(memory.extra)) == (2, ("t",), ["author"])
    assert (await each.retrieve("f", namespace)).parsed() == "ü\r\n"


async def test_what_is_not_there_is_neither_read_nor_updated(each: Held) -> None:
    bank = each.service.bank
    await bank.write(ANONYMOUS, "p", "f", "")
    assert await bank.files(ANONYMOUS, "q") == []
    for project, file in (("p", "g"), ("q", "f"), ("P", "f")):
        with pytest.raises(MemoryNotFoundError):
            await bank.read(ANONYMOUS, project, file)
        with pytest.raises(MemoryNotFoundError):
            await bank.update(ANONYMOUS, project, file, "x")
    assert await bank.projects(ANONYMOUS) == ["p"]


async def test_a_write_repeated_under_its_key_happens_once(each: Held) -> None:
    bank, once = each.service.bank, Idempotent("k", b"f")
    first = await bank.write(ANONYMOUS, "p", "f", "x", once)
    again = await bank.write(ANONYMOUS, "p", "f", "x", once)
    assert (first.id, first.version) == (again.id, again.version)
    update = Idempotent("u", b"f")
    assert (await bank.update(ANONYMOUS, "p", "f", "y", update)).version == 2
    assert (await bank.update(ANONYMOUS, "p", "f", "y", update)).version == 2


async def test_who_may_not_see_a_project_finds_none(each: Held) -> None:
    bank, stranger = each.service.bank, Principal("s", ("other", project_namespace("mine")))
    await bank.write(ANONYMOUS, "p", "f", "x")
    await bank.write(stranger, "mine", "f", "y")
    assert await bank.projects(stranger) == ["mine"]
    assert await bank.files(stranger, "p") == []
    with pytest.raises(MemoryNotFoundError):
        await bank.read(stranger, "p", "f")
    with pytest.raises(MemoryNotFoundError):
        await bank.update(stranger, "p", "f", "z")
    with pytest.raises(PermissionDeniedError):
        await bank.write(stranger, "p", "g", "z")
    assert await bank.projects(Principal("nobody", ("other",))) == []


async def test_a_read_only_service_reads_and_does_not_write() -> None:
    storage = InMemoryStorage()
    async with holding(storage, SettableClock()) as one:
        await one.service.bank.write(ANONYMOUS, "p", "f", "x")
    async with holding(storage, SettableClock(), read_only=True) as one:
        bank = one.service.bank
        with pytest.raises(ReadOnlyError):
            await bank.write(ANONYMOUS, "p", "g", "x")
        with pytest.raises(ReadOnlyError):
            await bank.update(ANONYMOUS, "p", "f", "y")
        assert await bank.read(ANONYMOUS, "p", "f") == "x"


async def test_a_long_list_is_complete(each: Held) -> None:
    names = [f"{n:05}" for n in range(MAX_LIMIT + 500)]
    for start in (0, MAX_LIMIT):
        batch = [storing(name, "x", project_namespace("p")) for name in names[start : start + MAX_LIMIT]]
        await each.service.memories.store_batch(ANONYMOUS, BatchStoreRequest(batch))
    assert await each.service.bank.files(ANONYMOUS, "p") == names


async def test_a_file_goes_when_its_time_has_passed(each: Held) -> None:
    bank = each.service.bank
    await each.storage.put_namespace(
        project_namespace("p"), NamespaceConfig(default_ttl=10), each.clock.now(), create=True
    )
    await bank.write(ANONYMOUS, "p", "f", "x")
    assert await bank.projects(ANONYMOUS) == ["p"]
    each.clock.advance(10)
    assert await bank.projects(ANONYMOUS) == []
    assert await bank.files(ANONYMOUS, "p") == []
    await bank.write(ANONYMOUS, "p", "f", "y")
    assert await bank.read(ANONYMOUS, "p", "f") == "y"


@pytest.mark.parametrize(("place", "field"), [(0, "project"), (1, "file"), (2, "content")])
async def test_a_lone_surrogate_is_refused_by_name(held: Held, place: int, field: str) -> None:
    texts = ["p", "f", "x"]
    texts[place] = "a\ud800"
    project, file, content = texts
    with pytest.raises(InvalidInputError) as caught:
        await held.service.bank.write(ANONYMOUS, project, file, content)
    assert caught.value.field == field
    assert await held.service.bank.projects(ANONYMOUS) == []


async def test_a_name_that_is_too_long_is_refused(held: Held) -> None:
    bank = held.service.bank
    with pytest.raises(TooLargeError):
        await bank.write(ANONYMOUS, "p", "x" * 5000, "y")
    for project in ("x" * 10_000_000, "/" * 3000):
        with pytest.raises(InvalidInputError) as caught:
            await bank.write(ANONYMOUS, project, "f", "y")
        assert caught.value.field == "project"
        with pytest.raises(InvalidInputError):
            await bank.files(ANONYMOUS, project)
    await bank.write(ANONYMOUS, "x" * 3000, "f", "y")
    assert await bank.projects(ANONYMOUS) == ["x" * 3000]
