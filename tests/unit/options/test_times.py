from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.options import times

UTC = timezone.utc
BERLIN = ZoneInfo("Europe/Berlin")
NOW = datetime(2026, 11, 23, 18, 0, tzinfo=UTC)  # 19:00 in Berlin


def instant(text: str, now: datetime = NOW, zone: ZoneInfo = BERLIN) -> times.Instant:
    return times.parse_instant("--deadline", text, now, zone)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("1h30m", 5400), ("2d", 172_800), ("1w", 604_800), ("1.5h", 5400), (" 1H 30M ", 5400), ("0.5s", 0.5)],
)
def test_durations(text, seconds):
    assert times.parse_duration("--duration", text) == seconds


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("90", "has no unit"),
        ("-5m", "is negative"),
        ("0s", "is no time at all"),
        ("nan", "is not a duration"),
        ("inf", "is not a duration"),
        ("", "is not a duration"),
        ("30m1h", "is not a duration"),
        ("1h30", "is not a duration"),
        ("1y", "is not a duration"),
        ("999999999999999d", "is longer than ten years"),
        ("1e9s", "is not a duration"),
        ("٣h", "is not a duration"),
    ],
)
def test_what_is_no_duration(text, problem):
    with pytest.raises(InvalidInput) as caught:
        times.parse_duration("--duration", text)
    assert caught.value.problem == problem
    assert caught.value.field == "--duration"
    assert caught.value.remedy


def test_no_delay_is_a_delay_but_no_duration():
    assert times.parse_duration("--max-delay", "0", zero=True) == 0
    assert times.parse_duration("--max-delay", "0s", zero=True) == 0


@given(st.integers(1, 400), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_durations_add_up(days, hours, minutes, seconds):
    text = f"{days}d{hours}h{minutes}m{seconds}s"
    wanted = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds).total_seconds()
    assert times.parse_duration("--duration", text) == wanted


def test_from_now():
    assert instant("+6h").at == NOW + timedelta(hours=6)
    assert "2026-11-24 01:00:00 CET (Europe/Berlin), 2026-11-24T00:00:00Z" in instant("+6h").echo


def test_a_clock_time_is_the_next_one_in_the_users_zone():
    assert instant("20:30").at == datetime(2026, 11, 23, 19, 30, tzinfo=UTC)
    assert instant("18:00").at == datetime(2026, 11, 24, 17, 0, tzinfo=UTC)
    assert instant("19:00").at == datetime(2026, 11, 24, 18, 0, tzinfo=UTC), "now itself is over"
    assert instant("20:30").echo == "20:30 is 2026-11-23 20:30:00 CET (Europe/Berlin), 2026-11-23T19:30:00Z"


@pytest.mark.parametrize(
    "text",
    ["2026-11-23T18:00:00Z", "2026-11-23t18:00:00z", "2026-11-23 19:00:00+01:00", "2026-11-23T19:00+01:00",
     "2026-11-23T18:00:00.000000000Z"],
)  # fmt: skip
def test_rfc_3339(text):
    assert instant(text).at == NOW
    assert instant(text).echo == ""


def test_fractions_of_a_second():
    assert instant("2026-11-23T18:00:00.25Z").at.microsecond == 250_000


@pytest.mark.parametrize(
    "text",
    ["tomorrow", "25:00", "18.00", "", "2026-13-01T00:00:00Z", "2026-11-23T18:00:60Z", "2026-11-23T18:00:00+25:00",
     "9999-12-31T23:59:59-23:00", "+", "++6h", "1795452761"],
)  # fmt: skip
def test_what_is_no_time(text):
    with pytest.raises(InvalidInput, match="--deadline"):
        instant(text)


def test_a_time_without_a_zone_is_refused_with_the_two_that_can_be_meant():
    with pytest.raises(InvalidInput) as caught:
        instant("2026-11-24T18:00")
    assert "2026-11-24T18:00:00+01:00 (your zone, Europe/Berlin)" in caught.value.remedy
    assert "2026-11-24T18:00:00Z" in caught.value.remedy


