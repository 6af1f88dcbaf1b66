"""One zone, one trace: every rule and every bound on when to start, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.trust import trusted
from carbon_sched.simulate.baselines import RULES, rows_ahead, waited
from carbon_sched.simulate.start_time import Rule, Waits, decide, options

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from carbon_sched.simulate.traces import Jobs

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Ints = NDArray[np.int64]

OURS, GATED = "ours", "ours, gate 3 %"
PERFECT, TRUE, MEAN = "perfect forecast", "true durations", "mean-duration rule"
GATE = 0.03
WEEK = 168


@dataclass(frozen=True, eq=False)
class Zone:
    """What is replayed: jobs on the clock of `actual` and `forecast` (row i issued at hour i), slack and beliefs."""

    jobs: Jobs
    slack: Ints
    beliefs: Floats
    actual: Floats
    forecast: Singles

    @property
    def classes(self) -> Ints:
        """Class of each job: by its slack, as it was told at submission."""
        return np.unique(self.slack, return_inverse=True)[1]

    def waits(self, beliefs: Floats | None = None) -> Waits:
        """The replay of this zone with what is believed of the jobs."""
        return Waits(self.jobs, self.slack, self.beliefs if beliefs is None else beliefs, self.classes)


@dataclass(frozen=True, eq=False)
class Replayed:
    """`grams[name]` `[J]` and `waits[name]` `[J]` hours of every policy, beside running at once and the oracle."""

    grams: dict[str, Floats]
    waits: dict[str, Ints]
    now: Floats
    oracle: Floats


def replay(zone: Zone, names: Iterable[str]) -> Replayed:
    """Replay the named policies (ours, its variants, baselines) in one zone."""
    costs = options(zone.jobs, zone.slack, zone.actual)
    rows = np.arange(len(zone.jobs))
    chosen = {name: _chosen(zone, name) for name in names}
    grams = {name: costs[rows, wait] for name, wait in chosen.items()}
    return Replayed(grams, chosen, costs[:, 0], costs.min(axis=1))


def _chosen(zone: Zone, name: str) -> Ints:
    if name in RULES:
        return waited(RULES[name], zone.jobs, zone.slack, zone.beliefs.mean(axis=1) / 3600, zone.forecast, zone.actual)
    forecast, beliefs, rule = zone.forecast, zone.beliefs, Rule()
    if name == GATED:
        rule = Rule(min_gain=GATE, gated=True)
    elif name == PERFECT:
        forecast = rows_ahead(zone.actual, zone.forecast.shape[1])
    elif name == TRUE:
        beliefs = zone.jobs.hours[:, None] * 3600
    elif name == MEAN:
        beliefs = beliefs.mean(axis=1, keepdims=True)
    return decide(zone.waits(beliefs), forecast, 0, rule, trusted(forecast, zone.actual))


def inverted_pct(zone: Zone, week: int) -> float:
    """Percent by which the jobs of one week emit more than at once when its forecasts say the opposite.

    The lie is the forecast mirrored at its own mean. No job is late whatever the forecast says: its window is closed.
    """
    hours = slice(week * WEEK, (week + 1) * WEEK)
    lying = zone.forecast.copy()
    lying[hours] = np.maximum(2 * lying[hours].mean(axis=1, keepdims=True) - lying[hours], 0.0)
    mine = (zone.jobs.submitted_h >= hours.start) & (zone.jobs.submitted_h < hours.stop)
    jobs, slack = zone.jobs.take(mine), zone.slack[mine]
    fooled = Zone(jobs, slack, zone.beliefs[mine], zone.actual, lying)
    wait = decide(fooled.waits(), lying, 0, Rule(), trusted(lying, zone.actual))
    costs = options(jobs, slack, zone.actual)
    return 100 * float(costs[np.arange(len(jobs)), wait].sum() / costs[:, 0].sum() - 1)
