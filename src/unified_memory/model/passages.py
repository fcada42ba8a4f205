"""The best passages of a long text: where the matches are, rather than where it begins.

A passage is a run of whole sentences and lines of at most 480 characters. It scores the sum of the weights of the distinct
terms in it; each further occurrence of a term, up to three, adds a tenth. Passages are chosen one by one, and a term that an
earlier one shows counts a fifth, so that each tells something new (maximal marginal relevance: Carbonell and Goldstein,
SIGIR 1998). What is then left of the room goes to the sentences around them.

The time is linear in the number of matches; of the text only what lies around the chosen matches is read.
"""

import re
import unicodedata
from bisect import bisect_left, insort
from collections.abc import Sequence
from heapq import heapify, heappop, heappush

from msgspec import Struct

PASSAGE_CHARS = 480
ELLIPSIS = " … "
_SHOWN = 0.2
_REPEAT = 0.1
_REPEATS = 3
# Below this a passage is too little to be understood; it gets the sentences around it before the next one is chosen.
_LEAST_CHARS = 120
# So many good places in a row that do not fit into what is left of the room: it is as good as used up.
_MISSES = 8
# After a line; after the full stop of a sentence with its quotes and brackets and a blank, unless a small letter goes on
# ("e.g. this"); after a full stop of the scripts that put no blank there. One set first: what follows is tried seldom.
_LINE_ENDS = r"\n\r\u2028\u2029"
_CJK_STOPS = "\u3002\uff01\uff1f\uff61\uff0e"
# Of Latin and its neighbours, then Devanagari, Arabic and Urdu, Armenian.
_STOPS = ".!?\u2026\u0964\u0965\u061f\u06d4\u0589"
_CJK_CLOSING = "\u300d\u300f\u201d\u2019\uff09\u3011"
_CLOSING = "\"'\u201d\u2019\u00bb)\\]"
_BORDER = re.compile(
    rf"[{_LINE_ENDS}{_CJK_STOPS}{_STOPS}]"
    rf"(?:(?<=[{_LINE_ENDS}])\s*+|(?<=[{_CJK_STOPS}])[{_CJK_CLOSING}]{{0,3}}\s*+|[{_CLOSING}]{{0,3}}\s++(?![a-z]))"
)
_BLANK = re.compile(r"[\s,\u3001\uff0c]")
_PARAGRAPH = re.compile(r"[^\S\n]*+\n[^\S\n]*+\n")
_MARGIN = 8


class Match(Struct, frozen=True, gc=False):
    """A term found at characters `start` to `end` (exclusive). `term` is any number that tells terms apart; of unequal
    weights of a term the highest counts.
    """

    start: int
    end: int
    term: int
    weight: float


class Passage(Struct, frozen=True):
    """The characters `start` to `end` (exclusive) of a text; `score` is comparable within one text and query."""

    start: int
    end: int
    score: float


def passages(text: str, matches: Sequence[Match], max_chars: int) -> list[Passage]:
    """The best passages, together at most `max_chars` long, in the order of the text, none overlapping.

    `matches` are in the order of their starts. A passage has at most 480 characters, but a text that fits is
    one passage, and so is, without a match, its beginning.
    """
    return _choose(text, matches, max_chars, 0)


def shorten(text: str, matches: Sequence[Match], max_chars: int) -> str:
    """The best passages in one text of at most `max_chars` characters, with an ellipsis wherever something was left out."""
    if len(text) <= max_chars:
        return text
    room = max_chars - 1
    parts: list[str] = []
    at = 0
    for passage in _choose(text, matches, room, len(ELLIPSIS)):
        between = text[at : passage.start]
        if between.isspace():
            parts.append(between[: len(ELLIPSIS)] if parts else "")
        elif between:
            parts.append(ELLIPSIS if parts else ELLIPSIS.lstrip())
        parts.append(text[passage.start : passage.end])
        at = passage.end
    if not parts:
        return text[: _whole_characters(text, max_chars)] if max_chars > 0 else ""
    return "".join(parts) + (ELLIPSIS.rstrip() if text[at:].strip() else "")


def _choose(text: str, matches: Sequence[Match], max_chars: int, gap: int) -> list[Passage]:
    """As `passages`, each passage costing `gap` characters besides its own."""
    if max_chars <= gap or not text:
        return []
    if len(text) <= max_chars:
        return [Passage(0, len(text), _Choice(text, matches, max_chars, gap).score(0, len(text)))]
    choice = _Choice(text, matches, max_chars, gap)
    choice.run()
    if not choice.ranked:
        return [Passage(0, _beginning(text, max_chars - gap), 0.0)]
    choice.grow()
    return [Passage(start, end, choice.score(start, end)) for start, end in choice.taken]


