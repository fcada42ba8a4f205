"""What the service must hold: a model in plain dicts. It knows nothing of SQL, of files or of HTTP beyond its statuses."""

import json
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import partial
from typing import Any

from msgspec import Raw, Struct, structs

from unified_memory.model.clock import SECOND
from unified_memory.model.memory import Memory, pack_attributes
from unified_memory.model.namespace import ancestors, contains
from unified_memory.model.query import Filter, matches
from unified_memory.model.session import Session

Ref = tuple[str, str]
DAY = 24 * 3600 * SECOND
# How many namespaces may be created explicitly.
MAX_NAMESPACES = 4
_QUOTAS = ("max_memories", "max_bytes")


class Refusal(Exception):  # noqa: N818 - what is expected, not a failure
    """The service must refuse: with this status, this code, and at least these facts."""

    def __init__(self, status: int, code: str, **facts: Any) -> None:
        super().__init__(status, code, facts)
        self.status = status
        self.code = code
        self.facts = facts


class Wanted(Struct, frozen=True):
    """What a memory is to be. `extra`: the caller's own metadata as JSON text."""

    value: bytes
    tags: tuple[str, ...] = ()
    extra: dict[str, bytes] = {}
    importance: int = 5
    session_id: str | None = None
    project_id: str | None = None
    expires_at: int | None = None


class Space(Struct, frozen=True):
    """A namespace and what it sets for itself."""

    config: dict[str, Any]
    created_at: int
    explicit: bool


