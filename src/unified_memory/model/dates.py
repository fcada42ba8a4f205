"""Days: those that a query names, that on which a remembered thing happened, and their words."""

import re
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta

from msgspec import Struct

_MONTHS = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_NUMBERS = {name.lower(): i + 1 for i, name in enumerate(_MONTHS)} | {
    name[:3].lower(): i + 1 for i, name in enumerate(_MONTHS)
}
_NAME = "(" + "|".join(sorted(_NUMBERS, key=len, reverse=True)) + r")\b\.?"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(\d{4})"
# The whole word "may" is a verb more often than a month: without a number beside it it names no day.
_NAMED = re.compile(
    rf"\b(?:(?P<iso>\d{{4}}-\d{{2}}-\d{{2}})|{_DAY}(?:\s+of)?\s+{_NAME}(?:,?\s+{_YEAR})?|{_NAME}\s+{_DAY}\b(?:,?\s+{_YEAR})?"
    rf"|{_NAME},?\s+{_YEAR})",
    re.IGNORECASE,
)
_ISO = re.compile(r"(\d{4})-(\d{2})-(\d{2})")


class Day(Struct, frozen=True):
    """A day, or (without `day`) a whole month; without `year` that of any year."""

    year: int | None
    month: int
    day: int | None


def named_days(text: str) -> list[Day]:
    """The days and months that a text names: 8 May 2023, May 8th, May 2023, 2023-05-08."""
    found = []
    for match in _NAMED.finditer(text):
        iso, day_1, month_1, year_1, month_2, day_2, year_2, month_3, year_3 = match.groups()
        if iso is not None:
            one = day_of(iso)
        else:
            year = year_1 or year_2 or year_3
            month = _NUMBERS[(month_1 or month_2 or month_3).lower()]
            one = _valid(int(year) if year else None, month, int(day) if (day := day_1 or day_2) else None)
        if one is not None:
            found.append(one)
    return found


def day_of(instant: str) -> Day | None:
    """The day of an RFC 3339 instant or date, as it is written (its own offset); None where the text is none."""
    match = _ISO.match(instant)
    return None if match is None else _valid(int(match[1]), int(match[2]), int(match[3]))


def day_at(instant: int) -> Day:
    """The day, in UTC, of an instant in microseconds."""
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant)
    return Day(moment.year, moment.month, moment.day)


def words_of_day(instant: str) -> str:
    """What a text with this instant is found by: `8 May 2023 2023-05-08`; a text that is no instant as it stands."""
    day = day_of(instant)
    if day is None or day.day is None:
        return instant
    return f"{day.day} {_MONTHS[day.month - 1]} {day.year} {instant[:10]}"


def days_apart(asked: Day, day: Day) -> int:
    """How many days the second lies outside of the first; for a month without a year, in the nearest year."""
    if day.year is None or day.day is None:
        return 10_000
    there = date(day.year, day.month, day.day)
    years = (
        [asked.year]
        if asked.year is not None
        else [y for y in (day.year - 1, day.year, day.year + 1) if date.min.year <= y <= date.max.year]
    )
    apart = []
    for year in years:
        first, last = _bounds(year, asked.month, asked.day)
        apart.append(max(0, (first - there).days, (there - last).days))
    return min(apart)


def _bounds(year: int, month: int, day: int | None) -> tuple[date, date]:
    if day is not None:
        # The 29th of February of a year that has none is the day before March.
        one = date(year, month, min(day, monthrange(year, month)[1]))
        return one, one
    return date(year, month, 1), date(year, month, monthrange(year, month)[1])


def _valid(year: int | None, month: int, day: int | None) -> Day | None:
    try:
        # A day without a year must be one of some year.
        date(2024 if year is None else year, month, 1 if day is None else day)
    except ValueError:
        return None
    return Day(year, month, day)
