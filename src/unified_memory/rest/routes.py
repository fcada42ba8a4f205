"""Every route once: what serves it, and what the OpenAPI document says of it."""

from collections.abc import Awaitable, Callable

from msgspec import Struct

from unified_memory.model.namespace import NamespaceConfig
from unified_memory.rest import backups, history, memories, metrics, namespaces, operation, sessions, tiers, transfer
from unified_memory.rest.exchange import Answer, Call, Stream
from unified_memory.service import requests
from unified_memory.service.service import Service

PREFIXES = ("/api/v1/memory", "/api/v1/mcp/memory")
JSON_TYPE = "application/json"
Handler = Callable[[Service, Call], Awaitable[Answer | Stream]]


class Route(Struct, frozen=True, kw_only=True):
    """A method and a path below the prefix (at the root too where `root`).

    `path` may end in `{name}`, which takes all that follows, slashes too, unless another route goes on behind it. `body`: the
    typed request. `answer`: the name of the schema of what is sent back. `parameters`: of the query and headers, by their names
    in `schemas.PARAMETERS`. `errors`: codes of the errors that are this route's own; what every route of its kind may answer
    comes from `body`, `parameters` and `probe`. `long`: may answer 202 with a job. `probe`: health, asked
    by machines that know nothing of us. `patch`: takes the body of a merge patch as well. `bare`: the body may be left out.
    `lines`: the body is lines of JSON, which the handler reads as they come. `events`: what is said of each server-sent event
    that the answer is made of for whoever accepts `text/event-stream`. `media_type`: of the answer.
    """

    method: str
    path: str
    handler: Handler
    tag: str
    summary: str
    answer: str
    description: str = ""
    body: type | None = None
    parameters: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    long: bool = False
    root: bool = False
    probe: bool = False
    patch: bool = False
    bare: bool = False
    lines: bool = False
    events: str = ""
    media_type: str = JSON_TYPE


_PAGE = ("limit", "cursor")
_WRITE = ("If-Match", "Idempotency-Key")
_STORES = ("read_only", "quota_exceeded", "storage_full")
_KEPT = ("refused", "backup_not_found", "backup_damaged")

