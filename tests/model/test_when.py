import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unified_memory.model.clock import LAST_INSTANT, SECOND, from_rfc3339, to_rfc3339
from unified_memory.model.errors import InvalidInputError
from unified_memory.model.when import MAX_CHARS, needs_library, read_instant

# A Wednesday.
NOW = from_rfc3339("2025-06-18T12:00:05Z")
DAY = 86_400 * SECOND


def span(text: str, now: int = NOW) -> tuple[str, str]:
    """First and last microsecond, without what is zero or nine at their ends."""
    first = to_rfc3339(read_instant(text, "since", now))
    last = to_rfc3339(read_instant(text, "until", now, end=True))
    return first.removesuffix(".000000Z").removesuffix("T00:00:00"), last.removesuffix(".000000Z").removesuffix(
        "T23:59:59.999999Z"
    )


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("2026-03-01", "2026-03-01", "2026-03-01"),
        ("20260301", "2026-03-01", "2026-03-01"),
        ("2024-02", "2024-02-01", "2024-02-29"),
        ("2026", "2026-01-01", "2026-12-31"),
        ("2024", "2024-01-01", "2024-12-31"),
        ("2026-W10", "2026-03-02", "2026-03-08"),
        ("9999", "9999-01-01", "9999-12-31"),
        ("0001-01-01", "0001-01-01", "0001-01-01"),
    ],
)
def test_a_date_is_the_whole_of_it(text: str, first: str, last: str) -> None:
    assert span(text) == (first, last)
    assert not needs_library(text)


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2026-03-01T10:00:00Z", "2026-03-01T10:00:00"),
        (" 2026-03-01t10:00:00+02:00 ", "2026-03-01T08:00:00"),
        ("2026-03-01 10:00", "2026-03-01T10:00:00"),
        ("7d", "2025-06-11T12:00:05"),
        ("-7d", "2025-06-11T12:00:05"),
        ("P7D", "2025-06-11T12:00:05"),
        ("12h", "2025-06-18T00:00:05"),
        ("2w", "2025-06-04T12:00:05"),
        ("30m", "2025-06-18T11:30:05"),
        ("90s", "2025-06-18T11:58:35"),
        ("3mo", "2025-03-18T12:00:05"),
        ("1y", "2024-06-18T12:00:05"),
        ("1d12h", "2025-06-17T00:00:05"),
        ("2 days and 3 hours", "2025-06-16T09:00:05"),
        ("PT1H30M", "2025-06-18T10:30:05"),
        ("P1Y2M", "2024-04-18T12:00:05"),
        ("P2M", "2025-04-18T12:00:05"),
    ],
)
def test_an_instant_and_a_duration_are_one_microsecond(text: str, instant: str) -> None:
    assert span(text) == (instant, instant)
    assert not needs_library(text)


def test_a_month_before_a_day_that_the_month_lacks_is_its_last_day() -> None:
    assert span("1mo", from_rfc3339("2025-03-31T06:00:00Z"))[0] == "2025-02-28T06:00:00"
    assert span("1y", from_rfc3339("2024-02-29T06:00:00Z"))[0] == "2023-02-28T06:00:00"
    assert span("13mo", from_rfc3339("2025-01-31T06:00:00Z"))[0] == "2023-12-31T06:00:00"


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("last 3 days", "2025-06-15T12:00:05"),
        ("the past week", "2025-06-11T12:00:05"),
        ("Past 24 hours", "2025-06-17T12:00:05"),
    ],
)
def test_the_last_so_many_days_reach_until_now(text: str, first: str) -> None:
    assert span(text) == (first, "2025-06-18T12:00:05")
    assert not needs_library(text)


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("yesterday", "2025-06-17", "2025-06-17"),
        ("3 days ago", "2025-06-15", "2025-06-15"),
        ("monday", "2025-06-16", "2025-06-16"),
        ("Wednesday", "2025-06-11", "2025-06-11"),
        ("last week", "2025-06-09", "2025-06-15"),
        ("this week", "2025-06-16", "2025-06-22"),
        ("two weeks ago", "2025-06-02", "2025-06-08"),
        ("this month", "2025-06-01", "2025-06-30"),
        ("May", "2025-05-01", "2025-05-31"),
        ("december", "2024-12-01", "2024-12-31"),
        ("May 2023", "2023-05-01", "2023-05-31"),
        ("Feb 2024", "2024-02-01", "2024-02-29"),
        ("5 May 2023", "2023-05-05", "2023-05-05"),
        ("13/05/2023", "2023-05-13", "2023-05-13"),
        ("2023/05/06", "2023-05-06", "2023-05-06"),
        ("Q2 2023", "2023-04-01", "2023-06-30"),
        ("last year", "2024-01-01", "2024-12-31"),
        ("3 hours ago", "2025-06-18T09:00:05", "2025-06-18T09:00:05"),
        ("yesterday 10:30", "2025-06-17T10:30:00", "2025-06-17T10:30:00"),
        ("last night", "2025-06-17T20:00:00", "2025-06-17"),
        ("5 May 2023 10:00 CET", "2023-05-05T09:00:00", "2023-05-05T09:00:00"),
        ("tomorrow", "2025-06-19", "2025-06-19"),
        ("gestern", "2025-06-17", "2025-06-17"),
        ("letzte Woche", "2025-06-09", "2025-06-15"),
        ("il y a 3 jours", "2025-06-15", "2025-06-15"),
        ("ayer", "2025-06-17", "2025-06-17"),
        ("ieri", "2025-06-17", "2025-06-17"),
        ("ontem", "2025-06-17", "2025-06-17"),
        ("vorige week", "2025-06-09", "2025-06-15"),
        ("wczoraj", "2025-06-17", "2025-06-17"),
        ("в прошлом месяце", "2025-05-01", "2025-05-31"),
        ("上个月", "2025-05-01", "2025-05-31"),
        ("先週", "2025-06-09", "2025-06-15"),
    ],
)
def test_words_name_whole_units_of_the_calendar(text: str, first: str, last: str) -> None:
    assert span(text) == (first, last)
    assert needs_library(text)


