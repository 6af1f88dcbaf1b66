from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pytest

from carbon_sched.forecast.batch import rolling_forecast, rolling_forecasts

START = datetime(2021, 1, 1, tzinfo=timezone.utc)


def daily(hours: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    weather = np.zeros(hours)
    for i in range(1, hours):
        weather[i] = 0.97 * weather[i - 1] + rng.normal(0, 8)
    return 300 + 80 * np.sin(np.arange(hours) * 2 * np.pi / 24) + weather


@pytest.mark.parametrize("lag", [0, 1, 24])
def test_nothing_after_the_issue_changes_a_forecast(lag):
    values, issue = daily(60 * 24), 50 * 24 + 7
    changed = values.copy()
    changed[issue + 1 - lag :] = np.nan
    changed[issue + 1 - lag :: 2] = 1e6
    before = rolling_forecast(values, START, issue - 30, issue + 1, leads=48, lag=lag)
    after = rolling_forecast(changed, START, issue - 30, issue + 1, leads=48, lag=lag)
    np.testing.assert_array_equal(before[-1], after[-1])


def test_the_newest_known_hour_does_change_the_forecast():
    values, issue = daily(60 * 24), 50 * 24 + 7
    changed = values.copy()
    changed[issue - 1] *= 1.5
    before, after = (rolling_forecast(v, START, issue, issue + 1, leads=4) for v in (values, changed))
    assert np.all(before != after)


def test_one_zone_equals_many():
    zones = {"A": daily(40 * 24, 1), "B": daily(40 * 24, 2)}
    many = rolling_forecasts(zones, START, 900, 930, leads=30)
    one = rolling_forecast(zones["A"], START, 900, 930, leads=30, pool={"B": zones["B"]})
    np.testing.assert_array_equal(many["A"], one)
