"""The Python client: `UnifiedMemoryClient` for asynchronous programs, `SyncUnifiedMemoryClient` for all others.

Both have the same operations, made of the same functions (`protocol`), and raise the errors of
`unified_memory.model.errors`. `resilience` says when a call is made again, `fallback` and `spool` where a write is kept while the
service is away. `unified_memory.client.fastapi` has a router for FastAPI applications.
"""

from msgspec import UNSET

from unified_memory.client.asynchronous import UnifiedMemoryClient
from unified_memory.client.errors import ServiceUnavailableError, SpoolError, SpoolFullError, UnexpectedAnswerError
from unified_memory.client.resilience import Breaker, BreakerState, Retries
from unified_memory.client.spool import Spool
from unified_memory.client.synchronous import SyncUnifiedMemoryClient

__all__ = [
    "UNSET",
    "Breaker",
    "BreakerState",
    "Retries",
    "ServiceUnavailableError",
    "Spool",
    "SpoolError",
    "SpoolFullError",
    "SyncUnifiedMemoryClient",
    "UnexpectedAnswerError",
    "UnifiedMemoryClient",
]
