"""Recorded jobs and grids, for tests and benchmarks: they are no part of the project and lie beside the checkout.

Philly's jobs (Jeon et al., ATC 2019) of at most a day on three clusters of 16 GPUs: a dirty and cheap one at home, a
cleaner one, and the cleanest and dearest, which is tagged as European.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import datetime, timezone
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from carbon_sched.domain.cluster import Cluster, Pool, Pue
from carbon_sched.simulate.setup import Options, scenario
from carbon_sched.simulate.traces import load_grid, load_jobs

if TYPE_CHECKING:
    from carbon_sched.simulate.outcome import Outcome
    from carbon_sched.simulate.scenario import Scenario
    from carbon_sched.simulate.traces import Grid, Jobs

DATA = Path(os.environ.get("CARBON_SCHED_BENCH_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no recorded traces at {DATA} (CARBON_SCHED_BENCH_DATA)")

START = datetime(2022, 3, 1, tzinfo=timezone.utc)
BUSY_H = 28 * 24
"""The trace is nearly empty before its fourth week."""
PUE = Pue(1_200_000, "2026", "benchmark")
GPUS = (Pool("gpu", {"GPU": 8.0}, 2),)
CLUSTERS = (
    Cluster("dallas", "US-TEX-ERCO", PUE, pools=GPUS, home=True, price_per_gpu_hour=2.0),
    Cluster("fresno", "US-CAL-CISO", PUE, pools=GPUS, price_per_gpu_hour=2.05),
    Cluster("madrid", "ES", PUE, pools=GPUS, residency=("EU",), price_per_gpu_hour=2.4),
)


def philly(sample: int, days: float, *, slack: str, forecast: str) -> Scenario:
    """So many of these jobs, drawn at random from a few days of October 2017, as if from 1 March 2022 on.

    Steps are half an hour.
    """
    jobs, grid = _files()
    jobs = jobs.take((jobs.submitted_h >= BUSY_H) & (jobs.hours <= 24) & (jobs.units <= 16))
    asked = Options(START, days, sample, 1, None, slack, forecast, step_min=30)
    return scenario(replace(jobs, submitted_h=jobs.submitted_h - BUSY_H), grid, CLUSTERS, asked)


@cache
def _files() -> tuple[Jobs, Grid]:
    zones = [cluster.zone for cluster in CLUSTERS]
    return load_jobs(DATA / "jobs" / "philly-2017-sep-oct.csv.gz"), load_grid(DATA / "carbon-intensity", zones)


def price(of: Scenario, outcome: Outcome) -> float:
    """What the GPU hours of all jobs cost, in the clusters' currency."""
    prices = np.array([cluster.price_per_gpu_hour for cluster in of.clusters])
    return float(np.sum(prices[outcome.cluster] * of.jobs.units * of.jobs.hours))
