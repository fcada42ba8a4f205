"""Clients of the older tools that check every answer, and know afterwards what each server has to show.

A client that loses its server in the middle of a call does not know whether it was done: both count, but nothing half done, and
nothing twice.
"""

import asyncio
import contextlib
import json
import random
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from tests.conftest import absent
from tests.legacy import commands
from tests.legacy.commands import Start
from tests.legacy.servers import Connection

END_SECONDS = 60.0
# An answer is one line.
LONGEST_LINE = 16 * 1024 * 1024
# The older server shows so many contexts, and takes so many tags to look for.
MOST_SHOWN = 10
_WORDS = ("port", "naïve", "線", "deploy", "🧠", '"quoted"', "a\\b", "line\nbreak", "tab\there")
_PROJECTS = (None, "Alpha_Beta", "gamma")
_SAVED = re.compile(
    r"✅ Context saved successfully!\n\n.*\n- Context ID: (\d+)\n- Project: (.*)\n- Importance: (\d+)/10\n"
)
_SHOWN = re.compile(
    r"\(ID: (\d+), Importance: (\d+)/10 \([^)]*\)\)\n(?:🏷️ Tags: ([^\n]*)\n)?📝 (.*?)\n\n(?=\(ID: |\.\.\. and |\Z)",
    re.DOTALL,
)
_FOUND = re.compile(r"📊 \*\*Summary:\*\* (?:Found|Loaded only) (\d+) saved contexts")


class GoneError(Exception):
    """The server went in the middle of a call."""


class Place(Struct, frozen=True):
    """Where an older service and ours keep what they have. `tools`: its name for the proxy and for ours."""

    directory: Path
    tools: str
    start: Start
    kind: str
    files: Path
    client: "Callable[..., Client]"

    @property
    def source(self) -> str:
        """As `migrate run` is told of it."""
        return f"{self.kind}={self.files}"

    @property
    def data(self) -> tuple[str, ...]:
        """The option that names our data."""
        return "--data-dir", str(self.directory / "ours")

    @property
    def older(self) -> Start:
        """The older server itself."""
        return self.start

    @property
    def proxy(self) -> Start:
        """The proxy before it."""
        command = ("proxy", "stdio", self.tools, "--older", shlex.join(self.start.command))
        return Start(command=(*PROGRAM, *command, *self.data), environment=self.start.environment | QUICK)

    @property
    def ours(self) -> Start:
        """Our server in its place."""
        return Start(command=(*PROGRAM, "mcp", "--tools", self.tools, *self.data), environment=QUICK)


PROGRAM = (sys.executable, "-m", "unified_memory")
# No call of these asks for a meaning.
QUICK = {"UNIFIED_MEMORY_SEMANTIC": "off"}


