from __future__ import annotations

import numpy as np
import pytest

from carbon_sched.forecast import ridge
from carbon_sched.forecast.features import FEATURES, WARM_UP
from carbon_sched.forecast.horizons import BINS, bin_of
from carbon_sched.forecast.trace import softened, trace
from tests.fakes.weather import intensity

KNOTS = np.array([1, 24])


def observations(count, beta, seed=0, *, by_bin=None):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, count, FEATURES)).astype(np.float32)
    hour = np.arange(count)
    true = np.broadcast_to(beta, (2, BINS, FEATURES)).copy()
    if by_bin is not None:
        true += by_bin
    y = np.einsum("knf,knf->kn", x, true[:, bin_of(hour)]).astype(np.float32)
    return ridge.Rows(x, y, np.ones((2, count), np.float32), np.zeros((2, count)), np.ones((2, count)), hour)


def test_known_coefficients_are_recovered_from_enough_rows():
    beta = np.linspace(-1, 1, FEATURES)
    evidence = ridge.Evidence.none(2).plus(observations(20_000, beta))
    prior = ridge.pooled([evidence])
    np.testing.assert_allclose(prior, np.broadcast_to(beta, prior.shape), atol=0.05)
    np.testing.assert_allclose(ridge.own(evidence, prior)[0, 3], beta, atol=0.05)


def test_hours_of_the_day_may_differ():
    shift = np.zeros((2, BINS, FEATURES))
    shift[:, 0, 5] = 1.0
    evidence = ridge.Evidence.none(2).plus(observations(60_000, np.zeros(FEATURES), by_bin=shift))
    own = ridge.own(evidence, ridge.pooled([evidence]))
    assert own[0, 0, 5] > 0.5  # an eighth of the day: 0.125 if hours were alike
    assert abs(own[0, 4, 5]) < 0.1


def test_without_evidence_a_zone_is_the_pool():
    rich = ridge.Evidence.none(2).plus(observations(5_000, np.ones(FEATURES)))
    poor = ridge.Evidence.none(2)
    prior = ridge.pooled([rich, poor])
    np.testing.assert_allclose(ridge.own(poor, prior), np.repeat(prior[:, None], BINS, 1), rtol=1e-5)


def test_a_zone_unlike_the_pool_departs_from_it_as_its_evidence_grows():
    others = ridge.Evidence.none(2).plus(observations(5_000, np.ones(FEATURES)))
    distance = []
    for count in (200, 2_000, 20_000):
        zone = ridge.Evidence.none(2).plus(observations(count, np.zeros(FEATURES), seed=1))
        own = ridge.own(zone, ridge.pooled([others]))
        distance.append(float(np.abs(own).mean()))
    assert distance[0] > distance[1] > distance[2]
    assert distance[2] < 0.1


def test_too_few_rows_teach_nothing():
    assert ridge.pooled([ridge.Evidence.none(2).plus(observations(100, np.ones(FEATURES)))]) is None


def test_sums_of_parts_are_the_sums_of_the_whole():
    whole = observations(1_000, np.ones(FEATURES))
    parts = ridge.Evidence.none(2)
    for begin in range(0, 1_000, 100):
        cut = slice(begin, begin + 100)
        parts = parts.plus(
            ridge.Rows(
                *(part[:, cut] for part in (whole.x, whole.y, whole.weight, whole.base, whole.volatility)),
                whole.hour[cut],
            )
        )
    once = ridge.Evidence.none(2).plus(whole)
    np.testing.assert_allclose(parts.gram, once.gram, atol=1e-3)
    np.testing.assert_allclose(parts.moment, once.moment, atol=1e-2)
    assert parts.rows == pytest.approx(once.rows)


def test_rows_leave_out_unknown_targets_and_the_first_days():
    values = intensity(600)
    truth = softened(values, 300.0)
    truth[400] = np.nan
    of = trace(values, 0, 300.0)
    rows = ridge.rows(of, truth, np.arange(180, 420), KNOTS)
    used = rows.weight > 0
    assert not used[:, 400 - 180].any()
    assert not used[0, : WARM_UP + 1 - 180].any()
    assert used[0, WARM_UP + 1 - 180]
    assert not used[1, : WARM_UP + 24 - 180].any()
    assert used[1, WARM_UP + 24 - 180]


def test_a_spike_teaches_no_more_than_its_clipped_size():
    values = intensity(600)
    of = trace(values, 0, 300.0)
    truth = softened(values, 300.0)
    truth[500] += 50.0
    rows = ridge.rows(of, truth, np.array([500]), KNOTS)
    np.testing.assert_allclose(rows.y[0, 0], ridge.CLIP * of.volatility[499], rtol=1e-6)
