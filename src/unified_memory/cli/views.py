"""What a person sees of an answer, as plain data; `terminal` draws it.

Answers come as `model.value.parse` leaves them: numbers with a fraction are the text that came.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from unified_memory.model.value import encode

PREVIEW_CHARS = 120
# The parts of a score come rounded to four digits.
ROUNDING = 0.001
SECONDS_CHARS = len("2026-01-02T03:04:05")
KIB = 1024
# C0 but newline and tab, DEL, C1, and what turns the direction of text: none of it may steer a terminal.
_STEERING = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"} | {
    code: f"\\u{code:04x}" for code in (0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
}


class Table(Struct):
    """Rows under names. `wide`: the column that gives way where the terminal is narrow."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    wide: str | None = None


class Facts(Struct):
    """Names and what they are, and below them a body."""

    pairs: list[tuple[str, str]]
    body: str | None = None


View = Table | Facts | str


def visible(text: str) -> str:
    """The text with characters that would steer a terminal written as escapes."""
    # A lone surrogate cannot be printed at all.
    return text.translate(_STEERING).encode("utf-8", "backslashreplace").decode()


def text_of(value: Any) -> str:
    """Any JSON in one line; texts without quotes, nothing for null."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    return bytes(value).decode() if isinstance(value, Raw) else encode(value).decode()


def preview(value: Any) -> str:
    """The beginning of a value in one line."""
    text = " ".join(text_of(value).split())
    return text if len(text) <= PREVIEW_CHARS else text[: PREVIEW_CHARS - 1] + "…"


def whole(value: Any) -> str:
    """A value with every detail; texts without quotes."""
    if isinstance(value, str):
        return value
    return msgspec.json.format(encode(value), indent=2).decode()


def moment(instant: str | None) -> str:
    """An instant to the second."""
    return "" if instant is None else instant[:SECONDS_CHARS].replace("T", " ") + "Z"


def size(count: int) -> str:
    """A number of bytes for people: `12.3 KiB`."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < KIB:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= KIB
    return f"{amount:.1f} TiB"


def many(count: int, one: str = "memory", more: str = "memories") -> str:
    """A number of things: `1 memory`, `2 memories`."""
    return f"{count} {one if count == 1 else more}"


def _more(answer: Any) -> list[View]:
    cursor = answer.get("next_cursor")
    return [f"There are more: --cursor {cursor}"] if cursor else []


def _named(record: Any) -> str:
    return f"{record['key']} in {record['namespace']}"


# ---- memories
def record(answer: Any) -> Facts:
    """A whole record."""
    metadata = dict(answer["metadata"])
    pairs = [
        ("key", answer["key"]),
        ("namespace", answer["namespace"]),
        ("version", f"{answer['version']} (id {answer['id']}, {answer['tier']})"),
        ("created", moment(metadata.pop("created_at"))),
        ("updated", moment(metadata.pop("updated_at"))),
        ("expires", moment(metadata.pop("expires_at")) or "never"),
        ("accessed", f"{metadata.pop('access_count')} times, last {moment(metadata.pop('last_accessed')) or 'never'}"),
        ("tags", ", ".join(metadata.pop("tags"))),
        *((name, preview(value)) for name, value in metadata.items()),
    ]
    index = answer.get("search_index")
    if index is not None:
        pairs += [("content hash", index["content_hash"]), ("keywords", ", ".join(index["keywords"]))]
    return Facts([(name, text) for name, text in pairs if text], whole(answer["value"]))


def value(answer: Any) -> str:
    """The value of a record alone."""
    return whole(answer["value"])


def stored(answer: Any) -> str:
    """That a record was stored."""
    expires = answer["metadata"]["expires_at"]
    return f"Stored {_named(answer)}: version {answer['version']}" + (f", expires {moment(expires)}" if expires else "")


def updated(answer: Any) -> str:
    """That a record was changed."""
    return f"Updated {_named(answer)}: version {answer['version']}"


