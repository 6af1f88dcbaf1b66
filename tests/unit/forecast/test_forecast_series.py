from __future__ import annotations

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from carbon_sched.forecast.series import HourlySeries, filled, hour_of

START = datetime(2026, 3, 1, tzinfo=timezone.utc)
HOUR = timedelta(hours=1)


def test_hours_are_counted_from_1970_in_utc():
    assert hour_of(datetime(1970, 1, 2, 1, 59, tzinfo=timezone(timedelta(hours=1)))) == 24


def test_a_series_begins_on_a_whole_hour():
    with pytest.raises(ValueError, match="whole hour"):
        HourlySeries(START + timedelta(minutes=30), np.ones(3))


def test_what_is_no_intensity_is_unknown():
    series = HourlySeries(START, np.array([1.0, -2.0, np.inf, 4.0]))
    np.testing.assert_array_equal(np.isnan(series.values), [False, True, True, False])


def test_until_gives_only_hours_that_have_ended():
    series = HourlySeries(START, np.arange(5.0))
    assert len(series.until(START + 2 * HOUR).values) == 2
    assert len(series.until(START + 2.9 * HOUR).values) == 2
    assert len(series.until(START - HOUR).values) == 0
    assert len(series.until(START + 99 * HOUR).values) == 5


def test_trimmed_leaves_inner_gaps():
    series = HourlySeries(START, np.array([np.nan, 1.0, np.nan, 3.0, np.nan])).trimmed()
    assert series.start == START + HOUR
    np.testing.assert_array_equal(series.values, [1.0, np.nan, 3.0])
    assert series.end == START + 4 * HOUR


def test_pieces_are_averaged_into_hours_by_overlap():
    quarter = timedelta(minutes=15)
    pieces = [(START + i * quarter, START + (i + 1) * quarter, float(i)) for i in range(4)]
    pieces.append((START + HOUR, START + 3 * HOUR, 10.0))
    series = HourlySeries.from_intervals(reversed(pieces))
    np.testing.assert_allclose(series.values, [1.5, 10.0, 10.0])


def test_an_hour_known_for_less_than_half_is_unknown():
    pieces = [(START, START + HOUR, 5.0), (START + HOUR, START + 1.4 * HOUR, 7.0)]
    np.testing.assert_array_equal(HourlySeries.from_intervals(pieces).values, [5.0, np.nan])


def test_pieces_that_begin_within_an_hour_keep_their_place():
    half = timedelta(minutes=30)
    series = HourlySeries.from_intervals([(START + half, START + 3 * half, 4.0)])
    assert series.start == START
    np.testing.assert_allclose(series.values, [4.0, 4.0])


def test_no_pieces_make_no_series():
    with pytest.raises(ValueError, match="no readings"):
        HourlySeries.from_intervals([])


def test_gaps_are_filled_from_the_day_before_shifted_by_the_present_departure():
    values = np.tile(np.arange(24.0) + 10, 3)
    values[24:48] += 6.0
    values[40:42] = np.nan
    out = filled(values)
    # Six above the day before when the gap begins, and halving every 12 hours.
    assert out[40] == pytest.approx(values[16] + 6.0 * 0.5 ** (1 / 12))
    assert out[41] == pytest.approx(values[17] + 6.0 * 0.5 ** (2 / 12))


@pytest.mark.parametrize("gap", [slice(5, 9), slice(30, 60), slice(70, 72)])
def test_filling_looks_only_backwards(gap):
    values = np.linspace(100.0, 200.0, 72)
    values[gap] = np.nan
    other = values.copy()
    other[gap.stop :] = 7.0
    np.testing.assert_array_equal(filled(values)[: gap.stop], filled(other)[: gap.stop])
    assert np.isfinite(filled(values)).all()
