from __future__ import annotations

import numpy as np
import pytest

from carbon_sched.forecast.skill import captured_saving, coverage, mape, pinball

TRUTH = 100 + 50 * np.cos(np.arange(24 * 20) * 2 * np.pi / 24)
ISSUES = 24 * 10


def windows(series, first, count, leads):
    return np.stack([series[first + i : first + i + leads] for i in range(count)])


def test_the_truth_itself_captures_everything():
    result = captured_saving(windows(TRUTH, 24, ISSUES, 24), TRUTH, 24)
    assert result.share == pytest.approx(1.0)
    assert result.saved == pytest.approx(result.possible)
    assert result.possible > 0.2


def test_knowing_nothing_runs_at_once_and_captures_nothing():
    result = captured_saving(np.ones((ISSUES, 24)), TRUTH, 24)
    assert result.share == 0.0


def test_the_opposite_of_the_truth_costs():
    assert captured_saving(-windows(TRUTH, 24, ISSUES, 24), TRUTH, 24).share < 0.0


def test_captured_saving_by_hand():
    truth = np.array([4.0, 2.0, 1.0, 3.0])
    forecast = np.array([[5.0, 1.0, 2.0]])
    result = captured_saving(forecast, truth, 0, run_h=1, starts=3)
    assert (result.now, result.chosen, result.best) == (4.0, 2.0, 1.0)
    assert result.share == pytest.approx(2 / 3)


def test_issues_with_unknown_hours_are_left_out():
    truth = np.array([4.0, 2.0, np.nan, 8.0, 1.0, 1.0])
    result = captured_saving(np.zeros((6, 2)), truth, 0, run_h=1, starts=2)
    assert result.now == pytest.approx(np.mean([4.0, 8.0, 1.0]))


def test_nothing_known_is_nan_not_zero():
    assert np.isnan(captured_saving(np.full((3, 24), np.nan), TRUTH, 0).share)
    assert np.isnan(mape(np.full((3, 24), np.nan), TRUTH, 0))


def test_mape_by_hand():
    assert mape(np.array([[110.0, 80.0]]), np.array([100.0, 100.0]), 0, leads=range(2)) == pytest.approx(15.0)
    assert mape(np.array([[110.0, 80.0]]), np.array([100.0, 100.0]), 0, leads=range(1, 2)) == pytest.approx(20.0)


def test_mape_passes_over_zero_intensity():
    assert mape(np.array([[5.0, 110.0]]), np.array([0.0, 100.0]), 0, leads=range(2)) == pytest.approx(10.0)


def test_coverage_counts_borders_and_leaves_out_the_unknown():
    truth = np.array([1.0, 2.0, np.nan, 4.0])
    low, high = np.full((4, 1), 1.0), np.full((4, 1), 2.0)
    assert coverage(low, high, truth, 0).tolist() == [pytest.approx(2 / 3)]


def test_pinball_is_least_at_the_quantile():
    rng = np.random.default_rng(0)
    truth = rng.normal(size=5000)
    losses = [pinball(np.full((5000, 1), q), 0.9, truth, 0)[0] for q in (0.8, 1.2816, 1.8)]
    assert losses[1] < losses[0]
    assert losses[1] < losses[2]
    assert pinball(np.array([[0.0]]), 0.9, np.array([1.0]), 0)[0] == pytest.approx(0.9)
