"""Jobs that wait for nodes which do not come."""

from __future__ import annotations

import pytest

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.cluster import Pool
from carbon_sched.domain.errors import ClusterUnclear
from carbon_sched.domain.job import JobState
from carbon_sched.service.stuck import GRACE_S
from tests.fakes.world import World, a_cluster

PROVISIONING_S = 600.0
PATIENCE_S = 2 * PROVISIONING_S + GRACE_S


def a_world(folder, lifetime="on-demand"):
    pool = Pool("gpu", {"CPU": 4.0}, 2, node_lifetime=lifetime, provisioning_s=PROVISIONING_S)
    return World(folder, [a_cluster("burst", "DE", home=True, pools=(pool,))], {"DE": [(0.0, 400.0)]})


@pytest.fixture
def world(tmp_path):
    world = a_world(tmp_path)
    yield world
    world.close()


def waiting(world):
    """A job whose driver runs and waits for its placement group; its attempt and its cluster."""
    job = world.submit()
    world.settle()
    (attempt,) = world.attempts(job)
    cluster = world.clusters["burst"]
    world.record(attempt, {"event": "started", "pid": 1}, {"event": "spawned", "child_pid": 2})
    cluster.run(attempt.attempt_id)
    world.settle()
    cluster.waiting = {attempt.attempt_id}
    return job, attempt, cluster


def look_after(world, seconds):
    world.clock.pass_s(seconds)
    world.stuck.step()


def test_who_waits_longer_than_nodes_take_is_stopped_and_queued_again(world):
    job, attempt, cluster = waiting(world)
    look_after(world, 0)
    look_after(world, PATIENCE_S - 1)
    assert world.attempts(job)[0].recalled is Cause.NONE
    look_after(world, 1)
    assert world.attempts(job)[0].recalled is Cause.STUCK
    world.dispatch.step()
    assert cluster.stops == [attempt.attempt_id]
    cluster.end(attempt.attempt_id, "STOPPED", None)
    world.follow.step()
    found = world.job(job)
    assert (found.state, found.cause) == (JobState.QUEUED, Cause.STUCK)
    assert "had no room for its placement group within 25 minutes" in found.reason
    assert world.attempts(job)[0].cause is Cause.STUCK


def test_who_gets_room_in_between_begins_to_wait_anew(world):
    job, attempt, cluster = waiting(world)
    look_after(world, 0)
    cluster.waiting = set()
    look_after(world, PATIENCE_S - 10)
    cluster.waiting = {attempt.attempt_id}
    look_after(world, 10)
    look_after(world, PATIENCE_S - 1)
    assert world.attempts(job)[0].recalled is Cause.NONE


def test_a_cluster_that_does_not_tell_stops_nobody(world):
    job, _, cluster = waiting(world)
    look_after(world, 0)
    cluster.failures["waiting_for_room"] = [ClusterUnclear("no answer")]
    look_after(world, PATIENCE_S)
    look_after(world, 10)
    assert world.attempts(job)[0].recalled is Cause.NONE


def test_on_nodes_that_are_always_there_a_job_may_wait_for_others(tmp_path):
    world = a_world(tmp_path, "always-on")
    job, _, _ = waiting(world)
    look_after(world, 0)
    look_after(world, 10 * PATIENCE_S)
    assert world.attempts(job)[0].recalled is Cause.NONE
    world.close()
