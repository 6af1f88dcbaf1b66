"""kill -9 of server, wrapper and head at each step of suspend and resume: the job ends once, no energy lost or doubled.

In one process, as tests/crash/test_server_faults.py.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter

import pytest

from carbon_sched.domain.job import JobState
from tests.fakes.fuse import Fuse, Killed
from tests.fakes.world import World, a_cluster

GRID = {"DE": [(0, 50.0), (600, 900.0), (1200, 60.0)]}
ROUND_S, ROUNDS = 150, 40
WORK_S = 1200
ENERGY_UJ_PER_S = 1_000_000


class Story:
    """A job of twenty minutes that is suspended for ten, on one cluster; something dies once."""

    def __init__(self, folder, database, at=None):
        self.folder, self.fuse = folder, Fuse()
        shutil.copytree(database, folder, dirs_exist_ok=True)
        self.world = World(folder, [a_cluster("c", "DE", home=True)], GRID, fuse=self.fuse)
        self.fuse.moments.clear()
        self.fuse.at = at
        self.deaths, self.done_s, self.segments = 0, 0.0, 0
        self.started, self.begun, self.harmed = Counter(), {}, False

    @property
    def cluster(self):
        return self.world.clusters["c"]

    def alive(self, doing, action):
        """Do something with the server, and again with the next one if it dies of it."""
        while True:
            self.fuse.doing = doing
            try:
                return action()
            except Killed:
                self.deaths += 1
                self.fuse = Fuse()
                self.world.close()
                self.world = World(self.folder, [], GRID, before=self.world, fuse=self.fuse)

    def play(self, disturb=lambda story: None):
        """To the receipt; `disturb` may harm what runs, before and after Ray's turn."""
        self.job = self.alive(
            "submit",
            lambda: self.world.submit("once", name="train", interruptible=True, duration_s=WORK_S, max_delay_s=3600,
                                      restart_s=5, storage="s3://bucket/runs"),
        )  # fmt: skip
        for _ in range(ROUNDS):
            if self.world.statements.receipt(self.job.job_id)["final"]:
                return
            for doing in ("poll", "decide", "dispatch", "follow", "collect"):
                self.alive(doing, lambda doing=doing: self.step(doing))
            disturb(self)
            self.ray()
            disturb(self)
            self.world.clock.pass_s(ROUND_S)
        pytest.fail(f"no end: {self.world.job(self.job)}")

    def step(self, doing):
        if doing == "poll":
            self.world.fleet.poll(self.world.fleet.all()[0])
        else:
            getattr(self.world, doing).step()

    def ray(self):
        """Start what waits, end what was stopped or has done its work."""
        for submission_id, job in list(self.cluster.known.items()):
            if job.status == "PENDING":
                self.started[submission_id] += 1
                self.begun[submission_id] = self.world.clock.now()
                self.record(submission_id, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
                self.cluster.run(submission_id)
            elif job.status == "RUNNING":
                ran_s = (self.world.clock.now() - self.begun[submission_id]).total_seconds()
                stopped = submission_id in self.cluster.stops
                if stopped or self.done_s + ran_s >= WORK_S:
                    self.end(submission_id, ran_s, "STOPPED" if stopped else "SUCCEEDED")

    def end(self, submission_id, ran_s, status):
        """It saved its state, or is done."""
        self.done_s += ran_s
        self.meter(submission_id, ran_s)
        stopping = [{"event": "stopping", "signal": 15}] if status == "STOPPED" else []
        self.record(submission_id, *stopping, {"event": "ended", "exit_code": 0},
                    {"event": "closed", "exit_code": 0, "segments": 1})  # fmt: skip
        self.cluster.end(submission_id, status, 0)

    def meter(self, submission_id, ran_s):
        """One segment over all that the attempt ran."""
        now = self.world.clock.now()
        energy = {submission_id: round(ran_s * ENERGY_UJ_PER_S)}
        self.world.segment(self.attempt(submission_id), self.begun[submission_id], now, energy, self.segments)
        self.segments += 1

    def record(self, submission_id, *events):
        self.world.record(self.attempt(submission_id), *events)

    def attempt(self, submission_id):
        with self.world.store.transaction(write=False) as tx:
            return tx.attempt(submission_id)

    def facts(self, kind):
        with self.world.store.transaction(write=False) as tx:
            found = [json.loads(entry.payload) for entry in tx.entries()]
        return [fact["body"] for fact in found if fact["kind"] == kind]

    def running(self):
        return [one for one, job in self.cluster.known.items() if job.status == "RUNNING"]

    def ran_s(self):
        """For how long the attempt that runs has run; 0 where none does."""
        return sum((self.world.clock.now() - self.begun[one]).total_seconds() for one in self.running())

    def outcome(self):
        """All that must not depend on when something died."""
        receipt = self.world.statements.receipt(self.job.job_id)
        return (
            self.world.job(self.job).state, sorted(self.started.values()), receipt["suspensions"],
            len(self.facts("job-ended")), receipt["energy_kwh"], receipt["co2e_ug"], receipt["missing"],
        )  # fmt: skip


@pytest.fixture(scope="module")
def undisturbed(database, tmp_path_factory):
    story = Story(tmp_path_factory.mktemp("undisturbed"), database)
    story.play()
    outcome = story.outcome()
    assert outcome[:4] == (JobState.SUCCEEDED, [1, 1], 1, 1), "suspended once, resumed once, ended once"
    assert outcome[4] == pytest.approx(story.done_s * ENERGY_UJ_PER_S / 3.6e12)
    assert outcome[6] == []
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


def of_the_suspension(moments):
    """Numbers of the moments from the decision to suspend to the next attempt's submission: commits, stops, posts."""
    begin = next(n for n, name in enumerate(moments) if "enqueue" in name and "add_attempt" not in name)
    end = max(n for n, name in enumerate(moments) if name == "dispatch: after submit")
    return [
        n + 1 for n in range(begin, end + 1) if " commit of " in moments[n] or moments[n].endswith(("stop", "submit"))
    ]


def test_a_server_killed_at_each_step_of_a_suspension(database, undisturbed, tmp_path):
    _, moments = undisturbed
    steps = of_the_suspension(moments)
    assert {"dispatch: before stop", "dispatch: after stop"} <= {moments[at - 1] for at in steps}
    assert len(steps) > 20
    for at in steps:
        check(tmp_path / str(at), database, undisturbed, at)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_server_killed_at_every_moment_of_a_suspension(database, undisturbed, tmp_path):
    for at in range(1, len(undisturbed[1]) + 1):
        check(tmp_path / str(at), database, undisturbed, at)


def once(when, harm):
    """Harm what runs in the first round in which `when` holds, and never again."""

    def disturb(story):
        if not story.harmed and when(story):
            story.harmed = True
            harm(story)

    return disturb


def runs(story):
    return len(story.started) == 1 and story.ran_s() > 0 and not story.cluster.stops


def is_being_stopped(story):
    return bool(story.facts("job-suspended")) and story.ran_s() > 0 and len(story.started) == 1


def has_stopped(story):
    """And the server has not asked yet."""
    state = story.world.job(story.job).state
    return bool(story.facts("job-suspended")) and not story.running() and state is JobState.RUNNING


def is_suspended(story):
    return bool(story.facts("job-suspended")) and story.world.job(story.job).state is JobState.QUEUED


def runs_again(story):
    return len(story.started) == 2 and story.ran_s() > 0


def kill_the_wrapper(story):
    """What it metered until then was written; no end was."""
    (submission_id,) = story.running()
    story.meter(submission_id, story.ran_s())
    story.cluster.end(submission_id, "STOPPED" if submission_id in story.cluster.stops else "FAILED", None)


def kill_the_head(story):
    """Its files go with it, but for what had been collected."""
    for submission_id in story.running():
        story.meter(submission_id, story.ran_s())
    story.world.clock.pass_s(60)
    story.step("collect")
    story.cluster.restart("session-2")


@pytest.mark.parametrize(
    ("when", "harm", "state", "attempts"),
    [
        (runs, kill_the_wrapper, JobState.FAILED, 1),
        (is_being_stopped, kill_the_wrapper, JobState.SUCCEEDED, 2),
        (runs_again, kill_the_wrapper, JobState.FAILED, 2),
        (runs, kill_the_head, JobState.LOST, 1),
        (is_being_stopped, kill_the_head, JobState.LOST, 1),
        (has_stopped, kill_the_head, JobState.LOST, 1),
        (is_suspended, kill_the_head, JobState.SUCCEEDED, 2),
        (runs_again, kill_the_head, JobState.LOST, 2),
    ],
)
def test_a_wrapper_or_head_killed_at_a_step_of_a_suspension(database, tmp_path, when, harm, state, attempts):
    story = Story(tmp_path / "w", database)
    story.play(once(when, harm))
    assert story.harmed
    receipt = story.world.statements.receipt(story.job.job_id)
    assert story.world.job(story.job).state is state
    assert len(story.facts("job-ended")) == 1
    assert sorted(story.started.values()) == [1] * attempts
    booked = [span for body in story.facts("energy-recorded") for span in body["spans"]]
    assert len({(span["start"], span["owner"]) for span in booked}) == len(booked), "no second is booked twice"
    assert receipt["energy_kwh"] == pytest.approx(sum(span["energy_uj"] for span in booked) / 3.6e12)
    assert receipt["missing"] or state is JobState.SUCCEEDED
    assert story.world.statements.verify().ok
    story.world.close()
