"""What the tests of extended-memory 0.9.0 ask, asked anew over the wire of the profile that answers like it.

A class stands for a file of that project's tests, a method for its test of the same name. Its tests call functions on mocks;
here the process is real, and what the mocks held is saved first. Where we differ on purpose, the row of docs/compatibility.md
is named.
"""

import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.mcp.wire import Process, text

VERSION = "2024-11-05"
TOOLS = ["save_context", "load_contexts", "forget_context", "list_all_projects", "get_popular_tags"]
INSTRUCTION = "# How we begin\n\nSay what you remember."
IDENTIFIER = re.compile(r"- Context ID: (\d+)\n")
PROJECT = re.compile(r"^- Project: (.*)$", re.MULTILINE)
INTERNAL_ERROR = -32603
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
pytestmark = pytest.mark.asyncio(loop_scope="module")


async def begun(directory: Path, **environment: str) -> Process:
    """A process that has shaken hands, with these variables and no others."""
    process = await Process.start(directory, "--tools", "extended-memory", environment=environment)
    await process.handshake(VERSION)
    return process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Process]:
    """One that shows no instructions. Each test has projects of its own."""
    process = await begun(tmp_path_factory.mktemp("server"))
    yield process
    await process.kill()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def instructed(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Process]:
    """One with an instruction, and a context in the project `memory mcp`."""
    directory = tmp_path_factory.mktemp("instructed")
    instruction = directory / "instruction.md"
    instruction.write_text(INSTRUCTION)
    process = await begun(directory / "data", CUSTOM_INSTRUCTION_PATH=str(instruction))
    await saved(process, "A memory that outlives the session.", project_id="memory mcp", importance_level=9)
    yield process
    await process.kill()


@pytest_asyncio.fixture(loop_scope="module")
async def fresh(tmp_path: Path) -> AsyncIterator[Process]:
    """One that nothing was ever saved with: for what counts over all projects."""
    process = await begun(tmp_path)
    yield process
    await process.kill()


async def saved(process: Process, content: str, **arguments: Any) -> int:
    """Saves a context; its id."""
    told = text(await process.call("save_context", {"content": content, **arguments}))
    found = IDENTIFIER.search(told)
    assert found is not None, told
    return int(found[1])


async def loaded(process: Process, **arguments: Any) -> str:
    """The text of a load that is no error."""
    result = await process.call("load_contexts", arguments)
    assert result["isError"] is False, result
    return text(result)


def failed(result: Any, beginning: str) -> None:
    """Asserts that the result is a failure of these words: the row "Failures say so (isError)"."""
    assert result["isError"] is True
    assert text(result).startswith(beginning), result
    assert result["structuredContent"]["error"]["code"]


class TestMCPServerResponse:
    """tests/test_mcp_server_response.py."""

    async def test_load_contexts_init_returns_actual_content(self, instructed: Process) -> None:
        told = await loaded(instructed, project_id="memory_mcp", init_load=True, limit=10)
        assert "\n📝 A memory that outlives the session.\n" in told

    async def test_init_load_false_returns_content(self, instructed: Process) -> None:
        arguments = {"project_id": "init_load", "importance_level": 8}
        await saved(instructed, "Sessions go on.", tags=["project", "architecture"], **arguments)
        whole = await loaded(instructed, project_id="init_load", limit=10)
        assert whole.startswith(f"## Custom Instructions\n\n{INSTRUCTION}\n\n🧠 ")
        assert "\n🏷️ Tags: architecture, project\n📝 Sessions go on.\n" in whole
        assert whole.endswith(await loaded(instructed, project_id="init_load", limit=10, init_load=False))
        assert (await loaded(instructed, project_id="init_load", init_load=False)).startswith("🧠 ")

    async def test_context_type_filtering_returns_content(self, instructed: Process) -> None:
        arguments = {"project_id": "filtering", "importance_level": 7}
        await saved(instructed, "How it is made.", tags=["technical", "mcp", "architecture"], **arguments)
        told = await loaded(instructed, project_id="filtering", limit=10, tags_filter=["technical"])
        assert INSTRUCTION in told
        assert "📝 How it is made.\n" in told

    async def test_empty_contexts_handling(self, instructed: Process) -> None:
        told = await loaded(instructed, project_id="nonexistent_project", limit=10)
        assert told.startswith("🔍 No saved contexts found for project 'nonexistent project'.\n")
        assert INSTRUCTION not in told

    async def test_response_format_consistency(self, instructed: Process) -> None:
        result = await instructed.call("load_contexts")
        assert [(block["type"], bool(block["text"])) for block in result["content"]] == [("text", True)]


