"""Vectors of texts, and those of memories held ready. Imports numpy: only where search by meaning is on."""

import threading
from collections.abc import Iterable, Mapping, Sequence

from unified_memory.semantic.codes import code_bytes, encode
from unified_memory.semantic.embedder import Embedder
from unified_memory.semantic.errors import EmbedderAnswerError
from unified_memory.semantic.matrix import Matrix
from unified_memory.semantic.vectors import Vectors, unit
from unified_memory.storage.base import VectorNews

# A text that every model takes.
PROBE = "memory"


class Engine:
    """An embedder whose vectors are what it promises. Its methods block; any thread may call them."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self.identity = embedder.identity

    def encode(self, texts: Sequence[str]) -> list[bytes | None]:
        """The codes of the texts; None for one that is refused while others are taken. Raises EmbedderError and below."""
        try:
            return list(encode(self._vectors(texts)))
        except EmbedderAnswerError:
            # One of the texts is to blame, or none: then this says so.
            self._vectors([PROBE])
            return [self._alone(text) for text in texts]

    def vector(self, text: str) -> Vectors:
        """The vector (dimensions,) of a text. Raises EmbedderError and below."""
        vector: Vectors = self._vectors([text])[0]
        return vector

    def index(self) -> "Index":
        """An empty index for such vectors."""
        return Index(self._embedder.dimensions)

    def close(self) -> None:
        """Gives back what the embedder holds."""
        self._embedder.close()

    def _alone(self, text: str) -> bytes | None:
        try:
            return encode(self._vectors([text]))[0]
        except EmbedderAnswerError:
            return None

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        vectors = self._embedder.embed(texts)
        wanted = (len(texts), self._embedder.dimensions)
        if vectors.shape != wanted:
            raise EmbedderAnswerError(self.identity, f"vectors of shape {vectors.shape} came, not {wanted}")
        return unit(vectors, self.identity)


class Index:
    """The vectors of some subtrees as they were at `seq` of the commit order, up to `place`. Threads may share it."""

    def __init__(self, dimensions: int) -> None:
        self._matrix = Matrix(dimensions)
        self._code_bytes = code_bytes(dimensions)
        self._lock = threading.Lock()
        self.place = self.seq = 0

    def __len__(self) -> int:
        return len(self._matrix)

    @property
    def nbytes(self) -> int:
        """Bytes of memory held."""
        return self._matrix.nbytes

    def take(self, news: VectorNews) -> int:
        """Follows what happened; how many codes were passed over because they are none of this model's."""
        fitting = [vector for vector in news.vectors if len(vector.code) == self._code_bytes]
        with self._lock:
            self._matrix.remove(news.gone)
            self._matrix.put([vector.id for vector in fitting], [vector.code for vector in fitting])
            self.seq = news.seq
            if news.vectors:
                self.place = news.vectors[-1].place
        return len(news.vectors) - len(fitting)

    def nearest(self, vector: Vectors, count: int) -> list[int]:
        """The ids of the `count` nearest, nearest first."""
        with self._lock:
            return [number for number, _ in self._matrix.nearest(vector, count)]

    def drop(self, ids: Iterable[int]) -> None:
        """Leaves these out from now on."""
        with self._lock:
            self._matrix.remove(ids)

    def cosines(self, vector: Vectors, ids: Sequence[int]) -> dict[int, float]:
        """The cosine to each of those that are here."""
        with self._lock:
            return self._matrix.cosines(vector, ids)


class Near:
    """`model.ranking.Nearness` of an index to a vector."""

    def __init__(self, index: Index, vector: Vectors, nearest: Sequence[int]) -> None:
        self._index = index
        self._vector = vector
        self._nearest = nearest

    def nearest(self) -> Sequence[int]:
        """See `Nearness`."""
        return self._nearest

    def cosines(self, ids: Sequence[int]) -> Mapping[int, float]:
        """See `Nearness`."""
        return self._index.cosines(self._vector, ids)
