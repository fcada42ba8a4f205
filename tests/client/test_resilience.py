"""What a client does where the service is away: it asks again, or does not ask at all."""

import math
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx2
import pytest

from unified_memory.client import (
    Breaker,
    BreakerState,
    Retries,
    ServiceUnavailableError,
    SyncUnifiedMemoryClient,
    UnifiedMemoryClient,
    protocol,
)
from unified_memory.client.connection import answer_of
from unified_memory.client.protocol import Answer, Call
from unified_memory.client.resilience import Attempts
from unified_memory.model.errors import InvalidInputError, MemoryNotFoundError, StorageBusyError

AT_ONCE = Retries(attempts=3, first=0.0, longest=0.0)
RECORD = {"key": "k", "namespace": "default", "value": 1, "version": 1, "metadata": {}}
Reply = httpx2.Response | type[httpx2.RequestError]


class Service:
    """Gives the replies one after the other, and the last one for ever; keeps the requests."""

    def __init__(self, *replies: Reply) -> None:
        self._replies = list(replies)
        self.requests: list[httpx2.Request] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        self.requests.append(request)
        reply = self._replies.pop(0) if len(self._replies) > 1 else self._replies[0]
        if isinstance(reply, httpx2.Response):
            return reply
        raise reply("no answer", request=request)

    def keys(self) -> list[str | None]:
        return [request.headers.get("idempotency-key") for request in self.requests]


def good() -> httpx2.Response:
    return httpx2.Response(200, json=RECORD)


def away(status: int = 503, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, text="away", headers=headers)


def busy(retry_after: int | None) -> httpx2.Response:
    problem = {"status": 503, "detail": "Too much is waiting", "code": "storage_busy", "retry_after": retry_after}
    headers = {"content-type": "application/problem+json"}
    if retry_after is not None:
        headers["retry-after"] = str(retry_after)
    return httpx2.Response(503, json=problem, headers=headers)


def client_of(service: Service, **options: Any) -> SyncUnifiedMemoryClient:
    return SyncUnifiedMemoryClient(transport=httpx2.MockTransport(service), **{"retries": AT_ONCE, **options})


# ---- retries
@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_read_is_made_again_where_the_service_is_away(status: int) -> None:
    service = Service(away(status), httpx2.ReadTimeout, good())
    with client_of(service) as client:
        assert client.retrieve("k") == RECORD
    assert len(service.requests) == 3


def test_attempts_are_bounded_and_the_last_failure_is_told() -> None:
    service = Service(httpx2.ReadError)
    with client_of(service) as client, pytest.raises(ServiceUnavailableError):
        client.retrieve("k")
    assert len(service.requests) == 3


WRITES: list[Callable[[SyncUnifiedMemoryClient], Any]] = [
    lambda client: client.store("k", 1),
    lambda client: client.update("k", value=1),
    lambda client: client.patch("k", merge={}),
    lambda client: client.delete("k"),
    lambda client: client.store_batch([{"key": "k", "value": 1}]),
    lambda client: client.delete_batch(["k"]),
    lambda client: client.restore_version("k"),
]


@pytest.mark.parametrize("write", WRITES)
def test_a_write_is_made_again_with_the_same_key(write: Callable[[SyncUnifiedMemoryClient], Any]) -> None:
    service = Service(httpx2.ReadError, away(), httpx2.Response(200, json={**RECORD, "results": []}))
    with client_of(service) as client:
        write(client)
        write(client)
    first, second, third, other = service.keys()
    assert first == second == third != other
    assert None not in {first, other}


def test_a_key_that_the_caller_gave_is_kept() -> None:
    service = Service(httpx2.ReadError, good())
    with client_of(service) as client:
        client.store("k", 1, idempotency_key="mine")
    assert service.keys() == ["mine", "mine"]


def test_without_retries_a_write_has_no_key_of_its_own() -> None:
    service = Service(httpx2.ReadError)
    with client_of(service, retries=None) as client, pytest.raises(ServiceUnavailableError):
        client.store("k", 1)
    assert service.keys() == [None]


def test_what_takes_no_key_is_not_sent_twice() -> None:
    service = Service(httpx2.ReadError)
    with client_of(service) as client, pytest.raises(ServiceUnavailableError):
        client.move("k", "l")
    assert len(service.requests) == 1


def test_what_was_never_sent_is_made_again_whatever_it_is() -> None:
    service = Service(httpx2.ConnectError, good())
    with client_of(service) as client:
        client.move("k", "l")
    assert len(service.requests) == 2


