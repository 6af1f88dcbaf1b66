"""Replay a scenario through the production decision code: `service.decide` over a virtual clock, hour after hour."""

from __future__ import annotations

import heapq
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from carbon_sched.domain.energy import EnergySpan, Reporter, SourceClass
from carbon_sched.domain.job import Flexibility, Job, JobEvent, JobSpec, JobState
from carbon_sched.domain.units import UJ_PER_KWH
from carbon_sched.policy.model import EVERY_TEAM
from carbon_sched.service.budgets import Budgets
from carbon_sched.service.decide import Decide
from carbon_sched.service.economics import Economics
from carbon_sched.service.estimates import Estimates, past_run
from carbon_sched.service.fleet import Fleet
from carbon_sched.service.outlooks import Outlooks
from carbon_sched.service.planner import OwnPlanner
from carbon_sched.service.policies import Policies, PolicySet
from carbon_sched.service.shares import held
from carbon_sched.service.signals import Signals
from carbon_sched.service.statements import Statements
from carbon_sched.simulate.feed import Feed
from carbon_sched.simulate.memory import Memory
from carbon_sched.simulate.scenario import NOWHERE, Scenario, Schedule
from carbon_sched.simulate.world import Fields, Machines, VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from numpy.typing import NDArray

    from carbon_sched.domain.decision import Decision
    from carbon_sched.domain.job import Attempt
    from carbon_sched.planning.nodes import Held
    from carbon_sched.planning.snapshot import Belief
    from carbon_sched.policy.model import Policy
    from carbon_sched.ports import Store, Transaction

    Floats = NDArray[np.float64]

    Progress = Callable[[float], None]
"""Is told the share of the scenario that is done."""


class Knowledge(Protocol):
    """How a replay's planner comes by its beliefs."""

    def __call__(self, store: Store, scenario: Scenario) -> Estimates:
        """Estimates that read this store."""


