from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unified_memory.model.clock import FIRST_INSTANT, LAST_INSTANT, from_rfc3339, to_rfc3339
from unified_memory.model.dates import Day, day_at, day_of, days_apart, named_days, words_of_day


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("on 8 May 2023", [Day(2023, 5, 8)]),
        ("May 8th, 2023", [Day(2023, 5, 8)]),
        ("the 8th of may", [Day(None, 5, 8)]),
        ("in May 2023", [Day(2023, 5, None)]),
        ("2023-05-08", [Day(2023, 5, 8)]),
        ("Sept 3 and Oct. 4", [Day(None, 10, 4)]),
        ("sep 3", [Day(None, 9, 3)]),
        ("I may go", []),
        ("31 February 2023", []),
        ("2023-13-01", []),
        ("0 May 2023", []),
        ("May 0", []),
        ("29 February", [Day(None, 2, 29)]),
        ("29 February 2023", []),
    ],
)
def test_named_days_are_found(text: str, days: list[Day]) -> None:
    assert named_days(text) == days


@given(st.text() | st.from_regex(r"[0-9٠-٩]{1,5}[- ](May|mar|\d\d)[- ][0-9²]{1,5}"))
def test_any_text_may_be_looked_through_for_days(text: str) -> None:
    for day in named_days(text):
        assert days_apart(day, Day(2023, 5, 8)) >= 0
    words_of_day(text)


@given(st.dates(), st.dates())
def test_days_apart_are_those_of_the_calendar(asked: date, there: date) -> None:
    apart = days_apart(Day(asked.year, asked.month, asked.day), Day(there.year, there.month, there.day))
    assert apart == abs((asked - there).days)


@pytest.mark.parametrize(
    ("asked", "day", "apart"),
    [
        (Day(2023, 5, None), Day(2023, 5, 31), 0),
        (Day(2023, 5, None), Day(2023, 6, 2), 2),
        (Day(None, 12, 31), Day(2024, 1, 2), 2),
        (Day(None, 1, 1), Day(2023, 12, 30), 2),
        (Day(None, 2, 29), Day(2023, 3, 1), 1),
        (Day(None, 1, 1), Day(9999, 12, 31), 364),
        (Day(None, 12, 31), Day(1, 1, 1), 364),
    ],
)
def test_months_and_days_of_any_year_are_as_near_as_they_can_be(asked: Day, day: Day, apart: int) -> None:
    assert days_apart(asked, day) == apart


@given(st.dates())
def test_the_words_of_a_day_name_it(day: date) -> None:
    instant = f"{day.isoformat()}T10:00:00Z"
    one = Day(day.year, day.month, day.day)
    assert day_of(instant) == one
    assert one in named_days(words_of_day(instant))
    assert words_of_day(instant).endswith(day.isoformat())


def test_what_is_no_instant_is_searched_as_it_stands() -> None:
    assert words_of_day("last summer") == "last summer"


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00+00:01", "0001-01-01T00:00:00+23:00", "9999-12-31T23:59:59-00:01"]
)
def test_an_instant_outside_of_the_years_that_can_be_written_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"0001|9999"):
        from_rfc3339(text)


@pytest.mark.parametrize("instant", [FIRST_INSTANT, FIRST_INSTANT + 1, LAST_INSTANT])
def test_the_first_and_the_last_instant_can_be_written_and_read(instant: int) -> None:
    assert from_rfc3339(to_rfc3339(instant)) == instant
    assert day_at(instant).year in {1, 9999}
