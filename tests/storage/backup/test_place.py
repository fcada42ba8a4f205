"""The directory of backups: what is listed, what a kill leaves, and full disks."""

import errno
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.storage.backup import samples
from tests.storage.backup.samples import ID, PARENT, ROWS, back_up, read_back
from unified_memory.model.clock import SECOND, SettableClock
from unified_memory.model.errors import BackupNotFoundError, InvalidInputError, StorageError, StorageFullError
from unified_memory.storage.backup import Key, Place, Verified, is_id, new_id

VERIFIED = Verified("2026-11-23T03:00:00Z", ok=True, detail=None, seconds=1.5, memories=2)

# Dies at the {argv[2]}th call that changes a directory, before it or after it.
KILLED = """
import os, shutil, sys
from pathlib import Path
from tests.storage.backup.samples import ID, back_up
from unified_memory.storage.backup import Place

left = int(sys.argv[3])

def deadly(function):
    def called(*arguments, **named):
        global left
        left -= 1
        if left == 0 and sys.argv[4] == "before":
            os._exit(9)
        try:
            return function(*arguments, **named)
        finally:
            if left == 0:
                os._exit(9)
    return called

for name in ("mkdir", "open", "write", "fsync", "rename", "unlink", "rmdir"):
    setattr(os, name, deadly(getattr(os, name)))
if sys.argv[2] == "write":
    back_up(Path(sys.argv[1]))
else:
    Place(Path(sys.argv[1])).remove(ID)
"""

# Writes a backup where no file may grow beyond 100 KB.
LIMITED = """
import os, resource, signal, sys
from pathlib import Path
from tests.storage.backup.samples import back_up, memory
from unified_memory.model.errors import StorageFullError

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    back_up(Path(sys.argv[1]), {"memories": [memory(value=b'"%b"' % os.urandom(300_000).hex().encode())]})
except StorageFullError:
    sys.exit(7)
"""


def run(script: str, *arguments: object) -> int:
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        check=False,
        timeout=60,
        cwd=Path(__file__).parents[3],
    ).returncode


def test_ids_sort_by_time_and_are_never_the_same() -> None:
    first, second, third = (new_id(samples.INSTANT + seconds * SECOND) for seconds in (0, 1, 3600))
    assert first < second < third
    assert re.fullmatch(r"20261123T\d{4}00Z-[0-9a-f]{8}", first)
    assert all(map(is_id, (first, second, third)))
    assert new_id(samples.INSTANT) != first


def test_where_nothing_was_ever_backed_up_nothing_is_listed(tmp_path: Path) -> None:
    place = Place(tmp_path / "not" / "there")
    assert (place.ids(), place.sweep()) == ([], [])
    assert place.free_bytes() > 0
    assert list(tmp_path.iterdir()) == []


def test_backups_are_listed_by_time_and_nothing_else_is(tmp_path: Path) -> None:
    back_up(tmp_path)
    back_up(tmp_path, backup_id=PARENT)
    Place(tmp_path).note_verified(ID, VERIFIED)
    (tmp_path / "lost+found").mkdir()
    (tmp_path / "20261124T020000Z-0a1b2c3d").write_bytes(b"")
    (tmp_path / "20261125T020000Z-0a1b2c3d").symlink_to(ID)
    assert Place(tmp_path).ids() == [PARENT, ID]


@pytest.mark.parametrize(
    "backup_id", ["", ".", "..", "../x", "/etc", "20261123T020000Z-ffffffff", "latest", f"{ID}/../x"]
)
def test_what_is_no_backup_is_not_found(tmp_path: Path, backup_id: str) -> None:
    back_up(tmp_path / "backups")
    (tmp_path / "x").mkdir()
    place = Place(tmp_path / "backups")
    asked: list[Callable[[], object]] = [
        lambda: place.manifest(backup_id),
        lambda: place.reading(backup_id),
        lambda: place.remove(backup_id),
        lambda: place.stored_bytes(backup_id),
        lambda: place.note_verified(backup_id, VERIFIED),
        lambda: place.verified(backup_id),
    ]
    for ask in asked:
        with pytest.raises(BackupNotFoundError):
            ask()
    assert read_back(tmp_path / "backups") == ROWS


def test_a_link_is_no_backup(tmp_path: Path) -> None:
    back_up(tmp_path / "elsewhere")
    (tmp_path / ID).symlink_to(tmp_path / "elsewhere" / ID)
    with pytest.raises(BackupNotFoundError):
        Place(tmp_path).remove(ID)
    assert read_back(tmp_path / "elsewhere") == ROWS


def test_a_removed_backup_is_gone_with_what_was_noted_of_it(tmp_path: Path) -> None:
    back_up(tmp_path)
    back_up(tmp_path, backup_id=PARENT)
    place = Place(tmp_path)
    place.note_verified(ID, VERIFIED)
    place.remove(ID)
    assert [path.name for path in tmp_path.iterdir()] == [PARENT]
    assert read_back(tmp_path, backup_id=PARENT) == ROWS