class TestMCPProtocolHandler:
    """tests/test_protocol_handler.py."""

    async def test_handle_initialize(self, server: Process) -> None:
        answer = (await server.ask("initialize", _hello()))["result"]
        # Row "Messages rather than calls (Protocol)": the name is ours; the version is the one that was asked for.
        assert answer["protocolVersion"] == VERSION
        assert answer["serverInfo"]["name"] == "unified-memory"
        assert {"tools", "prompts", "resources"} <= set(answer["capabilities"])
        assert answer["instructions"]

    async def test_handle_notifications_initialized(self, server: Process) -> None:
        await server.notify("notifications/initialized")
        # The answer of the request behind it is the only one.
        assert (await server.ask("ping"))["result"] == {}
        assert server.others == []

    async def test_handle_prompts_list(self, server: Process) -> None:
        prompts = (await server.ask("prompts/list"))["result"]["prompts"]
        assert [prompt["name"] for prompt in prompts] == ["memory_instructions"]
        assert prompts[0]["description"]

    async def test_handle_prompts_get_memory_instructions(self, server: Process) -> None:
        result = (await server.ask("prompts/get", {"name": "memory_instructions"}))["result"]
        assert result["description"]
        (message,) = result["messages"]
        assert (message["role"], message["content"]["type"]) == ("user", "text")
        assert "load_contexts" in message["content"]["text"]

    async def test_handle_prompts_get_unknown(self, server: Process) -> None:
        # Row "Messages rather than calls (Protocol)": it was -32603.
        error = (await server.ask("prompts/get", {"name": "unknown_prompt"}))["error"]
        assert (error["code"], error["message"]) == (INVALID_PARAMS, "Unknown prompt: unknown_prompt")

    async def test_handle_resources_list(self, server: Process) -> None:
        listed = (await server.ask("resources/list"))["result"]["resources"]
        assert listed[0]["uri"] == "memory://startup-context"

    async def test_handle_resources_read_startup_context(self, server: Process) -> None:
        # Row "The startup context (E8)": it was listed, and failed. Ours is text, not JSON.
        (told,) = (await server.ask("resources/read", {"uri": "memory://startup-context"}))["result"]["contents"]
        assert (told["uri"], told["mimeType"]) == ("memory://startup-context", "text/plain")
        assert told["text"]

    async def test_handle_resources_read_unknown_uri(self, server: Process) -> None:
        # Row "Messages rather than calls (Protocol)": it was -32603.
        error = (await server.ask("resources/read", {"uri": "unknown://uri"}))["error"]
        assert error["code"] == INVALID_PARAMS
        assert error["data"]["uri"] == "unknown://uri"

    async def test_handle_tools_list(self, server: Process) -> None:
        tools = (await server.ask("tools/list"))["result"]["tools"]
        assert [tool["name"] for tool in tools] == TOOLS
        assert all(tool["description"] and tool["inputSchema"]["type"] == "object" for tool in tools)

    async def test_handle_unknown_method(self, server: Process) -> None:
        # Row "Messages rather than calls (Protocol)": it was -32603 "Internal error".
        assert (await server.ask("unknown/method", {}))["error"]["code"] == METHOD_NOT_FOUND


