from __future__ import annotations

from datetime import datetime, timezone
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_sched.cli import figures


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01374, "0.0137"), (1.0, "1.00"), (13.74, "13.7"), (137.4, "137"), (13742.0, "13742"), (-2.5, "-2.50"),
     (float("nan"), "?"), (float("inf"), "?")],
)  # fmt: skip
def test_three_digits(value, text):
    assert figures.digits(value) == text


@given(st.floats(1e-9, 1e9))
def test_digits_are_never_further_off_than_half_a_percent(value):
    assert float(figures.digits(value)) == pytest.approx(value, rel=5.1e-3)


def test_units_fit():
    assert [figures.grams(g) for g in (None, 0, 0.0264, 1.0, 1500, 2.5e6)] == [
        "unknown", "0 g", "26.4 mg", "1.00 g", "1.50 kg", "2.50 t",
    ]  # fmt: skip
    assert [figures.kwh(kwh) for kwh in (0.0000031, 0.2, 1.25, 4200)] == ["3.10 mWh", "200 Wh", "1.25 kWh", "4.20 MWh"]
    assert figures.grams(-6.4) == "-6.40 g", "a loss is a loss"


def test_a_column_has_the_unit_of_its_largest_value():
    assert figures.fitting([0.002, 3.0, None], figures.MASS) == (1.0, "g")
    assert figures.fitting([None], figures.ENERGY) == (1e-3, "Wh")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "unknown"), (0, "0 s"), (0.25, "0.2 s"), (25, "25 s"), (59.6, "1 min"), (90, "1 min 30 s"),
     (7800, "2 h 10 min"),     (7200, "2 h"), (273_600, "3 d 4 h")],
)  # fmt: skip
def test_durations(seconds, text):
    assert figures.duration(seconds) == text


def test_moments_are_local_and_dated_where_it_matters():
    berlin, now = ZoneInfo("Europe/Berlin"), datetime(2026, 11, 23, 18, tzinfo=timezone.utc)
    assert figures.moment("2026-11-23T19:30:00Z", berlin, now) == "20:30:00"
    assert figures.moment("2026-11-23T23:30:00Z", berlin, now) == "Nov 24 00:30"
    assert figures.moment(None, berlin, now) == "-"
    assert figures.clock("2026-11-23T19:30:00Z", berlin, now) == "20:30:00 CET"


def test_shares_are_not_rounded_to_nothing_or_everything():
    assert [figures.percent(share) for share in (0, 0.001, 0.37, 0.999, 1)] == [
        "0 %",
        "< 1 %",
        "37 %",
        "> 99 %",
        "100 %",
    ]
