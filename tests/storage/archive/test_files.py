"""What all files promise, in a directory and in a bucket."""

import random
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.storage.archive.samples import damages, noise, read_all, values
from unified_memory.model.errors import AlreadyExistsError, ArchiveMissingError, StorageCorruptError
from unified_memory.storage.archive import Archive, Files


def test_a_file_is_read_as_it_was_put(files: Files) -> None:
    assert files.put("a.zar", iter([b"abc", b"", b"defg"])) == 7
    assert files.size("a.zar") == 7
    assert files.read("a.zar", 0, 7) == b"abcdefg"
    assert files.read("a.zar", 2, 3) == b"cde"


@pytest.mark.parametrize(
    ("start", "length", "there"), [(5, 9, b"fg"), (7, 1, b""), (9, 1, b""), (3, 0, b""), (7, 0, b"")]
)
def test_where_the_file_ends_fewer_bytes_are_read(files: Files, start: int, length: int, there: bytes) -> None:
    files.put("a.zar", [b"abcdefg"])
    assert files.read("a.zar", start, length) == there


def test_a_file_may_be_empty(files: Files) -> None:
    assert files.put("a.zar", []) == 0
    assert (files.size("a.zar"), files.read("a.zar", 0, 10), files.names()) == (0, b"", ["a.zar"])


def test_names_are_sorted_and_all_bytes_are_counted(files: Files) -> None:
    assert (files.names(), files.total()) == ([], 0)
    for name in ("b.zar", "a.zar", "c-1.zar"):
        files.put(name, [name.encode() * 1000])
    assert files.names() == ["a.zar", "b.zar", "c-1.zar"]
    assert files.total() == 17_000
    files.remove("b.zar")
    assert (files.names(), files.total()) == (["a.zar", "c-1.zar"], 12_000)


def test_a_name_that_is_taken_is_refused_and_the_file_stays(files: Files) -> None:
    files.put("a.zar", [b"first"])
    with pytest.raises(AlreadyExistsError):
        files.put("a.zar", [b"second"])
    assert files.read("a.zar", 0, 10) == b"first"
    assert files.total() == 5


def test_of_many_that_put_one_name_at_once_one_does(files: Files) -> None:
    def put(number: int) -> bytes | None:
        content = bytes([number]) * 10_000
        try:
            files.put("a.zar", [content])
        except AlreadyExistsError:
            return None
        return content

    with ThreadPoolExecutor(8) as pool:
        done = [content for content in pool.map(put, range(24)) if content]
    assert done == [files.read("a.zar", 0, 20_000)]


def test_what_is_not_there_is_missing(files: Files) -> None:
    for ask in (lambda: files.size("a.zar"), lambda: files.read("a.zar", 0, 1), lambda: files.read("a.zar", 0, 0)):
        with pytest.raises(ArchiveMissingError) as missing:
            ask()
        assert missing.value.facts == {"archive": "a.zar"}
    files.remove("a.zar")


def test_a_removed_file_is_missing_though_it_was_read_before(files: Files) -> None:
    files.put("a.zar", [b"abc"])
    files.read("a.zar", 0, 3)
    files.remove("a.zar")
    with pytest.raises(ArchiveMissingError):
        files.read("a.zar", 0, 3)


@pytest.mark.parametrize("name", ["", ".", "..", "../a", "a/b", ".a.zar", "-a", "a b", "ä.zar", "a\n", "a" * 300])
def test_what_cannot_be_a_name_reaches_no_file(files: Files, name: str) -> None:
    for ask in (
        lambda: files.put(name, []),
        lambda: files.read(name, 0, 1),
        lambda: files.size(name),
        lambda: files.remove(name),
    ):
        with pytest.raises(StorageCorruptError, match="not the name of an archive"):
            ask()


def test_what_fails_while_it_is_made_leaves_nothing(files: Files) -> None:
    def chunks() -> list[bytes]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        files.put("a.zar", (chunk for _ in range(1) for chunk in chunks()))
    assert (files.names(), files.total(), files.sweep()) == ([], 0, [])


def test_an_archive_is_written_read_and_verified(files: Files) -> None:
    archive = Archive(files)
    records = noise(2000, random.Random(1), 300)
    written = archive.write("a.zar", records)
    assert read_all(archive, written) == values(records)
    assert damages(archive, "a.zar") == []
    assert (archive.names(), archive.total()) == (["a.zar"], written.bytes_stored)
    archive.remove("a.zar")
    assert (archive.names(), archive.total(), archive.sweep()) == ([], 0, [])
    archive.close()
