"""Faults of clusters: which of them another attempt follows, and what a person does about the others."""

from __future__ import annotations

import pytest

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.errors import Conflict
from carbon_sched.domain.job import JobState
from carbon_sched.service import follow
from carbon_sched.service.recall import Resolution
from tests.fakes.world import World, a_cluster

GRID = {"SE-SE3": [(0, 50.0)]}
SPAWNED = ({"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
RETRIES = 2
"""Of the preset that jobs follow here."""


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, [a_cluster("clean", "SE-SE3", home=True)], GRID)
    yield world
    world.close()


def run(world, job):
    """Ray and the wrapper start the job's newest attempt, on the cluster's node."""
    attempt, clean = world.attempts(job)[-1], world.clusters["clean"]
    clean.node = "node-1"
    world.record(attempt, *SPAWNED)
    clean.run(attempt.attempt_id)
    world.settle()
    assert world.job(job).state is JobState.RUNNING
    return attempt, clean


def running(world):
    job = world.submit()
    world.settle()
    return (job, *run(world, job))


def causes(world, job):
    with world.store.transaction(write=False) as tx:
        return [(event.event, event.cause) for event in tx.events(job.job_id) if event.cause]


def test_a_job_whose_node_was_preempted_is_queued_again_and_says_why(world):
    job, _attempt, clean = running(world)
    clean.replace_node()
    world.settle()
    now = world.job(job)
    assert (now.state, now.attempts) == (JobState.STARTING, 2)
    assert causes(world, job) == [("expired", Cause.PREEMPTED)]
    assert world.attempts(job)[0].cause is Cause.PREEMPTED
    assert "left clean" in world.attempts(job)[0].reason
    world.clock.pass_s(700)
    clean.node = "node-1"
    world.run_to_end(job)
    assert world.job(job).state is JobState.SUCCEEDED
    assert world.statements.verify().ok


def test_what_ran_is_known_to_have_run_when_its_record_went_with_its_node(world):
    """Ray's head that came back with its memory says that it could not start what it finds no supervisor of."""
    job, attempt, clean = running(world)
    clean.replace_node()
    clean.end(attempt.attempt_id, "FAILED", None, error_type="JOB_SUPERVISOR_ACTOR_START_FAILURE")
    world.settle()
    assert causes(world, job) == [("expired", Cause.PREEMPTED)]
    assert "the node that it ran on left clean" in world.attempts(job)[0].reason


def test_the_policy_says_how_many_faults_one_job_survives(world):
    job, _, clean = running(world)
    for _ in range(RETRIES):
        clean.replace_node()
        world.settle()
        run(world, job)
    clean.replace_node()
    world.settle()
    ended = world.job(job)
    assert (ended.state, ended.attempts, ended.cause) == (JobState.FAILED, RETRIES + 1, Cause.PREEMPTED)
    assert f"allows {RETRIES} retries" in ended.reason


def test_a_supervisor_lost_on_a_living_node_is_no_case_for_a_retry(world):
    job, _attempt, clean = running(world)
    clean.replace_node()
    clean.node = "node-1"  # it is there: the job's processes may be too
    world.settle()
    ended = world.job(job)
    assert (ended.state, ended.attempts, ended.cause) == (JobState.FAILED, 1, Cause.INFRASTRUCTURE)
    assert "may still run there" in ended.reason


def test_a_job_that_ray_could_not_start_is_queued_again(world):
    job = world.submit()
    world.settle()
    attempt, clean = world.attempts(job)[-1], world.clusters["clean"]
    clean.end(attempt.attempt_id, "FAILED", None, error_type="JOB_SUPERVISOR_ACTOR_START_TIMEOUT", node=None)
    world.settle()
    assert causes(world, job) == [("expired", Cause.CAPACITY_LOST)]
    assert world.job(job).attempts == 2


def test_a_job_that_fails_by_itself_is_never_run_again(world):
    job, _, _ = running(world)
    world.run_to_end(job, exit_code=3)
    ended = world.job(job)
    assert (ended.state, ended.attempts, ended.exit_code, ended.cause) == (JobState.FAILED, 1, 3, Cause.EXIT_CODE)


def test_while_the_cluster_does_not_say_which_nodes_live_nothing_is_concluded(world):
    job, _, clean = running(world)
    clean.replace_node()
    clean.failures["epoch"] = []
    clean.mute = True
    world.follow.step()
    assert world.job(job).state is JobState.RUNNING
    clean.mute = False
    world.settle()
    assert world.job(job).attempts == 2


def test_a_head_that_came_back_is_woken_for_jobs_whose_node_is_gone(world):
    job, attempt, clean = running(world)
    clean.node = "node-2"
    asked = []
    logs = clean.logs
    clean.logs = lambda submission_id: asked.append(submission_id) or logs(submission_id)
    world.settle()
    assert attempt.attempt_id in asked
    assert world.job(job).state is JobState.RUNNING, "it is not given up before the cluster says so"


# by a person ------------------------------------------------------------------------------------------------------


def lost(world):
    job, _, clean = running(world)
    clean.restart("session-2")
    world.settle()
    assert (world.job(job).state, world.job(job).cause) == (JobState.LOST, Cause.HEAD_RESTARTED)
    return job


@pytest.mark.parametrize("resolution", [Resolution.SUCCEEDED, Resolution.FAILED, Resolution.STOPPED])
def test_a_person_may_say_how_a_lost_job_ended(world, resolution):
    job = lost(world)
    world.recall.resolve(job.job_id, resolution, by="eve", note="seen in the bucket")
    ended = world.job(job)
    assert (ended.state.value, ended.cause) == (resolution.value, Cause.RESOLVED)
    assert "seen in the bucket" in ended.reason
    assert "eve" not in ended.reason, "people stand in the ledger by their pseudonyms only"
    assert world.statements.verify().ok
    assert world.statements.receipt(job.job_id)["state"] == resolution.value


def test_a_lost_job_that_is_requeued_runs_as_another_attempt_and_the_first_one_counts_no_more(world):
    job = lost(world)
    world.recall.resolve(job.job_id, Resolution.REQUEUE, by="eve", note="")
    world.settle()
    assert [attempt.outcome for attempt in world.attempts(job)] == ["lost", ""]
    run(world, job)
    world.clock.pass_s(follow.FIND_EVERY_S + 1)
    world.run_to_end(job)
    assert world.job(job).state is JobState.SUCCEEDED
    assert ("withdrawn", Cause.REQUEUED) in causes(world, job)
    assert world.statements.verify().ok


def test_only_a_lost_job_can_be_resolved(world):
    job, _, _ = running(world)
    with pytest.raises(Conflict, match="is running"):
        world.recall.resolve(job.job_id, Resolution.FAILED, by="eve", note="")


# cordon and drain -------------------------------------------------------------------------------------------------


def test_a_cordoned_cluster_gets_no_job_and_gets_them_again(world):
    world.fleet.cordon("clean", cordoned=True)
    job = world.submit()
    world.settle()
    waiting = world.job(job)
    assert (waiting.state, waiting.cause) == (JobState.QUEUED, Cause.NO_ROOM)
    assert "cordoned" in waiting.reason
    world.fleet.cordon("clean", cordoned=False)
    world.settle()
    assert world.job(job).state is JobState.STARTING


def test_an_evicted_job_is_stopped_and_queued_again(world):
    job, attempt, clean = running(world)
    world.fleet.cordon("clean", cordoned=True)
    assert world.recall.evict("clean") == [job.job_id]
    assert world.recall.evict("clean") == [], "once"
    world.settle()
    assert clean.stops == [attempt.attempt_id]
    world.record(attempt, {"event": "ended", "exit_code": 143}, {"event": "closed", "exit_code": 143, "segments": 0})
    clean.end(attempt.attempt_id, "STOPPED", None)
    world.settle()
    assert (world.job(job).state, world.attempts(job)[0].cause) == (JobState.QUEUED, Cause.EVICTED)
    world.fleet.cordon("clean", cordoned=False)
    world.settle()
    assert world.job(job).attempts == 2


def test_a_job_that_its_user_stops_while_it_is_evicted_stays_stopped(world):
    job, attempt, clean = running(world)
    world.recall.evict("clean")
    world.accept.stop(job.job_id)
    clean.end(attempt.attempt_id, "STOPPED", None)
    world.settle()
    assert (world.job(job).state, world.job(job).attempts) == (JobState.STOPPED, 1)
    assert world.recall.evict("clean") == []


def test_a_job_that_succeeds_while_it_is_evicted_has_succeeded(world):
    job, _attempt, _clean = running(world)
    world.recall.evict("clean")
    world.run_to_end(job)
    assert world.job(job).state is JobState.SUCCEEDED
