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

COOLING = (0.05, 0.0125, 0.006)
"""Temperatures, as shares of the mean cost of a unit-hour."""
ROUNDS = 40
CONVERGING_ROUNDS = 120
SETTLED = 1e-3
WARM_COOLING = (0.025, 0.006)
WARM_ROUNDS = 10
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
    for share in (*COOLING, 0.003, 0.0015, 0.0007, 0.0003):
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

    Only pairs of group and start that some job could take are looked at: A of them, `[A, L]` offers.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._windows(problem)
        group, begin = self._pairs
        self._hours = (problem.slots[group] * problem.step_h).astype(np.float32)
        cost = problem.cost[group, :, begin] / self._hours[:, None]
        self._cost = np.where(np.isfinite(cost), cost, np.float32(1e30))
        self._ends = np.minimum(begin + problem.slots[group], problem.horizon)
        self._by_begin, self._by_end = _Rows.of(begin), _Rows.of(self._ends)
        self._amount = problem.work * problem.step_h
        self._limited = np.isfinite(problem.price_capacity)
        self.weight = np.where(self._limited, np.maximum(problem.price_capacity, 1e-9), 1.0)
        self.level = self._level()

    def _windows(self, problem: Problem) -> None:
        """Every job's starts on the grid of price slots, as indices into the pairs that occur."""
        q = problem.coarse
        width = -(-problem.starts // q)
        last = np.minimum(problem.last // q, width - 1)
        segments = Segments.of(problem.group, np.minimum(problem.first // q, last), last, width)
        pairs, which = np.unique(segments.flat, return_inverse=True)
        self._window = replace(segments, flat=which)
        self._pairs = pairs // width, np.minimum(pairs % width * q, problem.starts - 1)

    def _level(self) -> float:
        """Mean cost of a unit-hour at the jobs' best offers, in grams."""
        wishes = self._problem.wishes
        known = np.isfinite(wishes) & (self._amount > 0)
        return max(float(np.mean(wishes[known] / self._amount[known])), 1e-6) if known.any() else 1.0

    def evaluate(self, prices: Floats, temperature: float) -> tuple[float, Floats]:
        """The smoothed bound in grams, and its slope per price in units of capacity (load / capacity - 1)."""
        heat = np.float32(temperature)
        lanes = self._cost + self._charges(prices)
        least = lanes.min(axis=1, initial=np.inf)
        np.subtract(least[:, None], lanes, out=lanes)
        lanes /= heat
        np.exp(lanes, out=lanes)
        over = lanes.sum(axis=1)
        choice, value = self._jobs(least - heat * np.log(over), heat)
        mass = np.bincount(self._window.flat, weights=choice, minlength=len(least))
        lanes *= (mass / over).astype(np.float32)[:, None]
        slope = np.where(self._limited, self._load(lanes) / self.weight - 1.0, -1.0)
        offered = np.sum(np.where(self._limited, prices * self.weight, 0.0))
        return float(value - offered), slope

    def _jobs(self, best: Singles, heat: np.float32) -> tuple[Floats, float]:
        """Unit-hours that every job puts on each of its starts, and the sum of their soft minima in grams."""
        window = self._window
        if len(window.flat) == 0:
            return np.empty(0), 0.0
        seen = best[window.flat]
        least = np.minimum.reduceat(seen, window.begin)
        share = np.exp((least[window.owner] - seen) / heat)
        over = np.add.reduceat(share, window.begin)
        value = least - heat * np.log(over)
        return share * (self._amount / over)[window.owner], float(np.sum(self._amount * value))

    def _charges(self, prices: Floats) -> Singles:
        """`[A, L]` price per unit-hour of a run, averaged over its length."""
        paid = self._problem.paid(prices).T.astype(np.float32)
        out: Singles = paid[self._ends] - paid[self._pairs[1]]
        out /= self._hours[:, None]
        return out

    def _load(self, mass: Singles) -> Floats:
        """`[L, price slots]` unit-hours in use when `mass` unit-hours per pair and lane are chosen."""
        problem = self._problem
        mass /= problem.slots[self._pairs[0]].astype(np.float32)[:, None]
        change = np.zeros((problem.horizon + 1, problem.lanes))
        self._by_begin.add(change, mass, 1.0)
        self._by_end.add(change, mass, -1.0)
        running = np.cumsum(change[:-1], axis=0)
        return np.add.reduceat(running, np.arange(0, problem.horizon, problem.coarse), axis=0).T

    def unbalanced(self, prices: Floats, slope: Floats) -> float:
        """Load above capacity, and room left where it is priced, as a share of all load."""
        moves = np.where(prices > 0, np.abs(slope), np.maximum(slope, 0.0))
        return float(np.sum(moves * self.weight * self._limited) / max(self._amount.sum(), 1e-9))


@dataclass(frozen=True, eq=False)
class _Rows:
    """Which rows of a table belong to which slot, for adding them up quickly."""

    order: Ints
    slots: Ints
    begins: Ints

    @staticmethod
    def of(slot: Ints) -> _Rows:
        order = np.argsort(slot, kind="stable")
        slots, begins = np.unique(slot[order], return_index=True)
        return _Rows(order, slots, begins)

    def add(self, into: Floats, rows: Singles, sign: float) -> None:
        """Add the sum of each slot's rows to it."""
        if len(self.slots):
            into[self.slots] += sign * np.add.reduceat(rows[self.order], self.begins, axis=0)
