"""Which jobs and which time a report or statement is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from carbon_sched.ledger.account import ALWAYS, Period

if TYPE_CHECKING:
    from carbon_sched.ledger.records import AttemptRecord, JobRecord


@dataclass(frozen=True)
class Selection:
    """Which jobs and which time; None, or no `jobs`, means any.

    With a `period`, energy counts by when it was used, so that adjoining periods add up; jobs that used none count by
    when they were submitted.
    """

    jobs: tuple[str, ...] = ()
    team: str | None = None
    project: str | None = None
    model: str | None = None
    phase: str | None = None
    cluster: str | None = None
    period: Period = ALWAYS

    @property
    def everything(self) -> bool:
        """Whether nothing is left out."""
        return self == Selection()

    @property
    def words(self) -> str:
        """As `team ml, phase evaluation`; which jobs, without the time."""
        named = [("job", job) for job in self.jobs]
        named += [
            (name, value)
            for name in ("team", "project", "model", "phase", "cluster")
            if (value := getattr(self, name)) is not None
        ]
        return ", ".join(f"{name} {value}" for name, value in named) or "all jobs"

    def holds(self, job: JobRecord) -> bool:
        """Whether the job is one of those, whatever the time and the cluster."""
        wanted = [
            (self.team, job.team),
            (self.project, job.project),
            (self.model, job.model),
            (self.phase, job.phase),
        ]
        return all(want in (None, has) for want, has in wanted) and (not self.jobs or job.job_id in self.jobs)

    def attempts(self, job: JobRecord) -> list[AttemptRecord]:
        """The job's attempts on the selected cluster."""
        return [attempt for attempt in job.attempts.values() if self.cluster in (None, attempt.cluster)]
