"""From a problem to lanes and starts: prices, placing, local search; and back from a warm start when little changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.improving import improve
from carbon_sched.planning.placing import NOWHERE, Field, insert, place, settle
from carbon_sched.planning.prices import Prices, solve_prices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carbon_sched.planning.problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

EXCHANGES = 600
"""Rounds of local search: decisive for a handful of large jobs, next to nothing among thousands."""
WARM_EXCHANGES = 60
MOSTLY, CALM = 0.9, 0.005
MOST_INSERTED = 32
"""Up to this many new jobs are put into a plan whose world has not changed without touching the others."""


@dataclass(frozen=True, eq=False)
class Warm:
    """What an earlier plan leaves: its prices, where its jobs were (new ones: `NOWHERE`), and what they were to cost.

    `paid` `[J]` grams, NaN for new jobs. `stands`: the world has not changed since, but for a few new jobs.
    """

    prices: Prices
    lane: Ints
    start: Ints
    paid: Floats
    stands: bool = False

    def of(self, which: Ints) -> Warm:
        """The same for some of the jobs."""
        return replace(self, lane=self.lane[which], start=self.start[which], paid=self.paid[which])


@dataclass(frozen=True, eq=False)
class Solution:
    """Lane and start slot per job (`NOWHERE` for those without room in their window), and the prices it came from."""

    problem: Problem
    lane: Ints
    start: Ints
    prices: Prices

    @property
    def placed(self) -> NDArray[np.bool_]:
        """`[J]` which jobs have a place."""
        out: NDArray[np.bool_] = self.lane != NOWHERE
        return out

    def costs(self) -> Floats:
        """`[J]` expected grams of every job; what stands for those without a place means nothing."""
        problem = self.problem
        out: Floats = problem.cost[problem.group, self.lane, self.start].astype(np.float64) * problem.units
        return out

    @property
    def grams(self) -> float:
        """Expected grams of the placed jobs."""
        return float(self.costs()[self.placed].sum())


def solve(problem: Problem, warm: Warm | None = None, *, seed: int = 0) -> Solution:
    """A plan for all jobs at once, within capacity; level after level, each with what the ones before have left.

    Args:
        problem: jobs, costs and capacity on one grid.
        warm: an earlier plan on the same grid of slots; what is left of it is mended, unless that turns out worse.
        seed: makes the local search repeatable.
    """
    lane, start = np.full(problem.jobs, NOWHERE), np.full(problem.jobs, NOWHERE)
    prices = Prices(np.zeros((problem.lanes, problem.price_slots)), 0.0, 0)
    capacity = problem.capacity
    for level in np.unique(problem.level):
        which = np.flatnonzero(problem.level == level)
        part = problem.only(which, capacity)
        old = None if warm is None else warm.of(which)
        field, prices = _solve_level(part, old, seed)
        lane[which], start[which] = field.lane, field.start
        capacity = np.maximum(field.free.astype(np.float64), 0.0)
    return Solution(problem, lane, start, prices)


def _solve_level(problem: Problem, warm: Warm | None, seed: int) -> tuple[Field, Prices]:
    if warm is not None and warm.stands and warm.prices.values.shape == (problem.lanes, problem.price_slots):
        field = Field.filled(problem, warm.lane, warm.start)
        if (field.lane == NOWHERE).sum() <= MOST_INSERTED:
            insert(field, warm.prices.values)
            if (field.lane != NOWHERE).all():
                return field, warm.prices
    prices = solve_prices(problem, None if warm is None else warm.prices)
    if warm is not None and prices.near:
        field, calm = _mended(problem, warm, prices.values)
        if not calm:
            field = min(field, place(problem, prices.values, thorough=False), key=_worth)
        improve(field, seed, WARM_EXCHANGES)
        return field, prices
    field = place(problem, prices.values)
    improve(field, seed, EXCHANGES)
    return field, prices


def _mended(problem: Problem, warm: Warm, prices: Floats) -> tuple[Field, bool]:
    """The earlier plan with its new jobs put in and every job moved that now has a better offer; was that little?

    It was if costs have hardly moved and moving jobs gained next to nothing: then no plan made anew is much better.
    """
    field = Field.filled(problem, warm.lane, warm.start)
    kept = field.lane != NOWHERE
    insert(field, prices)
    before = field.costs()
    settle(field)
    moved = np.abs(before[kept] / warm.paid[kept] - 1)
    gained = 1 - field.total() / max(float(before[np.isfinite(before)].sum()), 1e-9)
    calm = kept.mean() >= MOSTLY and float(np.nanmean(moved)) <= CALM and gained <= CALM
    return field, bool(calm and (field.lane != NOWHERE).all())


def _worth(field: Field) -> tuple[int, float]:
    """The fewest jobs without a place, then the least carbon."""
    return int((field.lane == NOWHERE).sum()), field.total()
