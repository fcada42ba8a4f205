"""The sizes of what is asked for."""

from unified_memory.model.errors import InvalidInputError
from unified_memory.model.query import MAX_LIMIT

TOKEN_BYTES = 4


def check_limit(limit: int) -> int:
    """The limit itself, where it is one. Raises InvalidInputError."""
    if not 1 <= limit <= MAX_LIMIT:
        raise InvalidInputError("limit", f"limit must be from 1 to {MAX_LIMIT}", limit=MAX_LIMIT)
    return limit
