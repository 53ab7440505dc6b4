"""The cron dialect and its daylight-saving behaviour (03 section 10.2). A change here shifts users' schedules."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from dbos.engine.cron import Ticks, check_expression
from dbos.error import DBOSException

UTC = timezone.utc
THURSDAY = datetime(2026, 1, 1, tzinfo=UTC)


def ticks(expression: str, count: int, *, start: datetime = THURSDAY, zone: str | None = None) -> list[str]:
    """The first ticks later than `start`."""
    found, moment, source = [], start, Ticks(expression, zone)
    for _ in range(count):
        tick = source.after(moment)
        assert tick is not None
        found.append(tick.isoformat())
        moment = tick
    return found


def days(expression: str, count: int) -> list[str]:
    return [tick[:10] for tick in ticks(expression, count)]


def clock(expression: str, count: int) -> list[str]:
    return [tick[11:19] for tick in ticks(expression, count)]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("* * * * *", ["00:01:00", "00:02:00", "00:03:00"]),
        ("  5\t*  * * * ", ["00:05:00", "01:05:00", "02:05:00"]),
        ("1,3-4 * * * *", ["00:01:00", "00:03:00", "00:04:00"]),
        ("*/25 * * * *", ["00:25:00", "00:50:00", "01:00:00"]),
        ("10-20/5 * * * *", ["00:10:00", "00:15:00", "00:20:00"]),
        ("50/5 * * * *", ["00:50:00", "00:55:00", "01:50:00"]),
        ("0/99 * * * *", ["01:00:00", "02:00:00", "03:00:00"]),
        ("58-1 * * * *", ["00:01:00", "00:58:00", "00:59:00"]),
        ("7-7 * * * *", ["00:01:00", "00:02:00", "00:03:00"]),
        ("0 22-1 * * *", ["01:00:00", "22:00:00", "23:00:00"]),
        ("30 * * * * *", ["00:00:30", "00:01:30", "00:02:30"]),
        ("*/20 * * * * *", ["00:00:20", "00:00:40", "00:01:00"]),
        ("@hourly", ["01:00:00", "02:00:00", "03:00:00"]),
        ("@DAILY", ["00:00:00", "00:00:00", "00:00:00"]),
        ("0 6 ? * ?", ["06:00:00", "06:00:00", "06:00:00"]),
    ],
)
def test_times_of_day(expression: str, expected: list[str]) -> None:
    """03 R125."""
    assert clock(expression, 3) == expected


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("0 0 31 * *", ["2026-01-31", "2026-03-31", "2026-05-31"]),
        ("0 0 L * *", ["2026-01-31", "2026-02-28", "2026-03-31"]),
        ("0 0 1,L * *", ["2026-01-31", "2026-02-01", "2026-02-28"]),
        ("0 0 1 FEB-apr *", ["2026-02-01", "2026-03-01", "2026-04-01"]),
        ("0 0 * * 0", ["2026-01-04", "2026-01-11", "2026-01-18"]),
        ("0 0 * * 7", ["2026-01-04", "2026-01-11", "2026-01-18"]),
        ("0 0 * * sun", ["2026-01-04", "2026-01-11", "2026-01-18"]),
        ("0 0 * * Sat-Mon", ["2026-01-03", "2026-01-04", "2026-01-05"]),
        ("0 0 * * fri#2", ["2026-01-09", "2026-02-13", "2026-03-13"]),
        ("0 0 * * L5", ["2026-01-30", "2026-02-27", "2026-03-27"]),
        ("0 0 15W * *", ["2026-01-15", "2026-02-16", "2026-03-16"]),
        ("0 0 W1 * *", ["2026-02-02", "2026-03-02", "2026-04-01"]),
        ("@weekly", ["2026-01-04", "2026-01-11", "2026-01-18"]),
        ("@monthly", ["2026-02-01", "2026-03-01", "2026-04-01"]),
        ("@yearly", ["2027-01-01", "2028-01-01", "2029-01-01"]),
        ("@annually", ["2027-01-01", "2028-01-01", "2029-01-01"]),
        ("0 0 0 29 2 * 2028-2036", ["2028-02-29", "2032-02-29", "2036-02-29"]),
        # R126: both restricted, so either is enough; a star with a step is a restriction too.
        ("0 0 10 * mon", ["2026-01-05", "2026-01-10", "2026-01-12"]),
        ("0 0 */20 * mon", ["2026-01-05", "2026-01-12", "2026-01-19"]),
        ("0 0 1-31 * mon", ["2026-01-02", "2026-01-03", "2026-01-04"]),
    ],
)
def test_days(expression: str, expected: list[str]) -> None:
    """03 R125, R126."""
    assert days(expression, 3) == expected


@pytest.mark.parametrize(
    "expression",
    [
        "", "*", "* * * *", "* * * * * * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * 32 * *", "* * * 13 *",
        "* * * * 8", "*/0 * * * *", "H * * * *", "@reboot", "@every 5m", " @hourly", "0 0 5L * *", "0 0 LW * *",
        "0 0 * * L", "0 0 * * friday", "a * * * *", "0 0 * * fri#6", "0 0 * * fri#2,mon", "0 0 0 1 1 * 1969",
    ],
)  # fmt: skip
def test_what_is_no_expression_of_the_dialect_is_refused(expression: str) -> None:
    """03 R125."""
    with pytest.raises(DBOSException, match="cron expression"):
        check_expression(expression, None, THURSDAY)


@pytest.mark.parametrize("expression", ["R * * * *", "R(1-5) * * * *", "R/5 * * * *", "0 0 r * *"])
def test_random_values_are_refused_since_each_process_would_draw_its_own(expression: str) -> None:
    """03 R125; section 14."""
    with pytest.raises(DBOSException, match="random"):
        check_expression(expression, None, THURSDAY)


def test_names_with_an_r_are_not_random_values() -> None:
    for expression in ("0 0 1 mar *", "0 0 1 apr-jun *", "0 0 * * fri", "0 0 * * thu,FRI"):
        check_expression(expression, None, THURSDAY)


@pytest.mark.parametrize(
    ("expression", "ignored"),
    [("0 0 1 * fri#2", "day of month '1'"), ("0 0 3 * L5", "day of month '3'"), ("0 0 15W * 1", "day of week '1'")],
)
def test_combinations_that_ignore_a_field_are_refused(expression: str, ignored: str) -> None:
    """03 R126: best rejected."""
    with pytest.raises(DBOSException, match=f"the {ignored} would be ignored"):
        check_expression(expression, None, THURSDAY)


@pytest.mark.parametrize("expression", ["0 0 31 2 *", "0 0 30 feb *", "0 0 0 1 1 * 2025"])
def test_an_expression_that_never_matches_again_is_refused(expression: str) -> None:
    """03 R127; section 14."""
    with pytest.raises(DBOSException, match="no time in the next 50 years"):
        check_expression(expression, None, THURSDAY)


@pytest.mark.parametrize("wrong", [None, 5, b"* * * * *"])
def test_an_expression_is_a_text(wrong: Any) -> None:
    with pytest.raises(DBOSException, match="is a text"):
        check_expression(wrong, None, THURSDAY)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "Europe"])
def test_an_unknown_time_zone_is_refused(zone: str) -> None:
    """03 R115."""
    with pytest.raises(DBOSException, match="IANA name"):
        check_expression("* * * * *", zone, THURSDAY)


def test_an_exact_tick_at_the_start_is_not_found_again() -> None:
    """03 R128."""
    assert ticks("0 * * * *", 1) == ["2026-01-01T01:00:00+00:00"]
    assert ticks("0 * * * *", 1, start=THURSDAY - timedelta(microseconds=1)) == ["2026-01-01T00:00:00+00:00"]


def test_ticks_are_times_of_the_zone_with_its_offset() -> None:
    """03 R129."""
    assert ticks("0 3 * * *", 2, zone="Europe/Berlin") == ["2026-01-01T03:00:00+01:00", "2026-01-02T03:00:00+01:00"]
    assert ticks("0 3 * * *", 1, zone="Asia/Kathmandu") == ["2026-01-02T03:00:00+05:45"]
    assert Ticks("0 3 * * *", None).after(THURSDAY) == datetime(2026, 1, 1, 3, tzinfo=UTC)


# --- daylight saving: five zones, both changes. R130 for New York and London.


@pytest.mark.parametrize(
    ("zone", "start", "expression", "expected"),
    [
        # New York: 02:00 -> 03:00 on 9 March 2025, 02:00 -> 01:00 on 2 November 2025.
        ("America/New_York", "2025-03-08T12:00-05:00", "30 2 * * *",
         ["2025-03-09T03:00:00-04:00", "2025-03-10T02:30:00-04:00"]),
        ("America/New_York", "2025-03-08T23:30-05:00", "0 */2 * * *",
         ["2025-03-09T00:00:00-05:00", "2025-03-09T03:00:00-04:00", "2025-03-09T04:00:00-04:00"]),
        ("America/New_York", "2025-03-09T01:15-05:00", "*/30 * * * *",
         ["2025-03-09T01:30:00-05:00", "2025-03-09T03:00:00-04:00", "2025-03-09T03:30:00-04:00"]),
        ("America/New_York", "2025-11-01T12:00-04:00", "30 1 * * *",
         ["2025-11-02T01:30:00-04:00", "2025-11-02T01:30:00-05:00", "2025-11-03T01:30:00-05:00"]),
        ("America/New_York", "2025-11-02T00:30-04:00", "0 * * * *",
         ["2025-11-02T01:00:00-04:00", "2025-11-02T01:00:00-05:00", "2025-11-02T02:00:00-05:00"]),
        ("America/New_York", "2025-11-01T23:30-04:00", "0 */2 * * *",
         ["2025-11-02T00:00:00-04:00", "2025-11-02T02:00:00-05:00", "2025-11-02T04:00:00-05:00"]),
        # London: 01:00 -> 02:00 on 30 March 2025, 02:00 -> 01:00 on 26 October 2025.
        ("Europe/London", "2025-03-29T12:00+00:00", "15,45 1 * * *",
         ["2025-03-30T02:00:00+01:00", "2025-03-31T01:15:00+01:00", "2025-03-31T01:45:00+01:00"]),
        ("Europe/London", "2025-10-25T12:00+01:00", "15 1 * * *",
         ["2025-10-26T01:15:00+01:00", "2025-10-26T01:15:00+00:00", "2025-10-27T01:15:00+00:00"]),
        # Berlin: 02:00 -> 03:00 on 29 March 2026, 03:00 -> 02:00 on 25 October 2026.
        ("Europe/Berlin", "2026-03-28T12:00+01:00", "0 2 * * *",
         ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"]),
        ("Europe/Berlin", "2026-10-24T12:00+02:00", "0 2 * * *",
         ["2026-10-25T02:00:00+02:00", "2026-10-25T02:00:00+01:00", "2026-10-26T02:00:00+01:00"]),
        ("Europe/Berlin", "2026-10-24T12:00+02:00", "0 3 * * *",
         ["2026-10-25T03:00:00+01:00", "2026-10-26T03:00:00+01:00"]),
        # Sydney, the other half of the year: 03:00 -> 02:00 on 5 April 2026, 02:00 -> 03:00 on 4 October 2026.
        ("Australia/Sydney", "2026-04-04T12:00+11:00", "30 2 * * *",
         ["2026-04-05T02:30:00+11:00", "2026-04-05T02:30:00+10:00", "2026-04-06T02:30:00+10:00"]),
        ("Australia/Sydney", "2026-10-03T12:00+10:00", "30 2 * * *",
         ["2026-10-04T03:00:00+11:00", "2026-10-05T02:30:00+11:00"]),
        # Lord Howe Island changes by half an hour: 02:00 -> 01:30 on 5 April 2026, 02:00 -> 02:30 on 4 October 2026.
        ("Australia/Lord_Howe", "2026-04-04T12:00+11:00", "45 1 * * *",
         ["2026-04-05T01:45:00+11:00", "2026-04-05T01:45:00+10:30", "2026-04-06T01:45:00+10:30"]),
        ("Australia/Lord_Howe", "2026-10-03T12:00+10:30", "15 2 * * *",
         ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"]),
        # Arizona has no daylight saving.
        ("America/Phoenix", "2026-03-07T12:00-07:00", "30 2 * * *",
         ["2026-03-08T02:30:00-07:00", "2026-03-09T02:30:00-07:00"]),
    ],
)  # fmt: skip
def test_changes_of_daylight_saving_time(zone: str, start: str, expression: str, expected: list[str]) -> None:
    """03 R130."""
    assert ticks(expression, len(expected), start=datetime.fromisoformat(start), zone=zone) == expected


@pytest.mark.parametrize("zone", ["America/New_York", "Europe/London", "Europe/Berlin", "Australia/Sydney", "UTC"])
@pytest.mark.parametrize("expression", ["30 1 * * *", "30 2 * * *", "0 */6 * * *", "0 0 * * *"])
def test_over_a_year_ticks_only_go_forward_and_backwards_are_the_same(zone: str, expression: str) -> None:
    source = Ticks(expression, zone)
    moment, end, found = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC), []
    for tick in source.between(moment, end):
        instant = tick.astimezone(UTC)
        assert instant > moment
        moment = instant
        found.append(tick)
    for tick, following in zip(found[::7], found[1::7]):
        before = source.before(following)
        assert before is not None
        assert before.isoformat() == tick.isoformat()
    per_day = {"30 1 * * *": 1, "30 2 * * *": 1, "0 */6 * * *": 4, "0 0 * * *": 1}[expression]
    assert abs(len(found) - 364 * per_day) <= 3
