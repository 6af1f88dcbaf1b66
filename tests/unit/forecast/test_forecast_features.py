from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_sched.forecast.features import FEATURES, WARM_UP, regressors
from carbon_sched.forecast.horizons import BINS, KNOTS, at_every_horizon, bin_of, knots_for
from carbon_sched.forecast.trace import LONGEST, hardened, softened, trace
from tests.fakes.weather import intensity

VALUES = intensity(LONGEST + 400)
WHOLE = trace(VALUES, 0, 300.0)


def test_the_softened_logarithm_is_undone():
    values = np.array([0.0, 1.0, 300.0, 2000.0])
    np.testing.assert_allclose(hardened(softened(values, 300.0), 300.0), values, atol=1e-9)
    assert hardened(np.array([-50.0]), 300.0) == 0.0
    assert np.isfinite(hardened(np.array([1000.0]), 300.0).astype(np.float32)).all()


def test_a_trace_knows_nothing_of_later_hours():
    cut = 500
    changed = VALUES.copy()
    changed[cut:] *= 3.0
    other = trace(changed, 0, 300.0)
    for name in ("values", "profile3", "profile70", "weekly4", "level", "mean672", "anomaly28", "volatility"):
        np.testing.assert_array_equal(getattr(WHOLE, name)[:cut], getattr(other, name)[:cut], err_msg=name)
        assert not np.array_equal(getattr(WHOLE, name)[cut:], getattr(other, name)[cut:]), name


@settings(max_examples=40, deadline=None)
@given(t=st.integers(WARM_UP, len(VALUES) - 1), h=st.integers(1, 300))
def test_regressors_know_nothing_of_later_hours(t, h):
    changed = VALUES.copy()
    changed[t + 1 :] = 1e4
    row, base = regressors(WHOLE, np.array([t]), np.array([h]))
    other, other_base = regressors(trace(changed, 0, 300.0), np.array([t]), np.array([h]))
    np.testing.assert_array_equal(row, other)
    np.testing.assert_array_equal(base, other_base)
    assert row.shape == (1, FEATURES)


def test_the_longest_look_back_is_what_it_says():
    t = np.array([len(VALUES) - 1])
    recent = trace(VALUES[-LONGEST - 200 :], len(VALUES) - LONGEST - 200, 300.0)
    row, base = regressors(WHOLE, t, np.array([30]))
    again, base_again = regressors(recent, np.array([len(recent) - 1]), np.array([30]))
    np.testing.assert_allclose(row, again, atol=1e-6)
    np.testing.assert_allclose(base, base_again)


def test_the_base_is_the_mean_of_the_last_seven_known_days_at_that_hour():
    t, h = 1000, 30
    known = [1000 + 30 - 48 - 24 * day for day in range(7)]
    _, base = regressors(WHOLE, np.array([t]), np.array([h]))
    assert base[0] == pytest.approx(softened(VALUES, 300.0)[known].mean())


def test_bins_follow_the_clock():
    assert [int(bin_of(np.array([hour]))[0]) for hour in (0, 2, 3, 23, 24)] == [0, 0, 1, BINS - 1, 0]


def test_knots_reach_as_far_as_asked():
    assert knots_for(1).tolist() == [1]
    assert knots_for(24)[-1] == 24
    assert knots_for(25)[-1] == 26
    assert knots_for(9999)[-1] == KNOTS[-1] == 192


def test_between_knots_coefficients_are_interpolated():
    knots = knots_for(26)
    every = at_every_horizon(knots[:, None].astype(np.float32) * 2, knots)
    np.testing.assert_allclose(every[:, 0], np.arange(1, 27) * 2)