class Remembered(Estimates):
    """The production estimates, asked once per job: what is believed of it when it is first looked at."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._known: dict[str, Belief] = {}
        self._alike: dict[float, Belief] = {}

    def learn(self, tx: Transaction) -> None:
        """Read what has ended; what was believed of sizes is to be worked out anew."""
        super().learn(tx)
        self._alike.clear()

    def belief(self, spec: JobSpec) -> Belief:
        """As production believes; no two jobs of a trace share a name, so jobs of one size are believed alike."""
        if spec.name not in self._known:
            self._known[spec.name] = self._first(spec)
        return self._known[spec.name]

    def _first(self, spec: JobSpec) -> Belief:
        size = spec.resources.gpus or spec.resources.cpus
        if size not in self._alike:
            self._alike[size] = super().belief(spec)
        return self._alike[size]


class Foreseen(Remembered):
    """Estimates that know every run time: a bound, to see what better knowledge of jobs would be worth."""

    def __init__(self, store: Store, hours: Floats) -> None:
        super().__init__(store)
        self._hours = hours

    def _first(self, spec: JobSpec) -> Belief:
        """The true run time, with the power that production believes in."""
        seconds = float(self._hours[int(spec.name)]) * 3600.0
        return replace(super()._first(spec), durations_s=(seconds,), weights=(1.0,), upper=(), source="known")


class Fixed(Policies):
    """Policies that are nowhere stored: always the same."""

    def __init__(self, store: Store, policies: PolicySet, clock: VirtualClock) -> None:
        super().__init__(store, policies.preset, clock)
        self._seen = policies

    def in_force(self, tx: Transaction) -> PolicySet:
        """These."""
        del tx
        return self._seen


def everybodys(policy: Policy) -> PolicySet:
    """One policy, which all jobs follow."""
    return PolicySet(0, {policy.name: policy}, lambda _: policy, {EVERY_TEAM: policy.name})


class Unlimited(Budgets):
    """No budgets: what they allow depends on what had been used before the trace began."""

    def admit(self, tx: Transaction, job: Job, decision: Decision) -> Decision:
        """As it is."""
        del tx, job
        return decision

    def reserve(self, tx: Transaction, job: Job, attempt_id: str, decision: Decision) -> None:
        """Nothing."""

    def settle(self) -> int:
        """Nothing."""
        return 0


def learnt(store: Store, scenario: Scenario) -> Estimates:
    """What production learns from the jobs that have ended."""
    return Estimates(store) if scenario.specs else Remembered(store)


def foreseen(store: Store, scenario: Scenario) -> Estimates:
    """True run times."""
    return Foreseen(store, scenario.jobs.hours)


def replay(
    scenario: Scenario,
    policy: Policy | PolicySet,
    *,
    knowledge: Knowledge = learnt,
    progress: Progress | None = None,
) -> Schedule:
    """Where and when every job starts under a policy, or under a set of them that says who follows which.

    At every step at which jobs wait: what has ended is taken off the machines, new jobs are queued, and `Decide` plans
    all that wait, exactly as the server's loop does; between steps too, where a job with a deadline is to start there.
    Jobs that it places start at once and hold their units for whole steps. It ends when the last job has started, or
    with the grid's data.
    """
    run = _Run(scenario, policy if isinstance(policy, PolicySet) else everybodys(policy), knowledge)
    order = np.argsort(scenario.ticks, kind="stable").tolist()
    tick, at = int(scenario.ticks.min()), 0
    end = int(scenario.hours / scenario.step_h)
    while tick < end and (at < len(order) or run.waiting):
        if not run.waiting:
            tick = max(tick, int(scenario.ticks[order[at]]))
        run.move_to(tick)
        while at < len(order) and scenario.ticks[order[at]] <= tick:
            run.submit(order[at])
            at += 1
        run.decide()
        while (due := run.due_before(tick + 1)) is not None:
            run.move_to(due)
            run.decide()
        if progress is not None:
            progress(at / len(order))
        tick += 1
    return Schedule(run.cluster, run.start_h)


class _Run:
    """The state of one replay."""

    def __init__(self, scenario: Scenario, following: PolicySet, knowledge: Knowledge) -> None:
        self._of, self._following = scenario, following
        self.cluster = np.full(len(scenario.jobs), NOWHERE)
        self.start_h = np.full(len(scenario.jobs), np.nan)
        self._clock = VirtualClock(scenario.start)
        self._store = Memory()
        # what deciding uses of the port is all there; whatever else it came to use, every test of a replay would show
        store = cast("Store", self._store)
        feed = Feed(scenario)
        zones = [cluster.zone for cluster in scenario.clusters]
        first = feed.outlooks(zones, scenario.start, scenario.start)
        self._machines = {c.name: Machines(c, self._clock, first[c.zone]) for c in scenario.clusters}
        self._numbers = {cluster.name: i for i, cluster in enumerate(scenario.clusters)}
        signals = Signals()
        self._fleet = Fleet(store, Fields(self._machines), self._clock, signals)
        for cluster in scenario.clusters:
            self._fleet.put(cluster)
        policies = Fixed(store, following, self._clock)
        estimates = knowledge(store, scenario)
        planner, outlooks = OwnPlanner(brief=True), Outlooks(feed)
        statements = Statements(store)
        budgets, economics = Unlimited(store, policies, statements, self._clock), Economics(statements)
        self._decide = Decide(
            store, self._fleet, outlooks, estimates, policies, self._clock, signals, budgets, economics, planner
        )
        self._running: list[tuple[float, str, str]] = []
        self._held: dict[str, Held] = {}

    @property
    def waiting(self) -> bool:
        """Whether any job is queued."""
        return any(job.state is JobState.QUEUED for job in self._store.live_jobs())

    @property
    def step(self) -> float:
        """The present, in steps since the start."""
        return round(self._clock.monotonic() / 3600.0 / self._of.step_h, 6)

    def due_before(self, tick: int) -> float | None:
        """The step, between the present and this one, to which a job with a deadline waits; None where none does."""
        queued = [job for job in self._store.live_jobs() if job.state is JobState.QUEUED]
        starts = [job.not_before for job in queued if job.not_before and job.spec.flexibility.deadline]
        held = ((start - self._of.start).total_seconds() / 3600.0 / self._of.step_h for start in starts)
        return min((due for due in held if self.step < due < tick), default=None)

    def move_to(self, step: float) -> None:
        """Let time pass; what ends by then gives its units back."""
        while self._running and self._running[0][0] <= step:
            ended, attempt_id, cluster = heapq.heappop(self._running)
            self._clock.move_to(ended * self._of.step_h)
            self._end(attempt_id, cluster)
        self._clock.move_to(step * self._of.step_h)

    def submit(self, i: int) -> None:
        """A job comes in."""
        spec = self._of.specs[i] if self._of.specs else self._spec(i)
        priority = self._following.settings(spec).priority.rank
        self._store.add_job(Job(_name(i), spec, JobState.QUEUED, self._clock.now(), priority=priority))

    def _spec(self, i: int) -> JobSpec:
        """What a job of a trace asks for, of which no more is known than its size and slack."""
        of = self._of
        slack_s = float(of.slack_h[i]) * 3600.0
        deadline = None
        if of.deadline_h is not None:
            deadline, slack_s = of.start + timedelta(hours=float(of.deadline_h[i])), 0.0
        flexibility = Flexibility(deadline=deadline, max_delay_s=slack_s or None)
        team = of.jobs.group[i] if of.jobs.group else ""
        resources = of.resources(float(of.jobs.units[i]))
        return JobSpec("", _name(i), team=team, resources=resources, flexibility=flexibility)

    def decide(self) -> None:
        """One turn of the server's loop: poll, plan, dispatch."""
        if not self.waiting:
            return
        for cluster in self._of.clusters:
            self._fleet.poll(cluster)
        self._decide.step()
        opened, self._store.submissions = self._store.submissions, []
        for attempt_id in opened:
            self._dispatch(self._store.attempt(attempt_id))

    def _dispatch(self, attempt: Attempt) -> None:
        """Start it, or hand it back where its bundles find no nodes after all."""
        now, job = self._clock.now(), self._store.job(attempt.job_id)
        room = self._machines[attempt.cluster].take(job.spec.resources)
        if room is None:
            self._store.put_attempt(replace(attempt, outcome="withdrawn", ended_at=now))
            self._store.move_job(job, JobEvent.WITHDRAWN, at=now)
            return
        job = self._store.move_job(job, JobEvent.SUBMITTED, at=now)
        self._store.move_job(job, JobEvent.STARTED, at=now)
        self._store.put_attempt(replace(attempt, accepted=True, started_at=now))
        i, step = int(job.job_id), self.step
        self.cluster[i], self.start_h[i] = self._numbers[attempt.cluster], step * self._of.step_h
        self._held[attempt.attempt_id] = room
        heapq.heappush(self._running, (step + int(self._of.held[i]), attempt.attempt_id, attempt.cluster))

    def _end(self, attempt_id: str, cluster: str) -> None:
        """A run is over: its energy is booked and its machines are free."""
        attempt = self._store.attempt(attempt_id)
        job = self._store.job(attempt.job_id)
        self._machines[cluster].give_back(self._held.pop(attempt_id))
        i = int(job.job_id)
        begun = attempt.started_at or attempt.opened_at
        ended = begun + timedelta(hours=float(self._of.jobs.hours[i]))
        attempt = replace(attempt, ended_at=ended, exit_code=0, outcome=JobEvent.SUCCEEDED.value, collected=True)
        run = past_run(job, attempt, [self._span(attempt, i, begun, ended)], self._of.clusters[self.cluster[i]], None)
        if run is not None:
            self._store.add_run(run)
        self._store.add_usage(held(job.spec, attempt, ended))
        self._store.put_attempt(attempt)
        self._store.move_job(job, JobEvent.SUCCEEDED, at=ended)

    def _span(self, attempt: Attempt, i: int, start: datetime, end: datetime) -> EnergySpan:
        kwh = self._of.unit_kw * float(self._of.jobs.units[i] * self._of.jobs.hours[i])
        return EnergySpan(
            owner=attempt.attempt_id,
            cluster=attempt.cluster,
            machine="backtest",
            device="all",
            device_kind=self._of.resource.lower(),
            start=start,
            end=end,
            energy_uj=round(kwh * UJ_PER_KWH),
            source=SourceClass.ESTIMATED,
            reporter=Reporter.SELF_REPORTED,
            scope="job",
            rule="trace",
            error_ppm=0,
            segment_sha256="",
        )


def _name(i: int) -> str:
    """Job i's id and name: a trace's jobs share no names."""
    return str(i)
