from __future__ import annotations

import functools

import numpy as np
import pytest

from carbon_sched.forecast import baselines
from tests.fakes.weather import intensity

ALL = {
    "persistence": baselines.persistence,
    "yesterday": baselines.same_hour_yesterday,
    "7 days": functools.partial(baselines.hourly_profile, days=7),
    "28 days": functools.partial(baselines.hourly_profile, days=28),
    "damped": baselines.damped_profile,
}


@pytest.mark.parametrize("name", ALL)
def test_no_baseline_sees_its_target(name):
    values, issues = intensity(1200), np.array([900, 1000])
    changed = values.copy()
    changed[1000:] = 1.0
    before, after = (ALL[name](series, issues, 50) for series in (values, changed))
    assert before.shape == (2, 50)
    np.testing.assert_allclose(before[1], after[1])


@pytest.mark.parametrize("name", ["yesterday", "7 days", "28 days", "damped"])
def test_a_periodic_series_is_forecast_without_error(name):
    values = np.tile(np.arange(24.0) + 100, 60)
    np.testing.assert_allclose(ALL[name](values, np.array([1000]), 72)[0], values[1000:1072])


def test_persistence_repeats_the_last_known_value():
    assert baselines.persistence(np.arange(10.0), np.array([5]), 3).tolist() == [[4.0, 4.0, 4.0]]


def test_the_damped_profile_returns_to_the_profile():
    values = np.tile(np.full(24, 100.0), 40)
    values[-24:] = 130.0
    out = baselines.damped_profile(values, np.array([len(values)]), 400)[0]
    profile = 100 + 30 / 7
    assert out[0] == pytest.approx(profile + 30 * np.exp(-1 / 48))
    assert out[-1] == pytest.approx(profile, abs=0.01)