class Client:
    """One client, with a server of its own that it starts again when it has gone. `doomed`: so many of its next calls kill it."""

    def __init__(self, name: str, directory: Path, start: Start, seed: int) -> None:
        self.name = name
        self.random = random.Random(f"{seed} {name}")
        self.doomed = self.steps = self.deaths = 0
        self._directory = directory
        self._start = start
        self._connection: Connection | None = None

    # ---- its server
    async def start(self) -> None:
        """Starts the server, and greets it."""
        self._connection = await started(self._start, self._directory, self.name)

    async def end(self) -> int:
        """Says nothing more, as a client does that ends; the server's exit status."""
        process = self._server.process
        assert process.stdin is not None
        process.stdin.close()
        async with asyncio.timeout(END_SECONDS):
            return await process.wait()

    async def kill(self) -> None:
        """Ends it by force, where it is still there."""
        if self._connection is not None and self._connection.process.returncode is None:
            self._connection.process.kill()
            await self._connection.process.wait()

    async def ask(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """The result of a call. Raises GoneError where the server goes meanwhile; then a new one is there."""
        connection = self._server
        if self.doomed and self.random.random() < 0.3:
            self.doomed -= 1
            # Long enough for a call that is held back, and short enough for one that is not.
            after = self.random.choice((0.0, 0.002, 0.01, 0.05, 0.3)) * self.random.random()
            asyncio.get_running_loop().call_later(after, _kill, connection.process)
            self.deaths += 1
        try:
            return await connection.call(tool, **arguments)
        except (EOFError, ConnectionError):
            assert self.deaths, f"{self.name}: the server has ended by itself"
            await connection.process.wait()
            await self.start()
            raise GoneError from None

    async def until_told(self, tool: str, **arguments: Any) -> tuple[dict[str, Any], bool]:
        """The result of a call that is made again until it is answered, and whether it was the first time."""
        first = True
        while True:
            try:
                return await self.ask(tool, **arguments), first
            except GoneError:
                first = False

    @property
    def _server(self) -> Connection:
        assert self._connection is not None
        return self._connection

    # ---- what it does
    async def step(self) -> None:
        """Does one thing, and checks what it is told."""
        await self._step()
        self.steps += 1

    async def _step(self) -> None:
        raise NotImplementedError

    def copy(self) -> Any:
        """What is known at this moment."""
        raise NotImplementedError

    def _content(self, number: int) -> str:
        words = self.random.choices(_WORDS, k=self.random.randint(1, 6))
        return f"{self.name} {number} {' '.join(words)}" + "x" * self.random.choice((0, 0, 0, 200, 5000))


class Saved(Struct):
    """A context that was saved once or, the very same, several times. `ids`: of those that are there; `gone`: of those that
    were forgotten; `unknown`: how often it was saved without an answer.
    """

    tag: str
    content: str
    project: str | None
    importance: int
    tags: tuple[str, ...]
    ids: set[int] = field(default_factory=set)
    gone: set[int] = field(default_factory=set)
    unknown: int = 0


class Contexts(Client):
    """A client of extended-memory. Each of its contexts has a tag that no other one has."""

    def __init__(self, name: str, directory: Path, start: Start, seed: int) -> None:
        super().__init__(name, directory, start, seed)
        self.saved: list[Saved] = []

    async def _step(self) -> None:
        match self.random.choices(("save", "load", "forget", "projects", "tags"), (10, 6, 2, 1, 1))[0]:
            case "save":
                with contextlib.suppress(GoneError):
                    await self._save()
            case "load" if self.saved:
                one = self.random.choice(self.saved[-20:])
                told, _ = await self.until_told("load_contexts", **_asked([one]))
                check_shown([one], _shown(told))
            case "forget" if present := [one for one in self.saved if one.ids]:
                await self._forget(self.random.choice(present))
            case "projects":
                told, _ = await self.until_told("list_all_projects")
                projects = {line[2:].rpartition(" (")[0] for line in _text(told).splitlines() if line.startswith("- ")}
                assert projects >= {_project(one.project) for one in self.saved if one.ids}, (self.name, projects)
            case "tags":
                told, _ = await self.until_told("get_popular_tags", limit=5)
                assert told["success"], (self.name, told)

    async def _save(self) -> None:
        if self.saved and self.random.random() < 0.1:
            one = self.random.choice(self.saved)
        else:
            number = len(self.saved)
            tag = f"{self.name}-{number}"
            tags = (tag, *self.random.sample(("common", "Upper", "two words"), self.random.randint(0, 3)))
            content, project = self._content(number), self.random.choice((*_PROJECTS, self.name))
            one = Saved(tag, content, project, self.random.randint(1, 10), tags)
            self.saved.append(one)
        one.unknown += 1
        arguments = {"content": one.content, "importance_level": one.importance, "tags": list(one.tags)}
        told = _text(await self.ask("save_context", **arguments, project_id=one.project))
        one.unknown -= 1
        found = _SAVED.match(told)
        assert found, (self.name, told)
        assert (found[2], int(found[3])) == (_project(one.project), one.importance), (self.name, told)
        number = int(found[1])
        assert all(number not in other.ids | other.gone for other in self.saved), (self.name, "told twice", number)
        one.ids.add(number)

    async def _forget(self, one: Saved) -> None:
        number = self.random.choice(sorted(one.ids))
        one.ids.discard(number)
        one.gone.add(number)
        told, first = await self.until_told("forget_context", context_id=number)
        assert _text(told).startswith("✅ Context deleted") or not first, (self.name, number, _text(told))
        told, _ = await self.until_told("forget_context", context_id=number)
        assert _text(told).startswith("❌ Context not found"), (self.name, number, _text(told))

    def copy(self) -> list[Saved]:
        return [
            Saved(one.tag, one.content, one.project, one.importance, one.tags, set(one.ids), set(one.gone), one.unknown)
            for one in self.saved
        ]


def check_shown(saved: Sequence[Saved], shown: Sequence[tuple[int, int, str, str]]) -> int:
    """Whether a server shows what it has to: (id, importance, tags, content); how many of these."""
    for one in saved:
        mine = [each for each in shown if one.tag in each[2].split(", ")]
        ids = {number for number, *_ in mine}
        assert ids >= one.ids, f"lost: {one}, shown: {mine}"
        assert not ids & one.gone, f"forgotten and there: {one}, shown: {mine}"
        assert len(mine) <= len(one.ids) + one.unknown, f"more than was saved: {one}, shown: {mine}"
        wanted = one.importance, ", ".join(sorted({tag.strip().lower() for tag in one.tags})), one.content
        assert all(each[1:] == wanted for each in mine), f"not as it was saved: {one}, shown: {mine}"
    return len(shown)


async def check_contexts(connection: Connection, clients: Iterable[Sequence[Saved]]) -> None:
    """Whether a server shows all that these clients know of, and nothing else."""
    projects: dict[str, list[Saved]] = {}
    for saved in clients:
        for one in saved:
            projects.setdefault(_project(one.project), []).append(one)
    for project, saved in projects.items():
        seen = 0
        for part in _parts(saved):
            shown = _shown(await connection.call("load_contexts", **_asked(part)))
            seen += check_shown(part, shown)
        # One without its tags is seen by the count alone.
        told = _text(await connection.call("load_contexts", project_id=project, importance_level=0, limit=1_000_000))
        found = _FOUND.search(told)
        assert (0 if found is None else int(found[1])) == seen, f"{project}: {seen} known, {told[:200]}"


def _parts(saved: Sequence[Saved]) -> Iterable[list[Saved]]:
    """As many at a time as can be looked for, and shown."""
    part: list[Saved] = []
    size = 0
    for one in saved:
        most = len(one.ids) + one.unknown
        if part and (size + most > MOST_SHOWN or len(part) == MOST_SHOWN):
            yield part
            part, size = [], 0
        part.append(one)
        size += most
    if part:
        yield part


def _asked(saved: Sequence[Saved]) -> dict[str, Any]:
    tags = [one.tag for one in saved]
    return {"project_id": saved[0].project, "importance_level": 1, "tags_filter": tags, "limit": 2 * MOST_SHOWN}


def _shown(result: dict[str, Any]) -> list[tuple[int, int, str, str]]:
    text = _text(result)
    assert text.startswith(("🧠 **Memory Loaded", "🔍 No saved contexts")), text
    return [(int(number), int(level), tags, content) for number, level, tags, content in _SHOWN.findall(text)]


def _project(project: str | None) -> str:
    return "general" if project is None else project.lower().replace("_", " ").replace("-", " ")


def _text(result: dict[str, Any]) -> str:
    # Ours marks as errors what the older server only writes a cross before.
    return "".join(block["text"] for block in result["content"])


class File(Struct):
    """A file of a memory bank. `content`: None where there is none yet; `unknown`: what it may hold instead. `history`: what was
    to be written, in that order.
    """

    content: str | None = None
    unknown: set[str] = field(default_factory=set)
    history: list[str] = field(default_factory=list)


Files = Mapping[tuple[str, str], File]
WRITE, UPDATE = "memory_bank_write", "memory_bank_update"


class Banking(Client):
    """A client of a memory bank. No other one writes its files. `names`: what the arguments are called."""

    names = ("projectName", "fileName")

    def __init__(self, name: str, directory: Path, start: Start, seed: int) -> None:
        super().__init__(name, directory, start, seed)
        self.files: dict[tuple[str, str], File] = {}
        self._writes = 0

    async def _step(self) -> None:
        match self.random.choices(("write", "update", "read", "projects", "files"), (6, 6, 6, 1, 2))[0]:
            case "write":
                place = self.random.choice(("shared", self.name)), f"{self.name}-{len(self.files)}.md"
                self.files[place] = File()
                await self._put(WRITE, place)
            case "update" if self.files:
                await self._put(UPDATE, self.random.choice(list(self.files)))
            case "read" if self.files:
                await self._read(self.random.choice(list(self.files)))
            case "projects":
                told, _ = await self.until_told("list_projects")
                assert set(_names(told)) >= {project for project, _ in self.files}, (self.name, told)
            case "files" if self.files:
                project, _ = self.random.choice(list(self.files))
                told, _ = await self.until_told("list_project_files", **{self.names[0]: project})
                mine = sorted(file for file in _names(told) if file.startswith(f"{self.name}-"))
                assert mine == sorted(file for at, file in self.files if at == project), (self.name, project, mine)

    async def _put(self, tool: str, place: tuple[str, str]) -> None:
        file, content, lost = self.files[place], self._content(self._writes), False
        self._writes += 1
        while True:
            file.unknown.add(content)
            file.history.append(content)
            try:
                told = await self.ask(tool, **self._named(place), content=content)
            except GoneError:
                lost = True
                # It looks, or says it again.
                if self.random.random() < 0.5:
                    await self._read(place)
                if file.content == content:
                    return
                if file.content is not None:
                    tool = UPDATE
                continue
            if not told.get("isError") and _text(told).startswith(("Successfully ", "File ")):
                file.content, file.unknown = content, set()
                return
            # It was done the first time: the older server from PyPI tells so, and so does ours.
            assert lost, (self.name, place, told)
            assert "already exists" in _text(told), (self.name, place, told)
            await self._read(place)
            assert file.content == content, (self.name, place, told, file)
            return

    async def _read(self, place: tuple[str, str]) -> None:
        file = self.files[place]
        told, _ = await self.until_told("memory_bank_read", **self._named(place))
        content = _read_by(told)
        assert content in {file.content, *file.unknown}, f"{self.name}: {place} is {content!r}, not {file}"
        file.content, file.unknown = content, set()

    def _named(self, place: tuple[str, str]) -> dict[str, str]:
        return dict(zip(self.names, place, strict=True))

    def copy(self) -> dict[tuple[str, str], File]:
        return {place: File(file.content, set(file.unknown), list(file.history)) for place, file in self.files.items()}


class BankingPyPI(Banking):
    """A client of the memory bank from PyPI."""

    names = ("project_name", "file_name")


def _read_by(told: dict[str, Any]) -> str | None:
    """What an answer to a read says the file holds; None where there is no file."""
    if told.get("isError"):
        assert "NotFoundError" in _text(told), told
        return None
    return _text(told) if told["content"] else None


def _names(told: dict[str, Any]) -> list[str]:
    text = _text(told)
    if text.startswith("["):
        names: list[str] = json.loads(text)
        return names
    return text.split(",") if text else []


async def check_files(connection: Connection, clients: Iterable[Files], names: tuple[str, str]) -> None:
    """Whether a server shows all that these clients know of, and nothing else."""
    files = {place: file for known in clients for place, file in known.items()}
    for place, file in files.items():
        content = _read_by(await connection.call("memory_bank_read", **dict(zip(names, place, strict=True))))
        assert content in {file.content, *file.unknown}, f"{place} is {content!r}, not {file}"
    for project in {project for project, _ in files}:
        listed = _names(await connection.call("list_project_files", **{names[0]: project}))
        assert len(listed) == len(set(listed)), (project, listed)
        wanted = {file for at, file in files if at == project and files[at, file].content is not None}
        possible = {file for at, file in files if at == project and files[at, file].unknown}
        assert wanted <= set(listed) <= wanted | possible, (project, set(listed) ^ wanted)


def between(place: Place, before: Sequence[Any], after: Sequence[Any]) -> list[Any]:
    """What a server has to show that was written to until some moment between the two."""
    one = _contexts_between if place.client is Contexts else _files_between
    return [one(*both) for both in zip(before, after, strict=True)]


def _contexts_between(before: Sequence[Saved], after: Sequence[Saved]) -> list[Saved]:
    first = {one.tag: one for one in before}
    between = []
    for one in after:
        then = first.get(one.tag)
        ids, gone = (set(), set()) if then is None else (then.ids - one.gone, then.gone)
        unknown = len(one.ids | one.gone) + one.unknown - len(ids | gone)
        between.append(Saved(one.tag, one.content, one.project, one.importance, one.tags, ids, gone, unknown))
    return between


def _files_between(before: Files, after: Files) -> dict[tuple[str, str], File]:
    between = {}
    for place, file in after.items():
        then = before.get(place, File())
        between[place] = File(then.content, then.unknown | set(file.history[len(then.history) :]), file.history)
    return between


async def check(connection: Connection, place: Place, known: Sequence[Any]) -> None:
    """Whether a server shows all that was known (`Client.copy`), and nothing else."""
    if place.client is Contexts:
        await check_contexts(connection, known)
    else:
        await check_files(connection, known, BankingPyPI.names if place.client is BankingPyPI else Banking.names)


def places(directory: Path) -> dict[str, Place]:
    """The services, each in that directory."""
    contexts = commands.extended_memory(directory)
    npm, pypi = commands.memory_bank_npm(directory), commands.memory_bank_pypi(directory)
    return {
        "extended-memory": Place(
            directory, "extended-memory", contexts, "extended-memory-sqlite", directory / "memory.db", Contexts
        ),
        "memory-bank-npm": Place(directory, "memory-bank", npm, "memory-bank-files", directory / "bank", Banking),
        "memory-bank-pypi": Place(
            directory, "memory-bank-pypi", pypi, "memory-bank-sqlite", directory / "bank.db", BankingPyPI
        ),
    }


async def started(start: Start, directory: Path, name: str) -> Connection:
    """A server, and the handshake done. Skips the test (in CI: fails it) where it is not installed."""
    if not start.installed:
        absent("The older servers are not installed; scripts/setup --legacy does it")
    with (directory / f"{name}.log").open("ab") as log:
        process = await asyncio.create_subprocess_exec(
            *start.command,
            cwd=directory,
            env={"HOME": str(directory), **start.environment},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
            limit=LONGEST_LINE,
        )
    connection = Connection(process)
    await connection.shake_hands()
    return connection


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