def deleted(answer: Any) -> str:
    """That a record was deleted."""
    return f"Deleted {_named(answer)}: it was at version {answer['version']}"


def moved(answer: Any) -> str:
    """What was moved."""
    if "moved" in answer:
        return f"Moved {many(answer['moved'])}"
    return f"Moved to {_named(answer)}: version {answer['version']}"


def memories(answer: Any) -> list[View]:
    """A page of memories."""
    rows = [
        (
            one["namespace"],
            one["key"],
            preview(one["value"]),
            ", ".join(one["metadata"]["tags"]),
            moment(one["metadata"]["updated_at"]),
        )
        for one in answer["memories"]
    ]
    return [Table(("namespace", "key", "value", "tags", "updated"), rows, wide="value"), *_more(answer)]


def hits(answer: Any) -> list[View]:
    """What a search found. Below it what each score is made of, and the passages, of those that tell them."""
    found = answer["results"]
    columns: dict[str, Callable[[Any], str]] = {
        "score": lambda one: _score(one["score"]),
        "namespace": lambda one: str(one["namespace"]),
        "key": lambda one: str(one["key"]),
        "snippet": lambda one: preview(one["snippet"]),
        "matched in": lambda one: ", ".join(one["matched"]),
    }
    if any(one.get("duplicates") for one in found):
        columns["same"] = lambda one: f"+{one['duplicates']}" if one["duplicates"] else ""
    if any("message" in one for one in found):
        columns["message"] = lambda one: str(one["message"] + 1)
    left_out = answer.get("left_out")
    explained = [f"{one['key']}: {explanation(one)}" for one in found if "explain" in one]
    return [
        *(f"Nothing holds {word!r}; searched for {other!r}." for word, other in answer["corrected"].items()),
        Table(tuple(columns), [tuple(cell(one) for cell in columns.values()) for one in found], wide="snippet"),
        *(["\n".join(explained)] if explained else []),
        *(_passages(one) for one in found if "passages" in one),
        *([f"{left_out} more did not fit into --max-tokens"] if left_out else []),
        *_more(answer),
    ]


def explanation(hit: Any) -> str:
    """What a score is made of, in one line."""
    parts = hit["explain"]
    if "literal" in parts:
        return f"{_score(hit['score'])}, found by its letters alone"
    words = ", ".join(f"{word} {_score(share)}" for word, share in parts["terms"].items())
    product = math.prod(float(text_of(parts[name])) for name in ("relevance", "importance", "recency"))
    # Meaning, several messages and near-duplicates make the score in ways of their own.
    makes = "=" if abs(product - float(text_of(hit["score"]))) < ROUNDING else "from"
    told = f"{_score(hit['score'])} {makes} relevance {_score(parts['relevance'])}" + (f" ({words})" if words else "")
    told += "".join(
        f", {name} {_score(parts[name])}"
        for name in ("context", "date", "cosine")
        if float(text_of(parts.get(name, 0)))
    )
    return told + "".join(
        f", times {name} {_score(parts[name])}"
        for name in ("importance", "recency")
        if float(text_of(parts[name])) != 1
    )


def _score(number: Any) -> str:
    return f"{float(text_of(number)):.3g}"


def _passages(hit: Any) -> str:
    return "\n  … ".join([f"{_named(hit)}:", *(" ".join(one["text"].split()) for one in hit["passages"])])


def queried(answer: Any) -> list[View]:
    """What a query found: memories or rows of fields, count, groups."""
    found = answer["memories"]
    shown: list[View] = []
    if found and "metadata" in found[0] and "value" in found[0]:
        shown = memories(answer)
    else:
        columns = tuple(dict.fromkeys(name for row in found for name in row))
        if found:
            shown.append(Table(columns, [tuple(preview(row.get(name)) for name in columns) for row in found]))
        shown += _more(answer)
    if answer.get("groups") is not None:
        rows = [(preview(group["value"]), str(group["count"])) for group in answer["groups"]]
        shown.append(Table(("value", "count"), rows))
    if "count" in answer:
        shown.append(f"{answer['count']} in all")
    if "cold_read" in answer:
        shown.append(f"{many(answer['cold_read'], 'value', 'values')} read from archives")
    return shown or [Table((), [])]


