"""Snapshot -> plan -> commit if nothing moved: the only place where a job is placed, delayed, held or refused."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.decision import Decision, Verdict
from carbon_sched.domain.errors import CarbonSchedError, NotLeading, StoreError
from carbon_sched.domain.facts import Fact, FactKind
from carbon_sched.domain.job import Attempt, Job, JobEvent, JobState, submission_id
from carbon_sched.domain.time import to_rfc3339
from carbon_sched.planning.explained import StartCurves
from carbon_sched.planning.snapshot import ClusterView, Reservation, Snapshot, WaitingJob
from carbon_sched.ports import Wait
from carbon_sched.service.accept import record_job_end
from carbon_sched.service.after import block, verdict
from carbon_sched.service.arrivals import Arrivals
from carbon_sched.service.decided import explained, fact_of
from carbon_sched.service.outlooks import home_of
from carbon_sched.service.planner import FOR_GOOD, OwnPlanner, is_news
from carbon_sched.service.reserved import reserved
from carbon_sched.service.shares import DAYS, day_of, held, shares
from carbon_sched.service.trust import Trust
from carbon_sched.service.waiting import waiting_job
from carbon_sched.service.windows import BEGIN, Progress, Windows, gone, progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from carbon_sched.domain.cluster import Cluster
    from carbon_sched.domain.job import JobSpec
    from carbon_sched.planning.snapshot import Belief
    from carbon_sched.policy.settings import Settings
    from carbon_sched.ports import Clock, Store, Transaction
    from carbon_sched.service.budgets import Budgets
    from carbon_sched.service.economics import Economics
    from carbon_sched.service.estimates import Estimates
    from carbon_sched.service.fleet import Fleet
    from carbon_sched.service.outlooks import Outlooks
    from carbon_sched.service.planner import Planner
    from carbon_sched.service.policies import Policies, PolicySet
    from carbon_sched.service.shares import Shares
    from carbon_sched.service.signals import Signals

log = logging.getLogger(__name__)


HORIZON = timedelta(days=7)
VISIBLE_AFTER_S = 20.0
"""A running job's tasks show in the cluster's own usage by then; until then our reservation stands for them."""
LONGEST_LOOK_S = 60.0
BATCH = 32
"""Decisions per transaction: a handful of statements and one wait for the disk, for which other writers wait."""
PIECE = 3 * BATCH
"""Decisions that are explained at a time."""
DRY_RUN = ""


@dataclass(frozen=True)
class _Read:
    """What one plan was made from; `versions` guard the commit."""

    snapshot: Snapshot
    versions: dict[str, int]
    policies: PolicySet
    shares: Shares
    blocked: Sequence[str]
    """Jobs that wait for others, and have not been told for which, or that they can never start."""
    running: Sequence[tuple[Job, WaitingJob, Progress, Settings]]
    """Jobs that run and may be suspended, with what is left of them."""

    @cached_property
    def waiting(self) -> dict[str, WaitingJob]:
        """The jobs to be decided about, by id."""
        return {job.job_id: job for job in self.snapshot.jobs}

    @cached_property
    def curves(self) -> StartCurves:
        """What stands behind the decisions, for those that are news."""
        return StartCurves(self.snapshot)


class Decide:
    """Plans all waiting jobs and commits each decision whose job did not change meanwhile."""

    def __init__(
        self,
        store: Store,
        fleet: Fleet,
        outlooks: Outlooks,
        estimates: Estimates,
        policies: Policies,
        clock: Clock,
        signals: Signals,
        budgets: Budgets,
        economics: Economics,
        planner: Planner | None = None,
    ) -> None:
        """`planner` makes the plans; without one they are made here."""
        self._store, self._fleet, self._outlooks = store, fleet, outlooks
        self._estimates, self._policies = estimates, policies
        self._clock, self._signals, self._budgets = clock, signals, budgets
        self._planner = planner or OwnPlanner()
        self._told = self._remembers = False
        self._trust = Trust(outlooks)
        self._arrivals = Arrivals()
        self._known: dict[str, Job] = {}
        self._windows = Windows(store, signals)
        self._economics = economics

    def step(self) -> float:
        """Plan once; returns the seconds after which to look again even if nothing happens.

        What no plan can be made for is told to the jobs that wait for one; who waits at a terminal reads it there.
        """
        try:
            return self._step()
        except (NotLeading, StoreError):
            raise
        except Exception as error:
            self._tell_waiting(error)
            raise

    def _step(self) -> float:
        read = self._read()
        self._block(read.blocked)
        self._budgets.settle()
        border = self._suspend(read)
        if not read.snapshot.jobs:
            return border
        border = min([border, *self._window_opens_s(read)])
        if self._fleet.ask_unknown():
            read = self._read()
        self._remember()
        whole, self._told = not self._told, False
        news = self._planner.plan(read.snapshot, whole=whole)
        self._told = self._commit_all(news.decisions, read)
        if news.state is not None:
            with self._store.transaction() as tx:
                tx.put_plan_state(news.state)
        wait = (news.next_look - self._clock.now()).total_seconds()
        return min(border, max(0.05, wait))

    def _suspend(self, read: _Read) -> float:
        """Stop running jobs for cleaner hours; returns the seconds until that is to be decided again."""
        border = self._windows.suspend(read.running, read.snapshot)
        if border is None:
            return LONGEST_LOOK_S
        return min(LONGEST_LOOK_S, max(0.05, (border - self._clock.now()).total_seconds()))

    def _window_opens_s(self, read: _Read) -> list[float]:
        """Seconds until the next slot of each job that may not start before it."""
        now = self._clock.now()
        return [
            max(0.05, (one.earliest_start - now).total_seconds())
            for one in read.snapshot.jobs
            if one.earliest_start > now
        ]

    def _tell_waiting(self, error: Exception) -> None:
        what = str(error) if isinstance(error, CarbonSchedError) else f"a bug ({type(error).__name__}: {error})"
        reason = f"no plan can be made: {what}. It is tried again; see `carbon-sched server logs`"
        with self._store.transaction() as tx:
            untold = [job for job in tx.live_jobs() if job.state is JobState.QUEUED and job.reason != reason]
            tx.tell_waiting([Wait(job, job.not_before, reason, Cause.NO_PLAN) for job in untold])
        self._signals.job_changed()

    def _block(self, job_ids: Sequence[str]) -> None:
        """Say of jobs that wait for others what they wait for, or refuse them."""
        if not job_ids:
            return
        with self._store.transaction() as tx:
            jobs = [tx.job(job_id) for job_id in job_ids]
            block(tx, [job for job in jobs if job.state is JobState.QUEUED], self._clock.now())
        self._signals.job_changed()

    def preview(self, spec: JobSpec) -> Decision:
        """The decision a job like this would get now, with nothing stored (dry run)."""
        self._fleet.ensure_any()
        self._fleet.ask_unknown()
        read = self._read()
        job = Job(DRY_RUN, spec, JobState.QUEUED, read.snapshot.now)
        waiting = self._waiting(job, read.snapshot.clusters, read.snapshot.now, read.policies, read.shares)
        snapshot = replace(read.snapshot, jobs=(*read.snapshot.jobs, waiting))
        return explained(self._planner.preview(snapshot, DRY_RUN), waiting, read.curves)

    def _remember(self) -> None:
        """The first plan goes on from the last one of the server before."""
        if not self._remembers:
            with self._store.transaction(write=False) as tx:
                state = tx.plan_state()
            if state is not None:
                self._planner.remember(state)
            self._remembers = True

    # reading -------------------------------------------------------------------------------------

    def _read(self) -> _Read:
        now = self._clock.now()
        with self._store.transaction(write=False) as tx:
            clusters, live = tx.clusters(), tx.live_jobs(self._known)
            attempts = tx.attempts(open_only=True)
            blocked = {job.job_id: verdict(tx, job) for job in live if job.state is JobState.QUEUED and job.spec.after}
            used = tx.usage(since_day=day_of(now) - DAYS)
            self._estimates.learn(tx)
            policies = self._policies.in_force(tx)
            coming, counts = self._arrivals.expected(tx, now)
            pausable = [
                job
                for job in live
                if job.spec.flexibility.interruptible and job.state in (JobState.QUEUED, JobState.RUNNING)
            ]
            batches = tx.batch_states([job.job_id for job in pausable]) if pausable else {}
            begun = {job.job_id: tx.attempts(job_id=job.job_id) for job in pausable}
        come = {
            job.job_id: progress(job, begun[job.job_id], self._economics.metered(job), now, batches.get(job.job_id, ()))
            for job in pausable
        }
        waiting = [job for job in live if job.state is JobState.QUEUED]
        queued = [job for job in waiting if not blocked.get(job.job_id, (Cause.NONE,))[0]]
        untold = [
            job.job_id for job in waiting if job.job_id in blocked and blocked[job.job_id][1] not in ("", job.reason)
        ]
        self._known = {job.job_id: job for job in live}
        specs = {job.job_id: job.spec for job in live}
        outlooks = self._outlooks.of([cluster.zone for cluster in clusters], now, now + HORIZON)
        trusted = self._trust.trusted(outlooks, now)
        steered, ranked_by = self._outlooks.ranked(list(outlooks), now, now + HORIZON, policies.ranking)
        views = tuple(
            ClusterView(
                cluster,
                self._fleet.status(cluster.name),
                outlooks[cluster.zone],
                self._reservations(cluster, attempts, specs, now),
                trusted=trusted[cluster.zone] or bool(steered),
                steered=steered.get(cluster.zone),
            )
            for cluster in clusters
        )
        holding = [held(specs[attempt.job_id], attempt, now) for attempt in attempts if attempt.job_id in specs]
        had = shares([*used, *holding], [view.status for view in views], now)
        snapshot = Snapshot(
            now,
            views,
            tuple(self._waiting(job, views, now, policies, had, come.get(job.job_id, BEGIN)) for job in queued),
            home=home_of(clusters),
            best_fixed=self._outlooks.best_fixed(clusters, now),
            expected=tuple(self._waiting(job, views, now, policies, had) for job in coming),
            expected_counts=counts,
            ranked_by=ranked_by,
        )
        running, bounded, waits = [], {}, {job.job_id for job in queued}
        for job in pausable:
            done, settings = come[job.job_id], policies.settings(job.spec)
            if job.state is JobState.RUNNING and settings.interruptible:
                running.append((job, self._waiting(job, views, now, policies, had, done), done, settings))
            elif job.job_id in waits and (settings.interruptible or done.pauses):  # who was paused goes on where it was
                bounded[job.job_id] = self._bounded(job, done, snapshot, policies, had)
        jobs = tuple(bounded.get(one.job_id, one) for one in snapshot.jobs)
        versions = {job.job_id: job.version for job in queued}
        self._estimates.keep(job.spec for job in (*live, *coming))
        return _Read(replace(snapshot, jobs=jobs), versions, policies, had, untold, running)

    def _bounded(self, job: Job, done: Progress, snapshot: Snapshot, policies: PolicySet, had: Shares) -> WaitingJob:
        """An interruptible job that waits, within its window; begun anew where its state went with a cluster."""
        done = Progress(done.cost) if gone(done, job, snapshot) else done
        waiting = self._waiting(job, snapshot.clusters, snapshot.now, policies, had, done)
        return self._windows.bounded(waiting, done, snapshot, policies.settings(job.spec))

    def _reservations(
        self, cluster: Cluster, attempts: list[Attempt], specs: dict[str, JobSpec], now: datetime
    ) -> tuple[Reservation, ...]:
        mine = [attempt for attempt in attempts if attempt.cluster == cluster.name and attempt.job_id in specs]
        return tuple(self._reservation(attempt, specs[attempt.job_id], cluster, now) for attempt in mine)

    def _reservation(self, attempt: Attempt, spec: JobSpec, cluster: Cluster, now: datetime) -> Reservation:
        started = attempt.started_at
        duration = timedelta(seconds=self._belief(spec).mean_duration_s)
        told = cluster.kubernetes is None  # which is not asked what is in use there
        visible = told and started is not None and (now - started).total_seconds() > VISIBLE_AFTER_S
        return Reservation(spec.resources.bundles, max(now, (started or now) + duration), visible)

    def _belief(self, spec: JobSpec) -> Belief:
        return self._estimates.belief(spec)

    def _waiting(
        self,
        job: Job,
        views: tuple[ClusterView, ...],
        now: datetime,
        policies: PolicySet,
        had: Shares,
        come: Progress = BEGIN,
    ) -> WaitingJob:
        belief, policy = self._belief(job.spec), policies.followed(job.spec)
        return waiting_job(job, belief, policy, views, now, had, come)

    # committing ----------------------------------------------------------------------------------

    def _commit_all(self, outlines: Sequence[Decision], read: _Read) -> bool:
        """Commit in batches; whether every job was still as it was read."""
        current = True
        for batch in (batch for piece in _pieces(outlines, PIECE) for batch in _pieces(self._worded(piece), BATCH)):
            with self._store.transaction() as tx:
                current &= self._commit(tx, batch, read)
            if any(decision.verdict is Verdict.PLACE for decision in batch):
                self._signals.dispatch.set()
            self._signals.job_changed()
        return current

    def _worded(self, outlines: Sequence[Decision]) -> list[Decision]:
        """The whole decisions; for who is told nothing new, the one that was told last."""
        with self._store.transaction(write=False) as tx:
            whole = tx.decisions([outline.job_id for outline in outlines])
        news = [outline.job_id for outline in outlines if is_news(whole.get(outline.job_id), outline)]
        if news:
            whole |= {decision.job_id: decision for decision in self._planner.explain(news)}
        return [whole[outline.job_id] for outline in outlines]

    def _commit(self, tx: Transaction, decisions: Sequence[Decision], read: _Read) -> bool:
        """Those of jobs that stand as they were read; whether all do. Budgets have their say on each start in turn."""
        jobs = tx.jobs_by_id([decision.job_id for decision in decisions], self._known)
        standing = [decision for decision in decisions if _stands(jobs[decision.job_id], read)]
        waiting = [decision for decision in standing if decision.verdict not in FOR_GOOD]
        self._record(tx, waiting, read)
        _tell(tx, jobs, waiting)
        for decision in standing:
            if decision.verdict in FOR_GOOD:
                job = jobs[decision.job_id]
                admitted = self._budgets.admit(tx, job, decision)
                self._record(tx, [admitted], read)
                self._apply(tx, job, admitted)
        return len(standing) == len(decisions)

    def _record(self, tx: Transaction, decisions: Sequence[Decision], read: _Read) -> None:
        """Store those that are news, each with its fact."""
        before = tx.decisions([decision.job_id for decision in decisions])
        news = [
            explained(decision, read.waiting[decision.job_id], read.curves)
            for decision in decisions
            if is_news(before.get(decision.job_id), decision)
        ]
        tx.put_decisions(news)
        tx.append_facts([fact_of(decision, read.snapshot.ranked_by) for decision in news])

    def _apply(self, tx: Transaction, job: Job, decision: Decision) -> None:
        if decision.verdict is Verdict.PLACE and decision.cluster is not None:
            self._open_attempt(tx, job, decision.cluster, decision)
        elif decision.verdict is Verdict.REFUSE:
            now = self._clock.now()
            job = tx.move_job(job, JobEvent.REFUSED, at=now, reason=decision.reason, cause=Cause.CANNOT_RUN)
            record_job_end(tx, job)
        else:
            _tell(tx, {job.job_id: job}, [decision])

    def _open_attempt(self, tx: Transaction, job: Job, cluster_name: str, decision: Decision) -> None:
        cluster = next((c for c in tx.clusters() if c.name == cluster_name), None)
        if cluster is None:
            log.info("decision discarded job=%s: cluster %s was removed", job.job_id, cluster_name)
            return
        now = self._clock.now()
        number = job.attempts + 1
        attempt = Attempt(
            attempt_id=submission_id(job.job_id, number),
            job_id=job.job_id,
            number=number,
            cluster=cluster.name,
            opened_at=now,
            start_by=now + timedelta(seconds=cluster.start_grace_s),
        )
        tx.add_attempt(attempt)
        job = tx.amend_job(job, attempts=number)
        tx.move_job(job, JobEvent.DISPATCH, at=now, reason=decision.reason)
        self._budgets.reserve(tx, job, attempt.attempt_id, decision)
        tx.enqueue("submit", attempt.attempt_id, {})
        body = {
            "attempt": attempt.attempt_id,
            "job": job.job_id,
            "number": number,
            "cluster": cluster.name,
            "zone": cluster.zone,
            "pue_ppm": cluster.pue.ppm,
            "pue_source": cluster.pue.source,
            "start_by": to_rfc3339(attempt.start_by),
            "reserved": reserved(job.spec, cluster, self._fleet.status(cluster.name)),
        }
        tx.append_fact(Fact(FactKind.ATTEMPT_OPENED, now, body))


def _stands(job: Job, read: _Read) -> bool:
    """Whether a job is as the plan took it to be."""
    stands = job.version == read.versions[job.job_id] and job.state is JobState.QUEUED
    if not stands:
        log.info("decision discarded job=%s: it changed while the plan was made", job.job_id)
    return stands


def _tell(tx: Transaction, jobs: Mapping[str, Job], decisions: Sequence[Decision]) -> None:
    """Let jobs know why they wait, and until when."""
    waits = []
    for decision in decisions:
        job, cause = jobs[decision.job_id], Cause.DELAYED if decision.verdict is Verdict.DELAY else Cause.NO_ROOM
        if job.reason != decision.reason or job.not_before != decision.start:
            waits.append(Wait(job, decision.start, decision.reason, cause))
    tx.tell_waiting(waits)


def _pieces(decisions: Sequence[Decision], size: int) -> Iterator[Sequence[Decision]]:
    return (decisions[first : first + size] for first in range(0, len(decisions), size))
