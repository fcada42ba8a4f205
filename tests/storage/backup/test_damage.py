"""Whatever is not as it was written is found, and the file is named."""

import os
import random
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from tests.storage.backup import samples
from tests.storage.backup.samples import ID, ROWS, back_up, forge, packed_wide, part, sign
from unified_memory.model.errors import BackupDamagedError, RefusedError
from unified_memory.storage.backup import Key, Place
from unified_memory.storage.backup.codec import compress, decompress
from unified_memory.storage.backup.lines import MalformedError
from unified_memory.storage.backup.manifest import pack_manifest

LINE = b'{"id":1,"count":2,"last":3}\n'
USED = "used-0001.jsonl.zst"
MIB = 2**20


def check(path: Path, key: Key | None = None) -> None:
    Place(path).reading(ID, key).check()


def found(path: Path, key: Key | None = None) -> BackupDamagedError:
    with pytest.raises(BackupDamagedError) as told:
        check(path, key)
    assert told.value.facts["backup_id"] == ID
    return told.value


def flips(path: Path, key: Key | None, rng: random.Random) -> int:
    """Flips a bit of every byte of every file, each by itself."""
    tried = 0
    for file in sorted((path / ID).iterdir()):
        whole = file.read_bytes()
        for at in range(len(whole)):
            hurt = bytearray(whole)
            hurt[at] ^= 1 << rng.randrange(8)
            file.write_bytes(hurt)
            assert found(path, key).facts["part"] == file.name, at
            tried += 1
        file.write_bytes(whole)
    check(path, key)
    return tried


def test_a_flipped_bit_is_found_in_every_byte_of_every_file(tmp_path: Path) -> None:
    back_up(tmp_path)
    assert flips(tmp_path, None, random.Random(1)) > 3000


def test_a_flipped_bit_is_found_in_every_byte_of_an_encrypted_backup(tmp_path: Path, key: Key) -> None:
    back_up(tmp_path, {"spaces": ROWS["spaces"], "memories": ROWS["memories"]}, key)
    assert flips(tmp_path, key, random.Random(2)) > 2000


def test_a_flipped_bit_in_the_enclosed_identity_is_damage_and_no_wrong_passphrase(
    tmp_path: Path, passphrase: Key
) -> None:
    back_up(tmp_path, {"used": ROWS["used"]}, passphrase)
    file = tmp_path / ID / "identity.age"
    whole = file.read_bytes()
    for at in range(len(whole)):
        file.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
        assert found(tmp_path, passphrase).facts["part"] == file.name
        with pytest.raises(BackupDamagedError, match=r"identity\.age"):
            list(Place(tmp_path).reading(ID, passphrase).rows("used"))


def test_what_reads_the_rows_alone_finds_a_flipped_bit_too(tmp_path: Path, key: Key) -> None:
    for name, chosen in (("plain", None), ("sealed", key)):
        path = tmp_path / name
        manifest = back_up(path, {"memories": ROWS["memories"]}, chosen)
        file = path / ID / manifest.parts[0].name
        whole = file.read_bytes()
        for at in range(len(whole)):
            file.write_bytes(whole[:at] + bytes([whole[at] ^ 16]) + whole[at + 1 :])
            with pytest.raises(BackupDamagedError) as told:
                list(Place(path).reading(ID, chosen).rows("memories"))
            assert told.value.facts["part"] == file.name


def folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


def pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def link(file: Path) -> None:
    file.rename(file.parent.parent / "x")
    file.symlink_to("../x")


@pytest.mark.parametrize("sealed", [False, True], ids=["plain", "encrypted"])
@pytest.mark.parametrize(
    ("hurt", "detail"),
    [
        (lambda file: file.unlink(), "missing"),
        (lambda file: file.write_bytes(file.read_bytes()[:-1]), ""),
        (lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]), ""),
        (lambda file: file.write_bytes(b""), ""),
        (lambda file: file.write_bytes(file.read_bytes() + b"\0"), ""),
        (lambda file: file.write_bytes(os.urandom(file.stat().st_size)), ""),
        (folder, "no file"),
        (pipe, "no file"),
        (link, "no file"),
    ],
    ids=["missing", "cut", "half", "empty", "longer", "another", "folder", "pipe", "link"],
)
def test_a_file_that_is_not_the_one_that_was_written_is_named(
    tmp_path: Path,
    hurt: Callable[[Path], object],
    detail: str,
    sealed: bool,  # noqa: FBT001 - a parameter of a test
    key: Key,
) -> None:
    chosen = key if sealed else None
    back_up(tmp_path, {"spaces": ROWS["spaces"], "memories": ROWS["memories"]}, chosen)
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / ID, kept)
    for name in sorted(path.name for path in kept.iterdir()):
        shutil.rmtree(tmp_path / ID)
        (tmp_path / "x").unlink(missing_ok=True)
        shutil.copytree(kept, tmp_path / ID)
        hurt(tmp_path / ID / name)
        told = found(tmp_path, chosen)
        assert told.facts["part"] == name
        assert detail in told.detail


