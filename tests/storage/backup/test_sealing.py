"""Encrypted backups: who can read them, what they still tell, and what is said to others."""

import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.storage.backup import samples
from tests.storage.backup.samples import ID, ROWS, back_up, finish, pyrage, read_back, unpacked
from unified_memory.model.errors import InvalidInputError, RefusedError, StorageCorruptError
from unified_memory.model.memory import Memory
from unified_memory.storage.backup import Key, Place
from unified_memory.storage.backup.sealing import decrypt, encrypt

HIDDEN = "xyzzy-plugh"


def identities(key_file: Path) -> list[Any]:
    lines = key_file.read_text(encoding="utf-8").split()
    return [pyrage.x25519.Identity.from_str(line) for line in lines if line.startswith("AGE-")]


def test_every_kind_comes_back_by_the_key_file(tmp_path: Path, key: Key, key_file: Path) -> None:
    back_up(tmp_path, key=key)
    assert read_back(tmp_path, key) == read_back(tmp_path, Key.from_file(key_file)) == ROWS


def test_every_kind_comes_back_by_the_passphrase(tmp_path: Path, passphrase: Key) -> None:
    manifest = back_up(tmp_path, key=passphrase)
    assert manifest.parts[0].name == "identity.age"
    again = Key.from_passphrase("correct horse battery staple")
    assert read_back(tmp_path, again) == read_back(tmp_path, passphrase) == ROWS


def test_the_passphrase_opens_the_enclosed_key_and_that_the_parts_without_us(tmp_path: Path) -> None:
    back_up(tmp_path, {"used": ROWS["used"]}, Key.from_passphrase("naïve ☕"))
    enclosed = (tmp_path / ID / "identity.age").read_bytes()
    assert re.fullmatch(rb"-> scrypt [A-Za-z0-9+/]{22} 17", enclosed.splitlines()[1])
    text = pyrage.passphrase.decrypt(enclosed, "naïve ☕").decode()
    opened = pyrage.x25519.Identity.from_str(text.strip())
    sealed = (tmp_path / ID / "used-0001.jsonl.zst.age").read_bytes()
    assert unpacked(pyrage.decrypt(sealed, [opened])).count(b"\n") == 1


def test_two_backups_have_nothing_in_common_but_the_passphrase(tmp_path: Path, passphrase: Key) -> None:
    first, second = (back_up(tmp_path / name, {}, passphrase) for name in ("first", "second"))
    assert first.sha256 != second.sha256


def test_any_one_identity_of_the_key_file_opens_it(tmp_path: Path) -> None:
    made = [str(pyrage.x25519.Identity.generate()) for _ in range(2)]
    files = [tmp_path / name for name in ("both", "first", "second")]
    for file, text in zip(files, ["\n".join(made), *made], strict=True):
        file.write_text(text, encoding="utf-8")
    back_up(tmp_path / "backups", key=Key.from_file(files[0]))
    for file in files:
        assert read_back(tmp_path / "backups", Key.from_file(file)) == ROWS


def test_parts_can_be_read_by_the_library_alone(tmp_path: Path, key: Key, key_file: Path) -> None:
    back_up(tmp_path, {"used": ROWS["used"]}, key)
    sealed = (tmp_path / ID / "used-0001.jsonl.zst.age").read_bytes()
    assert sealed.startswith(b"age-encryption.org/v1\n")
    plain = unpacked(pyrage.decrypt(sealed, identities(key_file)))
    assert plain == b'{"id":1,"count":4,"last":%d}\n' % samples.INSTANT


def test_nothing_of_names_or_values_is_in_clear(tmp_path: Path, key: Key) -> None:
    row = samples.memory(value=f'"{HIDDEN}"'.encode(), namespace=HIDDEN, key=HIDDEN)
    back_up(tmp_path, {"memories": [row] * 50}, key, note=HIDDEN, namespaces={HIDDEN: 50})
    for file in (tmp_path / ID).iterdir():
        assert HIDDEN.encode() not in file.read_bytes()
    told = Place(tmp_path).manifest(ID)
    assert (told.encryption, told.note, told.namespaces, told.memories) == ("age", None, None, 2)


def test_no_plain_text_is_ever_on_the_disk(tmp_path: Path, key: Key) -> None:
    """Not even while it is written: every file that there is at any moment is looked into."""
    looked = 0

    def rows() -> Iterator[Memory]:
        nonlocal looked
        for number in range(3000):
            if number % 500 == 0:
                for file in tmp_path.rglob("*"):
                    if file.is_file():
                        data = file.read_bytes()
                        assert data[:21] in {b"", b"age-encryption.org/v1"}
                        assert HIDDEN.encode() not in data
                        looked += 1
            yield samples.memory(number, f'"{HIDDEN}{number:0400d}"'.encode())

    back_up(tmp_path, {"memories": rows()}, key)
    assert looked >= 4


