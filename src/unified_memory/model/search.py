"""The language of ranked search: words, "phrases", prefix*, -not. Odd characters are data, never a syntax error."""

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import Struct

from unified_memory.model.dates import words_of_day
from unified_memory.model.errors import EmptyQueryError
from unified_memory.model.memory import NO_ATTRIBUTES
from unified_memory.model.value import content_hash, text_of

MAX_TERMS = 32
# Of a text that is no query, so much is read, and so many words of it are weighed.
PLAIN_CHARS = 20_000
MAX_WORDS = 2_000
# Of a longer phrase the first words count.
MAX_PHRASE = 64
# Of more prefixes the rest are words: each may begin a good part of all words there are.
MAX_PREFIXES = 4
PAIR = 2
_PIECE = re.compile(r'(-?)"([^"]*)"|(\S+)')
_WORD = re.compile(r"[^\W_]+")
# Half a character, which nothing that is stored can hold.
_SURROGATE = re.compile("[\ud800-\udfff]")
# Names of several words written in one, as in code. Of ASCII alone: other scripts are not written so.
_CAMEL = re.compile(r"[a-z0-9][A-Z]")
_CAMEL_NAME = re.compile(r"\b[A-Za-z0-9]*[a-z0-9][A-Z][A-Za-z0-9]*\b", re.ASCII)
_CAMEL_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
# One hyphen: two begin an option of a command line.
_NEGATED = re.compile(r"-[^-]")
_APOSTROPHE = re.compile(r"[^\W\d_]['\u2019\u02bc][^\W\d_]")
_HYPHENATED = re.compile(r"[^\w-]*[^\W\d_]+(?:-[^\W\d_]+)+[^\w-]*")
_JOINT = re.compile(r"['\u2019\u02bc-]")
# So many letters beside an apostrophe are what is left of a word.
SHORTENED = 2
# Scripts written without blanks, and Korean, whose words carry what other languages write apart: each character is a word
# of its own, a run of them is a phrase.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3130-\u318f\uac00-\ud7af\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\U00020000-\U0003ffff"
)
_UNSPACED = re.compile(f"([{UNSPACED}])")
# Those of them that folding leaves as they are; each is a word.
_SELVES = re.compile("([\u3041-\u3096\u30a1-\u30fa\u30fc\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3]+)")
_RUN = re.compile(f"([{UNSPACED}]+)")
ACCENTS = (
    "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"
    "\u0610-\u061a\u064b-\u065f\u0670"
)
_ACCENT = re.compile(f"[{ACCENTS}]")
STOP_WORDS = frozenset(
    [
        "a",
        "an",
        "and",
        "are",
        "as",
        "at",
        "be",
        "been",
        "but",
        "by",
        "can",
        "could",
        "did",
        "do",
        "does",
        "for",
        "from",
        "had",
        "has",
        "have",
        "he",
        "her",
        "hers",
        "him",
        "his",
        "how",
        "i",
        "if",
        "in",
        "into",
        "is",
        "it",
        "its",
        "me",
        "my",
        "of",
        "on",
        "or",
        "our",
        "she",
        "should",
        "so",
        "than",
        "that",
        "the",
        "their",
        "them",
        "then",
        "there",
        "these",
        "they",
        "this",
        "those",
        "to",
        "us",
        "was",
        "we",
        "were",
        "what",
        "when",
        "where",
        "which",
        "who",
        "whom",
        "why",
        "will",
        "with",
        "would",
        "you",
        "your",
    ]
)
SNIPPET_CHARS = 240
KEYWORD_CHARS = 600
_KEYWORD = re.compile(r"[^\W_]{4,}")


class Term(Struct, frozen=True):
    """Words that must stand in this order beside each other (mostly one); `prefix`: the last may go on.

    `raw`: the words in lower case with their accents. `quoted`: written as a phrase.
    """

    words: tuple[str, ...]
    prefix: bool = False
    raw: tuple[str, ...] = ()
    quoted: bool = False

    @property
    def plain(self) -> bool:
        """A single word, in any of its forms."""
        return len(self.words) == 1 and not self.prefix and not self.quoted


class SearchTerms(Struct, frozen=True):
    """A parsed query: memories with more and rarer of `any` rank higher, those with one of `none` are left out.

    `literal` is the query as a text, for finding it inside of words.
    """

    any: tuple[Term, ...]
    none: tuple[Term, ...]
    literal: str


def words(text: str) -> list[str]:
    """The words of a text, folded: letters and digits in runs, lower case, no accents; unspaced scripts by character."""
    return _WORD.findall(text.lower()) if text.isascii() else _cut(text, fold)


