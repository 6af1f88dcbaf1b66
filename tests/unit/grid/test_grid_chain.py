from __future__ import annotations

import itertools
import logging
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_sched.domain.errors import GridTransient, InvalidInput
from carbon_sched.domain.intensity import Basis, Comparability, Grade, Kind, Perimeter, Ranking, Signal
from carbon_sched.grid.chain import Grid
from carbon_sched.grid.yearly import YearlyTable
from tests.fakes.grid import DIRECT, HOUR, LIFECYCLE, MARGINAL, T0, FakeSource, reading

YEARLY = YearlyTable.load()
WEEK = timedelta(days=7)
NOW = T0 + timedelta(hours=30)
HALF_HOUR = timedelta(minutes=30)


def level(zone):
    return YEARLY.reading_like(zone, NOW, NOW + HOUR, LIFECYCLE).intensity_mg_per_kwh / 1000


def values(outlook):
    return [r.intensity_mg_per_kwh / 1000 for r in outlook.readings]


def mean(readings):
    weights = [(r.end - r.start).total_seconds() for r in readings]
    return sum(r.intensity_mg_per_kwh * w for r, w in zip(readings, weights, strict=True)) / sum(weights) / 1000


def test_with_no_source_every_zone_has_its_yearly_average_by_zone_country_or_world():
    outlooks = Grid([], YEARLY).outlooks(["DE", "US-CA", "WORLD"], NOW, NOW + WEEK)
    assert [o.worst_grade for o in outlooks.values()] == [Grade.ZONE_YEAR, Grade.COUNTRY_YEAR, Grade.WORLD_YEAR]
    assert {o.readings[0].comparability for o in outlooks.values()} == {LIFECYCLE}


def test_an_outlook_is_live_then_forecast_then_long_term_and_has_no_gap():
    source = FakeSource({"DE": [500.0] * 30 + [600.0] * 24})
    outlook = Grid([source], YEARLY).outlook("DE", NOW + HALF_HOUR, NOW + WEEK)
    grades = [r.grade for r in outlook.readings]
    assert grades[0] is Grade.LIVE
    assert set(grades[1:24]) == {Grade.PROVIDER_FORECAST}
    assert outlook.readings[0].start == NOW + HALF_HOUR
    assert outlook.readings[-1].end == NOW + WEEK
    assert outlook.readings[-1].kind is Kind.FORECAST


def test_missing_never_wins_the_end_is_not_cleaner_than_what_is_known():
    dirty = FakeSource({"DE": [2 * level("DE")] * 54})
    last = Grid([dirty], YEARLY).outlook("DE", NOW, NOW + WEEK).readings[-1]
    assert last.intensity_mg_per_kwh / 1000 == pytest.approx(2 * level("DE"))
    assert last.provider == "carbon-sched"
    clean = FakeSource({"DE": [0.5 * level("DE")] * 54})
    last = Grid([clean], YEARLY).outlook("DE", NOW, NOW + WEEK).readings[-1]
    assert last.intensity_mg_per_kwh / 1000 == level("DE")
    assert last.provider == "electricity-maps-yearly"


def test_the_last_reading_is_long_term_even_when_forecasts_reach_the_end():
    source = FakeSource({"DE": [500.0] * 53 + [10.0]})
    outlook = Grid([source], YEARLY).outlook("DE", NOW, T0 + 54 * HOUR)
    assert outlook.readings[-2].intensity_mg_per_kwh == 10_000
    assert outlook.readings[-1].intensity_mg_per_kwh > 300_000
    assert outlook.readings[-1].start == T0 + 54 * HOUR


def test_a_failing_source_is_noted_and_the_next_one_answers():
    broken, second = FakeSource({"DE": [1.0]}), FakeSource({"DE": [500.0] * 54}, provider="second")
    broken.error = GridTransient("first: no answer")
    comparison = Grid([broken, second], YEARLY).compare(["DE"], NOW, NOW + WEEK)
    assert comparison.outlooks["DE"].readings[0].provider == "second"
    assert comparison.notes == ("DE: first: no answer",)


