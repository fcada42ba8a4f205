"""The older services through their own tools: programs that misbehave, and (slow) the real ones."""

import asyncio
import json
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from tests.conftest import absent
from tests.legacy import commands
from tests.legacy.commands import Start
from unified_memory.model.clock import SettableClock, from_rfc3339
from unified_memory.model.errors import InvalidInputError, SourceError, SourceUnavailableError
from unified_memory.model.value import encode
from unified_memory.sources.base import Back, Item, Options, Quarantined, Shape, Skipped, each
from unified_memory.sources.child import Child
from unified_memory.sources.kinds import open_source
from unified_memory.sources.live import ExtendedMemoryLive, MemoryBankLive

EXTENDED = "extended-memory-mcp"
BANK = "memory-bank-mcp"

# Answers each request as TOLD says: by the method, or by the tool and the project. Prints a greeting first.
FAKE = """
import json, sys
told = json.loads(sys.argv[1])
print("Server running on stdio")
for line in sys.stdin:
    request = json.loads(line)
    if "id" not in request:
        print(json.dumps({"jsonrpc": "2.0", "id": 0, "result": {}}), flush=True)
        continue
    params = request["params"]
    name = params.get("name", request["method"])
    arguments = params.get("arguments", {})
    answer = told.get(name, {"result": {}})
    if isinstance(answer, list):
        answer = answer.pop(0) if len(answer) > 1 else answer[0]
    if answer == "end":
        sys.exit("it has had enough")
    if answer != "silence":
        print(json.dumps({"jsonrpc": "2.0", "id": request["id"], **answer}), flush=True)
"""
TOOLS = {
    EXTENDED: ("save_context", "load_contexts", "forget_context", "list_all_projects", "get_popular_tags"),
    BANK: ("list_projects", "list_project_files", "memory_bank_read", "memory_bank_write", "memory_bank_update"),
}


def fake(kind: str, told: dict[str, Any], *names: str) -> str:
    """The command of a program that has the tools of a kind, whose reading takes these names."""
    schema = {"type": "object", "properties": {name: {} for name in names}}
    tools = [{"name": name, "inputSchema": schema} for name in TOOLS[kind]]
    return shlex.join([sys.executable, "-c", FAKE, json.dumps({"tools/list": {"result": {"tools": tools}}, **told})])


def said(text: str, **more: Any) -> dict[str, Any]:
    return {"result": {"content": [{"type": "text", "text": text}], **more}}


def listing(*entries: str, count: int | None = None) -> dict[str, Any]:
    found = len(entries) if count is None else count
    return said(
        f"🧠 **Memory Loaded Successfully**\n\n📊 **Summary:** Found {found} saved contexts for project 'p'.\n\n"
        f"Memory contexts in chronological order (showing last {found} entries):\n\n"
        + "".join(f"{entry}\n\n" for entry in entries)
    )


PROJECTS = said("🗂️ **All Projects** (ignores isolation)\n\n**Found 1 projects:**\n- p (p)\n\n💡 Use it")
NO_TAGS = {"result": {"success": True, "tags": [], "total": 0}}


def back(shape: Shape, project: str | None, key: str, content: str | None, **more: Any) -> Back:
    facts: dict[str, Any] = {"number": 0, **more}
    return Back(
        origin=facts.pop("origin", None),
        shape=shape,
        project=project,
        key=key,
        content=content,
        value=encode(content),
        **facts,
    )


# ---- programs that misbehave


def test_an_answer_that_does_not_come_is_told() -> None:
    with pytest.raises(SourceUnavailableError, match="did not answer initialize"):
        open_source(EXTENDED, fake(EXTENDED, {"initialize": "silence"}), Options(timeout=0.2))


def test_a_program_that_ends_is_told_with_its_last_words() -> None:
    source = open_source(EXTENDED, fake(EXTENDED, {"list_all_projects": "end"}))
    with pytest.raises(SourceError, match="ended with status 1: it has had enough"):
        list(source.read())
    source.close()
    source.close()


