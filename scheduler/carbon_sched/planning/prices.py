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
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Ints = NDArray[np.int64]

COOLING = (0.05, 0.0125)
"""Temperatures, as shares of the mean cost of a unit-hour."""
ROUNDS = 28
SETTLED = 1e-3
WARM_COOLING = (0.025, 0.0125)
WARM_ROUNDS = 7
MOST_UNBALANCED = 0.4
"""Warm prices that still leave this share of the load out of balance were not near: start anew."""


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


def solve_prices(problem: Problem, warm: Floats | None = None) -> Prices:
    """Prices for a problem; from `warm` ones of the same shape only a few rounds, if they prove to be near."""
    dual = _Dual(problem)
    start = np.zeros((problem.lanes, problem.price_slots))
    if warm is not None and warm.shape == start.shape:
        found = _cool(dual, np.maximum(warm, 0.0), WARM_COOLING, WARM_ROUNDS)
        if found.unbalanced <= MOST_UNBALANCED:
            return replace(found, near=True)
    return _cool(dual, start, COOLING, ROUNDS)


def converged_prices(problem: Problem) -> Prices:
    """Prices for a bound that is worth the name; many times dearer than those that plans are made with."""
    start = np.zeros((problem.lanes, problem.price_slots))
    return _cool(_Dual(problem), start, (*COOLING, 0.006, 0.003, 0.0015, 0.0007, 0.0003), 150)


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
    """The smoothed dual of one problem on the coarse grid: value and slope at given prices."""

    def __init__(self, problem: Problem) -> None:
        q = problem.coarse
        self._begin = np.minimum(np.arange(0, problem.starts, q), problem.starts - 1)
        self._problem = problem
        self._hours = (problem.slots * problem.step_h).astype(np.float32)
        self._cost = problem.cost[:, :, self._begin] / self._hours[:, None, None]
        self._cost = np.where(np.isfinite(self._cost), self._cost, np.float32(1e30))
        last = np.minimum(problem.last // q, len(self._begin) - 1)
        self._window = Segments.of(problem.group, problem.first // q, last, len(self._begin))
        self._amount = problem.units * self._hours[problem.group]
        self.level = self._level()
        self._limited = np.isfinite(problem.price_capacity)
        self.weight = np.where(self._limited, np.maximum(problem.price_capacity, 1e-9), 1.0)

    def _level(self) -> float:
        """Mean cost of a unit-hour at the jobs' best offers, in grams."""
        wishes = self._problem.wishes
        known = np.isfinite(wishes) & (self._amount > 0)
        return max(float(np.mean(wishes[known] / self._amount[known])), 1e-6) if known.any() else 1.0

    def evaluate(self, prices: Floats, temperature: float) -> tuple[float, Floats]:
        """The smoothed bound in grams, and its slope per price in units of capacity (load / capacity - 1)."""
        heat = np.float32(temperature)
        total = self._cost + self._charges(prices)
        least = total.min(axis=1, initial=np.inf)
        lanes = np.exp((least[:, None, :] - total) / heat)
        over = lanes.sum(axis=1)
        best = least - heat * np.log(over)
        lanes /= over[:, None, :]
        choice, value = self._jobs(best.ravel(), heat)
        mass = np.bincount(self._window.flat, weights=choice, minlength=best.size).reshape(best.shape)
        load = self._load(lanes * mass[:, None, :])
        slope = np.where(self._limited, load / self.weight - 1.0, -1.0)
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
        """`[G, L, coarse starts]` price per unit-hour of a run, averaged over its length."""
        return self._problem.charges(prices, self._begin) / self._hours[:, None, None]

    def _load(self, mass: Floats) -> Floats:
        """`[L, price slots]` unit-hours in use when `mass` unit-hours per group, lane and start are chosen."""
        problem, q = self._problem, self._problem.coarse
        per_slot = mass / problem.slots[:, None, None]
        change = np.zeros((problem.lanes, problem.horizon + 1))
        change[:, self._begin] = per_slot.sum(axis=0)
        for length in np.unique(problem.slots):
            ends = np.minimum(self._begin + length, problem.horizon)
            change[:, ends] -= per_slot[problem.slots == length].sum(axis=0)
        running = np.cumsum(change[:, :-1], axis=1)
        return np.add.reduceat(running, np.arange(0, problem.horizon, q), axis=1)

    def unbalanced(self, prices: Floats, slope: Floats) -> float:
        """Load above capacity, and room left where it is priced, as a share of all load."""
        moves = np.where(prices > 0, np.abs(slope), np.maximum(slope, 0.0))
        return float(np.sum(moves * self.weight * self._limited) / max(self._amount.sum(), 1e-9))