# ---- history
def versions(answer: Any) -> list[View]:
    """A page of versions."""
    rows = [
        (str(one["version"]), moment(one["at"]), moment(one["ended_at"]), size(one["bytes"]), _kept(one))
        for one in answer["versions"]
    ]
    return [Table(("version", "written", "replaced", "bytes", ""), rows), *_more(answer)]


def _kept(head: Any) -> str:
    if head["current"]:
        return "current"
    if head["redacted_at"] is not None:
        return f"redacted {moment(head['redacted_at'])}"
    return "" if head["kept"] else "no longer kept"


def version_restored(answer: Any) -> str:
    """That a former version is current again."""
    return f"Restored {_named(answer)}: now at version {answer['version']}"


def redacted(answer: Any) -> str:
    """What was taken out."""
    told = ", ".join(map(str, answer["versions"]))
    return f"Redacted {_named(answer)}: {'version' if len(answer['versions']) == 1 else 'versions'} {told}"


def change(one: Any) -> str:
    """A change in one line."""
    named = one["namespace"] if one["key"] is None else f"{one['namespace']}  {one['key']}  version {one['version']}"
    return f"{one['seq']}  {moment(one['at'])}  {one['kind']}  {named}"


def changes(answer: Any) -> list[View]:
    """Some changes, and how to go on."""
    rows = [
        (str(one["seq"]), moment(one["at"]), one["kind"], one["namespace"], one["key"] or "", text_of(one["version"]))
        for one in answer["changes"]
    ]
    shown = Table(("place", "when", "what", "namespace", "key", "version"), rows)
    return [shown, f"Behind these: --since {answer['next']}"]


# ---- out and in
def exported(answer: Any) -> str:
    """What was written."""
    return f"Wrote {many(answer['lines'], 'line', 'lines')} ({size(answer['bytes'])}) to {answer['file']}"


def imported(answer: Any) -> list[View]:
    """What came of an import."""
    counts = ", ".join(f"{answer[name]} {name}" for name in ("stored", "replaced", "skipped", "failed"))
    shown: list[View] = [f"Read {many(answer['read'], 'line', 'lines')}: {counts}"]
    if answer["errors"]:
        rows = [(str(one["line"]), one["code"], one["detail"]) for one in answer["errors"]]
        shown.append(Table(("line", "error", "detail"), rows, wide="detail"))
    return shown


# ---- backups
def backup_made(answer: Any) -> str:
    """That a backup was made."""
    told = f"Made the backup {answer['id']}: {many(answer['memories'])}, {size(answer['bytes'])}"
    since = "" if answer["parent"] is None else f", what changed since {answer['parent']}"
    return f"{told}{since}" + ("" if answer["verified"] is None else f", {_proven(answer['verified'])}")


def _proven(verified: Any) -> str:
    if verified is None:
        return "never"
    return f"{'whole' if verified['ok'] else 'DAMAGED'} {moment(verified['at'])}"


def backups(answer: Any) -> list[View]:
    """All backups."""
    rows = [
        (
            one["id"],
            one["kind"] if one["parent"] is None else f"since {one['parent']}",
            one["reason"],
            str(one["memories"]),
            size(one["bytes"]),
            _proven(one["verified"]).partition(" ")[0],
            one["note"] or "",
        )
        for one in answer["backups"]
    ]
    # The id begins with the instant.
    columns = ("id", "what", "reason", "memories", "bytes", "verified", "note")
    return [Table(columns, rows, wide="note")]