def test_an_error_is_told() -> None:
    answer = {"error": {"code": -32603, "message": "Internal error", "data": "[internal] no"}}
    source = open_source(EXTENDED, fake(EXTENDED, {"list_all_projects": answer}))
    with pytest.raises(SourceError, match="answers tools/call with an error"):
        source.survey()
    source.close()


def test_an_answer_in_words_of_another_program_is_refused() -> None:
    source = open_source(EXTENDED, fake(EXTENDED, {"list_all_projects": said("Here you are")}))
    with pytest.raises(SourceError, match="cannot be read: Here you are"):
        source.survey()
    source.close()


def test_a_list_that_is_not_whole_is_refused() -> None:
    text = "**Found 2 projects:**\n- p (p)\n- odd\n\n💡 Use it"
    source = open_source(EXTENDED, fake(EXTENDED, {"list_all_projects": said(text)}))
    with pytest.raises(SourceError, match="answer of list_all_projects cannot be read"):
        source.survey()
    source.close()


def test_a_program_that_reads_nothing_is_told() -> None:
    child = Child(EXTENDED, shlex.join([sys.executable, "-c", "import signal; signal.pause()"]), Options(timeout=0.2))
    with pytest.raises(SourceUnavailableError, match="read no request"):
        child.request("tools/call", {"content": "x" * 1_000_000})
    os.kill(child.pid, signal.SIGKILL)
    child.close()


def test_what_it_started_itself_ends_with_it() -> None:
    child = Child(EXTENDED, "sh -c 'sleep 600 & exit'", Options())
    child.close()
    assert f"{EXTENDED}-answers" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("location", ["", "'open", "a\0b"])
def test_what_is_no_command_line_is_refused(location: str) -> None:
    with pytest.raises(InvalidInputError) as error:
        open_source(BANK, location)
    assert error.value.facts["field"] == "source"


def test_a_program_that_is_not_there_or_another_one_is_refused() -> None:
    with pytest.raises(SourceError, match="There is no program"):
        open_source(BANK, "/nowhere/at/all --stdio")
    with pytest.raises(SourceError, match="has no tool list_project_files"):
        open_source(BANK, fake(EXTENDED, {}))
    with pytest.raises(SourceError, match="neither projectName nor project_name"):
        open_source(BANK, fake(BANK, {}, "path"))


def test_no_shell_reads_the_command(tmp_path: Path) -> None:
    with pytest.raises(SourceError):
        open_source(BANK, f"{sys.executable} -c pass ; touch {tmp_path}/made")
    assert list(tmp_path.iterdir()) == []


# ---- what the tools of extended-memory show


def test_years_follow_from_the_order() -> None:
    entries = [
        "(ID: 1, Importance: 5/10 (02-29 10:00))\n📝 a",
        "(ID: 2, Importance: 5/10 (12-31 23:59))\n📝 b",
        "(ID: 3, Importance: 5/10 (01-01 00:00))\n📝 c",
    ]
    told = {"list_all_projects": PROJECTS, "get_popular_tags": NO_TAGS, "load_contexts": listing(*entries)}
    source = ExtendedMemoryLive.open(fake(EXTENDED, told), Options(environment={"TZ": "Europe/Berlin"}))
    source.clock = SettableClock(from_rfc3339("2026-01-01T12:00:00Z"))
    items = list(each(source.read()))
    source.close()
    assert [item.facts["legacy_created_at"] for item in items] == [
        "2024-02-29T10:00:00",
        "2025-12-31T23:59:00",
        "2026-01-01T00:00:00",
    ]
    assert items[0].created_at == from_rfc3339("2024-02-29T09:00:00Z")


