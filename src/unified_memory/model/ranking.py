"""How found memories are put in order: the same rules for every storage.

A storage proposes candidates by its index; what is decided here is read from the candidates' own words and those of their
neighbours in the same session. Relevance is BM25F (Robertson and Zaragoza, "The Probabilistic Relevance Framework", 2009,
section 3.6) over the value, the names (key, tags, title, author, date) and the neighbours' values, as a share of what a
memory full of the query's words would reach; so it lies from 0 to 1 and can be compared between queries.
"""

import re
from collections.abc import Mapping, Sequence
from math import log
from typing import Protocol

from msgspec import Struct

from unified_memory.model.analysis import Analyzer
from unified_memory.model.dates import Day, days_apart
from unified_memory.model.search import Term

K1 = 1.2
B = 0.5
NAMES_WEIGHT = 2.0
# A word that is an author's name asks for what that author said; where others say it they mostly address them.
NAMED_WEIGHT = 0.25
# How much the words of a neighbour count, by its distance in the session; what stands before counts more.
NEIGHBOURS = {1: 0.35, 2: 0.3, 3: 0.2, -1: 0.3, -2: 0.2, -3: 0.1}
# An answer seldom repeats the words of the question right before it; and a question seldom holds an answer.
ANSWER_WEIGHT = 0.8
ASKING_FACTOR = 0.9
# What a day near to the one that was asked for adds, at most, as a share of the best relevance.
DATE_WEIGHT = 0.1
DATE_DAYS = 7
# Of the whole score; the rest is cosine. Both are stretched from 0 to 1 over the candidates.
FULLTEXT_SHARE = 0.75
REACH = max(NEIGHBOURS)
ENDING_CHARS = 400
_ASKS = re.compile(r"[?\uff1f\u061f\u037e]\s*(?:\[[^\[\]]*\]\s*)*$")


class Rank(Struct, frozen=True):
    """What else than relevance counts. `importance`: how much of the score the ends of its scale add or take (0: nothing).
    `half_life`: microseconds after which an unchanged memory has lost a quarter of its score, in the end it loses half (None:
    nothing).
    """

    importance: float = 0.0
    half_life: int | None = None


class Nearness(Protocol):
    """How near memories are to a query in meaning."""

    def nearest(self) -> Sequence[int]:
        """Ids of the nearest memories, nearest first."""

    def cosines(self, ids: Sequence[int]) -> Mapping[int, float]:
        """Of those of the memories that have a vector, the cosine."""


class Needle:
    """The terms of a query in one language, ready to be counted in texts. `banned`: terms that must not occur."""

    def __init__(self, terms: Sequence[Term], banned: Sequence[Term], analyzer: Analyzer, stems: "Stems") -> None:
        self._stems = stems
        self._singles: dict[str, list[int]] = {}
        self._runs: list[tuple[int, tuple[str, ...], str | None]] = []
        self._authors: dict[str, frozenset[str]] = {}
        # Whether texts must be cut with their words.
        self.prefixed = any(term.prefix for term in (*terms, *banned))
        # The index terms of each term, by which its rarity is told.
        self.alternatives: list[list[tuple[str, ...]]] = []
        for i, term in enumerate((*terms, *banned)):
            runs: list[tuple[str, ...]]
            if term.plain:
                runs = [(stem,) for stem in dict.fromkeys(stems.of(analyzer.forms(term.words[0]), term.raw))]
            else:
                runs = [tuple(stems.of(term.words, term.raw))]
            self.alternatives.append(runs)
            for run in runs:
                if len(run) == 1 and not term.prefix:
                    self._singles.setdefault(run[0], []).append(i)
                else:
                    self._runs.append((i, run, term.words[-1] if term.prefix else None))

    def count(self, cut: "Cut") -> list[int]:
        """How often each term stands in a text; those that must not occur behind the others."""
        counts = [0] * len(self.alternatives)
        bag = cut.bag
        for stem, places in self._singles.items():
            if stem in bag:
                for i in places:
                    counts[i] += bag[stem]
        for i, run, prefix in self._runs:
            counts[i] += _count_run(cut.stems, run, cut.words, prefix)
        return counts

    def author(self, name: str) -> frozenset[str]:
        """The stems of an author's name."""
        known = self._authors.get(name)
        if known is None:
            known = self._authors[name] = frozenset(self._stems.cut(name))
        return known


