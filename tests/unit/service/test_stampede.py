"""Many jobs, one green hour, room for few: capacity is never exceeded, the rest is spread, and nobody starves."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from carbon_sched.domain.job import JobState
from tests.fakes.world import START, World, a_cluster

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
GREEN = 2 * HOUR
GRID = {"DE": [(0, 500.0), (GREEN.total_seconds(), 50.0), ((GREEN + HOUR).total_seconds(), 400.0)]}
RUN = STEP = 30 * MINUTE


class Crowd:
    """Jobs of half an hour, all submitted at once, on a cluster that runs as many of them as it has processors."""

    def __init__(self, folder, *, jobs, room, longest):
        self.world, self.room = World(folder, [a_cluster("de", "DE", home=True)], GRID), room
        self.cluster = self.world.clusters["de"]
        self.cluster.resources = {"CPU": float(room)}
        wants = {"duration_s": RUN.total_seconds(), "max_delay_s": longest.total_seconds()}
        one_cpu = {"resources": {"entrypoint_num_cpus": 1}}
        self.jobs = [self.world.submit(f"job-{number}", **wants, **one_cpu) for number in range(jobs)]
        self.started, self.most = {}, 0

    def run(self):
        """Until nothing is left; when each job's run began."""
        while len(self.started) < len(self.jobs) or self.running():
            for _ in range(2):  # what has ended makes room for what starts in the same moment
                self.world.settle()
                while any(attempt.accepted is None for attempt in self.open_attempts()):
                    self.world.settle()  # a turn of the dispatcher submits some of them
                for attempt in self.open_attempts():
                    self.carry_on(attempt)
                self.most = max(self.most, len(self.running()))
                self.cluster.used = {"CPU": float(len(self.running()))}
            self.world.clock.pass_s(STEP.total_seconds())
            assert self.world.clock.now() < START + 24 * HOUR
        return self.started

    def carry_on(self, attempt):
        now, status = self.world.clock.now(), self.cluster.known[attempt.attempt_id].status
        if status == "PENDING":
            self.world.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
            self.cluster.run(attempt.attempt_id)
            self.started[attempt.job_id] = now
        elif status == "RUNNING" and now >= self.started[attempt.job_id] + RUN:
            ended = {"event": "ended", "exit_code": 0}
            self.world.record(attempt, ended, {**ended, "event": "closed", "segments": 0})
            self.cluster.end(attempt.attempt_id, "SUCCEEDED", 0)

    def running(self):
        return [one for one in self.cluster.known.values() if one.status == "RUNNING"]

    def open_attempts(self):
        with self.world.store.transaction(write=False) as tx:
            return tx.attempts(open_only=True)


def check(folder, *, jobs, room, longest):
    crowd = Crowd(folder, jobs=jobs, room=room, longest=longest)
    started = crowd.run()
    waited = [at - START for at in started.values()]
    by_hour = Counter(wait // HOUR for wait in waited)
    assert crowd.most == room, "all of it was used, and never more"
    assert by_hour[GREEN // HOUR] >= room * (HOUR // RUN) * 0.8, "the green hour is full"
    assert max(waited) <= longest, "nobody waits longer than they said"
    assert {crowd.world.job(job).state for job in crowd.jobs} == {JobState.SUCCEEDED}
    assert crowd.world.statements.verify().ok
    crowd.world.close()
    return by_hour


def test_a_crowd_before_a_green_hour(tmp_path):
    by_hour = check(tmp_path, jobs=12, room=2, longest=8 * HOUR)
    assert len(by_hour) >= 3, "what the green hour has no room for goes before and after"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_five_hundred_jobs_with_room_for_forty(tmp_path):
    check(tmp_path, jobs=500, room=40, longest=16 * HOUR)
