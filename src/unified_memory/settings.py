"""Every option once: its name, type, default and help. The only reader of the environment.

An option's variable is its mission name where it has one (`SQLITE_PATH`), else `UNIFIED_MEMORY_` and its name.
An own table rather than a settings library, because the process that forwards MCP must answer within a fraction of a second.
"""

import ipaddress
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from unified_memory.model.errors import InvalidInputError
from unified_memory.service.schedule import read_keep, read_schedule

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kmgt]?)i?b?", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_YES = {"1", "true", "yes", "on"}
_NO = {"0", "false", "no", "off"}
SEMANTIC = ("off", "auto", "on")
HOT_TIER = ("off", "auto", "on")
BACKUP_VERIFY = ("off", "after")
UNLIMITED = -1
# Versions or days of the past: more than a life holds, and no day before the first that can be told.
MOST_PAST = 100_000
LONGEST_HOT_TTL = 10 * 365 * 86_400


class Secret(Struct, frozen=True):
    """What must not be shown: only `value` tells it."""

    value: str = ""

    def __str__(self) -> str:
        return "***" if self.value else ""

    __repr__ = __str__


class Settings(Struct, frozen=True, kw_only=True):
    """What the service is told at its start. Sizes in bytes, times in seconds; 0 is unlimited where a limit can be."""

    host: str = "127.0.0.1"
    port: int = 3200
    data_dir: Path
    sqlite_path: Path | None = None
    log_dir: Path | None = None
    log_level: str = "INFO"
    service_name: str = "unified-memory"
    allow_anonymous: bool = False
    read_only: bool = False
    ttl_cleanup_interval: float = 300.0
    access_flush_interval: float = 5.0
    max_namespace_count: int = 1000
    max_value_bytes: int = 16 * 1024**2
    max_key_bytes: int = 4096
    max_tags: int = 256
    max_body_bytes: int = 32 * 1024**2
    max_batch: int = 1000
    storage_limit: int = 0
    cpu_limit: float = 0.0
    tools: str = "unified"
    instructions: Path | None = None
    semantic: str = "auto"
    semantic_model: str = ""
    semantic_key: Secret = Secret()
    semantic_cache: int = 256 * 1024**2
    redis_url: Secret = Secret()
    hot_tier: str = "auto"
    hot_max_bytes: int | None = None
    hot_ttl: float = 3600.0
    warm_max_bytes: int = 10 * 1024**3
    max_memory_size: int = 0
    demote_after: float = 90 * 86_400.0
    tiering_interval: float = 600.0
    archive: str = ""
    backup_dir: Path | None = None
    backup_schedule: str = "0 2 * * *"
    backup_keep: str = "daily=7,weekly=4,monthly=12"
    backup_verify: str = "off"
    backup_key_file: Path | None = None
    backup_passphrase: Secret = Secret()
    history_keep: int = 20
    history_days: float = 30.0
    changes_days: float = 7.0
    migration_dir: Path | None = None

    @property
    def local(self) -> bool:
        """Whether only this machine can reach the address."""
        return is_loopback(self.host)

    @property
    def database(self) -> Path:
        """The SQLite file: SQLITE_PATH where it is given, else in the data directory."""
        return self.sqlite_path or self.data_dir / "unified-memory.db"

    @property
    def backups(self) -> Path:
        """Where backups lie: MCP_BACKUP_DIR where it is given, else in the data directory."""
        return self.backup_dir or self.data_dir / "backups"


class Option(Struct, frozen=True):
    """One option: `kind` is str, int, float, bool, size, path or secret."""

    name: str
    variable: str
    kind: str
    help: str


