from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from carbon_sched.forecast import skill
from carbon_sched.forecast.batch import rolling_bands
from carbon_sched.forecast.model import fit_zones
from carbon_sched.forecast.record import track_record
from carbon_sched.forecast.series import HourlySeries, on_one_clock
from tests.fakes.weather import intensity

START = datetime(2021, 1, 1, tzinfo=timezone.utc)
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


def learnt(values, now, states=None):
    history = HourlySeries(START, values)
    return fit_zones({"A": history}, now, states)[1]["A"], history


def recorded(values, now, **options):
    state, history = learnt(values, now)
    return track_record(state, history, **options)


def test_a_record_judges_the_forecasts_that_were_made():
    record = recorded(intensity(60 * 24), START + 60 * DAY, days=14)
    assert record.issues == 14 * 24
    assert 0.3 < record.captured < 1.0
    assert 0.05 < record.possible < 1.0
    assert 0.0 < record.mape_pct < 40.0
    assert 0.5 < record.covered < 1.0


def test_the_record_is_that_of_forecasts_made_hour_by_hour():
    """Against the batch, whose every forecast is made as it would have been: the refits fall on other days there."""
    values = intensity(120 * 24)
    now = START + 120 * DAY
    record = recorded(values, now)
    first, last = 91 * 24 + 1, 119 * 24 + 1
    bands = rolling_bands({"A": values}, START, first, last, leads=48)["A"]
    assert record.issues == last - first
    assert record.mape_pct == pytest.approx(skill.mape(bands[..., 2], values, first), rel=0.03)
    assert record.captured == pytest.approx(skill.captured_saving(bands[..., 2], values, first).share, abs=0.02)
    covered = float(skill.coverage(bands[..., 1], bands[..., 3], values, first).mean())
    assert record.covered == pytest.approx(covered, abs=0.03)


def test_a_forecast_that_fails_from_one_day_on_shows_in_the_record():
    """The record is of what came true, not of what was expected: the grid turns over, and the error is on it."""
    values = intensity(75 * 24)
    state, _ = learnt(values, START + 60 * DAY)
    turned = values.copy()
    turned[60 * 24 :] = values[60 * 24 :].max() - values[60 * 24 :] + 50.0
    records = []
    for after in (values, turned):
        now, history = START + 75 * DAY, HourlySeries(START, after)
        _, states, _ = fit_zones({"A": history}, now, {"A": state})
        records.append(track_record(states["A"], history, days=14))
    well, badly = records
    assert badly.mape_pct > 1.5 * well.mape_pct
    assert badly.captured < well.captured - 0.2


def test_a_flat_zone_has_nothing_to_capture():
    record = recorded(np.full(60 * 24, 480.0), START + 60 * DAY, days=8)
    assert record.possible == pytest.approx(0.0)
    assert record.mape_pct < 0.5


def test_there_is_no_record_before_a_week_of_forecasts():
    assert recorded(intensity(12 * 24), START + 12 * DAY) is None
    assert recorded(intensity(12), START + 12 * HOUR) is None


def test_what_comes_after_what_was_learnt_is_not_looked_at():
    now = START + 50 * DAY
    values = intensity(60 * 24)
    state, history = learnt(values, now)
    changed = values.copy()
    changed[50 * 24 :] = 1.0
    assert track_record(state, history) == track_record(state, HourlySeries(START, changed))


def test_series_are_put_on_one_clock():
    start, values = on_one_clock(
        {"A": HourlySeries(START + timedelta(hours=2), np.ones(2)), "B": HourlySeries(START, np.zeros(3))}
    )
    assert start == START
    np.testing.assert_array_equal(values["A"], [np.nan, np.nan, 1.0, 1.0])
    np.testing.assert_array_equal(values["B"], [0.0, 0.0, 0.0, np.nan])
    with pytest.raises(ValueError, match="no series"):
        on_one_clock({})
