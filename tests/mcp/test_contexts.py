"""The five tools for contexts, in the profile of the older server and in our own."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.asking import Held, holding
from unified_memory.mcp.budget import DEFAULT_TOKENS, tokens
from unified_memory.mcp.contexts import EXTENDED_MEMORY, UNIFIED_TOOLS
from unified_memory.mcp.tool import Answer, Call, Profile, ProtocolError, call_tool
from unified_memory.model.clock import SettableClock
from unified_memory.model.principal import ANONYMOUS
from unified_memory.storage.inmemory import InMemoryStorage

UNIFIED = Profile(name="unified", instructions="", tools=UNIFIED_TOOLS)


@pytest.fixture
async def held() -> AsyncIterator[Held]:
    async with holding(InMemoryStorage(), SettableClock()) as one:
        yield one


async def ask(
    held: Held, name: str, arguments: dict[str, Any], profile: Profile = UNIFIED, key: str | None = None
) -> Answer:
    held.clock.advance(1)
    return await call_tool(profile, Call(held.service, ANONYMOUS, key), name, arguments)


async def told(held: Held, name: str, profile: Profile = UNIFIED, **arguments: Any) -> str:
    """The text of an answer that is no error."""
    answer = await ask(held, name, arguments, profile)
    assert not answer.is_error, answer.text
    assert answer.text is not None
    return answer.text


async def refused(held: Held, name: str, profile: Profile = UNIFIED, **arguments: Any) -> str:
    """The text of an answer that is an error, with its code."""
    answer = await ask(held, name, arguments, profile)
    assert answer.is_error, answer.text
    assert answer.structured["error"]["code"]
    assert answer.text is not None
    return answer.text


async def saved(held: Held, count: int, text: str = "text") -> None:
    for n in range(count):
        await told(held, "save_context", content=f"{text} {n}", importance_level=7, project_id="p", tags=[f"t{n}"])


async def test_the_two_profiles_answer_an_older_call_alike(held: Held) -> None:
    await saved(held, 12)
    calls: list[tuple[str, dict[str, Any]]] = [
        ("load_contexts", {"project_id": "P"}),
        ("load_contexts", {"project_id": "P", "limit": 11}),
        ("load_contexts", {"project_id": "none"}),
        ("load_contexts", {"tags_filter": "t"}),
        ("list_all_projects", {}),
        ("get_popular_tags", {"project_id": "p"}),
        ("get_popular_tags", {"project_id": 7}),
        ("forget_context", {"context_id": True}),
        ("save_context", {"content": "x", "importance_level": 11}),
    ]
    for name, arguments in calls:
        older = await ask(held, name, arguments, EXTENDED_MEMORY)
        held.clock.advance(-1)
        assert await ask(held, name, arguments) == older, name


@pytest.mark.parametrize(
    ("name", "arguments", "data"),
    [
        ("save_context", {}, "MemoryToolsHandler.save_context() missing 1 required positional argument: 'content'"),
        ("save_context", {"foo": 1}, "MemoryToolsHandler.save_context() got an unexpected keyword argument 'foo'"),
        ("save_context", {"content": 1.5}, "object of type 'float' has no len()"),
        (
            "save_context",
            {"content": "x", "ttl": 1},
            "MemoryToolsHandler.save_context() got an unexpected keyword argument 'ttl'",
        ),
        (
            "load_contexts",
            {"cursor": ""},
            "MemoryToolsHandler.load_contexts() got an unexpected keyword argument 'cursor'",
        ),
        (
            "forget_context",
            {},
            "MemoryToolsHandler.forget_context() missing 1 required positional argument: 'context_id'",
        ),
        (
            "get_popular_tags",
            {"a": 1},
            "MemoryToolsHandler.get_popular_tags_tool() got an unexpected keyword argument 'a'",
        ),
        ("nope", {}, "Unknown tool: nope"),
    ],
)
async def test_what_the_older_server_broke_on_is_an_error_of_the_protocol(
    held: Held, name: str, arguments: dict[str, Any], data: str
) -> None:
    with pytest.raises(ProtocolError) as raised:
        await ask(held, name, arguments, EXTENDED_MEMORY)
    assert (raised.value.code, raised.value.message) == (-32603, "Internal error")
    assert raised.value.data == f"[internal] {data}"
    assert (await held.storage.stats(("",), 0, top=1)).memories == 0


@pytest.mark.parametrize(
    ("name", "arguments", "field"),
    [
        ("save_context", {}, "content"),
        ("save_context", {"content": "x", "foo": 1}, "foo"),
        ("save_context", {"content": None}, "content"),
        ("save_context", {"content": ["x"]}, "content"),
        ("save_context", {"content": "\ud800"}, "content"),
        ("save_context", {"content": "x", "tags": ["\ud800"]}, "tags"),
        ("save_context", {"content": "x", "project_id": "\ud800"}, "project_id"),
        ("save_context", {"content": "x", "project_id": ["p"]}, "project_id"),
        ("save_context", {"content": "x", "importance_level": 5.5}, "importance_level"),
        ("save_context", {"content": "x", "importance_level": None}, "importance_level"),
        ("save_context", {"content": "x", "importance_level": "8.5"}, "importance_level"),
        ("save_context", {"content": "x", "ttl": 0}, "ttl"),
        ("save_context", {"content": "x", "ttl": True}, "ttl"),
        ("save_context", {"content": "x", "namespace": "a//b"}, "namespace"),
        ("save_context", {"content": "x", "namespace": "a", "project_id": "p"}, "namespace"),
        ("load_contexts", {"max_tokens": 0}, "max_tokens"),
        ("load_contexts", {"cursor": "x"}, "cursor"),
        ("load_contexts", {"cursor": 7}, "cursor"),
        ("load_contexts", {"format": "xml"}, "format"),
        ("load_contexts", {"project_id": "\ud800"}, "project_id"),
        ("load_contexts", {"tags_filter": ["a"] * 11}, "tags_filter"),
        ("list_all_projects", {"foo": 1}, "foo"),
        ("get_popular_tags", {"project_id": 7}, "project_id"),
    ],
)
async def test_a_wrong_argument_is_named_and_nothing_is_stored(
    held: Held, name: str, arguments: dict[str, Any], field: str
) -> None:
    answer = await ask(held, name, arguments)
    assert answer.is_error
    assert answer.structured["error"]["field"] == field
    assert (await held.storage.stats(("",), 0, top=1)).memories == 0


async def test_a_lone_surrogate_anywhere_in_a_call_that_can_be_repeated_is_refused(held: Held) -> None:
    answer = await ask(held, "save_context", {"content": "x", "tags": [{"\ud800": 1}]}, key="call")
    assert answer.structured["error"]["field"] == "arguments"


@pytest.mark.parametrize(("sent", "shown"), [(7.0, "7.0/10"), ("8", "8/10"), (" 9 ", " 9 /10"), (10, "10/10")])
async def test_importance_is_shown_as_it_was_sent(held: Held, sent: Any, shown: str) -> None:
    text = await told(held, "save_context", EXTENDED_MEMORY, content="x", importance_level=sent)
    assert f"- Importance: {shown}\n" in text
    assert f"Importance: {int(float(sent))}/10" in await told(held, "load_contexts", EXTENDED_MEMORY)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ([" B ", "a", "b", 5, None, ""], ["a", "b"]),
        ("to-o", ["-", "o", "t"]),
        ({"K": 1}, ["k"]),
        (5, []),
        (None, []),
    ],
)
async def test_tags_are_kept_as_the_older_server_read_them(held: Held, sent: Any, kept: list[str]) -> None:
    await told(held, "save_context", content="x", importance_level=7, tags=sent)
    text = await told(held, "load_contexts")
    assert (f"🏷️ Tags: {', '.join(kept)}\n" in text) is bool(kept)


@pytest.mark.parametrize(
    ("limit", "shown"),
    [
        *((3, 3), ("3", 3), (" 3.0 ", 3), (3.0, 3), (True, 1), (0, 0), (-1, 10), (11, 11), ("12", 12), (10**12, 14)),
        *((None, 0), ("abc", 0), (2.5, 0), ([3], 0), (2**63, 0), (1e300, 0)),
    ],
)
async def test_a_limit_is_read_as_the_older_storage_read_it(held: Held, limit: Any, shown: int) -> None:
    await saved(held, 14)
    text = await told(held, "load_contexts", EXTENDED_MEMORY, project_id="p", limit=limit)
    assert text.count("(ID: ") == shown


@pytest.mark.parametrize(
    "sent", [0, -1, 999, "abc", "", "9_9", "+1", 1.0, True, None, [1], {}, 2**70, "9" * 5000, "\ud800"]
)
async def test_what_names_no_context_deletes_nothing(held: Held, sent: Any) -> None:
    await saved(held, 2)
    assert (await refused(held, "forget_context", context_id=sent)).startswith("❌ Context not found!")
    assert (await held.storage.stats(("",), 0, top=1)).memories == 2


@pytest.mark.parametrize("form", ["{}", " {} ", "00{}"])
async def test_digits_name_a_context(held: Held, form: str) -> None:
    text = await told(held, "save_context", content="x")
    number = text.partition("Context ID: ")[2].partition("\n")[0]
    assert f"- Context ID: {form.format(number)}\n" in await told(
        held, "forget_context", context_id=form.format(number)
    )
    assert (await held.storage.stats(("",), 0, top=1)).memories == 0


async def test_a_call_that_is_repeated_happens_once_and_is_answered_alike(held: Held) -> None:
    first, again = [await ask(held, "save_context", {"content": "x"}, key="a") for _ in range(2)]
    assert first == again
    assert (await held.storage.stats(("",), 0, top=1)).memories == 1
    number = int(str(first.text).partition("Context ID: ")[2].partition("\n")[0])
    first, again = [await ask(held, "forget_context", {"context_id": number}, key="b") for _ in range(2)]
    assert first == again
    assert not again.is_error


async def test_a_failure_of_the_service_is_told_as_one(held: Held) -> None:
    await held.storage.set_read_only("moving")
    text = await refused(held, "save_context", EXTENDED_MEMORY, content="x")
    assert text.startswith("❌ Error saving context: The service is read-only: moving\n")


@pytest.mark.parametrize("content", ["a\0b", "", "  \n", "x" * 5_000_000], ids=["NUL", "empty", "blank", "5 MB"])
async def test_content_is_kept_as_it_came(held: Held, content: str) -> None:
    await told(held, "save_context", EXTENDED_MEMORY, content=content, importance_level=7)
    assert f"📝 {content}\n\n" in await told(held, "load_contexts", EXTENDED_MEMORY)


async def test_a_value_that_is_no_text_is_shown_as_json(held: Held) -> None:
    await held.store("k", {"n": [1.50]}, "projects/p", metadata={"importance": 9})
    assert '📝 {"n":[1.5]}\n' in await told(held, "load_contexts", project_id="p")


async def test_a_long_answer_is_cut_and_the_cursor_shows_the_rest(held: Held) -> None:
    await saved(held, 9, "word " * 600)
    whole = await told(held, "load_contexts", EXTENDED_MEMORY, project_id="p")
    assert tokens(whole) > DEFAULT_TOKENS
    seen: list[str] = []
    arguments: dict[str, Any] = {"project_id": "p"}
    while True:
        text = await told(held, "load_contexts", **arguments)
        assert tokens(text) <= DEFAULT_TOKENS
        seen = [line for line in text.split("\n") if line.startswith("🏷️ Tags")] + seen
        if "cursor" not in text:
            break
        arguments["cursor"] = text.partition('cursor "')[2].partition('"')[0]
    assert seen == [f"🏷️ Tags: t{n}" for n in range(9)]
    assert "cursor" not in await told(held, "load_contexts", project_id="p", max_tokens=100_000)


async def test_one_context_that_is_too_long_is_shortened(held: Held) -> None:
    await saved(held, 2, "ü" * 50_000)
    text = await told(held, "load_contexts", project_id="p", max_tokens=500)
    assert tokens(text) <= 500
    assert "(cut after " in text
    assert "cursor" in text


async def test_the_answer_can_be_json_and_is_paged_alike(held: Held) -> None:
    await saved(held, 12)
    answer = await ask(held, "load_contexts", {"project_id": "P", "format": "json"})
    assert json.loads(str(answer.text)) == answer.structured
    assert [one["content"] for one in answer.structured["contexts"]] == [f"text {n}" for n in range(2, 12)]
    assert set(answer.structured["contexts"][0]) == {"id", "created_at", "importance", "tags", "content"}
    rest = await ask(
        held, "load_contexts", {"project_id": "p", "format": "json", "cursor": answer.structured["next_cursor"]}
    )
    assert [one["content"] for one in rest.structured["contexts"]] == ["text 0", "text 1"]
    assert "next_cursor" not in rest.structured
    small = await ask(held, "load_contexts", {"project_id": "p", "format": "json", "max_tokens": 250})
    assert 0 < len(small.structured["contexts"]) < 10
    assert "next_cursor" in small.structured


async def test_a_context_can_lie_in_a_namespace_and_be_forgotten_by_itself(held: Held) -> None:
    text = await told(held, "save_context", content="x", importance_level=7, namespace="team/web", ttl=60)
    assert "- Project: team/web\n" in text
    assert "for project 'team/web'" in await told(held, "load_contexts", namespace="team/web")
    assert "No projects found" in await told(held, "list_all_projects")
    held.clock.advance(60)
    assert "No saved contexts found" in await told(held, "load_contexts", namespace="team/web")


async def test_a_long_list_of_projects_is_cut_and_gone_on_with(held: Held) -> None:
    for n in range(30):
        await told(held, "save_context", content="x", project_id=f"{n:02} {'p' * 600}")
    text = await told(held, "list_all_projects")
    assert tokens(text) <= DEFAULT_TOKENS
    shown = text.count("\n- ")
    more = json.loads(text.partition("with cursor ")[2].partition("\n")[0])
    rest = await told(held, "list_all_projects", cursor=more)
    while "with cursor " in rest:
        shown += rest.count("\n- ")
        rest = await told(
            held, "list_all_projects", cursor=json.loads(rest.partition("with cursor ")[2].partition("\n")[0])
        )
    assert shown + rest.count("\n- ") == 30
    assert "... and" not in await told(held, "list_all_projects", EXTENDED_MEMORY)


async def test_instructions_stand_before_contexts_unless_they_are_left_out(held: Held, tmp_path: Path) -> None:
    path = tmp_path / "instructions.md"
    path.write_text("Be brief.\n")
    held.service.contexts.instructions = path
    assert "Be brief" not in await told(held, "load_contexts", EXTENDED_MEMORY)
    await told(held, "save_context", content="x", importance_level=7)
    text = await told(held, "load_contexts", EXTENDED_MEMORY)
    assert text.startswith("## Custom Instructions\n\nBe brief.\n\n🧠 **Memory Loaded Successfully**")
    for off in (False, "False", "off", 0, None):
        assert (await told(held, "load_contexts", EXTENDED_MEMORY, init_load=off)).startswith("🧠")
    for on in (True, "", "yes", 1):
        assert (await told(held, "load_contexts", EXTENDED_MEMORY, init_load=on)).startswith("##")


def test_the_tools_are_described_in_few_words() -> None:
    listed = [
        {
            "name": tool.name,
            "title": tool.title,
            "description": tool.description,
            "inputSchema": tool.input,
            "annotations": {
                "readOnlyHint": tool.read_only,
                "destructiveHint": tool.destructive,
                "idempotentHint": tool.idempotent,
                "openWorldHint": False,
            },
        }
        for tool in UNIFIED_TOOLS
    ]
    assert tokens(json.dumps(listed, separators=(",", ":"))) <= 1_250


def test_the_older_profile_takes_the_older_arguments_alone() -> None:
    taken = {tool.name: set(tool.input["properties"]) for tool in EXTENDED_MEMORY.tools}
    assert taken == {
        "save_context": {"content", "importance_level", "tags", "project_id"},
        "load_contexts": {"project_id", "importance_level", "limit", "tags_filter", "init_load"},
        "forget_context": {"context_id"},
        "list_all_projects": set(),
        "get_popular_tags": {"limit", "min_usage", "project_id"},
    }
    assert all("additionalProperties" not in tool.input for tool in EXTENDED_MEMORY.tools)
    assert all(tool.input["additionalProperties"] is False for tool in UNIFIED_TOOLS)
