"""The sizes of what is asked for."""

from unified_memory.model.errors import InvalidInputError
from unified_memory.model.query import MAX_LIMIT

TOKEN_BYTES = 4


def check_limit(limit: int) -> int:
    """The limit itself, where it is one. Raises InvalidInputError."""
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInputError("limit", f"limit must be from 1 to {MAX_LIMIT}", limit=MAX_LIMIT)
    return limit


def check_max_tokens(max_tokens: int | None) -> int | None:
    """The bytes of that many tokens, None where the answer is not bounded. Raises InvalidInputError."""
    if max_tokens is None:
        return None
    if max_tokens < 1:
        raise InvalidInputError("max_tokens", "max_tokens must be at least 1")
    return max_tokens * TOKEN_BYTES
