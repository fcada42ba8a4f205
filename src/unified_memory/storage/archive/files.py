"""Where archive files lie."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable

from unified_memory.model.errors import StorageCorruptError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,199}")


def is_name(name: str) -> bool:
    """Whether a file of that name can be an archive: letters, digits, dots and hyphens, at most 200, no dot or hyphen first."""
    return _NAME.fullmatch(name) is not None


def require_name(name: str) -> None:
    """Raises StorageCorruptError where that can be no archive's name, so that none leads out of where the files lie."""
    if not is_name(name):
        raise StorageCorruptError(f"{name!r} is not the name of an archive", archive=name)


class Files(ABC):
    """Files that are written once, whole, and then only read or removed. All methods may be called by any thread; all block,
    and all raise StorageError where the files cannot be reached.
    """

    @abstractmethod
    def put(self, name: str, chunks: Iterable[bytes]) -> int:
        """Writes a whole file or nothing; its bytes. It is durable when the call returns.

        Raises AlreadyExistsError where the name is taken, and StorageFullError.
        """

    @abstractmethod
    def read(self, name: str, start: int, length: int) -> bytes:
        """The bytes from `start` on, at most `length`; fewer where the file ends. Raises ArchiveMissingError."""

    @abstractmethod
    def size(self, name: str) -> int:
        """The bytes of a file. Raises ArchiveMissingError."""

    @abstractmethod
    def names(self) -> list[str]:
        """The complete files, sorted."""

    @abstractmethod
    def total(self) -> int:
        """The bytes of all files, what interrupted writes left included."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Removes a file; it may be gone already."""

    @abstractmethod
    def sweep(self) -> list[str]:
        """Removes what writes left that were interrupted more than an hour ago; its names."""

    @abstractmethod
    def close(self) -> None:
        """Closes what is kept open. The files may be used again after that."""
