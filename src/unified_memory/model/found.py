"""What a ranked search is asked for, and what it finds."""

from msgspec import Struct

from unified_memory.model.memory import Memory
from unified_memory.model.query import Filter
from unified_memory.model.ranking import Nearness, Rank, Scored
from unified_memory.model.search import SearchTerms


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
    """A found memory. `score`: higher is better, from 0 to about 1. `matched`: fields of value, key, tags, title, author,
    date, or `context` where only neighbours hold the words, `meaning` where nothing does. `snippet`: a part of the value's
    words around the matches. `parts`: what the score is made of (None: found by the literal text, or far down by the index's
    own order).
    """

    memory: Memory
    score: float
    matched: list[str]
    snippet: str
    parts: Scored | None = None


class SearchResult(Struct):
    """The hits, best first. `corrected`: words of the query for which others were taken, since nothing held them."""

    hits: list[Hit]
    corrected: dict[str, str] = {}
