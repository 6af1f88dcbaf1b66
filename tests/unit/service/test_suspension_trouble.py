"""What goes wrong with suspensions: each has a name, costs a bounded amount of work, and the job goes on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.job import JobState
from carbon_sched.domain.time import to_rfc3339
from tests.fakes.world import START, World
from tests.unit.service.test_suspended import CLUSTERS, HOUR, begin, end, facts, long_job, pass_to, stops

DIRTY_HOURS = {
    "DE": [(0, 50.0), (2 * HOUR, 900.0), (3 * HOUR, 60.0), (5 * HOUR, 900.0), (6 * HOUR, 100.0)],
    "FR": [(0, 1500.0)],
}


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, CLUSTERS, DIRTY_HOURS)
    yield world
    world.close()


def suspended(world, **more):
    """A job whose first attempt is asked to stop, after two hours."""
    job = long_job(world, **more)
    first = begin(world, job)
    pass_to(world, 2.25)
    assert stops(world) == [first.attempt_id]
    return job, first


def reason(world, job):
    return world.attempts(job)[0].reason


def resumed(world, job):
    """Its second attempt runs."""
    while len(world.attempts(job)) == 1:
        pass_to(world, (world.clock.now() - START).total_seconds() / HOUR + 0.25)
    return begin(world, job)


def killed(world, attempt):
    """As Ray does it after the grace: wrapper and job are gone, and no end was written."""
    world.clusters[attempt.cluster].end(attempt.attempt_id, "STOPPED", None)
    world.settle()


def no_space(world, attempt):
    end(world, attempt, exit_code=1, status="STOPPED")


@pytest.mark.parametrize(("how", "said"), [(killed, "it was killed"), (no_space, "exit code 1")])
def test_a_job_that_did_not_save_its_state_says_so_and_is_not_suspended_again(world, how, said):
    """It ignored SIGTERM, or its checkpoint failed, as on a full storage: one attempt's work is lost, and no more."""
    job, first = suspended(world)
    how(world, first)
    assert f"its state was not saved ({said}), so that it is not suspended again" in reason(world, job)
    assert world.job(job).state is JobState.QUEUED
    second = resumed(world, job)
    assert world.decide._read().running[0][2].done_s < HOUR / 2, "what was not saved is not counted"
    pass_to(world, 5.75)
    assert len(facts(world, "job-suspended")) == 1
    end(world, second, status="SUCCEEDED")
    assert world.job(job).state is JobState.SUCCEEDED


@pytest.mark.parametrize("code", [0, 143])
def test_a_job_that_saved_its_state_may_be_suspended_again(world, code):
    job, first = suspended(world)
    end(world, first, exit_code=code)
    assert "not saved" not in reason(world, job)
    resumed(world, job)
    pass_to(world, 5.5)
    assert len(facts(world, "job-suspended")) == 2


def test_a_job_whose_storage_all_clusters_reach_is_resumed_elsewhere_when_its_own_is_gone(world):
    job, first = suspended(world, storage="s3://bucket/runs", deadline=to_rfc3339(START + timedelta(hours=9)))
    end(world, first)
    world.clusters["here"].up = False
    pass_to(world, 8)
    assert world.attempts(job)[-1].cluster == "there"
    assert world.attempts(job)[1].opened_at - START < timedelta(hours=7)


def test_a_job_waits_for_the_cluster_that_has_its_state_and_goes_on_there_when_it_is_back(world):
    job, first = suspended(world)
    end(world, first)
    world.clusters["here"].up = False
    pass_to(world, 4)
    assert len(world.attempts(job)) == 1
    with world.store.transaction(write=False) as tx:
        told = {one.cluster: one.reason for one in tx.decision(job.job_id).candidates}
    assert "its saved state is on here" in told["there"]
    assert "unreachable" in told["here"]
    world.clusters["here"].up = True
    pass_to(world, 4.5)
    assert world.attempts(job)[-1].cluster == "here"


def test_a_job_whose_state_went_with_a_removed_cluster_begins_anew_elsewhere(world):
    job, first = suspended(world)
    end(world, first)
    world.clusters["here"].up = False
    pass_to(world, 14)
    assert len(world.attempts(job)) == 1, "it may come back, however late"
    world.fleet.remove("here")
    pass_to(world, 14.25)
    second = world.attempts(job)[-1]
    assert (second.number, second.cluster) == (2, "there")
    begin(world, job)
    assert world.decide._read().running[0][2].done_s < HOUR / 2, "the work on the other cluster is not its own"


def test_a_policy_that_lets_jobs_wait_no_longer_has_a_suspended_one_resumed_at_once(world):
    """The way in which a deadline tightens: what the job declared is honoured no more."""
    job, first = suspended(world)
    end(world, first)
    pass_to(world, 2.5)
    assert world.job(job).state is JobState.QUEUED
    world.policies.apply(
        "apiVersion: carbon-sched/v1\nname: acme\nteam: '*'\nflexibility: {declared: ignore, max_delay: 0}\n", by="olga"
    )
    pass_to(world, 2.75)
    assert world.attempts(job)[-1].number == 2
    assert world.attempts(job)[0].recalled is Cause.SUSPENDED
