"""What a ranked search is asked for, and what it finds."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from unified_memory.model.memory import Memory, encode_memory
from unified_memory.model.query import Filter
from unified_memory.model.ranking import Nearness, Rank, Scored
from unified_memory.model.search import SearchTerms
from unified_memory.model.value import encode


class SearchRequest(Struct, frozen=True):
    """A ranked search. `offset` results were shown already. `near`: what is near in meaning, where that counts too;
    `fulltext`: whether words count.
    """

    scopes: tuple[str, ...]
    recursive: bool
    terms: SearchTerms
    where: Filter | None
    limit: int
    offset: int = 0
    rank: Rank = Rank()
    near: Nearness | None = None
    fulltext: bool = True


class Hit(Struct):
    """A found memory. `score`: higher is better, from 0 to about 1.

    `matched`: fields of value, key, tags, title, author, date, or `context` where only neighbours hold the words, `meaning`
    where nothing does. `snippet`: a part of the value's words around the matches. `parts`: what the score is made of (None:
    found by the literal text). `spans`: (first character, the one after the last, number of the term) of each match in the
    value's words. `asked`: the terms of the query.
    """

    memory: Memory
    score: float
    matched: list[str]
    snippet: str
    parts: Scored | None = None
    spans: list[tuple[int, int, int]] = []
    asked: tuple[str, ...] = ()


class SearchResult(Struct):
    """The hits, best first. `corrected`: words of the query for which others were taken, since nothing held them."""

    hits: list[Hit]
    corrected: dict[str, str] = {}


class Result(Struct):
    """A hit as it is shown. `duplicates`: how many that say the same it stands for (None: nobody asked). `passages`: (start, end,
    text) of the value's words, in place of a value that is too long. `message`: which message of a conversation asked for it.
    `bare`: without its value.
    """

    hit: Hit
    score: float
    duplicates: int | None = None
    passages: list[tuple[int, int, str]] | None = None
    message: int | None = None
    explain: bool = False
    bare: bool = False


def explained(result: Result, words: Sequence[str]) -> dict[str, Any]:
    """What a score is made of. `words`: the terms of the query as they were asked."""
    parts = result.hit.parts
    if parts is None:
        return {"literal": True}
    shares: dict[str, float] = {}
    for word, share in zip(words, parts.terms, strict=False):
        if share:
            shares[word] = shares.get(word, 0.0) + share
    told: dict[str, Any] = {
        "relevance": round(parts.relevance, 4),
        "terms": {word: round(share, 4) for word, share in shares.items()},
        "context": round(parts.context, 4),
        "date": round(parts.date, 4),
        "importance": round(parts.importance, 4),
        "recency": round(parts.recency, 4),
    }
    if parts.cosine is not None:
        told["cosine"] = round(parts.cosine, 4)
    return told


def encode_result(result: Result) -> bytes:
    """The result as JSON: the record with score, matched, snippet and what else was asked for."""
    hit = result.hit
    more: dict[str, Any] = {"score": result.score, "matched": hit.matched, "snippet": hit.snippet}
    if result.duplicates is not None:
        more["duplicates"] = result.duplicates
    if result.message is not None:
        more["message"] = result.message
    if result.explain:
        more["explain"] = explained(result, hit.asked)
    if result.passages is not None:
        more["passages"] = [{"start": start, "end": end, "text": text} for start, end, text in result.passages]
    memory = hit.memory if result.passages is None and not result.bare else replace(hit.memory, value=b"null")
    return encode_memory(memory, more=b"," + encode(more)[1:-1])
