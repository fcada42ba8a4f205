"""The composition root: settings -> storage -> service. The only place that wires."""

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from unified_memory import __version__
from unified_memory.model.clock import Clock, SystemClock
from unified_memory.service.drafting import Limits
from unified_memory.service.service import Service, assemble
from unified_memory.settings import Settings
from unified_memory.storage.base import Storage
from unified_memory.storage.sqlite import SQLiteStorage

if TYPE_CHECKING:
    from unified_memory.semantic.embedder import Embedder


def build(settings: Settings, clock: Clock | None = None) -> Service:
    """The service that the settings describe, not yet opened. Raises ExtraMissingError."""
    clock = clock or SystemClock()
    limits = Limits(
        value_bytes=settings.max_value_bytes,
        key_bytes=settings.max_key_bytes,
        tags=settings.max_tags,
        batch=settings.max_batch,
        namespaces=settings.max_namespace_count,
    )
    service = assemble(
        make_storage(settings, clock),
        clock,
        limits,
        read_only=settings.read_only,
        storage_limit=settings.storage_limit,
        embedder=find_embedder(settings),
        meaning_cache=settings.semantic_cache,
    )
    service.contexts.instructions = settings.instructions
    return service


def make_storage(settings: Settings, clock: Clock) -> Storage:
    """The backend that the settings name."""
    processors = settings.cpu_limit or os.cpu_count() or 1
    return SQLiteStorage(
        settings.database, readers=max(2, round(processors)), program=f"unified-memory {__version__}", clock=clock
    )


def find_embedder(settings: Settings) -> "Callable[[], Embedder] | None":
    """What loads the embedder that the settings name, None where search by meaning is off.

    Raises ExtraMissingError where it is on and what it needs is not installed; whether the model is there shows when it is
    loaded.
    """
    if settings.semantic == "off":
        return None
    from unified_memory.semantic.errors import ExtraMissingError  # noqa: PLC0415 - nothing of it where it is off
    from unified_memory.semantic.extra import require  # noqa: PLC0415 - as above

    try:
        # A server's user needs no model.
        require(*(["numpy"] if settings.semantic_model.lower().startswith(("http://", "https://")) else []))
    except ExtraMissingError:
        if settings.semantic == "on":
            raise
        return None
    return partial(_load_embedder, settings)


def _load_embedder(settings: Settings) -> "Embedder":
    from unified_memory.semantic.embedder import load_embedder  # noqa: PLC0415 - numpy, and 0.2 s: in a thread, and only there

    return load_embedder(settings.semantic_model, api_key=settings.semantic_key.value)
