"""The answers as types. At run time they are plain dicts, and may hold more than is named here."""

from collections.abc import Mapping
from typing import Any, NotRequired, Required, TypedDict


class SearchIndex(TypedDict):
    """What the search knows of a memory."""

    content_hash: str
    keywords: list[str]
    full_text: str


class Record(TypedDict):
    """One memory.

    `metadata`: created_at, updated_at, expires_at, access_count, last_accessed, importance, session_id, project_id, tags,
    and the caller's own fields. `search_index` only where it was asked for.
    """

    id: int
    key: str
    namespace: str
    value: Any
    metadata: dict[str, Any]
    version: int
    tier: str
    search_index: NotRequired[SearchIndex]


class Rank(TypedDict, total=False):
    """What counts beside relevance. `recency_half_life`: seconds or a duration ("30d"), 0: age does not count; `importance`:
    what the ends of its scale add or take, as a share of the score (0 to 1).
    """

    recency_half_life: float | str | None
    importance: float | None


class Passage(TypedDict):
    """A part of a value's words, from character `start` to before `end`."""

    start: int
    end: int
    text: str


class Hit(Record):
    """A found memory. `score`: higher is better, from 0 to about 1; `matched`: where the words stand.

    `duplicates`: how many that say the same it stands for, with `collapse`; `message`: the number of the message that asked for
    it, in a recall; `passages`: in place of a long value, which is then None; `explain`: what the score is made of.
    """

    score: float
    matched: list[str]
    snippet: str
    duplicates: NotRequired[int]
    message: NotRequired[int]
    passages: NotRequired[list[Passage]]
    explain: NotRequired[dict[str, Any]]


class NewMemory(TypedDict, total=False):
    """One item of `store_batch`; only `value` is required. `ttl` in seconds."""

    value: Required[Any]
    key: str
    namespace: str
    ttl: float | None
    expires_at: str | None
    metadata: Mapping[str, Any]
    expected_version: int


class KeyRef(TypedDict):
    """One memory by name."""

    key: str
    namespace: str


class Deleted(TypedDict):
    """A memory that was deleted, at its last version."""

    deleted: bool
    key: str
    namespace: str
    id: int
    version: int


class Moved(TypedDict):
    """How many memories a renamed namespace held."""

    moved: int


class StoreResult(TypedDict):
    """One item's result. `status`: created or replaced."""

    status: str
    memory: Record


class RetrieveResult(TypedDict):
    """One item's result. `status`: found (with `memory`) or not_found (with `key` and `namespace`)."""

    status: str
    memory: NotRequired[Record]
    key: NotRequired[str]
    namespace: NotRequired[str]


class DeleteResult(TypedDict):
    """One item's result. `status`: deleted (with `id` and `version`) or not_found."""

    status: str
    key: str
    namespace: str
    id: NotRequired[int]
    version: NotRequired[int]


class Job(TypedDict):
    """Long work: `done` of `total` (None: not known) `unit`s.

    `state`: running, done, failed, cancelled or interrupted.
    """

    id: str
    kind: str
    namespace: str
    state: str
    done: int
    total: int | None
    unit: str
    created_at: str
    finished_at: str | None
    result: Any
    error: Any


class Accepted(TypedDict):
    """Long work that did not end in time and goes on: ask for the job."""

    job: Job


class Affected(TypedDict):
    """What a change by filter did, or (`dry_run`) would do. `sample`: some of the memories."""

    matched: int
    changed: int
    dry_run: bool
    sample: list[KeyRef]


class MemoryPage(TypedDict):
    """A part of a listing; `next_cursor` asks for the next one, None: this is the last."""

    memories: list[Record]
    next_cursor: str | None


class SearchPage(TypedDict):
    """The best hits. `left_out`: how many of this page did not fit into `max_tokens`. `mode`: by what was searched: fulltext,
    semantic or hybrid. `corrected`: words that nothing held, each with the one that was searched for in its place.
    """

    results: list[Hit]
    next_cursor: str | None
    left_out: int
    mode: str
    corrected: dict[str, str]


class GroupCount(TypedDict):
    """How many memories have this value of the field that was grouped by."""

    value: Any
    count: int


class QueryPage(TypedDict):
    """A part of a query's answer; with `select` the memories hold only the selected fields. `cold_read`: how many values were
    fetched from archives for it, where there were any.
    """

    memories: list[dict[str, Any]]
    next_cursor: str | None
    count: NotRequired[int]
    groups: NotRequired[list[GroupCount]]
    cold_read: NotRequired[int]


class NamespaceSettings(TypedDict, total=False):
    """What a namespace sets, or (effective) what holds after inheritance. `default_ttl` and `demote_after` in seconds;
    of former versions `history_keep` are kept, for `history_days`.
    """

    default_ttl: float | None
    max_memories: int | None
    max_bytes: int | None
    demote_after: float | None
    history_keep: int | None
    history_days: float | None
    language: str | None
    description: str | None


