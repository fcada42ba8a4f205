"""Sparing the reader's context: how many tokens a text takes, and where to cut."""

BYTES_PER_TOKEN = 4
DEFAULT_TOKENS = 4_000


def tokens(text: str) -> int:
    """About how many tokens a text takes: a token for every four bytes of UTF-8, rounded up."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return -(-size // BYTES_PER_TOKEN)
