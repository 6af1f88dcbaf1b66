"""From a problem to lanes and starts: prices, placing, local search; and back from a warm start when little changed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.improving import improve
from carbon_sched.planning.placing import NOWHERE, Field, hasten, insert, mend, place, worth
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
KEPT = 0.95
"""Share of the prices that counts as a cost where arrivals are expected; without any, prices only guide the placing."""
EASY_LOAD, MOST_RESERVED = 0.7, 0.5
"""What the work ahead exceeds this share of the capacity is the share of every window that is planned into only by jobs
that find no room before: their place may be what a wide or urgent newcomer needs, and they then still have time."""
FULL_LOAD = 0.9
"""While it exceeds this share, nothing that is free is left idle: what waits now would be in the way of what comes."""
MOST_INSERTED = 32
"""Up to this many new jobs are put into a plan whose world has not changed without touching the others."""
MOST_COMPARED = 64
"""Up to so many jobs every plan that began from an earlier one is held against a fresh one: a few large jobs decide
then, and a fresh plan takes a fraction of a second. How near the two are among more, `make bench-plan-speed` prints."""
WORTH_MOVING = 0.004
"""Share of the grams that a fresh plan must save before jobs are moved for it."""


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
class Expected:
    """Jobs that are likely to be submitted, on the lanes and starts of a problem; each `counts` as a share of itself.

    They never take the place of a job that is there; but the room they will ask for has its price, and the next one
    that cannot wait has its room.
    """

    problem: Problem
    counts: float = 1.0

    def of(self, level: int) -> Expected | None:
        """Those that come before or with the jobs of a level."""
        which = np.flatnonzero(self.problem.level <= level)
        return replace(self, problem=self.problem.only(which, self.problem.capacity)) if len(which) else None

    def joined(self, problem: Problem) -> Problem:
        """The jobs there are and those expected, for the prices."""
        return problem.joined(self.problem, self.counts)


@dataclass(frozen=True, eq=False)
class Solution:
    """Lane and start slot per job (`NOWHERE` for those without room in their window), and the prices it came from.

    `load` `[J]` is what the jobs of each one's level and those expected ask of the capacity left to them, as a share; 0
    where none are expected, or room was found without asking.
    """

    problem: Problem
    lane: Ints
    start: Ints
    prices: Prices
    load: Floats

    @property
    def full(self) -> NDArray[np.bool_]:
        """`[J]` whether that is so much that nobody was left to wait where there is room."""
        out: NDArray[np.bool_] = self.load > FULL_LOAD
        return out

    @property
    def placed(self) -> NDArray[np.bool_]:
        """`[J]` which jobs have a place."""
        out: NDArray[np.bool_] = self.lane != NOWHERE
        return out

    def costs(self) -> Floats:
        """`[J]` expected grams of every job; what stands for those without a place means nothing."""
        return self.problem.grams(self.lane, self.start)

    @property
    def grams(self) -> float:
        """Expected grams of the placed jobs."""
        return float(self.costs()[self.placed].sum())


def solve(problem: Problem, warm: Warm | None = None, *, expected: Expected | None = None, seed: int = 0) -> Solution:
    """A plan for all jobs at once, within capacity; level after level, each with what the ones before have left.

    Args:
        problem: jobs, costs and capacity on one grid.
        warm: an earlier plan on the same grid of slots; what is left of it is mended, unless that turns out worse.
        expected: jobs that are likely to come, whose wishes count in the prices.
        seed: makes the local search repeatable.
    """
    made = _level_by_level(problem, warm, expected, seed)
    if warm is None or problem.jobs > MOST_COMPARED or _unbeatable(made):
        return made
    fresh = _level_by_level(problem, None, expected, seed)
    return fresh if _better(fresh, made) else made


def _level_by_level(problem: Problem, warm: Warm | None, expected: Expected | None, seed: int) -> Solution:
    lane, start = np.full(problem.jobs, NOWHERE), np.full(problem.jobs, NOWHERE)
    prices = Prices(np.zeros((problem.lanes, problem.price_slots)), 0.0, 0)
    capacity, load = problem.capacity, np.zeros(problem.jobs)
    for level in np.unique(problem.level):
        which = np.flatnonzero(problem.level == level)
        coming = None if expected is None else expected.of(int(level))
        of = _Level(problem.only(which, capacity), coming, None if warm is None else warm.of(which), seed)
        field, prices, load[which] = of.solved()
        lane[which], start[which] = field.lane, field.start
        capacity = np.maximum(field.free.T.astype(np.float64), 0.0)
    return Solution(problem, lane, start, prices, load)


def _unbeatable(made: Solution) -> bool:
    """Whether every job has so nearly its best offer that no other plan would be worth moving jobs for."""
    return bool(made.placed.all()) and made.problem.wishes.sum() >= (1 - WORTH_MOVING) * made.grams


def _better(fresh: Solution, made: Solution) -> bool:
    """Whether a fresh plan is worth moving jobs for: it leaves fewer out, the first levels first, or saves enough."""
    levels = np.unique(fresh.problem.level)
    out = [[int((~of.placed)[of.problem.level == level].sum()) for level in levels] for of in (fresh, made)]
    if out[0] != out[1]:
        return out[0] < out[1]
    return fresh.grams < (1 - WORTH_MOVING) * made.grams


@dataclass(frozen=True, eq=False)
class _Level:
    """The jobs of one level, what is expected beside them, and what an earlier plan left of them."""

    problem: Problem
    expected: Expected | None
    warm: Warm | None
    seed: int

    def solved(self) -> tuple[Field, Prices, float]:
        """Where the jobs are put, at which prices, and the load: see `Solution`."""
        return self._inserted() or self._replanned()

    def _inserted(self) -> tuple[Field, Prices, float] | None:
        """The earlier plan with a few new jobs in it, while the world stands and they find room."""
        problem, warm = self.problem, self.warm
        if warm is None or not warm.stands or warm.prices.values.shape != (problem.lanes, problem.price_slots):
            return None
        field = Field.filled(problem, warm.lane, warm.start)
        if (field.lane == NOWHERE).sum() > MOST_INSERTED:
            return None
        insert(field, warm.prices.values)
        return (field, warm.prices, 0.0) if (field.lane != NOWHERE).all() else None

    def _replanned(self) -> tuple[Field, Prices, float]:
        problem, warm = self.problem, self.warm
        asked = problem if self.expected is None else self.expected.joined(problem)
        prices = solve_prices(asked, None if warm is None else warm.prices)
        if self.expected is None:
            return self._placed(problem, prices.values, near=prices.near), prices, 0.0
        dearer, rest = problem.dearer(KEPT * prices.values), (1 - KEPT) * prices.values
        early = dearer.hastened(min(max(asked.load - EASY_LOAD, 0.0), MOST_RESERVED))
        field = self._placed(early, rest, near=prices.near)
        squeezed = (field.lane == NOWHERE) & (early.last < problem.last)
        if squeezed.any():
            eased = replace(early, last=np.where(squeezed, problem.last, early.last))
            field = self._placed(eased, rest, near=prices.near)
        if asked.load > FULL_LOAD:
            hasten(field)
        return field, prices, asked.load

    def _placed(self, problem: Problem, prices: Floats, *, near: bool) -> Field:
        """Jobs put where the costs of `problem` and the prices say, from the earlier plan if it is near."""
        if near and self.warm is not None:
            field, calm = self._mended(problem, self.warm, prices)
            if not calm:
                field = min(field, place(problem, prices, tries=1), key=worth)
            improve(field, self.seed, WARM_EXCHANGES)
            return field
        field = place(problem, prices)
        if self.warm is not None and (field.lane == NOWHERE).any():
            # who had a place keeps it, however much carbon another plan would save
            field = min(field, self._mended(problem, self.warm, prices)[0], key=worth)
        improve(field, self.seed, EXCHANGES)
        return field

    def _mended(self, problem: Problem, warm: Warm, prices: Floats) -> tuple[Field, bool]:
        """The earlier plan with its new jobs put in and every job moved that has a better offer; was that little?

        It was if costs have hardly moved and moving jobs gained next to nothing: then no plan made anew is much better.
        """
        field = Field.filled(problem, warm.lane, warm.start)
        kept = field.lane != NOWHERE
        insert(field, prices)
        before = field.costs()
        moved = np.abs(self.problem.grams(field.lane, field.start)[kept] / warm.paid[kept] - 1)
        mend(field)
        gained = 1 - field.total() / max(float(before[np.isfinite(before)].sum()), 1e-9)
        calm = kept.mean() >= MOSTLY and float(np.nanmean(moved)) <= CALM and gained <= CALM
        return field, bool(calm and (field.lane != NOWHERE).all())
