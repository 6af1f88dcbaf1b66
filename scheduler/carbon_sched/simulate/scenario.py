"""What a backtest replays: jobs, clusters and grids on one clock of whole steps, and what a schedule of them emits."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.job import Bundle, JobSpec, Resources
from carbon_sched.domain.units import PPM
from carbon_sched.planning.belief import belief

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from numpy.typing import NDArray

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.simulate.traces import Jobs

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]
    Ints = NDArray[np.int64]

TRAILING_H = 28 * 24
NOWHERE = -1


@dataclass(frozen=True, eq=False)
class Scenario:
    """J jobs on L clusters; hour 0 is `start`, decisions are made and jobs come at whole multiples of `step_h`.

    Everybody (our planner, the rules of others, the bounds) sees the same jobs, rounded to the same steps, and holds
    units for whole steps. So a step is a matter of resolution, never of an advantage.

    Attributes:
        start: instant of hour 0.
        step_h: length of a step in hours; divides an hour.
        jobs: the trace, `submitted_h` since `start` on whole steps.
        slack_h: `[J]` hours a job may wait, in whole steps.
        home: `[J]` the cluster (by position) where each job would run without a scheduler.
        clusters: with pools that say what there is; see `sizing`.
        resource: `GPU` or `CPU`: what a unit of the trace is.
        truth: `[hours]` g/kWh of every zone; hour `begin` of it is hour 0 here, earlier ones are history.
        begin: see above.
        forecast: `[hours since start, leads]` per zone; row i was issued at the beginning of hour i.
        deadline_h: `[J]` hard deadlines that jobs declare instead of a longest delay; None: they declare their slack.
        specs: `[J]` what each job asked for, where that is known; then units say what power it drew, and no more.
    """

    start: datetime
    step_h: float
    jobs: Jobs
    slack_h: Floats
    home: Ints
    clusters: tuple[Cluster, ...]
    resource: str
    truth: Mapping[str, Floats]
    begin: int
    forecast: Mapping[str, Singles]
    deadline_h: Floats | None = None
    specs: tuple[JobSpec, ...] = ()

    @cached_property
    def hours(self) -> int:
        """How many hours of truth there are from `start` on."""
        return len(next(iter(self.truth.values()))) - self.begin

    def actual(self, zone: str) -> Floats:
        """`[hours]` the truth from `start` on."""
        return self.truth[zone][self.begin :]

    @cached_property
    def ticks(self) -> Ints:
        """`[J]` the step of each submission."""
        out: Ints = np.rint(self.jobs.submitted_h / self.step_h).astype(np.int64)
        return out

    @cached_property
    def held(self) -> Ints:
        """`[J]` whole steps that each job holds its units for."""
        return steps(self.jobs.hours, self.step_h)

    @cached_property
    def latest_h(self) -> Floats:
        """`[J]` the last start that keeps what each job was promised."""
        if self.deadline_h is not None:
            return self.deadline_h - self.jobs.hours
        return self.jobs.submitted_h + self.slack_h

    @cached_property
    def units(self) -> Floats:
        """`[L]` units that each cluster has."""
        return np.array([units_of(cluster, self.resource) for cluster in self.clusters])

    @cached_property
    def pue(self) -> Floats:
        """`[L]` facility energy over IT energy."""
        return np.array([cluster.pue.ppm / PPM for cluster in self.clusters])

    @cached_property
    def totals(self) -> Floats:
        """`[L, hours + 1]` grams of a kilowatt of IT power from hour 0 up to each hour, PUE included."""
        rows = [np.concatenate([[0.0], np.cumsum(self.actual(cluster.zone))]) for cluster in self.clusters]
        return np.stack(rows) * self.pue[:, None]

    @cached_property
    def _usual(self) -> Floats:
        """`[L]` grams of a kilowatt per hour after the end of the truth."""
        return self.trailing(self.hours)

    @cached_property
    def unit_kw(self) -> float:
        """IT power of a unit in kilowatts, the class prior: it is the same for every policy."""
        return unit_kw(self.resource)

    def resources(self, units: float) -> Resources:
        """What a job of so many units asks for."""
        return asked(self.resource, units)

    def grams(self, cluster: Ints, start_h: Floats, which: Ints | slice = slice(None)) -> Floats:
        """gCO2e of these jobs on these clusters from these starts on, broadcast against each other."""
        run_h, units = self.jobs.hours[which], self.jobs.units[which]
        extra = (slice(None),) + (None,) * (np.broadcast(cluster, start_h).ndim - 1)
        spent = self.integral(cluster, start_h + run_h[extra]) - self.integral(cluster, start_h)
        out: Floats = spent * (self.unit_kw * units)[extra]
        return out

    def integral(self, cluster: Ints, hours: Floats) -> Floats:
        """Grams of a kilowatt up to fractional hours on these clusters.

        Beyond the end of the truth it goes on with the mean of its last 28 days, so that nobody gains by going there.
        """
        inside = np.clip(hours, 0.0, self.hours)
        whole = np.minimum(inside.astype(np.int64), self.hours - 1)
        low = self.totals[cluster, whole]
        out: Floats = low + (inside - whole) * (self.totals[cluster, whole + 1] - low)
        return out + (hours - inside) * self._usual[cluster]

    def trailing(self, hour: int) -> Floats:
        """`[L]` mean intensity times PUE of the 28 days before an hour: what a best fixed cluster is chosen by."""
        until = self.begin + hour
        means = [np.nanmean(self.truth[c.zone][max(until - TRAILING_H, 0) : until]) for c in self.clusters]
        return np.array(means) * self.pue


def asked(resource: str, units: float) -> Resources:
    """So many GPUs or CPUs; see `sizing`: pools are not told apart into nodes."""
    return Resources(bundles=(Bundle(gpus=units) if resource == "GPU" else Bundle(cpus=units),))


def unit_kw(resource: str) -> float:
    """IT power in kilowatts that is believed of a GPU or CPU of which nothing else is known."""
    return belief(JobSpec("", "", resources=asked(resource, 1.0))).power_w / 1000.0


@dataclass(frozen=True, eq=False)
class Schedule:
    """Where and when each job started: `cluster` `[J]` (NOWHERE: never), `start_h` `[J]` (NaN likewise)."""

    cluster: Ints
    start_h: Floats


def steps(hours: Floats, step_h: float) -> Ints:
    """Whole steps that hold so many hours, at least one."""
    out: Ints = np.maximum(np.ceil(hours / step_h - 1e-9), 1).astype(np.int64)
    return out


def units_of(cluster: Cluster, resource: str) -> float:
    """Units that a cluster's pools add up to."""
    return sum(pool.max_nodes * pool.node_resources.get(resource, 0.0) for pool in cluster.pools)


def homes(clusters: Sequence[Cluster], units: Floats, count: int, seed: int) -> Ints:
    """`[count]` where jobs come from: the declared home, else all clusters in proportion to their size."""
    declared = [i for i, cluster in enumerate(clusters) if cluster.home]
    if declared:
        return np.full(count, declared[0])
    return np.random.default_rng([seed, 1]).choice(len(clusters), count, p=units / units.sum())


def check_fit(scenario: Scenario) -> None:
    """Raise InvalidInput for a job that no cluster can hold."""
    most, largest = float(scenario.units.max()), float(scenario.jobs.units.max())
    if largest > most + 1e-9:
        problem = f"has a job of {largest:g} {scenario.resource}s, the largest cluster has {most:g}"
        raise InvalidInput("jobs", "the trace", problem, "Give larger pools, or a lower --utilisation")
