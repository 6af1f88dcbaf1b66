"""The replay of pausing jobs: what each slot really emits, and that it is the planner's rule that decides."""

from __future__ import annotations

import numpy as np
import pytest

from carbon_sched.simulate.baselines import rows_ahead
from carbon_sched.simulate.pausing import cheapest_for_the_mean, cheapest_for_the_rest, dynamic, replay
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


@pytest.mark.parametrize("rule", [cheapest_for_the_mean, cheapest_for_the_rest])
def test_with_true_durations_the_cheapest_slots_are_the_oracles_but_for_the_last_part(rule):
    whole = Jobs(JOBS.submitted_h, np.array([2.0, 4.0, 7.0]), JOBS.units)
    best = replay(whole, SLACK, known(whole), SEEN, ACTUAL, dynamic())
    cheap = replay(whole, SLACK, known(whole), SEEN, ACTUAL, rule)
    assert cheap.grams == pytest.approx(best.grams)


def test_pauses_and_run_fit_into_the_slack():
    never = replay(JOBS, SLACK, known(JOBS), SEEN, ACTUAL, lambda durations, *_: np.zeros(len(durations), dtype=bool))
    assert never.grams == pytest.approx(grams(JOBS, ACTUAL, JOBS.submitted_h + SLACK))


def test_past_the_mean_a_run_is_taken_to_be_about_to_end_and_a_conditional_one_is_not():
    durations, ahead = np.array([[1.0, 1.0, 10.0]]), np.array([[5.0, 9.0, *[1.0] * 20]])
    done, left, state = np.array([4]), np.array([4]), np.array([1])
    assert not cheapest_for_the_mean(durations, done, left, state, ahead)[0]
    # six more hours within ten: the first one is needed all the same when only eight are cheap
    tight = np.array([[5.0, 9.0, *[1.0] * 5, *[9.0] * 20]])
    assert cheapest_for_the_rest(durations, done, left, state, tight)[0]
    assert not cheapest_for_the_mean(durations, done, left, state, tight)[0]
