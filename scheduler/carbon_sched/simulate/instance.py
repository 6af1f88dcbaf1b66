"""Static batches to measure the planner on: recorded jobs and grids, clusters sized for a stated utilisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from carbon_sched.simulate.traces import Grid, Jobs

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

LONGEST_H = 72.0


@dataclass(frozen=True)
class Batch:
    """What a batch is drawn from: how many jobs, how large at most (units), how busy, from which hour of the grid.

    Utilisation is work / (capacity x arrival span), with jobs capped in size before the capacity is computed from them;
    capping by the capacity instead would make the label meaningless.
    """

    jobs: int
    most_units: float
    utilisation: float
    seed: int = 0
    start_h: int = 4000
    span_h: int = 144
    slot_h: float = 0.25
    longest_h: float = LONGEST_H
    least_capacity: float = 0.0


@dataclass(frozen=True, eq=False)
class Drawn:
    """A problem, the units of each cluster, the utilisation that rounding led to, and what running at once would emit.

    `at_once_g` is the run-now-here reference: every job at its submission, homes spread evenly, room for all.
    """

    problem: Problem
    capacity: float
    utilisation: float
    at_once_g: float


def draw(batch: Batch, jobs: Jobs, grid: Grid, zones: Sequence[str]) -> Drawn:
    """Draw a batch; arrivals are uniform over the span, slack is six hours below two hours of run time, a day above."""
    rng = np.random.default_rng(batch.seed)
    pick = rng.choice(len(jobs), batch.jobs, replace=len(jobs) < batch.jobs)
    per_hour = round(1 / batch.slot_h)
    slots = np.maximum(np.ceil(np.minimum(jobs.hours[pick], batch.longest_h) * per_hour), 1).astype(np.int64)
    units = np.minimum(np.ceil(jobs.units[pick]), batch.most_units)
    span = batch.span_h * per_hour
    first = np.sort(rng.integers(0, span, batch.jobs))
    slack = np.where(slots < 2 * per_hour, 6, 24) * per_hour
    lengths, group = np.unique(slots, return_inverse=True)
    starts = span + 24 * per_hour + 1
    horizon = starts + int(lengths.max())
    work = float(np.sum(units * slots))
    capacity = max(round(work / (batch.utilisation * span * len(zones))), batch.most_units, batch.least_capacity)
    problem = Problem(
        step_h=batch.slot_h,
        coarse=per_hour,
        cost=_costs(grid, zones, batch, lengths, starts),
        slots=lengths,
        capacity=np.full((len(zones), horizon), float(capacity)),
        group=group,
        units=units,
        first=first,
        last=first + slack,
        level=np.zeros(batch.jobs, dtype=np.int64),
        urgent=np.zeros(batch.jobs, dtype=np.bool_),
    )
    at_once = problem.cost[group, :, first].mean(axis=1).astype(np.float64)
    used = work / (capacity * span * len(zones))
    return Drawn(problem, capacity, used, float(np.sum(at_once * units)))


def _costs(grid: Grid, zones: Sequence[str], batch: Batch, lengths: Ints, starts: int) -> NDArray[np.float32]:
    """`[G, L, S]` grams of a unit of one kilowatt, run for each length from each start."""
    per_hour = round(1 / batch.slot_h)
    hours = -(-(starts + int(lengths.max())) // per_hour)
    seen = np.stack([grid.zones[zone][batch.start_h : batch.start_h + hours] for zone in zones])
    if seen.shape[1] < hours or not np.isfinite(seen).all():
        raise ValueError(f"the grid does not cover {hours} hours from hour {batch.start_h} for {', '.join(zones)}")
    total = np.cumsum(np.repeat(seen, per_hour, axis=1), axis=1) * batch.slot_h
    total = np.concatenate([np.zeros((len(zones), 1)), total], axis=1)
    begin = np.arange(starts)
    return np.stack([total[:, begin + length] - total[:, begin] for length in lengths]).astype(np.float32)