class Namespace(TypedDict):
    """`memories` and `bytes` count the namespace alone, `total_*` everything below it, too."""

    name: str
    config: NamespaceSettings
    effective: NamespaceSettings
    created_at: str
    explicit: bool
    memories: int
    bytes: int
    total_memories: int
    total_bytes: int
    namespaces: int


class NamespacePage(TypedDict):
    """A part of a listing; see MemoryPage."""

    namespaces: list[Namespace]
    next_cursor: str | None


class NamespaceDeletion(TypedDict):
    """What went, or (`dry_run`) would go."""

    deleted: bool
    namespace: str
    memories: int
    namespaces: int
    dry_run: bool


class Session(TypedDict):
    """A run of an agent. `ttl` in seconds, slides with use; `state`: active, ended or expired."""

    id: str
    namespace: str
    cluster_id: str | None
    project_id: str | None
    ttl: float | None
    state: str
    memories: int
    metadata: dict[str, Any]
    created_at: str
    last_used: str
    expires_at: str | None
    ended_at: str | None


class SessionPage(TypedDict):
    """A part of a listing; see MemoryPage."""

    sessions: list[Session]
    next_cursor: str | None


class SessionView(TypedDict):
    """A session with a part of its memories, in the order in which they were made."""

    session: Session
    memories: list[Record]
    next_cursor: str | None


class SessionEnd(TypedDict):
    """An ended session; `affected` memories were deleted or expired."""

    session: Session
    memories: str
    affected: int


class Archived(TypedDict):
    """What was moved into archives or back, or (`dry_run`) would be; `bytes` of values."""

    namespace: str
    recursive: bool
    dry_run: bool
    memories: int
    bytes: int


class Held(TypedDict):
    """So many memories, and the bytes of their values."""

    memories: int
    bytes: int


class TierPass(TypedDict):
    """What went into archives, and how many archives were compacted, with the bytes of their files before and after."""

    demoted: Held
    compacted: int
    bytes_before: int
    bytes_after: int


class HotTier(TypedDict):
    """Copies of memories in use. `kind`: none, process or redis; `trusted`: they are being read; `trouble`: why they are not,
    where they should be; `memories` and `bytes`: None where that is not known. All else counts since the process began.
    """

    kind: str
    trusted: bool
    trouble: str | None
    note: str | None
    memories: int | None
    bytes: int | None
    hits: int
    misses: int
    hit_ratio: float | None
    fills: int
    refused: int
    evictions: int
    failures: int


class ColdTier(Held):
    """What is archived. `archive_bytes` of the files; `off`: why nothing can be archived, None where it can."""

    archives: int
    archive_bytes: int
    off: str | None


class ArchiveFile(TypedDict):
    """An archive. `state`: writing, live or dead; `live` and `live_bytes`: what of it is still in use."""

    name: str
    state: str
    changed_at: str
    memories: int
    bytes_raw: int
    bytes_stored: int
    live: int
    live_bytes: int


class Tiers(TypedDict):
    """What lies where; `promotions`, `demotions` and `compactions` since the process began."""

    hot: HotTier
    warm: Held
    cold: ColdTier
    promotions: int
    demotions: int
    compactions: int
    archives: list[ArchiveFile]


class VersionHead(TypedDict):
    """One version of a memory: written `at`, replaced `ended_at` (None: it is the current one); `bytes` of its value.

    `kept`: whether its content is there; `redacted_at`: since when it was taken out on purpose.
    """

    version: int
    at: str
    ended_at: str | None
    current: bool
    bytes: int
    kept: bool
    redacted_at: str | None


class VersionPage(TypedDict):
    """A part of a listing; see MemoryPage."""

    versions: list[VersionHead]
    next_cursor: str | None


class RedactedVersions(TypedDict):
    """The versions whose content was taken out, and the ids of the memories that they were of."""

    key: str
    namespace: str
    versions: list[int]
    ids: list[int]


class Change(TypedDict):
    """One change at its place `seq` in the commit order. `kind`: store, update, delete, expire, move, redact or drop (a whole
    namespace; `key`, `version` and `id` are then None).
    """

    seq: int
    at: str
    kind: str
    namespace: str
    key: str | None
    version: int | None
    id: int | None


class ChangePage(TypedDict):
    """Changes in commit order; `next` is the `since` of the next request."""

    changes: list[Change]
    next: int


class Verified(TypedDict):
    """What a verification came to. `detail`: what is wrong; `seconds`: how long it took; `memories`: how many were restored."""

    at: str
    ok: bool
    detail: str | None
    seconds: float
    memories: int


class Verification(Verified):
    """The same, of which backup."""

    backup_id: str


