"""A REST service in process, and a client that asks it."""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2

from tests.rest.conforming import assert_conforms
from unified_memory.model.clock import Clock, SettableClock
from unified_memory.rest import RestApplication
from unified_memory.rest.migration import Reachable
from unified_memory.rest.routes import PREFIXES
from unified_memory.service.drafting import Limits
from unified_memory.service.service import Safekeeping, Service, assemble
from unified_memory.storage.archive import Archive, Directory
from unified_memory.storage.backup import Place
from unified_memory.storage.base import Storage
from unified_memory.storage.hot import Hot
from unified_memory.storage.inmemory import InMemoryStorage
from unified_memory.storage.sqlite import SQLiteStorage
from unified_memory.storage.tiered import TieredStorage
from unified_memory.storage.tiers import Tiers

PREFIX = PREFIXES[0]
MAX_BODY = 1024 * 1024
MEMORY = Path("/dev/shm")  # noqa: S108 - directories in it with names of their own
IN_MEMORY = MEMORY if MEMORY.is_dir() else None
# Small, so that a test can go beyond them.
LIMITS = Limits(value_bytes=100_000, key_bytes=1000, tags=8, batch=20, metadata_bytes=10_000, namespaces=30)


class Rest:
    """What a test holds: `ask` sends a request below the prefix and gives the answer."""

    def __init__(
        self,
        application: RestApplication,
        service: Service,
        clock: SettableClock,
        backups: Path = Path(),
        older: Path = Path(),
    ) -> None:
        self.application = application
        self.backups = backups
        # Below it sources of a migration may be named.
        self.older = older
        self.service = service
        self.clock = clock
        transport = httpx2.ASGITransport(application)
        self.client = httpx2.AsyncClient(transport=transport, base_url="http://memory.test")

    async def ask(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, prefix: str = PREFIX
    ) -> httpx2.Response:
        """`body`: bytes as they are, None: no body, anything else as JSON. The answer is one that is documented."""
        content: dict[str, Any] = (
            {} if body is None else {"content": body} if isinstance(body, bytes) else {"json": body}
        )
        answer = await self.client.request(method, prefix + path, headers=headers, **content)
        assert_conforms(method, answer.request.url.path.removeprefix(prefix), answer)
        return answer

    async def ok(self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None) -> Any:
        """The JSON of an answer that must be 200."""
        answer = await self.ask(method, path, body, headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def store(self, key: str, value: Any = "v", namespace: str = "default", **more: Any) -> Any:
        """Stores; the record."""
        return await self.ok("POST", "/store", {"key": key, "value": value, "namespace": namespace, **more})

    @property
    def has_one_tier(self) -> bool:
        """Whether there is nothing to move memories to."""
        return not isinstance(self.service.storage, Tiers)

    async def keys(self, method: str, path: str, body: Any = None) -> list[str]:
        """The keys that a listing or a search names."""
        told = await self.ok(method, path, body)
        return [one["key"] for one in told.get("memories", told.get("results"))]


def escaped(name: str) -> str:
    """A key, namespace or id as a client writes it in a path."""
    return quote(name, safe="")


def make_storage(backend: str, directory: Path, clock: SettableClock) -> Storage:
    if backend == "inmemory":
        return InMemoryStorage(clock)
    if backend == "tiered":
        tiered: Storage = make_tiered(directory, clock)
        return tiered
    return SQLiteStorage(directory / "memory.db", clock=clock)


def make_tiered(
    directory: Path,
    clock: Clock,
    hot: Callable[[SQLiteStorage], Hot] | None = None,
    *,
    kind: Callable[..., Any] = TieredStorage,
) -> Any:
    """The database with archives beside it, and perhaps hot copies before it."""
    archive = Archive(Directory(directory / "archive"))
    warm = SQLiteStorage(directory / "memory.db", clock=clock, cold=archive)
    return kind(warm, clock, hot=None if hot is None else hot(warm), archive=archive)


@contextlib.asynccontextmanager
async def serving(
    storage: Storage, clock: SettableClock, limits: Limits = LIMITS, **settings: Any
) -> AsyncIterator[Rest]:
    """REST over a storage, opened and closed. Backups, the files of a migration and its sources lie in directories of its own,
    unless something else is said.
    """
    with tempfile.TemporaryDirectory(prefix="unified-memory-test-", dir=IN_MEMORY) as beside:
        backups, older = Path(beside) / "backups", Path(beside) / "older"
        kept = Safekeeping(place=Place(backups), migration=Path(beside) / "migration", points=backups / "pre-migration")
        settings.setdefault("safekeeping", kept)
        service = assemble(storage, clock, limits, **settings)
        await service.open()
        application = RestApplication(service, max_body=MAX_BODY, reachable=Reachable(older))
        rest = Rest(application, service, clock, backups, older)
        try:
            yield rest
        finally:
            await rest.client.aclose()
            await service.close()


def refused(answer: httpx2.Response, status: int, code: str, field: str | None = None) -> Any:
    """Asserts that the answer is the problem of that status and code, in the one shape; what it says."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    told = answer.json()
    assert list(told)[:5] == ["type", "title", "status", "detail", "code"]
    assert (told["status"], told["code"]) == (status, code), told
    assert told["type"] == "about:blank"
    assert told["title"]
    assert told["detail"]
    if field is not None:
        assert told["field"] == field, told
    return told


async def stored(rest: Rest) -> Any:
    """What there is; the files may grow also by what was not stored."""
    return {**await rest.ok("GET", "/stats"), "bytes_stored": None}
