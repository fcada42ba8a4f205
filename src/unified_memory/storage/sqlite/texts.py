"""Texts as the ranking reads them, kept for the next search. Shared by the reading threads of a process."""

from msgspec import Struct

from unified_memory.model.ranking import Cut

KEPT = 8_192


class Text(Struct, frozen=True):
    """What the ranking reads of a memory at its place in the commit order. `body`: None for a value that is not read."""

    seq: int
    size: int
    body: Cut | None
    names: Cut
    author: str | None
    occurred_at: str | None
    importance: int
    created_at: int
    updated_at: int


class Texts:
    """The texts that were read last, by memory and language. What is old is known by its place in the commit order."""

    def __init__(self) -> None:
        self._fresh: dict[tuple[int, str], Text] = {}
        self._older: dict[tuple[int, str], Text] = {}

    def get(self, number: int, language: str, seq: int) -> Text | None:
        """The text, where it is kept as of that place."""
        key = (number, language)
        text = self._fresh.get(key)
        if text is None:
            text = self._older.get(key)
            if text is not None:
                self.put(number, language, text)
        return text if text is not None and text.seq == seq else None

    def put(self, number: int, language: str, text: Text) -> None:
        """Keeps a text; after 8,192 others that nobody asked for in between are forgotten."""
        if len(self._fresh) >= KEPT // 2:
            # Each step is one that no other thread can see half of; at worst something is forgotten twice.
            self._older, self._fresh = self._fresh, {}
        self._fresh[number, language] = text
