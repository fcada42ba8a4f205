"""What a bucket adds: its URL, its errors, and the extra that it needs."""

import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.storage.archive.conftest import KEYS
from unified_memory.model.errors import ArchiveMissingError, InvalidInputError, StorageError
from unified_memory.storage.archive import ArchiveExtraMissingError, Bucket

UNUSED = "http://127.0.0.1:1"


def test_two_prefixes_of_one_bucket_do_not_see_each_other(store: str, bucket: Bucket) -> None:
    first, second = (
        Bucket(f"s3://archives/{prefix}?endpoint={store}&region=us-east-1", KEYS)
        for prefix in ("tests/one", "tests/two/")
    )
    first.put("a.zar", [b"abc"])
    assert (first.names(), second.names(), bucket.names()) == (["a.zar"], [], [])
    whole = Bucket(f"s3://archives?endpoint={store}&region=us-east-1", KEYS)
    assert whole.names() == []


def test_a_bucket_that_is_not_there_is_an_error_and_not_a_missing_archive(store: str) -> None:
    bucket = Bucket(f"s3://nobody-made-it?endpoint={store}&region=us-east-1", KEYS)
    asked: list[Callable[[], object]] = [
        lambda: bucket.put("a.zar", [b"abc"]),
        lambda: bucket.size("a.zar"),
        lambda: bucket.read("a.zar", 0, 1),
        bucket.names,
        bucket.total,
        lambda: bucket.remove("a.zar"),
    ]
    for ask in asked:
        with pytest.raises(StorageError, match="nobody-made-it") as refused:
            ask()
        assert not isinstance(refused.value, ArchiveMissingError)


def test_a_store_that_does_not_answer_is_an_error_that_tells_no_key() -> None:
    bucket = Bucket(f"s3://archives?endpoint={UNUSED}&region=us-east-1", {**KEYS, "secret_access_key": "hush"})
    with pytest.raises(StorageError, match=r"Cannot read a\.zar in the bucket archives") as refused:
        bucket.size("a.zar")
    assert "hush" not in str(refused.value)
    assert "\n" not in refused.value.detail


@pytest.mark.parametrize(
    "url", ["", "s3://", "s3:///prefix", "https://host/bucket", "s3://bucket?secret=x", "s3://bucket#part"]
)
def test_what_is_no_url_of_a_bucket_is_refused(url: str) -> None:
    with pytest.raises(InvalidInputError, match="not the URL of a bucket"):
        Bucket(url)


def test_without_the_extra_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ArchiveExtraMissingError) as refused:
        Bucket("s3://archives")
    assert refused.value.hint == "pip install 'mcp-unified-memory[s3]'"


def test_the_package_is_imported_without_the_extra() -> None:
    script = "import sys, unified_memory.storage.archive; sys.exit('obstore' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
