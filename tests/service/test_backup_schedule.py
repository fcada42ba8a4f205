"""When backups are due by a cron expression, and which of them may go."""

from datetime import UTC, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unified_memory.model.clock import from_rfc3339, to_rfc3339
from unified_memory.model.errors import InvalidInputError
from unified_memory.model.history import DAY
from unified_memory.service.schedule import Made, Schedule, read_keep, read_schedule, superfluous

BERLIN = ZoneInfo("Europe/Berlin")
HOUR = DAY // 24


def minutes(instants: list[int]) -> list[str]:
    return [to_rfc3339(instant)[:16] for instant in instants]


# ---- cron
def test_the_last_instants_come_newest_first() -> None:
    schedule = Schedule("0 2 * * *", UTC)
    assert minutes(schedule.before(from_rfc3339("2026-03-01T10:00:00Z"), 2)) == ["2026-03-01T02:00", "2026-02-28T02:00"]


def test_an_instant_is_reached_at_its_first_microsecond() -> None:
    schedule, due = Schedule("0 2 * * *", UTC), from_rfc3339("2026-03-01T02:00:00Z")
    assert schedule.before(due, 1) == [due]
    assert schedule.before(due - 1, 1) == [due - DAY]
    assert schedule.after(due) == due + DAY
    assert schedule.after(due - 1) == due


def test_the_clock_on_the_wall_counts() -> None:
    summer, winter = from_rfc3339("2026-07-01T12:00:00Z"), from_rfc3339("2026-12-01T12:00:00Z")
    schedule = Schedule("0 2 * * *", BERLIN)
    assert minutes(schedule.before(summer, 1) + schedule.before(winter, 1)) == ["2026-07-01T00:00", "2026-12-01T01:00"]


def test_the_zone_of_the_machine_counts_where_none_is_given() -> None:
    now = from_rfc3339("2026-03-01T12:34:56Z")
    (instant,) = Schedule("0 2 * * *").before(now, 1)
    wall = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=instant)).astimezone()
    assert (wall.hour, wall.minute) == (2, 0)


def test_an_hour_that_is_shown_twice_counts_once() -> None:
    # On that day 2:00 to 3:00 comes twice, from 0:00 and from 1:00 UTC.
    schedule = Schedule("30 2 * * *", BERLIN)
    assert minutes(schedule.before(from_rfc3339("2026-10-25T20:00:00Z"), 2)) == ["2026-10-25T00:30", "2026-10-24T00:30"]


def test_an_hour_that_is_left_out_is_made_up_for() -> None:
    # On that day 3:00 follows 2:00.
    schedule = Schedule("30 2 * * *", BERLIN)
    assert minutes(schedule.before(from_rfc3339("2026-03-29T20:00:00Z"), 2)) == ["2026-03-29T01:30", "2026-03-28T01:30"]


@given(
    now=st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1)),  # noqa: DTZ001 - made an instant below
    text=st.sampled_from(["0 2 * * *", "*/15 * * * *", "30 2 * * *", "0 0 1 * *", "5 4 * * 0", "0 9-17 * * 1-5"]),
    zone=st.sampled_from([UTC, BERLIN, ZoneInfo("America/New_York"), ZoneInfo("Australia/Lord_Howe")]),
)
def test_the_last_and_the_next_instant_lie_on_either_side(now: datetime, text: str, zone: tzinfo) -> None:
    instant = (now.replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    schedule = Schedule(text, zone)
    last, before = schedule.before(instant, 2)
    following = schedule.after(instant)
    assert following is not None
    assert before < last <= instant < following
    assert schedule.before(following, 1) == [following]


@pytest.mark.parametrize(
    "text",
    ["hourly", "0 2 * *", "0 0 2 * * *", "60 2 * * *", "0 2 30 2 *", "0 2 * * * ; rm"],
)
def test_what_is_no_schedule_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_schedule(text)
    assert caught.value.field == "backup_schedule"
    assert text in caught.value.detail


@pytest.mark.parametrize(("text", "schedule"), [("", None), ("OFF", None), ("  0 2  * * * ", "0 2 * * *")])
def test_a_schedule_may_be_off(text: str, schedule: str | None) -> None:
    assert read_schedule(text) == schedule


# ---- what stays
@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("daily=7,weekly=4,monthly=12", {"daily": 7, "weekly": 4, "monthly": 12}),
        (" Monthly = 2 ", {"monthly": 2}),
        ("daily=1,weekly=0", {"daily": 1, "weekly": 0}),
        ("all", {}),
    ],
)
def test_rules_are_read(text: str, rules: dict[str, int]) -> None:
    assert read_keep(text) == rules


