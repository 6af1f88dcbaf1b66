"""Our own forecast in the grid's chain: shape, grade, what it may know, and what asking costs."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise

import numpy as np
import pytest

from carbon_sched.domain.intensity import Basis, Grade, Kind
from carbon_sched.grid.chain import Grid
from carbon_sched.grid.yearly import YearlyTable
from carbon_sched.service import forecasts
from carbon_sched.service.forecasts import OwnForecasts
from tests.fakes.clock import StoppedClock
from tests.fakes.grid import HOUR, T0, FakeSource, reading
from tests.fakes.weather import intensity

DAY = timedelta(days=1)
YEARLY = YearlyTable.load()


def daily(hour: int) -> float:
    """At its lowest at noon UTC."""
    return 300 + 100 * math.cos(2 * math.pi * hour / 24)


class Lagging(FakeSource):
    """Says only what has ended by `now - lag`: nothing of the future."""

    def __init__(self, values, start, lag=timedelta(0)):
        super().__init__({"DE": values}, start)
        self.lag = lag

    def readings(self, zone, start, end, now):
        return [r for r in super().readings(zone, start, end, now) if r.end <= now - self.lag]


def history(days: int, then=daily) -> list[float]:
    return [daily(h % 24) for h in range(24 * days)] + [then(h % 24) for h in range(24 * 14)]


def outlook(values, days, own=None, lag=timedelta(0), now=None, ahead=7 * DAY):
    now = now or T0 + days * DAY
    grid = Grid([Lagging(values, T0, lag)], YEARLY, forecaster=own or OwnForecasts(StoppedClock(now)))
    return grid.outlook("DE", now, now + ahead)


def test_three_days_of_history_make_a_forecast_of_grade_c_with_a_band():
    found = outlook(history(3), 3)
    ours = [r for r in found.readings if r.grade is Grade.OWN_FORECAST]
    assert ours[0].start == T0 + 3 * DAY
    assert ours[-1].end >= T0 + 10 * DAY
    assert {(r.provider, r.kind) for r in ours} == {("carbon-sched", Kind.FORECAST)}
    assert ours[0].model_version == "damped profile on fake"
    assert all(r.low_mg_per_kwh <= r.intensity_mg_per_kwh <= r.high_mg_per_kwh for r in ours)
    first_day = ours[:24]
    assert min(first_day, key=lambda r: r.intensity_mg_per_kwh).start.hour == 12
    assert first_day[12].intensity_mg_per_kwh == pytest.approx(200_000, rel=0.02)


def test_a_departure_decays_to_the_climatology():
    """The last day lies 60 g above the others: the forecast begins above the profile and returns to it."""
    values = history(3)
    values[48:72] = [value + 60 for value in values[48:72]]
    ours = outlook(values, 3).readings
    profile = sum(values[:72]) / 72 * 1000
    means = [sum(r.intensity_mg_per_kwh for r in ours[24 * d : 24 * d + 24]) / 24 for d in range(7)]
    above = [mean - profile for mean in means]
    assert above[0] > 15_000
    assert all(later < earlier for earlier, later in pairwise(above))
    assert above[6] < 0.1 * above[0] + 500


def test_less_than_two_days_are_no_forecast():
    assert {r.model_version for r in outlook(history(1), 1).readings} != {"damped profile on fake"}
    assert OwnForecasts(StoppedClock(T0))("DE", [reading("DE", T0, T0 + HOUR, 300)], T0 + HOUR, T0 + DAY) == []


def test_the_future_changes_nothing():
    """Whatever comes after now: before a fit, after one, and a day later when the model is fitted anew."""
    worlds = [(history(12), OwnForecasts(StoppedClock(T0 + 12 * DAY)))]
    worlds.append((history(12, then=lambda _: 900.0), OwnForecasts(StoppedClock(T0 + 12 * DAY))))
    plain = [outlook(values, 12, own) for values, own in worlds]
    for _, own in worlds:
        own.step()
    fitted = [outlook(values, 12, own) for values, own in worlds]
    assert plain[0] == plain[1]
    assert fitted[0] == fitted[1]


def test_a_model_is_not_used_for_a_moment_before_it_was_fitted():
    now = T0 + 26 * DAY
    own, values = OwnForecasts(StoppedClock(now)), history(26)
    outlook(values, 26, own)
    own.step()
    assert outlook(values, 26, own).readings[0].model_version == "ridge on fake"
    before = outlook(values, 26, own, now=now - 3 * HOUR)
    fresh = outlook(values, 26, OwnForecasts(StoppedClock(now)), now=now - 3 * HOUR)
    assert before.readings[0].model_version == "damped profile on fake"
    assert before == fresh


def test_models_are_fitted_once_a_day_and_never_by_asking(monkeypatch):
    fits = []
    fit = forecasts.fit_zones
    monkeypatch.setattr(forecasts, "fit_zones", lambda *a: fits.append(a) or fit(*a))
    now = T0 + 9 * DAY
    clock, values = StoppedClock(now), history(9)
    own = OwnForecasts(clock)
    for _ in range(3):
        outlook(values, 9, own)
    assert fits == []
    for _ in range(3):
        own.step()
        outlook(values, 9, own)
    assert len(fits) == 1
    clock.pass_s(23 * 3600)
    outlook(values, 9, own, now=clock.now())
    own.step()
    assert len(fits) == 1
    clock.pass_s(3600)
    outlook(values, 9, own, now=clock.now())
    own.step()
    assert len(fits) == 2


def test_forecasts_of_a_provider_are_gone_on_from_but_not_learnt(monkeypatch):
    learnt = []
    fit = forecasts.fit_zones
    monkeypatch.setattr(forecasts, "fit_zones", lambda h, *a: learnt.append(h) or fit(h, *a))
    now, values = T0 + 9 * DAY, history(9)
    own = OwnForecasts(StoppedClock(now))
    known = FakeSource({"DE": values}).readings("DE", T0, now + DAY, now)
    known = [r if r.start < now else replace(r, kind=Kind.FORECAST) for r in known]
    found = own("DE", known, now, now + 3 * DAY)
    assert found[0].start == now + DAY
    own.step()
    assert [series.end for series in learnt[0].values()] == [now]
    stale = [r if r.end <= now - DAY else replace(r, kind=Kind.FORECAST) for r in known]
    own("FR", stale, now, now + 3 * DAY)
    own.step()
    assert learnt[1]["FR"].end == now - DAY, "a forecast that nobody confirmed"


def readings_of(values, start, now, **more):
    """Hourly readings of what had come true by `now`."""
    every = enumerate(values[: int((now - start) / HOUR)])
    return [reading("DE", start + h * HOUR, start + (h + 1) * HOUR, value, now=now, **more) for h, value in every]


def test_what_is_known_from_further_back_is_learnt_too(monkeypatch):
    """Asked with four weeks, fitted to twelve: the archive's, which an answer then goes back to as well."""
    learnt = []
    fit = forecasts.fit_zones
    monkeypatch.setattr(forecasts, "fit_zones", lambda h, *a: learnt.append(h["DE"]) or fit(h, *a))
    now = T0 + 84 * DAY
    values = intensity(91 * 24)
    every = readings_of(values, T0, now)
    foreign = [replace(r, basis=Basis.DIRECT, intensity_mg_per_kwh=1) for r in every]
    own = OwnForecasts(
        StoppedClock(now), lambda _, a, b: [r for r in [*foreign, *every] if a <= r.start and r.end <= b]
    )
    short = OwnForecasts(StoppedClock(now))
    recent = [r for r in every if r.start >= now - 28 * DAY]
    for one in (own, short):
        one("DE", recent, now, now + DAY)
        one.step()
    assert [len(series.values) for series in learnt] == [84 * 24, 28 * 24]
    assert learnt[0].values.min() > 1
    assert own.record("DE", recent[0].comparability).issues == 28 * 24
    errors = []
    for one in (own, short):
        made = [r.intensity_mg_per_kwh / 1000 for r in one("DE", recent, now, now + 2 * DAY)]
        errors.append(np.abs(made - values[84 * 24 : 86 * 24]).mean())
    assert errors[0] < errors[1]


