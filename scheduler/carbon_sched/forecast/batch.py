"""Every forecast of a long period at once, refitted as it goes, for backtests and benchmarks (pure numpy, no I/O)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast.calibration import COLUMNS
from carbon_sched.forecast.horizons import knots_for
from carbon_sched.forecast.learner import Learner, Pupil, learn, past, refit, rehearse
from carbon_sched.forecast.predict import Quantities, predict
from carbon_sched.forecast.series import DAY, hour_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from numpy.typing import NDArray

    from carbon_sched.forecast.features import Ints, Singles
    from carbon_sched.forecast.series import Floats

REFIT_H = 7 * DAY


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


def _rolling(
    values: Mapping[str, Floats], start: datetime, period: _Period, only: tuple[str, ...] | None, *, bands: bool
) -> dict[str, NDArray[np.float32]]:
    hour0 = hour_of(start)
    pupils = {name: pupil for name, series in values.items() if (pupil := _pupil(series, hour0, period)) is not None}
    shape = (period.last_issue - period.first_issue, period.leads, COLUMNS if bands else 1)
    out = {name: np.full(shape, np.nan, np.float32) for name in (values if only is None else only)}
    everyone = list(pupils.values())
    rehearse(everyone, hour0 + period.first_issue + 1 - period.lag, bands=bands)
    for begin in range(period.first_issue, period.last_issue, REFIT_H):
        block = np.arange(begin, min(begin + REFIT_H, period.last_issue))
        refit(everyone)
        coefficients = {name: pupil.learner.coefficients for name, pupil in pupils.items()}
        # The block's hours are learnt before its answers are computed, because they bring the offsets in force on each
        # of its days; coefficients are those from before, and every offset is older than the forecasts it serves.
        learn(everyone, hour0 + int(block[-1]) + 2 - period.lag, bands=bands)
        for name in out.keys() & pupils.keys():
            answer = _answer(pupils[name], coefficients[name], hour0 + block, period, bands=bands)
            out[name][block - period.first_issue] = answer
    return out


def _pupil(values: Floats, hour0: int, period: _Period) -> Pupil | None:
    """The zone from its first known hour on; None when there is none."""
    truth = np.array(values, dtype=np.float64)
    truth[~np.isfinite(truth) | (truth < 0)] = np.nan
    known = np.flatnonzero(np.isfinite(truth))
    if len(known) == 0:
        return None
    begin = int(known[0])
    knots = knots_for(period.leads - 1 + period.lag)
    return Pupil(past(truth[begin:], hour0 + begin), Learner.new(knots, hour0 + begin))


def _answer(
    pupil: Pupil, coefficients: Singles | None, issues: Ints, period: _Period, *, bands: bool
) -> NDArray[np.float32]:
    """Forecasts issued at absolute hours, `[issues, leads, COLUMNS or 1]`; NaN before the zone's first hour."""
    columns = COLUMNS if bands else 1
    out = np.full((len(issues), period.leads, columns), np.nan, np.float32)
    of, errors = pupil.of, pupil.learner.errors
    newest = issues - period.lag - of.hour0
    seen = newest >= 0
    if seen.any():
        by = Quantities(pupil.learner.knots, coefficients, errors.in_force[..., :columns], errors.day)
        targets = issues[seen, None] - of.hour0 + np.arange(period.leads)[None, :]
        out[seen] = predict(by, of, newest[seen], targets)
    return out
