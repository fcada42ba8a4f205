"""Who may see one subtree sees nothing of any other, whatever is asked: not what lies there, and not that it does.

Every call of the service that takes a principal has its row in `CALLS`. It is asked for a neighbour that is full, by one
who may not see it, and must answer as it would if the neighbour were not there at all, and leave it as it is.
"""

import asyncio
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

import msgspec
import pytest

from tests.service.asking import Held, holding, raw, raws, storing
from unified_memory.model.clock import SettableClock
from unified_memory.model.errors import UnifiedMemoryError
from unified_memory.model.memory import Memory
from unified_memory.model.namespace import DEFAULT_NAMESPACE
from unified_memory.model.principal import ANONYMOUS, Principal
from unified_memory.model.session import WithMemories
from unified_memory.service.jobs import Jobs, Running
from unified_memory.service.memories import Memories
from unified_memory.service.namespaces import Namespaces
from unified_memory.service.requests import (
    BatchKeysRequest,
    BatchStoreRequest,
    Changes,
    DeleteWhereRequest,
    ExactQuery,
    KeyRef,
    ListQuery,
    MoveRequest,
    PatchRequest,
    Place,
    RecallQuery,
    SearchQuery,
    SessionRequest,
    SimilarQuery,
    UpdateRequest,
    UpdateWhereRequest,
)
from unified_memory.service.searching import Searching
from unified_memory.service.sessions import Sessions
from unified_memory.service.upkeep import Upkeep
from unified_memory.storage.base import Storage
from unified_memory.storage.inmemory import InMemoryStorage
from unified_memory.storage.sqlite import SQLiteStorage

CALLER = Principal("caller", ("acme",))
# Neighbours that a comparison of prefixes takes for a part of acme, and what lies above it.
NEIGHBOURS = ("acme-corp", "acme0", "acmé", "acm", "ACME", "b/acme", "acme-corp/acme")
HIDDEN = "hidden"
BOUND = 3  # seconds that any call may take

Call = Callable[[Held, str], Awaitable[Any]]


async def _chunks(chunks: AsyncIterator[Any]) -> list[Any]:
    return [chunk async for chunk in chunks]


async def _where(held: Held, request: UpdateWhereRequest | DeleteWhereRequest) -> Any:
    """What it would do, then what it did."""
    memories = held.service.memories
    selection, affected = await memories.matching(CALLER, request)
    change = memories.read_where(request) if isinstance(request, UpdateWhereRequest) else None
    return affected, await _chunks(memories.change_where(selection, change))


async def _of_the_namespace(held: Held, namespace: str, ask: Callable[[str], Awaitable[Any]]) -> Any:
    """For calls that take an id which the service gave out: that of what lies in the namespace, else one of nothing."""
    listing = await held.service.jobs.list_all(ANONYMOUS, state=None, limit=10, cursor=None)
    return await ask(next((job.id for job in listing.jobs if job.namespace == namespace), "none"))


async def _by_id(held: Held, namespace: str) -> Any:
    memory = await held.storage.get(namespace, "k", held.clock.now())
    return await held.service.memories.retrieve_id(CALLER, 10_000 if memory is None else memory.id)


async def _nothing(_running: Running) -> dict[str, Any]:
    return {}


def _session(held: Held, namespace: str, *, cluster: bool) -> Awaitable[Any]:
    return held.service.sessions.view(CALLER, namespace, "s", cluster=cluster, limit=50, cursor=None)


def _sessions(held: Held, namespace: str | None, *, recursive: bool = True) -> Awaitable[Any]:
    return held.service.sessions.list_all(
        CALLER, namespace=namespace, recursive=recursive, cluster_id=None, active=None, limit=50, cursor=None
    )


_EVERYTHING: dict[str, Any] = {"key": {"exists": True}}
_CHANGES = Changes(add_tags=["changed"])

