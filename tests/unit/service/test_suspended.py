"""Jobs that may be suspended: stopped for a cleaner hour, resumed from where they were, also elsewhere, in time."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.job import JobState
from carbon_sched.domain.time import to_rfc3339
from tests.fakes.world import START, World, a_cluster

HOUR = 3600.0
CLUSTERS = [a_cluster("here", "DE", home=True), a_cluster("there", "FR")]
DIRTY_EVENING = {"DE": [(0, 50.0), (2 * HOUR, 900.0), (6 * HOUR, 100.0)], "FR": [(0, 1500.0)]}
CLEAN_ELSEWHERE = {"DE": [(0, 50.0), (2 * HOUR, 900.0)], "FR": [(0, 1000.0), (4 * HOUR, 80.0)]}
DIRTY_HOUR = {"DE": [(0, 50.0), (2 * HOUR, 300.0), (3 * HOUR, 150.0)], "FR": [(0, 1500.0)]}
FLAT = {"DE": [(0, 99.0), (2 * HOUR, 101.0), (6 * HOUR, 100.0)], "FR": [(0, 1500.0)]}


@pytest.fixture
def world(request, tmp_path):
    world = World(tmp_path, CLUSTERS, getattr(request, "param", DIRTY_EVENING))
    yield world
    world.close()


def begin(world, job):
    """Its newest attempt starts."""
    attempt = world.attempts(job)[-1]
    world.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
    world.clusters[attempt.cluster].run(attempt.attempt_id)
    world.settle()
    assert world.job(job).state is JobState.RUNNING
    return attempt


def end(world, attempt, *, exit_code=0, status="STOPPED"):
    world.record(
        attempt, {"event": "ended", "exit_code": exit_code}, {"event": "closed", "exit_code": exit_code, "segments": 0}
    )
    world.clusters[attempt.cluster].end(attempt.attempt_id, status, exit_code)
    world.settle()


def long_job(world, **more):
    job = world.submit(interruptible=True, duration_s=4 * HOUR, max_delay_s=12 * HOUR, name="train", **more)
    world.settle()
    return job


def pass_to(world, hours, step_s=900.0):
    """Time goes on in quarters of an hour, with every loop's turn."""
    while world.clock.now() < START + timedelta(hours=hours):
        world.clock.pass_s(step_s)
        world.settle()


def facts(world, kind):
    with world.store.transaction(write=False) as tx:
        found = [json.loads(entry.payload) for entry in tx.entries()]
    return [fact["body"] for fact in found if fact["kind"] == kind]


def stops(world, cluster="here"):
    return world.clusters[cluster].stops


def test_a_job_pauses_over_the_dirty_hours_and_goes_on_after_them_with_what_was_done(world):
    job = long_job(world)
    first = begin(world, job)
    pass_to(world, 1.75)
    assert world.job(job).state is JobState.RUNNING
    assert stops(world) == []
    pass_to(world, 2.25)
    assert stops(world) == [first.attempt_id]
    end(world, first)
    waiting = world.job(job)
    assert (waiting.state, waiting.cause) in [(JobState.QUEUED, Cause.SUSPENDED), (JobState.QUEUED, Cause.DELAYED)]
    assert world.attempts(job)[0].recalled is Cause.SUSPENDED
    pass_to(world, 5.75)
    assert world.job(job).state is JobState.QUEUED
    pass_to(world, 6)
    second = begin(world, job)
    assert second.number == 2
    assert second.cluster == "here"  # its checkpoints are there, and nobody said that others reach them
    environment = world.clusters["here"].submissions[-1].runtime_env["env_vars"]
    assert environment["CARBON_SCHED_RESUMED"] == "1"
    assert environment["CARBON_SCHED_RUN_NAME"] == f"cs-{job.job_id}"
    pass_to(world, 8)
    end(world, second, status="SUCCEEDED")
    assert world.job(job).state is JobState.SUCCEEDED
    (told,) = facts(world, "job-suspended")
    assert told["attempt"] == first.attempt_id
    assert told["saving_ppm"] > 20_000
    assert told["done_s"] == pytest.approx(2 * HOUR, abs=1000)


