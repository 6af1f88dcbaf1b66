"""From a problem to lanes and starts: prices, placing, local search; and back from a warm start when little changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.improving import improve
from carbon_sched.planning.placing import NOWHERE, Field, mend, place
from carbon_sched.planning.prices import lower_bound, solve_prices

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

    `gap` is how far above the bound that these prices give, as a share of it.
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
    """A plan for all jobs at once, within capacity.

    Args:
        problem: jobs, costs and capacity on one grid.
        warm: an earlier plan on the same grid of slots; what is left of it is mended, unless that turns out worse.
        seed: makes the local search repeatable.
    """
    prices = solve_prices(problem, None if warm is None else warm.prices)
    if warm is not None and prices.near:
        field = Field.filled(problem, warm.lane, warm.start)
        mend(field, prices.values, WARM_MOVES)
        improve(field, seed, WARM_EXCHANGES)
        mended = _solution(field, prices.values)
        if mended.placed.all() and mended.gap <= warm.gap + MOST_WORSE:
            return mended
    field = place(problem, prices.values)
    improve(field, seed, EXCHANGES)
    return _solution(field, prices.values)


def _solution(field: Field, prices: Floats) -> Solution:
    bound = lower_bound(field.problem, prices)
    gap = field.total() / bound - 1 if bound > 0 else 0.0
    return Solution(field.problem, field.lane, field.start, prices, gap)
