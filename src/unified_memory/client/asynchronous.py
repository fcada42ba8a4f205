"""The client for asynchronous programs."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import wraps
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Protocol, Self, TypeVar

import httpx2

from unified_memory.client import protocol
from unified_memory.client.connection import (
    DEFAULT_TIMEOUT_SECONDS,
    answer_of,
    as_method,
    async_pieces,
    check_url,
    failed,
    head_of,
    options,
    request_of,
)
from unified_memory.client.errors import ServiceUnavailableError
from unified_memory.client.protocol import DEFAULT_URL, Answer, Call, Flow, Listing

P = ParamSpec("P")
T = TypeVar("T")
PageT = TypeVar("PageT")
ItemT = TypeVar("ItemT")


class Sender(Protocol):
    """Makes calls."""

    async def send(self, call: Call[T]) -> T:
        """The call's result."""
        ...


def _operation(build: Callable[P, Call[T]]) -> Callable[Concatenate[Sender, P], Coroutine[None, None, T]]:
    @wraps(build)
    async def operation(self: Sender, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.send(build(*args, **kwargs))

    return as_method(operation, build)


def _iteration(
    build: Callable[P, Listing[PageT, ItemT]],
) -> Callable[Concatenate[Sender, P], AsyncIterator[ItemT]]:
    @wraps(build)
    async def iteration(self: Sender, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[ItemT]:
        call: Listing[PageT, ItemT] | None = build(*args, **kwargs)
        while call is not None:
            page = await self.send(call)
            for item in call.items(page):
                yield item
            call = call.after(page)

    return as_method(iteration, build)


def _flow(build: Callable[P, Flow[ItemT]]) -> Callable[Concatenate["UnifiedMemoryClient", P], AsyncIterator[ItemT]]:
    @wraps(build)
    async def flow(self: "UnifiedMemoryClient", /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[ItemT]:
        async for item in self.stream(build(*args, **kwargs)):
            yield item

    return as_method(flow, build)


class _Part:
    def __init__(self, client: Sender) -> None:
        self._client = client

    async def send(self, call: Call[T]) -> T:
        return await self._client.send(call)


class Namespaces(_Part):
    """Operations on namespaces."""

    create = _operation(protocol.create_namespace)
    get = _operation(protocol.get_namespace)
    list = _operation(protocol.list_namespaces)
    iterate = _iteration(protocol.list_namespaces)
    configure = _operation(protocol.configure_namespace)
    move = _operation(protocol.move_namespace)
    delete = _operation(protocol.delete_namespace)


class Sessions(_Part):
    """Operations on sessions."""

    create = _operation(protocol.create_session)
    get = _operation(protocol.get_session)
    iterate_memories = _iteration(protocol.get_session)
    list = _operation(protocol.list_sessions)
    iterate = _iteration(protocol.list_sessions)
    end = _operation(protocol.end_session)


class UnifiedMemoryClient:
    """Speaks to a memory service; one client may be used by any number of tasks of one event loop.

    Every operation raises the errors of `unified_memory.model.errors`, ServiceUnavailableError where the service cannot
    be reached, and UnexpectedAnswerError where something else answers.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = DEFAULT_TIMEOUT_SECONDS,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """A client that connects with its first call.

        Args:
            url: Where the service is, without /api.
            headers: Sent with every request.
            timeout: Seconds to wait for the connection, and then for each part of the answer; None: for ever.
            transport: Takes the place of the network.
        """
        self.url = check_url(url)
        self._timeout = timeout
        self._http = httpx2.AsyncClient(transport=transport, **options(self.url, headers, timeout))
        self.namespaces = Namespaces(self)
        self.sessions = Sessions(self)

    async def exchange(self, call: Call[T]) -> Answer:
        """The answer to a call, as it came: also one that tells of an error. Raises ServiceUnavailableError."""
        try:
            response = await self._http.request(**self._request(call))
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise failed(error, self.url) from error
        return answer_of(response)

    async def send(self, call: Call[T]) -> T:
        """The result of a call of `protocol`."""
        return call.read(await self.exchange(call))

    def _request(self, call: Call[T]) -> dict[str, Any]:
        lines = None if call.lines is None else async_pieces(call.lines)
        return request_of(call, self.url, self._timeout, lines)

    async def stream(self, flow: Flow[ItemT]) -> AsyncIterator[ItemT]:
        """The items of a flow of `protocol`, as they come. Raises as `send` does, also later."""
        reader = flow.reader()
        attempt = 0
        while True:
            broken: ServiceUnavailableError | None = None
            reader.begin()
            try:
                async for piece in self._pieces(flow, flow.again(reader)):
                    attempt = 0
                    for item in reader.feed(piece):
                        yield item
            except ServiceUnavailableError as error:
                # Before anything was seen there is nothing to go on from.
                if flow.attempts is None or reader.seen is None:
                    raise
                broken = error
            if flow.attempts is None:
                for item in reader.end():
                    yield item
                return
            await asyncio.sleep(max(reader.retry, flow.delay(attempt, broken)))
            attempt += 1

    async def _pieces(self, flow: Flow[ItemT], call: Call[T]) -> AsyncIterator[bytes]:
        try:
            async with self._http.stream(**self._request(call)) as response:
                if response.status_code != httpx2.codes.OK:
                    await response.aread()
                    flow.check(answer_of(response))
                flow.check(head_of(response))
                async for piece in response.aiter_bytes():
                    yield piece
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise failed(error, self.url) from error

    async def close(self) -> None:
        """Closes the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    store = _operation(protocol.store)
    retrieve = _operation(protocol.retrieve)
    update = _operation(protocol.update)
    patch = _operation(protocol.patch)
    delete = _operation(protocol.delete)
    move = _operation(protocol.move)
    store_batch = _operation(protocol.store_batch)
    retrieve_batch = _operation(protocol.retrieve_batch)
    delete_batch = _operation(protocol.delete_batch)
    update_where = _operation(protocol.update_where)
    delete_where = _operation(protocol.delete_where)
    list = _operation(protocol.list_memories)
    iterate = _iteration(protocol.list_memories)
    search = _operation(protocol.search)
    iterate_search = _iteration(protocol.search)
    similar = _operation(protocol.similar)
    iterate_similar = _iteration(protocol.similar)
    recall = _operation(protocol.recall)
    query = _operation(protocol.query)
    iterate_query = _iteration(protocol.query)
    tiers = _operation(protocol.tiers)
    archive = _operation(protocol.archive)
    recall_archived = _operation(protocol.recall_archived)
    tier_pass = _operation(protocol.tier_pass)
    history = _operation(protocol.history)
    iterate_history = _iteration(protocol.history)
    version = _operation(protocol.version)
    restore_version = _operation(protocol.restore_version)
    redact = _operation(protocol.redact)
    changes = _operation(protocol.changes)
    follow_changes = _flow(protocol.follow_changes)
    backup = _operation(protocol.create_backup)
    backups = _operation(protocol.list_backups)
    get_backup = _operation(protocol.get_backup)
    verify_backup = _operation(protocol.verify_backup)
    delete_backup = _operation(protocol.delete_backup)
    restore = _operation(protocol.restore)
    export = _flow(protocol.export)
    import_lines = _operation(protocol.import_lines)
    stats = _operation(protocol.stats)
    cleanup = _operation(protocol.cleanup)
    jobs = _operation(protocol.list_jobs)
    iterate_jobs = _iteration(protocol.list_jobs)
    job = _operation(protocol.get_job)
    cancel_job = _operation(protocol.cancel_job)
    health = _operation(protocol.health)
    read_only = _operation(protocol.read_only)
    set_read_only = _operation(protocol.set_read_only)
    schema = _operation(protocol.schema)
