"""The memory bank's tools: both dialects, beyond what was recorded of them."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from tests.rest.asking import make_storage
from unified_memory.mcp.bank import MEMORY_BANK, MEMORY_BANK_PYPI
from unified_memory.mcp.tool import Answer, Call, Profile, ProtocolError, call_tool
from unified_memory.model.clock import SettableClock
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.service.drafting import Limits
from unified_memory.service.service import Service, assemble

PROFILES = (MEMORY_BANK, MEMORY_BANK_PYPI)
SMALL = Limits(value_bytes=1000)


@pytest.fixture(params=["sqlite", "inmemory"])
async def service(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Service]:
    clock = SettableClock()
    one = assemble(make_storage(request.param, tmp_path, clock), clock, SMALL)
    await one.open()
    yield one
    await one.close()


async def ask(service: Service, profile: Profile, tool: str, *, key: str | None = None, **arguments: Any) -> Answer:
    return await call_tool(profile, Call(service, ANONYMOUS, key), tool, arguments)


async def npm(service: Service, tool: str, **arguments: Any) -> str:
    """What the npm dialect says, which succeeds."""
    answer = await ask(service, MEMORY_BANK, tool, **arguments)
    assert answer.text is not None
    assert (answer.is_error, answer.structured, answer.extra) == (False, UNSET, {"tools": []}), answer.text
    return answer.text


async def npm_fails(service: Service, tool: str, **arguments: Any) -> tuple[str, str]:
    """(name, error) of what fails in the npm dialect."""
    answer = await ask(service, MEMORY_BANK, tool, **arguments)
    assert answer.text is not None
    assert (answer.is_error, answer.structured, answer.extra) == (True, UNSET, {"tools": []}), answer.text
    answer.text.encode()
    told = json.loads(answer.text)
    assert list(told) == ["name", "error"]
    return told["name"], told["error"]


async def pypi(service: Service, tool: str, **arguments: Any) -> Any:
    """The result in the PyPI dialect, which succeeds."""
    answer = await ask(service, MEMORY_BANK_PYPI, tool, **arguments)
    assert not answer.is_error, answer.text
    assert list(answer.structured) == ["result"]
    result = answer.structured["result"]
    shown = result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, separators=(",", ":"))
    assert answer.text == (shown if result or result == "" else None)
    return result


async def pypi_fails(service: Service, tool: str, **arguments: Any) -> str:
    """What is said of what fails in the PyPI dialect."""
    answer = await ask(service, MEMORY_BANK_PYPI, tool, **arguments)
    assert answer.is_error
    assert answer.text
    answer.text.encode()
    return answer.text


@pytest.mark.parametrize("profile", PROFILES, ids=lambda one: one.name)
def test_a_profile_has_the_five_tools_and_says_what_they_do(profile: Profile) -> None:
    facts = {tool.name: (tool.read_only, tool.destructive, tuple(tool.input["properties"])) for tool in profile.tools}
    project, file = ("projectName", "fileName") if profile is MEMORY_BANK else ("project_name", "file_name")
    assert facts == {
        "list_projects": (True, False, ()),
        "list_project_files": (True, False, (project,)),
        "memory_bank_read": (True, False, (project, file)),
        "memory_bank_write": (False, False, (project, file, "content")),
        "memory_bank_update": (False, True, (project, file, "content")),
    }
    for tool in profile.tools:
        assert tool.description
        assert tool.input.get("required", []) == list(tool.input["properties"])
        assert (tool.output is None) is (profile is MEMORY_BANK)


async def test_both_spellings_are_understood_in_both_dialects_and_answered_in_ones_own(service: Service) -> None:
    camel, snake = {"projectName": "p", "fileName": "f"}, {"project_name": "p", "file_name": "g"}
    assert await npm(service, "memory_bank_write", **snake, content="n") == "File g written successfully to project p"
    assert (
        await pypi(service, "memory_bank_write", **camel, content="p") == "Successfully wrote file 'f' to project 'p'."
    )
    assert await npm(service, "memory_bank_read", **camel) == "p"
    assert await npm(service, "memory_bank_read", project_name="p", fileName="g") == "n"
    assert await pypi(service, "memory_bank_read", **camel) == "p"
    assert await npm(service, "list_project_files", project_name="p") == "f,g"
    assert await pypi(service, "list_project_files", projectName="p") == ["f", "g"]
    assert await npm_fails(service, "memory_bank_read", project_name="p") == (
        "MissingParamError",
        "Missing parameter: fileName",
    )
    assert await pypi_fails(service, "memory_bank_read", projectName="p") == (
        "Input validation error: 'file_name' is a required property"
    )


async def test_of_two_spellings_ones_own_counts(service: Service) -> None:
    await npm(service, "memory_bank_write", projectName="p", project_name="q", fileName="f", content="x")
    assert await npm(service, "list_projects") == "p"
    assert "projectName\n  Unexpected keyword" in await pypi_fails(
        service, "list_project_files", project_name="p", projectName="q"
    )


async def test_an_existing_file_is_never_written_over(service: Service) -> None:
    place = {"projectName": "p", "fileName": "f"}
    await npm(service, "memory_bank_write", **place, content="first")
    name, error = await npm_fails(service, "memory_bank_write", **place, content="second")
    assert (name, "memory_bank_update" in error) == ("AlreadyExistsError", True)
    told = "Error: File 'f' already exists in project 'p'. Not overwriting."
    assert await pypi_fails(service, "memory_bank_write", **place, content="third") == told
    assert await npm(service, "memory_bank_read", **place) == "first"


@pytest.mark.parametrize("profile", PROFILES, ids=lambda one: one.name)
async def test_a_call_that_is_repeated_happens_once_and_says_the_same(service: Service, profile: Profile) -> None:
    place = {"projectName": "p", "fileName": "f"}
    for tool, content in (("memory_bank_write", "a"), ("memory_bank_update", "b")):
        first = await ask(service, profile, tool, key=tool, **place, content=content)
        again = await ask(service, profile, tool, key=tool, **place, content=content)
        assert (first.is_error, first) == (False, again)
    assert (await service.memories.retrieve(ANONYMOUS, "projects/p", "f")).version == 2
    other = await ask(service, profile, "memory_bank_write", key="memory_bank_write", **place, content="z")
    assert other.is_error
    assert "used for another request" in (other.text or "")


async def test_the_folder_of_the_npm_server_is_the_project_that_is_not_listed(service: Service) -> None:
    for project in ("", "."):
        assert await npm(service, "list_project_files", projectName=project) == ""
    await npm(service, "memory_bank_write", projectName=".", fileName="f", content="x")
    for project in ("", "."):
        assert await npm(service, "list_project_files", projectName=project) == "f"
    assert await npm(service, "list_projects") == ""
    assert await pypi(service, "list_projects") == ["."]


@pytest.mark.parametrize("project", ["..", "../..", "a/b", "/etc", "a..b"])
async def test_no_listing_leaves_the_store(service: Service, project: str) -> None:
    refused = ("InvalidParamError", "Invalid parameter: projectName contains invalid path segments")
    assert await npm_fails(service, "list_project_files", projectName=project) == refused
    assert await pypi(service, "list_project_files", project_name=project) == []
    await pypi(service, "memory_bank_write", project_name=project, file_name=project, content="x")
    assert await npm_fails(service, "list_project_files", projectName=project) == refused
    assert await pypi(service, "list_project_files", project_name=project) == [project]
    assert await npm(service, "list_projects") == project


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (["a", "b"], "a,b"),
        ([], ""),
        ([None, [1, "/"]], ",1,/"),
        ({}, "[object Object]"),
        (1e21, "1e+21"),
        (10**30, "1e+30"),
        ("f.md\n", "f.md\n"),
    ],
)
async def test_a_name_that_npm_cannot_write_is_told_as_javascript_tells_it(
    service: Service, value: Any, told: str
) -> None:
    refused = await npm_fails(service, "memory_bank_write", projectName="p", fileName=value, content="x")
    assert refused == ("InvalidParamError", f"Invalid parameter: {told}")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (5.0, "type number (5)"),
        (12345678901234567890, "type number (12345678901234567000)"),
        (1e-7, "type number (1e-7)"),
        (0.000001, "type number (0.000001)"),
        (-0.25, "type number (-0.25)"),
        (True, "type boolean (true)"),
        ([], "an instance of Array"),
    ],
)
async def test_what_is_no_text_is_told_as_node_tells_it(service: Service, value: Any, told: str) -> None:
    name, error = await npm_fails(service, "memory_bank_read", projectName=value, fileName="f")
    assert name == "UnexpectedError"
    assert error.endswith(f'The "path" argument must be of type string. Received {told}')


async def test_npm_tells_a_missing_project_as_not_found(service: Service) -> None:
    place = {"projectName": "p", "fileName": "f"}
    assert await npm_fails(service, "list_project_files", projectName="p") == (
        "NotFoundError",
        "Resource not found: p",
    )
    for tool in ("memory_bank_read", "memory_bank_update"):
        missing = await npm_fails(service, tool, **place, content="x")
        assert missing == ("NotFoundError", "Resource not found: f")
    assert await pypi(service, "list_project_files", project_name="p") == []


async def test_npm_tells_the_missing_file_before_the_content(service: Service) -> None:
    await npm(service, "memory_bank_write", projectName="p", fileName="f", content="x")
    missing = await npm_fails(service, "memory_bank_update", projectName="p", fileName="g", content=5)
    assert missing == ("NotFoundError", "Resource not found: g")
    assert (await npm_fails(service, "memory_bank_update", projectName="p", fileName="f", content=5))[0] == (
        "UnexpectedError"
    )
    assert await npm(service, "memory_bank_read", projectName="p", fileName="f") == "x"


async def test_npm_writes_a_replacement_for_lone_surrogates_and_pypi_refuses_them(service: Service) -> None:
    await npm(service, "memory_bank_write", projectName="p", fileName="f", content="a\ud800b\udfff\ud83d\ude00\ud800")
    assert await npm(service, "memory_bank_read", projectName="p", fileName="f") == "a\ufffdb\ufffd😀\ufffd"
    arguments = {"projectName": "p", "fileName": "f", "content": "\udc00", "other": "\ud800"}
    assert not (await ask(service, MEMORY_BANK, "memory_bank_update", key="k", **arguments)).is_error
    assert (await ask(service, MEMORY_BANK_PYPI, "memory_bank_update", key="l", **arguments)).is_error
    assert await npm(service, "memory_bank_read", projectName="p", fileName="f") == "\ufffd"
    assert await npm_fails(service, "memory_bank_read", projectName="p\ud800", fileName="x\udc00") == (
        "NotFoundError",
        "Resource not found: x\udc00",
    )
    for name in ("content", "file_name", "project_name"):
        place = {"project_name": "q", "file_name": "f", "content": "x", name: "\ud800"}
        told = await pypi_fails(service, "memory_bank_write", **place)
        assert told.startswith(f"Error: {name} holds a lone surrogate")
    assert await pypi(service, "list_projects") == ["p"]


async def test_pypi_names_all_unexpected_arguments_and_cuts_long_values(service: Service) -> None:
    told = await pypi_fails(service, "list_projects", foo="a" * 60, bar={"x": None})
    more = "\n    For further information visit https://errors.pydantic.dev/2.11/v/unexpected_keyword_argument"
    assert told == (
        "Error calling tool 'list_projects': 2 validation errors for call[list_projects]\nfoo\n"
        f"  Unexpected keyword argument [type=unexpected_keyword_argument, input_value='{'a' * 24}...{'a' * 23}',"
        f" input_type=str]{more}\nbar\n"
        "  Unexpected keyword argument [type=unexpected_keyword_argument, input_value={'x': None}, input_type=dict]"
        f"{more}"
    )


async def test_pypi_tells_what_is_missing_before_what_is_wrong(service: Service) -> None:
    told = await pypi_fails(service, "memory_bank_write", project_name=1, content=None, foo=2)
    assert told == "Input validation error: 'file_name' is a required property"
    told = await pypi_fails(service, "memory_bank_write", project_name="p", file_name=None, content=None, foo=2)
    assert told == "Input validation error: None is not of type 'string'"


async def test_an_empty_file_is_told_apart_from_a_missing_one(service: Service) -> None:
    await pypi(service, "memory_bank_write", project_name="p", file_name="f", content="")
    assert await pypi(service, "memory_bank_read", project_name="p", file_name="f") == ""
    assert await pypi(service, "memory_bank_read", project_name="p", file_name="g") is None
    assert await npm(service, "memory_bank_read", projectName="p", fileName="f") == ""


async def test_every_other_error_is_told_as_one_in_each_dialect(service: Service) -> None:
    arguments = {"projectName": "p", "fileName": "f", "content": "x" * 2000}
    assert await npm_fails(service, "memory_bank_write", **arguments) == (
        "TooLargeError",
        "value is larger than 1000 bytes",
    )
    answer = await ask(service, MEMORY_BANK_PYPI, "memory_bank_write", **arguments)
    assert (answer.is_error, answer.text) == (True, "Error: value is larger than 1000 bytes")
    assert answer.structured["error"]["code"] == "too_large"
    stranger = Call(service, Principal("stranger", ("other",)))
    refused = await call_tool(MEMORY_BANK, stranger, "memory_bank_write", {**arguments, "content": "x"})
    assert refused.is_error
    assert json.loads(refused.text or "")["name"] == "PermissionDeniedError"
    assert await pypi(service, "list_projects") == []


async def test_an_unknown_tool_is_told_as_each_server_told_it(service: Service) -> None:
    with pytest.raises(ProtocolError) as caught:
        await ask(service, MEMORY_BANK, "nope")
    assert (caught.value.code, caught.value.message) == (-32601, "MCP error -32601: Tool nope not found")
    assert await pypi_fails(service, "nope") == "Unknown tool: nope"
