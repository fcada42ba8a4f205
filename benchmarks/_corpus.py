"""Memories by the ten thousand, and what to ask for: always the same for the same size.

The texts are put together from sentences of LoCoMo where it lies beside the repository, else from made-up words whose
frequencies fall as those of a natural language do.
"""

import itertools
import random
import re
from collections.abc import Iterator

from msgspec import Struct

from benchmarks._conversations import DATA, load

ROOT_NAMESPACE = "bench"
ONE_NAMESPACE = "bench/one"
ONE_NAMESPACE_MEMORIES = 10_000
ZIPF_NAMESPACES = 1_000
_SHORTEST, _LONGEST = 130, 370
_TAGS = [f"topic-{number}" for number in range(40)]
_COMMON = (
    "the of and to in a is that for it was on are with as be this by at from or have an they which one had not but what "
    "all were when we there can who more about would them some time could people other than then its only into new two "
    "may first any like now my such make over our even most me after also did many before must through years where much "
    "your way well down should because each just those how too little state good very world still see work life never day "
    "another know long great same year come since against go came right used take three"
)
_VOCABULARY = 12_000
# Zipf-Mandelbrot: the frequency of the word of rank r falls as 1 / (r + 2.7).
_MANDELBROT = 2.7
_SYLLABLES = [first + second for first in "bcdfghklmnprstvz" for second in ("a", "e", "i", "o", "u", "ar", "en", "is")]


class Note(Struct, frozen=True):
    """One memory to store."""

    namespace: str
    key: str
    value: str
    metadata: dict[str, object]


class Corpus:
    """`size` memories: up to 10,000 in one namespace, all others over 1,000 namespaces with Zipf's sizes.

    `source` says what the texts are made of.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        sentences, self._questions, self.source = _material()
        self._random = random.Random(size)
        self._texts = _texts(sentences, random.Random(size + 1))
        self.notes = [self._note(number) for number in range(size)]

    def queries(self, count: int, namespaces: str) -> Iterator[tuple[str, str]]:
        """Queries and the namespaces to ask: half of them natural questions, half four words of a stored memory.

        `namespaces` is `one`, `zipf` (that of a random memory outside the one) or `all`.
        """
        chosen = self.notes[ONE_NAMESPACE_MEMORIES:] if namespaces == "zipf" else self.notes[:ONE_NAMESPACE_MEMORIES]
        if namespaces == "all":
            chosen = self.notes
        for number in range(count):
            note = self._random.choice(chosen)
            words = [word for word in re.findall(r"\w+", note.value) if len(word) > 4]
            if number % 2:
                text = self._random.choice(self._questions)
            else:
                text = " ".join(self._random.sample(words, min(4, len(words)))) or note.value[:40]
            yield text, ROOT_NAMESPACE if namespaces == "all" else note.namespace

    def fresh(self, first: int) -> Iterator[Note]:
        """Memories whose keys are new, numbered from `first`, spread over the namespaces as the stored ones are."""
        for number in itertools.count(first):
            like = self.notes[number * 7919 % self.size]
            yield Note(like.namespace, f"fresh-{number:09d}", like.value, like.metadata)

    def _note(self, number: int) -> Note:
        namespace = ONE_NAMESPACE
        if number >= ONE_NAMESPACE_MEMORIES:
            # The logarithm of a Zipf-distributed rank is uniform.
            namespace = f"bench/zipf-{int((ZIPF_NAMESPACES + 1) ** self._random.random()) - 1:03d}"
        metadata: dict[str, object] = {
            "tags": self._random.sample(_TAGS, self._random.randint(0, 2)),
            "importance": self._random.randint(1, 10),
            "author": self._random.choice(("ann", "bob", "cleo", "dan")),
        }
        return Note(namespace, f"note-{number:07d}", next(self._texts), metadata)


def _material() -> tuple[list[str], list[str], str]:
    """Sentences to store, questions to ask, and where they are from."""
    if not DATA.exists():
        return (*_made_up(), "made-up words (LoCoMo is not in ../shared)")
    conversations = load()
    turns = [turn.text for conversation in conversations for turn in conversation.turns]
    sentences = [sentence for turn in turns for sentence in re.split(r"(?<=[.!?])\s+", turn) if len(sentence) > 20]
    questions = [question.text for conversation in conversations for question in conversation.questions]
    return sentences, questions, "sentences and questions of LoCoMo"


def _made_up() -> tuple[list[str], list[str]]:
    chance = random.Random(0)
    invented = ("".join(chance.choices(_SYLLABLES, k=chance.randint(2, 4))) for _ in itertools.count())
    words = list(
        itertools.islice(
            dict.fromkeys(itertools.chain(_COMMON.split(), itertools.islice(invented, 3 * _VOCABULARY))), _VOCABULARY
        )
    )
    weights = list(itertools.accumulate(1 / (rank + _MANDELBROT) for rank in range(1, len(words) + 1)))

    def sentence(end: str) -> str:
        return " ".join(chance.choices(words, cum_weights=weights, k=chance.randint(6, 18))).capitalize() + end

    return [sentence(".") for _ in range(8_000)], [sentence("?") for _ in range(1_000)]


def _texts(sentences: list[str], chance: random.Random) -> Iterator[str]:
    """Whole sentences up to a length between 130 and 370 bytes."""
    while True:
        length = chance.randint(_SHORTEST, _LONGEST)
        text = chance.choice(sentences)
        while len(text.encode()) < _SHORTEST:
            text += " " + chance.choice(sentences)
        while len((longer := text + " " + chance.choice(sentences)).encode()) <= length:
            text = longer
        yield text.encode()[:_LONGEST].decode(errors="ignore")
