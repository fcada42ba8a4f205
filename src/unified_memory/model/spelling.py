"""Typing errors: how many of them lie between two words."""

from collections.abc import Iterable

# From so many letters on a word may have one error, and two.
ONE_FROM = 4
TWO_FROM = 8
# A longer one is no word.
LONGEST = 64
# Of more words than that none is taken for a typing error: a question of which no word is known is about something else.
MAX_CORRECTED = 4
# So many letters of a word may be an ending that its stem has lost; and no stem that is tried for one is shorter.
ENDING = 5
LEAST_STEM = 4


def reach(word: str) -> int:
    """How many typing errors a word may have: none in short ones and in numbers, two in long ones."""
    if not ONE_FROM <= len(word) <= LONGEST or any(char.isdigit() for char in word):
        return 0
    return 1 if len(word) < TWO_FROM else 2


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that may be meant by a mistyped one; a long word may have another ending too."""
    allowed = reach(word) + (len(word) >= TWO_FROM)
    found = {held: distance(word, held, allowed) for held in known}
    meant = [held for held, errors in found.items() if 0 < errors <= allowed]
    return min(meant, key=lambda held: (found[held], held), default=None)


def nearness(word: str, its_stem: str, stem: str) -> int:
    """How many errors lie between a word and those of a stem at least; more than `reach` where it is too far.

    The ending of a mistyped word is mostly not one that the stemmer knows, so what the stem lacks may be one.
    """
    allowed = reach(word)
    if stem[:1] not in its_stem[:2]:
        return allowed + 1
    near = distance(its_stem, stem, allowed)
    if len(stem) < max(LEAST_STEM, len(word) - allowed - ENDING):
        return near
    return min(near, beginning_distance(stem, word, allowed))


def distance(one: str, other: str, most: int) -> int:
    """How many letters must be put in, left out, replaced or changed with their neighbour to make one word of the other.

    `most` + 1 where it is more than `most`. Optimal string alignment (Damerau 1964; Boytsov 2011).
    """
    if abs(len(one) - len(other)) > most:
        return most + 1
    row = _last_row(one, other, most)
    return most + 1 if row is None else min(row[-1], most + 1)


def beginning_distance(beginning: str, word: str, most: int) -> int:
    """The distance of a text from the nearest beginning of a word; `most` + 1 where it is more than `most`."""
    row = _last_row(beginning, word, most)
    return most + 1 if row is None else min(*row, most + 1)


def _last_row(one: str, other: str, most: int) -> list[int] | None:
    """The distances of a word from each beginning of another; None where all are more than `most`."""
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, a in enumerate(one, 1):
        above, row = row, [i]
        for j, b in enumerate(other, 1):
            least = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (a != b))
            if i > 1 and j > 1 and a == other[j - 2] and one[i - 2] == b:
                least = min(least, before[j - 2] + 1)
            row.append(least)
        if min(row) > most:
            return None
        before = above
    return row
