"""Where the terms of a query stand in a memory's texts: which fields matched, and the words around the matches."""

import re
from collections.abc import Sequence

from unified_memory.model.analysis import Analyzer
from unified_memory.model.dates import words_of_day
from unified_memory.model.found import Hit
from unified_memory.model.memory import Memory
from unified_memory.model.ranking import Scored
from unified_memory.model.search import ACCENTS, UNSPACED, Term, fold, names_of, snippet
from unified_memory.model.value import text_of

SHOWN_CHARS = 100_000
_TOKEN = re.compile(rf"[{UNSPACED}]|(?:(?![{UNSPACED}])(?:[^\W_]|[{ACCENTS}]))+")


class Finder:
    """Finds the terms of one query in texts of one language."""

    def __init__(self, terms: Sequence[Term], analyzer: Analyzer) -> None:
        self._analyzer = analyzer
        self._asked = tuple(" ".join(term.words) + ("*" if term.prefix else "") for term in terms)
        self._singles: dict[str, int] = {}
        self._runs: list[tuple[int, list[str], str | None]] = []
        for i, term in enumerate(terms):
            if term.plain:
                for form in analyzer.forms(term.words[0]):
                    self._singles.setdefault(analyzer.stem(form), i)
            stems = [analyzer.stem(word) for word in (term.raw if len(term.raw) == len(term.words) else term.words)]
            if len(stems) == 1 and not term.prefix:
                self._singles.setdefault(stems[0], i)
            elif stems:
                self._runs.append((i, stems, term.words[-1] if term.prefix else None))

    def spans(self, text: str) -> list[tuple[int, int, int]]:
        """(start, end, number of the term) of each match in the beginning of the text, in order."""
        tokens = [(match.start(), match.end(), match[0]) for match in _TOKEN.finditer(text, 0, SHOWN_CHARS)]
        stem_of = self._analyzer.stem
        stems = [stem_of(token) for _, _, token in tokens]
        singles = self._singles
        found = [
            (start, end, singles[stem]) for (start, end, _), stem in zip(tokens, stems, strict=True) if stem in singles
        ]
        for number, run, prefix in self._runs:
            size = len(run)
            for at in range(len(stems) - size + 1):
                if stems[at : at + size - 1] == run[:-1]:
                    start, end, last = tokens[at][0], tokens[at + size - 1][1], tokens[at + size - 1][2]
                    if stems[at + size - 1] == run[-1] or (prefix is not None and fold(last).startswith(prefix)):
                        found.append((start, end, number))
        return sorted(found)

    def hit(self, memory: Memory, one: Scored) -> Hit:
        """The memory as it is shown: which of its fields matched, and the words around the matches."""
        text = text_of(memory.parsed())
        spans = self.spans(text)
        matched = ["value"] if spans else []
        matched += [name for name, part in fields_of(memory).items() if self.spans(part)]
        if not matched:
            # Parts of a name in camel case are found, and not shown.
            matched = ["context"] if one.context else ["value"] if one.relevance else ["meaning"]
        return Hit(
            memory,
            one.score,
            matched,
            snippet(text, [(start, end) for start, end, _ in spans]),
            one,
            spans,
            self._asked,
        )


def fields_of(memory: Memory) -> dict[str, str]:
    """The texts beside the value that a search looks into, by the name of their field; those that are empty left out."""
    named = names_of(memory.attributes)
    fields = {
        "key": memory.key,
        "tags": "\n".join(named.tags),
        "title": named.title or "",
        "author": named.author or "",
        "date": "" if named.occurred_at is None else words_of_day(named.occurred_at),
    }
    return {name: text for name, text in fields.items() if text}


def literal_spans(needle: str, text: str) -> list[tuple[int, int]]:
    """Where a folded text stands in the beginning of a text, as offsets into the text as it is."""
    pattern = re.compile(re.escape(needle))
    shown = text[:SHOWN_CHARS]
    if shown.isascii():
        return [match.span() for match in pattern.finditer(shown.lower())]
    folded = [fold(char) for char in shown]
    place = [i for i, part in enumerate(folded) for _ in part]
    return [(place[m.start()], place[m.end() - 1] + 1) for m in pattern.finditer("".join(folded))]
