"""Cron expressions and their ticks.

The dialect and what it does at changes of daylight-saving time are those of chapter 03, section 10.2, which are those
of croniter; our tests fix them, so that a new release of it cannot shift anybody's schedule unnoticed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime, timezone, tzinfo
from typing import TYPE_CHECKING, Any

from ..error import DBOSException

if TYPE_CHECKING:
    from croniter import croniter

# `R`, `R(1-5)`, `R/5` as an element of a field: a value drawn anew by every process that reads it.
_RANDOM = re.compile(r"(?:^|[\s,])r(?=$|[\s,(/])", re.IGNORECASE)
# Elements of the day of week, and of the day of month, that let the other field be ignored.
_WEEKDAY_OF_MONTH = re.compile(r"#|l[0-7a-z]", re.IGNORECASE)
_NEAREST_WORKDAY = re.compile(r"w", re.IGNORECASE)


class Ticks:
    """The times of a cron expression in a time zone."""

    def __init__(self, expression: str, zone_name: str | None) -> None:
        self.zone = find_zone(zone_name)
        self._cron = _parse(expression)

    def after(self, moment: datetime) -> datetime | None:
        """The first tick later than `moment`; None when none comes within 50 years."""
        return self._search(moment, self._cron.get_next)

    def before(self, moment: datetime) -> datetime | None:
        """The last tick earlier than `moment`."""
        return self._search(moment, self._cron.get_prev)

    def between(self, start: datetime, end: datetime) -> Iterator[datetime]:
        """The ticks later than `start` and earlier than `end`."""
        # Times of one zone compare by the clock on the wall, which shows the repeated hour of autumn twice.
        end = end.astimezone(timezone.utc)
        tick = self.after(start)
        while tick is not None and tick.astimezone(timezone.utc) < end:
            yield tick
            tick = self.after(tick)

    def at_ms(self, moment_ms: int) -> datetime:
        """A time in milliseconds since the epoch, in the zone of the schedule."""
        return datetime.fromtimestamp(moment_ms / 1000, self.zone)

    def _search(self, moment: datetime, search: Any) -> datetime | None:
        from croniter import CroniterBadDateError

        try:
            found: datetime = search(datetime, start_time=moment.astimezone(self.zone))
        except CroniterBadDateError:
            return None
        return found


def find_zone(name: str | None) -> tzinfo:
    """The time zone of an IANA name; UTC for None. DBOSException for an unknown one."""
    if name is None:
        return timezone.utc
    from zoneinfo import ZoneInfo

    try:
        if not name:
            raise ValueError("empty")
        return ZoneInfo(name)
    except Exception as error:
        raise DBOSException(
            f"Unknown time zone {name!r}: cron_timezone takes an IANA name such as 'Europe/Berlin', or None for UTC"
        ) from error


def check_expression(expression: Any, zone_name: str | None, now: datetime) -> None:
    """Refuse an expression that cannot be read, or that means less than it says; DBOSException."""
    if not isinstance(expression, str):
        raise DBOSException(f"A cron expression is a text, not {expression!r}")
    ticks = Ticks(expression, zone_name)
    if _RANDOM.search(expression):
        raise DBOSException(
            f"The cron expression {expression!r} contains R, a random value: every process would draw its own, and "
            f"each tick would run several times. Write the value"
        )
    fields = expression.split()
    if len(fields) >= 5:
        first = 0 if len(fields) == 5 else 1
        day, weekday = fields[first + 2], fields[first + 4]
        ignored = None
        if day not in ("*", "?") and _WEEKDAY_OF_MONTH.search(weekday):
            ignored = f"the day of month {day!r} would be ignored beside the day of week {weekday!r}"
        elif weekday not in ("*", "?") and _NEAREST_WORKDAY.search(day):
            ignored = f"the day of week {weekday!r} would be ignored beside the day of month {day!r}"
        if ignored is not None:
            raise DBOSException(f"In the cron expression {expression!r} {ignored}. Write * for one of the two")
    if ticks.after(now) is None:
        raise DBOSException(f"The cron expression {expression!r} matches no time in the next 50 years")


def _parse(expression: str) -> croniter:
    from croniter import croniter

    # The whole dialect, but not the names that stand for a value only their author knows (H).
    try:
        return croniter(expression, datetime(2000, 1, 1, tzinfo=timezone.utc), second_at_beginning=True)
    except Exception as error:
        raise DBOSException(
            f"Invalid cron expression {expression!r}: {error}. It has 5 fields (minute, hour, day of month, month, day "
            f"of week), 6 with the second first, or 7 with the year last"
        ) from error
