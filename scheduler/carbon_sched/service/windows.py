"""Jobs that may be suspended: how far each has come, when it may run, and which one is stopped for a cleaner hour.

A suspended job is a queued one with work behind it. Its attempt is recalled as any other one that another is to follow:
stopped with a grace in which it saves its state, ended, its energy booked; the next attempt gets the same run name and
the same storage. The planner places it anew once its window begins.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from carbon_sched.domain.batch import left_s
from carbon_sched.domain.cause import Cause
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import JobState
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.planning.suspend import State
from carbon_sched.planning.windows import Interruptible, Window, window
from carbon_sched.service.recall import recall

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from carbon_sched.domain.batch import BatchState
    from carbon_sched.domain.job import Attempt, Job, JobSpec
    from carbon_sched.planning.snapshot import Snapshot, WaitingJob
    from carbon_sched.ports import Store, Transaction
    from carbon_sched.service.signals import Signals

log = logging.getLogger(__name__)

RESTART_S = 120.0
"""What saving, starting again and repeated work cost in seconds of running, until the job says or shows it."""
LEAST_RUN = 3.0
"""A job runs for so many times its restart before it is suspended (again): short windows would only cost restarts."""
LEAST_SAVING = 0.02
"""A pause must save this share at least, whatever the policy asks of other moves: less is forecast error."""
MOST_PAUSES = 24


@dataclass(frozen=True)
class Progress:
    """How far a job has come: seconds of work behind it, how often it was suspended, where its last attempt was.

    `left_s` are seconds of work before it at the pace of its batch; None where it told of none yet.
    """

    done_s: float = 0.0
    pauses: int = 0
    cluster: str | None = None
    runs_since: datetime | None = None
    left_s: float | None = None

    @property
    def state(self) -> State:
        """What it does now."""
        if self.runs_since is not None:
            return State.RUNNING
        return State.PAUSED if self.pauses else State.WAITING


BEGIN = Progress()


def restart_s(spec: JobSpec) -> float:
    """What a suspension of such a job costs in seconds of running."""
    return RESTART_S if spec.flexibility.restart_s is None else spec.flexibility.restart_s


def progress(job: Job, attempts: Iterable[Attempt], now: datetime, batch: Sequence[BatchState] = ()) -> Progress:
    """From the job's attempts, oldest first. Work counts when it was followed by a suspension, less what that cost."""
    done_s, pauses, cluster, since = 0.0, 0, None, None
    for attempt in attempts:
        if attempt.started_at is None:
            continue
        suspended = attempt.recalled is Cause.SUSPENDED
        if not (suspended or attempt.open):
            continue  # ended by a fault: what it did since its last start is lost
        end = now if attempt.open else attempt.ended_at or attempt.started_at
        spent_s = (end - attempt.started_at).total_seconds() - (restart_s(job.spec) if pauses else 0.0)
        done_s += max(0.0, spent_s)
        pauses += suspended
        cluster, since = attempt.cluster, attempt.started_at if attempt.open and not suspended else None
    return Progress(done_s, pauses, cluster, since, left_s(batch))


class Windows:
    """Bounds waiting jobs to their windows, and suspends running ones; the leader's decide loop calls both."""

    def __init__(self, store: Store, signals: Signals) -> None:
        self._store, self._signals = store, signals
        self._known: dict[str, tuple[object, Window | None]] = {}

    def bounded(self, job: WaitingJob, done: Progress, snapshot: Snapshot, cost_s: float) -> WaitingJob:
        """A job that waits: to be placed now where its window has begun, else not before its next slot."""
        found = self._window(_interruptible(job, done, cost_s), snapshot)
        if found is None:
            return job
        if found.run or (done.state is State.WAITING and found.saving < _least_saving(job)):
            return replace(job, latest_start=job.earliest_start)
        return replace(job, earliest_start=max(job.earliest_start, min(found.until, job.latest_start)))

    def suspend(self, running: Sequence[tuple[Job, WaitingJob, Progress]], snapshot: Snapshot) -> datetime | None:
        """Have those stopped that save by it; returns when to look again."""
        border: datetime | None = None
        alive = {one.job_id for one in snapshot.jobs} | {job.job_id for job, _, _ in running}
        self._known = {job_id: known for job_id, known in self._known.items() if job_id in alive}
        for job, left, done in running:
            found = self._window(_interruptible(left, done, restart_s(job.spec)), snapshot)
            if found is None or done.runs_since is None:
                continue
            border = min(border or found.until, found.until)
            ready = done.runs_since + timedelta(seconds=LEAST_RUN * restart_s(job.spec))
            if found.run or found.saving < _least_saving(left) or done.pauses >= MOST_PAUSES:
                continue
            if snapshot.now < ready:
                border = min(border, ready)
                continue
            self._stop(job, done, found, snapshot.now)
        return border

    def _window(self, one: Interruptible, snapshot: Snapshot) -> Window | None:
        """Decided once per slot and outlook, since it costs milliseconds and the decide loop comes by often."""
        outlooks = tuple(view.outlook.readings[:1] + view.outlook.readings[-1:] for view in snapshot.clusters)
        usable = tuple(view.status.usable if view.status else False for view in snapshot.clusters)
        key = (one.state, one.runs_on, outlooks, usable)
        known, found = self._known.get(one.job.job_id, (None, None))
        if known != key or found is None or snapshot.now >= found.until:
            found = window(one, snapshot)
            self._known[one.job.job_id] = (key, found)
        return found

    def _stop(self, job: Job, done: Progress, found: Window, now: datetime) -> None:
        reason = f"suspended until a cleaner hour; that saves about {found.saving:.0%} of what is left to emit"
        with self._store.transaction() as tx:
            attempt = _open_attempt(tx, job.job_id)
            if attempt is None or not recall(tx, attempt, Cause.SUSPENDED, reason):
                return
            body = {
                "job": job.job_id, "attempt": attempt.attempt_id, "saving_ppm": round(found.saving * 1e6),
                "done_s": round(done.done_s), "pauses": done.pauses + 1, "until": to_rfc3339(found.until),
            }  # fmt: skip
            tx.append_fact(Fact(FactKind.JOB_SUSPENDED, now, body))
        self._signals.dispatch.set()
        log.info("job is being suspended job=%s saving=%.3f", job.job_id, found.saving)


def _least_saving(job: WaitingJob) -> float:
    return max(LEAST_SAVING, job.min_gain)


def _interruptible(job: WaitingJob, done: Progress, cost_s: float) -> Interruptible:
    runs_on = done.cluster if done.runs_since is not None else None
    bound_to = None if job.spec.flexibility.storage else done.cluster
    return Interruptible(job, done.state, cost_s, runs_on, bound_to)


def _open_attempt(tx: Transaction, job_id: str) -> Attempt | None:
    if tx.job(job_id).state is not JobState.RUNNING:
        return None
    return next((attempt for attempt in tx.attempts(job_id=job_id, open_only=True)), None)
