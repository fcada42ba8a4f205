"""basic-memory: a project of it, which is a folder of Markdown notes (https://github.com/basicmachines-co/basic-memory).

A note begins with front matter (title, type, permalink, tags and whatever its author adds); in its text, list items such as
`- [category] observation #tag` and `- relation [[Other note]]` mean something to the program. Read as 0.24.1 writes them.
"""

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Self

from unified_memory.model.errors import SourceError
from unified_memory.model.value import encode
from unified_memory.sources import foreign
from unified_memory.sources.base import Found, Item, Options, Skipped, Source, Survey
from unified_memory.sources.foreign import UnfitError
from unified_memory.sources.front_matter import front_matter
from unified_memory.sources.sqlite_file import source_errors

ROOT = "migrated_basic_memory"
_ENDINGS = frozenset({".md", ".markdown"})
_NANOSECONDS = 1_000
_RELATION = re.compile(r"^[ \t]*[-*+][ \t]+(?P<type>[^\[\]\n]*?)[ \t]*\[\[(?P<target>[^\[\]\n]+)\]\]", re.MULTILINE)
_OBSERVATION = re.compile(r"^[ \t]*[-*+][ \t]+\[(?P<category>[^\[\]()\n]+)\][ \t]+(?P<text>[^\n]*)", re.MULTILINE)
_HASH_TAG = re.compile(r"(?:^|\s)#([^\s#,()]+)")
_CHECK_BOXES = frozenset({" ", "x", "X", "-"})
# What it calls a relation that has no name.
_UNNAMED = "relates_to"


