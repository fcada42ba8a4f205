"""Files of backups: written whole and synced, read without being led astray, and what the system says as our errors."""

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from unified_memory.model.errors import BackupDamagedError, StorageError, StorageFullError

CHUNK_BYTES = 256 * 1024
TEMP = ".tmp"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def told(doing: str) -> Iterator[None]:
    """What the system says, as an error of the storage; `doing` is what could not be done."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise StorageFullError(f"The disk is full: cannot {doing}") from error
        raise StorageError(f"Cannot {doing}: {error.strerror or error}") from error


def make(path: Path) -> None:
    """Makes a directory that only its owner may read, where there is none. Raises OSError."""
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(path.parent)


def sync(path: Path) -> None:
    """Makes the names in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Written:
    """A new file: its bytes so far, and their sum. Raises StorageFullError and StorageError."""

    def __init__(self, path: Path) -> None:
        self.bytes = 0
        self._sum = hashlib.sha256()
        self._doing = f"write {path.name} of the backup"
        with told(self._doing):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    @property
    def sha256(self) -> str:
        """Of what was written, in hexadecimal digits."""
        return self._sum.hexdigest()

    def write(self, data: bytes) -> None:
        """Adds to it."""
        left = memoryview(data)
        with told(self._doing):
            while left:
                left = left[os.write(self._descriptor, left) :]
        self._sum.update(data)
        self.bytes += len(data)

    def sync(self) -> None:
        """Makes it durable."""
        with told(self._doing):
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Adds nothing more."""
        os.close(self._descriptor)


def write(path: Path, fill: Callable[[Written], None]) -> Written:
    """A new file that `fill` has written, synced. Raises StorageFullError, StorageError, and what `fill` raises."""
    file = Written(path)
    try:
        fill(file)
        file.sync()
    finally:
        file.close()
    return file


class Stored:
    """A file of a backup that is read in one go: its bytes so far, and their sum."""

    def __init__(self, backup_id: str, path: Path) -> None:
        self.bytes = 0
        self._sum = hashlib.sha256()
        self._backup_id = backup_id
        self._path = path

    @property
    def sha256(self) -> str:
        """Of what was read, in hexadecimal digits."""
        return self._sum.hexdigest()

    def chunks(self) -> Iterator[bytes]:
        """All of it. Raises BackupDamagedError where it is no file or cannot be read, StorageError where it may not."""
        with self._told():
            # Neither a link that leads elsewhere nor a pipe that waits for ever.
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            with self._told():
                regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
            if not regular:
                raise self.damaged("it is no file")
            while True:
                with self._told():
                    chunk = os.read(descriptor, CHUNK_BYTES)
                if not chunk:
                    return
                self._sum.update(chunk)
                self.bytes += len(chunk)
                yield chunk
        finally:
            os.close(descriptor)

    def whole(self) -> bytes:
        """All of it at once."""
        return b"".join(self.chunks())

    def damaged(self, detail: str) -> BackupDamagedError:
        """The error that names this file."""
        return BackupDamagedError(self._backup_id, self._path.name, detail)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise self.damaged("it is missing") from error
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self.damaged("it is no file") from error
            if error.errno == errno.EIO:
                raise self.damaged("the disk cannot read it") from error
            raise StorageError(
                f"Cannot read {self._path.name} of the backup {self._backup_id}: {error.strerror or error}"
            ) from error