def test_a_project_that_cannot_be_loaded_is_told() -> None:
    told = {"list_all_projects": PROJECTS, "load_contexts": said("❌ Error loading contexts: no")}
    source = open_source(EXTENDED, fake(EXTENDED, told))
    assert [type(one) for one in source.read()] == [Skipped]
    assert "The project 'p' cannot be loaded by its tools" in source.survey().remarks
    source.close()


EMPTY = said("🗂️ **All Projects** (ignores isolation)\n\nNo projects found in memory system.")
NONE = said("🔍 No saved contexts found for project 'p'.\n\nMemory is currently empty.")


@pytest.mark.parametrize("told", [{"list_all_projects": EMPTY}, {"list_all_projects": PROJECTS, "load_contexts": NONE}])
def test_a_storage_that_fails_is_not_taken_for_an_empty_one(told: dict[str, Any]) -> None:
    source = ExtendedMemoryLive.open(fake(EXTENDED, told), Options())
    assert list(each(source.read())) == []
    assert isinstance(source.lookup("context/1"), Quarantined)
    source.close()


def test_what_is_still_shown_was_not_forgotten() -> None:
    told = {
        "list_all_projects": PROJECTS,
        "get_popular_tags": NO_TAGS,
        "load_contexts": listing("(ID: 1, Importance: 5/10 (01-01 00:00))\n📝 a"),
        "forget_context": said("❌ Context not found!\n"),
    }
    source = ExtendedMemoryLive.open(fake(EXTENDED, told), Options())
    with pytest.raises(SourceError, match="did not forget context 1"):
        source.put_back([back("context", "p", "1", None, origin="context/1")])
    assert [one.origin for one in source.put_back([back("context", "p", "2", None, origin="context/2")])] == [None]
    source.close()


def test_ids_of_redis_and_importance_of_any_kind() -> None:
    entry = "(ID: 0b7c-1, Importance: 11.5/10 (01-01 00:00))\n📝 a"
    odd = "(ID: 0b7c-2, Importance: None/10)\n📝 b"
    told = {"list_all_projects": PROJECTS, "get_popular_tags": NO_TAGS, "load_contexts": listing(entry, odd)}
    source = open_source(EXTENDED, fake(EXTENDED, told))
    first, second = each(source.read())
    source.close()
    assert (first.importance, first.facts["legacy_id"], first.facts["legacy_importance"]) == (10, "0b7c-1", 11.5)
    assert first.facts["legacy_created_at"].endswith("-01-01T00:00:00+00:00")
    assert (second.importance, second.created_at, second.facts) == (
        5,
        None,
        {"legacy_id": "0b7c-2", "legacy_importance": "None"},
    )


def test_a_surrogate_is_quarantined() -> None:
    told = {
        "list_all_projects": PROJECTS,
        "get_popular_tags": NO_TAGS,
        "load_contexts": listing("(ID: 1, Importance: 5/10 (01-01 00:00))\n📝 \ud800"),
    }
    source = open_source(EXTENDED, fake(EXTENDED, told))
    [one] = source.read()
    source.close()
    assert isinstance(one, Quarantined)
    assert (one.origin, one.code) == ("context/1", "surrogate")


def test_a_save_that_failed_is_an_error() -> None:
    told = {
        "get_popular_tags": NO_TAGS,
        "load_contexts": said("🔍 No saved contexts found for project 'p'."),
        "save_context": said("✅ Context saved successfully!\n\n📝 **Details:**\n- Context ID: None\n"),
    }
    source = ExtendedMemoryLive.open(fake(EXTENDED, told), Options())
    with pytest.raises(SourceError, match="did not save"):
        source.put_back([back("context", "p", "1", "x")])
    source.close()


# ---- the real ones


def command(start: Start) -> tuple[str, Options]:
    if not start.installed:
        absent("The older servers are not installed; scripts/setup --legacy does it")
    return shlex.join(start.command), Options(environment=start.environment)


