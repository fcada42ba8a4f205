"""Vectors come back from their codes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from unified_memory.semantic.codes import code_bytes, columns, decode, dimensions_of, encode


@given(
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(1, 5), st.integers(1, 70)),
        elements=st.floats(-1, 1, width=32, allow_subnormal=False),
    )
)
def test_every_value_comes_back_within_half_a_step(vectors: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> None:
    codes = encode(vectors)
    steps = np.abs(vectors).max(axis=1, keepdims=True) / 127
    assert {len(code) for code in codes} == {code_bytes(vectors.shape[1])}
    assert (np.abs(decode(codes) - vectors) <= steps * 0.5001 + 1e-37).all()
    assert dimensions_of(codes[0]) == vectors.shape[1]


def test_the_layout_is_scale_values_signs() -> None:
    [code] = encode(np.array([[1.27, -0.64, 0, 0.004, -0.004, 0, 0, 0, -1]], np.float32))
    assert code == np.float32(0.01).tobytes() + bytes([127, 256 - 64, 0, 0, 0, 0, 0, 0, 256 - 100, 0b10110111, 0])


def test_384_dimensions_take_436_bytes() -> None:
    assert code_bytes(384) == 436


def test_nothing_becomes_nothing() -> None:
    assert encode(np.empty((0, 3), np.float32)) == []
    assert decode([]).shape == (0, 0)


@pytest.mark.parametrize("vectors", [np.ones(3, np.float32), np.array([[np.nan]], np.float32)])
def test_what_is_no_list_of_vectors_is_refused(vectors: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> None:
    with pytest.raises(ValueError, match="finite"):
        encode(vectors)


def test_what_is_no_code_is_refused() -> None:
    with pytest.raises(ValueError, match="14 bytes"):
        dimensions_of(bytes(14))
    with pytest.raises(ValueError, match="has 13 bytes, not 0"):
        columns([bytes(13), b""], 8)
