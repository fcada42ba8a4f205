"""The terms that the index knows: how many memories hold them, which of them hold a text inside, which are near to a word."""

import msgspec

from unified_memory.model.analysis import ENGLISH, MARK, analyzer, marked
from unified_memory.model.search import Term, words
from unified_memory.model.spelling import ENDING, LEAST_STEM, nearness, reach
from unified_memory.storage.sqlite.connection import Database
from unified_memory.storage.sqlite.filters import Binding
from unified_memory.storage.sqlite.rows import VALUE

# Before a term of the index in a query; of no script (private use), so that no text holds it.
EXACT = "\ue001"
# A prefix of which the index holds more than so many entries is searched by its most frequent terms.
MAX_PREFIX_ENTRIES = 100_000
MAX_PREFIX_TERMS = 20
# So many terms that hold a text are looked up, the most frequent first.
MAX_INSIDE = 1_000
# A stem may have lost the end of its word: the beginning of the text that must be left of it, in characters.
LEAST_LEFT = 3
# And so many characters at most.
MOST_LOST = 12
# So many stems that are near to a mistyped word are looked up.
MAX_NEAR = 100
_encode = msgspec.json.Encoder().encode


def exactly(term: str) -> str:
    """The index's query for one of its own terms, which must not be stemmed again."""
    return f'"{EXACT}{term}"'


class Vocabulary:
    """The terms as one search sees them; what was counted once is kept."""

    def __init__(self, connection: Database) -> None:
        self._connection = connection
        self._holding: dict[tuple[tuple[str, ...], str, bool], float] = {}
        self._beginning: dict[tuple[str, ...], tuple[float, list[str]]] = {}

    def alternatives(self, term: Term, language: str) -> list[str]:
        """The index's queries for a term that is written in a language; each is quoted."""
        told = analyzer(language)
        cut = term.raw if len(term.raw) == len(term.words) else term.words
        if term.prefix:
            return self._going_on(term, told.stems(cut[:-1]), language)
        if language == ENGLISH:
            forms = told.forms(term.words[0]) if term.plain else (" ".join(term.words),)
            return [f'"{form}"' for form in forms]
        return ['"' + " ".join(marked(told.stems(cut))) + '"']

    def holding(self, run: tuple[str, ...], language: str, *, prefix: bool) -> float:
        """How many memories hold a run of stems: as many as hold the rarest of them, an upper bound."""
        place = (run, language, prefix)
        known = self._holding.get(place)
        if known is None:
            known = self._holding[place] = self._count(run, language, prefix=prefix)
        return known

    def is_short(self, term: Term) -> bool:
        """Whether a prefix begins so much that only its most frequent terms are looked for."""
        return term.prefix and self._begun(term)[0] > MAX_PREFIX_ENTRIES

    def _count(self, run: tuple[str, ...], language: str, *, prefix: bool) -> float:
        terms = run if language == ENGLISH else tuple(marked(run))
        one = "SELECT doc FROM temp.known_terms WHERE term = ?"
        counts = [self._connection.execute(one, (term,)).get or 0 for term in (terms[:-1] if prefix else terms)]
        if prefix:
            counts.append(self._beginning_with((run[-1],))[0])
        return float(min(counts, default=0))

    def _begun(self, term: Term) -> tuple[float, list[str]]:
        word = term.words[-1]
        # The stems of longer words begin with the word, those of the word itself with its stem (see `search.register`).
        return self._beginning_with(tuple(dict.fromkeys((word, *analyzer(ENGLISH).stems((word,))))))

    def _beginning_with(self, beginnings: tuple[str, ...]) -> tuple[float, list[str]]:
        """In how many memories the terms are that begin so, one counted as often as it holds some; the most frequent of them."""
        known = self._beginning.get(beginnings)
        if known is None:
            found: dict[str, int] = {}
            for beginning in beginnings:
                rows = self._connection.execute(
                    "SELECT term, doc FROM temp.known_terms WHERE term >= ?1 AND term < ?2",
                    (beginning, beginning + "\U0010ffff"),
                )
                found.update(rows)
            frequent = sorted(found, key=lambda term: (-found[term], term))[:MAX_PREFIX_TERMS]
            known = self._beginning[beginnings] = (float(sum(found.values())), frequent)
        return known

    def _going_on(self, term: Term, before: list[str], language: str) -> list[str]:
        """What goes on as a prefix does, behind what stands `before` it."""
        if not self.is_short(term):
            words = term.words if language == ENGLISH else (*marked(before), term.words[-1])
            return ['"' + " ".join(words) + '" *']
        first = " ".join(term.words[:-1] if language == ENGLISH else marked(before))
        return [f'"{first}" + {exactly(one)}' if first else exactly(one) for one in self._begun(term)[1]]