@pytest.fixture
def extended(tmp_path: Path) -> Iterator[ExtendedMemoryLive]:
    source = ExtendedMemoryLive.open(*command(commands.extended_memory(tmp_path)))
    yield source
    source.close()


@pytest.fixture(params=["npm", "pypi"])
def bank(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MemoryBankLive]:
    make = commands.memory_bank_npm if request.param == "npm" else commands.memory_bank_pypi
    source = MemoryBankLive.open(*command(make(tmp_path)))
    yield source
    source.close()


def save(source: ExtendedMemoryLive, content: str, **arguments: Any) -> None:
    source.child.call("save_context", content=content, **arguments)


def rows(path: Path) -> list[tuple[Any, ...]]:
    connection = apsw.Connection(str(path / "memory.db"))
    return connection.execute("SELECT id, project_id, content, importance_level FROM contexts ORDER BY id").fetchall()


@pytest.mark.slow
def test_what_the_tools_show_is_carried(extended: ExtendedMemoryLive, tmp_path: Path) -> None:
    save(extended, "Übung 🎲\n\nzwei", project_id="Web_Shop", importance_level=8, tags=["Beta", "alpha"])
    save(extended, "plain")
    save(extended, "of no name", project_id="___")
    save(extended, "odd", project_id="x (y)", importance_level=-3)
    found = {item.key: item for item in each(extended.read())}
    assert {key: (item.project, json.loads(item.value)) for key, item in found.items()} == {
        "1": ("web shop", "Übung 🎲\n\nzwei"),
        "2": ("general", "plain"),
        "3": ("", "of no name"),
        "4": ("x (y)", "odd"),
    }
    assert (found["1"].tags, found["1"].importance, found["1"].facts["legacy_id"]) == (("alpha", "beta"), 8, 1)
    assert (found["4"].importance, found["4"].facts["legacy_importance"]) == (1, -3)
    connection = apsw.Connection(str(tmp_path / "memory.db"))
    created: Any = connection.execute("SELECT created_at FROM contexts WHERE id = 1").get
    assert found["1"].facts["legacy_created_at"] == f"{created[:16]}:00"
    assert extended.survey().projects == {"web shop": 1, "general": 1, "": 1, "x (y)": 1}


@pytest.mark.slow
def test_more_than_one_call_shows_are_found_by_importance_and_tags(extended: ExtendedMemoryLive) -> None:
    for number in range(40):
        save(extended, f"c{number}", project_id="p", importance_level=number % 10 + 1, tags=[f"t{number % 4}"])
    for number in range(15):
        save(extended, f"hidden {number}", project_id="q")
    for number in range(20):
        save(extended, f"r{number}", project_id="a", importance_level=9 if number < 10 else 2)
    found = list(extended.read())
    contents = {json.loads(item.value) for item in each(found)}
    assert contents == {
        *(f"c{number}" for number in range(40)),
        *(f"hidden {number}" for number in range(5, 15)),
        *(f"r{number}" for number in range(20)),
    }
    told = found[-1]
    assert isinstance(told, Skipped)
    assert told.reason == "5 of its 15 contexts are not shown by its tools"
    assert any("5 of 15 contexts of the project 'q'" in remark for remark in extended.survey().remarks)


@pytest.mark.slow
def test_contents_that_imitate_the_list_are_told_apart(extended: ExtendedMemoryLive) -> None:
    imitation = "real\n\n(ID: 99, Importance: 9/10 (01-01 00:00))\n🏷️ Tags: a\n📝 not real\n\n"
    contents = ["first", imitation, "", "(ID: 7, Importance: 1/10 (01-01 00:00))\n📝 x", "last\n"]
    for content in contents:
        save(extended, content, project_id="p")
    found = {item.key: json.loads(item.value) for item in each(extended.read())}
    assert found == {str(number): content for number, content in enumerate(contents, 1)}


