"""What can go wrong with meaning.

UnifiedMemoryError
└── EmbedderError
    ├── ExtraMissingError · UnsuitableModelError
    └── EmbedderUnavailableError · EmbedderAnswerError
"""

from collections.abc import Sequence

from unified_memory.model.errors import UnifiedMemoryError


class EmbedderError(UnifiedMemoryError):
    """Texts cannot be turned into vectors."""

    code = "embedder_error"


class ExtraMissingError(EmbedderError):
    """Packages of the extra `semantic` are not installed; `packages` names them."""

    code = "extra_missing"

    def __init__(self, packages: Sequence[str]) -> None:
        super().__init__(
            f"Not installed: {', '.join(packages)}",
            hint="pip install 'mcp-unified-memory[semantic]'",
            packages=list(packages),
        )


class UnsuitableModelError(EmbedderError):
    """The model cannot be used: a file is missing, damaged, or of another kind."""

    code = "unsuitable_model"

    def __init__(self, model: str, reason: str, *, hint: str | None = None) -> None:
        super().__init__(f"The model {model} cannot be used: {reason}", hint=hint, model=model)


class EmbedderUnavailableError(EmbedderError):
    """The HTTP embedder does not answer, or says that it cannot now. The same request may work later."""

    code = "embedder_unavailable"

    def __init__(self, embedder: str, reason: str) -> None:
        super().__init__(f"The embedder {embedder} is not available: {reason}", embedder=embedder)


class EmbedderAnswerError(EmbedderError):
    """The embedder refused, or gave something that is no embedding of what it was given."""

    code = "embedder_answer"

    def __init__(self, embedder: str, reason: str) -> None:
        super().__init__(f"The embedder {embedder} gave no embedding: {reason}", embedder=embedder)
