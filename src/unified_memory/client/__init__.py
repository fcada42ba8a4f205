"""The Python client: `UnifiedMemoryClient` for asynchronous programs, `SyncUnifiedMemoryClient` for all others.

Both have the same operations, made of the same functions (`protocol`), and raise the errors of
`unified_memory.model.errors`. `resilience` says when a call is made again, `fallback` and `spool` where a write is kept while the
service is away. `unified_memory.client.fastapi` has a router for FastAPI applications.
"""

from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from unified_memory.client.asynchronous import UnifiedMemoryClient
from unified_memory.client.errors import ServiceUnavailableError, SpoolError, SpoolFullError, UnexpectedAnswerError
from unified_memory.client.resilience import Breaker, BreakerState, Retries
from unified_memory.client.synchronous import SyncUnifiedMemoryClient

if TYPE_CHECKING:
    from unified_memory.client.spool import Spool

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


def __getattr__(name: str) -> Any:
    # SQLite's driver is loaded by those alone who use a spool: 2 to 4 ms of each command that asks a service.
    if name != "Spool":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from unified_memory.client.spool import Spool  # noqa: PLC0415 - see above

    return Spool