class World:
    """Everything that is stored. Nothing in it is changed in place, so a copy of the dicts is a copy of the world."""

    def __init__(self) -> None:
        self.memories: dict[Ref, Memory] = {}
        self.spaces: dict[str, Space] = {}
        self.sessions: dict[Ref, Session] = {}
        # The last version of each key that ever was, and of each namespace that has gone the highest in it.
        self.versions: dict[Ref, int] = {}
        self.floors: dict[str, int] = {}
        self.highest_id = 0

    def copy(self) -> "World":
        other = World()
        other.memories, other.spaces, other.sessions = dict(self.memories), dict(self.spaces), dict(self.sessions)
        other.versions, other.floors, other.highest_id = dict(self.versions), dict(self.floors), self.highest_id
        return other

    # ---- looking

    def visible(self, ref: Ref, now: int) -> Memory | None:
        memory = self.memories.get(ref)
        return None if memory is None or not memory.visible(now) else memory

    def seen(self, now: int, scope: str = "", *, recursive: bool = True) -> list[Memory]:
        """What can be seen below a namespace, by id."""
        there = (
            memory
            for (namespace, _), memory in self.memories.items()
            if memory.visible(now) and (contains(scope, namespace) if recursive else scope == namespace)
        )
        return sorted(there, key=lambda memory: memory.id)

    def of_session(self, ref: Ref, now: int) -> list[Memory]:
        return [memory for memory in self.seen(now, ref[0], recursive=False) if memory.session_id == ref[1]]

    def session(self, ref: Ref, now: int) -> Session:
        """The session with the number of its memories."""
        return structs.replace(self.sessions[ref], memories=len(self.of_session(ref, now)))

    def setting(self, namespace: str, name: str) -> Any:
        """What the nearest namespace sets that sets it; Ellipsis where none does."""
        for one in ancestors(namespace):
            if one in self.spaces and name in self.spaces[one].config:
                return self.spaces[one].config[name]
        return ...

    def effective(self, namespace: str) -> dict[str, Any]:
        names = ("default_ttl", *_QUOTAS)
        found = {name: value for name in names if (value := self.setting(namespace, name)) is not ...}
        own = self.spaces[namespace].config
        return found | ({"description": own["description"]} if "description" in own else {})

    # ---- single memories

    def check_version(
        self,
        ref: Ref,
        now: int,
        *,
        match: int | None = None,
        create_only: bool = False,
        expected: int | None = None,
    ) -> None:
        """`match`: If-Match, 0 for `*`; `create_only`: If-None-Match; `expected`: expected_version."""
        memory = self.visible(ref, now)
        current = 0 if memory is None else memory.version
        if create_only and current:
            raise Refusal(412, "already_exists", current_version=current)
        if match is not None and (current == 0 or match not in {0, current}):
            raise Refusal(412, "version_conflict", current_version=current)
        if expected is not None and expected != current:
            raise Refusal(409, "version_conflict", current_version=current, expected_version=expected)

    def write(self, ref: Ref, wanted: Wanted, now: int, number: int) -> Memory:
        """Writes a whole memory; `number` is the id that the service says it has."""
        before = self.visible(ref, now)
        size = len(wanted.value) - (0 if before is None else len(before.value))
        self._check_quotas(ancestors(ref[0]), now, 0 if before else 1, size)
        self.take_id(number, before)
        memory = Memory(
            id=number,
            namespace=ref[0],
            key=ref[1],
            value=wanted.value,
            attributes=pack_attributes(wanted.tags, {name: Raw(raw) for name, raw in wanted.extra.items()}),
            importance=wanted.importance,
            session_id=wanted.session_id,
            project_id=wanted.project_id,
            created_at=now if before is None else before.created_at,
            updated_at=now,
            expires_at=wanted.expires_at,
            access_count=0 if before is None else before.access_count,
            last_accessed=None if before is None else before.last_accessed,
            version=max(self.versions.get(ref, 0), self.floors.get(ref[0], 0)) + 1,
            seq=0,
        )
        self._put(memory, now)
        if wanted.session_id is not None:
            self._use_session((ref[0], wanted.session_id), wanted.project_id, now)
        return memory

    def take_id(self, number: int, before: Memory | None) -> None:
        """A memory keeps its id; a new one has one that is higher than all that ever were."""
        if before is None:
            assert number > self.highest_id
            self.highest_id = number
        else:
            assert number == before.id

    def default_expiry(self, namespace: str, now: int) -> int | None:
        ttl = self.setting(namespace, "default_ttl")
        return now + round(ttl * SECOND) if isinstance(ttl, int | float) else None

    def existing(self, ref: Ref, now: int) -> Memory:
        memory = self.visible(ref, now)
        if memory is None:
            raise Refusal(404, "memory_not_found", namespace=ref[0], key=ref[1])
        return memory

    def remove(self, ref: Ref) -> Memory:
        return self.memories.pop(ref)

    def move(self, old: Ref, new: Ref, now: int, expected: int | None) -> Memory:
        if old == new:
            raise Refusal(422, "invalid_input", field="to.key")
        memory = self.existing(old, now)
        self.check_version(old, now, expected=expected)
        if self.visible(new, now) is not None:
            raise Refusal(409, "already_exists")
        self._check_quotas((one for one in ancestors(new[0]) if not contains(one, old[0])), now, 1, len(memory.value))
        return self._carry(memory, new, now)

    def _carry(self, memory: Memory, new: Ref, now: int) -> Memory:
        version = max(memory.version, self.versions.get(new, 0), self.floors.get(new[0], 0)) + 1
        moved = structs.replace(memory, namespace=new[0], key=new[1], version=version, updated_at=now)
        del self.memories[memory.namespace, memory.key]
        self._put(moved, now)
        if moved.session_id is not None:
            self._make_session((new[0], moved.session_id), moved.project_id, now)
        return moved

    def _put(self, memory: Memory, now: int) -> None:
        ref = (memory.namespace, memory.key)
        self.memories[ref] = memory
        self.versions[ref] = memory.version
        self._make_space(ref[0], now)

    def _check_quotas(self, owners: Iterable[str], now: int, memories: int, size: int) -> None:
        for owner in owners:
            config = self.spaces[owner].config if owner in self.spaces else {}
            held = self.seen(now, owner)
            grown = {
                "max_memories": len(held) + memories if memories > 0 else 0,
                "max_bytes": sum(len(one.value) for one in held) + size if size > 0 else 0,
            }
            for quota in _QUOTAS:
                limit = config.get(quota)
                if limit is not None and grown[quota] > limit:
                    raise Refusal(403, "quota_exceeded", namespace=owner, quota=quota, limit=limit)

    # ---- many

    def selected(
        self, where: Filter | None, now: int, scope: str | None = None, *, recursive: bool = True
    ) -> list[Memory]:
        there = self.seen(now, scope or "", recursive=recursive)
        return there if where is None else [memory for memory in there if matches(where, memory)]

    def clean_up(self, now: int) -> dict[str, int]:
        """How many went, by namespace."""
        gone: dict[str, int] = {}
        for ref, memory in list(self.memories.items()):
            if not memory.visible(now):
                gone[ref[0]] = gone.get(ref[0], 0) + 1
                del self.memories[ref]
        for ref, session in list(self.sessions.items()):
            passed = session.expires_at is not None and session.expires_at <= now
            if passed and not any((one.namespace, one.session_id) == ref for one in self.memories.values()):
                del self.sessions[ref]
        return gone

    # ---- namespaces

    def _make_space(self, name: str, now: int) -> None:
        self.spaces.setdefault(name, Space({}, now, explicit=False))

    def put_namespace(self, name: str, config: dict[str, Any], now: int, *, create: bool) -> None:
        space = self.spaces.get(name)
        if create and space is not None and space.explicit:
            raise Refusal(409, "already_exists")
        if not create and space is None:
            raise Refusal(404, "namespace_not_found")
        is_new = space is None or not space.explicit
        if is_new and sum(one.explicit for one in self.spaces.values()) >= MAX_NAMESPACES:
            raise Refusal(403, "quota_exceeded", limit=MAX_NAMESPACES)
        self.spaces[name] = Space(config, now if space is None else space.created_at, explicit=True)

    def below(self, name: str) -> list[str]:
        return sorted(one for one in self.spaces if contains(name, one))

    def delete_namespace(self, name: str, now: int, *, recursive: bool, dry_run: bool) -> dict[str, Any]:
        doomed = self.below(name)
        if not doomed:
            raise Refusal(404, "namespace_not_found")
        held, others = len(self.seen(now, name)), sum(one != name for one in doomed)
        if not dry_run:
            if not recursive and (held or others):
                raise Refusal(409, "namespace_not_empty", memories=held, namespaces=others)
            for one in doomed:
                self._leave(one)
                self.memories = {ref: memory for ref, memory in self.memories.items() if ref[0] != one}
                self.sessions = {ref: session for ref, session in self.sessions.items() if ref[0] != one}
        return {
            "deleted": not dry_run,
            "namespace": name,
            "memories": held,
            "namespaces": len(doomed),
            "dry_run": dry_run,
        }

    def _leave(self, name: str) -> None:
        """A namespace goes; how far its versions had come is remembered."""
        gone = [ref for ref in self.versions if ref[0] == name]
        self.floors[name] = max([self.floors.get(name, 0), *(self.versions.pop(ref) for ref in gone)])
        del self.spaces[name]

    def rename_namespace(self, old: str, new: str, now: int) -> int:
        if contains(old, new) or contains(new, old):
            raise Refusal(422, "invalid_input")
        if self.below(new):
            raise Refusal(409, "already_exists")
        if not self.below(old):
            raise Refusal(404, "namespace_not_found")
        moving = self.seen(now, old)
        self._check_quotas(
            (one for one in ancestors(new) if not contains(one, old)),
            now,
            len(moving),
            sum(len(one.value) for one in moving),
        )
        for name in self.below(old):
            target = new + name[len(old) :]
            self.spaces[target] = self.spaces[name]
            for ref in [ref for ref in self.sessions if ref[0] == name]:
                self.sessions[target, ref[1]] = structs.replace(self.sessions.pop(ref), namespace=target)
            for ref in [ref for ref in self.memories if ref[0] == name]:
                self._carry(self.memories[ref], (target, ref[1]), now)
            self._leave(name)
        return len(moving)

    # ---- sessions

    def _make_session(self, ref: Ref, project_id: str | None, now: int) -> None:
        if ref not in self.sessions:
            self.sessions[ref] = Session(ref[1], ref[0], None, project_id, None, b"{}", now, now, None)

    def _use_session(self, ref: Ref, project_id: str | None, now: int) -> None:
        self._make_session(ref, project_id, now)
        self.sessions[ref] = structs.replace(self._slid(self.sessions[ref], now), ended_at=None)

    @staticmethod
    def _slid(session: Session, now: int) -> Session:
        expires_at = None if session.ttl is None else now + round(session.ttl * SECOND)
        return structs.replace(session, last_used=now, expires_at=expires_at)

    def put_session(self, session: Session) -> None:
        ref = (session.namespace, session.id)
        before = self.sessions.get(ref, session)
        self.sessions[ref] = structs.replace(session, created_at=before.created_at)
        self._make_space(session.namespace, session.created_at)

    def look_at_session(self, ref: Ref, now: int) -> None:
        session = self.existing_session(ref)
        if session.ttl is not None and session.active(now):
            self.sessions[ref] = self._slid(session, now)

    def existing_session(self, ref: Ref) -> Session:
        if ref not in self.sessions:
            raise Refusal(404, "session_not_found", session_id=ref[1])
        return self.sessions[ref]

    def end_session(self, ref: Ref, memories: str, now: int) -> int:
        self.existing_session(ref)
        held = [] if memories == "keep" else self.of_session(ref, now)
        for memory in held:
            if memories == "delete":
                self.remove((memory.namespace, memory.key))
            else:
                self._put(structs.replace(memory, expires_at=now, updated_at=now, version=memory.version + 1), now)
        session = self.sessions[ref]
        self.sessions[ref] = structs.replace(session, ended_at=session.ended_at or now)
        return len(held)


