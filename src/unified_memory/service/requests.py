"""What callers may ask, as typed structs: interfaces decode bytes straight into them, and nothing unknown gets in.

Durations are seconds. Of `ttl` and `expires_at` (RFC 3339) at most one is given; null means "never expires".
"""

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from unified_memory.model.namespace import DEFAULT_NAMESPACE
from unified_memory.model.query import DEFAULT_LIMIT

NO_VALUE = Raw(b"")


class StoreRequest(Struct, forbid_unknown_fields=True):
    """A whole record to store. `metadata`: tags, importance (1 to 10), session_id, project_id and any other fields."""

    value: Raw
    key: str | None = None
    namespace: str = DEFAULT_NAMESPACE
    ttl: float | UnsetType | None = UNSET
    expires_at: str | UnsetType | None = UNSET
    metadata: dict[str, Raw] | None = None
    expected_version: int | None = None


class UpdateRequest(Struct, forbid_unknown_fields=True):
    """What to change of a record: only what is named. In `metadata` null removes a field."""

    value: Raw = NO_VALUE
    namespace: str | None = None
    ttl: float | UnsetType | None = UNSET
    expires_at: str | UnsetType | None = UNSET
    metadata: dict[str, Raw] | None = None
    expected_version: int | None = None


class PatchRequest(Struct, forbid_unknown_fields=True):
    """Changes inside a value, carried out in this order: `merge` (RFC 7396), `append` and `increment`, each a map from a
    path (`a.b[0]`; empty: the value itself) to the element or the amount.
    """

    namespace: str | None = None
    merge: Raw = NO_VALUE
    append: dict[str, Raw] | None = None
    increment: dict[str, Raw] | None = None
    expected_version: int | None = None


class KeyRef(Struct, forbid_unknown_fields=True):
    """One memory by name."""

    key: str
    namespace: str = DEFAULT_NAMESPACE


class BatchStoreRequest(Struct, forbid_unknown_fields=True):
    """Many records to store, all or nothing."""

    memories: list[StoreRequest]


class BatchKeysRequest(Struct, forbid_unknown_fields=True):
    """Many memories by name."""

    keys: list[KeyRef]


class Place(Struct, forbid_unknown_fields=True):
    """One end of a move: a key of a namespace, or (without key) the namespace itself."""

    namespace: str = DEFAULT_NAMESPACE
    key: str | None = None


class MoveRequest(Struct, forbid_unknown_fields=True, rename={"source": "from", "target": "to"}):
    """From where to where; either both have a key or neither has."""

    source: Place
    target: Place
    expected_version: int | None = None


class Changes(Struct, forbid_unknown_fields=True):
    """What `update/where` changes of each memory."""

    ttl: float | UnsetType | None = UNSET
    expires_at: str | UnsetType | None = UNSET
    metadata: dict[str, Raw] | None = None
    add_tags: list[str] | None = None
    remove_tags: list[str] | None = None


class UpdateWhereRequest(Struct, forbid_unknown_fields=True):
    """Changes of every memory that meets a filter."""

    filter: dict[str, Any]
    set: Changes
    namespace: str | None = None
    recursive: bool = True
    dry_run: bool = False


class DeleteWhereRequest(Struct, forbid_unknown_fields=True):
    """Deletion of every memory that meets a filter."""

    filter: dict[str, Any]
    namespace: str | None = None
    recursive: bool = True
    dry_run: bool = False


class RankOptions(Struct, forbid_unknown_fields=True, frozen=True):
    """What counts beside relevance. `recency_half_life`: seconds or a duration ("30d") after which an unchanged memory has lost
    a quarter of its score (it loses half in the end; 0: age does not count). `importance`: what the ends of its scale add or
    take, as a share of the score (0 to 1).
    """

    recency_half_life: str | float | None = None
    importance: float | None = None


class Narrowing(Struct, forbid_unknown_fields=True, kw_only=True):
    """Which memories may be found. `since` and `until` bound updated_at: instants, durations back from now, or words."""

    namespace: str | None = None
    recursive: bool = True
    tags: list[str] | None = None
    importance_min: int | None = None
    session_id: str | None = None
    project_id: str | None = None
    since: str | None = None
    until: str | None = None
    filter: dict[str, Any] | None = None
    min_score: float | None = None


class Showing(Narrowing, kw_only=True):
    """How they are found and shown. `mode`: auto, fulltext, semantic or hybrid. `collapse`: near-duplicates as one. `content`:
    the value, its best `passages` where it is long, or `none`. `max_tokens` bounds the answer (4 bytes count as one).
    """

    mode: str = "auto"
    rank: RankOptions | None = None
    explain: bool = False
    collapse: bool = False
    content: Literal["value", "passages", "none"] = "value"
    limit: int = DEFAULT_LIMIT
    cursor: str | None = None
    max_tokens: int | None = None


