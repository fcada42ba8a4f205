"""Letta: agents exported as agent files, `.af` (https://github.com/letta-ai/agent-file).

Two formats are about. In the earlier one a file is one agent, with its blocks as `core_memory`, its `messages` and no ids; now
it has lists of `agents`, `blocks` and `files` that refer to each other by ids (AgentFileSchema in letta/schemas/agent_file.py).
"""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, ClassVar, Self

from msgspec import Struct

from unified_memory.model.errors import SourceError
from unified_memory.model.value import encode
from unified_memory.sources import foreign
from unified_memory.sources.base import Found, Item, Options, Skipped, Source, Survey
from unified_memory.sources.foreign import Part, UnfitError, parts_of
from unified_memory.sources.sqlite_file import source_errors

_ENDING = ".af"
_REST = "rest"
_MESSAGES = "messages"
_CONFIGURATION = "It is how the agent is set up, and no memory"
# The first message says again what the system prompt and the blocks say.
_COMPOSED = "It is the prompt that Letta composes of the agent's blocks"
_PLACED = frozenset(
    {
        "id",
        "agent_id",
        "label",
        "value",
        "content",
        "type",
        "role",
        "tags",
        "description",
        "metadata",
        "metadata_",
        "created_at",
        "updated_at",
    }
)
_NOTHING: tuple[Any, ...] = (None, [], {}, "")
# What else a message may say than its text.
_ACTS = ("tool_calls", "tool_returns", "approvals")


class _Agent(Struct):
    """What the rest of a file needs to know of an agent. `name`: unlike that of any other in the file."""

    id: str
    name: str
    blocks: frozenset[str]


_NOBODY = _Agent("", "", frozenset())


class Letta(Source):
    """An agent file, or a folder of them. A block's key is `block/` and its label; its project is the name of its agent."""

    kind: ClassVar[str] = "letta"
    takes: ClassVar[str] = "a file or a folder"

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def open(cls, location: str, options: Options) -> Self:  # noqa: ARG003 - there is nothing else to say of it
        """The file or folder; see Source."""
        source = cls(foreign.path_of(location))
        source._files()
        return source

    def survey(self) -> Survey:
        """Counts blocks, messages and files of each agent; see Source."""
        projects: Counter[str] = Counter()
        records = 0
        for found in self.read():
            if isinstance(found, Item):
                records += 1
                if found.project is not None:
                    projects[found.project] += 1
            elif found.origin == _REST:
                raise SourceError(self.kind, str(self._path), "It is no whole JSON file", hint="Export the agent again")
        return Survey(
            kind=self.kind,
            location=str(self._path),
            records=records,
            projects=dict(projects),
            remarks=[
                "An agent file holds neither archival memory nor all of a long conversation; Letta leaves them out",
                "Tools, prompts, models and secrets of agents stay behind",
            ],
            bytes=sum(foreign.size_of(path, self.kind) for path in self._files()),
        )

    def read(self) -> Iterator[Found]:
        """Blocks, messages and files, in the order of the files; see Source.

        What an earlier one is called already, such as a block in another export of the same agent, has its origin in its key.
        """
        places: set[tuple[str | None, str]] = set()
        for found in self._found():
            if isinstance(found, Item):
                if (found.project, found.key) in places:
                    found.key = f"{found.key}~{found.origin}"
                places.add((found.project, found.key))
            yield found

    def token(self) -> object:
        """See Source."""
        return [(path.name, *foreign.file_token(path, self.kind)) for path in self._files()]

    def close(self) -> None:
        """See Source. A file is open only while it is read."""

    def _found(self) -> Iterator[Found]:
        for path in self._files():
            before = f"{path.name}/" if self._path.is_dir() else ""
            if path.is_symlink() and self._path.is_dir():
                yield Skipped(origin=path.name, reason="It is a symbolic link")
                continue
            with foreign.opened(path, self.kind) as file:
                try:
                    yield from self._file(_unquoted(file), before)
                except UnfitError as unfit:
                    if not before:
                        raise SourceError(self.kind, str(path), unfit.reason) from None
                    file.seek(0)
                    yield unfit.quarantined(path.name, file.read())

    def _files(self) -> list[Path]:
        if not self._path.is_dir():
            foreign.check_file(self._path, self.kind)
            return [self._path]
        with source_errors(self.kind, self._path):
            found = sorted(path for path in self._path.iterdir() if path.suffix == _ENDING and path.is_file())
        if not found:
            raise SourceError(self.kind, str(self._path), "There is no .af file in it")
        return found

    def _file(self, file: BinaryIO, before: str) -> Iterator[Found]:
        agents = _agents_in(file)
        alone = agents[0] if len(agents) == 1 else None
        file.seek(0)
        for part in parts_of(file):
            origin = f"{before}{part.name}/{part.index}"
            if not part.whole:
                yield UnfitError("malformed", "The file ends in the middle of it").quarantined(before + _REST, part.raw)
            elif part.index is None:
                # The file's own members, or those of the one agent that it is.
                continue
            elif part.name == "agents":
                # The file may have been written anew since its agents were gathered.
                yield from _of_agent(part, agents[part.index] if part.index < len(agents) else _NOBODY, origin)
            elif part.name in {"blocks", "core_memory"}:
                yield _judged(part, origin, partial(_block, agents))
            elif part.name == _MESSAGES:
                yield _judged(part, origin, partial(_message, alone))
            elif part.name == "files":
                yield _judged(part, origin, partial(_attachment, alone))
            elif part.raw.startswith(b"{"):
                yield Skipped(origin=origin, reason=_CONFIGURATION)


