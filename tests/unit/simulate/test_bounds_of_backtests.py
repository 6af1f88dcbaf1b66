"""Bounds of a backtest: below everything that can be done, and no lower than they must be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carbon_sched.planning.milp import solve_exactly
from carbon_sched.policy.presets import preset
from carbon_sched.simulate import bounds
from carbon_sched.simulate.replay import replay
from carbon_sched.simulate.traces import Jobs
from tests.fakes.backtests import a_cluster, a_grid, a_scenario, daily, some_jobs


def noisy(seed: int):
    return lambda hours: 200 + 150 * np.random.default_rng(seed).random(len(hours))


def two_zones(jobs: Jobs, *, gpus: float | None = None, **options):
    clusters = [a_cluster("a", "A", gpus=gpus), a_cluster("b", "B", gpus=gpus, pue=1.3)]
    return a_scenario(jobs, clusters, a_grid(A=noisy(1), B=noisy(2)), **options)


def test_the_start_time_oracle_is_the_best_of_all_starts_and_places():
    of = two_zones(some_jobs(5, hours=2.3, every_h=3.0), slack="4h")
    waits = np.arange(0, 4 + of.step_h / 2, of.step_h)
    each = [[of.grams(np.full(5, lane), of.jobs.submitted_h + wait) for wait in waits] for lane in (0, 1)]
    assert bounds.start_time_oracle(of).grams == pytest.approx(np.min(each, axis=(0, 1)))


def test_jobs_too_large_for_a_cluster_are_not_counted_there():
    jobs = Jobs(np.zeros(1), np.ones(1), np.array([8.0]))
    clusters = [a_cluster("clean", "A", gpus=4), a_cluster("dirty", "B", gpus=8)]
    of = a_scenario(jobs, clusters, a_grid(A=10, B=500))
    assert bounds.start_time_oracle(of).cluster.tolist() == [1]


@given(st.integers(0, 1000), st.floats(0.2, 30.0), st.sampled_from(["none", "3h", "24h"]))
@settings(max_examples=20, deadline=None)
def test_pausing_can_only_help(seed, hours, slack):
    of = a_scenario(some_jobs(3, hours=hours), [a_cluster("a", "A")], a_grid(A=noisy(seed)), slack=slack)
    assert (bounds.suspend_oracle(of) <= bounds.start_time_oracle(of).grams * (1 + 1e-9)).all()


def test_pausing_takes_the_cheapest_hours():
    values = np.full(50 * 24, 100.0)
    values[28 * 24 + np.array([1, 3])] = 10.0
    of = a_scenario(some_jobs(1, hours=2.0), [a_cluster("a", "A")], a_grid(A=lambda _: values), slack="4h")
    assert bounds.suspend_oracle(of)[0] == pytest.approx(of.unit_kw * 20.0)


def test_our_rule_with_perfect_knowledge_is_the_oracle_on_full_hours():
    of = a_scenario(some_jobs(48, hours=3.0), [a_cluster("a", "A")], a_grid(A=daily(300, 200)), slack="12h")
    known = of.jobs.hours[:, None] * 3600
    ruled = bounds.ruled(of, of.forecast, known).sum()
    assert ruled == pytest.approx(bounds.start_time_oracle(of).grams.sum(), rel=0.01)
    assert bounds.ruled(of, of.forecast, bounds.beliefs(of)).sum() >= ruled


def test_without_scarcity_the_capacity_bound_is_the_oracle():
    of = two_zones(some_jobs(10), slack="6h")
    oracle = bounds.start_time_oracle(of)
    assert bounds.capacity_bound(of, oracle) == pytest.approx(oracle.grams.sum())


def test_the_capacity_bound_lies_between_the_oracle_and_the_exact_optimum():
    rng = np.random.default_rng(5)
    jobs = Jobs(np.sort(rng.integers(0, 12, 24)).astype(float), rng.uniform(1, 6, 24), rng.integers(1, 4, 24) * 1.0)
    of = two_zones(jobs, gpus=8, slack="12h")
    oracle = bounds.start_time_oracle(of)
    bound = bounds.capacity_bound(of, oracle)
    exact = solve_exactly(exact_problem(of), seconds=20).grams
    assert oracle.grams.sum() < bound <= exact * (1 + 1e-6)
    assert bound >= 0.97 * exact


def exact_problem(of):
    """Every job its own group, so that its cost and length are its own."""
    problem = bounds.problem_of(of, np.arange(len(of.jobs)))
    assert len(problem.slots) == len(of.jobs)
    return problem


def test_no_replay_goes_below_the_capacity_bound():
    of = two_zones(some_jobs(24, hours=3.0, units=2.0, every_h=0.5), gpus=6, slack="8h")
    done = replay(of, preset("balanced"))
    assert (done.cluster >= 0).all()
    assert of.grams(done.cluster, done.start_h).sum() >= bounds.capacity_bound(of, bounds.start_time_oracle(of))
