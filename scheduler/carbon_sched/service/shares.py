"""Fair share: what of all clusters' capacity teams and projects held of late, by their dominant resource.

Dominant resource fairness (Ghodsi et al., NSDI 2011): of the shares of CPUs and of GPUs that somebody holds, the larger
one counts. Usage of the past weighs half as much with every week; what runs now counts too.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from carbon_sched.ports import Usage

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from carbon_sched.domain.cluster import ClusterStatus
    from carbon_sched.domain.job import Attempt, JobSpec

DAY_S = 86_400
HALF_LIFE_DAYS = 7
DAYS = 28


def day_of(at: datetime) -> int:
    """Days since 1970, UTC."""
    return int(at.timestamp() // DAY_S)


def held(spec: JobSpec, attempt: Attempt, until: datetime) -> Usage:
    """What an attempt held until then, from the moment it was opened for it."""
    seconds = max(0.0, (until - (attempt.started_at or attempt.opened_at)).total_seconds())
    resources = spec.resources
    return Usage(spec.team, spec.project, day_of(until), resources.cpus * seconds, resources.gpus * seconds)


@dataclass(frozen=True)
class Shares:
    """Shares by team, and by project within a team."""

    teams: dict[str, float]
    projects: dict[tuple[str, str], float]

    def of(self, spec: JobSpec, weight: float) -> float:
        """A team's share, where projects of one team differ by their own; divided by the weight its policy gives it."""
        return (self.teams.get(spec.team, 0.0) + self.projects.get((spec.team, spec.project), 0.0)) / weight


def shares(used: Iterable[Usage], capacity: Sequence[ClusterStatus | None], now: datetime) -> Shares:
    """Shares of the decayed capacity of the last four weeks; 0 to 1 each, were capacity what it is now."""
    today = day_of(now)
    window_s = DAY_S * sum(_weight(age) for age in range(DAYS))
    cpus = sum(status.total("CPU") for status in capacity if status) * window_s
    gpus = sum(status.total("GPU") for status in capacity if status) * window_s
    teams: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    projects: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for one in used:
        weight = _weight(today - one.day)
        for total in (teams[one.team], projects[one.team, one.project]):
            total[0] += one.cpu_s * weight
            total[1] += one.gpu_s * weight
    return Shares(
        {team: _dominant(total, cpus, gpus) for team, total in teams.items()},
        {project: _dominant(total, cpus, gpus) for project, total in projects.items()},
    )


def _weight(age_days: int) -> float:
    return float(0.5 ** (max(0, age_days) / HALF_LIFE_DAYS))


def _dominant(total: Sequence[float], cpus: float, gpus: float) -> float:
    return max(total[0] / cpus if cpus else 0.0, total[1] / gpus if gpus else 0.0)