class TestMemoryToolsHandler:
    """tests/test_formatters/test_memory_tools.py: which function a call reaches, and what it says."""

    async def test_execute_tool_save_context(self, server: Process) -> None:
        result = await server.call("save_context", {"content": "Test", "importance_level": 7, "project_id": "route"})
        assert result["isError"] is False
        assert text(result).startswith("✅ Context saved successfully!\n\n📝 **Details:**\n- Context ID: ")
        assert "\n- Importance: 7/10\n" in text(result)
        assert text(result).endswith("\n- Content: Test")

    async def test_execute_tool_load_contexts_init(self, server: Process) -> None:
        await saved(server, "At the start.", project_id="start", importance_level=7)
        assert "📝 At the start.\n" in await loaded(server, project_id="start", init_load=True)

    async def test_execute_tool_load_contexts_regular(self, server: Process) -> None:
        assert "No saved contexts found" in await loaded(server, project_id="regular", init_load=False)

    async def test_execute_tool_forget_context(self, server: Process) -> None:
        number = await saved(server, "To be forgotten.", project_id="forget", importance_level=7)
        told = text(await server.call("forget_context", {"context_id": number}))
        assert told.startswith(f"✅ Context deleted successfully!\n\n📝 **Details:**\n- Context ID: {number}\n")
        assert "No saved contexts found" in await loaded(server, project_id="forget")

    async def test_execute_tool_list_projects(self, server: Process) -> None:
        assert text(await server.call("list_all_projects")).startswith("🗂️ **All Projects** (ignores isolation)\n")

    async def test_execute_tool_unknown_tool(self, server: Process) -> None:
        error = (await server.ask("tools/call", {"name": "unknown_tool", "arguments": {}}))["error"]
        assert (error["code"], error["message"]) == (INTERNAL_ERROR, "Internal error")
        assert error["data"] == "[internal] Unknown tool: unknown_tool"

    async def test_save_context_with_defaults(self, server: Process) -> None:
        told = text(await server.call("save_context", {"content": "Only this."}))
        assert "\n- Project: general\n- Importance: 5/10\n" in told

    async def test_save_context_with_current_project(self, server: Process) -> None:
        # Which project was in use was a variable that no call could set: over the wire it is the one that is named.
        told = text(await server.call("save_context", {"content": "Here.", "project_id": "my_project"}))
        assert "\n- Project: my project\n" in told

    async def test_load_contexts_init_without_personality(self, server: Process) -> None:
        await saved(server, "Nothing else.", project_id="impersonal", importance_level=7)
        result = await server.call("load_contexts", {"project_id": "impersonal", "init_load": True})
        assert text(result).startswith("🧠 **Memory Loaded Successfully**\n")

    async def test_load_contexts_with_data(self, server: Process) -> None:
        number = await saved(server, "What was said.", project_id="data", importance_level=8)
        told = await loaded(server, project_id="data", init_load=False)
        assert "Found 1 saved contexts for project 'data' including 1 from last 24h, 1 high-importance.\n" in told
        assert re.search(rf"\(ID: {number}, Importance: 8/10 \(\d\d-\d\d \d\d:\d\d\)\)\n📝 What was said\.\n", told)

    async def test_forget_context_not_found(self, server: Process) -> None:
        failed(await server.call("forget_context", {"context_id": 999_999}), "❌ Context not found!\n\n📝 **Details:**")

    async def test_error_handling_save_context(self, server: Process) -> None:
        # Rows "Importance (E4)" and "Failures say so (isError)".
        arguments = {"content": "Never.", "importance_level": "high", "project_id": "refused"}
        failed(await server.call("save_context", arguments), "❌ Error saving context: importance_level must be ")
        assert "No saved contexts found" in await loaded(server, project_id="refused", importance_level=1)

    async def test_error_handling_load_contexts(self, server: Process) -> None:
        failed(await server.call("load_contexts", {"project_id": 5}), "❌ Error loading contexts: ")

    async def test_execute_tool_get_popular_tags(self, server: Process) -> None:
        await tagged(server, "routed tags", {"python": 3, "rare": 2})
        arguments = {"limit": 10, "min_usage": 2, "project_id": "routed tags"}
        result = await server.call("get_popular_tags", arguments)
        assert (result["success"], result["total"], result["min_usage"]) == (True, 2, 2)
        assert result["tags"] == [{"tag": "python", "count": 3}, {"tag": "rare", "count": 2}]
        assert text(result).startswith(
            "🏷️ **Popular Tags** (min 2 uses, 2 found)\n\n• `python` (3 uses)\n• `rare` (2 uses)"
        )

    async def test_get_popular_tags_tool_with_min_usage(self, server: Process) -> None:
        await tagged(server, "min usage", {"often": 3, "twice": 2, "once": 1})
        result = await server.call("get_popular_tags", {"limit": 10, "min_usage": 3, "project_id": "min usage"})
        assert result["min_usage"] == 3
        assert "(min 3 uses, 2 found)" in text(result)
        # A tag that was used once, but within a day, is told whatever is asked; one that was used twice is not.
        assert [one["tag"] for one in result["tags"]] == ["often", "once"]

    async def test_get_popular_tags_tool_with_limit(self, server: Process) -> None:
        await tagged(server, "limited", {"python": 3, "database": 2, "rare": 1})
        result = await server.call("get_popular_tags", {"limit": 2, "min_usage": 1, "project_id": "limited"})
        assert result["tags"] == [{"tag": "python", "count": 3}, {"tag": "database", "count": 2}]

    async def test_get_popular_tags_tool_empty_result(self, server: Process) -> None:
        result = await server.call("get_popular_tags", {"min_usage": 5, "project_id": "without tags"})
        assert (result["success"], result["tags"], result["total"]) == (True, [], 0)
        # Row "No tags found (E5)": the message is content too.
        assert text(result) == result["message"] == "No tags found with min_usage >= 5"
        assert result["isError"] is False

    async def test_get_popular_tags_tool_error_handling(self, server: Process) -> None:
        result = await server.call("get_popular_tags", {"project_id": 5})
        # Rows "No tags found (E5)" and "Failures say so (isError)".
        failed(result, "❌ Error: ")
        assert result["success"] is False
        assert result["error"]

    async def test_load_contexts_shows_popular_tags(self, fresh: Process) -> None:
        await tagged(fresh, "shown tags", {"python": 5, "database": 3, "testing": 1})
        line = "🏷️ **Popular Tags:** python (5 uses), database (3 uses), testing (1 uses)\n"
        without = await loaded(fresh, project_id="shown tags", init_load=False)
        assert line in without
        # test_load_contexts_shows_popular_tags_init_load_true and …_both_modes: the other mode says the same.
        assert await loaded(fresh, project_id="shown tags", init_load=True) == without

    async def test_load_contexts_tags_formatting(self, fresh: Process) -> None:
        await tagged(fresh, "formatted tags", {"machine-learning": 2, "web development": 3})
        told = await loaded(fresh, project_id="formatted tags")
        assert "🏷️ **Popular Tags:** web development (3 uses), machine-learning (2 uses)\n" in told

    async def test_load_contexts_empty_tags_list(self, fresh: Process) -> None:
        await saved(fresh, "Test context", importance_level=7)
        told = await loaded(fresh, init_load=False)
        assert "📝 Test context\n" in told
        assert "🏷️" not in told


