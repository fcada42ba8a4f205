"""Queries that nobody asks on purpose: what a search must answer soon all the same."""

import random
import string
from collections.abc import Callable, Sequence

_SIGNS = "!?.,;:-_/\\|@#$%^&*()[]{}<>+=~`'\"…—«»§°€"
_FREQUENT = ("the", "of", "and", "to", "a", "in", "is", "it", "for", "you")
_SCRIPTS = ((0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0x3041, 0x30FF), (0x0400, 0x04FF), (0x0600, 0x06FF), (0x0E01, 0x0E5B))
_CODEPOINTS = 0x110000


def _any_text(_words: Sequence[str], chance: random.Random) -> str:
    text = "".join(chr(chance.randrange(_CODEPOINTS)) for _ in range(chance.choice((1, 3, 30, 300))))
    # Half a character cannot be sent.
    return text.encode("utf-8", "replace").decode()


def _any_bytes(_words: Sequence[str], chance: random.Random) -> str:
    return chance.randbytes(chance.choice((1, 4, 40, 4_000))).decode("utf-8", "replace")


def _script(_words: Sequence[str], chance: random.Random) -> str:
    first, last = chance.choice(_SCRIPTS)
    return "".join(chr(chance.randint(first, last)) for _ in range(chance.choice((1, 2, 5, 60))))


def _signs(_words: Sequence[str], chance: random.Random) -> str:
    return "".join(chance.choices(_SIGNS + " ", k=chance.choice((1, 2, 5, 500))))


def _letters(_words: Sequence[str], chance: random.Random) -> str:
    return "".join(chance.choices(string.ascii_lowercase, k=chance.choice((1, 2, 3))))


def _prefixes(_words: Sequence[str], chance: random.Random) -> str:
    return " ".join(f"{letter}*" for letter in chance.sample(string.ascii_lowercase, chance.choice((1, 3, 26))))


def _frequent(_words: Sequence[str], chance: random.Random) -> str:
    return " ".join(chance.choices(_FREQUENT, k=chance.choice((1, 3, 40, 5_000))))


def _phrase(words: Sequence[str], chance: random.Random) -> str:
    return '"' + " ".join(chance.choices((*_FREQUENT, *words), k=chance.choice((2, 5, 200)))) + '"'


def _without(words: Sequence[str], chance: random.Random) -> str:
    banned = " ".join(f"-{word}" for word in chance.choices(_FREQUENT, k=chance.choice((1, 8, 200))))
    return f"{chance.choice(words)} {banned}"


def _nothing_but_without(_words: Sequence[str], chance: random.Random) -> str:
    return " ".join(f"-{word}" for word in chance.choices(_FREQUENT, k=chance.choice((1, 8))))


def _inside(words: Sequence[str], chance: random.Random) -> str:
    word = chance.choice(words)
    start = chance.randrange(max(1, len(word) - 2))
    return word[start : start + chance.randint(2, 6)]


def _inside_of_several(words: Sequence[str], chance: random.Random) -> str:
    return f"{chance.choice(words)[-2:]} {chance.choice(words)[:2]}"


def _misspelt(words: Sequence[str], chance: random.Random) -> str:
    told = []
    for word in chance.choices(words, k=chance.choice((1, 2, 4, 30))):
        at = chance.randrange(len(word))
        told.append(
            chance.choice((word[:at] + word[at + 1 :], word[:at] + "q" + word[at:])) + "zq" * chance.randint(0, 1)
        )
    return " ".join(told)


def _long_word(words: Sequence[str], chance: random.Random) -> str:
    return chance.choice(words) * chance.choice((10, 1_000, 20_000))


def _all_words(words: Sequence[str], chance: random.Random) -> str:
    return " ".join(chance.choices(words, k=chance.choice((50, 3_000))))


def _operators(words: Sequence[str], chance: random.Random) -> str:
    pieces = ('"', "*", "-", " ", "AND", "OR", "NOT", "NEAR(", ")", "{body}:", "^", "+", *chance.choices(words, k=6))
    return "".join(chance.choices(pieces, k=chance.choice((3, 12, 400))))


def _dates(_words: Sequence[str], chance: random.Random) -> str:
    return f"{chance.randint(0, 99999)}-{chance.randint(0, 99)} {chance.choice(('May', 'mar', 'monday'))} {chance.random()}"


KINDS: tuple[Callable[[Sequence[str], random.Random], str], ...] = (
    _any_text, _any_bytes, _script, _signs, _letters, _prefixes, _frequent, _phrase, _without, _nothing_but_without, _inside,
    _inside_of_several, _misspelt, _long_word, _all_words, _operators, _dates,
)  # fmt: skip


def odd_query(words: Sequence[str], chance: random.Random) -> str:
    """One of them, of a kind drawn at random; `words` are such as are stored, none empty."""
    return chance.choice(KINDS)(words, chance)
