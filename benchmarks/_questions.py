"""Our own questions: the memories of a small firm and of a household, of agents' making, and who answers what.

`questions/memories.json` is stored in its order, the oldest first; `questions/questions.json` asks in bands:
`overlap-0` to `overlap-2` share that many content words with their answers at most (after stemming; what a memory's key,
tags, title, author and date say counts too), `code` asks for identifiers, messages, paths and versions, `cjk` in Chinese,
Japanese and Korean, `typing-errors` with a misspelt word or two, `dates` by when something happened, `other-languages` with
other forms of the words in German, French, Spanish and Russian, `who` by the author.
"""

from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

DIRECTORY = Path(__file__).parent / "questions"
OVERLAPS = ("overlap-0", "overlap-1", "overlap-2")
BANDS = (*OVERLAPS, "code", "cjk", "typing-errors", "dates", "other-languages", "who")


class Space(Struct, frozen=True, forbid_unknown_fields=True):
    """A namespace whose language is not English. `language`: as the namespace's setting names it."""

    name: str
    language: str


class Stored(Struct, frozen=True, forbid_unknown_fields=True):
    """A memory as `POST /store` takes it. `value`: any JSON; `metadata`: author, occurred_at and where there are any tags,
    title and session_id.
    """

    namespace: str
    key: str
    value: Any
    metadata: dict[str, Any]


class Asked(Struct, frozen=True, forbid_unknown_fields=True):
    """A question, asked in a namespace and all below it. `answers`: the keys of every memory that answers it."""

    text: str
    namespace: str
    band: str
    answers: list[str]


class Questions(Struct, frozen=True):
    """The set: what is stored, and what is asked."""

    spaces: list[Space]
    memories: list[Stored]
    questions: list[Asked]

    def below(self, namespace: str) -> list[Stored]:
        """The memories of a namespace and of all below it."""
        return [m for m in self.memories if m.namespace == namespace or m.namespace.startswith(namespace + "/")]


def load() -> Questions:
    """The set, from the JSON files beside this module."""
    return Questions(
        msgspec.json.decode((DIRECTORY / "namespaces.json").read_bytes(), type=list[Space]),
        msgspec.json.decode((DIRECTORY / "memories.json").read_bytes(), type=list[Stored]),
        msgspec.json.decode((DIRECTORY / "questions.json").read_bytes(), type=list[Asked]),
    )
