"""An example of every request with the very answer that it gets, for the document; tests ask the service each of them.

Each is asked of a service in which `STORY` happened, at `AT`; `fresh` ones of a service in which nothing has.
"""

from typing import Any

import msgspec
from msgspec import UNSET, Struct

from unified_memory import __version__

AT = "2026-01-02T03:04:05.000006Z"
# Stands where an answer differs each time.
JOB_ID = "5r2qYbNRtbXcmkU0"
BACKUP_ID = "20260102T030405Z-9f86d081"
SCORE = 0.5

STORY: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("POST", "/sessions", {"id": "run-7", "namespace": "acme/web", "cluster_id": "release"}),
    (
        "POST",
        "/store",
        {
            "key": "deploy/checklist",
            "namespace": "acme/web",
            "value": {"steps": ["tag", "push"]},
            "metadata": {"tags": ["ops"], "importance": 7, "session_id": "run-7", "author": "ann"},
        },
    ),
    (
        "POST",
        "/store",
        {"key": "deploy/rollback", "namespace": "acme/web", "value": "Roll back by hand", "ttl": 86400},
    ),
    ("PUT", "/update/deploy/rollback", {"namespace": "acme/web", "value": "Roll back with make undo"}),
)


class Example(Struct, frozen=True):
    """A request and its answer; the path is filled from `schemas.PATHS`. `fresh`: see above."""

    summary: str
    answer: Any
    body: Any = UNSET
    query: str = ""
    media_type: str = "application/json"
    fresh: bool = False


def _memory(**changed: Any) -> dict[str, Any]:
    metadata = {
        "created_at": AT,
        "updated_at": AT,
        "expires_at": None,
        "access_count": 0,
        "last_accessed": None,
        "importance": 7,
        "session_id": "run-7",
        "project_id": None,
        "tags": ["ops"],
        "author": "ann",
    } | changed.pop("metadata", {})
    return {
        "id": 1,
        "key": "deploy/checklist",
        "namespace": "acme/web",
        "value": {"steps": ["tag", "push"]},
        "metadata": {name: fact for name, fact in metadata.items() if fact is not UNSET},
        "version": 1,
        "tier": "warm",
    } | changed


_THERE = "namespace=acme/web"
_RETRIEVED = {"access_count": 1, "last_accessed": AT}
_CHECKLIST = {"key": "deploy/checklist", "namespace": "acme/web"}
_ROLLBACK = {"key": "deploy/rollback", "namespace": "acme/web"}
_NOTHING = {"key": "deploy/nothing", "namespace": "acme/web"}
_SESSION: dict[str, Any] = {
    "id": "run-7",
    "namespace": "acme/web",
    "cluster_id": "release",
    "project_id": None,
    "ttl": None,
    "state": "active",
    "memories": 1,
    "metadata": {},
    "created_at": AT,
    "last_used": AT,
    "expires_at": None,
    "ended_at": None,
}
_NAMESPACE = {
    "name": "acme/web",
    "config": {},
    "effective": {},
    "created_at": AT,
    "explicit": False,
    "memories": 2,
    "bytes": 50,
    "total_memories": 2,
    "total_bytes": 50,
    "namespaces": 0,
}
_CLEANED = {"expired": 0, "namespaces": {}, "purged": 0}
_JOB = {
    "id": JOB_ID,
    "kind": "cleanup",
    "namespace": "",
    "state": "done",
    "done": 0,
    "total": None,
    "unit": "memories",
    "created_at": AT,
    "finished_at": AT,
    "result": _CLEANED,
    "error": None,
}
_HEALTH: dict[str, Any] = {
    "status": "ok",
    "reasons": [],
    "service": "unified-memory",
    "version": __version__,
    "checked_at": AT,
    "meaning": None,
    "backup": {"last_at": None, "verified_at": None, "verified_ok": None},
}
_ARCHIVED = {"namespace": "acme/web", "recursive": True, "dry_run": False, "memories": 0, "bytes": 0}
_AFFECTED = {"matched": 1, "changed": 1, "dry_run": False, "sample": [_CHECKLIST]}
_OPS = {"tags": {"contains": "ops"}}

