"""Where backups lie: a folder each, in one directory."""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
from msgspec import Struct

from unified_memory.model.clock import SECOND, Clock, SystemClock
from unified_memory.model.errors import BackupNotFoundError, InvalidInputError
from unified_memory.storage.backup import files
from unified_memory.storage.backup.files import TEMP, Stored
from unified_memory.storage.backup.manifest import MANIFEST, SUMS, Manifest, is_id, unpack
from unified_memory.storage.backup.reading import Reading
from unified_memory.storage.backup.sealing import Key
from unified_memory.storage.backup.writing import Writing

_LEFTOVER_AFTER = 3600 * SECOND
_VERIFIED = ".verified.json"
_REMOVED = ".removed"


class Verified(Struct, forbid_unknown_fields=True):
    """What came of verifying a backup: when (RFC 3339), whether it was whole, what was wrong, and how long it took."""

    at: str
    ok: bool
    detail: str | None
    seconds: float
    memories: int


class Place:
    """The directory of backups, which is made when the first one is written; only its owner may read it.

    All methods block, may be called by any thread, and raise StorageError where the directory cannot be reached.
    """

    def __init__(self, path: Path, *, clock: Clock | None = None) -> None:
        self._path = path
        self._clock = clock or SystemClock()

    def ids(self) -> list[str]:
        """The complete backups, oldest first."""
        return sorted(entry.name for entry in self._entries() if is_id(entry.name) and _is_folder(entry))

    def manifest(self, backup_id: str) -> Manifest:
        """What the backup says of itself, compared with its sum.

        Raises BackupNotFoundError, BackupDamagedError naming manifest.json or SHA256SUMS, RefusedError where a newer program
        wrote it.
        """
        folder = self._folder(backup_id)
        manifest, sums = (Stored(backup_id, folder / name).whole() for name in (MANIFEST, SUMS))
        return unpack(backup_id, manifest, sums)

    def writing(self, backup_id: str, key: Key | None = None) -> Writing:
        """A new backup, encrypted where there is a key. Entering it raises AlreadyExistsError, StorageFullError."""
        if not is_id(backup_id):
            raise InvalidInputError("backup_id", f"{backup_id!r} is not the id of a backup")
        return Writing(self._path, backup_id, key)

    def reading(self, backup_id: str, key: Key | None = None) -> Reading:
        """A complete backup. Raises as `manifest` does, and RefusedError where it is encrypted and there is no key."""
        return Reading(self._folder(backup_id), self.manifest(backup_id), key)

    def remove(self, backup_id: str) -> None:
        """Removes a backup: at once it is no longer listed. Raises BackupNotFoundError."""
        folder = self._folder(backup_id)
        aside = self._path / f".{backup_id}{_REMOVED}{TEMP}"
        with files.told(f"remove the backup {backup_id}"):
            self._verified(backup_id).unlink(missing_ok=True)
            folder.rename(aside)
            files.sync(self._path)
            shutil.rmtree(aside)

    def sweep(self) -> list[str]:
        """Removes what writing or removing left that was interrupted more than an hour ago; its names."""
        before = self._clock.now() - _LEFTOVER_AFTER
        swept: list[str] = []
        for entry in self._entries():
            if not _is_temp(entry.name):
                continue
            # Its writer may finish or remove it at this very moment.
            with files.told(f"remove {entry.name}"), suppress(FileNotFoundError):
                if _touched(entry) >= before:
                    continue
                if _is_folder(entry):
                    shutil.rmtree(entry.path)
                else:
                    Path(entry.path).unlink()
                swept.append(entry.name)
        return sorted(swept)

    def free_bytes(self) -> int:
        """Bytes that backups may still take on their disk."""
        there = next(path for path in (self._path, *self._path.absolute().parents) if path.exists())
        with files.told(f"look at the disk of {self._path}"):
            return shutil.disk_usage(there).free

    def stored_bytes(self, backup_id: str) -> int:
        """Bytes of the files of a backup. Raises BackupNotFoundError."""
        folder = self._folder(backup_id)
        with files.told(f"list the backup {backup_id}"), os.scandir(folder) as entries:
            return sum(entry.stat(follow_symlinks=False).st_size for entry in entries)

    def note_verified(self, backup_id: str, verified: Verified) -> None:
        """Keeps what came of verifying a backup beside it. Raises BackupNotFoundError, StorageFullError."""
        self._folder(backup_id)
        target = self._verified(backup_id)
        temp = self._path / f".{target.name}{TEMP}"
        with files.told(f"note that the backup {backup_id} was verified"):
            # Of one that was killed here.
            temp.unlink(missing_ok=True)
            files.write(temp, lambda file: file.write(msgspec.json.encode(verified) + b"\n"))
            temp.rename(target)
            files.sync(self._path)

    def verified(self, backup_id: str) -> Verified | None:
        """What came of verifying it last; None where that was never done, or what was noted cannot be read any longer.

        Raises BackupNotFoundError.
        """
        self._folder(backup_id)
        with files.told(f"read whether the backup {backup_id} was verified"):
            try:
                return msgspec.json.decode(self._verified(backup_id).read_bytes(), type=Verified)
            except (FileNotFoundError, msgspec.MsgspecError, UnicodeDecodeError):
                return None

    def _folder(self, backup_id: str) -> Path:
        folder = self._path / backup_id
        if not is_id(backup_id) or folder.is_symlink() or not folder.is_dir():
            raise BackupNotFoundError(backup_id)
        return folder

    def _verified(self, backup_id: str) -> Path:
        return self._path / f"{backup_id}{_VERIFIED}"

    def _entries(self) -> Iterator["os.DirEntry[str]"]:
        with files.told(f"list {self._path}"):
            try:
                entries = list(os.scandir(self._path))
            except FileNotFoundError:
                return
        yield from entries


def _is_folder(entry: "os.DirEntry[str]") -> bool:
    return entry.is_dir(follow_symlinks=False)


def _is_temp(name: str) -> bool:
    """Whether that is what `Writing`, `remove` or `note_verified` call what is not complete."""
    middle = name.removeprefix(".").removesuffix(TEMP).removesuffix(_REMOVED).removesuffix(_VERIFIED)
    return name.startswith(".") and name.endswith(TEMP) and is_id(middle)


def _touched(entry: "os.DirEntry[str]") -> int:
    """When it, or a file in it, was last written, microseconds. Raises FileNotFoundError."""
    newest = entry.stat(follow_symlinks=False).st_mtime_ns
    if _is_folder(entry):
        with os.scandir(entry.path) as inner:
            newest = max([newest, *(each.stat(follow_symlinks=False).st_mtime_ns for each in inner)])
    return newest // 1000