ROUTES: tuple[Route, ...] = (
    # ---- memories
    Route(
        method="POST",
        path="/store",
        handler=memories.store,
        tag="Memories",
        summary="Store a memory",
        answer="Memory",
        body=requests.StoreRequest,
        description="Replaces the whole record of that key; `created_at` stays and `version` grows by 1. Without `key` "
        "one is minted. Without `ttl` the memory lives as long as the namespace says, or for ever. A namespace that does "
        "not exist is created. The answer is sent when the record is on the disk.",
        parameters=(*_WRITE, "create_only"),
        errors=(*_STORES, "version_conflict", "idempotency_mismatch"),
    ),
    Route(
        method="GET",
        path="/retrieve/{key}",
        handler=memories.retrieve,
        tag="Memories",
        summary="Retrieve a memory by its key",
        answer="Memory",
        description="Counts the access. `If-None-Match` with the ETag that is known answers 304 where nothing has changed. "
        "With `as_of` the memory as it was at that instant; that counts nothing.",
        parameters=("namespace", "include", "as_of", "If-None-Match"),
        errors=("memory_not_found", "version_gone"),
    ),
    Route(
        method="PUT",
        path="/update/{key}",
        handler=memories.update,
        tag="Memories",
        summary="Change what is named of a memory",
        answer="Memory",
        body=requests.UpdateRequest,
        description="Only what the body names changes. `metadata` is merged, null removes a field. A ttl runs on unless it "
        "is named; null ends it.",
        parameters=("namespace", *_WRITE),
        errors=("memory_not_found", *_STORES, "version_conflict", "idempotency_mismatch"),
    ),
    Route(
        method="PATCH",
        path="/update/{key}",
        handler=memories.patch,
        tag="Memories",
        summary="Change a value from inside, atomically",
        answer="Memory",
        body=requests.PatchRequest,
        patch=True,
        description="`merge` is a JSON merge patch (RFC 7396), `append` and `increment` map paths inside the value "
        "(`a.b[0]`; empty: the value itself) to what is added. As `application/merge-patch+json` the body is the patch.",
        parameters=("namespace", *_WRITE),
        errors=("memory_not_found", *_STORES, "version_conflict", "conflict", "idempotency_mismatch"),
    ),
    Route(
        method="DELETE",
        path="/delete/{key}",
        handler=memories.delete,
        tag="Memories",
        summary="Delete a memory",
        answer="Deleted",
        description="Works also while the service is read-only.",
        parameters=("namespace", *_WRITE),
        errors=("memory_not_found", "idempotency_mismatch", "storage_full"),
    ),
    Route(
        method="POST",
        path="/move",
        handler=memories.move,
        tag="Memories",
        summary="Rename a key or a whole namespace",
        answer="Moved",
        body=requests.MoveRequest,
        description="With keys on both ends one memory moves, without them the namespace with all below it. Ids, times "
        "and access counts stay.",
        errors=("memory_not_found", "namespace_not_found", *_STORES, "already_exists", "version_conflict"),
    ),
    # ---- many at once
    Route(
        method="POST",
        path="/store/batch",
        handler=memories.store_batch,
        tag="Many at once",
        summary="Store many memories, all or nothing",
        answer="BatchStored",
        body=requests.BatchStoreRequest,
        description="Up to 1,000 in one transaction; the results stand in the order of the request.",
        parameters=("Idempotency-Key",),
        errors=(*_STORES, "version_conflict", "idempotency_mismatch"),
    ),
    Route(
        method="POST",
        path="/retrieve/batch",
        handler=memories.retrieve_batch,
        tag="Many at once",
        summary="Retrieve many memories",
        answer="BatchRetrieved",
        body=requests.BatchKeysRequest,
        description="All of one instant; what is not there is told so in its place.",
    ),
    Route(
        method="POST",
        path="/delete/batch",
        handler=memories.delete_batch,
        tag="Many at once",
        summary="Delete many memories",
        answer="BatchDeleted",
        body=requests.BatchKeysRequest,
        description="In one transaction; what is not there is told so in its place.",
        parameters=("Idempotency-Key",),
        errors=("idempotency_mismatch", "storage_full"),
    ),
    Route(
        method="POST",
        path="/update/where",
        handler=memories.update_where,
        tag="Many at once",
        summary="Change memories by filter",
        answer="Affected",
        body=requests.UpdateWhereRequest,
        long=True,
        description="Retags, re-ttls or annotates what the filter selects. `dry_run` only tells what would change.",
        parameters=("wait",),
        errors=("read_only", "storage_full"),
    ),
    Route(
        method="POST",
        path="/delete/where",
        handler=memories.delete_where,
        tag="Many at once",
        summary="Delete memories by filter",
        answer="Affected",
        body=requests.DeleteWhereRequest,
        long=True,
        description="`dry_run` only tells what would go.",
        parameters=("wait",),
        errors=("storage_full",),
    ),
    # ---- finding
    Route(
        method="GET",
        path="/list",
        handler=memories.list_memories,
        tag="Finding",
        summary="List memories",
        answer="MemoryList",
        description="In order, page by page; the cursor survives whatever is written meanwhile.",
        parameters=("scope_namespace", "recursive", "key_prefix", "tags", "order_by", *_PAGE),
        errors=("invalid_cursor",),
    ),
    Route(
        method="POST",
        path="/search",
        handler=memories.search,
        tag="Finding",
        summary="Search memories by relevance",
        answer="SearchResults",
        body=requests.SearchQuery,
        description='Words, `"phrases"`, `prefix*` and `-not`; any other character is data. The filters beside the query '
        "must all hold.",
        errors=("empty_query", "invalid_cursor", "semantic_unavailable"),
    ),
    Route(
        method="POST",
        path="/similar",
        handler=memories.similar,
        tag="Finding",
        summary="Find memories that are like one, or like a text",
        answer="SearchResults",
        body=requests.SimilarQuery,
        description="By `key` (which is left out of the answer) or by `text`.",
        errors=("empty_query", "invalid_cursor", "memory_not_found", "semantic_unavailable"),
    ),
    Route(
        method="POST",
        path="/recall",
        handler=memories.recall,
        tag="Finding",
        summary="Tell a conversation what to be reminded of",
        answer="SearchResults",
        body=requests.RecallQuery,
        description="Searches by each of the last messages, the last one first of all, and merges what is found: without "
        "near-duplicates, of several sessions, within `max_tokens`.",
        errors=("empty_query", "semantic_unavailable"),
    ),
    Route(
        method="POST",
        path="/query",
        handler=memories.query,
        tag="Finding",
        summary="Query memories by exact filter",
        answer="QueryResults",
        body=requests.ExactQuery,
        description="`select` answers with rows of the named fields instead of whole memories, `group_by` with counts. "
        "`cold_read` tells how many values were fetched from archives for it, where there were any.",
        errors=("invalid_cursor",),
    ),
    # ---- namespaces
    Route(
        method="POST",
        path="/namespaces",
        handler=namespaces.create,
        tag="Namespaces",
        summary="Create a namespace",
        answer="Namespace",
        body=requests.NamespaceRequest,
        description="Only needed to set something for it: storing into a namespace creates it too.",
        errors=(*_STORES, "already_exists"),
    ),
    Route(
        method="GET",
        path="/namespaces",
        handler=namespaces.list_namespaces,
        tag="Namespaces",
        summary="List namespaces",
        answer="NamespaceList",
        parameters=("namespace_prefix", "depth", *_PAGE),
        errors=("invalid_cursor",),
    ),
    Route(
        method="GET",
        path="/namespaces/{name}",
        handler=namespaces.get,
        tag="Namespaces",
        summary="A namespace with its counts",
        answer="Namespace",
        errors=("namespace_not_found",),
    ),
    Route(
        method="PUT",
        path="/namespaces/{name}",
        handler=namespaces.configure,
        tag="Namespaces",
        summary="Set what a namespace says for itself and all below it",
        answer="Namespace",
        body=NamespaceConfig,
        description="Replaces all its settings; what is left out is inherited from the nearest ancestor that sets it.",
        errors=("namespace_not_found", *_STORES),
    ),
    Route(
        method="DELETE",
        path="/namespaces/{name}",
        handler=namespaces.delete,
        tag="Namespaces",
        summary="Delete a namespace",
        answer="NamespaceDeleted",
        long=True,
        description="What it holds is gone at once for every reader; removing it for good is the long work. "
        "`dry_run` only tells what would go.",
        parameters=("recursive_delete", "dry_run", "wait"),
        errors=("namespace_not_found", "namespace_not_empty", "storage_full"),
    ),
    # ---- sessions
    Route(
        method="POST",
        path="/sessions",
        handler=sessions.create,
        tag="Sessions",
        summary="Create or continue a session",
        answer="Session",
        body=requests.SessionRequest,
        description="Without `id` one is minted. Storing with an unknown `session_id` creates its session too.",
        errors=("read_only", "storage_full"),
    ),
    Route(
        method="GET",
        path="/sessions",
        handler=sessions.list_sessions,
        tag="Sessions",
        summary="List sessions",
        answer="SessionList",
        description="Those used last come first.",
        parameters=("scope_namespace", "recursive", "cluster_id", "active", *_PAGE),
        errors=("invalid_cursor",),
    ),
    Route(
        method="GET",
        path="/sessions/{id}",
        handler=sessions.view,
        tag="Sessions",
        summary="A session and its memories",
        answer="SessionView",
        description="Memories in the order in which they were made. The session's ttl slides.",
        parameters=("namespace", "session_scope", *_PAGE),
        errors=("session_not_found", "invalid_cursor", "storage_full"),
    ),
    Route(
        method="DELETE",
        path="/sessions/{id}",
        handler=sessions.end,
        tag="Sessions",
        summary="End a session",
        answer="SessionEnded",
        parameters=("namespace", "with_memories"),
        errors=("session_not_found", "storage_full"),
    ),
    # ---- tiers
    Route(
        method="GET",
        path="/tiers",
        handler=tiers.tiers,
        tag="Tiers",
        summary="What lies where",
        answer="Tiers",
        description="Memories and bytes of values of each tier, what happened since the process began, and every archive.",
    ),
    Route(
        method="POST",
        path="/archive",
        handler=tiers.archive,
        tag="Tiers",
        summary="Archive a namespace",
        answer="Archived",
        body=tiers.ArchiveRequest,
        long=True,
        description="Moves all its values out of the database into archives. The memories are found, listed and retrieved as "
        "before; a retrieve brings its value back. `dry_run` only tells what would move.",
        parameters=("wait",),
        errors=("refused", "read_only", "namespace_not_found", "storage_full"),
    ),
    Route(
        method="POST",
        path="/archive/recall",
        handler=tiers.recall_archived,
        tag="Tiers",
        summary="Bring a namespace back from archives",
        answer="Archived",
        body=tiers.ArchiveRequest,
        long=True,
        description="Moves all its values into the database. `dry_run` only tells what would move.",
        parameters=("wait",),
        errors=("refused", "read_only", "namespace_not_found", "storage_full"),
    ),
    Route(
        method="POST",
        path="/archive/pass",
        handler=tiers.tier_pass,
        tag="Tiers",
        summary="Archive what was not used for long, and compact archives, now",
        answer="TierPass",
        long=True,
        description="Also done at intervals.",
        parameters=("wait",),
        errors=("refused", "storage_full"),
    ),
    # ---- history
    Route(
        method="GET",
        path="/history/{key}",
        handler=history.history,
        tag="History",
        summary="The versions of a memory, or one of them",
        answer="History",
        description="Newest first, the current one included; of a memory that was deleted too. With `version` the memory as it "
        "was at that version.",
        parameters=("namespace", "version", *_PAGE),
        errors=("memory_not_found", "version_gone", "invalid_cursor"),
    ),
    Route(
        method="POST",
        path="/history/restore",
        handler=history.restore_version,
        tag="History",
        summary="Make a former version current again",
        answer="Memory",
        body=requests.RestoreVersionRequest,
        description="As a new version, with the instant at which that one expires. Without `version` the one before the current "
        "one, or the last one of a memory that was deleted.",
        parameters=("Idempotency-Key",),
        errors=("memory_not_found", "version_gone", *_STORES, "version_conflict", "conflict", "idempotency_mismatch"),
    ),
    Route(
        method="POST",
        path="/history/redact",
        handler=history.redact,
        tag="History",
        summary="Take the content of a version out for good",
        answer="RedactedVersions",
        body=requests.RedactRequest,
        long=True,
        description="Out of the database, the search index and the archives; that there was a version stays. Without `version` "
        "all of them, the current one included. Backups that were made before still hold it.",
        parameters=("wait",),
        errors=("memory_not_found", "storage_full"),
    ),
    Route(
        method="GET",
        path="/changes",
        handler=history.changes,
        tag="History",
        summary="Everything that changed, in commit order",
        answer="ChangeList",
        description="`next` is what to ask for as `since` the next time; whoever does misses nothing. With `Accept: "
        "text/event-stream` the same as server-sent events that go on, from now on where no `since` is given; the `id` of each "
        "is its place, so that a client which connects again with `Last-Event-ID` misses none.",
        parameters=("since", "scope_namespace", "recursive", "limit", "Last-Event-ID"),
        errors=("changes_gone",),
        events="Change",
    ),
    # ---- backups
    Route(
        method="POST",
        path="/backup",
        handler=backups.create_backup,
        tag="Backups",
        summary="Make a backup",
        answer="Backup",
        body=requests.BackupRequest,
        bare=True,
        long=True,
        description="Of one instant, while others go on writing. With `parent` only what changed since that backup.",
        parameters=("wait",),
        errors=(*_KEPT, "in_progress", "conflict", "archive_missing", "storage_full"),
    ),
    Route(
        method="GET",
        path="/backups",
        handler=backups.list_backups,
        tag="Backups",
        summary="List backups",
        answer="BackupList",
        description="Newest first. One whose manifest is damaged is not listed; `/health` names it.",
        errors=("refused",),
    ),
    Route(
        method="GET",
        path="/backups/{id}",
        handler=backups.get_backup,
        tag="Backups",
        summary="A backup with its files",
        answer="BackupDetails",
        errors=_KEPT,
    ),
    Route(
        method="POST",
        path="/backups/{id}/verify",
        handler=backups.verify_backup,
        tag="Backups",
        summary="Prove a backup by restoring it aside",
        answer="Verified",
        long=True,
        description="Every file is read and compared with its hash, everything is restored into a scratch store, and that is "
        "compared. What it came to is kept beside the backup.",
        parameters=("wait",),
        errors=(*_KEPT, "in_progress", "conflict", "storage_full"),
    ),
    Route(
        method="DELETE",
        path="/backups/{id}",
        handler=backups.delete_backup,
        tag="Backups",
        summary="Delete a backup",
        answer="Backup",
        description="Not while another one holds only what changed since it.",
        errors=(*_KEPT, "in_progress", "conflict"),
    ),
    Route(
        method="POST",
        path="/restore",
        handler=backups.restore,
        tag="Backups",
        summary="Restore a backup",
        answer="Restored",
        body=requests.RestoreRequest,
        long=True,
        description="Prepared aside and switched in one step, behind a backup of what is there now: what fails leaves everything "
        "as it was. `dry_run` only tells what would change.",
        parameters=("wait",),
        errors=(
            *_KEPT,
            "read_only",
            "in_progress",
            "conflict",
            "namespace_not_found",
            "archive_missing",
            "storage_full",
        ),
    ),
    # ---- out and in
    Route(
        method="GET",
        path="/export",
        handler=transfer.export,
        tag="Export and import",
        summary="Every memory, a line of JSON each",
        answer="Lines",
        media_type=transfer.LINES_TYPE,
        description="Sent as it is read. An answer that does not come to its end is not whole: the connection breaks.",
        parameters=("scope_namespace", "recursive"),
        errors=("namespace_not_found",),
    ),
    Route(
        method="POST",
        path="/import",
        handler=transfer.import_lines,
        tag="Export and import",
        summary="Store memories, a line of JSON each",
        answer="Imported",
        lines=True,
        description="Lines as an export writes them, taken as they come; only each line is bounded. What is wrong with a line is "
        "told in the report, and the others are stored. It may be sent again: what is the same already stays.",
        parameters=("on_conflict", "into"),
        errors=("read_only", "conflict", "storage_full"),
    ),
    # ---- the service
    Route(
        method="GET",
        path="/stats",
        handler=operation.stats,
        tag="Service",
        summary="Totals",
        answer="Stats",
        parameters=("scope_namespace",),
    ),
    Route(
        method="POST",
        path="/cleanup",
        handler=operation.cleanup,
        tag="Service",
        summary="Remove what has expired now",
        answer="Cleanup",
        description="What has expired is invisible already; this frees its room. Access counts that were gathered are written "
        "down, too. Also done at intervals.",
        long=True,
        parameters=("wait",),
        errors=("storage_full",),
    ),
    Route(
        method="GET",
        path="/jobs",
        handler=operation.list_jobs,
        tag="Service",
        summary="List jobs",
        answer="JobList",
        description="Long work, newest first.",
        parameters=("state", *_PAGE),
        errors=("invalid_cursor",),
    ),
    Route(
        method="GET",
        path="/jobs/{id}",
        handler=operation.get_job,
        tag="Service",
        summary="A job with its progress",
        answer="Job",
        errors=("job_not_found",),
    ),
    Route(
        method="DELETE",
        path="/jobs/{id}",
        handler=operation.cancel_job,
        tag="Service",
        summary="Cancel a job",
        answer="Job",
        description="It ends after the chunk that it is at; what was done stays done.",
        errors=("job_not_found", "storage_full"),
    ),
    Route(
        method="GET",
        path="/mode",
        handler=operation.get_mode,
        tag="Service",
        summary="Whether writes are on",
        answer="Mode",
    ),
    Route(
        method="PUT",
        path="/mode",
        handler=operation.set_mode,
        tag="Service",
        summary="Switch writes off or on for every process",
        answer="Mode",
        body=operation.ModeRequest,
        description="Deletes work also while the service is read-only.",
        errors=("storage_full",),
    ),
    Route(
        method="GET",
        path="/health",
        handler=operation.health,
        tag="Service",
        summary="Whether the service can do its work",
        answer="Health",
        probe=True,
        root=True,
        description="From at most a second ago; 503 while draining or unable to write.",
    ),
    Route(
        method="GET",
        path="/health/live",
        handler=operation.live,
        tag="Service",
        summary="Whether the process answers",
        answer="Live",
        probe=True,
        root=True,
        description="Touches nothing.",
    ),
    Route(
        method="GET",
        path="/health/ready",
        handler=operation.ready,
        tag="Service",
        summary="Whether a write succeeds just now",
        answer="Health",
        probe=True,
        root=True,
        description="Writes something for real.",
    ),
    Route(
        method="GET",
        path="/metrics",
        handler=metrics.metrics,
        tag="Service",
        summary="Figures for a monitoring system",
        answer="Metrics",
        media_type=metrics.MEDIA_TYPE,
        root=True,
        description="In the text format of Prometheus. What lies in which tier is counted at most every 15 seconds.",
    ),
)
EVENTS = ("/jobs/{id}/events", operation.job_events, "Server-sent events of a job")
