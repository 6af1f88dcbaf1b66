"""Ridge regression from accumulated normal sums, each zone shrunk towards the pool of all zones.

Pool:  (sum_z G_z + POOL n_z V_z) beta = sum_z b_z          with G = X'X, b = X'y, V = diag(G) / n
Zone:  (G + OWN V) beta_z = b + OWN V beta
The sums are additive over rows, so that a refit adds the new rows and solves again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.forecast.series import Floats

OWN_PENALTY = 300.0
POOL_PENALTY = 30.0
MIN_ROWS = 500
"""With fewer training hours of its own a zone uses the pool's coefficients."""


@dataclass(frozen=True, eq=False)
class Sums:
    """Normal sums of any number of regressions: `gram [..., p, p]`, `moment [..., p]`, `rows [...]`."""

    gram: Floats
    moment: Floats
    rows: Floats

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.gram + other.gram, self.moment + other.moment, self.rows + other.rows)

    @property
    def scale(self) -> Floats:
        """Mean square of every regressor, `[..., p]`; what the penalties are measured in."""
        return np.diagonal(self.gram, axis1=-2, axis2=-1) / np.maximum(self.rows, 1.0)[..., None]


def sums(x: Floats, y: Floats) -> Sums:
    """Normal sums of one regression: `x [n, p]`, `y [n]`."""
    return Sums(x.T @ x, x.T @ y, np.asarray(float(len(y))))


def pooled(zones: Sequence[Sums]) -> Floats:
    """Coefficients common to all zones, `[..., p]`."""
    gram = sum(zone.gram + _diagonal(POOL_PENALTY * zone.scale) for zone in zones)
    moment = sum(zone.moment for zone in zones)
    return _solve(np.asarray(gram), np.asarray(moment))


def shrunk(zone: Sums, prior: Floats) -> Floats:
    """The zone's own coefficients, `[..., p]`, shrunk towards `prior`; the prior alone below `MIN_ROWS` rows."""
    penalty = OWN_PENALTY * zone.scale
    own = _solve(zone.gram + _diagonal(penalty), zone.moment + penalty * prior)
    return np.where((zone.rows >= MIN_ROWS)[..., None], own, prior)


def _diagonal(values: Floats) -> Floats:
    return values[..., None] * np.eye(values.shape[-1])


def _solve(gram: Floats, moment: Floats) -> Floats:
    # A regressor that never varied (a flat zone, a history without a weekend) has a zero row: give it weight zero.
    size = np.diagonal(gram, axis1=-2, axis2=-1)
    safe = gram + _diagonal(np.where(size > 0.0, 1e-9 * size, 1.0))
    return np.asarray(np.linalg.solve(safe, moment[..., None])[..., 0])