def backup(answer: Any) -> list[View]:
    """A backup and its files."""
    counts = answer["namespaces"]
    verified = answer["verified"]
    pairs = [
        ("backup", answer["id"]),
        ("instant", moment(answer["created_at"])),
        ("what", answer["kind"]),
        ("since", answer["parent"] or ""),
        ("reason", answer["reason"]),
        ("note", answer["note"] or ""),
        ("memories", f"{answer['memories']} (values of {size(answer['raw_bytes'])})"),
        ("files", size(answer["bytes"])),
        ("encrypted", "yes" if answer["encrypted"] else "no"),
        ("place in the commit order", str(answer["seq"])),
        ("store", f"{answer['store']} (schema {answer['schema']}, {answer['program']})"),
        ("namespaces", "" if counts is None else ", ".join(f"{name} ({n})" for name, n in counts.items())),
        ("verified", _proven(verified)),
        ("damage", "" if verified is None else verified["detail"] or ""),
    ]
    rows = [
        (one["name"], one["kind"], str(one["records"]), size(one["raw_bytes"]), size(one["bytes"]), one["sha256"])
        for one in answer["parts"]
    ]
    files = Table(("file", "kind", "records", "bytes inside", "bytes", "sha256"), rows, wide="sha256")
    return [Facts([(name, text) for name, text in pairs if text]), files]


def backup_deleted(answer: Any) -> str:
    """That a backup was deleted."""
    return f"Deleted the backup {answer['id']} of {moment(answer['created_at'])} ({size(answer['bytes'])})"


def verified(answer: Any) -> str:
    """What a verification came to."""
    return (
        f"The backup {answer['backup_id']} is whole: {many(answer['memories'])} restored aside and compared "
        f"in {float(text_of(answer['seconds'])):.1f} seconds"
    )


def restored(answer: Any) -> list[View]:
    """What a restore did, or would do."""
    rows = [
        (one["namespace"], *(str(one[name]) for name in _DIFFERENCES), _samples(one["samples"]))
        for one in answer["differences"]
    ]
    shown: list[View] = [Table(("namespace", *_DIFFERENCES, "such as"), rows, wide="such as")] if rows else []
    counts = ", ".join(f"{answer[name]} {name}" for name in _DIFFERENCES)
    did = "A restore of" if answer["dry_run"] else "Restored"
    safety = answer["safety_backup"]
    before = "" if safety is None else f"\nWhat was there before: {safety}"
    return [*shown, f"{did} {answer['used']}: {counts}{before}"]


_DIFFERENCES = ("added", "changed", "removed", "same")


def _samples(samples: Any) -> str:
    return "; ".join(f"{name}: {', '.join(keys)}" for name, keys in samples.items() if keys)


# ---- migration
_CAME = (
    ("copied", "copied"),
    ("changed", "changed"),
    ("same", "as before"),
    ("removed", "removed"),
    ("quarantined", "quarantined"),
    ("noted", "odd"),
    ("skipped", "left there"),
    ("conflicts", "in conflict"),
    ("renumbered", "renumbered"),
)


def migration_plan(answer: Any) -> list[View]:
    """What a migration would do."""
    shown: list[View] = [
        f"Found {kind} at its usual place: --source {kind}={location}" for kind, location in answer["found"]
    ]
    if not (shown or answer["sources"]):
        shown.append("No older service lies at its usual place: name one with --source KIND=LOCATION")
    for one in answer["sources"]:
        survey = one["survey"]
        records = "records" if survey["records"] is None else many(survey["records"], "record", "records")
        length = "" if survey["bytes"] is None else f" in {size(survey['bytes'])}"
        lines = [f"{survey['kind']} {survey['location']}: {records}{length}"]
        lines += [f"  {name or '(no name)'}: {count}" for name, count in survey["projects"].items()]
        lines += [f"  {remark}" for remark in survey["remarks"]]
        looked_at = one["looked_at"]
        told = ", ".join(f"{looked_at[name]} {word}" for name, word in _CAME if looked_at[name])
        lines.append(f"  Of the first {looked_at['read']} would be: {told or 'none'}")
        shown.append("\n".join(lines))
        if one["first"]:
            shown.append(_first(one["first"]))
        shown += _conflicts(one["conflicts"])
    room = [] if answer["needed_bytes"] is None else [f"It takes about {size(answer['needed_bytes'])}"]
    room += [] if answer["free_bytes"] is None else [f"{size(answer['free_bytes'])} are free"]
    return [*shown, *([", ".join(room)] if room else []), f"Phase: {answer['phase']}"]


