"""The files that make up a model."""

from collections.abc import Iterable
from hashlib import file_digest, sha256
from pathlib import Path
from typing import TypeVar

import msgspec

from unified_memory.semantic.errors import UnsuitableModelError

T = TypeVar("T")


def read_text(path: Path) -> str:
    """The file as text. Raises UnsuitableModelError where it cannot be read or is not UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnsuitableModelError(str(path), str(error)) from None


def read_json(path: Path, kind: type[T]) -> T:
    """The file as JSON of that type. Raises UnsuitableModelError where it is not."""
    try:
        return msgspec.json.decode(read_text(path), type=kind)
    except msgspec.DecodeError as error:
        raise UnsuitableModelError(str(path), str(error)) from None


def fingerprint(paths: Iterable[Path]) -> str:
    """The sha256 of one file's bytes, in hex; of several, that of their sha256 sums one after another.

    Raises UnsuitableModelError where one cannot be read.
    """
    sums: list[str] = []
    for path in paths:
        try:
            with path.open("rb") as file:
                sums.append(file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise UnsuitableModelError(str(path), str(error)) from None
    return sums[0] if len(sums) == 1 else sha256("".join(sums).encode()).hexdigest()
