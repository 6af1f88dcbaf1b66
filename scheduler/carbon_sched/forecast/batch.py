"""Every forecast of a long period at once, refitted as it goes, for backtests and benchmarks (pure numpy, no I/O)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.time import utc
from carbon_sched.forecast import ridge
from carbon_sched.forecast.calibration import COLUMNS
from carbon_sched.forecast.horizons import knots_for
from carbon_sched.forecast.learner import Learner, Past, advance, past, refit
from carbon_sched.forecast.predict import Quantities, predict
from carbon_sched.forecast.series import DAY, HOUR

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from numpy.typing import NDArray

    from carbon_sched.forecast.features import Ints, Singles
    from carbon_sched.forecast.series import Floats

REFIT_H = 7 * DAY
REHEARSAL_H = 112 * DAY
REHEARSAL_STEP_H = 28 * DAY
"""Before the first issue: how long forecasts are made and judged, unseen, so that the bands start calibrated."""
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def rolling_forecast(
    values: Floats,
    start: datetime,
    first_issue: int,
    last_issue: int,
    *,
    leads: int = 97,
    lag: int = 1,
    pool: Mapping[str, Floats] | None = None,
) -> NDArray[np.float32]:
    """Forecast one zone at every hour of a period, refitting weekly on what was known by then.

    Args:
        values: `[hours]` intensity, any unit; `values[i]` is the mean of hour `start + i h`; NaN where unknown
            (leading NaN: the zone's data begins later).
        start: beginning of hour 0, aware, a whole hour in UTC.
        first_issue: index of the first hour at whose beginning a forecast is issued.
        last_issue: end (exclusive) of the issue hours; may reach `len(values)`.
        leads: how many hours each forecast covers; lead 0 is the hour that starts at the issue time.
        lag: age of the newest known hour: an issue at index `i` knows `values[: i + 1 - lag]`, so 1 (the default)
            is "up to the hour before", 0 is "the current hour too", 24 is a day-old feed.
        pool: other zones to learn from, on the same clock (`zone -> [hours]`); they are subject to the same rule.

    Returns:
        `float32 [last_issue - first_issue, leads]` in the unit of `values`; element `[i, k]` is the expected
        intensity of hour `first_issue + i + k` and depends on nothing at or after index `first_issue + i + 1 - lag`.
        With too little history it is, in this order, the damped profile (from 2 days on), the mean so far, NaN.
    """
    zones = {**(pool or {}), "": values}
    return rolling_forecasts(zones, start, first_issue, last_issue, leads=leads, lag=lag, only=("",))[""]


def rolling_forecasts(
    zones: Mapping[str, Floats],
    start: datetime,
    first_issue: int,
    last_issue: int,
    *,
    leads: int = 97,
    lag: int = 1,
    only: tuple[str, ...] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """`rolling_forecast` for many zones on one clock, each shrunk towards the pool of all of them.

    Cheaper than one call per zone, because the pool is summed once. `only` names the zones to answer for.
    """
    answers = _rolling(zones, start, _Period(first_issue, last_issue, leads, lag), only, bands=False)
    return {name: answer[..., 0] for name, answer in answers.items()}


def rolling_bands(
    zones: Mapping[str, Floats],
    start: datetime,
    first_issue: int,
    last_issue: int,
    *,
    leads: int = 97,
    lag: int = 1,
    only: tuple[str, ...] | None = None,
) -> dict[str, NDArray[np.float32]]:
    """As `rolling_forecasts`, with bands: `float32 [issues, leads, 4]` of mean, 10 %, 50 % and 90 % quantile."""
    return _rolling(zones, start, _Period(first_issue, last_issue, leads, lag), only, bands=True)


@dataclass(frozen=True)
class _Period:
    """The issues asked for."""

    first_issue: int
    last_issue: int
    leads: int
    lag: int

    def __post_init__(self) -> None:
        if not 0 <= self.first_issue < self.last_issue or self.leads < 1 or self.lag < 0:
            raise ValueError(f"no such forecasts: {self}")


@dataclass(eq=False)
class _Zone:
    """One zone as the period goes by; `begin` is the index of its first known hour on the common clock."""

    begin: int
    of: Past | None
    learner: Learner


def _zone(values: Floats, hour0: int, period: _Period) -> _Zone:
    truth = np.array(values, dtype=np.float64)
    truth[~np.isfinite(truth) | (truth < 0)] = np.nan
    known = np.flatnonzero(np.isfinite(truth))
    learner = Learner.new(knots_for(period.leads - 1 + period.lag))
    if len(known) == 0:
        return _Zone(len(truth), None, learner)
    begin = int(known[0])
    return _Zone(begin, past(truth[begin:], hour0 + begin), learner)


def _rolling(
    values: Mapping[str, Floats], start: datetime, period: _Period, only: tuple[str, ...] | None, *, bands: bool
) -> dict[str, NDArray[np.float32]]:
    hour0 = int((utc(start) - EPOCH) // HOUR)
    zones = {name: _zone(series, hour0, period) for name, series in values.items()}
    shape = (period.last_issue - period.first_issue, period.leads, COLUMNS if bands else 1)
    out = {name: np.full(shape, np.nan, np.float32) for name in (zones if only is None else only)}
    for begin in range(max(period.first_issue - REHEARSAL_H, 0), period.first_issue, REHEARSAL_STEP_H):
        _learn(zones.values(), begin + 1 - period.lag, bands=bands)
        _refit(zones.values())
    _learn(zones.values(), period.first_issue + 1 - period.lag, bands=bands)
    for begin in range(period.first_issue, period.last_issue, REFIT_H):
        block = np.arange(begin, min(begin + REFIT_H, period.last_issue))
        _refit(zones.values())
        coefficients = {name: zone.learner.coefficients for name, zone in zones.items()}
        # The block's hours are learnt before its answers are computed, because they bring the offsets in force on each
        # of its days; coefficients are those from before, and every offset is older than the forecasts it serves.
        _learn(zones.values(), int(block[-1]) + 2 - period.lag, bands=bands)
        for name, answer in out.items():
            answer[block - period.first_issue] = _answer(zones[name], coefficients[name], block, period, bands=bands)
    return out


def _learn(zones: Iterable[_Zone], known: int, *, bands: bool) -> None:
    for zone in zones:
        if zone.of is not None:
            zone.learner = advance(zone.learner, zone.of, known - zone.begin, bands=bands)


def _refit(zones: Collection[_Zone]) -> None:
    prior = ridge.pooled([zone.learner.evidence for zone in zones])
    for zone in zones:
        zone.learner = refit(zone.learner, prior)


def _answer(
    zone: _Zone, coefficients: Singles | None, block: Ints, period: _Period, *, bands: bool
) -> NDArray[np.float32]:
    """Forecasts of one block, `[issues, leads, COLUMNS or 1]`; NaN before the zone's first hour."""
    columns = COLUMNS if bands else 1
    out = np.full((len(block), period.leads, columns), np.nan, np.float32)
    newest = block - period.lag - zone.begin
    seen = newest >= 0
    if zone.of is not None and seen.any():
        errors = zone.learner.errors
        by = Quantities(zone.learner.knots, coefficients, errors.in_force[..., :columns], errors.day)
        targets = block[seen, None] - zone.begin + np.arange(period.leads)[None, :]
        out[seen] = predict(by, zone.of, newest[seen], targets)
    return out
