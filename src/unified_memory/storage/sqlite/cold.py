"""Values that lie in archives, for statements that ask for them: the SQL function `cold_value(archive, block, slot, id)`.

It gives the JSON text of a value, and raises what reading it raises, which ends the statement. So whatever is asked of a value
(filters, order, search, updates, `check`) is asked of cold ones in the same words.
"""

import threading

from unified_memory.model.errors import ArchiveMissingError, StorageCorruptError, StorageError
from unified_memory.storage.sqlite.connection import Database
from unified_memory.storage.warm import ColdValues


class Cold:
    """The function, registered on every connection of a storage, with a count for each thread of how often it was asked.

    `values` None: there is no cold tier, and a stub is an error.
    """

    def __init__(self, values: ColdValues | None) -> None:
        self.values = values
        self._asked = threading.local()

    def register(self, connection: Database) -> None:
        """Teaches a connection the function."""
        connection.create_scalar_function("cold_value", self._value, 4)

    def register_leniently(self, connection: Database, damaged: dict[int, str], missing: set[str]) -> None:
        """The same for a look at everything: a value that cannot be read is NULL, and `damaged` says of which memory and why,
        `missing` which archives are not there.
        """

        def value(archive: str, block: int, slot: int, number: int) -> str | None:
            try:
                return self._value(archive, block, slot, number)
            except StorageError as error:
                if isinstance(error, ArchiveMissingError):
                    missing.add(archive)
                damaged.setdefault(number, error.detail)
                return None

        connection.create_scalar_function("cold_value", value, 4)

    def begin(self) -> None:
        """The thread counts from 0 again."""
        self._asked.times = 0

    def counted(self) -> int:
        """How many values were fetched by this thread since `begin`."""
        return int(getattr(self._asked, "times", 0))

    def _value(self, archive: str, block: int, slot: int, number: int) -> str:
        if archive is None:
            raise StorageCorruptError(f"The value of memory {number} is in no archive and not in the database")
        if self.values is None:
            raise StorageError(
                f"The value of memory {number} lies in the archive {archive}, and there is no cold tier",
                hint="Start with the UNIFIED_MEMORY_ARCHIVE or the data directory with which it was archived",
                archive=archive,
            )
        self._asked.times = self.counted() + 1
        return self.values.read(archive, block, slot, number).decode()
