"""What a directory adds: rights, what a kill leaves, full disks, and files that others remove."""

import errno
import fcntl
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import absent
from unified_memory.model.clock import SECOND, SettableClock
from unified_memory.model.errors import AlreadyExistsError, ArchiveMissingError, StorageError, StorageFullError
from unified_memory.storage.archive import Archive, Directory, Record

MIB = 2**20

# Writes an archive and dies where the file is complete under its other name: {when} is "before" or "after" the rename.
KILLED = """
import os, sys
from pathlib import Path
from unified_memory.storage.archive import Archive, Directory, Record

rename = os.rename

def killed(source, target):
    if sys.argv[2] == "after":
        rename(source, target)
    os._exit(9)

os.rename = killed
Archive(Directory(Path(sys.argv[1]))).write("a.zar", [Record(1, 1, b"value" * 1000)])
"""

# Writes an archive where no file may grow beyond 100 KB.
LIMITED = """
import os, resource, signal, sys
from pathlib import Path
from unified_memory.model.errors import StorageFullError
from unified_memory.storage.archive import Archive, Directory, Record

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    Archive(Directory(Path(sys.argv[1]))).write("a.zar", [Record(1, 1, os.urandom(200_000))])
except StorageFullError:
    sys.exit(7)
"""


def test_only_the_owner_may_read_what_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "data" / "cold"
    directory = Directory(path)
    assert (directory.names(), directory.total(), directory.sweep()) == ([], 0, [])
    assert not path.exists()
    before = os.umask(0)
    try:
        directory.put("a.zar", [b"abc"])
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert [(each.name, stat.S_IMODE(each.stat().st_mode)) for each in path.iterdir()] == [("a.zar", 0o600)]


def test_the_file_is_synced_before_it_is_renamed_and_its_directory_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        done.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().suffix or 'directory'}")

    def renamed(source: Path, target: Path) -> None:
        rename(source, target)
        done.append("rename")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    Directory(tmp_path / "cold").put("a.zar", [b"abc"])
    assert done == ["sync directory", "sync .tmp", "rename", "sync directory"]


def test_a_rename_that_cannot_be_made_durable_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync = os.fsync

    def failing(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().is_dir():
            raise OSError(errno.EIO, "Input/output error")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StorageError, match="Input/output error"):
        Directory(tmp_path).put("a.zar", [b"abc"])
    assert list(tmp_path.iterdir()) == []


def test_a_kill_before_the_rename_leaves_no_archive_and_is_swept_after_an_hour(tmp_path: Path) -> None:
    assert _run(KILLED, tmp_path, "before") == 9
    clock = SettableClock()
    directory = Directory(tmp_path, clock=clock)
    left = list(tmp_path.iterdir())
    assert len(left) == 1
    assert directory.names() == []
    assert directory.total() == left[0].stat().st_size > 0
    with pytest.raises(ArchiveMissingError):
        directory.size("a.zar")
    clock.instant = left[0].stat().st_mtime_ns // 1000 + 3600 * SECOND
    assert directory.sweep() == []
    clock.advance(1)
    assert directory.sweep() == [left[0].name]
    assert (list(tmp_path.iterdir()), directory.sweep()) == ([], [])


def test_a_kill_after_the_rename_leaves_a_whole_archive(tmp_path: Path) -> None:
    assert _run(KILLED, tmp_path, "after") == 9
    archive = Archive(Directory(tmp_path))
    assert archive.names() == ["a.zar"]
    assert archive.read("a.zar", 0, 0, 1) == b"value" * 1000
    archive.close()


def test_a_name_that_another_takes_while_the_file_is_written_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def late(descriptor: int, operation: int) -> None:
        (tmp_path / "a.zar").write_bytes(b"first")
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with pytest.raises(AlreadyExistsError):
        Directory(tmp_path).put("a.zar", [b"second"])
    assert [(each.name, each.read_bytes()) for each in tmp_path.iterdir()] == [("a.zar", b"first")]


