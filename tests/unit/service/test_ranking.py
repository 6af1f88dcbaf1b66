"""What clusters and hours are ranked by where a policy says other than what is booked."""

from __future__ import annotations

import json

import pytest

from carbon_sched.domain.errors import InvalidFile
from carbon_sched.domain.facts import FactKind
from carbon_sched.domain.job import JobState
from tests.fakes.world import FakeGrid, World, a_cluster

HOUR_S = 3600.0
HEAD = "apiVersion: carbon-sched/v1\nname: acme\nextends: balanced\n"
MARGINAL = HEAD + "team: '*'\nsignal: {kind: marginal}\n"


@pytest.fixture
def world(tmp_path):
    """North is clean on average, and south at the margin, in an hour more so."""
    opened = World(
        tmp_path, [a_cluster("north", "NO"), a_cluster("south", "ES")], {"NO": [(0, 50.0)], "ES": [(0, 400.0)]}
    )
    opened.grid.marginal = FakeGrid({"NO": [(0, 600.0)], "ES": [(0, 500.0), (HOUR_S, 100.0)]})
    yield opened
    opened.close()


def decision(world, job):
    with world.store.transaction(write=False) as tx:
        return tx.decision(job.job_id)


def fact_of(world, job):
    with world.store.transaction(write=False) as tx:
        facts = [json.loads(entry.payload) for entry in tx.entries()]
    return next(f["body"] for f in facts if f["kind"] == FactKind.JOB_DECIDED.value and f["body"]["job"] == job.job_id)


def test_marginal_intensity_places_and_average_is_told_and_booked(world):
    average = world.submit()
    world.settle()
    world.policies.apply(MARGINAL, by="ana")
    marginal = world.submit()
    world.settle()
    assert [world.attempts(job)[0].cluster for job in (average, marginal)] == ["north", "south"]
    one, other = decision(world, average), decision(world, marginal)
    assert other.expected_co2e_g == pytest.approx(8 * one.expected_co2e_g), "counted like the receipt: 400 against 50"
    assert other.reason.endswith("; ranked by marginal intensity")
    assert fact_of(world, marginal)["ranked_by"] == "ranked by marginal intensity"
    assert "ranked_by" not in fact_of(world, average)


def test_marginal_intensity_delays(world):
    world.policies.apply(MARGINAL, by="ana")
    job = world.submit(max_delay_s=4 * HOUR_S, duration_s=HOUR_S)
    world.settle()
    assert world.job(job).state is JobState.QUEUED
    assert (world.job(job).not_before - world.clock.now()).total_seconds() == pytest.approx(HOUR_S, abs=60)


def test_without_marginal_values_the_average_decides_and_the_reason_says_so(world):
    world.grid.marginal = None
    world.policies.apply(MARGINAL, by="ana")
    job = world.submit()
    world.settle()
    assert world.attempts(job)[0].cluster == "north"
    assert "not ranked by marginal intensity, since there is none" in decision(world, job).reason


@pytest.mark.parametrize(
    ("text", "field", "line"),
    [
        (HEAD + "team: vision\nsignal: {kind: marginal}\n", "signal.kind", 5),
        (HEAD + "signal: {basis: direct}\n", "signal.basis", 4),
        (HEAD + "team: '*'\nphases: {evaluation: {signal: {kind: marginal}}}\n", "phases.evaluation.signal.kind", 5),
        (
            HEAD + "team: '*'\nrules: [{when: {team: a}, set: {signal: {kind: average}}}]\n",
            "rules.0.set.signal.kind",
            5,
        ),
    ],
)
def test_a_signal_for_some_jobs_only_is_refused(world, text, field, line):
    with pytest.raises(InvalidFile) as refused:
        world.policies.apply(text, by="ana")
    (problem,) = refused.value.problems
    assert (problem.field, problem.line) == (field, line)
    assert "policy for every team (team: '*')" in problem.remedy
