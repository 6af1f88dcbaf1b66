"""The grid as a backtest's planner sees it: what was known and forecast at each hour, behind the service's own port."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.intensity import (
    MAX_INTENSITY_MG_PER_KWH,
    Basis,
    Grade,
    Kind,
    Outlook,
    Perimeter,
    Reading,
    Signal,
)
from carbon_sched.forecast.batch import rolling_forecasts
from carbon_sched.simulate.baselines import rows_ahead
from carbon_sched.simulate.scenario import TRAILING_H

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from carbon_sched.domain.intensity import Ranking
    from carbon_sched.simulate.scenario import Scenario

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]

HOUR = timedelta(hours=1)
FOREVER = timedelta(days=400)
LEADS = 168
LEAST_HISTORY_H = 48
GROWTH_H = 12.0
"""A noisy forecast's error has 63 % of its final variance at half this lead: most of it within a day."""
PERSISTENCE = 0.95
"""Correlation of a noisy forecast's error from one target hour to the next."""


class AverageOnly:
    """A grid of which only what is booked is known."""

    def ranked(
        self, zones: Sequence[str], now: datetime, until: datetime, ranking: Ranking
    ) -> tuple[dict[str, Outlook], str]:
        """None, and why."""
        del zones, now, until
        return {}, f"not ranked by {ranking.words} intensity, which was not recorded: ranked by what is booked"


class Feed(AverageOnly):
    """Implements `service.outlooks.Grid` on a scenario's arrays."""

    def __init__(self, scenario: Scenario) -> None:
        self._of = scenario
        self._hour = -1
        self._outlooks: dict[str, Outlook] = {}
        self._known: dict[str, list[Reading]] = {}

    def outlooks(self, zones: Sequence[str], now: datetime, until: datetime) -> dict[str, Outlook]:
        """One per zone: the forecast issued at the beginning of this hour, then the mean of the last 28 days."""
        del until
        hour = int((now - self._of.start) // HOUR)
        if hour != self._hour:
            self._hour, self._outlooks = hour, {}
        for zone in zones:
            if zone not in self._outlooks:
                self._outlooks[zone] = self._outlook(zone, hour)
        return {zone: self._outlooks[zone] for zone in zones}

    def actual(self, zone: str, start: datetime, end: datetime, now: datetime) -> list[Reading]:
        """Measured hours of `[start, end)` that are over by `now`."""
        if zone not in self._known:
            zero = self._of.start - self._of.begin * HOUR
            self._known[zone] = [
                _reading(zone, zero + i * HOUR, HOUR, float(value), Kind.MEASURED)
                for i, value in enumerate(self._of.truth[zone])
                if np.isfinite(value)
            ]
        known = self._known[zone]
        first = int((start - known[0].start) // HOUR)
        last = int((min(end, now) - known[0].start) // HOUR)
        return known[max(first, 0) : max(last, 0)]

    def _outlook(self, zone: str, hour: int) -> Outlook:
        begin = self._of.start + hour * HOUR
        row = self._of.forecast[zone][hour].astype(np.float64)
        until = self._of.begin + hour
        usual = float(np.nanmean(self._of.truth[zone][max(until - TRAILING_H, 0) : until]))
        ahead = [_reading(zone, begin + k * HOUR, HOUR, value, Kind.FORECAST) for k, value in enumerate(row.tolist())]
        tail = _reading(zone, begin + len(row) * HOUR, FOREVER, usual, Kind.STATIC)
        return Outlook(zone, (*ahead, tail))


def _reading(zone: str, start: datetime, length: timedelta, grams: float, kind: Kind) -> Reading:
    grades = {Kind.MEASURED: Grade.LIVE, Kind.FORECAST: Grade.OWN_FORECAST, Kind.STATIC: Grade.ZONE_YEAR}
    return Reading(
        zone=zone,
        start=start,
        end=start + length,
        intensity_mg_per_kwh=min(max(round(grams * 1000), 0), MAX_INTENSITY_MG_PER_KWH),
        signal=Signal.AVERAGE,
        basis=Basis.LIFECYCLE,
        perimeter=Perimeter.CONSUMPTION,
        kind=kind,
        grade=grades[kind],
        provider="backtest",
        issued_at=start,
        fetched_at=start,
    )


# forecasts -----------------------------------------------------------------------------------------------------------


def forecasts(
    kind: str, truth: Mapping[str, Floats], zones: Sequence[str], start: datetime, begin: int, seed: int
) -> dict[str, Singles]:
    """`[hours from begin on, LEADS]` per zone; row i is issued at the beginning of hour `begin + i`.

    Args:
        kind: `own` (our forecaster, refitted as it goes, on all zones with a history), `perfect`, or `noisy:PERCENT`
            (the truth times an error that grows to that standard deviation with the lead).
        truth: `[hours]` g/kWh of every zone that may be learnt from; NaN where unknown.
        zones: those to answer for.
        start: instant of the first hour of `truth`.
        begin: see above.
        seed: of the noise.
    """
    wanted = list(dict.fromkeys(zones))
    if kind == "own":
        learn = {z: v for z, v in truth.items() if z in wanted or np.isfinite(v[:begin]).mean() > 0.5}
        end = len(next(iter(truth.values())))
        return rolling_forecasts(learn, start, begin, end, leads=LEADS, lag=1, only=tuple(wanted))
    perfect = {zone: rows_ahead(truth[zone][begin:], LEADS) for zone in wanted}
    if kind == "perfect":
        return perfect
    percent = noise_percent(kind)
    return {
        zone: _noisy(perfect[zone], percent / 100, np.random.default_rng([seed, i])) for i, zone in enumerate(wanted)
    }


def noise_percent(kind: str) -> float:
    """The number of `noisy:13`; raises InvalidInput for what is no kind of forecast."""
    name, _, number = kind.partition(":")
    try:
        percent = float(number)
    except ValueError:
        percent = -1.0
    if name != "noisy" or not 0 <= percent <= 100:
        raise InvalidInput("--forecast", kind, "is not a kind of forecast", "Use own, perfect or noisy:PERCENT (0-100)")
    return percent


def _noisy(perfect: Singles, most: float, rng: np.random.Generator) -> Singles:
    hours, leads = perfect.shape
    error = np.empty(hours + leads)
    error[0] = rng.standard_normal()
    shocks = rng.standard_normal(hours + leads) * np.sqrt(1 - PERSISTENCE**2)
    for i in range(1, len(error)):
        error[i] = PERSISTENCE * error[i - 1] + shocks[i]
    growth = np.sqrt(1 - np.exp(-2 * np.arange(leads) / GROWTH_H))
    at_target = np.lib.stride_tricks.sliding_window_view(error, leads)[:hours]
    out: Singles = np.maximum(perfect * (1 + most * growth * at_target), 0.0).astype(np.float32)
    return out
