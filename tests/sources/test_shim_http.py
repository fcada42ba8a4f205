"""The older HTTP service while it runs, played by a small server that answers as its recordings do."""

import json
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest

from unified_memory.model.clock import from_rfc3339
from unified_memory.model.errors import InvalidInputError, SourceError, SourceUnavailableError
from unified_memory.model.value import canonical, parse
from unified_memory.sources.base import Back, Item, Options, Quarantined, Returned
from unified_memory.sources.kinds import kind_of, open_source
from unified_memory.sources.shim_http import ShimHTTP

FIXTURES = Path(__file__).parents[3] / "shared" / "legacy" / "fixtures"
fixtures = pytest.mark.skipif(not FIXTURES.is_dir(), reason="the fixtures are not beside the repository")
START = datetime(2025, 8, 21, 9, tzinfo=UTC)
KINDS = {str: "str", int: "int", float: "float", bool: "bool", type(None): "none", list: "list", dict: "dict"}
AWKWARD = [
    "..",
    ".",
    "a b",
    "a?b#c",
    "p%25",
    "%2F",
    "ключ",
    "emoji🔥",
    "nul\0k",
    "a:b|c",
    "'; DROP TABLE x;--",
    "a+b&c=d",
    "~",
    "\\",
]


class Service(ThreadingHTTPServer):
    """Keys with the JSON text of their value, ordered as they were accessed; one that is being asked notes it."""

    # Many requests at once do not wait for each other to be closed.
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.rows: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        # Called before each answer; true: the connection is cut instead.
        self.before: Callable[[str], bool] = lambda _: False
        self.ticks = 0
        # The key at which the database is locked.
        self.locked: str | None = None
        self.answer_to_health: tuple[int, bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def tick(self) -> str:
        self.ticks += 1
        return str(START + timedelta(microseconds=self.ticks)).removesuffix("+00:00")

    def store(self, key: str, text: str, kind: str | None = None) -> None:
        row = self.rows.get(key)
        now = self.tick()
        kind = kind or KINDS[type(json.loads(text))]
        if row is None:
            row = {"created_at": now[:19], "accessed_at": now, "access_count": 0}
        self.rows[key] = {
            **row,
            "value": text,
            "type": kind,
            "updated_at": now,
            "access_count": row["access_count"] + 1,
        }

    def touch(self, key: str) -> None:
        self.rows[key]["accessed_at"] = self.tick()
        self.rows[key]["access_count"] += 1


class Asked(BaseHTTPRequestHandler):
    server: Service
    protocol_version = "HTTP/1.1"
    # Head and body in one packet: apart they wait 40 ms for each other.
    wbufsize = -1

    def log_message(self, *_: object) -> None:
        """Says nothing."""

    def reply(self, status: int, body: object, *, text: bool = False) -> None:
        raw = str(body).encode() if text else json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
        self.send_response(status)
        self.send_header("content-type", "text/plain; charset=utf-8" if text else "application/json")
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self) -> None:
        service = self.server
        service.asked.append(self.path)
        if service.before(self.path):
            self.close_connection = True
            return
        target = urlsplit(self.path)
        query = {name: int(values[0]) for name, values in parse_qs(target.query).items()}
        key = unquote(target.path).removeprefix("/retrieve/")
        if target.path == "/health" and service.answer_to_health is not None:
            self.reply(service.answer_to_health[0], service.answer_to_health[1].decode(), text=True)
        elif target.path == "/health":
            about = {"status": "healthy", "service": "extended-memory", "version": "2.0.0"}
            self.reply(200, {**about, "persistence": {"enabled": True, "path": "/data/extended_memory.db"}})
        elif target.path == "/stats":
            counts = [row["access_count"] for row in service.rows.values()]
            self.reply(200, {"statistics": {"total_items": len(counts), "total_accesses": sum(counts)}})
        elif target.path == "/list":
            limit, offset = query.get("limit", 100), query.get("offset", 0)
            rows = sorted(service.rows.items(), key=lambda row: row[1]["accessed_at"], reverse=True)
            rows = rows[offset:] if limit < 0 else rows[offset : offset + limit]
            shown = [{"key": key, **{name: row[name] for name in row if name != "value"}} for key, row in rows]
            total = len(service.rows)
            told = {"total_count": total, "limit": limit, "offset": offset, "has_more": offset + limit < total}
            self.reply(200, {"keys": [key for key, _ in rows], "metadata": shown, **told})
        elif target.path.startswith("/retrieve/") and "/" not in key and key:
            self.retrieve(key)
        else:
            self.reply(404, {"detail": "Not Found"})

    def retrieve(self, key: str) -> None:
        if key not in self.server.rows:
            self.reply(200, {"status": "not_found", "key": key})
            return
        self.server.touch(key)
        if key == self.server.locked:
            self.reply(500, {"detail": "Retrieval failed: database is locked"})
            return
        try:
            value = json.loads(self.server.rows[key]["value"])
        except ValueError as error:
            self.reply(500, {"detail": f"Retrieval failed: {error}"})
            return
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except ValueError:
            self.reply(500, "Internal Server Error", text=True)
        else:
            self.reply(200, {"status": "found", "key": key, "value": value, "source": "database"})

    def do_POST(self) -> None:
        self.server.asked.append(self.path)
        if self.server.before(self.path):
            self.close_connection = True
            return
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not body.get("key"):
            self.reply(400, {"detail": "Key is required"})
            return
        self.server.store(body["key"], json.dumps(body.get("value")))
        self.reply(200, {"status": "stored", "key": body["key"], "persisted": True})


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as found:
        thread = threading.Thread(target=found.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield found
        found.shutdown()
        thread.join()


@pytest.fixture
def source(service: Service) -> Iterator[ShimHTTP]:
    found = ShimHTTP.open(service.url, Options(timeout=10))
    yield found
    found.close()


def instant(text: str) -> int:
    return from_rfc3339(text.replace(" ", "T") + "Z")


def back(key: str, value: bytes | None, **parts: Any) -> Back:
    text = None if value is None else value.decode()
    fixed = {"origin": None, "shape": "entry", "project": None, "key": key, "number": 1, "content": text}
    return Back(**{**fixed, "value": value or b"null", **parts})


@fixtures
def test_every_row_of_the_fixture_that_can_be_retrieved_is_carried(service: Service) -> None:
    records = json.loads((FIXTURES / "manifest.json").read_text())["shim"]["records"]
    for one in records:
        text = one["value_text"] if "value_text" in one else json.dumps(one.get("value", "of 100 KB"))
        service.rows[one["key"]] = {
            **{name: one[name] for name in ("type", "created_at", "updated_at", "accessed_at", "access_count")},
            "value": text,
        }
    source = open_source("extended-memory-http", service.url)
    survey = source.survey()
    found = {one.origin: one for one in source.read()}
    assert survey.records == len(found) == len(records)
    assert any("keys hold a slash" in remark for remark in survey.remarks)
    for one in records:
        item = found[f"entry/{one['key']}"]
        if not one["retrievable_over_http"]:
            assert isinstance(item, Quarantined)
            assert item.code == ("nan" if one.get("not_strict_json") else "unsupported")
            assert json.loads(item.raw)["key"] == one["key"]
            continue
        assert isinstance(item, Item)
        if "value" in one:
            assert canonical(parse(item.value)) == canonical(parse(json.dumps(one["value"]).encode()))
        assert (item.created_at, item.updated_at) == (instant(one["created_at"]), instant(one["updated_at"]))
        assert (item.last_accessed, item.access_count) == (instant(one["accessed_at"]), one["access_count"])
        assert item.facts == {}
    source.close()


def test_awkward_keys_are_asked_for_as_they_are(service: Service, source: ShimHTTP) -> None:
    for number, key in enumerate(AWKWARD):
        service.store(key, str(number))
    found = {one.key: one.value for one in source.read() if isinstance(one, Item)}
    assert found == {key: str(number).encode() for number, key in enumerate(AWKWARD)}
    for key in AWKWARD:
        item = source.lookup(f"entry/{key}")
        assert isinstance(item, Item)
        assert source.find("entry", None, key) == item.origin


def test_a_key_with_a_slash_is_found_by_the_listing_and_told(service: Service, source: ShimHTTP) -> None:
    service.store("a/b", "1")
    service.store("k" * 70_000, "2")
    slash, long = source.read()
    assert isinstance(slash, Quarantined)
    assert isinstance(long, Quarantined)
    assert (slash.code, long.code) == ("unsupported", "unsupported")
    assert "extended-memory-http-db" in slash.reason
    assert source.find("entry", None, "a/b") == "entry/a/b"
    assert source.find("entry", None, "a/c") is None
    assert source.find("entry", None, "absent") is None
    assert source.find("entry", None, "") is None
    assert source.find("file", None, "a/b") is None
    assert source.lookup("entry/absent") is None
    assert source.lookup("file/a/b") is None


def test_a_pickle_is_not_even_asked_for(service: Service, source: ShimHTTP) -> None:
    service.store("p", '"gASV"', "pickle")
    [found] = source.read()
    assert isinstance(found, Quarantined)
    assert found.code == "pickle"
    assert not any(path.startswith("/retrieve") for path in service.asked)


def test_no_key_is_missed_while_others_are_accessed_between_two_pages(service: Service, source: ShimHTTP) -> None:
    for number in range(1_200):
        service.store(f"k{number}", "1")

    def before(path: str) -> bool:
        if path.startswith("/list") and "offset=0" not in path:
            # What the third page would have held moves to the front.
            service.touch("k3")
            service.touch("k4")
        return False

    service.before = before
    assert {item.key for item in source.read() if isinstance(item, Item)} == set(service.rows)
    assert source.lookup("entry/k3") is not None


def test_what_was_cleared_meanwhile_is_left_out(service: Service, source: ShimHTTP) -> None:
    service.store("a", "1")
    service.store("b", "1")
    reading = source.read()
    assert next(reading).origin == "entry/a"
    service.rows.clear()
    assert list(reading) == []


def test_the_token_tells_writes_and_not_reads(service: Service, source: ShimHTTP) -> None:
    service.store("a", "1")
    before = source.token()
    list(source.read())
    assert source.token() == before
    listings = sum(path.startswith("/list") for path in service.asked)
    assert source.token() == before
    assert sum(path.startswith("/list") for path in service.asked) == listings
    service.store("a", "2")
    assert source.token() != before


def test_values_are_stored_back_and_twice_is_as_once(service: Service, source: ShimHTTP) -> None:
    service.store("same", '{"a": [1.5, "\\u00e9"]}')
    service.store("changed", "1")
    service.store("gone", "1")
    assert source.writable() is None
    backs = [
        back("same", '{"a":[1.50,"é"]}'.encode(), origin="entry/same"),
        back("changed", b'"new"', origin="entry/changed"),
        back("..", b"[null]", tags=("t",)),
        back("gone", None, origin="entry/gone"),
        back("never", None),
        back("", b"1"),
        back("large", b"1e999"),
        back("file", b"1", shape="file"),
    ]
    first = source.put_back(backs)
    assert [one.origin for one in first] == [
        "entry/same",
        "entry/changed",
        "entry/..",
        "entry/gone",
        None,
        None,
        None,
        None,
    ]
    assert [len(one.lost) for one in first] == [1, 1, 2, 1, 0, 1, 1, 1]
    assert first[4] == Returned(origin=None)
    assert {key: row["value"] for key, row in service.rows.items()} == {
        "same": '{"a": [1.5, "\\u00e9"]}',
        "changed": '"new"',
        "..": "[null]",
        "gone": "1",
    }
    stored = service.asked.count("/store")
    assert stored == 2
    assert source.put_back(backs) == first
    assert service.asked.count("/store") == stored


def test_a_cut_connection_is_tried_again_and_then_told(
    service: Service, source: ShimHTTP, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unified_memory.sources.shim_http._PAUSES", (0.0, 0.0))
    service.store("a", "1")
    cuts = iter([True, True, False, False])
    service.before = lambda _: next(cuts)
    assert [one.origin for one in source.read()] == ["entry/a"]
    service.before = lambda _: True
    with pytest.raises(SourceUnavailableError):
        list(source.read())


def test_a_value_that_the_service_cannot_read_is_quarantined_and_the_others_are_not(
    service: Service, source: ShimHTTP
) -> None:
    service.store("bad", "{'a': 1}", "dict")
    service.store("digits", "1" * 5000, "int")
    service.store("good", "1")
    bad, digits, good = source.read()
    assert isinstance(bad, Quarantined)
    assert isinstance(digits, Quarantined)
    assert (bad.code, digits.code) == ("malformed", "malformed")
    assert isinstance(good, Item)
    assert source.find("entry", None, "bad") == "entry/bad"


def test_a_failure_is_no_absence(service: Service, source: ShimHTTP) -> None:
    service.store("a", "1")
    service.locked = "a"
    for ask in (lambda: list(source.read()), lambda: source.find("entry", None, "a"), lambda: source.lookup("entry/a")):
        with pytest.raises(SourceUnavailableError, match="locked"):
            ask()
    service.answer_to_health = 500, b'{"status":"unhealthy"}'
    with pytest.raises(SourceUnavailableError, match="500"):
        source.survey()


@pytest.mark.parametrize(
    "body", [b"<html>", b'{"service":"other"}', b"[]", b'{"service":"unified-memory","version":"1"}']
)
def test_another_service_is_refused(service: Service, body: bytes) -> None:
    service.answer_to_health = 200, body
    with pytest.raises(SourceError):
        ShimHTTP.open(service.url, Options())


@pytest.mark.parametrize("location", ["", "memory.db", "ftp://host/", "http://", "http://host/?a=b", "file:///etc"])
def test_what_is_no_address_is_refused(location: str) -> None:
    with pytest.raises(InvalidInputError):
        ShimHTTP.open(location, Options())
    assert kind_of("extended-memory-http") is ShimHTTP


def test_a_service_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unified_memory.sources.shim_http._PAUSES", (0.0, 0.0))
    with Service() as gone:
        address = gone.url
    with pytest.raises(SourceUnavailableError, match="does not answer"):
        ShimHTTP.open(address.replace("http://", "http://user:secret@"), Options(timeout=5))