def _project(name: str | None) -> str:
    return "(no project)" if name is None else name or "(no name)"


def _first(records: Any) -> Table:
    rows = [
        (
            one["origin"],
            one["namespace"],
            one["key"],
            preview(one["value"]),
            str(one["importance"]),
            ", ".join(one["tags"]),
            moment(one["created_at"]),
        )
        for one in records
    ]
    return Table(("record", "namespace", "key", "value", "importance", "tags", "created"), rows, wide="value")


def _conflicts(conflicts: Any) -> list[View]:
    if not conflicts:
        return []
    rows = [(one["source"], one["origin"], one["reason"]) for one in conflicts]
    return [Table(("source", "not written", "since"), rows, wide="since")]


def migration_report(answer: Any) -> list[View]:
    """What a run came to."""
    rows = [
        (
            source["kind"],
            _project(project["project"]),
            str(project["counts"]["read"]),
            ", ".join(f"{project['counts'][name]} {word}" for name, word in _CAME if project["counts"][name]),
        )
        for source in answer["sources"]
        for project in source["projects"]
    ]
    shown: list[View] = [Table(("source", "project", "records", "of these"), rows, wide="of these")] if rows else []
    if answer["dry_run"] and answer["first"]:
        shown.append(_first(answer["first"]))
    shown += _conflicts(answer["conflicts"])
    if answer["renumbered"]:
        numbers = [(one["origin"], one["former"], str(one["number"])) for one in answer["renumbered"]]
        shown.append(Table(("record", "was", "is known here as"), numbers))
    if not answer["dry_run"] and any(
        source["counts"][name] for source in answer["sources"] for name in ("quarantined", "noted")
    ):
        shown.append(
            "What is quarantined or odd stands in migration/quarantine.jsonl in the data directory, with the reason"
        )
    did = "Would copy" if answer["dry_run"] else "Read"
    end = "" if answer["complete"] else " It ended before its end: run it again."
    point = answer["rollback_point"]
    return [
        *shown,
        f"{did} {many(answer['records'], 'record', 'records')} in {float(text_of(answer['seconds'])):.1f} seconds, phase: "
        f"{answer['phase']}.{end}" + ("" if point is None else f"\nRollback point: {point}"),
    ]


def migration_status(answer: Any) -> list[View]:
    """How far a migration has come."""
    pairs = [
        ("phase", answer["phase"] + (f", since {moment(answer['since'])}" if answer["since"] else "")),
        ("copied once to the end", "yes" if answer["complete"] else "no"),
        ("copying now", answer["run"] or ""),
        ("written back", str(answer["returned"]) if answer["returned"] else ""),
        ("rollback point", answer["rollback_point"] or ""),
        ("proxies", "; ".join(_proxy(one) for one in answer["proxies"])),
    ]
    shown: list[View] = [Facts([(name, text) for name, text in pairs if text])]
    if answer["sources"]:
        columns = ("copied", "quarantined", "conflicts", "skipped")
        rows = [(one["kind"], one["location"], *(str(one[name]) for name in columns)) for one in answer["sources"]]
        shown.append(Table(("source", "location", *columns), rows))
    if answer["comparisons"]:
        rows = [
            (one["service"], one["tool"], str(one["same"]), str(one["other"]), preview(one["sample"]))
            for one in answer["comparisons"]
        ]
        shown.append(Table(("service", "asked", "same", "different", "such as"), rows, wide="such as"))
    return shown


def _proxy(one: Any) -> str:
    return f"{one['service']} (process {one['pid']}, {one['phase'] or 'not yet there'})"


