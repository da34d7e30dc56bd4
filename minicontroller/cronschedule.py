"""Cron schedules: when the next time is.

My job: the five fields of robfig/cron, which upstream uses, with names, ranges, steps and the `@` words. Pure.
"""

import calendar
import datetime
from collections.abc import Iterable
from dataclasses import dataclass

WORDS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}
MONTHS = {name.lower(): number for number, name in enumerate(calendar.month_abbr) if name}
DAYS = {name: number for number, name in enumerate(("sun", "mon", "tue", "wed", "thu", "fri", "sat"))}
#: So far is looked: a 29th of February comes within eight years.
MOST_DAYS = 366 * 8


class InvalidSchedule(ValueError):
    """The text is no cron schedule."""


@dataclass(frozen=True, slots=True)
class Schedule:
    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    any_day: bool  # one of the two day fields is a star: both must hold; otherwise either is enough

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Raises InvalidSchedule."""
        fields = WORDS.get(text.strip(), text).split()
        if len(fields) != 5:
            raise InvalidSchedule(f"expected exactly 5 fields, found {len(fields)}: {fields}")
        minute, hour, day, month, weekday = fields
        weekdays = _numbers(weekday, 0, 7, DAYS)
        return cls(
            _numbers(minute, 0, 59),
            _numbers(hour, 0, 23),
            _numbers(day, 1, 31),
            _numbers(month, 1, 12, MONTHS),
            frozenset(number % 7 for number in weekdays),
            day[0] in "*?" or weekday[0] in "*?",
        )

    def after(self, moment: datetime.datetime) -> datetime.datetime | None:
        """The first time later than `moment`, in its time zone; None if there is none (30th of February)."""
        start = moment.replace(second=0, microsecond=0) + datetime.timedelta(minutes=1)
        day = start.date()
        for _ in range(MOST_DAYS):
            if self._holds(day):
                for hour, minute in self._times():
                    found = datetime.datetime.combine(day, datetime.time(hour, minute), start.tzinfo)
                    if found >= start:
                        return found
            day += datetime.timedelta(days=1)
        return None

    def _holds(self, day: datetime.date) -> bool:
        if day.month not in self.months:
            return False
        by_day, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_day and by_weekday if self.any_day else by_day or by_weekday

    def _times(self) -> Iterable[tuple[int, int]]:
        return ((hour, minute) for hour in sorted(self.hours) for minute in sorted(self.minutes))


def _numbers(field: str, low: int, high: int, names: dict[str, int] | None = None) -> frozenset[int]:
    found: set[int] = set()
    for part in field.split(","):
        span, slash, step_text = part.partition("/")
        step = _number(step_text, 1, high, {}) if slash else 1
        if span in ("*", "?"):
            first, last = low, high
        else:
            begin, dash, end = span.partition("-")
            first = _number(begin, low, high, names or {})
            last = _number(end, low, high, names or {}) if dash else (high if slash else first)
        if first > last:
            raise InvalidSchedule(f"beginning of range ({first}) beyond end of range ({last}): {part}")
        found.update(range(first, last + 1, step))
    return frozenset(found)


def _number(text: str, low: int, high: int, names: dict[str, int]) -> int:
    if text.lower() in names:
        return names[text.lower()]
    if not text.isdecimal():
        raise InvalidSchedule(f"failed to parse number: {text!r}")
    if not low <= int(text) <= high:
        raise InvalidSchedule(f"{text} is outside {low}-{high}")
    return int(text)