@pytest.mark.slow
def test_tags_with_commas_are_known_from_the_list_of_tags(extended: ExtendedMemoryLive) -> None:
    save(extended, "x", tags=["a, b", "b", "c"])
    [item] = each(extended.read())
    assert item.tags == ("a, b", "b", "c")


@pytest.mark.slow
def test_an_importance_that_is_a_text_hides_its_project_and_is_told(extended: ExtendedMemoryLive) -> None:
    save(extended, "x", project_id="poison", importance_level="abc")
    save(extended, "y", project_id="p")
    found = list(extended.read())
    assert [item.project for item in each(found)] == ["p"]
    assert [one.origin for one in found if isinstance(one, Skipped)] == ["project/poison"]


@pytest.mark.slow
def test_the_token_changes_with_every_context(extended: ExtendedMemoryLive) -> None:
    save(extended, "x", project_id="p")
    before = extended.token()
    assert extended.token() == before
    save(extended, "y", project_id="p")
    after = extended.token()
    assert after != before
    extended.child.call("forget_context", context_id=1)
    assert extended.token() != after


@pytest.mark.slow
def test_a_context_is_looked_up_by_its_id(extended: ExtendedMemoryLive) -> None:
    save(extended, "x", project_id="p")
    found = extended.lookup("context/1")
    assert isinstance(found, Item)
    assert json.loads(found.value) == "x"
    assert extended.find("context", None, "1") == "context/1"
    assert extended.find("file", "p", "1") is None
    assert extended.lookup("context/2") is None
    for number in range(15):
        save(extended, f"hidden {number}", project_id="q")
    hidden = extended.lookup("context/3")
    assert isinstance(hidden, Quarantined)
    assert hidden.code == "unsupported"


@pytest.mark.slow
def test_contexts_go_back_once(extended: ExtendedMemoryLive, tmp_path: Path) -> None:
    save(extended, "unchanged", project_id="p", tags=["a"], importance_level=6)
    save(extended, "old", project_id="p")
    save(extended, "to go", project_id="p")
    backs = [
        back("context", "p", "1", "unchanged", origin="context/1", number=1, tags=("a",), importance=6),
        back("context", "p", "2", "new text", origin="context/2", number=2, importance=9),
        back("context", "p", "3", None, origin="context/3", number=3),
        back("context", "", "k", "of no name", number=70, tags=("Big",), facts={"owner": "me"}, expires_at=1),
    ]
    same, changed, gone, new = extended.put_back(backs)
    expected = [(1, "p", "unchanged", 6), (4, "p", "new text", 9), (5, "", "of no name", 5)]
    assert rows(tmp_path) == expected
    assert (same.origin, same.lost) == ("context/1", ())
    assert changed.origin == "context/4"
    assert any("it was 2 there" in loss for loss in changed.lost)
    assert gone.origin is None
    assert new.origin == "context/5"
    told = " ".join(new.lost)
    assert all(what in told for what in ("id 70", "small letters", "expires", "owner", "created"))
    again = ExtendedMemoryLive.open(*command(commands.extended_memory(tmp_path)))
    assert [one.origin for one in again.put_back(backs)] == ["context/1", "context/4", None, "context/5"]
    again.close()
    assert rows(tmp_path) == expected


@pytest.mark.slow
def test_files_are_carried(bank: MemoryBankLive) -> None:
    bank.put_back([back("file", "p", "a.md", "# Ä\r\n"), back("file", "q", "b.md", "two")])
    items = list(each(bank.read()))
    assert [(item.project, item.key, json.loads(item.value)) for item in items] == [
        ("p", "a.md", "# Ä\r\n"),
        ("q", "b.md", "two"),
    ]
    survey = bank.survey()
    assert (survey.records, survey.projects) == (2, {"p": 1, "q": 1})
    assert bank.find("file", "p", "a.md") == items[0].origin == "file/p/a.md"
    assert bank.find("file", "p", "none.md") is None
    assert bank.lookup("file/p/a.md") == items[0]
    assert bank.lookup("file/none/a.md") is None


