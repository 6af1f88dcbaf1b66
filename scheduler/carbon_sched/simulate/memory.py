"""A store in memory, as far as deciding reads and writes one: what a backtest plans on instead of a database."""

from __future__ import annotations

from bisect import bisect_left
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from carbon_sched.domain.errors import NotFound
from carbon_sched.ports import Usage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.decision import Decision
    from carbon_sched.domain.facts import Fact
    from carbon_sched.domain.job import Attempt, Job, JobEvent, JobSpec
    from carbon_sched.domain.policy_version import PolicyVersion
    from carbon_sched.domain.run import PastRun
    from carbon_sched.ports import JobFilter, Wait

REMEMBERED = timedelta(days=30)
"""How long submissions are: what comes next is expected from the last four weeks (`service.arrivals`)."""


class Memory:
    """The part of `ports.Store` and `ports.Transaction` that decisions go through: one thread, nothing to roll back.

    Facts are not kept. `submissions` collects the ids of the attempts that decisions have opened.
    """

    def __init__(self) -> None:
        self._clusters: dict[str, Cluster] = {}
        self._jobs: dict[str, Job] = {}
        self._came: list[Job] = []
        self._open: dict[str, Attempt] = {}
        self._decisions: dict[str, Decision] = {}
        self._runs: list[PastRun] = []
        self._named: dict[str, list[PastRun]] = {}
        self._usage: dict[tuple[str, str, int], Usage] = {}
        self.submissions: list[str] = []

    @contextmanager
    def transaction(self, *, write: bool = True) -> Iterator[Memory]:
        """Itself."""
        del write
        yield self

    # jobs ----------------------------------------------------------------------------------------

    def add_job(self, job: Job) -> None:
        """Insert; jobs come in the order of their submission."""
        self._jobs[job.job_id] = job
        self._came.append(job)
        forgotten = bisect_left(self._came, job.submitted_at - REMEMBERED, key=_submitted)
        if 2 * forgotten > len(self._came):
            del self._came[:forgotten]

    def job(self, job_id: str) -> Job:
        """The live job, or NotFound."""
        if job_id not in self._jobs:
            raise NotFound(f"no live job is called {job_id!r}")
        return self._jobs[job_id]

    def jobs(self, where: JobFilter, *, limit: int) -> list[Job]:
        """Newest first, as they were submitted, by time alone: what is expected to come next is read from these."""
        first = 0 if where.since is None else bisect_left(self._came, where.since, key=_submitted)
        end = len(self._came) if where.until is None else bisect_left(self._came, where.until, key=_submitted)
        return self._came[max(first, end - limit) : end][::-1]

    def live_jobs(self, known: Mapping[str, JobSpec] = MappingProxyType({})) -> list[Job]:
        """Every job that is not in a final state, oldest first."""
        del known
        return list(self._jobs.values())

    def jobs_by_id(self, job_ids: Sequence[str], known: Mapping[str, Job] = MappingProxyType({})) -> dict[str, Job]:
        """Those of them that are live."""
        del known
        return {job_id: self._jobs[job_id] for job_id in job_ids if job_id in self._jobs}

    def move_job(self, job: Job, event: JobEvent, *, at: datetime, **words: Any) -> Job:
        """Apply `event`; raises Conflict where the transition table forbids it. Jobs that have ended are forgotten.

        Reasons, causes and exit codes are not kept.
        """
        del words
        return self._keep(job.moved(event, at=at))

    def amend_job(
        self, job: Job, *, attempts: int | None = None, not_before: datetime | None = None, **words: Any
    ) -> Job:
        """Change what is no transition."""
        del words
        attempts = job.attempts if attempts is None else attempts
        return self._keep(replace(job, version=job.version + 1, attempts=attempts, not_before=not_before))

    def tell_waiting(self, waits: Sequence[Wait]) -> None:
        """Change what is no transition."""
        for wait in waits:
            self.amend_job(wait.job, not_before=wait.not_before)

    def _keep(self, job: Job) -> Job:
        if job.state.final:
            del self._jobs[job.job_id]
            self._decisions.pop(job.job_id, None)
        else:
            self._jobs[job.job_id] = job
        return job

    # decisions and attempts ----------------------------------------------------------------------

    def put_decisions(self, new: Sequence[Decision]) -> None:
        """Keep the newest."""
        self._decisions |= {decision.job_id: decision for decision in new}

    def decisions(self, job_ids: Sequence[str]) -> dict[str, Decision]:
        """The newest decisions of live jobs."""
        return {job_id: self._decisions[job_id] for job_id in job_ids if job_id in self._decisions}

    def plan_state(self) -> None:
        """A backtest begins with nothing."""

    def add_attempt(self, attempt: Attempt) -> None:
        """Insert."""
        self._open[attempt.attempt_id] = attempt

    def attempt(self, attempt_id: str) -> Attempt:
        """The open attempt."""
        return self._open[attempt_id]

    def attempts(self, *, open_only: bool = True) -> list[Attempt]:
        """Oldest first; only the open ones are known."""
        del open_only
        return list(self._open.values())

    def put_attempt(self, attempt: Attempt) -> None:
        """Write; one that has ended is forgotten."""
        if attempt.open:
            self._open[attempt.attempt_id] = attempt
        else:
            del self._open[attempt.attempt_id]

    def enqueue(self, kind: str, key: str, payload: Mapping[str, Any]) -> None:
        """Note an attempt to be submitted."""
        del kind, payload
        self.submissions.append(key)

    # clusters, policies, runs, usage, facts ------------------------------------------------------

    def put_cluster(self, cluster: Cluster) -> None:
        """Insert or replace."""
        self._clusters[cluster.name] = cluster

    def clusters(self) -> list[Cluster]:
        """By order of first insertion."""
        return list(self._clusters.values())

    def last_policy_version(self) -> int:
        """None was applied: the policy under test is found as a preset is."""
        return 0

    def policies_in_force(self) -> list[PolicyVersion]:
        """None."""
        return []

    def add_run(self, run: PastRun) -> None:
        """Remember a finished run."""
        run = replace(run, number=len(self._runs) + 1)
        self._runs.append(run)
        self._named.setdefault(run.name, []).append(run)

    def runs(self, *, name: str | None = None, after: int = 0, limit: int) -> list[PastRun]:
        """The newest `limit` runs with a number above `after`, oldest of them first."""
        known = self._runs[after:] if name is None else [r for r in self._named.get(name, []) if r.number > after]
        return known[-limit:]

    def add_usage(self, used: Usage) -> None:
        """Add to what the team and project used on that day."""
        key = (used.team, used.project, used.day)
        had = self._usage.get(key, Usage(*key, 0.0, 0.0))
        self._usage[key] = Usage(*key, had.cpu_s + used.cpu_s, had.gpu_s + used.gpu_s)

    def usage(self, *, since_day: int) -> list[Usage]:
        """What was used on that day and later; what is older is forgotten."""
        self._usage = {key: used for key, used in self._usage.items() if used.day >= since_day}
        return list(self._usage.values())

    def append_fact(self, fact: Fact) -> None:
        """Facts of a backtest are not kept."""

    def append_facts(self, facts: Sequence[Fact]) -> None:
        """Nor are these."""


def _submitted(job: Job) -> datetime:
    return job.submitted_at
