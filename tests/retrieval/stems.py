"""The content words of a question and of a memory, by the stems of the index's own tokenizer."""

from datetime import datetime
from typing import Any

import apsw

from benchmarks._questions import Stored
from unified_memory.model.search import STOP_WORDS, words
from unified_memory.model.value import encode, parse, text_of


class Stemmer:
    """Porter stems as SQLite's FTS5 makes them."""

    def __init__(self) -> None:
        self._connection = apsw.Connection(":memory:")
        self._tokenizer = self._connection.fts5_tokenizer("porter", ["unicode61", "remove_diacritics", "2"])

    def stems(self, text: str) -> frozenset[str]:
        """The stems of a text's words without stop words."""
        content = " ".join(word for word in words(text) if word not in STOP_WORDS)
        stems = self._tokenizer(
            content.encode(), apsw.FTS5_TOKENIZE_DOCUMENT, None, include_offsets=False, include_colocated=False
        )
        return frozenset(str(stem) for stem in stems)

    def told(self, memory: Stored) -> frozenset[str]:
        """The stems of all that names a memory or stands in it: value, key, tags, title, author, date."""
        about: dict[str, Any] = memory.metadata
        date = datetime.fromisoformat(about["occurred_at"])
        parts = [
            text_of(parse(encode(memory.value))),
            memory.key,
            *about.get("tags", []),
            about.get("title", ""),
            about["author"],
            f"{date:%d %B %Y}",
        ]
        return self.stems("\n".join(parts))