def test_what_came_of_verifying_is_kept_until_the_next_time(tmp_path: Path) -> None:
    back_up(tmp_path)
    place = Place(tmp_path)
    assert place.verified(ID) is None
    place.note_verified(ID, VERIFIED)
    assert place.verified(ID) == VERIFIED
    failed = Verified(
        "2026-11-24T03:00:00Z", ok=False, detail="memories-0001.jsonl.zst is damaged", seconds=2, memories=0
    )
    place.note_verified(ID, failed)
    assert place.verified(ID) == failed
    assert read_back(tmp_path) == ROWS
    (tmp_path / f"{ID}.verified.json").write_bytes(b"{")
    assert place.verified(ID) is None


@pytest.mark.parametrize("doing", ["write", "remove"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_kill_at_any_moment_leaves_a_whole_backup_or_what_is_swept(tmp_path: Path, doing: str, when: str) -> None:
    outcomes: list[bool] = []
    number = 0
    while True:
        # The first calls, those around the end, and some between them: each takes a process.
        number += 1 if number < 6 or doing == "remove" else 4
        path = tmp_path / str(number)
        if doing == "remove":
            back_up(path)
            Place(path).note_verified(ID, VERIFIED)
        code = run(KILLED, path, doing, number, when)
        if code == 0:
            break
        assert code == 9
        clock = SettableClock(4_000_000_000 * SECOND)
        place = Place(path, clock=clock)
        there = place.ids()
        if there:
            assert read_back(path) == ROWS
        outcomes.append(bool(there))
        place.sweep()
        assert [each.name for each in path.glob("[!.]*") if each.is_dir()] == there
        assert list(path.glob(".*")) == []
    assert len(outcomes) > 3
    # Once it has changed it stays so.
    assert outcomes == sorted(outcomes, reverse=doing == "remove")


def test_only_what_is_older_than_an_hour_is_swept(tmp_path: Path) -> None:
    assert run(KILLED, tmp_path, "write", 9, "before") == 9
    left = next(tmp_path.iterdir())
    newest = max(each.stat().st_mtime_ns for each in [left, *left.iterdir()]) // 1000
    os.utime(left, ns=(0, 0))
    clock = SettableClock(newest + 3600 * SECOND)
    place = Place(tmp_path, clock=clock)
    assert place.sweep() == []
    clock.advance(1)
    assert place.sweep() == [left.name]
    assert list(tmp_path.iterdir()) == []


def test_sweeping_leaves_what_others_keep_there(tmp_path: Path) -> None:
    back_up(tmp_path)
    (tmp_path / ".other.tmp").write_bytes(b"")
    (tmp_path / f".{ID}").mkdir()
    Place(tmp_path, clock=SettableClock(4_000_000_000 * SECOND)).sweep()
    assert {path.name for path in tmp_path.iterdir()} == {ID, ".other.tmp", f".{ID}"}


def test_a_backup_that_was_swept_while_it_was_written_is_an_error(tmp_path: Path) -> None:
    place = Place(tmp_path, clock=SettableClock(4_000_000_000 * SECOND))
    with place.writing(ID) as writing:
        writing.write("used", ROWS["used"])
        assert len(place.sweep()) == 1
        with pytest.raises(StorageError, match="Cannot write"):
            writing.finish(**samples.finish())
    assert list(tmp_path.iterdir()) == []


def test_everything_is_synced_before_the_backup_gets_its_name_and_the_name_after_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, rename = os.fsync, os.rename

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        done.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)

    def renamed(source: Path, target: Path) -> None:
        rename(source, target)
        done.append("rename")

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "rename", renamed)
    back_up(tmp_path / "backups", {"used": ROWS["used"], "floors": ROWS["floors"]})
    assert done == [
        tmp_path.name,
        *("used-0001.jsonl.zst", "floors-0001.jsonl.zst", "manifest.json", "SHA256SUMS"),
        *(f".{ID}.tmp", "rename", "backups"),
    ]


def test_a_limit_of_file_sizes_is_told_as_a_full_disk(tmp_path: Path) -> None:
    assert run(LIMITED, tmp_path) == 7
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize("call", ["write", "fsync", "open", "mkdir", "rename"])
@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, StorageFullError), (errno.EIO, StorageError)])
def test_a_disk_that_is_full_at_any_step_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    sealed: bool,  # noqa: FBT001 - a parameter of a test
    call: str,
    number: int,
    error: type[StorageError],
    key: Key,
) -> None:
    path = tmp_path / "backups"
    path.mkdir()
    chosen = key if sealed else None
    original = getattr(os, call)
    fails_at = calls = 0

    def failing(*arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == fails_at:
            raise OSError(number, os.strerror(number))
        return original(*arguments, **named)

    with monkeypatch.context() as hurt:
        hurt.setattr(os, call, failing)
        back_up(path, key=chosen)
        steps = calls
        Place(path).remove(ID)
        while fails_at < steps:
            fails_at += 1
            calls = 0
            with pytest.raises(error):
                back_up(path, key=chosen)
            assert list(path.iterdir()) == []
    assert steps > 0
    back_up(path, key=chosen)
    assert read_back(path, chosen) == ROWS


def test_a_directory_that_cannot_be_reached_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    place = Place(tmp_path / "file")
    for ask in (place.ids, place.sweep, lambda: back_up(tmp_path / "file")):
        with pytest.raises(StorageError, match="file"):
            ask()


def test_an_id_that_leads_elsewhere_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError):
        Place(tmp_path / "backups").writing("../escaped")
    assert list(tmp_path.iterdir()) == []
