"""What a job would emit from every hour that it may start at: the curve behind a decision, with its band."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from math import ceil
from typing import TYPE_CHECKING

from carbon_sched.domain.decision import StartCost
from carbon_sched.planning.columns import window_of
from carbon_sched.planning.costs import Costs, Lane
from carbon_sched.planning.grid import Grid
from carbon_sched.planning.options import Board

if TYPE_CHECKING:
    from carbon_sched.domain.intensity import Reading
    from carbon_sched.planning.costs import Floats
    from carbon_sched.planning.snapshot import ClusterView, Snapshot, WaitingJob

HOUR_S = 3600.0
MOST_STEPS = 48
"""Two days of hours; a longer window is shown in longer steps."""
ENDS = ("mean", "low", "high")


class StartCurves:
    """Curves for the jobs of one snapshot; what they have in common is computed once."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._costs: dict[tuple[str, Grid], Costs] = {}

    def of(self, job: WaitingJob, cluster: str) -> tuple[StartCost, ...]:
        """Expected grams of `job` on `cluster` by start, from the earliest to the latest that is allowed.

        By the identical method as the decision's; room is not looked at. Low and high are the grams if every hour came
        at its 10 % or 90 % quantile: farther apart than the quantiles of their sum. Empty where the grid is not known,
        and for a job that may not wait.
        """
        earliest, latest = window_of(job, self._snapshot)
        sites = self._boards["mean"].sites
        number = next((i for i, site in enumerate(sites) if site.cluster.name == cluster), None)
        if number is None or sites[number].curve is None or latest <= earliest:
            return ()
        step = HOUR_S * ceil((latest - earliest) / HOUR_S / MOST_STEPS)
        grid = Grid(earliest, step, 1, 0, MOST_STEPS + 1)
        allowed = int((latest - earliest) // step) + 1
        curves = [self._grams(end, grid, job, number)[:allowed].tolist() for end in ENDS]
        return tuple(
            StartCost(self._snapshot.now + timedelta(seconds=grid.time(slot)), *grams)
            for slot, grams in enumerate(zip(*curves, strict=True))
        )

    @cached_property
    def _boards(self) -> dict[str, Board]:
        views = self._snapshot.clusters
        return {
            end: Board.of(replace(self._snapshot, clusters=tuple(_at(view, end) for view in views))) for end in ENDS
        }

    @cached_property
    def _lanes(self) -> list[Lane]:
        return [Lane(i, kind) for i, site in enumerate(self._boards["mean"].sites) for kind in site.room.kinds()]

    def _grams(self, end: str, grid: Grid, job: WaitingJob, number: int) -> Floats:
        if (end, grid) not in self._costs:
            self._costs[end, grid] = Costs(self._boards[end], grid, self._lanes, self._snapshot.home)
        sites, asked = self._boards[end].sites, job.spec.resources
        usable = [i for i, lane in enumerate(self._lanes) if lane.kind in sites[lane.site].room.kinds_for(asked)]
        first = {self._lanes[i].site: i for i in reversed(usable)}
        view = self._costs[end, grid].view(job, usable, tuple(first.get(i) for i in range(len(sites))))
        return view.curve(job.belief, number)


def _at(view: ClusterView, end: str) -> ClusterView:
    readings = tuple(_at_quantile(reading, end) for reading in view.outlook.readings)
    return replace(view, outlook=replace(view.outlook, readings=readings))


def _at_quantile(reading: Reading, end: str) -> Reading:
    value = {"mean": None, "low": reading.low_mg_per_kwh, "high": reading.high_mg_per_kwh}[end]
    return reading if value is None else replace(reading, intensity_mg_per_kwh=value)
