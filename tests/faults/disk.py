"""A disk that can be watched and hurt: a layer of SQLite's file system through which every write and sync goes.

Needs no root and no change of the service: while it is registered every connection that is opened goes through it.
SQLite's shared index (`-shm`) is not seen here; it is made anew from the log whenever the last process has gone.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Protocol

import apsw
from msgspec import Struct

Name = Literal["db", "wal", "other"]
Call = Literal["write", "sync", "truncate", "delete"]
When = Literal["before", "half", "after"]
DISK = "faults-disk"


class Event(Struct):
    """Something is to be done to a file: `at` is the place of a write or the size of a truncation."""

    path: str
    call: Call
    at: int = 0
    data: bytes = b""

    @property
    def file(self) -> Name:
        """Which of the database's files it is."""
        if self.path.endswith("-wal"):
            return "wal"
        return "db" if self.path.endswith(".db") else "other"


class Hook(Protocol):
    def __call__(self, event: Event, perform: Callable[[bytes], None], /) -> None:
        """Is called instead of the event; does it by calling `perform` (a write may be given fewer bytes)."""


class Point(Struct, frozen=True):
    """The `number`th (from 1) such call, and what the process does to itself there."""

    file: Name | None
    call: Call | None
    number: int
    when: When = "before"
    signal: int = signal.SIGKILL

    def __str__(self) -> str:
        return f"{self.when} {self.file or 'any'} {self.call or 'event'} {self.number}"


class Fatal:
    """The hook that says "reached" and sends this process a signal at a point."""

    def __init__(self, point: Point) -> None:
        self._point = point
        self.seen = 0

    def __call__(self, event: Event, perform: Callable[[bytes], None]) -> None:
        point = self._point
        if point.file in {None, event.file} and point.call in {None, event.call}:
            self.seen += 1
            if self.seen == point.number:
                if point.when == "half":
                    perform(event.data[: len(event.data) // 2])
                if point.when == "after":
                    perform(event.data)
                os.write(1, b"reached\n")
                # To this very thread: of a signal to the process another thread may hear first, while this one runs on.
                signal.pthread_kill(threading.get_ident(), point.signal)
                if point.when == "after":
                    return
        perform(event.data)


class Recorded:
    """The hook that keeps apart what was synced and what only was written, file by file."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._synced: dict[str, bytearray] = {}
        self._pending: dict[str, list[Event]] = {}
        self.log: list[tuple[Name, Call]] = []

    def __call__(self, event: Event, perform: Callable[[bytes], None]) -> None:
        perform(event.data)
        name = Path(event.path).name
        self.log.append((event.file, event.call))
        if event.call == "delete":
            self._synced.pop(name, None)
            self._pending.pop(name, None)
            return
        pending = self._pending.setdefault(name, [])
        if event.call == "sync":
            held = self._synced.setdefault(name, bytearray())
            for one in pending:
                _apply(held, one)
            pending.clear()
        else:
            pending.append(event)

    def after_power_cut(self, target: Path, survives: Callable[[Event], bool]) -> None:
        """Writes the files as a power cut may leave them: what was synced, and of the rest whatever `survives`."""
        for name in self._synced.keys() | self._pending.keys():
            held = bytearray(self._synced.get(name, b""))
            for one in self._pending.get(name, []):
                if survives(one):
                    _apply(held, one)
            (target / name).write_bytes(held)

    def unsynced(self, file: Name) -> int:
        """How many writes to that file still await a sync."""
        return sum(len(events) for events in self._pending.values() if events and events[0].file == file)


def _apply(held: bytearray, event: Event) -> None:
    if event.call == "truncate":
        del held[event.at :]
        return
    if len(held) < event.at:
        held.extend(bytes(event.at - len(held)))
    held[event.at : event.at + len(event.data)] = event.data


class Disk(apsw.VFS):
    """The layer itself, the default of all connections that are opened from now on."""

    def __init__(self, hook: Hook) -> None:
        self.hook = hook
        super().__init__(DISK, "unix", makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> "_File":  # noqa: N802 - apsw's name
        return _File(self.hook, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:  # noqa: N802, FBT001 - apsw's name and order
        self.hook(Event(filename, "delete"), lambda _data: super(Disk, self).xDelete(filename, syncdir))


class _File(apsw.VFSFile):
    def __init__(self, hook: Hook, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._hook = hook
        self._path = name.filename() if isinstance(name, apsw.URIFilename) else name or ""

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802 - apsw's name
        self._hook(
            Event(self._path, "write", offset, bytes(data)), lambda part: super(_File, self).xWrite(part, offset)
        )

    def xSync(self, flags: int) -> None:  # noqa: N802 - apsw's name
        self._hook(Event(self._path, "sync"), lambda _data: super(_File, self).xSync(flags))

    def xTruncate(self, newsize: int) -> None:  # noqa: N802 - apsw's name
        self._hook(Event(self._path, "truncate", newsize), lambda _data: super(_File, self).xTruncate(newsize))


@contextmanager
def disk(hook: Hook) -> Iterator[Disk]:
    """Connections that are opened meanwhile go through the hook; they must be closed before the end."""
    layer = Disk(hook)
    try:
        yield layer
    finally:
        layer.unregister()
