"""Jobs that become known when they arrive: the production solver, asked anew at every arrival and every hour."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.placing import NOWHERE
from carbon_sched.planning.solving import Expected, Warm, solve

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from carbon_sched.planning.prices import Prices
    from carbon_sched.planning.problem import Problem

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

FORESEEN_H = 48
"""Arrivals are expected this far ahead: as far as the jobs that are there may still run into."""


@dataclass(frozen=True, eq=False)
class Replayed:
    """Lane and start slot of every job, and how many began after the last slot of their window."""

    lane: Ints
    start: Ints
    grams: float
    late: int


def replay(problem: Problem, expected: Expected | None) -> Replayed:
    """Place every job of `problem`, each known from its first slot on; none that has started is ever moved.

    `expected` are other samples of the arrivals, for a planner that has seen such weeks before; None: it expects none.
    """
    clock = _Clock(problem, expected)
    slot = 0
    while (clock.start == NOWHERE).any():
        clock.step(slot)
        slot += 1
    grams = float(problem.grams(clock.lane, clock.start).sum())
    return Replayed(clock.lane, clock.start, grams, int((clock.start > problem.last).sum()))


@dataclass(eq=False)
class _Clock:
    """Who has started where, what is left of the capacity, and where the others are meant to go."""

    problem: Problem
    expected: Expected | None
    prices: Prices | None = None
    lane: Ints = field(init=False)
    start: Ints = field(init=False)
    meant: tuple[Ints, Ints] = field(init=False)
    capacity: Floats = field(init=False)

    def __post_init__(self) -> None:
        self.lane, self.start = (np.full(self.problem.jobs, NOWHERE) for _ in range(2))
        self.meant = self.lane.copy(), self.start.copy()
        self.capacity = self.problem.capacity.copy()

    def step(self, slot: int) -> None:
        """Plan where something happened, and start what is due."""
        waiting = np.flatnonzero((self.problem.first <= slot) & (self.start == NOWHERE))
        hourly = slot % self.problem.coarse == 0
        if hourly or (self.meant[0][waiting] == NOWHERE).any():
            self._plan(slot, waiting, hourly=hourly)
        for job in waiting[(self.meant[0][waiting] != NOWHERE) & (self.meant[1][waiting] == slot)].tolist():
            self._begin(job, slot)

    def _plan(self, slot: int, waiting: Ints, *, hourly: bool) -> None:
        known = self.problem.only(waiting, self.capacity)
        # one that found no room in its window is late: it starts as soon as there is room
        part = replace(
            known,
            first=np.maximum(known.first, slot),
            last=np.maximum(known.last, slot),
            urgency=(known.last <= slot).astype(np.int64),
        )
        warm = None
        if self.prices is not None:
            lane, start = self.meant[0][waiting], self.meant[1][waiting]
            paid = np.where(lane == NOWHERE, np.nan, part.grams(lane, start))
            warm = Warm(self.prices, lane, start, paid, stands=not hourly)
        plan = solve(part, warm, expected=self._coming(slot), seed=slot)
        self.prices = plan.prices
        self.meant[0][waiting], self.meant[1][waiting] = plan.lane, plan.start

    def _coming(self, slot: int) -> Expected | None:
        if self.expected is None:
            return None
        first = self.expected.problem.first
        soon = np.flatnonzero((first > slot) & (first <= slot + FORESEEN_H * self.problem.coarse))
        return replace(self.expected, problem=self.expected.problem.only(soon, self.capacity)) if len(soon) else None

    def _begin(self, job: int, slot: int) -> None:
        problem, lane = self.problem, int(self.meant[0][job])
        self.lane[job], self.start[job] = lane, slot
        self.capacity[lane, slot : slot + problem.slots[problem.group[job]]] -= problem.units[job]
