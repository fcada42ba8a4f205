"""Reading a backup, strictly: whatever is not as it was written is an error that names the file."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from unified_memory.model.errors import RefusedError
from unified_memory.storage.backup import codec
from unified_memory.storage.backup.files import Stored, told
from unified_memory.storage.backup.lines import MalformedError, decoder
from unified_memory.storage.backup.manifest import IDENTITY_KIND, MANIFEST, SUMS, Manifest, Part
from unified_memory.storage.backup.sealing import CiphertextError, Key, KeyMismatchError, decrypt
from unified_memory.storage.dump import Row

_RECORDS_BETWEEN = 4096


class Reading:
    """A complete backup. Raises RefusedError where it is encrypted and there is no key."""

    def __init__(self, path: Path, manifest: Manifest, key: Key | None) -> None:
        if manifest.encryption and key is None:
            raise RefusedError(
                f"The backup {manifest.id} is encrypted, and there is no key for it",
                hint="Give the passphrase or the key file that backups were encrypted with",
                backup_id=manifest.id,
            )
        self.manifest = manifest
        self._path = path
        self._key = key
        self._identities: list[Any] | None = None

    def check(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Reads everything: that each file is there and no other, every sum, and every line. `progress` is told how many bytes
        of how many are done.

        Raises BackupDamagedError naming the file, RefusedError where the key is another one, StorageError.
        """
        self._check_names()
        parts = self.manifest.parts
        total = sum(part.bytes for part in parts)
        done = 0
        for part in parts:
            if part.kind == IDENTITY_KIND:
                self._unlocked()
            else:
                for number, _ in enumerate(self._rows(part)):
                    if progress and number % _RECORDS_BETWEEN == 0:
                        progress(done + part.bytes * number // max(part.records, 1), total)
            done += part.bytes
            if progress:
                progress(done, total)

    def rows(self, kind: str) -> Iterator[Row]:
        """The rows of that kind, in the order in which they were written. The sum of each part is compared behind its last row,
        so nothing may count before the end.

        Raises BackupDamagedError naming the part, RefusedError where the key is another one, StorageError.
        """
        for part in self.manifest.parts:
            if part.kind == kind:
                yield from self._rows(part)

    def _check_names(self) -> None:
        listed = {part.name for part in self.manifest.parts} | {MANIFEST, SUMS}
        with told(f"list the backup {self.manifest.id}"):
            there = {path.name for path in self._path.iterdir()}
        for name in sorted(listed ^ there):
            raise self._stored(name).damaged("it is missing" if name in listed else "it does not belong to the backup")

    def _rows(self, part: Part) -> Iterator[Row]:
        stored = self._stored(part.name)
        decode = decoder(part.kind)
        records = 0
        try:
            with closing(self._texts(part, stored)) as texts:
                for line in _lines(texts):
                    records += 1
                    yield _decoded(decode, line, records)
        except (MalformedError, CiphertextError) as error:
            raise stored.damaged(str(error)) from error
        except KeyMismatchError as error:
            raise self._mismatch(part) from error
        _compare(part, stored)
        if records != part.records:
            raise stored.damaged(f"it has {records} lines instead of {part.records}")

    def _texts(self, part: Part, stored: Stored) -> Generator[bytes, None, None]:
        with closing(_up_to(part, stored)) as chunks:
            if not self.manifest.encryption:
                yield from codec.decompress(chunks, part.raw_bytes)
                return
            with closing(decrypt(chunks, self._unlocked())) as plain:
                yield from codec.decompress(plain, part.raw_bytes)

    def _unlocked(self) -> list[Any]:
        """What decrypts the parts. Deriving a key from a passphrase takes seconds, so it is done once."""
        if self._identities is None and self._key is not None:
            first = next((part for part in self.manifest.parts if part.kind == IDENTITY_KIND), None)
            try:
                self._identities = self._key.identities(None if first is None else self._read_identity(first))
            except KeyMismatchError as error:
                raise self._refused() from error
        return self._identities or []

    def _read_identity(self, part: Part) -> bytes:
        stored = self._stored(part.name)
        data = b"".join(_up_to(part, stored))
        _compare(part, stored)
        return data

    def _mismatch(self, part: Part) -> Exception:
        """Another key, or damage in the very place that says which it is: the sum tells."""
        stored = self._stored(part.name)
        for _ in _up_to(part, stored):
            pass
        _compare(part, stored)
        return self._refused()

    def _refused(self) -> RefusedError:
        backup_id = self.manifest.id
        kind = "a passphrase" if any(part.kind == IDENTITY_KIND for part in self.manifest.parts) else "a key file"
        return RefusedError(
            f"The key does not open the backup {backup_id}",
            hint=f"It was encrypted with {kind}; give the one that was in use then",
            backup_id=backup_id,
        )

    def _stored(self, name: str) -> Stored:
        return Stored(self.manifest.id, self._path / name)


def _up_to(part: Part, stored: Stored) -> Generator[bytes, None, None]:
    """The bytes of a part; no more is ever read than it should have."""
    for chunk in stored.chunks():
        if stored.bytes > part.bytes:
            raise stored.damaged(f"it is longer than {part.bytes} bytes")
        yield chunk


def _compare(part: Part, stored: Stored) -> None:
    """Raises BackupDamagedError where the file, which was read to its end, is not what the manifest says."""
    if stored.bytes != part.bytes:
        raise stored.damaged(f"it has {stored.bytes} bytes instead of {part.bytes}")
    if stored.sha256 != part.sha256:
        raise stored.damaged("its sha256 is not the one that was written down")


def _lines(texts: Iterator[bytes]) -> Iterator[bytes]:
    begun: list[bytes] = []
    for text in texts:
        whole, end, rest = text.rpartition(b"\n")
        if end:
            begun.append(whole)
            yield from b"".join(begun).split(b"\n")
            begun.clear()
        if rest:
            begun.append(rest)
    if begun:
        raise MalformedError("its last line has no end")


def _decoded(decode: Callable[[bytes], Row], line: bytes, number: int) -> Row:
    try:
        return decode(line)
    except MalformedError as error:
        raise MalformedError(f"line {number}: {error}") from error
