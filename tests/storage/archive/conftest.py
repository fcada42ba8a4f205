"""Fixtures: a store that speaks S3, and files of both kinds."""

import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.conftest import absent
from unified_memory.storage.archive import Bucket, Directory, Files

# It cannot live with our own packages: botocore and dateparser want different releases of python-dateutil.
PYTHON = Path(__file__).parents[3] / ".legacy" / "moto" / "bin" / "python"
# Serves until its standard input ends.
SERVER = """
import sys
from moto.server import ThreadedMotoServer

server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
server.start()
print("http://%s:%d" % server.get_host_and_port(), flush=True)
sys.stdin.read()
server.stop()
"""
KEYS = {"access_key_id": "test", "secret_access_key": "test"}


@pytest.fixture(scope="session")
def store() -> Iterator[str]:
    """The URL of a store with the bucket `archives`."""
    if not PYTHON.exists():
        absent("moto is not installed; scripts/setup --legacy does it")
    with subprocess.Popen([PYTHON, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        url = server.stdout.readline().strip()
        assert url.startswith("http://"), "The store did not start"
        httpx2.put(f"{url}/archives").raise_for_status()
        yield url
        server.communicate()


@pytest.fixture
def bucket(store: str) -> Bucket:
    """Files under a prefix of their own."""
    return Bucket(f"s3://archives/{uuid.uuid4()}?endpoint={store}&region=us-east-1", KEYS)


@pytest.fixture(params=["directory", "bucket"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Files]:
    """Files of each kind, none there."""
    made: Files = request.getfixturevalue("bucket") if request.param == "bucket" else Directory(tmp_path / "cold")
    yield made
    made.close()
