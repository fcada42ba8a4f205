"""The memory bank: projects of text files, each file a memory whose key is its name and whose value is its content."""

import re

import msgspec
from msgspec import Raw

from unified_memory.model.clock import Clock
from unified_memory.model.errors import InvalidInputError, TooLargeError
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import MAX_SEGMENT_BYTES, MAX_SEGMENTS, check_namespace
from unified_memory.model.principal import Principal
from unified_memory.model.query import MAX_LIMIT, Comparison, Not, Op, Order, Selection, parse_field
from unified_memory.model.value import encode
from unified_memory.service.memories import Memories
from unified_memory.service.projects import PROJECTS, project_namespace, project_of
from unified_memory.service.requests import Conditions, Idempotent, StoreRequest, UpdateRequest
from unified_memory.storage.base import Storage

# Keys that begin so are contexts, which another tool keeps in the namespace of the same project.
CONTEXTS = "context/"
# Groups cannot be asked for page by page; this is the largest limit that a backend takes.
ALL = 2**63 - 1
# Of the segments below `projects`.
MAX_PROJECT_BYTES = (MAX_SEGMENTS - 1) * MAX_SEGMENT_BYTES

_KEY = parse_field("key")
_NAMESPACE = parse_field("namespace")
_IS_FILE = Not(Comparison(_KEY, Op.STARTSWITH, CONTEXTS))
_CREATE = Conditions(create_only=True)

# What a name says by itself, but could be taken for an escape (of any depth) in a key.
_LIKE_ESCAPE = re.compile(r"%(?=(?:25)*00)|\A%(?=(?:25)*(?:63ontext/|\Z))")
_ESCAPE = re.compile(r"%(?:(00)|25(?=(?:25)*00))|\A%(?:(63)(?=ontext/)|25(?=(?:25)*(?:63ontext/|\Z)))")


def file_key(name: str) -> str:
    """The key of a file: its name, in which what no key of a file can hold is percent-encoded; the empty name is `%`.

    That is NUL anywhere and `context/` at the beginning, and `%` where an escape could be read into the name. Every
    name has a key of its own, and every key that is no context's is that of a name.
    """
    if not name:
        return "%"
    if name.startswith(CONTEXTS):
        name, head = name[1:], "%63"
    else:
        head = ""
    return head + _LIKE_ESCAPE.sub("%25", name).replace("\0", "%00")


def file_of(key: str) -> str | None:
    """The file whose key it is; None where it is none."""
    if key.startswith(CONTEXTS):
        return None
    if key == "%":
        return ""
    return _ESCAPE.sub(lambda found: "\0" if found[1] else "c" if found[2] else "%", key)


class Bank:
    """Every operation on files. A project is the set of its files: there is none without."""

    def __init__(self, storage: Storage, memories: Memories, clock: Clock) -> None:
        self._storage = storage
        self._memories = memories
        self._clock = clock

    async def projects(self, principal: Principal) -> list[str]:
        """The projects that hold at least one file, by code points."""
        selection = Selection(scopes=principal.narrowed(PROJECTS), where=_IS_FILE)
        groups = await self._storage.group(selection, _NAMESPACE, self._clock.now(), ALL)
        found = ((project_of(group.value), group.value) for group in groups)
        # A namespace that is spelled otherwise than we spell it is reached by no project's name.
        return sorted(name for name, namespace in found if name is not None and project_namespace(name) == namespace)

    async def files(self, principal: Principal, project: str) -> list[str]:
        """The names of the project's files, by code points; none where there is no such project.

        Raises InvalidInputError where no project can have that name.
        """
        namespace = _namespace(project)
        if not principal.sees(namespace):
            return []
        selection = Selection(scopes=(namespace,), recursive=False, where=_IS_FILE, order=Order(_KEY), limit=MAX_LIMIT)
        now = self._clock.now()
        names: list[str] = []
        while True:
            page = await self._storage.select(selection, now)
            names.extend(name for memory in page.items if (name := file_of(memory.key)) is not None)
            if page.next is None:
                return sorted(names)
            selection = msgspec.structs.replace(selection, after=page.next)

    async def read(self, principal: Principal, project: str, file: str) -> str:
        """The content of a file; of a memory that is no text, its JSON. The access is counted.

        Raises MemoryNotFoundError, InvalidInputError and below.
        """
        memory = await self._memories.retrieve(principal, _namespace(project), _key(file))
        content = memory.parsed()
        return content if isinstance(content, str) else memory.value.decode()

    async def write(
        self, principal: Principal, project: str, file: str, content: str, idempotent: Idempotent | None = None
    ) -> Memory:
        """Makes a file. Raises AlreadyExistsError where there is one, and what `Memories.store` raises."""
        request = StoreRequest(value=_value(content), key=_key(file), namespace=_namespace(project))
        outcome = await self._memories.store(principal, request, _CREATE, idempotent)
        return _written(outcome.memory)

    async def update(
        self, principal: Principal, project: str, file: str, content: str, idempotent: Idempotent | None = None
    ) -> Memory:
        """Replaces the content of a file; its metadata stays. Raises MemoryNotFoundError, and what `store` raises."""
        request = UpdateRequest(value=_value(content))
        outcome = await self._memories.update(
            principal, _namespace(project), _key(file), request, idempotent=idempotent
        )
        return _written(outcome.memory)


def _namespace(project: str) -> str:
    # No namespace is that long; making one of a name of many megabytes would take minutes.
    if len(project) > MAX_PROJECT_BYTES:
        raise TooLargeError("project", MAX_PROJECT_BYTES, len(project.encode(errors="replace")))
    return check_namespace(project_namespace(_text(project, "project")), "project")


def _key(file: str) -> str:
    return file_key(_text(file, "file"))


def _value(content: str) -> Raw:
    return Raw(encode(_text(content, "content")))


def _text(text: str, field: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInputError(field, f"{field} holds a lone surrogate") from None
    return text


def _written(memory: Memory | None) -> Memory:
    if memory is None:  # a Draft always leaves one
        raise TypeError
    return memory