# In Berlin the clocks went forward on 2026-03-29 (02:00 to 03:00) and back on 2026-10-25 (03:00 to 02:00).
BEFORE_SPRING = datetime(2026, 3, 28, 22, 0, tzinfo=UTC)
BEFORE_AUTUMN = datetime(2026, 10, 24, 20, 0, tzinfo=UTC)


def test_a_time_that_happens_twice_is_refused_with_both():
    with pytest.raises(InvalidInput) as caught:
        instant("02:30", BEFORE_AUTUMN)
    assert "happens twice on 2026-10-25 in Europe/Berlin" in caught.value.problem
    assert "2026-10-25T00:30:00Z or 2026-10-25T01:30:00Z" in caught.value.remedy


def test_a_time_that_does_not_happen_is_refused():
    with pytest.raises(InvalidInput) as caught:
        instant("02:30", BEFORE_SPRING)
    assert "does not happen on 2026-03-29" in caught.value.problem


def test_other_times_of_those_nights_are_fine():
    assert instant("04:00", BEFORE_AUTUMN).at == datetime(2026, 10, 25, 3, 0, tzinfo=UTC)
    assert instant("04:00", BEFORE_SPRING).at == datetime(2026, 3, 29, 2, 0, tzinfo=UTC)


@given(st.integers(0, 365 * 24 * 60), st.integers(0, 23).filter(lambda hour: hour != 2), st.integers(0, 59))
def test_a_clock_time_lies_ahead_within_a_day_and_reads_so(minutes, hour, minute):
    now = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes)
    found = instant(f"{hour:02}:{minute:02}", now).at
    assert now < found <= now + timedelta(hours=25)
    local = found.astimezone(BERLIN)
    assert (local.hour, local.minute, local.second) == (hour, minute, 0)


def test_periods_of_reports():
    def past(text: str) -> datetime:
        return times.parse_past("--since", text, NOW, BERLIN)

    assert past("-7d") == NOW - timedelta(days=7)
    assert past("2026-11-01") == datetime(2026, 10, 31, 23, 0, tzinfo=UTC)
    assert past("2026-11-01T00:00:00Z") == datetime(2026, 11, 1, tzinfo=UTC)
    for wrong in ("2026-02-30", "18:00", "7d", "0001-01-01"):
        with pytest.raises(InvalidInput, match="--since"):
            past(wrong)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("50GB", 50 * 10**9),
        ("16GiB", 2**34),
        ("1.5 TB", 15 * 10**11),
        ("500B", 500),
        ("0B", 0),
        ("1kB", 1000),
        ("2mib", 2**21),
    ],
)
def test_sizes(text, size):
    assert times.parse_size("--data", text) == size


@pytest.mark.parametrize("text", ["50", "GB", "-1GB", "nanGB", "50 gigabytes", "5000000PB", "1e3GB"])
def test_what_is_no_size(text):
    with pytest.raises(InvalidInput, match="--data"):
        times.parse_size("--data", text)


def test_powers():
    assert [times.parse_power("--power", text) for text in ("300", "300W", "1.2kW", "1.2 kw")] == [300, 300, 1200, 1200]
    for wrong in ("0", "-5", "nan", "1.2k", "2MW", "inf", ""):
        with pytest.raises(InvalidInput, match="--power"):
            times.parse_power("--power", wrong)


def test_counts_and_amounts():
    assert times.parse_count("workers", "4") == 4
    assert times.parse_amount("gpus", 0.5) == 0.5
    for wrong in ("x", "nan", "-1", "inf", True, None, [1]):
        with pytest.raises(InvalidInput, match="gpus"):
            times.parse_amount("gpus", wrong)
    with pytest.raises(InvalidInput, match="whole number"):
        times.parse_count("workers", "1.5")
