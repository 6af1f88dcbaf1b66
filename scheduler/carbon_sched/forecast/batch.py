"""Every forecast of a long period at once, refitted as it goes, for backtests and benchmarks (pure numpy, no I/O)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.time import utc
from carbon_sched.forecast import ridge
from carbon_sched.forecast.damped import damped_profile
from carbon_sched.forecast.features import FEATURES, WARM_UP, regressors
from carbon_sched.forecast.series import DAY, HOUR
from carbon_sched.forecast.trace import Trace, trace

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from carbon_sched.forecast.series import Floats

REFIT_H = 7 * DAY
FLOOR = 0.2
"""A forecast is never below this share of the 7-day profile."""

KNOTS = np.array([*range(1, 49), *range(52, 97, 4), *range(108, 193, 12)])
"""Horizons with a regression of their own; between them coefficients are interpolated."""
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
    if not 0 <= first_issue < last_issue or leads < 1 or lag < 0:
        raise ValueError(f"no such forecasts: issues {first_issue}..{last_issue}, leads {leads}, lag {lag}")
    hour0 = int((utc(start) - EPOCH) // HOUR)
    members = {name: _member(values, hour0) for name, values in zones.items()}
    period = _Period(first_issue, last_issue, leads, lag)
    coefficients = _fit(members, period)
    wanted = only if only is not None else tuple(zones)
    return {name: _predict(members[name], coefficients[name], period) for name in wanted}


@dataclass(frozen=True)
class _Period:
    """The issues asked for, cut into blocks between refits."""

    first_issue: int
    last_issue: int
    leads: int
    lag: int

    @property
    def refits(self) -> list[int]:
        """For every block the end (exclusive) of what was known at its first issue."""
        return [issue + 1 - self.lag for issue in range(self.first_issue, self.last_issue, REFIT_H)]

    @property
    def knots(self) -> NDArray[np.intp]:
        """The regressions needed for the horizons asked for."""
        return KNOTS[: 1 + int(np.searchsorted(KNOTS, self.leads - 1 + self.lag))]


@dataclass(frozen=True, eq=False)
class _Member:
    """One zone from its first known hour on (`begin`, an index of the common clock); `truth` keeps its gaps."""

    begin: int
    truth: Floats
    trace: Trace | None


def _member(values: Floats, hour0: int) -> _Member:
    truth = np.where(np.isfinite(values) & (np.asarray(values) >= 0), values, np.nan)
    known = np.flatnonzero(np.isfinite(truth))
    if len(known) == 0:
        return _Member(len(truth), truth[:0], None)
    begin = int(known[0])
    return _Member(begin, truth[begin:], trace(truth[begin:], hour0 + begin))


def _fit(members: Mapping[str, _Member], period: _Period) -> dict[str, Floats]:
    """Coefficients per zone, `[blocks, knots, FEATURES]`; NaN while nothing could be learnt."""
    shape = (len(period.refits), len(period.knots), FEATURES)
    out = {name: np.full(shape, np.nan) for name in members}
    for column, horizon in enumerate(period.knots):
        so_far = {name: _block_sums(member, int(horizon), period.refits) for name, member in members.items()}
        everything = list(so_far.values())
        rows = np.sum([zone.rows for zone in everything], axis=0)
        enough = rows >= ridge.MIN_ROWS
        if not enough.any():
            continue
        prior = ridge.pooled(everything)
        for name, zone in so_far.items():
            out[name][enough, column] = ridge.shrunk(zone, prior)[enough]
    return out


def _block_sums(member: _Member, horizon: int, refits: list[int]) -> ridge.Sums:
    """Normal sums of one horizon over the rows whose targets were known at each refit, `[blocks, ...]`."""
    blocks = len(refits)
    parts = ridge.Sums(np.zeros((blocks, FEATURES, FEATURES)), np.zeros((blocks, FEATURES)), np.zeros(blocks))
    if member.trace is not None:
        ends = [min(max(known - member.begin - horizon, WARM_UP), len(member.truth)) for known in refits]
        t = np.arange(WARM_UP, max(ends[-1], WARM_UP))
        x, scale, base = regressors(member.trace, t, np.full(len(t), horizon))
        y = (member.truth[t + horizon] - base) / scale
        begin = 0
        for block, end in enumerate(end - WARM_UP for end in ends):
            use = np.isfinite(y[begin:end])
            part = ridge.sums(x[begin:end][use], y[begin:end][use])
            parts.gram[block], parts.moment[block], parts.rows[block] = part.gram, part.moment, part.rows
            begin = end
    return ridge.Sums(*(np.cumsum(part, axis=0) for part in (parts.gram, parts.moment, parts.rows)))


def _predict(member: _Member, coefficients: Floats, period: _Period) -> NDArray[np.float32]:
    issues = np.arange(period.first_issue, period.last_issue)
    out = np.full((len(issues), period.leads), np.nan, dtype=np.float32)
    of = member.trace
    known = np.minimum(issues - period.lag - member.begin, len(member.truth) - 1)
    seen = known >= 0
    if of is None or not seen.any():
        return out
    block = np.arange(len(issues))[seen] // REFIT_H
    newest = np.maximum.accumulate(np.where(np.isfinite(member.truth), np.arange(len(member.truth)), 0))
    t = newest[known[seen]]
    every = _interpolated(coefficients, period.knots)
    for lead in range(period.leads):
        h = issues[seen] - member.begin + lead - t
        out[seen, lead] = _one_lead(of, t, h, every[block, np.minimum(h, every.shape[1]) - 1])
    return out


def _one_lead(of: Trace, t: NDArray[np.intp], h: NDArray[np.intp], beta: Floats) -> Floats:
    """Expected intensity at `t + h`, `[n]`, by the best method the history behind `t` is long enough for."""
    ahead = np.maximum(h, 1)
    x, scale, base = regressors(of, t, ahead)
    fitted = base + scale * np.einsum("np,np->n", x, beta)
    simple = np.where(t + 1 >= 2 * DAY, damped_profile(of, t, ahead), of.level[t])
    value = np.where((t + 1 >= WARM_UP) & np.isfinite(fitted), np.maximum(fitted, FLOOR * base), simple)
    return np.where(h < 1, of.values[np.minimum(t + h, len(of) - 1)], np.maximum(value, 0.0))


def _interpolated(coefficients: Floats, knots: NDArray[np.intp]) -> Floats:
    """Coefficients at every horizon 1..last knot, `[blocks, horizons, FEATURES]`."""
    horizons = np.arange(1, knots[-1] + 1)
    right = np.searchsorted(knots, horizons)
    left = np.maximum(right - 1, 0)
    width = np.maximum(knots[right] - knots[left], 1)
    share = ((horizons - knots[left]) / width)[None, :, None]
    out: Floats = coefficients[:, left] * (1 - share) + coefficients[:, right] * share
    return out
