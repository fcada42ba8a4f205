"""How large an answer may be, and how large it is: its text and its structured content together."""

from typing import Any

from unified_memory.mcp.budget import BYTES_PER_TOKEN, DEFAULT_TOKENS, tokens
from unified_memory.mcp.schema import Schema, integer
from unified_memory.model.errors import InvalidInputError
from unified_memory.model.value import encode

MAX_TOKENS = 100_000


def room(max_tokens: int | None) -> int:
    """How many bytes an answer may take. Raises InvalidInputError."""
    if max_tokens is None:
        return DEFAULT_TOKENS * BYTES_PER_TOKEN
    if not 1 <= max_tokens <= MAX_TOKENS:
        raise InvalidInputError("max_tokens", f"max_tokens must be from 1 to {MAX_TOKENS}", limit=MAX_TOKENS)
    return max_tokens * BYTES_PER_TOKEN


def max_tokens_schema() -> Schema:
    """The argument that bounds an answer."""
    return integer(maximum=MAX_TOKENS, default=DEFAULT_TOKENS)


def answer_tokens(text: str, structured: Any) -> int:
    """About how many tokens an answer takes."""
    return tokens(text) + tokens(encode(structured).decode())


def shortened(text: str, size: int) -> str:
    """The text, or as much of its beginning as takes no more than `size` bytes with the `…` that then ends it."""
    raw = text.encode()
    if len(raw) <= size:
        return text
    return raw[: max(0, size - len("…".encode()))].decode(errors="ignore") + "…"
