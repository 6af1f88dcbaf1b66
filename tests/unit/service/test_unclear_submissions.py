"""Many submissions of which a fifth is lost on the way or answered with trouble: each job starts once."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from carbon_sched.domain.errors import ClusterUnclear
from carbon_sched.domain.job import JobState
from tests.fakes.world import World, a_cluster

SHARE = 0.2
ROUNDS = 40


def disturb(cluster, draw):
    """A fifth of the POSTs fail, before or after their effect, and a fifth of the questions too; counts which."""
    submit, ask, met = cluster.submit, cluster.job, Counter()

    def unclear_submit(submission):
        when = draw.choice(("before", "after")) if draw.random() < SHARE else ""
        met[when] += 1
        if when == "before":
            raise ClusterUnclear("timeout")
        submit(submission)
        if when == "after":
            raise ClusterUnclear("HTTP 500")

    def unclear_ask(submission_id):
        if draw.random() < SHARE:
            raise ClusterUnclear("timeout")
        return ask(submission_id)

    cluster.submit, cluster.job = unclear_submit, unclear_ask
    return met


def play(folder, jobs):
    seed = random.SystemRandom().randrange(10**6)
    print(f"seed {seed}")
    world = World(folder, [a_cluster("clean", "SE-SE3", home=True)], {"SE-SE3": [(0, 50.0)]})
    clean, starts = world.clusters["clean"], Counter()
    met = disturb(clean, random.Random(seed))
    submitted = [world.submit(name=f"job-{number}") for number in range(jobs)]
    left = submitted
    for _ in range(ROUNDS * max(1, jobs // 100)):
        world.fleet.poll(world.fleet.get("clean"))
        world.decide.step()
        world.dispatch.step()
        for submission_id, known in list(clean.known.items()):
            if known.status == "PENDING":
                starts[submission_id] += 1
                clean.run(submission_id)
            elif known.status == "RUNNING":
                clean.end(submission_id, "SUCCEEDED", 0)
        world.follow.step()
        world.clock.pass_s(3)
        left = [job for job in left if not world.job(job).state.final]
        if not left:
            break
    assert [world.job(job) for job in left] == []
    assert Counter(world.job(job).state for job in submitted) == {JobState.SUCCEEDED: jobs}
    of_job = Counter(submission_id.rpartition("-")[0] for submission_id in starts.elements())
    assert set(of_job.values()) == {1}
    assert len(of_job) == jobs
    assert {"before", "after"} <= set(met)
    assert world.statements.verify().ok
    world.close()


def test_fifty_submissions_of_which_a_fifth_is_unclear(tmp_path):
    play(tmp_path, 50)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_thousand_submissions_of_which_a_fifth_is_unclear(tmp_path):
    play(tmp_path, 1000)
