"""Who goes first, and who waits for whom: classes, fair share, dependencies, and starting now."""

from __future__ import annotations

import pytest

from carbon_sched.domain.cause import Cause
from carbon_sched.domain.cluster import ClusterStatus, Node
from carbon_sched.domain.errors import InvalidInput
from carbon_sched.domain.job import Bundle, JobSpec, JobState, Resources
from carbon_sched.ports import Usage
from carbon_sched.service.shares import HALF_LIFE_DAYS, day_of, shares
from tests.fakes.world import START, World, a_cluster

ONE_CPU = {"entrypoint_num_cpus": 1.0}


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, [a_cluster("clean", "SE-SE3", home=True)], {"SE-SE3": [(0, 50.0), (3600, 10.0)]})
    yield world
    world.close()


def full(world):
    world.clusters["clean"].used = {"CPU": 4.0}
    world.fleet.poll(world.fleet.get("clean"))


def room_for_one(world):
    world.clusters["clean"].used = {"CPU": 3.0}
    world.fleet.poll(world.fleet.get("clean"))
    world.decide.step()


def placed(world, *jobs):
    return [job.spec.name for job in jobs if world.job(job).state is not JobState.QUEUED]


def positions(world, *jobs):
    with world.store.transaction(write=False) as tx:
        places = tx.queue_positions([job.job_id for job in jobs])
    return [places.get(job.job_id) for job in jobs]


# classes ----------------------------------------------------------------------------------------------------------


def test_a_lower_class_stands_and_starts_behind(world):
    full(world)
    low = world.submit(name="low", priority="low", resources=ONE_CPU)
    world.clock.pass_s(1)
    normal = world.submit(name="normal", resources=ONE_CPU)
    assert positions(world, low, normal) == [2, 1]
    room_for_one(world)
    assert placed(world, low, normal) == ["normal"]
    assert positions(world, low, normal) == [1, None]


@pytest.mark.parametrize(("hours", "first"), [(23, "normal"), (25, "low")])
def test_who_should_have_started_more_than_a_day_ago_goes_before_every_class(world, hours, first):
    full(world)
    low = world.submit(name="low", priority="low", resources=ONE_CPU)
    world.clock.pass_s(hours * 3600)
    normal = world.submit(name="normal", resources=ONE_CPU)
    room_for_one(world)
    assert placed(world, low, normal) == [first]


def test_of_one_class_the_one_that_has_waited_longer_goes_first(world):
    full(world)
    jobs = []
    for name in ("first", "second", "third"):
        jobs.append(world.submit(name=name, resources=ONE_CPU))
        world.clock.pass_s(3 * 3600)
    room_for_one(world)
    assert placed(world, *jobs) == ["first"]


@pytest.mark.parametrize(("asked", "problem"), [("high", "is more than the policy"), ("soon", "is not a class")])
def test_a_class_above_what_the_policy_gives_is_refused(world, asked, problem):
    with pytest.raises(InvalidInput, match=problem) as caught:
        world.submit(priority=asked)
    assert caught.value.remedy == "Use one of: low, normal"


# fair share -------------------------------------------------------------------------------------------------------


def status(cpus, gpus):
    return ClusterStatus("c", START, nodes=(Node("n", "10.0.0.1", is_head=True, resources={"CPU": cpus, "GPU": gpus}),))


def spec(team, project=""):
    return JobSpec("true", "job", team=team, project=project, resources=Resources(bundles=(Bundle(cpus=1.0),)))


def test_the_larger_of_two_shares_counts_and_a_weight_divides_it():
    today = day_of(START)
    had = shares([Usage("ml", "a", today, 100.0, 900.0), Usage("web", "", today, 500.0, 0.0)], [status(10, 10)], START)
    assert had.teams["ml"] / had.teams["web"] == pytest.approx(9 / 5), "GPUs for one, CPUs for the other"
    assert had.of(spec("ml"), 2.0) == pytest.approx(had.of(spec("ml"), 1.0) / 2)
    assert had.of(spec("ml", "a"), 1.0) > had.of(spec("ml", "b"), 1.0) > had.of(spec("new"), 1.0) == 0.0


