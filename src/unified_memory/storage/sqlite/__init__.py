"""SQLite: the warm tier of one machine, for any number of processes."""

from unified_memory.storage.sqlite.storage import SQLiteStorage

__all__ = ["SQLiteStorage"]
