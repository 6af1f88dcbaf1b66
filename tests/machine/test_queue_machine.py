"""The queue as a state machine: any order of submitting, deciding, dying, restarting, stopping, and the clock stepping.

Whatever happens: every acknowledged job is there, an attempt's run is started at most once, never two attempts of one
job at a time, and the chain verifies.
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from sqlalchemy import make_url

from carbon_sched.domain.errors import ClusterUnclear
from carbon_sched.domain.job import TRANSITIONS, JobEvent, JobState
from carbon_sched.service.dispatch import Dispatch
from carbon_sched.store.engine import open_store
from carbon_sched.store.tables import ACCEPTED
from tests.fakes.fuse import Fuse, Killed
from tests.fakes.stores import BOTH
from tests.fakes.world import FakeClock, World, a_cluster

GRID = {"SE-SE3": [(0, 50.0)], "DE": [(0, 400.0), (3600, 100.0)]}
CLUSTERS = [a_cluster("dirty", "DE", home=True), a_cluster("clean", "SE-SE3")]
STEPS = ("decide", "dispatch", "follow", "collect")
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None
"""What is tested is our process dying, not the machine: no write needs to wait for a disk."""


class Queue(RuleBasedStateMachine):
    """One server after another on one database, over two clusters that live on."""

    databases: Databases

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cs-t-queue-", dir=MEMORY))
        self.database = self.databases.new(self.folder)
        self.world = World(self.folder, CLUSTERS, GRID, database=self.database)
        self.acknowledged: dict[str, str] = {}
        self.began = Counter[str]()

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.finish()
            self.world.close()
            shutil.rmtree(self.folder)
            self.databases.drop(self.database)

    # what people do ------------------------------------------------------------------------------

    @rule(number=st.integers(0, 5), patient=st.booleans())
    def submit(self, number: int, patient: bool) -> None:
        """Some of them are repetitions, of which each must be the same job again."""
        more = {"max_delay_s": 7200} if patient else {}
        key = f"{number}-{patient}"
        job = self.world.submit(key, duration_s=600, **more)
        assert self.acknowledged.setdefault(key, job.job_id) == job.job_id

    @rule(number=st.integers(0, 9))
    def stop(self, number: int) -> None:
        if self.acknowledged:
            self.world.accept.stop(list(self.acknowledged.values())[number % len(self.acknowledged)])

    # what the server does, and how it dies --------------------------------------------------------

    @rule(step=st.sampled_from(STEPS))
    def work(self, step: str) -> None:
        self.poll()
        getattr(self.world, step).step()

    @rule(step=st.sampled_from(STEPS), moment=st.integers(1, 8))
    def die_at_work(self, step: str, moment: int) -> None:
        """At this moment of a new server's start and step, if they have so many; the next server goes on."""
        fuse = Fuse(moment)
        try:
            self.restart(fuse)
            self.poll()
            getattr(self.world, step).step()
        except Killed:
            self.restart()
        fuse.at = None  # it lives on

    def restart(self, fuse: Fuse | None = None) -> None:
        self.world.store.close()
        self.world = World(self.folder, CLUSTERS, GRID, before=self.world, fuse=fuse, database=self.database)

    def poll(self) -> None:
        for cluster in self.world.fleet.all():
            self.world.fleet.poll(cluster)

    # what the clusters do --------------------------------------------------------------------------

    @rule(name=st.sampled_from(["dirty", "clean"]))
    def start_jobs(self, name: str) -> None:
        """The wrapper looks at its time fence before it begins."""
        cluster = self.world.clusters[name]
        for attempt in self.open_attempts():
            known = cluster.known.get(attempt.attempt_id)
            if attempt.cluster != name or known is None or known.status != "PENDING":
                continue
            if self.world.clock.now() > attempt.start_by:
                self.world.record(attempt, {"event": "refused", "reason": "fence", "exit_code": 75})
                cluster.end(attempt.attempt_id, "FAILED", 75)
                continue
            self.began[attempt.attempt_id] += 1
            self.world.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
            cluster.run(attempt.attempt_id)

    @rule(name=st.sampled_from(["dirty", "clean"]), exit_code=st.sampled_from([0, 0, 0, 3]))
    def end_jobs(self, name: str, exit_code: int) -> None:
        cluster = self.world.clusters[name]
        for attempt in self.open_attempts():
            known = cluster.known.get(attempt.attempt_id)
            if attempt.cluster == name and known is not None and known.status == "RUNNING":
                ended = {"event": "ended", "exit_code": exit_code}
                self.world.record(attempt, ended, {**ended, "event": "closed", "segments": 0})
                cluster.end(attempt.attempt_id, "FAILED" if exit_code else "SUCCEEDED", exit_code)

    @rule(name=st.sampled_from(["dirty", "clean"]), up=st.booleans())
    def come_and_go(self, name: str, up: bool) -> None:
        self.world.clusters[name].up = up

    @rule(name=st.sampled_from(["dirty", "clean"]))
    def answer_unclearly(self, name: str) -> None:
        """The next submission is taken, and the answer is lost."""
        self.world.clusters[name].failures_after["submit"] = [ClusterUnclear("the answer was lost")]

    @rule(seconds=st.sampled_from([1, 30, 900, 3600, -3600]))
    def step_the_clock(self, seconds: float) -> None:
        self.world.clock.at += timedelta(seconds=seconds)
        self.world.clock.ticks += abs(seconds)

    # what holds ----------------------------------------------------------------------------------

    def open_attempts(self) -> list:
        with self.world.store.transaction(write=False) as tx:
            return tx.attempts(open_only=True)

    def states(self) -> list[JobState]:
        """Of all jobs that were acknowledged; a lost one is at an end, too."""
        with self.world.store.transaction(write=False) as tx:
            return [tx.job(job_id).state for job_id in self.acknowledged.values()]

    @invariant()
    def nothing_is_lost_and_nothing_runs_twice(self) -> None:
        if not hasattr(self, "world"):
            return
        assert max(self.began.values(), default=0) <= 1, "each attempt ran at most once"
        with self.world.store.transaction(write=False) as tx:
            for job_id in self.acknowledged.values():
                job, events = tx.job(job_id), tx.events(job_id)
                assert [one.event for one in events if one.event == ACCEPTED] == [ACCEPTED]
                state = JobState.QUEUED
                for one in events[1:]:
                    state = TRANSITIONS[state, JobEvent(one.event)]
                assert state is job.state, "the events tell how it came there"
                attempts = tx.attempts(job_id=job_id)
                assert len([one for one in attempts if not one.outcome]) <= 1
                assert [one.number for one in attempts] == list(range(1, job.attempts + 1))

    def finish(self) -> None:
        """Everything is up again and time passes: every job comes to an end, and the chain verifies."""
        for cluster in self.world.clusters.values():
            cluster.up = True
        for _ in range(12):
            with self.world.store.transaction() as tx:  # PostgreSQL's own clock says what is due; as a new leader does
                Dispatch.begin_term(tx)
            self.world.settle()
            if all(state.final for state in self.states()):
                break
            for name in ("dirty", "clean"):
                self.start_jobs(name)
                self.world.settle()
                self.end_jobs(name, 0)
            self.world.settle()
            self.world.clock.pass_s(3600)
        assert all(state.final for state in self.states()), self.states()
        self.nothing_is_lost_and_nothing_runs_twice()
        assert self.world.statements.verify().ok


