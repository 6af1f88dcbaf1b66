"""The replay of pausing jobs: what each slot really emits, and that it is the planner's rule that decides."""

from __future__ import annotations

import numpy as np
import pytest

from carbon_sched.simulate.baselines import rows_ahead
from carbon_sched.simulate.pausing import cheapest_for_the_mean, dynamic, replay
from carbon_sched.simulate.start_time import grams, options
from carbon_sched.simulate.traces import Jobs

RNG = np.random.default_rng(3)
ACTUAL = 300 + 200 * np.sin(np.arange(200) / 24 * 2 * np.pi) + RNG.normal(0, 20, 200)
JOBS = Jobs(np.array([10.25, 20.5, 33.0]), np.array([1.5, 4.0, 7.25]), np.array([1.0, 2.0, 4.0]))
SLACK = np.array([6, 12, 24])
SEEN = rows_ahead(ACTUAL, 60)


def known(jobs):
    return jobs.hours[:, None]


def test_without_slack_it_runs_at_once():
    done = replay(JOBS, np.zeros(3, dtype=np.int64), known(JOBS), SEEN, ACTUAL, dynamic())
    assert done.grams == pytest.approx(grams(JOBS, ACTUAL, JOBS.submitted_h))
    assert not done.pauses.any()


def test_who_may_pause_ends_no_worse_than_with_the_best_start():
    done = replay(JOBS, SLACK, known(JOBS), SEEN, ACTUAL, dynamic())
    best = options(JOBS, SLACK, ACTUAL).min(axis=1)
    assert (done.grams <= best * (1 + 1e-6)).all()
    assert done.grams.sum() < best.sum()


def test_a_resume_that_costs_much_is_never_planned_and_one_that_happens_is_paid():
    dear = replay(JOBS, SLACK, known(JOBS), SEEN, ACTUAL, dynamic(1e3), 1e3)
    assert not dear.pauses.any()
    assert dear.grams == pytest.approx(options(JOBS, SLACK, ACTUAL).min(axis=1), rel=1e-6)
    free = replay(JOBS, SLACK, known(JOBS), SEEN, ACTUAL, dynamic())
    paid = replay(JOBS, SLACK, known(JOBS), SEEN, ACTUAL, dynamic(), 0.5)
    assert free.pauses.any()
    assert (paid.grams > free.grams)[free.pauses > 0].all()
    assert paid.grams[free.pauses == 0] == pytest.approx(free.grams[free.pauses == 0])


def test_with_true_durations_the_cheapest_slots_are_the_oracles_but_for_the_last_part():
    whole = Jobs(JOBS.submitted_h, np.array([2.0, 4.0, 7.0]), JOBS.units)
    best = replay(whole, SLACK, known(whole), SEEN, ACTUAL, dynamic())
    cheap = replay(whole, SLACK, known(whole), SEEN, ACTUAL, cheapest_for_the_mean)
    assert cheap.grams == pytest.approx(best.grams)


def test_pauses_and_run_fit_into_the_slack():
    never = replay(JOBS, SLACK, known(JOBS), SEEN, ACTUAL, lambda durations, *_: np.zeros(len(durations), dtype=bool))
    assert never.grams == pytest.approx(grams(JOBS, ACTUAL, JOBS.submitted_h + SLACK))
