"""Confidence intervals by the bootstrap: means over questions that are drawn again and again, with replacement.

Efron, Tibshirani, "An Introduction to the Bootstrap", 1993; the percentile interval. The seed is fixed, so that the same
answers give the same interval.
"""

import random
from collections import defaultdict
from collections.abc import Sequence

from msgspec import Struct

ROUNDS = 2_000
_SEED = 4


class Interval(Struct, frozen=True):
    """A mean and its 95 % confidence interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"

    def signed(self) -> str:
        """As a difference, with its sign."""
        return f"{self.mean:+.3f} [{self.low:+.3f}, {self.high:+.3f}]"


def over_questions(values: Sequence[float], rounds: int = ROUNDS) -> Interval:
    """The mean of at least one value, questions drawn."""
    chance = random.Random(_SEED)
    count = len(values)
    return _interval(values, sorted(sum(chance.choices(values, k=count)) / count for _ in range(rounds)))


def over_conversations(values: Sequence[float], conversations: Sequence[str], rounds: int = ROUNDS) -> Interval:
    """The mean of at least one value, whole conversations drawn; `conversations` names that of each value.

    With few conversations the interval is rough, and with one it is a point.
    """
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for value, conversation in zip(values, conversations, strict=True):
        sums[conversation] += value
        counts[conversation] += 1
    names = sorted(counts)
    chance = random.Random(_SEED)
    means = []
    for _ in range(rounds):
        drawn = chance.choices(names, k=len(names))
        means.append(sum(sums[name] for name in drawn) / sum(counts[name] for name in drawn))
    return _interval(values, sorted(means))


def _interval(values: Sequence[float], means: list[float]) -> Interval:
    last = len(means) - 1
    return Interval(sum(values) / len(values), means[round(last * 0.025)], means[round(last * 0.975)])