def test_lines_are_taken_once() -> None:
    service = Service(httpx2.ConnectError)
    with client_of(service) as client, pytest.raises(ServiceUnavailableError):
        client.import_lines(iter(["{}"]))
    assert len(service.requests) == 1


def test_an_error_of_the_service_is_told_at_once() -> None:
    problem = {"status": 404, "detail": "Memory not found", "code": "memory_not_found"}
    service = Service(httpx2.Response(404, json=problem, headers={"content-type": "application/problem+json"}))
    with client_of(service) as client, pytest.raises(MemoryNotFoundError):
        client.delete("k")
    assert len(service.requests) == 1


def test_a_busy_service_is_asked_again_where_it_says_when() -> None:
    service = Service(busy(0), good())
    with client_of(service) as client:
        client.store("k", 1)
    with client_of(Service(busy(None))) as client, pytest.raises(StorageBusyError):
        client.store("k", 1)


def test_health_that_says_failing_is_an_answer() -> None:
    service = Service(httpx2.Response(503, json={"status": "failing"}))
    with client_of(service) as client:
        assert client.health()["status"] == "failing"
    assert len(service.requests) == 1
    assert client.breaker.state is BreakerState.CLOSED


async def test_the_asynchronous_client_asks_again_too() -> None:
    service = Service(httpx2.ReadError, away(), good())
    async with UnifiedMemoryClient(transport=httpx2.MockTransport(service), retries=AT_ONCE) as client:
        await client.store("k", 1)
    assert len(set(service.keys())) == 1
    assert len(service.requests) == 3


def test_pauses_grow_at_random_up_to_a_bound() -> None:
    call: Call[Any] = protocol.retrieve("k")
    retries = Retries(attempts=6, first=1.0, longest=4.0, total=100.0)
    ceilings = [1.0, 2.0, 4.0, 4.0, 4.0]
    seen: set[float] = set()
    for _ in range(50):
        attempts = Attempts(retries, call, clock=lambda: 0.0)
        pauses = [attempts.pause(Answer(503, "", b"")) for _ in range(6)]
        assert pauses.pop() is None
        for pause, ceiling in zip(pauses, ceilings, strict=True):
            assert pause is not None
            assert 0 <= pause <= ceiling
            seen.add(pause)
    assert len(seen) > 200


def test_a_pause_is_as_long_as_the_service_says() -> None:
    attempts = Attempts(Retries(), protocol.retrieve("k"), clock=lambda: 0.0)
    assert attempts.pause(Answer(503, "", b"", retry_after=7.0)) == 7.0


def test_no_attempt_begins_beyond_the_total_time() -> None:
    now = iter([0.0, 29.0, 31.0])
    attempts = Attempts(Retries(first=0.0, total=30.0, attempts=9), protocol.retrieve("k"), clock=lambda: next(now))
    assert attempts.pause(Answer(503, "", b"")) == 0.0
    assert attempts.pause(Answer(503, "", b"")) is None


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "3"}, 3.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:05 GMT", "date": "Wed, 21 Oct 2026 07:28:00 GMT"}, 5.0),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:05 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Wed, 21 Oct 99999999999999999999 07:28:05 GMT"}, None),
        ({"retry-after": "9" * 5000}, math.inf),
        ({}, None),
    ],
)
def test_a_retry_after_is_seconds_or_an_instant(headers: dict[str, str], seconds: float | None) -> None:
    assert answer_of(httpx2.Response(503, headers=headers)).retry_after == seconds


def test_a_pause_that_the_service_never_ends_is_not_made() -> None:
    attempts = Attempts(Retries(), protocol.retrieve("k"), clock=lambda: 0.0)
    assert attempts.pause(Answer(503, "", b"", retry_after=math.inf)) is None


def test_thousands_of_attempts_have_their_pauses() -> None:
    retries = Retries(attempts=3000, first=0.1, longest=0.2, total=math.inf)
    attempts = Attempts(retries, protocol.retrieve("k"), clock=lambda: 0.0)
    assert all(attempts.pause(Answer(503, "", b"")) is not None for _ in range(2999))