class Backup(TypedDict):
    """One consistent instant of everything. `kind`: full, or incremental: what changed since `parent`; `reason`: manual,
    scheduled or safety; `bytes` of its files, `raw_bytes` of the values; `namespaces`: memories of each, None where it is
    encrypted; `verified`: None where that was never done.
    """

    id: str
    created_at: str
    kind: str
    parent: str | None
    reason: str
    note: str | None
    memories: int
    bytes: int
    raw_bytes: int
    seq: int
    store: str
    schema: int
    program: str
    encrypted: bool
    namespaces: dict[str, int] | None
    verified: Verified | None


class BackupFile(TypedDict):
    """A file of a backup: `raw_bytes` before compression, `bytes` and `sha256` of the file."""

    name: str
    kind: str
    records: int
    raw_bytes: int
    bytes: int
    sha256: str


class BackupDetails(Backup):
    """A backup with its files."""

    parts: list[BackupFile]


class BackupPage(TypedDict):
    """A part of a listing; see MemoryPage."""

    backups: list[Backup]
    next_cursor: str | None


class Difference(TypedDict):
    """What a restore changes in a namespace; `samples`: some keys of what was added, changed and removed."""

    namespace: str
    added: int
    changed: int
    removed: int
    same: int
    samples: dict[str, list[str]]


class Restored(TypedDict):
    """What a restore did, or (`dry_run`) would do. `used`: the last backup of the chain that was used; `safety_backup`: the one
    of what was there before.
    """

    backup_id: str
    used: str
    mode: str
    dry_run: bool
    differences: list[Difference]
    safety_backup: str | None
    added: int
    changed: int
    removed: int
    same: int


class MigrationCounts(TypedDict):
    """What came of records. `read`: all; `same`: as they were copied before; `removed`: gone from the source, and so from here;
    `noted`: stored, though odd; `skipped`: left where they are; `conflicts`: something else is here; `renumbered`: known by
    another number here.
    """

    read: int
    copied: int
    same: int
    changed: int
    removed: int
    quarantined: int
    noted: int
    skipped: int
    conflicts: int
    renumbered: int


class MigrationConflict(TypedDict):
    """A record that was not written, and why."""

    source: str
    location: str
    origin: str
    reason: str


class MigratedRecord(TypedDict):
    """A record as it would be here; of a long value the beginning."""

    origin: str
    namespace: str
    key: str
    value: str
    importance: int
    tags: list[str]
    created_at: str | None
    metadata: dict[str, Any]


class Survey(TypedDict):
    """What a look at a source tells. `records`: None where only reading tells; `remarks`: what it cannot show or carry."""

    kind: str
    location: str
    records: int | None
    projects: dict[str, int]
    remarks: list[str]
    bytes: int | None


class SourcePlan(TypedDict):
    """What a run would do with a source, as far as the records tell that were looked at."""

    survey: Survey
    first: list[MigratedRecord]
    looked_at: MigrationCounts
    conflicts: list[MigrationConflict]


class MigrationPlan(TypedDict):
    """What a migration would do. `found`: older services at their usual places, kind and location, where no source was named.
    `needed_bytes`: an estimate, None where a source does not tell; `free_bytes`: on the disk of the data.
    """

    phase: str
    sources: list[SourcePlan]
    found: list[list[str]]
    needed_bytes: int | None
    free_bytes: int | None


class MigratedProject(TypedDict):
    """What came of the records of a project; None: of those that have none."""

    project: str | None
    counts: MigrationCounts


class MigratedSource(TypedDict):
    """What came of a source, in all and by project."""

    kind: str
    location: str
    counts: MigrationCounts
    projects: list[MigratedProject]
    seconds: float
    remarks: list[str]


class Renumbered(TypedDict):
    """A record whose number another one has here: the `former` as JSON text, and the `number` by which it is known now."""

    source: int
    origin: str
    former: str
    number: int


class MigrationReport(TypedDict):
    """What a run has done, or with `dry_run` would. `complete`: every source was read to its end; `rate`: records a second;
    `conflicts`: the first hundred; `first`: the first records as they are here.
    """

    started_at: str
    finished_at: str
    seconds: float
    records: int
    rate: float
    phase: str
    dry_run: bool
    complete: bool
    passes: int
    sources: list[MigratedSource]
    conflicts: list[MigrationConflict]
    renumbered: list[Renumbered]
    first: list[MigratedRecord]
    rollback_point: str | None


class SourceStatus(TypedDict):
    """How a source stands."""

    kind: str
    location: str
    copied: int
    quarantined: int
    conflicts: int
    skipped: int


class Proxy(TypedDict):
    """A proxy: of which service, and which phase it has acknowledged."""

    id: str
    service: str
    pid: int
    phase: str | None