def inside(connection: Database, literal: str, needle: str, scope: str) -> tuple[str, list[Binding]]:
    """A condition on memories `m` that is met by those which hold the literal text, folded `needle`, inside of a word, and what
    is bound in it.
    """
    cut = words(needle)
    if not cut:
        # Signs have no case, so SQLite finds them by itself; only escapes may hide them.
        texts = ("m.key", "coalesce(m.metadata, '')", VALUE)
        forms: list[Binding] = list(dict.fromkeys((literal, needle)))
        held = " OR ".join(f"{'instr({0}, ?) OR ' * len(forms)}instr({{0}}, char(92))".format(text) for text in texts)
        return f"({held})", forms * len(texts)
    terms = _holding_inside(connection, cut[0], last=len(cut) == 1)
    if not terms:
        return "0", []
    match = "{body title} : (" + " OR ".join(map(exactly, terms)) + ")"
    if scope:
        match = f"{scope} AND {match}"
    return "m.id IN (SELECT rowid FROM memory_text WHERE memory_text MATCH ?)", [match]


def _holding_inside(connection: Database, word: str, *, last: bool) -> list[str]:
    """The index's terms of words that may hold this one: in their middle where it is the `last` too, else at their end."""
    beginning = word[:LEAST_LEFT]
    rows = connection.execute(
        "SELECT term FROM temp.known_terms WHERE instr(term, ?) ORDER BY doc DESC LIMIT ?",
        (beginning, 100 * MAX_INSIDE),
    )
    found = [term for (term,) in rows if _may_hold(term.removesuffix(MARK), word, last=last)]
    return found[:MAX_INSIDE]


def _may_hold(stem: str, word: str, *, last: bool) -> bool:
    if word in stem if last else stem.endswith(word):
        return True
    # What the stemmer has cut off began inside of the text.
    least = max(min(LEAST_LEFT, len(word) - 1), len(word) - MOST_LOST)
    lengths = range(least, min(len(word), len(stem) + 1))
    lost = any(stem.endswith(word[:left]) for left in lengths)
    # And it writes y as i.
    return lost or any(word[left] == "y" and stem.endswith(word[:left] + "i") for left in lengths)


def known_near(connection: Database, word: str, language: str) -> list[str]:
    """The stems of words that may have been meant by a mistyped one, nearest first, then the more frequent."""
    if not (allowed := reach(word)):
        return []
    (stem,) = analyzer(language).stems((word,))
    mark = "" if language == ENGLISH else MARK
    least = min(len(stem) - allowed, max(LEAST_STEM, len(word) - allowed - ENDING))
    found = []
    # Whoever mistypes a word mostly has its first letter right, or has changed it for the second.
    for first in dict.fromkeys(stem[:2]):
        for term, held in connection.execute(
            "SELECT term, doc FROM temp.known_terms WHERE term >= ?1 AND term < ?2 AND length(term) BETWEEN ?3 AND ?4",
            (first, first + "\U0010ffff", least + len(mark), len(word) + allowed + len(mark)),
        ):
            if bool(mark) is term.endswith(MARK):
                known = term.removesuffix(MARK)
                near = nearness(word, stem, known)
                if near <= allowed:
                    found.append((near, -held, known))
    return [term for _, _, term in sorted(found)[:MAX_NEAR]]
