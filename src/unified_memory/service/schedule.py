"""When backups are made and which of them stay: cron expressions, and rules such as daily=7.

Both count in the time zone of the machine unless another one is given, as cron does.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

from cronsim import CronSim, CronSimError
from msgspec import Struct

from unified_memory.model.errors import InvalidInputError

OFF = "off"
ALL = "all"
SCHEDULE_HINT = "minute hour day month weekday as cron has them, such as 0 2 * * *; off for no schedule"
KEEP_HINT = "Such as daily=7,weekly=4,monthly=12; all to remove none"
FIELDS = 5
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_RULE = re.compile(r"(daily|weekly|monthly)\s*=\s*(\d{1,6})", re.ASCII)
# Clocks are set back by no more than that.
_SET_BACK = timedelta(hours=2)


class Schedule:
    """The instants of a cron expression of five fields. `zone` None: that of the machine.

    An hour that is shown twice when clocks are set back counts once; what falls into an hour that is left out comes as much
    later. Raises InvalidInputError where the text is no expression, or names no day of the next fifty years.
    """

    def __init__(self, text: str, zone: tzinfo | None = None) -> None:
        self._text = text
        self._zone = zone
        named = f"BACKUP_SCHEDULE={text!r}"
        if len(text.split()) != FIELDS:
            raise InvalidInputError("backup_schedule", f"{named} has not five fields", hint=SCHEDULE_HINT)
        try:
            ever = next(CronSim(text, datetime(2026, 1, 1, tzinfo=UTC)), None)
        except CronSimError as error:
            raise InvalidInputError("backup_schedule", f"{named} is no schedule: {error}", hint=SCHEDULE_HINT) from None
        if ever is None:
            raise InvalidInputError("backup_schedule", f"{named} names no time", hint=SCHEDULE_HINT)

    def before(self, now: int, count: int) -> list[int]:
        """The last `count` instants at or before `now`, newest first, in microseconds."""
        wall = CronSim(self._text, self._wall(now) + _SET_BACK, reverse=True)
        found: list[int] = []
        for moment in wall:
            instant = self._instant(moment)
            if instant <= now and instant not in found:
                found.append(instant)
                if len(found) == count:
                    break
        return sorted(found, reverse=True)

    def after(self, now: int) -> int | None:
        """The first instant behind `now`, None where there is none within fifty years."""
        for moment in CronSim(self._text, self._wall(now) - _SET_BACK):
            instant = self._instant(moment)
            if instant > now:
                return instant
        return None

    def _wall(self, instant: int) -> datetime:
        """What clocks on the wall show."""
        return (_EPOCH + timedelta(microseconds=instant)).astimezone(self._zone).replace(tzinfo=None)

    def _instant(self, wall: datetime) -> int:
        # Without a zone it is the machine's that counts.
        return (wall.replace(tzinfo=self._zone).astimezone(UTC) - _EPOCH) // timedelta(microseconds=1)


def read_schedule(text: str) -> str | None:
    """The expression, None where there is to be no schedule. Raises InvalidInputError."""
    bare = " ".join(text.split())
    if bare.lower() in {"", OFF}:
        return None
    Schedule(bare)
    return bare


def read_keep(text: str) -> dict[str, int]:
    """`daily=7,weekly=4` -> {"daily": 7, "weekly": 4}; nothing where all are to stay. Raises InvalidInputError."""
    if text.strip().lower() == ALL:
        return {}
    rules: dict[str, int] = {}
    for part in text.split(","):
        rule = _RULE.fullmatch(part.strip().lower())
        if rule is None or rule[1] in rules:
            raise InvalidInputError("backup_keep", f"UNIFIED_MEMORY_BACKUP_KEEP={text!r} is no rule", hint=KEEP_HINT)
        rules[rule[1]] = int(rule[2])
    if not any(rules.values()):
        raise InvalidInputError("backup_keep", f"UNIFIED_MEMORY_BACKUP_KEEP={text!r} keeps none", hint=KEEP_HINT)
    return rules


class Made(Struct, frozen=True):
    """A backup as the rules see it. `at`: its instant, microseconds."""

    id: str
    at: int
    reason: str
    parent: str | None


def superfluous(made: Sequence[Made], keep: Mapping[str, int], *, safety: int, zone: tzinfo | None = None) -> list[str]:
    """Ids of the backups that may go, newest first, so that none goes before those that need it.

    Of the scheduled ones stay the newest of each of the last days, weeks (from Monday) and months that have one, so many as
    `keep` says, all where it says nothing; of those made for safety the `safety` newest; all that were made on purpose; and
    whatever one that stays needs.
    """
    newest = sorted(made, key=lambda one: (one.at, one.id), reverse=True)
    scheduled = [one for one in newest if one.reason == "scheduled"]
    stay = {one.id for one in newest if one.reason not in {"scheduled", "safety"}}
    stay |= set([one.id for one in newest if one.reason == "safety"][:safety])
    if not keep:
        stay |= {one.id for one in scheduled}
    for rule, count in keep.items():
        firsts: dict[tuple[int, ...], str] = {}
        for one in scheduled:
            firsts.setdefault(_period(rule, one.at, zone), one.id)
        stay |= set(list(firsts.values())[:count])
    parents = {one.id: one.parent for one in made}
    needed: set[str] = set()
    for kept in stay:
        link: str | None = kept
        while link is not None and link not in needed:
            needed.add(link)
            link = parents.get(link)
    return [one.id for one in newest if one.id not in needed]


def _period(rule: str, instant: int, zone: tzinfo | None) -> tuple[int, ...]:
    day = (_EPOCH + timedelta(microseconds=instant)).astimezone(zone).date()
    match rule:
        case "daily":
            return (day.toordinal(),)
        case "weekly":
            return tuple(day.isocalendar())[:2]
        case _:
            return day.year, day.month