# By the method that is called, each way to name the neighbour.
CALLS: dict[str, list[Call]] = {
    "Memories.store": [
        lambda h, n: h.service.memories.store(CALLER, storing("k", "new", n)),
        lambda h, n: h.service.memories.store(CALLER, storing(None, "new", n)),
        lambda h, n: h.service.memories.store(CALLER, storing("k", "new", n, expected_version=1)),
    ],
    "Memories.retrieve": [lambda h, n: h.service.memories.retrieve(CALLER, n, "k")],
    "Memories.retrieve_id": [_by_id],
    "Memories.update": [
        lambda h, n: h.service.memories.update(CALLER, n, "k", UpdateRequest(value=raw("new"))),
        lambda h, n: h.service.memories.update(CALLER, DEFAULT_NAMESPACE, "k", UpdateRequest(raw("new"), namespace=n)),
    ],
    "Memories.patch": [
        lambda h, n: h.service.memories.patch(CALLER, n, "k", PatchRequest(merge=raw("new"))),
        lambda h, n: h.service.memories.patch(CALLER, DEFAULT_NAMESPACE, "k", PatchRequest(namespace=n, merge=raw(1))),
    ],
    "Memories.delete": [lambda h, n: h.service.memories.delete(CALLER, n, "k")],
    "Memories.move": [
        lambda h, n: h.service.memories.move(CALLER, MoveRequest(Place(n, "k"), Place("acme", "stolen"))),
        lambda h, n: h.service.memories.move(CALLER, MoveRequest(Place("acme", "k"), Place(n, "k"))),
        lambda h, n: h.service.memories.move(CALLER, MoveRequest(Place("acme", "k"), Place(n, "free"))),
        lambda h, n: h.service.memories.move(CALLER, MoveRequest(Place(n), Place("acme/stolen"))),
        lambda h, n: h.service.memories.move(CALLER, MoveRequest(Place("acme"), Place(n))),
    ],
    "Memories.store_batch": [
        lambda h, n: h.service.memories.store_batch(
            CALLER, BatchStoreRequest([storing("new", "mine", "acme"), storing("k", "new", n)])
        )
    ],
    "Memories.retrieve_batch": [
        lambda h, n: h.service.memories.retrieve_batch(CALLER, BatchKeysRequest([KeyRef("k", n), KeyRef("k", "acme")]))
    ],
    "Memories.delete_batch": [
        lambda h, n: h.service.memories.delete_batch(CALLER, BatchKeysRequest([KeyRef("k", n), KeyRef("none", "acme")]))
    ],
    "Memories.matching": [
        lambda h, n: _where(h, UpdateWhereRequest(_EVERYTHING, _CHANGES, namespace=n)),
        lambda h, n: _where(h, UpdateWhereRequest({"namespace": n}, _CHANGES)),
        lambda h, n: _where(h, UpdateWhereRequest({"namespace": n}, _CHANGES, namespace="acme")),
        lambda h, n: _where(h, DeleteWhereRequest(_EVERYTHING, namespace=n)),
        lambda h, n: _where(h, DeleteWhereRequest(_EVERYTHING, namespace=n, recursive=False)),
        lambda h, n: _where(h, DeleteWhereRequest({"or": [{"namespace": n}, {"value": HIDDEN}]})),
    ],
    "Memories.list_all": [
        lambda h, n: h.service.memories.list_all(CALLER, ListQuery(namespace=n)),
        lambda h, n: h.service.memories.list_all(CALLER, ListQuery(namespace=n, recursive=False)),
        lambda h, _: h.service.memories.list_all(CALLER, ListQuery()),
        lambda h, _: h.service.memories.list_all(CALLER, ListQuery(recursive=False)),
        lambda h, _: h.service.memories.list_all(CALLER, ListQuery(namespace="acme", tags=["t"])),
    ],
    "Memories.query": [
        lambda h, n: h.service.memories.query(CALLER, ExactQuery(namespace=n, count=True)),
        lambda h, n: h.service.memories.query(CALLER, ExactQuery({"namespace": n}, count=True)),
        lambda h, _: h.service.memories.query(CALLER, ExactQuery({"not": {"value": 1}}, count=True, recursive=False)),
        lambda h, _: h.service.memories.query(CALLER, ExactQuery(group_by="namespace", count=True)),
        lambda h, _: h.service.memories.query(CALLER, ExactQuery(select=["namespace", "value"])),
    ],
    "Searching.search": [
        lambda h, n: h.service.searching.search(CALLER, SearchQuery(HIDDEN, namespace=n)),
        lambda h, n: h.service.searching.search(CALLER, SearchQuery(HIDDEN, namespace=n, recursive=False)),
        lambda h, _: h.service.searching.search(CALLER, SearchQuery(HIDDEN)),
        lambda h, _: h.service.searching.search(CALLER, SearchQuery("idde")),
        lambda h, _: h.service.searching.search(CALLER, SearchQuery(HIDDEN, session_id="s", tags=["t"])),
        # What is hidden is no correction of what nobody wrote, and lends no words.
        lambda h, _: h.service.searching.search(CALLER, SearchQuery(HIDDEN[:-1] + "xn", explain=True)),
        lambda h, _: h.service.searching.search(CALLER, SearchQuery("mine", explain=True, collapse=True)),
    ],
    "Searching.similar": [
        lambda h, n: h.service.searching.similar(CALLER, SimilarQuery(key="k", key_namespace=n)),
        lambda h, n: h.service.searching.similar(CALLER, SimilarQuery(text=HIDDEN, namespace=n)),
        lambda h, _: h.service.searching.similar(CALLER, SimilarQuery(text=HIDDEN)),
        lambda h, _: h.service.searching.similar(CALLER, SimilarQuery(key="k", key_namespace="acme")),
    ],
    "Searching.recall": [
        lambda h, n: h.service.searching.recall(CALLER, RecallQuery(messages=[HIDDEN, "mine"], namespace=n)),
        lambda h, _: h.service.searching.recall(CALLER, RecallQuery(messages=[HIDDEN, "mine"])),
    ],
    "Namespaces.create": [lambda h, n: h.service.namespaces.create(CALLER, n, None)],
    "Namespaces.configure": [lambda h, n: h.service.namespaces.configure(CALLER, n, raws({"default_ttl": 1}))],
    "Namespaces.get": [lambda h, n: h.service.namespaces.get(CALLER, n)],
    "Namespaces.list_all": [
        lambda h, n: h.service.namespaces.list_all(CALLER, prefix=n, depth=None, limit=50, cursor=None),
        lambda h, _: h.service.namespaces.list_all(CALLER, prefix=None, depth=None, limit=50, cursor=None),
        lambda h, _: h.service.namespaces.list_all(CALLER, prefix=None, depth=1, limit=50, cursor=None),
    ],
    "Namespaces.delete": [
        lambda h, n: h.service.namespaces.delete(CALLER, n, recursive=True, dry_run=False),
        lambda h, n: h.service.namespaces.delete(CALLER, n, recursive=False, dry_run=False),
        lambda h, n: h.service.namespaces.delete(CALLER, n, recursive=True, dry_run=True),
    ],
    "Sessions.create": [lambda h, n: h.service.sessions.create(CALLER, SessionRequest("s", n))],
    "Sessions.view": [
        lambda h, n: _session(h, n, cluster=False),
        lambda h, n: _session(h, n, cluster=True),
        lambda h, _: _session(h, "acme", cluster=True),
    ],
    "Sessions.list_all": [
        _sessions,
        lambda h, n: _sessions(h, n, recursive=False),
        lambda h, _: _sessions(h, None),
        lambda h, _: _sessions(h, None, recursive=False),
    ],
    "Sessions.end": [lambda h, n: h.service.sessions.end(CALLER, n, "s", WithMemories.DELETE)],
    # Whose work a job is, is said by those who start it; what the work does goes through the calls above.
    "Jobs.start": [lambda h, _: h.service.jobs.start(CALLER, "kind", "acme", _nothing)],
    "Jobs.get": [lambda h, n: _of_the_namespace(h, n, lambda i: h.service.jobs.get(CALLER, i))],
    "Jobs.finished": [lambda h, n: _of_the_namespace(h, n, lambda i: h.service.jobs.finished(CALLER, i))],
    "Jobs.cancel": [lambda h, n: _of_the_namespace(h, n, lambda i: h.service.jobs.cancel(CALLER, i))],
    "Jobs.list_all": [lambda h, _: h.service.jobs.list_all(CALLER, state=None, limit=50, cursor=None)],
    "Upkeep.stats": [
        lambda h, n: h.service.upkeep.stats(CALLER, n),
        lambda h, _: h.service.upkeep.stats(CALLER, None),
    ],
}
# Calls that take no principal, and why they need none.
WITHOUT = {
    "Memories.search_index": "of a memory that was retrieved",
    "Memories.read_where": "checks what was said, looks at nothing",
    "Memories.change_where": "of what `matching` selected",
    "Namespaces.purge": "of what `delete` gave tickets for",
    "Jobs.close": "ends the process's own work",
    "Upkeep.cleanup": "of the whole service, asked for by its operator or its clock",
    "Upkeep.flush": "of the whole service, asked for by its clock",
    "Upkeep.lease": "of the whole service, asked for by its clock",
    "Upkeep.check": "of the whole service, asked for by its operator",
    "Upkeep.read_only": "of the whole service, seen by all",
    "Upkeep.switch_read_only": "of the whole service, asked for by its operator",
    "Upkeep.ready": "of the whole service, seen by all",
    "Upkeep.health": "of the whole service, seen by all",
}


