"""The composition root: settings -> storage -> service. The only place that wires."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from unified_memory import __version__
from unified_memory.model.clock import Clock, SystemClock
from unified_memory.model.history import Keeping
from unified_memory.service.backups import BackupPolicy
from unified_memory.service.drafting import Limits
from unified_memory.service.schedule import read_keep, read_schedule
from unified_memory.service.service import Safekeeping, Service, assemble
from unified_memory.service.tiering import Policy
from unified_memory.settings import UNLIMITED, Settings
from unified_memory.storage.archive import Archive, Bucket, Directory
from unified_memory.storage.backup import Key, Place
from unified_memory.storage.hot import Hot
from unified_memory.storage.process import ProcessHot
from unified_memory.storage.sqlite import SQLiteStorage
from unified_memory.storage.tiered import TieredStorage
from unified_memory.storage.untold import Untold

PROGRAM = f"unified-memory {__version__}"
REDIS_BYTES = 1024**3
PROCESS_BYTES = 32 * 1024**2

if TYPE_CHECKING:
    from unified_memory.semantic.embedder import Embedder


def build(settings: Settings, clock: Clock | None = None, *, copies: bool = True) -> Service:
    """The service that the settings describe, not yet opened. `copies`: it lives long enough for hot copies to be worth it.

    Raises ExtraMissingError, RefusedError, InvalidInputError.
    """
    clock = clock or SystemClock()
    limits = Limits(
        value_bytes=settings.max_value_bytes,
        key_bytes=settings.max_key_bytes,
        tags=settings.max_tags,
        batch=settings.max_batch,
        namespaces=settings.max_namespace_count,
    )
    service = assemble(
        make_storage(settings, clock, copies=copies),
        clock,
        limits,
        read_only=settings.read_only,
        storage_limit=settings.storage_limit,
        embedder=find_embedder(settings),
        meaning_cache=settings.semantic_cache,
        policy=Policy(settings.demote_after or None, settings.warm_max_bytes, settings.max_memory_size),
        safekeeping=Safekeeping(
            make_keeping(settings),
            settings.changes_days,
            Place(settings.backups, clock=clock),
            BackupPolicy(
                read_schedule(settings.backup_schedule),
                read_keep(settings.backup_keep),
                settings.backup_verify == "after",
                PROGRAM,
            ),
            make_key(settings),
            settings.database.parent,
            # What is noted of them is read by processes that were started elsewhere.
            settings.database.parent.absolute() / "migration",
            settings.backups.absolute() / "pre-migration",
        ),
    )
    service.contexts.instructions = settings.instructions
    return service


def make_storage(settings: Settings, clock: Clock, *, copies: bool = True) -> TieredStorage:
    """The tiers that the settings name."""
    processors = settings.cpu_limit or os.cpu_count() or 1
    archive = make_archive(settings)
    warm = SQLiteStorage(
        settings.database,
        readers=max(2, round(processors)),
        program=PROGRAM,
        clock=clock,
        cold=archive,
        keeping=make_keeping(settings),
    )
    hot, others = make_hot(settings, warm, clock, copies=copies)
    return TieredStorage(  # type: ignore[abstract]  # its methods are made of the contract, see `storage/forwarding.py`
        warm,
        clock,
        hot=hot,
        others=others,
        auto=copies and settings.hot_tier == "auto",
        archive=archive,
        cold_off="UNIFIED_MEMORY_ARCHIVE is off",
    )


def make_keeping(settings: Settings) -> Keeping:
    """How much of the past is kept where a namespace says nothing."""
    versions, days = settings.history_keep, settings.history_days
    return Keeping(None if versions == UNLIMITED else versions, None if days == UNLIMITED else days)


def make_key(settings: Settings) -> Key | None:
    """What backups are encrypted with, None where they are not. Raises InvalidInputError, RefusedError without the extra."""
    if settings.backup_key_file is not None:
        return Key.from_file(settings.backup_key_file)
    passphrase = settings.backup_passphrase.value
    return Key.from_passphrase(passphrase) if passphrase else None


def make_archive(settings: Settings) -> Archive | None:
    """Where archives lie, None where they are off. Nothing is made before the first one is written."""
    place = settings.archive or str(settings.database.parent / "archive")
    if place == "off":
        return None
    return Archive(Bucket(place) if place.startswith("s3://") else Directory(Path(place).expanduser()))


def make_hot(settings: Settings, warm: SQLiteStorage, clock: Clock, *, copies: bool) -> tuple[Hot | None, Hot | None]:
    """Who gives hot copies, and who tells of writes those that have others. Raises InvalidInputError where REDIS_URL is none."""
    reads = copies and settings.hot_tier != "off"
    url, size = settings.redis_url.value, settings.hot_max_bytes
    if url:
        from unified_memory.storage.redis import RedisHot  # noqa: PLC0415 - 60 ms of the start, and only where it is used

        size = REDIS_BYTES if size is None else size
        return RedisHot(url, warm, clock=clock, max_bytes=size, ttl=settings.hot_ttl, reads=reads), None
    size = PROCESS_BYTES if size is None else size
    # Others may use Redis on the same database.
    return ProcessHot(warm, max_bytes=size, ttl=settings.hot_ttl) if reads else None, Untold(warm, clock)


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
