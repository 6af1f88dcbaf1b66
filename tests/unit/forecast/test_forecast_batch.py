from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pytest

from carbon_sched.forecast import baselines
from carbon_sched.forecast.batch import rolling_bands, rolling_forecast, rolling_forecasts
from carbon_sched.forecast.skill import captured_saving, coverage
from tests.fakes.weather import intensity

START = datetime(2021, 1, 1, tzinfo=timezone.utc)
DAY = 24


@pytest.mark.parametrize("lag", [0, 1, 24])
@pytest.mark.parametrize("future", ["missing", "wild"])
def test_nothing_after_the_issue_changes_a_forecast_or_its_band(lag, future):
    values, issue = intensity(60 * DAY), 50 * DAY + 7
    changed = values.copy()
    changed[issue + 1 - lag :] = np.nan if future == "missing" else 1e6
    before, after = (
        rolling_bands({"A": v}, START, issue - 30, issue + 20, leads=30, lag=lag)["A"][30] for v in (values, changed)
    )
    assert np.isfinite(before).all()
    np.testing.assert_array_equal(before, after)


def test_the_newest_known_hour_does_change_the_forecast():
    values, issue = intensity(60 * DAY), 50 * DAY + 7
    changed = values.copy()
    changed[issue - 1] *= 1.5
    before, after = (rolling_forecast(v, START, issue, issue + 1, leads=4) for v in (values, changed))
    assert np.all(before != after)


def test_other_zones_are_subject_to_the_same_rule():
    values, other, issue = intensity(40 * DAY, 1), intensity(40 * DAY, 2), 30 * DAY
    changed = other.copy()
    changed[issue:] *= 2.0
    before, after = (
        rolling_forecast(values, START, issue, issue + 1, leads=24, pool={"B": pool}) for pool in (other, changed)
    )
    np.testing.assert_array_equal(before, after)


def test_one_zone_equals_many():
    zones = {"A": intensity(40 * DAY, 1), "B": intensity(40 * DAY, 2)}
    many = rolling_forecasts(zones, START, 900, 930, leads=30)
    one = rolling_forecast(zones["A"], START, 900, 930, leads=30, pool={"B": zones["B"]})
    np.testing.assert_array_equal(many["A"], one)


def test_the_mean_is_the_same_with_and_without_bands():
    zones = {"A": intensity(50 * DAY, 1)}
    mean = rolling_forecasts(zones, START, 1000, 1190, leads=26)["A"]
    bands = rolling_bands(zones, START, 1000, 1190, leads=26)["A"]
    np.testing.assert_allclose(mean, bands[..., 0], rtol=1e-6)
    assert np.all(bands[..., 1] <= bands[..., 2])
    assert np.all(bands[..., 2] <= bands[..., 3])


def test_bands_come_from_the_zones_own_past_errors():
    values = intensity(200 * DAY)
    first, last = 130 * DAY, 198 * DAY
    bands = rolling_bands({"A": values}, START, first, last, leads=24)["A"]
    covered = coverage(bands[..., 1], bands[..., 3], values, first)
    assert 0.7 < covered.min() < covered.max() < 0.9
    # The mean of a skewed error lies above its median; only past errors can tell by how much.
    assert np.all(bands[..., 0] > bands[..., 2])


def test_a_young_zone_climbs_the_ladder():
    values = np.full(40 * DAY, np.nan)
    values[10 * DAY :] = intensity(30 * DAY)
    out = rolling_forecast(values, START, 0, 40 * DAY, leads=3, pool={"B": intensity(40 * DAY, 5)})
    assert np.isnan(out[: 10 * DAY + 1]).all()
    assert np.isfinite(out[10 * DAY + 1 :]).all()
    first_day = out[11 * DAY]
    # Under two days: the mean so far, the same for every lead. Then a daily course.
    np.testing.assert_allclose(first_day, first_day[0], rtol=0.02)
    assert np.ptp(out[13 * DAY]) > 1.0


def test_a_zone_without_any_data_is_unknown():
    out = rolling_forecasts({"A": np.full(900, np.nan), "B": intensity(900)}, START, 850, 860, leads=3)
    assert np.isnan(out["A"]).all()
    assert np.isfinite(out["B"]).all()


def test_known_hours_are_answered_by_their_value():
    values = intensity(40 * DAY)
    out = rolling_forecast(values, START, 800, 810, leads=2, lag=0)
    np.testing.assert_allclose(out[:, 0], values[800:810], rtol=1e-6)


def test_in_a_gap_the_last_known_hour_is_the_newest():
    values = intensity(50 * DAY)
    values[1000:1012] = np.nan
    out = rolling_forecast(values, START, 1000, 1012, leads=20)
    # Every issue in the gap knows the same, so forecasts of one hour agree.
    np.testing.assert_allclose(out[11, 0], out[0, 11], rtol=1e-5)


def test_a_lag_costs_only_the_first_hours():
    values = intensity(60 * DAY)
    fresh, stale = (rolling_forecast(values, START, 1200, 1400, leads=48, lag=lag) for lag in (1, 24))
    truth = np.stack([values[i : i + 48] for i in range(1200, 1392)])
    errors = [np.abs(f[:192] - truth).mean(axis=0) for f in (fresh, stale)]
    assert errors[0][:6].mean() < 0.8 * errors[1][:6].mean()
    assert errors[1][40:].mean() < 1.25 * errors[0][40:].mean()


def test_it_beats_the_damped_profile_where_there_is_something_to_learn():
    values = intensity(150 * DAY, swing=0.15)
    first, last = 100 * DAY, 148 * DAY
    ours = rolling_forecast(values, START, first, last, leads=24)
    damped = baselines.damped_profile(values, np.arange(first, last), 24)
    shares = [captured_saving(f, values, first).share for f in (ours, damped)]
    assert shares[0] > shares[1] + 0.02


@pytest.mark.parametrize(("first", "last", "leads", "lag"), [(5, 5, 1, 1), (-1, 5, 1, 1), (0, 5, 0, 1), (0, 5, 1, -1)])
def test_impossible_periods_are_refused(first, last, leads, lag):
    with pytest.raises(ValueError, match="no such forecasts"):
        rolling_forecast(intensity(100), START, first, last, leads=leads, lag=lag)
