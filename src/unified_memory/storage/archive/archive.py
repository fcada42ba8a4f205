"""Archives: memories' values, compressed and checked, in files that are never changed."""

import contextlib
import secrets
from collections.abc import Collection, Iterable, Iterator

from msgspec import Struct

from unified_memory.model.clock import to_rfc3339
from unified_memory.model.errors import AlreadyExistsError, ArchiveMissingError, StorageCorruptError
from unified_memory.storage.archive.cache import Cache
from unified_memory.storage.archive.files import Files
from unified_memory.storage.archive.format import Records
from unified_memory.storage.archive.reading import (
    Block,
    Damage,
    Opened,
    View,
    corrupt,
    open_archive,
    read_block,
    require_own,
    verify,
)
from unified_memory.storage.archive.writing import Record, Writer
from unified_memory.storage.warm import Place

# The name of the empty file that marks a place begins so.
_MARK = "token-"
# Files whose index and dictionary are kept, about 200 KB each.
_OPENED = 64


class Written(Struct, frozen=True):
    """An archive that was written. `places`: of the records, in their order. `bytes_raw`: of all values; `bytes_stored`: of
    the file.
    """

    name: str
    places: list[Place]
    memories: int
    bytes_raw: int
    bytes_stored: int


def new_name(now: int) -> str:
    """A name that no archive had before: that instant, to the second, and 64 random bits."""
    second = to_rfc3339(now)[:19].replace("-", "").replace(":", "")
    return f"{second}Z-{secrets.token_hex(8)}.zar"


class Archive:
    """Writes and reads archives; keeps `warm.ColdValues`. All methods block, and may be called by any thread.

    `cache_bytes`: of decompressed blocks that are kept for the next read.
    """

    def __init__(self, files: Files, *, cache_bytes: int = 32 * 1024**2) -> None:
        self._files = files
        self.reads = 0
        self._blocks: Cache[tuple[str, int], Records] = Cache(cache_bytes, lambda records: records.memory_bytes)
        self._opened: Cache[str, Opened] = Cache(_OPENED, lambda _: 1)

    def write(self, name: str, records: Iterable[Record]) -> Written:
        """Writes an archive of the records; durable when the call returns, and there is no file when it raises.

        Memory holds the 2 MiB from the beginning that the dictionary is trained on, later one block, and always the places.
        Raises AlreadyExistsError, StorageFullError, StorageError, and whatever `records` raises.
        """
        writer = Writer(name, records)
        size = self._files.put(name, writer.sections())
        return Written(name, writer.places, len(writer.places), writer.bytes_raw, size)

    def read(self, archive: str, block: int, slot: int, number: int) -> bytes:
        """The value at that slot of that block, of the memory whose id is `number`.

        Raises StorageCorruptError naming archive and block where it is damaged, or the value of another memory, and
        ArchiveMissingError.
        """
        self.reads += 1
        records = self._blocks.get((archive, block))
        if records is None:
            records = self._read(archive, block)
            self._blocks.put((archive, block), records)
        if not 0 <= slot < len(records):
            raise corrupt(archive, block, f"it has no slot {slot}")
        if records.id(slot) != number:
            raise corrupt(archive, block, f"slot {slot} is of the memory {records.id(slot)}, not {number}")
        return records.value(slot)

    def verify(self, archive: str) -> Iterator[Damage | Block]:
        """Reads a whole archive, block by block: every block that is whole, and a Damage for everything that is not.

        Raises ArchiveMissingError, and StorageError where it is of another version of the format.
        """
        return verify(View(self._files, archive))

    def holds(self, archive: str, ids: Collection[int]) -> bool:
        """Whether an archive holds values of memories with one of these ids, or something that cannot be read and may be one.

        Reads all of it. Raises as `verify`.
        """
        wanted = frozenset(ids)
        return any(isinstance(one, Damage) or not wanted.isdisjoint(one.ids) for one in self.verify(archive))

    def remove(self, archive: str) -> None:
        """Removes an archive; it may be gone already."""
        self._files.remove(archive)
        self.forget(archive)

    def forget(self, archive: str) -> None:
        """Drops what is cached of an archive."""
        self._opened.forget(lambda key: key == archive)
        self._blocks.forget(lambda key: key[0] == archive)

    def claim(self, token: str) -> None:
        """Marks the place as that of the database which keeps this token; it may be marked already."""
        with contextlib.suppress(AlreadyExistsError):
            self._files.put(_MARK + token, [])

    def claimed(self, token: str) -> bool:
        """Whether the place is marked with the token. Raises StorageError where it cannot be told."""
        try:
            self._files.size(_MARK + token)
        except ArchiveMissingError:
            return False
        return True

    def names(self) -> list[str]:
        """The archives whose files are complete, sorted."""
        return [name for name in self._files.names() if not name.startswith(_MARK)]

    def size(self, archive: str) -> int:
        """The bytes of an archive's file. Raises ArchiveMissingError."""
        return self._files.size(archive)

    def total(self) -> int:
        """The bytes of all files, what interrupted writes left included."""
        return self._files.total()

    def sweep(self) -> list[str]:
        """Removes what writes left that were interrupted more than an hour ago; its names."""
        return self._files.sweep()

    def close(self) -> None:
        """Closes what is kept open. The archives may be used again after that."""
        self._files.close()

    def _read(self, archive: str, block: int) -> Records:
        try:
            opened = self._opened.get(archive)
            if opened is None:
                view = View(self._files, archive)
                opened = open_archive(view)
                require_own(view, opened.mark)
                self._opened.put(archive, opened)
            return read_block(self._files, archive, opened, block)
        except ArchiveMissingError:
            self.forget(archive)
            raise
        except StorageCorruptError:
            # The file may have been mended, or put back from a backup, since it was opened.
            self._opened.forget(lambda key: key == archive)
            raise