def migration_verified(answer: Any) -> list[View]:
    """Whether what was copied is as in its sources."""
    columns = ("there", "here", "same")
    rows = [
        (source["kind"], _project(project["project"]), *(str(project[name]) for name in columns))
        for source in answer["sources"]
        for project in source["projects"]
    ]
    shown: list[View] = [Table(("source", "project", *columns), rows)] if rows else []
    if answer["differences"]:
        different = [(one["source"], one["origin"], one["what"]) for one in answer["differences"]]
        shown.append(Table(("source", "record", "differs in"), different))
    replay = answer["replay"]
    if replay is not None:
        shown.append(f"Asked both {many(replay['asked'], 'time', 'times')}: {replay['same']} answered alike")
        asked = [
            (one["tool"], text_of(one["arguments"]), preview(one["older"]), preview(one["ours"]))
            for one in replay["differences"]
        ]
        shown += [Table(("asked", "with", "the older service", "this one"), asked)] if asked else []
    whole = "Everything is as in its sources" if answer["ok"] else "Not everything is as in its sources"
    return [*shown, f"{whole} (compared in {float(text_of(answer['seconds'])):.1f} seconds)"]


def migration_rolled_back(answer: Any) -> list[View]:
    """What going back came to."""
    returned = answer["returned"]
    told = f"The older services answer again. {many(returned)} written back, {answer['verified']} of them found there as here"
    pairs = [
        ("rollback point", answer["backup_used"] or ""),
        ("written back", answer["returned_file"] or "" if returned else ""),
        ("not held whole by the older format", str(answer["lost"]) if answer["lost"] else ""),
        ("put back here", answer["restored"] or ""),
    ]
    facts = [(name, text) for name, text in pairs if text]
    return [told, *([Facts(facts)] if facts else [])]


def migration_finished(answer: Any) -> list[View]:
    """How a migration ended."""
    last = [("last copy", path) for path in answer["backups"]] + [("not copied", why) for why in answer["kept"]]
    told = "The migration is finished. What the older services still have would be removed by (look before you do it):"
    return [*([Facts(last)] if last else []), "\n".join([told, *(f"  {one}" for one in answer["commands"])])]


# ---- namespaces
def _settings(settings: Any) -> list[tuple[str, str]]:
    return [(name, "none" if told is None else text_of(told)) for name, told in settings.items()]


def namespace(answer: Any) -> Facts:
    """A namespace with its settings."""
    own = answer["config"]
    pairs = [
        ("namespace", answer["name"]),
        ("created", moment(answer["created_at"])),
        ("memories", f"{answer['memories']} ({size(answer['bytes'])})"),
        ("with those below", f"{answer['total_memories']} ({size(answer['total_bytes'])})"),
        ("namespaces below", str(answer["namespaces"])),
        *_settings(own),
        *((f"{name} (inherited)", told) for name, told in _settings(answer["effective"]) if name not in own),
    ]
    return Facts(pairs)


def namespaces(answer: Any) -> list[View]:
    """A page of namespaces."""
    rows = [
        (
            one["name"],
            str(one["memories"]),
            size(one["bytes"]),
            str(one["total_memories"]),
            ", ".join(f"{name} {told}" for name, told in _settings(one["config"])),
        )
        for one in answer["namespaces"]
    ]
    return [Table(("name", "memories", "bytes", "with those below", "settings"), rows, wide="settings"), *_more(answer)]


def namespace_deleted(answer: Any) -> str:
    """What went with a namespace, or would go."""
    told = f"{many(answer['namespaces'], 'namespace', 'namespaces')} with {many(answer['memories'])}"
    return f"Would delete {told}" if answer["dry_run"] else f"Deleted {told}"


# ---- sessions
def session(answer: Any) -> Facts:
    """A session."""
    pairs = [
        ("session", answer["id"]),
        ("namespace", answer["namespace"]),
        ("state", answer["state"]),
        ("memories", str(answer["memories"])),
        ("cluster", answer["cluster_id"] or ""),
        ("project", answer["project_id"] or ""),
        ("ttl", text_of(answer["ttl"])),
        ("created", moment(answer["created_at"])),
        ("last used", moment(answer["last_used"])),
        ("expires", moment(answer["expires_at"])),
        ("ended", moment(answer["ended_at"])),
        *((name, preview(told)) for name, told in answer["metadata"].items()),
    ]
    return Facts([(name, text) for name, text in pairs if text])


