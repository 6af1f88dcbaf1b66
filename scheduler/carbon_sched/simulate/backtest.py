"""A backtest: policies beside baselines and bounds on one scenario, as the figures that are printed and drawn."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from carbon_sched.domain.time import to_rfc3339
from carbon_sched.ledger.uncollected import uncollected
from carbon_sched.simulate import bounds
from carbon_sched.simulate.feed import forecasts
from carbon_sched.simulate.outcome import Outcome, started
from carbon_sched.simulate.replay import replay
from carbon_sched.simulate.rivals import FIXED, HERE, baseline
from carbon_sched.simulate.shares import Bootstrap, Share, worst_month_pct

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from carbon_sched.policy.model import Policy
    from carbon_sched.simulate.scenario import Scenario

    Floats = NDArray[np.float64]
    Progress = Callable[[str, float], None]
    """Is told what is being done and the share of it that is done."""

DEFAULT_BASELINES = (
    *(HERE, FIXED, "greedy-now", "lowest-slot", "lowest-window", "carbon-time"),
    *("threshold+max-delay", "cats-48h", "wait-awhile", "ecovisor"),
)


@dataclass(frozen=True, eq=False)
class Result:
    """One policy or baseline: what came of it, and how long that took to find."""

    name: str
    outcome: Outcome
    wall_s: float
    ours: bool = False


@dataclass(frozen=True, eq=False)
class Bounds:
    """`start_time` `[J]` grams of the start-time oracle; the others are sums in grams."""

    start_time: Floats
    perfect_forecast_g: float
    true_duration_g: float
    suspend_oracle_g: float
    capacity_bound_g: float

    @property
    def reachable(self) -> float:
        """What the best schedule within capacity may emit at least, in grams."""
        return self.capacity_bound_g


@dataclass(frozen=True, eq=False)
class Backtest:
    """Everything that was found; `here` and `fixed` are the reference results, run or asked for."""

    scenario: Scenario
    results: tuple[Result, ...]
    bounds: Bounds
    here: Result
    fixed: Result


def run(
    scenario: Scenario,
    policies: Sequence[Policy],
    baselines: Sequence[str] = DEFAULT_BASELINES,
    *,
    seed: int = 0,
    progress: Progress | None = None,
) -> Backtest:
    """Replay every policy through the production code, run the baselines, and find the bounds."""
    tell = progress or (lambda _what, _share: None)
    results = [_replayed(scenario, policy, tell) for policy in policies]
    rivals: dict[str, Result] = {}
    wanted = list(dict.fromkeys((HERE, FIXED, *baselines)))
    for number, name in enumerate(wanted):
        tell(f"baseline {name}", number / len(wanted))
        begun = time.perf_counter()
        rivals[name] = Result(name, baseline(name, scenario), time.perf_counter() - begun)
    shown = [rivals[name] for name in dict.fromkeys(baselines)]
    return Backtest(scenario, (*results, *shown), _bounds(scenario, seed, tell), rivals[HERE], rivals[FIXED])


def _replayed(scenario: Scenario, policy: Policy, tell: Progress) -> Result:
    begun = time.perf_counter()
    with uncollected():
        done = replay(scenario, policy, progress=lambda share: tell(f"policy {policy.name}", share))
    outcome = started(scenario, done.cluster, done.start_h)
    return Result(policy.label, outcome, time.perf_counter() - begun, ours=True)


def _bounds(scenario: Scenario, seed: int, tell: Progress) -> Bounds:
    tell("bounds", 0.0)
    oracle = bounds.start_time_oracle(scenario)
    perfect = forecasts("perfect", scenario.truth, list(scenario.truth), scenario.start, scenario.begin, seed)
    tell("bounds", 0.1)
    with_forecast = float(bounds.ruled(scenario, perfect, bounds.beliefs(scenario)).sum())
    tell("bounds", 0.3)
    with_durations = float(bounds.ruled(scenario, scenario.forecast, scenario.jobs.hours[:, None] * 3600).sum())
    tell("bounds", 0.5)
    suspend = float(bounds.suspend_oracle(scenario).sum())
    tell("bounds", 0.7)
    return Bounds(oracle.grams, with_forecast, with_durations, suspend, bounds.capacity_bound(scenario, oracle))


# figures -------------------------------------------------------------------------------------------------------------


class Figures:
    """Percentages as in the field's usage, with 90 % intervals from resampled days."""

    def __init__(self, of: Backtest, seed: int = 0) -> None:
        self._of = of
        self._days = np.floor(of.scenario.jobs.submitted_h / 24).astype(np.int64)
        self.bootstrap = Bootstrap(self._days, seed)
        self._here, self._fixed = of.here.outcome.grams, of.fixed.outcome.grams

    def saving(self, outcome: Outcome) -> Share:
        """Percent of run-now-here."""
        return self.bootstrap.saving(self._here, outcome.grams)

    def of_oracle(self, outcome: Outcome) -> Share | None:
        """(run-now-here - policy) / (run-now-here - the capacity-aware oracle); None where nothing can be saved."""
        oracle = self._oracle(self._here)
        return None if oracle is None else self.bootstrap.share(self._here, outcome.grams, oracle)

    def dynamic_pct(self, outcome: Outcome) -> float | None:
        """(best-fixed - policy) / (best-fixed - the capacity-aware oracle); None where nothing can be saved."""
        possible = self._fixed.sum() - self._of.bounds.reachable
        if possible <= NOTABLE * self._fixed.sum():
            return None
        return 100 * float((self._fixed.sum() - outcome.grams.sum()) / possible)

    def worst_month_pct(self, outcome: Outcome) -> float:
        """By how much the worst month was worse than best-fixed."""
        return worst_month_pct(self._of.scenario.jobs.submitted_h, self._fixed, outcome.grams)

    def _oracle(self, reference: Floats) -> Floats | None:
        """The oracle's grams per job. What capacity takes from its saving is taken from every job in proportion."""
        own = self._of.bounds.start_time
        possible = float(reference.sum() - own.sum())
        reachable = float(reference.sum() - self._of.bounds.reachable)
        if reachable <= NOTABLE * reference.sum():
            return None
        return reference - (reference - own) * (reachable / possible)


