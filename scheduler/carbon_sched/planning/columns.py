"""A snapshot as one problem on a grid: lanes of capacity, groups of jobs that cost alike, windows of slots."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import exp, log
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning.grid import Grid
from carbon_sched.planning.options import FRESH_S, Board, Obstacle, Site, obstacle
from carbon_sched.planning.problem import Problem
from carbon_sched.planning.transfer import transfer_g

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from carbon_sched.planning.snapshot import Belief, Snapshot, WaitingJob

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]

LENGTH_STEP = 0.04
"""Beliefs whose mean run times differ by less than this share are planned as one."""
TAIL_STEP = 0.2
POWER_STEP = 0.1
LATENESS_G = 1e7
"""What a slot of lateness weighs for a job that should run at once: more than any carbon."""
LATE_REACH_S = 86_400.0
UNKNOWN_G = 1e6
"""What a kilowatt counts on a cluster whose grid is not known: it is taken only where nothing else is open."""


@dataclass(frozen=True)
class Lane:
    """Capacity of one kind on one site: GPUs of a type, CPUs, or room for what asks for neither (`any`)."""

    site: int
    kind: str


@dataclass(eq=False)
class Shape:
    """What jobs of one shape may use: the reason against each site, the lanes on the others, where there is room."""

    obstacles: list[Obstacle | None]
    lanes: list[int]
    room_now: list[bool]


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
    tables: Tables = field(init=False)

    def __post_init__(self) -> None:
        self.tables = Tables(self)

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

    def hurries(self, i: int) -> bool:
        """Whether job i should start at once: it has no flexibility left. It may still be late when all is full."""
        earliest, latest = self.windows[i]
        return latest <= earliest

    def free_now(self) -> list[tuple[str, str, float]]:
        """Cluster, kind and free units of every lane before anything is placed, and whether each site answers."""
        answers = [(site.cluster.name, str(site.status and site.status.usable), 0.0) for site in self.board.sites]
        free = [(*name, float(units)) for name, units in zip(self.lane_names, self.problem.capacity[:, 0], strict=True)]
        return answers + free

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
            (job.spec.clusters, job.residency, fresh),
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
    return Shape(obstacles, allowed, room)


def build(of: Columns, least: Sequence[float], level: Sequence[int]) -> None:
    """Fill in `of.problem`.

    `least` is the share by which leaving home must pay, per job; `level` who comes first.
    """
    keys, group = dict[tuple[object, ...], int](), []
    cost: list[Singles] = []
    slots: list[int] = []
    for i, job in enumerate(of.jobs):
        table = of.tables.of(job.belief)
        key = (id(table), _power_step(job), id(of.shapes[i]), of.hurries(i), least[i], job.spec.data)
        if key not in keys:
            keys[key] = len(cost)
            cost.append(of.tables.cost(job, table, of.shapes[i], least[i], hurry=of.hurries(i)))
            slots.append(of.grid.length(table.mean_s))
        group.append(keys[key])
    starts = of.grid.starts
    horizon = starts + max(slots, default=1)
    first = [of.grid.slot(earliest) for earliest, _ in of.windows]
    last = [max(a, of.grid.slot(latest)) for a, (_, latest) in zip(first, of.windows, strict=True)]
    last = [starts - 1 if of.hurries(i) else z for i, z in enumerate(last)]
    of.problem = Problem(
        step_h=of.grid.step_s / 3600.0,
        coarse=of.grid.coarse,
        cost=np.stack(cost) if cost else np.empty((0, len(of.lanes), starts), dtype=np.float32),
        slots=np.array(slots, dtype=np.int64),
        capacity=_capacity(of, horizon),
        group=np.array(group, dtype=np.int64),
        units=np.array([units_of(job) for job in of.jobs], dtype=np.float64),
        first=np.array(first, dtype=np.int64),
        last=np.array(last, dtype=np.int64),
        level=np.array(level, dtype=np.int64),
        urgent=np.array([of.hurries(i) for i in range(len(of.jobs))], dtype=np.bool_),
    )


def units_of(job: WaitingJob) -> float:
    """What a job takes of its lane: GPUs, else CPUs, else one of nothing in particular."""
    return job.spec.resources.gpus or job.spec.resources.cpus or 1.0


def _kind(job: WaitingJob) -> str:
    """What kind of lane a job takes."""
    asked = job.spec.resources
    return "gpu" if asked.gpus > 0 else "cpu" if asked.cpus > 0 else "any"


def _power_step(job: WaitingJob) -> int:
    return round(log(max(job.belief.moved_power_w / units_of(job), 1e-9)) / POWER_STEP)


def _capacity(of: Columns, horizon: int) -> Floats:
    """`[L, T]` free units: what is free now, and what our own open attempts are expected to give back."""
    out = np.empty((len(of.lanes), horizon))
    for i, lane in enumerate(of.lanes):
        room = of.board.sites[lane.site].room
        out[i] = room.units(lane.kind)
        for seconds, freed in room.releases(lane.kind):
            out[i, min(of.grid.slot_after(seconds), horizon) :] += freed
    return out


@dataclass(frozen=True, eq=False)
class Table:
    """Expected grams per kilowatt, `[sites, S]`, as ranked and as booked, and the mean run time they are for."""

    ranked: Floats
    booked: Floats
    mean_s: float


class Tables:
    """Expected grams for every kind of belief, site and start slot, computed once each."""

    def __init__(self, of: Columns) -> None:
        self._of = of
        self._known: dict[tuple[int, int], Table] = {}
        self._now = {
            site.cluster.zone: float(site.curve.values[0]) for site in of.board.sites if site.curve is not None
        }

    def of(self, belief: Belief) -> Table:
        """The table of beliefs like this one."""
        mean = max(belief.mean_duration_s, 1e-3)
        tail = log(max(belief.durations_s[-1], 1e-3) / mean)
        key = round(log(mean) / LENGTH_STEP), round(tail / TAIL_STEP)
        if key not in self._known:
            self._known[key] = self._computed(belief)
        return self._known[key]

    def cost(self, job: WaitingJob, table: Table, shape: Shape, least: float, *, hurry: bool) -> Singles:
        """`[L, S]` grams per unit; infinite on lanes the job may not use and where there is no room right now."""
        of = self._of
        kilowatts = exp(_power_step(job) * POWER_STEP) / 1000.0
        out = np.full((len(of.lanes), of.grid.starts), np.inf, dtype=np.float32)
        for i in shape.lanes:
            site = of.board.sites[of.lanes[i].site]
            moved = table.ranked[of.lanes[i].site] * kilowatts * site.pue + self.moved_g(job, site) / units_of(job)
            out[i] = moved * (1 - least) if site.cluster.name == of.snapshot.home else moved
            if not shape.room_now[of.lanes[i].site]:
                out[i, of.grid.now] = np.inf
        out[:, : of.grid.now] = np.inf
        if hurry:
            out += (LATENESS_G * np.maximum(np.arange(of.grid.starts) - of.grid.now, 0)).astype(np.float32)
        return out

    def moved_g(self, job: WaitingJob, site: Site) -> float:
        """Grams of bringing the job's data to a site."""
        return transfer_g(job.spec.data, site.cluster.zone, self._now) if job.spec.data else 0.0

    def _computed(self, belief: Belief) -> Table:
        of = self._of
        starts = np.array([of.grid.time(slot) for slot in range(of.grid.starts)])
        durations, weights = np.array(belief.durations_s), np.array(belief.weights)
        ranked = np.full((len(of.board.sites), len(starts)), UNKNOWN_G)
        booked = np.full_like(ranked, np.nan)
        for i, site in enumerate(of.board.sites):
            if site.curve is not None:
                ranked[i] = site.curve.ranked_g(starts, durations, weights)
                booked[i] = site.curve.booked_g(starts, durations, weights)
        return Table(ranked, booked, belief.mean_duration_s)