def session_memories(answer: Any) -> list[View]:
    """A session and a page of its memories."""
    return [session(answer["session"]), *memories(answer)]


def sessions(answer: Any) -> list[View]:
    """A page of sessions."""
    rows = [
        (
            one["id"],
            one["namespace"],
            one["state"],
            str(one["memories"]),
            one["cluster_id"] or "",
            moment(one["last_used"]),
        )
        for one in answer["sessions"]
    ]
    return [Table(("id", "namespace", "state", "memories", "cluster", "last used"), rows), *_more(answer)]


def session_ended(answer: Any) -> str:
    """That a session was ended."""
    done = {"delete": "deleted", "expire": "expired"}.get(answer["memories"])
    return f"Ended session {answer['session']['id']}" + (f": {many(answer['affected'])} {done}" if done else "")


# ---- tiers
_MOVES = ("promotions", "demotions", "compactions")


def tiers(answer: Any) -> list[View]:
    """What lies in which tier, and below it what is worth telling of each."""
    hot, cold = answer["hot"], answer["cold"]
    rows = [
        (name, text_of(one["memories"]) or "?", "?" if one["bytes"] is None else size(one["bytes"]))
        for name, one in (("hot", hot), ("warm", answer["warm"]), ("cold", cold))
    ]
    read = "read" if hot["trusted"] else "not read"
    hits = "" if hot["hit_ratio"] is None else f", {float(text_of(hot['hit_ratio'])):.0%} hits"
    pairs = [
        ("hot copies", "" if hot["kind"] == "none" else f"{hot['kind']}, {read}{hits}"),
        ("hot trouble", hot["trouble"] or ""),
        ("note", hot["note"] or ""),
        ("archives", f"{cold['archives']} ({size(cold['archive_bytes'])})" if cold["archives"] else ""),
        ("no archives", cold["off"] or ""),
        ("since its start", ", ".join(many(answer[name], name[:-1], name) for name in _MOVES if answer[name])),
    ]
    facts = [(name, text) for name, text in pairs if text]
    return [Table(("tier", "memories", "bytes"), rows), *([Facts(facts)] if facts else [])]


def archived(answer: Any) -> str:
    """What went into archives, or would go."""
    return _moved(answer, "archive", "Archived")


def recalled(answer: Any) -> str:
    """What came back from archives, or would come."""
    return _moved(answer, "bring back", "Brought back")


def _moved(answer: Any, would: str, did: str) -> str:
    told = f"{many(answer['memories'])} of {size(answer['bytes'])}"
    return f"Would {would} {told}" if answer["dry_run"] else f"{did} {told}"


def tier_pass(answer: Any) -> str:
    """What a pass did."""
    demoted, compacted = answer["demoted"], answer["compacted"]
    told = f"Archived {many(demoted['memories'])} of {size(demoted['bytes'])}"
    if not compacted:
        return told
    before, after = size(answer["bytes_before"]), size(answer["bytes_after"])
    return f"{told}, compacted {many(compacted, 'archive', 'archives')} from {before} to {after}"


# ---- the service
def job(answer: Any) -> Facts:
    """A job."""
    pairs = [
        ("job", answer["id"]),
        ("kind", answer["kind"]),
        ("namespace", answer["namespace"]),
        ("state", answer["state"]),
        ("progress", _progress(answer)),
        ("created", moment(answer["created_at"])),
        ("finished", moment(answer["finished_at"])),
        ("result", preview(answer["result"])),
        ("error", preview(answer["error"])),
    ]
    return Facts([(name, text) for name, text in pairs if text])


def _progress(one: Any) -> str:
    of = "" if one["total"] is None else f" of {one['total']}"
    return f"{one['done']}{of} {one['unit']}"


