"""Errors as problem+json (RFC 9457)."""

from http import HTTPStatus
from typing import Any

import msgspec

from unified_memory.model import errors
from unified_memory.rest.exchange import PROBLEM, Answer

# From the special to the general: the first that fits is taken.
STATUS: tuple[tuple[type[errors.UnifiedMemoryError], int], ...] = (
    (errors.GoneError, 410),
    (errors.NotFoundError, 404),
    (errors.MalformedInputError, 400),
    (errors.TooLargeError, 413),
    (errors.InvalidInputError, 422),
    (errors.ConflictError, 409),
    (errors.RefusedError, 403),
    (errors.SourceUnavailableError, 503),
    (errors.SourceError, 422),
    (errors.StorageFullError, 507),
    (errors.StorageBusyError, 503),
    (errors.SchemaTooNewError, 503),
    (errors.SemanticUnavailableError, 503),
    (errors.StorageError, 500),
)
_dumps = msgspec.json.Encoder().encode


def status_of(error: errors.UnifiedMemoryError) -> int:
    """The HTTP status of an error of ours."""
    if getattr(error, "precondition", False):
        return 412
    return next((status for kind, status in STATUS if isinstance(error, kind)), 500)


def status_of_code(code: str) -> int:
    """The HTTP status of the errors with that code; 500 where it is none of ours."""
    kinds: list[type[errors.UnifiedMemoryError]] = [errors.UnifiedMemoryError]
    for kind in kinds:
        if kind.code == code:
            return next((status for family, status in STATUS if issubclass(kind, family)), 500)
        kinds += kind.__subclasses__()
    return 500


def problem(error: errors.UnifiedMemoryError) -> Answer:
    """The answer that tells the error."""
    status = status_of(error)
    facts: dict[str, Any] = {"code": error.code, **({"hint": error.hint} if error.hint else {}), **error.facts}
    retry = facts.get("retry_after")
    return told(status, error.detail, facts, ((b"retry-after", str(retry).encode()),) if retry is not None else ())


def told(status: int, detail: str, facts: dict[str, Any], headers: tuple[tuple[bytes, bytes], ...] = ()) -> Answer:
    """A problem by its parts."""
    body = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **facts}
    return Answer(_dumps(body), status, (PROBLEM, *headers))


FAILED = told(500, "The service failed unexpectedly", {"code": "internal_error"})
