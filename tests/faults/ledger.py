"""What callers were told, held against what is there."""

from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

GONE = None


class State(Struct, frozen=True):
    """What there is of a key: its version, and its value and tags (`value` None: it was deleted, at that version)."""

    version: int
    value: Any
    tags: tuple[str, ...] = ()

    @property
    def there(self) -> bool:
        return self.value is not GONE


NEVER = State(0, GONE)
Ref = tuple[str, str]


class Ledger:
    """Keys with one writer each, who knows what each operation must come to.

    `known` is what was acknowledged. An operation is in doubt from its sending to its acknowledgement; all its keys belong
    together: after a kill either all of them show what it would have made of them or none does.
    """

    def __init__(self) -> None:
        self.known: dict[Ref, State] = {}
        self.doubts: dict[int, dict[Ref, State]] = {}
        self._next = 0
        self.acknowledged = 0

    def state(self, ref: Ref) -> State:
        return self.known.get(ref, NEVER)

    def begin(self, would_be: dict[Ref, State]) -> int:
        """An operation is sent off; returns its number."""
        self._next += 1
        self.doubts[self._next] = would_be
        return self._next

    def confirm(self, number: int) -> None:
        """It was acknowledged."""
        # In this order, and `copy` in the other: a copy on another thread misses nothing.
        self.known |= self.doubts[number]
        del self.doubts[number]
        self.acknowledged += 1

    def refuse(self, number: int) -> None:
        """It was answered that nothing was done."""
        del self.doubts[number]

    def copy(self) -> "Ledger":
        """As it stands now."""
        other = Ledger()
        other.doubts = dict(self.doubts)
        other.known = dict(self.known)
        return other

    def refs(self) -> list[Ref]:
        """Every key that there may be."""
        return sorted(self.known.keys() | {ref for doubt in self.doubts.values() for ref in doubt})

    def settle(self, actual: Mapping[Ref, State]) -> None:
        """Checks what was found (keys that are not there are missing) and takes it for known.

        Every acknowledged state must be there exactly, and every operation in doubt wholly or not at all.
        """
        undecided = {ref for doubt in self.doubts.values() for ref in doubt}
        wrong = {
            ref: (state, actual.get(ref)) for ref, state in self._unlike(self.known, actual) if ref not in undecided
        }
        assert not wrong, f"Acknowledged, and not as it was: {wrong}"
        for would_be in self.doubts.values():
            before = {ref: self.state(ref) for ref in would_be}
            if not list(self._unlike(would_be, actual)):
                self.known |= would_be
            else:
                now = {ref: actual.get(ref) for ref in would_be}
                half = f"Half of an operation: was {before}, should become {would_be}, is {now}"
                assert not list(self._unlike(before, actual)), half
        self.doubts.clear()

    @staticmethod
    def _unlike(expected: Mapping[Ref, State], actual: Mapping[Ref, State]) -> Iterable[tuple[Ref, State]]:
        for ref, state in expected.items():
            found = actual.get(ref)
            if (found is not None) if not state.there else (found != state):
                yield ref, state


def state_of(record: Mapping[str, Any]) -> State:
    """The state that a record of the wire shows."""
    return State(record["version"], record["value"], tuple(record["metadata"]["tags"]))