class SearchQuery(Showing):
    """A ranked search."""

    query: str


class SimilarQuery(Showing, kw_only=True):
    """What is like a memory (`key` in `key_namespace`) or a text; one of both."""

    key: str | None = None
    key_namespace: str = DEFAULT_NAMESPACE
    text: str | None = None


class MessageText(Struct):
    """A message of a conversation; what else a client keeps of it does not matter.

    `content`: its text, or parts of which those with a "text" count, or null where it calls tools only.
    """

    content: str | list[dict[str, Any]] | None = None

    @property
    def text(self) -> str:
        """What was said."""
        if isinstance(self.content, str):
            return self.content
        parts = (part.get("text") for part in self.content or ())
        return "\n".join(part for part in parts if isinstance(part, str))


class RecallQuery(Narrowing, kw_only=True):
    """What a conversation should be reminded of. `messages`: the last ones, oldest first. `exclude_session`: memories of it are
    not told, since the conversation holds them itself.
    """

    messages: list[str | MessageText]
    exclude_session: str | None = None
    mode: str = "auto"
    rank: RankOptions | None = None
    explain: bool = False
    limit: int = 10
    max_tokens: int = 1_000


class ListQuery(Struct, forbid_unknown_fields=True):
    """A listing. `prefix`: of the keys; `tags`: all of them."""

    namespace: str | None = None
    recursive: bool = True
    prefix: str | None = None
    tags: list[str] | None = None
    order_by: str = "id"
    limit: int = DEFAULT_LIMIT
    cursor: str | None = None


class ExactQuery(Struct, forbid_unknown_fields=True):
    """A query by exact filter (see `model.query`). `select`: fields by name; `group_by`: counts by a field."""

    filter: dict[str, Any] | None = None
    namespace: str | None = None
    recursive: bool = True
    order_by: str = "id"
    select: list[str] | None = None
    limit: int = DEFAULT_LIMIT
    cursor: str | None = None
    count: bool = False
    group_by: str | None = None


class NamespaceRequest(Struct, forbid_unknown_fields=True):
    """A namespace to create, with what it sets for itself and all below it."""

    name: str
    config: dict[str, Raw] | None = None


class SessionRequest(Struct, forbid_unknown_fields=True):
    """A session to create, or to continue under the same id. `ttl` slides with use."""

    id: str | None = None
    namespace: str = DEFAULT_NAMESPACE
    cluster_id: str | None = None
    project_id: str | None = None
    ttl: float | None = None
    metadata: dict[str, Raw] | None = None


class Conditions(Struct, frozen=True):
    """Preconditions of a write, as HTTP headers name them.

    `version`: If-Match (None: not given, 0: any version will do as long as it exists). `create_only`: If-None-Match: *.
    """

    version: int | None = None
    create_only: bool = False


UNCONDITIONAL = Conditions()


class Idempotent(Struct, frozen=True):
    """An idempotency key and the fingerprint of the request that it stands for."""

    key: str
    fingerprint: bytes


class BackupRequest(Struct, forbid_unknown_fields=True):
    """A backup to be made. `parent`: hold only what changed since that backup ("latest": the newest one that can be a parent)."""

    parent: str | None = None
    note: Annotated[str, Meta(max_length=1000)] | None = None


class RestoreRequest(Struct, forbid_unknown_fields=True):
    """What to restore. `as_of`: an earlier backup of the chain, by its id, or the last of the chain that was made at or before
    that instant. `namespace` and `target` (another name for it here): for the mode `namespace`. `dry_run`: only tell what would
    change. `safety`: first make a backup of what is there now.
    """

    backup_id: str
    mode: Literal["replace", "merge", "namespace"] = "replace"
    namespace: str | None = None
    target: str | None = None
    as_of: str | None = None
    dry_run: bool = False
    safety: bool = True


class RestoreVersionRequest(Struct, forbid_unknown_fields=True):
    """A former version of a memory that is to be current again. Without `version`: the one before the current one, or the last of
    a memory that was deleted.
    """

    key: str
    namespace: str = DEFAULT_NAMESPACE
    version: int | None = None
    expected_version: int | None = None


class RedactRequest(Struct, forbid_unknown_fields=True):
    """A version whose content is to be gone for good; all of them where none is named."""

    key: str
    namespace: str = DEFAULT_NAMESPACE
    version: int | None = None