_VERIFIED = {"at": AT, "ok": True, "detail": None, "seconds": 0.5, "memories": 2}
_BACKUP: dict[str, Any] = {
    "id": BACKUP_ID,
    "created_at": AT,
    "kind": "full",
    "parent": None,
    "reason": "manual",
    "note": None,
    "memories": 2,
    "bytes": 4096,
    "raw_bytes": 50,
    "seq": 3,
    "store": "5f2b9c0d1e3a4876",
    "schema": 6,
    "program": f"unified-memory {__version__}",
    "encrypted": False,
    "namespaces": {"acme/web": 2},
    "verified": None,
}
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_PARTS = [
    {
        "name": "memories-0001.jsonl.zst",
        "kind": "memories",
        "records": 2,
        "raw_bytes": 900,
        "bytes": 400,
        "sha256": _SHA256,
    }
]
_RESTORED: dict[str, Any] = {
    "backup_id": BACKUP_ID,
    "used": BACKUP_ID,
    "mode": "replace",
    "dry_run": True,
    "differences": [{"namespace": "acme/web", "added": 0, "changed": 0, "removed": 0, "same": 2, "samples": {}}],
    "safety_backup": None,
    "added": 0,
    "changed": 0,
    "removed": 0,
    "same": 2,
}
# The directories that stand for MIGRATION_DIR, that of backups and that of the migration's own files.
OLDER = "/srv/older"
BACKUPS = "/srv/backups"
LEDGERS = "/srv/data/migration"
_BANK = {"kind": "memory-bank-files", "location": f"{OLDER}/bank"}
_POINT = f"{BACKUPS}/pre-migration/rollback-2026-01-02T030405.000006Z.json"
_MIGRATION: dict[str, Any] = {
    "phase": "none",
    "since": None,
    "complete": False,
    "run": None,
    "sources": [],
    "proxies": [],
    "comparisons": [],
    "returned": 0,
    "rollback_point": None,
}
_SWITCHED = {
    **_MIGRATION,
    "phase": "switched",
    "since": AT,
    "complete": True,
    "sources": [{**_BANK, "copied": 1, "quarantined": 0, "conflicts": 0, "skipped": 0}],
    "rollback_point": _POINT,
}
_COUNTS = {
    "read": 1,
    "copied": 1,
    "same": 0,
    "changed": 0,
    "removed": 0,
    "quarantined": 0,
    "noted": 0,
    "skipped": 0,
    "conflicts": 0,
    "renumbered": 0,
}
_FIRST = [
    {
        "origin": "file/billing/brief.md",
        "namespace": "projects/billing",
        "key": "brief.md",
        "value": '"Invoices go out on Fridays"',
        "importance": 7,
        "tags": [],
        "created_at": "2026-01-02T03:04:05.000000Z",
        "metadata": {"migrated_from": "memory-bank-mcp"},
    }
]
_REMARKS = ["A file has no history: both times of a memory are when its file was last written"]
_PLAN: dict[str, Any] = {
    "phase": "none",
    "sources": [
        {
            "survey": {**_BANK, "records": 1, "projects": {"billing": 1}, "remarks": _REMARKS, "bytes": 26},
            "first": _FIRST,
            "looked_at": _COUNTS,
            "conflicts": [],
        }
    ],
    "found": [],
    "needed_bytes": 978,
    "free_bytes": 10_000_000_000,
}
_RUN: dict[str, Any] = {
    "started_at": AT,
    "finished_at": AT,
    "seconds": 0.5,
    "records": 1,
    "rate": 2.0,
    "phase": "shadow",
    "dry_run": False,
    "complete": True,
    "passes": 1,
    "sources": [
        {
            **_BANK,
            "counts": _COUNTS,
            "projects": [{"project": "billing", "counts": _COUNTS}],
            "seconds": 0.5,
            "remarks": _REMARKS,
        }
    ],
    "conflicts": [],
    "renumbered": [],
    "first": _FIRST,
    "rollback_point": _POINT,
}
_CHECK = {"there": 1, "here": 1, "same": 1}
_VERIFICATION: dict[str, Any] = {
    "ok": True,
    "seconds": 0.5,
    "sources": [{**_BANK, **_CHECK, "quarantined": 0, "only_here": 0, "projects": [{"project": "billing", **_CHECK}]}],
    "differences": [],
    "replay": None,
}
_ROLLED_BACK_TO: dict[str, Any] = {
    "backup_used": _POINT,
    "returned": 0,
    "verified": 0,
    "lost": 0,
    "returned_file": f"{LEDGERS}/returned.jsonl",
    "restored": None,
    "status": "rollback_complete",
    "phase": "returned",
}
_FINISHED: dict[str, Any] = {
    "phase": "finished",
    "backups": [f"{BACKUPS}/pre-migration/last-1-memory-bank-files-2026-01-02T030405.000006Z.tar.gz"],
    "kept": [],
    "commands": [
        f"rm -r {OLDER}/bank",
        "docker stop mcp-memory-bank-mcp && docker rm mcp-memory-bank-mcp",
        "docker volume ls --quiet --filter name=memory-bank  # then: docker volume rm …",
    ],
}


