"""A forecast is believed until it says the opposite of what comes."""

from __future__ import annotations

import numpy as np
import pytest

from carbon_sched.planning.trust import WEEK_H, WINDOW_H, agreement, believable, trusted

DAYS = np.arange(24 * 20)
WAVE = 300 + 100 * np.sin(DAYS / 24 * 2 * np.pi)
PERFECT = np.lib.stride_tricks.sliding_window_view(np.concatenate([WAVE, WAVE[:48]]), 48)[: len(DAYS)]


def test_a_perfect_forecast_agrees_and_its_mirror_image_does_not():
    mirrored = 2 * PERFECT.mean(axis=1, keepdims=True) - PERFECT
    assert agreement(PERFECT[:24], WAVE[:24]) == pytest.approx(1)
    assert agreement(mirrored[:24], WAVE[:24]) == pytest.approx(-1)


def test_scale_and_level_do_not_matter_and_noise_is_near_zero():
    noise = np.random.default_rng(0).normal(size=(24, 48))
    assert agreement(PERFECT[:24] * 3 + 1000, WAVE[:24]) == pytest.approx(1)
    assert abs(agreement(noise, WAVE[:24])) < 0.4


def test_nothing_known_is_no_reason_for_distrust():
    assert agreement(PERFECT[:3], WAVE[:3]) == 1
    assert agreement(PERFECT[:24], np.full(24, np.nan)) == 1
    assert agreement(np.full((24, 48), 7.0), WAVE[:24]) == 1


def test_a_mirrored_feed_is_caught_within_a_day_and_believed_again_after():
    feed = PERFECT.copy()
    lies = slice(240, 408)
    feed[lies] = 2 * feed[lies].mean(axis=1, keepdims=True) - feed[lies]
    believed = trusted(feed, WAVE)
    assert believed[:240].all()
    assert not believed[264:408].any()
    assert believed[408 + 48 :].all()


def test_who_expects_a_usual_day_is_believed_on_an_unusual_one():
    day = 600 - WAVE[:24]
    assert agreement(PERFECT[:24], day) == pytest.approx(-1)
    assert believable(PERFECT[:24], day, lambda: WAVE[:WEEK_H])


@pytest.mark.parametrize("known_h", [0, 24, WEEK_H])
def test_who_contradicts_the_day_and_the_days_before_it_is_not(known_h):
    mirrored = 2 * PERFECT.mean(axis=1, keepdims=True) - PERFECT
    week = WAVE[:WEEK_H].copy()
    week[: WEEK_H - known_h] = np.nan
    assert not believable(mirrored[:WINDOW_H], WAVE[:WINDOW_H], lambda: week)


def test_only_what_is_known_when_it_is_issued_counts():
    longer = WAVE.copy()
    longer[300:] = 0
    assert (trusted(PERFECT, WAVE)[:300] == trusted(PERFECT, longer)[:300]).all()
