"""Putting jobs on lanes and slots within capacity: by price, then again at true cost, then by local search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carbon_sched.planning.problem import Problem

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Ints = NDArray[np.int64]

PRICE_FACTOR = 0.9
"""Prices are scaled down when placing: at full prices too many jobs are indifferent and crowd the wrong slots."""
NOWHERE = -1
PROMOTIONS = 4
EPSILON = 1e-6


class Field:
    """What is still free, and who took what."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.free = problem.capacity.astype(np.float32)
        self.lane = np.full(problem.jobs, NOWHERE)
        self.start = np.full(problem.jobs, NOWHERE)

    @staticmethod
    def filled(problem: Problem, lane: Ints, start: Ints) -> Field:
        """With jobs where they were; those that no longer fit their window or the capacity are nowhere."""
        field = Field(problem)
        inside = (lane != NOWHERE) & (start >= problem.first) & (start <= problem.last)
        cost = problem.cost[problem.group, lane, np.clip(start, 0, problem.starts - 1)]
        for job in np.flatnonzero(inside & np.isfinite(cost)).tolist():
            held = slice(start[job], start[job] + problem.slots[problem.group[job]])
            if field.free[lane[job], held].min() >= problem.units[job] - EPSILON:
                field.put(job, int(lane[job]), int(start[job]))
        return field

    def put(self, job: int, lane: int, start: int) -> None:
        """Take the units of `job` from `start` on."""
        problem = self.problem
        self.lane[job], self.start[job] = lane, start
        self.free[lane, start : start + problem.slots[problem.group[job]]] -= np.float32(problem.units[job])

    def lift(self, job: int) -> tuple[int, int]:
        """Give back what `job` holds; returns where it was."""
        problem, lane, start = self.problem, int(self.lane[job]), int(self.start[job])
        if lane != NOWHERE:
            self.free[lane, start : start + problem.slots[problem.group[job]]] += np.float32(problem.units[job])
            self.lane[job] = NOWHERE
        return lane, start

    def best(self, job: int, cost: Singles) -> tuple[int, int]:
        """The cheapest lane and start with room, by `cost` `[L, S]` per unit; `(NOWHERE, NOWHERE)` if there is none."""
        problem = self.problem
        first, last = int(problem.first[job]), int(problem.last[job])
        units, length = np.float32(problem.units[job] - EPSILON), int(problem.slots[problem.group[job]])
        offers = cost[:, first : last + 1]
        flat = int(offers.argmin())
        lane, start = divmod(flat, last - first + 1)
        if self.free[lane, first + start : first + start + length].min() >= units and np.isfinite(offers[lane, start]):
            return lane, first + start
        taken = np.zeros((problem.lanes, last - first + length + 1), dtype=np.int32)
        np.cumsum(self.free[:, first : last + length] < units, axis=1, out=taken[:, 1:])
        open_ = np.where(taken[:, length:] == taken[:, :-length], offers, np.float32(np.inf))
        flat = int(open_.argmin())
        lane, start = divmod(flat, last - first + 1)
        return (lane, first + start) if np.isfinite(open_[lane, start]) else (NOWHERE, NOWHERE)

    def cost_of(self, job: int) -> float:
        """Grams of `job` where it is; infinite when it is nowhere."""
        problem = self.problem
        if self.lane[job] == NOWHERE:
            return float("inf")
        return float(problem.cost[problem.group[job], self.lane[job], self.start[job]] * problem.units[job])

    def costs(self) -> Floats:
        """`[J]` grams of every job where it is; infinite for those that are nowhere."""
        problem, at = self.problem, self.lane != NOWHERE
        grams: Floats = problem.cost[problem.group, self.lane, self.start] * problem.units
        return np.where(at, grams, np.inf)

    def total(self) -> float:
        """Grams of all placed jobs."""
        costs = self.costs()
        return float(costs[np.isfinite(costs)].sum())


def order(problem: Problem) -> Ints:
    """The urgent first, then the largest amount of work: what is big finds no gap later."""
    return np.lexsort((np.arange(problem.jobs), -problem.work, ~problem.urgent))


def place(problem: Problem, prices: Floats) -> Field:
    """Every job at its best priced offer, urgent and large ones first, then each once more at its true cost.

    Jobs that find no room in their window are put before all others, and everything is placed anew.
    """
    turns = order(problem)
    priced = problem.cost + np.float32(PRICE_FACTOR) * problem.charges(prices)
    field = _placed(problem, priced, turns)
    for _ in range(PROMOTIONS):
        left = field.lane[turns] == NOWHERE
        if not left.any():
            break
        turns = np.concatenate([turns[left], turns[~left]])
        other = _placed(problem, priced, turns)
        if (other.lane == NOWHERE).sum() >= left.sum():
            break
        field = other
    _settle(field, turns)
    return field


def _placed(problem: Problem, priced: Singles, turns: Ints) -> Field:
    field = Field(problem)
    for job in turns:
        lane, start = field.best(job, priced[problem.group[job]])
        if lane != NOWHERE:
            field.put(job, lane, start)
    return field


def mend(field: Field, prices: Floats, effort: int) -> None:
    """Place what is nowhere, then move those that gain most: a plan for a world that has changed a little.

    At most `effort` jobs are moved, first at priced and then at true cost, those with most to gain at the prices.
    """
    problem = field.problem
    priced = problem.cost + np.float32(PRICE_FACTOR) * problem.charges(prices)
    best = problem.windows.least(priced.min(axis=1, initial=np.inf))
    here = np.where(field.lane == NOWHERE, np.inf, priced[problem.group, field.lane, field.start])
    regret = (here - best) * problem.units
    turns = order(problem)
    turns = turns[np.argsort(-np.minimum(regret[turns], 1e15), kind="stable")][:effort]
    turns = turns[regret[turns] > 0]
    for cost in (priced, problem.cost):
        for job in turns:
            field.lift(job)
            lane, start = field.best(job, cost[problem.group[job]])
            if lane != NOWHERE:
                field.put(job, lane, start)


def _settle(field: Field, turns: Ints) -> None:
    """Take every job out once and put it where it truly costs least now."""
    problem = field.problem
    for job in turns:
        field.lift(job)
        lane, start = field.best(job, problem.cost[problem.group[job]])
        if lane != NOWHERE:
            field.put(job, lane, start)
