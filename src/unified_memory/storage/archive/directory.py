"""Archive files in a directory."""

import errno
import fcntl
import os
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock

from unified_memory.model.clock import SECOND, Clock, SystemClock
from unified_memory.model.errors import AlreadyExistsError, ArchiveMissingError, StorageError, StorageFullError
from unified_memory.storage.archive.files import Files, is_name, require_name

_KEPT_OPEN = 64
_LEFTOVER_AFTER = 3600 * SECOND
_TEMP = ".tmp"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_GONE = {errno.ENOENT, errno.ESTALE}


class Directory(Files):
    """Files in a directory, which is made when the first one is put; only its owner may read it.

    A file is written under another name, synced, renamed, and the directory synced. The files that were read last are kept
    open.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()
        self._open = _Open(path, _KEPT_OPEN)

    def put(self, name: str, chunks: Iterable[bytes]) -> int:  # noqa: D102 - see Files
        require_name(name)
        with _told("write", name):
            _make(self._path)
            if (self._path / name).exists():
                raise AlreadyExistsError("There is an archive of that name", archive=name)
            temp = self._path / f".{name}.{secrets.token_hex(8)}{_TEMP}"
            descriptor = os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                try:
                    size = _write(descriptor, chunks)
                    os.fsync(descriptor)
                finally:
                    os.close(descriptor)
                self._publish(temp, name)
            except BaseException:
                # What cannot be removed now is swept later; the first error is the one to be told.
                with suppress(OSError):
                    temp.unlink(missing_ok=True)
                raise
        return size

    def read(self, name: str, start: int, length: int) -> bytes:  # noqa: D102 - see Files
        require_name(name)
        with _told("read", name), self._open.using(name) as descriptor:
            parts: list[bytes] = []
            while length > 0 and (part := os.pread(descriptor, length, start)):
                parts.append(part)
                start += len(part)
                length -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def size(self, name: str) -> int:  # noqa: D102 - see Files
        require_name(name)
        with _told("read", name), self._open.using(name) as descriptor:
            return os.fstat(descriptor).st_size

    def names(self) -> list[str]:  # noqa: D102 - see Files
        return sorted(name for name, _ in self._listed() if is_name(name))

    def total(self) -> int:  # noqa: D102 - see Files
        return sum(status.st_size for name, status in self._listed() if is_name(name) or _is_temp(name))

    def remove(self, name: str) -> None:  # noqa: D102 - see Files
        require_name(name)
        self._open.forget(name)
        with _told("remove", name):
            (self._path / name).unlink(missing_ok=True)
            if self._path.exists():
                _sync(self._path)

    def sweep(self) -> list[str]:  # noqa: D102 - see Files
        before = self._clock.now() - _LEFTOVER_AFTER
        old = sorted(name for name, status in self._listed() if _is_temp(name) and status.st_mtime_ns // 1000 < before)
        for name in old:
            with _told("remove", name):
                (self._path / name).unlink(missing_ok=True)
        return old

    def close(self) -> None:  # noqa: D102 - see Files
        self._open.close()

    def _publish(self, temp: Path, name: str) -> None:
        """Renames: it would replace a file, so there is one at a time that looks and renames."""
        directory = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(directory, fcntl.LOCK_EX)
            target = self._path / name
            if target.exists():
                raise AlreadyExistsError("There is an archive of that name", archive=name)
            temp.rename(target)
            try:
                os.fsync(directory)
            except OSError:
                # Nobody knows whether it would still be there after a power cut.
                target.unlink(missing_ok=True)
                raise
        finally:
            os.close(directory)

    def _listed(self) -> Iterator[tuple[str, os.stat_result]]:
        with _told("list", str(self._path)):
            try:
                entries = list(os.scandir(self._path))
            except FileNotFoundError:
                return
            for entry in entries:
                # A file may be removed, or renamed, while the others are looked at.
                with suppress(FileNotFoundError):
                    if entry.is_file(follow_symlinks=False):
                        yield entry.name, entry.stat(follow_symlinks=False)


class _Descriptor:
    def __init__(self, number: int) -> None:
        self.number = number
        self.users = 0
        self.kept = True


class _Open:
    """Descriptors of the files that were read last. One is closed when nobody uses it and it is not to be kept."""

    def __init__(self, path: Path, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._lock = Lock()
        self._kept: OrderedDict[str, _Descriptor] = OrderedDict()

    @contextmanager
    def using(self, name: str) -> Iterator[int]:
        descriptor = self._take(name)
        try:
            # Removed or replaced by another process: what is open here is no longer the archive.
            if os.fstat(descriptor.number).st_nlink == 0:
                self.forget(name)
                raise ArchiveMissingError(name)
            yield descriptor.number
        finally:
            with self._lock:
                descriptor.users -= 1
                done = not descriptor.kept and descriptor.users == 0
            if done:
                os.close(descriptor.number)

    def forget(self, name: str) -> None:
        with self._lock:
            unused = self._drop(name)
        _close(unused)

    def close(self) -> None:
        with self._lock:
            unused = [number for name in list(self._kept) for number in self._drop(name)]
        _close(unused)

    def _take(self, name: str) -> _Descriptor:
        with self._lock:
            if kept := self._kept.get(name):
                self._kept.move_to_end(name)
                kept.users += 1
                return kept
        opened = _Descriptor(os.open(self._path / name, os.O_RDONLY | os.O_CLOEXEC))
        opened.users = 1
        unused: list[int] = []
        with self._lock:
            # Another thread may have opened it meanwhile; the younger one is kept.
            unused += self._drop(name)
            self._kept[name] = opened
            while len(self._kept) > self._limit:
                unused += self._drop(next(iter(self._kept)))
        _close(unused)
        return opened

    def _drop(self, name: str) -> list[int]:
        """Keeps it no longer; what is to be closed by the caller, when the lock is free."""
        descriptor = self._kept.pop(name, None)
        if descriptor is None:
            return []
        descriptor.kept = False
        return [] if descriptor.users else [descriptor.number]


def _close(descriptors: Iterable[int]) -> None:
    for number in descriptors:
        os.close(number)


def _is_temp(name: str) -> bool:
    return name.startswith(".") and name.endswith(_TEMP)


def _make(path: Path) -> None:
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write(descriptor: int, chunks: Iterable[bytes]) -> int:
    size = 0
    for chunk in chunks:
        left = memoryview(chunk)
        while left:
            left = left[os.write(descriptor, left) :]
        size += len(chunk)
    return size


@contextmanager
def _told(doing: str, name: str) -> Iterator[None]:
    """What the system says, as an error of the storage."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError from error
        if error.errno in _GONE and doing == "read":
            raise ArchiveMissingError(name) from error
        raise StorageError(f"Cannot {doing} the archive {name}: {error.strerror or error}", archive=name) from error