def jobs(answer: Any) -> list[View]:
    """A page of jobs."""
    rows = [
        (one["id"], one["kind"], one["namespace"], one["state"], _progress(one), moment(one["created_at"]))
        for one in answer["jobs"]
    ]
    return [Table(("id", "kind", "namespace", "state", "progress", "created"), rows), *_more(answer)]


def stats(answer: Any) -> list[View]:
    """Totals."""
    on_disk = answer["bytes_stored"]
    pairs = [
        ("memories", str(answer["memories"])),
        ("values", size(answer["bytes_raw"])),
        ("on disk", "" if on_disk is None else size(on_disk)),
        ("expired, awaiting cleanup", str(answer["expired"])),
        ("sessions", str(answer["sessions"])),
        ("tiers", ", ".join(f"{name} {count}" for name, count in answer["tiers"].items())),
        ("oldest", moment(answer["oldest"])),
        ("newest", moment(answer["newest"])),
        ("read-only", answer["read_only"] or ""),
        ("top tags", ", ".join(f"{one['tag']} ({one['count']})" for one in answer["top_tags"])),
    ]
    shown: list[View] = [Facts([(name, text) for name, text in pairs if text])]
    if answer["namespaces"]:
        rows = [(one["name"], str(one["memories"]), size(one["bytes"])) for one in answer["namespaces"]]
        shown.append(Table(("namespace", "memories", "bytes"), rows))
    return shown


def cleaned(answer: Any) -> str:
    """What a cleanup removed."""
    purged = answer["purged"]
    return f"Removed {many(answer['expired'], 'expired memory', 'expired memories')}" + (
        f" and {purged} of deleted namespaces" if purged else ""
    )


def health(answer: Any) -> str:
    """How the service is."""
    reasons = "".join(f"\n  {reason}" for reason in answer["reasons"])
    told = f"{answer['service']} {answer['version']}: {answer['status']}{reasons}"
    return told + _meaning(answer["meaning"]) + _backup_health(answer["backup"])


def _backup_health(backup: Any) -> str:
    """How old the last backup is; nothing where there is none."""
    if backup["last_at"] is None:
        return ""
    whole = "" if backup["verified_ok"] else ", which found damage"
    verified = "never" if backup["verified_at"] is None else moment(backup["verified_at"]) + whole
    return f"\nLast backup: {moment(backup['last_at'])}; last verified: {verified}"


def _meaning(meaning: Any) -> str:
    """How far search by meaning has come; nothing where it is off, or has only begun."""
    if meaning is None or (meaning["model"] is None and not meaning["troubles"]):
        return ""
    told = f"\nSearch by meaning: {meaning['state']}"
    if meaning["model"] is not None:
        total = meaning["embedded"] + meaning["waiting"]
        told += f", vectors of {meaning['embedded']} of {many(total)} by {meaning['model']}"
    return told + "".join(f"\n  {trouble}" for trouble in meaning["troubles"])


def mode(answer: Any) -> str:
    """Whether writes are off."""
    return f"Read-only: {answer['reason']}" if answer["read_only"] else "Writes are on"


def problems(answer: Any) -> list[View]:
    """What a check found."""
    found = answer["problems"]
    if not found:
        return ["Everything is as it should be"]
    rows = [(one["where"], one["detail"], "yes" if one["fixed"] else "no") for one in found]
    left = sum(1 for one in found if not one["fixed"])
    return [
        Table(("where", "problem", "fixed"), rows, wide="problem"),
        f"{many(len(found), 'problem', 'problems')}, {len(found) - left} fixed",
    ]


def options(answer: Iterable[Any]) -> list[View]:
    """Every option with its value."""
    rows = [
        (one["name"], text_of(one["value"]), text_of(one["default"]), one["variable"], one["help"]) for one in answer
    ]
    return [Table(("option", "value", "default", "variable", "meaning"), rows, wide="meaning")]


def document(answer: Any) -> str:
    """JSON as it is."""
    return whole(answer)