def test_zones_that_are_counted_alike_are_fitted_together(monkeypatch):
    fits = []
    fit = forecasts.fit_zones
    monkeypatch.setattr(forecasts, "fit_zones", lambda h, *a: fits.append(set(h)) or fit(h, *a))
    now = T0 + 20 * DAY
    own = OwnForecasts(StoppedClock(now))
    known = readings_of(history(20), T0, now)
    for zone in ("DE", "FR"):
        own(zone, [replace(r, zone=zone) for r in known], now, now + DAY)
    own("GB", [replace(r, zone="GB", basis=Basis.DIRECT) for r in known], now, now + DAY)
    assert own.step() == 0.0
    assert own.step() > 0.0
    assert fits == [{"DE", "FR"}, {"GB"}]


def test_a_history_that_grows_backwards_is_learnt_at_once():
    """A provider answers newest first: two days are there first, the month behind them a moment later."""
    now = T0 + 28 * DAY
    own = OwnForecasts(StoppedClock(now))
    known = readings_of(intensity(28 * 24), T0, now)
    own("DE", known[-48:], now, now + DAY)
    own.step()
    assert own("DE", known[-48:], now, now + DAY)[0].model_version == "damped profile on fake"
    own("DE", known, now, now + DAY)
    own.step()
    assert own("DE", known, now, now + DAY)[0].model_version == "ridge on fake"