class TestMemoryToolsProjectIdFiltering:
    """tests/test_formatters/test_memory_tools.py: whose tags are told."""

    async def test_get_popular_tags_tool_with_project_id_parameter(self, server: Process) -> None:
        await tagged(server, "specific-project", {"popular-tag": 3, "frequent-tag": 2})
        await tagged(server, "another of them", {"foreign-tag": 4})
        arguments = {"limit": 20, "min_usage": 2, "project_id": "Specific_Project"}
        result = await server.call("get_popular_tags", arguments)
        assert result["total"] == 2
        assert "`popular-tag` (3 uses)" in text(result)
        assert "`frequent-tag` (2 uses)" in text(result)

    async def test_get_popular_tags_tool_fallback_logic(self, fresh: Process) -> None:
        await tagged(fresh, "some project", {"foreign": 2})
        await tagged(fresh, None, {"my-tag": 2})
        # As with test_save_context_with_current_project: no project named is the general one.
        assert (await fresh.call("get_popular_tags", {"limit": 10}))["tags"] == [{"tag": "my-tag", "count": 2}]

    async def test_execute_tool_passes_project_id_correctly(self, server: Process) -> None:
        await tagged(server, "execute test project", {"here": 2})
        for name in ("execute_test_project", "EXECUTE-TEST-PROJECT"):
            result = await server.call("get_popular_tags", {"limit": 15, "project_id": name})
            assert result["tags"] == [{"tag": "here", "count": 2}]


