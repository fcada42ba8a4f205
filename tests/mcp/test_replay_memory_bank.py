"""Both profiles of the memory bank against what the older servers answered, recorded call by call."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec import UNSET

from tests.rest.asking import make_storage
from unified_memory.mcp.bank import MEMORY_BANK, MEMORY_BANK_PYPI
from unified_memory.mcp.tool import Answer, Call, Profile, ProtocolError, call_tool
from unified_memory.model.clock import SettableClock
from unified_memory.model.principal import ANONYMOUS
from unified_memory.service.service import assemble

SHARED = Path(__file__).parents[3] / "shared"
RECORDINGS = SHARED / "legacy" / "transcripts"

pytestmark = pytest.mark.skipif(
    not RECORDINGS.is_dir(), reason=f"the recordings of the older servers are not beside the repository, in {SHARED}"
)


class Otherwise(NamedTuple):
    """What is answered otherwise on purpose: the row of FORMATS.md, the reason, how the text begins now."""

    row: str
    reason: str
    says: str
    is_error: bool = True


Table = dict[str, Otherwise]

# Names of which the npm server made no project, as the cases spell them.
NO_PROJECTS = ("with space", "ünï", "日本語", "a\\b", "nul\0x", "~", "$HOME", "x; DROP TABLE files; --", "%", "*")
OUTSIDE = ("a/b", "../evil", "..", "...", "a..b")
NO_FILES = ("with space.md", "ünï.md", "日本語.md", "emoji🔥.md")
LONG = "x" * 39
MISSING = Otherwise(
    "M3", "a missing project is not found; no path is told", '{"name":"NotFoundError","error":"Resource not found: '
)
INSIDE = Otherwise(
    "M2",
    "a listing never leaves the store: names with .. or / are refused as memory_bank_read refuses them",
    '{"name":"InvalidParamError","error":"Invalid parameter: projectName contains invalid path segments"}',
)
NO_PATH = Otherwise(
    "M3",
    "the same error; no path is told",
    '{"name":"UnexpectedError","error":"An unexpected error occurred: Error: ENAMETOOLONG: name too long, ',
)
EXISTS = Otherwise(
    "M1",
    "what was not written is told as an error",
    '{"name":"AlreadyExistsError","error":"File brief.md already exists in project alpha; nothing was written',
)
BY_HAND_TOO = Otherwise(
    "4", "two projects were folders made by hand", "-p,ALPHA,Beta_2.x-y,alpha,contents,names", is_error=False
)
FAILED = Otherwise("6, memory bank, PyPI", "the same words, as an error", "Error: File '")
REFUSED = Otherwise("5", "there was no answer; still nothing is stored", "Error: content holds a lone surrogate")

NPM: Table = {
    "list_files/missing project on empty store": MISSING,
    "list_files/missing project": MISSING,
    "read/missing project": MISSING,
    "update/missing project": MISSING,
    **{f"read/file name {json.dumps(name)}": MISSING for name in NO_FILES},
    **{f"list_files/project name {json.dumps(name)}": MISSING for name in NO_PROJECTS},
    **{f"read/project name {json.dumps(name)}": MISSING for name in NO_PROJECTS},
    **{f"list_files/project name {json.dumps(name)}": INSIDE for name in OUTSIDE},
    "list_files/path traversal ../../../../../../legacy (npm has no validator here)": INSIDE,
    "list_files/path traversal absolute": INSIDE,
    f'write/file name "{LONG} #2': NO_PATH,
    f'write/project name "{LONG}': NO_PATH,
    f'list_files/project name "{LONG}': NO_PATH,
    f'read/project name "{LONG}': NO_PATH,
    "write/existing file (not overwritten)": EXISTS,
    "still alive: list_projects": BY_HAND_TOO,
}
PYPI: Table = {
    "write/existing file (not overwritten)": FAILED,
    "update/missing project": FAILED,
    "update/missing file in existing project": FAILED,
    'memory_bank_update/project_name=""': FAILED,
    "write/content lone surrogate": REFUSED,
}


# The servers read files that were placed into their folder by hand for these; ours has no folder.
BY_HAND = "disk/"


def calls(recording: str) -> Iterator[tuple[str, str, dict[str, Any], Any]]:
    """(case, tool, arguments, answer) of every well-formed call; where a name is used again, ` #2` and so on is added."""
    seen: Counter[str] = Counter()
    lines = (RECORDINGS / recording).read_text(encoding="utf-8").rstrip("\n").split("\n")
    for line in sorted((json.loads(line) for line in lines), key=lambda told: told["seq"]):
        case, request = line["case"], line["request"]
        params = request.get("params") or {}
        arguments = params.get("arguments", {})
        if request.get("method") != "tools/call" or case.startswith(BY_HAND):
            continue
        if isinstance(params.get("name"), str) and isinstance(arguments, dict):
            seen[case] += 1
            name = case if seen[case] == 1 else f"{case} #{seen[case]}"
            response = line["response"] or {}
            yield name, params["name"], arguments, response.get("error", response.get("result"))


def told(answer: Answer) -> dict[str, Any]:
    """The result as it is sent."""
    return {
        "content": [] if answer.text is None else [{"type": "text", "text": answer.text}],
        **({} if answer.structured is UNSET else {"structuredContent": answer.structured}),
        "isError": answer.is_error,
        **answer.extra,
    }


async def differing(profile: Profile, recording: str, directory: Path) -> dict[str, tuple[Any, Any]]:
    """The cases that are answered otherwise: (as recorded, as now)."""
    clock = SettableClock()
    service = assemble(make_storage("sqlite", directory, clock), clock)
    await service.open()
    found: dict[str, tuple[Any, Any]] = {}
    try:
        for case, name, arguments, recorded in calls(recording):
            try:
                now = told(await call_tool(profile, Call(service, ANONYMOUS), name, arguments))
            except ProtocolError as error:
                now = {"code": error.code, "message": error.message}
            if now != recorded:
                found[case] = (recorded, now)
    finally:
        await service.close()
    return found


@pytest.mark.parametrize(
    ("profile", "recording", "listed"),
    [(MEMORY_BANK, "mb_npm_main.jsonl", NPM), (MEMORY_BANK_PYPI, "mb_pypi-2.11_main.jsonl", PYPI)],
    ids=["npm", "pypi"],
)
async def test_every_call_is_answered_as_recorded_except_where_the_table_says_why(
    profile: Profile, recording: str, listed: Table, tmp_path: Path
) -> None:
    found = await differing(profile, recording, tmp_path)
    unlisted = {case: told for case, told in found.items() if case not in listed}
    assert unlisted == {}
    assert [case for case in listed if case not in found] == [], "these are answered as recorded"
    for case, (_, now) in found.items():
        text = now["content"][0]["text"]
        assert (text.startswith(listed[case].says), now["isError"]) == (True, listed[case].is_error), (case, text)


@pytest.mark.parametrize(("recording", "least"), [("mb_npm_main.jsonl", 250), ("mb_pypi-2.11_main.jsonl", 250)])
def test_the_recordings_are_replayed_whole(recording: str, least: int) -> None:
    replayed = list(calls(recording))
    assert len(replayed) >= least
    assert {tool for _, tool, _, _ in replayed} >= {tool.name for tool in MEMORY_BANK.tools}


async def test_no_answer_of_the_npm_dialect_shows_a_path_of_the_machine(tmp_path: Path) -> None:
    leaking = [
        case
        for case, (_, now) in (await differing(MEMORY_BANK, "mb_npm_main.jsonl", tmp_path)).items()
        if "/legacy" in json.dumps(now) or str(tmp_path) in json.dumps(now)
    ]
    assert leaking == []
