"""Budgets from placement to settlement, in a world of fake clusters."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest

from carbon_sched.domain.errors import Conflict
from carbon_sched.domain.job import JobState
from carbon_sched.policy.budget import Budget, Every, Over
from carbon_sched.policy.matching import Selector
from tests.fakes.world import START, World, a_cluster

HEAD = "apiVersion: carbon-sched/v1\nname: acme\nextends: balanced\nteam: '*'\n"
HOUR_OF_1KW = {"duration_s": 3600, "power_w": 1000.0}  # 1 kWh; on the clean cluster 1.0 x 50 g/kWh = 50 g


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path, [a_cluster("clean", "SE-SE3", 1.0, home=True)], {"SE-SE3": [(0, 50.0)]})
    yield world
    world.close()


def budget(world, over, **more):
    limits = ", ".join(f"{key}: {value}" for key, value in more.items())
    text = f"{HEAD}budgets:\n- {{name: vision, of: {{team: vision}}, every: month, over: {over}, {limits}}}\n"
    world.policies.apply(text, by="olga")


def submit(world, name, **more):
    return world.submit(name=name, team="vision", **HOUR_OF_1KW, **more)


def standing(world):
    (found,) = world.budgets.standings()
    return found.use


def expected_ug(world, job):
    with world.store.transaction(write=False) as tx:
        return round(tx.decision(job.job_id).expected_co2e_g * 1e6)


def test_a_place_is_reserved_at_once_and_settled_by_what_was_metered(world):
    budget(world, "hold", co2e_kg=1)
    job = submit(world, "a")
    world.settle()
    use = standing(world)
    assert (use.reserved_ug, use.settled_ug, use.open_lines) == (expected_ug(world, job), 0, 1)
    world.run_to_end(job, energy_uj=3_600_000_000)  # 1 Wh, far less than expected
    world.budgets.settle()
    use = standing(world)
    assert (use.reserved_ug, use.settled_ug, use.open_lines) == (0, 50_000, 0)
    assert use.settled_uj == 3_600_000_000
    assert world.budgets.settle() == 0


def test_a_reservation_settles_also_while_no_job_waits(world):
    budget(world, "hold", co2e_kg=1)
    world.run_to_end(_placed(world), energy_uj=3_600_000_000)
    world.decide.step()
    assert (standing(world).open_lines, standing(world).settled_ug) == (0, 50_000)


def _placed(world):
    job = submit(world, "a")
    world.settle()
    return job


def test_without_room_a_job_is_held_and_starts_when_others_used_less(world):
    budget(world, "hold", co2e_kg=0.06)
    first, second = submit(world, "a"), submit(world, "b")
    world.settle()
    held = [job for job in (first, second) if world.job(job).state is JobState.QUEUED]
    assert len(held) == 1
    assert "budget acme/vision" in world.job(held[0]).reason
    assert "held until it fits" in world.job(held[0]).reason
    ran = first if held[0] is second else second
    world.run_to_end(ran, energy_uj=3_600_000_000)
    world.settle()
    assert world.job(held[0]).state is JobState.STARTING


def test_the_next_period_has_room_again(world):
    budget(world, "hold", co2e_kg=0.01)
    job = submit(world, "a")
    world.settle()
    assert world.job(job).state is JobState.QUEUED
    world.policies.apply(HEAD.replace("'*'", "'*'\ndescription: Later."), by="olga")
    budget(world, "hold", co2e_kg=0.1)
    world.clock.at = datetime(2026, 4, 1, tzinfo=timezone.utc)
    world.settle()
    assert world.job(job).state is JobState.STARTING
    assert standing(world).open_lines == 1


def test_a_warning_lets_the_job_run_and_says_so(world):
    budget(world, "warn", energy_kwh=0.5)
    job = submit(world, "a")
    world.settle()
    assert world.job(job).state is JobState.STARTING
    with world.store.transaction(write=False) as tx:
        reason = tx.decision(job.job_id).reason
    assert "0 of 0.5 kWh are taken" in reason
    assert "it runs all the same" in reason


def test_a_budget_that_denies_refuses(world):
    budget(world, "deny", co2e_kg=0.01)
    job = submit(world, "a")
    world.settle()
    assert world.job(job).state is JobState.REFUSED
    assert "the next period begins 2026-04-01T00:00:00Z" in world.job(job).reason


def test_an_approved_job_runs_and_the_approval_is_a_fact(world):
    budget(world, "approve", co2e_kg=0.01)
    job = submit(world, "a")
    world.settle()
    assert f"budget approve {job.job_id}" in world.job(job).reason
    assert world.budgets.approve(job.job_id, by="olga", reason="release") == ["acme/vision"]
    world.settle()
    assert world.job(job).state is JobState.STARTING
    with world.store.transaction(write=False) as tx:
        facts = [json.loads(entry.payload) for entry in tx.entries()]
    (fact,) = [fact["body"] for fact in facts if fact["kind"] == "budget-approved"]
    assert (fact["budget"], fact["reason"]) == ("acme/vision", "release")
    assert world.statements.verify().ok
    with pytest.raises(Conflict, match="only a job that waits"):
        world.budgets.approve(job.job_id, by="olga", reason="again")


def test_what_no_budget_holds_needs_no_approval(world):
    budget(world, "hold", co2e_kg=100)
    other = world.submit(name="b", earliest="2026-03-02T12:00:00Z")
    world.settle()
    with pytest.raises(Conflict, match="no budget holds"):
        world.budgets.approve(other.job_id, by="olga", reason="why not")


def test_jobs_of_other_teams_are_not_counted(world):
    budget(world, "deny", co2e_kg=0.01)
    job = world.submit(name="a", team="speech", **HOUR_OF_1KW)
    world.settle()
    assert world.job(job).state is JobState.STARTING
    assert standing(world).open_lines == 0


def test_a_submission_that_no_cluster_took_is_settled_with_nothing(world):
    budget(world, "hold", co2e_kg=1)
    job = submit(world, "a")
    for cluster in world.fleet.all():
        world.fleet.poll(cluster)
    world.decide.step()
    assert standing(world).open_lines == 1
    world.accept.stop(job.job_id)
    world.settle()
    world.budgets.settle()
    use = standing(world)
    assert (use.reserved_ug, use.settled_ug, use.open_lines) == (0, 0, 0)


def test_the_forecast_extends_what_was_used_to_the_whole_period(world):
    budget(world, "hold", co2e_kg=1)
    submit(world, "a")
    world.settle()
    assert world.budgets.standings()[0].forecast_ug is None
    world.clock.at = datetime(2026, 3, 11, 8, tzinfo=timezone.utc)  # a third of March has passed
    (found,) = world.budgets.standings()
    assert found.forecast_ug == 3 * found.use.ug


@pytest.mark.parametrize(
    ("every", "at", "begin", "end"),
    [
        ("week", "2026-03-04T12:00+00:00", "2026-03-01T23:00+00:00", "2026-03-08T23:00+00:00"),
        ("week", "2026-03-28T12:00+00:00", "2026-03-22T23:00+00:00", "2026-03-29T22:00+00:00"),  # a day of 23 hours
        ("month", "2026-12-31T22:59+00:00", "2026-11-30T23:00+00:00", "2026-12-31T23:00+00:00"),
        ("month", "2026-12-31T23:00+00:00", "2026-12-31T23:00+00:00", "2027-01-31T23:00+00:00"),
        ("quarter", "2026-05-31T12:00+00:00", "2026-03-31T22:00+00:00", "2026-06-30T22:00+00:00"),
        ("year", "2026-05-31T12:00+00:00", "2025-12-31T23:00+00:00", "2026-12-31T23:00+00:00"),
    ],
)
def test_periods_begin_at_midnight_of_their_zone(every, at, begin, end):
    one = Budget("a/b", Selector(), Every(every), ZoneInfo("Europe/Berlin"), 1, None, Over.WARN)
    assert [t.isoformat(timespec="minutes") for t in one.period(datetime.fromisoformat(at))] == [begin, end]


def test_the_day_it_begins_has_no_forecast(world):
    budget(world, "hold", co2e_kg=1)
    world.clock.at = datetime(2026, 4, 1, tzinfo=timezone.utc) + timedelta(hours=23)
    assert world.budgets.standings()[0].forecast_ug is None
    assert START.month == 3