NOTABLE = 1e-3
"""Savings below this share are none: a percentage of them would be noise."""


def as_json(of: Backtest, setup: dict[str, Any], seed: int = 0) -> dict[str, Any]:
    """The document of `--json`; None where a percentage has no meaning."""
    figures = Figures(of, seed)
    limits = of.bounds
    return {
        "setup": setup,
        "results": [_row(result, figures) for result in of.results],
        "bounds": {
            "start_time_oracle_g": float(limits.start_time.sum()),
            "perfect_forecast_g": limits.perfect_forecast_g,
            "true_duration_g": limits.true_duration_g,
            "suspend_oracle_g": limits.suspend_oracle_g,
            "capacity_bound_g": limits.capacity_bound_g,
        },
    }


def _row(result: Result, figures: Figures) -> dict[str, Any]:
    outcome, share = result.outcome, figures.of_oracle(result.outcome)
    return {
        "policy": result.name,
        "co2e_g": float(outcome.grams.sum()),
        "saving_pct": figures.saving(outcome).percent,
        "oracle_pct": share and share.percent,
        "oracle_pct_low": share and share.low,
        "oracle_pct_high": share and share.high,
        "dynamic_pct": figures.dynamic_pct(outcome),
        "mean_wait_h": float(outcome.wait_h.mean()),
        "p95_wait_h": float(np.quantile(outcome.wait_h, 0.95)),
        "deadline_misses": int(outcome.late.sum()),
        "worst_month_regret_pct": figures.worst_month_pct(outcome),
        "wall_s": round(result.wall_s, 3),
    }


def setup_of(scenario: Scenario) -> dict[str, Any]:
    """What was replayed, for the document's `setup`."""
    jobs = scenario.jobs
    span_h = max(float(jobs.submitted_h.max() - jobs.submitted_h.min()), scenario.step_h)
    work, units = float(np.sum(jobs.units * scenario.held)) * scenario.step_h, float(scenario.units.sum())
    for_all = units >= len(scenario.clusters) * float(jobs.units.sum())
    return {
        "start": to_rfc3339(scenario.start),
        "days": round(span_h / 24, 2),
        "jobs": len(jobs),
        "unit": scenario.resource,
        "unit_power_w": round(scenario.unit_kw * 1000, 3),
        "step_min": round(scenario.step_h * 60),
        "utilisation": None if for_all else round(work / (units * span_h), 4),
        "largest_job_of_cluster": round(float(jobs.units.max() / scenario.units.max()), 4),
        "clusters": [
            {"name": c.name, "zone": c.zone, "pue": c.pue.ppm / 1e6, "units": float(units), "home": c.home}
            for c, units in zip(scenario.clusters, scenario.units, strict=True)
        ],
    }
