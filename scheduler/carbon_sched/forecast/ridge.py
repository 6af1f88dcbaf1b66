"""Weighted ridge regression from accumulated normal sums: pool of zones -> zone -> hours of the day.

With G = X'WX, b = X'Wy and V = diag(G) / sum(w), each level is shrunk towards the one above:

    pool   (sum_z (G_z + POOL V_z)) beta = sum_z b_z
    zone   (G + OWN V) beta_z = b + OWN V beta
    hours  (G_k + HOURS V) beta_k = b_k + HOURS V beta_z,   G_k, b_k = sums over neighbouring bins, weighted by distance

The sums are additive over rows, so that a refit adds the new rows and solves again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast.features import FEATURES, WARM_UP, regressors
from carbon_sched.forecast.horizons import BINS, bin_of
from carbon_sched.forecast.series import DAY

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.forecast.features import Ints, Singles
    from carbon_sched.forecast.series import Floats
    from carbon_sched.forecast.trace import Trace

# In rows. Chosen on the zones of 2021 and 2022 together; half or double of each changes the mean of zones by 0.1 point.
OWN_PENALTY = 1000.0
HOURS_PENALTY = 2000.0
POOL_PENALTY = 30.0
ALONE_PENALTY = 300.0
"""The pool's least penalty: that of a zone that has no other to learn from."""
MIN_ROWS = 300.0
"""Below so many rows in the whole pool nothing is fitted."""

NEIGHBOUR_H = 2.0
"""Width (one sigma, hours) of the weights with which neighbouring bins of the day count."""
CALM = 0.02
TYPICAL = 0.1
CLIP = 3.0


@dataclass(frozen=True, eq=False)
class Rows:
    """Observations of one zone for every knot and target hour: `x [K, n, F]`, `hour [n]`, the others `[K, n]`.

    `volatility` is that of the week before the forecast. Rows without a usable target have weight 0, zeros in `x` and
    `y`.
    """

    x: Singles
    y: Singles
    weight: Singles
    base: Floats
    volatility: Floats
    hour: Ints


def rows(of: Trace, truth: Floats, targets: Ints, knots: Ints) -> Rows:
    """What the targets (ascending indices into the trace) teach for every knot; `truth` is softened, NaN where unknown.

    Spikes teach as much as `CLIP` times the week's volatility, and calm weeks weigh more than wild ones (weight
    1 / (volatility + CALM)): squared errors alone would fit the wildest month of the year.
    """
    t = targets[None, :] - knots[:, None]
    h = np.broadcast_to(knots[:, None], t.shape)
    seen = np.maximum(t, 0).reshape(-1)
    x, base = regressors(of, seen, h.reshape(-1))
    volatility = of.volatility[seen].reshape(t.shape)
    usable = (t >= WARM_UP) & np.isfinite(truth[targets])[None, :]
    base = base.reshape(t.shape)
    error = np.where(usable, truth[targets][None, :] - base, 0.0)
    return Rows(
        x=np.ascontiguousarray(x).reshape(*t.shape, FEATURES),
        y=np.clip(error, -CLIP * volatility, CLIP * volatility).astype(np.float32),
        weight=np.where(usable, TYPICAL / (volatility + CALM), 0.0).astype(np.float32),
        base=base,
        volatility=volatility,
        hour=of.hour0 + targets,
    )


