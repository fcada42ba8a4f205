"""The older services through their own tools: for those whose data cannot be reached otherwise.

A location is a command line. Its program is started, without a shell, and speaks MCP over its standard input and output, a JSON
object a line. What its tools do not show is told beforehand; `extended-memory-sqlite`, `extended-memory-redis`,
`memory-bank-files` and `memory-bank-sqlite` carry all of it.
"""

import calendar
import hashlib
import json
import re
from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar, Self
from urllib.parse import quote, unquote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from msgspec import Struct

from unified_memory.model.clock import SECOND, Clock, SystemClock
from unified_memory.model.errors import InvalidInputError, SourceError
from unified_memory.model.value import encode
from unified_memory.sources.bank_files import bank_losses
from unified_memory.sources.base import (
    ALL_LOST,
    EXTENDED_MEMORY,
    LEGACY_CREATED_AT,
    LEGACY_ID,
    LEGACY_IMPORTANCE,
    MEMORY_BANK,
    Back,
    Found,
    Item,
    OlderSource,
    Options,
    Quarantined,
    Returned,
    Shape,
    Skipped,
    Survey,
)
from unified_memory.sources.child import Child, short, text_of


def _check_tools(kind: str, location: str, tools: list[dict[str, Any]], needed: Collection[str]) -> None:
    missing = sorted(set(needed) - {str(tool.get("name")) for tool in tools})
    if missing:
        raise SourceError(kind, location, f"The program has no tool {', '.join(missing)}; is it another one?")


# ---- extended-memory

_EXTENDED_TOOLS = ("save_context", "load_contexts", "forget_context", "list_all_projects", "get_popular_tags")
# At most so many contexts are shown by one call, whatever its limit; they are the newest of those found.
_SHOWN = 10
_ALL = 1_000_000_000
# From all to none: a higher level shows the newest of fewer contexts.
_LEAST = -(2**62)
_LEVELS = (_LEAST, *range(1, 12))
_IMPORTANT, _MOST = 1, 10
_USUAL = 5
_FEBRUARY, _LEAP_DAY = 2, 29
_SUMMARY = re.compile(r"📊 \*\*Summary:\*\* (?:Found|Loaded only) (\d+) saved contexts")
_BODY = re.compile(r"Memory contexts in chronological order \(showing last \d+ entries\):\n\n")
_ENTRY = re.compile(
    r"\(ID: ([^,\n]+), Importance: ([^\n]*?)/10(?: \((\d\d-\d\d \d\d:\d\d)\))?\)\n(?:🏷️ Tags: (.*?)\n)?📝 ", re.DOTALL
)
_NEXT = re.compile(r"(?:(?<=\n\n)|\A)" + _ENTRY.pattern, re.DOTALL)
_NONE_FOUND = "🔍 No saved contexts found"
_NO_PROJECTS = "No projects found in memory system."
_PROJECTS = re.compile(r"\*\*Found (\d+) projects:\*\*\n")
_SAVED = re.compile(r"\A✅ .*?- Context ID: (\S+)\n", re.DOTALL)
_FORGOTTEN = "✅"
_NOT_THERE = "❌ Context not found!"


class _Shown(Struct):
    """A context as the tools show it. `day`: month and day, hour and minute; there is neither year nor second."""

    number: str
    importance: str
    day: str | None
    tags: tuple[str, ...]
    content: str


class _Reached(Struct):
    """The contexts of a project that its tools show, by id, and how many it has."""

    total: int
    contexts: dict[str, _Shown]

    def numbered(self) -> bool:
        """Whether it is stored in SQLite, which counts; Redis has UUIDs, in no order, and shows no tags."""
        return all(_is_number(one) for one in self.contexts)


