"""The ids by which contexts go that came from an older service."""

from typing import Any

import pytest
from msgspec import Raw

from tests.service.asking import Held
from unified_memory.mcp.contexts import EXTENDED_MEMORY
from unified_memory.mcp.tool import Answer, Call, call_tool
from unified_memory.model.errors import ConflictError, MemoryNotFoundError
from unified_memory.model.memory import Memory
from unified_memory.model.principal import ANONYMOUS
from unified_memory.model.value import encode
from unified_memory.service.requests import StoreRequest

UUID = "2e46f781-ccf3-4a9c-9cbf-dca831bbff95"


async def brought(held: Held, label: int | str, content: str, namespace: str = "projects/p", **facts: Any) -> Memory:
    """A context that has come from an older service, where it had that id."""
    metadata = {"legacy_id": label, "legacy_created_at": "2024-09-02T08:16:53.144430", "importance": 7, **facts}
    held.clock.advance(1)
    request = StoreRequest(
        value=Raw(encode(content)),
        key=f"context/{label}~{len(content):08x}",
        namespace=namespace,
        metadata={name: Raw(encode(told)) for name, told in metadata.items()},
    )
    memory = (await held.service.memories.store(ANONYMOUS, request)).memory
    assert memory is not None
    return memory


async def ask(held: Held, tool: str, **arguments: Any) -> Answer:
    return await call_tool(EXTENDED_MEMORY, Call(held.service, ANONYMOUS), tool, arguments)


async def shown(held: Held, **arguments: Any) -> str:
    return str((await ask(held, "load_contexts", project_id="p", **arguments)).text)


async def test_a_context_is_shown_as_the_older_service_showed_it(each: Held) -> None:
    await brought(each, 900, "old", legacy_importance=1000)
    text = await shown(each)
    assert "(ID: 900, Importance: 1000/10 (09-02 08:16))\n" in text


@pytest.mark.parametrize("label", [900, UUID])
async def test_it_is_forgotten_by_its_older_id(each: Held, label: int | str) -> None:
    kept = await brought(each, f"{label}1", "another")
    await brought(each, label, "old", namespace="projects/q")
    answer = await ask(each, "forget_context", context_id=label)
    assert not answer.is_error
    assert f"Context ID: {label}\n" in str(answer.text)
    assert (await ask(each, "forget_context", context_id=label)).is_error
    assert (await each.retrieve(kept.key, "projects/p")).id == kept.id


async def test_the_id_that_it_has_here_is_not_its_name(each: Held) -> None:
    memory = await brought(each, 900, "old")
    with pytest.raises(MemoryNotFoundError):
        await each.service.contexts.forget(ANONYMOUS, memory.id)
    assert (await each.service.contexts.forget(ANONYMOUS, 900)).id == memory.id


async def test_of_two_that_go_by_one_id_none_is_taken(each: Held) -> None:
    each.clock.advance(1)
    native = await each.service.contexts.save(ANONYMOUS, "native", project="p", importance=7, tags=())
    await brought(each, native.id, "old")
    with pytest.raises(ConflictError) as told:
        await each.service.contexts.forget(ANONYMOUS, native.id)
    assert len(told.value.facts["keys"]) == 2


async def test_a_file_of_the_bank_beside_it_is_not_meant(each: Held) -> None:
    file = await each.service.bank.write(ANONYMOUS, "p", "file.md", "text")
    old = await brought(each, file.id, "old")
    assert (await each.service.contexts.forget(ANONYMOUS, file.id)).id == old.id
    assert await each.service.bank.read(ANONYMOUS, "p", "file.md") == "text"


async def test_files_of_the_bank_are_no_contexts_to_the_older_tools(each: Held) -> None:
    await each.service.bank.write(ANONYMOUS, "p", "file.md", "of the bank")
    await each.service.bank.write(ANONYMOUS, "of the bank alone", "file.md", "of the bank")
    await brought(each, 5, "old")
    assert "of the bank" not in await shown(each, importance_level=1)
    assert "of the bank" not in str((await ask(each, "list_all_projects")).text)
    assert "of the bank" not in await shown(each, importance_level=1, limit=-1)


@pytest.mark.parametrize(
    ("level", "found"),
    [(-3, {0, -3, 1, 11}), (0, {0, 1, 11}), (1, {1, 11}), (10, {11}), (11, {11}), (12, set[int]())],
)
async def test_an_importance_beyond_the_scale_counts_as_it_was(each: Held, level: int, found: set[int]) -> None:
    for number, importance in enumerate((0, -3, 1, 11), 1):
        await brought(
            each, number, "x" * number, importance=min(10, max(1, importance)), legacy_importance=importance, tags=["t"]
        )
    for filtered in ({}, {"tags_filter": ["t"]}):
        text = await shown(each, importance_level=level, **filtered)
        assert {n for n in (0, -3, 1, 11) if f"Importance: {n}/10" in text} == found


async def test_no_new_context_gets_an_id_by_which_an_imported_one_goes(each: Held) -> None:
    await brought(each, 900, "old")
    lines = [line async for line in each.service.transfer.export(ANONYMOUS, namespace=None, recursive=True)]
    await each.service.contexts.forget(ANONYMOUS, 900)

    async def chunks() -> Any:
        for line in lines:
            yield line

    report = await each.service.transfer.import_lines(ANONYMOUS, chunks())
    assert report.stored == 1
    saved = await each.service.contexts.save(ANONYMOUS, "new", project="p", importance=7, tags=())
    assert saved.id > 900
