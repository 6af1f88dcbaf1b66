"""Expected grams of a job on every lane and start: what plans are ranked by, and what will be booked.

Ranked is what the decision moves (design section 7): active minus idle power on nodes that stay on anyway, the whole
power on nodes that exist for the job, and then also what those draw before and after it. Booked is all of its energy.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, exp, log
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.planning import priors
from carbon_sched.planning.hardware import Ratio, rated_w, ratio
from carbon_sched.planning.transfer import transfer_g

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from carbon_sched.domain.cluster import Cluster, Pool
    from carbon_sched.domain.job import JobSpec
    from carbon_sched.planning.grid import Grid
    from carbon_sched.planning.options import Board, Site
    from carbon_sched.planning.snapshot import Belief, WaitingJob

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]
    Singles = NDArray[np.float32]

LENGTH_STEP = 0.04
"""Beliefs whose mean run times differ by less than this share are planned as one."""
TAIL_STEP = 0.2
POWER_STEP = 0.1
UNKNOWN_G = 1e6
"""What a kilowatt (or, beside the run, a kilowatt hour) counts on a cluster whose grid is not known: it is taken only
where nothing else is open."""
S_PER_H, W_PER_KW, J_PER_KWH = 3600.0, 1000.0, 3.6e6


@dataclass(frozen=True)
class Lane:
    """Capacity of one kind on one site: GPUs of a type, CPUs, or room for what asks for neither (`any`)."""

    site: int
    kind: str

    @property
    def gpu_type(self) -> str | None:
        """Name of its GPUs, None where they have none or there are none."""
        return self.kind.partition(":")[2] or None


@dataclass(frozen=True, eq=False)
class Table:
    """Expected grams per kilowatt, `[sites, S]`, as ranked and as booked, and the mean run time they are for."""

    ranked: Floats
    booked: Floats
    mean_s: float


@dataclass(frozen=True, eq=False)
class View:
    """What every site would make of jobs that are alike, as it will be booked, by site and start slot.

    `ranked` `[sites, S]` is what starts on one site are compared by; `rate` `[sites, S]` grams per kilowatt of expected
    power and second of expected run time, NaN where the grid is not known; `overhead_g` and `transfer_g` `[sites, S]`
    come on top. A run takes `stretch` `[sites]` times as long there and `energy` times the energy, plus
    `overhead_kwh`.
    """

    ranked: Floats
    rate: Floats
    overhead_g: Floats
    transfer_g: Floats
    stretch: Floats
    energy: Floats
    overhead_kwh: Floats

    @cached_property
    def factors(self) -> list[tuple[float, float, float]]:
        """By site: stretch, energy and overhead in kWh."""
        return list(zip(self.stretch.tolist(), self.energy.tolist(), self.overhead_kwh.tolist(), strict=True))

    def grams(self, belief: Belief, slots: Ints) -> Floats:
        """`[sites]` for a start in the slot given for each site."""
        rows = np.arange(len(slots))
        run = self.rate[rows, slots] * (belief.power_w / W_PER_KW * belief.mean_duration_s)
        out: Floats = run + self.overhead_g[rows, slots] + self.transfer_g[rows, slots]
        return out

    def gram(self, belief: Belief, site: int, slot: int) -> float:
        """The same for one start on one site."""
        run = self.rate[site, slot] * (belief.power_w / W_PER_KW * belief.mean_duration_s)
        return float(run + self.overhead_g[site, slot] + self.transfer_g[site, slot])

    def curve(self, belief: Belief, site: int) -> Floats:
        """`[S]` grams of every start on one site."""
        run = self.rate[site] * (belief.power_w / W_PER_KW * belief.mean_duration_s)
        out: Floats = run + self.overhead_g[site] + self.transfer_g[site]
        return out


@dataclass(frozen=True)
class Overhead:
    """Energy in kWh that a job causes on a lane beside its own run, as if none of the nodes it needs were there yet."""

    kwh: float = 0.0
    for_the_job: bool = False


def units_of(job: WaitingJob) -> float:
    """What a job takes of its lane: GPUs, else CPUs, else one of nothing in particular."""
    return _units(job.spec)


def _units(spec: JobSpec) -> float:
    return spec.resources.gpus or spec.resources.cpus or 1.0


class Costs:
    """Expected grams for every kind of belief, lane and start slot, computed once each."""

    def __init__(self, board: Board, grid: Grid, lanes: Sequence[Lane], home: str | None) -> None:
        self._board, self._grid, self._lanes, self._home = board, grid, lanes, home
        self._starts = np.array([grid.time(slot) for slot in range(grid.starts)])
        self._tables: dict[tuple[object, ...], Table] = {}
        self._views: dict[tuple[object, ...], View] = {}
        self._at_start: dict[str, Floats] = {}
        self._pools = [exists_for_jobs(board.sites[lane.site].cluster, lane.kind) for lane in lanes]
        self._on_demand = frozenset(i for i, pool in enumerate(self._pools) if pool is not None)
        self._nothing: Floats = np.broadcast_to(0.0, self._starts.shape)
        prices = [site.cluster.price_per_gpu_hour for site in board.sites]
        self._dearest = max((price for price in prices if price is not None), default=0.0)

    def table(self, belief: Belief, stretch: float = 1.0) -> Table:
        """The table of beliefs like this one, on hardware where runs take `stretch` times as long."""
        mean = max(belief.mean_duration_s * stretch, 1e-3)
        tail = log(max(belief.durations_s[-1] * stretch, 1e-3) / mean)
        key = round(log(mean) / LENGTH_STEP), round(tail / TAIL_STEP), belief.profile
        if key not in self._tables:
            self._tables[key] = self._computed(belief, stretch)
        return self._tables[key]

    def key(self, job: WaitingJob, lanes: Sequence[int]) -> tuple[object, ...]:
        """Jobs with equal keys (and equal lanes) cost the same per unit; see `per_unit`."""
        powers = (job.belief.moved_power_w, job.belief.power_w)
        return (
            *self._alike(job, lanes),
            *(_power_step(power, job) for power in powers),
            job.weights,
            job.preferred,
            job.home,
        )

    def per_unit(self, job: WaitingJob, lanes: Sequence[int], least: float) -> Singles:
        """`[L, S]` ranked grams per unit; infinite on other lanes.

        `least` is the share by which leaving a preferred cluster (else home) must pay; another GPU type must gain more
        than the ratio's error.
        """
        out = np.full((len(self._lanes), self._grid.starts), np.inf, dtype=np.float32)
        favoured = job.preferred or {job.home or self._home}
        for lane in lanes:
            site, crossed = self._site(lane), self.ratio(job, lanes, lane)
            belief, overhead = job.belief, self._overhead(job, lane)
            step = _power_step(belief.power_w if overhead.for_the_job else belief.moved_power_w, job)
            asked = (1 + crossed.error) * ((1 - least) if site.cluster.name in favoured else 1.0)
            kilowatts = exp(step * POWER_STEP) / W_PER_KW * crossed.power
            run = self.table(belief, crossed.duration).ranked[self._lanes[lane].site]
            out[lane] = run * (kilowatts * site.pue * asked)
            if overhead.kwh or job.spec.data:
                beside = self._beside_g(site, overhead, ranked=True) + self._transfer_g(job, site, ranked=True)
                out[lane] += beside * (asked / units_of(job))
            if not job.weights.plain:
                out[lane] = job.weights.carbon * out[lane] + self._other_terms(job, site, crossed) / units_of(job)
        return out

    def ratio(self, job: WaitingJob, lanes: Sequence[int], lane: int) -> Ratio:
        """How the job would do on a lane's hardware.

        What is believed of it was learnt on `belief.gpu_type`, or else is meant for the first lane's: home comes first.
        """
        if job.spec.resources.gpus <= 0:
            return Ratio()
        return ratio(job.belief.gpu_type or self._lanes[lanes[0]].gpu_type, self._lanes[lane].gpu_type)

    def view(self, job: WaitingJob, lanes: Sequence[int], per_site: tuple[int | None, ...]) -> View:
        """What each site would make of the job on the lane named for it; `lanes` are all that the job may use."""
        key = *self._alike(job, lanes), tuple(lanes[:1]), per_site
        if key not in self._views:
            self._views[key] = self._viewed(job, lanes, per_site)
        return self._views[key]

    # parts ---------------------------------------------------------------------------------------

    def _viewed(self, job: WaitingJob, lanes: Sequence[int], per_site: tuple[int | None, ...]) -> View:
        crossed = [Ratio() if lane is None else self.ratio(job, lanes, lane) for lane in per_site]
        overheads = [Overhead() if lane is None else self._overhead(job, lane) for lane in per_site]
        tables = [self.table(job.belief, ratio.duration) for ratio in crossed]
        sites = list(enumerate(self._board.sites))
        stretch = np.array([ratio.duration for ratio in crossed])
        energy = stretch * np.array([ratio.power for ratio in crossed])
        rate = [tables[i].booked[i] * (site.pue * energy[i] / tables[i].mean_s) for i, site in sites]
        shape = len(sites), len(self._starts)
        own = self.table(job.belief)
        alike = all(table is own for table in tables)
        return View(
            own.ranked if alike else np.array([tables[i].ranked[i] for i, _ in sites]),
            np.array(rate).reshape(shape),
            _stacked([self._beside_g(site, overheads[i], ranked=False) for i, site in sites], shape),
            _stacked([self._transfer_g(job, site, ranked=False) for _, site in sites], shape),
            stretch,
            energy,
            np.array([overhead.kwh for overhead in overheads]),
        )

    def _alike(self, job: WaitingJob, lanes: Sequence[int]) -> tuple[object, ...]:
        """What the grams of a kilowatt depend on, and where grams come on top, what those do."""
        alone = bool(job.spec.data) or not job.weights.plain or not self._on_demand.isdisjoint(lanes)
        beside = (job.spec.data, units_of(job), job.belief.start_up_s) if alone else ()
        return id(self.table(job.belief)), job.belief.gpu_type, beside

    def _site(self, lane: int) -> Site:
        return self._board.sites[self._lanes[lane].site]

    def _overhead(self, job: WaitingJob, lane: int) -> Overhead:
        """Nodes that come for the job draw idle power while they boot, start it, and wait for the next one.

        A start on nodes that happen to be up is charged the same: whether they still are when it starts, nobody knows.
        """
        pool = self._pools[lane]
        return Overhead() if pool is None else Overhead(idle_hold_kwh(pool, job), for_the_job=True)

    def _beside_g(self, site: Site, overhead: Overhead, *, ranked: bool) -> Floats:
        if not overhead.kwh:
            return self._nothing
        return overhead.kwh * self._intensity(site, ranked=ranked) * site.pue

    def _transfer_g(self, job: WaitingJob, site: Site, *, ranked: bool) -> Floats:
        if not job.spec.data:
            return self._nothing
        known = {
            other.cluster.zone: self._intensity(other, ranked=ranked)
            for other in self._board.sites
            if other.curve is not None
        }
        return np.broadcast_to(transfer_g(job.spec.data, site.cluster.zone, known), self._starts.shape)

    def _other_terms(self, job: WaitingJob, site: Site, crossed: Ratio) -> Floats:
        """Money and waiting, in the policy's grams; where no price is known the dearest one is taken."""
        price = site.cluster.price_per_gpu_hour
        hours = job.belief.mean_duration_s * crossed.duration / S_PER_H
        money = (self._dearest if price is None else price) * job.spec.resources.gpus * hours
        out: Floats = job.weights.cost * money + job.weights.waiting * self._starts / S_PER_H
        return out

    def _intensity(self, site: Site, *, ranked: bool) -> Floats:
        """`[S]` g/kWh in the slot that each start is in; without one NaN, or ranked what never wins."""
        key = f"{site.cluster.name}/{ranked}"
        if key not in self._at_start:
            self._at_start[key] = np.full(len(self._starts), UNKNOWN_G if ranked else np.nan)
            if site.curve is not None:
                of = site.curve.ranked_g if ranked else site.curve.booked_g
                step = self._grid.step_s
                self._at_start[key] = of(self._starts, np.array([step]), np.ones(1)) * S_PER_H / step
        return self._at_start[key]

    def _computed(self, belief: Belief, stretch: float) -> Table:
        times, weights = (np.array(values) for values in belief.moments)
        ranked = np.full((len(self._board.sites), len(self._starts)), UNKNOWN_G)
        booked = np.full_like(ranked, np.nan)
        for i, site in enumerate(self._board.sites):
            if site.curve is not None:
                ranked[i] = site.curve.ranked_g(self._starts, times * stretch, weights)
                alike = site.curve.booked is site.curve.ranked
                booked[i] = ranked[i] if alike else site.curve.booked_g(self._starts, times * stretch, weights)
        return Table(ranked, booked, belief.mean_duration_s * stretch)