def _unquoted(file: BinaryIO) -> BinaryIO:
    """The file, or what it says where it is one JSON text, as the command line of some versions writes it."""
    quoted = file.read(1) == b'"'
    file.seek(0)
    if not quoted:
        return file
    text = foreign.json_of(file.read(), "It")
    return BytesIO(str(text).encode())


def _agents_in(file: BinaryIO) -> list[_Agent]:
    """The agents of a file, in order; where it has no list of them the one that it is."""
    agents = [_agent(BytesIO(part.raw)) for part in parts_of(file) if part.name == "agents" and part.index is not None]
    if not agents:
        file.seek(0)
        return [_agent(file)]
    names = Counter(agent.name for agent in agents)
    for agent in agents:
        if names[agent.name] > 1:
            agent.name = f"{agent.name} {agent.id}"
    return agents


def _agent(file: BinaryIO) -> _Agent:
    members = {"id": "", "name": ""}
    blocks: set[str] = set()
    try:
        for part in parts_of(file):
            if part.index is None and part.name in members:
                members[part.name] = _text(part.raw)
            elif part.index is not None and part.name == "block_ids":
                blocks.add(_text(part.raw))
    except UnfitError:
        # It is told when its turn comes.
        return _NOBODY
    return _Agent(members["id"], members["name"] or members["id"], frozenset(blocks))


def _text(raw: bytes) -> str:
    try:
        text = foreign.json_of(raw, "It")
    except UnfitError:
        return ""
    return text if isinstance(text, str) else ""


def _of_agent(part: Part, agent: _Agent, origin: str) -> Iterator[Found]:
    """Its messages; the rest of it is told as one."""
    try:
        for inner in parts_of(BytesIO(part.raw)):
            if inner.index is not None and inner.name == _MESSAGES:
                yield _judged(inner, f"{origin}/{_MESSAGES}/{inner.index}", partial(_message, agent))
    except UnfitError as unfit:
        yield unfit.quarantined(origin, part.raw)
    else:
        yield Skipped(origin=origin, reason=_CONFIGURATION)


def _judged(part: Part, origin: str, make: Callable[[dict[str, Any], bytes, str], Item | Skipped]) -> Found:
    try:
        members = foreign.object_of(part.raw)
        found = make(members, part.raw, origin)
    except UnfitError as unfit:
        return unfit.quarantined(origin, part.raw)
    if isinstance(found, Item):
        found.notes += foreign.huge_integers(members)
    return found


