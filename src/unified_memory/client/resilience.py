"""What a client does where the service is away: it asks again, and after some failures in a row it does not ask for a while.

A call is asked again where nothing can be done twice by it: it reads, or it carries an Idempotency-Key, or it was never sent.
"""

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from functools import partial
from typing import Any

import msgspec
from msgspec import Struct

from unified_memory.client.errors import ServiceUnavailableError
from unified_memory.client.protocol import AWAY, IDEMPOTENCY_KEY, PROBLEM, Answer, Call
from unified_memory.model.errors import InvalidInputError

Monotonic = Callable[[], float]
# What came of one attempt.
Outcome = Answer | ServiceUnavailableError


class Retries(Struct, frozen=True):
    """How often and when a call is made again.

    The pause before the n-th repetition is a random part of `first` * 2 ** (n - 1) seconds, at most of `longest` ("full jitter",
    https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), and never shorter than a Retry-After.
    `attempts`: in all, the first one included. `total`: seconds after which no further one begins.
    """

    attempts: int = 3
    first: float = 0.1
    longest: float = 2.0
    total: float = 30.0

    def __post_init__(self) -> None:
        if self.attempts < 1 or min(self.first, self.longest, self.total) < 0:
            raise InvalidInputError("retries", "attempts is at least 1, and no time is negative")


RETRIES = Retries()
# A float holds no more than some 1,000.
_MOST_DOUBLINGS = 64
# How often a client looks whether what waits in its spool can go.
REPLAY_SECONDS = 1.0


class Attempts:
    """The attempts at one call. `clock`: seconds that only grow."""

    def __init__(self, retries: Retries | None, call: Call[Any], clock: Monotonic = time.monotonic) -> None:
        self._retries = retries
        self._call = call
        self._clock = clock
        self._begun = clock()
        self._made = 0
        self._arrived = False

    def pause(self, outcome: Outcome) -> float | None:
        """Seconds to wait before the next attempt, None where this outcome is the last."""
        self._made += 1
        self._arrived = self._arrived or not (isinstance(outcome, ServiceUnavailableError) and outcome.unsent)
        if self._retries is None or self._made >= self._retries.attempts or not self._may_repeat(outcome):
            return None
        ceiling = min(self._retries.longest, self._retries.first * 2.0 ** min(self._made - 1, _MOST_DOUBLINGS))
        pause = random.uniform(0, ceiling)  # noqa: S311 - spreads callers over time
        if isinstance(outcome, Answer) and outcome.retry_after is not None:
            pause = max(pause, outcome.retry_after)
        return pause if self._clock() - self._begun + pause <= self._retries.total else None

    @contextmanager
    def told(self) -> Iterator[None]:
        """A block whose ServiceUnavailableError says `unsent` only where that is so of all attempts."""
        try:
            yield
        except ServiceUnavailableError as error:
            error.unsent = error.unsent and not self._arrived
            raise

    def _may_repeat(self, outcome: Outcome) -> bool:
        if self._call.lines is not None:
            # They may be taken only once.
            return False
        repeatable = self._call.safe or IDEMPOTENCY_KEY in self._call.headers
        if isinstance(outcome, Answer):
            return repeatable and is_away(self._call, outcome)
        return repeatable or outcome.unsent


def is_away(call: Call[Any], answer: Answer) -> bool:
    """Whether an answer says that the service is away, or that it is too busy and when to come again."""
    if answer.status not in AWAY or call.reads(answer):
        return False
    return answer.content_type != PROBLEM or answer.retry_after is not None


def is_reached(call: Call[Any], outcome: Outcome) -> bool:
    """Whether the service itself has answered, be it that it is too busy."""
    if not isinstance(outcome, Answer):
        return False
    return outcome.status not in AWAY or outcome.content_type == PROBLEM or call.reads(outcome)


def with_key(call: Call[Any]) -> Call[Any]:
    """The call with an Idempotency-Key of its own, where it takes one and has none."""
    if not call.keyed or IDEMPOTENCY_KEY in call.headers:
        return call
    return msgspec.structs.replace(call, headers={**call.headers, IDEMPOTENCY_KEY: uuid.uuid4().hex})


class BreakerState(StrEnum):
    """closed: calls are made; open: none is; half-open: one is, to see."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Keeps calls from a service that does not answer, so that they fail in microseconds.

    After `failures` in a row it opens for `pause` seconds; then one call goes through, and as that ends the breaker closes or
    opens again. Threads and tasks may share it. `clock`: seconds that only grow.
    """

    def __init__(self, failures: int = 5, pause: float = 5.0, *, clock: Monotonic = time.monotonic) -> None:
        if failures < 1 or pause < 0:
            raise InvalidInputError("breaker", "failures is at least 1, and pause is not negative")
        self.failures = failures
        self.pause = pause
        self._clock = clock
        self._lock = threading.Lock()
        self._failed = 0
        # How often the service was reached: what began before that tells nothing of it as it is now.
        self._answers = 0
        self._open_until: float | None = None
        self._probing = False

    @property
    def state(self) -> BreakerState:
        """What the next call meets."""
        with self._lock:
            return self._state()

    def _state(self) -> BreakerState:
        if self._open_until is None:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._clock() >= self._open_until else BreakerState.OPEN

    @contextmanager
    def attempt(self, url: str) -> Iterator[Callable[[bool], None]]:
        """One call within the block, which tells whether the service was reached. Raises ServiceUnavailableError where none is
        let through.

        A block that tells nothing (it was cancelled) counts for nothing.
        """
        with self._lock:
            answers = self._answers
        probe = self._admit(url)
        try:
            yield partial(self._told, answers)
        finally:
            if probe:
                with self._lock:
                    self._probing = False

    def _admit(self, url: str) -> bool:
        with self._lock:
            state = self._state()
            if state is BreakerState.CLOSED:
                return False
            if state is BreakerState.HALF_OPEN and not self._probing:
                self._probing = True
                return True
            left = max(0.0, (self._open_until or 0.0) - self._clock())
        raise ServiceUnavailableError(
            f"{url} did not answer {self.failures} times in a row; it is asked again in {left:.1f} s",
            unsent=True,
            url=url,
            breaker=state.value,
        )

    def _told(self, answers: int, reached: bool) -> None:  # noqa: FBT001 - a yes or no is all there is to tell
        with self._lock:
            if reached:
                self._answers += 1
                self._failed, self._open_until = 0, None
                return
            if answers != self._answers:
                return
            self._failed += 1
            if self._failed >= self.failures:
                self._open_until = self._clock() + self.pause
