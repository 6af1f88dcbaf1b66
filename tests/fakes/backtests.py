"""Small scenarios for backtests: a few clusters, a few jobs, grids with a daily rhythm."""

from __future__ import annotations

from datetime import datetime, timezone

import numpy as np

from carbon_sched.domain.cluster import Cluster, Pool, Pue
from carbon_sched.simulate.setup import Options, scenario
from carbon_sched.simulate.traces import Grid, Jobs

START = datetime(2026, 1, 1, tzinfo=timezone.utc)
DAYS = 50
HISTORY_DAYS = 28


def a_grid(**zones) -> Grid:
    """Hourly series from START on; a number is a constant, a function is given the hours."""
    hours = np.arange(DAYS * 24.0)
    made = {zone: of(hours) if callable(of) else np.full(len(hours), float(of)) for zone, of in zones.items()}
    return Grid(START, made)


def daily(mean: float, swing: float, peak_h: float = 18.0):
    """A wave that is highest at `peak_h` of every day."""
    return lambda hours: mean + swing * np.cos((hours - peak_h) / 24 * 2 * np.pi)


def some_jobs(count: int, *, hours=2.0, units=1.0, every_h=1.0) -> Jobs:
    """One job after another."""
    return Jobs(np.arange(count) * every_h, np.full(count, hours), np.full(count, units))


def a_cluster(name: str, zone: str, *, gpus: float | None = None, pue: float = 1.0, home: bool = False) -> Cluster:
    pools = () if gpus is None else (Pool("p", {"GPU": gpus}, 1),)
    return Cluster(name, zone, Pue(round(pue * 1e6), "2026", "test"), pools=pools, home=home)


def a_scenario(jobs: Jobs, clusters, grid: Grid, **options):
    return scenario(
        jobs, grid, clusters, Options(**{"forecast": "perfect", "slack": "none", "step_min": 60, **options})
    )