def index_words(text: str) -> list[str]:
    """The words by which a text is found: `words`, and behind them the parts of names in camel case (`parseQuery`)."""
    return words(text) + camel_parts(text)


def camel_parts(text: str) -> list[str]:
    """The parts of names in camel case, folded: `parseQuery` has parse and query."""
    if _CAMEL.search(text) is None:
        return []
    return [part.lower() for name in _CAMEL_NAME.findall(text) for part in _CAMEL_PART.findall(name)]


def raw_words(text: str) -> list[str]:
    """The words of a text as `words` cuts it, in lower case, with their accents."""
    return _WORD.findall(text.lower()) if text.isascii() else _cut(text, _composed)


def _cut(text: str, change: Callable[[str], str]) -> list[str]:
    """The words of a text, changed. What `change` leaves alone it is not given: that is the most of many scripts."""
    found: list[str] = []
    for i, part in enumerate(_RUN.split(text)):
        if i % 2 == 0:
            found += _WORD.findall(spaced(change(part))) if part else ()
            continue
        for j, run in enumerate(_SELVES.split(part)):
            if j % 2:
                found.extend(run)
            elif run:
                found += _WORD.findall(spaced(change(" ".join(run))))
    return found


def _composed(text: str) -> str:
    """Lower case, each letter with its accents one character."""
    return unicodedata.normalize("NFC", text.casefold())


def fold(text: str) -> str:
    """Lower case without accents; the index and the query are folded alike."""
    if text.isascii():
        return text.lower()
    # Letters of another shape (mathematical, circled) have no lower case of their own before they are decomposed.
    plain = _ACCENT.sub("", unicodedata.normalize("NFKD", text.casefold())).casefold()
    return unicodedata.normalize("NFC", plain)


def spaced(text: str) -> str:
    """The text with blanks around each character of a script that is written without them."""
    return text if text.isascii() else _UNSPACED.sub(r" \1 ", text)


def parse_search(query: str) -> SearchTerms:
    """The terms of a query as people write it. Raises EmptyQueryError where it holds no letter or digit."""
    found: list[Term] = []
    banned: list[Term] = []
    query = _SURROGATE.sub(" ", query)
    for minus, phrase, piece in _PIECE.findall(query):
        if phrase or not piece:
            term = Term(tuple(words(phrase)), raw=tuple(raw_words(phrase)), quoted=True)
            if term.words:
                (banned if minus else found).append(term)
        elif _NEGATED.match(piece):
            term = Term(tuple(words(piece)), piece.endswith("*"), tuple(raw_words(piece)))
            if term.words:
                banned.append(term)
        elif len(found) < MAX_WORDS:
            found += _terms_of(piece)
    literal = " ".join(query.replace('"', " ").split())
    if not found and (banned or not any(c.isprintable() and not c.isspace() for c in literal)):
        raise EmptyQueryError
    return SearchTerms(_bounded(found[:MAX_WORDS]), _bounded(banned[:MAX_TERMS]), literal)


def _bounded(terms: Sequence[Term]) -> tuple[Term, ...]:
    prefixes = [i for i, term in enumerate(terms) if term.prefix]
    rest = set(prefixes[MAX_PREFIXES:])
    return tuple(_shortened(term, prefix=i not in rest) for i, term in enumerate(terms))


def _shortened(term: Term, *, prefix: bool) -> Term:
    """The term without what is too much of it; `prefix`: it may go on, where it did."""
    if len(term.words) > MAX_PHRASE:
        return Term(term.words[:MAX_PHRASE], raw=term.raw[:MAX_PHRASE], quoted=term.quoted)
    return term if prefix or not term.prefix else Term(term.words, raw=term.raw)


def _terms_of(piece: str) -> list[Term]:
    """The terms of what stands between two blanks: mostly a word; a phrase where signs join several (`foo_bar`, `x/y.py:17`).

    Words with an apostrophe or with hyphens alone between them are words of their own, an unspaced script goes by pairs.
    """
    prefix = piece.endswith("*")
    if not prefix and not piece.isascii() and len(parts := _unspaced_parts(piece)) > 1:
        return parts
    if not prefix and (_APOSTROPHE.search(piece) or _HYPHENATED.fullmatch(piece)):
        cut = [part for part in _JOINT.split(piece) if words(part)]
        # What the apostrophe has shortened says nothing: Lola's, d'arroser, we'll.
        telling = [part for part in cut if len(part) > SHORTENED] or cut[:1]
        return [Term(tuple(words(part)), raw=tuple(raw_words(part))) for part in telling]
    term = Term(tuple(words(piece)), prefix, tuple(raw_words(piece)))
    return [term] if term.words else []


