"""Grams that no plan can go below, whatever it does: the capacity bound, and its convergence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from carbon_sched.planning.prices import lower_bound, price_path

if TYPE_CHECKING:
    from carbon_sched.planning.problem import Problem


@dataclass(frozen=True)
class CapacityBound:
    """The Lagrangian bound in grams, and the bounds that lower and lower temperatures gave on the way there."""

    grams: float
    path: tuple[tuple[float, float], ...]

    @property
    def last_gain(self) -> float:
        """Share by which the last two temperatures still raised the best bound before them: how converged it is."""
        *before, _, _ = [grams for _, grams in self.path]
        return self.grams / max(before) - 1 if before else 0.0


def capacity_bound(problem: Problem) -> CapacityBound:
    """Non-preemptive jobs within capacity, durations and intensities known: the linear relaxation, from its dual.

    Any prices give a valid bound, so one that has not converged overstates a plan's distance to it, never hides it.
    """
    path = tuple((heat, lower_bound(problem, prices)) for heat, prices in price_path(problem))
    return CapacityBound(max(grams for _, grams in path), path)
