"""Namespaces in the index: one token for each and for each above it, so that a subtree is one term of a query."""

import hashlib
from functools import lru_cache

from unified_memory.model.namespace import ancestors


@lru_cache(maxsize=4096)
def scope_tokens(namespace: str) -> str:
    """The index's tokens of a namespace and all above it."""
    return " ".join(scope_token(name) for name in ancestors(namespace))


def scope_token(namespace: str) -> str:
    """A word of digits, which no stemmer changes, for a namespace: 48 bits of its hash. What it finds is checked by name."""
    return "n" + str(int.from_bytes(hashlib.blake2b(namespace.encode(), digest_size=6).digest(), "big"))
