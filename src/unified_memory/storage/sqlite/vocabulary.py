"""The terms that the index knows: how many memories hold them, which of them hold a text inside, which are near to a word."""

import msgspec

from unified_memory.model.analysis import ENGLISH, MARK, analyzer, marked
from unified_memory.model.search import Term, words
from unified_memory.model.spelling import ENDING, LEAST_STEM, nearness, reach
from unified_memory.storage.sqlite.connection import Database
from unified_memory.storage.sqlite.filters import Binding

# Before a term of the index in a query; of no script (private use), so that no text holds it.
EXACT = "\ue001"
# Of the terms that begin as a prefix does, so many are counted.
MAX_PREFIX_TERMS = 200
# So many terms that hold a text are looked up, the most frequent first.
MAX_INSIDE = 1_000
# A stem may have lost the end of its word: the beginning of the text that must be left of it, in characters.
LEAST_LEFT = 3
# So many stems that are near to a mistyped word are looked up.
MAX_NEAR = 100
_encode = msgspec.json.Encoder().encode


def exactly(term: str) -> str:
    """The index's query for one of its own terms, which must not be stemmed again."""
    return f'"{EXACT}{term}"'


def alternatives(term: Term, language: str) -> list[str]:
    """The index's queries for a term that is written in a language; each is quoted."""
    star = " *" if term.prefix else ""
    told = analyzer(language)
    if language == ENGLISH:
        forms = told.forms(term.words[0]) if term.plain else (" ".join(term.words),)
        return [f'"{form}"{star}' for form in forms]
    cut = term.raw if len(term.raw) == len(term.words) else term.words
    if term.prefix:
        return ['"' + " ".join([*marked(told.stems(cut[:-1])), term.words[-1]]) + '" *']
    return ['"' + " ".join(marked(told.stems(cut))) + '"']


def holding(connection: Database, run: tuple[str, ...], language: str, *, prefix: bool) -> float:
    """How many memories hold a run of stems: as many as hold the rarest of them, an upper bound."""
    terms = run if language == ENGLISH else tuple(marked(run))
    counts = [connection.execute("SELECT doc FROM temp.known_terms WHERE term = ?", (term,)).get or 0 for term in terms]
    if prefix:
        beginning = run[-1]
        counts[-1] = connection.execute(
            "SELECT total(doc) FROM (SELECT doc FROM temp.known_terms WHERE term >= ?1 AND term < ?2 LIMIT ?3)",
            (beginning, beginning + "\U0010ffff", MAX_PREFIX_TERMS),
        ).get
    return float(min(counts, default=0))


def inside(connection: Database, literal: str, needle: str, scope: str) -> tuple[str, list[Binding]]:
    """A condition on memories `m` that is met by those which hold the literal text, folded `needle`, inside of a word, and what
    is bound in it.
    """
    cut = words(needle)
    if not cut:
        # Signs have no case, so SQLite finds them by itself; only escapes may hide them.
        texts = ("m.key", "coalesce(m.metadata, '')", "m.value_json")
        held = " OR ".join(f"instr({text}, ?) OR instr({text}, ?) OR instr({text}, char(92))" for text in texts)
        return f"({held})", [literal, needle] * len(texts)
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
    least = min(LEAST_LEFT, len(word) - 1)
    lost = any(stem.endswith(word[:left]) for left in range(least, len(word)))
    # And it writes y as i.
    return lost or any(word[left] == "y" and stem.endswith(word[:left] + "i") for left in range(least, len(word)))


def known_near(connection: Database, word: str, language: str) -> list[str]:
    """The stems of words that may have been meant by a mistyped one, nearest first, then the more frequent."""
    (stem,) = analyzer(language).stems((word,))
    if not (allowed := reach(word)):
        return []
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