class ExtendedMemoryLive(OlderSource):
    """extended-memory-mcp, started by a command. Ids, contents and tags are exact; times are those that it shows."""

    kind: ClassVar[str] = "extended-memory-mcp"
    takes: ClassVar[str] = "a command"
    service: ClassVar[str] = EXTENDED_MEMORY

    def __init__(self, location: str, child: Child, zone: str | None, clock: Clock) -> None:
        self._location = location
        self.child = child
        self._zone = zone
        self.clock = clock
        # Where a context was seen and by which tags it was found, as long as its program runs: its tools change no context. And
        # which one was saved for a record that is new there.
        self._seen: dict[str, str] = {}
        self._found_by: dict[str, set[str]] = {}
        self._placed: dict[bytes, str] = {}

    @classmethod
    def open(cls, location: str, options: Options) -> Self:
        """The program, started; see Source."""
        zone = options.environment.get("TZ")
        if zone is not None:
            try:
                ZoneInfo(zone)
            except (ZoneInfoNotFoundError, ValueError):
                raise InvalidInputError("environment", f"TZ is no time zone: {zone!r}") from None
        child = Child(cls.kind, location, options)
        source = cls(location, child, zone, SystemClock())
        try:
            _check_tools(cls.kind, location, child.open(), _EXTENDED_TOOLS)
        except BaseException:
            child.close()
            raise
        return source

    def survey(self) -> Survey:
        """Reads all that can be read, to tell what cannot; see Source."""
        projects: dict[str, int] = {}
        remarks = [
            (
                "Its tools show month, day, hour and minute of a context, in the time zone of the program, and no year: "
                "the latest that fits the order of the ids is taken, and times are exact to the minute"
            ),
            (
                "One call shows the 10 newest contexts that it finds; the others are looked for by every importance and "
                "every tag. What is not found so stays there: the kinds that read its database carry everything"
            ),
            "When its storage cannot be read, its tools say that it is empty",
        ]
        in_redis = False
        for project in self._projects():
            reached = self._reach(project)
            if reached is None:
                remarks.append(f"The project {project!r} cannot be loaded by its tools")
                continue
            projects[project] = reached.total
            in_redis = in_redis or not reached.numbered()
            if left := reached.total - len(reached.contexts):
                remarks.append(
                    f"{left} of {reached.total} contexts of the project {project!r} are not shown by its tools"
                )
        if in_redis:
            remarks.append(
                "It stores in Redis: its tools show no tags with a context and find none with capital letters. A context "
                "gets those by which it was found; extended-memory-redis carries all of them"
            )
        return Survey(
            kind=self.kind,
            location=self._location,
            records=sum(projects.values()),
            projects=projects,
            remarks=remarks,
        )

    def read(self) -> Iterator[Found]:
        """Project by project, in the order of the ids. What is shown of one project is held at once. See Source."""
        for project in self._projects():
            origin = f"project/{quote(project, safe='')}"
            reached = self._reach(project)
            if reached is None:
                yield Skipped(origin=origin, reason="Its contexts cannot be loaded by its tools")
                continue
            yield from self._items(project, reached)
            if left := reached.total - len(reached.contexts):
                reason = f"{left} of its {reached.total} contexts are not shown by its tools"
                yield Skipped(origin=origin, reason=reason)

    def token(self) -> object:
        """Changes with every context that is saved or forgotten: the number and the newest ones of each project."""
        mark = hashlib.blake2b(digest_size=16)
        for project in self._projects():
            count, body = self._load(project, _LEAST) or (-1, "")
            mark.update(encode([project, count, body]))
        return mark.digest()

    def close(self) -> None:
        """Ends the program; see Source."""
        self.child.close()

    def lookup(self, origin: str) -> Item | Quarantined | None:
        """See OlderSource. One that may be among those that its tools do not show is told as Quarantined: never as gone."""
        number = origin.removeprefix("context/")
        projects = self._projects()
        first = self._seen.get(number)
        # An empty storage, and one that fails, are told in the same words.
        hidden = not projects
        for project in sorted(projects, key=lambda one: one != first):
            reached = self._reach(project, number)
            if reached is None:
                hidden = True
            elif number in reached.contexts:
                return next(one for one in self._items(project, reached) if one.origin == origin)
            else:
                hidden = hidden or len(reached.contexts) < reached.total
        if hidden:
            reason = "Its tools do not show it, and cannot tell whether it is there; migrate from its database"
            return Quarantined(origin=origin, code="unsupported", reason=reason, raw=number.encode())
        return None

    def find(self, shape: Shape, project: str | None, key: str) -> str | None:  # noqa: ARG002 - an id is enough
        """See OlderSource."""
        origin = f"context/{key}"
        return origin if shape == "context" and self.lookup(origin) is not None else None

    def put_back(self, backs: Sequence[Back]) -> list[Returned]:
        """By save_context and forget_context: what is new or changed gets an id and a time of its own. See OlderSource."""
        return [self._put(back) for back in backs]

    def writable(self) -> str | None:
        """Its tools write; see OlderSource."""
        return None

    # Reading

    def _projects(self) -> list[str]:
        text = text_of(self.child.call("list_all_projects"))
        found = _PROJECTS.search(text)
        if found is None:
            if _NO_PROJECTS in text:
                return []
            raise self._unreadable("list_all_projects", text)
        names: list[str] = []
        for line in text[found.end() :].split("\n"):
            # The name stands there twice: `- name (name)`.
            said = line.removeprefix("- ")
            name = said[: (len(said) - len(" ()")) // 2]
            if line.startswith("- ") and said == f"{name} ({name})":
                names.append(name)
        if len(names) != int(found[1]):
            raise self._unreadable("list_all_projects", text)
        return names

    def _load(self, project: str, level: int, *, limit: int = _ALL, tag: str | None = None) -> tuple[int, str] | None:
        """How many contexts it finds, and the text of those that it shows; None where it cannot load them."""
        result = self.child.call(
            "load_contexts",
            # An empty name would be that of `general`.
            project_id=project or "_",
            importance_level=level,
            limit=limit,
            init_load=False,
            **({} if tag is None else {"tags_filter": [tag]}),
        )
        text = text_of(result)
        if text.startswith(_NONE_FOUND):
            return 0, ""
        summary, body = _SUMMARY.search(text), _BODY.search(text)
        if summary is None or body is None:
            if text.startswith("❌"):
                return None
            raise self._unreadable("load_contexts", text)
        count = int(summary[1])
        more = f"... and {count - _SHOWN} more contexts\n" if count > _SHOWN else ""
        return count, text[body.end() :].removesuffix(more)

    def _tags(self, project: str) -> list[str]:
        result = self.child.call("get_popular_tags", project_id=project or "_", limit=_ALL, min_usage=1)
        told = result.get("tags")
        if not isinstance(told, list):
            raise self._unreadable("get_popular_tags", str(result))
        return [one["tag"] for one in told if isinstance(one, dict) and isinstance(one.get("tag"), str)]

    def _reach(self, project: str, wanted: str | None = None) -> _Reached | None:
        """All contexts of a project that can be shown, or only until the wanted one is among them."""
        first = self._load(project, _LEAST)
        # A project that is listed has contexts: when its storage fails, its tools say that there are none.
        if first is None or first[0] == 0:
            return None
        known = set(self._tags(project))
        reached = _Reached(first[0], {})
        for tag in (None, *sorted(known)):
            for level in _LEVELS:
                loaded = first if (tag, level) == (None, _LEAST) else self._load(project, level, tag=tag)
                if loaded is None:
                    break
                count, body = loaded
                for one in self._entries(project, level, tag, count, body, known):
                    self._seen[one.number] = project
                    before = reached.contexts.setdefault(one.number, one)
                    # With Redis the tags are shown by no listing, and told by which of them finds it.
                    tags = self._found_by.setdefault(one.number, set())
                    tags.update(one.tags, () if tag is None else (tag,))
                    before.tags = tuple(sorted(tags))
                # A higher level finds a part of these, and all of these are shown.
                if count <= _SHOWN or wanted in reached.contexts:
                    break
            if wanted in reached.contexts or (len(reached.contexts) == reached.total and reached.numbered()):
                break
        return reached

    def _entries(
        self, project: str, level: int, tag: str | None, count: int, body: str, known: Collection[str]
    ) -> list[_Shown]:
        """The contexts in a listing. Where the text of one imitates the next, they are asked for one by one."""
        shown = min(count, _SHOWN)
        places = list(_NEXT.finditer(body))
        if len(places) == shown:
            ends = [*(place.start() for place in places), len(body)][1:]
            found = [_shown(place, body[place.end() : end], known) for place, end in zip(places, ends, strict=True)]
            return [one for one in found if one is not None]
        if tag is not None and level != _LEAST:
            # There the limit counts before the level: one more need not show one more.
            return []
        exact: list[_Shown] = []
        after = ""
        for limit in range(1, shown + 1):
            loaded = self._load(project, level, limit=limit, tag=tag)
            if loaded is None or loaded[0] != limit or not loaded[1].endswith(after):
                break
            said = loaded[1].removesuffix(after)
            place = _ENTRY.match(said)
            one = None if place is None else _shown(place, said[place.end() :], known)
            if one is None:
                break
            exact.insert(0, one)
            after = loaded[1]
        return exact

    def _items(self, project: str, reached: _Reached) -> Iterator[Item | Quarantined]:
        ordered = sorted(reached.contexts.values(), key=lambda one: (len(one.number), one.number))
        days = [one.day for one in ordered]
        years = self._years(days) if reached.numbered() else [self._years([day])[0] for day in days]
        for one, year in zip(ordered, years, strict=True):
            yield self._item(project, one, year)

    def _item(self, project: str, one: _Shown, year: int | None) -> Item | Quarantined:
        origin = f"context/{one.number}"
        try:
            value = encode(one.content)
        except UnicodeEncodeError:
            raw = json.dumps([project, one.number, one.importance, one.content]).encode()
            reason = "The content has a lone surrogate, which no UTF-8 can hold"
            return Quarantined(origin=origin, code="surrogate", reason=reason, raw=raw)
        numbered = _is_number(one.number)
        facts: dict[str, Any] = {LEGACY_ID: int(one.number) if numbered else one.number}
        created = None
        if year is not None and one.day is not None:
            shown = f"{year:04d}-{one.day[:5]}T{one.day[6:]}:00"
            facts[LEGACY_CREATED_AT] = shown if numbered else f"{shown}+00:00"
            created = self._instant(shown, utc=not numbered)
        importance = _importance(one.importance)
        if str(importance) != one.importance:
            facts[LEGACY_IMPORTANCE] = _raw_importance(one.importance)
        return Item(
            origin=origin,
            service=self.service,
            shape="context",
            project=project,
            key=one.number,
            value=value,
            tags=one.tags,
            importance=importance,
            created_at=created,
            updated_at=created,
            facts=facts,
        )

    def _years(self, days: list[str | None]) -> list[int | None]:
        """The latest year of each day that leaves them in their order, none of them after tomorrow."""
        latest = datetime.fromtimestamp(self.clock.now() / SECOND + 86_400, UTC)
        year, before = latest.year, latest.strftime("%m-%d %H:%M")
        years: list[int | None] = []
        for day in reversed(days):
            if day is None:
                years.append(None)
                continue
            if day > before:
                year -= 1
            month, date = int(day[:2]), int(day[3:5])
            while (month, date) == (_FEBRUARY, _LEAP_DAY) and not calendar.isleap(year):
                year -= 1
            before = day
            years.append(year)
        years.reverse()
        return years

    def _instant(self, shown: str, *, utc: bool) -> int:
        moment = datetime.fromisoformat(shown)
        if utc:
            moment = moment.replace(tzinfo=UTC)
        elif self._zone is not None:
            moment = moment.replace(tzinfo=ZoneInfo(self._zone))
        # Without a zone it is that of this machine, which is what its program takes too.
        return round(moment.timestamp()) * SECOND

    def _unreadable(self, tool: str, text: str) -> SourceError:
        return SourceError(self.kind, self._location, f"The answer of {tool} cannot be read: {short(text)}")

    # Writing back

    def _put(self, back: Back) -> Returned:
        if back.content is None:
            if back.origin is not None:
                self._forget(back.origin)
            return Returned(origin=None)
        if back.shape != "context":
            return Returned(origin=None, lost=("It is no context, which is all that extended-memory holds",))
        lost = _losses(back)
        there = None if back.origin is None else self.lookup(back.origin)
        if isinstance(there, Item) and _is_same(there, back):
            return Returned(origin=there.origin, lost=tuple(lost))
        origin = self._save(back)
        if back.origin is not None and back.origin != origin:
            self._forget(back.origin)
            lost.append(f"Its id: it was {back.origin.removeprefix('context/')} there; its tools save it anew")
        elif origin != f"context/{back.number}":
            lost.append(f"Its id {back.number}: its tools number contexts themselves")
        lost.append("When it was created: its tools say the time of the return")
        return Returned(origin=origin, lost=tuple(lost))

    def _save(self, back: Back) -> str:
        # An interrupted return may have saved it already: then it is among the newest.
        mark = hashlib.blake2b(encode([back.project, back.key, back.content]), digest_size=16).digest()
        project = "" if back.project == "" else back.project or "general"
        placed = set(self._placed.values())
        for item in self._newest(project):
            free = self._placed.get(mark) == item.origin or item.origin not in placed
            if free and _is_same(item, back, tags=isinstance(item.facts[LEGACY_ID], int)):
                self._placed[mark] = item.origin
                return item.origin
        result = self.child.call(
            "save_context",
            content=back.content,
            importance_level=back.importance,
            tags=list(back.tags),
            project_id=project or "_",
        )
        text = text_of(result)
        saved = _SAVED.match(text)
        # Its storage failing is told as a success without an id.
        if saved is None or saved[1] == "None":
            raise SourceError(self.kind, self._location, f"It did not save a context: {short(text)}")
        origin = f"context/{saved[1]}"
        self._placed[mark] = origin
        return origin

    def _newest(self, project: str) -> list[Item]:
        loaded = self._load(project, _LEAST)
        if loaded is None:
            return []
        shown = self._entries(project, _LEAST, None, *loaded, set(self._tags(project)))
        reached = _Reached(loaded[0], {one.number: one for one in shown})
        return [item for item in self._items(project, reached) if isinstance(item, Item)]

    def _forget(self, origin: str) -> None:
        number = origin.removeprefix("context/")
        text = text_of(self.child.call("forget_context", context_id=int(number) if _is_number(number) else number))
        gone = text.startswith(_FORGOTTEN) or (
            text.startswith(_NOT_THERE) and not isinstance(self.lookup(origin), Item)
        )
        if not gone:
            raise SourceError(self.kind, self._location, f"It did not forget context {number}: {short(text)}")


def _is_number(number: str) -> bool:
    return number.isdecimal() and number.isascii()


def _shown(place: re.Match[str], said: str, known: Collection[str]) -> _Shown | None:
    """A context of a listing: its head, and the text up to the next. None where that cannot be."""
    if not said.endswith("\n\n"):
        return None
    number, importance, day, tags = place.groups()
    return _Shown(number, importance, day, _split(tags, known), said.removesuffix("\n\n"))


def _split(joined: str | None, known: Collection[str]) -> tuple[str, ...]:
    """The tags in a list joined by `, `, which may be in a tag, too: then the known ones tell."""
    if not joined:
        return ()
    parts = joined.split(", ")
    tags: list[str] = []
    start = 0
    while start < len(parts):
        ends = (end for end in range(len(parts), start, -1) if ", ".join(parts[start:end]) in known)
        end = next(ends, start + 1)
        tags.append(", ".join(parts[start:end]))
        start = end
    return tuple(tags)


def _importance(shown: str) -> int:
    try:
        number = float(shown)
    except ValueError:
        return _IMPORTANT if shown == "True" else _USUAL
    # NaN is no number of any order.
    return int(min(max(number, _IMPORTANT), _MOST)) if number == number else _USUAL  # noqa: PLR0124


def _raw_importance(shown: str) -> Any:
    """What the tools show as JSON: whole numbers up to 64 bits and true numbers, and anything else as its text."""
    try:
        return int(shown) if len(shown) < len(str(2**63)) else shown
    except ValueError:
        pass
    try:
        number = float(shown)
    except ValueError:
        return shown
    return number if abs(number) < float("inf") else shown


def _is_same(item: Item, back: Back, *, tags: bool = True) -> bool:
    """Whether a context says what the record does; with Redis its tags are not known."""
    return (
        item.value == encode(back.content)
        and (not tags or _spelled(item.tags) == _spelled(back.tags))
        and item.importance == back.importance
        and item.project == (back.project if back.project is not None else "general")
    )


def _spelled(tags: Sequence[str]) -> set[str]:
    """Tags as SQLite keeps them."""
    return {tag.strip().lower() for tag in tags}


def _losses(back: Back) -> list[str]:
    """What of a record its tools cannot hold."""
    lost = []
    if not back.value.startswith(b'"'):
        lost.append("Its value is no text; its JSON was written as text")
    if back.project is None:
        lost.append("That it is of no project: it is in general there")
    if any(tag != tag.strip().lower() for tag in back.tags):
        lost.append("How its tags are spelled: they are in small letters there")
    if back.expires_at is not None:
        lost.append("When it expires")
    own = (name for name in sorted(back.facts) if not name.startswith("legacy_") and name not in _OWN_FACTS)
    lost.extend(f"Its metadata {name}" for name in own)
    return lost


# ---- memory bank

_BANK_TOOLS = ("list_projects", "list_project_files", "memory_bank_read", "memory_bank_write", "memory_bank_update")
_BANK_IMPORTANCE = 7
# Errors of npm's tools on what does not exist, or can have no such name.
_ABSENT = re.compile(
    r'\A\{"name":"(?:NotFoundError|InvalidParamError|MissingParamError)"|\b(?:ENOENT|ENOTDIR|ENAMETOOLONG|EISDIR)\b'
)
# What stands for a byte that is no UTF-8.
_REPLACED = "\ufffd"
# Facts that the migration adds itself.
_OWN_FACTS = frozenset({"migrated_from", "project_id", "former_id"})


class MemoryBankLive(OlderSource):
    """A memory bank, started by a command: that of npm (projectName, fileName) or of PyPI (project_name, file_name)."""

    kind: ClassVar[str] = "memory-bank-mcp"
    takes: ClassVar[str] = "a command"
    service: ClassVar[str] = MEMORY_BANK

    def __init__(self, location: str, child: Child, *, npm: bool) -> None:
        self._location = location
        self.child = child
        self._npm = npm

    @classmethod
    def open(cls, location: str, options: Options) -> Self:
        """The program, started; see Source."""
        child = Child(cls.kind, location, options)
        try:
            tools = child.open()
            _check_tools(cls.kind, location, tools, _BANK_TOOLS)
            npm = _is_npm(location, tools)
        except BaseException:
            child.close()
            raise
        return cls(location, child, npm=npm)

    def survey(self) -> Survey:
        """Lists all projects and files; see Source."""
        projects = {project: len(self._files(project)) for project in self._projects()}
        remarks = [
            f"It is a memory bank of {'npm' if self._npm else 'PyPI'}; it tells no times, and what is not text is told changed"
        ]
        if self._npm:
            remarks += [
                "Its lists part names by commas; a name that has one itself is put together where it can be read then",
                "Folders, links and files outside of projects are not shown by its tools; memory-bank-files reads its folder",
            ]
        return Survey(
            kind=self.kind,
            location=self._location,
            records=sum(projects.values()),
            projects=projects,
            remarks=remarks,
        )

    def read(self) -> Iterator[Found]:
        """File by file; see Source."""
        for project in self._projects():
            for name in self._files(project):
                content = self._content(project, name)
                if content is None:
                    yield Skipped(origin=_origin(project, name), reason="It is listed, but its tools do not read it")
                else:
                    yield self._item(project, name, content)

    def token(self) -> object:
        """None: its tools tell of no change."""
        return None

    def close(self) -> None:
        """Ends the program; see Source."""
        self.child.close()

    def lookup(self, origin: str) -> Item | Quarantined | None:
        """See OlderSource."""
        match origin.split("/"):
            case ["file", project, name]:
                content = self._there(unquote(project), unquote(name))
                return None if content is None else self._item(unquote(project), unquote(name), content)
        return None

    def find(self, shape: Shape, project: str | None, key: str) -> str | None:
        """See OlderSource."""
        if shape != "file" or project is None or self._there(project, key) is None:
            return None
        return _origin(project, key)

    def put_back(self, backs: Sequence[Back]) -> list[Returned]:
        """By memory_bank_write and memory_bank_update, each read again; nothing can be deleted. See OlderSource."""
        return [self._put(back) for back in backs]

    def writable(self) -> str | None:
        """Its tools write; see OlderSource."""
        return None

    # Reading

    def _call(self, tool: str, project: str | None = None, name: str | None = None, **more: str) -> dict[str, Any]:
        said = dict(more)
        if project is not None:
            said["projectName" if self._npm else "project_name"] = project
        if name is not None:
            said["fileName" if self._npm else "file_name"] = name
        return self.child.call(tool, **said)

    def _projects(self) -> list[str]:
        result = self._call("list_projects")
        if not self._npm:
            return self._names(result)
        return self._joined(self._said("list_projects", result), lambda name: self._listed(name) is not None)

    def _files(self, project: str) -> list[str]:
        if not self._npm:
            return self._names(self._call("list_project_files", project))
        return self._joined(self._listed(project) or "", lambda name: self._content(project, name) is not None)

    def _listed(self, project: str) -> str | None:
        """The list of files of a project; None where there is no such project."""
        return self._or_none("list_project_files", self._call("list_project_files", project))

    def _or_none(self, tool: str, result: dict[str, Any]) -> str | None:
        """The text of an answer of npm's; None where it says that there is no such thing, or none of such a name."""
        text = text_of(result)
        if result.get("isError") and _ABSENT.search(text):
            return None
        return self._said(tool, result)

    def _there(self, project: str, name: str) -> str | None:
        """The text of a file. None where it is sure that there is none: a bank whose root is missing has no file, too."""
        content = self._content(project, name)
        if content is None:
            self._said("list_projects", self._call("list_projects"))
        return content

    def _joined(self, text: str, exists: Any) -> list[str]:
        """The names in a list parted by commas. One that does not exist alone goes on with what follows it."""
        parts = text.split(",") if text else []
        names: dict[str, None] = {}
        start = 0
        while start < len(parts):
            name, end = parts[start], start + 1
            if "," in text and (name in names or not exists(name)):
                longer = (",".join(parts[start:more]) for more in range(start + 2, len(parts) + 1))
                name = next((one for one in longer if one not in names and exists(one)), name)
                end = start + name.count(",") + 1
            names[name] = None
            start = end
        return list(names)

    def _names(self, result: dict[str, Any]) -> list[str]:
        text = self._said("list", result)
        told = result.get("structuredContent")
        names = told.get("result") if isinstance(told, dict) else None
        if names is None:
            try:
                names = json.loads(text) if text else []
            except ValueError:
                names = None
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SourceError(self.kind, self._location, f"Its list cannot be read: {short(text)}")
        return names

    def _said(self, what: str, result: dict[str, Any]) -> str:
        text = text_of(result)
        if result.get("isError"):
            raise SourceError(self.kind, self._location, f"It answers {what} with an error: {short(text)}")
        return text

    def _content(self, project: str, name: str) -> str | None:
        """The text of a file; None where its tools read none."""
        result = self._call("memory_bank_read", project, name)
        if self._npm:
            return self._or_none("memory_bank_read", result)
        text = self._said("memory_bank_read", result)
        told = result.get("structuredContent")
        if isinstance(told, dict):
            content = told.get("result")
            return content if isinstance(content, str) else None
        return text if result.get("content") else None

    def _item(self, project: str, name: str, content: str) -> Item | Quarantined:
        origin = _origin(project, name)
        try:
            value = encode(content)
        except UnicodeEncodeError:
            raw = json.dumps([project, name, content]).encode()
            reason = "The content has a lone surrogate, which no UTF-8 can hold"
            return Quarantined(origin=origin, code="surrogate", reason=reason, raw=raw)
        odd = f"It holds {_REPLACED}, which its tools show for bytes that are no text, too"
        return Item(
            origin=origin,
            service=self.service,
            shape="file",
            project=project,
            key=name,
            value=value,
            importance=_BANK_IMPORTANCE,
            notes=(odd,) if self._npm and _REPLACED in content else (),
        )

    # Writing back

    def _put(self, back: Back) -> Returned:
        if back.shape != "file" or back.project is None:
            return Returned(
                origin=back.origin, lost=("It is no file of a project, which is all that a memory bank holds",)
            )
        there = self._content(back.project, back.key)
        origin = None if there is None else _origin(back.project, back.key)
        if back.content is None:
            lost = (
                () if there is None else ("That it was deleted: its tools delete nothing, and the file is there still",)
            )
            return Returned(origin=origin, lost=lost)
        lost_here = bank_losses(back)
        if there != back.content:
            tool = "memory_bank_write" if there is None else "memory_bank_update"
            result = self._call(tool, back.project, back.key, content=back.content)
            refused = bool(result.get("isError"))
            if not refused and self._content(back.project, back.key) == back.content:
                return Returned(origin=_origin(back.project, back.key), lost=tuple(lost_here))
            if not refused:
                raise SourceError(self.kind, self._location, f"{tool} did not write: {short(text_of(result))}")
            # An empty content, and names that its tools read but never write.
            return Returned(origin=origin, lost=(f"{ALL_LOST}{tool} refuses it: {short(text_of(result))}",))
        return Returned(origin=origin, lost=tuple(lost_here))


def _is_npm(location: str, tools: list[dict[str, Any]]) -> bool:
    """Whether its tools take the names of the server of npm, rather than those of PyPI."""
    [reading] = [tool for tool in tools if tool.get("name") == "memory_bank_read"]
    taken = set(reading.get("inputSchema", {}).get("properties", {}))
    if {"projectName", "fileName"} <= taken:
        return True
    if {"project_name", "file_name"} <= taken:
        return False
    detail = "Its memory_bank_read takes neither projectName nor project_name"
    raise SourceError(MemoryBankLive.kind, location, detail)


def _origin(project: str, name: str) -> str:
    return f"file/{quote(project, safe='')}/{quote(name, safe='')}"