def test_a_level_that_looks_like_another_unit_is_noted_once_in_the_log(caplog):
    caplog.set_level(logging.INFO)
    pounds = FakeSource({"DE": [2.2046 * level("DE")] * 54})
    grid = Grid([pounds], YEARLY)
    for _ in range(2):
        assert "2.2 times the zone's yearly average" in grid.compare(["DE"], NOW, NOW + HOUR).notes[0]
    assert len([r for r in caplog.records if "is its unit" in r.message]) == 1
    assert Grid([FakeSource({"DE": [1.5 * level("DE")] * 54})], YEARLY).compare(["DE"], NOW, NOW + HOUR).notes == ()


def test_a_bug_in_a_source_is_not_hidden():
    broken = FakeSource({"DE": [1.0]})
    broken.error = KeyError("bug")
    with pytest.raises(KeyError):
        Grid([broken], YEARLY).outlook("DE", NOW, NOW + WEEK)


def test_measured_by_the_second_source_beats_forecast_by_the_first():
    first = FakeSource({"DE": [500.0] * 10}, start=NOW + HOUR, provider="first")
    second = FakeSource({"DE": [400.0] * 60}, provider="second")
    outlook = Grid([first, second], YEARLY).outlook("DE", NOW, NOW + 5 * HOUR)
    assert [r.provider for r in outlook.readings[:3]] == ["second", "first", "first"]


def test_our_own_forecast_stands_between_what_is_known_and_the_long_term():
    seen = []

    def forecaster(zone, known, now, until):
        seen.append((zone, known[0].start, known[-1].end, now, until))
        own = reading(zone, known[-1].end, known[-1].end + 24 * HOUR, 123, now=now)
        return [replace(own, kind=Kind.FORECAST, grade=Grade.OWN_FORECAST, provider="own")]

    lagging = FakeSource({"DE": [500.0] * 26})
    outlook = Grid([lagging], YEARLY, forecaster=forecaster).outlook("DE", NOW, NOW + WEEK)
    assert seen == [("DE", T0, T0 + 26 * HOUR, NOW, NOW + WEEK)]
    assert [r.provider for r in outlook.readings] == ["own", "carbon-sched"]
    assert outlook.readings[0].end == T0 + 50 * HOUR


# comparison sets ---------------------------------------------------------------------------------


def test_a_national_source_refines_the_hours_of_the_common_one_and_never_ranks():
    common = FakeSource({"GB": [200.0] * 42, "FR": [50.0] * 42}, provider="common")
    shape = [80.0, 120.0] * 78
    national = FakeSource({"GB": shape}, step=HALF_HOUR, like=DIRECT, provider="national")
    comparison = Grid([common, national], YEARLY).compare(["GB", "FR"], NOW, NOW + 2 * WEEK)
    gb, fr = comparison.outlooks["GB"], comparison.outlooks["FR"]
    assert {r.comparability for o in (gb, fr) for r in o.readings} == {LIFECYCLE}
    assert values(gb)[:4] == [160.0, 240.0, 160.0, 240.0], "the common level, the national shape"
    beyond = [r for r in gb.readings if T0 + 42 * HOUR <= r.start < T0 + 78 * HOUR]
    assert [r.intensity_mg_per_kwh for r in beyond[:2]] == [160_000, 240_000], "longer, at the common level"
    assert "at the level of common (x2.000)" in beyond[0].model_version
    assert not any(r.kind is Kind.MEASURED for r in gb.readings)
    assert mean(gb.readings[:24]) == pytest.approx(200.0)
    assert any("national publishes average/direct/consumption" in note for note in comparison.notes)


def test_one_provider_that_covers_all_leads_even_when_another_is_preferred():
    best = FakeSource({"DE": [300.0] * 60}, provider="best")
    common = FakeSource({"DE": [400.0] * 60, "FR": [60.0] * 60}, provider="common")
    grid = Grid([best, common], YEARLY)
    assert grid.outlook("DE", NOW, NOW + HOUR).readings[0].provider == "best"
    both = grid.outlooks(["DE", "FR"], NOW, NOW + HOUR)
    assert {o.readings[0].provider for o in both.values()} == {"common"}


