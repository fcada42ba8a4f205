"""Texts of a realistic vocabulary in any number, for filling a service.

Each joins clauses of people's chats (LoCoMo's turns, where ../shared/locomo is beside the repository), of the descriptions
of installed packages and of the standard library's docstrings, and some name a person, thing or number of their own: the
vocabulary goes on growing with the number of texts, as that of natural language does. The same environment gives the same texts.
"""

import itertools
import random
import re
import sysconfig
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path

from benchmarks import _questions
from benchmarks._conversations import DATA, load
from unified_memory.model.search import STOP_WORDS

# Characters. The mean is about 150.
_SHORTEST, _LONGEST = 60, 210
_CLAUSE = re.compile(r"(?<=[.!?;:,])\s+")
_LEAST_CLAUSE = 18
_MOST_CLAUSE = 110
_PROSE = re.compile(r"[A-Za-z][\w ,.';:()!?/-]+")
_DOCSTRING = re.compile(r'"""(.+?)"""', re.DOTALL)
# Not everywhere installed, or no prose.
_NOT_LIBRARY = frozenset({"site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo"})
_NAMES = 200_000
# The share of texts with a rare name.
_NAMED = 0.3
_SYLLABLES = [first + second for first in "bcdfghklmnprstvz" for second in ("a", "e", "i", "o", "u", "ar", "en", "is")]
_WORD = re.compile(r"[A-Za-z]{3,}")
_ENGLISH = ("lumen", "brandt-okafor")


class Texts:
    """What texts are made of. `source` tells it, `questions` are what people would ask."""

    def __init__(self) -> None:
        chats, asked = _chats()
        prose = [*_descriptions(), *_docstrings()]
        self.clauses = sorted({clause for text in (*chats, *prose) for clause in _clauses(text)})
        self.questions = asked or [q.text for q in _questions.load().questions if q.namespace in _ENGLISH]
        named = "LoCoMo's turns, descriptions of packages" if chats else "Descriptions of packages"
        self.source = f"{named} and docstrings: {len(self.clauses):,} clauses"

    def make(self, seed: int) -> Iterator[str]:
        """Texts without end; a seed gives the same ones."""
        chance = random.Random(seed)
        while True:
            length = chance.randint(_SHORTEST, _LONGEST)
            text = chance.choice(self.clauses)
            while len(text) < length:
                text += " " + chance.choice(self.clauses)
            text = text[:_LONGEST].rsplit(" ", 1)[0]
            yield f"{_name(chance)}: {text}" if chance.random() < _NAMED else text


def content_words(text: str, count: int, chance: random.Random) -> str:
    """That many of a text's words without stop words, in any order; all where it has fewer."""
    found = sorted({word for word in _WORD.findall(text) if word.lower() not in STOP_WORDS})
    return " ".join(chance.sample(found, min(count, len(found))))


def _name(chance: random.Random) -> str:
    """A name by its rank: few are named often, most hardly ever (the logarithm of a rank of Zipf's is uniform)."""
    rank = int(_NAMES ** chance.random())
    own = random.Random(rank)
    name = "".join(own.choices(_SYLLABLES, k=own.randint(2, 4)))
    return f"{name}-{own.randint(1, 999)}" if own.random() < 0.2 else name.capitalize()


def _clauses(text: str) -> Iterator[str]:
    for clause in _CLAUSE.split(" ".join(text.split())):
        if _LEAST_CLAUSE <= len(clause) <= _MOST_CLAUSE and _PROSE.fullmatch(clause):
            yield clause


def _chats() -> tuple[list[str], list[str]]:
    if not DATA.exists():
        return [], []
    conversations = load()
    turns = [turn.text for conversation in conversations for turn in conversation.turns]
    return turns, [question.text for conversation in conversations for question in conversation.questions]


def _descriptions() -> Iterator[str]:
    for distribution in sorted(distributions(), key=lambda each: each.metadata["Name"]):
        told = distribution.metadata.json
        for field in ("summary", "description"):
            if isinstance(text := told.get(field), str):
                yield from text.split("\n\n")


def _docstrings() -> Iterator[str]:
    library = Path(sysconfig.get_paths()["stdlib"])
    for file in sorted(itertools.chain(library.glob("*.py"), library.glob("*/*.py"))):
        if file.parent.name not in _NOT_LIBRARY:
            for text in _DOCSTRING.findall(file.read_text(encoding="utf-8", errors="replace")):
                yield from text.split("\n\n")