def test_a_write_that_was_swept_meanwhile_fails_and_leaves_nothing(tmp_path: Path) -> None:
    clock = SettableClock(4_000_000_000 * SECOND)
    directory = Directory(tmp_path, clock=clock)

    def chunks() -> Iterator[bytes]:
        yield b"abc"
        assert len(directory.sweep()) == 1

    with pytest.raises(StorageError, match=r"Cannot write the archive a\.zar"):
        directory.put("a.zar", chunks())
    assert list(tmp_path.iterdir()) == []


def test_sweeping_leaves_archives_and_what_others_keep_there(tmp_path: Path) -> None:
    directory = Directory(tmp_path, clock=SettableClock(4_000_000_000 * SECOND))
    directory.put("a.zar", [b"abc"])
    (tmp_path / ".token").write_bytes(b"abcd")
    (tmp_path / "lost+found").mkdir()
    assert (directory.sweep(), directory.names(), directory.total()) == ([], ["a.zar"], 3)
    assert (tmp_path / ".token").exists()


def test_a_full_disk_is_told_and_nothing_is_left(small_disk: Path) -> None:
    archive = Archive(Directory(small_disk / "cold"))
    archive.write("a.zar", [Record(1, 1, os.urandom(MIB))])
    with pytest.raises(StorageFullError):
        archive.write("b.zar", [Record(1, 1, os.urandom(8 * MIB))])
    assert [each.name for each in (small_disk / "cold").iterdir()] == ["a.zar"]
    assert len(archive.read("a.zar", 0, 0, 1)) == MIB
    archive.close()


def test_a_limit_of_file_sizes_is_told_as_a_full_disk(tmp_path: Path) -> None:
    assert _run(LIMITED, tmp_path) == 7
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "hurt",
    [
        lambda path: path.unlink(),
        lambda path: path.with_name("x").rename(path),
        lambda path: path.rename(path.with_name("y")) and path.with_name("y").unlink(),
    ],
    ids=["removed", "replaced", "moved away"],
)
def test_a_file_that_another_removes_under_a_reader_is_missing(tmp_path: Path, hurt: Callable[[Path], object]) -> None:
    written = Archive(Directory(tmp_path)).write("a.zar", [Record(1, 1, b"value")])
    (tmp_path / "x").write_bytes(b"something else")
    archive = Archive(Directory(tmp_path), cache_bytes=0)
    place = written.places[0]
    assert archive.read("a.zar", place.block, place.slot, 1) == b"value"
    hurt(tmp_path / "a.zar")
    with pytest.raises(ArchiveMissingError):
        archive.read("a.zar", place.block, place.slot, 1)
    archive.close()


def test_no_more_than_a_few_files_are_kept_open(tmp_path: Path) -> None:
    directory = Directory(tmp_path)
    before = _open_files()
    for number in range(100):
        directory.put(f"{number}.zar", [b"%d" % number])
    for number in range(100):
        assert directory.read(f"{number}.zar", 0, 10) == b"%d" % number
    assert _open_files() == before + 64
    directory.close()
    assert _open_files() == before
    assert directory.read("5.zar", 0, 10) == b"5"
    directory.close()


def test_what_cannot_be_reached_is_an_error_and_not_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    directory = Directory(tmp_path / "file")
    for ask in (
        lambda: directory.put("a.zar", []),
        lambda: directory.read("a.zar", 0, 1),
        directory.names,
        lambda: directory.remove("a.zar"),
    ):
        with pytest.raises(StorageError) as refused:
            ask()
        assert not isinstance(refused.value, ArchiveMissingError)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 6 MiB."""
    path = tmp_path / "small"
    path.mkdir()
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "small", str(path)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        absent("A tmpfs of a few MiB cannot be mounted here; it needs root and CAP_SYS_ADMIN")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True, capture_output=True)


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _run(script: str, path: Path, *arguments: str) -> int:
    return subprocess.run([sys.executable, "-c", script, str(path), *arguments], check=False, timeout=60).returncode
