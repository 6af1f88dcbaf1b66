"""The production decision code on a virtual clock: what comes of small scenarios that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from carbon_sched.policy.presets import preset
from carbon_sched.simulate.bounds import start_time_oracle
from carbon_sched.simulate.replay import foreseen, replay
from carbon_sched.simulate.scenario import NOWHERE
from carbon_sched.simulate.traces import Jobs
from tests.fakes.backtests import a_cluster, a_grid, a_scenario, daily, some_jobs

BALANCED, RUN_NOW = preset("balanced"), preset("run-now")


def test_jobs_without_slack_start_at_once_where_it_is_cleaner():
    grid = a_grid(A=400, B=100)
    of = a_scenario(some_jobs(3), [a_cluster("a", "A"), a_cluster("b", "B")], grid)
    done = replay(of, BALANCED)
    assert done.cluster.tolist() == [1, 1, 1]
    assert done.start_h.tolist() == of.jobs.submitted_h.tolist()


def test_a_job_waits_for_the_clean_hours_and_a_policy_may_forbid_it():
    # cleanest at 6:00; submitted at midnight, one hour long
    of = a_scenario(some_jobs(1, hours=1.0), [a_cluster("a", "A")], a_grid(A=daily(300, 200)), slack="12h")
    waited = replay(of, BALANCED, knowledge=foreseen)
    assert waited.start_h[0] == pytest.approx(5.5, abs=0.51)
    assert replay(of, RUN_NOW).start_h[0] == 0.0


def test_no_job_starts_later_than_its_slack_allows():
    of = a_scenario(some_jobs(20, every_h=0.5), [a_cluster("a", "A")], a_grid(A=daily(300, 200)), slack="5h")
    done = replay(of, BALANCED)
    assert (done.start_h <= of.latest_h + 1e-9).all()
    assert (done.start_h >= of.jobs.submitted_h).all()


def test_capacity_holds_and_a_full_cluster_makes_jobs_wait():
    jobs = Jobs(np.zeros(3), np.array([2.0, 2.0, 2.0]), np.array([4.0, 4.0, 4.0]))
    of = a_scenario(jobs, [a_cluster("a", "A", gpus=8)], a_grid(A=100))
    done = replay(of, BALANCED)
    assert sorted(done.start_h.tolist()) == [0.0, 0.0, 2.0]


def test_a_full_clean_cluster_sends_jobs_to_the_next():
    jobs = Jobs(np.zeros(2), np.full(2, 5.0), np.full(2, 8.0))
    of = a_scenario(jobs, [a_cluster("a", "A", gpus=8), a_cluster("b", "B", gpus=8)], a_grid(A=100, B=300))
    done = replay(of, BALANCED)
    assert sorted(done.cluster.tolist()) == [0, 1]
    assert done.start_h.tolist() == [0.0, 0.0]


def test_units_are_held_for_whole_steps_and_given_back():
    jobs = Jobs(np.array([0.0, 0.25]), np.array([0.3, 1.0]), np.array([8.0, 8.0]))
    of = a_scenario(jobs, [a_cluster("a", "A", gpus=8)], a_grid(A=100), step_min=5)
    assert replay(of, BALANCED).start_h[1] == pytest.approx(4 / 12)


def test_a_deadline_that_no_run_can_meet_is_refused_and_never_starts():
    of = a_scenario(some_jobs(2), [a_cluster("a", "A")], a_grid(A=100))
    hopeless = type(of)(**{**vars_of(of), "deadline_h": np.array([0.001, 100.0])})
    done = replay(hopeless, BALANCED, knowledge=foreseen)
    assert done.cluster.tolist() == [NOWHERE, 0]


def test_a_deadline_between_two_steps_is_met_though_the_clean_hours_come_after_it():
    of = a_scenario(some_jobs(1, hours=1.0), [a_cluster("a", "A")], a_grid(A=daily(300, 200)), step_min=60)
    bound = type(of)(**{**vars_of(of), "deadline_h": np.array([4.6])})
    done = replay(bound, BALANCED, knowledge=foreseen)
    assert 3.0 < done.start_h[0] <= 3.6


def test_the_same_scenario_gives_the_same_schedule():
    of = a_scenario(some_jobs(12), [a_cluster("a", "A", gpus=4)], a_grid(A=daily(300, 200)), slack="6h")
    one, other = replay(of, BALANCED), replay(of, BALANCED)
    assert one.start_h.tolist() == other.start_h.tolist()


def test_finished_runs_teach_the_ones_that_come():
    # ten-hour jobs: the published traces say most jobs are short; what has ended here says otherwise
    jobs = some_jobs(30, hours=10.0, every_h=13.0)
    of = a_scenario(jobs, [a_cluster("a", "A")], a_grid(A=daily(300, 250)), slack="23h")
    done = replay(of, BALANCED)
    over = of.grams(done.cluster, done.start_h) / start_time_oracle(of).grams
    assert over[-10:].mean() < over[:5].mean() - 0.01


def test_jobs_that_come_every_week_are_expected_as_in_production():
    # one comes at midnight and one at two, and the cluster holds one at a time: the first may wait for the clean
    # morning, and does until a week is known
    nights = np.arange(12) * 24.0
    submitted = np.sort(np.concatenate([nights, nights + 2.0]))
    jobs = Jobs(submitted, np.full(24, 8.0), np.full(24, 8.0))
    of = a_scenario(jobs, [a_cluster("a", "A", gpus=8)], a_grid(A=daily(300, 200)), slack="12h")
    waits = (replay(of, BALANCED, knowledge=foreseen).start_h - submitted)[::2]
    assert waits[:7].min() > 1.0
    assert waits[8:].max() == 0.0


def test_progress_is_told_up_to_the_end():
    seen: list[float] = []
    replay(a_scenario(some_jobs(3), [a_cluster("a", "A")], a_grid(A=100)), BALANCED, progress=seen.append)
    assert seen[-1] == 1.0


def vars_of(of):
    return {name: getattr(of, name) for name in type(of).__dataclass_fields__}
