"""A policy file tried on what the store remembers: jobs that ran, were metered, and are over."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta

import pytest

from carbon_sched.domain.errors import Conflict, InvalidFile, InvalidInput
from carbon_sched.domain.policy_version import Trial
from carbon_sched.domain.units import UG_PER_G
from carbon_sched.simulate import history, trial
from carbon_sched.simulate.trial import Trials
from tests.fakes.world import START, World, a_cluster

HEAD = "apiVersion: carbon-sched/v1\nname: acme\nteam: '*'\n"
WAITS = HEAD + "extends: balanced\nflexibility: {max_delay: 8h}\n"
DAY_S, KWH_UJ = 86_400.0, 3_600_000_000_000
QUARTERS = range(-59 * 4, 30 * 4)
DIRTY_BY_DAY = [(q * DAY_S / 4, 50.0 if q % 4 in {1, 2} else 400.0) for q in QUARTERS]  # clean from 18:00 to 6:00


@pytest.fixture
def world(tmp_path, monkeypatch):
    made = World(tmp_path, [a_cluster("a", "DE")], {"DE": DIRTY_BY_DAY})
    # what comes out is tested here; that it is found in another process, a contract test shows
    monkeypatch.setattr(trial, "_elsewhere", lambda scenario, both: [trial._replayed(scenario, one) for one in both])
    yield made
    made.close()


def run_daily(world, days, **request):
    """A job of an hour and a kilowatt-hour at noon of each day."""
    for _ in range(days):
        job = world.submit(duration_s=3600.0, **request)
        world.settle()
        world.run_to_end(job, seconds=3600, energy_uj=KWH_UJ, seq=int(job.job_id.removeprefix("job")))
        world.settle()
        assert world.job(job).state.final
        world.clock.pass_s(DAY_S - 3600)


def tried(world, content, margin_ppm=10_000):
    return Trials(world.store, world.policies, world.statements, world.outlooks, world.clock).of(content, margin_ppm)


def grams(found):
    return round(found.before_ug / UG_PER_G), round(found.after_ug / UG_PER_G)


def test_what_a_change_would_have_saved_is_found_from_the_jobs_own_energy_and_grid(world):
    run_daily(world, 5)
    found = tried(world, WAITS)
    assert (found.jobs, found.left_out, found.since, found.until) == (5, 0, START, START + timedelta(days=5))
    assert grams(found) == (2000, 250)
    assert (found.before_late, found.after_late, found.worse) == (0, 0, False)
    assert "250 g CO2e instead of 2000 (-87.5%), 0 late instead of 0" in found.told


def test_jobs_of_the_hours_just_over_are_replayed(world):
    run_daily(world, 1)
    world.clock.at = START + timedelta(hours=25, minutes=40)
    job = world.submit(duration_s=60.0)
    world.settle()
    world.run_to_end(job, seconds=300, energy_uj=KWH_UJ, seq=99)
    world.settle()
    found = tried(world, HEAD + "extends: balanced\n")
    assert (found.jobs, found.before_late, found.after_late, grams(found)) == (2, 0, 0, (800, 800))


def test_a_change_that_makes_it_worse_is_refused_with_the_figures_and_changes_nothing(world):
    run_daily(world, 3)
    world.policies.apply(WAITS, by="olga")
    before, eager = world.policies.now(), HEAD + "extends: run-now\n"
    found = tried(world, eager)
    assert (grams(found), found.worse) == ((150, 1200), True)
    with pytest.raises(Conflict, match=r"nothing was applied: the backtest is worse .*1200 g .* instead of 150"):
        world.policies.apply(eager, by="olga", trial=found)
    assert world.policies.now() is before


def test_rules_are_asked_about_each_job(world):
    run_daily(world, 2, team="vision")
    run_daily(world, 2, team="speech")
    rules = "rules:\n- when: {team: vision}\n  set: {flexibility: {max_delay: 8h}}\n"
    assert grams(tried(world, HEAD + "extends: balanced\n" + rules)) == (1600, 900)


def test_jobs_that_may_be_suspended_are_replayed_in_one_piece(world):
    run_daily(world, 2, interruptible=True)
    assert grams(tried(world, WAITS)) == (800, 100)


def test_jobs_that_find_no_place_any_more_are_late(world):
    run_daily(world, 4)
    found = tried(world, HEAD + "clusters: {denied: [a]}\n")
    assert (found.before_late, found.after_late, found.worse) == (0, 4, True)


def test_deadlines_that_a_policy_would_ignore_are_missed(world):
    for _ in range(3):
        run_daily(world, 1, deadline=(world.clock.now() + timedelta(hours=2)).isoformat())
    assert tried(world, WAITS).after_late == 0
    found = tried(world, WAITS.replace("8h", "8h, declared: ignore"))
    assert (found.before_late, found.after_late, found.worse) == (0, 3, True)


@pytest.mark.parametrize(
    ("before", "after", "late", "worse"),
    [
        (1_000_000, 1_010_000, 0, False),
        (1_000_000, 1_010_001, 0, True),
        (0, 1, 0, True),
        (1_000_000, 0, 1, False),
        (1_000_000, 0, 2, True),
    ],
)
def test_worse_is_what_exceeds_the_margin(before, after, late, worse):
    assert Trial(START, START, 100, 0, before, after, 3, 3 + late, 10_000, 0).worse is worse


def test_what_was_tried_stands_in_the_versions_fact(world):
    run_daily(world, 2)
    found = tried(world, WAITS)
    world.policies.apply(WAITS, by="olga", trial=found)
    with world.store.transaction(write=False) as tx:
        fact = json.loads(tx.entries()[-1].payload)
    assert fact["kind"] == "policy-applied"
    assert fact["body"]["backtest"] == found.body()
    assert world.statements.verify().ok


def test_a_trial_against_policies_that_changed_meanwhile_is_not_applied(world):
    run_daily(world, 1)
    found = tried(world, WAITS)
    world.policies.apply(HEAD.replace("acme", "other").replace("'*'", "vision"), by="olga")
    with pytest.raises(Conflict, match="policies changed meanwhile"):
        world.policies.apply(WAITS, by="olga", trial=found)


def test_without_a_past_there_is_nothing_to_try_on(world):
    with pytest.raises(Conflict, match=r"no job of the last 28 days ran.*without --require-backtest"):
        tried(world, WAITS)
    run_daily(world, 1)
    with pytest.raises(InvalidFile):
        tried(world, HEAD + "minimum_gain: 3\n")
    with pytest.raises(InvalidInput, match="backtest_margin_ppm"):
        tried(world, WAITS, -1)


def test_jobs_whose_longest_wait_is_not_over_are_left_out(world):
    run_daily(world, 2)
    world.clock.pass_s(3600 - DAY_S)  # an hour after the start of the second
    found = tried(world, WAITS)
    assert (found.jobs, found.left_out) == (1, 1)


def test_hours_are_means_of_what_holds_within_them(world):
    known = world.outlooks.actual("DE", START, START + timedelta(hours=12), START)
    half = timedelta(minutes=30)
    shifted = [replace(one, start=one.start + half, end=one.end + half) for one in known]
    shifted = [replace(shifted[0], start=START), *shifted[1:]]
    found = history._hourly(shifted, START, 12)
    assert found[:6].tolist() == [400.0] * 6
    assert found[6] == 225.0
    assert found[7:].tolist() == [50.0] * 5
