"""The Python client: `UnifiedMemoryClient` for asynchronous programs, `SyncUnifiedMemoryClient` for all others.

Both have the same operations, made of the same functions (`protocol`), and raise the errors of
`unified_memory.model.errors`.
"""

from msgspec import UNSET

from unified_memory.client.asynchronous import UnifiedMemoryClient
from unified_memory.client.errors import ServiceUnavailableError, UnexpectedAnswerError
from unified_memory.client.synchronous import SyncUnifiedMemoryClient

__all__ = [
    "UNSET",
    "ServiceUnavailableError",
    "SyncUnifiedMemoryClient",
    "UnexpectedAnswerError",
    "UnifiedMemoryClient",
]