class TestMemoryToolsEdgeCases:
    """tests/test_formatters/test_memory_tools.py: odd projects, and loads by tags."""

    async def test_get_popular_tags_tool_with_whitespace_project_id(self, fresh: Process) -> None:
        await tagged(fresh, None, {"whitespace-tag": 2})
        result = await fresh.call("get_popular_tags", {"project_id": "   \t\n  "})
        assert result["tags"] == [{"tag": "whitespace-tag", "count": 2}]

    @pytest.mark.parametrize("project", ["", " ", None, "null", "undefined", "0", "-1", "true", "false"])
    async def test_execute_tool_edge_case_project_ids(self, server: Process, project: str | None) -> None:
        result = await server.call("get_popular_tags", {"limit": 10, "project_id": project})
        assert (result["success"], result["isError"]) == (True, False)

    async def test_load_contexts_with_tags_filter_basic(self, server: Process) -> None:
        await saved(server, "Frontend", project_id="filter", importance_level=8, tags=["react", "frontend"])
        await saved(server, "Documents", project_id="filter", importance_level=7, tags=["api", "backend"])
        await saved(server, "Neither", project_id="filter", importance_level=9, tags=["css"])
        arguments = {"importance_level": 7, "init_load": False, "limit": 30, "tags_filter": ["react", "api"]}
        told = await loaded(server, project_id="filter", **arguments)
        assert "Found 2 saved contexts" in told
        assert told.index("📝 Frontend\n") < told.index("📝 Documents\n")
        assert "Neither" not in told

    @pytest.mark.parametrize("tags_filter", [[], None], ids=["empty", "none"])
    async def test_load_contexts_with_empty_and_with_none_tags_filter(self, server: Process, tags_filter: Any) -> None:
        project = f"unfiltered {tags_filter}"
        await saved(server, "With a tag", project_id=project, importance_level=8, tags=["a"])
        await saved(server, "Without", project_id=project, importance_level=8)
        told = await loaded(server, project_id=project, tags_filter=tags_filter, init_load=False)
        assert told == await loaded(server, project_id=project, init_load=False)
        assert "Found 2 saved contexts" in told

    async def test_load_contexts_tags_filter_with_project_isolation(self, server: Process) -> None:
        await saved(server, "Code of A", project_id="project_a", importance_level=8, tags=["react", "project-a"])
        await saved(server, "Code of B", project_id="project_b", importance_level=8, tags=["react"])
        told = await loaded(server, project_id="project_a", tags_filter=["react"], init_load=False)
        assert "📝 Code of A\n" in told
        assert "Code of B" not in told

    async def test_load_contexts_tags_filter_no_results(self, server: Process) -> None:
        await saved(server, "Tagged otherwise", project_id="no results", importance_level=8, tags=["a"])
        told = await loaded(server, project_id="no results", tags_filter=["nonexistent-tag"], init_load=False)
        assert told.startswith("🔍 No saved contexts found for project 'no results'.\n")

    async def test_load_contexts_tags_filter_error_handling(self, server: Process) -> None:
        arguments = {"project_id": "filter", "tags_filter": "problematic-tag", "init_load": False}
        failed(await server.call("load_contexts", arguments), "❌ Error: tags_filter must be a list of strings")

    async def test_load_contexts_tags_filter_overrides_init_load(self, server: Process) -> None:
        await saved(server, "Tagged", project_id="overridden", importance_level=8, tags=["wanted"])
        await saved(server, "Important", project_id="overridden", importance_level=10)
        told = await loaded(server, project_id="overridden", init_load=True, tags_filter=["wanted"])
        assert "📝 Tagged\n" in told
        assert "Important\n" not in told


