"""Each command once for a program and once for a person, and how each failure ends."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import apsw
import pytest

from tests.cli.conftest import Ran, Run, run_command
from tests.conftest import absent
from unified_memory import __version__
from unified_memory.cli import views


# ---- memories
def test_store_and_retrieve(good: Run) -> None:
    stored = good(
        "store",
        "editor",
        '{"name": "vim", "since": 1998.50}',
        "--namespace",
        "demo",
        "--tag",
        "a",
        "--tag",
        "b",
        "--json",
    )
    assert stored.answer["metadata"]["tags"] == ["a", "b"]
    assert '"value":{"name": "vim", "since": 1998.50}' in stored.out
    assert good("store", "editor", "1", "-n", "demo").out == "Stored editor in demo: version 2\n"
    shown = good("retrieve", "editor", "--namespace", "demo").out
    assert "version     2 (id 1, warm)" in shown
    assert good("retrieve", "editor", "-n", "demo", "--json").answer["version"] == 2
    assert "content hash" in good("retrieve", "editor", "-n", "demo", "--search-index").out


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("hello world", '"hello world"'),
        ("12", "12"),
        ("1.10", "1.10"),
        ("007", '"007"'),
        ("NaN", '"NaN"'),
        ("null", "null"),
        ('"quoted"', '"quoted"'),
        ("{broken", '"{broken"'),
        ("", '""'),
    ],
)
def test_a_value_is_json_if_it_can_be(good: Run, value: str, kept: str) -> None:
    assert f'"value":{kept},' in good("store", "k", value, "--json").out


def test_text_forces_a_text(good: Run) -> None:
    assert good("store", "k", "12", "--text", "--json").answer["value"] == "12"
    assert good("retrieve", "k", "--value").out == "12\n"


def test_a_value_comes_from_a_file_or_standard_input(good: Run, tmp_path: Path) -> None:
    file = tmp_path / "value.json"
    file.write_bytes(b'{"a":  1.0}\n')
    assert '"value":{"a":  1.0},' in good("store", "k", "--file", str(file), "--json").out
    assert good("store", "k", "-", "--json", stdin=b"[1]").answer["value"] == [1]
    assert good("store", "k", "--file", "-", "--text", "--json", stdin="größe".encode()).answer["value"] == "größe"


@pytest.mark.parametrize(
    ("arguments", "stdin"),
    [
        (["store", "k"], b""),
        (["store", "k", "v", "--file", "f"], b""),
        (["store", "k", "--file", "not there"], b""),
        (["store", "k", "-"], b"\xff\xfe"),
        (["store", "k", "v", "--ttl", "soon"], b""),
        (["store", "k", "v", "--metadata", "[1]"], b""),
        (["store", "k", "v", "--metadata", "{"], b""),
        (["store", "k", "v", "--namespace", "a//b"], b""),
        (["store", "k", "v", "--importance", "11"], b""),
        (["store", "k", "v", "--importance", "high"], b""),
        (["store", "k", "\udcff"], b""),
        (["store", "k", "v", "--no-such-option"], b""),
        (["retrieve"], b""),
        (["namespaces", "create", "n", "--max-memories", "few"], b""),
        (["recall"], b""),
        (["recall"], b"no JSON\n"),
        (["recall"], b"[1]\n"),
        (["recall"], b"\xff\n"),
        (["recall"], b'{"role": "user"}\n'),
        (["recall"], b'{"content": ["parts"]}\n'),
        (["serve", "--port", "many"], b""),
        (["serve", "--max-value-bytes", "large"], b""),
        (["no-such-command"], b""),
    ],
)
def test_bad_input_ends_with_2(arguments: list[str], stdin: bytes, data_dir: Path) -> None:
    place = [] if arguments[0] == "no-such-command" else ["--data-dir", str(data_dir)]
    ran = run_command(*arguments, *place, stdin=stdin)
    assert ran.status == 2
    assert "rror" in ran.err
    assert ran.out == ""


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("5m", 300), ("1.5h", 5400), ("7d", 604_800), ("2w", 1_209_600)]
)
def test_durations_have_units(good: Run, text: str, seconds: int) -> None:
    assert good("namespaces", "create", "n", "--default-ttl", text, "--json").answer["config"]["default_ttl"] == seconds


def test_ttl_and_expiry(good: Run) -> None:
    assert "expires" in good("store", "k", "1", "--ttl", "5m").out
    assert good("update", "k", "--ttl", "none", "--json").answer["metadata"]["expires_at"] is None
    changed = good("update", "k", "--expires-at", "2999-01-01T00:00:00Z", "--json").answer
    assert changed["metadata"]["expires_at"] == "2999-01-01T00:00:00.000000Z"


def test_update_patch_and_move(good: Run) -> None:
    good("store", "k", '{"n": 1, "items": []}', "--metadata", '{"author": "ann"}', "--project", "p", "--session", "s")
    changed = good("update", "k", "--metadata", '{"author": null}', "--tag", "x", "--json").answer["metadata"]
    assert "author" not in changed
    assert (changed["tags"], changed["project_id"], changed["session_id"]) == (["x"], "p", "s")
    assert good("update", "k").out == "Updated k in default: version 3\n"
    patched = good("patch", "k", "--append", "items=1", "--append", "items=two", "--increment", "n=2.50", "--json")
    assert patched.answer["value"]["items"] in (["two"], [1, "two"])
    assert good("patch", "k", "--merge", '{"n": null}', "--json").answer["value"].keys() == {"items"}
    assert "version" in good("patch", "k", "--merge", "{}").out
    assert good("move", "k", "l", "--to-namespace", "other").out.startswith("Moved to l in other")
    assert good("move", "l", "m", "-n", "other", "--json").answer["key"] == "m"


def test_delete(good: Run) -> None:
    good("store", "k", "1")
    assert good("delete", "k", "--expected-version", "1").out == "Deleted k in default: it was at version 1\n"
    good("store", "k", "1")
    assert good("delete", "k", "--json").answer["deleted"] is True


def test_list_search_and_query(good: Run) -> None:
    good("store", "a", "the quick fox", "--tag", "x", "--importance", "9", "-n", "n")
    good("store", "b", "a fox", "-n", "n/below")
    assert [one["key"] for one in good("list", "--json").answer["memories"]] == ["a", "b"]
    assert [one["key"] for one in good("list", "-n", "n", "--no-recursive", "--json").answer["memories"]] == ["a"]
    assert "quick fox" in good("list", "--prefix", "a", "--tag", "x", "--order-by", "-id").out
    first = good("list", "--limit", "1").out
    cursor = first.split("--cursor ")[1].strip()
    assert [one["key"] for one in good("list", "--limit", "1", "--cursor", cursor, "--json").answer["memories"]] == [
        "b"
    ]
    found = good("search", "fox", "quick", "--importance-min", "8", "--json").answer["results"]
    assert [one["key"] for one in found] == ["a"]
    assert "matched in" in good("search", "fox", "--tag", "x", "--max-tokens", "1000").out
    assert "Nothing found" in good("search", "walnut").out
    assert [one["key"] for one in good("search", "--json", "--", "fox", "-quick").answer["results"]] == ["b"]
    queried = good(
        "query", '{"metadata.importance": {"gte": 5}}', "--count", "--group-by", "importance", "--json"
    ).answer
    assert queried["count"] == 2
    human = good("query", "--count", "--group-by", "importance", "--select", "key", "--order-by", "-id").out
    assert "2 in all" in human
    assert "quick" in good("query").out


def test_a_search_is_narrowed_ranked_and_explained(good: Run) -> None:
    good("store", "old", "Deploy on Fridays only.", "--importance", "1")
    good("store", "new", "deploy on fridays only")
    good("store", "other", "Never deploy at night. " * 100)
    search = ("search", "deploy", "fridays")
    assert [one["key"] for one in good(*search, "--min-score", "0.3", "--json").answer["results"]] == ["new", "old"]
    assert "Nothing found" in good(*search, "--until", "yesterday").out
    assert "fridays" in good(*search, "--since", "7d", "--mode", "fulltext").out
    told = good(*search, "--explain", "--half-life", "30d", "--importance-weight", "0.5", "--json").answer["results"]
    assert {one["key"]: one["explain"]["importance"] for one in told} == {"new": 1, "old": 0.6, "other": 1}
    words = good(*search, "--explain", "--half-life", "0.00001").out
    parts = (
        r"old: [\d.]+ = relevance [\d.]+ \(deploy [\d.]+, fridays [\d.]+\), times importance 0.92, times recency 0.5"
    )
    assert re.search(f"^{parts}$", words, re.MULTILINE), words
    collapsed = good(*search, "--collapse").out
    assert "same" in collapsed
    assert "+1" in collapsed
    assert "old" not in collapsed
    shown = good(*search, "--passages").out
    assert "other in default:\n  … Never deploy at night." in shown


def test_a_misspelt_word_is_told_with_the_one_that_was_searched_for(good: Run) -> None:
    good("store", "k", "the deployment is done")
    shown = good("search", "deploymnet").out
    assert shown.startswith("Nothing holds 'deploymnet'; searched for 'deployment'.\n")
    assert "the deployment is done" in shown


def test_what_is_found_by_its_letters_alone_says_so(good: Run) -> None:
    good("store", "k", "the deployment is done")
    assert re.search(
        r"^k: [\d.]+, found by its letters alone$", good("search", "ployme", "--explain").out, re.MULTILINE
    )


def test_similar_and_recall(good: Run) -> None:
    good("store", "a", "Ship the release on Friday", "-n", "n", "--session", "s")
    good("store", "b", "The release was shipped by ann", "-n", "n")
    good("store", "c", "Buy milk")
    assert [one["key"] for one in good("similar", "a", "--key-namespace", "n", "--json").answer["results"]] == ["b"]
    assert "Buy milk" in good("similar", "--text", "Is there milk?").out
    told = good("recall", "Good morning", "When do we ship the release?", "--json").answer["results"]
    assert [(one["key"], one["message"]) for one in told] == [("a", 1), ("b", 1)]
    shown = good("recall", "Good morning", "When do we ship the release?", "--exclude-session", "s").out
    assert "message" in shown
    assert "by ann" in shown
    assert "Friday" not in shown
    lines = b'"Good morning"\n\n{"role": "user", "content": "milk"}\n'
    (found,) = good("recall", "--limit", "3", "--max-tokens", "500", "--json", stdin=lines).answer["results"]
    assert (found["key"], found["message"]) == ("c", 1)


def test_every_option_of_search_narrows_similar_and_recall(good: Run) -> None:
    good("store", "a", "one release", "-n", "acme/web", "--tag", "t", "--importance", "9", "--session", "s")
    good("store", "b", "a release of a kind", "-n", "acme", "--project", "p")
    good("store", "c", "the third release that we shall see in all those years")
    for command in (["search", "release"], ["similar", "--text", "release"], ["recall", "release"]):
        for options, keys in {
            ("--namespace", "acme"): "ab",
            ("--namespace", "acme", "--no-recursive"): "b",
            ("--tag", "t"): "a",
            ("--importance-min", "9"): "a",
            ("--session", "s"): "a",
            ("--project", "p"): "b",
            ("--since", "1h", "--until", "2020"): "",
            ("--filter", '{"key": {"gt": "b"}}'): "c",
            ("--min-score", "0.99"): "",
            ("--limit", "2"): "ab",
            ("--mode", "fulltext"): "abc",
        }.items():
            found = good(*command, *options, "--json").answer["results"]
            assert "".join(sorted(one["key"] for one in found)) == keys, (command, options)
        tight = good(*command, "--max-tokens", "150", "--json").answer
        assert (len(tight["results"]), tight["left_out"]) == (1, 2)
        assert "2 more did not fit into --max-tokens" in good(*command, "--max-tokens", "150").out


def test_messages_come_as_lines_of_any_script(good: Run) -> None:
    good("store", "飲み物", "Buy 牛乳 🥛\x1b[31m and coffee. " + "long text " * 200)
    lines = '"牛乳?\u2028"\r\n\r\n{"role": "user", "content": "coffee 🥛", "parts": [1]}'.encode()
    (found,) = good("recall", "--json", stdin=lines).answer["results"]
    assert (found["key"], found["value"]) == ("飲み物", None)
    shown = good("recall", stdin=lines).out
    assert "飲み物 in default:\n  … Buy 牛乳 🥛\\x1b[31m and coffee." in shown


def test_a_score_of_several_messages_is_no_product_of_its_parts(good: Run) -> None:
    good("store", "k", "Ship the release")
    good("store", "other", "Eat the cake")
    assert re.search(r"^k: [\d.]+ = relevance", good("recall", "ship", "--explain").out, re.MULTILINE)
    assert re.search(r"^k: [\d.]+ from relevance", good("recall", "ship", "cake", "--explain").out, re.MULTILINE)


@pytest.mark.parametrize("semantic", ["off", "on"])
def test_a_command_that_cannot_search_by_meaning_says_who_can(
    good: Run, run: Run, semantic: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if semantic == "on" and importlib.util.find_spec("onnxruntime") is None:
        absent("The extra semantic is not installed; scripts/setup does it")
    monkeypatch.setenv("UNIFIED_MEMORY_SEMANTIC", semantic)
    good("store", "k", "v")
    for command in (["search", "v"], ["similar", "k"], ["recall", "v"]):
        ran = run(*command, "--mode", "semantic")
        assert (ran.status, ran.out) == (6, "")
        assert ("[semantic]" if semantic == "off" else "(Only a running service searches by meaning: --url") in ran.err


# ---- namespaces and sessions
def test_a_namespace_has_a_language(good: Run) -> None:
    told = good("namespaces", "create", "n", "--language", "german", "--json").answer
    assert told["effective"]["language"] == "german"
    assert good("namespaces", "configure", "n", "--language", "none", "--json").answer["config"] == {"language": "none"}


def test_namespaces(good: Run) -> None:
    assert good("namespaces", "create", "acme/web", "--description", "[bold]", "--max-bytes", "1000", "--json").answer[
        "explicit"
    ]
    assert "[bold]" in good("namespaces", "get", "acme/web").out
    assert good("namespaces", "get", "acme/web", "--json").answer["config"]["max_bytes"] == 1000
    configured = good(
        "namespaces", "configure", "acme/web", "--default-ttl", "none", "--max-memories", "3", "--json"
    ).answer
    assert configured["config"] == {"default_ttl": None, "max_memories": 3}
    assert "default_ttl  " in good("namespaces", "configure", "acme/web", "--default-ttl", "1h").out
    assert "acme/web" in good("namespaces", "list", "--prefix", "acme", "--depth", "2").out
    assert good("namespaces", "list", "--json").answer["namespaces"]
    good("store", "k", "1", "-n", "acme/web")
    assert good("namespaces", "delete", "acme/web", "--dry-run").out == "Would delete 1 namespace with 1 memory\n"
    assert good("namespaces", "delete", "acme/web", "--recursive", "--json").answer["deleted"]


def test_a_namespace_says_when_its_values_are_archived(good: Run, run: Run) -> None:
    assert good("namespaces", "create", "n", "--demote-after", "30d", "--json").answer["config"] == {
        "demote_after": 30 * 86_400
    }
    assert "demote_after  " in good("namespaces", "get", "n").out
    told = good("namespaces", "configure", "n", "--demote-after", "none", "--json").answer
    assert told["config"] == {"demote_after": None}
    assert run("namespaces", "configure", "n", "--demote-after", "soon").status == 2


def test_sessions(good: Run) -> None:
    made = good(
        "sessions", "create", "s", "--ttl", "1h", "--cluster", "c", "--metadata", '{"agent": "x"}', "--json"
    ).answer
    assert (made["id"], made["ttl"], made["cluster_id"]) == ("s", 3600, "c")
    assert "active" in good("sessions", "create", "--project", "p").out
    good("store", "k", "hello", "--session", "s")
    assert "hello" in good("sessions", "get", "s", "--scope", "cluster").out
    assert [one["key"] for one in good("sessions", "get", "s", "--json").answer["memories"]] == ["k"]
    assert "s " in good("sessions", "list", "--active").out
    assert good("sessions", "list", "--cluster", "c", "--json").answer["sessions"][0]["id"] == "s"
    assert good("sessions", "end", "s", "--memories", "delete").out == "Ended session s: 1 memory deleted\n"
    assert good("sessions", "end", "s", "--json").answer["session"]["state"] == "ended"


# ---- tiers
def test_a_namespace_goes_into_archives_and_comes_back(good: Run) -> None:
    good("store", "k", "1", "-n", "acme")
    good("store", "l", '"two"', "-n", "acme/web")
    assert good("tiers", "archive", "acme", "--dry-run").out == "Would archive 2 memories of 6 B\n"
    assert rows(good("tiers").out) == {"hot": "0 0 B", "warm": "2 6 B", "cold": "0 0 B"}
    assert good("tiers", "archive", "acme", "--no-recursive").out == "Archived 1 memory of 1 B\n"
    told = good("tiers").out
    assert rows(told) == {"hot": "0 0 B", "warm": "1 5 B", "cold": "1 1 B"}
    assert "archives  1 (" in told
    assert "1 value read from archives" in good("query", '{"value": {"gt": 0}}', "--group-by", "key").out
    assert good("tiers", "archive", "acme", "--json").answer == {
        "namespace": "acme",
        "recursive": True,
        "dry_run": False,
        "memories": 1,
        "bytes": 5,
    }
    assert good("tiers", "recall", "acme", "--dry-run").out == "Would bring back 2 memories of 6 B\n"
    assert good("tiers", "recall", "acme", "--recursive").out == "Brought back 2 memories of 6 B\n"
    assert good("tiers", "pass").out.startswith("Archived 0 memories of 0 B, compacted 2 archives from ")
    assert good("tiers", "pass", "--json").answer["compacted"] == 0
    assert good("tiers", "--json").answer["warm"] == {"memories": 2, "bytes": 6}


def rows(told: str) -> dict[str, str]:
    """The rows of the table by tier."""
    return {line.split()[0]: " ".join(line.split()[1:]) for line in told.splitlines() if line[:4] in TIERS}


TIERS = {"hot ", "warm", "cold"}


def test_all_that_is_worth_telling_of_the_tiers_is_told() -> None:
    hot = {
        "kind": "redis",
        "trusted": False,
        "trouble": "Redis does not answer",
        "note": "a note",
        "hit_ratio": "0.934",
    }
    answer = {
        "hot": {**hot, "memories": None, "bytes": None},
        "warm": {"memories": 1, "bytes": 1},
        "cold": {"memories": 2, "bytes": 2048, "archives": 0, "archive_bytes": 0, "off": "it is off"},
        "promotions": 3,
        "demotions": 0,
        "compactions": 1,
    }
    table, facts = views.tiers(answer)
    assert isinstance(table, views.Table)
    assert table.rows == [("hot", "?", "?"), ("warm", "1", "1 B"), ("cold", "2", "2.0 KiB")]
    assert isinstance(facts, views.Facts)
    assert facts.pairs == [
        ("hot copies", "redis, not read, 93% hits"),
        ("hot trouble", "Redis does not answer"),
        ("note", "a note"),
        ("no archives", "it is off"),
        ("since its start", "3 promotions, 1 compaction"),
    ]


def test_where_nothing_can_be_archived_a_command_says_so(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("store", "k", "1", "-n", "acme")
    monkeypatch.setenv("UNIFIED_MEMORY_ARCHIVE", "off")
    refused = Ran(5, "", "error: There is no cold tier: UNIFIED_MEMORY_ARCHIVE is off\n")
    assert run("tiers", "archive", "acme") == refused
    assert run("tiers", "archive", "acme", "--dry-run") == refused
    assert run("tiers", "pass") == refused
    assert "no archives" in run("tiers").out
    assert run("tiers", "recall", "nothing") == Ran(3, "", "error: Namespace not found\n")


def test_options_that_stand_before_the_command_of_a_group_are_refused() -> None:
    ran = run_command("tiers", "--url", "http://127.0.0.1:1", "archive", "acme")
    assert ran == Ran(2, "", "error: Options stand behind the command: tiers archive …\n")


# ---- the service
def test_jobs_cleanup_and_stats(good: Run) -> None:
    good("store", "k", "1", "--tag", "x")
    assert good("cleanup").out == "Removed 0 expired memories\n"
    assert good("cleanup", "--json").answer == {"expired": 0, "namespaces": {}, "purged": 0}
    jobs = good("jobs", "list", "--state", "done", "--json").answer["jobs"]
    assert len(jobs) == 2
    assert "cleanup" in good("jobs", "list").out
    assert "done" in good("jobs", "get", "--", jobs[0]["id"]).out
    assert good("jobs", "get", "--json", "--", jobs[0]["id"]).answer == jobs[0]
    assert "done" in good("jobs", "cancel", "--", jobs[0]["id"]).out
    assert good("jobs", "cancel", "--json", "--", jobs[0]["id"]).answer == jobs[0]
    assert "x (1)" in good("stats").out
    assert good("stats", "--namespace", "default", "--json").answer["memories"] == 1


def test_the_health_tells_how_far_search_by_meaning_has_come() -> None:
    meaning = {"state": "embedding", "model": "m", "embedded": 1, "waiting": 2, "held": 0, "troubles": []}
    answer = {"service": "s", "version": "1", "status": "ok", "reasons": [], "meaning": meaning}
    answer["backup"] = {"last_at": None, "verified_at": None, "verified_ok": None}
    assert views.health(answer) == "s 1: ok\nSearch by meaning: embedding, vectors of 1 of 3 memories by m"
    meaning |= {"state": "failing", "model": None, "troubles": ["No such directory"]}
    assert views.health(answer) == "s 1: ok\nSearch by meaning: failing\n  No such directory"
    for begun in (None, {**meaning, "state": "loading", "troubles": []}):
        assert views.health({**answer, "meaning": begun}) == "s 1: ok"


def test_health_and_schema(good: Run, data_dir: Path) -> None:
    assert good("schema", "--json").answer["openapi"].startswith("3.1")
    assert good("schema").out.startswith("{\n")
    assert not data_dir.exists()
    good("store", "k", "1")
    assert good("health").out == f"unified-memory {__version__}: ok\n"
    assert good("health", "--json").answer["status"] == "ok"


def test_read_only(good: Run, run: Run) -> None:
    good("store", "k", "1")
    assert good("read-only", "on", "--reason", "upgrade").out == "Read-only: upgrade\n"
    refused = run("store", "k", "2")
    assert refused == Ran(5, "", "error: The service is read-only: upgrade (Deletes still work)\n")
    assert good("read-only", "--json").answer == {"read_only": True, "reason": "upgrade"}
    good("delete", "k")
    assert good("read-only", "off").out == "Writes are on\n"
    assert good("read-only", "status").out == "Writes are on\n"


def test_settings(good: Run, data_dir: Path) -> None:
    told = {one["name"]: one for one in good("settings", "--json").answer}
    assert told["data_dir"]["value"] == str(data_dir)
    assert told["port"] == {
        "name": "port",
        "variable": "UNIFIED_MEMORY_PORT",
        "kind": "int",
        "value": told["port"]["value"],
        "default": 3200,
        "help": told["port"]["help"],
    }
    assert "UNIFIED_MEMORY_PORT" in good("settings").out
    assert not data_dir.exists()


def test_check_ends_with_0_only_when_all_is_right(good: Run, run: Run, data_dir: Path) -> None:
    good("store", "k", "walnut")
    assert good("check").out == "Everything is as it should be\n"
    assert good("check", "--json").answer == {"clean": True, "problems": []}
    with apsw.Connection(str(data_dir / "unified-memory.db")) as connection:
        connection.execute("UPDATE search_index SET content_hash = zeroblob(32)")
    connection.close()
    wrong = run("check", "--json")
    assert wrong.status == 1
    assert [one["fixed"] for one in wrong.answer["problems"]] == [False]
    assert "1 problem, 0 fixed" in run("check").out
    assert "1 problem, 1 fixed" in good("check", "--fix").out
    assert good("check").out == "Everything is as it should be\n"


# ---- failures
@pytest.mark.parametrize(
    "command", [["retrieve", "k"], ["list"], ["search", "x"], ["stats"], ["check"], ["health"], ["cleanup"], ["tiers"]]
)
def test_a_data_directory_that_is_not_there_is_no_empty_one(run: Run, data_dir: Path, command: list[str]) -> None:
    ran = run(*command)
    assert (ran.status, ran.out) == (3, "")
    assert ran.err.startswith(f"error: There is no database at {data_dir}")
    assert ran.err.count("\n") == 1
    assert not data_dir.exists()


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (["retrieve", "nothing"], 3, "error: Memory not found\n"),
        (["namespaces", "get", "nothing"], 3, "error: Namespace not found\n"),
        (["sessions", "get", "nothing"], 3, "error: Session not found\n"),
        (["jobs", "get", "nothing"], 3, "error: Job not found\n"),
        (["store", "k", "1", "--expected-version", "7"], 4, "error: The memory is at version 1, not 7 ("),
        (["store", "k", "1", "--create-only"], 4, "error: "),
        (["delete", "k", "--expected-version", "7"], 4, "error: The memory is at version 1, not 7 ("),
        (["namespaces", "delete", "default"], 4, "error: The namespace holds 1 memories"),
        (["list", "--cursor", "nonsense"], 2, "error: "),
        (["search", ""], 2, "error: "),
        (["search", "k", "--since", "nonsense"], 2, "error: since names no time"),
        (["search", "k", "--half-life", "soon"], 2, "error: rank.recency_half_life is no duration"),
        (["search", "k", "--half-life", "nan"], 2, "error: rank.recency_half_life is no duration"),
        (["search", "k", "--half-life", "-5"], 2, "error: rank.recency_half_life must be a time"),
        (["search", "k", "--min-score", "nan"], 2, "error: min_score is not JSON"),
        (["search", "k", "--max-tokens", "0"], 2, "error: max_tokens must be at least 1"),
        (["similar", "--text", "…"], 2, "error: The query holds nothing to search for"),
        (["similar", "k", "--until", "nonsense"], 2, "error: until names no time"),
        (["recall", "k", "--since", "nonsense"], 2, "error: since names no time"),
        (["recall", "k", "--mode", "psychic"], 2, "error: mode must be one of"),
        (["recall", "k", "--limit", "0"], 2, "error: limit must be from 1 to 1000"),
        (["search", "k", "--importance-weight", "2"], 2, "error: rank.importance must be from 0 to 1"),
        (["search", "k", "--mode", "psychic"], 2, "error: mode must be one of"),
        (["similar", "nothing"], 3, "error: Memory not found\n"),
        (["similar"], 2, "error: key or text must be given\n"),
        (["similar", "k", "--text", "t"], 2, "error: Either key or text is given"),
        (["recall", "…"], 2, "error: The query holds nothing to search for"),
    ],
)
def test_a_failure_is_one_line_and_a_status(good: Run, run: Run, command: list[str], status: int, said: str) -> None:
    good("store", "k", "1")
    for more in ([], ["--json"]):
        ran = run(*command, *more)
        assert (ran.status, ran.out) == (status, "")
        assert ran.err.startswith(said)
        assert ran.err.count("\n") == 1


def test_a_directory_that_cannot_be_one_ends_with_6(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    ran = run_command("store", "k", "1", "--data-dir", str(tmp_path / "file"))
    assert ran.status == 6


def test_a_service_that_is_not_there_ends_with_6() -> None:
    ran = run_command("retrieve", "k", "--url", "http://127.0.0.1:1")
    assert (ran.status, ran.out) == (6, "")
    assert ran.err.startswith("error: http://127.0.0.1:1 does not answer")


def test_a_url_and_a_data_directory_exclude_each_other(run: Run) -> None:
    assert run("retrieve", "k", "--url", "http://127.0.0.1:3200").status == 2
    assert run_command("retrieve", "k", "--url", "nonsense").status == 2


def test_serving_to_others_without_keys_ends_with_5(run: Run, data_dir: Path) -> None:
    ran = run("serve", "--host", "0.0.0.0", "--port", "0", "--no-allow-anonymous")  # noqa: S104 - it is refused
    assert ran.status == 5
    assert ran.err.startswith("error: ")
    assert not data_dir.exists()


# ---- what reaches the terminal
def test_stored_text_does_not_steer_the_terminal(good: Run) -> None:
    nasty = "a\x1b]0;owned\x07\x1b[2Jb\u202ec\x9b1m"
    good("store", nasty, nasty, "--tag", nasty)
    for command in (
        ["list"],
        ["retrieve", nasty],
        ["retrieve", nasty, "--value"],
        ["search", "owned"],
        ["delete", nasty],
    ):
        shown = good(*command).out
        assert not {"\x1b", "\x07", "\u202e", "\x9b"} & set(shown)
        assert "\\x1b]0;owned\\x07" in shown


def test_markup_in_stored_text_is_text(good: Run) -> None:
    good("store", "[red]k[/red]", "[bold]v :smile:")
    assert "[red]k[/red]" in good("list").out
    assert "[bold]v :smile:" in good("retrieve", "[red]k[/red]").out


def test_a_number_is_shown_with_its_digits(good: Run) -> None:
    numbers = "[1.10,1e400," + "1" * 5000 + "]"
    good("store", "k", numbers)
    assert "".join(good("retrieve", "k", "--value").out.split()) == numbers
    assert "[1.10,1e400,1" in good("list").out


def test_a_long_key_is_shown_whole(good: Run) -> None:
    key = "k" * 200
    good("store", key, "v" * 500)
    assert key in good("list").out


# ---- the program
def test_the_version_is_told() -> None:
    assert run_command("--version") == Ran(0, f"unified-memory {__version__}\n", "")


def test_the_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "unified_memory", "--version"], check=True, capture_output=True, text=True
    )
    assert done.stdout == f"unified-memory {__version__}\n"


def test_a_reader_that_leaves_is_no_error(good: Run, data_dir: Path) -> None:
    good("store", "k", "x" * 200_000)
    command = [sys.executable, "-m", "unified_memory", "retrieve", "k", "--json", "--data-dir", str(data_dir)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.read(1)
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()


LOADED = """
import sys
from unified_memory.cli import main
try:
    main()
finally:
    print(*sys.modules, file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("arguments", "unneeded"),
    [
        (["--help"], {"apsw", "starlette", "uvicorn", "httpx2", "rich", "asyncio", "unified_memory.client"}),
        (["store", "--help"], {"apsw", "starlette", "uvicorn", "httpx2", "rich", "asyncio", "unified_memory.client"}),
        (["health", "--url", "http://127.0.0.1:1"], {"apsw", "starlette", "uvicorn", "rich", "unified_memory.storage"}),
        (["settings", "--json"], {"apsw", "starlette", "uvicorn", "httpx2", "rich"}),
    ],
)
def test_a_command_loads_only_what_it_needs(arguments: list[str], unneeded: set[str]) -> None:
    done = subprocess.run([sys.executable, "-c", LOADED, *arguments], check=False, capture_output=True, text=True)
    assert unneeded & set(done.stderr.split()) == set()
    assert "typer" in done.stderr.split()