@pytest.mark.parametrize("text", ["", "7", "daily", "daily=-1", "hourly=3", "daily=1,daily=2", "daily=0", "daily=1;"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        read_keep(text)
    assert caught.value.field == "backup_keep"


def made(instant: str, reason: str = "scheduled", parent: str | None = None) -> Made:
    return Made(instant, from_rfc3339(instant), reason, parent)


def gone(backups: list[Made], **keep: int) -> list[str]:
    return superfluous(backups, keep, safety=2, zone=UTC)


def test_the_newest_of_each_of_the_last_days_stays() -> None:
    backups = [made(f"2026-03-{day:02}T{hour:02}") for day in (1, 2, 5, 6) for hour in (2, 14)]
    assert gone(backups, daily=3) == [
        "2026-03-06T02", "2026-03-05T02", "2026-03-02T02", "2026-03-01T14", "2026-03-01T02",
    ]  # fmt: skip


def test_days_without_a_backup_do_not_count() -> None:
    assert gone([made("2026-03-01"), made("2026-02-01"), made("2025-12-24")], daily=3) == []


def test_weeks_begin_on_monday_and_belong_to_one_year() -> None:
    # Thursday, Sunday and the Monday behind it; the week of the first two is the last of 2020 until January 3rd.
    backups = [made("2020-12-31"), made("2021-01-03"), made("2021-01-04")]
    assert gone(backups, weekly=2) == ["2020-12-31"]
    assert gone(backups, weekly=1) == ["2021-01-03", "2020-12-31"]
    # Both the second of their year.
    assert gone([made("2025-01-08"), made("2026-01-07")], weekly=2) == []


def test_months_of_different_years_are_different() -> None:
    assert gone([made("2025-03-09"), made("2026-03-01"), made("2026-03-09")], monthly=2) == ["2026-03-01"]


def test_days_are_those_of_the_zone() -> None:
    backups = [made("2026-03-01T22:30:00Z"), made("2026-03-01T23:30:00Z")]
    assert superfluous(backups, {"daily": 2}, safety=0, zone=UTC) == ["2026-03-01T22:30:00Z"]
    assert superfluous(backups, {"daily": 2}, safety=0, zone=BERLIN) == []


def test_whatever_one_rule_keeps_stays() -> None:
    backups = [made("2026-01-31"), made("2026-03-01"), made("2026-03-02"), made("2026-03-03")]
    assert gone(backups, daily=2, monthly=2) == ["2026-03-01"]


def test_without_rules_all_scheduled_ones_stay() -> None:
    assert gone([made("2026-01-31"), made("2026-03-01")]) == []


def test_those_made_on_purpose_stay_and_take_no_place() -> None:
    backups = [made("2026-03-01"), made("2026-03-02", "manual"), made("2026-03-03", "manual")]
    assert gone(backups, daily=1) == []


def test_the_newest_made_for_safety_stay() -> None:
    backups = [made(f"2026-03-0{day}", "safety") for day in (1, 2, 3, 4)]
    assert gone(backups, daily=9) == ["2026-03-02", "2026-03-01"]


def test_what_one_that_stays_needs_stays() -> None:
    backups = [
        made("2026-03-01"),
        made("2026-03-02", "safety", "2026-03-01"),
        made("2026-03-03"),
        made("2026-03-04", "safety"),
        made("2026-03-05", "safety"),
        made("2026-03-06", "manual", "2026-03-02"),
        made("2026-03-07"),
    ]
    assert gone(backups, daily=1) == ["2026-03-03"]


@given(
    st.lists(
        st.tuples(st.integers(0, 400 * 24), st.sampled_from(["scheduled", "safety", "manual"]), st.integers(0, 30)),
        max_size=30,
    ),
    st.dictionaries(st.sampled_from(["daily", "weekly", "monthly"]), st.integers(0, 5), max_size=3),
)
def test_a_second_look_finds_nothing_more(rows: list[tuple[int, str, int]], keep: dict[str, int]) -> None:
    hours = sorted({hour for hour, _, _ in rows})
    first = {hour: (reason, back) for hour, reason, back in rows}
    backups = [
        Made(str(i), hour * HOUR, first[hour][0], str(i - first[hour][1]) if 0 < first[hour][1] <= i else None)
        for i, hour in enumerate(hours)
    ]
    going = superfluous(backups, keep, safety=2, zone=UTC)
    staying = [one for one in backups if one.id not in going]
    assert superfluous(staying, keep, safety=2, zone=UTC) == []
    # Nothing stays without what it needs, and what needs another goes before it.
    assert all(one.parent is None or one.parent not in going for one in staying)
    parents = {one.id: one.parent for one in backups}
    assert all(parents[one] not in going[:i] for i, one in enumerate(going))