def test_another_key_is_refused_and_not_called_damage(tmp_path: Path, key: Key, passphrase: Key) -> None:
    back_up(tmp_path / "file", key=key)
    back_up(tmp_path / "phrase", {"used": ROWS["used"]}, key=passphrase)
    other = tmp_path / "other"
    other.write_text(str(pyrage.x25519.Identity.generate()), encoding="utf-8")
    wrong = Key.from_file(other)
    for name, bad in (
        ("file", wrong),
        ("file", passphrase),
        ("phrase", wrong),
        ("phrase", Key.from_passphrase("incorrect")),
    ):
        reading = Place(tmp_path / name).reading(ID, bad)
        with pytest.raises(RefusedError, match=f"The key does not open the backup {ID}"):
            reading.check()
        with pytest.raises(RefusedError):
            list(reading.rows("used"))


def test_without_a_key_it_is_refused(tmp_path: Path, key: Key) -> None:
    back_up(tmp_path, key=key)
    with pytest.raises(RefusedError, match="is encrypted, and there is no key"):
        Place(tmp_path).reading(ID)


def test_a_key_changes_nothing_for_a_backup_in_clear(tmp_path: Path, key: Key) -> None:
    back_up(tmp_path)
    assert read_back(tmp_path, key) == ROWS


def test_a_key_never_shows_what_it_is(key: Key, key_file: Path, passphrase: Key) -> None:
    assert (repr(key), str(passphrase)) == ("Key(identities)", "Key(passphrase)")
    broken = key_file.with_name("broken")
    broken.write_text(key_file.read_text(encoding="utf-8").replace("KEY-1", "KEY-1Q"), encoding="utf-8")
    with pytest.raises(InvalidInputError) as told:
        Key.from_file(broken)
    secret = key_file.read_text(encoding="utf-8").split()[-1].removeprefix("AGE-SECRET-KEY-1")
    assert (
        secret not in f"{told.value!r} {told.value.detail} {told.value.hint} {told.value.facts} {told.value.__cause__}"
    )


@pytest.mark.parametrize(
    "content", [b"", b"# only a comment\n", b"\xff\xfe", b"age1xyz", b"AGE-SECRET-KEY-1", bytes(2**21)]
)
def test_a_file_that_holds_no_identity_is_no_key_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(InvalidInputError) as told:
        Key.from_file(tmp_path / "key")
    assert told.value.field == "key_file"


def test_a_key_file_that_is_not_there_and_an_empty_passphrase_are_invalid(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        Key.from_file(tmp_path / "nowhere")
    for passphrase in ("", "\udcff"):
        with pytest.raises(InvalidInputError) as told:
            Key.from_passphrase(passphrase)
        assert told.value.field == "passphrase"


def test_without_the_extra_keys_are_refused_with_the_command(monkeypatch: pytest.MonkeyPatch, key_file: Path) -> None:
    monkeypatch.setitem(sys.modules, "pyrage", None)
    asked: list[Callable[[], Key]] = [lambda: Key.from_passphrase("x"), lambda: Key.from_file(key_file)]
    for ask in asked:
        with pytest.raises(RefusedError) as told:
            ask()
        assert told.value.hint == "pip install 'mcp-unified-memory[encrypt]'"


def test_the_library_is_loaded_only_where_there_is_a_key() -> None:
    script = "import sys, unified_memory.storage.backup; sys.exit('pyrage' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_what_the_rows_raise_comes_through_the_library(tmp_path: Path, key: Key) -> None:
    def failing() -> Iterator[Memory]:
        yield from (samples.memory(number) for number in range(2000))
        raise StorageCorruptError("The row is damaged")

    with pytest.raises(StorageCorruptError, match="The row is damaged"):
        back_up(tmp_path, {"memories": failing()}, key)
    assert list(tmp_path.iterdir()) == []


def test_rows_are_made_by_the_thread_that_writes(tmp_path: Path, key: Key) -> None:
    seen: set[int] = set()

    def rows() -> Iterator[Memory]:
        seen.add(threading.get_ident())
        yield samples.memory()

    back_up(tmp_path, {"memories": rows()}, key)
    assert seen == {threading.get_ident()}


def test_rows_that_nobody_reads_on_end_their_thread(tmp_path: Path, key: Key) -> None:
    many = [samples.memory(n, b'"%d"' % (n**900)) for n in range(2, 4000)]
    back_up(tmp_path, {"memories": many}, key)
    before = threading.active_count()
    rows = Place(tmp_path).reading(ID, key).rows("memories")
    assert next(rows) == many[0]
    assert threading.active_count() == before + 1
    rows.close()  # type: ignore[attr-defined]  # a generator
    assert threading.active_count() == before


@given(st.lists(st.binary(min_size=1, max_size=100_000), max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
def test_chunks_of_any_size_come_back(key_file: Path, chunks: list[bytes]) -> None:
    keys = identities(key_file)
    sealed: list[bytes] = []
    encrypt(iter(chunks), sealed.append, [keys[0].to_public()])
    plain = decrypt(iter(sealed), keys)
    assert b"".join(plain) == b"".join(chunks)


def test_a_backup_of_nothing_is_one_too(tmp_path: Path, key: Key) -> None:
    with Place(tmp_path).writing(ID, key) as writing:
        writing.finish(**finish())
    assert read_back(tmp_path, key) == {}
