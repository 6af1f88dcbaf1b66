"""The replay of pausing jobs: what each slot really emits, and that it is the planner's rule that decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from carbon_sched.simulate.baselines import rows_ahead
from carbon_sched.simulate.pausing import Moment, Places, cheapest_for_the_mean, cheapest_for_the_rest, dynamic, replay
from carbon_sched.simulate.start_time import grams, options
from carbon_sched.simulate.traces import Jobs

RNG = np.random.default_rng(3)
ACTUAL = 300 + 200 * np.sin(np.arange(200) / 24 * 2 * np.pi) + RNG.normal(0, 20, 200)
JOBS = Jobs(np.array([10.25, 20.5, 33.0]), np.array([1.5, 4.0, 7.25]), np.array([1.0, 2.0, 4.0]))
SLACK = np.array([6, 12, 24])
PLACES = Places([rows_ahead(ACTUAL, 60)], ACTUAL[None], np.zeros(3, dtype=np.int64))


def known(jobs):
    return jobs.hours[:, None]


def test_without_slack_it_runs_at_once():
    done = replay(JOBS, np.zeros(3, dtype=np.int64), PLACES, dynamic(known(JOBS)))
    assert done.grams == pytest.approx(grams(JOBS, ACTUAL, JOBS.submitted_h))
    assert not done.pauses.any()


def test_who_may_pause_ends_no_worse_than_with_the_best_start():
    done = replay(JOBS, SLACK, PLACES, dynamic(known(JOBS)))
    best = options(JOBS, SLACK, ACTUAL).min(axis=1)
    assert (done.grams <= best * (1 + 1e-6)).all()
    assert done.grams.sum() < best.sum()


def test_a_resume_that_costs_much_is_never_planned_and_one_that_happens_is_paid():
    dear = replay(JOBS, SLACK, PLACES, dynamic(known(JOBS), 1e3), 1e3)
    assert not dear.pauses.any()
    assert dear.grams == pytest.approx(options(JOBS, SLACK, ACTUAL).min(axis=1), rel=1e-6)
    free = replay(JOBS, SLACK, PLACES, dynamic(known(JOBS)))
    paid = replay(JOBS, SLACK, PLACES, dynamic(known(JOBS)), 0.5)
    assert free.pauses.any()
    assert (paid.grams > free.grams)[free.pauses > 0].all()
    assert paid.grams[free.pauses == 0] == pytest.approx(free.grams[free.pauses == 0])


@pytest.mark.parametrize("rule", [cheapest_for_the_mean, cheapest_for_the_rest])
def test_with_true_durations_the_cheapest_slots_are_the_oracles_but_for_the_last_part(rule):
    whole = Jobs(JOBS.submitted_h, np.array([2.0, 4.0, 7.0]), JOBS.units)
    best = replay(whole, SLACK, PLACES, dynamic(known(whole)))
    cheap = replay(whole, SLACK, PLACES, rule(known(whole)))
    assert cheap.grams == pytest.approx(best.grams)


def test_every_zone_is_replayed_as_if_it_were_the_only_one():
    other = ACTUAL[::-1]
    both = Places([rows_ahead(ACTUAL, 60), rows_ahead(other, 60)], np.stack([ACTUAL, other]), np.array([1, 0, 1]))
    alone = Places([rows_ahead(other, 60)], other[None], np.zeros(3, dtype=np.int64))
    here, there, mixed = (replay(JOBS, SLACK, places, dynamic(known(JOBS))).grams for places in (PLACES, alone, both))
    assert mixed == pytest.approx([there[0], here[1], there[2]])


def test_pauses_and_run_fit_into_the_slack():
    never = replay(JOBS, SLACK, PLACES, lambda at: np.zeros(len(at.which), dtype=bool))
    assert never.grams == pytest.approx(grams(JOBS, ACTUAL, JOBS.submitted_h + SLACK))


def test_past_the_mean_a_run_is_taken_to_be_about_to_end_and_a_conditional_one_is_not():
    durations, ahead = np.array([[1.0, 1.0, 10.0]]), np.array([[5.0, 9.0, *[1.0] * 20]])
    at = Moment(np.array([0]), np.array([4]), np.array([4]), np.array([1]), ahead)
    assert not cheapest_for_the_mean(durations)(at)[0]
    # six more hours within ten: the first one is needed all the same when only eight are cheap
    tight = replace(at, ahead=np.array([[5.0, 9.0, *[1.0] * 5, *[9.0] * 20]]))
    assert cheapest_for_the_rest(durations)(tight)[0]
    assert not cheapest_for_the_mean(durations)(tight)[0]
