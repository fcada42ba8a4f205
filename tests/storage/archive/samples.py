"""Files in memory, and records to be archived."""

import json
import random
from collections.abc import Iterable, Sequence

from unified_memory.model.errors import AlreadyExistsError, ArchiveMissingError
from unified_memory.storage.archive import Archive, Damage, Files, Record, Written

WORDS = [
    "the",
    "quick",
    "brown",
    "fox",
    "jumps",
    "over",
    "a",
    "lazy",
    "dog",
    "while",
    "nobody",
    "in",
    "old",
    "gardens",
    "looks",
]


class Held(Files):
    """Files as bytes that a test may change."""

    def __init__(self) -> None:
        self.held: dict[str, bytes] = {}
        self.reads = 0

    def put(self, name: str, chunks: Iterable[bytes]) -> int:
        if name in self.held:
            raise AlreadyExistsError("Taken")
        self.held[name] = b"".join(chunks)
        return len(self.held[name])

    def read(self, name: str, start: int, length: int) -> bytes:
        assert min(start, length) >= 0
        self.reads += 1
        if name not in self.held:
            raise ArchiveMissingError(name)
        return self.held[name][start : start + length]

    def size(self, name: str) -> int:
        if name not in self.held:
            raise ArchiveMissingError(name)
        return len(self.held[name])

    def names(self) -> list[str]:
        return sorted(self.held)

    def total(self) -> int:
        return sum(map(len, self.held.values()))

    def remove(self, name: str) -> None:
        self.held.pop(name, None)

    def sweep(self) -> list[str]:
        return []

    def close(self) -> None:
        return


def sentences(count: int, rng: random.Random, words: int = 12) -> list[Record]:
    """Records whose values share words; ids and seqs rise with holes."""
    return [
        Record(
            7 * i + rng.randrange(7),
            9 * i + rng.randrange(9),
            json.dumps(" ".join(rng.choices(WORDS, k=words))).encode(),
        )
        for i in range(count)
    ]


def noise(count: int, rng: random.Random, size: int = 200) -> list[Record]:
    """Records whose values cannot be compressed."""
    return [Record(i + 1, i + 1, rng.randbytes(size)) for i in range(count)]


def read_all(archive: Archive, written: Written) -> list[bytes]:
    """All values of an archive, in their order."""
    return [archive.read(written.name, each.block, each.slot, each.id) for each in written.places]


def damages(archive: Archive, name: str) -> list[Damage]:
    """What is wrong with an archive."""
    return [found for found in archive.verify(name) if isinstance(found, Damage)]


def values(records: Sequence[Record]) -> list[bytes]:
    """Their values."""
    return [each.value for each in records]