@pytest.mark.parametrize("world", [CLEAN_ELSEWHERE], indirect=True)
@pytest.mark.parametrize(("storage", "resumed_on"), [("s3://bucket/runs", "there"), ("", "here")])
def test_a_job_is_resumed_elsewhere_only_if_its_storage_is_reached_from_there(world, storage, resumed_on):
    job = long_job(world, **({"storage": storage} if storage else {}))
    first = begin(world, job)
    assert first.cluster == "here"
    pass_to(world, 4.25)
    if resumed_on == "here":  # nothing cleaner will come there: it goes on
        assert stops(world) == []
        return
    assert stops(world) == [first.attempt_id]
    end(world, first)
    pass_to(world, 4.75)
    assert world.attempts(job)[-1].cluster == resumed_on


@pytest.mark.parametrize("world", [FLAT], indirect=True)
def test_a_saving_within_the_forecasts_error_is_not_worth_a_pause(world):
    begin(world, long_job(world))
    pass_to(world, 3.5)
    assert stops(world) == []


def test_a_job_that_is_not_interruptible_is_never_stopped(world):
    job = world.submit(duration_s=4 * HOUR, max_delay_s=0)
    world.settle()
    begin(world, job)
    pass_to(world, 3)
    assert stops(world) == []


@pytest.mark.parametrize("world", [DIRTY_HOUR], indirect=True)
@pytest.mark.parametrize(("restart_s", "pauses"), [(60.0, 1), (6 * HOUR, 0)])
def test_a_restart_that_costs_more_than_the_dirty_hour_is_not_taken(world, restart_s, pauses):
    begin(world, long_job(world, restart_s=restart_s))
    pass_to(world, 2.5)
    assert len(stops(world)) == pauses


def test_the_latest_resume_keeps_the_deadline(world):
    """Four hours of work, two done, nine hours in all: the job is resumed in time although it is still dirty then."""
    job = world.submit(
        interruptible=True, duration_s=4 * HOUR, name="train", deadline=to_rfc3339(START + timedelta(hours=7))
    )
    world.settle()
    first = begin(world, job)
    pass_to(world, 2.25)
    if stops(world):
        end(world, first)
    pass_to(world, 5)
    assert world.attempts(job)[-1].opened_at <= START + timedelta(hours=4)


@pytest.mark.parametrize(("exit_code", "status"), [(1, "FAILED"), (143, "STOPPED"), (-9, "FAILED")])
def test_a_checkpoint_that_fails_loses_work_but_not_the_job(world, exit_code, status):
    job = long_job(world)
    first = begin(world, job)
    pass_to(world, 2.25)
    assert stops(world) == [first.attempt_id]
    end(world, first, exit_code=exit_code, status=status)
    assert world.job(job).state is JobState.QUEUED
    assert world.attempts(job)[0].outcome in ("failed", "stopped")


def test_a_job_that_ends_well_while_it_is_being_suspended_has_ended(world):
    job = long_job(world)
    first = begin(world, job)
    pass_to(world, 2.25)
    assert stops(world) == [first.attempt_id]
    end(world, first, status="SUCCEEDED")
    assert world.job(job).state is JobState.SUCCEEDED


def test_a_user_who_stops_a_job_that_is_being_suspended_ends_it(world):
    job = long_job(world)
    first = begin(world, job)
    pass_to(world, 2.25)
    world.accept.stop(job.job_id)
    end(world, first)
    assert world.job(job).state is JobState.STOPPED
    pass_to(world, 8)
    assert len(world.attempts(job)) == 1


NEVER = "apiVersion: carbon-sched/v1\nname: acme\nteam: '*'\nflexibility: {interruptible: false}\n"


def test_a_policy_may_forbid_suspensions(world):
    begin(world, long_job(world))
    world.policies.apply(NEVER, by="olga")
    pass_to(world, 3)
    assert stops(world) == []


def test_a_job_that_is_suspended_when_its_policy_forbids_that_still_goes_on(world):
    job = long_job(world)
    first = begin(world, job)
    pass_to(world, 2.25)
    assert stops(world) == [first.attempt_id]
    end(world, first)
    world.policies.apply(NEVER, by="olga")
    while len(world.attempts(job)) == 1:
        pass_to(world, (world.clock.now() - START).total_seconds() / HOUR + 0.25)
    assert world.clock.now() >= START + timedelta(hours=6)