class TestListAllProjects:
    """tests/test_list_all_projects.py."""

    async def test_list_all_projects_tool_basic(self, server: Process) -> None:
        for project in ("test_project_a", "test_project_b"):
            await saved(server, "In it", project_id=project, importance_level=7)
        result = await server.call("list_all_projects")
        assert "\n- test project a (test project a)\n- test project b (test project b)\n" in text(result)

    async def test_list_all_projects_comprehensive(self, fresh: Process) -> None:
        head = "🗂️ **All Projects** (ignores isolation)\n\n"
        assert text(await fresh.call("list_all_projects")) == f"{head}No projects found in memory system."
        await saved(fresh, "In it", project_id="comprehensive")
        told = text(await fresh.call("list_all_projects"))
        assert told.startswith(f"{head}**Found 1 projects:**\n- comprehensive (comprehensive)\n")


class TestProjectUtils:
    """tests/test_project_utils.py, of which is_default_project has no answer that could be seen from outside."""

    @pytest.mark.parametrize("project", [None, "", "  ", "\t\n"])
    async def test_normalize_project_id_none_and_empty(self, server: Process, project: str | None) -> None:
        assert await known_as(server, project) == "general"

    @pytest.mark.parametrize(
        ("project", "name"),
        [("MyProject", "myproject"), ("EXTENDED-MEMORY", "extended memory"), ("Test_Project", "test project")],
    )
    async def test_normalize_project_id_case_conversion(self, server: Process, project: str, name: str) -> None:
        assert await known_as(server, project) == name

    @pytest.mark.parametrize(
        ("project", "name"),
        [
            ("extended-memory", "extended memory"),
            ("my_project", "my project"),
            ("test-project_name", "test project name"),
            ("a_b-c_d-e", "a b c d e"),
        ],
    )
    async def test_normalize_project_id_underscore_hyphen_replacement(
        self, server: Process, project: str, name: str
    ) -> None:
        assert await known_as(server, project) == name

    @pytest.mark.parametrize(
        ("project", "name"),
        [
            ("  my_project  ", "my project"),
            ("extended-memory\t", "extended memory"),
            ("\n  test_project  \n", "test project"),
        ],
    )
    async def test_normalize_project_id_whitespace_handling(self, server: Process, project: str, name: str) -> None:
        assert await known_as(server, project) == name

    @pytest.mark.parametrize(
        ("project", "name"),
        [("my  project", "my project"), ("test___project", "test project"), ("a---b___c", "a b c")],
    )
    async def test_normalize_project_id_multiple_spaces(self, server: Process, project: str, name: str) -> None:
        assert await known_as(server, project) == name

    @pytest.mark.parametrize(
        ("project", "name"),
        [
            ("Проект_Память", "проект память"),
            ("プロジェクト-メモリ", "プロジェクト メモリ"),
            ("Projet_Mémoire", "projet mémoire"),
            ("مشروع-الذاكرة", "مشروع الذاكرة"),
        ],
    )
    async def test_normalize_project_id_internationalization(self, server: Process, project: str, name: str) -> None:
        assert await known_as(server, project) == name

    @pytest.mark.parametrize(
        ("project", "name"),
        [("_", ""), ("-", ""), ("_-_-_", ""), ("a", "a"), ("123", "123"), ("123_abc-def", "123 abc def")],
    )
    async def test_normalize_project_id_edge_cases(self, server: Process, project: str, name: str) -> None:
        assert await known_as(server, project) == name


async def tagged(process: Process, project: str | None, uses: dict[str, int]) -> None:
    """Saves contexts of that project until each tag is used so often."""
    for i in range(max(uses.values())):
        tags = [tag for tag, count in uses.items() if count > i]
        await saved(process, f"Context {i}", project_id=project, importance_level=8, tags=tags)


async def known_as(process: Process, project: str | None) -> str:
    """The name under which a context of that project is told to be saved, and can be loaded."""
    told = text(await process.call("save_context", {"content": "x", "project_id": project, "importance_level": 7}))
    found = PROJECT.search(told)
    assert found is not None, told
    summary = (await loaded(process, project_id=project)).partition("\n\n🏷")[0]
    assert (f" for project '{found[1]}'" in summary) is bool(found[1])
    return found[1]


def _hello() -> dict[str, Any]:
    return {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "test", "version": "0"}}
