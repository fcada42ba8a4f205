"""What came back of a backup, compared with what it says of itself."""

from unified_memory.model.errors import BackupDamagedError, EmptyQueryError
from unified_memory.model.found import SearchRequest
from unified_memory.model.memory import Memory
from unified_memory.model.query import MAX_LIMIT, Comparison, Op, parse_field
from unified_memory.model.search import SearchTerms, Term, plain_search
from unified_memory.model.value import text_of
from unified_memory.service.chains import MEMORIES, SEARCHED
from unified_memory.storage.backup import Manifest
from unified_memory.storage.base import Storage


async def compare_counts(aside: Storage, manifest: Manifest, expired: dict[str, int], now: int) -> None:
    """Raises BackupDamagedError where not as much came back as the manifest tells."""
    found: dict[str, int] = {}
    size, after = 0, None
    while True:
        page = await aside.list_namespaces(("",), now, depth=None, limit=MAX_LIMIT, after=after)
        for one in page.items:
            found[one.name] = one.memories
            size += one.bytes
        if page.next is None:
            break
        after = str(page.next[0])
    gone = sum(expired.values())
    if sum(found.values()) + gone != manifest.memories:
        raise BackupDamagedError(
            manifest.id, MEMORIES, f"{sum(found.values())} memories came back in place of {manifest.memories - gone}"
        )
    if not gone and size != manifest.bytes:
        raise BackupDamagedError(manifest.id, MEMORIES, f"{size} bytes came back in place of {manifest.bytes}")
    if manifest.namespaces is None:
        return
    for name in sorted({*found, *manifest.namespaces}):
        told = manifest.namespaces.get(name, 0) - expired.get(name, 0)
        if found.get(name, 0) != told:
            raise BackupDamagedError(
                manifest.id, MEMORIES, f"{found.get(name, 0)} memories of {name} came back in place of {told}"
            )


async def search_some(aside: Storage, manifest: Manifest, ids: list[int], now: int) -> None:
    """Raises BackupDamagedError where one of these memories is not found by a word of it."""
    # Of a long chain there are many, and what a later link has replaced or removed is not there any more.
    some = ids[:: max(1, len(ids) // (10 * SEARCHED))]
    there = [one for one in await aside.get_by_id(some, now) if one is not None]
    for memory in there[:: max(1, len(there) // SEARCHED)]:
        term = _telling(memory)
        if term is None:
            continue
        itself = Comparison(parse_field("key"), Op.EQ, memory.key)
        request = SearchRequest((memory.namespace,), False, SearchTerms((term,), (), ""), itself, 1)  # noqa: FBT003
        found = await aside.search(request, now)
        if [hit.memory.id for hit in found.hits] != [memory.id] or found.corrected:
            raise BackupDamagedError(manifest.id, MEMORIES, f"the memory {memory.id} is not found by a word of it")


def _telling(memory: Memory) -> Term | None:
    """A word of the value, None where it has none."""
    try:
        return plain_search(text_of(memory.parsed())).any[0]
    except EmptyQueryError:
        return None
