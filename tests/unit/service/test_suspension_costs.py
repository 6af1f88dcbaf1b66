"""What suspensions cost: metered from the wrapper's record, booked as overhead, learnt for jobs of the same name."""

from __future__ import annotations

from datetime import timedelta

import pytest

from carbon_sched.domain.energy import Overhead
from carbon_sched.domain.job import Flexibility, JobSpec
from carbon_sched.service.economics import RESTART_S, SCATTER, cost
from tests.fakes.world import START, World, a_cluster
from tests.unit.service.test_suspended import HOUR, begin, end, facts, long_job, pass_to, stops

DIRTY_HOURS = {"DE": [(0, 50.0), (2 * HOUR, 900.0), (3 * HOUR, 60.0), (5 * HOUR, 900.0), (6 * HOUR, 100.0)]}
WH = 3_600_000_000


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, [a_cluster("here", "DE", home=True)], DIRTY_HOURS)
    yield world
    world.close()


def spec(restart_s=None):
    return JobSpec("python job.py", "train", flexibility=Flexibility(interruptible=True, restart_s=restart_s))


def metered(world, attempt, watt_hours, seq):
    """One span over the whole attempt up to now."""
    world.segment(attempt, attempt.started_at, world.clock.now(), {attempt.attempt_id: watt_hours * WH}, seq)


def stop(world, attempt, *, lost_s, saving_s, seq):
    """It was stopped: it saves its state, unless it did last `lost_s` before, and ends."""
    saved = round((world.clock.now().timestamp() - lost_s) * 1e6)
    world.record(attempt, {"event": "stopping", "signal": 15})
    world.clock.pass_s(saving_s)
    world.record(attempt, {"event": "ended", "exit_code": 0}, {"event": "saved", "t": saved},
                 {"event": "closed", "exit_code": 0, "segments": 1})  # fmt: skip
    metered(world, attempt, 10, seq)
    world.clusters["here"].end(attempt.attempt_id, "STOPPED", 0)
    world.settle()


def suspended_once(world, *, lost_s=300, saving_s=60, restart_s=240):
    """A job that ran for two hours, was suspended for one, resumed, and ended well."""
    job = long_job(world)
    first = begin(world, job)
    pass_to(world, 2.25)
    assert stops(world) == [first.attempt_id]
    stop(world, world.attempts(job)[0], lost_s=lost_s, saving_s=saving_s, seq=0)
    pass_to(world, 3)
    second = begin(world, job)
    world.clock.pass_s(restart_s)
    world.record(second, {"event": "resumed"})
    pass_to(world, 4.5)
    metered(world, world.attempts(job)[-1], 6, 1)
    world.record(second, {"event": "ended", "exit_code": 0}, {"event": "closed", "exit_code": 0, "segments": 1})
    world.clusters["here"].end(second.attempt_id, "SUCCEEDED", 0)
    for _ in range(3):
        world.settle()
        world.clock.pass_s(61)
    return job


def test_a_receipt_is_the_sum_of_its_attempts_and_says_what_of_it_was_overhead(world):
    job = suspended_once(world)
    receipt = world.statements.receipt(job.job_id)
    assert receipt["final"]
    assert receipt["suspensions"] == 1
    assert receipt["energy_kwh"] == pytest.approx(0.016)
    kinds = {one["kind"]: one for one in receipt["overhead"]}
    assert set(kinds) == {"lost-work", "saving", "restart"}
    first, second = world.statements.ask(lambda book: list(book.jobs[job.job_id].attempts.values()))
    power_w = [10 * 3600 / (first.ended_at - first.started_at).total_seconds(),
               6 * 3600 / (second.ended_at - second.started_at).total_seconds()]  # fmt: skip
    expected = {"lost-work": 300 * power_w[0], "saving": 60 * power_w[0], "restart": 240 * power_w[1]}
    assert {kind: one["energy_j"] for kind, one in kinds.items()} == pytest.approx(expected, rel=1e-6)
    assert kinds["restart"]["co2e_g"] == pytest.approx(expected["restart"] / 3.6e6 * 60, rel=1e-4)


def test_a_cost_is_learnt_from_the_suspensions_of_the_same_name(world):
    job = suspended_once(world)
    learnt = world.economics.metered(job).cost
    assert learnt.mean_s == pytest.approx(300 + 60 + 240, rel=0.01)
    assert learnt.metered == 1
    another = world.submit(interruptible=True, duration_s=4 * HOUR, max_delay_s=12 * HOUR, name="other")
    assert world.economics.metered(another).cost.mean_s == RESTART_S


def test_a_job_whose_like_needs_hours_to_resume_is_not_suspended_for_one(world):
    suspended_once(world, lost_s=3600)
    pass_to(world, 4.75)
    job = world.submit(interruptible=True, duration_s=4 * HOUR, max_delay_s=12 * HOUR, name="train", restart_s=60)
    world.settle()
    if len(world.attempts(job)) == 1:
        begin(world, job)
    pass_to(world, 5.75)
    assert len(facts(world, "job-suspended")) == 1
    assert [one.attempt_id for one in world.attempts(job) if one.attempt_id in stops(world)] == []


def test_the_fact_of_a_suspension_says_what_it_is_expected_to_cost_and_how_that_is_known(world):
    suspended_once(world)
    (told,) = facts(world, "job-suspended")
    assert (told["cost_s"], told["cost_metered"]) == (RESTART_S, 0)


def test_parts_that_were_never_metered_keep_their_share_of_the_users_word():
    told = cost(spec(100.0), {Overhead.SAVING.value: [4.0, 4.0]})
    assert told.mean_s == pytest.approx(50 + 4 + 25)
    assert told.metered == 2
    assert told.deviation_s == pytest.approx(SCATTER * (50**2 + 25**2) ** 0.5)


def test_a_cost_that_scatters_must_be_beaten_by_more():
    even = cost(spec(), {part.value: [40.0] * 9 for part in Overhead})
    uneven = cost(spec(), {part.value: [1.0, 79.0] * 9 for part in Overhead})
    assert even.mean_s == uneven.mean_s == 120
    assert even.upper_s(0.9) == 120
    assert uneven.upper_s(0.9) > 180


def test_a_saved_state_of_after_the_stop_loses_no_work(world):
    job = suspended_once(world, lost_s=-30)
    kinds = [one["kind"] for one in world.statements.receipt(job.job_id)["overhead"]]
    assert kinds == ["saving", "restart"]


@pytest.mark.parametrize(
    ("rule", "suspended"),
    [
        ("max_pauses: 1", 1),
        ("max_pauses: 0", 0),
        ("pause_gain: 0.97", 0),
        ("run_between_pauses: 900", 0),
        ("retries: 2", 2),
    ],
)
def test_policies_bound_how_often_and_for_what_a_job_is_suspended(world, rule, suspended):
    world.policies.apply(f"apiVersion: carbon-sched/v1\nname: acme\nteam: '*'\nflexibility: {{{rule}}}\n", by="olga")
    job = long_job(world)
    while world.clock.now() < START + timedelta(hours=6.5):
        pass_to(world, (world.clock.now() - START).total_seconds() / HOUR + 0.25)
        newest = world.attempts(job)[-1]
        if newest.started_at is None and newest.open:
            begin(world, job)
        elif newest.open and newest.attempt_id in stops(world):
            end(world, newest)
    assert len(facts(world, "job-suspended")) == suspended
