"""The recordings of the service on port 3009, said again to ours."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.proxy.manager import RecordingManager, make_service
from unified_memory.proxy.http import ShimProxy
from unified_memory.proxy.shim import Shim
from unified_memory.proxy.stand import Stand
from unified_memory.sources.ledger import Phase

ROOT = Path(__file__).parents[2]
RECORDING = ROOT.parent / "shared" / "legacy" / "transcripts" / "shim_cache_on.jsonl"
pytestmark = pytest.mark.skipif(
    not RECORDING.is_file(), reason=f"the recordings of the older servers are not there: {RECORDING}"
)
TIME = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{6})?")
# What its README calls different at each run.
VOLATILE = {"timestamp", "port", "path", "initialized", "database_path"}

REFUSED = "The value holds NaN or an infinity"
# What is refused on purpose, with how the detail begins, and what is stored in its place, so that all later answers are the same.
INSTEAD: dict[str, tuple[str, str, Any]] = {
    "store value NaN": (REFUSED, "nan", 0.5),
    "store value Infinity": (REFUSED, "inf", []),
    "store value 1e999": (REFUSED, "e999", 0.5),
    "store value lone surrogate": ("Storage failed: 'utf-8' codec can't encode", "surr", "?"),
}
# The older service could not answer them.
FOUND = {key: value for _, key, value in INSTEAD.values()}
# Keys with a slash can be had here.
SLASHES = re.compile(r"retrieve key '(.*/.*)' via ")


def recorded() -> Iterator[dict[str, Any]]:
    for line in RECORDING.read_text("utf-8").rstrip("\n").split("\n"):
        yield json.loads(line)


def normal(told: Any) -> Any:
    """Without what differs at each run; times as their format."""
    if isinstance(told, dict):
        return {name: None if name in VOLATILE else normal(part) for name, part in told.items()}
    if isinstance(told, list):
        return [normal(part) for part in told]
    if isinstance(told, str) and TIME.fullmatch(told):
        return "TIME" if "T" in told else "TIME with a blank"
    return told


class Replay:
    """What the older service and ours were told so far."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def compare(self, line: dict[str, Any], answer: httpx2.Response) -> None:
        case, then = line["case"], line["response"]
        expected_status, expected = then["status"], then.get("json", then.get("text"))
        told: Any = answer.json() if answer.headers.get("content-type") == "application/json" else answer.text
        if (slashed := SLASHES.match(case)) is not None:
            expected_status = 200
            expected = {"status": "found", "key": slashed[1], "value": "v:" + slashed[1], "source": "cache"}
        elif case in INSTEAD:
            expected_status, expected = 422, INSTEAD[case][0]
            told = told["detail"][: len(expected)]
        elif then["status"] == 500 and "text" in then:
            expected_status, key = 200, case.rpartition(" ")[2]
            expected = {**told, "status": "found", "key": key, "value": FOUND[key]}
        elif case == "openapi":
            told, expected = (
                {path: {m: r.get("parameters") for m, r in routes.items()} for path, routes in one["paths"].items()}
                for one in (told, expected)
            )
        if answer.status_code != expected_status or normal(told) != normal(expected):
            self.problems.append(
                f"{case}: {answer.status_code} {told!r:.300}, expected {expected_status} {expected!r:.300}"
            )
        if then.get("allow") != answer.headers.get("allow"):
            self.problems.append(f"{case}: allow {answer.headers.get('allow')}")
        kind = then.get("content_type")
        if expected_status == then["status"] and kind != answer.headers.get("content-type"):
            self.problems.append(f"{case}: {answer.headers.get('content-type')}, expected {kind}")


async def test_what_was_recorded_of_the_older_service_is_answered_the_same(tmp_path: Path) -> None:
    stand = Stand(make_service(tmp_path), RecordingManager(Phase.FINISHED), "extended-memory")
    await stand.open()
    replay = Replay()
    try:
        app, restarted = proxied(stand), False
        for line in recorded():
            if line["case"].startswith("after restart") and not restarted:
                app, restarted = proxied(stand), True
            async with httpx2.AsyncClient(transport=httpx2.ASGITransport(app), base_url="http://localhost") as client:
                replay.compare(line, await said(client, line))
                if line["case"] in INSTEAD:
                    _, key, value = INSTEAD[line["case"]]
                    assert (await client.post("/store", json={"key": key, "value": value})).status_code == 200
    finally:
        await stand.close()
    assert not replay.problems, "\n".join(replay.problems)


async def said(client: httpx2.AsyncClient, line: dict[str, Any]) -> httpx2.Response:
    """The recorded request, said again."""
    request = line["request"]
    # What urllib says where nothing is said.
    kind = "application/x-www-form-urlencoded" if "content-type" in line["case"] else "application/json"
    body = json.dumps(request["body"]) if "body" in request else request.get("raw")
    headers = {} if body is None else {"content-type": kind}
    return await client.request(request["method"], request["path"], content=body, headers=headers)


def proxied(stand: Stand) -> ShimProxy:
    shim = Shim(stand.service, port=3009, database="/data/x.db", backups="/data/backups")
    return ShimProxy(stand, shim, None, max_body=32 * 1024**2)
