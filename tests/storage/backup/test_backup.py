"""A backup comes back as it was written, whole or not at all."""

import hashlib
import json
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.storage.backup import samples
from tests.storage.backup.samples import ID, ROWS, back_up, finish, read_back
from unified_memory.model.errors import AlreadyExistsError, InvalidInputError, StorageCorruptError
from unified_memory.model.memory import Memory
from unified_memory.storage.backup import Place

STORES = st.fixed_dictionaries({kind: st.lists(made, max_size=4) for kind, made in samples.rows.items()})

# Writes and checks 200 MiB of values that hardly compress, with a key file or without, and tells by how many MiB it grew.
LARGE = """
import os, resource, sys
from pathlib import Path
from tests.storage.backup.samples import back_up, memory, ID
from unified_memory.storage.backup import Key, Place

def run(count, name):
    rows = (memory(n, b'"%b"' % os.urandom(4000).hex().encode()) for n in range(count))
    path = Path(sys.argv[1]) / name
    back_up(path, {"memories": rows}, key)
    reading = Place(path).reading(ID, key)
    reading.check()
    assert sum(1 for _ in reading.rows("memories")) == count

key = Key.from_file(Path(sys.argv[2])) if len(sys.argv) > 2 else None
run(50, "small")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(25_000, "large")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@given(STORES)
def test_every_row_of_every_kind_comes_back_in_order(rows: dict[str, list[Any]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        manifest = back_up(Path(directory), rows)
        assert read_back(Path(directory)) == {kind: some for kind, some in rows.items() if some}
    assert {part.kind: part.records for part in manifest.parts} == {k: len(some) for k, some in rows.items() if some}


def test_a_backup_of_nothing_is_one(tmp_path: Path) -> None:
    back_up(tmp_path, {"spaces": []})
    assert read_back(tmp_path) == {}
    assert list(Place(tmp_path).reading(ID).rows("memories")) == []


def test_the_manifest_tells_what_it_was_told_and_what_was_written(tmp_path: Path) -> None:
    manifest = back_up(tmp_path)
    told = Place(tmp_path).manifest(ID)
    assert told == manifest
    assert {name: getattr(told, name) for name in finish()} == finish()
    assert (told.id, told.encryption, told.format) == (ID, None, 1)
    folder = tmp_path / ID
    for part in told.parts:
        data = (folder / part.name).read_bytes()
        assert (part.bytes, part.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    listed = "".join(part.sha256 + "\n" for part in told.parts)
    assert told.sha256 == hashlib.sha256(listed.encode()).hexdigest()
    assert Place(tmp_path).stored_bytes(ID) == sum(file.stat().st_size for file in folder.iterdir())


def test_an_incremental_backup_names_its_parent(tmp_path: Path) -> None:
    back_up(tmp_path, {"memories": ROWS["memories"]}, kind="incremental", namespaces=None)
    told = Place(tmp_path).manifest(ID)
    assert (told.kind, told.parent, told.parent_sha256) == ("incremental", samples.PARENT, "ab" * 32)
    assert list(read_back(tmp_path)) == ["memories"]


def test_many_rows_are_several_parts_and_one_row_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unified_memory.storage.backup.writing.PART_BYTES", 300_000)
    rows = [samples.memory(number) for number in range(4000)]
    seen: list[int] = []
    with Place(tmp_path).writing(ID) as writing:
        assert writing.write("spaces", ROWS["spaces"]) == 1
        assert writing.write("memories", iter(rows), seen.append) == 4000
        manifest = writing.finish(**finish())
    parts = [part for part in manifest.parts if part.kind == "memories"]
    assert [part.name for part in parts] == [f"memories-{n:04d}.jsonl.zst" for n in range(1, len(parts) + 1)]
    assert len(parts) > 3
    assert all(300_000 <= part.raw_bytes < 500_000 for part in parts[:-1])
    assert sum(part.records for part in parts) == seen[-1] == 4000
    assert seen == sorted(seen)
    assert read_back(tmp_path)["memories"] == rows


def test_a_value_larger_than_a_part_and_than_what_is_read_at_once_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unified_memory.storage.backup.writing.PART_BYTES", 1000)
    rows = [samples.memory(n, b'"' + b"x" * size + b'"') for n, size in enumerate([10, 3_000_000, 10, 262_144])]
    back_up(tmp_path, {"memories": rows})
    assert read_back(tmp_path) == {"memories": rows}


def test_checking_tells_how_far_it_is(tmp_path: Path) -> None:
    manifest = back_up(tmp_path, {"memories": [samples.memory(n) for n in range(20_000)]} | {"used": ROWS["used"]})
    seen: list[tuple[int, int]] = []
    Place(tmp_path).reading(ID).check(lambda done, total: seen.append((done, total)))
    total = sum(part.bytes for part in manifest.parts)
    assert seen == sorted(seen)
    assert seen[0] == (0, total)
    assert seen[-1] == (total, total)
    assert len(seen) > 5


def test_only_the_owner_may_read_a_backup(tmp_path: Path) -> None:
    path = tmp_path / "backups"
    back_up(path)
    assert stat.S_IMODE(path.stat().st_mode) == stat.S_IMODE((path / ID).stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in (path / ID).iterdir()} == {0o600}


def test_what_the_rows_raise_is_raised_and_nothing_is_left(tmp_path: Path) -> None:
    def failing() -> Iterator[Memory]:
        yield samples.memory()
        raise StorageCorruptError("The row is damaged")

    with pytest.raises(StorageCorruptError, match="The row is damaged"):
        back_up(tmp_path, {"spaces": ROWS["spaces"], "memories": failing()})
    assert list(tmp_path.iterdir()) == []


def test_a_backup_that_is_not_finished_leaves_nothing(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.writing(ID) as writing:
        writing.write("spaces", ROWS["spaces"])
        assert place.ids() == []
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_an_id_is_used_once(tmp_path: Path) -> None:
    place = Place(tmp_path)
    with place.writing(ID) as writing:
        with pytest.raises(AlreadyExistsError), place.writing(ID):
            pass
        writing.finish(**finish())
    with pytest.raises(AlreadyExistsError), place.writing(ID):
        pass
    with place.writing(samples.PARENT) as writing:
        (tmp_path / samples.PARENT).mkdir()
        with pytest.raises(AlreadyExistsError):
            writing.finish(**finish())
    (tmp_path / samples.PARENT).rmdir()
    assert [path.name for path in tmp_path.iterdir()] == [ID]
    assert read_back(tmp_path) == {}


@pytest.mark.parametrize("backup_id", ["", "..", "../x", "20261123T020000Z-0a1b2c3d/..", f"{ID}\n", "latest"])
def test_nothing_is_written_by_a_name_that_is_no_id(tmp_path: Path, backup_id: str) -> None:
    with pytest.raises(InvalidInputError):
        Place(tmp_path).writing(backup_id)


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "encrypted"])
def test_memory_does_not_grow_with_the_backup(tmp_path: Path, sealed: bool, key_file: Path) -> None:  # noqa: FBT001
    arguments = [str(tmp_path), str(key_file)] if sealed else [str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", LARGE, *arguments],
        capture_output=True,
        check=True,
        timeout=100,
        cwd=Path(__file__).parents[3],
    )
    assert int(done.stdout) < 40


def test_the_manifest_is_json_with_members_of_fixed_names(tmp_path: Path) -> None:
    back_up(tmp_path)
    told = json.loads((tmp_path / ID / "manifest.json").read_bytes())
    assert list(told) == [
        *("id", "created_at", "store", "seq", "schema", "program", "kind", "parent", "parent_sha256", "reason", "note"),
        *("memories", "bytes", "namespaces", "encryption", "parts", "sha256", "format"),
    ]
    assert list(told["parts"][0]) == ["name", "kind", "records", "raw_bytes", "bytes", "sha256"]
