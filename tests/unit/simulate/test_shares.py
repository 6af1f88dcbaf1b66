"""Shares of a saving, and their intervals over days."""

from __future__ import annotations

import numpy as np
import pytest

from carbon_sched.simulate.shares import Bootstrap

DAYS = np.repeat(np.arange(20), 3)
RNG = np.random.default_rng(1)
NOW, ORACLE = RNG.uniform(5, 9, 60), RNG.uniform(1, 3, 60)
POLICY = ORACLE + RNG.uniform(0, 2, 60)


def test_a_share_lies_in_its_interval_which_is_narrower_where_days_are_alike():
    found = Bootstrap(DAYS).share(NOW, POLICY, ORACLE)
    assert found.percent == pytest.approx(100 * (NOW - POLICY).sum() / (NOW - ORACLE).sum())
    assert found.low < found.percent < found.high
    alike = Bootstrap(DAYS).share(np.full(60, 9.0), np.full(60, 5.0), np.full(60, 1.0))
    assert (alike.low, alike.percent, alike.high) == pytest.approx((50.0, 50.0, 50.0))


def test_the_mean_of_zones_moves_with_the_days_that_they_share():
    sampled, possible = Bootstrap(DAYS), NOW - ORACLE
    saved = NOW - POLICY
    alone = sampled.share(NOW, POLICY, ORACLE)
    twice = sampled.mean([(saved, possible), (2 * saved, 2 * possible)])
    assert (twice.percent, twice.low, twice.high) == pytest.approx((alone.percent, alone.low, alone.high))
    opposed = sampled.mean([(saved, possible), (possible - saved, possible)])
    assert (opposed.percent, opposed.low, opposed.high) == pytest.approx((50.0, 50.0, 50.0))
