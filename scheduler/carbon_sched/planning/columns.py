"""A snapshot as one problem on a grid: lanes of capacity, groups of jobs that cost alike, windows of slots."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cached_property
from math import log2
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.costs import Costs, Lane, units_of
from carbon_sched.planning.grid import Grid
from carbon_sched.planning.options import FRESH_S, Board, Obstacle, Site, obstacle
from carbon_sched.planning.problem import Problem
from carbon_sched.planning.solving import Expected

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from carbon_sched.planning.snapshot import Snapshot, WaitingJob

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]

LATENESS_G = 1e7
"""What a slot of lateness weighs for a job that should run at once: more than any carbon."""
MOST_URGENT = 6
"""Lateness weighs twice as much with each doubling of the hours by which a job is late, so often at most."""
LATE_REACH_S = 86_400.0
LEAST_WINDOW_S = 3600.0


@dataclass(eq=False)
class Shape:
    """What jobs of one shape may use: the reason against each site, the lanes on the others, where there is room."""

    obstacles: list[Obstacle | None]
    lanes: list[int]
    room_now: list[bool]
    per_site: tuple[int | None, ...]


@dataclass(eq=False)
class Columns:
    """The problem of a snapshot and how to read its answer back: job i of the problem is `jobs[i]`."""

    snapshot: Snapshot
    board: Board
    grid: Grid
    lanes: list[Lane]
    jobs: list[WaitingJob]
    shapes: list[Shape]
    windows: list[tuple[float, float]]
    problem: Problem = field(init=False)
    costs: Costs = field(init=False)

    def __post_init__(self) -> None:
        self.costs = Costs(self.board, self.grid, self.lanes, self.snapshot.home)

    def only(self, which: Sequence[int]) -> Columns:
        """The same for some of the jobs."""
        jobs, shapes = [self.jobs[i] for i in which], [self.shapes[i] for i in which]
        windows = [self.windows[i] for i in which]
        return Columns(self.snapshot, self.board, self.grid, self.lanes, jobs, shapes, windows)

    @cached_property
    def lane_names(self) -> list[tuple[str, str]]:
        """Cluster and kind of every lane."""
        return [(self.board.sites[lane.site].cluster.name, lane.kind) for lane in self.lanes]

    def earliest(self, i: int) -> int:
        """The slot of the earliest start of job i."""
        return self.grid.slot(self.windows[i][0])

    @cached_property
    def hurries(self) -> list[bool]:
        """`[J]` who should start at once: no flexibility is left. They may still be late when all is full."""
        return [latest <= earliest for earliest, latest in self.windows]

    @cached_property
    def urgency(self) -> list[int]:
        """`[J]` 0 for jobs that may still wait, else 1 and more: see `Problem`."""
        now = self.snapshot.now
        late_h = [max((now - job.latest_start).total_seconds() / 3600.0, 0.0) for job in self.jobs]
        rungs = zip(self.hurries, late_h, strict=True)
        return [min(1 + int(log2(1 + hours)), MOST_URGENT) if hurries else 0 for hurries, hours in rungs]

    def free_now(self) -> list[tuple[str, str, float]]:
        """Cluster, kind and free units of every lane before anything is placed, and whether each site answers."""
        answers = [(site.cluster.name, str(site.status and site.status.usable), 0.0) for site in self.board.sites]
        free = [(*name, float(units)) for name, units in zip(self.lane_names, self.problem.capacity[:, 0], strict=True)]
        return answers + free

    def quiet(self, job: WaitingJob) -> list[int]:
        """Slots that begin in hours in which the job may not start; never that of its earliest start."""
        if not job.quiet:
            return []
        now = self.snapshot.now
        first = self.grid.slot((job.earliest_start - now).total_seconds())
        starts = ((slot, now + timedelta(seconds=self.grid.time(slot))) for slot in range(self.grid.starts))
        return [slot for slot, at in starts if slot != first and any(hours.covers(at) for hours in job.quiet)]

    def site(self, lane: int) -> Site:
        """The site of a lane."""
        return self.board.sites[self.lanes[lane].site]


def window_of(job: WaitingJob, snapshot: Snapshot) -> tuple[float, float]:
    """When a job may start, in seconds from now; both ends are equal without flexibility."""
    earliest = max((job.earliest_start - snapshot.now).total_seconds(), 0.0)
    return earliest, max((job.latest_start - snapshot.now).total_seconds(), earliest)


def columns(snapshot: Snapshot, board: Board, jobs: Sequence[WaitingJob]) -> Columns:
    """Lanes, shapes and windows of the jobs that can be placed at all; `build` turns them into a problem."""
    windows = [window_of(job, snapshot) for job in jobs]
    longest = max((job.belief.mean_duration_s for job in jobs), default=0.0)
    freed = [seconds for site in board.sites for seconds in site.room.release_times()]
    # far enough to see when a job that should start at once will find room, if all is full
    reach = max([latest for _, latest in windows] + [min(max([longest, *freed]), LATE_REACH_S)])
    curves = [site.curve for site in board.sites if site.curve is not None]
    grid = Grid.of(
        snapshot.now.timestamp(),
        reach,
        longest,
        curves,
    )
    wanted = {_kind(job) for job in jobs}
    kinds = [[kind for kind in site.room.kinds() if kind.split(":")[0] in wanted] for site in board.sites]
    lanes = [Lane(i, kind) for i, some in enumerate(kinds) for kind in some]
    shapes = _shapes(snapshot, board, lanes, jobs)
    return Columns(snapshot, board, grid, lanes, list(jobs), shapes, windows)


def _shapes(snapshot: Snapshot, board: Board, lanes: list[Lane], jobs: Sequence[WaitingJob]) -> list[Shape]:
    known: dict[tuple[object, ...], Shape] = {}
    out = []
    for job in jobs:
        fresh = (snapshot.now - job.submitted_at).total_seconds() <= FRESH_S
        asked = job.spec.resources
        key = (
            *(tuple(sorted(bundle.as_resources().items())) for bundle in asked.bundles),
            (asked.placement, asked.gpu_type, tuple(sorted(asked.entrypoint_label_selector.items()))),
            (job.spec.rayjob and (bool(job.spec.rayjob.uid), job.spec.rayjob.namespace),),
            (job.spec.clusters, job.residency, job.allowed, job.denied, job.max_price_per_gpu_hour, fresh),
        )
        if key not in known:
            known[key] = _shape(board, lanes, job, fresh=fresh)
        out.append(known[key])
    return out


def _shape(board: Board, lanes: list[Lane], job: WaitingJob, *, fresh: bool) -> Shape:
    obstacles = [obstacle(site, job, fresh=fresh) for site in board.sites]
    kinds = [site.room.kinds_for(job.spec.resources) for site in board.sites]
    allowed = [i for i, lane in enumerate(lanes) if obstacles[lane.site] is None and lane.kind in kinds[lane.site]]
    room = [
        barred is None and site.room.assign(job.spec.resources) is not None
        for site, barred in zip(board.sites, obstacles, strict=True)
    ]
    first = {lanes[i].site: i for i in reversed(allowed)}
    return Shape(obstacles, allowed, room, tuple(first.get(number) for number in range(len(board.sites))))


def expected(of: Columns, level: Callable[[WaitingJob], int]) -> Expected | None:
    """The jobs a snapshot expects, on the lanes and slots of those it has; None without any, or if none may wait.

    What may start later than this grid reaches counts in proportion to the part of its window that lies on it.
    """
    reach = of.grid.time(of.grid.starts - 1)
    windows = [window_of(job, of.snapshot) for job in of.snapshot.expected]
    shapes = _shapes(of.snapshot, of.board, of.lanes, of.snapshot.expected)
    near = [i for i, (earliest, _) in enumerate(windows) if earliest < reach and shapes[i].lanes]
    if not near or all(of.hurries):
        return None
    later = Columns(
        of.snapshot,
        of.board,
        of.grid,
        of.lanes,
        [of.snapshot.expected[i] for i in near],
        [shapes[i] for i in near],
        # one that may not wait at all would bid any price for its moment
        [(a, min(max(z, a + LEAST_WINDOW_S), reach)) for a, z in (windows[i] for i in near)],
    )
    build(later, [job.min_gain for job in later.jobs], [level(job) for job in later.jobs])
    wanted = np.array([max(windows[i][1] - windows[i][0], LEAST_WINDOW_S) for i in near])
    inside = np.array([(z - a) for a, z in later.windows]) / wanted
    return Expected(replace(later.problem, units=later.problem.units * inside), of.snapshot.expected_counts)


def build(of: Columns, least: Sequence[float], level: Sequence[int]) -> None:
    """Fill in `of.problem`.

    `least` is the share by which leaving home must pay, per job; `level` who comes first.
    """
    keys, group = dict[tuple[object, ...], int](), []
    cost: list[Singles] = []
    slots: list[int] = []
    for i, job in enumerate(of.jobs):
        key = (of.costs.key(job, of.shapes[i].lanes), id(of.shapes[i]), of.urgency[i], least[i], job.quiet)
        if key not in keys:
            keys[key] = len(cost)
            cost.append(_cost(of, i, least[i]))
            slots.append(of.grid.length(of.costs.table(job.belief).mean_s))
        group.append(keys[key])
    starts = of.grid.starts
    horizon = starts + max(slots, default=1)
    earliest, latest = np.array(of.windows, dtype=np.float64).reshape(-1, 2).T
    first, urgency = of.grid.slots(earliest), np.array(of.urgency, dtype=np.int64)
    of.problem = Problem(
        step_h=of.grid.step_s / 3600.0,
        coarse=of.grid.coarse,
        cost=np.stack(cost) if cost else np.empty((0, len(of.lanes), starts), dtype=np.float32),
        slots=np.array(slots, dtype=np.int64),
        capacity=_capacity(of, horizon),
        group=np.array(group, dtype=np.int64),
        units=np.array([units_of(job) for job in of.jobs], dtype=np.float64),
        first=first,
        last=np.where(urgency > 0, starts - 1, np.maximum(first, of.grid.slots(latest))),
        level=np.array(level, dtype=np.int64),
        urgency=urgency,
    )


def _cost(of: Columns, i: int, least: float) -> Singles:
    """`[L, S]` grams per unit; infinite on lanes the job may not use and where there is no room right now."""
    shape = of.shapes[i]
    out = of.costs.per_unit(of.jobs[i], shape.lanes, least)
    for lane in shape.lanes:
        if not shape.room_now[of.lanes[lane].site]:
            out[lane, of.grid.now] = np.inf
    out[:, : of.grid.now] = np.inf
    out[:, of.quiet(of.jobs[i])] = np.inf
    if of.urgency[i]:
        weight = LATENESS_G * 2.0 ** (of.urgency[i] - 1)
        out += (weight * np.maximum(np.arange(of.grid.starts) - of.grid.now, 0)).astype(np.float32)
    return out


def _kind(job: WaitingJob) -> str:
    """What kind of lane a job takes."""
    asked = job.spec.resources
    return "gpu" if asked.gpus > 0 else "cpu" if asked.cpus > 0 else "any"


def _capacity(of: Columns, horizon: int) -> Floats:
    """`[L, T]` free units: what is free now, and what our own open attempts are expected to give back."""
    out = np.empty((len(of.lanes), horizon))
    for i, lane in enumerate(of.lanes):
        room = of.board.sites[lane.site].room
        out[i] = room.units(lane.kind)
        for seconds, freed in room.releases(lane.kind):
            out[i, min(of.grid.slot_after(seconds), horizon) :] += freed
    return out
