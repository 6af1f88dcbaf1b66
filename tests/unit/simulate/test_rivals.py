"""Other people's rules within capacity, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from carbon_sched.domain.errors import InvalidInput
from carbon_sched.simulate.rivals import baseline, check_names, names
from carbon_sched.simulate.traces import Jobs
from tests.fakes.backtests import a_cluster, a_grid, a_scenario, daily, some_jobs


def dirty_home(jobs: Jobs, *, gpus: float | None = None, **options):
    clusters = [a_cluster("home", "A", gpus=gpus, home=True), a_cluster("away", "B", gpus=gpus)]
    return a_scenario(jobs, clusters, a_grid(A=500, B=100), **options)


def test_run_now_here_stays_at_home_and_best_fixed_goes_where_it_was_clean():
    of = dirty_home(some_jobs(4))
    here, fixed = baseline("run-now-here", of), baseline("best-fixed", of)
    assert here.cluster.tolist() == [0] * 4
    assert fixed.cluster.tolist() == [1] * 4
    assert fixed.grams.sum() == pytest.approx(here.grams.sum() / 5)


def test_greedy_goes_where_this_hour_is_clean():
    # A is cleaner at midnight, B at noon
    grid = a_grid(A=daily(300, 200, peak_h=12), B=daily(300, 200, peak_h=0))
    jobs = Jobs(np.array([0.0, 12.0]), np.ones(2), np.ones(2))
    of = a_scenario(jobs, [a_cluster("a", "A"), a_cluster("b", "B")], grid)
    assert baseline("greedy-now", of).cluster.tolist() == [0, 1]


def test_a_full_best_cluster_sends_the_rest_to_the_next_and_home_makes_them_wait():
    jobs = Jobs(np.zeros(2), np.full(2, 3.0), np.full(2, 8.0))
    of = dirty_home(jobs, gpus=8)
    assert sorted(baseline("best-fixed", of).cluster.tolist()) == [0, 1]
    assert sorted(baseline("run-now-here", of).start_h.tolist()) == [0.0, 3.0]


def test_small_jobs_pass_large_ones_that_do_not_fit():
    jobs = Jobs(np.zeros(3), np.array([2.0, 1.0, 1.0]), np.array([6.0, 8.0, 2.0]))
    of = a_scenario(jobs, [a_cluster("a", "A", gpus=8)], a_grid(A=100))
    assert baseline("run-now-here", of).start_h.tolist() == [0.0, 2.0, 0.0]


@pytest.mark.parametrize("name", ["lowest-slot", "lowest-window", "carbon-time", "cats-48h", "wait-awhile"])
def test_temporal_rules_find_the_valley_and_keep_the_slack(name):
    of = a_scenario(some_jobs(6, hours=1.0), [a_cluster("a", "A")], a_grid(A=daily(300, 200)), slack="12h")
    found, now = baseline(name, of), baseline("run-now-here", of)
    assert found.grams.sum() < 0.75 * now.grams.sum()
    assert not found.late.any()


def test_jobs_that_never_start_are_late_and_not_free():
    jobs = Jobs(np.zeros(3), np.full(3, 500.0), np.full(3, 8.0))
    of = a_scenario(jobs, [a_cluster("a", "A", gpus=8)], a_grid(A=100))
    done = baseline("run-now-here", of)
    assert done.late.tolist() == [False, True, True]
    assert np.isnan(done.start_h[2])
    assert done.grams[1:] == pytest.approx([done.grams[0]] * 2, rel=1e-6)


def test_an_unknown_baseline_is_named_with_those_there_are():
    with pytest.raises(InvalidInput, match=r"'lowest-price' is not a known baseline.*lowest-window"):
        check_names(["lowest-price"])
    check_names(names())