def _change(seq: int, kind: str, key: str, number: int, version: int = 1) -> dict[str, Any]:
    return {"seq": seq, "at": AT, "kind": kind, "namespace": "acme/web", "key": key, "version": version, "id": number}


_CHANGES = [
    _change(1, "store", "deploy/checklist", 1),
    _change(2, "store", "deploy/rollback", 2),
    _change(3, "update", "deploy/rollback", 2, 2),
]


def _version(version: int, size: int, *, current: bool) -> dict[str, Any]:
    told = {"version": version, "at": AT, "ended_at": None if current else AT, "current": current}
    return {**told, "bytes": size, "kept": True, "redacted_at": None}


_ROLLED_BACK = _memory(
    id=2,
    key="deploy/rollback",
    value="Roll back with make undo",
    version=2,
    metadata={
        "expires_at": "2026-01-03T03:04:05.000006Z",
        "importance": 5,
        "session_id": None,
        "tags": [],
        "author": UNSET,
    },
)
_LINES = "".join(msgspec.json.encode(one).decode() + "\n" for one in (_memory(), _ROLLED_BACK))

_METRICS = """\
# HELP unified_memory_tier_memories Memories by tier; hot ones are copies. Warm and cold ones counted at most 15 seconds ago.
# TYPE unified_memory_tier_memories gauge
unified_memory_tier_memories{tier="hot"} 0
unified_memory_tier_memories{tier="warm"} 2
unified_memory_tier_memories{tier="cold"} 0
# HELP unified_memory_tier_bytes Bytes of values by tier. Warm and cold ones counted at most 15 seconds ago.
# TYPE unified_memory_tier_bytes gauge
unified_memory_tier_bytes{tier="hot"} 0
unified_memory_tier_bytes{tier="warm"} 50
unified_memory_tier_bytes{tier="cold"} 0
# HELP unified_memory_hot_looks_total Looks for a hot copy since this process began.
# TYPE unified_memory_hot_looks_total counter
unified_memory_hot_looks_total{result="hit"} 0
unified_memory_hot_looks_total{result="miss"} 0
# HELP unified_memory_hot_evictions_total Hot copies that gave way to others since this process began.
# TYPE unified_memory_hot_evictions_total counter
unified_memory_hot_evictions_total 0
# HELP unified_memory_hot_refused_total Copies that were not taken since this process began.
# TYPE unified_memory_hot_refused_total counter
unified_memory_hot_refused_total 0
# HELP unified_memory_hot_failures_total Requests that the hot tier failed since this process began.
# TYPE unified_memory_hot_failures_total counter
unified_memory_hot_failures_total 0
# HELP unified_memory_hot_trusted Whether hot copies are being read.
# TYPE unified_memory_hot_trusted gauge
unified_memory_hot_trusted 0
# HELP unified_memory_promotions_total Values brought back from archives since this process began.
# TYPE unified_memory_promotions_total counter
unified_memory_promotions_total 0
# HELP unified_memory_demotions_total Values moved to archives since this process began.
# TYPE unified_memory_demotions_total counter
unified_memory_demotions_total 0
# HELP unified_memory_compactions_total Archives compacted since this process began.
# TYPE unified_memory_compactions_total counter
unified_memory_compactions_total 0
# HELP unified_memory_archives Archives, counted at most 15 seconds ago.
# TYPE unified_memory_archives gauge
unified_memory_archives 0
# HELP unified_memory_archive_bytes Bytes of archives, counted at most 15 seconds ago.
# TYPE unified_memory_archive_bytes gauge
unified_memory_archive_bytes 0
# HELP unified_memory_backup_verified Whether the last verification found a backup whole.
# TYPE unified_memory_backup_verified gauge
unified_memory_backup_verified 0
# HELP unified_memory_backups Backups, counted at most 15 seconds ago.
# TYPE unified_memory_backups gauge
unified_memory_backups 0
# HELP unified_memory_backup_bytes Bytes of backups, counted at most 15 seconds ago.
# TYPE unified_memory_backup_bytes gauge
unified_memory_backup_bytes 0
"""

