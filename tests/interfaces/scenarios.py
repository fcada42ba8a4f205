"""What is asked over every interface: operations by the names and arguments of the Python client, and what comes of them."""

from typing import Any

from msgspec import Struct

Arguments = dict[str, Any]


class Step(Struct, frozen=True):
    """One operation. `gives`: what the answer holds at least; `error`: the code of the error that is raised instead.

    The operation `advance` moves the clock by so many `seconds`.
    """

    operation: str
    arguments: Arguments
    gives: Any = None
    error: str | None = None
    field: str | None = None


class Scenario(Struct, frozen=True):
    """Steps on a service in which nothing has happened."""

    name: str
    steps: tuple[Step, ...]


def does(operation: str, gives: Any = None, /, **arguments: Any) -> Step:
    """A step that succeeds."""
    return Step(operation, arguments, gives)


def fails(operation: str, error: str, field: str | None = None, /, **arguments: Any) -> Step:
    """A step that fails."""
    return Step(operation, arguments, None, error, field)


def value(key: str, held: Any, namespace: str = "default") -> tuple[Step, Step]:
    """Stored and retrieved again."""
    return (
        does("store", {"value": held}, key=key, value=held, namespace=namespace),
        does("retrieve", {"value": held}, key=key, namespace=namespace),
    )


FULL = {
    "tags": ["b", "a"],
    "importance": 9,
    "session_id": "run-7",
    "project_id": "p",
    "author": "ann",
    "nested": {"z": [1]},
}
ODD_KEYS = (
    "a/b",
    "a//b",
    "/",
    "..",
    "a/../b",
    " ",
    "a b?c#d&e=f+g",
    "%2F",
    "ä日😀",
    "a\nb\n",
    "'; DROP TABLE memories; --",
)

VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 2**63, 12345678901234567890123, 1.5, "", "é😀\u0000\u2028"),
    *([], {}, {"": {"b": 1, "a": [None]}}, [[[]]]),
)

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "a memory's life",
        (
            does(
                "store",
                {"version": 1, "key": "k"},
                key="k",
                value={"n": 1},
                namespace="acme/web",
                metadata=FULL,
                ttl=60,
            ),
            does(
                "retrieve",
                {"metadata": FULL | {"expires_at": "2025-06-15T15:07:40.000000Z"}},
                key="k",
                namespace="acme/web",
            ),
            does("retrieve", {"search_index": {}}, key="k", namespace="acme/web", include_search_index=True),
            does(
                "update",
                {"version": 2, "value": {"n": 1}},
                key="k",
                namespace="acme/web",
                metadata={"author": None},
                ttl=None,
            ),
            does("update", {"version": 3, "value": None}, key="k", namespace="acme/web", value=None),
            does("patch", {"version": 4, "value": {"n": 5}}, key="k", namespace="acme/web", merge={"n": 5}),
            does(
                "patch",
                {"value": {"n": 7, "l": [1]}},
                key="k",
                namespace="acme/web",
                increment={"n": 2},
                append={"l": 1},
            ),
            does(
                "move",
                {"key": "l", "namespace": "acme/ops"},
                key="k",
                to_key="l",
                namespace="acme/web",
                to_namespace="acme/ops",
            ),
            does("delete", {"deleted": True, "version": 6}, key="l", namespace="acme/ops"),
            fails("retrieve", "memory_not_found", key="l", namespace="acme/ops"),
            does("store", {"version": 7}, key="l", value=1, namespace="acme/ops"),
        ),
    ),
    Scenario(
        "values of every kind",
        tuple(step for number, held in enumerate(VALUES) for step in value(f"k{number}", held)),
    ),
    Scenario("keys of every kind", tuple(step for number, key in enumerate(ODD_KEYS) for step in value(key, number))),
    Scenario(
        "keys of every kind are moved and deleted",
        tuple(
            step
            for key in ODD_KEYS
            for step in (
                does("store", {"key": key}, key=key, value=1),
                does("update", {"version": 2}, key=key, value=2),
                does("move", {"key": key}, key=key, to_namespace="n"),
                does("delete", {"key": key}, key=key, namespace="n"),
            )
        ),
    ),
    Scenario(
        "what is not there",
        (
            fails("retrieve", "memory_not_found", key="k"),
            fails("update", "memory_not_found", key="k", value=1),
            fails("patch", "memory_not_found", key="k", merge={}),
            fails("delete", "memory_not_found", key="k"),
            fails("move", "memory_not_found", key="k", to_key="l"),
            fails("namespaces.get", "namespace_not_found", name="acme"),
            fails("namespaces.configure", "namespace_not_found", name="acme", max_memories=1),
            fails("namespaces.delete", "namespace_not_found", name="acme"),
            fails("namespaces.move", "namespace_not_found", name="acme", to="other"),
            fails("sessions.get", "session_not_found", session_id="1"),
            fails("sessions.end", "session_not_found", session_id="1"),
            fails("job", "job_not_found", job_id="1"),
            fails("cancel_job", "job_not_found", job_id="1"),
        ),
    ),
    Scenario(
        "what cannot be",
        (
            fails("store", "invalid_input", "key", key="", value=1),
            fails("store", "invalid_input", "key", key="a\0b", value=1),
            fails("retrieve", "invalid_input", "key", key=""),
            fails("delete", "invalid_input", "key", key="\0"),
            fails("store", "too_large", "key", key="k" * 1001, value=1),
            fails("retrieve", "too_large", "key", key="k" * 1001),
            fails("store", "too_large", "value", key="k", value="x" * 100_000),
            fails("store", "invalid_input", "namespace", key="k", value=1, namespace="a//b"),
            fails("retrieve", "invalid_input", "namespace", key="k", namespace="../etc"),
            fails("list", "invalid_input", "namespace", namespace="/"),
            fails("store", "invalid_input", "ttl", key="k", value=1, ttl=0),
            fails("store", "invalid_input", "expires_at", key="k", value=1, expires_at="2001-01-01T00:00:00Z"),
            fails("store", "invalid_input", "expires_at", key="k", value=1, expires_at="soon"),
            fails("store", "invalid_input", "metadata.importance", key="k", value=1, metadata={"importance": 11}),
            fails("store", "invalid_input", "metadata.tags", key="k", value=1, metadata={"tags": [" "]}),
            fails("store", "invalid_input", "metadata.tags", key="k", value=1, metadata={"tags": list("abcdefghi")}),
            fails("store", "invalid_input", "metadata.created_at", key="k", value=1, metadata={"created_at": "x"}),
            fails("store_batch", "invalid_input", "memories", memories=[]),
            fails("store_batch", "invalid_input", "memories[1].key", memories=[{"value": 1}, {"key": "", "value": 1}]),
            fails("list", "invalid_input", "limit", limit=1001),
            fails("list", "invalid_input", "order_by", order_by="colour"),
            fails("list", "invalid_cursor", "cursor", cursor="AAAA"),
            fails("search", "empty_query", "query", query="  "),
            fails("search", "empty_query", "query", query="-word"),
            fails("query", "invalid_input", "filter.colour", filter={"colour": 1}),
            fails("query", "invalid_input", "filter.id.like", filter={"id": {"like": 1}}),
            fails("namespaces.create", "invalid_input", "name", name=".."),
            fails("namespaces.create", "invalid_input", "config.max_bytes", name="n", max_bytes=0),
            fails("sessions.create", "invalid_input", "ttl", ttl=-1),
            fails("cleanup", "invalid_input", "wait", wait=61),
            does("stats", {"memories": 0, "last_seq": 0}),
        ),
    ),
    Scenario(
        "versions and repetitions",
        (
            does("store", {"version": 1}, key="k", value=1, if_none_match=True),
            fails("store", "already_exists", key="k", value=2, if_none_match=True),
            fails("store", "version_conflict", key="k", value=2, expected_version=2),
            fails("store", "version_conflict", key="k", value=2, expected_version=0),
            does("store", {"version": 2}, key="k", value=2, expected_version=1),
            fails("update", "version_conflict", key="k", value=3, expected_version=1),
            does("update", {"version": 3}, key="k", value={"n": 0}, expected_version=2),
            fails("patch", "version_conflict", key="k", merge={}, expected_version=2),
            fails("delete", "version_conflict", key="k", expected_version=2),
            fails("move", "version_conflict", key="k", to_key="l", expected_version=2),
            does("patch", {"value": {"n": 1}}, key="k", increment={"n": 1}, idempotency_key="once"),
            does("advance", seconds=1),
            does("patch", {"value": {"n": 1}}, key="k", increment={"n": 1}, idempotency_key="once"),
            fails(
                "patch", "idempotency_mismatch", "Idempotency-Key", key="k", increment={"n": 2}, idempotency_key="once"
            ),
            fails("patch", "conflict", key="k", append={"n": 1}),
            does("retrieve", {"value": {"n": 1}, "version": 4}, key="k"),
            does("store", key="l", value=1),
            fails("move", "already_exists", key="k", to_key="l"),
            does("delete", {"version": 4}, key="k", expected_version=4),
        ),
    ),
    Scenario(
        "expiry",
        (
            does("store", key="k", value="word", ttl=10),
            does("advance", seconds=9.999999),
            does("retrieve", {"key": "k"}, key="k"),
            does("advance", seconds=0.000001),
            fails("retrieve", "memory_not_found", key="k"),
            does("list", {"memories": []}),
            does("search", {"results": []}, query="word"),
            does("stats", {"memories": 0, "expired": 1}),
            does("cleanup", {"expired": 1, "namespaces": {"default": 1}}),
            does("stats", {"expired": 0}),
        ),
    ),
    Scenario(
        # What moves is told in tests/rest/test_tiers.py; this storage has one tier.
        "one tier",
        (
            does("store", key="k", value="word"),
            does("tiers", {"warm": {"memories": 1, "bytes": 6}, "promotions": 0, "archives": []}),
            fails("archive", "refused", namespace="default"),
            fails("archive", "refused", namespace="default", dry_run=True),
            fails("recall_archived", "refused", namespace="default"),
            fails("tier_pass", "refused"),
            fails("archive", "invalid_input", "namespace", namespace="a//b"),
            does("retrieve", {"value": "word", "tier": "warm"}, key="k"),
        ),
    ),
    Scenario(
        "batches",
        (
            does(
                "store_batch",
                [{"status": "created"}, {"status": "created"}, {"status": "replaced"}],
                memories=[
                    {"key": "a", "value": 1},
                    {"key": "b", "value": 2, "namespace": "n"},
                    {"key": "a", "value": 3},
                ],
            ),
            does(
                "retrieve_batch",
                [{"status": "found"}, {"status": "not_found", "key": "b", "namespace": "default"}, {"status": "found"}],
                keys=["a", "b", {"key": "b", "namespace": "n"}],
            ),
            fails(
                "store_batch",
                "version_conflict",
                memories=[{"key": "c", "value": 1}, {"key": "a", "value": 1, "expected_version": 9}],
            ),
            does("delete_batch", [{"status": "deleted"}, {"status": "not_found"}], keys=["a", "c"]),
            does("stats", {"memories": 1}),
        ),
    ),
    Scenario(
        "changes by filter",
        (
            *[does("store", key=f"k{n}", value={"n": n}, namespace="a/b", metadata={"tags": ["t"]}) for n in range(4)],
            does(
                "update_where",
                {"matched": 2, "changed": 0, "dry_run": True},
                filter={"value.n": {"lt": 2}},
                add_tags=["u"],
                dry_run=True,
            ),
            does(
                "update_where",
                {"matched": 2, "changed": 2},
                filter={"value.n": {"lt": 2}},
                add_tags=["u"],
                remove_tags=["t"],
                ttl=60,
                metadata={"author": "ann"},
                namespace="a",
            ),
            does("list", {"memories": [{"key": "k0"}, {"key": "k1"}]}, tags=["u"]),
            does(
                "delete_where",
                {"matched": 0, "changed": 0},
                filter={"tags": {"contains": "t"}},
                namespace="a",
                recursive=False,
            ),
            does("delete_where", {"matched": 2, "changed": 2}, filter={"tags": {"contains": "t"}}, namespace="a"),
            fails("delete_where", "invalid_input", "filter", filter={}),
            does("stats", {"memories": 2}),
        ),
    ),
    Scenario(
        "finding",
        (
            *[
                does(
                    "store",
                    key=f"k{n}",
                    value={"said": "apple pie" if n % 2 else "cherry", "n": n},
                    namespace="acme" if n < 4 else "acme-corp",
                    metadata={"tags": ["t", f"t{n % 2}"], "importance": n + 1, "author": "ann", "session_id": "1"},
                )
                for n in range(6)
            ],
            does(
                "list",
                {"memories": [{"key": "k0"}, {"key": "k1"}, {"key": "k2"}, {"key": "k3"}], "next_cursor": None},
                namespace="acme",
            ),
            does("list", {"memories": [{"key": "k5"}, {"key": "k3"}]}, tags=["t1"], order_by="-importance", limit=2),
            does("list", {"memories": [{"key": "k0"}]}, prefix="k0"),
            # They say the same; what is more important comes first.
            does(
                "search",
                {
                    "results": [{"key": "k5"}, {"key": "k3"}, {"key": "k1"}],
                    "left_out": 0,
                    "mode": "fulltext",
                    "corrected": {},
                },
                query="pie",
            ),
            does(
                "search",
                {"results": [{"key": "k3"}]},
                query='"apple pie"',
                namespace="acme",
                importance_min=3,
                session_id="1",
                tags=["t1"],
            ),
            does("search", {"results": []}, query="apple", since="2030-01-01T00:00:00Z"),
            does("search", {"results": [{"key": "k5"}]}, query="apple", filter={"value.n": {"gte": 4}}, limit=1),
            does("search", {"results": [{"key": "k5"}], "corrected": {"aple": "apple"}}, query="aple", limit=1),
            does(
                "search",
                {"results": [{"key": "k3", "value": None, "explain": {"importance": 1.0}}, {"key": "k1"}]},
                query="apple",
                namespace="acme",
                since="1h",
                min_score=0.1,
                mode="auto",
                rank={"recency_half_life": "30d", "importance": 0},
                explain=True,
                content="none",
            ),
            fails("search", "invalid_input", "since", query="apple", since="nonsense"),
            fails("search", "invalid_input", "mode", query="apple", mode="psychic"),
            fails("search", "invalid_input", "rank.importance", query="apple", rank={"importance": 2}),
            fails("search", "semantic_unavailable", query="apple", mode="semantic"),
            does(
                "similar",
                {"results": [{"key": "k3"}], "next_cursor": None},
                key="k1",
                key_namespace="acme",
                namespace="acme",
                tags=["t1"],
            ),
            does("similar", {"results": [{"key": "k4"}]}, text="a cherry", importance_min=4),
            fails("similar", "memory_not_found", key="gone"),
            fails("similar", "empty_query", "query", text="…"),
            fails("similar", "invalid_input", "key"),
            does(
                "recall",
                {"results": [{"key": "k5", "message": 1}], "next_cursor": None, "left_out": 0},
                messages=["Hello", {"role": "user", "content": "Shall we bake a pie?"}],
                namespace="acme-corp",
                limit=3,
            ),
            does("recall", {"results": []}, messages=["Shall we bake a pie?"], exclude_session="1"),
            does(
                "recall",
                {"results": [{"key": "k3", "message": 1, "explain": {"recency": 1.0}}], "mode": "fulltext"},
                messages=["Hello", "Shall we bake a pie?"],
                namespace="acme",
                tags=["t1"],
                importance_min=3,
                since="1h",
                min_score=0.001,
                explain=True,
            ),
            does("recall", {"results": []}, messages=["Shall we bake a pie?"], min_score=0.9),
            does("recall", {"results": []}, messages=["Shall we bake a pie?"], until="2 days ago"),
            fails("recall", "semantic_unavailable", messages=["Shall we bake a pie?"], mode="semantic"),
            fails("recall", "invalid_input", "since", messages=["Shall we bake a pie?"], since="nonsense"),
            fails("recall", "empty_query", "query", messages=["…"]),
            does(
                "query",
                {"memories": [{"key": "k4"}, {"key": "k2"}], "count": 2},
                filter={"and": [{"value.said": "cherry"}, {"not": {"id": 1}}]},
                order_by="-value.n",
                count=True,
            ),
            does(
                "query",
                {"memories": [{"key": "k0", "value.n": 0, "metadata.author": "ann"}]},
                filter={"key": "k0"},
                select=["key", "value.n", "metadata.author"],
            ),
            does(
                "query",
                {"groups": [{"value": "acme", "count": 4}, {"value": "acme-corp", "count": 2}]},
                group_by="namespace",
            ),
            does("stats", {"memories": 4}, namespace="acme"),
        ),
    ),
    Scenario(
        "what says the same",
        (
            does("store", key="old", value="Deploy on Fridays only."),
            does("advance", seconds=1),
            does("store", key="new", value="deploy on fridays only"),
            does("store", key="other", value="Never deploy at night."),
            does(
                "search",
                {"results": [{"key": "new", "duplicates": 1}, {"key": "other", "duplicates": 0}], "next_cursor": None},
                query="deploy fridays",
                collapse=True,
            ),
            does(
                "search",
                {"results": [{"key": "new", "value": "deploy on fridays only"}], "left_out": 1},
                query="deploy fridays",
                collapse=True,
                max_tokens=100,
            ),
            does("recall", {"results": [{"key": "new"}]}, messages=["Fridays?"], max_tokens=100),
        ),
    ),
    Scenario(
        "namespaces",
        (
            does(
                "namespaces.create",
                {"name": "a", "config": {"default_ttl": 60.0}, "explicit": True},
                name="a",
                default_ttl=60,
            ),
            fails("namespaces.create", "already_exists", name="a"),
            does(
                "namespaces.create", {"effective": {"default_ttl": 60.0, "max_memories": 1}}, name="a/b", max_memories=1
            ),
            does(
                "store",
                {"metadata": {"expires_at": "2025-06-15T15:07:40.000000Z"}},
                key="k",
                value=1,
                namespace="a/b/c",
            ),
            fails("store", "quota_exceeded", key="l", value=1, namespace="a/b"),
            does("store", {"metadata": {"expires_at": None}}, key="k", value=1, namespace="ab"),
            does("namespaces.configure", {"config": {"default_ttl": None}}, name="a/b", default_ttl=None),
            does("namespaces.list", {"namespaces": [{"name": "a", "total_memories": 1}, {"name": "ab"}]}, depth=1),
            does("namespaces.list", {"namespaces": [{"name": "a"}, {"name": "a/b"}, {"name": "a/b/c"}]}, prefix="a"),
            fails("namespaces.delete", "namespace_not_empty", name="a"),
            does(
                "namespaces.delete",
                {"deleted": False, "memories": 1, "namespaces": 3},
                name="a",
                recursive=True,
                dry_run=True,
            ),
            does("namespaces.move", {"moved": 1}, name="a/b", to="moved"),
            does("namespaces.get", {"total_memories": 1, "namespaces": 1}, name="moved"),
            does("namespaces.delete", {"deleted": True, "memories": 1}, name="moved", recursive=True),
            fails("namespaces.get", "namespace_not_found", name="moved"),
            does("namespaces.get", {"memories": 1}, name="ab"),
        ),
    ),
    Scenario(
        "sessions",
        (
            does(
                "sessions.create",
                {"id": "1", "state": "active"},
                session_id="1",
                namespace="a",
                cluster_id="c",
                ttl=60,
                metadata={"x": [1]},
            ),
            does("sessions.create", {"id": "2"}, session_id="2", namespace="a", cluster_id="c"),
            does("store", key="k1", value=1, namespace="a", metadata={"session_id": "1"}),
            does("advance", seconds=1),
            does("store", key="k2", value=1, namespace="a", metadata={"session_id": "2"}),
            does("store", key="k1", value=1, namespace="b", metadata={"session_id": "1"}),
            does("sessions.list", {"sessions": [{"id": "2"}, {"id": "1"}]}, namespace="a", active=True),
            does("advance", seconds=1),
            does(
                "sessions.get",
                {"session": {"memories": 1}, "memories": [{"key": "k1", "namespace": "a"}]},
                session_id="1",
                namespace="a",
            ),
            does(
                "sessions.get",
                {"memories": [{"key": "k1"}, {"key": "k2"}]},
                session_id="1",
                namespace="a",
                scope="cluster",
            ),
            does("sessions.list", {"sessions": [{"id": "1"}, {"id": "2"}]}, namespace="a", active=True),
            does(
                "sessions.end",
                {"memories": "delete", "affected": 1, "session": {"state": "ended"}},
                session_id="1",
                namespace="a",
                memories="delete",
            ),
            fails("retrieve", "memory_not_found", key="k1", namespace="a"),
            does("retrieve", key="k1", namespace="b"),
            does("sessions.list", {"sessions": [{"id": "2"}]}, namespace="a", active=True),
            fails("sessions.end", "invalid_input", "memories", session_id="2", namespace="a", memories="burn"),
        ),
    ),
    Scenario(
        "the past",
        (
            does("store", {"version": 1}, key="a/b", value={"n": 1}, namespace="acme", metadata=FULL),
            does("advance", seconds=60),
            does("update", {"version": 2}, key="a/b", namespace="acme", value=2),
            does(
                "history",
                {"versions": [{"version": 2, "current": True}, {"version": 1, "current": False}], "next_cursor": None},
                key="a/b",
                namespace="acme",
            ),
            does("version", {"value": {"n": 1}, "metadata": FULL}, key="a/b", namespace="acme", version=1),
            does("retrieve", {"version": 1}, key="a/b", namespace="acme", as_of="2025-06-15T15:07:00Z"),
            fails("retrieve", "memory_not_found", key="a/b", namespace="acme", as_of="2025-06-15T15:06:39Z"),
            fails("retrieve", "invalid_input", "as_of", key="a/b", namespace="acme", as_of="then"),
            does("delete", {"version": 2}, key="a/b", namespace="acme"),
            does("restore_version", {"version": 3, "value": 2}, key="a/b", namespace="acme"),
            does("restore_version", {"version": 4, "value": {"n": 1}}, key="a/b", namespace="acme", version=1),
            fails("restore_version", "conflict", key="a/b", namespace="acme", version=4),
            fails("restore_version", "version_conflict", key="a/b", namespace="acme", expected_version=9),
            does("redact", {"versions": [1]}, key="a/b", namespace="acme", version=1),
            fails("version", "version_gone", key="a/b", namespace="acme", version=1),
            fails("restore_version", "version_gone", key="a/b", namespace="acme", version=1),
            does("redact", {"versions": [1, 2, 3, 4]}, key="a/b", namespace="acme"),
            fails("retrieve", "memory_not_found", key="a/b", namespace="acme"),
            fails("redact", "memory_not_found", key="a/b", namespace="other"),
            fails("history", "memory_not_found", key="k"),
            fails("history", "invalid_cursor", "cursor", key="a/b", namespace="acme", cursor="AAAA"),
            does(
                "changes",
                {"changes": [{"seq": 1, "kind": "store", "key": "a/b"}, {"seq": 2, "kind": "update"}], "next": 2},
                since=0,
                limit=2,
            ),
            does("changes", {"changes": []}, since=0, namespace="other"),
            fails("changes", "invalid_input", "since", since=99),
            does(
                "namespaces.create",
                {"config": {"history_keep": 0}},
                name="forgetful",
                history_keep=0,
            ),
            does("store", {"version": 1}, key="k", value=1, namespace="forgetful"),
            does("store", {"version": 2}, key="k", value=2, namespace="forgetful"),
            does("history", {"versions": [{"version": 2}]}, key="k", namespace="forgetful"),
            fails("version", "version_gone", key="k", namespace="forgetful", version=1),
        ),
    ),
    Scenario(
        "backups that are not there",
        (
            does("backups", {"backups": [], "next_cursor": None}),
            fails("get_backup", "backup_not_found", backup_id="20260102T030405Z-9f86d081"),
            fails("delete_backup", "backup_not_found", backup_id="nothing"),
            fails("restore", "backup_not_found", backup_id="20260102T030405Z-9f86d081", wait=5),
            fails("restore", "invalid_input", "namespace", backup_id="x", mode="namespace"),
        ),
    ),
    Scenario(
        "the service",
        (
            does("health", {"status": "ok", "reasons": []}),
            does("store", key="k", value=1),
            does("set_read_only", {"read_only": True, "reason": "moving"}, reason="moving"),
            does("read_only", {"read_only": True, "reason": "moving"}),
            fails("store", "read_only", key="l", value=1),
            fails("update", "read_only", key="k", value=1),
            fails("update_where", "read_only", filter={"key": "k"}, add_tags=["t"]),
            does("retrieve", {"value": 1}, key="k"),
            does("delete", {"deleted": True}, key="k"),
            does("set_read_only", {"read_only": False, "reason": None}, read_only=False),
            does("store", {"version": 2}, key="k", value=1),
            does("stats", {"memories": 1, "read_only": None}),
        ),
    ),
)
