from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from carbon_sched.forecast.batch import rolling_bands
from carbon_sched.forecast.model import PooledModel, ZoneModel, fit, fit_pool, fit_zones, forecast
from carbon_sched.forecast.series import HourlySeries
from tests.fakes.weather import intensity

START = datetime(2021, 1, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
QUARTER = timedelta(minutes=15)
VALUES = intensity(100 * 24)
HISTORY = HourlySeries(START, VALUES)
ISSUE = START + 90 * DAY + timedelta(hours=5, minutes=20)


@pytest.fixture(scope="module")
def model():
    return fit(HISTORY, ISSUE)


def test_the_same_as_the_batch_form(model):
    issue = 90 * 24 + 5
    batch = rolling_bands({"A": VALUES}, START, issue, issue + 1, leads=168)["A"][0]
    online = forecast(model, HISTORY, ISSUE)
    for column, name in enumerate(("mean", "q10", "q50", "q90")):
        np.testing.assert_allclose(getattr(online, name), batch[:, column], rtol=1e-4, err_msg=name)


def test_nothing_after_the_issue_changes_fit_or_forecast(model):
    changed = VALUES.copy()
    changed[90 * 24 + 5 :] = 1e5
    later = HourlySeries(START, changed)
    again = fit(later, ISSUE)
    np.testing.assert_array_equal(model.coefficients, again.coefficients)
    np.testing.assert_array_equal(model.offsets, again.offsets)
    np.testing.assert_array_equal(forecast(model, HISTORY, ISSUE).q90, forecast(again, later, ISSUE).q90)


def test_a_model_from_the_future_is_refused(model):
    with pytest.raises(ValueError, match="after the issue time"):
        forecast(model, HISTORY, ISSUE - DAY)
    with pytest.raises(ValueError, match="after the issue time"):
        fit(HISTORY, ISSUE - DAY, fit_pool({"A": HISTORY}, ISSUE))


def test_slots_begin_with_the_one_that_holds_the_issue(model):
    hourly, fine = (forecast(model, HISTORY, ISSUE, 24, step) for step in (HOUR, QUARTER))
    assert hourly.start == ISSUE.replace(minute=0)
    assert fine.start == ISSUE.replace(minute=15)
    assert (len(hourly.mean), len(fine.mean)) == (24, 96)
    assert fine.starts[4] - fine.starts[0] == HOUR
    assert hourly.known_until == ISSUE.replace(minute=0)
    from_the_hour = forecast(model, HISTORY, ISSUE.replace(minute=0), 24, QUARTER)
    np.testing.assert_array_equal(fine.mean[:95], from_the_hour.mean[1:])


@pytest.mark.parametrize("step", [HOUR, QUARTER, timedelta(minutes=5)])
def test_finer_slots_keep_every_hours_mean(model, step):
    hourly = forecast(model, HISTORY, ISSUE.replace(minute=0), 48)
    fine = forecast(model, HISTORY, ISSUE.replace(minute=0), 48, step)
    np.testing.assert_allclose(fine.mean.reshape(48, -1).mean(axis=1), hourly.mean, rtol=1e-9)


def test_coarser_slots_are_means_of_hours(model):
    hourly = forecast(model, HISTORY, ISSUE, 24)
    coarse = forecast(model, HISTORY, ISSUE, 24, 3 * HOUR)
    np.testing.assert_allclose(coarse.mean, hourly.mean.reshape(8, 3).mean(axis=1))


def test_a_step_that_fits_no_hour_is_refused(model):
    with pytest.raises(ValueError, match="neither divides an hour"):
        forecast(model, HISTORY, ISSUE, 24, timedelta(minutes=25))


@pytest.mark.parametrize(
    ("hours", "method"), [(1, "mean so far"), (47, "mean so far"), (48, "damped profile"), (191, "damped profile")]
)
def test_short_histories_are_answered_by_simpler_methods(hours, method):
    short = HourlySeries(START, VALUES[:hours])
    now = START + hours * HOUR
    out = forecast(fit(short, now), short, now, 48)
    assert out.method == method
    assert np.isfinite(out.mean).all()
    assert np.all(out.q10 <= out.q50)
    assert np.all(out.q50 <= out.q90)
    assert np.all(out.q10 >= 0)


def test_nothing_known_is_refused():
    with pytest.raises(ValueError, match="nothing to forecast from"):
        forecast(None, HourlySeries(START, np.full(10, np.nan)), START + DAY)


def test_without_a_model_the_damped_profile_answers():
    out = forecast(None, HISTORY, ISSUE)
    assert out.method == "damped profile"


def test_a_pool_carries_a_new_zone():
    others = {name: HourlySeries(START, intensity(100 * 24, seed)) for seed, name in enumerate("BC", 3)}
    pool = fit_pool(others, ISSUE)
    young = HourlySeries(ISSUE.replace(minute=0) - 10 * DAY, VALUES[80 * 24 + 5 :])
    assert fit(young, ISSUE).coefficients is None
    carried = fit(young, ISSUE, pool)
    out = forecast(carried, young, ISSUE)
    assert out.method == "ridge"
    truth = VALUES[90 * 24 + 5 : 90 * 24 + 11]
    plain = forecast(None, young, ISSUE)
    assert np.abs(out.mean[:6] - truth).mean() < np.abs(plain.mean[:6] - truth).mean()


def test_a_stale_feed_is_answered_from_its_last_hour(model):
    stale = HourlySeries(START, VALUES[: 90 * 24 + 5 - 23])
    out = forecast(model if model.known_until <= ISSUE else None, stale, ISSUE, 48)
    assert out.known_until == stale.end
    assert len(out.mean) == 48
    assert np.isfinite(out.q90).all()


def test_gaps_are_no_obstacle():
    holed = VALUES.copy()
    holed[np.random.default_rng(0).random(len(holed)) < 0.1] = np.nan
    holed[80 * 24 : 80 * 24 + 30] = np.nan
    series = HourlySeries(START, holed)
    whole, gappy = forecast(fit(HISTORY, ISSUE), HISTORY, ISSUE), forecast(fit(series, ISSUE), series, ISSUE)
    assert np.abs(gappy.mean / whole.mean - 1).mean() < 0.1


def test_far_ahead_it_decays_to_the_daily_profile_and_its_band_widens(model):
    out = forecast(model, HISTORY, ISSUE, 168)
    width = (out.q90 - out.q10) / out.mean
    assert width[:3].mean() < width[144:].mean()
    profile = VALUES[62 * 24 + 5 : 90 * 24 + 5].reshape(-1, 24).mean(axis=0)
    near, far = (np.abs(out.mean[a : a + 24] / profile - 1).mean() for a in (0, 144))
    assert far < 0.35
    assert near >= 0.0


def test_the_unit_of_the_history_is_the_unit_of_the_answer(model):
    scaled = HourlySeries(START, VALUES * 1000.0)
    out = forecast(fit(scaled, ISSUE), scaled, ISSUE)
    np.testing.assert_allclose(out.mean, forecast(model, HISTORY, ISSUE).mean * 1000.0, rtol=1e-4)


def test_a_flat_zone_is_forecast_flat():
    flat = HourlySeries(START, np.full(60 * 24, 480.0))
    now = START + 60 * DAY
    out = forecast(fit(flat, now), flat, now)
    np.testing.assert_allclose(out.mean, 480.0, rtol=1e-3)


def test_a_zone_of_zeros_stays_at_zero():
    clean = HourlySeries(START, np.zeros(60 * 24))
    now = START + 60 * DAY
    np.testing.assert_allclose(forecast(fit(clean, now), clean, now).q90, 0.0, atol=1e-6)


def test_a_refit_learns_only_the_new_hours_and_ends_where_a_fresh_fit_does():
    early = START + 80 * DAY
    zones = {"A": HISTORY, "B": HourlySeries(START, intensity(100 * 24, 9))}
    _, states, _ = fit_zones(zones, early)
    recent = {name: HourlySeries(early - 80 * DAY, series.values) for name, series in zones.items()}
    models, after, pool = fit_zones(recent, ISSUE, states)
    fresh, fresh_states, fresh_pool = fit_zones(zones, ISSUE)
    learner, once = after["A"].learner, fresh_states["A"].learner
    assert learner.learnt == once.learnt
    np.testing.assert_allclose(learner.evidence.gram, once.evidence.gram, rtol=1e-3, atol=1e-2)
    np.testing.assert_allclose(pool.coefficients, fresh_pool.coefficients, atol=1e-3)
    one, two = (forecast(m["A"], HISTORY, ISSUE).mean for m in (models, fresh))
    np.testing.assert_allclose(one, two, rtol=5e-3)


def test_hours_missing_between_a_state_and_its_next_history_are_passed_over():
    _, states, _ = fit_zones({"A": HISTORY}, START + 40 * DAY)
    after = HourlySeries(START + 60 * DAY, VALUES[60 * 24 :])
    models, _, _ = fit_zones({"A": after}, START + 95 * DAY, states)
    assert models["A"].known_until == START + 95 * DAY
    assert np.isfinite(forecast(models["A"], after, START + 95 * DAY).mean).all()


def test_unknown_zones_are_left_out():
    models, states, pool = fit_zones({"A": HourlySeries(START, np.full(50, np.nan))}, ISSUE)
    assert (models, states, pool) == ({}, {}, None)


def test_models_survive_storage(model):
    again = ZoneModel.from_bytes(model.to_bytes())
    assert again.known_until == model.known_until
    np.testing.assert_array_equal(forecast(again, HISTORY, ISSUE).q10, forecast(model, HISTORY, ISSUE).q10)
    unfitted = fit(HourlySeries(START, VALUES[:50]), START + 50 * HOUR)
    assert ZoneModel.from_bytes(unfitted.to_bytes()).coefficients is None
    pool = fit_pool({"A": HISTORY}, ISSUE)
    np.testing.assert_array_equal(PooledModel.from_bytes(pool.to_bytes()).coefficients, pool.coefficients)


@pytest.mark.parametrize("data", [b"", b"not a model", b"PK\x03\x04broken"])
def test_what_is_no_model_is_refused(data):
    with pytest.raises(ValueError, match="not a forecast model"):
        ZoneModel.from_bytes(data)


def test_a_model_of_another_kind_is_refused(model):
    with pytest.raises(ValueError, match="not a forecast model"):
        PooledModel.from_bytes(model.to_bytes())