EXAMPLES: dict[tuple[str, str], tuple[Example, ...]] = {
    ("POST", "/store"): (
        Example(
            "A record with tags and facts of one's own",
            _memory(),
            {**_CHECKLIST, "value": {"steps": ["tag", "push"]}, "metadata": STORY[1][2]["metadata"]},
            fresh=True,
        ),
        Example(
            "One that lives for a day",
            _memory(
                key="greeting",
                namespace="default",
                value="hello",
                metadata={
                    "expires_at": "2026-01-03T03:04:05.000006Z",
                    "importance": 5,
                    "session_id": None,
                    "tags": [],
                    "author": UNSET,
                },
            ),
            {"key": "greeting", "value": "hello", "ttl": 86400},
            fresh=True,
        ),
    ),
    ("GET", "/retrieve/{key}"): (
        Example("The record", _memory(metadata=_RETRIEVED), query=_THERE),
        Example(
            "With what the search knows of it",
            _memory(
                metadata=_RETRIEVED,
                search_index={
                    "content_hash": "c2e19e53ada1a23048dfd9dda62f28cf03e9192fca4d17e08664b4010f570703",
                    "keywords": ["ops", "steps", "push"],
                    "full_text": "steps\ntag\npush",
                },
            ),
            query=f"{_THERE}&include=search_index",
        ),
        Example("As it was at an instant", _memory(), query=f"{_THERE}&as_of=2026-01-02T03:04:05.000006Z"),
    ),
    ("PUT", "/update/{key}"): (
        Example(
            "More important, without an author",
            _memory(version=2, metadata={"importance": 9, "tags": ["ops", "release"], "author": UNSET}),
            {"metadata": {"importance": 9, "tags": ["ops", "release"], "author": None}},
            query=_THERE,
        ),
    ),
    ("PATCH", "/update/{key}"): (
        Example(
            "A step more, and a count",
            _memory(version=2, value={"steps": ["tag", "push", "announce"], "runs": 1}),
            {"append": {"steps": "announce"}, "increment": {"runs": 1}},
            query=_THERE,
        ),
        Example(
            "A merge patch",
            _memory(version=2, value={"steps": ["tag", "push"], "owner": "ann"}),
            {"owner": "ann"},
            query=_THERE,
            media_type="application/merge-patch+json",
        ),
    ),
    ("DELETE", "/delete/{key}"): (
        Example("Deleted", {"deleted": True, **_CHECKLIST, "id": 1, "version": 1}, query=_THERE),
    ),
    ("POST", "/move"): (
        Example(
            "Another key in another namespace",
            _memory(key="checklist", namespace="acme/ops", version=2),
            {"from": _CHECKLIST, "to": {"namespace": "acme/ops", "key": "checklist"}},
        ),
        Example(
            "A whole namespace", {"moved": 2}, {"from": {"namespace": "acme/web"}, "to": {"namespace": "acme/site"}}
        ),
    ),
    ("POST", "/store/batch"): (
        Example(
            "Two records",
            {
                "results": [
                    {
                        "status": "replaced",
                        "memory": _memory(
                            value=["tag"],
                            version=2,
                            metadata={"importance": 5, "session_id": None, "tags": [], "author": UNSET},
                        ),
                    },
                    {
                        "status": "created",
                        "memory": _memory(
                            id=3,
                            key="deploy/nothing",
                            value=None,
                            metadata={"importance": 5, "session_id": None, "tags": [], "author": UNSET},
                        ),
                    },
                ]
            },
            {"memories": [{**_CHECKLIST, "value": ["tag"]}, {**_NOTHING, "value": None}]},
        ),
    ),
    ("POST", "/retrieve/batch"): (
        Example(
            "One that is there, one that is not",
            {
                "results": [
                    {"status": "found", "memory": _memory(metadata=_RETRIEVED)},
                    {"status": "not_found", **_NOTHING},
                ]
            },
            {"keys": [_CHECKLIST, _NOTHING]},
        ),
    ),
    ("POST", "/delete/batch"): (
        Example(
            "One that is there, one that is not",
            {
                "results": [
                    {"status": "deleted", **_CHECKLIST, "id": 1, "version": 1},
                    {"status": "not_found", **_NOTHING},
                ]
            },
            {"keys": [_CHECKLIST, _NOTHING]},
        ),
    ),
    ("POST", "/update/where"): (
        Example(
            "A tag and a year to live for all of operations",
            _AFFECTED,
            {"filter": _OPS, "namespace": "acme", "set": {"add_tags": ["kept"], "ttl": 31536000}},
        ),
        Example(
            "What would change",
            {**_AFFECTED, "changed": 0, "dry_run": True},
            {"filter": {"value.steps": {"contains": "push"}}, "set": {"remove_tags": ["ops"]}, "dry_run": True},
        ),
    ),
    ("POST", "/delete/where"): (
        Example(
            "Unimportant ones",
            {**_AFFECTED, "sample": [_ROLLBACK]},
            {"filter": {"importance": {"lt": 7}, "not": _OPS}, "namespace": "acme"},
        ),
        Example(
            "What would go",
            {**_AFFECTED, "changed": 0, "dry_run": True},
            {"filter": _OPS, "dry_run": True},
        ),
    ),
    ("GET", "/list"): (
        Example(
            "A page",
            {"memories": [_memory()], "next_cursor": None},
            query=f"{_THERE}&recursive=true&prefix=deploy/&tags=ops&order_by=-updated_at&limit=10",
        ),
    ),
    ("POST", "/search"): (
        Example(
            "By words, below a namespace",
            {
                "results": [
                    _memory(score=SCORE, matched=["value"], snippet="steps\ntag\npush"),
                ],
                "next_cursor": None,
                "left_out": 0,
                "mode": "fulltext",
                "corrected": {},
            },
            {"query": "what to push", "namespace": "acme", "tags": ["ops"], "limit": 5},
        ),
    ),
    ("POST", "/similar"): (
        Example(
            "To a text",
            {
                "results": [_memory(score=SCORE, matched=["value"], snippet="steps\ntag\npush")],
                "next_cursor": None,
                "left_out": 0,
                "mode": "fulltext",
                "corrected": {},
            },
            {"text": "First tag the release, then push it.", "namespace": "acme", "limit": 5},
        ),
    ),
    ("POST", "/recall"): (
        Example(
            "For the next answer of an agent",
            {
                "results": [
                    _memory(score=SCORE, matched=["value"], snippet="steps\ntag\npush", duplicates=0, message=1)
                ],
                "next_cursor": None,
                "left_out": 0,
                "mode": "fulltext",
                "corrected": {},
            },
            {
                "messages": [
                    {"role": "user", "content": "Good morning"},
                    {"role": "user", "content": "What do I push?"},
                ],
                "namespace": "acme",
            },
        ),
    ),
    ("POST", "/query"): (
        Example(
            "By filter, some fields",
            {
                "memories": [{"key": "deploy/checklist", "value.steps[0]": "tag", "metadata.author": "ann"}],
                "next_cursor": None,
                "count": 1,
            },
            {
                "namespace": "acme",
                "filter": {"or": [{"importance": {"gte": 7}}, {"metadata.author": "bob"}]},
                "select": ["key", "value.steps[0]", "metadata.author"],
                "order_by": "-updated_at",
                "count": True,
            },
        ),
        Example(
            "Counts by tag",
            {
                "memories": [],
                "next_cursor": None,
                "groups": [{"value": "ops", "count": 1}, {"value": None, "count": 1}],
            },
            {"group_by": "tags"},
        ),
    ),
    ("POST", "/namespaces"): (
        Example(
            "One whose memories live for a week",
            {
                **_NAMESPACE,
                "name": "acme/notes",
                "config": {"default_ttl": 604800.0, "description": "Meeting notes"},
                "effective": {"default_ttl": 604800.0, "description": "Meeting notes"},
                "explicit": True,
                "memories": 0,
                "bytes": 0,
                "total_memories": 0,
                "total_bytes": 0,
            },
            {"name": "acme/notes", "config": {"default_ttl": 604800, "description": "Meeting notes"}},
        ),
    ),
    ("GET", "/namespaces"): (
        Example("A page", {"namespaces": [_NAMESPACE], "next_cursor": None}, query="prefix=acme&depth=2&limit=10"),
    ),
    ("GET", "/namespaces/{name}"): (Example("The namespace", _NAMESPACE),),
    ("PUT", "/namespaces/{name}"): (
        Example(
            "A quota",
            {**_NAMESPACE, "config": {"max_memories": 1000}, "effective": {"max_memories": 1000}, "explicit": True},
            {"max_memories": 1000},
        ),
    ),
    ("DELETE", "/namespaces/{name}"): (
        Example(
            "All of it",
            {"deleted": True, "namespace": "acme/web", "memories": 2, "namespaces": 1, "dry_run": False},
            query="recursive=true&dry_run=false",
        ),
        Example(
            "What would go",
            {"deleted": False, "namespace": "acme/web", "memories": 2, "namespaces": 1, "dry_run": True},
            query="recursive=true&dry_run=true",
        ),
    ),
    ("POST", "/sessions"): (
        Example(
            "A run of an hour",
            {
                **_SESSION,
                "id": "run-8",
                "ttl": 3600.0,
                "memories": 0,
                "metadata": {"agent": "planner"},
                "expires_at": "2026-01-02T04:04:05.000006Z",
            },
            {
                "id": "run-8",
                "namespace": "acme/web",
                "cluster_id": "release",
                "ttl": 3600,
                "metadata": {"agent": "planner"},
            },
        ),
    ),
    ("GET", "/sessions"): (
        Example(
            "A page",
            {"sessions": [_SESSION], "next_cursor": None},
            query=f"{_THERE}&recursive=true&cluster_id=release&active=true&limit=10",
        ),
    ),
    ("GET", "/sessions/{id}"): (
        Example(
            "The session",
            {"session": _SESSION, "memories": [_memory()], "next_cursor": None},
            query=f"{_THERE}&scope=session&limit=10",
        ),
    ),
    ("DELETE", "/sessions/{id}"): (
        Example(
            "Ended, its memories kept",
            {"session": {**_SESSION, "state": "ended", "ended_at": AT}, "memories": "keep", "affected": 0},
            query=f"{_THERE}&memories=keep",
        ),
    ),
    ("GET", "/tiers"): (
        Example(
            "Nothing is archived, and there are no hot copies",
            {
                "hot": {
                    "kind": "none",
                    "trusted": False,
                    "trouble": None,
                    "note": None,
                    "memories": 0,
                    "bytes": 0,
                    "hits": 0,
                    "misses": 0,
                    "hit_ratio": None,
                    "fills": 0,
                    "refused": 0,
                    "evictions": 0,
                    "failures": 0,
                },
                "warm": {"memories": 2, "bytes": 50},
                "cold": {"memories": 0, "bytes": 0, "archives": 0, "archive_bytes": 0, "off": None},
                "promotions": 0,
                "demotions": 0,
                "compactions": 0,
                "archives": [],
            },
        ),
    ),
    ("POST", "/archive"): (
        Example("All of it", {**_ARCHIVED, "memories": 2, "bytes": 50}, {"namespace": "acme/web"}),
        Example(
            "What would move",
            {**_ARCHIVED, "namespace": "acme", "dry_run": True, "memories": 2, "bytes": 50},
            {"namespace": "acme", "dry_run": True},
        ),
    ),
    ("POST", "/archive/recall"): (Example("Nothing of it was archived", _ARCHIVED, {"namespace": "acme/web"}),),
    ("POST", "/archive/pass"): (
        Example(
            "There was nothing to do",
            {"demoted": {"memories": 0, "bytes": 0}, "compacted": 0, "bytes_before": 0, "bytes_after": 0},
        ),
    ),
    ("GET", "/history/{key}"): (
        Example("All versions", {"versions": [_version(1, 24, current=True)], "next_cursor": None}, query=_THERE),
        Example("One of them", _memory(), query=f"{_THERE}&version=1"),
    ),
    ("POST", "/history/restore"): (
        Example(
            "The one before",
            {**_ROLLED_BACK, "value": "Roll back by hand", "version": 3},
            _ROLLBACK,
        ),
    ),
    ("POST", "/history/redact"): (
        Example("One version", {**_ROLLBACK, "versions": [1], "ids": [2]}, {**_ROLLBACK, "version": 1}),
        Example("All of them", {**_ROLLBACK, "versions": [1, 2], "ids": [2]}, _ROLLBACK),
    ),
    ("GET", "/changes"): (
        Example(
            "From the beginning", {"changes": _CHANGES, "next": 3}, query=f"since=0&{_THERE}&recursive=true&limit=10"
        ),
        Example("What came behind a place", {"changes": _CHANGES[2:], "next": 3}, query="since=2"),
    ),
    ("POST", "/backup"): (
        Example("A full one", _BACKUP, {}),
        Example("With a note", {**_BACKUP, "note": "before the upgrade"}, {"note": "before the upgrade"}),
    ),
    ("GET", "/backups"): (Example("All of them", {"backups": [_BACKUP], "next_cursor": None}),),
    ("GET", "/backups/{id}"): (Example("With its files", {**_BACKUP, "parts": _PARTS}),),
    ("POST", "/backups/{id}/verify"): (Example("It is whole", {"backup_id": BACKUP_ID, **_VERIFIED}),),
    ("DELETE", "/backups/{id}"): (Example("What was deleted", _BACKUP),),
    ("POST", "/restore"): (
        Example("What would change", _RESTORED, {"backup_id": BACKUP_ID, "dry_run": True}),
        Example(
            "A namespace under another name",
            {
                **_RESTORED,
                "mode": "namespace",
                "dry_run": False,
                "differences": [
                    {
                        "namespace": "acme/before",
                        "added": 2,
                        "changed": 0,
                        "removed": 0,
                        "same": 0,
                        "samples": {},
                    }
                ],
                "added": 2,
                "same": 0,
            },
            {
                "backup_id": BACKUP_ID,
                "mode": "namespace",
                "namespace": "acme/web",
                "target": "acme/before",
                "safety": False,
            },
        ),
    ),
    ("GET", "/migration"): (Example("Nothing was migrated yet", _MIGRATION),),
    ("POST", "/migration/plan"): (Example("A folder of the memory bank", _PLAN, {"sources": [_BANK]}),),
    ("POST", "/migration/run"): (Example("A folder of the memory bank", _RUN, {"sources": [_BANK]}),),
    ("POST", "/migration/verify"): (Example("All is as it is there", _VERIFICATION, {}),),
    ("POST", "/migration/switch"): (Example("No proxy was to follow", _SWITCHED, {}),),
    ("POST", "/migration/rollback"): (Example("Nothing was written since", _ROLLED_BACK_TO, {}),),
    ("POST", "/migration/finish"): (Example("What could go now", _FINISHED, {}),),
    ("GET", "/migration/report"): (Example("Of the last run", _RUN),),
    ("GET", "/export"): (Example("A namespace", _LINES, query=f"{_THERE}&recursive=true"),),
    ("POST", "/import"): (
        Example(
            "What is there already stays",
            {"read": 2, "stored": 0, "replaced": 0, "skipped": 2, "failed": 0, "errors": []},
            _LINES,
            query="on_conflict=skip",
            media_type="application/x-ndjson",
        ),
    ),
    ("GET", "/stats"): (
        Example(
            "Totals",
            {
                "memories": 2,
                "bytes_raw": 50,
                "bytes_stored": None,
                "expired": 0,
                "sessions": 1,
                "namespaces": [{"name": "acme/web", "memories": 2, "bytes": 50}],
                "tiers": {"hot": 0, "warm": 2, "cold": 0},
                "top_tags": [{"tag": "ops", "count": 1}],
                "oldest": AT,
                "newest": AT,
                "last_seq": 3,
                "read_only": None,
            },
            query=_THERE,
        ),
    ),
    ("POST", "/cleanup"): (Example("Nothing had expired", _CLEANED),),
    ("GET", "/jobs"): (Example("A page", {"jobs": [_JOB], "next_cursor": None}),),
    ("GET", "/jobs/{id}"): (Example("A job that has ended", _JOB),),
    ("DELETE", "/jobs/{id}"): (Example("A job that had ended already", _JOB),),
    ("GET", "/mode"): (Example("Writes are on", {"read_only": False, "reason": None}),),
    ("PUT", "/mode"): (
        Example(
            "Writes off",
            {"read_only": True, "reason": "moving to another machine"},
            {"read_only": True, "reason": "moving to another machine"},
        ),
    ),
    ("GET", "/health"): (Example("All is well", _HEALTH),),
    ("GET", "/health/live"): (Example("It answers", {"status": "ok"}),),
    ("GET", "/health/ready"): (Example("A write succeeded", _HEALTH),),
    ("GET", "/metrics"): (Example("Nothing is archived, and there are no hot copies", _METRICS),),
}
ACCEPTED = {"job": {**_JOB, "state": "running", "done": 200, "total": 900, "finished_at": None, "result": None}}
EVENTS = "".join(
    f"event: {kind}\ndata: {msgspec.json.encode(job).decode()}\n\n"
    for kind, job in (("progress", ACCEPTED["job"]), ("end", _JOB))
)
CHANGES_STREAM = "retry: 1000\nid: 1\n\n" + "".join(
    f"id: {change['seq']}\nevent: {change['kind']}\ndata: {msgspec.json.encode(change).decode()}\n\n"
    for change in _CHANGES[1:]
)
