"""The client for programs that wait."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import wraps
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Protocol, Self, TypeVar, cast

import httpx2
from msgspec import Struct

from unified_memory.client import fallback, protocol
from unified_memory.client.connection import (
    DEFAULT_TIMEOUT_SECONDS,
    answer_of,
    as_method,
    check_url,
    checked,
    failed,
    head_of,
    options,
    pieces,
    request_of,
)
from unified_memory.client.errors import ServiceUnavailableError
from unified_memory.client.fallback import Ask, AskOlder, Means, Pause, Replay, Step, Steps, open_spool, plain, replay
from unified_memory.client.protocol import DEFAULT_URL, Answer, Call, Flow, Listing
from unified_memory.client.resilience import (
    REPLAY_SECONDS,
    RETRIES,
    Attempts,
    Breaker,
    BreakerState,
    Outcome,
    Retries,
    is_reached,
    with_key,
)
from unified_memory.model.errors import InvalidInputError, UnifiedMemoryError

if TYPE_CHECKING:
    from unified_memory.client.spool import Spool

P = ParamSpec("P")
T = TypeVar("T")
PageT = TypeVar("PageT")
ItemT = TypeVar("ItemT")


logger = logging.getLogger(__name__)


class _Older(Struct, frozen=True):
    url: str
    http: httpx2.Client
    breaker: Breaker


class _ClosedError(Exception):
    """The client was closed meanwhile."""


class Sender(Protocol):
    """Makes calls."""

    def send(self, call: Call[T]) -> T:
        """The call's result."""
        ...


def _operation(build: Callable[P, Call[T]]) -> Callable[Concatenate[Sender, P], T]:
    @wraps(build)
    def operation(self: Sender, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.send(build(*args, **kwargs))

    return as_method(operation, build)


def _iteration(
    build: Callable[P, Listing[PageT, ItemT]],
) -> Callable[Concatenate[Sender, P], Iterator[ItemT]]:
    @wraps(build)
    def iteration(self: Sender, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[ItemT]:
        call: Listing[PageT, ItemT] | None = build(*args, **kwargs)
        while call is not None:
            page = self.send(call)
            yield from call.items(page)
            call = call.after(page)

    return as_method(iteration, build)


def _flow(build: Callable[P, Flow[ItemT]]) -> Callable[Concatenate["SyncUnifiedMemoryClient", P], Iterator[ItemT]]:
    @wraps(build)
    def flow(self: "SyncUnifiedMemoryClient", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[ItemT]:
        yield from self.stream(build(*args, **kwargs))

    return as_method(flow, build)


def _kept(build: Callable[Concatenate[Means, P], Steps[T]]) -> Callable[Concatenate["SyncUnifiedMemoryClient", P], T]:
    @wraps(build)
    def operation(self: "SyncUnifiedMemoryClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        self._begin_replays()
        return self._carry_out(build(self._means, *args, **kwargs))

    return as_method(operation, build, skipped=1)


class _Part:
    def __init__(self, client: Sender) -> None:
        self._client = client

    def send(self, call: Call[T]) -> T:
        return self._client.send(call)


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


class SyncUnifiedMemoryClient:
    """Speaks to a memory service; one client may be used by any number of threads.

    Every operation raises the errors of `unified_memory.model.errors`, ServiceUnavailableError where the service cannot
    be reached, and UnexpectedAnswerError where something else answers.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = DEFAULT_TIMEOUT_SECONDS,
        transport: httpx2.BaseTransport | None = None,
        retries: Retries | None = RETRIES,
        breaker: Breaker | None = None,
        spool: "Spool | Path | str | None" = None,
        fallback_url: str | None = None,
        fallback_transport: httpx2.BaseTransport | None = None,
        replay_every: float = REPLAY_SECONDS,
    ) -> None:
        """A client that connects with its first call.

        Args:
            url: Where the service is, without /api.
            headers: Sent with every request.
            timeout: Seconds to wait for the connection, and then for each part of the answer; None: for ever.
            transport: Takes the place of the network.
            retries: How calls are made again that may be; None: never. Writes get an Idempotency-Key where they are.
            breaker: Keeps calls from a service that does not answer; None: one of the client's own.
            spool: Keeps writes `with_fallback` while the service is away: a file, or a spool that several clients share. It is
                replayed in the background.
            fallback_url: Where the older service is, for operations `with_fallback`.
            fallback_transport: Takes the place of the network on the way there.
            replay_every: Seconds between looks into the spool.
        """
        self.url = check_url(url)
        self._timeout = timeout
        self._http = httpx2.Client(transport=transport, **options(self.url, headers, timeout))
        self._retries = retries
        self.breaker = breaker or Breaker()
        self._owns_spool = isinstance(spool, Path | str)
        self.spool = open_spool(spool) if isinstance(spool, Path | str) else spool
        self._replay_every = replay_every
        self._older: _Older | None = None
        if fallback_url is not None:
            older_url = check_url(fallback_url)
            older_http = httpx2.Client(transport=fallback_transport, **options(older_url, None, timeout))
            self._older = _Older(older_url, older_http, Breaker())
        self._means = Means(self.spool, self._older is not None, lambda: self.breaker.state is BreakerState.OPEN)
        self._replays: threading.Thread | None = None
        self._closing = threading.Event()
        self._begin = threading.Lock()
        self.namespaces = Namespaces(self)
        self.sessions = Sessions(self)

    def exchange(self, call: Call[T]) -> Answer:
        """The answer to a call, as it came: also one that tells of an error. Raises ServiceUnavailableError."""
        call = call if self._retries is None else with_key(call)
        attempts = Attempts(self._retries, call)
        with attempts.told():
            while True:
                with self.breaker.attempt(self.url) as tell:
                    outcome = self._attempt(self._http, self.url, call)
                    tell(is_reached(call, outcome))
                pause = attempts.pause(outcome)
                if pause is None:
                    return checked(outcome)
                time.sleep(pause)

    def _attempt(self, http: httpx2.Client, url: str, call: Call[T]) -> Outcome:
        try:
            response = http.request(**self._request(call, url))
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            told = failed(error, url)
            if not isinstance(told, ServiceUnavailableError):
                raise told from error
            told.__cause__ = error
            return told
        return answer_of(response)

    def send(self, call: Call[T]) -> T:
        """The result of a call of `protocol`. With a spool, a read sees what waits in it, and a write goes behind that."""
        if self.spool is None:
            return call.read(self.exchange(call))
        self._begin_replays()
        return self._carry_out(plain(self._means, call))

    def replay(self) -> Replay:
        """Sends what waits in the spool, in order, and tells how much of it the service has taken and refused.

        Raises ServiceUnavailableError, InProgressError where it is being done already, InvalidInputError where there is no spool.
        """
        if self.spool is None:
            raise InvalidInputError("spool", "The client has no spool")
        return self._carry_out(replay(self.spool))

    def _carry_out(self, steps: Steps[T], *, until: threading.Event | None = None) -> T:
        try:
            step = next(steps)
            while True:
                try:
                    outcome = self._step(step)
                except UnifiedMemoryError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(outcome)
                if until is not None and until.is_set():
                    raise _ClosedError
        except StopIteration as end:
            return cast("T", end.value)
        finally:
            steps.close()

    def _step(self, step: Step) -> Any:
        if isinstance(step, Ask):
            return step.call.read(self.exchange(step.call))
        if isinstance(step, AskOlder):
            return self._ask_older(step.call)
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        return step.work()

    def _ask_older(self, call: Call[T]) -> T:
        if self._older is None:
            raise InvalidInputError("fallback_url", "The client knows no older service")
        url, http, breaker = self._older.url, self._older.http, self._older.breaker
        with breaker.attempt(url) as tell:
            outcome = self._attempt(http, url, call)
            tell(is_reached(call, outcome))
        return call.read(checked(outcome))

    def _begin_replays(self) -> None:
        if self.spool is None:
            return
        with self._begin:
            # It may have come to its end by a fork of the process, or by an error that is no error of ours.
            ended = self._replays is None or not self._replays.is_alive()
            if ended and not self._closing.is_set():
                self._replays = threading.Thread(target=self._replay_on, args=(self.spool,), daemon=True)
                self._replays.start()

    def _replay_on(self, spool: "Spool") -> None:
        while not self._closing.is_set():
            try:
                if spool.waits() and not self._means.is_open():
                    self._carry_out(replay(spool), until=self._closing)
            except _ClosedError:
                return
            except UnifiedMemoryError as error:
                logger.info("The spool waits on: %s", error.detail)
            self._closing.wait(self._replay_every)

    def _request(self, call: Call[T], url: str) -> dict[str, Any]:
        lines = None if call.lines is None else pieces(call.lines)
        return request_of(call, url, self._timeout, lines)

    def stream(self, flow: Flow[ItemT]) -> Iterator[ItemT]:
        """The items of a flow of `protocol`, as they come. Raises as `send` does, also later."""
        reader = flow.reader()
        attempt = 0
        while True:
            broken: ServiceUnavailableError | None = None
            reader.begin()
            try:
                for piece in self._pieces(flow, flow.again(reader)):
                    attempt = 0
                    yield from reader.feed(piece)
            except ServiceUnavailableError as error:
                # Before anything was seen there is nothing to go on from.
                if flow.attempts is None or reader.seen is None:
                    raise
                broken = error
            if flow.attempts is None:
                yield from reader.end()
                return
            time.sleep(max(reader.retry, flow.delay(attempt, broken)))
            attempt += 1

    def _pieces(self, flow: Flow[ItemT], call: Call[T]) -> Iterator[bytes]:
        try:
            with self._http.stream(**self._request(call, self.url)) as response:
                if response.status_code != httpx2.codes.OK:
                    response.read()
                    flow.check(answer_of(response))
                flow.check(head_of(response))
                yield from response.iter_bytes()
        except (httpx2.RequestError, httpx2.InvalidURL) as error:
            raise failed(error, self.url) from error

    def close(self) -> None:
        """Closes the connections; what waits in the spool stays there. What a replay is just sending is waited for."""
        self._closing.set()
        if self._replays is not None:
            self._replays.join()
        self._http.close()
        if self._older is not None:
            self._older.http.close()
        if self.spool is not None and self._owns_spool:
            self.spool.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    store_with_fallback = _kept(fallback.store)
    retrieve_with_fallback = _kept(fallback.retrieve)
    update_with_fallback = _kept(fallback.update)
    delete_with_fallback = _kept(fallback.delete)
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
    migration = _operation(protocol.migration)
    plan_migration = _operation(protocol.plan_migration)
    run_migration = _operation(protocol.run_migration)
    verify_migration = _operation(protocol.verify_migration)
    switch_migration = _operation(protocol.switch_migration)
    rollback_migration = _operation(protocol.rollback_migration)
    finish_migration = _operation(protocol.finish_migration)
    migration_report = _operation(protocol.migration_report)
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
