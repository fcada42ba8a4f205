"""The nearest are found, in the same order whatever came before."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from unified_memory.semantic.codes import decode, encode
from unified_memory.semantic.matrix import DIRECT_ROWS, Matrix

DIMENSIONS = 70
Floats = NDArray[np.float32]


def clustered(rows: int, seed: int, dimensions: int = 384) -> Floats:
    """Unit vectors around one centre for each fifty rows."""
    random = np.random.default_rng(seed)
    centres = random.standard_normal((max(1, rows // 50), dimensions))
    vectors = centres[random.integers(0, len(centres), rows)] + 0.7 * random.standard_normal((rows, dimensions))
    unit: Floats = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return unit


def exact(vectors: Floats, query: Floats, count: int) -> list[int]:
    return [int(row) for row in np.argsort(-(vectors.astype(np.float64) @ query))[:count]]


def brute_force(held: dict[int, bytes], query: Floats, count: int) -> list[int]:
    """The nearest by id from the values of the codes alone; equals newest first."""
    whole = {one: decode([code])[0] for one, code in held.items()}
    cosines = {
        one: round(float(np.dot(np.float64(query), vector) / (np.linalg.norm(np.float64(vector)) or 1)), 9)
        for one, vector in whole.items()
    }
    return sorted(held, key=lambda one: (-cosines[one], -one))[:count]


@pytest.mark.parametrize("rows", [DIRECT_ROWS, 3 * DIRECT_ROWS])
def test_most_of_the_true_nearest_are_found(rows: int) -> None:
    vectors = clustered(rows, seed=1)
    matrix = Matrix(384)
    matrix.put(range(rows), encode(vectors))
    queries = clustered(20, seed=2)[:10] * 0.3 + vectors[:: rows // 10][:10]
    found = [{one for one, _ in matrix.nearest(query, 10)} for query in queries]
    hits = [len(ids & set(exact(vectors, query, 10))) for ids, query in zip(found, queries, strict=True)]
    assert sum(hits) / (10 * len(hits)) >= 0.95


def test_the_score_is_the_cosine() -> None:
    vectors = clustered(200, seed=3)
    matrix = Matrix(384)
    matrix.put(range(200), encode(vectors))
    scores = matrix.cosines(vectors[7], range(200))
    assert scores == pytest.approx(dict(enumerate(vectors @ vectors[7])), abs=0.005)
    assert dict(matrix.nearest(vectors[7] * 5, 200)) == pytest.approx(scores, abs=1e-6)
    assert matrix.cosines(vectors[7], [7, 500, 7]) == {7: scores[7]}


def test_only_what_is_allowed_is_found() -> None:
    rows = 2 * DIRECT_ROWS
    vectors = clustered(rows, seed=4)
    matrix = Matrix(384)
    matrix.put(range(rows), encode(vectors))
    few = list(range(0, rows, 100))
    many = list(range(0, rows, 2))[: DIRECT_ROWS + 1]
    assert [one for one, _ in matrix.nearest(vectors[1], len(few) + 5, [*few, *few, 10**12])] != few
    assert {one for one, _ in matrix.nearest(vectors[1], len(few) + 5, [*few, *few, 10**12])} == set(few)
    assert {one % 2 for one, _ in matrix.nearest(vectors[1], 50, many)} == {0}
    assert matrix.nearest(vectors[2], 1, many)[0][0] == 2
    assert matrix.nearest(vectors[1], 5, []) == []


@pytest.mark.parametrize("rows", [100, 2 * DIRECT_ROWS])
def test_equals_come_newest_first_whatever_order_they_came_in(rows: int) -> None:
    [code] = encode(clustered(1, seed=5))
    query = clustered(1, seed=6)[0]
    forward, backward = Matrix(384), Matrix(384)
    forward.put(range(rows), [code] * rows)
    backward.put(range(rows + 9)[::-1], [code] * (rows + 9))
    backward.remove(range(rows, rows + 9))
    found = forward.nearest(query, 20)
    assert [one for one, _ in found] == list(range(rows - 1, rows - 21, -1))
    assert len({score for _, score in found}) == 1
    assert backward.nearest(query, 20) == found


def test_the_order_depends_on_nothing_but_what_is_there() -> None:
    rows = 2 * DIRECT_ROWS
    vectors = clustered(rows, seed=7)
    codes = encode(vectors)
    one, other = Matrix(384), Matrix(384)
    one.put(range(rows), codes)
    other.put(range(rows, 2 * rows), codes)
    for row in np.random.default_rng(8).permutation(rows).tolist():
        other.put([row], [codes[row]])
    other.remove(range(rows, 2 * rows))
    for query in vectors[:5]:
        assert one.nearest(query, 30) == other.nearest(query, 30)
        assert one.nearest(query, 30, range(6_000)) == other.nearest(query, 30, range(6_000))


def test_memory_is_given_back() -> None:
    matrix = Matrix(384)
    empty = matrix.nbytes
    codes = encode(clustered(2_000, seed=9))
    matrix.put(range(2_000), codes)
    full = matrix.nbytes
    assert 2_000 * 436 < full < 2 * 2_000 * 600
    for start in range(0, 20_000, 500):
        matrix.put(range(start + 2_000, start + 2_500), codes[:500])
        assert matrix.remove(range(start, start + 500)) == 500
    assert matrix.nbytes <= full * 2
    assert matrix.remove(range(30_000)) == 2_000
    assert len(matrix) == 0
    assert matrix.nbytes < max(empty, 200_000)
    assert matrix.nearest(clustered(1, seed=1)[0], 5) == []


def test_a_refused_put_changes_nothing() -> None:
    matrix = Matrix(8)
    good, _ = encode(np.eye(2, 8, dtype=np.float32))
    matrix.put([1], [good])
    for ids, codes in (([1, 2], [good]), ([2, 3], [good, good[:-1]])):
        with pytest.raises(ValueError, match=r"codes|bytes"):
            matrix.put(ids, codes)
    assert (len(matrix), 1 in matrix, 2 in matrix) == (1, True, False)


@pytest.mark.parametrize("vector", [np.zeros(8), np.ones(9), np.full(8, np.nan), np.ones((1, 8))])
def test_what_cannot_be_compared_with_is_refused(vector: NDArray[np.float64]) -> None:
    matrix = Matrix(8)
    matrix.put([1], encode(np.eye(1, 8, dtype=np.float32)))
    with pytest.raises(ValueError, match="8 dimensions"):
        matrix.nearest(vector, 1)
    with pytest.raises(ValueError, match="8 dimensions"):
        matrix.cosines(vector, [1])


CODES = encode(clustered(40, seed=10, dimensions=DIMENSIONS))
STEP = st.one_of(
    st.lists(st.tuples(st.integers(1, 200), st.integers(0, 39)), max_size=90),
    st.lists(st.integers(1, 220), max_size=120),
)


@given(st.lists(STEP, max_size=8), st.integers(1, 30), st.lists(st.integers(1, 220)))
def test_puts_and_removals_leave_what_a_dict_has(
    steps: list[list[tuple[int, int]] | list[int]], count: int, allowed: list[int]
) -> None:
    matrix, held = Matrix(DIMENSIONS), dict[int, bytes]()
    for step in steps:
        puts = [one for one in step if isinstance(one, tuple)]
        removals = [one for one in step if isinstance(one, int)]
        matrix.put([one for one, _ in puts], [CODES[code] for _, code in puts])
        held.update((one, CODES[code]) for one, code in puts)
        assert matrix.remove(removals) == len(held.keys() & set(removals))
        held = {one: code for one, code in held.items() if one not in removals}
    query = clustered(1, seed=11, dimensions=DIMENSIONS)[0]
    assert len(matrix) == len(held)
    assert [one for one, _ in matrix.nearest(query, count)] == brute_force(held, query, count)
    kept = {one: code for one, code in held.items() if one in allowed}
    assert [one for one, _ in matrix.nearest(query, count, allowed)] == brute_force(kept, query, count)