class Cut(Struct, frozen=True):
    """A text cut into stems: in order, and how often each occurs; its words (empty: nobody asked); whether it ends in a
    question.
    """

    stems: tuple[str, ...]
    bag: dict[str, int]
    words: tuple[str, ...]
    asks: bool


class Stems(Protocol):
    """Cuts texts of one language into stems."""

    def cut(self, text: str) -> Sequence[str]:
        """The stems of a text, in order."""

    def words(self, text: str) -> Sequence[str]:
        """The folded words of a text, in order, as many as stems."""

    def of(self, words: Sequence[str], raw: Sequence[str]) -> list[str]:
        """The stems of a query's words, given folded and as they were written."""


class PlainStems:
    """`Stems` by an analyzer."""

    def __init__(self, analyzer: Analyzer) -> None:
        self._analyzer = analyzer
        self.words = analyzer.words

    def cut(self, text: str) -> list[str]:
        """See `Stems`."""
        return self._analyzer.terms(text)

    def of(self, words: Sequence[str], raw: Sequence[str]) -> list[str]:
        """See `Stems`."""
        return self._analyzer.stems(raw if len(raw) == len(words) else words)


class Body(Struct):
    """What counts of a memory's value: occurrences of each term, words, whether it ends in a question."""

    counts: list[int]
    length: int
    asks: bool = False


class Candidate(Struct):
    """A memory that may be an answer. `names`: occurrences in key, tags, title, author and date. `base`: what the index made
    of it (None: it is here as a neighbour only). `around`: (distance, body) of its neighbours.
    """

    id: int
    body: Body
    names: list[int]
    names_length: int
    authors: frozenset[str]
    importance: int
    updated_at: int
    day: Day | None
    base: float | None = None
    around: list[tuple[int, Body]] = []


class Scored(Struct):
    """A candidate's score and what it is made of. `terms`: the share of each term of the query in `relevance`;
    `context`: the share that neighbours lent. The factors multiply, `date` and `meaning` (of the cosine) are added.
    """

    id: int
    score: float
    relevance: float
    terms: list[float]
    context: float
    importance: float = 1.0
    recency: float = 1.0
    date: float = 0.0
    cosine: float | None = None
    own: bool = True


class Query(Struct):
    """What is asked: the terms, how many memories hold each of them, how many there are; days that were named."""

    terms: Sequence[Term]
    stems: Sequence[frozenset[str]]
    holding: Sequence[float]
    documents: int
    days: Sequence[Day]


def cut_text(text: str, stems: Stems, *, words: bool = False) -> Cut:
    """Cuts a text, with its words where asked for."""
    held = tuple(stems.cut(text))
    bag: dict[str, int] = {}
    for stem in held:
        bag[stem] = bag.get(stem, 0) + 1
    return Cut(held, bag, tuple(stems.words(text)) if words else (), _ASKS.search(text[-ENDING_CHARS:]) is not None)


def body_of(cut: Cut, needle: Needle) -> Body:
    """What counts of a value."""
    return Body(needle.count(cut), len(cut.stems), cut.asks)


def rarity(documents: int, holding: float) -> float:
    """The inverse document frequency, never negative."""
    return log(1 + (max(documents, holding) - holding + 0.5) / (holding + 0.5))