def plain_search(text: str) -> SearchTerms:
    """The most telling terms of a text that is no query: nothing in it is an operator.

    Those that occur most often, then the longest. Raises EmptyQueryError where it holds no letter or digit.
    """
    pieces = (piece.lstrip("-").rstrip("*") for piece in text[:PLAIN_CHARS].replace('"', " ").split())
    found = parse_search(" ".join(pieces)).any
    if not found:
        raise EmptyQueryError
    often = Counter(term for term in found if not (term.plain and term.words[0] in STOP_WORDS)) or Counter(found)
    telling = sorted(often, key=lambda term: (-often[term], -len("".join(term.words))))
    return SearchTerms(tuple(telling[:MAX_TERMS]), (), "")


def _unspaced_parts(piece: str) -> list[Term]:
    """What a piece with a run of an unspaced script is searched by: every two characters that stand beside each other, since
    nothing tells where its words begin, and whatever stands between such runs.
    """
    parts: list[Term] = []
    for i, part in enumerate(_RUN.split(piece) if not piece.isascii() else ()):
        cut = tuple(words(part))
        if i % 2 and len(cut) > PAIR:
            parts += [Term(pair, raw=pair) for pair in pairwise(cut)]
        elif cut:
            parts.append(Term(cut, raw=tuple(raw_words(part))))
    return parts


def snippet(text: str, spans: list[tuple[int, int]]) -> str:
    """About 240 characters of the text around the densest matches; `spans` are character offsets, in order."""
    if len(text) <= SNIPPET_CHARS:
        return text
    best, most = 0, -1
    ends = sorted(end for _, end in spans)
    for i, (start, _) in enumerate(spans):
        count = bisect_right(ends, start + SNIPPET_CHARS) - i
        if count > most:
            best, most = start, count
    begin = max(0, best - SNIPPET_CHARS // 5)
    if begin:
        blank = text.find(" ", begin, best)
        begin = blank + 1 if blank >= 0 else begin
    end = min(len(text), begin + SNIPPET_CHARS)
    if end < len(text):
        blank = text.rfind(" ", begin + SNIPPET_CHARS // 2, end)
        end = blank if blank >= 0 else end
    return ("…" if begin else "") + text[begin:end] + ("…" if end < len(text) else "")


def keywords_of(text: str, tags: tuple[str, ...], title: str | None, limit: int = 8) -> tuple[str, ...]:
    """Tags, title and the most telling terms of a text: of the words at its beginning the longest, without stop words."""
    found = dict.fromkeys(_KEYWORD.findall(fold(spaced(text[:KEYWORD_CHARS]))))
    for word in STOP_WORDS & found.keys():
        del found[word]
    telling = sorted(found, key=len, reverse=True)[:limit]
    return tuple(dict.fromkeys([*tags, *([title] if title else []), *telling]))


class Description(Struct):
    """What the index needs of a memory: the words of its value and of what names it, its keywords, its 32-byte hash."""

    text: str
    title_text: str
    keywords: tuple[str, ...]
    content_hash: bytes


class Names(Struct):
    """What a memory is called by, from its attributes."""

    tags: tuple[str, ...] = ()
    title: Any = None
    author: Any = None
    occurred_at: Any = None

    def text(self, key: str) -> str:
        """Everything beside the value that is searched: key, tags, title, author, and the day on which it happened."""
        happened = "" if self.occurred_at is None else words_of_day(self.occurred_at)
        return "\n".join([key, *self.tags, self.title or "", self.author or "", happened])


_named = msgspec.json.Decoder(Names)


def names_of(attributes: bytes) -> Names:
    """The tags, title, author and occurred_at in a memory's attributes (all but the tags count only where they are texts)."""
    named = _named.decode(attributes)
    for name in ("title", "author", "occurred_at"):
        if not isinstance(getattr(named, name), str):
            setattr(named, name, None)
    return named


def describe(key: str, attributes: bytes, parsed: Any) -> Description:
    """Derives what the index holds of a memory from its key, attributes and parsed value.

    Raises InvalidInputError where the value is nested deeper than allowed.
    """
    text = text_of(parsed)
    if attributes == NO_ATTRIBUTES:
        return Description(text, key, keywords_of(text, (), None), content_hash(parsed))
    named = names_of(attributes)
    return Description(text, named.text(key), keywords_of(text, named.tags, named.title), content_hash(parsed))
