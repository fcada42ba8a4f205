"""Many things in portions, so that neither one statement nor the memory holds all of them."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")
# Of a portion, about: what is larger stands alone.
PORTION_BYTES = 4 * 1024**2


def portions(items: Iterable[T], size_of: Callable[[T], int], most: int) -> Iterator[list[T]]:
    """The items in their order, in portions of at most so many, and of about PORTION_BYTES as `size_of` tells bytes."""
    portion: list[T] = []
    size = 0
    for one in items:
        portion.append(one)
        size += size_of(one)
        if len(portion) == most or size >= PORTION_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion
