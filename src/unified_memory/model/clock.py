"""Where time comes from.

Instants are integers: microseconds since 1970-01-01T00:00:00Z. The wire form is RFC 3339 in UTC with `Z`.
Nothing below the interfaces reads the machine's clock except through a `Clock`.
"""

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol

SECOND = 1_000_000
_DAY_SECONDS = 86_400
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The beginning of year 1 and the end of year 9999: the years that `datetime` and RFC 3339 can write.
FIRST_INSTANT = -62_135_596_800 * SECOND
LAST_INSTANT = 253_402_300_799_999_999


class Clock(Protocol):
    """Tells the present instant."""

    def now(self) -> int:
        """Microseconds since the epoch, UTC."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> int:
        """Microseconds since the epoch, UTC."""
        return time.time_ns() // 1000


class SettableClock:
    """A clock that stands still until it is told to move: for tests and for replaying a day."""

    def __init__(self, instant: int = 1_750_000_000 * SECOND) -> None:
        self.instant = instant

    def now(self) -> int:
        """The instant at which it stands."""
        return self.instant

    def advance(self, seconds: float) -> None:
        """Moves the clock on."""
        self.instant += round(seconds * SECOND)


@lru_cache(maxsize=64)
def _day(day: int) -> str:
    return (_EPOCH + timedelta(days=day)).strftime("%Y-%m-%d").rjust(10, "0")


@lru_cache(maxsize=1024)
def _to_the_second(second: int) -> str:
    day, rest = divmod(second, _DAY_SECONDS)
    return f"{_day(day)}T{rest // 3600:02d}:{rest % 3600 // 60:02d}:{rest % 60:02d}."


def to_rfc3339(instant: int) -> str:
    """`1750000000000001` -> `2025-06-15T15:06:40.000001Z`: always six digits, so that text order is time order."""
    second, micros = divmod(instant, SECOND)
    return f"{_to_the_second(second)}{micros:06d}Z"


def from_rfc3339(text: str) -> int:
    """The instant that an RFC 3339 text names; a date alone is its midnight, no offset means UTC.

    Raises ValueError where the text is no instant between the years 1 and 9999, UTC.
    """
    moment = datetime.fromisoformat(text.upper())
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    try:
        span = moment - _EPOCH
    except OverflowError as error:
        raise ValueError(text) from error
    instant = (span.days * _DAY_SECONDS + span.seconds) * SECOND + span.microseconds
    if not FIRST_INSTANT <= instant <= LAST_INSTANT:
        raise ValueError(text)
    return instant
