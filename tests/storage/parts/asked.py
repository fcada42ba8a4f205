"""A ranked search in one line, with everything that it tells."""

from typing import Any

from tests.storage.drafts import NOW, condition
from unified_memory.model.found import SearchRequest, SearchResult
from unified_memory.model.ranking import Rank
from unified_memory.model.search import parse_search
from unified_memory.storage.base import Storage


async def ask(
    storage: Storage,
    query: str,
    *scopes: str,
    now: int = NOW,
    rank: Rank | None = None,
    recursive: bool = True,
    where: Any = None,
    limit: int = 50,
) -> SearchResult:
    """What a search answers; the filter as a caller writes it."""
    filter_ = None if where is None else condition(where)
    request = SearchRequest(scopes or ("",), recursive, parse_search(query), filter_, limit, rank=rank or Rank())
    return await storage.search(request, now)


async def ranked(storage: Storage, query: str, *scopes: str, **how: Any) -> list[str]:
    """Keys of what a search finds, best first."""
    return [hit.memory.key for hit in (await ask(storage, query, *scopes, **how)).hits]
