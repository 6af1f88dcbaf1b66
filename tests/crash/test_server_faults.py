"""kill -9 of the server before and after each commit and each call of a cluster: the same end as without it.

In one process, with in-memory clusters and a real database file; tests/crash/test_server_kill.py kills processes.
"""

from __future__ import annotations

import shutil
from collections import Counter
from datetime import timedelta

import pytest

from carbon_sched.domain.errors import ClusterUnclear
from carbon_sched.domain.job import JobState
from tests.fakes.fuse import Fuse, Killed
from tests.fakes.world import World, a_cluster

GRID = {"SE-SE3": [(0, 90.0), (60, 30.0)], "DE": [(0, 400.0), (60, 300.0)]}
ROUND_S = 7
RUN_S = 20
ROUNDS = 25
ENERGY_UJ = 3_600_000_000


class Story:
    """A user with four jobs (at once, delayed, failing, stopped), two clusters, and a server that dies once."""

    def __init__(self, folder, database, at=None):
        self.folder, self.fuse = folder, Fuse()
        shutil.copytree(database, folder, dirs_exist_ok=True)
        clusters = [a_cluster("dirty", "DE", 1.2, home=True), a_cluster("clean", "SE-SE3", 1.1)]
        self.world = World(folder, clusters, GRID, fuse=self.fuse)
        self.fuse.moments.clear()
        self.fuse.at = at
        self.world.clusters["clean"].failures_after["submit"] = [ClusterUnclear("answer lost")]
        self.deaths = 0
        self.started = Counter()
        self.begun = {}

    def alive(self, doing, action):
        """Do something with the server, and again with the next one if it dies of it, as a client repeats a call."""
        while True:
            self.fuse.doing = doing
            try:
                return action()
            except Killed:
                self.deaths += 1
                self.fuse = Fuse()
                self.world.close()
                self.world = World(self.folder, [], GRID, before=self.world, fuse=self.fuse)

    def play(self):
        now = self.alive("submit", lambda: self.world.submit("now", name="now", bundle_sha256=self.world.a_bundle()))
        later = self.alive("submit", lambda: self.world.submit("later", name="later", duration_s=20, max_delay_s=600))
        failing = self.alive("submit", lambda: self.world.submit("failing", name="failing", clusters=["dirty"]))
        endless = self.alive("submit", lambda: self.world.submit("endless", name="endless"))
        self.jobs = [now, later, failing, endless]
        number = 0
        while not all(self.world.statements.receipt(job.job_id)["final"] for job in self.jobs):
            assert number < ROUNDS, {job.spec.name: self.world.job(job) for job in self.jobs}
            for doing in ("poll", "decide", "dispatch", "follow", "collect"):
                self.alive(doing, lambda doing=doing: self.step(doing))
            if number == 4:
                self.alive("stop", lambda: self.world.accept.stop(endless.job_id))
            self.ray()
            self.world.clock.pass_s(ROUND_S)
            number += 1

    def step(self, doing):
        if doing == "poll":
            for cluster in self.world.fleet.all():
                self.world.fleet.poll(cluster)
        else:
            getattr(self.world, doing).step()

    def ray(self):
        """What clusters and wrappers do meanwhile: start what waits, end what has run long enough or was stopped."""
        for cluster in self.world.clusters.values():
            for submission_id, job in list(cluster.known.items()):
                if job.status == "PENDING":
                    self.started[submission_id] += 1
                    self.begun[submission_id] = self.world.clock.now()
                    self.record(submission_id, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
                    cluster.run(submission_id)
                elif job.status == "RUNNING":
                    self.end(cluster, submission_id)

    def end(self, cluster, submission_id):
        name = self.job_of(submission_id).spec.name
        ran = self.world.clock.now() - self.begun[submission_id]
        stopped = submission_id in cluster.stops
        if not stopped and (name == "endless" or ran < timedelta(seconds=RUN_S)):
            return
        code = 143 if stopped else 3 if name == "failing" else 0
        attempt = self.attempt(submission_id)
        seq = self.jobs.index(self.job_of(submission_id))
        self.world.segment(attempt, self.begun[submission_id], self.world.clock.now(), {submission_id: ENERGY_UJ}, seq)
        self.record(submission_id, {"event": "ended", "exit_code": code},
                    {"event": "closed", "exit_code": code, "segments": 1})  # fmt: skip
        cluster.end(submission_id, "STOPPED" if stopped else "FAILED" if code else "SUCCEEDED", code)

    def record(self, submission_id, *events):
        self.world.record(self.attempt(submission_id), *events)

    def attempt(self, submission_id):
        with self.world.store.transaction(write=False) as tx:
            return tx.attempt(submission_id)

    def job_of(self, submission_id):
        return next(job for job in self.jobs if job.job_id in submission_id)

    def outcome(self):
        """All that must not depend on when the server died."""
        told = {}
        for job in self.jobs:
            ended, receipt = self.world.job(job), self.world.statements.receipt(job.job_id)
            runs = sum(count for attempt, count in self.started.items() if job.job_id in attempt)
            told[job.spec.name] = (
                ended.state, runs, receipt["final"], receipt["cluster"], ended.exit_code, receipt["energy_kwh"],
                receipt["co2e_ug"], receipt["missing"],
            )  # fmt: skip
        return told


@pytest.fixture(scope="module")
def undisturbed(database, tmp_path_factory):
    story = Story(tmp_path_factory.mktemp("undisturbed"), database)
    story.play()
    outcome = story.outcome()
    assert story.deaths == 0
    states = {name: told[0] for name, told in outcome.items()}
    assert states == {
        "now": JobState.SUCCEEDED, "later": JobState.SUCCEEDED, "failing": JobState.FAILED, "endless": JobState.STOPPED,
    }  # fmt: skip
    assert {told[1] for told in outcome.values()} == {1}, "each ran once"
    assert all(told[2] for told in outcome.values()), "each receipt is final"
    story.world.close()
    return outcome, story.fuse.moments


def check(folder, database, undisturbed, at):
    outcome, moments = undisturbed
    story = Story(folder, database, at)
    story.play()
    assert story.deaths == 1
    assert story.outcome() == outcome, f"killed at moment {at}, {moments[at - 1]}"
    assert story.world.statements.verify().ok
    story.world.close()
    shutil.rmtree(folder)


def test_killed_at_each_kind_of_moment_once(database, undisturbed, tmp_path):
    _, moments = undisturbed
    first = sorted({moment: -number for number, moment in reversed(list(enumerate(moments, 1)))}.items())
    assert len(first) >= 30, "kinds of moments"
    assert {"dispatch: before submit", "dispatch: after submit", "follow: after jobs"} <= {name for name, _ in first}
    for name, number in first:
        check(tmp_path / name.replace(" ", "-"), database, undisturbed, -number)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_every_moment(database, undisturbed, tmp_path):
    _, moments = undisturbed
    for at in range(1, len(moments) + 1):
        check(tmp_path / str(at), database, undisturbed, at)