def test_a_file_that_does_not_belong_there_is_named(tmp_path: Path) -> None:
    back_up(tmp_path)
    (tmp_path / ID / "memories-0002.jsonl.zst").write_bytes(b"")
    assert found(tmp_path).facts["part"] == "memories-0002.jsonl.zst"


def test_parts_that_were_exchanged_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unified_memory.storage.backup.writing.PART_BYTES", 1)
    monkeypatch.setattr("unified_memory.storage.backup.writing._BATCH_BYTES", 1)
    back_up(tmp_path)
    first, second = (tmp_path / ID / f"memories-000{n}.jsonl.zst" for n in (1, 2))
    first.rename(tmp_path / "x")
    second.rename(first)
    (tmp_path / "x").rename(second)
    assert found(tmp_path).facts["part"] == first.name


def packed(text: bytes) -> bytes:
    return b"".join(compress(iter([text])))


@pytest.mark.parametrize(
    ("data", "told", "detail"),
    [
        (packed(LINE * 2), {"records": 1, "raw_bytes": 2 * len(LINE)}, "2 lines instead of 1"),
        (packed(LINE), {"records": 2, "raw_bytes": len(LINE)}, "1 lines instead of 2"),
        (packed(LINE), {"raw_bytes": len(LINE) - 1}, "more than"),
        (packed(LINE), {"raw_bytes": len(LINE) + 1}, "instead of"),
        (packed(LINE[:-1]), {"raw_bytes": len(LINE) - 1}, "last line"),
        (packed(b"\n"), {"raw_bytes": 1}, "line 1"),
        (packed(b"{}\n"), {"raw_bytes": 3}, "line 1"),
        (packed(b"[\n"), {"raw_bytes": 2}, "line 1"),
        (packed(LINE) + packed(b""), {"raw_bytes": len(LINE)}, "follows"),
        (packed(LINE) + b"x", {"raw_bytes": len(LINE)}, "follows"),
        (packed(LINE)[:-1], {"raw_bytes": len(LINE)}, "end is missing"),
        (LINE, {"raw_bytes": len(LINE)}, "cannot be decompressed"),
        (b"", {"raw_bytes": 0, "records": 0}, "end is missing"),
    ],
)
def test_a_part_whose_sum_is_right_is_still_read_strictly(
    tmp_path: Path, data: bytes, told: dict[str, int], detail: str
) -> None:
    forge(tmp_path, {USED: data}, [part(data, USED, **told)])
    error = found(tmp_path)
    assert error.facts["part"] == USED
    assert detail in error.detail


def test_text_of_no_encoding_is_named(tmp_path: Path) -> None:
    line = b'{"name":"\xff","version":1}\n'
    data = packed(line)
    forge(
        tmp_path,
        {"floors-0001.jsonl.zst": data},
        [part(data, "floors-0001.jsonl.zst", raw_bytes=len(line))],
    )
    assert found(tmp_path).facts["part"] == "floors-0001.jsonl.zst"