def test_usage_weighs_half_as_much_after_a_week():
    today = day_of(START)
    used = [Usage("now", "", today, 1.0, 0.0), Usage("then", "", today - HALF_LIFE_DAYS, 1.0, 0.0)]
    had = shares(used, [status(1, 0), None], START)
    assert had.teams["now"] == pytest.approx(2 * had.teams["then"])


def test_a_fleet_of_unknown_size_has_no_shares():
    assert shares([Usage("ml", "", day_of(START), 1.0, 1.0)], [None], START).teams == {"ml": 0.0}


def test_a_team_that_had_much_goes_behind_one_that_had_nothing(world):
    with world.store.transaction() as tx:
        for _ in range(2):
            tx.add_usage(Usage("ml", "", day_of(START), 4 * 86_400.0 * 3, 0.0))
        tx.add_usage(Usage("ml", "", day_of(START) - 400, 1e12, 0.0))
        assert [used.cpu_s for used in tx.usage(since_day=day_of(START))] == [4 * 86_400.0 * 6]
    full(world)
    ml = world.submit(name="ml", team="ml", resources=ONE_CPU)
    web = world.submit(name="web", team="web", resources=ONE_CPU)
    room_for_one(world)
    assert placed(world, ml, web) == ["web"]


def test_what_an_attempt_held_is_remembered_at_its_end(world):
    job = world.submit(team="ml", project="llm", resources=ONE_CPU)
    world.settle()
    world.run_to_end(job, seconds=40)
    with world.store.transaction(write=False) as tx:
        used = tx.usage(since_day=day_of(START))
    assert [(one.team, one.project, one.gpu_s) for one in used] == [("ml", "llm", 0.0)]
    assert used[0].cpu_s == pytest.approx(40.0)


# now --------------------------------------------------------------------------------------------------------------


def test_now_waits_for_no_cleaner_hour(world):
    later = world.submit(max_delay_s=7200.0, duration_s=600.0)
    now = world.submit(max_delay_s=7200.0, duration_s=600.0, now=True)
    world.settle()
    assert (world.job(later).state, world.job(later).cause) == (JobState.QUEUED, Cause.DELAYED)
    assert world.job(now).state is JobState.STARTING


# after ------------------------------------------------------------------------------------------------------------


def test_a_job_starts_after_the_end_of_another_one(world):
    first = world.submit(name="first")
    second = world.submit(name="second", after=[first.job_id])
    world.settle()
    waiting = world.job(second)
    assert (waiting.state, waiting.cause) == (JobState.QUEUED, Cause.AFTER)
    assert f"waits for job {first.job_id} (first)" in waiting.reason
    world.run_to_end(first, exit_code=3)
    world.settle()
    assert world.job(second).state is JobState.STARTING


def test_with_ok_only_after_its_success(world):
    first = world.submit(name="first")
    second = world.submit(name="second", after=[f"{first.job_id}:ok"])
    third = world.submit(name="third", after=[f"{second.job_id}:ok"])
    world.settle()
    world.run_to_end(first, exit_code=3)
    world.settle()
    refused = world.job(second)
    assert (refused.state, refused.cause) == (JobState.REFUSED, Cause.DEPENDENCY)
    assert "(first) is failed" in refused.reason
    world.settle()
    assert world.job(third).state is JobState.REFUSED, "and so on down the line"
    assert world.statements.verify().ok


def test_a_lost_job_has_not_ended(world):
    first = world.submit(name="first")
    second = world.submit(name="second", after=[first.job_id])
    world.settle()
    world.clusters["clean"].restart("session-2")
    world.settle()
    assert world.job(first).state is JobState.LOST
    assert world.job(second).cause is Cause.AFTER


@pytest.mark.parametrize("after", ["nosuchjob0", "nosuchjob0:ok", ":ok", "nosuchjob0:fine"])
def test_after_must_name_a_job(world, after):
    with pytest.raises(InvalidInput) as caught:
        world.submit(after=[after])
    assert caught.value.field == "after"


def test_jobs_that_wait_for_others_take_no_room_in_the_plan(world):
    world.clusters["clean"].resources = {"CPU": 1.0}
    first = world.submit(name="first", resources=ONE_CPU)
    world.submit(name="second", after=[first.job_id], resources=ONE_CPU)
    other = world.submit(name="other", resources=ONE_CPU)
    read = world.decide._read()
    assert {job.job_id for job in read.snapshot.jobs} == {first.job_id, other.job_id}