def test_an_earlier_text_does_not_change_how_a_later_one_is_read() -> None:
    before = span("mar")
    span("letzte Woche")
    span("ayer")
    assert span("mar") == before


NO_DATES = [
    "",
    " ",
    "a",
    "1st",
    "12",
    "5.",
    "0000",
    "2026-13",
    "2026-02-30",
    "7",
    "1750000000",
    "31 June 2023",
    "feb 30",
]
OPEN_DATES = ["5/6/2023", "05.06.2023 10:00", "1/2/23", "13-02-23"]
NO_DURATIONS = ["P", "PT", "1M", "d", "1d" * 200]
NO_WORDS = ["soon enough", "\ud800", "\0", "x" * 200]


@pytest.mark.parametrize("text", [*NO_DATES, *OPEN_DATES, *NO_DURATIONS, *NO_WORDS])
def test_what_names_no_time_is_refused_with_the_field_and_the_forms(text: str) -> None:
    with pytest.raises(InvalidInputError) as refused:
        read_instant(text, "since", NOW)
    assert refused.value.field == "since"
    assert "since" in refused.value.detail
    assert "3 days ago" in (refused.value.hint or "")


@pytest.mark.parametrize("text", ["9999y", "999999999d", "999999999w", "0001-01-01T00:00:00+23:00", "in 9000 years"])
def test_times_that_the_clock_cannot_hold_are_refused(text: str) -> None:
    with pytest.raises(InvalidInputError):
        read_instant(text, "until", NOW, end=True)


def test_the_library_is_not_read_for_what_can_do_without() -> None:
    program = (
        "import sys; from unified_memory.model.when import needs_library, read_instant; "
        "read_instant('1d12h', 'since', 0); read_instant('2026-03', 'since', 0); needs_library('yesterday'); "
        "assert 'dateparser' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)))  # noqa: DTZ001 - hypothesis wants it so
def test_every_instant_is_read_as_it_was_written(moment: datetime) -> None:
    instant = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    for end in (False, True):
        assert read_instant(to_rfc3339(instant), "since", NOW, end=end) == instant


@given(
    st.integers(0, 9000),
    st.sampled_from([("d", DAY), ("h", DAY // 24), ("w", 7 * DAY), ("s", SECOND), ("m", 60 * SECOND)]),
)
def test_durations_are_exact(amount: int, unit: tuple[str, int]) -> None:
    assert read_instant(f"{amount}{unit[0]}", "since", NOW) == NOW - amount * unit[1]


VOCABULARY = st.sampled_from(
    re.findall(
        r"\S+",
        "yesterday last next week weeks ago in days 3 12 31 0 -1 99999999 May february monday : . / - , noon night am UTC +05:00 "
        "CET gestern vor 上 周 月 年 日 前 century quarter 10:30 25:61 T Z MMXX II the 1st 30 29 Q1 вчера hier il y a "
        "\u0663 \uff13 \xb2 \ud800 \0 ' ( ) \u0301 1e9 P7D 2023 7d",
    )
)


@settings(deadline=None)
@given(
    st.one_of(
        st.text(st.characters(), max_size=MAX_CHARS + 5),
        st.lists(VOCABULARY, min_size=1, max_size=12).map(" ".join),
        st.lists(VOCABULARY, min_size=1, max_size=5).map("".join),
    ),
    st.sampled_from([NOW, 0, LAST_INSTANT, from_rfc3339("0001-01-01")]),
)
def test_any_text_is_a_time_or_refused(text: str, now: int) -> None:
    needs_library(text)
    try:
        first = read_instant(text, "since", now)
    except InvalidInputError as refused:
        # What is told must be fit for a JSON answer, whatever was asked.
        refused.detail.encode()
        return
    last = read_instant(text, "since", now, end=True)
    assert from_rfc3339("0001-01-01") <= first <= last <= LAST_INSTANT
    assert to_rfc3339(first) <= to_rfc3339(last)