class Comparison(TypedDict):
    """How often the older service and this one answered alike, and otherwise; the last difference."""

    service: str
    tool: str
    same: int
    other: int
    sample: str | None


class MigrationStatus(TypedDict):
    """How far a migration has come. `phase`: none, shadow, switching, switched, returning, returned or finished; `complete`: all
    sources were read to their end once; `run`: who is copying at this moment; `returned`: memories that were written back.
    """

    phase: str
    since: str | None
    complete: bool
    run: str | None
    sources: list[SourceStatus]
    proxies: list[Proxy]
    comparisons: list[Comparison]
    returned: int
    rollback_point: str | None


class ProjectCheck(TypedDict):
    """Records of a project: `there` in the source, `here`, and of these `same` in content, tags, importance and times."""

    project: str | None
    there: int
    here: int
    same: int


class SourceCheck(TypedDict):
    """How a source compares. `quarantined`: what cannot be stored; `only_here`: what is no longer in the source."""

    kind: str
    location: str
    there: int
    here: int
    same: int
    quarantined: int
    only_here: int
    projects: list[ProjectCheck]


class SourceDifference(TypedDict):
    """A record that is not here as it is in its source. `what`: missing, only_here, not_quarantined, or what differs."""

    source: str
    location: str
    origin: str
    what: str


class ReplayDifference(TypedDict):
    """A read that was answered otherwise."""

    tool: str
    arguments: dict[str, Any]
    older: str
    ours: str


class Replay(TypedDict):
    """How many reads were asked of both, and how many were answered alike; the first differences."""

    asked: int
    same: int
    differences: list[ReplayDifference]


class MigrationVerification(TypedDict):
    """Whether the sources and this service say the same. `differences`: the first hundred; `replay`: None where no older service
    was asked.
    """

    ok: bool
    seconds: float
    sources: list[SourceCheck]
    differences: list[SourceDifference]
    replay: Replay | None


class MigrationRolledBack(TypedDict):
    """What going back came to. `status`: rollback_complete; `backup_used`: the rollback point; `returned`: memories written into
    the older services since the switch, of which `verified` are found there as they are here; `lost`: of how many a format could
    not hold all, listed in `returned_file`; `restored`: the backup that was put back here.
    """

    backup_used: str | None
    returned: int
    verified: int
    lost: int
    returned_file: str | None
    restored: str | None
    status: str
    phase: str


class MigrationFinished(TypedDict):
    """How a migration ended. `backups`: the last ones of the older files; `kept`: what of the older services was in no file;
    `commands`: what would remove the older services.
    """

    phase: str
    backups: list[str]
    kept: list[str]
    commands: list[str]


class LineError(TypedDict):
    """A line that was not stored, and why."""

    line: int
    code: str
    detail: str


class Imported(TypedDict):
    """What came of an import, in lines; `errors`: of the first 100 that failed."""

    read: int
    stored: int
    replaced: int
    skipped: int
    failed: int
    errors: list[LineError]


class NamespaceUse(TypedDict):
    """What lies in one namespace; `bytes` of the values."""

    name: str
    memories: int
    bytes: int


class TagCount(TypedDict):
    """How many memories have the tag."""

    tag: str
    count: int


class Stats(TypedDict):
    """Totals. `bytes_raw` of the values, `bytes_stored` of the files; `tiers`: memories by tier.

    `expired`: awaiting cleanup; `read_only`: why writes are off, None where they are on.
    """

    memories: int
    bytes_raw: int
    bytes_stored: int | None
    expired: int
    sessions: int
    namespaces: list[NamespaceUse]
    tiers: dict[str, int]
    top_tags: list[TagCount]
    oldest: str | None
    newest: str | None
    read_only: str | None


class Cleanup(TypedDict):
    """What a cleanup removed: expired memories (also by namespace), and those of deleted namespaces."""

    expired: int
    namespaces: dict[str, int]
    purged: int


class JobPage(TypedDict):
    """A part of a listing; see MemoryPage."""

    jobs: list[Job]
    next_cursor: str | None


class Mode(TypedDict):
    """Whether writes are off, and why."""

    read_only: bool
    reason: str | None


class Meaning(TypedDict):
    """How far search by meaning has come. `state`: loading, embedding, ready or failing (see `troubles`). `held`: bytes."""

    state: str
    model: str | None
    embedded: int
    waiting: int
    held: int
    troubles: list[str]


class BackupHealth(TypedDict):
    """When the last backup was made, and when one was verified last; None: never."""

    last_at: str | None
    verified_at: str | None
    verified_ok: bool | None


class Health(TypedDict):
    """`status`: ok, degraded (see `reasons`) or failing. `meaning`: None where search by meaning is off."""

    status: str
    reasons: list[str]
    service: str
    version: str
    checked_at: str
    meaning: Meaning | None
    backup: BackupHealth
