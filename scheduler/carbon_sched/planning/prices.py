"""Capacity prices: what an hour of one unit is worth on each lane, from the smoothed Lagrangian dual.

Relaxing capacity with prices leaves every job a choice of its own, so any prices give a lower bound of the emissions of
any plan, and the best ones equal the linear relaxation of the time-indexed problem. The dual is not smooth; with each
job's minimum replaced by a soft minimum of falling temperature, accelerated projected gradients work (Nesterov, "Smooth
minimization of non-smooth functions", 2005; restarts after O'Donoghue and Candes, 2015).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.problem import Problem, Segments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Ints = NDArray[np.int64]

COOLING = (0.05, 0.0125)
"""Temperatures, as shares of the mean cost of a unit-hour."""
ROUNDS = 60
CONVERGING_ROUNDS = 120
SETTLED = 1e-3
WARM_COOLING = (0.0125,)
WARM_ROUNDS = 10
FAINT = np.float32(-80.0)
"""Offers that are dearer by more temperatures than this count as if by this many: nothing, and `exp` of much less is
ten times as slow."""
NEAR_ENOUGH, AS_NEAR = 0.2, 2.0
"""Warm prices must leave at most this share of the load out of balance, or this multiple of what they left before."""


@dataclass(frozen=True, eq=False)
class Prices:
    """`values` `[L, price slots]` in grams per unit-hour, and how far from balance they still are.

    `unbalanced` is the load above capacity plus the room left where it is priced, as a share of all load; `near`: warm
    prices proved good enough.
    """

    values: Floats
    unbalanced: float
    rounds: int
    near: bool = False


def solve_prices(problem: Problem, warm: Prices | None = None) -> Prices:
    """Prices for a problem; from `warm` ones of the same shape only a few rounds, if they prove to be near."""
    dual = _Dual(problem)
    start = np.zeros((problem.lanes, problem.price_slots))
    if warm is not None and warm.values.shape == start.shape:
        found = _cool(dual, np.maximum(warm.values, 0.0), WARM_COOLING, WARM_ROUNDS)
        if found.unbalanced <= max(NEAR_ENOUGH, AS_NEAR * warm.unbalanced):
            # what was left before is remembered, so that a chain of warm plans cannot drift away step by step
            return replace(found, unbalanced=warm.unbalanced, near=True)
    return _cool(dual, start, COOLING, ROUNDS)


def price_path(problem: Problem) -> Iterator[tuple[float, Floats]]:
    """Prices at lower and lower temperatures, many times dearer than those that plans are made with: for bounds."""
    dual, prices = _Dual(problem), np.zeros((problem.lanes, problem.price_slots))
    for share in (*COOLING, 0.006, 0.003, 0.0015, 0.0007, 0.0003):
        prices, _, _ = _ascend(dual, prices, share * dual.level, CONVERGING_ROUNDS)
        yield share, prices


def _cool(dual: _Dual, prices: Floats, cooling: Sequence[float], rounds: int) -> Prices:
    done, unbalanced = 0, 0.0
    for share in cooling:
        prices, used, unbalanced = _ascend(dual, prices, share * dual.level, rounds)
        done += used
    return Prices(prices, unbalanced, done)


def lower_bound(problem: Problem, prices: Floats) -> float:
    """Grams that no plan can go below: the unsmoothed dual at `prices`, exact on the grid of slots."""
    own = problem.windows.least((problem.cost + problem.charges(prices)).min(axis=1, initial=np.inf))
    finite = np.where(np.isfinite(problem.price_capacity), problem.price_capacity, 0.0)
    return float(np.sum(problem.units * own) - np.sum(prices * finite))


def _ascend(dual: _Dual, start: Floats, temperature: float, rounds: int) -> tuple[Floats, int, float]:
    """Accelerated projected gradient on the smoothed dual; one evaluation a round.

    A round that lost value halves the step and starts again from the best prices so far; a slope against the direction
    of travel only drops the momentum. Returns the prices, the rounds used, and the share of load out of balance.
    """
    prices = ahead = best = start
    momentum, step = 1.0, 4.0 * temperature
    top, unbalanced, done = -np.inf, 0.0, 0
    for _ in range(rounds):
        done += 1
        value, slope = dual.evaluate(ahead, temperature)
        if value < top:
            prices = ahead = best
            momentum, step, top = 1.0, step * 0.5, -np.inf
            continue
        best, top, unbalanced = ahead, value, dual.unbalanced(ahead, slope)
        if unbalanced <= SETTLED:
            break
        moved = np.maximum(ahead + step * slope, 0.0)
        if np.sum(slope * dual.weight * (moved - prices)) < 0:
            momentum = 1.0
        grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = np.maximum(moved + (momentum - 1) / grown * (moved - prices), 0.0)
        prices, momentum, step = moved, grown, step * 1.1
    return best, done, unbalanced


class _Dual:
    """The smoothed dual of one problem on the grid of price slots: value and slope at given prices.

    Only pairs of group and start that some job could take are looked at: A of them in order of time, `[L, A]` offers.
    Jobs with the same group and window are one here, with the sum of their work.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._windows(problem)
        group, self._begins = self._pairs
        self._slots = problem.slots[group].astype(np.float32)
        self._hours = self._slots * np.float32(problem.step_h)
        cost = problem.cost.swapaxes(0, 1)[:, group, self._begins] / self._hours
        self._cost = np.where(np.isfinite(cost), cost, np.float32(1e30))
        self._ends = np.minimum(self._begins + problem.slots[group], problem.horizon)
        self._by_begin, self._by_end = _Runs.of(self._begins), _Runs.of(self._ends)
        self._limited = np.isfinite(problem.price_capacity)
        self.weight = np.where(self._limited, np.maximum(problem.price_capacity, 1e-9), 1.0)
        self.level = self._level()

    def _windows(self, problem: Problem) -> None:
        """Every window on the grid of price slots as indices into the pairs that occur, and the unit-hours in it."""
        width = -(-problem.starts // problem.coarse)
        last = np.minimum(problem.last // problem.coarse, width - 1)
        first = np.minimum(problem.first // problem.coarse, last)
        same, which = np.unique((problem.group * width + first) * width + last, return_inverse=True)
        self._amount = np.bincount(which, weights=problem.work * problem.step_h, minlength=len(same))
        rest, last = np.divmod(same, width)
        group, first = np.divmod(rest, width)
        segments = Segments.of(group, first, last, width)
        groups = len(problem.slots)
        pairs, which = np.unique(segments.flat % width * groups + segments.flat // width, return_inverse=True)
        self._window = replace(segments, flat=which)
        begins = np.minimum(pairs // max(groups, 1) * problem.coarse, problem.starts - 1)
        self._pairs = pairs % max(groups, 1), begins

    def _level(self) -> float:
        """Mean cost of a unit-hour at the jobs' best offers, in grams."""
        wishes, amount = self._problem.wishes, self._problem.work * self._problem.step_h
        known = np.isfinite(wishes) & (amount > 0)
        return max(float(np.mean(wishes[known] / amount[known])), 1e-6) if known.any() else 1.0

    def evaluate(self, prices: Floats, temperature: float) -> tuple[float, Floats]:
        """The smoothed bound in grams, and its slope per price in units of capacity (load / capacity - 1)."""
        heat = np.float32(temperature)
        lanes = self._charges(prices)
        lanes += self._cost
        least = lanes.min(axis=0)
        np.subtract(least, lanes, out=lanes)
        over = _shares(lanes, heat).sum(axis=0)
        choice, value = self._jobs(least - heat * np.log(over), heat)
        mass = np.bincount(self._window.flat, weights=choice, minlength=len(least))
        lanes *= (mass / over / self._slots).astype(np.float32)
        slope = np.where(self._limited, self._load(lanes) / self.weight - 1.0, -1.0)
        offered = np.sum(np.where(self._limited, prices * self.weight, 0.0))
        return float(value - offered), slope

    def _jobs(self, best: Singles, heat: np.float32) -> tuple[Floats, float]:
        """Unit-hours that every window's jobs put on each of its starts, and the sum of their soft minima in grams."""
        window = self._window
        if len(window.flat) == 0:
            return np.empty(0), 0.0
        seen = best[window.flat]
        least = np.minimum.reduceat(seen, window.begin)
        share = _shares(least[window.owner] - seen, heat)
        over = np.add.reduceat(share, window.begin)
        value = least - heat * np.log(over)
        return share * (self._amount / over)[window.owner], float(np.sum(self._amount * value))

    def _charges(self, prices: Floats) -> Singles:
        """`[L, A]` price per unit-hour of a run, averaged over its length."""
        paid = self._problem.paid(prices).astype(np.float32)
        out: Singles = paid.take(self._ends, axis=1)
        out -= paid.take(self._begins, axis=1)
        out /= self._hours
        return out

    def _load(self, mass: Singles) -> Floats:
        """`[L, price slots]` unit-hours in use when `mass` units per slot of a run are begun per pair and lane."""
        problem = self._problem
        change = np.zeros((problem.lanes, problem.horizon + 1))
        self._by_begin.add(change, mass, 1.0)
        self._by_end.add(change, mass, -1.0)
        running = np.cumsum(change[:, :-1], axis=1)
        out: Floats = np.add.reduceat(running, np.arange(0, problem.horizon, problem.coarse), axis=1)
        return out

    def unbalanced(self, prices: Floats, slope: Floats) -> float:
        """Load above capacity, and room left where it is priced, as a share of all load."""
        moves = np.where(prices > 0, np.abs(slope), np.maximum(slope, 0.0))
        return float(np.sum(moves * self.weight * self._limited) / max(self._amount.sum(), 1e-9))


def _shares(below: Singles, heat: np.float32) -> Singles:
    """In place: how much offers count that are `below` nought by this many grams."""
    below /= heat
    np.maximum(below, FAINT, out=below)
    return np.exp(below, out=below)


@dataclass(frozen=True, eq=False)
class _Runs:
    """Which columns of a table belong to which slot, for adding them up quickly; `order` None: they are in order."""

    order: Ints | None
    slots: Ints
    begins: Ints

    @staticmethod
    def of(slot: Ints) -> _Runs:
        sorted_ = bool(np.all(slot[1:] >= slot[:-1]))
        order = None if sorted_ else np.argsort(slot, kind="stable")
        slots, begins = np.unique(slot if order is None else slot[order], return_index=True)
        return _Runs(order, slots, begins)

    def add(self, into: Floats, columns: Singles, sign: float) -> None:
        """Add the sum of each slot's columns to it."""
        if len(self.slots):
            ordered = columns if self.order is None else columns.take(self.order, axis=1)
            into[:, self.slots] += sign * np.add.reduceat(ordered, self.begins, axis=1)