OPTIONS: tuple[Option, ...] = (
    Option(
        "host",
        "UNIFIED_MEMORY_HOST",
        "str",
        "Address to listen on. Any but a loopback address needs ALLOW_ANONYMOUS=true, until there are keys.",
    ),
    Option("port", "UNIFIED_MEMORY_PORT", "int", "Port to listen on."),
    Option(
        "data_dir",
        "MCP_DATA_DIR",
        "path",
        "Directory of everything that is kept; by default unified-memory in the user's data directory.",
    ),
    Option("sqlite_path", "SQLITE_PATH", "path", "The database file itself; wins over the data directory."),
    Option("log_dir", "MCP_LOG_DIR", "path", "Directory for rotated JSON logs; without it they go to standard error."),
    Option("log_level", "UNIFIED_MEMORY_LOG_LEVEL", "str", "DEBUG, INFO, WARNING or ERROR."),
    Option("service_name", "MCP_SERVICE", "str", "The name that the service announces."),
    Option("allow_anonymous", "ALLOW_ANONYMOUS", "bool", "Serve without keys also on addresses that others can reach."),
    Option("read_only", "UNIFIED_MEMORY_READ_ONLY", "bool", "Refuse every write but deletes."),
    Option(
        "ttl_cleanup_interval", "TTL_CLEANUP_INTERVAL", "float", "Seconds between two cleanups of what has expired."
    ),
    Option(
        "access_flush_interval",
        "UNIFIED_MEMORY_ACCESS_FLUSH_INTERVAL",
        "float",
        "Seconds between two bulk writes of access counts.",
    ),
    Option(
        "max_namespace_count",
        "MAX_NAMESPACE_COUNT",
        "int",
        "How many namespaces may be created explicitly; 0 is unlimited.",
    ),
    Option("max_value_bytes", "UNIFIED_MEMORY_MAX_VALUE_BYTES", "size", "Largest value."),
    Option("max_key_bytes", "UNIFIED_MEMORY_MAX_KEY_BYTES", "size", "Longest key."),
    Option("max_tags", "UNIFIED_MEMORY_MAX_TAGS", "int", "Most tags of one memory."),
    Option("max_body_bytes", "UNIFIED_MEMORY_MAX_BODY_BYTES", "size", "Largest request body."),
    Option("max_batch", "UNIFIED_MEMORY_MAX_BATCH", "int", "Most items of one batch."),
    Option(
        "storage_limit",
        "STORAGE_LIMIT",
        "size",
        "Largest size of all our files; writes stop shortly before it. 0 is unlimited.",
    ),
    Option(
        "cpu_limit",
        "CPU_LIMIT",
        "float",
        "Processors to use; sets the number of reader threads. 0 takes what the machine has.",
    ),
    Option(
        "tools",
        "TOOLS",
        "str",
        "Tool profile that MCP clients get unless they choose: unified, extended-memory, memory-bank, memory-bank-pypi,"
        " knowledge-graph or all.",
    ),
    Option(
        "instructions",
        "CUSTOM_INSTRUCTION_PATH",
        "path",
        "A Markdown or text file that load_contexts shows before the contexts.",
    ),
    Option(
        "semantic",
        "UNIFIED_MEMORY_SEMANTIC",
        "str",
        "Search by meaning: off, on, or auto, which is on where the extra semantic is installed.",
    ),
    Option(
        "semantic_model",
        "UNIFIED_MEMORY_SEMANTIC_MODEL",
        "str",
        "The directory of a sentence model, or the URL of an embeddings server with #model behind it; by default the model that"
        " comes with the extra.",
    ),
    Option(
        "semantic_key",
        "UNIFIED_MEMORY_SEMANTIC_KEY",
        "secret",
        "The key of the embeddings server; on a command line others can read it.",
    ),
    Option(
        "semantic_cache",
        "UNIFIED_MEMORY_SEMANTIC_CACHE",
        "size",
        "Memory for vectors held ready, about 1 KB each.",
    ),
    Option(
        "redis_url",
        "REDIS_URL",
        "secret",
        "Redis 7 or Valkey 8 for the hot tier: redis://, rediss://, unix://, redis+sentinel://host:port,…/service,"
        " redis+cluster://host:port,…; without it the hot tier lies in the process.",
    ),
    Option(
        "hot_tier",
        "HOT_TIER",
        "str",
        "Hot copies of memories in use: off, on, or auto, which is on where they are quicker than the database.",
    ),
    Option(
        "hot_max_bytes",
        "UNIFIED_MEMORY_HOT_MAX_BYTES",
        "size",
        "Most bytes of hot copies; by default 1 GB in Redis, 32 MB in the process.",
    ),
    Option("hot_ttl", "UNIFIED_MEMORY_HOT_TTL", "float", "Seconds that a hot copy lives at most."),
    Option(
        "warm_max_bytes",
        "UNIFIED_MEMORY_WARM_MAX_BYTES",
        "size",
        "Size of the database above which the least important values are archived; 0 is unlimited.",
    ),
    Option(
        "max_memory_size",
        "MAX_MEMORY_SIZE",
        "size",
        "Bytes of values in the database above which the least important ones are archived; 0 is unlimited.",
    ),
    Option(
        "demote_after",
        "UNIFIED_MEMORY_DEMOTE_AFTER",
        "float",
        "Seconds without use after which a memory's value is archived; 0 for never. Namespaces may say otherwise.",
    ),
    Option(
        "tiering_interval",
        "UNIFIED_MEMORY_TIERING_INTERVAL",
        "float",
        "Seconds between two passes that archive and compact.",
    ),
    Option(
        "archive",
        "UNIFIED_MEMORY_ARCHIVE",
        "str",
        "Where archives lie: a directory, s3://bucket/prefix?endpoint=…, or off; by default archive in the data directory.",
    ),
    Option("backup_dir", "MCP_BACKUP_DIR", "path", "Where backups lie; by default backups in the data directory."),
    Option(
        "backup_schedule",
        "BACKUP_SCHEDULE",
        "str",
        "When backups are made: minute, hour, day, month and weekday as cron has them, in the time zone of the machine; or off.",
    ),
    Option(
        "backup_keep",
        "UNIFIED_MEMORY_BACKUP_KEEP",
        "str",
        "Scheduled backups that stay: the newest of so many days, weeks and months; or all.",
    ),
    Option(
        "backup_verify",
        "UNIFIED_MEMORY_BACKUP_VERIFY",
        "str",
        "after: prove each scheduled backup by restoring it aside; or off.",
    ),
    Option(
        "backup_key_file",
        "UNIFIED_MEMORY_BACKUP_KEY_FILE",
        "path",
        "A file of age identities: backups are encrypted, and only they open them. Needs the extra encrypt.",
    ),
    Option(
        "backup_passphrase",
        "UNIFIED_MEMORY_BACKUP_PASSPHRASE",
        "secret",
        "A passphrase to encrypt backups with, in place of a key file; on a command line others can read it.",
    ),
    Option(
        "history_keep",
        "UNIFIED_MEMORY_HISTORY_KEEP",
        "int",
        "Former versions of each memory that are kept; 0 keeps none, -1 is no limit. Namespaces may say otherwise.",
    ),
    Option(
        "history_days",
        "UNIFIED_MEMORY_HISTORY_DAYS",
        "float",
        "Days that former versions are kept; 0 keeps none, -1 is no limit. Namespaces may say otherwise.",
    ),
    Option(
        "changes_days",
        "UNIFIED_MEMORY_CHANGES_DAYS",
        "float",
        "Days that the feed of changes reaches back.",
    ),
    Option(
        "migration_dir",
        "MIGRATION_DIR",
        "path",
        "The directory below which sources of a migration may be named over REST; without it none may.",
    ),
)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load(environment: Mapping[str, str] | None = None, **given: Any) -> Settings:
    """The settings: what is given (None: not given) wins over the environment, that over the defaults.

    Raises InvalidInputError naming the variable that is wrong.
    """
    surroundings = os.environ if environment is None else environment
    found: dict[str, Any] = {}
    for option in OPTIONS:
        if (value := given.pop(option.name, None)) is not None:
            found[option.name] = value
        elif (text := surroundings.get(option.variable, "").strip()) != "":
            found[option.name] = read(option, text)
    if given:
        raise InvalidInputError(next(iter(given)), f"There is no option {next(iter(given))!r}")
    # A place of the user's, the same whatever the working directory is.
    home = Path(surroundings.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    settings = Settings(**{"data_dir": home / "unified-memory", **found})
    if not 0 <= settings.port < 2**16:
        raise InvalidInputError("port", "The port must be from 0 to 65535")
    if settings.semantic not in SEMANTIC:
        raise InvalidInputError("semantic", f"UNIFIED_MEMORY_SEMANTIC is one of {', '.join(SEMANTIC)}")
    for name in ("hot_ttl", "tiering_interval"):
        if not getattr(settings, name) > 0:
            raise InvalidInputError(name, f"{name} must be greater than 0")
    if settings.hot_ttl > LONGEST_HOT_TTL:
        raise InvalidInputError("hot_ttl", "hot_ttl must be at most ten years")
    if not settings.demote_after >= 0:
        raise InvalidInputError("demote_after", "demote_after must not be less than 0", hint="0 for never")
    if settings.hot_tier not in HOT_TIER:
        raise InvalidInputError("hot_tier", f"HOT_TIER is one of {', '.join(HOT_TIER)}")
    _check_past(settings)
    return settings


def _check_past(settings: Settings) -> None:
    """Raises InvalidInputError where an option of backups or of the history means nothing."""
    read_schedule(settings.backup_schedule)
    read_keep(settings.backup_keep)
    if settings.backup_verify not in BACKUP_VERIFY:
        raise InvalidInputError("backup_verify", f"UNIFIED_MEMORY_BACKUP_VERIFY is one of {', '.join(BACKUP_VERIFY)}")
    if settings.backup_key_file is not None and settings.backup_passphrase.value:
        raise InvalidInputError("backup_passphrase", "Backups are encrypted with a key file or a passphrase, not both")
    for name in ("history_keep", "history_days"):
        value = getattr(settings, name)
        if not (0 <= value <= MOST_PAST or value == UNLIMITED):
            raise InvalidInputError(name, f"{name} must be from 0 to {MOST_PAST}", hint="-1 for no limit")
    if not 0 < settings.changes_days <= MOST_PAST:
        raise InvalidInputError("changes_days", f"changes_days must be greater than 0 and at most {MOST_PAST}")


def read(option: Option, text: str) -> Any:
    """The value that a text means for an option. Raises InvalidInputError."""
    try:
        match option.kind:
            case "bool":
                return _bool(text)
            case "size":
                return _size(text)
            case "path":
                return Path(text).expanduser()
            case "secret":
                return Secret(text)
            case kind:
                return msgspec.convert(text, {"str": str, "int": int, "float": float}[kind], strict=False)
    except (ValueError, msgspec.ValidationError):
        raise InvalidInputError(
            option.variable, f"{option.variable}={text!r} is no {option.kind}", hint=option.help
        ) from None


def _bool(text: str) -> bool:
    if text.lower() in _YES:
        return True
    if text.lower() in _NO:
        return False
    raise ValueError


def _size(text: str) -> int:
    match = _SIZE.fullmatch(text)
    if match is None:
        raise ValueError
    return int(float(match[1]) * 1024 ** _POWERS[match[2].lower()])
