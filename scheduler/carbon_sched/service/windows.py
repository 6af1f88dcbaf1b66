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
from carbon_sched.service.economics import UNKNOWN
from carbon_sched.service.recall import recall, saved_its_state

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from carbon_sched.domain.batch import BatchState
    from carbon_sched.domain.energy import Window as Stretch
    from carbon_sched.domain.job import Attempt, Job
    from carbon_sched.planning.snapshot import Snapshot, WaitingJob
    from carbon_sched.policy.settings import Settings
    from carbon_sched.ports import Store, Transaction
    from carbon_sched.service.economics import Cost, Metered
    from carbon_sched.service.signals import Signals

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a job has come, and what one more suspension of it costs.

    `done_s` seconds of work are behind it, in `pauses` suspensions, the last attempt on `cluster`; it runs since
    `runs_since`. `left_s` are seconds of work before it at the pace of its batch; None where it told of none yet.
    `unsaved`: once it was stopped and did not save its state.
    """

    cost: Cost = UNKNOWN
    done_s: float = 0.0
    pauses: int = 0
    cluster: str | None = None
    runs_since: datetime | None = None
    left_s: float | None = None
    unsaved: bool = False

    @property
    def state(self) -> State:
        """What it does now."""
        if self.runs_since is not None:
            return State.RUNNING
        return State.PAUSED if self.pauses else State.WAITING

    def resume_s(self, confidence: float) -> float:
        """What a resume takes of the time to the deadline; nothing for a job that has not begun."""
        return 0.0 if self.cluster is None else self.cost.upper_s(confidence)


BEGIN = Progress()


def progress(
    job: Job, attempts: Iterable[Attempt], metered: Metered, now: datetime, batch: Sequence[BatchState] = ()
) -> Progress:
    """From the job's attempts, oldest first, and what their suspensions are known to have taken.

    Work counts when a suspension followed that saved it; where the state lies on one cluster, only what was done there.
    """
    found = Progress(metered.cost, left_s=left_s(batch))
    for attempt in attempts:
        suspended = attempt.recalled is Cause.SUSPENDED
        if attempt.started_at is None or not (suspended or attempt.open):
            continue  # never ran, or ended by a fault: what it did since its last start is lost
        if not job.spec.flexibility.storage and found.cluster not in (None, attempt.cluster):
            found = replace(found, done_s=0.0)
        found = replace(
            found,
            done_s=found.done_s + _work_s(attempt, metered.overheads.get(attempt.attempt_id, ()), found, now),
            pauses=found.pauses + suspended,
            cluster=attempt.cluster,
            runs_since=attempt.started_at if attempt.open and not suspended else None,
            unsaved=found.unsaved or not (attempt.open or saved_its_state(attempt.exit_code)),
        )
    return found


def _work_s(attempt: Attempt, taken: Sequence[Stretch], before: Progress, now: datetime) -> float:
    """Of an attempt that started, what it did of the job's work, and saved."""
    assert attempt.started_at is not None  # noqa: S101 - `progress` passes over the others
    end = now if attempt.open else attempt.ended_at or attempt.started_at
    ran_s = (end - attempt.started_at).total_seconds()
    if taken:
        return max(0.0, ran_s - sum((one.end - one.start).total_seconds() for one in taken))
    if not (attempt.open or saved_its_state(attempt.exit_code)):
        return 0.0
    return max(0.0, ran_s - (before.cost.mean_s if before.pauses else 0.0))


class Windows:
    """Bounds waiting jobs to their windows, and suspends running ones; the leader's decide loop calls both."""

    def __init__(self, store: Store, signals: Signals) -> None:
        self._store, self._signals = store, signals
        self._known: dict[str, tuple[object, Window | None]] = {}

    def bounded(self, job: WaitingJob, done: Progress, snapshot: Snapshot, settings: Settings) -> WaitingJob:
        """A job that waits: to be placed now where its window has begun, else not before its next slot."""
        job = _bound(job, done)
        found = self._window(_interruptible(job, done, settings), snapshot)
        if found is None:
            return job
        if found.run or (done.state is State.WAITING and found.saving < _least_saving(job, settings)):
            return replace(job, latest_start=min(job.latest_start, job.earliest_start))
        return replace(job, earliest_start=max(job.earliest_start, min(found.until, job.latest_start)))

    def suspend(
        self, running: Sequence[tuple[Job, WaitingJob, Progress, Settings]], snapshot: Snapshot
    ) -> datetime | None:
        """Have those stopped that save by it; returns when to look again."""
        border: datetime | None = None
        alive = {one.job_id for one in snapshot.jobs} | {job.job_id for job, *_ in running}
        self._known = {job_id: known for job_id, known in self._known.items() if job_id in alive}
        for job, waiting, done, settings in running:
            left = _bound(waiting, done)
            found = self._window(_interruptible(left, done, settings), snapshot)
            if found is None or done.runs_since is None:
                continue
            border = min(border or found.until, found.until)
            ready = done.runs_since + timedelta(seconds=settings.run_between_pauses * done.cost.mean_s)
            if found.run or found.saving < _least_saving(left, settings) or not _may_pause(done, settings):
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
        reason = f"suspended until a cleaner hour, which saves about {found.saving:.0%} of what running on would emit"
        with self._store.transaction() as tx:
            attempt = _open_attempt(tx, job.job_id)
            if attempt is None or not recall(tx, attempt, Cause.SUSPENDED, reason):
                return
            body = {
                "job": job.job_id, "attempt": attempt.attempt_id, "saving_ppm": round(found.saving * 1e6),
                "done_s": round(done.done_s), "pauses": done.pauses + 1, "until": to_rfc3339(found.until),
                "cost_s": round(done.cost.mean_s), "cost_metered": done.cost.metered,
            }  # fmt: skip
            tx.append_fact(Fact(FactKind.JOB_SUSPENDED, now, body))
        self._signals.dispatch.set()
        log.info("job is being suspended job=%s saving=%.3f", job.job_id, found.saving)


def gone(done: Progress, job: Job, snapshot: Snapshot) -> bool:
    """Whether the job's state went with the one cluster that had it, now removed; one that is away may come back."""
    there = {view.cluster.name for view in snapshot.clusters}
    return done.cluster is not None and not job.spec.flexibility.storage and done.cluster not in there


def _may_pause(done: Progress, settings: Settings) -> bool:
    return done.pauses < settings.max_pauses and not done.unsaved


def _least_saving(job: WaitingJob, settings: Settings) -> float:
    return max(settings.pause_gain, job.min_gain)


def _bound(job: WaitingJob, done: Progress) -> WaitingJob:
    return job if job.spec.flexibility.storage else replace(job, bound_to=done.cluster)


def _interruptible(job: WaitingJob, done: Progress, settings: Settings) -> Interruptible:
    runs_on = done.cluster if done.runs_since is not None else None
    return Interruptible(job, done.state, done.cost.upper_s(settings.pause_confidence), runs_on)


def _open_attempt(tx: Transaction, job_id: str) -> Attempt | None:
    if tx.job(job_id).state is not JobState.RUNNING:
        return None
    return next((attempt for attempt in tx.attempts(job_id=job_id, open_only=True)), None)