def test_a_bomb_is_refused_before_it_is_large(tmp_path: Path) -> None:
    data = b"".join(compress(bytes(MIB) for _ in range(500)))
    assert len(data) < MIB
    forge(tmp_path, {USED: data}, [part(data, USED, raw_bytes=1000)])
    tracemalloc.start()
    error = found(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert error.facts["part"] == USED
    assert "more than 1000 bytes" in error.detail
    assert peak < 4 * MIB


def test_a_frame_that_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    data = packed_wide(LINE * 1000)
    forge(tmp_path, {USED: data}, [part(data, USED, records=1000, raw_bytes=1000 * len(LINE))])
    assert "cannot be decompressed" in found(tmp_path).detail


def test_a_file_that_is_longer_than_it_should_be_is_not_read_to_its_end(tmp_path: Path) -> None:
    back_up(tmp_path, {"used": ROWS["used"]})
    with (tmp_path / ID / USED).open("r+b") as file:
        file.truncate(2**40)
    error = found(tmp_path)
    assert error.facts["part"] == USED


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "/etc/passwd",
        "",
        ".",
        "used-0001.jsonl.zst/../../x",
        "used-0002.jsonl.zst",
        "used-1.jsonl.zst",
        "used-0001.jsonl.zst.age",
        "used-0001.jsonl.zst\n",
        "used-٠٠٠١.jsonl.zst",
        "memories-0001.jsonl.zst",
        "manifest.json",
        "SHA256SUMS",
        "identity.age",
    ],
)
def test_no_part_of_another_name_is_opened(tmp_path: Path, name: str) -> None:
    data = packed(LINE)
    (tmp_path / "secret").write_bytes(data)
    forge(tmp_path, {}, [part(data, name, kind="used", raw_bytes=len(LINE))])
    # A name with a line end cannot even be listed.
    assert found(tmp_path).facts["part"] == ("SHA256SUMS" if "\n" in name or not name else "manifest.json")


def test_a_part_of_an_unknown_kind_or_named_twice_is_refused(tmp_path: Path) -> None:
    data = packed(LINE)
    one = part(data, USED, raw_bytes=len(LINE))
    for parts in ([one, one], [part(data, "keys-0001.jsonl.zst")], [part(data, "identity.age", kind="identity")]):
        forge(tmp_path, {USED: data}, parts)
        assert found(tmp_path).facts["part"] == "manifest.json"


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "incremental"},
        {"parent": samples.PARENT},
        {"parent": "../../x", "parent_sha256": "ab" * 32, "kind": "incremental"},
        {"created_at": "yesterday"},
        {"created_at": "2026-99-23T02:00:00Z"},
        {"memories": -1},
        {"reason": "other"},
        {"encryption": "rot13"},
        {"format": 0},
        {"namespaces": {"a": -1}},
    ],
)
def test_a_manifest_that_cannot_be_is_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    forge(tmp_path, {}, [], **changes)
    assert found(tmp_path).facts["part"] == "manifest.json"


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"null", b"\xff", b'{"format":1}', b"[" * 100_000])
def test_a_manifest_that_is_none_is_refused(tmp_path: Path, text: bytes) -> None:
    back_up(tmp_path)
    sign(tmp_path / ID, text)
    assert found(tmp_path).facts["part"] == "manifest.json"


def test_a_manifest_with_a_member_more_or_of_another_backup_or_sum_is_refused(tmp_path: Path) -> None:
    manifest = back_up(tmp_path)
    for changed in (
        pack_manifest(manifest).replace(b"{", b'{"more":1,', 1),
        pack_manifest(msgspec.structs.replace(manifest, id=samples.PARENT)),
        pack_manifest(msgspec.structs.replace(manifest, sha256="ab" * 32)),
    ):
        sign(tmp_path / ID, changed, manifest.parts)
        assert found(tmp_path).facts["part"] == "manifest.json"


def test_sums_that_are_of_other_parts_are_refused(tmp_path: Path) -> None:
    manifest = back_up(tmp_path)
    for parts in (manifest.parts[:-1], manifest.parts[::-1], []):
        sign(tmp_path / ID, pack_manifest(manifest), parts)
        assert found(tmp_path).facts["part"] == "SHA256SUMS"


def test_a_backup_of_a_newer_program_is_refused_and_not_called_damaged(tmp_path: Path) -> None:
    manifest = back_up(tmp_path)
    text = pack_manifest(msgspec.structs.replace(manifest, format=2)).replace(b"{", b'{"more":1,', 1)
    sign(tmp_path / ID, text, manifest.parts)
    with pytest.raises(RefusedError, match="has format 2; this program knows up to 1"):
        Place(tmp_path).manifest(ID)


def test_something_behind_a_frame_that_ends_with_a_chunk_is_told() -> None:
    with pytest.raises(MalformedError, match="follows"):
        list(decompress(iter([packed(b"text\n"), b"x"]), 5))


def test_an_enclosed_identity_that_has_grown_is_not_read_to_its_end(tmp_path: Path, passphrase: Key) -> None:
    back_up(tmp_path, {"used": ROWS["used"]}, passphrase)
    with (tmp_path / ID / "identity.age").open("r+b") as file:
        file.truncate(2**40)
    with pytest.raises(BackupDamagedError, match=r"identity\.age .* longer than"):
        check(tmp_path, passphrase)
