"""Which texts say the same: near-duplicates by their words, whatever their case, punctuation, blanks and accents.

A text is sketched by the smallest hashes of its shingles of three words; the share of the smallest hashes of two texts
together that both have estimates, without bias, the share of shingles that they have in common (A. Broder, "On the
resemblance and containment of documents", 1997). Hashes are the same in every process and on every machine.

Texts that differ in a number or in what they deny are never alike, however much else they share: "version 1.2" is not
"version 1.3".
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from itertools import chain
from typing import Any, TypeVar

from unified_memory.model.search import words

SKETCH_SIZE = 256
SHINGLE_WORDS = 3
_T = TypeVar("_T")
_Facts = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]
# Of the languages in which times are read (model/when.py); folded as `words` folds. "t" is that of "don't".
_NEGATIONS = frozenset(
    re.findall(
        r"\w+",
        """
        t not no never none nor neither nothing nobody without cannot
        nicht kein keine keinen keiner nie niemals ohne | pas jamais sans aucun aucune | nunca jamas sin ninguno ninguna
        non senza nessuno nessuna | nao nem sem | niet geen nooit zonder | nigdy bez | не нет ни никогда без
        不 没 沒 未 無 无 非 否 勿 莫
        """,
    )
)
_NEGATIVE = re.compile(r"(?<![\w)\]])[-\u2212]\d+")
# 30 bits, which Python multiplies and compares fastest; of 256 shingles of any two texts less than one in a thousand pairs
# of hashes is equal by chance.
_MASK = (1 << 30) - 1
# Odd, and far apart in their bits, so that the order of the words counts.
_FIRST, _SECOND = 0x1E3779B9, 0x05EBCA6B
_TELLING_WORDS = 16
# Of 16 words, each shared with probability 0.85, fewer than 9 are in one of a thousand pairs.
_LEAST_SHARED = 0.6
# A word that so many groups share does not tell them apart; it is no longer asked for.
_MOST_POSTINGS = 100
_MOST_COMPARED = 4


def normalised_hash(text: str) -> bytes:
    """16 bytes of BLAKE2b of the words of the text; of a text without a word, such as "?!", of its characters but blanks."""
    return _hash_of(words(text), text)


def sketch(text: str) -> frozenset[int]:
    """The 256 smallest 30-bit hashes of the text's shingles of three words, or of its words where it has fewer than three.

    In scripts without blanks each character is a word.
    """
    return _sketch_of(words(text), _Hashes())


def overlap(one: frozenset[int], other: frozenset[int]) -> float:
    """The estimated share (0 to 1) of shingles that two sketched texts have in common, exact up to 256 of both together.

    Its standard error is at most 0.03. Sketches of nothing have nothing in common.
    """
    both = one | other
    shared = one & other
    if not shared:
        return 0.0
    if len(both) <= SKETCH_SIZE:
        return len(shared) / len(both)
    last = sorted(both)[SKETCH_SIZE - 1]
    return sum(each <= last for each in shared) / SKETCH_SIZE


def collapse(
    items: Sequence[_T], text: Callable[[_T], str], newer: Callable[[_T], Any], threshold: float = 0.85
) -> list[tuple[_T, list[_T]]]:
    """Groups of items whose texts are alike, in the order of their best members: the newest member and the others.

    `items` are in the order of their rank; the newest has the greatest `newer`, of equals the better ranked; the others
    are in the order of their rank. Each item is compared with the first of each group only, so that likeness does not
    wander from one to the next. Alike are texts of the same words, and those whose shingles overlap by `threshold` or more.
    An item is compared with at most 4 groups, those that share most of its words. Raises ValueError where `threshold` is not
    above 0 and at most 1.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold must be above 0 and at most 1: {threshold}")
    groups: list[list[_T]] = []
    # What differs in its facts is never alike, and so is kept apart from the beginning.
    hashes = _Hashes()
    kinds: dict[_Facts, _Kind] = {}
    for item in items:
        content = text(item)
        split = words(content)
        facts = _facts(split, content)
        kind = kinds.get(facts)
        if kind is None:
            kind = kinds[facts] = _Kind(threshold, hashes)
        group = kind.place(split, content, len(groups))
        if group == len(groups):
            groups.append([])
        groups[group].append(item)
    collapsed = []
    for group_members in groups:
        newest = max(range(len(group_members)), key=lambda index: newer(group_members[index]))
        collapsed.append((group_members[newest], group_members[:newest] + group_members[newest + 1 :]))
    return collapsed


