from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from carbon_sched.forecast.blend import ENOUGH_H, RANGES_H, TYPICAL_H, Promises, best_share, range_of
from carbon_sched.forecast.model import fit_zones
from carbon_sched.forecast.series import HourlySeries, hour_of
from tests.fakes.weather import intensity

START = datetime(2021, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def errors(spread, seed, hours=20_000):
    return np.random.default_rng(seed).normal(0.0, spread, hours)


@pytest.mark.parametrize(("ours", "theirs", "share"), [(0.2, 0.2, 0.5), (0.2, 0.1, 0.8), (0.1, 0.2, 0.2)])
def test_independent_errors_weigh_by_their_inverse_variance(ours, theirs, share):
    assert best_share(errors(ours, 1), errors(theirs, 2)) == pytest.approx(share, abs=0.02)


def test_the_share_leaves_the_least_squared_error():
    ours, common = errors(0.2, 1), errors(0.1, 3)
    theirs = common + 0.5 * ours
    share = best_share(ours, theirs)
    left = [((1 - s) * ours + s * theirs).std() for s in (share - 0.05, share, share + 0.05)]
    assert left[1] == min(left)


def test_who_only_repeats_us_and_worse_counts_nothing():
    ours = errors(0.2, 1)
    assert best_share(ours, 2.0 * ours) == 0.0
    assert best_share(2.0 * ours, ours) == 1.0
    assert best_share(ours, ours) is None


def test_a_few_hours_decide_nothing():
    ours, theirs = errors(0.2, 1, ENOUGH_H), errors(0.2, 2, ENOUGH_H)
    assert best_share(ours, theirs) is not None
    theirs[0] = np.nan
    assert best_share(ours, theirs) is None


def test_hours_ahead_fall_into_ranges():
    assert range_of(np.array([0, 5, 6, 23, 24, 47, 48, 100])).tolist() == [0, 0, 1, 1, 2, 2, 2, 2]
    assert [int(range_of(np.array(h))) for h in TYPICAL_H] == list(range(len(RANGES_H)))


def test_promises_are_kept_as_said_about_so_many_hours_ahead():
    promises = Promises()
    target = START + 40 * HOUR
    for now in range(41):
        at = START + now * HOUR
        promises.note(HourlySeries(at, np.full(48, float(now))), hour_of(at))
    said = [said[hour_of(target)] for said in promises.said]
    assert said == [40.0 - ahead for ahead in TYPICAL_H]


def test_promises_that_can_no_longer_be_judged_are_forgotten():
    promises = Promises()
    promises.note(HourlySeries(START, np.ones(48)), hour_of(START))
    promises.note(HourlySeries(START + 1000 * HOUR, np.ones(48)), hour_of(START) + 1000)
    assert all(min(said) >= hour_of(START) + 1000 for said in promises.said)


def test_shares_follow_what_came_true():
    """A provider that knows the weather counts nearly alone, one that guesses hardly."""
    days = 60
    values = intensity(days * 24)
    history, now = HourlySeries(START, values), START + days * 24 * HOUR
    state = fit_zones({"A": history}, now)[1]["A"]
    found = []
    for noise in (0.01, 1.0):
        said = values * np.exp(np.random.default_rng(1).normal(0.0, noise, len(values)))
        promises = Promises()
        for at in range(40 * 24, days * 24):
            promises.note(HourlySeries(START + at * HOUR, said[at : at + 48]), hour_of(START) + at)
        found.append(promises.shares(state, history))
    assert all(share > 0.9 for share in found[0])
    assert all(share < 0.2 for share in found[1])
    assert Promises().shares(state, history) == (None, None, None)