def _block(agents: list[_Agent], block: dict[str, Any], _: bytes, origin: str) -> Item:
    value = block.get("value")
    if not isinstance(value, str):
        raise UnfitError("malformed", "Its value is no text")
    label, name = (text if isinstance(text, str) and text else None for text in (block.get("label"), block.get("id")))
    place = origin.rpartition("/")[2]
    owners = [agent for agent in agents if name in agent.blocks] if name is not None else agents
    facts = _facts(block, "letta_block") | ({} if label is None else {"label": label})
    if len(owners) > 1:
        facts["letta_agents"] = [agent.name for agent in owners]
    return _item(
        block,
        origin,
        # The labels of one agent differ from each other.
        key=f"block/{label or place}" if len(owners) == 1 else f"block/{name or place}/{label or place}",
        value=encode(value),
        agent=owners[0] if len(owners) == 1 else None,
        facts=facts,
    )


def _message(agent: _Agent | None, message: dict[str, Any], raw: bytes, origin: str) -> Item | Skipped:
    role = message.get("role")
    if role == "system":
        return Skipped(origin=origin, reason=_COMPOSED)
    text = None if any(message.get(act) for act in _ACTS) else _only_text(message.get("content"))
    facts = _facts(message, "letta_message") if text is not None else {}
    if isinstance(message.get("id"), str):
        facts["letta_id"] = message["id"]
    if isinstance(role, str):
        facts["role"] = role
    name = facts.get("letta_id") or origin.rpartition("/")[2]
    value = raw if text is None else encode(text)
    return _item(message, origin, key=f"message/{name}", value=value, agent=agent, facts=facts)


def _only_text(content: Any) -> str | None:
    """The text of a message that says nothing else."""
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        (part,) = content
        others = {name for name, told in part.items() if told is not None} - {"type", "text"}
        content = part.get("text") if part.get("type") == "text" and not others else None
    return content if isinstance(content, str) else None


def _attachment(agent: _Agent | None, about: dict[str, Any], _: bytes, origin: str) -> Item | Skipped:
    content, name = about.get("content"), about.get("file_name") or about.get("original_file_name")
    if content is None:
        return Skipped(origin=origin, reason="The content of the file is not in the agent file")
    if not isinstance(content, str):
        raise UnfitError("malformed", "Its content is no text")
    place = about.get("id") or origin.rpartition("/")[2]
    item = _item(
        about,
        origin,
        key=f"file/{place}/{name or ''}",
        value=encode(content),
        agent=agent,
        facts=_facts(about, "letta_file"),
    )
    item.created_at = (
        foreign.instant_of(about.get("file_creation_date")) if item.created_at is None else item.created_at
    )
    changed = foreign.instant_of(about.get("file_last_modified_date"))
    item.updated_at = changed if item.updated_at is None else item.updated_at
    return item


def _facts(members: dict[str, Any], others: str) -> dict[str, Any]:
    """Its id, description and metadata; and what else it says, as a fact of the name `others`."""
    facts: dict[str, Any] = {}
    if isinstance(members.get("id"), str):
        facts["letta_id"] = members["id"]
    for name in ("description", "metadata", "metadata_"):
        if members.get(name):
            facts[name.rstrip("_")] = foreign.plain(members[name])
    rest = {name: told for name, told in members.items() if name not in _PLACED and told not in _NOTHING}
    return {**facts, others: foreign.plain(rest)} if rest else facts


def _item(
    members: dict[str, Any], origin: str, *, key: str, value: bytes, agent: _Agent | None, facts: dict[str, Any]
) -> Item:
    tags = members.get("tags")
    return Item(
        origin=origin,
        service=Letta.kind,
        shape="record",
        project=agent.name or None if agent is not None else None,
        key=key,
        value=value,
        tags=tuple(dict.fromkeys(tag for tag in tags if isinstance(tag, str) and tag))
        if isinstance(tags, list)
        else (),
        created_at=foreign.instant_of(members.get("created_at")),
        updated_at=foreign.instant_of(members.get("updated_at")),
        facts=facts | ({"agent_id": agent.id} if agent is not None and agent.id else {}),
    )