@dataclass(frozen=True, eq=False)
class Evidence:
    """Normal sums per knot and bin: `gram [K, B, F, F]`, `moment [K, B, F]`, `weight [K, B]`."""

    gram: Singles
    moment: Singles
    weight: Floats

    @staticmethod
    def none(knots: int) -> Evidence:
        """No rows yet."""
        shape = (knots, BINS, FEATURES)
        return Evidence(np.zeros((*shape, FEATURES), np.float32), np.zeros(shape, np.float32), np.zeros((knots, BINS)))

    def plus(self, more: Rows) -> Evidence:
        """With these rows added."""
        gram, moment, weight = self.gram.copy(), self.moment.copy(), self.weight.copy()
        bins = bin_of(more.hour)
        for k in range(BINS):
            here = bins == k
            x = more.x[:, here]
            weighted = (x * more.weight[:, here, None]).transpose(0, 2, 1)
            gram[:, k] += weighted @ x
            moment[:, k] += (weighted @ more.y[:, here, None])[..., 0]
            weight[:, k] += more.weight[:, here].sum(axis=1)
        return Evidence(gram, moment, weight)

    @property
    def rows(self) -> float:
        """Total weight of the first knot, in typical rows."""
        return float(self.weight[0].sum())


def pooled(zones: Sequence[Evidence]) -> Floats | None:
    """Coefficients common to all zones, `[K, F]`; None while there is too little of anything."""
    if sum(zone.rows for zone in zones) < MIN_ROWS:
        return None
    penalty = max(POOL_PENALTY, ALONE_PENALTY / len(zones))
    gram = sum(_whole(zone)[0] + _diagonal(penalty * _scale(zone)) for zone in zones)
    moment = sum(_whole(zone)[1] for zone in zones)
    return _solve(np.asarray(gram), np.asarray(moment))


def own(zone: Evidence, prior: Floats) -> Singles:
    """The zone's coefficients per knot and bin, `[K, B, F]`, shrunk towards `prior [K, F]`."""
    gram, moment = _whole(zone)
    # What never varied here (or nothing was seen at all) is left to the prior entirely.
    scale = _scale(zone)
    penalty = np.where(scale > 0.0, scale, 1.0)
    beta = _solve(gram + _diagonal(OWN_PENALTY * penalty), moment + OWN_PENALTY * penalty * prior)
    pull = HOURS_PENALTY * penalty
    near = _nearness()
    local = near @ zone.gram.reshape(len(prior), BINS, -1)
    local = local.reshape(zone.gram.shape) + _diagonal(pull)[:, None]
    target = near @ zone.moment + (pull * beta)[:, None]
    return _solve(local, target).astype(np.float32)


def fitted(x: Singles, hour: Ints, coefficients: Singles) -> Singles:
    """`x @ beta` for `x [K, n, F]` at absolute target hours `[n]`, `[K, n]`."""
    out: Singles = np.einsum("knf,knf->kn", x, coefficients[:, bin_of(hour)])
    return out


def _nearness() -> Floats:
    """Weight of bin `j` in the model of bin `i`, `[B, B]`; 1 on the diagonal, round the clock."""
    apart = np.abs(np.arange(BINS)[:, None] - np.arange(BINS)[None, :])
    hours = np.minimum(apart, BINS - apart) * (DAY // BINS)
    out: Floats = np.exp(-0.5 * (hours / NEIGHBOUR_H) ** 2)
    return out


def _whole(zone: Evidence) -> tuple[Floats, Floats]:
    return zone.gram.sum(axis=1, dtype=np.float64), zone.moment.sum(axis=1, dtype=np.float64)


def _scale(zone: Evidence) -> Floats:
    """Mean square of every regressor, `[K, F]`: what penalties are measured in."""
    squares = np.diagonal(zone.gram, axis1=-2, axis2=-1).sum(axis=1, dtype=np.float64)
    out: Floats = squares / np.maximum(zone.weight.sum(axis=1), 1.0)[:, None]
    return out


def _diagonal(values: Floats) -> Floats:
    out: Floats = values[..., None] * np.eye(values.shape[-1])
    return out


def _solve(gram: Floats, moment: Floats) -> Floats:
    # A regressor that never varied (a flat zone, a history without a weekend) has a zero row: give it weight zero.
    size = np.diagonal(gram, axis1=-2, axis2=-1)
    safe = gram + _diagonal(np.where(size > 0.0, 1e-9 * size, 1.0))
    return np.asarray(np.linalg.solve(safe, moment[..., None])[..., 0])
