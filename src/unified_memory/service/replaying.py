"""The same reads asked of an older service and of ours: the answers are to be the same, byte for byte."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from unified_memory.model.clock import SECOND, Clock
from unified_memory.model.errors import InvalidInputError, RefusedError
from unified_memory.service.bank import file_of
from unified_memory.service.mapping import MIGRATED_EXTENDED, entry_of
from unified_memory.service.projects import project_of
from unified_memory.service.reaching import shape_of_kind
from unified_memory.sources.base import EXTENDED_MEMORY, MEMORY_BANK, Item, OlderSource, Options, Shape
from unified_memory.sources.child import Child
from unified_memory.sources.kinds import open_source
from unified_memory.sources.ledger import Ledger, Row
from unified_memory.storage.base import Storage

# What a tool of ours answers to a client of an older service: (service, tool, arguments) -> the text. The two programs that are
# called memory bank answer in other words, so that PyPI's goes by the name of its tool profile.
Answers = Callable[[str, str, dict[str, Any]], Awaitable[str]]
MEMORY_BANK_PYPI = "memory-bank-pypi"
SHIM = "extended-memory-http"
DIFFERENCES = 20
# Of a text that differs so much is shown.
SHOWN = 2000
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?")


class Replay(Struct, frozen=True):
    """Which older service is asked: the command that starts it, or the URL of the HTTP service of port 3009."""

    older: str
    options: Options = Options()


class ReplayDifference(Struct):
    """A read that was answered otherwise."""

    tool: str
    arguments: dict[str, Any]
    older: str
    ours: str


class Replayed(Struct):
    """How many reads were asked of both, and how many were answered alike; the first differences."""

    asked: int = 0
    same: int = 0
    differences: list[ReplayDifference] = []


class Replaying:
    """Asks both. `answers`: of ours."""

    def __init__(self, storage: Storage, clock: Clock, ledger: Ledger, answers: Answers | None) -> None:
        self._storage = storage
        self._clock = clock
        self._ledger = ledger
        self._answers = answers

    async def run(self, replay: Replay, samples: int) -> Replayed:
        """Asks up to so many reads. Raises SourceError, InvalidInputError naming `older`, RefusedError without `answers`."""
        told = Replayed()
        if replay.older.startswith(("http://", "https://")):
            await self._shim(replay, samples, told)
        else:
            await self._tools(replay, samples, told)
        return told

    async def _shim(self, replay: Replay, samples: int, told: Replayed) -> None:
        source = await asyncio.to_thread(open_source, SHIM, replay.older, replay.options)
        try:
            if not isinstance(source, OlderSource):  # that kind is one
                raise TypeError
            for row in await asyncio.to_thread(lambda: list(self._rows("entry", samples))):
                if row.namespace != MIGRATED_EXTENDED:
                    continue
                key = entry_of(row.key)
                origin = await asyncio.to_thread(source.find, "entry", None, key)
                found = None if origin is None else await asyncio.to_thread(source.lookup, origin)
                memory = await self._storage.get(row.namespace, row.key, self._clock.now())
                older = found.value.decode() if isinstance(found, Item) else ""
                ours = "" if memory is None else memory.value.decode()
                self._note(told, "retrieve", {"key": key}, older, ours)
        finally:
            await asyncio.to_thread(source.close)

    async def _tools(self, replay: Replay, samples: int, told: Replayed) -> None:
        answers = self._answers
        if answers is None:
            raise RefusedError(
                "Nobody answers here as the older tools do", hint="unified-memory migrate verify asks them"
            )
        child = await asyncio.to_thread(Child, "older", replay.older, replay.options)
        try:
            tools = {str(tool.get("name")): tool for tool in await asyncio.to_thread(child.open)}
            if "load_contexts" in tools:
                service, reads = EXTENDED_MEMORY, await asyncio.to_thread(lambda: list(self._context_reads(samples)))
            elif "memory_bank_read" in tools:
                npm = "projectName" in msgspec.json.encode(tools["memory_bank_read"]).decode()
                service = MEMORY_BANK if npm else MEMORY_BANK_PYPI
                reads = await asyncio.to_thread(lambda: list(self._bank_reads(samples, npm=npm)))
            else:
                raise InvalidInputError("older", "The command starts neither extended-memory nor a memory bank")
            for tool, arguments in reads[:samples]:
                result = await asyncio.to_thread(partial(child.call, tool, **arguments))
                ours = await answers(service, tool, arguments)
                self._note(told, tool, arguments, _text(result), ours)
        finally:
            await asyncio.to_thread(child.close)

    def _context_reads(self, samples: int) -> Iterator[tuple[str, dict[str, Any]]]:
        yield "list_all_projects", {}
        for project in self._projects("context", samples):
            # The name that is made of separators alone is the empty one there.
            named = {"project_id": project or "___"}
            yield "load_contexts", {**named, "importance_level": 1}
            yield "get_popular_tags", named

    def _bank_reads(self, samples: int, *, npm: bool) -> Iterator[tuple[str, dict[str, Any]]]:
        project_name, file_name = ("projectName", "fileName") if npm else ("project_name", "file_name")
        yield "list_projects", {}
        rows = list(self._rows("file", samples))
        for project in dict.fromkeys(project_of(row.namespace) for row in rows):
            if project is not None:
                yield "list_project_files", {project_name: project}
        for row in rows:
            project, file = project_of(row.namespace), file_of(row.key)
            if project is not None and file is not None:
                yield "memory_bank_read", {project_name: project, file_name: file}

    def _projects(self, shape: Shape, samples: int) -> Iterator[str]:
        projects = dict.fromkeys(project_of(row.namespace) for row in self._rows(shape, 10 * samples))
        return (project for project in projects if project is not None)

    def _rows(self, shape: Shape, samples: int) -> Iterator[Row]:
        """Up to so many rows of sources of that shape, from all over them."""
        last = self._ledger.last_number()
        for ref in self._ledger.sources():
            if shape_of_kind(ref.kind) != shape:
                continue
            after = 0
            while rows := self._ledger.page(ref.id, after, 1):
                yield rows[0]
                after = max(rows[0].number, after + last // max(1, samples))

    def _note(self, told: Replayed, tool: str, arguments: dict[str, Any], older: str, ours: str) -> None:
        told.asked += 1
        if older == ours or self._masked(older) == self._masked(ours):
            told.same += 1
        elif len(told.differences) < DIFFERENCES:
            told.differences.append(ReplayDifference(tool, arguments, older[:SHOWN], ours[:SHOWN]))

    def _masked(self, text: str) -> str:
        """The text without times of this day, which are when it was asked."""
        today = datetime.fromtimestamp(self._clock.now() / SECOND, UTC).date().isoformat()
        return _TIME.sub(lambda found: "now" if found[1] == today else found[0], text)


def _text(result: dict[str, Any]) -> str:
    blocks = result.get("content")
    parts = blocks if isinstance(blocks, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
