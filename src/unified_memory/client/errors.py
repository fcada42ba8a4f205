"""What only a client can meet: a service that does not answer, or something else that does."""

from typing import Any, ClassVar

from unified_memory.model.errors import NotFoundError, StorageError, StorageFullError, UnifiedMemoryError


class ServiceUnavailableError(UnifiedMemoryError):
    """The service could not be reached, or what stands before it says that it is away; the request may have arrived, unless
    `unsent`.
    """

    code: ClassVar[str] = "service_unavailable"
    unsent: bool = False

    def __init__(self, detail: str, *, hint: str | None = None, unsent: bool = False, **facts: Any) -> None:
        super().__init__(detail, hint=hint, **facts)
        self.unsent = unsent


class SpoolError(StorageError):
    """The spool cannot be read or written. Nothing was kept."""

    code: ClassVar[str] = "spool_error"


class SpoolFullError(StorageFullError):
    """The spool has no room for another write; nothing was kept. `entries` and `bytes` are what is in it."""

    code: ClassVar[str] = "spool_full"

    def __init__(self, entries: int, size: int, max_entries: int, max_bytes: int) -> None:
        super().__init__(
            f"The spool is full: {entries} writes of {max_entries}, {size} bytes of {max_bytes}; nothing was kept"
        )
        self.hint = (
            "unified-memory spool replay sends them when the service is back; spool drop removes those that failed"
        )
        self.facts = {"entries": entries, "bytes": size, "max_entries": max_entries, "max_bytes": max_bytes}


class EntryNotFoundError(NotFoundError):
    """The spool has no write of that number."""

    code: ClassVar[str] = "entry_not_found"

    def __init__(self, entry_id: int) -> None:
        super().__init__("There is no such write in the spool", id=entry_id)


class UnexpectedAnswerError(UnifiedMemoryError):
    """What answered does not speak as the service does: another program, or a proxy on the way."""

    code: ClassVar[str] = "unexpected_answer"
