"""Arrays of vectors, one a row."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from unified_memory.semantic.errors import EmbedderAnswerError

Vectors: TypeAlias = NDArray[np.float32]


def unit(vectors: NDArray[np.floating], embedder: str) -> Vectors:
    """Each row scaled to length 1. Raises EmbedderAnswerError where one is zero or not finite."""
    # In double precision no square of a float32 overflows; what a server said may still.
    with np.errstate(over="ignore"):
        lengths = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True))
    if not (np.isfinite(lengths) & (lengths > 0)).all():
        raise EmbedderAnswerError(embedder, "a vector has no direction")
    scaled: Vectors = (vectors / lengths).astype(np.float32)
    return scaled
