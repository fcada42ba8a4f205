"""Requests and answers as plain data."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qs, unquote

import httpx2
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unified_memory.client import UNSET, ServiceUnavailableError, UnexpectedAnswerError, protocol
from unified_memory.client.protocol import JSON, PROBLEM, Answer, Call
from unified_memory.model import errors
from unified_memory.rest.problems import problem

HOSTILE = [
    "..",
    ".",
    "a//b",
    "/a",
    "a/",
    "a/../b",
    "./a",
    "/",
    "//",
    "a b",
    "ä/漢字",
    "?x=1#y",
    "100%",
    "%2F",
    "%2e%2e",
    "a;b=c&d+e",
]
ALPHABET = st.characters(exclude_categories=["Cs"]) | st.sampled_from("/.%?#&+; \\")
KEYS = st.text(ALPHABET, min_size=1, max_size=40)


def answer(body: Any, status: int = 200, kind: str = JSON) -> Answer:
    return Answer(status, kind, body if isinstance(body, bytes) else msgspec.json.encode(body))


def body_of(call: Call[Any]) -> Any:
    return json.loads(call.content)


def path_seen(call: Call[Any]) -> str:
    """The path as an application sees it behind a real client and server."""
    url = httpx2.URL("http://127.0.0.1:3200" + call.target)
    return unquote(url.raw_path.partition(b"?")[0].decode("ascii"), errors="strict")


# ---- URLs
@pytest.mark.parametrize("key", HOSTILE)
def test_a_hostile_key_arrives_as_it_is(key: str) -> None:
    assert path_seen(protocol.fetch(key)) == f"/api/v1/memory/retrieve/{key}"


@given(KEYS, KEYS)
def test_any_key_and_namespace_arrive_as_they_are(key: str, namespace: str) -> None:
    call = protocol.delete(key, namespace)
    assert path_seen(call) == f"/api/v1/memory/delete/{key}"
    assert parse_qs(call.target.partition("?")[2], keep_blank_values=True) == {"namespace": [namespace]}


@given(KEYS)
def test_what_stands_between_finds_nothing_to_tidy_in_a_path(key: str) -> None:
    path = protocol.encode_path(key, "key")
    assert path.isascii()
    assert not {"", ".", ".."} & set(path.split("/"))


def test_a_plain_path_stays_readable() -> None:
    assert protocol.encode_path("deploy/check.list", "key") == "deploy/check.list"


@pytest.mark.parametrize(
    "build",
    [
        lambda: protocol.retrieve(""),
        lambda: protocol.update(""),
        lambda: protocol.delete(""),
        lambda: protocol.get_namespace(""),
        lambda: protocol.delete_namespace(""),
        lambda: protocol.get_session(""),
        lambda: protocol.get_job(""),
        lambda: protocol.history(""),
        lambda: protocol.version("", 1),
        lambda: protocol.get_backup(""),
        lambda: protocol.verify_backup(""),
        lambda: protocol.delete_backup(""),
    ],
)
def test_an_empty_name_never_becomes_another_operation(build: Any) -> None:
    with pytest.raises(errors.InvalidInputError, match="is empty"):
        build()


def test_a_lone_surrogate_in_a_name_is_refused_with_its_field() -> None:
    with pytest.raises(errors.InvalidInputError) as told:
        protocol.retrieve("\ud800")
    assert told.value.field == "key"
    with pytest.raises(errors.InvalidInputError) as told:
        protocol.retrieve("k", "\ud800")
    assert told.value.field == "namespace"


# ---- requests
def test_store_sends_only_what_was_given() -> None:
    call = protocol.store("k", {"a": 1})
    assert (call.method, call.target) == ("POST", "/api/v1/memory/store")
    assert body_of(call) == {"key": "k", "value": {"a": 1}, "namespace": "default"}
    assert call.headers == {"Accept": JSON, "Content-Type": JSON}


def test_no_ttl_and_a_ttl_of_none_are_two_things() -> None:
    assert "ttl" not in body_of(protocol.store("k", 1))
    assert body_of(protocol.store("k", 1, ttl=None))["ttl"] is None
    assert body_of(protocol.update("k", ttl=None)) == {"ttl": None}
    assert body_of(protocol.update("k")) == {}


def test_null_is_a_value_and_no_value_is_an_error() -> None:
    assert body_of(protocol.store("k", None))["value"] is None
    with pytest.raises(errors.InvalidInputError, match="value is missing"):
        protocol.store("k")


def test_a_store_without_a_key_leaves_it_to_the_service() -> None:
    assert "key" not in body_of(protocol.store(value=1))


def test_preconditions_and_idempotency_keys_are_headers() -> None:
    stored = protocol.store("k", 1, if_none_match=True, idempotency_key="once")
    assert {"If-None-Match": "*", "Idempotency-Key": "once"}.items() <= stored.headers.items()
    assert protocol.delete("k", expected_version=3).headers["If-Match"] == '"3"'
    assert body_of(protocol.store("k", 1, expected_version=0))["expected_version"] == 0


@pytest.mark.parametrize("key", ["", "a\r\nX: y", "ä", " a"])
def test_an_idempotency_key_that_is_no_header_is_refused(key: str) -> None:
    with pytest.raises(errors.InvalidInputError) as told:
        protocol.store("k", 1, idempotency_key=key)
    assert told.value.field == "idempotency_key"


def test_archiving_says_only_what_was_given() -> None:
    call = protocol.archive("acme/web")
    assert (call.method, call.target) == ("POST", "/api/v1/memory/archive")
    assert body_of(call) == {"namespace": "acme/web"}
    call = protocol.recall_archived("acme/web", recursive=False, dry_run=True, wait=30)
    assert (call.target, call.wait) == ("/api/v1/memory/archive/recall?wait=30", 30)
    assert body_of(call) == {"namespace": "acme/web", "recursive": False, "dry_run": True}
    passing = protocol.tier_pass(wait=0)
    assert (passing.method, passing.target, passing.content) == ("POST", "/api/v1/memory/archive/pass?wait=0", b"")
    assert protocol.tiers().target == "/api/v1/memory/tiers"


def test_moving_names_both_ends() -> None:
    assert body_of(protocol.move("a", "b", to_namespace="n")) == {
        "from": {"namespace": "default", "key": "a"},
        "to": {"namespace": "n", "key": "b"},
    }
    assert body_of(protocol.move_namespace("a", "b")) == {"from": {"namespace": "a"}, "to": {"namespace": "b"}}


def test_batches_take_keys_and_references() -> None:
    call = protocol.retrieve_batch(["a", {"key": "b", "namespace": "n"}], "m")
    assert body_of(call) == {"keys": [{"key": "a", "namespace": "m"}, {"key": "b", "namespace": "n"}]}
    with pytest.raises(errors.InvalidInputError, match="keys is a list"):
        protocol.delete_batch("abc")


def test_a_listing_asks_with_parameters() -> None:
    call = protocol.list_memories(namespace="a/b", recursive=False, tags=["x", "y z"], limit=5)
    assert parse_qs(call.target.partition("?")[2]) == {
        "namespace": ["a/b"],
        "recursive": ["false"],
        "tags": ["x,y z"],
        "limit": ["5"],
    }
    assert protocol.list_memories().target == "/api/v1/memory/list"


def test_a_tag_that_a_listing_cannot_ask_for_is_refused() -> None:
    with pytest.raises(errors.InvalidInputError, match="comma"):
        protocol.list_memories(tags=["a,b"])


def test_waiting_is_a_parameter_and_patience() -> None:
    call = protocol.delete_namespace("a", recursive=True, wait=60)
    assert call.target.endswith("?recursive=true&wait=60")
    assert call.wait == 60


def test_the_past_is_asked_for_with_what_was_given() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert parse_qs(protocol.retrieve("k", as_of=moment).target.partition("?")[2])["as_of"] == [
        "2026-01-02T03:04:05+00:00"
    ]
    call = protocol.history("a/b", "n", limit=5)
    assert call.target == "/api/v1/memory/history/a/b?namespace=n&limit=5"
    assert protocol.version("k", 3, "n").target == "/api/v1/memory/history/k?namespace=n&version=3"
    assert body_of(protocol.restore_version("k")) == {"key": "k", "namespace": "default"}
    restored = protocol.restore_version("k", version=1, expected_version=3, idempotency_key="once")
    assert body_of(restored) == {"key": "k", "namespace": "default", "version": 1, "expected_version": 3}
    assert restored.headers["Idempotency-Key"] == "once"
    redaction = protocol.redact("k", wait=30)
    assert (redaction.target, redaction.wait) == ("/api/v1/memory/history/redact?wait=30", 30)
    assert protocol.changes(7, namespace="n", recursive=False).target.endswith("?since=7&namespace=n&recursive=false")


def test_backups_are_asked_for_with_what_was_given() -> None:
    assert body_of(protocol.create_backup()) == {}
    assert body_of(protocol.create_backup(parent="latest", note="n")) == {"parent": "latest", "note": "n"}
    assert body_of(protocol.restore("b")) == {"backup_id": "b"}
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    told = protocol.restore("b", mode="namespace", namespace="n", target="t", as_of=moment, dry_run=True, safety=False)
    assert body_of(told) == {
        "backup_id": "b",
        "mode": "namespace",
        "namespace": "n",
        "target": "t",
        "as_of": "2026-01-02T00:00:00+00:00",
        "dry_run": True,
        "safety": False,
    }
    assert protocol.verify_backup("../x").target == "/api/v1/memory/backups/%2E%2E%2Fx/verify"


# ---- what is read as it comes
def cut(content: bytes, places: list[int]) -> list[bytes]:
    ends = sorted({min(place, len(content)) for place in places})
    return [content[start:end] for start, end in zip([0, *ends], [*ends, len(content)], strict=True)]


def read(reader: Any, pieces: list[bytes]) -> list[Any]:
    return [item for piece in pieces for item in reader.feed(piece)] + list(reader.end())


@given(st.lists(st.binary(max_size=5).map(lambda line: line.replace(b"\n", b""))), st.lists(st.integers(0, 40)))
def test_lines_come_whole_however_they_were_cut(lines: list[bytes], places: list[int]) -> None:
    content = b"".join(line + b"\n" for line in lines)
    assert read(protocol.LineReader(), cut(content, places)) == [line + b"\n" for line in lines]
    assert b"".join(read(protocol.LineReader(), cut(content + b"rest", places))) == content + b"rest"


STREAM = (
    b"retry: 250\nid: 3\n\n: nothing new\n\n"
    b'id: 4\nevent: store\ndata: {"seq":4,\ndata:"key":"\xc3\xa4"}\n\n'
    b"\r\n"
    b'id: 5\r\nevent: delete\r\ndata: {"seq":5}\r\n\r\n'
)


@given(st.lists(st.integers(0, len(STREAM))))
def test_events_come_whole_however_they_were_cut(places: list[int]) -> None:
    reader = protocol.EventReader()
    assert read(reader, cut(STREAM, places)) == [{"seq": 4, "key": "ä"}, {"seq": 5}]
    assert (reader.seen, reader.retry) == ("5", 0.25)


def test_an_event_that_is_not_whole_was_not_seen() -> None:
    reader = protocol.EventReader()
    assert list(reader.feed(b'id: 4\ndata: {"seq":4}\n\nid: 5\ndata: {"se')) == [{"seq": 4}]
    reader.begin()
    assert list(reader.feed(b'\nid: 5\ndata: {"seq":5}\n\n')) == [{"seq": 5}]
    flow = protocol.follow_changes()
    assert flow.again(reader).headers["Last-Event-ID"] == "5"
    assert "Last-Event-ID" not in flow.again(protocol.EventReader()).headers


def test_attempts_come_ever_later_and_then_end() -> None:
    flow = protocol.follow_changes(attempts=7)
    assert [flow.delay(attempt, None) for attempt in range(7)] == [0, 1, 3, 7, 15, 30, 30]
    broken = ServiceUnavailableError("It broke")
    with pytest.raises(ServiceUnavailableError) as told:
        flow.delay(7, broken)
    assert told.value is broken
    with pytest.raises(ServiceUnavailableError):
        protocol.export().delay(0, None)


def test_lines_are_records_texts_or_parts_of_the_whole() -> None:
    assert protocol.encode_line({"key": "ä", "value": 1.5}) == '{"key":"ä","value":1.5}\n'.encode()
    assert protocol.encode_line('{"key": "a"}') == protocol.encode_line('{"key": "a"}\n') == b'{"key": "a"}\n'
    assert protocol.encode_line(b'{"key": "ha') == b'{"key": "ha'
    wrong: Any
    for wrong in ("a line", b"a line", {"key": "k"}):
        with pytest.raises(errors.InvalidInputError, match="lines is a list"):
            protocol.import_lines(wrong)


# ---- JSON
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    max_leaves=20,
)


@given(JSON_VALUES)
def test_any_json_comes_back_as_it_went(value: Any) -> None:
    sent = protocol.store("k", value).content
    (back,) = [json.loads(sent)["value"]]
    assert back == value
    assert protocol.decode(Answer(200, JSON, sent))["value"] == value


def test_no_number_is_too_large() -> None:
    text = b"[" + b"1" * 5000 + b",1e99999999999999999999]"
    decoded = protocol.decode(Answer(200, JSON, text))
    assert protocol.encode({"v": decoded}) == b'{"v":' + text + b"}"


def test_numbers_keep_what_python_can_hold() -> None:
    text = b"[123456789012345678901234567890, 1e400, 0.5, 1.0, -0.0]"
    decoded = protocol.decode(Answer(200, JSON, text))
    assert decoded == [123456789012345678901234567890, Decimal("1e400"), 0.5, 1.0, 0.0]
    assert isinstance(decoded[3], float)
    assert json.loads(protocol.encode({"v": decoded}), parse_float=Decimal)["v"][1] == Decimal("1e400")


def test_raw_json_is_sent_byte_for_byte() -> None:
    assert b'{ "a": 1.10 }' in protocol.store("k", msgspec.Raw(b'{ "a": 1.10 }')).content


@pytest.mark.parametrize("value", [float("nan"), [1, {"a": float("inf")}], Decimal("NaN"), {"x": (1.0, -float("inf"))}])
def test_what_would_become_null_is_refused(value: Any) -> None:
    with pytest.raises(errors.InvalidInputError, match="infinities") as told:
        protocol.store("k", value)
    assert told.value.field == "value"


def test_what_has_no_json_is_refused_with_its_field() -> None:
    circle: list[Any] = []
    circle.append(circle)
    with pytest.raises(errors.InvalidInputError) as told:
        protocol.store("k", circle)
    assert told.value.field == "value"
    with pytest.raises(errors.InvalidInputError) as told:
        protocol.store("k", 1, metadata={"x": "\ud800"})
    assert told.value.field == "metadata"
    with pytest.raises(errors.InvalidInputError) as told:
        protocol.store("k", 1, metadata={"x": object()})
    assert told.value.field == "metadata"


def test_instants_may_be_datetimes() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert body_of(protocol.store("k", 1, expires_at=moment))["expires_at"] == "2026-01-02T03:04:05Z"


# ---- pages
def test_the_next_page_is_asked_with_everything_and_the_cursor() -> None:
    call = protocol.search("vim", namespace="a", limit=2)
    page: Any = {"results": [{"key": "x"}], "next_cursor": "c1", "left_out": 0}
    following = call.after(page)
    assert following is not None
    assert [hit["key"] for hit in call.items(page)] == ["x"]
    assert body_of(following) == {"query": "vim", "namespace": "a", "limit": 2, "cursor": "c1"}
    listed = protocol.list_namespaces(prefix="a")
    again = listed.after({"namespaces": [], "next_cursor": "c/1"})
    assert again is not None
    assert again.target == "/api/v1/memory/namespaces?prefix=a&cursor=c%2F1"
    assert again.after({"namespaces": [], "next_cursor": None}) is None


# ---- answers
def every_error() -> list[errors.UnifiedMemoryError]:
    return [
        errors.UnifiedMemoryError("Something", hint="Do it", a=1),
        errors.NotFoundError("Nothing there"),
        errors.SemanticUnavailableError("No meaning here", hint="pip install it"),
        errors.MemoryNotFoundError("n", "k"),
        errors.NamespaceNotFoundError("n"),
        errors.SessionNotFoundError("n", "s"),
        errors.JobNotFoundError("j"),
        errors.BackupNotFoundError("20260102T030405Z-9f86d081"),
        errors.GoneError("It was there"),
        errors.VersionGoneError("n", "k", 3, redacted=True),
        errors.ChangesGoneError(3, 7),
        errors.InvalidInputError("ttl", "ttl is wrong", hint="A number", limit=3),
        errors.MalformedInputError("body", "The body is not JSON"),
        errors.TooLargeError("value", 10, 11),
        errors.EmptyQueryError(),
        errors.InvalidCursorError(),
        errors.IdempotencyMismatchError("once"),
        errors.ConflictError("It does not fit"),
        errors.VersionConflictError("n", "k", 3, 4),
        errors.VersionConflictError("n", "k", 3, 0, precondition=True),
        errors.AlreadyExistsError("It exists", namespace="n"),
        errors.AlreadyExistsError("It exists", precondition=True),
        errors.NamespaceNotEmptyError("n", 3, 1),
        errors.InProgressError("It is under way"),
        errors.BackupDamagedError("20260102T030405Z-9f86d081", "manifest.json", "it is cut off"),
        errors.MigrationStateError("It has not begun", "none", hint="Run it"),
        errors.RefusedError("No"),
        errors.SourceError("memory-bank-files", "/srv/older/bank", "It is no folder"),
        errors.SourceUnavailableError("extended-memory-http", "http://127.0.0.1:3009", "Nobody answers"),
        errors.PermissionDeniedError("Not allowed in this namespace", namespace="n"),
        errors.ReadOnlyError("upgrade"),
        errors.QuotaExceededError("n", "max_memories", 5),
        errors.StorageError("It broke"),
        errors.StorageFullError(),
        errors.StorageBusyError("Busy", retry_after=7),
        errors.ArchiveMissingError("20260102T030405Z-7f3a90c1d2e4b586.zar"),
        errors.StorageCorruptError("Damaged"),
        errors.SchemaTooNewError(3, 2),
        errors.UnsuitableDirectoryError("A network file system", directory="d"),
    ]


def kinds(kind: type[errors.UnifiedMemoryError]) -> set[type[errors.UnifiedMemoryError]]:
    return {kind}.union(*map(kinds, kind.__subclasses__()))


def test_every_error_of_the_tree_is_tried_here() -> None:
    tree = {kind for kind in kinds(errors.UnifiedMemoryError) if kind.__module__ == errors.__name__}
    assert {type(error) for error in every_error()} == tree


@pytest.mark.parametrize("error", every_error(), ids=lambda error: error.code)
def test_an_error_crosses_the_wire_whole(error: errors.UnifiedMemoryError) -> None:
    sent = problem(error)
    with pytest.raises(errors.UnifiedMemoryError) as told:
        protocol.stats().read(answer(sent.body, sent.status, PROBLEM))
    back = told.value
    assert type(back) is type(error)
    assert (back.detail, back.hint, back.facts, str(back)) == (error.detail, error.hint, error.facts, str(error))
    for name in ("field", "precondition", "retry_after"):
        assert getattr(back, name, None) == getattr(error, name, None)


def test_an_unknown_code_is_the_root_with_the_code_as_a_fact() -> None:
    told = protocol.error_of(answer({"detail": "Strange", "code": "strange", "x": 1}, 418, PROBLEM))
    assert type(told) is errors.UnifiedMemoryError
    assert told.facts == {"code": "strange", "status": 418, "x": 1}


def test_only_a_missing_memory_is_none() -> None:
    missing = problem(errors.MemoryNotFoundError("n", "k"))
    assert protocol.retrieve("k", "n").read(answer(missing.body, 404, PROBLEM)) is None
    with pytest.raises(errors.MemoryNotFoundError):
        protocol.fetch("k", "n").read(answer(missing.body, 404, PROBLEM))
    for body, status, kind in (
        ({"detail": "Not Found", "code": "no_such_route"}, 404, PROBLEM),
        (b"<html>Not Found</html>", 404, "text/html"),
        ({"detail": "Memory not found"}, 404, JSON),
    ):
        with pytest.raises(errors.UnifiedMemoryError):
            protocol.retrieve("k", "n").read(answer(body, status, kind))


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_proxy_without_its_service_is_unavailability(status: int) -> None:
    with pytest.raises(ServiceUnavailableError):
        protocol.stats().read(answer(b"<html>", status, "text/html"))


@pytest.mark.parametrize(("status", "kind", "body"), [(200, "text/html", b"<html>"), (302, "", b""), (200, JSON, b"{")])
def test_what_is_not_the_service_is_never_a_result(status: int, kind: str, body: bytes) -> None:
    with pytest.raises(UnexpectedAnswerError):
        protocol.stats().read(answer(body, status, kind))


def test_a_service_that_cannot_work_still_tells_its_health() -> None:
    failing: Any = {"status": "failing", "reasons": ["draining"]}
    assert protocol.health().read(answer(failing, 503)) == failing
    with pytest.raises(ServiceUnavailableError):
        protocol.stats().read(answer(failing, 503))


def test_unset_is_the_sentinel_of_the_client() -> None:
    assert UNSET is msgspec.UNSET


@pytest.mark.parametrize("told", [{}, {"ok": True}, [], {"namespace": "n", "key": "other", "version": 1}])
def test_a_write_is_stored_only_where_the_answer_tells_of_that_memory(told: Any) -> None:
    calls: list[Call[Any]] = [
        protocol.store("k", 1, "n"),
        protocol.update("k", "n", value=1),
    ]
    for call in calls:
        with pytest.raises(UnexpectedAnswerError):
            call.read(answer(told))
        whole = {"namespace": "n", "key": "k", "version": 1}
        assert call.read(answer(whole)) == whole


def test_a_write_without_a_key_is_told_which_it_got() -> None:
    call = protocol.store(value=1)
    with pytest.raises(UnexpectedAnswerError):
        call.read(answer({"status": "ok"}))
    whole = {"namespace": "default", "key": "minted", "version": 1}
    assert call.read(answer(whole)) == whole
