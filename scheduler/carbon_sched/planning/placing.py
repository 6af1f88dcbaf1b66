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
    Bools = NDArray[np.bool_]

PRICE_FACTORS = (0.91, 0.97, 0.94)
"""When placing, jobs see the prices times one of these factors in turn: at full prices, or all at the same, too many
are indifferent between the same slots and crowd there."""
NOWHERE = -1
PROMOTIONS = 4
PLACINGS, MOST_TRIES = 16_000, 8
"""A placing is tried in several orders, as often as this many placed jobs allow: the fewer jobs there are, the more it
depends on the order where a large one ends up."""
EPSILON = 1e-6
CLOSED = np.float32(np.inf)
ALL = slice(None)


class Field:
    """What is still free, `[T, L]`, and who took what.

    Lanes come last here: all that a job looks at, its window on every lane, then lies in one piece.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.free = problem.capacity.T.astype(np.float32, order="C")
        self.lane = np.full(problem.jobs, NOWHERE)
        self.start = np.full(problem.jobs, NOWHERE)
        self._asked = problem.asked

    @staticmethod
    def filled(problem: Problem, lane: Ints, start: Ints) -> Field:
        """With jobs where they were; those that no longer fit their window or the capacity are nowhere."""
        field = Field(problem)
        inside = (lane != NOWHERE) & (start >= problem.first) & (start <= problem.last)
        cost = problem.cost[problem.group, lane, np.clip(start, 0, problem.starts - 1)]
        fits = np.flatnonzero(inside & np.isfinite(cost))
        change = np.zeros((problem.lanes, problem.horizon + 1))
        np.add.at(change, (lane[fits], start[fits]), problem.units[fits])
        np.add.at(change, (lane[fits], start[fits] + problem.slots[problem.group[fits]]), -problem.units[fits])
        free = problem.capacity - np.cumsum(change[:, :-1], axis=1)
        if free.min(initial=0.0) >= -EPSILON:
            field.free = free.T.astype(np.float32, order="C")
            field.lane[fits], field.start[fits] = lane[fits], start[fits]
            return field
        for job in fits.tolist():
            held = slice(start[job], start[job] + problem.slots[problem.group[job]])
            if field.free[held, lane[job]].min() >= problem.units[job] - EPSILON:
                field.put(job, int(lane[job]), int(start[job]))
        return field

    def put(self, job: int, lane: int, start: int) -> None:
        """Take the units of `job` from `start` on."""
        asked = self._asked[job]
        self.lane[job], self.start[job] = lane, start
        self.free[start : start + asked.slots, lane] -= asked.units

    def lift(self, job: int) -> tuple[int, int]:
        """Give back what `job` holds; returns where it was."""
        asked, lane, start = self._asked[job], int(self.lane[job]), int(self.start[job])
        if lane != NOWHERE:
            self.free[start : start + asked.slots, lane] += asked.units
            self.lane[job] = NOWHERE
        return lane, start

    def offers(self, job: int) -> Singles:
        """`[window, L]` cost per unit of every start in the job's window."""
        return self.windowed(self.problem.by_start, job)

    def windowed(self, table: Singles, job: int) -> Singles:
        """The part of a table `[G, S, L]` that is about a job."""
        asked = self._asked[job]
        out: Singles = table[asked.group, asked.first : asked.end]
        return out

    def best(self, job: int, offers: Singles) -> tuple[int, int]:
        """The start and lane with room that is cheapest by `offers`, the earliest of equals; `NOWHERE` without any."""
        asked = self._asked[job]
        first, length = asked.first, asked.slots
        free = self.free[first : first + len(offers) + length - 1] >= asked.units - EPSILON
        open_ = np.where(_room(free, length), offers, CLOSED)
        start, lane = divmod(int(open_.argmin()), offers.shape[1])
        return (lane, first + start) if open_[start, lane] < CLOSED else (NOWHERE, NOWHERE)

    def cost_of(self, job: int) -> float:
        """Grams of `job` where it is; infinite when it is nowhere."""
        problem = self.problem
        if self.lane[job] == NOWHERE:
            return float("inf")
        return float(problem.cost[problem.group[job], self.lane[job], self.start[job]] * problem.units[job])

    def costs(self, of: Ints | slice = ALL) -> Floats:
        """Grams of every job, or of those asked for, where it is; infinite for those that are nowhere."""
        problem, lane = self.problem, self.lane[of]
        grams: Floats = problem.cost[problem.group[of], lane, self.start[of]] * problem.units[of]
        return np.where(lane != NOWHERE, grams, np.inf)

    def total(self) -> float:
        """Grams of all placed jobs."""
        costs = self.costs()
        return float(costs[np.isfinite(costs)].sum())


def _room(free: Bools, length: int) -> Bools:
    """`[W, L]` whether `length` slots in a row are free from each of the first W on; `free` is `[W + length - 1, L]`.

    Twice as many in each step: two overlapping stretches without a gap make a longer one.
    """
    known = 1
    while known < length:
        more = min(known, length - known)
        free, known = free[:-more] & free[more:], known + more
    return free


def order(problem: Problem, *, by_length: bool = True) -> Ints:
    """The pressing first, then the largest amount of work: what is big finds no gap later.

    Among the large, the long come first; or, not `by_length`, those with few starts to choose from. Equals of one group
    come together.
    """
    weight = problem.work * np.sqrt(problem.slots[problem.group])
    if not by_length:
        weight = problem.work / (problem.last - problem.first + 1)
    return np.lexsort((np.arange(problem.jobs), problem.group, -weight, -problem.urgency, ~problem.pressing))


