from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from carbon_sched.forecast.record import track_records
from carbon_sched.forecast.series import HourlySeries, on_one_clock
from tests.fakes.weather import intensity

START = datetime(2021, 1, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)


def test_a_record_judges_what_would_have_been_forecast():
    now = START + 60 * DAY
    records = track_records({"A": HourlySeries(START, intensity(60 * 24))}, now, days=14)
    record = records["A"]
    assert record.issues == 14 * 24
    assert 0.3 < record.captured < 1.0
    assert 0.05 < record.possible < 1.0
    assert 0.0 < record.mape_pct < 40.0
    assert 0.5 < record.covered < 1.0


def test_only_issues_whose_first_day_has_come_true_are_judged():
    record = track_records({"A": HourlySeries(START, intensity(12 * 24))}, START + 12 * DAY)["A"]
    assert record.issues == (12 - 2 - 1) * 24


def test_a_flat_zone_has_nothing_to_capture():
    record = track_records({"A": HourlySeries(START, np.full(40 * 24, 480.0))}, START + 40 * DAY, days=8)["A"]
    assert record.possible == pytest.approx(0.0)
    assert record.mape_pct < 0.5


def test_young_and_unknown_zones_are_left_out():
    now = START + 30 * DAY
    zones = {
        "old": HourlySeries(START, intensity(30 * 24)),
        "young": HourlySeries(now - 8 * DAY, intensity(8 * 24)),
        "unknown": HourlySeries(START, np.full(10, np.nan)),
    }
    assert set(track_records(zones, now, days=10)) == {"old"}
    assert track_records({"young": zones["young"]}, now) == {}
    assert track_records({}, now) == {}


def test_what_comes_after_now_is_not_looked_at():
    now = START + 30 * DAY
    values = intensity(40 * 24)
    changed = values.copy()
    changed[30 * 24 :] = 1.0
    one, two = (track_records({"A": HourlySeries(START, v)}, now, days=8) for v in (values, changed))
    assert one == two


def test_series_are_put_on_one_clock():
    start, values = on_one_clock(
        {"A": HourlySeries(START + timedelta(hours=2), np.ones(2)), "B": HourlySeries(START, np.zeros(3))}
    )
    assert start == START
    np.testing.assert_array_equal(values["A"], [np.nan, np.nan, 1.0, 1.0])
    np.testing.assert_array_equal(values["B"], [0.0, 0.0, 0.0, np.nan])
    with pytest.raises(ValueError, match="no series"):
        on_one_clock({})
