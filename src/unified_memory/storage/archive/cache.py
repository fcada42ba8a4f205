"""What was used last, within bounds."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Cache(Generic[K, V]):
    """Keeps what was used last, of at most `limit` in all by `weight`. May be used by any thread."""

    def __init__(self, limit: int, weight: Callable[[V], int]) -> None:
        self._limit = limit
        self._weight = weight
        self._lock = Lock()
        self._kept: OrderedDict[K, V] = OrderedDict()
        self._total = 0

    def get(self, key: K) -> V | None:
        """What is kept under that key."""
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
            return self._kept.get(key)

    def put(self, key: K, value: V) -> None:
        """Keeps it, and lets go what was not used for longest. What is more than a quarter of the limit is not kept."""
        weight = self._weight(value)
        if weight > self._limit // 4:
            return
        with self._lock:
            self._drop(key)
            self._kept[key] = value
            self._total += weight
            while self._total > self._limit:
                self._drop(next(iter(self._kept)))

    def forget(self, matches: Callable[[K], bool]) -> None:
        """Lets go whatever matches."""
        with self._lock:
            for key in [key for key in self._kept if matches(key)]:
                self._drop(key)

    def _drop(self, key: K) -> None:
        value = self._kept.pop(key, None)
        if value is not None:
            self._total -= self._weight(value)