def place(problem: Problem, prices: Floats, *, tries: int | None = None) -> Field:
    """Every job at its best priced offer in one order or another, then each once more at its true cost.

    Which order is best depends on how large the jobs are, so the best of several counts (`tries`, else as many as the
    effort allows). Jobs that find no room in their window are put before all others, and everything is placed anew.
    """
    charges = np.ascontiguousarray(problem.charges(prices).swapaxes(1, 2))
    count = tries or min(max(PLACINGS // max(problem.jobs, 1), 1), MOST_TRIES)
    done = []
    for number in range(count):
        done.append(_insisting(problem, charges, order(problem, by_length=number % 2 == 0), number // 2))
        settle(done[-1])
    return min(done, key=worth)


def worth(field: Field) -> tuple[int, int, float]:
    """The fewest pressing jobs without a place, then the fewest of all, then the least carbon."""
    return *_missing(field), field.total()


def _missing(field: Field) -> tuple[int, int]:
    """How many jobs have no place: of the pressing ones, who are late then, and of all."""
    nowhere = field.lane == NOWHERE
    return int((nowhere & field.problem.pressing).sum()), int(nowhere.sum())


def _insisting(problem: Problem, charges: Singles, turns: Ints, shift: int = 0) -> Field:
    """Placed in turn; those left over go first in the next attempt."""
    field = _placed(problem, charges, turns, shift)
    for _ in range(PROMOTIONS):
        left = field.lane[turns] == NOWHERE
        if not left.any():
            break
        turns = np.concatenate([turns[left], turns[~left]])
        other = _placed(problem, charges, turns, shift)
        if _missing(other) >= _missing(field):
            break
        field = other
    return field


def _placed(problem: Problem, charges: Singles, turns: Ints, shift: int) -> Field:
    """`shift` says which of the price factors the first job gets."""
    field = Field(problem)
    for number, job in enumerate(turns.tolist(), start=shift):
        factor = np.float32(PRICE_FACTORS[number % len(PRICE_FACTORS)])
        lane, start = field.best(job, field.offers(job) + factor * field.windowed(charges, job))
        if lane != NOWHERE:
            field.put(job, lane, start)
    return field


def insert(field: Field, prices: Floats) -> None:
    """Place what is nowhere at its best priced offer and leave the rest alone: an arrival between two plans."""
    problem, paid = field.problem, field.problem.paid(prices)
    for job in np.flatnonzero(field.lane == NOWHERE).tolist():
        begin = np.arange(problem.first[job], problem.last[job] + 1)
        charge = paid[:, begin + problem.slots[problem.group[job]]] - paid[:, begin]
        lane, start = field.best(job, field.offers(job) + charge.T.astype(np.float32))
        if lane != NOWHERE:
            field.put(job, lane, start)


def settle(field: Field) -> None:
    """Take every job that is not at its best offer out once and put it where it truly costs least now."""
    turns = order(field.problem)
    _reinsert(field, turns[(field.costs() > field.problem.wishes)[turns]])


def mend(field: Field) -> None:
    """The same, but only for jobs that a free place elsewhere would serve better than theirs.

    Whom it would serve is asked of one kind of jobs after another: what those before have taken tempts none in vain.
    """
    for alike in _kinds(field.problem):
        _reinsert(field, alike[_could_gain(field, alike)])


def hasten(field: Field) -> None:
    """Bring jobs forward to their first slot while there is room then, those whose windows end first before others."""
    problem = field.problem
    later = np.flatnonzero((field.lane != NOWHERE) & (field.start > problem.first))
    for job in later[np.argsort(problem.last[later], kind="stable")].tolist():
        at_once = field.offers(job).copy()
        at_once[1:] = CLOSED
        before = field.lift(job)
        lane, start = field.best(job, at_once)
        field.put(job, *((lane, start) if lane != NOWHERE else before))


def _reinsert(field: Field, jobs: Ints) -> None:
    for job in jobs.tolist():
        field.lift(job)
        lane, start = field.best(job, field.offers(job))
        if lane != NOWHERE:
            field.put(job, lane, start)


def _kinds(problem: Problem) -> list[Ints]:
    """The jobs in their order, cut where group or size change."""
    turns = order(problem)
    changes = np.diff([problem.group[turns], problem.units[turns]]).any(axis=0)
    return [alike for alike in np.split(turns, np.flatnonzero(changes) + 1) if len(alike)]


def _could_gain(field: Field, alike: Ints) -> Bools:
    """`[n]` which jobs of one kind have a cheaper start in their window, with room for it beside their own place."""
    problem = field.problem
    group, units = int(problem.group[alike[0]]), problem.units[alike[0]]
    first, end = problem.first[alike], problem.last[alike] + 1
    begin, length = int(first.min()), int(problem.slots[group])
    seen = slice(begin, int(end.max()))
    room = _room(field.free[begin : seen.stop + length - 1] >= units - EPSILON, length)
    least = np.append(np.where(room, problem.by_start[group, seen], CLOSED).min(axis=1), CLOSED)
    best = np.minimum.reduceat(least, np.stack([first, end], axis=1).ravel() - begin)[::2]
    out: Bools = best * units < field.costs(alike)
    return out