@pytest.mark.parametrize("first", [lambda: httpx2.ReadError, lambda: away(502)])
async def test_what_one_attempt_may_have_brought_is_not_unsent(first: Callable[[], Reply]) -> None:
    for failures in (2, 1):
        # The last attempt meets no service, or the breaker.
        service = Service(first(), httpx2.ConnectError)
        options: dict[str, Any] = {"retries": Retries(attempts=2, first=0.0), "breaker": Breaker(failures)}
        with client_of(service, **options) as client, pytest.raises(ServiceUnavailableError) as told:
            client.store("k", 1)
        assert not told.value.unsent
        options["breaker"] = Breaker(failures)
        transport = httpx2.MockTransport(Service(first(), httpx2.ConnectError))
        async with UnifiedMemoryClient(transport=transport, **options) as other:
            with pytest.raises(ServiceUnavailableError) as told:
                await other.store("k", 1)
        assert not told.value.unsent
    with client_of(Service(httpx2.ConnectError)) as client, pytest.raises(ServiceUnavailableError) as told:
        client.store("k", 1)
    assert told.value.unsent


def test_retries_that_make_no_sense_are_refused() -> None:
    for wrong in ({"attempts": 0}, {"first": -1.0}):
        with pytest.raises(InvalidInputError):
            Retries(**wrong)
    with pytest.raises(InvalidInputError):
        Breaker(0)


# ---- the breaker
class Hands:
    """A clock that stands still."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@contextmanager
def opened(service: Service, hands: Hands) -> Iterator[SyncUnifiedMemoryClient]:
    breaker = Breaker(failures=3, pause=5.0, clock=hands)
    with client_of(service, breaker=breaker, retries=None) as client:
        for _ in range(3):
            assert client.breaker.state is BreakerState.CLOSED
            with pytest.raises(ServiceUnavailableError):
                client.retrieve("k")
        yield client


def test_an_open_breaker_asks_nobody() -> None:
    service = Service(httpx2.ConnectError)
    with opened(service, Hands()) as client:
        assert client.breaker.state is BreakerState.OPEN
        with pytest.raises(ServiceUnavailableError) as told:
            client.store("k", 1)
        assert told.value.facts["breaker"] == "open"
    assert len(service.requests) == 3


def test_after_the_pause_one_call_sees_whether_the_service_is_back() -> None:
    hands = Hands()
    service = Service(*[httpx2.ConnectError] * 4, good())
    with opened(service, hands) as client:
        hands.now = 5.0
        states = [client.breaker.state]
        with pytest.raises(ServiceUnavailableError):
            client.retrieve("k")
        states.append(client.breaker.state)
        hands.now = 10.0
        assert client.retrieve("k") == RECORD
        states.append(client.breaker.state)
    assert states == ["half-open", "open", "closed"]


def test_only_one_call_probes_and_one_that_is_given_up_counts_for_nothing() -> None:
    hands = Hands()
    with opened(Service(httpx2.ConnectError), hands) as client:
        hands.now = 5.0
        with client.breaker.attempt("here"), pytest.raises(ServiceUnavailableError), client.breaker.attempt("here"):
            pytest.fail("A second probe was let through")
        with client.breaker.attempt("here") as tell:
            tell(True)
        assert client.breaker.state is BreakerState.CLOSED


def test_what_began_before_the_service_was_back_does_not_open_it_again() -> None:
    breaker = Breaker(failures=2)
    with breaker.attempt("here") as first, breaker.attempt("here") as second:
        with breaker.attempt("here") as tell:
            tell(True)
        first(False)
        second(False)
    assert breaker.state is BreakerState.CLOSED


def test_answers_between_failures_keep_it_closed() -> None:
    service = Service(httpx2.ReadError, httpx2.ReadError, busy(None), httpx2.ReadError, httpx2.ReadError, good())
    with client_of(service, breaker=Breaker(failures=3), retries=None) as client:
        for _ in range(5):
            with pytest.raises((ServiceUnavailableError, StorageBusyError)):
                client.retrieve("k")
        assert client.retrieve("k") == RECORD


def test_what_says_that_the_service_is_away_counts_as_a_failure() -> None:
    with opened(Service(away(502)), Hands()) as client:
        assert client.breaker.state is BreakerState.OPEN


# ---- the package alone
def test_the_client_is_imported_without_the_service() -> None:
    code = "import sys, unified_memory.client; print('\\n'.join(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    own = {name.split(".")[1] for name in loaded if name.startswith("unified_memory.")}
    assert own == {"client", "model"}
    assert not {"starlette", "typer", "mcp", "redis", "fastapi", "uvicorn", "numpy"} & set(loaded)