class Databases:
    """New ones, each a copy of one that has its schema."""

    def __init__(self, kind: str, request: pytest.FixtureRequest) -> None:
        self.server = request.getfixturevalue("postgres_server") if kind == "postgresql" else None
        self.first = request.getfixturevalue("tmp_path") / "w.sqlite"
        self.name = self.server.create_database() if self.server else ""
        url = self.server.url(self.name) if self.server else f"sqlite:///{self.first}"
        open_store(url, FakeClock()).close()

    def new(self, folder: Path) -> str | None:
        """Its URL; None for the one that a world has in its folder."""
        if self.server is not None:
            return self.server.url(self.server.create_database(template=self.name))
        shutil.copy(self.first, folder)
        return None

    def drop(self, url: str | None) -> None:
        if self.server is not None and url is not None:
            self.server.drop_database(make_url(url).database)


def machine(kind: str, request: pytest.FixtureRequest) -> type[Queue]:
    """Over new databases of this kind."""
    return type("Its", (Queue,), {"databases": Databases(kind, request)})


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", BOTH)
def test_whatever_happens_nothing_is_lost_or_run_twice(kind, request):
    examples = settings(max_examples=6, stateful_step_count=30)
    run_state_machine_as_test(machine(kind, request), settings=examples)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", BOTH)
def test_five_hundred_times_fifty_steps(kind, request):
    run_state_machine_as_test(machine(kind, request), settings=settings(max_examples=500, stateful_step_count=50))