class _Kind:
    """The groups of texts of the same facts, found again by hash, or by words and then by sketch.

    Sixteen words stand for a text, those of the smallest hashes: texts alike share nearly all of them, and a sketch, the
    larger part of the cost, is made only of what shares most of them.
    """

    def __init__(self, threshold: float, hashes: "_Hashes") -> None:
        self.threshold = threshold
        self.hashes = hashes
        self.by_hash: dict[bytes, int] = {}
        self.alone: tuple[int, list[str]] | None = None
        self.firsts: dict[int, list[str]] = {}
        self.sketches: dict[int, frozenset[int]] = {}
        self.postings: dict[int, list[int]] = {}

    def place(self, split: list[str], content: str, new: int) -> int:
        """The group to which a text belongs: one that is there, or `new`."""
        digest = _hash_of(split, content)
        group = self.by_hash.get(digest)
        if group is None:
            group = self._find_or_open(split, new)
            self.by_hash[digest] = group
        return group

    def _find_or_open(self, split: list[str], new: int) -> int:
        if not self.by_hash:
            # Most texts with numbers stay alone of their kind, and nothing more is asked of them.
            self.alone = (new, split)
            return new
        if self.alone:
            self._open(*self.alone, self._telling(self.alone[1]))
            self.alone = None
        telling = self._telling(split)
        group = self._alike(split, telling)
        if group is None:
            self._open(new, split, telling)
            return new
        return group

    def _telling(self, split: list[str]) -> list[int]:
        return sorted({self.hashes[word] for word in split})[:_TELLING_WORDS]

    def _open(self, group: int, split: list[str], telling: list[int]) -> None:
        self.firsts[group] = split
        for each in telling:
            groups = self.postings.setdefault(each, [])
            if len(groups) < _MOST_POSTINGS:
                groups.append(group)

    def _alike(self, split: list[str], telling: list[int]) -> int | None:
        """The best-ranked group whose first is alike."""
        known = [self.postings.get(each, []) for each in telling]
        shared = Counter(chain.from_iterable(known))
        full = sum(len(groups) == _MOST_POSTINGS for groups in known)
        least = self.threshold * len(telling) * _LEAST_SHARED - full
        likely = [group for group, count in shared.items() if count >= least]
        if len(likely) > _MOST_COMPARED:
            likely = sorted(likely, key=lambda group: (-shared[group], group))[:_MOST_COMPARED]
        if likely:
            sketched = _sketch_of(split, self.hashes)
            for group in sorted(likely):
                if group not in self.sketches:
                    self.sketches[group] = _sketch_of(self.firsts[group], self.hashes)
                first = self.sketches[group]
                # The shared hashes bound the overlap from above, and are counted sooner.
                if len(first & sketched) < self.threshold * max(len(first), len(sketched)):
                    continue
                if overlap(first, sketched) >= self.threshold:
                    return group
        return None


def _hash_of(split: list[str], text: str) -> bytes:
    # The mark keeps "?!" apart from every text of words.
    content = " ".join(split) if split else "\0" + "".join(text.split())
    return blake2b(content.encode(errors="surrogatepass"), digest_size=16).digest()


def _facts(split: list[str], text: str) -> _Facts:
    """The words with digits in their order, the numbers with a minus, and each denial with the word after it."""
    numbers: tuple[str, ...] = ()
    negative: tuple[str, ...] = ()
    denials: tuple[str, ...] = ()
    if not "".join(split).isalpha():
        numbers = tuple(word for word in split if not word.isalpha())
        negative = tuple(_NEGATIVE.findall(text))
    if not _NEGATIONS.isdisjoint(split):
        denials = tuple(
            " ".join(split[index : index + 2])
            for index, word in enumerate(split)
            if word in _NEGATIONS and (word != "t" or (index and split[index - 1].endswith("n")))
        )
    return numbers, negative, denials


class _Hashes(dict[str, int]):
    """The hashes of words, each made once."""

    def __missing__(self, word: str) -> int:
        digest = blake2b(word.encode(), digest_size=4).digest()
        hashed = self[word] = int.from_bytes(digest) & _MASK
        return hashed


def _sketch_of(split: list[str], hashes: _Hashes) -> frozenset[int]:
    hashed = [hashes[word] for word in split]
    if len(hashed) >= SHINGLE_WORDS:
        triples = zip(hashed, hashed[1:], hashed[2:], strict=False)
        hashed = [(one * _FIRST + two * _SECOND + three) & _MASK for one, two, three in triples]
    distinct = frozenset(hashed)
    return distinct if len(distinct) <= SKETCH_SIZE else frozenset(sorted(distinct)[:SKETCH_SIZE])