class _Choice:
    """The choosing for one text. `taken` are the (start, end) chosen so far in the order of the text, `ranked` as chosen."""

    def __init__(self, text: str, matches: Sequence[Match], max_chars: int, gap: int) -> None:
        self.text = text
        self.matches = matches
        self.starts = [match.start for match in matches]
        self.gap = gap
        self.left = max_chars
        self.limit = max(1, min(PASSAGE_CHARS, max_chars - gap))
        self.taken: list[tuple[int, int]] = []
        self.ranked: list[tuple[int, int]] = []
        self.weights: dict[int, float] = {}
        for match in matches:
            if match.weight > self.weights.get(match.term, 0.0):
                self.weights[match.term] = match.weight
        self.shown: set[int] = set()

    def run(self) -> None:
        """Takes passages, the best first, while there is room.

        Windows of two strides, one stride apart, say roughly where to look; only the best is looked at closely.
        """
        stride = max(1, self.limit // 2)
        terms = sorted({match.term for match in self.matches})
        bits = {term: 1 << index for index, term in enumerate(terms)}
        sets: dict[int, int] = {}
        sizes: dict[int, int] = {}
        for match in self.matches:
            at = match.start // stride
            sets[at] = sets.get(at, 0) | bits[match.term]
            sizes[at] = sizes.get(at, 0) + 1
        windows = {at: here | sets.get(at + 1, 0) for at, here in sets.items()}
        gains: dict[int, float] = {}

        def entry(at: int) -> tuple[float, int, int, int]:
            window = windows[at]
            gain = gains.get(window)
            if gain is None:
                gain = gains[window] = sum(self._worth(term) for term in terms if bits[term] & window)
            return -gain, -sizes[at] - sizes.get(at + 1, 0), at, len(self.shown)

        heap = [entry(at) for at in windows]
        heapify(heap)
        misses = 0
        while heap and misses < _MISSES:
            # Of less room the passages that are there make more.
            if self.left - self.gap < (min(_LEAST_CHARS, self.limit) if self.taken else 1):
                break
            _, _, at, shown = heappop(heap)
            if shown != len(self.shown):
                heappush(heap, entry(at))
                continue
            low, high = at * stride, (at + 2) * stride
            before = len(self.shown)
            if not self._take(low, high):
                misses += 1
                continue
            misses = 0
            if len(self.shown) != before:
                gains.clear()
            # What the passage left over of its window may be worth another one.
            rest = {match.term for match in self._within(low, high) if self._is_free(match.start)}
            if rest:
                windows[at] = sum(bits[term] for term in rest)
                heappush(heap, entry(at))

    def grow(self) -> None:
        """Spends the room that is left on the sentences around the passages, the best passage first."""
        for place in list(self.ranked):
            self._grow(place, self.limit)

    def score(self, start: int, end: int) -> float:
        """What the passage is worth by itself."""
        counts: dict[int, int] = {}
        weights: dict[int, float] = {}
        for match in self._within(start, end):
            if match.end <= end:
                counts[match.term] = counts.get(match.term, 0) + 1
                weights[match.term] = max(match.weight, weights.get(match.term, 0.0))
        return sum(weights[term] * (1 + _REPEAT * min(count - 1, _REPEATS)) for term, count in counts.items())

    def _worth(self, term: int) -> float:
        return self.weights.get(term, 0.0) * (_SHOWN if term in self.shown else 1.0)

    def _within(self, low: int, high: int) -> Sequence[Match]:
        return self.matches[bisect_left(self.starts, low) : bisect_left(self.starts, high)]

    def _is_free(self, at: int) -> bool:
        index = bisect_left(self.taken, (at + 1,))
        return not (index and self.taken[index - 1][1] > at)

    def _take(self, low: int, high: int) -> bool:
        """Takes the best run of sentences around the matches of the window; False where none fits."""
        best: tuple[float, int, int, int] | None = None
        for free_low, free_high in self._gaps(low, high):
            run = self._best_run(free_low, free_high, low, high)
            if run and (best is None or run > best):
                best = run
        if best is None:
            return False
        start, end = -best[2], best[3]
        self.left -= end - start + self.gap
        insort(self.taken, (start, end))
        self.ranked.append((start, end))
        start, end = self._grow((start, end), min(_LEAST_CHARS, self.limit))
        self.shown.update(match.term for match in self._within(start, end))
        return True

    def _gaps(self, low: int, high: int) -> list[tuple[int, int]]:
        """The places around the window that no passage has taken, as far as a passage may reach."""
        gaps = []
        at = max(0, low - self.limit)
        last = min(len(self.text), high + self.limit)
        index = max(0, bisect_left(self.taken, (at,)) - 1)
        for start, end in self.taken[index:]:
            if start >= last:
                break
            if at < start:
                gaps.append((at, start))
            at = max(at, end)
        if at < last:
            gaps.append((at, last))
        return gaps

    def _best_run(self, low: int, high: int, first: int, last: int) -> tuple[float, int, int, int] | None:
        """The best run between `low` and `high` by the matches that start between `first` and `last`: worth, minus its
        length, minus its start, its end. Of equals the shortest, then the earliest.
        """
        matches = self._within(max(low, first), min(high, last))
        if not matches:
            return None
        edges = [low, *self._edges(low, high), high]
        room = min(self.limit, self.left - self.gap)
        best: tuple[float, int, int, int] | None = None
        beginnings = sorted({bisect_left(edges, match.start + 1) - 1 for match in matches})
        for beginning in beginnings:
            edge = edges[beginning]
            start = edge + len(self.text[edge:high]) - len(self.text[edge:high].lstrip())
            counts: dict[int, int] = {}
            worth = 0.0
            for match in self._within(start, min(last, start + room)):
                edge = edges[min(bisect_left(edges, match.start + 1), len(edges) - 1)]
                end = self._stripped(start, edge)
                if end - start > room or match.end > end:
                    break
                seen = counts.get(match.term, 0)
                counts[match.term] = seen + 1
                if seen <= _REPEATS:
                    worth += self._worth(match.term) * (_REPEAT if seen else 1.0)
                run = (worth, start - end, -start, end)
                if best is None or run > best:
                    best = run
        return best

    def _stripped(self, start: int, end: int) -> int:
        return start + len(self.text[start:end].rstrip())

    def _edges(self, low: int, high: int) -> list[int]:
        """Where a sentence or line begins between `low` and `high`; longer ones are cut at blanks, and never in a match."""
        edges: list[int] = []
        at = low
        for border in [*(found.end() for found in _BORDER.finditer(self.text, low, high)), high]:
            while border - at > self.limit:
                at = self._cut(at)
                if at >= border:
                    break
                edges.append(at)
            if at < border < high:
                at = border
                edges.append(at)
        return edges

    def _cut(self, at: int) -> int:
        """A place to cut a sentence that goes on from `at` for longer than a passage."""
        piece = max(1, self.limit // 4)
        cut = at + piece
        blanks = [found.end() for found in _BLANK.finditer(self.text, at + piece // 2, cut)]
        if blanks:
            return blanks[-1]
        index = bisect_left(self.starts, cut) - 1
        if index >= 0 and at < self.starts[index] < cut < self.matches[index].end:
            cut = self.starts[index]
        return max(at + 1, _whole_characters(self.text, cut))

    def _grow(self, place: tuple[int, int], limit: int) -> tuple[int, int]:
        """Widens a taken passage by sentences of its paragraph, after and before in turn, to at most `limit` characters."""
        start, end = place
        index = bisect_left(self.taken, place)
        floor = self.taken[index - 1][1] if index else 0
        ceiling = self.taken[index + 1][0] if index + 1 < len(self.taken) else len(self.text)
        # Twice as far as it may go, to see which sentences are too long and so cut.
        low, high = max(floor, start - 2 * limit), min(ceiling, end + 2 * limit)
        before = [*([low] if low == floor else []), *self._edges(low, start)]
        after = [*self._edges(end, high), *([high] if high == ceiling else [])]
        after.reverse()
        room = min(limit, end - start + self.left)
        new_start, new_end = start, end
        while before or after:
            if after:
                piece = self.text[new_end : after.pop()].rstrip()
                if new_end + len(piece) - new_start > room or _PARAGRAPH.match(piece):
                    after.clear()
                else:
                    new_end += len(piece)
            if before:
                piece = self.text[before.pop() : new_start].lstrip()
                if new_end - (new_start - len(piece)) > room or _PARAGRAPH.match(piece, len(piece.rstrip())):
                    before.clear()
                else:
                    new_start -= len(piece)
        self.left -= (new_end - new_start) - (end - start)
        self.taken[index] = (new_start, new_end)
        self.ranked[self.ranked.index(place)] = (new_start, new_end)
        return new_start, new_end


def _beginning(text: str, max_chars: int) -> int:
    """The end of the last sentence, or else word, that ends in the second half of the first `max_chars`."""
    for border in (_BORDER, _BLANK):
        ends = [found.end() for found in border.finditer(text, max_chars // 2, max_chars)]
        if ends:
            return len(text[: ends[-1]].rstrip()) or ends[-1]
    return max(1, _whole_characters(text, max_chars))


def _whole_characters(text: str, at: int) -> int:
    """`at`, or a little before it where a cut would part a character from its accents, joiners or other half."""
    for back in range(at, max(0, at - _MARGIN), -1):
        if back >= len(text) or not _continues(text[back - 1], text[back]):
            return back
    return at


def _continues(before: str, character: str) -> bool:
    return (
        unicodedata.category(character).startswith("M")
        or "\u200d" in (before, character)
        or "\U0001f3fb" <= character <= "\U0001f3ff"
        or ("\ud800" <= before <= "\udbff" and "\udc00" <= character <= "\udfff")
        or (before == "\r" and character == "\n")
    )