def test_a_zone_that_nobody_asks_for_is_no_longer_learnt(monkeypatch):
    fits = []
    fit = forecasts.fit_zones
    monkeypatch.setattr(forecasts, "fit_zones", lambda h, *a: fits.append(set(h)) or fit(h, *a))
    clock = StoppedClock(T0 + 9 * DAY)
    own = OwnForecasts(clock)
    for zone in ("DE", "FR"):
        own(zone, readings_of(history(9), T0, clock.now()), clock.now(), clock.now() + DAY)
    own.step()
    clock.pass_s(3 * 86400)
    own("DE", readings_of(history(12), T0, clock.now()), clock.now(), clock.now() + DAY)
    own.step()
    assert fits == [{"DE", "FR"}, {"DE"}]


@pytest.fixture(scope="module")
def promised():
    """Four days in which a provider's forecast was seen every hour, and the moment after our next fit."""
    values = intensity(90 * 24)
    said = values * np.exp(np.random.default_rng(7).normal(0.0, 0.1, len(values)))
    clock = StoppedClock(T0 + 80 * DAY)
    own = OwnForecasts(clock)

    def known():
        now = clock.now()
        at = int((now - T0) / HOUR)
        ahead = [reading("DE", now + h * HOUR, now + (h + 1) * HOUR, said[at + h]) for h in range(48)]
        return [*readings_of(values, T0, now), *ahead], values[at : at + 48]

    for hour in range(4 * 24 + 1):
        own("DE", known()[0], clock.now(), clock.now() + 3 * DAY)
        if hour % 24 == 0:
            own.step()
        clock.pass_s(3600)
    return own, *known(), clock.now()


def test_a_providers_forecast_is_blended_with_ours_once_it_can_be_judged(promised):
    own, known, truth, now = promised
    found = own("DE", known, now, now + 3 * DAY)
    theirs = np.array([r.intensity_mg_per_kwh for r in known if r.kind is Kind.FORECAST]) / 1000
    blend = [r for r in found if r.grade is Grade.PROVIDER_FORECAST]
    ours = [r for r in found if r.grade is Grade.OWN_FORECAST]
    assert [(r.start, r.end) for r in blend] == [(r.start, r.end) for r in known if r.kind is Kind.FORECAST]
    assert ours[0].start == blend[-1].end
    assert {r.provider for r in blend} == {"fake"}
    assert re.fullmatch(r"blended with \d+% carbon-sched", blend[0].model_version)
    assert all(r.low_mg_per_kwh <= r.intensity_mg_per_kwh <= r.high_mg_per_kwh for r in blend)
    values = np.array([r.intensity_mg_per_kwh for r in blend]) / 1000
    assert np.abs(values - truth).mean() < np.abs(theirs - truth).mean()


def test_the_chain_takes_the_blend_in_place_of_the_forecast(promised):
    own, known, _, now = promised
    source = FakeSource({}, T0)
    source.zones = lambda: frozenset(["DE"])
    source.readings = lambda zone, start, end, at: [r for r in known if r.end > start and r.start < end]
    found = Grid([source], YEARLY, forecaster=own).outlook("DE", now, now + DAY).readings
    assert {(r.grade, r.provider) for r in found if r.end <= now + DAY} == {(Grade.PROVIDER_FORECAST, "fake")}
    assert all("blended" in r.model_version for r in found if r.end <= now + DAY)


def test_a_day_old_feed_is_forecast_from_its_end():
    found = outlook(history(5), 5, lag=DAY).readings
    assert found[0].start == T0 + 5 * DAY
    assert found[0].grade is Grade.OWN_FORECAST
    assert min(found[:24], key=lambda r: r.intensity_mg_per_kwh).start.hour == 12


def test_a_running_quarter_hour_leaves_no_hole():
    now = T0 + 3 * DAY + timedelta(minutes=45)
    quarters = [daily(q // 4 % 24) for q in range(4 * 24 * 3 + 3)]
    source = FakeSource({"DE": quarters}, step=timedelta(minutes=15))
    found = Grid([source], YEARLY, forecaster=OwnForecasts(StoppedClock(now))).outlook("DE", now, now + DAY)
    assert {r.grade for r in found.readings if r.start < now + DAY} == {Grade.OWN_FORECAST}
