"""Static batches to measure the planner on: recorded jobs and grids, clusters sized for a stated utilisation."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from carbon_sched.planning.problem import Problem
from carbon_sched.planning.solving import Expected

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
    `expected` are further samples of the same arrivals, drawn apart, that a planner may expect.
    """

    problem: Problem
    capacity: float
    utilisation: float
    at_once_g: float
    expected: Expected | None = None


@dataclass(frozen=True, eq=False)
class _Sample:
    """Run time in slots, units, slot of arrival and slots of patience, per job."""

    slots: Ints
    units: Floats
    first: Ints
    slack: Ints


def draw(batch: Batch, jobs: Jobs, grid: Grid, zones: Sequence[str], *, expected: int = 0) -> Drawn:
    """Draw a batch, and `expected` further samples of its arrivals.

    Arrivals are uniform over the span; slack is six hours below two hours of run time, a day above.
    """
    real = _sample(batch, jobs, np.random.default_rng(batch.seed))
    others = [_sample(batch, jobs, np.random.default_rng((batch.seed, number))) for number in range(1, expected + 1)]
    per_hour = round(1 / batch.slot_h)
    span = batch.span_h * per_hour
    lengths = np.unique(np.concatenate([sample.slots for sample in (real, *others)]))
    starts = span + 24 * per_hour + 1
    work = float(np.sum(real.units * real.slots))
    capacity = max(round(work / (batch.utilisation * span * len(zones))), batch.most_units, batch.least_capacity)
    empty = Problem(
        step_h=batch.slot_h,
        coarse=per_hour,
        cost=_costs(grid, zones, batch, lengths, starts),
        slots=lengths,
        capacity=np.full((len(zones), starts + int(lengths.max())), float(capacity)),
        **_columns(_together([]), lengths),
    )
    problem = replace(empty, **_columns(real, lengths))
    coming = Expected(replace(empty, **_columns(_together(others), lengths)), 1 / expected) if expected else None
    at_once = problem.cost[problem.group, :, real.first].mean(axis=1).astype(np.float64)
    used = work / (capacity * span * len(zones))
    return Drawn(problem, capacity, used, float(np.sum(at_once * real.units)), coming)


def _sample(batch: Batch, jobs: Jobs, rng: np.random.Generator) -> _Sample:
    pick = rng.choice(len(jobs), batch.jobs, replace=len(jobs) < batch.jobs)
    per_hour = round(1 / batch.slot_h)
    slots = np.maximum(np.ceil(np.minimum(jobs.hours[pick], batch.longest_h) * per_hour), 1).astype(np.int64)
    units = np.minimum(np.ceil(jobs.units[pick]), batch.most_units)
    first = np.sort(rng.integers(0, batch.span_h * per_hour, batch.jobs))
    return _Sample(slots, units, first, np.where(slots < 2 * per_hour, 6, 24) * per_hour)


def _together(samples: Sequence[_Sample]) -> _Sample:
    """Several samples as one."""
    zero = np.empty(0, dtype=np.int64)
    parts = [_Sample(zero, np.empty(0), zero, zero), *samples]
    return _Sample(
        np.concatenate([sample.slots for sample in parts]),
        np.concatenate([sample.units for sample in parts]),
        np.concatenate([sample.first for sample in parts]),
        np.concatenate([sample.slack for sample in parts]),
    )


def _columns(sample: _Sample, lengths: Ints) -> dict[str, Any]:
    """What a problem says of each job."""
    count = len(sample.slots)
    return {
        "group": np.searchsorted(lengths, sample.slots),
        "units": sample.units,
        "first": sample.first,
        "last": sample.first + sample.slack,
        "level": np.zeros(count, dtype=np.int64),
        "urgency": np.zeros(count, dtype=np.int64),
    }


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
