"""Codes in memory, and which of them are nearest to a vector.

Many rows are narrowed by the Hamming distance of their sign bits, and only the best of those scored by their int8
values. Nothing depends on the order in which rows came: sums are of integers that a float64 holds exactly, and equals
go by id, newest (largest) first.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Final

import numpy as np
from numpy.typing import NDArray

from unified_memory.semantic import codes as layout

# Up to here every row is scored: the bits would save less than 1 ms.
DIRECT_ROWS: Final = 4_000
_LEAST_CANDIDATES = 400
_CANDIDATES_EACH = 4
_LEAST_CAPACITY = 64
# Rows that are turned into float64 at once: 3 MB at 384 dimensions.
_BLOCK_ROWS = 1_024
# The query's largest value becomes this: 127 x 2^24 x dimensions stays below 2^53 for four million dimensions.
_QUERY_STEPS = 1 << 24
# A dict's value and key that nobody else holds: two int objects.
_ID_BYTES = 64

_Rows = NDArray[np.intp]


class Matrix:
    """Codes by id. One thread at a time: no reading while another one writes.

    `dimensions` is the length of each vector.
    """

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._words = (dimensions + 63) // 64
        self._row_of: dict[int, int] = {}
        self._ids = np.zeros(0, np.int64)
        self._values = np.zeros((0, dimensions), np.int8)
        # One row of words for each 64 dimensions: a scan reads them one after another.
        self._bits = np.zeros((self._words, 0), np.uint64)
        self._inverse_lengths = np.zeros(0, np.float64)

    def __len__(self) -> int:
        return len(self._row_of)

    def __contains__(self, identifier: int) -> bool:
        return identifier in self._row_of

    @property
    def nbytes(self) -> int:
        """Bytes of memory held, room to grow included: of 384 dimensions 550 to 1,000 a row."""
        arrays = (self._ids, self._values, self._bits, self._inverse_lengths)
        return sum(array.nbytes for array in arrays) + sys.getsizeof(self._row_of) + _ID_BYTES * len(self._row_of)

    def put(self, ids: Sequence[int], codes: Sequence[bytes]) -> None:
        """Add the codes, or replace those of ids that are there; of an id that comes twice the last one stays.

        Raises ValueError, and changes nothing, where a code is not of these dimensions or their numbers differ.
        """
        if len(ids) != len(codes):
            raise ValueError(f"{len(ids)} ids came with {len(codes)} codes")
        parts = layout.columns(codes, self._dimensions)
        rows = np.fromiter((self._row_of.setdefault(one, len(self._row_of)) for one in ids), np.intp, len(ids))
        if len(self._row_of) > len(self._ids):
            self._resize(len(self._row_of))
        signs = np.zeros((len(ids), self._words * 8), np.uint8)
        signs[:, : parts.signs.shape[1]] = parts.signs
        squares = np.square(parts.values, dtype=np.int64).sum(axis=1)
        self._ids[rows] = ids
        self._values[rows] = parts.values
        self._bits[:, rows] = signs.view(np.uint64).T
        self._inverse_lengths[rows] = 1 / np.sqrt(np.maximum(squares, 1))

    def remove(self, ids: Iterable[int]) -> int:
        """Take those out that are there; how many that were."""
        removed = 0
        for one in ids:
            row = self._row_of.pop(one, None)
            if row is None:
                continue
            removed += 1
            # The last row fills the hole.
            last = len(self._row_of)
            if row != last:
                moved = int(self._ids[last])
                self._row_of[moved] = row
                self._ids[row] = moved
                self._values[row] = self._values[last]
                self._bits[:, row] = self._bits[:, last]
                self._inverse_lengths[row] = self._inverse_lengths[last]
        if len(self._row_of) < len(self._ids) // 4 and len(self._ids) > _LEAST_CAPACITY:
            # A dict keeps the room of what it lost.
            self._row_of = dict(self._row_of)
            self._resize(len(self._row_of))
        return removed

    def nearest(
        self, vector: NDArray[np.floating], count: int, allowed: Sequence[int] | None = None
    ) -> list[tuple[int, float]]:
        """The `count` ids of the greatest cosine to the vector (dimensions,), greatest first, equals newest first.

        `allowed` limits it to those ids; ids that are not here are passed over. Among more than 4,000 rows the best 400,
        or 4 x `count`, by sign bits are looked at: about 98 of 100 of the true nearest are found.
        Raises ValueError for a vector of other dimensions, of length zero, or not finite.
        """
        query = self._query(vector)
        rows = np.arange(len(self._row_of)) if allowed is None else self._rows(allowed)
        candidates = max(_LEAST_CANDIDATES, _CANDIDATES_EACH * count)
        if len(rows) > max(DIRECT_ROWS, candidates):
            rows = self._narrowed(query, None if allowed is None else rows, candidates)
        cosines = self._cosines(query, rows)
        ids = self._ids[rows]
        if len(rows) > count > 0:
            # All that are as near as the last one wanted, for their ids decide.
            bound = np.partition(cosines, len(rows) - count)[len(rows) - count]
            kept = np.flatnonzero(cosines >= bound)
            ids, cosines = ids[kept], cosines[kept]
        order = np.lexsort((-ids, -cosines))[:count]
        return list(zip(ids[order].tolist(), cosines[order].tolist(), strict=True))

    def cosines(self, vector: NDArray[np.floating], ids: Sequence[int]) -> dict[int, float]:
        """The cosine of the vector to each of the ids that are here. Raises ValueError as `nearest` does."""
        rows = self._rows(ids)
        return dict(zip(self._ids[rows].tolist(), self._cosines(self._query(vector), rows).tolist(), strict=True))

    def _query(self, vector: NDArray[np.floating]) -> NDArray[np.float64]:
        """The vector in integers."""
        largest = np.abs(vector).max(initial=0)
        if vector.shape != (self._dimensions,) or not np.isfinite(largest) or not largest:
            raise ValueError(f"A vector to compare with is finite, not zero, and has {self._dimensions} dimensions")
        return np.rint(vector * (_QUERY_STEPS / np.float64(largest)))

    def _rows(self, ids: Sequence[int]) -> _Rows:
        """The rows of the ids that are here, each once."""
        found = np.zeros(len(self._row_of) + 1, np.bool_)
        # The last place is for all that are not here.
        found[np.fromiter(map(self._row_of.get, ids, repeat(-1)), np.intp, len(ids))] = True
        return np.flatnonzero(found[:-1])

    def _narrowed(self, query: NDArray[np.float64], rows: _Rows | None, count: int) -> _Rows:
        """The `count` rows, of those or of all, that have the fewest signs unlike the query's."""
        signs = np.zeros((1, self._words * 8), np.uint8)
        packed = layout.signs_of(query[None, :])
        signs[:, : packed.shape[1]] = packed
        live = len(self._row_of)
        distances = np.zeros(live if rows is None else len(rows), np.uint16)
        for word, column in zip(signs.view(np.uint64)[0], self._bits, strict=True):
            distances += np.bitwise_count((column[:live] if rows is None else column[rows]) ^ word)
        totals = np.cumsum(np.bincount(distances))
        bound = int(np.searchsorted(totals, count))
        near = np.flatnonzero(distances < bound)
        equal = np.flatnonzero(distances == bound)
        if (wanted := count - len(near)) < len(equal):
            ids = self._ids[equal if rows is None else rows[equal]]
            equal = equal[np.argpartition(-ids, wanted - 1)[:wanted]]
        chosen = np.concatenate((near, equal))
        return chosen if rows is None else rows[chosen]

    def _cosines(self, query: NDArray[np.float64], rows: _Rows) -> NDArray[np.float64]:
        dots = np.empty(len(rows), np.float64)
        for start in range(0, len(rows), _BLOCK_ROWS):
            block = slice(start, start + _BLOCK_ROWS)
            dots[block] = self._values[rows[block]].astype(np.float64) @ query
        return np.clip(dots * self._inverse_lengths[rows] / math.hypot(*query.tolist()), -1, 1)

    def _resize(self, needed: int) -> None:
        """Make room for `needed` rows, the next power of two; what is there stays."""
        capacity = max(_LEAST_CAPACITY, 1 << (needed - 1).bit_length())
        kept = min(capacity, len(self._ids))
        ids, values, bits, inverse_lengths = self._ids, self._values, self._bits, self._inverse_lengths
        self._ids = np.zeros(capacity, np.int64)
        self._values = np.zeros((capacity, self._dimensions), np.int8)
        self._bits = np.zeros((self._words, capacity), np.uint64)
        self._inverse_lengths = np.zeros(capacity, np.float64)
        self._ids[:kept] = ids[:kept]
        self._values[:kept] = values[:kept]
        self._bits[:, :kept] = bits[:, :kept]
        self._inverse_lengths[:kept] = inverse_lengths[:kept]
