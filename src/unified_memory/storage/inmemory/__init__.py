"""The reference backend: the storage contract in plain dicts, for tests and for comparing others with."""

from unified_memory.storage.inmemory.storage import InMemoryStorage

__all__ = ["InMemoryStorage"]
