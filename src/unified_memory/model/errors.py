"""The one tree of errors.

    UnifiedMemoryError
    ├── NotFoundError
    │   ├── MemoryNotFoundError · NamespaceNotFoundError · SessionNotFoundError · JobNotFoundError · BackupNotFoundError
    │   └── GoneError: VersionGoneError · ChangesGoneError
    ├── InvalidInputError
    │   ├── MalformedInputError · TooLargeError · EmptyQueryError · InvalidCursorError · IdempotencyMismatchError
    ├── ConflictError
    │   ├── VersionConflictError · AlreadyExistsError · NamespaceNotEmptyError · InProgressError · BackupDamagedError
    │   ├── MigrationStateError
    ├── RefusedError
    │   ├── PermissionDeniedError · ReadOnlyError · QuotaExceededError
    ├── SourceError: SourceUnavailableError
    └── StorageError
        ├── StorageFullError · StorageBusyError · StorageCorruptError
        └── SchemaTooNewError · UnsuitableDirectoryError

Each carries a stable `code`, a sentence (`detail`), the facts it speaks of, and where there is one a hint of what
to do. Interfaces render them; none of them is ever turned into an empty answer.
"""

from typing import Any, ClassVar

from unified_memory.model.location import without_password


class UnifiedMemoryError(Exception):
    """Root of the tree. `facts` must be JSON-ready."""

    code: ClassVar[str] = "error"

    def __init__(self, detail: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint
        self.facts = facts


class NotFoundError(UnifiedMemoryError):
    """What was named does not exist, or the principal may not know that it does."""

    code = "not_found"


class MemoryNotFoundError(NotFoundError):
    """There is no visible memory of that key."""

    code = "memory_not_found"

    def __init__(self, namespace: str, key: str) -> None:
        super().__init__("Memory not found", namespace=namespace, key=key)


class NamespaceNotFoundError(NotFoundError):
    """There is no namespace of that name, or the principal may not know of it."""

    code = "namespace_not_found"

    def __init__(self, namespace: str) -> None:
        super().__init__("Namespace not found", namespace=namespace)


class SessionNotFoundError(NotFoundError):
    """There is no session of that id in that namespace."""

    code = "session_not_found"

    def __init__(self, namespace: str, session_id: str) -> None:
        super().__init__("Session not found", namespace=namespace, session_id=session_id)


class JobNotFoundError(NotFoundError):
    """There is no job of that id."""

    code = "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__("Job not found", job_id=job_id)


class BackupNotFoundError(NotFoundError):
    """There is no backup of that id."""

    code = "backup_not_found"

    def __init__(self, backup_id: str) -> None:
        super().__init__("Backup not found", backup_id=backup_id)


class GoneError(NotFoundError):
    """What was named was there, and is kept no longer."""

    code = "gone"


class VersionGoneError(GoneError):
    """That version of the memory was there, but its content was redacted, or is older than what is kept."""

    code = "version_gone"

    def __init__(self, namespace: str, key: str, version: int, *, redacted: bool = False) -> None:
        why = "was redacted" if redacted else "is no longer kept"
        super().__init__(f"The content of version {version} {why}", namespace=namespace, key=key, version=version)


class ChangesGoneError(GoneError):
    """Changes from there on are no longer all kept; `oldest` is the first place after which they are."""

    code = "changes_gone"

    def __init__(self, since: int, oldest: int) -> None:
        super().__init__(
            f"Changes up to {oldest} are no longer kept, so some after {since} are missing",
            hint="List everything once, then follow the changes from there",
            since=since,
            oldest=oldest,
        )


class InvalidInputError(UnifiedMemoryError):
    """Understood, but not acceptable; `field` names the part."""

    code = "invalid_input"

    def __init__(self, field: str, detail: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(detail, hint=hint, field=field, **facts)
        self.field = field


class MalformedInputError(InvalidInputError):
    """Not even readable: broken JSON, bytes that are no UTF-8."""

    code = "malformed_input"


class TooLargeError(InvalidInputError):
    """Larger than a limit; `limit` and `actual` in bytes."""

    code = "too_large"

    def __init__(self, field: str, limit: int, actual: int) -> None:
        super().__init__(field, f"{field} is larger than {limit} bytes", limit=limit, actual=actual)


class EmptyQueryError(InvalidInputError):
    """A search query in which nothing can be searched for."""

    code = "empty_query"

    def __init__(self) -> None:
        super().__init__("query", "The query holds nothing to search for")


class SemanticUnavailableError(UnifiedMemoryError):
    """Search by meaning was asked for, and cannot be done here or not yet."""

    code = "semantic_unavailable"


class InvalidCursorError(InvalidInputError):
    """A cursor that this listing did not hand out."""

    code = "invalid_cursor"

    def __init__(self) -> None:
        super().__init__("cursor", "The cursor does not belong to this listing", hint="Start again without a cursor")


class IdempotencyMismatchError(InvalidInputError):
    """An Idempotency-Key used again for another request."""

    code = "idempotency_mismatch"

    def __init__(self, key: str) -> None:
        super().__init__("Idempotency-Key", "This idempotency key was used for another request", key=key)


class ConflictError(UnifiedMemoryError):
    """The state of what is stored forbids it."""

    code = "conflict"


class VersionConflictError(ConflictError):
    """The caller named a version that is not the current one (`current` 0: there is no such memory).

    `precondition` tells that it was named as an HTTP precondition rather than as an argument.
    """

    code = "version_conflict"

    def __init__(self, namespace: str, key: str, expected: int, current: int, *, precondition: bool = False) -> None:
        super().__init__(
            f"The memory is at version {current}, not {expected}" if current else "The memory does not exist",
            hint="Retrieve it, apply the change to what is there now, and send its version",
            namespace=namespace,
            key=key,
            expected_version=expected,
            current_version=current,
        )
        self.precondition = precondition


class AlreadyExistsError(ConflictError):
    """What was to be created is there already; `precondition` as in VersionConflictError."""

    code = "already_exists"

    def __init__(self, detail: str, *, precondition: bool = False, **facts: Any) -> None:
        super().__init__(detail, **facts)
        self.precondition = precondition


class NamespaceNotEmptyError(ConflictError):
    """The namespace holds something, and `recursive` was not said."""

    code = "namespace_not_empty"

    def __init__(self, namespace: str, memories: int, namespaces: int) -> None:
        super().__init__(
            f"The namespace holds {memories} memories and {namespaces} namespaces",
            hint="Say recursive=true to delete all of it; dry_run=true shows what would go",
            namespace=namespace,
            memories=memories,
            namespaces=namespaces,
        )


class InProgressError(ConflictError):
    """The same long work is under way already."""

    code = "in_progress"


class BackupDamagedError(ConflictError):
    """A backup is not as it was written; `part` names the file."""

    code = "backup_damaged"

    def __init__(self, backup_id: str, part: str, detail: str) -> None:
        super().__init__(
            f"{part} of the backup {backup_id} is damaged: {detail}",
            hint="Nothing was restored from it; use another backup",
            backup_id=backup_id,
            part=part,
        )


class MigrationStateError(ConflictError):
    """What is asked of a migration does not follow on the state that it is in; `state` tells which."""

    code = "migration_state"

    def __init__(self, detail: str, state: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(detail, hint=hint, state=state, **facts)


class RefusedError(UnifiedMemoryError):
    """Understood, and not allowed."""

    code = "refused"


class PermissionDeniedError(RefusedError):
    """The principal may not do this there."""

    code = "permission_denied"


class ReadOnlyError(RefusedError):
    """Writes are off; deletes still work."""

    code = "read_only"

    def __init__(self, reason: str) -> None:
        super().__init__(f"The service is read-only: {reason}", hint="Deletes still work", reason=reason)


class QuotaExceededError(RefusedError):
    """A quota of a namespace; `quota` is the name of the setting, `namespace` the one that sets it."""

    code = "quota_exceeded"

    def __init__(self, namespace: str, quota: str, limit: int) -> None:
        super().__init__(
            f"{quota} of {namespace or 'the service'} is {limit}", namespace=namespace, quota=quota, limit=limit
        )


class SourceError(UnifiedMemoryError):
    """Another program's memories cannot be read, or not be written back: they are not what they were said to be, or damaged."""

    code = "source_error"

    def __init__(self, kind: str, location: str, detail: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(detail, hint=hint, kind=kind, location=without_password(location), **facts)


class SourceUnavailableError(SourceError):
    """The source does not answer, or is busy; later it may."""

    code = "source_unavailable"


class StorageError(UnifiedMemoryError):
    """The storage could not do it. Nothing was stored."""

    code = "storage_error"


class StorageFullError(StorageError):
    """No room is left on the disk, or STORAGE_LIMIT is reached."""

    code = "storage_full"

    def __init__(self, detail: str = "The disk is full; nothing was stored") -> None:
        super().__init__(detail, hint="Free space, or delete memories")


class StorageBusyError(StorageError):
    """Too much is waiting, or another process holds the storage for too long; `retry_after` in seconds."""

    code = "storage_busy"

    def __init__(self, detail: str, retry_after: int = 1) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.retry_after = retry_after


class StorageCorruptError(StorageError):
    """What is stored is damaged."""

    code = "storage_corrupt"


class ArchiveMissingError(StorageCorruptError):
    """A file of the cold tier is not where it was."""

    code = "archive_missing"

    def __init__(self, archive: str) -> None:
        super().__init__(
            f"The archive {archive} is missing",
            hint="Put it back where the archives lie, or restore a backup; unified-memory check names what it held",
            archive=archive,
        )


class SchemaTooNewError(StorageError):
    """The data was written by a newer program."""

    code = "schema_too_new"

    def __init__(self, found: int, known: int) -> None:
        super().__init__(
            f"The data directory has schema {found}; this program knows up to {known}",
            hint="Use the newer program, or restore a backup made before the upgrade",
            found=found,
            known=known,
        )


class UnsuitableDirectoryError(StorageError):
    """The data directory cannot keep the promises (a network file system, not writable)."""

    code = "unsuitable_directory"
