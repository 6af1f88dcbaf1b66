"""Which horizons have a regression of their own, and how the others are read off them (forecast layer)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast.series import DAY

if TYPE_CHECKING:
    from carbon_sched.forecast.features import Ints, Singles

KNOTS = np.array([*range(1, 25), *range(26, 49, 2), *range(54, 97, 6), *range(108, 193, 12)])
"""Hours ahead of the last known hour. Every one in the first day, where decisions are made, then ever fewer."""

BINS = 8
"""Coefficients also vary with the hour of the day of the target (UTC), in bins of three hours."""


def bin_of(hour: Ints) -> Ints:
    """The bin of absolute hours."""
    return (hour % DAY) // (DAY // BINS)


def knots_for(horizon: int) -> Ints:
    """The knots needed to answer up to `horizon`; beyond the last one its coefficients hold on."""
    return KNOTS[: 1 + int(np.searchsorted(KNOTS, min(horizon, KNOTS[-1])))]


def at_every_horizon(by_knot: Singles, knots: Ints) -> Singles:
    """Interpolate `[knots, ...]` linearly to `[horizons, ...]`, where row `i` is horizon `i + 1`."""
    horizons = np.arange(1, knots[-1] + 1)
    right = np.searchsorted(knots, horizons)
    left = np.maximum(right - 1, 0)
    share = (horizons - knots[left]) / np.maximum(knots[right] - knots[left], 1)
    share = share.astype(by_knot.dtype).reshape(-1, *[1] * (by_knot.ndim - 1))
    out: Singles = by_knot[left] * (1 - share) + by_knot[right] * share
    return out