def order(
    query: Query,
    candidates: Sequence[Candidate],
    rank: Rank,
    now: int,
    cosines: Mapping[int, float] | None = None,
    *,
    fulltext: bool = True,
) -> list[Scored]:
    """The candidates, best first; ties by id, newest first. Those that hold nothing of the query are left out, unless they
    are near in meaning; neighbours only stay where they come before one that the index proposed.
    """
    if not candidates:
        return []
    weights = [rarity(query.documents, held) for held in query.holding]
    authors = frozenset[str]().union(*(c.authors for c in candidates))
    # Of each term how much it counts in a value, and whether it counts in the neighbours' values.
    plain = [term.plain for term in query.terms]
    named = [one and bool(stems & authors) for one, stems in zip(plain, query.stems, strict=True)]
    shares = [
        (NAMED_WEIGHT if is_name else 1.0, one and not is_name) for one, is_name in zip(plain, named, strict=True)
    ]
    lengths = [c.body.length + c.names_length + sum(body.length for _, body in c.around) for c in candidates]
    average = sum(lengths) / len(lengths) or 1.0
    scored = [
        _relevance(candidate, weights, shares, length / average)
        for candidate, length in zip(candidates, lengths, strict=True)
    ]
    _add_dates(query, candidates, scored)
    if cosines is not None:
        _fuse(scored, cosines, FULLTEXT_SHARE if fulltext else 0.0)
    for candidate, one in zip(candidates, scored, strict=True):
        one.importance = 1 + rank.importance * (candidate.importance - 5) / 5
        if rank.half_life is not None:
            one.recency = 0.5 + 0.5 * 2.0 ** (-max(0, now - candidate.updated_at) / rank.half_life)
        one.score *= one.importance * one.recency
        one.own = candidate.base is not None
    ranked = sorted(
        (one for one in scored if one.score > 0 or one.cosine is not None), key=lambda one: (-one.score, -one.id)
    )
    # Candidates that are nothing but neighbours must not push an index's own proposals off the page.
    last = max((i for i, one in enumerate(ranked) if one.own), default=-1 if cosines is None else len(ranked) - 1)
    return ranked[: last + 1] if cosines is None else ranked


def _relevance(
    candidate: Candidate, weights: Sequence[float], shares: Sequence[tuple[float, bool]], length: float
) -> Scored:
    norm = K1 * (1 - B + B * length)
    total = lent = 0.0
    parts = []
    body, names = candidate.body.counts, candidate.names
    around = [
        (ANSWER_WEIGHT if distance == 1 and nearby.asks else NEIGHBOURS[distance], nearby.counts)
        for distance, nearby in candidate.around
    ]
    for i, weight in enumerate(weights):
        share, lends = shares[i]
        own = names[i] * NAMES_WEIGHT + body[i] * share
        context = 0.0
        if lends:
            for near, counts in around:
                if counts[i]:
                    context += near * counts[i]
        frequency = own + context
        part = weight * frequency / (frequency + norm)
        parts.append(part)
        total += part
        if context:
            lent += part * context / frequency
    possible = sum(weights) or 1.0
    relevance = total / possible
    if candidate.body.asks and candidate.around:
        relevance *= ASKING_FACTOR
    return Scored(candidate.id, relevance, relevance, [part / possible for part in parts], lent / possible)


def _add_dates(query: Query, candidates: Sequence[Candidate], scored: Sequence[Scored]) -> None:
    if not query.days:
        return
    best = max(one.relevance for one in scored)
    for candidate, one in zip(candidates, scored, strict=True):
        if candidate.day is not None and one.relevance > 0:
            day = candidate.day
            apart = min(days_apart(asked, day) for asked in query.days)
            one.date = DATE_WEIGHT * best * max(0.0, 1 - apart / DATE_DAYS)
            one.score += one.date


def _fuse(scored: Sequence[Scored], cosines: Mapping[int, float], fulltext: float) -> None:
    """Weighted sum of both, each stretched over all candidates; a candidate without a vector has the least cosine.

    What is good only beside worse stays low: all are scaled by the best there is, by words or by meaning.
    """
    known = [cosines[one.id] for one in scored if one.id in cosines]
    if not known:
        return
    low, high = min(known), max(known)
    # Where all are equally near, each is as near as one can be.
    low = low if low < high else low - 1
    best = max(one.score for one in scored)
    scale = min(1.0, max(best, high))
    for one in scored:
        one.cosine = cosine = cosines.get(one.id)
        meaning = 0.0 if cosine is None else (cosine - low) / (high - low)
        words = one.score / best if best else 0.0
        one.score = scale * (fulltext * words + (1 - fulltext) * meaning)


def _count_run(held: Sequence[str], run: tuple[str, ...], raw: Sequence[str], prefix: str | None) -> int:
    size = len(run)
    count = 0
    for at in range(len(held) - size + 1):
        if held[at] != run[0] and size > 1:
            continue
        whole = all(held[at + n] == run[n] for n in range(size - 1))
        last = held[at + size - 1] == run[-1] or (prefix is not None and raw[at + size - 1].startswith(prefix))
        count += whole and last
    return count
