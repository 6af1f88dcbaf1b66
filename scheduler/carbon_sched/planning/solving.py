"""From a problem to lanes and starts: prices, placing, local search; and back from a warm start when little changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.improving import improve
from carbon_sched.planning.placing import NOWHERE, Field, mend, place
from carbon_sched.planning.prices import solve_prices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carbon_sched.planning.problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

EXCHANGES = 600
"""Rounds of local search: decisive for a handful of large jobs, next to nothing among thousands."""
WARM_EXCHANGES = 60
WARM_MOVES = 1200
MOST_WORSE = 0.003
"""A mended plan whose distance to its bound grew by more than this share is made anew."""


@dataclass(frozen=True, eq=False)
class Warm:
    """What an earlier plan leaves: its prices, where its jobs were (new ones: `NOWHERE`), its distance to its bound."""

    prices: Floats
    lane: Ints
    start: Ints
    gap: float


@dataclass(frozen=True, eq=False)
class Solution:
    """Lane and start slot per job (`NOWHERE` for those without room in their window), and the prices it came from.

    `gap` is how far the plan is above the bound that its prices give, as a share of what the jobs would cost if alone.
    """

    problem: Problem
    lane: Ints
    start: Ints
    prices: Floats
    gap: float

    @property
    def placed(self) -> NDArray[np.bool_]:
        """`[J]` which jobs have a place."""
        out: NDArray[np.bool_] = self.lane != NOWHERE
        return out

    @property
    def grams(self) -> float:
        """Expected grams of the placed jobs."""
        at = self.placed
        problem = self.problem
        costs = problem.cost[problem.group[at], self.lane[at], self.start[at]].astype(np.float64)
        return float(np.sum(costs * problem.units[at]))


def solve(problem: Problem, warm: Warm | None = None, *, seed: int = 0) -> Solution:
    """A plan for all jobs at once, within capacity; level after level, each with what the ones before have left.

    Args:
        problem: jobs, costs and capacity on one grid.
        warm: an earlier plan on the same grid of slots; what is left of it is mended, unless that turns out worse.
        seed: makes the local search repeatable.
    """
    lane, start = np.full(problem.jobs, NOWHERE), np.full(problem.jobs, NOWHERE)
    prices, gap = np.zeros((problem.lanes, problem.price_slots)), 0.0
    capacity = problem.capacity
    for level in np.unique(problem.level):
        which = np.flatnonzero(problem.level == level)
        part = problem.only(which, capacity)
        old = None if warm is None else Warm(warm.prices, warm.lane[which], warm.start[which], warm.gap)
        field, prices = _solve_level(part, old, seed)
        gap = max(gap, _gap(field, prices))
        lane[which], start[which] = field.lane, field.start
        capacity = np.maximum(field.free.astype(np.float64), 0.0)
    return Solution(problem, lane, start, prices, gap)


def _solve_level(problem: Problem, warm: Warm | None, seed: int) -> tuple[Field, Floats]:
    prices = solve_prices(problem, None if warm is None else warm.prices)
    if warm is not None and prices.near:
        field = Field.filled(problem, warm.lane, warm.start)
        mend(field, prices.values, WARM_MOVES)
        improve(field, seed, WARM_EXCHANGES)
        if (field.lane != NOWHERE).all() and _gap(field, prices.values) <= warm.gap + MOST_WORSE:
            return field, prices.values
    field = place(problem, prices.values)
    improve(field, seed, EXCHANGES)
    return field, prices.values


def _gap(field: Field, prices: Floats) -> float:
    """What the plan costs above the bound that its prices give, as a share of what the jobs would cost if alone.

    That is what jobs pay above their best priced offer, and room left where it has a price. Urgent jobs are left out:
    lateness counts more than any carbon and would hide the rest.
    """
    problem = field.problem
    priced = problem.cost + problem.charges(prices)
    best = problem.windows.least(priced.min(axis=1, initial=np.inf)) * problem.units
    here = priced[problem.group, field.lane, field.start].astype(np.float64) * problem.units
    count = (field.lane != NOWHERE) & ~problem.urgent
    over = float(np.sum((here - best)[count]))
    dear = np.repeat(prices, problem.coarse, axis=1)[:, : problem.horizon]
    idle = float(np.sum(np.where(dear > 0, field.free, 0.0) * dear)) * problem.step_h
    alone = float(np.sum(problem.wishes[count]))
    return (over + idle) / alone if alone > 0 else 0.0