def _public_calls() -> dict[str, bool]:
    """Every public method, and whether it takes a principal."""
    return {
        f"{kind.__name__}.{name}": "principal" in inspect.signature(method).parameters
        for kind in (Memories, Searching, Namespaces, Sessions, Jobs, Upkeep)
        for name, method in vars(kind).items()
        if inspect.isfunction(method) and not name.startswith("_")
    }


def test_every_public_call_has_its_row() -> None:
    calls = _public_calls()
    assert {name for name, takes_principal in calls.items() if takes_principal} == set(CALLS)
    assert {name for name, takes_principal in calls.items() if not takes_principal} == set(WITHOUT)


async def _fill(held: Held, namespace: str, text: str) -> None:
    facts = {"session_id": "s", "project_id": f"{text}-project", "tags": ["t", f"{text}-tag"]}
    for key in ("k", "l"):
        await held.store(key, text, namespace, metadata=facts)
    await held.store("m", text, namespace + "/below", metadata=facts)
    await held.store("gone", text, namespace, ttl=1)
    for one in (namespace, namespace + "/below"):
        await held.service.sessions.create(
            ANONYMOUS, SessionRequest("s", one, f"{text}-cluster", metadata=raws({"why": text}))
        )


async def _work_of(held: Held, namespace: str) -> None:
    """A job of the namespace that goes on for as long as the service lives."""

    async def work(_running: Running) -> dict[str, Any]:
        await asyncio.Event().wait()
        return {}

    await held.service.jobs.start(ANONYMOUS, "kind", namespace, work)