def exists_for_jobs(cluster: Cluster, kind: str) -> Pool | None:
    """The pool whose nodes a job on this kind of lane calls into being; None where nodes stay on anyway."""
    gpus, _, name = kind.partition(":")
    pools = [pool for pool in cluster.pools if (pool.node_resources.get("GPU", 0.0) > 0) == gpus.startswith("gpu")]
    if name:
        pools = [pool for pool in pools if (pool.gpu_type or "").lower() == name]
    on_demand = all(pool.node_lifetime == "on-demand" for pool in pools)
    return pools[0] if pools and on_demand else None


def idle_hold_kwh(pool: Pool, job: WaitingJob) -> float:
    """What nodes that come for a job draw while they boot, start it, and wait for the next one afterwards."""
    seconds = pool.provisioning_s + job.belief.start_up_s + pool.idle_timeout_s
    return nodes_for(pool, job.spec) * idle_w(pool) * seconds / J_PER_KWH


def nodes_for(pool: Pool, spec: JobSpec) -> int:
    """How many of the pool's nodes the job takes."""
    of_node = pool.node_resources.get("GPU" if spec.resources.gpus else "CPU", 0.0)
    return max(ceil(_units(spec) / of_node), 1) if of_node > 0 else max(len(spec.resources.bundles), 1)


def idle_w(pool: Pool) -> float:
    """Power of one idle node, estimated from what it is made of."""
    gpus = pool.node_resources.get("GPU", 0.0) * rated_w(pool.gpu_type) * priors.IDLE_SHARE
    return gpus + pool.node_resources.get("CPU", 0.0) * priors.CPU_W


def _stacked(rows: Sequence[Floats], shape: tuple[int, int]) -> Floats:
    """`[sites, S]`, without memory of its own where there is nothing in any row."""
    if all(row.strides == (0,) for row in rows):
        return np.broadcast_to(0.0, shape)
    return np.array(rows)


def _power_step(power_w: float, job: WaitingJob) -> int:
    return round(log(max(power_w / units_of(job), 1e-9)) / POWER_STEP)
