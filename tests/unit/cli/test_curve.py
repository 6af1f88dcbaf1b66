"""The drawn curve: what stands where, whatever the readings."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_sched.cli.curve import AXIS, BAND, LINE, curve, stretch
from carbon_sched.domain.time import UTC, to_rfc3339

T0 = datetime(2026, 11, 23, 18, tzinfo=UTC)
HOUR = timedelta(hours=1)


def views(values, step=HOUR, band=0.0, start=T0):
    readings = [
        {
            "start": to_rfc3339(start + i * step), "end": to_rfc3339(start + (i + 1) * step), "g_per_kwh": value,
            "low_g_per_kwh": value - band if band else None, "high_g_per_kwh": value + band if band else None,
        }
        for i, value in enumerate(values)
    ]  # fmt: skip
    return [stretch(reading) for reading in readings]


def test_the_line_rises_from_left_to_right():
    lines = curve(views([100, 200, 300, 400, 500, 600, 700, 800]), UTC, AXIS + 8, 8)
    assert [line[AXIS:].find(LINE) for line in lines[:8]] == [7, 6, 5, 4, 3, 2, 1, 0]
    assert (lines[0][:AXIS], lines[7][:AXIS]) == ("  800 ", "  100 ")


def test_the_band_lies_around_the_line():
    lines = curve(views([300] * 4, band=100), UTC, AXIS + 4, 5)
    assert [line[AXIS:] for line in lines[:5]] == [BAND * 4, BAND * 4, LINE * 4, BAND * 4, BAND * 4]


def test_times_stand_under_their_columns():
    lines = curve(views(range(100, 148)), UTC, AXIS + 48)
    marks = lines[-1]
    assert marks[AXIS + 6 :].startswith("Nov 24"), "18:00 and six hours, one column each"
    assert marks[AXIS + 18 :].startswith("12:00")
    berlin = curve(views(range(100, 148)), ZoneInfo("Europe/Berlin"), AXIS + 48)[-1]
    assert berlin[AXIS + 5 :].startswith("Nov 24")


def test_short_and_long_readings_are_weighted_by_their_time():
    mixed = [*views([100] * 4, timedelta(minutes=15)), *views([500], start=T0 + HOUR)]
    lines = curve(mixed, UTC, AXIS + 1, 3)
    assert lines[2] == f"  300 {LINE}"


@settings(max_examples=30, deadline=None)
@given(
    values=st.lists(st.floats(0, 2500), min_size=1, max_size=200),
    minutes=st.sampled_from([5, 15, 30, 60, 1440]),
    band=st.sampled_from([0.0, 40.0]),
    width=st.integers(20, 80),
    offset=st.integers(-12, 14),
)
def test_every_curve_fits_and_every_column_has_its_mark(values, minutes, band, width, offset):
    lines = curve(views(values, timedelta(minutes=minutes), band), timezone(timedelta(hours=offset)), width)
    assert max(map(len, lines)) <= width
    drawing = [line.ljust(width)[AXIS:] for line in lines[:8]]
    for column in range(width - AXIS):
        assert [row[column] for row in drawing].count(LINE) == 1


def test_the_night_when_clocks_change_is_drawn():
    start = datetime(2026, 10, 24, 18, tzinfo=UTC)
    lines = curve(views(range(48), start=start), ZoneInfo("Europe/Berlin"), AXIS + 48)
    assert "Oct 25" in lines[-1]
    assert "Oct 26" in lines[-1]


@pytest.mark.parametrize("values", [[0.0], [250.0] * 3, [0.1 + 0.2, 0.3]])
def test_a_flat_curve_is_a_line(values):
    assert [line.count(LINE) for line in curve(views(values), UTC, 40) if LINE in line] == [34]
