from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_sched.domain.time import Interval, from_rfc3339, to_rfc3339, utc

INSTANTS = st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1))  # noqa: DTZ001 - zone added below


@given(INSTANTS, st.integers(-12 * 60, 14 * 60))
def test_rfc3339_round_trips_from_any_zone(naive, minutes):
    instant = naive.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = to_rfc3339(instant)
    assert text.endswith("Z")
    assert from_rfc3339(text) == instant


@pytest.mark.parametrize(
    "text",
    ["2026-11-23T18:00:00", "tomorrow", "", "2026-13-01T00:00:00Z", "0001-01-01T00:00+08:41", "9999-12-31T23:00-02:00"],
)
def test_what_is_no_instant_is_refused(text):
    with pytest.raises(ValueError, match=r"."):
        from_rfc3339(text)


def test_a_naive_time_is_refused():
    with pytest.raises(ValueError, match="time zone"):
        utc(datetime(2026, 1, 1))  # noqa: DTZ001 - the point


def test_intervals_are_half_open_and_never_empty():
    t = [datetime(2026, 1, 1, hour, tzinfo=timezone.utc) for hour in range(4)]
    assert Interval(t[0], t[1]).overlap(Interval(t[1], t[2])) is None
    assert Interval(t[0], t[2]).overlap(Interval(t[1], t[3])) == Interval(t[1], t[2])
    with pytest.raises(ValueError, match="interval"):
        Interval(t[1], t[1])
