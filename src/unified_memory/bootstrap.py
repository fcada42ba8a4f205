"""The composition root: settings -> storage -> service. The only place that wires."""

import os

from unified_memory import __version__
from unified_memory.model.clock import Clock, SystemClock
from unified_memory.service.drafting import Limits
from unified_memory.service.service import Service, assemble
from unified_memory.settings import Settings
from unified_memory.storage.base import Storage
from unified_memory.storage.sqlite import SQLiteStorage


def build(settings: Settings, clock: Clock | None = None) -> Service:
    """The service that the settings describe, not yet opened."""
    clock = clock or SystemClock()
    limits = Limits(
        value_bytes=settings.max_value_bytes,
        key_bytes=settings.max_key_bytes,
        tags=settings.max_tags,
        batch=settings.max_batch,
        namespaces=settings.max_namespace_count,
    )
    service = assemble(
        make_storage(settings, clock), clock, limits, read_only=settings.read_only, storage_limit=settings.storage_limit
    )
    service.contexts.instructions = settings.instructions
    return service


def make_storage(settings: Settings, clock: Clock) -> Storage:
    """The backend that the settings name."""
    processors = settings.cpu_limit or os.cpu_count() or 1
    return SQLiteStorage(
        settings.database, readers=max(2, round(processors)), program=f"unified-memory {__version__}", clock=clock
    )
