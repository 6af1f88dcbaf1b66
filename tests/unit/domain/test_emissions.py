from datetime import datetime, timedelta, timezone
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carbon_sched.domain.emissions import apportion, co2e_ug, split_at_readings
from carbon_sched.domain.intensity import Basis, Grade, Kind, Perimeter, Reading, Signal

T0 = datetime(2026, 3, 1, tzinfo=timezone.utc)


def reading(start_s: float, end_s: float, mg: int = 300_000) -> Reading:
    return Reading(
        zone="DE", start=T0 + timedelta(seconds=start_s), end=T0 + timedelta(seconds=end_s), intensity_mg_per_kwh=mg,
        signal=Signal.AVERAGE, basis=Basis.LIFECYCLE, perimeter=Perimeter.CONSUMPTION, kind=Kind.MEASURED,
        grade=Grade.LIVE, provider="test", issued_at=T0, fetched_at=T0,
    )  # fmt: skip


def at(seconds: float) -> datetime:
    return T0 + timedelta(seconds=seconds)


@given(st.integers(0, 10**18), st.lists(st.integers(0, 10**15), min_size=1, max_size=20).filter(any))
def test_apportioned_parts_sum_to_the_whole_and_are_within_one_of_their_share(total, weights):
    parts = apportion(total, weights)
    assert sum(parts) == total
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part - Fraction(total * weight, sum(weights))) < 1


def test_nothing_is_given_to_nobody():
    with pytest.raises(ValueError, match="apportion"):
        apportion(5, [0, 0])


def test_a_kilowatt_hour_at_300_g_and_pue_1_2_is_360_g():
    assert co2e_ug(3_600_000_000_000, 1_200_000, 300_000) == 360_000_000


@given(st.integers(0, 10**17), st.integers(10**6, 5 * 10**6), st.integers(0, 2_500_000))
def test_emissions_are_the_exact_product_rounded_half_up(energy, pue, intensity):
    exact = Fraction(energy, 3_600_000_000_000) * Fraction(pue, 10**6) * Fraction(intensity, 1000) * 10**6
    assert abs(co2e_ug(energy, pue, intensity) - exact) <= Fraction(1, 2)


def test_energy_follows_time_across_an_hour_border():
    pieces = split_at_readings(at(3000), at(4200), 1200, [reading(0, 3600), reading(3600, 7200, 100_000)])
    assert [(p.energy_uj, p.reading.intensity_mg_per_kwh) for p in pieces] == [(600, 300_000), (600, 100_000)]


def test_time_without_a_reading_is_a_piece_without_one():
    pieces = split_at_readings(at(0), at(100), 1000, [reading(20, 50), reading(70, 100)])
    assert [(p.energy_uj, p.reading is None) for p in pieces] == [(200, True), (300, False), (200, True), (300, False)]


@given(
    st.integers(0, 10**15),
    st.lists(st.integers(1, 5000), max_size=12),
    st.integers(0, 3000),
    st.integers(1, 20_000),
)
def test_pieces_conserve_energy_and_tile_the_span(energy, lengths, start, length):
    readings, edge = [], 0
    for index, step in enumerate(lengths):
        if index % 3 != 2:
            readings.append(reading(edge, edge + step))
        edge += step
    pieces = split_at_readings(at(start), at(start + length), energy, readings)
    assert sum(p.energy_uj for p in pieces) == energy
    assert pieces[0].start == at(start)
    assert pieces[-1].end == at(start + length)
    assert all(a.end == b.start for a, b in pairwise(pieces))
