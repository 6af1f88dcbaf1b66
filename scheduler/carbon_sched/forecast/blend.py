"""A provider's forecast beside ours: how much each counts, by what both were worth lately (pure numpy, no I/O).

A provider that looks at the weather knows what history cannot tell, and ours knows the zone: their errors differ, so
that the two together are better than either. With errors o and t on the softened logarithm the share of theirs is the
one that would have left the least squared error (Bates and Granger, "The Combination of Forecasts", 1969):

    share = (mean(o o) - mean(o t)) / (mean(o o) + mean(t t) - 2 mean(o t)),   within 0..1
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast.calibration import MEMORY_H
from carbon_sched.forecast.series import DAY, EPOCH, HOUR, hour_of
from carbon_sched.forecast.trace import hardened, softened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from carbon_sched.forecast.features import Ints
    from carbon_sched.forecast.model import ZoneState
    from carbon_sched.forecast.series import Floats, HourlySeries

RANGES_H = (6, 24, 48)
"""Hours ahead are told apart in three ranges, each up to one of these; what is further ahead counts as the last."""
TYPICAL_H = (3, 15, 36)
"""How far ahead the forecasts are that a range is judged by."""
JUDGED_H = 28 * DAY
ENOUGH_H = 2 * DAY
"""Below so many hours that came true in a range, the two are not weighed."""


def range_of(ahead: Ints) -> Ints:
    """The range that hours ahead (0 is the present hour) belong to."""
    return np.minimum(np.searchsorted(RANGES_H, ahead, side="right"), len(RANGES_H) - 1)


def best_share(ours: Floats, theirs: Floats) -> float | None:
    """The provider's share from errors of both for the same hours; None with too few hours known in both."""
    known = np.isfinite(ours) & np.isfinite(theirs)
    if known.sum() < ENOUGH_H:
        return None
    o, t = ours[known], theirs[known]
    between = float(((o - t) ** 2).mean())
    return float(np.clip((o * (o - t)).mean() / between, 0.0, 1.0)) if between > 0.0 else None


def blended(ours: Floats, theirs: Floats, share: Floats, reference: float) -> Floats:
    """Both of equal shape, `share` of theirs on the softened logarithm."""
    return hardened((1.0 - share) * softened(ours, reference) + share * softened(theirs, reference), reference)


@dataclass
class Promises:
    """What a provider forecast of each hour, as it was said about `TYPICAL_H` hours ahead of it."""

    said: list[dict[int, float]] = field(default_factory=lambda: [{} for _ in RANGES_H])

    def note(self, forecast: HourlySeries, now_hour: int) -> None:
        """Remember what is forecast now; forget what is too old to be judged by."""
        first = hour_of(forecast.start)
        hours = np.arange(first, first + len(forecast.values))
        for hour, value, where in zip(hours, forecast.values, range_of(hours - now_hour), strict=True):
            if hour - now_hour >= TYPICAL_H[where] and np.isfinite(value):
                self.said[where][int(hour)] = float(value)
        for said in self.said:
            for old in [hour for hour in said if hour < now_hour - JUDGED_H]:
                del said[old]

    def shares(self, state: ZoneState, truth: HourlySeries) -> tuple[float | None, ...]:
        """The provider's share in each range, by the hours that have come true of what both said; None: not known."""
        known = truth.until(EPOCH + state.learner.learnt * HOUR)
        return tuple(_share(said, at, state, known) for said, at in zip(self.said, TYPICAL_H, strict=True))


def _share(said: dict[int, float], typical: int, state: ZoneState, truth: HourlySeries) -> float | None:
    first, end = hour_of(truth.start), hour_of(truth.end)
    hours: Sequence[int] = [hour for hour in said if max(first, end - MEMORY_H) <= hour < end]
    if not hours:
        return None
    at = np.array(hours)
    ours = state.learner.errors.recent[at % MEMORY_H, int(np.searchsorted(state.learner.knots, typical))]
    true = softened(truth.values[at - first], state.reference)
    theirs = true - softened(np.array([said[hour] for hour in hours]), state.reference)
    return best_share(ours.astype(np.float64), theirs)
