from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from carbon_sched.forecast.calibration import HIGH, KEPT_DAYS, LOW, Errors, scale_of

KNOTS = np.array([1, 6, 24])


def stream(hours, seed=0, *, spread=1.0):
    """Errors of three knots that stay alike for hours, heavy-tailed, `[3, hours]`."""
    rng = np.random.default_rng(seed)
    raw = rng.standard_t(4, size=(3, hours + 50)) * np.asarray(spread)
    smooth = np.stack([np.convolve(row, np.ones(width), "same") for row, width in zip(raw, (1, 4, 12), strict=True)])
    return (0.02 * smooth[:, :hours]).astype(np.float32)


def follow(errors, met):
    """Feed day by day; returns the share of hours within the band that each forecast was issued with, `[3]`."""
    inside, count = np.zeros(3), 0
    for day in range(met.shape[1] // 24):
        hours = np.arange(day * 24, day * 24 + 24)
        errors = errors.plus(hours, met[:, hours], np.ones_like(met[:, hours]), KNOTS)
        if day < 40:
            continue
        count += 24
        for k, knot in enumerate(KNOTS):
            band = errors.in_force[(hours - knot) // 24 % KEPT_DAYS, k, hours % 24]
            inside[k] += ((met[k, hours] >= band[:, LOW]) & (met[k, hours] <= band[:, HIGH])).sum()
    return inside / count, errors


def test_bands_cover_four_in_five_at_every_knot():
    share, _ = follow(Errors.none(3), stream(400 * 24))
    np.testing.assert_allclose(share, 0.8, atol=0.02)


def test_bands_still_cover_when_errors_double_for_good():
    spread = np.ones(400 * 24 + 50)
    spread[200 * 24 :] = 2.0
    share, _ = follow(Errors.none(3), stream(400 * 24, spread=spread))
    np.testing.assert_allclose(share, 0.8, atol=0.02)


def test_one_in_ten_is_missed_on_either_side():
    met = np.exp(stream(400 * 24)) - 1.0 + 0.01  # skewed, biased
    _, errors = follow(Errors.none(3), met.astype(np.float32))
    last = errors.in_force[errors.day % KEPT_DAYS]
    assert (last[..., LOW] <= 0).all()
    assert (last[..., HIGH] >= 0).all()
    below = np.mean(met[0, -100 * 24 :] < np.tile(last[0, :, LOW], 100))
    above = np.mean(met[0, -100 * 24 :] > np.tile(last[0, :, HIGH], 100))
    assert 0.06 < below < 0.14
    assert 0.06 < above < 0.14


def test_in_wilder_weather_bands_are_wider_by_the_scale():
    """Errors that follow the scale: nine in ten of the missed would be in the wild half, were the band blind to it."""
    met = stream(200 * 24)
    scale = np.broadcast_to(np.where(np.arange(200 * 24) // 24 % 2 == 0, 1.0, 3.0), met.shape).astype(np.float32)
    errors, wild = Errors.none(3), np.zeros(2)
    for day in range(200):
        hours = np.arange(day * 24, day * 24 + 24)
        errors = errors.plus(hours, (met * scale)[:, hours], scale[:, hours], KNOTS)
        if day >= 60:
            wild[day % 2] += (errors.held[hours % len(errors.held)] == 0).mean() / 70
    np.testing.assert_allclose(wild, 0.2, atol=0.04)
    assert scale_of(np.array([0.09, 0.0])).tolist() == pytest.approx([0.3, 0.0316], rel=0.01)


def test_without_enough_errors_there_is_no_band():
    errors = Errors.none(3).plus(np.arange(5 * 24), stream(5 * 24), np.ones((3, 5 * 24)), KNOTS)
    assert np.isnan(errors.in_force).all()


def test_unknown_errors_change_nothing():
    _, errors = follow(Errors.none(3), stream(60 * 24))
    unknown = np.full((3, 24), np.nan, np.float32)
    after = errors.plus(np.arange(60 * 24, 61 * 24), unknown, np.ones_like(unknown), KNOTS)
    np.testing.assert_array_equal(errors.stretch, after.stretch)


def test_the_mean_is_kept_up_without_bands_and_is_the_same():
    met = stream(60 * 24)
    hours = np.arange(60 * 24)
    full = Errors.none(3).plus(hours, met, np.ones_like(met), KNOTS)
    mean_only = Errors.none(3).plus(hours, met, np.ones_like(met), KNOTS, bands=False)
    np.testing.assert_array_equal(full.in_force[..., 0], mean_only.in_force[..., 0])
    assert np.nanmin(full.in_force[..., 0]) > 0.0


def test_a_forecast_is_judged_by_the_band_it_was_issued_with():
    start = Errors.none(3)
    in_force = start.in_force.copy()
    for day, half_width in ((6, 1.0), (7, 0.001)):
        in_force[day % KEPT_DAYS, ..., LOW], in_force[day % KEPT_DAYS, ..., HIGH] = -half_width, half_width
    errors = replace(start, in_force=in_force, day=7)
    after = errors.plus(np.arange(7 * 24 + 6, 8 * 24), np.full((3, 18), 0.5, np.float32), np.ones((3, 18)), KNOTS)
    by_knot = after.stretch[:, 1]
    assert by_knot[0] > 0.0  # an hour ahead: issued today, with the narrow band, and missed
    assert by_knot[2] < 0.0  # a day ahead: issued yesterday, with the wide one
    assert (after.held[7 * 24 + 6 : 8 * 24, 0] == 0).all()
    assert (after.held[7 * 24 + 6 : 8 * 24, 2] == 1).all()
    assert np.isnan(after.held[: 7 * 24]).all()


def test_hour_by_hour_is_the_same_as_all_at_once():
    met = stream(30 * 24)
    once = Errors.none(3).plus(np.arange(30 * 24), met, np.ones_like(met), KNOTS)
    bits = Errors.none(3)
    for begin in range(0, 30 * 24, 7):
        hours = np.arange(begin, min(begin + 7, 30 * 24))
        bits = bits.plus(hours, met[:, hours], np.ones_like(met[:, hours]), KNOTS)
    np.testing.assert_array_equal(once.in_force, bits.in_force)
    np.testing.assert_allclose(once.stretch, bits.stretch)
