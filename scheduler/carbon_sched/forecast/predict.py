"""From coefficients and offsets to intensities: the one place where forecasts are computed, online and in batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast.calibration import LOW, scale_of
from carbon_sched.forecast.damped import damped_profile
from carbon_sched.forecast.features import WARM_UP, regressors
from carbon_sched.forecast.horizons import at_every_horizon, bin_of
from carbon_sched.forecast.series import DAY
from carbon_sched.forecast.trace import hardened

if TYPE_CHECKING:
    from carbon_sched.forecast.features import Ints, Singles
    from carbon_sched.forecast.learner import Past
    from carbon_sched.forecast.series import Floats

TWO_DAYS = 2 * DAY
NORMAL_TAIL = 1.2816
"""90 % quantile of the standard normal distribution."""
REVERSION_H = 24.0
"""Before a zone has errors of its own, its band widens to the week's volatility with this time constant."""


@dataclass(frozen=True, eq=False)
class Quantities:
    """What a forecast is computed from.

    coefficients  `[K, B, F]`; None: not learnt yet
    offsets       `[D, K, 24, 1 or 4]` by the day (since 1970) of the newest known hour, modulo D; none after `day`;
                  those of quantiles in units of the scale (`calibration`)
    """

    knots: Ints
    coefficients: Singles | None
    offsets: Singles
    day: int


def predict(by: Quantities, of: Past, newest: Ints, targets: Ints) -> Singles:
    """Mean, 10 %, 50 % and 90 % quantile of `targets [n, leads]` as seen from `newest [n]`: `[n, leads, 4]`.

    Only the mean, `[n, leads, 1]`, where the offsets are those of the mean alone.
    Indices count from the past's first hour. Where `newest` fell into a gap the last known hour before it is used.
    A target that is already known is answered by its value.
    """
    t = _last_known(of)[np.minimum(newest, len(of.truth) - 1)]
    h = targets - t[:, None]
    ahead, seen = np.maximum(h, 1).reshape(-1), np.broadcast_to(t[:, None], h.shape).reshape(-1)
    levels = _middle(by, of, seen, ahead)[:, None] + _offsets(by, of, seen, ahead)
    answer = hardened(levels, of.reference).astype(np.float32).reshape(*h.shape, -1)
    known = hardened(of.trace.values[np.minimum(targets, len(of.truth) - 1)], of.reference).astype(np.float32)
    return np.where((h < 1)[..., None], known[..., None], answer)


def _last_known(of: Past) -> Ints:
    hours = np.arange(len(of.truth))
    return np.maximum.accumulate(np.where(np.isfinite(of.truth), hours, 0))


def _middle(by: Quantities, of: Past, t: Ints, h: Ints) -> Floats:
    """Softened forecast, `[n]`, by the best method that the history behind `t` is long enough for."""
    out = np.where(t + 1 >= TWO_DAYS, damped_profile(of.trace, t, h), of.trace.level[t])
    ready = t + 1 >= WARM_UP
    if by.coefficients is not None and ready.any():
        x, base = regressors(of.trace, t[ready], h[ready])
        every = at_every_horizon(by.coefficients, by.knots)
        beta = every[np.minimum(h[ready], len(every)) - 1, bin_of(of.hour0 + t[ready] + h[ready])]
        out[ready] = base + np.einsum("nf,nf->n", x, beta)
    return out


def _offsets(by: Quantities, of: Past, t: Ints, h: Ints) -> Floats:
    """Offsets of mean, 10 %, 50 % and 90 % quantile, `[n, 4]`, or of the mean alone."""
    spread = of.trace.volatility[t] * np.sqrt(1.0 - np.exp(-2.0 * h / REVERSION_H))
    plain = spread[:, None] * np.array([0.0, -NORMAL_TAIL, 0.0, NORMAL_TAIL])
    every = at_every_horizon(by.offsets.swapaxes(0, 1), by.knots)
    row = np.minimum((of.hour0 + t) // DAY, by.day) % len(by.offsets)
    own = every[np.minimum(h, len(every)) - 1, row, (of.hour0 + t + h) % DAY]
    own[..., LOW:] *= scale_of(of.trace.volatility[t])[:, None]
    out: Floats = np.where(np.isfinite(own) & (t + 1 >= WARM_UP)[:, None], own, plain[:, : own.shape[1]])
    return out
