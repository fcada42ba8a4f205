"""Ranked search over records, in the plainest way that the contract allows."""

import math
import re
from collections.abc import Sequence

from unified_memory.model.search import Hit, SearchTerms, Term, fold, snippet, spaced, words
from unified_memory.storage.inmemory.record import Record, titles

_TITLE_WEIGHT = 2
_RUN = re.compile(r"\S+")


def rank(terms: SearchTerms, records: Sequence[Record]) -> list[Hit]:
    """The records that match, best first: by words, or where none does by the literal text."""
    allowed = [r for r in records if not any(_occurrences(term, r) for term in terms.none)]
    hits = _by_words(terms.any, allowed) or _by_literal(fold(terms.literal.rstrip("*") or terms.literal), allowed)
    return sorted(hits, key=lambda hit: (hit.score, hit.memory.id), reverse=True)


def _by_words(terms: tuple[Term, ...], records: list[Record]) -> list[Hit]:
    """A term weighs more the fewer records hold it (idf) and the more often this one does (tf)."""
    scores = [0.0] * len(records)
    for term in terms:
        frequencies = [_occurrences(term, record) for record in records]
        holding = sum(1 for f in frequencies if f)
        if holding:
            idf = math.log(1 + len(records) / holding)
            scores = [score + idf * tf / (tf + 1) for score, tf in zip(scores, frequencies, strict=True)]
    return [_word_hit(record, terms, score) for record, score in zip(records, scores, strict=True) if score]


def _by_literal(literal: str, records: list[Record]) -> list[Hit]:
    hits = []
    for record in records:
        fields = {"value": record.about.text, **titles(record.memory)}
        matched = [name for name, text in fields.items() if literal and literal in fold(text)]
        if matched:
            text = record.about.text
            hits.append(Hit(record.memory, 0.0, matched, snippet(text, _literal_spans(literal, text))))
    return hits


def _word_hit(record: Record, terms: tuple[Term, ...], score: float) -> Hit:
    text = record.about.text
    fields = {"value": text, **titles(record.memory)}
    matched = [name for name, held in fields.items() if any(_places(term, words(held)) for term in terms)]
    return Hit(record.memory, score, matched, snippet(text, _word_spans(terms, text)))


def _occurrences(term: Term, record: Record) -> int:
    return len(_places(term, record.words)) + _TITLE_WEIGHT * len(_places(term, record.title_words))


def _places(term: Term, held: Sequence[str]) -> list[int]:
    """Where the words of the term begin in a text's words."""
    *whole, last = term.words
    return [
        at
        for at in range(len(held) - len(whole))
        if list(held[at : at + len(whole)]) == whole
        and (held[at + len(whole)] == last or (term.prefix and held[at + len(whole)].startswith(last)))
    ]


def _word_spans(terms: tuple[Term, ...], text: str) -> list[tuple[int, int]]:
    """Where the terms stand in the text, as offsets of its characters."""
    placed: list[tuple[str, int, int]] = []
    for run in _RUN.finditer(text):
        start = run.start()
        # Runs of an unspaced script are cut into their characters; nothing else is changed here.
        for part in spaced(run.group()).split():
            placed += [(word, start, start + len(part)) for word in words(part)]
            start += len(part)
    held = [word for word, _, _ in placed]
    return sorted((placed[at][1], placed[at + len(term.words) - 1][2]) for term in terms for at in _places(term, held))


def _literal_spans(literal: str, text: str) -> list[tuple[int, int]]:
    folded = [(letter, at) for at, char in enumerate(text) for letter in fold(char)]
    found = re.finditer(re.escape(literal), "".join(letter for letter, _ in folded))
    return [(folded[match.start()][1], folded[match.end() - 1][1] + 1) for match in found]
