"""Namespaces: `/`-separated paths of segments, never string prefixes."""

import re
from functools import lru_cache

from msgspec import UNSET, Struct, UnsetType

from unified_memory.model.errors import InvalidInputError

DEFAULT_NAMESPACE = "default"
MAX_SEGMENTS = 16
MAX_SEGMENT_BYTES = 255
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


@lru_cache(maxsize=4096)
def check_namespace(name: str, field: str = "namespace") -> str:
    """The name itself, where it is one: 1 to 16 segments of 1 to 255 bytes, no control characters, not `.` or `..`.

    Raises InvalidInputError naming `field`.
    """
    segments = name.split("/")
    if len(segments) > MAX_SEGMENTS:
        raise InvalidInputError(field, f"{field} has {len(segments)} segments; at most {MAX_SEGMENTS} are allowed")
    for segment in segments:
        if not segment or segment in {".", ".."} or segment != segment.strip():
            raise InvalidInputError(
                field,
                f"{field} has a segment that is empty, '.', '..' or begins or ends with a blank",
                hint="A namespace is a path like acme/web/auth",
            )
        if _CONTROL.search(segment):
            raise InvalidInputError(field, f"{field} holds a control character")
        if len(segment) > MAX_SEGMENT_BYTES // 4 and len(segment.encode()) > MAX_SEGMENT_BYTES:
            raise InvalidInputError(field, f"{field} has a segment of more than {MAX_SEGMENT_BYTES} bytes")
    return name


def contains(ancestor: str, namespace: str) -> bool:
    """Whether `namespace` is `ancestor` or lies below it; the empty ancestor contains all."""
    return not ancestor or namespace == ancestor or namespace.startswith(ancestor + "/")


def ancestors(name: str) -> list[str]:
    """The namespace and all above it, nearest first: `a/b/c` -> [`a/b/c`, `a/b`, `a`]."""
    segments = name.split("/")
    return ["/".join(segments[:n]) for n in range(len(segments), 0, -1)]


class NamespaceConfig(Struct, omit_defaults=True, forbid_unknown_fields=True, frozen=True):
    """What a namespace sets for itself and all below it; what is unset is inherited from the nearest ancestor.

    `default_ttl` in seconds, null switches an inherited one off. `max_memories` and `max_bytes` (of values) bound
    the whole subtree of the namespace that sets them; null lifts nothing that an ancestor sets. `demote_after`: seconds without
    use after which a memory's value may be archived, null for never. `history_keep`: how many former versions of a memory are
    kept, `history_days`: for how long; null is no limit, 0 keeps none. `language`: how words are compared, one of
    `model.analysis.LANGUAGES`; null is the same as unset.
    """

    default_ttl: float | UnsetType | None = UNSET
    max_memories: int | UnsetType | None = UNSET
    max_bytes: int | UnsetType | None = UNSET
    demote_after: float | UnsetType | None = UNSET
    history_keep: int | UnsetType | None = UNSET
    history_days: float | UnsetType | None = UNSET
    language: str | UnsetType | None = UNSET
    description: str | UnsetType | None = UNSET


class Namespace(Struct):
    """A namespace, its own settings, what holds after inheritance, and what lies in it.

    `memories` and `bytes` count the namespace alone, `total_*` its subtree. `explicit`: created by a call of its
    own rather than by a store. Instants in microseconds.
    """

    name: str
    config: NamespaceConfig
    effective: NamespaceConfig
    created_at: int
    explicit: bool
    memories: int = 0
    bytes: int = 0
    total_memories: int = 0
    total_bytes: int = 0
    namespaces: int = 0


def inherit(configs: list[NamespaceConfig]) -> NamespaceConfig:
    """The settings that hold, from the chain nearest first. A description is never inherited."""

    def nearest(name: str) -> object:
        return next((v for c in configs if (v := getattr(c, name)) is not UNSET), UNSET)

    return NamespaceConfig(
        default_ttl=nearest("default_ttl"),  # type: ignore[arg-type]  # getattr by a fixed name
        max_memories=nearest("max_memories"),  # type: ignore[arg-type]
        max_bytes=nearest("max_bytes"),  # type: ignore[arg-type]
        demote_after=nearest("demote_after"),  # type: ignore[arg-type]
        history_keep=nearest("history_keep"),  # type: ignore[arg-type]
        history_days=nearest("history_days"),  # type: ignore[arg-type]
        language=nearest("language"),  # type: ignore[arg-type]
        description=configs[0].description if configs else UNSET,
    )
