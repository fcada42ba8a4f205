"""How good a ranked answer is, when it is known which turns answer the question.

Every result covers a set of turns: a turn itself alone, a fact those it was drawn from. Relevance is binary, so for turns
these are the usual measures; a fact is relevant where it covers a turn of the evidence that no result above it covers.
"""

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from msgspec import Struct

Covered = Sequence[AbstractSet[str]]


class Score(Struct, frozen=True):
    """One question's measures, or their means over several."""

    recall_5: float
    recall_10: float
    ndcg_10: float
    mrr: float


def score(ranked: Covered, evidence: AbstractSet[str]) -> Score:
    """The measures of one answer, looking at its first ten results. `evidence` is not empty."""
    return Score(
        recall(ranked[:5], evidence),
        recall(ranked[:10], evidence),
        ndcg(ranked, evidence, 10),
        reciprocal_rank(ranked[:10], evidence),
    )


def mean(scores: Sequence[Score]) -> Score:
    """The mean of each measure, of at least one score."""
    count = len(scores)
    return Score(
        sum(each.recall_5 for each in scores) / count,
        sum(each.recall_10 for each in scores) / count,
        sum(each.ndcg_10 for each in scores) / count,
        sum(each.mrr for each in scores) / count,
    )


def recall(ranked: Covered, evidence: AbstractSet[str]) -> float:
    """The share of the evidence that the results cover."""
    return len(evidence & frozenset[str]().union(*ranked)) / len(evidence)


def ndcg(ranked: Covered, evidence: AbstractSet[str], depth: int) -> float:
    """Discounted cumulative gain of the first `depth` results (gain 1, discount log2(1 + rank)) over the best possible."""
    left = set(evidence)
    gained = 0.0
    for rank, covers in enumerate(ranked[:depth], 1):
        if not left.isdisjoint(covers):
            gained += 1 / math.log2(1 + rank)
            left -= covers
    best = sum(1 / math.log2(1 + rank) for rank in range(1, min(len(evidence), depth) + 1))
    return gained / best


def reciprocal_rank(ranked: Covered, evidence: AbstractSet[str]) -> float:
    """1 over the rank of the first relevant result; 0 where none is."""
    for rank, covers in enumerate(ranked, 1):
        if not evidence.isdisjoint(covers):
            return 1 / rank
    return 0.0