def _storage(backend: str, path: Any, clock: SettableClock) -> Storage:
    return InMemoryStorage() if backend == "inmemory" else SQLiteStorage(path / "memory.db", clock=clock)


@pytest.fixture(params=["inmemory", "sqlite"])
async def made(request: pytest.FixtureRequest, directory: Any) -> AsyncIterator[Callable[[str], Awaitable[Held]]]:
    """Makes a service that holds what is the caller's and, where a neighbour is named, as much there."""
    async with _Stack() as stack:
        yield lambda neighbour: stack.make(request.param, directory, neighbour)


class _Stack:
    """Services that are closed together."""

    async def __aenter__(self) -> Self:
        self._open: list[Any] = []
        return self

    async def __aexit__(self, *_: object) -> None:
        for one in reversed(self._open):
            await one.__aexit__(None, None, None)

    async def make(self, backend: str, directory: Any, neighbour: str) -> Held:
        clock = SettableClock()
        place = directory / str(len(self._open))
        place.mkdir()
        context = holding(_storage(backend, place, clock), clock)
        held = await context.__aenter__()
        self._open.append(context)
        await _fill(held, "acme", "mine")
        if neighbour:
            await _fill(held, neighbour, HIDDEN)
            await _work_of(held, neighbour)
        clock.advance(2)
        return held


# What differs without telling anything: ids and the commit order are counted over all, keys and jobs are minted.
_COUNTED = {"id", "seq", "last_seq", "score", "parts"}


def _shown(told: Any) -> Any:
    """An answer as plain data, without what is counted over all namespaces."""
    if isinstance(told, msgspec.Struct):
        names = [name for name in told.__struct_fields__ if name not in _COUNTED]
        return {name: _shown(getattr(told, name)) for name in names if not (isinstance(told, Memory) and name == "key")}
    if isinstance(told, dict):
        return {name: _shown(part) for name, part in told.items()}
    return [_shown(part) for part in told] if isinstance(told, list | tuple) else told


async def _answer(held: Held, call: Call, neighbour: str) -> Any:
    """What is answered: the error with all it tells, or the result."""
    try:
        return _shown(await asyncio.wait_for(call(held, neighbour), BOUND))
    except UnifiedMemoryError as error:
        facts = {name: fact for name, fact in error.facts.items() if name not in {"key", "job_id"}}
        return type(error).__name__, error.detail, error.hint, facts


async def _all_of(held: Held, neighbour: str) -> list[Any]:
    """Everything that anonymous sees below a namespace."""
    service = held.service
    jobs = (await service.jobs.list_all(ANONYMOUS, state=None, limit=50, cursor=None)).jobs
    return [
        await service.memories.list_all(ANONYMOUS, ListQuery(namespace=neighbour)),
        await service.namespaces.list_all(ANONYMOUS, prefix=neighbour, depth=None, limit=50, cursor=None),
        await service.sessions.list_all(
            ANONYMOUS, namespace=neighbour, recursive=True, cluster_id=None, active=None, limit=50, cursor=None
        ),
        [msgspec.structs.asdict(job) for job in jobs if job.namespace == neighbour],
        msgspec.structs.replace(await service.upkeep.stats(ANONYMOUS, neighbour), bytes_stored=None, last_seq=0),
    ]


