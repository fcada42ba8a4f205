"""Writing a backup: into a folder aside, which gets its name when it is whole."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from msgspec import Struct

from unified_memory.model.errors import AlreadyExistsError
from unified_memory.storage.backup import codec, files, lines
from unified_memory.storage.backup.files import TEMP, Written
from unified_memory.storage.backup.manifest import (
    IDENTITY,
    IDENTITY_KIND,
    MANIFEST,
    SUMS,
    Manifest,
    Part,
    pack_manifest,
    pack_sums,
    part_name,
    sha256_of_parts,
)
from unified_memory.storage.backup.sealing import Key, encrypt
from unified_memory.storage.dump import Row

# So much raw text is in a part: a damaged byte is told by its part, and parts can be looked at one by one.
PART_BYTES = 64 * 2**20
_BATCH_BYTES = 128 * 1024


class _Batch(Struct):
    records: int
    text: bytes


class Writing:
    """A backup that is being written, by one thread. Where the block ends without `finish`, nothing is left of it."""

    def __init__(self, path: Path, backup_id: str, key: Key | None) -> None:
        self._path = path
        self._id = backup_id
        self._key = key
        self._temp = path / f".{backup_id}{TEMP}"
        self._recipients: list[Any] = []
        self._parts: list[Part] = []
        self._begun = False
        self._done = False

    def __enter__(self) -> Self:
        with files.told(f"write to {self._path}"):
            files.make(self._path)
            if (self._path / self._id).exists():
                raise AlreadyExistsError("There is a backup of that id", backup_id=self._id)
            try:
                self._temp.mkdir(mode=0o700)
            except FileExistsError as error:
                raise AlreadyExistsError("A backup of that id is being written", backup_id=self._id) from error
        self._begun = True
        try:
            if self._key:
                self._enclose(self._key)
        except BaseException:
            self._discard()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._done:
            self._discard()

    def write(self, kind: str, rows: Iterable[Row], progress: Callable[[int], None] | None = None) -> int:
        """Writes rows of one kind as parts, none where there are no rows, and returns how many there were. Each kind is written
        once. `progress` is told now and then how many there were so far.

        Raises StorageFullError, StorageError, StorageCorruptError where a row holds what no JSON line can, and what the rows
        raise.
        """
        batches = _batches(kind, rows)
        total = number = 0
        batch = next(batches, None)
        while batch is not None:
            number += 1
            filling = _Filling(batch, batches, total, progress)
            name = part_name(kind, number, sealed=bool(self._recipients))
            written = self._write(name, codec.compress(filling.texts()))
            part = Part(name, kind, filling.records, filling.raw_bytes, written.bytes, written.sha256)
            self._parts.append(part)
            total += part.records
            batch = next(batches, None)
        return total

    def finish(
        self,
        *,
        created_at: str,
        store: str,
        seq: int,
        schema: int,
        program: str,
        kind: Literal["full", "incremental"],
        parent: str | None,
        parent_sha256: str | None,
        reason: Literal["manual", "scheduled", "safety"],
        note: str | None,
        memories: int,
        bytes: int,  # noqa: A002 - the manifest's own names
        namespaces: dict[str, int] | None,
    ) -> Manifest:
        """Makes the backup be there, durably, with what its manifest says; the rest of that is known here.

        Raises StorageFullError, StorageError, AlreadyExistsError.
        """
        sealed = self._key is not None
        manifest = Manifest(
            id=self._id,
            created_at=created_at,
            store=store,
            seq=seq,
            schema=schema,
            program=program,
            kind=kind,
            parent=parent,
            parent_sha256=parent_sha256,
            reason=reason,
            note=None if sealed else note,
            memories=memories,
            bytes=bytes,
            namespaces=None if sealed else namespaces,
            encryption="age" if sealed else None,
            parts=self._parts,
            sha256=sha256_of_parts(self._parts),
        )
        text = pack_manifest(manifest)
        files.write(self._temp / MANIFEST, lambda file: file.write(text))
        files.write(self._temp / SUMS, lambda file: file.write(pack_sums(self._parts, text)))
        self._publish()
        self._done = True
        return manifest

    def _enclose(self, key: Key) -> None:
        self._recipients, identity = key.recipients()
        if identity is not None:
            written = files.write(self._temp / IDENTITY, lambda file: file.write(identity))
            part = Part(IDENTITY, IDENTITY_KIND, 0, 0, written.bytes, written.sha256)
            self._parts.append(part)

    def _write(self, name: str, chunks: Iterator[bytes]) -> Written:
        def fill(file: Written) -> None:
            if self._recipients:
                encrypt(chunks, file.write, self._recipients)
            else:
                for chunk in chunks:
                    file.write(chunk)

        return files.write(self._temp / name, fill)

    def _publish(self) -> None:
        target = self._path / self._id
        with files.told(f"finish the backup {self._id}"):
            files.sync(self._temp)
            if target.exists():
                raise AlreadyExistsError("There is a backup of that id", backup_id=self._id)
            self._temp.rename(target)
            try:
                files.sync(self._path)
            except OSError:
                # Nobody knows whether it would still be there after a power cut.
                target.rename(self._temp)
                raise

    def _discard(self) -> None:
        # What cannot be removed now is swept later; the first error is the one to be told.
        with suppress(OSError):
            shutil.rmtree(self._temp)


class _Filling:
    """The text of one part: it begins with a batch and goes on until it is full. `records` and `raw_bytes` so far."""

    def __init__(
        self, first: _Batch, batches: Iterator[_Batch], before: int, progress: Callable[[int], None] | None
    ) -> None:
        self.records = 0
        self.raw_bytes = 0
        self._first = first
        self._batches = batches
        self._before = before
        self._progress = progress

    def texts(self) -> Iterator[bytes]:
        batch: _Batch | None = self._first
        while batch is not None:
            self.records += batch.records
            self.raw_bytes += len(batch.text)
            yield batch.text
            if self._progress:
                self._progress(self._before + self.records)
            if self.raw_bytes >= PART_BYTES:
                return
            batch = next(self._batches, None)


def _batches(kind: str, rows: Iterable[Row]) -> Iterator[_Batch]:
    """Whole lines."""
    taken: list[bytes] = []
    size = 0
    for row in rows:
        line = lines.encode(kind, row)
        taken.append(line)
        size += len(line)
        if size >= _BATCH_BYTES:
            yield _batch(taken)
            taken.clear()
            size = 0
    if taken:
        yield _batch(taken)


def _batch(taken: list[bytes]) -> _Batch:
    return _Batch(len(taken), b"\n".join(taken) + b"\n")
