"""How good past forecasts were, against what came true (forecast layer: pure numpy, no I/O).

Everywhere: `forecast [issues, leads]` with lead 0 the hour that starts at the issue, `truth [hours]` on the same clock,
`first_issue` the index in `truth` of the first issue. Hours unknown in either are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.forecast.series import DAY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carbon_sched.forecast.series import Floats

    Array = NDArray[np.floating]

RUN_H = 4
STARTS = 21
"""The yardstick of the field: a job of 4 hours that must end within 24, so it may start after 0..20 hours."""


@dataclass(frozen=True)
class Captured:
    """Means over issues of what the job emits per unit of energy, by three ways to choose its start."""

    now: float
    chosen: float
    best: float

    @property
    def share(self) -> float:
        """Share of the saving of a perfect forecast that ours captures; NaN where nothing could be saved."""
        return (self.now - self.chosen) / (self.now - self.best) if self.now > self.best else float("nan")

    @property
    def saved(self) -> float:
        """Saving of the chosen starts, as a share of running at once."""
        return (self.now - self.chosen) / self.now if self.now > 0 else float("nan")

    @property
    def possible(self) -> float:
        """Saving of a perfect forecast, as a share of running at once."""
        return (self.now - self.best) / self.now if self.now > 0 else float("nan")


def captured_saving(
    forecast: Array, truth: Array, first_issue: int, *, run_h: int = RUN_H, starts: int = STARTS
) -> Captured:
    """What a job of `run_h` hours saves by starting where the forecast is lowest, among `starts` hourly starts.

    Ties go to the earlier start. Issues with an unknown hour in reach are left out.
    """
    true = _run_means(targets(truth, first_issue, len(forecast), starts + run_h - 1), run_h)
    seen = _run_means(forecast[:, : starts + run_h - 1], run_h)
    known = np.isfinite(true).all(axis=1) & np.isfinite(seen).all(axis=1)
    if not known.any():
        return Captured(float("nan"), float("nan"), float("nan"))
    true, seen = true[known], seen[known]
    chosen = np.take_along_axis(true, seen.argmin(axis=1)[:, None], axis=1)
    return Captured(float(true[:, 0].mean()), float(chosen.mean()), float(true.min(axis=1).mean()))


def mape(forecast: Array, truth: Array, first_issue: int, *, leads: range = range(DAY)) -> float:
    """Mean absolute error in percent of the truth, over the leads of the first day unless told otherwise."""
    true = targets(truth, first_issue, len(forecast), leads.stop)[:, leads.start :]
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.abs(forecast[:, leads.start : leads.stop] - true) / true
    return _mean(error[np.isfinite(error)]) * 100.0


def coverage(low: Array, high: Array, truth: Array, first_issue: int) -> Floats:
    """Share of hours that fell into `[low, high]`, per lead, `[leads]`."""
    true = targets(truth, first_issue, *low.shape)
    known = np.isfinite(true) & np.isfinite(low) & np.isfinite(high)
    inside = known & (low <= true) & (true <= high)
    return np.asarray(inside.sum(axis=0) / np.maximum(known.sum(axis=0), 1))


def pinball(quantile: Array, level: float, truth: Array, first_issue: int) -> Floats:
    """Mean pinball loss of a quantile forecast per lead, `[leads]`, in the unit of the truth; lower is better.

    Koenker and Bassett, "Regression Quantiles", Econometrica 1978.
    """
    above = targets(truth, first_issue, *quantile.shape) - quantile
    loss = np.maximum(level * above, (level - 1.0) * above)
    known = np.isfinite(loss)
    return np.asarray(np.where(known, loss, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1))


def targets(truth: Array, first_issue: int, issues: int, leads: int) -> Floats:
    """The truth that each forecast was about, `[issues, leads]`; NaN beyond its end."""
    padded = np.full(first_issue + issues + leads, np.nan)
    padded[: len(truth)] = truth[: len(padded)]
    windows = np.lib.stride_tricks.sliding_window_view(padded[first_issue:], leads)
    return np.asarray(windows[:issues])


def _run_means(hours: Array, run_h: int) -> Floats:
    """Mean of every run of `run_h` hours along the last axis; NaN where one of them is unknown."""
    return np.asarray(np.lib.stride_tricks.sliding_window_view(hours, run_h, axis=1).mean(axis=-1, dtype=np.float64))


def _mean(values: Array) -> float:
    return float(values.mean()) if len(values) else float("nan")
