"""The frozen world a plan is made from: clusters with capacity and outlook, jobs with what is believed of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from carbon_sched.domain.cluster import Cluster, ClusterStatus
    from carbon_sched.domain.intensity import Outlook
    from carbon_sched.domain.job import Bundle, JobSpec
    from carbon_sched.policy.settings import QuietHours


@dataclass(frozen=True)
class Belief:
    """What is believed of a run before it ends.

    `durations_s` with `weights` (summing to 1) is a discrete distribution of the run time, ascending. `power_w` is the
    mean active IT power of the whole job, `moved_power_w` the part a placement moves on nodes that stay on anyway
    (active minus idle). `source` says in a few words where it comes from ("said by the user", "class prior", ...).
    `profile` is the power in equal parts of the run, relative to its mean. `upper` are quantiles of the run time as
    (probability, seconds), ascending. `gpu_type` is what all of this was learnt on; None: on the home cluster's.
    `start_up_s` passes between the submission to Ray and the user's code.
    """

    durations_s: tuple[float, ...]
    weights: tuple[float, ...]
    power_w: float
    moved_power_w: float
    source: str
    profile: tuple[float, ...] = (1.0,)
    upper: tuple[tuple[float, float], ...] = ()
    gpu_type: str | None = None
    start_up_s: float = 0.0

    @cached_property
    def mean_duration_s(self) -> float:
        """Expected run time in seconds."""
        return sum(d * w for d, w in zip(self.durations_s, self.weights, strict=True))

    def longest_s(self, confidence: float) -> float:
        """Seconds within which the run ends with at least this probability; the longest believed where none is known.

        A known quantile is never undercut: between two of them the upper one holds.
        """
        return next((seconds for level, seconds in self.upper if level >= confidence), self.durations_s[-1])

    @cached_property
    def moments(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Times after the start, with weights, at which `Curve` is read for the expected grams of the profile.

        With F the running integral of the intensity, D a run time and p the relative power in its P equal parts, the
        run's grams are the sum over i of p[i] (F(s + D (i + 1) / P) - F(s + D i / P)): sorted by the times, each counts
        with the step by which the power falls there.
        """
        parts, steps = len(self.profile), self.profile
        falls = [power - after for power, after in zip(steps, (*steps[1:], 0.0), strict=True)]
        times = tuple(d * (i + 1) / parts for d in self.durations_s for i in range(parts))
        return times, tuple(w * fall for w in self.weights for fall in falls)


@dataclass(frozen=True)
class Reservation:
    """What one of our open attempts takes until `expected_end`; `visible`: the cluster's own usage shows it already."""

    bundles: tuple[Bundle, ...]
    expected_end: datetime
    visible: bool


@dataclass(frozen=True)
class ClusterView:
    """One cluster as the planner sees it. `status` None: it never answered. `outlook` begins at or before `now`.

    `trusted` False: the zone's forecasts have of late said the opposite of what came (planning.trust): no job waits on
    them, and the zone is ranked by the mean of its outlook. `steered`: what the cluster is ranked by where the policy
    ranks by another signal than is booked, as `outlook` is.
    """

    cluster: Cluster
    status: ClusterStatus | None
    outlook: Outlook
    reservations: tuple[Reservation, ...] = ()
    trusted: bool = True
    steered: Outlook | None = None


@dataclass(frozen=True)
class Weights:
    """What a gram of CO2e, a unit of currency and an hour of waiting weigh in the comparison of candidates."""

    carbon: float = 1.0
    cost: float = 0.0
    waiting: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether carbon alone counts."""
        return (self.carbon, self.cost, self.waiting) == (1.0, 0.0, 0.0)


@dataclass(frozen=True)
class Residency:
    """Where data must stay: a cluster must carry one of `tags`. `rule` names what asks for it, for people."""

    tags: tuple[str, ...]
    rule: str


@dataclass(frozen=True)
class WaitingJob:
    """A queued job, policy values resolved; `latest_start` bounds the delay (at or before `now`: start at once).

    `min_gain` is the relative saving a move in time or space must promise before the job waits. `share` is what its
    team has had of late (less goes first among equal priorities, higher priority first). The job may only run on
    clusters where every `residency` holds; `allowed` (None: all) and `denied` are clusters by name, and those dearer
    than `max_price_per_gpu_hour` are out. A `preferred` cluster (none named: `home`, None for the snapshot's) is left
    only where that pays `min_gain`. No start is planned into `quiet` hours; the earliest start lies outside them.
    `confidence` is the probability with which a run from `latest_start` on meets the deadline. A suspended job is
    `bound_to` the only cluster that can read its state (None: to none). Its spec was changed `amendments` times.
    """

    job_id: str
    spec: JobSpec
    submitted_at: datetime
    earliest_start: datetime
    latest_start: datetime
    belief: Belief
    policy: str = "balanced"
    min_gain: float = 0.0
    priority: int = 0
    share: float = 0.0
    residency: tuple[Residency, ...] = ()
    allowed: frozenset[str] | None = None
    denied: frozenset[str] = frozenset()
    max_price_per_gpu_hour: float | None = None
    preferred: frozenset[str] = frozenset()
    home: str | None = None
    quiet: tuple[QuietHours, ...] = ()
    weights: Weights = Weights()
    confidence: float = 0.95
    bound_to: str | None = None
    amendments: int = 0


@dataclass(frozen=True)
class Snapshot:
    """Everything a plan depends on; `now` is part of it. `home` names the cluster the run-now-home reference uses.

    `expected` are jobs like those that will be submitted next, each of which counts as the share `expected_counts` of
    itself: nothing is decided about them, but the room they will ask for has its price. `ranked_by` is a remark for
    people where the policy ranks by another signal than is booked (`ClusterView.steered`).
    """

    now: datetime
    clusters: tuple[ClusterView, ...]
    jobs: tuple[WaitingJob, ...]
    home: str | None = None
    best_fixed: str | None = None
    seed: int = 0
    expected: tuple[WaitingJob, ...] = ()
    expected_counts: float = 1.0
    ranked_by: str = ""