@pytest.mark.slow
def test_files_go_back(bank: MemoryBankLive) -> None:
    [first] = bank.put_back([back("file", "p", "a.md", "one")])
    changed, same = bank.put_back([back("file", "p", "a.md", "two"), back("file", "p", "a.md", "two", tags=("t",))])
    assert first.origin == changed.origin == same.origin == "file/p/a.md"
    assert (first.lost, same.lost) == ((), ("Its tags",))
    kept, never = bank.put_back([back("file", "p", "a.md", None), back("file", "p", "gone.md", None)])
    assert kept.origin == "file/p/a.md"
    assert "delete nothing" in kept.lost[0]
    assert (never.origin, never.lost) == (None, ())
    [context] = bank.put_back([back("context", "p", "1", "x")])
    assert (context.origin, len(context.lost)) == (None, 1)
    found = bank.lookup("file/p/a.md")
    assert isinstance(found, Item)
    assert json.loads(found.value) == "two"


@pytest.mark.slow
def test_npm_refuses_empty_files_and_odd_names(tmp_path: Path) -> None:
    bank = MemoryBankLive.open(*command(commands.memory_bank_npm(tmp_path)))
    refused = bank.put_back([back("file", "p", "a.md", ""), back("file", "p", "ü.md", "x")])
    bank.close()
    assert [one.origin for one in refused] == [None, None]
    assert all("refuses it" in one.lost[0] for one in refused)


@pytest.mark.slow
async def test_names_with_commas_are_put_together(tmp_path: Path) -> None:
    for project, name in (("a", "x"), ("a,b", "y,z.md"), ("b", "y"), ("b", "y,z.md")):
        (tmp_path / "bank" / project).mkdir(parents=True, exist_ok=True)
        (tmp_path / "bank" / project / name).write_bytes(name.encode() + (b"\xff" if name == "x" else b""))
    bank = MemoryBankLive.open(*command(commands.memory_bank_npm(tmp_path)))
    items = list(each(await asyncio.to_thread(lambda: list(bank.read()))))
    bank.close()
    assert [(item.project, item.key) for item in items] == [("a", "x"), ("a,b", "y,z.md"), ("b", "y"), ("b", "y,z.md")]
    assert [len(item.notes) for item in items] == [1, 0, 0, 0]


@pytest.mark.slow
def test_a_bank_without_its_root_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    bank = MemoryBankLive.open(*command(commands.memory_bank_npm(tmp_path)))
    for ask in (
        bank.survey,
        lambda: list(bank.read()),
        lambda: bank.lookup("file/p/a.md"),
        lambda: bank.find("file", "p", "a"),
    ):
        with pytest.raises(SourceError, match="list_projects with an error"):
            ask()
    bank.close()


def test_a_failing_file_is_not_taken_for_none() -> None:
    denied = said('{"name":"UnexpectedError","error":"EACCES: permission denied"}', isError=True)
    told = {"list_projects": said("p"), "list_project_files": said("a.md"), "memory_bank_read": denied}
    bank = MemoryBankLive.open(fake(BANK, told, "projectName", "fileName"), Options())
    for ask in (lambda: list(bank.read()), lambda: bank.lookup("file/p/a.md")):
        with pytest.raises(SourceError, match="EACCES"):
            ask()
    bank.close()


@pytest.mark.slow
def test_pypi_keeps_any_name_and_empty_files(tmp_path: Path) -> None:
    bank = MemoryBankLive.open(*command(commands.memory_bank_pypi(tmp_path)))
    backs = [back("file", "", "a/../b, c", ""), back("file", "ü ,", "", "x")]
    assert [one.lost for one in bank.put_back(backs)] == [(), ()]
    items = {(item.project, item.key): json.loads(item.value) for item in each(bank.read())}
    bank.close()
    assert items == {("", "a/../b, c"): "", ("ü ,", ""): "x"}