# ---- patches, on JSON whose numbers are the text that they are


class Number(str):
    """A number as it is spelled."""

    __slots__ = ()


_MISSING = object()


def parsed(raw: bytes) -> Any:
    return json.loads(raw, parse_int=Number, parse_float=Number)


def spelled(value: Any) -> str:
    """The shortest JSON of parsed JSON."""
    match value:
        case Number():
            return str(value)
        case dict():
            return "{" + ",".join(f"{spelled(name)}:{spelled(part)}" for name, part in value.items()) + "}"
        case list():
            return "[" + ",".join(map(spelled, value)) + "]"
        case _:
            return json.dumps(value, ensure_ascii=False)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396, section 2, as the pseudo-code there."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


def patched(raw: bytes, merge: bytes | None, append: Mapping[str, bytes], increment: Mapping[str, str]) -> bytes:
    """The value after a patch; paths are names joined by dots."""
    value = parsed(raw)
    if merge is not None:
        value = merged(value, parsed(merge))
    for path, element in append.items():
        value = _at(value, path.split(".") if path else [], partial(_appended, element=element))
    for path, amount in increment.items():
        value = _at(value, path.split(".") if path else [], partial(_increased, amount=amount))
    return spelled(value).encode()


def _at(value: Any, path: list[str], change: Callable[[Any], Any]) -> Any:
    if not path:
        return change(value)
    if value is _MISSING:
        value = {}
    if not isinstance(value, dict):
        raise Refusal(409, "conflict")
    return {**value, path[0]: _at(value.get(path[0], _MISSING), path[1:], change)}


def _appended(held: Any, element: bytes) -> Any:
    if held is _MISSING:
        held = []
    if not isinstance(held, list):
        raise Refusal(409, "conflict")
    return [*held, parsed(element)]


def _increased(held: Any, amount: str) -> Number:
    if held is _MISSING:
        held = Number("0")
    if not isinstance(held, Number):
        raise Refusal(409, "conflict")
    return Number(f"{Decimal(held) + Decimal(amount):f}")
