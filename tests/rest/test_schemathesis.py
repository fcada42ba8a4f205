"""schemathesis over the whole document, against a real server: nothing that it makes of an operation breaks a promise."""

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import requests
import schemathesis
import uvicorn
from schemathesis.config import SchemathesisConfig

from tests.rest.asking import LIMITS, MAX_BODY, MEMORY, PREFIX, make_tiered
from unified_memory.model.clock import SystemClock
from unified_memory.rest import RestApplication
from unified_memory.rest.examples import STORY
from unified_memory.rest.openapi import document
from unified_memory.service.service import Safekeeping, assemble
from unified_memory.storage.backup import Place

BOUND = 20.0
# What the parser of HTTP takes, our own address left out; what is longer is refused before it comes to us.
MAX_URL = 65_000
# What a request that breaks its schema may be answered with, and one that keeps to it.
REFUSED = [400, 403, 404, 405, 409, 412, 413, 422]
# 413 and 422 for what a schema cannot say: cursors that were handed out, instants to come, sizes in bytes.
TAKEN = ["2xx", "3xx", 403, 404, 409, 412, 413, 422]
KEYED = ("/retrieve/batch", "/delete/batch", "/update/where", "/delete/where")
FILTERED = ("/update/where", "/delete/where", "/search", "/query")


CONFIG: dict[str, Any] = {
    "suppress-health-check": ["all"],
    "generation": {"database": "none"},
    "checks": {
        "negative_data_rejection": {"expected-statuses": REFUSED},
        "positive_data_acceptance": {"expected-statuses": TAKEN},
    },
    # What stands in these paths may be a key or an id, too.
    "operations": [
        {"include-path": path, "checks": {"allow_header_conformance": {"enabled": False}}}
        for path in (*KEYED, "/history/restore", "/history/redact")
    ]
    # What is deleted there has ended, and is still there to be told of.
    + [
        {
            "include-path": path,
            "checks": {"use_after_free": {"enabled": False}, "allow_header_conformance": {"enabled": False}},
        }
        for path in ("/jobs/{id}", "/jobs/{id}/events", "/sessions/{id}")
    ]
    # What is wrong with a line is told in the report.
    + [{"include-path": "/import", "checks": {"negative_data_rejection": {"enabled": False}}}]
    # By meaning nothing can be searched there.
    + [
        {
            "include-path": path,
            "checks": {
                "not_a_server_error": {"expected-statuses": ["2xx", "3xx", "4xx", 503]},
                "positive_data_acceptance": {"expected-statuses": [*TAKEN, 503]},
            },
        }
        for path in ("/search", "/similar", "/recall")
    ],
}
# The same each time, without the thousands of cases that cover every branch of a filter.
QUICK: dict[str, Any] = {
    **CONFIG,
    "seed": 1,
    "generation": {"max-examples": 15, "deterministic": True, "database": "none"},
    "operations": CONFIG["operations"]
    + [{"include-path": path, "phases": {"coverage": {"enabled": False}}} for path in FILTERED],
}


def listener() -> socket.socket:
    """A free port. Said to be TCP, or asyncio would let it wait 40 ms for more to send."""
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.bind(("127.0.0.1", 0))
    listening.listen()
    return listening


@contextlib.contextmanager
def running() -> Iterator[str]:
    """A real server over SQLite with archives on a free port; its URL."""
    place = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="unified-memory-test-", dir=place) as directory, listener() as listening:
        clock = SystemClock()
        kept = Safekeeping(place=Place(Path(directory) / "backups"))
        service = assemble(make_tiered(Path(directory), clock), clock, LIMITS, safekeeping=kept)
        application = RestApplication(service, max_body=MAX_BODY)
        server = uvicorn.Server(
            uvicorn.Config(application, log_config=None, access_log=False, lifespan="off", ws="none")
        )

        async def serve() -> None:
            await service.open()
            try:
                await server.serve([listening])
            finally:
                await service.close()

        thread = threading.Thread(target=lambda: asyncio.run(serve()), name="server")
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}{PREFIX}"
        finally:
            server.should_exit = True
            thread.join(BOUND)
            assert not thread.is_alive()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running() as url:
        yield url


@pytest.fixture
def session(url: str) -> Iterator[requests.Session]:
    """A connection to a service that takes writes and holds what the examples speak of."""
    with requests.Session() as session:
        session.put(f"{url}/mode", json={"read_only": False}, timeout=BOUND).raise_for_status()
        for method, path, body in STORY:
            session.request(method, url + path, json=body, timeout=BOUND).raise_for_status()
        yield session


@schemathesis.serializer("application/x-ndjson")
def lines(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """What is made for a body of lines, sent as it is where it is a text."""
    return value.encode() if isinstance(value, str) else json.dumps(value).encode()


quick = schemathesis.openapi.from_dict(document(), config=SchemathesisConfig.from_dict(QUICK))


@quick.parametrize()
def test_no_request_breaks_a_promise(case: schemathesis.Case[Any], url: str, session: requests.Session) -> None:
    asked = case.as_transport_kwargs(base_url=url)
    sent = requests.Request(asked["method"], asked["url"], params=asked.get("params")).prepare()
    hypothesis.assume(len(sent.url or "") < MAX_URL)
    case.call_and_validate(base_url=url, session=session)


@pytest.mark.nightly
def test_no_request_nor_any_row_of_them_breaks_a_promise(url: str, session: requests.Session, tmp_path: Path) -> None:
    session.get(f"{url}/health", timeout=BOUND).raise_for_status()
    config = tmp_path / "schemathesis.toml"
    config.write_text(toml(CONFIG))
    program = [
        *(
            sys.executable,
            "-m",
            "schemathesis.cli",
            "--config-file",
            str(config),
            "run",
            "--max-examples",
            "100",
            "--seed",
            "1",
        ),
        *("--mode", "all", "--phases", "examples,coverage,fuzzing,stateful", "--no-color", "--url", url),
        # It would leave the service read-only; the quick test asks it.
        *("--exclude-path", "/mode"),
        # Its program does not know lines of JSON; the quick test sends some.
        *("--exclude-path", "/import"),
        url.removesuffix(PREFIX) + "/openapi.json",
    ]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr


def toml(config: dict[str, Any]) -> str:
    """The configuration as schemathesis reads it from a file."""
    operations = config["operations"]
    lines = [f"suppress-health-check = {json.dumps(config['suppress-health-check'])}"]
    for name, check in config["checks"].items():
        lines += [f"[checks.{name}]", f"expected-statuses = {json.dumps(check['expected-statuses'])}"]
    for one in operations:
        lines += ["[[operations]]", f'include-path = "{one["include-path"]}"']
        lines += [f"checks.{name}.enabled = false" for name in one["checks"]]
    return "\n".join(lines)