def test_without_a_common_provider_a_differently_counted_zone_is_brought_to_its_yearly_level():
    home = FakeSource({"DE": [300.0] * 60}, provider="home")
    national = FakeSource({"GB": [80.0, 120.0] * 30}, like=DIRECT, provider="national")
    comparison = Grid([home, national], YEARLY).compare(["DE", "GB"], NOW, NOW + 20 * HOUR)
    gb = comparison.outlooks["GB"].readings
    assert mean(gb[:20]) == pytest.approx(level("GB"), rel=0.01)
    assert gb[0].grade is Grade.OWN_FORECAST
    assert "at the level of electricity-maps-yearly" in gb[0].model_version
    assert gb[0].comparability == LIFECYCLE


def test_too_little_of_a_differently_counted_zone_is_not_used_and_a_note_says_so():
    national = FakeSource({"GB": [80.0] * 5}, start=NOW, like=DIRECT, provider="national")
    comparison = Grid([national], YEARLY).compare(["GB"], NOW, NOW + 20 * HOUR)
    assert values(comparison.outlooks["GB"]) == [level("GB")] * len(comparison.outlooks["GB"].readings)
    assert "too little" in comparison.notes[0]


def test_marginal_may_steer_when_every_zone_has_it():
    average = FakeSource({"DE": [300.0] * 60, "FR": [50.0] * 60})
    marginal = FakeSource({"DE": [700.0] * 60, "FR": [600.0] * 60}, like=MARGINAL, provider="moer")
    grid = Grid([average, marginal], YEARLY)
    comparison = grid.compare(["DE", "FR"], NOW, NOW + HOUR, Ranking(Signal.MARGINAL))
    assert comparison.like == MARGINAL
    assert values(comparison.outlooks["FR"])[0] == 600.0
    assert values(grid.outlook("FR", NOW, NOW + HOUR))[0] == 50.0
    outlooks, said = grid.ranked(["DE", "FR"], NOW, NOW + HOUR, Ranking(Signal.MARGINAL, Basis.DIRECT))
    assert values(outlooks["DE"])[0] == 700.0
    assert said == "ranked by marginal intensity (direct), booked by average"


def test_marginal_for_some_zones_only_falls_back_to_average_and_says_so():
    average = FakeSource({"DE": [300.0] * 60, "FR": [50.0] * 60})
    marginal = FakeSource({"DE": [700.0] * 60}, like=MARGINAL)
    comparison = Grid([average, marginal], YEARLY).compare(["DE", "FR"], NOW, NOW + HOUR, Ranking(Signal.MARGINAL))
    assert comparison.like == LIFECYCLE
    assert "there is none for FR" in comparison.notes[0]


def test_the_basis_that_is_asked_for_steers_or_is_said_to_be_missing():
    average = FakeSource({"DE": [300.0] * 60, "FR": [50.0] * 60})
    direct = FakeSource({"DE": [280.0] * 60, "FR": [9.0] * 60}, like=DIRECT, provider="stack")
    moer = FakeSource({"DE": [700.0] * 60, "FR": [600.0] * 60}, like=MARGINAL)
    grid = Grid([average, direct, moer], YEARLY)
    outlooks, said = grid.ranked(["DE", "FR"], NOW, NOW + HOUR, Ranking(Signal.AVERAGE, Basis.DIRECT))
    assert (values(outlooks["FR"])[0], said) == (9.0, "ranked by average intensity (direct), booked by average")
    outlooks, said = grid.ranked(["DE", "FR"], NOW, NOW + HOUR, Ranking(Signal.MARGINAL, Basis.LIFECYCLE))
    assert not outlooks
    assert said.startswith("not ranked by lifecycle marginal intensity, since there is none for DE, FR")


def test_marginal_is_never_booked():
    marginal = FakeSource({"DE": [700.0] * 60}, like=MARGINAL)
    booked = Grid([marginal], YEARLY).actual("DE", T0, NOW, NOW)
    assert {r.provider for r in booked} == {"electricity-maps-yearly"}


