"""When a caller means: instants, dates, durations back from now, and words such as "last week".

Everything names a span of time, in UTC and whole calendar units, weeks being Monday to Sunday. As `since` a span counts
from its first microsecond, as `until` to its last:

- an instant is itself, and so are a duration (`7d`, exactly that long before now) and words with a time of day
  ("3 hours ago", "yesterday 10:30");
- a date, week, month, quarter or year, by its number or by words, is the whole of it: "yesterday" and "3 days ago" are
  whole days, "last week" the seven days before this week's Monday, "two weeks ago" the seven before those;
- "last 3 days" and "past week" reach from that long ago until now;
- a part of a day ("last night") reaches from the hour that the library gives it to the end of its day.

Where words leave it open, the past is meant: in June "May" is the May just gone, "december" that of last year.
"""

import re
from calendar import isleap, monthrange
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta

from unified_memory.model.clock import FIRST_INSTANT, LAST_INSTANT, SECOND, from_rfc3339
from unified_memory.model.errors import InvalidInputError

MAX_CHARS = 200
# With all of its 200 languages the library takes 2.2 s over the first text that it cannot read, and 14 ms over each
# further one; with these, some of the most written of the world, 0.3 s and 2 ms.
LANGUAGES = ("en", "de", "fr", "es", "it", "pt", "nl", "pl", "ru", "zh", "ja")
HINT = (
    "Give an instant (2026-03-01T10:00:00Z), a date (2026-03-01, 2026-03, 2026), a duration back from now "
    "(7d, 12h, 1d12h, 3mo, P7D) or words (yesterday, last week, 3 days ago, May 2023)"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_DAY = 86_400 * SECOND
_YEAR = re.compile(r"\d{4}", re.ASCII)
_MONTH = re.compile(r"\d{4}-\d{2}", re.ASCII)
_WEEK = re.compile(r"\d{4}-W\d{2}", re.ASCII | re.IGNORECASE)
_UNITS = {
    "s": ("s", "sec", "secs", "second", "seconds"),
    "m": ("m", "min", "mins", "minute", "minutes"),
    "h": ("h", "hr", "hrs", "hour", "hours"),
    "d": ("d", "day", "days"),
    "w": ("w", "wk", "wks", "week", "weeks"),
    "mo": ("mo", "mos", "month", "months"),
    "y": ("y", "yr", "yrs", "year", "years"),
}
_UNIT_OF = {name: unit for unit, names in _UNITS.items() for name in names}
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
# Months and years differ in length; the calendar counts them.
_MONTHS = {"mo": 1, "y": 12}
_AMOUNT = re.compile(r"(\d{1,9}) ?([a-z]+)(?: and |, | |$|(?=\d))", re.ASCII | re.IGNORECASE)
# ISO 8601-1:2019, 5.5.2.
_ISO_DURATION = re.compile(
    r"P(?=\d|T\d)(?:(?P<y>\d{1,9})Y)?(?:(?P<mo>\d{1,9})M)?(?:(?P<w>\d{1,9})W)?(?:(?P<d>\d{1,9})D)?"
    r"(?:T(?=\d)(?:(?P<h>\d{1,9})H)?(?:(?P<m>\d{1,9})M)?(?:(?P<s>\d{1,9})S)?)?",
    re.ASCII,
)
_UNTIL_NOW = re.compile(r"(?:(?:the|in the) )?(?:(?:last|past) (?=\d)|past (?=[a-z]))(.+)", re.IGNORECASE)
_BARE_UNIT = re.compile(r"[a-z]+", re.IGNORECASE)
# Day and month of 05/06/2023 change places from country to country, and 05/06/23 may begin with the year.
_NUMERIC_DATE = re.compile(r"(?<!\d)(\d{1,2})[./-] ?(\d{1,2})[./-] ?(\d{4}|\d{2})(?!\d)")
_NUMERIC = re.compile(
    r"(?:\d{1,2}[./-] ?\d{1,2}[./-] ?\d{4}|\d{4}[./]\d{1,2}[./]\d{1,2})(?:,? \d{1,2}:\d{2}(?::\d{2})?)?"
)
# Shorter words mislead the library: "a" and "1st" are January to it.
_WORD = re.compile(r"[a-z]{3}|\bQ[1-4]\b|[^\W\d_a-z]", re.IGNORECASE)

_Span = tuple[int, int]


def read_instant(text: str, field: str, now: int, *, end: bool = False) -> int:
    """The first microsecond of what `text` names, or with `end` the last, as microseconds since the epoch, UTC.

    `field` is named in the error, `now` is in microseconds. The first text for which `needs_library` holds may take
    a second, each further one some milliseconds. Raises InvalidInputError where the text names no time between the years 1
    and 9999, or is longer than 200 characters.
    """
    if len(text) > MAX_CHARS:
        raise InvalidInputError(field, f"{field} is longer than {MAX_CHARS} characters", hint=HINT)
    bare = " ".join(text.split())
    try:
        first, last = _plain(bare, now) or _worded(bare, now)
    except ValueError as error:
        raise InvalidInputError(field, f"{field} names no time: {error}", hint=HINT) from None
    except OverflowError:
        first = last = LAST_INSTANT + 1
    if not FIRST_INSTANT <= first <= last <= LAST_INSTANT:
        raise InvalidInputError(field, f"{field} is not between the years 1 and 9999", hint=HINT)
    return last if end else first


def read_duration(text: str, field: str) -> float:
    """The seconds of a duration such as `30d`. Raises InvalidInputError naming the field where the text is none."""
    # Months and years are as long as those before a fixed day.
    reference = date(2026, 1, 1).toordinal() * 86_400 * SECOND
    try:
        back = _back(" ".join(text[:MAX_CHARS].split()), reference)
    except (ValueError, OverflowError):
        back = None
    if back is None:
        raise InvalidInputError(field, f"{field} is no duration", hint="Give one such as 12h, 30d or 6mo")
    return (reference - back) / SECOND


def needs_library(text: str) -> bool:
    """Whether reading the text takes the library of words, and so may keep its thread for a second."""
    if len(text) > MAX_CHARS:
        return False
    try:
        return _plain(" ".join(text.split()), 0) is None
    except (ValueError, OverflowError):
        return False


def _plain(text: str, now: int) -> _Span | None:
    """What can be read without knowing words; None where the text may be words.

    Raises ValueError or OverflowError where it is neither.
    """
    if _YEAR.fullmatch(text):
        return _period(date(int(text), 1, 1), "year")
    if _MONTH.fullmatch(text):
        return _period(date.fromisoformat(f"{text}-01"), "month")
    if _WEEK.fullmatch(text):
        return _period(date.fromisoformat(text.upper()), "week")
    with suppress(ValueError):
        return _period(date.fromisoformat(text.upper()), "day")
    with suppress(ValueError):
        instant = from_rfc3339(text)
        return instant, instant
    ago = _back(text, now)
    if ago is not None:
        return ago, ago
    until_now = _UNTIL_NOW.fullmatch(text)
    if until_now:
        length = until_now[1]
        ago = _back(f"1 {length}" if _BARE_UNIT.fullmatch(length) else length, now)
        return None if ago is None else (ago, now)
    numeric = _NUMERIC_DATE.search(text)
    if numeric:
        one, other, year = numeric.groups()
        if len(year) < len("2023") or (one != other and max(int(one), int(other)) <= _MONTHS["y"]):
            raise ValueError("which of its numbers is the day and which the month is open")
    if not (_WORD.search(text) or _NUMERIC.fullmatch(text)):
        raise ValueError("it is no date, no duration and holds no word")
    return None


def _back(text: str, now: int) -> int | None:
    """The instant that a duration before `now` is; None where the text is no duration."""
    seconds = months = 0
    iso = _ISO_DURATION.fullmatch(text)
    if iso:
        amounts = [(int(amount), unit) for unit, amount in iso.groupdict().items() if amount]
    else:
        amounts = []
        at = int(text.startswith("-"))
        while at < len(text):
            part = _AMOUNT.match(text, at)
            unit = _UNIT_OF.get(part[2].lower()) if part else None
            if not part or not unit:
                return None
            if part[2] == "M":
                raise ValueError("M may be months or minutes: write mo or m")
            amounts.append((int(part[1]), unit))
            at = part.end()
    if not amounts:
        return None
    for amount, unit in amounts:
        seconds += amount * _SECONDS.get(unit, 0)
        months += amount * _MONTHS.get(unit, 0)
    return _months_before(now, months) - seconds * SECOND


def _months_before(instant: int, months: int) -> int:
    """The same day and time so many months before, or that month's last day where it has no such day."""
    if not months:
        return instant
    moment = _EPOCH + timedelta(microseconds=instant)
    year, month = divmod(moment.year * _MONTHS["y"] + moment.month - 1 - months, _MONTHS["y"])
    if year < 1:
        raise OverflowError
    day = min(moment.day, monthrange(year, month + 1)[1])
    return _microseconds(moment.replace(year=year, month=month + 1, day=day))


def _worded(text: str, now: int) -> _Span:
    """What words name, by the library. Raises ValueError or OverflowError where it knows no time by them."""
    # 0.15 s (0.65 s where the disk is cold) and 15 MB, which few callers need; its languages take 0.3 s more at first use.
    from dateparser.date import DateDataParser  # type: ignore[import-untyped]  # noqa: PLC0415

    # Made anew for each text: nothing of an earlier text, such as its language, bears on this one.
    parser = DateDataParser(
        languages=LANGUAGES,
        use_given_order=True,
        settings={
            "TIMEZONE": "UTC",
            "RETURN_AS_TIMEZONE_AWARE": True,
            "RETURN_TIME_AS_PERIOD": True,
            "RELATIVE_BASE": (_EPOCH + timedelta(microseconds=now)).replace(tzinfo=None),
            "PREFER_DATES_FROM": "past",
            "PARSERS": ["relative-time", "absolute-time"],
        },
    )
    found = parser.get_date_data(text)
    if found.date_obj is None:
        raise ValueError("these words are not known")
    moment: datetime = found.date_obj.astimezone(UTC)
    if found.period == "time":
        return _microseconds(moment), _microseconds(moment)
    if found.period == "part_of_day":
        return _microseconds(moment), _period(moment.date(), "day")[1]
    return _period(moment.date(), found.period)


def _period(day: date, unit: str) -> _Span:
    """The day, week, month, quarter or year (`unit`) in which the day lies. Raises ValueError where it is none of these."""
    if unit == "day":
        days = 1
    elif unit == "week":
        day -= timedelta(days=day.weekday())
        days = 7
    elif unit == "month":
        day = day.replace(day=1)
        days = monthrange(day.year, day.month)[1]
    elif unit == "quarter":
        day = day.replace(day=1, month=day.month - (day.month - 1) % 3)
        days = sum(monthrange(day.year, month)[1] for month in range(day.month, day.month + 3))
    elif unit == "year":
        day = day.replace(day=1, month=1)
        days = 365 + isleap(day.year)
    else:
        raise ValueError(f"{unit} is no unit of the calendar")
    first = (day - _EPOCH.date()).days * _DAY
    return first, first + days * _DAY - 1


def _microseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
