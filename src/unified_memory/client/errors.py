"""What only a client can meet: a service that does not answer, or something else that does."""

from typing import ClassVar

from unified_memory.model.errors import UnifiedMemoryError


class ServiceUnavailableError(UnifiedMemoryError):
    """The service could not be reached, or what stands before it says that it is away; the request may have arrived."""

    code: ClassVar[str] = "service_unavailable"


class UnexpectedAnswerError(UnifiedMemoryError):
    """What answered does not speak as the service does: another program, or a proxy on the way."""

    code: ClassVar[str] = "unexpected_answer"