@pytest.mark.parametrize("name", CALLS)
async def test_a_neighbour_is_as_if_it_were_not_there(made: Callable[[str], Awaitable[Held]], name: str) -> None:
    for call in CALLS[name]:
        alone = await made("")
        held = await made("acme-corp")
        before = await _all_of(held, "acme-corp")
        answer = await _answer(held, call, "acme-corp")
        assert answer == await _answer(alone, call, "acme-corp")
        assert HIDDEN not in repr(answer)
        assert await _all_of(held, "acme-corp") == before


@pytest.mark.parametrize("neighbour", NEIGHBOURS)
async def test_no_neighbour_is_taken_for_a_part_of_the_callers(
    made: Callable[[str], Awaitable[Held]], neighbour: str
) -> None:
    held = await made(neighbour)
    before = await _all_of(held, neighbour)
    for calls in CALLS.values():
        for call in calls:
            assert HIDDEN not in repr(await _answer(held, call, neighbour))
    assert await _all_of(held, neighbour) == before


async def test_the_caller_sees_all_of_its_own(made: Callable[[str], Awaitable[Held]]) -> None:
    """Else the tests above would hold for a service that shows nothing to anyone."""
    held = await made("acme-corp")
    service = held.service
    for namespace in (None, "acme"):
        keys = [m.key for m in (await service.memories.list_all(CALLER, ListQuery(namespace=namespace))).memories]
        assert keys == ["k", "l", "m"]
        found = (await service.searching.search(CALLER, SearchQuery("mine", namespace=namespace))).hits
        assert sorted(hit.memory.key for hit in found) == keys
        assert (await service.memories.query(CALLER, ExactQuery(namespace=namespace, count=True))).count == 3
        stats = await service.upkeep.stats(CALLER, namespace)
        assert (stats.memories, stats.expired, stats.sessions) == (3, 1, 2)
        spaces = await service.namespaces.list_all(CALLER, prefix=namespace, depth=None, limit=5, cursor=None)
        assert [one.name for one in spaces.namespaces] == ["acme", "acme/below"]
    await service.memories.move(CALLER, MoveRequest(Place("acme", "k"), Place("acme/below", "k")))
    assert (await held.retrieve("k", "acme/below", CALLER)).value == b'"mine"'


LISTINGS: dict[str, Callable[[Held, Principal, str | None], Awaitable[list[str]]]] = {}


def listing(ask: Callable[[Held, Principal, str | None], Awaitable[list[str]]]) -> None:
    LISTINGS[ask.__name__] = ask


@listing
async def listed(held: Held, principal: Principal, namespace: str | None) -> list[str]:
    found = await held.service.memories.list_all(principal, ListQuery(namespace=namespace, recursive=False))
    return [memory.key for memory in found.memories]


@listing
async def queried(held: Held, principal: Principal, namespace: str | None) -> list[str]:
    found = await held.service.memories.query(principal, ExactQuery(namespace=namespace, recursive=False))
    return [memory.key for memory in found.memories]


@listing
async def searched(held: Held, principal: Principal, namespace: str | None) -> list[str]:
    found = await held.service.searching.search(principal, SearchQuery("mine", namespace=namespace, recursive=False))
    return sorted(hit.memory.key for hit in found.hits)


@listing
async def matched(held: Held, principal: Principal, namespace: str | None) -> list[str]:
    request = DeleteWhereRequest(_EVERYTHING, namespace=namespace, recursive=False)
    _, affected = await held.service.memories.matching(principal, request)
    return [ref.key for ref in affected.sample]


@pytest.mark.parametrize("how", LISTINGS)
@pytest.mark.parametrize(
    ("scopes", "namespace", "keys"),
    [
        (("",), "acme", ["k", "l"]),
        (("acme",), "acme", ["k", "l"]),
        (("acme",), "acme/below", ["m"]),
        # What is asked for is acme alone, of which this one sees nothing: not what lies below it.
        (("acme/below",), "acme", []),
        (("acme-corp",), "acme", []),
        # Without a namespace there is nothing to be alone: it is all that one sees.
        (("",), None, ["k", "l", "m"]),
        (("acme",), None, ["k", "l", "m"]),
        ((), None, []),
    ],
)
async def test_a_listing_of_one_namespace_is_never_widened_to_others(
    made: Callable[[str], Awaitable[Held]], how: str, scopes: tuple[str, ...], namespace: str | None, keys: list[str]
) -> None:
    held = await made("")
    assert await LISTINGS[how](held, Principal("someone", scopes), namespace) == keys