def test_a_house_without_yearly_averages_is_refused():
    for like in (DIRECT, MARGINAL):
        with pytest.raises(InvalidInput, match="no yearly averages"):
            Grid([], YEARLY, like=like)
    generation = Comparability(Signal.AVERAGE, Basis.LIFECYCLE, Perimeter.GENERATION)
    assert Grid([], YEARLY, like=generation).outlook("DE", NOW, NOW + HOUR).readings[0].comparability == generation


# booking -----------------------------------------------------------------------------------------


def test_booking_tiles_the_period_from_measured_values():
    source = FakeSource({"DE": [float(300 + h) for h in range(60)]})
    start, end = T0 + timedelta(minutes=90), T0 + timedelta(minutes=200)
    booked = Grid([source], YEARLY).actual("DE", start, end, NOW)
    assert [r.intensity_mg_per_kwh for r in booked] == [301_000, 302_000, 303_000]
    assert (booked[0].start, booked[-1].end) == (start, end)
    assert {r.kind for r in booked} == {Kind.MEASURED}


def test_a_hole_in_the_past_is_booked_with_the_yearly_average_and_its_grade():
    source = FakeSource({"DE": [300.0] * 26})
    booked = Grid([source], YEARLY).actual("DE", T0 + 25 * HOUR, NOW, NOW)
    assert [(r.grade, r.intensity_mg_per_kwh / 1000) for r in booked] == [
        (Grade.LIVE, 300.0),
        (Grade.ZONE_YEAR, level("DE")),
    ]


def test_a_lag_in_the_data_is_booked_with_our_own_forecast():
    def forecaster(zone, known, now, until):
        own = reading(zone, known[-1].end, until, 123, now=now)
        return [replace(own, kind=Kind.FORECAST, grade=Grade.OWN_FORECAST, provider="own")]

    source = FakeSource({"DE": [300.0] * 26})
    booked = Grid([source], YEARLY, forecaster=forecaster).actual("DE", NOW - 2 * HOUR, NOW, NOW)
    assert [(r.provider, r.start, r.end) for r in booked] == [("own", NOW - 2 * HOUR, NOW)]


def test_nothing_is_booked_for_an_empty_period():
    assert Grid([], YEARLY).actual("DE", NOW, NOW, NOW) == []


def test_direct_values_are_given_apart_and_only_where_published():
    both = [FakeSource({"DE": [300.0] * 60}), FakeSource({"DE": [200.0] * 20}, like=DIRECT, provider="direct")]
    found = Grid(both, YEARLY).direct("DE", T0 + 18 * HOUR, T0 + 24 * HOUR, NOW)
    assert [r.intensity_mg_per_kwh for r in found] == [200_000, 200_000]


@settings(max_examples=40, deadline=None)
@given(
    known=st.lists(st.floats(1, 2000), min_size=0, max_size=80),
    offset=st.integers(-60, 60),
    step=st.sampled_from([5, 15, 60, 97]),
    hours=st.integers(1, 200),
    national=st.lists(st.floats(0, 2000), min_size=0, max_size=80),
)
def test_every_outlook_and_every_booking_tiles_its_period(known, offset, step, hours, national):
    first = FakeSource({"GB": known}, start=NOW + offset * HOUR, step=timedelta(minutes=step))
    second = FakeSource({"GB": national}, start=NOW - 30 * HOUR, like=DIRECT, provider="n")
    grid = Grid([first, second], YEARLY)
    outlook = grid.outlook("GB", NOW, NOW + hours * HOUR)
    assert outlook.readings[0].start == NOW
    assert outlook.readings[-1].end >= NOW + hours * HOUR
    assert {r.comparability for r in outlook.readings} == {LIFECYCLE}
    booked = grid.actual("GB", NOW - hours * HOUR, NOW, NOW)
    assert (booked[0].start, booked[-1].end) == (NOW - hours * HOUR, NOW)
    assert all(a.end == b.start for a, b in itertools.pairwise(booked))
    assert {r.comparability for r in booked} == {LIFECYCLE}
