"""Vectors in little room: 436 bytes for 384 dimensions, a quarter of float32.

Layout of a code of d dimensions, 4 + d + ceil(d / 8) bytes:

    scale     float32, little-endian: the largest absolute value / 127
    values    d x int8: the nearest integer to value / scale, -127 to 127
    signs     ceil(d / 8) bytes: bit 1 where the value is 0 or more, the first in the highest bit, 0 beyond the last

A value comes back within scale / 2. The zero vector has scale 0.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unified_memory.semantic.vectors import Vectors

_SCALE_BYTES = 4
_LARGEST = 127


class Columns(NamedTuple):
    """The parts of n codes: scales (n,), values (n, d), signs (n, ceil(d / 8))."""

    scales: NDArray[np.float32]
    values: NDArray[np.int8]
    signs: NDArray[np.uint8]


def encode(vectors: Vectors) -> list[bytes]:
    """The codes of the rows of an array (n, d). Raises ValueError where it is not finite or not of two axes."""
    if vectors.ndim != 2 or not np.isfinite(vectors).all():  # noqa: PLR2004 - rows, dimensions
        raise ValueError("Vectors are finite and have two axes")
    scales = (np.abs(vectors).max(axis=1, initial=0) / _LARGEST).astype(np.dtype("<f4"))
    divisors = np.where(scales > 0, scales, 1)[:, None]
    values = np.clip(np.rint(vectors / divisors), -_LARGEST, _LARGEST).astype(np.int8)
    rows = np.concatenate((scales[:, None].view(np.uint8), values.view(np.uint8), signs_of(vectors)), axis=1)
    return [row.tobytes() for row in rows]


def decode(codes: Sequence[bytes]) -> Vectors:
    """The vectors (n, d) of codes of one length, (0, 0) for none. Raises ValueError for what is no code."""
    if not codes:
        return np.empty((0, 0), np.float32)
    scales, values, _ = columns(codes, dimensions_of(codes[0]))
    return values * scales[:, None]


def dimensions_of(code: bytes) -> int:
    """How many dimensions the code has. Raises ValueError where its length is that of no code."""
    dimensions = (len(code) - _SCALE_BYTES) * 8 // 9
    if dimensions < 1 or len(code) != code_bytes(dimensions):
        raise ValueError(f"{len(code)} bytes are no code")
    return dimensions


def code_bytes(dimensions: int) -> int:
    """Length of a code in bytes."""
    return _SCALE_BYTES + dimensions + (dimensions + 7) // 8


def columns(codes: Sequence[bytes], dimensions: int) -> Columns:
    """The parts of the codes. Raises ValueError where one is not of that many dimensions."""
    length = code_bytes(dimensions)
    if (wrong := next((code for code in codes if len(code) != length), None)) is not None:
        raise ValueError(f"A code of {dimensions} dimensions has {length} bytes, not {len(wrong)}")
    rows = np.frombuffer(b"".join(codes), np.uint8).reshape(len(codes), length)
    values_end = _SCALE_BYTES + dimensions
    return Columns(
        np.ascontiguousarray(rows[:, :_SCALE_BYTES]).view(np.dtype("<f4"))[:, 0],
        rows[:, _SCALE_BYTES:values_end].view(np.int8),
        rows[:, values_end:],
    )


def signs_of(vectors: NDArray[np.floating]) -> NDArray[np.uint8]:
    """The sign bits of the rows, as the layout has them."""
    return np.packbits(vectors >= 0, axis=1)