class BasicMemory(Source):
    """The folder of a project. A note's key is its permalink, its project the folder that it lies in."""

    kind: ClassVar[str] = "basic-memory"
    takes: ClassVar[str] = "a folder"

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def open(cls, location: str, options: Options) -> Self:  # noqa: ARG003 - there is nothing else to say of it
        """The folder; see Source."""
        path = foreign.path_of(location)
        if not path.is_dir():
            raise SourceError(
                cls.kind, location, "It is no folder", hint="basic-memory project list tells where a project lies"
            )
        return cls(path)

    def survey(self) -> Survey:
        """Counts the notes of each folder; see Source."""
        projects: Counter[str] = Counter()
        size = records = others = 0
        for entry in self._entries(self._path):
            if isinstance(entry, Skipped):
                others += 1
                continue
            about = self._about(entry)
            if about is None:
                continue
            records += 1
            size += about.st_size
            folder = Path(entry).parent.relative_to(self._path)
            if folder.parts:
                projects[os.fsencode(folder).decode("utf-8", "replace")] += 1
        remarks = ["Its database is not read: it can be made from the notes, and holds nothing else"]
        if others:
            remarks.append(
                f"{others} files and folders are no notes (hidden, symbolic links, other kinds) and stay behind"
            )
        return Survey(
            kind=self.kind,
            location=str(self._path),
            records=records,
            projects=dict(projects),
            remarks=remarks,
            bytes=size,
        )

    def read(self) -> Iterator[Found]:
        """Every note, folder by folder in the order of their names; see Source.

        A note whose permalink an earlier one in its folder has already is named by its file.
        """
        places: set[tuple[str | None, str]] = set()
        for entry in self._entries(self._path):
            if isinstance(entry, Skipped):
                yield entry
                continue
            path = Path(entry)
            with source_errors(self.kind, path):
                try:
                    content, about = path.read_bytes(), path.stat()
                except FileNotFoundError:
                    # Gone since the folder was listed.
                    continue
            found = _note(os.fsencode(path.relative_to(self._path)), content, about.st_mtime_ns // _NANOSECONDS)
            if isinstance(found, Item):
                if (found.project, found.key) in places:
                    found.key = path.name
                places.add((found.project, found.key))
            yield found

    def token(self) -> object:
        """See Source."""
        return [
            (entry, about.st_mtime_ns, about.st_size)
            for entry in self._entries(self._path)
            if not isinstance(entry, Skipped) and (about := self._about(entry)) is not None
        ]

    def close(self) -> None:
        """See Source. A file is open only while it is read."""

    def _about(self, entry: str) -> os.stat_result | None:
        """Size and times of a note; None where it is gone since the folder was listed."""
        with source_errors(self.kind, Path(entry)):
            try:
                return Path(entry).stat()
            except FileNotFoundError:
                return None

    def _entries(self, folder: Path) -> Iterator[str | Skipped]:
        """The paths of the notes, and what else lies there."""
        with source_errors(self.kind, folder):
            try:
                entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
            except FileNotFoundError:
                if folder == self._path:
                    raise
                # Gone since the folder above it was listed.
                return
        for entry in entries:
            place = os.fsencode(Path(entry.path).relative_to(self._path)).decode("utf-8", "backslashreplace")
            if entry.is_symlink():
                yield Skipped(origin=place, reason="It is a symbolic link")
            elif entry.name.startswith("."):
                yield Skipped(origin=place, reason="It is hidden, and basic-memory ignores it")
            elif entry.is_dir():
                yield from self._entries(Path(entry.path))
            elif not entry.is_file():
                yield Skipped(origin=place, reason="It is no file")
            elif Path(entry.name).suffix.lower() not in _ENDINGS:
                yield Skipped(origin=place, reason="It is no Markdown note")
            else:
                yield entry.path


def _note(place: bytes, content: bytes, changed_at: int) -> Found:
    origin = place.decode("utf-8", "backslashreplace")
    try:
        path = foreign.text_of(place, "Its name")
        text = foreign.text_of(content, "The note")
    except UnfitError as unfit:
        return unfit.quarantined(origin, content)
    matter = front_matter(text)
    folder, _, name = path.rpartition("/")
    permalink = matter.pop("permalink", None)
    permalink = permalink if isinstance(permalink, str) and permalink else None
    facts: dict[str, Any] = {"path": path, "title": matter.pop("title", None), "type": matter.pop("type", None)}
    facts = {fact: told for fact, told in facts.items() if told is not None}
    if permalink is not None:
        facts["permalink"] = permalink
    tags = _tags(matter.get("tags"))
    if tags:
        del matter["tags"]
    if matter:
        facts["front_matter"] = matter
    facts |= _meanings(text)
    created_at, modified_at = (foreign.instant_of(matter.get(field)) for field in ("created", "modified"))
    return Item(
        origin=origin,
        service=BasicMemory.kind,
        shape="record",
        project=folder or None,
        key=permalink or name.rpartition(".")[0] or name,
        value=encode(text),
        tags=tags,
        # A file does not tell when it was created.
        created_at=changed_at if created_at is None else created_at,
        updated_at=changed_at if modified_at is None else modified_at,
        namespace=foreign.namespace_below(ROOT, folder.split("/")) if folder else ROOT,
        facts=facts,
    )


def _tags(told: Any) -> tuple[str, ...]:
    """Tags as the program reads them: a list, or a text with commas; a `#` before one does not count."""
    listed = told if isinstance(told, list) else [told] if isinstance(told, str) else []
    named = [tag.strip().lstrip("#") for part in listed if isinstance(part, str | int) for tag in str(part).split(",")]
    return tuple(dict.fromkeys(tag for tag in named if tag))


def _meanings(text: str) -> dict[str, Any]:
    """What list items say to the program: relations, with type and target, and the tags of observations."""
    relations = [[found["type"] or _UNNAMED, found["target"].strip()] for found in _RELATION.finditer(text)]
    tags = [
        tag
        for found in _OBSERVATION.finditer(text)
        if found["category"] not in _CHECK_BOXES
        for tag in _HASH_TAG.findall(found["text"])
    ]
    facts: dict[str, Any] = {"relations": relations, "observation_tags": list(dict.fromkeys(tags))}
    return {fact: told for fact, told in facts.items() if told}
