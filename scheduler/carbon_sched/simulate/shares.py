"""Shares of an oracle's saving, with bootstrap intervals over days: jobs of one day meet the same weather."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

RESAMPLES = 1000
CONFIDENCE = 0.9


@dataclass(frozen=True)
class Share:
    """Percent of the oracle's saving and its 90 % interval."""

    percent: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.percent:5.1f} ({self.low:.1f}-{self.high:.1f})"


class Bootstrap:
    """The same resampled days for every policy, so that differences between policies are not blurred by the draw."""

    def __init__(self, day: Ints, seed: int = 0) -> None:
        self._days, self._which = np.unique(day, return_inverse=True)
        draws = np.random.default_rng(seed).integers(0, len(self._days), (RESAMPLES, len(self._days)))
        self._times = np.stack([np.bincount(draw, minlength=len(self._days)) for draw in draws]).astype(np.float64)

    def share(self, now: Floats, policy: Floats, oracle: Floats) -> Share:
        """Share of (now - oracle) that (now - policy) reaches; `[J]` grams each."""
        saved, possible = self._per_day(now - policy), self._per_day(now - oracle)
        return self._interval(saved, possible)

    def saving(self, now: Floats, policy: Floats) -> Share:
        """Percent of `now` that the policy saves."""
        return self._interval(self._per_day(now - policy), self._per_day(now))

    def mean(self, zones: Iterable[tuple[Floats, Floats]]) -> Share:
        """Mean over zones of what was saved of what was possible, `[J]` grams each."""
        of_each = [self._again(self._per_day(saved), self._per_day(possible)) for saved, possible in zones]
        return _share(np.mean(of_each, axis=0))

    def _interval(self, part: Floats, whole: Floats) -> Share:
        return _share(self._again(part, whole))

    def _again(self, part: Floats, whole: Floats) -> Floats:
        """Percent of the whole, as it was and for each draw of days."""
        found: Floats = 100 * np.append(part.sum(), self._times @ part) / np.append(whole.sum(), self._times @ whole)
        return found

    def _per_day(self, values: Floats) -> Floats:
        out: Floats = np.bincount(self._which, weights=values, minlength=len(self._days)).astype(np.float64)
        return out


def _share(percent: Floats) -> Share:
    low, high = np.quantile(percent[1:], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Share(float(percent[0]), float(low), float(high))


def worst_month_pct(hour: Floats, reference: Floats, policy: Floats) -> float:
    """Percent by which the worst month is worse than the reference; below zero when every month is better.

    Months are twelfths of the year, by the hour of submission.
    """
    month = np.floor(hour / 730.0).astype(np.int64)
    was, became = np.bincount(month, weights=reference), np.bincount(month, weights=policy)
    seen = was > 0
    return float(np.max(100 * (became[seen] / was[seen] - 1)))
