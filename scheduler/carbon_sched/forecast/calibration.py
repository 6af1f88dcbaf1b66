"""Bands that cover what they say: quantiles of a zone's own past errors, stretched by how often they were missed.

Errors are kept on the softened logarithm, per knot and target hour, only of forecasts made before the target was known.
The band is the forecast plus the 10 % and 90 % quantiles of the errors of the last 60 days at target hours within 3 h,
refreshed weekly and stretched daily by adaptive conformal inference (Gibbs and Candes, NeurIPS 2021) on the logarithm
of each tail's width: a <- a + STEP (missed - AIM). Stretching widths instead of moving levels has no end of the range
to stick at, so over a long time the share AIM is missed on either side, whatever the weather does.

For the quantiles errors are measured in the `scale` of their time, the square root of the zone's volatility in the week
before the forecast: halfway between a band that is blind to the present weather and one that is proportional to it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast.series import DAY

if TYPE_CHECKING:
    from carbon_sched.forecast.features import Ints, Singles
    from carbon_sched.forecast.series import Floats

MEMORY_H = 60 * DAY
WINDOW_H = 3
ENOUGH = 60
"""Errors needed per knot and hour before their quantiles are used."""
FRESH_DAYS = 7

TAIL = 0.1
AIM = 0.097
"""What the stretch works towards. A little less than `TAIL`, since it follows a zone that grows wilder with a delay."""
STEP = 0.015
"""Chosen on 33 zones: 0.01 left new regimes uncovered for longer, 0.02 costs 3 % in pinball loss."""
WIDEST = 3.0
"""Bound of the logarithmic stretch, a factor of 20: only to keep broken input finite."""

COLUMNS = 4
"""Offsets per knot and hour: of the mean, the 10 %, the 50 % and the 90 % quantile."""
LOW, HIGH = 1, 3
LEAST_VOLATILITY = 1e-3
KEPT_DAYS = 10
"""Offsets are remembered so long, to judge each forecast by the band it was issued with (8 days ahead at most)."""


@dataclass(frozen=True, eq=False)
class Errors:
    """The recent past of one zone's forecasts.

    recent    `[MEMORY_H, K]` error at the target hour congruent to the row, NaN where none
    scaled    `[MEMORY_H, K]` the same in units of the scale
    held      `[MEMORY_H, K]` 1 where that hour fell into the band it was forecast with, 0 where not, NaN without one
    base      `[K, 24, COLUMNS]` offsets before stretching, by target hour; NaN where there are not enough errors; those
              of the quantiles in units of the scale
    stretch   `[K, 2]` logarithmic factor of the lower and the upper tail
    in_force  `[KEPT_DAYS, K, 24, COLUMNS]` offsets for forecasts whose newest known hour lies in the day congruent
              to the row
    day       the last day (since 1970) that `in_force` holds; -1 before the first
    """

    recent: Singles
    scaled: Singles
    held: Singles
    base: Singles
    stretch: Floats
    in_force: Singles
    day: int

    @staticmethod
    def none(knots: int) -> Errors:
        """No forecast has met its truth yet."""
        base = np.full((knots, DAY, COLUMNS), np.nan, np.float32)
        in_force = np.repeat(base[None], KEPT_DAYS, axis=0)
        none = np.full((MEMORY_H, knots), np.nan, np.float32)
        return Errors(none, none, none, base, np.zeros((knots, 2)), in_force, -1)

    def plus(self, hours: Ints, errors: Singles, scale: Singles, knots: Ints, *, bands: bool = True) -> Errors:
        """With the errors `[K, n]` at consecutive absolute target hours `[n]`; `scale [K, n]` as of their forecasts.

        Without `bands` only the offsets of the mean are kept up, which is much faster.
        """
        now = self
        for day in range(int(hours[0]) // DAY, int(hours[-1]) // DAY + 1):
            here = hours // DAY == day
            now = _begun(now, day, bands=bands)
            recent = now.recent.copy()
            recent[hours[here] % MEMORY_H] = errors[:, here].T
            now = replace(now, recent=recent)
            if bands:
                now = _judged(now, hours[here], errors[:, here] / scale[:, here], knots)
        return now


def scale_of(volatility: Floats) -> Floats:
    """What errors are measured in when the week before had this volatility (root mean square of the anomaly)."""
    out: Floats = np.sqrt(np.maximum(volatility, LEAST_VOLATILITY))
    return out


def _begun(errors: Errors, day: int, *, bands: bool) -> Errors:
    """At the beginning of `day`: put the offsets in force, refreshed if they are a week old."""
    if day == errors.day:
        return errors
    stale = errors.day < 0 or day // FRESH_DAYS != errors.day // FRESH_DAYS
    base = _offsets(errors, bands=bands) if stale else errors.base
    in_force = errors.in_force.copy()
    stretched = base.copy()
    stretched[..., [LOW, HIGH]] *= np.exp(errors.stretch)[:, None, :]
    in_force[day % KEPT_DAYS] = stretched
    return replace(errors, base=base, in_force=in_force, day=day)


def _judged(errors: Errors, hours: Ints, met: Singles, knots: Ints) -> Errors:
    """Judge the bands that targets of one day were given when they were forecast, by their scaled errors."""
    scaled = errors.scaled.copy()
    scaled[hours % MEMORY_H] = met.T
    issued = (hours[None, :] - knots[:, None]) // DAY
    known = (issued > errors.day - KEPT_DAYS) & np.isfinite(met)
    at = (issued % KEPT_DAYS, np.arange(len(knots))[:, None], (hours % DAY)[None, :])
    low, high = errors.in_force[(*at, LOW)], errors.in_force[(*at, HIGH)]
    known &= np.isfinite(low)
    below, above = known & (met < low), known & (met > high)
    held = errors.held.copy()
    held[hours % MEMORY_H] = np.where(known, ~(below | above), np.nan).T
    missed = np.stack([below.sum(axis=1), above.sum(axis=1)], axis=1)
    stretch = errors.stretch + STEP * (missed - AIM * known.sum(axis=1)[:, None])
    return replace(errors, scaled=scaled, held=held, stretch=np.clip(stretch, -WIDEST, WIDEST))


def _offsets(errors: Errors, *, bands: bool) -> Singles:
    """Offsets from the errors, `[K, 24, COLUMNS]`; NaN where there are not enough.

    The forecast itself is the median: on the logarithm errors are nearly symmetric, and a median read off a few hundred
    of them is worse in error and in captured saving.
    """
    out = np.full((errors.recent.shape[1], DAY, COLUMNS), np.nan, np.float32)
    count, half_variance = _half_variance(errors.recent)
    out[..., 0] = np.where(count >= ENOUGH, half_variance, np.nan).T
    if not bands:
        return out
    hour = np.arange(MEMORY_H) % DAY
    for target in range(DAY):
        apart = np.abs(hour - target)
        near = np.minimum(apart, DAY - apart) <= WINDOW_H
        low, high = _quantiles(np.ascontiguousarray(errors.scaled[near].T))
        out[:, target, LOW], out[:, target, HIGH] = np.minimum(low, 0.0), np.maximum(high, 0.0)
    out[..., 2] = np.where(np.isfinite(out[..., LOW]), 0.0, np.nan)
    return out


def _half_variance(recent: Singles) -> tuple[Floats, Floats]:
    """How many errors there are, and half their variance, both `[24, K]`.

    The mean of a lognormal variable lies that far above its median. The bias of the last weeks is left alone: following
    it costs captured saving.
    """
    known = np.isfinite(recent)
    errors = np.where(known, recent, 0.0)
    count, total, squares = (_near_hours(part) for part in (known, errors, errors**2))
    enough = np.maximum(count, 1)
    return count, 0.5 * np.maximum(squares / enough - (total / enough) ** 2, 0.0)


def _near_hours(by_hour: Floats) -> Floats:
    """Sum of `[MEMORY_H, K]` over all days and the hours of the day within the window of each, `[24, K]`."""
    daily = by_hour.reshape(-1, DAY, by_hour.shape[1]).sum(axis=0, dtype=np.float64)
    return np.asarray(sum(np.roll(daily, shift, axis=0) for shift in range(-WINDOW_H, WINDOW_H + 1)))


def _quantiles(errors: Singles) -> tuple[Singles, Singles]:
    """10 % and 90 % quantile of every row of `[K, m]`, NaN left out; NaN where there are not enough."""
    ordered = np.sort(errors, axis=1)
    known = np.isfinite(ordered).sum(axis=1)
    rows, last = np.arange(len(errors)), np.maximum(known - 1, 0)
    out = []
    for level in (TAIL, 1.0 - TAIL):
        left = (level * last).astype(np.intp)
        share = (level * last - left).astype(np.float32)
        value = ordered[rows, left] * (1 - share) + ordered[rows, np.minimum(left + 1, last)] * share
        out.append(np.where(known >= ENOUGH, value, np.nan))
    return out[0], out[1]
